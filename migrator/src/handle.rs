//! What the rest of the process asks of a running migrator: the one inbox behind a cloneable handle.
//!
//! REST is built on it, and the simulation uses it as it is.

use std::sync::{Arc, OnceLock};

use broker_adapter::ids::{MigrationId, NodeName, ServiceName, ShardName};
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use crate::driver::Inbox;
use crate::view::{MigrationView, NodeView, ServiceView, Status};

/// Reaches a running migrator.
#[derive(Clone)]
pub struct MigratorHandle {
    pub(crate) inbox: mpsc::Sender<Inbox>,
    pub(crate) store: Arc<dyn CheckpointStore>,
    pub(crate) why_stopped: Arc<OnceLock<String>>,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NewMigration {
    /// What is to move.
    pub service: ServiceName,
    /// Which part of it; `0` if not given.
    #[serde(default)]
    pub shard: Option<ShardName>,
    /// Where to.
    pub to: NodeName,
    /// Why, for people.
    #[serde(default)]
    pub reason: Option<String>,
    /// `live` if not given.
    #[serde(default)]
    pub strategy: Option<String>,
    /// How long the source may be paused, if not as configured.
    #[serde(default)]
    pub pause_limit_ms: Option<u64>,
    /// `ms2m`: how long the replay may take before the source is stopped; without end if not given.
    #[serde(default)]
    pub cutoff_ms: Option<u64>,
    /// How long the source stays a standby, if not as configured.
    #[serde(default)]
    pub keep_standby_s: Option<u64>,
    /// Whether it may complete although nothing proves that source and target are equal.
    #[serde(default)]
    pub allow_unproven: bool,
}

impl NewMigration {
    /// A `live` migration as configured.
    #[must_use]
    pub fn new(service: ServiceName, to: NodeName) -> NewMigration {
        NewMigration {
            service,
            shard: None,
            to,
            reason: None,
            strategy: None,
            pause_limit_ms: None,
            cutoff_ms: None,
            keep_standby_s: None,
            allow_unproven: false,
        }
    }
}

/// The migrator does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this migrator has stopped: {0}")]
pub struct Stopped(pub String);

/// Why no migration was begun. Nothing has happened, except for [`CreateError::Stopped`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// No node tells of such a service (or shard).
    #[error("no node tells of {asked}")]
    UnknownService {
        /// What was asked for.
        asked: String,
        /// What is known.
        known: Vec<String>,
    },
    /// No such node.
    #[error("there is no node {asked}")]
    UnknownNode {
        /// What was asked for.
        asked: NodeName,
        /// What is known.
        known: Vec<String>,
    },
    /// A node that is needed is silent.
    #[error("the node {0} has not been heard for 5 s")]
    NodeSilent(NodeName),
    /// The target does not run the service.
    #[error("the node {to} does not run {service}")]
    TargetWithoutService {
        /// The target.
        to: NodeName,
        /// The service and shard.
        service: String,
        /// The nodes that do.
        known: Vec<String>,
    },
    /// The target has no replica and can have none.
    #[error("the node {to} is only an ingress of {service}: its [[service]] has neither run nor attach")]
    TargetIsIngress {
        /// The target.
        to: NodeName,
        /// The service and shard.
        service: String,
        /// The nodes that can run it.
        known: Vec<String>,
    },
    /// It is there already.
    #[error("{service} is owned by {to} already")]
    TargetIsSource {
        /// The service and shard.
        service: String,
        /// The target.
        to: NodeName,
    },
    /// One migration at a time.
    #[error("{service} is moving already: migration {running}")]
    AlreadyMoving {
        /// The service and shard.
        service: String,
        /// The migration that runs.
        running: MigrationId,
    },
    /// Nobody owns the shard.
    #[error("{0} has no owner yet")]
    NoOwner(String),
    /// Not a strategy of this version.
    #[error("the strategy {0:?} is not known")]
    UnknownStrategy(String),
    /// A limit that belongs to another strategy, or cannot hold.
    #[error("{0}")]
    BadLimit(String),
    /// No such migration to undo or to retire after.
    #[error("there is no migration {0}")]
    UnknownMigration(MigrationId),
    /// It left nothing that can be taken back or retired.
    #[error("migration {id} cannot be followed by this: {reason}")]
    NotLeft {
        /// Which.
        id: MigrationId,
        /// Why.
        reason: String,
    },
    /// As many as may run at once.
    #[error("{0} migrations are running already")]
    TooMany(usize),
    /// The shard's log could not be read.
    #[error("the log of {service} cannot be read: {reason}")]
    LogUnreadable {
        /// The service and shard.
        service: String,
        /// Why.
        reason: String,
    },
    /// The reason is too long.
    #[error("the reason is {0} bytes long")]
    ReasonTooLong(usize),
    /// The migrator stopped; whether the migration was begun is in the journal.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a migration was not told to end.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CancelError {
    /// No such migration.
    #[error("there is no migration {0}")]
    Unknown(MigrationId),
    /// Nothing is left to cancel.
    #[error("migration {id} has ended already: {outcome}")]
    Ended {
        /// Which.
        id: MigrationId,
        /// How.
        outcome: &'static str,
    },
    /// The migrator stopped; whether it will end is in the journal.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why two replies that differed cannot be shown now.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DivergenceError {
    /// The checkpoint store does not give them.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The migrator stopped.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

impl MigratorHandle {
    /// Begins a migration; resolves when its acceptance stands in the journal.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create(&self, new: NewMigration) -> Result<MigrationId, CreateError> {
        self.ask(|reply| Inbox::Create(new, reply)).await?
    }

    /// Moves a shard back to where a completed migration took it from; a migration of its own.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn undo(&self, id: MigrationId) -> Result<MigrationId, CreateError> {
        self.ask(|reply| Inbox::Undo(id, reply)).await?
    }

    /// Retires the standby that a completed migration left; an operation of its own.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn retire(&self, id: MigrationId) -> Result<MigrationId, CreateError> {
        self.ask(|reply| Inbox::Retire(id, reply)).await?
    }

    /// One migration.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn get(&self, id: MigrationId) -> Result<Option<MigrationView>, Stopped> {
        self.ask(|reply| Inbox::Get(id, reply)).await
    }

    /// All remembered migrations, the newest first.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn list(&self) -> Result<Vec<MigrationView>, Stopped> {
        self.ask(Inbox::List).await
    }

    /// Asks a migration to end; resolves when that stands in the journal. How it ends, the log decides.
    ///
    /// # Errors
    /// [`CancelError`].
    pub async fn cancel(&self, id: MigrationId) -> Result<MigrationView, CancelError> {
        self.ask(|reply| Inbox::Cancel(id, reply)).await?
    }

    /// All shards that nodes tell of.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn services(&self) -> Result<Vec<ServiceView>, Stopped> {
        self.ask(Inbox::Services).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn nodes(&self) -> Result<Vec<NodeView>, Stopped> {
        self.ask(Inbox::Nodes).await
    }

    /// How the migrator itself is.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn status(&self) -> Result<Status, Stopped> {
        self.ask(Inbox::Status).await
    }

    /// Waits for a migration's end; `None` if there is no such migration.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn wait_end(&self, id: MigrationId) -> Result<Option<MigrationView>, Stopped> {
        self.ask(|reply| Inbox::WaitEnd(id, reply)).await
    }

    /// Both replies of the first record at which source and target differed, as JSON; `None` if none were kept (any more).
    ///
    /// # Errors
    /// [`DivergenceError`].
    pub async fn divergence(&self, id: MigrationId) -> Result<Option<Bytes>, DivergenceError> {
        let view = self.get(id).await?;
        let name = view.and_then(|view| view.divergence?.replies).filter(|name| name.starts_with("divergence/"));
        let Some(name) = name else { return Ok(None) };
        match self.store.get(name).await {
            Ok(both) => Ok(Some(both)),
            Err(StoreError::Missing(_)) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Waits until the migrator stops by itself, and says why.
    pub async fn stopped(&self) -> Stopped {
        self.inbox.closed().await;
        self.why()
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Inbox) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.inbox.send(message(reply)).await.map_err(|_| self.why())?;
        answer.await.map_err(|_| self.why())
    }

    fn why(&self) -> Stopped {
        Stopped(self.why_stopped.get().cloned().unwrap_or_else(|| "its process is ending".to_owned()))
    }
}
