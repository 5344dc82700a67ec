//! Requests larger than a record of the broker: through the checkpoint store, and else like all others. In one process on paused time;
//! on real brokers in `real`.

mod real;

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::memory::{Faults as BrokerFaults, MemoryBroker};
use broker_adapter::record::{Body, Entry, Record};
use broker_adapter::shell::Shell;
use broker_adapter::{Broker, ConnectError};
use futures_util::future::BoxFuture;
use http_body_util::Full;
use segue_tests::harness::{Answer, HANG_LIMIT, call, call_with_key, wait_for};
use segue_tests::ledger::Faults;
use serde_json::{Value, json};
use sidecar::body::body_prefix;

use crate::one_process::{Node, World};

const LOG: &str = "ledger.0";

/// An id that is larger than a record of the memory broker, in two parts.
fn large(name: &str) -> String {
    format!("{name}-{}", "x".repeat(5 << 20))
}

/// No checkpoints but the first one, so that everything is replayed.
fn keeping(checkpoint: Value) -> Value {
    json!({ "body_limit_bytes": 8 << 20, "reply_timeout_ms": 5_000, "checkpoint": checkpoint })
}

fn never() -> Value {
    json!({ "every_s": 0, "every_records": 0, "every_mb": 0 })
}

async fn post(world: &World, node: &str, id: &str) -> Answer {
    call(&world.shell, &format!("{node}:80"), ("POST", "/append"), id.to_owned(), HANG_LIMIT).await.expect("it answers")
}

async fn post_with_key(world: &World, node: &str, id: &str, key: &str) -> Answer {
    let body = Full::from(id.to_owned());
    let address = format!("{node}:80");
    call_with_key(&world.shell, &address, ("POST", "/append"), body, key, HANG_LIMIT).await.expect("it answers")
}

fn prefix() -> String {
    body_prefix(&broker_adapter::ids::ShardId::whole("ledger".parse().expect("a good name")))
}

/// The objects of bodies.
fn objects(world: &World) -> Vec<String> {
    world.broker.objects(&prefix()).0.into_iter().collect()
}

fn stored(entries: &[Entry]) -> usize {
    let is_stored = |entry: &&Entry| match &entry.record {
        Record::Message(message) => matches!(message.request.body, Body::Stored { .. }),
        _ => false,
    };
    entries.iter().filter(is_stored).count()
}

fn code(answer: &Answer) -> (u16, String) {
    (answer.status, answer.json()["code"].as_str().unwrap_or_default().to_owned())
}

async fn trouble(world: &World, node: &Node, what: &str) -> String {
    let view = node.sidecar.admin.shards.values().next().expect("it has one").replica.clone();
    wait_for(&world.shell, what, || async { view.borrow().trouble.clone().filter(|trouble| trouble.contains(what)) })
        .await
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_applied_once_and_its_body_goes_with_the_trim() {
    let world = World::new(1, BrokerFaults::calm());
    let more = keeping(json!({ "every_s": 1, "every_records": 0, "every_mb": 0 }));
    let owner = world.start_with("edge-a", true, Faults::default(), more.clone()).await;
    let _other = world.start_with("edge-b", false, Faults::default(), more).await;
    let (one, two) = (large("one"), large("two"));
    let first = post_with_key(&world, "edge-b", &one, "k").await;
    assert_eq!((first.status, first.json()["n"].as_u64()), (200, Some(1)));
    assert_eq!(objects(&world).len(), 2, "5 MiB are two parts");
    assert_eq!(post(&world, "edge-a", &two).await.json()["n"].as_u64(), Some(2));
    // The same request at another ingress, and two that are not the same.
    let again = post_with_key(&world, "edge-a", &one, "k").await;
    assert_eq!((again.status, again.body), (200, first.body));
    for other in [two.as_str(), "small"] {
        assert_eq!(code(&post_with_key(&world, "edge-a", other, "k").await), (422, "key-reused".to_owned()));
    }
    assert_eq!(post_with_key(&world, "edge-a", "small", "s").await.status, 200);
    assert_eq!(code(&post_with_key(&world, "edge-b", &one, "s").await), (422, "key-reused".to_owned()));
    let chain = owner.runner.latest().expect("the owner runs an instance").chain();
    assert_eq!(chain.ids(), [one.clone(), two.clone(), "small".to_owned()]);
    assert_eq!(stored(&world.broker.dump(LOG)), 5, "small ones are in their records");
    for number in 0..20 {
        if objects(&world).is_empty() {
            break;
        }
        post(&world, "edge-a", &format!("more-{number}")).await;
        world.shell.sleep(Duration::from_secs(2)).await;
    }
    assert_eq!(objects(&world), Vec::<String>::new(), "whoever put them, and whatever became of their records");
    assert_eq!(world.broker.objects(&prefix()).1.len(), 10);
}

#[tokio::test(start_paused = true)]
async fn a_large_request_is_replayed_and_above_the_limit_it_is_refused() {
    let world = World::new(2, BrokerFaults::rough());
    let owner = world.start_with("edge-a", true, Faults::default(), keeping(never())).await;
    for number in 0..6 {
        let id = if number % 2 == 0 { large(&number.to_string()) } else { format!("small-{number}") };
        assert_eq!(post_with_key(&world, "edge-a", &id, &format!("k-{number}")).await.status, 200);
    }
    assert!(owner.runner.kill(), "it lived");
    let value = wait_for(&world.shell, "the replay", || async {
        let read = call(&world.shell, "edge-a:80", ("GET", "/value"), "", HANG_LIMIT).await.ok()?;
        (read.status == 200).then(|| read.json())
    })
    .await;
    assert_eq!(value["n"].as_u64(), Some(6));
    let above = post(&world, "edge-a", &"x".repeat((8 << 20) + 1)).await;
    assert_eq!(code(&above), (413, "body-too-large".to_owned()));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_gone_or_damaged_stops_the_replica_with_its_position() {
    for damaged in [false, true] {
        let world = World::new(3, BrokerFaults::calm());
        let owner = world.start_with("edge-a", true, Faults::default(), keeping(never())).await;
        assert_eq!(post(&world, "edge-a", "small").await.status, 200);
        assert_eq!(post(&world, "edge-a", &large("lost")).await.status, 200);
        let entries = world.broker.dump(LOG);
        let position = entries.iter().position(|entry| stored(std::slice::from_ref(entry)) == 1).expect("one is") + 1;
        let part = objects(&world).pop().expect("it is in two parts");
        if damaged {
            assert!(world.broker.damage_object(&part));
        } else {
            world.broker.connect("test").store().delete(part.clone()).await.expect("it is deleted");
        }
        assert!(owner.runner.kill(), "it lived");
        let told = trouble(&world, &owner, &format!("the request at {position} cannot be applied")).await;
        assert!(told.contains(&part), "{told}");
        let view = owner.sidecar.admin.shards.values().next().expect("it has one").replica.borrow().clone();
        assert_eq!(view.state, sidecar::command::ReplicaState::Stopped, "nothing is skipped");
    }
}

#[tokio::test(start_paused = true)]
async fn while_the_store_takes_nothing_only_large_requests_wait() {
    let world = World::new(4, BrokerFaults::calm());
    let owner = world.start_with("edge-a", true, Faults::default(), keeping(never())).await;
    world.broker.fill_store(true);
    let id = large("one");
    let waiting = post_with_key(&world, "edge-a", &id, "k");
    let small = async {
        world.shell.sleep(Duration::from_millis(100)).await;
        post(&world, "edge-a", "small").await
    };
    let (refused, small) = futures_util::future::join(waiting, small).await;
    assert_eq!(small.json()["n"].as_u64(), Some(1));
    assert_eq!(code(&refused), (503, "body-not-stored".to_owned()));
    assert!(refused.text().contains("full"), "{}", refused.text());
    assert_eq!(stored(&world.broker.dump(LOG)), 0);
    world.broker.fill_store(false);
    assert_eq!(post_with_key(&world, "edge-a", &id, "k").await.json()["n"].as_u64(), Some(2));
    drop(owner);
}

#[tokio::test(start_paused = true)]
async fn a_broker_that_takes_less_than_it_said_gets_no_larger_records() {
    let world = World::new(5, BrokerFaults::calm());
    let _owner = world.start_with("edge-a", true, Faults::default(), keeping(never())).await;
    let medium = |name: &str| format!("{name}-{}", "x".repeat(100 << 10));
    assert_eq!(post(&world, "edge-a", &medium("in-its-record")).await.status, 200);
    assert_eq!(objects(&world).len(), 0);
    // Before anybody asks it again.
    world.broker.limit_record(LOG, 64 << 10);
    assert_eq!(post(&world, "edge-a", &medium("stored")).await.json()["n"].as_u64(), Some(2));
    assert_eq!((objects(&world).len(), stored(&world.broker.dump(LOG))), (1, 1));
    assert_eq!(post(&world, "edge-a", "small").await.json()["n"].as_u64(), Some(3));
}

/// A broker whose checkpoint store is another one.
struct Astray {
    broker: Arc<dyn Broker>,
    store: Arc<dyn Broker>,
}

impl Broker for Astray {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn broker_adapter::log::MessageLog>, ConnectError>> {
        self.broker.log(name)
    }

    fn store(&self) -> Arc<dyn broker_adapter::store::CheckpointStore> {
        self.store.store()
    }

    fn mailbox(&self) -> Arc<dyn broker_adapter::mailbox::Mailbox> {
        self.broker.mailbox()
    }

    fn url(&self) -> String {
        self.broker.url()
    }
}

#[tokio::test(start_paused = true)]
async fn an_ingress_whose_checkpoints_are_elsewhere_stores_no_body_there() {
    let world = World::new(6, BrokerFaults::calm());
    let _owner = world.start_with("edge-a", true, Faults::default(), keeping(never())).await;
    let (shell, _process): (Shell, _) = world.sim.process();
    let elsewhere = MemoryBroker::new(7, shell.clone(), BrokerFaults::calm());
    let broker = Astray { broker: world.broker.connect("gate"), store: elsewhere.connect("gate") };
    let service = json!({ "name": "ledger", "listen": "gate:80", "body_limit_bytes": 8 << 20 });
    let config = json!({ "node": "gate", "broker": "memory:", "admin": "gate:1", "service": [service] });
    let config: sidecar::Config = serde_json::from_value(config).expect("a good configuration");
    let runner: Arc<dyn sidecar::runner::Runner> =
        Arc::new(segue_tests::ledger::LedgerRunner::new(shell.clone(), "gate", Arc::default()));
    let gate = sidecar::Sidecar::start(config, Arc::new(broker), move |_| runner.clone(), &shell).await;
    let gate = gate.expect("it starts");
    wait_for(&world.shell, "the gate", || async { gate.admin.conditions().0.then_some(()) }).await;
    assert_eq!(post(&world, "gate", "small").await.status, 200);
    let refused = post(&world, "gate", &large("one")).await;
    assert_eq!(code(&refused), (503, "body-not-stored".to_owned()));
    assert!(refused.text().contains("`checkpoints`"), "{}", refused.text());
    assert_eq!(stored(&world.broker.dump(LOG)), 0, "no replica has to stop for it");
}
