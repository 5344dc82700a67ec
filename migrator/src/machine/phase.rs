//! The phases of a migration, from top to bottom, each with what it does and what undoes it (invariant 6).
//!
//! ```text
//! prepare ─▶ checkpoint ─▶ transfer ─▶ restore ─▶ replay ─▶ verify ─▶ handover ─▶ completed
//!    │            │            │           │          │        │          │    (own fence E read)
//!    └────────────┴────────────┴───────────┴──────────┴────────┴──────────┘
//!                        ▼ failure, deadline, cancel
//!                   rolling-back ── a fence E that is not its own was read ──▶ rolled-back · diverged · cancelled
//! ```
//! A fence E of others ends every phase (`failed`), except the restart of the owner's node, which begins a new attempt.

use serde::{Deserialize, Serialize};

/// How far a migration has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
    /// The target appends the fence.
    Handover,
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
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

/// One line of the table of phases.
#[derive(Debug)]
pub struct Row {
    /// Which phase.
    pub phase: Phase,
    /// What is done in it, by whom; it ends when all are done.
    pub acts: &'static [(Side, Act)],
    /// What takes it back.
    pub undo: &'static [Undo],
    /// What follows. Nothing follows a handover but a fence.
    pub then: Option<Phase>,
}

/// The phases in which something is done, in their order.
pub const TABLE: [Row; 7] = {
    use Phase as P;
    use Side::{Source, Target};
    [
        Row {
            phase: P::Prepare,
            acts: &[(Target, Act::PrepareTarget), (Source, Act::PrepareSource)],
            undo: &[Undo::Discard],
            then: Some(P::Checkpoint),
        },
        Row {
            phase: P::Checkpoint,
            acts: &[(Source, Act::Checkpoint)],
            undo: &[Undo::ReleaseAtSource, Undo::ReleaseAtOwner],
            then: Some(P::Transfer),
        },
        Row { phase: P::Transfer, acts: &[(Target, Act::Transfer)], undo: &[Undo::Discard], then: Some(P::Restore) },
        Row { phase: P::Restore, acts: &[(Target, Act::Restore)], undo: &[Undo::Discard], then: Some(P::Replay) },
        Row { phase: P::Replay, acts: &[(Target, Act::Replay)], undo: &[Undo::Discard], then: Some(P::Verify) },
        Row { phase: P::Verify, acts: &[(Target, Act::Verify)], undo: &[Undo::Discard], then: Some(P::Handover) },
        // The undo of the fence itself would be a migration back; what can be taken back is all before it counts.
        Row { phase: P::Handover, acts: &[(Target, Act::Handover)], undo: &[Undo::Discard], then: None },
    ]
};

impl Phase {
    /// Its line in the table; `None` once rolling back or ended.
    #[must_use]
    pub fn row(self) -> Option<&'static Row> {
        TABLE.iter().find(|row| row.phase == self)
    }

    /// Whether nothing but after-care follows.
    #[must_use]
    pub fn has_ended(self) -> bool {
        self.row().is_none() && self != Phase::RollingBack
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
            Phase::Handover => "handover",
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
