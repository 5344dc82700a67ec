//! What an ingress holds for its clients: who waits for which reply, until when, and when it was asked for last.
//!
//! Sending discharges nothing: a reply that does not come is asked for at the present owner (invariant 5). Everything that is due is
//! found at the front of an order, so a tick costs what is due and not what waits.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker_adapter::ids::{Count, MessageName, Sequence};
use broker_adapter::record::Key;
use tokio::sync::oneshot;
use tracing::Span;

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
    /// As the how-manieth it was read back, and since when its reply is awaited: since then, or since it was asked for last.
    confirmed: Option<(Count, Duration)>,
    /// Ends when it was read back.
    append: Span,
}

impl Waiting {
    pub fn new(answer: oneshot::Sender<Answer>, deadline: Duration, key: String) -> Waiting {
        Waiting { answer, deadline, key, confirmed: None, append: Span::none() }
    }

    /// Its message is being appended.
    pub fn after(self, append: Span) -> Waiting {
        Waiting { append, ..self }
    }
}

/// All clients that wait, in every order that matters.
#[derive(Default)]
pub(super) struct Clients {
    by_name: BTreeMap<MessageName, Waiting>,
    by_deadline: BTreeSet<(Duration, MessageName)>,
    by_count: BTreeSet<(Count, MessageName)>,
    by_asked: BTreeSet<(Duration, MessageName)>,
}

impl Clients {
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    pub fn insert(&mut self, name: MessageName, waiting: Waiting) {
        self.by_deadline.insert((waiting.deadline, name));
        if let Some((count, since)) = waiting.confirmed {
            self.by_count.insert((count, name));
            self.by_asked.insert((since, name));
        }
        self.by_name.insert(name, waiting);
    }

    pub fn take(&mut self, name: MessageName) -> Option<Waiting> {
        let waiting = self.by_name.remove(&name)?;
        self.by_deadline.remove(&(waiting.deadline, name));
        if let Some((count, since)) = waiting.confirmed {
            self.by_count.remove(&(count, name));
            self.by_asked.remove(&(since, name));
        }
        Some(waiting)
    }

    /// Until when one waits.
    pub fn deadline(&self, name: MessageName) -> Option<Duration> {
        self.by_name.get(&name).map(|waiting| waiting.deadline)
    }

    /// Its message was sent again under another name.
    pub fn rename(&mut self, old: MessageName, new: MessageName) {
        if let Some(waiting) = self.take(old) {
            self.insert(new, waiting);
        }
    }

    /// Its message was read back as the `count`-th.
    pub fn confirm(&mut self, name: MessageName, count: Count, now: Duration) {
        if let Some(mut waiting) = self.take(name) {
            waiting.confirmed = Some((count, now));
            waiting.append = Span::none();
            self.insert(name, waiting);
        }
    }

    /// The count of the oldest message that was read back and is not answered.
    pub fn oldest(&self) -> Option<Count> {
        self.by_count.first().map(|(count, _)| *count)
    }

    /// One whose deadline has come.
    fn take_late(&mut self, now: Duration) -> Option<Waiting> {
        let (_, name) = *self.by_deadline.first().filter(|(deadline, _)| *deadline <= now)?;
        self.take(name)
    }

    /// Those that were awaited for `after`, at most so many; from now on they are awaited anew.
    fn take_overdue(&mut self, now: Duration, after: Duration, most: usize) -> Vec<MessageName> {
        let overdue = self.by_asked.iter().take_while(|(since, _)| *since + after <= now).take(most);
        let overdue: Vec<MessageName> = overdue.map(|(_, name)| *name).collect();
        for name in &overdue {
            if let Some((count, _)) = self.by_name.get(name).and_then(|waiting| waiting.confirmed) {
                self.confirm(*name, count, now);
            }
        }
        overdue
    }
}

impl Ingress {
    pub(super) fn reply(&mut self, mail: ReplyMail) {
        match self.clients.take(mail.name) {
            Some(waiting) => {
                let began = waiting.deadline.saturating_sub(self.context.config.reply_timeout());
                let (held, shell) = (self.clients.len() + self.parked.len(), &self.context.shell);
                self.context.metrics.traffic().completed(began, held, shell.now(), shell.wall_ms());
                // The client may have gone.
                drop(waiting.answer.send(Answer::Reply(signed(mail))));
            }
            None => self.context.metrics.duplicates.inc(),
        }
    }

    /// Whether one more message would leave the oldest unanswered one less than R/2 counts back, counted or still to count.
    pub(super) fn has_room(&self, unconfirmed: usize) -> bool {
        let half = (self.fold.settings().replies_kept / 2).max(1);
        let counted = self.clients.oldest().map_or(0, |oldest| self.fold.count().0 - oldest.0);
        counted + (unconfirmed as u64) < half
    }

    pub(super) fn expire(&mut self, now: Duration) {
        while let Some(waiting) = self.clients.take_late(now) {
            // The client may have gone.
            let _ = waiting.answer.send(Answer::TimedOut { key: waiting.key });
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
        let names = self.clients.take_overdue(now, if moved { ASK_AFTER_MOVE } else { ASK_AFTER }, ASK_NAMES);
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
pub(super) fn signed(mail: ReplyMail) -> Reply {
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

    fn name(sequence: u64) -> MessageName {
        MessageName { session: Session::from_bits(0xabc), sequence: Sequence(sequence) }
    }

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn the_key_that_a_504_told_names_the_first_sending() {
        let shown = format!("{}-{}", name(7), 41);
        assert_eq!(key_of(&shown), Key::First { name: name(7), count: Count(41) });
    }

    #[test]
    fn any_other_key_is_the_clients_own() {
        for shown in ["order-7-1", "x", "7", "0123-1-2"] {
            assert_eq!(key_of(shown), Key::Client { key: shown.to_owned() });
        }
    }

    #[test]
    fn what_is_due_is_found_in_its_order() {
        let mut clients = Clients::default();
        for sequence in 1..=3 {
            let (answer, _) = oneshot::channel();
            clients.insert(name(sequence), Waiting::new(answer, ms(100 * sequence), format!("key {sequence}")));
        }
        assert_eq!(clients.oldest(), None, "none was read back");
        clients.confirm(name(2), Count(8), ms(10));
        clients.confirm(name(1), Count(7), ms(20));
        assert_eq!(clients.oldest(), Some(Count(7)));
        assert_eq!(clients.take_overdue(ms(115), ms(100), 9), [name(2)]);
        assert_eq!(clients.take_overdue(ms(125), ms(100), 9), [name(1)], "the other one was just asked for");
        clients.rename(name(3), name(9));
        assert_eq!(clients.take_late(ms(100)).map(|late| late.key).as_deref(), Some("key 1"));
        assert!(clients.take_late(ms(199)).is_none());
        assert_eq!(clients.oldest(), Some(Count(8)));
        assert!(clients.take(name(3)).is_none() && clients.take(name(9)).is_some());
    }
}
