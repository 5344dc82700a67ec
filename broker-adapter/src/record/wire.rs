//! The wire form of a record, version 1: how a record becomes bytes that outlive the program.
//!
//! ```text
//!  0      1         5                       9
//!  ├──────┼─────────┼───────────────────────┼─────────────────────────────┤
//!  │ 0x01 │ CRC-32  │ length of the rest    │ MessagePack, named fields   │
//!  │      │ (BE)    │ (BE, bytes)           │ {"Kind": {field: value, …}} │
//!  └──────┴─────────┴───────────────────────┴─────────────────────────────┘
//! ```
//! The CRC (IEEE 802.3, as `crc32fast`) covers version, length and content. Unknown versions, kinds and trailing bytes are
//! errors: nothing is skipped. Golden files under `golden/` fix every kind; see the tests.

mod message;

use bytes::Bytes;

use super::Record;

/// The format version that this program writes and reads.
pub const VERSION: u8 = 1;

/// Bytes before the content.
pub const HEADER_BYTES: usize = 9;

/// Most records that are no messages are smaller.
const OTHER_RECORDS_BYTES: usize = 256;

/// A record as bytes, with the checksum that stands in them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Header and content.
    pub bytes: Bytes,
    /// The CRC-32 in the header.
    pub crc: u32,
}

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// Too short, or longer than its own length says.
    #[error("{found} bytes where {expected} were expected")]
    Length {
        /// What the header announces (or the header's own size).
        expected: usize,
        /// What is there.
        found: usize,
    },
    /// Written by another version of the program.
    #[error("format version {0}, this program reads version 1")]
    Version(u8),
    /// Damaged.
    #[error("checksum {found:08x} where {expected:08x} was written")]
    Checksum {
        /// What the header says.
        expected: u32,
        /// What the bytes give.
        found: u32,
    },
    /// Not a record of this version.
    #[error("not a record: {0}")]
    Content(String),
}

/// Encodes a record.
///
/// # Panics
/// Never: every record kind can be written, and no body comes near 4 GiB.
#[must_use]
pub fn encode(record: &Record) -> Frame {
    let mut bytes = Vec::new();
    let crc = encode_into(record, &mut bytes);
    Frame { bytes: bytes.into(), crc }
}

/// Encodes a record behind what is there already, and gives its checksum.
///
/// # Panics
/// As [`encode`].
pub fn encode_into(record: &Record, bytes: &mut Vec<u8>) -> u32 {
    let begin = bytes.len();
    let expected_bytes = match record {
        Record::Message(message) => message::size_hint(message),
        _ => OTHER_RECORDS_BYTES,
    };
    bytes.reserve(HEADER_BYTES + expected_bytes);
    bytes.resize(begin + HEADER_BYTES, 0);
    match record {
        Record::Message(message) => message::write(message, bytes),
        other => rmp_serde::encode::write_named(bytes, other).expect("writing to memory does not fail"),
    }
    let frame = &mut bytes[begin..];
    let length = u32::try_from(frame.len() - HEADER_BYTES).expect("bodies are limited far below 4 GiB");
    frame[0] = VERSION;
    frame[5..9].copy_from_slice(&length.to_be_bytes());
    let crc = checksum(frame);
    frame[1..5].copy_from_slice(&crc.to_be_bytes());
    crc
}

/// Checks header, length and checksum, without reading the content.
///
/// # Errors
/// What is wrong with the bytes.
pub fn check(bytes: &[u8]) -> Result<u32, WireError> {
    if bytes.len() < HEADER_BYTES {
        return Err(WireError::Length { expected: HEADER_BYTES, found: bytes.len() });
    }
    if bytes[0] != VERSION {
        return Err(WireError::Version(bytes[0]));
    }
    let length = u32::from_be_bytes([bytes[5], bytes[6], bytes[7], bytes[8]]) as usize;
    if bytes.len() != HEADER_BYTES + length {
        return Err(WireError::Length { expected: HEADER_BYTES + length, found: bytes.len() });
    }
    let expected = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]);
    let found = checksum(bytes);
    if expected == found { Ok(found) } else { Err(WireError::Checksum { expected, found }) }
}

/// Decodes a record and gives its checksum.
///
/// # Errors
/// What is wrong with the bytes.
pub fn decode(bytes: &[u8]) -> Result<(Record, u32), WireError> {
    let crc = check(bytes)?;
    Ok((decode_checked(bytes)?, crc))
}

/// Decodes a record whose frame has passed [`check`].
///
/// # Errors
/// If its content is not a record.
pub fn decode_checked(bytes: &[u8]) -> Result<Record, WireError> {
    let content = bytes.get(HEADER_BYTES..).unwrap_or_default();
    if let Some(message) = message::read(content) {
        return Ok(Record::Message(Box::new(message)));
    }
    // Over a reader, because only that one tells what it left.
    let mut content = rmp_serde::Deserializer::new(content);
    let record = serde::Deserialize::deserialize(&mut content)
        .map_err(|error: rmp_serde::decode::Error| WireError::Content(error.to_string()))?;
    let rest = content.get_ref().len();
    if rest > 0 {
        return Err(WireError::Content(format!("{rest} bytes behind the record")));
    }
    Ok(record)
}

fn checksum(bytes: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&bytes[..1]);
    hasher.update(&bytes[5..]);
    hasher.finalize()
}
