//! The conformance suite on the embedded broker, in this process, through `segue://`, and through `segues://` with a token.

use std::path::Path;
use std::sync::{Arc, Mutex};

use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::embedded::door::Door;
use broker_adapter::embedded::{EmbeddedBroker, Options, server};
use broker_adapter::shell::{Shell, TaskSet, real};
use broker_adapter::{Broker, connect, connect_with};
use futures_util::FutureExt;

use crate::guarded::Guards;
use crate::support::open;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_embedded_broker_keeps_the_contract() {
    let (shell, _process) = real::process();
    conformance::run(|| embedded(shell.clone())).await;
}

async fn embedded(shell: Shell) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let broker: Arc<dyn Broker> =
        Arc::new(EmbeddedBroker::open(&path, Options::default(), &shell).await.expect("it opens"));
    let world = shell.clone();
    let restart: Restart = Arc::new(move |old| {
        drop(old);
        let (path, shell) = (path.clone(), world.clone());
        async move {
            let broker: Arc<dyn Broker> =
                Arc::new(EmbeddedBroker::open(&path, Options::default(), &shell).await.expect("it opens again"));
            broker
        }
        .boxed()
    });
    Fixture { broker, shell, restart: Some(restart), keep: Box::new(folder) }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_segue_client_and_server_keep_the_contract() {
    let (shell, _process) = real::process();
    conformance::run(|| remote(shell.clone(), None)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_token_and_tls_the_contract_is_the_same() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().expect("a folder");
    let guards = Guards::new(folder.path());
    conformance::run(|| remote(shell.clone(), Some(guards.clone()))).await;
}

async fn remote(shell: Shell, guards: Option<Guards>) -> Fixture {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().to_owned();
    let door = guards.as_ref().map_or_else(Door::default, |guards| guards.door(&shell));
    let (address, serving) = serve_behind(door.clone(), &shell, &path, "127.0.0.1:0").await;
    let broker = match &guards {
        None => connect(&format!("segue://{address}"), &shell).await,
        Some(guards) => connect_with(&format!("segues://{address}"), &guards.options(), &shell).await,
    };
    let broker = broker.expect("it connects");
    let serving = Arc::new(Mutex::new(Some(serving)));
    let (world, running) = (shell.clone(), serving.clone());
    let restart: Restart = Arc::new(move |broker| {
        let (path, shell, address, running) = (path.clone(), world.clone(), address.clone(), running.clone());
        let door = door.clone();
        async move {
            drop(running.lock().expect("nobody panics").take());
            let (_, serving) = serve_behind(door, &shell, &path, &address).await;
            *running.lock().expect("nobody panics") = Some(serving);
            broker
        }
        .boxed()
    });
    Fixture { broker, shell, restart: Some(restart), keep: Box::new((serving, folder)) }
}

/// Serves the broker at `path` to everybody; the tasks end with the set.
pub async fn serve(shell: &Shell, path: &Path, listen: &str) -> (String, TaskSet) {
    serve_behind(Door::default(), shell, path, listen).await
}

async fn serve_behind(door: Door, shell: &Shell, path: &Path, listen: &str) -> (String, TaskSet) {
    let (inner, set) = shell.part();
    let broker = open(path, &inner).await;
    let listener = shell.listen(listen).await.expect("it listens");
    let address = listener.address();
    inner.spawn(server::serve_behind(door, broker, listener, inner.clone()));
    (address, set)
}
