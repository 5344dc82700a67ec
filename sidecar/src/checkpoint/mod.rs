//! Checkpoints: everything that a replica needs to go on behind a position (invariant 7).
//!
//! ```text
//!   manifest/<log>/<position>-<hash>      small; names by hash:
//!     ├─ fold    ─▶ chunk/<log>/<hash>-<epoch>-<random> …    the whole fold
//!     ├─ replies ─▶ chunk/…                                  the kept replies
//!     └─ state   ─▶ chunk/…                                  the service's state
//!   suspect/<log>/<chunk's name>          a reader found that chunk missing or damaged
//! ```
//! [`save`] makes one and reads back what it put; [`load`] takes one apart; [`cleaning`] removes what no kept one names. Whether
//! one counts, the log says. Chunks are shared between checkpoints: a save reuses those of the ones that are kept without a pin's help.

pub mod archive;
mod chunk;
pub mod cleaning;
pub mod import;
mod known;
pub mod load;
pub mod pace;
mod pipeline;
pub mod save;
#[cfg(test)]
mod tests;

use broker_adapter::ids::{Hash, NodeName, Position, ShardId};
use broker_adapter::store::StoreError;
use serde::{Deserialize, Serialize};

pub use chunk::{CHUNK_BYTES, CHUNK_MAX_BYTES, ChunkRef, Form, SaveId};
pub use pipeline::TRANSFER_LIMIT_BYTES;

use crate::service::ServiceError;

/// The form of manifests that this program writes and reads.
pub const MANIFEST_VERSION: u32 = 2;

/// What a checkpoint consists of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// [`MANIFEST_VERSION`].
    pub version: u32,
    /// Whose state.
    pub shard: ShardId,
    /// After which record; 0 before the first.
    pub position: Position,
    /// The checksum of that record.
    pub record_crc: u32,
    /// The running hash there.
    pub hash: Hash,
    /// The fold there, as MessagePack.
    pub fold: Vec<ChunkRef>,
    /// The kept replies there: each as its length (four bytes, big end first) and MessagePack.
    pub replies: Vec<ChunkRef>,
    /// The service's state there.
    pub state: Vec<ChunkRef>,
    /// Whether equal states give equal bytes.
    pub canonical: bool,
}

impl Manifest {
    /// The state's size.
    #[must_use]
    pub fn state_bytes(&self) -> u64 {
        self.state.iter().map(|chunk| u64::from(chunk.length)).sum()
    }

    /// Everything that it names.
    pub fn chunks(&self) -> impl Iterator<Item = &ChunkRef> {
        self.fold.iter().chain(&self.replies).chain(&self.state)
    }
}

/// The name of a manifest in the store; names sort by position.
#[must_use]
pub fn manifest_name(shard: &ShardId, position: Position, hash: Hash) -> String {
    format!("{}{:020}-{hash}", manifest_prefix(shard), position.0)
}

/// What all of a shard's manifests begin with.
#[must_use]
pub fn manifest_prefix(shard: &ShardId) -> String {
    format!("manifest/{}/", folder(shard))
}

/// What the names of all pairs of replies that differed begin with; they sort by position.
#[must_use]
pub fn divergence_prefix(shard: &ShardId) -> String {
    format!("divergence/{}/", folder(shard))
}

/// Position and hash in a manifest's name.
#[must_use]
pub fn parse_manifest_name(shard: &ShardId, name: &str) -> Option<(Position, Hash)> {
    let (position, hash) = name.strip_prefix(&manifest_prefix(shard))?.split_once('-')?;
    let hash = blake3::Hash::from_hex(hash).ok()?;
    Some((Position(position.parse().ok()?), Hash(*hash.as_bytes())))
}

/// Object names are lower case; two services may differ in case only, so upper case is written out.
pub(crate) fn folder(shard: &ShardId) -> String {
    let mut folder = String::new();
    for letter in shard.log_name().chars() {
        if letter.is_ascii_uppercase() || letter == '_' {
            folder.push('_');
        }
        folder.push(letter.to_ascii_lowercase());
    }
    folder
}

/// Why a checkpoint could not be taken or loaded.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CheckpointError {
    /// The service cannot save or load.
    #[error(transparent)]
    Service(#[from] ServiceError),
    /// The store does not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What is in the store is not what the log names.
    #[error("checkpoint {position} ({manifest}) is damaged: {reason}")]
    Damaged {
        /// After which record.
        position: Position,
        /// Its manifest.
        manifest: Hash,
        /// What is wrong.
        reason: String,
    },
    /// The service holds what may be nobody else's.
    #[error(
        "the service {shard} on {node} holds a state of unknown origin ({reason}), and this node has never loaded it: start the sidecar \
         with --replace-state (or set replace_state = true) to replace it and keep a copy, or empty it"
    )]
    Origin {
        /// Whose.
        shard: ShardId,
        /// Where.
        node: NodeName,
        /// What it holds.
        reason: String,
    },
    /// There is none to start from.
    #[error("no checkpoint of {shard} is both recorded in the log and whole in the checkpoint store{detail}")]
    None {
        /// Whose.
        shard: ShardId,
        /// What was tried.
        detail: String,
    },
}

#[cfg(test)]
mod name_tests {
    use super::*;

    fn shard(service: &str) -> ShardId {
        ShardId::whole(service.parse().expect("a good name"))
    }

    #[test]
    fn a_manifest_is_found_by_position_and_hash_in_its_name() {
        let shard = shard("delay-board");
        let (position, hash) = (Position(1_234), Hash::of(b"manifest"));
        assert_eq!(parse_manifest_name(&shard, &manifest_name(&shard, position, hash)), Some((position, hash)));
        assert_eq!(parse_manifest_name(&shard, "manifest/other.0/1-abc"), None);
    }

    #[test]
    fn manifest_names_sort_by_position() {
        let shard = shard("s");
        let name = |position| manifest_name(&shard, Position(position), Hash::of(b"x"));
        assert!(name(9) < name(10) && name(99_999) < name(100_000));
    }

    #[test]
    fn services_whose_names_differ_in_case_only_have_objects_of_their_own() {
        let prefixes: std::collections::BTreeSet<_> =
            ["ab", "Ab", "aB", "a_b", "_ab"].into_iter().map(|name| manifest_prefix(&shard(name))).collect();
        assert_eq!(prefixes.len(), 5);
    }
}
