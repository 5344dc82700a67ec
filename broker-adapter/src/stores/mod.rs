//! Checkpoint stores beside the broker's own: `checkpoints = "file:///PATH"` and, with the feature `s3`, `"s3://BUCKET/PREFIX"`.
//!
//! A folder is kept by the embedded broker's [`ObjectFiles`], not by the crate `object_store`: that one's local files are named
//! so that `a` and `a/b` cannot both exist, carry no hash, and leave new folders unsynced. Buckets go through that crate. What
//! asks a [`Broker`] for its store need not know: [`CheckpointsAt::open`] gives a broker whose store is elsewhere.

mod place;
#[cfg(feature = "s3")]
pub mod s3;

use std::sync::Arc;

use futures_util::future::BoxFuture;

pub use place::{CheckpointsAt, PlaceError};

use crate::broker::{Broker, ConnectError};
use crate::embedded::objects::ObjectFiles;
use crate::log::MessageLog;
use crate::mailbox::Mailbox;
use crate::shell::Shell;
use crate::store::CheckpointStore;

/// Why there is no checkpoint store.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the checkpoint store {place} (key checkpoints) cannot be opened: {reason}")]
pub struct OpenError {
    /// What was asked for.
    pub place: CheckpointsAt,
    /// What is wrong, and what to do.
    pub reason: String,
}

impl CheckpointsAt {
    /// The broker with the checkpoint store that is there.
    ///
    /// # Errors
    /// [`OpenError`] names the place.
    pub async fn open(&self, broker: Arc<dyn Broker>, shell: &Shell) -> Result<Arc<dyn Broker>, OpenError> {
        let failed = |reason: String| OpenError { place: self.clone(), reason };
        let store: Arc<dyn CheckpointStore> = match self {
            CheckpointsAt::Broker => return Ok(broker),
            CheckpointsAt::Folder(path) => {
                let (path, inner) = (path.clone(), shell.clone());
                let opened = shell.blocking(move || ObjectFiles::open_shared(&path, inner)).await;
                Arc::new(opened.map_err(|error| {
                    failed(format!(
                        "{error}; it must be a folder that this process may write, and the same one on every node: make it first"
                    ))
                })?)
            }
            #[cfg(feature = "s3")]
            CheckpointsAt::Bucket { bucket, prefix } => {
                let variables =
                    std::env::vars_os().filter_map(|(key, value)| key.into_string().ok().zip(value.into_string().ok()));
                Arc::new(s3::BucketStore::connect(bucket, prefix, variables.collect()).await.map_err(failed)?)
            }
            #[cfg(not(feature = "s3"))]
            CheckpointsAt::Bucket { .. } => return Err(failed(PlaceError::NotBuiltIn.to_string())),
        };
        Ok(Arc::new(Elsewhere { broker, store, place: self.clone() }))
    }
}

/// A broker whose checkpoint store is not its own.
struct Elsewhere {
    broker: Arc<dyn Broker>,
    store: Arc<dyn CheckpointStore>,
    place: CheckpointsAt,
}

impl Broker for Elsewhere {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
        self.broker.log(name)
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        self.store.clone()
    }

    fn mailbox(&self) -> Arc<dyn Mailbox> {
        self.broker.mailbox()
    }

    fn url(&self) -> String {
        format!("{}, checkpoints at {}", self.broker.url(), self.place)
    }
}
