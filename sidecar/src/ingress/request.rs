//! From an HTTP request to the one that a record holds: end-to-end headers, the client's key, the whole body within its limit.
//!
//! Everything that is refused here is refused before an append.

use std::sync::Arc;

use broker_adapter::record::{Body, Header, Request};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::HeaderMap;
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONNECTION, COOKIE, HOST, HeaderName, HeaderValue};
use hyper::http::request::Parts;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Answer, KEY_MAX_BYTES};
use crate::config::ServiceConfig;
use crate::service::is_hop_by_hop;

/// Room for the bodies of requests that wait.
#[derive(Clone)]
pub(super) struct Room {
    bytes: Arc<Semaphore>,
    limit_bytes: u64,
}

impl Room {
    pub fn new(config: &ServiceConfig) -> Room {
        let limit = usize::try_from(config.parking_limit_bytes).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Room { bytes: Arc::new(Semaphore::new(limit)), limit_bytes: config.parking_limit_bytes }
    }

    /// Room for a body, or a refusal: nothing of it was read.
    fn take(&self, bytes: u64) -> Result<OwnedSemaphorePermit, Answer> {
        let wanted = u32::try_from(bytes).unwrap_or(u32::MAX);
        self.bytes.clone().try_acquire_many_owned(wanted).map_err(|_| Answer::Unavailable {
            code: "parking-full",
            detail: format!(
                "the bodies of the requests that wait at this ingress have {} bytes already (parking_limit_bytes)",
                self.limit_bytes
            ),
        })
    }
}

/// A request that was read whole.
pub(super) struct Whole {
    pub request: Request,
    pub client_key: Option<String>,
    /// Given back when it is answered.
    pub room: OwnedSemaphorePermit,
}

pub(super) async fn read(
    config: &ServiceConfig,
    room: &Room,
    request: hyper::Request<Incoming>,
) -> Result<Whole, Answer> {
    let (head, body) = request.into_parts();
    let client_key = client_key(&head.headers)?;
    let limit = config.body_limit_bytes;
    if body.size_hint().lower() > limit {
        return Err(too_large(limit));
    }
    let room = room.take(body.size_hint().upper().unwrap_or(limit).min(limit))?;
    let body = Limited::new(body, usize::try_from(limit).unwrap_or(usize::MAX)).collect().await;
    let body = body.map_err(|error| {
        if error.is::<LengthLimitError>() {
            too_large(limit)
        } else {
            let detail = format!("the request's body could not be read: {error}");
            Answer::Refused { status: 400, code: "bad-body", detail }
        }
    })?;
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let request = Request {
        method: head.method.as_str().to_owned(),
        path,
        headers: end_to_end(&head),
        body: Body::Inline(body.to_bytes()),
    };
    Ok(Whole { request, client_key, room })
}

fn too_large(limit: u64) -> Answer {
    let detail = format!("the request's body is above body_limit_bytes = {limit}");
    Answer::Refused { status: 413, code: "body-too-large", detail }
}

/// The client's `Idempotency-Key`, if there is one.
fn client_key(headers: &HeaderMap) -> Result<Option<String>, Answer> {
    let mut keys = headers.get_all("idempotency-key").iter();
    let Some(key) = keys.next() else { return Ok(None) };
    if keys.next().is_some() {
        return Err(bad_key("a request has one Idempotency-Key, this one has several"));
    }
    let text = key.to_str().map_err(|_| bad_key("an Idempotency-Key is visible ASCII"))?;
    check_key(text)?;
    Ok(Some(text.to_owned()))
}

/// Whether a text can be a key.
pub(super) fn check_key(key: &str) -> Result<(), Answer> {
    match key.len() {
        0 => Err(bad_key("the Idempotency-Key is empty")),
        1..=KEY_MAX_BYTES => Ok(()),
        bytes => Err(bad_key(&format!(
            "an Idempotency-Key has at most {KEY_MAX_BYTES} bytes, this one has {bytes}: shorten it"
        ))),
    }
}

fn bad_key(detail: &str) -> Answer {
    Answer::Refused { status: 400, code: "bad-idempotency-key", detail: detail.to_owned() }
}

/// What the service gets: without what belongs to the connection, and without what only a sidecar may say.
fn end_to_end(head: &Parts) -> Vec<Header> {
    let nominated = nominated(&head.headers);
    let mut headers = Vec::with_capacity(head.headers.len() + 1);
    if let Some(authority) = head.uri.authority().filter(|_| !head.headers.contains_key(HOST)) {
        headers.push(to_header(&HOST, authority.as_str().as_bytes()));
    }
    for name in head.headers.keys() {
        let text = name.as_str();
        if is_hop_by_hop(text) || text.starts_with("segue-") || nominated.iter().any(|other| other == text) {
            continue;
        }
        let values = head.headers.get_all(name);
        if name == COOKIE {
            // HTTP/2 may send it in crumbs, HTTP/1.1 may not (RFC 9113, section 8.2.3).
            let crumbs: Vec<&[u8]> = values.iter().map(HeaderValue::as_bytes).collect();
            headers.push(to_header(name, &crumbs.join(&b"; "[..])));
        } else {
            headers.extend(values.iter().map(|value| to_header(name, value.as_bytes())));
        }
    }
    headers
}

/// What `Connection` names belongs to the connection too (RFC 9110, section 7.6.1).
fn nominated(headers: &HeaderMap) -> Vec<String> {
    let lists = headers.get_all(CONNECTION).iter().filter_map(|value| value.to_str().ok());
    lists.flat_map(|list| list.split(',')).map(|name| name.trim().to_ascii_lowercase()).collect()
}

fn to_header(name: &HeaderName, value: &[u8]) -> Header {
    Header { name: name.as_str().to_owned(), value: Bytes::copy_from_slice(value) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn head(headers: &[(&str, &str)]) -> Parts {
        let mut builder = hyper::Request::builder().method("POST").uri("http://service:80/x");
        for (name, value) in headers {
            builder = builder.header(*name, *value);
        }
        builder.body(()).expect("a good request").into_parts().0
    }

    fn texts(headers: &[(&str, &str)]) -> Vec<String> {
        let headers = end_to_end(&head(headers)).into_iter();
        headers.map(|header| format!("{}: {}", header.name, String::from_utf8_lossy(&header.value))).collect()
    }

    #[test]
    fn trace_context_goes_to_the_service_and_what_belongs_to_the_connection_does_not() {
        let trace = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let got = texts(&[
            ("traceparent", trace.split_once(": ").expect("it has one").1),
            ("tracestate", "a=1"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("segue-replay", "true"),
        ]);
        assert_eq!(got, ["host: service:80", trace, "tracestate: a=1"]);
    }

    #[test]
    fn the_crumbs_of_a_cookie_become_one() {
        assert_eq!(texts(&[("host", "h"), ("cookie", "a=1"), ("cookie", "b=2")]), ["host: h", "cookie: a=1; b=2"]);
    }

    #[test]
    fn a_key_is_one_text_of_1_to_256_visible_bytes() {
        let key = |headers: &[(&str, &str)]| client_key(&head(headers).headers);
        assert_eq!(key(&[]), Ok(None));
        let longest = "k".repeat(KEY_MAX_BYTES);
        assert_eq!(key(&[("idempotency-key", &longest)]), Ok(Some(longest.clone())));
        let too_long = format!("{longest}k");
        for bad in [vec![too_long.as_str()], vec![""], vec!["ä"], vec!["a", "b"]] {
            let headers: Vec<_> = bad.iter().map(|key| ("idempotency-key", *key)).collect();
            let refused = key(&headers).expect_err("it is no key");
            assert!(matches!(refused, Answer::Refused { status: 400, code: "bad-idempotency-key", .. }), "{bad:?}");
        }
    }
}
