//! Batches between sidecar and service, in one process on paused time: part of one is unknown, and nothing is delivered twice.

use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Hash, Position};
use broker_adapter::memory::Faults as BrokerFaults;
use broker_adapter::record::{Digest, Mark, Record};
use segue_tests::harness::{Load, wait_for};
use segue_tests::ledger::Faults;
use serde_json::{Value, json};

use super::one_process::{Node, World};

/// A service that takes a while for each request, so that others become ready meanwhile.
const SLOW: Duration = Duration::from_millis(1);

fn batching() -> Value {
    json!({ "batch": "/segue/batch" })
}

fn slow() -> Faults {
    Faults { delay: SLOW, ..Faults::default() }
}

/// What the sidecar counted under a name.
fn counted(node: &Node, name: &str) -> f64 {
    let families = node.sidecar.admin.registry.gather();
    let family = families.iter().find(|family| family.name() == name).expect("it is counted");
    let metric = &family.get_metric()[0];
    if metric.get_histogram().get_sample_count() > 0 {
        return metric.get_histogram().get_sample_count() as f64;
    }
    metric.get_counter().get_value()
}

fn digests(world: &World) -> Vec<Digest> {
    let entries = world.broker.dump("ledger.0");
    let of = |record: &Record| if let Record::Digest(digest) = record { Some(digest.clone()) } else { None };
    entries.iter().filter_map(|entry| of(&entry.record)).collect()
}

#[tokio::test(start_paused = true)]
async fn under_load_many_requests_go_in_one_delivery() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_with("edge-a", true, slow(), batching()).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 2_000, "m");
    world.serves_cleanly(load, &owner, 600).await;
    let (requests, deliveries) = (counted(&owner, "segue_deliveries_total"), counted(&owner, "segue_delivery_seconds"));
    assert!(requests >= 600.0 && deliveries < requests / 2.0, "{requests} requests in {deliveries} deliveries");
}

#[tokio::test(start_paused = true)]
async fn a_batch_that_breaks_hangs_or_has_another_shape_is_unknown_and_nothing_goes_twice() {
    let crash_before = Faults { crash_before: Some(300), ..slow() };
    let crash_after = Faults { crash_after: Some(300), ..slow() };
    let hang = Faults { hang_at: Some(300), ..slow() };
    let short = Faults { batch_short: true, ..slow() };
    let garbled = Faults { batch_garbled: true, ..slow() };
    for faults in [crash_before, crash_after, hang, short, garbled] {
        println!("{faults:?}");
        let world = World::new(1, BrokerFaults::calm());
        let owner = world.start_with("edge-a", true, faults, batching()).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 2_000, "m");
        world.serves_cleanly(load, &owner, 600).await;
        assert!((counted(&owner, "segue_service_reloads_total") - 1.0).abs() < 0.5, "it was reloaded once");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_batches_are_wrong_is_reported_with_the_request_and_tried_ever_more_rarely() {
    let world = World::new(1, BrokerFaults::calm());
    let faults = Faults { batch_garbled: true, always: true, ..slow() };
    let owner = world.start_with("edge-a", true, faults, batching()).await;
    let _load = Load::start(&world.shell, vec!["edge-a:80".into()], 2_000, "m");
    let shard =
        &owner.sidecar.admin.shards[&"ledger".parse().map(broker_adapter::ids::ShardId::whole).expect("a name")];
    let trouble = wait_for(&world.shell, "the report", || async {
        let view = shard.replica.borrow().clone();
        view.trouble.filter(|trouble| trouble.contains("wrong shape"))
    })
    .await;
    assert!(trouble.contains("line 1, for POST /append at position "), "{trouble}");
    assert!(trouble.contains("unknown field `state`"), "{trouble}");
    assert!(trouble.contains("configs/batch/README.md"), "{trouble}");
    world.shell.sleep(Duration::from_secs(30)).await;
    let reloads = counted(&owner, "segue_service_reloads_total");
    assert!((5.0..30.0).contains(&reloads), "{reloads} reloads in 30 s");
}

#[tokio::test(start_paused = true)]
async fn replicas_may_deliver_in_batches_or_not_and_agree() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_with("edge-a", true, slow(), batching()).await;
    let other = world.start_with("edge-b", false, slow(), json!({})).await;
    let orders = world.migrator().await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], 700, "m");
    load.acknowledges(500).await;
    for to in ["edge-b", "edge-a"] {
        let id = orders.begin(&world.shell, to).await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!(ended.proof, Some(migrator::machine::Proof::State), "{ended:?}");
    }
    drop(other);
    world.serves_cleanly(load, &owner, 500).await;
}

#[tokio::test(start_paused = true)]
async fn the_owner_s_digests_come_every_so_many_records_under_load() {
    let world = World::new(1, BrokerFaults::calm());
    let settings =
        json!({ "batch": "/segue/batch", "settings": { "digest_every_records": 40, "digest_every_ms": 60_000 } });
    let owner = world.start_with("edge-a", true, slow(), settings).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 2_000, "m");
    world.serves_cleanly(load, &owner, 600).await;
    let positions: Vec<Position> = digests(&world).iter().map(|digest| digest.position).collect();
    assert!(positions.len() >= 600 / 42, "{positions:?}");
    let apart = positions.windows(2).map(|pair| pair[1].records_since(pair[0]));
    // Records that are no messages take places too.
    assert!(apart.clone().skip(1).all(|records| (40..=44).contains(&records)), "{positions:?}");
}

#[tokio::test(start_paused = true)]
async fn the_owner_s_digests_come_every_so_many_milliseconds_with_progress() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_with("edge-a", true, Faults::default(), batching()).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 20, "m");
    world.serves_cleanly(load, &owner, 40).await;
    let told = digests(&world).len();
    // 40 requests in two seconds, 1,000 records are far away: one digest every 250 ms.
    assert!((7..=12).contains(&told), "{told}");
    world.shell.sleep(Duration::from_secs(10)).await;
    assert!(digests(&world).len() <= told + 1, "without progress there is nothing to tell");
}

#[tokio::test(start_paused = true)]
async fn a_mark_is_answered_by_a_digest_that_names_it_at_its_own_position_in_the_middle_of_batches() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start_with("edge-a", true, slow(), batching()).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 2_000, "m");
    load.acknowledges(500).await;
    let marks: Vec<Mark> =
        (0..3).map(|_| Mark { id: world.shell.random(), asker: owner.sidecar.me.incarnation, state: true }).collect();
    for mark in &marks {
        world.append(Record::Mark(mark.clone())).await;
        world.shell.sleep(Duration::from_millis(7)).await;
    }
    world.serves_cleanly(load, &owner, 1_000).await;
    let told = digests(&world);
    let mut fold = Fold::new();
    let mut found = 0;
    for entry in world.broker.dump("ledger.0") {
        fold.observe(&entry);
        let Record::Mark(mark) = &entry.record else { continue };
        let digest = told.iter().find(|digest| digest.mark == Some(mark.id)).expect("it was answered");
        assert_eq!(digest.position, entry.position);
        assert_ne!(digest.state.expect("the ledger's saves are canonical"), Hash::default());
        found += 1;
    }
    assert_eq!(found, marks.len());
}

#[tokio::test(start_paused = true)]
async fn a_delivery_that_takes_too_long_is_never_sent_to_that_instance_again() {
    for more in [json!({}), batching()] {
        let world = World::new(1, BrokerFaults::calm());
        let owner = world.start_with("edge-a", true, Faults { hang_at: Some(200), ..slow() }, more).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 500, "m");
        load.acknowledges(150).await;
        let hung = owner.runner.latest().expect("it runs");
        wait_for(&world.shell, "the reload", || async {
            (counted(&owner, "segue_service_reloads_total") > 0.5).then_some(())
        })
        .await;
        let left = hung.chain().value();
        assert_eq!(left.n, 199, "it hung before the 200th");
        world.serves_cleanly(load, &owner, 300).await;
        assert_eq!(hung.chain().value(), left, "the instance got nothing more");
    }
}
