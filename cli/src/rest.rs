//! A small HTTP/1.1 client for the REST faces of Segue: one connection per call, over the shell's transport.
//!
//! No retries, no pool, no redirects: who calls decides what a failure means. Answers are bounded, but for files (`files`).

mod files;

use std::io;
use std::path::Path;
use std::time::Duration;

use broker_adapter::shell::{Duplex, Shell};
use broker_adapter::tls::{HandshakeError, TlsClient, TlsError};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper::{HeaderMap, Request, Response};
use hyper_util::rt::TokioIo;

/// The largest answer that is read: a saved state in tests; a board has less than 1 MiB.
const ANSWER_LIMIT_BYTES: usize = 64 << 20;

/// A request's body on its way.
type SentBody = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

/// Asks one server.
#[derive(Clone)]
pub struct Rest {
    /// As it was given, without a slash at its end.
    url: String,
    address: String,
    tls: Option<TlsClient>,
    shell: Shell,
    limit: Duration,
    token: Option<String>,
}

/// A complete answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// As a number: 200, 404, …
    pub status: u16,
    headers: HeaderMap,
    /// The content.
    pub body: Bytes,
}

/// An answer whose content is still to be read.
pub struct Opened {
    response: Response<Incoming>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum RestError {
    /// No URL of ours.
    #[error("{0:?} is no URL that can be asked: use http://HOST:PORT or https://HOST:PORT")]
    BadUrl(String),
    /// Nobody answers there.
    #[error("nobody answers at {url}: {reason}")]
    Unreachable {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// Who may sign its certificate cannot be known.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The connection broke, or the answer is too large.
    #[error("the answer of {url} broke off: {reason}")]
    Broken {
        /// Where.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It took too long.
    #[error("{url} did not answer within {limit:?}")]
    TimedOut {
        /// Where.
        url: String,
        /// How long.
        limit: Duration,
    },
}

impl Answer {
    /// A header's value, if it is there and text.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The content as JSON; `Null` if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

impl Opened {
    /// Reads the content.
    ///
    /// # Errors
    /// If it breaks off or is too large.
    pub async fn read(self) -> Result<Answer, String> {
        let (head, body) = self.response.into_parts();
        let body = Limited::new(body, ANSWER_LIMIT_BYTES).collect().await.map_err(|error| error.to_string())?;
        Ok(Answer { status: head.status.as_u16(), headers: head.headers, body: body.to_bytes() })
    }
}

impl Rest {
    /// Asks the server at `http://HOST:PORT`; every call takes at most `limit`.
    ///
    /// # Errors
    /// If the URL is of another form.
    pub fn new(url: &str, shell: Shell, limit: Duration) -> Result<Rest, RestError> {
        Rest::believing(None, url, shell, limit)
    }

    /// The same, also at `https://HOST:PORT` with a certificate signed by who is named in `ca`, or whom the system trusts.
    ///
    /// # Errors
    /// If the URL is of another form, or the file cannot be used.
    pub fn believing(ca: Option<&Path>, url: &str, shell: Shell, limit: Duration) -> Result<Rest, RestError> {
        let plain = url.strip_prefix("http://");
        let address = plain.or_else(|| url.strip_prefix("https://")).map(|rest| rest.trim_end_matches('/'));
        let Some(address) = address.filter(|address| address.contains(':') && !address.contains('/')) else {
            return Err(RestError::BadUrl(url.to_owned()));
        };
        let client = || TlsClient::new(address, ca, "--ca");
        let tls = plain.is_none().then(client).transpose()?;
        let (url, address) = (url.trim_end_matches('/').to_owned(), address.to_owned());
        Ok(Rest { url, address, tls, shell, limit, token: None })
    }

    async fn connect(&self) -> Result<Box<dyn Duplex>, String> {
        let connection = self.shell.connect(&self.address).await.map_err(|error| error.to_string())?;
        let Some(tls) = &self.tls else { return Ok(connection) };
        tls.connect(connection).await.map_err(|error| match error {
            HandshakeError::NotTls(_) => format!("{error}: write http://{}", self.address),
            HandshakeError::Untrusted(_) => {
                format!("{error}: name who signed it by --ca or SEGUE_CA, and the host as the certificate has it")
            }
            error => error.to_string(),
        })
    }

    /// Shows who asks, from now on (RFC 6750, section 2.1).
    #[must_use]
    pub fn with_token(self, token: Option<String>) -> Rest {
        Rest { token, ..self }
    }

    /// The content of a path.
    ///
    /// # Errors
    /// If there is no complete answer in time.
    pub async fn get(&self, path: &str) -> Result<Answer, RestError> {
        // What is a stream to browsers is one answer to us.
        let more = [("accept", "application/json")];
        self.call_with(("GET", path), "application/json", &more, Bytes::new()).await
    }

    /// Sends JSON to a path.
    ///
    /// # Errors
    /// If there is no complete answer in time.
    pub async fn post(&self, path: &str, content: &serde_json::Value) -> Result<Answer, RestError> {
        self.call("POST", path, "application/json", content.to_string().into()).await
    }

    /// The same; the server answers a key that it knows as it did the first time.
    ///
    /// # Errors
    /// If there is no complete answer in time.
    pub async fn post_with_key(
        &self,
        path: &str,
        content: &serde_json::Value,
        key: Option<&str>,
    ) -> Result<Answer, RestError> {
        let more: Vec<(&str, &str)> = key.map(|key| ("idempotency-key", key)).into_iter().collect();
        self.call_with(("POST", path), "application/json", &more, content.to_string().into()).await
    }

    /// Sends any request and reads the whole answer.
    ///
    /// # Errors
    /// If there is no complete answer in time.
    pub async fn call(&self, method: &str, path: &str, kind: &str, body: Bytes) -> Result<Answer, RestError> {
        self.call_with((method, path), kind, &[], body).await
    }

    async fn call_with(
        &self,
        (method, path): (&str, &str),
        kind: &str,
        more: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Answer, RestError> {
        let call = async {
            let opened = self.open((method, path), kind, more, body).await?;
            opened.read().await.map_err(|reason| RestError::Broken { url: self.url.clone(), reason })
        };
        let limit = self.limit;
        let late = || RestError::TimedOut { url: self.url.clone(), limit };
        self.shell.within(limit, call).await.ok_or_else(late)?
    }

    /// Sends any request, with more headers, and waits for the head of the answer only.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn open(
        &self,
        (method, path): (&str, &str),
        kind: &str,
        more: &[(&str, &str)],
        body: Bytes,
    ) -> Result<Opened, RestError> {
        let body = Full::new(body).map_err(|never| match never {}).boxed_unsync();
        self.send((method, path), kind, more, body).await
    }

    async fn send(
        &self,
        (method, path): (&str, &str),
        kind: &str,
        more: &[(&str, &str)],
        body: SentBody,
    ) -> Result<Opened, RestError> {
        let unreachable = |reason: String| RestError::Unreachable { url: self.url.clone(), reason };
        let mut request =
            Request::builder().method(method).uri(path).header(HOST, &self.address).header(CONTENT_TYPE, kind);
        for (name, value) in more {
            request = request.header(*name, *value);
        }
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        let request = request.body(body).map_err(|error| RestError::BadUrl(format!("{}{path} ({error})", self.url)))?;
        let stream = self.connect().await.map_err(unreachable)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|error| unreachable(error.to_string()))?;
        self.shell.spawn(async move {
            // A broken connection shows at the request or at the body; here there is nobody to tell.
            let _ = connection.await;
        });
        let response = sender.send_request(request).await.map_err(|error| {
            let hint = if error.is_parse() && self.tls.is_none() { "; if it speaks TLS, write https://" } else { "" };
            unreachable(format!("{error}{hint}"))
        })?;
        Ok(Opened { response })
    }
}
