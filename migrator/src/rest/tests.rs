//! REST over real connections of the simulated world: statuses, problem bodies, the JSON of a migration.

mod access;
mod archives;
mod orders;
mod shards;
mod streams;

use std::time::Duration;

use broker_adapter::memory::Faults;
use broker_adapter::shell::{Shell, TaskSet};
use serde_json::{Value, json};
use sidecar::command::{FailureCode, ShardStatus};

use super::{Access, router, serve};
use crate::bench::{Answer, Bench, Manner, call, call_with, replica, status};

struct Server {
    bench: Bench,
    shell: Shell,
    address: String,
    /// Dropping it kills the migrator.
    migrator: TaskSet,
    _tasks: TaskSet,
}

impl Server {
    async fn start(target: Manner) -> Server {
        let mut bench = Bench::new(21, Faults::calm()).await;
        bench.sidecar(replica("a", 1), Manner::Good);
        bench.sidecar(replica("b", 2), target);
        bench.sidecar_of(replica("gate", 3), vec![ShardStatus { runs_replica: false, ..status() }], Manner::Good);
        let (shell, serving) = bench.world.process();
        let (address, migrator) = Server::migrator(&bench, &shell, Access::default()).await;
        Server { bench, shell, address, migrator, _tasks: serving }
    }

    async fn migrator(bench: &Bench, shell: &Shell, access: Access) -> (String, TaskSet) {
        let (handle, tasks) = bench.migrator("migrator").await;
        let listener = shell.listen("migrator:0").await.unwrap();
        let address = listener.address();
        shell.spawn(serve(router(handle, shell, access), listener, shell.clone()));
        (address, tasks)
    }

    /// The migrator is killed, and another one begins.
    async fn restart(&mut self) {
        self.restart_with(Access::default()).await;
    }

    async fn restart_with(&mut self, access: Access) {
        let (address, migrator) = Server::migrator(&self.bench, &self.shell, access).await;
        (self.address, self.migrator) = (address, migrator);
    }

    async fn keyed(&self, key: &str, body: &Value) -> Answer {
        let headers = [("idempotency-key", key)];
        call_with(&self.shell, &self.address, ("POST", "/v1/migrations"), &headers, &body.to_string()).await.unwrap()
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
    for volatile in ["id", "accepted_ms", "ended_ms", "total_ms", "standby_until_ms"] {
        assert!(!fields.remove(volatile).unwrap().is_null(), "{volatile}");
    }
    let plan = fields.remove("plan").unwrap();
    assert_eq!((&plan["ok"], &plan["from"], &plan["to"]), (&json!(true), &json!("a"), &json!("b")));
    let phases = fields.remove("phases").unwrap();
    let names: Vec<&str> = phases.as_array().unwrap().iter().map(|phase| phase["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "handover"]);
    assert!(phases.as_array().unwrap().iter().all(|phase| phase["ms"].is_u64() && phase["began_ms"].is_u64()));
    let wanted = json!({
        "service": "board", "shard": "0", "operation": "move", "of": null, "strategy": "live", "from": "a", "to": "b", "phase": "completed",
        "outcome": "completed", "proof": "state", "divergence": null, "epoch": 2, "attempt": 1, "lag_records": null, "state_bytes": 1,
        "error": null, "reason": "to see it", "cancel_requested": false,
        "source_position": 1, "handover_position": 2, "blackout_ms": null, "planned_blackout_ms": null,
        "hashes": { "position": 1, "source": "00".repeat(32), "target": "00".repeat(32), "kind": "state" },
        "forecast": null, "can_cancel": false, "can_undo": true, "why_not_undo": null, "keep_standby_s": 600,
        "max_blackout_ms": null, "deadline_s": null,
    });
    assert_eq!(view, wanted);
    let list = server.call("GET", "/v1/migrations", "").await.json();
    assert_eq!((list["items"].as_array().unwrap().len(), &list["next_page_token"]), (1, &Value::Null));
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
    let board = &services["items"][0];
    assert_eq!(
        (&board["service"], &board["owner"], &board["standbys"]),
        (&json!("board"), &json!("a"), &json!(["b", "gate"]))
    );
    assert_eq!(board["replicas"].as_array().unwrap().len(), 3);
    let one = server.call("GET", "/v1/services/board", "").await.json();
    assert_eq!(one, services);
    let unknown = server.call("GET", "/v1/services/bord", "").await;
    assert_eq!((unknown.status, unknown.json()["hint"].as_str()), (404, Some("known are: board")));
    let nodes = server.call("GET", "/v1/nodes", "").await.json();
    assert_eq!((&nodes["items"][1]["name"], &nodes["items"][1]["silent"]), (&json!("b"), &json!(false)));
    assert_eq!(nodes["items"][0]["owns"], json!([{ "service": "board", "shard": "0" }]));
    assert_eq!(server.call("GET", "/v1/nodes/b", "").await.json()["state"], "alive");
    assert_eq!(server.call("GET", "/v1/nodes/c", "").await.json()["code"], "unknown-node");
    let told = server.call("GET", "/v1/status", "").await.json();
    assert_eq!((&told["stale_after_ms"], &told["nodes_alive"]), (&json!(5_000), &json!(3)));
    assert!(!told["broker"]["durability"].as_str().unwrap().is_empty());
    assert_eq!(server.call("GET", "/version", "").await.json()["api"], "v1");
    assert_eq!(server.call("GET", "/livez", "").await.text, "ok\n");
    let ready = server.call("GET", "/readyz?verbose", "").await;
    assert_eq!(ready.status, 200);
    assert!(ready.text.contains("[+] journal: owned since epoch 1"), "{}", ready.text);
    assert!(server.call("GET", "/metrics", "").await.text.contains("segue_nodes_alive 3"));
    assert_eq!(server.call("GET", "/", "").await.kind, "text/html; charset=utf-8");
}

#[tokio::test(start_paused = true)]
async fn migrations_come_in_pages_the_newest_first_and_can_be_filtered() {
    let server = Server::start(Manner::FailsAt("prepare-target", FailureCode::Service)).await;
    for _ in 0..5 {
        let location = server.post(json!({ "service": "board", "to": "b" })).await.location;
        server.call("GET", &format!("{location}?wait=30s"), "").await;
    }
    let all = server.call("GET", "/v1/migrations", "").await.json();
    let ids = |list: &Value| -> Vec<Value> {
        list["items"].as_array().unwrap().iter().map(|item| item["id"].clone()).collect()
    };
    let times: Vec<u64> =
        all["items"].as_array().unwrap().iter().map(|item| item["accepted_ms"].as_u64().unwrap()).collect();
    assert!(times.len() == 5 && times.is_sorted_by(|newer, older| newer >= older), "{times:?}");
    let (mut paged, mut token) = (Vec::new(), String::new());
    loop {
        let page = server.call("GET", &format!("/v1/migrations?page_size=2{token}"), "").await.json();
        paged.extend(ids(&page));
        let Some(next) = page["next_page_token"].as_str() else { break };
        token = format!("&page_token={next}");
    }
    assert_eq!(paged, ids(&all));
    for (filter, count) in [
        ("outcome=rolled-back", 5),
        ("outcome=completed", 0),
        ("running=true", 0),
        ("running=false&node=b&service=board", 5),
        ("node=gate", 0),
    ] {
        let list = server.call("GET", &format!("/v1/migrations?{filter}"), "").await.json();
        assert_eq!(ids(&list).len(), count, "{filter}");
    }
    for (wrong, code) in [
        ("page_size=0", "bad-query"),
        ("page_size=x", "bad-query"),
        ("outcome=won", "bad-query"),
        ("pagesize=2", "bad-query"),
        ("page_token=x", "bad-page-token"),
    ] {
        let answer = server.call("GET", &format!("/v1/migrations?{wrong}"), "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (400, Some(code)), "{wrong}");
    }
}

#[tokio::test(start_paused = true)]
async fn every_documented_operation_is_routed_and_every_answer_carries_its_name() {
    let server = Server::start(Manner::Good).await;
    let document = server.call("GET", "/openapi.json", "").await.json();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            let told = path.replace("{id}", &"0".repeat(32)).replace("{name}", "board").replace("{service}", "board");
            let json = [("accept", "application/json")];
            let line = (method.to_uppercase(), told.replace("{shard}", "0"));
            let line = (line.0.as_str(), line.1.as_str());
            let answer = call_with(&server.shell, &server.address, line, &json, "").await.unwrap();
            assert!(
                !answer.text.contains("no-such-path") && !answer.text.contains("no-such-method"),
                "{method} {path}"
            );
            let status = answer.status.to_string();
            assert!(
                !item[method]["responses"][&status].is_null(),
                "{method} {path} answers {status}, which is not documented"
            );
            assert!(!answer.request_id.is_empty(), "{method} {path}");
        }
    }
    let problem = server.call("GET", "/v1/nodes/c", "").await;
    assert_eq!(problem.json()["request_id"], problem.request_id.as_str());
    assert!(server.call("GET", "/docs", "").await.text.contains("/openapi.json"));
}
