//! What goes wrong in a run besides the broker's own faults: at random moments, to anybody, and only if it really strikes.

use std::collections::BTreeMap;
use std::time::Duration;

use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::stage::{NODES, Stage};

const FAULTS: [&str; 10] = [
    "kill-sidecar",
    "kill-service",
    "hang-service",
    "kill-migrator",
    "restart-broker",
    "cut-off",
    "stall",
    "clock-jump",
    "service-dies-in-a-request",
    "second-restart",
];

/// Plays faults until enough have fired, and says which.
pub async fn disturb(stage: &Stage, faults: usize, rng: &mut StdRng) -> BTreeMap<String, u64> {
    let mut fired = BTreeMap::new();
    let wanted = faults + rng.random_range(0..3);
    let mut left = wanted;
    while left > 0 {
        tokio::time::sleep(Duration::from_millis(rng.random_range(100..1_500))).await;
        let node = *NODES.choose(rng).expect("there are nodes");
        let fault = *FAULTS.choose(rng).expect("there are faults");
        if strike(stage, fault, node, rng).await {
            *fired.entry(fault.to_owned()).or_default() += 1;
            left -= 1;
        }
    }
    fired
}

async fn strike(stage: &Stage, fault: &str, node: &'static str, rng: &mut StdRng) -> bool {
    let outage = Duration::from_millis(rng.random_range(5..1_500));
    match fault {
        "kill-sidecar" => {
            let was = stage.kill_sidecar(node);
            tokio::time::sleep(outage).await;
            stage.start_sidecar(node).await;
            was
        }
        "second-restart" => {
            let was = stage.kill_sidecar(node);
            stage.start_sidecar(node).await;
            tokio::time::sleep(Duration::from_millis(rng.random_range(1..60))).await;
            stage.kill_sidecar(node);
            stage.start_sidecar(node).await;
            was
        }
        "kill-service" => stage.bench(node).kill(),
        "hang-service" | "service-dies-in-a-request" => {
            let bench = stage.bench(node);
            let Some(ledger) = bench.ledger() else { return false };
            let next = Some(ledger.chain().value().n + 1);
            let mut faults = bench.faults.lock().expect("nothing panics under this lock");
            match (fault, rng.random_bool(0.5)) {
                ("hang-service", _) => faults.hang_at = next,
                (_, true) => faults.crash_before = next,
                (_, false) => faults.crash_after = next,
            }
            true
        }
        "kill-migrator" => {
            let was = stage.kill_migrator();
            tokio::time::sleep(outage).await;
            stage.start_migrator().await;
            was
        }
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
