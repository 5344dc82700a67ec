//! Who owns the shard: the log is the lock (invariant 2).
//!
//! A fence counts if and only if its epoch is the current one plus one at its place; any other is void. That alone makes exactly
//! one of all competing fences win, and everyone who reads the log knows which.

use std::collections::VecDeque;

use serde::{Deserialize, Serialize};

use super::{Bug, Rules, Void};
use crate::ids::{Epoch, MigrationId, NodeName, Position, Replica};
use crate::record::{Cause, Fence, Writer};

/// How many counted fences are remembered.
pub const FENCES_REMEMBERED: usize = 256;

/// A fence that counted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CountedFence {
    /// Where it stands.
    pub position: Position,
    /// The epoch that it began.
    pub epoch: Epoch,
    /// Who owns from there on.
    pub owner: Replica,
    /// Why.
    pub cause: Cause,
    /// The migration whose fence it is.
    pub migration: Option<MigrationId>,
    /// The node whose standby goes with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires: Option<NodeName>,
}

/// The epoch, its owner, and how it came to that.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ownership {
    epoch: Epoch,
    fences: VecDeque<CountedFence>,
}

impl Ownership {
    pub(super) fn fence(&mut self, fence: &Fence, position: Position, rules: Rules) -> Result<CountedFence, Void> {
        if !rules.plant(Bug::FenceOfAnyEpoch) && fence.epoch != self.epoch.next() {
            return Err(Void::StaleFence);
        }
        let counted = CountedFence {
            position,
            epoch: fence.epoch,
            owner: fence.owner.clone(),
            cause: fence.cause,
            migration: fence.migration,
            retires: fence.retires.clone(),
        };
        self.epoch = fence.epoch;
        if self.fences.len() == FENCES_REMEMBERED {
            self.fences.pop_front();
        }
        self.fences.push_back(counted.clone());
        Ok(counted)
    }

    /// The ownership number; 0 before the first fence.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Who owns.
    #[must_use]
    pub fn owner(&self) -> Option<&Replica> {
        self.fences.back().map(|fence| &fence.owner)
    }

    /// An owner's words count only while it owns, under the epoch that it owns: a zombie's are void.
    #[must_use]
    pub fn is_writer(&self, writer: &Writer) -> bool {
        writer.epoch == self.epoch && self.owner() == Some(&writer.replica)
    }

    /// The counted fences that are remembered, oldest first.
    pub fn fences(&self) -> impl DoubleEndedIterator<Item = &CountedFence> {
        self.fences.iter()
    }
}
