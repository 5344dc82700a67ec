//! The batch form: many requests in one POST, as lines of JSON, and as many lines of replies (configs/batch/README.md).
//!
//! This file owns the form. A reply read here is the same, byte for byte, as the one that the same request gets alone, so replicas
//! may deliver in batches or one by one, in any mix. Whatever is not exactly one well-formed line per request is an error, and then
//! the state is unknown (invariant 9).

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use broker_adapter::ids::Position;
use broker_adapter::record::{Body, Request};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};

use super::{Connection, Limits, ServiceError, broken, check_token, full, kept_headers, refused, timed_out};
use crate::command::Reply;
use crate::problem::reply_too_large;

/// The content type of requests and answers; names the form and its version.
pub const CONTENT_TYPE: &str = "application/vnd.segue.batch+ndjson; version=1";

/// The largest answer to a batch. The next batches are smaller long before (see `replica::gather`).
const ANSWER_LIMIT_BYTES: u64 = 256 << 20;
/// What a line takes beside its body; a longer one has a body above the limit.
const LINE_ROOM_BYTES: u64 = 1 << 20;
/// A byte of a body takes at most so many in JSON (`\u00ff`).
const ESCAPED_BYTES: u64 = 6;
/// How much of a refusal is read, to be shown.
const REFUSAL_BYTES: usize = 4 << 10;

/// One request and what goes with it to the service, alone or in a batch.
#[derive(Clone, Debug)]
pub struct Delivery<'a> {
    /// The record's place: `Segue-Position`.
    pub position: Position,
    /// `Segue-Time`, in milliseconds.
    pub time_ms: u64,
    /// `Segue-Seed`.
    pub seed: String,
    /// `Segue-Replay`: whether the reply is not given out.
    pub replay: bool,
    /// The request.
    pub request: &'a Request,
}

#[derive(Serialize)]
struct Line<'a> {
    position: u64,
    time: u64,
    seed: &'a str,
    replay: bool,
    method: &'a str,
    path: &'a str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    headers: Vec<(&'a str, &'a str)>,
    #[serde(skip_serializing_if = "str::is_empty")]
    body: &'a str,
    #[serde(skip_serializing_if = "String::is_empty")]
    body64: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ReplyLine<'a> {
    status: u16,
    #[serde(default, borrow)]
    headers: Vec<(Text<'a>, Text<'a>)>,
    #[serde(default, borrow)]
    body: Cow<'a, str>,
    #[serde(default, borrow)]
    body64: Cow<'a, str>,
}

/// Not copied where JSON need not be unescaped.
#[derive(Deserialize)]
#[serde(transparent)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Whether a request can go in a batch. What JSON cannot carry as it is goes alone; so does HEAD, whose reply has no body.
#[must_use]
pub fn fits(request: &Request) -> bool {
    let texts = request.headers.iter().all(|header| std::str::from_utf8(&header.value).is_ok());
    texts && request.method != "HEAD" && matches!(request.body, Body::Inline(_))
}

/// Writes the lines of a batch; every request must [fit](fits).
#[must_use]
pub fn encode(deliveries: &[Delivery<'_>]) -> Bytes {
    const LINE_BYTES: usize = 512;
    let mut lines = Vec::with_capacity(deliveries.len() * LINE_BYTES);
    for delivery in deliveries {
        let request = delivery.request;
        let content: &[u8] = if let Body::Inline(body) = &request.body { body } else { &[] };
        let text = std::str::from_utf8(content);
        let headers = request.headers.iter();
        let line = Line {
            position: delivery.position.0,
            time: delivery.time_ms,
            seed: &delivery.seed,
            replay: delivery.replay,
            method: &request.method,
            path: &request.path,
            headers: headers
                .map(|header| (header.name.as_str(), std::str::from_utf8(&header.value).unwrap_or_default()))
                .collect(),
            body: text.unwrap_or_default(),
            body64: if text.is_ok() { String::new() } else { BASE64.encode(content) },
        };
        serde_json::to_writer(&mut lines, &line).expect("texts and numbers have a JSON form, and memory takes them");
        lines.push(b'\n');
    }
    lines.into()
}

impl Connection {
    /// Sends a batch and waits for the whole answer: as many replies, in the order of the requests.
    ///
    /// # Errors
    /// The state is unknown then: any of the requests may have been applied, or none.
    pub async fn deliver_batch(
        &mut self,
        path: &str,
        deliveries: &[Delivery<'_>],
        limits: Limits,
    ) -> Result<Vec<Reply>, ServiceError> {
        let ends = (deliveries.first(), deliveries.last());
        let at = |delivery: Option<&Delivery<'_>>| delivery.map_or(0, |delivery| delivery.position.0);
        let name = format!("POST {path} with the requests at positions {} to {}", at(ends.0), at(ends.1));
        let request = hyper::Request::builder()
            .method("POST")
            .uri(path)
            .header("host", &self.address)
            .header("content-type", CONTENT_TYPE)
            .body(full(encode(deliveries)))
            .map_err(|error| broken(&name, &error.to_string()))?;
        let whole = async {
            self.sender.ready().await.map_err(|error| broken(&name, &error.to_string()))?;
            let answer = self.sender.send_request(request).await.map_err(|error| broken(&name, &error.to_string()))?;
            check_token(&answer, self.token.as_deref(), &self.address)?;
            read_answer(answer, &name, deliveries, limits.reply_bytes).await
        };
        match self.shell.within(limits.time, whole).await {
            Some(result) => result,
            None => Err(timed_out(&name, limits.time)),
        }
    }
}

async fn read_answer(
    answer: hyper::Response<hyper::body::Incoming>,
    name: &str,
    deliveries: &[Delivery<'_>],
    reply_limit_bytes: u64,
) -> Result<Vec<Reply>, ServiceError> {
    let (head, mut body) = answer.into_parts();
    let mut lines = ReplyLines::new(deliveries, reply_limit_bytes);
    let mut refusal = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| broken(name, &error.to_string()))?;
        let Some(data) = frame.data_ref() else { continue };
        if head.status == hyper::StatusCode::OK {
            lines.push(data).map_err(|reason| wrong_shape(name, reason))?;
        } else {
            refusal.extend_from_slice(&data[..data.len().min(REFUSAL_BYTES.saturating_sub(refusal.len()))]);
        }
    }
    if head.status != hyper::StatusCode::OK {
        let reply = Reply { status: head.status.as_u16(), headers: Vec::new(), body: refusal.freeze() };
        return Err(refused(name, &reply));
    }
    lines.finish().map_err(|reason| wrong_shape(name, reason))
}

fn wrong_shape(name: &str, reason: String) -> ServiceError {
    ServiceError::WrongShape { request: name.to_owned(), reason }
}

/// Reads reply lines as they come.
struct ReplyLines<'a> {
    asked: &'a [Delivery<'a>],
    reply_limit_bytes: u64,
    replies: Vec<Reply>,
    /// The beginning of a line whose end has not come.
    begun: BytesMut,
    /// How long that line is; above the limit its content is dropped.
    begun_bytes: u64,
    total_bytes: u64,
}

impl<'a> ReplyLines<'a> {
    fn new(asked: &'a [Delivery<'a>], reply_limit_bytes: u64) -> ReplyLines<'a> {
        let replies = Vec::with_capacity(asked.len());
        ReplyLines { asked, reply_limit_bytes, replies, begun: BytesMut::new(), begun_bytes: 0, total_bytes: 0 }
    }

    fn push(&mut self, mut data: &[u8]) -> Result<(), String> {
        self.total_bytes += data.len() as u64;
        if self.total_bytes > ANSWER_LIMIT_BYTES {
            return Err(format!("it has more than {ANSWER_LIMIT_BYTES} bytes"));
        }
        while let Some(end) = data.iter().position(|byte| *byte == b'\n') {
            if self.begun_bytes == 0 {
                self.line(&data[..end], end as u64)?;
            } else {
                self.begin(&data[..end]);
                self.end()?;
            }
            data = &data[end + 1..];
        }
        self.begin(data);
        Ok(())
    }

    fn begin(&mut self, part: &[u8]) {
        self.begun_bytes += part.len() as u64;
        if self.begun_bytes <= self.line_limit_bytes() {
            self.begun.extend_from_slice(part);
        }
    }

    fn end(&mut self) -> Result<(), String> {
        let line = std::mem::take(&mut self.begun);
        let bytes = std::mem::take(&mut self.begun_bytes);
        self.line(&line, bytes)
    }

    fn line_limit_bytes(&self) -> u64 {
        self.reply_limit_bytes.saturating_mul(ESCAPED_BYTES).saturating_add(LINE_ROOM_BYTES)
    }

    fn line(&mut self, line: &[u8], bytes: u64) -> Result<(), String> {
        let number = self.replies.len() + 1;
        let Some(asked) = self.asked.get(number - 1) else {
            return Err(format!("it has more lines than the batch's {}", self.asked.len()));
        };
        if bytes > self.line_limit_bytes() {
            self.replies.push(reply_too_large(self.reply_limit_bytes));
            return Ok(());
        }
        let reply = read_line(line, self.reply_limit_bytes).map_err(|reason| {
            let Request { method, path, .. } = asked.request;
            format!("line {number}, for {method} {path} at position {}: {reason}", asked.position)
        })?;
        self.replies.push(reply);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Reply>, String> {
        if self.begun_bytes > 0 {
            self.end()?;
        }
        if self.replies.len() < self.asked.len() {
            return Err(format!("it has {} lines where the batch has {}", self.replies.len(), self.asked.len()));
        }
        Ok(self.replies)
    }
}

fn read_line(line: &[u8], reply_limit_bytes: u64) -> Result<Reply, String> {
    let line: ReplyLine<'_> = serde_json::from_slice(line).map_err(|error| error.to_string())?;
    if !(200..=999).contains(&line.status) {
        return Err(format!("the status {} is not between 200 and 999", line.status));
    }
    if !line.body.is_empty() && !line.body64.is_empty() {
        return Err("it has both body and body64".to_owned());
    }
    let mut headers = HeaderMap::with_capacity(line.headers.len());
    for (Text(name), Text(value)) in &line.headers {
        let bad = || format!("the header {name:?} is not one of HTTP");
        let name = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        // As HTTP/1.1 would read it.
        let value = HeaderValue::from_bytes(value.trim_matches([' ', '\t']).as_bytes()).map_err(|_| bad())?;
        headers.append(name, value);
    }
    let body = match line.body64.as_ref() {
        "" => Bytes::copy_from_slice(line.body.as_bytes()),
        coded => BASE64.decode(coded).map_err(|error| format!("body64: {error}"))?.into(),
    };
    if body.len() as u64 > reply_limit_bytes {
        return Ok(reply_too_large(reply_limit_bytes));
    }
    // They have none over HTTP either.
    let body = if matches!(line.status, 204 | 304) { Bytes::new() } else { body };
    Ok(Reply { status: line.status, headers: kept_headers(&headers), body })
}

#[cfg(test)]
mod tests;
