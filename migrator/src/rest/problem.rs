//! Errors as REST tells them: RFC 9457 problem details, with a code for programs and a hint for people.
//!
//! The one place of this crate that chooses HTTP statuses.

use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::ids::MigrationId;
use serde::Serialize;

use crate::handle::{CancelError, CreateError, DivergenceError, Stopped};
use crate::machine::Strategy;

const RETRY_AFTER_S: &str = "1";

/// `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<Members>);

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Members {
    /// Names the kind; nobody needs to fetch it.
    #[serde(rename = "type")]
    kind: String,
    /// The kind, for people.
    title: &'static str,
    /// The HTTP status.
    status: u16,
    /// What was wrong, where.
    detail: String,
    /// The kind, for programs.
    code: &'static str,
    /// What to do.
    hint: String,
    /// The migration that is in the way.
    #[serde(skip_serializing_if = "Option::is_none")]
    running: Option<MigrationId>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String, hint: String) -> Problem {
        let kind = format!("urn:segue:problem:{code}");
        Problem(Box::new(Members { kind, title, status: status.as_u16(), detail, code, hint, running: None }))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self.0)).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

fn known_names(what: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("no {what} is known: does a sidecar run, with the same broker as this migrator?");
    }
    format!("known are: {}", known.join(", "))
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Problem {
        use CreateError as E;
        use StatusCode as S;
        let detail = error.to_string();
        let problem = |status, code, title, hint: String| Problem::new(status, code, title, detail.clone(), hint);
        match &error {
            E::UnknownService { known, .. } => {
                problem(S::NOT_FOUND, "unknown-service", "Unknown service", known_names("service", known))
            }
            E::UnknownNode { known, .. } => {
                problem(S::NOT_FOUND, "unknown-node", "Unknown node", known_names("node", known))
            }
            E::NodeSilent(node) => {
                let hint = format!("look at the sidecar of {node}; once it announces itself again, ask again");
                problem(S::CONFLICT, "node-silent", "Node silent", hint)
            }
            E::TargetWithoutService { known, .. } => {
                let hint = format!("add a [[service]] to its sidecar's file; {}", known_names("other node", known));
                problem(S::CONFLICT, "target-without-service", "Target without the service", hint)
            }
            E::TargetIsIngress { known, .. } => {
                let hint = format!(
                    "add run or attach, and state, to its [[service]] and restart its sidecar, or move it to another node; {}",
                    known_names("other node", known)
                );
                problem(S::CONFLICT, "target-is-ingress", "Target only an ingress", hint)
            }
            E::TargetIsSource { .. } => {
                let hint = "name another node as the target".to_owned();
                problem(S::CONFLICT, "target-is-source", "Target equal to source", hint)
            }
            E::AlreadyMoving { running, .. } => {
                let hint = format!("wait for its end, or POST /v1/migrations/{running}/cancel");
                let mut problem = problem(S::CONFLICT, "already-moving", "Second migration of a shard", hint);
                problem.0.running = Some(*running);
                problem
            }
            E::NoOwner(_) => {
                let hint = "start the sidecar whose [[service]] has create = true".to_owned();
                problem(S::CONFLICT, "no-owner", "No owner", hint)
            }
            E::UnknownStrategy(_) => {
                let known: Vec<&str> = Strategy::ALL.into_iter().map(Strategy::name).collect();
                let hint = format!("the strategies are: {}", known.join(", "));
                problem(S::UNPROCESSABLE_ENTITY, "unknown-strategy", "Unknown strategy", hint)
            }
            E::BadLimit(_) => {
                let hint = "leave the limit out, or choose another strategy".to_owned();
                problem(S::UNPROCESSABLE_ENTITY, "bad-limit", "Limit that cannot hold", hint)
            }
            E::UnknownMigration(id) => unknown_migration(&id.to_string()),
            E::NotLeft { .. } => {
                let hint =
                    "GET /v1/migrations shows what followed; POST /v1/migrations moves a shard anywhere".to_owned();
                problem(S::CONFLICT, "nothing-left", "Nothing to take back", hint)
            }
            E::TooMany(_) => {
                problem(S::TOO_MANY_REQUESTS, "too-many", "Too many migrations", "wait for one to end".to_owned())
            }
            E::LogUnreadable { .. } => {
                let hint = "look at the broker; nothing was begun".to_owned();
                problem(S::SERVICE_UNAVAILABLE, "log-unreadable", "Log unreadable", hint)
            }
            E::ReasonTooLong(_) => {
                let hint = "give at most 1,024 bytes".to_owned();
                problem(S::UNPROCESSABLE_ENTITY, "reason-too-long", "Reason too long", hint)
            }
            E::Stopped(stopped) => stopped.clone().into(),
        }
    }
}

impl From<CancelError> for Problem {
    fn from(error: CancelError) -> Problem {
        match error {
            CancelError::Unknown(id) => unknown_migration(&id.to_string()),
            CancelError::Ended { id, .. } => {
                let hint = format!("GET /v1/migrations/{id} tells how; to go back, POST /v1/migrations/{id}/undo");
                Problem::new(StatusCode::CONFLICT, "already-ended", "Already ended", error.to_string(), hint)
            }
            CancelError::Stopped(stopped) => stopped.into(),
        }
    }
}

impl From<Stopped> for Problem {
    fn from(stopped: Stopped) -> Problem {
        let hint = "ask the migrator that owns the journal now; what was accepted goes on there".to_owned();
        let (code, title) = ("stopped", "Migrator stopped");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, stopped.to_string(), hint)
    }
}

impl From<DivergenceError> for Problem {
    fn from(error: DivergenceError) -> Problem {
        match error {
            DivergenceError::Stopped(stopped) => stopped.into(),
            DivergenceError::Store(error) => {
                let hint =
                    "look at the broker and ask again; the migration itself tells the part that differs".to_owned();
                let (code, title) = ("store-unreadable", "Checkpoint store unreadable");
                Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, error.to_string(), hint)
            }
        }
    }
}

pub(super) fn no_divergence(id: &str) -> Problem {
    let hint = format!("GET /v1/migrations/{id} tells how it ended; of a shard the last 16 pairs of replies are kept");
    let detail = format!("of the migration {id} no replies that differ are kept");
    Problem::new(StatusCode::NOT_FOUND, "no-divergence", "No divergence", detail, hint)
}

pub(super) fn unknown_migration(id: &str) -> Problem {
    let hint = "GET /v1/migrations lists the known ones; of ended ones the last 1,000 are kept".to_owned();
    let detail = format!("there is no migration {id:?}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-migration", "Unknown migration", detail, hint)
}

pub(super) fn bad_json(error: &serde_json::Error) -> Problem {
    let hint = r#"send {"service": NAME, "to": NODE} and, if wanted, "shard", "strategy", "reason", "pause_limit_ms", "cutoff_ms", "keep_standby_s", "allow_unproven""#.to_owned();
    let detail = format!("the body is not understood: {error}");
    if error.is_data() {
        Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-request", "Bad request", detail, hint)
    } else {
        Problem::new(StatusCode::BAD_REQUEST, "bad-json", "Bad JSON", detail, hint)
    }
}

pub(super) fn bad_body(status: StatusCode, reason: &str) -> Problem {
    let hint = "send at most 64 KiB".to_owned();
    Problem::new(status, "bad-body", "Bad body", reason.to_owned(), hint)
}

pub(super) fn bad_wait(wait: &str) -> Problem {
    let hint = "write wait=30s or wait=500ms; at most 60 s are waited".to_owned();
    let detail = format!("wait={wait} is no duration");
    Problem::new(StatusCode::BAD_REQUEST, "bad-wait", "Bad wait", detail, hint)
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    let hint = "there are /v1/migrations, /v1/services, /v1/nodes, /livez, /readyz, /metrics and /".to_owned();
    let detail = format!("there is nothing at {}", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "Unknown path", detail, hint)
}

pub(super) async fn no_such_method(uri: Uri) -> Problem {
    let hint = "the answer's Allow names the methods".to_owned();
    let detail = format!("{} does not take this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "Unknown method", detail, hint)
}
