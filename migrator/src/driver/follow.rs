//! Follows the log of a shard that moves: what counts there is the truth that the driver waits for.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::broker::{Broker, ConnectError};
use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{MigrationId, Position, ShardId};
use broker_adapter::shell::{Shell, TaskSet};

use super::{Hands, Inbox};

/// After which time an unreadable log is tried again.
const AGAIN: Duration = Duration::from_millis(500);

/// A shard's fold at its log's tail, and what follows.
pub type AtTail = (Fold, Follower);

/// Reads a shard's log up to its tail, over broken connections.
///
/// # Errors
/// Why it cannot be read, for people: only what waiting does not heal.
pub async fn fold_at_tail(broker: &Arc<dyn Broker>, shard: &ShardId, shell: &Shell) -> Result<AtTail, String> {
    let log = loop {
        match broker.log(&shard.log_name()).await {
            Ok(log) => break log,
            Err(ConnectError::Unreachable { .. }) => shell.sleep(AGAIN).await,
            Err(error) => return Err(error.to_string()),
        }
    };
    let tail = loop {
        match log.tail().await {
            Ok(tail) => break tail,
            Err(error) if error.is_retryable() => shell.sleep(AGAIN).await,
            Err(error) => return Err(error.to_string()),
        }
    };
    let mut fold = Fold::new();
    let mut follower = Follower::new(log, shell.clone(), Position::ZERO, 0);
    while fold.position() < tail {
        let entry = follower.next().await.map_err(|error| error.to_string())?;
        fold.observe(&entry);
    }
    Ok((fold, follower))
}

/// Tells the driver of every fence that counts, until the set is dropped.
pub fn start(hands: &Hands, migration: MigrationId, shard: &ShardId, at_tail: Option<AtTail>) -> TaskSet {
    let (shell, tasks) = hands.shell.part();
    let hands = Hands { shell: shell.clone(), ..hands.clone() };
    let shard = shard.clone();
    shell.spawn(async move {
        let mut at_tail = at_tail;
        loop {
            let present = match at_tail.take() {
                Some(present) => Ok(present),
                None => fold_at_tail(&hands.broker, &shard, &hands.shell).await,
            };
            let ended = match present {
                Ok(present) => follow(&hands, migration, present).await,
                Err(reason) => Inbox::ShardBroken { migration, reason },
            };
            if hands.inbox.send(ended).await.is_err() {
                return;
            }
            hands.shell.sleep(AGAIN).await;
        }
    });
    tasks
}

async fn follow(hands: &Hands, migration: MigrationId, (mut fold, mut follower): AtTail) -> Inbox {
    let fences = fold.fences().cloned().collect();
    let mut message = Some(Inbox::ShardRead { migration, epoch: fold.epoch(), fences });
    loop {
        if let Some(message) = message.take() {
            // The driver has ended otherwise, and this task with it.
            let _ = hands.inbox.send(message).await;
        }
        match follower.next().await {
            Ok(entry) => {
                if let Verdict::Fenced(fence) = fold.observe(&entry) {
                    message = Some(Inbox::ShardFenced { migration, fence });
                }
            }
            Err(error) => return Inbox::ShardBroken { migration, reason: error.to_string() },
        }
    }
}
