//! The HTTP/1.1 server of an ingress: any method and path, one port per service.
//!
//! Owns limits and refusals before anything is appended. What becomes of a request is decided by `session` and `reads`.

use std::sync::Arc;

use broker_adapter::record::{Body, Header, Request};
use broker_adapter::shell::{Duplex, Listener};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::sync::{Semaphore, mpsc, oneshot};

use super::reads::{Reads, is_safe};
use super::{Answer, KEY_MAX_BYTES, Submission};
use crate::service::is_hop_by_hop;
use crate::shard::Context;

/// How many clients may be connected at once; more wait to be accepted.
const CONNECTIONS_MAX: usize = 16_384;

/// What a connection needs.
#[derive(Clone)]
struct Server {
    context: Context,
    submissions: mpsc::Sender<Submission>,
    reads: Reads,
}

/// Accepts clients until the process ends.
pub async fn serve(
    context: Context,
    mut listener: Box<dyn Listener>,
    submissions: mpsc::Sender<Submission>,
    reads: Reads,
) {
    let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let server = Server { context, submissions, reads };
    loop {
        let Ok(place) = room.clone().acquire_owned().await else { return };
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

impl Server {
    async fn connection(&self, stream: Box<dyn Duplex>) {
        let service = service_fn(|request| {
            let server = self.clone();
            async move { Ok::<_, std::convert::Infallible>(server.handle(request).await) }
        });
        let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        if let Err(error) = served {
            tracing::debug!(%error, "a client's connection ended");
        }
    }

    async fn handle(&self, request: hyper::Request<Incoming>) -> hyper::Response<Full<Bytes>> {
        let reply = match self.answer(request).await {
            Ok(answer) | Err(answer) => answer.into_reply(),
        };
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

    async fn answer(&self, request: hyper::Request<Incoming>) -> Result<Answer, Answer> {
        let (request, client_key) = self.read_request(request).await?;
        if is_safe(&request.method) {
            return Ok(self.reads.fresh(request).await);
        }
        let (answer, answered) = oneshot::channel();
        let submission = Submission { request, client_key, answer };
        if self.submissions.try_send(submission).is_err() {
            return Err(Answer::Unavailable {
                code: "ingress-busy",
                detail: "the ingress has more requests than it can take in".to_owned(),
            });
        }
        answered.await.map_err(|_| Answer::Unavailable {
            code: "ingress-stopped",
            detail: "the ingress stopped; whether the request was applied is not known".to_owned(),
        })
    }

    async fn read_request(&self, request: hyper::Request<Incoming>) -> Result<(Request, Option<String>), Answer> {
        let (head, body) = request.into_parts();
        let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        if head.uri.path() == self.context.config.state_path() {
            return Err(Answer::Refused {
                status: 404,
                code: "state-path",
                detail: format!("{path} is where the sidecar saves and loads the state; it is not reachable from here"),
            });
        }
        if self.context.config.batch.as_deref() == Some(head.uri.path()) {
            return Err(Answer::Refused {
                status: 404,
                code: "batch-path",
                detail: format!("{path} is where the sidecar delivers batches; it is not reachable from here"),
            });
        }
        let client_key = match head.headers.get("idempotency-key") {
            None => None,
            Some(key) if key.len() > KEY_MAX_BYTES || key.to_str().is_err() => {
                return Err(Answer::Refused {
                    status: 400,
                    code: "bad-idempotency-key",
                    detail: format!("an Idempotency-Key is text of at most {KEY_MAX_BYTES} bytes"),
                });
            }
            Some(key) => key.to_str().ok().map(str::to_owned),
        };
        let limit = self.context.config.body_limit_bytes;
        let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect().await;
        let body = body.map_err(|error| {
            if error.is::<LengthLimitError>() {
                let detail = format!("the request's body is above body_limit_bytes = {limit}");
                Answer::Refused { status: 413, code: "body-too-large", detail }
            } else {
                let detail = format!("the request's body could not be read: {error}");
                Answer::Refused { status: 400, code: "bad-body", detail }
            }
        })?;
        let headers = head
            .headers
            .iter()
            .filter(|(name, _)| !is_hop_by_hop(name.as_str()) && !name.as_str().starts_with("segue-"))
            .map(|(name, value)| Header {
                name: name.as_str().to_owned(),
                value: Bytes::copy_from_slice(value.as_bytes()),
            })
            .collect();
        let request =
            Request { method: head.method.as_str().to_owned(), path, headers, body: Body::Inline(body.to_bytes()) };
        Ok((request, client_key))
    }
}
