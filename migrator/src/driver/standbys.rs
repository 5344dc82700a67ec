//! What comes after a migration: undo it, or retire the standby that it left.
//!
//! Both are operations of their own with a fence of their own, so that of the two exactly one can win (invariant 2). A standby
//! goes by itself after `keep_standby`, unless its node owns again or the standby tells of trouble.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::MigrationId;
use sidecar::command::ReplicaState;

use super::Driver;
use super::create::{Asked, Reply};
use crate::handle::{CreateError, NewMigration};
use crate::machine::{Ending, Migration, Operation, Order, Strategy};

/// How often it is looked whether a standby's time is over.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Driver {
    pub(super) fn undo(&mut self, id: MigrationId, reply: Reply) {
        let asked = self.after(id, Operation::Undo { of: id });
        self.begin_or_refuse(asked, reply);
    }

    pub(super) fn retire(&mut self, id: MigrationId, reply: Reply) {
        let asked = self.after(id, Operation::Retire { of: id });
        self.begin_or_refuse(asked, reply);
    }

    pub(super) fn after(&self, id: MigrationId, operation: Operation) -> Result<Asked, CreateError> {
        let state = self.book.get(id).ok_or(CreateError::UnknownMigration(id))?;
        let not_left = |reason: String| CreateError::NotLeft { id, reason };
        if let Operation::Retire { .. } = state.order.operation {
            return Err(not_left("it retired a standby and moved nothing".to_owned()));
        }
        match state.ended {
            Some((Ending::Completed, _)) => {}
            Some((ending, _)) => {
                return Err(not_left(format!("it ended {}, and the shard did not move", ending.name())));
            }
            None => return Err(not_left("it still runs; cancel it instead".to_owned())),
        }
        if matches!(operation, Operation::Retire { .. }) && state.order.strategy.carries_state() {
            let reason = format!("{} leaves no standby", state.order.strategy.name());
            return Err(not_left(reason));
        }
        let later = match operation {
            Operation::Retire { .. } => self.later(state, |later| later.order.to == state.order.from),
            Operation::Move | Operation::Undo { .. } => self.later(state, |_| true),
        };
        if let Some(later) = later {
            return Err(not_left(format!("migration {later} followed it")));
        }
        let order = &state.order;
        // What is not deterministic left no standby and cannot be replayed on the way back either.
        let strategy = if order.strategy.carries_state() { order.strategy } else { Strategy::Live };
        let wish = NewMigration {
            shard: Some(order.shard.shard.clone()),
            strategy: Some(strategy.name().to_owned()),
            ..NewMigration::new(order.shard.service.clone(), order.from.clone())
        };
        let (shard, target) = self.check_ends(&wish)?;
        Ok(Asked { shard, target, operation, strategy, limits: self.limits(None), reason: None, key: None, wish })
    }

    /// The first operation on the same shard that completed after this one and is as asked.
    fn later(&self, state: &Migration, is_meant: impl Fn(&Migration) -> bool) -> Option<MigrationId> {
        let same_shard = self.book.all().filter(|other| other.order.shard == state.order.shard);
        let later = same_shard.skip_while(|other| other.order.id != state.order.id).skip(1);
        let completed = |other: &&Migration| matches!(other.ended, Some((Ending::Completed, _)));
        later.filter(completed).find(|other| is_meant(other)).map(|other| other.order.id)
    }

    /// Begins to retire the standbys whose time is over.
    pub(super) fn retire_old_standbys(&mut self) {
        let now = self.hands.shell.now();
        if self.retire_at.is_some_and(|at| at > now) {
            return;
        }
        self.retire_at = Some(now + LOOK_EVERY);
        let wall_ms = self.hands.shell.wall_ms();
        // What completed last for a node made it the owner, left a standby there, or retired that.
        let mut left = BTreeMap::new();
        for state in self.book.all() {
            let Some((Ending::Completed, ended_ms)) = state.ended else { continue };
            let Order { shard, from, to, operation, .. } = &state.order;
            left.remove(&(shard, to));
            if !matches!(operation, Operation::Retire { .. }) {
                left.insert((shard, from), (state, ended_ms));
            }
        }
        let is_due = |(state, ended_ms): &(&Migration, u64)| {
            wall_ms >= ended_ms.saturating_add(state.order.keep_standby_ms)
                && state.undo.is_empty()
                && self.has_standby(state)
        };
        let due: Vec<MigrationId> = left.into_values().filter(is_due).map(|(state, _)| state.order.id).collect();
        for id in due {
            match self.after(id, Operation::Retire { of: id }) {
                Ok(asked) => self.begin(asked, None),
                Err(error) => tracing::debug!(%id, %error, "a standby is not retired now"),
            }
        }
    }

    /// Whether the source of a completed migration is a standby now, and a sound one: what found trouble is kept for its
    /// operator.
    fn has_standby(&self, state: &Migration) -> bool {
        let status = self
            .directory
            .node(&state.order.from)
            .and_then(|node| node.announcement.shards.iter().find(|of| of.shard == state.order.shard));
        status.is_some_and(|status| {
            let stands = !matches!(status.replica, ReplicaState::None | ReplicaState::Stopped);
            let owns = status.owner.as_ref().is_some_and(|owner| owner.node == state.order.from);
            stands && !owns && status.trouble.is_none()
        })
    }
}
