//! The samples of `configs/` as real processes: each moves ten times under load, and the oracle finds nothing.

use bytes::Bytes;
use segue_tests::checker::{Evidence, Model, check};
use segue_tests::harness::{Load, Node, Setup};

const SERVICE: &str = "counter";
const MOVES: usize = 10;
const RATE_PER_S: u32 = 50;

/// What a counter answers: the number of the request.
#[derive(Default)]
struct Counter(u64);

impl Model for Counter {
    fn apply(&mut self, _body: &[u8]) -> (u16, Bytes) {
        self.0 += 1;
        (200, format!("{}\n", self.0).into())
    }

    fn state_hash(&self) -> String {
        self.0.to_string()
    }
}

/// Moves the service of a sample between two nodes; which proof each move had.
async fn moves(file: &str) -> Vec<String> {
    let nodes = vec![Node::sample("edge-a", true, file), Node::sample("edge-b", false, file)];
    let cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder_of(SERVICE).await;
    let ingresses = vec![cluster.ingress("edge-a"), cluster.ingress("edge-b")];
    let load = Load::to_path(&cluster.shell, ingresses, RATE_PER_S, "m", "/count");
    load.acknowledges(20).await;
    let mut proofs = Vec::new();
    for to in ["edge-b", "edge-a"].into_iter().cycle().take(MOVES) {
        let id = cluster.rest.migrate(SERVICE, to).await;
        let ended = cluster.rest.ended(&id).await;
        assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
        proofs.push(ended.proof.unwrap_or_default());
        load.acknowledges(5).await;
    }
    let observations = load.finish().await;
    let mut evidence = Evidence::from_log(&recorder.up_to_tail().await, "/count");
    evidence.observations = observations;
    assert!(evidence.observations.len() >= 50, "a load that sent nothing proves nothing");
    for node in ["edge-a", "edge-b"] {
        let shown = cluster.request(node, ("GET", "/count"), "").await.expect("an ingress answers");
        assert_eq!(shown.text(), format!("{}\n", evidence.applied.len()));
    }
    assert_eq!(check(&evidence, &mut Counter::default()), []);
    proofs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn redis_moves_ten_times_under_load_with_equal_digests() {
    let installed = std::process::Command::new("redis-server").arg("--version").output().is_ok();
    assert!(installed, "redis-server is missing: tests/run installs it, or apt-get install redis-server");
    let proofs = moves("configs/redis/sidecar.toml").await;
    assert_eq!(proofs, ["state"; MOVES]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_with_sqlite_moves_ten_times_under_load_with_equal_files() {
    let proofs = moves("configs/sqlite/sidecar.toml").await;
    assert_eq!(proofs, ["state"; MOVES]);
}
