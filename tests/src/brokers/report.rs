//! The table for people, in `tests/reports/brokers.md`; and the figures beside the cells, in a file of their own between runs.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::deaths::{ALLOWED_MS, Deaths};
use super::demo::Demo;
use super::{Cell, table};
use crate::cells::report::{plain, row};
use crate::cells::{Line, Record, sample_on};
use crate::harness::BrokerKind;

const ABOUT: &str = "\
Each cell is a system of its own: real servers, a migrator, two sidecars with their services, 80 requests a second open loop through both ingresses, and \
a move from edge-a to edge-b. `serving`: the fault falls before the move. `checkpoint`, `replay`, `handover`: the driver stands before that \
phase and goes on once the fault has struck.

After all faults but the last two everybody goes on: each client waited and got its reply (503 only while a log is full), and the oracle found \
nothing lost, doubled, reordered or wrongly answered, no two owners in one epoch, and all replicas equal to the log. After `recreated` and \
`rewound` nobody may go on: both replicas stop and tell the position, no later request is answered, no move completes, and all that was \
acknowledged before was right. A migrator that stopped too tells nothing of the move. After `purged` the source serves on; what the target needs is \
gone, which ends a move with the positions. The quota of NATS is the stream's `max_bytes`, set and raised by an operator; Kafka's clients \
cannot be told a size, so there it is our `log_high_mark_records`.";

/// What is measured beside the cells.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Figures {
    /// Leaders killed in a row.
    pub deaths: Vec<Deaths>,
    /// Servers killed in mid-demo.
    pub demos: Vec<Demo>,
}

impl Figures {
    /// Reads them from beside a record; none if there are none.
    #[must_use]
    pub fn beside(record: Option<&Path>) -> Figures {
        let text = record.and_then(|path| std::fs::read(path.with_extension("figures.json")).ok());
        text.and_then(|text| serde_json::from_slice(&text).ok()).unwrap_or_default()
    }

    /// Keeps them there.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn keep(&self, record: Option<&Path>) -> io::Result<()> {
        let Some(path) = record else { return Ok(()) };
        std::fs::write(path.with_extension("figures.json"), serde_json::to_vec_pretty(self)?)
    }
}

/// The report, with the command that made it.
#[must_use]
pub fn markdown(command: &str, record: &Record, figures: &Figures) -> String {
    let cells = table();
    let lines: Vec<(&Cell, Option<&Line>)> = cells.iter().map(|cell| (cell, record.of(cell))).collect();
    let of_processes = [BrokerKind::Nats, BrokerKind::Kafka].map(sample_on);
    let mut text = format!("# Faults of brokers\n\nMade by `{command}`. Do not edit by hand.\n\n{ABOUT}\n\n");
    text += "| what | cells | played | clean, with proof |\n|---|---:|---:|---:|\n";
    let mut count = |what: &str, lines: &[Option<&Line>]| {
        let clean = lines.iter().flatten().filter(|line| line.is_clean()).count();
        // Writing to a text does not fail.
        let _ = writeln!(text, "| {what} | {} | {} | {clean} |", lines.len(), lines.iter().flatten().count());
    };
    for kind in BrokerKind::ALL.into_iter().filter(|kind| *kind != BrokerKind::Embedded) {
        let of_kind: Vec<_> = lines.iter().filter(|(cell, _)| cell.broker == kind).map(|(_, line)| *line).collect();
        count(&kind.to_string(), &of_kind);
    }
    for cells in &of_processes {
        let lines: Vec<_> = cells.iter().map(|cell| record.of(cell)).collect();
        count(&format!("{}: faults of processes (the sample of processes.md)", cells[0].broker), &lines);
    }
    text += &deaths(&figures.deaths);
    text += &demos(&figures.demos);
    let mut kind = None;
    for (cell, line) in lines {
        if kind.replace(cell.broker) != Some(cell.broker) {
            let _ = write!(
                text,
                "\n## {}\n\n| fault | moment | the move | counted fences | oracle | proof |\n",
                cell.broker
            );
            text += "|---|---|---|---|---|---|\n";
        }
        text += &line_of(cell, line);
    }
    for cells in &of_processes {
        let _ = write!(text, "\n## {}: faults of processes\n\n", cells[0].broker);
        text +=
            "| phase | fault | moment | ended as | counted fences | oracle | proof |\n|---|---|---|---|---|---|---|\n";
        cells.iter().for_each(|cell| text += &row(cell, record.of(cell)));
    }
    text
}

fn line_of(cell: &Cell, line: Option<&Line>) -> String {
    let head = format!("| {} | {} |", cell.fault.name(), cell.moment.name());
    let Some(line) = line else { return format!("{head} not played | | | |\n") };
    let oracle = if line.wrong.is_empty() { "clean".to_owned() } else { plain(&line.wrong.join("; ")) };
    let ended = line.error.as_ref().map_or(line.outcome.clone(), |error| format!("{}: {}", line.outcome, plain(error)));
    format!("{head} {ended} | {} | {oracle} | {} |\n", line.fences.join(", "), plain(&line.proof))
}

fn deaths(all: &[Deaths]) -> String {
    let mut text = String::new();
    for deaths in all {
        let _ = write!(
            text,
            "\n## {}: the leader killed {} times in a row\n\nA raw client publishes 50 messages a second to a log with the same leader, as many requests go \
             through edge-a. Outage: the longest time without an answer. On NATS each stream elects a leader of its own after a random time, so a second raw client publishes to \
             the service's own log what its leader must refuse, and is what Segue is compared with. {} requests, {} replies; {}.\n\n| kill | raw client of another log, ms | raw client of the same log, ms | Segue, ms | \
             more, ms (at most {ALLOWED_MS}) |\n|---:|---:|---:|---:|---:|\n",
            deaths.broker,
            deaths.kills.len(),
            deaths.messages,
            deaths.replies,
            if deaths.wrong.is_empty() { "oracle clean".to_owned() } else { plain(&deaths.wrong.join("; ")) },
        );
        for (at, kill) in (1..).zip(&deaths.kills) {
            let same = kill.same_log_ms.map_or("–".to_owned(), |ms| ms.to_string());
            let _ = writeln!(text, "| {at} | {} | {same} | {} | {} |", kill.raw_ms, kill.segue_ms, kill.more_ms());
        }
    }
    text
}

fn demos(all: &[Demo]) -> String {
    if all.is_empty() {
        return String::new();
    }
    let mut text = "\n## The single server killed and restarted in mid-demo\n\n".to_owned();
    text += "| broker | flights sent | acknowledged | lost, doubled, reordered | longest stall, ms | all holds |\n|---|---:|---:|---:|---:|---|\n";
    let by_broker: BTreeMap<&str, &Demo> = all.iter().map(|demo| (demo.broker.as_str(), demo)).collect();
    for demo in by_broker.values() {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} |",
            demo.broker,
            demo.sent,
            demo.acknowledged,
            demo.broken,
            demo.longest_stall_ms,
            demo.is_good()
        );
    }
    text
}
