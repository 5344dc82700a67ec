//! The saved form of the delay board's state, written and read piece by piece.
//!
//! ```text
//!  {"format":"segue-delay-board-1","n":…,"hash":…,"carriers":C,"routes":R,"padding_bytes":P}\n
//!  {"name":"AA","group":{…}}\n          C lines, by name, then R lines, by name
//!  P bytes of padding
//! ```
//! Canonical: equal states give equal bytes (maps are sorted, numbers are integers). Neither side ever holds more
//! than one piece beside the state itself. Pure: no I/O here.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_adapter::ids::Hash;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::group::Group;
use super::padding::BLOCK_BYTES;
use super::state::{Applied, State};

const FORMAT: &str = "segue-delay-board-1";

/// A group's line: 40,321 possible delays of at most 30 bytes each, and ten flights.
const LINE_LIMIT_BYTES: usize = 2 << 20;

/// Carriers and routes that a state may have; 36^2 carriers and all pairs of 400 airports are far less.
const GROUPS_LIMIT: usize = 1 << 20;

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Head {
    format: String,
    n: u64,
    hash: Hash,
    carriers: usize,
    routes: usize,
    padding_bytes: u64,
}

#[derive(Serialize)]
struct LineOut<'a> {
    name: &'a str,
    group: &'a Group,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LineIn {
    name: String,
    group: Group,
}

/// Why bytes are not a saved state.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// A line cannot be read.
    #[error("line {number} of the saved state cannot be read: {reason}")]
    Line {
        /// Which one; the head is 1.
        number: usize,
        /// Why.
        reason: String,
    },
    /// Too short.
    #[error("the saved state ends after {got} of its parts: {missing} are missing")]
    Incomplete {
        /// What is there.
        got: String,
        /// What is not.
        missing: String,
    },
    /// Too long.
    #[error("{0} bytes stand behind the end of the saved state")]
    Trailing(usize),
}

/// The pieces of a state, made one at a time.
pub struct Pieces {
    state: State,
    next: usize,
    lines: Vec<(String, Arc<Group>)>,
}

impl Pieces {
    /// Begins to save. What happens to the original later does not matter.
    #[must_use]
    pub fn of(state: State) -> Pieces {
        let lines = state.carriers.iter().chain(&state.routes).map(|(name, group)| (name.clone(), group.clone()));
        Pieces { lines: lines.collect(), state, next: 0 }
    }

    fn head(&self) -> Head {
        Head {
            format: FORMAT.to_owned(),
            n: self.state.applied.n,
            hash: self.state.applied.hash,
            carriers: self.state.carriers.len(),
            routes: self.state.routes.len(),
            padding_bytes: self.state.padding.length_bytes(),
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        let number = self.next;
        self.next += 1;
        if number == 0 {
            return Some(line(&self.head()));
        }
        match self.lines.get(number - 1) {
            Some((name, group)) => Some(line(&LineOut { name, group })),
            None => self.state.padding.block(number - 1 - self.lines.len()),
        }
    }
}

fn line(content: &impl Serialize) -> Bytes {
    let mut line = serde_json::to_vec(content).expect("plain structures are always JSON");
    line.push(b'\n');
    line.into()
}

/// Takes a saved state in pieces of any size.
#[derive(Default)]
pub struct Loader {
    head: Option<Head>,
    state: State,
    lines: usize,
    partial: Vec<u8>,
}

impl Loader {
    /// Takes the next bytes.
    ///
    /// # Errors
    /// As soon as they cannot be part of a saved state.
    pub fn push(&mut self, mut bytes: &[u8]) -> Result<(), LoadError> {
        while !bytes.is_empty() {
            if self.lines_left() > 0 {
                let end = bytes.iter().position(|byte| *byte == b'\n');
                let (part, rest) = bytes.split_at(end.unwrap_or(bytes.len()));
                if self.partial.len() + part.len() > LINE_LIMIT_BYTES {
                    return Err(self.bad_line(&format!("it is longer than {LINE_LIMIT_BYTES} bytes")));
                }
                self.partial.extend_from_slice(part);
                bytes = rest;
                if end.is_some() {
                    bytes = &rest[1..];
                    self.take_line()?;
                }
            } else {
                bytes = self.take_padding(bytes)?;
            }
        }
        Ok(())
    }

    /// The state, if all of it came.
    ///
    /// # Errors
    /// What is missing.
    pub fn finish(self) -> Result<State, LoadError> {
        let lines_left = self.lines_left();
        let padding_left = self.head.as_ref().map_or(0, |head| head.padding_bytes) - self.state.padding.length_bytes();
        if lines_left > 0 || padding_left > 0 {
            return Err(LoadError::Incomplete {
                got: format!("{} lines and {} bytes of padding", self.lines, self.state.padding.length_bytes()),
                missing: format!("{lines_left} lines and {padding_left} bytes of padding"),
            });
        }
        Ok(self.state)
    }

    fn lines_left(&self) -> usize {
        self.head.as_ref().map_or(1, |head| 1 + head.carriers + head.routes - self.lines)
    }

    fn bad_line(&self, reason: &str) -> LoadError {
        LoadError::Line { number: self.lines + 1, reason: reason.to_owned() }
    }

    fn take_line(&mut self) -> Result<(), LoadError> {
        let line = std::mem::take(&mut self.partial);
        let Some(head) = &self.head else {
            let head: Head = serde_json::from_slice(&line).map_err(|error| self.bad_line(&error.to_string()))?;
            if head.format != FORMAT {
                return Err(self.bad_line(&format!("format {:?}, this service reads {FORMAT:?}", head.format)));
            }
            if head.carriers > GROUPS_LIMIT || head.routes > GROUPS_LIMIT {
                return Err(self.bad_line(&format!("more than {GROUPS_LIMIT} groups")));
            }
            self.state.applied = Applied { n: head.n, hash: head.hash };
            self.head = Some(head);
            self.lines = 1;
            return Ok(());
        };
        let of_carrier = self.lines <= head.carriers;
        let LineIn { name, group } =
            serde_json::from_slice(&line).map_err(|error| self.bad_line(&error.to_string()))?;
        let groups = if of_carrier { &mut self.state.carriers } else { &mut self.state.routes };
        insert_sorted(groups, name, group).map_err(|reason| self.bad_line(reason))?;
        self.lines += 1;
        Ok(())
    }

    /// Fills block after block; gives back nothing, or refuses what is too much.
    fn take_padding<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], LoadError> {
        let whole = self.head.as_ref().map_or(0, |head| head.padding_bytes);
        let left = whole - self.state.padding.length_bytes();
        let block_bytes = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK_BYTES);
        if block_bytes == 0 {
            return Err(LoadError::Trailing(bytes.len()));
        }
        let take = (block_bytes - self.partial.len()).min(bytes.len());
        self.partial.extend_from_slice(&bytes[..take]);
        if self.partial.len() == block_bytes {
            self.state.padding.push(self.partial.as_slice().into());
            self.partial.clear();
        }
        Ok(&bytes[take..])
    }
}

fn insert_sorted(groups: &mut BTreeMap<String, Arc<Group>>, name: String, group: Group) -> Result<(), &'static str> {
    if groups.last_key_value().is_some_and(|(last, _)| *last >= name) {
        return Err("the names are not in order");
    }
    groups.insert(name, Arc::new(group));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::flight::Flight;
    use super::*;

    fn some_state() -> State {
        let mut state = State::empty(200_000);
        for (number, carrier) in ["AA", "UA", "B6", "UA"].iter().enumerate() {
            let line = format!("2013,1,1,540,{number},850,33,{carrier},1141,N619AA,JFK,MIA,160,1089");
            state.apply(&Flight::parse(line.as_bytes()).unwrap());
        }
        state
    }

    fn bytes_of(state: &State) -> Vec<u8> {
        Pieces::of(state.clone()).flatten().collect()
    }

    fn load(bytes: &[u8], step: usize) -> Result<State, LoadError> {
        let mut loader = Loader::default();
        for part in bytes.chunks(step) {
            loader.push(part)?;
        }
        loader.finish()
    }

    #[test]
    fn what_was_saved_is_loaded_whatever_the_pieces() {
        let state = some_state();
        let bytes = bytes_of(&state);
        for step in [1, 7, 4096, 65_536, bytes.len()] {
            let mut loaded = load(&bytes, step).unwrap();
            assert_eq!(loaded, state);
            assert_eq!(bytes_of(&loaded), bytes, "canonical");
            let next = Flight::parse(b"2013,1,1,540,9,850,33,AA,1,N619AA,JFK,MIA,160,1089").unwrap();
            assert_eq!(loaded.apply(&next), state.clone().apply(&next));
        }
    }

    #[test]
    fn a_snapshot_is_fixed_while_flights_go_on() {
        let mut state = some_state();
        let expected = bytes_of(&state);
        let pieces = Pieces::of(state.clone());
        state.apply(&Flight::parse(b"2013,1,1,540,9,850,33,AA,1,N619AA,JFK,MIA,160,1089").unwrap());
        assert_eq!(pieces.flatten().collect::<Vec<u8>>(), expected);
        assert_ne!(bytes_of(&state), expected);
    }

    #[test]
    fn a_truncated_or_longer_state_is_refused() {
        let bytes = bytes_of(&some_state());
        for cut in [0, 10, 300, bytes.len() - 1] {
            assert!(matches!(load(&bytes[..cut], 1000), Err(LoadError::Incomplete { .. })), "{cut}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert_eq!(load(&longer, 4096), Err(LoadError::Trailing(1)));
    }

    #[test]
    fn a_damaged_line_is_named() {
        let text = bytes_of(&some_state());
        let second = text.iter().position(|byte| *byte == b'\n').unwrap() + 1;
        let mut damaged = text.clone();
        damaged[second] = b'#';
        assert!(matches!(load(&damaged, 4096), Err(LoadError::Line { number: 2, .. })));
        assert!(matches!(load(b"{}\n", 4096), Err(LoadError::Line { number: 1, .. })));
    }
}
