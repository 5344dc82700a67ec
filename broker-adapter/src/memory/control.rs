//! What tests do to the memory broker: break it, damage it, and look at what it really holds.
//!
//! All of these act at once and in a fixed order; what they throw dice for, they throw the broker's own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;

use super::MemoryBroker;
use super::faults::{Delay, Faults};
use super::state::LateAppends;
use crate::ids::Position;
use crate::record::Entry;
use crate::record::wire::{self, Frame};

impl MemoryBroker {
    /// Plays these faults from now on; what is in flight keeps its delays.
    pub fn set_faults(&self, faults: Faults) {
        self.lock().faults = faults;
    }

    /// A broker that breaks a rule of its own, to show that the tests find it.
    #[cfg(feature = "test-hooks")]
    pub fn plant(&self, rules: crate::fold::Rules) {
        self.lock().rules = rules;
    }

    /// How often each fault really struck, by the names of the fields of [`Faults`] and of the functions here.
    #[must_use]
    pub fn fired(&self) -> BTreeMap<&'static str, u64> {
        self.lock().fired.clone()
    }

    /// The broker goes down and comes up again: every append in flight resolves `Unknown` (some are appended, in order,
    /// some are not), every stream ends with `Unreachable`, every mail on its way is lost.
    pub fn crash_and_restart(&self) {
        let (now, wall_ms) = (self.shell.now(), self.shell.wall_ms());
        let mut state = self.lock();
        state.count("crash_and_restart");
        state.crash_queues(now, wall_ms);
        state.break_all();
    }

    /// Nothing passes between the broker and this name: its calls fail, its streams break, its mail is lost. What it
    /// had in flight resolves `Unknown`, and some of that lands all the same.
    pub fn cut_off(&self, name: &str) {
        let mut state = self.lock();
        state.count("cut_off");
        state.cut_queues(name);
        let line = state.line(name);
        line.is_cut = true;
        line.breaks += 1;
        state.wake_readers();
    }

    /// Ends [`MemoryBroker::cut_off`].
    pub fn heal(&self, name: &str) {
        self.lock().line(name).is_cut = false;
    }

    /// Nothing passes to or from this name for a while; then everything does, and nothing is lost.
    pub fn stall(&self, name: &str, how_long: Duration) {
        let until = self.shell.now() + how_long;
        let mut state = self.lock();
        state.count("stall");
        let line = state.line(name);
        line.stalled_until = line.stalled_until.max(until);
        state.wake_readers();
    }

    /// The next so many appends of this name to that log land late, each by a delay of its own, so that later ones overtake
    /// earlier ones; the caller hears `Unknown` at once.
    pub fn late_appends(&self, name: &str, log: &str, appends: u32, by: Delay) {
        self.lock().line(name).late = Some(LateAppends { log: log.to_owned(), left: appends, by });
    }

    /// Whether an append that shall be late has not been sent yet.
    #[must_use]
    pub fn owes_late_appends(&self, name: &str) -> bool {
        self.lock().line(name).late.as_ref().is_some_and(|late| late.left > 0)
    }

    /// The broker's wall clock jumps: append times do.
    pub fn jump_clock(&self, by_ms: i64) {
        let mut state = self.lock();
        state.count("jump_clock");
        state.clock_shift_ms = state.clock_shift_ms.saturating_add(by_ms);
    }

    /// From now on every log takes this many records that are not trimmed, and refuses more as full.
    pub fn limit_logs(&self, records: u64) {
        self.lock().log_limit_records = records;
    }

    /// From now on a log takes no record that is larger in encoded form.
    pub fn limit_record(&self, log: &str, bytes: usize) {
        self.lock().log(log).record_limit_bytes = Some(bytes);
    }

    /// The checkpoint store takes nothing more, or again what it is given.
    pub fn fill_store(&self, is_full: bool) {
        self.lock().store_is_full = is_full;
    }

    /// The next so many gets of this name from the checkpoint store fail with `Unreachable`.
    pub fn fail_gets(&self, name: &str, gets: u32) {
        self.lock().line(name).gets_to_fail = gets;
    }

    /// From now on what this name puts under `prefix` is stored, and it never hears so; `None` ends that.
    pub fn hold_puts(&self, name: &str, prefix: Option<&str>) {
        self.lock().line(name).held_puts = prefix.map(|prefix| (prefix.to_owned(), 0));
    }

    /// How many such puts there were.
    #[must_use]
    pub fn held_puts(&self, name: &str) -> u32 {
        self.lock().line(name).held_puts.as_ref().map_or(0, |(_, held)| *held)
    }

    /// The log loses everything behind `to`, as a broker restored from an old copy would, and connections break.
    pub fn rewind(&self, log: &str, to: Position) {
        let mut state = self.lock();
        state.count("rewind");
        let log = state.log(log);
        log.records.truncate(usize::try_from(to.0).unwrap_or(usize::MAX));
        log.trimmed = log.trimmed.min(log.tail().0);
        state.break_all();
    }

    /// Flips one bit of the record at `position`.
    ///
    /// # Panics
    /// If there is no such record.
    pub fn damage(&self, log: &str, position: Position) {
        let mut state = self.lock();
        state.count("damage");
        let index = usize::try_from(position.0).expect("positions of a vector") - 1;
        let frame = &mut state.log(log).records[index].frame;
        *frame = Frame { bytes: flip_last(&frame.bytes), crc: frame.crc };
    }

    /// Flips one bit of an object of the checkpoint store; says whether there is one of this name.
    pub fn damage_object(&self, name: &str) -> bool {
        let mut state = self.lock();
        let Some(object) = state.objects.get_mut(name) else { return false };
        object.bytes = if object.bytes.is_empty() { Bytes::from_static(&[0]) } else { flip_last(&object.bytes) };
        state.count("damage_object");
        true
    }

    /// Everything that was ever durable in a log, trimmed records included, for oracles.
    ///
    /// # Panics
    /// If a record was damaged.
    #[must_use]
    pub fn dump(&self, log: &str) -> Vec<Entry> {
        let mut state = self.lock();
        let entry = |(index, stored): (usize, &super::state::Stored)| {
            let (record, crc) = wire::decode(&stored.frame.bytes).expect("nobody damaged it");
            Entry { position: Position(index as u64 + 1), appended_ms: stored.appended_ms, crc, record }
        };
        state.log(log).records.iter().enumerate().map(entry).collect()
    }

    /// Every trim of a log: the tail at that moment, and the first record that was to stay; for oracles.
    #[must_use]
    pub fn trims(&self, log: &str) -> Vec<(Position, Position)> {
        self.lock().log(log).trims.clone()
    }

    /// The names of the objects that begin with `prefix`: those that are in the checkpoint store, and all that ever were.
    #[must_use]
    pub fn objects(&self, prefix: &str) -> (BTreeSet<String>, BTreeSet<String>) {
        let state = self.lock();
        let of = |name: &&String| name.starts_with(prefix);
        (state.objects.keys().filter(of).cloned().collect(), state.objects_ever.iter().filter(of).cloned().collect())
    }

    /// The oldest record of a log that was not trimmed.
    #[must_use]
    pub fn first(&self, log: &str) -> Position {
        self.lock().log(log).first()
    }

    /// The names of all logs.
    #[must_use]
    pub fn logs(&self) -> Vec<String> {
        self.lock().logs.keys().cloned().collect()
    }
}

fn flip_last(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    bytes.into()
}
