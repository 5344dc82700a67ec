//! The samples of `configs/batch`, in Python and Rust: real processes, asked alone and in batches, and under a sidecar.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::ids::Position;
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::record::{Body, Header, Request};
use broker_adapter::shell::Shell;
use bytes::Bytes;
use segue_tests::harness::{HANG_LIMIT, Process, binary, call, free_port, wait_for};
use serde_json::json;
use sidecar::runner::{DataParent, ProcessRunner, Runner};
use sidecar::service::batch::Delivery;
use sidecar::service::{Connection, Limits};
use sidecar::{Config, Sidecar};

const LIMITS: Limits = Limits { time: Duration::from_secs(20), reply_bytes: 1 << 20 };

/// Program and first arguments of each sample.
fn samples() -> [Vec<String>; 2] {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../configs/batch/batch_service.py");
    [vec!["python3".to_owned(), python.display().to_string()], vec![binary("segue-batch-sample").display().to_string()]]
}

async fn started(sample: &[String], name: &str, address: &str, folder: &Path, shell: &Shell) -> (Process, Connection) {
    let mut arguments = sample[1..].to_vec();
    arguments.push(address.to_owned());
    let process = Process::start(folder, name, PathBuf::from(&sample[0]), arguments, BTreeMap::new());
    wait_for(shell, "the sample to be ready", || async {
        call(shell, address, ("GET", "/ready"), "", HANG_LIMIT).await.ok()
    })
    .await;
    let connection = Connection::open(address, shell).await.expect("it is ready");
    (process, connection)
}

fn request(method: &str, path: &str, body: &'static [u8]) -> Request {
    let header = Header { name: "content-type".to_owned(), value: Bytes::from_static(b"text/plain") };
    Request {
        method: method.to_owned(),
        path: path.to_owned(),
        headers: vec![header],
        body: Body::Inline(Bytes::from_static(body)),
    }
}

#[tokio::test]
async fn a_sample_answers_alike_alone_and_in_a_batch() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    for sample in samples() {
        let (one, other) = (free_port(), free_port());
        let (_one, mut alone) = started(&sample, "alone", &one.address(), folder.path(), &shell).await;
        let (_other, mut batch) = started(&sample, "batch", &other.address(), folder.path(), &shell).await;
        let requests = [
            request("POST", "/add", b"first"),
            request("POST", "/add", "gr\u{fc}n \"\u{2028}\"".as_bytes()),
            request("POST", "/add", &[0xff, 0, b'\r']),
            request("POST", "/add", b"two\nlines"),
            request("GET", "/count", b""),
            request("DELETE", "/nothing", b""),
            request("POST", "/add?again=yes", b"with a query"),
            request("POST", "/forget", b""),
            request("POST", "/add", b"last"),
        ];
        let delivery =
            |request| Delivery { position: Position(1), time_ms: 1, seed: "0".repeat(32), replay: false, request };
        let deliveries: Vec<Delivery<'_>> = requests.iter().map(delivery).collect();
        let together = batch.deliver_batch("/batch", &deliveries, LIMITS).await.expect("a whole answer");
        for (request, reply) in requests.iter().zip(together) {
            let single = alone.deliver(request, &[], LIMITS).await.expect("a whole answer");
            assert_eq!(reply, single, "{sample:?}: {} {}", request.method, request.path);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sample_serves_under_a_sidecar_in_batches() {
    const REQUESTS: usize = 400;
    for sample in samples() {
        let (shell, _tasks) = broker_adapter::shell::real::process();
        let listen = free_port();
        let mut run = sample.clone();
        run.push("{address}".to_owned());
        let config: Config = serde_json::from_value(json!({
            "node": "edge-a", "broker": "memory:", "admin": "127.0.0.1:0",
            "service": [{
                "name": "lines", "listen": listen.address(), "create": true, "run": run, "ready": "/ready",
                "state": { "kind": "http", "path": "/state" }, "batch": "/batch",
            }],
        }))
        .expect("a good configuration");
        let data = DataParent { folder: std::env::temp_dir(), prefix: "segue-batch-sample".to_owned() };
        let runner: Arc<dyn Runner> = Arc::new(ProcessRunner::new(Vec::new(), run, data, shell.clone()));
        let broker = MemoryBroker::new(1, shell.clone(), Faults::calm());
        let given = runner.clone();
        let sidecar = Sidecar::start(config, broker.connect("edge-a"), move |_| given.clone(), &shell).await;
        let sidecar = sidecar.expect("it starts");
        wait_for(&shell, "the sidecar", || async { sidecar.admin.conditions().0.then_some(()) }).await;
        let address = listen.address();
        let asked = (0..REQUESTS).map(|number| {
            let (shell, address) = (&shell, &address);
            async move { call(shell, address, ("POST", "/add"), format!("line {number}"), HANG_LIMIT).await }
        });
        for answer in futures_util::future::join_all(asked).await {
            assert_eq!(answer.expect("it answers").status, 200);
        }
        let count = call(&shell, &address, ("GET", "/count"), "", HANG_LIMIT).await.expect("it answers");
        assert_eq!(count.json()["n"], REQUESTS, "{sample:?}");
        let deliveries = sidecar.admin.registry.gather().into_iter().find(|f| f.name() == "segue_delivery_seconds");
        let deliveries = deliveries.expect("it is measured").get_metric()[0].get_histogram().get_sample_count();
        println!("{sample:?}: {REQUESTS} requests in {deliveries} deliveries");
        assert!(deliveries < REQUESTS as u64, "{sample:?}");
    }
}
