//! The whole system in one process under paused time, from one seed: two to five sidecars with their services, a migrator,
//! clients, on the memory adapter, with faults at any moment.
//!
//! ```text
//!   seed ──▶ world (sockets, clock, randomness) ─┬─ broker (memory, its own faults)
//!                                                ├─ edge-a: sidecar + ledger     ◀── clients
//!                                                ├─ edge-b … e: the same         ◀── clients, the same ones
//!                                                └─ migrator                     ◀── moves, cancels
//!            disturber: crashes, hangs, cuts, freezes, zombies ─▶ any of them
//! ```
//! A run ends when the clients have sent everything, the moves have ended, the faults are over and all is quiet; then the
//! [oracle](crate::checker) judges. The same seed gives the same trace, byte for byte.

mod aftermath;
mod bodies;
mod clients;
mod disturber;
mod mix;
mod moves;
mod panics;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::ids::Hash;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::checker::{Evidence, Finding, Outcome, ServiceState, check};
use crate::ledger::Chain;
use clients::Noted;
use mix::Mix;
use moves::Moved;
use stage::Stage;

/// How large a run is at least.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Messages sent by all clients together.
    pub messages: usize,
    /// Migrations that are ordered and have ended.
    pub moves: usize,
    /// Faults of the disturber that fired; the broker's own come on top.
    pub faults: usize,
    /// Rules that the replicas ignore: the oracle must find it.
    pub rules: Rules,
}

impl Default for Options {
    fn default() -> Self {
        Options { messages: 320, moves: 2, faults: 3, rules: Rules::default() }
    }
}

/// What became of a run.
#[derive(Clone, Debug)]
pub struct Report {
    /// Which.
    pub seed: u64,
    /// What the oracle found: nothing, if all is well.
    pub findings: Vec<Finding>,
    /// What did not come to an end in time, and other promises that no oracle judges.
    pub broken: Vec<String>,
    /// Requests sent.
    pub messages: usize,
    /// Requests with a reply.
    pub acknowledged: usize,
    /// How each migration ended.
    pub migrations: Vec<String>,
    /// Faults that fired: the disturber's, those of the broker (`broker:NAME`), and races that a fence lost (`void-fence:CAUSE`).
    pub fired: BTreeMap<String, u64>,
    /// Everything that was seen, in order.
    pub trace: String,
}

impl Report {
    /// Whether the run was right.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.broken.is_empty()
    }

    /// The run in a few lines.
    #[must_use]
    pub fn summary(&self) -> String {
        format!(
            "seed {}: {} messages, {} acknowledged, migrations {:?}, faults {:?}\n  findings: {:?}\n  broken: {:?}",
            self.seed, self.messages, self.acknowledged, self.migrations, self.fired, self.findings, self.broken
        )
    }
}

/// Runs one seed.
///
/// # Panics
/// If there is no runtime: a bug of ours.
#[must_use]
pub fn run(seed: u64, options: Options) -> Report {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .expect("a runtime without sockets needs nothing");
    panics::forget();
    let mut report = runtime.block_on(play(seed, options));
    report.broken.extend(panics::seen().into_iter().map(|panic| format!("a task panicked: {panic}")));
    report
}

/// How long it takes at most until the service is there, on the paused clock.
const READY_LIMIT: Duration = Duration::from_secs(60);
/// How long the clients and the migrations go on under the broker's faults once the disturber has ended.
const ROUGH_LIMIT: Duration = Duration::from_secs(15);
/// Liveness: behind the end of all faults, every request is answered and every migration ends within this time. It is far below
/// what hangs, and above the longest chain of time-outs (a reply's 20 s, then a migration of three attempts).
const CALM_LIMIT: Duration = Duration::from_secs(90);
/// A stall of the last moment is over after this.
const STALLS_END: Duration = Duration::from_secs(2);
/// A request that is sent behind the end of all faults is answered within this time.
const ANSWER_LIMIT: Duration = Duration::from_secs(10);

async fn play(seed: u64, options: Options) -> Report {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5e90e);
    let mix = Mix::of(&mut rng);
    let stage = Stage::build(seed, options.rules, mix.clone()).await;
    let mut broken = Vec::new();
    if tokio::time::timeout(READY_LIMIT, stage.wait_ready()).await.is_err() {
        broken.push("the service was not ready in time".to_owned());
    }
    stage.broker.set_faults(mix.broker);
    let mut clients = clients::start(&stage, options.messages, &mix, &mut rng);
    let ordered = options.moves + rng.random_range(0..2);
    let mut moves = moves::start(&stage, ordered, &mut rng);
    let disturbed = disturber::disturb(&stage, options.faults, &mut rng).await;
    let mut both = Box::pin(futures_util::future::join(clients.all(), moves.all()));
    let ended = tokio::time::timeout(ROUGH_LIMIT, &mut both).await.is_ok();
    stage.repair_all().await;
    if !ended && tokio::time::timeout(CALM_LIMIT, &mut both).await.is_err() {
        broken.push(format!("clients or migrations did not come to an end {CALM_LIMIT:?} after the faults"));
    }
    drop(both);
    let (noted, mut moved) = (clients.noted(), moves.moved());
    broken.extend(moves.wrong());
    tokio::time::sleep(STALLS_END).await;
    let mut more = clients::some_more(&stage, "z", 10, &mut rng);
    let late = tokio::time::timeout(ANSWER_LIMIT, more.all()).await.is_err();
    let after = more.noted();
    if late || after.seen.iter().any(|seen| !matches!(seen.outcome, Outcome::Reply { .. })) {
        broken.push(format!("after the faults, requests were not answered within {ANSWER_LIMIT:?}"));
    }
    stage.quiet().await;
    let cleaned = bodies::cleaned(&stage, &mut rng).await;
    moved.extend(moves::unasked(&stage, &moved).await);
    let entries = stage.broker.dump(stage::LOG);
    broken.extend(promises(&stage, &mix, &noted, &moved));
    broken.extend(aftermath::judge(&stage, &entries, &moved, &noted.seen));
    let mut seen = noted.seen;
    seen.extend(after.seen);
    broken.extend(cleaned.left);
    seen.extend(cleaned.seen);
    let mut evidence = Evidence::from_log_and_bodies(&entries, clients::PATH, &bodies::by_hash(&seen));
    evidence.states = stage.states();
    evidence.observations = seen;
    let findings = check(&evidence, &mut Chain::default());
    let mut fired: BTreeMap<String, u64> = disturbed;
    fired.extend(stage.broker.fired().into_iter().map(|(name, times)| (format!("broker:{name}"), times)));
    fired.extend(aftermath::void_fences(&entries));
    fired.extend(bodies::played(&stage, &entries));
    let trace = trace(&entries, &evidence, &moved);
    Report {
        seed,
        findings,
        broken,
        messages: evidence.observations.len(),
        acknowledged: evidence.observations.iter().filter(|seen| matches!(seen.outcome, Outcome::Reply { .. })).count(),
        migrations: moved.iter().map(|moved| moves::kind_and_outcome(&moved.view)).collect(),
        fired,
        trace,
    }
}

/// What was promised besides what the oracle judges.
fn promises(stage: &Stage, mix: &Mix, noted: &Noted, moved: &[Moved]) -> Vec<String> {
    let mut broken = Vec::new();
    if !mix.forgetful {
        broken
            .extend(noted.gone.iter().map(|id| format!("the reply or the key of {id} was forgotten, and K is large")));
    }
    // A zombie stops when it reads that another process has its name; nothing else may end a sidecar.
    let exits =
        stage.exits().into_iter().filter(|reason| !reason.contains("another sidecar runs under this node's name"));
    broken.extend(exits.map(|reason| format!("a sidecar ended: {reason}")));
    let spoilt = moved.iter().any(|moved| moved.spoilt);
    let troubles = stage.troubles().into_iter().filter(|(_, trouble)| !spoilt || !trouble.contains("differ"));
    broken.extend(troubles.map(|(node, trouble)| format!("the replica on {node} has trouble: {trouble}")));
    broken
}

fn trace(entries: &[broker_adapter::record::Entry], evidence: &Evidence, moved: &[Moved]) -> String {
    let mut trace = String::new();
    for entry in entries {
        let content = Hash::of(&broker_adapter::record::wire::encode(&entry.record).bytes);
        // Writing to a text does not fail.
        let _ = writeln!(trace, "{} {} {} {content}", entry.position, entry.appended_ms, entry.record.kind());
    }
    for seen in &evidence.observations {
        let _ = writeln!(trace, "{seen:?}");
    }
    for ServiceState { replica, ids, hash, .. } in &evidence.states {
        let _ = writeln!(trace, "{replica} {} {hash}", ids.len());
    }
    for moved in moved {
        let _ = writeln!(trace, "{moved:?}");
    }
    trace
}
