//! Digests and marks: how owner and standby find out whether they are equal (invariant 8).
//!
//! The owner tells its running hash at positions; everybody else compares. A mark that asks for the state makes owner and target
//! hash their saved state at the mark's own position; the owner's digest carries its hash.

use std::time::Duration;

use broker_adapter::fold::Bug;
use broker_adapter::ids::{Hash, Id128, Position};
use broker_adapter::record::{Digest, Mark, Record};

use super::active::Active;
use super::divergence::Divergence;
use super::engine::{APPEND_AGAIN, Engine, Event, FOLLOWING_RECORDS, Life};
use bytes::BytesMut;

use crate::checkpoint::CHUNK_BYTES;
use crate::checkpoint::pace::Pace;
use crate::config::ProofConfig;
use crate::service::{SavedState, ServiceError, state_hash};
use crate::shard::Context;

/// A mark that this replica answers (as owner) or compares (as target).
pub(super) struct Proof {
    pub mark: Id128,
    pub position: Position,
    pub hash: Hash,
    /// How many replies with a content that hash covers since the load.
    pub replies: u64,
    /// Whether the owner's digest is to be written, or compared.
    pub as_owner: bool,
    /// `None` while the state is being hashed; inside: `None` where saves are not canonical.
    pub state: Option<Option<Hash>>,
    /// When the owner's digest was appended last; again until it is read back.
    pub sent: Option<Duration>,
}

/// How many marks an owner answers at a time; of more the oldest go, and their askers' migrations roll back.
const PROOFS_MAX: usize = 64;

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
        let hashes = mark.state && self.context.config.proof == ProofConfig::State;
        let state = if hashes { None } else { Some(None) };
        let replies = active.running.replies();
        active.proofs.push(Proof { mark: mark.id, position, hash, replies, as_owner, state, sent: None });
        if active.proofs.len() > PROOFS_MAX {
            active.proofs.remove(0);
        }
        if hashes {
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
        let limit = context.config.start_timeout();
        if let Some(config) = &context.config.state_hash {
            let place = active.instance.place();
            let asked = (&place, active.reading.reader());
            let result = state_hash(config, asked, limit, &context.shell).await.map(Some);
            return self.state_hashed(position, result);
        }
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

    /// Writes the digests that marks asked for; again what was not read back.
    pub fn answer_marks(&mut self) {
        let now = self.context.shell.now();
        let Some(writer) = self.writer() else { return };
        let Life::Active(active) = &mut self.life else { return };
        let mut digests = Vec::new();
        for proof in active.proofs.iter_mut().filter(|proof| proof.as_owner) {
            let due = proof.sent.is_none_or(|sent| now >= sent + APPEND_AGAIN);
            if let (Some(state), true) = (proof.state, due) {
                proof.sent = Some(now);
                let Proof { mark, position, hash, .. } = *proof;
                digests.push(Record::Digest(Digest {
                    writer: writer.clone(),
                    position,
                    hash,
                    state,
                    mark: Some(mark),
                }));
            }
        }
        if !digests.is_empty() {
            self.append(digests);
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

    /// The owner tells its hash every so many records or milliseconds in which it made progress; and once behind its fence, where
    /// the word that it said there may have been lost: that is how it shows itself.
    pub fn digest_if_due(&mut self) {
        let Life::Active(active) = &self.life else { return };
        if !active.owns(&self.context.me) {
            return;
        }
        let position = active.fold.position();
        let told = active.fold.last_digest().map_or(Position::ZERO, |last| last.digest.position);
        let settings = active.fold.settings();
        let waited = self.context.shell.now().saturating_sub(active.digest_time);
        let progress = active.running.last() > active.digest_at && position > told;
        let by_records = position.records_since(active.digest_at) >= settings.digest_every_records;
        let by_time = waited.as_millis() >= u128::from(settings.digest_every_ms);
        let fence = active.fold.last_fence().map_or(Position::ZERO, |fence| fence.position);
        let silent = told < fence && waited >= APPEND_AGAIN && self.lag_records() <= FOLLOWING_RECORDS;
        if progress && (by_records || by_time) || silent {
            self.append_digest(None, None);
        }
    }

    /// Compares a counted digest with what this replica had at its position.
    pub fn compare(&mut self, digest: &Digest) {
        let Life::Active(active) = &mut self.life else { return };
        active.proofs.retain(|proof| !(proof.as_owner && Some(proof.mark) == digest.mark));
        let Some(own) = active.running.at(digest.position) else { return };
        // At the position of the checkpoint that was loaded all hashes are equal, and no state was told.
        let elsewhere = self.context.rules.plant(Bug::DigestElsewhere) && active.target.is_some();
        let digest = if elsewhere { &Digest { hash: own, state: None, ..digest.clone() } } else { digest };
        if own != digest.hash {
            if active.diverged.is_some() {
                return;
            }
            if active.fold.is_owner(&self.context.me) {
                let diverged = Divergence::of_replay(active.agreed_at, digest.position);
                let message = format!("this replay contradicts the shard's own digests: {}", diverged.difference);
                active.diverged = Some(diverged);
                self.context.metrics.divergences.inc();
                self.alarm(message);
            } else {
                self.begin_divergence(digest.position);
            }
            return;
        }
        // At the position of the checkpoint that was loaded all replicas agree, and nothing of this one is told by it.
        active.agreed |= digest.position > active.loaded_at;
        active.agreed_at = digest.position;
        if let Some(target) = &mut active.target {
            target.compared = target.compared.max(Some(digest.position));
            if digest.mark.is_some_and(|mark| target.asks(mark)) {
                target.owners = Some(digest.clone());
            }
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
