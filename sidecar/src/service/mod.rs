//! The service contract over HTTP/1.1: deliver a request, read, ask whether it is ready, save and load its state.
//!
//! One connection of our own per purpose and no pool: a pooled client retries by itself, and a delivery must never happen
//! twice (invariant 9). This file owns the connection; what an outcome means for the state is the replica's business.
//!
//! An attached service may restart, and be empty, without anybody being told. So it is the instance that was loaded as long as
//! its answers carry the token given at the load (`Segue-Instance`); or, if it has never echoed one, as long as connections
//! that were open at the load still are (`Connection::probe` asks).

pub mod batch;
pub mod contract;
mod reader;
pub mod state;
mod state_hash;

use std::time::Duration;

use broker_adapter::record::{Body, Header, Request};
use broker_adapter::shell::{Shell, TaskSet};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;

pub use reader::{Reader, Reading};
pub use state::{LoadBody, SavedState, load_channel};
pub use state_hash::state_hash;

use crate::command::Reply;
use crate::problem::reply_too_large;
use crate::runner::Instance;

/// Why the service's answer is not known; what became of the request is not known either.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ServiceError {
    /// Nobody listens.
    #[error("no connection to the service at {address}: {reason}")]
    Connect {
        /// Where it should listen.
        address: String,
        /// What the operating system says.
        reason: String,
    },
    /// The connection broke before the answer was whole.
    #[error("the service broke off while it handled {request}: {reason}")]
    Broken {
        /// Method and path.
        request: String,
        /// What happened.
        reason: String,
    },
    /// It took too long.
    #[error("the service did not answer {request} within {limit_ms} ms")]
    TimedOut {
        /// Method and path.
        request: String,
        /// The limit.
        limit_ms: u64,
    },
    /// It cannot do what the contract asks.
    #[error("the service answered {request} with {status}{detail}")]
    Refused {
        /// Method and path.
        request: String,
        /// Its HTTP status.
        status: u16,
        /// The beginning of its answer.
        detail: String,
    },
    /// Its answer to a batch is not one.
    #[error(
        "the service answered {request} in a wrong shape: {reason}; the form is described in configs/batch/README.md"
    )]
    WrongShape {
        /// Method, path and positions.
        request: String,
        /// What is wrong with it, and for which request.
        reason: String,
    },
    /// It is not the instance whose state is known.
    #[error("the service at {address} is not the instance that was loaded: {reason}")]
    Restarted {
        /// Where it listens.
        address: String,
        /// How that shows.
        reason: String,
    },
    /// A program of the state's configuration did not do its part.
    #[error("the program {program:?} {reason}; check `state` of the service in the sidecar's configuration")]
    Program {
        /// The program and its arguments.
        program: String,
        /// How it ended, and the end of what it wrote to its standard error.
        reason: String,
    },
    /// A folder cannot be saved or loaded.
    #[error("the folder {folder} cannot be {what}: {reason}")]
    Folder {
        /// Which.
        folder: String,
        /// `saved` or `loaded`.
        what: &'static str,
        /// What is in the way.
        reason: String,
    },
}

impl ServiceError {
    /// A connection was closed that showed which instance it is.
    #[must_use]
    pub fn closed(address: &str) -> ServiceError {
        ServiceError::Restarted { address: address.to_owned(), reason: CLOSED.to_owned() }
    }
}

/// A request's body on its way to the service.
pub type SentBody = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

/// A connection to the service, used for one request after the other.
pub struct Connection {
    sender: SendRequest<SentBody>,
    address: String,
    shell: Shell,
    /// What every answer must carry in `Segue-Instance`.
    token: Option<String>,
    /// Drives the connection; ends with it.
    _driver: TaskSet,
}

/// The header with which a service may say which instance it is.
pub const INSTANCE: &str = "segue-instance";

/// What a delivery may take.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Until the whole answer is there.
    pub time: Duration,
    /// A larger reply becomes a typed error in every replica.
    pub reply_bytes: u64,
}

impl Connection {
    /// Connects to a service.
    ///
    /// # Errors
    /// [`ServiceError::Connect`].
    pub async fn open(address: &str, shell: &Shell) -> Result<Connection, ServiceError> {
        Self::expecting(address, None, shell).await
    }

    /// Connects to a service each of whose answers must carry this token, if it is given.
    ///
    /// # Errors
    /// [`ServiceError::Connect`].
    pub async fn expecting(address: &str, token: Option<String>, shell: &Shell) -> Result<Connection, ServiceError> {
        let (sender, driver) = handshake(address, shell).await?;
        Ok(Connection { sender, address: address.to_owned(), shell: shell.clone(), token, _driver: driver })
    }

    /// Connects again, to an instance that shows by its token or by its process that it is still the same.
    ///
    /// # Errors
    /// [`ServiceError::Connect`].
    pub async fn reopen(&mut self) -> Result<(), ServiceError> {
        *self = Self::expecting(&self.address, self.token.clone(), &self.shell).await?;
        Ok(())
    }

    /// What every answer must carry.
    #[must_use]
    pub fn token(&self) -> Option<&str> {
        self.token.as_deref()
    }

    /// Asks over this very connection whether the service is ready: one that answers is the process that accepted it.
    ///
    /// # Errors
    /// The connection was closed, or the answer is not 2xx or not this instance's.
    pub async fn probe(&mut self, path: &str, limit: Duration) -> Result<(), ServiceError> {
        let limits = Limits { time: limit, reply_bytes: 64 << 10 };
        if self.is_closed() {
            return Err(ServiceError::closed(&self.address));
        }
        match self.deliver(&plain_get(path), &[], limits).await {
            Ok(reply) if (200..300).contains(&reply.status) => Ok(()),
            Ok(reply) => Err(refused(&format!("GET {path}"), &reply)),
            Err(ServiceError::Broken { reason, .. }) => {
                Err(ServiceError::Restarted { address: self.address.clone(), reason: format!("{CLOSED} ({reason})") })
            }
            Err(error) => Err(error),
        }
    }

    /// Whether the service has closed it: then it takes no further request, and none was lost.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.sender.is_closed()
    }

    /// Sends a request and waits for the whole answer.
    ///
    /// # Errors
    /// The state is unknown then: the request may have been applied, or not.
    pub async fn deliver(
        &mut self,
        request: &Request,
        extra: &[(&'static str, String)],
        limits: Limits,
    ) -> Result<Reply, ServiceError> {
        let name = format!("{} {}", request.method, request.path);
        let message = self.message(request, extra).map_err(|reason| broken(&name, &reason))?;
        let whole = async {
            self.sender.ready().await.map_err(|error| broken(&name, &error.to_string()))?;
            let answer = self.sender.send_request(message).await.map_err(|error| broken(&name, &error.to_string()))?;
            check_token(&answer, self.token.as_deref(), &self.address)?;
            read_reply(answer, limits.reply_bytes).await.map_err(|reason| broken(&name, &reason))
        };
        match self.shell.within(limits.time, whole).await {
            Some(result) => result,
            None => Err(timed_out(&name, limits.time)),
        }
    }

    fn message(&self, request: &Request, extra: &[(&'static str, String)]) -> Result<hyper::Request<SentBody>, String> {
        let Body::Inline(body) = &request.body else {
            return Err("its body is not in the record".to_owned());
        };
        let mut builder = hyper::Request::builder().method(request.method.as_str()).uri(request.path.as_str());
        let mut has_host = false;
        for Header { name, value } in &request.headers {
            has_host |= name == "host";
            builder = builder.header(name.as_str(), value.as_ref());
        }
        if !has_host {
            builder = builder.header("host", host(&self.address));
        }
        for (name, value) in extra {
            builder = builder.header(*name, value);
        }
        builder.body(full(body.clone())).map_err(|error| error.to_string())
    }
}

/// Why a connection is no sign of the same instance any more.
const CLOSED: &str =
    "it closed a connection, so it may have restarted: let it keep idle connections open, or echo Segue-Instance";

fn check_token<T>(answer: &hyper::Response<T>, token: Option<&str>, address: &str) -> Result<(), ServiceError> {
    let Some(token) = token else { return Ok(()) };
    let echoed = answer.headers().get(INSTANCE);
    if echoed.is_some_and(|echoed| echoed.as_bytes() == token.as_bytes()) {
        return Ok(());
    }
    let reason = match echoed {
        None => "an answer carries no Segue-Instance, and earlier ones did".to_owned(),
        Some(other) => format!("an answer carries the Segue-Instance {other:?} instead of {token:?}"),
    };
    Err(ServiceError::Restarted { address: address.to_owned(), reason })
}

/// A Unix socket has no name that a service would know.
fn host(address: &str) -> &str {
    if address.starts_with(contract::UNIX) { "localhost" } else { address }
}

fn plain_get(path: &str) -> Request {
    Request { method: "GET".to_owned(), path: path.to_owned(), headers: Vec::new(), body: Body::Inline(Bytes::new()) }
}

async fn handshake(address: &str, shell: &Shell) -> Result<(SendRequest<SentBody>, TaskSet), ServiceError> {
    let failed = |reason: String| ServiceError::Connect { address: address.to_owned(), reason };
    let stream = shell.connect(address).await.map_err(|error| failed(error.to_string()))?;
    let (sender, connection) = hyper::client::conn::http1::Builder::new()
        .handshake::<_, SentBody>(TokioIo::new(stream))
        .await
        .map_err(|error| failed(error.to_string()))?;
    let (part, driver) = shell.part();
    part.spawn(async move {
        // How it ended shows in the request that it carried.
        let _ = connection.await;
    });
    Ok((sender, driver))
}

/// A GET of `path` on a connection of its own.
///
/// # Errors
/// The service is not there or does not answer.
pub async fn get(address: &str, path: &str, limits: Limits, shell: &Shell) -> Result<Reply, ServiceError> {
    let mut connection = Connection::open(address, shell).await?;
    connection.deliver(&plain_get(path), &[], limits).await
}

/// Waits until a GET of `path` is answered 2xx.
///
/// # Errors
/// The last thing that the service did instead, after `limit`; at once if it has ended, for then it never becomes ready.
pub async fn wait_ready(
    instance: &mut dyn Instance,
    path: &str,
    limit: Duration,
    shell: &Shell,
) -> Result<(), ServiceError> {
    const READY_POLL: Duration = Duration::from_millis(5);
    let until = shell.now() + limit;
    let limits = Limits { time: limit, reply_bytes: 64 << 10 };
    loop {
        let error = match get(instance.address(), path, limits, shell).await {
            Ok(reply) if (200..300).contains(&reply.status) => return Ok(()),
            Ok(reply) => refused(&format!("GET {path}"), &reply),
            Err(error) => error,
        };
        if !instance.is_alive() {
            let reason = format!("its program ended before it was ready ({error})");
            return Err(ServiceError::Connect { address: instance.address().to_owned(), reason });
        }
        if shell.now() >= until {
            return Err(error);
        }
        shell.sleep(READY_POLL).await;
    }
}

async fn read_reply(answer: hyper::Response<hyper::body::Incoming>, limit_bytes: u64) -> Result<Reply, String> {
    let (head, mut body) = answer.into_parts();
    let mut content = BytesMut::new();
    let mut length = 0u64;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| error.to_string())?;
        if let Some(data) = frame.data_ref() {
            length += data.len() as u64;
            if length <= limit_bytes {
                content.extend_from_slice(data);
            }
        }
    }
    if length > limit_bytes {
        return Ok(reply_too_large(limit_bytes));
    }
    Ok(Reply { status: head.status.as_u16(), headers: kept_headers(&head.headers), body: content.freeze() })
}

/// The headers that belong to a reply.
fn kept_headers(headers: &hyper::HeaderMap) -> Vec<Header> {
    headers
        .iter()
        .filter(|(name, _)| !is_hop_by_hop(name.as_str()) && name.as_str() != INSTANCE)
        .map(|(name, value)| Header { name: name.as_str().to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) })
        .collect()
}

/// RFC 9110, section 7.6.1: what belongs to one connection, and what the other side computes itself.
#[must_use]
pub fn is_hop_by_hop(name: &str) -> bool {
    matches!(
        name,
        "connection"
            | "keep-alive"
            | "proxy-connection"
            | "transfer-encoding"
            | "te"
            | "trailer"
            | "upgrade"
            | "content-length"
            | "expect"
    )
}

fn full(body: Bytes) -> SentBody {
    Full::new(body).map_err(|never| match never {}).boxed_unsync()
}

fn broken(request: &str, reason: &str) -> ServiceError {
    ServiceError::Broken { request: request.to_owned(), reason: reason.to_owned() }
}

fn timed_out(request: &str, limit: Duration) -> ServiceError {
    let limit_ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
    ServiceError::TimedOut { request: request.to_owned(), limit_ms }
}

fn refused(request: &str, reply: &Reply) -> ServiceError {
    const DETAIL_MAX_BYTES: usize = 200;
    let start = &reply.body[..reply.body.len().min(DETAIL_MAX_BYTES)];
    let detail = if start.is_empty() { String::new() } else { format!(": {}", String::from_utf8_lossy(start)) };
    ServiceError::Refused { request: request.to_owned(), status: reply.status, detail }
}
