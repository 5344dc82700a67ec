//! Many seeds of the simulation on all cores: clean ones, and the hunt for planted bugs.
//!
//! [`play`] hands out seeds, [`record`] keeps a line for each so that a soak that was stopped goes on, [`report`] sums them up.

mod record;
mod report;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, mpsc};

use broker_adapter::fold::{Bug, Rules};

use crate::sim::{Options, Report, run};

pub use record::{Line, Record};
pub use report::{Total, markdown};

/// Within how many seeds a planted bug must be found.
pub const HUNT_SEEDS: u64 = 1_000;

/// Plays these seeds on all cores, and hands each report to `goes_on` as it comes; no new seed begins once that says no.
pub fn play(seeds: impl Iterator<Item = u64> + Send, options: Options, mut goes_on: impl FnMut(Report) -> bool) {
    let seeds = Mutex::new(seeds);
    let stopped = AtomicBool::new(false);
    let (reports, played) = mpsc::channel();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..cores {
            let (seeds, stopped, reports) = (&seeds, &stopped, reports.clone());
            scope.spawn(move || {
                while !stopped.load(Ordering::Relaxed) {
                    let next = seeds.lock().expect("taking a number does not panic").next();
                    let Some(seed) = next else { return };
                    if reports.send(one(seed, options)).is_err() {
                        return;
                    }
                }
            });
        }
        drop(reports);
        for report in played {
            if !goes_on(report) {
                stopped.store(true, Ordering::Relaxed);
            }
        }
    });
}

/// A run that panics is a wrong one, with its seed.
fn one(seed: u64, options: Options) -> Report {
    catch_unwind(AssertUnwindSafe(|| run(seed, options))).unwrap_or_else(|_| Report {
        seed,
        findings: Vec::new(),
        broken: vec!["the run panicked".to_owned()],
        messages: 0,
        acknowledged: 0,
        migrations: Vec::new(),
        fired: BTreeMap::new(),
        trace: String::new(),
    })
}

/// The first seed from `first` on in which this bug is noticed, and what was noticed.
#[must_use]
pub fn hunt(bug: Bug, first: u64) -> Option<Report> {
    let options = Options { rules: Rules::planting(bug), ..Options::default() };
    let mut found: Option<Report> = None;
    play(first..first + HUNT_SEEDS, options, |report| {
        if !report.is_clean() && found.as_ref().is_none_or(|before| report.seed < before.seed) {
            found = Some(report);
        }
        found.is_none()
    });
    found
}
