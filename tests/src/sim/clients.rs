//! The clients of the simulation: each sends its ids one after the other, through any node's ingress, and notes what came.
//!
//! A request that has a key is repeated until there is an answer, at any ingress; now and then its client loses its patience in the
//! middle of it and goes to another one. A 504 names a key too, which is as good.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::Full;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::mix::Mix;
use super::stage::Stage;
use crate::checker::{Observation, Outcome};
use crate::harness::http::{Answer, CallError, open, send};
use crate::harness::load::{outcome, signature};

/// Where the ledger takes ids.
pub const PATH: &str = "/append";
/// A client gives a connection up after this: far above every time-out of an ingress.
const HANG_LIMIT: Duration = Duration::from_secs(60);
/// How often a request is repeated under its key.
const REPEATS: usize = 6;

/// What a large request has besides its id.
const LARGE_BYTES: std::ops::Range<usize> = 2_000..6_000;

/// What the clients saw.
#[derive(Clone, Debug, Default)]
pub struct Noted {
    /// One for each request.
    pub seen: Vec<Observation>,
    /// Requests that were told that their reply, or their key, is too old to be known.
    pub gone: Vec<String>,
}

/// Clients under way.
pub struct Clients {
    noted: Arc<Mutex<Noted>>,
    done: Vec<tokio::sync::oneshot::Receiver<()>>,
    _tasks: TaskSet,
}

impl Clients {
    /// Waits until all have an end.
    pub async fn all(&mut self) {
        for done in self.done.drain(..) {
            // An error: the client's task is gone, and its requests are missing.
            let _ = done.await;
        }
    }

    /// What they saw, in order.
    pub fn noted(&self) -> Noted {
        let mut noted = self.noted.lock().expect("nothing panics under this lock").clone();
        noted.seen.sort_by(|left, right| (left.sent, &left.id).cmp(&(right.sent, &right.id)));
        noted
    }
}

struct Client {
    name: String,
    shell: Shell,
    rng: StdRng,
    ids: usize,
    longest_pause_ms: u64,
    ingresses: Vec<String>,
    may_repeat: bool,
    /// How often it has a key of its own.
    keyed: f64,
    /// How often a request is larger than a record may be.
    large: f64,
    noted: Arc<Mutex<Noted>>,
}

/// All messages of a run.
pub fn start(stage: &Stage, messages: usize, mix: &Mix, rng: &mut StdRng) -> Clients {
    let ids = messages.div_ceil(mix.clients);
    let pause = 2 * mix.sending_time / u32::try_from(ids).expect("a few hundred");
    let client = |number| (format!("c{number}"), ids, pause);
    begin(stage, (0..mix.clients).map(client).collect(), (!mix.forgetful, mix.large), rng)
}

/// A few more, after the faults.
pub fn some_more(stage: &Stage, name: &str, messages: usize, rng: &mut StdRng) -> Clients {
    let client = |number| (format!("{name}{number}"), 1, Duration::from_millis(500));
    begin(stage, (0..messages).map(client).collect(), (false, 0.0), rng)
}

fn begin(
    stage: &Stage,
    clients: Vec<(String, usize, Duration)>,
    (may_repeat, large): (bool, f64),
    rng: &mut StdRng,
) -> Clients {
    let (shell, tasks) = stage.world.process();
    let noted = Arc::<Mutex<Noted>>::default();
    let mut done = Vec::new();
    for (name, ids, pause) in clients {
        let client = Client {
            name,
            shell: shell.clone(),
            rng: StdRng::seed_from_u64(rng.random()),
            ids,
            longest_pause_ms: u64::try_from(pause.as_millis()).expect("a few seconds").max(1),
            ingresses: stage.ingresses(),
            may_repeat,
            // One that may not be repeated costs nothing more.
            keyed: if may_repeat { 0.3 } else { 0.7 },
            large,
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

/// What one try came to; `None` if the client had not the patience to wait for it.
type Tried = Option<Result<Answer, CallError>>;

fn outcome_of(tried: &Tried) -> Outcome {
    match tried {
        None | Some(Err(CallError::Broken(_))) => Outcome::Unknown,
        // Nobody listened: nothing was sent.
        Some(Err(CallError::Connect(_))) => Outcome::Refused { status: 503 },
        Some(Err(CallError::Hung)) => Outcome::Hung,
        // Too old to tell, or applied with a reply that is no longer kept.
        Some(Ok(answer)) if answer.status == 410 => Outcome::Unknown,
        Some(Ok(answer)) => outcome(Ok(answer.clone())),
    }
}

impl Client {
    async fn run(mut self) {
        for index in 0..self.ids {
            let pause = self.rng.random_range(0..self.longest_pause_ms);
            self.shell.sleep(Duration::from_millis(pause)).await;
            let mut id = format!("{}-{index}", self.name);
            if self.large > 0.0 && self.rng.random_bool(self.large) {
                id += &"x".repeat(self.rng.random_range(LARGE_BYTES));
            }
            let seen = self.request(id).await;
            self.noted.lock().expect("nothing panics under this lock").seen.push(seen);
        }
    }

    async fn request(&mut self, id: String) -> Observation {
        let mut key = self.rng.random_bool(self.keyed).then(|| format!("key-{}", id.trim_end_matches('x')));
        let due = self.shell.now();
        let mut tried = self.once(&id, key.as_deref()).await;
        let mut outcome = outcome_of(&tried);
        let mut refused = matches!(outcome, Outcome::Refused { .. });
        for _ in 0..if self.may_repeat { REPEATS } else { 0 } {
            if let Some(Ok(answer)) = &tried
                && answer.status == 504
                && key.is_none()
            {
                key = Some(answer.header("idempotency-key").to_owned()).filter(|key| !key.is_empty());
            }
            // Only what has a key may be repeated.
            if key.is_none() || matches!(outcome, Outcome::Reply { .. } | Outcome::Hung) {
                break;
            }
            let wait = if tried.is_some() { 200 } else { 0 };
            self.shell.sleep(Duration::from_millis(wait)).await;
            tried = self.once(&id, key.as_deref()).await;
            outcome = outcome_of(&tried);
            refused &= matches!(outcome, Outcome::Refused { .. });
        }
        let answer = tried.and_then(Result::ok);
        if answer.as_ref().is_some_and(|answer| answer.status == 410) {
            self.noted.lock().expect("nothing panics under this lock").gone.push(id.clone());
        }
        // Refused now, and perhaps applied before.
        if matches!(outcome, Outcome::Refused { .. }) && !refused {
            outcome = Outcome::Unknown;
        }
        let given = answer.as_ref().and_then(signature);
        Observation { id, due, sent: due, completed: Some(self.shell.now()), outcome, given }
    }

    async fn once(&mut self, id: &str, key: Option<&str>) -> Tried {
        let ingress = self.ingresses[self.rng.random_range(0..self.ingresses.len())].clone();
        let impatient = self.may_repeat && key.is_some() && self.rng.random_ratio(1, 3);
        if impatient {
            let patience = Duration::from_millis(self.rng.random_range(1..300));
            return self.shell.within(patience, self.send(&ingress, id, key)).await;
        }
        let sent = self.shell.within(HANG_LIMIT, self.send(&ingress, id, key)).await;
        Some(sent.unwrap_or(Err(CallError::Hung)))
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
