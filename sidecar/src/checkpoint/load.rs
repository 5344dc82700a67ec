//! Takes a checkpoint apart: every chunk is checked against its hash before anybody uses it.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::{Bytes, BytesMut};
use serde::de::DeserializeOwned;
use tokio::sync::mpsc;

use super::pace::Pace;
use super::{CheckpointError, ChunkRef, MANIFEST_VERSION, Manifest, chunk_name, manifest_name};
use crate::replica::kept::Kept;

const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Reads checkpoints.
#[derive(Clone)]
pub struct Reader {
    /// Where they are.
    pub store: Arc<dyn CheckpointStore>,
    /// Time, and where to hash.
    pub shell: Shell,
}

impl Reader {
    /// The manifest that the log names, checked against its hash.
    ///
    /// # Errors
    /// It is missing, damaged, or of another version.
    pub async fn manifest(&self, shard: &ShardId, position: Position, hash: Hash) -> Result<Manifest, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged { position, manifest: hash, reason };
        let bytes = match self.get(manifest_name(shard, position, hash)).await {
            Err(StoreError::Missing(name)) => return Err(damaged(format!("{name} is missing from the store"))),
            result => result?,
        };
        if Hash::of(&bytes) != hash {
            return Err(damaged("its manifest has another hash".to_owned()));
        }
        let manifest: Manifest = rmp_serde::from_slice(&bytes).map_err(|error| damaged(error.to_string()))?;
        if manifest.version != MANIFEST_VERSION {
            return Err(damaged(format!("form {} instead of {MANIFEST_VERSION}", manifest.version)));
        }
        if manifest.position != position || manifest.shard != *shard {
            return Err(damaged(format!("it is the one of {} at {}", manifest.shard, manifest.position)));
        }
        Ok(manifest)
    }

    /// The fold of a checkpoint.
    ///
    /// # Errors
    /// A chunk is missing or damaged.
    pub async fn fold(&self, manifest: &Manifest, hash: Hash) -> Result<Fold, CheckpointError> {
        let fold: Fold = self.part(manifest, hash, &manifest.fold).await?;
        if fold.position() == manifest.position && fold.record_crc() == manifest.record_crc {
            return Ok(fold);
        }
        let reason = format!("its fold is the one at {}", fold.position());
        Err(CheckpointError::Damaged { position: manifest.position, manifest: hash, reason })
    }

    /// The kept replies of a checkpoint.
    ///
    /// # Errors
    /// A chunk is missing or damaged.
    pub async fn replies(&self, manifest: &Manifest, hash: Hash) -> Result<Vec<Kept>, CheckpointError> {
        self.part(manifest, hash, &manifest.replies).await
    }

    /// Sends the state's chunks, each checked, in order; ends early if nobody receives any more.
    ///
    /// # Errors
    /// A chunk is missing or damaged.
    pub async fn stream_state(
        &self,
        manifest: &Manifest,
        hash: Hash,
        to: mpsc::Sender<Bytes>,
        mut pace: Pace,
        mut progress: impl FnMut(u64),
    ) -> Result<(), CheckpointError> {
        const PIECE_BYTES: usize = 64 << 10;
        let mut sent = 0;
        for chunk in &manifest.state {
            let mut bytes = self.chunk(manifest, hash, chunk).await?;
            sent += bytes.len() as u64;
            while !bytes.is_empty() {
                let piece = bytes.split_to(bytes.len().min(PIECE_BYTES));
                pace.passed(piece.len()).await;
                if to.send(piece).await.is_err() {
                    return Ok(());
                }
            }
            progress(sent);
        }
        Ok(())
    }

    /// One chunk, checked.
    ///
    /// # Errors
    /// It is missing or damaged, named by its name in the store.
    pub async fn chunk(&self, manifest: &Manifest, hash: Hash, chunk: &ChunkRef) -> Result<Bytes, CheckpointError> {
        let name = chunk_name(&manifest.shard, chunk);
        let damaged = |reason: String| CheckpointError::Damaged { position: manifest.position, manifest: hash, reason };
        let bytes = match self.get(name.clone()).await {
            Err(StoreError::Missing(name)) => return Err(damaged(format!("{name} is missing from the store"))),
            result => result?,
        };
        let content = bytes.clone();
        let found = self.shell.blocking(move || Hash::of(&content)).await;
        if found == chunk.hash { Ok(bytes) } else { Err(damaged(format!("{name} has another hash: {found}"))) }
    }

    async fn part<T: DeserializeOwned + Send + 'static>(
        &self,
        manifest: &Manifest,
        hash: Hash,
        chunks: &[ChunkRef],
    ) -> Result<T, CheckpointError> {
        let mut bytes = BytesMut::new();
        for chunk in chunks {
            bytes.extend_from_slice(&self.chunk(manifest, hash, chunk).await?);
        }
        // Kept replies may be many megabytes: requests do not wait for them.
        let decoded = self.shell.blocking(move || rmp_serde::from_slice(&bytes)).await;
        decoded.map_err(|error: rmp_serde::decode::Error| CheckpointError::Damaged {
            position: manifest.position,
            manifest: hash,
            reason: error.to_string(),
        })
    }

    async fn get(&self, name: String) -> Result<Bytes, StoreError> {
        let mut tries = 0;
        loop {
            match self.store.get(name.clone()).await {
                Err(error) if error.is_retryable() && tries < RETRIES => {
                    tries += 1;
                    self.shell.sleep(RETRY_WAIT * tries).await;
                }
                result => return result,
            }
        }
    }
}
