//! What the log says in the end, against what everybody else says: the migrations' ends, the trims, the standbys.

use std::collections::{BTreeMap, BTreeSet};

use broker_adapter::fold::{CountedFence, Fold, Verdict};
use broker_adapter::ids::{MigrationId, Position, Replica};
use broker_adapter::record::{Cause, Entry};
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
    wrong.extend(missing_standby(stage, &told, moved));
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

/// The source of the last move is a standby until it is retired: as long as its process lives and nothing else was asked of it.
fn missing_standby(stage: &Stage, told: &Told, moved: &[Moved]) -> Option<String> {
    let last = told.won.iter().max_by_key(|(_, won)| won.at)?;
    let (id, won) = last;
    let view = moved.iter().map(|moved| &moved.view).find(|view| view.id == *id)?;
    let later = moved.iter().map(|moved| &moved.view).filter(|other| other.epoch > won.fence.epoch);
    let is_named: BTreeSet<&str> = later.map(|other| other.to.as_str()).collect();
    let left = match won.fence.cause {
        Cause::Retire => return still_there(stage, view, &is_named),
        _ => won.from.as_ref()?,
    };
    let (me, state) = stage.replica(left.node.as_str())?;
    let is_gone = me == *left && state == ReplicaState::None;
    (is_gone && !view.strategy.carries_state() && !is_named.contains(left.node.as_str()))
        .then(|| format!("{left} was left as a standby by {id}, and is none, without a fence that retired it"))
}

/// Who was retired last has no replica.
fn still_there(stage: &Stage, view: &MigrationView, is_named: &BTreeSet<&str>) -> Option<String> {
    let (me, state) = stage.replica(view.to.as_str())?;
    let stands = !matches!(state, ReplicaState::None | ReplicaState::Stopped);
    (stands && !is_named.contains(view.to.as_str()))
        .then(|| format!("{me} was retired by {}, and is {state:?}", view.id))
}
