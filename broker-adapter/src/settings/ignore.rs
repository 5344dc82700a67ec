//! Which parts of replies the running hash leaves out: the words of `ignore` (invariant 8).
//!
//! They stand in the log, so that every replica leaves out the same. A word that is none is refused where it is read: a replica
//! that skipped it would hash something else than the others.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize};

/// How many rules a shard may have.
pub const IGNORE_RULES_MAX: usize = 64;
/// The longest rule.
pub const IGNORE_RULE_MAX_BYTES: usize = 256;

/// A part of replies that is not compared.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum IgnoreRule {
    /// `json:/a/0`: the value at this RFC 6901 pointer, in bodies that are JSON and have it.
    Json(String),
    /// `header:set-cookie`: a header, in lower case.
    Header(String),
    /// `body`: the whole content.
    Body,
}

/// A word that is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{word:?} is no part of replies: {reason}; use \"json:/POINTER\" (RFC 6901), \"header:NAME\" or \"body\"")]
pub struct BadRule {
    word: String,
    reason: &'static str,
}

impl TryFrom<String> for IgnoreRule {
    type Error = BadRule;

    fn try_from(word: String) -> Result<IgnoreRule, BadRule> {
        let rule = if word.len() > IGNORE_RULE_MAX_BYTES {
            Err("it has more than 256 bytes")
        } else if word == "body" {
            Ok(IgnoreRule::Body)
        } else if let Some(pointer) = word.strip_prefix("json:") {
            check_pointer(pointer).map(|()| IgnoreRule::Json(pointer.to_owned()))
        } else if let Some(name) = word.strip_prefix("header:") {
            check_name(name).map(|()| IgnoreRule::Header(name.to_ascii_lowercase()))
        } else {
            Err("it has another form")
        };
        rule.map_err(|reason| BadRule { word, reason })
    }
}

fn check_pointer(pointer: &str) -> Result<(), &'static str> {
    if pointer.is_empty() {
        return Err("an empty pointer means the whole content: say \"body\"");
    }
    if !pointer.starts_with('/') {
        return Err("a JSON pointer begins with '/'");
    }
    let mut escapes = pointer.split('~').skip(1);
    if escapes.any(|rest| !rest.starts_with(['0', '1'])) {
        return Err("in a JSON pointer '~' is written ~0 and '/' in a name ~1");
    }
    Ok(())
}

fn check_name(name: &str) -> Result<(), &'static str> {
    let token = |letter: u8| letter.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&letter);
    if name.is_empty() || !name.bytes().all(token) {
        return Err("that is no name of a header");
    }
    Ok(())
}

impl From<IgnoreRule> for String {
    fn from(rule: IgnoreRule) -> String {
        rule.to_string()
    }
}

impl fmt::Display for IgnoreRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IgnoreRule::Json(pointer) => write!(f, "json:{pointer}"),
            IgnoreRule::Header(name) => write!(f, "header:{name}"),
            IgnoreRule::Body => f.write_str("body"),
        }
    }
}

/// Reads the list, which has a limit.
pub(super) fn bounded<'de, D: Deserializer<'de>>(list: D) -> Result<Vec<IgnoreRule>, D::Error> {
    let rules = Vec::<IgnoreRule>::deserialize(list)?;
    if rules.len() > IGNORE_RULES_MAX {
        let reason =
            format!("{} rules are more than {IGNORE_RULES_MAX}: ignore a larger part, or \"body\"", rules.len());
        return Err(serde::de::Error::custom(reason));
    }
    Ok(rules)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_read_and_written_in_one_form() {
        for (word, written) in [
            ("json:/header/x", "json:/header/x"),
            ("json:/a~1b/0/m~0n", "json:/a~1b/0/m~0n"),
            ("header:Set-Cookie", "header:set-cookie"),
            ("body", "body"),
        ] {
            assert_eq!(IgnoreRule::try_from(word.to_owned()).unwrap().to_string(), written);
        }
    }

    #[test]
    fn a_word_that_is_no_rule_is_refused_with_the_words_that_are() {
        for word in ["", "json:", "json:header", "json:/a~2", "header:", "header:a b", "boddy", &"json:/x".repeat(64)] {
            let error = IgnoreRule::try_from(word.to_owned()).unwrap_err().to_string();
            assert!(error.contains("json:/POINTER"), "{word}: {error}");
        }
        let ignore = vec![IgnoreRule::Body; IGNORE_RULES_MAX + 1];
        let many = rmp_serde::to_vec_named(&crate::settings::Settings { ignore, ..Default::default() }).unwrap();
        assert!(rmp_serde::from_slice::<crate::settings::Settings>(&many).is_err());
    }
}
