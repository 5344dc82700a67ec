//! Calls of `append` on their way: their records are delivered one by one, and each caller is told once.
//!
//! What a caller hears is exact: refused only if every record was refused for certain, else unknown. The producer knows a record by
//! its ticket, a number; those of one lane rise in the order of the calls.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicI64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, OnceLock};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::log::AppendError;
use crate::record::{Record, wire};

/// What may be on its way or wait.
const WAITING_LIMIT_RECORDS: usize = 65_536;
const WAITING_LIMIT_BYTES: usize = 64 << 20;
/// Room for frames that is kept for the next call.
const SPARE_LIMIT_BYTES: usize = 1 << 20;

pub type Outcome = Result<Vec<Position>, AppendError>;

/// The frames of one call, one behind the other: the producer copies them anyway.
#[derive(Default)]
pub struct Frames {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl Frames {
    pub fn push(&mut self, record: &Record) {
        wire::encode_into(record, &mut self.bytes);
        self.ends.push(self.bytes.len());
    }

    pub fn len(&self) -> usize {
        self.ends.len()
    }

    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.ends.iter().copied());
        begins.zip(&self.ends).map(|(begin, &end)| &self.bytes[begin..end])
    }

    /// Its room, for other frames.
    pub fn emptied(mut self) -> Frames {
        if self.bytes.capacity() > SPARE_LIMIT_BYTES {
            return Frames::default();
        }
        self.bytes.clear();
        self.ends.clear();
        self
    }
}

/// A call that no producer has yet.
pub struct Call {
    pub frames: Frames,
    done: oneshot::Sender<Outcome>,
}

impl Call {
    pub fn new(frames: Frames) -> (Call, oneshot::Receiver<Outcome>) {
        let (done, outcome) = oneshot::channel();
        (Call { frames, done }, outcome)
    }
}

/// A producer has it.
struct Sent {
    /// The ticket of its first record.
    first: usize,
    bytes: usize,
    positions: Vec<Position>,
    left: usize,
    landed: usize,
    refused: Option<AppendError>,
    doubtful: Option<String>,
    done: oneshot::Sender<Outcome>,
}

/// What became of a record.
pub enum Fate {
    Landed(Position),
    /// It certainly is not and will not be there.
    Refused(AppendError),
    Doubtful(String),
}

/// What a lane and its producers share: the calls on their way, in the order of their tickets.
pub struct Underway {
    calls: Mutex<Calls>,
    /// Of all calls that were not told yet, sent or not.
    records: AtomicUsize,
    bytes: AtomicUsize,
    /// The highest offset that was confirmed by any producer.
    pub confirmed: AtomicI64,
    /// Why nothing more is appended here: the log is not the one it was.
    pub replaced: OnceLock<String>,
}

struct Calls {
    next_ticket: usize,
    sent: VecDeque<Sent>,
}

impl Underway {
    pub fn new() -> Underway {
        Underway {
            calls: Mutex::new(Calls { next_ticket: 1, sent: VecDeque::new() }),
            records: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            confirmed: AtomicI64::new(-1),
            replaced: OnceLock::new(),
        }
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().expect("nothing panics under this lock")
    }

    /// Takes room for a call. One that is larger than the bound passes alone. Callers come one at a time.
    pub fn enter(&self, frames: &Frames) -> Result<(), AppendError> {
        let (records, bytes) = (self.records.load(Ordering::Relaxed), self.bytes.load(Ordering::Relaxed));
        let full = records + frames.len() > WAITING_LIMIT_RECORDS || bytes + frames.bytes() > WAITING_LIMIT_BYTES;
        if records > 0 && full {
            return Err(AppendError::Overloaded(records));
        }
        self.records.fetch_add(frames.len(), Ordering::Relaxed);
        self.bytes.fetch_add(frames.bytes(), Ordering::Relaxed);
        Ok(())
    }

    fn leave(&self, records: usize, bytes: usize) {
        self.records.fetch_sub(records, Ordering::Relaxed);
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ends a call of which nothing was sent.
    pub fn refuse(&self, call: Call, error: AppendError) {
        self.leave(call.frames.len(), call.frames.bytes());
        // Nobody may wait any more.
        let _ = call.done.send(Err(error));
    }

    /// Notes a call before its records are handed over; gives its frames and the first one's ticket.
    pub fn begin(&self, call: Call) -> (usize, Frames) {
        let Call { frames, done } = call;
        let mut calls = self.calls();
        let (first, records) = (calls.next_ticket, frames.len());
        calls.next_ticket += records;
        calls.sent.push_back(Sent {
            first,
            bytes: frames.bytes(),
            positions: vec![Position::ZERO; records],
            left: records,
            landed: 0,
            refused: None,
            doubtful: None,
            done,
        });
        (first, frames)
    }

    /// Takes the call that began last back: none of its records was handed over.
    pub fn take_back(&self, frames: Frames) -> Call {
        let sent = self.calls().sent.pop_back().expect("it began");
        Call { frames, done: sent.done }
    }

    /// Ends a record, and with the last one of a call tells its caller.
    pub fn end(&self, ticket: usize, fate: Fate) {
        let ended = {
            let mut calls = self.calls();
            // Nearly always the first.
            let behind = calls.sent.iter().position(|sent| ticket < sent.first + sent.positions.len());
            let Some((at, sent)) = behind.and_then(|at| Some((at, calls.sent.get_mut(at)?))) else { return };
            match fate {
                Fate::Landed(position) => {
                    sent.positions[ticket - sent.first] = position;
                    sent.landed += 1;
                }
                Fate::Refused(error) => sent.refused = Some(error),
                Fate::Doubtful(reason) => sent.doubtful = Some(reason),
            }
            sent.left -= 1;
            if sent.left > 0 {
                return;
            }
            calls.sent.remove(at).expect("it was found there")
        };
        self.leave(ended.positions.len(), ended.bytes);
        ended.tell();
    }
}

impl Sent {
    fn tell(self) {
        let outcome = match (self.doubtful, self.refused) {
            (None, None) => Ok(self.positions),
            (None, Some(error)) if self.landed == 0 => Err(error),
            (None, Some(error)) => Err(AppendError::Unknown(format!("only a part was appended: {error}"))),
            (Some(reason), _) => Err(AppendError::Unknown(reason)),
        };
        // Nobody may wait any more.
        let _ = self.done.send(outcome);
    }
}

/// What a delivery's error says of a record. The broker's refusals come before it writes; everything else leaves a doubt.
pub fn fate_of(code: RDKafkaErrorCode, bytes: usize, limit_bytes: usize) -> Fate {
    match code {
        RDKafkaErrorCode::MessageSizeTooLarge => {
            Fate::Refused(AppendError::TooLarge { bytes: bytes as u64, limit_bytes: limit_bytes as u64 })
        }
        RDKafkaErrorCode::TopicAuthorizationFailed | RDKafkaErrorCode::ClusterAuthorizationFailed => {
            Fate::Refused(AppendError::Unreachable(format!("{code}: grant Write on the topic to this user")))
        }
        RDKafkaErrorCode::PolicyViolation => Fate::Refused(AppendError::Full(code.to_string())),
        code => Fate::Doubtful(code.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{Id128, Incarnation};
    use crate::record::Mark;

    fn frames(records: usize) -> Frames {
        let mark = Record::Mark(Mark { id: Id128(1), asker: Incarnation::from_bits(2), state: false });
        let mut frames = Frames::default();
        (0..records).for_each(|_| frames.push(&mark));
        frames
    }

    fn begin(underway: &Underway, records: usize) -> (usize, oneshot::Receiver<Outcome>) {
        let (call, outcome) = Call::new(frames(records));
        underway.enter(&call.frames).unwrap();
        (underway.begin(call).0, outcome)
    }

    #[test]
    fn a_call_of_which_a_part_landed_is_unknown() {
        let underway = Underway::new();
        let (first, mut outcome) = begin(&underway, 2);
        underway.end(first, Fate::Landed(Position(1)));
        assert!(outcome.try_recv().is_err(), "the second is on its way");
        underway.end(first + 1, fate_of(RDKafkaErrorCode::MessageSizeTooLarge, 10, 5));
        assert!(matches!(outcome.try_recv(), Ok(Err(AppendError::Unknown(_)))));
    }

    #[test]
    fn a_call_is_refused_only_if_all_of_it_is() {
        let underway = Underway::new();
        let (first, mut outcome) = begin(&underway, 2);
        for ticket in first..first + 2 {
            underway.end(ticket, fate_of(RDKafkaErrorCode::MessageSizeTooLarge, 10, 5));
        }
        assert_eq!(outcome.try_recv(), Ok(Err(AppendError::TooLarge { bytes: 10, limit_bytes: 5 })));
    }

    #[test]
    fn records_end_in_any_order_and_their_calls_with_them() {
        let underway = Underway::new();
        let (first, mut one) = begin(&underway, 2);
        let (second, mut two) = begin(&underway, 1);
        underway.end(second, Fate::Landed(Position(3)));
        assert_eq!(two.try_recv(), Ok(Ok(vec![Position(3)])));
        underway.end(first + 1, Fate::Landed(Position(2)));
        underway.end(first, Fate::Landed(Position(1)));
        assert_eq!(one.try_recv(), Ok(Ok(vec![Position(1), Position(2)])));
        // What was told is forgotten, and its room is free.
        underway.end(first, Fate::Doubtful("twice".to_owned()));
        assert_eq!(underway.records.load(Ordering::Relaxed) + underway.bytes.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn more_than_may_wait_is_refused_and_a_large_call_passes_alone() {
        let underway = Underway::new();
        let large = frames(WAITING_LIMIT_RECORDS + 1);
        assert_eq!(underway.enter(&large), Ok(()));
        assert_eq!(underway.enter(&frames(1)), Err(AppendError::Overloaded(WAITING_LIMIT_RECORDS + 1)));
        underway.leave(large.len(), large.bytes());
        assert_eq!(underway.enter(&frames(1)), Ok(()));
    }

    #[test]
    fn a_call_that_was_taken_back_begins_again() {
        let underway = Underway::new();
        let (call, mut outcome) = Call::new(frames(1));
        let (_, frames) = underway.begin(call);
        let (ticket, _) = underway.begin(underway.take_back(frames));
        underway.end(ticket, Fate::Landed(Position(7)));
        assert_eq!(outcome.try_recv(), Ok(Ok(vec![Position(7)])));
    }

    #[test]
    fn what_timed_out_leaves_a_doubt() {
        for code in [RDKafkaErrorCode::MessageTimedOut, RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::Fatal] {
            assert!(matches!(fate_of(code, 1, 2), Fate::Doubtful(_)), "{code}");
        }
    }
}
