//! Takes a checkpoint apart: every chunk is checked against its hash before anybody uses it.

use std::sync::Arc;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::{Buf, Bytes, BytesMut};
use tokio::sync::mpsc;

use super::chunk::{ChunkRef, unpack, unpack_exactly};
use super::known::mark_suspect;
use super::pace::Pace;
use super::pipeline::{Pipeline, retried};
use super::{CheckpointError, MANIFEST_VERSION, Manifest, manifest_name};
use crate::replica::kept::Kept;

/// In how large pieces a state goes to the service.
const PIECE_BYTES: usize = 64 << 10;
/// The length in front of each kept reply.
const FRAME_BYTES: usize = 4;

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
        self.manifest_whole(shard, position, hash).await.map(|(manifest, _)| manifest)
    }

    /// The same, and as it lies in the store.
    pub(super) async fn manifest_whole(
        &self,
        shard: &ShardId,
        position: Position,
        hash: Hash,
    ) -> Result<(Manifest, Bytes), CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged { position, manifest: hash, reason };
        let name = manifest_name(shard, position, hash);
        let bytes = match retried(&self.shell, || self.store.get(name.clone())).await {
            Err(error @ StoreError::Missing(_)) => {
                // Most often it was never here: nobody removes the manifest of a checkpoint that counts.
                return Err(damaged(format!(
                    "{error}: is `checkpoints` the same place on this node as on the owner's?"
                )));
            }
            Err(error @ StoreError::Damaged { .. }) => return Err(damaged(error.to_string())),
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
        Ok((manifest, bytes))
    }

    /// The fold of a checkpoint.
    ///
    /// # Errors
    /// A chunk is missing or damaged.
    pub async fn fold(&self, manifest: &Manifest, hash: Hash) -> Result<Fold, CheckpointError> {
        let damaged = |reason: String| CheckpointError::Damaged { position: manifest.position, manifest: hash, reason };
        let mut bytes = BytesMut::new();
        let mut chunks = self.chunks(manifest, hash, &manifest.fold);
        while let Some(content) = chunks.next().await? {
            bytes.extend_from_slice(&content);
        }
        let decoded = self.shell.blocking(move || rmp_serde::from_slice(&bytes)).await;
        let fold: Fold = decoded.map_err(|error: rmp_serde::decode::Error| damaged(error.to_string()))?;
        if fold.position() == manifest.position && fold.record_crc() == manifest.record_crc {
            return Ok(fold);
        }
        Err(damaged(format!("its fold is the one at {}", fold.position())))
    }

    /// The kept replies of a checkpoint.
    ///
    /// # Errors
    /// A chunk is missing or damaged.
    pub async fn replies(&self, manifest: &Manifest, hash: Hash) -> Result<Vec<Kept>, CheckpointError> {
        let mut replies = Vec::new();
        let mut rest = BytesMut::new();
        let mut chunks = self.chunks(manifest, hash, &manifest.replies);
        while let Some(content) = chunks.next().await? {
            rest.extend_from_slice(&content);
            // Kept replies may be many megabytes: requests do not wait for them.
            let (taken, left) = self.shell.blocking(move || (take_replies(&mut rest), rest)).await;
            let reason =
                |reason: String| CheckpointError::Damaged { position: manifest.position, manifest: hash, reason };
            replies.extend(taken.map_err(reason)?);
            rest = left;
        }
        if rest.is_empty() {
            return Ok(replies);
        }
        let reason = "its kept replies end in the middle of one".to_owned();
        Err(CheckpointError::Damaged { position: manifest.position, manifest: hash, reason })
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
        let mut sent = 0;
        let mut chunks = self.chunks(manifest, hash, &manifest.state);
        while let Some(mut bytes) = chunks.next().await? {
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

    /// The contents of these chunks in order, some of them fetched ahead.
    fn chunks<'a>(&'a self, manifest: &'a Manifest, hash: Hash, chunks: &'a [ChunkRef]) -> Chunks<'a> {
        Chunks { reader: self, manifest, hash, left: chunks.iter(), ahead: Pipeline::new(&self.shell) }
    }

    /// One chunk, checked.
    ///
    /// # Errors
    /// It is missing or damaged, named by its name in the store.
    pub(super) async fn content(self, shard: ShardId, chunk: ChunkRef) -> Result<Bytes, StoreError> {
        let name = chunk.name(&shard);
        let stored = retried(&self.shell, || self.store.get(name.clone())).await?;
        self.shell.blocking(move || unpack(&chunk, &name, stored)).await
    }

    /// One chunk as it lies in the store, checked.
    ///
    /// # Errors
    /// It is missing or damaged, named by its name in the store.
    pub(super) async fn stored(self, shard: ShardId, chunk: ChunkRef) -> Result<Bytes, StoreError> {
        let name = chunk.name(&shard);
        let stored = retried(&self.shell, || self.store.get(name.clone())).await?;
        let content = stored.clone();
        self.shell.blocking(move || unpack_exactly(&chunk, &name, content).map(|()| stored)).await
    }
}

/// Chunks on their way.
struct Chunks<'a> {
    reader: &'a Reader,
    manifest: &'a Manifest,
    hash: Hash,
    left: std::slice::Iter<'a, ChunkRef>,
    ahead: Pipeline<(String, Result<Bytes, StoreError>)>,
}

impl Chunks<'_> {
    async fn next(&mut self) -> Result<Option<Bytes>, CheckpointError> {
        let shard = &self.manifest.shard;
        while !self.ahead.is_full()
            && let Some(chunk) = self.left.next()
        {
            let (name, content) = (chunk.name(shard), self.reader.clone().content(shard.clone(), chunk.clone()));
            self.ahead.push(async move { (name, content.await) });
        }
        match self.ahead.next().await {
            None => Ok(None),
            Some((_, Ok(content))) => Ok(Some(content)),
            Some((name, Err(error @ (StoreError::Missing(_) | StoreError::Damaged { .. })))) => {
                mark_suspect(&self.reader.store, &self.reader.shell, shard, &name).await;
                let (position, reason) = (self.manifest.position, error.to_string());
                Err(CheckpointError::Damaged { position, manifest: self.hash, reason })
            }
            Some((_, Err(error))) => Err(error.into()),
        }
    }
}

/// Takes the whole ones out.
fn take_replies(bytes: &mut BytesMut) -> Result<Vec<Kept>, String> {
    let mut replies = Vec::new();
    while bytes.len() >= FRAME_BYTES {
        let length = u32::from_be_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]) as usize;
        if bytes.len() - FRAME_BYTES < length {
            break;
        }
        bytes.advance(FRAME_BYTES);
        let one = bytes.split_to(length);
        replies.push(rmp_serde::from_slice(&one).map_err(|error| error.to_string())?);
    }
    Ok(replies)
}
