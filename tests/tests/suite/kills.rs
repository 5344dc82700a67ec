//! `kill -9` of each process, once each inside a migration: nothing is lost, doubled, reordered or wrongly answered.
//!
//! Each test stops the migration at a phase, kills, brings back what an operator's supervisor would bring back, and lets
//! it go on. [`super::ends_clean`] then asks the oracle.

use segue_tests::harness::{Cluster, Hold, Load, Migration, Recorder, SERVICE, Setup};

use super::BROKER;
use crate::{RATE_PER_S, ends_clean};

/// A migration from `edge-a` to `edge-b` that stands before `phase`, under load.
struct Held {
    cluster: Cluster,
    recorder: Recorder,
    load: Load,
    id: String,
}

impl Held {
    async fn before(phase: &str) -> Held {
        let cluster = Setup::two_nodes().on(BROKER).hurting_the_broker().hold(Hold::before(phase)).start().await;
        let recorder = cluster.recorder().await;
        let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
        load.acknowledges(50).await;
        let id = cluster.rest.migrate(SERVICE, "edge-b").await;
        cluster.hold.as_ref().expect("the setup has one").held(&cluster.shell).await;
        let seen = cluster.rest.migration(&id).await;
        assert_eq!((seen.phase.as_str(), seen.outcome), (phase, None), "the fault must fall into {phase}");
        Held { cluster, recorder, load, id }
    }

    fn release(&self) {
        self.cluster.hold.as_ref().expect("the setup has one").release();
    }

    /// The migration's end, and the oracle's word.
    async fn ends(self) -> Migration {
        let ended = self.cluster.rest.ended(&self.id).await;
        ends_clean(&self.cluster, &self.recorder, self.load).await;
        ended
    }
}

fn assert_outcome(ended: &Migration, allowed: &[&str]) {
    let outcome = ended.outcome.as_deref().unwrap_or("none");
    assert!(allowed.contains(&outcome), "{outcome} is not one of {allowed:?}: {ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_source_service_costs_nothing() {
    let held = Held::before("transfer").await;
    held.cluster.kill_service("edge-a");
    held.release();
    assert_outcome(&held.ends().await, &["completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_target_service_costs_nothing() {
    let held = Held::before("verify").await;
    held.cluster.kill_service("edge-b");
    held.release();
    assert_outcome(&held.ends().await, &["completed", "rolled-back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_source_sidecar_costs_nothing() {
    let mut held = Held::before("restore").await;
    held.cluster.process("edge-a").kill();
    held.release();
    held.cluster.process("edge-a").restart();
    // Its restart fence voids the attempt; the next one runs under the next epoch.
    assert_outcome(&held.ends().await, &["completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_target_sidecar_costs_nothing() {
    let mut held = Held::before("replay").await;
    held.cluster.process("edge-b").kill();
    held.release();
    held.cluster.process("edge-b").restart();
    assert_outcome(&held.ends().await, &["rolled-back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_migrator_goes_on_from_its_journal() {
    let mut held = Held::before("checkpoint").await;
    held.cluster.migrator.kill();
    held.release();
    held.cluster.migrator.restart();
    held.cluster.migrator_ready().await;
    assert_outcome(&held.ends().await, &["completed"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_broker_costs_nothing() {
    let mut held = Held::before("handover").await;
    held.cluster.broker.kill();
    held.release();
    held.cluster.broker.restart();
    assert_outcome(&held.ends().await, &["completed", "rolled-back"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_sidecar_that_sleeps_through_the_handover_answers_nothing_when_it_wakes() {
    let mut held = Held::before("handover").await;
    held.cluster.process("edge-a").pause();
    held.release();
    let ended = held.cluster.rest.ended(&held.id).await;
    held.cluster.process("edge-a").resume();
    assert_outcome(&ended, &["completed"]);
    ends_clean(&held.cluster, &held.recorder, held.load).await;
}
