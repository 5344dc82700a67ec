//! How anybody comes to a shard's fold at the tail: from the newest checkpoint that counts, then through the log.
//!
//! A checkpoint in the store proves nothing; it counts only if its `Checkpoint` record is found counted behind its own position
//! (invariant 7). So the newest one is tried by reading on from its fold, and the next older one if the log does not name it.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::{Fold, Rules};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::log::{MessageLog, ReadError};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use broker_adapter::{Broker, ConnectError};

use crate::checkpoint::{self, CheckpointError, load::Reader, parse_manifest_name};
use crate::shard::Context;

const RETRY_WAIT: Duration = Duration::from_millis(200);
/// How often a reader begins again because the log was trimmed, or its checkpoint removed, while it read.
const TRIES: u32 = 20;
/// After so many records others may have the processor and the broker for [`GIVE_WAY`]: a shard is caught up with while it serves.
const READ_BEFORE_GIVING_WAY: u64 = 512;
const GIVE_WAY: Duration = Duration::from_millis(1);

/// Why there is no fold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CatchUpError {
    /// The log cannot be opened.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The log has a gap, is damaged, or was rewound.
    #[error(transparent)]
    Read(#[from] ReadError),
    /// The log was trimmed, and no checkpoint leads to what is left of it.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
}

impl From<StoreError> for CatchUpError {
    fn from(error: StoreError) -> Self {
        CatchUpError::Checkpoint(error.into())
    }
}

/// The fold of a shard at its log's tail, and a reader that goes on from there. Waits for a broker that is away.
///
/// # Errors
/// [`CatchUpError`]: none of them passes by itself.
pub async fn fold_at_tail(
    broker: &Arc<dyn Broker>,
    shard: &ShardId,
    shell: &Shell,
) -> Result<(Fold, Follower), CatchUpError> {
    let log = broker.log(&shard.log_name()).await?;
    CatchUp { log, store: broker.store(), shard: shard.clone(), shell: shell.clone(), rules: Rules::default() }
        .run()
        .await
}

/// The same with everything at hand.
pub struct CatchUp {
    /// The shard's log.
    pub log: Arc<dyn MessageLog>,
    /// Where its checkpoints are.
    pub store: Arc<dyn CheckpointStore>,
    /// Which shard.
    pub shard: ShardId,
    /// Time.
    pub shell: Shell,
    /// A test-only switch.
    pub rules: Rules,
}

impl CatchUp {
    /// Of a shard on this sidecar.
    #[must_use]
    pub fn of(context: &Context) -> CatchUp {
        CatchUp {
            log: context.log.clone(),
            store: context.store.clone(),
            shard: context.shard.clone(),
            shell: context.shell.clone(),
            rules: context.rules,
        }
    }

    /// See [`fold_at_tail`]. Whoever is overtaken by the owner's trimming begins again, at a newer checkpoint.
    ///
    /// # Errors
    /// See [`fold_at_tail`].
    pub async fn run(&self) -> Result<(Fold, Follower), CatchUpError> {
        let mut tries = 0;
        loop {
            let (first, candidates) = self.candidates().await?;
            let error = match self.try_all(first, &candidates).await {
                Err(
                    error @ (CatchUpError::Read(ReadError::Trimmed { .. })
                    | CatchUpError::Checkpoint(CheckpointError::None { .. })),
                ) => error,
                // The store is away; it comes back.
                Err(CatchUpError::Checkpoint(CheckpointError::Store(error))) if error.is_retryable() => {
                    tracing::warn!(shard = %self.shard, %error, "reading the checkpoints again");
                    self.shell.sleep(RETRY_WAIT).await;
                    continue;
                }
                result => return result,
            };
            tries += 1;
            if tries == TRIES || self.candidates().await? == (first, candidates) {
                return Err(error);
            }
            tracing::info!(shard = %self.shard, %error, "the log was trimmed meanwhile: beginning again");
        }
    }

    /// The fold at the tail, read on from this one: whether that counts, the caller finds in it, as here is done with each candidate.
    ///
    /// # Errors
    /// See [`fold_at_tail`].
    pub async fn run_from(&self, fold: Fold) -> Result<Fold, CatchUpError> {
        self.read_on(under(fold, self.rules)).await.map(|(fold, _)| fold)
    }

    async fn first(&self) -> Result<Position, CatchUpError> {
        loop {
            match self.log.usage().await {
                Ok(usage) => return Ok(usage.first),
                Err(error) if error.is_retryable() => self.shell.sleep(RETRY_WAIT).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn try_all(
        &self,
        first: Position,
        candidates: &[(Position, Hash)],
    ) -> Result<(Fold, Follower), CatchUpError> {
        let mut tried = Vec::new();
        for (position, hash) in candidates {
            match self.try_checkpoint(*position, *hash).await? {
                Ok(found) => return Ok(found),
                Err(reason) => tried.push(reason),
            }
        }
        if first > Position(1) {
            let detail = format!("; the log begins at {first}; tried: [{}]", tried.join("; "));
            return Err(CheckpointError::None { shard: self.shard.clone(), detail }.into());
        }
        self.read_on(under(Fold::new(), self.rules)).await
    }

    /// Where the log begins, and the checkpoints in the store from which it can be read on, newest first.
    async fn candidates(&self) -> Result<(Position, Vec<(Position, Hash)>), CatchUpError> {
        let first = self.first().await?;
        let names = loop {
            match self.store.list(checkpoint::manifest_prefix(&self.shard)).await {
                Ok(names) => break names,
                Err(error) if error.is_retryable() => self.shell.sleep(RETRY_WAIT).await,
                Err(error) => return Err(error.into()),
            }
        };
        let reachable = |(position, _): &(Position, Hash)| position.next() > first || first == Position(1);
        let mut all: Vec<_> =
            names.iter().filter_map(|name| parse_manifest_name(&self.shard, name)).filter(reachable).collect();
        all.sort_unstable();
        all.reverse();
        Ok((first, all))
    }

    /// Reads on from one checkpoint; `Err` inside says why it does not count.
    async fn try_checkpoint(
        &self,
        position: Position,
        hash: Hash,
    ) -> Result<Result<(Fold, Follower), String>, CatchUpError> {
        let reader = Reader { store: self.store.clone(), shell: self.shell.clone() };
        let fold = async {
            let manifest = reader.manifest(&self.shard, position, hash).await?;
            reader.fold(&manifest, hash).await
        };
        let fold = match fold.await {
            Ok(fold) => fold,
            Err(error @ CheckpointError::Damaged { .. }) => {
                tracing::warn!(%error, "trying an older checkpoint");
                return Ok(Err(error.to_string()));
            }
            Err(error) => return Err(error.into()),
        };
        let (fold, follower) = self.read_on(under(fold, self.rules)).await?;
        if fold.checkpoints().kept().iter().any(|kept| kept.position == position && kept.manifest == hash) {
            Ok(Ok((fold, follower)))
        } else {
            Ok(Err(format!("checkpoint {position} is not (any more) named by the log")))
        }
    }

    /// Goes on from a fold of this log that was kept.
    ///
    /// # Errors
    /// See [`fold_at_tail`]; a log that ends before the fold is not the one that was read.
    pub async fn go_on(&self, fold: Fold) -> Result<(Fold, Follower), CatchUpError> {
        let tail = self.tail().await?;
        if tail < fold.position() {
            return Err(ReadError::BehindTail { asked: fold.position(), tail }.into());
        }
        self.read_up_to(tail, fold).await
    }

    async fn read_on(&self, fold: Fold) -> Result<(Fold, Follower), CatchUpError> {
        self.read_up_to(self.tail().await?, fold).await
    }

    async fn tail(&self) -> Result<Position, CatchUpError> {
        loop {
            match self.log.tail().await {
                Ok(tail) => return Ok(tail),
                Err(error) if error.is_retryable() => self.shell.sleep(RETRY_WAIT).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    async fn read_up_to(&self, tail: Position, mut fold: Fold) -> Result<(Fold, Follower), CatchUpError> {
        let mut follower = Follower::new(self.log.clone(), self.shell.clone(), fold.position(), fold.record_crc());
        while fold.position() < tail {
            let entry = follower.next().await?;
            fold.observe(&entry);
            if entry.position.0 % READ_BEFORE_GIVING_WAY == 0 {
                self.shell.sleep(GIVE_WAY).await;
            }
        }
        Ok((fold, follower))
    }
}

/// A fold that came from a checkpoint knows nothing of the test-only switch.
#[cfg(feature = "test-hooks")]
pub(crate) fn under(fold: Fold, rules: Rules) -> Fold {
    fold.with_rules(rules)
}

#[cfg(not(feature = "test-hooks"))]
pub(crate) fn under(fold: Fold, _rules: Rules) -> Fold {
    fold
}
