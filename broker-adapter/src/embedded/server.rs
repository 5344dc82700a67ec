//! The broker's server: gives other processes what an [`EmbeddedBroker`] holds, by `protocol.rs`.
//!
//! A task per connection; a connection's end ends only what it asked for. Records pass through as bytes: their frames are
//! checked, not decoded.

use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::{FutureExt, StreamExt};
use tokio::sync::{Semaphore, mpsc};

use crate::broker::{Broker, ConnectError};
use crate::log::{MessageLog, ReadError};
use crate::mailbox::Mailbox;
use crate::record::wire;
use crate::shell::{Duplex, Listener, Shell};

use super::door::Door;
use super::metrics::Counted;
use super::protocol::{
    self, Answer, Ask, BEAT, Incoming, MailAsk, MailPush, Opening, Outgoing, PROTOCOL, Pushed, Role, StoreAnswer,
    StoreAsk, Welcome, WireRow, feed, flush, receive, send,
};
use super::{EmbeddedBroker, EmbeddedLog};

/// What one connection may have waiting for an answer; more is not read.
const WAITING_LIMIT: usize = 65_536;
const ANSWERS_PER_FLUSH: usize = 1_024;
const MAIL_WAITING_LIMIT: usize = 1_024;
const ACCEPT_RETRY: Duration = Duration::from_millis(20);
/// More connections wait in the listener's queue.
const CONNECTION_LIMIT: usize = 4_096;
/// How long a new connection may take to say what it wants.
const OPENING_LIMIT: Duration = Duration::from_secs(10);

/// Refusals are told in the log so often at most; they are counted all.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// Serves an open broker on an open port, to everybody; never ends of itself.
pub async fn serve_on(broker: EmbeddedBroker, listener: Box<dyn Listener>, shell: Shell) {
    serve_behind(Door::default(), broker, listener, shell).await;
}

/// Serves an open broker on an open port to those whom the door lets in; never ends of itself.
pub async fn serve_behind(door: Door, broker: EmbeddedBroker, mut listener: Box<dyn Listener>, shell: Shell) {
    // Connections end with this future, wherever it is dropped.
    let (inner, _connections) = shell.part();
    let places = Arc::new(Semaphore::new(CONNECTION_LIMIT));
    let hall = Arc::new(Hall { door, broker, told: Mutex::new(None) });
    loop {
        let place = places.clone().acquire_owned().await.expect("the semaphore is never closed");
        match listener.accept().await {
            Ok(connection) => {
                let (hall, shell) = (hall.clone(), inner.clone());
                inner.spawn(async move {
                    let _place = place;
                    let _counted = Counted::one(&hall.broker.open.metrics.connections);
                    if let Err(error) = connected(&hall, connection, shell).await {
                        tracing::debug!(%error, "a connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                shell.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

/// What all connections share.
struct Hall {
    door: Door,
    broker: EmbeddedBroker,
    /// When a refusal was told last.
    told: Mutex<Option<Duration>>,
}

impl Hall {
    fn refused(&self, reason: &str, shell: &Shell) {
        self.broker.open.metrics.refused.inc();
        let mut told = self.told.lock().expect("nothing panics under this lock");
        if told.is_none_or(|last| last + TOLD_EVERY <= shell.now()) {
            *told = Some(shell.now());
            tracing::warn!(reason, "a connection was refused; others within 10 s are only counted");
        }
    }
}

/// Lets somebody in, or says why not.
async fn let_in(
    hall: &Hall,
    connection: Box<dyn Duplex>,
    shell: &Shell,
) -> io::Result<Option<(Role, Incoming, Outgoing)>> {
    // Somebody who says nothing looks whether the port is open: no refusal.
    let said_nothing = |error: &io::Error| error.kind() == io::ErrorKind::UnexpectedEof;
    let connection = match hall.door.enter(connection).await {
        Ok(connection) => connection,
        Err(error) if said_nothing(&error) => return Ok(None),
        Err(error) => return Err(error),
    };
    let (mut incoming, mut outgoing) = protocol::strangers_frames(connection);
    let opening: Opening = match receive(&mut incoming).await {
        Ok(opening) => opening,
        Err(error) if said_nothing(&error) => return Ok(None),
        Err(error) => {
            if !protocol::is_tls(&incoming) {
                // What exactly was not understood might be a token.
                let reason = "the client's first frame is not one of ours: use the same release";
                return Err(io::Error::new(error.kind(), reason));
            }
            let reason = "the client speaks TLS and this broker does not: set tls = { certificate, key }, or write segue:// there";
            // It sees at once that this is no TLS.
            send(&mut outgoing, &Welcome::Refused(reason.to_owned())).await?;
            return Err(io::Error::new(io::ErrorKind::InvalidData, reason));
        }
    };
    let reason = if opening.protocol != PROTOCOL {
        format!("it speaks protocol {PROTOCOL}, the client {}: use the same release", opening.protocol)
    } else if let Some(refusal) = hall.door.refusal(opening.token.as_ref(), shell).await {
        hall.broker.open.metrics.bad_tokens.inc();
        refusal.to_owned()
    } else {
        protocol::trust(&mut incoming);
        return Ok(Some((opening.role, incoming, outgoing)));
    };
    send(&mut outgoing, &Welcome::Refused(reason.clone())).await?;
    Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
}

async fn connected(hall: &Hall, connection: Box<dyn Duplex>, shell: Shell) -> io::Result<()> {
    let silent = || io::Error::new(io::ErrorKind::TimedOut, "the client never said what it wants");
    let entered = shell.within(OPENING_LIMIT, let_in(hall, connection, &shell)).await.ok_or_else(silent).flatten();
    let (role, incoming, mut outgoing) = match entered {
        Ok(Some(entered)) => entered,
        Ok(None) => return Ok(()),
        Err(error) => {
            hall.refused(&error.to_string(), &shell);
            return Err(error);
        }
    };
    let broker = &hall.broker;
    match role {
        Role::Store => {
            send(&mut outgoing, &Welcome::Ready).await?;
            store(broker, incoming, outgoing).await
        }
        Role::Mail => {
            send(&mut outgoing, &Welcome::Ready).await?;
            mail(broker, incoming, outgoing, &shell).await
        }
        Role::Appends { log } => match open(broker, &log, &mut outgoing).await? {
            Some(log) => appends(log, incoming, outgoing, shell).await,
            None => Ok(()),
        },
        Role::Read { log, from } => match open(broker, &log, &mut outgoing).await? {
            Some(log) => {
                let _counted = Counted::one(&broker.open.metrics.readers);
                read(log, from, incoming, outgoing, shell).await
            }
            None => Ok(()),
        },
    }
}

async fn open(broker: &EmbeddedBroker, log: &str, outgoing: &mut Outgoing) -> io::Result<Option<EmbeddedLog>> {
    let (welcome, log) = match broker.open_log(log).await {
        Ok(log) => (Welcome::Ready, Some(log)),
        Err(ConnectError::Damaged { log, reason }) => (Welcome::Damaged { log, reason }, None),
        Err(error) => (Welcome::Refused(error.to_string()), None),
    };
    send(outgoing, &welcome).await?;
    Ok(log)
}

type Appending = BoxFuture<'static, Answer>;

async fn appends(log: EmbeddedLog, incoming: Incoming, outgoing: Outgoing, shell: Shell) -> io::Result<()> {
    let (appending, mut in_order) = mpsc::channel::<Appending>(WAITING_LIMIT);
    let (answers, to_write) = mpsc::channel::<Answer>(WAITING_LIMIT);
    let resolved = answers.clone();
    let resolve = async move {
        while let Some(append) = in_order.recv().await {
            if resolved.send(append.await).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let result = tokio::select! {
        biased;
        result = write_answers(to_write, outgoing, shell) => result,
        result = resolve => result,
        result = take_asks(log, incoming, appending, answers) => result,
    };
    result
}

async fn take_asks(
    log: EmbeddedLog,
    mut incoming: Incoming,
    appending: mpsc::Sender<Appending>,
    answers: mpsc::Sender<Answer>,
) -> io::Result<()> {
    let gone = || io::Error::from(io::ErrorKind::BrokenPipe);
    loop {
        let answer = match receive(&mut incoming).await? {
            Ask::Append { id, frames } => {
                // Handed over here, in the order of the connection; awaited elsewhere.
                let append = match checked(frames) {
                    Ok(frames) => log.append_frames(frames).map(move |first| Answer::Appended { id, first }).boxed(),
                    Err(error) => return Err(io::Error::new(io::ErrorKind::InvalidData, error)),
                };
                appending.send(append).await.map_err(|_| gone())?;
                continue;
            }
            Ask::Tail { id } => Answer::Tail { id, tail: log.tail().await },
            Ask::Trim { id, before } => Answer::Trimmed { id, done: log.trim(before).await },
            Ask::Usage { id } => Answer::Usage { id, usage: log.usage().await },
        };
        answers.send(answer).await.map_err(|_| gone())?;
    }
}

fn checked(frames: Vec<Bytes>) -> Result<Vec<(Bytes, u32)>, wire::WireError> {
    frames.into_iter().map(|frame| wire::check(&frame).map(|crc| (frame, crc))).collect()
}

async fn write_answers(mut answers: mpsc::Receiver<Answer>, mut outgoing: Outgoing, shell: Shell) -> io::Result<()> {
    let mut ready = Vec::new();
    loop {
        match shell.within(BEAT, answers.recv_many(&mut ready, ANSWERS_PER_FLUSH)).await {
            None => ready.push(Answer::Beat),
            Some(0) => return Ok(()),
            Some(_) => {}
        }
        for answer in ready.drain(..) {
            feed(&mut outgoing, &answer).await?;
        }
        flush(&mut outgoing).await?;
    }
}

async fn read(
    log: EmbeddedLog,
    from: crate::ids::Position,
    mut incoming: Incoming,
    mut outgoing: Outgoing,
    shell: Shell,
) -> io::Result<()> {
    let mut rows = log.rows(from);
    let push = async {
        loop {
            let pushed = match shell.within(BEAT, rows.next()).await {
                None => Pushed::Beat,
                Some(Some(Ok(rows))) => {
                    let row = |row: super::row::Row| WireRow {
                        position: row.position,
                        appended_ms: row.appended_ms,
                        frame: row.frame,
                    };
                    Pushed::Rows(rows.into_iter().map(row).collect())
                }
                Some(Some(Err(error))) => Pushed::Ended(error),
                Some(None) => Pushed::Ended(ReadError::Unreachable("the log's stream ended".to_owned())),
            };
            send(&mut outgoing, &pushed).await?;
            if matches!(pushed, Pushed::Ended(_)) {
                return Ok(());
            }
        }
    };
    tokio::select! {
        biased;
        result = push => result,
        // A reader says nothing; this only notices when it goes.
        result = receive::<()>(&mut incoming) => result,
    }
}

async fn store(broker: &EmbeddedBroker, mut incoming: Incoming, mut outgoing: Outgoing) -> io::Result<()> {
    let store = broker.store();
    loop {
        let answer = match receive(&mut incoming).await? {
            StoreAsk::Put { name, bytes } => StoreAnswer::Done(store.put(name, bytes).await),
            StoreAsk::Get { name } => StoreAnswer::Got(store.get(name).await),
            StoreAsk::List { prefix } => StoreAnswer::Names(store.list(prefix).await),
            StoreAsk::Delete { name } => StoreAnswer::Done(store.delete(name).await),
        };
        send(&mut outgoing, &answer).await?;
    }
}

async fn mail(
    broker: &EmbeddedBroker,
    mut incoming: Incoming,
    mut outgoing: Outgoing,
    shell: &Shell,
) -> io::Result<()> {
    let (pushes, mut to_write) = mpsc::channel::<MailPush>(MAIL_WAITING_LIMIT);
    let (inner, _subscriptions) = shell.part();
    let local = broker.open.mail.clone();
    let mut subscribed = std::collections::BTreeMap::new();
    let take = async {
        loop {
            match receive(&mut incoming).await? {
                MailAsk::Send { to, message } => local.send(&to, message),
                MailAsk::Unsubscribe { address } => {
                    subscribed.remove(&address);
                }
                MailAsk::Subscribe { address } => {
                    let mut messages = local.subscribe(&address);
                    let (part, set) = inner.part();
                    subscribed.insert(address.clone(), set);
                    let pushes = pushes.clone();
                    part.spawn(async move {
                        while let Some(message) = messages.next().await {
                            let push = MailPush::Message { address: address.clone(), message };
                            if pushes.send(push).await.is_err() {
                                break;
                            }
                        }
                    });
                }
            }
        }
    };
    let write = async {
        loop {
            let push = shell.within(BEAT, to_write.recv()).await.flatten().unwrap_or(MailPush::Beat);
            feed(&mut outgoing, &push).await?;
            while let Ok(push) = to_write.try_recv() {
                feed(&mut outgoing, &push).await?;
            }
            flush(&mut outgoing).await?;
        }
    };
    let result: io::Result<()> = tokio::select! {
        biased;
        result = write => result,
        result = take => result,
    };
    result
}
