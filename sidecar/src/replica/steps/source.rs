//! The source's steps: prepare, checkpoint (saved, recorded, pinned), and the release of its pin.

use std::time::Duration;

use broker_adapter::ids::MigrationId;
use broker_adapter::record::{Pin, Record};

use super::super::engine::{APPEND_AGAIN, Engine, Life};
use super::super::job::{Purpose, SaveFailure};
use crate::checkpoint::save::Saved;
use crate::command::{Command, FailureCode, Step, StepDone};

/// A round of a precopy that stores more than so much of the one before is the last one.
const ROUND_SHRINKS_PERCENT: u64 = 80;
/// And so is one that stores no more than so much of the state.
const ROUND_SMALL_PERCENT: u64 = 2;

/// How far a precopy's checkpoints before the pause are.
#[derive(Clone, Copy, Debug)]
pub(in crate::replica) struct Rounds {
    /// Migration and attempt.
    of: (MigrationId, u32),
    done: u32,
    stored_bytes: u64,
}

/// A counted checkpoint that a migration holds as soon as its pin counts.
pub(in crate::replica) struct Pinning {
    command: Command,
    saved: Saved,
    sent: Duration,
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

    /// Takes a checkpoint as soon as this replica may, or the last one if replaying from there takes no longer; then pins it.
    pub(super) async fn advance_checkpoint(&mut self, command: &Command) {
        let Life::Active(active) = &self.life else { return };
        if active.pinning.is_some() || active.fold.epoch().next() != command.epoch || !self.may_save() {
            return;
        }
        match self.recent_checkpoint().filter(|_| !matches!(command.step, Step::Checkpoint { rounds: 2.. })) {
            Some(saved) => {
                // Once: a migration that failed over it shall not meet it again.
                self.upkeep.last = None;
                self.pin(command, saved);
            }
            None => self.begin_save(Purpose::Step(Box::new(command.clone()))).await,
        }
    }

    /// The newest checkpoint, if this process took it and what came behind it is replayed sooner than a new one is saved.
    fn recent_checkpoint(&self) -> Option<Saved> {
        let Life::Active(active) = &self.life else { return None };
        let (saved, took) = self.upkeep.last.as_ref()?;
        let newest = active.fold.checkpoints().newest()?;
        let behind = active.fold.position().records_since(saved.position);
        if newest.manifest != saved.manifest || behind > self.context.config.checkpoint.reuse_records {
            return None;
        }
        let each = &self.context.metrics.delivery_seconds;
        let mean_s = each.get_sample_sum() / each.get_sample_count().max(1) as f64;
        (behind as f64 * mean_s <= took.as_secs_f64()).then(|| saved.clone())
    }

    /// What became of the checkpoint that a step asked for.
    pub(in crate::replica) fn save_ended(&mut self, command: &Command, result: Result<Saved, SaveFailure>) {
        match result {
            // The next round begins when the step is looked at again.
            Ok(saved) if self.is_worth_another_round(command, &saved) => {}
            Ok(saved) => self.pin(command, saved),
            Err(SaveFailure { code, message }) => self.steps.fail(command, code, &message),
        }
    }

    /// Of a precopy: whether less will be left to save after another checkpoint. Each one stores only what changed since the one
    /// before, so they get smaller until that is what changes while one is taken.
    fn is_worth_another_round(&mut self, command: &Command, saved: &Saved) -> bool {
        let Step::Checkpoint { rounds } = command.step else { return false };
        let of = (command.migration, command.attempt);
        let before = self.rounds.take().filter(|before| before.of == of);
        let done = before.as_ref().map_or(0, |before| before.done) + 1;
        let shrinks =
            before.is_none_or(|before| saved.stored_bytes < before.stored_bytes * ROUND_SHRINKS_PERCENT / 100);
        let is_small = saved.stored_bytes <= saved.state_bytes * ROUND_SMALL_PERCENT / 100;
        if done >= rounds || !shrinks || is_small {
            return false;
        }
        self.rounds = Some(Rounds { of, done, stored_bytes: saved.stored_bytes });
        true
    }

    pub(in crate::replica) fn pin(&mut self, command: &Command, saved: Saved) {
        let sent = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        active.pinning = Some(Pinning { command: command.clone(), saved, sent });
        self.append_pin();
    }

    fn append_pin(&self) {
        let Life::Active(active) = &self.life else { return };
        let (Some(pinning), Some(writer)) = (&active.pinning, self.writer()) else { return };
        let (holder, checkpoint) = (pinning.command.migration, pinning.saved.position);
        self.append(vec![Record::Pin(Pin { writer, holder, checkpoint, release: false })]);
    }

    /// A pin counted.
    pub fn pin_counted(&mut self, pin: &Pin) {
        let Life::Active(active) = &mut self.life else { return };
        let wanted = |pinning: &mut Pinning| {
            !pin.release && pin.holder == pinning.command.migration && pin.checkpoint == pinning.saved.position
        };
        let Some(Pinning { command, saved, .. }) = active.pinning.take_if(wanted) else { return };
        let done = StepDone::Checkpoint {
            position: saved.position,
            manifest: saved.manifest,
            state_bytes: saved.state_bytes,
            stored_bytes: saved.stored_bytes,
            reused_bytes: saved.reused_bytes,
        };
        self.done(&command, done);
    }

    /// What was appended and not read back in time is appended again: it counts once.
    pub fn append_pin_again(&mut self) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(pinning) = &mut active.pinning else { return };
        if now >= pinning.sent + APPEND_AGAIN {
            pinning.sent = now;
            self.append_pin();
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
}
