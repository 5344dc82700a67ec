//! Names of ours as names of NATS: one token of letters, digits and `-`, everything else as `_` and two hexadecimal digits.
//!
//! So no name holds a dot, a wildcard, a space or a slash there, and no two names of ours are the same name there.

use std::fmt::Write as _;

/// The bucket of the checkpoint store, as `nats object` knows it.
pub const BUCKET: &str = "segue";

/// The longest stream name.
const STREAM_NAME_LIMIT_BYTES: usize = 255;

/// A log's stream; `None` if the log's name is too long for one.
pub fn stream_of_log(log: &str) -> Option<String> {
    let name = format!("SEGUE_{}", token(log));
    (!log.is_empty() && name.len() <= STREAM_NAME_LIMIT_BYTES).then_some(name)
}

/// The one subject of a log's stream.
pub fn subject_of_log(log: &str) -> String {
    format!("segue.log.{}", token(log))
}

/// Where mail for an address goes.
pub fn subject_of_mail(address: &str) -> String {
    format!("segue.mail.{}", token(address))
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
        assert_eq!(stream_of_log("delay-board.0").unwrap(), "SEGUE_delay-board_2E0");
        assert_eq!(subject_of_mail("node/edge-a"), "segue.mail.node_2Fedge-a");
        let names = ["a.b", "a_2Eb", "a b", "a*", "a>", "a/b", "ä", "a", "A"];
        let tokens: std::collections::BTreeSet<String> = names.iter().map(|name| token(name)).collect();
        assert_eq!(tokens.len(), names.len());
        for token in tokens {
            assert!(token.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte)), "{token}");
        }
    }

    #[test]
    fn a_name_too_long_for_a_stream_is_refused() {
        assert!(stream_of_log(&"a".repeat(249)).is_some());
        assert!(stream_of_log(&"a".repeat(250)).is_none() && stream_of_log("").is_none());
    }
}
