//! The simulation: a hundred seeds in each run of the tests, and every planted bug with a seed that finds it; `tests/soak` plays as
//! many as one likes.

use std::collections::BTreeSet;

use broker_adapter::fold::{Bug, Rules};
use segue_tests::sim::{Options, Report, run};
use segue_tests::soak::play;

/// How many seeds are played here.
const SEEDS: u64 = 100;

/// The seed by which `tests/soak --hunt` found each planted bug.
const FOUND: [(Bug, u64); 16] = [
    (Bug::FenceOfAnyEpoch, 1),
    (Bug::RecomputedEpoch, 28),
    (Bug::EndWithoutFence, 1),
    (Bug::CheckpointWithoutSessions, 1),
    (Bug::CheckpointWithoutReplies, 19),
    (Bug::StandbyReplies, 1),
    (Bug::ResumeWithoutFence, 1),
    (Bug::TrimPastPin, 1),
    (Bug::VisibleBeforeDurable, 18),
    (Bug::RedeliverToSameInstance, 13),
    (Bug::RetireWithoutFence, 1),
    (Bug::SequenceGap, 1),
    (Bug::GiveUpWithoutClose, 220),
    (Bug::DigestElsewhere, 6),
    (Bug::BodyFreedInFlight, 1),
    (Bug::BodyKeptForEver, 1),
];

#[test]
fn every_seed_is_clean() {
    let mut reports = Vec::new();
    play(1..=SEEDS, Options::default(), |report| {
        let goes_on = report.is_clean();
        reports.push(report);
        goes_on
    });
    let wrong: Vec<String> = reports.iter().filter(|report| !report.is_clean()).map(Report::summary).collect();
    assert!(wrong.is_empty(), "look at each with `tests/soak --first SEED --seeds 1 --trace`:\n{}", wrong.join("\n"));
    assert_eq!(reports.len() as u64, SEEDS);
    let asked = Options::default();
    for report in &reports {
        let disturbed: u64 = report.fired.iter().filter(|(name, _)| !name.contains(':')).map(|(_, times)| times).sum();
        assert!(report.messages >= asked.messages.max(300), "too few messages: {}", report.summary());
        assert!(report.migrations.len() >= asked.moves, "too few migrations: {}", report.summary());
        assert!(disturbed >= asked.faults as u64, "too few faults fired: {}", report.summary());
    }
    for played in ["body:applied", "body:not-applied", "body:of-no-record", "body:removed"] {
        assert!(reports.iter().any(|report| report.fired.contains_key(played)), "no seed played {played}");
    }
}

/// Seeds that were wrong once, with what they found. A seed plays something else as soon as the code draws otherwise; what can be
/// stated by itself has a test of its own.
const MENDED: [(u64, &str); 5] = [
    (182, "a standby came back by a checkpoint from behind the fence that retired it, and stayed"),
    (290, "a sidecar ended because its claim of the shard was overtaken by a trim"),
    (371, "an ingress that a trim overtook sent a message with a forgotten client's key again: it was applied twice"),
    (555, "the same on another node"),
    (
        9498,
        "a source that died in the middle of a turn was paused in its replay, before what it had given out in that turn",
    ),
];

#[test]
fn seeds_that_were_wrong_once_are_clean() {
    for (seed, found) in MENDED {
        let report = run(seed, Options::default());
        assert!(report.is_clean(), "{found}: {}", report.summary());
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
fn every_planted_bug_is_noticed_by_the_seed_that_found_it() {
    let table: BTreeSet<Bug> = FOUND.iter().map(|(bug, _)| *bug).collect();
    assert_eq!(table, Bug::ALL.iter().map(|(bug, _)| *bug).collect(), "a bug has no seed in the table");
    for (bug, seed) in FOUND {
        let report = run(seed, Options { rules: Rules::planting(bug), ..Options::default() });
        assert!(!report.is_clean(), "{bug:?} was not noticed: `tests/soak --hunt` finds another seed");
    }
}
