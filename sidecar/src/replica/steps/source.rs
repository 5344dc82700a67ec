//! The source's steps: prepare, checkpoint (saved, recorded, pinned), and the release of its pin.

use std::time::Duration;

use broker_adapter::record::{Checkpoint, Pin, Record};
use broker_adapter::shell::TaskSet;

use super::super::engine::{APPEND_AGAIN, Engine, Event, Life};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::save::{Parts, Saved};
use crate::command::{Command, FailureCode, StepDone};

/// A checkpoint that a migration asked for.
pub(in crate::replica) struct CheckpointJob {
    command: Command,
    /// Which one: what an earlier one reports is dropped.
    number: u64,
    stage: Stage,
    /// What saves; ends with the job.
    _tasks: TaskSet,
}

enum Stage {
    Saving,
    Recording { saved: Saved, sent: Duration },
    Pinning { saved: Saved, sent: Duration },
}

impl Engine {
    pub(super) fn advance_prepare_source(&mut self, command: &Command) {
        match &self.life {
            Life::Active(active) if active.owns(&self.context.me) => self.done(command, StepDone::Plain),
            // It comes back, or its fold has not reached its own fence yet.
            Life::Active(_) | Life::Loading(_) | Life::Waiting { .. } => {}
            Life::Empty | Life::Stopped => {
                let message = format!("{} has no running replica of {}", self.context.me.node, self.context.shard);
                self.steps.fail(command, FailureCode::WrongRole, &message);
            }
        }
    }

    /// Begins to save as soon as this replica is at hand; goes on where the log has counted what was written.
    pub(super) async fn advance_checkpoint(&mut self, command: &Command) {
        let Life::Active(active) = &mut self.life else { return };
        if !active.owns(&self.context.me) || active.job.is_some() || active.fold.epoch().next() != command.epoch {
            return;
        }
        self.jobs += 1;
        let (number, tasks) = (self.jobs, active.tasks.tasks().part());
        let saving = tasks.tasks();
        active.job = Some(CheckpointJob { command: command.clone(), number, stage: Stage::Saving, _tasks: tasks });
        let parts = Parts {
            shard: self.context.shard.clone(),
            by: self.context.me.incarnation,
            fold: active.fold.clone(),
            replies: active.kept.to_vec(),
            hash: active.running.current(),
        };
        let load = active.load;
        // Nothing is delivered between this request and the header of its answer.
        let state = match active.save_state(&self.context).await {
            Ok(state) => state,
            Err(error) => return self.saved(number, Err(error.into())),
        };
        let (writer, events) = (self.checkpoint_writer(), self.events.clone());
        if state.fixed {
            saving.spawn(async move {
                let result = writer.save(parts, state).await;
                // The engine may have ended.
                let _ = events.send(Event::Saved { load, job: number, result }).await;
            });
        } else {
            let result = writer.save(parts, state).await;
            self.saved(number, result);
        }
    }

    pub fn saved(&mut self, number: u64, result: Result<Saved, CheckpointError>) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(job) = active.job.as_mut().filter(|job| job.number == number) else { return };
        match result {
            Ok(saved) => {
                job.stage = Stage::Recording { saved, sent: now };
                self.context.metrics.checkpoints.inc();
                self.append_for_job();
            }
            Err(error) => {
                let command = job.command.clone();
                active.job = None;
                let code = match &error {
                    CheckpointError::Service(_) => FailureCode::Service,
                    _ => FailureCode::Broker,
                };
                self.steps.fail(&command, code, &format!("the checkpoint could not be taken: {error}"));
            }
        }
    }

    fn append_for_job(&self) {
        let Life::Active(active) = &self.life else { return };
        let (Some(job), Some(writer)) = (&active.job, self.writer()) else { return };
        match &job.stage {
            Stage::Saving => {}
            Stage::Recording { saved, .. } => self.append(vec![Record::Checkpoint(Checkpoint {
                writer,
                position: saved.position,
                manifest: saved.manifest,
                record_crc: saved.record_crc,
            })]),
            Stage::Pinning { saved, .. } => self.append(vec![Record::Pin(Pin {
                writer,
                holder: job.command.migration,
                checkpoint: saved.position,
                release: false,
            })]),
        }
    }

    /// A checkpoint's record counted.
    pub fn checkpoint_counted(&mut self, checkpoint: &Checkpoint) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        if let Some(job) = &mut active.job
            && let Stage::Recording { saved, .. } = &job.stage
            && saved.manifest == checkpoint.manifest
        {
            job.stage = Stage::Pinning { saved: saved.clone(), sent: now };
            self.append_for_job();
        }
    }

    /// A pin counted.
    pub fn pin_counted(&mut self, pin: &Pin) {
        let Life::Active(active) = &mut self.life else { return };
        if let Some(job) = &active.job
            && let Stage::Pinning { saved, .. } = &job.stage
            && !pin.release
            && pin.holder == job.command.migration
        {
            let done = StepDone::Checkpoint {
                position: saved.position,
                manifest: saved.manifest,
                state_bytes: saved.state_bytes,
            };
            let command = job.command.clone();
            active.job = None;
            self.done(&command, done);
        }
    }

    /// The pin is released once the log says so; only the owner's word ends it, so one that does not own has nothing to do.
    pub(super) fn advance_release(&mut self, command: &Command) {
        let (me, now) = (self.context.me.clone(), self.context.shell.now());
        let (epoch, owns) = match &self.life {
            Life::Active(active) => (active.fold.epoch(), active.owns(&me)),
            _ => {
                // One borrow: a second one beside it could wait for a writer that waits for the first.
                let tail = self.tail.borrow();
                (tail.epoch, tail.owner.as_ref() == Some(&me))
            }
        };
        // A migration ends behind its fence: who owns then is not known before it was read.
        if epoch < command.epoch {
            return;
        }
        if !owns {
            return self.done(command, StepDone::Plain);
        }
        let Some(writer) = self.writer() else {
            if matches!(self.life, Life::Stopped) {
                self.steps.fail(command, FailureCode::WrongRole, "the replica has stopped and can release nothing");
            }
            return;
        };
        let Life::Active(active) = &mut self.life else { return };
        let held = active.fold.checkpoints().pins().iter().filter(|pin| pin.holder == command.migration);
        let release = |checkpoint| Pin { writer: writer.clone(), holder: command.migration, checkpoint, release: true };
        let releases = held.map(|pin| Record::Pin(release(pin.checkpoint))).collect::<Vec<_>>();
        if releases.is_empty() {
            active.releases.remove(&command.migration);
            return self.done(command, StepDone::Plain);
        }
        if active.releases.get(&command.migration).is_none_or(|sent| now >= *sent + APPEND_AGAIN) {
            active.releases.insert(command.migration, now);
            self.append(releases);
        }
    }

    /// What was appended and not read back in time is appended again: it counts once.
    pub fn append_job_again(&mut self) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(job) = &mut active.job else { return };
        if let Stage::Recording { saved, .. } = &job.stage
            && active.fold.checkpoints().newest().is_some_and(|newest| newest.position >= saved.position)
        {
            let command = job.command.clone();
            active.job = None;
            self.steps.fail(&command, FailureCode::Checkpoint, "a newer checkpoint was recorded meanwhile");
            return;
        }
        match &mut job.stage {
            Stage::Recording { sent, .. } | Stage::Pinning { sent, .. } if now >= *sent + APPEND_AGAIN => {
                *sent = now;
                self.append_for_job();
            }
            _ => {}
        }
    }
}
