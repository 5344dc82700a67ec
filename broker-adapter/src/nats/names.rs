//! Names of ours as names of NATS: one token of letters, digits and `-`, everything else as `_` and two hexadecimal digits.
//!
//! So no name holds a dot, a wildcard, a space or a slash there, and no two names of ours are the same name there.

use std::fmt::Write as _;

/// The longest stream name.
const STREAM_NAME_LIMIT_BYTES: usize = 255;

/// Whose names: what stands in the URL behind the servers, so that one NATS can serve several systems that do not know each other.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Space(String);

impl Space {
    /// From the URL's path; empty where there is none.
    pub fn of(path: &str) -> Space {
        Space(if path.is_empty() { String::new() } else { format!("{}__", token(path)) })
    }

    /// A log's stream; `None` if the log's name is too long for one.
    pub fn stream_of_log(&self, log: &str) -> Option<String> {
        let name = format!("SEGUE_{}{}", self.0, token(log));
        (!log.is_empty() && name.len() <= STREAM_NAME_LIMIT_BYTES).then_some(name)
    }

    /// The one subject of a log's stream.
    pub fn subject_of_log(&self, log: &str) -> String {
        format!("segue.log.{}{}", self.0, token(log))
    }

    /// Where mail for an address goes.
    pub fn subject_of_mail(&self, address: &str) -> String {
        format!("segue.mail.{}{}", self.0, token(address))
    }

    /// The bucket of the checkpoint store, as `nats object` knows it.
    pub fn bucket(&self) -> String {
        format!("{}segue", self.0)
    }
}

fn token(name: &str) -> String {
    let mut token = String::with_capacity(name.len());
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' => token.push(char::from(byte)),
            other => write!(token, "_{other:02X}").expect("writing to memory does not fail"),
        }
    }
    token
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_name_of_ours_breaks_a_subject_or_meets_another() {
        let (none, demo) = (Space::of(""), Space::of("demo"));
        assert_eq!(none.stream_of_log("delay-board.0").unwrap(), "SEGUE_delay-board_2E0");
        assert_eq!(demo.stream_of_log("delay-board.0").unwrap(), "SEGUE_demo__delay-board_2E0");
        assert_ne!(Some(demo.subject_of_log("a")), none.stream_of_log("demo__a"), "no name holds two low lines");
        assert_eq!(none.subject_of_mail("node/edge-a"), "segue.mail.node_2Fedge-a");
        let names = ["a.b", "a_2Eb", "a b", "a*", "a>", "a/b", "ä", "a", "A"];
        let tokens: std::collections::BTreeSet<String> = names.iter().map(|name| token(name)).collect();
        assert_eq!(tokens.len(), names.len());
        for token in tokens {
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        }
    }

    #[test]
    fn a_name_too_long_for_a_stream_is_refused() {
        let names = Space::of("");
        assert!(names.stream_of_log(&"a".repeat(249)).is_some());
        assert!(names.stream_of_log(&"a".repeat(250)).is_none() && names.stream_of_log("").is_none());
    }
}
