//! Removes from the store what no kept checkpoint needs. Only an owner does, after a checkpoint of its own counted.
//!
//! A checkpoint that is not kept and not newer than the newest kept one never will be kept again: whoever may read the log agrees on
//! that at every later position, so even an owner that has been fenced off meanwhile removes nothing that is needed. Its chunks go
//! unless a kept one names them, and nobody can begin to name them later (see `known`). Chunks of saves that never got a manifest
//! are swept by an owner of a later epoch: a checkpoint of an earlier one either counted before that fence, or never will.

use std::collections::BTreeSet;
use std::time::Duration;

use broker_adapter::ids::{Epoch, Hash, Position, ShardId};

use super::chunk::{chunk_prefix, epoch_in_name};
use super::known::{suspect_name, suspect_prefix};
use super::load::Reader;
use super::pipeline::retried;
use super::{CheckpointError, manifest_name, manifest_prefix, parse_manifest_name};

/// Between two removals: each may cost the log's next sync a commit of the file system.
const REST: Duration = Duration::from_millis(5);

/// One cleaning.
pub struct Cleaning {
    /// Where.
    pub reader: Reader,
    /// Whose.
    pub shard: ShardId,
    /// What the fold keeps, pinned ones included.
    pub kept: Vec<(Position, Hash)>,
    /// Sweep chunks of saves under earlier epochs that nobody names.
    pub sweep_before: Option<Epoch>,
}

impl Cleaning {
    /// Removes what is not needed; how many objects that were. Where it ends early, the next one goes on.
    ///
    /// # Errors
    /// The store does not answer, or a kept manifest cannot be read: then nobody knows what is needed, and nothing is removed.
    pub async fn run(self) -> Result<u64, CheckpointError> {
        let Some(newest) = self.kept.iter().map(|(position, _)| *position).max() else { return Ok(0) };
        let manifests = self.list(manifest_prefix(&self.shard)).await?;
        let parsed = manifests.iter().filter_map(|name| parse_manifest_name(&self.shard, name));
        let dropped: Vec<_> = parsed.filter(|found| found.0 <= newest && !self.kept.contains(found)).collect();
        if dropped.is_empty() && self.sweep_before.is_none() {
            return Ok(0);
        }
        let mut needed = BTreeSet::new();
        for (position, hash) in &self.kept {
            let manifest = self.reader.manifest(&self.shard, *position, *hash).await?;
            needed.extend(manifest.chunks().map(|chunk| chunk.name(&self.shard)));
        }
        let mut removed = 0;
        for (position, hash) in dropped {
            removed += self.remove_checkpoint(position, hash, &needed).await?;
        }
        if let Some(epoch) = self.sweep_before {
            removed += self.sweep(epoch, &needed).await?;
        }
        Ok(removed)
    }

    async fn remove_checkpoint(
        &self,
        position: Position,
        hash: Hash,
        needed: &BTreeSet<String>,
    ) -> Result<u64, CheckpointError> {
        let mut removed = 0;
        match self.reader.manifest(&self.shard, position, hash).await {
            Ok(manifest) => {
                let names: BTreeSet<String> = manifest.chunks().map(|chunk| chunk.name(&self.shard)).collect();
                for name in names.difference(needed) {
                    self.remove(name).await?;
                    removed += 1;
                }
            }
            // What it named is swept by a later owner.
            Err(CheckpointError::Damaged { .. }) => {}
            Err(error) => return Err(error),
        }
        // The manifest last: what ends in between is found again.
        self.remove(&manifest_name(&self.shard, position, hash)).await?;
        Ok(removed + 1)
    }

    async fn sweep(&self, before: Epoch, needed: &BTreeSet<String>) -> Result<u64, CheckpointError> {
        let mut removed = 0;
        for name in self.list(chunk_prefix(&self.shard)).await? {
            let earlier = epoch_in_name(&self.shard, &name).is_some_and(|epoch| epoch < before);
            if earlier && !needed.contains(&name) {
                self.remove(&name).await?;
                removed += 1;
            }
        }
        let marks: BTreeSet<String> = needed.iter().map(|name| suspect_name(&self.shard, name)).collect();
        for mark in self.list(suspect_prefix(&self.shard)).await? {
            if !marks.contains(&mark) {
                self.remove(&mark).await?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    async fn remove(&self, name: &str) -> Result<(), CheckpointError> {
        let store = &self.reader.store;
        retried(&self.reader.shell, || store.delete(name.to_owned())).await?;
        self.reader.shell.sleep(REST).await;
        Ok(())
    }

    async fn list(&self, prefix: String) -> Result<Vec<String>, CheckpointError> {
        let store = &self.reader.store;
        Ok(retried(&self.reader.shell, || store.list(prefix.clone())).await?)
    }
}
