//! What goes wrong in a run besides the broker's own faults: at random moments, to anybody, and only if it really strikes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::stage::Stage;

const FAULTS: [&str; 18] = [
    "kill-sidecar",
    "die-at-an-await",
    "second-restart",
    "die-between-put-and-append",
    "freeze",
    "zombie",
    "kill-service",
    "hang-service",
    "service-dies-in-a-request",
    "service-restarts-unnoticed",
    "batch-goes-wrong",
    "kill-migrator",
    "freeze-migrator",
    "migrator-dies-at-an-await",
    "restart-broker",
    "cut-off",
    "stall",
    "clock-jump",
];
/// A process that is to die at an await does so within this time, or not at all.
const DIES_WITHIN: Duration = Duration::from_millis(500);

/// Plays faults until enough have fired, and says which.
pub async fn disturb(stage: &Arc<Stage>, faults: usize, rng: &mut StdRng) -> BTreeMap<String, u64> {
    let mut fired = BTreeMap::new();
    let wanted = faults + rng.random_range(0..3);
    let mut left = wanted;
    while left > 0 {
        pause(rng, 100..1_000).await;
        let owner = stage.owner().filter(|_| rng.random_bool(0.4));
        let node = owner.unwrap_or_else(|| stage.names().choose(rng).copied().expect("there are nodes"));
        let fault = *FAULTS.choose(rng).expect("there are faults");
        if strike(stage, fault, node, rng).await {
            *fired.entry(fault.to_owned()).or_default() += 1;
            left -= 1;
        }
    }
    fired
}

async fn strike(stage: &Arc<Stage>, fault: &str, node: &'static str, rng: &mut StdRng) -> bool {
    let outage = Duration::from_millis(rng.random_range(5..1_500));
    match fault {
        "die-between-put-and-append" => dies_before_its_append(stage, node).await,
        "kill-sidecar" | "die-at-an-await" | "second-restart" | "freeze" | "zombie" => {
            process(stage, fault, node, rng).await
        }
        "kill-service" => stage.bench(node).kill(),
        "service-restarts-unnoticed" => stage.restart_unnoticed(node).await,
        "batch-goes-wrong" => batch(stage, node, rng),
        "hang-service" | "service-dies-in-a-request" => service(stage, fault, node, rng),
        "kill-migrator" => {
            let was = stage.take_migrator().is_some();
            tokio::time::sleep(outage).await;
            stage.start_migrator().await;
            was
        }
        "migrator-dies-at-an-await" => {
            let died = dies_at_an_await(stage, "migrator", rng).await;
            stage.take_migrator();
            stage.start_migrator().await;
            died
        }
        "freeze-migrator" => hold(stage, "migrator", rng).await,
        "restart-broker" => {
            stage.broker.crash_and_restart();
            true
        }
        "cut-off" => {
            let name = if rng.random_ratio(1, 4) { "migrator" } else { node };
            stage.broker.cut_off(name);
            tokio::time::sleep(outage).await;
            stage.broker.heal(name);
            true
        }
        "stall" => {
            stage.broker.stall(node, outage);
            true
        }
        _ => {
            stage.broker.jump_clock(rng.random_range(-60_000..60_000));
            true
        }
    }
}

/// What happens to a sidecar's process.
async fn process(stage: &Arc<Stage>, fault: &str, node: &'static str, rng: &mut StdRng) -> bool {
    match fault {
        "die-at-an-await" => {
            let died = dies_at_an_await(stage, node, rng).await;
            stage.take_sidecar(node);
            stage.start_sidecar(node).await;
            died
        }
        "second-restart" => {
            let was = stage.take_sidecar(node).is_some();
            stage.start_sidecar(node).await;
            pause(rng, 1..60).await;
            stage.take_sidecar(node);
            stage.start_sidecar(node).await;
            was
        }
        "freeze" => hold(stage, node, rng).await,
        // Nobody can keep a sidecar's own zombie from a service that is not its own.
        "zombie" if stage.is_attached(node) => false,
        "zombie" => {
            // It stands still while another one runs under its name, and then it goes on.
            let Some(old) = stage.take_sidecar(node) else { return false };
            old.gate.hold();
            stage.world.give_away(node);
            stage.start_sidecar(node).await;
            pause(rng, 50..3_000).await;
            old.gate.release();
            pause(rng, 1..3_000).await;
            true
        }
        _ => {
            let was = stage.take_sidecar(node).is_some();
            pause(rng, 5..1_500).await;
            stage.start_sidecar(node).await;
            was
        }
    }
}

/// A sidecar ends when the store has the body of a large request, and the log does not have its record.
async fn dies_before_its_append(stage: &Arc<Stage>, node: &'static str) -> bool {
    if !stage.has_large_requests() {
        return false;
    }
    stage.broker.hold_puts(node, Some("body/"));
    tokio::time::sleep(DIES_WITHIN).await;
    let died = stage.broker.held_puts(node) > 0 && stage.take_sidecar(node).is_some();
    stage.broker.hold_puts(node, None);
    if died {
        stage.start_sidecar(node).await;
    }
    died
}

/// What happens to a service, at its next request.
fn service(stage: &Stage, fault: &str, node: &str, rng: &mut StdRng) -> bool {
    let bench = stage.bench(node);
    let Some(ledger) = bench.ledger() else { return false };
    let next = Some(ledger.chain().value().n + 1);
    bench.spoil(|faults| match (fault, rng.random_bool(0.5)) {
        ("hang-service", true) => faults.hang_at = next,
        ("hang-service", false) => faults.hang_after = next,
        (_, true) => faults.crash_before = next,
        (_, false) => faults.crash_after = next,
    });
    true
}

/// What happens to the next batch: its answer has the wrong shape, or the service dies in the middle of it.
fn batch(stage: &Stage, node: &str, rng: &mut StdRng) -> bool {
    let bench = stage.bench(node);
    let Some(ledger) = bench.ledger().filter(|_| stage.takes_batches(node)) else { return false };
    let next = ledger.chain().value().n + 1;
    bench.spoil(|faults| match rng.random_range(0..3) {
        0 => faults.batch_short = true,
        1 => faults.batch_garbled = true,
        _ => faults.crash_after = Some(next + rng.random_range(1..4)),
    });
    true
}

/// A process ends between any two polls of its tasks; says whether it did.
async fn dies_at_an_await(stage: &Stage, name: &str, rng: &mut StdRng) -> bool {
    let Some(gate) = stage.gate(name) else { return false };
    gate.shut_after((1 << rng.random_range(0..9)) + rng.random_range(0..64));
    tokio::time::sleep(DIES_WITHIN).await;
    gate.is_shut()
}

/// A process stands still for a while.
async fn hold(stage: &Stage, name: &str, rng: &mut StdRng) -> bool {
    let Some(gate) = stage.gate(name) else { return false };
    gate.hold();
    pause(rng, 20..5_000).await;
    gate.release();
    true
}

async fn pause(rng: &mut StdRng, ms: std::ops::Range<u64>) {
    tokio::time::sleep(Duration::from_millis(rng.random_range(ms))).await;
}
