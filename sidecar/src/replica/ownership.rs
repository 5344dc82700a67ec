//! What a counted fence means for this replica: that it owns, stands by, is retired, or that another process bears its name.

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::Replica;
use broker_adapter::record::Cause;

use super::engine::{Engine, Life};
use super::steps::Target;

impl Engine {
    /// Whether replies are this replica's to give, at its position.
    pub(super) fn gives(&self) -> bool {
        matches!(&self.life, Life::Active(active)
            if active.owns(&self.context.me) && active.fold.epoch() >= self.silent_below)
    }

    /// Ownership moved (or was confirmed) at the replica's position.
    pub(super) fn fenced(&mut self, fence: &CountedFence) {
        let me = self.context.me.clone();
        self.note_owner(fence);
        self.steps.void(fence.epoch);
        if self.is_retired_by(fence) {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, "retired");
            self.drop_replica();
        }
        let Life::Active(active) = &mut self.life else { return };
        (active.job, active.pinning) = (None, None);
        active.proofs.clear();
        if fence.owner == me {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, cause = ?fence.cause, "owner");
            // Its state is the shard's now: what differs is elsewhere.
            if active.diverged.take().is_some() {
                self.trouble = None;
            }
            self.append_digest(None, None);
        } else {
            tracing::info!(shard = %self.context.shard, epoch = %fence.epoch, owner = %fence.owner, "standby");
            active.agreed = false;
            self.upkeep.alarm = None;
        }
    }

    /// Remembers that it owned; finds out that another process bears its name.
    pub fn note_owner(&mut self, fence: &CountedFence) {
        let me = self.context.me.clone();
        if fence.owner == me {
            self.own_epoch = self.own_epoch.max(Some(fence.epoch));
        } else if fence.owner.node == me.node && self.own_epoch.is_some_and(|own| fence.epoch > own) {
            self.replaced(&fence.owner);
        }
    }

    /// A standby goes when it reads that its node was retired; one that owned, or was asked to be a target, since then does not.
    fn is_retired_by(&self, fence: &CountedFence) -> bool {
        let Life::Active(active) = &self.life else { return false };
        let is_later = |target: &Target| target.command.epoch > fence.epoch;
        let me = &self.context.me;
        fence.cause == Cause::Retire
            && fence.retires.as_ref() == Some(&me.node)
            && fence.owner != *me
            && self.own_epoch < Some(fence.epoch)
            && !active.target.as_ref().is_some_and(is_later)
    }

    pub fn replaced(&mut self, by: &Replica) {
        let me = &self.context.me;
        self.context.fail(format!(
            "another sidecar runs under this node's name {}: its run {} took over from this one ({}); give each sidecar a name of its own",
            me.node, by.incarnation, me.incarnation
        ));
        self.stop("replaced by another sidecar of the same name".to_owned());
    }

    /// A standby that comes back by a checkpoint from behind the fence that retired it never reads that fence itself.
    pub(super) fn leave_if_retired(&mut self) {
        let Life::Active(active) = &self.life else { return };
        if active.fold.fences().any(|fence| self.is_retired_by(fence)) {
            tracing::info!(shard = %self.context.shard, "retired");
            self.drop_replica();
        }
    }
}
