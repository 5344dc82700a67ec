//! Trace context (W3C Recommendation "Trace Context", section 3.2), and the spans of requests, appends and deliveries.
//!
//! ```text
//!   client's span ──▶ request ──▶ append            the record keeps the client's context, or without one this request's
//!        └──────────▶ deliver (by the owner)        replay (by any other replica): a trace of its own with a link
//! ```
//! This crate knows only `tracing`, and all spans have one target, so whoever collects none pays nothing for them. What `tracing`
//! cannot say stands in fields that the collector's side (the binary) takes out again: [`PARENT`], [`LINK`] and their states.

use broker_adapter::ids::Position;
use broker_adapter::record::{Header, Request};
use bytes::Bytes;
use hyper::HeaderMap;
use tracing::field::Empty;
use tracing::{Level, Span};

use crate::command::Reply;
use crate::service::ServiceError;
use crate::shard::Context;

/// The target of every span that is collected; logs have it never.
pub const TARGET: &str = "otlp";
/// The field that holds the `traceparent` of a parent in another process.
pub const PARENT: &str = "segue.parent";
/// The field that holds that parent's `tracestate`.
pub const PARENT_STATE: &str = "segue.parent_state";
/// The field that holds the `traceparent` of a span that is linked, and no parent.
pub const LINK: &str = "segue.link";
/// The field that holds that span's `tracestate`.
pub const LINK_STATE: &str = "segue.link_state";

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Gives the `traceparent` of a span that is collected.
pub type Traceparent = fn(&Span) -> Option<String>;

/// As the metrics have it; attributes have no unsigned numbers.
fn number(position: Position) -> i64 {
    i64::try_from(position.0).unwrap_or(i64::MAX)
}

/// What logs say of a request: the trace that the client began, if it began one.
pub(crate) fn of_log(headers: &HeaderMap) -> Span {
    match text(headers, TRACEPARENT).and_then(parts) {
        Some(Parts { trace_id, .. }) => tracing::info_span!("request", trace_id),
        None => Span::none(),
    }
}

/// The span of a request (OpenTelemetry's semantic conventions for HTTP servers).
pub(crate) fn of_request<B>(context: &Context, request: &hyper::Request<B>) -> Span {
    let method = method(request.method().as_str());
    let (headers, uri) = (request.headers(), request.uri());
    tracing::trace_span!(
        target: TARGET,
        "request",
        otel.name = method.unwrap_or("HTTP"),
        otel.kind = "server",
        otel.status_code = Empty,
        http.request.method = method.unwrap_or("_OTHER"),
        http.request.method_original = method.is_none().then(|| request.method().as_str()),
        http.response.status_code = Empty,
        url.scheme = "http",
        url.path = uri.path(),
        server.address = text(headers, "host").or_else(|| uri.authority().map(|authority| authority.as_str())),
        user_agent.original = text(headers, "user-agent"),
        network.protocol.version = if request.version() == hyper::Version::HTTP_2 { "2" } else { "1.1" },
        error.type = Empty,
        segue.service = %context.shard.service,
        segue.shard = %context.shard.shard,
        segue.node = %context.me.node,
        segue.position = Empty,
        segue.parent = text(headers, TRACEPARENT),
        segue.parent_state = text(headers, TRACESTATE),
    )
}

/// What became of a request.
pub(crate) fn answered(span: &Span, reply: &Reply) {
    if span.is_disabled() {
        return;
    }
    status(span, reply);
    let position = reply.headers.iter().find(|header| header.name == "segue-position");
    let position = position.and_then(|header| std::str::from_utf8(&header.value).ok()?.parse().ok());
    if let Some(position) = position {
        span.record("segue.position", number(Position(position)));
    }
}

/// A server's error is an error of the span; a client's is not.
fn status(span: &Span, reply: &Reply) {
    span.record("http.response.status_code", i64::from(reply.status));
    if reply.status >= 500 {
        span.record("error.type", tracing::field::display(reply.status));
        span.record("otel.status_code", "ERROR");
    }
}

/// From a request's coming until it was read back from the log: its waiting, the append, and what was sent again.
pub(crate) fn of_append(request: &Span, context: &Context) -> Span {
    tracing::trace_span!(target: TARGET, parent: request, "append", segue.log = context.shard.log_name())
}

/// Whose client began no trace: the record keeps that of the request itself, so that its deliveries, wherever and whenever, can
/// name it. What a client sent stays as it is.
pub(crate) fn keep(span: &Span, context: &Context, request: &mut Request) {
    let Some(traceparent) = context.traceparent else { return };
    if request.headers.iter().any(|header| header.name == TRACEPARENT) {
        return;
    }
    if let Some(own) = traceparent(span) {
        request.headers.push(Header { name: TRACEPARENT.to_owned(), value: Bytes::from(own) });
    }
}

/// A message on its way to the service.
pub(crate) struct Sent<'a> {
    pub position: Position,
    pub request: &'a Request,
    /// Whether this replica gives no reply out.
    pub replay: bool,
}

/// The spans of messages that go to the service together.
pub(crate) struct Deliveries(Vec<Span>);

impl Deliveries {
    /// Begins them.
    pub fn begin<'a>(context: &Context, messages: impl Iterator<Item = Sent<'a>>) -> Deliveries {
        if !tracing::enabled!(target: TARGET, Level::TRACE) {
            return Deliveries(Vec::new());
        }
        Deliveries(messages.map(|sent| of_delivery(context, &sent)).collect())
    }

    /// They are over, with these replies.
    pub fn answered(self, replies: &[Reply]) {
        for (span, reply) in self.0.iter().zip(replies) {
            status(span, reply);
        }
    }

    /// What became of them is unknown.
    pub fn failed(self, error: &ServiceError) {
        for span in &self.0 {
            span.record("otel.status_description", error.to_string());
        }
    }
}

/// A delivery by the owner belongs to the trace of its request. One whose reply is not given out happens whenever a replica comes to it:
/// it has a trace of its own, with a link, if that of the request is collected.
fn of_delivery(context: &Context, sent: &Sent<'_>) -> Span {
    let Request { method, path, headers, .. } = sent.request;
    let header = |name: &str| headers.iter().find(|header| header.name == name);
    let text = |name: &str| header(name).and_then(|header| std::str::from_utf8(&header.value).ok());
    let Some((traceparent, parts)) = text(TRACEPARENT).and_then(|text| Some((text, parts(text)?))) else {
        return Span::none();
    };
    let (path, _query) = path.split_once('?').unwrap_or((path, ""));
    if sent.replay && !parts.is_sampled {
        return Span::none();
    }
    let (parent, link) = if sent.replay { (None, Some(traceparent)) } else { (Some(traceparent), None) };
    tracing::trace_span!(
        target: TARGET,
        parent: None,
        "deliver",
        otel.name = if sent.replay { "replay" } else { "deliver" },
        otel.kind = "client",
        otel.status_code = Empty,
        otel.status_description = Empty,
        http.request.method = method,
        http.response.status_code = Empty,
        url.path = path,
        error.type = Empty,
        segue.service = %context.shard.service,
        segue.shard = %context.shard.shard,
        segue.node = %context.me.node,
        segue.position = number(sent.position),
        segue.parent = parent,
        segue.parent_state = parent.and(text(TRACESTATE)),
        segue.link = link,
        segue.link_state = link.and(text(TRACESTATE)),
    )
}

/// Names of methods are few, whatever clients send (the same conventions).
fn method(name: &str) -> Option<&str> {
    const KNOWN: [&str; 9] = ["CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];
    KNOWN.contains(&name).then_some(name)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// What a `traceparent` says.
#[derive(Debug, PartialEq, Eq)]
struct Parts<'a> {
    trace_id: &'a str,
    is_sampled: bool,
}

/// `VERSION-TRACE_ID-PARENT_ID-FLAGS`, all in lower-case hexadecimal.
fn parts(traceparent: &str) -> Option<Parts<'_>> {
    let mut parts = traceparent.split('-');
    let (version, trace_id, parent_id) = (parts.next()?, parts.next()?, parts.next()?);
    let flags = parts.next()?;
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let is_id = |text: &str, digits| text.len() == digits && hexadecimal(text) && text.bytes().any(|byte| byte != b'0');
    let is_byte = |text: &str| text.len() == 2 && hexadecimal(text);
    let good = is_byte(version) && is_byte(flags) && is_id(trace_id, 32) && is_id(parent_id, 16);
    let flags = u8::from_str_radix(flags, 16).ok().filter(|_| good)?;
    Some(Parts { trace_id, is_sampled: flags & 1 == 1 })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_by_its_id_and_what_is_none_is_not() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        for (flags, is_sampled) in [("00", false), ("01", true), ("02", false), ("03", true)] {
            let traceparent = format!("00-{id}-b7ad6b7169203331-{flags}");
            assert_eq!(parts(&traceparent), Some(Parts { trace_id: id, is_sampled }));
        }
        let zeros = "0".repeat(32);
        let upper = id.to_ascii_uppercase();
        for bad in [
            String::new(),
            "00".to_owned(),
            "00-1-2-3".to_owned(),
            format!("00-{upper}-b7ad6b7169203331-01"),
            format!("00-{zeros}-b7ad6b7169203331-01"),
            format!("00-{id}-0000000000000000-01"),
            format!("00-{id}-b7ad6b7169203331-+1"),
            format!("00-{id}-b7ad6b7169203331-1"),
        ] {
            assert_eq!(parts(&bad), None, "{bad}");
        }
    }

    #[test]
    fn the_methods_that_name_spans_are_few() {
        assert_eq!([method("POST"), method("PURGE"), method("post")], [Some("POST"), None, None]);
    }
}
