//! The first face of the embedded broker: one log's handle.

use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{oneshot, watch};

use crate::ids::Position;
use crate::log::{AppendError, MessageLog, ReadError, Usage};
use crate::record::wire::{self, WireError};
use crate::record::{Entry, Record};
use crate::shell::Shell;

use super::commit::LogWriter;
use super::queue::{AppendJob, TrimJob};
use super::row::Row;
use super::state::{LogState, Look};
use super::{Open, RECORD_LIMIT_BYTES, check_sizes};

/// One log of an embedded broker.
#[derive(Clone)]
pub struct EmbeddedLog {
    pub(super) writer: Arc<LogWriter>,
    pub(super) open: Arc<Open>,
    pub(super) shell: Shell,
}

impl EmbeddedLog {
    /// Appends frames that were checked or made here; resolves with the first position. The call hands them over.
    pub(super) fn append_frames(
        &self,
        frames: Vec<(Bytes, u32)>,
    ) -> impl Future<Output = Result<Position, AppendError>> + Send + use<> {
        let (done, outcome) = oneshot::channel();
        let handed_over = self.hand_over(frames, done);
        let broken = self.open.broken.clone();
        async move {
            handed_over?;
            outcome.await.unwrap_or_else(|_| Err(AppendError::Unknown(why_gone(&broken))))
        }
    }

    fn hand_over(
        &self,
        frames: Vec<(Bytes, u32)>,
        done: oneshot::Sender<Result<Position, AppendError>>,
    ) -> Result<(), AppendError> {
        let job = AppendJob { log: self.writer.clone(), frames, since: self.shell.now(), done };
        let taken =
            check_sizes(job.frames.iter().map(|(frame, _)| frame.len())).and_then(|()| match self.open.broken.get() {
                Some(reason) => Err(AppendError::Damaged(reason.clone())),
                None => self.open.queue.push(job),
            });
        if taken.is_err() {
            self.open.metrics.append_failures.inc();
        }
        taken
    }

    /// The log's rows from `from` on, in steps of what is ready.
    pub(super) fn rows(&self, from: Position) -> BoxStream<'static, Result<Vec<Row>, ReadError>> {
        let changes = self.writer.state.changes();
        let reader = Reader { log: self.clone(), next: from, changes };
        stream::unfold(Some(reader), |reader| async move {
            let mut reader = reader?;
            match reader.step().await {
                Ok(rows) => Some((Ok(rows), Some(reader))),
                Err(error) => Some((Err(error), None)),
            }
        })
        .boxed()
    }

    pub(super) fn state(&self) -> &LogState {
        &self.writer.state
    }
}

fn why_gone(broken: &OnceLock<String>) -> String {
    broken.get().cloned().unwrap_or_else(|| "the broker's committer is gone".to_owned())
}

struct Reader {
    log: EmbeddedLog,
    next: Position,
    changes: watch::Receiver<Position>,
}

impl Reader {
    async fn step(&mut self) -> Result<Vec<Row>, ReadError> {
        let rows = loop {
            self.changes.borrow_and_update();
            match self.log.state().look(self.next) {
                Look::Rows(rows) => break rows,
                Look::Failed(error) => return Err(error),
                Look::OnDisk(to) => {
                    let (writer, from) = (self.log.writer.clone(), self.next);
                    break self.log.shell.blocking(move || writer.state.read_disk(from, to)).await?;
                }
                Look::Wait => {
                    let gone = |_| ReadError::Unreachable("the broker is closed".to_owned());
                    self.changes.changed().await.map_err(gone)?;
                }
            }
        };
        self.next = rows.last().map_or(self.next, |row| row.position.next());
        Ok(rows)
    }
}

/// Decodes a row; what cannot be decoded is damaged.
pub(super) fn entry(row: &Row) -> Result<Entry, ReadError> {
    let damaged = |error: WireError| ReadError::Damaged { position: row.position, reason: error.to_string() };
    let (record, crc) = wire::decode(&row.frame).map_err(damaged)?;
    Ok(Entry { position: row.position, appended_ms: row.appended_ms, crc, record })
}

/// Encodes what is to be appended.
pub(super) fn frames(records: &[Record]) -> Vec<(Bytes, u32)> {
    let frame = |record| {
        let frame = wire::encode(record);
        (frame.bytes, frame.crc)
    };
    records.iter().map(frame).collect()
}

/// The positions of one append.
pub(super) fn positions(first: Position, count: usize) -> Vec<Position> {
    (first.0..).take(count).map(Position).collect()
}

/// Entries one by one; nothing comes behind an error.
pub(super) fn entries(
    rows: BoxStream<'static, Result<Vec<Row>, ReadError>>,
) -> BoxStream<'static, Result<Entry, ReadError>> {
    rows.flat_map(|step| {
        let entries: Vec<Result<Entry, ReadError>> = match step {
            Ok(rows) => rows.iter().map(entry).collect(),
            Err(error) => vec![Err(error)],
        };
        stream::iter(entries)
    })
    .scan(false, |ended, entry| {
        let item = (!*ended).then_some(entry);
        *ended |= item.as_ref().is_some_and(Result::is_err);
        future::ready(item)
    })
    .boxed()
}

impl MessageLog for EmbeddedLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let count = records.len();
        self.append_frames(frames(&records)).map(move |first| Ok(positions(first?, count))).boxed()
    }

    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
        entries(self.rows(from))
    }

    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>> {
        future::ready(Ok(self.state().extent().1)).boxed()
    }

    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>> {
        let (done, outcome) = oneshot::channel();
        self.open.queue.push_trim(TrimJob { log: self.writer.clone(), before, done });
        async move {
            match outcome.await {
                Ok(Ok(())) => Ok(()),
                Ok(Err(reason)) => Err(ReadError::Unreachable(reason)),
                Err(_) => Err(ReadError::Unreachable("the broker is closed".to_owned())),
            }
        }
        .boxed()
    }

    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>> {
        let (first, tail) = self.state().extent();
        let (bytes, limit_bytes) = (self.open.room.used_bytes(), self.open.room.limit_bytes());
        let durability = "on the disk of one node: written by sled, then fdatasync".to_owned();
        future::ready(Ok(Usage {
            first,
            tail,
            bytes,
            limit_bytes,
            record_limit_bytes: RECORD_LIMIT_BYTES as u64,
            durability,
        }))
        .boxed()
    }
}
