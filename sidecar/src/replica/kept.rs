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
