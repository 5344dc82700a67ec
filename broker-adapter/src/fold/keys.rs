//! Whether a message that counts is applied: each request exactly once, under whatever name it comes (invariant 5).
//!
//! A client's key, and the first name of a message that was sent again, is remembered for K counts from the message that was
//! applied; a repeat does not renew it. A message's own name needs no entry: its session's last counted sequence tells.

use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};

use super::{Verdict, sessions::Sessions};
use crate::ids::{Count, MessageName};
use crate::record::{Body, Key, Message, Request};

/// The request that a repeated message repeats.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The message that was applied: its reply is this one's, if it is still kept.
    pub of: MessageName,
    /// Whether the request is the same one; a client that reuses a key for another request is told so.
    pub same_request: bool,
}

/// What a fold knows of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// A message with it counted: the reply is kept under this name, if it is still kept.
    Counted(MessageName),
    /// It is too old to be sure.
    Expired,
    /// No message with it counted, or it was a client's and is forgotten.
    Unknown,
}

/// 128 bits of a hash over a key: as good as the key, and of one size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct KeyId(#[serde(with = "serde_bytes")] [u8; 16]);

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Remembered {
    applied: MessageName,
    request: u64,
}

/// The remembered keys.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Keys {
    known: BTreeMap<KeyId, Remembered>,
    by_age: VecDeque<(Count, KeyId)>,
}

impl Keys {
    /// Judges a message that counts as the `count`-th; `sessions` has it already.
    pub(super) fn judge(&mut self, message: &Message, count: Count, remembered: u64, sessions: &Sessions) -> Verdict {
        let (id, first) = match &message.key {
            Key::Own { count: sent } => (first_name_id(message.name), Some((message.name, *sent))),
            Key::First { name, count: sent } => (first_name_id(*name), Some((*name, *sent))),
            Key::Client { key } => (client_key_id(key), None),
        };
        // Nobody has read a count before it is in the log: such a message would never expire.
        if first.is_some_and(|(_, sent)| sent >= count || count.0 - sent.0 > remembered) {
            return Verdict::Expired;
        }
        if let Some(known) = self.known.get(&id) {
            let same_request = known.request == fingerprint(&message.request);
            return Verdict::Repeat(Repeated { of: known.applied, same_request });
        }
        if matches!(message.key, Key::Own { .. }) {
            return Verdict::Apply;
        }
        if let Some((name, _)) = first {
            let counted = sessions.get(name.session).is_some_and(|state| state.last >= name.sequence);
            if counted && name != message.name {
                return Verdict::Repeat(Repeated { of: name, same_request: true });
            }
        }
        self.known.insert(id, Remembered { applied: message.name, request: fingerprint(&message.request) });
        self.by_age.push_back((count, id));
        Verdict::Apply
    }

    /// What is known of a key behind `count`; a message's own name is asked for as [`Key::First`].
    pub(super) fn find(&self, key: &Key, count: Count, remembered: u64, sessions: &Sessions) -> Found {
        let (id, first) = match key {
            Key::Own { .. } => return Found::Unknown,
            Key::First { name, count: sent } => (first_name_id(*name), Some((*name, *sent))),
            Key::Client { key } => (client_key_id(key), None),
        };
        if let Some(known) = self.known.get(&id) {
            return Found::Counted(known.applied);
        }
        let Some((name, sent)) = first else { return Found::Unknown };
        if sessions.get(name.session).is_some_and(|state| state.last >= name.sequence) {
            return Found::Counted(name);
        }
        // As it would be judged if it came now.
        if sent <= count && count.0 + 1 - sent.0 > remembered { Found::Expired } else { Found::Unknown }
    }

    /// Forgets what was applied more than K counts ago.
    pub(super) fn forget(&mut self, count: Count, remembered: u64) {
        while let Some((at, id)) = self.by_age.front() {
            if at.0 + remembered >= count.0 {
                break;
            }
            self.known.remove(id);
            self.by_age.pop_front();
        }
    }

    pub(super) fn len(&self) -> usize {
        self.known.len()
    }
}

fn first_name_id(name: MessageName) -> KeyId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"name");
    hasher.update(&name.session.0.0.to_be_bytes());
    hasher.update(&name.sequence.0.to_be_bytes());
    short(&hasher)
}

fn client_key_id(key: &str) -> KeyId {
    let mut hasher = blake3::Hasher::new();
    hasher.update(b"client");
    hasher.update(key.as_bytes());
    short(&hasher)
}

fn short(hasher: &blake3::Hasher) -> KeyId {
    let mut id = [0u8; 16];
    hasher.finalize_xof().fill(&mut id);
    KeyId(id)
}

/// Tells requests apart that come under one key: by method, path and content. Headers change on the way.
#[must_use]
pub fn fingerprint(request: &Request) -> u64 {
    let mut hasher = blake3::Hasher::new();
    for part in [request.method.as_bytes(), request.path.as_bytes()] {
        hasher.update(&(part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    match &request.body {
        Body::Inline(bytes) => hasher.update(blake3::hash(bytes).as_bytes()),
        Body::Stored { hash, .. } => hasher.update(&hash.0),
    };
    let mut short = [0u8; 8];
    hasher.finalize_xof().fill(&mut short);
    u64::from_be_bytes(short)
}
