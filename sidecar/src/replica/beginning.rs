//! A service that begins with an imported state: what an operator took from elsewhere is loaded into the service, and what the service
//! then holds becomes checkpoint 0, exactly as a state that it held by itself (design section 3, first contact).
//!
//! ```text
//!   set aside ──▶ loaded into the service, saved as checkpoint 0, whole in the store ──▶ Fence, Settings, Checkpoint, in one append
//! ```
//! Only a log without a checkpoint can begin, and the log says who did: of several that try, the first counted fence wins, and only
//! its own replica's checkpoint counts. What fails before the append changes nothing; a node that ends behind it and before the
//! checkpoint's record counts finds itself owner of nothing, says so, and may be told again.

use broker_adapter::fold::Fold;
use broker_adapter::follow::Follower;
use broker_adapter::ids::Hash;
use broker_adapter::record::{Cause, Checkpoint, Fence, Record, SettingsRecord, Writer};

use super::engine::{Engine, Life};
use super::origin;
use super::recovery::Recovery;
use crate::catch_up::CatchUp;
use crate::checkpoint::save::Saved;
use crate::checkpoint::{CheckpointError, import::forget, load::Reader, pace::Pace};
use crate::command::{Begin, BeginFailure, Begun, encode};
use crate::service::load_channel;
use crate::service::state::{self, Running};

impl Engine {
    /// Does what it is told if nothing has begun, and answers either way. Told again, it answers again.
    pub async fn begin_imported(&mut self, begin: Begin) {
        let result = self.imported(&begin).await;
        let shard = self.context.shard.clone();
        match &result {
            Ok(checkpoint) => tracing::info!(%shard, %checkpoint, "the service begins with an imported state"),
            Err(failure) => tracing::warn!(%shard, %failure, "the service does not begin with an imported state"),
        }
        let begun = Begun { shard, import: begin.import, from: self.context.me.clone(), result };
        self.context.mailbox.send(&begin.answer_to, encode(&begun));
    }

    async fn imported(&mut self, begin: &Begin) -> Result<Hash, BeginFailure> {
        if let Some((import, checkpoint)) = self.begun
            && import == begin.import
        {
            return Ok(checkpoint);
        }
        if !matches!(self.life, Life::Empty | Life::Stopped) {
            return Err(BeginFailure::HasBegun);
        }
        let other = |error: &dyn std::error::Error| BeginFailure::Other(error.to_string());
        let (mut fold, mut follower) = CatchUp::of(&self.context).run().await.map_err(|error| other(&error))?;
        let is_free = fold.owner().is_none_or(|owner| owner.node == self.context.me.node);
        if fold.checkpoints().newest().is_some() || !is_free {
            return Err(BeginFailure::HasBegun);
        }
        let saved = self.save_imported(begin, &fold).await.map_err(failure)?;
        self.record_beginning(&saved, &mut fold, &mut follower).await?;
        self.own_epoch = Some(fold.epoch());
        self.begun = Some((begin.import, saved.manifest));
        self.trouble = None;
        self.recovery = Recovery::of(fold.checkpoints().kept(), 0);
        self.reload();
        let reader = Reader { store: self.context.store.clone(), shell: self.context.shell.clone() };
        let (shard, import) = (self.context.shard.clone(), begin.import);
        self.context.shell.spawn(async move { forget(&reader, &shard, import).await });
        Ok(saved.manifest)
    }

    /// Loads the state into a new instance, and saves what that holds: a service that refuses it leaves the log as it was.
    async fn save_imported(&mut self, begin: &Begin, fold: &Fold) -> Result<Saved, CheckpointError> {
        let context = self.context.clone();
        let began = context.shell.now();
        let reader = Reader { store: context.store.clone(), shell: context.shell.clone() };
        let manifest = reader.set_aside(&context.shard, begin.import).await?;
        origin::check(&context, context.config.replace_state || begin.replace_state).await?;
        let (pieces, body) = load_channel(manifest.state_bytes());
        let made = state::load(context.runner.as_ref(), &context.config, body, &context.shell, &context.shell);
        let pace = Pace::new(&context.shell, context.config.state_rate_mb_per_s);
        let streamed = reader.stream_state(&manifest, begin.import, pieces, pace, |_| {});
        let (made, streamed) = futures_util::future::join(made, streamed).await;
        // A damaged chunk breaks the load off; the chunk is the cause.
        streamed?;
        let running: Running = made?;
        self.save_as_first(running, fold.epoch().next(), began).await
    }

    /// All at once: a log that this node owns has a checkpoint, unless it ends in between.
    async fn record_beginning(
        &mut self,
        saved: &Saved,
        fold: &mut Fold,
        follower: &mut Follower,
    ) -> Result<(), BeginFailure> {
        let me = self.context.me.clone();
        let epoch = fold.epoch().next();
        let cause = if fold.owner().is_none() { Cause::First } else { Cause::Restart };
        let writer = Writer { epoch, replica: me.clone() };
        let records = vec![
            Record::Fence(Fence { epoch, owner: me, cause, migration: None, retires: None }),
            Record::Settings(SettingsRecord { writer: writer.clone(), settings: self.context.config.new_settings() }),
            Record::Checkpoint(Checkpoint {
                writer,
                position: saved.position,
                manifest: saved.manifest,
                record_crc: saved.record_crc,
            }),
        ];
        let me = self.context.me.clone();
        let is_lost = |fold: &Fold| fold.epoch() > epoch || (fold.epoch() == epoch && !fold.is_owner(&me));
        let decided = |fold: &Fold| fold.checkpoints().newest().is_some() || is_lost(fold);
        let read = self.append_until(fold, follower, records, decided).await;
        read.map_err(|error| BeginFailure::Other(error.to_string()))?;
        let newest = fold.checkpoints().newest();
        if newest.is_some_and(|newest| newest.manifest == saved.manifest) {
            Ok(())
        } else {
            Err(BeginFailure::HasBegun)
        }
    }
}

fn failure(error: CheckpointError) -> BeginFailure {
    match &error {
        CheckpointError::Origin { .. } => BeginFailure::Origin(error.to_string()),
        CheckpointError::Service(_) => BeginFailure::Service(error.to_string()),
        CheckpointError::Store(_) | CheckpointError::Damaged { .. } | CheckpointError::None { .. } => {
            BeginFailure::Other(error.to_string())
        }
    }
}
