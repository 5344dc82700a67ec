//! Damaged files of the broker: refused by name and place, never served.

use std::fs;
use std::path::{Path, PathBuf};

use segue_tests::checker::Evidence;
use segue_tests::harness::{Hold, Node, SERVICE, Setup, wait_for};

/// An id that is found in the files, because nothing compresses or encrypts it.
const NEEDLE: &str = "a-needle-that-stands-nowhere-else-in-these-files";

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() { files.extend(files_below(&path)) } else { files.push(path) }
    }
    files
}

/// Changes one byte of each place where `needle` stands in these files; how many places that were.
fn damage(files: &[PathBuf], needle: &[u8]) -> usize {
    let mut places = 0;
    for file in files {
        let mut bytes = fs::read(file).unwrap_or_default();
        let found: Vec<usize> =
            bytes.windows(needle.len()).enumerate().filter(|(_, window)| *window == needle).map(|(at, _)| at).collect();
        if found.is_empty() {
            continue;
        }
        places += found.len();
        found.into_iter().for_each(|at| bytes[at] ^= 1);
        fs::write(file, bytes).expect("the broker's files can be written");
    }
    places
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_log_is_refused_by_name_and_position() {
    let patient = |node| Node { reply_timeout_ms: Some(1_000), ..node };
    let nodes = vec![patient(Node::creating("edge-a")), patient(Node::named("edge-b"))];
    let mut cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder().await;
    for id in ["before", NEEDLE, "after"] {
        let answer = cluster.request("edge-a", ("POST", "/append"), id).await.expect("the ingress answers");
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    let entries = recorder.up_to_tail().await;
    let needle = Evidence::from_log(&entries, "/append").applied.into_iter().find(|message| message.id() == NEEDLE);
    let position = needle.expect("it was acknowledged").position;
    cluster.process("edge-a").kill();
    cluster.broker.kill();
    let files = files_below(&cluster.broker_folder());
    assert!(damage(&files, NEEDLE.as_bytes()) > 0, "the record's bytes are in no file: {files:?}");
    cluster.broker.restart();
    cluster.process("edge-a").restart();
    let words = ["damaged".to_owned(), format!("{SERVICE}.0"), position.to_string()];
    wait_for(&cluster.shell, &format!("somebody to say {words:?}"), || async {
        let line = cluster.logs().lines().find(|line| words.iter().all(|word| line.contains(word))).map(str::to_owned);
        line.map(|_| ())
    })
    .await;
    let shell = cluster.shell.clone();
    // The one that reads it at its start does not begin to serve; the one that runs refuses.
    let ended = cluster.process("edge-a").ended(&shell).await;
    assert_ne!(ended.code, Some(0), "{}", ended.log);
    let answer = cluster.request("edge-b", ("POST", "/append"), "more").await.expect("the ingress answers");
    assert!(answer.status >= 500, "a damaged log takes nothing more: {} {}", answer.status, answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_checkpoint_is_refused_by_name_and_the_service_stays() {
    let mut cluster = Setup::two_nodes().hold(Hold::before("transfer")).start().await;
    let answer = cluster.request("edge-a", ("POST", "/append"), NEEDLE).await.expect("the ingress answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let hold = cluster.hold.clone().expect("the setup has one");
    hold.held(&cluster.shell).await;
    let chunks: Vec<PathBuf> = files_below(&cluster.broker_folder())
        .into_iter()
        .filter(|path| path.to_string_lossy().contains("chunk"))
        .collect();
    assert!(!chunks.is_empty(), "no file of the broker is a chunk");
    for chunk in chunks {
        let mut bytes = fs::read(&chunk).expect("a chunk can be read");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&chunk, bytes).expect("a chunk can be written");
    }
    hold.release();
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("rolled-back"), "{ended:?}");
    let said = format!("{:?}", ended.error);
    assert!(said.contains("damaged") && said.contains("chunk"), "{said}");
    let answer = cluster.request("edge-a", ("POST", "/append"), "after").await.expect("the ingress answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(cluster.process("edge-b").is_running());
}
