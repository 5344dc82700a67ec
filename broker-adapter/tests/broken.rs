//! Connections that break in mid-append, and brokers that restart: nothing lost, nothing doubled that was acknowledged.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::connect;
use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::{AppendError, MessageLog};
use broker_adapter::shell::{Shell, TaskSet, real};
use bytes::Bytes;
use futures_util::StreamExt;
use futures_util::future::join_all;

use crate::conformance::serve;
use crate::support::{at, mark, number, numbers};

/// Passes connections on until it cuts them.
struct Proxy {
    address: String,
    connections: Arc<Mutex<Vec<TaskSet>>>,
    refusing: Arc<AtomicBool>,
}

impl Proxy {
    async fn start(shell: &Shell, target: &str) -> Proxy {
        let mut listener = shell.listen("127.0.0.1:0").await.unwrap();
        let (connections, refusing) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let proxy = Proxy { address: listener.address(), connections: connections.clone(), refusing: refusing.clone() };
        let (inner, target) = (shell.clone(), target.to_owned());
        shell.spawn(async move {
            loop {
                let mut near = listener.accept().await.unwrap();
                if refusing.load(Ordering::SeqCst) {
                    continue;
                }
                let (part, set) = inner.part();
                let (far, target) = (inner.clone(), target.clone());
                part.spawn(async move {
                    if let Ok(mut far) = far.connect(&target).await {
                        // Its end is what the test is about.
                        let _ = tokio::io::copy_bidirectional(&mut near, &mut far).await;
                    }
                });
                connections.lock().unwrap().push(set);
            }
        });
        proxy
    }

    fn cut(&self) -> usize {
        std::mem::take(&mut *self.connections.lock().unwrap()).len()
    }
}

/// What became of the records 1, 2, 3 …, eight calls in flight at a time.
#[derive(Default)]
struct Outcomes {
    acknowledged: BTreeMap<u64, Position>,
    unknown: usize,
    never_sent: Vec<u64>,
}

async fn append_until(log: &Arc<dyn MessageLog>, stop: &AtomicBool) -> Outcomes {
    let (mut outcomes, mut next) = (Outcomes::default(), 1);
    while !stop.load(Ordering::SeqCst) {
        let batch = next..next + 8;
        next += 8;
        let results = join_all(batch.clone().map(|number| log.append(vec![mark(number)]))).await;
        for (number, result) in batch.zip(results) {
            match result {
                Ok(positions) => drop(outcomes.acknowledged.insert(number, positions[0])),
                Err(AppendError::Unknown(_)) => outcomes.unknown += 1,
                Err(error) if error.has_no_side_effects() && error.is_retryable() => outcomes.never_sent.push(number),
                Err(error) => panic!("{error}"),
            }
        }
    }
    outcomes
}

async fn follow(mut follower: Follower, stop: &AtomicBool, shell: &Shell) -> Vec<u64> {
    let mut seen = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        if let Some(entry) = shell.within(Duration::from_millis(20), follower.next()).await {
            seen.push(number(&entry.expect("nothing may stop a follower here")));
        }
    }
    seen
}

fn check(outcomes: &Outcomes, found: &[u64], followed: &[u64]) {
    for (number, position) in &outcomes.acknowledged {
        let at = usize::try_from(position.0).unwrap() - 1;
        assert_eq!(found.get(at), Some(number), "{number} was acknowledged at {position}");
    }
    let mut counts = BTreeMap::new();
    found.iter().for_each(|number| *counts.entry(*number).or_insert(0) += 1);
    assert!(counts.values().all(|count| *count == 1), "no record is there twice");
    for number in &outcomes.never_sent {
        assert!(!counts.contains_key(number), "{number} was said to have no side effects");
    }
    assert_eq!(followed, &found[..followed.len()], "the follower saw the log's beginning, in order");
    assert!(!outcomes.acknowledged.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_broken_in_mid_append_lose_and_double_nothing() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (address, _serving) = serve(&shell, folder.path(), "127.0.0.1:0").await;
    let proxy = Proxy::start(&shell, &address).await;
    let broker = connect(&format!("segue://{}", proxy.address), &shell).await.unwrap();
    let log = broker.log("a.0").await.unwrap();
    let follower = Follower::new(broker.log("a.0").await.unwrap(), shell.clone(), Position::ZERO, 0);
    let stop = AtomicBool::new(false);
    let cutter = async {
        for round in 0..30 {
            shell.sleep(Duration::from_millis(15 + round % 7)).await;
            assert!(proxy.cut() > 0, "there was something to cut");
        }
        shell.sleep(Duration::from_millis(700)).await;
        stop.store(true, Ordering::SeqCst);
    };
    let (outcomes, followed, ()) =
        futures_util::future::join3(append_until(&log, &stop), follow(follower, &stop, &shell), cutter).await;
    assert!(outcomes.unknown > 0, "no connection broke in mid-append");
    check(&outcomes, &numbers(&log).await, &followed);
    assert!(!followed.is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_broker_loses_and_doubles_nothing() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (address, serving) = serve(&shell, folder.path(), "127.0.0.1:0").await;
    let broker = connect(&format!("segue://{address}"), &shell).await.unwrap();
    let log = broker.log("a.0").await.unwrap();
    let follower = Follower::new(broker.log("a.0").await.unwrap(), shell.clone(), Position::ZERO, 0);
    let (stop, restarts) = (AtomicBool::new(false), AtomicUsize::new(0));
    let restarter = async {
        let mut serving = Some(serving);
        for _ in 0..5 {
            shell.sleep(Duration::from_millis(60)).await;
            drop(serving.take());
            serving = Some(serve(&shell, folder.path(), &address).await.1);
            restarts.fetch_add(1, Ordering::SeqCst);
        }
        shell.sleep(Duration::from_secs(1)).await;
        stop.store(true, Ordering::SeqCst);
        serving
    };
    let (outcomes, followed, _serving) =
        futures_util::future::join3(append_until(&log, &stop), follow(follower, &stop, &shell), restarter).await;
    assert_eq!(restarts.load(Ordering::SeqCst), 5);
    assert!(outcomes.unknown + outcomes.never_sent.len() > 0, "no append noticed a restart");
    let found = numbers(&log).await;
    check(&outcomes, &found, &followed);
    let last = outcomes.acknowledged.values().max().unwrap();
    assert!(followed.len() as u64 + 64 > last.0, "the follower went on behind the restarts");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_an_append_is_unreachable_in_bounded_time_and_works_again_after() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (address, _serving) = serve(&shell, folder.path(), "127.0.0.1:0").await;
    let proxy = Proxy::start(&shell, &address).await;
    let broker = connect(&format!("segue://{}", proxy.address), &shell).await.unwrap();
    let log = broker.log("a.0").await.unwrap();
    log.append(vec![mark(1)]).await.unwrap();
    proxy.refusing.store(true, Ordering::SeqCst);
    proxy.cut();
    shell.sleep(Duration::from_millis(50)).await;
    let began = shell.now();
    let error = log.append(vec![mark(2)]).await.unwrap_err();
    assert!(matches!(error, AppendError::Unreachable(_)), "{error}");
    assert!(shell.now() - began < Duration::from_secs(4), "it took {:?}", shell.now() - began);
    assert!(broker.store().get("chunk/a".to_owned()).await.is_err());
    proxy.refusing.store(false, Ordering::SeqCst);
    loop {
        match log.append(vec![mark(3)]).await {
            Ok(positions) => break assert_eq!(positions, [at(2)]),
            Err(error) => assert!(error.has_no_side_effects(), "{error}"),
        }
    }
    assert_eq!(numbers(&log).await, [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mail_subscriptions_come_back_after_a_broken_connection() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (address, _serving) = serve(&shell, folder.path(), "127.0.0.1:0").await;
    let proxy = Proxy::start(&shell, &address).await;
    let near = connect(&format!("segue://{}", proxy.address), &shell).await.unwrap();
    let far = connect(&format!("segue://{address}"), &shell).await.unwrap();
    let mut listener = near.mailbox().subscribe("node/edge-a");
    for round in 0..3 {
        let message = Bytes::from(format!("round {round}"));
        loop {
            far.mailbox().send("node/edge-a", message.clone());
            match shell.within(Duration::from_millis(50), listener.next()).await {
                Some(Some(got)) if got == message => break,
                Some(None) => panic!("a subscription never ends"),
                _ => {}
            }
        }
        assert!(proxy.cut() > 0, "there was something to cut");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_at_the_address_is_said_with_advice() {
    let (shell, _process) = real::process();
    let listener = shell.listen("127.0.0.1:0").await.unwrap();
    let address = listener.address();
    drop(listener);
    let error = connect(&format!("segue://{address}"), &shell).await.err().expect("nobody is there").to_string();
    assert!(error.contains(&address) && error.contains("is `segue broker` running there?"), "{error}");
}
