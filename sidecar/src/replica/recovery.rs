//! How a replica whose state is unknown, or whose place in the log is gone, comes back: from which checkpoint, and when again.
//!
//! The newest kept one first; a damaged one is passed over for the next older. If none of those that it knows will do, the log's tail
//! tells which are kept by now.

use std::time::Duration;

use broker_adapter::fold::KeptCheckpoint;
use broker_adapter::ids::Position;
use broker_adapter::log::ReadError;

use super::engine::{Engine, Life};
use super::loading::{self, Loading, Wanted};
use crate::catch_up::CatchUp;
use crate::checkpoint::CheckpointError;
use crate::command::{Command, FailureCode};
use crate::service::ServiceError;

const RELOAD_WAIT_FIRST: Duration = Duration::from_millis(20);
const RELOAD_WAIT_MAX: Duration = Duration::from_secs(5);
/// How often a target tries to load a checkpoint, each time into a new instance; then the migration rolls back.
const TARGET_LOADS_MAX: u32 = 3;
/// How long a target leaves a checkpoint store alone that did not answer, and twice as long the next time.
const STORE_WAIT_FIRST: Duration = Duration::from_secs(1);

/// From which checkpoints the replica can come back.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovery {
    /// Not tried yet, newest last.
    pub kept: Vec<KeptCheckpoint>,
    /// All that were known when these were learned.
    pub known: Vec<KeptCheckpoint>,
    /// None of them will do: those that are kept at the log's tail are to be learned.
    pub at_tail: bool,
    pub failures: u32,
}

impl Recovery {
    pub fn of(kept: &[KeptCheckpoint], failures: u32) -> Recovery {
        Recovery { kept: kept.to_vec(), known: kept.to_vec(), at_tail: false, failures }
    }
}

impl Engine {
    pub fn wait_and_reload(&mut self) {
        let wait = RELOAD_WAIT_FIRST * 2u32.pow(self.recovery.failures.min(16));
        self.life = Life::Waiting { at: self.context.shell.now() + wait.min(RELOAD_WAIT_MAX) };
    }

    /// Loads the newest checkpoint that is whole.
    pub fn reload(&mut self) {
        let Some(kept) = self.recovery.kept.last() else {
            // By now others may be kept.
            self.recovery.at_tail = true;
            self.wait_and_reload();
            return;
        };
        self.loads += 1;
        self.upkeep.floor = self.upkeep.floor.max(kept.position);
        let (position, manifest) = (kept.position, kept.manifest);
        let wanted = Wanted { load: self.loads, position, manifest, wait: Duration::ZERO };
        self.life = Life::Loading(Box::new(loading::begin(&self.context, wanted, None, self.events.clone())));
    }

    pub async fn load_failed(&mut self, error: CheckpointError) {
        let Life::Loading(loading) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        if let Some(command) = loading.target.clone() {
            self.target_load_failed(&loading, command, error).await;
            return;
        }
        let refused = matches!(
            &error,
            CheckpointError::Service(
                ServiceError::Refused { .. } | ServiceError::Program { .. } | ServiceError::Folder { .. }
            )
        );
        if matches!(&error, CheckpointError::Origin { .. }) || (refused && self.loads == 1) {
            self.stop(error.to_string());
            self.context.fail(format!("the service cannot load its state: {error}"));
            return;
        }
        if matches!(&error, CheckpointError::Damaged { .. }) {
            self.recovery.kept.pop();
        }
        tracing::warn!(shard = %self.context.shard, %error, "loading again");
        self.trouble = Some(error.to_string());
        self.recovery.failures += 1;
        self.wait_and_reload();
    }

    /// A service that failed may do better in a new instance, a store that did not answer a little later, a damaged checkpoint never: an
    /// older one may be whole.
    async fn target_load_failed(&mut self, failed: &Loading, command: Command, error: CheckpointError) {
        if let CheckpointError::Damaged { position, .. } = &error
            && self.load_older(&command, *position).await
        {
            tracing::warn!(shard = %self.context.shard, %error, "loading an older checkpoint");
            return;
        }
        let failures = failed.failures + 1;
        let wait = match &error {
            CheckpointError::Service(_) => Some(Duration::ZERO),
            CheckpointError::Store(error) if error.is_retryable() => Some(STORE_WAIT_FIRST * failures),
            _ => None,
        };
        if let Some(wait) = wait.filter(|_| failures < TARGET_LOADS_MAX) {
            tracing::warn!(shard = %self.context.shard, %error, failures, "loading again, into a new instance");
            self.loads += 1;
            let wanted = Wanted { load: self.loads, position: failed.position, manifest: failed.manifest, wait };
            let loading = loading::begin(&self.context, wanted, Some(command), self.events.clone());
            self.life = Life::Loading(Box::new(Loading { failures, ..loading }));
            return;
        }
        let code = match &error {
            CheckpointError::Service(_) | CheckpointError::Origin { .. } => FailureCode::Service,
            CheckpointError::Store(_) => FailureCode::Broker,
            CheckpointError::Damaged { .. } | CheckpointError::None { .. } => FailureCode::Checkpoint,
        };
        let reason = match wait {
            Some(_) => format!("the load failed {failures} times, the last time so: {error}"),
            None => error.to_string(),
        };
        self.steps.fail_all(&command, code, &reason);
    }

    /// The log was trimmed past this replica's position: others have gone on without it.
    pub async fn trimmed(&mut self, error: &ReadError) {
        let Life::Active(mut active) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        tracing::warn!(shard = %self.context.shard, %error, "loading a newer checkpoint");
        self.context.metrics.reloads.inc();
        active.instance.stop().await;
        if self.target_failed(&active, FailureCode::NoReplica, &format!("the target fell behind: {error}")) {
            return;
        }
        self.recovery = Recovery::default();
        self.reload_from_tail().await;
    }

    /// None of the checkpoints that this replica knows will do. Learns from the log which are kept now, and loads the newest.
    pub async fn reload_from_tail(&mut self) {
        match CatchUp::of(&self.context).run().await {
            Ok((fold, _)) if fold.checkpoints().kept() == self.recovery.known => {
                self.stop("no counted checkpoint is whole in the checkpoint store".to_owned());
            }
            Ok((fold, _)) => {
                self.recovery = Recovery::of(fold.checkpoints().kept(), self.recovery.failures);
                self.reload();
            }
            Err(error) => self.stop(error.to_string()),
        }
    }

    /// A target whose checkpoint is damaged takes the next older one that is kept: the log still reaches back to it.
    pub async fn load_older(&mut self, command: &Command, damaged: Position) -> bool {
        let Ok((fold, _)) = CatchUp::of(&self.context).run().await else { return false };
        let older = fold.checkpoints().kept().iter().rev().find(|kept| kept.position < damaged);
        let Some(kept) = older.filter(|_| fold.epoch().next() == command.epoch) else { return false };
        self.loads += 1;
        let (position, manifest) = (kept.position, kept.manifest);
        let wanted = Wanted { load: self.loads, position, manifest, wait: Duration::ZERO };
        let loading = loading::begin(&self.context, wanted, Some(command.clone()), self.events.clone());
        self.life = Life::Loading(Box::new(loading));
        true
    }
}
