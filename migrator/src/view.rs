//! What REST, the command line and the dashboard see: plain data with the JSON's names.
//!
//! Built from the book and the directory; nothing reads it back but people and their programs.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{Epoch, MigrationId, NodeName, Position, ServiceName, ShardId, ShardName};
use serde::Serialize;
use sidecar::command::{Difference, ReplicaState, ShardStatus};

use crate::book::Book;
use crate::directory::{Directory, Known};
use crate::machine::{Ending, Migration, Phase, Proof, Strategy};

/// One migration.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct MigrationView {
    /// Its name.
    pub id: MigrationId,
    /// What moves.
    pub service: ServiceName,
    /// Which part of it.
    pub shard: ShardName,
    /// `move`, `undo` or `retire`.
    pub operation: &'static str,
    /// The migration that is undone, or after which a standby is retired.
    pub of: Option<MigrationId>,
    /// How.
    pub strategy: Strategy,
    /// The source.
    pub from: NodeName,
    /// The target.
    pub to: NodeName,
    /// The present or last phase.
    pub phase: Phase,
    /// How it ended; `None` while it runs.
    pub outcome: Option<Ending>,
    /// What shows that both replicas are equal, once verified.
    pub proof: Option<Proof>,
    /// Where source and target differ, if it ended as `diverged`.
    pub divergence: Option<Difference>,
    /// E of the present attempt.
    pub epoch: Epoch,
    /// The first is 1.
    pub attempt: u32,
    /// Wall milliseconds.
    pub accepted_ms: u64,
    /// Wall milliseconds.
    pub ended_ms: Option<u64>,
    /// From acceptance to end.
    pub total_ms: Option<u64>,
    /// How far the target is behind, as it told last.
    pub lag_records: Option<u64>,
    /// Behind which record the source stands still, or stood in the last attempt; of strategies that pause it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused: Option<Position>,
    /// The state's size, once saved.
    pub state_bytes: Option<u64>,
    /// Every phase that was entered; of several attempts, each has its own.
    pub phases: Vec<PhaseView>,
    /// Why it did not complete.
    pub error: Option<String>,
    /// Why it was ordered.
    pub reason: Option<String>,
    /// Whether somebody wants it to end.
    pub cancel_requested: bool,
}

/// One phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct PhaseView {
    /// Which.
    pub name: Phase,
    /// In which attempt.
    pub attempt: u32,
    /// How long it took; `None` while it lasts.
    pub ms: Option<u64>,
}

/// One shard of a service, as its nodes tell.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ServiceView {
    /// The service.
    pub service: ServiceName,
    /// The part of it.
    pub shard: ShardName,
    /// The owner's node, as the node that has read most tells it.
    pub owner: Option<NodeName>,
    /// Since this epoch.
    pub epoch: Epoch,
    /// The last record that any node has read.
    pub tail: Position,
    /// Messages counted since the log began.
    pub messages_counted: u64,
    /// The last counted checkpoint.
    pub checkpoint: Option<Position>,
    /// The migration that moves it now.
    pub migration: Option<MigrationId>,
    /// The nodes that can run it.
    pub replicas: Vec<ReplicaView>,
}

/// What one node tells of one shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ReplicaView {
    /// The node.
    pub node: NodeName,
    /// How its replica is.
    pub state: ReplicaState,
    /// The last record that it has applied.
    pub applied: Position,
    /// Where clients reach the service on this node.
    pub listen: String,
    /// Whether the node was not heard for long.
    pub silent: bool,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct NodeView {
    /// Its name.
    pub name: NodeName,
    /// The present run of its sidecar.
    pub incarnation: broker_adapter::ids::Incarnation,
    /// `host`, `edge`, `dpu`, …
    pub class: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Where its `/livez`, `/readyz` and `/metrics` are.
    pub admin: String,
    /// Whether it was not heard for long.
    pub silent: bool,
    /// How long ago it was heard.
    pub heard_ms_ago: u64,
    /// What it tells of its shards.
    pub shards: Vec<ShardView>,
}

/// A node's word about a shard.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct ShardView {
    /// The service.
    pub service: ServiceName,
    /// The part of it.
    pub shard: ShardName,
    /// How the node's replica is.
    pub state: ReplicaState,
    /// The owner's node, as this node has read.
    pub owner: Option<NodeName>,
    /// The last record that it has applied.
    pub applied: Position,
    /// The last record that it has read.
    pub tail: Position,
    /// Where clients reach the service on this node.
    pub listen: String,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
}

/// How the migrator itself is, for `/readyz` and `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Ended migrations since the journal began, by how.
    pub ended: BTreeMap<String, u64>,
    /// Migrations that run, after-care included.
    pub running: u64,
    /// Nodes heard lately.
    pub nodes_alive: u64,
    /// Nodes not heard lately.
    pub nodes_silent: u64,
    /// The last entry of the journal that was read.
    pub journal_position: u64,
    /// Under which epoch this migrator owns the journal.
    pub journal_epoch: u64,
    /// Why the journal takes nothing now.
    pub journal_trouble: Option<String>,
}

impl MigrationView {
    /// Shows a migration.
    #[must_use]
    pub fn of(state: &Migration, lag_records: Option<u64>) -> MigrationView {
        let ended_ms = state.ended.map(|(_, at_ms)| at_ms);
        let order = &state.order;
        let phases = state.phases.iter().map(|time| PhaseView {
            name: time.phase,
            attempt: time.attempt,
            ms: time.ended_ms.map(|ended_ms| ended_ms.saturating_sub(time.began_ms)),
        });
        MigrationView {
            id: order.id,
            service: order.shard.service.clone(),
            shard: order.shard.shard.clone(),
            operation: order.operation.name(),
            of: order.operation.of(),
            strategy: order.strategy,
            from: order.from.clone(),
            to: order.to.clone(),
            phase: state.phase,
            outcome: state.ended.map(|(ending, _)| ending),
            proof: state.proof,
            divergence: state.difference.clone(),
            epoch: state.attempt.epoch,
            attempt: state.attempt.number,
            accepted_ms: order.accepted_ms,
            ended_ms,
            total_ms: ended_ms.map(|ended_ms| ended_ms.saturating_sub(order.accepted_ms)),
            lag_records,
            paused: state.paused,
            state_bytes: state.taken.map(|taken| taken.state_bytes),
            phases: phases.collect(),
            error: state.error.clone(),
            reason: order.reason.clone(),
            cancel_requested: state.cancel_requested,
        }
    }
}

/// Shows every shard.
#[must_use]
pub fn services(directory: &Directory, book: &Book, now: Duration) -> Vec<ServiceView> {
    let show = |shard: ShardId| {
        let told: Vec<(&Known, &ShardStatus)> = directory
            .nodes()
            .filter_map(|known| {
                let status = known.status(&shard)?;
                Some((known, status))
            })
            .collect();
        let best = told.iter().map(|(_, status)| *status).max_by_key(|status| (status.epoch, status.tail));
        ServiceView {
            owner: best.and_then(|status| status.owner.as_ref()).map(|owner| owner.node.clone()),
            epoch: best.map_or(Epoch(0), |status| status.epoch),
            tail: best.map_or(Position::ZERO, |status| status.tail),
            messages_counted: best.map_or(0, |status| status.messages_counted),
            checkpoint: best.and_then(|status| status.checkpoint),
            migration: book.moving(&shard).map(|migration| migration.order.id),
            replicas: told.iter().map(|(known, status)| replica(known, status, now)).collect(),
            service: shard.service,
            shard: shard.shard,
        }
    };
    directory.shards().into_iter().map(show).collect()
}

fn replica(known: &Known, status: &ShardStatus, now: Duration) -> ReplicaView {
    ReplicaView {
        node: known.announcement.from.node.clone(),
        state: status.replica,
        applied: status.applied,
        listen: status.listen.clone(),
        silent: known.is_silent(now),
        trouble: status.trouble.clone(),
    }
}

/// Shows every node.
#[must_use]
pub fn nodes(directory: &Directory, now: Duration) -> Vec<NodeView> {
    let shard = |status: &ShardStatus| ShardView {
        service: status.shard.service.clone(),
        shard: status.shard.shard.clone(),
        state: status.replica,
        owner: status.owner.as_ref().map(|owner| owner.node.clone()),
        applied: status.applied,
        tail: status.tail,
        listen: status.listen.clone(),
        trouble: status.trouble.clone(),
    };
    let node = |known: &Known| NodeView {
        name: known.announcement.from.node.clone(),
        incarnation: known.announcement.from.incarnation,
        class: known.announcement.class.clone(),
        arch: known.announcement.arch.clone(),
        admin: known.announcement.admin.clone(),
        silent: known.is_silent(now),
        heard_ms_ago: u64::try_from(now.saturating_sub(known.heard_at).as_millis()).unwrap_or(u64::MAX),
        shards: known.announcement.shards.iter().map(shard).collect(),
    };
    directory.nodes().map(node).collect()
}
