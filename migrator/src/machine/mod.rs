//! The migration as a pure state machine: `next(state, event) -> (state, what it wants)`.
//!
//! No I/O, no clock, no await: time-outs arrive as events, and the driver does what [`wants`] says, again and again, until an
//! event ends it. What a state wants follows from the state alone, so recovery after a crash is replaying the journal's events
//! and asking the last state. `phase.rs` holds the table of phases; `ends.rs` is the one place that decides how a migration ends.
//!
//! Architecture Invariant: a migration ends only in `ends.rs`, and only there because of a fence that was read in the log.

mod ends;
mod event;
mod phase;
#[cfg(test)]
mod random_orders;
mod state;
mod steps;
#[cfg(test)]
mod strategy_tests;
#[cfg(test)]
pub(crate) mod tests;

use broker_adapter::ids::{Epoch, Replica};
use broker_adapter::record::{Cause, Fence};
use sidecar::command::Step;

pub use ends::ATTEMPTS_MAX;
pub use event::{AttemptStart, Event, StepEnded, What};
pub use phase::{Act, Ending, Phase, Row, Side, Undo, tables};
pub use state::{Agreed, Migration, Operation, Order, OrderKey, PhaseTime, Proof, RollBack, Strategy, Taken};

/// What a state asks of the world until an event changes it. All of it may be done twice.
#[derive(Clone, Debug, PartialEq)]
pub enum Want {
    /// Tell a sidecar to do a step.
    Tell(Tell),
    /// Append this fence to the shard's log, once the log was read up to the epoch before it.
    Append(Fence),
    /// Write down that a new attempt begins, with the target as it is now.
    Begin {
        /// Which.
        number: u32,
        /// The epoch to fix.
        epoch: Epoch,
        /// The owner at the epoch before.
        source: Replica,
    },
}

/// A command without the address for its answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Tell {
    /// To whom.
    pub to: Replica,
    /// Of which attempt.
    pub attempt: u32,
    /// The attempt's epoch, from the journal.
    pub epoch: Epoch,
    /// What.
    pub step: Step,
}

/// What follows from an event. An event that says nothing new (late, doubled, of another attempt) changes nothing.
#[must_use]
pub fn next(state: &Migration, event: &Event) -> (Migration, Vec<Want>) {
    let mut after = state.clone();
    let at_ms = event.at_ms;
    match &event.what {
        What::FenceRead(fence) => ends::fence_read(&mut after, fence, at_ms),
        What::FenceForgotten { epoch } => ends::fence_forgotten(&mut after, *epoch, at_ms),
        What::AttemptBegun(start) => begin_attempt(&mut after, start, at_ms),
        What::CancelRequested => ends::cancel(&mut after, at_ms),
        What::StepEnded(step) => steps::step_ended(&mut after, step, at_ms),
        What::DeadlinePassed { attempt, phase, limit_ms } => {
            if *attempt == after.attempt.number && *phase == after.phase && after.row().is_some() {
                let message = format!(
                    "the phase {} took longer than its limit of {limit_ms} ms; look at the logs of {} and {}, or raise the limit",
                    phase.name(),
                    after.attempt.source.node,
                    after.attempt.target.node,
                );
                ends::roll_back(&mut after, Some(sidecar::command::FailureCode::Deadline), message, at_ms);
            }
        }
        What::OrderTooLate { limit_s } => {
            if !after.has_ended() && after.row().is_some() {
                let message = format!(
                    "it had not ended {limit_s} s after its acceptance, which was its deadline; order it again with a longer deadline_s"
                );
                ends::roll_back(&mut after, Some(sidecar::command::FailureCode::Deadline), message, at_ms);
            }
        }
        What::CutoffPassed { attempt } => {
            // The source is stopped, so that the target catches up whatever arrives (ICIN 2025 calls it the cutoff).
            if *attempt == after.attempt.number && after.phase == Phase::Replay && after.voided_by.is_none() {
                after.was_cut_off = true;
                after.enter(Phase::Pause, at_ms);
            }
        }
        What::TargetLost { attempt, now } => {
            let needs_target = !matches!(after.order.operation, Operation::Retire { .. });
            if needs_target && *attempt == after.attempt.number && *now != after.attempt.target.incarnation {
                let message = format!(
                    "the sidecar of the target {} restarted and lost its replica; start the migration again",
                    after.attempt.target.node
                );
                ends::roll_back(&mut after, Some(sidecar::command::FailureCode::NoReplica), message, at_ms);
            }
        }
        What::LogUnreadable { attempt, reason } => {
            if *attempt == after.attempt.number {
                let message = format!("the log {} cannot be read: {reason}", after.order.shard.log_name());
                ends::roll_back(&mut after, Some(sidecar::command::FailureCode::Broker), message, at_ms);
            }
        }
        What::CareDone(undo) => {
            if after.has_ended() {
                after.undo.remove(undo);
            }
        }
        What::CareGivenUp => {
            if after.has_ended() {
                after.undo.clear();
            }
        }
    }
    let wants = wants(&after);
    (after, wants)
}

/// What a state asks of the world.
#[must_use]
pub fn wants(state: &Migration) -> Vec<Want> {
    if state.has_ended() {
        return state.undo.iter().filter_map(|undo| steps::care(state, *undo)).map(Want::Tell).collect();
    }
    if let Some(fence) = &state.voided_by {
        let number = state.attempt.number + 1;
        return vec![Want::Begin { number, epoch: fence.epoch.next(), source: fence.owner.clone() }];
    }
    if state.phase == Phase::Retire {
        return vec![Want::Append(Fence {
            epoch: state.attempt.epoch,
            owner: state.attempt.source.clone(),
            cause: Cause::Retire,
            migration: Some(state.order.id),
            retires: Some(state.order.to.clone()),
        })];
    }
    if state.phase == Phase::RollingBack {
        let cause = if state.cancel_requested { Cause::Cancel } else { Cause::RollBack };
        return vec![Want::Append(Fence {
            epoch: state.attempt.epoch,
            owner: state.attempt.source.clone(),
            cause,
            migration: Some(state.order.id),
            retires: None,
        })];
    }
    let acts = state.row().map_or(&[] as &[_], |row| row.acts);
    let open = acts.iter().filter(|(_, act)| !state.steps_done.contains(act.name()));
    open.filter_map(|(side, act)| steps::tell(state, *side, *act)).map(Want::Tell).collect()
}

fn begin_attempt(after: &mut Migration, start: &AttemptStart, at_ms: u64) {
    let Some(fence) = &after.voided_by else { return };
    let fits = start.number == after.attempt.number + 1
        && start.epoch == fence.epoch.next()
        && start.source == fence.owner
        && start.target.node == after.order.to;
    if !fits || after.has_ended() {
        return;
    }
    after.attempt = start.clone();
    after.voided_by = None;
    after.taken = None;
    after.is_warm = false;
    after.differs = false;
    after.was_cut_off = false;
    after.paused = None;
    after.proof = None;
    after.agreed = None;
    after.enter(after.order.table()[0].phase, at_ms);
}
