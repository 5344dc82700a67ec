//! Appends in the order of the calls, through an idempotent producer that is replaced when it fails for good.
//!
//! ```text
//! append ─▶ producer ──▶ leader, acks=all ──▶ delivered at an offset ──▶ position
//!    │         │ fatal error: in flight is Unknown, a new producer goes on behind the last confirmed record
//!    ▼         ▼
//!   held ◀── a connection broke: what is called meanwhile waits until the leader answers, a second at most, then Unreachable
//! ```
//! The thread of [`super::ask`] asks the leader, and with its answer releases what is held.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, Weak, mpsc};
use std::time::Duration;

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer as _, ProducerContext, ThreadedProducer};
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::log::AppendError;
use crate::record::Record;
use crate::shell::Shell;

use super::ask::Question;
use super::calls::{Call, Fate, Frames, Outcome, Underway, fate_of};
use super::client::{OffWorkers, Target, is_transport, log_line, tells_new_topic};
use super::topics::{FRAME_BYTES, Place};

/// How long an append waits for a connection before it is `Unreachable`.
const HELD_LIMIT: Duration = Duration::from_secs(1);

pub type Producer = ThreadedProducer<Deliveries>;

/// The way into one partition.
pub struct Lane {
    pub target: Target,
    pub place: Place,
    message_limit_bytes: usize,
    shell: Shell,
    asker: mpsc::Sender<Question>,
    state: Mutex<State>,
    underway: Arc<Underway>,
}

struct State {
    producer: Option<Arc<OffWorkers<Producer>>>,
    generation: u64,
    held: Option<VecDeque<Held>>,
    /// Room for the next call's frames.
    spare: Frames,
    ended: bool,
}

struct Held {
    since: Duration,
    call: Call,
}

impl Lane {
    pub fn new(
        target: &Target,
        place: &Place,
        message_limit_bytes: usize,
        shell: &Shell,
        asker: mpsc::Sender<Question>,
    ) -> Arc<Lane> {
        // Held until the leader has answered once: then its connection stands.
        let held = Some(VecDeque::new());
        Arc::new(Lane {
            target: target.clone(),
            place: place.clone(),
            message_limit_bytes,
            shell: shell.clone(),
            asker,
            state: Mutex::new(State { producer: None, generation: 0, held, spare: Frames::default(), ended: false }),
            underway: Arc::new(Underway::new()),
        })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }

    /// The largest frame.
    pub fn record_limit_bytes(&self) -> usize {
        self.message_limit_bytes - FRAME_BYTES
    }

    /// Puts a call of at least one record into its place in the order of the calls.
    pub fn append(self: &Arc<Self>, records: &[Record]) -> Result<oneshot::Receiver<Outcome>, AppendError> {
        let mut state = self.state();
        if let Some(reason) = self.underway.replaced.get() {
            return Err(AppendError::Damaged(reason.clone()));
        }
        let mut frames = std::mem::take(&mut state.spare);
        records.iter().for_each(|record| frames.push(record));
        let limit_bytes = self.record_limit_bytes();
        if let Some(large) = frames.iter().find(|frame| frame.len() > limit_bytes) {
            return Err(AppendError::TooLarge { bytes: large.len() as u64, limit_bytes: limit_bytes as u64 });
        }
        self.underway.enter(&frames)?;
        let (call, outcome) = Call::new(frames);
        match &mut state.held {
            Some(waiting) => waiting.push_back(Held { since: self.shell.now(), call }),
            None => self.send(&mut state, call),
        }
        Ok(outcome)
    }

    /// Hands a call to the producer. Never blocks.
    fn send(self: &Arc<Self>, state: &mut State, call: Call) {
        let Some(producer) = state.producer.clone() else { return self.hold(state, Some(call)) };
        let (first, frames) = self.underway.begin(call);
        let (mut fatal, mut nothing_sent) = (false, false);
        for (frame, ticket) in frames.iter().zip(first..) {
            let record: BaseRecord<'_, (), [u8], usize> =
                BaseRecord::with_opaque_to(&self.place.topic, ticket).partition(self.place.partition).payload(frame);
            let Err((error, _)) = producer.send(record) else { continue };
            let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
            fatal |= code == RDKafkaErrorCode::Fatal;
            if fatal && ticket == first {
                nothing_sent = true;
                break;
            }
            // It was not taken: of this record it is certain.
            self.underway.end(ticket, Fate::Refused(AppendError::Unreachable(self.target.tell(&error))));
        }
        let again = match nothing_sent {
            true => Some(self.underway.take_back(frames)),
            false => {
                state.spare = frames.emptied();
                None
            }
        };
        if fatal {
            state.producer = None;
            self.hold(state, again);
        }
    }

    fn hold(&self, state: &mut State, call: Option<Call>) {
        let held = call.map(|call| Held { since: self.shell.now(), call });
        state.held.get_or_insert_default().extend(held);
        // The asker ends with the handle.
        let _ = self.asker.send(Question::Look);
    }

    /// A connection broke, or the producer is beyond help.
    fn doubt(&self, generation: u64, fatal: bool) {
        let mut state = self.state();
        if state.generation != generation {
            return;
        }
        if fatal {
            state.producer = None;
        }
        self.hold(&mut state, None);
    }

    /// The log is not the one that was opened.
    fn replace(&self, reason: String) {
        tracing::error!(topic = self.place.topic, reason, "nothing more is appended");
        // The first reason stays.
        let _ = self.underway.replaced.set(reason);
    }

    pub fn is_held(&self) -> bool {
        self.state().held.is_some()
    }

    /// The producer, a new one if the last failed for good. Blocks.
    pub fn producer(self: &Arc<Self>) -> Result<Arc<OffWorkers<Producer>>, KafkaError> {
        let mut state = self.state();
        if let Some(producer) = &state.producer {
            return Ok(producer.clone());
        }
        state.generation += 1;
        let deliveries = Deliveries {
            lane: Arc::downgrade(self),
            underway: self.underway.clone(),
            generation: state.generation,
            last_offset: AtomicI64::new(self.underway.confirmed.load(Ordering::Relaxed)),
            last_ticket: AtomicUsize::new(0),
        };
        let config = self.target.producer(self.message_limit_bytes);
        let producer = Arc::new(OffWorkers::new(config.create_with_context::<_, Producer>(deliveries)?));
        if state.generation > 1 {
            tracing::warn!(
                topic = self.place.topic,
                confirmed = self.underway.confirmed.load(Ordering::Relaxed) + 1,
                "a new producer goes on"
            );
        }
        state.producer = Some(producer.clone());
        Ok(producer)
    }

    /// The leader answered: what was held goes out, in order.
    pub fn release(self: &Arc<Self>) {
        let mut state = self.state();
        for held in state.held.take().into_iter().flatten() {
            match &mut state.held {
                // The producer failed in between.
                Some(waiting) => waiting.push_back(held),
                None => self.send(&mut state, held.call),
            }
        }
    }

    /// The leader did not answer: what was held too long certainly was not sent.
    pub fn expire(&self, reason: &str) {
        let now = self.shell.now();
        let mut state = self.state();
        let ended = state.ended;
        let Some(held) = &mut state.held else { return };
        while held.front().is_some_and(|first| ended || first.since + HELD_LIMIT <= now) {
            let Some(first) = held.pop_front() else { break };
            self.underway.refuse(first.call, AppendError::Unreachable(reason.to_owned()));
        }
    }

    /// The handle is gone; what was called is still sent. Blocks.
    pub fn finish(&self, limit: Duration) {
        let producer = {
            let mut state = self.state();
            state.ended = true;
            state.producer.take()
        };
        if let Some(producer) = producer
            && let Err(error) = producer.flush(limit)
        {
            tracing::debug!(%error, topic = self.place.topic, "not all appends were confirmed");
        }
        self.expire("the log's handle is gone");
    }
}

/// Takes the delivery reports of one producer, on its own thread.
pub struct Deliveries {
    lane: Weak<Lane>,
    underway: Arc<Underway>,
    generation: u64,
    /// The offset of the last record that it confirmed; at first that of the producers before.
    last_offset: AtomicI64,
    last_ticket: AtomicUsize,
}

impl ClientContext for Deliveries {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, line: &str) {
        if tells_new_topic(line)
            && let Some(lane) = self.lane.upgrade()
        {
            lane.replace(format!("the topic {} was deleted and made anew", lane.place.topic));
        }
        log_line(facility, line);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        let Some(lane) = self.lane.upgrade() else { return };
        let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
        let fatal = code == RDKafkaErrorCode::Fatal;
        match fatal {
            true => tracing::warn!(topic = lane.place.topic, reason, "the producer failed for good"),
            false => tracing::debug!(topic = lane.place.topic, %error, reason, "kafka"),
        }
        if fatal || is_transport(code) {
            lane.doubt(self.generation, fatal);
        }
    }
}

impl ProducerContext for Deliveries {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, ticket: usize) {
        let fate = match result {
            Ok(message) => self.landed(message.offset(), ticket),
            Err((error, message)) => {
                let lane = self.lane.upgrade();
                let limit = lane.as_ref().map_or(0, |lane| lane.record_limit_bytes());
                let code = error.rdkafka_error_code().unwrap_or(RDKafkaErrorCode::Fail);
                // Longer than any outage that it waits out: another producer may get through where this one stands still.
                if let Some(lane) = lane.filter(|_| code == RDKafkaErrorCode::MessageTimedOut) {
                    lane.doubt(self.generation, true);
                }
                fate_of(code, message.payload_len(), limit)
            }
        };
        self.underway.end(ticket, fate);
    }
}

impl Deliveries {
    /// One producer confirms records in the order in which it took them, at offsets that rise and lie behind everything that was
    /// confirmed before it was made.
    fn landed(&self, offset: i64, ticket: usize) -> Fate {
        if let Some(reason) = self.underway.replaced.get() {
            return Fate::Doubtful(reason.clone());
        }
        let before = self.last_offset.fetch_max(offset, Ordering::Relaxed);
        let in_order = self.last_ticket.fetch_max(ticket, Ordering::Relaxed) < ticket;
        if offset > before && in_order {
            self.underway.confirmed.fetch_max(offset, Ordering::Relaxed);
            return Fate::Landed(position(offset));
        }
        let reason = match in_order {
            true => format!(
                "a record was appended at {} though {} was confirmed before: the topic was made anew or rewound",
                position(offset),
                position(before)
            ),
            false => format!("the record at {} was confirmed behind one that was sent later", position(offset)),
        };
        if let Some(lane) = self.lane.upgrade() {
            lane.replace(reason.clone());
        }
        Fate::Doubtful(reason)
    }
}

/// Kafka counts from 0, we from 1.
pub fn position(offset: i64) -> Position {
    Position(u64::try_from(offset).unwrap_or(0) + 1)
}

/// The offset of a position from 1 on.
pub fn offset(position: Position) -> i64 {
    i64::try_from(position.0 - 1).expect("no log has that many records")
}
