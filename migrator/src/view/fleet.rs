//! Services and nodes as REST shows them, from what nodes announce alone.

use std::time::Duration;

use broker_adapter::ids::{Epoch, MigrationId, NodeName, Position, ServiceName, ShardId, ShardName};
use serde::Serialize;
use sidecar::command::{ReplicaState, ShardStatus};
use utoipa::ToSchema;

use crate::book::Book;
use crate::directory::{Directory, Known};

/// All shards.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct ServiceList {
    /// By name.
    pub items: Vec<ServiceView>,
}

/// All nodes.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct NodeList {
    /// By name.
    pub items: Vec<NodeView>,
}

/// One shard of a service, as its nodes tell.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Service)]
pub struct ServiceView {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The part of it.
    #[schema(value_type = String)]
    pub shard: ShardName,
    /// The owner's node, as the node that has read most tells it.
    #[schema(value_type = Option<String>)]
    pub owner: Option<NodeName>,
    /// Since this epoch.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// The last record that any node has read.
    #[schema(value_type = u64)]
    pub tail: Position,
    /// Messages counted since the log began.
    pub messages_counted: u64,
    /// The last counted checkpoint.
    #[schema(value_type = Option<u64>)]
    pub checkpoint: Option<Position>,
    /// How old that is, since it was first told here.
    pub checkpoint_age_ms: Option<u64>,
    /// The migration that moves it now.
    #[schema(value_type = Option<String>)]
    pub migration: Option<MigrationId>,
    /// The nodes that hold a replica and do not own.
    #[schema(value_type = Vec<String>)]
    pub standbys: Vec<NodeName>,
    /// Messages that arrive now.
    pub rate_per_s: Option<f64>,
    /// How far the owner is behind the tail.
    pub lag_records: Option<u64>,
    /// What a move must show: `state`, `replies` or `none`, as it is configured at the owner; null where it is not told.
    pub proof: Option<String>,
    /// What the last migration of it showed: `state`, `replies only` or `unproven`.
    pub last_proof: Option<String>,
    /// The nodes that can run it, and its ingresses.
    pub replicas: Vec<ReplicaView>,
}

/// What one node tells of one shard.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Replica)]
pub struct ReplicaView {
    /// The node.
    #[schema(value_type = String)]
    pub node: NodeName,
    /// How its replica is: `none`, `loading`, `replaying`, `following` or `stopped`.
    #[schema(value_type = String)]
    pub state: ReplicaState,
    /// The last record that it has applied.
    #[schema(value_type = u64)]
    pub applied: Position,
    /// Where clients reach the service on this node.
    pub listen: String,
    /// Whether the node was not heard for long.
    pub silent: bool,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
    /// Whether it can have a replica; otherwise it is only an ingress.
    pub runs_replica: bool,
}

/// One node.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Node)]
pub struct NodeView {
    /// Its name.
    #[schema(value_type = String)]
    pub name: NodeName,
    /// The present run of its sidecar.
    #[schema(value_type = String)]
    pub incarnation: broker_adapter::ids::Incarnation,
    /// `host`, `edge`, `dpu`, …
    pub class: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// Where its `/livez`, `/readyz` and `/metrics` are.
    pub admin: String,
    /// The same as `silent`, as a word.
    pub state: NodeState,
    /// Whether it was not heard for long.
    pub silent: bool,
    /// How long ago it was heard.
    pub heard_ms_ago: u64,
    /// How busy the machine is, if it tells.
    pub load: Option<Load>,
    /// The shards that it owns.
    pub owns: Vec<ShardOf>,
    /// The shards of which it holds a replica without owning them.
    pub standby_of: Vec<ShardOf>,
    /// What it tells of its shards.
    pub shards: Vec<ShardView>,
}

/// Whether a node is heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum NodeState {
    /// Within the last 5 s.
    Alive,
    /// Not for 5 s: nothing is moved to or from it.
    Silent,
}

/// How busy a node is.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, ToSchema)]
pub struct Load {
    /// Of all processors together.
    pub cpu_percent: Option<f64>,
    /// Resident, of the sidecar alone.
    pub memory_bytes: Option<u64>,
}

/// A shard by name.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ShardName)]
pub struct ShardOf {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The part of it.
    #[schema(value_type = String)]
    pub shard: ShardName,
}

/// A node's word about a shard.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = NodeShard)]
pub struct ShardView {
    /// The service.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// The part of it.
    #[schema(value_type = String)]
    pub shard: ShardName,
    /// How the node's replica is: `none`, `loading`, `replaying`, `following` or `stopped`.
    #[schema(value_type = String)]
    pub state: ReplicaState,
    /// The owner's node, as this node has read.
    #[schema(value_type = Option<String>)]
    pub owner: Option<NodeName>,
    /// The last record that it has applied.
    #[schema(value_type = u64)]
    pub applied: Position,
    /// The last record that it has read.
    #[schema(value_type = u64)]
    pub tail: Position,
    /// Where clients reach the service on this node.
    pub listen: String,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
}

/// The status of the node that has read most of a shard's log.
#[must_use]
pub fn best<'a>(directory: &'a Directory, shard: &ShardId) -> Option<&'a ShardStatus> {
    let told = directory.nodes().filter_map(|known| known.status(shard));
    told.max_by_key(|status| (status.epoch, status.tail))
}

impl ServiceView {
    /// Which shard it is of.
    #[must_use]
    pub fn id(&self) -> ShardId {
        ShardId { service: self.service.clone(), shard: self.shard.clone() }
    }
}

/// Shows every shard.
#[must_use]
pub fn services(directory: &Directory, book: &Book, now: Duration) -> Vec<ServiceView> {
    directory.shards().into_iter().map(|shard| service(directory, book, now, shard)).collect()
}

fn service(directory: &Directory, book: &Book, now: Duration, shard: ShardId) -> ServiceView {
    let told: Vec<(&Known, &ShardStatus)> =
        directory.nodes().filter_map(|known| Some((known, known.status(&shard)?))).collect();
    let best = best(directory, &shard);
    let owner = best.and_then(|status| status.owner.as_ref()).map(|owner| owner.node.clone());
    let tail = best.map_or(Position::ZERO, |status| status.tail);
    let is_standby = |status: &ShardStatus| !matches!(status.replica, ReplicaState::None | ReplicaState::Stopped);
    let of_owner = told.iter().find(|(known, _)| Some(&known.announcement.from.node) == owner.as_ref());
    let standbys = told
        .iter()
        .filter(|(known, status)| is_standby(status) && Some(&known.announcement.from.node) != owner.as_ref());
    let last = book.all().rev().filter(|state| state.order.shard == shard).find_map(|state| state.proof);
    ServiceView {
        epoch: best.map_or(Epoch(0), |status| status.epoch),
        tail,
        messages_counted: best.map_or(0, |status| status.messages_counted),
        checkpoint: best.and_then(|status| status.checkpoint),
        checkpoint_age_ms: directory.checkpoint_age(&shard, now).map(millis),
        migration: book.moving(&shard).map(|migration| migration.order.id),
        standbys: standbys.map(|(known, _)| known.announcement.from.node.clone()).collect(),
        rate_per_s: directory.rates(&shard).and_then(|rates| rates.messages.per_s(now)),
        lag_records: of_owner.map(|(_, status)| tail.records_since(status.applied)),
        proof: of_owner.and_then(|(_, status)| status.proof.clone()),
        last_proof: last.map(|proof| proof.name().to_owned()),
        replicas: told.iter().map(|(known, status)| replica(known, status, now)).collect(),
        owner,
        service: shard.service,
        shard: shard.shard,
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn replica(known: &Known, status: &ShardStatus, now: Duration) -> ReplicaView {
    ReplicaView {
        node: known.announcement.from.node.clone(),
        state: status.replica,
        applied: status.applied,
        listen: status.listen.clone(),
        silent: known.is_silent(now),
        trouble: status.trouble.clone(),
        runs_replica: status.runs_replica,
    }
}

/// Shows every node.
#[must_use]
pub fn nodes(directory: &Directory, now: Duration) -> Vec<NodeView> {
    directory.nodes().map(|known| node(directory, known, now)).collect()
}

/// Shows one node.
#[must_use]
pub fn node(directory: &Directory, known: &Known, now: Duration) -> NodeView {
    let me = &known.announcement.from.node;
    let owner = |shard: &ShardId| best(directory, shard).and_then(|status| status.owner.as_ref());
    let named =
        |status: &ShardStatus| ShardOf { service: status.shard.service.clone(), shard: status.shard.shard.clone() };
    let owned = |status: &&ShardStatus| owner(&status.shard).is_some_and(|owner| owner.node == *me);
    let stands =
        |status: &&ShardStatus| !owned(status) && !matches!(status.replica, ReplicaState::None | ReplicaState::Stopped);
    let silent = known.is_silent(now);
    let announcement = &known.announcement;
    NodeView {
        name: me.clone(),
        incarnation: announcement.from.incarnation,
        class: announcement.class.clone(),
        arch: announcement.arch.clone(),
        admin: announcement.admin.clone(),
        state: if silent { NodeState::Silent } else { NodeState::Alive },
        silent,
        heard_ms_ago: millis(now.saturating_sub(known.heard_at)),
        load: announcement.load.as_ref().map(|load| Load {
            cpu_percent: load.cpu_permille.map(|permille| f64::from(permille) / 10.0),
            memory_bytes: load.memory_bytes,
        }),
        owns: announcement.shards.iter().filter(owned).map(named).collect(),
        standby_of: announcement.shards.iter().filter(stands).map(named).collect(),
        shards: announcement.shards.iter().map(shard_view).collect(),
    }
}

fn shard_view(status: &ShardStatus) -> ShardView {
    ShardView {
        service: status.shard.service.clone(),
        shard: status.shard.shard.clone(),
        state: status.replica,
        owner: status.owner.as_ref().map(|owner| owner.node.clone()),
        applied: status.applied,
        tail: status.tail,
        listen: status.listen.clone(),
        trouble: status.trouble.clone(),
    }
}
