//! A shard's log as people look at it: who owned it when, its checkpoints, its records. Reads only, with limits.
//!
//! Credentials are hidden and bodies are cut: whoever may look at a log need not see what clients sent in confidence.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::fold::{CountedFence, Fold, Rules, Verdict};
use broker_adapter::ids::{Position, ShardId};
use broker_adapter::log::{MessageLog, ReadError, Usage};
use broker_adapter::record::{Body, Entry, Header, Record, Writer};
use broker_adapter::shell::Shell;
use futures_util::StreamExt;
use serde::Serialize;
use serde_json::{Value, json};
use sidecar::catch_up::{CatchUp, CatchUpError};
use sidecar::checkpoint::CheckpointError;
use sidecar::checkpoint::load::Reader;
use utoipa::ToSchema;

use crate::folds::Folds;

/// How many records a page has at most.
pub const COUNT_MAX: usize = 200;
/// How much of a body is shown.
const BODY_MAX_BYTES: usize = 2_048;
/// How long reading may take.
const READ_LIMIT: Duration = Duration::from_secs(20);
/// How many records are folded to tell whether those of a page count.
const FOLD_MAX: u64 = 4_000;
/// Parts of header names whose values are not shown, beside the well-known ones.
const SECRETS: [&str; 6] = ["token", "secret", "password", "api-key", "apikey", "credential"];

/// Why a log cannot be shown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrowseError {
    /// The log, or the checkpoint that leads to it.
    #[error("the log of {shard} cannot be read: {reason}")]
    Unreadable {
        /// Whose.
        shard: ShardId,
        /// Why.
        reason: String,
    },
    /// The log was trimmed, and no checkpoint that leads to what is left of it is whole.
    #[error("the log of {shard} cannot be read: {reason}")]
    NoCheckpoint {
        /// Whose.
        shard: ShardId,
        /// Why.
        reason: String,
    },
    /// It took too long.
    #[error("the log of {shard} was not read within {READ_LIMIT:?}")]
    TooSlow {
        /// Whose.
        shard: ShardId,
    },
}

/// Records of a log.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogPage {
    /// The oldest record that can still be read.
    #[schema(value_type = u64)]
    pub first: Position,
    /// The last record.
    #[schema(value_type = u64)]
    pub tail: Position,
    /// In order.
    pub items: Vec<LogItem>,
}

/// Messages that are never delivered.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct SkipList {
    /// In order; those that were trimmed are left out.
    pub items: Vec<LogItem>,
}

/// A record.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct LogItem {
    /// Its place.
    #[schema(value_type = u64)]
    pub position: Position,
    /// When the broker appended it, wall milliseconds.
    pub at_ms: u64,
    /// `Message`, `Fence`, `Checkpoint`, …
    pub kind: &'static str,
    /// Whether it counts; null if too much would have to be read to tell.
    pub counts: Option<bool>,
    /// What the fold says of it, in a word.
    pub verdict: Option<String>,
    /// Who wrote it.
    pub writer: Option<String>,
    /// In a few words.
    pub summary: String,
    /// Everything else; credentials are hidden.
    #[schema(value_type = Object)]
    pub fields: Value,
    /// The content, of what has one.
    pub body: Option<BodyView>,
}

/// A content.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BodyView {
    /// All of it.
    pub bytes: u64,
    /// Its beginning, if it is text and in the record.
    pub text: Option<String>,
    /// Whether there is more.
    pub cut: bool,
}

/// Checkpoints of a shard.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct CheckpointList {
    /// The oldest first.
    pub items: Vec<CheckpointView>,
}

/// A checkpoint that counts.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[schema(as = Checkpoint)]
pub struct CheckpointView {
    /// After which record.
    #[schema(value_type = u64)]
    pub position: Position,
    /// Its manifest's hash.
    pub hash: String,
    /// The state's size, if the manifest can be read.
    pub bytes: Option<u64>,
    /// When it was recorded, if that record can be read.
    pub at_ms: Option<u64>,
    /// Whether a migration keeps it.
    pub pinned: bool,
    /// Whether the log keeps it; only such are shown.
    pub kept: bool,
}

/// Reads one shard.
pub struct Browser {
    /// Where its log is.
    pub broker: Arc<dyn Broker>,
    /// Which.
    pub shard: ShardId,
    /// Time.
    pub shell: Shell,
    /// What was read of it before.
    pub folds: Folds,
    /// The newest checkpoint, as nodes tell it.
    pub newest: Option<Position>,
}

impl Browser {
    fn unreadable(&self, reason: impl ToString) -> BrowseError {
        BrowseError::Unreadable { shard: self.shard.clone(), reason: reason.to_string() }
    }

    async fn limited<T>(&self, reading: impl Future<Output = Result<T, BrowseError>>) -> Result<T, BrowseError> {
        let late = || Err(BrowseError::TooSlow { shard: self.shard.clone() });
        self.shell.within(READ_LIMIT, reading).await.unwrap_or_else(late)
    }

    async fn log(&self) -> Result<Arc<dyn MessageLog>, BrowseError> {
        self.broker.log(&self.shard.log_name()).await.map_err(|error| self.unreadable(error))
    }

    async fn fold(&self) -> Result<Fold, BrowseError> {
        let read = self.folds.at_tail(&self.shard).await;
        read.map(|(fold, _)| fold).map_err(|error| match error {
            CatchUpError::Checkpoint(CheckpointError::None { .. }) => {
                BrowseError::NoCheckpoint { shard: self.shard.clone(), reason: error.to_string() }
            }
            error => self.unreadable(error),
        })
    }

    /// What the log says at its tail.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn at_tail(&self) -> Result<Fold, BrowseError> {
        self.limited(self.fold()).await
    }

    /// What the log says at its tail, read on from a fold that nobody vouches for: it proves nothing unless the log, behind it, names the
    /// checkpoint from which it came.
    ///
    /// # Errors
    /// [`BrowseError`]: the log does not go on where the fold ends, too.
    pub async fn at_tail_from(&self, fold: Fold) -> Result<Fold, BrowseError> {
        let (log, store) = (self.log().await?, self.broker.store());
        let (shard, shell) = (self.shard.clone(), self.shell.clone());
        let catch_up = CatchUp { log, store, shard, shell, rules: Rules::default() };
        self.limited(async { catch_up.run_from(fold).await.map_err(|error| self.unreadable(error)) }).await
    }

    /// The fences that the log remembers, the oldest first, and when the last one was appended.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn fences(&self) -> Result<(Vec<CountedFence>, Option<u64>), BrowseError> {
        self.limited(async {
            let fold = self.fold().await?;
            let since = match fold.last_fence() {
                Some(fence) => self.entry(fence.position).await?.map(|entry| entry.appended_ms),
                None => None,
            };
            Ok((fold.fences().cloned().collect(), since))
        })
        .await
    }

    /// The checkpoints that the log keeps.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn checkpoints(&self) -> Result<CheckpointList, BrowseError> {
        self.limited(async {
            let fold = self.fold().await?;
            let reader = Reader { store: self.broker.store(), shell: self.shell.clone() };
            let mut items = Vec::new();
            for kept in fold.checkpoints().kept() {
                let manifest = reader.manifest(&self.shard, kept.position, kept.manifest).await;
                let pinned = fold.checkpoints().pins().iter().any(|pin| pin.checkpoint == kept.position);
                items.push(CheckpointView {
                    position: kept.position,
                    hash: kept.manifest.to_string(),
                    bytes: manifest.ok().map(|manifest| manifest.state_bytes()),
                    at_ms: self.entry(kept.at).await?.map(|entry| entry.appended_ms),
                    pinned,
                    kept: true,
                });
            }
            Ok(CheckpointList { items })
        })
        .await
    }

    /// One record; `None` if it was trimmed.
    async fn entry(&self, position: Position) -> Result<Option<Entry>, BrowseError> {
        let log = self.log().await?;
        match log.read(position).next().await {
            Some(Ok(entry)) => Ok(Some(entry)),
            None | Some(Err(ReadError::Trimmed { .. })) => Ok(None),
            Some(Err(error)) => Err(self.unreadable(error)),
        }
    }

    /// Records from a position on, or the last ones.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn page(&self, from: Option<Position>, count: usize) -> Result<LogPage, BrowseError> {
        self.limited(async {
            let log = self.log().await?;
            let usage = log.usage().await.map_err(|error| self.unreadable(error))?;
            let last = Position(usage.tail.0.saturating_sub(count as u64)).next();
            let from = from.unwrap_or(last).max(usage.first).max(Position(1));
            let upto = Position(from.0.saturating_add(count as u64 - 1)).min(usage.tail);
            let mut page = LogPage { first: usage.first, tail: usage.tail, items: Vec::new() };
            if from > upto {
                return Ok(page);
            }
            let mut fold = self.fold_before(from, &usage).await;
            let begin = fold.as_ref().map_or(from, |fold| fold.position().next());
            let mut entries = log.read(begin);
            while let Some(entry) = entries.next().await {
                let entry = entry.map_err(|error| self.unreadable(error))?;
                let verdict = fold.as_mut().map(|fold| fold.observe(&entry));
                if entry.position >= from {
                    page.items.push(item(&entry, verdict.as_ref()));
                }
                if entry.position >= upto {
                    break;
                }
            }
            Ok(page)
        })
        .await
    }

    /// The nearest fold before a position, if it is near: from the log's beginning, or from a checkpoint that counts. Which do,
    /// only the fold at the tail tells: that must be near too.
    async fn fold_before(&self, from: Position, usage: &Usage) -> Option<Fold> {
        let first = usage.first;
        if first <= Position(1) && from.0 <= FOLD_MAX {
            return Some(Fold::new());
        }
        self.newest.filter(|newest| usage.tail.records_since(*newest) <= FOLD_MAX)?;
        let fold = self.fold().await.ok()?;
        let near = |kept: &&broker_adapter::fold::KeptCheckpoint| {
            kept.position < from && kept.position.next() >= first && from.records_since(kept.position) <= FOLD_MAX
        };
        let kept = fold.checkpoints().kept().iter().rev().find(near)?;
        let reader = Reader { store: self.broker.store(), shell: self.shell.clone() };
        let manifest = reader.manifest(&self.shard, kept.position, kept.manifest).await.ok()?;
        reader.fold(&manifest, kept.manifest).await.ok()
    }

    /// The messages that are never delivered, because they ended their service.
    ///
    /// # Errors
    /// [`BrowseError`].
    pub async fn skips(&self) -> Result<SkipList, BrowseError> {
        self.limited(async {
            let fold = self.fold().await?;
            let mut items = Vec::new();
            for position in fold.skipped().take(COUNT_MAX) {
                items.extend(self.entry(position).await?.map(|entry| item(&entry, None)));
            }
            Ok(SkipList { items })
        })
        .await
    }
}

fn item(entry: &Entry, verdict: Option<&Verdict>) -> LogItem {
    let (writer, summary, fields, body) = told(&entry.record);
    LogItem {
        position: entry.position,
        at_ms: entry.appended_ms,
        kind: entry.record.kind(),
        counts: verdict.map(|verdict| !matches!(verdict, Verdict::Void(_))),
        verdict: verdict.map(word),
        writer,
        summary,
        fields,
        body,
    }
}

fn word(verdict: &Verdict) -> String {
    match verdict {
        Verdict::Apply => "applied".to_owned(),
        Verdict::Repeat(_) => "a repetition: not applied".to_owned(),
        Verdict::Expired => "expired: not applied".to_owned(),
        Verdict::Closed => "closes a session".to_owned(),
        Verdict::Fenced(_) => "ownership moved".to_owned(),
        Verdict::Noted => "noted".to_owned(),
        Verdict::Void(why) => format!("void: {why:?}"),
    }
}

fn plain<T: Serialize>(fields: &T) -> Value {
    serde_json::to_value(fields).unwrap_or_default()
}

fn by(writer: &Writer) -> Option<String> {
    Some(format!("{} (epoch {})", writer.replica.node, writer.epoch))
}

/// Writer, summary, fields, content.
type Told = (Option<String>, String, Value, Option<BodyView>);

fn told(record: &Record) -> Told {
    match record {
        Record::Message(message) => {
            let request = &message.request;
            let headers: Vec<Value> =
                request.headers.iter().map(|header| json!({ "name": header.name, "value": shown(header) })).collect();
            let fields = json!({
                "name": message.name.to_string(), "base": message.base, "key": plain(&message.key),
                "source": plain(&message.source), "method": request.method, "path": request.path, "headers": headers,
            });
            let body = match &request.body {
                Body::Inline(bytes) => content(bytes),
                Body::Stored { length, .. } => BodyView { bytes: *length, text: None, cut: true },
            };
            let summary = format!("{} {}", request.method, request.path);
            (Some(message.ingress.node.to_string()), summary, fields, Some(body))
        }
        Record::Close(close) => (None, "ends a session".to_owned(), plain(close), None),
        Record::Fence(fence) => {
            let summary = format!("epoch {}: {} owns ({:?})", fence.epoch, fence.owner.node, fence.cause);
            (Some(fence.owner.node.to_string()), summary, plain(fence), None)
        }
        Record::Digest(digest) => (by(&digest.writer), format!("hash after {}", digest.position), plain(digest), None),
        Record::Checkpoint(checkpoint) => {
            (by(&checkpoint.writer), format!("state after {}", checkpoint.position), plain(checkpoint), None)
        }
        Record::Pin(pin) => {
            let what = if pin.release { "releases" } else { "keeps" };
            (by(&pin.writer), format!("{what} the checkpoint after {}", pin.checkpoint), plain(pin), None)
        }
        Record::Attempt(attempt) => {
            (by(&attempt.writer), format!("delivers {} to {} again", attempt.from, attempt.to), plain(attempt), None)
        }
        Record::Skip(skip) => (by(&skip.writer), format!("never delivers {}", skip.position), plain(skip), None),
        Record::Settings(settings) => (by(&settings.writer), "parameters".to_owned(), plain(settings), None),
        Record::Mark(mark) => {
            let what = if mark.state { "the state's hash" } else { "a hash" };
            (None, format!("asks for {what}"), plain(mark), None)
        }
        Record::Entry(entry) => (by(&entry.writer), "journal".to_owned(), json!({}), Some(content(&entry.event))),
        Record::Tick(tick) => (by(&tick.writer), format!("time {}", tick.time_ms), plain(tick), None),
        Record::Output(output) => {
            let fields = json!({ "position": output.position, "k": output.k, "destination": output.destination });
            (by(&output.writer), format!("sent to {}", output.destination), fields, Some(content(&output.body)))
        }
        Record::Effect(effect) => {
            let fields = json!({ "position": effect.position, "k": effect.k });
            (by(&effect.writer), format!("answer to call {}", effect.k), fields, Some(content(&effect.answer)))
        }
        Record::Seal(seal) => (by(&seal.writer), "goes on elsewhere".to_owned(), json!({}), None),
    }
}

fn shown(header: &Header) -> String {
    let name = header.name.to_ascii_lowercase();
    if SECRETS.iter().any(|secret| name.contains(secret)) {
        return "(hidden)".to_owned();
    }
    header.shown().chars().take(BODY_MAX_BYTES).collect()
}

/// The beginning of a text; of other bytes only their number.
fn content(bytes: &[u8]) -> BodyView {
    let head = &bytes[..bytes.len().min(BODY_MAX_BYTES)];
    // A cut through a character takes away at most its first three bytes.
    let text = match std::str::from_utf8(head) {
        Ok(text) => Some(text.to_owned()),
        Err(error) if error.error_len().is_none() => {
            Some(String::from_utf8_lossy(&head[..error.valid_up_to()]).into_owned())
        }
        Err(_) => None,
    };
    BodyView { bytes: bytes.len() as u64, text, cut: bytes.len() > BODY_MAX_BYTES }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[test]
    fn a_body_is_cut_between_characters_and_other_bytes_are_only_counted() {
        let long = "ä".repeat(2_000);
        let view = content(format!("x{long}").as_bytes());
        assert!(view.cut && view.bytes == 4_001 && view.text.unwrap().len() == 2_047);
        assert_eq!(content(&[0xff, 0xfe]).text, None);
        assert_eq!(content(b"{}").text.as_deref(), Some("{}"));
    }

    #[test]
    fn what_may_be_a_secret_is_hidden() {
        let header = |name: &str| Header { name: name.to_owned(), value: Bytes::from_static(b"s3cret") };
        for name in ["authorization", "cookie", "x-api-key", "X-Auth-Token", "x-client-secret"] {
            assert_eq!(shown(&header(name)), "(hidden)", "{name}");
        }
        assert_eq!(shown(&header("traceparent")), "s3cret");
    }
}
