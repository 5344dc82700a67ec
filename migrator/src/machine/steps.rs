//! Steps: which command a phase's line means for this migration, and what its outcome changes.
//!
//! An outcome counts only if it is of the present attempt, of a step that the present phase waits for, and from the replica
//! that was asked; everything else is late, doubled or lost mail.

use broker_adapter::ids::Replica;
use sidecar::command::{FailureCode, Step, StepDone, StepFailure};

use super::event::StepEnded;
use super::phase::{Act, Phase, Side, Undo};
use super::state::{Migration, Proof, Taken};
use super::{Tell, ends};

pub(super) fn tell(state: &Migration, side: Side, act: Act) -> Option<Tell> {
    let lag_limit_records = state.order.lag_limit_records;
    let step = match act {
        Act::PrepareTarget => Step::PrepareTarget,
        Act::PrepareSource => Step::PrepareSource,
        Act::Checkpoint => Step::Checkpoint,
        Act::Transfer => {
            let taken = state.taken?;
            Step::Transfer { checkpoint: taken.position, manifest: taken.manifest }
        }
        Act::Restore => Step::Restore,
        Act::Replay => Step::Replay { lag_limit_records },
        Act::Verify => Step::Verify { mark: state.mark() },
        Act::Handover => Step::Handover { lag_limit_records },
    };
    Some(with_attempt(state, end_of(state, side).clone(), step))
}

pub(super) fn care(state: &Migration, undo: Undo) -> Option<Tell> {
    let (to, step) = match undo {
        Undo::Discard => (state.attempt.target.clone(), Step::Discard),
        Undo::ReleaseAtSource => (state.attempt.source.clone(), Step::Release),
        Undo::ReleaseAtOwner => (state.decided_by.as_ref()?.owner.clone(), Step::Release),
    };
    Some(with_attempt(state, to, step))
}

fn with_attempt(state: &Migration, to: Replica, step: Step) -> Tell {
    Tell { to, attempt: state.attempt.number, epoch: state.attempt.epoch, step }
}

fn end_of(state: &Migration, side: Side) -> &Replica {
    match side {
        Side::Source => &state.attempt.source,
        Side::Target => &state.attempt.target,
    }
}

pub(super) fn step_ended(state: &mut Migration, ended: &StepEnded, at_ms: u64) {
    let Some(row) = state.phase.row() else { return };
    let asked = row.acts.iter().find(|(_, act)| act.name() == ended.step);
    let Some((side, act)) = asked.copied() else { return };
    let counts = ended.attempt == state.attempt.number
        && state.voided_by.is_none()
        && ended.from.node == end_of(state, side).node
        && !state.steps_done.contains(&ended.step);
    if !counts {
        return;
    }
    match &ended.result {
        Ok(done) if ended.from == *end_of(state, side) => step_done(state, act, done, at_ms),
        // Another run of that node cannot have done it.
        Ok(_) => {}
        Err(failure) => step_failed(state, side, ended, failure, at_ms),
    }
}

fn step_done(state: &mut Migration, act: Act, done: &StepDone, at_ms: u64) {
    match (act, done) {
        // Only the fence itself, read in the log, tells that it counted.
        (Act::Handover, _) => return,
        (Act::Checkpoint, StepDone::Checkpoint { position, manifest, state_bytes, .. }) => {
            state.taken = Some(Taken { position: *position, manifest: *manifest, state_bytes: *state_bytes });
        }
        (Act::Verify, StepDone::Agreed { state: hash, replies_compared, .. }) => {
            let proof = match (hash, replies_compared) {
                (Some(_), _) => Proof::State,
                (None, 0) => Proof::Unproven,
                (None, _) => Proof::RepliesOnly,
            };
            state.proof = Some(proof);
            if proof == Proof::Unproven && state.order.require_proof {
                let message = format!(
                    "nothing proves that {} is equal on {}: its saves are not canonical and no reply came since the load; \
                     answer saves with `Segue-Snapshot: canonical`, migrate while requests come in, or set \
                     require_proof = false at the migrator",
                    state.order.shard, state.attempt.target.node
                );
                return ends::roll_back(state, None, message, at_ms);
            }
        }
        (Act::Checkpoint | Act::Verify, other) => {
            let message =
                format!("the step {} was answered with {other:?}: do all nodes run the same version?", act.name());
            return ends::roll_back(state, None, message, at_ms);
        }
        _ => {}
    }
    state.steps_done.insert(act.name().to_owned());
    let row = state.phase.row().expect("only a phase with steps gets here");
    if let (true, Some(then)) = (row.acts.iter().all(|(_, act)| state.steps_done.contains(act.name())), row.then) {
        state.enter(then, at_ms);
    }
}

fn step_failed(state: &mut Migration, side: Side, ended: &StepEnded, failure: &StepFailure, at_ms: u64) {
    let must_wait = match failure.code {
        // The receiver has not read fence E−1 yet, or has read fence E before us: the log decides, or the deadline.
        FailureCode::WrongEpoch => true,
        // A restarted source fences itself in again, and that makes this attempt void. A restarted target lost its replica.
        FailureCode::WrongIncarnation => side == Side::Source,
        // A target that owns already has won: its fence is about to be read.
        FailureCode::WrongRole => state.phase == Phase::Handover,
        _ => false,
    };
    if must_wait {
        return;
    }
    let message = format!("{} at {}: {}", ended.step, ended.from.node, failure.message);
    ends::roll_back(state, Some(failure.code), message, at_ms);
}
