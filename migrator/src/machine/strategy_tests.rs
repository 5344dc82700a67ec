//! How the strategies differ: which phases they go through, what they load, and when their fences may be appended.

use broker_adapter::ids::Position;
use broker_adapter::record::Cause;
use sidecar::command::{FenceWhen, Reuse, Step, StepDone};

use super::tests::{accepted_as, ended, ending, fence, handover_of, happen, replica, run_on};
use super::*;

fn phases_of(state: &Migration) -> Vec<Phase> {
    state.phases.iter().map(|time| time.phase).collect()
}

#[test]
fn a_strategy_that_carries_the_state_pauses_and_replays_nothing() {
    use Phase::{Checkpoint, Handover, Pause, Prepare, Restore, Transfer};
    let expected = [
        (Strategy::Precopy, vec![Prepare, Checkpoint, Pause, Transfer, Restore, Handover]),
        (Strategy::StopAndCopy, vec![Prepare, Pause, Transfer, Restore, Handover]),
    ];
    for (strategy, phases) in expected {
        let state = run_on(accepted_as(Operation::Move, strategy), Phase::Handover);
        assert_eq!(phases_of(&state), phases);
        assert_eq!(state.taken.map(|taken| taken.position), Some(Position(50)), "the paused source's state is loaded");
        let when = FenceWhen::Loaded { paused: Position(50) };
        assert_eq!(handover_of(&state), Step::Handover { when, cause: Cause::Handover });
        assert_eq!(state.proof, Some(Proof::State), "its very bytes, by their hashes");
    }
}

#[test]
fn what_carries_the_state_never_goes_on_with_a_warm_replica() {
    for strategy in Strategy::ALL {
        let state = accepted_as(Operation::Move, strategy);
        let reuse = wants(&state).into_iter().find_map(|want| match want {
            Want::Tell(Tell { step: Step::PrepareTarget { reuse }, .. }) => Some(reuse),
            _ => None,
        });
        let expected = if strategy.carries_state() { Reuse::Nothing } else { Reuse::Agreeing };
        assert_eq!(reuse, Some(expected), "{strategy:?}");
    }
}

#[test]
fn ms2m_stops_the_source_for_the_last_stretch_only() {
    let state = run_on(accepted_as(Operation::Move, Strategy::Ms2m), Phase::Pause);
    let told = ended(&state, "pause", replica("a", 1), Ok(StepDone::Paused { position: Position(66) }));
    let state = happen(&state, told);
    assert_eq!((state.phase, state.proof), (Phase::Handover, Some(Proof::State)));
    let when = FenceWhen::CaughtUp { paused: Position(66), needs_replies: false };
    assert_eq!(handover_of(&state), Step::Handover { when, cause: Cause::Handover });
}

#[test]
fn a_cutoff_stops_the_source_however_far_the_target_is_behind() {
    let state = run_on(accepted_as(Operation::Move, Strategy::Ms2m), Phase::Replay);
    assert_eq!(happen(&state, What::CutoffPassed { attempt: 2 }), state, "of another attempt");
    let state = happen(&state, What::CutoffPassed { attempt: 1 });
    assert_eq!(state.phase, Phase::Pause);
    let told = ended(&state, "pause", replica("a", 1), Ok(StepDone::Paused { position: Position(66) }));
    let state = happen(&state, told);
    assert_eq!(state.proof, Some(Proof::RepliesOnly));
    let when = FenceWhen::CaughtUp { paused: Position(66), needs_replies: true };
    assert_eq!(handover_of(&state), Step::Handover { when, cause: Cause::Handover });
}

#[test]
fn a_paused_source_that_takes_itself_back_rolls_the_migration_back() {
    let state = run_on(accepted_as(Operation::Move, Strategy::StopAndCopy), Phase::Transfer);
    let state = happen(&state, What::FenceRead(fence(5, replica("a", 1), Cause::Resume, true)));
    assert_eq!(ending(&state), Some(Ending::RolledBack));
    assert!(state.error.as_ref().unwrap().contains("pause_limit_ms"));
    assert!(state.undo.contains(&Undo::Discard), "the target drops what it loaded");
}
