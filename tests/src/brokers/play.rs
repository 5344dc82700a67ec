//! One cell: a cluster of its own on its broker and under load, the fault, a move, and the oracle.

use std::panic::AssertUnwindSafe;
use std::path::Path;

use broker_adapter::ids::{NodeName, Position};
use broker_adapter::record::Record;
use futures_util::FutureExt;

use super::stops::stopped;
use super::strike::{Struck, prepare, strike, take_back};
use super::{Cell, Fault, Moment};
use crate::cells::Line;
use crate::cells::play::{fences, keep_logs, told, words};
use crate::checker::{Observation, Outcome};
use crate::harness::{Cluster, Hold, Load, Migration, Node, PATIENCE_MS, Recorder, SERVICE, Setup, Wants, wait_for};

/// Each of the two ingresses gets so many requests a second.
const RATE_PER_S: u32 = 40;
/// How many replies each ingress gives before the fault and after it.
const REPLIES: usize = 20;
/// Above so many records the owner makes room, where the quota is ours.
const HIGH_MARK_RECORDS: u64 = 600;

/// When the owner takes the checkpoint that makes a purged log whole again.
const CHECKPOINT_EVERY_S: u32 = 10;

/// Checkpoint 0 is recorded before this.
const CHECKPOINT_BEFORE: u64 = 10;

/// A running cell.
pub struct Scene {
    /// Its processes.
    pub cluster: Cluster,
    /// Their log.
    pub recorder: Recorder,
    /// The clients of each ingress.
    pub loads: Vec<Load>,
    /// The move, once it was ordered.
    pub id: Option<String>,
}

/// What came of a cell.
pub struct End {
    /// The move, if one could be made.
    pub migration: Option<Migration>,
    /// What shows that the fault struck, or denies it.
    pub proof: Result<String, String>,
    /// The causes of all counted fences.
    pub fences: Vec<String>,
    /// What is wrong.
    pub wrong: Vec<String>,
}

/// Plays it; `logs` gets what all processes wrote if something was wrong.
#[must_use]
pub fn play(cell: &Cell, logs: Option<&Path>) -> Line {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the operating system gives two threads");
    let mut line = Line::of(cell);
    runtime.block_on(once(cell, &mut line, logs));
    line
}

async fn once(cell: &Cell, line: &mut Line, logs: Option<&Path>) {
    let quota = cell.fault == Fault::Quota && cell.broker.is_kafka();
    let purge = cell.fault == Fault::Purged && cell.moment == Moment::Serving;
    let node = |node: Node| Node {
        high_mark_records: quota.then_some(HIGH_MARK_RECORDS),
        checkpoint_every_s: purge.then_some(CHECKPOINT_EVERY_S),
        reply_timeout_ms: Some(PATIENCE_MS),
        ..node
    };
    let proxied = match cell.fault {
        Fault::LostAck => vec!["edge-a".to_owned()],
        Fault::SlowConsumer => vec!["edge-b".to_owned()],
        _ => Vec::new(),
    };
    let wants = Wants { proxied, passwords: cell.fault == Fault::WrongCredentials, own: true };
    let mut setup = Setup::nodes(vec![node(Node::creating("edge-a")), node(Node::named("edge-b"))]);
    setup = setup.on(cell.broker).with(wants);
    if let Some(phase) = cell.phase() {
        setup = setup.hold(Hold::before(phase));
    }
    // A broker that does not come up is a finding of this cell, and not the end of the table.
    let cluster = match AssertUnwindSafe(setup.start()).catch_unwind().await {
        Ok(cluster) => cluster,
        Err(panic) => return line.wrong.push(words(panic.as_ref())),
    };
    let began = cluster.shell.now();
    let recorder = cluster.recorder().await;
    let loads = ["edge-a", "edge-b"].map(|node| load(&cluster, node, node)).into();
    let mut scene = Scene { cluster, recorder, loads, id: None };
    let played = AssertUnwindSafe(inside(cell, &mut scene)).catch_unwind().await;
    line.ms = u64::try_from((scene.cluster.shell.now() - began).as_millis()).unwrap_or(u64::MAX);
    match played {
        Ok(end) => take(line, end),
        Err(panic) => line.wrong.push(words(panic.as_ref())),
    }
    keep_logs(line, &scene.cluster, logs);
}

fn take(line: &mut Line, end: End) {
    line.proven = end.proof.is_ok();
    line.proof = end.proof.unwrap_or_else(|denied| denied);
    line.fences = end.fences;
    line.wrong = end.wrong;
    if let Some(ended) = end.migration {
        line.outcome = ended.outcome.unwrap_or_else(|| "not told".to_owned());
        line.error = ended.error.map(|error| error.as_str().map_or_else(|| error.to_string(), str::to_owned));
    }
    if !line.proven && line.wrong.is_empty() {
        line.wrong.push("the fault did not strike".to_owned());
    }
}

/// The clients of one ingress; their ids begin with `prefix`.
pub fn load(cluster: &Cluster, node: &str, prefix: &str) -> Load {
    Load::start(&cluster.shell, vec![cluster.ingress(node)], RATE_PER_S, prefix)
}

async fn replies(loads: &[Load]) {
    for load in loads {
        load.acknowledges(REPLIES).await;
    }
}

async fn inside(cell: &Cell, scene: &mut Scene) -> End {
    replies(&scene.loads).await;
    let prepared = prepare(cell, scene).await;
    replies(&scene.loads).await;
    if cell.phase().is_some() {
        scene.id = Some(scene.cluster.rest.migrate(SERVICE, "edge-b").await);
        scene.cluster.hold.clone().expect("the setup has one").held(&scene.cluster.shell).await;
    }
    if cell.fault.stops() {
        return stopped(cell, scene, prepared).await;
    }
    let struck = strike(cell, scene).await;
    if let Some(hold) = &scene.cluster.hold {
        hold.release();
    }
    let mut proof = take_back(cell, scene, struck).await;
    if cell.moment == Moment::Serving {
        replies(&scene.loads).await;
        if cell.fault == Fault::Purged {
            let told = healed(scene).await;
            proof = proof.map(|proof| format!("{proof}; {told}"));
        } else {
            scene.id = Some(scene.cluster.rest.migrate(SERVICE, "edge-b").await);
        }
    }
    let id = scene.id.clone().expect("it was ordered by now");
    let migration = scene.cluster.rest.ended(&id).await;
    replies(&scene.loads).await;
    served(cell, scene, migration, proof).await
}

/// A migrator that had read what the log has lost moves the service all the same; one that had not refuses, and says why, until the
/// owner's next checkpoint.
async fn healed(scene: &mut Scene) -> String {
    let refused = scene.cluster.rest.ask_migration(SERVICE, "edge-b").await;
    if refused.status == 202 {
        scene.id = refused.json()["id"].as_str().map(str::to_owned);
        return "the migrator had read what is gone".to_owned();
    }
    assert!(refused.status == 503 && refused.text().contains("the log begins at"), "{}", refused.text());
    let said = refused.json()["detail"].as_str().unwrap_or_default().to_owned();
    wait_for(&scene.cluster.shell, "the owner's next checkpoint", || async {
        let kept = scene.recorder.until_it_stopped().0;
        let last = kept.iter().rev().find(|entry| matches!(entry.record, Record::Checkpoint(_)))?.position;
        (last > Position(CHECKPOINT_BEFORE)).then_some(())
    })
    .await;
    scene.id = Some(scene.cluster.rest.migrate(SERVICE, "edge-b").await);
    format!("an order got 503: {said}; not after the next checkpoint")
}

/// Everybody was answered, and the log is right.
async fn served(cell: &Cell, scene: &mut Scene, migration: Migration, proof: Result<String, String>) -> End {
    let observations = finish(scene).await;
    let longest = longest_wait(&observations);
    let mut wrong = unanswered(cell, &observations);
    let findings = scene.cluster.findings(&scene.recorder, observations).await;
    wrong.extend(told(&findings));
    let (fences, owner) = fences(&scene.recorder).await;
    wrong.extend(misfit(cell, &migration, owner.as_ref()));
    let proof = proof.map(|proof| format!("{proof}; longest wait of a client {longest} ms"));
    End { migration: Some(migration), proof, fences, wrong }
}

/// What all clients saw.
pub async fn finish(scene: &mut Scene) -> Vec<Observation> {
    let mut observations = Vec::new();
    for load in scene.loads.drain(..) {
        observations.extend(load.finish().await);
    }
    observations
}

fn longest_wait(observations: &[Observation]) -> u128 {
    let waits = observations.iter().filter_map(|seen| Some((seen.completed? - seen.due).as_millis()));
    waits.max().unwrap_or(0)
}

/// Clients wait and get their replies; only a full log may refuse them.
fn unanswered(cell: &Cell, observations: &[Observation]) -> Vec<String> {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for seen in observations {
        let kind = match &seen.outcome {
            Outcome::Reply { .. } => continue,
            Outcome::Refused { .. } if cell.fault == Fault::Quota => continue,
            Outcome::Refused { status } => format!("were refused with {status}"),
            Outcome::Unknown => "got 504 or a broken connection".to_owned(),
            Outcome::Hung => "hung".to_owned(),
        };
        *kinds.entry(kind).or_default() += 1;
    }
    kinds.into_iter().map(|(kind, times)| format!("{times} clients {kind} instead of getting their replies")).collect()
}

/// What does not fit the fault, or the log.
fn misfit(cell: &Cell, ended: &Migration, owner: Option<&NodeName>) -> Option<String> {
    let outcome = ended.outcome.as_deref().unwrap_or("none");
    let error = ended.error.as_ref().map(ToString::to_string).unwrap_or_default();
    let allowed: &[&str] = match (cell.fault, cell.moment) {
        // What the target needs is gone, and it says what.
        (Fault::Purged, Moment::Replay) => &["rolled-back", "failed"],
        (_, Moment::Serving) if cell.fault != Fault::Purged => &["completed"],
        _ => &["completed", "rolled-back", "failed"],
    };
    if !allowed.contains(&outcome) {
        return Some(format!("it ended as {outcome}, not as one of {allowed:?}: {error}"));
    }
    if cell.fault == Fault::Purged && outcome != "completed" && !error.contains("was trimmed: the log begins at") {
        return Some(format!("the end as {outcome} names no positions: {error}"));
    }
    let expected = if outcome == "completed" { "edge-b" } else { "edge-a" };
    let found = owner.map(ToString::to_string).unwrap_or_default();
    (found != expected).then(|| format!("it ended as {outcome}, and {found:?} owns instead of {expected}"))
}

impl Struck {
    /// A fault that nothing takes back.
    pub fn shown(shown: String) -> Struck {
        Struck { proof: Ok(shown), restart: Vec::new() }
    }
}
