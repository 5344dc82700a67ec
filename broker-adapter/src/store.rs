//! The second face of a broker: a store of immutable named objects, for checkpoints and large bodies.
//!
//! Names are paths of lower-case segments (`chunk/<hash>`, `manifest/<service>.<shard>/<position>-<hash>`); what they mean is
//! the sidecar's business. The contract, tested by the conformance suite: what `put` acknowledged is durable and `get` gives
//! exactly those bytes or an error, never fewer; putting the same name again with the same bytes changes nothing.

use bytes::Bytes;
use futures_util::future::BoxFuture;

/// The largest object that every adapter takes.
pub const OBJECT_LIMIT_BYTES: usize = 8 << 20;

/// Chunks and manifests of checkpoints.
pub trait CheckpointStore: Send + Sync + 'static {
    /// Stores an object durably.
    fn put(&self, name: String, bytes: Bytes) -> BoxFuture<'static, Result<(), StoreError>>;
    /// Gives an object whole.
    fn get(&self, name: String) -> BoxFuture<'static, Result<Bytes, StoreError>>;
    /// The names that begin with `prefix`, in order.
    fn list(&self, prefix: String) -> BoxFuture<'static, Result<Vec<String>, StoreError>>;
    /// Removes an object; succeeds if there is none.
    fn delete(&self, name: String) -> BoxFuture<'static, Result<(), StoreError>>;
}

/// Why the store did not do what was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, serde::Serialize, serde::Deserialize)]
pub enum StoreError {
    /// There is no such object.
    #[error("there is no object {0:?} in the checkpoint store")]
    Missing(String),
    /// What is stored is not what was put.
    #[error("the object {name:?} in the checkpoint store is damaged: {reason}")]
    Damaged {
        /// Which one.
        name: String,
        /// What is wrong.
        reason: String,
    },
    /// No such name is possible.
    #[error("{0:?} is no name for an object: use segments of a-z, 0-9, '-', '_', '.' divided by '/'")]
    BadName(String),
    /// The object is larger than [`OBJECT_LIMIT_BYTES`].
    #[error("an object of {0} bytes is above the limit of 8 MiB")]
    TooLarge(u64),
    /// No room is left.
    #[error("the checkpoint store is full: {0}")]
    Full(String),
    /// The store cannot be reached.
    #[error("the checkpoint store cannot be reached: {0}")]
    Unreachable(String),
}

impl StoreError {
    /// Whether the same call may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, StoreError::Unreachable(_) | StoreError::Full(_))
    }
}
