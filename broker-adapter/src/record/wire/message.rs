//! The commonest record, a `Message`, written and read without serde: every input passes here once at its ingress and once at each
//! of its readers, and serde's names, visitors and buffers cost three times what the content does.
//!
//! Writes the bytes that serde writes, and reads only what has exactly that form, fields in the order of [`Message`]. Anything else
//! is left to serde, which then reads it or says what is wrong. The wire tests hold the two against each other.

use bytes::Bytes;
use rmp::{decode, encode};

use crate::ids::{Count, Hash, Id128, Incarnation, MessageName, NodeName, Replica, Sequence, Session};
use crate::record::{Body, Header, Key, Message, Request, SourcePosition};

/// More than the names of all fields, the numbers and the identities take.
const FIXED_BYTES: usize = 320;
/// The same of a header.
const HEADER_FIXED_BYTES: usize = 24;
/// The largest count of headers that is made room for before they were read.
const HEADERS_EXPECTED: usize = 64;

/// A little more than [`write()`] writes.
pub(super) fn size_hint(message: &Message) -> usize {
    let request = &message.request;
    let header = |header: &Header| HEADER_FIXED_BYTES + header.name.len() + header.value.len();
    let headers: usize = request.headers.iter().map(header).sum();
    let body = if let Body::Inline(body) = &request.body { body.len() } else { 0 };
    let key = if let Key::Client { key } = &message.key { key.len() } else { 0 };
    let source = message.source.as_ref().map_or(0, |source| source.source.len());
    let node = message.ingress.node.as_str().len();
    FIXED_BYTES + request.method.len() + request.path.len() + headers + body + key + source + node
}

/// `{"Message": {…}}`.
pub(super) fn write(message: &Message, to: &mut Vec<u8>) {
    // Taken apart, so that a new field is not forgotten here.
    let Message { name, base, key, source, ingress, request } = message;
    to.extend_from_slice(b"\x81\xa7Message\x86\xa4name");
    write_name(name, to);
    to.extend_from_slice(b"\xa4base");
    match base {
        None => to.push(NIL),
        Some(base) => write_number(base.0, to),
    }
    to.extend_from_slice(b"\xa3key");
    write_key(key, to);
    to.extend_from_slice(b"\xa6source");
    match source {
        None => to.push(NIL),
        Some(SourcePosition { source, previous, this }) => {
            to.extend_from_slice(b"\x83\xa6source");
            write_text(source, to);
            to.extend_from_slice(b"\xa8previous");
            write_number(*previous, to);
            to.extend_from_slice(b"\xa4this");
            write_number(*this, to);
        }
    }
    let Replica { node, incarnation } = ingress;
    to.extend_from_slice(b"\xa7ingress\x82\xa4node");
    write_text(node.as_str(), to);
    to.extend_from_slice(b"\xabincarnation");
    write_id(incarnation.0, to);
    to.extend_from_slice(b"\xa7request");
    write_request(request, to);
}

fn write_key(key: &Key, to: &mut Vec<u8>) {
    match key {
        Key::Own { count } => {
            to.extend_from_slice(b"\x81\xa3Own\x81\xa5count");
            write_number(count.0, to);
        }
        Key::First { name, count } => {
            to.extend_from_slice(b"\x81\xa5First\x82\xa4name");
            write_name(name, to);
            to.extend_from_slice(b"\xa5count");
            write_number(count.0, to);
        }
        Key::Client { key } => {
            to.extend_from_slice(b"\x81\xa6Client\x81\xa3key");
            write_text(key, to);
        }
    }
}

fn write_request(request: &Request, to: &mut Vec<u8>) {
    let Request { method, path, headers, body } = request;
    to.extend_from_slice(b"\x84\xa6method");
    write_text(method, to);
    to.extend_from_slice(b"\xa4path");
    write_text(path, to);
    to.extend_from_slice(b"\xa7headers");
    let count = u32::try_from(headers.len()).expect("a request's headers are limited");
    encode::write_array_len(to, count).expect("writing to memory does not fail");
    for Header { name, value } in headers {
        to.extend_from_slice(b"\x82\xa4name");
        write_text(name, to);
        to.extend_from_slice(b"\xa5value");
        write_bytes(value, to);
    }
    to.extend_from_slice(b"\xa4body");
    match body {
        Body::Inline(body) => {
            to.extend_from_slice(b"\x81\xa6Inline");
            write_bytes(body, to);
        }
        Body::Stored { hash, length } => {
            to.extend_from_slice(b"\x81\xa6Stored\x82\xa4hash\xc4\x20");
            to.extend_from_slice(&hash.0);
            to.extend_from_slice(b"\xa6length");
            write_number(*length, to);
        }
    }
}

fn write_name(name: &MessageName, to: &mut Vec<u8>) {
    let MessageName { session, sequence } = name;
    to.extend_from_slice(b"\x82\xa7session");
    write_id(session.0, to);
    to.extend_from_slice(b"\xa8sequence");
    write_number(sequence.0, to);
}

fn write_id(id: Id128, to: &mut Vec<u8>) {
    to.extend_from_slice(b"\xc4\x10");
    to.extend_from_slice(&id.0.to_be_bytes());
}

const NIL: u8 = 0xc0;

fn write_number(number: u64, to: &mut Vec<u8>) {
    encode::write_uint(to, number).expect("writing to memory does not fail");
}

fn write_text(text: &str, to: &mut Vec<u8>) {
    encode::write_str(to, text).expect("writing to memory does not fail");
}

fn write_bytes(bytes: &[u8], to: &mut Vec<u8>) {
    encode::write_bin(to, bytes).expect("writing to memory does not fail");
}

/// A message and nothing behind it; `None` for whatever has another form.
pub(super) fn read(content: &[u8]) -> Option<Message> {
    let mut reader = Reader { rest: content };
    let message = reader.message()?;
    reader.rest.is_empty().then_some(message)
}

struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    fn message(&mut self) -> Option<Message> {
        self.expect(b"\x81\xa7Message\x86\xa4name")?;
        let name = self.name()?;
        self.expect(b"\xa4base")?;
        let base = if self.nil() { None } else { Some(Count(self.number()?)) };
        self.expect(b"\xa3key")?;
        let key = self.key()?;
        self.expect(b"\xa6source")?;
        let source = if self.nil() { None } else { Some(self.source()?) };
        self.expect(b"\xa7ingress\x82\xa4node")?;
        let node: NodeName = self.text()?.parse().ok()?;
        self.expect(b"\xabincarnation")?;
        let ingress = Replica { node, incarnation: Incarnation(self.id()?) };
        self.expect(b"\xa7request")?;
        let request = self.request()?;
        Some(Message { name, base, key, source, ingress, request })
    }

    fn key(&mut self) -> Option<Key> {
        if self.expect(b"\x81\xa3Own\x81\xa5count").is_some() {
            return Some(Key::Own { count: Count(self.number()?) });
        }
        if self.expect(b"\x81\xa6Client\x81\xa3key").is_some() {
            return Some(Key::Client { key: self.text()?.to_owned() });
        }
        self.expect(b"\x81\xa5First\x82\xa4name")?;
        let name = self.name()?;
        self.expect(b"\xa5count")?;
        Some(Key::First { name, count: Count(self.number()?) })
    }

    fn source(&mut self) -> Option<SourcePosition> {
        self.expect(b"\x83\xa6source")?;
        let source = self.text()?.to_owned();
        self.expect(b"\xa8previous")?;
        let previous = self.number()?;
        self.expect(b"\xa4this")?;
        Some(SourcePosition { source, previous, this: self.number()? })
    }

    fn request(&mut self) -> Option<Request> {
        self.expect(b"\x84\xa6method")?;
        let method = self.text()?.to_owned();
        self.expect(b"\xa4path")?;
        let path = self.text()?.to_owned();
        self.expect(b"\xa7headers")?;
        let count = decode::read_array_len(&mut self.rest).ok()? as usize;
        let mut headers = Vec::with_capacity(count.min(HEADERS_EXPECTED));
        for _ in 0..count {
            self.expect(b"\x82\xa4name")?;
            let name = self.text()?.to_owned();
            self.expect(b"\xa5value")?;
            headers.push(Header { name, value: Bytes::copy_from_slice(self.bytes()?) });
        }
        self.expect(b"\xa4body")?;
        Some(Request { method, path, headers, body: self.body()? })
    }

    fn body(&mut self) -> Option<Body> {
        if self.expect(b"\x81\xa6Inline").is_some() {
            return Some(Body::Inline(Bytes::copy_from_slice(self.bytes()?)));
        }
        self.expect(b"\x81\xa6Stored\x82\xa4hash\xc4\x20")?;
        let hash = Hash(self.take(32)?.try_into().ok()?);
        self.expect(b"\xa6length")?;
        Some(Body::Stored { hash, length: self.number()? })
    }

    fn name(&mut self) -> Option<MessageName> {
        self.expect(b"\x82\xa7session")?;
        let session = Session(self.id()?);
        self.expect(b"\xa8sequence")?;
        Some(MessageName { session, sequence: Sequence(self.number()?) })
    }

    fn id(&mut self) -> Option<Id128> {
        self.expect(b"\xc4\x10")?;
        Some(Id128(u128::from_be_bytes(self.take(16)?.try_into().ok()?)))
    }

    fn number(&mut self) -> Option<u64> {
        decode::read_int(&mut self.rest).ok()
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = decode::read_str_len(&mut self.rest).ok()? as usize;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn bytes(&mut self) -> Option<&'a [u8]> {
        let length = decode::read_bin_len(&mut self.rest).ok()? as usize;
        self.take(length)
    }

    fn nil(&mut self) -> bool {
        self.expect(&[NIL]).is_some()
    }

    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.rest.split_at_checked(length)?;
        self.rest = rest;
        Some(taken)
    }

    fn expect(&mut self, known: &[u8]) -> Option<()> {
        self.rest = self.rest.strip_prefix(known)?;
        Some(())
    }
}
