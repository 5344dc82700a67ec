//! The samples in Python, as real processes: services that are not deterministic, or tell nothing by their replies.

use std::time::Duration;

use segue_tests::harness::{Answer, Cluster, Migration, Node, Setup};

/// `edge-a` and `edge-b` with a sample, after 30 requests; more come while the service moves to `edge-b`.
async fn moves(file: &'static str, arguments: &[&'static str], service: &str, path: &str) -> (Cluster, Migration) {
    let nodes = [Node::creating("edge-a"), Node::named("edge-b")];
    let nodes = nodes.map(|node| node.with_sample(file, arguments)).to_vec();
    let cluster = Setup::nodes(nodes).start().await;
    for number in 0..30 {
        send(&cluster, path, number).await;
    }
    let id = cluster.rest.migrate(service, "edge-b").await;
    let mut number = 30;
    let ended = loop {
        send(&cluster, path, number).await;
        number += 1;
        let migration = cluster.rest.migration(&id).await;
        if migration.outcome.is_some() {
            break migration;
        }
        assert!(number < 5_000, "it does not end: {migration:?}");
        cluster.shell.sleep(Duration::from_millis(5)).await;
    };
    // Whoever owns now serves.
    send(&cluster, path, number).await;
    (cluster, ended)
}

async fn send(cluster: &Cluster, path: &str, number: u32) -> Answer {
    let body = format!("one two three four {number}");
    let answer = cluster.request("edge-a", ("POST", path), body).await.expect("the ingress answers");
    assert!(matches!(answer.status, 200 | 204), "{}", answer.text());
    answer
}

fn error(migration: &Migration) -> &str {
    migration.error.as_ref().and_then(|error| error.as_str()).unwrap_or_default()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_service_with_uuid_time_and_random_diverges_and_is_told_its_first_part_and_ways_on() {
    let (cluster, ended) = moves("python/nondeterministic.toml", &[], "notes", "/notes").await;
    assert_eq!(ended.outcome.as_deref(), Some("diverged"), "{ended:?}");
    for word in ["json:/at", "Segue-Time", "Segue-Seed", r#"ignore = ["json:/at"]"#, "precopy", "divergence/notes.0/"] {
        assert!(error(&ended).contains(word), "{word}: {ended:?}");
    }
    let divergence = ended.divergence.expect("it tells where");
    assert_eq!(divergence["field"], "json:/at", "{divergence}");
    assert_ne!(divergence["owner"], divergence["target"], "{divergence}");
    let both = cluster.rest.call("GET", &format!("/v1/migrations/{}/divergence", ended.id), String::new()).await;
    assert_eq!(both.status, 200, "{}", both.text());
    assert_ne!(both.json()["owners_reply"]["body"], both.json()["replicas_reply"]["body"]);
    let served = send(&cluster, "/notes", 9_999).await;
    assert!(served.header("segue-owner").starts_with("edge-a/"), "the source goes on");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_service_moves_live_once_it_takes_time_and_randomness_from_the_request() {
    let (_cluster, ended) = moves("python/nondeterministic.toml", &["--segue"], "notes", "/notes").await;
    assert_eq!((ended.outcome.as_deref(), ended.proof.as_deref()), (Some("completed"), Some("state")), "{ended:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_python_service_that_answers_only_204_is_unproven_and_refused() {
    let (_cluster, ended) = moves("python/oneway.toml", &[], "events", "/events").await;
    assert_eq!(
        (ended.outcome.as_deref(), ended.proof.as_deref()),
        (Some("rolled-back"), Some("unproven")),
        "{ended:?}"
    );
    for way in ["canonical", "state_hash", "precopy", "--allow-unproven"] {
        assert!(error(&ended).contains(way), "{way}: {ended:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn states_that_differ_are_found_although_all_replies_agree() {
    let (_cluster, ended) = moves("python/oneway.toml", &["--canonical"], "events", "/events").await;
    assert_eq!(ended.outcome.as_deref(), Some("diverged"), "{ended:?}");
    assert!(error(&ended).contains("the states differ"), "{ended:?}");
    assert_eq!(ended.divergence.expect("it tells where")["what"], "states");
    let (_cluster, ended) = moves("python/oneway.toml", &["--canonical", "--segue"], "events", "/events").await;
    assert_eq!((ended.outcome.as_deref(), ended.proof.as_deref()), (Some("completed"), Some("state")), "{ended:?}");
}
