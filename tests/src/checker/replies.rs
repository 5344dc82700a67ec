//! What each input deserved, and what its client got.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;

use super::{Applied, Evidence, Finding, Model, Observation, Outcome};

const SHOWN_BODY_BYTES: usize = 120;

/// The model's run over the log.
pub(super) struct Deserved {
    replies: BTreeMap<String, (u16, Bytes)>,
    state_hashes: Vec<String>,
}

impl Deserved {
    /// Runs the model.
    pub(super) fn by(model: &mut dyn Model, applied: &[Applied]) -> Deserved {
        let mut state_hashes = vec![model.state_hash()];
        let mut replies = BTreeMap::new();
        for message in applied {
            let reply = model.apply(&message.body);
            state_hashes.push(model.state_hash());
            // Of a doubled input the first answer is the right one.
            replies.entry(message.id()).or_insert(reply);
        }
        Deserved { replies, state_hashes }
    }

    /// The state's hash after so many of the applied messages.
    pub(super) fn state_hash_after(&self, count: usize) -> &str {
        &self.state_hashes[count]
    }
}

/// Every acknowledged input is in the log with the reply it deserved; every refused one is not; every one has an end.
pub(super) fn observations(evidence: &Evidence, deserved: &Deserved) -> Vec<Finding> {
    // A client may repeat a request under its key: refused once and then accepted is in order.
    let accepted_once: BTreeSet<&str> = evidence
        .observations
        .iter()
        .filter(|seen| !matches!(seen.outcome, Outcome::Refused { .. }))
        .map(|seen| seen.id.as_str())
        .collect();
    let skipped: BTreeSet<String> = evidence.skipped.iter().map(Applied::id).collect();
    let judged = evidence.observations.iter().filter_map(|seen| {
        if skipped.contains(&seen.id) {
            return skipped_observation(seen);
        }
        let known = deserved.replies.get(&seen.id);
        one_observation(seen, known, accepted_once.contains(seen.id.as_str()))
    });
    judged.collect()
}

fn one_observation(seen: &Observation, deserved: Option<&(u16, Bytes)>, accepted_once: bool) -> Option<Finding> {
    let id = seen.id.clone();
    match (&seen.outcome, deserved) {
        (Outcome::Reply { .. }, None) => Some(Finding::Lost { id, place: "the log".to_owned() }),
        (Outcome::Reply { status, body }, Some((right_status, right_body))) => {
            let right = status == right_status && body == right_body;
            let expected = shown(*right_status, right_body);
            (!right).then(|| Finding::WrongReply { id, expected, found: shown(*status, body) })
        }
        (Outcome::Refused { status }, Some(_)) if !accepted_once => {
            Some(Finding::RefusedButApplied { id, status: *status })
        }
        (Outcome::Hung, _) => {
            let sent_ms = u64::try_from(seen.sent.as_millis()).unwrap_or(u64::MAX);
            Some(Finding::NotAnswered { id, sent_ms })
        }
        (Outcome::Refused { .. } | Outcome::Unknown, _) => None,
    }
}

/// A skipped input deserves an error, whatever its text.
fn skipped_observation(seen: &Observation) -> Option<Finding> {
    match &seen.outcome {
        Outcome::Reply { status, body } if *status < 500 => {
            let expected = "an error, because the input was skipped".to_owned();
            Some(Finding::WrongReply { id: seen.id.clone(), expected, found: shown(*status, body) })
        }
        _ => None,
    }
}

fn shown(status: u16, body: &[u8]) -> String {
    format!("{status} {}", String::from_utf8_lossy(&body[..body.len().min(SHOWN_BODY_BYTES)]))
}
