//! Who plays in a run, and how each is started, killed and looked at.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::memory::{Faults, MemoryBroker};
use broker_adapter::shell::TaskSet;
use broker_adapter::shell::sim::SimWorld;
use migrator::{MigrationView, Migrator, MigratorHandle, NewMigration};
use rand::Rng;
use rand::rngs::StdRng;
use sidecar::Sidecar;

use crate::checker::ServiceState;
use crate::ledger::{Faults as LedgerFaults, Ledger, LedgerRunner};

/// The nodes of a run; the first one creates the service.
pub const NODES: [&str; 2] = ["edge-a", "edge-b"];
/// Where clients reach the service on them.
pub const INGRESSES: [&str; 2] = ["edge-a:80", "edge-b:80"];
/// The shard's log.
pub const LOG: &str = "ledger.0";
/// A migration that was refused, because something was away, is ordered again after this.
const ORDER_AGAIN: Duration = Duration::from_millis(300);

/// Everybody.
pub struct Stage {
    pub world: Arc<SimWorld>,
    pub broker: Arc<MemoryBroker>,
    rules: Rules,
    keys_remembered: u64,
    nodes: BTreeMap<&'static str, Node>,
    migrator: Arc<Mutex<Option<Running>>>,
    _broker_tasks: TaskSet,
}

/// A node's service: what it shall do wrong, and who runs it now.
#[derive(Clone, Default)]
pub struct Bench {
    pub faults: Arc<Mutex<LedgerFaults>>,
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
}

struct Node {
    bench: Bench,
    sidecar: Arc<Mutex<Option<(TaskSet, Sidecar)>>>,
}

struct Running {
    handle: MigratorHandle,
    _tasks: TaskSet,
}

/// Migrations under way.
pub struct Moves {
    ended: tokio::sync::oneshot::Receiver<()>,
    views: Arc<Mutex<Vec<MigrationView>>>,
    _tasks: TaskSet,
}

impl Moves {
    /// Waits for all; says whether some did not end in time.
    pub async fn wait(self, limit: Duration) -> (Vec<MigrationView>, bool) {
        let late = tokio::time::timeout(limit, self.ended).await.is_err();
        (self.views.lock().expect("nothing panics under this lock").clone(), late)
    }
}

impl Stage {
    /// Starts everybody on a calm broker.
    pub async fn build(seed: u64, rules: Rules, keys_remembered: u64) -> Stage {
        let world = SimWorld::new(seed);
        let (shell, broker_tasks) = world.process();
        let broker = MemoryBroker::new(seed, shell, Faults::calm());
        let node = || Node { bench: Bench::default(), sidecar: Arc::default() };
        let nodes = NODES.into_iter().map(|name| (name, node())).collect();
        let stage = Stage {
            world,
            broker,
            rules,
            keys_remembered,
            nodes,
            migrator: Arc::default(),
            _broker_tasks: broker_tasks,
        };
        for name in NODES {
            stage.start_sidecar(name).await;
        }
        stage.start_migrator().await;
        stage
    }

    /// Waits until the first node owns the service and the migrator knows both.
    pub async fn wait_ready(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let Some(handle) = self.handle() else { continue };
            let services = handle.services().await.unwrap_or_default();
            if services.iter().any(|service| service.owner.is_some() && service.replicas.len() == NODES.len()) {
                return;
            }
        }
    }

    pub fn bench(&self, node: &str) -> &Bench {
        &self.nodes[node].bench
    }

    /// Ends a sidecar's process, and its service with it.
    pub fn kill_sidecar(&self, node: &str) -> bool {
        self.nodes[node].sidecar.lock().expect("nothing panics under this lock").take().is_some()
    }

    /// Starts a sidecar, if it does not run.
    pub async fn start_sidecar(&self, node: &'static str) {
        if self.nodes[node].sidecar.lock().expect("nothing panics under this lock").is_some() {
            return;
        }
        let (shell, tasks) = self.world.process();
        let bench = &self.nodes[node].bench;
        let runner = Arc::new(LedgerRunner::new(shell.clone(), "127.0.0.1", bench.faults.clone()));
        *bench.runner.lock().expect("nothing panics under this lock") = Some(runner.clone());
        let runner = move |_: &sidecar::ServiceConfig| -> Arc<dyn sidecar::runner::Runner> { runner.clone() };
        let config = config(node, self.rules, self.keys_remembered);
        loop {
            match Sidecar::start(config.clone(), self.broker.connect(node), &runner, &shell).await {
                Ok(sidecar) => {
                    let mut place = self.nodes[node].sidecar.lock().expect("nothing panics under this lock");
                    *place = Some((tasks, sidecar));
                    return;
                }
                // As a supervisor would: again.
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    pub fn kill_migrator(&self) -> bool {
        self.migrator.lock().expect("nothing panics under this lock").take().is_some()
    }

    /// Starts the migrator, if it does not run.
    pub async fn start_migrator(&self) {
        if self.handle().is_some() {
            return;
        }
        let (shell, tasks) = self.world.process();
        let config = migrator_config();
        loop {
            match Migrator::start(config.clone(), self.broker.connect("migrator"), shell.clone()).await {
                Ok(handle) => {
                    let running = Running { handle, _tasks: tasks };
                    *self.migrator.lock().expect("nothing panics under this lock") = Some(running);
                    return;
                }
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    fn handle(&self) -> Option<MigratorHandle> {
        handle_of(&self.migrator)
    }

    /// Orders migrations, one after the other, each to the node that does not own.
    pub fn start_moves(&self, moves: usize, rng: &mut StdRng) -> Moves {
        let (shell, tasks) = self.world.process();
        let (sender, ended) = tokio::sync::oneshot::channel();
        let views = Arc::<Mutex<Vec<MigrationView>>>::default();
        let pauses: Vec<u64> = (0..moves).map(|_| rng.random_range(0..800)).collect();
        let cancels: Vec<Option<u64>> =
            (0..moves).map(|_| rng.random_ratio(1, 5).then(|| rng.random_range(0..300))).collect();
        let (migrator, noted) = (self.migrator.clone(), views.clone());
        shell.spawn(async move {
            for (pause, cancel) in pauses.into_iter().zip(cancels) {
                tokio::time::sleep(Duration::from_millis(pause)).await;
                let view = one_move(&migrator, cancel).await;
                noted.lock().expect("nothing panics under this lock").push(view);
            }
            // The run may be over.
            let _ = sender.send(());
        });
        Moves { ended, views, _tasks: tasks }
    }

    /// After the faults: everybody runs and is connected, and no service is told to do anything wrong.
    pub async fn repair_all(&self) {
        for name in NODES {
            *self.bench(name).faults.lock().expect("nothing panics under this lock") = LedgerFaults::default();
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

    /// What the living instances hold.
    pub fn states(&self) -> Vec<ServiceState> {
        let known = self.nodes.iter().filter_map(|(name, node)| {
            // An instance that waits for its load holds nothing yet.
            let runs =
                node.sidecar.lock().expect("nothing panics under this lock").as_ref().is_some_and(|(_, sidecar)| {
                    let views = sidecar.admin.shards.values().next();
                    views.is_some_and(|views| views.replica.borrow().state == sidecar::command::ReplicaState::Following)
                });
            let chain = node.bench.ledger().filter(|_| runs)?.chain();
            Some(ServiceState {
                replica: (*name).to_owned(),
                after: None,
                ids: chain.ids().to_vec(),
                hash: chain.value().hash.to_string(),
            })
        });
        known.collect()
    }

    /// A migration completed if and only if its own fence won.
    pub fn outcomes_that_the_log_denies(&self, migrations: &[MigrationView]) -> Vec<String> {
        use broker_adapter::fold::{Fold, Verdict};
        use broker_adapter::record::Cause;
        let mut fold = Fold::new();
        let mut handed_over = std::collections::BTreeSet::new();
        for entry in self.broker.dump(LOG) {
            if let Verdict::Fenced(fence) = fold.observe(&entry)
                && fence.cause == Cause::Handover
            {
                handed_over.extend(fence.migration);
            }
        }
        let denied = migrations.iter().filter(|view| (outcome(view) == "completed") != handed_over.contains(&view.id));
        denied
            .map(|view| format!("migration {} ended as {}, and the log says otherwise", view.id, outcome(view)))
            .collect()
    }
}

/// How a migration ended, in a word.
pub fn outcome(view: &MigrationView) -> String {
    view.outcome.map_or("running".to_owned(), |ending| {
        serde_json::to_value(ending).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    })
}

fn handle_of(migrator: &Mutex<Option<Running>>) -> Option<MigratorHandle> {
    migrator.lock().expect("nothing panics under this lock").as_ref().map(|running| running.handle.clone())
}

/// Orders one migration and waits for its end, over restarts of the migrator.
async fn one_move(migrator: &Mutex<Option<Running>>, cancel_after_ms: Option<u64>) -> MigrationView {
    let id = loop {
        if let Some(handle) = handle_of(migrator)
            && let Some(id) = order(&handle).await
        {
            break id;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    };
    if let Some(ms) = cancel_after_ms {
        tokio::time::sleep(Duration::from_millis(ms)).await;
        if let Some(handle) = handle_of(migrator) {
            // It may have ended, or the migrator may be gone.
            let _ = handle.cancel(id).await;
        }
    }
    loop {
        if let Some(handle) = handle_of(migrator)
            && let Ok(Some(view)) = handle.wait_end(id).await
        {
            return view;
        }
        tokio::time::sleep(ORDER_AGAIN).await;
    }
}

async fn order(handle: &MigratorHandle) -> Option<broker_adapter::ids::MigrationId> {
    let services = handle.services().await.ok()?;
    let service = services.first()?;
    let owner = service.owner.clone()?;
    let to = NODES.into_iter().find(|name| *name != owner.as_str())?.parse().ok()?;
    let new = NewMigration { service: service.service.clone(), shard: None, to, reason: None, strategy: None };
    handle.create(new).await.ok()
}

fn config(node: &str, rules: Rules, keys_remembered: u64) -> sidecar::Config {
    let service = serde_json::json!({
        "name": "ledger", "listen": format!("{node}:80"), "create": node == NODES[0],
        "run": ["simulated"], "ready": "/ready", "state": {"kind": "http", "path": "/segue/state"},
        "checkpoint": {"every_s": 1, "every_records": 60}, "delivery_timeout_ms": 500, "reply_timeout_ms": 20_000, "start_timeout_ms": 2_000,
        "settings": {"keys_remembered": keys_remembered, "replies_kept": 4 * keys_remembered},
    });
    let config = serde_json::json!({
        "node": node, "broker": "memory:", "admin": format!("{node}:90"), "service": [service],
    });
    let mut config: sidecar::Config = serde_json::from_value(config).expect("a good configuration");
    config.rules = rules;
    config
}

fn migrator_config() -> migrator::Config {
    let mut config = migrator::Config::new("memory:");
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
