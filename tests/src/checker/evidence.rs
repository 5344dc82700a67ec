//! What the oracle judges: plain data, gathered by the harness or the simulation.

use std::time::Duration;

use broker_adapter::ids::{Epoch, MessageName, Position, Replica};
use bytes::Bytes;

/// All that was seen of one shard in one run.
#[derive(Clone, Debug, Default)]
pub struct Evidence {
    /// The messages that the fold counts and applies, in log order.
    pub applied: Vec<Applied>,
    /// Messages that would be applied but for a counted skip: their clients deserve an error.
    pub skipped: Vec<Applied>,
    /// The fences that the fold counts, in log order.
    pub fences: Vec<CountedFence>,
    /// What the clients saw, one for each request sent.
    pub observations: Vec<Observation>,
    /// What the service instances hold, at any moments of the run.
    pub states: Vec<ServiceState>,
    /// Replies that replicas gave out, beside those that clients observed.
    pub given: Vec<GivenReply>,
}

/// A message that counts and is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Applied {
    /// Its place.
    pub position: Position,
    /// Its name.
    pub name: MessageName,
    /// The request's body, which is its unique id.
    pub body: Bytes,
}

impl Applied {
    /// The unique id.
    #[must_use]
    pub fn id(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// A fence that counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedFence {
    /// Its place.
    pub position: Position,
    /// The epoch it begins.
    pub epoch: Epoch,
    /// Who owns from there on.
    pub owner: Replica,
}

/// One request as its client saw it. Times are on the client's clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// The unique id, which was the body.
    pub id: String,
    /// When it should have been sent.
    pub due: Duration,
    /// When it was.
    pub sent: Duration,
    /// When its outcome was known.
    pub completed: Option<Duration>,
    /// What came of it.
    pub outcome: Outcome,
    /// Who gave the reply out, by its headers `Segue-Position`, `Segue-Epoch` and `Segue-Owner`.
    pub given: Option<GivenReply>,
}

/// What came of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The service's answer: the input is acknowledged.
    Reply {
        /// Its status.
        status: u16,
        /// Its body.
        body: Bytes,
    },
    /// 429 or 503, or another refusal before anything was appended.
    Refused {
        /// The status.
        status: u16,
    },
    /// 504, or the connection broke: it may have been applied once, or not at all.
    Unknown,
    /// Nothing came within the hang limit.
    Hung,
}

/// What one service instance holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceState {
    /// Whose instance, for people.
    pub replica: String,
    /// After which record, where that is known.
    pub after: Option<Position>,
    /// The ids in the order in which they were applied.
    pub ids: Vec<String>,
    /// The service's own hash over its state.
    pub hash: String,
}

/// A reply that left a replica.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GivenReply {
    /// Of which message.
    pub position: Position,
    /// The epoch in which the replica believed itself the owner.
    pub epoch: Epoch,
    /// Which replica.
    pub replica: Replica,
}
