//! An archive: one checkpoint as one file, to be kept anywhere and imported again. It holds the state, so it may hold secrets.
//!
//! ```text
//!   "segue-checkpoint/1\n"
//!   length ─ manifest       as in the store: MessagePack; its BLAKE3 hash is the checkpoint's name in the log
//!   length ─ chunk …        each that the manifest names, once, in its order (fold, replies, state), packed as in the store
//!   BLAKE3 of everything before it: 32 bytes, so `head -c -32 FILE | b3sum` tells whether a file is whole
//! ```
//! Lengths are four bytes, big end first. [`Export`] writes one; [`Archive`] takes one apart and gives nothing out before its hash
//! was checked. Neither holds more than a few chunks, and a manifest, whatever the size of the state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use broker_adapter::fold::Fold;
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::shell::Shell;
use broker_adapter::store::{OBJECT_LIMIT_BYTES, StoreError};
use bytes::{BufMut, Bytes, BytesMut};
use futures_util::StreamExt;
use futures_util::stream::BoxStream;
use tokio::sync::mpsc;

use super::chunk::{CHUNK_MAX_BYTES, ChunkRef, Form, chunk_prefix, unpack, unpack_exactly};
use super::load::Reader;
use super::pipeline::{Pipeline, retried};
use super::{CheckpointError, MANIFEST_VERSION, Manifest};

/// What every archive of this form begins with.
pub const MAGIC: &[u8] = b"segue-checkpoint/1\n";
/// What every form of archive begins with.
const FAMILY: &[u8] = b"segue-checkpoint/";
const LENGTH_BYTES: usize = 4;
const HASH_BYTES: usize = 32;

/// Why an archive cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ArchiveError {
    /// Something else, or of another version.
    #[error("this is no archive of a checkpoint of this version: it does not begin with \"segue-checkpoint/1\"{0}")]
    NotOne(&'static str),
    /// It ends too early.
    #[error("the archive ends after {bytes} bytes, in the middle of {part}: it was cut off")]
    Truncated {
        /// How much of it came.
        bytes: u64,
        /// What was expected.
        part: String,
    },
    /// It is not what was exported.
    #[error("the archive is damaged: {0}")]
    Damaged(String),
    /// It is larger than allowed.
    #[error("{what} {bytes} bytes; at most {limit} are taken")]
    TooLarge {
        /// `the archive has more than`, …
        what: &'static str,
        /// How many.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// It could not be read to its end.
    #[error("the archive could not be read to its end: {0}")]
    Unreadable(String),
    /// The next part did not come in time.
    #[error("nothing more of the archive came for {0} s")]
    TooSlow(u64),
}

/// What a manifest names, each chunk once: the order of an archive.
pub(super) fn distinct(manifest: &Manifest) -> Vec<ChunkRef> {
    let mut seen = BTreeSet::new();
    manifest.chunks().filter(|chunk| seen.insert(chunk.name(&manifest.shard))).cloned().collect()
}

/// A checkpoint of the store on its way into an archive.
pub struct Export {
    reader: Reader,
    manifest: Manifest,
    hash: Hash,
    content: Bytes,
    chunks: Vec<ChunkRef>,
}

impl Export {
    /// Finds the manifest, and that all that it names is there.
    ///
    /// # Errors
    /// It is damaged, or the store does not answer.
    pub async fn open(
        reader: Reader,
        shard: &ShardId,
        position: Position,
        hash: Hash,
    ) -> Result<Export, CheckpointError> {
        let (manifest, content) = reader.manifest_whole(shard, position, hash).await?;
        let chunks = distinct(&manifest);
        let prefix = chunk_prefix(shard);
        let listed = retried(&reader.shell, || reader.store.list(prefix.clone())).await?;
        let listed: BTreeSet<String> = listed.into_iter().collect();
        if let Some(missing) = chunks.iter().map(|chunk| chunk.name(shard)).find(|name| !listed.contains(name)) {
            let reason = StoreError::Missing(missing).to_string();
            return Err(CheckpointError::Damaged { position, manifest: hash, reason });
        }
        Ok(Export { reader, manifest, hash, content, chunks })
    }

    /// What is exported.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// How many bytes the archive will have.
    #[must_use]
    pub fn length(&self) -> u64 {
        let frame = |bytes: u64| LENGTH_BYTES as u64 + bytes;
        let chunks: u64 = self.chunks.iter().map(|chunk| frame(chunk.stored_bytes())).sum();
        (MAGIC.len() + HASH_BYTES) as u64 + frame(self.content.len() as u64) + chunks
    }

    /// Sends the archive, piece after piece, each chunk read from the store and checked; ends early if nobody receives any more. An
    /// error is sent as the last piece: what came before it is no archive.
    pub async fn send(self, to: mpsc::Sender<Result<Bytes, CheckpointError>>) {
        if let Err(error) = self.pieces(&to).await {
            tracing::warn!(shard = %self.manifest.shard, %error, "an export broke off");
            // Nobody may receive any more.
            let _ = to.send(Err(error)).await;
        }
    }

    async fn pieces(&self, to: &mpsc::Sender<Result<Bytes, CheckpointError>>) -> Result<(), CheckpointError> {
        let mut hasher = blake3::Hasher::new();
        let mut head = BytesMut::from(MAGIC);
        head.extend_from_slice(&frame(&self.content));
        if !give(to, &mut hasher, head.freeze()).await {
            return Ok(());
        }
        let mut left = self.chunks.iter();
        let mut ahead = Pipeline::new(&self.reader.shell);
        loop {
            while !ahead.is_full()
                && let Some(chunk) = left.next()
            {
                ahead.push(self.reader.clone().stored(self.manifest.shard.clone(), chunk.clone()));
            }
            match ahead.next().await {
                None => break,
                Some(Ok(stored)) => {
                    if !give(to, &mut hasher, frame(&stored)).await {
                        return Ok(());
                    }
                }
                Some(Err(error @ (StoreError::Missing(_) | StoreError::Damaged { .. }))) => {
                    let (position, reason) = (self.manifest.position, error.to_string());
                    return Err(CheckpointError::Damaged { position, manifest: self.hash, reason });
                }
                Some(Err(error)) => return Err(error.into()),
            }
        }
        let hash = Bytes::copy_from_slice(hasher.finalize().as_bytes());
        // Nobody may receive any more.
        let _ = to.send(Ok(hash)).await;
        Ok(())
    }
}

/// Whether somebody still receives.
async fn give(to: &mpsc::Sender<Result<Bytes, CheckpointError>>, hasher: &mut blake3::Hasher, piece: Bytes) -> bool {
    hasher.update(&piece);
    to.send(Ok(piece)).await.is_ok()
}

fn frame(content: &[u8]) -> Bytes {
    let mut frame = BytesMut::with_capacity(LENGTH_BYTES + content.len());
    frame.put_u32(u32::try_from(content.len()).expect("an object has at most 8 MiB"));
    frame.extend_from_slice(content);
    frame.freeze()
}

/// Where an archive comes from; whoever makes it says why it breaks off.
pub type Pieces = BoxStream<'static, Result<Bytes, ArchiveError>>;

/// The largest fold that is read from an archive: the largest there is has some 20 MB.
const FOLD_MAX_BYTES: u64 = 256 << 20;

/// An archive that is being read.
pub struct Archive {
    source: Source,
    shell: Shell,
    /// What was read already, to be given out first.
    ready: VecDeque<(ChunkRef, Bytes)>,
    chunks: std::vec::IntoIter<ChunkRef>,
    manifest: Manifest,
    content: Bytes,
    hash: Hash,
}

impl Archive {
    /// Reads the manifest. What the archive says to hold, unpacked, may have `limit` bytes; no more of it is ever read than that.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn open(pieces: Pieces, limit: u64, shell: &Shell) -> Result<Archive, ArchiveError> {
        let mut source = Source { pieces, buffer: BytesMut::new(), taken: 0, hasher: blake3::Hasher::new() };
        source.magic().await?;
        let content = source.framed(OBJECT_LIMIT_BYTES, "its manifest").await?;
        let manifest = manifest(&content, limit)?;
        let (chunks, hash) = (distinct(&manifest).into_iter(), Hash::of(&content));
        Ok(Archive { source, shell: shell.clone(), ready: VecDeque::new(), chunks, manifest, content, hash })
    }

    /// What it holds.
    #[must_use]
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The manifest, as it lies in the store too, and its hash.
    #[must_use]
    pub fn into_manifest(self) -> (Manifest, Bytes, Hash) {
        (self.manifest, self.content, self.hash)
    }

    /// The manifest's hash: what the log calls this checkpoint.
    #[must_use]
    pub fn hash(&self) -> Hash {
        self.hash
    }

    /// How many bytes of it were read.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.source.taken
    }

    /// The next chunk, as it lies in the store, checked; `None` when the whole archive was read and its hash is right.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn next(&mut self) -> Result<Option<(ChunkRef, Bytes)>, ArchiveError> {
        match self.ready.pop_front() {
            Some(ready) => Ok(Some(ready)),
            None => self.read().await,
        }
    }

    /// The fold at the checkpoint's position, before any chunk was taken; the chunks are given out all the same.
    ///
    /// # Errors
    /// [`ArchiveError`].
    pub async fn fold(&mut self) -> Result<Fold, ArchiveError> {
        let damaged = |reason: String| ArchiveError::Damaged(format!("its fold: {reason}"));
        let bytes: u64 = self.manifest.fold.iter().map(|chunk| u64::from(chunk.length)).sum();
        if bytes > FOLD_MAX_BYTES {
            return Err(damaged(format!("{bytes} bytes are more than any has")));
        }
        let mut contents = BTreeMap::new();
        while self.manifest.fold.iter().any(|chunk| !contents.contains_key(&chunk.hash)) {
            let Some((chunk, stored)) = self.read().await? else { break };
            let content = unpack(&chunk, "a chunk", stored.clone()).map_err(|error| damaged(error.to_string()))?;
            contents.insert(chunk.hash, content);
            self.ready.push_back((chunk, stored));
        }
        let parts = self.manifest.fold.iter().filter_map(|chunk| contents.get(&chunk.hash));
        let whole: Vec<u8> = parts.flat_map(|part| part.iter().copied()).collect();
        let decoded = self.shell.blocking(move || rmp_serde::from_slice(&whole)).await;
        let fold: Fold = decoded.map_err(|error: rmp_serde::decode::Error| damaged(error.to_string()))?;
        let fits = fold.position() == self.manifest.position && fold.record_crc() == self.manifest.record_crc;
        if fits { Ok(fold) } else { Err(damaged(format!("it is the one at {}", fold.position()))) }
    }

    async fn read(&mut self) -> Result<Option<(ChunkRef, Bytes)>, ArchiveError> {
        let Some(chunk) = self.chunks.next() else {
            self.source.end().await?;
            return Ok(None);
        };
        let stored = self.source.framed(CHUNK_MAX_BYTES, "a chunk").await?;
        let (checked, content) = (chunk.clone(), stored.clone());
        let name = format!("chunk {}", chunk.hash);
        let unpacked = self.shell.blocking(move || unpack_exactly(&checked, &name, content)).await;
        unpacked.map_err(|error| match error {
            StoreError::Damaged { name, reason } => ArchiveError::Damaged(format!("{name}: {reason}")),
            other => ArchiveError::Damaged(other.to_string()),
        })?;
        Ok(Some((chunk, stored)))
    }
}

/// The bytes of an archive.
struct Source {
    pieces: Pieces,
    buffer: BytesMut,
    taken: u64,
    hasher: blake3::Hasher,
}

impl Source {
    async fn magic(&mut self) -> Result<(), ArchiveError> {
        // What is too short to be one is something else, rather than cut off.
        self.fill(MAGIC.len()).await?;
        if self.buffer.starts_with(MAGIC) {
            return self.exactly(MAGIC.len(), "its beginning").await.map(drop);
        }
        let more = match self.buffer.starts_with(FAMILY) {
            true => "; take the segue that wrote it",
            false if self.buffer.is_empty() => "; it is empty",
            false => "",
        };
        Err(ArchiveError::NotOne(more))
    }

    async fn framed(&mut self, most: usize, part: &str) -> Result<Bytes, ArchiveError> {
        let length = self.exactly(LENGTH_BYTES, part).await?;
        let length = u32::from_be_bytes([length[0], length[1], length[2], length[3]]) as usize;
        if length > most {
            return Err(ArchiveError::Damaged(format!("{part} says to have {length} bytes, more than {most}")));
        }
        self.exactly(length, part).await
    }

    async fn exactly(&mut self, bytes: usize, part: &str) -> Result<Bytes, ArchiveError> {
        self.fill(bytes).await?;
        if self.buffer.len() < bytes {
            return Err(ArchiveError::Truncated { bytes: self.taken, part: part.to_owned() });
        }
        let taken = self.buffer.split_to(bytes).freeze();
        self.hasher.update(&taken);
        Ok(taken)
    }

    /// Reads on until so many bytes are there, or the end.
    async fn fill(&mut self, bytes: usize) -> Result<(), ArchiveError> {
        while self.buffer.len() < bytes
            && let Some(piece) = self.pieces.next().await
        {
            let piece = piece?;
            self.taken += piece.len() as u64;
            self.buffer.extend_from_slice(&piece);
        }
        Ok(())
    }

    async fn end(&mut self) -> Result<(), ArchiveError> {
        let wanted = self.hasher.finalize();
        let found = self.exactly(HASH_BYTES, "its hash").await?;
        if found[..] != wanted.as_bytes()[..] {
            return Err(ArchiveError::Damaged("its bytes do not have the hash at its end".to_owned()));
        }
        self.fill(1).await?;
        match self.buffer.is_empty() {
            true => Ok(()),
            false => Err(ArchiveError::Damaged("more follows behind its end".to_owned())),
        }
    }
}

/// Nothing that it says is believed before it was checked: lengths are those of our own saves, and their sum is allowed.
fn manifest(content: &[u8], limit: u64) -> Result<Manifest, ArchiveError> {
    let damaged = |reason: String| ArchiveError::Damaged(format!("its manifest: {reason}"));
    let manifest: Manifest = rmp_serde::from_slice(content).map_err(|error| damaged(error.to_string()))?;
    if manifest.version != MANIFEST_VERSION {
        return Err(damaged(format!("form {} instead of {MANIFEST_VERSION}", manifest.version)));
    }
    for chunk in manifest.chunks() {
        let length = chunk.length as usize;
        let packed = match chunk.form {
            Form::Plain => chunk.length,
            Form::Zstd { stored } => stored,
        };
        if !(1..=CHUNK_MAX_BYTES).contains(&length) || packed == 0 || packed > chunk.length {
            return Err(damaged(format!("a chunk of {length} bytes, packed {packed}, cannot be")));
        }
    }
    let declared: u64 = manifest.chunks().map(|chunk| u64::from(chunk.length)).sum();
    if declared > limit {
        return Err(ArchiveError::TooLarge { what: "the archive says to hold", bytes: declared, limit });
    }
    Ok(manifest)
}
