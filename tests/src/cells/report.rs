//! The table for people, in `tests/reports/processes.md`.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Cell, Line, Moment, Record};

const ABOUT: &str = "\
`held`: the phase was journalled, and its commands were sent only once the victim was down, so all of its work meets the fault. \
`working`: the service takes 700 ms to start, to load and to save, and the fault came 150 ms into that work. A stopped process stands \
still for 1,200 ms; a killed sidecar, migrator or broker is started again after 200 ms. `short-pause`: the source may be \
paused for 500 ms only, so it takes itself back while the fault lasts. A state as small as this one is transferred before the \
target's service listens, so nobody is there to be killed before `restore`.

The proof of each cell: what `GET /v1/migrations/{id}` told right before and right after the fault (a dead or stopped migrator \
tells nothing; a phase that the fault itself ended is left already), the wall time at which it struck beside the wall time for which the journal says that the phase lasted (both since \
the acceptance; the fault must lie inside), and the victim's pids as the kernel shows them: gone, or in state T. The oracle is \
clean if nothing was lost, doubled, reordered or wrongly answered, no request hung, all replicas agree with the log, and no \
epoch had two owners; both ingresses served again before it was asked.";

/// The report, with the command that made it.
#[must_use]
pub fn markdown(command: &str, cells: &[Cell], record: &Record) -> String {
    let lines: Vec<(&Cell, Option<&Line>)> = cells.iter().map(|cell| (cell, record.of(cell))).collect();
    let mut text = format!("# Faults of real processes\n\nMade by `{command}`. Do not edit by hand.\n\n{ABOUT}\n\n");
    text += "| what | how many |\n|---|---:|\n";
    let played: Vec<&Line> = lines.iter().filter_map(|(_, line)| *line).collect();
    let mut count = |what: &str, number: usize| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "| {what} | {number} |");
    };
    count("cells", lines.len());
    count("played", played.len());
    count("clean, with proof", played.iter().filter(|line| line.is_clean()).count());
    let mut outcomes = BTreeMap::<&str, usize>::new();
    played.iter().for_each(|line| *outcomes.entry(&line.outcome).or_default() += 1);
    for (outcome, number) in outcomes {
        count(&format!("ended as {outcome}"), number);
    }
    let seconds = played.iter().map(|line| line.ms).sum::<u64>() / 1_000;
    count("seconds in all, starts not counted", usize::try_from(seconds).unwrap_or(usize::MAX));
    let mut strategy = "";
    for (cell, line) in lines {
        if cell.strategy != strategy {
            strategy = cell.strategy;
            let _ = write!(
                text,
                "\n## {strategy}\n\n| phase | fault | moment | ended as | counted fences | oracle | proof |\n"
            );
            text += "|---|---|---|---|---|---|---|\n";
        }
        text += &row(cell, line);
    }
    text
}

/// One line of the table.
pub fn row(cell: &Cell, line: Option<&Line>) -> String {
    let moment = if cell.moment == Moment::Held { "held" } else { "working" };
    let moment = if cell.short_pause { format!("{moment}/short-pause") } else { moment.to_owned() };
    let head = format!("| {} | {} | {moment} |", cell.phase, cell.fault.name());
    let Some(line) = line else { return format!("{head} not played | | | |\n") };
    let oracle = if line.wrong.is_empty() { "clean".to_owned() } else { plain(&line.wrong.join("; ")) };
    let proof = if line.proven { plain(&line.proof) } else { format!("NONE: {}", plain(&line.proof)) };
    format!("{head} {} | {} | {oracle} | {proof} |\n", line.outcome, line.fences.join(", "))
}

/// In one cell of a table.
pub fn plain(text: &str) -> String {
    text.replace('|', "/").replace('\n', " ").chars().take(400).collect()
}
