//! Attempts and skips: how a message that kills its service is found and left out (design section 3, "Poison").
//!
//! Counts of attempts outlive epochs. A counted digest or checkpoint shows that everything up to it was applied, and a higher
//! attempt shows the same for its own incarnation; both clear what is below. A skip is void where its effect was seen.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Void;
use crate::ids::{Incarnation, Position};
use crate::record::Attempt;

/// How many attempts are remembered.
pub const ATTEMPTS_MAX: usize = 1_024;
/// How many skips are remembered.
pub const SKIPS_MAX: usize = 1_024;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Tried {
    incarnation: Incarnation,
    from: Position,
    to: Position,
}

/// Attempts that may have killed the service, and messages that are never delivered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Poison {
    attempts: Vec<Tried>,
    skips: BTreeSet<Position>,
    seen: Position,
}

impl Poison {
    pub(super) fn attempt(&mut self, attempt: &Attempt, at: Position) -> Result<(), Void> {
        if attempt.from > attempt.to || attempt.to >= at || attempt.from == Position::ZERO {
            return Err(Void::Position);
        }
        let incarnation = attempt.writer.replica.incarnation;
        self.attempts.retain(|tried| tried.incarnation != incarnation || tried.to >= attempt.from);
        if self.attempts.len() == ATTEMPTS_MAX {
            return Err(Void::Limit);
        }
        self.attempts.push(Tried { incarnation, from: attempt.from, to: attempt.to });
        Ok(())
    }

    pub(super) fn skip(&mut self, position: Position, at: Position) -> Result<(), Void> {
        if position >= at || position == Position::ZERO {
            return Err(Void::Position);
        }
        if position <= self.seen {
            return Err(Void::Seen);
        }
        if self.skips.len() == SKIPS_MAX && !self.skips.contains(&position) {
            return Err(Void::Limit);
        }
        self.skips.insert(position);
        Ok(())
    }

    pub(super) fn seen(&mut self, position: Position) {
        self.seen = self.seen.max(position);
        let seen = self.seen;
        self.attempts.retain(|tried| tried.to > seen);
    }

    pub(super) fn forget_skips(&mut self, oldest_kept: Position) {
        self.skips = self.skips.split_off(&oldest_kept.next());
    }

    pub(super) fn is_skipped(&self, position: Position) -> bool {
        self.skips.contains(&position)
    }

    pub(super) fn skipped(&self) -> impl Iterator<Item = Position> + '_ {
        self.skips.iter().copied()
    }

    pub(super) fn attempts_at(&self, position: Position) -> usize {
        self.attempts.iter().filter(|tried| (tried.from..=tried.to).contains(&position)).count()
    }

    pub(super) fn attempts(&self) -> usize {
        self.attempts.len()
    }

    pub(super) fn skips(&self) -> usize {
        self.skips.len()
    }
}
