//! `tests/soak` runs this: seed after seed of the simulation, or with `--processes` cell after cell of the faults of real
//! processes, or with `--brokers` those of brokers; a line for each that is wrong, a table at the end.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::process::ExitCode;

use broker_adapter::fold::{Bug, Rules};
use segue_tests::harness::BrokerKind;
use segue_tests::sim::{Options, Report};
use segue_tests::soak::{self, Line, Record, Total};
use segue_tests::{brokers, cells};

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
    brokers: bool,
    cell: Option<String>,
    at_a_time: usize,
    for_s: Option<u64>,
    logs: Option<PathBuf>,
}

const KNOWN: &str = "--seeds N, --first S, --trace, --planted BUG, --hunt, --record FILE, --report FILE; \
    --processes or --brokers with --cell PART_OF_NAME, --at-a-time N, --for-s N, --logs FOLDER, --record FILE, --report FILE";

/// How many leaders die in a row in a cluster of three.
const LEADERS: usize = 10;

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
            "--brokers" => wanted.brokers = true,
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

/// Plays the cells that were asked for and that the record does not have as clean; whether all are.
fn cells<C: cells::Playable>(
    wanted: &Wanted,
    table: Vec<C>,
    at_a_time: usize,
    record: &mut cells::Record,
) -> std::io::Result<bool> {
    let began = now();
    let part = wanted.cell.as_deref().unwrap_or_default();
    let asked = table.into_iter().filter(|cell| cell.to_string().contains(part)).collect();
    let asked = cells::Asked { cells: asked, at_a_time, logs: wanted.logs.clone() };
    cells::soak(&asked, record, |line| {
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
    let clean = asked.cells.iter().filter(|cell| record.of(*cell).is_some_and(cells::Line::is_clean)).count();
    println!("{clean} of {} cells are clean, after {} s", asked.cells.len(), began.elapsed().as_secs());
    Ok(clean == asked.cells.len())
}

/// The faults of processes, on the embedded broker.
fn processes(wanted: &Wanted) -> std::io::Result<bool> {
    let mut record = cells::Record::open(wanted.record.as_deref())?;
    let clean = cells(wanted, cells::table(), wanted.at_a_time, &mut record)?;
    if let Some(path) = &wanted.report {
        let command = "tests/soak --processes --record FILE --report tests/reports/processes.md";
        std::fs::write(path, cells::markdown(command, &cells::table(), &record))?;
    }
    Ok(clean)
}

/// The faults of brokers, and the sample of those of processes on NATS and Kafka.
fn on_brokers(wanted: &Wanted) -> std::io::Result<bool> {
    let mut record = cells::Record::open(wanted.record.as_deref())?;
    let of_processes = [BrokerKind::Nats, BrokerKind::Kafka].map(cells::sample_on).concat();
    let (of_one, of_three): (Vec<_>, Vec<_>) =
        brokers::table().into_iter().partition(|cell| cell.broker.servers() == 1);
    let mut clean = cells(wanted, of_one, wanted.at_a_time, &mut record)?;
    // Three servers each.
    clean &= cells(wanted, of_three, wanted.at_a_time.div_ceil(3), &mut record)?;
    clean &= cells(wanted, of_processes, wanted.at_a_time, &mut record)?;
    let mut figures = brokers::Figures::beside(wanted.record.as_deref());
    clean &= measure(wanted, &mut figures);
    figures.keep(wanted.record.as_deref())?;
    if let Some(path) = &wanted.report {
        let command = "tests/soak --brokers --record FILE --report tests/reports/brokers.md";
        std::fs::write(path, brokers::markdown(command, &record, &figures))?;
    }
    Ok(clean)
}

/// Ten leaders killed in a row, and the single server in mid-demo; what was good before is not measured again.
fn measure(wanted: &Wanted, figures: &mut brokers::Figures) -> bool {
    let part = wanted.cell.as_deref().unwrap_or_default();
    let mut good = true;
    for kind in [BrokerKind::NatsCluster, BrokerKind::KafkaCluster] {
        let before = figures.deaths.iter().any(|deaths| deaths.broker == kind.to_string() && deaths.is_good());
        if before || !format!("{kind}/deaths").contains(part) {
            continue;
        }
        let deaths = brokers::die(kind, LEADERS, wanted.logs.as_deref());
        println!("{} {kind}/deaths: {deaths:?}", if deaths.is_good() { "good" } else { "WRONG" });
        good &= deaths.is_good();
        figures.deaths.retain(|other| other.broker != deaths.broker);
        figures.deaths.push(deaths);
    }
    for kind in [BrokerKind::Nats, BrokerKind::Kafka] {
        let before = figures.demos.iter().any(|demo| demo.broker == kind.to_string() && demo.is_good());
        if before || !format!("{kind}/demo").contains(part) {
            continue;
        }
        let demo = brokers::kill_in_mid_demo(kind, &[], wanted.logs.as_deref());
        println!("{} {kind}/demo: {demo:?}", if demo.is_good() { "good" } else { "WRONG" });
        good &= demo.is_good();
        figures.demos.retain(|other| other.broker != demo.broker);
        figures.demos.push(demo);
    }
    good
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let play = |wanted: Wanted| match (wanted.processes, wanted.brokers) {
        (true, _) => processes(&wanted),
        (_, true) => on_brokers(&wanted),
        _ => soak(&wanted),
    };
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
