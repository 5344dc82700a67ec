//! The fold's tests, by the noun they are about; each name states a sentence of design section 2 or 3.
//!
//! Owns the small language in which they speak of a shard: who fences, who sends, what comes of it.

mod checkpoints;
mod keys;
mod model;
mod ownership;
mod poison;
mod properties;
mod sessions;
mod settings;
mod sources;
mod steps;

use bytes::Bytes;

use super::*;
use crate::ids::{Hash, Incarnation, MigrationId, Sequence, Session};
use crate::record::{
    Attempt, Body, Cause, Checkpoint, Close, Fence, Pin, Request, SettingsRecord, Skip, SourcePosition, wire,
};

/// A log's fold, fed record by record.
pub(super) struct Shard {
    pub fold: Fold,
}

impl Shard {
    /// Before the first record.
    pub fn new() -> Shard {
        Shard { fold: Fold::new() }
    }

    /// Owned by `a` under epoch 1, with K as given: the log has two records.
    pub fn owned(keys_remembered: u64) -> Shard {
        let mut shard = Shard::new();
        assert!(matches!(shard.see(fence(1, replica("a", 1))), Verdict::Fenced(_)));
        let settings = Settings { keys_remembered, ..Settings::default() };
        assert_eq!(shard.see(settings_by(writer(1, "a", 1), settings)), Verdict::Noted);
        shard
    }

    /// Folds the next record, through its wire form.
    pub fn see(&mut self, record: Record) -> Verdict {
        let entry = entry(self.fold.position().next(), record);
        self.fold.observe(&entry)
    }

    /// Folds `n` messages of one session each, that nothing else is about.
    pub fn pass_counts(&mut self, n: u64) {
        for _ in 0..n {
            let session = 1_000_000 + u128::from(self.fold.count().0);
            assert_eq!(
                self.see(message(session, 1, Some(self.fold.count().0), own(self.fold.count().0))),
                Verdict::Apply
            );
        }
    }

    /// Folds marks, which count for nothing, until the log has `position` records.
    pub fn pass_records_to(&mut self, position: u64) {
        while self.fold.position().0 < position {
            self.see(mark());
        }
    }
}

pub(super) fn entry(position: Position, record: Record) -> Entry {
    let frame = wire::encode(&record);
    let (record, crc) = wire::decode(&frame.bytes).unwrap();
    Entry { position, appended_ms: 1_000 + position.0, crc, record }
}

pub(super) fn replica(node: &str, incarnation: u128) -> Replica {
    Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(incarnation) }
}

pub(super) fn writer(epoch: u64, node: &str, incarnation: u128) -> Writer {
    Writer { epoch: Epoch(epoch), replica: replica(node, incarnation) }
}

/// `a`, as `Shard::owned` has it.
pub(super) fn a() -> Writer {
    writer(1, "a", 1)
}

pub(super) fn name(session: u128, sequence: u64) -> MessageName {
    MessageName { session: Session::from_bits(session), sequence: Sequence(sequence) }
}

pub(super) fn fence(epoch: u64, owner: Replica) -> Record {
    Record::Fence(Fence { epoch: Epoch(epoch), owner, cause: Cause::Handover, migration: None, retires: None })
}

pub(super) fn mark() -> Record {
    Record::Mark(crate::record::Mark { id: crate::ids::Id128(1), asker: Incarnation::from_bits(1), state: false })
}

pub(super) fn request(body: &str) -> Request {
    let body = Body::Inline(Bytes::copy_from_slice(body.as_bytes()));
    Request { method: "POST".to_owned(), path: "/".to_owned(), headers: Vec::new(), body }
}

pub(super) fn own(sent: u64) -> Key {
    Key::Own { count: Count(sent) }
}

pub(super) fn first(name: MessageName, sent: u64) -> Key {
    Key::First { name, count: Count(sent) }
}

pub(super) fn client(key: &str) -> Key {
    Key::Client { key: key.to_owned() }
}

pub(super) fn message(session: u128, sequence: u64, base: Option<u64>, key: Key) -> Record {
    asking(session, sequence, base, key, "x")
}

pub(super) fn asking(session: u128, sequence: u64, base: Option<u64>, key: Key, body: &str) -> Record {
    Record::Message(Box::new(Message {
        name: name(session, sequence),
        base: base.map(Count),
        key,
        source: None,
        ingress: replica("a", 1),
        request: request(body),
    }))
}

pub(super) fn bridged(session: u128, sequence: u64, source: &str, previous: u64, this: u64) -> Record {
    let source = SourcePosition { source: source.to_owned(), previous, this };
    let Record::Message(mut message) = message(session, sequence, Some(0), own(0)) else { unreachable!() };
    message.source = Some(source);
    Record::Message(message)
}

pub(super) fn close(session: u128, sequence: u64, base: Option<u64>, closes: u128) -> Record {
    let (name, closes) = (name(session, sequence), Session::from_bits(closes));
    Record::Close(Close { name, base: base.map(Count), closes })
}

pub(super) fn digest(writer: Writer, position: u64) -> Record {
    Record::Digest(Digest { writer, position: Position(position), hash: Hash::of(b"replies"), state: None, mark: None })
}

pub(super) fn checkpoint(writer: Writer, position: u64) -> Record {
    let manifest = Hash::of(&position.to_be_bytes());
    Record::Checkpoint(Checkpoint { writer, position: Position(position), manifest, record_crc: 7 })
}

pub(super) fn pin(writer: Writer, holder: u128, checkpoint: u64) -> Record {
    let holder = MigrationId::from_bits(holder);
    Record::Pin(Pin { writer, holder, checkpoint: Position(checkpoint), release: false })
}

pub(super) fn release(writer: Writer, holder: u128, checkpoint: u64) -> Record {
    let holder = MigrationId::from_bits(holder);
    Record::Pin(Pin { writer, holder, checkpoint: Position(checkpoint), release: true })
}

pub(super) fn attempt(writer: Writer, from: u64, to: u64) -> Record {
    Record::Attempt(Attempt { writer, from: Position(from), to: Position(to) })
}

pub(super) fn skip(writer: Writer, position: u64) -> Record {
    Record::Skip(Skip { writer, position: Position(position) })
}

pub(super) fn settings_by(writer: Writer, settings: Settings) -> Record {
    Record::Settings(SettingsRecord { writer, settings })
}

pub(super) fn void(void: Void) -> Verdict {
    Verdict::Void(void)
}

pub(super) fn repeat(session: u128, sequence: u64, same_request: bool) -> Verdict {
    Verdict::Repeat(Repeated { of: name(session, sequence), same_request })
}
