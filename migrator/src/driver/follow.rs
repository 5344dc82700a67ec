//! Follows the log of a shard that moves: what counts there is the truth that the driver waits for.

use std::time::Duration;

use broker_adapter::fold::Verdict;
use broker_adapter::ids::{MigrationId, ShardId};
use broker_adapter::log::ReadError;
use broker_adapter::shell::TaskSet;

use super::{Hands, Inbox};
use crate::folds::AtTail;

/// After which time an unreadable log is tried again.
const AGAIN: Duration = Duration::from_millis(500);

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
                None => hands.folds.at_tail(&shard).await,
            };
            let ended = match present {
                Ok(present) => follow(&hands, migration, &shard, present).await,
                Err(error) => Inbox::ShardBroken { migration, reason: error.to_string() },
            };
            if hands.inbox.send(ended).await.is_err() {
                return;
            }
            hands.shell.sleep(AGAIN).await;
        }
    });
    tasks
}

async fn follow(hands: &Hands, migration: MigrationId, shard: &ShardId, at_tail: AtTail) -> Inbox {
    let (mut fold, mut follower) = at_tail;
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
            // Overtaken by the owner's trimming: the fences in between are in the fold of a newer checkpoint.
            Err(error @ ReadError::Trimmed { .. }) => {
                tracing::info!(%shard, %error, "reading on behind a newer checkpoint");
                match hands.folds.at_tail(shard).await {
                    Ok(at_tail) => (fold, follower) = at_tail,
                    Err(error) => return Inbox::ShardBroken { migration, reason: error.to_string() },
                }
                let fences = fold.fences().cloned().collect();
                message = Some(Inbox::ShardRead { migration, epoch: fold.epoch(), fences });
            }
            Err(error) => return Inbox::ShardBroken { migration, reason: error.to_string() },
        }
    }
}
