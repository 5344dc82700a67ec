//! What a client may ask of an ingress: routes, kept replies, keys, HTTP/2, trace context. In one process, on paused time.

mod idle;
mod mirror;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::record::Record;
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::TokioIo;
use segue_tests::harness::{Answer, wait_for};
use serde_json::{Value, json};
use sidecar::runner::Runner;
use sidecar::{Config, Sidecar};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use mirror::{Mirror, MirrorRunner};

const LIMIT: Duration = Duration::from_secs(60);
const LOG: &str = "mirror.0";

struct World {
    sim: Arc<SimWorld>,
    shell: Shell,
    broker: Arc<MemoryBroker>,
    mirror: Mirror,
    _tasks: TaskSet,
}

/// What was logged.
#[derive(Clone, Default)]
struct Written(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Written {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().expect("nothing panics under this lock").extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// A running sidecar.
struct Node {
    sidecar: Sidecar,
    _tasks: TaskSet,
}

impl World {
    fn new() -> World {
        let sim = SimWorld::new(1);
        let (shell, tasks) = sim.process();
        let broker = MemoryBroker::new(1, shell.clone(), Faults::calm());
        World { sim, shell, broker, mirror: Mirror::default(), _tasks: tasks }
    }

    /// Starts a sidecar; `service` lies above what every service here has.
    async fn start(&self, node: &str, service: Value) -> Node {
        let (shell, tasks) = self.sim.process();
        let mut all = json!({ "name": "mirror", "listen": format!("{node}:80") });
        let merged = all.as_object_mut().expect("it is one");
        merged.extend(service.as_object().expect("it is one").clone());
        let config = json!({ "node": node, "broker": "memory:", "admin": format!("{node}:1"), "service": [all] });
        let config: Config = serde_json::from_value(config).expect("a good configuration");
        let runner: Arc<dyn Runner> = Arc::new(MirrorRunner::new(shell.clone(), node, self.mirror.clone()));
        let broker = self.broker.connect(node);
        let sidecar = Sidecar::start(config, broker, move |_| runner.clone(), &shell).await.expect("it starts");
        let node = Node { sidecar, _tasks: tasks };
        wait_for(&self.shell, "the sidecar to be ready", || async { node.sidecar.admin.conditions().0.then_some(()) })
            .await;
        node
    }

    /// The node that begins the log, with these routes.
    async fn owner(&self, more: Value) -> Node {
        let mut service = json!({ "create": true, "run": ["simulated"], "ready": "/ready", "state": { "kind": "http", "path": "/state" } });
        let merged = service.as_object_mut().expect("it is one");
        merged.extend(more.as_object().expect("it is one").clone());
        self.start("edge-a", service).await
    }

    async fn ask(&self, node: &str, method_path: (&str, &str), headers: &[(&str, &str)]) -> Answer {
        let stream = self.shell.connect(&format!("{node}:80")).await.expect("the ingress listens");
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.expect("it speaks HTTP/1.1");
        self.shell.spawn(async move { drop(connection.await) });
        let request = request(method_path, headers).header("host", "mirror");
        let request = request.body(Full::<Bytes>::from("body")).expect("a good request");
        let answer = self.shell.within(LIMIT, sender.send_request(request)).await.expect("it answers in time");
        whole(answer.expect("it answers")).await
    }

    /// How many messages are in the log.
    fn messages(&self) -> usize {
        let entries = self.broker.dump(LOG);
        entries.iter().filter(|entry| matches!(entry.record, Record::Message(_))).count()
    }
}

fn request((method, path): (&str, &str), headers: &[(&str, &str)]) -> hyper::http::request::Builder {
    let builder = hyper::Request::builder().method(method).uri(path);
    headers.iter().fold(builder, |builder, (name, value)| builder.header(*name, *value))
}

async fn whole(answer: hyper::Response<hyper::body::Incoming>) -> Answer {
    let (head, body) = answer.into_parts();
    let body = body.collect().await.expect("the whole answer comes").to_bytes();
    Answer { status: head.status.as_u16(), headers: head.headers, body }
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(start_paused = true)]
async fn routes_decide_what_becomes_a_record() {
    let world = World::new();
    let routes = json!({ "route": [
        { "method": "GET", "path": "/audit", "to": "logged" },
        { "method": "GET", "path": "/quick/*", "to": "local" },
        { "path": "/assets/*", "to": "bypass" },
    ]});
    let _owner = world.owner(routes.clone()).await;
    let _ingress = world.start("edge-b", routes).await;
    for node in ["edge-a", "edge-b"] {
        for (method, path, records) in [
            ("GET", "/audit", 1),
            ("GET", "/quick/x", 0),
            ("POST", "/assets/x?y", 0),
            ("GET", "/other", 0),
            ("POST", "/other", 1),
        ] {
            let before = world.messages();
            let answer = world.ask(node, (method, path), &[]).await;
            assert_eq!((answer.status, answer.json()["path"].as_str()), (200, Some(path)), "{node}");
            assert_eq!(world.messages() - before, records, "{method} {path} at {node}");
            let position: u64 = answer.header("segue-position").parse().expect("every answer tells its position");
            assert!(position > 0);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_slow_read_through_another_node_is_asked_once_and_answered() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let _ingress = world.start("edge-b", json!({})).await;
    world.mirror.delay(Duration::from_millis(1_900));
    let answer = world.ask("edge-b", ("GET", "/slow"), &[]).await;
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(world.mirror.seen("/slow").len(), 1, "a repeated question is the same question");
}

#[tokio::test(start_paused = true)]
async fn a_kept_reply_is_fetched_at_any_ingress_without_a_record() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let _ingress = world.start("edge-b", json!({})).await;
    let first = world.ask("edge-a", ("POST", "/x"), &[("idempotency-key", "order 17")]).await;
    let before = world.messages();
    for node in ["edge-a", "edge-b"] {
        let kept = world.ask(node, ("GET", "/segue/replies/order%2017"), &[]).await;
        assert_eq!((kept.status, &kept.body), (first.status, &first.body));
        assert_eq!(kept.header("segue-position"), first.header("segue-position"));
        let unknown = world.ask(node, ("GET", "/segue/replies/order-18"), &[]).await;
        assert_eq!(code(&unknown), (404, "key-unknown".to_owned()));
    }
    assert_eq!(world.messages(), before);
    let other = world.ask("edge-b", ("POST", "/segue/replies/order-18"), &[]).await;
    assert_eq!(code(&other), (405, "no-such-method".to_owned()));
    let too_long = format!("/segue/replies/{}", "k".repeat(257));
    assert_eq!(code(&world.ask("edge-a", ("GET", &too_long), &[]).await), (400, "bad-idempotency-key".to_owned()));
    assert_eq!(code(&world.ask("edge-a", ("GET", "/segue/other"), &[]).await), (404, "no-such-path".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_key_of_a_504_fetches_the_reply_once_it_is_there() {
    let world = World::new();
    let _owner = world.owner(json!({ "reply_timeout_ms": 500 })).await;
    let _ingress = world.start("edge-b", json!({})).await;
    world.mirror.delay(Duration::from_secs(3));
    let late = world.ask("edge-a", ("POST", "/x"), &[]).await;
    assert_eq!(code(&late), (504, "reply-timeout".to_owned()));
    let path = format!("/segue/replies/{}", late.json()["key"].as_str().expect("a 504 names it"));
    for node in ["edge-a", "edge-b"] {
        let soon = world.ask(node, ("GET", &path), &[]).await;
        assert_eq!(code(&soon), (202, "not-answered-yet".to_owned()), "at {node}");
        assert_eq!(soon.header("retry-after"), "1");
    }
    let kept = wait_for(&world.shell, "the reply", || async {
        let kept = world.ask("edge-b", ("GET", &path), &[]).await;
        (kept.status == 200).then_some(kept)
    })
    .await;
    assert_eq!(kept.json()["path"], "/x");
    assert_eq!(world.messages(), 1);
    assert_eq!(world.mirror.seen("/x").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reply_that_is_no_longer_kept_is_gone_and_an_old_key_expired() {
    let world = World::new();
    let settings = json!({ "settings": { "replies_kept": 4, "keys_remembered": 16 } });
    let _owner = world.owner(settings).await;
    let first = world.ask("edge-a", ("POST", "/x"), &[("idempotency-key", "first")]).await;
    assert_eq!(first.status, 200);
    let own = world.broker.dump(LOG).iter().find_map(|entry| match &entry.record {
        Record::Message(message) => Some(format!("{}-0", message.name)),
        _ => None,
    });
    for _ in 0..6 {
        world.ask("edge-a", ("POST", "/x"), &[]).await;
    }
    assert_eq!(code(&world.ask("edge-a", ("GET", "/segue/replies/first"), &[]).await), (410, "reply-gone".to_owned()));
    // Another ingress's session ends when it is forgotten; so does what is known of its keys.
    let _ingress = world.start("edge-b", json!({})).await;
    for _ in 0..40 {
        world.ask("edge-b", ("POST", "/x"), &[]).await;
    }
    let path = format!("/segue/replies/{}", own.expect("there was a message"));
    assert_eq!(code(&world.ask("edge-a", ("GET", &path), &[]).await), (410, "key-expired".to_owned()));
    assert_eq!(code(&world.ask("edge-a", ("GET", "/segue/replies/first"), &[]).await), (404, "key-unknown".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn the_state_is_not_reachable_however_its_path_is_written() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    // This one does not know where the state is.
    let _ingress = world.start("edge-b", json!({ "route": [{ "path": "/*", "to": "bypass" }] })).await;
    let _other = world.start("edge-c", json!({})).await;
    for node in ["edge-a", "edge-b", "edge-c"] {
        for (method, path) in [("GET", "/state"), ("PUT", "/state"), ("PUT", "//st%61te?x"), ("HEAD", "/state/")] {
            let answer = world.ask(node, (method, path), &[]).await;
            assert_eq!(answer.status, 404, "{method} {path} at {node}: {}", answer.text());
        }
    }
    assert!(world.mirror.seen("/").is_empty(), "nothing came to the service");
}

#[tokio::test(start_paused = true)]
async fn a_bad_key_is_refused_before_an_append() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let too_long = "k".repeat(257);
    for keys in [vec![too_long.as_str()], vec![""], vec!["a", "b"]] {
        let headers: Vec<_> = keys.iter().map(|key| ("idempotency-key", *key)).collect();
        assert_eq!(code(&world.ask("edge-a", ("POST", "/x"), &headers).await), (400, "bad-idempotency-key".to_owned()));
    }
    assert_eq!(world.messages(), 0);
}

#[tokio::test(start_paused = true)]
async fn more_than_may_wait_is_refused_before_an_append_and_may_come_again() {
    let world = World::new();
    let _owner = world.owner(json!({ "parking_limit_requests": 2 })).await;
    world.mirror.delay(Duration::from_secs(1));
    let many = (0..6).map(|_| world.ask("edge-a", ("POST", "/x"), &[]));
    let answers = futures_util::future::join_all(many).await;
    let refused: Vec<&Answer> = answers.iter().filter(|answer| answer.status == 503).collect();
    assert!((1..=4).contains(&refused.len()), "{}", refused.len());
    assert!(refused.iter().all(|answer| answer.header("retry-after") == "1"));
    assert_eq!(world.messages(), 6 - refused.len(), "what was refused was not appended");
}

#[tokio::test(start_paused = true)]
async fn a_full_log_refuses_at_once_what_was_not_tried_and_serves_again_when_it_has_room() {
    let world = World::new();
    let _owner = world.owner(json!({ "reply_timeout_ms": 2_000 })).await;
    world.broker.limit_logs(world.broker.dump(LOG).len() as u64);
    let tried = world.ask("edge-a", ("POST", "/tried"), &[]).await;
    assert_eq!(code(&tried), (504, "reply-timeout".to_owned()), "its append was attempted");
    let began = world.shell.now();
    let refused = world.ask("edge-a", ("POST", "/refused"), &[]).await;
    assert_eq!((code(&refused), refused.header("retry-after")), ((503, "log-full".to_owned()), "1"));
    assert!(world.shell.now() - began < Duration::from_millis(100), "it did not wait");
    world.broker.limit_logs(u64::MAX);
    wait_for(&world.shell, "the log to take requests", || async {
        (world.ask("edge-a", ("POST", "/again"), &[]).await.status == 200).then_some(())
    })
    .await;
    let seen = |path: &str| world.mirror.seen(path).len();
    assert_eq!((seen("/tried"), seen("/refused")), (1, 0), "what was tried is applied once");
}

#[tokio::test(start_paused = true)]
async fn the_ingress_names_the_trace_in_its_log_and_no_credentials() {
    let written = Written::default();
    let to = written.clone();
    let all = || tracing_subscriber::fmt().with_max_level(tracing::Level::TRACE);
    // With a single subscriber, tracing lets a thread without one decide what all threads log; other tests run beside this one.
    let _second = tracing::Dispatch::new(all().with_writer(std::io::sink).finish());
    let _guard = tracing::subscriber::set_default(all().with_writer(move || to.clone()).finish());
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("cookie", "s3cret"), ("authorization", "s3cret"), ("set-cookie", "s3cret")];
    for method in ["POST", "GET"] {
        assert_eq!(world.ask("edge-a", (method, "/x"), &headers).await.status, 200);
    }
    let log = String::from_utf8_lossy(&written.0.lock().expect("nothing panics under this lock")).into_owned();
    assert!(log.contains("0af7651916cd43dd8448eb211c80319c"), "{log}");
    assert!(!log.contains("s3cret"), "{log}");
}

#[tokio::test(start_paused = true)]
async fn http2_with_prior_knowledge_is_served_on_the_same_port() {
    let world = World::new();
    let _owner = world.owner(json!({})).await;
    let stream = world.shell.connect("edge-a:80").await.expect("the ingress listens");
    let executor = hyper_util::rt::TokioExecutor::new();
    let (sender, connection) =
        hyper::client::conn::http2::handshake(executor, TokioIo::new(stream)).await.expect("it speaks HTTP/2");
    world.shell.spawn(async move { drop(connection.await) });
    let asked = (0..20).map(|number| {
        let mut sender = sender.clone();
        let headers = [("cookie", "a=1"), ("cookie", "b=2")];
        let method = if number % 2 == 0 { "POST" } else { "GET" };
        let request = request((method, "http://mirror.test/h2"), &headers).body(Full::<Bytes>::default());
        async move { whole(sender.send_request(request.expect("a good request")).await.expect("it answers")).await }
    });
    let answers = futures_util::future::join_all(asked).await;
    for answer in &answers {
        let seen = answer.json();
        assert_eq!(answer.status, 200);
        assert_eq!(
            (seen["headers"]["host"].as_str(), seen["headers"]["cookie"].as_str()),
            (Some("mirror.test"), Some("a=1; b=2"))
        );
    }
    assert_eq!(world.messages(), 10);
    let large = "x".repeat(100 << 10);
    assert_eq!(world.ask("edge-a", ("GET", "/h1"), &[("x-large", &large)]).await.status, 431);
    let mut sender = sender.clone();
    let request = request(("GET", "http://mirror.test/h2"), &[("x-large", &large)]).body(Full::<Bytes>::default());
    let refused = sender.send_request(request.expect("a good request")).await;
    assert!(
        refused.is_err() || refused.is_ok_and(|answer| answer.status() == 431),
        "a head above the limit is refused"
    );
}

#[tokio::test(start_paused = true)]
async fn trace_context_is_in_the_record_and_comes_again_in_a_replay() {
    let world = World::new();
    let owner = world.owner(json!({})).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers = [("traceparent", trace), ("tracestate", "a=1"), ("authorization", "Bearer s3cret")];
    assert_eq!(world.ask("edge-a", ("POST", "/x"), &headers).await.status, 200);
    let log = format!("{:?}", world.broker.dump(LOG));
    assert!(log.contains(trace) && !log.contains("s3cret"), "{log}");
    drop(owner);
    let _owner = world.owner(json!({})).await;
    let live_and_replayed = || async { Some(world.mirror.seen("/x")).filter(|seen| seen.len() == 2) };
    let seen = wait_for(&world.shell, "the replay", live_and_replayed).await;
    for (seen, replay) in seen.iter().zip(["false", "true"]) {
        let header = |name: &str| seen.get(name).map(String::as_str);
        assert_eq!((header("traceparent"), header("tracestate")), (Some(trace), Some("a=1")));
        assert_eq!((header("authorization"), header("segue-replay")), (Some("Bearer s3cret"), Some(replay)));
    }
}

#[tokio::test(start_paused = true)]
async fn bodies_that_never_come_whole_take_the_room_of_others_only_for_a_while() {
    let world = World::new();
    let limits = json!({ "reply_timeout_ms": 2_000, "body_limit_bytes": 1_000, "parking_limit_bytes": 1_000 });
    let _owner = world.owner(limits).await;
    let mut stream = world.shell.connect("edge-a:80").await.expect("the ingress listens");
    stream.write_all(b"POST /x HTTP/1.1\r\nhost: m\r\ncontent-length: 999\r\n\r\nab").await.expect("it is taken");
    world.shell.sleep(Duration::from_secs(1)).await;
    assert_eq!(world.ask("edge-a", ("POST", "/y"), &[]).await.status, 503);
    world.shell.sleep(Duration::from_secs(2)).await;
    assert_eq!(world.ask("edge-a", ("POST", "/y"), &[]).await.status, 200);
    let mut told = vec![0; 12];
    stream.read_exact(&mut told).await.expect("it is told");
    assert_eq!(String::from_utf8_lossy(&told), "HTTP/1.1 408");
}
