//! The third face on Kafka: one topic kept for a minute, the address as the key, read by every process from about now on.
//!
//! Loss is allowed, so the leader alone acknowledges (`acks=1`) and nothing is sent for long. Messages above the topic's limit
//! travel in parts and are put together again; a part that does not come loses its message.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::BoxStream;
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use crate::embedded::mail::LocalMail;
use crate::mailbox::Mailbox;
use crate::shell::{Shell, real};

use super::client::{OffWorkers, QUESTION_LIMIT, Target, log_line};
use super::reads::Events;
use super::watch::{POLL_LIMIT, Wants, Watch};

/// The bytes of a message that travel in one record.
const PART_LIMIT_BYTES: usize = 900 << 10;
/// The largest message; what is above is lost with a warning.
const MESSAGE_LIMIT_BYTES: usize = 79 << 20;
/// Messages whose parts are awaited, and their bytes; the oldest goes first.
const OPEN_LIMIT_MESSAGES: usize = 64;
const OPEN_LIMIT_BYTES: usize = 128 << 20;
const RETRY_WAIT: Duration = Duration::from_millis(100);
const AHEAD_KBYTES: usize = 16 << 10;
/// Message id, number of this part, number of parts.
const HEADER_BYTES: usize = 16 + 4 + 4;

/// The mailbox's face; its thread ends with it.
pub struct KafkaMail {
    topic: String,
    shell: Shell,
    producer: OffWorkers<ThreadedProducer<Loose>>,
    local: Arc<LocalMail>,
    stop: Arc<AtomicBool>,
}

/// Nobody waits for these deliveries.
struct Loose;

impl ClientContext for Loose {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ProducerContext for Loose {
    type DeliveryOpaque = ();

    fn delivery(&self, result: &DeliveryResult<'_>, (): ()) {
        if let Err((error, _)) = result {
            tracing::debug!(%error, "mail was lost");
        }
    }
}

impl KafkaMail {
    pub fn start(target: &Target, topic: String, shell: &Shell) -> Result<KafkaMail, String> {
        let config = target.loose_producer(PART_LIMIT_BYTES + (16 << 10));
        let producer: ThreadedProducer<Loose> =
            config.create_with_context(Loose).map_err(|error| target.tell(&error))?;
        let (local, stop) = (Arc::new(LocalMail::default()), Arc::new(AtomicBool::new(false)));
        let receiving =
            Receiving { target: target.clone(), topic: topic.clone(), local: local.clone(), stop: stop.clone() };
        real::start_thread("kafka-mail", move || receiving.run())
            .map_err(|error| format!("no thread is left: {error}"))?;
        Ok(KafkaMail { topic, shell: shell.clone(), producer: OffWorkers::new(producer), local, stop })
    }
}

impl Drop for KafkaMail {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

impl Mailbox for KafkaMail {
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
        let id = self.shell.random().0;
        let count = message.len().div_ceil(PART_LIMIT_BYTES).max(1);
        for at in 0..count {
            let from = at * PART_LIMIT_BYTES;
            let bytes = &message[from..(from + PART_LIMIT_BYTES).min(message.len())];
            let payload = encode(&Part { id, at: small(at), count: small(count), bytes });
            let record = BaseRecord::to(&self.topic).partition(0).key(to).payload(&payload);
            if let Err((error, _)) = self.producer.send(record) {
                tracing::debug!(to, %error, "mail was lost");
                return;
            }
        }
    }

    fn subscribe(&self, address: &str) -> BoxStream<'static, Bytes> {
        self.local.subscribe(address)
    }
}

fn small(number: usize) -> u32 {
    u32::try_from(number).expect("messages are limited")
}

struct Part<'a> {
    id: u128,
    at: u32,
    count: u32,
    bytes: &'a [u8],
}

fn encode(part: &Part<'_>) -> Vec<u8> {
    let mut payload = Vec::with_capacity(HEADER_BYTES + part.bytes.len());
    payload.extend_from_slice(&part.id.to_be_bytes());
    payload.extend_from_slice(&part.at.to_be_bytes());
    payload.extend_from_slice(&part.count.to_be_bytes());
    payload.extend_from_slice(part.bytes);
    payload
}

fn decode(payload: &[u8]) -> Option<Part<'_>> {
    let (id, rest) = payload.split_first_chunk::<16>()?;
    let (at, rest) = rest.split_first_chunk::<4>()?;
    let (count, bytes) = rest.split_first_chunk::<4>()?;
    let part =
        Part { id: u128::from_be_bytes(*id), at: u32::from_be_bytes(*at), count: u32::from_be_bytes(*count), bytes };
    let most = small(MESSAGE_LIMIT_BYTES.div_ceil(PART_LIMIT_BYTES));
    (part.at < part.count && part.count <= most).then_some(part)
}

/// Messages whose parts are on their way.
#[derive(Default)]
struct Open {
    /// In the order of their beginning: the number, by id.
    messages: BTreeMap<u64, Waiting>,
    begun: u64,
    bytes: usize,
}

struct Waiting {
    id: u128,
    parts: Vec<Option<Bytes>>,
    bytes: usize,
}

impl Open {
    /// The message, if this was its last part.
    fn take(&mut self, part: &Part<'_>) -> Option<Bytes> {
        if part.count == 1 {
            return Some(Bytes::copy_from_slice(part.bytes));
        }
        let known = self.messages.iter().find(|(_, waiting)| waiting.id == part.id).map(|(number, _)| *number);
        let number = known.unwrap_or_else(|| {
            self.begun += 1;
            let parts = vec![None; part.count as usize];
            self.messages.insert(self.begun, Waiting { id: part.id, parts, bytes: 0 });
            self.begun
        });
        let waiting = self.messages.get_mut(&number).expect("it is there, or was put there");
        let place = waiting.parts.get_mut(part.at as usize)?;
        if place.is_none() {
            *place = Some(Bytes::copy_from_slice(part.bytes));
            waiting.bytes += part.bytes.len();
            self.bytes += part.bytes.len();
        }
        if waiting.parts.iter().all(Option::is_some) {
            let whole = self.messages.remove(&number)?;
            self.bytes -= whole.bytes;
            return Some(whole.parts.into_iter().flatten().collect::<Vec<_>>().concat().into());
        }
        while self.messages.len() > OPEN_LIMIT_MESSAGES || self.bytes > OPEN_LIMIT_BYTES {
            let (_, oldest) = self.messages.pop_first()?;
            self.bytes -= oldest.bytes;
        }
        None
    }
}

/// The thread that reads the topic.
struct Receiving {
    target: Target,
    topic: String,
    local: Arc<LocalMail>,
    stop: Arc<AtomicBool>,
}

impl Receiving {
    fn run(&self) {
        while !self.stop.load(Ordering::Relaxed) {
            if let Err(error) = self.receive() {
                tracing::debug!(error = self.target.tell(&error), "the mailbox begins again");
                std::thread::sleep(RETRY_WAIT);
            }
        }
    }

    fn receive(&self) -> Result<(), KafkaError> {
        let consumer: BaseConsumer<Events> =
            self.target.consumer(AHEAD_KBYTES).create_with_context(Events::default())?;
        // By number: librdkafka takes a second to find an end that is called so.
        let (_, end) = consumer.fetch_watermarks(&self.topic, 0, QUESTION_LIMIT)?;
        let mut places = TopicPartitionList::new();
        places.add_partition_offset(&self.topic, 0, Offset::Offset(end))?;
        consumer.assign(&places)?;
        let (mut open, mut watch, mut next) = (Open::default(), Watch::default(), end);
        while !self.stop.load(Ordering::Relaxed) {
            let event = consumer.poll(POLL_LIMIT);
            watch.polled(event.is_some());
            match event {
                None => {}
                Some(Ok(message)) => {
                    next = message.offset() + 1;
                    let address = message.key().and_then(|key| std::str::from_utf8(key).ok());
                    let part = message.payload().and_then(decode);
                    if let (Some(address), Some(part)) = (address, part)
                        && self.local.is_listening(address)
                        && let Some(message) = open.take(&part)
                    {
                        self.local.send(address, message);
                    }
                }
                Some(Err(error)) => match error.rdkafka_error_code() {
                    // The topic was made anew, or read too late.
                    Some(RDKafkaErrorCode::AutoOffsetReset) | None => return Err(error),
                    // librdkafka tries again.
                    Some(_) => {}
                },
            }
            match watch.wants() {
                Wants::Nothing => {}
                // A server that does not answer is not the consumer's trouble.
                Wants::Tail => {
                    let found = consumer.fetch_watermarks(&self.topic, 0, QUESTION_LIMIT);
                    watch.told(found.is_ok_and(|(_, end)| end > next));
                }
                Wants::Another => {
                    tracing::warn!(topic = self.topic, next, "mail is there and does not come: a new consumer goes on");
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(id: u128, at: u32, count: u32, bytes: &[u8]) -> Part<'_> {
        Part { id, at, count, bytes }
    }

    #[test]
    fn parts_in_any_order_become_the_message() {
        let mut open = Open::default();
        assert!(open.take(&part(1, 1, 2, b"b")).is_none());
        assert!(open.take(&part(2, 0, 2, b"x")).is_none());
        assert!(open.take(&part(1, 1, 2, b"b")).is_none(), "doubled");
        assert_eq!(open.take(&part(1, 0, 2, b"a")), Some(Bytes::from_static(b"ab")));
        assert_eq!(open.bytes, 1);
    }

    #[test]
    fn what_waits_for_parts_is_bounded() {
        let mut open = Open::default();
        for id in 0..1_000 {
            assert!(open.take(&part(id, 0, 2, b"a")).is_none());
        }
        assert!(open.messages.len() <= OPEN_LIMIT_MESSAGES && open.bytes <= OPEN_LIMIT_MESSAGES);
    }

    #[test]
    fn a_part_survives_the_wire_and_nonsense_is_no_part() {
        let payload = encode(&part(7, 1, 3, b"abc"));
        let got = decode(&payload).unwrap();
        assert_eq!((got.id, got.at, got.count, got.bytes), (7, 1, 3, &b"abc"[..]));
        assert!(decode(b"short").is_none());
        assert!(decode(&encode(&part(7, 3, 3, b""))).is_none());
        assert!(decode(&encode(&part(7, 0, u32::MAX, b""))).is_none());
    }
}
