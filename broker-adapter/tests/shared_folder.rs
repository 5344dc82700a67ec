//! `checkpoints = "file:///PATH"`: the contract, and what only a folder that several processes share can show.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use broker_adapter::Broker;
use broker_adapter::conformance::{self, Fixture, Restart};
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::shell::{Shell, real};
use broker_adapter::store::{CheckpointStore, StoreError};
use broker_adapter::stores::CheckpointsAt;
use bytes::Bytes;
use futures_util::FutureExt;

/// A broker whose checkpoints are in that folder.
async fn broker(folder: &Path, shell: &Shell) -> Arc<dyn Broker> {
    let memory = MemoryBroker::new(1, shell.clone(), Faults::calm()).connect("a");
    let place: CheckpointsAt = format!("file://{}", folder.display()).parse().expect("a good place");
    place.open(memory, shell).await.expect("it opens")
}

async fn store(folder: &Path, shell: &Shell) -> Arc<dyn CheckpointStore> {
    broker(folder, shell).await.store()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_keeps_the_contract_of_a_checkpoint_store() {
    let (shell, _process) = real::process();
    conformance::run_store(|| async {
        let folder = tempfile::tempdir().expect("a folder");
        let (path, world) = (folder.path().to_owned(), shell.clone());
        let broker = broker(&path, &shell).await;
        let restart: Restart = Arc::new(move |old| {
            drop(old);
            let (path, shell) = (path.clone(), world.clone());
            async move { self::broker(&path, &shell).await }.boxed()
        });
        Fixture { broker, shell: shell.clone(), restart: Some(restart), keep: Box::new(folder) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_process_put_another_gets() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (near, far) = (store(folder.path(), &shell).await, store(folder.path(), &shell).await);
    near.put("chunk/a".to_owned(), Bytes::from_static(b"a")).await.unwrap();
    assert_eq!(far.get("chunk/a".to_owned()).await, Ok(Bytes::from_static(b"a")));
    far.delete("chunk/a".to_owned()).await.unwrap();
    assert_eq!(near.get("chunk/a".to_owned()).await, Err(StoreError::Missing("chunk/a".to_owned())));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn puts_go_on_while_other_processes_open_the_folder() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let putting = store(folder.path(), &shell).await;
    let puts = async {
        for at in 0..200 {
            let put = putting.put(format!("chunk/{at:03}"), vec![1; 100_000].into()).await;
            // Between the making of a file and its lock somebody may take it for a leftover: then the put says so.
            assert!(put.as_ref().is_ok() || put.as_ref().is_err_and(StoreError::is_retryable), "{put:?}");
            if put.is_ok() {
                assert!(putting.get(format!("chunk/{at:03}")).await.is_ok());
            }
        }
    };
    let opens = async {
        for _ in 0..200 {
            drop(store(folder.path(), &shell).await);
        }
    };
    futures_util::future::join(puts, opens).await;
    assert!(putting.list("chunk/".to_owned()).await.unwrap().len() > 150, "most puts succeed");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leftover_goes_at_the_next_open_and_a_file_that_is_being_written_stays() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    drop(store(folder.path(), &shell).await);
    let (left, written) = (folder.path().join("incoming/left"), folder.path().join("incoming/written"));
    fs::write(&left, b"half").unwrap();
    let open = fs::File::create_new(&written).unwrap();
    open.try_lock().unwrap();
    drop(store(folder.path(), &shell).await);
    assert!(!left.exists() && written.exists());
    drop(open);
    drop(store(folder.path(), &shell).await);
    assert!(!written.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_goes_away_is_unreachable_and_nothing_is_missing() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let (here, away) = (folder.path().join("mounted"), folder.path().join("away"));
    fs::create_dir(&here).unwrap();
    let store = store(&here, &shell).await;
    store.put("chunk/a".to_owned(), Bytes::from_static(b"a")).await.unwrap();
    fs::rename(&here, &away).unwrap();
    // As after an unmount: the mount point is there, and empty.
    fs::create_dir(&here).unwrap();
    for result in [
        store.get("chunk/a".to_owned()).await.map(drop),
        store.put("chunk/b".to_owned(), Bytes::from_static(b"b")).await,
        store.list(String::new()).await.map(drop),
        store.delete("chunk/a".to_owned()).await,
    ] {
        let told = |why: &str| why.contains("is its file system mounted?");
        assert!(matches!(&result, Err(StoreError::Unreachable(why)) if told(why)), "{result:?}");
    }
    assert_eq!(fs::read_dir(&here).unwrap().count(), 0, "nothing was written where the file system is not mounted");
    fs::remove_dir(&here).unwrap();
    fs::rename(&away, &here).unwrap();
    assert_eq!(store.get("chunk/a".to_owned()).await, Ok(Bytes::from_static(b"a")));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_does_not_exist_is_refused_with_advice_and_not_made() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let missing = folder.path().join("missing");
    let file = folder.path().join("file");
    fs::write(&file, b"").unwrap();
    for path in [&missing, &file] {
        let place: CheckpointsAt = format!("file://{}", path.display()).parse().unwrap();
        let memory = MemoryBroker::new(1, shell.clone(), Faults::calm()).connect("a");
        let said = place.open(memory, &shell).await.err().expect("no folder").to_string();
        assert!(said.contains(&path.display().to_string()) && said.contains("make it first"), "{said}");
    }
    assert!(!missing.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_file_is_refused_by_name() {
    let (shell, _process) = real::process();
    let folder = tempfile::tempdir().unwrap();
    let store = store(folder.path(), &shell).await;
    store.put("chunk/a".to_owned(), vec![1; 1_000].into()).await.unwrap();
    fs::write(folder.path().join("objects/chunk/a~"), [3; 500]).unwrap();
    let damaged = store.get("chunk/a".to_owned()).await;
    assert!(matches!(&damaged, Err(StoreError::Damaged { name, .. }) if name == "chunk/a"), "{damaged:?}");
}
