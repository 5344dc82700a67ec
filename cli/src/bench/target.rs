//! Commands a node's replica as a migrator would: load a checkpoint, replay to the tail.

use std::time::Duration;

use broker_adapter::fold::KeptCheckpoint;
use broker_adapter::ids::{Epoch, Incarnation, MigrationId, Position, Replica};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use sidecar::command::{
    ANNOUNCE_ADDRESS, Announcement, Command, NodeMail, Outcome, Reuse, Step, StepStatus, decode, encode,
    migrator_address, node_address,
};

use super::BenchError;
use super::replay::{LIMIT, Place};

/// A command is repeated until it is answered.
const REPEAT_EVERY: Duration = Duration::from_millis(50);

/// A replica that obeys.
pub(super) struct Target<'a> {
    place: &'a Place,
    node: Replica,
    epoch: Epoch,
    migration: MigrationId,
    answer_to: String,
    answers: BoxStream<'static, Bytes>,
}

impl<'a> Target<'a> {
    /// Waits until the node announces itself and has read the log to `tail`.
    pub async fn find(place: &'a Place, node: &str, epoch: Epoch, tail: Position) -> Result<Target<'a>, BenchError> {
        let mut announcements = place.broker.mailbox().subscribe(ANNOUNCE_ADDRESS);
        let answer_to = migrator_address(Incarnation(place.shell.random()));
        let answers = place.broker.mailbox().subscribe(&answer_to);
        let found = async {
            while let Some(bytes) = announcements.next().await {
                let Some(announced) = decode::<Announcement>(&bytes) else { continue };
                let caught_up = announced.shards.iter().any(|status| status.tail >= tail);
                if announced.from.node.as_str() == node && caught_up && !announced.leaving {
                    return Some(announced.from);
                }
            }
            None
        };
        let node = place.shell.within(LIMIT, found).await.flatten().ok_or(BenchError::Late("the target"))?;
        Ok(Target { place, node, epoch, migration: MigrationId(place.shell.random()), answer_to, answers })
    }

    pub async fn load(&mut self, checkpoint: &KeptCheckpoint) -> Result<(), BenchError> {
        let transfer = Step::Transfer { checkpoint: checkpoint.position, manifest: checkpoint.manifest };
        for step in [Step::PrepareTarget { reuse: Reuse::Nothing }, transfer, Step::Restore] {
            self.step(step).await?;
        }
        Ok(())
    }

    pub async fn replay(&mut self) -> Result<(), BenchError> {
        self.step(Step::Replay { lag_limit_records: 0 }).await
    }

    async fn step(&mut self, step: Step) -> Result<(), BenchError> {
        let name = step.name();
        let command = Command {
            migration: self.migration,
            attempt: 1,
            shard: self.place.shard.clone(),
            epoch: self.epoch,
            to: self.node.clone(),
            answer_to: self.answer_to.clone(),
            step,
        };
        let mail = encode(&NodeMail::Command(command));
        let shell = &self.place.shell;
        let until = shell.now() + LIMIT;
        while shell.now() < until {
            self.place.broker.mailbox().send(&node_address(&self.node.node), mail.clone());
            let again = shell.now() + REPEAT_EVERY;
            while let Some(Some(bytes)) = shell.within(again.saturating_sub(shell.now()), self.answers.next()).await {
                let Some(outcome) = decode::<Outcome>(&bytes).filter(|outcome| outcome.step == name) else { continue };
                match outcome.status {
                    StepStatus::Running { .. } => {}
                    StepStatus::Done(_) => return Ok(()),
                    StepStatus::Failed(failure) => return Err(BenchError::Failed(failure.message)),
                }
            }
        }
        Err(BenchError::Late(name))
    }
}
