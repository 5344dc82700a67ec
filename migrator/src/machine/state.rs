//! A migration as the journal tells it: what was ordered, the present attempt, the phases so far, the end.
//!
//! Plain data. `next` changes it, `wants` says what it asks of the world.

use std::collections::BTreeSet;
use std::sync::Arc;

use broker_adapter::fold::CountedFence;
use broker_adapter::ids::{Hash, Id128, MigrationId, NodeName, Position, ShardId};
use broker_adapter::record::Cause;
use serde::{Deserialize, Serialize};
use sidecar::command::{Difference, FailureCode};
use utoipa::ToSchema;

use super::event::AttemptStart;
use super::phase::{Ending, Phase, Row, Undo, tables};
use crate::plan::Plan;

/// How a shard moves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Replay while the source serves; then one fence.
    #[default]
    Live,
    /// Checkpoints while the source serves, a pause for the last one, one fence, and nothing is replayed: for services that are
    /// not deterministic.
    Precopy,
    /// As MS2M (arXiv 2203.05622): replay while the source serves, which is stopped for the last stretch.
    Ms2m,
    /// The source is stopped, saved, loaded elsewhere: what others do, to compare with.
    StopAndCopy,
}

/// What the order is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Operation {
    /// The shard moves.
    #[default]
    Move,
    /// It moves back to where a completed migration took it from.
    Undo {
        /// Which migration.
        of: MigrationId,
    },
    /// The standby that a completed migration left goes.
    Retire {
        /// Which migration.
        of: MigrationId,
    },
}

impl Strategy {
    /// As in REST.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Strategy::Live => "live",
            Strategy::Precopy => "precopy",
            Strategy::Ms2m => "ms2m",
            Strategy::StopAndCopy => "stop-and-copy",
        }
    }

    /// The strategy of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Strategy> {
        Strategy::ALL.into_iter().find(|strategy| strategy.name() == name)
    }

    /// Whether the paused source's state itself is loaded by the target: nothing that the source applied is applied again.
    #[must_use]
    pub fn carries_state(self) -> bool {
        matches!(self, Strategy::Precopy | Strategy::StopAndCopy)
    }

    /// All of them.
    pub const ALL: [Strategy; 4] = [Strategy::Live, Strategy::Precopy, Strategy::Ms2m, Strategy::StopAndCopy];
}

impl Operation {
    /// As in REST.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Operation::Move => "move",
            Operation::Undo { .. } => "undo",
            Operation::Retire { .. } => "retire",
        }
    }

    /// The migration that it follows.
    #[must_use]
    pub fn of(self) -> Option<MigrationId> {
        match self {
            Operation::Move => None,
            Operation::Undo { of } | Operation::Retire { of } => Some(of),
        }
    }
}

/// What somebody asked for, and the limits that hold for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Order {
    /// Its name.
    pub id: MigrationId,
    /// What moves.
    pub shard: ShardId,
    /// From where, at its acceptance.
    pub from: NodeName,
    /// Where to.
    pub to: NodeName,
    /// Move, undo or retire.
    pub operation: Operation,
    /// How.
    pub strategy: Strategy,
    /// Why, for people.
    pub reason: Option<String>,
    /// When it was accepted, by the migrator's wall clock.
    pub accepted_ms: u64,
    /// How near the tail the target must be before it verifies and hands over.
    pub lag_limit_records: u64,
    /// Whether a migration whose proof is `unproven` rolls back.
    pub require_proof: bool,
    /// How long the source may be paused before it takes itself back.
    pub pause_limit_ms: u64,
    /// `ms2m`: how long the replay may take before the source is stopped, however far the target is behind.
    pub cutoff_ms: Option<u64>,
    /// `precopy`: how many checkpoints are taken before the pause, at most.
    pub precopy_rounds: u32,
    /// How long the source stays a standby after the migration.
    pub keep_standby_ms: u64,
    /// How long requests may wait; more is refused, and where the source pauses, it does so no longer.
    #[serde(default)]
    pub max_blackout_ms: Option<u64>,
    /// After so long without an end it rolls back.
    #[serde(default)]
    pub deadline_s: Option<u64>,
    /// Under which key it was asked for: the same again is answered with this migration.
    #[serde(default)]
    pub key: Option<OrderKey>,
    /// What was expected.
    #[serde(default)]
    pub plan: Option<Arc<Plan>>,
}

/// A client's `Idempotency-Key`, and what was asked for under it; only half of their hashes is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderKey {
    /// The key.
    pub key: Id128,
    /// The request.
    pub request: Id128,
}

impl OrderKey {
    /// Of a key and the order that came with it.
    #[must_use]
    pub fn of(key: &[u8], request: &[u8]) -> OrderKey {
        OrderKey { key: short(&Hash::of(key)), request: short(&Hash::of(request)) }
    }
}

fn short(hash: &Hash) -> Id128 {
    Id128(u128::from_be_bytes(hash.0[..16].try_into().expect("a hash has 32 bytes")))
}

impl Order {
    /// The phases of this order.
    #[must_use]
    pub fn table(&self) -> &'static [Row] {
        match (self.operation, self.strategy) {
            (Operation::Retire { .. }, _) => tables::RETIRE,
            (_, Strategy::Live) => tables::LIVE,
            (_, Strategy::Precopy) => tables::PRECOPY,
            (_, Strategy::Ms2m) => tables::MS2M,
            (_, Strategy::StopAndCopy) => tables::STOP_AND_COPY,
        }
    }

    /// The line of a phase; `None` once rolling back or ended.
    #[must_use]
    pub fn row(&self, phase: Phase) -> Option<&'static Row> {
        self.table().iter().find(|row| row.phase == phase)
    }

    /// The phase that follows; `None` behind the last one, and once rolling back or ended.
    #[must_use]
    pub fn phase_after(&self, phase: Phase) -> Option<Phase> {
        self.table().iter().skip_while(|row| row.phase != phase).nth(1).map(|row| row.phase)
    }

    /// What its own fence is called.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self.operation {
            Operation::Move => Cause::Handover,
            Operation::Undo { .. } => Cause::Undo,
            Operation::Retire { .. } => Cause::Retire,
        }
    }
}

/// What shows that both replicas are equal (invariant 8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub enum Proof {
    /// The states' hashes are equal.
    #[serde(rename = "state")]
    State,
    /// The replies since the load are equal.
    #[serde(rename = "replies only")]
    RepliesOnly,
    /// Nothing was there to compare.
    #[serde(rename = "unproven")]
    Unproven,
}

/// One phase that was entered. Of several attempts, each has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PhaseTime {
    /// Which.
    pub phase: Phase,
    /// In which attempt.
    pub attempt: u32,
    /// When it was entered, wall milliseconds.
    pub began_ms: u64,
    /// When it was left.
    pub ended_ms: Option<u64>,
}

impl Proof {
    /// As in REST.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Proof::State => "state",
            Proof::RepliesOnly => "replies only",
            Proof::Unproven => "unproven",
        }
    }
}

/// Where source and target were found equal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Agreed {
    /// The mark's position.
    pub position: Position,
    /// The running hash over replies.
    pub replies: Hash,
    /// The state's hash, if both could tell one.
    pub state: Option<Hash>,
}

/// Why it is rolling back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RollBack {
    /// What a program may decide by; `None` for a cancel.
    pub code: Option<FailureCode>,
    /// What was wrong, where, and what to do.
    pub message: String,
}

/// The checkpoint that the source took for this attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taken {
    /// After which record.
    pub position: Position,
    /// Its manifest.
    pub manifest: Hash,
    /// The state's size.
    pub state_bytes: u64,
}

/// One migration.
#[derive(Clone, Debug, PartialEq)]
pub struct Migration {
    /// What was asked for.
    pub order: Order,
    /// The present attempt, or the last one.
    pub attempt: AttemptStart,
    /// The restart fence that made the present attempt void: another is about to begin.
    pub voided_by: Option<CountedFence>,
    /// How far it is.
    pub phase: Phase,
    /// The steps of the present phase that are done.
    pub steps_done: BTreeSet<String>,
    /// What the target restores from.
    pub taken: Option<Taken>,
    /// Whether the target of this attempt has a replica already that follows the log.
    pub is_warm: bool,
    /// Whether that replica differs from the owner: only an undo goes on with such a one.
    pub differs: bool,
    /// Whether the cutoff ended the replay of this attempt.
    pub was_cut_off: bool,
    /// Where the source of this attempt stands still.
    pub paused: Option<Position>,
    /// What shows that the replicas are equal.
    pub proof: Option<Proof>,
    /// Where they were found equal.
    pub agreed: Option<Agreed>,
    /// Where source and target differ, if that ended it.
    pub difference: Option<Difference>,
    /// Whether somebody wants it to end.
    pub cancel_requested: bool,
    /// Why it is rolling back or rolled back.
    pub roll_back: Option<RollBack>,
    /// How it ended, and when.
    pub ended: Option<(Ending, u64)>,
    /// The fence that decided the end.
    pub decided_by: Option<CountedFence>,
    /// Why it ended so, if it is not `completed`.
    pub error: Option<String>,
    /// What is still to be taken back after the end.
    pub undo: BTreeSet<Undo>,
    /// Every phase that was entered.
    pub phases: Vec<PhaseTime>,
}

impl Migration {
    /// A migration whose acceptance stands in the journal.
    #[must_use]
    pub fn accepted(order: Order, first: AttemptStart) -> Migration {
        let began_ms = order.accepted_ms;
        let begins = &order.table()[0];
        let phase = begins.phase;
        let undo = begins.undo.iter().copied().collect();
        let phases = vec![PhaseTime { phase, attempt: first.number, began_ms, ended_ms: None }];
        Migration {
            order,
            attempt: first,
            voided_by: None,
            phase,
            steps_done: BTreeSet::new(),
            taken: None,
            is_warm: false,
            differs: false,
            was_cut_off: false,
            paused: None,
            proof: None,
            agreed: None,
            difference: None,
            cancel_requested: false,
            roll_back: None,
            ended: None,
            decided_by: None,
            error: None,
            undo,
            phases,
        }
    }

    /// Names the mark of the present attempt's verification: the same however often the command is repeated.
    #[must_use]
    pub fn mark(&self) -> Id128 {
        let mut name = self.order.id.0.0.to_be_bytes().to_vec();
        name.extend(self.attempt.number.to_be_bytes());
        short(&Hash::of(&name))
    }

    /// Whether this is the fence by which, and only by which, it completes.
    #[must_use]
    pub fn is_own_fence(&self, fence: &CountedFence) -> bool {
        let owner = match self.order.operation {
            Operation::Retire { .. } => &self.attempt.source,
            Operation::Move | Operation::Undo { .. } => &self.attempt.target,
        };
        fence.migration == Some(self.order.id)
            && fence.cause == self.order.cause()
            && fence.epoch == self.attempt.epoch
            && fence.owner == *owner
    }

    /// Whether its end, whichever, stands in the journal.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ended.is_some()
    }

    /// Its line in the table; `None` once rolling back or ended.
    #[must_use]
    pub fn row(&self) -> Option<&'static Row> {
        self.order.row(self.phase)
    }

    pub(super) fn enter(&mut self, phase: Phase, at_ms: u64) {
        if let Some(last) = self.phases.last_mut() {
            last.ended_ms.get_or_insert(at_ms);
        }
        self.phase = phase;
        self.steps_done.clear();
        if let Some(row) = self.order.row(phase) {
            self.undo.extend(row.undo);
        }
        if !phase.has_ended() {
            self.phases.push(PhaseTime { phase, attempt: self.attempt.number, began_ms: at_ms, ended_ms: None });
        }
    }
}
