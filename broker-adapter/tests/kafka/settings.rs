//! What a cluster must keep, and who may use it: each mismatch is named, with what mends it.

use broker_adapter::ids::Position;
use broker_adapter::kafka::KafkaOptions;
use broker_adapter::kafka::options::{Properties, Replicas};
use broker_adapter::shell::{Shell, real};
use broker_adapter::{Broker, BrokerOptions, ConnectError, connect_with};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use std::collections::BTreeMap;
use std::sync::Arc;

use super::server::{Server, fresh, shared};
use crate::support::{mark, numbers};

pub async fn connected(server: &Server, options: &KafkaOptions, shell: &Shell) -> Arc<dyn Broker> {
    let options = BrokerOptions { kafka: options.clone(), ..BrokerOptions::default() };
    connect_with(&server.url(), &options, shell).await.expect("it connects")
}

async fn refused(server: &Server, options: &KafkaOptions, shell: &Shell) -> ConnectError {
    let options = BrokerOptions { kafka: options.clone(), ..BrokerOptions::default() };
    connect_with(&server.url(), &options, shell).await.err().expect("it is refused")
}

pub fn admin(server: &Server) -> AdminClient<DefaultClientContext> {
    ClientConfig::new().set("bootstrap.servers", server.address()).create().expect("an admin")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_setting_that_does_not_fit_is_named_with_the_command_that_mends_it() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let options = fresh();
    let topic = format!("{}.shards.ledger", options.prefix.as_str());
    let wrong = [
        ("retention.ms", "1000"),
        ("retention.bytes", "1000"),
        ("cleanup.policy", "compact"),
        ("message.timestamp.type", "CreateTime"),
        ("unclean.leader.election.enable", "true"),
        ("max.message.bytes", "1000"),
    ];
    let mut made = NewTopic::new(&topic, 1, TopicReplication::Fixed(1));
    for (name, value) in wrong {
        made = made.set(name, value);
    }
    admin(&server).create_topics([&made], &AdminOptions::new()).await.unwrap()[0].as_ref().expect("it is made");
    let broker = connected(&server, &options, &shell).await;
    let refused = broker.log("ledger.0").await.err().expect("it is refused");
    assert!(matches!(refused, ConnectError::Settings { .. }), "{refused}");
    let text = refused.to_string();
    for (name, value) in wrong {
        assert!(text.contains(&format!("{name} is \"{value}\"")), "{name}: {text}");
    }
    assert!(text.contains("kafka-configs.sh") && text.contains("retention.ms=-1,"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fewer_copies_than_configured_are_refused() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let options = fresh();
    let three = Replicas::try_from(3).unwrap();
    let more = KafkaOptions { replicas: three, ..options.clone() };
    let impossible = refused(&server, &more, &shell).await.to_string();
    assert!(impossible.contains("fewer brokers than kafka.replicas = 3"), "{impossible}");
    connected(&server, &options, &shell).await;
    let text = refused(&server, &more, &shell).await.to_string();
    assert!(text.contains("has 1 replicas, must have 3"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_shard_is_a_new_partition_and_changes_no_other() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let first = broker.log("ledger.0").await.unwrap();
    assert_eq!(first.append(vec![mark(1)]).await, Ok(vec![Position(1)]));
    let third = broker.log("ledger.2").await.unwrap();
    assert_eq!(third.append(vec![mark(30)]).await, Ok(vec![Position(1)]));
    assert_eq!(first.append(vec![mark(2)]).await, Ok(vec![Position(2)]));
    assert_eq!((numbers(&first).await, numbers(&third).await), (vec![1, 2], vec![30]));
    assert_eq!(broker.log("ledger.1").await.unwrap().tail().await, Ok(Position(0)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn wrong_credentials_are_told_and_not_shown() {
    let jaas = "sasl.enabled.mechanisms=PLAIN\nsasl.mechanism.inter.broker.protocol=PLAIN\n\
         listener.name.sasl_plaintext.plain.sasl.jaas.config=org.apache.kafka.common.security.plain.PlainLoginModule \
         required username=\"broker\" password=\"b\" user_broker=\"b\" user_segue=\"open-sesame\";";
    let server = tokio::task::spawn_blocking(move || Server::start_with(jaas)).await.unwrap();
    let (shell, _process) = real::process();
    let with = |password: &str| {
        let all = [
            ("security.protocol", "SASL_PLAINTEXT"),
            ("sasl.mechanism", "PLAIN"),
            ("sasl.username", "segue"),
            ("sasl.password", password),
        ];
        let all: BTreeMap<String, String> = all.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        KafkaOptions { properties: Properties::try_from(all).unwrap(), ..fresh() }
    };
    let text = refused(&server, &with("hunter2"), &shell).await.to_string();
    assert!(text.to_lowercase().contains("authentication") && text.contains("kafka.properties"), "{text}");
    assert!(!text.contains("hunter2"), "{text}");
    let broker = connected(&server, &with("open-sesame"), &shell).await;
    let log = broker.log("ledger.0").await.unwrap();
    assert_eq!(log.append(vec![mark(1)]).await, Ok(vec![Position(1)]));
    assert!(!broker.url().contains("open-sesame"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_property_that_does_not_fit_is_named() {
    let (shell, _process) = real::process();
    for (name, value) in [("linger.mz", "1"), ("linger.ms", "soon")] {
        let all = BTreeMap::from([(name.to_owned(), value.to_owned())]);
        let options = BrokerOptions {
            kafka: KafkaOptions { properties: Properties::try_from(all).unwrap(), ..KafkaOptions::default() },
            ..BrokerOptions::default()
        };
        let refused = connect_with("kafka://127.0.0.1:1", &options, &shell).await.err().expect("it is refused");
        assert!(refused.to_string().contains(name), "{refused}");
    }
}
