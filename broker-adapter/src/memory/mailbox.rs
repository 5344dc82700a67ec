//! The memory broker's mailbox: mails that may be lost, doubled, late and out of order.
//!
//! A mail on its way belongs to the broker and arrives even if its sender has crashed; a broker's crash loses it. Who
//! is subscribed when it arrives gets it.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use futures_util::{StreamExt, stream};
use tokio::sync::mpsc;

use super::MemoryBroker;
use super::link::Link;
use super::state::{State, Subscriber};
use crate::mailbox::Mailbox;

/// How many mails wait for one subscriber; more are lost.
pub const INBOX_LIMIT_MAILS: usize = 4_096;

/// How many bytes of mail may be on their way; more are lost.
pub const MAIL_LIMIT_BYTES: usize = 256 << 20;

pub(super) struct MemoryMailbox {
    pub link: Link,
}

impl Mailbox for MemoryMailbox {
    fn send(&self, to: &str, message: Bytes) {
        let broker = &self.link.broker;
        let now = broker.shell.now();
        let mut state = broker.lock();
        if state.line(&self.link.line).is_cut {
            return;
        }
        let faults = state.faults;
        if self.link.throw(|dice| dice.strikes(faults.mail_lost_per_mille)) {
            state.count("mail_lost_per_mille");
            return;
        }
        let is_doubled = self.link.throw(|dice| dice.strikes(faults.mail_doubled_per_mille));
        if is_doubled {
            state.count("mail_doubled_per_mille");
        }
        for _ in 0..=u32::from(is_doubled) {
            let (mut wait, is_late) =
                self.link.throw(|dice| (dice.wait(faults.mail_delay), dice.strikes(faults.mail_late_per_mille)));
            if is_late {
                wait += self.link.throw(|dice| dice.wait(faults.mail_late));
                state.count("mail_late_per_mille");
            }
            let due = (now + wait).max(state.line(&self.link.line).stalled_until);
            if due <= now {
                state.deliver(to, &message);
            } else if state.mail_waiting_bytes + message.len() <= MAIL_LIMIT_BYTES {
                state.mail_waiting_bytes += message.len();
                broker.shell.spawn(travel(broker.clone(), to.to_owned(), message.clone(), due, state.breaks));
            }
        }
    }

    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes> {
        let (inbox, mails) = mpsc::channel(INBOX_LIMIT_MAILS);
        let subscriber = Subscriber { line: self.link.line.to_string(), inbox };
        self.link.broker.lock().subscribers.entry(address.to_owned()).or_default().push(subscriber);
        let start = (self.link.clone(), mails);
        stream::unfold(start, |(link, mut mails)| async move {
            let mail = mails.recv().await?;
            link.wait_out(Duration::ZERO).await;
            Some((mail, (link, mails)))
        })
        .boxed()
    }
}

async fn travel(broker: Arc<MemoryBroker>, to: String, message: Bytes, due: Duration, breaks: u64) {
    broker.shell.sleep_until(due).await;
    let mut state = broker.lock();
    state.mail_waiting_bytes -= message.len();
    if state.breaks == breaks {
        state.deliver(&to, &message);
    }
}

impl State {
    fn deliver(&mut self, to: &str, message: &Bytes) {
        let Some(mut subscribers) = self.subscribers.remove(to) else { return };
        subscribers.retain(|subscriber| !subscriber.inbox.is_closed());
        for subscriber in &subscribers {
            if !self.line(&subscriber.line).is_cut {
                // An inbox that is full loses it: that is the contract.
                let _ = subscriber.inbox.try_send(message.clone());
            }
        }
        if !subscribers.is_empty() {
            self.subscribers.insert(to.to_owned(), subscribers);
        }
    }
}
