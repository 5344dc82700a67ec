//! How a migrator asks a node to begin a service with an imported state, and what the node answers. Mail like all other.

use broker_adapter::ids::{Hash, Replica, ShardId};
use serde::{Deserialize, Serialize};

/// Asks a node to begin a log that nobody has begun, with a state that was set aside (`checkpoint::import`). Obeyed only while the log
/// has no checkpoint; told again, it is answered again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begin {
    /// Which shard.
    pub shard: ShardId,
    /// The state, by the hash under which it was set aside.
    pub import: Hash,
    /// Whether a state of unknown origin that the service holds may be replaced, after a copy was kept.
    pub replace_state: bool,
    /// Where [`Begun`] goes.
    pub answer_to: String,
}

/// What became of a [`Begin`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Begun {
    /// Which shard.
    pub shard: ShardId,
    /// Which state.
    pub import: Hash,
    /// Who answers.
    pub from: Replica,
    /// Checkpoint 0's manifest, which counts; or why there is none.
    pub result: Result<Hash, BeginFailure>,
}

/// Why a log was not begun with an imported state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum BeginFailure {
    /// It has begun: by somebody else, or with another state.
    #[error("its log has begun already")]
    HasBegun,
    /// What the service holds may be nobody else's.
    #[error("{0}")]
    Origin(String),
    /// The service does not take the state.
    #[error("the service cannot load it: {0}")]
    Service(String),
    /// Broker or store.
    #[error("{0}")]
    Other(String),
}
