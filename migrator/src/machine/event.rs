//! What can happen to a migration: the words of the journal, beside its acceptance.
//!
//! Every event carries the wall time at which the driver wrote it, so that replaying the journal gives the same phase times.

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::{Epoch, Incarnation, Replica};
use serde::{Deserialize, Serialize};
use sidecar::command::{StepDone, StepFailure};

use super::phase::{Phase, Undo};

/// Something happened, at a time.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Milliseconds since the Unix epoch, by the migrator's clock; decides nothing.
    pub at_ms: u64,
    /// What.
    pub what: What,
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum What {
    /// A new attempt begins: its epoch is fixed here.
    AttemptBegun(AttemptStart),
    /// A step's outcome arrived.
    StepEnded(StepEnded),
    /// The phase took longer than its limit.
    DeadlinePassed {
        /// Of which attempt.
        attempt: u32,
        /// Which phase.
        phase: Phase,
        /// The limit.
        limit_ms: u64,
    },
    /// It took longer than its order allows.
    OrderTooLate {
        /// The order's deadline.
        limit_s: u64,
    },
    /// `ms2m`: the replay took longer than the cutoff.
    CutoffPassed {
        /// Of which attempt.
        attempt: u32,
    },
    /// The target's node runs under another incarnation: its replica is gone.
    TargetLost {
        /// Of which attempt.
        attempt: u32,
        /// What the node announces now.
        now: Incarnation,
    },
    /// The shard's log cannot be read: damaged, rewound, with a gap.
    LogUnreadable {
        /// Of which attempt.
        attempt: u32,
        /// Where and how.
        reason: String,
    },
    /// Somebody wants it to end.
    CancelRequested,
    /// A counted fence was read in the shard's log.
    FenceRead(CountedFence),
    /// The epoch has moved, but so far that the log no longer tells by whose fence.
    FenceForgotten {
        /// The attempt's epoch.
        epoch: Epoch,
    },
    /// A part of the after-care was answered.
    CareDone(Undo),
    /// The rest of the after-care was not answered in time.
    CareGivenUp,
}

/// What is fixed when an attempt begins.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttemptStart {
    /// The first is 1.
    pub number: u32,
    /// E: the one epoch that every command and fence of this attempt carries (invariant 2).
    pub epoch: Epoch,
    /// The owner at E−1, as read from the log.
    pub source: Replica,
    /// Who is to own at E.
    pub target: Replica,
}

/// The outcome of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct StepEnded {
    /// Of which attempt.
    pub attempt: u32,
    /// [`sidecar::command::Step::name`].
    pub step: String,
    /// Who answered.
    pub from: Replica,
    /// What became of it.
    pub result: Result<StepDone, StepFailure>,
}
