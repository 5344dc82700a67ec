//! Streams of events, lines, recordings.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use sidecar::command::{ReplicaState, ShardStatus, TrafficSlice};

use super::Server;
use crate::bench::{Manner, call_with, replica, status};

async fn open(server: &Server, path: &str, last: Option<u64>) -> hyper::Response<hyper::body::Incoming> {
    let stream = server.shell.connect(&server.address).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
    server.shell.spawn(async move { drop(connection.await) });
    let mut request = hyper::Request::builder().uri(path).header("host", "migrator");
    if let Some(last) = last {
        request = request.header("last-event-id", last);
    }
    sender.send_request(request.body(Full::new(Bytes::new())).unwrap()).await.unwrap()
}

/// Reads a stream of events until one is as wanted; the frames up to it.
async fn frames(
    server: &Server,
    path: &str,
    last: Option<u64>,
    is_last: impl Fn(&Value) -> bool,
) -> Vec<(Option<u64>, Value)> {
    let response = open(server, path, last).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let (mut body, mut text, mut frames) = (response.into_body(), String::new(), Vec::new());
    loop {
        while let Some(end) = text.find("\n\n") {
            let frame: String = text.drain(..end + 2).collect();
            let field = |name: &str| frame.lines().find_map(|line| line.strip_prefix(name)).map(str::to_owned);
            let data: Value = serde_json::from_str(&field("data: ").unwrap()).unwrap();
            assert_eq!(data["kind"], field("event: ").unwrap());
            let is_last = is_last(&data);
            frames.push((field("id: ").map(|id| id.parse().unwrap()), data));
            if is_last {
                return frames;
            }
        }
        let bytes = body.frame().await.unwrap().unwrap().into_data().unwrap();
        text += std::str::from_utf8(&bytes).unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn events_stream_live_and_go_on_where_the_listener_was_also_after_a_restart() {
    let mut server = Server::start(Manner::Good).await;
    // What nodes and services are is told a moment later, when the move is over.
    let of_service = |event: &Value| event["kind"] == "service";
    let (live, location) = futures_util::future::join(frames(&server, "/v1/events", None, of_service), async {
        server.bench.shell.sleep(Duration::from_millis(100)).await;
        server.post(json!({ "service": "board", "to": "b" })).await.location
    })
    .await;
    let lasting: Vec<(u64, Value)> =
        live.iter().filter_map(|(id, event)| Some(((*id)?, event["title"].clone()))).collect();
    assert!(lasting.is_sorted_by(|one, two| one.0 < two.0) && lasting.len() > 8, "{lasting:?}");
    assert_eq!((&live[0].1["kind"], &lasting[1].1), (&json!("heartbeat"), &json!("move accepted")));
    assert!(live.last().unwrap().0.is_none() && live.last().unwrap().1["data"]["service"] == "board");
    let last = lasting.last().unwrap().0;
    server.call("GET", &format!("{location}?wait=30s"), "").await;
    server.bench.shell.sleep(Duration::from_secs(2)).await;
    let middle = lasting[4].0;
    let is_last = |event: &Value| event["kind"] == "heartbeat";
    let missed = frames(&server, "/v1/events", Some(middle), is_last).await;
    let ids: Vec<u64> = missed.iter().filter_map(|(id, _)| *id).collect();
    assert!(ids[0] == lasting[5].0 && ids.contains(&last), "{ids:?}");
    server.restart().await;
    let after = frames(&server, &format!("{location}/events"), Some(middle), is_last).await;
    assert!(after.iter().zip(&missed).all(|(after, missed)| after.0 == missed.0 || after.1["kind"] == "heartbeat"));
    assert_eq!(after[0].1["title"], missed[0].1["title"]);
    assert_eq!(after[0].1["data"]["outcome"], "completed");
    let json = [("accept", "application/json")];
    let once = call_with(&server.shell, &server.address, ("GET", "/v1/events"), &json, "").await.unwrap().json();
    assert_eq!(once["items"][0]["title"], "move accepted");
    let bad = [("last-event-id", "x")];
    let bad = call_with(&server.shell, &server.address, ("GET", "/v1/events"), &bad, "").await.unwrap();
    assert_eq!((bad.status, bad.json()["code"].as_str()), (400, Some("bad-event-id")));
}

#[tokio::test(start_paused = true)]
async fn streams_are_bounded_and_one_that_is_closed_makes_room() {
    let server = Server::start(Manner::Good).await;
    let mut all = Vec::new();
    for _ in 0..super::super::events::STREAMS_MAX {
        all.push(open(&server, "/v1/events", None).await);
    }
    assert!(all.iter().all(|response| response.status() == 200));
    let refused = server.call("GET", "/v1/events", "").await;
    assert_eq!((refused.status, refused.json()["code"].as_str()), (429, Some("too-many-streams")));
    all.pop();
    // The next thing that is written finds that nobody reads any more.
    server.bench.shell.sleep(Duration::from_secs(6)).await;
    assert_eq!(open(&server, "/v1/events", None).await.status(), 200);
}

#[tokio::test(start_paused = true)]
async fn a_quiet_stream_says_that_it_lives() {
    let server = Server::start(Manner::Good).await;
    let beats = std::cell::Cell::new(0);
    let third = |event: &Value| {
        beats.set(beats.get() + u32::from(event["kind"] == "heartbeat"));
        beats.get() == 3
    };
    let began = server.bench.shell.now();
    frames(&server, "/v1/events", None, third).await;
    let took = server.bench.shell.now() - began;
    assert!(took >= Duration::from_secs(10) && took < Duration::from_secs(12), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn a_recording_holds_all_of_a_migration_and_its_lag_ran_somewhere() {
    let server = Server::start(Manner::SilentAt("verify")).await;
    let location = server.post(json!({ "service": "board", "to": "b", "deadline_s": 3 })).await.location;
    server.call("GET", &format!("{location}?wait=30s"), "").await;
    let series = server.call("GET", &format!("{location}/series"), "").await.json();
    assert!(series["lag"].as_array().unwrap().len() > 5, "{series}");
    let recording = server.call("GET", &format!("{location}/recording"), "").await.json();
    assert_eq!(
        (&recording["format"], &recording["migration"]["outcome"]),
        (&json!("segue-recording/1"), &json!("rolled-back"))
    );
    assert_eq!((&recording["series"], &recording["config"]["deadline_s"]), (&series, &json!(3)));
    assert_eq!(recording["decisions"][0]["cause"], "roll-back");
    assert!(recording["events"].as_array().unwrap().len() > 5 && recording["plan"]["ok"] == true);
}

#[tokio::test(start_paused = true)]
async fn what_clients_felt_during_a_move_is_shown_and_counted() {
    let mut server = Server::start(Manner::Good).await;
    let at_ms = server.shell.wall_ms();
    let slice =
        |at_ms, stall_us| TrafficSlice { at_ms, completed: 9, p50_us: 900, p99_us: 2_000, max_us: 8_000, stall_us };
    // The last one is of a time long after.
    let traffic = vec![slice(at_ms, 7_000), slice(at_ms + 250, 3_000), slice(at_ms + 60_000, 99_000)];
    let told = ShardStatus { runs_replica: false, replica: ReplicaState::None, traffic, ..status() };
    server.bench.sidecar_of(replica("gate-2", 4), vec![told], Manner::Good);
    let location = server.post(json!({ "service": "board", "to": "b" })).await.location;
    server.call("GET", &format!("{location}?wait=30s"), "").await;
    server.bench.shell.sleep(Duration::from_secs(5)).await;
    assert_eq!(server.call("GET", &location, "").await.json()["blackout_ms"], 7);
    let series = server.call("GET", &format!("{location}/series"), "").await.json();
    assert_eq!(series["latency"][0], json!([at_ms, 0.9, 2.0, 8.0]));
    let metrics = server.call("GET", "/metrics", "").await.text;
    for line in ["segue_migration_blackout_seconds_count 1", "segue_migration_seconds_count 1"] {
        assert!(metrics.contains(line), "{metrics}");
    }
}
