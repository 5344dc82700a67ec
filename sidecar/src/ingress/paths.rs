//! Which paths clients cannot reach through an ingress: the sidecar's own, and those by which it saves and loads the service.
//!
//! A service may decode a path before it looks it up, so a path is compared as the most generous service would read it.

use std::borrow::Cow;
use std::sync::Arc;

use super::Answer;
use crate::config::ServiceConfig;
use crate::config::route::RESERVED_PATHS;

/// Where a kept reply is fetched: the key follows.
pub const REPLIES: &str = "/segue/replies/";

/// Whether a path, with or without a query, is the sidecar's own.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    let plain = plain(path);
    plain.starts_with(RESERVED_PATHS) || plain == RESERVED_PATHS.trim_end_matches('/')
}

/// The paths by which the sidecar saves and loads the service, as they are compared.
#[derive(Clone, Debug, Default)]
pub struct Hidden(Arc<[String]>);

impl Hidden {
    /// Those of a configuration.
    #[must_use]
    pub fn of(config: &ServiceConfig) -> Hidden {
        let compared = |path: &str| plain(path).trim_end_matches('/').to_owned();
        Hidden(config.hidden_paths().into_iter().map(compared).collect())
    }

    /// Whether a path, with or without a query, is one of them.
    #[must_use]
    pub fn has(&self, path: &str) -> bool {
        let plain = plain(path);
        let asked = plain.trim_end_matches('/');
        self.0.iter().any(|hidden| hidden == asked)
    }
}

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

/// As the most generous service reads a path: without query, percent-encoding, empty and `.` segments, and with `..` taken.
#[must_use]
pub fn plain(path: &str) -> Cow<'_, str> {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    // Most are written so: nothing is to be decoded, dropped or taken.
    if path.starts_with('/') && !path.contains('%') && !path.contains("//") && !path.contains("/.") {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let text = String::from_utf8_lossy(&decoded);
    let mut segments: Vec<&str> = Vec::new();
    for segment in text.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            other => segments.push(other),
        }
    }
    let slash = if text.ends_with('/') && !segments.is_empty() { "/" } else { "" };
    Cow::Owned(format!("/{}{slash}", segments.join("/")))
}

fn decode(text: &str) -> Cow<'_, [u8]> {
    if !text.contains('%') {
        return Cow::Borrowed(text.as_bytes());
    }
    let digit = |byte: Option<&u8>| byte.and_then(|byte| char::from(*byte).to_digit(16));
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match (bytes[at], digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(u8::try_from(16 * high + low).expect("two hexadecimal digits are at most 255"));
                at += 3;
            }
            (byte, ..) => {
                decoded.push(byte);
                at += 1;
            }
        }
    }
    Cow::Owned(decoded)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hidden_path_is_found_however_it_is_written() {
        let text = "name = 's'\nlisten = 'l'\nrun = ['x']\nstate = { kind = 'http', path = '/the/state' }\n";
        let hidden = Hidden::of(&toml::from_str(text).expect("a good service"));
        for path in
            ["/the/state", "/the/state?x=1", "/the//state/", "/the/st%61te", "/the/x/../state", "/%74he/./state"]
        {
            assert!(hidden.has(path), "{path}");
        }
        for path in ["/the/states", "/the", "/state"] {
            assert!(!hidden.has(path), "{path}");
        }
    }

    #[test]
    fn a_path_that_is_plain_already_stays() {
        for (path, is) in [
            ("/", "/"),
            ("/a/b?c//d", "/a/b"),
            ("/a/", "/a/"),
            ("/a//b", "/a/b"),
            ("/a/.b", "/a/.b"),
            ("/a/./b/..", "/a"),
            ("//", "/"),
            ("", "/"),
            ("*", "/*"),
        ] {
            assert_eq!(plain(path), is, "{path}");
        }
    }

    #[test]
    fn what_begins_with_segue_is_the_sidecars() {
        for path in ["/segue/replies/x", "/segue", "/segue/", "//segue/state", "/%73egue/state", "/x/../segue/y"] {
            assert!(is_reserved(path), "{path}");
        }
        assert!(!is_reserved("/segues/x") && !is_reserved("/x/segue/"));
    }

    #[test]
    fn a_reply_s_key_is_decoded() {
        assert_eq!(reply_key("/segue/replies/order%2017%2F%zz").as_deref(), Some("order 17/%zz"));
        assert_eq!(reply_key("/segue/other"), None);
    }
}
