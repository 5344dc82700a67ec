//! Sidecars that are only ingresses of a service: real processes, clients that change between them in mid-request.

use bytes::Bytes;
use http_body_util::Full;
use segue_tests::harness::{Answer, Cluster, HANG_LIMIT, Node, SERVICE, Setup, call_with_key, wait_for};
use serde_json::json;

use crate::{RATE_PER_S, ends_clean};

async fn keyed(cluster: &Cluster, node: &str, id: &str, key: &str) -> Answer {
    let body = Full::new(Bytes::copy_from_slice(id.as_bytes()));
    let answer =
        call_with_key(&cluster.shell, &cluster.ingress(node), ("POST", "/append"), body, key, HANG_LIMIT).await;
    answer.expect("the ingress answers")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn five_ingresses_feed_one_service_that_moves() {
    let nodes = vec![
        Node::creating("edge-a"),
        Node::named("edge-b"),
        Node::ingress("gate-1"),
        Node::ingress("gate-2"),
        Node::ingress("gate-3"),
    ];
    let cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder().await;
    let all = ["edge-a", "edge-b", "gate-1", "gate-2", "gate-3"];
    // Ten processes and their clients share two cores.
    let load = cluster.load(&all, RATE_PER_S / 4);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    load.acknowledges(50).await;
    // A gate can have no replica, and nothing is begun.
    let order = json!({ "service": SERVICE, "to": "gate-1" });
    let refused = cluster.rest.call("POST", "/v1/migrations", order.to_string()).await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (409, Some("target-is-ingress")));
    assert!(refused.text().contains("gate-1 is only an ingress"), "{}", refused.text());
    ends_clean(&cluster, &recorder, load).await;
    for gate in &all[2..] {
        assert!(cluster.instances(gate).is_empty(), "{gate} runs an instance");
        let read = cluster.request(gate, ("GET", "/value"), "").await.expect("the ingress answers");
        assert!(read.json()["n"].as_u64() >= Some(150), "{}", read.text());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_first_sent_at_one_ingress_gets_the_one_reply_at_every_other() {
    let mut owner = Node::creating("edge-a");
    owner.faults = "hang-at=2".to_owned();
    owner.faults_once = true;
    owner.delivery_timeout_ms = Some(2_000);
    let mut first = Node::ingress("gate-1");
    first.reply_timeout_ms = Some(500);
    let cluster = Setup::nodes(vec![owner, first, Node::ingress("gate-2")]).start().await;
    let given = keyed(&cluster, "gate-1", "one", "key-1").await;
    let again = keyed(&cluster, "gate-2", "one", "key-1").await;
    assert_eq!((given.status, &given.body), (again.status, &again.body), "{}", again.text());
    assert_eq!(keyed(&cluster, "gate-2", "other", "key-1").await.status, 422);
    // The service hangs in mid-request: the client gives up at one ingress and goes on at the others.
    assert_eq!(keyed(&cluster, "gate-1", "two", "key-2").await.status, 504);
    let second = keyed(&cluster, "gate-2", "two", "key-2").await;
    assert_eq!(second.status, 200, "{}", second.text());
    let late = cluster.request("gate-1", ("POST", "/append"), "three").await.expect("the ingress answers");
    assert_eq!(late.status, 200, "{}", late.text());
    for node in ["gate-1", "gate-2", "edge-a"] {
        let fetched = wait_for(&cluster.shell, "the kept reply", || async {
            let kept = cluster.request(node, ("GET", "/segue/replies/key-2"), "").await.expect("the ingress answers");
            (kept.status == 200).then_some(kept)
        })
        .await;
        assert_eq!(fetched.body, second.body, "at {node}");
    }
    let ids = cluster.request("gate-2", ("GET", "/ids"), "").await.expect("the ingress answers");
    assert_eq!(ids.text(), "one\ntwo\nthree");
}
