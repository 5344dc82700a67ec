//! Request bodies that lie in the checkpoint store, because their records would be too large for the broker, or large enough to hold
//! up the records of others: their names, and how they are put, fetched and removed.
//!
//! ```text
//!   body/<log>/<session>-<sequence>-<base>/<part>      parts of 4 MiB; the record carries the hash of the whole
//! ```
//! Such a message is the first and only record of a session of its own, so nothing stands behind it that would wait for its put, and
//! its `base` says until when its record can count: within K counts of it, and never again once the session is known or `base` is
//! K counts old ([`BodyName::may_count`]). A message that is sent again under another session gets a body of that name. So whoever
//! has a fold can tell from a name alone whether a record that names it may still come, and what no such record can name, and no
//! record that a replica may still read, is nobody's: found by listing, whoever has put it, and crashed (see `replica::bodies`).

use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Count, Hash, MessageName, Sequence, ShardId};
use broker_adapter::record::{Body, Message, Request};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream};
use std::sync::Arc;

use crate::checkpoint::{folder, manifest_prefix};
use crate::config::BODY_LIMIT_MAX_BYTES;

/// A larger body is stored also where a record could hold it: it is as much as goes into one append, and every record behind it
/// would wait until it is synced.
pub const INLINE_LIMIT_BYTES: u64 = 1 << 20;
/// What one object holds of a body.
pub const PART_BYTES: usize = 4 << 20;
/// How many parts of one body are on their way at once.
const PARTS_AT_ONCE: usize = 2;
/// What a record holds beside the request: names, a key of at most 256 bytes, the ingress.
const AROUND_BYTES: u64 = 1 << 10;
/// What MessagePack adds to a header, at most.
const AROUND_HEADER_BYTES: u64 = 32;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// Between two removals: each may cost the log's next sync a commit of the file system.
const REST: Duration = Duration::from_millis(5);

/// Which body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BodyName {
    /// Its message: the first of its session.
    pub message: MessageName,
    /// That message's base.
    pub base: Count,
}

/// What the log says is not what the store holds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("its body is not in the checkpoint store as the log names it: {0}")]
pub struct BodyError(pub String);

/// Whether a request's record would be larger than the broker takes, or than is good for the others.
#[must_use]
pub fn is_too_large(request: &Request, record_limit_bytes: u64) -> bool {
    let Body::Inline(body) = &request.body else { return false };
    let headers: u64 = request
        .headers
        .iter()
        .map(|header| (header.name.len() + header.value.len()) as u64 + AROUND_HEADER_BYTES)
        .sum();
    let body = body.len() as u64;
    let record = body + headers + (request.method.len() + request.path.len()) as u64 + AROUND_BYTES;
    body > INLINE_LIMIT_BYTES || record > record_limit_bytes
}

/// What the names of all of a shard's bodies begin with.
#[must_use]
pub fn body_prefix(shard: &ShardId) -> String {
    format!("body/{}/", folder(shard))
}

impl BodyName {
    /// Of a message whose body is stored.
    #[must_use]
    pub fn of(message: &Message) -> Option<BodyName> {
        match message.request.body {
            Body::Stored { .. } => Some(BodyName { message: message.name, base: message.base? }),
            Body::Inline(_) => None,
        }
    }

    /// The body of which an object in the store is a part.
    #[must_use]
    pub fn parse(shard: &ShardId, object: &str) -> Option<BodyName> {
        let (name, _part) = object.strip_prefix(&body_prefix(shard))?.split_once('/')?;
        let mut words = name.splitn(3, '-');
        let (session, sequence, base) = (words.next()?, words.next()?, words.next()?);
        let message = MessageName { session: session.parse().ok()?, sequence: Sequence(sequence.parse().ok()?) };
        Some(BodyName { message, base: Count(base.parse().ok()?) })
    }

    /// Whether a record that names it may still count behind the fold's position. Once it cannot, it never can.
    #[must_use]
    pub fn may_count(&self, fold: &Fold) -> bool {
        let is_known = fold.session(self.message.session).is_some();
        !is_known && fold.count().0.saturating_sub(self.base.0) < fold.settings().keys_remembered
    }

    /// The names of the objects of a body of this length.
    #[must_use]
    pub fn parts(&self, shard: &ShardId, length: u64) -> Vec<String> {
        let parts = length.div_ceil(PART_BYTES as u64).max(1);
        (0..parts).map(|part| format!("{}{}-{}/{part:04}", body_prefix(shard), self.message, self.base.0)).collect()
    }
}

/// The bodies of one shard.
#[derive(Clone)]
pub struct Bodies {
    /// Where.
    pub store: Arc<dyn CheckpointStore>,
    /// Whose.
    pub shard: ShardId,
    /// Time, and where to hash.
    pub shell: Shell,
}

impl Bodies {
    /// Puts a body durably, and gives its hash; waits for a store that is away or full, and tells `trouble` why.
    ///
    /// # Errors
    /// The store never takes it.
    pub async fn put(&self, name: BodyName, body: Bytes, trouble: impl Fn(&StoreError)) -> Result<Hash, StoreError> {
        let hashed = body.clone();
        let hash = self.shell.blocking(move || Hash::of(&hashed)).await;
        let names = name.parts(&self.shard, body.len() as u64);
        let trouble = &trouble;
        let part = |(index, object): (usize, String)| {
            let from = index * PART_BYTES;
            let bytes = body.slice(from..body.len().min(from + PART_BYTES));
            self.patiently(trouble, move || self.store.put(object.clone(), bytes.clone()))
        };
        let mut puts = stream::iter(names.into_iter().enumerate().map(part)).buffered(PARTS_AT_ONCE);
        while let Some(put) = puts.next().await {
            put?;
        }
        Ok(hash)
    }

    /// Whether the store is the one that the shard's replicas use, as far as can be seen: there is a checkpoint in it.
    pub async fn is_the_shards(&self, trouble: impl Fn(&StoreError)) -> Result<bool, StoreError> {
        let prefix = manifest_prefix(&self.shard);
        Ok(!self.patiently(&trouble, || self.store.list(prefix.clone())).await?.is_empty())
    }

    /// Fetches a body and verifies it; waits for a store that is away.
    ///
    /// # Errors
    /// It is not there, or not what the record says.
    pub async fn fetch(&self, name: BodyName, hash: Hash, length: u64) -> Result<Bytes, BodyError> {
        if length > BODY_LIMIT_MAX_BYTES {
            return Err(BodyError(format!("{length} bytes are more than a body may have ({BODY_LIMIT_MAX_BYTES})")));
        }
        let tell = |error: &StoreError| tracing::warn!(shard = %self.shard, %error, "fetching a request's body again");
        let tell = &tell;
        let part = |object: String| self.patiently(tell, move || self.store.get(object.clone()));
        let mut parts = stream::iter(name.parts(&self.shard, length).into_iter().map(part)).buffered(PARTS_AT_ONCE);
        let mut whole = BytesMut::new();
        let mut only = None;
        while let Some(part) = parts.next().await {
            let part = part.map_err(|error| BodyError(error.to_string()))?;
            if part.len() as u64 == length {
                only = Some(part);
            } else {
                whole.extend_from_slice(&part);
            }
        }
        // What is of one part is not copied.
        let body = only.unwrap_or_else(|| whole.freeze());
        let hashed = body.clone();
        let found = self.shell.blocking(move || Hash::of(&hashed)).await;
        if found == hash && body.len() as u64 == length {
            return Ok(body);
        }
        let got = body.len();
        Err(BodyError(format!("{got} bytes with the hash {found} instead of {length} with {hash}")))
    }

    /// Removes objects; what is left over is found again by the next one who lists.
    pub async fn remove(&self, objects: Vec<String>) {
        for object in objects {
            if let Err(error) = self.store.delete(object.clone()).await {
                tracing::debug!(shard = %self.shard, object, %error, "a body stays in the store until the next cleaning");
            }
            self.shell.sleep(REST).await;
        }
    }

    /// Asks again until the store takes the call or never will.
    async fn patiently<T, F>(&self, trouble: &impl Fn(&StoreError), call: impl Fn() -> F) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut wait = RETRY_FIRST;
        loop {
            match call().await {
                Err(error) if error.is_retryable() => {
                    trouble(&error);
                    self.shell.sleep(wait).await;
                    wait = (2 * wait).min(RETRY_MAX);
                }
                result => return result,
            }
        }
    }
}

#[cfg(test)]
mod tests;
