//! The sidecar's own paths at an ingress: where kept replies are fetched, and what is answered where there is nothing to be reached.

use super::Answer;
use crate::config::path::decode;
use crate::config::route::RESERVED_PATHS;

/// Where a kept reply is fetched: the key follows.
pub const REPLIES: &str = "/segue/replies/";

/// What a request for a hidden path is answered.
#[must_use]
pub fn hidden(path: &str) -> Answer {
    Answer::Refused {
        status: 404,
        code: "state-path",
        detail: format!("{path} is where the sidecar saves and loads the service; it is not reachable from here"),
    }
}

/// What a request for a path of the sidecar's own is answered, where there is nothing.
#[must_use]
pub fn reserved(path: &str) -> Answer {
    Answer::Refused {
        status: 404,
        code: "no-such-path",
        detail: format!("{path}: paths under {RESERVED_PATHS} belong to the sidecar; there is GET {REPLIES}{{key}}"),
    }
}

/// The key in a path of [`REPLIES`]; `None` if the path is another one.
#[must_use]
pub fn reply_key(path: &str) -> Option<String> {
    let key = path.strip_prefix(REPLIES)?;
    Some(String::from_utf8_lossy(&decode(key)).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_s_key_is_decoded() {
        assert_eq!(reply_key("/segue/replies/order%2017%2F%zz").as_deref(), Some("order 17/%zz"));
        assert_eq!(reply_key("/segue/other"), None);
    }
}
