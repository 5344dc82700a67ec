//! The third face: mail on core NATS subjects, one per address, in parts where a message is above the server's `max_payload`.
//!
//! A task sends what waits, bounded; each subscription has a task that makes messages whole and keeps a bounded number of them for
//! its listener. What is above the bounds is lost, as the contract allows. Subscriptions come back with the connection by themselves.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::{Notify, mpsc};

use crate::mailbox::Mailbox;
use crate::shell::Shell;

use super::link::{Lines, Link};
use super::parts::{Incomplete, divide};

/// What may wait to be sent; more is lost.
const WAITING_LIMIT_BYTES: usize = 64 << 20;
const WAITING_LIMIT_MESSAGES: usize = 65_536;
/// What may wait in async-nats and the socket.
const UNFLUSHED_LIMIT_BYTES: usize = 4 << 20;
const FLUSH_LIMIT: Duration = Duration::from_secs(10);
/// What one listener may have waiting; more is lost.
const LISTENER_LIMIT_BYTES: usize = 64 << 20;
const LISTENER_LIMIT_MESSAGES: usize = 16_384;

/// The mailbox's face; its sending task ends when it is dropped.
pub struct NatsMail {
    link: Link,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    wake: Notify,
}

#[derive(Default)]
struct Waiting {
    messages: VecDeque<(String, Bytes)>,
    bytes: usize,
    ended: bool,
}

impl NatsMail {
    pub fn start(link: Link) -> NatsMail {
        let shared = Arc::new(Shared::default());
        let lines = link.lines().as_ref().map(Arc::downgrade).unwrap_or_default();
        link.shell().spawn(send(lines, link.shell().clone(), shared.clone()));
        NatsMail { link, shared }
    }
}

impl Drop for NatsMail {
    fn drop(&mut self) {
        self.shared.waiting.lock().expect("nothing panics under this lock").ended = true;
        self.shared.wake.notify_one();
    }
}

impl Mailbox for NatsMail {
    fn send(&self, to: &str, message: Bytes) {
        let mut waiting = self.shared.waiting.lock().expect("nothing panics under this lock");
        let full = waiting.bytes > 0 && waiting.bytes + message.len() > WAITING_LIMIT_BYTES;
        if full || waiting.messages.len() >= WAITING_LIMIT_MESSAGES {
            tracing::debug!(to, "too much mail is waiting: lost");
            return;
        }
        waiting.bytes += message.len();
        waiting.messages.push_back((self.link.names().subject_of_mail(to), message));
        drop(waiting);
        self.shared.wake.notify_one();
    }

    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes> {
        let (sender, messages) = mpsc::channel(LISTENER_LIMIT_MESSAGES);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let listener = Listener { messages: sender, waiting_bytes: waiting_bytes.clone() };
        let client = self.link.lines().map(|lines| lines.mail.client.clone());
        self.link.shell().spawn(listen(client, self.link.names().subject_of_mail(address), listener));
        stream::unfold((messages, waiting_bytes), |(mut messages, waiting_bytes)| async move {
            let message: Bytes = messages.recv().await?;
            waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
            Some((message, (messages, waiting_bytes)))
        })
        .boxed()
    }
}

/// Sends what waits, in order; what waits while there is no connection is lost, and no more than a bound waits in async-nats.
async fn send(lines: Weak<Lines>, shell: Shell, shared: Arc<Shared>) {
    let mut unflushed = 0;
    loop {
        let next = {
            let mut waiting = shared.waiting.lock().expect("nothing panics under this lock");
            let next = waiting.messages.pop_front();
            waiting.bytes -= next.as_ref().map_or(0, |(_, message)| message.len());
            if next.is_none() && waiting.ended {
                return;
            }
            next
        };
        let Some((subject, message)) = next else {
            shared.wake.notified().await;
            continue;
        };
        let Some(lines) = lines.upgrade() else { return };
        let client = &lines.mail.client;
        if !lines.mail.health().connected {
            tracing::debug!(subject, "there is no connection: mail is lost");
            continue;
        }
        let parts = divide(shell.random(), &message, client.max_payload());
        if parts.is_empty() {
            tracing::warn!(subject, bytes = message.len(), "a message is too large: lost");
        }
        for part in parts {
            unflushed += part.len();
            if let Err(error) = client.publish(subject.clone(), part).await {
                tracing::debug!(%error, subject, "mail is lost");
            }
            if unflushed > UNFLUSHED_LIMIT_BYTES {
                // A connection that takes nothing for so long breaks by itself; what waits meanwhile is bounded.
                drop(shell.within(FLUSH_LIMIT, client.flush()).await);
                unflushed = 0;
            }
        }
    }
}

struct Listener {
    messages: mpsc::Sender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Listener {
    fn give(&self, message: Bytes) {
        let bytes = message.len();
        let waiting = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let too_much = waiting > 0 && waiting + bytes > LISTENER_LIMIT_BYTES;
        if too_much || self.messages.try_send(message).is_err() {
            self.waiting_bytes.fetch_sub(bytes, Ordering::Relaxed);
        }
    }
}

/// Makes messages whole for as long as somebody listens.
async fn listen(client: Option<async_nats::Client>, subject: String, listener: Listener) {
    let Some(client) = client else { return };
    let mut incoming = match client.subscribe(subject.clone()).await {
        Ok(incoming) => incoming,
        Err(error) => {
            tracing::warn!(%error, subject, "there is no mail from this address");
            return;
        }
    };
    // The subscription keeps what it needs; the connections end with the process's handles.
    drop(client);
    let mut incomplete = Incomplete::default();
    loop {
        let message = tokio::select! {
            biased;
            () = listener.messages.closed() => return,
            message = incoming.next() => message,
        };
        let Some(message) = message else { return };
        if let Some(whole) = incomplete.take(message.payload) {
            listener.give(whole);
        }
    }
}
