//! What REST, the command line and the dashboard see: plain data with the JSON's names.
//!
//! Built from the book and the directory; nothing reads it back but people and their programs.

mod fleet;

use std::collections::BTreeMap;

use broker_adapter::ids::{Epoch, Hash, MigrationId, NodeName, Position, ServiceName, ShardName};
use serde::Serialize;
use sidecar::command::Difference;
use utoipa::ToSchema;

pub use fleet::{
    Load, NodeList, NodeState, NodeView, ReplicaView, ServiceList, ServiceView, ShardOf, ShardView, best, node, nodes,
    services,
};

use crate::machine::{Ending, Migration, Phase, Proof, Strategy};
use crate::plan::Plan;

/// A page of migrations.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct MigrationList {
    /// The newest first.
    pub items: Vec<MigrationView>,
    /// Where the next page begins; null on the last one.
    pub next_page_token: Option<String>,
}

/// One migration.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
#[schema(as = Migration)]
pub struct MigrationView {
    /// Its name.
    #[schema(value_type = String)]
    pub id: MigrationId,
    /// What moves.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// Which part of it.
    #[schema(value_type = String)]
    pub shard: ShardName,
    /// `move`, `undo` or `retire`.
    pub operation: &'static str,
    /// The migration that is undone, or after which a standby is retired.
    #[schema(value_type = Option<String>)]
    pub of: Option<MigrationId>,
    /// How.
    pub strategy: Strategy,
    /// The source.
    #[schema(value_type = String)]
    pub from: NodeName,
    /// The target.
    #[schema(value_type = String)]
    pub to: NodeName,
    /// The present or last phase.
    pub phase: Phase,
    /// How it ended; null while it runs.
    pub outcome: Option<Ending>,
    /// What shows that both replicas are equal, once verified.
    pub proof: Option<Proof>,
    /// Where source and target differ, if it ended as `diverged`.
    #[schema(value_type = Option<Object>)]
    pub divergence: Option<Difference>,
    /// E of the present attempt.
    #[schema(value_type = u64)]
    pub epoch: Epoch,
    /// The first is 1.
    pub attempt: u32,
    /// Wall milliseconds.
    pub accepted_ms: u64,
    /// Wall milliseconds.
    pub ended_ms: Option<u64>,
    /// From acceptance to end.
    pub total_ms: Option<u64>,
    /// How far the target is behind, as it told last.
    pub lag_records: Option<u64>,
    /// Behind which record the source stands still, or stood in the last attempt; of strategies that pause it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<u64>)]
    pub paused: Option<Position>,
    /// The state's size, once saved.
    pub state_bytes: Option<u64>,
    /// After which record the checkpoint was taken that the target loads.
    #[schema(value_type = Option<u64>)]
    pub source_position: Option<Position>,
    /// Where its own fence stands.
    #[schema(value_type = Option<u64>)]
    pub handover_position: Option<Position>,
    /// The longest time without a completed request of this shard, from acceptance to a second after the end, as the ingresses
    /// tell; null where they do not.
    pub blackout_ms: Option<u64>,
    /// What the plan said.
    pub planned_blackout_ms: Option<u64>,
    /// What was compared.
    pub hashes: Option<Hashes>,
    /// Every phase that was entered; of several attempts, each has its own.
    pub phases: Vec<PhaseView>,
    /// What was expected at its acceptance.
    pub plan: Option<Plan>,
    /// Whether the target catches up; while it replays.
    pub forecast: Option<Forecast>,
    /// Why it did not complete.
    pub error: Option<String>,
    /// Why it was ordered.
    pub reason: Option<String>,
    /// Whether somebody wants it to end.
    pub cancel_requested: bool,
    /// Whether it can still be cancelled.
    pub can_cancel: bool,
    /// Whether it can be undone now.
    pub can_undo: bool,
    /// Why not.
    pub why_not_undo: Option<String>,
    /// How long the source stays a standby after it.
    pub keep_standby_s: u64,
    /// Until when that is so; of a migration that left one.
    pub standby_until_ms: Option<u64>,
    /// How long requests may wait, as ordered.
    pub max_blackout_ms: Option<u64>,
    /// How long it may take, as ordered.
    pub deadline_s: Option<u64>,
}

/// One phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = PhaseTime)]
pub struct PhaseView {
    /// Which.
    pub name: Phase,
    /// In which attempt.
    pub attempt: u32,
    /// When it was entered, wall milliseconds.
    pub began_ms: u64,
    /// How long it took; null while it lasts.
    pub ms: Option<u64>,
}

/// What was compared, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub struct Hashes {
    /// The record after which.
    #[schema(value_type = u64)]
    pub position: Position,
    /// The source's, hexadecimal.
    pub source: String,
    /// The target's, hexadecimal.
    pub target: String,
    /// `state` or `replies`.
    pub kind: &'static str,
}

/// Whether a target catches up.
#[derive(Clone, Debug, PartialEq, Serialize, ToSchema)]
pub struct Forecast {
    /// Whether it does at the present rates.
    pub converges: bool,
    /// When.
    pub in_s: Option<f64>,
    /// Records that arrive.
    pub arrival_per_s: f64,
    /// Records that the target applies.
    pub replay_per_s: f64,
    /// The same in words.
    pub sentence: String,
}

/// How the migrator itself is, for `/readyz` and `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Status {
    /// Ended migrations since the journal began, by how.
    pub ended: BTreeMap<String, u64>,
    /// Migrations that run, after-care included.
    pub running: u64,
    /// Nodes heard lately.
    pub nodes_alive: u64,
    /// Nodes not heard lately.
    pub nodes_silent: u64,
    /// The last entry of the journal that was read.
    pub journal_position: u64,
    /// Under which epoch this migrator owns the journal.
    pub journal_epoch: u64,
    /// Why the journal takes nothing now.
    pub journal_trouble: Option<String>,
}

impl MigrationView {
    /// Shows a migration.
    #[must_use]
    pub fn of(state: &Migration, beside: Beside) -> MigrationView {
        let ended_ms = state.ended.map(|(_, at_ms)| at_ms);
        let order = &state.order;
        let phases = state.phases.iter().map(|time| PhaseView {
            name: time.phase,
            attempt: time.attempt,
            began_ms: time.began_ms,
            ms: time.ended_ms.map(|ended_ms| ended_ms.saturating_sub(time.began_ms)),
        });
        MigrationView {
            id: order.id,
            service: order.shard.service.clone(),
            shard: order.shard.shard.clone(),
            operation: order.operation.name(),
            of: order.operation.of(),
            strategy: order.strategy,
            from: order.from.clone(),
            to: order.to.clone(),
            phase: state.phase,
            outcome: state.ended.map(|(ending, _)| ending),
            proof: state.proof,
            divergence: state.difference.clone(),
            epoch: state.attempt.epoch,
            attempt: state.attempt.number,
            accepted_ms: order.accepted_ms,
            ended_ms,
            total_ms: ended_ms.map(|ended_ms| ended_ms.saturating_sub(order.accepted_ms)),
            lag_records: beside.lag_records,
            paused: state.paused,
            state_bytes: state.taken.map(|taken| taken.state_bytes),
            source_position: state.taken.map(|taken| taken.position),
            handover_position: handover(state),
            blackout_ms: beside.blackout_ms,
            planned_blackout_ms: order.plan.as_ref().and_then(|plan| plan.blackout_ms),
            hashes: hashes(state),
            phases: phases.collect(),
            plan: order.plan.as_deref().cloned(),
            forecast: beside.forecast,
            error: state.error.clone(),
            reason: order.reason.clone(),
            cancel_requested: state.cancel_requested,
            can_cancel: !state.has_ended() && !state.cancel_requested,
            can_undo: beside.why_not_undo.is_none(),
            why_not_undo: beside.why_not_undo,
            keep_standby_s: order.keep_standby_ms / 1_000,
            standby_until_ms: standby_until(state),
            max_blackout_ms: order.max_blackout_ms,
            deadline_s: order.deadline_s,
        }
    }
}

/// What is known of a migration beside the book.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Beside {
    /// How far the target is behind.
    pub lag_records: Option<u64>,
    /// What the ingresses measured.
    pub blackout_ms: Option<u64>,
    /// Whether the target catches up.
    pub forecast: Option<Forecast>,
    /// Why it cannot be undone.
    pub why_not_undo: Option<String>,
}

fn handover(state: &Migration) -> Option<Position> {
    let completed = matches!(state.ended, Some((Ending::Completed, _)));
    state.decided_by.as_ref().filter(|_| completed).map(|fence| fence.position)
}

/// Replicas that agreed have one hash; where states differ, the words of the difference tell it.
fn hashes(state: &Migration) -> Option<Hashes> {
    let agreed = state.agreed.as_ref()?;
    let (hash, kind) = match agreed.state {
        Some(hash) => (hash, "state"),
        None => (agreed.replies, "replies"),
    };
    let hex = |hash: Hash| hash.to_string();
    Some(Hashes { position: agreed.position, source: hex(hash), target: hex(hash), kind })
}

fn standby_until(state: &Migration) -> Option<u64> {
    let leaves = state.order.operation.name() != "retire" && !state.order.strategy.carries_state();
    match state.ended {
        Some((Ending::Completed, ended_ms)) if leaves => Some(ended_ms.saturating_add(state.order.keep_standby_ms)),
        _ => None,
    }
}
