//! The ingress's one task: it numbers messages, appends them, reads them back, and hands replies to clients.
//!
//! *Confirmed* means read back and counted. After an unknown outcome everything behind the last confirmed message is sent again,
//! in order; the fold counts each once. A session that the fold does not know any more is given up: the next one's first record
//! closes it, is read back, and only what did not count is sent again, keeping its first key (design section 3).

mod giving_up;
mod overtaken;

use std::collections::VecDeque;
use std::time::Duration;

use broker_adapter::fold::{Bug, Fold, Found, Verdict, Void};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Count, MessageName, Position, Sequence, Session};
use broker_adapter::log::{AppendError, ReadError};
use broker_adapter::record::{Close, Entry, Key, Message, Record};
use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use futures_util::stream::FuturesUnordered;
use tokio::sync::{mpsc, watch};

use super::fetch::{Known, Question};
use super::large::{Large, LargeEvent};
use super::waiting::{self, Clients, Waiting};
use super::{Answer, Submission};
use crate::body;
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
/// What was refused for certain leaves no void record behind when it is sent again.
const RESEND_REFUSED_MAX: Duration = Duration::from_millis(250);
/// A close that was not read back for so long is sent again.
const CLOSE_AGAIN: Duration = Duration::from_secs(1);
/// What was acknowledged and still not read back for so long is sent again: it costs nothing but a void record.
const STALLED_AFTER: Duration = Duration::from_secs(3);

/// The ingress of one shard.
pub struct Ingress {
    pub(super) context: Context,
    submissions: mpsc::Receiver<Submission>,
    replies: mpsc::Receiver<ReplyMail>,
    questions: mpsc::Receiver<Question>,
    pub(super) replica: mpsc::Sender<ReplicaInput>,
    tail: watch::Sender<TailView>,
    pub(super) fold: Fold,
    session: Session,
    next: Sequence,
    /// The session is being given up.
    closing: Option<Closing>,
    /// Appended, or perhaps not, and not read back: in order.
    unconfirmed: VecDeque<Message>,
    /// How many of them were handed to the log since the last unknown outcome; those behind are still to be sent, or again.
    sent: usize,
    unconfirmed_bytes: u64,
    /// Messages whose bodies are not in their records.
    pub(super) large: Large,
    /// A record of this size was refused, whatever the broker says.
    record_limit_bytes: u64,
    /// Why the log took the last append not: until it takes one again, new requests are refused at once.
    pub(super) full: Option<String>,
    pub(super) clients: Clients,
    /// Not appended yet.
    pub(super) parked: VecDeque<Parked>,
    in_flight: FuturesUnordered<BoxFuture<'static, (Session, AppendResult)>>,
    resend: Option<Duration>,
    resend_wait: Duration,
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
    /// From clients that ask for a kept reply.
    pub questions: mpsc::Receiver<Question>,
    /// To this node's replica.
    pub replica: mpsc::Sender<ReplicaInput>,
    /// What everybody else sees of the tail.
    pub tail: watch::Sender<TailView>,
}

enum Turn {
    Reply(ReplyMail),
    Entry(Result<Entry, ReadError>),
    Appended(Session, AppendResult),
    Large(LargeEvent),
    Submission(Submission),
    Question(Question),
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
        questions: channels.questions,
        replica: channels.replica,
        tail: channels.tail,
        fold,
        session,
        next: Sequence::FIRST,
        closing: None,
        unconfirmed: VecDeque::new(),
        sent: 0,
        unconfirmed_bytes: 0,
        large: Large::default(),
        record_limit_bytes: u64::MAX,
        full: None,
        clients: Clients::default(),
        parked: VecDeque::new(),
        in_flight: FuturesUnordered::new(),
        resend: None,
        resend_wait: RESEND_WAIT_FIRST,
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
                let error = match ingress.overtaken(error).await {
                    Ok(at_tail) => {
                        follower = at_tail;
                        continue;
                    }
                    Err(reason) => reason,
                };
                // No reply can be waited for any more: everybody is told now what they would be told at their deadline.
                ingress.expire_large(Duration::MAX);
                ingress.expire(Duration::MAX);
                let Ingress { context, submissions, replies, questions, replica, tail, .. } = ingress;
                let channels = Channels { submissions, replies, questions, replica, tail };
                return refuse_all(&context, channels, error).await;
            }
            Turn::Appended(session, result) => ingress.appended(session, result),
            Turn::Large(event) => ingress.large_event(event),
            Turn::Submission(submission) => ingress.park(submission),
            // The client may have gone.
            Turn::Question(question) => drop(question.answer.send(ingress.known(&question.key))),
            Turn::Tick => ingress.tick(),
        }
        ingress.send();
        let held = ingress.clients.len() + ingress.parked.len();
        if held == 0 {
            ingress.context.metrics.traffic().idle();
        }
        ingress.context.metrics.parked.set(i64::try_from(held).unwrap_or(i64::MAX));
    }
}

/// A log that cannot be read any more: nothing is appended, and everybody is told why.
async fn refuse_all(context: &Context, mut channels: Channels, reason: String) {
    tracing::error!(shard = %context.shard, "the ingress stopped: {reason}");
    channels.tail.send_modify(|tail| tail.trouble = Some(reason.clone()));
    // Who asks for a kept reply is told that nobody knows.
    channels.questions.close();
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
            Some(event) = self.large.under_way.next() => Turn::Large(event),
            () = self.context.shell.sleep_until(self.next_tick) => Turn::Tick,
            Some(question) = self.questions.recv() => Turn::Question(question),
            Some(submission) = self.submissions.recv() => Turn::Submission(submission),
        }
    }

    fn park(&mut self, submission: Submission) {
        if self.clients.len() + self.parked.len() >= self.context.config.parking_limit_requests {
            let detail = format!(
                "{} requests wait at this ingress already (parking_limit_requests)",
                self.context.config.parking_limit_requests
            );
            // The client may have gone.
            let _ = submission.answer.send(Answer::Unavailable { code: "parking-full", detail });
            return;
        }
        let full = self.full.as_ref().map(|reason| format!("the log takes nothing now: {reason}"));
        if let Some(detail) = self.context.room.borrow().full.clone().or(full) {
            // The client may have gone. What is left of the log is for the records that make room.
            let _ = submission.answer.send(Answer::Unavailable { code: "log-full", detail });
            return;
        }
        let deadline = self.context.shell.now() + self.context.config.reply_timeout();
        self.context.metrics.traffic().begun(self.context.shell.now());
        self.parked.push_back(Parked { submission, deadline });
    }

    /// Appends what is parked, and what is to be sent again, as far as it may.
    fn send(&mut self) {
        if self.closing.is_some() || self.resend.is_some() {
            return;
        }
        let began = self.next > Sequence::FIRST && self.unconfirmed.is_empty() && !self.parked.is_empty();
        if began && self.fold.session(self.session).is_none_or(|state| state.closed) {
            self.give_up();
            return;
        }
        while self.in_flight.len() < PIPELINED_APPENDS {
            while self.unconfirmed.len() - self.sent < APPEND_MESSAGES
                && self.unconfirmed_bytes + self.large.bytes < self.context.config.parking_limit_bytes
                && self.has_room(self.unconfirmed.len() + self.large.len())
            {
                let Some(parked) = self.parked.pop_front() else { break };
                if body::is_too_large(&parked.submission.request, self.record_limit()) {
                    let (name, deadline) = (self.name_alone(), parked.deadline);
                    let message = self.number(parked, name, Some(self.fold.count()));
                    self.store(message, deadline, false);
                    continue;
                }
                let name = MessageName { session: self.session, sequence: self.next };
                let base = (self.next == Sequence::FIRST).then_some(self.fold.count());
                self.next = self.next.next();
                let message = self.number(parked, name, base);
                self.unconfirmed_bytes += body_bytes(&message) as u64;
                self.unconfirmed.push_back(message);
            }
            let batch = self.next_batch();
            if batch.is_empty() {
                return;
            }
            self.sent += batch.len();
            self.append(batch);
        }
    }

    /// The next of those that were not handed to the log.
    fn next_batch(&self) -> Vec<Record> {
        let mut bytes = 0;
        let mut batch = Vec::new();
        for message in self.unconfirmed.iter().skip(self.sent).take(APPEND_MESSAGES) {
            if bytes >= APPEND_BYTES {
                break;
            }
            bytes += body_bytes(message);
            batch.push(Record::Message(Box::new(message.clone())));
        }
        batch
    }

    /// What this ingress knows of a key.
    fn known(&self, key: &Key) -> Known {
        let found = self.fold.find(key);
        let sent = |message: &Message| match key {
            Key::First { name, .. } => message.name == *name || message.key == *key,
            _ => message.key == *key,
        };
        let mut unconfirmed = self.unconfirmed.iter().chain(self.large.messages());
        if found == Found::Unknown && unconfirmed.any(sent) { Known::Sent } else { Known::Log(found) }
    }

    /// The largest record that the broker takes.
    fn record_limit(&self) -> u64 {
        self.context.room.borrow().record_limit_bytes.min(self.record_limit_bytes)
    }

    /// In a session of its own.
    fn name_alone(&self) -> MessageName {
        MessageName { session: Session(self.context.shell.random()), sequence: Sequence::FIRST }
    }

    fn number(&mut self, parked: Parked, name: MessageName, base: Option<Count>) -> Message {
        let count = self.fold.count();
        let Submission { request, client_key, told, append, answer } = parked.submission;
        let (key, shown) = match client_key {
            Some(shown) => (waiting::key_of(&shown), shown),
            None => (Key::Own { count }, format!("{name}-{}", count.0)),
        };
        // It has not been told before: a submission is numbered once.
        let _ = told.set(shown.clone());
        self.clients.insert(name, Waiting::new(answer, parked.deadline, shown).after(append));
        Message { name, base, key, source: None, ingress: self.context.me.clone(), request }
    }

    fn append(&mut self, records: Vec<Record>) {
        self.progress_at = self.context.shell.now();
        let session = self.session;
        let appended = self.measured_append(records);
        self.in_flight.push(Box::pin(async move { (session, appended.await) }));
    }

    /// Hands records over at once.
    pub(super) fn measured_append(&self, records: Vec<Record>) -> BoxFuture<'static, AppendResult> {
        let (began, shell) = (self.context.shell.now(), self.context.shell.clone());
        let (metrics, records_sent) = (self.context.metrics.clone(), records.len() as u64);
        let appended = self.context.log.append(records);
        Box::pin(async move {
            let result = appended.await;
            if result.is_ok() {
                metrics.appends.inc_by(records_sent);
                metrics.append_seconds.observe((shell.now() - began).as_secs_f64());
            }
            result
        })
    }

    fn appended(&mut self, session: Session, result: AppendResult) {
        match result {
            Ok(_) => {
                self.resend_wait = RESEND_WAIT_FIRST;
                self.full = None;
            }
            Err(error) => {
                if let AppendError::Full(reason) = &error {
                    self.full = Some(reason.clone());
                }
                if let AppendError::TooLarge { bytes, limit_bytes } = &error {
                    self.record_limit_bytes = self.record_limit_bytes.min(bytes.saturating_sub(1)).min(*limit_bytes);
                    // What is too large goes to the checkpoint store, in another session.
                    if session == self.session {
                        self.give_up();
                    }
                }
                tracing::debug!(%error, "will send again what is not read back");
                if session == self.session && self.closing.is_none() && self.resend.is_none() {
                    self.resend = Some(self.context.shell.now() + self.resend_wait);
                    let most = if error.has_no_side_effects() { RESEND_REFUSED_MAX } else { RESEND_WAIT_MAX };
                    self.resend_wait = (2 * self.resend_wait).min(most);
                }
            }
        }
    }

    fn read(&mut self, entry: &Entry) {
        let verdict = self.fold.observe(entry);
        match (&entry.record, verdict) {
            (Record::Message(message), verdict) if message.name.session == self.session => {
                self.read_own(message.name, verdict);
            }
            (Record::Message(message), verdict) if self.large.has(message.name.session) => match verdict {
                Verdict::Void(Void::SessionUnknown | Void::SessionClosed) => self.renew_large(message.name.session),
                Verdict::Void(_) => {}
                _ => self.large_confirmed(message.name.session),
            },
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
                while self.take_confirmed(name.sequence).is_some() {}
                self.clients.confirm(name, self.fold.count(), now);
            }
        }
    }

    fn tick(&mut self) {
        let now = self.context.shell.now();
        self.next_tick = now + TICK;
        self.expire_large(now);
        self.send_large_again(now);
        if self.unconfirmed.is_empty() && self.large.len() == 0 && self.closing.is_none() {
            // Nothing is sent again that could tell that the log has room: the next request does.
            self.full = None;
        }
        self.expire(now);
        let stalled = !self.unconfirmed.is_empty() && now >= self.progress_at + STALLED_AFTER;
        if stalled && self.resend.is_none() && self.closing.is_none() {
            self.resend = Some(now);
        }
        if self.resend.is_some_and(|at| at <= now) && self.in_flight.is_empty() {
            // Everything behind the last confirmed message, acknowledged or not, in order.
            self.resend = None;
            self.sent = 0;
            if self.context.rules.plant(Bug::GiveUpWithoutClose) {
                self.give_up();
            }
        }
        if self.closing.as_ref().is_some_and(|closing| now >= closing.sent + CLOSE_AGAIN) {
            self.send_close();
        }
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
