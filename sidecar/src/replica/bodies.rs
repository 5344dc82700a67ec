//! Which stored bodies a replica needs, and the owner's part of removing the others: with the trim, and never one that a record may
//! still name.
//!
//! ```text
//!        trimmed         ║ kept: bodies named here may be replayed   fold │ may still come
//!   ──┬──┬──┬──┬──┬──┬──┬╨─┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬──┬────┼───▶
//!     free                ▲ oldest kept checkpoint                        │ a session that is not known, base within K
//! ```
//! Everything that makes a body free stays so: a record that can count no more never will, and checkpoints that were dropped never
//! are kept again. So an owner that was fenced off meanwhile removes nothing that is needed. Void, repeated and expired records need
//! no body, and neither does a put whose append never happened: nothing names those, and K counts later nothing can.

use std::collections::BTreeMap;

use broker_adapter::fold::{Bug, Fold, Rules};
use broker_adapter::ids::{Position, ShardId};
use broker_adapter::log::ReadError;

use super::engine::{Engine, Life};
use crate::body::{Bodies, BodyError, BodyName};
use crate::catch_up::CatchUp;

/// The stored bodies of the applied messages that this replica has read, behind the checkpoint that it loaded. As many as there are
/// such records in the log at most.
#[derive(Clone, Debug, Default)]
pub(super) struct BodyTable {
    /// Behind this position it knows all.
    from: Position,
    applied: BTreeMap<BodyName, Position>,
}

impl BodyTable {
    /// Of a replica that was loaded from the checkpoint at `from`.
    pub fn new(from: Position) -> BodyTable {
        BodyTable { from, applied: BTreeMap::new() }
    }

    pub fn add(&mut self, name: BodyName, position: Position) {
        self.applied.insert(name, position);
    }

    /// Nobody reads what stands before this any more.
    pub fn forget_before(&mut self, before: Position) {
        self.applied.retain(|_, position| *position >= before);
    }

    /// Those of the objects given that nobody needs, where the log begins at `before` and the replica stands at `fold`.
    fn unneeded(&self, at: &Place<'_>, objects: Vec<String>, rules: Rules) -> Vec<String> {
        // What was applied between the two, and is still kept, is not known here.
        if at.before < self.from || rules.plant(Bug::BodyKeptForEver) {
            return Vec::new();
        }
        let is_needed = |name: BodyName| {
            let is_kept = self.applied.get(&name).is_some_and(|position| *position >= at.before);
            is_kept || (name.may_count(at.fold) && !rules.plant(Bug::BodyFreedInFlight))
        };
        // A name that cannot be read is nobody's that this program knows.
        let free = |object: &String| BodyName::parse(at.shard, object).is_some_and(|name| !is_needed(name));
        objects.into_iter().filter(free).collect()
    }
}

/// A place in a shard's log.
struct Place<'a> {
    shard: &'a ShardId,
    fold: &'a Fold,
    before: Position,
}

impl Engine {
    /// The log was trimmed before `before`, and these objects were in the store after that.
    pub(super) fn free_bodies(&mut self, before: Position, objects: Vec<String>) {
        let Life::Active(active) = &mut self.life else { return };
        let at = Place { shard: &self.context.shard, fold: &active.fold, before };
        let free = active.bodies.unneeded(&at, objects, self.context.rules);
        active.bodies.forget_before(before);
        if free.is_empty() {
            return;
        }
        tracing::debug!(shard = %self.context.shard, objects = free.len(), %before, "removing bodies that nobody needs");
        let bodies = self.context.bodies();
        self.context.shell.spawn(async move { bodies.remove(free).await });
    }

    /// The body of a message that is to be applied is not what the log says. If the owner has taken checkpoints behind it meanwhile,
    /// it went with the trim, and this replica goes on from one of them; else it is lost, as a record would be (invariant 4).
    pub(super) async fn body_lost(&mut self, position: Position, error: &BodyError) {
        let oldest = match CatchUp::of(&self.context).run().await {
            Ok((fold, _)) => fold.checkpoints().oldest().map_or(Position::ZERO, |kept| kept.position),
            Err(error) => return self.stop(error.to_string()),
        };
        if oldest > position {
            return self.trimmed(&ReadError::Trimmed { asked: position, first: oldest }).await;
        }
        self.stop(format!(
            "the request at {position} cannot be applied: {error}; is `checkpoints` the same place on every node, gateways too? Put \
             the object back where it belongs, and restart"
        ));
    }
}

impl crate::shard::Context {
    /// The shard's bodies in the checkpoint store.
    pub(crate) fn bodies(&self) -> Bodies {
        Bodies { store: self.store.clone(), shard: self.shard.clone(), shell: self.shell.clone() }
    }
}

#[cfg(test)]
mod tests;
