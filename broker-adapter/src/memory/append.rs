//! The way of an append through the memory broker: called, on its way, durable and visible, acknowledged.
//!
//! ```text
//!  append ──▶ waiting ──append_delay──▶ commit ──▶ acks ──ack_delay──▶ the caller's future
//!                │                        │
//!                ├─ lost: Unknown         └─ ack lost: Unknown
//!                └─ late: Unknown now, commits by itself `append_late` later
//! ```
//! Every log handle has one queue and one task that belongs to the broker, so a crashed process's records still land.
//! All decisions are in [`State::advance`], which awaits nothing; the task only waits until the next one is due.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::faults::Delay;
use super::link::{Link, LinkDice};
use super::state::{State, Stored};
use super::{MemoryBroker, WAITING_LIMIT_APPENDS};
use crate::fold::Bug;
use crate::ids::Position;
use crate::log::AppendError;
use crate::record::wire::Frame;

pub(super) type Outcome = Result<Vec<Position>, AppendError>;

/// What one log handle has in flight.
pub(super) struct Queue {
    line: Arc<str>,
    /// Not the link itself: that holds the broker, which holds this.
    dice: LinkDice,
    log: String,
    /// The handle is gone: end when nothing is left.
    pub is_closed: bool,
    pub wake: Arc<Notify>,
    waiting: VecDeque<Waiting>,
    acks: VecDeque<Ack>,
    late: Vec<Late>,
    last_due: Duration,
}

struct Waiting {
    due: Duration,
    frames: Vec<Frame>,
    caller: oneshot::Sender<Outcome>,
}

struct Ack {
    due: Duration,
    outcome: Outcome,
    caller: oneshot::Sender<Outcome>,
}

struct Late {
    due: Duration,
    frames: Vec<Frame>,
}

/// What the queue's task does next.
pub(super) enum Next {
    /// Waits until something is due or the queue changes.
    At(Duration),
    /// Waits until the queue changes.
    Changed,
    /// The handle is gone and nothing is left.
    End,
}

/// What becomes of a request that is due.
enum Fate {
    Committed { ack_arrives: bool },
    Lost,
    Late(Duration),
}

impl Queue {
    pub fn new(link: &Link, log: &str) -> Queue {
        Queue {
            line: link.line.clone(),
            dice: link.dice.clone(),
            log: log.to_owned(),
            is_closed: false,
            wake: Arc::new(Notify::new()),
            waiting: VecDeque::new(),
            acks: VecDeque::new(),
            late: Vec::new(),
            last_due: Duration::ZERO,
        }
    }

    fn next(&self, stalled_until: Duration) -> Next {
        let waiting = self.waiting.front().map(|request| request.due.max(stalled_until));
        let ack = self.acks.front().map(|ack| ack.due.max(stalled_until));
        let late = self.late.iter().map(|late| late.due).min();
        match [waiting, ack, late].into_iter().flatten().min() {
            Some(due) => Next::At(due),
            None if self.is_closed => Next::End,
            None => Next::Changed,
        }
    }
}

/// Serves one queue until its handle is gone and nothing is left.
pub(super) async fn run(broker: Arc<MemoryBroker>, id: u64, wake: Arc<Notify>) {
    loop {
        let now = (broker.shell.now(), broker.shell.wall_ms());
        let next = broker.lock().advance(id, now.0, now.1);
        match next {
            Next::End => return,
            Next::Changed => wake.notified().await,
            Next::At(due) => tokio::select! {
                biased;
                () = wake.notified() => {}
                () = broker.shell.sleep_until(due) => {}
            },
        }
    }
}

impl State {
    /// Takes a request over from its caller, in the order of the calls.
    pub fn enqueue(&mut self, id: u64, frames: Vec<Frame>, now: Duration) -> oneshot::Receiver<Outcome> {
        let (caller, outcome) = oneshot::channel();
        let faults = self.faults;
        let Some(queue) = self.queues.get_mut(&id) else { return outcome };
        if queue.waiting.len() >= WAITING_LIMIT_APPENDS {
            let _ = caller.send(Err(AppendError::Overloaded(queue.waiting.len())));
            return outcome;
        }
        let (wait, is_stalled) = queue.dice.throw(|dice| {
            let is_stalled = dice.strikes(faults.append_stall_per_mille);
            let stall = if is_stalled { dice.wait(faults.append_stall) } else { Duration::ZERO };
            (dice.wait(faults.append_delay) + stall, is_stalled)
        });
        queue.last_due = queue.last_due.max(now + wait);
        queue.waiting.push_back(Waiting { due: queue.last_due, frames, caller });
        queue.wake.notify_one();
        if is_stalled {
            self.count("append_stall_per_mille");
        }
        outcome
    }

    /// Does everything of this queue that is due.
    pub fn advance(&mut self, id: u64, now: Duration, wall_ms: u64) -> Next {
        let Some(mut queue) = self.queues.remove(&id) else { return Next::End };
        let stalled_until = self.line(&queue.line).stalled_until;
        queue.late.sort_by_key(|late| late.due);
        while queue.late.first().is_some_and(|late| late.due <= now) {
            let late = queue.late.remove(0);
            self.count("append_late_per_mille");
            // Nobody waits for it any more, so nobody hears that the log is full.
            let _ = self.commit(&queue.log, late.frames, now, wall_ms);
        }
        while queue.waiting.front().is_some_and(|request| request.due.max(stalled_until) <= now) {
            let request = queue.waiting.pop_front().expect("looked at just now");
            self.arrive(&mut queue, request, now, wall_ms);
        }
        while queue.acks.front().is_some_and(|ack| ack.due.max(stalled_until) <= now) {
            let ack = queue.acks.pop_front().expect("looked at just now");
            // A caller that waits no longer takes nothing back.
            let _ = ack.caller.send(ack.outcome);
        }
        let next = queue.next(stalled_until);
        if !matches!(next, Next::End) {
            self.queues.insert(id, queue);
        }
        next
    }

    fn arrive(&mut self, queue: &mut Queue, request: Waiting, now: Duration, wall_ms: u64) {
        let faults = self.faults;
        let late = self.asked_to_be_late(queue);
        let (fate, ack_delay) = queue.dice.throw(|dice| {
            let fate = if let Some(by) = late {
                Fate::Late(dice.wait(by))
            } else if dice.strikes(faults.append_lost_per_mille) {
                Fate::Lost
            } else if dice.strikes(faults.append_late_per_mille) {
                Fate::Late(dice.wait(faults.append_late))
            } else {
                Fate::Committed { ack_arrives: !dice.strikes(faults.ack_lost_per_mille) }
            };
            (fate, dice.wait(faults.ack_delay))
        });
        let outcome = match fate {
            Fate::Lost => {
                self.count("append_lost_per_mille");
                unknown("the request or its answer was lost")
            }
            Fate::Late(later) => {
                queue.late.push(Late { due: now + later, frames: request.frames });
                unknown("the connection broke")
            }
            Fate::Committed { ack_arrives } => {
                let outcome = self.commit(&queue.log, request.frames, now, wall_ms);
                if ack_arrives || outcome.is_err() {
                    outcome
                } else {
                    self.count("ack_lost_per_mille");
                    unknown("the request or its answer was lost")
                }
            }
        };
        let due = queue.acks.back().map_or(Duration::ZERO, |ack| ack.due).max(now + ack_delay);
        queue.acks.push_back(Ack { due, outcome, caller: request.caller });
    }

    fn asked_to_be_late(&mut self, queue: &Queue) -> Option<Delay> {
        let late = self.line(&queue.line).late.as_mut().filter(|late| late.log == queue.log && late.left > 0)?;
        late.left -= 1;
        let by = late.by;
        self.count("late_appends");
        Some(by)
    }

    fn commit(&mut self, log: &str, frames: Vec<Frame>, visible_at: Duration, wall_ms: u64) -> Outcome {
        let limit = self.log_limit_records;
        let appended_ms = wall_ms.saturating_add_signed(self.clock_shift_ms);
        let log = self.log(log);
        if log.kept_records() + frames.len() as u64 > limit {
            return Err(AppendError::Full(format!("it holds {} of {limit} records", log.kept_records())));
        }
        let first = log.tail().next();
        log.records.extend(frames.into_iter().map(|frame| Stored { frame, appended_ms, visible_at }));
        log.changed.notify_waiters();
        Ok((first.0..=log.tail().0).map(Position).collect())
    }

    /// What a crash of the broker does to everything in flight: all callers hear `Unknown`; of what was not durable
    /// yet, some is appended, in order, and some is not.
    pub fn crash_queues(&mut self, now: Duration, wall_ms: u64) {
        let mut queues = std::mem::take(&mut self.queues);
        if self.rules.plant(Bug::VisibleBeforeDurable) {
            self.forget_unacknowledged(&queues);
        }
        for queue in queues.values_mut() {
            let callers = queue.acks.drain(..).map(|ack| ack.caller).collect::<Vec<_>>();
            let late = queue.late.drain(..).map(|late| (late.frames, None));
            let waiting = queue.waiting.drain(..).map(|request| (request.frames, Some(request.caller)));
            for (frames, caller) in late.chain(waiting).collect::<Vec<_>>() {
                if self.dice.strikes(500) {
                    let _ = self.commit(&queue.log, frames, now, wall_ms);
                }
                caller.map(|caller| caller.send(unknown("the broker went down")));
            }
            for caller in callers {
                let _ = caller.send(unknown("the broker went down"));
            }
            queue.last_due = now;
            queue.wake.notify_one();
        }
        self.queues = queues;
    }

    /// A planted bug: what is shown and not acknowledged yet was not durable, and does not survive a crash.
    fn forget_unacknowledged(&mut self, queues: &BTreeMap<u64, Queue>) {
        let mut forgotten = BTreeSet::new();
        for queue in queues.values() {
            let shown = queue.acks.iter().filter_map(|ack| ack.outcome.as_ref().ok()).flatten();
            forgotten.extend(shown.map(|position| (queue.log.clone(), *position)));
        }
        while let Some((name, position)) = forgotten.pop_last() {
            let log = self.log(&name);
            if log.tail() == position {
                log.records.pop();
            }
        }
    }

    /// What cutting a line off does to what it has in flight: all its callers hear `Unknown`; of what had not arrived
    /// yet, some arrives all the same when it is due, and some never.
    pub fn cut_queues(&mut self, line: &str) {
        for queue in self.queues.values_mut().filter(|queue| *queue.line == *line) {
            for ack in queue.acks.drain(..) {
                let _ = ack.caller.send(unknown("the line was cut off"));
            }
            for request in queue.waiting.drain(..) {
                if self.dice.strikes(500) {
                    queue.late.push(Late { due: request.due, frames: request.frames });
                }
                let _ = request.caller.send(unknown("the line was cut off"));
            }
            queue.wake.notify_one();
        }
    }
}

fn unknown(reason: &str) -> Outcome {
    Err(AppendError::Unknown(reason.to_owned()))
}
