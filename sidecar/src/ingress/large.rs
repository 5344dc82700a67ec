//! Messages whose bodies go to the checkpoint store first: each in a session of its own, so that nobody waits for its put.
//!
//! ```text
//!   numbered ──▶ Storing ──▶ put ──▶ Sent ──▶ append … again until it is read back as counted
//!     ▲             └──▶ the client's deadline: 503, nothing was appended, and the parts are removed
//!     └───── base K counts old (SessionUnknown): another session, another body, the first key ◀──┘
//! ```
//! No close is needed to give such a session up: its only record carries the base, and once that is K counts old it never counts
//! (see [`crate::body`], which also says who removes what is left behind).

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{Hash, Position, Sequence, Session};
use broker_adapter::log::AppendError;
use broker_adapter::record::{Body, Key, Message, Record};
use broker_adapter::shell::TaskSet;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use std::sync::Arc;
use tokio::sync::{Semaphore, oneshot, watch};

use super::Answer;
use super::session::Ingress;
use crate::body::BodyName;

/// How many bodies are put at once; others wait for their turn.
const PUTS_AT_ONCE: usize = 4;
const AGAIN_FIRST: Duration = Duration::from_millis(20);
const AGAIN_MAX: Duration = Duration::from_secs(1);
/// What was acknowledged and not read back for so long is sent again: it costs nothing but a void record.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// All of an ingress's.
pub(super) struct Large {
    messages: BTreeMap<Session, LargeMessage>,
    /// Their bodies together.
    pub bytes: u64,
    pub under_way: FuturesUnordered<BoxFuture<'static, LargeEvent>>,
    places: Arc<Semaphore>,
    /// Whether a checkpoint of the shard was seen in the store.
    is_the_shards: bool,
}

/// What became of a put or an append.
pub(super) enum LargeEvent {
    Stored(Session, Result<Hash, String>),
    Appended(Session, Result<Vec<Position>, AppendError>),
    /// The process is ending.
    Gone,
}

struct LargeMessage {
    /// As it was submitted, with the body in it.
    message: Message,
    body: Bytes,
    deadline: Duration,
    /// Whether any append of it was attempted, under this name or an earlier one.
    attempted: bool,
    stage: Stage,
}

enum Stage {
    Storing {
        /// Why it takes so long.
        trouble: watch::Receiver<Option<String>>,
        _put: TaskSet,
    },
    Sent {
        hash: Hash,
        in_flight: bool,
        again: Duration,
        wait: Duration,
    },
}

impl Default for Large {
    fn default() -> Self {
        Large {
            messages: BTreeMap::new(),
            bytes: 0,
            under_way: FuturesUnordered::new(),
            places: Arc::new(Semaphore::new(PUTS_AT_ONCE)),
            is_the_shards: false,
        }
    }
}

impl Large {
    pub fn len(&self) -> usize {
        self.messages.len()
    }

    pub fn has(&self, session: Session) -> bool {
        self.messages.contains_key(&session)
    }

    pub fn messages(&self) -> impl Iterator<Item = &Message> {
        self.messages.values().map(|large| &large.message)
    }

    fn take(&mut self, session: Session) -> Option<LargeMessage> {
        let large = self.messages.remove(&session)?;
        self.bytes -= large.body.len() as u64;
        Some(large)
    }
}

impl LargeMessage {
    fn name(&self) -> BodyName {
        BodyName { message: self.message.name, base: self.message.base.unwrap_or_default() }
    }

    /// What goes into the log.
    fn record(&self, hash: Hash) -> Record {
        let mut message = self.message.clone();
        message.request.body = Body::Stored { hash, length: self.body.len() as u64 };
        Record::Message(Box::new(message))
    }
}

impl Ingress {
    /// Stores the body of a message, which is the first of a session of its own; then it is sent.
    pub(super) fn store(&mut self, message: Message, deadline: Duration, attempted: bool) {
        let Body::Inline(body) = message.request.body.clone() else { return };
        let session = message.name.session;
        let (told, trouble) = watch::channel(None);
        let (done, stored) = oneshot::channel();
        let (part, put) = self.context.shell.part();
        let large = LargeMessage { message, body, deadline, attempted, stage: Stage::Storing { trouble, _put: put } };
        let (bodies, places) = (self.context.bodies(), self.large.places.clone());
        let (name, body, is_known) = (large.name(), large.body.clone(), self.large.is_the_shards);
        part.spawn(async move {
            let _place = places.acquire().await;
            let tell = |error: &broker_adapter::store::StoreError| {
                told.send_replace(Some(error.to_string()));
            };
            let result = async {
                if !is_known && !bodies.is_the_shards(tell).await.map_err(|error| error.to_string())? {
                    return Err("there is no checkpoint of this service in the checkpoint store of this node: is \
                                `checkpoints` the same place as on its owner's?"
                        .to_owned());
                }
                bodies.put(name, body, tell).await.map_err(|error| error.to_string())
            };
            // Nobody may wait any more.
            let _ = done.send(result.await);
        });
        self.large.under_way.push(Box::pin(async move {
            // An error: it was given up.
            stored.await.map_or(LargeEvent::Gone, |result| LargeEvent::Stored(session, result))
        }));
        self.large.bytes += large.body.len() as u64;
        self.large.messages.insert(session, large);
    }

    pub(super) fn large_event(&mut self, event: LargeEvent) {
        match event {
            LargeEvent::Stored(session, Ok(hash)) => {
                self.large.is_the_shards = true;
                let now = self.context.shell.now();
                if let Some(large) = self.large.messages.get_mut(&session) {
                    large.stage = Stage::Sent { hash, in_flight: false, again: now, wait: AGAIN_FIRST };
                }
                self.send_large(session);
            }
            LargeEvent::Stored(session, Err(reason)) => self.drop_unsent(session, &reason),
            LargeEvent::Appended(session, result) => self.appended_large(session, result),
            LargeEvent::Gone => {}
        }
    }

    fn send_large(&mut self, session: Session) {
        let Some(large) = self.large.messages.get_mut(&session) else { return };
        let Stage::Sent { hash, in_flight, .. } = &mut large.stage else { return };
        *in_flight = true;
        let hash = *hash;
        large.attempted = true;
        let records = vec![large.record(hash)];
        let appended = self.measured_append(records);
        self.large.under_way.push(Box::pin(async move { LargeEvent::Appended(session, appended.await) }));
    }

    fn appended_large(&mut self, session: Session, result: Result<Vec<Position>, AppendError>) {
        let now = self.context.shell.now();
        let full = match &result {
            Err(AppendError::Full(reason)) => Some(reason.clone()),
            _ => None,
        };
        if result.is_ok() || full.is_some() {
            self.full = full;
        }
        let Some(large) = self.large.messages.get_mut(&session) else { return };
        let Stage::Sent { in_flight, again, wait, .. } = &mut large.stage else { return };
        *in_flight = false;
        match result {
            Ok(_) => (*again, *wait) = (now + STALLED_AFTER, AGAIN_FIRST),
            // Its head alone is too large for this broker.
            Err(error @ AppendError::TooLarge { .. }) => {
                let Some(large) = self.large.take(session) else { return };
                if let Some(waiting) = self.clients.take(large.message.name) {
                    let detail = format!("the request's head does not fit into a record of the broker: {error}");
                    // The client may have gone.
                    let _ = waiting.answer.send(Answer::Refused { status: 431, code: "head-too-large", detail });
                }
            }
            Err(error) => {
                tracing::debug!(%error, %session, "will send again what is not read back");
                *again = now + *wait;
                *wait = (2 * *wait).min(AGAIN_MAX);
            }
        }
    }

    /// A message that counted, read back.
    pub(super) fn large_confirmed(&mut self, session: Session) {
        let now = self.context.shell.now();
        if let Some(large) = self.large.take(session) {
            self.clients.confirm(large.message.name, self.fold.count(), now);
        }
    }

    /// Its base is too old: whatever was sent of it never counts. It goes on in another session, under its first key.
    pub(super) fn renew_large(&mut self, session: Session) {
        let Some(large) = self.large.take(session) else { return };
        tracing::info!(%session, "giving up the session of a large message");
        self.store_anew(large.message, large.deadline, large.attempted);
    }

    /// Under the name of a new session; nothing of it that was sent before can count any more.
    pub(super) fn store_anew(&mut self, mut message: Message, deadline: Duration, attempted: bool) {
        let old = message.name;
        message.name.session = Session(self.context.shell.random());
        message.name.sequence = Sequence::FIRST;
        message.base = Some(self.fold.count());
        if let Key::Own { count } = message.key {
            message.key = Key::First { name: old, count };
        }
        self.clients.rename(old, message.name);
        self.store(message, deadline, attempted);
    }

    /// What was stored and never sent is nobody's: its client is told so, and its parts are removed.
    fn drop_unsent(&mut self, session: Session, reason: &str) {
        let Some(large) = self.large.take(session) else { return };
        let waiting = self.clients.take(large.message.name);
        let parts = large.name().parts(&self.context.shard, large.body.len() as u64);
        let bodies = self.context.bodies();
        // What cannot be removed now, or is put later all the same, the owner finds.
        self.context.shell.spawn(async move { bodies.remove(parts).await });
        let Some(waiting) = waiting else { return };
        let answer = if large.attempted {
            Answer::TimedOut { key: waiting.key }
        } else {
            let detail = format!(
                "the request's body was not put into the checkpoint store in time, and was not applied: {reason}"
            );
            Answer::Unavailable { code: "body-not-stored", detail }
        };
        // The client may have gone.
        let _ = waiting.answer.send(answer);
    }

    /// Gives up what was not stored by its client's deadline.
    pub(super) fn expire_large(&mut self, now: Duration) {
        let late = |(session, large): (&Session, &LargeMessage)| match &large.stage {
            Stage::Storing { trouble, .. } if large.deadline <= now && !large.attempted => {
                Some((*session, trouble.borrow().clone().unwrap_or_else(|| "it takes long".to_owned())))
            }
            _ => None,
        };
        let late: Vec<(Session, String)> = self.large.messages.iter().filter_map(late).collect();
        for (session, reason) in late {
            self.drop_unsent(session, &reason);
        }
    }

    /// Sends again what was not read back in time.
    pub(super) fn send_large_again(&mut self, now: Duration) {
        let due =
            |large: &LargeMessage| matches!(large.stage, Stage::Sent { in_flight: false, again, .. } if again <= now);
        let due: Vec<Session> =
            self.large.messages.iter().filter(|(_, large)| due(large)).map(|(session, _)| *session).collect();
        for session in due {
            self.send_large(session);
        }
    }

    /// The log was trimmed past this reader; the fold is that of a newer checkpoint. A session that it knows counted. One that it does
    /// not know never counted while its base is near; of an older one nobody knows.
    pub(super) fn large_overtaken(&mut self, now: Duration) {
        let sessions: Vec<Session> = self.large.messages.keys().copied().collect();
        for session in sessions {
            let Some(large) = self.large.messages.get_mut(&session) else { continue };
            let name = large.name();
            if self.fold.session(session).is_some() {
                self.large_confirmed(session);
            } else if name.may_count(&self.fold) || !large.attempted {
                if let Stage::Sent { again, .. } = &mut large.stage {
                    *again = now;
                }
            } else if matches!(large.message.key, Key::Client { .. }) {
                // Sent again, it could be applied twice.
                self.drop_unsent(session, "");
            } else {
                self.renew_large(session);
            }
        }
    }
}
