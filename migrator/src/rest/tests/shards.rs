//! What one shard's log tells, and draining a node.

use broker_adapter::ids::{Epoch, Hash, Position};
use broker_adapter::record::{Body, Header, Key, Message, Record, Request, Skip, Writer};
use bytes::Bytes;
use serde_json::{Value, json};

use super::Server;
use crate::bench::{Manner, replica, shard};

async fn append(server: &Server, records: Vec<Record>) {
    let link = server.bench.broker.connect("test");
    link.log(&shard().log_name()).await.unwrap().append(records).await.unwrap();
}

fn message() -> Record {
    use broker_adapter::ids::{Count, MessageName, Sequence, Session};
    let header =
        |name: &str, value: &'static str| Header { name: name.to_owned(), value: Bytes::from_static(value.as_bytes()) };
    let headers = vec![header("authorization", "Bearer s3cret"), header("traceparent", "00-abc")];
    let body = Body::Inline(Bytes::from("x".repeat(3_000)));
    Record::Message(Box::new(Message {
        name: MessageName { session: Session::from_bits(9), sequence: Sequence(1) },
        base: Some(Count(0)),
        key: Key::Own { count: Count(0) },
        source: None,
        ingress: replica("gate", 3),
        request: Request { method: "POST".into(), path: "/flights".into(), headers, body },
    }))
}

#[tokio::test(start_paused = true)]
async fn the_log_is_shown_with_what_counts_and_without_credentials() {
    let server = Server::start(Manner::Good).await;
    let zombie = Writer { epoch: Epoch(0), replica: replica("b", 2) };
    let void = Record::Skip(Skip { writer: zombie, position: Position(1) });
    append(&server, vec![message(), void]).await;
    let page = server.call("GET", "/v1/log/board/0", "").await;
    assert!(!page.text.contains("s3cret"), "{}", page.text);
    let page = page.json();
    assert_eq!((&page["first"], &page["tail"]), (&json!(1), &json!(3)));
    let kinds: Vec<_> = page["items"].as_array().unwrap().iter().map(|item| (&item["kind"], &item["counts"])).collect();
    let wanted = [(&json!("Fence"), &json!(true)), (&json!("Message"), &json!(true)), (&json!("Skip"), &json!(false))];
    assert_eq!(kinds, wanted);
    let told = &page["items"][1];
    assert_eq!(
        (&told["summary"], &told["writer"], &told["verdict"]),
        (&json!("POST /flights"), &json!("gate"), &json!("applied"))
    );
    assert_eq!((&told["body"]["bytes"], &told["body"]["cut"]), (&json!(3_000), &json!(true)));
    assert_eq!(told["body"]["text"].as_str().unwrap().len(), 2_048);
    assert_eq!(told["fields"]["headers"][1]["value"], "00-abc");
    let one = server.call("GET", "/v1/log/board/0?from=2&count=1", "").await.json();
    assert_eq!((one["items"].as_array().unwrap().len(), &one["items"][0]["position"]), (1, &json!(2)));
    assert_eq!(server.call("GET", "/v1/log/board/0?from=99", "").await.json()["items"], json!([]));
    assert_eq!(server.call("GET", "/v1/log/board/0/skips", "").await.json()["items"], json!([]));
    for (path, status, code) in [
        ("/v1/log/bord/0", 404, "unknown-service"),
        ("/v1/log/board/1", 404, "unknown-service"),
        ("/v1/log/board/0?count=0", 400, "bad-query"),
        ("/v1/log/board/0?from=0", 400, "bad-query"),
        ("/v1/services/board/why?shard=9", 404, "unknown-service"),
    ] {
        let answer = server.call("GET", path, "").await;
        assert_eq!((answer.status, answer.json()["code"].as_str()), (status, Some(code)), "{path}");
    }
    assert!(!server.bench.broker.logs().contains(&"bord.0".to_owned()), "asking made no log");
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_never_delivered_is_a_dead_letter() {
    let server = Server::start(Manner::Good).await;
    let owner = Writer { epoch: Epoch(1), replica: replica("a", 1) };
    append(&server, vec![message(), Record::Skip(Skip { writer: owner, position: Position(2) })]).await;
    let skips = server.call("GET", "/v1/log/board/0/skips", "").await.json();
    assert_eq!((&skips["items"][0]["position"], &skips["items"][0]["summary"]), (&json!(2), &json!("POST /flights")));
}

#[tokio::test(start_paused = true)]
async fn why_tells_who_moved_it_and_where_it_could_go() {
    let server = Server::start(Manner::Good).await;
    let first = server.call("GET", "/v1/services/board/why", "").await.json();
    assert_eq!((&first["owner"], &first["history"][0]["cause"]), (&json!("a"), &json!("first")));
    let location = server.post(json!({ "service": "board", "to": "b", "reason": "a is hot" })).await.location;
    server.call("GET", &format!("{location}?wait=30s"), "").await;
    let why = server.call("GET", "/v1/services/board/why", "").await.json();
    assert_eq!(
        (&why["owner"], &why["history"][0]["cause"], &why["history"][1]["cause"]),
        (&json!("b"), &json!("handover"), &json!("first"))
    );
    let because = why["because"].as_str().unwrap();
    assert!(
        because.starts_with("a migration moved it to b: migration ") && because.ends_with("because: a is hot"),
        "{because}"
    );
    assert!(why["since_ms"].is_u64() && why["history"][0]["at_ms"].is_u64());
    let target = |name: &str| -> Value {
        why["can_move_to"].as_array().unwrap().iter().find(|target| target["node"] == name).cloned().unwrap()
    };
    assert_eq!(target("gate")["ok"], false);
    assert!(
        target("gate")["checks"]
            .as_array()
            .unwrap()
            .iter()
            .any(|check| check["code"] == "target-runs-service" && check["ok"] == false)
    );
}

#[tokio::test(start_paused = true)]
async fn a_drain_moves_what_can_move_and_says_why_the_rest_cannot() {
    let server = Server::start(Manner::Good).await;
    let looked = server.call("POST", "/v1/nodes/a/drain", r#"{"validate_only": true}"#).await;
    assert_eq!((looked.status, &looked.json()["moves"][0]["to"]), (200, &json!("b")));
    assert_eq!(server.call("GET", "/v1/migrations", "").await.json()["items"], json!([]));
    let drained = server.call("POST", "/v1/nodes/a/drain", r#"{"reason": "new fan"}"#).await;
    assert_eq!(drained.status, 202, "{}", drained.text);
    let moved = drained.json()["moves"][0].clone();
    assert_eq!((&moved["service"], &moved["to"], &moved["problem"]), (&json!("board"), &json!("b"), &Value::Null));
    let id = moved["migration"].as_str().unwrap();
    let ended = server.call("GET", &format!("/v1/migrations/{id}?wait=30s"), "").await.json();
    assert_eq!((&ended["outcome"], &ended["reason"]), (&json!("completed"), &json!("new fan")));
    assert_eq!(server.call("POST", "/v1/nodes/b/drain", "{}").await.json()["moves"], json!([]));
    assert_eq!(server.call("POST", "/v1/nodes/c/drain", "{}").await.json()["code"], "unknown-node");
    assert_eq!(server.call("POST", "/v1/nodes/b/drain", r#"{"at_a_time": 0}"#).await.json()["code"], "bad-request");
}

#[tokio::test(start_paused = true)]
async fn the_owner_is_asked_for_a_checkpoint_and_those_that_count_are_shown() {
    let server = Server::start(Manner::Good).await;
    let asked = server.call("POST", "/v1/services/board/checkpoints", "").await;
    assert_eq!((asked.status, &asked.json()["owner"]), (202, &json!("a")));
    let owner = Writer { epoch: Epoch(1), replica: replica("a", 1) };
    let (position, manifest) = (Position::ZERO, Hash::of(b"m"));
    let taken = broker_adapter::record::Checkpoint { writer: owner, position, manifest, record_crc: 0 };
    append(&server, vec![Record::Checkpoint(taken)]).await;
    let list = server.call("GET", "/v1/services/board/checkpoints", "").await.json();
    let one = &list["items"][0];
    assert_eq!((&one["position"], &one["pinned"], &one["bytes"]), (&json!(0), &json!(false), &Value::Null));
    assert!(one["at_ms"].is_u64() && one["hash"].as_str().unwrap().len() == 64);
}
