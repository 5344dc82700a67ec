//! The mailbox of a remote broker: one connection, mended by a task; what is sent meanwhile may be lost, subscriptions come back.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::stream::BoxStream;
use tokio::sync::Notify;

use crate::embedded::mail::LocalMail;
use crate::embedded::protocol::{
    FRAME_LIMIT_BYTES, Incoming, MailAsk, MailPush, Outgoing, Role, SILENCE_LIMIT, feed, flush, receive,
};
use crate::mailbox::Mailbox;

use super::{RETRY_FIRST, RETRY_MAX, Target};

/// What may wait to be sent; more is lost.
const WAITING_LIMIT_BYTES: usize = 64 << 20;
const WAITING_LIMIT_MESSAGES: usize = 65_536;
/// The largest message; what is above is lost with a warning.
const MESSAGE_LIMIT_BYTES: usize = FRAME_LIMIT_BYTES - (1 << 20);

/// The mailbox's face; its task ends when the last one lets go.
pub struct RemoteMail {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
    local: LocalMail,
}

#[derive(Default)]
struct Waiting {
    sends: Vec<(String, Bytes)>,
    bytes: usize,
    ended: bool,
}

impl RemoteMail {
    pub fn start(target: Target) -> Arc<RemoteMail> {
        let shared = Arc::new(Shared::default());
        let shell = target.shell.clone();
        shell.spawn(stay_connected(target, shared.clone()));
        Arc::new(RemoteMail { shared })
    }
}

impl Drop for RemoteMail {
    fn drop(&mut self) {
        self.shared.waiting.lock().expect("nothing panics under this lock").ended = true;
        self.shared.wake.notify_one();
    }
}

impl Mailbox for RemoteMail {
    fn send(&self, to: &str, message: Bytes) {
        if message.len() > MESSAGE_LIMIT_BYTES {
            tracing::warn!(
                to,
                bytes = message.len(),
                limit_bytes = MESSAGE_LIMIT_BYTES,
                "a message is too large: lost"
            );
            return;
        }
        let mut waiting = self.shared.waiting.lock().expect("nothing panics under this lock");
        let full = waiting.bytes > 0 && waiting.bytes + message.len() > WAITING_LIMIT_BYTES;
        if full || waiting.sends.len() >= WAITING_LIMIT_MESSAGES {
            tracing::debug!(to, "too much mail is waiting: lost");
            return;
        }
        waiting.bytes += message.len();
        waiting.sends.push((to.to_owned(), message));
        drop(waiting);
        self.shared.wake.notify_one();
    }

    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes> {
        let messages = self.shared.local.subscribe(address);
        self.shared.wake.notify_one();
        messages
    }
}

async fn stay_connected(target: Target, shared: Arc<Shared>) {
    let mut wait = RETRY_FIRST;
    while !shared.waiting.lock().expect("nothing panics under this lock").ended {
        if let Ok((incoming, outgoing)) = target.open(&Role::Mail).await {
            wait = RETRY_FIRST;
            let result = tokio::select! {
                biased;
                result = take(&target, &shared, incoming) => result,
                result = write(&shared, outgoing) => result,
            };
            match result {
                Ok(()) => return,
                Err(error) => tracing::debug!(%error, "the mailbox connects again"),
            }
        }
        target.shell.sleep(wait).await;
        wait = (2 * wait).min(RETRY_MAX);
    }
}

async fn take(target: &Target, shared: &Shared, mut incoming: Incoming) -> io::Result<()> {
    loop {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the broker is silent");
        let push = target.shell.within(SILENCE_LIMIT, receive(&mut incoming)).await.ok_or_else(silent)??;
        match push {
            MailPush::Message { address, message } => shared.local.send(&address, message),
            // A good moment to notice that nobody listens any more.
            MailPush::Beat => shared.wake.notify_one(),
        }
    }
}

async fn write(shared: &Shared, mut outgoing: Outgoing) -> io::Result<()> {
    let mut subscribed = BTreeSet::new();
    loop {
        let (sends, ended) = {
            let mut waiting = shared.waiting.lock().expect("nothing panics under this lock");
            waiting.bytes = 0;
            (std::mem::take(&mut waiting.sends), waiting.ended)
        };
        let wanted: BTreeSet<String> = shared.local.addresses().into_iter().collect();
        for address in wanted.difference(&subscribed) {
            feed(&mut outgoing, &MailAsk::Subscribe { address: address.clone() }).await?;
        }
        for address in subscribed.difference(&wanted) {
            feed(&mut outgoing, &MailAsk::Unsubscribe { address: address.clone() }).await?;
        }
        subscribed = wanted;
        for (to, message) in sends {
            feed(&mut outgoing, &MailAsk::Send { to, message }).await?;
        }
        flush(&mut outgoing).await?;
        if ended {
            return Ok(());
        }
        shared.wake.notified().await;
    }
}
