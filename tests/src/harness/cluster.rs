//! Broker, migrator and sidecars of one test, in one temporary folder.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use broker_adapter::shell::{Shell, TaskSet};
use rustix::process::{Pid, Signal};
use tempfile::TempDir;

use super::brokers::{Broker, BrokerKind, Wants};
use super::config::migrator_toml;
use super::process::{binary, descendants, signal};
use super::{Answer, CallError, HANG_LIMIT, Hold, Load, Node, Port, Process, Recorder, Rest, SERVICE};
use super::{call, free_port, wait_for};
use crate::checker::{Evidence, Finding, Observation, ServiceState, check};
use crate::ledger::Chain;

/// What a test wants to run.
#[derive(Clone, Debug)]
pub struct Setup {
    nodes: Vec<Node>,
    hold: Option<Hold>,
    broker: BrokerKind,
    wants: Wants,
    variables: BTreeMap<String, String>,
}

/// A running system.
pub struct Cluster {
    /// The test's own shell.
    pub shell: Shell,
    /// The broker.
    pub broker: Broker,
    /// The migrator.
    pub migrator: Process,
    /// The migrator's API.
    pub rest: Rest,
    /// Where migrations stop.
    pub hold: Option<Hold>,
    variables: BTreeMap<String, String>,
    sidecars: BTreeMap<String, Sidecar>,
    migrator_port: Port,
    folder: TempDir,
    _tasks: TaskSet,
}

struct Sidecar {
    process: Process,
    admin: Port,
    listen: Port,
    node: Node,
}

/// One running instance of a service.
#[derive(Clone, Debug)]
pub struct Instance {
    /// Its process.
    pub pid: Pid,
    /// Where it listens.
    pub address: String,
}

impl Setup {
    /// `edge-a`, which begins the service, and `edge-b`.
    #[must_use]
    pub fn two_nodes() -> Setup {
        Setup::nodes(vec![Node::creating("edge-a"), Node::named("edge-b")])
    }

    /// These nodes; the first one should be the one that begins the service.
    #[must_use]
    pub fn nodes(nodes: Vec<Node>) -> Setup {
        Setup { nodes, hold: None, broker: BrokerKind::Embedded, wants: Wants::default(), variables: BTreeMap::new() }
    }

    /// On another broker than the embedded one.
    #[must_use]
    pub fn on(mut self, broker: BrokerKind) -> Setup {
        self.broker = broker;
        self
    }

    /// With a broker that is like this.
    #[must_use]
    pub fn with(mut self, wants: Wants) -> Setup {
        self.wants = wants;
        self
    }

    /// With a broker of its own, to which something is done.
    #[must_use]
    pub fn hurting_the_broker(mut self) -> Setup {
        self.wants.own = true;
        self
    }

    /// Stops migrations at a place.
    #[must_use]
    pub fn hold(mut self, hold: Hold) -> Setup {
        self.hold = Some(hold);
        self
    }

    /// With more variables in the environment of every process.
    #[must_use]
    pub fn variables(mut self, variables: BTreeMap<String, String>) -> Setup {
        self.variables = variables;
        self
    }

    /// Starts everything and waits until it is ready.
    pub async fn start(self) -> Cluster {
        let mut cluster = self.start_without_nodes().await;
        let nodes = std::mem::take(&mut cluster.1);
        let mut cluster = cluster.0;
        for node in nodes {
            let name = node.name.clone();
            cluster.add_node(node);
            cluster.ready(&name).await;
        }
        cluster.nodes_known().await;
        cluster
    }

    async fn start_without_nodes(self) -> (Cluster, Vec<Node>) {
        let (shell, tasks) = broker_adapter::shell::real::process();
        let folder = TempDir::with_prefix("segue-test-").expect("the temporary folder can be written");
        let migrator_port = free_port();
        let hold = self.hold.map(|hold| hold.in_folder(&folder.path().join("hold")));
        let mut around = environment(hold.as_ref(), None);
        around.extend(self.variables.clone());
        let broker = Broker::start(&shell, folder.path(), self.broker, self.wants, around.clone()).await;
        // As an operator would: the same place everywhere.
        let checkpoints = self.nodes.first().and_then(|node| node.checkpoints.as_deref());
        let text = migrator_toml(&migrator_port.address(), &broker.url(), checkpoints, &broker.toml());
        let migrator = start(folder.path(), "migrator", &text, around);
        let rest = Rest::new(shell.clone(), migrator_port.address());
        wait_ready(&shell, &migrator_port.address(), &migrator).await;
        let cluster = Cluster {
            shell,
            broker,
            migrator,
            rest,
            hold,
            variables: self.variables,
            sidecars: BTreeMap::new(),
            migrator_port,
            folder,
            _tasks: tasks,
        };
        (cluster, self.nodes)
    }
}

impl Cluster {
    /// Starts a sidecar; does not wait.
    pub fn add_node(&mut self, node: Node) {
        let name = node.name.clone();
        let sidecar = self.start_sidecar(node, &name);
        self.sidecars.insert(name, sidecar);
    }

    /// Starts one more sidecar under the name of a node that runs already; its process, and what keeps its ports.
    pub fn add_namesake(&mut self, node: Node) -> (Process, [Port; 2]) {
        let file = format!("{}-namesake", node.name);
        let sidecar = self.start_sidecar(node, &file);
        (sidecar.process, [sidecar.admin, sidecar.listen])
    }

    fn start_sidecar(&self, node: Node, file: &str) -> Sidecar {
        let (admin, listen) = (free_port(), free_port());
        let url = self.broker.url_of(&node.name);
        let text = node.sidecar_toml(&url, &admin.address(), &listen.address(), &self.broker.toml());
        let mut environment = environment(self.hold.as_ref(), Some(&node));
        environment.extend(self.variables.clone());
        if node.faults_once {
            let once = self.folder.path().join(format!("{file}.once"));
            environment.insert("LEDGER_ONCE".to_owned(), once.display().to_string());
        }
        let config = self.folder.path().join(format!("{file}.toml"));
        fs::write(&config, text).expect("the test folder can be written");
        let arguments = node.arguments(&config, &url, &admin.address(), &listen.address());
        let process = Process::start(self.folder.path(), file, binary("segue"), arguments, environment);
        Sidecar { process, admin, listen, node }
    }

    /// Waits until a sidecar says that it is ready.
    pub async fn ready(&self, node: &str) {
        let sidecar = self.sidecar(node);
        wait_ready(&self.shell, &sidecar.admin.address(), &sidecar.process).await;
    }

    /// Waits until the migrator says that it is ready.
    pub async fn migrator_ready(&self) {
        wait_ready(&self.shell, &self.migrator_port.address(), &self.migrator).await;
    }

    /// Waits until the migrator knows all nodes.
    pub async fn nodes_known(&self) {
        wait_for(&self.shell, "the migrator to know all nodes", || async {
            let known = self.rest.call("GET", "/v1/nodes", String::new()).await.text();
            self.sidecars.keys().all(|node| known.contains(&format!("\"{node}\""))).then_some(())
        })
        .await;
    }

    /// A node's sidecar.
    ///
    /// # Panics
    /// If there is no such node.
    pub fn process(&mut self, node: &str) -> &mut Process {
        &mut self.sidecars.get_mut(node).expect("the test started this node").process
    }

    /// What a node was started with.
    #[must_use]
    pub fn node(&self, node: &str) -> &Node {
        &self.sidecar(node).node
    }

    fn sidecar(&self, node: &str) -> &Sidecar {
        self.sidecars.get(node).expect("the test started this node")
    }

    /// Where clients reach the service on a node.
    #[must_use]
    pub fn ingress(&self, node: &str) -> String {
        self.sidecar(node).listen.address()
    }

    /// Where a sidecar's `/readyz` and `/metrics` are.
    #[must_use]
    pub fn admin(&self, node: &str) -> String {
        self.sidecar(node).admin.address()
    }

    /// The broker as the others reach it.
    #[must_use]
    pub fn broker_url(&self) -> String {
        self.broker.url()
    }

    /// Where the broker keeps its files.
    #[must_use]
    pub fn broker_folder(&self) -> PathBuf {
        self.broker.folder()
    }

    /// A temporary folder of this test.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// All that all processes wrote so far.
    #[must_use]
    pub fn logs(&self) -> String {
        let sidecars = self.sidecars.values().map(|sidecar| &sidecar.process);
        let processes: String = [&self.migrator].into_iter().chain(sidecars).map(Process::log).collect();
        self.broker.log() + &processes
    }

    /// The instances that a node's sidecar runs now, or is attached to (under the sidecar's own pid).
    #[must_use]
    pub fn instances(&self, node: &str) -> Vec<Instance> {
        let attached = self.sidecar(node).node.attached.as_ref().map(|(address, _)| address.clone());
        let attached = attached.map(|address| Instance { pid: self.sidecar(node).process.pid(), address });
        let found = descendants(self.sidecar(node).process.pid()).into_iter().filter_map(|(pid, words)| {
            // Not the launcher in front of it.
            words.first().filter(|program| program.ends_with("segue-ledger"))?;
            let place = words.iter().position(|word| word == "--listen")?;
            Some(Instance { pid, address: words.get(place + 1)?.clone() })
        });
        found.chain(attached).collect()
    }

    /// Kills the instance that a node runs (`SIGKILL`).
    ///
    /// # Panics
    /// If it runs none: then the fault of the test did not happen.
    pub fn kill_service(&self, node: &str) {
        let instances = self.instances(node);
        assert!(self.sidecar(node).node.attached.is_none(), "the test itself runs the service of {node}");
        assert!(!instances.is_empty(), "{node} runs no instance that could be killed");
        for instance in instances {
            signal(instance.pid, Signal::KILL);
        }
    }

    /// Stops the instances that a node runs (`SIGSTOP`); who they are.
    ///
    /// # Panics
    /// If it runs none: then the fault of the test did not happen.
    #[must_use]
    pub fn stop_service(&self, node: &str) -> Vec<Pid> {
        let pids: Vec<Pid> = self.instances(node).into_iter().map(|instance| instance.pid).collect();
        assert!(!pids.is_empty(), "{node} runs no instance that could be stopped");
        pids.iter().for_each(|pid| signal(*pid, Signal::STOP));
        pids
    }

    /// One request to a node's ingress.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn request(
        &self,
        node: &str,
        method_path: (&str, &str),
        body: impl Into<bytes::Bytes>,
    ) -> Result<Answer, CallError> {
        call(&self.shell, &self.ingress(node), method_path, body, HANG_LIMIT).await
    }

    /// So many requests a second, to the ingresses of these nodes in turn.
    #[must_use]
    pub fn load(&self, nodes: &[&str], rate_per_s: u32) -> Load {
        let addresses = nodes.iter().map(|node| self.ingress(node)).collect();
        Load::start(&self.shell, addresses, rate_per_s, "m")
    }

    /// Follows the service's log.
    pub async fn recorder(&self) -> Recorder {
        self.recorder_of(SERVICE).await
    }

    /// Follows the log of another service.
    pub async fn recorder_of(&self, service: &str) -> Recorder {
        let broker = self.broker.connect(&self.shell).await;
        Recorder::start(&self.shell, broker, &format!("{service}.0")).await
    }

    /// The oracle's judgement once everything is quiet: the log against the clients, and against every running instance.
    ///
    /// # Panics
    /// If the instances do not come to rest.
    pub async fn findings(&self, recorder: &Recorder, observations: Vec<Observation>) -> Vec<Finding> {
        let mut evidence = self.evidence(recorder).await;
        evidence.observations = observations;
        check(&evidence, &mut Chain::default())
    }

    /// What log and instances say once every instance has applied everything, or does not come further.
    async fn evidence(&self, recorder: &Recorder) -> Evidence {
        let give_up = self.shell.now() + HANG_LIMIT / 6;
        loop {
            let mut evidence = Evidence::from_log(&recorder.up_to_tail().await, "/append");
            evidence.states = self.states().await;
            let all = evidence.applied.len();
            let rest = !evidence.states.is_empty() && evidence.states.iter().all(|state| state.ids.len() == all);
            if rest || self.shell.now() > give_up {
                let tail = evidence.applied.last().map(|last| last.position);
                evidence.states.iter_mut().for_each(|state| state.after = tail);
                return evidence;
            }
            self.shell.sleep(super::POLL_EVERY).await;
        }
    }

    /// What a sidecar says of its conditions.
    pub async fn conditions(&self, node: &str) -> String {
        let answer = call(&self.shell, &self.admin(node), ("GET", "/readyz?verbose"), "", HANG_LIMIT).await;
        answer.map_or_else(|error| error.to_string(), |answer| answer.text())
    }

    async fn states(&self) -> Vec<ServiceState> {
        let mut states = Vec::new();
        for node in self.sidecars.keys() {
            for instance in self.instances(node) {
                let saved = call(&self.shell, &instance.address, ("GET", "/segue/state"), "", HANG_LIMIT).await;
                let Ok(chain) = saved.map_err(|_| ()).and_then(|saved| Chain::load(&saved.text()).map_err(|_| ()))
                else {
                    continue;
                };
                let hash = chain.value().hash.to_string();
                states.push(ServiceState { replica: node.clone(), after: None, ids: chain.ids().to_vec(), hash });
            }
        }
        states
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let sidecars = self.sidecars.values().map(|sidecar| &sidecar.process);
            eprintln!("{}", self.broker.tail());
            for process in [&self.migrator].into_iter().chain(sidecars) {
                eprintln!("{}", process.tail());
            }
        }
    }
}

/// Starts the migrator, named like its role.
fn start(folder: &Path, name: &str, config: &str, environment: BTreeMap<String, String>) -> Process {
    let file = folder.join(format!("{name}.toml"));
    fs::write(&file, config).expect("the test folder can be written");
    let arguments = vec![name.to_owned(), "--config".to_owned(), file.display().to_string()];
    Process::start(folder, name, binary("segue"), arguments, environment)
}

fn environment(hold: Option<&Hold>, node: Option<&Node>) -> BTreeMap<String, String> {
    // `info`, unless somebody looks for something.
    let filter = std::env::var("SEGUE_TEST_LOG").unwrap_or_else(|_| "info".to_owned());
    let mut environment = BTreeMap::from([("RUST_LOG".to_owned(), filter)]);
    environment.extend(hold.into_iter().flat_map(Hold::environment));
    if let Some(node) = node.filter(|node| !node.faults.is_empty()) {
        environment.insert("LEDGER_FAULTS".to_owned(), node.faults.clone());
    }
    environment
}

async fn wait_ready(shell: &Shell, address: &str, process: &Process) {
    wait_for(shell, &format!("{} to be ready at {address}/readyz", process.name()), || async {
        let answer = call(shell, address, ("GET", "/readyz"), "", HANG_LIMIT).await;
        answer.is_ok_and(|answer| answer.status == 200).then_some(())
    })
    .await;
}
