//! The demo's result: a table for people and one JSON object for programs, from the same figures.

use std::time::Duration;

use comfy_table::{Table, presets};
use serde_json::{Map, Value, json};

use super::moves::Move;
use super::timeline::{Cost, Latency};
use super::verdict::Verdict;
use crate::args::DemoArguments;
use crate::migration::Migration;

/// Migrations side by side in one table.
const COLUMNS: usize = 5;

/// What the run gave.
pub struct Report {
    /// What was asked for.
    pub arguments: DemoArguments,
    /// Lost, doubled, reordered.
    pub verdict: Verdict,
    /// Whether the last owner's board is the one computed from the file.
    pub board_equal: bool,
    /// Over the whole run.
    pub longest_stall: Duration,
    /// How late the generator gave requests to their connections.
    pub generator_late_p99: Duration,
    /// The migrations with what they cost.
    pub moves: Vec<(Move, Cost)>,
}

impl Report {
    /// Whether all correctness holds: this decides the exit code.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.verdict.is_good() && self.board_equal && self.moves.iter().all(|(moved, _)| moved.is_good())
    }

    /// The object that `--json` writes.
    #[must_use]
    pub fn json(&self) -> Value {
        let Report { arguments, verdict, .. } = self;
        json!({
            "sent": verdict.sent,
            "acknowledged": verdict.acknowledged,
            "lost": verdict.lost,
            "doubled": verdict.doubled,
            "reordered": verdict.reordered,
            "board_equal": self.board_equal,
            "broker": arguments.broker,
            "rounds": arguments.rounds,
            "rate_per_s": arguments.rate,
            "state_mb": arguments.state_mb,
            "longest_stall_ms": ms(self.longest_stall),
            "generator_late_p99_ms": ms(self.generator_late_p99),
            "migrations": self.moves.iter().map(migration_json).collect::<Vec<_>>(),
        })
    }

    /// What people read.
    #[must_use]
    pub fn text(&self) -> String {
        let Verdict { sent, acknowledged, lost, doubled, reordered, foreign, told } = &self.verdict;
        let equal = if self.board_equal { "equal to the one computed from the file" } else { "DIFFERENT" };
        let mut run = Table::new();
        run.load_preset(presets::UTF8_FULL_CONDENSED);
        run.set_header(["sent", "acknowledged", "lost", "doubled", "reordered", "board of the last owner"]);
        run.add_row(
            [sent, acknowledged, lost, doubled, reordered]
                .map(ToString::to_string)
                .into_iter()
                .chain([equal.to_owned()]),
        );
        let mut parts = vec![run.to_string()];
        if *foreign > 0 {
            parts.push(format!("{foreign} flights in the log were sent by nobody"));
        }
        parts.extend(told.iter().map(|fault| format!("fault: {fault}")));
        for moves in self.moves.chunks(COLUMNS) {
            parts.push(moves_table(moves).to_string());
        }
        parts.extend(
            self.moves
                .iter()
                .filter_map(|(moved, _)| Some(format!("{} -> {}: {}", moved.from, moved.to, trouble(moved)?))),
        );
        if let Some(median) = self.median_extra_ms() {
            parts
                .push(format!("median of (blackout - quiet blackout): {median:.1} ms over {} moves", self.moves.len()));
        }
        parts.push(format!(
            "longest stall of the run: {:.1} ms; generator late p99: {:.1} ms",
            ms(self.longest_stall),
            ms(self.generator_late_p99)
        ));
        parts.join("\n")
    }

    fn median_extra_ms(&self) -> Option<f64> {
        let extra = |cost: &Cost| Some(ms(cost.blackout) - ms(cost.quiet_blackout?));
        let mut extras: Vec<f64> = self.moves.iter().filter_map(|(_, cost)| extra(cost)).collect();
        extras.sort_by(f64::total_cmp);
        let middle = extras.len() / 2;
        match extras.len() {
            0 => None,
            odd if odd % 2 == 1 => Some(extras[middle]),
            _ => Some(f64::midpoint(extras[middle - 1], extras[middle])),
        }
    }
}

/// Milliseconds, to the microsecond.
fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 1e6).round() / 1e3
}

fn latency_json(latency: Latency) -> Value {
    json!({"p50_ms": ms(latency.p50), "p99_ms": ms(latency.p99), "max_ms": ms(latency.max)})
}

fn migration_json((moved, cost): &(Move, Cost)) -> Value {
    let migration = moved.result.as_ref().ok();
    let phases: Map<String, Value> =
        migration.into_iter().flat_map(Migration::phase_totals).map(|(name, ms)| (name, json!(ms))).collect();
    json!({
        "id": migration.map(|migration| &migration.id),
        "strategy": migration.map(|migration| &migration.strategy),
        "from": moved.from,
        "to": moved.to,
        "outcome": migration.map_or("failed", |migration| migration.outcome.as_deref().unwrap_or("failed")),
        "proof": migration.and_then(|migration| migration.proof.as_ref()),
        "total_ms": migration.and_then(|migration| migration.total_ms),
        "blackout_ms": ms(cost.blackout),
        "blackout_in": migration.and_then(|migration| migration.phase_at(cost.blackout_ended)),
        "quiet_blackout_ms": cost.quiet_blackout.map(ms),
        "window": latency_json(cost.latency),
        "quiet": cost.quiet_latency.map(latency_json),
        "phases": phases,
    })
}

/// Migrations are columns, figures are rows.
fn moves_table(moves: &[(Move, Cost)]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_FULL_CONDENSED);
    let mut row = |name: &str, cell: &dyn Fn(&Move, &Cost) -> String, is_header: bool| {
        let cells = std::iter::once(name.to_owned()).chain(moves.iter().map(|(moved, cost)| cell(moved, cost)));
        let cells: Vec<String> = cells.collect();
        if is_header {
            table.set_header(cells)
        } else {
            table.add_row(cells)
        };
    };
    row("migration", &|moved, _| format!("{} -> {}", moved.from, moved.to), true);
    let of = |moved: &Move, field: &dyn Fn(&Migration) -> Option<String>| {
        moved.result.as_ref().ok().and_then(field).unwrap_or_else(|| "-".to_owned())
    };
    row("outcome", &|moved, _| of(moved, &|m| m.outcome.clone()), false);
    row("strategy, proof", &|moved, _| of(moved, &|m| Some(format!("{}, {}", m.strategy, m.proof.as_deref()?))), false);
    let mut names: Vec<String> = Vec::new();
    for (name, _) in moves.iter().filter_map(|(moved, _)| moved.result.as_ref().ok()).flat_map(Migration::phase_totals)
    {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    for name in names {
        let time = |migration: &Migration| {
            let (_, ms) = migration.phase_totals().into_iter().find(|(other, _)| *other == name)?;
            Some(format!("{ms:.1}"))
        };
        row(&format!("  {name} ms"), &|moved, _| of(moved, &time), false);
    }
    row("total ms", &|moved, _| of(moved, &|m| Some(format!("{:.1}", m.total_ms?))), false);
    row("blackout ms", &|_, cost| format!("{:.1}", ms(cost.blackout)), false);
    row("  it ended in", &|moved, cost| of(moved, &|m| m.phase_at(cost.blackout_ended)), false);
    row("quiet blackout ms", &|_, cost| cost.quiet_blackout.map_or("-".to_owned(), |q| format!("{:.1}", ms(q))), false);
    row("latency p50/p99/max ms", &|_, cost| latency_text(Some(cost.latency)), false);
    row("quiet p50/p99/max ms", &|_, cost| latency_text(cost.quiet_latency), false);
    table
}

fn latency_text(latency: Option<Latency>) -> String {
    latency.map_or("-".to_owned(), |l| format!("{:.1} / {:.1} / {:.1}", ms(l.p50), ms(l.p99), ms(l.max)))
}

/// Why a move is not what was hoped for, in words.
fn trouble(moved: &Move) -> Option<String> {
    match &moved.result {
        Err(reason) => Some(reason.clone()),
        Ok(migration) => migration.error.as_ref().filter(|error| !error.is_null()).map(ToString::to_string),
    }
}

#[cfg(test)]
mod tests;
