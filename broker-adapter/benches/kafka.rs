//! What the adapter costs over the raw client, on the same server in the same run: `cargo bench -p broker-adapter --features kafka
//! --bench kafka`; `-- appends`, `-- reads` or `-- serial` for one part.
//!
//! Both send the same bytes with the same settings of librdkafka; the adapter encodes, keeps the order of calls, checks positions,
//! and decodes besides. `tests/tools/kafka.sh` installs the server; `SEGUE_TEST_KAFKA_URL` names one that runs.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // a measurement of real time on real sockets
#![allow(clippy::async_yields_async)] // to send is one thing, to wait for the acknowledgements another

#[path = "../tests/kafka/server.rs"]
#[allow(dead_code)]
mod server;
mod turns;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use broker_adapter::ids::Position;
use broker_adapter::log::MessageLog;
use broker_adapter::record::{Record, wire};
use broker_adapter::shell::real;
use broker_adapter::{BrokerOptions, connect_with};
use bytes::Bytes;
use futures_util::{FutureExt, StreamExt};
use rdkafka::client::ClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer, StreamConsumer};
use rdkafka::error::KafkaError;
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseRecord, ProducerContext, ThreadedProducer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use tokio::sync::oneshot;

use turns::{Block, Pairs};

const RECORD_BYTES: usize = 400;
const CALL_RECORDS: usize = 100;
/// A hundred calls are on their way.
const BLOCK: Block =
    Block { calls: 1_500, records_per_call: CALL_RECORDS, in_flight: 100, limit: Duration::from_millis(400) };
const ROUNDS: usize = 12;
const READ_RECORDS: usize = 400_000;
const READ_ROUNDS: usize = 8;
const SERIAL_BLOCK: usize = 100;
const SERIAL_ROUNDS: usize = 20;

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

fn consumer(address: &str) -> ClientConfig {
    let mut config = ClientConfig::new();
    config
        .set("bootstrap.servers", address)
        .set("group.id", "bench")
        .set("enable.auto.commit", "false")
        .set("check.crcs", "true")
        .set("fetch.queue.backoff.ms", "2")
        .set("queued.max.messages.kbytes", "16384");
    config
}

fn from_the_first(topic: &str) -> TopicPartitionList {
    let mut places = TopicPartitionList::new();
    places.add_partition_offset(topic, 0, Offset::Offset(0)).unwrap();
    places
}

/// What every reader does at least: look at the offset, and take the content out of the client's memory.
fn take(message: &rdkafka::message::BorrowedMessage<'_>, expected: usize) {
    assert_eq!(message.offset(), i64::try_from(expected).unwrap());
    std::hint::black_box(Bytes::copy_from_slice(message.payload().unwrap()));
}

fn raw_read(address: &str, topic: &str) -> f64 {
    let consumer: BaseConsumer = consumer(address).create().unwrap();
    let began = Instant::now();
    consumer.assign(&from_the_first(topic)).unwrap();
    for offset in 0..READ_RECORDS {
        let message = loop {
            if let Some(message) = consumer.poll(Duration::from_secs(1)) {
                break message.unwrap();
            }
        };
        take(&message, offset);
    }
    turns::rate(READ_RECORDS, began)
}

async fn raw_stream(address: &str, topic: &str) -> f64 {
    let consumer: StreamConsumer = consumer(address).create().unwrap();
    let began = Instant::now();
    consumer.assign(&from_the_first(topic)).unwrap();
    for offset in 0..READ_RECORDS {
        take(&consumer.recv().await.unwrap(), offset);
    }
    let rate = turns::rate(READ_RECORDS, began);
    tokio::task::spawn_blocking(move || drop(consumer)).await.unwrap();
    rate
}

async fn read(log: &Arc<dyn MessageLog>) -> f64 {
    let began = Instant::now();
    let mut entries = log.read(Position(1));
    for at in 1..=READ_RECORDS as u64 {
        assert_eq!(entries.next().await.unwrap().unwrap().position, Position(at));
    }
    turns::rate(READ_RECORDS, began)
}

struct Bench {
    address: String,
    producer: ThreadedProducer<Raw>,
    raw_topic: String,
    own_topic: String,
    log: Arc<dyn MessageLog>,
    record: Record,
    frame: Bytes,
}

impl Bench {
    async fn raw_appends(&self) -> f64 {
        let one = || vec![Bytes::from(self.frame.to_vec()); CALL_RECORDS];
        let send = async |frames: Vec<Bytes>| {
            let delivered = send(&self.producer, &self.raw_topic, &frames);
            async move { delivered.await.unwrap() }.boxed()
        };
        BLOCK.rate(one, send).await
    }

    async fn own_appends(&self) -> f64 {
        let one = || vec![self.record.clone(); CALL_RECORDS];
        let append = async |records: Vec<Record>| {
            let appended = self.log.append(records);
            async move { drop(appended.await.unwrap()) }.boxed()
        };
        BLOCK.rate(one, append).await
    }

    async fn appends(&self) {
        // The server's compiler has its work first.
        self.raw_appends().await;
        self.own_appends().await;
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
        pairs.tell_rates("pipelined appends, 100 a call, 100 calls", 0.90);
    }

    async fn raw_read(&self) -> f64 {
        let (address, topic) = (self.address.clone(), self.own_topic.clone());
        tokio::task::spawn_blocking(move || raw_read(&address, &topic)).await.unwrap()
    }

    async fn reads(&self) {
        while self.log.tail().await.unwrap().0 < READ_RECORDS as u64 {
            self.log.append(vec![self.record.clone(); 10_000]).await.unwrap();
        }
        self.raw_read().await;
        read(&self.log).await;
        let (mut base, mut streams) = (Pairs::default(), Pairs::default());
        for round in 0..READ_ROUNDS {
            if !Pairs::own_first(round) {
                base.add_theirs(self.raw_read().await);
            }
            let own = read(&self.log).await;
            base.add_own(own);
            streams.add_own(own);
            if Pairs::own_first(round) {
                base.add_theirs(self.raw_read().await);
            }
            streams.add_theirs(raw_stream(&self.address, &self.own_topic).await);
        }
        base.tell_rates("ordered read, raw is BaseConsumer::poll", 0.80);
        streams.tell_rates("ordered read, raw is StreamConsumer::recv", 0.80);
    }

    async fn serial(&self) {
        let (mut pairs, mut tails) = (Pairs::default(), Vec::new());
        for _ in 0..SERIAL_ROUNDS {
            let send = async || send(&self.producer, &self.raw_topic, std::slice::from_ref(&self.frame)).await.unwrap();
            pairs.add_theirs(turns::p50(SERIAL_BLOCK, send).await);
            let append = async || drop(self.log.append(vec![self.record.clone()]).await.unwrap());
            pairs.add_own(turns::p50(SERIAL_BLOCK, append).await);
            tails.push(
                turns::p50(SERIAL_BLOCK, async || {
                    self.log.tail().await.unwrap();
                })
                .await,
            );
        }
        pairs.tell_times("serial append p50", 1.30);
        println!("  tail p50: {:.0?}", Duration::from_secs_f64(turns::median(tails)));
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let server = server::shared().await;
    let (shell, _process) = real::process();
    let options = server::fresh();
    let prefix = options.prefix.as_str().to_owned();
    let options = BrokerOptions { kafka: options, ..BrokerOptions::default() };
    let broker = connect_with(&server.url(), &options, &shell).await.unwrap();
    // The raw client writes into a topic that the adapter made.
    broker.log("raw.0").await.unwrap();
    let record = turns::record(RECORD_BYTES);
    let bench = Bench {
        address: server.address(),
        producer: raw_producer(&server.address()),
        raw_topic: format!("{prefix}.shards.raw"),
        own_topic: format!("{prefix}.shards.own"),
        log: broker.log("own.0").await.unwrap(),
        frame: wire::encode(&record).bytes,
        record,
    };
    println!("Kafka, acks=all, records of {} bytes", bench.frame.len());
    if turns::asked_for("appends") {
        bench.appends().await;
    }
    if turns::asked_for("reads") {
        bench.reads().await;
    }
    if turns::asked_for("serial") {
        bench.serial().await;
    }
}
