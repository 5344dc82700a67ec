//! Checkpoints as files, by REST and by the command line: what a store has lost comes back from them, and a service begins with one.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use broker_adapter::ids::{Epoch, Incarnation, Replica, ShardId};
use broker_adapter::record::{Cause, Fence, Record};
use bytes::Bytes;
use segue_tests::harness::{Cluster, Load, Node, Process, SERVICE, Setup, binary, call, wait_for};
use serde_json::{Value, json};

use crate::RATE_PER_S;
use crate::beginning::archive_of;

fn checkpoints(path: &str) -> String {
    format!("/v1/services/{SERVICE}/checkpoints{path}")
}

/// `segue …`, its exit code and what it wrote.
async fn segue(cluster: &Cluster, words: &[&str]) -> (i32, String) {
    let name = format!("segue-{}", cluster.shell.random());
    let words = words.iter().map(|word| (*word).to_owned()).collect();
    let mut command = Process::start(cluster.folder(), &name, binary("segue"), words, BTreeMap::new());
    let ended = command.ended(&cluster.shell).await;
    (ended.code.expect("no signal ended it"), ended.log)
}

/// The positions that the log keeps.
async fn kept(cluster: &Cluster) -> Vec<u64> {
    let list = cluster.rest.call("GET", &checkpoints(""), String::new()).await.json();
    list["items"].as_array().expect("a list").iter().filter_map(|item| item["position"].as_u64()).collect()
}

async fn takes_a_checkpoint(cluster: &Cluster) {
    let before = kept(cluster).await;
    wait_for(&cluster.shell, "the migrator to hear who owns it", || async {
        let answer = cluster.rest.call("POST", &checkpoints(""), String::new()).await;
        assert!(matches!(answer.status, 202 | 409), "{}", answer.text());
        (answer.status == 202).then_some(())
    })
    .await;
    wait_for(&cluster.shell, "a new checkpoint", || async {
        (kept(cluster).await.last() > before.last()).then_some(())
    })
    .await;
}

fn chunks_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => files.extend(chunks_below(&path)),
            false if path.to_string_lossy().contains("/chunk/") => files.push(path),
            false => {}
        }
    }
    files
}

fn path(cluster: &Cluster, name: &str) -> String {
    cluster.folder().join(name).display().to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_whose_checkpoints_are_lost_comes_back_from_their_files_and_moves() {
    let mut cluster = Setup::two_nodes().start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(100).await;
    let mut observations = load.finish().await;
    takes_a_checkpoint(&cluster).await;
    let (migrator, broker) = (format!("http://{}", cluster.rest.address()), cluster.broker_url());
    let mut files = Vec::new();
    for position in kept(&cluster).await {
        let (file, direct) =
            (path(&cluster, &format!("{position}.segue")), path(&cluster, &format!("{position}.direct")));
        let number = position.to_string();
        let export = ["checkpoint", "export", SERVICE, "--position", &number, "--to"];
        let (code, log) = segue(&cluster, &[&export[..], &[&file, "--migrator", &migrator]].concat()).await;
        assert_eq!(code, 0, "{log}");
        let (code, log) = segue(&cluster, &[&export[..], &[&direct, "--broker", &broker]].concat()).await;
        assert_eq!(code, 0, "{log}");
        let archive = fs::read(&file).expect("it was written");
        assert!(
            archive == fs::read(&direct).expect("it was written"),
            "by REST and from the store it is the same file"
        );
        let served = cluster.rest.call("GET", &checkpoints(&format!("/{position}/export")), String::new()).await;
        assert!(served.status == 200 && served.body == archive);
        files.push(file);
    }
    assert!(files.len() >= 2, "{files:?}");
    // The disaster: no checkpoint can be loaded, and the owner ends.
    let chunks = chunks_below(&cluster.broker_folder());
    assert!(!chunks.is_empty(), "no file of the broker is a chunk");
    chunks.iter().for_each(|chunk| fs::remove_file(chunk).expect("a chunk can be removed"));
    cluster.process("edge-a").kill();
    cluster.process("edge-a").restart();
    wait_for(&cluster.shell, "edge-a to find no checkpoint whole", || async {
        cluster.conditions("edge-a").await.contains("no counted checkpoint is whole").then_some(())
    })
    .await;
    let verify = ["checkpoint", "verify", SERVICE, "--broker", &broker];
    assert_eq!(segue(&cluster, &verify).await.0, 9);
    for file in &files {
        let import = ["checkpoint", "import", file, "--service", SERVICE, "--migrator", &migrator];
        let (code, log) = segue(&cluster, &[&import[..], &["--dry-run"]].concat()).await;
        assert!(code == 0 && log.contains("would be mended"), "{log}");
        let (code, log) = segue(&cluster, &[&import[..], &["-o", "json"]].concat()).await;
        assert!(code == 0 && log.contains("\"action\": \"restore\"") && log.contains("is whole again"), "{log}");
        let (code, log) = segue(&cluster, &import).await;
        assert!(code == 0 && log.contains("nothing was missing"), "{log}");
    }
    let (code, log) = segue(&cluster, &verify).await;
    assert_eq!(code, 0, "{log}");
    cluster.process("edge-a").kill();
    cluster.process("edge-a").restart();
    cluster.ready("edge-a").await;
    let addresses = vec![cluster.ingress("edge-a"), cluster.ingress("edge-b")];
    let load = Load::start(&cluster.shell, addresses, RATE_PER_S, "later");
    load.acknowledges(50).await;
    let id = wait_for(&cluster.shell, "the move to be accepted", || async {
        let answer = cluster.rest.ask_migration(SERVICE, "edge-b").await;
        (answer.status == 202).then(|| answer.header("location").trim_start_matches("/v1/migrations/").to_owned())
    })
    .await;
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
    load.acknowledges(50).await;
    observations.extend(load.finish().await);
    assert_eq!(cluster.findings(&recorder, observations).await, []);
}

/// Sends a file by REST; status and answer.
async fn import(cluster: &Cluster, query: &str, archive: &[u8]) -> (u16, Value) {
    let address = cluster.rest.address();
    let path = checkpoints(&format!("/import{query}"));
    let body = Bytes::copy_from_slice(archive);
    let answer = call(&cluster.shell, address, ("POST", &path), body, segue_tests::harness::HANG_LIMIT).await;
    let answer = answer.expect("the migrator answers");
    (answer.status, answer.json())
}

/// A file with a state that no ledger takes.
async fn nonsense(cluster: &Cluster) -> Vec<u8> {
    let broker = cluster.broker.connect(&cluster.shell).await;
    let elsewhere = ShardId::whole("elsewhere".parse().expect("a name"));
    archive_of(&broker, &cluster.shell, &elsewhere, Bytes::from_static(b"this is no ledger")).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_begins_with_a_state_from_another_cluster_and_nothing_else_replaces_its_log() {
    let first = Setup::nodes(vec![Node::creating("edge-a")]).start().await;
    for id in ["one", "two", "three"] {
        assert_eq!(first.request("edge-a", ("POST", "/append"), id).await.expect("it answers").status, 200);
    }
    takes_a_checkpoint(&first).await;
    let archive = first.rest.call("GET", &checkpoints("/newest/export"), String::new()).await.body;
    drop(first);
    let mut cluster = Setup::nodes(Vec::new()).start().await;
    ["edge-c", "edge-d"].iter().for_each(|node| cluster.add_node(Node::named(node)));
    cluster.nodes_known().await;
    let code =
        |(status, problem): (u16, Value)| (status, problem["code"].as_str().map(str::to_owned), problem.to_string());
    let refused = [
        ("", &archive[..], 422, "node-needed"),
        ("?node=edge-c", &archive[..archive.len() / 2], 422, "archive-cut-off"),
        ("?node=edge-c&from=other", &archive[..], 409, "wrong-service"),
        ("?node=edge-c&from=elsewhere", &nonsense(&cluster).await, 409, "state-refused"),
    ];
    for (query, content, status, word) in refused {
        let (found, told, text) = code(import(&cluster, query, content).await);
        assert_eq!((found, told.as_deref()), (status, Some(word)), "{text}");
    }
    assert_eq!(kept(&cluster).await, Vec::<u64>::new(), "whatever was refused, the log is as it was");
    let file = path(&cluster, "state.segue");
    fs::write(&file, &archive).expect("the test folder can be written");
    let migrator = format!("http://{}", cluster.rest.address());
    let words = ["checkpoint", "import", &file, "--service", SERVICE, "--migrator", &migrator];
    let (ended, log) = segue(&cluster, &words).await;
    assert!(ended == 3 && log.contains("node-needed"), "{log}");
    let (ended, log) = segue(&cluster, &[&words[..], &["--node", "edge-c"]].concat()).await;
    assert!(ended == 0 && log.contains("has begun on edge-c"), "{log}");
    cluster.ready("edge-c").await;
    cluster.ready("edge-d").await;
    assert_eq!(kept(&cluster).await, [0], "it is checkpoint 0 of a log of its own");
    let id = cluster.rest.migrate(SERVICE, "edge-d").await;
    assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    assert_eq!(cluster.request("edge-d", ("POST", "/append"), "four").await.expect("it answers").status, 200);
    let read = cluster.request("edge-c", ("GET", "/ids"), "").await.expect("it answers");
    assert_eq!(read.text(), "one\ntwo\nthree\nfour");
    let (status, told, text) = code(import(&cluster, "?node=edge-c&replace_state=true", &archive).await);
    assert_eq!((status, told.as_deref()), (409, Some("foreign-checkpoint")), "{text}");
    let store = cluster.broker.connect(&cluster.shell).await.store();
    wait_for(&cluster.shell, "nothing to be left aside", || async {
        store.list("import/".to_owned()).await.is_ok_and(|left| left.is_empty()).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_ended_while_it_began_with_an_import_says_so_and_takes_it_again() {
    let first = Setup::nodes(vec![Node::creating("edge-a")]).start().await;
    assert_eq!(first.request("edge-a", ("POST", "/append"), "one").await.expect("it answers").status, 200);
    takes_a_checkpoint(&first).await;
    let archive = first.rest.call("GET", &checkpoints("/newest/export"), String::new()).await.body;
    drop(first);
    let mut cluster = Setup::nodes(Vec::new()).start().await;
    // What it leaves if it ends behind its fence and before the checkpoint's record.
    let earlier = Replica { node: "edge-c".parse().expect("a name"), incarnation: Incarnation::from_bits(7) };
    let fence = Fence { epoch: Epoch(1), owner: earlier, cause: Cause::First, migration: None, retires: None };
    let log =
        cluster.broker.connect(&cluster.shell).await.log(&format!("{SERVICE}.0")).await.expect("the broker is there");
    log.append(vec![Record::Fence(fence)]).await.expect("it is appended");
    ["edge-c", "edge-d"].iter().for_each(|node| cluster.add_node(Node::named(node)));
    cluster.nodes_known().await;
    wait_for(&cluster.shell, "edge-c to say what is missing", || async {
        cluster.conditions("edge-c").await.contains("an import did not come to its end").then_some(())
    })
    .await;
    let begun = wait_for(&cluster.shell, "the import", || async {
        // The migrator may not have heard yet who owns it; the log says it.
        let (status, answer) = import(&cluster, "", &archive).await;
        (status == 200).then_some(answer)
    })
    .await;
    assert_eq!((&begun["action"], &begun["node"]), (&json!("begin"), &json!("edge-c")));
    cluster.ready("edge-c").await;
    assert_eq!(cluster.request("edge-d", ("POST", "/append"), "two").await.expect("it answers").status, 200);
    assert_eq!(cluster.request("edge-c", ("GET", "/ids"), "").await.expect("it answers").text(), "one\ntwo");
}
