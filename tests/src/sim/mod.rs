//! The whole system in one process under paused time, from one seed: two sidecars with their services, a migrator, clients, on
//! the memory adapter, with faults at any moment.
//!
//! ```text
//!   seed ──▶ world (sockets, clock, randomness) ─┬─ broker (memory, its own faults)
//!                                                ├─ edge-a: sidecar + ledger     ◀── clients
//!                                                ├─ edge-b: sidecar + ledger     ◀── clients
//!                                                └─ migrator                     ◀── moves, cancels
//!            disturber: crashes, hangs, cuts, stalls, restarts ─▶ any of them
//! ```
//! A run ends when the clients have sent everything, the moves have ended, the faults are over and all is quiet; then the
//! [oracle](crate::checker) judges. The same seed gives the same trace, byte for byte.

mod clients;
mod disturber;
mod stage;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::ids::Hash;
use broker_adapter::memory::Faults;
use broker_adapter::settings::DEFAULT_KEYS_REMEMBERED;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use crate::checker::{Evidence, Finding, ServiceState, check};
use crate::ledger::Chain;
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
    /// Faults that fired, the disturber's and the broker's.
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
    runtime.block_on(play(seed, options))
}

/// How long a part of a run may take, on the paused clock: far above every time-out inside.
const PART_LIMIT: Duration = Duration::from_secs(600);

async fn play(seed: u64, options: Options) -> Report {
    let mut rng = StdRng::seed_from_u64(seed ^ 0x5e90e);
    // A small K makes sessions be forgotten and given up; clients' own keys then expire as well, so that nobody uses any.
    let small = rng.random_ratio(1, 3).then(|| rng.random_range(24..64));
    let stage = Stage::build(seed, options.rules, small.unwrap_or(DEFAULT_KEYS_REMEMBERED)).await;
    let mut broken = Vec::new();
    if tokio::time::timeout(PART_LIMIT, stage.wait_ready()).await.is_err() {
        broken.push("the service was not ready in time".to_owned());
    }
    stage.broker.set_faults(rough(&mut rng));
    let clients = clients::start(&stage, options.messages, small.is_none(), &mut rng);
    let moves = stage.start_moves(options.moves, &mut rng);
    let disturbed = disturber::disturb(&stage, options.faults, &mut rng).await;
    let (clients, moves) = (clients.wait(PART_LIMIT), moves.wait(PART_LIMIT));
    let ((mut observations, late), (migrations, unended)) = futures_util::future::join(clients, moves).await;
    stage.broker.set_faults(Faults::calm());
    stage.repair_all().await;
    if late {
        broken.push("clients did not come to an end".to_owned());
    }
    if unended {
        broken.push("a migration did not come to an end".to_owned());
    }
    let (after, hung) = clients::some_more(&stage, 10, &mut rng).wait(PART_LIMIT).await;
    if hung || after.iter().any(|seen| !matches!(seen.outcome, crate::checker::Outcome::Reply { .. })) {
        broken.push("after the faults, requests were not answered".to_owned());
    }
    observations.extend(after);
    stage.quiet().await;
    let entries = stage.broker.dump(stage::LOG);
    let mut evidence = Evidence::from_log(&entries, clients::PATH);
    evidence.states = stage.states();
    evidence.observations = observations;
    let findings = check(&evidence, &mut Chain::default());
    broken.extend(stage.outcomes_that_the_log_denies(&migrations));
    let mut fired: BTreeMap<String, u64> = disturbed;
    fired.extend(stage.broker.fired().into_iter().map(|(name, times)| (format!("broker:{name}"), times)));
    let trace = trace(&entries, &evidence, &migrations);
    Report {
        seed,
        findings,
        broken,
        messages: evidence.observations.len(),
        acknowledged: evidence
            .observations
            .iter()
            .filter(|seen| matches!(seen.outcome, crate::checker::Outcome::Reply { .. }))
            .count(),
        migrations: migrations.iter().map(stage::outcome).collect(),
        fired,
        trace,
    }
}

/// The broker's own faults of one run.
fn rough(rng: &mut StdRng) -> Faults {
    let rough = Faults::rough();
    if rng.random_ratio(1, 4) { Faults::calm() } else { rough }
}

fn trace(
    entries: &[broker_adapter::record::Entry],
    evidence: &Evidence,
    migrations: &[migrator::MigrationView],
) -> String {
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
    for view in migrations {
        let _ = writeln!(trace, "{view:?}");
    }
    trace
}
