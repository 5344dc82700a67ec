//! The harness against the ledger alone: what it claims to do, it does.

use std::collections::BTreeMap;
use std::time::Duration;

use broker_adapter::ids::{MessageName, Position, Sequence, Session};
use broker_adapter::shell::Shell;
use segue_tests::checker::{Applied, Evidence, Observation, Outcome, check};
use segue_tests::harness::{Load, Port, Process, binary, call, free_port, wait_for};
use segue_tests::ledger::Chain;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(5);

async fn ledger(shell: &Shell, folder: &TempDir, faults: &str) -> (Process, Port) {
    let port = free_port();
    let arguments = vec!["--listen".to_owned(), port.address()];
    let environment = BTreeMap::from([("LEDGER_FAULTS".to_owned(), faults.to_owned())]);
    let process = Process::start(folder.path(), "ledger", binary("segue-ledger"), arguments, environment);
    ready(shell, &port).await;
    (process, port)
}

async fn ready(shell: &Shell, port: &Port) {
    wait_for(shell, "the ledger", || async { call(shell, &port.address(), ("GET", "/ready"), "", LIMIT).await.ok() })
        .await;
}

/// The evidence as if the ledger's own list had been the log.
async fn evidence(shell: &Shell, port: &Port, observations: Vec<Observation>) -> Evidence {
    let saved = call(shell, &port.address(), ("GET", "/segue/state"), "", LIMIT).await.expect("the ledger answers");
    let chain = Chain::load(&saved.text()).expect("the ledger's own state");
    let applied = chain.ids().iter().zip(1..).map(|(id, place)| Applied {
        position: Position(place),
        name: MessageName { session: Session::default(), sequence: Sequence(place) },
        body: id.clone().into(),
    });
    Evidence { applied: applied.collect(), observations, ..Evidence::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_load_keeps_its_rate_and_is_judged_clean() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (_process, port) = ledger(&shell, &folder, "").await;
    let began = shell.now();
    let load = Load::start(&shell, vec![port.address()], 500, "m");
    load.acknowledges(250).await;
    assert!(shell.now() - began >= Duration::from_millis(490), "250 requests at 500 per second take half a second");
    let evidence = evidence(&shell, &port, load.finish().await).await;
    assert!(evidence.applied.len() >= 250);
    assert_eq!(check(&evidence, &mut Chain::default()), []);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_ledger_loses_what_it_acknowledged_and_the_oracle_says_so() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (mut process, port) = ledger(&shell, &folder, "").await;
    let load = Load::start(&shell, vec![port.address()], 500, "m");
    load.acknowledges(50).await;
    process.kill();
    process.restart();
    ready(&shell, &port).await;
    load.acknowledges(50).await;
    let seen = load.finish().await;
    let lost = evidence(&shell, &port, seen).await;
    assert!(check(&lost, &mut Chain::default()).len() >= 50, "the first 50 are gone, and it answers from 1 again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_paused_process_answers_when_it_goes_on() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (process, port) = ledger(&shell, &folder, "").await;
    process.pause();
    let load = Load::start(&shell, vec![port.address()], 100, "m");
    shell.sleep(Duration::from_millis(200)).await;
    assert_eq!(load.acknowledged(), 0, "a paused process answers nothing");
    process.resume();
    load.acknowledges(10).await;
    let seen = load.finish().await;
    assert!(seen.iter().all(|seen| matches!(seen.outcome, Outcome::Reply { .. })));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_ledger_crashes_where_it_was_told() {
    let (shell, _tasks) = broker_adapter::shell::real::process();
    let folder = TempDir::new().expect("the temporary folder can be written");
    let (mut process, port) = ledger(&shell, &folder, "crash-after=2").await;
    for (id, answered) in [("a", true), ("b", false)] {
        let answer = call(&shell, &port.address(), ("POST", "/append"), id, LIMIT).await;
        assert_eq!(answer.is_ok(), answered, "{id}");
    }
    assert_eq!(process.ended(&shell).await.code, Some(70));
}
