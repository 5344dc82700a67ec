//! The same on brokers that keep what they are given: the embedded one, and NATS with a small `max_payload`. The service moves while
//! its log holds requests that are larger than any record.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::ids::ShardId;
use broker_adapter::shell::{Shell, TaskSet, real};
use migrator::machine::Ending;
use migrator::{Migrator, NewMigration};
use segue_tests::harness::{HANG_LIMIT, Port, Process, call, free_port, wait_for};
use segue_tests::ledger::LedgerRunner;
use serde_json::json;
use sidecar::Sidecar;
use sidecar::body::body_prefix;
use sidecar::runner::Runner;

const BODY_LIMIT_BYTES: usize = 12 << 20;

struct Node {
    sidecar: Sidecar,
    runner: Arc<LedgerRunner>,
    listen: Port,
    _tasks: TaskSet,
}

async fn start(broker: Arc<dyn Broker>, name: &str, create: bool) -> Node {
    let (shell, tasks) = real::process();
    let listen = free_port();
    let service = json!({
        "name": "ledger", "listen": listen.address(), "create": create, "run": ["in this process"], "ready": "/ready",
        "state": { "kind": "http", "path": "/segue/state" }, "batch": "/segue/batch",
        "body_limit_bytes": BODY_LIMIT_BYTES, "checkpoint": { "every_s": 1, "every_records": 0, "every_mb": 0 },
    });
    let config = json!({ "node": name, "broker": "x", "admin": "127.0.0.1:0", "service": [service] });
    let config: sidecar::Config = serde_json::from_value(config).expect("a good configuration");
    let runner = Arc::new(LedgerRunner::new(shell.clone(), "127.0.0.1", Arc::new(Mutex::default())));
    let given: Arc<dyn Runner> = runner.clone();
    let sidecar = Sidecar::start(config, broker, move |_| given.clone(), &shell).await.expect("it starts");
    let node = Node { sidecar, runner, listen, _tasks: tasks };
    wait_for(&shell, "the sidecar to be ready", || async { node.sidecar.admin.conditions().0.then_some(()) }).await;
    node
}

async fn post(shell: &Shell, node: &Node, id: String) -> u64 {
    let answer = call(shell, &node.listen.address(), ("POST", "/append"), id, HANG_LIMIT).await.expect("it answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.json()["n"].as_u64().expect("a number")
}

/// Small ones, ones that fit into some brokers' records, and ones that fit into none's.
fn id(number: usize) -> String {
    let bytes = [10, 300 << 10, 3 << 20, 11 << 20][number % 4];
    format!("{number}-{}", "x".repeat(bytes))
}

/// A handle for each process.
async fn a_service_moves(connect: impl AsyncFn() -> Arc<dyn Broker>) {
    let (shell, _tasks) = real::process();
    let broker = connect().await;
    let (a, b) = (start(connect().await, "edge-a", true).await, start(connect().await, "edge-b", false).await);
    let orders = Migrator::start(migrator::Config::new("x"), connect().await, shell.clone()).await.expect("it starts");
    let mut ids = Vec::new();
    for number in 0..8 {
        ids.push(id(number));
        let node = if number % 3 == 0 { &b } else { &a };
        assert_eq!(post(&shell, node, id(number)).await, ids.len() as u64);
    }
    let order = NewMigration::new("ledger".parse().expect("a good name"), "edge-b".parse().expect("a good name"));
    let migration =
        wait_for(&shell, "the order to be accepted", || async { orders.create(order.clone()).await.ok() }).await;
    let moving = async {
        let ended = shell.within(HANG_LIMIT, orders.wait_end(migration)).await.expect("it ends");
        ended.expect("the migrator runs").expect("it is known")
    };
    let sending = async {
        for number in 8..16 {
            post(&shell, if number % 2 == 0 { &a } else { &b }, id(number)).await;
        }
    };
    let (ended, ()) = futures_util::future::join(moving, sending).await;
    assert_eq!(ended.outcome, Some(Ending::Completed), "{ended:?}");
    ids.extend((8..16).map(id));
    for node in [&a, &b] {
        wait_for(&shell, "both replicas to have applied all", || async {
            let chain = node.runner.latest()?.chain();
            (chain.ids() == ids.as_slice()).then_some(())
        })
        .await;
    }
    let prefix = body_prefix(&ShardId::whole("ledger".parse().expect("a good name")));
    let store = broker.store();
    assert!(!store.list(prefix.clone()).await.expect("it answers").is_empty(), "there were some");
    let number = std::cell::Cell::new(0);
    wait_for(&shell, "the bodies to go with the trim", || async {
        number.set(number.get() + 1);
        post(&shell, &a, format!("more-{}", number.get())).await;
        shell.sleep(Duration::from_millis(300)).await;
        store.list(prefix.clone()).await.expect("it answers").is_empty().then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_requests_above_the_embedded_brokers_records_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shell, _tasks) = real::process();
    let url = format!("embedded:{}", folder.path().display());
    let broker = broker_adapter::connect(&url, &shell).await.expect("it opens");
    a_service_moves(async || broker.clone()).await;
}

fn nats(folder: &Path, port: &Port) -> Process {
    let config = folder.join("server.conf");
    let listen = port.address();
    let text = format!("listen: {listen}\nmax_payload: 256KB\njetstream {{ store_dir: {:?} }}\n", folder.join("store"));
    std::fs::write(&config, text).expect("the folder can be written");
    let arguments = vec!["-c".to_owned(), config.display().to_string()];
    Process::start(folder, "nats-server", "nats-server".into(), arguments, BTreeMap::new())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_with_requests_above_a_nats_servers_payload_moves() {
    let folder = tempfile::tempdir().expect("a folder");
    let (shell, _tasks) = real::process();
    let port = free_port();
    let _server = nats(folder.path(), &port);
    wait_for(&shell, "nats-server", || async { shell.connect(&port.address()).await.ok() }).await;
    let url = format!("nats://{}", port.address());
    a_service_moves(async || broker_adapter::connect(&url, &shell).await.expect("it connects")).await;
}
