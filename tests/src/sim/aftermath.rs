//! What the log says in the end, against what everybody else says: the migrations' ends, the trims, the standbys.

use std::collections::BTreeMap;

use broker_adapter::fold::{CountedFence, Fold, Verdict};
use broker_adapter::ids::{MigrationId, Position, Replica};
use broker_adapter::record::{Cause, Entry, Record};
use migrator::MigrationView;
use migrator::machine::Ending;
use sidecar::command::ReplicaState;

use super::moves::{Moved, outcome};
use super::stage::{LOG, Stage};
use crate::checker::Observation;

/// A counted fence of a migration, and who owned before it.
struct Won {
    fence: CountedFence,
    at: Position,
    from: Option<Replica>,
}

/// What the whole log says.
struct Told {
    /// By migration: the fence by which it moved or retired something.
    won: BTreeMap<MigrationId, Won>,
    /// The oldest checkpoint that is kept, behind each record.
    oldest: Vec<Position>,
}

/// How many fences of each cause were void: races that somebody lost.
pub fn void_fences(entries: &[Entry]) -> BTreeMap<String, u64> {
    let mut fold = Fold::new();
    let mut void = BTreeMap::new();
    for entry in entries {
        if let (Record::Fence(fence), Verdict::Void(_)) = (&entry.record, fold.observe(entry)) {
            *void.entry(format!("void-fence:{:?}", fence.cause)).or_default() += 1;
        }
    }
    void
}

fn told(entries: &[Entry]) -> Told {
    let mut fold = Fold::new();
    let mut told = Told { won: BTreeMap::new(), oldest: vec![Position::ZERO] };
    for entry in entries {
        let from = fold.owner().cloned();
        if let Verdict::Fenced(fence) = fold.observe(entry)
            && matches!(fence.cause, Cause::Handover | Cause::Undo | Cause::Retire)
            && let Some(migration) = fence.migration
        {
            told.won.insert(migration, Won { fence, at: entry.position, from });
        }
        told.oldest.push(fold.checkpoints().oldest().map_or(Position::ZERO, |kept| kept.position));
    }
    told
}

/// Everything that is not as the log says.
pub fn judge(stage: &Stage, entries: &[Entry], moved: &[Moved], seen: &[Observation]) -> Vec<String> {
    let told = told(entries);
    let mut wrong = Vec::new();
    for Moved { view, spoilt } in moved {
        wrong.extend(denied(&told, view));
        wrong.extend(went_on(&told, view, seen));
        if view.outcome == Some(Ending::Diverged) && !spoilt {
            wrong.push(format!("migration {} ended as diverged, and nothing differed: {:?}", view.id, view.error));
        }
    }
    wrong.extend(misplaced(stage, &told, moved));
    for (tail, before) in stage.broker.trims(LOG) {
        let oldest = usize::try_from(tail.0).ok().and_then(|tail| told.oldest.get(tail));
        if let Some(oldest) = oldest.filter(|oldest| before > **oldest) {
            wrong.push(format!("trimmed before {before}, and the checkpoint of {oldest} was kept at {tail}"));
        }
    }
    wrong
}

/// A migration completed if and only if its own fence won.
fn denied(told: &Told, view: &MigrationView) -> Option<String> {
    let completed = view.outcome == Some(Ending::Completed);
    (completed != told.won.contains_key(&view.id))
        .then(|| format!("{} {} ended as {}, and the log says otherwise", view.operation, view.id, outcome(view)))
}

/// A source that was paused and lost the shard gave out nothing behind its pause.
fn went_on(told: &Told, view: &MigrationView, seen: &[Observation]) -> Option<String> {
    let (won, paused) = (told.won.get(&view.id)?, view.paused?);
    let behind = |given: &&crate::checker::GivenReply| {
        Some(&given.replica) == won.from.as_ref() && given.epoch.next() == won.fence.epoch && given.position > paused
    };
    let given = seen.iter().filter_map(|seen| seen.given.as_ref()).find(behind)?;
    Some(format!("{} was paused at {paused} and gave out {}", given.replica, given.position))
}

/// What the log and the migrations' ends say of each node's replica: a source that lost the shard stands by until it is retired,
/// and goes then. Only as long as its process lives and nothing else was asked of it.
fn misplaced(stage: &Stage, told: &Told, moved: &[Moved]) -> Vec<String> {
    let mut won: Vec<(&MigrationId, &Won)> = told.won.iter().collect();
    won.sort_by_key(|(_, won)| won.at);
    let mut last: BTreeMap<&str, (&MigrationView, &Won)> = BTreeMap::new();
    for (id, won) in won {
        let Some(view) = moved.iter().map(|moved| &moved.view).find(|view| view.id == *id) else { continue };
        last.insert(view.to.as_str(), (view, won));
        if let (true, Some(from)) = (won.fence.cause != Cause::Retire, &won.from) {
            last.insert(from.node.as_str(), (view, won));
        }
    }
    let mut wrong = Vec::new();
    for (node, (view, won)) in last {
        // A retirement that did not win asked for nothing.
        let asked_since = |other: &&Moved| {
            let other = &other.view;
            other.epoch > won.fence.epoch && other.to.as_str() == node && other.operation != "retire"
        };
        let Some((me, state)) = stage.replica(node).filter(|_| moved.iter().find(asked_since).is_none()) else {
            continue;
        };
        let stands = !matches!(state, ReplicaState::None | ReplicaState::Stopped);
        let was_retired = won.fence.cause == Cause::Retire;
        let left_a_standby = !was_retired && won.from.as_ref() == Some(&me) && !view.strategy.carries_state();
        if was_retired && stands {
            wrong.push(format!("{me} was retired by {}, and is {state:?}", view.id));
        }
        if left_a_standby && state == ReplicaState::None {
            wrong.push(format!(
                "{me} was left as a standby by {}, and is none, without a fence that retired it",
                view.id
            ));
        }
    }
    wrong
}
