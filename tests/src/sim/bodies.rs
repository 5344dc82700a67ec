//! What became of the bodies that were too large for their records: in the end none is left that nobody needs.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use broker_adapter::fold::checkpoints::KEPT_UNPINNED;
use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::ids::{Hash, Position, ShardId};
use broker_adapter::record::{Entry, Record};
use bytes::Bytes;
use rand::rngs::StdRng;
use sidecar::body::{BodyName, body_prefix};

use super::clients;
use super::stage::{LOG, Stage};
use crate::checker::Observation;

/// So many times more requests are sent until nothing is left: an owner cleans behind its checkpoints, and knows all that it must
/// know when the oldest one that is kept is one of its own.
const ROUNDS: usize = 12;
/// Long enough for a checkpoint and its cleaning.
const ROUND: Duration = Duration::from_secs(4);

/// The end of a run.
pub struct Cleaned {
    /// What the clients of the last rounds saw.
    pub seen: Vec<Observation>,
    /// What is wrong: bodies of nobody.
    pub left: Vec<String>,
}

/// Goes on in peace until no body is left that nobody needs, or long enough.
pub async fn cleaned(stage: &Stage, rng: &mut StdRng) -> Cleaned {
    let mut seen = Vec::new();
    for round in 0..ROUNDS {
        if left(stage).is_empty() {
            break;
        }
        let mut more = clients::some_more(stage, &format!("y{round}-"), 1, rng);
        more.all().await;
        seen.extend(more.noted().seen);
        tokio::time::sleep(ROUND).await;
    }
    let left = left(stage);
    let left = left.into_iter().map(|object| format!("{object} is left in the checkpoint store, and nobody needs it"));
    Cleaned { seen, left: left.collect() }
}

/// Parts of bodies that no replica may read and no record may come to name. A pin that holds an old checkpoint keeps an owner
/// from knowing what was applied before it was loaded: then only what was trimmed must be gone, in the end.
fn left(stage: &Stage) -> Vec<String> {
    let shard = shard();
    let (objects, _) = stage.broker.objects(&body_prefix(&shard));
    if objects.is_empty() {
        return Vec::new();
    }
    let entries = stage.broker.dump(LOG);
    let (fold, applied) = told(&entries);
    if fold.checkpoints().kept().len() > KEPT_UNPINNED {
        return Vec::new();
    }
    let first = stage.broker.first(LOG);
    let is_needed = |name: BodyName| name.may_count(&fold) || applied.get(&name).is_some_and(|at| *at >= first);
    let is_left = |object: &String| BodyName::parse(&shard, object).is_none_or(|name| !is_needed(name));
    objects.into_iter().filter(is_left).collect()
}

/// The fold of the whole log, and where each stored body is applied.
fn told(entries: &[Entry]) -> (Fold, BTreeMap<BodyName, Position>) {
    let mut fold = Fold::new();
    let mut applied = BTreeMap::new();
    for entry in entries {
        let verdict = fold.observe(entry);
        if let (Record::Message(message), Verdict::Apply) = (&entry.record, verdict)
            && let Some(name) = BodyName::of(message)
        {
            applied.insert(name, entry.position);
        }
    }
    (fold, applied)
}

/// How often what happened: bodies applied, put for records that were void or never came, and removed.
pub fn played(stage: &Stage, entries: &[Entry]) -> BTreeMap<String, u64> {
    let shard = shard();
    let (objects, ever) = stage.broker.objects(&body_prefix(&shard));
    let names = |objects: &BTreeSet<String>| {
        objects.iter().filter_map(|object| BodyName::parse(&shard, object)).collect::<BTreeSet<BodyName>>()
    };
    let (objects, ever) = (names(&objects), names(&ever));
    let (_, applied) = told(entries);
    let named: BTreeSet<BodyName> = entries
        .iter()
        .filter_map(|entry| if let Record::Message(message) = &entry.record { BodyName::of(message) } else { None })
        .collect();
    let counts = [
        ("body:applied", applied.len()),
        ("body:of-no-record", ever.difference(&named).count()),
        ("body:not-applied", named.iter().filter(|name| !applied.contains_key(name)).count()),
        ("body:removed", ever.difference(&objects).count()),
    ];
    let counts = counts.into_iter().filter(|(_, times)| *times > 0);
    counts.map(|(name, times)| (name.to_owned(), times as u64)).collect()
}

/// The large requests' bodies, which are their ids.
pub fn by_hash(seen: &[Observation]) -> BTreeMap<Hash, Bytes> {
    seen.iter().map(|seen| (Hash::of(seen.id.as_bytes()), Bytes::from(seen.id.clone()))).collect()
}

fn shard() -> ShardId {
    let service = LOG.trim_end_matches(".0");
    ShardId::whole(service.parse().expect("a good name"))
}
