//! What the adapter costs over the raw client, on the same server in the same run: `cargo bench -p broker-adapter --features kafka
//! --bench kafka`.
//!
//! Both send the same bytes with the same settings of librdkafka; the adapter encodes, keeps the order of calls, checks positions,
//! and decodes besides. `tests/tools/kafka.sh` installs the server; `SEGUE_TEST_KAFKA_URL` names one that runs.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a measurement of real time on real sockets

#[path = "../tests/kafka/server.rs"]
#[allow(dead_code)]
mod server;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_adapter::ids::{Count, Incarnation, MessageName, Position, Replica, Sequence, Session};
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Body, Key, Message, Record, Request, wire};
use broker_adapter::shell::real;
use broker_adapter::{BrokerOptions, connect_with};
use bytes::Bytes;
use futures_util::StreamExt;
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;

const BODY_BYTES: usize = 200;
const RECORDS: usize = 200_000;
/// The records of one call, and how many calls are on their way.
const BATCH: usize = 100;
const CALLS: usize = 100;
const SERIAL: usize = 2_000;
/// Each figure is the best of so many, in turns.
const ROUNDS: usize = 3;

fn record(number: u64) -> Record {
    let name = MessageName { session: Session::from_bits(1), sequence: Sequence(number) };
    let request = Request {
        method: "POST".to_owned(),
        path: "/flights".to_owned(),
        headers: Vec::new(),
        body: Body::Inline(Bytes::from(vec![7; BODY_BYTES])),
    };
    let ingress = Replica { node: "edge-a".parse().unwrap(), incarnation: Incarnation::from_bits(2) };
    let key = Key::First { name, count: Count(number) };
    Record::Message(Box::new(Message { name, base: None, key, source: None, ingress, request }))
}

/// Tells when a batch of the raw client was delivered.
struct Raw;

struct Batch {
    left: AtomicUsize,
    done: std::sync::Mutex<Option<oneshot::Sender<()>>>,
}

impl ClientContext for Raw {
    fn error(&self, _: KafkaError, _: &str) {}
}

impl ProducerContext for Raw {
    type DeliveryOpaque = Arc<Batch>;
    fn delivery(&self, result: &DeliveryResult<'_>, batch: Arc<Batch>) {
        assert!(result.as_ref().unwrap().offset() >= 0);
        if batch.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            let _ = batch.done.lock().unwrap().take().unwrap().send(());
        }
    }
}

/// As `broker-adapter/src/kafka/client.rs` sets it.
fn raw_producer(address: &str) -> ThreadedProducer<Raw> {
    ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("acks", "all")
        .set("enable.idempotence", "true")
        .set("linger.ms", "0")
        .set("queue.buffering.max.messages", "1000000")
        .create_with_context(Raw)
        .unwrap()
}

fn send(producer: &ThreadedProducer<Raw>, topic: &str, frames: &[Bytes]) -> oneshot::Receiver<()> {
    let (done, delivered) = oneshot::channel();
    let batch = Arc::new(Batch { left: AtomicUsize::new(frames.len()), done: std::sync::Mutex::new(Some(done)) });
    for frame in frames {
        let record = BaseRecord::<(), [u8], _>::with_opaque_to(topic, batch.clone()).partition(0).payload(&frame[..]);
        producer.send(record).map_err(|(error, _)| error).unwrap();
    }
    delivered
}

async fn raw_appends(producer: &ThreadedProducer<Raw>, topic: &str, frames: &[Bytes]) -> Duration {
    let began = Instant::now();
    let mut waiting = VecDeque::new();
    for batch in frames.chunks(BATCH) {
        waiting.push_back(send(producer, topic, batch));
        if waiting.len() >= CALLS {
            waiting.pop_front().unwrap().await.unwrap();
        }
    }
    for delivered in waiting {
        delivered.await.unwrap();
    }
    began.elapsed()
}

async fn appends(log: &Arc<dyn MessageLog>, records: Vec<Record>) -> Duration {
    let batches: Vec<Vec<Record>> = records.chunks(BATCH).map(<[Record]>::to_vec).collect();
    let began = Instant::now();
    let mut waiting = VecDeque::new();
    for batch in batches {
        waiting.push_back(log.append(batch));
        if waiting.len() >= CALLS {
            waiting.pop_front().unwrap().await.unwrap();
        }
    }
    for appended in waiting {
        appended.await.unwrap();
    }
    began.elapsed()
}

fn raw_read(address: &str, topic: &str) -> Duration {
    let consumer: BaseConsumer = ClientConfig::new()
        .set("bootstrap.servers", address)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "16384")
        .create()
        .unwrap();
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, Offset::Offset(0)).unwrap();
    let began = Instant::now();
    consumer.assign(&places).unwrap();
    let mut bytes = 0;
    for offset in 0..i64::try_from(RECORDS).unwrap() {
        let message = loop {
            if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                break message.unwrap();
            }
        };
        assert_eq!(message.offset(), offset);
        bytes += Bytes::copy_from_slice(message.payload().unwrap()).len();
    }
    assert!(bytes > RECORDS * BODY_BYTES);
    began.elapsed()
}

async fn read(log: &Arc<dyn MessageLog>) -> Duration {
    let began = Instant::now();
    let mut entries = log.read(Position(1));
    for at in 1..=RECORDS as u64 {
        assert_eq!(entries.next().await.unwrap().unwrap().position, Position(at));
    }
    began.elapsed()
}

fn p50(mut all: Vec<Duration>) -> Duration {
    all.sort_unstable();
    all[all.len() / 2]
}

fn rate(took: Duration) -> f64 {
    RECORDS as f64 / took.as_secs_f64()
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = server::shared().await;
    let (shell, _process) = real::process();
    let options = server::fresh();
    let prefix = options.prefix.as_str().to_owned();
    let broker = connect_with(&server.url(), &BrokerOptions { kafka: options, ..BrokerOptions::default() }, &shell)
        .await
        .unwrap();
    let records: Vec<Record> = (1..=RECORDS as u64).map(record).collect();
    let frames: Vec<Bytes> = records.iter().map(|record| wire::encode(record).bytes).collect();
    let producer = raw_producer(&server.address());
    let (mut raw, mut own) = (Duration::MAX, Duration::MAX);
    for round in 0..ROUNDS {
        // Each round has logs of its own; the raw client writes into one that the adapter made.
        broker.log(&format!("raw{round}.0")).await.unwrap();
        let log = broker.log(&format!("own{round}.0")).await.unwrap();
        raw = raw.min(raw_appends(&producer, &format!("{prefix}.shards.raw{round}"), &frames).await);
        own = own.min(appends(&log, records.clone()).await);
    }
    println!(
        "pipelined appends, {BATCH} a call, {CALLS} calls: raw {:.0}/s, adapter {:.0}/s, ratio {:.2} (>= 0.90)",
        rate(raw),
        rate(own),
        rate(own) / rate(raw)
    );
    let log = broker.log("own0.0").await.unwrap();
    let (mut raw, mut own) = (Duration::MAX, Duration::MAX);
    for _ in 0..ROUNDS {
        let (address, topic) = (server.address(), format!("{prefix}.shards.own0"));
        raw = raw.min(tokio::task::spawn_blocking(move || raw_read(&address, &topic)).await.unwrap());
        own = own.min(read(&log).await);
    }
    println!(
        "ordered read: raw {:.0}/s, adapter {:.0}/s, ratio {:.2} (>= 0.80)",
        rate(raw),
        rate(own),
        rate(own) / rate(raw)
    );
    let (mut raw, mut own, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    let topic = format!("{prefix}.shards.raw0");
    for at in 0..SERIAL {
        let began = Instant::now();
        send(&producer, &topic, &frames[at..=at]).await.unwrap();
        raw.push(began.elapsed());
        let began = Instant::now();
        log.append(vec![records[at].clone()]).await.unwrap();
        own.push(began.elapsed());
        let began = Instant::now();
        log.tail().await.unwrap();
        tails.push(began.elapsed());
    }
    let (raw, own) = (p50(raw), p50(own));
    println!(
        "serial append p50: raw {raw:.0?}, adapter {own:.0?}, ratio {:.2} (<= 1.30)",
        own.as_secs_f64() / raw.as_secs_f64()
    );
    println!("tail p50: {:.0?}", p50(tails));
}
