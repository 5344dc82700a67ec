//! The load: every request at its intended time, whatever happened to those before it (open loop), and never again.
//!
//! ```text
//!  pacing thread ──due──▶ dispatcher ──▶ connection tasks ──▶ collector
//!                            ▲                  │ idle again
//!                            └──────────────────┘
//! ```
//! Latency is measured from the intended time, so a stall is felt by all who were due in it. More connections are opened while all
//! are busy, up to a limit; a request that waits for one is late, and the lateness is reported.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::Hash;
use broker_adapter::shell::{Shell, real};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper::client::conn::http1::SendRequest;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::sync::{mpsc, oneshot, watch};

/// Names the request in the log.
pub const REQUEST_HEADER: &str = "demo-request";

/// Connections that are opened before the first request.
const CONNECTIONS_FIRST: usize = 64;

/// Connections at most.
const CONNECTIONS_LIMIT: usize = 1024;

/// Requests that are due and wait for the dispatcher or a connection.
const DUE_LIMIT: usize = 65_536;

/// Ended requests that wait for the collector.
const ENDED_LIMIT: usize = 4096;

/// A request without a complete reply after this long is given up, and told as unanswered.
const REPLY_LIMIT: Duration = Duration::from_secs(60);

/// A reply is less than 200 bytes.
const BODY_LIMIT_BYTES: usize = 64 << 10;

/// Between the start and the first request, so that the first ones are on time.
const LEAD: Duration = Duration::from_millis(50);

/// What to send where.
#[derive(Clone)]
pub struct Plan {
    /// `HOST:PORT` of the ingress.
    pub address: String,
    /// Request `i` sends line `i` modulo their number.
    pub lines: Arc<Vec<Bytes>>,
    /// How many in all.
    pub requests: usize,
    /// How many per second.
    pub rate_per_s: u32,
}

/// What became of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Applied, as the reply says.
    Acknowledged {
        /// How many flights were applied.
        n: u64,
        /// The running hash.
        hash: Hash,
    },
    /// A complete reply that says something else.
    Refused {
        /// Its status.
        status: u16,
        /// Its content, for people.
        detail: String,
    },
    /// No complete reply.
    Unanswered {
        /// What happened.
        reason: String,
    },
}

/// A request and its end.
#[derive(Clone, Debug)]
pub struct Sent {
    /// Which one.
    pub request: usize,
    /// When it was to be sent.
    pub due: Duration,
    /// When it was given to its connection.
    pub sent: Duration,
    /// When it ended.
    pub ended: Duration,
    /// How it ended.
    pub outcome: Outcome,
}

/// How far the load is.
#[derive(Clone, Copy, Debug, Default)]
pub struct Progress {
    /// Requests that ended.
    pub ended: usize,
    /// Of them acknowledged.
    pub acknowledged: usize,
}

/// A running load.
pub struct Load {
    /// When the first request is due.
    pub began: Duration,
    /// How far it is.
    pub progress: watch::Receiver<Progress>,
    all: oneshot::Receiver<Vec<Sent>>,
}

struct Due {
    request: usize,
    due: Duration,
}

/// Starts the load. It ends with the shell's tasks.
///
/// # Errors
/// If there is no thread for the pacing.
pub fn start(plan: Plan, shell: &Shell) -> std::io::Result<Load> {
    let (due, dues) = mpsc::channel(DUE_LIMIT);
    let (ended, ends) = mpsc::channel(ENDED_LIMIT);
    let (all_sender, all) = oneshot::channel();
    let (progress_sender, progress) = watch::channel(Progress::default());
    let began = shell.now() + LEAD;
    shell.spawn(collect(ends, plan.requests, progress_sender, all_sender));
    shell.spawn(dispatch(plan.clone(), dues, ended, shell.clone()));
    let clock = shell.clone();
    real::start_thread("pacing", move || pace(&plan, began, &clock, &due))?;
    Ok(Load { began, progress, all })
}

impl Load {
    /// Waits for the last request's end.
    pub async fn finish(self) -> Option<Vec<Sent>> {
        self.all.await.ok()
    }
}

/// Runs on a thread of its own, so that nothing the process does delays a request that is due.
fn pace(plan: &Plan, began: Duration, clock: &Shell, due: &mpsc::Sender<Due>) {
    for request in 0..plan.requests {
        let at = began + Duration::from_secs(1) * u32::try_from(request).unwrap_or(u32::MAX) / plan.rate_per_s;
        let left = at.saturating_sub(clock.now());
        if !left.is_zero() {
            std::thread::sleep(left);
        }
        if due.blocking_send(Due { request, due: at }).is_err() {
            return;
        }
    }
}

async fn collect(
    mut ends: mpsc::Receiver<Sent>,
    requests: usize,
    progress: watch::Sender<Progress>,
    all: oneshot::Sender<Vec<Sent>>,
) {
    let mut collected = Vec::with_capacity(requests);
    while let Some(sent) = ends.recv().await {
        let acknowledged = matches!(sent.outcome, Outcome::Acknowledged { .. });
        progress.send_modify(|progress| {
            progress.ended += 1;
            progress.acknowledged += usize::from(acknowledged);
        });
        collected.push(sent);
    }
    // Whoever started the load may have given up.
    let _ = all.send(collected);
}

/// Owns the connections: which are idle, and who waits for one.
async fn dispatch(plan: Plan, mut dues: mpsc::Receiver<Due>, ended: mpsc::Sender<Sent>, shell: Shell) {
    let (idle_sender, mut idle_again) = mpsc::channel(CONNECTIONS_LIMIT);
    let open = |number: usize| {
        let (inbox, jobs) = mpsc::channel(1);
        let connection = Connection { plan: plan.clone(), shell: shell.clone(), sender: None };
        shell.spawn(connection.run(number, jobs, ended.clone(), idle_sender.clone()));
        inbox
    };
    let mut connections: Vec<mpsc::Sender<Due>> = (0..CONNECTIONS_FIRST).map(&open).collect();
    let mut idle: Vec<usize> = (0..CONNECTIONS_FIRST).collect();
    let mut waiting: VecDeque<Due> = VecDeque::new();
    let mut all_due = false;
    while !all_due || !waiting.is_empty() {
        tokio::select! {
            biased;
            Some(number) = idle_again.recv() => idle.push(number),
            due = dues.recv(), if !all_due && waiting.len() < DUE_LIMIT => match due {
                Some(due) => waiting.push_back(due),
                None => all_due = true,
            },
        }
        while let Some(due) = waiting.pop_front() {
            let number = match idle.pop() {
                Some(number) => number,
                None if connections.len() < CONNECTIONS_LIMIT => {
                    connections.push(open(connections.len()));
                    connections.len() - 1
                }
                None => {
                    waiting.push_front(due);
                    break;
                }
            };
            // It is idle, so its inbox is empty; it ends only with the process.
            let _ = connections[number].try_send(due);
        }
    }
}

struct Connection {
    plan: Plan,
    shell: Shell,
    sender: Option<SendRequest<Full<Bytes>>>,
}

impl Connection {
    async fn run(
        mut self,
        number: usize,
        mut jobs: mpsc::Receiver<Due>,
        ended: mpsc::Sender<Sent>,
        idle: mpsc::Sender<usize>,
    ) {
        if let Err(reason) = self.open().await {
            tracing::debug!(%reason, "a connection of the load is opened later");
        }
        while let Some(Due { request, due }) = jobs.recv().await {
            let opened = self.open().await;
            let sent = self.shell.now();
            let outcome = match opened {
                Ok(()) => self.send(request).await,
                Err(reason) => Outcome::Unanswered { reason },
            };
            if !matches!(outcome, Outcome::Acknowledged { .. }) {
                tracing::debug!(request, ?outcome, "not acknowledged");
            }
            let ended_at = self.shell.now();
            let told = ended.send(Sent { request, due, sent, ended: ended_at, outcome }).await;
            if told.is_err() || idle.send(number).await.is_err() {
                // Nobody wants the next one: the load ends here or was given up.
                jobs.close();
            }
        }
    }

    /// A connection that is ready. Opening is no retry: nothing was sent yet.
    async fn open(&mut self) -> Result<(), String> {
        if let Some(sender) = &mut self.sender
            && sender.ready().await.is_ok()
        {
            return Ok(());
        }
        let stream = self.shell.connect(&self.plan.address).await.map_err(|error| error.to_string())?;
        let (sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        self.shell.spawn(async move {
            // What breaks here shows at the request.
            let _ = connection.await;
        });
        self.sender = Some(sender);
        Ok(())
    }

    async fn send(&mut self, request: usize) -> Outcome {
        let unanswered = |reason: String| Outcome::Unanswered { reason };
        let Some(sender) = &mut self.sender else {
            return unanswered("no connection".to_owned());
        };
        let line = self.plan.lines[request % self.plan.lines.len()].clone();
        let message = Request::post("/flights")
            .header(HOST, &self.plan.address)
            .header(CONTENT_TYPE, "text/csv")
            .header(REQUEST_HEADER, request)
            .body(Full::new(line))
            .expect("the parts of the request are fixed and valid");
        let call = async {
            let response = sender.send_request(message).await.map_err(|error| error.to_string())?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_LIMIT_BYTES).collect().await;
            Ok((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        match self.shell.within(REPLY_LIMIT, call).await {
            Some(Ok((status, body))) => read_reply(status, &body),
            Some(Err(reason)) => {
                self.sender = None;
                unanswered(reason)
            }
            None => {
                self.sender = None;
                unanswered(format!("no reply within {REPLY_LIMIT:?}"))
            }
        }
    }
}

fn read_reply(status: u16, body: &[u8]) -> Outcome {
    #[derive(Deserialize)]
    struct Reply {
        n: u64,
        hash: Hash,
    }
    match serde_json::from_slice::<Reply>(body) {
        Ok(Reply { n, hash }) if status == 200 => Outcome::Acknowledged { n, hash },
        _ => Outcome::Refused { status, detail: String::from_utf8_lossy(body).chars().take(300).collect() },
    }
}

#[cfg(test)]
mod tests;
