//! Bringing an instance to a checkpoint: start it, wait until it is ready, stream the state in, take fold and replies.
//!
//! Runs as a task of its own, so that the replica answers commands meanwhile; its events carry the number of the load.

use std::time::Duration;

use broker_adapter::fold::{Bug, Fold};
use broker_adapter::ids::{Hash, Position};
use broker_adapter::shell::{Shell, TaskSet};
use tokio::sync::mpsc;

use super::engine::Event;
use super::kept::KeptReplies;
use super::origin;
use crate::checkpoint::{CheckpointError, load::Reader, pace::Pace};
use crate::command::Command;
use crate::service::load_channel;
use crate::service::state::{self, Running};
use crate::shard::Context;

/// A load under way.
pub(super) struct Loading {
    /// Which one.
    pub load: u64,
    /// Of which checkpoint.
    pub position: Position,
    /// Its manifest.
    pub manifest: Hash,
    /// How often this checkpoint failed to load for this target before.
    pub failures: u32,
    /// For a target: the command that began it, or one of a later attempt that takes it over.
    pub target: Option<Command>,
    /// Bytes of state that went into the service.
    pub bytes: u64,
    /// Whether all of them did.
    pub streamed: bool,
    /// The task; ends with this.
    pub _tasks: TaskSet,
}

/// An instance that holds a checkpoint's state.
pub(super) struct Loaded {
    pub running: Running,
    pub fold: Fold,
    pub kept: KeptReplies,
    pub hash: Hash,
}

/// Which checkpoint, as which load, and when.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub load: u64,
    pub position: Position,
    pub manifest: Hash,
    /// How long to wait before it begins.
    pub wait: Duration,
}

/// Starts a load; its events arrive at `events`.
pub(super) fn begin(
    context: &Context,
    wanted: Wanted,
    target: Option<Command>,
    events: mpsc::Sender<Event>,
) -> Loading {
    let (shell, tasks) = context.shell.part();
    let task_context = Context { shell: shell.clone(), ..context.clone() };
    // The connection outlives the load.
    let lasting = context.shell.clone();
    shell.spawn(async move {
        task_context.shell.sleep(wanted.wait).await;
        let result = load(&task_context, wanted, &events, &lasting).await.map(Box::new);
        // The engine may have ended.
        let _ = events.send(Event::Loaded { load: wanted.load, result }).await;
    });
    let Wanted { load, position, manifest, .. } = wanted;
    Loading { load, position, manifest, failures: 0, target, bytes: 0, streamed: false, _tasks: tasks }
}

async fn load(
    context: &Context,
    wanted: Wanted,
    events: &mpsc::Sender<Event>,
    lasting: &Shell,
) -> Result<Loaded, CheckpointError> {
    let reader = Reader { store: context.store.clone(), shell: context.shell.clone() };
    let manifest = reader.manifest(&context.shard, wanted.position, wanted.manifest).await?;
    let fold = reader.fold(&manifest, wanted.manifest).await?;
    let replies = reader.replies(&manifest, wanted.manifest).await?;
    let replies = if context.rules.plant(Bug::CheckpointWithoutReplies) { Vec::new() } else { replies };
    let kept = context.shell.blocking(move || KeptReplies::from_vec(replies)).await;
    origin::check(context, context.config.replace_state).await?;
    let (pieces, body) = load_channel(manifest.state_bytes());
    let made = state::load(context.runner.as_ref(), &context.config, body, &context.shell, lasting);
    let stream = async {
        let rate_mb_per_s = context.config.state_rate_mb_per_s;
        let rate_mb_per_s =
            context.config.transfer_rate_mb_per_s.map_or(rate_mb_per_s, |rate| rate.get().min(rate_mb_per_s));
        let pace = Pace::new(&context.shell, rate_mb_per_s);
        let progress = |bytes| {
            // Progress may be dropped when the engine is busy.
            let _ = events.try_send(Event::LoadProgress { load: wanted.load, bytes });
        };
        let result = reader.stream_state(&manifest, wanted.manifest, pieces, pace, progress).await;
        if result.is_ok() {
            let _ = events.send(Event::Streamed { load: wanted.load }).await;
        }
        result
    };
    let (made, streamed) = futures_util::future::join(made, stream).await;
    // A damaged chunk breaks the load off; the chunk is the cause.
    streamed?;
    let running = made?;
    origin::loaded(context).await?;
    Ok(Loaded { running, fold, kept, hash: manifest.hash })
}
