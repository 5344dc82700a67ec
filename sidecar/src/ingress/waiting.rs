//! What an ingress holds for its clients: who waits for which reply, until when, and when it was asked for last.
//!
//! Sending discharges nothing: a reply that does not come is asked for at the present owner (invariant 5).

use std::time::Duration;

use broker_adapter::ids::{Count, MessageName, Position, Sequence};
use broker_adapter::record::Key;
use tokio::sync::oneshot;

use super::session::Ingress;
use super::{Answer, header};
use crate::command::{AskReplies, NodeMail, Reply, ReplyMail, encode, node_address};
use crate::replica::ReplicaInput;

/// A reply that did not come for so long is asked for.
const ASK_AFTER: Duration = Duration::from_millis(100);
const ASK_AFTER_MOVE: Duration = Duration::from_millis(20);
/// How many replies are asked for in one mail.
const ASK_NAMES: usize = 1_000;

/// A client that waits.
pub(super) struct Waiting {
    pub answer: oneshot::Sender<Answer>,
    pub deadline: Duration,
    pub key: String,
    /// Where it was read back, as the how-manieth, and when.
    pub confirmed: Option<(Position, Count, Duration)>,
    pub asked: Duration,
}

impl Ingress {
    pub(super) fn reply(&mut self, mail: ReplyMail) {
        match self.waiting.remove(&mail.name) {
            // The client may have gone.
            Some(waiting) => drop(waiting.answer.send(Answer::Reply(signed(mail)))),
            None => self.context.metrics.duplicates.inc(),
        }
    }

    /// Whether the oldest unanswered message lies less than R/2 counts back.
    pub(super) fn is_window_open(&self) -> bool {
        let half = self.fold.settings().replies_kept / 2;
        let counted = self.waiting.values().filter_map(|waiting| waiting.confirmed);
        let oldest = counted.map(|(_, count, _)| count.0).min();
        oldest.is_none_or(|oldest| self.fold.count().0 - oldest < half.max(1))
    }

    pub(super) fn expire(&mut self, now: Duration) {
        let late: Vec<MessageName> =
            self.waiting.iter().filter(|(_, waiting)| waiting.deadline <= now).map(|(name, _)| *name).collect();
        for name in late {
            if let Some(waiting) = self.waiting.remove(&name) {
                // The client may have gone.
                let _ = waiting.answer.send(Answer::TimedOut { key: waiting.key });
            }
        }
        while self.parked.front().is_some_and(|parked| parked.deadline <= now) {
            if let Some(parked) = self.parked.pop_front() {
                let detail = "the request could not be appended in time; it was not applied".to_owned();
                let _ = parked.submission.answer.send(Answer::Unavailable { code: "append-timeout", detail });
            }
        }
    }

    /// Asks the present owner for replies that are overdue.
    pub(super) fn ask(&mut self, now: Duration) {
        let Some(owner) = self.fold.owner().cloned() else { return };
        let moved = now.saturating_sub(self.moved_at) < ASK_AFTER;
        let after = if moved { ASK_AFTER_MOVE } else { ASK_AFTER };
        let mut names = Vec::new();
        for (name, waiting) in &mut self.waiting {
            let Some((_, _, confirmed_at)) = waiting.confirmed else { continue };
            if now >= confirmed_at.max(waiting.asked) + after && names.len() < ASK_NAMES {
                waiting.asked = now;
                names.push(*name);
            }
        }
        if names.is_empty() {
            return;
        }
        let ask = AskReplies { shard: self.context.shard.clone(), names, ingress: self.context.me.clone() };
        if owner == self.context.me {
            // A full inbox: it is asked again.
            let _ = self.replica.try_send(ReplicaInput::AskReplies(ask));
        } else {
            self.context.mailbox.send(&node_address(&owner.node), encode(&NodeMail::AskReplies(ask)));
        }
    }
}

/// A client's own key; or one of ours, which a 504 told: then the same request is repeated under its first name.
pub(super) fn key_of(shown: &str) -> Key {
    let ours = || {
        let mut parts = shown.splitn(3, '-');
        let session = parts.next()?.parse().ok()?;
        let sequence = Sequence(parts.next()?.parse().ok()?);
        let count = Count(parts.next()?.parse().ok()?);
        Some(Key::First { name: MessageName { session, sequence }, count })
    };
    ours().unwrap_or_else(|| Key::Client { key: shown.to_owned() })
}

/// A reply that says where its message stands and who gave it out.
fn signed(mail: ReplyMail) -> Reply {
    let ReplyMail { position, epoch, from, mut reply, .. } = mail;
    reply.headers.push(header("segue-position", &position.to_string()));
    reply.headers.push(header("segue-epoch", &epoch.to_string()));
    reply.headers.push(header("segue-owner", &format!("{}/{}", from.node, from.incarnation)));
    reply
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::Session;

    use super::*;

    #[test]
    fn the_key_that_a_504_told_names_the_first_sending() {
        let name = MessageName { session: Session::from_bits(0xabc), sequence: Sequence(7) };
        let shown = format!("{name}-{}", 41);
        assert_eq!(key_of(&shown), Key::First { name, count: Count(41) });
    }

    #[test]
    fn any_other_key_is_the_clients_own() {
        for shown in ["order-7-1", "x", "7", "0123-1-2"] {
            assert_eq!(key_of(shown), Key::Client { key: shown.to_owned() });
        }
    }
}
