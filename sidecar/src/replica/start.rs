//! How a sidecar comes back to what it owns, and how a new log gets its first owner and checkpoint 0.
//!
//! A sidecar that finds its own node as owner under another incarnation fences itself in before it loads (invariant 2), and nothing
//! is delivered before checkpoint 0 counts (invariant 7).

use std::num::NonZeroU64;
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Epoch, Hash};
use broker_adapter::log::ReadError;
use broker_adapter::record::{Cause, Checkpoint, Fence, Record, SettingsRecord, Writer};

use super::engine::{APPEND_AGAIN, Engine, FOLLOWING_RECORDS, Life};
use super::origin;
use super::recovery::Recovery;
use crate::catch_up::{CatchUp, CatchUpError};
use crate::checkpoint::CheckpointError;
use crate::checkpoint::save::{Parts, Saved, Writer as CheckpointWriter};
use crate::service::state::{Running, begin_empty};

/// Said by a node that was to begin a log with an imported state and ended before checkpoint 0 counted.
const UNFOUNDED: &str = "this node owns the log, and it has no checkpoint 0: an import did not come to its end; import again, or set \
                         create = true to begin with what the service holds";

impl Engine {
    /// Comes to the log's tail, claims what is this node's, and begins to load it; once more if the owner trims past it meanwhile.
    pub async fn begin(&mut self) -> Result<(), CatchUpError> {
        loop {
            match self.claim().await {
                Err(CatchUpError::Read(error @ ReadError::Trimmed { .. })) => {
                    tracing::warn!(shard = %self.context.shard, %error, "beginning behind a newer checkpoint");
                }
                result => return result,
            }
        }
    }

    async fn claim(&mut self) -> Result<(), CatchUpError> {
        let context = self.context.clone();
        let (mut fold, mut follower) = CatchUp::of(&context).run().await?;
        let me = context.me.clone();
        loop {
            let cause = match fold.owner() {
                None if context.config.create => Cause::First,
                Some(owner) if owner.node == me.node && *owner != me => Cause::Restart,
                Some(owner) if *owner == me => break,
                _ => return Ok(()),
            };
            let fence = Fence { epoch: fold.epoch().next(), owner: me.clone(), cause, migration: None, retires: None };
            let epoch = fence.epoch;
            self.append_until(&mut fold, &mut follower, vec![Record::Fence(fence)], |fold| fold.epoch() >= epoch)
                .await?;
        }
        self.own_epoch = Some(fold.epoch());
        if fold.checkpoints().newest().is_none() {
            if !context.config.create {
                self.stop(UNFOUNDED.to_owned());
                return Ok(());
            }
            self.found(&mut fold, &mut follower).await?;
        }
        self.recovery = Recovery::of(fold.checkpoints().kept(), 0);
        self.reload();
        Ok(())
    }

    /// This node owns the shard and has no replica: a late fence of an earlier run made it the owner, or its own fence was in
    /// flight when its service failed.
    pub async fn claim_again(&mut self) {
        let tail = self.tail.borrow().clone();
        let me = &self.context.me;
        let Some(owner) = tail.owner.filter(|owner| owner.node == me.node) else { return };
        if owner != *me && self.own_epoch.is_some_and(|own| tail.epoch > own) {
            self.replaced(&owner);
        } else if let Err(error) = self.begin().await {
            self.stop(error.to_string());
        }
    }

    /// Saves the new instance's state as checkpoint 0 and records it, after the shard's settings.
    async fn found(&mut self, fold: &mut Fold, follower: &mut Follower) -> Result<(), CatchUpError> {
        let saved = self.save_first(fold.epoch()).await.map_err(CatchUpError::Checkpoint)?;
        let writer = Writer { epoch: fold.epoch(), replica: self.context.me.clone() };
        let records = vec![
            Record::Settings(SettingsRecord { writer: writer.clone(), settings: self.context.config.new_settings() }),
            Record::Checkpoint(Checkpoint {
                writer,
                position: saved.position,
                manifest: saved.manifest,
                record_crc: saved.record_crc,
            }),
        ];
        let epoch = fold.epoch();
        let recorded = |fold: &Fold| fold.checkpoints().newest().is_some() || fold.epoch() > epoch;
        self.append_until(fold, follower, records, recorded).await
    }

    async fn save_first(&mut self, epoch: Epoch) -> Result<Saved, CheckpointError> {
        let context = self.context.clone();
        let began = context.shell.now();
        // What it holds already is adopted.
        let running = begin_empty(context.runner.as_ref(), &context.config, &context.shell).await?;
        self.save_as_first(running, epoch, began).await
    }

    /// Saves what an instance holds as checkpoint 0, and ends it.
    pub(super) async fn save_as_first(
        &mut self,
        mut running: Running,
        epoch: Epoch,
        began: Duration,
    ) -> Result<Saved, CheckpointError> {
        let context = self.context.clone();
        let mut state = running.save(&context.config, &context.shell).await?;
        let seen = state.hashed();
        let parts = Parts {
            shard: context.shard.clone(),
            epoch,
            fold: Fold::new(),
            replies: Vec::new(),
            hash: Hash::default(),
            reuse: Vec::new(),
        };
        let saved = self.checkpoint_writer().save(parts, state).await?;
        let hash = Hash(*seen.lock().expect("nothing panics under this lock").finalize().as_bytes());
        origin::adopted(&context, hash).await?;
        context.metrics.checkpoint_saved(&saved, context.shell.now() - began);
        running.instance.stop().await;
        Ok(saved)
    }

    /// An owner whose configuration has settings of its own writes them where the log has others. Only the owner does, so
    /// two nodes with different ones change them once per change of the owner. K stays what the log's first record made it.
    pub fn settings_if_new(&mut self) {
        let Some(mut settings) = self.context.config.settings.clone() else { return };
        let now = self.context.shell.now();
        let Life::Active(active) = &self.life else { return };
        let in_force = active.fold.settings();
        settings.keys_remembered = in_force.keys_remembered;
        let sent_lately = self.settings_at.is_some_and(|at| now < at + APPEND_AGAIN);
        // Further behind, a record of ours may stand between here and the tail.
        let is_near = self.lag_records() <= FOLLOWING_RECORDS;
        if settings == *in_force || !active.owns(&self.context.me) || sent_lately || !is_near {
            return;
        }
        let Some(writer) = self.writer() else { return };
        tracing::info!(shard = %self.context.shard, ?settings, "the settings of this node's configuration come into force");
        self.settings_at = Some(now);
        self.append(vec![Record::Settings(SettingsRecord { writer, settings })]);
    }

    pub fn checkpoint_writer(&self) -> CheckpointWriter {
        CheckpointWriter {
            store: self.context.store.clone(),
            shell: self.context.shell.clone(),
            rate_mb_per_s: self.context.config.state_rate_mb_per_s,
            transfer_rate_mb_per_s: self.context.config.transfer_rate_mb_per_s.map(NonZeroU64::get),
        }
    }

    /// Appends, and reads on until `done`; appends again what was not read back. What was appended twice counts once.
    pub(super) async fn append_until(
        &mut self,
        fold: &mut Fold,
        follower: &mut Follower,
        records: Vec<Record>,
        done: impl Fn(&Fold) -> bool,
    ) -> Result<(), CatchUpError> {
        let shell = self.context.shell.clone();
        let mut again = Duration::ZERO;
        while !done(fold) {
            if shell.now() >= again {
                self.append(records.clone());
                again = shell.now() + APPEND_AGAIN;
            }
            if let Some(entry) = shell.within(again.saturating_sub(shell.now()), follower.next()).await {
                fold.observe(&entry?);
            }
        }
        Ok(())
    }
}
