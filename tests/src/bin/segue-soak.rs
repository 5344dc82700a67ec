//! `tests/soak` runs this: seed after seed of the simulation, a line for each that is wrong, a table at the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use broker_adapter::fold::{Bug, Rules};
use segue_tests::sim::{Options, Report};
use segue_tests::soak::{self, Line, Record, Total};

/// What was asked for.
#[derive(Default)]
struct Wanted {
    first: u64,
    seeds: u64,
    options: Options,
    show_trace: bool,
    hunts: bool,
    record: Option<PathBuf>,
    report: Option<PathBuf>,
}

const KNOWN: &str = "--seeds N, --first S, --trace, --planted BUG, --hunt, --record FILE, --report FILE";

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { first: 1, seeds: 100, ..Wanted::default() };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} takes a value"));
        match word.as_str() {
            "--seeds" => wanted.seeds = number(&word, &value()?)?,
            "--first" => wanted.first = number(&word, &value()?)?,
            "--planted" => wanted.options.rules = Rules::planting(bug(&value()?)?),
            "--trace" => wanted.show_trace = true,
            "--hunt" => wanted.hunts = true,
            "--record" => wanted.record = Some(value()?.into()),
            "--report" => wanted.report = Some(value()?.into()),
            _ => return Err(format!("{word:?} is not known; use {KNOWN}")),
        }
    }
    Ok(wanted)
}

fn number(word: &str, text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| format!("{word} takes a number, not {text:?}"))
}

fn bug(name: &str) -> Result<Bug, String> {
    let known = || Bug::ALL.map(|(_, name)| name).join(", ");
    Bug::named(name).ok_or_else(|| format!("{name:?} is no bug that can be planted; use one of {}", known()))
}

/// Plays the seeds that the record does not have yet.
fn clean(wanted: &Wanted) -> std::io::Result<Total> {
    let mut record = wanted.record.as_deref().map(Record::open).transpose()?;
    let played = record.as_ref().map_or_else(BTreeSet::new, Record::seeds);
    let mut total = Total::default();
    let asked = wanted.first..wanted.first + wanted.seeds;
    for line in record.iter().flat_map(Record::lines).filter(|line| asked.contains(&line.seed)) {
        total.add(line);
    }
    let mut failed = None;
    soak::play(asked.filter(|seed| !played.contains(seed)), wanted.options, |report| {
        if wanted.show_trace {
            println!("{}", report.trace);
        }
        if !report.is_clean() {
            println!("{}", report.summary());
        }
        let line = Line::from(&report);
        total.add(&line);
        failed = record.as_mut().and_then(|record| record.add(line).err());
        failed.is_none()
    });
    failed.map_or(Ok(total), Err)
}

/// Looks for every planted bug.
fn hunt(first: u64) -> Vec<(Bug, &'static str, Option<Report>)> {
    let hunted = Bug::ALL.into_iter().map(|(bug, name)| {
        let found = soak::hunt(bug, first);
        match &found {
            Some(report) => println!("{name}: found by seed {}\n{}", report.seed, report.summary()),
            None => println!("{name}: NOT FOUND within {} seeds", soak::HUNT_SEEDS),
        }
        (bug, name, found)
    });
    hunted.collect()
}

/// For people, on this machine's clock: nothing in a run sees it.
#[allow(clippy::disallowed_methods)]
fn now() -> std::time::Instant {
    std::time::Instant::now()
}

fn soak(wanted: &Wanted) -> std::io::Result<bool> {
    let began = now();
    let total = if wanted.hunts && wanted.report.is_none() { Total::default() } else { clean(wanted)? };
    println!("{total}");
    let found = if wanted.hunts { hunt(wanted.first) } else { Vec::new() };
    if let Some(path) = &wanted.report {
        let words: Vec<String> = std::env::args().skip(1).collect();
        let command = format!("tests/soak {}", words.join(" "));
        std::fs::write(path, soak::markdown(&command, &total, &found, began.elapsed().as_secs()))?;
    }
    let missed = found.iter().any(|(_, _, report)| report.is_none());
    Ok(total.wrong.is_empty() && !missed)
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    match wanted().map(|wanted| soak(&wanted)) {
        Ok(Ok(true)) => ExitCode::SUCCESS,
        Ok(Ok(false)) => ExitCode::FAILURE,
        Ok(Err(error)) => {
            eprintln!("segue-soak: {error}");
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("segue-soak: {error}");
            ExitCode::from(2)
        }
    }
}
