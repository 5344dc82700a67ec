//! The second face: objects in the JetStream object store `segue`, as `nats object` shows them.
//!
//! ```text
//! $O.segue.C.ID         the object's bytes, in messages of at most 512 KiB
//! $O.segue.M.BASE64     its name, size, SHA-256, and at which sequence numbers its bytes stand
//! ```
//! A put acknowledges when the last of these is acknowledged, the second one behind the first ones; a get takes the bytes by their
//! sequence numbers and verifies size and digest. The ID is a hash of name and content: a put that was broken off leaves its bytes
//! where a delete behind the same put finds them again.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use async_nats::{HeaderMap, Request};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE};
use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture, try_join_all};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::broker::ConnectError;
use crate::embedded::objects::check_name;
use crate::ids::Hash;
use crate::log::AppendError;
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

use super::api::{self, ApiError};
use super::appends::outcome;
use super::lanes::Outcome;
use super::link::{Line, Lines, Link};
use super::settings::{self, Kind, Wanted};

/// Bytes in one message, where the server takes as many.
const PART_LIMIT_BYTES: usize = 512 << 10;
/// Requests on their way at a time; others wait.
const AT_ONCE: usize = 8;
/// How long one message of an object may take.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How often it is tried.
const TRIES: u32 = 4;
const RETRY_WAIT: Duration = Duration::from_millis(200);

/// The checkpoint store on NATS.
pub struct NatsStore {
    inner: Inner,
}

#[derive(Clone)]
struct Inner {
    link: Link,
    bucket: Arc<str>,
    places: Arc<Semaphore>,
}

/// What stands about an object under its name.
#[derive(Deserialize)]
struct About {
    nuid: String,
    #[serde(default)]
    size: usize,
    #[serde(default)]
    digest: String,
    #[serde(default)]
    deleted: bool,
    #[serde(default)]
    metadata: Places,
}

#[derive(Default, Deserialize)]
struct Places {
    #[serde(default, rename = "segue-sequences")]
    sequences: String,
}

impl NatsStore {
    /// Opens or makes the bucket.
    pub async fn open(link: Link) -> Result<NatsStore, ConnectError> {
        let bucket: Arc<str> = link.names().bucket().into();
        let subjects = vec![format!("$O.{bucket}.C.>"), format!("$O.{bucket}.M.>")];
        settings::open(&link, &Wanted { kind: Kind::Store, name: format!("OBJ_{bucket}"), subjects }).await?;
        Ok(NatsStore { inner: Inner { link, bucket, places: Arc::new(Semaphore::new(AT_ONCE)) } })
    }

    fn run<T, F>(
        &self,
        work: impl FnOnce(Inner, Arc<Lines>) -> F + Send + 'static,
    ) -> BoxFuture<'static, Result<T, StoreError>>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, StoreError>> + Send + 'static,
    {
        let inner = self.inner.clone();
        async move {
            let _place = inner.places.clone().acquire_owned().await.expect("the semaphore is never closed");
            let lines =
                inner.link.lines().ok_or_else(|| StoreError::Unreachable("the process has ended".to_owned()))?;
            work(inner, lines).await
        }
        .boxed()
    }
}

fn digest(bytes: &[u8]) -> String {
    format!("SHA-256={}", URL_SAFE.encode(ring::digest::digest(&ring::digest::SHA256, bytes)))
}

fn unreachable(error: &ApiError) -> StoreError {
    StoreError::Unreachable(error.reason())
}

impl Inner {
    fn stream(&self) -> String {
        format!("OBJ_{}", self.bucket)
    }

    fn about_subject(&self, name: &str) -> String {
        format!("$O.{}.M.{}", self.bucket, URL_SAFE.encode(name))
    }

    fn bytes_subject(&self, id: &str) -> String {
        format!("$O.{}.C.{id}", self.bucket)
    }

    async fn put(&self, line: &Line, name: &str, bytes: &Bytes) -> Result<(), StoreError> {
        let digest = digest(bytes);
        let before = self.about(line, name).await?;
        if before.as_ref().is_some_and(|before| before.digest == digest && before.size == bytes.len())
            && self.get(line, name).await.is_ok_and(|known| known == *bytes)
        {
            return Ok(());
        }
        let id: String =
            Hash::of(&[name.as_bytes(), &[0], digest.as_bytes()].concat()).to_string().chars().take(32).collect();
        let room = line.client.max_payload().clamp(1, PART_LIMIT_BYTES);
        let parts = (0..bytes.len()).step_by(room).map(|at| bytes.slice(at..(at + room).min(bytes.len())));
        let stored = parts.map(|part| self.publish(line, self.bytes_subject(&id), HeaderMap::new(), part));
        let sequences: Vec<String> = try_join_all(stored).await?.iter().map(u64::to_string).collect();
        let about = json!({
            "name": name,
            "bucket": &*self.bucket,
            "nuid": id,
            "size": bytes.len(),
            "mtime": "0001-01-01T00:00:00Z",
            "chunks": sequences.len(),
            "digest": digest,
            "options": { "max_chunk_size": room },
            "metadata": { "segue-sequences": sequences.join(",") },
        });
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Rollup", "sub");
        self.publish(line, self.about_subject(name), headers, about.to_string().into()).await?;
        match before {
            Some(before) if before.nuid != id => self.purge(line, &self.bytes_subject(&before.nuid)).await,
            _ => Ok(()),
        }
    }

    async fn get(&self, line: &Line, name: &str) -> Result<Bytes, StoreError> {
        let missing = || StoreError::Missing(name.to_owned());
        let about = self.about(line, name).await?.filter(|about| !about.deleted).ok_or_else(missing)?;
        let damaged = |reason: String| StoreError::Damaged { name: name.to_owned(), reason };
        let sequences: Result<Vec<u64>, _> =
            about.metadata.sequences.split(',').filter(|text| !text.is_empty()).map(str::parse).collect();
        let sequences = sequences.map_err(|_| damaged("it does not say where its bytes stand".to_owned()))?;
        let subject = self.bytes_subject(&about.nuid);
        let parts = try_join_all(sequences.iter().map(|sequence| self.part(line, *sequence, &subject))).await?;
        let parts: Option<Vec<Bytes>> = parts.into_iter().collect();
        let parts = parts.ok_or_else(|| damaged("a part of its bytes is missing".to_owned()))?;
        let bytes = match <[Bytes; 1]>::try_from(parts) {
            Ok([whole]) => whole,
            Err(parts) => parts.concat().into(),
        };
        if bytes.len() != about.size || digest(&bytes) != about.digest {
            return Err(damaged(format!("its {} bytes do not have its digest", bytes.len())));
        }
        Ok(bytes)
    }

    async fn list(&self, line: &Line, prefix: &str) -> Result<Vec<String>, StoreError> {
        let call = format!("STREAM.INFO.{}", self.stream());
        let begin = self.about_subject("");
        let mut names = BTreeSet::new();
        let mut offset = 0;
        loop {
            let body = json!({ "subjects_filter": format!("{begin}>"), "offset": offset });
            let answer =
                api::ask_patiently(line, self.link.shell(), &call, &body).await.map_err(|error| unreachable(&error))?;
            let Some(subjects) = answer["state"]["subjects"].as_object() else { break };
            for subject in subjects.keys() {
                let encoded = subject.strip_prefix(&begin).unwrap_or_default();
                let name = URL_SAFE.decode(encoded).ok().and_then(|name| String::from_utf8(name).ok());
                names.extend(name.filter(|name| name.starts_with(prefix)));
            }
            offset += subjects.len() as u64;
            if subjects.is_empty() || offset >= answer["total"].as_u64().unwrap_or_default() {
                break;
            }
        }
        Ok(names.into_iter().collect())
    }

    async fn delete(&self, line: &Line, name: &str) -> Result<(), StoreError> {
        let Some(about) = self.about(line, name).await? else { return Ok(()) };
        self.purge(line, &self.about_subject(name)).await?;
        self.purge(line, &self.bytes_subject(&about.nuid)).await
    }

    async fn purge(&self, line: &Line, subject: &str) -> Result<(), StoreError> {
        api::purge_subject(line, self.link.shell(), &self.stream(), subject).await.map_err(|error| unreachable(&error))
    }

    /// By the leader's word.
    async fn about(&self, line: &Line, name: &str) -> Result<Option<About>, StoreError> {
        let body = json!({ "last_by_subj": self.about_subject(name) });
        let Some(bytes) = self.message(line, &body).await? else { return Ok(None) };
        let damaged =
            |error: serde_json::Error| StoreError::Damaged { name: name.to_owned(), reason: error.to_string() };
        serde_json::from_slice(&bytes).map(Some).map_err(damaged)
    }

    /// A part by its sequence number: from any server that has it, else from the leader.
    async fn part(&self, line: &Line, sequence: u64, subject: &str) -> Result<Option<Bytes>, StoreError> {
        let body = json!({ "seq": sequence });
        let call = format!("$JS.API.DIRECT.GET.{}", self.stream());
        let asked = line.client.request(call, body.to_string().into());
        if let Some(Ok(message)) = self.link.shell().within(ANSWER_LIMIT, asked).await
            && message.status.is_none()
            && message
                .headers
                .as_ref()
                .and_then(|headers| headers.get("Nats-Subject"))
                .is_some_and(|at| at.as_str() == subject)
        {
            return Ok(Some(message.payload));
        }
        self.message(line, &body).await
    }

    async fn message(&self, line: &Line, body: &Value) -> Result<Option<Bytes>, StoreError> {
        let call = format!("STREAM.MSG.GET.{}", self.stream());
        match api::ask_patiently(line, self.link.shell(), &call, body).await {
            Ok(answer) => {
                let data = answer["message"]["data"].as_str().unwrap_or_default();
                let unreadable = |_| StoreError::Unreachable("JetStream's answer cannot be read".to_owned());
                STANDARD.decode(data).map(|bytes| Some(bytes.into())).map_err(unreadable)
            }
            Err(error) if error.is(api::NO_MESSAGE_FOUND) => Ok(None),
            Err(error) => Err(unreachable(&error)),
        }
    }

    /// Stores one message durably; it may stand there twice, which harms nobody.
    async fn publish(&self, line: &Line, subject: String, headers: HeaderMap, bytes: Bytes) -> Result<u64, StoreError> {
        let shell = self.link.shell();
        let mut tries = 0;
        loop {
            let mut request = Request::new().payload(bytes.clone());
            if !headers.is_empty() {
                request = request.headers(headers.clone());
            }
            // Nothing is handed over while there is no connection: it would wait in memory.
            let asked = async {
                line.connected(shell, ANSWER_LIMIT).await.ok()?;
                Some(line.client.send_request(subject.clone(), request).await)
            };
            let reason = match shell.within(ANSWER_LIMIT, asked).await.flatten() {
                None => format!("no acknowledgement within {ANSWER_LIMIT:?}"),
                Some(Err(error)) => error.to_string(),
                Some(Ok(message)) => match outcome(&message) {
                    Outcome::Stored(sequence) => return Ok(sequence),
                    Outcome::Refused(AppendError::Full(reason)) => return Err(StoreError::Full(reason)),
                    Outcome::Refused(error) => error.to_string(),
                    Outcome::Doubtful(reason) => reason,
                },
            };
            tries += 1;
            if tries == TRIES {
                return Err(StoreError::Unreachable(reason));
            }
            shell.sleep(RETRY_WAIT).await;
        }
    }
}

impl CheckpointStore for NatsStore {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = check_name(&name) {
            return future::ready(Err(error)).boxed();
        }
        if bytes.len() > OBJECT_LIMIT_BYTES {
            return future::ready(Err(StoreError::TooLarge(bytes.len() as u64))).boxed();
        }
        self.run(move |inner, lines| async move { inner.put(&lines.store, &name, &bytes).await })
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        if let Err(error) = check_name(&name) {
            return future::ready(Err(error)).boxed();
        }
        self.run(move |inner, lines| async move { inner.get(&lines.store, &name).await })
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        self.run(move |inner, lines| async move { inner.list(&lines.store, &prefix).await })
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        if let Err(error) = check_name(&name) {
            return future::ready(Err(error)).boxed();
        }
        self.run(move |inner, lines| async move { inner.delete(&lines.store, &name).await })
    }
}
