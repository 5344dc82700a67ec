//! Taking a checkpoint: saved, then recorded in the log until its record is read back as counted. One at a time.
//!
//! ```text
//!   begin_save ──▶ Saving ──▶ Recording ──▶ counted: `save_ended` tells whoever asked for it
//!                    └────────────┴───────▶ failed:  the same, with the reason
//! ```
//! Who asks is a [`Purpose`]: upkeep (see `upkeep`) or a migration's step (see `steps::source`).

use std::time::Duration;

use broker_adapter::fold::checkpoints::KEPT_UNPINNED;
use broker_adapter::ids::{Hash, Position};
use broker_adapter::record::{Checkpoint, Record};
use broker_adapter::shell::TaskSet;

use super::active::Active;
use super::engine::{APPEND_AGAIN, Engine, Event, Life};
use super::upkeep::Progress;
use crate::checkpoint::CheckpointError;
use crate::checkpoint::save::{Parts, Saved};
use crate::command::{Command, FailureCode};
use crate::service::ServiceError;

/// Who wants a checkpoint.
#[derive(Clone, Debug)]
pub(in crate::replica) enum Purpose {
    /// The owner, to bound its log and the next replay.
    Upkeep,
    /// A migration's step.
    Step(Box<Command>),
}

/// Why there is none.
#[derive(Clone, Debug)]
pub(in crate::replica) struct SaveFailure {
    pub code: FailureCode,
    pub message: String,
}

/// A checkpoint on its way.
pub(in crate::replica) struct CheckpointJob {
    pub purpose: Purpose,
    /// Which one: what an earlier one reports is dropped.
    number: u64,
    began: Duration,
    /// How far the replica was as it began.
    pub progress: Progress,
    stage: Stage,
    /// What saves; ends with the job.
    tasks: TaskSet,
}

enum Stage {
    /// `alone`: the service may have no time for anybody else.
    Saving {
        alone: bool,
    },
    Recording {
        saved: Saved,
        sent: Duration,
    },
}

impl CheckpointJob {
    /// Whether an attached service is not to be asked now whether it is still the same.
    pub fn is_alone(&self) -> bool {
        matches!(self.stage, Stage::Saving { alone: true })
    }

    /// What is whole in the store, if its record is on its way.
    pub fn recording(self) -> Option<Saved> {
        match self.stage {
            Stage::Saving { .. } => None,
            Stage::Recording { saved, .. } => Some(saved),
        }
    }
}

impl Engine {
    /// Whether a checkpoint of this replica, taken now, could count: it owns, none is on its way, and it is not behind one that was
    /// recorded, or perhaps will be, by an append whose outcome is not known.
    pub fn may_save(&self) -> bool {
        let Life::Active(active) = &self.life else { return false };
        active.owns(&self.context.me) && active.job.is_none() && active.fold.position() >= self.upkeep.floor
    }

    /// Begins to save at the replica's present position; [`Engine::save_ended`] hears what became of it. Only if it
    /// [may](Engine::may_save).
    pub async fn begin_save(&mut self, purpose: Purpose) {
        let config = self.context.config.clone();
        // Nobody waits for a periodic checkpoint, but requests wait for the header of its answer.
        let limit = match purpose {
            Purpose::Upkeep => config.start_timeout().min(config.delivery_timeout()),
            Purpose::Step(_) => config.start_timeout(),
        };
        let limit = self.pause_left().map_or(limit, |left| limit.min(left));
        self.jobs += 1;
        let Life::Active(active) = &mut self.life else { return };
        let (number, tasks, began) = (self.jobs, active.tasks.tasks().part(), self.context.shell.now());
        let saving = tasks.tasks();
        let progress = self.upkeep.progress(active, began);
        active.job =
            Some(CheckpointJob { purpose, number, began, progress, stage: Stage::Saving { alone: false }, tasks });
        let parts = parts(active, &self.context.shard);
        let load = active.load;
        let timed_out = || {
            let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            Err(ServiceError::TimedOut { request: "a save of its state".to_owned(), limit_ms })
        };
        // Nothing is delivered between this request and the header of its answer.
        let asked = self.context.shell.within(limit, active.save_state(&self.context)).await;
        let state = match asked.unwrap_or_else(timed_out) {
            Ok(state) => state,
            Err(error) => {
                let is_another = matches!(error, ServiceError::Restarted { .. });
                self.saved(number, Err(error.clone().into()));
                if is_another {
                    self.recover(&error).await;
                }
                return;
            }
        };
        let (writer, events) = (self.checkpoint_writer(), self.events.clone());
        let tell = async move |result| {
            // The engine may have ended.
            let _ = events.send(Event::Saved { load, job: number, result }).await;
        };
        // Nothing is delivered in a pause, and it must see its deadline; its end breaks the save off.
        if state.fixed || self.pause.is_some() {
            if let Life::Active(active) = &mut self.life
                && let Some(job) = &mut active.job
            {
                job.stage = Stage::Saving { alone: !state.fixed };
            }
            saving.spawn(async move { tell(writer.save(parts, state).await).await });
            return;
        }
        match writer.take(parts, state).await {
            // The service is free again; the rest needs it no more.
            Ok(taken) => saving.spawn(async move { tell(writer.finish(taken).await).await }),
            Err(error) => self.saved(number, Err(error)),
        }
    }

    /// What became of the saving.
    pub fn saved(&mut self, number: u64, result: Result<Saved, CheckpointError>) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(job) = active.job.as_mut().filter(|job| job.number == number) else { return };
        match result {
            Ok(saved) => {
                self.context.metrics.checkpoint_saved(&saved, now - job.began);
                self.upkeep.floor = self.upkeep.floor.max(saved.position);
                job.stage = Stage::Recording { saved: saved.clone(), sent: now };
                self.saved_in_pause(&saved);
                self.append_for_job();
            }
            Err(error) => {
                let code = match &error {
                    CheckpointError::Service(_) => FailureCode::Service,
                    _ => FailureCode::Broker,
                };
                let message = format!("the checkpoint could not be taken: {error}");
                self.end_job(Err(SaveFailure { code, message }));
            }
        }
    }

    fn append_for_job(&self) {
        let Life::Active(active) = &self.life else { return };
        let (Some(job), Some(writer)) = (&active.job, self.writer()) else { return };
        if let Stage::Recording { saved, .. } = &job.stage {
            self.append(vec![Record::Checkpoint(Checkpoint {
                writer,
                position: saved.position,
                manifest: saved.manifest,
                record_crc: saved.record_crc,
            })]);
        }
    }

    /// A checkpoint's record counted at the replica's position.
    pub fn checkpoint_counted(&mut self, checkpoint: &Checkpoint) {
        self.upkeep.floor = self.upkeep.floor.max(checkpoint.position);
        let Life::Active(active) = &mut self.life else { return };
        if let Some(oldest) = active.fold.checkpoints().oldest().filter(|_| !active.owns(&self.context.me)) {
            // An owner removes them first.
            active.bodies.forget_before(oldest.position);
        }
        match active.job.as_ref().map(|job| &job.stage) {
            Some(Stage::Recording { saved, .. }) if saved.manifest == checkpoint.manifest => {
                let saved = saved.clone();
                self.end_job(Ok(saved));
            }
            _ => {
                let now = self.context.shell.now();
                self.upkeep.since = self.upkeep.progress(active, now);
            }
        }
    }

    /// What was appended and not read back in time is appended again: it counts once.
    pub fn append_job_again(&mut self) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let newest = active.fold.checkpoints().newest().map(|newest| newest.position);
        let Some(CheckpointJob { stage: Stage::Recording { saved, sent }, .. }) = &mut active.job else { return };
        if newest >= Some(saved.position) {
            let message = "a newer checkpoint was recorded meanwhile".to_owned();
            self.end_job(Err(SaveFailure { code: FailureCode::Checkpoint, message }));
        } else if now >= *sent + APPEND_AGAIN {
            *sent = now;
            self.append_for_job();
        }
    }

    fn end_job(&mut self, result: Result<Saved, SaveFailure>) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(job) = active.job.take() else { return };
        drop(job.tasks);
        if let Ok(saved) = &result {
            self.upkeep.succeeded(job.progress, saved.clone(), now - job.began);
            self.clean();
        }
        match (job.purpose, result) {
            (Purpose::Upkeep, Ok(_)) => {}
            (Purpose::Upkeep, Err(failure)) => self.upkeep_failed(&failure.message),
            (Purpose::Step(command), result) => self.save_ended(&command, result),
        }
    }
}

fn parts(active: &Active, shard: &broker_adapter::ids::ShardId) -> Parts {
    let kept = active.fold.checkpoints().kept();
    let reuse: Vec<(Position, Hash)> =
        kept.iter().rev().take(KEPT_UNPINNED).map(|kept| (kept.position, kept.manifest)).collect();
    Parts {
        shard: shard.clone(),
        epoch: active.fold.epoch(),
        fold: active.fold.clone(),
        replies: active.kept.to_vec(),
        hash: active.running.current(),
        reuse,
    }
}
