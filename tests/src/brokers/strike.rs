//! What a fault does to the broker, what shows that it did, and what takes it back: the faults after which everybody goes on.

use std::time::Duration;

use broker_adapter::ids::Position;
use broker_adapter::shell::TaskSet;
use tempfile::TempDir;

use super::play::Scene;
use super::{Cell, Fault};
use crate::cells::fault::numbers;
use crate::harness::{CallError, HANG_LIMIT, call, state, wait_for};

/// How long a killed server is away, so that others notice.
const AWAY: Duration = Duration::from_millis(300);
const STOPPED: Duration = Duration::from_secs(10);
/// How long everybody is refused, or the log full.
const REFUSED: Duration = Duration::from_secs(3);
/// How long readers are slow, and how many bytes a second each connection gives them.
const SLOW: Duration = Duration::from_secs(6);
const SLOW_BYTES_PER_S: u64 = 4_000;
/// What the log grows by meanwhile: a body that the service does not know, so often.
const BALLAST_BYTES: usize = 4_000;
const BALLAST_EVERY: Duration = Duration::from_millis(20);
/// A slow reader that is not so far behind is not slow.
const BEHIND_RECORDS: u64 = 50;
/// How many acknowledgements are lost in a cell.
const LOST_ACKS: u64 = 3;
/// So much fits into a stream that is about to be full.
const ROOM_BYTES: u64 = 2_000;
/// A refusal comes at once.
const ONE_REFUSAL: Duration = Duration::from_millis(500);
/// How far behind the recorder anybody may be when what it has read is purged.
const CAUGHT_UP: Duration = Duration::from_millis(500);

/// What some faults need before they can strike.
pub struct Prepared {
    /// Files of the server at an earlier time.
    pub older: Option<TempDir>,
}

/// A fault that struck.
pub struct Struck {
    /// What shows it.
    pub proof: Result<String, String>,
    /// Servers that are down.
    pub restart: Vec<usize>,
}

/// Keeps what the fault will bring back.
pub async fn prepare(cell: &Cell, scene: &mut Scene) -> Prepared {
    if cell.fault != Fault::Rewound {
        return Prepared { older: None };
    }
    let older = TempDir::with_prefix("segue-test-older-").expect("the temporary folder can be written");
    let cluster = &mut scene.cluster;
    cluster.broker.kill();
    cluster.broker.copy_files(older.path());
    cluster.broker.restart();
    cluster.broker.ready(&cluster.shell).await;
    Prepared { older: Some(older) }
}

/// Does it.
///
/// # Panics
/// If it did not happen.
pub async fn strike(cell: &Cell, scene: &mut Scene) -> Struck {
    let shell = scene.cluster.shell.clone();
    match cell.fault {
        Fault::Kill => {
            let pids = scene.cluster.broker.pids();
            scene.cluster.broker.kill();
            Struck { proof: Ok(format!("{} killed", numbers(&pids))), restart: (0..pids.len()).collect() }
        }
        Fault::KillLeader => {
            let leader = leader(scene).await;
            let pid = scene.cluster.broker.pid(leader);
            scene.cluster.broker.kill_one(leader);
            Struck { proof: Ok(format!("leader {leader}, {} killed", numbers(&[pid]))), restart: vec![leader] }
        }
        Fault::Stop => {
            let at = if cell.broker.servers() > 1 { leader(scene).await } else { 0 };
            let pid = scene.cluster.broker.pid(at);
            scene.cluster.broker.pause_one(at);
            wait_for(&shell, "the kernel to stop it", || async { (state(pid) == Some('T')).then_some(()) }).await;
            Struck { proof: Ok(format!("{} in state T for 10 s", numbers(&[pid]))), restart: vec![at] }
        }
        Fault::SlowConsumer => slow_down(scene).await,
        Fault::LostAck => Struck::shown(lose_acknowledgements(scene).await),
        Fault::WrongCredentials => {
            scene.cluster.broker.change_password(false);
            wait_for(&shell, "somebody to be refused", || async {
                (scene.cluster.broker.refusals() > 0).then_some(())
            })
            .await;
            Struck::shown(String::new())
        }
        Fault::Quota if cell.broker.is_nats() => Struck::shown(scene.cluster.broker.limit_log(Some(ROOM_BYTES)).await),
        // The log fills up by itself: the load goes on until somebody is refused.
        Fault::Quota => Struck::shown(refused(scene).await),
        Fault::Purged => {
            let last = scene.recorder.last();
            shell.sleep(CAUGHT_UP).await;
            let said = scene.cluster.broker.purge_log(&shell, last).await;
            assert!(last > Position(10), "there was something to purge");
            Struck::shown(said)
        }
        Fault::Recreated | Fault::Rewound => unreachable!("nobody goes on after these: see stops"),
    }
}

async fn leader(scene: &Scene) -> usize {
    let cluster = &scene.cluster;
    wait_for(&cluster.shell, "a leader of the log", || cluster.broker.leader_of_log(&cluster.shell)).await
}

/// Lets it last, takes it back, and gives the proof.
pub async fn take_back(cell: &Cell, scene: &mut Scene, struck: Struck) -> Result<String, String> {
    let shell = scene.cluster.shell.clone();
    let Struck { proof, restart } = struck;
    let began = shell.now();
    match cell.fault {
        Fault::Kill => {
            shell.sleep(AWAY).await;
            scene.cluster.broker.restart();
        }
        Fault::KillLeader => {
            let old = restart[0];
            let next = wait_for(&shell, "another leader", || async {
                scene.cluster.broker.leader_of_log(&shell).await.filter(|leader| *leader != old)
            });
            let next = next.await;
            let after = (shell.now() - began).as_millis();
            scene.cluster.broker.restart_one(old);
            return proof.map(|proof| format!("{proof}; {next} leads after {after} ms"));
        }
        Fault::Stop => {
            shell.sleep(STOPPED).await;
            scene.cluster.broker.resume_one(restart[0]);
        }
        Fault::WrongCredentials => {
            shell.sleep(REFUSED).await;
            let times = scene.cluster.broker.refusals();
            scene.cluster.broker.change_password(true);
            return Ok(format!("the servers refused {times} times"));
        }
        Fault::Quota if cell.broker.is_nats() => {
            let said = refused(scene).await;
            shell.sleep(REFUSED).await;
            let raised = scene.cluster.broker.limit_log(None).await;
            return proof.map(|proof| format!("{proof}; {said}; then {raised}"));
        }
        Fault::Quota => {
            let first = wait_for(&shell, "the owner to make room", || async {
                let broker = scene.cluster.broker.connect(&shell).await;
                let usage = broker.log("ledger.0").await.ok()?.usage().await.ok()?;
                (usage.first > Position(1)).then_some(usage.first)
            });
            let first = first.await;
            return proof.map(|proof| format!("{proof}; then the owner trimmed, the log begins at {first}"));
        }
        _ => {}
    }
    proof
}

/// A client that is refused because the log is full, and what it is told.
async fn refused(scene: &Scene) -> String {
    let cluster = &scene.cluster;
    let told = wait_for(&cluster.shell, "a client to be refused because the log is full", || async {
        let (ingress, path) = (cluster.ingress("edge-a"), ("POST", "/ballast"));
        // One that came before the log was full waits for its room.
        let answer =
            call(&cluster.shell, &ingress, path, "x", ONE_REFUSAL).await.ok().filter(|answer| answer.status == 503)?;
        let text = answer.text();
        text.contains("log-full").then(|| answer.json()["detail"].as_str().unwrap_or_default().to_owned())
    });
    format!("503 log-full: {}", told.await)
}

/// Each time one append of edge-a is in the log and nobody told it.
async fn lose_acknowledgements(scene: &Scene) -> String {
    let proxy = scene.cluster.broker.proxy.as_ref().expect("the cell has one");
    for lost in 1..=LOST_ACKS {
        proxy.lose_the_next_acknowledgement();
        wait_for(&scene.cluster.shell, "an append to lose its acknowledgement", || async {
            (proxy.lost().0 >= lost).then_some(())
        })
        .await;
        scene.loads[0].acknowledges(1).await;
    }
    let (cuts, bytes) = proxy.lost();
    assert!(bytes > 0, "the server had answered");
    format!("{cuts} appends reached the server, {bytes} bytes of its answers were swallowed, their connections cut")
}

/// edge-b gets little of what grows fast; then it is let go.
async fn slow_down(scene: &Scene) -> Struck {
    let (cluster, shell) = (&scene.cluster, &scene.cluster.shell);
    let proxy = cluster.broker.proxy.as_ref().expect("the cell has one");
    let _ballast = ballast(scene);
    proxy.slow_down(SLOW_BYTES_PER_S);
    shell.sleep(SLOW).await;
    let (there, here) = (tail_of(&cluster.conditions("edge-b").await), scene.recorder.last());
    let bytes = proxy.passed_slowly();
    proxy.slow_down(0);
    let behind = here.0.saturating_sub(there);
    let told =
        format!("edge-b got {bytes} bytes in {} s and was {behind} records behind the log's {here}", SLOW.as_secs());
    Struck { proof: if behind >= BEHIND_RECORDS { Ok(told) } else { Err(told) }, restart: Vec::new() }
}

/// Requests that the log has and the service does not know, until it is dropped.
fn ballast(scene: &Scene) -> TaskSet {
    let (pacer, tasks) = scene.cluster.shell.part();
    let (shell, address) = (pacer.clone(), scene.cluster.ingress("edge-a"));
    pacer.spawn(async move {
        loop {
            let body = vec![b'x'; BALLAST_BYTES];
            let answered = call(&shell, &address, ("POST", "/ballast"), body, HANG_LIMIT).await;
            assert!(!matches!(answered, Err(CallError::Connect(_))), "the ingress is there");
            shell.sleep(BALLAST_EVERY).await;
        }
    });
    tasks
}

/// The tail that a node's conditions tell.
fn tail_of(conditions: &str) -> u64 {
    let behind = conditions.split_once(", tail ").map(|(_, behind)| behind);
    let digits = behind.and_then(|behind| behind.split(',').next());
    digits.and_then(|digits| digits.parse().ok()).unwrap_or_else(|| panic!("no tail is told: {conditions}"))
}
