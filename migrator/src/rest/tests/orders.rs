//! Orders before they are orders, and twice: plans, keys, limits.

use std::time::Duration;

use serde_json::{Value, json};
use sidecar::command::Step;

use super::Server;
use crate::bench::Manner;

#[tokio::test(start_paused = true)]
async fn validate_only_answers_the_plan_and_changes_nothing() {
    let server = Server::start(Manner::Good).await;
    let ask = async |body: Value| server.call("POST", "/v1/migrations?validate_only=true", &body.to_string()).await;
    let plan = ask(json!({ "service": "board", "to": "b" })).await;
    assert_eq!((plan.status, &plan.json()["ok"], &plan.json()["strategy"]), (200, &json!(true), &json!("live")));
    assert_eq!(plan.json()["phases"].as_array().unwrap().len(), 7);
    let refused = ask(json!({ "service": "board", "to": "gate" })).await;
    let failed = |plan: &Value| -> Vec<Value> {
        plan["checks"].as_array().unwrap().iter().filter(|check| check["ok"] == false).cloned().collect()
    };
    assert_eq!((refused.status, &refused.json()["ok"]), (200, &json!(false)));
    assert_eq!(failed(&refused.json())[0]["code"], "target-runs-service");
    assert_eq!(failed(&ask(json!({ "service": "board", "to": "a" })).await.json())[0]["code"], "target-is-not-owner");
    let nothing = server.call("GET", "/v1/migrations", "").await.json();
    assert_eq!(nothing["items"], json!([]));
    let problem = server.post(json!({ "service": "board", "to": "gate" })).await.json();
    assert_eq!(
        (&problem["code"], &failed(&problem)[0]["code"]),
        (&json!("target-is-ingress"), &json!("target-runs-service"))
    );
    assert!(problem["request_id"].is_string());
}

#[tokio::test(start_paused = true)]
async fn the_same_order_under_the_same_key_is_one_migration_also_after_a_restart() {
    let mut server = Server::start(Manner::Good).await;
    let order = json!({ "service": "board", "to": "b", "reason": "once" });
    let first = server.keyed("k-1", &order).await;
    assert_eq!(first.status, 202);
    server.call("GET", &format!("{}?wait=30s", first.location), "").await;
    // Without the key it would be refused: the shard is there already.
    let again = server.keyed("k-1", &order).await;
    assert_eq!(
        (again.status, &again.location, again.json()["id"].clone()),
        (202, &first.location, first.json()["id"].clone())
    );
    let other = server.keyed("k-1", &json!({ "service": "board", "to": "a" })).await;
    assert_eq!((other.status, other.json()["code"].as_str()), (422, Some("key-reused")));
    assert_eq!(server.keyed("k-2", &order).await.status, 409);
    assert_eq!(server.keyed("", &order).await.json()["code"], "bad-idempotency-key");
    server.restart().await;
    let later = server.keyed("k-1", &order).await;
    assert_eq!((later.status, later.location), (202, first.location));
    // Nobody announces anything for a day, so that the day passes quickly.
    server.bench.sidecars.clear();
    server.bench.shell.sleep(Duration::from_secs(24 * 3_600)).await;
    let forgotten = server.keyed("k-1", &json!({ "service": "board", "to": "a" })).await;
    assert_ne!(forgotten.json()["code"], "key-reused", "{}", forgotten.text);
}

#[tokio::test(start_paused = true)]
async fn the_same_key_twice_at_once_begins_one_migration() {
    let server = Server::start(Manner::SilentAt("replay")).await;
    let order = json!({ "service": "board", "to": "b" });
    let (one, two) = futures_util::future::join(server.keyed("k", &order), server.keyed("k", &order)).await;
    let mut statuses = [one.status, two.status];
    statuses.sort_unstable();
    assert_eq!(statuses, [202, 409]);
    let refused = if one.status == 409 { one } else { two };
    assert_eq!(refused.json()["code"], "key-in-flight");
    assert_eq!(server.call("GET", "/v1/migrations", "").await.json()["items"].as_array().unwrap().len(), 1);
}

#[tokio::test(start_paused = true)]
async fn an_order_that_takes_longer_than_its_deadline_rolls_back_and_says_so() {
    let server = Server::start(Manner::SilentAt("replay")).await;
    let location = server.post(json!({ "service": "board", "to": "b", "deadline_s": 2 })).await.location;
    let ended = server.call("GET", &format!("{location}?wait=30s"), "").await.json();
    assert_eq!((&ended["outcome"], &ended["deadline_s"]), (&json!("rolled-back"), &json!(2)));
    assert!(ended["error"].as_str().unwrap().contains("2 s after its acceptance"), "{ended}");
    assert!(ended["total_ms"].as_u64().unwrap() < 4_000, "the phase's own limit is 5 s: {ended}");
    let (status, code, _) = server.refused(json!({ "service": "board", "to": "b", "deadline_s": 0 })).await;
    assert_eq!((status, code.as_str()), (422, "bad-limit"));
    let much = json!({ "service": "board", "to": "b", "keep_standby_s": u64::MAX });
    assert_eq!(server.refused(much).await.1, "bad-limit");
}

#[tokio::test(start_paused = true)]
async fn a_pause_is_no_longer_than_the_blackout_that_is_allowed() {
    let server = Server::start(Manner::Good).await;
    let order = json!({ "service": "board", "to": "b", "strategy": "stop-and-copy", "max_blackout_ms": 900 });
    let location = server.post(order).await.location;
    server.call("GET", &format!("{location}?wait=30s"), "").await;
    let told = server.bench.told.lock().unwrap();
    let pause = told.iter().find_map(|(_, command)| match command.step {
        Step::Pause { limit_ms, .. } => Some(limit_ms),
        _ => None,
    });
    assert_eq!(pause, Some(900));
}
