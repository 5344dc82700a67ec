//! How a migration begins: checks against the directory, then against the log, then a word in the journal.
//!
//! Whoever asked hears of it only when that word was read back: from then on the migration is carried to an end, whatever
//! happens to this process.

use std::time::Duration;

use broker_adapter::ids::{MigrationId, NodeName, Replica, ServiceName, ShardId, ShardName};
use tokio::sync::oneshot;

use super::follow::{self, AtTail, fold_at_tail};
use super::running::Running;
use super::{Driver, Inbox, RUNNING_MAX, WRITE_AGAIN, append};
use crate::book::Word;
use crate::directory::Known;
use crate::handle::{CreateError, NewMigration};
use crate::machine::{AttemptStart, Operation, Order, Strategy};

/// How long a shard's log may take to be read up to its tail.
const LOCATE_LIMIT: Duration = Duration::from_secs(30);
/// The longest reason that is kept.
const REASON_MAX_BYTES: usize = 1_024;

/// Where it is told which migration was begun, or why none was.
pub(super) type Reply = oneshot::Sender<Result<MigrationId, CreateError>>;

/// A migration on its way into the journal.
pub struct Creating {
    asked: Asked,
    /// Nobody, if the migrator asked itself.
    reply: Option<Reply>,
    located: Option<AtTail>,
    writing: Option<(Word, Duration)>,
}

/// What was asked for, checked against directory and book.
pub(super) struct Asked {
    pub shard: ShardId,
    pub target: Replica,
    pub operation: Operation,
    pub strategy: Strategy,
    pub limits: Limits,
    pub reason: Option<String>,
}

/// The limits of an order.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub pause_ms: u64,
    pub cutoff_ms: Option<u64>,
    pub keep_standby_ms: u64,
    pub require_proof: bool,
    pub max_blackout_ms: Option<u64>,
    pub deadline_s: Option<u64>,
}

impl Creating {
    pub fn due(&self) -> Option<Duration> {
        self.writing.as_ref().map(|(_, again_at)| *again_at)
    }
}

impl Driver {
    pub(super) fn create(&mut self, new: NewMigration, reply: Reply) {
        let asked = self.check(new);
        self.begin_or_refuse(asked, reply);
    }

    pub(super) fn begin_or_refuse(&mut self, asked: Result<Asked, CreateError>, reply: Reply) {
        match asked {
            Ok(asked) => self.begin(asked, Some(reply)),
            Err(error) => refuse(Some(reply), error),
        }
    }

    pub(super) fn begin(&mut self, asked: Asked, reply: Option<Reply>) {
        let id = MigrationId(self.hands.shell.random());
        let hands = self.hands.clone();
        let shard = asked.shard.clone();
        self.hands.shell.spawn(async move {
            let reading = fold_at_tail(&hands.broker, &shard, &hands.shell);
            let result = hands.shell.within(LOCATE_LIMIT, reading).await;
            let result = match result {
                Some(Ok(at_tail)) => Ok(Box::new(at_tail)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err(format!("its tail was not reached within {LOCATE_LIMIT:?}")),
            };
            // The driver has ended otherwise.
            let _ = hands.inbox.send(Inbox::Located(id, result)).await;
        });
        self.creating.insert(id, Creating { asked, reply, located: None, writing: None });
    }

    /// What the order and the configuration say.
    pub(super) fn limits(&self, new: Option<&NewMigration>) -> Limits {
        let keep_standby_s = new.and_then(|new| new.keep_standby_s).unwrap_or(self.config.keep_standby_s);
        Limits {
            pause_ms: new.and_then(|new| new.pause_limit_ms).unwrap_or(self.config.pause_limit_ms),
            cutoff_ms: new.and_then(|new| new.cutoff_ms),
            keep_standby_ms: keep_standby_s.saturating_mul(1_000),
            require_proof: self.config.require_proof && !new.is_some_and(|new| new.allow_unproven),
            max_blackout_ms: new.and_then(|new| new.max_blackout_ms),
            deadline_s: new.and_then(|new| new.deadline_s),
        }
    }

    /// What the directory and the book say; the log is asked afterwards.
    fn check(&self, new: NewMigration) -> Result<Asked, CreateError> {
        let strategy = match &new.strategy {
            None => Strategy::default(),
            Some(name) => Strategy::named(name).ok_or_else(|| CreateError::UnknownStrategy(name.clone()))?,
        };
        if let Some(reason) = new.reason.as_ref().filter(|reason| reason.len() > REASON_MAX_BYTES) {
            return Err(CreateError::ReasonTooLong(reason.len()));
        }
        check_limits(&new, strategy)?;
        let (shard, target) = self.check_ends(&new.service, new.shard.as_ref(), &new.to)?;
        let limits = self.limits(Some(&new));
        Ok(Asked { shard, target, operation: Operation::Move, strategy, limits, reason: new.reason })
    }

    /// Whether the shard is known and free, and its target there.
    pub(super) fn check_ends(
        &self,
        service: &ServiceName,
        part: Option<&ShardName>,
        to: &NodeName,
    ) -> Result<(ShardId, Replica), CreateError> {
        let shards = self.directory.shards();
        let shard = match part {
            Some(part) => ShardId { service: service.clone(), shard: part.clone() },
            None => ShardId::whole(service.clone()),
        };
        if !shards.contains(&shard) {
            return Err(self.unknown_service(service, &shard, &shards));
        }
        let Some(target) = self.directory.node(to) else {
            let known = self.directory.nodes().map(|node| node.announcement.from.node.to_string()).collect();
            return Err(CreateError::UnknownNode { asked: to.clone(), known });
        };
        let service = shard.to_string();
        if !target.status(&shard).is_some_and(|status| status.runs_replica) {
            let runs = |node: &&Known| node.status(&shard).is_some_and(|status| status.runs_replica);
            let known = self.directory.nodes().filter(runs).map(|node| node.announcement.from.node.to_string());
            let (to, known) = (to.clone(), known.collect());
            return Err(match target.status(&shard) {
                Some(_) => CreateError::TargetIsIngress { to, service, known },
                None => CreateError::TargetWithoutService { to, service, known },
            });
        }
        if let Some(running) = self.moving(&shard) {
            return Err(CreateError::AlreadyMoving { service, running });
        }
        if target.is_silent(self.hands.shell.now()) {
            return Err(CreateError::NodeSilent(to.clone()));
        }
        if self.running.len() + self.creating.len() >= RUNNING_MAX {
            return Err(CreateError::TooMany(RUNNING_MAX));
        }
        Ok((shard, target.announcement.from.clone()))
    }

    fn moving(&self, shard: &ShardId) -> Option<MigrationId> {
        let creating = self.creating.iter().find(|(_, creating)| creating.asked.shard == *shard).map(|(id, _)| *id);
        creating.or_else(|| self.book.moving(shard).map(|migration| migration.order.id))
    }

    fn unknown_service(&self, service: &ServiceName, shard: &ShardId, shards: &[ShardId]) -> CreateError {
        let (asked, known): (String, Vec<String>) = if self.directory.knows_service(service) {
            let parts = shards.iter().filter(|known| known.service == *service);
            (format!("the shard {shard}"), parts.map(ToString::to_string).collect())
        } else {
            let mut names: Vec<String> = shards.iter().map(|known| known.service.to_string()).collect();
            names.dedup();
            (format!("the service {service}"), names)
        };
        CreateError::UnknownService { asked, known }
    }

    /// The log says who owns: the epoch of the first attempt is fixed by what is written now (invariant 2).
    pub(super) fn located(&mut self, id: MigrationId, result: Result<Box<AtTail>, String>) {
        let Some(mut creating) = self.creating.remove(&id) else { return };
        match self.first_word(id, &creating, result) {
            Err(error) => refuse(creating.reply, error),
            Ok((word, at_tail)) => {
                creating.located = Some(at_tail);
                creating.writing = Some((word, self.hands.shell.now()));
                self.creating.insert(id, creating);
            }
        }
    }

    fn first_word(
        &self,
        id: MigrationId,
        creating: &Creating,
        result: Result<Box<AtTail>, String>,
    ) -> Result<(Word, AtTail), CreateError> {
        let asked = &creating.asked;
        let service = asked.shard.to_string();
        let at_tail = *result.map_err(|reason| CreateError::LogUnreadable { service: service.clone(), reason })?;
        let source = at_tail.0.owner().cloned().ok_or_else(|| CreateError::NoOwner(service.clone()))?;
        if source.node == asked.target.node {
            return Err(CreateError::TargetIsSource { service, to: source.node });
        }
        let is_silent = |known: &Known| known.is_silent(self.hands.shell.now());
        if self.directory.node(&source.node).is_none_or(is_silent) {
            return Err(CreateError::NodeSilent(source.node));
        }
        let order = Order {
            id,
            shard: asked.shard.clone(),
            from: source.node.clone(),
            to: asked.target.node.clone(),
            operation: asked.operation,
            strategy: asked.strategy,
            reason: asked.reason.clone(),
            accepted_ms: self.hands.shell.wall_ms(),
            lag_limit_records: self.config.lag_limit_records,
            require_proof: asked.limits.require_proof,
            pause_limit_ms: asked.limits.pause_ms,
            cutoff_ms: asked.limits.cutoff_ms,
            precopy_rounds: self.config.precopy_rounds.max(1),
            keep_standby_ms: asked.limits.keep_standby_ms,
            max_blackout_ms: asked.limits.max_blackout_ms,
            deadline_s: asked.limits.deadline_s,
            key: None,
            plan: None,
        };
        let epoch = at_tail.0.epoch().next();
        let first = AttemptStart { number: 1, epoch, source, target: asked.target.clone() };
        Ok((Word::Accepted { order, first }, at_tail))
    }

    /// Appends the first words that were not read back yet.
    pub(super) fn rewrite_accepted(&mut self) {
        let now = self.hands.shell.now();
        for creating in self.creating.values_mut() {
            if let Some((word, again_at)) = creating.writing.as_mut().filter(|(_, again_at)| *again_at <= now) {
                *again_at = now + WRITE_AGAIN;
                append(&self.journal, &self.hands, word);
            }
        }
    }

    /// The first word counts.
    pub(super) fn accepted(&mut self, id: MigrationId, now: Duration) {
        let mut running = Running::new(now);
        let (at_tail, reply) = match self.creating.remove(&id) {
            Some(creating) => (creating.located, creating.reply),
            None => (None, None),
        };
        if let Some(state) = self.book.get(id) {
            running.follower = Some(follow::start(&self.hands, id, &state.order.shard, at_tail));
        }
        self.running.insert(id, running);
        if let Some(reply) = reply {
            // Whoever asked may have gone; the migration goes on.
            let _ = reply.send(Ok(id));
        }
    }
}

/// A limit that says nothing about this strategy would be a promise that nobody keeps.
fn check_limits(new: &NewMigration, strategy: Strategy) -> Result<(), CreateError> {
    let bad = |reason: &str| Err(CreateError::BadLimit(reason.to_owned()));
    match (strategy, new.pause_limit_ms, new.cutoff_ms) {
        (Strategy::Live, Some(_), _) => bad("pause_limit_ms says nothing about live, which pauses nobody"),
        (_, Some(0), _) => bad("pause_limit_ms is 0, and a pause needs some time"),
        (Strategy::Ms2m, _, Some(0)) => bad("cutoff_ms is 0: that is stop-and-copy"),
        (Strategy::Live | Strategy::Precopy | Strategy::StopAndCopy, _, Some(_)) => {
            bad("cutoff_ms is a limit of the strategy ms2m only")
        }
        _ => Ok(()),
    }
}

fn refuse(reply: Option<Reply>, error: CreateError) {
    match reply {
        Some(reply) => drop(reply.send(Err(error))),
        None => tracing::info!(%error, "a standby is not retired now"),
    }
}
