//! `tests/soak` runs this: seed after seed of the simulation, a line for each that is wrong, a table at the end.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use broker_adapter::fold::{Bug, Rules};
use segue_tests::sim::{Options, Report, run};

/// What was asked for.
struct Wanted {
    first: u64,
    seeds: u64,
    options: Options,
    show_trace: bool,
}

fn wanted() -> Result<Wanted, String> {
    let mut wanted = Wanted { first: 1, seeds: 100, options: Options::default(), show_trace: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut number = || {
            let text = words.next().ok_or(format!("{word} takes a number"))?;
            text.parse::<u64>().map_err(|_| format!("{word} takes a number, not {text:?}"))
        };
        match word.as_str() {
            "--seeds" => wanted.seeds = number()?,
            "--first" => wanted.first = number()?,
            "--without-session-rule" => wanted.options.rules = Rules::planting(Bug::SequenceGap),
            "--without-fence-rule" => wanted.options.rules = Rules::planting(Bug::FenceOfAnyEpoch),
            "--trace" => wanted.show_trace = true,
            _ => {
                return Err(format!(
                    "{word:?} is not known; use --seeds N --first S --without-session-rule --without-fence-rule --trace"
                ));
            }
        }
    }
    Ok(wanted)
}

#[derive(Default)]
struct Total {
    runs: u64,
    wrong: Vec<u64>,
    messages: usize,
    acknowledged: usize,
    outcomes: BTreeMap<String, u64>,
    fired: BTreeMap<String, u64>,
}

impl Total {
    fn add(&mut self, report: &Report) {
        self.runs += 1;
        self.messages += report.messages;
        self.acknowledged += report.acknowledged;
        for outcome in &report.migrations {
            *self.outcomes.entry(outcome.clone()).or_default() += 1;
        }
        for (fault, times) in &report.fired {
            *self.fired.entry(fault.clone()).or_default() += times;
        }
        if !report.is_clean() {
            self.wrong.push(report.seed);
            println!("{}", report.summary());
        }
    }
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_env_filter(tracing_subscriber::EnvFilter::from_default_env())
        .init();
    let wanted = match wanted() {
        Ok(wanted) => wanted,
        Err(error) => {
            eprintln!("segue-soak: {error}");
            return ExitCode::from(2);
        }
    };
    let next = AtomicU64::new(wanted.first);
    let total = Arc::new(Mutex::new(Total::default()));
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= wanted.first + wanted.seeds {
                        return;
                    }
                    let report = run(seed, wanted.options);
                    if wanted.show_trace {
                        println!("{}", report.trace);
                    }
                    total.lock().expect("a run that panics ends the soak").add(&report);
                }
            });
        }
    });
    let total = total.lock().expect("all threads have ended");
    println!("{} seeds, {} messages, {} acknowledged", total.runs, total.messages, total.acknowledged);
    println!("migrations: {:?}\nfaults: {:?}\nwrong seeds: {:?}", total.outcomes, total.fired, total.wrong);
    if total.wrong.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
