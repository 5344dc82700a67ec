//! Bridges from other logs: each carries (previous, this) source position, and previous must be the last counted one.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::Void;
use crate::record::SourcePosition;

/// How many other logs one shard may be fed from.
pub const SOURCES_MAX: usize = 64;
/// How long a source's name may be.
pub const SOURCE_NAME_MAX_BYTES: usize = 256;

/// The last counted position of each source; 0 before its first.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sources {
    last: BTreeMap<String, u64>,
}

impl Sources {
    pub(super) fn check(&self, position: &SourcePosition) -> Result<(), Void> {
        if position.this <= position.previous || position.source.len() > SOURCE_NAME_MAX_BYTES {
            return Err(Void::SourcePosition);
        }
        match self.last.get(&position.source) {
            Some(last) if *last == position.previous => Ok(()),
            None if position.previous != 0 => Err(Void::SourcePosition),
            None if self.last.len() == SOURCES_MAX => Err(Void::Limit),
            None => Ok(()),
            Some(_) => Err(Void::SourcePosition),
        }
    }

    pub(super) fn advance(&mut self, position: &SourcePosition) {
        self.last.insert(position.source.clone(), position.this);
    }

    pub(super) fn len(&self) -> usize {
        self.last.len()
    }
}
