//! The ledger's state as plain data: pure, compared with what the checker computes from the log.

use std::fmt;

use broker_adapter::ids::Hash;
use serde::{Deserialize, Serialize};

/// The first line of a saved state.
const FORM: &str = "ledger 1";

/// The ordered list and the hash over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chain {
    ids: Vec<String>,
    hash: Hash,
}

/// What the service answers to an append and to `GET /value`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Value {
    /// How many texts there are.
    pub n: u64,
    /// The chain's hash after the last of them.
    pub hash: Hash,
}

/// These bytes are no saved state of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the state is wrong: {reason}")]
pub struct BadState {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

impl Chain {
    /// The chain over these texts.
    #[must_use]
    pub fn of<'a>(ids: impl IntoIterator<Item = &'a str>) -> Chain {
        let mut chain = Chain::default();
        for id in ids {
            chain.append(id, b"");
        }
        chain
    }

    /// Appends one text. `noise` is empty in every run that shall be deterministic.
    pub fn append(&mut self, id: &str, noise: &[u8]) -> Value {
        let link = [&self.hash.0[..], id.as_bytes(), noise].concat();
        self.hash = Hash::of(&link);
        self.ids.push(id.to_owned());
        self.value()
    }

    /// Another state under the same texts: what a service that loads wrongly has.
    pub fn corrupt(&mut self) {
        self.hash = Hash::of(&self.hash.0);
    }

    /// The present length and hash.
    #[must_use]
    pub fn value(&self) -> Value {
        Value { n: self.ids.len() as u64, hash: self.hash }
    }

    /// All texts in order.
    #[must_use]
    pub fn ids(&self) -> &[String] {
        &self.ids
    }

    /// The canonical state: equal chains give equal bytes.
    #[must_use]
    pub fn save(&self) -> String {
        self.to_string()
    }

    /// Reads what [`Chain::save`] wrote; lines that begin with `#` say nothing.
    ///
    /// # Errors
    /// [`BadState`] names the line.
    pub fn load(state: &str) -> Result<Chain, BadState> {
        let bad = |line: usize, reason: &str| BadState { line, reason: reason.to_owned() };
        let mut lines = state.lines().filter(|line| !line.starts_with('#'));
        if lines.next() != Some(FORM) {
            return Err(bad(1, "expected \"ledger 1\""));
        }
        let hash = lines.next().and_then(|line| serde_json::from_value(line.into()).ok());
        let hash = hash.ok_or_else(|| bad(2, "expected a hash of 64 hexadecimal digits"))?;
        Ok(Chain { ids: lines.map(str::to_owned).collect(), hash })
    }
}

impl fmt::Display for Chain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{FORM}\n{}", self.hash)?;
        self.ids.iter().try_for_each(|id| writeln!(f, "{id}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_saved_chain_loads_as_itself() {
        let chain = Chain::of(["a", "b", "c"]);
        assert_eq!(Chain::load(&chain.save()), Ok(chain));
        assert_eq!(Chain::load(&Chain::default().save()), Ok(Chain::default()));
    }

    #[test]
    fn a_swap_changes_the_hash_and_a_doubling_the_length() {
        let chain = Chain::of(["a", "b", "c"]).value();
        assert_ne!(Chain::of(["b", "a", "c"]).value(), chain);
        assert_eq!(Chain::of(["a", "b", "b", "c"]).value().n, chain.n + 1);
    }

    #[test]
    fn a_damaged_state_is_refused_with_its_line() {
        assert_eq!(Chain::load("other").expect_err("no ledger").line, 1);
        assert_eq!(Chain::load("ledger 1\nxyz\n").expect_err("no hash").line, 2);
    }
}
