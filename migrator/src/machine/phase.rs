//! The phases of a migration, from top to bottom, each with what it does and what undoes it (invariant 6).
//!
//! ```text
//! live           prepare ─▶ checkpoint ─▶ transfer ─▶ restore ─▶ replay ─▶ verify ─▶ handover ─▶ completed
//! ms2m           prepare ─▶ checkpoint ─▶ transfer ─▶ restore ─▶ replay ─▶ verify ─▶ pause ─▶ handover ─▶ completed
//! precopy        prepare ─▶ checkpoint ─▶ pause ─▶ transfer ─▶ restore ─▶ handover ─▶ completed
//! stop-and-copy  prepare ─▶ pause ─▶ transfer ─▶ restore ─▶ handover ─▶ completed
//! retire         retire ─▶ completed
//!    any of them ──failure, deadline, cancel──▶ rolling-back ── a fence E that is not its own was read ──▶
//!                                               rolled-back · diverged · cancelled
//! ```
//! `completed` needs its own fence E, read in the log. A fence E of others ends every phase (`failed`), except the restart of
//! the owner's node, which begins a new attempt. A warm target goes from prepare to replay.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// How far a migration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Phase {
    /// Both ends check that they can.
    Prepare,
    /// The source saves its state and pins it.
    Checkpoint,
    /// The target starts an instance and streams the state into it.
    Transfer,
    /// The target waits until the instance is ready.
    Restore,
    /// The target applies the log up to near its tail.
    Replay,
    /// The replicas are compared at one position.
    Verify,
    /// The source stands still.
    Pause,
    /// The target appends the fence.
    Handover,
    /// The fence to the present owner that retires the standby is on its way.
    Retire,
    /// The target owns.
    Completed,
    /// A fence to the present owner is on its way.
    RollingBack,
    /// The owner stays; something failed.
    RolledBack,
    /// Others moved the ownership.
    Failed,
    /// The owner stays; the replicas differ.
    Diverged,
    /// The owner stays; somebody asked for it.
    Cancelled,
}

/// How a migration ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Its own fence counted.
    Completed,
    /// A step failed or took too long, and another fence counted.
    RolledBack,
    /// Another fence counted before anything failed.
    Failed,
    /// The replicas differ, and another fence counted.
    Diverged,
    /// Somebody asked for it, and another fence counted.
    Cancelled,
}

impl Ending {
    /// The last phase of a migration that ends so.
    #[must_use]
    pub fn phase(self) -> Phase {
        match self {
            Ending::Completed => Phase::Completed,
            Ending::RolledBack => Phase::RolledBack,
            Ending::Failed => Phase::Failed,
            Ending::Diverged => Phase::Diverged,
            Ending::Cancelled => Phase::Cancelled,
        }
    }

    /// As in REST and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.phase().name()
    }
}

/// Which end of the migration does a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The owner at E−1.
    Source,
    /// Who is to own at E.
    Target,
}

/// A step without what it needs to know: the state fills that in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// `prepare-target`
    PrepareTarget,
    /// `prepare-source`
    PrepareSource,
    /// `checkpoint`
    Checkpoint,
    /// `pause`
    Pause,
    /// `transfer`
    Transfer,
    /// `restore`
    Restore,
    /// `replay`
    Replay,
    /// `verify`
    Verify,
    /// `handover`
    Handover,
}

/// What takes a phase back, done after the end until it is answered or given up. May run twice, as may its action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Undo {
    /// The target drops its replica; not after `completed`.
    Discard,
    /// The pin ends: told to the source of the last attempt.
    ReleaseAtSource,
    /// The pin ends: told to whoever owns since fence E, because a pin's end counts only from the owner.
    ReleaseAtOwner,
}

/// One line of a table of phases; what stands below it follows. Nothing follows a handover but a fence.
#[derive(Debug)]
pub struct Row {
    /// Which phase.
    pub phase: Phase,
    /// What is done in it, by whom; it ends when all are done.
    pub acts: &'static [(Side, Act)],
    /// What takes it back.
    pub undo: &'static [Undo],
}

/// The phases of each strategy, in their order.
pub mod tables {
    use super::{Act, Phase, Row, Side, Undo};

    const fn row(phase: Phase, acts: &'static [(Side, Act)], undo: &'static [Undo]) -> Row {
        Row { phase, acts, undo }
    }

    const DROP: &[Undo] = &[Undo::Discard];
    /// A pause is taken back by the fence E to the source that every end but `completed` needs; what is left is its pin.
    const UNPIN: &[Undo] = &[Undo::ReleaseAtSource, Undo::ReleaseAtOwner];

    const PREPARE: Row =
        row(Phase::Prepare, &[(Side::Target, Act::PrepareTarget), (Side::Source, Act::PrepareSource)], DROP);
    const CHECKPOINT: Row = row(Phase::Checkpoint, &[(Side::Source, Act::Checkpoint)], UNPIN);
    const TRANSFER: Row = row(Phase::Transfer, &[(Side::Target, Act::Transfer)], DROP);
    const RESTORE: Row = row(Phase::Restore, &[(Side::Target, Act::Restore)], DROP);
    const REPLAY: Row = row(Phase::Replay, &[(Side::Target, Act::Replay)], DROP);
    const VERIFY: Row = row(Phase::Verify, &[(Side::Target, Act::Verify)], DROP);
    const PAUSE: Row = row(Phase::Pause, &[(Side::Source, Act::Pause)], UNPIN);
    /// The undo of the fence itself would be a migration back; what can be taken back is all before it counts.
    const HANDOVER: Row = row(Phase::Handover, &[(Side::Target, Act::Handover)], DROP);

    /// `live`
    pub const LIVE: &[Row] = &[PREPARE, CHECKPOINT, TRANSFER, RESTORE, REPLAY, VERIFY, HANDOVER];
    /// `ms2m`: checkpoint, transfer, restoration, replay, finalisation with a stopped source (arXiv 2203.05622, section III).
    pub const MS2M: &[Row] = &[PREPARE, CHECKPOINT, TRANSFER, RESTORE, REPLAY, VERIFY, PAUSE, HANDOVER];
    /// `precopy`
    pub const PRECOPY: &[Row] = &[PREPARE, CHECKPOINT, PAUSE, TRANSFER, RESTORE, HANDOVER];
    /// `stop-and-copy`
    pub const STOP_AND_COPY: &[Row] = &[PREPARE, PAUSE, TRANSFER, RESTORE, HANDOVER];
    /// Retiring a standby: nothing but its fence.
    pub const RETIRE: &[Row] = &[row(Phase::Retire, &[], &[])];
}

impl Phase {
    /// Whether nothing but after-care follows.
    #[must_use]
    pub fn has_ended(self) -> bool {
        matches!(self, Phase::Completed | Phase::RolledBack | Phase::Failed | Phase::Diverged | Phase::Cancelled)
    }

    /// As in REST and on the command line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Phase::Prepare => "prepare",
            Phase::Checkpoint => "checkpoint",
            Phase::Transfer => "transfer",
            Phase::Restore => "restore",
            Phase::Replay => "replay",
            Phase::Verify => "verify",
            Phase::Pause => "pause",
            Phase::Handover => "handover",
            Phase::Retire => "retire",
            Phase::Completed => "completed",
            Phase::RollingBack => "rolling-back",
            Phase::RolledBack => "rolled-back",
            Phase::Failed => "failed",
            Phase::Diverged => "diverged",
            Phase::Cancelled => "cancelled",
        }
    }
}

impl Act {
    /// As in [`sidecar::command::Step::name`].
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Act::PrepareTarget => "prepare-target",
            Act::PrepareSource => "prepare-source",
            Act::Checkpoint => "checkpoint",
            Act::Pause => "pause",
            Act::Transfer => "transfer",
            Act::Restore => "restore",
            Act::Replay => "replay",
            Act::Verify => "verify",
            Act::Handover => "handover",
        }
    }
}

impl Undo {
    /// As in [`sidecar::command::Step::name`].
    #[must_use]
    pub fn step_name(self) -> &'static str {
        match self {
            Undo::Discard => "discard",
            Undo::ReleaseAtSource | Undo::ReleaseAtOwner => "release",
        }
    }
}
