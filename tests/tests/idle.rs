//! What a sidecar costs that has nothing to do.

use segue_tests::harness::Setup;

/// What an idle sidecar may occupy.
const IDLE_LIMIT_KIB: u64 = 30 << 10;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_idle_sidecar_is_small() {
    let mut cluster = Setup::two_nodes().start().await;
    for node in ["edge-a", "edge-b"] {
        let resident_kib = cluster.process(node).resident_kib();
        assert!(resident_kib <= IDLE_LIMIT_KIB, "{node} occupies {resident_kib} KiB");
    }
}
