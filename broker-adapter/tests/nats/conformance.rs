//! The conformance suite on a real NATS server, killed at every restart.

use std::sync::{Arc, Mutex};

use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::shell::{Shell, real};
use broker_adapter::{Broker, connect};
use futures_util::FutureExt;

use super::server::Server;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_nats_broker_keeps_the_contract() {
    let (shell, _process) = real::process();
    match std::env::var("SEGUE_TEST_NATS_URL") {
        Ok(url) => conformance::run(|| given(url.clone(), shell.clone())).await,
        Err(_) => conformance::run(|| fixture(shell.clone())).await,
    }
}

async fn fixture(shell: Shell) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start(folder.path());
    let url = server.url();
    let broker = connect(&url, &shell).await.expect("it connects");
    let server = Arc::new(Mutex::new(server));
    let running = server.clone();
    let restart: Restart = Arc::new(move |broker: Arc<dyn Broker>| {
        let mut server = running.lock().expect("nobody panics");
        server.kill();
        server.start_again();
        std::future::ready(broker).boxed()
    });
    Fixture { broker, shell, restart: Some(restart), keep: Box::new((server, folder)) }
}

/// A server that is there already, under a name of the suite's own: what former cases left there is removed.
async fn given(url: String, shell: Shell) -> Fixture {
    let client = async_nats::connect(&url).await.expect("SEGUE_TEST_NATS_URL can be reached");
    for stream in ["SEGUE_segue-test__a_2E0", "SEGUE_segue-test__a_2E1", "OBJ_segue-test__segue"] {
        // It may not be there.
        let _ = client.request(format!("$JS.API.STREAM.DELETE.{stream}"), "".into()).await;
    }
    let broker = connect(&format!("{url}/segue-test"), &shell).await.expect("it connects");
    Fixture { broker, shell, restart: None, keep: Box::new(()) }
}
