//! What readers of one log see: its durable extent, and a ring of its last rows so that tailing readers never touch sled.
//!
//! Written by the committer only, after the sync; a short lock, no waiting under it.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard};

use tokio::sync::watch;

use crate::ids::Position;
use crate::log::ReadError;

use super::row::{Row, RowReader};

const RING_LIMIT_ROWS: usize = 8_192;
const RING_LIMIT_BYTES: usize = 8 << 20;
/// One step of a reader.
const STEP_LIMIT_ROWS: usize = 512;
const STEP_LIMIT_BYTES: usize = 1 << 20;

/// One log's durable part.
pub struct LogState {
    pub name: String,
    pub tree: sled::Tree,
    shown: Mutex<Shown>,
    tail: watch::Sender<Position>,
}

struct Shown {
    first: Position,
    tail: Position,
    ring: VecDeque<Row>,
    ring_bytes: usize,
}

/// What a reader can do next.
pub enum Look {
    Rows(Vec<Row>),
    /// Read them from the tree, up to this one.
    OnDisk(Position),
    Wait,
    Failed(ReadError),
}

impl LogState {
    pub fn new(name: String, tree: sled::Tree, first: Position, tail: Position) -> LogState {
        let shown = Mutex::new(Shown { first, tail, ring: VecDeque::new(), ring_bytes: 0 });
        LogState { name, tree, shown, tail: watch::Sender::new(tail) }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().expect("nothing panics under this lock")
    }

    /// The oldest record that can be read, and the last one.
    pub fn extent(&self) -> (Position, Position) {
        let shown = self.shown();
        (shown.first, shown.tail)
    }

    /// Tells readers when the tail moves.
    pub fn changes(&self) -> watch::Receiver<Position> {
        self.tail.subscribe()
    }

    /// Shows rows that are durable now.
    pub fn publish(&self, rows: Vec<Row>) {
        let Some(last) = rows.last() else { return };
        let tail = last.position;
        let mut shown = self.shown();
        for row in rows {
            assert_eq!(row.position, shown.tail.next(), "the committer gives positions without gaps");
            shown.tail = row.position;
            shown.ring_bytes += row.frame.len();
            shown.ring.push_back(row);
        }
        while shown.ring.len() > RING_LIMIT_ROWS || shown.ring_bytes > RING_LIMIT_BYTES {
            let Some(oldest) = shown.ring.pop_front() else { break };
            shown.ring_bytes -= oldest.frame.len();
        }
        drop(shown);
        self.tail.send_replace(tail);
    }

    /// Hides everything before `first`.
    pub fn publish_first(&self, first: Position) {
        let mut shown = self.shown();
        shown.first = shown.first.max(first);
        while shown.ring.front().is_some_and(|row| row.position < first) {
            let oldest = shown.ring.pop_front().expect("there is a front");
            shown.ring_bytes -= oldest.frame.len();
        }
    }

    /// What a reader whose next record is `next` can do.
    pub fn look(&self, next: Position) -> Look {
        let shown = self.shown();
        if next < shown.first {
            return Look::Failed(ReadError::Trimmed { asked: next, first: shown.first });
        }
        if next > shown.tail.next() {
            return Look::Failed(ReadError::BehindTail { asked: next, tail: shown.tail });
        }
        if next > shown.tail {
            return Look::Wait;
        }
        let Some(front) = shown.ring.front().map(|row| row.position) else { return Look::OnDisk(shown.tail) };
        if next < front {
            return Look::OnDisk(Position(front.0 - 1));
        }
        let from = usize::try_from(next.records_since(front)).expect("the ring is small");
        let mut bytes = 0;
        let fits = |row: &&Row| {
            bytes += row.frame.len();
            bytes <= STEP_LIMIT_BYTES || bytes == row.frame.len()
        };
        Look::Rows(shown.ring.range(from..).take(STEP_LIMIT_ROWS).take_while(fits).cloned().collect())
    }

    /// Reads rows from the tree; blocks.
    pub fn read_disk(&self, from: Position, to: Position) -> Result<Vec<Row>, ReadError> {
        let mut reader = RowReader::new(&self.tree, from);
        let mut rows = Vec::new();
        let mut bytes = 0;
        while rows.len() < STEP_LIMIT_ROWS && bytes < STEP_LIMIT_BYTES {
            match reader.next() {
                Ok(Some((row, _))) if row.position <= to => {
                    bytes += row.frame.len();
                    rows.push(row);
                }
                Ok(_) => break,
                Err(error) => return self.disk_error(rows, from, error),
            }
        }
        if rows.is_empty() {
            let reason = "it is missing in the tree".to_owned();
            return self.disk_error(rows, from, ReadError::Damaged { position: from, reason });
        }
        Ok(rows)
    }

    /// What was read before the bad row is good; and rows may be gone because they were trimmed meanwhile.
    fn disk_error(&self, rows: Vec<Row>, from: Position, error: ReadError) -> Result<Vec<Row>, ReadError> {
        let first = self.extent().0;
        if first > from && rows.is_empty() {
            return Err(ReadError::Trimmed { asked: from, first });
        }
        if rows.is_empty() { Err(error) } else { Ok(rows) }
    }
}
