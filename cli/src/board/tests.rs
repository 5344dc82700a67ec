//! The delay board over HTTP, in a simulated world.

use std::time::Duration;

use broker_adapter::shell::Shell;
use broker_adapter::shell::sim::SimWorld;
use serde_json::Value;

use super::serve;
use crate::rest::{Answer, Rest};

const FLIGHT: &str = "2013,1,1,540,2,850,33,AA,1141,N619AA,JFK,MIA,160,1089";
const CANCELLED: &str = "2013,1,1,600,NA,901,NA,B6,125,N618JB,JFK,FLL,NA,1069";

fn run<F: Future<Output = ()>>(test: impl FnOnce(Shell) -> F) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let (shell, _tasks) = SimWorld::new(1).process();
        test(shell).await;
    });
}

async fn board(shell: &Shell, address: &str, state_mb: u64) -> Rest {
    let address = serve(address, state_mb, shell.clone()).await.unwrap();
    Rest::new(&format!("http://{address}"), shell.clone(), Duration::from_secs(10)).unwrap()
}

async fn post(rest: &Rest, line: &str) -> Answer {
    rest.call("POST", "/flights", "text/csv", line.to_owned().into()).await.unwrap()
}

fn json(answer: &Answer) -> Value {
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_flight_is_counted_and_shown() {
    run(|shell| async move {
        let rest = board(&shell, "board:80", 0).await;
        assert_eq!(json(&post(&rest, FLIGHT).await)["n"], 1);
        assert_eq!(json(&post(&rest, CANCELLED).await)["n"], 2);
        assert_eq!(post(&rest, "no flight").await.status, 400);
        let shown = json(&rest.get("/board").await.unwrap());
        assert_eq!(shown["flights"], 2);
        assert_eq!(shown["carriers"]["B6"]["cancelled"], 1);
        assert_eq!(shown["routes"]["JFK-MIA"]["worst"][0], FLIGHT);
    });
}

#[test]
fn a_saved_state_makes_another_service_equal() {
    run(|shell| async move {
        let (a, b) = (board(&shell, "a:80", 1).await, board(&shell, "b:80", 0).await);
        post(&a, FLIGHT).await;
        let saved = a.get("/segue/state").await.unwrap();
        assert_eq!(saved.header("segue-snapshot"), Some("fixed, canonical"));
        assert_eq!(b.call("PUT", "/segue/state", "x/y", saved.body.clone()).await.unwrap().status, 200);
        assert_eq!(b.get("/segue/state").await.unwrap().body, saved.body);
        assert_eq!(post(&b, CANCELLED).await.body, post(&a, CANCELLED).await.body);
    });
}

#[test]
fn a_truncated_load_leaves_no_state() {
    run(|shell| async move {
        let rest = board(&shell, "board:80", 1).await;
        let saved = rest.get("/segue/state").await.unwrap().body;
        let half = saved.slice(..saved.len() / 2);
        assert_eq!(rest.call("PUT", "/segue/state", "x/y", half).await.unwrap().status, 400);
        assert_eq!(post(&rest, FLIGHT).await.status, 503);
        assert_eq!(rest.get("/segue/state").await.unwrap().status, 503);
        assert_eq!(rest.call("PUT", "/segue/state", "x/y", saved).await.unwrap().status, 200);
        assert_eq!(json(&post(&rest, FLIGHT).await)["n"], 1);
    });
}

#[test]
fn flights_go_on_while_a_fixed_snapshot_streams() {
    run(|shell| async move {
        let rest = board(&shell, "board:80", 8).await;
        let before = rest.get("/segue/state").await.unwrap().body;
        // The head of the answer is there, the body is not read yet: the pipe holds far less than the state.
        let saving = rest.open(("GET", "/segue/state"), "x/y", &[], bytes::Bytes::new()).await.unwrap();
        for n in 1..=50 {
            assert_eq!(json(&post(&rest, FLIGHT).await)["n"], n);
        }
        assert_eq!(saving.read().await.unwrap().body, before);
    });
}

#[test]
fn a_request_is_answered_alike_alone_and_in_a_batch() {
    run(|shell| async move {
        let (alone, batch) = (board(&shell, "a:80", 0).await, board(&shell, "b:80", 0).await);
        let long = "x".repeat(300);
        let requests = [
            ("POST", "/flights", FLIGHT),
            ("POST", "/flights?x=1", CANCELLED),
            ("POST", "/flights", "no flight"),
            ("POST", "/flights", &long),
            ("POST", "/flights", FLIGHT),
            ("GET", "/board", ""),
            ("PUT", "/else", "a body"),
            ("POST", "/flights", CANCELLED),
        ];
        let line = |(method, path, body): &(&str, &str, &str)| serde_json::json!({"position": 1, "method": method, "path": path, "headers": [["a", "b"]], "body": body});
        let lines: Vec<String> = requests.iter().map(|request| line(request).to_string()).collect();
        let answered = batch.call("POST", "/segue/batch", "text/plain", lines.join("\n").into()).await.unwrap();
        assert_eq!(answered.header("content-type"), Some("application/vnd.segue.batch+ndjson; version=1"));
        let replies = String::from_utf8(answered.body.to_vec()).unwrap();
        assert_eq!(replies.lines().count(), requests.len());
        for ((method, path, body), reply) in requests.into_iter().zip(replies.lines()) {
            let reply: Value = serde_json::from_str(reply).unwrap();
            let answer = alone.call(method, path, "text/csv", body.to_owned().into()).await.unwrap();
            assert_eq!(reply["status"], answer.status, "{method} {path}");
            assert_eq!(reply["body"].as_str().unwrap().as_bytes(), answer.body, "{method} {path}");
            assert_eq!(reply["headers"][0][1].as_str(), answer.header("content-type"), "{method} {path}");
        }
        let broken =
            batch.call("POST", "/segue/batch", "text/plain", format!("{}\n{{", lines[0]).into()).await.unwrap();
        assert_eq!(broken.status, 400);
        assert_eq!(json(&batch.get("/board").await.unwrap())["flights"], 4, "a broken batch changes nothing");
    });
}
