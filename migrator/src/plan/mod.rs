//! What would happen if a shard were moved: the checks, the phases with their times, whether the target catches up.
//!
//! Pure: the same facts give the same plan. What it rests on is told with every figure: measured before, estimated, or unknown.

mod checks;
mod expect;
#[cfg(test)]
mod tests;

use broker_adapter::ids::{NodeName, ServiceName, ShardName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

pub use checks::{Facts, REASON_MAX_BYTES, Wish, refusal, shard_of};

use crate::machine::Phase;
use expect::Expected;

/// What a move would do, and whether it may.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Plan {
    /// Whether no check of severity `error` failed.
    pub ok: bool,
    /// What is to move.
    #[schema(value_type = String)]
    pub service: ServiceName,
    /// Which part of it.
    #[schema(value_type = String)]
    pub shard: ShardName,
    /// The owner, if one is known.
    #[schema(value_type = Option<String>)]
    pub from: Option<NodeName>,
    /// Where to.
    #[schema(value_type = String)]
    pub to: NodeName,
    /// How: as it was asked for, known or not.
    pub strategy: String,
    /// Everything that was checked; checks that need one that failed are left out.
    pub checks: Vec<Check>,
    /// The phases in their order.
    pub phases: Vec<PlannedPhase>,
    /// All phases together, if all are known.
    pub total_ms: Option<u64>,
    /// How long requests are expected to wait.
    pub blackout_ms: Option<u64>,
    /// Whether the target is expected to catch up.
    pub converges: Option<bool>,
    /// When.
    pub converges_in_s: Option<f64>,
    /// Records that arrive now.
    pub arrival_per_s: Option<f64>,
    /// Records that a target of this service was measured to replay.
    pub replay_per_s: Option<f64>,
    /// The state's size, as it was last saved for a migration.
    pub state_bytes: Option<u64>,
    /// All of it in one sentence.
    pub sentence: String,
}

/// One thing that was checked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Check {
    /// For programs: `service-known`, `node-alive`, …
    pub code: String,
    /// For people.
    pub title: String,
    /// Whether it holds.
    pub ok: bool,
    /// What it means if it does not.
    pub severity: Severity,
    /// What was found.
    pub detail: String,
    /// What to do, if it does not hold.
    pub hint: Option<String>,
}

/// What a check that failed means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// It is refused.
    Error,
    /// It may go wrong.
    Warning,
    /// Good to know.
    Info,
}

/// A phase as it is expected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct PlannedPhase {
    /// Which.
    pub name: Phase,
    /// How long.
    pub expected_ms: Option<u64>,
    /// Why so long.
    pub basis: Basis,
    /// What happens, and where the time comes from.
    pub detail: String,
}

/// What a time rests on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum Basis {
    /// Past migrations of this service by this strategy.
    Measured,
    /// Past migrations, scaled, or of other services.
    Estimated,
    /// Nothing.
    Unknown,
}

/// What a move as wished would do, by what is known now.
#[must_use]
pub fn plan(wish: &Wish, facts: &Facts) -> Plan {
    let judged = checks::all(wish, facts);
    let expected = Expected::of(wish, facts);
    let mut checks: Vec<Check> = judged.iter().map(checks::Judged::told).collect();
    if judged.iter().all(|judged| judged.found.is_ok()) {
        checks.extend(expected.checks(wish));
    }
    let ok = checks.iter().all(|check| check.ok || check.severity != Severity::Error);
    let failed = checks.iter().find(|check| !check.ok && check.severity == Severity::Error);
    let sentence = failed.map_or_else(|| expected.sentence(), |check| format!("refused: {}", check.detail));
    let shard = shard_of(wish);
    Plan {
        ok,
        from: facts.owner_of(&shard),
        service: shard.service,
        shard: shard.shard,
        to: wish.to.clone(),
        strategy: wish.strategy_name().to_owned(),
        checks,
        total_ms: expected.total_ms(),
        blackout_ms: expected.blackout_ms,
        converges: expected.converges,
        converges_in_s: expected.converges_in_s,
        arrival_per_s: expected.arrival_per_s,
        replay_per_s: expected.replay_per_s,
        state_bytes: expected.state_bytes,
        phases: expected.phases,
        sentence,
    }
}
