//! Rules of the README's invariants that show only when something else goes wrong at the same moment; one process, paused time.

use std::time::Duration;

use broker_adapter::memory::{Delay, Faults as BrokerFaults};
use broker_adapter::record::{Cause, Fence, Record};
use segue_tests::harness::{HANG_LIMIT, Load, call};
use segue_tests::ledger::Faults;
use serde_json::json;

use super::one_process::World;

/// Invariant 10: never a hang.
#[tokio::test(start_paused = true)]
async fn clients_that_wait_are_answered_at_once_when_the_log_can_no_longer_be_read() {
    let world = World::new(1, BrokerFaults::calm());
    let slow = Faults { delay: Duration::from_secs(20), ..Faults::default() };
    let more = json!({ "delivery_timeout_ms": 60_000, "reply_timeout_ms": 30_000 });
    let _owner = world.start_with("edge-a", true, slow, more).await;
    let ask = |id: &'static str| call(&world.shell, "edge-a:80", ("POST", "/append"), id, HANG_LIMIT);
    let break_the_log = async {
        world.shell.sleep(Duration::from_secs(1)).await;
        let last = world.broker.dump("ledger.0").last().expect("the request stands in the log").position;
        world.broker.damage("ledger.0", last);
        // On reconnect every reader reads its last record again.
        world.broker.crash_and_restart();
    };
    let began = world.shell.now();
    let (waiting, ()) = futures_util::future::join(ask("waits"), break_the_log).await;
    let waiting = waiting.expect("the ingress answers");
    assert!(world.shell.now() - began < Duration::from_secs(10), "not only at its deadline");
    assert_eq!(waiting.status, 504, "{}", waiting.text());
    assert!(waiting.json()["key"].is_string(), "it may have been applied: {}", waiting.text());
    let later = ask("comes later").await.expect("the ingress answers");
    assert_eq!(later.status, 503, "{}", later.text());
    assert!(later.text().contains("log-unreadable") && later.text().contains("damaged"), "{}", later.text());
    assert!(later.header("retry-after").parse::<u32>().is_ok());
}

/// Invariants 2 and 7: what an owner began to save in one epoch is not recorded in the next one.
#[tokio::test(start_paused = true)]
async fn a_checkpoint_that_is_being_taken_ends_at_a_fence() {
    let mut interrupted = 0;
    for after_ms in (0..2_000).step_by(200) {
        let world = World::new(after_ms, BrokerFaults::calm());
        let owner =
            world.start_with("edge-a", true, Faults::default(), json!({ "checkpoint": { "every_s": 1 } })).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 50, "m");
        load.acknowledges(10).await;
        let each = Duration::from_millis(200);
        world.broker.set_faults(BrokerFaults { store_delay: Delay { min: each, max: each }, ..BrokerFaults::calm() });
        world.shell.sleep(Duration::from_millis(1_000 + after_ms)).await;
        let views = owner.sidecar.admin.shards.values().next().expect("it has a shard").clone();
        let tail = views.tail.borrow().clone();
        let me = tail.owner.expect("somebody owns");
        let fence = Fence { epoch: tail.epoch.next(), owner: me, cause: Cause::Cancel, migration: None, retires: None };
        world.append(Record::Fence(fence)).await;
        let saving =
            world.broker.dump("ledger.0").iter().filter(|entry| matches!(entry.record, Record::Checkpoint(_))).count();
        world.shell.sleep(Duration::from_secs(6)).await;
        let entries = world.broker.dump("ledger.0");
        let is_fence = |record: &Record| matches!(record, Record::Fence(fence) if fence.cause == Cause::Cancel);
        let at = entries.iter().find(|entry| is_fence(&entry.record)).expect("it was appended").position;
        let behind = entries.iter().filter(|entry| entry.position > at).filter_map(|entry| match &entry.record {
            Record::Checkpoint(checkpoint) => Some(checkpoint.position),
            _ => None,
        });
        let behind: Vec<_> = behind.collect();
        assert!(behind.iter().all(|position| *position >= at), "after {after_ms} ms: fence {at}, {behind:?}");
        assert!(!behind.is_empty(), "the next epoch has checkpoints of its own");
        interrupted += usize::from(saving == 1);
        world.serves_cleanly(load, &owner, 20).await;
    }
    assert!(interrupted > 0, "no save was under way at any fence");
}
