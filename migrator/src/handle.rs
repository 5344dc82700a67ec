//! What the rest of the process asks of a running migrator: the one inbox behind a cloneable handle.
//!
//! REST is built on it, and the simulation uses it as it is.

use std::sync::{Arc, OnceLock};

use broker_adapter::broker::Broker;
use broker_adapter::ids::{MigrationId, NodeName, ServiceName, ShardName};
use broker_adapter::log::{MessageLog, ReadError};
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};
use utoipa::ToSchema;

use crate::driver::{How, Inbox, Listening, Measured};
use crate::folds::Folds;
use crate::machine::{Ending, OrderKey};
use crate::plan::Plan;
use crate::recording::Recording;
pub use crate::refused::CreateError;
pub(crate) use crate::refused::known_names;
use crate::series::SeriesView;
use crate::view::{MigrationView, NodeView, ServiceView, Status};

/// Reaches a running migrator.
#[derive(Clone)]
pub struct MigratorHandle {
    pub(crate) inbox: mpsc::Sender<Inbox>,
    pub(crate) broker: Arc<dyn Broker>,
    pub(crate) journal: Arc<dyn MessageLog>,
    pub(crate) store: Arc<dyn CheckpointStore>,
    pub(crate) folds: Folds,
    pub(crate) measured: Measured,
    pub(crate) why_stopped: Arc<OnceLock<String>>,
}

/// What somebody asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct NewMigration {
    /// What is to move.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// Which part of it; `0` if not given.
    #[serde(default)]
    #[schema(value_type = Option<String>)]
    pub shard: Option<ShardName>,
    /// Where to.
    #[schema(value_type = String)]
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
    /// How long requests may wait: refused if the plan says more; a strategy that pauses the source pauses it no longer.
    #[serde(default)]
    pub max_blackout_ms: Option<u64>,
    /// After so many seconds without an end it rolls back.
    #[serde(default)]
    pub deadline_s: Option<u64>,
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
            max_blackout_ms: None,
            deadline_s: None,
        }
    }
}

/// Which migrations a page shows.
#[derive(Clone, Debug, Default)]
pub struct ListFilter {
    /// Only of this service.
    pub service: Option<ServiceName>,
    /// Only from or to this node.
    pub node: Option<NodeName>,
    /// Only those that ended so.
    pub outcome: Option<Ending>,
    /// Only those that run, or only those that have ended.
    pub running: Option<bool>,
    /// How many.
    pub page_size: usize,
    /// Only those accepted before this one: its time and its name.
    pub behind: Option<(u64, MigrationId)>,
}

/// The migrator does not run any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("this migrator has stopped: {0}")]
pub struct Stopped(pub String);

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
        self.create_under(new, None).await
    }

    /// The same under a client's key: the same order again within 24 h gives the same migration, also after a restart.
    ///
    /// # Errors
    /// [`CreateError`].
    pub async fn create_under(&self, new: NewMigration, key: Option<OrderKey>) -> Result<MigrationId, CreateError> {
        self.ask(|reply| Inbox::Create(new, key, reply)).await?
    }

    /// What a migration would do, by what its shard's log says now; nothing is begun.
    ///
    /// # Errors
    /// [`CreateError`]: only what keeps from planning; checks that fail stand in the plan.
    pub async fn plan(&self, new: NewMigration) -> Result<Plan, CreateError> {
        self.ask(|reply| Inbox::Plan(new, How::ByTheLog, reply)).await?
    }

    /// The same by what nodes told last, at once.
    ///
    /// # Errors
    /// [`CreateError::Stopped`].
    pub async fn plan_by_hearsay(&self, new: NewMigration) -> Result<Plan, CreateError> {
        self.ask(|reply| Inbox::Plan(new, How::ByHearsay, reply)).await?
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

    /// A page of migrations, the newest first, and whether more follow.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn page(&self, filter: ListFilter) -> Result<(Vec<MigrationView>, bool), Stopped> {
        self.ask(|reply| Inbox::Page(filter, reply)).await
    }

    /// How lag and rates of a migration ran.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn series(&self, id: MigrationId) -> Result<SeriesView, Stopped> {
        self.ask(|reply| Inbox::Series(id, reply)).await
    }

    /// A migration as one file; `None` if there is no such migration.
    ///
    /// # Errors
    /// [`Stopped`].
    pub async fn recording(&self, id: MigrationId) -> Result<Option<Recording>, Stopped> {
        self.ask(|reply| Inbox::Recording(id, reply)).await
    }

    /// What happened behind an entry of the journal (of one migration, if one is named), and what happens from now on.
    ///
    /// # Errors
    /// [`Stopped`].
    pub(crate) async fn listen(&self, after: Option<u64>, of: Option<MigrationId>) -> Result<Listening, Stopped> {
        self.ask(|reply| Inbox::Listen(after, of, reply)).await
    }

    /// What an acknowledgement of the broker means, for people.
    ///
    /// # Errors
    /// If the broker does not say.
    pub async fn durability(&self) -> Result<String, ReadError> {
        Ok(self.journal.usage().await?.durability)
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
