//! Damage is refused by name and position; a torn tail is repaired and said so (invariant 4).

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use broker_adapter::embedded::Options;
use broker_adapter::shell::{Shell, real};
use broker_adapter::store::StoreError;
use broker_adapter::{Broker, ConnectError};

use crate::support::{at, copy, filled, flip, key, mark, numbers, open, open_with, tamper, try_log};

async fn refused(path: &Path, shell: &Shell) -> String {
    match try_log(path, shell).await {
        Err(ConnectError::Damaged { log, reason }) => {
            assert_eq!(log, "a.0");
            reason
        }
        Err(error) => panic!("expected damage, got {error}"),
        Ok(_) => panic!("expected damage, it opened"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_refused_by_position() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 20, &shell).await;
    tamper(folder.path(), |tree| flip(tree, 7));
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("the record at 7 is damaged"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_refused_by_position() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 20, &shell).await;
    tamper(folder.path(), |tree| drop(tree.remove(key(7)).unwrap()));
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("expected the record at 7, got the one at 8"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_in_anothers_place_is_refused() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 20, &shell).await;
    tamper(folder.path(), |tree| {
        let other = tree.get(key(8)).unwrap().unwrap();
        tree.insert(key(7), other).unwrap();
    });
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("the record at 7 is damaged"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_acknowledged_records_are_named() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 20, &shell).await;
    tamper(folder.path(), |tree| (18..=20).for_each(|position| drop(tree.remove(key(position)).unwrap())));
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("the acknowledged records 18 to 20 are missing"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_is_refused_without_the_side_file_too() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 20, &shell).await;
    tamper(folder.path(), |tree| flip(tree, 7));
    fs::remove_file(folder.path().join("tails/a.0")).unwrap();
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("the record at 7 is damaged"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_old_side_file_cannot_hide_damage_before_a_later_record() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    filled(folder.path(), 5, &shell).await;
    let old = fs::read(folder.path().join("tails/a.0")).unwrap();
    let (broker, log) = try_log(folder.path(), &shell).await.unwrap();
    for number in 6..=20 {
        log.append(vec![mark(number)]).await.unwrap();
    }
    drop((log, broker));
    // As after a power cut: the rows are durable, the side file is as old as its last write-back.
    fs::write(folder.path().join("tails/a.0"), old).unwrap();
    tamper(folder.path(), |tree| flip(tree, 12));
    let reason = refused(folder.path(), &shell).await;
    assert!(reason.contains("the record at 12 is damaged"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rewound_copy_is_refused() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (path, old) = (folder.path().join("broker"), folder.path().join("old"));
    filled(&path, 10, &shell).await;
    copy(&path, &old);
    let (broker, log) = try_log(&path, &shell).await.unwrap();
    log.append((11..=15).map(mark).collect()).await.unwrap();
    drop((log, broker));
    fs::remove_dir_all(path.join("sled")).unwrap();
    copy(&old.join("sled"), &path.join("sled"));
    let reason = refused(&path, &shell).await;
    assert!(reason.contains("the acknowledged records 11 to 15 are missing"), "{reason}");
}

/// Leaves a broker that was stopped by a failed sync behind the records 11 to 13.
async fn never_acknowledged(path: &Path, shell: &Shell) {
    filled(path, 10, shell).await;
    let failing = Arc::new(AtomicBool::new(false));
    let fails = failing.clone();
    let sync = move |file: &fs::File| match fails.load(Ordering::SeqCst) {
        true => Err(std::io::Error::other("planted")),
        false => file.sync_data(),
    };
    let broker = open_with(path, Options { sync: Arc::new(sync), ..Options::default() }, shell).await;
    let log = broker.log("a.0").await.unwrap();
    failing.store(true, Ordering::SeqCst);
    log.append((11..=13).map(mark).collect()).await.expect_err("the sync fails");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_torn_tail_is_repaired_and_said_so() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    never_acknowledged(folder.path(), &shell).await;
    tamper(folder.path(), |tree| drop(tree.remove(key(13)).unwrap()));
    let (broker, log) = try_log(folder.path(), &shell).await.expect("nothing acknowledged is missing");
    let repairs = broker.repairs();
    assert_eq!((repairs.len(), repairs[0].from, repairs[0].to), (1, at(13), at(13)), "{repairs:?}");
    assert_eq!(numbers(&log).await, (1..=12).collect::<Vec<_>>());
    assert_eq!(log.append(vec![mark(99)]).await, Ok(vec![at(13)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_record_that_was_never_acknowledged_is_cut_off_and_said_so() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    never_acknowledged(folder.path(), &shell).await;
    tamper(folder.path(), |tree| flip(tree, 12));
    let (broker, log) = try_log(folder.path(), &shell).await.expect("nothing acknowledged is damaged");
    let repairs = broker.repairs();
    assert_eq!((repairs.len(), repairs[0].from, repairs[0].to), (1, at(12), at(13)), "{repairs:?}");
    assert_eq!(numbers(&log).await, (1..=11).collect::<Vec<_>>());
    assert_eq!(log.append(vec![mark(99)]).await, Ok(vec![at(12)]));
    drop((log, broker));
    let (broker, log) = try_log(folder.path(), &shell).await.expect("it is whole again");
    assert_eq!(broker.repairs(), []);
    assert_eq!(log.tail().await, Ok(at(12)));
}

/// Whatever sled makes of a damaged file, no acknowledged record goes missing in silence.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_never_a_shorter_log() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("broker");
    filled(&path, 200, &shell).await;
    let bytes = fs::read(path.join("sled/db")).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    let mut refusals = 0;
    for step in 1..24 {
        let damaged = folder.path().join(format!("damaged-{step}"));
        copy(&path, &damaged);
        let mut bytes = bytes.clone();
        bytes[used * step / 24] ^= 0x10;
        fs::write(damaged.join("sled/db"), bytes).unwrap();
        match broker_adapter::embedded::EmbeddedBroker::open(&damaged, Options::default(), &shell).await {
            Err(error) => {
                assert!(error.to_string().contains("damaged-"), "it names the broker: {error}");
                refusals += 1;
            }
            Ok(broker) => match broker.log("a.0").await {
                Err(error) => {
                    assert!(matches!(error, ConnectError::Damaged { .. }), "{error}");
                    refusals += 1;
                }
                Ok(log) => assert_eq!(numbers(&log).await, (1..=200).collect::<Vec<_>>()),
            },
        }
    }
    assert!(refusals > 0, "no damage was done");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_object_is_refused_by_name() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), &shell).await;
    let store = broker.store();
    store.put("chunk/a".to_owned(), vec![1; 1_000].into()).await.unwrap();
    let file = folder.path().join("objects/chunk/a~");
    let whole = fs::read(&file).unwrap();
    for damaged in [whole[..500].to_vec(), [&whole[..900], &[2; 132]].concat(), Vec::new()] {
        fs::write(&file, damaged).unwrap();
        match store.get("chunk/a".to_owned()).await {
            Err(StoreError::Damaged { name, .. }) => assert_eq!(name, "chunk/a"),
            other => panic!("expected damage, got {other:?}"),
        }
    }
    store.put("chunk/a".to_owned(), vec![1; 1_000].into()).await.expect("putting it again heals it");
    assert_eq!(store.get("chunk/a".to_owned()).await, Ok(vec![1; 1_000].into()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_names_of_logs_and_brokers_are_refused_with_advice() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let broker = open(folder.path(), &shell).await;
    for name in ["", "../a", "a/b", ".a"] {
        let error = broker.log(name).await.err().expect("no such name").to_string();
        assert!(error.contains("is no name for a log"), "{error}");
    }
    for url in ["memory:", "embedded:", "segue://", "segue://host", "segue://:1", "http://127.0.0.1:1"] {
        let error = broker_adapter::connect(url, &shell).await.err().expect("no such broker");
        assert!(matches!(&error, ConnectError::BadUrl(_)) && error.to_string().contains(url), "{error}");
    }
}
