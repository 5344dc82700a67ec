//! Services that somebody else starts, and restarts behind the sidecar's back: nothing is lost, nobody is answered from the
//! empty state, and no checkpoint is taken of it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::memory::Faults as BrokerFaults;
use broker_adapter::record::Record;
use broker_adapter::shell::{Shell, TaskSet};
use segue_tests::checker::Evidence;
use segue_tests::harness::{HANG_LIMIT, Load, Node as RealNode, Port, Process, SERVICE, Setup};
use segue_tests::harness::{binary, call, free_port, wait_for};
use segue_tests::ledger::{Chain, Faults, LedgerRunner};
use sidecar::checkpoint::load::Reader;
use sidecar::checkpoint::pace::Pace;

use crate::one_process::{Node, World};

/// A node whose service is attached, and what keeps that alive.
struct Attached {
    name: &'static str,
    node: Node,
    _service: TaskSet,
}

impl Attached {
    async fn start(world: &World, name: &'static str, create: bool, faults: &Faults) -> Attached {
        let (shell, service) = world.sim.process();
        let runner = LedgerRunner::new(shell, name, Arc::new(Mutex::new(faults.clone()))).attached();
        let node =
            world.start_running(name, create, Arc::new(runner), serde_json::json!({}), world.sim.process()).await;
        Attached { name, node, _service: service }
    }
}

/// Reads as fast as it is answered: each answer must show all that was acknowledged before it was asked.
fn read_on(shell: &Shell, address: &'static str, load: &Arc<Load>) -> (TaskSet, Arc<Mutex<u64>>) {
    let (part, reads) = shell.part();
    let (count, counted) = (Arc::new(Mutex::new(0)), load.clone());
    let (shell, told) = (shell.clone(), count.clone());
    part.spawn(async move {
        loop {
            let before = counted.acknowledged() as u64;
            let read = call(&shell, address, ("GET", "/value"), "", HANG_LIMIT).await.expect("the ingress answers");
            if read.status == 200 {
                let n = read.json()["n"].as_u64().expect("a number");
                assert!(n >= before, "a read shows {n} of {before}");
                *told.lock().expect("nothing panics under this lock") += 1;
            }
            shell.sleep(Duration::from_millis(1)).await;
        }
    });
    (reads, count)
}

/// Every counted checkpoint is the state of its position.
async fn checkpoints_are_whole(world: &World) -> usize {
    let entries = world.broker.dump("ledger.0");
    let applied = Evidence::from_log(&entries, "/append").applied;
    let reader = Reader { store: world.broker.connect("reader").store(), shell: world.shell.clone() };
    let shard = sidecar_shard();
    let mut seen = 0;
    for entry in &entries {
        let Record::Checkpoint(checkpoint) = &entry.record else { continue };
        let Ok(manifest) = reader.manifest(&shard, checkpoint.position, checkpoint.manifest).await else { continue };
        let (pieces, mut received) = tokio::sync::mpsc::channel(4);
        let pace = Pace::new(&world.shell, 1_000);
        let sent = reader.stream_state(&manifest, checkpoint.manifest, pieces, pace, |_| ());
        let taken = async {
            let mut state = Vec::new();
            while let Some(piece) = received.recv().await {
                state.extend_from_slice(&piece);
            }
            state
        };
        let (sent, state) = tokio::join!(sent, taken);
        sent.expect("it is whole");
        let chain = Chain::load(&String::from_utf8(state).expect("text")).expect("a ledger's state");
        let before = applied.iter().filter(|message| message.position <= checkpoint.position).count();
        assert_eq!(chain.ids().len(), before, "the checkpoint at {}", checkpoint.position);
        seen += 1;
    }
    seen
}

fn sidecar_shard() -> broker_adapter::ids::ShardId {
    broker_adapter::ids::ShardId::whole("ledger".parse().expect("a good name"))
}

fn kinds() -> [Faults; 3] {
    let token = Faults { echoes: true, ..Faults::default() };
    [Faults::default(), token.clone(), Faults { not_fixed: true, not_canonical: true, ..token }]
}

#[tokio::test(start_paused = true)]
async fn an_idle_service_that_restarts_unnoticed_answers_nobody_from_its_empty_state() {
    for faults in kinds() {
        let world = World::new(1, BrokerFaults::calm());
        let owner = Attached::start(&world, "edge-a", true, &faults).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 200, "m");
        load.acknowledges(50).await;
        let mut observations = load.finish().await;
        // From at once to later than the sidecar looks by itself.
        for wait_ms in [0, 1, 5, 40, 100, 700] {
            assert!(owner.node.runner.restart_unnoticed().await, "it ran");
            world.shell.sleep(Duration::from_millis(wait_ms)).await;
            let read = call(&world.shell, "edge-a:80", ("GET", "/value"), "", HANG_LIMIT).await.expect("it answers");
            assert_eq!(read.json()["n"].as_u64(), Some(observations.len() as u64), "after {wait_ms} ms: {faults:?}");
        }
        // And with a request as the first thing that happens.
        assert!(owner.node.runner.restart_unnoticed().await, "it ran");
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 200, "n");
        load.acknowledges(50).await;
        observations.extend(load.finish().await);
        let mut evidence = Evidence::from_log(&world.broker.dump("ledger.0"), "/append");
        evidence.observations = observations;
        assert_eq!(segue_tests::checker::check(&evidence, &mut Chain::default()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_restarts_unnoticed_under_load_loses_nothing() {
    for (seed, faults) in (1..=4).flat_map(|seed| kinds().map(|faults| (seed, faults))) {
        let world = World::new(seed, BrokerFaults::rough());
        let owner = Attached::start(&world, "edge-a", true, &faults).await;
        let load = Arc::new(Load::start(&world.shell, vec!["edge-a:80".into()], 200, "m"));
        let (reads, count) = read_on(&world.shell, "edge-a:80", &load);
        for restart in 0..10 {
            load.acknowledges(10).await;
            world.shell.sleep(Duration::from_millis(7 * restart + seed)).await;
            owner.node.runner.restart_unnoticed().await;
        }
        load.acknowledges(50).await;
        drop(reads);
        world.shell.sleep(Duration::from_millis(10)).await;
        assert!(*count.lock().expect("nothing panics under this lock") > 10, "reads were answered");
        let load = Arc::into_inner(load).expect("the reads have ended");
        world.serves_cleanly(load, &owner.node, 10).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_never_carries_the_empty_state_of_a_service_that_restarted() {
    let mut completed = 0;
    for (after_ms, faults) in [0, 6, 12, 25].into_iter().flat_map(|after_ms| kinds().map(|faults| (after_ms, faults))) {
        let world = World::new(after_ms + 1, BrokerFaults::calm());
        let a = Attached::start(&world, "edge-a", true, &faults).await;
        let b = Attached::start(&world, "edge-b", false, &faults).await;
        let orders = world.migrator().await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], 100, "m");
        load.acknowledges(20).await;
        let (mut owner, mut other) = (&a, &b);
        for source_restarts in [true, false] {
            let id = orders.begin(&world.shell, other.name).await;
            world.shell.sleep(Duration::from_millis(after_ms)).await;
            let restarted = if source_restarts { owner } else { other };
            restarted.node.runner.restart_unnoticed().await;
            let ended = orders.end(&world.shell, id).await;
            if ended.outcome == Some(migrator::machine::Ending::Completed) {
                (owner, other) = (other, owner);
                completed += 1;
            }
        }
        world.serves_cleanly(load, &owner.node, 50).await;
        assert!(checkpoints_are_whole(&world).await >= 1);
    }
    assert!(completed >= 8, "only {completed} of 24 migrations completed");
}

/// A ledger that the test itself runs.
fn ledger(name: &str, port: &Port, faults: &str, folder: &std::path::Path) -> Process {
    let arguments = vec!["--listen".to_owned(), port.address()];
    let environment = BTreeMap::from([("LEDGER_FAULTS".to_owned(), faults.to_owned())]);
    Process::start(folder, name, binary("segue-ledger"), arguments, environment)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_process_that_is_killed_and_restarted_behind_the_sidecars_back_costs_nothing() {
    for faults in ["", "echoes"] {
        let (folder, ports) = (tempfile::tempdir().expect("a folder"), [free_port(), free_port()]);
        let mut services =
            [ledger("a", &ports[0], faults, folder.path()), ledger("b", &ports[1], faults, folder.path())];
        let node = |name, create, port: &Port| RealNode::attached(name, create, &port.address(), "");
        let nodes = vec![node("edge-a", true, &ports[0]), node("edge-b", false, &ports[1])];
        let cluster = Setup::nodes(nodes).start().await;
        let recorder = cluster.recorder().await;
        let load = cluster.load(&["edge-a", "edge-b"], crate::RATE_PER_S);
        for _ in 0..5 {
            load.acknowledges(30).await;
            services[0].kill();
            services[0].restart();
            let before = load.acknowledged() as u64;
            let read = cluster.request("edge-b", ("GET", "/value"), "").await.expect("an ingress answers");
            assert!(read.json()["n"].as_u64() >= Some(before), "{}", read.text());
        }
        load.acknowledges(30).await;
        let id = cluster.rest.migrate(SERVICE, "edge-b").await;
        let ended = cluster.rest.ended(&id).await;
        assert_eq!(ended.outcome.as_deref(), Some("completed"), "{ended:?}");
        services[1].kill();
        services[1].restart();
        load.acknowledges(30).await;
        let observations = load.finish().await;
        // Now nobody sends, and a read is the first that happens.
        services[1].kill();
        services[1].restart();
        let sent = observations.len() as u64;
        let read = cluster.request("edge-b", ("GET", "/value"), "").await.expect("an ingress answers");
        assert_eq!(read.json()["n"].as_u64(), Some(sent), "{}", read.text());
        assert_eq!(cluster.findings(&recorder, observations).await, []);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_attached_service_holds_is_adopted_and_other_states_are_only_replaced_when_asked() {
    let (folder, ports) = (tempfile::tempdir().expect("a folder"), [free_port(), free_port()]);
    let _services = [ledger("a", &ports[0], "", folder.path()), ledger("b", &ports[1], "", folder.path())];
    let (shell, _tasks) = broker_adapter::shell::real::process();
    for (port, id) in [(&ports[0], "of the first"), (&ports[1], "of nobody")] {
        let at = port.address();
        let answer = wait_for(&shell, "a ledger", || async {
            call(&shell, &at, ("POST", "/append"), id, HANG_LIMIT).await.ok()
        });
        assert_eq!(answer.await.status, 200);
    }
    let copies = tempfile::tempdir().expect("a folder");
    let nodes = vec![
        RealNode::attached("edge-a", true, &ports[0].address(), ""),
        RealNode::attached("edge-b", false, &ports[1].address(), ""),
    ];
    let mut cluster = Setup::nodes(nodes).start().await;
    let read = cluster.request("edge-a", ("GET", "/ids"), "").await.expect("an ingress answers");
    assert_eq!(read.text(), "of the first", "what it held is checkpoint 0");
    let id = cluster.rest.migrate(SERVICE, "edge-b").await;
    let ended = cluster.rest.ended(&id).await;
    assert_eq!(ended.outcome.as_deref(), Some("rolled-back"), "{ended:?}");
    let said = format!("{:?}", ended.error);
    assert!(said.contains("unknown origin") && said.contains("--replace-state"), "{said}");
    let held = call(&shell, &ports[1].address(), ("GET", "/ids"), "", HANG_LIMIT).await.expect("it runs");
    assert_eq!(held.text(), "of nobody", "and nothing happened to it");
    cluster.process("edge-b").kill();
    let replace = BTreeMap::from([
        ("SEGUE_SIDECAR__SERVICE__0__REPLACE_STATE".to_owned(), "true".to_owned()),
        ("SEGUE_SIDECAR__DATA".to_owned(), copies.path().display().to_string()),
    ]);
    cluster.process("edge-b").restart_with(replace);
    cluster.ready("edge-b").await;
    let ended = wait_for(&shell, "a migration that completes", || async {
        let answer = cluster.rest.ask_migration(SERVICE, "edge-b").await;
        let id = answer.header("location").strip_prefix("/v1/migrations/")?.to_owned();
        let ended = cluster.rest.ended(&id).await;
        (ended.outcome.as_deref() == Some("completed")).then_some(ended)
    });
    assert_eq!(ended.await.to, "edge-b");
    let held = call(&shell, &ports[1].address(), ("GET", "/ids"), "", HANG_LIMIT).await.expect("it runs");
    assert_eq!(held.text(), "of the first");
    let copy = std::fs::read_dir(copies.path()).expect("a folder").next().expect("a copy was kept").expect("a file");
    let kept = std::fs::read_to_string(copy.path()).expect("text");
    assert!(kept.contains("of nobody") && cluster.logs().contains(&copy.path().display().to_string()), "{kept}");
}
