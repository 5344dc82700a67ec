//! One fixed record of every kind of version 1: what the golden files hold. Never change one; a new format version
//! gets samples of its own.

use bytes::Bytes;

use super::*;
use crate::ids::Sequence;
use crate::settings::IgnoreRule;

/// Every kind once, in the order of [`Record`].
pub(super) fn one_of_every_kind() -> Vec<Record> {
    let mut records = inputs();
    records.extend(owners_words());
    records.extend(reserved());
    records
}

fn replica() -> Replica {
    Replica { node: "edge-a".parse().unwrap(), incarnation: Incarnation::from_bits(0x0102_0304_0506_0708) }
}

fn writer() -> Writer {
    Writer { epoch: Epoch(7), replica: replica() }
}

fn name(sequence: u64) -> MessageName {
    MessageName { session: Session::from_bits(0xaabb), sequence: Sequence(sequence) }
}

fn inputs() -> Vec<Record> {
    let header = Header { name: "content-type".to_owned(), value: Bytes::from_static(b"text/csv; \xff") };
    let message = Message {
        name: name(3),
        base: None,
        key: Key::Client { key: "order-17".to_owned() },
        source: Some(SourcePosition { source: "orders".to_owned(), previous: 16, this: 17 }),
        ingress: replica(),
        request: Request {
            method: "POST".to_owned(),
            path: "/flights?day=1".to_owned(),
            headers: vec![header],
            body: Body::Inline(Bytes::from_static(b"UA,1545,EWR,IAH\n")),
        },
    };
    let close = Close { name: name(1), base: Some(Count(65_537)), closes: Session::from_bits(0xccdd) };
    let mark = Mark { id: Id128(0x99), asker: Incarnation::from_bits(5), state: true };
    vec![
        Record::Message(Box::new(message)),
        Record::Close(close),
        Record::Fence(Fence {
            epoch: Epoch(8),
            owner: replica(),
            cause: Cause::Handover,
            migration: Some(MigrationId::from_bits(0x1234)),
            retires: None,
        }),
        Record::Mark(mark),
    ]
}

fn owners_words() -> Vec<Record> {
    let settings =
        Settings { keys_remembered: 1_024, ignore: vec![IgnoreRule::Header("date".to_owned())], ..Settings::default() };
    vec![
        Record::Digest(Digest {
            writer: writer(),
            position: Position(300),
            hash: Hash::of(b"replies"),
            state: Some(Hash::of(b"state")),
            mark: Some(Id128(0x0102)),
        }),
        Record::Checkpoint(Checkpoint {
            writer: writer(),
            position: Position(256),
            manifest: Hash::of(b"manifest"),
            record_crc: 0xdead_beef,
        }),
        Record::Pin(Pin {
            writer: writer(),
            holder: MigrationId::from_bits(0x1234),
            checkpoint: Position(256),
            release: false,
        }),
        Record::Attempt(Attempt { writer: writer(), from: Position(257), to: Position(299) }),
        Record::Skip(Skip { writer: writer(), position: Position(258) }),
        Record::Settings(SettingsRecord { writer: writer(), settings }),
        Record::Entry(JournalEntry { writer: writer(), event: Bytes::from_static(&[0x81, 0xa1, 0x61, 0x01]) }),
    ]
}

fn reserved() -> Vec<Record> {
    vec![
        Record::Tick(Tick { writer: writer(), time_ms: 1_767_225_600_000 }),
        Record::Output(Output {
            writer: writer(),
            position: Position(298),
            k: 2,
            destination: "nats:alerts".to_owned(),
            body: Bytes::from_static(b"late"),
        }),
        Record::Effect(Effect { writer: writer(), position: Position(298), k: 1, answer: Bytes::from_static(b"200") }),
        Record::Seal(Seal { writer: writer(), continues_at: "segue://10.0.0.2:7400".to_owned() }),
    ]
}
