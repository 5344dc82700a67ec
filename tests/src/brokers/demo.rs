//! The single server killed and started again in the middle of `segue demo`: every flight is acknowledged, and every client waited.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use broker_adapter::shell::real;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::{Broker, BrokerKind, Process, Wants, binary, wait_for};

/// How many flights the demo has told of when its server dies.
const FLIGHTS_BEFORE: u64 = 5_000;
const AWAY: Duration = Duration::from_millis(300);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// `nats` or `kafka`.
    pub broker: String,
    /// Flights sent.
    pub sent: u64,
    /// Flights acknowledged.
    pub acknowledged: u64,
    /// Lost, doubled, reordered.
    pub broken: u64,
    /// The longest time in which a request was due or waiting and none completed.
    pub longest_stall_ms: u64,
    /// Whether the demo said that all holds.
    pub good: bool,
}

/// Runs the demo with `more` arguments and kills its server once; `logs` gets what it wrote if something was wrong.
#[must_use]
pub fn kill_in_mid_demo(kind: BrokerKind, more: &[&str], logs: Option<&Path>) -> Demo {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("the operating system gives two threads");
    runtime.block_on(run(kind, more, logs))
}

async fn run(kind: BrokerKind, more: &[&str], logs: Option<&Path>) -> Demo {
    let (shell, _tasks) = real::process();
    let folder = TempDir::with_prefix("segue-test-").expect("the temporary folder can be written");
    let wants = Wants { own: true, ..Wants::default() };
    let mut broker = Broker::start(&shell, folder.path(), kind, wants, BTreeMap::new()).await;
    let json = folder.path().join("demo.json");
    let words = ["demo", "--broker", &broker.url(), "--json", &json.display().to_string()];
    let words = words.iter().chain(more).map(|word| (*word).to_owned()).collect();
    let mut demo = Process::start(folder.path(), "demo", binary("segue"), words, BTreeMap::new());
    wait_for(&shell, "the demo to be in its middle", || async {
        (flights(&demo.log()) >= FLIGHTS_BEFORE).then_some(())
    })
    .await;
    broker.kill();
    shell.sleep(AWAY).await;
    broker.restart();
    while demo.is_running() {
        shell.sleep(AWAY).await;
    }
    let told = std::fs::read(&json).ok().and_then(|text| serde_json::from_slice::<Value>(&text).ok());
    let told = told.unwrap_or_default();
    let number = |key: &str| told[key].as_u64().unwrap_or(0);
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let stall = told["longest_stall_ms"].as_f64().unwrap_or(0.0).max(0.0) as u64;
    let result = Demo {
        broker: kind.to_string(),
        sent: number("sent"),
        acknowledged: number("acknowledged"),
        broken: number("lost") + number("doubled") + number("reordered"),
        longest_stall_ms: stall,
        good: told["board_equal"] == true && number("sent") > FLIGHTS_BEFORE,
    };
    if let (Some(logs), false) = (logs, result.is_good()) {
        let file = logs.join(format!("{kind}-demo.log"));
        std::fs::write(file, format!("{result:#?}\n{}", demo.log())).expect("the folder of logs can be written");
    }
    result
}

/// How many flights the demo told of last.
fn flights(log: &str) -> u64 {
    let mut told = log.lines().filter_map(|line| line.split_once(" of ")?.0.trim().parse().ok());
    told.next_back().unwrap_or(0)
}

impl Demo {
    /// Every flight was acknowledged, and all holds.
    #[must_use]
    pub fn is_good(&self) -> bool {
        self.good && self.broken == 0 && self.acknowledged == self.sent
    }
}
