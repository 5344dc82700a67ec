//! The one task that owns the replica: it reads the log, applies record after record, and answers what it is told.
//!
//! Commands are handled in `steps`, marks and digests in `proof`, how it comes to an owner's or a target's state in `start`
//! and `loading`. Nothing here decides who owns: the fold at the replica's position does.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::fold::{CountedFence, KeptCheckpoint, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Epoch, Hash, MessageName, Position, Replica};
use broker_adapter::log::ReadError;
use broker_adapter::record::{Entry, Record, Writer};
use tokio::sync::{mpsc, watch};

use super::ReplicaInput;
use super::active::{Active, REPLAY_REST, ReplayPace};
use super::loading::{self, Loaded, Loading, Wanted};
use super::running::RunningHash;
use super::steps::{StepTable, Target};
use crate::catch_up;
use crate::checkpoint::{CheckpointError, save::Saved};
use crate::command::{AskReplies, FailureCode, ReplicaState, Reply, ReplyMail};
use crate::service::ServiceError;
use crate::shard::{Context, ReplicaView, Replies, TailView};

/// How often the replica looks at its clocks: digests, repeated appends, a service that ended while idle.
const TICK: Duration = Duration::from_millis(50);
/// An append of ours that was not read back for so long is sent again; it counts once.
pub(super) const APPEND_AGAIN: Duration = Duration::from_secs(1);
/// How many records behind the tail still counts as following.
const FOLLOWING_RECORDS: u64 = 256;
const RELOAD_WAIT_FIRST: Duration = Duration::from_millis(20);
const RELOAD_WAIT_MAX: Duration = Duration::from_secs(5);
const EVENTS: usize = 256;

/// What the replica's own tasks report.
pub(super) enum Event {
    LoadProgress { load: u64, bytes: u64 },
    Streamed { load: u64 },
    Loaded { load: u64, result: Result<Box<Loaded>, CheckpointError> },
    Saved { load: u64, job: u64, result: Result<Saved, CheckpointError> },
    StateHashed { load: u64, position: Position, result: Result<Option<Hash>, ServiceError> },
}

/// How the replica is.
pub(super) enum Life {
    Empty,
    Loading(Box<Loading>),
    Active(Box<Active>),
    /// A reload failed; the next one begins at `at`.
    Waiting {
        at: Duration,
    },
    Stopped,
}

/// From which checkpoints the replica can come back.
#[derive(Clone, Debug, Default)]
pub(super) struct Recovery {
    pub kept: Vec<KeptCheckpoint>,
    pub failures: u32,
}

pub(super) struct Engine {
    pub context: Context,
    pub tail: watch::Receiver<TailView>,
    pub life: Life,
    pub steps: StepTable,
    pub loads: u64,
    pub jobs: u64,
    pub recovery: Recovery,
    pub events: mpsc::Sender<Event>,
    /// The last epoch that a fence to this very replica began: behind it nobody else may bear its node's name.
    pub own_epoch: Option<Epoch>,
    /// Where the service failed last: a replica that fails there again waits longer each time.
    failed_at: Position,
    /// Up to where replies were given out: a replay does not send them all again.
    given: Position,
    reported: mpsc::Receiver<Event>,
    inputs: mpsc::Receiver<ReplicaInput>,
    replies: Replies,
    view: watch::Sender<ReplicaView>,
    trouble: Option<String>,
    next_tick: Duration,
}

enum Turn {
    Input(ReplicaInput),
    Event(Event),
    Entry(Result<Entry, ReadError>),
    Tick,
}

impl Engine {
    pub fn new(
        context: Context,
        inputs: mpsc::Receiver<ReplicaInput>,
        tail: watch::Receiver<TailView>,
        replies: Replies,
        view: watch::Sender<ReplicaView>,
    ) -> Engine {
        let (events, reported) = mpsc::channel(EVENTS);
        let next_tick = context.shell.now();
        Engine {
            context,
            tail,
            life: Life::Empty,
            steps: StepTable::default(),
            loads: 0,
            jobs: 0,
            recovery: Recovery::default(),
            events,
            own_epoch: None,
            failed_at: Position::ZERO,
            given: Position::ZERO,
            reported,
            inputs,
            replies,
            view,
            trouble: None,
            next_tick,
        }
    }

    /// Runs until the process ends.
    pub async fn run(mut self) {
        if let Err(error) = self.begin().await {
            self.stop(error.to_string());
            self.context.fail(error.to_string());
            return;
        }
        loop {
            self.publish();
            match self.turn().await {
                Turn::Input(ReplicaInput::Command(command)) => self.command(command),
                Turn::Input(ReplicaInput::AskReplies(ask)) => self.give_again(&ask),
                Turn::Input(ReplicaInput::Replaced(by)) => self.replaced(&by),
                Turn::Event(event) => self.event(event).await,
                Turn::Entry(Ok(entry)) => self.entry(&entry).await,
                Turn::Entry(Err(error)) => self.stop(error.to_string()),
                Turn::Tick => self.tick().await,
            }
            self.advance().await;
        }
    }

    async fn turn(&mut self) -> Turn {
        let next_entry = async {
            match &mut self.life {
                Life::Active(active) => active.follower.next().await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            Some(input) = self.inputs.recv() => Turn::Input(input),
            Some(event) = self.reported.recv() => Turn::Event(event),
            () = self.context.shell.sleep_until(self.next_tick) => Turn::Tick,
            entry = next_entry => Turn::Entry(entry),
        }
    }

    /// Applies one record.
    async fn entry(&mut self, entry: &Entry) {
        let Life::Active(active) = &mut self.life else { return };
        let verdict = active.fold.observe(entry);
        match (&entry.record, &verdict) {
            (Record::Message(message), Verdict::Apply) => {
                if active.fold.is_skipped(entry.position) {
                    return;
                }
                let gives_out = active.owns(&self.context.me) && entry.position > self.given;
                match active.deliver(&self.context, message, gives_out).await {
                    Ok(reply) => {
                        self.give_out(&message.ingress, message.name, &reply);
                        self.rest_if_target().await;
                    }
                    Err(error) => self.recover(&error).await,
                }
            }
            (Record::Message(message), Verdict::Repeat(_) | Verdict::Expired) => {
                let reply = active.answer_unapplied(message, &verdict);
                self.give_out(&message.ingress, message.name, &reply);
            }
            (_, Verdict::Fenced(fence)) => self.fenced(fence),
            (Record::Mark(mark), Verdict::Noted) => self.marked(mark).await,
            (Record::Digest(digest), Verdict::Noted) => self.compare(digest),
            (Record::Checkpoint(checkpoint), Verdict::Noted) => self.checkpoint_counted(checkpoint),
            (Record::Pin(pin), Verdict::Noted) => self.pin_counted(pin),
            _ => {}
        }
        self.digest_if_due();
    }

    /// Nobody waits for a target, and the owner's service may be on the same machine.
    async fn rest_if_target(&mut self) {
        let lag_records = self.lag_records();
        if let Life::Active(active) = &mut self.life
            && active.target.is_some()
            && active.replay.rests(lag_records)
        {
            self.context.shell.sleep(REPLAY_REST).await;
        }
    }

    /// The owner of a message's position gives its reply out; nobody else does (invariant 5).
    fn give_out(&mut self, ingress: &Replica, name: MessageName, reply: &Reply) {
        let Life::Active(active) = &self.life else { return };
        let position = active.fold.position();
        if !active.owns(&self.context.me) || position <= self.given {
            return;
        }
        self.given = position;
        self.send_reply(ingress, name, position, reply);
    }

    fn give_again(&mut self, ask: &AskReplies) {
        let Life::Active(active) = &self.life else { return };
        if !active.owns(&self.context.me) {
            return;
        }
        for name in &ask.names {
            if let Some((position, reply)) = active.kept.get(*name) {
                self.send_reply(&ask.ingress, *name, position, &reply);
            }
        }
    }

    fn send_reply(&self, ingress: &Replica, name: MessageName, position: Position, reply: &Reply) {
        let Life::Active(active) = &self.life else { return };
        let mail = ReplyMail {
            shard: self.context.shard.clone(),
            name,
            position,
            epoch: active.fold.epoch(),
            from: self.context.me.clone(),
            reply: reply.clone(),
        };
        self.replies.send(ingress, mail);
    }

    /// Ownership moved (or was confirmed) at the replica's position.
    fn fenced(&mut self, fence: &CountedFence) {
        let me = self.context.me.clone();
        if fence.owner == me {
            self.own_epoch = self.own_epoch.max(Some(fence.epoch));
        } else if fence.owner.node == me.node && self.own_epoch.is_some_and(|own| fence.epoch > own) {
            self.replaced(&fence.owner);
        }
        self.steps.void(fence.epoch);
        let Life::Active(active) = &mut self.life else { return };
        active.job = None;
        active.proofs.clear();
        if fence.owner == me {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, cause = ?fence.cause, "owner");
            self.append_digest(None, None);
        } else {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, owner = %fence.owner, "standby");
            active.agreed = false;
        }
    }

    pub fn replaced(&mut self, by: &Replica) {
        let me = &self.context.me;
        self.context.fail(format!(
            "another sidecar runs under this node's name {}: its run {} took over from this one ({}); give each sidecar a name of its own",
            me.node, by.incarnation, me.incarnation
        ));
        self.stop("replaced by another sidecar of the same name".to_owned());
    }

    /// The state is unknown: never deliver again to this instance (invariant 9).
    pub async fn recover(&mut self, error: &ServiceError) {
        let Life::Active(mut active) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        self.context.metrics.reloads.inc();
        tracing::warn!(shard = %self.context.shard, position = %active.fold.position(), %error, "the service's state is unknown");
        active.instance.stop().await;
        if let Some(target) = &active.target {
            let message = format!("the service on {} failed while it was the target: {error}", self.context.me.node);
            self.steps.fail_all(&target.command, FailureCode::Service, &message);
            return;
        }
        let position = active.fold.position();
        let again = position <= self.failed_at;
        self.failed_at = position;
        let failures = if again { self.recovery.failures + 1 } else { 0 };
        self.recovery = Recovery { kept: active.fold.checkpoints().kept().to_vec(), failures };
        drop(active);
        if again {
            self.wait_and_reload();
        } else {
            self.reload();
        }
    }

    fn wait_and_reload(&mut self) {
        let wait = RELOAD_WAIT_FIRST * 2u32.pow(self.recovery.failures.min(16));
        self.life = Life::Waiting { at: self.context.shell.now() + wait.min(RELOAD_WAIT_MAX) };
    }

    /// Loads the newest checkpoint that is whole.
    pub fn reload(&mut self) {
        let Some(kept) = self.recovery.kept.last() else {
            self.stop("no counted checkpoint is whole in the checkpoint store".to_owned());
            return;
        };
        self.loads += 1;
        let wanted = Wanted { load: self.loads, position: kept.position, manifest: kept.manifest };
        self.life = Life::Loading(Box::new(loading::begin(&self.context, wanted, None, self.events.clone())));
    }

    async fn event(&mut self, event: Event) {
        let current = match &self.life {
            Life::Loading(loading) => loading.load,
            Life::Active(active) => active.load,
            _ => return,
        };
        match event {
            Event::LoadProgress { load, bytes } if load == current => {
                if let Life::Loading(loading) = &mut self.life {
                    loading.bytes = bytes;
                }
            }
            Event::Streamed { load } if load == current => {
                if let Life::Loading(loading) = &mut self.life {
                    loading.streamed = true;
                }
            }
            Event::Loaded { load, result } if load == current => match result {
                Ok(loaded) => self.loaded(load, *loaded),
                Err(error) => self.load_failed(error),
            },
            Event::Saved { load, job, result } if load == current => self.saved(job, result),
            Event::StateHashed { load, position, result } if load == current => self.state_hashed(position, result),
            // Of an instance that is no more.
            _ => {}
        }
    }

    fn loaded(&mut self, load: u64, loaded: Loaded) {
        let Life::Loading(loading) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        let context = &self.context;
        let (_, tasks) = context.shell.part();
        let fold = catch_up::under(loaded.fold, context.rules);
        let (position, crc) = (fold.position(), fold.record_crc());
        tracing::info!(shard = %context.shard, %position, "loaded a checkpoint");
        self.life = Life::Active(Box::new(Active {
            load,
            instance: loaded.running.instance,
            connection: loaded.running.connection,
            reading: loaded.running.reading,
            asked: context.shell.now(),
            follower: Follower::new(context.log.clone(), context.shell.clone(), position, crc),
            fold,
            kept: loaded.kept,
            running: RunningHash::from_checkpoint(position, loaded.hash),
            agreed: false,
            diverged: None,
            digest_at: position,
            digest_time: context.shell.now(),
            job: None,
            target: loading.target.map(Target::new),
            releases: BTreeMap::new(),
            proofs: Vec::new(),
            tasks,
            replay: ReplayPace::default(),
        }));
        self.trouble = None;
    }

    fn load_failed(&mut self, error: CheckpointError) {
        let Life::Loading(loading) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        if let Some(command) = loading.target {
            let code = match &error {
                CheckpointError::Service(_) | CheckpointError::Origin { .. } => FailureCode::Service,
                CheckpointError::Store(_) => FailureCode::Broker,
                CheckpointError::Damaged { .. } | CheckpointError::None { .. } => FailureCode::Checkpoint,
            };
            self.steps.fail_all(&command, code, &error.to_string());
            return;
        }
        let refused = matches!(
            &error,
            CheckpointError::Service(
                ServiceError::Refused { .. } | ServiceError::Program { .. } | ServiceError::Folder { .. }
            )
        );
        if matches!(&error, CheckpointError::Origin { .. }) || (refused && self.loads == 1) {
            self.stop(error.to_string());
            self.context.fail(format!("the service cannot load its state: {error}"));
            return;
        }
        if matches!(&error, CheckpointError::Damaged { .. }) {
            self.recovery.kept.pop();
        }
        tracing::warn!(shard = %self.context.shard, %error, "loading again");
        self.trouble = Some(error.to_string());
        self.recovery.failures += 1;
        self.wait_and_reload();
    }

    /// A replica that cannot go on drops its instance and says why.
    pub fn stop(&mut self, reason: String) {
        tracing::error!(shard = %self.context.shard, "the replica stopped: {reason}");
        if let Life::Active(active) = &self.life
            && let Some(target) = &active.target
        {
            self.steps.fail_all(&target.command, FailureCode::Broker, &reason);
        }
        self.trouble = Some(reason);
        self.life = Life::Stopped;
        self.publish();
    }

    pub fn alarm(&mut self, reason: String) {
        tracing::error!(shard = %self.context.shard, "{reason}");
        self.trouble = Some(reason);
    }

    async fn tick(&mut self) {
        self.next_tick = self.context.shell.now() + TICK;
        match &mut self.life {
            Life::Active(active) => {
                if let Err(error) = active.look(&self.context).await {
                    self.recover(&error).await;
                } else {
                    self.digest_if_due();
                    self.append_job_again();
                    self.append_mark_again();
                }
            }
            Life::Waiting { at } if *at <= self.context.shell.now() => self.reload(),
            Life::Empty => self.claim_again().await,
            _ => {}
        }
    }

    /// Who writes, under the epoch at the replica's position.
    pub fn writer(&self) -> Option<Writer> {
        let Life::Active(active) = &self.life else { return None };
        Some(Writer { epoch: active.fold.epoch(), replica: self.context.me.clone() })
    }

    /// Appends without waiting: what must not be lost is sent again until it is read back.
    pub fn append(&self, records: Vec<Record>) {
        let appended = self.context.log.append(records);
        self.context.shell.spawn(async move {
            if let Err(error) = appended.await {
                tracing::debug!(%error, "a record of the replica was not acknowledged");
            }
        });
    }

    pub fn lag_records(&self) -> u64 {
        let Life::Active(active) = &self.life else { return u64::MAX };
        self.tail.borrow().position.records_since(active.fold.position())
    }

    fn publish(&mut self) {
        let lag = self.lag_records();
        let (state, applied, may_answer, reader) = match &self.life {
            Life::Empty => (ReplicaState::None, None, false, None),
            Life::Loading(_) | Life::Waiting { .. } => (ReplicaState::Loading, None, false, None),
            Life::Stopped => (ReplicaState::Stopped, None, false, None),
            Life::Active(active) => {
                let state = if lag <= FOLLOWING_RECORDS { ReplicaState::Following } else { ReplicaState::Replaying };
                let may = active.owns(&self.context.me) || (active.agreed && active.diverged.is_none());
                (state, Some(active.fold.position()), may, Some(active.reading.reader()))
            }
        };
        let applied = applied.unwrap_or_default();
        self.context.metrics.applied.set(i64::try_from(applied.0).unwrap_or(i64::MAX));
        if lag != u64::MAX {
            self.context.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        self.view.send_if_modified(|view| {
            let changed = view.applied != applied
                || view.state != state
                || view.may_answer != may_answer
                || view.reader.as_ref() != reader
                || view.trouble != self.trouble;
            if changed {
                let reader = reader.cloned();
                *view = ReplicaView { state, applied, may_answer, reader, trouble: self.trouble.clone() };
            }
            changed
        });
    }
}
