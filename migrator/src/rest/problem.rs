//! Errors as REST tells them: RFC 9457 problem details, with a code for programs and a hint for people.
//!
//! The one place of this crate that chooses HTTP statuses.

mod archives;

use std::time::Duration;

pub(super) use archives::{
    archive, begin_failed, damaged_checkpoint, foreign_checkpoint, importing, no_node, node_needed, state_lost,
    too_many_transfers, unanswered, unknown_checkpoint, wrong_service,
};
use axum::Json;
use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::ids::MigrationId;
use serde::Serialize;
use utoipa::ToSchema;

use super::drain::NewDrain;
use super::extract::Form;
use crate::browse::BrowseError;
use crate::handle::{CancelError, CreateError, DivergenceError, Stopped, known_names};
use crate::plan::Check;
use crate::refused::silent;

const RETRY_AFTER_S: &str = "1";

/// `application/problem+json`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(Box<Members>);

/// What every error of REST says (RFC 9457).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Members {
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
    #[schema(value_type = Option<String>)]
    running: Option<MigrationId>,
    /// Everything that was checked, of an order.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    checks: Vec<Check>,
    /// The request's name, as in `X-Request-Id` and in the migrator's log.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, title: &'static str, detail: String, hint: String) -> Problem {
        let kind = format!("urn:segue:problem:{code}");
        let (status, checks) = (status.as_u16(), Vec::new());
        Problem(Box::new(Members { kind, title, status, detail, code, hint, running: None, checks, request_id: None }))
    }

    /// Tells what else was checked.
    pub(super) fn with_checks(mut self, checks: Vec<Check>) -> Problem {
        self.0.checks = checks;
        self
    }
}

/// A problem's code, beside the response.
#[derive(Clone, Copy, Debug)]
pub(super) struct Code(pub &'static str);

impl IntoResponse for Problem {
    fn into_response(mut self) -> Response {
        self.0.request_id = super::request_id::present();
        let status = StatusCode::from_u16(self.0.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let code = Code(self.0.code);
        let mut response = (status, Json(self.0)).into_response();
        response.extensions_mut().insert(code);
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        if status == StatusCode::SERVICE_UNAVAILABLE || status == StatusCode::TOO_MANY_REQUESTS {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Problem {
        use CreateError as E;
        use StatusCode as S;
        let status = match &error {
            E::Stopped(stopped) => return stopped.clone().into(),
            E::UnknownService { .. } | E::UnknownNode { .. } | E::UnknownMigration(_) => S::NOT_FOUND,
            E::UnknownStrategy(_) | E::BadLimit(_) | E::ReasonTooLong(_) | E::BadKey(_) | E::KeyReused(_) => {
                S::UNPROCESSABLE_ENTITY
            }
            E::TooMany(_) => S::TOO_MANY_REQUESTS,
            E::LogUnreadable { .. } => S::SERVICE_UNAVAILABLE,
            E::NodeSilent(_)
            | E::TargetWithoutService { .. }
            | E::TargetIsIngress { .. }
            | E::TargetIsSource { .. }
            | E::AlreadyMoving { .. }
            | E::NoOwner(_)
            | E::NotLeft { .. }
            | E::InFlight
            | E::BlackoutTooLong { .. } => S::CONFLICT,
        };
        let mut problem = Problem::new(status, error.code(), error.title(), error.to_string(), error.hint());
        if let E::AlreadyMoving { running, .. } = &error {
            problem.0.running = Some(*running);
        }
        problem
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

pub(super) fn bad_json(error: &serde_json::Error, hint: &str) -> Problem {
    let hint = hint.to_owned();
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

pub(super) fn bad_query(reason: &str) -> Problem {
    let hint = "/docs tells the parameters of every request".to_owned();
    Problem::new(StatusCode::BAD_REQUEST, "bad-query", "Bad query", reason.to_owned(), hint)
}

pub(super) fn bad_path(reason: &str) -> Problem {
    let hint = "write names as they are, percent-encoded UTF-8 where that is needed".to_owned();
    Problem::new(StatusCode::BAD_REQUEST, "bad-path", "Bad path", reason.to_owned(), hint)
}

pub(super) fn bad_event_id(text: &str) -> Problem {
    let hint = "send the last id of the stream, or none".to_owned();
    let detail = format!("Last-Event-ID {text:?} is no number");
    Problem::new(StatusCode::BAD_REQUEST, "bad-event-id", "Bad Last-Event-ID", detail, hint)
}

pub(super) fn too_many_streams(most: usize) -> Problem {
    let hint = "close another one; Accept: application/json answers once without a stream".to_owned();
    let detail = format!("{most} streams of events are open already");
    Problem::new(StatusCode::TOO_MANY_REQUESTS, "too-many-streams", "Too many streams", detail, hint)
}

pub(super) fn bad_page_token(token: &str) -> Problem {
    let hint = "take next_page_token of the page before, or begin without page_token".to_owned();
    let detail = format!("{token:?} is no page token");
    Problem::new(StatusCode::BAD_REQUEST, "bad-page-token", "Bad page token", detail, hint)
}

pub(super) fn unknown_service(name: &str, known: &[String]) -> Problem {
    let detail = format!("no node tells of the service {name}");
    let (code, title) = ("unknown-service", "Unknown service");
    Problem::new(StatusCode::NOT_FOUND, code, title, detail, known_names("service", known))
}

pub(super) fn unknown_node(name: &str, known: &[String]) -> Problem {
    let detail = format!("there is no node {name}");
    Problem::new(StatusCode::NOT_FOUND, "unknown-node", "Unknown node", detail, known_names("node", known))
}

pub(super) fn body_too_large() -> Problem {
    bad_body(StatusCode::PAYLOAD_TOO_LARGE, "the body is above 64 KiB")
}

pub(super) fn body_broke(reason: &str) -> Problem {
    bad_body(StatusCode::BAD_REQUEST, &format!("the body broke off: {reason}"))
}

pub(super) fn body_too_slow(limit: Duration) -> Problem {
    bad_body(StatusCode::REQUEST_TIMEOUT, &format!("the body did not come within {limit:?}"))
}

impl From<BrowseError> for Problem {
    fn from(error: BrowseError) -> Problem {
        let hint = "look at the broker and the checkpoint store, and ask again".to_owned();
        let (code, title) = ("log-unreadable", "Log unreadable");
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, code, title, error.to_string(), hint)
    }
}

pub(super) fn no_owner(shard: &str) -> Problem {
    CreateError::NoOwner(shard.to_owned()).into()
}

pub(super) fn owner_silent(node: &str) -> Problem {
    let hint = silent(node);
    let detail = format!("the owner {node} is silent: it was not heard for 5 s or longer");
    Problem::new(StatusCode::CONFLICT, "node-silent", "Node silent", detail, hint)
}

pub(super) fn bad_drain(reason: &str) -> Problem {
    let hint = NewDrain::HINT.to_owned();
    Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "bad-request", "Bad request", reason.to_owned(), hint)
}

pub(super) fn draining(node: &str) -> Problem {
    let hint = "wait for its migrations to end: GET /v1/migrations?running=true".to_owned();
    let detail = format!("{node} is being drained already");
    Problem::new(StatusCode::CONFLICT, "already-draining", "Second drain of a node", detail, hint)
}

const TOKEN_HINT: &str = "send `Authorization: Bearer TOKEN` with a token of the migrator's file [auth] tokens";

pub(super) fn no_token() -> Problem {
    let detail = "this needs a token".to_owned();
    Problem::new(StatusCode::UNAUTHORIZED, "no-token", "Token missing", detail, TOKEN_HINT.to_owned())
}

pub(super) fn bad_token() -> Problem {
    let detail = "the token is not known".to_owned();
    Problem::new(StatusCode::UNAUTHORIZED, "bad-token", "Unknown token", detail, TOKEN_HINT.to_owned())
}

pub(super) fn not_allowed(name: &str) -> Problem {
    let hint = "ask with the token of an operator".to_owned();
    let detail = format!("{name} is a viewer and may change nothing, nor take a state out");
    Problem::new(StatusCode::FORBIDDEN, "not-allowed", "Not allowed", detail, hint)
}

pub(super) fn bad_wait(wait: &str) -> Problem {
    let hint = "write wait=30s or wait=500ms; at most 60 s are waited".to_owned();
    let detail = format!("wait={wait} is no duration");
    Problem::new(StatusCode::BAD_REQUEST, "bad-wait", "Bad wait", detail, hint)
}

pub(super) async fn no_such_path(uri: Uri) -> Problem {
    let hint = "/docs and /openapi.json tell every path".to_owned();
    let detail = format!("there is nothing at {}", uri.path());
    Problem::new(StatusCode::NOT_FOUND, "no-such-path", "Unknown path", detail, hint)
}

pub(super) async fn no_such_method(uri: Uri) -> Problem {
    let hint = "the answer's Allow names the methods".to_owned();
    let detail = format!("{} does not take this method", uri.path());
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "no-such-method", "Unknown method", detail, hint)
}
