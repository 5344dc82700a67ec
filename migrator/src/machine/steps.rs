//! Steps: which command a phase's line means for this migration, and what its outcome changes.
//!
//! An outcome counts only if it is of the present attempt, of a step that the present phase waits for, and from the replica
//! that was asked; everything else is late, doubled or lost mail.

use broker_adapter::ids::Replica;
use sidecar::command::{FailureCode, FenceWhen, Reuse, Step, StepDone, StepFailure};

use super::event::StepEnded;
use super::phase::{Act, Phase, Side, Undo};
use super::state::{Agreed, Migration, Operation, Proof, Strategy, Taken};
use super::{Tell, ends};

pub(super) fn tell(state: &Migration, side: Side, act: Act) -> Option<Tell> {
    let lag_limit_records = state.order.lag_limit_records;
    let step = match act {
        Act::PrepareTarget => Step::PrepareTarget { reuse: reuse(state) },
        Act::PrepareSource => Step::PrepareSource,
        Act::Checkpoint => {
            let rounds = if state.order.strategy == Strategy::Precopy { state.order.precopy_rounds } else { 1 };
            Step::Checkpoint { rounds }
        }
        Act::Pause => Step::Pause { save: state.order.strategy.carries_state(), limit_ms: state.order.pause_limit_ms },
        Act::Transfer => {
            let taken = state.taken?;
            Step::Transfer { checkpoint: taken.position, manifest: taken.manifest }
        }
        Act::Restore => Step::Restore,
        Act::Replay => Step::Replay { lag_limit_records },
        Act::Verify => Step::Verify { mark: state.mark() },
        Act::Handover => {
            let when = match (state.order.strategy, state.paused) {
                _ if state.differs => FenceWhen::TakenBack { lag_limit_records },
                (Strategy::Live, _) => FenceWhen::Near { lag_limit_records },
                (Strategy::Ms2m, paused) => {
                    let needs_replies = state.was_cut_off && state.order.require_proof;
                    FenceWhen::CaughtUp { paused: paused?, needs_replies }
                }
                (Strategy::Precopy | Strategy::StopAndCopy, paused) => FenceWhen::Loaded { paused: paused? },
            };
            Step::Handover { when, cause: state.order.cause() }
        }
    };
    Some(with_attempt(state, end_of(state, side).clone(), step))
}

fn reuse(state: &Migration) -> Reuse {
    match state.order.operation {
        _ if state.order.strategy.carries_state() => Reuse::Nothing,
        Operation::Undo { .. } => Reuse::Any,
        Operation::Move | Operation::Retire { .. } => Reuse::Agreeing,
    }
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
    let Some(row) = state.row() else { return };
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
        (Act::PrepareTarget, StepDone::Prepared { warm, differs }) => {
            (state.is_warm, state.differs) = (warm.is_some(), *differs);
        }
        (Act::Checkpoint, StepDone::Checkpoint { position, manifest, state_bytes, .. }) => {
            state.taken = Some(Taken { position: *position, manifest: *manifest, state_bytes: *state_bytes });
        }
        (Act::Pause, StepDone::Checkpoint { position, manifest, state_bytes, .. }) => {
            state.taken = Some(Taken { position: *position, manifest: *manifest, state_bytes: *state_bytes });
            state.paused = Some(*position);
        }
        (Act::Pause, StepDone::Paused { position }) => {
            state.paused = Some(*position);
            // Behind a cutoff only what the owner's digests tell is compared, and that is seen to if a proof is required.
            let told = if state.order.require_proof { Proof::RepliesOnly } else { Proof::Unproven };
            state.proof.get_or_insert(told);
        }
        // The very bytes of the paused source, each chunk checked by its hash, and the service took them.
        (Act::Restore, _) if state.order.strategy.carries_state() => state.proof = Some(Proof::State),
        (Act::Verify, StepDone::Agreed { state: hash, replies_compared, position, hash: replies }) => {
            state.agreed = Some(Agreed { position: *position, replies: *replies, state: *hash });
            let proof = match (hash, replies_compared) {
                (Some(_), _) => Proof::State,
                (None, 0) => Proof::Unproven,
                (None, _) => Proof::RepliesOnly,
            };
            state.proof = Some(proof);
            if proof == Proof::Unproven && state.order.require_proof {
                let message = unproven(state);
                return ends::roll_back(state, None, message, at_ms);
            }
        }
        (Act::PrepareTarget | Act::Checkpoint | Act::Pause | Act::Verify, other) => {
            let message =
                format!("the step {} was answered with {other:?}: do all nodes run the same version?", act.name());
            return ends::roll_back(state, None, message, at_ms);
        }
        _ => {}
    }
    state.steps_done.insert(act.name().to_owned());
    let row = state.row().expect("only a phase with steps gets here");
    let all_done = row.acts.iter().all(|(_, act)| state.steps_done.contains(act.name()));
    // What a warm target has needs no checkpoint.
    let then = match state.phase {
        Phase::Prepare if state.is_warm => Some(Phase::Replay),
        // That they differ is known, and why the shard is taken back.
        Phase::Replay if state.differs => Some(Phase::Handover),
        phase => state.order.phase_after(phase),
    };
    if then == Some(Phase::Handover) && state.differs {
        state.proof = Some(Proof::Unproven);
    }
    if let (true, Some(then)) = (all_done, then) {
        state.enter(then, at_ms);
    }
}

fn unproven(state: &Migration) -> String {
    format!(
        "nothing proves that {} is equal on {}: its states cannot be compared, and no reply with a content came since the \
         load; make its saves canonical (`Segue-Snapshot: canonical`), give it a state_hash, migrate while requests with replies \
         come in, move it by strategy precopy, or allow this migration to be unproven (--allow-unproven; in REST \
         \"allow_unproven\": true; for all require_proof = false at the migrator)",
        state.order.shard, state.attempt.target.node
    )
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
    state.difference = failure.difference.as_deref().cloned();
    let message = format!("{} at {}: {}", ended.step, ended.from.node, failure.message);
    ends::roll_back(state, Some(failure.code), message, at_ms);
}
