//! The target's steps: prepare, transfer, restore, replay, verify, handover, and their one undo.

use std::time::Duration;

use broker_adapter::fold::Bug;
use broker_adapter::ids::{Hash, Id128, Position};
use broker_adapter::record::{Cause, Digest, Fence, Mark, Record};

use super::super::active::Active;
use super::super::divergence::Divergence;
use super::super::engine::{APPEND_AGAIN, Engine, Life};
use super::super::loading::{self, Wanted};
use crate::command::{Command, FailureCode, FenceWhen, Reuse, Step, StepDone, StepFailure};
use crate::config::ProofConfig;

/// A migration's target.
pub(in crate::replica) struct Target {
    /// The command that made it one.
    pub command: Command,
    /// The position of the checkpoint that was loaded for it, or where it stood as a standby.
    pub began: Position,
    /// Whether it was a standby before, and is one again when the migration is undone.
    pub was_standby: bool,
    /// The owner's digest at this target's mark.
    pub owners: Option<Digest>,
    /// Whether source and target agreed in this attempt.
    pub agreed: bool,
    /// Up to where the owner's digests were compared, and agreed, in this attempt.
    pub compared: Option<Position>,
    /// The mark, and when it was appended last.
    mark: Option<(Id128, Duration)>,
    /// When the fence was appended last.
    fence: Option<Duration>,
}

impl Target {
    pub fn new(command: Command, began: Position) -> Target {
        let was_standby = false;
        Target { command, began, was_standby, owners: None, agreed: false, compared: None, mark: None, fence: None }
    }

    /// Whether it goes on although it differs from the owner.
    fn takes_back(&self) -> bool {
        matches!(self.command.step, Step::PrepareTarget { reuse: Reuse::Any })
    }

    /// Whether the mark is this target's.
    pub fn asks(&self, mark: Id128) -> bool {
        self.mark.is_some_and(|(own, _)| own == mark)
    }
}

impl Engine {
    /// A standby that follows the log is as good as a target that was loaded, and so is what an earlier attempt of the same
    /// migration loads; whatever else an earlier attempt or ownership left is replaced by the checkpoint to come.
    pub(super) fn advance_prepare_target(&mut self, command: &Command, reuse: Reuse) {
        // What a replica is at epoch E−1 it knows only once it has read that fence: it may just have been retired.
        if matches!(&self.life, Life::Active(active) if active.fold.epoch().next() < command.epoch) {
            return;
        }
        let owns = self.tail.borrow().owner.as_ref() == Some(&self.context.me);
        if owns {
            self.steps.fail(command, FailureCode::WrongRole, "this node owns the shard already");
            return;
        }
        let warm = match &mut self.life {
            Life::Active(active) if may_go_on(reuse, active.diverged.is_some()) => {
                let position = active.fold.position();
                let was_standby = active.target.as_ref().is_none_or(|before| before.was_standby);
                active.target = Some(Target { was_standby, ..Target::new(command.clone(), position) });
                Some(position)
            }
            Life::Loading(loading)
                if reuse != Reuse::Nothing
                    && loading.target.as_ref().is_some_and(|of| of.migration == command.migration) =>
            {
                loading.target = Some(command.clone());
                Some(loading.position)
            }
            _ => {
                self.drop_replica();
                None
            }
        };
        let differs = matches!(&self.life, Life::Active(active) if active.diverged.is_some());
        self.done(command, StepDone::Prepared { warm, differs });
    }

    pub(super) fn begin_transfer(&mut self, command: &Command, position: Position, manifest: Hash) {
        if !matches!(self.life, Life::Empty) {
            self.steps.fail(command, FailureCode::WrongRole, "this node has a replica that was not prepared");
            return;
        }
        self.loads += 1;
        let wanted = Wanted { load: self.loads, position, manifest, wait: Duration::ZERO };
        let loading = loading::begin(&self.context, wanted, Some(command.clone()), self.events.clone());
        self.life = Life::Loading(Box::new(loading));
    }

    pub(super) fn advance_load(&mut self, command: &Command) {
        let transfer = matches!(command.step, Step::Transfer { .. });
        let same = |of: &Command| (of.migration, of.attempt) == (command.migration, command.attempt);
        let done = match &self.life {
            Life::Loading(loading) if loading.target.as_ref().is_some_and(same) => transfer && loading.streamed,
            Life::Active(active) if active.target.as_ref().is_some_and(|target| same(&target.command)) => true,
            _ => {
                self.no_replica(command);
                return;
            }
        };
        if done {
            self.done(command, StepDone::Plain);
        }
    }

    pub(super) fn advance_replay(&mut self, command: &Command, lag_limit_records: u64) {
        let same = |of: &Command| (of.migration, of.attempt) == (command.migration, command.attempt);
        if matches!(&self.life, Life::Loading(loading) if loading.target.as_ref().is_some_and(same)) {
            // What an earlier attempt began goes on.
            return;
        }
        let Some(target) = self.target_of(command) else { return };
        if !target.takes_back() && self.has_diverged(command) {
            return;
        }
        if self.lag_records() <= lag_limit_records {
            self.done(command, StepDone::Plain);
        }
    }

    pub(super) fn begin_verify(&mut self, command: &Command, mark: Id128) {
        let now = self.context.shell.now();
        if let Some(target) = self.target_of(command) {
            target.mark = Some((mark, now));
            self.append_mark(mark);
        }
    }

    fn append_mark(&self, id: Id128) {
        let state = self.context.config.proof == ProofConfig::State;
        let mark = Mark { id, asker: self.context.me.incarnation, state };
        self.append(vec![Record::Mark(mark)]);
    }

    pub(super) fn advance_verify(&mut self, command: &Command, mark: Id128) {
        if self.target_of(command).is_none() {
            return;
        }
        if self.has_diverged(command) {
            return;
        }
        let Life::Active(active) = &mut self.life else { return };
        let Some((proof, own_state)) = active.own_proof(mark) else { return };
        let (position, hash) = (proof.position, proof.hash);
        let Some(target) = &active.target else { return };
        let Some(owners) = target.owners.clone().filter(|digest| digest.position == position) else { return };
        let state = match (own_state, owners.state) {
            (Some(own), Some(owners)) if own != owners => {
                let diverged = Divergence::of_states(position);
                self.steps.diverged(command, &diverged);
                active.diverged = Some(diverged);
                self.context.metrics.divergences.inc();
                return;
            }
            (Some(own), Some(_)) => Some(own),
            _ => None,
        };
        let demanded = self.context.config.proof != ProofConfig::None;
        let replies_compared = if demanded { proof.replies } else { 0 };
        if let Some(target) = &mut active.target {
            target.agreed = true;
        }
        self.done(command, StepDone::Agreed { position, hash, state, replies_compared });
    }

    /// The target appends the fence itself, as soon as it may: it knows first.
    pub(super) fn advance_handover(&mut self, command: &Command, when: FenceWhen, cause: Cause) {
        if self.target_of(command).is_none() {
            return;
        }
        let (me, now) = (self.context.me.clone(), self.context.shell.now());
        let may = self.may_fence(when);
        let Life::Active(active) = &mut self.life else { return };
        let Some(target) = &mut active.target else { return };
        if active.fold.epoch() >= command.epoch {
            let own = active.fold.fences().find(|fence| fence.epoch == command.epoch);
            let won = own.filter(|fence| fence.owner == me && fence.migration == Some(command.migration));
            if let Some(fence) = won {
                let position = fence.position;
                active.target = None;
                self.done(command, StepDone::Fenced { position });
            } else if self.context.rules.plant(Bug::RecomputedEpoch) && target.fence.take().is_some() {
                let (epoch, migration) = (active.fold.epoch().next(), Some(command.migration));
                self.append(vec![Record::Fence(Fence {
                    epoch,
                    owner: me,
                    cause: Cause::Handover,
                    migration,
                    retires: None,
                })]);
            } else {
                target.fence = None;
                self.steps.fail(command, FailureCode::WrongEpoch, "another fence won");
            }
            return;
        }
        if let Some(diverged) = &active.diverged
            && !matches!(when, FenceWhen::Loaded { .. } | FenceWhen::TakenBack { .. })
        {
            if !diverged.is_asking() {
                self.steps.diverged(command, diverged);
            }
            return;
        }
        let due = target.fence.is_none_or(|sent| now >= sent + APPEND_AGAIN);
        match may {
            Err(failure) => self.steps.fail(command, failure.code, &failure.message),
            Ok(true) if due && active.fold.epoch().next() == command.epoch => {
                target.fence = Some(now);
                let fence =
                    Fence { epoch: command.epoch, owner: me, cause, migration: Some(command.migration), retires: None };
                self.append(vec![Record::Fence(fence)]);
            }
            Ok(_) => {}
        }
    }

    /// Whether the target may append its fence now; an error if it never may.
    fn may_fence(&self, when: FenceWhen) -> Result<bool, StepFailure> {
        let lag_records = self.lag_records();
        let (Life::Active(active), failed) = (&self.life, |code, message: &str| Err(StepFailure::new(code, message)))
        else {
            return Ok(false);
        };
        let Some(target) = &active.target else { return Ok(false) };
        let position = active.fold.position();
        if let FenceWhen::Loaded { paused } = when {
            if target.began != paused {
                return failed(FailureCode::Checkpoint, "the checkpoint that was loaded is not the paused source's");
            }
            return Ok(true);
        }
        if let FenceWhen::TakenBack { lag_limit_records } = when {
            return Ok(lag_records <= lag_limit_records);
        }
        if active.diverged.is_some() {
            return failed(FailureCode::Diverged, "the replicas did not agree in this attempt");
        }
        match when {
            FenceWhen::Near { lag_limit_records } if target.agreed => Ok(lag_records <= lag_limit_records),
            FenceWhen::Near { .. } => failed(FailureCode::Diverged, "the replicas did not agree in this attempt"),
            // The source tells its hash as it pauses: behind that, agreement covers all that it gave out.
            FenceWhen::CaughtUp { paused, needs_replies } => {
                let has_all = position >= paused && target.compared >= Some(paused);
                // What came behind the pause nobody compared.
                if has_all && needs_replies && !active.running.informs_by(paused) {
                    return failed(
                        FailureCode::Unproven,
                        "no reply with a content came since the load, so nothing was compared",
                    );
                }
                Ok(has_all)
            }
            FenceWhen::Loaded { .. } | FenceWhen::TakenBack { .. } => Ok(true),
        }
    }

    /// Undo of everything that the target did. A replica whose fence is in flight is kept until the epoch moves.
    pub(super) fn advance_discard(&mut self, command: &Command) {
        // Until this node has read fence E, a late command could still make it a target.
        if self.tail.borrow().epoch < command.epoch {
            return;
        }
        let of_this = |of: &Command| of.migration == command.migration && of.attempt <= command.attempt;
        let drops = match &self.life {
            Life::Loading(loading) => loading.target.as_ref().is_some_and(of_this),
            Life::Active(active) => match &active.target {
                Some(target) if of_this(&target.command) => {
                    if target.fence.is_some() && active.fold.epoch() < command.epoch {
                        return;
                    }
                    !active.owns(&self.context.me)
                }
                _ => false,
            },
            _ => false,
        };
        if drops {
            self.steps.fail_all(command, FailureCode::NoReplica, "the migration was undone");
            match &mut self.life {
                Life::Active(active) if active.target.as_ref().is_some_and(|target| target.was_standby) => {
                    active.target = None;
                }
                _ => self.drop_replica(),
            }
        }
        self.done(command, StepDone::Plain);
    }

    /// Ends the step once it is known where the replicas differ.
    fn has_diverged(&mut self, command: &Command) -> bool {
        let Life::Active(active) = &self.life else { return false };
        let Some(diverged) = &active.diverged else { return false };
        if !diverged.is_asking() {
            self.steps.diverged(command, diverged);
        }
        true
    }

    /// If it is a target, its steps have failed; whether that is all that it was.
    pub(in crate::replica) fn target_failed(&mut self, active: &Active, code: FailureCode, message: &str) -> bool {
        let Some(target) = &active.target else { return false };
        self.steps.fail_all(&target.command, code, message);
        !target.was_standby
    }

    fn target_of(&mut self, command: &Command) -> Option<&mut Target> {
        let mut is_target = false;
        if let Life::Active(active) = &self.life
            && let Some(target) = &active.target
        {
            is_target = (target.command.migration, target.command.attempt) == (command.migration, command.attempt);
        }
        if !is_target {
            self.no_replica(command);
            return None;
        }
        let Life::Active(active) = &mut self.life else { return None };
        active.target.as_mut()
    }

    fn no_replica(&mut self, command: &Command) {
        let why = self.steps.why_ended(command).map_or(String::new(), |why| format!(": {why}"));
        let message = format!("{} has no replica of this attempt (any more){why}", self.context.me.node);
        self.steps.fail(command, FailureCode::NoReplica, &message);
    }

    /// A mark that was appended and not read back in time is appended again: the first one read back is the one.
    pub fn append_mark_again(&mut self) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(target) = &mut active.target else { return };
        let Some((id, sent)) = &mut target.mark else { return };
        let read = active.proofs.iter().any(|proof| proof.mark == *id);
        if !target.agreed && !read && now >= *sent + APPEND_AGAIN {
            *sent = now;
            let id = *id;
            self.append_mark(id);
        }
    }
}

fn may_go_on(reuse: Reuse, differs: bool) -> bool {
    match reuse {
        Reuse::Nothing => false,
        Reuse::Agreeing => !differs,
        Reuse::Any => true,
    }
}
