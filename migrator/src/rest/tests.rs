//! REST over real connections of the simulated world: statuses, problem bodies, the JSON of a migration.

use std::time::Duration;

use broker_adapter::memory::Faults;
use broker_adapter::shell::{Shell, TaskSet};
use serde_json::{Value, json};
use sidecar::command::ShardStatus;

use super::{router, serve};
use crate::bench::{Answer, Bench, Manner, call, replica, status};

struct Server {
    bench: Bench,
    shell: Shell,
    address: String,
    _tasks: TaskSet,
}

impl Server {
    async fn start(target: Manner) -> Server {
        let mut bench = Bench::new(21, Faults::calm()).await;
        bench.sidecar(replica("a", 1), Manner::Good);
        bench.sidecar(replica("b", 2), target);
        bench.sidecar_of(replica("gate", 3), vec![ShardStatus { runs_replica: false, ..status() }], Manner::Good);
        let (handle, tasks) = bench.migrator("migrator").await;
        let (shell, serving) = bench.world.process();
        let listener = shell.listen("migrator:0").await.unwrap();
        let address = listener.address();
        shell.spawn(serve(router(handle, &shell), listener, shell.clone()));
        // The migrator's tasks live as long as the bench does.
        bench.sidecars.push(tasks);
        Server { bench, shell, address, _tasks: serving }
    }

    async fn call(&self, method: &str, path: &str, body: &str) -> Answer {
        call(&self.shell, &self.address, (method, path), body).await.unwrap()
    }

    async fn post(&self, body: Value) -> Answer {
        self.call("POST", "/v1/migrations", &body.to_string()).await
    }

    async fn refused(&self, body: Value) -> (u16, String, String) {
        let answer = self.post(body).await;
        assert_eq!(answer.kind, "application/problem+json");
        let problem = answer.json();
        assert_eq!(problem["status"], answer.status);
        let text = |key: &str| problem[key].as_str().unwrap().to_owned();
        assert!(!text("title").is_empty() && !text("detail").is_empty() && text("type").ends_with(&text("code")));
        (answer.status, text("code"), text("hint"))
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_is_accepted_with_its_location_and_shown_to_its_end() {
    let server = Server::start(Manner::Good).await;
    let answer = server.post(json!({ "service": "board", "to": "b", "reason": "to see it" })).await;
    assert_eq!((answer.status, answer.kind.as_str()), (202, "application/json"));
    let accepted = answer.json();
    assert_eq!(answer.location, format!("/v1/migrations/{}", accepted["id"].as_str().unwrap()));
    let ended = server.call("GET", &format!("{}?wait=30s", answer.location), "").await;
    let mut view = ended.json();
    let fields = view.as_object_mut().unwrap();
    for volatile in ["id", "accepted_ms", "ended_ms", "total_ms"] {
        assert!(!fields.remove(volatile).unwrap().is_null(), "{volatile}");
    }
    let phases = fields.remove("phases").unwrap();
    let names: Vec<&str> = phases.as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "handover"]);
    assert!(phases.as_array().unwrap().iter().all(|phase| phase["ms"].is_u64()));
    let wanted = json!({
        "service": "board", "shard": "0", "operation": "move", "of": null, "strategy": "live", "from": "a", "to": "b", "phase": "completed",
        "outcome": "completed", "proof": "state", "divergence": null, "epoch": 2, "attempt": 1, "lag_records": null, "state_bytes": 1,
        "error": null, "reason": "to see it", "cancel_requested": false,
    });
    assert_eq!(view, wanted);
    let list = server.call("GET", "/v1/migrations", "").await.json();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let equal = server.call("GET", &format!("{}/divergence", answer.location), "").await;
    assert_eq!((equal.status, equal.json()["code"].as_str()), (404, Some("no-divergence")));
}

#[tokio::test(start_paused = true)]
async fn every_refusal_is_a_problem_with_a_code_and_a_hint() {
    let server = Server::start(Manner::SilentAt("replay")).await;
    let (status, code, hint) = server.refused(json!({ "service": "bord", "to": "b" })).await;
    assert_eq!((status, code.as_str(), hint.as_str()), (404, "unknown-service", "known are: board"));
    let (status, code, hint) = server.refused(json!({ "service": "board", "to": "c" })).await;
    assert_eq!((status, code.as_str(), hint.as_str()), (404, "unknown-node", "known are: a, b, gate"));
    let (status, code, hint) = server.refused(json!({ "service": "board", "to": "gate" })).await;
    assert_eq!((status, code.as_str()), (409, "target-is-ingress"));
    assert!(hint.contains("add run or attach") && hint.ends_with("known are: a, b"), "{hint}");
    let (status, code, _) = server.refused(json!({ "service": "board", "to": "a" })).await;
    assert_eq!((status, code.as_str()), (409, "target-is-source"));
    let (status, code, _) = server.refused(json!({ "service": "board", "to": "b", "strategy": "post-copy" })).await;
    assert_eq!((status, code.as_str()), (422, "unknown-strategy"));
    let (status, code, _) = server.refused(json!({ "service": "board", "two": "b" })).await;
    assert_eq!((status, code.as_str()), (422, "bad-request"));
    let id = server.post(json!({ "service": "board", "to": "b" })).await.json()["id"].as_str().unwrap().to_owned();
    let (status, code, hint) = server.refused(json!({ "service": "board", "to": "b" })).await;
    assert_eq!((status, code.as_str()), (409, "already-moving"));
    assert!(hint.contains(&id));
    let broken = server.call("POST", "/v1/migrations", "{").await;
    assert_eq!((broken.status, broken.json()["code"].as_str()), (400, Some("bad-json")));
    let large = server.call("POST", "/v1/migrations", &" ".repeat(70 << 10)).await;
    assert_eq!((large.status, large.kind.as_str()), (413, "application/problem+json"));
    for (method, path, status, code) in [
        ("GET", "/v1/migrations/77", 404, "unknown-migration"),
        ("POST", "/v1/migrations/00000000000000000000000000000001/cancel", 404, "unknown-migration"),
        ("GET", "/v2", 404, "no-such-path"),
        ("DELETE", "/v1/nodes", 405, "no-such-method"),
    ] {
        let answer = server.call(method, path, "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{path}");
    }
    let wait = server.call("GET", &format!("/v1/migrations/{id}?wait=soon"), "").await;
    assert_eq!((wait.status, wait.json()["code"].as_str()), (400, Some("bad-wait")));
}

#[tokio::test(start_paused = true)]
async fn a_cancel_is_accepted_and_shown() {
    let server = Server::start(Manner::SilentAt("replay")).await;
    let location = server.post(json!({ "service": "board", "to": "b" })).await.location;
    server.bench.shell.sleep(Duration::from_millis(500)).await;
    let cancelled = server.call("POST", &format!("{location}/cancel"), "").await;
    assert_eq!((cancelled.status, &cancelled.json()["cancel_requested"]), (202, &json!(true)));
    let ended = server.call("GET", &format!("{location}?wait=60s"), "").await.json();
    assert_eq!(ended["outcome"], "cancelled");
    let again = server.call("POST", &format!("{location}/cancel"), "").await;
    assert_eq!((again.status, again.json()["code"].as_str()), (409, Some("already-ended")));
}

#[tokio::test(start_paused = true)]
async fn services_nodes_health_metrics_and_the_page_are_served() {
    let server = Server::start(Manner::Good).await;
    let services = server.call("GET", "/v1/services", "").await.json();
    assert_eq!((&services[0]["service"], &services[0]["owner"]), (&json!("board"), &json!("a")));
    assert_eq!(services[0]["replicas"].as_array().unwrap().len(), 3);
    let nodes = server.call("GET", "/v1/nodes", "").await.json();
    assert_eq!((&nodes[1]["name"], &nodes[1]["silent"]), (&json!("b"), &json!(false)));
    assert_eq!(server.call("GET", "/livez", "").await.text, "ok\n");
    let ready = server.call("GET", "/readyz?verbose", "").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text.contains("[+] journal: owned since epoch 1"), "{}", ready.text);
    assert!(server.call("GET", "/metrics", "").await.text.contains("segue_nodes_alive 3"));
    assert_eq!(server.call("GET", "/", "").await.kind, "text/html; charset=utf-8");
}
