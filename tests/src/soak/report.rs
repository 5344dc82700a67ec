//! What a soak came to, for people: on the terminal and in `tests/reports/soak.md`.

use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

use broker_adapter::fold::Bug;

use super::{HUNT_SEEDS, Line};
use crate::sim::Report;

/// The sum of many runs.
#[derive(Clone, Debug, Default)]
pub struct Total {
    seeds: u64,
    messages: usize,
    acknowledged: usize,
    migrations: BTreeMap<String, u64>,
    fired: BTreeMap<String, u64>,
    /// The seeds that were wrong, with what was.
    pub wrong: BTreeMap<u64, Vec<String>>,
}

impl Total {
    /// One more run.
    pub fn add(&mut self, line: &Line) {
        self.seeds += 1;
        self.messages += line.messages;
        self.acknowledged += line.acknowledged;
        for outcome in &line.migrations {
            *self.migrations.entry(outcome.clone()).or_default() += 1;
        }
        for (fault, times) in &line.fired {
            *self.fired.entry(fault.clone()).or_default() += times;
        }
        if !line.wrong.is_empty() {
            self.wrong.insert(line.seed, line.wrong.clone());
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} seeds, {} messages, {} acknowledged", self.seeds, self.messages, self.acknowledged)?;
        writeln!(f, "migrations: {:?}\nfaults: {:?}", self.migrations, self.fired)?;
        write!(f, "wrong seeds: {:?}", self.wrong.keys().collect::<Vec<_>>())
    }
}

/// The report, with the command that made it. What was found, by bug: nothing for one that nobody found.
#[must_use]
pub fn markdown(command: &str, total: &Total, found: &[(Bug, &'static str, Option<Report>)], seconds: u64) -> String {
    let mut text = format!(
        "# Soak\n\nMade by `{command}` (this run of it: {seconds} s; what its record had was played before). Do not edit by hand.\n\n## Clean seeds\n\n"
    );
    text += "| what | how many |\n|---|---:|\n";
    let count = |text: &mut String, what: &str, number: u64| {
        // Writing to a text does not fail.
        let _ = writeln!(text, "| {what} | {number} |");
    };
    count(&mut text, "seeds", total.seeds);
    count(&mut text, "seeds that were wrong", total.wrong.len() as u64);
    count(&mut text, "messages", total.messages as u64);
    count(&mut text, "messages acknowledged", total.acknowledged as u64);
    for (outcome, times) in &total.migrations {
        count(&mut text, &format!("migrations, {outcome}"), *times);
    }
    for (fault, times) in &total.fired {
        let what = match fault.split_once(':') {
            Some(("void-fence", cause)) => format!("void fences: {cause}"),
            Some((by, name)) => format!("fault of the {by}: {name}"),
            None => format!("fault of the disturber: {fault}"),
        };
        count(&mut text, &what, *times);
    }
    text += "\n## Planted bugs\n\n| bug | seeds needed | first noticed as |\n|---|---:|---|\n";
    for (_, name, report) in found {
        let (needed, noticed) = match report {
            None => (format!("more than {HUNT_SEEDS}"), "nothing".to_owned()),
            Some(report) => (report.seed.to_string(), first_wrong(report)),
        };
        let _ = writeln!(text, "| {name} | {needed} | {noticed} |");
    }
    text
}

fn first_wrong(report: &Report) -> String {
    let line = Line::from(report);
    line.wrong.first().map_or(String::new(), |wrong| wrong.replace('|', "/").chars().take(160).collect())
}
