//! The one task that owns the replica: it reads the log, applies record after record, and answers what it is told.
//!
//! Commands are handled in `steps`, marks and digests in `proof`, how it comes to an owner's or a target's state in `start`,
//! `loading` and `recovery`. Nothing here decides who owns: the fold at the replica's position does.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::fold::Bug;
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Epoch, Hash, MessageName, Position, Replica};
use broker_adapter::log::ReadError;
use broker_adapter::record::{Entry, Message, Record, Writer};
use tokio::sync::{mpsc, watch};

use super::ReplicaInput;
use super::active::{Active, ReplayPace};
use super::bodies::BodyTable;
use super::feed::{Feed, Read};
use super::gather::BatchSize;
use super::loading::{Loaded, Loading};
use super::pause::Pause;
use super::recovery::Recovery;
use super::running::RunningHash;
use super::steps::{Rounds, StepTable, Target};
use super::upkeep::Upkeep;
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
pub(super) const FOLLOWING_RECORDS: u64 = 256;
const EVENTS: usize = 256;

/// What the replica's own tasks report.
pub(super) enum Event {
    LoadProgress {
        load: u64,
        bytes: u64,
    },
    Streamed {
        load: u64,
    },
    Loaded {
        load: u64,
        result: Result<Box<Loaded>, CheckpointError>,
    },
    Saved {
        load: u64,
        job: u64,
        result: Result<Saved, CheckpointError>,
    },
    StateHashed {
        load: u64,
        position: Position,
        result: Result<Option<Hash>, ServiceError>,
    },
    /// The log was trimmed before `before`; these parts of bodies were in the store then.
    Trimmed {
        load: u64,
        before: Position,
        bodies: Vec<String>,
    },
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

pub(super) struct Engine {
    pub context: Context,
    pub tail: watch::Receiver<TailView>,
    pub life: Life,
    pub steps: StepTable,
    pub loads: u64,
    pub jobs: u64,
    pub recovery: Recovery,
    pub upkeep: Upkeep,
    pub events: mpsc::Sender<Event>,
    /// The last epoch that a fence to this very replica began: behind it nobody else may bear its node's name.
    pub own_epoch: Option<Epoch>,
    /// The imported state with which this replica began the log, and checkpoint 0's manifest.
    pub begun: Option<(Hash, Hash)>,
    /// A precopy's checkpoints so far.
    pub rounds: Option<Rounds>,
    /// A source that stands still for a migration.
    pub pause: Option<Pause>,
    /// Below this epoch nothing is given out: a pause ended by the fence of another owner, who gives it out.
    pub silent_below: Epoch,
    /// When the owner's own settings were appended last.
    pub settings_at: Option<Duration>,
    /// Up to where the service had answered when it failed last: a replica that comes no further waits longer each time.
    failed_at: Option<Position>,
    /// What the service did wrong there, until the replica comes further.
    blamed: Option<String>,
    /// How far this replica has ever been.
    pub(super) reached: Position,
    /// Up to where replies were given out: a replay does not send them all again.
    pub(super) given: Position,
    reported: mpsc::Receiver<Event>,
    inputs: mpsc::Receiver<ReplicaInput>,
    replies: Replies,
    view: watch::Sender<ReplicaView>,
    pub trouble: Option<String>,
    next_tick: Duration,
}

enum Turn {
    Input(ReplicaInput),
    Event(Event),
    Entry(Result<Read, ReadError>),
    Ahead(Result<Entry, ReadError>),
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
            upkeep: Upkeep::default(),
            events,
            own_epoch: None,
            begun: None,
            rounds: None,
            pause: None,
            silent_below: Epoch(0),
            settings_at: None,
            failed_at: None,
            blamed: None,
            reached: Position::ZERO,
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
                Turn::Input(ReplicaInput::AskDifference(ask)) => self.answer_difference(&ask),
                Turn::Input(ReplicaInput::OwnersReply(found)) => self.difference_found(found).await,
                Turn::Input(ReplicaInput::AskKept(ask)) => self.tell_kept(&ask),
                Turn::Input(ReplicaInput::TakeCheckpoint) => self.upkeep.asked = true,
                Turn::Input(ReplicaInput::Begin(begin)) => self.begin_imported(begin).await,
                Turn::Input(ReplicaInput::Replaced(by)) => self.replaced(&by),
                Turn::Event(event) => self.event(event).await,
                Turn::Entry(Ok(read)) => self.entries(read).await,
                Turn::Ahead(Ok(entry)) => self.read_ahead(&entry),
                Turn::Entry(Err(error)) => self.unreadable(error).await,
                Turn::Ahead(Err(error)) => self.unreadable_ahead(error).await,
                Turn::Tick => self.tick().await,
            }
            self.advance().await;
        }
    }

    /// The log cannot be read from here: it was trimmed past this replica, or it is broken.
    pub(super) async fn unreadable(&mut self, error: ReadError) {
        match error {
            ReadError::Trimmed { .. } => self.trimmed(&error).await,
            error => self.stop(error.to_string()),
        }
    }

    async fn turn(&mut self) -> Turn {
        let stands_still = self.stands_still();
        let next_entry = async {
            match (&mut self.life, &mut self.pause) {
                (_, Some(pause)) if stands_still => Turn::Ahead(pause.next().await),
                (Life::Active(active), _) => Turn::Entry(active.feed.next().await),
                _ => std::future::pending().await,
            }
        };
        tokio::select! { biased;
            Some(input) = self.inputs.recv() => Turn::Input(input),
            Some(event) = self.reported.recv() => Turn::Event(event),
            () = self.context.shell.sleep_until(self.next_tick) => Turn::Tick,
            turn = next_entry => turn,
        }
    }

    /// Nobody waits for a target, and the owner's service may be on the same machine.
    pub(super) async fn rest_if_target(&mut self, records: u64, took: Duration) {
        let tail = self.tail.borrow().position;
        if let Life::Active(active) = &mut self.life
            && active.target.is_some()
            // One whose fence won while its step had failed is still called a target.
            && !active.owns(&self.context.me)
            && let Some(rest) = active.replay.rest(records, took, active.fold.position(), tail)
        {
            self.context.shell.sleep(rest).await;
        }
    }

    /// The owner of a message's position gives its reply out; nobody else does (invariant 5).
    pub(super) fn give_out(&mut self, position: Position, message: &Message, reply: &Reply) {
        let may_answer = self.gives() || self.context.rules.plant(Bug::StandbyReplies);
        if !may_answer || position <= self.given {
            return;
        }
        self.given = position;
        self.send_reply(&message.ingress, message.name, position, reply);
    }

    fn give_again(&mut self, ask: &AskReplies) {
        let Life::Active(active) = &self.life else { return };
        if !self.gives() {
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

    /// The state is unknown: never deliver again to this instance (invariant 9).
    pub async fn recover(&mut self, error: &ServiceError) {
        let Life::Active(mut active) = std::mem::replace(&mut self.life, Life::Empty) else { return };
        self.context.metrics.reloads.inc();
        tracing::warn!(shard = %self.context.shard, position = %active.fold.position(), %error, "the service's state is unknown");
        // Nobody may read from it any more.
        self.publish();
        active.instance.stop().await;
        let message = format!("the service on {} failed while it was the target: {error}", self.context.me.node);
        if self.target_failed(&active, FailureCode::Service, &message) {
            return;
        }
        let answered = active.running.last();
        let again = self.failed_at.is_some_and(|failed_at| answered <= failed_at);
        self.failed_at = Some(answered);
        if matches!(error, ServiceError::WrongShape { .. } | ServiceError::Refused { .. }) {
            self.blamed = Some(error.to_string());
            self.trouble = self.blamed.clone();
        }
        let failures = if again { self.recovery.failures + 1 } else { 0 };
        self.recovery = Recovery::of(active.fold.checkpoints().kept(), failures);
        drop(active);
        if again {
            self.wait_and_reload();
        } else {
            self.reload();
        }
    }

    /// What the service did wrong once is over when it has answered that too.
    pub(super) fn applied_again(&mut self) {
        let Life::Active(active) = &self.life else { return };
        if self.blamed.is_some() && self.failed_at.is_none_or(|failed_at| active.running.last() > failed_at) {
            let blamed = self.blamed.take();
            self.trouble = self.trouble.take().filter(|trouble| Some(trouble) != blamed.as_ref());
        }
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
                Err(error) => self.load_failed(error).await,
            },
            Event::Saved { load, job, result } if load == current => self.saved(job, result),
            Event::StateHashed { load, position, result } if load == current => self.state_hashed(position, result),
            Event::Trimmed { load, before, bodies } if load == current => self.free_bodies(before, bodies),
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
        let running = RunningHash::from_checkpoint(position, loaded.hash).under(fold.settings());
        tracing::info!(shard = %context.shard, %position, "loaded a checkpoint");
        let follower = Follower::new(context.log.clone(), context.shell.clone(), position, crc);
        self.life = Life::Active(Box::new(Active {
            load,
            instance: loaded.running.instance,
            connection: loaded.running.connection,
            reading: loaded.running.reading,
            asked: context.shell.now(),
            feed: Feed::new(follower, context.bodies()),
            bodies: BodyTable::new(position),
            fold,
            kept: loaded.kept,
            running,
            agreed: false,
            agreed_at: position,
            loaded_at: position,
            diverged: None,
            digest_at: position,
            digest_time: context.shell.now(),
            job: None,
            pinning: None,
            target: loading.target.map(|command| Target::new(command, position)),
            releases: BTreeMap::new(),
            proofs: Vec::new(),
            tasks,
            replay: ReplayPace::default(),
            batch: BatchSize::default(),
        }));
        if let Life::Active(active) = &self.life {
            self.upkeep.since = self.upkeep.progress(active, self.context.shell.now());
        }
        self.trouble = self.blamed.clone();
        self.leave_if_retired();
    }

    /// There is no replica any more, so nothing is wrong with it.
    pub(super) fn drop_replica(&mut self) {
        self.life = Life::Empty;
        (self.trouble, self.blamed) = (None, None);
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
                    self.settings_if_new();
                    self.append_job_again();
                    self.append_pin_again();
                    self.upkeep_if_due().await;
                    self.append_mark_again();
                    self.answer_marks();
                    self.ask_difference_again();
                }
            }
            Life::Waiting { at } if *at <= self.context.shell.now() => {
                if self.recovery.at_tail {
                    self.reload_from_tail().await;
                } else {
                    self.reload();
                }
            }
            Life::Empty => self.claim_again().await,
            _ => {}
        }
        self.tend_pause();
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
        self.reached = self.reached.max(applied);
        self.context.metrics.applied.set(i64::try_from(applied.0).unwrap_or(i64::MAX));
        if lag != u64::MAX {
            self.context.metrics.lag.set(i64::try_from(lag).unwrap_or(i64::MAX));
        }
        let trouble = self.trouble.as_ref().or(self.upkeep.alarm.as_ref());
        self.context.metrics.checkpoint_alarm.set(i64::from(self.upkeep.alarm.is_some()));
        self.view.send_if_modified(|view| {
            let changed = view.applied != applied
                || view.state != state
                || view.may_answer != may_answer
                || view.reader.as_ref() != reader
                || view.trouble.as_ref() != trouble;
            if changed {
                let (reader, trouble) = (reader.cloned(), trouble.cloned());
                *view = ReplicaView { state, applied, may_answer, reader, trouble };
            }
            changed
        });
    }
}
