//! The fold: what a log says, as one pure function over its records (design section 2).
//!
//! ```text
//!   entry ──▶ observe ──▶ verdict            the same records give the same fold on every replica:
//!               │                            no clock, no configuration, no randomness, no I/O
//!               ▼
//!   ownership · sessions · keys · checkpoints and pins · attempts and skips · settings
//! ```
//! Whether a record counts is judged at its place, and what counted stays counted. Everything in here is bounded; what expires,
//! expires by the count of counted messages and closes ([`Count`]), pins by records.
//!
//! Architecture Invariant: nothing in this module reads anything but the entry and the fold itself.

pub mod checkpoints;
pub mod keys;
pub mod ownership;
pub mod poison;
pub mod rules;
pub mod sessions;
pub mod sources;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use checkpoints::{Checkpoints, KeptCheckpoint, KeptPin};
pub use keys::{Found, Repeated};
pub use ownership::{CountedFence, Ownership};
pub use rules::{Bug, Rules};

use crate::ids::{Count, Epoch, MessageName, Position, Replica};
use crate::record::{Digest, Entry, Key, Message, Record, Writer};
use crate::settings::{KEYS_REMEMBERED_MAX, Settings};

/// What a replica knows of a shard after reading its log up to a position.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Fold {
    position: Position,
    record_crc: u32,
    time_ms: u64,
    count: Count,
    settings: Settings,
    settings_fixed: bool,
    ownership: Ownership,
    sessions: sessions::Sessions,
    keys: keys::Keys,
    sources: sources::Sources,
    checkpoints: Checkpoints,
    poison: poison::Poison,
    digest: Option<LastDigest>,
    /// A test-only switch: never part of a checkpoint.
    #[serde(skip)]
    rules: Rules,
}

/// The last counted digest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastDigest {
    /// Where its record stands.
    pub at: Position,
    /// What it says.
    pub digest: Digest,
}

/// What a record means at its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A message that counts and is applied.
    Apply,
    /// A message that counts and is not applied, because its request was applied before.
    Repeat(Repeated),
    /// A message that counts and is not applied, because nobody can tell any more whether its request was.
    Expired,
    /// A close that counts.
    Closed,
    /// A fence that counts: ownership moved.
    Fenced(CountedFence),
    /// An owner's word, or a question to it, that counts.
    Noted,
    /// It changes nothing.
    Void(Void),
}

/// Why a record is void.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// A fence whose epoch is not the current one plus one.
    StaleFence,
    /// An owner's word by one who does not own (any more, or yet).
    NotOwner,
    /// Not its session's last counted sequence plus one.
    Sequence,
    /// Its session was closed.
    SessionClosed,
    /// Its session is not known (any more), and this is not a first record within K of its base.
    SessionUnknown,
    /// A bridge's record whose previous position is not the last counted one.
    SourcePosition,
    /// It names a position that cannot be meant: behind its own place, or not a kept checkpoint's.
    Position,
    /// Its effect was seen already: a skip behind a counted digest or checkpoint.
    Seen,
    /// A table of the fold is full.
    Limit,
    /// Of a kind that this version only reserves.
    Reserved,
}

impl Fold {
    /// Before the first record.
    #[must_use]
    pub fn new() -> Fold {
        Fold::default()
    }

    /// A fold that ignores a rule, to show that the tests find it. Survives no checkpoint.
    #[cfg(feature = "test-hooks")]
    #[must_use]
    pub fn with_rules(mut self, rules: Rules) -> Fold {
        self.rules = rules;
        // As every fold that comes from a checkpoint passes here, this is one that carried none.
        if rules.plant(Bug::CheckpointWithoutSessions) {
            self.sessions = sessions::Sessions::default();
            self.keys = keys::Keys::default();
        }
        self
    }

    /// Reads the next record.
    ///
    /// # Panics
    /// If `entry` is not the next one: readers check continuity before ([`crate::follow`]), so that is a bug of ours.
    pub fn observe(&mut self, entry: &Entry) -> Verdict {
        assert_eq!(entry.position, self.position.next(), "records are folded in order, without gaps");
        self.position = entry.position;
        self.record_crc = entry.crc;
        self.time_ms = self.time_ms.max(entry.appended_ms);
        if self.checkpoints.expire_pins(self.position, self.settings.pin_limit_records) {
            self.forget_skips();
        }
        match self.judge(entry) {
            Ok(verdict) => verdict,
            Err(void) => Verdict::Void(void),
        }
    }

    fn judge(&mut self, entry: &Entry) -> Result<Verdict, Void> {
        match &entry.record {
            Record::Message(message) => self.message(message),
            Record::Close(close) => {
                self.count_in_session(close.name, close.base, |sessions, count| {
                    sessions.close(close.closes, count);
                })?;
                Ok(Verdict::Closed)
            }
            Record::Fence(fence) => self.ownership.fence(fence, entry.position, self.rules).map(Verdict::Fenced),
            Record::Mark(_) => Ok(Verdict::Noted),
            Record::Entry(word) => self.owners_word(&word.writer).map(|()| Verdict::Noted),
            Record::Digest(digest) => self.digest(digest),
            Record::Checkpoint(checkpoint) => {
                self.owners_word(&checkpoint.writer)?;
                self.checkpoints.count(checkpoint, entry.position)?;
                self.seen(checkpoint.position);
                Ok(Verdict::Noted)
            }
            Record::Pin(pin) => {
                self.owners_word(&pin.writer)?;
                self.checkpoints.pin(pin, entry.position)?;
                self.forget_skips();
                Ok(Verdict::Noted)
            }
            Record::Attempt(attempt) => {
                self.owners_word(&attempt.writer)?;
                self.poison.attempt(attempt, entry.position)?;
                Ok(Verdict::Noted)
            }
            Record::Skip(skip) => {
                self.owners_word(&skip.writer)?;
                self.poison.skip(skip.position, entry.position)?;
                Ok(Verdict::Noted)
            }
            Record::Settings(word) => {
                self.owners_word(&word.writer)?;
                self.set(&word.settings);
                Ok(Verdict::Noted)
            }
            Record::Tick(_) | Record::Output(_) | Record::Effect(_) | Record::Seal(_) => Err(Void::Reserved),
        }
    }

    fn message(&mut self, message: &Message) -> Result<Verdict, Void> {
        if let Some(source) = &message.source {
            self.sources.check(source)?;
        }
        self.count_in_session(message.name, message.base, |_, _| ())?;
        if let Some(source) = &message.source {
            self.sources.advance(source);
        }
        Ok(self.keys.judge(message, self.count, self.settings.keys_remembered, &self.sessions))
    }

    /// A message or close counts if and only if it is its session's last counted sequence plus one.
    fn count_in_session(
        &mut self,
        name: MessageName,
        base: Option<Count>,
        then: impl FnOnce(&mut sessions::Sessions, Count),
    ) -> Result<(), Void> {
        let next = Count(self.count.0 + 1);
        let remembered = self.settings.keys_remembered;
        self.sessions.check(name, base, self.count, remembered, self.rules)?;
        self.count = next;
        self.sessions.advance(name, next);
        then(&mut self.sessions, next);
        self.sessions.forget(next, remembered);
        self.keys.forget(next, remembered);
        Ok(())
    }

    fn digest(&mut self, digest: &Digest) -> Result<Verdict, Void> {
        self.owners_word(&digest.writer)?;
        if digest.position >= self.position {
            return Err(Void::Position);
        }
        self.digest = Some(LastDigest { at: self.position, digest: digest.clone() });
        self.seen(digest.position);
        Ok(Verdict::Noted)
    }

    /// The effect of everything up to `position` was seen: it cannot be poison.
    fn seen(&mut self, position: Position) {
        self.poison.seen(position);
        self.forget_skips();
    }

    fn forget_skips(&mut self) {
        if let Some(oldest) = self.checkpoints.oldest() {
            self.poison.forget_skips(oldest.position);
        }
    }

    fn owners_word(&self, writer: &Writer) -> Result<(), Void> {
        if self.ownership.is_writer(writer) { Ok(()) } else { Err(Void::NotOwner) }
    }

    fn set(&mut self, settings: &Settings) {
        let fixed = self.settings.keys_remembered;
        self.settings = settings.clone();
        if self.settings_fixed {
            self.settings.keys_remembered = fixed;
        } else {
            // What was forgotten under the default cannot be remembered: behind a count, K is only ever lowered.
            let most = if self.count == Count(0) { KEYS_REMEMBERED_MAX } else { fixed };
            self.settings.keys_remembered = settings.keys_remembered.clamp(1, most);
        }
        self.settings_fixed = true;
    }
}

/// What can be asked of a fold.
impl Fold {
    /// The last record that was read.
    #[must_use]
    pub fn position(&self) -> Position {
        self.position
    }

    /// The checksum of that record; 0 before the first.
    #[must_use]
    pub fn record_crc(&self) -> u32 {
        self.record_crc
    }

    /// The latest append time so far, in milliseconds of the broker's clock: it never goes back along the log.
    #[must_use]
    pub fn time_ms(&self) -> u64 {
        self.time_ms
    }

    /// How many messages and closes counted.
    #[must_use]
    pub fn count(&self) -> Count {
        self.count
    }

    /// The parameters in force.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The ownership number.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.ownership.epoch()
    }

    /// Who owns; nobody before the first fence.
    #[must_use]
    pub fn owner(&self) -> Option<&Replica> {
        self.ownership.owner()
    }

    /// Whether this replica owns.
    #[must_use]
    pub fn is_owner(&self, replica: &Replica) -> bool {
        self.owner() == Some(replica)
    }

    /// The counted fences, the last 256 of them, oldest first.
    pub fn fences(&self) -> impl DoubleEndedIterator<Item = &CountedFence> {
        self.ownership.fences()
    }

    /// The last counted fence.
    #[must_use]
    pub fn last_fence(&self) -> Option<&CountedFence> {
        self.ownership.fences().next_back()
    }

    /// The last sequence that counted in a session: `None` if it is not known.
    #[must_use]
    pub fn session(&self, session: crate::ids::Session) -> Option<sessions::SessionState> {
        self.sessions.get(session)
    }

    /// What became of a client's key, or of the first name of a message.
    #[must_use]
    pub fn find(&self, key: &Key) -> Found {
        self.keys.find(key, self.count, self.settings.keys_remembered, &self.sessions)
    }

    /// The kept checkpoints and the pins.
    #[must_use]
    pub fn checkpoints(&self) -> &Checkpoints {
        &self.checkpoints
    }

    /// Whether a message is never delivered.
    #[must_use]
    pub fn is_skipped(&self, position: Position) -> bool {
        self.poison.is_skipped(position)
    }

    /// The messages that are never delivered.
    pub fn skipped(&self) -> impl Iterator<Item = Position> + '_ {
        self.poison.skipped()
    }

    /// How often recoveries were about to deliver this position.
    #[must_use]
    pub fn attempts_at(&self, position: Position) -> usize {
        self.poison.attempts_at(position)
    }

    /// The last counted digest.
    #[must_use]
    pub fn last_digest(&self) -> Option<&LastDigest> {
        self.digest.as_ref()
    }

    /// How large the tables are, for tests of their bounds and for metrics.
    #[must_use]
    pub fn sizes(&self) -> Sizes {
        Sizes {
            fences: self.ownership.fences().count(),
            sessions: self.sessions.len(),
            keys: self.keys.len(),
            sources: self.sources.len(),
            checkpoints: self.checkpoints.kept().len(),
            pins: self.checkpoints.pins().len(),
            attempts: self.poison.attempts(),
            skips: self.poison.skips(),
        }
    }
}

/// The number of entries in each table of a fold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// At most [`ownership::FENCES_REMEMBERED`].
    pub fences: usize,
    /// At most 2 K + 2: each count touches two sessions at most.
    pub sessions: usize,
    /// At most K + 1.
    pub keys: usize,
    /// At most [`sources::SOURCES_MAX`].
    pub sources: usize,
    /// At most two and one for every pin.
    pub checkpoints: usize,
    /// At most [`checkpoints::PINS_MAX`].
    pub pins: usize,
    /// At most [`poison::ATTEMPTS_MAX`].
    pub attempts: usize,
    /// At most [`poison::SKIPS_MAX`].
    pub skips: usize,
}
