//! The samples in Python, as real processes: services that are not deterministic, or tell nothing by their replies.

use std::time::Duration;

use bytes::Bytes;
use segue_tests::checker::{Evidence, Model, Observation, Outcome, check};
use segue_tests::harness::{Answer, Cluster, Load, Migration, Node, Setup};
use serde_json::{Value, json};

/// `edge-a` and `edge-b` with a sample.
async fn two_nodes(file: &'static str, arguments: &[&'static str]) -> Cluster {
    let nodes = [Node::creating("edge-a"), Node::named("edge-b")];
    Setup::nodes(nodes.map(|node| node.with_sample(file, arguments)).to_vec()).start().await
}

/// After 30 requests, and while more come, the service moves to `edge-b`.
async fn moves(file: &'static str, arguments: &[&'static str], service: &str, path: &str) -> (Cluster, Migration) {
    moves_with(file, arguments, &json!({ "service": service, "to": "edge-b" }), path).await
}

async fn moves_with(file: &'static str, arguments: &[&'static str], order: &Value, path: &str) -> (Cluster, Migration) {
    let cluster = two_nodes(file, arguments).await;
    for number in 0..30 {
        send(&cluster, path, number).await;
    }
    let id = cluster.rest.order(order).await;
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

/// What a service answered that nobody can compute: the notes as it holds them in the end, one after the other.
struct Notes(std::vec::IntoIter<Value>);

impl Notes {
    fn bytes(note: &Value) -> Bytes {
        note.to_string().into()
    }
}

impl Model for Notes {
    fn apply(&mut self, body: &[u8]) -> (u16, Bytes) {
        let note = self.0.next().expect("as many notes as the log has messages");
        assert_eq!(note["words"], json!([String::from_utf8_lossy(body)]), "the notes stand in the log's order");
        (200, Self::bytes(&note))
    }

    fn state_hash(&self) -> String {
        self.0.as_slice().len().to_string()
    }
}

/// The reply in the form in which [`Notes`] gives it: JSON is JSON, whatever its spaces.
fn in_one_form(mut seen: Observation) -> Observation {
    if let Outcome::Reply { body, .. } = &mut seen.outcome {
        *body = Notes::bytes(&serde_json::from_slice(body).expect("the note is JSON"));
    }
    seen
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_service_moves_by_precopy_there_and_back_under_load() {
    let cluster = two_nodes("python/nondeterministic.toml", &[]).await;
    let recorder = cluster.recorder_of("notes").await;
    let ingresses = vec![cluster.ingress("edge-a"), cluster.ingress("edge-b")];
    let load = Load::to_path(&cluster.shell, ingresses, 50, "m", "/notes");
    load.acknowledges(20).await;
    for to in ["edge-b", "edge-a", "edge-b", "edge-a"] {
        let order = json!({ "service": "notes", "to": to, "strategy": "precopy" });
        let ended = cluster.rest.ended(&cluster.rest.order(&order).await).await;
        assert_eq!((ended.outcome.as_deref(), ended.proof.as_deref()), (Some("completed"), Some("state")), "{ended:?}");
        load.acknowledges(20).await;
    }
    let observations = load.finish().await;
    let mut evidence = Evidence::from_log(&recorder.up_to_tail().await, "/notes");
    evidence.observations = observations.into_iter().map(in_one_form).collect();
    let acknowledged = evidence.observations.iter().filter(|seen| matches!(seen.outcome, Outcome::Reply { .. }));
    assert!(acknowledged.count() >= 100, "a load that sent nothing proves nothing");
    // By the service's own count, wherever it is asked: each note once, in order, as its client got it.
    for node in ["edge-a", "edge-b"] {
        let shown = cluster.request(node, ("GET", "/notes"), "").await.expect("an ingress answers");
        let notes: Vec<Value> = serde_json::from_slice(&shown.body).expect("the notes are JSON");
        assert_eq!(notes.len(), evidence.applied.len());
        assert_eq!(check(&evidence, &mut Notes(notes.into_iter())), []);
    }
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
async fn a_python_service_that_answers_only_204_moves_if_its_order_allows_it_unproven() {
    let order = json!({ "service": "events", "to": "edge-b", "allow_unproven": true });
    let (cluster, ended) = moves_with("python/oneway.toml", &[], &order, "/events").await;
    assert_eq!((ended.outcome.as_deref(), ended.proof.as_deref()), (Some("completed"), Some("unproven")), "{ended:?}");
    let served = send(&cluster, "/events", 9_999).await;
    assert!(served.header("segue-owner").starts_with("edge-b/"), "the target owns");
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
