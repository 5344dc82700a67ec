//! The driver on the memory broker, with sidecars that only answer commands: creation, recovery, two migrators, lost mail.

use std::time::Duration;

use broker_adapter::ids::{Epoch, MigrationId};
use broker_adapter::memory::Faults;
use broker_adapter::record::{Cause, Fence, Record};
use sidecar::command::{FailureCode, ShardStatus};

use crate::bench::{Bench, Manner, moved, replica, shard, to};
use crate::handle::{CancelError, CreateError, NewMigration};
use crate::hold::{Hold, When};
use crate::journal::JOURNAL_LOG;
use crate::machine::{Ending, Phase, Proof};

#[tokio::test(start_paused = true)]
async fn a_shard_moves_there_and_back() {
    let mut bench = Bench::new(1, Faults::calm()).await;
    bench.good_pair();
    let (handle, _migrator) = bench.migrator("migrator").await;
    let there = moved(&handle, "b").await;
    assert_eq!((there.outcome, there.proof, there.error), (Some(Ending::Completed), Some(Proof::State), None));
    assert!(there.total_ms.is_some_and(|ms| ms < 1_000), "{:?}", there.total_ms);
    let names: Vec<Phase> = there.phases.iter().map(|phase| phase.name).collect();
    assert_eq!(names.len(), 7);
    let back = moved(&handle, "a").await;
    assert_eq!((back.outcome, back.epoch.0), (Some(Ending::Completed), 3));
    assert_eq!(bench.fold().owner(), Some(&replica("a", 1)));
}

#[tokio::test(start_paused = true)]
async fn bad_wishes_are_refused_with_what_is_known() {
    let mut bench = Bench::new(2, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    bench.sidecar_of(replica("empty", 3), Vec::new(), Manner::Good);
    let (handle, _migrator) = bench.migrator("migrator").await;
    let refused = |new: NewMigration| {
        let handle = handle.clone();
        async move { handle.create(new).await.unwrap_err() }
    };
    let other = NewMigration { service: "bord".parse().unwrap(), ..to("b") };
    assert!(matches!(refused(other).await, CreateError::UnknownService { known, .. } if known == ["board"]));
    assert!(matches!(refused(to("z")).await, CreateError::UnknownNode { known, .. } if known == ["a", "b", "empty"]));
    assert!(matches!(refused(to("a")).await, CreateError::TargetIsSource { .. }));
    let without = refused(to("empty")).await;
    assert!(matches!(without, CreateError::TargetWithoutService { known, .. } if known == ["a", "b"]));
    let strategy = Some("post-copy".to_owned());
    assert!(matches!(refused(NewMigration { strategy, ..to("b") }).await, CreateError::UnknownStrategy(_)));
    for wrong in [
        NewMigration { pause_limit_ms: Some(5), ..to("b") },
        NewMigration { strategy: Some("precopy".to_owned()), pause_limit_ms: Some(0), ..to("b") },
        NewMigration { strategy: Some("ms2m".to_owned()), cutoff_ms: Some(0), ..to("b") },
        NewMigration { cutoff_ms: Some(9), ..to("b") },
    ] {
        assert!(matches!(refused(wrong).await, CreateError::BadLimit(_)));
    }
    let id = handle.create(to("b")).await.unwrap();
    let second = refused(to("b")).await;
    assert!(matches!(second, CreateError::AlreadyMoving { running, .. } if running == id));
    bench.sidecars.clear();
    assert_eq!(handle.wait_end(id).await.unwrap().unwrap().outcome, Some(Ending::RolledBack));
    assert!(matches!(refused(to("b")).await, CreateError::NodeSilent(_)));
    assert_eq!(handle.cancel(id).await.unwrap_err(), CancelError::Ended { id, outcome: "rolled-back" });
    assert!(
        matches!(handle.undo(id).await.unwrap_err(), CreateError::NotLeft { reason, .. } if reason.contains("rolled-back"))
    );
    let unknown = MigrationId::from_bits(1);
    assert_eq!(handle.retire(unknown).await.unwrap_err(), CreateError::UnknownMigration(unknown));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_acknowledged_behind_its_journal_entry_and_ends_behind_its_fence() {
    let mut bench = Bench::new(3, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().phase, Phase::Replay);
    assert!(handle.cancel(id).await.unwrap().cancel_requested);
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::Cancelled));
    let fence = bench.fold().last_fence().unwrap().clone();
    assert_eq!((fence.cause, fence.owner, fence.epoch), (Cause::Cancel, replica("a", 1), end.epoch));
    bench.shell.sleep(Duration::from_secs(1)).await;
    let told: Vec<(String, &'static str)> =
        bench.told.lock().unwrap().iter().map(|(node, command)| (node.clone(), command.step.name())).collect();
    assert!(told.contains(&("b".to_owned(), "discard")) && told.contains(&("a".to_owned(), "release")));
    assert_eq!(handle.status().await.unwrap().running, 0, "its after-care is over");
}

#[tokio::test(start_paused = true)]
async fn a_failed_step_rolls_back_and_says_why() {
    for (code, ending) in [(FailureCode::Service, Ending::RolledBack), (FailureCode::Diverged, Ending::Diverged)] {
        let mut bench = Bench::new(4, Faults::calm()).await;
        bench.sidecar(replica("a", 1), Manner::Good);
        bench.sidecar(replica("b", 2), Manner::FailsAt("verify", code));
        let (handle, _migrator) = bench.migrator("migrator").await;
        let end = moved(&handle, "b").await;
        assert_eq!(end.outcome, Some(ending));
        assert!(end.error.unwrap().contains("verify at b: it was planned"));
        assert_eq!(bench.fold().owner(), Some(&replica("a", 1)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_source_that_restarts_gets_a_new_attempt_under_the_epoch_of_its_fence() {
    let mut bench = Bench::new(5, Faults::calm()).await;
    let old = bench.sidecar(replica("a", 1), Manner::SilentAt("checkpoint"));
    bench.sidecar(replica("b", 2), Manner::Good);
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    drop(bench.sidecars.remove(old));
    bench.sidecar(replica("a", 11), Manner::Good);
    bench.shell.sleep(Duration::from_millis(700)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().attempt, 1, "its restart counts only by its fence");
    bench.fence(2, replica("a", 11), Cause::Restart).await;
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!((end.outcome, end.attempt, end.epoch.0), (Some(Ending::Completed), 2, 3));
}

#[tokio::test(start_paused = true)]
async fn a_target_that_restarts_is_noticed_by_its_announcement() {
    let mut bench = Bench::new(6, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    let old = bench.sidecar(replica("b", 2), Manner::SilentAt("transfer"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    drop(bench.sidecars.remove(old));
    bench.sidecar(replica("b", 12), Manner::SilentAt("transfer"));
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::RolledBack));
    assert!(end.error.unwrap().contains("restarted"));
}

#[tokio::test(start_paused = true)]
async fn a_killed_migrator_s_successor_goes_on_from_the_journal_and_the_log() {
    for silent in ["prepare-source", "checkpoint", "transfer", "restore", "replay", "verify", "handover"] {
        let mut bench = Bench::new(7, Faults::calm()).await;
        let source = bench.sidecar(replica("a", 1), Manner::SilentAt(silent));
        let target = bench.sidecar(replica("b", 2), Manner::SilentAt(silent));
        let (handle, first) = bench.migrator("migrator").await;
        let id = handle.create(to("b")).await.unwrap();
        bench.shell.sleep(Duration::from_millis(500)).await;
        let before = handle.get(id).await.unwrap().unwrap();
        drop(first);
        drop(bench.sidecars.remove(target));
        drop(bench.sidecars.remove(source));
        bench.good_pair();
        let (handle, _second) = bench.migrator("migrator").await;
        let end = handle.wait_end(id).await.unwrap().unwrap();
        assert_eq!(end.outcome, Some(Ending::Completed), "killed in {:?}", before.phase);
        assert_eq!((end.epoch, end.accepted_ms), (before.epoch, before.accepted_ms));
        assert_eq!(end.phases[..before.phases.len() - 1], before.phases[..before.phases.len() - 1]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_handover_that_counted_while_no_migrator_was_there_is_read_from_the_log() {
    let mut bench = Bench::new(8, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("handover"));
    let (handle, first) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(800)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().phase, Phase::Handover);
    drop(first);
    let link = bench.broker.connect("b");
    let epoch = Epoch(2);
    let fence = Fence { epoch, owner: replica("b", 2), cause: Cause::Handover, migration: Some(id), retires: None };
    link.log(&shard().log_name()).await.unwrap().append(vec![Record::Fence(fence)]).await.unwrap();
    // Others follow: the one that decided is remembered by the fold.
    bench.fence(3, replica("b", 22), Cause::Restart).await;
    let (handle, _second) = bench.migrator("migrator").await;
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::Completed));
}

#[tokio::test(start_paused = true)]
async fn the_older_of_two_migrators_stops_and_says_why_and_its_words_are_void() {
    let mut bench = Bench::new(9, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    let (old, _old_tasks) = bench.migrator("one").await;
    let id = old.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    // Paused: it hears nothing of the other one, and what it writes meanwhile lands later.
    bench.broker.stall("one", Duration::from_secs(3));
    let other = bench.migrator("two");
    let (cancelled, (new, _new_tasks)) = futures_util::future::join(old.cancel(id), other).await;
    assert!(matches!(cancelled, Err(CancelError::Stopped(_))), "{cancelled:?}");
    let why = old.stopped().await.to_string();
    assert!(why.contains("two@") && why.contains("took the journal"), "{why}");
    assert!(bench.journal_verdicts().1 > 0, "the older one did write");
    let present = new.get(id).await.unwrap().unwrap();
    assert_eq!((present.phase, present.cancel_requested), (Phase::Replay, false));
}

#[tokio::test(start_paused = true)]
async fn migrations_end_on_a_rough_broker_and_every_end_is_the_log_s() {
    let mut fired = 0;
    for seed in 0..20 {
        let mut bench = Bench::new(seed, Faults::rough()).await;
        bench.good_pair();
        let (mut handle, mut tasks) = bench.migrator("migrator").await;
        for node in ["b", "a", "b"] {
            let id = match handle.create(to(node)).await {
                Ok(id) => id,
                Err(CreateError::TargetIsSource { .. }) => continue,
                Err(error) => panic!("seed {seed}: {error}"),
            };
            if node == "a" {
                drop(tasks);
                (handle, tasks) = bench.migrator("migrator").await;
            }
            let limit = Duration::from_secs(600);
            let end = bench.shell.within(limit, handle.wait_end(id)).await;
            let end = end.unwrap_or_else(|| panic!("seed {seed}: {node} hangs")).unwrap().unwrap();
            let fold = bench.fold();
            let fence = fold.fences().find(|fence| fence.epoch == end.epoch).unwrap();
            let is_own = fence.cause == Cause::Handover && fence.migration == Some(id);
            assert_eq!(end.outcome == Some(Ending::Completed), is_own, "seed {seed}: {end:?}");
        }
        assert!(bench.journal_verdicts().0 > 0);
        fired += bench.broker.fired().values().sum::<u64>();
        drop(tasks);
    }
    assert!(fired > 100, "only {fired} faults struck");
}

#[tokio::test(start_paused = true)]
async fn a_held_migration_waits_at_its_place_and_can_be_cancelled_there() {
    for when in [When::Before, When::After] {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(10, Faults::calm()).await;
        bench.good_pair();
        let hold = Hold { phase: "transfer".to_owned(), when, folder: folder.path().to_owned() };
        let (handle, _migrator) = bench.migrator_with("migrator", Some(hold)).await;
        let id = handle.create(to("b")).await.unwrap();
        bench.shell.sleep(Duration::from_secs(5)).await;
        let word = if when == When::Before { "before" } else { "after" };
        assert!(folder.path().join(format!("held-transfer-{word}")).exists());
        let phase = if when == When::Before { Phase::Transfer } else { Phase::Restore };
        assert_eq!(handle.get(id).await.unwrap().unwrap().phase, phase);
        assert!(handle.cancel(id).await.unwrap().cancel_requested);
        bench.shell.sleep(Duration::from_secs(5)).await;
        assert_eq!(bench.fold().epoch(), Epoch(1), "nothing is done before the release");
        std::fs::write(folder.path().join("release"), "").unwrap();
        assert_eq!(handle.wait_end(id).await.unwrap().unwrap().outcome, Some(Ending::Cancelled));
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_whose_log_breaks_ends_only_when_a_fence_can_be_read() {
    let mut bench = Bench::new(11, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    bench.sidecar(replica("b", 2), Manner::SilentAt("replay"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(to("b")).await.unwrap();
    bench.shell.sleep(Duration::from_millis(500)).await;
    bench.broker.cut_off("migrator");
    bench.shell.sleep(Duration::from_secs(60)).await;
    assert_eq!(handle.get(id).await.unwrap().unwrap().outcome, None);
    bench.broker.heal("migrator");
    let end = handle.wait_end(id).await.unwrap().unwrap();
    assert_eq!(end.outcome, Some(Ending::RolledBack));
    assert!(end.error.unwrap().contains("longer than its limit"));
}

#[tokio::test(start_paused = true)]
async fn a_pin_is_released_by_the_present_run_of_the_owner_s_node() {
    let mut bench = Bench::new(12, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    let old = bench.sidecar(replica("b", 2), Manner::SilentAt("release"));
    let (handle, _migrator) = bench.migrator("migrator").await;
    assert_eq!(moved(&handle, "b").await.outcome, Some(Ending::Completed));
    drop(bench.sidecars.remove(old));
    bench.sidecar(replica("b", 12), Manner::Good);
    bench.shell.sleep(Duration::from_secs(2)).await;
    assert_eq!(handle.status().await.unwrap().running, 0);
    let told = bench.told.lock().unwrap();
    assert!(told.iter().any(|(_, command)| command.step.name() == "release" && command.to == replica("b", 12)));
}

async fn journal_of(seed: u64) -> String {
    let mut bench = Bench::new(seed, Faults::rough()).await;
    bench.good_pair();
    let (handle, _migrator) = bench.migrator("migrator").await;
    for node in ["b", "a"] {
        if let Ok(id) = handle.create(to(node)).await {
            handle.wait_end(id).await.unwrap();
        }
    }
    format!("{:?}", bench.broker.dump(JOURNAL_LOG))
}

#[test]
fn the_same_seed_writes_the_same_journal() {
    let run = |seed| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        runtime.block_on(journal_of(seed))
    };
    for seed in 0..5 {
        assert_eq!(run(seed), run(seed), "seed {seed}");
    }
    assert_ne!(run(0), run(1));
}

#[tokio::test(start_paused = true)]
async fn every_strategy_goes_through_its_phases_and_an_undo_goes_back() {
    for strategy in crate::machine::Strategy::ALL {
        let mut bench = Bench::new(8, Faults::calm()).await;
        bench.good_pair();
        let (handle, _migrator) = bench.migrator("migrator").await;
        let new =
            NewMigration { strategy: Some(strategy.name().to_owned()), keep_standby_s: Some(1_000_000), ..to("b") };
        let id = handle.create(new).await.unwrap();
        let end = handle.wait_end(id).await.unwrap().unwrap();
        assert_eq!((end.outcome, end.strategy), (Some(Ending::Completed), strategy), "{:?}", end.error);
        bench.shell.sleep(Duration::from_secs(1)).await;
        let undo = handle.undo(id).await.unwrap();
        let end = handle.wait_end(undo).await.unwrap().unwrap();
        assert_eq!(
            (end.outcome, end.operation, end.of),
            (Some(Ending::Completed), "undo", Some(id)),
            "{:?}",
            end.error
        );
        assert_eq!(
            bench.fold().last_fence().map(|fence| (fence.cause, &fence.owner)),
            Some((Cause::Undo, &replica("a", 1)))
        );
        assert!(matches!(handle.retire(id).await.unwrap_err(), CreateError::NotLeft { .. }), "it was undone");
    }
}

#[tokio::test(start_paused = true)]
async fn a_standby_is_retired_by_its_own_fence_when_its_time_is_over() {
    let mut bench = Bench::new(9, Faults::calm()).await;
    bench.sidecar(replica("a", 1), Manner::Good);
    let owned_by_b = ShardStatus { epoch: Epoch(2), owner: Some(replica("b", 2)), ..crate::bench::status() };
    bench.sidecar(replica("b", 2), Manner::Good);
    let (handle, _migrator) = bench.migrator("migrator").await;
    let id = handle.create(NewMigration { keep_standby_s: Some(5), ..to("b") }).await.unwrap();
    assert_eq!(handle.wait_end(id).await.unwrap().unwrap().outcome, Some(Ending::Completed));
    // The old owner tells that it follows the new one.
    drop(bench.sidecars.remove(0));
    bench.sidecar_of(replica("a", 1), vec![owned_by_b], Manner::Good);
    bench.shell.sleep(Duration::from_secs(3)).await;
    assert_eq!(bench.fold().epoch(), Epoch(2), "not before");
    bench.shell.sleep(Duration::from_secs(5)).await;
    let fence = bench.fold().last_fence().unwrap().clone();
    assert_eq!((fence.cause, fence.owner, fence.epoch), (Cause::Retire, replica("b", 2), Epoch(3)));
    let retired = handle.list().await.unwrap().remove(0);
    assert_eq!((retired.operation, retired.of, retired.outcome), ("retire", Some(id), Some(Ending::Completed)));
    bench.shell.sleep(Duration::from_secs(20)).await;
    assert_eq!(bench.fold().epoch(), Epoch(3), "once");
}
