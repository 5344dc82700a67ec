//! The wire form: what was encoded comes back, and anything else is an error that says what is wrong.

use bytes::Bytes;
use proptest::prelude::*;

use super::samples::one_of_every_kind;
use super::wire::{HEADER_BYTES, VERSION, WireError, decode, encode};
use super::*;
use crate::ids::Sequence;
use crate::settings::IgnoreRule;

/// Content behind a right header with a right checksum.
fn framed(version: u8, content: &[u8]) -> Vec<u8> {
    let mut bytes = vec![version, 0, 0, 0, 0];
    bytes.extend(u32::try_from(content.len()).unwrap().to_be_bytes());
    bytes.extend(content);
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..1]);
    hasher.update(&bytes[5..]);
    let crc = hasher.finalize();
    bytes[1..5].copy_from_slice(&crc.to_be_bytes());
    bytes
}

/// What serde alone reads.
fn serdes(content: &[u8]) -> Option<Record> {
    let mut reader = rmp_serde::Deserializer::new(content);
    let record = serde::Deserialize::deserialize(&mut reader).ok()?;
    reader.get_ref().is_empty().then_some(record)
}

fn replicas() -> impl Strategy<Value = Replica> {
    ("[a-zA-Z0-9_-]{1,63}", any::<u128>())
        .prop_map(|(node, bits)| Replica { node: node.parse().unwrap(), incarnation: Incarnation::from_bits(bits) })
}

fn writers() -> impl Strategy<Value = Writer> {
    (any::<u64>(), replicas()).prop_map(|(epoch, replica)| Writer { epoch: Epoch(epoch), replica })
}

fn names() -> impl Strategy<Value = MessageName> {
    (any::<u128>(), any::<u64>())
        .prop_map(|(bits, sequence)| MessageName { session: Session::from_bits(bits), sequence: Sequence(sequence) })
}

fn hashes() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn bodies() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 0..600).prop_map(Bytes::from)
}

fn keys() -> impl Strategy<Value = Key> {
    prop_oneof![
        any::<u64>().prop_map(|count| Key::Own { count: Count(count) }),
        (names(), any::<u64>()).prop_map(|(name, count)| Key::First { name, count: Count(count) }),
        ".{0,40}".prop_map(|key| Key::Client { key }),
    ]
}

fn requests() -> impl Strategy<Value = Request> {
    let headers = prop::collection::vec(("[a-z-]{1,20}", bodies()), 0..4);
    let body = prop_oneof![
        bodies().prop_map(Body::Inline),
        (hashes(), any::<u64>()).prop_map(|(hash, length)| Body::Stored { hash, length }),
    ];
    ("[A-Z]{1,7}", ".{0,30}", headers, body).prop_map(|(method, path, headers, body)| Request {
        method,
        path,
        headers: headers.into_iter().map(|(name, value)| Header { name, value }).collect(),
        body,
    })
}

fn messages() -> impl Strategy<Value = Record> {
    let source = prop::option::of((".{0,9}", any::<u64>(), any::<u64>()));
    (names(), prop::option::of(any::<u64>()), keys(), source, replicas(), requests()).prop_map(
        |(name, base, key, source, ingress, request)| {
            let source = source.map(|(source, previous, this)| SourcePosition { source, previous, this });
            Record::Message(Box::new(Message { name, base: base.map(Count), key, source, ingress, request }))
        },
    )
}

fn other_records() -> impl Strategy<Value = Record> {
    let position = || any::<u64>().prop_map(Position);
    let id = || any::<u128>();
    prop_oneof![
        (names(), prop::option::of(any::<u64>()), id()).prop_map(|(name, base, closes)| Record::Close(Close {
            name,
            base: base.map(Count),
            closes: Session::from_bits(closes)
        })),
        (any::<u64>(), replicas(), prop::option::of(id())).prop_map(|(epoch, owner, migration)| Record::Fence(Fence {
            epoch: Epoch(epoch),
            owner,
            cause: Cause::Undo,
            migration: migration.map(MigrationId::from_bits),
            retires: migration.map(|_| "edge-a".parse().unwrap()),
        })),
        (writers(), position(), hashes(), prop::option::of(hashes())).prop_map(|(writer, position, hash, state)| {
            Record::Digest(Digest { writer, position, hash, state, mark: None })
        }),
        (writers(), position(), hashes(), any::<u32>()).prop_map(|(writer, position, manifest, record_crc)| {
            Record::Checkpoint(Checkpoint { writer, position, manifest, record_crc })
        }),
        (writers(), id(), position(), any::<bool>()).prop_map(|(writer, holder, checkpoint, release)| Record::Pin(
            Pin { writer, holder: MigrationId::from_bits(holder), checkpoint, release }
        )),
        (writers(), position(), position()).prop_map(|(writer, from, to)| Record::Attempt(Attempt {
            writer,
            from,
            to
        })),
        (writers(), any::<u64>(), prop::collection::vec("/[a-z0-9/]{0,9}", 0..3)).prop_map(
            |(writer, keys_remembered, ignore)| {
                let ignore = ignore.into_iter().map(IgnoreRule::Json).collect();
                let settings = Settings { keys_remembered, ignore, ..Settings::default() };
                Record::Settings(SettingsRecord { writer, settings })
            }
        ),
        (writers(), bodies()).prop_map(|(writer, event)| Record::Entry(JournalEntry { writer, event })),
        (writers(), position(), any::<u32>(), ".{0,30}", bodies()).prop_map(
            |(writer, position, k, destination, body)| Record::Output(Output {
                writer,
                position,
                k,
                destination,
                body
            })
        ),
    ]
}

fn records() -> impl Strategy<Value = Record> {
    prop_oneof![messages(), other_records()]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_record_comes_back_as_it_was(record in records()) {
        let frame = encode(&record);
        let (read, crc) = decode(&frame.bytes).unwrap();
        prop_assert_eq!(read, record);
        prop_assert_eq!(crc, frame.crc);
    }

    #[test]
    fn a_message_is_written_as_serde_writes_it(record in messages()) {
        let serdes = rmp_serde::to_vec_named(&record).unwrap();
        prop_assert_eq!(&encode(&record).bytes[HEADER_BYTES..], &serdes[..]);
    }

    #[test]
    fn a_damaged_message_is_read_as_serde_reads_it(
        record in messages(), at in any::<prop::sample::Index>(), byte in any::<u8>(), keep in any::<prop::sample::Index>(),
    ) {
        let mut content = encode(&record).bytes.slice(HEADER_BYTES..).to_vec();
        let at = at.index(content.len());
        content[at] = byte;
        prop_assert_eq!(decode(&framed(VERSION, &content)).ok().map(|(read, _)| read), serdes(&content));
        content.truncate(keep.index(content.len()));
        prop_assert_eq!(decode(&framed(VERSION, &content)).ok().map(|(read, _)| read), serdes(&content));
    }

    #[test]
    fn any_flipped_bit_is_found(record in records(), at in any::<prop::sample::Index>(), bit in 0u8..8) {
        let mut bytes = encode(&record).bytes.to_vec();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(decode(&bytes).is_err(), "byte {} bit {}", at, bit);
    }

    #[test]
    fn any_truncation_is_found(record in records(), to in any::<prop::sample::Index>()) {
        let bytes = encode(&record).bytes;
        let short = decode(&bytes[..to.index(bytes.len())]);
        prop_assert!(matches!(short, Err(WireError::Length { .. })), "{:?}", short);
    }

    #[test]
    fn no_bytes_make_the_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = decode(&bytes);
        let _ = decode(&framed(VERSION, &bytes));
    }
}

#[test]
fn every_flipped_bit_of_every_golden_record_is_found() {
    for record in one_of_every_kind() {
        let bytes = encode(&record).bytes;
        for bit in 0..bytes.len() * 8 {
            let mut bytes = bytes.to_vec();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&bytes).is_err(), "{} bit {bit}", record.kind());
        }
    }
}

#[test]
fn a_message_whose_fields_have_another_order_is_read() {
    let record = one_of_every_kind().swap_remove(0);
    let mut content = b"\x81\xa7Message\x86".to_vec();
    let Record::Message(message) = &record else { panic!("the first kind is a message") };
    let mut field = |name: &str, value: Vec<u8>| {
        rmp::encode::write_str(&mut content, name).unwrap();
        content.extend(value);
    };
    field("request", rmp_serde::to_vec_named(&message.request).unwrap());
    field("ingress", rmp_serde::to_vec_named(&message.ingress).unwrap());
    field("source", rmp_serde::to_vec_named(&message.source).unwrap());
    field("key", rmp_serde::to_vec_named(&message.key).unwrap());
    field("base", rmp_serde::to_vec_named(&message.base).unwrap());
    field("name", rmp_serde::to_vec_named(&message.name).unwrap());
    assert_eq!(decode(&framed(VERSION, &content)).map(|(read, _)| read), Ok(record));
}

#[test]
fn an_unknown_version_is_an_error() {
    let content = encode(&one_of_every_kind()[0]).bytes.slice(HEADER_BYTES..);
    assert_eq!(decode(&framed(2, &content)), Err(WireError::Version(2)));
    assert_eq!(decode(&framed(0, &content)), Err(WireError::Version(0)));
}

#[test]
fn an_unknown_kind_is_an_error_and_not_a_skip() {
    let content = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("Lease", 1)])).unwrap();
    let Err(WireError::Content(reason)) = decode(&framed(VERSION, &content)) else { panic!("it was read") };
    assert!(reason.contains("Lease"), "{reason}");
}

#[test]
fn a_missing_field_is_an_error() {
    let content = rmp_serde::to_vec_named(&std::collections::BTreeMap::from([("Skip", [("position", 3)])])).unwrap();
    assert!(matches!(decode(&framed(VERSION, &content)), Err(WireError::Content(_))));
}

#[test]
fn bytes_behind_the_announced_length_are_an_error() {
    let mut bytes = encode(&one_of_every_kind()[0]).bytes.to_vec();
    let expected = bytes.len();
    bytes.push(0);
    assert_eq!(decode(&bytes), Err(WireError::Length { expected, found: expected + 1 }));
}

#[test]
fn bytes_behind_the_record_are_an_error_even_with_a_right_checksum() {
    let mut content = encode(&one_of_every_kind()[0]).bytes.slice(HEADER_BYTES..).to_vec();
    content.push(0xc0);
    let Err(WireError::Content(reason)) = decode(&framed(VERSION, &content)) else { panic!("it was read") };
    assert!(reason.contains("1 bytes behind"), "{reason}");
}

#[test]
fn nothing_at_all_is_an_error() {
    assert_eq!(decode(&[]), Err(WireError::Length { expected: HEADER_BYTES, found: 0 }));
}
