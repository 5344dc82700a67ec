//! An owner's own checkpoints, the trim behind them, and who comes afterwards.

use broker_adapter::ids::Position;
use segue_tests::harness::{Node, SERVICE, Setup, wait_for};

use super::BROKER;
use crate::{RATE_PER_S, ends_clean};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_its_owner_trimmed_still_moves_a_service_to_a_new_node() {
    let often = |node: Node| Node { checkpoint_every_s: Some(1), ..node };
    let nodes = vec![often(Node::creating("edge-a")), often(Node::named("edge-b"))];
    let mut cluster = Setup::nodes(nodes).on(BROKER).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(100).await;
    let broker = cluster.broker.connect(&cluster.shell).await;
    let log = broker.log("ledger.0").await.expect("it opens");
    let first = wait_for(&cluster.shell, "the owner to trim its log", || async {
        log.usage().await.ok().map(|usage| usage.first).filter(|first| *first > Position(100))
    });
    let first = first.await;
    // It has never seen what was trimmed.
    cluster.add_node(often(Node::named("edge-c")));
    cluster.ready("edge-c").await;
    cluster.nodes_known().await;
    for to in ["edge-c", "edge-b"] {
        let id = cluster.rest.migrate(SERVICE, to).await;
        let ended = cluster.rest.ended(&id).await;
        assert_eq!(ended.outcome.as_deref(), Some("completed"), "the log begins at {first}: {ended:?}");
        assert_eq!(ended.proof.as_deref(), Some("state"), "{ended:?}");
        load.acknowledges(50).await;
    }
    ends_clean(&cluster, &recorder, load).await;
}
