//! A test-only switch that plants a bug, to show that the simulation finds it.
//!
//! Every part that obeys a rule of section 2 asks here whether the rule is planted away; outside of tests none ever is.

/// The bug that is planted. Outside tests: none, always.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    planted: Option<Bug>,
}

/// A rule of section 2 that is broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Bug {
    /// A fence counts under any epoch.
    FenceOfAnyEpoch,
    /// A target whose fence is void tries again under the epoch that it finds.
    RecomputedEpoch,
    /// A migration that fails ends in the journal before a fence E was read.
    EndWithoutFence,
    /// A checkpoint carries no sessions and no keys.
    CheckpointWithoutSessions,
    /// A checkpoint carries no kept replies.
    CheckpointWithoutReplies,
    /// A standby gives replies out.
    StandbyReplies,
    /// A paused source goes on at its deadline without a counted fence to itself.
    ResumeWithoutFence,
    /// The log is trimmed past a pinned checkpoint.
    TrimPastPin,
    /// Records are shown before they are durable.
    VisibleBeforeDurable,
    /// A delivery whose outcome is unknown is made again to the same instance.
    RedeliverToSameInstance,
    /// A standby is retired without a fence.
    RetireWithoutFence,
    /// A message counts whatever its sequence is.
    SequenceGap,
    /// A session is given up without a close.
    GiveUpWithoutClose,
    /// The proof compares digests of different positions.
    DigestElsewhere,
    /// An owner removes the body of a request whose record is still on its way.
    BodyFreedInFlight,
    /// A body that no record names stays in the checkpoint store for ever.
    BodyKeptForEver,
}

impl Bug {
    /// All of them, with the words that programs use for them.
    pub const ALL: [(Bug, &'static str); 16] = [
        (Bug::FenceOfAnyEpoch, "fence-of-any-epoch"),
        (Bug::RecomputedEpoch, "recomputed-epoch"),
        (Bug::EndWithoutFence, "end-without-fence"),
        (Bug::CheckpointWithoutSessions, "checkpoint-without-sessions"),
        (Bug::CheckpointWithoutReplies, "checkpoint-without-replies"),
        (Bug::StandbyReplies, "standby-replies"),
        (Bug::ResumeWithoutFence, "resume-without-fence"),
        (Bug::TrimPastPin, "trim-past-pin"),
        (Bug::VisibleBeforeDurable, "visible-before-durable"),
        (Bug::RedeliverToSameInstance, "redeliver-to-same-instance"),
        (Bug::RetireWithoutFence, "retire-without-fence"),
        (Bug::SequenceGap, "sequence-gap"),
        (Bug::GiveUpWithoutClose, "give-up-without-close"),
        (Bug::DigestElsewhere, "digest-elsewhere"),
        (Bug::BodyFreedInFlight, "body-freed-in-flight"),
        (Bug::BodyKeptForEver, "body-kept-for-ever"),
    ];

    /// As in [`Bug::ALL`].
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(bug, _)| *bug == self).map_or("", |(_, name)| name)
    }

    /// The bug of a name.
    #[must_use]
    pub fn named(name: &str) -> Option<Bug> {
        Self::ALL.iter().find(|(_, word)| *word == name).map(|(bug, _)| *bug)
    }
}

impl Rules {
    /// Everything but this holds.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn planting(bug: Bug) -> Rules {
        Rules { planted: Some(bug) }
    }

    /// Whether this bug is planted.
    #[must_use]
    pub fn plant(self, bug: Bug) -> bool {
        cfg!(feature = "test-hooks") && self.planted == Some(bug)
    }
}
