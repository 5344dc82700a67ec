//! The HTTP server of an ingress, HTTP/1.1 and h2c with prior knowledge: any method and path, one port per service.
//!
//! Chooses what becomes of a request: a record (`session`), a read or a bypass (`reads`), a kept reply (`fetch`). Paths under
//! `/segue/` are the sidecar's own.

use std::pin::pin;
use std::sync::{Arc, OnceLock};

use broker_adapter::record::Header;
use broker_adapter::shell::{Duplex, Listener, Shell};
use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use hyper_util::server::conn::auto;
use tokio::sync::{Semaphore, mpsc, oneshot};
use tracing::{Instrument, Span};

use super::fetch::{Fetch, Question};
use super::idle::Requests;
use super::reads::Reads;
use super::request::{self, Room, Whole};
use super::{Answer, Submission, paths};
use crate::config::HEAD_LIMIT_BYTES;
use crate::config::path::{is_reserved, plain};
use crate::config::route::{Treatment, treatment};
use crate::shard::{Context, Views};
use crate::trace;

/// How many clients may be connected at once; more wait to be accepted. Idle ones are closed.
const CONNECTIONS_MAX: usize = 16_384;
/// How many requests one HTTP/2 connection may have under way.
const STREAMS_MAX: u32 = 256;

/// What an ingress's server is given.
pub struct Parts {
    /// Its shard.
    pub context: Context,
    /// The way into the log.
    pub submissions: mpsc::Sender<Submission>,
    /// The way past it.
    pub reads: Reads,
    /// What the fold knows of keys.
    pub questions: mpsc::Sender<Question>,
    /// Tail and replica.
    pub views: Views,
}

/// What a connection needs.
#[derive(Clone)]
struct Server {
    context: Context,
    submissions: mpsc::Sender<Submission>,
    reads: Reads,
    fetch: Fetch,
    room: Room,
}

/// Accepts clients until the process ends.
pub async fn serve(parts: Parts, mut listener: Box<dyn Listener>) {
    let connections = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let Parts { context, submissions, reads, questions, views } = parts;
    let fetch = Fetch { context: context.clone(), reads: reads.clone(), views, questions };
    let server = Server { room: Room::new(&context.config), context, submissions, reads, fetch };
    loop {
        let Ok(place) = connections.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(stream) => {
                let server = server.clone();
                server.context.shell.clone().spawn(async move {
                    server.connection(stream).await;
                    drop(place);
                });
            }
            Err(error) => {
                // Out of file descriptors, most likely: those in use will come back.
                tracing::warn!(%error, "cannot accept a client");
                server.context.shell.sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}

/// The tasks of an HTTP/2 connection belong to the process, like all others.
#[derive(Clone)]
struct OnShell(Shell);

impl<F: Future<Output = ()> + Send + 'static> hyper::rt::Executor<F> for OnShell {
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}

impl Server {
    async fn connection(&self, stream: Box<dyn Duplex>) {
        let requests = Requests::default();
        let service = service_fn(|request| {
            let (server, under_way) = (self.clone(), requests.begin());
            async move {
                let reply = server.handle(request).await;
                drop(under_way);
                Ok::<_, std::convert::Infallible>(reply)
            }
        });
        let mut builder = auto::Builder::new(OnShell(self.context.shell.clone()));
        builder.http1().max_buf_size(HEAD_LIMIT_BYTES);
        builder.http2().max_concurrent_streams(STREAMS_MAX).max_header_list_size(HEAD_LIMIT_BYTES as u32);
        let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), service));
        let mut is_ending = false;
        loop {
            tokio::select! { biased;
                result = &mut connection => {
                    if let Err(error) = result {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                    return;
                }
                () = requests.idle(&self.context.shell) => {
                    if is_ending {
                        return;
                    }
                    is_ending = true;
                    // What is written goes out, and a request that came just now is answered.
                    connection.as_mut().graceful_shutdown();
                }
            }
        }
    }

    async fn handle(&self, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let (span, log_span) = (trace::of_request(&self.context, &request), trace::of_log(request.headers()));
        let answer = async {
            let asked = format!("{} {}", request.method(), request.uri().path());
            let (Ok(answer) | Err(answer)) = self.answer(request, &span).await;
            answer.log(&asked);
            answer
        };
        let reply = answer.instrument(log_span).await.into_reply();
        trace::answered(&span, &reply);
        let mut builder = hyper::Response::builder().status(reply.status);
        for Header { name, value } in &reply.headers {
            builder = builder.header(name.as_str(), value.as_ref());
        }
        builder.body(Full::new(reply.body)).unwrap_or_else(|error| {
            tracing::error!(%error, "the service's reply is not HTTP");
            let mut response = hyper::Response::new(Full::new(Bytes::from_static(b"the service's reply is not HTTP")));
            *response.status_mut() = hyper::StatusCode::BAD_GATEWAY;
            response
        })
    }

    async fn answer(&self, request: hyper::Request<Incoming>, span: &Span) -> Result<Answer, Answer> {
        let path = request.uri().path();
        if let Some(key) = paths::reply_key(path) {
            return Ok(self.fetch.reply(request.method().as_str(), &key).await);
        }
        if self.context.hidden.has(path) {
            return Err(paths::hidden(path));
        }
        if is_reserved(path) {
            return Err(paths::reserved(path));
        }
        let how = treatment(&self.context.config.routes, request.method().as_str(), path, &plain(path));
        let limit = self.context.config.reply_timeout();
        let whole = request::read(&self.context.config, &self.room, request);
        let whole = self.context.shell.within(limit, whole).await.unwrap_or_else(|| {
            let detail = format!("the request's body did not come whole within {} ms", limit.as_millis());
            Err(Answer::Refused { status: 408, code: "body-timeout", detail })
        });
        // The room for its body is given back when it is answered.
        let Whole { request, client_key, room: _room } = whole?;
        match how {
            Treatment::Logged => self.log(request, client_key, span).await,
            Treatment::Fresh | Treatment::Local => Ok(self.reads.read(request, how).await),
            Treatment::Bypass => Ok(self.reads.bypass(request).await),
        }
    }

    async fn log(
        &self,
        mut request: broker_adapter::record::Request,
        client_key: Option<String>,
        span: &Span,
    ) -> Result<Answer, Answer> {
        let (answer, answered) = oneshot::channel();
        let told = Arc::new(OnceLock::new());
        trace::keep(span, &self.context, &mut request);
        let append = trace::of_append(span, &self.context);
        let submission = Submission { request, client_key, told: told.clone(), append, answer };
        if self.submissions.try_send(submission).is_err() {
            return Err(Answer::Unavailable {
                code: "ingress-busy",
                detail: "the ingress has more requests than it can take in".to_owned(),
            });
        }
        answered.await.map_err(|_| match told.get() {
            Some(key) => Answer::TimedOut { key: key.clone() },
            None => Answer::Unavailable {
                code: "ingress-stopped",
                detail: "the ingress stopped before the request was appended".to_owned(),
            },
        })
    }
}
