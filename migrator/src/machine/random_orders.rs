//! Random orders of doubled, late and lost outcomes, fences, cancels and deadlines: what holds in all of them.

use broker_adapter::ids::{Incarnation, MigrationId};
use broker_adapter::record::Cause;
use proptest::prelude::{Just, ProptestConfig, prop, prop_assert, prop_assert_eq, prop_oneof, proptest};
use proptest::strategy::Strategy as _;
use sidecar::command::{FailureCode, StepFailure};

use super::tests::{accepted_as, done_of, fence, own_fence, replica};
use super::*;

const STEPS: [&str; 9] =
    ["prepare-target", "prepare-source", "checkpoint", "pause", "transfer", "restore", "replay", "verify", "handover"];
const CAUSES: [Cause; 8] = [
    Cause::Restart,
    Cause::Failover,
    Cause::Handover,
    Cause::Cancel,
    Cause::RollBack,
    Cause::Resume,
    Cause::Undo,
    Cause::Retire,
];
const CODES: [FailureCode; 5] = [
    FailureCode::Service,
    FailureCode::Diverged,
    FailureCode::WrongEpoch,
    FailureCode::WrongIncarnation,
    FailureCode::NoReplica,
];

/// What may be ordered.
fn orders() -> [(Operation, Strategy); 6] {
    let of = MigrationId::from_bits(9);
    [
        (Operation::Move, Strategy::Live),
        (Operation::Move, Strategy::Precopy),
        (Operation::Move, Strategy::Ms2m),
        (Operation::Move, Strategy::StopAndCopy),
        (Operation::Undo { of }, Strategy::Live),
        (Operation::Retire { of }, Strategy::Live),
    ]
}

/// What the world may do next, before it is fitted to the state.
#[derive(Clone, Debug)]
enum Move {
    /// The first wanted step is done: the way forward.
    Go,
    Done(usize, u32),
    Fail(usize, usize, u32),
    OwnFence,
    Fence(usize, u64, u128),
    Cancel,
    Deadline,
    Cutoff,
    TooLate,
    TargetLost,
    Begin,
    CareDone,
}

fn moves() -> impl Moves {
    prop::collection::vec(
        prop_oneof![
            8 => Just(Move::Go),
            3 => (0..STEPS.len(), 1..4u32).prop_map(|(step, attempt)| Move::Done(step, attempt)),
            1 => (0..STEPS.len(), 0..CODES.len(), 1..4u32).prop_map(|(step, code, attempt)| Move::Fail(step, code, attempt)),
            1 => Just(Move::OwnFence),
            2 => (0..CAUSES.len(), 4..9u64, 1..5u128).prop_map(|(cause, epoch, run)| Move::Fence(cause, epoch, run)),
            1 => Just(Move::Cancel),
            1 => Just(Move::Deadline),
            1 => Just(Move::Cutoff),
            1 => Just(Move::TooLate),
            1 => Just(Move::TargetLost),
            3 => Just(Move::Begin),
            1 => Just(Move::CareDone),
        ],
        0..60,
    )
}

/// Names what proptest calls a strategy, a word that has another meaning here.
trait Moves: proptest::strategy::Strategy<Value = Vec<Move>> {}
impl<T: proptest::strategy::Strategy<Value = Vec<Move>>> Moves for T {}

fn side_of(state: &Migration, step: &str) -> Replica {
    let is_source = matches!(step, "prepare-source" | "checkpoint" | "pause");
    if is_source { state.attempt.source.clone() } else { state.attempt.target.clone() }
}

fn fitted(state: &Migration, what: &Move) -> Option<What> {
    let ended = |step: &str, attempt: u32, result| {
        What::StepEnded(StepEnded { attempt, step: step.to_owned(), from: side_of(state, step), result })
    };
    Some(match what {
        Move::Go => match wants(state).into_iter().next()? {
            Want::Tell(tell) => ended(tell.step.name(), tell.attempt, Ok(done_of(tell.step.name()))),
            Want::Append(wanted) => What::FenceRead(fence(wanted.epoch.0, wanted.owner.clone(), wanted.cause, true)),
            Want::Begin { number, epoch, source } => {
                What::AttemptBegun(AttemptStart { number, epoch, source, target: replica("b", 2) })
            }
        },
        Move::Done(step, attempt) => ended(STEPS[*step], *attempt, Ok(done_of(STEPS[*step]))),
        Move::Fail(step, code, attempt) => ended(STEPS[*step], *attempt, Err(StepFailure::new(CODES[*code], ""))),
        Move::OwnFence => What::FenceRead(own_fence(state)),
        Move::Fence(cause, epoch, run) => {
            What::FenceRead(fence(*epoch, replica(if *run < 4 { "a" } else { "c" }, *run), CAUSES[*cause], false))
        }
        Move::Cancel => What::CancelRequested,
        Move::Deadline => What::DeadlinePassed { attempt: state.attempt.number, phase: state.phase, limit_ms: 1 },
        Move::TooLate => What::OrderTooLate { limit_s: 1 },
        Move::Cutoff => What::CutoffPassed { attempt: state.attempt.number },
        Move::TargetLost => What::TargetLost { attempt: state.attempt.number, now: Incarnation::from_bits(50) },
        Move::Begin => match wants(state).into_iter().next()? {
            Want::Begin { number, epoch, source } => {
                What::AttemptBegun(AttemptStart { number, epoch, source, target: replica("b", 2) })
            }
            _ => return None,
        },
        Move::CareDone => What::CareDone(*state.undo.iter().next()?),
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn in_every_order_a_migration_ends_once_behind_its_fence_and_replays_to_the_same(
        moves in moves(),
        ordered in 0..orders().len(),
    ) {
        let (operation, strategy) = orders()[ordered];
        let mut state = accepted_as(operation, strategy);
        let mut journal = Vec::new();
        let mut fences_read = Vec::new();
        for (index, what) in moves.iter().enumerate() {
            let Some(what) = fitted(&state, what) else { continue };
            if let What::FenceRead(fence) = &what {
                fences_read.push(fence.clone());
            }
            let event = Event { at_ms: 2_000 + index as u64, what };
            let (after, wanted) = next(&state, &event);
            // Once ended, the end stays as it is.
            if state.has_ended() {
                prop_assert_eq!(&after.ended, &state.ended);
                prop_assert_eq!(&after.decided_by, &state.decided_by);
            }
            // Everything that is wanted carries the attempt's epoch; doubling the event changes nothing more.
            for want in &wanted {
                match want {
                    Want::Tell(tell) => prop_assert_eq!(tell.epoch, after.attempt.epoch),
                    Want::Append(fence) => {
                        prop_assert_eq!(fence.epoch, after.attempt.epoch);
                        prop_assert_eq!(&fence.owner, &after.attempt.source);
                    }
                    Want::Begin { epoch, .. } => prop_assert_eq!(*epoch, after.attempt.epoch.next()),
                }
            }
            prop_assert_eq!(&next(&after, &event).0, &after);
            prop_assert_eq!(after.phase.has_ended(), after.has_ended());
            prop_assert!(after.attempt.number <= ATTEMPTS_MAX);
            journal.push(event);
            state = after;
        }
        if let Some((ending, _)) = state.ended {
            let decided_by = state.decided_by.clone().expect("no end without a fence");
            prop_assert!(fences_read.contains(&decided_by));
            prop_assert_eq!(decided_by.epoch, state.attempt.epoch);
            prop_assert_eq!(ending == Ending::Completed, state.is_own_fence(&decided_by));
        }
        let replayed = journal.iter().fold(accepted_as(operation, strategy), |state, event| next(&state, event).0);
        prop_assert_eq!(replayed, state);
    }
}
