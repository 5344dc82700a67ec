//! The raw client beside which a change of leaders is measured: NATS' or Kafka's own, on a log of its own in the same cluster.
//!
//! It is as patient and as quick as it can be: each message is sent at its time, and again until it is acknowledged. Each stream of NATS
//! elects a leader of its own, after a random time of 4 to 9 s; so there a second raw client asks at the service's own log: it publishes what
//! that log's leader must refuse (another stream is expected), and counts the refusals.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::producer::{FutureProducer, FutureRecord};
use serde_json::{Value, json};

use crate::harness::{Broker, Cluster, wait_for};

/// One message each.
const EVERY: Duration = Duration::from_millis(20);
/// On NATS a message that nobody acknowledged for so long is sent again.
const AGAIN_AFTER: Duration = Duration::from_millis(500);
const ASK_LIMIT: Duration = Duration::from_secs(5);
const EXPECTED_STREAM_DOES_NOT_MATCH: u64 = 10060;
const STREAM: &str = "RAW";
const SUBJECT: &str = "raw.log";
const TOPIC: &str = "raw";
const PAYLOAD: &[u8] = &[7; 200];

/// A running raw client.
pub struct Raw {
    completed: Times,
    /// On NATS: when the leader of the service's own log answered.
    same_log: Option<Times>,
    _tasks: TaskSet,
}

type Times = Arc<Mutex<Vec<Duration>>>;

impl Raw {
    /// Makes the log and sends from now on.
    pub async fn start(cluster: &Cluster) -> Raw {
        let (shell, tasks) = cluster.shell.part();
        let completed = Times::default();
        let mut same_log = None;
        if cluster.broker.kind().is_kafka() {
            make_topic(&cluster.broker, &shell).await;
            let producer: FutureProducer = settings(&cluster.broker).create().expect("a producer can be made");
            shell.spawn(publish(shell.clone(), completed.clone(), move || {
                let producer = producer.clone();
                async move {
                    let record = FutureRecord::<(), [u8]>::to(TOPIC).partition(0).payload(PAYLOAD);
                    producer.send(record, ASK_LIMIT).await.is_ok()
                }
            }));
        } else {
            let client = async_nats::ConnectOptions::new()
                .reconnect_delay_callback(|_| Duration::from_millis(20))
                .request_timeout(Some(AGAIN_AFTER))
                .connect(addresses(&cluster.broker))
                .await
                .expect("the cluster is there");
            make_stream(&client, &shell).await;
            same_log = Some(ask_at_the_log(client.clone(), &shell));
            shell.spawn(publish(shell.clone(), completed.clone(), move || {
                let client = client.clone();
                async move {
                    let answer = client.request(SUBJECT, PAYLOAD.into()).await;
                    answer.is_ok_and(|answer| {
                        let told: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                        told["seq"].is_u64()
                    })
                }
            }));
        }
        Raw { completed, same_log, _tasks: tasks }
    }

    /// When each message was acknowledged.
    pub fn completed(&self) -> Vec<Duration> {
        self.completed.lock().expect("nothing panics under this lock").clone()
    }

    /// On NATS: when the leader of the service's own log answered.
    pub fn same_log(&self) -> Option<Vec<Duration>> {
        self.same_log.as_ref().map(|times| times.lock().expect("nothing panics under this lock").clone())
    }
}

/// What the log's leader must refuse, on and on.
fn ask_at_the_log(client: async_nats::Client, shell: &Shell) -> Times {
    let answered = Times::default();
    let mut headers = async_nats::HeaderMap::new();
    headers.insert("Nats-Expected-Stream", "another");
    shell.spawn(publish(shell.clone(), answered.clone(), move || {
        let (client, headers) = (client.clone(), headers.clone());
        async move {
            let answer = client.request_with_headers("segue.log.ledger_2E0", headers, PAYLOAD.into()).await;
            answer.is_ok_and(|answer| {
                let told: Value = serde_json::from_slice(&answer.payload).unwrap_or_default();
                told["error"]["err_code"] == EXPECTED_STREAM_DOES_NOT_MATCH
            })
        }
    }));
    answered
}

/// Sends on, one message every so often, each until it is acknowledged.
async fn publish<F: Future<Output = bool> + Send>(
    shell: Shell,
    completed: Times,
    send: impl Fn() -> F + Clone + Send + Sync + 'static,
) {
    loop {
        let (world, done, send) = (shell.clone(), completed.clone(), send.clone());
        shell.spawn(async move {
            while !send().await {
                world.sleep(EVERY).await;
            }
            done.lock().expect("nothing panics under this lock").push(world.now());
        });
        shell.sleep(EVERY).await;
    }
}

fn addresses(broker: &Broker) -> Vec<String> {
    let url = broker.url();
    url.trim_start_matches("nats://").split(',').map(|address| format!("nats://{address}")).collect()
}

async fn make_stream(client: &async_nats::Client, shell: &Shell) {
    let wanted = json!({ "name": STREAM, "subjects": [SUBJECT], "storage": "file", "num_replicas": 3 });
    wait_for(shell, "the raw client's stream", || async {
        let answer = client.request(format!("$JS.API.STREAM.CREATE.{STREAM}"), wanted.to_string().into()).await.ok()?;
        let told: Value = serde_json::from_slice(&answer.payload).ok()?;
        told.get("error").is_none().then_some(())
    })
    .await;
}

/// As the adapter's producer.
fn settings(broker: &Broker) -> rdkafka::ClientConfig {
    let mut settings = broker.kafka_client();
    for (name, value) in [
        ("acks", "all"),
        ("enable.idempotence", "true"),
        ("linger.ms", "0"),
        ("message.timeout.ms", "60000"),
        ("reconnect.backoff.ms", "20"),
        ("reconnect.backoff.max.ms", "500"),
        ("retry.backoff.ms", "20"),
        ("retry.backoff.max.ms", "500"),
        ("topic.metadata.refresh.fast.interval.ms", "20"),
    ] {
        settings.set(name, value);
    }
    settings
}

/// On the same servers in the same order as the service's log: so both have the same leader.
async fn make_topic(broker: &Broker, shell: &Shell) {
    let places = replicas(broker, shell, "segue.shards.ledger").await;
    let admin: AdminClient<DefaultClientContext> = broker.kafka_client().create().expect("a client can be made");
    let places: &[&[i32]] = &[&places];
    let topic = NewTopic::new(TOPIC, 1, TopicReplication::Variable(places)).set("min.insync.replicas", "2");
    let made = admin.create_topics(&[topic], &AdminOptions::new()).await.expect("the cluster answers");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}

/// On which servers a topic is; the first is its leader where it can.
pub async fn replicas(broker: &Broker, shell: &Shell, topic: &str) -> Vec<i32> {
    let (settings, topic) = (broker.kafka_client(), topic.to_owned());
    let ask = move || {
        let consumer: BaseConsumer = settings.create().ok()?;
        let answer = consumer.fetch_metadata(Some(&topic), ASK_LIMIT).ok()?;
        Some(answer.topics().first()?.partitions().first()?.replicas().to_vec())
    };
    wait_for(shell, "the places of a topic", || shell.blocking(ask.clone())).await
}

/// Whether all copies of the service's log and of the raw one are up to date, and both have the same leader: then which it is.
pub async fn one_leader(broker: &Broker, shell: &Shell) -> Option<usize> {
    if broker.kind().is_kafka() {
        let settings = broker.kafka_client();
        let asked = shell.blocking(move || {
            let consumer: BaseConsumer = settings.create().ok()?;
            let leader_in_sync = |topic: &str| {
                let answer = consumer.fetch_metadata(Some(topic), ASK_LIMIT).ok()?;
                let partition = answer.topics().first()?.partitions().first()?;
                (partition.isr().len() == 3).then_some(partition.leader())
            };
            let leader = leader_in_sync("segue.shards.ledger")?;
            (leader_in_sync(TOPIC)? == leader).then_some(usize::try_from(leader - 1).ok()?)
        });
        return asked.await;
    }
    let client = shell.within(ASK_LIMIT, async_nats::connect(addresses(broker))).await?.ok()?;
    let leader = leader_up_to_date(&client, "SEGUE_ledger_2E0").await?;
    let raw = leader_up_to_date(&client, STREAM).await?;
    if raw != leader {
        // The next look shows whether it went there.
        let there = json!({ "placement": { "preferred": leader } }).to_string();
        let _ = client.request(format!("$JS.API.STREAM.LEADER.STEPDOWN.{STREAM}"), there.into()).await;
        return None;
    }
    leader.strip_prefix('n')?.parse().ok()
}

async fn leader_up_to_date(client: &async_nats::Client, stream: &str) -> Option<String> {
    let answer = client.request(format!("$JS.API.STREAM.INFO.{stream}"), "".into()).await.ok()?;
    let told: Value = serde_json::from_slice(&answer.payload).ok()?;
    let others = told["cluster"]["replicas"].as_array()?;
    let current = others.iter().filter(|other| other["current"] == true && other["offline"] != true).count();
    (current == 2).then(|| told["cluster"]["leader"].as_str().map(str::to_owned)).flatten()
}
