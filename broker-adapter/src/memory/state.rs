//! What the memory broker holds: logs, objects, subscribers, and what is in flight.
//!
//! Owns the data and the smallest changes of it. All of it lies under one lock that nobody holds over an await.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::append::Queue;
use super::faults::{Delay, Dice, Faults};
use crate::fold::Rules;
use crate::ids::Position;
use crate::record::wire::Frame;

/// All of a broker.
pub(super) struct State {
    pub faults: Faults,
    /// A test-only switch.
    pub rules: Rules,
    pub dice: Dice,
    /// Strikes per fault.
    pub fired: BTreeMap<&'static str, u64>,
    /// How often all connections broke at once.
    pub breaks: u64,
    /// What is added to the wall clock.
    pub clock_shift_ms: i64,
    pub log_limit_records: u64,
    pub logs: BTreeMap<String, LogState>,
    pub queues: BTreeMap<u64, Queue>,
    pub next_queue: u64,
    pub objects: BTreeMap<String, Object>,
    /// The names of all objects that were ever put; for the oracles.
    pub objects_ever: BTreeSet<String>,
    pub store_is_full: bool,
    pub subscribers: BTreeMap<String, Vec<Subscriber>>,
    pub mail_waiting_bytes: usize,
    lines: BTreeMap<String, Line>,
}

/// What all connections of one name share.
#[derive(Default)]
pub(super) struct Line {
    pub connections: u64,
    pub is_cut: bool,
    /// How often this name's connections broke.
    pub breaks: u64,
    /// Until then nothing passes, in either direction.
    pub stalled_until: Duration,
    /// How many more gets of the checkpoint store fail.
    pub gets_to_fail: u32,
    /// Puts of objects that begin with this are done and never answered; how many were.
    pub held_puts: Option<(String, u32)>,
    /// The next appends to this log land late, by this much.
    pub late: Option<LateAppends>,
}

/// What [`super::MemoryBroker::late_appends`] asked for.
#[derive(Clone)]
pub(super) struct LateAppends {
    pub log: String,
    pub left: u32,
    pub by: Delay,
}

/// One log. Trimmed records stay in `records`, for the oracles; nobody else sees them.
#[derive(Default)]
pub(super) struct LogState {
    pub records: Vec<Stored>,
    /// How many records were trimmed.
    pub trimmed: u64,
    /// Every trim that was asked for: the tail then, and the first record that was to stay. For the oracles.
    pub trims: Vec<(Position, Position)>,
    pub changed: Arc<Notify>,
    /// What [`super::MemoryBroker::limit_record`] asked for.
    pub record_limit_bytes: Option<usize>,
}

/// One durable record.
pub(super) struct Stored {
    pub frame: Frame,
    pub appended_ms: u64,
    /// On the broker's own steady clock.
    pub visible_at: Duration,
}

/// One object of the checkpoint store.
pub(super) struct Object {
    pub bytes: Bytes,
    pub hash: blake3::Hash,
}

/// One subscription.
pub(super) struct Subscriber {
    pub line: String,
    pub inbox: mpsc::Sender<Bytes>,
}

impl State {
    pub fn new(faults: Faults, dice: Dice) -> State {
        State {
            faults,
            rules: Rules::default(),
            dice,
            fired: BTreeMap::new(),
            breaks: 0,
            clock_shift_ms: 0,
            log_limit_records: u64::MAX,
            logs: BTreeMap::new(),
            queues: BTreeMap::new(),
            next_queue: 0,
            objects: BTreeMap::new(),
            objects_ever: BTreeSet::new(),
            store_is_full: false,
            subscribers: BTreeMap::new(),
            mail_waiting_bytes: 0,
            lines: BTreeMap::new(),
        }
    }

    pub fn line(&mut self, name: &str) -> &mut Line {
        if !self.lines.contains_key(name) {
            self.lines.insert(name.to_owned(), Line::default());
        }
        self.lines.get_mut(name).expect("made just now")
    }

    pub fn log(&mut self, name: &str) -> &mut LogState {
        if !self.logs.contains_key(name) {
            self.logs.insert(name.to_owned(), LogState::default());
        }
        self.logs.get_mut(name).expect("made just now")
    }

    pub fn count(&mut self, fault: &'static str) {
        *self.fired.entry(fault).or_default() += 1;
    }

    /// A number that changes whenever the connections of this name break.
    pub fn breaks_of(&mut self, line: &str) -> u64 {
        self.breaks + self.line(line).breaks
    }

    /// Breaks every connection; readers learn of it at once.
    pub fn break_all(&mut self) {
        self.breaks += 1;
        self.wake_readers();
    }

    pub fn wake_readers(&self) {
        for log in self.logs.values() {
            log.changed.notify_waiters();
        }
    }
}

impl LogState {
    pub fn record_limit(&self) -> usize {
        self.record_limit_bytes.unwrap_or(super::RECORD_LIMIT_BYTES)
    }

    pub fn tail(&self) -> Position {
        Position(self.records.len() as u64)
    }

    /// The oldest record that is shown; one more than the tail if there is none.
    pub fn first(&self) -> Position {
        Position(self.trimmed + 1)
    }

    pub fn kept_records(&self) -> u64 {
        self.records.len() as u64 - self.trimmed
    }

    pub fn kept_bytes(&self) -> u64 {
        self.records[self.trimmed as usize..].iter().map(|stored| stored.frame.bytes.len() as u64).sum()
    }

    pub fn at(&self, position: Position) -> Option<&Stored> {
        self.records.get(usize::try_from(position.0.checked_sub(1)?).ok()?)
    }
}
