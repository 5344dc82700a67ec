//! Trace context (W3C Recommendation "Trace Context", section 3.2): the ingress passes it on and names it in its own logs.

use hyper::HeaderMap;
use tracing::Span;

/// The span of a request: it names the trace that the client began, if it began one.
pub(super) fn span(headers: &HeaderMap) -> Span {
    match headers.get("traceparent").and_then(|value| value.to_str().ok()).and_then(trace_id) {
        Some(trace_id) => tracing::info_span!("request", trace_id),
        None => Span::none(),
    }
}

/// The trace's id: `VERSION-TRACE_ID-PARENT_ID-FLAGS`, all in lower-case hexadecimal.
fn trace_id(traceparent: &str) -> Option<&str> {
    let mut parts = traceparent.split('-');
    let (version, id) = (parts.next()?, parts.next()?);
    let hexadecimal = |text: &str| text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let good = version.len() == 2 && id.len() == 32 && hexadecimal(version) && hexadecimal(id);
    (good && parts.next().is_some() && id.bytes().any(|byte| byte != b'0')).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trace_is_named_by_its_id_and_what_is_none_is_not() {
        let id = "0af7651916cd43dd8448eb211c80319c";
        assert_eq!(trace_id(&format!("00-{id}-b7ad6b7169203331-01")), Some(id));
        let zeros = "0".repeat(32);
        for bad in ["", "00", "00-1-2-3", "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01"] {
            assert_eq!(trace_id(bad), None, "{bad}");
        }
        assert_eq!(trace_id(&format!("00-{zeros}-b7ad6b7169203331-01")), None);
    }
}
