//! The running hash over a replica's replies, and its recent values: what owner and standby compare (invariant 8).

use std::collections::VecDeque;

use broker_adapter::ids::{Hash, Position};

use crate::command::Reply;

/// Of how many messages the hash is remembered. A digest is older than that only if it was appended very late.
const HISTORY_MESSAGES: usize = 65_536;

/// A chain over position, status and body of every applied message's reply.
#[derive(Clone, Debug, Default)]
pub struct RunningHash {
    current: Hash,
    /// The hash after each of the last messages, behind the oldest value that is known.
    history: VecDeque<(Position, Hash)>,
    oldest: (Position, Hash),
    replies: u64,
}

impl RunningHash {
    /// Goes on from a checkpoint.
    #[must_use]
    pub fn from_checkpoint(position: Position, hash: Hash) -> RunningHash {
        RunningHash { current: hash, history: VecDeque::new(), oldest: (position, hash), replies: 0 }
    }

    /// Adds a reply.
    pub fn add(&mut self, position: Position, reply: &Reply) {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.current.0);
        hasher.update(&position.0.to_be_bytes());
        hasher.update(&reply.status.to_be_bytes());
        hasher.update(&reply.body);
        self.current = Hash(*hasher.finalize().as_bytes());
        if self.history.len() == HISTORY_MESSAGES {
            self.oldest = self.history.pop_front().unwrap_or(self.oldest);
        }
        self.history.push_back((position, self.current));
        if !reply.body.is_empty() {
            self.replies += 1;
        }
    }

    /// The hash after the last reply.
    #[must_use]
    pub fn current(&self) -> Hash {
        self.current
    }

    /// The last message that it covers; the checkpoint's position if there is none.
    #[must_use]
    pub fn last(&self) -> Position {
        self.history.back().map_or(self.oldest.0, |(position, _)| *position)
    }

    /// The hash after everything up to `position`; `None` if that is too long ago to know.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<Hash> {
        if position < self.oldest.0 {
            return None;
        }
        let after = self.history.partition_point(|(at, _)| *at <= position);
        Some(after.checked_sub(1).map_or(self.oldest.1, |last| self.history[last].1))
    }

    /// How many replies with a content it covers since the checkpoint: what the comparison can tell.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }
}
