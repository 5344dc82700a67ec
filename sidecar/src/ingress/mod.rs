//! Where inputs enter: requests become records, and their replies find the client that waits.
//!
//! ```text
//!   client ─▶ http ─▶ session ─▶ append ─▶ LOG        safe methods: http ─▶ reads ─▶ replica
//!     ▲                  │ ▲                 │
//!     └───── answer ─────┘ └── read back ────┘◀── replies: from this node's replica, or by mail
//! ```
//! Any sidecar of a service can be its ingress, owner or not.

pub mod http;
pub mod reads;
pub mod session;
mod waiting;

use broker_adapter::record::{Header, Request};
use bytes::Bytes;
use tokio::sync::oneshot;

use crate::command::Reply;

/// The longest `Idempotency-Key`.
pub const KEY_MAX_BYTES: usize = 256;

/// A request that wants to be logged.
#[derive(Debug)]
pub struct Submission {
    /// What the service gets.
    pub request: Request,
    /// The client's `Idempotency-Key`.
    pub client_key: Option<String>,
    /// Where the answer goes; nobody may wait there any more.
    pub answer: oneshot::Sender<Answer>,
}

/// What a client is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The service's reply.
    Reply(Reply),
    /// Nothing was appended: try again later.
    Unavailable {
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
    /// It was appended, or may have been, and no reply came in time.
    TimedOut {
        /// Under which the reply can be fetched, or the request repeated safely.
        key: String,
    },
    /// Not taken at all.
    Refused {
        /// HTTP status.
        status: u16,
        /// For programs.
        code: &'static str,
        /// For people.
        detail: String,
    },
}

/// How long a client should wait before it tries again, in seconds.
const RETRY_AFTER_S: &str = "1";

impl Answer {
    /// As HTTP: the one place where this crate chooses a status (RFC 9110, RFC 9457).
    #[must_use]
    pub fn into_reply(self) -> Reply {
        match self {
            Answer::Reply(reply) => reply,
            Answer::Unavailable { code, detail } => {
                problem(503, code, &detail, vec![header("retry-after", RETRY_AFTER_S)])
            }
            Answer::TimedOut { key } => {
                let detail = "the request was appended, or may have been, and its reply did not come in time; repeat it with \
                              this Idempotency-Key: it is applied once";
                problem(504, "reply-timeout", detail, vec![header("idempotency-key", &key)])
            }
            Answer::Refused { status, code, detail } => problem(status, code, &detail, Vec::new()),
        }
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
}

fn problem(status: u16, code: &str, detail: &str, mut headers: Vec<Header>) -> Reply {
    headers.push(header("content-type", "application/problem+json"));
    let key = headers.iter().find(|header| header.name == "idempotency-key");
    let key = key.map(|header| String::from_utf8_lossy(&header.value).into_owned());
    let body = serde_json::json!({
        "type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, "key": key,
    });
    Reply { status, headers, body: body.to_string().into() }
}
