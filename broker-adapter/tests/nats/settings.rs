//! What is verified at connect, on real streams with real mismatches.

use std::num::NonZeroU64;
use std::sync::Arc;

use broker_adapter::log::{AppendError, MessageLog, ReadError};
use broker_adapter::nats::NatsOptions;
use broker_adapter::nats::options::Durability;
use broker_adapter::shell::{Shell, TaskSet, real};
use broker_adapter::{Broker, BrokerOptions, ConnectError, connect, connect_with};
use futures_util::StreamExt;
use serde_json::{Value, json};

use super::server::{Server, Setup};
use crate::support::{at, mark, number};

pub struct Stage {
    pub server: Server,
    pub shell: Shell,
    pub broker: Arc<dyn Broker>,
    pub admin: async_nats::Client,
    _process: TaskSet,
    _folder: tempfile::TempDir,
}

impl Stage {
    pub async fn new(setup: Setup) -> Stage {
        let folder = tempfile::tempdir().expect("a folder");
        let server = Server::start_with(folder.path(), setup);
        let (shell, process) = real::process();
        let broker = connect(&server.url(), &shell).await.expect("it connects");
        let admin = async_nats::connect(server.url()).await.expect("it connects");
        Stage { server, shell, broker, admin, _process: process, _folder: folder }
    }

    pub async fn log(&self) -> Arc<dyn MessageLog> {
        self.broker.log("a.0").await.expect("the log opens")
    }

    /// A question to JetStream, as an operator's tool asks it.
    pub async fn api(&self, call: &str, body: Value) -> Value {
        api(&self.admin, call, body).await
    }

    pub async fn connect_with(&self, nats: NatsOptions) -> Result<Arc<dyn Broker>, ConnectError> {
        connect_with(&self.server.url(), &BrokerOptions { nats, ..BrokerOptions::default() }, &self.shell).await
    }
}

pub async fn api(admin: &async_nats::Client, call: &str, body: Value) -> Value {
    let payload = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
    let answer = admin.request(format!("$JS.API.{call}"), payload.into()).await.expect("JetStream answers");
    let answer: Value = serde_json::from_slice(&answer.payload).expect("it is JSON");
    assert!(answer.get("error").is_none(), "{call}: {answer}");
    answer
}

/// The log of the number 1 to `last`.
pub async fn fill(log: &Arc<dyn MessageLog>, last: u64) {
    let positions = log.append((1..=last).map(mark).collect()).await.expect("the append succeeds");
    assert_eq!(positions.last(), Some(&at(last)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_mismatch_of_a_real_stream_is_named_with_what_mends_it() {
    let stage = Stage::new(Setup::default()).await;
    drop(stage.log().await);
    let good = stage.api("STREAM.INFO.SEGUE_a_2E0", Value::Null).await["config"].clone();
    for (key, value, mend) in [
        ("max_age", json!(3_600_000_000_000u64), "--max-age=0s"),
        ("max_msgs", json!(1_000), "--max-msgs=-1"),
        ("max_msgs_per_subject", json!(5), "--max-msgs-per-subject=-1"),
        ("max_msg_size", json!(10_000), "--max-msg-size=-1"),
        ("discard", json!("old"), "--discard=new"),
        ("no_ack", json!(true), "--ack"),
        ("allow_rollup_hdrs", json!(true), "--no-allow-rollup"),
        ("subjects", json!(["segue.log.a_2E0", "other.subject"]), "--subjects=segue.log.a_2E0"),
        ("storage", json!("memory"), "nats stream backup SEGUE_a_2E0"),
        ("retention", json!("interest"), "nats stream backup SEGUE_a_2E0"),
        ("deny_delete", json!(false), "--deny-delete"),
    ] {
        stage.api("STREAM.DELETE.SEGUE_a_2E0", Value::Null).await;
        let mut bad = good.clone();
        bad[key] = value;
        stage.api("STREAM.CREATE.SEGUE_a_2E0", bad).await;
        let error = stage.broker.log("a.0").await.err().expect(key);
        assert!(matches!(&error, ConnectError::Settings { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("SEGUE_a_2E0") && text.contains(key) && text.contains(mend), "{key}: {text}");
    }
    stage.api("STREAM.DELETE.SEGUE_a_2E0", Value::Null).await;
    drop(stage.log().await);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_changed_behind_our_back_stops_appends_and_reads_at_the_next_connect() {
    let mut stage = Stage::new(Setup::default()).await;
    let log = stage.log().await;
    fill(&log, 3).await;
    let mut config = stage.api("STREAM.INFO.SEGUE_a_2E0", Value::Null).await["config"].clone();
    config["max_age"] = json!(3_600_000_000_000u64);
    stage.api("STREAM.UPDATE.SEGUE_a_2E0", config).await;
    stage.server.kill();
    stage.server.start_again();
    let error = loop {
        match log.append(vec![mark(4)]).await {
            Err(error @ AppendError::Damaged(_)) => break error,
            result => assert!(result.is_err(), "it was sent to a stream that deletes"),
        }
    };
    assert!(error.to_string().contains("max_age"), "{error}");
    match log.read(at(1)).next().await {
        Some(Err(ReadError::Damaged { reason, .. })) => assert!(reason.contains("max_age"), "{reason}"),
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn options_that_the_stream_does_not_have_are_named() {
    let stage = Stage::new(Setup::default()).await;
    drop(stage.log().await);
    let options = NatsOptions { replicas: Some(3), max_bytes: NonZeroU64::new(5_000_000), ..NatsOptions::default() };
    let error = stage.connect_with(options).await.err().expect("the store has one replica");
    assert!(error.to_string().contains("--replicas=3"), "{error}");
    let options = NatsOptions { max_bytes: NonZeroU64::new(5_000_000), ..NatsOptions::default() };
    let broker = stage.connect_with(options).await.expect("the store has no such limit");
    let error = broker.log("a.0").await.err().expect("the log has no such limit");
    assert!(error.to_string().contains("--max-bytes=5000000"), "{error}");
    broker.log("new.0").await.expect("a new one gets it");
    let info = stage.api("STREAM.INFO.SEGUE_new_2E0", Value::Null).await;
    assert_eq!(info["config"]["max_bytes"], json!(5_000_000));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_demanded_durability_is_verified_and_refused_if_the_server_is_known_not_to_have_it() {
    let fsync = |server: &Server, durability| NatsOptions {
        durability,
        monitoring_url: vec![format!("http://127.0.0.1:{}", server.monitoring.number)],
        ..NatsOptions::default()
    };
    let stage = Stage::new(Setup::default()).await;
    let broker = stage.connect_with(fsync(&stage.server, Durability::Fsync)).await.expect("it connects");
    let usage = broker.log("a.0").await.expect("it syncs").usage().await.expect("usage is known");
    assert!(usage.durability.contains("verified"), "{}", usage.durability);
    let broker = stage.connect_with(fsync(&stage.server, Durability::QuorumFsync)).await.expect("it connects");
    let error = broker.log("a.0").await.err().expect("one replica is no quorum");
    assert!(error.to_string().contains("--replicas=3"), "{error}");
    let declared = NatsOptions { durability: Durability::Fsync, ..NatsOptions::default() };
    let log = stage.connect_with(declared).await.expect("it connects").log("a.0").await.expect("nobody knows better");
    assert!(log.usage().await.expect("usage is known").durability.contains("as declared"));

    let lazy = Stage::new(Setup { lazy: true, ..Setup::default() }).await;
    let broker = lazy.connect_with(fsync(&lazy.server, Durability::Fsync)).await.expect("it connects");
    let error = broker.log("a.0").await.err().expect("it does not sync");
    assert!(matches!(&error, ConnectError::Settings { .. }), "{error}");
    assert!(error.to_string().contains("sync_interval: always"), "{error}");
    let log = lazy.connect_with(fsync(&lazy.server, Durability::Node)).await.unwrap().log("a.0").await.unwrap();
    assert!(log.usage().await.expect("usage is known").durability.contains("not fsynced"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_refused_and_never_shown() {
    let lines = "authorization { users: [{ user: ann, password: secret }] }".to_owned();
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(folder.path(), Setup { lines, ..Setup::default() });
    let (shell, _process) = real::process();
    let port = server.port.number;
    for url in [format!("nats://127.0.0.1:{port}"), format!("nats://ann:wrong-one@127.0.0.1:{port}")] {
        let error = connect(&url, &shell).await.err().expect("it is refused").to_string();
        assert!(error.contains("credentials") && !error.contains("wrong-one"), "{error}");
    }
    let broker = connect(&format!("nats://ann:secret@127.0.0.1:{port}"), &shell).await.expect("it connects");
    assert_eq!(broker.url(), format!("nats://127.0.0.1:{port}"));
    let log = broker.log("a.0").await.expect("it opens");
    fill(&log, 2).await;
    assert_eq!(number(&log.read(at(2)).next().await.unwrap().unwrap()), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_without_jetstream_and_no_server_at_all_are_told_apart() {
    let (shell, _process) = real::process();
    let error = connect("nats://127.0.0.1:1", &shell).await.err().expect("nobody is there").to_string();
    assert!(error.contains("nats-server") && error.contains("127.0.0.1:1"), "{error}");
    let error = connect("kafka2://x", &shell).await.err().expect("no such scheme").to_string();
    assert!(error.contains("nats://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_a_process_ends_its_connections() {
    let stage = Stage::new(Setup::default()).await;
    let (shell, process) = real::process();
    let broker = connect(&stage.server.url(), &shell).await.expect("it connects");
    let log = broker.log("a.0").await.expect("it opens");
    let _mail = broker.mailbox().subscribe("node/a");
    fill(&log, 1).await;
    let connections = async || {
        let url = format!("127.0.0.1:{}", stage.server.monitoring.number);
        let mut stream = stage.shell.connect(&url).await.expect("it listens");
        let mut text = String::new();
        let ask = b"GET /connz HTTP/1.0\r\n\r\n";
        tokio::io::AsyncWriteExt::write_all(&mut stream, ask).await.expect("it takes it");
        tokio::io::AsyncReadExt::read_to_string(&mut stream, &mut text).await.expect("it answers");
        let body = text.split("\r\n\r\n").nth(1).expect("a body").to_owned();
        serde_json::from_str::<Value>(&body).expect("JSON")["num_connections"].as_u64().expect("a number")
    };
    let before = connections().await;
    assert!(before >= 9, "four of each process, and the test's own: {before}");
    // The handles are still held here.
    drop(process);
    while connections().await > before - 4 {
        stage.shell.sleep(std::time::Duration::from_millis(20)).await;
    }
    assert!(log.append(vec![mark(2)]).await.is_err());
    drop((broker, log));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_takes_no_record_is_refused_with_what_to_set() {
    let folder = tempfile::tempdir().expect("a folder");
    let server = Server::start_with(folder.path(), Setup { lines: "max_payload: 64KB".to_owned(), ..Setup::default() });
    let (shell, _process) = real::process();
    let error = connect(&server.url(), &shell).await.err().expect("it is refused");
    assert!(matches!(&error, ConnectError::Settings { .. }), "{error}");
    assert!(error.to_string().contains("max_payload is 65536 bytes") && error.to_string().contains("max_payload: 1MB"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_is_as_large_as_the_servers_payload() {
    let stage = Stage::new(Setup { lines: "max_payload: 256KB".to_owned(), ..Setup::default() }).await;
    let log =
        connect(&stage.server.url(), &stage.shell).await.expect("it connects").log("a.0").await.expect("it opens");
    assert_eq!(log.usage().await.expect("usage is known").record_limit_bytes, 256 << 10);
}
