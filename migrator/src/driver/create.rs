//! How a migration begins: checks against the directory, then against the log, then a word in the journal.
//!
//! Whoever asked hears of it only when that word was read back: from then on the migration is carried to an end, whatever
//! happens to this process.

use std::time::Duration;

use broker_adapter::ids::{MigrationId, Replica, ServiceName, ShardId};
use tokio::sync::oneshot;

use super::follow::{self, AtTail, fold_at_tail};
use super::running::Running;
use super::{Driver, Inbox, RUNNING_MAX, WRITE_AGAIN, append};
use crate::book::Word;
use crate::handle::{CreateError, NewMigration};
use crate::machine::{AttemptStart, Order, Strategy};

/// How long a shard's log may take to be read up to its tail.
const LOCATE_LIMIT: Duration = Duration::from_secs(30);
/// The longest reason that is kept.
const REASON_MAX_BYTES: usize = 1_024;

/// A migration on its way into the journal.
pub struct Creating {
    shard: ShardId,
    target: Replica,
    reason: Option<String>,
    allow_unproven: bool,
    reply: oneshot::Sender<Result<MigrationId, CreateError>>,
    located: Option<AtTail>,
    writing: Option<(Word, Duration)>,
}

impl Creating {
    pub fn due(&self) -> Option<Duration> {
        self.writing.as_ref().map(|(_, again_at)| *again_at)
    }
}

impl Driver {
    pub(super) fn create(&mut self, new: NewMigration, reply: oneshot::Sender<Result<MigrationId, CreateError>>) {
        let (shard, target) = match self.check(&new) {
            Ok(checked) => checked,
            Err(error) => return drop(reply.send(Err(error))),
        };
        let id = MigrationId(self.hands.shell.random());
        let hands = self.hands.clone();
        let asked = shard.clone();
        self.hands.shell.spawn(async move {
            let reading = fold_at_tail(&hands.broker, &asked, &hands.shell);
            let result = hands.shell.within(LOCATE_LIMIT, reading).await;
            let result = match result {
                Some(Ok(at_tail)) => Ok(Box::new(at_tail)),
                Some(Err(error)) => Err(error.to_string()),
                None => Err(format!("its tail was not reached within {LOCATE_LIMIT:?}")),
            };
            // The driver has ended otherwise.
            let _ = hands.inbox.send(Inbox::Located(id, result)).await;
        });
        let NewMigration { reason, allow_unproven, .. } = new;
        self.creating
            .insert(id, Creating { shard, target, reason, allow_unproven, reply, located: None, writing: None });
    }

    /// What the directory and the book say; the log is asked afterwards.
    fn check(&self, new: &NewMigration) -> Result<(ShardId, Replica), CreateError> {
        let strategy = new.strategy.as_deref().unwrap_or(Strategy::Live.name());
        if strategy != Strategy::Live.name() {
            return Err(CreateError::UnknownStrategy(strategy.to_owned()));
        }
        if let Some(reason) = new.reason.as_ref().filter(|reason| reason.len() > REASON_MAX_BYTES) {
            return Err(CreateError::ReasonTooLong(reason.len()));
        }
        let shards = self.directory.shards();
        let shard = match &new.shard {
            Some(shard) => ShardId { service: new.service.clone(), shard: shard.clone() },
            None => ShardId::whole(new.service.clone()),
        };
        if !shards.contains(&shard) {
            return Err(self.unknown_service(&new.service, &shard, &shards));
        }
        let Some(target) = self.directory.node(&new.to) else {
            let known = self.directory.nodes().map(|node| node.announcement.from.node.to_string()).collect();
            return Err(CreateError::UnknownNode { asked: new.to.clone(), known });
        };
        let service = shard.to_string();
        if !target.announcement.shards.iter().any(|status| status.shard == shard) {
            let runs =
                |node: &&crate::directory::Known| node.announcement.shards.iter().any(|status| status.shard == shard);
            let known = self.directory.nodes().filter(runs).map(|node| node.announcement.from.node.to_string());
            return Err(CreateError::TargetWithoutService { to: new.to.clone(), service, known: known.collect() });
        }
        if let Some(running) = self.moving(&shard) {
            return Err(CreateError::AlreadyMoving { service, running });
        }
        if target.is_silent(self.hands.shell.now()) {
            return Err(CreateError::NodeSilent(new.to.clone()));
        }
        if self.running.len() + self.creating.len() >= RUNNING_MAX {
            return Err(CreateError::TooMany(RUNNING_MAX));
        }
        Ok((shard, target.announcement.from.clone()))
    }

    fn moving(&self, shard: &ShardId) -> Option<MigrationId> {
        let creating = self.creating.iter().find(|(_, creating)| creating.shard == *shard).map(|(id, _)| *id);
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
            Err(error) => drop(creating.reply.send(Err(error))),
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
        let service = creating.shard.to_string();
        let at_tail = *result.map_err(|reason| CreateError::LogUnreadable { service: service.clone(), reason })?;
        let source = at_tail.0.owner().cloned().ok_or_else(|| CreateError::NoOwner(service.clone()))?;
        if source.node == creating.target.node {
            return Err(CreateError::TargetIsSource { service, to: source.node });
        }
        let is_silent = |known: &crate::directory::Known| known.is_silent(self.hands.shell.now());
        if self.directory.node(&source.node).is_none_or(is_silent) {
            return Err(CreateError::NodeSilent(source.node));
        }
        let order = Order {
            id,
            shard: creating.shard.clone(),
            from: source.node.clone(),
            to: creating.target.node.clone(),
            strategy: Strategy::Live,
            reason: creating.reason.clone(),
            accepted_ms: self.hands.shell.wall_ms(),
            lag_limit_records: self.config.lag_limit_records,
            require_proof: self.config.require_proof && !creating.allow_unproven,
        };
        let epoch = at_tail.0.epoch().next();
        let first = AttemptStart { number: 1, epoch, source, target: creating.target.clone() };
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
            Some(creating) => (creating.located, Some(creating.reply)),
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
