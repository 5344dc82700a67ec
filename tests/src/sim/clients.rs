//! The clients of the simulation: each sends its ids one after the other, through either node's ingress, and notes what came.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::Full;
use rand::Rng;
use rand::rngs::StdRng;

use super::stage::{INGRESSES, Stage};
use crate::checker::{Observation, Outcome};
use crate::harness::http::{Answer, CallError, open, send};
use crate::harness::load::{outcome, signature};

/// Where the ledger takes ids.
pub const PATH: &str = "/append";
const CLIENTS: usize = 6;
/// A client gives a connection up after this: far above every time-out of an ingress.
const HANG_LIMIT: Duration = Duration::from_secs(120);

/// Clients under way.
pub struct Clients {
    noted: Arc<Mutex<Vec<Observation>>>,
    done: Vec<tokio::sync::oneshot::Receiver<()>>,
    _tasks: TaskSet,
}

impl Clients {
    /// Waits for all; says whether some did not end in time.
    pub async fn wait(self, limit: Duration) -> (Vec<Observation>, bool) {
        let all = futures_util::future::join_all(self.done);
        let late = tokio::time::timeout(limit, all).await.is_err();
        let mut noted = self.noted.lock().expect("nothing panics under this lock").clone();
        noted.sort_by(|left, right| (left.sent, &left.id).cmp(&(right.sent, &right.id)));
        (noted, late)
    }
}

/// Whether an answer promises that nothing was appended.
fn refusals(answer: &Result<Answer, CallError>) -> bool {
    matches!(outcome_of(answer), Outcome::Refused { .. })
}

fn outcome_of(answer: &Result<Answer, CallError>) -> Outcome {
    match answer {
        // Nobody listened: nothing was sent.
        Err(CallError::Connect(_)) => Outcome::Refused { status: 503 },
        Err(CallError::Hung) => Outcome::Hung,
        Err(CallError::Broken(_)) => Outcome::Unknown,
        // Too old to tell, or applied with a reply that is no longer kept.
        Ok(answer) if answer.status == 410 => Outcome::Unknown,
        Ok(answer) => outcome(Ok(answer.clone())),
    }
}

struct Client {
    name: String,
    shell: Shell,
    ids: usize,
    pauses: Vec<Duration>,
    ingresses: Vec<&'static str>,
    keyed: Vec<bool>,
    noted: Arc<Mutex<Vec<Observation>>>,
}

/// All messages of a run.
pub fn start(stage: &Stage, messages: usize, with_keys: bool, rng: &mut StdRng) -> Clients {
    begin(stage, "c", messages.div_ceil(CLIENTS), with_keys, rng)
}

/// A few more, after the faults.
pub fn some_more(stage: &Stage, messages: usize, rng: &mut StdRng) -> Clients {
    begin(stage, "z", messages.div_ceil(CLIENTS), false, rng)
}

fn begin(stage: &Stage, prefix: &str, ids: usize, with_keys: bool, rng: &mut StdRng) -> Clients {
    let (shell, tasks) = stage.world.process();
    let noted = Arc::<Mutex<Vec<Observation>>>::default();
    let mut done = Vec::new();
    for number in 0..CLIENTS {
        let client = Client {
            name: format!("{prefix}{number}"),
            shell: shell.clone(),
            ids,
            pauses: (0..ids).map(|_| Duration::from_millis(rng.random_range(0..120))).collect(),
            ingresses: (0..ids).map(|_| INGRESSES[rng.random_range(0..INGRESSES.len())]).collect(),
            keyed: (0..ids).map(|_| with_keys && rng.random_ratio(1, 3)).collect(),
            noted: noted.clone(),
        };
        let (sender, receiver) = tokio::sync::oneshot::channel();
        done.push(receiver);
        shell.spawn(async move {
            client.run().await;
            // The run may be over.
            let _ = sender.send(());
        });
    }
    Clients { noted, done, _tasks: tasks }
}

impl Client {
    async fn run(self) {
        for index in 0..self.ids {
            self.shell.sleep(self.pauses[index]).await;
            let id = format!("{}-{index}", self.name);
            let key = self.keyed[index].then(|| format!("key-{id}"));
            let due = self.shell.now();
            let mut answer = self.once(self.ingresses[index], &id, key.as_deref()).await;
            let mut refused = refusals(&answer);
            // What has a key may be repeated anywhere, until there is an answer.
            for ingress in INGRESSES.iter().cycle().take(if key.is_some() { 6 } else { 0 }) {
                if matches!(outcome_of(&answer), Outcome::Reply { .. }) {
                    break;
                }
                self.shell.sleep(Duration::from_millis(200)).await;
                answer = self.once(ingress, &id, key.as_deref()).await;
                refused &= refusals(&answer);
            }
            let given = answer.as_ref().ok().and_then(signature);
            let outcome = match outcome_of(&answer) {
                // Refused now, and perhaps applied before.
                Outcome::Refused { .. } if !refused => Outcome::Unknown,
                outcome => outcome,
            };
            let completed = Some(self.shell.now());
            let seen = Observation { id, due, sent: due, completed, outcome, given };
            self.noted.lock().expect("nothing panics under this lock").push(seen);
        }
    }

    async fn once(&self, ingress: &str, id: &str, key: Option<&str>) -> Result<Answer, CallError> {
        self.shell.within(HANG_LIMIT, self.send(ingress, id, key)).await.unwrap_or(Err(CallError::Hung))
    }

    async fn send(&self, ingress: &str, id: &str, key: Option<&str>) -> Result<Answer, CallError> {
        let (shell, _connection) = self.shell.part();
        let mut request = hyper::Request::post(PATH).header("host", "ledger");
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        let request = request.body(Full::<Bytes>::from(id.to_owned())).expect("a good request");
        match open(&shell, ingress).await {
            Err(_) => Err(CallError::Connect(std::io::ErrorKind::ConnectionRefused.into())),
            Ok(mut sender) => send(&mut sender, request).await,
        }
    }
}
