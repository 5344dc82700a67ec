//! Two replicas that differ: where, in what, and what to do (invariant 8).
//!
//! ```text
//!   this replica: a digest differs ── hashes since the last agreement ──▶ the owner finds the first record that differs
//!   names the first different part  ◀── that record's position and its reply ──┘ (mail: lost ones are asked again)
//! ```
//! Without an answer in time the range is all that is told. Both replies are put into the checkpoint store, a few per shard.

use std::time::Duration;

use broker_adapter::ids::{Hash, Position, Replica};
use bytes::Bytes;
use serde_json::json;

use super::active::Active;
use super::compared::Compared;
use super::engine::{Engine, Life};
use super::first_difference::{first_difference, is_credential};
use crate::checkpoint::divergence_prefix;
use crate::command::{
    AskDifference, Difference, Differs, FailureCode, NodeMail, OwnersReply, Reply, StepFailure, encode, node_address,
};
use crate::shard::Context;

const ASK_AGAIN: Duration = Duration::from_millis(250);
/// After so long only the range is told.
const ASK_LIMIT: Duration = Duration::from_secs(2);
/// How many hashes one question carries: more than lie between two digests under any ordinary settings.
const HASHES_ASKED_MAX: usize = 8_192;
/// How many pairs of replies are kept of one shard.
const ARTEFACTS_MAX: usize = 16;
/// How much of each body they hold.
const ARTEFACT_BODY_MAX_BYTES: usize = 64 << 10;
const STORE_LIMIT: Duration = Duration::from_secs(2);

/// This replica and the owner differ.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Divergence {
    pub difference: Difference,
    /// When the owner was asked first and last; `None` once nothing more will be known.
    asking: Option<(Duration, Duration)>,
}

impl Divergence {
    /// Of states: there is no record to be found.
    pub fn of_states(position: Position) -> Divergence {
        Divergence { difference: Difference::within(Differs::States, position, position), asking: None }
    }

    /// Of an owner's own replay.
    pub fn of_replay(after: Position, upto: Position) -> Divergence {
        Divergence { difference: Difference::within(Differs::Replies, after, upto), asking: None }
    }

    /// Whether more will become known.
    pub fn is_asking(&self) -> bool {
        self.asking.is_some()
    }

    /// What a migration ends with.
    pub fn failure(&self) -> StepFailure {
        let difference = Some(Box::new(self.difference.clone()));
        StepFailure { code: FailureCode::Diverged, message: self.difference.to_string(), difference }
    }
}

impl Engine {
    /// A digest of the owner differs: asks the owner where it began.
    pub(super) fn begin_divergence(&mut self, upto: Position) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let difference = Difference::within(Differs::Replies, active.agreed_at, upto);
        active.diverged = Some(Divergence { difference, asking: Some((now, now)) });
        self.context.metrics.divergences.inc();
        self.tell_divergence();
        self.ask_difference();
    }

    fn ask_difference(&self) {
        let Life::Active(active) = &self.life else { return };
        let (Some(diverged), Some(owner)) = (&active.diverged, active.fold.owner()) else { return };
        let Difference { after, upto, .. } = diverged.difference;
        let hashes = active.running.between(after, upto, HASHES_ASKED_MAX);
        let ask = AskDifference { shard: self.context.shard.clone(), asker: self.context.me.clone(), hashes };
        self.context.mailbox.send(&node_address(&owner.node), encode(&NodeMail::AskDifference(ask)));
    }

    /// Asks again, or gives up.
    pub(super) fn ask_difference_again(&mut self) {
        let now = self.context.shell.now();
        let Life::Active(active) = &mut self.life else { return };
        let Some(diverged) = &mut active.diverged else { return };
        let Some((first, last)) = diverged.asking else { return };
        if now >= first + ASK_LIMIT {
            diverged.asking = None;
        } else if now >= last + ASK_AGAIN {
            diverged.asking = Some((first, now));
            self.ask_difference();
        }
    }

    /// The owner's part: the first record at which the asker's hash differs, and what was replied there.
    pub(super) fn answer_difference(&self, ask: &AskDifference) {
        let Life::Active(active) = &self.life else { return };
        if !active.owns(&self.context.me) {
            return;
        }
        // One that is not known any more may be the first.
        let differs = |(at, hash): &&(Position, Hash)| active.running.at(*at).is_none_or(|own| own != *hash);
        let first = ask.hashes.iter().take(HASHES_ASKED_MAX).find(differs);
        let Some((position, _)) = first.filter(|(at, _)| active.running.at(*at).is_some()) else { return };
        let answer = OwnersReply {
            shard: self.context.shard.clone(),
            from: self.context.me.clone(),
            position: *position,
            reply: active.kept.at(*position).map(|reply| (*reply).clone()),
        };
        self.context.mailbox.send(&node_address(&ask.asker.node), encode(&NodeMail::OwnersReply(answer)));
    }

    /// The owner has told where the difference began.
    pub(super) async fn difference_found(&mut self, found: OwnersReply) {
        let Life::Active(active) = &mut self.life else { return };
        let owner = active.fold.owner() == Some(&found.from);
        let own = active.kept.at(found.position);
        let compared = active.running.compared().clone();
        let Some(diverged) = active.diverged.as_mut().filter(|diverged| diverged.is_asking()) else { return };
        let difference = &mut diverged.difference;
        if !owner || found.position <= difference.after || found.position > difference.upto {
            return;
        }
        diverged.asking = None;
        difference.position = Some(found.position);
        if let (Some(owners), Some(own)) = (&found.reply, &own) {
            tell(difference, &compared, owners, own);
            let number = active.target.as_ref().map_or(self.context.me.incarnation.0, |of| of.command.migration.0);
            let name = format!("{}{:020}-{number}", divergence_prefix(&self.context.shard), found.position.0);
            let content = artefact(&self.context, &found, own, difference);
            difference.replies = keep(&self.context, name, content).await;
        }
        self.tell_divergence();
    }

    fn tell_divergence(&mut self) {
        if let Life::Active(active) = &self.life
            && let Some(message) = active.divergence_message(&self.context.me)
        {
            self.alarm(message);
        }
    }
}

impl Active {
    /// The one who owned before keeps what it has, so that there is something to go back to.
    fn divergence_message(&self, me: &Replica) -> Option<String> {
        let difference = &self.diverged.as_ref()?.difference;
        let mut fences = self.fold.fences().rev();
        match (fences.next(), fences.next()) {
            (Some(last), Some(before)) if before.owner == *me && last.owner.node != me.node => Some(format!(
                "the new owner {} (epoch {}) differs from this replica, which owned before and is kept: undo the migration if this \
                 one is right; {difference}",
                last.owner.node, last.epoch
            )),
            _ => Some(difference.to_string()),
        }
    }
}

fn tell(difference: &mut Difference, compared: &Compared, owners: &Reply, own: &Reply) {
    if let Some(first) = first_difference(compared, owners, own) {
        difference.field = Some(first.field);
        difference.owner = Some(first.owner);
        difference.target = Some(first.own);
    }
}

/// Both replies, for people.
fn artefact(context: &Context, found: &OwnersReply, own: &Reply, difference: &Difference) -> Bytes {
    let show = |reply: &Reply| {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = reply.headers.iter().map(|header| {
            let value = if is_credential(&header.name) { "(hidden)".to_owned() } else { text(&header.value) };
            json!([header.name, value])
        });
        let shown = &reply.body[..reply.body.len().min(ARTEFACT_BODY_MAX_BYTES)];
        json!({
            "status": reply.status, "headers": headers.collect::<Vec<_>>(),
            "body": text(shown), "body_bytes": reply.body.len(),
        })
    };
    let both = json!({
        "shard": context.shard.to_string(), "position": found.position, "field": difference.field,
        "owner": found.from.to_string(), "owners_reply": found.reply.as_ref().map(show),
        "replica": context.me.to_string(), "replicas_reply": show(own),
    });
    both.to_string().into()
}

/// Puts it into the checkpoint store, whose oldest ones go; its name, if that worked in time.
async fn keep(context: &Context, name: String, content: Bytes) -> Option<String> {
    let (store, shard) = (context.store.clone(), context.shard.clone());
    let kept = async {
        store.put(name.clone(), content).await?;
        let mut names = store.list(divergence_prefix(&shard)).await?;
        names.retain(|other| *other != name);
        let over = (names.len() + 1).saturating_sub(ARTEFACTS_MAX);
        for oldest in names.into_iter().take(over) {
            store.delete(oldest).await?;
        }
        Ok::<_, broker_adapter::store::StoreError>(())
    };
    match context.shell.within(STORE_LIMIT, kept).await {
        Some(Ok(())) => Some(name),
        failed => {
            tracing::warn!(?failed, "the two replies that differ could not be kept");
            None
        }
    }
}
