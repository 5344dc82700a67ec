//! Reading: a consumer on a thread of its own for each stream, assigned at an offset, in no group.
//!
//! The thread checks that every record is whole and the one behind the last, and hands over in batches. It never blocks a
//! worker, and the consumer ends where it began. Where a connection broke, the last record is read and compared again before
//! anything behind it is given out: the log may have been rewound or made anew meanwhile.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_util::stream::{BoxStream, Stream, StreamExt};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, Consumer, ConsumerContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use tokio::sync::mpsc;

use crate::ids::Position;
use crate::log::ReadError;
use crate::record::Entry;
use crate::record::wire::{self, WireError};
use crate::shell::real;

use super::client::{QUESTION_LIMIT, Target, is_transport, log_line, tells_new_topic};
use super::lane::{offset, position};
use super::topics::Place;
use super::watch::{POLL_LIMIT, Wants, Watch};

/// One batch, and how many may wait.
const BATCH_LIMIT_RECORDS: usize = 512;
const BATCH_LIMIT_BYTES: usize = 1 << 20;
const BATCHES_AHEAD: usize = 4;
/// A batch is given room for as many bytes as the one before it had, and this part more.
const ROOM_FOR_MORE: usize = 4;
/// What librdkafka may hold for one stream.
const AHEAD_KBYTES: usize = 16 << 10;
/// For so long a new leader may know less than the old one acknowledged; asked again this often.
const LEADER_LIMIT_TRIES: u32 = 50;
const LEADER_RETRY: Duration = Duration::from_millis(100);

type Item = Result<Batch, ReadError>;

/// Frames one behind the other, each checked; decoded by whoever reads, so that two threads share the work and a record is freed where
/// it was made.
struct Batch {
    first: Position,
    facts: Vec<Facts>,
    frames: Vec<u8>,
}

/// What is known of a record beside its frame.
struct Facts {
    /// Where the frame ends.
    end: usize,
    crc: u32,
    appended_ms: u64,
}

impl Batch {
    fn new(first: Position) -> Batch {
        Batch { first, facts: Vec::new(), frames: Vec::new() }
    }

    /// An empty one for as much as this one holds.
    fn successor(&self, first: Position) -> Batch {
        Batch {
            first,
            facts: Vec::with_capacity(self.facts.len()),
            frames: Vec::with_capacity(self.frames.len() + self.frames.len() / ROOM_FOR_MORE),
        }
    }

    fn is_full(&self) -> bool {
        self.facts.len() >= BATCH_LIMIT_RECORDS || self.frames.len() >= BATCH_LIMIT_BYTES
    }

    fn entry(&self, at: usize) -> Option<Result<Entry, ReadError>> {
        let Facts { end, crc, appended_ms } = *self.facts.get(at)?;
        let begin = at.checked_sub(1).map_or(0, |before| self.facts[before].end);
        let position = Position(self.first.0 + at as u64);
        let record = wire::decode_checked(&self.frames[begin..end]);
        let record = record.map_err(|error| ReadError::Damaged { position, reason: error.to_string() });
        Some(record.map(|record| Entry { position, appended_ms, crc, record }))
    }
}

/// What a caller of [`entries`] gets: it decodes.
struct Entries {
    batches: mpsc::Receiver<Item>,
    batch: Batch,
    /// How many of the batch's were given.
    given: usize,
    /// Nothing comes behind an error.
    ended: bool,
}

impl Entries {
    fn new(batches: mpsc::Receiver<Item>) -> Entries {
        Entries { batches, batch: Batch::new(Position::ZERO), given: 0, ended: false }
    }
}

impl Stream for Entries {
    type Item = Result<Entry, ReadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        while !self.ended {
            if let Some(entry) = self.batch.entry(self.given) {
                self.given += 1;
                self.ended = entry.is_err();
                return Poll::Ready(Some(entry));
            }
            match ready!(self.batches.poll_recv(context)) {
                Some(Ok(batch)) => {
                    self.batch = batch;
                    self.given = 0;
                }
                Some(Err(error)) => {
                    self.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
                None => self.ended = true,
            }
        }
        Poll::Ready(None)
    }
}

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
    Entries::new(batches).boxed()
}

struct Reading<'a> {
    target: &'a Target,
    place: &'a Place,
    replicas: usize,
    consumer: BaseConsumer<Events>,
    sender: mpsc::Sender<Item>,
    checked: Checked,
}

/// What was read, each record the one behind the last.
struct Checked {
    next: Position,
    /// The last record's checksum.
    last_crc: Option<u32>,
    /// Whether the next record must be the last one again.
    comparing: bool,
    batch: Batch,
}

impl Checked {
    /// Whether the batch is full.
    fn take(&mut self, message: &BorrowedMessage<'_>) -> Result<bool, ReadError> {
        let found = position(message.offset());
        let expected = if self.comparing { Position(self.next.0 - 1) } else { self.next };
        if found != expected {
            return Err(ReadError::Gap { expected, found });
        }
        let frame = message.payload().unwrap_or_default();
        let damaged = |error: WireError| ReadError::Damaged { position: found, reason: error.to_string() };
        let crc = wire::check(frame).map_err(damaged)?;
        if std::mem::take(&mut self.comparing) {
            let known = self.last_crc.expect("something was read before it is compared");
            return match crc == known {
                true => Ok(false),
                false => Err(ReadError::Different { position: found, expected: known, found: crc }),
            };
        }
        self.next = found.next();
        self.last_crc = Some(crc);
        let appended_ms = message.timestamp().to_millis().and_then(|ms| u64::try_from(ms).ok()).unwrap_or(0);
        self.batch.frames.extend_from_slice(frame);
        self.batch.facts.push(Facts { end: self.batch.frames.len(), crc, appended_ms });
        Ok(self.batch.is_full())
    }
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
        let checked = Checked { next: from, last_crc: None, comparing: false, batch: Batch::new(from) };
        let reading = Reading { target, place, replicas, consumer, sender, checked };
        reading.check_range(from)?;
        reading.assign(from)?;
        Ok(reading)
    }

    /// Ends well when nobody reads any more.
    fn follow(&mut self) -> Result<(), ReadError> {
        let mut watch = Watch::default();
        loop {
            let wait = if self.checked.batch.facts.is_empty() { POLL_LIMIT } else { Duration::ZERO };
            let event = self.consumer.poll(wait);
            if self.consumer.context().take_new_topic() {
                tracing::warn!(topic = self.place.topic, "the topic was made anew: the last record is compared");
                self.compare_again()?;
                continue;
            }
            watch.polled(event.is_some() || wait.is_zero());
            let goes_on = match event {
                Some(Ok(message)) => !self.checked.take(&message)? || self.hand_over(),
                Some(Err(error)) => {
                    self.event(&error)?;
                    true
                }
                None if self.checked.batch.facts.is_empty() => !self.sender.is_closed(),
                None => self.hand_over(),
            };
            if !goes_on {
                return Ok(());
            }
            match watch.wants() {
                Wants::Nothing => {}
                Wants::Tail => watch.told(self.is_more()),
                Wants::Another => {
                    let next = self.checked.next;
                    return Err(ReadError::Unreachable(format!("position {next} is there and is not delivered")));
                }
            }
        }
    }

    /// Whether the leader has what was not delivered; one that does not answer is not the reader's trouble.
    fn is_more(&self) -> bool {
        let found = self.consumer.fetch_watermarks(&self.place.topic, self.place.partition, QUESTION_LIMIT);
        found.is_ok_and(|(_, high)| u64::try_from(high).is_ok_and(|tail| Position(tail) >= self.checked.next))
    }

    /// Whether anybody still reads.
    fn hand_over(&mut self) -> bool {
        let next = self.checked.batch.successor(self.checked.next);
        let batch = std::mem::replace(&mut self.checked.batch, next);
        batch.facts.is_empty() || self.sender.blocking_send(Ok(batch)).is_ok()
    }

    fn event(&mut self, error: &KafkaError) -> Result<(), ReadError> {
        let unreachable = || Err(ReadError::Unreachable(self.target.tell(error)));
        match error.rdkafka_error_code() {
            Some(RDKafkaErrorCode::AllBrokersDown) => unreachable(),
            Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange) => {
                self.check_range(self.checked.next)?;
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
        // What was polled and not taken comes again.
        let comparing = self.checked.last_crc.is_some();
        let again = if comparing { Position(self.checked.next.0 - 1) } else { self.checked.next };
        self.check_range(again)?;
        self.checked.comparing = comparing;
        self.assign(again)
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
