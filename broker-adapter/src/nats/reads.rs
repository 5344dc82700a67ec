//! Reads a log through an ordered push consumer, and believes nothing that it does not check.
//!
//! A server clamps a start out of range silently; messages between server and client may get lost; a consumer may stop without a
//! word. So the range is compared with the leader's own before, every sequence number is compared with the last one, and a watchdog
//! asks the leader when nothing came for a while. What is wrong ends the stream: doubts as `Unreachable`, behind which the follower
//! reads its last record again and compares it, and what is certainly wrong by its name and position.

use std::sync::Arc;
use std::time::Duration;

use async_nats::{Client, Message, StatusCode, Subscriber};
use bytes::Bytes;
use futures_util::stream::{self, BoxStream};
use futures_util::{FutureExt, StreamExt};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::ids::Position;
use crate::log::ReadError;
use crate::record::{Entry, wire};

use super::api::{self, ApiError, StreamInfo};
use super::link::{Health, Line};
use super::log::{Inner, ended};
use super::settings;

/// How soon a consumer that delivers nothing is given up.
#[derive(Clone, Copy, Debug)]
struct Pace {
    /// The server says so often that an idle consumer lives.
    heartbeat: Duration,
    /// Longer silence means that it does not.
    silence_limit: Duration,
    /// Nothing but heartbeats for so long: the leader is asked whether there is anything to read.
    watch_after: Duration,
    /// If there is, it must come within this.
    progress_limit: Duration,
    /// How long the answer to each question for a consumer may take.
    create_limits: &'static [Duration],
}

/// A consumer of a single server ends with its connection.
const ALONE: Pace = Pace {
    heartbeat: Duration::from_secs(1),
    silence_limit: Duration::from_secs(3),
    watch_after: Duration::from_secs(5),
    progress_limit: Duration::from_secs(2),
    create_limits: &[Duration::from_secs(2)],
};
/// In a cluster it may live on another server than the connection's, which may die alone, or fall behind a new leader.
const CLUSTERED: Pace = Pace {
    heartbeat: Duration::from_millis(300),
    silence_limit: Duration::from_millis(1_500),
    watch_after: Duration::from_secs(1),
    progress_limit: Duration::from_millis(500),
    create_limits: &[Duration::from_millis(400), Duration::from_secs(2)],
};
/// A consumer whose reader is gone is forgotten by the server after this.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(10);

/// A consumer that delivers to us.
struct Reader {
    inner: Arc<Inner>,
    client: Client,
    messages: Subscriber,
    changes: watch::Receiver<Health>,
    /// The next position.
    next: u64,
    /// How many messages the consumer delivered.
    delivered: u64,
    /// When progress was seen last, or the leader was asked last.
    progress_at: Duration,
    /// Whether a record came since then: a clock for each would cost more than its checks.
    progressed: bool,
    /// What the leader said is there to be read.
    promised: u64,
    pace: Pace,
}

/// Where a message stands, as its reply subject tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Place {
    stream: u64,
    consumer: u64,
    appended_ms: u64,
}

enum State {
    Closed(Position),
    Open(Box<Reader>),
    Ended,
}

/// The log from `from` on.
pub fn entries(inner: Arc<Inner>, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
    stream::unfold((State::Closed(from), inner), |(state, inner)| async move {
        let opened = match state {
            State::Ended => return None,
            State::Open(reader) => Ok(reader),
            State::Closed(from) => open(&inner, from).await.map(Box::new),
        };
        let (item, state) = match opened {
            Err(error) => (Err(error), State::Ended),
            Ok(mut reader) => match reader.next().await {
                Ok(entry) => (Ok(entry), State::Open(reader)),
                Err(error) => (Err(error), State::Ended),
            },
        };
        Some((item, (state, inner)))
    })
    .boxed()
}

async fn open(inner: &Arc<Inner>, from: Position) -> Result<Reader, ReadError> {
    let info = inner.info().await?;
    settings::check(&info.config, &inner.wanted, inner.link.options())
        .map_err(|reason| ReadError::Damaged { position: from, reason })?;
    in_range(inner, from, &info).await?;
    let lines = inner.link.lines().ok_or_else(ended)?;
    let line = &lines.reads;
    let changes = line.changes();
    let pace = if info.replicas > 1 { CLUSTERED } else { ALONE };
    let messages = subscribe(inner, line, from, pace).await?;
    Ok(Reader {
        client: line.client.clone(),
        inner: inner.clone(),
        messages,
        changes,
        next: from.0,
        delivered: 0,
        progress_at: inner.link.shell().now(),
        progressed: false,
        promised: 0,
        pace,
    })
}

/// Makes a consumer. A cluster whose leader has just changed may answer nobody: there a second one is asked for soon, which delivers
/// elsewhere, so that the first, if it was made after all, delivers to nobody.
async fn subscribe(inner: &Inner, line: &Line, from: Position, pace: Pace) -> Result<Subscriber, ReadError> {
    let (stream, shell) = (&inner.wanted.name, inner.link.shell());
    let call = format!("CONSUMER.CREATE.{stream}");
    let mut answered = Err(ApiError::Unreachable(String::new()));
    for limit in pace.create_limits {
        let inbox = line.client.new_inbox();
        let messages = line.client.subscribe(inbox.clone()).await.map_err(|error| doubt(error.to_string()))?;
        let body = json!({ "stream_name": stream, "config": consumer(inbox, from, pace) });
        let asked = api::ask(line, shell, &call, &body);
        answered = match shell.within(*limit, asked).await {
            Some(answer) => answer,
            None => Err(ApiError::Unreachable(format!("JetStream made no consumer within {limit:?}"))),
        };
        match &answered {
            Ok(_) => return Ok(messages),
            Err(ApiError::Unreachable(_)) => {}
            Err(ApiError::Refused { .. }) => break,
        }
    }
    Err(doubt(answered.map(|_| String::new()).unwrap_or_else(|error| error.reason())))
}

fn consumer(inbox: String, from: Position, pace: Pace) -> Value {
    json!({
        "deliver_subject": inbox,
        "deliver_policy": "by_start_sequence",
        "opt_start_seq": from.0,
        "ack_policy": "none",
        "replay_policy": "instant",
        "max_deliver": 1,
        "flow_control": true,
        "idle_heartbeat": nanoseconds(pace.heartbeat),
        "inactive_threshold": nanoseconds(FORGOTTEN_AFTER),
        "mem_storage": true,
        "num_replicas": 1,
    })
}

/// Whether `from` can be read, by the leader's word.
async fn in_range(inner: &Inner, from: Position, info: &StreamInfo) -> Result<(), ReadError> {
    if from.0 < info.first {
        return Err(ReadError::Trimmed { asked: from, first: Position(info.first) });
    }
    if from.0 <= info.last + 1 {
        return Ok(());
    }
    // A leader of several may not have applied yet what the last one had: its tail is asked in earnest.
    let tail = if info.replicas > 1 { inner.tail().await? } else { Position(info.last) };
    match from > tail.next() {
        true => Err(ReadError::BehindTail { asked: from, tail }),
        false => Err(doubt("the server was behind; it has caught up".to_owned())),
    }
}

fn doubt(reason: String) -> ReadError {
    ReadError::Unreachable(reason)
}

fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

impl Reader {
    async fn next(&mut self) -> Result<Entry, ReadError> {
        loop {
            // What is there already needs no timer.
            let message = match self.messages.next().now_or_never() {
                Some(message) => message,
                None => self.wait().await?,
            };
            let message = message.ok_or_else(|| doubt("the subscription ended".to_owned()))?;
            if message.status.is_some() {
                self.status(&message).await?;
                continue;
            }
            let place = message.reply.as_deref().and_then(place);
            let place = place.ok_or_else(|| doubt("a message does not say where it stands".to_owned()))?;
            self.check(place).await?;
            self.progressed = true;
            return entry(place, &message.payload);
        }
    }

    async fn wait(&mut self) -> Result<Option<Message>, ReadError> {
        let shell = self.inner.link.shell();
        tokio::select! {
            biased;
            message = self.messages.next() => Ok(message),
            _ = self.changes.wait_for(|health| !health.connected) => Err(doubt("the connection broke".to_owned())),
            () = shell.sleep(self.pace.silence_limit) => {
                Err(doubt(format!("the consumer is silent for {:?}", self.pace.silence_limit)))
            }
        }
    }

    /// Whether this is the next record; if not, why.
    async fn check(&mut self, place: Place) -> Result<(), ReadError> {
        self.delivered += 1;
        if place.consumer != self.delivered {
            return Err(doubt(format!("messages {} to {} got lost on the way", self.delivered, place.consumer - 1)));
        }
        if place.stream == self.next {
            self.next += 1;
            return Ok(());
        }
        let (expected, found) = (Position(self.next), Position(place.stream));
        let info = self.inner.info().await?;
        in_range(&self.inner, expected, &info).await?;
        if found < expected {
            // The consumer's server was behind, or began a log that was made anew: reading again tells which.
            return Err(doubt(format!("the server gave {found} where {expected} was asked for")));
        }
        Err(ReadError::Gap { expected, found })
    }

    /// Flow control is answered here, where messages were taken before it; heartbeats drive the watchdog.
    async fn status(&mut self, message: &Message) -> Result<(), ReadError> {
        if message.status != Some(StatusCode::IDLE_HEARTBEAT) {
            let words = message.description.clone().unwrap_or_default();
            return Err(doubt(format!("the consumer ended: {words}")));
        }
        let header = |name: &str| message.headers.as_ref().and_then(|headers| headers.get(name));
        let stalled = header("Nats-Consumer-Stalled").map(|value| value.as_str().to_owned());
        let reply = message.reply.as_ref().map(|reply| reply.as_str().to_owned());
        for subject in reply.into_iter().chain(stalled) {
            self.client.publish(subject, Bytes::new()).await.map_err(|error| doubt(error.to_string()))?;
        }
        let delivered = header("Nats-Last-Consumer").and_then(|value| value.as_str().parse::<u64>().ok());
        if delivered.is_some_and(|delivered| delivered > self.delivered) {
            return Err(doubt("messages got lost on the way".to_owned()));
        }
        self.watch().await
    }

    /// Pending and no progress: the reader begins again.
    async fn watch(&mut self) -> Result<(), ReadError> {
        let now = self.inner.link.shell().now();
        if std::mem::take(&mut self.progressed) {
            self.progress_at = now;
        }
        if self.promised >= self.next {
            return match now >= self.progress_at + self.pace.progress_limit {
                true => Err(doubt(format!("position {} is there and is not delivered", self.next))),
                false => Ok(()),
            };
        }
        if now >= self.progress_at + self.pace.watch_after {
            let info = self.inner.info().await?;
            in_range(&self.inner, Position(self.next), &info).await?;
            self.promised = info.last;
            self.progress_at = now;
        }
        Ok(())
    }
}

fn entry(place: Place, payload: &Bytes) -> Result<Entry, ReadError> {
    let position = Position(place.stream);
    let damaged = |error: wire::WireError| ReadError::Damaged { position, reason: error.to_string() };
    let (record, crc) = wire::decode(payload).map_err(damaged)?;
    Ok(Entry { position, appended_ms: place.appended_ms, crc, record })
}

/// `$JS.ACK.STREAM.CONSUMER.TRIES.STREAM-SEQUENCE.CONSUMER-SEQUENCE.NANOSECONDS.PENDING`; servers with a domain say domain and
/// account before the stream's name, and may say more behind.
fn place(reply: &str) -> Option<Place> {
    let tokens = reply.strip_prefix("$JS.ACK.")?;
    let count = tokens.bytes().filter(|byte| *byte == b'.').count() + 1;
    let mut tokens = tokens.split('.').skip(if count == 7 { 3 } else { 5 });
    let mut number = || tokens.next()?.parse::<u64>().ok();
    let (stream, consumer, nanoseconds) = (number()?, number()?, number()?);
    Some(Place { stream, consumer, appended_ms: nanoseconds / 1_000_000 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_of_a_messages_place_are_read() {
        let expected = Some(Place { stream: 12, consumer: 3, appended_ms: 1_700_000_000_123 });
        assert_eq!(place("$JS.ACK.SEGUE_a.c1.1.12.3.1700000000123456789.9"), expected);
        assert_eq!(place("$JS.ACK._.hash.SEGUE_a.c1.1.12.3.1700000000123456789.9"), expected);
        assert_eq!(place("$JS.ACK._.hash.SEGUE_a.c1.1.12.3.1700000000123456789.9.more"), expected);
        assert_eq!(place("$JS.FC.SEGUE_a"), None);
        assert_eq!(place("$JS.ACK.a.b.c"), None);
    }
}
