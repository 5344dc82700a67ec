//! Runs the real thing: broker, migrator and sidecars as processes on loopback ports, with their logs in files.
//!
//! ```text
//!  Setup ──start──▶ Cluster ─┬─ Process  migrator, a sidecar each node      kill, pause, resume, restart by pid
//!                            ├─ Broker   the embedded one, NATS or Kafka, one server or three, and what is done to them
//!                            ├─ Rest     the migrator's API
//!                            ├─ Load     open loop clients that write down what they saw
//!                            ├─ Collector what the processes trace, where they are told to
//!                            ├─ Recorder follows the shard's log from its first record
//!                            └─ Hold     stops a migration at a phase
//! ```
//! Nothing waits longer than [`HANG_LIMIT`]. When a test panics, the ends of all logs are printed.

mod brokers;
mod cluster;
mod collector;
mod config;
mod hold;
pub(crate) mod http;
pub(crate) mod load;
mod ports;
mod process;
mod recorder;
mod rest;

use std::future::Future;
use std::time::Duration;

use broker_adapter::shell::Shell;

pub use brokers::{Broker, BrokerKind, Guards, Proxy, TOKEN, Wants};
pub use cluster::{Cluster, Instance, Setup};
pub use collector::{Collector, Export};
pub use config::{Node, SERVICE};
pub use hold::Hold;
pub use http::{Answer, CallError, call, call_with, call_with_key};
pub use load::Load;
pub use ports::{Port, free_port};
pub use process::{Ended, Process, binary, resume, state};
pub use recorder::Recorder;
pub use rest::{Migration, PhaseTime, Rest};

/// How long anything may take before a test gives up: generous, because two cores run several tests at once.
pub const HANG_LIMIT: Duration = Duration::from_secs(180);
/// How long a sidecar lets clients wait where servers fall: one that is started twice beside others needs more than the 30 s that are
/// the default. A little less than what [`Load`] waits, so that its end is a 504.
pub const PATIENCE_MS: u64 = 85_000;
/// How often a condition is looked at.
pub const POLL_EVERY: Duration = Duration::from_millis(10);

/// Asks `probe` until it gives something.
///
/// # Panics
/// After [`HANG_LIMIT`], naming `what`.
pub async fn wait_for<T, F: Future<Output = Option<T>>>(shell: &Shell, what: &str, mut probe: impl FnMut() -> F) -> T {
    let give_up = shell.now() + HANG_LIMIT;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(shell.now() < give_up, "waited {HANG_LIMIT:?} for {what}");
        shell.sleep(POLL_EVERY).await;
    }
}
