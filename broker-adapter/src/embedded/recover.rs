//! Opening a log: every record is read and verified; what is torn is repaired and said so, what is lost is refused.
//!
//! ```text
//!   … │ intact │ intact ┊ bad or missing          acknowledged?  ── yes ─▶ Damaged, by position
//!              tail ▲   ┊ (attempted, not synced)                └─ no ──▶ cut off, told as a Repair
//! ```
//! Acknowledged is what the side file calls synced, and what a later intact row calls synced.

use crate::broker::ConnectError;
use crate::ids::Position;
use crate::log::ReadError;

use super::row::{self, RowReader};
use super::tails::Tails;

const REMOVE_CHUNK_VALUES: usize = 1_000;

/// Something that was never acknowledged and was cut off at open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Repair {
    /// Which log.
    pub log: String,
    /// The first position that was cut off: the next record gets it.
    pub from: Position,
    /// The last position that had been attempted, as far as known.
    pub to: Position,
    /// What was found, for people.
    pub reason: String,
}

/// A log as it was found.
pub struct Recovered {
    pub first: Position,
    pub tail: Position,
    pub last_ms: u64,
    pub repair: Option<Repair>,
}

/// Verifies a log whole.
pub fn recover(tree: &sled::Tree, log: &str, side: Option<Tails>) -> Result<Recovered, ConnectError> {
    let damaged = |reason: String| ConnectError::Damaged { log: log.to_owned(), reason };
    let first = row::read_first(tree).map_err(|why| damaged(format!("the row that tells where it begins: {why}")))?;
    remove_all(tree, Position(1), Some(first)).map_err(|error| damaged(error.to_string()))?;

    let mut found = Recovered { first, tail: Position(first.0 - 1), last_ms: 0, repair: None };
    let mut reader = RowReader::new(tree, first);
    let bad = loop {
        match reader.next() {
            Ok(Some((row, _))) => {
                found.tail = row.position;
                found.last_ms = row.appended_ms;
            }
            Ok(None) => break None,
            Err(error) => break Some(error),
        }
    };
    let next = found.tail.next();
    if let Some(error) = bad {
        // Without a side file nobody can tell, and then it counts as acknowledged.
        if side.is_none_or(|side| side.synced >= next) || later_row_says_synced(tree, next) {
            return Err(damaged(format!("{error}; it had been acknowledged. {}", advice(next))));
        }
        remove_all(tree, next, None).map_err(|error| damaged(error.to_string()))?;
        found.repair = Some(repair(log, next, side, &error.to_string()));
    }
    let Some(side) = side else {
        if found.tail > Position::ZERO {
            tracing::warn!(log, tail = %found.tail, "the log's side file is missing: a torn tail cannot be told from a whole one");
        }
        return Ok(found);
    };
    if side.synced > found.tail {
        let lost = side.synced;
        return Err(damaged(format!(
            "the acknowledged records {next} to {lost} are missing (the files are an old copy, or sled cut them off). {}",
            advice(next)
        )));
    }
    if side.attempted > found.tail && found.repair.is_none() {
        found.repair = Some(repair(log, next, Some(side), "the last write did not reach the disk whole"));
    }
    Ok(found)
}

fn repair(log: &str, from: Position, side: Option<Tails>, reason: &str) -> Repair {
    let to = side.map_or(from, |side| side.attempted.max(from));
    tracing::warn!(log, %from, %to, reason, "repaired a torn tail: these records were never acknowledged");
    Repair { log: log.to_owned(), from, to, reason: reason.to_owned() }
}

fn advice(next: Position) -> String {
    format!("Restore the broker's folder from a copy that holds position {next}, or begin a new log from a checkpoint")
}

/// Whether any intact row behind `position` was written when `position` was synced already.
fn later_row_says_synced(tree: &sled::Tree, position: Position) -> bool {
    let mut reader = RowReader::new(tree, position.next());
    loop {
        reader = match reader.next() {
            Ok(Some((_, synced))) if synced >= position => return true,
            Ok(Some(_)) => reader,
            Ok(None) => return false,
            Err(ReadError::Gap { found, .. }) => RowReader::new(tree, found),
            Err(ReadError::Damaged { position, .. }) => RowReader::new(tree, position.next()),
            Err(_) => return true,
        };
    }
}

fn remove_all(tree: &sled::Tree, from: Position, before: Option<Position>) -> sled::Result<()> {
    while row::remove(tree, from, before, REMOVE_CHUNK_VALUES)? {}
    Ok(())
}
