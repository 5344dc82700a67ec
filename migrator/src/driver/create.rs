//! How a migration begins: checks against the directory, then against the log, then a word in the journal.
//!
//! Whoever asked hears of it only when that word was read back: from then on the migration is carried to an end, whatever
//! happens to this process.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::{MigrationId, NodeName, Replica, ShardId};
use tokio::sync::oneshot;

use super::follow;
use super::running::Running;
use super::{Driver, Inbox, RUNNING_MAX, WRITE_AGAIN, append};
use crate::book::Word;
use crate::directory::Known;
use crate::folds::AtTail;
use crate::handle::{CreateError, NewMigration};
use crate::machine::{AttemptStart, Operation, Order, OrderKey, Strategy};
use crate::plan::{self, Facts, Plan, Wish};

/// How long a shard's log may take to be read up to its tail.
pub(super) const LOCATE_LIMIT: Duration = Duration::from_secs(30);
/// How long an `Idempotency-Key` is remembered.
const KEY_KEPT_MS: u64 = 24 * 3_600 * 1_000;

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
    pub key: Option<OrderKey>,
    /// What a plan is made of.
    pub wish: Wish,
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
    pub(super) fn create(&mut self, new: NewMigration, key: Option<OrderKey>, reply: Reply) {
        if let Some(answer) = key.and_then(|key| self.ordered_before(&key)) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
            return;
        }
        let asked = self.check(new, key);
        self.begin_or_refuse(asked, reply);
    }

    /// The migration that was ordered under this key, if it was the same order.
    fn ordered_before(&self, key: &OrderKey) -> Option<Result<MigrationId, CreateError>> {
        let is_same_key = |other: &Option<OrderKey>| other.is_some_and(|other| other.key == key.key);
        if let Some((id, creating)) = self.creating.iter().find(|(_, creating)| is_same_key(&creating.asked.key)) {
            let is_same = creating.asked.key == Some(*key);
            return Some(Err(if is_same { CreateError::InFlight } else { CreateError::KeyReused(*id) }));
        }
        let wall_ms = self.hands.shell.wall_ms();
        let lives = |order: &Order| order.accepted_ms.saturating_add(KEY_KEPT_MS) > wall_ms;
        let orders = self.book.all().rev().map(|state| &state.order);
        let order = orders.take_while(|order| lives(order)).find(|order| is_same_key(&order.key))?;
        Some(if order.key == Some(*key) { Ok(order.id) } else { Err(CreateError::KeyReused(order.id)) })
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
            let reading = hands.folds.at_tail(&shard);
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
        let max_blackout_ms = new.and_then(|new| new.max_blackout_ms);
        let keep_standby_s = new.and_then(|new| new.keep_standby_s).unwrap_or(self.config.keep_standby_s);
        let pause_ms = new.and_then(|new| new.pause_limit_ms).unwrap_or(self.config.pause_limit_ms);
        Limits {
            pause_ms: pause_ms.min(max_blackout_ms.unwrap_or(pause_ms)),
            cutoff_ms: new.and_then(|new| new.cutoff_ms),
            keep_standby_ms: keep_standby_s.saturating_mul(1_000),
            require_proof: self.config.require_proof && !new.is_some_and(|new| new.allow_unproven),
            max_blackout_ms,
            deadline_s: new.and_then(|new| new.deadline_s),
        }
    }

    /// What the directory and the book say; the log is asked afterwards.
    fn check(&self, new: NewMigration, key: Option<OrderKey>) -> Result<Asked, CreateError> {
        let (shard, target) = self.check_ends(&new)?;
        let limits = self.limits(Some(&new));
        let strategy = new.known_strategy().unwrap_or_default();
        Ok(Asked {
            shard,
            target,
            operation: Operation::Move,
            strategy,
            limits,
            reason: new.reason.clone(),
            key,
            wish: new,
        })
    }

    /// Whether the shard is known and free, and its target there.
    pub(super) fn check_ends(&self, wish: &Wish) -> Result<(ShardId, Replica), CreateError> {
        plan::refusal(wish, &self.facts(wish, None))?;
        let target = self.directory.replica(&wish.to).expect("a target that is not known was refused");
        Ok((plan::shard_of(wish), target.clone()))
    }

    pub(super) fn facts(&self, wish: &Wish, owner: Option<Option<NodeName>>) -> Facts<'_> {
        Facts {
            directory: &self.directory,
            book: &self.book,
            moving: self.moving(&plan::shard_of(wish)),
            running: (self.running.len() + self.creating.len(), RUNNING_MAX),
            owner,
            now: self.hands.shell.now(),
        }
    }

    fn moving(&self, shard: &ShardId) -> Option<MigrationId> {
        let creating = self.creating.iter().find(|(_, creating)| creating.asked.shard == *shard).map(|(id, _)| *id);
        creating.or_else(|| self.book.moving(shard).map(|migration| migration.order.id))
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
        let plan = self.plan_of(asked, &source.node)?;
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
            key: asked.key,
            plan,
        };
        let epoch = at_tail.0.epoch().next();
        let first = AttemptStart { number: 1, epoch, source, target: asked.target.clone() };
        Ok((Word::Accepted { order: Box::new(order), first }, at_tail))
    }

    /// What is expected, by what the log says; one that would wait too long is refused.
    fn plan_of(&self, asked: &Asked, source: &NodeName) -> Result<Option<Arc<Plan>>, CreateError> {
        if matches!(asked.operation, Operation::Retire { .. }) {
            return Ok(None);
        }
        let mut facts = self.facts(&asked.wish, Some(Some(source.clone())));
        // It is this order itself that is on its way.
        facts.moving = None;
        let plan = plan::plan(&asked.wish, &facts);
        match (plan.blackout_ms, asked.limits.max_blackout_ms) {
            (Some(planned_ms), Some(max_ms)) if planned_ms > max_ms => {
                Err(CreateError::BlackoutTooLong { planned_ms, max_ms })
            }
            _ => Ok(Some(Arc::new(plan))),
        }
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

    /// When an order's own deadline is, by this process's clock.
    pub(super) fn ends_by(&self, id: MigrationId) -> Option<Duration> {
        let order = &self.book.get(id)?.order;
        let at_ms = order.accepted_ms.saturating_add(order.deadline_s?.saturating_mul(1_000));
        Some(self.hands.shell.now() + Duration::from_millis(at_ms.saturating_sub(self.hands.shell.wall_ms())))
    }

    /// The first word counts.
    pub(super) fn accepted(&mut self, id: MigrationId, now: Duration) {
        let ends_by = self.ends_by(id);
        let mut running = Running::new(now, ends_by);
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

fn refuse(reply: Option<Reply>, error: CreateError) {
    match reply {
        Some(reply) => drop(reply.send(Err(error))),
        None => tracing::info!(%error, "a standby is not retired now"),
    }
}
