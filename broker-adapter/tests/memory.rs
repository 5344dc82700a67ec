//! The conformance suite on the memory broker: sound, slow as a real one, and killed at every restart.

use std::sync::Arc;

use broker_adapter::broker::Broker;
use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::memory::{Delay, Faults, MemoryBroker};
use broker_adapter::shell::sim::SimWorld;
use futures_util::FutureExt;

async fn fixture(faults: Faults) -> Fixture {
    let (shell, tasks) = SimWorld::new(7).process();
    let memory = MemoryBroker::new(7, shell.clone(), faults);
    let broker = memory.connect("a");
    let restart: Restart = Arc::new(move |old: Arc<dyn Broker>| {
        drop(old);
        memory.crash_and_restart();
        std::future::ready(memory.connect("a")).boxed()
    });
    Fixture { broker, shell, restart: Some(restart), keep: Box::new(tasks) }
}

#[tokio::test(start_paused = true)]
async fn the_memory_broker_keeps_the_contract() {
    conformance::run(|| fixture(Faults::default())).await;
}

#[tokio::test(start_paused = true)]
async fn a_memory_broker_that_takes_its_time_keeps_the_contract() {
    conformance::run(|| fixture(Faults { read_delay: Delay::ms(0, 9), ..Faults::calm() })).await;
}
