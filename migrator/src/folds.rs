//! Folds of shards at their logs' tails, kept by reading on.
//!
//! An order begins with the shard's fold at the tail. Read from the newest checkpoint on, that can be many thousand records at once,
//! on the machine and the broker on which the service is about to move: its clients felt it (measured on NATS: a blackout of 14 ms
//! instead of 5). So the migrator follows the logs that nodes tell of, as far as [`FOLLOWED_RECORDS_PER_S`] goes, and an order finds its
//! fold a few records before the tail. What is not followed is read as before.
//!
//! Architecture Invariant: a kept fold was read from the log by this process, record for record; nobody tells it (invariant 7).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use broker_adapter::broker::{Broker, ConnectError};
use broker_adapter::fold::Fold;
use broker_adapter::follow::Follower;
use broker_adapter::ids::ShardId;
use broker_adapter::log::MessageLog;
use broker_adapter::shell::{Shell, TaskSet};
use sidecar::catch_up::{CatchUp, CatchUpError};

use crate::driver::RUNNING_MAX;

/// How many records a second are followed ahead of any order, of all shards together: some percent of one core.
const FOLLOWED_RECORDS_PER_S: f64 = 10_000.0;
/// Each is a reader at the broker, on Kafka with threads of its own: as many as may move at once.
const FOLLOWED_SHARDS_MAX: usize = RUNNING_MAX;
/// A log that grows more slowly is idle: nobody feels it when it is read.
const BUSY_RECORDS_PER_S: f64 = 1.0;
/// After which time an unreachable broker is tried again, and a log that cannot be followed.
const AGAIN: Duration = Duration::from_millis(500);
const BROKEN_AGAIN: Duration = Duration::from_secs(10);

/// A shard's fold at its log's tail, and what follows.
pub type AtTail = (Fold, Follower);

/// See the module. Clones share what is kept.
#[derive(Clone)]
pub struct Folds {
    broker: Arc<dyn Broker>,
    shell: Shell,
    followed: Arc<Mutex<BTreeMap<ShardId, Followed>>>,
}

/// A log that is followed.
struct Followed {
    kept: Arc<Mutex<Option<Kept>>>,
    _task: TaskSet,
}

/// A log, and the fold of what was read of it.
#[derive(Clone)]
struct Kept {
    log: Arc<dyn MessageLog>,
    fold: Fold,
}

impl Folds {
    /// Nothing is followed yet; tasks of it end with the shell's.
    #[must_use]
    pub fn new(broker: Arc<dyn Broker>, shell: Shell) -> Folds {
        Folds { broker, shell, followed: Arc::default() }
    }

    fn followed(&self) -> MutexGuard<'_, BTreeMap<ShardId, Followed>> {
        self.followed.lock().expect("nothing panics under this lock")
    }

    /// Reads a shard's log up to its tail, from the fold that is kept or else from the newest checkpoint that counts; waits for a broker
    /// that is away.
    ///
    /// # Errors
    /// Only what waiting does not heal.
    pub async fn at_tail(&self, shard: &ShardId) -> Result<AtTail, CatchUpError> {
        let kept = self.followed().get(shard).and_then(|followed| lock(&followed.kept).clone());
        if let Some(Kept { log, fold }) = kept {
            match self.catch_up(shard, log).go_on(fold).await {
                Ok(at_tail) => return Ok(at_tail),
                // Trimmed, or not the same log any more: the whole of it tells.
                Err(error) => tracing::debug!(%shard, %error, "the kept fold leads nowhere"),
            }
        }
        loop {
            let log = match self.broker.log(&shard.log_name()).await {
                Ok(log) => log,
                Err(ConnectError::Unreachable { .. }) => {
                    self.shell.sleep(AGAIN).await;
                    continue;
                }
                Err(error) => return Err(error.into()),
            };
            return self.catch_up(shard, log).run().await;
        }
    }

    fn catch_up(&self, shard: &ShardId, log: Arc<dyn MessageLog>) -> CatchUp {
        let (store, shard, shell) = (self.broker.store(), shard.clone(), self.shell.clone());
        CatchUp { log, store, shard, shell, rules: broker_adapter::fold::Rules::default() }
    }

    /// Follows these from now on, as many as the limits allow, and no other. What is followed already comes first.
    pub fn follow(&self, shards: impl Iterator<Item = (ShardId, f64)>) {
        let mut followed = self.followed();
        let (mut first, then): (Vec<_>, Vec<_>) = shards.partition(|(shard, _)| followed.contains_key(shard));
        first.extend(then);
        let chosen = choose(first);
        followed.retain(|shard, _| chosen.contains(shard));
        for shard in chosen {
            followed.entry(shard).or_insert_with_key(|shard| self.start(shard));
        }
    }

    fn start(&self, shard: &ShardId) -> Followed {
        let (shell, task) = self.shell.part();
        let kept = Arc::new(Mutex::new(None));
        let inner = Folds { shell: shell.clone(), followed: Arc::default(), ..self.clone() };
        shell.spawn(inner.keep(shard.clone(), kept.clone()));
        Followed { kept, _task: task }
    }

    async fn keep(self, shard: ShardId, kept: Arc<Mutex<Option<Kept>>>) {
        loop {
            let error = match self.broker.log(&shard.log_name()).await {
                Ok(log) => self.read(&shard, log, &kept).await,
                Err(error) => error.into(),
            };
            *lock(&kept) = None;
            // Whoever orders something is told; until then nobody needs to know.
            tracing::debug!(%shard, %error, "the log is not followed for a while");
            let is_away = matches!(error, CatchUpError::Connect(ConnectError::Unreachable { .. }));
            self.shell.sleep(if is_away { AGAIN } else { BROKEN_AGAIN }).await;
        }
    }

    /// Until it cannot be read on; says why.
    async fn read(&self, shard: &ShardId, log: Arc<dyn MessageLog>, kept: &Mutex<Option<Kept>>) -> CatchUpError {
        let (fold, mut follower) = match self.catch_up(shard, log.clone()).run().await {
            Ok(at_tail) => at_tail,
            Err(error) => return error,
        };
        *lock(kept) = Some(Kept { log, fold });
        loop {
            match follower.next().await {
                Ok(entry) => {
                    if let Some(kept) = &mut *lock(kept) {
                        kept.fold.observe(&entry);
                    }
                }
                Err(error) => return error.into(),
            }
        }
    }
}

fn lock(kept: &Mutex<Option<Kept>>) -> MutexGuard<'_, Option<Kept>> {
    kept.lock().expect("nothing panics under this lock")
}

/// As many as the limits allow, each with its records per second, in this order.
fn choose(shards: Vec<(ShardId, f64)>) -> BTreeSet<ShardId> {
    let mut left = FOLLOWED_RECORDS_PER_S;
    let mut chosen = BTreeSet::new();
    for (shard, per_s) in shards {
        if chosen.len() < FOLLOWED_SHARDS_MAX && (BUSY_RECORDS_PER_S..=left).contains(&per_s) {
            left -= per_s;
            chosen.insert(shard);
        }
    }
    chosen
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::Position;
    use broker_adapter::memory::Faults;
    use broker_adapter::record::Cause;

    use super::*;
    use crate::bench::{Bench, replica, shard};

    /// A log of four fences that is followed, if it is to be.
    async fn world(seed: u64, is_followed: bool) -> (Bench, Folds) {
        let bench = Bench::new(seed, Faults::calm()).await;
        for epoch in 2..5 {
            bench.fence(epoch, replica("a", 1), Cause::First).await;
        }
        let folds = Folds::new(bench.broker.connect("migrator"), bench.shell.clone());
        if is_followed {
            folds.follow([(shard(), 1.0)].into_iter());
            bench.shell.sleep(Duration::from_secs(1)).await;
        }
        (bench, folds)
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_followed_is_not_read_again() {
        for is_followed in [true, false] {
            let (bench, folds) = world(1, is_followed).await;
            bench.fence(5, replica("b", 2), Cause::Handover).await;
            bench.shell.sleep(Duration::from_secs(1)).await;
            // Without a checkpoint, only who has read the beginning knows what it said.
            let log = bench.broker.connect("test").log(&shard().log_name()).await.unwrap();
            log.trim(Position(4)).await.unwrap();
            let found = folds.at_tail(&shard()).await.map(|(fold, follower)| (fold, follower.position()));
            match is_followed {
                true => assert_eq!(found.unwrap(), (kept_fold(&folds), Position(5))),
                false => assert!(matches!(found, Err(CatchUpError::Checkpoint(_)))),
            }
        }
    }

    fn kept_fold(folds: &Folds) -> Fold {
        let followed = folds.followed();
        lock(&followed[&shard()].kept).clone().unwrap().fold
    }

    #[tokio::test(start_paused = true)]
    async fn a_fold_of_a_log_that_was_replaced_is_forgotten() {
        let (bench, folds) = world(2, true).await;
        bench.broker.rewind(&shard().log_name(), Position(2));
        let (fold, _) = folds.at_tail(&shard()).await.unwrap();
        assert_eq!((fold.position(), fold.epoch().0), (Position(2), 2));
        bench.shell.sleep(BROKEN_AGAIN + Duration::from_secs(5)).await;
        assert_eq!(kept_fold(&folds).position(), Position(2));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_not_chosen_any_more_is_let_go() {
        let (_bench, folds) = world(3, true).await;
        folds.follow(std::iter::empty());
        assert!(folds.followed().is_empty());
        assert_eq!(folds.at_tail(&shard()).await.unwrap().0.epoch().0, 4);
    }

    #[test]
    fn as_much_is_followed_as_the_limits_allow() {
        let shards = |count: usize, per_s: f64| {
            (0..count).map(|number| (ShardId::whole(format!("board-{number}").parse().unwrap()), per_s)).collect()
        };
        assert_eq!(choose(shards(1_000, BUSY_RECORDS_PER_S)).len(), FOLLOWED_SHARDS_MAX);
        assert!(choose(shards(3, 0.0)).is_empty(), "they are idle");
        assert_eq!(choose(shards(1_000, 1_000.0)).len(), 10);
        assert!(choose(shards(3, 2.0 * FOLLOWED_RECORDS_PER_S)).is_empty());
    }
}
