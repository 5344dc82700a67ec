//! A system whose broker asks for a token and speaks TLS: everything works as without, and nobody else comes in.

use std::collections::BTreeMap;
use std::fs;

use segue_tests::harness::{
    Cluster, Ended, Guards, HANG_LIMIT, Process, SERVICE, Setup, TOKEN, Wants, binary, call, free_port, wait_for,
};

use crate::{RATE_PER_S, ends_clean};

const NEXT_TOKEN: &str = "marlin-marlin-marlin-marlin";

async fn guarded() -> Cluster {
    Setup::two_nodes().with(Wants { passwords: true, own: true, ..Wants::default() }).start().await
}

/// One of the broker's numbers.
async fn counted(cluster: &Cluster, name: &str) -> u64 {
    let answer = call(&cluster.shell, &cluster.broker.admin(), ("GET", "/metrics"), "", HANG_LIMIT).await;
    let text = answer.expect("it answers").text();
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {name} in {text}")).parse().expect("a number")
}

/// `segue log verify` of the service.
async fn verified(cluster: &Cluster, name: &str, url: &str, more: &[String]) -> Ended {
    let words = ["log", "verify", SERVICE, "--broker", url].map(str::to_owned);
    let words = words.into_iter().chain(more.iter().flat_map(|set| ["--set".to_owned(), set.clone()])).collect();
    let mut command = Process::start(cluster.folder(), name, binary("segue"), words, BTreeMap::new());
    command.ended(&cluster.shell).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_moves_over_a_guarded_broker_into_which_nobody_else_comes() {
    let cluster = guarded().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(50).await;
    for to in ["edge-b", "edge-a"] {
        let id = cluster.rest.migrate(SERVICE, to).await;
        assert_eq!(cluster.rest.ended(&id).await.outcome.as_deref(), Some("completed"));
    }
    let ready = call(&cluster.shell, &cluster.broker.admin(), ("GET", "/readyz?verbose"), "", HANG_LIMIT).await;
    let ready = ready.expect("it answers").text();
    assert!(ready.contains("guarded by token and TLS") && ready.contains("[+] appends"), "{ready}");

    let url = cluster.broker.url();
    let set = |key: &str, name: &str| format!("segue.{key}={:?}", cluster.folder().join(name).display().to_string());
    let (ca, token) = (set("ca", "ca.pem"), set("token_file", "client.token"));
    let known = verified(&cluster, "known", &url, &[ca.clone(), token.clone()]).await;
    assert!(known.code == Some(0) && known.log.contains("no gap"), "{}", known.log);
    fs::write(cluster.folder().join("wrong.token"), "guess-guess-guess-guess\n").expect("it can be written");
    assert_eq!(counted(&cluster, "segue_broker_authentication_failures_total").await, 0);
    let plain = url.replace("segues://", "segue://");
    for (name, url, more, told) in [
        ("wrong", &url, vec![ca.clone(), set("token_file", "wrong.token")], "does not know this token"),
        ("missing", &url, vec![ca], "none was sent: set [segue] token_file"),
        ("plain", &plain, vec![token], "it speaks TLS: write segues://"),
    ] {
        let refused = verified(&cluster, name, url, &more).await;
        assert!(refused.code == Some(4) && refused.log.contains(told), "{name}: {}", refused.log);
    }
    assert_eq!(counted(&cluster, "segue_broker_authentication_failures_total").await, 2);
    assert_eq!(counted(&cluster, "segue_broker_connections_refused_total").await, 3);
    ends_clean(&cluster, &recorder, load).await;
    secrets_are_not_told(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_changed_under_load_and_everybody_comes_back_with_the_new_one() {
    let mut cluster = guarded().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    load.acknowledges(50).await;
    // As the README says it.
    let write = |name: &str, text: &str| cluster.broker.guards.as_ref().expect("it is guarded").write(name, text);
    write("broker.tokens", &format!("{TOKEN}\n{NEXT_TOKEN}"));
    write("client.token", NEXT_TOKEN);
    write("broker.tokens", NEXT_TOKEN);
    // Every connection is a new one afterwards.
    cluster.broker.kill();
    cluster.broker.restart();
    load.acknowledges(50).await;
    wait_for(&cluster.shell, "a migration to complete", || async {
        let id = cluster.rest.migrate(SERVICE, "edge-b").await;
        (cluster.rest.ended(&id).await.outcome.as_deref() == Some("completed")).then_some(())
    })
    .await;
    ends_clean(&cluster, &recorder, load).await;
    secrets_are_not_told(cluster);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_moves_a_service_by_a_migrator_that_speaks_tls() {
    let mut cluster = guarded().await;
    let recorder = cluster.recorder().await;
    let load = cluster.load(&["edge-a", "edge-b"], RATE_PER_S);
    cluster.migrator.kill();
    // The same one, but for its port and what stands here.
    let port = free_port();
    let path = |name: &str| cluster.folder().join(name).display().to_string();
    fs::write(path("rest.tokens"), format!("ann operator {TOKEN}\n")).expect("it can be written");
    let before = fs::read_to_string(path("migrator.toml")).expect("it can be read");
    let lines: Vec<&str> = before.lines().filter(|line| !line.starts_with("listen = ")).collect();
    let guards = format!("tls = {{ certificate = {:?}, key = {:?} }}", path("broker.pem"), path("broker.key"));
    let auth = format!("[auth]\ntokens = {:?}", path("rest.tokens"));
    let text = format!("listen = {:?}\n{guards}\n{}\n{auth}\n", port.address(), lines.join("\n"));
    fs::write(path("migrator-tls.toml"), text).expect("it can be written");
    let words = ["migrator", "--config", &path("migrator-tls.toml")].map(str::to_owned).to_vec();
    let migrator = Process::start(cluster.folder(), "migrator-tls", binary("segue"), words, BTreeMap::new());

    let (https, http) = (format!("https://{}", port.address()), format!("http://{}", port.address()));
    let segue = async |words: &[&str], url: &str, ca: &str| {
        let more = ["--migrator", url, "--ca", ca, "--token-file", &path("client.token")];
        let words = words.iter().chain(&more).map(|word| (*word).to_owned()).collect();
        // Each with a log file of its own.
        let name = format!("command-{:08x}", cluster.shell.random().0 & 0xffff_ffff);
        let mut command = Process::start(cluster.folder(), &name, binary("segue"), words, BTreeMap::new());
        command.ended(&cluster.shell).await
    };
    wait_for(&cluster.shell, "the migrator to know both nodes", || async {
        let known = segue(&["node", "ls"], &https, &path("ca.pem")).await;
        (known.code == Some(0) && known.log.contains("edge-b") && known.log.contains("edge-a")).then_some(())
    })
    .await;
    let moved = segue(&["migrate", SERVICE, "--to", "edge-b", "--watch"], &https, &path("ca.pem")).await;
    assert!(moved.code == Some(0) && moved.log.contains("completed"), "{}\n{}", moved.log, migrator.tail());
    let other = tempfile::tempdir().expect("a folder");
    drop(Guards::create(other.path()));
    let stranger = other.path().join("ca.pem").display().to_string();
    for (url, ca, told) in [(&http, path("ca.pem"), "write https://"), (&https, stranger, "name who signed it by --ca")]
    {
        let refused = segue(&["node", "ls"], url, &ca).await;
        assert!(refused.code == Some(4) && refused.log.contains(told), "{}", refused.log);
    }
    assert!(!migrator.log().contains("swordfish"), "{}", migrator.log());
    ends_clean(&cluster, &recorder, load).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_migrator_hosts_a_guarded_broker_and_its_file_is_enough_to_ask_it() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = tempfile::tempdir().expect("the temporary folder can be written");
    let guards = Guards::create(folder.path());
    let (rest, hosted, path) = (free_port(), free_port(), |name: &str| folder.path().join(name));
    let host =
        format!("[host]\nlisten = {:?}\npath = {:?}\n{}", hosted.address(), path("broker"), guards.server_toml());
    let text = format!("listen = {:?}\n{host}[segue]\nca = {:?}\n", rest.address(), path("ca.pem"));
    fs::write(path("migrator.toml"), text).expect("it can be written");
    let file = path("migrator.toml").display().to_string();
    let start = |name: &str, words: &[&str]| {
        let words = words.iter().chain(&["--config", &file]).map(|word| (*word).to_owned()).collect();
        Process::start(folder.path(), name, binary("segue"), words, BTreeMap::new())
    };
    let migrator = start("migrator", &["migrator"]);
    wait_for(&shell, "the migrator to be ready", || async {
        let answer = call(&shell, &rest.address(), ("GET", "/readyz"), "", HANG_LIMIT).await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
    // The token is the first that the host takes: nothing is known of this log, but it was asked.
    let asked = start("asked", &["log", "verify", SERVICE]).ended(&shell).await;
    assert!(asked.code == Some(6) && asked.log.contains("is empty"), "{}\n{}", asked.log, migrator.tail());
    fs::write(path("wrong.token"), "guess-guess-guess-guess\n").expect("it can be written");
    let wrong = format!("segue.token_file={:?}", path("wrong.token").display().to_string());
    let refused = start("refused", &["log", "verify", SERVICE, "--set", &wrong]).ended(&shell).await;
    assert!(refused.code == Some(4) && refused.log.contains("does not know this token"), "{}", refused.log);
    let metrics = call(&shell, &rest.address(), ("GET", "/metrics"), "", HANG_LIMIT).await.expect("it answers").text();
    assert!(metrics.contains("segue_broker_authentication_failures_total 1\n"), "{metrics}");
}

/// Nothing that anybody wrote down holds a token.
fn secrets_are_not_told(mut cluster: Cluster) {
    let nodes = ["edge-a", "edge-b"].map(|node| cluster.process(node).log());
    let logs = [cluster.broker.log(), cluster.migrator.log()].into_iter().chain(nodes);
    for log in logs {
        assert!(!log.is_empty());
        assert!(!log.contains("swordfish") && !log.contains("marlin"), "{log}");
    }
}
