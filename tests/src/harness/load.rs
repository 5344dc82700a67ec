//! Open loop clients: every request is sent at its intended time, whatever happened to those before it, and what came of
//! it is written down for the checker.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::ids::{Epoch, Position, Replica};
use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::SendRequest;

use super::http::{open, send};
use super::{Answer, CallError, HANG_LIMIT, wait_for};
use crate::checker::{GivenReply, Observation, Outcome};

/// A running load.
pub struct Load {
    shell: Shell,
    inner: Arc<Inner>,
    pace: TaskSet,
}

struct Inner {
    shell: Shell,
    addresses: Vec<String>,
    path: &'static str,
    idle: Mutex<Vec<Vec<SendRequest<Full<Bytes>>>>>,
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    sent: usize,
    done: Vec<Observation>,
}

impl Load {
    /// Sends `POST /append` with the ids `PREFIX-1`, `PREFIX-2`, … to the ingresses in turn, so many each second.
    #[must_use]
    pub fn start(shell: &Shell, addresses: Vec<String>, rate_per_s: u32, prefix: &str) -> Load {
        Self::to_path(shell, addresses, rate_per_s, prefix, "/append")
    }

    /// The same with `POST` to another path.
    #[must_use]
    pub fn to_path(shell: &Shell, addresses: Vec<String>, rate_per_s: u32, prefix: &str, path: &'static str) -> Load {
        let idle = Mutex::new(addresses.iter().map(|_| Vec::new()).collect());
        let inner = Arc::new(Inner { shell: shell.clone(), addresses, path, idle, seen: Mutex::default() });
        let (pacer, pace) = shell.part();
        pacer.spawn(inner.clone().pace(rate_per_s, prefix.to_owned()));
        Load { shell: shell.clone(), inner, pace }
    }

    /// How many requests were answered with a reply so far.
    #[must_use]
    pub fn acknowledged(&self) -> usize {
        let seen = self.inner.seen.lock().expect("nothing panics under this lock");
        seen.done.iter().filter(|seen| matches!(seen.outcome, Outcome::Reply { .. })).count()
    }

    /// How many requests wait for their outcome.
    #[must_use]
    pub fn outstanding(&self) -> usize {
        let seen = self.inner.seen.lock().expect("nothing panics under this lock");
        seen.sent - seen.done.len()
    }

    /// Waits until so many more requests than now were answered with a reply.
    pub async fn acknowledges(&self, more: usize) {
        let wanted = self.acknowledged() + more;
        wait_for(&self.shell, &format!("{more} more replies"), || async {
            (self.acknowledged() >= wanted).then_some(())
        })
        .await;
    }

    /// Waits until so many requests were refused (429 or 503) since it began.
    ///
    /// # Panics
    /// If they are not.
    pub async fn is_refused(&self, times: usize) {
        wait_for(&self.shell, &format!("{times} refusals"), || async {
            let seen = self.inner.seen.lock().expect("nothing panics under this lock");
            let refused = seen.done.iter().filter(|seen| matches!(seen.outcome, Outcome::Refused { .. })).count();
            (refused >= times).then_some(())
        })
        .await;
    }

    /// Sends nothing more, waits until all that was sent has an outcome, and gives what was seen.
    ///
    /// # Panics
    /// Never: no observer outlives its lock.
    pub async fn finish(self) -> Vec<Observation> {
        drop(self.pace);
        wait_for(&self.shell, "the outcome of all that was sent", || async {
            let seen = self.inner.seen.lock().expect("nothing panics under this lock");
            (seen.done.len() == seen.sent).then_some(())
        })
        .await;
        std::mem::take(&mut self.inner.seen.lock().expect("nothing panics under this lock").done)
    }
}

impl Inner {
    async fn pace(self: Arc<Self>, rate_per_s: u32, prefix: String) {
        let began = self.shell.now();
        for number in 1u32.. {
            let due = began + Duration::from_secs(1) * number / rate_per_s;
            self.shell.sleep_until(due).await;
            self.seen.lock().expect("nothing panics under this lock").sent += 1;
            let client = number as usize % self.addresses.len();
            // Not a task of the pacer: it must end with an outcome after the last one was sent.
            self.shell.spawn(self.clone().one(client, format!("{prefix}-{number}"), due));
        }
    }

    async fn one(self: Arc<Self>, client: usize, id: String, due: Duration) {
        let sent = self.shell.now();
        // A little less than what `finish` waits, so that a hanging request is a finding and not a panic.
        let limit = HANG_LIMIT / 2;
        let answer = self.shell.within(limit, self.exchange(client, &id)).await.unwrap_or(Err(CallError::Hung));
        let given = answer.as_ref().ok().and_then(signature);
        let outcome = outcome(answer);
        let completed = (outcome != Outcome::Hung).then(|| self.shell.now());
        let observation = Observation { id, due, sent, completed, outcome, given };
        self.seen.lock().expect("nothing panics under this lock").done.push(observation);
    }

    async fn exchange(&self, client: usize, id: &str) -> Result<Answer, CallError> {
        let address = &self.addresses[client];
        let mut sender = match self.idle_connection(client) {
            Some(sender) => sender,
            None => open(&self.shell, address).await?,
        };
        let request = Request::post(self.path).header("host", address).body(Full::new(Bytes::from(id.to_owned())));
        let answer = send(&mut sender, request.expect("method, path and header are good")).await?;
        self.idle.lock().expect("nothing panics under this lock")[client].push(sender);
        Ok(answer)
    }

    /// An open connection that is ready for the next request; broken ones are dropped.
    fn idle_connection(&self, client: usize) -> Option<SendRequest<Full<Bytes>>> {
        let mut idle = self.idle.lock().expect("nothing panics under this lock");
        std::iter::from_fn(|| idle[client].pop()).find(|sender| sender.is_ready())
    }
}

/// Who gave a reply out, as its headers tell.
pub(crate) fn signature(answer: &Answer) -> Option<GivenReply> {
    let (node, incarnation) = answer.header("segue-owner").split_once('/')?;
    Some(GivenReply {
        position: Position(answer.header("segue-position").parse().ok()?),
        epoch: Epoch(answer.header("segue-epoch").parse().ok()?),
        replica: Replica { node: node.parse().ok()?, incarnation: incarnation.parse().ok()? },
    })
}

pub(crate) fn outcome(answer: Result<Answer, CallError>) -> Outcome {
    match answer {
        Ok(answer) if matches!(answer.status, 429 | 503) => Outcome::Refused { status: answer.status },
        Ok(answer) if answer.status == 504 => Outcome::Unknown,
        Ok(answer) => Outcome::Reply { status: answer.status, body: answer.body },
        Err(CallError::Connect(_) | CallError::Broken(_)) => Outcome::Unknown,
        Err(CallError::Hung) => Outcome::Hung,
    }
}
