//! The first part in which two replies differ, in the words of `ignore`, with both values short enough to be shown.
//!
//! Pure. Credentials in headers are never shown.

use std::collections::BTreeSet;

use broker_adapter::record::Header;
use serde_json::Value;

use super::compared::Compared;
use crate::command::Reply;

/// How much of a value is shown.
const SHOWN_MAX_CHARS: usize = 80;
/// How much of a text before the first different byte is shown.
const SHOWN_BEFORE_BYTES: usize = 16;
const HIDDEN: &str = "(hidden)";
const ABSENT: &str = "(absent)";

/// What differs first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct FirstDifference {
    /// `status`, `header:NAME`, `json:/POINTER` or `body byte N`.
    pub field: String,
    pub owner: String,
    pub own: String,
}

/// Whether a header's value may let somebody in.
pub(super) fn is_credential(name: &str) -> bool {
    matches!(
        name,
        "authorization" | "cookie" | "set-cookie" | "proxy-authorization" | "proxy-authenticate" | "www-authenticate"
    )
}

/// Compares as the running hash does; `None` if it sees no difference.
pub(super) fn first_difference(compared: &Compared, owners: &Reply, own: &Reply) -> Option<FirstDifference> {
    if owners.status != own.status {
        let field = "status".to_owned();
        return Some(FirstDifference { field, owner: owners.status.to_string(), own: own.status.to_string() });
    }
    // The body first: it says more than a tag that was made from it.
    in_bodies(compared, owners, own).or_else(|| in_headers(compared, owners, own))
}

fn in_headers(compared: &Compared, owners: &Reply, own: &Reply) -> Option<FirstDifference> {
    let (mut one, mut other) = (compared.headers(owners), compared.headers(own));
    loop {
        let (left, right) = (one.next(), other.next());
        if left == right {
            left?;
            continue;
        }
        let name = left.or(right)?.name.clone();
        let show = |header: Option<&Header>| match header {
            Some(header) if header.name != name => ABSENT.to_owned(),
            Some(_) if is_credential(&name) => HIDDEN.to_owned(),
            Some(header) => short(&String::from_utf8_lossy(&header.value)),
            None => ABSENT.to_owned(),
        };
        let (owner, own) = (show(left), show(right));
        return Some(FirstDifference { field: format!("header:{name}"), owner, own });
    }
}

fn in_bodies(compared: &Compared, owners: &Reply, own: &Reply) -> Option<FirstDifference> {
    let (one, other) = (compared.body(owners), compared.body(own));
    if one == other {
        return None;
    }
    let parse = |body: &[u8]| serde_json::from_slice::<Value>(body).ok();
    if let (Some(left), Some(right)) = (parse(&one), parse(&other))
        && let Some((pointer, left, right)) = in_values(String::new(), Some(&left), Some(&right))
    {
        let show = |value: Option<&Value>| value.map_or(ABSENT.to_owned(), |value| short(&value.to_string()));
        return Some(FirstDifference { field: format!("json:{pointer}"), owner: show(left), own: show(right) });
    }
    let at = one.iter().zip(other.iter()).take_while(|(left, right)| left == right).count();
    let from = at.saturating_sub(SHOWN_BEFORE_BYTES);
    let show = |body: &[u8]| {
        let to = body.len().min(from + 4 * SHOWN_MAX_CHARS);
        short(&format!("{:?}", String::from_utf8_lossy(&body[from.min(to)..to])))
    };
    Some(FirstDifference { field: format!("body byte {at}"), owner: show(&one), own: show(&other) })
}

/// The RFC 6901 pointer of the first difference, names in their order, and both values.
fn in_values<'v>(
    pointer: String,
    left: Option<&'v Value>,
    right: Option<&'v Value>,
) -> Option<(String, Option<&'v Value>, Option<&'v Value>)> {
    match (left, right) {
        (Some(Value::Object(one)), Some(Value::Object(other))) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| {
                let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
                in_values(pointer, one.get(name), other.get(name))
            })
        }
        (Some(Value::Array(one)), Some(Value::Array(other))) => (0..one.len().max(other.len()))
            .find_map(|index| in_values(format!("{pointer}/{index}"), one.get(index), other.get(index))),
        _ => (left != right).then_some((pointer, left, right)),
    }
}

fn short(text: &str) -> String {
    let mut shown: String = text.chars().take(SHOWN_MAX_CHARS).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    shown
}

#[cfg(test)]
mod tests {
    use broker_adapter::settings::IgnoreRule;
    use bytes::Bytes;

    use super::*;

    fn reply(status: u16, headers: &[(&str, &str)], body: &str) -> Reply {
        let header = |(name, value): &(&str, &str)| Header {
            name: (*name).to_owned(),
            value: Bytes::copy_from_slice(value.as_bytes()),
        };
        Reply { status, headers: headers.iter().map(header).collect(), body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    fn found(owners: &Reply, own: &Reply) -> (String, String, String) {
        let found = first_difference(&Compared::default(), owners, own).expect("they differ");
        (found.field, found.owner, found.own)
    }

    fn words(field: &str, owner: &str, own: &str) -> (String, String, String) {
        (field.to_owned(), owner.to_owned(), own.to_owned())
    }

    #[test]
    fn a_difference_is_named_in_the_words_of_ignore() {
        let same = |body| reply(200, &[], body);
        assert_eq!(found(&reply(200, &[], "a"), &reply(500, &[], "b")), words("status", "200", "500"));
        let one = same(r#"{"n": 1, "list": [1, {"a/b": "x"}], "z": 0}"#);
        let other = same(r#"{"n": 1, "list": [1, {"a/b": "y"}], "z": 1}"#);
        assert_eq!(found(&one, &other), words("json:/list/1/a~1b", "\"x\"", "\"y\""));
        assert_eq!(found(&same(r#"{"a":[1]}"#), &same(r#"{"a":[1,2]}"#)), words("json:/a/1", "(absent)", "2"));
        assert_eq!(found(&same("text one"), &same("text two")), words("body byte 5", "\"text one\"", "\"text two\""));
        let one = reply(200, &[("location", "/1"), ("date", "x")], "a");
        assert_eq!(found(&one, &reply(200, &[("location", "/2")], "a")), words("header:location", "/1", "/2"));
        assert_eq!(found(&one, &reply(200, &[], "a")), words("header:location", "/1", "(absent)"));
    }

    #[test]
    fn equal_values_in_another_order_differ_in_a_byte() {
        let (one, other) = (reply(200, &[], r#"{"a":1,"b":2}"#), reply(200, &[], r#"{"b":2,"a":1}"#));
        assert_eq!(found(&one, &other).0, "body byte 2");
    }

    #[test]
    fn credentials_are_never_shown_and_long_values_are_cut() {
        let cookie = |value: &str| reply(200, &[("set-cookie", value)], "a");
        assert_eq!(found(&cookie("secret=1"), &cookie("secret=2")), words("header:set-cookie", "(hidden)", "(hidden)"));
        let (_, shown, _) = found(&reply(200, &[], &format!("[{:?}]", "x".repeat(500))), &reply(200, &[], "[1]"));
        assert_eq!(shown.chars().count(), SHOWN_MAX_CHARS + 1);
    }

    #[test]
    fn what_is_ignored_is_no_difference() {
        let (one, other) = (reply(200, &[], r#"{"a":1,"b":2}"#), reply(200, &[], r#"{"a":3,"b":4}"#));
        let compared = Compared::new(&[IgnoreRule::Json("/a".to_owned())]);
        let found = first_difference(&compared, &one, &other).expect("they differ");
        assert_eq!((found.field.as_str(), found.owner.as_str()), ("json:/b", "2"));
        let compared = Compared::new(&[IgnoreRule::Body]);
        assert_eq!(first_difference(&compared, &one, &other), None);
    }
}
