//! Digests and marks: how owner and standby find out whether they are equal (invariant 8).
//!
//! The owner tells its running hash at positions; everybody else compares. A mark that asks for the state makes owner and target
//! hash their saved state at the mark's own position; the owner's digest carries its hash.

use broker_adapter::ids::{Hash, Id128, Position};
use broker_adapter::record::{Digest, Mark, Record};

use super::active::{Active, Divergence};
use super::engine::{Engine, Event, Life};
use bytes::BytesMut;

use crate::checkpoint::CHUNK_BYTES;
use crate::checkpoint::pace::Pace;
use crate::service::{SavedState, ServiceError};
use crate::shard::Context;

/// A mark that this replica answers (as owner) or compares (as target).
pub(super) struct Proof {
    pub mark: Id128,
    pub position: Position,
    pub hash: Hash,
    /// Whether the owner's digest is to be written, or compared.
    pub as_owner: bool,
    /// `None` while the state is being hashed; inside: `None` where saves are not canonical.
    pub state: Option<Option<Hash>>,
}

impl Engine {
    /// A mark stands at the replica's position.
    pub async fn marked(&mut self, mark: &Mark) {
        let Life::Active(active) = &mut self.life else { return };
        let position = active.fold.position();
        let as_owner = active.fold.is_owner(&self.context.me);
        let as_target = active.target.as_ref().is_some_and(|target| target.asks(mark.id));
        let answered = active.fold.last_digest().is_some_and(|last| last.digest.position >= position);
        if (!as_owner && !as_target) || (as_owner && answered) {
            return;
        }
        let hash = active.running.current();
        let state = if mark.state { None } else { Some(None) };
        active.proofs.push(Proof { mark: mark.id, position, hash, as_owner, state });
        if mark.state {
            self.hash_state(position).await;
        }
        self.answer_marks();
    }

    /// Asks for the state at this very position; nothing is delivered before the service has begun to answer, and
    /// before the end only if its snapshot is fixed.
    async fn hash_state(&mut self, position: Position) {
        let Life::Active(active) = &mut self.life else { return };
        let context = self.context.clone();
        let (events, load) = (self.events.clone(), active.load);
        match active.save_state(&context).await {
            Err(error) => self.state_hashed(position, Err(error)),
            Ok(state) if !state.canonical => self.state_hashed(position, Ok(None)),
            Ok(state) if state.fixed => active.tasks.tasks().spawn(async move {
                let result = hash(&context, state).await.map(Some);
                // The engine may have ended.
                let _ = events.send(Event::StateHashed { load, position, result }).await;
            }),
            Ok(state) => {
                let result = hash(&context, state).await.map(Some);
                self.state_hashed(position, result);
            }
        }
    }

    pub fn state_hashed(&mut self, position: Position, result: Result<Option<Hash>, ServiceError>) {
        let Life::Active(active) = &mut self.life else { return };
        let state = result.unwrap_or_else(|error| {
            tracing::warn!(%error, "the state could not be hashed; the proof is by replies only");
            None
        });
        for proof in active.proofs.iter_mut().filter(|proof| proof.position == position) {
            proof.state = Some(state);
        }
        self.answer_marks();
    }

    /// Writes the digests that marks asked for.
    fn answer_marks(&mut self) {
        let Life::Active(active) = &mut self.life else { return };
        let mut ready = Vec::new();
        active.proofs.retain(|proof| match proof.state {
            Some(state) if proof.as_owner => {
                ready.push((proof.mark, proof.position, proof.hash, state));
                false
            }
            _ => true,
        });
        let Some(writer) = self.writer() else { return };
        for (mark, position, hash, state) in ready {
            let digest = Digest { writer: writer.clone(), position, hash, state, mark: Some(mark) };
            self.append(vec![Record::Digest(digest)]);
        }
    }

    /// The owner's digest at the replica's position.
    pub fn append_digest(&mut self, mark: Option<Id128>, state: Option<Hash>) {
        let Some(writer) = self.writer() else { return };
        let Life::Active(active) = &mut self.life else { return };
        let position = active.fold.position();
        active.digest_at = position;
        active.digest_time = self.context.shell.now();
        let digest = Digest { writer, position, hash: active.running.current(), state, mark };
        self.append(vec![Record::Digest(digest)]);
    }

    /// The owner tells its hash every so many records or milliseconds in which it made progress.
    pub fn digest_if_due(&mut self) {
        let Life::Active(active) = &self.life else { return };
        if !active.owns(&self.context.me) || active.running.last() <= active.digest_at {
            return;
        }
        let position = active.fold.position();
        let told = active.fold.last_digest().map_or(Position::ZERO, |last| last.digest.position);
        let settings = active.fold.settings();
        let by_records = position.records_since(active.digest_at) >= settings.digest_every_records;
        let waited = self.context.shell.now().saturating_sub(active.digest_time);
        let by_time = waited.as_millis() >= u128::from(settings.digest_every_ms);
        if position > told && (by_records || by_time) {
            self.append_digest(None, None);
        }
    }

    /// Compares a counted digest with what this replica had at its position.
    pub fn compare(&mut self, digest: &Digest) {
        let Life::Active(active) = &mut self.life else { return };
        let Some(own) = active.running.at(digest.position) else { return };
        if own != digest.hash {
            let what = Divergence { position: digest.position, owners: digest.hash, own, what: "replies" };
            if active.fold.is_owner(&self.context.me) {
                let message = format!("this replay contradicts the shard's own digests: {}", what.message());
                self.alarm(message);
                return;
            }
            if active.diverged.is_none() {
                active.diverged = Some(what.clone());
                let message = what.message();
                self.alarm(message);
            }
            return;
        }
        active.agreed = true;
        if let Some(target) = &mut active.target
            && digest.mark.is_some_and(|mark| target.asks(mark))
        {
            target.owners = Some(digest.clone());
        }
    }
}

async fn hash(context: &Context, mut state: SavedState) -> Result<Hash, ServiceError> {
    let mut pace = Pace::new(&context.shell, context.config.state_rate_mb_per_s);
    let mut hasher = blake3::Hasher::new();
    let mut piece = BytesMut::new();
    loop {
        let bytes = state.next().await?;
        if let Some(bytes) = &bytes {
            pace.passed(bytes.len()).await;
            piece.extend_from_slice(bytes);
        }
        if piece.len() >= CHUNK_BYTES || bytes.is_none() {
            let content = std::mem::take(&mut piece);
            let update = move || {
                hasher.update(&content);
                hasher
            };
            hasher = context.shell.blocking(update).await;
        }
        if bytes.is_none() {
            return Ok(Hash(*hasher.finalize().as_bytes()));
        }
    }
}

impl Active {
    /// The proof of a mark, once this replica has its part.
    pub fn own_proof(&self, mark: Id128) -> Option<(&Proof, Option<Hash>)> {
        let proof = self.proofs.iter().find(|proof| proof.mark == mark && !proof.as_owner)?;
        Some((proof, proof.state?))
    }
}
