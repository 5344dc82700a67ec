//! What the driver knows of a running migration beside the book: what was heard, what is being written, what is due.
//!
//! All of it may be lost with the process. What was heard waits here until the word before it was read back; whether it still
//! says anything new is asked of the machine.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::{Bug, CountedFence};
use broker_adapter::ids::{Epoch, Position};
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Fence, Record};
use broker_adapter::shell::TaskSet;
use sidecar::command::{Command, NodeMail, Step, encode, migrator_address, node_address};
use tokio::sync::oneshot;

use super::{Hands, Inbox};
use crate::book::Word;
use crate::config::Deadlines;
use crate::directory::Directory;
use crate::handle::CancelError;
use crate::machine::{AttemptStart, Event, Migration, Phase, Tell, Want, What, next, wants};
use crate::trace::Trace;
use crate::view::MigrationView;

/// How many outcomes wait for the word before them; the oldest goes, and is answered again.
const HEARD_MAX: usize = 64;
/// After-care is never urgent, and the new owner must have read its fence before its release of a pin can count.
const CARE_AFTER: Duration = Duration::from_millis(250);
/// How many fences are remembered beyond the one that is waited for.
const FENCES_MAX: usize = 256;

/// A word on its way to the journal.
pub struct Writing {
    pub word: Word,
    pub again_at: Duration,
}

/// One migration in this process.
pub struct Running {
    pub writing: Option<Writing>,
    pub lag_records: Option<u64>,
    pub act_at: Duration,
    pub held: bool,
    pub appending: bool,
    pub follower: Option<TaskSet>,
    pub trace: Trace,
    pub cancelling: Vec<oneshot::Sender<Result<MigrationView, CancelError>>>,
    heard: VecDeque<What>,
    fences: BTreeMap<Epoch, CountedFence>,
    shard_epoch: Option<Epoch>,
    since: Duration,
    ends_by: Option<Duration>,
}

impl Running {
    /// Until when it must have ended, if its order says.
    pub fn new(now: Duration, ends_by: Option<Duration>) -> Running {
        Running {
            ends_by,
            writing: None,
            lag_records: None,
            act_at: now,
            held: false,
            appending: false,
            follower: None,
            trace: Trace::default(),
            cancelling: Vec::new(),
            heard: VecDeque::new(),
            fences: BTreeMap::new(),
            shard_epoch: None,
            since: now,
        }
    }

    pub fn hear(&mut self, what: What) {
        if self.heard.len() == HEARD_MAX {
            self.heard.pop_front();
        }
        self.heard.push_back(what);
    }

    /// The shard's log was read up to where `epoch` holds, and these fences counted.
    pub fn shard_read(&mut self, epoch: Epoch, fences: Vec<CountedFence>) {
        self.shard_epoch = self.shard_epoch.max(Some(epoch));
        for fence in fences {
            if self.fences.len() < FENCES_MAX {
                self.fences.insert(fence.epoch, fence);
            }
        }
    }

    pub fn written(&mut self, word: &Word) {
        if self.writing.as_ref().is_some_and(|writing| writing.word == *word) {
            self.writing = None;
        }
    }

    pub fn release(&mut self, now: Duration) {
        self.held = false;
        self.since = now;
        self.act_at = now;
    }

    /// The book has changed: what the new state wants is due at once.
    pub fn changed(&mut self, before: Option<&Migration>, after: &Migration, now: Duration) {
        let is_new_phase =
            before.is_none_or(|before| before.phase != after.phase || before.attempt.number != after.attempt.number);
        if is_new_phase {
            self.since = now;
        }
        self.trace.follow(after);
        self.fences = self.fences.split_off(&after.attempt.epoch);
        self.act_at = if is_new_phase && after.has_ended() { now + CARE_AFTER } else { now };
    }

    /// What is to be written down next; nothing while a word is on its way.
    pub fn next_what(
        &mut self,
        state: &Migration,
        directory: &Directory,
        deadlines: &Deadlines,
        now: Duration,
    ) -> Option<What> {
        if self.writing.is_some() {
            return None;
        }
        let is_new = |what: &What| next(state, &Event { at_ms: 0, what: what.clone() }).0 != *state;
        let cancel = (!self.cancelling.is_empty()).then_some(What::CancelRequested);
        if self.held {
            return cancel.filter(is_new);
        }
        let first = [self.fence(state), cancel, begin(state, directory), target_lost(state, directory)];
        if let Some(what) = first.into_iter().flatten().find(is_new) {
            return Some(what);
        }
        while let Some(what) = self.heard.pop_front() {
            if is_new(&what) {
                return Some(what);
            }
        }
        let too_late = What::OrderTooLate { limit_s: state.order.deadline_s.unwrap_or_default() };
        if self.ends_by.is_some_and(|ends_by| now >= ends_by) && state.voided_by.is_none() && is_new(&too_late) {
            return Some(too_late);
        }
        let cutoff = state.order.cutoff_ms.filter(|_| state.phase == Phase::Replay).map(Duration::from_millis);
        if cutoff.is_some_and(|cutoff| now >= self.since + cutoff) {
            return Some(What::CutoffPassed { attempt: state.attempt.number }).filter(is_new);
        }
        let limit = deadlines.of(state.phase)?;
        let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        let late = if state.has_ended() {
            What::CareGivenUp
        } else {
            What::DeadlinePassed { attempt: state.attempt.number, phase: state.phase, limit_ms }
        };
        (now >= self.since + limit).then_some(late).filter(is_new)
    }

    fn fence(&self, state: &Migration) -> Option<What> {
        let epoch = state.attempt.epoch;
        match self.fences.get(&epoch) {
            Some(fence) => Some(What::FenceRead(fence.clone())),
            None if self.shard_epoch >= Some(epoch) => Some(What::FenceForgotten { epoch }),
            None => None,
        }
    }

    /// When something is to be done without anything being heard.
    pub fn due(&self, state: &Migration, deadlines: &Deadlines) -> Duration {
        let again = self.writing.as_ref().map(|writing| writing.again_at);
        let act = (!self.held).then_some(self.act_at);
        let may_be_late = self.writing.is_none() && !self.held && state.voided_by.is_none();
        let late = deadlines.of(state.phase).filter(|_| may_be_late).map(|limit| self.since + limit);
        let cutoff = state.order.cutoff_ms.filter(|_| may_be_late && state.phase == Phase::Replay);
        let cutoff = cutoff.map(|cutoff_ms| self.since + Duration::from_millis(cutoff_ms));
        let ends_by = self.ends_by.filter(|_| may_be_late && state.row().is_some());
        let due = [again, act, late, cutoff, ends_by].into_iter().flatten().min();
        due.unwrap_or(Duration::MAX)
    }

    /// Does what the state wants, once more.
    pub fn act(&mut self, state: &Migration, directory: &Directory, hands: &Hands) {
        for want in wants(state) {
            match want {
                Want::Tell(tell) => send(state, tell, directory, hands),
                Want::Append(fence) => self.append(state, fence, hands),
                // Written down by `next_what`.
                Want::Begin { .. } => {}
            }
        }
    }

    /// Only one that has read fence E−1 appends E, and one append at a time.
    fn append(&mut self, state: &Migration, fence: Fence, hands: &Hands) {
        if hands.rules.plant(Bug::EndWithoutFence) {
            let Fence { epoch, owner, cause, migration, retires } = fence;
            let position = Position::ZERO;
            return self.hear(What::FenceRead(CountedFence { position, epoch, owner, cause, migration, retires }));
        }
        if self.appending || self.shard_epoch.map(Epoch::next) != Some(fence.epoch) {
            return;
        }
        self.appending = true;
        let id = state.order.id;
        let log_name = state.order.shard.log_name();
        let hands = hands.clone();
        hands.shell.clone().spawn(async move {
            let appended = async {
                let log: Arc<dyn MessageLog> = hands.broker.log(&log_name).await.map_err(|error| error.to_string())?;
                log.append(vec![Record::Fence(fence)]).await.map_err(|error| error.to_string())
            };
            if let Err(error) = appended.await {
                tracing::warn!(%id, error, "the fence that ends a migration is tried again");
            }
            // The driver has ended otherwise.
            let _ = hands.inbox.send(Inbox::FenceTried(id)).await;
        });
    }
}

fn send(state: &Migration, tell: Tell, directory: &Directory, hands: &Hands) {
    let address = node_address(&tell.to.node);
    let present = directory.replica(&tell.to.node).filter(|_| tell.step == Step::Release);
    // A pin outlives the run that took it: whoever owns on that node now ends it.
    let to = present.unwrap_or(&tell.to).clone();
    let command = Command {
        migration: state.order.id,
        attempt: tell.attempt,
        shard: state.order.shard.clone(),
        epoch: tell.epoch,
        to,
        answer_to: migrator_address(hands.me.incarnation),
        step: tell.step,
    };
    hands.broker.mailbox().send(&address, encode(&NodeMail::Command(command)));
}

fn begin(state: &Migration, directory: &Directory) -> Option<What> {
    let Some(Want::Begin { number, epoch, source }) = wants(state).into_iter().next() else { return None };
    // The target may have restarted meanwhile: nothing of the void attempt is needed.
    let target = directory.replica(&state.order.to).unwrap_or(&state.attempt.target).clone();
    Some(What::AttemptBegun(AttemptStart { number, epoch, source, target }))
}

fn target_lost(state: &Migration, directory: &Directory) -> Option<What> {
    let now = directory.replica(&state.order.to)?.incarnation;
    Some(What::TargetLost { attempt: state.attempt.number, now })
}
