//! Where inputs enter: requests become records, and their replies find the client that waits.
//!
//! ```text
//!   client ─▶ http ─▶ session ─▶ append ─▶ LOG        safe methods: http ─▶ reads ─▶ replica
//!     ▲                  │ ▲                 │
//!     └───── answer ─────┘ └── read back ────┘◀── replies: from this node's replica, or by mail
//! ```
//! Any sidecar of a service can be its ingress, owner or not.

mod asker;
pub mod fetch;
pub mod http;
mod idle;
mod large;
pub mod paths;
pub mod reads;
mod request;
pub mod session;
pub mod traffic;
mod waiting;

use std::sync::{Arc, OnceLock};

use broker_adapter::record::{Header, Request};
use bytes::Bytes;
use tokio::sync::oneshot;
use tracing::Span;

pub use idle::IDLE_LIMIT;

use crate::command::Reply;
use crate::problem;

/// The longest `Idempotency-Key`.
pub const KEY_MAX_BYTES: usize = 256;

/// A request that wants to be logged.
#[derive(Debug)]
pub struct Submission {
    /// What the service gets.
    pub request: Request,
    /// The client's `Idempotency-Key`.
    pub client_key: Option<String>,
    /// Becomes the key under which its outcome can be asked for, before an append is attempted.
    pub told: Arc<OnceLock<String>>,
    /// Ends when it was read back.
    pub append: Span,
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
    /// It is in the log, or on its way there, and not answered yet.
    Pending {
        /// Under which it was asked for.
        key: String,
    },
    /// Not taken, or nothing is known; in either case nothing was appended.
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
    /// Says what became of a request, never what is in it; its span names the trace.
    fn log(&self, asked: &str) {
        match self {
            Answer::Reply(reply) => tracing::debug!(asked, status = reply.status, "answered"),
            Answer::Unavailable { code, detail } | Answer::Refused { code, detail, .. } => {
                tracing::debug!(asked, code, detail, "not answered by the service");
            }
            Answer::TimedOut { key } => tracing::info!(asked, key, "no reply came in time"),
            Answer::Pending { key } => tracing::debug!(asked, key, "not answered yet"),
        }
    }

    /// As HTTP: the one place where this crate chooses a status (RFC 9110, RFC 9457).
    #[must_use]
    pub fn into_reply(self) -> Reply {
        match self {
            Answer::Reply(reply) => reply,
            Answer::Unavailable { code, detail } => {
                problem::of_ingress(503, code, &detail, vec![header("retry-after", RETRY_AFTER_S)])
            }
            Answer::TimedOut { key } => {
                let detail = "the request was appended, or may have been, and its reply did not come in time; repeat it with \
                              this Idempotency-Key: it is applied once";
                problem::of_ingress(504, "reply-timeout", detail, vec![header("idempotency-key", &key)])
            }
            Answer::Pending { key } => {
                let detail =
                    "the request is in the log, or on its way there, and its owner has not answered it yet: ask again";
                let headers = vec![header("idempotency-key", &key), header("retry-after", RETRY_AFTER_S)];
                problem::of_ingress(202, "not-answered-yet", detail, headers)
            }
            Answer::Refused { status: 405, code, detail } => {
                problem::of_ingress(405, code, &detail, vec![header("allow", "GET, HEAD")])
            }
            Answer::Refused { status, code, detail } => problem::of_ingress(status, code, &detail, Vec::new()),
        }
    }
}

fn header(name: &str, value: &str) -> Header {
    Header { name: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
}
