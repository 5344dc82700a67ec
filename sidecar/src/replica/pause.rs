//! The source's pause: nothing behind its position is applied until the log says how the shard goes on (invariant 2).
//!
//! ```text
//!             s = position at the pause            fence E
//!   ──┬──┬──┬──╥──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──╥──▶
//!   applied    ║  read ahead, not applied          ║ to itself: goes on behind s
//!   and given  ║  (by a fold of its own)           ║ to others: a standby that gives nothing out, or no replica any more
//! ```
//! A paused source resumes only by a counted fence to itself; at its deadline it tries to append one. The pause belongs to the
//! engine, not to the instance: a service that fails meanwhile is loaded again and comes to s, no further.

use std::time::Duration;

use broker_adapter::fold::{Bug, CountedFence, Fold, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::ReadError;
use broker_adapter::record::{Cause, Entry, Fence, Record};

use super::engine::{APPEND_AGAIN, Engine, Life};
use super::job::{CheckpointJob, Purpose};
use crate::catch_up::CatchUp;
use crate::checkpoint::save::Saved;
use crate::command::{Command, FailureCode, StepDone};

/// A pause in force.
pub(super) struct Pause {
    /// Who asked.
    pub command: Command,
    /// The last record that is applied.
    pub at: Position,
    /// Whether the state is carried over: then this replica is no standby afterwards.
    carries: bool,
    /// From when on the source takes itself back.
    deadline: Duration,
    /// When its fence was appended last.
    sent: Option<Duration>,
    /// When its digest was appended last; `None` once it was read back.
    telling: Option<Duration>,
    /// What was saved at `at`, by whichever instance.
    saved: Option<Saved>,
    /// Whether a checkpoint of `at` counted: a second one of the same position never would.
    is_recorded: bool,
    /// Sees what stands behind `at`, and applies nothing.
    ahead: Fold,
    follower: Follower,
}

impl Pause {
    /// The next record behind what was read ahead.
    pub async fn next(&mut self) -> Result<Entry, ReadError> {
        self.follower.next().await
    }
}

impl Engine {
    /// Pauses as soon as this replica has read fence E−1; tells its position, or takes a checkpoint of it.
    pub(super) async fn advance_pause(&mut self, command: &Command, save: bool, limit_ms: u64) {
        let now = self.context.shell.now();
        if self.pause.is_none() {
            let active = match &mut self.life {
                Life::Active(active) => active,
                // It comes back.
                Life::Loading(_) | Life::Waiting { .. } => return,
                Life::Empty | Life::Stopped => {
                    let message = format!("{} has no running replica of {}", self.context.me.node, self.context.shard);
                    return self.steps.fail(command, FailureCode::WrongRole, &message);
                }
            };
            if !active.owns(&self.context.me) || active.fold.epoch().next() != command.epoch {
                return;
            }
            // A service that was loaded again is not yet where it was: behind its pause nothing may have been given out, and no
            // checkpoint of its position may have counted.
            if active.fold.position() < self.reached.max(self.given) {
                return;
            }
            let (at, crc) = (active.fold.position(), active.fold.record_crc());
            // A checkpoint on its way is of an older position, unless its record is all that is still to come: then a second one
            // of this position would never count.
            let saved = active.job.take().and_then(CheckpointJob::recording).filter(|saved| saved.position == at);
            active.pinning = None;
            self.pause = Some(Pause {
                command: command.clone(),
                at,
                carries: save,
                deadline: now + Duration::from_millis(limit_ms),
                sent: None,
                telling: Some(now),
                saved,
                is_recorded: false,
                ahead: active.fold.clone(),
                follower: Follower::new(self.context.log.clone(), self.context.shell.clone(), at, crc),
            });
            tracing::info!(shard = %self.context.shard, position = %at, "paused");
            // What the target compares with: the hash of everything that was given out.
            self.append_digest(None, None);
        }
        let Some(pause) = &self.pause else { return };
        let at = pause.at;
        if save {
            let recorded = pause.saved.clone().filter(|_| pause.is_recorded);
            let Life::Active(active) = &self.life else { return };
            match recorded {
                Some(saved) if active.pinning.is_none() => self.pin(command, saved),
                None if active.fold.position() == at && self.may_save() => {
                    self.begin_save(Purpose::Step(Box::new(command.clone()))).await;
                }
                _ => {}
            }
        } else {
            self.done(command, StepDone::Paused { position: at });
        }
    }

    /// A save ended: if it is one of the pause's position, it may have to be found again when the service has died meanwhile.
    pub(super) fn saved_in_pause(&mut self, saved: &Saved) {
        if let Some(pause) = self.pause.as_mut().filter(|pause| pause.at == saved.position) {
            pause.saved.get_or_insert_with(|| saved.clone());
        }
    }

    /// How long the pause may still take.
    pub(super) fn pause_left(&self) -> Option<Duration> {
        let pause = self.pause.as_ref()?;
        Some(pause.deadline.saturating_sub(self.context.shell.now()))
    }

    /// Whether the replica applies nothing more now.
    pub(super) fn stands_still(&self) -> bool {
        match (&self.pause, &self.life) {
            (Some(pause), Life::Active(active)) => active.fold.position() >= pause.at,
            (pause, _) => pause.is_some(),
        }
    }

    /// Reads a record behind the pause: only what tells of owners, and what this source wrote itself, matters.
    pub(super) fn read_ahead(&mut self, entry: &Entry) {
        let Some(pause) = &mut self.pause else { return };
        let verdict = pause.ahead.observe(entry);
        match (&entry.record, &verdict) {
            (_, Verdict::Fenced(fence)) => self.pause_ended(fence),
            (Record::Checkpoint(checkpoint), Verdict::Noted) => {
                if let Some(saved) = pause.saved.as_mut().filter(|saved| saved.position == checkpoint.position) {
                    (saved.manifest, saved.record_crc) = (checkpoint.manifest, checkpoint.record_crc);
                    pause.is_recorded = true;
                }
                self.checkpoint_counted(checkpoint);
            }
            (Record::Pin(pin), Verdict::Noted) => self.pin_counted(pin),
            (Record::Digest(digest), Verdict::Noted) if digest.position == pause.at => pause.telling = None,
            _ => {}
        }
    }

    /// What stands behind the pause cannot be read. If it was trimmed, a later owner has gone on, and the fold of a newer
    /// checkpoint tells by which fence; the replica's own reader then finds out that it is behind.
    pub(super) async fn unreadable_ahead(&mut self, error: ReadError) {
        let Some(pause) = &self.pause else { return };
        let epoch = pause.command.epoch;
        let found = match error {
            ReadError::Trimmed { .. } => CatchUp::of(&self.context).run().await.map_err(|error| error.to_string()),
            error => Err(error.to_string()),
        };
        let ended = found.map(|(fold, _)| {
            let fence = fold.fences().find(|fence| fence.epoch >= epoch).cloned();
            fence.ok_or_else(|| format!("the log was trimmed behind the pause, and no fence {epoch} counted"))
        });
        match ended.flatten() {
            Ok(fence) => self.pause_ended(&fence),
            Err(reason) => {
                self.pause = None;
                self.stop(reason);
            }
        }
    }

    fn pause_ended(&mut self, fence: &CountedFence) {
        let Some(pause) = self.pause.take() else { return };
        self.note_owner(fence);
        self.steps.void(fence.epoch);
        if let Life::Active(active) = &mut self.life {
            (active.job, active.pinning) = (None, None);
        }
        if fence.owner == self.context.me {
            tracing::info!(shard = %self.context.shard, position = %pause.at, epoch = %fence.epoch, "goes on behind its pause");
            return;
        }
        // What stands between the pause and the fence is the new owner's to give out.
        self.silent_below = self.silent_below.max(fence.epoch);
        if pause.carries {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, owner = %fence.owner, "its state was carried away");
            self.drop_replica();
        }
    }

    /// Appends again what was not read back; at its deadline the source takes itself back: the fence E to itself, or another
    /// one, ends the pause.
    pub(super) fn tend_pause(&mut self) {
        let now = self.context.shell.now();
        if self.stands_still()
            && let Some(Pause { telling: Some(told), .. }) = &mut self.pause
            && now >= *told + APPEND_AGAIN
        {
            *told = now;
            self.append_digest(None, None);
        }
        let me = self.context.me.clone();
        let Some(pause) = &mut self.pause else { return };
        if now < pause.deadline || pause.sent.is_some_and(|sent| now < sent + APPEND_AGAIN) {
            return;
        }
        if self.context.rules.plant(Bug::ResumeWithoutFence) {
            self.pause = None;
            return;
        }
        pause.sent = Some(now);
        let (epoch, migration) = (pause.command.epoch, Some(pause.command.migration));
        tracing::warn!(shard = %self.context.shard, position = %pause.at, "the pause is over its limit");
        self.append(vec![Record::Fence(Fence { epoch, owner: me, cause: Cause::Resume, migration, retires: None })]);
    }
}
