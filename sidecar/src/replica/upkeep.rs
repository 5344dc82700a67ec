//! Upkeep: the owner takes checkpoints from time to time, trims the log behind them, and removes what nobody needs any more.
//!
//! ```text
//!   due (time, records, bytes, high mark) ──▶ save ──▶ counted ──▶ trim the log ──▶ clean the store
//! ```
//! A checkpoint that cannot be taken costs nothing but room: serving goes on, the log is kept, and an alarm says how much still fits.

use std::time::Duration;

use broker_adapter::fold::Bug;
use broker_adapter::fold::checkpoints::KEPT_UNPINNED;
use broker_adapter::ids::{Count, Epoch, Position};
use broker_adapter::record::{Body, Entry, Pin, Record};
use tokio::sync::oneshot;

use super::active::Active;
use super::engine::{APPEND_AGAIN, Engine, Event, Life};
use super::job::Purpose;
use crate::body::body_prefix;
use crate::checkpoint::cleaning::Cleaning;
use crate::checkpoint::load::Reader;
use crate::checkpoint::save::Saved;

const RETRY_FIRST: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// At the high mark: how long the last checkpoint's trim may take to show, and how little is not worth another one.
const MAKE_ROOM_EVERY: Duration = Duration::from_secs(2);
const MAKE_ROOM_RECORDS: u64 = 256;
/// What a record takes in the log besides its body, about.
const RECORD_BYTES: u64 = 256;

/// How far a replica was at some moment.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Progress {
    position: Position,
    count: Count,
    bytes: u64,
    at: Duration,
}

/// What the owner remembers of its checkpoints, over reloads.
#[derive(Default)]
pub(super) struct Upkeep {
    /// No checkpoint before this position could count: one at it was recorded, or perhaps will be.
    pub floor: Position,
    /// Where the last counted one was taken.
    pub since: Progress,
    /// Why none can be taken at present.
    pub alarm: Option<String>,
    /// The newest of this process's own that counted, and how long it took.
    pub last: Option<(Saved, Duration)>,
    /// Bytes of records applied, about.
    bytes: u64,
    failures: u32,
    retry_at: Duration,
    cleaning: Option<oneshot::Receiver<()>>,
    /// In which epoch the store was swept.
    swept: Option<Epoch>,
    /// Whether somebody asked for one that was not begun yet.
    pub asked: bool,
    /// When pins were released to make room.
    released: Option<Duration>,
}

impl Upkeep {
    pub fn progress(&self, active: &Active, at: Duration) -> Progress {
        Progress { position: active.fold.position(), count: active.fold.count(), bytes: self.bytes, at }
    }

    /// One more record was applied.
    pub fn applied(&mut self, entry: &Entry) {
        let body = match &entry.record {
            Record::Message(message) => match &message.request.body {
                Body::Inline(bytes) => bytes.len() as u64,
                // A replay fetches it.
                Body::Stored { length, .. } => *length,
            },
            _ => 0,
        };
        self.bytes += body + RECORD_BYTES;
    }

    pub fn succeeded(&mut self, since: Progress, saved: Saved, took: Duration) {
        (self.since, self.last) = (since, Some((saved, took)));
        (self.failures, self.retry_at) = (0, Duration::ZERO);
        if self.alarm.take().is_some() {
            tracing::info!("checkpoints can be taken again");
        }
    }

    fn is_cleaning(&mut self) -> bool {
        let Some(cleaning) = &mut self.cleaning else { return false };
        matches!(cleaning.try_recv(), Err(oneshot::error::TryRecvError::Empty))
    }
}

impl Engine {
    /// Takes a checkpoint if one is due. None in doubt: only while the instance's state is known.
    pub async fn upkeep_if_due(&mut self) {
        let now = self.context.shell.now();
        if self.pause.is_some() || !self.may_save() || now < self.upkeep.retry_at || self.upkeep.is_cleaning() {
            return;
        }
        let is_full = self.context.room.borrow().full.is_some();
        let Life::Active(active) = &mut self.life else { return };
        if active.pinning.is_some() || (active.connection.is_closed() && !active.instance.is_alive()) {
            return;
        }
        let present = self.upkeep.progress(active, now);
        let due = is_due(&self.context.config.checkpoint, &self.upkeep.since, &present);
        let asked = std::mem::take(&mut self.upkeep.asked);
        if due || asked || (is_full && self.makes_room(&present)) {
            self.begin_save(Purpose::Upkeep).await;
        }
    }

    /// At the high mark: whether another checkpoint lets the log be trimmed further.
    fn makes_room(&mut self, present: &Progress) -> bool {
        self.release_old_pins(present.at);
        let Life::Active(active) = &self.life else { return false };
        let oldest = active.fold.checkpoints().oldest().map_or(Position::ZERO, |kept| kept.position);
        let frees = present.position.records_since(oldest) > MAKE_ROOM_RECORDS;
        frees && present.at >= self.upkeep.since.at + MAKE_ROOM_EVERY
    }

    /// Pins that hold more than the last two checkpoints end at the high mark (design section 2, invariant 7).
    fn release_old_pins(&mut self, now: Duration) {
        if self.upkeep.released.is_some_and(|released| now < released + APPEND_AGAIN) {
            return;
        }
        let (Life::Active(active), Some(writer)) = (&self.life, self.writer()) else { return };
        let checkpoints = active.fold.checkpoints();
        let old = checkpoints.kept().len().saturating_sub(KEPT_UNPINNED);
        let held = checkpoints.kept()[..old]
            .iter()
            .flat_map(|kept| checkpoints.pins().iter().filter(move |pin| pin.checkpoint == kept.position));
        let release = |pin: &broker_adapter::fold::KeptPin| {
            Record::Pin(Pin { writer: writer.clone(), holder: pin.holder, checkpoint: pin.checkpoint, release: true })
        };
        let releases: Vec<Record> = held.map(release).collect();
        if !releases.is_empty() {
            tracing::warn!(shard = %self.context.shard, "the log is full: releasing {} pins", releases.len());
            self.upkeep.released = Some(now);
            self.append(releases);
        }
    }

    pub(super) fn upkeep_failed(&mut self, reason: &str) {
        let upkeep = &mut self.upkeep;
        let wait = (RETRY_FIRST * 2u32.pow(upkeep.failures.min(16))).min(RETRY_MAX);
        upkeep.failures += 1;
        upkeep.retry_at = self.context.shell.now() + wait;
        self.context.metrics.checkpoint_failures.inc();
        let left = self.context.room.borrow().left();
        let alarm = format!(
            "{reason}; serving goes on and the log is kept: {left} more fit into it, then messages are refused (503 log-full); \
             tried again in {} s",
            wait.as_secs()
        );
        tracing::error!(shard = %self.context.shard, "{alarm}");
        upkeep.alarm = Some(alarm);
    }

    /// After a checkpoint of its own counted: trims the log before the oldest kept one, and removes what none of them needs.
    pub(super) fn clean(&mut self) {
        if self.upkeep.is_cleaning() {
            return;
        }
        let Life::Active(active) = &self.life else { return };
        let checkpoints = active.fold.checkpoints();
        let oldest = if self.context.rules.plant(Bug::TrimPastPin) {
            checkpoints.kept().iter().rev().take(KEPT_UNPINNED).next_back()
        } else {
            checkpoints.oldest()
        };
        let Some(before) = oldest.map(|kept| kept.position) else { return };
        let epoch = active.fold.epoch();
        let cleaning = Cleaning {
            reader: Reader { store: self.context.store.clone(), shell: self.context.shell.clone() },
            shard: self.context.shard.clone(),
            kept: checkpoints.kept().iter().map(|kept| (kept.position, kept.manifest)).collect(),
            sweep_before: (self.upkeep.swept != Some(epoch)).then_some(epoch),
        };
        self.upkeep.swept = Some(epoch);
        let (log, shard) = (self.context.log.clone(), self.context.shard.clone());
        let (load, events, store) = (active.load, self.events.clone(), self.context.store.clone());
        let (done, cleaned) = oneshot::channel();
        self.upkeep.cleaning = Some(cleaned);
        self.context.shell.spawn(async move {
            let trimmed = if before > Position::ZERO { log.trim(before).await } else { Ok(()) };
            match trimmed {
                Err(error) => {
                    tracing::warn!(%shard, %error, "the log was not trimmed; the next checkpoint tries again")
                }
                // Bodies go with the trim, never before it. What is not listed now is at the next checkpoint.
                Ok(()) => {
                    if let Ok(bodies) = store.list(body_prefix(&shard)).await
                        && !bodies.is_empty()
                    {
                        // The engine may have ended.
                        let _ = events.send(Event::Trimmed { load, before, bodies }).await;
                    }
                }
            }
            match cleaning.run().await {
                Ok(removed) => tracing::debug!(%shard, removed, %before, "trimmed and cleaned"),
                Err(error) => {
                    tracing::warn!(%shard, %error, "old checkpoints stay in the store until the next one counts")
                }
            }
            // The engine may have ended.
            let _ = done.send(());
        });
    }
}

fn is_due(every: &crate::config::CheckpointConfig, since: &Progress, present: &Progress) -> bool {
    // What changed no state needs no checkpoint.
    if present.count == since.count {
        return false;
    }
    let reached = |limit: u64, passed: u64| limit > 0 && passed >= limit;
    reached(every.every_s, (present.at - since.at).as_secs())
        || reached(every.every_records, present.position.records_since(since.position))
        || reached(every.every_mb << 20, present.bytes.saturating_sub(since.bytes))
}
