//! The sentences of invariants 2, 6 and 8 that the machine keeps, one test each.

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::{Epoch, Hash, Incarnation, MigrationId, NodeName, Position, Replica, ShardId};
use broker_adapter::record::Cause;
use sidecar::command::{FailureCode, FenceWhen, Step, StepDone, StepFailure};

use super::*;

pub(super) fn replica(node: &str, run: u128) -> Replica {
    Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(run) }
}

pub(crate) fn order() -> Order {
    let node = |name: &str| name.parse::<NodeName>().unwrap();
    Order {
        id: MigrationId::from_bits(77),
        shard: ShardId::whole("board".parse().unwrap()),
        from: node("a"),
        to: node("b"),
        operation: Operation::Move,
        strategy: Strategy::Live,
        reason: None,
        accepted_ms: 1_000,
        lag_limit_records: 16,
        require_proof: true,
        pause_limit_ms: 60_000,
        cutoff_ms: None,
        precopy_rounds: 3,
        keep_standby_ms: 0,
        max_blackout_ms: None,
        deadline_s: None,
        key: None,
        plan: None,
    }
}

pub(super) fn accepted_as(operation: Operation, strategy: Strategy) -> Migration {
    let first = AttemptStart { number: 1, epoch: Epoch(5), source: replica("a", 1), target: replica("b", 2) };
    Migration::accepted(Order { operation, strategy, ..order() }, first)
}

pub(super) fn accepted() -> Migration {
    let first = AttemptStart { number: 1, epoch: Epoch(5), source: replica("a", 1), target: replica("b", 2) };
    Migration::accepted(order(), first)
}

pub(super) fn fence(epoch: u64, owner: Replica, cause: Cause, own: bool) -> CountedFence {
    let migration = own.then_some(MigrationId::from_bits(77));
    CountedFence { position: Position(900 + epoch), epoch: Epoch(epoch), owner, cause, migration, retires: None }
}

pub(super) fn own_fence(state: &Migration) -> CountedFence {
    let retires = matches!(state.order.operation, Operation::Retire { .. });
    let owner = if retires { &state.attempt.source } else { &state.attempt.target };
    fence(state.attempt.epoch.0, owner.clone(), state.order.cause(), true)
}

pub(super) fn done_of(step: &str) -> StepDone {
    match step {
        "checkpoint" => StepDone::Checkpoint {
            position: Position(40),
            manifest: Hash::of(b"manifest"),
            state_bytes: 9,
            stored_bytes: 9,
            reused_bytes: 0,
        },
        "verify" => StepDone::Agreed {
            position: Position(60),
            hash: Hash::of(b"replies"),
            state: Some(Hash::of(b"state")),
            replies_compared: 3,
        },
        "handover" => StepDone::Fenced { position: Position(70) },
        "prepare-target" => StepDone::Prepared { warm: None, differs: false },
        "pause" => StepDone::Checkpoint {
            position: Position(50),
            manifest: Hash::of(b"paused"),
            state_bytes: 9,
            stored_bytes: 2,
            reused_bytes: 7,
        },
        _ => StepDone::Plain,
    }
}

pub(super) fn happen(state: &Migration, what: What) -> Migration {
    next(state, &Event { at_ms: 2_000, what }).0
}

pub(super) fn ended(state: &Migration, step: &str, from: Replica, result: Result<StepDone, StepFailure>) -> What {
    What::StepEnded(StepEnded { attempt: state.attempt.number, step: step.to_owned(), from, result })
}

fn fail(state: &Migration, step: &str, from: Replica, code: FailureCode) -> Migration {
    let failure = StepFailure::new(code, "why");
    happen(state, ended(state, step, from, Err(failure)))
}

/// Answers every wanted step with success until `phase`.
fn run_to(phase: Phase) -> Migration {
    run_on(accepted(), phase)
}

pub(super) fn run_on(mut state: Migration, phase: Phase) -> Migration {
    while state.phase != phase {
        let wanted = wants(&state);
        let Some(Want::Tell(tell)) = wanted.first() else { panic!("{phase:?} is never reached") };
        let step = tell.step.name();
        state = happen(&state, ended(&state, step, tell.to.clone(), Ok(done_of(step))));
    }
    state
}

pub(super) fn ending(state: &Migration) -> Option<Ending> {
    state.ended.map(|(ending, _)| ending)
}

const WORKING: [Phase; 7] =
    [Phase::Prepare, Phase::Checkpoint, Phase::Transfer, Phase::Restore, Phase::Replay, Phase::Verify, Phase::Handover];

#[test]
fn a_migration_goes_through_its_phases_in_their_order() {
    let state = run_to(Phase::Handover);
    let state = happen(&state, What::FenceRead(own_fence(&state)));
    let seen: Vec<Phase> = state.phases.iter().map(|time| time.phase).collect();
    assert_eq!(seen, WORKING);
    assert_eq!((ending(&state), state.proof), (Some(Ending::Completed), Some(Proof::State)));
    assert!(state.phases.iter().all(|time| time.ended_ms.is_some()));
}

#[test]
fn a_migration_completes_only_by_its_own_fence() {
    let state = run_to(Phase::Handover);
    let told = ended(&state, "handover", state.attempt.target.clone(), Ok(done_of("handover")));
    assert_eq!(happen(&state, told), state, "the target's word is not the log's");
    let near_misses = [
        fence(5, replica("b", 2), Cause::Handover, false),
        fence(5, replica("b", 3), Cause::Handover, true),
        fence(5, replica("b", 2), Cause::Failover, true),
        fence(5, replica("a", 1), Cause::Cancel, true),
    ];
    for other in near_misses {
        assert_eq!(ending(&happen(&state, What::FenceRead(other))), Some(Ending::Failed));
    }
    let other_epoch = fence(6, replica("b", 2), Cause::Handover, true);
    assert_eq!(happen(&state, What::FenceRead(other_epoch)), state);
    assert_eq!(ending(&happen(&state, What::FenceRead(own_fence(&state)))), Some(Ending::Completed));
}

#[test]
fn a_migration_completes_by_its_own_fence_in_whatever_phase_it_is_read() {
    for phase in WORKING {
        let state = run_to(phase);
        assert_eq!(ending(&happen(&state, What::FenceRead(own_fence(&state)))), Some(Ending::Completed));
    }
}

#[test]
fn a_cancel_that_loses_to_the_handover_ends_completed() {
    let state = happen(&run_to(Phase::Handover), What::CancelRequested);
    assert_eq!((state.phase, ending(&state)), (Phase::RollingBack, None));
    assert_eq!(ending(&happen(&state, What::FenceRead(own_fence(&state)))), Some(Ending::Completed));
}

#[test]
fn a_rollback_that_loses_to_the_handover_ends_completed() {
    let state = run_to(Phase::Handover);
    let state = fail(&state, "handover", replica("b", 2), FailureCode::Service);
    assert_eq!(state.phase, Phase::RollingBack);
    let state = happen(&state, What::FenceRead(own_fence(&state)));
    assert_eq!((ending(&state), &state.error), (Some(Ending::Completed), &None));
}

#[test]
fn a_cancel_ends_at_any_counted_fence_that_is_not_its_own() {
    for cause in [Cause::Cancel, Cause::RollBack, Cause::Restart, Cause::Failover, Cause::Handover, Cause::Retire] {
        let state = happen(&run_to(Phase::Replay), What::CancelRequested);
        let state = happen(&state, What::FenceRead(fence(5, replica("a", 9), cause, false)));
        assert_eq!(ending(&state), Some(Ending::Cancelled), "{cause:?}");
    }
}

#[test]
fn no_end_is_journalled_before_a_fence_was_read() {
    for phase in WORKING {
        let state = run_to(phase);
        let step = state.row().unwrap().acts[0].1.name();
        let from = wants(&state).into_iter().find_map(|want| match want {
            Want::Tell(tell) => Some(tell.to),
            _ => None,
        });
        let from = from.unwrap();
        let limit_ms = 10;
        let ways = [
            happen(&state, What::CancelRequested),
            happen(&state, What::DeadlinePassed { attempt: 1, phase, limit_ms }),
            happen(&state, What::TargetLost { attempt: 1, now: Incarnation::from_bits(99) }),
            happen(&state, What::LogUnreadable { attempt: 1, reason: "damaged".to_owned() }),
            fail(&state, step, from.clone(), FailureCode::Service),
            fail(&state, step, from, FailureCode::Diverged),
        ];
        for after in ways {
            assert_eq!((after.phase, ending(&after)), (Phase::RollingBack, None));
            let after = happen(&after, What::FenceRead(fence(5, replica("a", 1), Cause::RollBack, true)));
            assert!(after.has_ended() && after.decided_by.is_some());
        }
    }
}

#[test]
fn rolling_back_and_cancel_append_the_fence_e_to_the_present_owner() {
    let failed = fail(&run_to(Phase::Restore), "restore", replica("b", 2), FailureCode::Service);
    let cancelled = happen(&run_to(Phase::Restore), What::CancelRequested);
    for (state, cause) in [(failed, Cause::RollBack), (cancelled, Cause::Cancel)] {
        let migration = Some(state.order.id);
        let wanted = Fence { epoch: Epoch(5), owner: replica("a", 1), cause, migration, retires: None };
        assert_eq!(wants(&state), vec![Want::Append(wanted)], "and nothing else, until some fence E counted");
    }
}

#[test]
fn a_divergence_ends_as_diverged_after_its_fence_was_read_and_never_hands_over() {
    let state = fail(&run_to(Phase::Verify), "verify", replica("b", 2), FailureCode::Diverged);
    assert!(matches!(wants(&state)[..], [Want::Append(_)]));
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 1), Cause::RollBack, true)));
    assert_eq!(ending(&state), Some(Ending::Diverged));
}

#[test]
fn every_command_carries_the_journalled_epoch() {
    for phase in WORKING {
        let state = run_to(phase);
        let wanted = wants(&state);
        assert!(!wanted.is_empty());
        for want in wanted {
            let Want::Tell(tell) = want else { panic!("only commands are wanted in {phase:?}") };
            assert_eq!((tell.epoch, tell.attempt), (state.attempt.epoch, state.attempt.number));
        }
    }
}

#[test]
fn a_restart_fence_of_the_owner_makes_a_new_attempt_under_the_next_epoch() {
    let state = run_to(Phase::Replay);
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 11), Cause::Restart, false)));
    let begin = Want::Begin { number: 2, epoch: Epoch(6), source: replica("a", 11) };
    assert_eq!(wants(&state), vec![begin]);
    let start = AttemptStart { number: 2, epoch: Epoch(6), source: replica("a", 11), target: replica("b", 2) };
    let state = happen(&state, What::AttemptBegun(start.clone()));
    assert_eq!((state.attempt.clone(), state.phase, ending(&state)), (start, Phase::Prepare, None));
    let tells_new_run =
        wants(&state).iter().any(|want| matches!(want, Want::Tell(tell) if tell.to == replica("a", 11)));
    assert!(tells_new_run);
}

#[test]
fn the_third_attempt_is_the_last() {
    let mut state = accepted();
    for number in 1..=ATTEMPTS_MAX {
        assert_eq!(state.attempt.number, number);
        let epoch = state.attempt.epoch;
        let source = replica("a", 100 + u128::from(number));
        state = happen(&state, What::FenceRead(fence(epoch.0, source.clone(), Cause::Restart, false)));
        let target = replica("b", 2);
        let start = AttemptStart { number: number + 1, epoch: epoch.next(), source, target };
        state = happen(&state, What::AttemptBegun(start));
    }
    assert_eq!((ending(&state), state.attempt.number), (Some(Ending::Failed), ATTEMPTS_MAX));
}

#[test]
fn a_fence_of_others_ends_it_as_failed_with_a_reason() {
    for cause in [Cause::Failover, Cause::Handover, Cause::Retire] {
        let state = happen(&run_to(Phase::Replay), What::FenceRead(fence(5, replica("c", 4), cause, false)));
        assert_eq!(ending(&state), Some(Ending::Failed));
        assert!(state.error.as_ref().unwrap().contains("c@"), "{:?}", state.error);
    }
    let elsewhere = happen(&accepted(), What::FenceRead(fence(5, replica("c", 4), Cause::Restart, false)));
    assert_eq!(ending(&elsewhere), Some(Ending::Failed), "a restart of another node is no restart of the owner's");
}

#[test]
fn a_source_that_restarts_is_waited_for_and_a_target_is_not() {
    let state = accepted();
    assert_eq!(fail(&state, "prepare-source", replica("a", 11), FailureCode::WrongIncarnation), state);
    let after = fail(&state, "prepare-target", replica("b", 12), FailureCode::WrongIncarnation);
    assert_eq!(after.phase, Phase::RollingBack);
    let same = happen(&state, What::TargetLost { attempt: 1, now: Incarnation::from_bits(2) });
    assert_eq!(same, state, "the announcement of the run that is meant loses nothing");
}

#[test]
fn a_wrong_epoch_is_left_to_the_log() {
    let state = run_to(Phase::Transfer);
    assert_eq!(fail(&state, "transfer", replica("b", 2), FailureCode::WrongEpoch), state);
}

#[test]
fn late_and_doubled_outcomes_change_nothing() {
    let state = run_to(Phase::Replay);
    for step in ["prepare-target", "checkpoint", "transfer", "restore", "verify", "no-such-step"] {
        let from = replica(if step == "checkpoint" { "a" } else { "b" }, if step == "checkpoint" { 1 } else { 2 });
        assert_eq!(happen(&state, ended(&state, step, from.clone(), Ok(done_of(step)))), state);
        assert_eq!(fail(&state, step, from, FailureCode::Service), state);
    }
    let other_attempt = What::StepEnded(StepEnded {
        attempt: 2,
        step: "replay".to_owned(),
        from: replica("b", 2),
        result: Ok(StepDone::Plain),
    });
    assert_eq!(happen(&state, other_attempt), state);
    assert_eq!(happen(&state, ended(&state, "replay", replica("b", 12), Ok(StepDone::Plain))), state);
    assert_eq!(happen(&state, What::DeadlinePassed { attempt: 1, phase: Phase::Prepare, limit_ms: 1 }), state);
}

#[test]
fn an_unproven_migration_rolls_back_unless_the_order_allows_it() {
    let agreed = StepDone::Agreed { position: Position(60), hash: Hash::default(), state: None, replies_compared: 0 };
    let mut state = run_to(Phase::Verify);
    let told = ended(&state, "verify", replica("b", 2), Ok(agreed));
    let refused = happen(&state, told.clone());
    assert_eq!(refused.phase, Phase::RollingBack);
    assert!(refused.error.unwrap().contains("require_proof"));
    state.order.require_proof = false;
    let allowed = happen(&state, told);
    assert_eq!((allowed.phase, allowed.proof), (Phase::Handover, Some(Proof::Unproven)));
}

#[test]
fn where_the_replicas_differ_is_kept_to_its_end() {
    use sidecar::command::{Difference, Differs};
    let state = run_to(Phase::Verify);
    let difference = Some(Box::new(Difference::within(Differs::Replies, Position(3), Position(9))));
    let failure = StepFailure { difference, ..StepFailure::new(FailureCode::Diverged, "they differ") };
    let state = happen(&state, ended(&state, "verify", replica("b", 2), Err(failure)));
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 1), Cause::RollBack, true)));
    assert_eq!(ending(&state), Some(Ending::Diverged));
    assert_eq!(state.difference.map(|difference| difference.upto), Some(Position(9)));
}

#[test]
fn replies_alone_are_said_to_be_replies_only() {
    let state = run_to(Phase::Verify);
    let agreed = StepDone::Agreed { position: Position(60), hash: Hash::default(), state: None, replies_compared: 1 };
    let after = happen(&state, ended(&state, "verify", replica("b", 2), Ok(agreed)));
    assert_eq!((after.phase, after.proof), (Phase::Handover, Some(Proof::RepliesOnly)));
}

#[test]
fn what_was_done_is_taken_back_after_the_end_and_may_be_taken_back_twice() {
    let state = happen(&run_to(Phase::Replay), What::CancelRequested);
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 1), Cause::Cancel, true)));
    let steps = |state: &Migration| -> Vec<(String, Step)> {
        let tell = |want| match want {
            Want::Tell(tell) => Some((tell.to.node.to_string(), tell.step)),
            _ => None,
        };
        wants(state).into_iter().filter_map(tell).collect()
    };
    assert_eq!(steps(&state), vec![("b".to_owned(), Step::Discard), ("a".to_owned(), Step::Release)]);
    let state = happen(&state, What::CareDone(Undo::Discard));
    assert_eq!(happen(&state, What::CareDone(Undo::Discard)), state);
    assert_eq!(steps(&state), vec![("a".to_owned(), Step::Release)]);
    assert!(wants(&happen(&state, What::CareGivenUp)).is_empty());
}

#[test]
fn a_completed_migration_keeps_its_target_and_ends_its_pin() {
    let state = run_to(Phase::Handover);
    let state = happen(&state, What::FenceRead(own_fence(&state)));
    let told: Vec<_> = wants(&state)
        .into_iter()
        .map(|want| match want {
            Want::Tell(tell) => (tell.to.node.to_string(), tell.step),
            other => panic!("{other:?}"),
        })
        .collect();
    assert_eq!(told, vec![("a".to_owned(), Step::Release), ("b".to_owned(), Step::Release)]);
}

#[test]
fn a_target_that_owns_by_whatever_fence_is_never_told_to_drop_its_replica() {
    let state = run_to(Phase::Replay);
    for after in [
        happen(&state, What::FenceRead(fence(5, replica("b", 2), Cause::Failover, false))),
        happen(&state, What::FenceForgotten { epoch: Epoch(5) }),
    ] {
        assert_eq!(ending(&after), Some(Ending::Failed));
        let drops = |want: &Want| matches!(want, Want::Tell(tell) if tell.step == Step::Discard);
        assert!(!wants(&after).iter().any(drops));
    }
}

#[test]
fn a_mark_is_the_same_when_the_command_is_repeated_and_another_in_the_next_attempt() {
    let state = run_to(Phase::Verify);
    assert_eq!(wants(&state), wants(&state.clone()));
    let mut second = state.clone();
    second.attempt.number = 2;
    assert_ne!(state.mark(), second.mark());
}

pub(super) fn handover_of(state: &Migration) -> Step {
    let Some(Want::Tell(tell)) = wants(state).into_iter().next() else { panic!("a handover is told") };
    tell.step
}

#[test]
fn a_warm_target_needs_no_checkpoint() {
    let state = accepted();
    let warm = StepDone::Prepared { warm: Some(Position(30)), differs: false };
    let state = happen(&state, ended(&state, "prepare-target", replica("b", 2), Ok(warm)));
    let state = happen(&state, ended(&state, "prepare-source", replica("a", 1), Ok(StepDone::Plain)));
    assert_eq!(state.phase, Phase::Replay);
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 11), Cause::Restart, false)));
    let start = AttemptStart { number: 2, epoch: Epoch(6), source: replica("a", 11), target: replica("b", 2) };
    assert!(!happen(&state, What::AttemptBegun(start)).is_warm, "the next attempt asks again");
}

#[test]
fn an_undo_completes_by_a_fence_of_that_name_only() {
    let undo = Operation::Undo { of: MigrationId::from_bits(9) };
    let state = run_on(accepted_as(undo, Strategy::Live), Phase::Handover);
    let handover = happen(&state, What::FenceRead(fence(5, replica("b", 2), Cause::Handover, true)));
    assert_eq!(ending(&handover), Some(Ending::Failed));
    let undone = happen(&state, What::FenceRead(fence(5, replica("b", 2), Cause::Undo, true)));
    assert_eq!(ending(&undone), Some(Ending::Completed));
}

#[test]
fn retire_is_a_fence_to_the_present_owner_and_nothing_else() {
    let retire = Operation::Retire { of: MigrationId::from_bits(9) };
    let state = accepted_as(retire, Strategy::Live);
    let wanted = Fence {
        epoch: Epoch(5),
        owner: replica("a", 1),
        cause: Cause::Retire,
        migration: Some(state.order.id),
        retires: Some(state.order.to.clone()),
    };
    assert_eq!(wants(&state), vec![Want::Append(wanted)]);
    let own = happen(&state, What::FenceRead(fence(5, replica("a", 1), Cause::Retire, true)));
    assert_eq!(ending(&own), Some(Ending::Completed));
    assert!(wants(&own).is_empty());
    let undone = happen(&state, What::FenceRead(fence(5, replica("b", 2), Cause::Undo, false)));
    assert_eq!(ending(&undone), Some(Ending::Failed), "of undo and retire exactly one happens");
    let lost = happen(&state, What::TargetLost { attempt: 1, now: Incarnation::from_bits(99) });
    assert_eq!(lost, state, "a standby that restarted is gone anyway");
}

#[test]
fn a_retirement_that_a_restart_voids_is_tried_again_under_the_next_epoch() {
    let retire = Operation::Retire { of: MigrationId::from_bits(9) };
    let state = accepted_as(retire, Strategy::Live);
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 11), Cause::Restart, false)));
    let start = AttemptStart { number: 2, epoch: Epoch(6), source: replica("a", 11), target: replica("b", 2) };
    let state = happen(&state, What::AttemptBegun(start));
    let Some(Want::Append(again)) = wants(&state).into_iter().next() else { panic!("it is wanted again") };
    assert_eq!((again.epoch, again.owner, again.cause), (Epoch(6), replica("a", 11), Cause::Retire));
}

#[test]
fn an_undo_takes_the_shard_back_from_an_owner_that_differs_without_a_proof() {
    let state = accepted_as(Operation::Undo { of: MigrationId::from_bits(9) }, Strategy::Live);
    let warm = StepDone::Prepared { warm: Some(Position(30)), differs: true };
    let state = happen(&state, ended(&state, "prepare-target", replica("b", 2), Ok(warm)));
    let state = happen(&state, ended(&state, "prepare-source", replica("a", 1), Ok(StepDone::Plain)));
    let state = happen(&state, ended(&state, "replay", replica("b", 2), Ok(StepDone::Plain)));
    assert_eq!((state.phase, state.proof), (Phase::Handover, Some(Proof::Unproven)));
    let when = FenceWhen::TakenBack { lag_limit_records: 16 };
    assert_eq!(handover_of(&state), Step::Handover { when, cause: Cause::Undo });
}
