//! `tests/soak` runs this: seed after seed of the simulation, or with `--processes` cell after cell of the faults of real
//! processes; a line for each that is wrong, a table at the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use broker_adapter::fold::{Bug, Rules};
use segue_tests::cells;
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
    processes: bool,
    cell: Option<String>,
    at_a_time: usize,
    for_s: Option<u64>,
    logs: Option<PathBuf>,
}

const KNOWN: &str = "--seeds N, --first S, --trace, --planted BUG, --hunt, --record FILE, --report FILE; \
    --processes with --cell PART_OF_NAME, --at-a-time N, --for-s N, --logs FOLDER, --record FILE, --report FILE";

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { first: 1, seeds: 100, at_a_time: 4, ..Wanted::default() };
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
            "--processes" => wanted.processes = true,
            "--cell" => wanted.cell = Some(value()?),
            "--at-a-time" => wanted.at_a_time = usize::try_from(number(&word, &value()?)?).unwrap_or(usize::MAX),
            "--for-s" => wanted.for_s = Some(number(&word, &value()?)?),
            "--logs" => wanted.logs = Some(value()?.into()),
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

/// Plays the cells of the table that the record does not have as clean; whether all that were asked for are.
fn processes(wanted: &Wanted) -> std::io::Result<bool> {
    let began = now();
    let mut record = cells::Record::open(wanted.record.as_deref())?;
    let part = wanted.cell.as_deref().unwrap_or_default();
    let asked = cells::table().into_iter().filter(|cell| cell.to_string().contains(part)).collect();
    let asked = cells::Asked { cells: asked, at_a_time: wanted.at_a_time, logs: wanted.logs.clone() };
    cells::soak(&asked, &mut record, |line| {
        let word = if line.is_clean() { "clean" } else { "WRONG" };
        println!(
            "{word} {} {} after {} ms [{}]: {}",
            line.cell,
            line.outcome,
            line.ms,
            line.fences.join(", "),
            line.proof
        );
        line.wrong.iter().for_each(|wrong| println!("    {wrong}"));
        wanted.for_s.is_none_or(|for_s| began.elapsed().as_secs() < for_s)
    })?;
    let clean = asked.cells.iter().filter(|cell| record.of(cell).is_some_and(cells::Line::is_clean)).count();
    println!("{clean} of {} cells are clean, after {} s", asked.cells.len(), began.elapsed().as_secs());
    if let Some(path) = &wanted.report {
        let command = "tests/soak --processes --record FILE --report tests/reports/processes.md";
        std::fs::write(path, cells::markdown(command, &asked.cells, &record))?;
    }
    Ok(clean == asked.cells.len())
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let play = |wanted: Wanted| if wanted.processes { processes(&wanted) } else { soak(&wanted) };
    match wanted().map(play) {
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
