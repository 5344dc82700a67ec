//! A small HTTP/1.1 client: one connection for each call, nothing retried, everything bounded.

use std::time::Duration;

use broker_adapter::shell::Shell;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper::{HeaderMap, Request};
use hyper_util::rt::TokioIo;
use serde_json::Value;

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Its status.
    pub status: u16,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its content.
    pub body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody listens: nothing was sent.
    #[error("cannot connect: {0}")]
    Connect(std::io::Error),
    /// The connection broke: the outcome is unknown.
    #[error("the connection broke: {0}")]
    Broken(hyper::Error),
    /// Nothing came in time.
    #[error("no answer came in time")]
    Hung,
}

impl Answer {
    /// Its content as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Its content as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    pub fn json(&self) -> Value {
        let parsed = serde_json::from_slice(&self.body);
        parsed.unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// A header as text; empty if it is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }
}

/// Connects to `HOST:PORT`.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn open(shell: &Shell, address: &str) -> Result<SendRequest<Full<Bytes>>, CallError> {
    let stream = shell.connect(address).await.map_err(CallError::Connect)?;
    let (sender, connection) = handshake(TokioIo::new(stream)).await.map_err(CallError::Broken)?;
    shell.spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "a client's connection ended");
        }
    });
    Ok(sender)
}

/// Sends one request over an open connection and waits for the whole answer.
///
/// # Errors
/// [`CallError`].
pub(crate) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, CallError> {
    let (head, body) = sender.send_request(request).await.map_err(CallError::Broken)?.into_parts();
    let body = body.collect().await.map_err(CallError::Broken)?.to_bytes();
    Ok(Answer { status: head.status.as_u16(), headers: head.headers, body })
}

/// One call, such as `call(&shell, "127.0.0.1:8080", "GET", "/readyz", "", limit)`. A body is sent as JSON.
///
/// # Errors
/// [`CallError`].
///
/// # Panics
/// If method or path is none.
pub async fn call(
    shell: &Shell,
    address: &str,
    (method, path): (&str, &str),
    body: impl Into<Bytes>,
    limit: Duration,
) -> Result<Answer, CallError> {
    let body: Bytes = body.into();
    let mut request = Request::builder().method(method).uri(path).header("host", address);
    if !body.is_empty() {
        request = request.header("content-type", "application/json");
    }
    let request = request.body(Full::new(body)).expect("tests write good requests");
    call_with(shell, address, request, limit).await
}

/// One call with this very request.
///
/// # Errors
/// [`CallError`].
pub async fn call_with(
    shell: &Shell,
    address: &str,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Answer, CallError> {
    let called = async {
        let mut sender = open(shell, address).await?;
        send(&mut sender, request).await
    };
    shell.within(limit, called).await.unwrap_or(Err(CallError::Hung))
}

/// The same with an `Idempotency-Key`.
///
/// # Errors
/// [`CallError`].
///
/// # Panics
/// If method, path or key is none.
pub async fn call_with_key(
    shell: &Shell,
    address: &str,
    (method, path): (&str, &str),
    body: Full<Bytes>,
    key: &str,
    limit: Duration,
) -> Result<Answer, CallError> {
    let request = Request::builder().method(method).uri(path).header("host", address).header("idempotency-key", key);
    let request = request.body(body).expect("tests write good requests");
    call_with(shell, address, request, limit).await
}
