//! REST against real processes: what a plan says after a move, what clients felt, why it is there, its log, a checkpoint, a drain.

use segue_tests::harness::{Cluster, SERVICE, Setup, wait_for};
use serde_json::{Value, json};

use crate::{RATE_PER_S, ends_clean};

async fn get(cluster: &Cluster, path: &str) -> Value {
    let answer = cluster.rest.call("GET", path, String::new()).await;
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    serde_json::from_slice(&answer.body).expect("REST answers JSON")
}

async fn plan(cluster: &Cluster, to: &str) -> Value {
    let order = json!({ "service": SERVICE, "to": to }).to_string();
    let answer = cluster.rest.call("POST", "/v1/migrations?validate_only=true", order).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    serde_json::from_slice(&answer.body).expect("REST answers JSON")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rest_plans_a_move_tells_what_clients_felt_and_drains_a_node() {
    let cluster = Setup::two_nodes().start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(100).await;
    assert_eq!(plan(&cluster, "edge-b").await["total_ms"], Value::Null, "nothing was measured yet");
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    // The way back leads to a standby: nothing is carried.
    let back = plan(&cluster, "edge-a").await;
    assert!(back["ok"] == true && back["total_ms"].is_u64() && back["from"] == "edge-b", "{back}");
    let path = format!("/v1/migrations/{id}");
    let told = wait_for(&cluster.shell, "what clients felt", || async {
        let told = get(&cluster, &path).await;
        let latency = get(&cluster, &format!("{path}/series")).await["latency"].as_array().unwrap().len();
        (told["blackout_ms"].is_u64() && latency > 1).then_some(told)
    })
    .await;
    assert!(told["hashes"]["source"].is_string() && told["can_undo"] == true, "{told}");
    let why = get(&cluster, &format!("/v1/services/{SERVICE}/why")).await;
    assert_eq!((&why["owner"], &why["history"][0]["migration"]), (&json!("edge-b"), &json!(id)));
    let log = get(&cluster, &format!("/v1/log/{SERVICE}/0?count=20")).await;
    let items = log["items"].as_array().unwrap();
    assert!(items.len() == 20 && items.iter().any(|item| item["kind"] == "Message" && item["counts"] == true), "{log}");
    takes_a_checkpoint(&cluster).await;
    let drained = cluster.rest.call("POST", "/v1/nodes/edge-b/drain", "{}".to_owned()).await;
    assert_eq!(drained.status, 202, "{}", drained.text());
    let drained: Value = serde_json::from_slice(&drained.body).unwrap();
    let id = drained["moves"][0]["migration"].as_str().unwrap_or_else(|| panic!("{drained}")).to_owned();
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    wait_for(&cluster.shell, "the drained node to own nothing", || async {
        (get(&cluster, "/v1/nodes/edge-b").await["owns"] == json!([])).then_some(())
    })
    .await;
    ends_clean(&cluster, &recorder, load).await;
}

async fn takes_a_checkpoint(cluster: &Cluster) {
    let path = format!("/v1/services/{SERVICE}/checkpoints");
    let newest = async || get(cluster, &path).await["items"].as_array().and_then(|items| items.last().cloned());
    let before = newest().await.expect("checkpoint 0 counts")["position"].as_u64();
    let asked = cluster.rest.call("POST", &path, String::new()).await;
    assert_eq!(asked.status, 202, "{}", asked.text());
    let taken = wait_for(&cluster.shell, "the checkpoint that was asked for", || async {
        newest().await.filter(|newest| newest["position"].as_u64() > before)
    })
    .await;
    assert!(taken["bytes"].as_u64() > Some(0) && taken["at_ms"].is_u64(), "{taken}");
}
