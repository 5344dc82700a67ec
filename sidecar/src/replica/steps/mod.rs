//! The source's and the target's parts of a migration: each command a step that may come twice, late, or never.
//!
//! A command is obeyed only while the fold at the tail stands at E−1; a step that was begun is not begun again, and its outcome is
//! told whenever the command comes. A target fences only if it is caught up, has agreed in this attempt and never differed.

mod source;
mod target;

use std::collections::{BTreeMap, VecDeque};

use broker_adapter::ids::{Epoch, MigrationId};

pub(in crate::replica) use source::{Pinning, Rounds};
pub(in crate::replica) use target::Target;

use super::divergence::Divergence;
use super::engine::{Engine, Life};
use crate::command::{Command, FailureCode, Outcome, Step, StepDone, StepFailure, StepStatus, encode};

/// How many steps' outcomes are remembered: those of the last few migrations.
const STEPS_REMEMBERED: usize = 256;

type StepKey = (MigrationId, u32, &'static str);

/// What became of the steps that this replica was told.
#[derive(Default)]
pub(in crate::replica) struct StepTable {
    known: BTreeMap<StepKey, (Command, StepStatus)>,
    order: VecDeque<StepKey>,
    under_way: usize,
    /// Outcomes that nobody was told yet.
    news: Vec<StepKey>,
    /// Why the last attempt that failed here as a whole did: its next step is told, if it failed between two.
    ended: Option<(MigrationId, u32, String)>,
}

impl StepTable {
    fn key(command: &Command) -> StepKey {
        (command.migration, command.attempt, command.step.name())
    }

    fn get(&self, command: &Command) -> Option<&StepStatus> {
        self.known.get(&Self::key(command)).map(|(_, status)| status)
    }

    fn set(&mut self, command: &Command, status: StepStatus) {
        let key = Self::key(command);
        if !matches!(status, StepStatus::Running { .. }) {
            self.news.push(key);
        }
        let runs = |status: &StepStatus| usize::from(matches!(status, StepStatus::Running { .. }));
        self.under_way += runs(&status);
        let before = self.known.insert(key, (command.clone(), status));
        self.under_way -= before.as_ref().map_or(0, |(_, status)| runs(status));
        if before.is_none() {
            self.order.push_back(key);
            if self.order.len() > STEPS_REMEMBERED
                && let Some(oldest) = self.order.pop_front()
            {
                let gone = self.known.remove(&oldest);
                self.under_way -= gone.map_or(0, |(_, status)| runs(&status));
            }
        }
    }

    pub fn fail(&mut self, command: &Command, code: FailureCode, message: &str) {
        self.set(command, StepStatus::Failed(StepFailure::new(code, message)));
    }

    pub fn diverged(&mut self, command: &Command, diverged: &Divergence) {
        self.set(command, StepStatus::Failed(diverged.failure()));
    }

    /// Everything that this attempt has running here has failed.
    pub fn fail_all(&mut self, of: &Command, code: FailureCode, message: &str) {
        self.ended = Some((of.migration, of.attempt, message.to_owned()));
        for command in self.running() {
            if (command.migration, command.attempt) == (of.migration, of.attempt) {
                self.fail(&command, code, message);
            }
        }
    }

    /// Why the attempt of this command failed as a whole, if it did.
    fn why_ended(&self, command: &Command) -> Option<&str> {
        let (migration, attempt, message) = self.ended.as_ref()?;
        ((*migration, *attempt) == (command.migration, command.attempt)).then_some(message)
    }

    /// A fence of this epoch counted: the attempts that wanted it, or an earlier one, are over. What a handover came to, its
    /// own fence tells; what is taken back is taken back at any epoch.
    pub fn void(&mut self, epoch: Epoch) {
        for command in self.running() {
            let goes_on = matches!(command.step, Step::Handover { .. } | Step::Discard | Step::Release);
            if command.epoch <= epoch && !goes_on {
                self.fail(&command, FailureCode::WrongEpoch, &format!("a fence of epoch {epoch} counted"));
            }
        }
    }

    /// Nothing is under way: true for almost every record.
    fn idle(&self) -> bool {
        self.under_way == 0 && self.news.is_empty()
    }

    fn running(&self) -> Vec<Command> {
        let running = |(_, status): &&(Command, StepStatus)| matches!(status, StepStatus::Running { .. });
        self.known.values().filter(running).map(|(command, _)| command.clone()).collect()
    }
}

impl Engine {
    /// A migrator tells a step.
    pub fn command(&mut self, command: Command) {
        if let Some(status) = self.steps.get(&command) {
            let status = match status {
                StepStatus::Running { .. } => self.running(),
                ended => ended.clone(),
            };
            self.tell(&command, status);
            return;
        }
        if command.to != self.context.me {
            let message = format!("{} is another run of this node; this one is {}", command.to, self.context.me);
            self.steps.fail(&command, FailureCode::WrongIncarnation, &message);
            return;
        }
        let at_any_epoch = matches!(command.step, Step::Discard | Step::Release);
        let epoch = self.tail.borrow().epoch;
        if !at_any_epoch && epoch.next() > command.epoch {
            let message = format!("the shard stands at epoch {epoch}: the command for {} is void", command.epoch);
            self.steps.fail(&command, FailureCode::WrongEpoch, &message);
            return;
        }
        if !at_any_epoch && epoch.next() < command.epoch {
            // This node has not read as far as the migrator; the command will come again.
            self.tell(&command, self.running());
            return;
        }
        self.steps.set(&command, self.running());
        self.begin_step(command);
    }

    fn begin_step(&mut self, command: Command) {
        match command.step.clone() {
            Step::Transfer { checkpoint, manifest } => self.begin_transfer(&command, checkpoint, manifest),
            Step::Verify { mark } => self.begin_verify(&command, mark),
            // These wait for something; see `advance`.
            Step::PrepareTarget { .. }
            | Step::PrepareSource
            | Step::Checkpoint { .. }
            | Step::Pause { .. }
            | Step::Restore
            | Step::Replay { .. }
            | Step::Handover { .. }
            | Step::Discard
            | Step::Release => {}
        }
    }

    /// Looks at every step that is under way, and tells what has ended.
    pub async fn advance(&mut self) {
        if self.steps.idle() {
            return;
        }
        for command in self.steps.running() {
            match &command.step {
                Step::PrepareSource => self.advance_prepare_source(&command),
                Step::Checkpoint { .. } => self.advance_checkpoint(&command).await,
                Step::Pause { save, limit_ms } => self.advance_pause(&command, *save, *limit_ms).await,
                Step::Transfer { .. } | Step::Restore => self.advance_load(&command),
                Step::Replay { lag_limit_records } => self.advance_replay(&command, *lag_limit_records),
                Step::Verify { mark } => self.advance_verify(&command, *mark),
                Step::Handover { when, cause } => self.advance_handover(&command, *when, *cause),
                Step::Discard => self.advance_discard(&command),
                Step::Release => self.advance_release(&command),
                Step::PrepareTarget { reuse } => self.advance_prepare_target(&command, *reuse),
            }
        }
        for key in std::mem::take(&mut self.steps.news) {
            if let Some((command, status)) = self.steps.known.get(&key) {
                self.tell(command, status.clone());
            }
        }
    }

    fn tell(&self, command: &Command, status: StepStatus) {
        let outcome = Outcome {
            migration: command.migration,
            attempt: command.attempt,
            step: command.step.name().to_owned(),
            from: self.context.me.clone(),
            status,
        };
        self.context.mailbox.send(&command.answer_to, encode(&outcome));
    }

    fn running(&self) -> StepStatus {
        let bytes = if let Life::Loading(loading) = &self.life { loading.bytes } else { 0 };
        let lag_records = self.lag_records();
        StepStatus::Running { lag_records: if lag_records == u64::MAX { 0 } else { lag_records }, bytes }
    }

    pub fn done(&mut self, command: &Command, done: StepDone) {
        self.steps.set(command, StepStatus::Done(done));
    }
}
