//! The driver: one task that owns everything that changes, with one inbox.
//!
//! ```text
//!  handle ───┐                    ┌──▶ journal (append) ─────────┐
//!  mail ─────┤                    │                              │ read back as counted
//!  shard ────┼─▶ inbox ─▶ Driver ─┤                              ▼
//!  follower  │                    └──▶ commands, fences  ◀── book ◀── inbox
//!  timers ───┘
//! ```
//! What is heard becomes a word in the journal, the word that was read back changes the book, and what the book's state wants is
//! done again and again until the next word (intent, act, outcome). A restart is the same with an older journal.
//!
//! Architecture Invariant: nothing changes the book but a counted entry of the journal.

mod create;
mod follow;
mod looking;
mod mail;
mod planning;
mod questions;
mod running;
mod standbys;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use broker_adapter::broker::Broker;
use broker_adapter::fold::{CountedFence, Rules};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Epoch, Incarnation, MigrationId, NodeName, Position, Replica, ShardId};
use broker_adapter::log::ReadError;
use broker_adapter::record::Entry;
use broker_adapter::shell::{Shell, TaskSet};
use sidecar::command::{Announcement, Outcome};
use tokio::sync::{mpsc, oneshot};

use crate::book::{Book, Word};
use crate::config::Config;
use crate::directory::Directory;
use crate::events::Events;
use crate::folds::{AtTail, Folds};
use crate::handle::{CancelError, CreateError, ListFilter, MigratorHandle, NewMigration};
use crate::journal::{Journal, JournalError, Reading};
use crate::machine::{Event, Migration, OrderKey, What};
use crate::plan::Plan;
use crate::recording::Recording;
use crate::series::SeriesView;
use crate::view::{MigrationView, NodeView, ServiceView, Status};

use create::Creating;
use looking::Looking;
pub(crate) use looking::{Listening, Measured};
pub(crate) use planning::How;
use planning::Planning;
use running::{Running, Writing};

/// How many messages wait for the driver; mail beyond is dropped, everything else waits.
const INBOX_MAX: usize = 4_096;
/// How often what a state wants is done again.
const ACT_EVERY: Duration = Duration::from_millis(200);
/// After which time a word that was not read back is appended again.
const WRITE_AGAIN: Duration = Duration::from_secs(1);
/// How often it is chosen which logs are followed.
const CHOOSE_EVERY: Duration = Duration::from_secs(1);
/// How long the driver sleeps if nothing is due.
const IDLE: Duration = Duration::from_secs(3_600);
/// How many migrations may run at once.
pub const RUNNING_MAX: usize = 64;

/// Everything that reaches the driver.
pub(crate) enum Inbox {
    Create(NewMigration, Option<OrderKey>, oneshot::Sender<Result<MigrationId, CreateError>>),
    Plan(NewMigration, How, oneshot::Sender<Result<Plan, CreateError>>),
    /// The shard of a plan was read up to its tail: its owner.
    PlanLocated(u64, Result<Option<NodeName>, String>),
    Undo(MigrationId, oneshot::Sender<Result<MigrationId, CreateError>>),
    Retire(MigrationId, oneshot::Sender<Result<MigrationId, CreateError>>),
    Get(MigrationId, oneshot::Sender<Option<MigrationView>>),
    List(oneshot::Sender<Vec<MigrationView>>),
    Page(ListFilter, oneshot::Sender<(Vec<MigrationView>, bool)>),
    Cancel(MigrationId, oneshot::Sender<Result<MigrationView, CancelError>>),
    Services(oneshot::Sender<Vec<ServiceView>>),
    Nodes(oneshot::Sender<Vec<NodeView>>),
    Status(oneshot::Sender<Status>),
    Series(MigrationId, oneshot::Sender<SeriesView>),
    Recording(MigrationId, oneshot::Sender<Option<Recording>>),
    Listen(Option<u64>, Option<MigrationId>, oneshot::Sender<Listening>),
    WaitEnd(MigrationId, oneshot::Sender<Option<MigrationView>>),
    /// The shard of a migration that is being created was read up to its tail.
    Located(MigrationId, Result<Box<AtTail>, String>),
    /// The journal goes on.
    Journal(Entry),
    /// The journal can never be read again.
    JournalBroken(ReadError),
    /// How the last append to the journal went.
    Appended(Result<(), String>),
    /// A migration's shard was read up to its tail.
    ShardRead {
        migration: MigrationId,
        epoch: Epoch,
        fences: Vec<CountedFence>,
    },
    /// A fence counted on a migration's shard.
    ShardFenced {
        migration: MigrationId,
        fence: CountedFence,
    },
    /// A migration's shard cannot be read.
    ShardBroken {
        migration: MigrationId,
        reason: String,
    },
    /// A fence that was wanted is appended, or not: what was read decides.
    FenceTried(MigrationId),
    Outcome(Outcome),
    Announced(Announcement),
    /// A test lets a migration go on.
    Released(MigrationId),
}

/// What the driver acts with; its tasks end with it.
#[derive(Clone)]
pub(crate) struct Hands {
    pub broker: Arc<dyn Broker>,
    pub folds: Folds,
    pub shell: Shell,
    pub inbox: mpsc::Sender<Inbox>,
    pub me: Replica,
    /// A test-only switch.
    pub rules: Rules,
}

/// Why the migrator does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The journal is the migrator's memory.
    #[error(transparent)]
    Journal(#[from] JournalError),
}

/// Starts migrators.
pub struct Migrator;

struct Driver {
    config: Config,
    hands: Hands,
    journal: Journal,
    journal_trouble: Option<String>,
    book: Book,
    events: Events,
    looking: Looking,
    directory: Directory,
    creating: BTreeMap<MigrationId, Creating>,
    planning: Planning,
    running: BTreeMap<MigrationId, Running>,
    waiting: BTreeMap<MigrationId, Vec<oneshot::Sender<Option<MigrationView>>>>,
    /// When a standby is to be looked at next, whether it is to be retired.
    retire_at: Option<Duration>,
    /// When it is to be chosen next which logs are followed.
    choose_at: Duration,
    _tasks: TaskSet,
}

impl Migrator {
    /// Replays the journal, takes it over, and goes on with what is not over. Another migrator on the same broker stops.
    ///
    /// # Errors
    /// [`StartError`].
    pub async fn start(config: Config, broker: Arc<dyn Broker>, shell: Shell) -> Result<MigratorHandle, StartError> {
        let me = Replica { node: config.name.clone(), incarnation: Incarnation(shell.random()) };
        let (journal, told, follower) = Journal::open(&broker, &me, &shell).await?;
        tracing::info!(%me, position = %journal.position(), epoch = %journal.epoch(), "this migrator owns the journal");
        let (inbox, messages) = mpsc::channel(INBOX_MAX);
        let (inner, tasks) = shell.part();
        let (store, link, log) = (broker.store(), broker.clone(), journal.log());
        let folds = Folds::new(broker.clone(), inner.clone());
        let hands = Hands { broker, folds: folds.clone(), shell: inner, inbox: inbox.clone(), me, rules: config.rules };
        mail::subscribe(&hands);
        read_journal(&hands, follower);
        let hands_now = hands.shell.now();
        let mut driver = Driver {
            config,
            hands,
            journal,
            journal_trouble: None,
            book: told.book,
            events: told.events,
            looking: Looking::default(),
            directory: Directory::default(),
            creating: BTreeMap::new(),
            planning: Planning::default(),
            running: BTreeMap::new(),
            waiting: BTreeMap::new(),
            retire_at: Some(hands_now),
            choose_at: hands_now,
            _tasks: tasks,
        };
        let measured = driver.looking.measured.clone();
        driver.recover();
        let why_stopped = Arc::new(OnceLock::new());
        let why = why_stopped.clone();
        shell.spawn(async move {
            let reason = driver.run(messages, &why).await;
            tracing::error!(reason, "this migrator stops");
        });
        Ok(MigratorHandle { inbox, broker: link, journal: log, store, folds, measured, why_stopped })
    }
}

fn read_journal(hands: &Hands, mut follower: Follower) {
    let inbox = hands.inbox.clone();
    hands.shell.spawn(async move {
        loop {
            let message = match follower.next().await {
                Ok(entry) => Inbox::Journal(entry),
                Err(error) => Inbox::JournalBroken(error),
            };
            let is_last = matches!(message, Inbox::JournalBroken(_));
            if inbox.send(message).await.is_err() || is_last {
                return;
            }
        }
    });
}

impl Driver {
    /// Goes on with everything that the journal says is not over.
    fn recover(&mut self) {
        let now = self.hands.shell.now();
        let open: Vec<Migration> =
            self.book.all().filter(|state| !state.has_ended() || !state.undo.is_empty()).cloned().collect();
        for state in open {
            let id = state.order.id;
            tracing::info!(%id, phase = state.phase.name(), "a migration of an earlier run goes on");
            let mut running = Running::new(now, self.ends_by(id));
            running.trace.follow(&state);
            if !state.has_ended() {
                running.follower = Some(follow::start(&self.hands, id, &state.order.shard, None));
            }
            self.running.insert(id, running);
        }
    }

    /// Until the journal is lost; says why.
    async fn run(mut self, mut messages: mpsc::Receiver<Inbox>, why_stopped: &OnceLock<String>) -> String {
        loop {
            self.advance_all();
            let due = self.due();
            let message = tokio::select! {
                biased;
                message = messages.recv() => message,
                () = self.hands.shell.sleep_until(due) => continue,
            };
            let Some(message) = message else { return String::new() };
            if let Err(reason) = self.receive(message) {
                // Before the inbox closes, so that whoever waits finds the reason.
                let _ = why_stopped.set(reason.clone());
                return reason;
            }
        }
    }

    /// Takes one message; an error ends this migrator.
    fn receive(&mut self, message: Inbox) -> Result<(), String> {
        match message {
            Inbox::Journal(entry) => self.journal_read(&entry)?,
            Inbox::JournalBroken(error) => return Err(JournalError::Read(error).to_string()),
            Inbox::Appended(result) => self.journal_trouble = result.err(),
            Inbox::Create(new, key, reply) => self.create(new, key, reply),
            Inbox::Plan(new, how, reply) => self.plan(new, how, reply),
            Inbox::PlanLocated(number, owner) => self.plan_located(number, owner),
            Inbox::Undo(id, reply) => self.undo(id, reply),
            Inbox::Retire(id, reply) => self.retire(id, reply),
            Inbox::Located(id, result) => self.located(id, result),
            Inbox::Cancel(id, reply) => self.cancel(id, reply),
            Inbox::WaitEnd(id, reply) => self.wait_end(id, reply),
            Inbox::ShardRead { migration, epoch, fences } => {
                self.running_do(migration, |running| running.shard_read(epoch, fences));
            }
            Inbox::ShardFenced { migration, fence } => {
                self.running_do(migration, |running| running.shard_read(fence.epoch, vec![fence]));
            }
            Inbox::ShardBroken { migration, reason } => {
                let attempt = self.book.get(migration).map_or(0, |state| state.attempt.number);
                self.running_do(migration, |running| running.hear(What::LogUnreadable { attempt, reason }));
            }
            Inbox::FenceTried(migration) => self.running_do(migration, |running| running.appending = false),
            Inbox::Outcome(outcome) => self.outcome(outcome),
            Inbox::Announced(announcement) => {
                self.traffic(&announcement);
                self.directory.hear(announcement, self.hands.shell.now());
                self.follow_logs();
            }
            Inbox::Released(migration) => {
                let now = self.hands.shell.now();
                self.running_do(migration, |running| running.release(now));
            }
            Inbox::Get(..)
            | Inbox::List(_)
            | Inbox::Page(..)
            | Inbox::Services(_)
            | Inbox::Nodes(_)
            | Inbox::Status(_)
            | Inbox::Series(..)
            | Inbox::Recording(..)
            | Inbox::Listen(..) => {
                self.answer(message);
            }
        }
        Ok(())
    }

    /// Chooses which logs are read ahead of any order, by what nodes tell of them.
    fn follow_logs(&mut self) {
        let now = self.hands.shell.now();
        if now < self.choose_at {
            return;
        }
        self.choose_at = now + CHOOSE_EVERY;
        let per_s = |shard: &ShardId| self.directory.rates(shard)?.records.per_s(now);
        let shards = self.directory.shards().into_iter();
        self.hands.folds.follow(shards.filter_map(|shard| per_s(&shard).map(|per_s| (shard, per_s))));
    }

    fn running_do(&mut self, id: MigrationId, what: impl FnOnce(&mut Running)) {
        if let Some(running) = self.running.get_mut(&id) {
            what(running);
        }
    }

    fn journal_read(&mut self, entry: &Entry) -> Result<(), String> {
        match self.journal.observe(entry).map_err(|error| error.to_string())? {
            Reading::Word(word) => self.word_read(entry.position, &word),
            Reading::Nothing => {}
            Reading::Lost(fence) => {
                return Err(format!(
                    "{} took the journal at position {} ({:?}, epoch {}): one migrator acts per broker, and the newest wins",
                    fence.owner, fence.position, fence.cause, fence.epoch
                ));
            }
        }
        Ok(())
    }

    /// A word counts: the one place where the book changes.
    fn word_read(&mut self, position: Position, word: &Word) {
        let id = word.migration();
        self.running_do(id, |running| running.written(word));
        let Some(change) = self.book.read(word) else { return };
        let now = self.hands.shell.now();
        if change.before.is_none() {
            self.accepted(id, now);
        }
        if let Some(state) = self.book.get(id) {
            let event = self.events.word(position, word, &change, state);
            self.publish(event);
        }
        let (Some(state), Some(running)) = (self.book.get(id), self.running.get_mut(&id)) else { return };
        running.changed(change.before.as_ref(), state, now);
        let has_just_ended = state.has_ended() && change.before.as_ref().is_some_and(|before| !before.has_ended());
        let before = change.before.as_ref().map(|state| state.phase);
        if before != Some(state.phase) {
            tracing::info!(%id, phase = state.phase.name(), attempt = state.attempt.number, epoch = %state.attempt.epoch,
                error = state.error.as_deref(), "phase");
        }
        if let Some(hold) = self.config.hold.clone().filter(|hold| hold.is_met(before, state.phase)) {
            running.held = true;
            let (shell, inbox) = (self.hands.shell.clone(), self.hands.inbox.clone());
            self.hands.shell.spawn(async move {
                hold.wait(shell).await;
                // The driver has ended otherwise.
                let _ = inbox.send(Inbox::Released(id)).await;
            });
        }
        if has_just_ended {
            self.ended(id);
        }
        self.notify(id);
    }

    fn advance_all(&mut self) {
        self.rewrite_accepted();
        self.retire_old_standbys();
        self.look();
        let ids: Vec<MigrationId> = self.running.keys().copied().collect();
        for id in ids {
            self.advance(id);
        }
    }

    /// Writes down what was heard, and does what is wanted, if it is time.
    fn advance(&mut self, id: MigrationId) {
        let now = self.hands.shell.now();
        let (Some(state), Some(running)) = (self.book.get(id), self.running.get_mut(&id)) else { return };
        if let Some(what) = running.next_what(state, &self.directory, &self.config.deadlines, now) {
            let event = Event { at_ms: self.hands.shell.wall_ms(), what };
            running.writing = Some(Writing { word: Word::Happened { migration: id, event }, again_at: now });
        }
        if let Some(writing) = running.writing.as_mut().filter(|writing| writing.again_at <= now) {
            writing.again_at = now + WRITE_AGAIN;
            append(&self.journal, &self.hands, &writing.word);
        }
        if !running.held && running.act_at <= now {
            running.act_at = now + ACT_EVERY;
            running.act(state, &self.directory, &self.hands);
        }
    }

    fn due(&self) -> Duration {
        let running = self
            .running
            .iter()
            .filter_map(|(id, running)| Some(running.due(self.book.get(*id)?, &self.config.deadlines)));
        let creating = self.creating.values().filter_map(Creating::due);
        running
            .chain(creating)
            .chain(self.retire_at)
            .chain(self.look_at())
            .min()
            .unwrap_or_else(|| self.hands.shell.now() + IDLE)
    }
}

/// Appends a word in the background; it counts when it is read.
fn append(journal: &Journal, hands: &Hands, word: &Word) {
    let appended = journal.append(word);
    let inbox = hands.inbox.clone();
    hands.shell.spawn(async move {
        let result = appended.await.map(|_| ()).map_err(|error| error.to_string());
        // The driver has ended otherwise.
        let _ = inbox.send(Inbox::Appended(result)).await;
    });
}
