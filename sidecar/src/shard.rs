//! One service's shard on one sidecar: what its ingress, its replica and its node agent share, and how they are wired.

use std::sync::Arc;

use broker_adapter::fold::Rules;
use broker_adapter::ids::{Count, Epoch, Position, Replica, ShardId};
use broker_adapter::log::MessageLog;
use broker_adapter::mailbox::Mailbox;
use broker_adapter::shell::Shell;
use broker_adapter::store::CheckpointStore;
use tokio::sync::{mpsc, watch};

use crate::command::{NodeMail, ReplicaState, ReplyMail, encode, node_address};
use crate::config::ServiceConfig;
use crate::config::path::Hidden;
use crate::metrics::Metrics;
use crate::room::Room;
use crate::runner::Runner;
use crate::service::Reader;
use crate::trace::Traceparent;

/// How many inputs may wait at an owner task; more are dropped like lost mail, and asked for again.
pub const INBOX_INPUTS: usize = 8_192;

/// What every part of a shard is given.
#[derive(Clone)]
pub struct Context {
    /// This run of this node.
    pub me: Replica,
    /// Which shard.
    pub shard: ShardId,
    /// Its configuration.
    pub config: Arc<ServiceConfig>,
    /// What no client reaches.
    pub hidden: Hidden,
    /// Time, randomness, sockets, tasks.
    pub shell: Shell,
    /// Its log; each part has a handle of its own, so that one's order does not wait for another's.
    pub log: Arc<dyn MessageLog>,
    /// Its checkpoints.
    pub store: Arc<dyn CheckpointStore>,
    /// Best-effort messages.
    pub mailbox: Arc<dyn Mailbox>,
    /// Starts its service.
    pub runner: Arc<dyn Runner>,
    /// What is counted.
    pub metrics: Metrics,
    /// How full the log is.
    pub room: watch::Receiver<Room>,
    /// Ends the whole sidecar, with a reason.
    pub fatal: mpsc::Sender<String>,
    /// Names the span of a request, where traces are collected.
    pub traceparent: Option<Traceparent>,
    /// A test-only switch.
    pub rules: Rules,
}

impl Context {
    /// Ends the whole sidecar: what goes wrong here cannot pass.
    pub fn fail(&self, reason: String) {
        tracing::error!(shard = %self.shard, "{reason}");
        // A second reason changes nothing.
        let _ = self.fatal.try_send(format!("{}: {reason}", self.shard));
    }
}

/// What the ingress, which always reads at the tail, knows of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TailView {
    /// The last record read.
    pub position: Position,
    /// The ownership number there.
    pub epoch: Epoch,
    /// The owner there.
    pub owner: Option<Replica>,
    /// How many messages and closes counted.
    pub count: Count,
    /// The newest counted checkpoint.
    pub checkpoint: Option<Position>,
    /// Whether the log was read to its tail once since the start.
    pub caught_up: bool,
    /// Why the ingress cannot go on.
    pub trouble: Option<String>,
}

/// What the replica tells of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplicaView {
    /// How it is.
    pub state: ReplicaState,
    /// The last record applied.
    pub applied: Position,
    /// Whether it owns, or has agreed with a digest since its load: then it may answer reads.
    pub may_answer: bool,
    /// What asks its instance, while its state is known.
    pub reader: Option<Reader>,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
}

impl Default for ReplicaView {
    fn default() -> Self {
        ReplicaView {
            state: ReplicaState::None,
            applied: Position::ZERO,
            may_answer: false,
            reader: None,
            trouble: None,
        }
    }
}

/// Brings replies to the ingress that holds the client: within this process, or by mail.
#[derive(Clone)]
pub struct Replies {
    /// This run of this node.
    pub me: Replica,
    /// This process's ingress.
    pub local: mpsc::Sender<ReplyMail>,
    /// The way to all others.
    pub mailbox: Arc<dyn Mailbox>,
}

impl Replies {
    /// Sends a reply; it may be lost, then the ingress asks.
    pub fn send(&self, to: &Replica, reply: ReplyMail) {
        if *to == self.me {
            if self.local.try_send(reply).is_err() {
                tracing::debug!("the ingress is behind; it will ask for this reply");
            }
        } else {
            self.mailbox.send(&node_address(&to.node), encode(&NodeMail::Reply(reply)));
        }
    }
}

/// What the parts of a shard see of each other.
#[derive(Clone)]
pub struct Views {
    /// The log's tail, as the ingress read it.
    pub tail: watch::Receiver<TailView>,
    /// The replica.
    pub replica: watch::Receiver<ReplicaView>,
}
