//! Makes a checkpoint: cuts the service's state into chunks, stores those that no kept checkpoint has, adds fold and replies.
//!
//! Each chunk that is put is read back and hashed before the next ones take its place, and so is the manifest; only then may the
//! checkpoint be recorded in the log (invariant 7). A save that fails removes what it put: nobody else can name it.

use std::sync::Arc;

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Epoch, Hash, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{CheckpointStore, StoreError};
use bytes::{Bytes, BytesMut};

use super::chunk::{CHUNK_MAX_BYTES, ChunkRef, Form, SaveId, cut, pack};
use super::known::Known;
use super::load::Reader;
use super::pace::Pace;
use super::pipeline::{Pipeline, retried};
use super::{CheckpointError, MANIFEST_VERSION, Manifest, manifest_name};
use crate::command::encode;
use crate::replica::kept::Kept;
use crate::service::SavedState;

/// What a checkpoint is made of besides the state.
pub struct Parts {
    /// Whose.
    pub shard: ShardId,
    /// Under which epoch it is taken.
    pub epoch: Epoch,
    /// The fold at the checkpoint's position.
    pub fold: Fold,
    /// The kept replies there.
    pub replies: Vec<Kept>,
    /// The running hash there.
    pub hash: Hash,
    /// Checkpoints that are kept without a pin's help, whose chunks are reused.
    pub reuse: Vec<(Position, Hash)>,
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
    /// What was put into the store, packed: state, fold, replies and manifest.
    pub stored_bytes: u64,
    /// What was in the store already, unpacked.
    pub reused_bytes: u64,
}

/// Puts what is new, no faster than it may.
#[derive(Clone)]
pub struct Writer {
    /// Where it goes.
    pub store: Arc<dyn CheckpointStore>,
    /// Time, and where to hash.
    pub shell: Shell,
    /// How fast a state may be read from the service.
    pub rate_mb_per_s: u64,
    /// How fast bytes may go to the store, and how fast they may come back.
    pub transfer_rate_mb_per_s: Option<u64>,
}

/// A service's state that is in the store, and what is needed to make a checkpoint of it.
pub struct Taken {
    save: Save,
    parts: Parts,
    state: Vec<ChunkRef>,
    canonical: bool,
}

impl Writer {
    /// Stores a checkpoint whole.
    ///
    /// # Errors
    /// The service broke off, or the store refused. Nothing may be recorded then.
    pub async fn save(&self, parts: Parts, state: SavedState) -> Result<Saved, CheckpointError> {
        self.finish(self.take(parts, state).await?).await
    }

    /// Stores the service's state. Behind this the service is free.
    ///
    /// # Errors
    /// The service broke off, or the store refused.
    pub async fn take(&self, parts: Parts, mut state: SavedState) -> Result<Taken, CheckpointError> {
        let mut save = Save::begin(self, &parts).await;
        match save.state(&mut state, self.rate_mb_per_s).await {
            Ok(chunks) => Ok(Taken { save, parts, state: chunks, canonical: state.canonical }),
            Err(error) => Err(save.give_up(error).await),
        }
    }

    /// Makes the state a checkpoint.
    ///
    /// # Errors
    /// The store refused.
    pub async fn finish(&self, taken: Taken) -> Result<Saved, CheckpointError> {
        let Taken { mut save, parts, state, canonical } = taken;
        match save.manifest(parts, state, canonical).await {
            Ok(saved) => Ok(saved),
            Err(error) => Err(save.give_up(error).await),
        }
    }
}

/// One save under way.
struct Save {
    writer: Writer,
    shard: ShardId,
    id: SaveId,
    known: Known,
    puts: Pipeline<Result<(), StoreError>>,
    pace: Pace,
    /// What this save has put, or perhaps put.
    names: Vec<String>,
    stored_bytes: u64,
    reused_bytes: u64,
}

impl Save {
    async fn begin(writer: &Writer, parts: &Parts) -> Save {
        let reader = Reader { store: writer.store.clone(), shell: writer.shell.clone() };
        Save {
            writer: writer.clone(),
            shard: parts.shard.clone(),
            id: SaveId { epoch: parts.epoch, id: writer.shell.random() },
            known: Known::of(&reader, &parts.shard, &parts.reuse).await,
            puts: Pipeline::new(&writer.shell),
            pace: Pace::up_to(&writer.shell, writer.transfer_rate_mb_per_s),
            names: Vec::new(),
            stored_bytes: 0,
            reused_bytes: 0,
        }
    }

    async fn state(&mut self, state: &mut SavedState, rate_mb_per_s: u64) -> Result<Vec<ChunkRef>, CheckpointError> {
        let mut pace = Pace::new(&self.writer.shell, rate_mb_per_s);
        let mut chunks = Vec::new();
        let mut piece = BytesMut::new();
        while let Some(bytes) = state.next().await? {
            pace.passed(bytes.len()).await;
            piece.extend_from_slice(&bytes);
            self.cut_off(&mut piece, CHUNK_MAX_BYTES, &mut chunks).await?;
        }
        self.cut_off(&mut piece, 1, &mut chunks).await?;
        Ok(chunks)
    }

    async fn manifest(
        &mut self,
        parts: Parts,
        state: Vec<ChunkRef>,
        canonical: bool,
    ) -> Result<Saved, CheckpointError> {
        let (position, record_crc) = (parts.fold.position(), parts.fold.record_crc());
        let fold = parts.fold;
        let mut fold_bytes = BytesMut::from(self.writer.shell.blocking(move || encode(&fold)).await);
        let mut fold = Vec::new();
        self.cut_off(&mut fold_bytes, 1, &mut fold).await?;
        let replies = self.replies(parts.replies).await?;
        let version = MANIFEST_VERSION;
        let (shard, hash) = (self.shard.clone(), parts.hash);
        let manifest = Manifest { version, shard, position, record_crc, hash, fold, replies, state, canonical };
        // All chunks are whole in the store before anything names them.
        while let Some(put) = self.puts.next().await {
            put?;
        }
        let bytes = encode(&manifest);
        let hash = Hash::of(&bytes);
        let name = manifest_name(&self.shard, position, hash);
        self.names.push(name.clone());
        self.stored_bytes += bytes.len() as u64;
        let (store, shell) = (self.writer.store.clone(), self.writer.shell.clone());
        retried(&shell, || store.put(name.clone(), bytes.clone())).await?;
        Reader { store, shell }.manifest(&self.shard, position, hash).await?;
        Ok(Saved {
            position,
            manifest: hash,
            record_crc,
            state_bytes: manifest.state_bytes(),
            stored_bytes: self.stored_bytes,
            reused_bytes: self.reused_bytes,
        })
    }

    /// Each framed by its length, so that neither side ever holds more than some of them.
    async fn replies(&mut self, replies: Vec<Kept>) -> Result<Vec<ChunkRef>, CheckpointError> {
        let mut chunks = Vec::new();
        let mut piece = BytesMut::new();
        let mut left = replies.into_iter();
        while left.len() > 0 {
            (piece, left) = self.writer.shell.blocking(move || frame_some(piece, left)).await;
            self.cut_off(&mut piece, CHUNK_MAX_BYTES, &mut chunks).await?;
        }
        self.cut_off(&mut piece, 1, &mut chunks).await?;
        Ok(chunks)
    }

    /// Cuts chunks off as long as at least so many bytes are there, and puts those that are new.
    async fn cut_off(
        &mut self,
        bytes: &mut BytesMut,
        at_least: usize,
        chunks: &mut Vec<ChunkRef>,
    ) -> Result<(), CheckpointError> {
        while bytes.len() >= at_least {
            let whole = std::mem::take(bytes);
            let (content, rest, hash) = self.writer.shell.blocking(move || first_chunk(whole)).await;
            *bytes = rest;
            chunks.push(self.chunk(content, hash).await?);
        }
        Ok(())
    }

    async fn chunk(&mut self, content: Bytes, hash: Hash) -> Result<ChunkRef, CheckpointError> {
        let length = u32::try_from(content.len()).expect("a chunk has at most CHUNK_MAX_BYTES");
        if let Some(known) = self.known.get(hash) {
            self.reused_bytes += u64::from(length);
            return Ok(known.clone());
        }
        let (form, packed) = self.writer.shell.blocking(move || pack(content)).await;
        let chunk = ChunkRef { hash, save: self.id, length, form };
        self.put(&chunk, packed).await?;
        self.known.add(chunk.clone());
        Ok(chunk)
    }

    /// Begins to put a chunk and to read it back as any other node would; waits for room first.
    async fn put(&mut self, chunk: &ChunkRef, packed: Bytes) -> Result<(), CheckpointError> {
        debug_assert!(matches!(chunk.form, Form::Plain) || packed.len() < chunk.length as usize, "packed is smaller");
        while self.puts.is_full() {
            if let Some(put) = self.puts.next().await {
                put?;
            }
        }
        self.pace.passed(packed.len()).await;
        let name = chunk.name(&self.shard);
        self.names.push(name.clone());
        self.stored_bytes += packed.len() as u64;
        let (store, shell) = (self.writer.store.clone(), self.writer.shell.clone());
        let (shard, chunk) = (self.shard.clone(), chunk.clone());
        self.puts.push(async move {
            retried(&shell, || store.put(name.clone(), packed.clone())).await?;
            drop(packed);
            Reader { store, shell }.content(shard, chunk).await.map(drop)
        });
        Ok(())
    }

    /// Removes what was put, as far as the store answers: a full one gets its room back.
    async fn give_up(mut self, error: CheckpointError) -> CheckpointError {
        // A put that is still on its way would come behind its removal.
        while self.puts.next().await.is_some() {}
        for name in &self.names {
            if let Err(left) = self.writer.store.delete(name.clone()).await {
                tracing::debug!(name, %left, "what a failed save put stays until the next owner sweeps");
                break;
            }
        }
        error
    }
}

fn first_chunk(mut bytes: BytesMut) -> (Bytes, BytesMut, Hash) {
    let content = bytes.split_to(cut(&bytes)).freeze();
    let hash = Hash::of(&content);
    (content, bytes, hash)
}

/// Frames replies until there is enough for a chunk.
fn frame_some(mut bytes: BytesMut, mut replies: std::vec::IntoIter<Kept>) -> (BytesMut, std::vec::IntoIter<Kept>) {
    while bytes.len() < CHUNK_MAX_BYTES
        && let Some(reply) = replies.next()
    {
        let one = encode(&reply);
        let length = u32::try_from(one.len()).expect("a reply is far smaller than 4 GiB");
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&one);
    }
    (bytes, replies)
}
