//! The ledger in a simulated world.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::shell::Shell;
use broker_adapter::shell::sim::SimWorld;

use super::{Chain, Faults, Ledger, Value};
use crate::harness::{Answer, CallError, call};

const LIMIT: Duration = Duration::from_secs(1);

async fn started(shell: &Shell, faults: Faults) -> String {
    let (instance, tasks) = shell.part();
    let tasks = Mutex::new(Some(tasks));
    let crash = Arc::new(move || drop(tasks.lock().expect("nothing panics under this lock").take()));
    let ledger = Ledger::new(instance, Arc::new(Mutex::new(faults)), crash);
    ledger.serve("ledger:0").await.expect("the simulated port is free")
}

async fn ask(shell: &Shell, to: &str, method_path: (&str, &str), body: &str) -> Result<Answer, CallError> {
    call(shell, to, method_path, body.to_owned(), LIMIT).await
}

async fn append(shell: &Shell, to: &str, id: &str) -> Value {
    let answer = ask(shell, to, ("POST", "/append"), id).await.expect("the ledger answers");
    serde_json::from_slice(&answer.body).expect("an append is answered with its value")
}

#[tokio::test(start_paused = true)]
async fn the_ledger_answers_what_its_chain_says() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let ledger = started(&shell, Faults::default()).await;
    append(&shell, &ledger, "a").await;
    assert_eq!(append(&shell, &ledger, "b").await, Chain::of(["a", "b"]).value());
}

#[tokio::test(start_paused = true)]
async fn a_state_moves_from_one_instance_to_another() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let (one, other) = (started(&shell, Faults::default()).await, started(&shell, Faults::default()).await);
    append(&shell, &one, "a").await;
    let saved = ask(&shell, &one, ("GET", "/segue/state"), "").await.expect("it saves");
    assert_eq!(saved.header("segue-snapshot"), "fixed, canonical");
    let loaded = ask(&shell, &other, ("PUT", "/segue/state"), &saved.text()).await.expect("it loads");
    assert_eq!(loaded.status, 200);
    assert_eq!(append(&shell, &other, "b").await, Chain::of(["a", "b"]).value());
}

#[tokio::test(start_paused = true)]
async fn a_crash_ends_the_instance_without_an_answer() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let ledger = started(&shell, Faults { crash_after: Some(2), ..Faults::default() }).await;
    append(&shell, &ledger, "a").await;
    assert!(matches!(ask(&shell, &ledger, ("POST", "/append"), "b").await, Err(CallError::Broken(_))));
    assert!(matches!(ask(&shell, &ledger, ("GET", "/ready"), "").await, Err(CallError::Connect(_))));
}

#[tokio::test(start_paused = true)]
async fn a_hang_gives_no_answer_and_fires_once() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let ledger = started(&shell, Faults { hang_at: Some(1), ..Faults::default() }).await;
    assert!(matches!(ask(&shell, &ledger, ("POST", "/append"), "a").await, Err(CallError::Hung)));
    assert_eq!(append(&shell, &ledger, "a").await.n, 1);
}

#[tokio::test(start_paused = true)]
async fn a_ledger_that_is_not_deterministic_differs_from_the_model() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let ledger = started(&shell, Faults { nondeterministic: true, ..Faults::default() }).await;
    assert_ne!(append(&shell, &ledger, "a").await, Chain::of(["a"]).value());
}

#[tokio::test(start_paused = true)]
async fn a_ledger_told_to_refuse_refuses_to_save_and_load() {
    let (shell, _tasks) = SimWorld::new(1).process();
    let faults = Faults { refuse_save: true, refuse_load: true, ..Faults::default() };
    let ledger = started(&shell, faults).await;
    for (method, body) in [("GET", ""), ("PUT", "ledger 1")] {
        assert_eq!(ask(&shell, &ledger, (method, "/segue/state"), body).await.expect("it answers").status, 500);
    }
}
