//! The running hash over a replica's replies, and its recent values: what owner and standby compare (invariant 8).

use std::collections::VecDeque;

use broker_adapter::ids::{Hash, Position};
use broker_adapter::settings::Settings;

use super::compared::Compared;
use crate::command::Reply;

/// Of how many messages the hash is remembered. A digest is older than that only if it was appended very late.
const HISTORY_MESSAGES: usize = 65_536;

/// A chain over every applied message's position and what is compared of its reply.
#[derive(Clone, Debug, Default)]
pub struct RunningHash {
    current: Hash,
    /// The hash after each of the last messages, behind the oldest value that is known.
    history: VecDeque<(Position, Hash)>,
    oldest: (Position, Hash),
    replies: u64,
    /// The first message whose reply has a content.
    informs_from: Option<Position>,
    compared: Compared,
}

impl RunningHash {
    /// Goes on from a checkpoint.
    #[must_use]
    pub fn from_checkpoint(position: Position, hash: Hash) -> RunningHash {
        RunningHash { current: hash, oldest: (position, hash), ..RunningHash::default() }
    }

    /// The settings at the replica's position decide what of the replies behind it is compared.
    #[must_use]
    pub fn under(mut self, settings: &Settings) -> RunningHash {
        self.set(settings);
        self
    }

    /// The log has changed the settings at the replica's position.
    pub fn set(&mut self, settings: &Settings) {
        self.compared = Compared::new(&settings.ignore);
    }

    /// Adds a reply.
    pub fn add(&mut self, position: Position, reply: &Reply) {
        self.current = self.compared.chain(self.current, position, reply);
        if self.history.len() == HISTORY_MESSAGES {
            self.oldest = self.history.pop_front().unwrap_or(self.oldest);
        }
        self.history.push_back((position, self.current));
        if self.compared.informs(reply) {
            self.replies += 1;
            self.informs_from = self.informs_from.or(Some(position));
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

    /// The hashes after the messages behind `after`, up to `upto`, oldest first; at most `most` of them, and none if the first is
    /// not known any more.
    #[must_use]
    pub fn between(&self, after: Position, upto: Position, most: usize) -> Vec<(Position, Hash)> {
        if after < self.oldest.0 {
            return Vec::new();
        }
        let first = self.history.partition_point(|(at, _)| *at <= after);
        self.history.range(first..).take_while(|(at, _)| *at <= upto).take(most).copied().collect()
    }

    /// What of replies is compared at the replica's position.
    pub(super) fn compared(&self) -> &Compared {
        &self.compared
    }

    /// How many replies with a content it covers since the checkpoint: what the comparison can tell.
    #[must_use]
    pub fn replies(&self) -> u64 {
        self.replies
    }

    /// Whether a reply with a content is among those up to `position`.
    #[must_use]
    pub fn informs_by(&self, position: Position) -> bool {
        self.informs_from.is_some_and(|first| first <= position)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn reply(body: &'static str) -> Reply {
        Reply { status: 200, headers: Vec::new(), body: Bytes::from_static(body.as_bytes()) }
    }

    #[test]
    fn replicas_that_applied_the_same_replies_agree_from_any_checkpoint_on() {
        let mut owner = RunningHash::default();
        owner.add(Position(3), &reply("a"));
        let mut standby = RunningHash::from_checkpoint(Position(4), owner.current());
        owner.add(Position(7), &reply("b"));
        standby.add(Position(7), &reply("b"));
        assert_eq!(owner.at(Position(7)), standby.at(Position(7)));
        assert_eq!(owner.at(Position(5)), standby.at(Position(5)));
        assert_eq!(standby.at(Position(3)), None, "before its checkpoint it knows nothing");
    }

    #[test]
    fn a_reply_that_differs_in_status_body_or_place_is_seen() {
        let hash = |position, status, body| {
            let mut running = RunningHash::default();
            running.add(Position(position), &Reply { status, ..reply(body) });
            running.current()
        };
        let same = hash(1, 200, "a");
        assert_eq!(same, hash(1, 200, "a"));
        assert_ne!(same, hash(2, 200, "a"));
        assert_ne!(same, hash(1, 201, "a"));
        assert_ne!(same, hash(1, 200, "b"));
    }

    #[test]
    fn a_reply_with_a_content_informs_from_its_own_position_on() {
        let mut running = RunningHash::from_checkpoint(Position(1), Hash::default());
        running.add(Position(2), &Reply { status: 204, ..reply("") });
        running.add(Position(5), &reply("a"));
        running.add(Position(9), &reply("b"));
        assert_eq!((running.informs_by(Position(4)), running.informs_by(Position(5))), (false, true));
        assert_eq!(running.replies(), 2);
    }

    #[test]
    fn hashes_between_two_positions_are_told_oldest_first() {
        let mut running = RunningHash::default();
        (1..=9).for_each(|position| running.add(Position(position), &reply("a")));
        let told = |most| running.between(Position(3), Position(7), most);
        assert_eq!(told(9).iter().map(|(at, _)| at.0).collect::<Vec<_>>(), [4, 5, 6, 7]);
        assert_eq!(told(2), told(9)[..2]);
        assert_eq!(Some(told(9)[3].1), running.at(Position(7)));
        let loaded = RunningHash::from_checkpoint(Position(5), Hash::default());
        assert!(loaded.between(Position(4), Position(9), 9).is_empty());
    }

    #[test]
    fn empty_replies_inform_nobody() {
        let mut running = RunningHash::default();
        running.add(Position(1), &Reply { status: 204, ..reply("") });
        assert_eq!(running.replies(), 0);
    }
}
