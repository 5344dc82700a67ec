//! Publishes the appends of one handle and takes their acknowledgements.
//!
//! A call of `append` publishes by itself where it can, so nothing waits for a task's turn; what async-nats does not take at once,
//! and everything behind a break of the connection, the handle's task sends. After every break, and after every doubt, the stream is
//! verified before anything is sent: its settings, that it is the same stream, and that it still holds what was acknowledged.

use std::sync::{Arc, Mutex, MutexGuard, Weak};
use std::time::Duration;

use async_nats::{Message, StatusCode, Subject, Subscriber};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use serde::Deserialize;
use tokio::sync::{Notify, oneshot};

use crate::log::AppendError;
use crate::shell::Shell;

use super::api;
use super::lanes::{Appended, Lanes, Outcome};
use super::link::{Line, Lines, Link};
use super::settings::{self, Wanted};

/// How long an append waits for a connection before it is `Unreachable`.
const CONNECTION_WAIT: Duration = Duration::from_secs(1);
/// How long an acknowledgement may take before the outcome is `Unknown`.
const ACK_LIMIT: Duration = Duration::from_secs(5);
/// In a cluster what was sent while its leader changed is acknowledged by nobody: not a word about anything for so long, with something
/// on its way, and all of it is in doubt. What had landed all the same counts once (design section 3).
const CLUSTER_SILENCE_LIMIT: Duration = Duration::from_millis(700);
/// How often that is looked at.
const TICK: Duration = Duration::from_millis(100);
/// How long a new leader may take to show what the old one acknowledged.
const CAUGHT_UP_LIMIT: Duration = Duration::from_secs(10);
/// Acknowledgements that are taken before others have their turn.
const RUN_ACKS: usize = 256;

/// What a handle and its task share.
pub struct Shared {
    lanes: Mutex<Lanes>,
    wake: Notify,
    subject: Subject,
    inbox: String,
}

/// The stream that a handle writes to, as it was when it was opened.
pub struct Target {
    pub link: Link,
    pub wanted: Wanted,
    pub created: String,
    pub replicas: u64,
}

/// What became of what was to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pumped {
    /// Whatever may be sent now is.
    All,
    /// async-nats takes no more at the moment.
    Blocked,
    /// The connection is away or not verified, or somebody else sends.
    NotReady,
}

#[derive(Deserialize)]
struct Ack {
    #[serde(default)]
    seq: u64,
    #[serde(default)]
    duplicate: bool,
    #[serde(default)]
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    err_code: u64,
    #[serde(default)]
    description: String,
}

impl Shared {
    /// Starts the handle's task.
    pub async fn start(target: Target, lines: &Arc<Lines>) -> Result<Arc<Shared>, String> {
        let line = &lines.appends;
        let (inbox, breaks) = (line.client.new_inbox(), line.health().breaks);
        let acks = line.client.subscribe(format!("{inbox}.*")).await.map_err(|error| error.to_string())?;
        let lanes = Lanes::on(breaks);
        let subject = Subject::from(target.wanted.subjects[0].clone());
        let shared = Arc::new(Shared { lanes: Mutex::new(lanes), wake: Notify::new(), subject, inbox });
        let shell = target.link.shell().clone();
        shell.spawn(run(target, shared.clone(), Arc::downgrade(lines), acks));
        Ok(shared)
    }

    fn lanes(&self) -> MutexGuard<'_, Lanes> {
        self.lanes.lock().expect("nothing panics under this lock")
    }

    /// Hands an append over and publishes as much as can be at once.
    pub fn append(
        &self,
        frames: Vec<Bytes>,
        lines: &Lines,
        now: Duration,
    ) -> Result<oneshot::Receiver<Appended>, AppendError> {
        let mut lanes = self.lanes();
        let appended = lanes.hand_over(frames, now)?;
        if self.pump(&mut lanes, &lines.appends, now) != Pumped::All {
            self.wake.notify_one();
        }
        Ok(appended)
    }

    /// The handle is gone; what it handed over is still done.
    pub fn end(&self) {
        self.lanes().ended = true;
        self.wake.notify_one();
    }

    /// Publishes what can be at once.
    fn pump(&self, lanes: &mut Lanes, line: &Line, now: Duration) -> Pumped {
        let health = line.health();
        if lanes.busy || !health.connected || lanes.verified != Some(health.breaks) {
            return Pumped::NotReady;
        }
        let mut pumped = Pumped::All;
        lanes.pump(now, |token, frame| {
            let publish = line.client.publish_with_reply(self.subject.clone(), self.reply(token), frame.clone());
            // Without the task's budget, or a burst would always end in the middle.
            let taken = matches!(tokio::task::unconstrained(publish).now_or_never(), Some(Ok(())));
            if !taken {
                pumped = Pumped::Blocked;
            }
            taken
        });
        pumped
    }

    fn reply(&self, token: u64) -> String {
        format!("{}.{token}", self.inbox)
    }

    fn take(&self, message: &Message, now: Duration) -> Result<(), String> {
        let token = message.subject.as_str().get(self.inbox.len() + 1..).and_then(|token| token.parse().ok());
        let Some(token) = token else { return Ok(()) };
        let outcome = outcome(message);
        let mut lanes = self.lanes();
        lanes.acknowledged(token, outcome, now).inspect_err(|reason| lanes.doubt(reason))
    }
}

/// What an acknowledgement says.
pub fn outcome(message: &Message) -> Outcome {
    if message.status == Some(StatusCode::NO_RESPONDERS) {
        let reason = "no server holds the log's stream now".to_owned();
        return Outcome::Refused(AppendError::Unreachable(reason));
    }
    match serde_json::from_slice::<Ack>(&message.payload) {
        Ok(Ack { error: None, duplicate: false, seq }) if seq > 0 => Outcome::Stored(seq),
        Ok(Ack { error: Some(Refusal { err_code, description }), .. }) => refused(err_code, description),
        Ok(_) => Outcome::Doubtful("JetStream took a record for a duplicate".to_owned()),
        Err(error) => Outcome::Doubtful(format!("an acknowledgement cannot be read: {error}")),
    }
}

/// Refusals of which it is certain that nothing was stored; of any other it is not.
fn refused(code: u64, description: String) -> Outcome {
    let full = match code {
        // Account, server or storage limits.
        10002 | 10023 | 10028 | 10047 => true,
        // "store failed": this alone of its reasons comes before anything is written.
        10077 => description.contains("maximum bytes exceeded") || description.contains("maximum messages exceeded"),
        _ => false,
    };
    match code {
        _ if full => Outcome::Refused(AppendError::Full(format!("{description} (JetStream error {code})"))),
        // Its inbox is full.
        10167 => Outcome::Refused(AppendError::Overloaded(1)),
        _ => Outcome::Doubtful(format!("{description} (JetStream error {code})")),
    }
}

async fn run(target: Target, shared: Arc<Shared>, lines: Weak<Lines>, mut acks: Subscriber) {
    let shell = target.link.shell().clone();
    while let Some(lines) = lines.upgrade() {
        let line = &lines.appends;
        let breaks = line.health().breaks;
        if line.connected(&shell, TICK).await.is_ok() {
            match ready(&target, &shared, line, breaks).await {
                Ok(()) => {
                    let silence = if target.replicas > 1 { CLUSTER_SILENCE_LIMIT } else { ACK_LIMIT };
                    serve(&shared, line, (breaks, silence), &mut acks, &shell).await;
                    shared.lanes().reset("the connection broke");
                }
                Err(AppendError::Damaged(reason)) => {
                    tracing::error!(stream = target.wanted.name, reason, "nothing is appended any more");
                    shared.lanes().refuse(&reason);
                    return;
                }
                Err(_) => shell.sleep(TICK).await,
            }
        }
        let mut lanes = shared.lanes();
        if lanes.ended {
            // Whoever still waits is told.
            lanes.give_up_waiting(Duration::MAX, "the log's handle is gone");
            return;
        }
        if line.health().breaks != breaks || !line.health().connected || lanes.verified != Some(breaks) {
            lanes.give_up_waiting(shell.now().saturating_sub(CONNECTION_WAIT), "no server can be reached");
        }
    }
    shared.lanes().refuse("the process has ended");
}

/// Verifies the stream, unless it was on this connection.
async fn ready(target: &Target, shared: &Shared, line: &Line, breaks: u64) -> Result<(), AppendError> {
    let (verified, last) = {
        let lanes = shared.lanes();
        (lanes.verified, lanes.last())
    };
    if verified == Some(breaks) {
        return Ok(());
    }
    let shell = target.link.shell();
    let until = shell.now() + CAUGHT_UP_LIMIT;
    let name = &target.wanted.name;
    loop {
        let asked = api::ask_info(line, shell, name).await;
        let info = match asked.and_then(|answer| api::read_info(&answer)) {
            Ok(info) => info,
            Err(error) => return Err(AppendError::Unreachable(error.reason())),
        };
        settings::check(&info.config, &target.wanted, target.link.options()).map_err(AppendError::Damaged)?;
        if info.created != target.created {
            let reason =
                format!("the stream {name} was made anew at {}: it is not the one this process opened", info.created);
            return Err(AppendError::Damaged(reason));
        }
        if info.last >= last {
            shared.lanes().verified = Some(breaks);
            return Ok(());
        }
        if info.replicas <= 1 || shell.now() >= until {
            let reason =
                format!("the stream {name} ends at {}, and {last} was acknowledged: it was rewound", info.last);
            return Err(AppendError::Damaged(reason));
        }
        shell.sleep(TICK).await;
    }
}

/// Sends and takes acknowledgements until the connection breaks, something is in doubt, or the handle is gone and all is done.
async fn serve(shared: &Shared, line: &Line, (breaks, silence): (u64, Duration), acks: &mut Subscriber, shell: &Shell) {
    let mut changes = line.changes();
    let broken = async {
        let _ = changes.wait_for(|health| health.breaks != breaks || !health.connected).await;
    };
    tokio::select! {
        biased;
        () = take(shared, line, (acks, silence), shell) => {}
        () = send(shared, line, shell) => {}
        () = broken => {}
    }
    // What came before the break still counts.
    while let Some(Some(message)) = acks.next().now_or_never() {
        let _ = shared.take(&message, shell.now());
    }
}

async fn take(shared: &Shared, line: &Line, (acks, silence): (&mut Subscriber, Duration), shell: &Shell) {
    let mut heard_at = shell.now();
    loop {
        let next = shell.within(TICK, acks.next()).await;
        match next {
            Some(None) => return,
            Some(Some(message)) => {
                let now = shell.now();
                heard_at = now;
                let mut doubt = shared.take(&message, now).err();
                for _ in 1..RUN_ACKS {
                    let Some(Some(message)) = acks.next().now_or_never() else { break };
                    doubt = shared.take(&message, now).err().or(doubt);
                }
                if let Some(reason) = doubt {
                    tracing::debug!(reason, "what was in flight is in doubt");
                    return;
                }
                // What waited for room goes at once.
                if shared.pump(&mut shared.lanes(), line, now) == Pumped::Blocked {
                    shared.wake.notify_one();
                }
            }
            None => {}
        }
        let mut lanes = shared.lanes();
        let now = shell.now();
        let is_late = |since: Duration| since + ACK_LIMIT <= now || since.max(heard_at) + silence <= now;
        if lanes.oldest().is_some_and(is_late) {
            return lanes.doubt("an acknowledgement did not come in time");
        }
        if lanes.ended && lanes.is_empty() {
            return;
        }
    }
}

/// Sends what the calls could not.
async fn send(shared: &Shared, line: &Line, shell: &Shell) {
    loop {
        let next = {
            let mut lanes = shared.lanes();
            lanes.busy = false;
            let blocked = shared.pump(&mut lanes, line, shell.now()) == Pumped::Blocked;
            let next = if blocked { lanes.next_to_send(shell.now()) } else { None };
            lanes.busy = next.is_some();
            next
        };
        match next {
            Some((token, frame)) => {
                let sent = line.client.publish_with_reply(shared.subject.clone(), shared.reply(token), frame).await;
                let mut lanes = shared.lanes();
                match sent {
                    Ok(()) => lanes.sent(),
                    Err(error) => lanes.reset(&error.to_string()),
                }
            }
            // A connection that was not ready is looked at again.
            None => drop(shell.within(TICK, shared.wake.notified()).await),
        }
    }
}
