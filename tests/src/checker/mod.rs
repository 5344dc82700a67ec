//! The oracle of design section 7: what the log, the clients, the services and the replicas saw must fit together.
//!
//! ```text
//!  log ── fold ──▶ applied messages ──▶ model ──▶ what each input deserved ◀──?── what its client got
//!              └─▶ counted fences ───▶ line of owners ◀──────────────────────?── who gave out which reply
//!                                      applied so far ◀──────────────────────?── what each service holds
//! ```
//! [`check`] is pure and works on plain data, from real processes or from the simulation. It never trusts what it checks:
//! the expected answers come from a [`Model`] run over the log's applied messages, not from any replica.

mod evidence;
mod from_log;
mod order;
mod ownership;
mod replies;
#[cfg(test)]
mod tests;

use broker_adapter::ids::{Epoch, Position, Replica};
use bytes::Bytes;

pub use evidence::{Applied, CountedFence, Evidence, GivenReply, Observation, Outcome, ServiceState};

use crate::ledger::Chain;

/// The service as the oracle knows it: pure, and written apart from the one that runs.
pub trait Model {
    /// Applies one input; the answer that its client deserves, as (status, body).
    fn apply(&mut self, request_body: &[u8]) -> (u16, Bytes);
    /// A hash over the whole state, in the form in which [`ServiceState::hash`] tells it.
    fn state_hash(&self) -> String;
}

impl Model for Chain {
    fn apply(&mut self, request_body: &[u8]) -> (u16, Bytes) {
        let value = self.append(&String::from_utf8_lossy(request_body), b"");
        let body = serde_json::to_vec(&value).expect("a number and a text have a JSON form");
        (200, body.into())
    }

    fn state_hash(&self) -> String {
        self.value().hash.to_string()
    }
}

/// One thing that must never happen, and did.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Finding {
    /// An input was acknowledged, or stands applied in the log, and is missing where it must be.
    #[error("lost: {id:?} is missing in {place}")]
    Lost {
        /// The input.
        id: String,
        /// The log, or a replica's service.
        place: String,
    },
    /// An input was applied more than once.
    #[error("doubled: {id:?} stands {times} times in {place}")]
    Doubled {
        /// The input.
        id: String,
        /// The log, or a replica's service.
        place: String,
        /// How often.
        times: usize,
    },
    /// A service applied inputs in another order than the log's.
    #[error("reordered: {replica} applied {id:?} in place {found}, the log has it in place {expected}")]
    Reordered {
        /// Whose service.
        replica: String,
        /// The first input out of order.
        id: String,
        /// Its place in the log's order, from 1.
        expected: usize,
        /// Its place in the service, from 1.
        found: usize,
    },
    /// A service holds something that the log did not give it.
    #[error("invented: {replica} holds {id:?}, which the log does not apply")]
    Invented {
        /// Whose service.
        replica: String,
        /// The text.
        id: String,
    },
    /// A client was refused with 429 or 503, which promise that nothing was appended, and the input was applied.
    #[error("refused with {status}, and applied all the same: {id:?}")]
    RefusedButApplied {
        /// The input.
        id: String,
        /// What the client got.
        status: u16,
    },
    /// A client got another answer than its input deserved.
    #[error("wrong reply to {id:?}: expected {expected}, got {found}")]
    WrongReply {
        /// The input.
        id: String,
        /// Status and body by the model.
        expected: String,
        /// Status and body that came.
        found: String,
    },
    /// A request was neither answered nor refused within the hang limit.
    #[error("not answered: {id:?}, which was sent at {sent_ms} ms")]
    NotAnswered {
        /// The input.
        id: String,
        /// On the client's clock.
        sent_ms: u64,
    },
    /// Two replicas owned, or acted as if they did.
    #[error("second owner in epoch {epoch}: {second} beside {}", .first.as_ref().map_or("nobody".to_owned(), ToString::to_string))]
    SecondOwner {
        /// The epoch.
        epoch: Epoch,
        /// Who owned by the log.
        first: Option<Replica>,
        /// Who else did.
        second: Replica,
        /// Of the reply that the second one gave out, if it was a reply.
        reply: Option<Position>,
    },
    /// The counted fences do not raise the epoch one by one.
    #[error("the fence at {position} begins epoch {found} where epoch {expected} was next")]
    EpochSkipped {
        /// Where.
        position: Position,
        /// The next epoch.
        expected: Epoch,
        /// The fence's epoch.
        found: Epoch,
    },
    /// Two replicas that stand at the same position, or a replica and the model, hold different states.
    #[error("state differs: {left} and {right} after {after}")]
    StateDiffers {
        /// A replica.
        left: String,
        /// Another one, or the model.
        right: String,
        /// Where both stand.
        after: String,
    },
}

/// Everything that is wrong with this run; nothing if it was right. `model` is a fresh one.
///
/// # Panics
/// If the evidence itself makes no sense: applied messages or fences that are not in the order of their positions.
pub fn check(evidence: &Evidence, model: &mut dyn Model) -> Vec<Finding> {
    assert!(evidence.applied.is_sorted_by_key(|message| message.position), "applied messages come in log order");
    assert!(evidence.fences.is_sorted_by_key(|fence| fence.position), "fences come in log order");
    let deserved = replies::Deserved::by(model, &evidence.applied);
    let mut findings = order::in_the_log(&evidence.applied);
    findings.extend(order::in_the_services(evidence, &deserved));
    findings.extend(ownership::line_of_owners(&evidence.fences));
    findings.extend(ownership::given_replies(evidence));
    findings.extend(replies::observations(evidence, &deserved));
    findings
}
