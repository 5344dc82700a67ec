//! `segue migrate`: asks a migrator to move a service, and shows how it goes.

use std::time::Duration;

use broker_adapter::shell::Shell;
use serde_json::{Value, json};

use crate::args::{FollowUpArguments, MigrateArguments};
use crate::migration::{self, Migration, MigrationError};
use crate::rest::{Rest, RestError};

/// How long the migrator may take for one answer.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// Why the service did not move.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// It was not started or could not be followed.
    #[error(transparent)]
    Migration(#[from] MigrationError),
    /// It ended otherwise.
    #[error("the migration {id} ended as {outcome}: {reason}")]
    Ended {
        /// Which one.
        id: String,
        /// How.
        outcome: String,
        /// Why.
        reason: String,
    },
}

/// Starts the migration; with `--watch` waits for its end.
///
/// # Errors
/// If it is refused, or does not complete.
pub async fn run(arguments: &MigrateArguments, shell: Shell) -> Result<(), MigrateError> {
    let rest = migrator(&arguments.migrator, &shell).map_err(MigrationError::from)?;
    let location = migration::start(&rest, &order(arguments)).await?;
    let url = arguments.migrator.trim_end_matches('/');
    println!("accepted: {url}{location}");
    if arguments.watch { watch(&rest, &location, &shell).await } else { Ok(()) }
}

/// Asks for what follows a migration (`undo`, `retire`, `cancel`); with `--watch` waits for its end.
///
/// # Errors
/// If it is refused, or does not complete.
pub async fn follow_up(what: &str, arguments: &FollowUpArguments, shell: Shell) -> Result<(), MigrateError> {
    let rest = migrator(&arguments.migrator, &shell).map_err(MigrationError::from)?;
    let location = migration::follow_up(&rest, arguments.id, what).await?;
    let url = arguments.migrator.trim_end_matches('/');
    println!("accepted: {url}{location}");
    if !arguments.watch {
        return Ok(());
    }
    match watch(&rest, &location, &shell).await {
        // That is what was asked for.
        Err(MigrateError::Ended { outcome, .. }) if what == "cancel" && outcome == "cancelled" => Ok(()),
        result => result,
    }
}

/// With the token of the environment, if there is one: on a command line everybody on the machine could read it.
fn migrator(url: &str, shell: &Shell) -> Result<Rest, RestError> {
    Rest::new(url, shell.clone(), ANSWER_LIMIT)?.with_token(std::env::var("SEGUE_TOKEN").ok().as_deref())
}

/// As REST takes it; what was not said is left to the migrator.
fn order(arguments: &MigrateArguments) -> Value {
    let mut order = json!({"service": arguments.service, "to": arguments.to, "strategy": arguments.strategy});
    let limits = [
        ("pause_limit_ms", arguments.pause_limit_ms),
        ("cutoff_ms", arguments.cutoff_ms),
        ("keep_standby_s", arguments.keep_standby_s),
    ];
    for (name, value) in limits {
        if let Some(value) = value {
            order[name] = value.into();
        }
    }
    if arguments.allow_unproven {
        order["allow_unproven"] = true.into();
    }
    order
}

async fn watch(rest: &Rest, location: &str, shell: &Shell) -> Result<(), MigrateError> {
    let mut shown = String::new();
    let ended = migration::follow(rest, location, shell, |migration| {
        let line = line(migration);
        if line != shown {
            println!("{line}");
            shown = line;
        }
    })
    .await?;
    for (name, ms) in ended.phase_totals() {
        println!("  {name:<12} {ms:>10.1} ms");
    }
    match ended.outcome.as_deref() {
        Some("completed") => {
            let total_ms = ended.total_ms.unwrap_or_default();
            // What moves nothing needs none.
            let proof = ended.proof.map(|proof| format!("; proof: {proof}")).unwrap_or_default();
            println!("completed in {total_ms:.1} ms{proof}");
            Ok(())
        }
        outcome => Err(MigrateError::Ended {
            id: ended.id.clone(),
            outcome: outcome.unwrap_or("unknown").to_owned(),
            reason: ended.error.map_or_else(|| "no reason given".to_owned(), |error| error.to_string()),
        }),
    }
}

fn line(migration: &Migration) -> String {
    let from = migration.from.as_deref().unwrap_or("?");
    let lag = migration.lag_records.map(|lag| format!(", {lag} records behind")).unwrap_or_default();
    format!("{} {from} -> {}: {}{lag}", migration.service, migration.to, migration.phase)
}
