//! What a sidecar announces: that it lives, how busy its node is, and where each of its shards stands.

use broker_adapter::ids::{Epoch, Position, Replica, ShardId};
use serde::{Deserialize, Serialize};

/// Where a replica stands, as its node tells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ReplicaState {
    /// This node has no replica of the shard; it may be an ingress.
    None,
    /// The instance is being started or loaded.
    Loading,
    /// It applies records behind the tail.
    Replaying,
    /// It applies records as they come.
    Following,
    /// It has stopped and needs its operator; the message says why.
    Stopped,
}

/// What a sidecar tells about one shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ShardStatus {
    /// Which.
    pub shard: ShardId,
    /// The owner's epoch as this sidecar's ingress has read it.
    pub epoch: Epoch,
    /// The owner as this sidecar's ingress has read it.
    pub owner: Option<Replica>,
    /// The last record that the ingress has read.
    pub tail: Position,
    /// Whether this node may have a replica; otherwise it is only an ingress.
    pub runs_replica: bool,
    /// How its own replica is.
    pub replica: ReplicaState,
    /// The last record that its own replica has applied.
    pub applied: Position,
    /// The last counted checkpoint's position.
    pub checkpoint: Option<Position>,
    /// Messages counted since the log began.
    pub messages_counted: u64,
    /// Where clients reach the service on this node, as `HOST:PORT`.
    pub listen: String,
    /// Why it stopped, or an alarm.
    pub trouble: Option<String>,
    /// What a move to this node must show, as it is configured: `state`, `replies` or `none`.
    #[serde(default)]
    pub proof: Option<String>,
    /// What clients of this ingress felt in the last seconds.
    #[serde(default)]
    pub traffic: Vec<TrafficSlice>,
}

/// What clients of one ingress felt in a quarter of a second.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TrafficSlice {
    /// Its beginning, by the wall clock of the node.
    pub at_ms: u64,
    /// Logged requests that were answered.
    pub completed: u64,
    /// How long half of them took at most.
    pub p50_us: u64,
    /// How long 99 of 100 took at most.
    pub p99_us: u64,
    /// How long the slowest took.
    pub max_us: u64,
    /// The longest time, ending here, in which a request waited and none completed.
    pub stall_us: u64,
}

/// How busy a node is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeLoad {
    /// Of all processors together, in thousandths.
    pub cpu_permille: Option<u32>,
    /// Resident, of the sidecar alone.
    pub memory_bytes: Option<u64>,
}

/// A sidecar tells that it lives; sent every [`ANNOUNCE_EVERY_MS`] and when something changes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announcement {
    /// Which run of which node.
    pub from: Replica,
    /// `host`, `edge`, `dpu`, `csd`, …
    pub class: String,
    /// `x86_64`, `aarch64`, …
    pub arch: String,
    /// When this run began, by its own clock: of two runs of one name the older one stops.
    pub started_ms: u64,
    /// Where `/livez`, `/readyz` and `/metrics` are, as `HOST:PORT`.
    pub admin: String,
    /// Its shards.
    pub shards: Vec<ShardStatus>,
    /// The sidecar is ending and says goodbye.
    pub leaving: bool,
    /// How busy its machine is, if it can tell.
    #[serde(default)]
    pub load: Option<NodeLoad>,
}

/// How often a sidecar announces itself, in milliseconds.
pub const ANNOUNCE_EVERY_MS: u64 = 500;
