//! The third face of the embedded broker: mail within this process, for itself and for the server's connections.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use tokio::sync::mpsc;

use crate::mailbox::Mailbox;

/// What one subscriber may have waiting; more is lost.
const WAITING_LIMIT_MESSAGES: usize = 16_384;
const WAITING_LIMIT_BYTES: usize = 64 << 20;

/// Hands each message to all who listen at its address.
#[derive(Default)]
pub struct LocalMail {
    listeners: Mutex<BTreeMap<String, Vec<Listener>>>,
}

struct Listener {
    messages: mpsc::Sender<Bytes>,
    waiting_bytes: Arc<AtomicUsize>,
}

impl Listener {
    /// Whether it still listens.
    fn give(&self, message: &Bytes) -> bool {
        let waiting = self.waiting_bytes.fetch_add(message.len(), Ordering::Relaxed);
        if waiting > 0 && waiting + message.len() > WAITING_LIMIT_BYTES {
            self.waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
            return !self.messages.is_closed();
        }
        match self.messages.try_send(message.clone()) {
            Ok(()) => true,
            Err(mpsc::error::TrySendError::Full(_)) => {
                self.waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
                true
            }
            Err(mpsc::error::TrySendError::Closed(_)) => false,
        }
    }
}

impl LocalMail {
    /// Whether somebody may listen at an address.
    #[cfg(feature = "kafka")]
    pub fn is_listening(&self, address: &str) -> bool {
        self.listeners.lock().expect("nothing panics under this lock").contains_key(address)
    }

    /// All addresses at which somebody listens.
    pub fn addresses(&self) -> Vec<String> {
        let mut all = self.listeners.lock().expect("nothing panics under this lock");
        all.retain(|_, listeners| listeners.iter().any(|listener| !listener.messages.is_closed()));
        all.keys().cloned().collect()
    }
}

impl Mailbox for LocalMail {
    fn send(&self, to: &str, message: Bytes) {
        let mut all = self.listeners.lock().expect("nothing panics under this lock");
        let Some(listeners) = all.get_mut(to) else { return };
        listeners.retain(|listener| listener.give(&message));
        if listeners.is_empty() {
            all.remove(to);
        }
    }

    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes> {
        let (sender, messages) = mpsc::channel(WAITING_LIMIT_MESSAGES);
        let waiting_bytes = Arc::new(AtomicUsize::new(0));
        let listener = Listener { messages: sender, waiting_bytes: waiting_bytes.clone() };
        let mut all = self.listeners.lock().expect("nothing panics under this lock");
        let listeners = all.entry(address.to_owned()).or_default();
        listeners.retain(|listener| !listener.messages.is_closed());
        listeners.push(listener);
        stream::unfold((messages, waiting_bytes), |(mut messages, waiting_bytes)| async move {
            let message = messages.recv().await?;
            waiting_bytes.fetch_sub(message.len(), Ordering::Relaxed);
            Some((message, (messages, waiting_bytes)))
        })
        .boxed()
    }
}
