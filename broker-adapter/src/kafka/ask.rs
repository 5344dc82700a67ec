//! The thread of a log's handle that may block: it asks the partition's leader where the log begins and ends.
//!
//! One answer is for all that asked before it was sent for. An answer also says that the leader can be reached, which
//! releases the appends that were held back; see [`super::lane`].

use std::io;
use std::sync::{Arc, mpsc};
use std::time::Duration;

use rdkafka::producer::Producer as _;
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::shell::real;

use super::lane::Lane;

/// How long the leader may take; others wait meanwhile.
const ANSWER_LIMIT: Duration = Duration::from_secs(1);
/// Between two tries while appends are held back.
const LOOK_AGAIN: Duration = Duration::from_millis(10);
/// How long what was called goes on being sent after its handle is gone.
const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// Where a log begins and ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// The oldest record; one more than `tail` if there is none.
    pub first: Position,
    pub tail: Position,
}

pub enum Question {
    Extent(oneshot::Sender<Result<Extent, String>>),
    /// Only whether the leader can be reached.
    Look,
    /// The handle is gone.
    End,
}

/// Starts the thread; it ends when the handle says so.
pub fn start(lane: Arc<Lane>, questions: mpsc::Receiver<Question>) -> io::Result<()> {
    real::start_thread("kafka-ask", move || run(&lane, &questions)).map(drop)
}

fn run(lane: &Arc<Lane>, questions: &mpsc::Receiver<Question>) {
    let mut ended = false;
    loop {
        let mut waiting = Vec::new();
        let mut take = |question: Question| match question {
            Question::Extent(answer) => waiting.push(answer),
            Question::Look => {}
            Question::End => ended = true,
        };
        if lane.is_held() {
            if let Ok(first) = questions.recv_timeout(LOOK_AGAIN) {
                take(first);
            }
        } else {
            match questions.recv() {
                Ok(first) => take(first),
                Err(mpsc::RecvError) => return,
            }
        }
        questions.try_iter().for_each(&mut take);
        let answer = extent(lane);
        match &answer {
            Ok(_) => lane.release(),
            Err(reason) => lane.expire(reason),
        }
        for asked in waiting {
            // Nobody may wait any more.
            let _ = asked.send(answer.clone());
        }
        if ended {
            return lane.finish(FINISH_LIMIT);
        }
    }
}

fn extent(lane: &Arc<Lane>) -> Result<Extent, String> {
    let tell = |error| lane.target.tell(&error);
    let producer = lane.producer().map_err(tell)?;
    let (low, high) =
        producer.client().fetch_watermarks(&lane.place.topic, lane.place.partition, ANSWER_LIMIT).map_err(tell)?;
    let number = |offset: i64| u64::try_from(offset).map_err(|_| format!("the leader answered the offset {offset}"));
    Ok(Extent { first: Position(number(low)?).next(), tail: Position(number(high)?) })
}
