//! The simulation: a handful of seeds in each run of the tests; `tests/soak` plays as many as one likes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc;

use broker_adapter::fold::{Bug, Rules};
use segue_tests::sim::{Options, Report, run};

/// How many seeds are played here.
const SEEDS: u64 = 50;
/// Within how many seeds a rule that is switched off must be missed.
const SEEDS_WITHOUT_A_RULE: u64 = 1_000;

/// Plays seeds from 1 on, on all cores, until one is not as `expected` or all were played; the reports so far.
fn play(seeds: u64, options: Options, expected: fn(&Report) -> bool) -> Vec<Report> {
    let next = AtomicU64::new(1);
    let (reports, played) = mpsc::channel();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (next, reports) = (&next, reports.clone());
            scope.spawn(move || {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed > seeds {
                        return;
                    }
                    let report = run(seed, options);
                    if !expected(&report) {
                        next.store(seeds + 1, Ordering::Relaxed);
                    }
                    reports.send(report).expect("the receiver outlives this scope");
                }
            });
        }
    });
    drop(reports);
    played.into_iter().collect()
}

#[test]
fn every_seed_is_clean() {
    let reports = play(SEEDS, Options::default(), Report::is_clean);
    let wrong: Vec<String> = reports.iter().filter(|report| !report.is_clean()).map(Report::summary).collect();
    assert!(wrong.is_empty(), "look at each with `tests/soak --first SEED --seeds 1 --trace`:\n{}", wrong.join("\n"));
    assert_eq!(reports.len() as u64, SEEDS);
    let asked = Options::default();
    for report in &reports {
        let disturbed: u64 =
            report.fired.iter().filter(|(name, _)| !name.starts_with("broker:")).map(|(_, times)| times).sum();
        assert!(report.messages >= asked.messages.max(300), "too few messages: {}", report.summary());
        assert!(report.migrations.len() >= asked.moves, "too few migrations: {}", report.summary());
        assert!(disturbed >= asked.faults as u64, "too few faults fired: {}", report.summary());
    }
}

#[test]
fn the_same_seed_gives_the_same_trace_byte_for_byte() {
    for seed in [1, 2, 3] {
        let (first, second) = (run(seed, Options::default()), run(seed, Options::default()));
        let difference = first.trace.lines().zip(second.trace.lines()).find(|(first, second)| first != second);
        assert_eq!(difference, None, "seed {seed}");
        assert!(first.trace == second.trace, "seed {seed}: one trace is the beginning of the other");
    }
}

#[test]
fn without_the_session_rule_the_oracle_finds_something_wrong() {
    let options = Options { rules: Rules::planting(Bug::SequenceGap), ..Options::default() };
    is_missed(options);
}

#[test]
fn without_the_fence_rule_the_oracle_finds_something_wrong() {
    let options = Options { rules: Rules::planting(Bug::FenceOfAnyEpoch), ..Options::default() };
    is_missed(options);
}

fn is_missed(options: Options) {
    let reports = play(SEEDS_WITHOUT_A_RULE, options, |report| report.findings.is_empty());
    let found = reports.iter().any(|report| !report.findings.is_empty());
    assert!(found, "{} seeds were played with {options:?}, and nobody noticed", reports.len());
}
