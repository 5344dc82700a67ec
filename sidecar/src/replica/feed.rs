//! What a replica reads: the log in order, ahead of what it applies, and with each record the body that is not in it.
//!
//! ```text
//!   log ──▶ follower ──▶ staged: ┌──┬──┬──┬──┬──┐ ──▶ next: only when its body is there
//!                                └┬─┴──┴┬─┴──┴──┘
//!             checkpoint store ◀──┴─────┴── fetched meanwhile, up to FETCH_AHEAD_BYTES
//! ```
//! A fetch waits for a store that is away, and the engine answers commands meanwhile. What became of it is for the engine to judge:
//! a record that is void needs no body.

use std::collections::VecDeque;
use std::convert::Infallible;

use broker_adapter::follow::Follower;
use broker_adapter::log::ReadError;
use broker_adapter::record::{Body, Entry, Record};
use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use futures_util::FutureExt;
use tokio::sync::oneshot;

use crate::body::{Bodies, BodyError, BodyName};

/// How far it reads ahead.
const AHEAD_RECORDS: usize = 2_048;
const AHEAD_BYTES: usize = 16 << 20;
/// What an entry takes beside its body.
const ENTRY_BYTES: usize = 512;
/// How many records are read ahead before whoever shares the task has its turn.
const AHEAD_RUN_RECORDS: usize = 64;
/// How much of stored bodies is fetched ahead of the record that is applied; that one's always is.
const FETCH_AHEAD_BYTES: u64 = 64 << 20;

type Fetched = Result<Bytes, BodyError>;

/// A record, and the body that is not in it.
#[derive(Debug)]
pub(super) struct Read {
    pub entry: Entry,
    pub body: Option<Fetched>,
}

struct Staged {
    entry: Entry,
    slot: Slot,
}

/// A stored body's way here.
enum Slot {
    /// The record has none.
    Empty,
    Waiting,
    Fetching(oneshot::Receiver<Fetched>),
    Here(Fetched),
}

/// A replica's reader.
pub(super) struct Feed {
    follower: Follower,
    bodies: Bodies,
    staged: VecDeque<Staged>,
    staged_bytes: usize,
    /// What stands behind those.
    failed: Option<ReadError>,
    /// How many staged bodies wait to be fetched.
    waiting: usize,
    /// Of bodies that are fetched and not taken yet.
    fetched_bytes: u64,
    shell: Shell,
    /// Fetches end with the feed.
    _fetches: TaskSet,
}

impl Feed {
    pub fn new(follower: Follower, bodies: Bodies) -> Feed {
        let (shell, fetches) = bodies.shell.part();
        Feed {
            follower,
            bodies,
            staged: VecDeque::new(),
            staged_bytes: 0,
            failed: None,
            waiting: 0,
            fetched_bytes: 0,
            shell,
            _fetches: fetches,
        }
    }

    /// The next record, with its body; safe to drop and call again.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub async fn next(&mut self) -> Result<Read, ReadError> {
        loop {
            let has_room = self.has_room();
            let Some(front) = self.staged.front_mut() else {
                if let Some(error) = self.failed.take() {
                    return Err(error);
                }
                let entry = self.follower.next().await?;
                self.stage(entry);
                continue;
            };
            let Slot::Fetching(fetch) = &mut front.slot else { return Ok(self.take()) };
            tokio::select! { biased;
                fetched = fetch => match fetched {
                    Ok(fetched) => front.slot = Slot::Here(fetched),
                    // The process is ending, and this with it.
                    Err(_) => std::future::pending().await,
                },
                // The bodies behind it are fetched meanwhile.
                read = self.follower.next(), if has_room => self.read(read),
            }
        }
    }

    /// The next record if it is there already, with its body.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub fn next_ready(&mut self) -> Option<Result<Read, ReadError>> {
        self.next().now_or_never()
    }

    /// Reads ahead, up to the limits, for as long as it is polled; safe to drop.
    pub async fn read_ahead(&mut self) -> Infallible {
        let mut run = 0;
        while self.has_room() {
            let read = self.follower.next().await;
            self.read(read);
            run += 1;
            if run % AHEAD_RUN_RECORDS == 0 {
                tokio::task::yield_now().await;
            }
        }
        std::future::pending().await
    }

    fn has_room(&self) -> bool {
        self.failed.is_none() && self.staged.len() < AHEAD_RECORDS && self.staged_bytes < AHEAD_BYTES
    }

    fn read(&mut self, read: Result<Entry, ReadError>) {
        match read {
            Ok(entry) => self.stage(entry),
            Err(error) => self.failed = Some(error),
        }
    }

    fn stage(&mut self, entry: Entry) {
        let is_stored = stored_bytes(&entry).is_some();
        self.staged_bytes += inline_bytes(&entry);
        self.waiting += usize::from(is_stored);
        self.staged.push_back(Staged { entry, slot: if is_stored { Slot::Waiting } else { Slot::Empty } });
        self.fetch_ahead();
    }

    fn take(&mut self) -> Read {
        let Staged { entry, slot } = self.staged.pop_front().expect("the caller saw it");
        self.staged_bytes -= inline_bytes(&entry);
        let body = match slot {
            Slot::Here(fetched) => Some(fetched),
            _ => None,
        };
        self.fetched_bytes -= stored_bytes(&entry).unwrap_or_default();
        self.fetch_ahead();
        Read { entry, body }
    }

    /// Begins what may be fetched now, in order; the first record's body always.
    fn fetch_ahead(&mut self) {
        if self.waiting == 0 {
            return;
        }
        for (index, Staged { entry, slot }) in self.staged.iter_mut().enumerate() {
            let (Slot::Waiting, Some(bytes)) = (&slot, stored_bytes(entry)) else { continue };
            if index > 0 && self.fetched_bytes + bytes > FETCH_AHEAD_BYTES {
                return;
            }
            self.fetched_bytes += bytes;
            self.waiting -= 1;
            let (done, fetched) = oneshot::channel();
            let fetch = fetch(self.bodies.clone(), entry);
            self.shell.spawn(async move {
                // Nobody may wait any more.
                let _ = done.send(fetch.await);
            });
            *slot = Slot::Fetching(fetched);
        }
    }
}

fn fetch(bodies: Bodies, entry: &Entry) -> impl Future<Output = Fetched> + Send + use<> {
    let wanted = match &entry.record {
        Record::Message(message) => match message.request.body {
            Body::Stored { hash, length } => BodyName::of(message).map(|name| (name, hash, length)),
            Body::Inline(_) => None,
        },
        _ => None,
    };
    async move {
        match wanted {
            Some((name, hash, length)) => bodies.fetch(name, hash, length).await,
            None => Err(BodyError("its record is not the first of a session, so its body has no name".to_owned())),
        }
    }
}

/// The length of a body that is not in its record.
fn stored_bytes(entry: &Entry) -> Option<u64> {
    match &entry.record {
        Record::Message(message) => match message.request.body {
            Body::Stored { length, .. } => Some(length),
            Body::Inline(_) => None,
        },
        _ => None,
    }
}

fn inline_bytes(entry: &Entry) -> usize {
    let body = match &entry.record {
        Record::Message(message) => match &message.request.body {
            Body::Inline(body) => body.len(),
            Body::Stored { .. } => 0,
        },
        Record::Output(output) => output.body.len(),
        Record::Effect(effect) => effect.answer.len(),
        Record::Entry(entry) => entry.event.len(),
        _ => 0,
    };
    ENTRY_BYTES + body
}

#[cfg(test)]
mod tests;
