//! What can be done with an [`Archive`] without a claim that no log makes (invariant 7): two things, and nothing else.
//!
//! * [`restore`]: the log itself keeps this very checkpoint, by its manifest's hash. What the store has lost of it is put back under
//!   the names it had, each part checked by the hash in its name; what is there and whole stays. Nothing begins to count by that.
//! * [`set_aside`]: the state alone is put where nobody looks, for a log that has not begun: `import/<log>/<hash>`, with chunks of
//!   epoch 0. A sidecar that is told its hash loads it into its service and makes what the service then holds checkpoint 0 (see
//!   `replica::beginning`). Positions, sessions and replies of the archive's own log mean nothing there and are left behind.
//!
//! Both read the archive to its end; with `write` off they only look.

use std::collections::BTreeMap;

use broker_adapter::ids::{Epoch, Hash, Id128, Position, ShardId};
use broker_adapter::store::StoreError;
use bytes::Bytes;

use super::archive::{Archive, ArchiveError};
use super::chunk::{ChunkRef, SaveId};
use super::load::Reader;
use super::pipeline::{Pipeline, retried};
use super::{CheckpointError, MANIFEST_VERSION, Manifest, folder, manifest_name};
use crate::command::encode;

/// Before every epoch in which anybody saves: the first owner's first sweep removes what was set aside.
const ASIDE: Epoch = Epoch(0);

/// Why nothing was imported.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImportError {
    /// The archive is not whole, or none.
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    /// The store does not do its part.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was found, and done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Imported {
    /// Bytes of the archive.
    pub archive_bytes: u64,
    /// Chunks of the archive that are used.
    pub chunks: u64,
    /// How many of them, and of the manifest, the store did not have whole.
    pub missing: u64,
}

/// Puts back what the store has lost of a checkpoint that its log keeps: the caller has read that there. What an archive that was cut off
/// held until then stays put back; it is right.
///
/// # Errors
/// [`ImportError`].
pub async fn restore(reader: &Reader, mut archive: Archive, write: bool) -> Result<Imported, ImportError> {
    let shard = archive.manifest().shard.clone();
    let mut imported = Imported::default();
    let mut running = Pipeline::new(&reader.shell);
    while let Some((chunk, stored)) = archive.next().await? {
        imported.chunks += 1;
        if running.is_full() {
            imported.missing += done(&mut running).await?.unwrap_or_default();
        }
        running.push(mend(reader.clone(), shard.clone(), chunk, stored, write));
    }
    while let Some(missing) = done(&mut running).await? {
        imported.missing += missing;
    }
    // The manifest last, as when it was saved.
    imported.archive_bytes = archive.taken();
    let (manifest, content, hash) = archive.into_manifest();
    imported.missing += mend_manifest(reader, &manifest, (content, hash), write).await?;
    Ok(imported)
}

async fn done(running: &mut Pipeline<Result<u64, StoreError>>) -> Result<Option<u64>, StoreError> {
    running.next().await.transpose()
}

/// 1 if the chunk was not there whole. Nothing is deleted on the way: a delete whose outcome is unknown might hit what is put after it.
/// So a mark that a reader left on a bad chunk stays too, and costs later checkpoints the reuse of it.
async fn mend(reader: Reader, shard: ShardId, chunk: ChunkRef, stored: Bytes, write: bool) -> Result<u64, StoreError> {
    let name = chunk.name(&shard);
    match reader.clone().stored(shard.clone(), chunk.clone()).await {
        Ok(_) => return Ok(0),
        Err(StoreError::Missing(_) | StoreError::Damaged { .. }) => {}
        Err(error) => return Err(error),
    }
    if write {
        retried(&reader.shell, || reader.store.put(name.clone(), stored.clone())).await?;
        reader.stored(shard, chunk).await?;
    }
    Ok(1)
}

async fn mend_manifest(
    reader: &Reader,
    manifest: &Manifest,
    (content, hash): (Bytes, Hash),
    write: bool,
) -> Result<u64, StoreError> {
    let (shard, position) = (&manifest.shard, manifest.position);
    let damaged = match reader.manifest(shard, position, hash).await {
        Ok(_) => return Ok(0),
        Err(CheckpointError::Store(error)) => return Err(error),
        Err(error) => error,
    };
    if write {
        tracing::info!(%shard, %damaged, "putting a manifest back");
        let name = manifest_name(shard, position, hash);
        retried(&reader.shell, || reader.store.put(name.clone(), content.clone())).await?;
        if let Err(error) = reader.manifest(shard, position, hash).await {
            return Err(StoreError::Damaged { name, reason: error.to_string() });
        }
    }
    Ok(1)
}

/// Puts the archive's state aside for a log that has not begun; the hash by which a sidecar finds it. Leaves nothing behind if it fails.
///
/// # Errors
/// [`ImportError`].
pub async fn set_aside(
    reader: &Reader,
    mut archive: Archive,
    shard: &ShardId,
    write: bool,
) -> Result<(Imported, Hash), ImportError> {
    let mut aside = Aside::new(reader, &archive, shard, write);
    let read = async {
        while let Some((chunk, stored)) = archive.next().await? {
            aside.take(&chunk, stored).await?;
        }
        Ok(aside.finish().await?)
    };
    let read: Result<Hash, ImportError> = read.await;
    match read {
        Ok(hash) => {
            let chunks = aside.wanted.len() as u64;
            Ok((Imported { archive_bytes: archive.taken(), chunks, missing: chunks }, hash))
        }
        Err(error) => {
            aside.give_up().await;
            Err(error)
        }
    }
}

/// A state on its way to where nobody looks.
struct Aside {
    reader: Reader,
    write: bool,
    /// The chunks of the state by their content.
    wanted: BTreeMap<Hash, ChunkRef>,
    manifest: Manifest,
    puts: Pipeline<Result<(), StoreError>>,
    names: Vec<String>,
}

impl Aside {
    fn new(reader: &Reader, archive: &Archive, shard: &ShardId, write: bool) -> Aside {
        let from = archive.manifest();
        // Of the archive alone: who imports it again goes on where it was.
        let hash = archive.hash();
        let (id, _) = hash.0.split_first_chunk().expect("a hash has 32 bytes");
        let save = SaveId { epoch: ASIDE, id: Id128(u128::from_be_bytes(*id)) };
        let renamed = |chunk: &ChunkRef| ChunkRef { save, ..chunk.clone() };
        let wanted: BTreeMap<Hash, ChunkRef> = from.state.iter().map(|chunk| (chunk.hash, renamed(chunk))).collect();
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            shard: shard.clone(),
            position: Position::ZERO,
            record_crc: 0,
            hash: Hash::default(),
            fold: Vec::new(),
            replies: Vec::new(),
            // Of chunks of one content one is taken: forms may differ where they come from several saves.
            state: from.state.iter().map(|chunk| wanted[&chunk.hash].clone()).collect(),
            canonical: from.canonical,
        };
        Aside { reader: reader.clone(), write, wanted, manifest, puts: Pipeline::new(&reader.shell), names: Vec::new() }
    }

    /// Only chunks of the state are kept.
    async fn take(&mut self, chunk: &ChunkRef, stored: Bytes) -> Result<(), StoreError> {
        let wanted = self.wanted.get(&chunk.hash).filter(|wanted| self.write && wanted.form == chunk.form);
        let Some(chunk) = wanted.cloned() else { return Ok(()) };
        if self.puts.is_full()
            && let Some(put) = self.puts.next().await
        {
            put?;
        }
        let name = chunk.name(&self.manifest.shard);
        self.names.push(name.clone());
        let (reader, shard) = (self.reader.clone(), self.manifest.shard.clone());
        self.puts.push(async move {
            retried(&reader.shell, || reader.store.put(name.clone(), stored.clone())).await?;
            reader.stored(shard, chunk).await.map(drop)
        });
        Ok(())
    }

    /// The manifest last: what it names is whole in the store.
    async fn finish(&mut self) -> Result<Hash, StoreError> {
        while let Some(put) = self.puts.next().await {
            put?;
        }
        let content = encode(&self.manifest);
        let hash = Hash::of(&content);
        if self.write {
            let name = import_name(&self.manifest.shard, hash);
            self.names.push(name.clone());
            retried(&self.reader.shell, || self.reader.store.put(name.clone(), content.clone())).await?;
        }
        Ok(hash)
    }

    async fn give_up(mut self) {
        // A put that is still on its way would come behind its removal.
        while self.puts.next().await.is_some() {}
        for name in &self.names {
            if let Err(left) = self.reader.store.delete(name.clone()).await {
                tracing::debug!(name, %left, "what an import put stays until the shard's first owner sweeps");
                break;
            }
        }
    }
}

/// Where a state lies that was set aside.
fn import_name(shard: &ShardId, hash: Hash) -> String {
    format!("import/{}/{hash}", folder(shard))
}

impl Reader {
    /// A state that was set aside for a log that has not begun.
    ///
    /// # Errors
    /// It is missing or damaged.
    pub async fn set_aside(&self, shard: &ShardId, hash: Hash) -> Result<Manifest, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged { position: Position::ZERO, manifest: hash, reason };
        let name = import_name(shard, hash);
        let bytes = match retried(&self.shell, || self.store.get(name.clone())).await {
            Err(error @ (StoreError::Missing(_) | StoreError::Damaged { .. })) => {
                return Err(damaged(format!(
                    "{error}: is `checkpoints` the same place on this node as in the migrator?"
                )));
            }
            result => result?,
        };
        let manifest: Manifest = rmp_serde::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        let fits = Hash::of(&bytes) == hash && manifest.version == MANIFEST_VERSION && manifest.shard == *shard;
        if fits { Ok(manifest) } else { Err(damaged("it is not what was imported".to_owned())) }
    }
}

/// Removes what was set aside, as far as the store answers: it is checkpoint 0 by now, or never will be.
pub async fn forget(reader: &Reader, shard: &ShardId, hash: Hash) {
    let Ok(manifest) = reader.set_aside(shard, hash).await else { return };
    let mut names: Vec<String> = manifest.state.iter().map(|chunk| chunk.name(shard)).collect();
    names.sort();
    names.dedup();
    names.push(import_name(shard, hash));
    for name in names {
        if let Err(left) = reader.store.delete(name.clone()).await {
            tracing::debug!(name, %left, "what an import put stays until the shard's first owner sweeps");
            return;
        }
    }
}
