//! A service that answers with what it was asked, and remembers it outside its state.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker_adapter::shell::{Duplex, Shell, TaskSet};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::json;
use sidecar::runner::{Instance, RunError, Runner};

type Headers = BTreeMap<String, String>;

/// What all its instances have seen.
#[derive(Clone, Default)]
pub struct Mirror {
    seen: Arc<Mutex<Vec<(String, Headers)>>>,
    delay: Arc<Mutex<Duration>>,
}

impl Mirror {
    /// The headers of all requests whose path begins so.
    pub fn seen(&self, path: &str) -> Vec<Headers> {
        let seen = self.seen.lock().expect("nothing panics under this lock");
        seen.iter().filter(|(other, _)| other.starts_with(path)).map(|(_, headers)| headers.clone()).collect()
    }

    /// How long each request takes from now on.
    pub fn delay(&self, delay: Duration) {
        *self.delay.lock().expect("nothing panics under this lock") = delay;
    }

    async fn answer(&self, shell: &Shell, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let path = request.uri().to_string();
        if path == "/ready" || path == "/state" {
            return Response::new(Full::from("mirror"));
        }
        let text = |value: &hyper::header::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
        let headers: Headers = request.headers().iter().map(|(name, value)| (name.to_string(), text(value))).collect();
        self.seen.lock().expect("nothing panics under this lock").push((path.clone(), headers.clone()));
        let delay = *self.delay.lock().expect("nothing panics under this lock");
        shell.sleep(delay).await;
        let body = json!({ "method": request.method().as_str(), "path": path, "headers": headers });
        Response::new(Full::from(body.to_string()))
    }

    async fn talk(self, shell: Shell, stream: Box<dyn Duplex>) {
        let service = service_fn(|request| {
            let (mirror, shell) = (self.clone(), shell.clone());
            async move { Ok::<_, Infallible>(mirror.answer(&shell, request).await) }
        });
        // How it ended shows in what the client got.
        let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
    }
}

/// Starts mirrors that share what they see.
pub struct MirrorRunner {
    shell: Shell,
    host: String,
    mirror: Mirror,
}

impl MirrorRunner {
    pub fn new(shell: Shell, host: &str, mirror: Mirror) -> MirrorRunner {
        MirrorRunner { shell, host: host.to_owned(), mirror }
    }
}

struct Running {
    address: String,
    tasks: Option<TaskSet>,
}

#[async_trait]
impl Runner for MirrorRunner {
    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        let (shell, tasks) = self.shell.part();
        let listening = shell.listen(&format!("{}:0", self.host)).await;
        let mut listener =
            listening.map_err(|error| RunError { command: "the mirror".to_owned(), reason: error.to_string() })?;
        let address = listener.address();
        let (mirror, talker) = (self.mirror.clone(), shell.clone());
        shell.spawn(async move {
            while let Ok(stream) = listener.accept().await {
                talker.spawn(mirror.clone().talk(talker.clone(), stream));
            }
        });
        Ok(Box::new(Running { address, tasks: Some(tasks) }))
    }
}

#[async_trait]
impl Instance for Running {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_alive(&mut self) -> bool {
        self.tasks.is_some()
    }

    async fn stop(&mut self) {
        self.tasks = None;
    }
}
