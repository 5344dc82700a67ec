//! Who plays in a run, and how each is started, killed, held and looked at.
//!
//! Every sidecar has a supervisor, as on any real machine: one that ends with a reason is started again, and its reason is noted.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::ids::Replica;
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::shell::gate::Gate;
use broker_adapter::shell::sim::SimWorld;
use broker_adapter::shell::{Shell, TaskSet};
use migrator::{Migrator, MigratorHandle};
use sidecar::Sidecar;
use sidecar::admin::Admin;
use sidecar::command::ReplicaState;

use super::mix::Mix;
use crate::checker::ServiceState;
use crate::ledger::{Faults as LedgerFaults, Ledger, LedgerRunner};

/// The nodes of a run, as many of them as its mix says; the first one creates the service.
pub const NODES: [&str; 5] = ["edge-a", "edge-b", "edge-c", "edge-d", "edge-e"];
/// Those that are only ingresses.
pub const GATES: [&str; 2] = ["gate-1", "gate-2"];
/// The shard's log.
pub const LOG: &str = "ledger.0";
/// A process that could not start, or ended, is started again after this.
const START_AGAIN: Duration = Duration::from_millis(50);

/// Everybody.
pub struct Stage {
    pub world: Arc<SimWorld>,
    pub broker: Arc<MemoryBroker>,
    pub migrator: Arc<Mutex<Option<Running>>>,
    rules: Rules,
    mix: Mix,
    nodes: BTreeMap<&'static str, Node>,
    /// Why sidecars ended by themselves.
    exits: Mutex<Vec<String>>,
    shell: Shell,
    _tasks: TaskSet,
}

/// A node's service: what it shall do wrong, and who runs it now.
#[derive(Clone, Default)]
pub struct Bench {
    pub faults: Arc<Mutex<LedgerFaults>>,
    /// How it is when nothing is wrong.
    usual: LedgerFaults,
    runner: Arc<Mutex<Option<Arc<LedgerRunner>>>>,
}

impl Bench {
    fn runner(&self) -> Option<Arc<LedgerRunner>> {
        self.runner.lock().expect("nothing panics under this lock").clone()
    }

    /// The instance, if it lives.
    pub fn ledger(&self) -> Option<Ledger> {
        self.runner()?.living()
    }

    /// Kills the instance; says whether there was one.
    pub fn kill(&self) -> bool {
        self.runner().is_some_and(|runner| runner.kill())
    }

    /// Changes what it shall do wrong.
    pub fn spoil(&self, how: impl FnOnce(&mut LedgerFaults)) {
        how(&mut self.faults.lock().expect("nothing panics under this lock"));
    }
}

struct Node {
    bench: Bench,
    sidecar: Mutex<Option<Process>>,
    is_gate: bool,
    /// Whether the service takes many requests at once.
    takes_batches: bool,
    /// The service that lives on without the sidecar.
    attached: Option<(Arc<LedgerRunner>, TaskSet)>,
}

impl Node {
    /// The one at this place among all.
    fn new(name: &str, place: usize, takes_batches: bool, mix: &Mix, world: &Arc<SimWorld>) -> Node {
        let is_gate = GATES.contains(&name);
        let drawn = |bits: u64| (bits >> place) & 1 == 1;
        let usual = LedgerFaults { echoes: drawn(mix.echoes), ..LedgerFaults::default() };
        let faults = Arc::new(Mutex::new(LedgerFaults { delay: mix.service_time, ..usual.clone() }));
        let attached = (drawn(mix.attached) && !is_gate).then(|| {
            let (shell, tasks) = world.process();
            (Arc::new(LedgerRunner::new(shell, name, faults.clone()).attached()), tasks)
        });
        let bench = Bench { faults, usual, runner: Arc::default() };
        Node { bench, sidecar: Mutex::default(), is_gate, takes_batches, attached }
    }
}

/// A sidecar's process.
pub struct Process {
    admin: Admin,
    pub gate: Gate,
    _tasks: TaskSet,
}

/// A migrator's process.
pub struct Running {
    pub handle: MigratorHandle,
    gate: Gate,
    _tasks: TaskSet,
}

impl Stage {
    /// Starts everybody on a calm broker.
    pub async fn build(seed: u64, rules: Rules, mix: Mix) -> Arc<Stage> {
        let world = SimWorld::new(seed);
        let (shell, tasks) = world.process();
        let broker = MemoryBroker::new(seed, shell.clone(), Faults::calm());
        broker.plant(rules);
        if let Some(bytes) = mix.record_limit_bytes {
            broker.limit_record(LOG, bytes);
        }
        let names = NODES.into_iter().take(mix.sidecars).chain(GATES.into_iter().take(mix.gates)).enumerate();
        let node = |(place, name)| (name, Node::new(name, place, ((seed / 2) >> place) & 1 == 1, &mix, &world));
        let nodes = names.map(node).collect();
        let stage = Arc::new(Stage {
            world,
            broker,
            migrator: Arc::default(),
            rules,
            mix,
            nodes,
            exits: Mutex::default(),
            shell,
            _tasks: tasks,
        });
        for name in stage.names() {
            stage.start_sidecar(name).await;
        }
        stage.start_migrator().await;
        stage
    }

    /// The nodes of this run.
    pub fn names(&self) -> Vec<&'static str> {
        self.nodes.keys().copied().collect()
    }

    /// Where clients reach the service.
    pub fn ingresses(&self) -> Vec<String> {
        self.nodes.keys().map(|name| format!("{name}:80")).collect()
    }

    /// Waits until the first node owns the service and the migrator knows all.
    pub async fn wait_ready(&self) {
        loop {
            tokio::time::sleep(START_AGAIN).await;
            let Some(handle) = self.handle() else { continue };
            let services = handle.services().await.unwrap_or_default();
            if services.iter().any(|service| service.owner.is_some() && service.replicas.len() == self.nodes.len()) {
                return;
            }
        }
    }

    pub fn bench(&self, node: &str) -> &Bench {
        &self.nodes[node].bench
    }

    /// Whether a node has no replica and can have none.
    pub fn is_gate(&self, node: &str) -> bool {
        self.nodes[node].is_gate
    }

    /// Whether some requests are larger than a record may be.
    pub fn has_large_requests(&self) -> bool {
        self.mix.large > 0.0
    }

    /// Whether a node's service takes many requests at once.
    pub fn takes_batches(&self, node: &str) -> bool {
        self.nodes[node].takes_batches
    }

    /// Whether somebody else runs a node's service.
    pub fn is_attached(&self, node: &str) -> bool {
        self.nodes[node].attached.is_some()
    }

    /// Restarts an attached service behind its sidecar's back; says whether there was one.
    pub async fn restart_unnoticed(&self, node: &str) -> bool {
        match &self.nodes[node].attached {
            Some((runner, _)) if runner.living().is_some() => runner.restart_unnoticed().await,
            _ => false,
        }
    }

    /// The node that owns, as the node that has read farthest knows it.
    pub fn owner(&self) -> Option<&'static str> {
        let tails = self.nodes.values().filter_map(|node| {
            let place = node.sidecar.lock().expect("nothing panics under this lock");
            let tail = place.as_ref()?.admin.shards.values().next()?.tail.borrow().clone();
            Some((tail.position, tail.owner?))
        });
        let (_, owner) = tails.max_by_key(|(position, _)| *position)?;
        self.nodes.keys().copied().find(|name| *name == owner.node.as_str())
    }

    /// Takes a sidecar's process away: dropping it is its end, and that of its service.
    pub fn take_sidecar(&self, node: &str) -> Option<Process> {
        self.nodes[node].sidecar.lock().expect("nothing panics under this lock").take()
    }

    /// The gate of a sidecar's process.
    pub fn gate(&self, node: &str) -> Option<Gate> {
        if node == "migrator" {
            let place = self.migrator.lock().expect("nothing panics under this lock");
            return place.as_ref().map(|running| running.gate.clone());
        }
        let place = self.nodes[node].sidecar.lock().expect("nothing panics under this lock");
        place.as_ref().map(|process| process.gate.clone())
    }

    /// Starts a sidecar, if it does not run.
    pub async fn start_sidecar(self: &Arc<Self>, node: &'static str) {
        if let Some(sidecar) = self.boot(node).await {
            let stage = self.clone();
            self.shell.spawn(async move { stage.supervise(node, sidecar).await });
        }
    }

    /// A new process of a sidecar; `None` if it runs already.
    async fn boot(&self, node: &'static str) -> Option<Sidecar> {
        while self.nodes[node].sidecar.lock().expect("nothing panics under this lock").is_none() {
            let (shell, tasks, gate) = self.world.gated_process();
            let Node { bench, attached, .. } = &self.nodes[node];
            let own = || Arc::new(LedgerRunner::new(shell.clone(), "127.0.0.1", bench.faults.clone()));
            let runner = attached.as_ref().map_or_else(own, |(runner, _)| runner.clone());
            let running = runner.clone();
            let runner = move |_: &sidecar::ServiceConfig| -> Arc<dyn sidecar::runner::Runner> { runner.clone() };
            let config = config(node, &self.nodes[node], self.rules, &self.mix);
            if let Ok(sidecar) = Sidecar::start(config, self.broker.connect(node), &runner, &shell).await {
                let mut place = self.nodes[node].sidecar.lock().expect("nothing panics under this lock");
                // Somebody else, who started it at the same time, may have been quicker.
                if place.is_some() {
                    return None;
                }
                *bench.runner.lock().expect("nothing panics under this lock") = Some(running);
                *place = Some(Process { admin: sidecar.admin.clone(), gate, _tasks: tasks });
                return Some(sidecar);
            }
            // As a supervisor would: again.
            tokio::time::sleep(START_AGAIN).await;
        }
        None
    }

    /// A sidecar that ends by itself is started again.
    async fn supervise(&self, node: &'static str, mut sidecar: Sidecar) {
        while let Some(reason) = sidecar.fatal.recv().await {
            self.exits.lock().expect("nothing panics under this lock").push(reason);
            {
                let mut place = self.nodes[node].sidecar.lock().expect("nothing panics under this lock");
                if place.as_ref().is_none_or(|process| process.admin.me != sidecar.me) {
                    return;
                }
                place.take();
            }
            tokio::time::sleep(START_AGAIN).await;
            match self.boot(node).await {
                Some(started) => sidecar = started,
                None => return,
            }
        }
    }

    /// Takes the migrator's process away: dropping it is its end.
    pub fn take_migrator(&self) -> Option<Running> {
        self.migrator.lock().expect("nothing panics under this lock").take()
    }

    /// Starts the migrator, if it does not run.
    pub async fn start_migrator(&self) {
        if self.handle().is_some() {
            return;
        }
        let (shell, tasks, gate) = self.world.gated_process();
        let config = migrator_config(self.rules);
        loop {
            match Migrator::start(config.clone(), self.broker.connect("migrator"), shell.clone()).await {
                Ok(handle) => {
                    let running = Running { handle, gate, _tasks: tasks };
                    *self.migrator.lock().expect("nothing panics under this lock") = Some(running);
                    return;
                }
                Err(_) => tokio::time::sleep(START_AGAIN).await,
            }
        }
    }

    fn handle(&self) -> Option<MigratorHandle> {
        let place = self.migrator.lock().expect("nothing panics under this lock");
        place.as_ref().map(|running| running.handle.clone())
    }

    /// After the faults: everybody runs and is connected, and no service is told to do anything wrong.
    pub async fn repair_all(self: &Arc<Self>) {
        self.broker.set_faults(Faults::calm());
        for name in self.names() {
            self.bench(name).spoil(|faults| *faults = self.bench(name).usual.clone());
            self.broker.heal(name);
            self.start_sidecar(name).await;
        }
        self.broker.heal("migrator");
        self.start_migrator().await;
    }

    /// Waits until the log does not grow any more and what was in flight has landed.
    pub async fn quiet(&self) {
        let mut before = usize::MAX;
        loop {
            let now = self.broker.dump(LOG).len();
            if now == before {
                return;
            }
            before = now;
            tokio::time::sleep(Duration::from_secs(20)).await;
        }
    }

    /// What the living instances hold; not those of replicas that know themselves that they differ.
    pub fn states(&self) -> Vec<ServiceState> {
        let known = self.nodes.iter().filter_map(|(name, node)| {
            // An instance that waits for its load holds nothing yet.
            let sound = self.view(node, |view| view.state == ReplicaState::Following && view.trouble.is_none());
            let chain = node.bench.ledger().filter(|_| sound == Some(true))?.chain();
            Some(ServiceState {
                replica: (*name).to_owned(),
                after: None,
                ids: chain.ids().to_vec(),
                hash: chain.value().hash.to_string(),
            })
        });
        known.collect()
    }

    /// Who runs on a node, and how its replica is.
    pub fn replica(&self, node: &str) -> Option<(Replica, ReplicaState)> {
        let state = self.view(&self.nodes[node], |view| view.state)?;
        let place = self.nodes[node].sidecar.lock().expect("nothing panics under this lock");
        Some((place.as_ref()?.admin.me.clone(), state))
    }

    /// What replicas complain of, with their nodes.
    pub fn troubles(&self) -> Vec<(&'static str, String)> {
        let of = |(name, node): (&&'static str, &Node)| Some((*name, self.view(node, |view| view.trouble.clone())??));
        self.nodes.iter().filter_map(of).collect()
    }

    /// Why sidecars ended by themselves.
    pub fn exits(&self) -> Vec<String> {
        self.exits.lock().expect("nothing panics under this lock").clone()
    }

    fn view<T>(&self, node: &Node, look: impl FnOnce(&sidecar::shard::ReplicaView) -> T) -> Option<T> {
        let place = node.sidecar.lock().expect("nothing panics under this lock");
        let views = place.as_ref()?.admin.shards.values().next()?;
        let found = look(&views.replica.borrow());
        Some(found)
    }
}

fn config(node: &str, of: &Node, rules: Rules, mix: &Mix) -> sidecar::Config {
    let mut service = serde_json::json!({
        "name": "ledger", "listen": format!("{node}:80"), "create": node == NODES[0],
        "run": ["simulated"], "ready": "/ready", "state": {"kind": "http", "path": "/segue/state"},
        "checkpoint": {"every_s": 1, "every_records": 60},
        "delivery_timeout_ms": 500, "reply_timeout_ms": 20_000, "start_timeout_ms": 2_000,
        "parking_limit_requests": mix.parking_limit_requests,
        "settings": {"keys_remembered": mix.keys_remembered, "replies_kept": 4 * mix.keys_remembered},
    });
    let keys = service.as_object_mut().expect("it is a table");
    if of.is_gate {
        for key in ["create", "run", "state", "checkpoint", "settings"] {
            keys.remove(key);
        }
    } else if of.takes_batches {
        keys.insert("batch".to_owned(), "/segue/batch".into());
    }
    let config = serde_json::json!({
        "node": node, "broker": "memory:", "admin": format!("{node}:90"), "service": [service],
    });
    let mut config: sidecar::Config = serde_json::from_value(config).expect("a good configuration");
    config.rules = rules;
    config
}

fn migrator_config(rules: Rules) -> migrator::Config {
    let mut config = migrator::Config::new("memory:");
    config.rules = rules;
    config.deadlines = migrator::config::Deadlines {
        prepare_ms: 5_000,
        checkpoint_ms: 5_000,
        transfer_ms: 5_000,
        restore_ms: 5_000,
        replay_ms: 5_000,
        verify_ms: 5_000,
        handover_ms: 5_000,
        after_care_ms: 3_000,
    };
    config
}
