//! The ingress's one task: it numbers messages, appends them, reads them back, and hands replies to clients.
//!
//! *Confirmed* means read back and counted. After an unknown outcome everything behind the last confirmed message is sent again,
//! in order; the fold counts each once. A session that the fold does not know any more is given up: the next one's first record
//! closes it, is read back, and only what did not count is sent again, keeping its first key (design section 3).

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use broker_adapter::fold::{Bug, Fold, Verdict, Void};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{MessageName, Position, Sequence, Session};
use broker_adapter::log::AppendError;
use broker_adapter::record::{Close, Entry, Key, Message, Record};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::waiting::{self, Waiting};
use super::{Answer, Submission};
use crate::catch_up::CatchUp;
use crate::command::ReplyMail;
use crate::replica::ReplicaInput;
use crate::shard::{Context, TailView};

const TICK: Duration = Duration::from_millis(20);
/// How many appends may be under way at once.
const PIPELINED_APPENDS: usize = 32;
/// How many messages, and about how many bytes, go into one append.
const APPEND_MESSAGES: usize = 256;
const APPEND_BYTES: usize = 1 << 20;
const RESEND_WAIT_FIRST: Duration = Duration::from_millis(20);
const RESEND_WAIT_MAX: Duration = Duration::from_secs(1);
/// A close that was not read back for so long is sent again.
const CLOSE_AGAIN: Duration = Duration::from_secs(1);
/// What was acknowledged and still not read back for so long is sent again: it costs nothing but a void record.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// The ingress of one shard.
pub struct Ingress {
    pub(super) context: Context,
    submissions: mpsc::Receiver<Submission>,
    replies: mpsc::Receiver<ReplyMail>,
    pub(super) replica: mpsc::Sender<ReplicaInput>,
    tail: watch::Sender<TailView>,
    pub(super) fold: Fold,
    session: Session,
    next: Sequence,
    /// The session is being given up.
    closing: Option<Closing>,
    /// Appended, or perhaps not, and not read back: in order.
    unconfirmed: VecDeque<Message>,
    pub(super) waiting: BTreeMap<MessageName, Waiting>,
    /// Not appended yet.
    pub(super) parked: VecDeque<Parked>,
    in_flight: FuturesUnordered<BoxFuture<'static, (Session, AppendResult)>>,
    resend: Option<Duration>,
    resend_wait: Duration,
    /// Whether the oldest unanswered message lies less than R/2 counts back.
    window_open: bool,
    pub(super) moved_at: Duration,
    /// When a message of this ingress was appended or read back last.
    progress_at: Duration,
    next_tick: Duration,
}

type AppendResult = Result<Vec<Position>, AppendError>;

struct Closing {
    close: Close,
    sent: Duration,
}

pub(super) struct Parked {
    pub submission: Submission,
    pub deadline: Duration,
}

/// The channels of an ingress.
pub struct Channels {
    /// From the HTTP server.
    pub submissions: mpsc::Receiver<Submission>,
    /// From this node's replica and from the mailbox.
    pub replies: mpsc::Receiver<ReplyMail>,
    /// To this node's replica.
    pub replica: mpsc::Sender<ReplicaInput>,
    /// What everybody else sees of the tail.
    pub tail: watch::Sender<TailView>,
}

enum Turn {
    Reply(ReplyMail),
    Entry(Result<Entry, broker_adapter::log::ReadError>),
    Appended(Session, AppendResult),
    Submission(Submission),
    Tick,
}

/// Runs until the process ends.
pub async fn run(context: Context, channels: Channels) {
    let (fold, mut follower) = match CatchUp::of(&context).run().await {
        Ok(found) => found,
        Err(error) => return refuse_all(&context, channels, error.to_string()).await,
    };
    let session = Session(context.shell.random());
    let mut ingress = Ingress {
        submissions: channels.submissions,
        replies: channels.replies,
        replica: channels.replica,
        tail: channels.tail,
        fold,
        session,
        next: Sequence::FIRST,
        closing: None,
        unconfirmed: VecDeque::new(),
        waiting: BTreeMap::new(),
        parked: VecDeque::new(),
        in_flight: FuturesUnordered::new(),
        resend: None,
        resend_wait: RESEND_WAIT_FIRST,
        window_open: true,
        moved_at: Duration::ZERO,
        progress_at: context.shell.now(),
        next_tick: context.shell.now(),
        context,
    };
    ingress.show_all();
    loop {
        match ingress.turn(&mut follower).await {
            Turn::Reply(reply) => ingress.reply(reply),
            Turn::Entry(Ok(entry)) => ingress.read(&entry),
            Turn::Entry(Err(error)) => {
                // No reply can be waited for any more: everybody is told now what they would be told at their deadline.
                ingress.expire(Duration::MAX);
                let Ingress { context, submissions, replies, replica, tail, .. } = ingress;
                let channels = Channels { submissions, replies, replica, tail };
                return refuse_all(&context, channels, error.to_string()).await;
            }
            Turn::Appended(session, result) => ingress.appended(session, result),
            Turn::Submission(submission) => ingress.park(submission),
            Turn::Tick => ingress.tick(),
        }
        ingress.send();
        let held = ingress.waiting.len() + ingress.parked.len();
        ingress.context.metrics.parked.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

/// A log that cannot be read any more: nothing is appended, and everybody is told why.
async fn refuse_all(context: &Context, mut channels: Channels, reason: String) {
    tracing::error!(shard = %context.shard, "the ingress stopped: {reason}");
    channels.tail.send_modify(|tail| tail.trouble = Some(reason.clone()));
    while let Some(submission) = channels.submissions.recv().await {
        let detail = format!("the log cannot be read: {reason}");
        // The client may have gone.
        let _ = submission.answer.send(Answer::Unavailable { code: "log-unreadable", detail });
    }
}

impl Ingress {
    async fn turn(&mut self, follower: &mut Follower) -> Turn {
        tokio::select! { biased;
            Some(reply) = self.replies.recv() => Turn::Reply(reply),
            entry = follower.next() => Turn::Entry(entry),
            Some((session, result)) = self.in_flight.next() => Turn::Appended(session, result),
            () = self.context.shell.sleep_until(self.next_tick) => Turn::Tick,
            Some(submission) = self.submissions.recv() => Turn::Submission(submission),
        }
    }

    fn park(&mut self, submission: Submission) {
        if self.waiting.len() + self.parked.len() >= self.context.config.parking_limit_requests {
            let detail = format!(
                "{} requests wait at this ingress already (parking_limit_requests)",
                self.context.config.parking_limit_requests
            );
            // The client may have gone.
            let _ = submission.answer.send(Answer::Unavailable { code: "parking-full", detail });
            return;
        }
        let deadline = self.context.shell.now() + self.context.config.reply_timeout();
        self.parked.push_back(Parked { submission, deadline });
    }

    /// Appends what is parked, as far as it may.
    fn send(&mut self) {
        if self.closing.is_some() || self.resend.is_some() || !self.window_open || self.parked.is_empty() {
            return;
        }
        let began = self.next > Sequence::FIRST && self.unconfirmed.is_empty();
        if began && self.fold.session(self.session).is_none_or(|state| state.closed) {
            self.give_up();
            return;
        }
        while !self.parked.is_empty() && self.in_flight.len() < PIPELINED_APPENDS {
            let mut batch = Vec::new();
            let mut bytes = 0;
            while batch.len() < APPEND_MESSAGES && bytes < APPEND_BYTES {
                let Some(parked) = self.parked.pop_front() else { break };
                let message = self.number(parked);
                bytes += body_bytes(&message);
                batch.push(Record::Message(Box::new(message.clone())));
                self.unconfirmed.push_back(message);
            }
            self.append(batch);
        }
    }

    fn number(&mut self, parked: Parked) -> Message {
        let name = MessageName { session: self.session, sequence: self.next };
        let count = self.fold.count();
        let base = (self.next == Sequence::FIRST).then_some(count);
        self.next = self.next.next();
        let Submission { request, client_key, answer } = parked.submission;
        let (key, shown) = match client_key {
            Some(shown) => (waiting::key_of(&shown), shown),
            None => (Key::Own { count }, format!("{name}-{}", count.0)),
        };
        let waiting = Waiting { answer, deadline: parked.deadline, key: shown, confirmed: None, asked: Duration::ZERO };
        self.waiting.insert(name, waiting);
        Message { name, base, key, source: None, ingress: self.context.me.clone(), request }
    }

    fn append(&mut self, records: Vec<Record>) {
        self.progress_at = self.context.shell.now();
        let (session, began, shell) = (self.session, self.context.shell.now(), self.context.shell.clone());
        let (metrics, records_sent) = (self.context.metrics.clone(), records.len() as u64);
        let appended = self.context.log.append(records);
        self.in_flight.push(Box::pin(async move {
            let result = appended.await;
            if result.is_ok() {
                metrics.appends.inc_by(records_sent);
                metrics.append_seconds.observe((shell.now() - began).as_secs_f64());
            }
            (session, result)
        }));
    }

    fn appended(&mut self, session: Session, result: AppendResult) {
        match result {
            Ok(_) => self.resend_wait = RESEND_WAIT_FIRST,
            Err(error) => {
                tracing::debug!(%error, "will send again what is not read back");
                if session == self.session && self.closing.is_none() && self.resend.is_none() {
                    self.resend = Some(self.context.shell.now() + self.resend_wait);
                    self.resend_wait = (2 * self.resend_wait).min(RESEND_WAIT_MAX);
                }
            }
        }
    }

    /// Everything behind the last confirmed message, acknowledged or not, in order.
    fn send_again(&mut self) {
        self.resend = None;
        if self.context.rules.plant(Bug::GiveUpWithoutClose) {
            return self.give_up();
        }
        let messages: Vec<Message> = self.unconfirmed.iter().cloned().collect();
        self.append_in_batches(messages);
    }

    fn append_in_batches(&mut self, messages: Vec<Message>) {
        let mut batch = Vec::new();
        let mut bytes = 0;
        for message in messages {
            bytes += body_bytes(&message);
            batch.push(Record::Message(Box::new(message)));
            if batch.len() == APPEND_MESSAGES || bytes >= APPEND_BYTES {
                self.append(std::mem::take(&mut batch));
                bytes = 0;
            }
        }
        if !batch.is_empty() {
            self.append(batch);
        }
    }

    fn read(&mut self, entry: &Entry) {
        let verdict = self.fold.observe(entry);
        match (&entry.record, verdict) {
            (Record::Message(message), verdict) if message.name.session == self.session => {
                self.read_own(message.name, verdict);
            }
            (Record::Close(close), verdict) if self.is_closing(close) => match verdict {
                Verdict::Closed => self.closed(),
                // Its base was too old at its place: another session must do it.
                Verdict::Void(Void::SessionUnknown | Void::SessionClosed) => {
                    self.closing = None;
                    self.give_up();
                }
                _ => {}
            },
            (_, Verdict::Fenced(_)) => {
                self.moved_at = self.context.shell.now();
                self.show_all();
                return;
            }
            (Record::Checkpoint(_) | Record::Pin(_), _) => self.show_all(),
            _ => {}
        }
        let (position, count) = (self.fold.position(), self.fold.count());
        self.tail.send_modify(|tail| {
            tail.position = position;
            tail.count = count;
        });
    }

    fn read_own(&mut self, name: MessageName, verdict: Verdict) {
        match verdict {
            Verdict::Void(Void::SessionUnknown | Void::SessionClosed) => self.give_up(),
            // A message that was sent twice, or behind one that was lost: what is missing is sent again.
            Verdict::Void(_) => {}
            _ => {
                let now = self.context.shell.now();
                self.progress_at = now;
                while self.unconfirmed.front().is_some_and(|message| message.name.sequence <= name.sequence) {
                    self.unconfirmed.pop_front();
                }
                if let Some(waiting) = self.waiting.get_mut(&name) {
                    waiting.confirmed = Some((self.fold.position(), self.fold.count(), now));
                }
            }
        }
    }

    fn is_closing(&self, close: &Close) -> bool {
        self.closing.as_ref().is_some_and(|closing| closing.close.name == close.name)
    }

    /// Ends this session by the first record of the next one.
    fn give_up(&mut self) {
        if self.closing.is_some() {
            return;
        }
        tracing::info!(session = %self.session, "giving the session up");
        let mut name = MessageName { session: Session(self.context.shell.random()), sequence: Sequence::FIRST };
        let without_close = self.context.rules.plant(Bug::GiveUpWithoutClose);
        if without_close {
            name.sequence = Sequence::default();
        }
        let close = Close { name, base: Some(self.fold.count()), closes: self.session };
        self.closing = Some(Closing { close, sent: Duration::ZERO });
        self.resend = None;
        if without_close {
            return self.closed();
        }
        self.send_close();
    }

    fn send_close(&mut self) {
        let Some(closing) = &mut self.closing else { return };
        closing.sent = self.context.shell.now();
        let record = Record::Close(closing.close.clone());
        self.append(vec![record]);
    }

    /// The close was read back: what did not count before it never will, and is sent again under the new session.
    fn closed(&mut self) {
        let Some(closing) = self.closing.take() else { return };
        self.session = closing.close.name.session;
        self.next = closing.close.name.sequence.next();
        let mut renamed = Vec::new();
        for mut message in std::mem::take(&mut self.unconfirmed) {
            let old = message.name;
            message.name = MessageName { session: self.session, sequence: self.next };
            // The close was the session's first record.
            message.base = (self.next == Sequence::FIRST).then_some(self.fold.count());
            self.next = self.next.next();
            if let Key::Own { count } = message.key {
                message.key = Key::First { name: old, count };
            }
            if let Some(waiting) = self.waiting.remove(&old) {
                self.waiting.insert(message.name, waiting);
            }
            renamed.push(message.clone());
            self.unconfirmed.push_back(message);
        }
        self.append_in_batches(renamed);
    }

    fn tick(&mut self) {
        let now = self.context.shell.now();
        self.next_tick = now + TICK;
        self.expire(now);
        let stalled = !self.unconfirmed.is_empty() && now >= self.progress_at + STALLED_AFTER;
        if stalled && self.resend.is_none() && self.closing.is_none() {
            self.resend = Some(now);
        }
        if self.resend.is_some_and(|at| at <= now) && self.in_flight.is_empty() {
            self.send_again();
        }
        if self.closing.as_ref().is_some_and(|closing| now >= closing.sent + CLOSE_AGAIN) {
            self.send_close();
        }
        self.window_open = self.is_window_open();
        self.ask(now);
    }

    /// Shows everything that others see of the tail.
    fn show_all(&self) {
        let owner = self.fold.owner().cloned();
        self.context.metrics.epoch.set(i64::try_from(self.fold.epoch().0).unwrap_or(i64::MAX));
        self.context.metrics.owner.set(i64::from(owner.as_ref() == Some(&self.context.me)));
        self.tail.send_replace(TailView {
            position: self.fold.position(),
            epoch: self.fold.epoch(),
            owner,
            count: self.fold.count(),
            checkpoint: self.fold.checkpoints().newest().map(|kept| kept.position),
            caught_up: true,
            trouble: None,
        });
    }
}

fn body_bytes(message: &Message) -> usize {
    match &message.request.body {
        broker_adapter::record::Body::Inline(bytes) => bytes.len(),
        broker_adapter::record::Body::Stored { .. } => 0,
    }
}
