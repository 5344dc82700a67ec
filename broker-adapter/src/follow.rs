//! Follows a log over broken connections and never past a gap (invariant 4).
//!
//! Every reader of the system, ingress, applier, migrator, is a [`Follower`]: it remembers the last record's position and
//! checksum, and after every reconnect reads that record again and compares it, because a log may have been rewound.
//! One that has other work to wait for reads ahead meanwhile; what was read ahead was accepted by the same rules.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt};

use crate::ids::Position;
use crate::log::{MessageLog, ReadError};
use crate::record::{Body, Entry, Record};
use crate::shell::Shell;

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);
/// How far a follower reads ahead.
const AHEAD_RECORDS: usize = 2_048;
const AHEAD_BYTES: usize = 16 << 20;
/// What an entry takes beside its body.
const ENTRY_BYTES: usize = 512;
/// How many records are read ahead before whoever shares the task has its turn.
const AHEAD_RUN_RECORDS: usize = 64;

/// Reads a log in order for as long as anybody asks.
pub struct Follower {
    log: Arc<dyn MessageLog>,
    shell: Shell,
    /// The last record that `next` gave.
    given: Position,
    /// Read and accepted, not given yet.
    ahead: VecDeque<Entry>,
    ahead_bytes: usize,
    /// What stands behind those.
    failed: Option<ReadError>,
    /// The last record that was accepted.
    last: Position,
    last_crc: u32,
    stream: Option<BoxStream<'static, Result<Entry, ReadError>>>,
    must_compare: bool,
    retry_wait: Duration,
    retry_at: Option<Duration>,
}

impl Follower {
    /// Follows `log` behind the record at `after`, whose checksum was `crc`; behind nothing if `after` is 0.
    #[must_use]
    pub fn new(log: Arc<dyn MessageLog>, shell: Shell, after: Position, crc: u32) -> Follower {
        Follower {
            log,
            shell,
            given: after,
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            failed: None,
            last: after,
            last_crc: crc,
            stream: None,
            must_compare: false,
            retry_wait: RETRY_FIRST,
            retry_at: None,
        }
    }

    /// The last record that `next` gave.
    #[must_use]
    pub fn position(&self) -> Position {
        self.given
    }

    /// The next record. Waits for it, over broken connections too; safe to drop and call again.
    ///
    /// # Errors
    /// Only what stops a replica: a gap, a damaged or a different record, a position behind the trim.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
        let entry = match self.ahead.pop_front() {
            Some(entry) => {
                self.ahead_bytes -= size(&entry);
                entry
            }
            None => match self.failed.take() {
                Some(error) => return Err(error),
                None => self.read().await?,
            },
        };
        self.given = entry.position;
        Ok(entry)
    }

    /// The next record if it is there already.
    ///
    /// # Errors
    /// As [`Follower::next`].
    pub fn next_ready(&mut self) -> Option<Result<Entry, ReadError>> {
        self.next().now_or_never()
    }

    /// Reads ahead, up to the limits, for as long as it is polled; safe to drop.
    pub async fn read_ahead(&mut self) -> Infallible {
        let mut run = 0;
        while self.failed.is_none() && self.ahead.len() < AHEAD_RECORDS && self.ahead_bytes < AHEAD_BYTES {
            match self.read().await {
                Ok(entry) => {
                    self.ahead_bytes += size(&entry);
                    self.ahead.push_back(entry);
                }
                Err(error) => self.failed = Some(error),
            }
            run += 1;
            if run % AHEAD_RUN_RECORDS == 0 {
                tokio::task::yield_now().await;
            }
        }
        std::future::pending().await
    }

    /// The next record of the log.
    async fn read(&mut self) -> Result<Entry, ReadError> {
        loop {
            if let Some(at) = self.retry_at {
                self.shell.sleep_until(at).await;
                self.retry_at = None;
            }
            let stream = self.stream.get_or_insert_with(|| {
                self.must_compare = self.last > Position::ZERO;
                self.log.read(if self.must_compare { self.last } else { self.last.next() })
            });
            let error = match stream.next().await {
                Some(Ok(entry)) => match self.accept(entry)? {
                    Some(entry) => return Ok(entry),
                    None => continue,
                },
                Some(Err(error)) => error,
                None => ReadError::Unreachable("the stream ended".to_owned()),
            };
            self.stream = None;
            if !error.is_retryable() {
                return Err(error);
            }
            tracing::debug!(%error, after = %self.last, "reading again");
            self.retry_at = Some(self.shell.now() + self.retry_wait);
            self.retry_wait = (2 * self.retry_wait).min(RETRY_MAX);
        }
    }

    fn accept(&mut self, entry: Entry) -> Result<Option<Entry>, ReadError> {
        self.retry_wait = RETRY_FIRST;
        if self.must_compare {
            if entry.position != self.last {
                return Err(ReadError::Gap { expected: self.last, found: entry.position });
            }
            if entry.crc != self.last_crc {
                return Err(ReadError::Different {
                    position: entry.position,
                    expected: self.last_crc,
                    found: entry.crc,
                });
            }
            self.must_compare = false;
            return Ok(None);
        }
        if entry.position != self.last.next() {
            return Err(ReadError::Gap { expected: self.last.next(), found: entry.position });
        }
        self.last = entry.position;
        self.last_crc = entry.crc;
        Ok(Some(entry))
    }
}

fn size(entry: &Entry) -> usize {
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
