//! Gathering: the records that are ready are judged one after the other, and their messages go to the service together.
//!
//! ```text
//!  ready records ──▶ fold ──▶ message: gathered ─────────────┐
//!                     │                                      ├──▶ one delivery: alone, or as a batch
//!                     └─────▶ needs the replica at its place: ┘    (then replies, digest, rest)
//! ```
//! Nothing waits for a batch to fill: one is what became ready while the service worked on the last one. Between two turns of the
//! engine nothing is gathered, so commands, checkpoints and proofs always find state, fold and replies at one position.

use std::time::Duration;

use broker_adapter::fold::{Bug, Verdict};
use broker_adapter::ids::Position;
use broker_adapter::log::ReadError;
use broker_adapter::record::{Body, Fence, Message, Record};

use super::engine::{Engine, Life};
use super::feed::Read;
use crate::body::BodyName;
use crate::config::ServiceConfig;
use crate::service::batch;
use crate::shard::Context;

/// How many records are judged in one turn of the engine.
const TURN_RECORDS: usize = 4_096;
/// A batch shall take no longer than this: its first request waits for the last one's reply. It is also what keeps a service far
/// from `delivery_timeout`, which bounds a batch as it bounds one request.
const BATCH_TIME: Duration = Duration::from_millis(20);
/// Nor shall its replies be larger together.
const BATCH_REPLY_BYTES: u64 = 8 << 20;

/// A message that counts and is to be applied, with what its place in the log says about it.
pub(super) struct Pending {
    pub position: Position,
    pub time_ms: u64,
    /// Whether this replica gives its reply out.
    pub gives_out: bool,
    pub message: Box<Message>,
}

/// Messages on their way to the service.
#[derive(Default)]
pub(super) struct Gathered {
    messages: Vec<Pending>,
    bytes: u64,
}

impl Gathered {
    fn add(&mut self, pending: Pending) {
        self.bytes += match &pending.message.request.body {
            Body::Inline(body) => body.len() as u64,
            Body::Stored { length, .. } => *length,
        };
        self.messages.push(pending);
    }

    fn first(&self) -> Option<Position> {
        self.messages.first().map(|pending| pending.position)
    }
}

/// How many requests go together: twice as many while that is quick, half as many when it is not. A new instance begins with one, so
/// a slow service is never asked for more than it can do in time.
#[derive(Clone, Copy, Debug)]
pub(super) struct BatchSize(usize);

impl Default for BatchSize {
    fn default() -> Self {
        BatchSize(1)
    }
}

impl BatchSize {
    fn limit(self, config: &ServiceConfig) -> usize {
        if config.batch.is_some() { self.0.min(config.batch_limit_records).max(1) } else { 1 }
    }

    pub fn took(&mut self, records: usize, time: Duration, reply_bytes: u64) {
        let share = |part: u32| time * part > BATCH_TIME || reply_bytes * u64::from(part) > BATCH_REPLY_BYTES;
        if share(1) {
            self.0 = (records / 2).max(1);
        } else if !share(2) && records >= self.0 {
            self.0 = records.saturating_mul(2);
        }
    }
}

impl Engine {
    /// Up to where records may be applied now: no further record is taken behind this position.
    fn gather_limit(&self) -> Position {
        self.pause.as_ref().map_or(Position(u64::MAX), |pause| pause.at)
    }

    /// Applies a record and those behind it that are ready.
    pub(super) async fn entries(&mut self, first: Read) {
        let limit = self.gather_limit();
        let mut gathered = Gathered::default();
        let mut next = Some(Ok::<Read, ReadError>(first));
        let mut judged = 0;
        while let Some(read) = next {
            match read {
                Ok(read) => {
                    if !self.entry(read, &mut gathered).await {
                        return;
                    }
                }
                Err(error) => {
                    if self.deliver(&mut gathered).await {
                        self.unreadable(error).await;
                    }
                    return;
                }
            }
            judged += 1;
            next = if judged < TURN_RECORDS { self.next_ready(&gathered, limit) } else { None };
        }
        self.deliver(&mut gathered).await;
    }

    fn next_ready(&mut self, gathered: &Gathered, limit: Position) -> Option<Result<Read, ReadError>> {
        let Life::Active(active) = &mut self.life else { return None };
        let config = &self.context.config;
        let full = gathered.messages.len() >= active.batch.limit(config) || gathered.bytes >= config.batch_limit_bytes;
        // A digest that is due waits for what was gathered.
        let digest_due = active.fold.is_owner(&self.context.me)
            && gathered.first().is_some()
            && active.fold.position().records_since(active.digest_at) >= active.fold.settings().digest_every_records;
        if full || digest_due || active.fold.position() >= limit {
            return None;
        }
        active.feed.next_ready()
    }

    /// Judges one record: a message that is applied is gathered; what needs the replica at its very place first has the gathered
    /// ones delivered. `false`: the state is unknown now, and the record was not used.
    async fn entry(&mut self, read: Read, gathered: &mut Gathered) -> bool {
        let Read { entry, body } = read;
        let (mut alone, mut hidden) = (false, false);
        if let Record::Message(message) = &entry.record {
            hidden = self.context.hidden.has(&message.request.path);
            alone = hidden || !batch::fits(&message.request);
        }
        if (alone || needs_place(&entry.record, gathered)) && !self.deliver(gathered).await {
            return false;
        }
        self.upkeep.applied(&entry);
        let silent_below = self.silent_below;
        let Life::Active(active) = &mut self.life else { return false };
        let verdict = active.fold.observe(&entry);
        match (entry.record, verdict) {
            (Record::Message(mut message), Verdict::Apply) => {
                let position = entry.position;
                if let Some(name) = BodyName::of(&message) {
                    active.bodies.add(name, position);
                }
                if active.fold.is_skipped(position) {
                    return true;
                }
                if hidden {
                    let reply = active.answer_hidden(&message);
                    self.give_out(position, &message, &reply);
                    return true;
                }
                match body {
                    Some(Ok(body)) => message.request.body = Body::Inline(body),
                    Some(Err(error)) => {
                        self.body_lost(position, &error).await;
                        return false;
                    }
                    None => {}
                }
                let owns = active.fold.is_owner(&self.context.me) && active.fold.epoch() >= silent_below;
                let gives_out = owns && position > self.given;
                let pending = Pending { position, time_ms: active.fold.time_ms(), gives_out, message };
                gathered.add(pending);
                return !alone || self.deliver(gathered).await;
            }
            (Record::Message(message), verdict @ (Verdict::Repeat(_) | Verdict::Expired)) => {
                // The reply that it repeats may be among those to come.
                if !self.deliver(gathered).await {
                    return false;
                }
                let Life::Active(active) = &mut self.life else { return false };
                let reply = active.answer_unapplied(&message, &verdict);
                self.give_out(entry.position, &message, &reply);
            }
            (_, Verdict::Fenced(fence)) => self.fenced(&fence),
            (Record::Fence(fence), _) if obeys_void_retirement(&self.context, &fence) => self.drop_replica(),
            (Record::Mark(mark), Verdict::Noted) => self.marked(&mark).await,
            (Record::Digest(digest), Verdict::Noted) => self.compare(&digest),
            (Record::Checkpoint(checkpoint), Verdict::Noted) => self.checkpoint_counted(&checkpoint),
            (Record::Pin(pin), Verdict::Noted) => self.pin_counted(&pin),
            (Record::Settings(_), Verdict::Noted) => active.running.set(active.fold.settings()),
            _ => {}
        }
        true
    }

    /// Delivers what was gathered. `false`: the state is unknown now.
    async fn deliver(&mut self, gathered: &mut Gathered) -> bool {
        let Gathered { messages, .. } = std::mem::take(gathered);
        if !messages.is_empty() {
            let Life::Active(active) = &mut self.life else { return false };
            let began = self.context.shell.now();
            match active.deliver(&self.context, &messages).await {
                Ok(replies) => {
                    let took = self.context.shell.now() - began;
                    let bytes = replies.iter().map(|reply| reply.body.len() as u64).sum();
                    active.batch.took(messages.len(), took, bytes);
                    for (pending, reply) in messages.iter().zip(&replies) {
                        self.give_out(pending.position, &pending.message, reply);
                    }
                    self.applied_again();
                    self.rest_if_target(messages.len() as u64, took).await;
                }
                Err(error) => {
                    self.recover(&error).await;
                    return false;
                }
            }
        }
        self.digest_if_due();
        true
    }
}

/// A standby goes although its retirement does not count; never, unless that bug is planted.
fn obeys_void_retirement(context: &Context, fence: &Fence) -> bool {
    context.rules.plant(Bug::RetireWithoutFence)
        && fence.retires.as_ref() == Some(&context.me.node)
        && fence.owner != context.me
}

/// Whether what the record means depends on state, replies or settings at its place.
fn needs_place(record: &Record, gathered: &Gathered) -> bool {
    match record {
        Record::Message(_) | Record::Close(_) => false,
        // It is compared with what this replica remembers of its position.
        Record::Digest(digest) => gathered.first().is_some_and(|first| digest.position >= first),
        _ => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_grows_while_it_is_quick_and_shrinks_when_it_is_slow() {
        let mut size = BatchSize::default();
        for records in [1, 2, 4, 8] {
            assert_eq!(size.0, records);
            size.took(records, Duration::from_millis(1), 100);
        }
        size.took(3, Duration::from_millis(1), 100);
        assert_eq!(size.0, 16, "fewer were ready");
        size.took(16, Duration::from_millis(15), 100);
        assert_eq!(size.0, 16);
        size.took(16, Duration::from_millis(100), 100);
        assert_eq!(size.0, 8);
        size.took(8, Duration::from_millis(1), BATCH_REPLY_BYTES + 1);
        assert_eq!(size.0, 4);
        size.took(1, Duration::from_secs(1), 100);
        assert_eq!(size.0, 1, "a slow service gets one at a time");
    }
}
