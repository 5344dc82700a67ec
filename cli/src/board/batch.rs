//! The delay board's batch endpoint: many requests in one POST (configs/batch/README.md).
//!
//! Flights that stand side by side are applied in one step of the owner; each is answered as it would be alone.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use hyper::header::CONTENT_TYPE;
use hyper::{Response, StatusCode};
use serde::{Deserialize, Serialize};

use super::flight::Flight;
use super::http::{JSON, Reply, Taken, handle, not_answered, parse_flight, problem};
use super::owner::Board;

/// What this form and its version are called.
const BATCH: &str = "application/vnd.segue.batch+ndjson; version=1";
/// Above the sidecar's `batch_limit_bytes` with all that JSON adds.
const BATCH_LIMIT_BYTES: usize = 64 << 20;
const REPLY_BYTES: usize = 192;

/// What the board needs of a request's line.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    body: Cow<'a, str>,
    #[serde(borrow, default)]
    body64: Cow<'a, str>,
}

#[derive(Serialize)]
struct ReplyLine<'a> {
    status: u16,
    headers: &'a [(&'a str, &'a str)],
    body: &'a str,
}

/// Answers a whole batch; a batch that cannot be read is refused before anything is applied.
pub async fn answer(board: &Board, body: Incoming) -> Reply {
    let refused = |reason: String| problem(StatusCode::BAD_REQUEST, &format!("the batch cannot be read: {reason}"));
    let body = match Limited::new(body, BATCH_LIMIT_BYTES).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) => return refused(error.to_string()),
    };
    let lines = body.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let lines: Vec<Line<'_>> = match lines.map(serde_json::from_slice).collect() {
        Ok(lines) => lines,
        Err(error) => return refused(error.to_string()),
    };
    let contents: Vec<Cow<'_, [u8]>> = match lines.iter().map(content).collect() {
        Ok(contents) => contents,
        Err(error) => return refused(error.to_string()),
    };
    let mut replies = Vec::with_capacity(lines.len() * REPLY_BYTES);
    let mut flights = Vec::new();
    for (line, content) in lines.iter().zip(&contents) {
        let path = line.path.split('?').next().unwrap_or_default();
        let flight = (line.method == "POST" && path == "/flights").then(|| parse_flight(content));
        if let Some(Ok(flight)) = flight {
            flights.push(flight);
            continue;
        }
        take(board, &mut flights, &mut replies).await;
        write(&mut replies, handle(board, &line.method, path, content).await).await;
    }
    take(board, &mut flights, &mut replies).await;
    let mut reply = Response::new(Full::from(replies).boxed_unsync());
    reply.headers_mut().insert(CONTENT_TYPE, hyper::header::HeaderValue::from_static(BATCH));
    reply
}

fn content<'a>(line: &'a Line<'_>) -> Result<Cow<'a, [u8]>, base64::DecodeError> {
    if line.body64.is_empty() {
        return Ok(Cow::Borrowed(line.body.as_bytes()));
    }
    BASE64.decode(line.body64.as_bytes()).map(Cow::Owned)
}

/// Applies the flights so far.
async fn take(board: &Board, flights: &mut Vec<Flight>, replies: &mut Vec<u8>) {
    if flights.is_empty() {
        return;
    }
    let count = flights.len();
    match board.apply_all(std::mem::take(flights)).await {
        Ok(applied) => {
            for applied in applied {
                let body = Taken::of(applied).to_json();
                write_line(replies, &ReplyLine { status: 200, headers: &[("content-type", JSON)], body: &body });
            }
        }
        Err(error) => {
            for _ in 0..count {
                write(replies, not_answered(error)).await;
            }
        }
    }
}

async fn write(replies: &mut Vec<u8>, reply: Reply) {
    let (head, body) = reply.into_parts();
    let body: Bytes = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let headers: Vec<(&str, &str)> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
    // All that the board answers is JSON.
    let body = String::from_utf8_lossy(&body);
    write_line(replies, &ReplyLine { status: head.status.as_u16(), headers: &headers, body: &body });
}

fn write_line(replies: &mut Vec<u8>, line: &ReplyLine<'_>) {
    serde_json::to_writer(&mut *replies, line).expect("texts and numbers have a JSON form, and memory takes them");
    replies.push(b'\n');
}
