//! Services that begin with an imported state, in one process and on a rough broker: the log says who began, and with what.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::Broker;
use broker_adapter::fold::{Fold, Verdict};
use broker_adapter::ids::{Epoch, Hash, Position, ShardId};
use broker_adapter::memory::Faults as BrokerFaults;
use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use segue_tests::harness::{HANG_LIMIT, call, wait_for};
use segue_tests::ledger::{Chain, Faults, LedgerRunner};
use serde_json::json;
use sidecar::checkpoint::archive::{Archive, Export};
use sidecar::checkpoint::import::set_aside;
use sidecar::checkpoint::load::Reader;
use sidecar::checkpoint::{ChunkRef, Form, MANIFEST_VERSION, Manifest, SaveId, manifest_name};
use sidecar::command::{Begin, BeginFailure, Begun, NodeMail, decode, encode, node_address};
use sidecar::runner::Runner;
use sidecar::{Config, ServiceConfig, Sidecar};
use tokio::sync::mpsc;

use super::one_process::World;

/// A file with this state of a service whose log nobody has; the store keeps what it was made of.
pub(crate) async fn archive_of(broker: &Arc<dyn Broker>, shell: &Shell, shard: &ShardId, state: Bytes) -> Vec<u8> {
    let save = SaveId { epoch: Epoch(1), id: shell.random() };
    let length = u32::try_from(state.len()).expect("a small state");
    let chunk = ChunkRef { hash: Hash::of(&state), save, length, form: Form::Plain };
    put(shell, broker, chunk.name(shard), state).await;
    let manifest = Manifest {
        version: MANIFEST_VERSION,
        shard: shard.clone(),
        position: Position::ZERO,
        record_crc: 0,
        hash: Hash::default(),
        fold: Vec::new(),
        replies: Vec::new(),
        state: vec![chunk],
        canonical: true,
    };
    let content = encode(&manifest);
    let hash = Hash::of(&content);
    put(shell, broker, manifest_name(shard, Position::ZERO, hash), content).await;
    exported(broker, shell, (shard, Position::ZERO, hash)).await
}

async fn put(shell: &Shell, broker: &Arc<dyn Broker>, name: String, content: Bytes) {
    wait_for(shell, "the store", || async { broker.store().put(name.clone(), content.clone()).await.ok() }).await;
}

fn shard() -> ShardId {
    ShardId::whole("ledger".parse().expect("a name"))
}

/// A sidecar that may not begin by itself; it is not waited for.
struct Node {
    _sidecar: Sidecar,
    runner: Arc<LedgerRunner>,
    _tasks: TaskSet,
}

async fn start(world: &World, node: &str) -> Node {
    let (shell, tasks) = world.sim.process();
    let runner = Arc::new(LedgerRunner::new(shell.clone(), node, Arc::new(Mutex::new(Faults::default()))));
    let config = json!({ "node": node, "broker": "memory:", "admin": format!("{node}:1"), "service": [{
        "name": "ledger", "listen": format!("{node}:80"), "run": ["simulated"], "ready": "/ready",
        "state": { "kind": "http", "path": "/segue/state" }, "delivery_timeout_ms": 500,
    }] });
    let config: Config = serde_json::from_value(config).expect("a good configuration");
    let given: Arc<dyn Runner> = runner.clone();
    let runner_of = move |_: &ServiceConfig| given.clone();
    let sidecar = wait_for(&world.shell, "the sidecar to start", || async {
        Sidecar::start(config.clone(), world.broker.connect(node), &runner_of, &shell).await.ok()
    })
    .await;
    Node { _sidecar: sidecar, runner, _tasks: tasks }
}

/// Puts a chain over these texts aside, as the migrator does; its hash.
async fn aside(world: &World, ids: &[&str]) -> Hash {
    let broker: Arc<dyn Broker> = world.broker.connect("operator");
    let elsewhere = ShardId::whole("elsewhere".parse().expect("a name"));
    let state = Bytes::from(Chain::of(ids.iter().copied()).save());
    world.broker.set_faults(BrokerFaults::calm());
    let archive = opened(archive_of(&broker, &world.shell, &elsewhere, state).await, &world.shell).await;
    let reader = Reader { store: broker.store(), shell: world.shell.clone() };
    let (_, hash) = set_aside(&reader, archive, &shard(), true).await.expect("the store takes it");
    hash
}

/// Tells a node to begin until it answers, or `limit` is over.
async fn told(world: &World, node: &str, import: Hash, limit: Duration) -> Option<Begun> {
    let begin = Begin { shard: shard(), import, replace_state: false, answer_to: String::new() };
    tell(&world.broker.connect("operator"), &world.shell, node, begin, limit).await
}

/// The same of any service.
pub(crate) async fn tell(
    broker: &Arc<dyn Broker>,
    shell: &Shell,
    node: &str,
    begin: Begin,
    limit: Duration,
) -> Option<Begun> {
    let mailbox = broker.mailbox();
    let begin = Begin { answer_to: format!("import/{}", shell.random()), ..begin };
    let mut answers = mailbox.subscribe(&begin.answer_to);
    let telling = async {
        loop {
            mailbox.send(&node_address(&node.parse().expect("a name")), encode(&NodeMail::Begin(begin.clone())));
            if let Some(Some(mail)) = shell.within(Duration::from_millis(500), answers.next()).await {
                return decode::<Begun>(&mail).expect("it is an answer");
            }
        }
    };
    shell.within(limit, telling).await
}

/// An archive as it is read.
pub(crate) async fn opened(archive: Vec<u8>, shell: &Shell) -> Archive {
    let pieces = stream::iter([Ok(Bytes::from(archive))]).boxed();
    Archive::open(pieces, 1 << 30, shell).await.expect("it is one")
}

/// A checkpoint of the store as a file.
pub(crate) async fn exported(broker: &Arc<dyn Broker>, shell: &Shell, at: (&ShardId, Position, Hash)) -> Vec<u8> {
    let reader = Reader { store: broker.store(), shell: shell.clone() };
    let export = Export::open(reader, at.0, at.1, at.2).await.expect("it is whole");
    let (to, mut pieces) = mpsc::channel(4);
    shell.spawn(export.send(to));
    let mut archive = Vec::new();
    while let Some(piece) = pieces.recv().await {
        archive.extend_from_slice(&piece.expect("the store is whole"));
    }
    archive
}

fn fold(world: &World) -> (Fold, usize) {
    let mut fold = Fold::new();
    let counted =
        world.broker.dump("ledger.0").iter().filter(|entry| matches!(fold.observe(entry), Verdict::Fenced(_))).count();
    (fold, counted)
}

async fn appends(world: &World, node: &str, id: &'static str) {
    wait_for(&world.shell, "a request to be answered", || async {
        let answer = call(&world.shell, &format!("{node}:80"), ("POST", "/append"), id, HANG_LIMIT).await.ok()?;
        (answer.status == 200).then_some(())
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn of_two_nodes_that_begin_with_different_states_one_wins_and_its_state_is_the_services() {
    let mut winners = std::collections::BTreeSet::new();
    for seed in 1..=20 {
        let world = World::new(seed, BrokerFaults::calm());
        let (a, b) = (start(&world, "edge-a").await, start(&world, "edge-b").await);
        let states: [&[&str]; 2] = [&["a1", "a2"], &["b1", "b2", "b3"]];
        let (of_a, of_b) = (aside(&world, states[0]).await, aside(&world, states[1]).await);
        world.broker.set_faults(BrokerFaults::rough());
        let (told_a, told_b) =
            tokio::join!(told(&world, "edge-a", of_a, HANG_LIMIT), told(&world, "edge-b", of_b, HANG_LIMIT));
        let (told_a, told_b) = (told_a.expect("it answers").result, told_b.expect("it answers").result);
        let (fold, fences) = fold(&world);
        let owner = fold.owner().expect("somebody began").node.to_string();
        let (won, lost, state, node) =
            if owner == "edge-a" { (told_a, told_b, states[0], &a) } else { (told_b, told_a, states[1], &b) };
        let newest = fold.checkpoints().newest().expect("it is there").manifest;
        assert_eq!((won, fences), (Ok(newest), 1), "seed {seed}");
        assert_eq!(lost, Err(BeginFailure::HasBegun), "seed {seed}");
        world.broker.set_faults(BrokerFaults::calm());
        appends(&world, &owner, "more").await;
        let wanted = [state, &["more"]].concat();
        assert_eq!(node.runner.latest().expect("it runs an instance").chain().ids(), wanted, "seed {seed}");
        winners.insert(owner);
    }
    assert_eq!(winners.len(), 2, "the seeds decide nothing");
}

#[tokio::test(start_paused = true)]
async fn a_node_that_is_killed_at_any_moment_of_beginning_leaves_a_log_that_begins_with_the_import_or_not_at_all() {
    let (mut begun_before, mut again) = (0, 0);
    for step in 0..60 {
        let world = World::new(step, BrokerFaults::calm());
        let ids = ["one", "two"];
        let node = start(&world, "edge-a").await;
        let import = aside(&world, &ids).await;
        world.broker.set_faults(BrokerFaults::rough());
        let first = told(&world, "edge-a", import, Duration::from_millis(step * 4)).await;
        drop(node);
        // The log decides, also about an append that comes late.
        world.shell.sleep(Duration::from_secs(10)).await;
        if let Some(begun) = first {
            assert!(begun.result.is_ok(), "step {step}: {:?}", begun.result);
            begun_before += 1;
        }
        world.broker.set_faults(BrokerFaults::calm());
        let has_begun = fold(&world).0.checkpoints().newest().is_some();
        let node = start(&world, "edge-a").await;
        if !has_begun {
            let begun = told(&world, "edge-a", import, HANG_LIMIT).await.expect("it answers");
            assert!(begun.result.is_ok(), "step {step}: {:?}", begun.result);
            again += 1;
        }
        appends(&world, "edge-a", "more").await;
        let chain = node.runner.latest().expect("it runs an instance").chain();
        assert_eq!(chain.ids(), ["one", "two", "more"], "step {step}");
    }
    assert!(begun_before > 0 && again > 0, "killed too late or too early: {begun_before} {again}");
}

#[tokio::test(start_paused = true)]
async fn whatever_is_refused_leaves_the_log_as_it_was() {
    let world = World::new(1, BrokerFaults::calm());
    let _node = start(&world, "edge-a").await;
    let missing = told(&world, "edge-a", Hash::of(b"nothing"), HANG_LIMIT).await.expect("it answers").result;
    assert!(matches!(missing, Err(BeginFailure::Other(_))), "{missing:?}");
    assert_eq!(fold(&world).0.position(), Position::ZERO);
    let import = aside(&world, &["one"]).await;
    let begun = told(&world, "edge-a", import, HANG_LIMIT).await.expect("it answers").result;
    let newest = fold(&world).0.checkpoints().newest().expect("it has begun").manifest;
    assert_eq!(begun, Ok(newest));
    let again = told(&world, "edge-a", import, HANG_LIMIT).await.expect("it answers").result;
    assert_eq!(again, Ok(newest), "told again, it answers again");
    let other = aside(&world, &["two"]).await;
    let other = told(&world, "edge-a", other, HANG_LIMIT).await.expect("it answers").result;
    assert_eq!(other, Err(BeginFailure::HasBegun));
    appends(&world, "edge-a", "more").await;
}
