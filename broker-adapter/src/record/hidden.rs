//! Credentials stand in the log as they came, because the service needs them; nobody else may see them.
//!
//! Whatever shows or logs a recorded request or reply goes through [`Header::shown`] or through `Debug`, which does the same.

use std::borrow::Cow;
use std::fmt;

use super::Header;

/// The headers that carry credentials (RFC 9110, sections 11.6 and 11.7; RFC 6265).
const CREDENTIALS: [&str; 4] = ["authorization", "cookie", "proxy-authorization", "set-cookie"];

impl Header {
    /// The value as it may be shown to people.
    #[must_use]
    pub fn shown(&self) -> Cow<'_, str> {
        if CREDENTIALS.iter().any(|name| self.name.eq_ignore_ascii_case(name)) {
            return Cow::Borrowed("(hidden)");
        }
        String::from_utf8_lossy(&self.value)
    }
}

impl fmt::Debug for Header {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {:?}", self.name, self.shown())
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::super::samples;
    use super::*;
    use crate::record::{Body, Record, Request};

    fn header(name: &str, value: &str) -> Header {
        Header { name: name.to_owned(), value: Bytes::copy_from_slice(value.as_bytes()) }
    }

    #[test]
    fn a_recorded_request_shows_no_credentials_however_it_is_printed() {
        let names = ["authorization", "cookie", "proxy-authorization", "set-cookie", "Set-Cookie"];
        let mut headers: Vec<Header> = names.iter().map(|name| header(name, "s3cret")).collect();
        headers.push(header("traceparent", "00-seen"));
        let request = Request { method: "POST".into(), path: "/x".into(), headers, body: Body::Inline(Bytes::new()) };
        let of_sample = samples::one_of_every_kind().into_iter().find_map(|record| match record {
            Record::Message(message) => Some(*message),
            _ => None,
        });
        let mut message = of_sample.expect("a message is one of the kinds");
        message.request = request.clone();
        for text in
            [format!("{request:?}"), format!("{request:#?}"), format!("{:?}", Record::Message(Box::new(message)))]
        {
            assert!(!text.contains("s3cret") && text.contains("(hidden)") && text.contains("00-seen"), "{text}");
        }
    }
}
