//! The second face on Kafka: objects in two compacted topics, parts in one, their names in the other.
//!
//! ```text
//! PREFIX.parts   upload/0  upload/1  other/0 …      the bytes, in parts below the message limit; gone by tombstones
//! PREFIX.names   chunk/ab → {offsets, length, hash}     the last one of each name holds; a tombstone removes it
//! ```
//! A put is acknowledged when its parts and then its name are acknowledged by all replicas in sync (`acks=all`). Every question
//! first reads the names up to their end, as the leader tells it, so what one process stored every other finds. Compaction keeps
//! offsets, so parts are read where the name says, and the whole is compared with the hash. Parts of a process that died before
//! it wrote the name stay: nobody knows them.

mod fetch;
mod index;
mod sender;

use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, try_join_all};
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use crate::embedded::objects::check_name;
use crate::shell::Shell;
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

use super::client::Target;
use super::topics::{FRAME_BYTES, TopicError, Topics, Wanted};

use fetch::Fetchers;
use index::Index;
use sender::Sender;

/// Puts and gets on their way at a time; others wait.
const WORKING_LIMIT: usize = 8;
/// One question, from its beginning to its end; tried again within.
const QUESTION_LIMIT: Duration = Duration::from_secs(30);
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// How long a broker that is away is waited for.
const RETRY_LIMIT: Duration = Duration::from_secs(10);

/// What a name stands for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stored {
    /// Names the parts' keys.
    upload: u128,
    /// Where the parts are.
    offsets: Vec<i64>,
    bytes: u64,
    #[serde(with = "serde_bytes")]
    hash: [u8; 32],
}

/// The store's face.
pub struct KafkaObjects {
    inner: Arc<Inner>,
}

struct Inner {
    shell: Shell,
    part_limit_bytes: usize,
    sender: Sender,
    names: String,
    parts: String,
    index: Index,
    fetchers: Fetchers,
    places: Semaphore,
}

impl KafkaObjects {
    pub async fn open(target: &Target, topics: &Arc<Topics>, shell: &Shell) -> Result<KafkaObjects, TopicError> {
        let (names, parts) = (format!("{}.names", target.prefix), format!("{}.parts", target.prefix));
        let limit = topics.ensure(&Wanted::kept(names.clone(), target)).await?;
        topics.ensure(&Wanted::kept(parts.clone(), target)).await?;
        let limit_bytes = limit.message_limit_bytes;
        let inner = Inner {
            shell: shell.clone(),
            part_limit_bytes: limit_bytes - FRAME_BYTES,
            sender: Sender::new(target, limit_bytes),
            index: Index::new(target, names.clone(), shell),
            fetchers: Fetchers::new(target, parts.clone()),
            names,
            parts,
            places: Semaphore::new(WORKING_LIMIT),
        };
        Ok(KafkaObjects { inner: Arc::new(inner) })
    }

    /// Runs an attempt again while the cluster cannot be reached; all may run twice.
    fn patiently<T: Send + 'static, F: Future<Output = Result<T, StoreError>> + Send>(
        &self,
        attempt: impl Fn(Arc<Inner>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>> {
        let inner = self.inner.clone();
        async move {
            let _place = inner.places.acquire().await.expect("the semaphore is never closed");
            let until = inner.shell.now() + RETRY_LIMIT;
            loop {
                let late = || Err(StoreError::Unreachable("no answer in time".to_owned()));
                let result = inner.shell.within(QUESTION_LIMIT, attempt(inner.clone())).await.unwrap_or_else(late);
                match result {
                    Err(StoreError::Unreachable(_)) if inner.shell.now() < until => {}
                    result => return result,
                }
                inner.shell.sleep(RETRY_WAIT).await;
            }
        }
        .boxed()
    }
}

impl Inner {
    async fn put(&self, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let hash = *blake3::hash(bytes).as_bytes();
        let before = self.find(name).await?;
        // What was damaged since is put again.
        if before.as_ref().is_some_and(|known| known.hash == hash && known.bytes == bytes.len() as u64)
            && self.get(name).await.is_ok()
        {
            return Ok(());
        }
        let upload = self.shell.random().0;
        // An object without bytes has one empty part.
        let count = bytes.len().div_ceil(self.part_limit_bytes).max(1);
        let parts = (0..count).map(|at| {
            let from = at * self.part_limit_bytes;
            let part = bytes.slice(from..(from + self.part_limit_bytes).min(bytes.len()));
            self.sender.send(&self.parts, part_key(upload, at), Some(part))
        });
        let offsets = try_join_all(parts.collect::<Vec<_>>()).await.map_err(StoreError::Unreachable)?;
        let stored = Stored { upload, offsets, bytes: bytes.len() as u64, hash };
        let value = rmp_serde::to_vec_named(&stored).expect("it can be written to memory");
        self.sender
            .send(&self.names, name.as_bytes().to_vec(), Some(value.into()))
            .await
            .map_err(StoreError::Unreachable)?;
        match before {
            Some(before) => self.forget(&before).await,
            None => Ok(()),
        }
    }

    async fn get(&self, name: &str) -> Result<Bytes, StoreError> {
        let stored = self.find(name).await?.ok_or_else(|| StoreError::Missing(name.to_owned()))?;
        let parts = self.fetchers.fetch(stored.offsets.clone()).await.map_err(StoreError::Unreachable)?;
        let mut bytes = BytesMut::new();
        for part in parts {
            let Some(part) = part else {
                // Deleted between the two, or lost.
                return match self.find(name).await? {
                    Some(again) if again == stored => Err(damaged(name, "a part of it is not there")),
                    Some(_) => Err(StoreError::Unreachable("it was put anew meanwhile".to_owned())),
                    None => Err(StoreError::Missing(name.to_owned())),
                };
            };
            bytes.extend_from_slice(&part);
        }
        let bytes = bytes.freeze();
        match *blake3::hash(&bytes).as_bytes() == stored.hash {
            true => Ok(bytes),
            false => Err(damaged(name, "its bytes do not have the hash they were put with")),
        }
    }

    async fn delete(&self, name: &str) -> Result<(), StoreError> {
        let Some(stored) = self.find(name).await? else { return Ok(()) };
        self.sender.send(&self.names, name.as_bytes().to_vec(), None).await.map_err(StoreError::Unreachable)?;
        self.forget(&stored).await
    }

    /// Gives the parts' room back, when the cluster compacts.
    async fn forget(&self, stored: &Stored) -> Result<(), StoreError> {
        let gone = (0..stored.offsets.len()).map(|at| self.sender.send(&self.parts, part_key(stored.upload, at), None));
        try_join_all(gone.collect::<Vec<_>>()).await.map(drop).map_err(StoreError::Unreachable)
    }

    async fn find(&self, name: &str) -> Result<Option<Stored>, StoreError> {
        self.index.refresh(&self.sender).await.map_err(StoreError::Unreachable)?;
        Ok(self.index.find(name))
    }
}

fn part_key(upload: u128, at: usize) -> Vec<u8> {
    format!("{upload:032x}/{at}").into_bytes()
}

fn damaged(name: &str, reason: &str) -> StoreError {
    StoreError::Damaged { name: name.to_owned(), reason: reason.to_owned() }
}

impl CheckpointStore for KafkaObjects {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = check_name(&name) {
            return futures_util::future::ready(Err(error)).boxed();
        }
        if bytes.len() > OBJECT_LIMIT_BYTES {
            return futures_util::future::ready(Err(StoreError::TooLarge(bytes.len() as u64))).boxed();
        }
        self.patiently(move |inner| {
            let (name, bytes) = (name.clone(), bytes.clone());
            async move { inner.put(&name, &bytes).await }
        })
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        if let Err(error) = check_name(&name) {
            return futures_util::future::ready(Err(error)).boxed();
        }
        self.patiently(move |inner| {
            let name = name.clone();
            async move { inner.get(&name).await }
        })
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        self.patiently(move |inner| {
            let prefix = prefix.clone();
            async move {
                inner.index.refresh(&inner.sender).await.map_err(StoreError::Unreachable)?;
                Ok(inner.index.list(&prefix))
            }
        })
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = check_name(&name) {
            return futures_util::future::ready(Err(error)).boxed();
        }
        self.patiently(move |inner| {
            let name = name.clone();
            async move { inner.delete(&name).await }
        })
    }
}
