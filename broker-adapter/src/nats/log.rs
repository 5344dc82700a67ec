//! The first face: one log, which is one stream of one subject. A position is the stream's sequence number.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::BoxStream;

use crate::broker::ConnectError;
use crate::embedded::{APPEND_LIMIT_BYTES, APPEND_LIMIT_RECORDS, RECORD_LIMIT_BYTES};
use crate::ids::{Incarnation, Position};
use crate::log::{AppendError, MessageLog, ReadError, Usage};
use crate::record::{Entry, Mark, Record, wire};

use super::api::{self, ApiError, StreamInfo};
use super::appends::{Shared, Target};
use super::durability;
use super::link::{Lines, Link};
use super::reads;
use super::settings::{self, Kind, Wanted};

/// A log on NATS.
pub struct NatsLog {
    inner: Arc<Inner>,
}

/// What outlives a call.
pub struct Inner {
    pub link: Link,
    pub wanted: Wanted,
    appends: Arc<Shared>,
    durability: String,
    replicas: AtomicU64,
}

impl NatsLog {
    /// Opens or makes the log's stream, and verifies it.
    pub async fn open(link: Link, name: &str) -> Result<NatsLog, ConnectError> {
        let stream = link.names().stream_of_log(name).ok_or_else(|| {
            link.refused(format!("no stream can have a name for the log {name:?}: it is empty or too long"))
        })?;
        let wanted = Wanted { kind: Kind::Log, name: stream, subjects: vec![link.names().subject_of_log(name)] };
        let info = settings::open(&link, &wanted).await?;
        let durability = durability::verify(&link, &wanted.name, info.replicas).await?;
        tracing::info!(log = name, stream = wanted.name, durability, "acknowledged means");
        let lines = link.lines().ok_or_else(|| link.refused("the process has ended"))?;
        let target =
            Target { link: link.clone(), wanted: wanted.clone(), created: info.created, replicas: info.replicas };
        let appends = Shared::start(target, &lines).await.map_err(|reason| link.refused(reason))?;
        let replicas = AtomicU64::new(info.replicas);
        Ok(NatsLog { inner: Arc::new(Inner { link, wanted, appends, durability, replicas }) })
    }
}

impl Inner {
    fn hand_over(&self, records: &[Record]) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let frames: Vec<Bytes> = records.iter().map(|record| wire::encode(record).bytes).collect();
        let handed_over = match self.link.lines() {
            None => Err(AppendError::Unreachable("the process has ended".to_owned())),
            Some(lines) => {
                check_sizes(&frames, &lines).and_then(|()| self.appends.append(frames, &lines, self.link.shell().now()))
            }
        };
        match handed_over {
            Err(error) => future::ready(Err(error)).boxed(),
            Ok(appended) => async move {
                let gone = |_| Err(AppendError::Unknown("the log's task has ended".to_owned()));
                appended.await.unwrap_or_else(gone)
            }
            .boxed(),
        }
    }

    /// What the stream's leader says.
    pub async fn info(&self) -> Result<StreamInfo, ReadError> {
        let lines = self.link.lines().ok_or_else(ended)?;
        let info = api::stream_info(&lines.reads, self.link.shell(), &self.wanted.name).await.map_err(unreachable)?;
        self.replicas.store(info.replicas, Ordering::Relaxed);
        Ok(info)
    }

    /// The last position, and everything acknowledged before the call is at or before it. One server knows by itself. Of several, one
    /// that was leader and does not know yet that it is not would show an older tail: there a record is appended, whose place is told.
    pub async fn tail(&self) -> Result<Position, ReadError> {
        if self.replicas.load(Ordering::Relaxed) <= 1 {
            let info = self.info().await?;
            if info.replicas <= 1 {
                return Ok(Position(info.last));
            }
        }
        let shell = self.link.shell();
        let mark = Mark { id: shell.random(), asker: Incarnation(shell.random()), state: false };
        let appended = self.hand_over(&[Record::Mark(mark)]).await;
        let positions = appended.map_err(|error| ReadError::Unreachable(format!("the tail's mark: {error}")))?;
        positions.first().copied().ok_or_else(|| ReadError::Unreachable("the mark has no place".to_owned()))
    }

    async fn trim(&self, before: Position) -> Result<(), ReadError> {
        let info = self.info().await?;
        // Beyond the tail, a purge would skip positions.
        let before = before.0.min(info.last + 1);
        if before <= info.first {
            return Ok(());
        }
        let lines = self.link.lines().ok_or_else(ended)?;
        api::purge_before(&lines.reads, self.link.shell(), &self.wanted.name, before).await.map_err(unreachable)
    }
}

/// A record is the payload of one message; the server's limit may change with its configuration.
fn record_limit(lines: &Lines) -> usize {
    lines.appends.client.max_payload().min(RECORD_LIMIT_BYTES)
}

fn check_sizes(frames: &[Bytes], lines: &Lines) -> Result<(), AppendError> {
    let limit = record_limit(lines);
    let too_large =
        |bytes: usize, limit: usize| AppendError::TooLarge { bytes: bytes as u64, limit_bytes: limit as u64 };
    if let Some(frame) = frames.iter().find(|frame| frame.len() > limit) {
        return Err(too_large(frame.len(), limit));
    }
    let all = frames.iter().map(Bytes::len).sum();
    match frames.len() > APPEND_LIMIT_RECORDS || all > APPEND_LIMIT_BYTES {
        true => Err(too_large(all, APPEND_LIMIT_BYTES)),
        false => Ok(()),
    }
}

/// The process's connections are gone.
pub fn ended() -> ReadError {
    ReadError::Unreachable("the process has ended".to_owned())
}

fn unreachable(error: ApiError) -> ReadError {
    ReadError::Unreachable(error.reason())
}

impl Drop for NatsLog {
    fn drop(&mut self) {
        self.inner.appends.end();
    }
}

impl MessageLog for NatsLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        self.inner.hand_over(&records)
    }

    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
        reads::entries(self.inner.clone(), from)
    }

    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>> {
        let inner = self.inner.clone();
        async move { inner.tail().await }.boxed()
    }

    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>> {
        let inner = self.inner.clone();
        async move { inner.trim(before).await }.boxed()
    }

    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>> {
        let inner = self.inner.clone();
        async move {
            let info = inner.info().await?;
            let durability = inner.durability.clone();
            let limit_bytes = info.config["max_bytes"].as_u64().filter(|limit| *limit > 0);
            let (first, tail) = (Position(info.first), Position(info.last));
            let record_limit_bytes = inner.link.lines().map_or(0, |lines| record_limit(&lines) as u64);
            Ok(Usage { first, tail, bytes: info.bytes, limit_bytes, record_limit_bytes, durability })
        }
        .boxed()
    }
}
