//! The conformance suite on one Kafka server, with topics of their own for each case.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::shell::{Shell, real};
use broker_adapter::{BrokerOptions, connect_with};
use futures_util::FutureExt;

use super::server::{Server, fresh};

/// The server writes down where logs begin, every 50 ms here and every minute by default: a trim that is younger is
/// forgotten by a crash, and then there is more to read than there must be.
const TRIM_WRITTEN: Duration = Duration::from_millis(500);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_kafka_broker_keeps_the_contract() {
    let server = Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap());
    let (shell, _process) = real::process();
    conformance::run(|| fixture(server.clone(), shell.clone())).await;
}

async fn fixture(server: Arc<Server>, shell: Shell) -> Fixture {
    let options = BrokerOptions { kafka: fresh(), ..BrokerOptions::default() };
    let broker = connect_with(&server.url(), &options, &shell).await.expect("it connects");
    let (world, running) = (shell.clone(), server.clone());
    let restart: Restart = Arc::new(move |old| {
        drop(old);
        let (server, shell, options) = (running.clone(), world.clone(), options.clone());
        async move {
            shell.sleep(TRIM_WRITTEN).await;
            tokio::task::spawn_blocking(move || {
                server.kill();
                server.again();
                server
            })
            .then(|server| async move {
                let url = server.expect("it starts again").url();
                connect_with(&url, &options, &shell).await.expect("it connects again")
            })
            .await
        }
        .boxed()
    });
    Fixture { broker, shell, restart: Some(restart), keep: Box::new(server) }
}
