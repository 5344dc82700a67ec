//! Who changed what, when, and with what result: one line of JSON for every request that changes, or would have changed, something.
//!
//! Into the log under the target `audit`, and into the file `[auth] audit` if one is set. A body is shown up to 2 KiB.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::auth::Who;
use super::{Api, BODY_MAX_BYTES, Problem, problem, request_id};

/// How much of a body is written down.
const SHOWN_MAX_BYTES: usize = 2_048;
/// How long a body may take to come.
const BODY_LIMIT: Duration = Duration::from_secs(30);

/// Where the lines go beside the log.
#[derive(Clone, Default)]
pub struct Audit(Option<Arc<Mutex<File>>>);

/// Why the file cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("the audit log {path} ([auth] audit) cannot be written: {reason}")]
pub struct AuditError {
    path: PathBuf,
    reason: String,
}

impl Audit {
    /// Appends to a file, made if it is not there.
    ///
    /// # Errors
    /// [`AuditError`].
    pub fn open(path: &Path) -> Result<Audit, AuditError> {
        let file = OpenOptions::new().append(true).create(true).open(path);
        let file = file.map_err(|error| AuditError { path: path.to_owned(), reason: error.to_string() })?;
        Ok(Audit(Some(Arc::new(Mutex::new(file)))))
    }

    fn write(&self, line: &str) {
        let Some(file) = &self.0 else { return };
        let mut file = file.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = file.write_all(format!("{line}\n").as_bytes()).and_then(|()| file.flush()) {
            tracing::error!(%error, line, "the audit log cannot be written");
        }
    }
}

/// What the paths of requests end with whose bodies are streams, and too large to be read here.
const STREAMED: &str = "/checkpoints/import";

/// Reads the whole body, lets the request go on with it, and writes down how it went. A streamed body goes on as it comes; if its client
/// goes away before the answer, that is written down too.
pub async fn run(api: &Api, who: &Who, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    let (method, uri) = (parts.method.to_string(), parts.uri.to_string());
    if parts.uri.path().ends_with(STREAMED) {
        let mut open = Unanswered { api: api.clone(), who: who.name.clone(), method, uri, is_answered: false };
        let response = next.run(Request::from_parts(parts, body)).await;
        open.is_answered = true;
        let line = line(api, &open.who, (&open.method, &open.uri), Value::Null, &response);
        write(api, line).await;
        return response;
    }
    let (shown, response) = match whole(api, body).await {
        Ok(body) => {
            let shown = shown(&body);
            (shown, next.run(Request::from_parts(parts, Body::from(body))).await)
        }
        Err(problem) => (Value::Null, problem.into_response()),
    };
    let line = line(api, &who.name, (&method, &uri), shown, &response);
    write(api, line).await;
    response
}

/// A request whose client may go away before the answer.
struct Unanswered {
    api: Api,
    who: String,
    method: String,
    uri: String,
    is_answered: bool,
}

impl Drop for Unanswered {
    fn drop(&mut self) {
        if self.is_answered {
            return;
        }
        let line = json!({
            "at_ms": self.api.shell.wall_ms(), "who": self.who, "method": self.method, "what": self.uri, "body": null,
            "status": null, "code": "client-went-away", "location": null, "request_id": request_id::present(),
        });
        tracing::info!(target: "audit", "{line}");
        self.api.audit.write(&line.to_string());
    }
}

/// Somebody wanted to change something and might not.
pub async fn refused(api: &Api, who: &str, (method, uri): (&str, &str), problem: Problem) -> Response {
    let response = problem.into_response();
    let line = line(api, who, (method, uri), Value::Null, &response);
    write(api, line).await;
    response
}

async fn whole(api: &Api, body: Body) -> Result<bytes::Bytes, Problem> {
    let reading = Limited::new(body, BODY_MAX_BYTES).collect();
    match api.shell.within(BODY_LIMIT, reading).await {
        Some(Ok(body)) => Ok(body.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(problem::body_too_large()),
        Some(Err(error)) => Err(problem::body_broke(&error.to_string())),
        None => Err(problem::body_too_slow(BODY_LIMIT)),
    }
}

fn shown(body: &[u8]) -> Value {
    if body.is_empty() {
        return Value::Null;
    }
    match serde_json::from_slice(body) {
        Ok(value) if body.len() <= SHOWN_MAX_BYTES => value,
        _ => String::from_utf8_lossy(&body[..body.len().min(SHOWN_MAX_BYTES)]).into_owned().into(),
    }
}

fn line(api: &Api, who: &str, (method, uri): (&str, &str), body: Value, response: &Response) -> String {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let code = response.extensions().get::<problem::Code>().map(|code| code.0);
    let line = json!({
        "at_ms": api.shell.wall_ms(), "who": who, "method": method, "what": uri, "body": body,
        "status": response.status().as_u16(), "code": code, "location": location, "request_id": request_id::present(),
    });
    line.to_string()
}

async fn write(api: &Api, line: String) {
    tracing::info!(target: "audit", "{line}");
    let audit = api.audit.clone();
    if audit.0.is_some() {
        api.shell.blocking(move || audit.write(&line)).await;
    }
}
