//! How a record lies in its log's tree: keys, rows, and rows in pieces.
//!
//! ```text
//! key    position (8, BE) │ piece (4, BE)                    position 0: where the log begins ("trimmed before")
//! value  piece 0:  append time (8) │ synced (8) │ pieces (4) │ CRC-32 (4) │ the frame's first bytes
//!        others:   the frame's next bytes
//! ```
//! `synced` is the last position known to be synced when the row was written: it tells a later reader that everything up to there
//! was acknowledged. The CRC covers position, header and the whole frame. Rows are cut into pieces because sled writes nodes
//! above a quarter of a segment into blob files, which it never syncs: 20 pieces (the most in one node) stay below that.

use bytes::{Bytes, BytesMut};

use crate::ids::Position;
use crate::log::ReadError;
use crate::record::wire;

/// The longest value in the tree, without the row's header.
const PIECE_BYTES: usize = 5 << 10;
const ROW_HEADER_BYTES: usize = 24;
const KEY_BYTES: usize = 12;
/// The key of the row that tells where the log begins.
const FIRST_KEY: [u8; KEY_BYTES] = [0; KEY_BYTES];

/// A record as the log keeps it: not decoded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Its place.
    pub position: Position,
    /// When it was appended.
    pub appended_ms: u64,
    /// The CRC in its frame.
    pub crc: u32,
    /// The record's bytes.
    pub frame: Bytes,
}

/// A key of the tree.
pub fn key(position: Position, piece: u32) -> [u8; KEY_BYTES] {
    let mut key = [0; KEY_BYTES];
    key[..8].copy_from_slice(&position.0.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

fn split_key(key: &[u8]) -> Option<(Position, u32)> {
    let position = key.get(..8)?.try_into().ok()?;
    let piece = key.get(8..KEY_BYTES)?.try_into().ok()?;
    (key.len() == KEY_BYTES).then_some((Position(u64::from_be_bytes(position)), u32::from_be_bytes(piece)))
}

/// Adds a row to what is to be written.
pub fn write(batch: &mut sled::Batch, row: &Row, synced: Position) {
    let pieces = row.frame.len().div_ceil(PIECE_BYTES).max(1);
    let pieces = u32::try_from(pieces).expect("records are limited far below 2^32 pieces");
    for piece in 0..pieces {
        let from = piece as usize * PIECE_BYTES;
        let part = &row.frame[from..row.frame.len().min(from + PIECE_BYTES)];
        if piece > 0 {
            batch.insert(&key(row.position, piece), part);
            continue;
        }
        let mut value = Vec::with_capacity(ROW_HEADER_BYTES + part.len());
        value.extend_from_slice(&row.appended_ms.to_be_bytes());
        value.extend_from_slice(&synced.0.to_be_bytes());
        value.extend_from_slice(&pieces.to_be_bytes());
        let crc = checksum(row.position, &value, &row.frame);
        value.extend_from_slice(&crc.to_be_bytes());
        value.extend_from_slice(part);
        batch.insert(&key(row.position, 0), value);
    }
}

/// The value that tells where the log begins.
pub fn write_first(batch: &mut sled::Batch, first: Position) {
    let mut value = first.0.to_be_bytes().to_vec();
    value.extend_from_slice(&crc32fast::hash(&first.0.to_be_bytes()).to_be_bytes());
    batch.insert(&FIRST_KEY, value);
}

/// Where the log begins: 1 if it was never trimmed.
pub fn read_first(tree: &sled::Tree) -> Result<Position, String> {
    let Some(value) = tree.get(FIRST_KEY).map_err(|error| error.to_string())? else { return Ok(Position(1)) };
    let (number, crc) = value.split_at_checked(8).ok_or("it is too short")?;
    if crc != crc32fast::hash(number).to_be_bytes() {
        return Err("its checksum is wrong".to_owned());
    }
    Ok(Position(u64::from_be_bytes(number.try_into().expect("split at 8 bytes"))))
}

fn checksum(position: Position, header: &[u8], frame: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&position.0.to_be_bytes());
    hasher.update(header);
    hasher.update(frame);
    hasher.finalize()
}

/// Reads rows in order; a missing or damaged one is an error that names it.
pub struct RowReader {
    rows: sled::Iter,
    expected: Position,
}

impl RowReader {
    /// From `from` on.
    pub fn new(tree: &sled::Tree, from: Position) -> RowReader {
        RowReader { rows: tree.range(key(from, 0)..), expected: from }
    }

    /// The next row and what was known to be synced when it was written; `None` behind the last one.
    pub fn next(&mut self) -> Result<Option<(Row, Position)>, ReadError> {
        let Some((position, piece, head)) = self.next_value()? else { return Ok(None) };
        if position != self.expected {
            return Err(ReadError::Gap { expected: self.expected, found: position });
        }
        if piece != 0 || head.len() < ROW_HEADER_BYTES {
            return Err(self.damaged("its first piece is missing or too short"));
        }
        let number = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("8 bytes"));
        let pieces = u32::from_be_bytes(head[16..20].try_into().expect("4 bytes"));
        let crc = u32::from_be_bytes(head[20..24].try_into().expect("4 bytes"));
        let frame = self.gather(&head, pieces)?;
        if checksum(position, &head[..20], &frame) != crc {
            return Err(self.damaged("its checksum is wrong"));
        }
        let frame_crc = wire::check(&frame).map_err(|error| self.damaged(&error.to_string()))?;
        self.expected = position.next();
        Ok(Some((Row { position, appended_ms: number(0), crc: frame_crc, frame }, Position(number(8)))))
    }

    fn gather(&mut self, head: &[u8], pieces: u32) -> Result<Bytes, ReadError> {
        if pieces == 1 {
            return Ok(Bytes::copy_from_slice(&head[ROW_HEADER_BYTES..]));
        }
        let mut frame = BytesMut::from(&head[ROW_HEADER_BYTES..]);
        for expected in 1..pieces {
            match self.next_value()? {
                Some((position, piece, part)) if position == self.expected && piece == expected => {
                    frame.extend_from_slice(&part);
                }
                _ => return Err(self.damaged(&format!("its piece {expected} of {pieces} is missing"))),
            }
        }
        Ok(frame.freeze())
    }

    fn next_value(&mut self) -> Result<Option<(Position, u32, sled::IVec)>, ReadError> {
        let Some(next) = self.rows.next() else { return Ok(None) };
        let (key, value) = next.map_err(|error| self.damaged(&error.to_string()))?;
        let (position, piece) = split_key(&key).ok_or_else(|| self.damaged("a key of the tree is none"))?;
        Ok(Some((position, piece, value)))
    }

    fn damaged(&self, reason: &str) -> ReadError {
        ReadError::Damaged { position: self.expected, reason: reason.to_owned() }
    }
}

/// Removes rows from `from` up to before `before`, at most `limit` values; whether some are left.
pub fn remove(tree: &sled::Tree, from: Position, before: Option<Position>, limit: usize) -> sled::Result<bool> {
    let range = match before {
        Some(before) => tree.range(key(from, 0)..key(before, 0)),
        None => tree.range(key(from, 0)..),
    };
    let mut batch = sled::Batch::default();
    let mut found = 0;
    for entry in range.keys().take(limit) {
        batch.remove(entry?);
        found += 1;
    }
    if found > 0 {
        tree.apply_batch(batch)?;
    }
    Ok(found == limit)
}
