//! Services that do not keep their contract: told so at the start, or found before any harm.

use segue_tests::harness::{Node, SERVICE, Setup, wait_for};

/// Starts a node with this fault and waits until its sidecar's log says all the words.
async fn is_refused_with(faults: &str, words: &[&str]) {
    let mut cluster = Setup::nodes(Vec::new()).start().await;
    let mut node = Node::creating("edge-a");
    node.faults = faults.to_owned();
    cluster.add_node(node);
    let shell = cluster.shell.clone();
    let process = std::cell::RefCell::new(cluster.process("edge-a"));
    wait_for(&shell, &format!("the sidecar to say {words:?}"), || async {
        let log = process.borrow().log();
        words.iter().all(|word| log.contains(word)).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_save_is_refused_with_the_request_and_the_answer() {
    is_refused_with("refuse-save", &["GET", "/segue/state", "500", "told to refuse to save"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_cannot_load_is_refused_with_the_request_and_the_answer() {
    is_refused_with("refuse-load", &["PUT", "/segue/state", "500", "told to refuse to load"]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_is_not_deterministic_diverges_and_stays() {
    let node = |node: Node| Node { faults: "nondeterministic".to_owned(), ..node };
    let cluster = Setup::nodes(vec![node(Node::creating("edge-a")), node(Node::named("edge-b"))]).start().await;
    let load = cluster.load(&["edge-a"], crate::RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("diverged"), "{ended:?}");
    // The owner goes on.
    load.acknowledges(50).await;
    load.finish().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_saves_are_not_canonical_moves_with_the_proof_of_its_replies() {
    let node = |node: Node| Node { faults: "not-canonical".to_owned(), ..node };
    let cluster = Setup::nodes(vec![node(Node::creating("edge-a")), node(Node::named("edge-b"))]).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a"], crate::RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
    assert_ne!(ended.proof.as_deref(), Some("state"), "{ended:?}");
    crate::ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_that_crashes_or_hangs_is_reloaded_and_nothing_is_applied_twice() {
    for faults in ["crash-before=30", "crash-after=30", "hang-at=30"] {
        let mut node = Node::creating("edge-a");
        node.faults = faults.to_owned();
        node.faults_once = true;
        node.delivery_timeout_ms = Some(500);
        let cluster = Setup::nodes(vec![node]).start().await;
        let first = cluster.instances("edge-a");
        let recorder = cluster.recorder().await;
        let load = cluster.load(&["edge-a"], crate::RATE_PER_S);
        load.acknowledges(100).await;
        let now = cluster.instances("edge-a");
        assert_ne!(first[0].pid, now[0].pid, "{faults} did not happen");
        crate::ends_clean(&cluster, &recorder, load).await;
    }
}
