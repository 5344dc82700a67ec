//! The log's face over a connection: appends are pipelined in the order of the calls, and a broken connection lets none overtake.
//!
//! ```text
//! append ─▶ waiting ──(written)──▶ in flight ──(answered)──▶ done
//!              │ connection breaks     │ connection breaks
//!              ▼                       ▼
//!         Unreachable               Unknown                 what comes later waits for the next connection, a second at most
//! ```

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::{self, BoxFuture};
use futures_util::stream::BoxStream;
use tokio::sync::{Notify, oneshot};

use crate::broker::ConnectError;
use crate::embedded::check_sizes;
use crate::embedded::handle::{entries, positions};
use crate::embedded::protocol::{Answer, Ask, Incoming, Outgoing, Role, SILENCE_LIMIT, feed, flush, receive};
use crate::embedded::queue::{WAITING_LIMIT_BYTES, WAITING_LIMIT_RECORDS};
use crate::ids::Position;
use crate::log::{AppendError, MessageLog, ReadError, Usage};
use crate::record::{Entry, Record, wire};

use super::reads;
use super::{OpenError, RETRY_FIRST, RETRY_MAX, Target};

/// How long something waits for a connection before it is `Unreachable`.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// How long a question (not an append) is asked again.
const QUESTION_LIMIT: Duration = Duration::from_secs(5);
const QUESTION_RETRY: Duration = Duration::from_millis(20);

/// A log of a remote broker; its connection ends with it.
pub struct RemoteLog {
    target: Target,
    name: String,
    shared: Arc<Shared>,
}

struct Shared {
    lanes: Mutex<Lanes>,
    wake: Notify,
}

#[derive(Default)]
struct Lanes {
    next_id: u64,
    waiting: VecDeque<Asked>,
    in_flight: BTreeMap<u64, Asked>,
    records: usize,
    bytes: usize,
    ended: bool,
}

/// What was asked for, and who waits.
struct Asked {
    id: u64,
    what: What,
    since: Duration,
    done: oneshot::Sender<Result<Answer, Failed>>,
}

#[derive(Clone)]
enum What {
    Append(Vec<Bytes>),
    Tail,
    Trim(Position),
    Usage,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
enum Failed {
    NeverSent(String),
    Unknown(String),
    Damaged(String),
}

impl What {
    /// Records and bytes, as they count against the limits.
    fn size(&self) -> (usize, usize) {
        match self {
            What::Append(frames) => (frames.len(), frames.iter().map(Bytes::len).sum()),
            _ => (1, 0),
        }
    }

    fn ask(&self, id: u64) -> Ask {
        match self {
            What::Append(frames) => Ask::Append { id, frames: frames.clone() },
            What::Tail => Ask::Tail { id },
            What::Trim(before) => Ask::Trim { id, before: *before },
            What::Usage => Ask::Usage { id },
        }
    }
}

impl RemoteLog {
    pub async fn open(target: Target, name: String) -> Result<RemoteLog, ConnectError> {
        let role = Role::Appends { log: name.clone() };
        let connection = target.open_patiently(&role).await?;
        let shared = Arc::new(Shared { lanes: Mutex::default(), wake: Notify::new() });
        target.shell.spawn(stay_connected(target.clone(), role, shared.clone(), connection));
        Ok(RemoteLog { target, name, shared })
    }

    fn question<T: Send + 'static>(
        &self,
        what: What,
        take: impl Fn(Answer) -> Option<Result<T, ReadError>> + Send + 'static,
    ) -> BoxFuture<'static, Result<T, ReadError>> {
        let (target, shared) = (self.target.clone(), self.shared.clone());
        async move {
            let until = target.shell.now() + QUESTION_LIMIT;
            loop {
                let reason = match shared.hand_over(what.clone(), target.shell.now()) {
                    Ok(answer) => match answer.await {
                        Ok(Ok(answer)) => {
                            let other = || Err(ReadError::Unreachable("it answered another question".to_owned()));
                            return take(answer).unwrap_or_else(other);
                        }
                        Ok(Err(Failed::NeverSent(reason) | Failed::Unknown(reason) | Failed::Damaged(reason))) => {
                            reason
                        }
                        Err(_) => "the connection's task is gone".to_owned(),
                    },
                    Err(waiting) => format!("{waiting} requests are waiting already"),
                };
                if target.shell.now() + QUESTION_RETRY >= until {
                    return Err(ReadError::Unreachable(reason));
                }
                target.shell.sleep(QUESTION_RETRY).await;
            }
        }
        .boxed()
    }
}

impl Drop for RemoteLog {
    fn drop(&mut self) {
        self.shared.lanes().ended = true;
        self.shared.wake.notify_one();
    }
}

impl MessageLog for RemoteLog {
    fn append(&self, records: Vec<Record>) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let count = records.len();
        let frames: Vec<Bytes> = records.iter().map(|record| wire::encode(record).bytes).collect();
        if let Err(error) = check_sizes(frames.iter().map(Bytes::len)) {
            return future::ready(Err(error)).boxed();
        }
        let handed_over = self.shared.hand_over(What::Append(frames), self.target.shell.now());
        async move {
            match handed_over.map_err(AppendError::Overloaded)?.await {
                Ok(Ok(Answer::Appended { first, .. })) => Ok(positions(first?, count)),
                Ok(Ok(_)) => Err(AppendError::Unknown("the broker answered another question".to_owned())),
                Ok(Err(Failed::NeverSent(reason))) => Err(AppendError::Unreachable(reason)),
                Ok(Err(Failed::Unknown(reason))) => Err(AppendError::Unknown(reason)),
                Ok(Err(Failed::Damaged(reason))) => Err(AppendError::Damaged(reason)),
                Err(_) => Err(AppendError::Unknown("the connection's task is gone".to_owned())),
            }
        }
        .boxed()
    }

    fn read(&self, from: Position) -> BoxStream<'static, Result<Entry, ReadError>> {
        entries(reads::rows(self.target.clone(), self.name.clone(), from))
    }

    fn tail(&self) -> BoxFuture<'static, Result<Position, ReadError>> {
        self.question(What::Tail, |answer| match answer {
            Answer::Tail { tail, .. } => Some(tail),
            _ => None,
        })
    }

    fn trim(&self, before: Position) -> BoxFuture<'static, Result<(), ReadError>> {
        self.question(What::Trim(before), |answer| match answer {
            Answer::Trimmed { done, .. } => Some(done),
            _ => None,
        })
    }

    fn usage(&self) -> BoxFuture<'static, Result<Usage, ReadError>> {
        self.question(What::Usage, |answer| match answer {
            Answer::Usage { usage, .. } => Some(usage),
            _ => None,
        })
    }
}

impl Shared {
    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("nothing panics under this lock")
    }

    /// Puts a request into its place in the order of the calls, or tells how many wait already.
    fn hand_over(&self, what: What, now: Duration) -> Result<oneshot::Receiver<Result<Answer, Failed>>, usize> {
        let (done, answer) = oneshot::channel();
        let (records, bytes) = what.size();
        let mut lanes = self.lanes();
        let too_many_bytes = lanes.bytes > 0 && lanes.bytes + bytes > WAITING_LIMIT_BYTES;
        if lanes.records + records > WAITING_LIMIT_RECORDS || too_many_bytes {
            return Err(lanes.waiting.len() + lanes.in_flight.len());
        }
        lanes.records += records;
        lanes.bytes += bytes;
        lanes.next_id += 1;
        let id = lanes.next_id;
        lanes.waiting.push_back(Asked { id, what, since: now, done });
        drop(lanes);
        self.wake.notify_one();
        Ok(answer)
    }

    fn resolve(&self, id: u64, answer: Answer) {
        let Some(asked) = self.lanes().take_in_flight(id) else { return };
        // Nobody may wait any more.
        let _ = asked.done.send(Ok(answer));
    }

    /// Ends everything that was handed over so far.
    fn connection_broke(&self, reason: &str) {
        self.lanes().fail(|_, sent| match sent {
            true => Some(Failed::Unknown(reason.to_owned())),
            false => Some(Failed::NeverSent(reason.to_owned())),
        });
    }

    /// Ends what has waited for a connection too long.
    fn no_connection(&self, reason: &str, now: Duration) {
        self.lanes()
            .fail(|asked, _| (asked.since + CONNECTION_WAIT <= now).then(|| Failed::NeverSent(reason.to_owned())));
    }

    fn refused(&self, reason: &str) {
        self.lanes().fail(|_, _| Some(Failed::Damaged(reason.to_owned())));
    }
}

impl Lanes {
    fn take_in_flight(&mut self, id: u64) -> Option<Asked> {
        let asked = self.in_flight.remove(&id)?;
        let (records, bytes) = asked.what.size();
        self.records -= records;
        self.bytes -= bytes;
        Some(asked)
    }

    /// Ends the requests for which `why` gives a reason; it is told whether they were sent.
    fn fail(&mut self, why: impl Fn(&Asked, bool) -> Option<Failed>) {
        let (in_flight, waiting) = (std::mem::take(&mut self.in_flight), std::mem::take(&mut self.waiting));
        let all =
            in_flight.into_values().map(|asked| (asked, true)).chain(waiting.into_iter().map(|asked| (asked, false)));
        for (asked, sent) in all {
            match why(&asked, sent) {
                Some(failed) => {
                    let (records, bytes) = asked.what.size();
                    self.records -= records;
                    self.bytes -= bytes;
                    let _ = asked.done.send(Err(failed));
                }
                None if sent => {
                    self.in_flight.insert(asked.id, asked);
                }
                None => self.waiting.push_back(asked),
            }
        }
    }
}

async fn stay_connected(target: Target, role: Role, shared: Arc<Shared>, first: (Incoming, Outgoing)) {
    let mut connection = Some(first);
    let mut wait = RETRY_FIRST;
    loop {
        if let Some((incoming, outgoing)) = connection.take() {
            wait = RETRY_FIRST;
            let result = tokio::select! {
                biased;
                result = take(&target, &shared, incoming) => result,
                result = write(&shared, outgoing) => result,
            };
            let reason = result.map_or_else(|error| error.to_string(), |()| "the log's handle is gone".to_owned());
            tracing::debug!(reason, url = target.url(), "a log's connection ended");
            shared.connection_broke(&reason);
        }
        if shared.lanes().ended {
            return shared.connection_broke("the log's handle is gone");
        }
        match target.open(&role).await {
            Ok(new) => connection = Some(new),
            Err(OpenError::Refused(ConnectError::Damaged { reason, .. })) => shared.refused(&reason),
            Err(OpenError::Refused(error)) => shared.no_connection(&error.to_string(), target.shell.now()),
            Err(OpenError::Io(error)) => shared.no_connection(&error.to_string(), target.shell.now()),
        }
        if connection.is_none() {
            target.shell.sleep(wait).await;
            wait = (2 * wait).min(RETRY_MAX);
        }
    }
}

async fn take(target: &Target, shared: &Shared, mut incoming: Incoming) -> io::Result<()> {
    loop {
        let silent = || io::Error::new(io::ErrorKind::TimedOut, "the broker is silent");
        let answer = target.shell.within(SILENCE_LIMIT, receive(&mut incoming)).await.ok_or_else(silent)??;
        match answer {
            Answer::Beat => {}
            Answer::Appended { id, .. }
            | Answer::Tail { id, .. }
            | Answer::Trimmed { id, .. }
            | Answer::Usage { id, .. } => shared.resolve(id, answer),
        }
        let lanes = shared.lanes();
        if lanes.ended && lanes.in_flight.is_empty() && lanes.waiting.is_empty() {
            return Ok(());
        }
    }
}

async fn write(shared: &Shared, mut outgoing: Outgoing) -> io::Result<()> {
    loop {
        while let Some(ask) = next_to_send(shared) {
            feed(&mut outgoing, &ask).await?;
        }
        flush(&mut outgoing).await?;
        {
            let lanes = shared.lanes();
            if lanes.ended && lanes.in_flight.is_empty() && lanes.waiting.is_empty() {
                return Ok(());
            }
        }
        shared.wake.notified().await;
    }
}

/// Takes the next request; from here on its outcome is unknown until it is answered.
fn next_to_send(shared: &Shared) -> Option<Ask> {
    let mut lanes = shared.lanes();
    let asked = lanes.waiting.pop_front()?;
    let ask = asked.what.ask(asked.id);
    lanes.in_flight.insert(asked.id, asked);
    Some(ask)
}
