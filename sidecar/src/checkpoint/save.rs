//! Makes a checkpoint: streams the service's state into chunks, adds fold and replies, and reads everything back.
//!
//! Only after the reading back may it be recorded in the log (invariant 7).

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Hash, Incarnation, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::{Bytes, BytesMut};

use super::pace::Pace;
use super::{CHUNK_BYTES, CheckpointError, ChunkRef, MANIFEST_VERSION, Manifest, chunk_name, load, manifest_name};
use crate::command::encode;
use crate::replica::kept::Kept;
use crate::service::SavedState;

const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// What a checkpoint is made of besides the state.
pub struct Parts {
    /// Whose.
    pub shard: ShardId,
    /// Who makes it.
    pub by: Incarnation,
    /// The fold at the checkpoint's position.
    pub fold: Fold,
    /// The kept replies there.
    pub replies: Vec<Kept>,
    /// The running hash there.
    pub hash: Hash,
}

/// A checkpoint that is whole in the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Saved {
    /// After which record.
    pub position: Position,
    /// Its manifest's hash.
    pub manifest: Hash,
    /// The checksum of the record at `position`.
    pub record_crc: u32,
    /// The state's size.
    pub state_bytes: u64,
}

/// Puts chunks one after the other, no faster than it may.
pub struct Writer {
    /// Where they go.
    pub store: Arc<dyn CheckpointStore>,
    /// Time, and where to hash.
    pub shell: Shell,
    /// How fast a state may be read.
    pub rate_mb_per_s: u64,
}

impl Writer {
    /// Stores a checkpoint whole and reads it back.
    ///
    /// # Errors
    /// The service broke off, or the store refused. Nothing is recorded then; what was put stays unnamed.
    pub async fn save(&self, parts: Parts, mut state: SavedState) -> Result<Saved, CheckpointError> {
        let (shard, by) = (&parts.shard, parts.by);
        let mut state_chunks = Vec::new();
        let mut pace = Pace::new(&self.shell, self.rate_mb_per_s);
        let mut piece = BytesMut::new();
        while let Some(bytes) = state.next().await? {
            pace.passed(bytes.len()).await;
            piece.extend_from_slice(&bytes);
            while piece.len() >= CHUNK_BYTES {
                let chunk = piece.split_to(CHUNK_BYTES).freeze();
                state_chunks.push(self.put_chunk(shard, by, chunk).await?);
            }
        }
        if !piece.is_empty() {
            state_chunks.push(self.put_chunk(shard, by, piece.freeze()).await?);
        }
        let position = parts.fold.position();
        let record_crc = parts.fold.record_crc();
        let (fold, replies) = (parts.fold, parts.replies);
        let (fold, replies) = self.shell.blocking(move || (encode(&fold), encode(&replies))).await;
        let manifest = Manifest {
            version: MANIFEST_VERSION,
            shard: shard.clone(),
            position,
            record_crc,
            hash: parts.hash,
            fold: self.put_all(shard, by, fold).await?,
            replies: self.put_all(shard, by, replies).await?,
            state: state_chunks,
            canonical: state.canonical,
        };
        let bytes = encode(&manifest);
        let hash = Hash::of(&bytes);
        self.put(manifest_name(shard, position, hash), bytes).await?;
        let saved = Saved { position, manifest: hash, record_crc, state_bytes: manifest.state_bytes() };
        self.read_back(shard, &saved).await?;
        Ok(saved)
    }

    /// Reads every chunk as any other node would.
    async fn read_back(&self, shard: &ShardId, saved: &Saved) -> Result<(), CheckpointError> {
        let reader = load::Reader { store: self.store.clone(), shell: self.shell.clone() };
        let manifest = reader.manifest(shard, saved.position, saved.manifest).await?;
        let mut pace = Pace::new(&self.shell, self.rate_mb_per_s);
        for chunk in manifest.fold.iter().chain(&manifest.replies).chain(&manifest.state) {
            let bytes = reader.chunk(&manifest, saved.manifest, chunk).await?;
            pace.passed(bytes.len()).await;
        }
        Ok(())
    }

    async fn put_all(&self, shard: &ShardId, by: Incarnation, mut bytes: Bytes) -> Result<Vec<ChunkRef>, StoreError> {
        let mut chunks = Vec::new();
        while !bytes.is_empty() {
            let chunk = bytes.split_to(bytes.len().min(CHUNK_BYTES));
            chunks.push(self.put_chunk(shard, by, chunk).await?);
        }
        Ok(chunks)
    }

    async fn put_chunk(&self, shard: &ShardId, by: Incarnation, bytes: Bytes) -> Result<ChunkRef, StoreError> {
        let length = u32::try_from(bytes.len()).expect("a chunk has at most CHUNK_BYTES");
        let content = bytes.clone();
        let hash = self.shell.blocking(move || Hash::of(&content)).await;
        let chunk = ChunkRef { hash, by, length };
        self.put(chunk_name(shard, &chunk), bytes).await?;
        Ok(chunk)
    }

    async fn put(&self, name: String, bytes: Bytes) -> Result<(), StoreError> {
        let mut tries = 0;
        loop {
            match self.store.put(name.clone(), bytes.clone()).await {
                Err(error) if error.is_retryable() && tries < RETRIES => {
                    tries += 1;
                    self.shell.sleep(RETRY_WAIT * tries).await;
                }
                result => return result,
            }
        }
    }
}
