//! Replies of the sidecar's own in the place of a service's, as problem details (RFC 9457).
//!
//! What a replica says so is kept with the replies of the service, and in part of the running hash (invariant 8): those bytes never
//! change. What an ingress says is for one client only.

use std::sync::Arc;

use broker_adapter::record::Header;
use bytes::Bytes;

use crate::command::Reply;

/// The key of a request came again with another request.
#[must_use]
pub fn key_reused() -> Arc<Reply> {
    Arc::new(of_replica(422, "key-reused", "key-reused", "this Idempotency-Key was used for another request"))
}

/// The key of a request that was applied came again, too late.
#[must_use]
pub fn reply_gone() -> Arc<Reply> {
    Arc::new(of_replica(410, "reply-gone", "reply-gone", "the request was applied, and its reply is no longer kept"))
}

/// Nobody can tell any more whether the key was there before.
#[must_use]
pub fn key_expired() -> Arc<Reply> {
    let detail = "the request was not applied: its key is too old to be sure";
    Arc::new(of_replica(410, "key-expired", "key-expired", detail))
}

/// The typed error that takes the place of a reply above the limit: the same in every replica.
#[must_use]
pub fn reply_too_large(limit_bytes: u64) -> Reply {
    let detail = format!("the service's reply is above reply_limit_bytes = {limit_bytes}; the request was applied");
    of_replica(502, "reply-too-large", "reply too large", &detail)
}

/// None of these texts has a letter that JSON escapes.
fn of_replica(status: u16, code: &str, title: &str, detail: &str) -> Reply {
    let body =
        format!(r#"{{"type":"about:blank","title":"{title}","status":{status},"code":"{code}","detail":"{detail}"}}"#);
    Reply { status, headers: vec![content_type()], body: body.into() }
}

/// What an ingress says; the key among the headers is in the body too.
#[must_use]
pub fn of_ingress(status: u16, code: &str, detail: &str, mut headers: Vec<Header>) -> Reply {
    headers.push(content_type());
    let key = headers.iter().find(|header| header.name == "idempotency-key");
    let key = key.map(|header| String::from_utf8_lossy(&header.value).into_owned());
    let body = serde_json::json!({
        "type": "about:blank", "title": code, "status": status, "code": code, "detail": detail, "key": key,
    });
    Reply { status, headers, body: body.to_string().into() }
}

fn content_type() -> Header {
    Header { name: "content-type".to_owned(), value: Bytes::from_static(b"application/problem+json") }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// They are kept and hashed, so all versions have to say the same.
    #[test]
    fn the_bytes_of_a_replica_s_own_replies_are_fixed() {
        let of = |reply: &Reply| {
            let [Header { name, value }] = reply.headers.as_slice() else { panic!("{:?}", reply.headers) };
            assert_eq!((name.as_str(), value.as_ref()), ("content-type", &b"application/problem+json"[..]));
            format!("{} {}", reply.status, String::from_utf8_lossy(&reply.body))
        };
        assert_eq!(
            of(&reply_gone()),
            r#"410 {"type":"about:blank","title":"reply-gone","status":410,"code":"reply-gone","detail":"the request was applied, and its reply is no longer kept"}"#
        );
        assert_eq!(
            of(&reply_too_large(100)),
            r#"502 {"type":"about:blank","title":"reply too large","status":502,"code":"reply-too-large","detail":"the service's reply is above reply_limit_bytes = 100; the request was applied"}"#
        );
        assert_eq!(
            of(&crate::ingress::paths::hidden("/\"").into_reply()),
            r#"404 {"code":"state-path","detail":"/\" is where the sidecar saves and loads the service; it is not reachable from here","key":null,"status":404,"title":"state-path","type":"about:blank"}"#
        );
    }
}
