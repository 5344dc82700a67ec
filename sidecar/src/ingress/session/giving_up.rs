//! Giving a session up: the next one's first record closes it, and what did not count before that is sent again under the new one.

use std::time::Duration;

use broker_adapter::fold::Bug;
use broker_adapter::ids::{MessageName, Sequence, Session};
use broker_adapter::record::{Close, Key, Message, Record, wire};

use super::{Closing, Ingress, body_bytes};

impl Ingress {
    pub(super) fn is_closing(&self, close: &Close) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.close.name == close.name)
    }

    /// Ends this session by the first record of the next one.
    pub(super) fn give_up(&mut self) {
        if self.closing.is_some() {
            return;
        }
        tracing::info!(session = %self.session, "giving the session up");
        let mut name = MessageName { session: Session(self.context.shell.random()), sequence: Sequence::FIRST };
        let without_close = self.context.rules.plant(Bug::GiveUpWithoutClose);
        if without_close {
            name.sequence = Sequence::default();
        }
        let close = Close { name, base: Some(self.fold.count()), closes: self.session };
        self.closing = Some(Closing { close, sent: Duration::ZERO });
        self.resend = None;
        if without_close {
            return self.closed();
        }
        self.send_close();
    }

    pub(super) fn send_close(&mut self) {
        let Some(closing) = &mut self.closing else { return };
        closing.sent = self.context.shell.now();
        let record = Record::Close(closing.close.clone());
        self.append(vec![record]);
    }

    /// The close was read back: what did not count before it never will, and is sent again under the new session.
    pub(super) fn closed(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        self.session = closing.close.name.session;
        self.next = closing.close.name.sequence.next();
        self.store_too_large();
        for message in &mut self.unconfirmed {
            let old = message.name;
            message.name = MessageName { session: self.session, sequence: self.next };
            // The close was the session's first record.
            message.base = (self.next == Sequence::FIRST).then_some(self.fold.count());
            self.next = self.next.next();
            if let Key::Own { count } = message.key {
                message.key = Key::First { name: old, count };
            }
            self.clients.rename(old, message.name);
        }
        self.sent = 0;
    }

    /// Of what is sent again in another session, what is larger than the broker takes.
    fn store_too_large(&mut self) {
        let limit = self.record_limit();
        let (large, kept): (Vec<Message>, Vec<Message>) = self.unconfirmed.drain(..).partition(|message| {
            let record = Record::Message(Box::new(message.clone()));
            body_bytes(message) > 0 && wire::encode(&record).bytes.len() as u64 > limit
        });
        self.unconfirmed.extend(kept);
        for message in large {
            self.unconfirmed_bytes -= body_bytes(&message) as u64;
            let deadline = self.clients.deadline(message.name).unwrap_or_default();
            self.store_anew(message, deadline, true);
        }
    }
}
