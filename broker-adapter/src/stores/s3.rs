//! `s3://BUCKET/PREFIX`: one object per object, its BLAKE3 hash in front, as in the embedded broker's files.
//!
//! A PUT that was answered 200 is durable: S3 says so, and of another server that speaks its protocol its operator must know it.
//! Credentials, region and endpoint come from the usual `AWS_*` variables. What a server answers is cut down to its code before it
//! is told, because such answers may repeat keys and tokens.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{self, BoxFuture};
use futures_util::{FutureExt, StreamExt, TryStreamExt};
use object_store::aws::AmazonS3Builder;
use object_store::path::Path;
use object_store::{ClientOptions, Error, ObjectStore, ObjectStoreExt, PutPayload, RetryConfig};

use crate::embedded::objects::check_name;
use crate::ids::Hash;
use crate::store::{CheckpointStore, OBJECT_LIMIT_BYTES, StoreError};

const HASH_BYTES: usize = 32;
/// One request, from its sending to the last byte of its answer: 8 MiB on a slow line.
const REQUEST_LIMIT: Duration = Duration::from_secs(30);
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// How often and for how long a request is sent again; whoever asks the store tries again, too.
const RETRIES: usize = 3;
const RETRY_LIMIT: Duration = Duration::from_secs(10);

/// The objects in one bucket whose names begin with one prefix.
#[derive(Clone)]
pub struct BucketStore {
    inner: Arc<dyn ObjectStore>,
    prefix: Path,
}

impl BucketStore {
    /// Connects with what the variables say, and looks whether the bucket can be listed.
    ///
    /// # Errors
    /// What is wrong, and what to do.
    pub async fn connect(bucket: &str, prefix: &str, variables: Vec<(String, String)>) -> Result<BucketStore, String> {
        // Whoever was first has set the same one: there is no other in this program.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let mut builder = AmazonS3Builder::new();
        let mut allow_http = false;
        for (key, value) in variables.into_iter().filter(|(key, _)| key.starts_with("AWS_")) {
            // Who names an endpoint without TLS means it.
            allow_http |= key.starts_with("AWS_ENDPOINT") && value.starts_with("http://");
            if let Ok(known) = key.to_ascii_lowercase().parse() {
                builder = builder.with_config(known, value);
            }
        }
        let client = ClientOptions::new().with_timeout(REQUEST_LIMIT).with_connect_timeout(CONNECT_LIMIT);
        let retry = RetryConfig { max_retries: RETRIES, retry_timeout: RETRY_LIMIT, ..RetryConfig::default() };
        let builder = builder.with_bucket_name(bucket).with_retry(retry);
        let built = builder.with_client_options(client.with_allow_http(allow_http)).build();
        let store = BucketStore::on(Arc::new(built.map_err(|error| said(&error))?), prefix)?;
        match store.inner.list(Some(&store.prefix)).next().await {
            Some(Err(error)) => Err(said(&error)),
            _ => Ok(store),
        }
    }

    /// On any store of the crate.
    fn on(inner: Arc<dyn ObjectStore>, prefix: &str) -> Result<BucketStore, String> {
        let prefix = Path::parse(prefix).map_err(|error| error.to_string())?;
        Ok(BucketStore { inner, prefix })
    }

    fn path(&self, name: &str) -> Result<Path, StoreError> {
        check_name(name)?;
        let path = if self.prefix.as_ref().is_empty() { name.to_owned() } else { format!("{}/{name}", self.prefix) };
        Path::parse(path).map_err(|_| StoreError::BadName(name.to_owned()))
    }

    async fn put_object(self, name: String, bytes: Bytes) -> Result<(), StoreError> {
        let path = self.path(&name)?;
        let hash = Bytes::copy_from_slice(&Hash::of(&bytes).0);
        let payload: PutPayload = [hash, bytes].into_iter().collect();
        self.inner.put(&path, payload).await.map(drop).map_err(|error| failed(&name, &error))
    }

    async fn get_object(self, name: String) -> Result<Bytes, StoreError> {
        let path = self.path(&name)?;
        let damaged = |reason: &str| StoreError::Damaged { name: name.clone(), reason: reason.to_owned() };
        let answer = self.inner.get(&path).await.map_err(|error| failed(&name, &error))?;
        if answer.meta.size > (HASH_BYTES + OBJECT_LIMIT_BYTES) as u64 {
            return Err(damaged("it is larger than any object"));
        }
        let mut bytes = answer.bytes().await.map_err(|error| failed(&name, &error))?;
        if bytes.len() < HASH_BYTES {
            return Err(damaged("it is shorter than its hash"));
        }
        let hash = bytes.split_to(HASH_BYTES);
        if Hash::of(&bytes).0[..] == hash[..] { Ok(bytes) } else { Err(damaged("its bytes do not have its hash")) }
    }

    /// The crate lists whole folders only.
    async fn list_names(self, prefix: String) -> Result<Vec<String>, StoreError> {
        let folder = prefix.rsplit_once('/').map_or("", |(folder, _)| folder);
        let folder = if folder.is_empty() { self.prefix.clone() } else { self.path(folder)? };
        let ours = self.prefix.as_ref();
        let mut objects = self.inner.list(Some(&folder));
        let mut names = Vec::new();
        while let Some(object) = objects.try_next().await.map_err(|error| failed(&prefix, &error))? {
            let name = object.location.as_ref();
            let name = if ours.is_empty() {
                Some(name)
            } else {
                name.strip_prefix(ours).and_then(|name| name.strip_prefix('/'))
            };
            names.extend(name.filter(|name| name.starts_with(&prefix)).map(str::to_owned));
        }
        names.sort();
        Ok(names)
    }

    async fn delete_object(self, name: String) -> Result<(), StoreError> {
        let path = self.path(&name)?;
        match self.inner.delete(&path).await.map_err(|error| failed(&name, &error)) {
            Err(StoreError::Missing(_)) => Ok(()),
            result => result,
        }
    }
}

impl CheckpointStore for BucketStore {
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>> {
        if bytes.len() > OBJECT_LIMIT_BYTES {
            return future::ready(Err(StoreError::TooLarge(bytes.len() as u64))).boxed();
        }
        self.clone().put_object(name, bytes).boxed()
    }

    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>> {
        self.clone().get_object(name).boxed()
    }

    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>> {
        self.clone().list_names(prefix).boxed()
    }

    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>> {
        self.clone().delete_object(name).boxed()
    }
}

/// A bucket that is gone is no missing object: what was there may come back.
fn failed(name: &str, error: &Error) -> StoreError {
    let text = error.to_string();
    match error {
        Error::NotFound { .. } if !text.contains("NoSuchBucket") => StoreError::Missing(name.to_owned()),
        _ if text.contains(": 507 ") || text.contains("QuotaExceeded") || text.contains("StorageFull") => {
            StoreError::Full(said(error))
        }
        _ => StoreError::Unreachable(said(error)),
    }
}

/// An error without the body of the server's answer: of that only the code.
fn said(error: &Error) -> String {
    let text = error.to_string();
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map(|(code, _)| code);
    let advice = match (error, code) {
        (_, Some("NoSuchBucket")) => "; make the bucket first, and use the same one on every node",
        (Error::PermissionDenied { .. } | Error::Unauthenticated { .. }, _) => {
            "; check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN, and what they may do: list, get, put, delete"
        }
        _ => "",
    };
    // An answer's body begins behind its status, or behind these words.
    let plain = text.split_once("error response: ").map_or(text.as_str(), |(before, _)| before);
    let plain = match plain.split_once("status code: ") {
        Some((_, rest)) => rest.split(": ").next().unwrap_or_default(),
        None => plain,
    };
    let code = code.map(|code| format!("{code}, ")).unwrap_or_default();
    format!("{code}{}{advice}", plain.trim())
}

#[cfg(test)]
mod tests;
