//! Acknowledged means durable: power cuts, killed processes, failing disks.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use broker_adapter::Broker;
use broker_adapter::embedded::{EmbeddedBroker, Options, RECORD_LIMIT_BYTES};
use broker_adapter::ids::Incarnation;
use broker_adapter::log::AppendError;
use broker_adapter::record::{JournalEntry, Record, Writer};
use broker_adapter::shell::{TaskSet, real};
use futures_util::future::join_all;

use crate::support::{at, copy, filled, mark, numbers, open_with, try_log};

/// What was on the disk when a sync ended is copied there and then; nothing written later is in the copy.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_acknowledged_record_was_in_the_file_when_it_was_synced() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (path, copies) = (folder.path().join("broker"), folder.path().join("copies"));
    let syncs = Arc::new(AtomicU64::new(0));
    let (hook_path, hook_copies, hook_syncs) = (path.clone(), copies.clone(), syncs.clone());
    let sync = move |file: &fs::File| {
        file.sync_data()?;
        let number = hook_syncs.fetch_add(1, Ordering::SeqCst) + 1;
        copy(&hook_path, &hook_copies.join(number.to_string()));
        Ok(())
    };
    let broker = open_with(&path, Options { sync: Arc::new(sync), ..Options::default() }, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    let mut acknowledged = Vec::new();
    for round in 0..8u64 {
        let batch: Vec<Record> = (1..=5).map(|n| mark(5 * round + n)).collect();
        let positions = log.append(batch).await.unwrap();
        acknowledged.push((syncs.load(Ordering::SeqCst), *positions.last().unwrap()));
    }
    for (sync, position) in acknowledged {
        let (_copy, log) = try_log(&copies.join(sync.to_string()), &shell).await.expect("the copy opens");
        assert!(log.tail().await.unwrap() >= position, "{position} was acknowledged after sync {sync}");
        assert_eq!(numbers(&log).await, (1..=position.0).collect::<Vec<_>>());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_taken_while_appends_run_holds_all_that_was_acknowledged_before() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker");
    let (broker, log) = try_log(&path, &shell).await.unwrap();
    let (stop, writing) = (Arc::new(AtomicBool::new(false)), log.clone());
    let stopped = stop.clone();
    let writer = async move {
        let mut number = 0;
        while !stopped.load(Ordering::SeqCst) {
            let appends: Vec<_> = (0..32)
                .map(|_| {
                    number += 1;
                    writing.append(vec![mark(number)])
                })
                .collect();
            join_all(appends).await.into_iter().for_each(|append| drop(append.unwrap()));
        }
    };
    let copier = async {
        for round in 0..10 {
            shell.sleep(std::time::Duration::from_millis(20)).await;
            let acknowledged = log.tail().await.unwrap();
            let (from, to) = (path.clone(), folder.path().join(format!("copy-{round}")));
            let target = to.clone();
            shell.blocking(move || copy(&from, &target)).await;
            let (_copy, log) = try_log(&to, &shell).await.expect("the copy opens");
            let tail = log.tail().await.unwrap();
            assert!(tail >= acknowledged, "{acknowledged} was acknowledged, the copy ends at {tail}");
            assert_eq!(numbers(&log).await, (1..=tail.0).collect::<Vec<_>>());
        }
        stop.store(true, Ordering::SeqCst);
    };
    futures_util::future::join(writer, copier).await;
    drop(broker);
}

const CHILD_PATH: &str = "SEGUE_TEST_CHILD_PATH";

/// Runs twice: as the test, and in the process that it kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_process_loses_nothing_acknowledged() {
    if let Some(path) = std::env::var_os(CHILD_PATH) {
        return append_until_killed(path.as_ref()).await;
    }
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["durability::a_killed_process_loses_nothing_acknowledged", "--exact", "--nocapture"])
        .env(CHILD_PATH, folder.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut acknowledged = 0;
    let mut refused = None;
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        let line = line.unwrap();
        let Some(position) = line.strip_prefix("acknowledged ") else { continue };
        acknowledged = position.parse().unwrap();
        if acknowledged == 100 {
            refused = EmbeddedBroker::open(folder.path(), Options::default(), &shell).await.err();
        }
        if acknowledged >= 500 {
            child.kill().unwrap();
        }
    }
    child.wait().unwrap();
    let refused = refused.expect("two processes cannot have it open").to_string();
    assert!(refused.contains("another process has it open"), "{refused}");
    let (_broker, log) = try_log(folder.path(), &shell).await.expect("it opens again");
    let found = numbers(&log).await;
    assert!(found.len() as u64 >= acknowledged, "{acknowledged} acknowledged, {} found", found.len());
    assert_eq!(found, (1..=found.len() as u64).collect::<Vec<_>>());
}

async fn append_until_killed(path: &std::path::Path) {
    let (shell, _process): (_, TaskSet) = real::process();
    let (_broker, log) = try_log(path, &shell).await.unwrap();
    for number in 1.. {
        let positions = log.append(vec![mark(number)]).await.unwrap();
        println!("\nacknowledged {}", positions[0]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failed_sync_acknowledges_nothing_and_stops_the_log() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let sync = move |file: &fs::File| match fails.load(Ordering::SeqCst) {
        true => Err(std::io::Error::other("planted")),
        false => file.sync_data(),
    };
    let broker = open_with(folder.path(), Options { sync: Arc::new(sync), ..Options::default() }, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    log.append(vec![mark(1)]).await.unwrap();
    failing.store(true, Ordering::SeqCst);
    let unknown = log.append(vec![mark(2)]).await.unwrap_err();
    assert!(matches!(&unknown, AppendError::Unknown(reason) if reason.contains("planted")), "{unknown}");
    failing.store(false, Ordering::SeqCst);
    // The next sync would succeed and prove nothing.
    let damaged = log.append(vec![mark(3)]).await.unwrap_err();
    assert!(matches!(damaged, AppendError::Damaged(_)), "{damaged}");
    let other = broker.log("b.0").await.unwrap().append(vec![mark(1)]).await.unwrap_err();
    assert!(matches!(other, AppendError::Damaged(_)), "{other}");
    assert_eq!(log.tail().await, Ok(at(1)), "what was not synced is not shown");
    assert_eq!(numbers(&log).await, [1]);
    drop((log, broker));
    let (_broker, log) = try_log(folder.path(), &shell).await.expect("it opens again");
    log.append(vec![mark(4)]).await.expect("it takes records again");
    let found = numbers(&log).await;
    assert!(found == [1, 4] || found == [1, 2, 4], "{found:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_log_refuses_and_keeps_what_it_has() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 10, &shell).await;
    let small = Options { capacity_bytes: 1, ..Options::default() };
    let no_room = Options { reserve_bytes: u64::MAX, ..Options::default() };
    for (options, limit_bytes) in [(small, Some(1)), (no_room, None)] {
        let broker = open_with(folder.path(), options, &shell).await;
        let log = broker.log("a.0").await.unwrap();
        assert_eq!(log.usage().await.unwrap().limit_bytes, limit_bytes);
        let full = log.append(vec![mark(11)]).await.unwrap_err();
        assert!(matches!(full, AppendError::Full(_)), "{full}");
        assert!(full.has_no_side_effects() && full.is_retryable());
        assert_eq!(numbers(&log).await, (1..=10).collect::<Vec<_>>());
    }
    let (_broker, log) = try_log(folder.path(), &shell).await.unwrap();
    assert_eq!(log.append(vec![mark(11)]).await, Ok(vec![at(11)]));
}

fn entry(bytes: usize) -> Record {
    let replica = broker_adapter::ids::Replica { node: "m".parse().unwrap(), incarnation: Incarnation::from_bits(1) };
    let writer = Writer { epoch: broker_adapter::ids::Epoch(1), replica };
    Record::Entry(JournalEntry { writer, event: vec![9; bytes].into() })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_above_the_limit_is_refused_and_large_ones_never_become_blobs() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (broker, log) = try_log(folder.path(), &shell).await.unwrap();
    let refused = log.append(vec![mark(1), entry(RECORD_LIMIT_BYTES)]).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused}");
    assert_eq!(log.tail().await, Ok(at(0)), "nothing of the append is there");
    for bytes in [4_000, 5_120, 6_000, 60_000, 120_000, 600_000, RECORD_LIMIT_BYTES - 1_000] {
        for _ in 0..20 {
            log.append(vec![entry(bytes)]).await.unwrap();
        }
    }
    // sled never syncs its blob files: none may ever be made.
    assert_eq!(fs::read_dir(folder.path().join("sled/blobs")).unwrap().count(), 0);
    drop((log, broker));
    let (_broker, log) = try_log(folder.path(), &shell).await.expect("it opens again");
    assert_eq!(log.tail().await, Ok(at(140)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn too_much_in_flight_is_refused_without_side_effects() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let gate = Arc::new(Mutex::new(()));
    let held = gate.clone();
    let sync = move |file: &fs::File| {
        let _held = held.lock().unwrap();
        file.sync_data()
    };
    let broker = open_with(folder.path(), Options { sync: Arc::new(sync), ..Options::default() }, &shell).await;
    let log = broker.log("a.0").await.unwrap();
    let appends: Vec<_> = {
        let _closed = gate.lock().unwrap();
        (0..90).map(|_| log.append((0..1_000).map(mark).collect())).collect()
    };
    let results = join_all(appends).await;
    let refused = results.iter().filter(|result| matches!(result, Err(AppendError::Overloaded(_)))).count();
    assert!(
        refused > 0 && results.iter().all(|result| result.is_ok() || matches!(result, Err(AppendError::Overloaded(_))))
    );
    let taken = (results.len() - refused) as u64;
    assert_eq!(log.tail().await, Ok(at(1_000 * taken)));
}
