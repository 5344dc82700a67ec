//! A migration as the migrator's REST interface tells it: start one, and follow it to its end.

use std::time::Duration;

use broker_adapter::shell::Shell;
use serde::Deserialize;
use serde_json::Value;

use crate::rest::{Answer, Rest, RestError};

/// How often a followed migration is asked for.
const POLL_EVERY: Duration = Duration::from_millis(20);

/// How long a migrator may be away while a migration is followed.
const AWAY_LIMIT: Duration = Duration::from_secs(60);

/// A migration; what the demo and people need of it.
#[derive(Clone, Debug, Deserialize)]
pub struct Migration {
    /// Its id.
    pub id: String,
    /// `live`, …
    pub strategy: String,
    /// Where it stands.
    pub phase: String,
    /// How it ended; `None` until then.
    pub outcome: Option<String>,
    /// What the switch rested on: `state`, `replies only`, `unproven`.
    pub proof: Option<String>,
    /// From acceptance to end.
    pub total_ms: Option<f64>,
    /// The phases so far, in order.
    #[serde(default)]
    pub phases: Vec<PhaseTime>,
    /// How far the target is behind.
    pub lag_records: Option<u64>,
    /// Why it did not complete.
    pub error: Option<Value>,
}

/// How long a phase took.
#[derive(Clone, Debug, Deserialize)]
pub struct PhaseTime {
    /// Its name.
    pub name: String,
    /// So long; `None` if it goes on.
    pub ms: Option<f64>,
}

/// Why a migration was not started or could not be followed.
#[derive(Debug, thiserror::Error)]
pub enum MigrationError {
    /// The migrator does not answer.
    #[error("{0}: is the migrator running there? --migrator URL names another one")]
    Rest(#[from] RestError),
    /// It said no.
    #[error("the migrator refused ({status}): {reason}")]
    Refused {
        /// The status.
        status: u16,
        /// Its words: detail and hint.
        reason: String,
    },
    /// It said something else.
    #[error("the migrator's answer is not understood ({reason}): are both of the same version?")]
    Strange {
        /// What was wrong with it.
        reason: String,
    },
}

impl Migration {
    /// In which phase it was so long after its acceptance; the last one does not end.
    #[must_use]
    pub fn phase_at(&self, after: Duration) -> Option<String> {
        let (mut end_ms, after_ms) = (0.0, after.as_secs_f64() * 1e3);
        let lasts = |phase: &&PhaseTime| {
            end_ms += phase.ms.unwrap_or(f64::INFINITY);
            after_ms < end_ms
        };
        self.phases.iter().find(lasts).or(self.phases.last()).map(|phase| phase.name.clone())
    }

    /// How long each phase took, in the order in which they were entered first; several attempts are added up.
    #[must_use]
    pub fn phase_totals(&self) -> Vec<(String, f64)> {
        let mut totals: Vec<(String, f64)> = Vec::new();
        for phase in &self.phases {
            let Some(ms) = phase.ms else { continue };
            match totals.iter_mut().find(|(name, _)| *name == phase.name) {
                Some((_, total)) => *total += ms,
                None => totals.push((phase.name.clone(), ms)),
            }
        }
        totals
    }
}

/// Asks the migrator to move a service, with an order as REST takes it; gives the path at which the migration is told.
///
/// # Errors
/// What it answered.
pub async fn start(rest: &Rest, order: &Value) -> Result<String, MigrationError> {
    location_of(&rest.post("/v1/migrations", order).await?)
}

fn location_of(answer: &Answer) -> Result<String, MigrationError> {
    if answer.status != 202 {
        return Err(refused(answer));
    }
    let location = answer.header("location").map(path_of);
    location.ok_or_else(|| MigrationError::Strange { reason: "202 without a Location".to_owned() })
}

/// How a migration stands now.
///
/// # Errors
/// What the migrator answered.
pub async fn look(rest: &Rest, location: &str) -> Result<Migration, MigrationError> {
    let answer = rest.get(location).await?;
    if answer.status != 200 {
        return Err(refused(&answer));
    }
    serde_json::from_slice(&answer.body).map_err(|error| MigrationError::Strange { reason: error.to_string() })
}

/// Follows a migration to its end and shows it at every look. A migrator that is away for a while may come back.
///
/// # Errors
/// If it stays away, or says something else than how the migration stands.
pub async fn follow(
    rest: &Rest,
    location: &str,
    shell: &Shell,
    mut show: impl FnMut(&Migration),
) -> Result<Migration, MigrationError> {
    let mut last_answer = shell.now();
    loop {
        match look(rest, location).await {
            Ok(migration) => {
                last_answer = shell.now();
                show(&migration);
                if migration.outcome.is_some() {
                    return Ok(migration);
                }
            }
            Err(MigrationError::Rest(_)) if shell.now() - last_answer < AWAY_LIMIT => {}
            Err(error) => return Err(error),
        }
        shell.sleep(POLL_EVERY).await;
    }
}

/// The path of an absolute or relative URL.
fn path_of(location: &str) -> String {
    let behind_scheme = location.split_once("://").map(|(_, rest)| rest);
    match behind_scheme.and_then(|rest| rest.find('/').map(|slash| &rest[slash..])) {
        Some(path) => path.to_owned(),
        None => location.to_owned(),
    }
}

fn refused(answer: &Answer) -> MigrationError {
    let problem = answer.json();
    let words: Vec<String> = ["title", "detail", "hint"]
        .iter()
        .filter_map(|key| problem.get(key))
        .map(|word| word.as_str().map_or_else(|| word.to_string(), str::to_owned))
        .collect();
    MigrationError::Refused { status: answer.status, reason: words.join("; ") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_migration_is_read_while_it_runs_and_when_it_has_ended() {
        let running = json!({
            "id": "0f", "service": "delay-board", "shard": "0", "strategy": "live", "from": "edge-a", "to": "edge-b",
            "phase": "replay", "outcome": null, "proof": null, "accepted_ms": 1, "ended_ms": null, "total_ms": null,
            "phases": [{"name": "prepare", "ms": 2}, {"name": "replay", "ms": null}], "lag_records": 7, "error": null
        });
        let running: Migration = serde_json::from_value(running).unwrap();
        assert_eq!((running.outcome, running.lag_records, running.phases.len()), (None, Some(7), 2));
    }

    #[test]
    fn the_times_of_several_attempts_are_added_up() {
        let phase = |name: &str, ms| PhaseTime { name: name.to_owned(), ms };
        let phases = vec![phase("prepare", Some(2.0)), phase("replay", Some(3.0)), phase("prepare", Some(4.0))];
        let view = json!({"id": "0f", "service": "s", "strategy": "live", "from": "a", "to": "b", "phase": "replay"});
        let migration = Migration { phases, ..serde_json::from_value(view).unwrap() };
        assert_eq!(migration.phase_totals(), [("prepare".to_owned(), 6.0), ("replay".to_owned(), 3.0)]);
    }

    #[test]
    fn a_location_may_be_a_url_or_a_path() {
        assert_eq!(path_of("http://127.0.0.1:7272/v1/migrations/0f"), "/v1/migrations/0f");
        assert_eq!(path_of("/v1/migrations/0f"), "/v1/migrations/0f");
    }
}
