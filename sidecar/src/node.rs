//! The node agent: it brings mail to the parts of this sidecar, and tells everybody that the sidecar lives.
//!
//! Of two sidecars of one name the older one stops: it hears the younger one's announcement.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{Replica, ShardId};
use broker_adapter::shell::Shell;
use futures_util::StreamExt;
use tokio::sync::{mpsc, watch};

use crate::command::{
    ANNOUNCE_ADDRESS, ANNOUNCE_EVERY_MS, Announcement, NodeLoad, NodeMail, ReplyMail, ShardStatus, decode, encode,
    node_address,
};
use crate::config::ProofConfig;
use crate::ingress::reads::Reads;
use crate::metrics::Metrics;
use crate::replica::ReplicaInput;
use crate::shard::Views;

/// How often the agent looks whether something changed.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// What the node agent knows of one shard.
#[derive(Clone)]
pub struct ShardParts {
    /// The replica's inbox.
    pub replica: mpsc::Sender<ReplicaInput>,
    /// The ingress's inbox for replies.
    pub replies: mpsc::Sender<ReplyMail>,
    /// The shard's reads.
    pub reads: Reads,
    /// What the parts show.
    pub views: Views,
    /// Where clients reach it.
    pub listen: String,
    /// Whether this node may have a replica of it.
    pub runs_replica: bool,
    /// What a move to this node must show.
    pub proof: ProofConfig,
    /// What is counted.
    pub metrics: Metrics,
}

/// The agent of one sidecar.
#[derive(Clone)]
pub struct NodeAgent {
    /// This run of this node.
    pub me: Replica,
    /// `host`, `edge`, …
    pub class: String,
    /// Where the admin port is.
    pub admin: String,
    /// When this run began.
    pub started_ms: u64,
    /// Its shards.
    pub shards: BTreeMap<ShardId, ShardParts>,
    /// How busy the machine is, if somebody looks.
    pub load: watch::Receiver<Option<NodeLoad>>,
    /// The way to everybody.
    pub mailbox: std::sync::Arc<dyn broker_adapter::mailbox::Mailbox>,
    /// Time and tasks.
    pub shell: Shell,
}

impl NodeAgent {
    /// Starts announcing and receiving.
    pub fn start(self) {
        let shell = self.shell.clone();
        let (announcer, listener) = (self.clone(), self.clone());
        shell.spawn(async move { announcer.announce().await });
        shell.spawn(async move { listener.listen_for_names().await });
        shell.spawn(async move { self.receive().await });
    }

    async fn receive(self) {
        let mut mail = self.mailbox.subscribe(&node_address(&self.me.node));
        while let Some(bytes) = mail.next().await {
            match decode::<NodeMail>(&bytes) {
                Some(mail) => self.deliver(mail),
                None => tracing::debug!("dropped mail of another version"),
            }
        }
    }

    /// Inboxes that are full lose mail like the mailbox itself.
    fn deliver(&self, mail: NodeMail) {
        match mail {
            NodeMail::Command(command) => {
                if let Some(shard) = self.shards.get(&command.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::Command(command));
                } else {
                    self.refuse(&command);
                }
            }
            NodeMail::Reply(reply) => {
                if let Some(shard) = self.shards.get(&reply.shard) {
                    let _ = shard.replies.try_send(reply);
                }
            }
            NodeMail::AskReplies(ask) => {
                if let Some(shard) = self.shards.get(&ask.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::AskReplies(ask));
                }
            }
            NodeMail::TakeCheckpoint(shard) => {
                if let Some(shard) = self.shards.get(&shard) {
                    let _ = shard.replica.try_send(ReplicaInput::TakeCheckpoint);
                }
            }
            NodeMail::Begin(begin) => {
                if let Some(shard) = self.shards.get(&begin.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::Begin(begin));
                }
            }
            NodeMail::AskDifference(ask) => {
                if let Some(shard) = self.shards.get(&ask.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::AskDifference(ask));
                }
            }
            NodeMail::OwnersReply(found) => {
                if let Some(shard) = self.shards.get(&found.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::OwnersReply(found));
                }
            }
            NodeMail::AskKept(ask) => {
                if let Some(shard) = self.shards.get(&ask.shard) {
                    let _ = shard.replica.try_send(ReplicaInput::AskKept(ask));
                }
            }
            NodeMail::KeptAnswer(answer) => {
                if let Some(shard) = self.shards.get(&answer.shard) {
                    shard.reads.kept_answered(answer);
                }
            }
            NodeMail::AskRead(ask) => {
                if let Some(shard) = self.shards.get(&ask.shard) {
                    let reads = shard.reads.clone();
                    self.shell.spawn(async move { reads.answer(ask).await });
                }
            }
            NodeMail::ReadAnswer(answer) => {
                if let Some(shard) = self.shards.get(&answer.shard) {
                    shard.reads.answered(answer);
                }
            }
        }
    }

    fn refuse(&self, command: &crate::command::Command) {
        use crate::command::{FailureCode, Outcome, StepFailure, StepStatus};
        let known: Vec<String> = self.shards.keys().map(ToString::to_string).collect();
        let message = format!(
            "{} has no [[service]] for {} in its configuration; it has: {}",
            self.me.node,
            command.shard,
            known.join(", ")
        );
        let outcome = Outcome {
            migration: command.migration,
            attempt: command.attempt,
            step: command.step.name().to_owned(),
            from: self.me.clone(),
            status: StepStatus::Failed(StepFailure::new(FailureCode::UnknownService, &message)),
        };
        self.mailbox.send(&command.answer_to, encode(&outcome));
    }

    /// Every [`ANNOUNCE_EVERY_MS`], and soon after an owner, an epoch or a replica's state changed.
    async fn announce(self) {
        let mut told = Vec::new();
        let mut due = Duration::ZERO;
        loop {
            let announcement = self.announcement();
            let now = self.shell.now();
            let state: Vec<_> =
                announcement.shards.iter().map(|shard| (shard.epoch, shard.owner.clone(), shard.replica)).collect();
            if now >= due || state != told {
                self.mailbox.send(ANNOUNCE_ADDRESS, encode(&announcement));
                (told, due) = (state, now + Duration::from_millis(ANNOUNCE_EVERY_MS));
            }
            self.shell.sleep(LOOK_EVERY).await;
        }
    }

    /// What this sidecar says of itself.
    #[must_use]
    pub fn announcement(&self) -> Announcement {
        Announcement {
            from: self.me.clone(),
            class: self.class.clone(),
            arch: std::env::consts::ARCH.to_owned(),
            started_ms: self.started_ms,
            admin: self.admin.clone(),
            shards: self.shards.iter().map(|(shard, parts)| parts.status(shard)).collect(),
            leaving: false,
            load: self.load.borrow().clone(),
        }
    }

    async fn listen_for_names(self) {
        let mut heard = self.mailbox.subscribe(ANNOUNCE_ADDRESS);
        while let Some(bytes) = heard.next().await {
            let Some(other) = decode::<Announcement>(&bytes) else { continue };
            let younger = (other.started_ms, other.from.incarnation) > (self.started_ms, self.me.incarnation);
            if other.from.node == self.me.node && other.from != self.me && younger {
                for shard in self.shards.values() {
                    let _ = shard.replica.try_send(ReplicaInput::Replaced(other.from.clone()));
                }
            }
        }
    }
}

impl ShardParts {
    fn status(&self, shard: &ShardId) -> ShardStatus {
        let tail = self.views.tail.borrow().clone();
        let replica = self.views.replica.borrow().clone();
        ShardStatus {
            shard: shard.clone(),
            epoch: tail.epoch,
            owner: tail.owner,
            tail: tail.position,
            runs_replica: self.runs_replica,
            replica: replica.state,
            applied: replica.applied,
            checkpoint: tail.checkpoint,
            messages_counted: tail.count.0,
            listen: self.listen.clone(),
            trouble: tail.trouble.or(replica.trouble),
            proof: Some(self.proof.name().to_owned()),
            traffic: self.metrics.traffic().told(),
        }
    }
}
