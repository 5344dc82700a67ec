//! What of a reply is compared: its status, its body, and the headers by which a client comes back; less what `ignore` names.
//!
//! Other headers (`Date`, `Server`, what frameworks add) are not compared: they differ between equal replicas, and no client's
//! next request hangs on them. What a difference is told as stands in [`super::divergence`].

use std::borrow::Cow;

use broker_adapter::ids::{Hash, Position};
use broker_adapter::record::Header;
use broker_adapter::settings::IgnoreRule;
use serde_json::Value;

use crate::command::Reply;

/// The headers that are compared: what a client gives back, or where it goes next.
pub(super) const HEADERS_COMPARED: [&str; 4] = ["content-location", "etag", "location", "set-cookie"];

/// The rules in force at a position of the log.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Compared {
    ignore: Vec<IgnoreRule>,
}

impl Compared {
    pub fn new(ignore: &[IgnoreRule]) -> Compared {
        Compared { ignore: ignore.to_vec() }
    }

    /// Adds a reply to a chain.
    pub fn chain(&self, before: Hash, position: Position, reply: &Reply) -> Hash {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&before.0);
        hasher.update(&position.0.to_be_bytes());
        hasher.update(&reply.status.to_be_bytes());
        let body = self.body(reply);
        // Lengths keep the parts apart.
        hasher.update(&(body.len() as u64).to_be_bytes());
        hasher.update(&body);
        for header in self.headers(reply) {
            for part in [header.name.as_bytes(), &header.value] {
                hasher.update(&(part.len() as u64).to_be_bytes());
                hasher.update(part);
            }
        }
        Hash(*hasher.finalize().as_bytes())
    }

    /// Whether the comparison of this reply can tell anything about the state.
    pub fn informs(&self, reply: &Reply) -> bool {
        !reply.body.is_empty() && !self.ignores_bodies()
    }

    pub fn ignores_bodies(&self) -> bool {
        self.ignore.contains(&IgnoreRule::Body)
    }

    /// Those headers that are compared, in the order in which they came.
    pub fn headers<'r>(&self, reply: &'r Reply) -> impl Iterator<Item = &'r Header> + use<'_, 'r> {
        let ignored = |header: &Header| {
            self.ignore.iter().any(|rule| matches!(rule, IgnoreRule::Header(name) if *name == header.name))
        };
        reply.headers.iter().filter(move |header| HEADERS_COMPARED.contains(&header.name.as_str()) && !ignored(header))
    }

    /// The body as it is compared: as it came, unless a rule names a part of it; then without that part, in one form.
    pub fn body<'r>(&self, reply: &'r Reply) -> Cow<'r, [u8]> {
        if self.ignores_bodies() {
            return Cow::Borrowed(&[]);
        }
        match self.blanked(reply) {
            Some(value) => Cow::Owned(value.to_string().into_bytes()),
            None => Cow::Borrowed(&reply.body),
        }
    }

    /// The body without the values that are ignored; `None` if it has none of them.
    pub fn blanked(&self, reply: &Reply) -> Option<Value> {
        let pointers =
            || self.ignore.iter().filter_map(|rule| if let IgnoreRule::Json(at) = rule { Some(at) } else { None });
        pointers().next()?;
        let mut value: Value = serde_json::from_slice(&reply.body).ok()?;
        let mut found = false;
        for pointer in pointers() {
            if let Some(part) = value.pointer_mut(pointer) {
                *part = Value::Null;
                found = true;
            }
        }
        found.then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn reply(body: &str, headers: &[(&str, &str)]) -> Reply {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        Reply {
            status: 200,
            headers: headers.iter().map(header).collect(),
            body: Bytes::copy_from_slice(body.as_bytes()),
        }
    }

    fn equal(ignore: &[&str], one: &Reply, other: &Reply) -> bool {
        let rules: Vec<_> = ignore.iter().map(|word| IgnoreRule::try_from((*word).to_owned()).unwrap()).collect();
        let compared = Compared::new(&rules);
        let hash = |reply| compared.chain(Hash::default(), Position(1), reply);
        hash(one) == hash(other)
    }

    #[test]
    fn an_ignored_value_is_left_out_and_nothing_else() {
        let one = reply(r#"{"id": 1, "in": {"a/b": [1, 2]}, "n": 7}"#, &[]);
        let other = reply(r#"{"id": 2, "in": {"a/b": [1, 3]}, "n": 7}"#, &[]);
        let third = reply(r#"{"id": 1, "in": {"a/b": [1, 2]}, "n": 8}"#, &[]);
        assert!(!equal(&[], &one, &other));
        assert!(!equal(&["json:/id"], &one, &other));
        assert!(equal(&["json:/id", "json:/in/a~1b/1"], &one, &other));
        assert!(!equal(&["json:/id", "json:/in/a~1b/1"], &one, &third));
        assert!(equal(&["body"], &one, &third));
    }

    #[test]
    fn a_rule_touches_only_bodies_that_are_json_and_have_the_value() {
        for (one, other) in [("no json 1", "no json 2"), (r#"{"a":1}"#, r#"{"a": 1}"#), (r#"{"id":1}"#, r#"{"di":1}"#)]
        {
            assert!(!equal(&["json:/id"], &reply(one, &[]), &reply(other, &[])), "{one} {other}");
        }
    }

    #[test]
    fn headers_by_which_a_client_comes_back_are_compared_and_dates_are_not() {
        let one = reply("x", &[("date", "now"), ("server", "a/1")]);
        assert!(equal(&[], &one, &reply("x", &[("date", "then"), ("server", "b/2"), ("x-request-id", "9")])));
        let cookie = |value| reply("x", &[("set-cookie", value)]);
        assert!(!equal(&[], &cookie("session=1"), &cookie("session=2")));
        assert!(!equal(&[], &cookie("session=1"), &reply("x", &[])));
        assert!(equal(&["header:Set-Cookie"], &cookie("session=1"), &cookie("session=2")));
        assert!(equal(&["header:date"], &one, &one), "naming one that is not compared changes nothing");
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        assert!(!equal(&[], &reply("a", &[("etag", "b")]), &reply("aetagb", &[])));
    }
}
