//! Sidecars, services and clients in one process, on the memory broker and paused time: what needs no real process.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::fold::Fold;
use broker_adapter::ids::MigrationId;
use broker_adapter::memory::{Delay, Faults as BrokerFaults, MemoryBroker};
use broker_adapter::record::Record;
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use migrator::machine::{Ending, Phase, Proof};
use migrator::{MigrationView, Migrator, MigratorHandle, NewMigration};
use segue_tests::checker::{Evidence, check};
use segue_tests::harness::{HANG_LIMIT, Load, call, wait_for};
use segue_tests::ledger::{Chain, Faults, LedgerRunner};
use serde_json::{Value, json};
use sidecar::runner::Runner;
use sidecar::{Config, ServiceConfig, Sidecar};
use tracing_subscriber::EnvFilter;

/// How long the migrator tells the nodes what is left to be taken back.
const AFTER_CARE: Duration = Duration::from_secs(10);

pub(crate) struct World {
    pub sim: Arc<SimWorld>,
    pub shell: Shell,
    pub broker: Arc<MemoryBroker>,
    _tasks: TaskSet,
}

pub(crate) struct Node {
    pub sidecar: Sidecar,
    pub runner: Arc<LedgerRunner>,
    _tasks: TaskSet,
}

impl World {
    pub fn new(seed: u64, faults: BrokerFaults) -> World {
        // A second world of one test finds it set already.
        let _ = tracing_subscriber::fmt().with_env_filter(EnvFilter::from_default_env()).with_test_writer().try_init();
        let sim = SimWorld::new(seed);
        let (shell, tasks) = sim.process();
        let broker = MemoryBroker::new(seed, shell.clone(), faults);
        World { sim, shell, broker, _tasks: tasks }
    }

    pub async fn start(&self, node: &str, create: bool, faults: Faults) -> Node {
        self.start_with(node, create, faults, json!({})).await
    }

    /// With more keys of the service's configuration.
    pub async fn start_with(&self, node: &str, create: bool, faults: Faults, more: Value) -> Node {
        self.start_sharing(node, create, Arc::new(Mutex::new(faults)), more).await
    }

    /// The same with faults that the test changes later.
    pub async fn start_sharing(&self, node: &str, create: bool, faults: Arc<Mutex<Faults>>, more: Value) -> Node {
        let (shell, tasks) = self.sim.process();
        let runner = Arc::new(LedgerRunner::new(shell.clone(), node, faults));
        self.start_running(node, create, runner, more, (shell, tasks)).await
    }

    /// The same with a runner that the test chose, and the process that it belongs to.
    pub async fn start_running(
        &self,
        node: &str,
        create: bool,
        runner: Arc<LedgerRunner>,
        more: Value,
        (shell, tasks): (Shell, TaskSet),
    ) -> Node {
        let mut service = json!({
            "name": "ledger", "listen": format!("{node}:80"), "create": create, "run": ["simulated"], "ready": "/ready",
            "state": { "kind": "http", "path": "/segue/state" }, "delivery_timeout_ms": 500,
        });
        let keys = service.as_object_mut().expect("it is a table");
        keys.extend(more.as_object().expect("it is a table").clone());
        let config = json!({ "node": node, "broker": "memory:", "admin": format!("{node}:1"), "service": [service] });
        let config: Config = serde_json::from_value(config).expect("a good configuration");
        let given: Arc<dyn Runner> = runner.clone();
        let runner_of = move |_: &ServiceConfig| given.clone();
        // As a supervisor would: again, if the broker plays a fault.
        let sidecar = wait_for(&self.shell, "the sidecar to start", || async {
            Sidecar::start(config.clone(), self.broker.connect(node), &runner_of, &shell).await.ok()
        })
        .await;
        let node = Node { sidecar, runner, _tasks: tasks };
        wait_for(&self.shell, "the sidecar to be ready", || async { node.sidecar.admin.conditions().0.then_some(()) })
            .await;
        node
    }

    /// Sends for a while, and asks the oracle.
    pub async fn serves_cleanly(&self, load: Load, owner: &Node, replies: usize) {
        load.acknowledges(replies).await;
        let observations = load.finish().await;
        assert!(observations.iter().any(|seen| seen.given.is_some()), "replies are signed");
        let mut evidence = Evidence::from_log(&self.broker.dump("ledger.0"), "/append");
        evidence.observations = observations;
        let chain = owner.runner.latest().expect("the owner runs an instance").chain();
        assert_eq!(chain.value().n, evidence.applied.len() as u64);
        assert_eq!(check(&evidence, &mut Chain::default()), []);
    }
}

#[tokio::test(start_paused = true)]
async fn two_ingresses_feed_one_owner() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start("edge-a", true, Faults::default()).await;
    let _other = world.start("edge-b", false, Faults::default()).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], 200, "m");
    world.serves_cleanly(load, &owner, 300).await;
    let read = call(&world.shell, "edge-b:80", ("GET", "/value"), "", HANG_LIMIT).await;
    assert!(read.expect("the ingress answers").json()["n"].as_u64() >= Some(300));
}

#[tokio::test(start_paused = true)]
async fn a_rough_broker_costs_nothing() {
    for seed in 1..=10 {
        let world = World::new(seed, BrokerFaults::rough());
        let owner = world.start("edge-a", true, Faults::default()).await;
        let _other = world.start("edge-b", false, Faults::default()).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], 100, "m");
        world.serves_cleanly(load, &owner, 300).await;
        assert!(world.broker.fired().values().sum::<u64>() > 0, "no fault fired under seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_that_crashes_or_hangs_once_is_reloaded() {
    let crash_before = Faults { crash_before: Some(50), ..Faults::default() };
    let crash_after = Faults { crash_after: Some(50), ..Faults::default() };
    let hang = Faults { hang_at: Some(50), ..Faults::default() };
    for faults in [crash_before, crash_after, hang] {
        let world = World::new(1, BrokerFaults::calm());
        let owner = world.start("edge-a", true, faults).await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
        world.serves_cleanly(load, &owner, 200).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_restarted_owner_fences_itself_in_and_goes_on() {
    let world = World::new(1, BrokerFaults::calm());
    let owner = world.start("edge-a", true, Faults::default()).await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 100, "m");
    load.acknowledges(100).await;
    drop(owner);
    let owner = world.start("edge-a", false, Faults::default()).await;
    world.serves_cleanly(load, &owner, 100).await;
    let fences = Evidence::from_log(&world.broker.dump("ledger.0"), "/append").fences;
    assert_eq!(fences.len(), 2, "{fences:?}");
}

/// A migrator and the set that is its process.
pub(crate) struct Orders {
    pub migrator: MigratorHandle,
    _tasks: TaskSet,
}

impl World {
    pub async fn append(&self, record: Record) {
        let link = self.broker.connect("test");
        let log = broker_adapter::Broker::log(link.as_ref(), "ledger.0").await.expect("the log is there");
        log.append(vec![record]).await.expect("the broker is calm");
    }

    pub async fn migrator(&self) -> Orders {
        let (shell, tasks) = self.sim.process();
        let broker = self.broker.connect("migrator");
        let migrator = Migrator::start(migrator::Config::new("memory:"), broker, shell).await.expect("it starts");
        Orders { migrator, _tasks: tasks }
    }
}

/// An order as a test begins with.
pub fn order(to: &str) -> NewMigration {
    NewMigration::new("ledger".parse().expect("a good name"), to.parse().expect("a good name"))
}

impl Orders {
    /// Begins a migration, as soon as the nodes are known.
    pub async fn begin(&self, shell: &Shell, to: &str) -> MigrationId {
        self.order(shell, order(to)).await
    }

    /// Begins any migration, as soon as the nodes are known.
    pub async fn order(&self, shell: &Shell, order: NewMigration) -> MigrationId {
        wait_for(shell, "the order to be accepted", || async { self.migrator.create(order.clone()).await.ok() }).await
    }

    pub async fn end(&self, shell: &Shell, id: MigrationId) -> MigrationView {
        let ended = shell.within(10 * HANG_LIMIT, self.migrator.wait_end(id)).await;
        ended.expect("a migration ends").expect("the migrator runs").expect("the migration is known")
    }
}

/// Two nodes of one service, a migrator, and clients at both that were answered: what most tests of migrations begin with.
pub(crate) struct Pair {
    pub world: World,
    pub a: Node,
    pub b: Node,
    pub orders: Orders,
    pub load: Load,
}

/// How a [`Pair`] is.
pub(crate) struct With {
    pub seed: u64,
    pub broker: BrokerFaults,
    pub faults_a: Faults,
    pub faults_b: Faults,
    /// More keys of the service's configuration, on both nodes.
    pub more: Value,
    pub rate_per_s: u32,
}

impl With {
    /// Good services on a calm broker.
    pub fn calm(seed: u64) -> With {
        let (faults_a, faults_b) = (Faults::default(), Faults::default());
        With { seed, broker: BrokerFaults::calm(), faults_a, faults_b, more: json!({}), rate_per_s: 100 }
    }

    /// The same on a rough one.
    pub fn rough(seed: u64) -> With {
        With { broker: BrokerFaults::rough(), ..With::calm(seed) }
    }

    /// With these faults on both nodes.
    pub fn faults(self, faults: &Faults) -> With {
        With { faults_a: faults.clone(), faults_b: faults.clone(), ..self }
    }

    pub async fn start(self) -> Pair {
        let world = World::new(self.seed, self.broker);
        let a = world.start_with("edge-a", true, self.faults_a, self.more.clone()).await;
        let b = world.start_with("edge-b", false, self.faults_b, self.more).await;
        let orders = world.migrator().await;
        let load = Load::start(&world.shell, vec!["edge-a:80".into(), "edge-b:80".into()], self.rate_per_s, "m");
        load.acknowledges(20).await;
        Pair { world, a, b, orders, load }
    }
}

#[tokio::test(start_paused = true)]
async fn a_service_moves_there_and_back_on_a_rough_broker() {
    for seed in 1..=5 {
        let Pair { world, a, b: _b, orders, load } = With::rough(seed).start().await;
        for to in ["edge-b", "edge-a"] {
            let id = orders.begin(&world.shell, to).await;
            let ended = orders.end(&world.shell, id).await;
            assert_eq!(ended.outcome, Some(Ending::Completed), "seed {seed}: {ended:?}");
            assert_eq!(ended.proof, Some(Proof::State), "seed {seed}: {ended:?}");
        }
        world.serves_cleanly(load, &a, 100).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_migration_leaves_no_pin_behind_whatever_is_lost() {
    for seed in 1..=20 {
        let world = World::new(seed, BrokerFaults::rough());
        let _a = world.start("edge-a", true, Faults::default()).await;
        let _b = world.start("edge-b", false, Faults::default()).await;
        let orders = world.migrator().await;
        let id = orders.begin(&world.shell, "edge-b").await;
        let ended = orders.end(&world.shell, id).await;
        assert_eq!(ended.outcome, Some(Ending::Completed), "seed {seed}: {ended:?}");
        world.shell.sleep(AFTER_CARE).await;
        let mut fold = Fold::new();
        let mut pins = 0;
        for entry in world.broker.dump("ledger.0") {
            fold.observe(&entry);
            pins += usize::from(matches!(entry.record, Record::Pin(_)));
        }
        assert!(pins >= 2, "seed {seed}: a pin was taken and released");
        assert_eq!(fold.checkpoints().pins(), [], "seed {seed}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_process_that_crashes_at_any_moment_of_a_migration_costs_nothing() {
    for (victim, after_ms) in ["edge-a", "edge-b", "migrator"]
        .into_iter()
        .flat_map(|victim| [1, 5, 10, 20, 50, 100, 200, 400].map(|after_ms| (victim, after_ms)))
    {
        let Pair { world, a, b, orders, load } = With::rough(after_ms).start().await;
        let (mut a, mut b, mut orders) = (Some(a), Some(b), Some(orders));
        let id = orders.as_ref().expect("it runs").begin(&world.shell, "edge-b").await;
        world.shell.sleep(Duration::from_millis(after_ms)).await;
        match victim {
            "edge-a" => {
                drop(a.take());
                a = Some(world.start("edge-a", true, Faults::default()).await);
            }
            "edge-b" => {
                drop(b.take());
                b = Some(world.start("edge-b", false, Faults::default()).await);
            }
            _ => {
                drop(orders.take());
                orders = Some(world.migrator().await);
            }
        }
        let ended = orders.as_ref().expect("it runs").end(&world.shell, id).await;
        let fences = Evidence::from_log(&world.broker.dump("ledger.0"), "/append").fences;
        let owner = fences.last().expect("somebody owns").owner.node.to_string();
        println!("{victim} after {after_ms} ms: {:?}, {owner}", ended.outcome);
        let moved = ended.outcome == Some(Ending::Completed);
        assert_eq!(owner == "edge-b", moved, "{victim} after {after_ms} ms: {ended:?}");
        let owner = if moved { b } else { a };
        world.serves_cleanly(load, &owner.expect("it runs"), 50).await;
    }
}

/// Found by the simulation: the fence won, and nobody answered.
#[tokio::test(start_paused = true)]
async fn a_target_whose_service_dies_with_its_fence_in_flight_serves_when_the_fence_wins() {
    let world = World::new(1, BrokerFaults::calm());
    let _a = world.start("edge-a", true, Faults::default()).await;
    let b = world.start("edge-b", false, Faults::default()).await;
    let orders = world.migrator().await;
    let load = Load::start(&world.shell, vec!["edge-a:80".into()], 20, "m");
    load.acknowledges(20).await;
    let in_flight = Duration::from_millis(250);
    world
        .broker
        .set_faults(BrokerFaults { append_delay: Delay { min: in_flight, max: in_flight }, ..BrokerFaults::calm() });
    let id = orders.begin(&world.shell, "edge-b").await;
    wait_for(&world.shell, "the handover", || async {
        let view = orders.migrator.get(id).await.expect("the migrator runs").expect("the migration is known");
        (view.phase == Phase::Handover).then_some(())
    })
    .await;
    world.shell.sleep(in_flight / 3).await;
    assert!(b.runner.kill(), "the target runs a service");
    let ended = orders.end(&world.shell, id).await;
    assert_eq!(ended.outcome, Some(Ending::Completed), "{ended:?}");
    world.broker.set_faults(BrokerFaults::calm());
    world.serves_cleanly(load, &b, 50).await;
}
