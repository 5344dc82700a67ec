//! The kept replies: what the owner can still answer, in whatever replica it lives (invariant 5).
//!
//! The replies of the last R counted messages are state: every replica computes the same ones, and checkpoints carry them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use broker_adapter::ids::{MessageName, Position};
use broker_adapter::settings::Settings;
use serde::{Deserialize, Serialize};

use crate::command::Reply;

/// One kept reply.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// Whose.
    pub name: MessageName,
    /// Where the message stands.
    pub position: Position,
    /// The reply.
    pub reply: Arc<Reply>,
}

/// The replies of the last R counted messages, and of them at most `replies_kept_bytes` of bodies.
#[derive(Clone, Debug, Default)]
pub struct KeptReplies {
    by_age: VecDeque<Kept>,
    by_name: BTreeMap<MessageName, (Position, Arc<Reply>)>,
    bytes: u64,
}

impl KeptReplies {
    /// Keeps one more; the oldest go beyond the limits.
    pub fn keep(&mut self, kept: Kept, settings: &Settings) {
        self.bytes += kept.reply.body.len() as u64;
        self.by_name.insert(kept.name, (kept.position, kept.reply.clone()));
        self.by_age.push_back(kept);
        while self.by_age.len() as u64 > settings.replies_kept || self.bytes > settings.replies_kept_bytes {
            let Some(oldest) = self.by_age.pop_front() else { break };
            self.bytes -= oldest.reply.body.len() as u64;
            if self.by_name.get(&oldest.name).is_some_and(|(position, _)| *position == oldest.position) {
                self.by_name.remove(&oldest.name);
            }
        }
    }

    /// The reply of a message and where that stands.
    #[must_use]
    pub fn get(&self, name: MessageName) -> Option<(Position, Arc<Reply>)> {
        self.by_name.get(&name).cloned()
    }

    /// The reply of the message at a position.
    #[must_use]
    pub fn at(&self, position: Position) -> Option<Arc<Reply>> {
        let found = self.by_age.binary_search_by_key(&position, |kept| kept.position).ok()?;
        Some(self.by_age[found].reply.clone())
    }

    /// All of them, oldest first: what a checkpoint carries.
    #[must_use]
    pub fn to_vec(&self) -> Vec<Kept> {
        self.by_age.iter().cloned().collect()
    }

    /// As a checkpoint carried them.
    #[must_use]
    pub fn from_vec(all: Vec<Kept>) -> KeptReplies {
        let mut kept = KeptReplies::default();
        let unlimited = Settings { replies_kept: u64::MAX, replies_kept_bytes: u64::MAX, ..Settings::default() };
        for one in all {
            kept.keep(one, &unlimited);
        }
        kept
    }
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::{Sequence, Session};
    use bytes::Bytes;

    use super::*;

    fn name(sequence: u64) -> MessageName {
        MessageName { session: Session::from_bits(1), sequence: Sequence(sequence) }
    }

    fn kept(sequence: u64, bytes: usize) -> Kept {
        let reply = Reply { status: 200, headers: Vec::new(), body: Bytes::from(vec![b'x'; bytes]) };
        Kept { name: name(sequence), position: Position(sequence), reply: Arc::new(reply) }
    }

    #[test]
    fn the_replies_of_the_last_r_messages_are_kept() {
        let settings = Settings { replies_kept: 2, ..Settings::default() };
        let mut replies = KeptReplies::default();
        for sequence in 1..=3 {
            replies.keep(kept(sequence, 1), &settings);
        }
        assert!(replies.get(name(1)).is_none());
        assert_eq!(replies.get(name(2)).map(|(position, _)| position), Some(Position(2)));
        assert!(replies.get(name(3)).is_some());
    }

    #[test]
    fn the_oldest_replies_go_when_their_bodies_are_too_large_together() {
        let settings = Settings { replies_kept_bytes: 10, ..Settings::default() };
        let mut replies = KeptReplies::default();
        replies.keep(kept(1, 6), &settings);
        replies.keep(kept(2, 6), &settings);
        assert!(replies.get(name(1)).is_none());
        assert!(replies.get(name(2)).is_some());
    }

    #[test]
    fn a_checkpoint_carries_the_kept_replies() {
        let mut replies = KeptReplies::default();
        replies.keep(kept(1, 3), &Settings::default());
        let carried: Vec<Kept> =
            crate::command::decode(&crate::command::encode(&replies.to_vec())).expect("it was just written");
        let back = KeptReplies::from_vec(carried);
        assert_eq!(back.get(name(1)), replies.get(name(1)));
    }
}
