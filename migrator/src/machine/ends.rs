//! How a migration ends: by a counted fence E that was read in the log, and by nothing else (invariant 2).
//!
//! Its own fence completes it, whatever was asked for meanwhile. Any other one decides that it did not move; which word that
//! end gets follows from what had happened before. Rolling back and cancelling only ask for such a fence.

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::Epoch;
use broker_adapter::record::Cause;
use sidecar::command::FailureCode;

use super::phase::{Ending, Phase, Undo};
use super::state::{Migration, RollBack};

/// How often a migration begins: a restart of the owner's node makes an attempt void.
pub const ATTEMPTS_MAX: u32 = 3;

pub(super) fn fence_read(state: &mut Migration, fence: &CountedFence, at_ms: u64) {
    // A void attempt has read its fence already; what comes next is the new attempt's.
    if state.has_ended() || fence.epoch != state.attempt.epoch || state.voided_by.is_some() {
        return;
    }
    if state.is_own_fence(fence) {
        return end(state, Ending::Completed, None, Some(fence), at_ms);
    }
    if state.cancel_requested {
        let error = state.roll_back.as_ref().map(|why| why.message.clone());
        return end(state, Ending::Cancelled, error, Some(fence), at_ms);
    }
    if let Some(why) = state.roll_back.clone() {
        let ending = if why.code == Some(FailureCode::Diverged) { Ending::Diverged } else { Ending::RolledBack };
        return end(state, ending, Some(why.message), Some(fence), at_ms);
    }
    if fence.cause == Cause::Resume && fence.migration == Some(state.order.id) {
        let error = format!(
            "the source {} was paused longer than {} ms and went on; raise pause_limit_ms, or find out what took so long",
            state.attempt.source.node, state.order.pause_limit_ms
        );
        return end(state, Ending::RolledBack, Some(error), Some(fence), at_ms);
    }
    if fence.cause != Cause::Restart || fence.owner.node != state.attempt.source.node {
        return end(state, Ending::Failed, Some(foreign(fence)), Some(fence), at_ms);
    }
    if state.attempt.number >= ATTEMPTS_MAX {
        let error = format!(
            "the sidecar of the source {} restarted in each of {ATTEMPTS_MAX} attempts; find out why before migrating again",
            fence.owner.node
        );
        return end(state, Ending::Failed, Some(error), Some(fence), at_ms);
    }
    state.voided_by = Some(fence.clone());
    state.enter(state.order.table()[0].phase, at_ms);
}

/// The only end without its fence: the fold remembers the last 256, and so many passed while no migrator was there. That
/// fence E counted is certain; whose it was is not.
pub(super) fn fence_forgotten(state: &mut Migration, epoch: Epoch, at_ms: u64) {
    if state.has_ended() || epoch != state.attempt.epoch || state.voided_by.is_some() {
        return;
    }
    let error = format!(
        "fence {epoch} counted while no migrator was running, and so many followed that the log no longer tells whose it \
         was; look who owns {} now",
        state.order.shard
    );
    end(state, Ending::Failed, Some(error), None, at_ms);
}

pub(super) fn cancel(state: &mut Migration, at_ms: u64) {
    if state.has_ended() || state.cancel_requested {
        return;
    }
    state.cancel_requested = true;
    if let Some(fence) = state.voided_by.take() {
        // Fence E of the void attempt was read, and it is not this migration's.
        return end(state, Ending::Cancelled, None, Some(&fence), at_ms);
    }
    if state.phase != Phase::RollingBack {
        state.enter(Phase::RollingBack, at_ms);
    }
}

pub(super) fn roll_back(state: &mut Migration, code: Option<FailureCode>, message: String, at_ms: u64) {
    let can_begin = state.row().is_some() && state.voided_by.is_none();
    if !can_begin {
        return;
    }
    state.error = Some(message.clone());
    state.roll_back = Some(RollBack { code, message });
    state.enter(Phase::RollingBack, at_ms);
}

fn foreign(fence: &CountedFence) -> String {
    let what = match fence.cause {
        Cause::Failover => "a failover",
        Cause::Handover => "another migration",
        Cause::Restart => "the start of another owner",
        Cause::Retire => "the retirement of a standby",
        Cause::Undo => "an undo",
        Cause::First => "the first owner",
        Cause::Cancel => "a cancel",
        Cause::RollBack => "a rollback",
        Cause::Resume => "a source that went on",
    };
    format!(
        "{what} moved the shard first: fence {} at position {} names {} as its owner",
        fence.epoch, fence.position, fence.owner
    )
}

fn end(state: &mut Migration, ending: Ending, error: Option<String>, decided_by: Option<&CountedFence>, at_ms: u64) {
    state.enter(ending.phase(), at_ms);
    state.ended = Some((ending, at_ms));
    state.decided_by = decided_by.cloned();
    state.error = error;
    let owner = decided_by.map(|fence| &fence.owner);
    // Never drop a replica that owns, whoever made it the owner, nor one of which that is not known.
    if owner.is_none_or(|owner| owner.node == state.attempt.target.node) {
        state.undo.remove(&Undo::Discard);
    }
    if owner.is_none() || owner == Some(&state.attempt.source) {
        state.undo.remove(&Undo::ReleaseAtOwner);
    }
}
