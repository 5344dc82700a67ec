//! One call of `append`: its records are delivered one by one, and its caller is told once.
//!
//! What the caller hears is exact: refused only if every record was refused for certain, else unknown.

use std::sync::{Arc, Mutex};

use rdkafka::error::RDKafkaErrorCode;
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::log::AppendError;

pub type Outcome = Result<Vec<Position>, AppendError>;

/// One call, shared by its records on their way.
pub struct Call {
    /// What it counts against the limits.
    pub records: usize,
    pub bytes: usize,
    state: Mutex<State>,
}

struct State {
    positions: Vec<Position>,
    left: usize,
    landed: usize,
    refused: Option<AppendError>,
    doubtful: Option<String>,
    done: Option<oneshot::Sender<Outcome>>,
}

/// One record on its way.
pub struct Piece {
    pub call: Arc<Call>,
    pub at: usize,
    pub bytes: usize,
}

/// What became of a record.
pub enum Fate {
    Landed(Position),
    /// It certainly is not and will not be there.
    Refused(AppendError),
    Doubtful(String),
}

impl Call {
    /// Of at least one record.
    pub fn new(records: usize, bytes: usize) -> (Arc<Call>, oneshot::Receiver<Outcome>) {
        let (done, outcome) = oneshot::channel();
        let state = State {
            positions: vec![Position::ZERO; records],
            left: records,
            landed: 0,
            refused: None,
            doubtful: None,
            done: Some(done),
        };
        (Arc::new(Call { records, bytes, state: Mutex::new(state) }), outcome)
    }

    /// Whether no record of it has ended.
    pub fn is_whole(&self) -> bool {
        let state = self.state.lock().expect("nothing panics under this lock");
        state.left == state.positions.len()
    }

    /// Ends a call of which nothing was sent.
    pub fn refuse(&self, error: AppendError) {
        let mut state = self.state.lock().expect("nothing panics under this lock");
        if let Some(done) = state.done.take() {
            // Nobody may wait any more.
            let _ = done.send(Err(error));
        }
    }
}

impl Piece {
    /// Whether it was the last of its call.
    pub fn end(&self, fate: Fate) -> bool {
        let mut state = self.call.state.lock().expect("nothing panics under this lock");
        match fate {
            Fate::Landed(position) => {
                state.positions[self.at] = position;
                state.landed += 1;
            }
            Fate::Refused(error) => state.refused = Some(error),
            Fate::Doubtful(reason) => state.doubtful = Some(reason),
        }
        state.left -= 1;
        if state.left > 0 {
            return false;
        }
        let outcome = match (state.doubtful.take(), state.refused.take()) {
            (None, None) => Ok(std::mem::take(&mut state.positions)),
            (None, Some(error)) if state.landed == 0 => Err(error),
            (None, Some(error)) => Err(AppendError::Unknown(format!("only a part was appended: {error}"))),
            (Some(reason), _) => Err(AppendError::Unknown(reason)),
        };
        if let Some(done) = state.done.take() {
            // Nobody may wait any more.
            let _ = done.send(outcome);
        }
        true
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

    fn piece(call: &Arc<Call>, at: usize) -> Piece {
        Piece { call: call.clone(), at, bytes: 10 }
    }

    #[test]
    fn a_call_of_which_a_part_landed_is_unknown() {
        let (call, mut outcome) = Call::new(2, 20);
        piece(&call, 0).end(Fate::Landed(Position(1)));
        assert!(outcome.try_recv().is_err(), "the second is on its way");
        piece(&call, 1).end(fate_of(RDKafkaErrorCode::MessageSizeTooLarge, 10, 5));
        assert!(matches!(outcome.try_recv(), Ok(Err(AppendError::Unknown(_)))));
    }

    #[test]
    fn a_call_is_refused_only_if_all_of_it_is() {
        let (call, mut outcome) = Call::new(2, 20);
        for at in 0..2 {
            piece(&call, at).end(fate_of(RDKafkaErrorCode::MessageSizeTooLarge, 10, 5));
        }
        assert_eq!(outcome.try_recv(), Ok(Err(AppendError::TooLarge { bytes: 10, limit_bytes: 5 })));
    }

    #[test]
    fn what_timed_out_leaves_a_doubt() {
        for code in [RDKafkaErrorCode::MessageTimedOut, RDKafkaErrorCode::PurgeQueue, RDKafkaErrorCode::Fatal] {
            assert!(matches!(fate_of(code, 1, 2), Fate::Doubtful(_)), "{code}");
        }
    }
}
