//! Which paths clients cannot reach: the sidecar's own, and those by which it saves and loads the service.
//!
//! A service may decode a path before it looks it up, so a path is compared as the most generous service would read it.

use std::borrow::Cow;
use std::sync::Arc;

use super::ServiceConfig;
use super::route::RESERVED_PATHS;

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

/// Whether a path, with or without a query, is the sidecar's own.
#[must_use]
pub fn is_reserved(path: &str) -> bool {
    let plain = plain(path);
    plain.starts_with(RESERVED_PATHS) || plain == RESERVED_PATHS.trim_end_matches('/')
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

/// Without percent-encoding.
#[must_use]
pub fn decode(text: &str) -> Cow<'_, [u8]> {
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
}
