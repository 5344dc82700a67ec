//! `checkpoints = "file:///PATH"`: services move through a folder beside the broker, and survive its absence.

use std::fs;
use std::path::{Path, PathBuf};

use segue_tests::harness::{Cluster, HANG_LIMIT, Node, SERVICE, Setup, call, wait_for};

use crate::{RATE_PER_S, ends_clean};

fn keeping(node: Node, folder: &Path) -> Node {
    Node { checkpoints: Some(folder.to_owned()), ..node }
}

/// How many objects are in a folder of them.
fn objects(folder: PathBuf) -> usize {
    let Ok(entries) = fs::read_dir(folder) else { return 0 };
    let count = |entry: fs::DirEntry| if entry.path().is_dir() { objects(entry.path()) } else { 1 };
    entries.map(|entry| count(entry.expect("it can be read"))).sum()
}

async fn conditions(cluster: &Cluster, node: &str) -> String {
    let answer = call(&cluster.shell, &cluster.admin(node), ("GET", "/readyz?verbose"), "", HANG_LIMIT).await;
    answer.expect("the sidecar answers").text()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_through_a_folder_and_nothing_is_lost() {
    let folder = tempfile::tempdir().expect("a folder");
    let nodes = [Node::creating("edge-a"), Node::named("edge-b"), Node::ingress("gate")];
    let nodes = nodes.into_iter().map(|node| keeping(node, folder.path())).collect();
    let cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b", "gate"], RATE_PER_S);
    load.acknowledges(100).await;
    for (from, to) in [("edge-a", "edge-b"), ("edge-b", "edge-a")] {
        let id = cluster.rest.migrate(SERVICE, to).await;
        let ended = cluster.rest.ended(&id).await;
        assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
        assert_eq!((ended.from.as_str(), ended.to.as_str()), (from, to));
        load.acknowledges(100).await;
    }
    assert!(objects(folder.path().join("objects")) > 0, "the checkpoints are in the folder");
    assert_eq!(objects(cluster.broker_folder().join("objects")), 0, "the broker keeps none");
    let said = conditions(&cluster, "edge-a").await;
    assert!(said.contains(&format!("checkpoints at file://{}", folder.path().display())), "{said}");
    ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_with_another_place_for_checkpoints_is_told_which_key_is_wrong() {
    let (folder, other) = (tempfile::tempdir().expect("a folder"), tempfile::tempdir().expect("a folder"));
    let nodes = vec![keeping(Node::creating("edge-a"), folder.path()), keeping(Node::named("edge-b"), other.path())];
    let cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    load.acknowledges(50).await;
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&id).await;
    assert_ne!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
    let error = ended.error.as_ref().map(ToString::to_string).unwrap_or_default();
    assert!(error.contains("is `checkpoints` the same place on this node"), "{ended:?}");
    ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_folder_is_away_an_alarm_says_so_serving_goes_on_and_after_it_a_move_succeeds() {
    let parent = tempfile::tempdir().expect("a folder");
    let (here, away) = (parent.path().join("mounted"), parent.path().join("away"));
    fs::create_dir(&here).expect("the test folder can be written");
    let nodes = vec![keeping(Node::creating("edge-a"), &here), keeping(Node::named("edge-b"), &here)];
    let cluster = Setup::nodes(nodes).start().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a"], RATE_PER_S);
    load.acknowledges(50).await;
    fs::rename(&here, &away).expect("it can be renamed");
    wait_for(&cluster.shell, "the alarm", || async {
        let said = conditions(&cluster, "edge-a").await;
        (said.contains("serving goes on") && said.contains("is its file system mounted?")).then_some(())
    })
    .await;
    load.acknowledges(100).await;
    assert!(!here.exists(), "nothing was written where the file system is not mounted");
    fs::rename(&away, &here).expect("it can be renamed");
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
    ends_clean(&cluster, &recorder, load).await;
}
