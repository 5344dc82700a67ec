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
//! target's parts of a migration, `proof` what owner and standby compare.

mod active;
mod engine;
pub mod kept;
mod loading;
mod origin;
mod proof;
pub mod running;
mod start;
mod steps;

use broker_adapter::ids::Replica;
use tokio::sync::{mpsc, watch};

use crate::command::{AskReplies, Command};
use crate::shard::{Context, INBOX_INPUTS, ReplicaView, Replies, TailView};

/// What the replica is told.
#[derive(Clone, Debug)]
pub enum ReplicaInput {
    /// A migration's step.
    Command(Command),
    /// An ingress misses replies.
    AskReplies(AskReplies),
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
    let engine = engine::Engine::new(context.clone(), inputs, tail, replies, view);
    context.shell.spawn(engine.run());
    (inbox, seen)
}
