//! The ledger as an HTTP/1.1 service: `POST /append`, `GET /value`, `GET /ready`, `GET` and `PUT /segue/state`, and batches.
//!
//! One [`Ledger`] is one instance: a restart is a new one, with the same faults. Crashing is handed in, because in the
//! simulation it drops a task set and in a process it exits.

use std::convert::Infallible;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard};

use broker_adapter::shell::{Duplex, Listener, Shell};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;

use super::{Chain, Faults, Value};

const ID_LIMIT_BYTES: usize = 16 << 20;
const BATCH_LIMIT_BYTES: usize = 64 << 20;
const STATE_LIMIT_BYTES: usize = 256 << 20;

/// One instance of the ledger; clones show the same one.
#[derive(Clone)]
pub struct Ledger {
    shell: Shell,
    chain: Arc<Mutex<Chain>>,
    faults: Arc<Mutex<Faults>>,
    crash: Arc<dyn Fn() + Send + Sync>,
    fired: Option<Arc<dyn Fn() + Send + Sync>>,
    loaded: Arc<Mutex<Loaded>>,
}

/// The last load: requests that came before it are dropped, because the state is not theirs any more.
#[derive(Clone, Debug, Default, PartialEq)]
struct Loaded {
    number: u64,
    token: Option<HeaderValue>,
}

/// What a place in the list triggers.
enum Fate {
    Live,
    CrashBefore,
    CrashAfter,
    Hang,
    HangAfter,
}

impl Ledger {
    /// An empty ledger. `crash` must end this instance's tasks, and may do so before or after it returns.
    #[must_use]
    pub fn new(shell: Shell, faults: Arc<Mutex<Faults>>, crash: Arc<dyn Fn() + Send + Sync>) -> Ledger {
        Ledger { shell, chain: Arc::default(), faults, crash, fired: None, loaded: Arc::default() }
    }

    /// Calls this as a fault at a place in the list fires, before anything goes wrong.
    #[must_use]
    pub fn when_fired(self, fired: Arc<dyn Fn() + Send + Sync>) -> Ledger {
        Ledger { fired: Some(fired), ..self }
    }

    /// A copy of its present state.
    #[must_use]
    pub fn chain(&self) -> Chain {
        self.locked_chain().clone()
    }

    /// Listens at `HOST:PORT` and serves from now on; tells the address, with its port if 0 was asked for.
    ///
    /// # Errors
    /// What the world says about the address.
    pub async fn serve(&self, address: &str) -> io::Result<String> {
        let listener = self.shell.listen(address).await?;
        let address = listener.address();
        self.shell.spawn(self.clone().accept(listener));
        Ok(address)
    }

    async fn accept(self, mut listener: Box<dyn Listener>) {
        while let Ok(connection) = listener.accept().await {
            self.shell.spawn(self.clone().talk(connection));
        }
    }

    async fn talk(self, connection: Box<dyn Duplex>) {
        let service = service_fn(|request| {
            let ledger = self.clone();
            async move { Ok::<_, Infallible>(ledger.answer(request).await) }
        });
        let mut http = hyper::server::conn::http1::Builder::new();
        // No date: answers are the same in every run of a seed.
        let served = http.auto_date_header(false).serve_connection(TokioIo::new(connection), service).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a connection to the ledger ended");
        }
    }

    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let before = self.locked_loaded().clone();
        let token = request.headers().get("segue-instance").cloned();
        let is_load = request.method() == hyper::Method::PUT;
        let mut response = self.answer_plain(request, token).await;
        let loaded = self.locked_loaded().clone();
        if !is_load && loaded != before {
            return std::future::pending().await;
        }
        if let Some(token) = loaded.token.filter(|_| self.locked_faults().echoes) {
            response.headers_mut().insert("segue-instance", token);
        }
        response
    }

    async fn answer_plain(&self, request: Request<Incoming>, token: Option<HeaderValue>) -> Response<Full<Bytes>> {
        let method = request.method().clone();
        let path = request.uri().path().to_owned();
        match (method.as_str(), path.as_str()) {
            ("GET", "/ready") => plain(StatusCode::OK, "ready\n"),
            ("GET", "/segue/state") => self.save().await,
            ("PUT", "/segue/state") => match text(request, STATE_LIMIT_BYTES).await {
                Ok(state) => self.load(&state, token).await,
                Err(reason) => plain(StatusCode::BAD_REQUEST, reason),
            },
            ("POST", "/segue/batch") => match text(request, BATCH_LIMIT_BYTES).await {
                Ok(lines) => self.batch(&lines).await,
                Err(reason) => plain(StatusCode::BAD_REQUEST, reason),
            },
            (method, path) => match text(request, ID_LIMIT_BYTES).await {
                Ok(body) => self.apply_request(method, path, &body).await,
                Err(reason) => plain(StatusCode::BAD_REQUEST, reason),
            },
        }
    }

    /// What a request is answered, alone or in a batch, where `path` has its query.
    pub(super) async fn apply_request(&self, method: &str, path: &str, body: &str) -> Response<Full<Bytes>> {
        let path = path.split('?').next().unwrap_or_default();
        match (method, path) {
            ("POST", "/append") => self.append(body).await,
            ("GET", "/value") => json(&self.locked_chain().value()),
            ("GET", "/ids") => plain(StatusCode::OK, self.locked_chain().ids().join("\n")),
            _ => plain(StatusCode::NOT_FOUND, format!("the ledger has no {method} {path}\n")),
        }
    }

    async fn append(&self, id: &str) -> Response<Full<Bytes>> {
        if id.is_empty() || id.starts_with('#') || id.contains(['\n', '\r']) {
            return plain(StatusCode::BAD_REQUEST, "an id is one line that does not begin with '#'\n");
        }
        let (fate, delay) = self.fate(self.locked_chain().value().n + 1);
        let before = self.locked_loaded().clone();
        if !delay.is_zero() {
            self.shell.sleep(delay).await;
        }
        if *self.locked_loaded() != before {
            return std::future::pending().await;
        }
        if let (Some(fired), false) = (&self.fired, matches!(fate, Fate::Live)) {
            fired();
        }
        match fate {
            Fate::Live => json(&self.apply(id)),
            Fate::Hang => std::future::pending().await,
            Fate::HangAfter => {
                self.apply(id);
                std::future::pending().await
            }
            Fate::CrashBefore => self.crash().await,
            Fate::CrashAfter => {
                self.apply(id);
                self.crash().await
            }
        }
    }

    fn apply(&self, id: &str) -> Value {
        let noisy = self.locked_faults().nondeterministic;
        let noise = if noisy { self.shell.random().to_string() } else { String::new() };
        self.locked_chain().append(id, noise.as_bytes())
    }

    /// Takes the fault out as it fires, unless it shall fire always.
    fn fate(&self, place: u64) -> (Fate, std::time::Duration) {
        let mut faults = self.locked_faults();
        let here = Some(place);
        let (fate, at) = match () {
            () if faults.crash_before == here => (Fate::CrashBefore, &mut faults.crash_before),
            () if faults.crash_after == here => (Fate::CrashAfter, &mut faults.crash_after),
            () if faults.hang_at == here => (Fate::Hang, &mut faults.hang_at),
            () if faults.hang_after == here => (Fate::HangAfter, &mut faults.hang_after),
            () => return (Fate::Live, faults.delay),
        };
        let fired = at.take();
        if faults.always {
            match fate {
                Fate::CrashBefore => faults.crash_before = fired,
                Fate::CrashAfter => faults.crash_after = fired,
                Fate::HangAfter => faults.hang_after = fired,
                _ => faults.hang_at = fired,
            }
        }
        (fate, faults.delay)
    }

    async fn crash(&self) -> Response<Full<Bytes>> {
        (self.crash)();
        std::future::pending().await
    }

    async fn save(&self) -> Response<Full<Bytes>> {
        let faults = self.locked_faults().clone();
        if !faults.save_takes.is_zero() {
            self.shell.sleep(faults.save_takes).await;
        }
        if faults.refuse_save {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the ledger was told to refuse to save\n");
        }
        let mut state = self.locked_chain().save();
        if faults.not_canonical {
            state.insert_str(0, &format!("# {}\n", self.shell.random()));
        }
        let mut response = plain(StatusCode::OK, state);
        if let Some(promises) = faults.promises() {
            response.headers_mut().insert("segue-snapshot", HeaderValue::from_static(promises));
        }
        response
    }

    async fn load(&self, state: &str, token: Option<HeaderValue>) -> Response<Full<Bytes>> {
        let takes = self.locked_faults().load_takes;
        self.shell.sleep(takes).await;
        if self.locked_faults().refuses_load() {
            return plain(StatusCode::INTERNAL_SERVER_ERROR, "the ledger was told to refuse to load\n");
        }
        match Chain::load(state) {
            Ok(mut chain) => {
                if std::mem::take(&mut self.locked_faults().corrupt_load) {
                    chain.corrupt();
                }
                *self.locked_chain() = chain;
                let mut loaded = self.locked_loaded();
                *loaded = Loaded { number: loaded.number + 1, token };
                plain(StatusCode::OK, "loaded\n")
            }
            Err(error) => plain(StatusCode::BAD_REQUEST, format!("{error}\n")),
        }
    }

    fn locked_chain(&self) -> MutexGuard<'_, Chain> {
        self.chain.lock().expect("nothing panics under this lock")
    }

    /// Takes a fault of batches out as it fires, unless it shall fire always.
    pub(super) fn batch_fault(&self, fault: fn(&mut Faults) -> &mut bool) -> bool {
        let mut faults = self.locked_faults();
        let (always, fires) = (faults.always, *fault(&mut faults));
        *fault(&mut faults) &= always;
        drop(faults);
        if let (Some(fired), true) = (&self.fired, fires) {
            fired();
        }
        fires
    }

    fn locked_loaded(&self) -> MutexGuard<'_, Loaded> {
        self.loaded.lock().expect("nothing panics under this lock")
    }

    fn locked_faults(&self) -> MutexGuard<'_, Faults> {
        self.faults.lock().expect("nothing panics under this lock")
    }
}

async fn text(request: Request<Incoming>, limit_bytes: usize) -> Result<String, String> {
    let body = Limited::new(request.into_body(), limit_bytes).collect().await.map_err(|error| error.to_string())?;
    String::from_utf8(body.to_bytes().into()).map_err(|_| "the body is not UTF-8\n".to_owned())
}

pub(super) fn plain(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response
}

fn json(value: &Value) -> Response<Full<Bytes>> {
    let body = serde_json::to_vec(value).expect("a number and a text have a JSON form");
    let mut response = plain(StatusCode::OK, body);
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}
