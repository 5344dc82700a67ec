//! The first face of a broker: a durable, totally ordered log that tails.
//!
//! ```text
//!        trimmed          kept                          being written
//!  ┌──┬──┬──┬──┬──╥──┬──┬──┬──┬──┬──┬──╥╌╌┬╌╌┐
//!  │ 1│ 2│ 3│ 4│ 5║ 6│ 7│ 8│ 9│10│11│12║13┊14┊      append resolves, and read and tail show a record,
//!  └──┴──┴──┴──┴──╨──┴──┴──┴──┴──┴──┴──╨╌╌┴╌╌┘      only when it is as durable as configured
//!                  ▲ first              ▲ tail
//! ```
//! The contract, each line of it a test of the [conformance suite](crate::conformance):
//! - positions begin at 1 and have no gaps; the records of one `append` keep their order, and so do the calls
//!   of `append` on one handle, **in the order of the calls** (not of the polls): callers may pipeline;
//! - acknowledged means durable, and only the durable is visible;
//! - `tail` covers everything acknowledged before it was called;
//! - a reader gets exactly the record it asked for, or an error that says which one is missing and why;
//! - a record of `record_limit_bytes` is taken, and a larger one is refused by that limit: larger request bodies lie in the
//!   checkpoint store, and their records carry a hash;
//! - after an [`AppendError`] whose `has_no_side_effects` is true nothing was or will be appended; after any other one
//!   the records may appear, all, some or none, now or later: the layers above name their records for that.

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;

use crate::ids::Position;
use crate::record::{Entry, Record};

/// The least that a broker must take as one record, refused at connect otherwise: a request's head (64 KiB, and what MessagePack
/// adds to many small headers) with the hash of its body, and every other kind of record.
pub const RECORD_LEAST_BYTES: usize = 128 << 10;

/// A log of one shard, or a migrator's journal.
pub trait MessageLog: Send + Sync + 'static {
    /// Appends records in order; resolves with their positions once they are durable. The records are handed over
    /// by the call itself: the future only waits, and dropping it takes nothing back.
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>>;

    /// Follows the log from `from` (at least 1) on and never ends of itself. `from` may be the tail plus one.
    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>>;

    /// The position of the last durable record; 0 if there never was one.
    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>>;

    /// Forgets every record before `before`. Positions never come back.
    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>>;

    /// What the log holds and what an acknowledgement means.
    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>>;
}

/// What a log holds.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Usage {
    /// The oldest record that can still be read; one more than `tail` if there is none.
    pub first: Position,
    /// The last record.
    pub tail: Position,
    /// Bytes on disk (or in memory), where known for this log, else for all of the broker's.
    pub bytes: u64,
    /// How many of these bytes the broker takes, if it has a limit: above, every append is refused as full.
    pub limit_bytes: Option<u64>,
    /// The largest record, in encoded form, that it takes now; at least [`RECORD_LEAST_BYTES`] of a real broker.
    #[serde(default = "record_least_bytes")]
    pub record_limit_bytes: u64,
    /// What an acknowledgement means here, in one sentence for people.
    pub durability: String,
}

/// Of a broker that does not tell.
fn record_least_bytes() -> u64 {
    RECORD_LEAST_BYTES as u64
}

/// Why an append did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum AppendError {
    /// The log holds as much as it may.
    #[error("the log is full: {0}")]
    Full(String),
    /// A record is larger than this broker takes.
    #[error("a record of {bytes} bytes is above the broker's limit of {limit_bytes}")]
    TooLarge {
        /// The record's size.
        bytes: u64,
        /// The largest possible.
        limit_bytes: u64,
    },
    /// Too much is in flight already.
    #[error("{0} appends are waiting already")]
    Overloaded(usize),
    /// The broker could not be reached; nothing was sent.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
    /// It was sent, and nobody knows what became of it.
    #[error("the outcome of the append is unknown: {0}")]
    Unknown(String),
    /// The log is damaged and takes nothing more.
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

impl AppendError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        !matches!(self, AppendError::TooLarge { .. } | AppendError::Damaged(_))
    }

    /// Whether it is certain that nothing was and nothing will be appended.
    #[must_use]
    pub fn has_no_side_effects(&self) -> bool {
        !matches!(self, AppendError::Unknown(_))
    }
}

/// Why a record could not be read.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum ReadError {
    /// Records before `first` were trimmed.
    #[error("position {asked} was trimmed: the log begins at {first}; load a checkpoint at or behind {first}")]
    Trimmed {
        /// What was asked for.
        asked: Position,
        /// The oldest record that is still there.
        first: Position,
    },
    /// Nobody may read ahead of the next record: the log is shorter than the reader remembers.
    #[error("position {asked} lies behind the tail {tail}: the log was rewound or replaced")]
    BehindTail {
        /// What was asked for.
        asked: Position,
        /// The last record.
        tail: Position,
    },
    /// A record is missing in the middle.
    #[error("expected the record at {expected}, got the one at {found}: the log has a gap")]
    Gap {
        /// The next position in order.
        expected: Position,
        /// What came instead.
        found: Position,
    },
    /// A record cannot be read or fails its checksum.
    #[error("the record at {position} is damaged: {reason}")]
    Damaged {
        /// Which one.
        position: Position,
        /// What is wrong with it.
        reason: String,
    },
    /// The record at a position is another one than before.
    #[error(
        "the record at {position} is not the one read before ({found:08x} instead of {expected:08x}): the log was rewound"
    )]
    Different {
        /// Which one.
        position: Position,
        /// The checksum read before.
        expected: u32,
        /// The checksum found now.
        found: u32,
    },
    /// The connection broke, or the broker is not there.
    #[error("the broker cannot be reached: {0}")]
    Unreachable(String),
}

impl ReadError {
    /// Whether the same call may succeed later. Everything else stops the replica (invariant 4).
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, ReadError::Unreachable(_))
    }
}
