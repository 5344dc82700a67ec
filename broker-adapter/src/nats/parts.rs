//! Mail as messages of a limited size: one message in parts, and whole again, whatever is lost, doubled or mixed on the way.
//!
//! ```text
//!  0          16        20       24
//!  ├──────────┼─────────┼────────┼──────────────┤
//!  │ id       │ part    │ parts  │ bytes        │     numbers big-endian; the id is random, one per message
//!  └──────────┴─────────┴────────┴──────────────┘
//! ```
//! What is not whole when too much waits is forgotten, the oldest first.

use std::collections::VecDeque;

use bytes::{BufMut, Bytes, BytesMut};

use crate::ids::Id128;

const HEADER_BYTES: usize = 24;
/// What may wait to become whole, of one subscriber.
const INCOMPLETE_LIMIT_BYTES: usize = 64 << 20;
const INCOMPLETE_LIMIT_MESSAGES: usize = 64;
/// The most parts that a message may have.
const PARTS_LIMIT: usize = 65_536;

/// A message in parts of at most `limit_bytes`; nothing if it cannot be divided so.
pub fn divide(id: Id128, message: &Bytes, limit_bytes: usize) -> Vec<Bytes> {
    let room = limit_bytes.saturating_sub(HEADER_BYTES);
    let parts = if room == 0 { usize::MAX } else { message.len().div_ceil(room).max(1) };
    if parts > PARTS_LIMIT {
        return Vec::new();
    }
    let part = |part: usize| {
        let bytes = message.slice(part * room..((part + 1) * room).min(message.len()));
        let mut whole = BytesMut::with_capacity(HEADER_BYTES + bytes.len());
        whole.put_u128(id.0);
        whole.put_u32(u32::try_from(part).expect("below the limit of parts"));
        whole.put_u32(u32::try_from(parts).expect("below the limit of parts"));
        whole.put_slice(&bytes);
        whole.freeze()
    };
    (0..parts).map(part).collect()
}

/// What came of messages that are not whole yet.
#[derive(Default)]
pub struct Incomplete {
    messages: VecDeque<Pieces>,
    bytes: usize,
}

struct Pieces {
    id: u128,
    pieces: Vec<Option<Bytes>>,
    missing: usize,
    bytes: usize,
}

impl Incomplete {
    /// Takes a part; gives the message if it is whole now.
    pub fn take(&mut self, part: Bytes) -> Option<Bytes> {
        let (id, number, parts) = header(&part)?;
        let piece = part.slice(HEADER_BYTES..);
        if parts == 1 {
            return Some(piece);
        }
        let at = match self.messages.iter().position(|message| message.id == id) {
            Some(at) => at,
            None => {
                self.messages.push_back(Pieces { id, pieces: vec![None; parts], missing: parts, bytes: 0 });
                self.messages.len() - 1
            }
        };
        let message = &mut self.messages[at];
        let slot = message.pieces.get_mut(number)?;
        if slot.is_none() {
            message.missing -= 1;
            message.bytes += piece.len();
            self.bytes += piece.len();
            *slot = Some(piece);
        }
        if message.missing == 0 {
            let message = self.messages.remove(at)?;
            self.bytes -= message.bytes;
            return Some(message.pieces.into_iter().flatten().collect::<Vec<Bytes>>().concat().into());
        }
        self.forget();
        None
    }

    fn forget(&mut self) {
        while self.bytes > INCOMPLETE_LIMIT_BYTES || self.messages.len() > INCOMPLETE_LIMIT_MESSAGES {
            let Some(oldest) = self.messages.pop_front() else { return };
            self.bytes -= oldest.bytes;
        }
    }
}

fn header(part: &Bytes) -> Option<(u128, usize, usize)> {
    let id = u128::from_be_bytes(part.get(..16)?.try_into().ok()?);
    let number = u32::from_be_bytes(part.get(16..20)?.try_into().ok()?) as usize;
    let parts = u32::from_be_bytes(part.get(20..HEADER_BYTES)?.try_into().ok()?) as usize;
    (number < parts && parts <= PARTS_LIMIT).then_some((id, number, parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(bytes: usize) -> Bytes {
        (0..bytes).map(|at| u8::try_from(at % 251).unwrap()).collect::<Vec<u8>>().into()
    }

    #[test]
    fn a_message_is_whole_again_whatever_the_order_of_its_parts() {
        let (mut incomplete, whole) = (Incomplete::default(), message(1_000));
        let mut parts = divide(Id128(7), &whole, 124);
        assert_eq!(parts.len(), 10);
        parts.reverse();
        let last = parts.pop().unwrap();
        for part in parts {
            assert_eq!(incomplete.take(part.clone()), None);
            assert_eq!(incomplete.take(part), None, "a doubled part is nothing new");
        }
        assert_eq!(incomplete.take(last), Some(whole));
        assert_eq!((incomplete.bytes, incomplete.messages.len()), (0, 0));
    }

    #[test]
    fn an_empty_message_and_one_of_a_single_part_pass() {
        for bytes in [0, 1, 100] {
            let parts = divide(Id128(7), &message(bytes), 124);
            assert_eq!(parts.len(), 1);
            assert_eq!(Incomplete::default().take(parts[0].clone()), Some(message(bytes)));
        }
    }

    #[test]
    fn what_never_becomes_whole_is_forgotten_and_nonsense_is_no_message() {
        let mut incomplete = Incomplete::default();
        for id in 0..1_000 {
            assert_eq!(incomplete.take(divide(Id128(id), &message(300), 124)[0].clone()), None);
        }
        assert_eq!(incomplete.messages.len(), INCOMPLETE_LIMIT_MESSAGES);
        assert_eq!(incomplete.take(Bytes::from_static(b"short")), None);
        assert_eq!(incomplete.take(vec![255; 40].into()), None);
    }
}
