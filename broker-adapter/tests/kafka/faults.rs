//! What happens to a cluster behind our back, and in the middle of what we do.

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Count, Incarnation, MessageName, Position, Replica, Sequence, Session};
use broker_adapter::log::{AppendError, MessageLog, ReadError};
use broker_adapter::record::{Body, Key, Message, Record, Request, wire};
use broker_adapter::shell::real;
use futures_util::StreamExt;
use futures_util::future::join_all;
use rdkafka::ClientConfig;
use rdkafka::admin::AdminOptions;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rustix::process::Signal;

use super::proxy::Proxy;
use super::server::{Server, fresh, shared};
use super::settings::{admin, connected};
use crate::support::{mark, number, numbers};

const LIMIT: Duration = Duration::from_secs(10);

async fn started() -> Arc<Server> {
    Arc::new(tokio::task::spawn_blocking(Server::start).await.unwrap())
}

/// Appends one by one, a hundred on their way, until told; gives all that was acknowledged.
async fn stream_of_appends(
    log: Arc<dyn MessageLog>,
    mut stop: tokio::sync::watch::Receiver<bool>,
    acknowledged: tokio::sync::watch::Sender<usize>,
) -> Vec<(Position, u64)> {
    let mut all = Vec::new();
    let mut next = 0;
    while !*stop.borrow_and_update() {
        let calls: Vec<_> = (next..next + 100).map(|at| log.append(vec![mark(at)])).collect();
        for (at, outcome) in (next..).zip(join_all(calls).await) {
            if let Ok(positions) = outcome {
                all.push((positions[0], at));
            }
        }
        next += 100;
        acknowledged.send_replace(all.len());
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_acknowledged_record_survives_kill_9_in_mid_stream() {
    let server = started().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let (sender, mut acknowledged) = tokio::sync::watch::channel(0);
    let appending = tokio::spawn(stream_of_appends(log.clone(), stopped, sender));
    let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
    acknowledged.wait_for(|count| *count >= 1_000).await.unwrap();
    let before = *acknowledged.borrow();
    let again = server.clone();
    tokio::task::spawn_blocking(move || {
        again.kill();
        again.again();
    })
    .await
    .unwrap();
    acknowledged.wait_for(|count| *count >= before + 1_000).await.unwrap();
    stop.send_replace(true);
    let acknowledged = appending.await.unwrap();
    let mut read = std::collections::BTreeMap::new();
    let tail = log.tail().await.unwrap();
    while follower.position() < tail {
        let entry = follower.next().await.expect("nothing is missing");
        read.insert(entry.position, number(&entry));
    }
    for (position, at) in acknowledged {
        assert_eq!(read.get(&position), Some(&at), "{position} was acknowledged");
    }
}

/// A server that tells its clients to come through a proxy.
async fn behind_a_proxy() -> (Proxy, Arc<Server>) {
    let proxy = Proxy::listen();
    let more = format!("advertised.listeners=PLAINTEXT://{}", proxy.address());
    let server = Arc::new(tokio::task::spawn_blocking(move || Server::start_with(&more)).await.unwrap());
    proxy.forward_to(server.address());
    (proxy, server)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_producer_that_failed_for_good_is_replaced_and_the_log_goes_on_behind_it() {
    let (proxy, server) = behind_a_proxy().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    let mut last = 0;
    for round in 0..3u64 {
        assert_eq!(log.append(vec![mark(10 * round)]).await, Ok(vec![Position(last + 1)]));
        proxy.spoil_the_next_answer();
        // It is in the log; its producer must not say so any more.
        let lost = log.append(vec![mark(10 * round + 1)]).await;
        assert!(matches!(lost, Err(AppendError::Unknown(_))), "{lost:?}");
        let next = log.append(vec![mark(10 * round + 2)]).await;
        assert_eq!(next, Ok(vec![Position(last + 3)]), "another producer goes on behind the last record");
        last += 3;
    }
    assert_eq!(proxy.spoilt(), 3, "the fault fired");
    assert_eq!(numbers(&log).await, [0, 1, 2, 10, 11, 12, 20, 21, 22]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_whose_acknowledgement_is_lost_is_there_once() {
    let (proxy, server) = behind_a_proxy().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    for at in 1..=20 {
        if at % 5 == 0 {
            proxy.cut_behind_the_next_produce();
        }
        let mut number = at;
        loop {
            match log.append(vec![mark(number)]).await {
                Ok(positions) => break assert_eq!(positions.len(), 1),
                // Only if the acknowledgement did not come in time: then under another number.
                Err(AppendError::Unknown(_)) => number += 1_000,
                Err(error) => assert!(error.is_retryable(), "{error}"),
            }
        }
    }
    assert!(proxy.cuts() >= 4, "the fault fired {} times", proxy.cuts());
    let mut seen = numbers(&log).await;
    seen.sort_unstable();
    let count = seen.len();
    seen.dedup();
    assert_eq!(seen.len(), count, "nothing is doubled");
    assert!((1..=20).all(|at| seen.iter().any(|number| number % 1_000 == at)), "nothing is lost: {seen:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_stands_still_for_ten_seconds_costs_nothing() {
    let server = started().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    assert_eq!(log.append(vec![mark(0)]).await, Ok(vec![Position(1)]));
    let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
    assert_eq!(number(&follower.next().await.unwrap()), 0);
    server.signal(Signal::STOP);
    let calls: Vec<_> = (1..=100).map(|at| log.append(vec![mark(at)])).collect();
    assert!(shell.within(Duration::from_secs(10), follower.next()).await.is_none(), "it stands still");
    server.signal(Signal::CONT);
    let acknowledged = join_all(calls).await;
    for (at, outcome) in (1..).zip(acknowledged) {
        assert_eq!(outcome, Ok(vec![Position(at + 1)]));
        assert_eq!(number(&follower.next().await.unwrap()), at);
    }
    assert_eq!(log.tail().await, Ok(Position(101)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_append_without_a_broker_is_refused_for_certain() {
    let server = started().await;
    let (shell, _process) = real::process();
    let broker = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    assert_eq!(log.append(vec![mark(1)]).await, Ok(vec![Position(1)]));
    server.kill();
    // It takes a moment until the broken connection is seen; from then on nothing is sent.
    let refused = async {
        let mut at = 2;
        loop {
            let outcome = shell.within(Duration::from_secs(3), log.append(vec![mark(at)])).await;
            if let Some(Err(AppendError::Unreachable(_))) = outcome {
                break at;
            }
            at += 1;
        }
    };
    let refused = shell.within(3 * LIMIT, refused).await.expect("it is refused");
    let again = server.clone();
    tokio::task::spawn_blocking(move || again.again()).await.unwrap();
    let late = async {
        while log.append(vec![mark(1_000)]).await.is_err() {
            shell.sleep(Duration::from_millis(50)).await;
        }
    };
    shell.within(6 * LIMIT, late).await.expect("it goes on");
    assert!(!numbers(&log).await.contains(&refused), "what was refused is not there");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_noticed_by_readers_and_writers() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let options = fresh();
    let broker = connected(&server, &options, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    log.append((1..=5).map(mark).collect()).await.unwrap();
    let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
    for at in 1..=5 {
        assert_eq!(number(&follower.next().await.unwrap()), at);
    }
    let topic = format!("{}.shards.a", options.prefix.as_str());
    admin(&server).delete_topics(&[&topic], &AdminOptions::new()).await.unwrap()[0].as_ref().expect("it is deleted");
    let anew = async {
        loop {
            let other = connected(&server, &options, &shell).await;
            if let Ok(log) = other.log("a.0").await
                && log.tail().await == Ok(Position(0))
                && log.append((11..=20).map(mark).collect()).await.is_ok()
            {
                break;
            }
            shell.sleep(Duration::from_millis(50)).await;
        }
    };
    shell.within(3 * LIMIT, anew).await.expect("it is made anew");
    let error = shell.within(3 * LIMIT, follower.next()).await.expect("it is noticed").expect_err("it is another log");
    let named = matches!(error, ReadError::Different { position: Position(5), .. } | ReadError::BehindTail { .. });
    assert!(named, "{error}");
    let stopped = async {
        while !matches!(log.append(vec![mark(99)]).await, Err(AppendError::Damaged(_))) {
            shell.sleep(Duration::from_millis(50)).await;
        }
    };
    shell.within(6 * LIMIT, stopped).await.expect("the writer notices too");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_in_the_log_is_a_gap() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let options = fresh();
    let broker = connected(&server, &options, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    log.append((1..=2).map(mark).collect()).await.unwrap();
    let topic = format!("{}.shards.a", options.prefix.as_str());
    let address = server.address();
    let foreign = move || {
        let producer: BaseProducer =
            ClientConfig::new().set("bootstrap.servers", address).set("transactional.id", "other").create().unwrap();
        producer.init_transactions(3 * LIMIT).unwrap();
        producer.begin_transaction().unwrap();
        let frame = wire::encode(&mark(3)).bytes;
        producer.send(BaseRecord::<(), [u8]>::to(&topic).partition(0).payload(&frame[..])).expect("it is taken");
        producer.commit_transaction(3 * LIMIT).unwrap();
    };
    tokio::task::spawn_blocking(foreign).await.unwrap();
    // The marker is written behind the commit's answer.
    while log.tail().await != Ok(Position(4)) {
        shell.sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(log.append(vec![mark(4)]).await, Ok(vec![Position(5)]));
    let entries: Vec<_> = log.read(Position(1)).take(4).collect().await;
    assert!(entries[..3].iter().all(Result::is_ok));
    assert_eq!(entries[3], Err(ReadError::Gap { expected: Position(4), found: Position(5) }));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_is_no_record_is_damaged_at_its_position() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let options = fresh();
    let broker = connected(&server, &options, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    log.append(vec![mark(1)]).await.unwrap();
    let topic = format!("{}.shards.a", options.prefix.as_str());
    let address = server.address();
    let foreign = move || {
        let producer: BaseProducer = ClientConfig::new().set("bootstrap.servers", address).create().unwrap();
        producer.send(BaseRecord::<(), str>::to(&topic).partition(0).payload("hello")).expect("it is taken");
        producer.flush(3 * LIMIT).unwrap();
    };
    tokio::task::spawn_blocking(foreign).await.unwrap();
    let entries: Vec<_> = log.read(Position(1)).take(2).collect().await;
    assert!(entries[0].is_ok());
    assert!(matches!(entries[1], Err(ReadError::Damaged { position: Position(2), .. })), "{:?}", entries[1]);
}

/// A record with so many bytes of content.
fn large(bytes: usize) -> Record {
    let ingress = Replica { node: "edge-a".parse().expect("it is a name"), incarnation: Incarnation::from_bits(2) };
    let name = MessageName { session: Session::from_bits(1), sequence: Sequence::FIRST };
    let request = Request {
        method: "POST".to_owned(),
        path: "/".to_owned(),
        headers: Vec::new(),
        body: Body::Inline(vec![7; bytes].into()),
    };
    let key = Key::First { name, count: Count(0) };
    Record::Message(Box::new(Message { name, base: None, key, source: None, ingress, request }))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_above_the_limit_is_refused_with_the_limit() {
    let server = shared().await;
    let (shell, _process) = real::process();
    let broker: Arc<dyn Broker> = connected(&server, &fresh(), &shell).await;
    let log = broker.log("a.0").await.unwrap();
    let calls =
        [log.append(vec![mark(1)]), log.append(vec![mark(2), large(3 << 20)]), log.append(vec![large(1 << 20)])];
    let outcomes = join_all(calls).await;
    assert_eq!(outcomes[0], Ok(vec![Position(1)]));
    assert!(matches!(outcomes[1], Err(AppendError::TooLarge { limit_bytes: 2_097_152, .. })), "{:?}", outcomes[1]);
    assert_eq!(outcomes[2], Ok(vec![Position(2)]), "nothing of the call before was appended");
}
