//! What operators do to a broker, and accidents: asked of the servers themselves, past every adapter.

use std::time::Duration;

use broker_adapter::ids::Position;
use broker_adapter::shell::Shell;
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use serde_json::{Value, json};

use super::{Broker, BrokerKind, kafka};
use crate::harness::{call, wait_for};

const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const OTHER_PASSWORD: &str = "changed-behind-our-back";

/// The log of the tests' service, as each broker calls it.
pub const STREAM: &str = "SEGUE_ledger_2E0";
const TOPIC: &str = "segue.shards.ledger";

impl Broker {
    /// Which server leads a stream or topic now; `None` while nobody does.
    pub async fn leader(&self, shell: &Shell, stream_or_topic: &str) -> Option<usize> {
        match self.kind {
            BrokerKind::Kafka | BrokerKind::KafkaCluster => {
                let (settings, topic) = (self.kafka_client(), stream_or_topic.to_owned());
                let asked = shell.blocking(move || {
                    let consumer: BaseConsumer = settings.create().ok()?;
                    let answer = consumer.fetch_metadata(Some(&topic), ANSWER_LIMIT).ok()?;
                    let leader = answer.topics().first()?.partitions().first()?.leader();
                    usize::try_from(leader - 1).ok()
                });
                asked.await
            }
            _ => self.nats_leader(shell, stream_or_topic).await,
        }
    }

    /// Which server leads the service's log now.
    pub async fn leader_of_log(&self, shell: &Shell) -> Option<usize> {
        self.leader(shell, if self.kind.is_kafka() { TOPIC } else { STREAM }).await
    }

    /// By the servers' monitoring: each tells whom it follows, and one that was leader may not know better yet.
    async fn nats_leader(&self, shell: &Shell, stream: &str) -> Option<usize> {
        let mut told = vec![0; self.servers.len()];
        for server in self.servers.iter().filter(|server| server.process.is_started()) {
            let address = server.ports.second.address();
            let limit = Duration::from_millis(500);
            let asked = call(shell, &address, ("GET", "/jsz?streams=true&accounts=true"), "", limit);
            let Ok(answer) = asked.await else { continue };
            let Ok(all) = serde_json::from_slice::<Value>(&answer.body) else { continue };
            let streams = all["account_details"].as_array().into_iter().flatten();
            let mut streams = streams.flat_map(|account| account["stream_detail"].as_array().into_iter().flatten());
            let found = streams.find(|detail| detail["name"] == stream);
            let leader = found.and_then(|detail| detail["cluster"]["leader"].as_str());
            if let Some(at) = leader.and_then(|name| name.strip_prefix('n')?.parse::<usize>().ok()) {
                told[at] += 1;
            }
        }
        let most = told.iter().copied().max().unwrap_or(0);
        told.iter().position(|votes| *votes == most && most > 0)
    }

    /// Deletes the service's log and makes an empty one of the same name; how it is now, for people.
    pub async fn recreate_log(&self, shell: &Shell) -> String {
        if self.kind.is_kafka() {
            let admin: AdminClient<DefaultClientContext> = self.kafka_client().create().expect("a client can be made");
            let deleted = admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.expect("the cluster answers");
            assert!(deleted.iter().all(Result::is_ok), "{deleted:?}");
        } else {
            self.jetstream(&format!("STREAM.DELETE.{STREAM}"), Value::Null).await;
        }
        let broker = self.connect(shell).await;
        let tail = wait_for(shell, "an empty log of the same name", || async {
            let log = broker.log("ledger.0").await.ok()?;
            log.tail().await.ok()
        });
        format!("the log was deleted and made anew, its tail is {}", tail.await)
    }

    /// Removes every record of the service's log before a position.
    pub async fn purge_log(&self, shell: &Shell, before: Position) -> String {
        let broker = self.connect(shell).await;
        let first = wait_for(shell, "the purge", || async {
            let log = broker.log("ledger.0").await.ok()?;
            log.trim(before).await.ok()?;
            log.usage().await.ok().map(|usage| usage.first).filter(|first| *first >= before)
        });
        format!("the log begins at {}", first.await)
    }

    /// Sets how much the service's log on NATS may hold: `more_bytes` above what it holds, or anything again.
    pub async fn limit_log(&self, more_bytes: Option<u64>) -> String {
        let info = self.jetstream(&format!("STREAM.INFO.{STREAM}"), Value::Null).await;
        let holds = info["state"]["bytes"].as_u64().expect("a stream has a size");
        let mut config = info["config"].clone();
        config["max_bytes"] = more_bytes.map_or(json!(-1), |more| json!(holds + more));
        self.jetstream(&format!("STREAM.UPDATE.{STREAM}"), config.clone()).await;
        format!("the stream holds {holds} bytes, max_bytes is {}", config["max_bytes"])
    }

    /// Gives the users another password, or theirs again. A NATS server reads its configuration again, Kafka must be restarted.
    pub fn change_password(&mut self, theirs_again: bool) {
        assert!(self.wants.passwords, "the users of this broker have none");
        let password = if theirs_again { super::nats::PASSWORD } else { OTHER_PASSWORD };
        if self.kind.is_nats() {
            self.write_nats(0, password);
            self.server(0).process.reload();
        } else {
            self.kill();
            self.write_kafka(0, password);
            self.restart();
        }
    }

    /// How often servers refused somebody for his credentials.
    #[must_use]
    pub fn refusals(&self) -> usize {
        let log = self.log();
        log.lines()
            .filter(|line| line.contains("authentication error") || line.contains("Failed authentication"))
            .count()
    }

    async fn jetstream(&self, question: &str, body: Value) -> Value {
        let client = async_nats::connect(self.url()).await.expect("the server is there");
        let payload = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let answer = client.request(format!("$JS.API.{question}"), payload.into()).await.expect("JetStream answers");
        let answer: Value = serde_json::from_slice(&answer.payload).expect("it is JSON");
        assert!(answer.get("error").is_none(), "{question}: {answer}");
        answer
    }

    /// A client of the test's own.
    #[must_use]
    pub fn kafka_client(&self) -> ClientConfig {
        let servers: Vec<String> = self.servers.iter().map(|server| server.ports.client.address()).collect();
        let mut settings = ClientConfig::new();
        settings.set("bootstrap.servers", servers.join(","));
        if self.wants.passwords {
            for (name, value) in kafka::login() {
                settings.set(name, value);
            }
        }
        settings
    }
}
