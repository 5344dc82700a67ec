//! The replica: one copy of the shard's state on this node, and the one task that owns it.
//!
//! ```text
//!              ┌────────┐  load   ┌─────────┐  applied what   ┌───────────┐
//!   start ───▶ │ Empty  │ ──────▶ │ Loading │ ──────────────▶ │  Active   │ owner or standby: the fold
//!              └────────┘         └─────────┘  was loaded     └───────────┘ at its position says which
//!                  ▲                   ▲      unknown: reload       │
//!                  └── discard ────────┴────────────────────────────┘
//! ```
//! Everything that changes the state passes through [`engine`], one record after the other. `steps` are the source's and
//! target's parts of a migration, `proof` what owner and standby compare, `job` and `upkeep` take checkpoints and make room.

mod absent;
mod active;
mod asked;
mod beginning;
mod bodies;
mod compared;
mod divergence;
mod engine;
mod feed;
mod first_difference;
mod gather;
mod job;
pub mod kept;
mod loading;
mod origin;
mod ownership;
mod pause;
mod proof;
mod recovery;
pub mod running;
mod start;
mod steps;
mod upkeep;

use broker_adapter::ids::Replica;
use tokio::sync::{mpsc, watch};

use crate::command::{AskDifference, AskKept, AskReplies, Begin, Command, OwnersReply};
use crate::shard::{Context, INBOX_INPUTS, ReplicaView, Replies, TailView};

/// What the replica is told.
#[derive(Clone, Debug)]
pub enum ReplicaInput {
    /// A migration's step.
    Command(Command),
    /// An ingress misses replies.
    AskReplies(AskReplies),
    /// Another replica differs and asks where that began.
    AskDifference(AskDifference),
    /// The owner's answer to that.
    OwnersReply(OwnersReply),
    /// An ingress wants to know what became of a message.
    AskKept(AskKept),
    /// Somebody wants a checkpoint.
    TakeCheckpoint,
    /// Somebody wants the service to begin with an imported state.
    Begin(Begin),
    /// Two sidecars have one name: this is the other one, and the younger.
    Replaced(Replica),
}

/// Starts the replica's task.
#[must_use]
pub fn start(
    context: &Context,
    tail: watch::Receiver<TailView>,
    replies: Replies,
) -> (mpsc::Sender<ReplicaInput>, watch::Receiver<ReplicaView>) {
    let (inbox, inputs) = mpsc::channel(INBOX_INPUTS);
    let (view, seen) = watch::channel(ReplicaView::default());
    if context.config.runs_replica() {
        let engine = engine::Engine::new(context.clone(), inputs, tail, replies, view);
        context.shell.spawn(engine.run());
    } else {
        context.shell.spawn(absent::run(context.clone(), inputs, tail, view));
    }
    (inbox, seen)
}
