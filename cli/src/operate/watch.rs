//! Follows a migration to its end: live on a terminal, a line for each phase elsewhere. Whoever stops looking stops nothing.

use std::io::Write;
use std::time::Duration;

use futures_util::FutureExt;
use serde_json::Value;

use super::args::Form;
use super::ask::Asker;
use super::failure::OperateError;
use super::migrations::details;
use super::show::{Out, duration, text};
use crate::rest::RestError;

/// How often a followed migration is asked for.
const POLL_EVERY: Duration = Duration::from_millis(100);
/// How long a migrator may be away while a migration is followed.
const AWAY_LIMIT: Duration = Duration::from_secs(60);

/// Shows a migration until it has ended; `interrupted` resolves when nobody wants to look on.
///
/// # Errors
/// If it did not end as hoped (`hoped`), the migrator stays away, or nobody looks on.
pub async fn watch(
    asker: &Asker,
    id: &str,
    hoped: &str,
    interrupted: impl Future<Output = ()>,
    out: &mut Out,
) -> Result<(), OperateError> {
    let mut interrupted = Box::pin(interrupted.fuse());
    let path = format!("/v1/migrations/{id}");
    let mut shown = Shown::default();
    let mut last_answer = asker.shell.now();
    loop {
        let looked = tokio::select! {
            biased;
            () = &mut interrupted => {
                shown.end(out);
                return Err(OperateError::StoppedWatching { id: id.to_owned() });
            }
            looked = asker.get(&path) => looked,
        };
        match looked {
            Ok(migration) => {
                last_answer = asker.shell.now();
                shown.show(&migration, out);
                if !migration["outcome"].is_null() {
                    shown.end(out);
                    return ended(&migration, id, hoped, out);
                }
            }
            Err(OperateError::Rest(error)) if !matches!(error, RestError::BadUrl(_) | RestError::Tls(_)) => {
                if asker.shell.now() - last_answer >= AWAY_LIMIT {
                    return Err(error.into());
                }
                shown.away(out);
            }
            Err(error) => return Err(error),
        }
        tokio::select! {
            biased;
            () = &mut interrupted => {
                shown.end(out);
                return Err(OperateError::StoppedWatching { id: id.to_owned() });
            }
            () = asker.shell.sleep(POLL_EVERY) => {}
        }
    }
}

fn ended(migration: &Value, id: &str, hoped: &str, out: &mut Out) -> Result<(), OperateError> {
    match out.form {
        // Each step was written already.
        Form::Jsonl => {}
        _ => details(migration, &[], out, 0).map_err(nobody_reads)?,
    }
    let outcome = text(migration, "/outcome");
    if outcome == hoped {
        return Ok(());
    }
    let reason = match text(migration, "/error").as_str() {
        "-" => "no reason given".to_owned(),
        reason => reason.to_owned(),
    };
    Err(OperateError::Ended { id: id.to_owned(), outcome, reason })
}

/// A pipe that was closed is no failure of what was ordered, but nobody is there to be told.
pub fn nobody_reads(reason: std::io::Error) -> OperateError {
    OperateError::File { what: "cannot write to", path: "standard output".to_owned(), reason }
}

/// What stands on the screen.
#[derive(Default)]
struct Shown {
    phase: String,
    line: String,
    is_away: bool,
}

impl Shown {
    fn show(&mut self, migration: &Value, out: &mut Out) {
        self.is_away = false;
        let line = line(migration);
        let phase = text(migration, "/phase");
        let is_new = phase != self.phase;
        if out.form == Form::Jsonl && line != self.line {
            // Whoever reads has gone: the end is told all the same.
            let _ = writeln!(out.data, "{migration}");
        } else if out.live && line != self.line {
            let _ = write!(out.notes, "\r\x1b[2K{line}").and_then(|()| out.notes.flush());
        } else if !out.live && out.form == Form::Table && is_new {
            let _ = out.note(&line);
        }
        (self.phase, self.line) = (phase, line);
    }

    fn away(&mut self, out: &mut Out) {
        if !self.is_away {
            self.end(out);
            let _ = out.note("the migrator does not answer; the migration goes on when one runs again; asking on");
        }
        self.is_away = true;
        self.line.clear();
    }

    /// The cursor stands behind a live line.
    fn end(&self, out: &mut Out) {
        if out.live && !self.line.is_empty() {
            let _ = writeln!(out.notes);
        }
    }
}

/// `delay-board edge-a -> edge-b: replay, 120 records behind, about 1.2 s left`
fn line(migration: &Value) -> String {
    let [service, from, to, phase] = ["/service", "/from", "/to", "/phase"].map(|part| text(migration, part));
    let lag = migration["lag_records"].as_u64().map(|lag| format!(", {lag} records behind")).unwrap_or_default();
    let forecast = &migration["forecast"];
    let left = match (&forecast["in_s"], forecast["converges"].as_bool()) {
        (Value::Number(seconds), _) => format!(", about {:.1} s left", seconds.as_f64().unwrap_or_default()),
        (_, Some(false)) => format!(", {}", text(forecast, "/sentence")),
        _ => String::new(),
    };
    let cancelled = if migration["cancel_requested"] == true { ", cancel requested" } else { "" };
    format!("{service} {from} -> {to}: {phase}{lag}{left}{cancelled}")
}

/// What a finished phase took.
#[must_use]
pub fn phase_time(phase: &Value) -> String {
    if phase["ms"].is_null() { "…".to_owned() } else { duration(phase, "/ms") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_line_tells_phase_lag_and_time_left() {
        let mut migration = json!({"service": "board", "from": "a", "to": "b", "phase": "replay", "lag_records": 120,
            "forecast": {"converges": true, "in_s": 1.21}});
        assert_eq!(line(&migration), "board a -> b: replay, 120 records behind, about 1.2 s left");
        migration["forecast"] =
            json!({"converges": false, "in_s": null, "sentence": "will not converge: 950/s in, 700/s replayed"});
        migration["cancel_requested"] = true.into();
        assert_eq!(
            line(&migration),
            "board a -> b: replay, 120 records behind, will not converge: 950/s in, 700/s replayed, cancel requested"
        );
    }
}
