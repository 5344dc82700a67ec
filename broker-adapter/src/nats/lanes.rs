//! The appends of one handle: what waits, what is in flight, and what each acknowledgement settles. Does no I/O.
//!
//! ```text
//! append ─▶ waiting ──▶ outgoing, in flight ──(all its acks, in order)──▶ done
//!              │               │ a connection breaks, an ack is late, refused in part, or out of order
//!              ▼               ▼
//!         Unreachable       Unknown, and so is everything in flight behind it: it may stand in the log without it
//! ```
//! Each record is published with a token of its own; tokens rise in the order of the calls, and so must the sequence numbers of
//! their acknowledgements.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::log::AppendError;

use super::window::Window;

/// Above this, `append` says `Overloaded`.
const HELD_LIMIT_RECORDS: usize = 65_536;
const HELD_LIMIT_BYTES: usize = 64 << 20;
/// What may be on its way: JetStream refuses what comes above 10,000 messages or 128 MiB of a stream, from all its writers.
const FLYING_LIMIT_RECORDS: usize = 2_048;
const FLYING_LIMIT_BYTES: usize = 16 << 20;

/// The result of an append.
pub type Appended = Result<Vec<Position>, AppendError>;

/// What became of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Stored at this sequence number.
    Stored(u64),
    /// Certainly not stored.
    Refused(AppendError),
    /// Nobody knows.
    Doubtful(String),
}

/// See the module.
#[derive(Default)]
pub struct Lanes {
    waiting: VecDeque<Waiting>,
    in_flight: VecDeque<InFlight>,
    /// How many records may be on their way.
    window: Window,
    /// How many are: sent, and not acknowledged.
    on_their_way: usize,
    /// Records of those in flight that async-nats did not take yet.
    outgoing: VecDeque<(u64, Bytes)>,
    next_token: u64,
    /// The last sequence number that was acknowledged to this handle.
    last: u64,
    held_records: usize,
    held_bytes: usize,
    flying_records: usize,
    flying_bytes: usize,
    /// The handle is gone.
    pub ended: bool,
    /// Why nothing is taken any more.
    refused: Option<String>,
    /// The number of breaks of the connection on which the stream was verified: only there anything is sent.
    pub verified: Option<u64>,
    /// Somebody waits for async-nats to take a record; nobody else may send meanwhile.
    pub busy: bool,
}

struct Waiting {
    frames: Vec<Bytes>,
    bytes: usize,
    since: Duration,
    done: oneshot::Sender<Appended>,
}

struct InFlight {
    first_token: u64,
    outcomes: Vec<Option<Outcome>>,
    missing: usize,
    sent: usize,
    bytes: usize,
    since: Duration,
    done: oneshot::Sender<Appended>,
}

impl Lanes {
    /// Of a handle that was opened when its connection had broken so often.
    pub fn on(breaks: u64) -> Lanes {
        Lanes { verified: Some(breaks), ..Lanes::default() }
    }

    /// Puts an append into its place in the order of the calls.
    pub fn hand_over(&mut self, frames: Vec<Bytes>, now: Duration) -> Result<oneshot::Receiver<Appended>, AppendError> {
        if let Some(reason) = &self.refused {
            return Err(AppendError::Damaged(reason.clone()));
        }
        if self.ended {
            return Err(AppendError::Unreachable("the log's handle is gone".to_owned()));
        }
        let bytes = frames.iter().map(Bytes::len).sum();
        let too_many_bytes = self.held_bytes > 0 && self.held_bytes + bytes > HELD_LIMIT_BYTES;
        let too_many_records = self.held_records > 0 && self.held_records + frames.len() > HELD_LIMIT_RECORDS;
        if too_many_records || too_many_bytes {
            return Err(AppendError::Overloaded(self.waiting.len() + self.in_flight.len()));
        }
        let (done, appended) = oneshot::channel();
        self.held_records += frames.len();
        self.held_bytes += bytes;
        self.waiting.push_back(Waiting { frames, bytes, since: now, done });
        Ok(appended)
    }

    /// Sends what may be sent, in order, until `send` does not take a record.
    pub fn pump(&mut self, now: Duration, mut send: impl FnMut(u64, &Bytes) -> bool) {
        while let Some((token, frame)) = self.next_to_send(now) {
            if !send(token, &frame) {
                return;
            }
            self.sent();
        }
    }

    /// The next record that may be sent; it stays the next until [`Lanes::sent`].
    pub fn next_to_send(&mut self, now: Duration) -> Option<(u64, Bytes)> {
        if self.window.is_narrow() && self.on_their_way > 0 {
            return None;
        }
        if self.outgoing.is_empty() {
            let next = self.waiting.front()?;
            let records = self.flying_records + next.frames.len();
            let full = records > FLYING_LIMIT_RECORDS || self.flying_bytes + next.bytes > FLYING_LIMIT_BYTES;
            if full && !self.in_flight.is_empty() {
                return None;
            }
            let Waiting { frames, bytes, done, .. } = self.waiting.pop_front()?;
            self.flying_records += frames.len();
            self.flying_bytes += bytes;
            let (first_token, missing) = (self.next_token, frames.len());
            self.next_token += frames.len() as u64;
            self.in_flight.push_back(InFlight {
                first_token,
                outcomes: vec![None; missing],
                missing,
                sent: 0,
                bytes,
                since: now,
                done,
            });
            self.outgoing.extend((first_token..).zip(frames));
            if missing == 0 {
                // Nothing to send, nothing to wait for.
                self.settle().expect("an empty append is in order");
                return self.next_to_send(now);
            }
        }
        self.outgoing.front().cloned()
    }

    /// The next record was taken; its outcome is unknown from here on.
    pub fn sent(&mut self) {
        if self.outgoing.pop_front().is_some()
            && let Some(append) = self.in_flight.back_mut()
        {
            append.sent += 1;
            self.on_their_way += 1;
        }
    }

    /// What became of a record; an error says why everything in flight is in doubt.
    pub fn acknowledged(&mut self, token: u64, outcome: Outcome, now: Duration) -> Result<(), String> {
        let at = self.in_flight.partition_point(|append| append.first_token + (append.outcomes.len() as u64) <= token);
        let Some(append) = self.in_flight.get_mut(at) else { return Ok(()) };
        // Of an append that was given up.
        let Some(index) = token.checked_sub(append.first_token) else { return Ok(()) };
        let slot = &mut append.outcomes[usize::try_from(index).expect("an append has few records")];
        if slot.is_none() {
            append.missing -= 1;
            *slot = Some(outcome);
            self.on_their_way = self.on_their_way.saturating_sub(1);
        }
        let settled = if at == 0 { self.settle() } else { Ok(()) };
        let waits = if self.waiting.is_empty() { self.on_their_way + self.outgoing.len() } else { usize::MAX };
        self.window.acknowledged(now, self.on_their_way, waits);
        settled
    }

    /// Ends the appends at the front whose records are all answered.
    fn settle(&mut self) -> Result<(), String> {
        while let Some(append) = self.in_flight.pop_front_if(|append| append.missing == 0) {
            self.let_go(append.outcomes.len(), append.bytes, true);
            let appended = judge(append.outcomes, &mut self.last);
            let doubt = match &appended {
                Err(AppendError::Unknown(reason)) => Some(reason.clone()),
                _ => None,
            };
            // Nobody may wait any more.
            let _ = append.done.send(appended);
            if let Some(reason) = doubt {
                return Err(reason);
            }
        }
        Ok(())
    }

    /// Everything in flight is in doubt.
    pub fn reset(&mut self, reason: &str) {
        self.outgoing.clear();
        self.on_their_way = 0;
        self.window.reset();
        while let Some(append) = self.in_flight.pop_front() {
            self.let_go(append.outcomes.len(), append.bytes, true);
            let error = match append.sent {
                0 => AppendError::Unreachable(reason.to_owned()),
                _ => AppendError::Unknown(reason.to_owned()),
            };
            // Nobody may wait any more.
            let _ = append.done.send(Err(error));
        }
    }

    /// Everything in flight is in doubt, and so is the stream: it is verified before anything more is sent.
    pub fn doubt(&mut self, reason: &str) {
        self.verified = None;
        self.reset(reason);
    }

    /// Ends what has waited for a connection since before `since`: nothing of it was sent.
    pub fn give_up_waiting(&mut self, since: Duration, reason: &str) {
        while let Some(waiting) = self.waiting.pop_front_if(|waiting| waiting.since <= since) {
            self.let_go(waiting.frames.len(), waiting.bytes, false);
            let _ = waiting.done.send(Err(AppendError::Unreachable(reason.to_owned())));
        }
    }

    /// Takes nothing any more.
    pub fn refuse(&mut self, reason: &str) {
        self.reset(reason);
        while let Some(waiting) = self.waiting.pop_front() {
            self.let_go(waiting.frames.len(), waiting.bytes, false);
            let _ = waiting.done.send(Err(AppendError::Damaged(reason.to_owned())));
        }
        self.refused = Some(reason.to_owned());
    }

    fn let_go(&mut self, records: usize, bytes: usize, flew: bool) {
        self.held_records -= records;
        self.held_bytes -= bytes;
        if flew {
            self.flying_records -= records;
            self.flying_bytes -= bytes;
        }
    }

    /// Since when the oldest in flight is on its way.
    pub fn oldest(&self) -> Option<Duration> {
        self.in_flight.front().map(|append| append.since)
    }

    /// Whether nothing waits and nothing is in flight.
    pub fn is_empty(&self) -> bool {
        self.waiting.is_empty() && self.in_flight.is_empty()
    }

    /// The last sequence number that was acknowledged to this handle.
    pub fn last(&self) -> u64 {
        self.last
    }
}

/// The result of an append whose records are all answered.
fn judge(outcomes: Vec<Option<Outcome>>, last: &mut u64) -> Appended {
    let mut positions = Vec::with_capacity(outcomes.len());
    let mut refused = None;
    let mut records = 0;
    for outcome in outcomes.into_iter().flatten() {
        records += 1;
        match outcome {
            Outcome::Stored(sequence) if sequence > *last => {
                *last = sequence;
                positions.push(Position(sequence));
            }
            Outcome::Stored(sequence) => {
                return Err(AppendError::Unknown(format!(
                    "the acknowledgement of {sequence} came behind that of {last}"
                )));
            }
            Outcome::Refused(error) => {
                refused.get_or_insert(error);
            }
            Outcome::Doubtful(reason) => return Err(AppendError::Unknown(reason)),
        }
    }
    match refused {
        None => Ok(positions),
        Some(error) if positions.is_empty() => Err(error),
        Some(error) => {
            Err(AppendError::Unknown(format!("{} of {records} records were appended: {error}", positions.len())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(count: usize) -> Vec<Bytes> {
        vec![Bytes::from_static(b"x"); count]
    }

    /// Three appends of two records each, all sent: their tokens are 0 to 5.
    fn three() -> (Lanes, Vec<oneshot::Receiver<Appended>>) {
        let mut lanes = Lanes::default();
        let appended = (0..3).map(|_| lanes.hand_over(frames(2), Duration::ZERO).unwrap()).collect();
        let mut tokens = Vec::new();
        lanes.pump(Duration::ZERO, |token, _| {
            tokens.push(token);
            true
        });
        assert_eq!(tokens, [0, 1, 2, 3, 4, 5]);
        (lanes, appended)
    }

    fn at(positions: &[u64]) -> Appended {
        Ok(positions.iter().copied().map(Position).collect())
    }

    #[test]
    fn appends_resolve_in_the_order_of_the_calls() {
        let (mut lanes, mut appended) = three();
        for (token, sequence) in [(2, 12), (3, 13), (0, 10)] {
            lanes.acknowledged(token, Outcome::Stored(sequence), Duration::ZERO).unwrap();
        }
        assert!(appended[1].try_recv().is_err(), "the first one is not settled");
        lanes.acknowledged(1, Outcome::Stored(11), Duration::ZERO).unwrap();
        assert_eq!(appended[0].try_recv(), Ok(at(&[10, 11])));
        assert_eq!(appended[1].try_recv(), Ok(at(&[12, 13])));
        assert!(!lanes.is_empty());
    }

    #[test]
    fn what_lands_behind_a_lost_record_is_unknown() {
        let (mut lanes, mut appended) = three();
        // The ack of token 1 never comes; those behind it do.
        for (token, sequence) in [(0, 10), (2, 11), (3, 12), (4, 13), (5, 14)] {
            lanes.acknowledged(token, Outcome::Stored(sequence), Duration::ZERO).unwrap();
        }
        lanes.reset("late");
        for appended in &mut appended {
            assert_eq!(appended.try_recv(), Ok(Err(AppendError::Unknown("late".to_owned()))));
        }
        assert!(lanes.is_empty() && lanes.held_records == 0 && lanes.flying_bytes == 0);
        lanes.acknowledged(1, Outcome::Stored(20), Duration::ZERO).unwrap();
    }

    #[test]
    fn an_ack_out_of_order_puts_everything_in_doubt() {
        let (mut lanes, mut appended) = three();
        lanes.acknowledged(0, Outcome::Stored(11), Duration::ZERO).unwrap();
        let doubt = lanes.acknowledged(1, Outcome::Stored(10), Duration::ZERO).unwrap_err();
        lanes.reset(&doubt);
        for appended in &mut appended {
            assert!(matches!(appended.try_recv(), Ok(Err(AppendError::Unknown(_)))));
        }
    }

    #[test]
    fn refused_whole_is_certain_and_refused_in_part_is_not() {
        let full = || Outcome::Refused(AppendError::Full("bytes".to_owned()));
        let (mut lanes, mut appended) = three();
        for token in [0, 1] {
            lanes.acknowledged(token, full(), Duration::ZERO).unwrap();
        }
        assert_eq!(appended[0].try_recv(), Ok(Err(AppendError::Full("bytes".to_owned()))));
        lanes.acknowledged(2, Outcome::Stored(1), Duration::ZERO).unwrap();
        assert!(lanes.acknowledged(3, full(), Duration::ZERO).is_err());
        assert!(matches!(appended[1].try_recv(), Ok(Err(AppendError::Unknown(_)))));
    }

    #[test]
    fn only_what_was_never_sent_is_unreachable() {
        let mut lanes = Lanes::default();
        let mut appended: Vec<_> = (0..3).map(|_| lanes.hand_over(frames(2), Duration::ZERO).unwrap()).collect();
        let mut room = 1;
        lanes.pump(Duration::ZERO, |_, _| {
            room -= 1;
            room >= 0
        });
        lanes.reset("broken");
        lanes.give_up_waiting(Duration::ZERO, "broken");
        assert!(matches!(appended[0].try_recv(), Ok(Err(AppendError::Unknown(_)))));
        for appended in &mut appended[1..] {
            assert!(matches!(appended.try_recv(), Ok(Err(AppendError::Unreachable(_)))));
        }
    }

    #[test]
    fn no_more_is_in_flight_than_the_server_takes() {
        let mut lanes = Lanes::default();
        let _appended: Vec<_> = (0..5).map(|_| lanes.hand_over(frames(1_000), Duration::ZERO).unwrap()).collect();
        let mut sent = 0;
        lanes.pump(Duration::ZERO, |_, _| {
            sent += 1;
            true
        });
        assert_eq!(sent, 2_000);
    }
}
