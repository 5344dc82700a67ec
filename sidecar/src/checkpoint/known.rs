//! Chunks that a save may reuse: those of checkpoints that the fold keeps without a pin's help, if they are still in the store.
//!
//! They were read back when their own checkpoint was taken, so now it is enough that they are listed, and that no reader has marked
//! them as suspect since. Nobody deletes them before the new checkpoint counts or can count no more: deleted is only what no kept
//! checkpoint names (see `cleaning`). A pin may end at any time, so what only a pin keeps is not reused.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::Bytes;

use super::chunk::{ChunkRef, chunk_prefix};
use super::load::Reader;
use super::pipeline::retried;
use super::{CheckpointError, folder};

/// Chunks by their content.
#[derive(Clone, Debug, Default)]
pub(super) struct Known {
    by_hash: BTreeMap<Hash, ChunkRef>,
}

impl Known {
    /// Those of the kept checkpoints given. What cannot be learned is not reused: that costs room, never correctness.
    pub async fn of(reader: &Reader, shard: &ShardId, kept: &[(Position, Hash)]) -> Known {
        match Known::read(reader, shard, kept).await {
            Ok(known) => known,
            Err(error) => {
                tracing::warn!(%shard, %error, "no chunk of an earlier checkpoint is reused");
                Known::default()
            }
        }
    }

    async fn read(reader: &Reader, shard: &ShardId, kept: &[(Position, Hash)]) -> Result<Known, CheckpointError> {
        let mut known = Known::default();
        for (position, hash) in kept {
            let manifest = reader.manifest(shard, *position, *hash).await?;
            for chunk in manifest.chunks() {
                known.by_hash.insert(chunk.hash, chunk.clone());
            }
        }
        if known.by_hash.is_empty() {
            return Ok(known);
        }
        let list = |prefix: String| {
            let store = reader.store.clone();
            async move { retried(&reader.shell, || store.list(prefix.clone())).await }
        };
        let listed: BTreeSet<String> = list(chunk_prefix(shard)).await?.into_iter().collect();
        let suspects: BTreeSet<String> = list(suspect_prefix(shard)).await?.into_iter().collect();
        known.by_hash.retain(|_, chunk| {
            listed.contains(&chunk.name(shard)) && !suspects.contains(&suspect_name(shard, &chunk.name(shard)))
        });
        Ok(known)
    }

    pub fn get(&self, hash: Hash) -> Option<&ChunkRef> {
        self.by_hash.get(&hash)
    }

    pub fn add(&mut self, chunk: ChunkRef) {
        self.by_hash.insert(chunk.hash, chunk);
    }
}

/// What all marks of a shard's bad chunks begin with.
pub(super) fn suspect_prefix(shard: &ShardId) -> String {
    format!("suspect/{}/", folder(shard))
}

/// The mark of a bad chunk.
pub(super) fn suspect_name(shard: &ShardId, chunk: &str) -> String {
    let last = chunk.rsplit('/').next().unwrap_or(chunk);
    format!("{}{last}", suspect_prefix(shard))
}

/// Tells every later save that this chunk is missing or damaged: else each would reuse it, and no new checkpoint would be sound.
pub(super) async fn mark_suspect(store: &Arc<dyn CheckpointStore>, shell: &Shell, shard: &ShardId, chunk: &str) {
    let name = suspect_name(shard, chunk);
    let marked: Result<(), StoreError> = retried(shell, || store.put(name.clone(), Bytes::from_static(b"bad"))).await;
    if let Err(error) = marked {
        tracing::warn!(%error, chunk, "a bad chunk could not be marked");
    }
}
