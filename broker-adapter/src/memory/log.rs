//! The memory broker's logs, as one connection sees them.
//!
//! Owns the handle (whose queue the broker serves) and the reading stream. Readers decode the stored bytes for real.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, stream};
use tokio::sync::Notify;

use super::MemoryBroker;
use super::append::{self, Queue};
use super::faults::Dice;
use super::link::Link;
use super::state::{LogState, State};
use crate::ids::Position;
use crate::log::{AppendError, MessageLog, ReadError, Usage};
use crate::record::{Entry, Record, wire};

/// One handle of one log.
pub(super) struct MemoryLog {
    link: Link,
    name: String,
    queue: u64,
}

impl MemoryLog {
    /// Makes the handle and starts the broker's task for it.
    pub fn open(link: Link, name: &str) -> Arc<MemoryLog> {
        let broker = link.broker.clone();
        let queue = Queue::new(&link, name);
        let wake = queue.wake.clone();
        let id = {
            let mut state = broker.lock();
            let id = state.next_queue;
            state.next_queue += 1;
            state.queues.insert(id, queue);
            id
        };
        broker.shell.spawn(append::run(broker.clone(), id, wake));
        Arc::new(MemoryLog { link, name: name.to_owned(), queue: id })
    }
}

impl Drop for MemoryLog {
    fn drop(&mut self) {
        // In a test that has failed the lock may be poisoned; no second panic then.
        let Ok(mut state) = self.link.broker.state.lock() else { return };
        if let Some(queue) = state.queues.get_mut(&self.queue) {
            queue.is_closed = true;
            queue.wake.notify_one();
        }
    }
}

impl MessageLog for MemoryLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let frames: Vec<_> = records.iter().map(wire::encode).collect();
        let now = self.link.broker.shell.now();
        let mut state = self.link.broker.lock();
        let limit = state.log(&self.name).record_limit();
        if let Some(frame) = frames.iter().find(|frame| frame.bytes.len() > limit) {
            let (bytes, limit_bytes) = (frame.bytes.len() as u64, limit as u64);
            return std::future::ready(Err(AppendError::TooLarge { bytes, limit_bytes })).boxed();
        }
        if state.line(&self.link.line).is_cut {
            let is_noticed = self.link.throw(|dice| dice.strikes(500));
            let reason = format!("the line of {:?} is cut off", self.link.line);
            let error = if is_noticed { AppendError::Unreachable(reason) } else { AppendError::Unknown(reason) };
            return std::future::ready(Err(error)).boxed();
        }
        let outcome = state.enqueue(self.queue, frames, now);
        async move { outcome.await.unwrap_or_else(|_| Err(AppendError::Unknown("the broker is gone".to_owned()))) }
            .boxed()
    }

    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
        let (breaks, changed) = {
            let mut state = self.link.broker.lock();
            (state.breaks_of(&self.link.line), state.log(&self.name).changed.clone())
        };
        let reader = Reader {
            link: self.link.clone(),
            log: self.name.clone(),
            changed,
            next: from,
            breaks,
            dice: self.link.throw(Dice::split),
            due: None,
            has_ended: false,
        };
        stream::unfold(reader, Reader::step).boxed()
    }

    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>> {
        self.ask(|log| log.tail())
    }

    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>> {
        self.ask(move |log| {
            log.trims.push((log.tail(), before));
            log.trimmed = log.trimmed.max(before.0.saturating_sub(1).min(log.tail().0));
            // A reader behind the trim has to learn of it.
            log.changed.notify_waiters();
        })
    }

    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>> {
        self.ask(|log| Usage {
            first: log.first(),
            tail: log.tail(),
            bytes: log.kept_bytes(),
            limit_bytes: None,
            record_limit_bytes: log.record_limit() as u64,
            durability: "an acknowledged record lies in this process's memory and ends with it".to_owned(),
        })
    }
}

impl MemoryLog {
    fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut LogState) -> T + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (link, name) = (self.link.clone(), self.name.clone());
        async move { link.call(|state| question(state.log(&name))).await.map_err(ReadError::Unreachable) }.boxed()
    }
}

/// One stream over one log.
struct Reader {
    link: Link,
    log: String,
    changed: Arc<Notify>,
    next: Position,
    /// What [`State::breaks_of`] said when the stream began.
    breaks: u64,
    dice: Dice,
    /// When the record at `next` is shown here, once that is drawn.
    due: Option<Duration>,
    has_ended: bool,
}

/// What a reader finds.
enum Sight {
    Is(Result<Entry, ReadError>),
    /// Something may be there then.
    At(Duration),
    /// Nothing until the log changes.
    Nothing,
}

impl Reader {
    async fn step(mut self) -> Option<(Result<Entry, ReadError>, Reader)> {
        if self.has_ended {
            return None;
        }
        let (broker, changed) = (self.link.broker.clone(), self.changed.clone());
        loop {
            // Made before looking: a change in between wakes it all the same.
            let change = changed.notified();
            match self.look(&broker) {
                Sight::Is(result) => {
                    self.has_ended = result.is_err();
                    return Some((result, self));
                }
                Sight::Nothing => change.await,
                Sight::At(due) => tokio::select! {
                    biased;
                    () = change => {}
                    () = broker.shell.sleep_until(due) => {}
                },
            }
        }
    }

    fn look(&mut self, broker: &MemoryBroker) -> Sight {
        let now = broker.shell.now();
        let mut state = broker.lock();
        if state.breaks_of(&self.link.line) != self.breaks || state.line(&self.link.line).is_cut {
            return Sight::Is(Err(ReadError::Unreachable("the connection broke".to_owned())));
        }
        let faults = state.faults;
        let stalled_until = state.line(&self.link.line).stalled_until;
        if now < stalled_until {
            return Sight::At(stalled_until);
        }
        let log = state.log(&self.log);
        let (first, tail) = (log.first(), log.tail());
        if self.next < first {
            return Sight::Is(Err(ReadError::Trimmed { asked: self.next, first }));
        }
        if self.next > tail.next() {
            return Sight::Is(Err(ReadError::BehindTail { asked: self.next, tail }));
        }
        let Some(stored) = log.at(self.next) else { return Sight::Nothing };
        let due = *self.due.get_or_insert_with(|| stored.visible_at + self.dice.wait(faults.read_delay));
        if now < due {
            return Sight::At(due);
        }
        let decoded = wire::decode(&stored.frame.bytes);
        let appended_ms = stored.appended_ms;
        if self.dice.strikes(faults.read_broken_per_mille) {
            return Sight::Is(self.break_off(&mut state));
        }
        let position = self.next;
        self.next = position.next();
        self.due = None;
        Sight::Is(match decoded {
            Ok((record, crc)) => Ok(Entry { position, appended_ms, crc, record }),
            Err(error) => Err(ReadError::Damaged { position, reason: error.to_string() }),
        })
    }

    fn break_off(&self, state: &mut State) -> Result<Entry, ReadError> {
        state.count("read_broken_per_mille");
        Err(ReadError::Unreachable("the connection broke".to_owned()))
    }
}
