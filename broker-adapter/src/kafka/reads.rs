//! Reading: a consumer on a thread of its own for each stream, assigned at an offset, in no group.
//!
//! The thread checks that every record is the one behind the last, decodes it, and hands over in batches. It never blocks a
//! worker, and the consumer ends where it began. Where a connection broke, the last record is read and compared again before
//! anything behind it is given out: the log may have been rewound or made anew meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::{self, BoxStream};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::ids::Position;
use crate::log::ReadError;
use crate::record::{Entry, wire};
use crate::shell::real;

use super::client::{QUESTION_LIMIT, Target, is_transport, log_line, tells_new_topic};
use super::lane::{offset, position};
use super::topics::Place;

/// How long the thread waits before it looks whether anybody still reads.
const POLL_LIMIT: Duration = Duration::from_millis(100);
/// One batch, and how many may wait.
const BATCH_LIMIT_RECORDS: usize = 256;
const BATCH_LIMIT_BYTES: usize = 1 << 20;
const BATCHES_AHEAD: usize = 4;
/// What librdkafka may hold for one stream.
const AHEAD_KBYTES: usize = 16 << 10;
/// For so long a new leader may know less than the old one acknowledged; asked again this often.
const LEADER_LIMIT_TRIES: u32 = 50;
const LEADER_RETRY: Duration = Duration::from_millis(100);

type Item = Result<Vec<Entry>, ReadError>;

/// Lines of librdkafka to our log, but for the one that must be heard.
#[derive(Default)]
pub struct Events {
    new_topic: AtomicBool,
}

impl Events {
    /// Whether the topic was made anew since this was asked.
    pub fn take_new_topic(&self) -> bool {
        self.new_topic.load(Ordering::Relaxed) && self.new_topic.swap(false, Ordering::Relaxed)
    }
}

impl ClientContext for Events {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        if tells_new_topic(line) {
            self.new_topic.store(true, Ordering::Relaxed);
        }
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(%error, reason, "kafka");
    }
}

impl ConsumerContext for Events {}

/// Entries from `from` on; the stream ends behind an error.
pub fn entries(
    target: &Target,
    place: &Place,
    replicas: usize,
    from: Position,
) -> BoxStream<'static, Result<Entry, ReadError>> {
    let (sender, batches) = mpsc::channel(BATCHES_AHEAD);
    let (target, place, failed) = (target.clone(), place.clone(), sender.clone());
    let started = real::start_thread("kafka-read", move || {
        let result = Reading::start(&target, &place, replicas, from, sender.clone()).and_then(|mut reading| {
            let result = reading.follow();
            // What was read before the error comes first.
            if result.is_err() {
                reading.hand_over();
            }
            result
        });
        if let Err(error) = result {
            // Nobody may read any more.
            let _ = sender.blocking_send(Err(error));
        }
    });
    if let Err(error) = started {
        // The channel is empty.
        let _ = failed.try_send(Err(ReadError::Unreachable(format!("no thread is left: {error}"))));
    }
    drop(failed);
    stream::unfold(batches, |mut batches| async move {
        let batch: Vec<Result<Entry, ReadError>> = match batches.recv().await? {
            Ok(entries) => entries.into_iter().map(Ok).collect(),
            Err(error) => vec![Err(error)],
        };
        Some((stream::iter(batch), batches))
    })
    .flatten()
    .boxed()
}

struct Reading<'a> {
    target: &'a Target,
    place: &'a Place,
    replicas: usize,
    consumer: BaseConsumer<Events>,
    sender: mpsc::Sender<Item>,
    next: Position,
    /// The last record's checksum.
    last_crc: Option<u32>,
    /// Whether the next record must be the last one again.
    comparing: bool,
    batch: Vec<Entry>,
    batch_bytes: usize,
}

impl<'a> Reading<'a> {
    fn start(
        target: &'a Target,
        place: &'a Place,
        replicas: usize,
        from: Position,
        sender: mpsc::Sender<Item>,
    ) -> Result<Reading<'a>, ReadError> {
        let consumer = target.consumer(AHEAD_KBYTES).create_with_context(Events::default());
        let consumer = consumer.map_err(|error| ReadError::Unreachable(target.tell(&error)))?;
        let (batch, batch_bytes) = (Vec::new(), 0);
        let reading = Reading {
            target,
            place,
            replicas,
            consumer,
            sender,
            next: from,
            last_crc: None,
            comparing: false,
            batch,
            batch_bytes,
        };
        reading.check_range(from)?;
        reading.assign(from)?;
        Ok(reading)
    }

    /// Ends well when nobody reads any more.
    fn follow(&mut self) -> Result<(), ReadError> {
        loop {
            let wait = if self.batch.is_empty() { POLL_LIMIT } else { Duration::ZERO };
            let event = self.consumer.poll(wait);
            if self.consumer.context().take_new_topic() {
                tracing::warn!(topic = self.place.topic, "the topic was made anew: the last record is compared");
                self.compare_again()?;
                continue;
            }
            let goes_on = match event {
                Some(Ok(message)) => {
                    let entry = decode(&message);
                    drop(message);
                    self.take(entry)?
                }
                Some(Err(error)) => {
                    self.event(&error)?;
                    true
                }
                None if self.batch.is_empty() => !self.sender.is_closed(),
                None => self.hand_over(),
            };
            if !goes_on {
                return Ok(());
            }
        }
    }

    /// Whether anybody still reads.
    fn take(&mut self, Found { position: found, bytes, entry }: Found) -> Result<bool, ReadError> {
        let expected = if self.comparing { Position(self.next.0 - 1) } else { self.next };
        if found != expected {
            return Err(ReadError::Gap { expected, found });
        }
        let entry = entry?;
        if std::mem::take(&mut self.comparing) {
            let known = self.last_crc.expect("something was read before it is compared");
            return match entry.crc == known {
                true => Ok(true),
                false => Err(ReadError::Different { position: found, expected: known, found: entry.crc }),
            };
        }
        self.next = found.next();
        self.last_crc = Some(entry.crc);
        self.batch_bytes += bytes;
        self.batch.push(entry);
        let full = self.batch.len() >= BATCH_LIMIT_RECORDS || self.batch_bytes >= BATCH_LIMIT_BYTES;
        Ok(!full || self.hand_over())
    }

    /// Whether anybody still reads.
    fn hand_over(&mut self) -> bool {
        self.batch_bytes = 0;
        let batch = std::mem::take(&mut self.batch);
        batch.is_empty() || self.sender.blocking_send(Ok(batch)).is_ok()
    }

    fn event(&mut self, error: &KafkaError) -> Result<(), ReadError> {
        let unreachable = || Err(ReadError::Unreachable(self.target.tell(error)));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => unreachable(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.check_range(self.next)?;
                unreachable()
            }
            // A group is asked for by librdkafka; we have none.
            Some(
                RDKafkaErrorCode::CoordinatorNotAvailable
                | RDKafkaErrorCode::CoordinatorLoadInProgress
                | RDKafkaErrorCode::NotCoordinator
                | RDKafkaErrorCode::GroupAuthorizationFailed,
            ) => Ok(()),
            Some(code) if is_transport(code) || code == RDKafkaErrorCode::LogTruncation => self.compare_again(),
            _ => unreachable(),
        }
    }

    /// A connection broke, perhaps this log's: the last record must still be the same.
    fn compare_again(&mut self) -> Result<(), ReadError> {
        if self.last_crc.is_none() || self.comparing {
            return Ok(());
        }
        let last = Position(self.next.0 - 1);
        self.check_range(last)?;
        self.comparing = true;
        self.assign(last)
    }

    fn assign(&self, at: Position) -> Result<(), ReadError> {
        let failed = |error: KafkaError| ReadError::Unreachable(self.target.tell(&error));
        let mut places = TopicPartitionList::new();
        places
            .add_partition_offset(&self.place.topic, self.place.partition, Offset::Offset(offset(at)))
            .map_err(failed)?;
        self.consumer.assign(&places).map_err(failed)
    }

    /// Whether a position can be read, or is the next to come.
    fn check_range(&self, asked: Position) -> Result<(), ReadError> {
        let mut tries = 0;
        loop {
            let found = self.consumer.fetch_watermarks(&self.place.topic, self.place.partition, QUESTION_LIMIT);
            let (low, high) = found.map_err(|error| ReadError::Unreachable(self.target.tell(&error)))?;
            let (first, tail) = (position(low), Position(u64::try_from(high).unwrap_or(0)));
            if asked < first {
                return Err(ReadError::Trimmed { asked, first });
            }
            if asked <= tail.next() {
                return Ok(());
            }
            tries += 1;
            if self.replicas == 1 || tries > LEADER_LIMIT_TRIES {
                return Err(ReadError::BehindTail { asked, tail });
            }
            std::thread::sleep(LEADER_RETRY);
        }
    }
}

/// What came at a position.
struct Found {
    position: Position,
    bytes: usize,
    entry: Result<Entry, ReadError>,
}

fn decode(message: &BorrowedMessage<'_>) -> Found {
    let position = position(message.offset());
    let damaged = |reason: String| ReadError::Damaged { position, reason };
    let entry = || {
        let payload = message.payload().ok_or_else(|| damaged("it has no value".to_owned()))?;
        let (record, crc) = wire::decode(payload).map_err(|error| damaged(error.to_string()))?;
        let appended_ms = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        Ok(Entry { position, appended_ms, crc, record })
    };
    Found { position, bytes: message.payload_len(), entry: entry() }
}
