//! What people get who ask for something that cannot be.

use std::collections::BTreeMap;
use std::fs;

use broker_adapter::shell::Shell;
use segue_tests::harness::{Answer, Ended, Hold, Node, Process, SERVICE, Setup, binary, wait_for};

const BODY_LIMIT_BYTES: usize = 512 << 10;

fn assert_problem(answer: &Answer, status: u16, words: &[&str]) {
    assert_eq!(answer.status, status, "{}", answer.text());
    assert_eq!(answer.header("content-type"), "application/problem+json", "{}", answer.text());
    let text = answer.text();
    for word in words {
        assert!(text.contains(word), "{word:?} is missing in {text}");
    }
}

async fn run(shell: &Shell, role: &str, config: &str) -> Ended {
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let file = folder.path().join("wrong.toml");
    fs::write(&file, config).expect("the test folder can be written");
    let arguments = vec![role.to_owned(), "--config".to_owned(), file.display().to_string()];
    let mut process = Process::start(folder.path(), "wrong", binary("segue"), arguments, BTreeMap::new());
    process.ended(shell).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wrong_config_is_refused_with_file_line_and_key() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    for role in ["broker", "migrator", "sidecar"] {
        let ended = run(&shell, role, "# a comment\nlissten = \"127.0.0.1:1\"\n").await;
        assert_eq!(ended.code, Some(2), "segue {role}: {}", ended.log);
        assert!(ended.log.contains("wrong.toml:2") && ended.log.contains("lissten"), "segue {role}: {}", ended.log);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_unknown_service_or_node_is_answered_with_the_known_ones() {
    let cluster = Setup::two_nodes().start().await;
    let answer = cluster.rest.ask_migration("lodger", "edge-b").await;
    assert_problem(&answer, 404, &["lodger", "\"hint\"", SERVICE]);
    let answer = cluster.rest.ask_migration(SERVICE, "edge-x").await;
    assert_problem(&answer, 404, &["edge-x", "\"hint\"", "edge-a", "edge-b"]);
    let answer = cluster.rest.call("GET", &format!("/v1/migrations/{:032x}", 7), String::new()).await;
    assert_eq!(answer.status, 404, "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_migrated_is_a_conflict_with_its_reason() {
    let mut other = Node::creating("edge-c");
    other.service = "other".to_owned();
    let nodes = vec![Node::creating("edge-a"), Node::named("edge-b"), other];
    let cluster = Setup::nodes(nodes).hold(Hold::before("transfer")).start().await;
    assert_problem(&cluster.rest.ask_migration(SERVICE, "edge-a").await, 409, &["edge-a"]);
    assert_problem(&cluster.rest.ask_migration(SERVICE, "edge-c").await, 409, &["edge-c", SERVICE]);
    let running = cluster.rest.migrate(SERVICE, "edge-b").await;
    cluster.hold.as_ref().expect("the setup has one").held(&cluster.shell).await;
    assert_problem(&cluster.rest.ask_migration(SERVICE, "edge-b").await, 409, &[running.as_str()]);
    cluster.hold.as_ref().expect("the setup has one").release();
    assert_eq!(cluster.rest.ended(&running).await.outcome.as_deref(), Some("completed"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_body_above_the_limit_is_refused_and_one_at_the_limit_taken() {
    let cluster = Setup::nodes(vec![Node::creating("edge-a")]).start().await;
    let at_limit = vec![b'x'; BODY_LIMIT_BYTES];
    let answer = cluster.request("edge-a", ("POST", "/append"), at_limit).await.expect("the ingress answers");
    assert_eq!(answer.status, 200, "{}", answer.text());
    let above = vec![b'x'; BODY_LIMIT_BYTES + 1];
    let answer = cluster.request("edge-a", ("POST", "/append"), above).await.expect("the ingress answers");
    assert_eq!(answer.status, 413, "{}", answer.text());
    let ids = cluster.request("edge-a", ("GET", "/value"), "").await.expect("the ingress answers").json();
    assert_eq!(ids["n"], 1, "what was refused was not applied");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_broker_requests_are_refused_and_may_come_again() {
    let mut node = Node::creating("edge-a");
    node.reply_timeout_ms = Some(500);
    let mut cluster = Setup::nodes(vec![node]).start().await;
    cluster.broker.kill();
    // The sidecar may need one failed call to see it: that one's outcome is honestly unknown.
    let refused = wait_for(&cluster.shell, "a refusal before any append", || async {
        let answer = cluster.request("edge-a", ("POST", "/append"), "while the broker is away").await;
        let answer = answer.expect("the ingress answers");
        assert!(matches!(answer.status, 503 | 504), "{} {}", answer.status, answer.text());
        (answer.status == 503).then_some(answer)
    })
    .await;
    assert!(refused.header("retry-after").parse::<u32>().is_ok(), "Retry-After is {:?}", refused.header("retry-after"));
    cluster.broker.restart();
    wait_for(&cluster.shell, "the service to be back", || async {
        let answer = cluster.request("edge-a", ("POST", "/append"), "after").await.expect("the ingress answers");
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_appended_request_without_a_reply_is_answered_with_its_key() {
    let mut node = Node::creating("edge-a");
    node.faults = "hang-at=1".to_owned();
    node.faults_once = true;
    node.reply_timeout_ms = Some(500);
    node.delivery_timeout_ms = Some(3_000);
    let cluster = Setup::nodes(vec![node]).start().await;
    let answer = cluster.request("edge-a", ("POST", "/append"), "slow").await.expect("the ingress answers");
    assert_eq!(answer.status, 504, "{}", answer.text());
    assert!(answer.json()["key"].is_string(), "{}", answer.text());
    // The hung instance is replaced, and the request was not lost.
    wait_for(&cluster.shell, "the request to be applied", || async {
        let read = cluster.request("edge-a", ("GET", "/ids"), "").await.expect("the ingress answers");
        (read.status == 200 && read.text() == "slow").then_some(())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_sidecars_of_one_name_the_older_one_stops_and_says_why() {
    let mut cluster = Setup::nodes(vec![Node::creating("edge-a")]).start().await;
    let (mut younger, _ports) = cluster.add_namesake(Node::creating("edge-a"));
    let shell = cluster.shell.clone();
    let ended = cluster.process("edge-a").ended(&shell).await;
    assert_ne!(ended.code, Some(0), "{}", ended.log);
    assert!(ended.log.contains("edge-a") && ended.log.contains("name"), "{}", ended.log);
    assert!(younger.is_running(), "{}", younger.tail());
}
