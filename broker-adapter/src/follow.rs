//! Follows a log over broken connections and never past a gap (invariant 4).
//!
//! Every reader of the system, ingress, applier, migrator, is a [`Follower`]: it remembers the last record's position and
//! checksum, and after every reconnect reads that record again and compares it, because a log may have been rewound.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::BoxStream;

use crate::ids::Position;
use crate::log::{MessageLog, ReadError};
use crate::record::Entry;
use crate::shell::Shell;

const RETRY_FIRST: Duration = Duration::from_millis(10);
const RETRY_MAX: Duration = Duration::from_millis(500);

/// Reads a log in order for as long as anybody asks.
pub struct Follower {
    log: Arc<dyn MessageLog>,
    shell: Shell,
    /// The last record that `next` gave.
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
        self.last
    }

    /// The next record. Waits for it, over broken connections too; safe to drop and call again.
    ///
    /// # Errors
    /// Only what stops a replica: a gap, a damaged or a different record, a position behind the trim.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
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
