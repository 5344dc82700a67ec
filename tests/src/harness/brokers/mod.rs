//! The broker of one cluster of processes: the embedded one, NATS or Kafka, one server or three, with what can be done to it.
//!
//! ```text
//!  BrokerKind + Wants ──start──▶ Broker ─┬─ Server  a process with its files: kill, pause, restart, copy, rewind
//!                                        ├─ Proxy   between chosen nodes and a single server: lost acknowledgements, slow readers
//!                                        └─ Admin   leaders, deleted logs, a log made full: what operators (and accidents) do
//! ```
//! Servers come back on the same ports and files. `SEGUE_TEST_NATS_URL` and `SEGUE_TEST_KAFKA_URL` name servers that are there
//! already: used, under names of their own, by tests that do nothing to the server.

mod admin;
mod guards;
mod kafka;
mod nats;
mod proxy;

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use broker_adapter::shell::Shell;
use broker_adapter::{BrokerOptions, connect_with};
use rustix::process::Pid;

use super::config::broker_toml;
use super::process::binary;
use super::{Port, Process, free_port, wait_for};

pub use guards::{Guards, TOKEN};
pub use proxy::Proxy;

/// Which broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum BrokerKind {
    /// `segue broker`.
    #[default]
    Embedded,
    /// One NATS server that syncs before it acknowledges.
    Nats,
    /// Three, every log on all of them.
    NatsCluster,
    /// One Kafka server.
    Kafka,
    /// Three, every log on all of them, two of which must have a record.
    KafkaCluster,
}

/// What a test wants of its broker.
#[derive(Clone, Debug, Default)]
pub struct Wants {
    /// Nodes that reach it through a proxy (a single server only).
    pub proxied: Vec<String>,
    /// Whether users have passwords; on the embedded broker a token, and TLS.
    pub passwords: bool,
    /// A server of its own, because something is done to it.
    pub own: bool,
}

/// A running broker.
pub struct Broker {
    kind: BrokerKind,
    servers: Vec<Server>,
    /// Between the proxied nodes and the server.
    pub proxy: Option<Proxy>,
    /// Who may come in to the embedded one.
    pub guards: Option<Guards>,
    wants: Wants,
    /// Somebody else's server, with our name behind it.
    given: Option<String>,
    folder: PathBuf,
}

/// One server.
struct Server {
    process: Process,
    /// Its ports stay ours while it is down.
    ports: Ports,
    folder: PathBuf,
}

/// The ports of one server.
struct Ports {
    client: Port,
    /// The one that a proxy forwards to.
    proxied: Port,
    /// Embedded: admin; NATS: monitoring; Kafka: controller.
    second: Port,
    /// NATS: routes.
    third: Port,
}

impl BrokerKind {
    /// All.
    pub const ALL: [BrokerKind; 5] =
        [BrokerKind::Embedded, BrokerKind::Nats, BrokerKind::NatsCluster, BrokerKind::Kafka, BrokerKind::KafkaCluster];

    /// How many servers it has.
    #[must_use]
    pub fn servers(self) -> usize {
        if matches!(self, BrokerKind::NatsCluster | BrokerKind::KafkaCluster) { 3 } else { 1 }
    }

    /// NATS, one or several.
    #[must_use]
    pub fn is_nats(self) -> bool {
        matches!(self, BrokerKind::Nats | BrokerKind::NatsCluster)
    }

    /// Kafka, one or several.
    #[must_use]
    pub fn is_kafka(self) -> bool {
        matches!(self, BrokerKind::Kafka | BrokerKind::KafkaCluster)
    }
}

/// `nats`, `kafka-cluster`, …: in the names of cells.
impl fmt::Display for BrokerKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BrokerKind::Embedded => "embedded",
            BrokerKind::Nats => "nats",
            BrokerKind::NatsCluster => "nats-cluster",
            BrokerKind::Kafka => "kafka",
            BrokerKind::KafkaCluster => "kafka-cluster",
        })
    }
}

impl Ports {
    fn new() -> Ports {
        Ports { client: free_port(), proxied: free_port(), second: free_port(), third: free_port() }
    }
}

impl Broker {
    /// Starts it in `FOLDER` and waits until clients can use it.
    pub async fn start(
        shell: &Shell,
        folder: &Path,
        kind: BrokerKind,
        wants: Wants,
        environment: BTreeMap<String, String>,
    ) -> Broker {
        let given = given(kind, &wants, shell);
        let folder = folder.to_owned();
        let guards = (kind == BrokerKind::Embedded && wants.passwords).then(|| Guards::create(&folder));
        let mut broker = Broker { kind, servers: Vec::new(), proxy: None, guards, wants, given, folder };
        if broker.given.is_none() {
            broker.start_servers(environment);
        }
        if !broker.wants.proxied.is_empty() {
            let server = broker.servers.first().expect("a proxied server is our own");
            let ports = &server.ports;
            let behind = if kind.is_kafka() { &ports.proxied } else { &ports.client };
            broker.proxy = Some(Proxy::start(shell, kind, &behind.address()).await);
            if kind.is_kafka() {
                // Its configuration names the proxy.
                broker.launch_kafka(0);
            }
        }
        broker.ready(shell).await;
        broker
    }

    fn start_servers(&mut self, environment: BTreeMap<String, String>) {
        let ports: Vec<Ports> = (0..self.kind.servers()).map(|_| Ports::new()).collect();
        for (at, own) in ports.into_iter().enumerate() {
            let folder = self.folder.join(if at == 0 { "broker".to_owned() } else { format!("broker-{at}") });
            let name = if at == 0 { "broker".to_owned() } else { format!("broker-{at}") };
            let process = Process::prepare(&self.folder, &name, environment.clone());
            self.servers.push(Server { process, ports: own, folder });
        }
        for at in 0..self.servers.len() {
            match self.kind {
                BrokerKind::Embedded => {
                    let server = &mut self.servers[at];
                    let file = self.folder.join("broker.toml");
                    let (listen, admin) = (server.ports.client.address(), server.ports.second.address());
                    let guards = self.guards.as_ref().map(Guards::server_toml).unwrap_or_default();
                    fs::write(&file, broker_toml(&listen, &server.folder, &admin) + &guards)
                        .expect("the test folder can be written");
                    let words = ["broker", "--config", &file.display().to_string()].map(str::to_owned);
                    server.process.run(binary("segue"), words.to_vec());
                }
                kind if kind.is_nats() => {
                    self.write_nats(at, nats::PASSWORD);
                    let (program, words) = nats::command(&self.servers[at].folder);
                    self.servers[at].process.run(program, words);
                }
                // It is told its proxy first.
                _ if !self.wants.proxied.is_empty() => {}
                _ => self.launch_kafka(at),
            }
        }
    }

    /// Waits until a client can use it.
    pub async fn ready(&self, shell: &Shell) {
        if self.kind == BrokerKind::Embedded {
            let address = self.servers[0].ports.client.address();
            wait_for(shell, "the broker's port", || async { shell.connect(&address).await.ok() }).await;
            return;
        }
        let (url, options) = (self.url(), self.options());
        wait_for(shell, &format!("{} to be ready", self.kind), || async {
            connect_with(&url, &options, shell).await.ok()
        })
        .await;
    }

    /// Which it is.
    #[must_use]
    pub fn kind(&self) -> BrokerKind {
        self.kind
    }

    /// What everybody but the proxied nodes is told.
    #[must_use]
    pub fn url(&self) -> String {
        if let Some(given) = &self.given {
            return given.clone();
        }
        let all: Vec<String> = self.servers.iter().map(|server| server.ports.client.address()).collect();
        self.url_at(&all.join(","))
    }

    /// What a node is told.
    #[must_use]
    pub fn url_of(&self, node: &str) -> String {
        match &self.proxy {
            Some(proxy) if self.wants.proxied.iter().any(|proxied| proxied == node) => self.url_at(proxy.address()),
            _ => self.url(),
        }
    }

    fn url_at(&self, addresses: &str) -> String {
        match self.kind {
            BrokerKind::Embedded if self.guards.is_some() => format!("segues://{addresses}"),
            BrokerKind::Embedded => format!("segue://{addresses}"),
            BrokerKind::Nats | BrokerKind::NatsCluster => match self.wants.passwords {
                true => format!("nats://{}:{}@{addresses}", nats::USER, nats::PASSWORD),
                false => format!("nats://{addresses}"),
            },
            BrokerKind::Kafka | BrokerKind::KafkaCluster => format!("kafka://{addresses}"),
        }
    }

    /// The lines of a configuration that belong to the URL; they stand at the end of a file.
    #[must_use]
    pub fn toml(&self) -> String {
        match self.kind {
            BrokerKind::Embedded => self.guards.as_ref().map(Guards::client_toml).unwrap_or_default(),
            BrokerKind::NatsCluster => "[nats]\nreplicas = 3\n".to_owned(),
            BrokerKind::KafkaCluster => "[kafka]\nreplicas = 3\nmin_insync_replicas = 2\n".to_owned(),
            BrokerKind::Kafka if self.wants.passwords => {
                let lines = kafka::login().map(|(name, value)| format!("{name:?} = {value:?}\n"));
                format!("[kafka.properties]\n{}", lines.concat())
            }
            _ => String::new(),
        }
    }

    /// The same for the test's own connections.
    #[must_use]
    pub fn options(&self) -> BrokerOptions {
        let segue = self.guards.as_ref().map(Guards::options).unwrap_or_default();
        let mut options = BrokerOptions { segue, ..BrokerOptions::default() };
        if self.kind.servers() > 1 {
            options.nats.replicas = Some(3);
            options.kafka.replicas = 3.try_into().expect("three is a number of copies");
        }
        if self.kind.is_kafka() && self.wants.passwords {
            let login = kafka::login().map(|(name, value)| (name.to_owned(), value.to_owned()));
            options.kafka.properties = BTreeMap::from(login).try_into().expect("they may be set");
        }
        options
    }

    /// Where the embedded one answers `/readyz` and `/metrics`.
    #[must_use]
    pub fn admin(&self) -> String {
        assert_eq!(self.kind, BrokerKind::Embedded, "only ours has one");
        self.server(0).ports.second.address()
    }

    /// A connection of the test's own.
    ///
    /// # Panics
    /// If there is none.
    pub async fn connect(&self, shell: &Shell) -> Arc<dyn broker_adapter::Broker> {
        wait_for(shell, "a connection to the broker", || async {
            connect_with(&self.url(), &self.options(), shell).await.ok()
        })
        .await
    }

    /// Where the first server keeps its files.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.server(0).folder.clone()
    }

    fn server(&self, at: usize) -> &Server {
        self.servers.get(at).expect("the broker was started by this test: set Wants::own")
    }

    fn server_mut(&mut self, at: usize) -> &mut Server {
        self.servers.get_mut(at).expect("the broker was started by this test: set Wants::own")
    }

    /// The pids of all its servers.
    #[must_use]
    pub fn pids(&self) -> Vec<Pid> {
        self.servers.iter().map(|server| server.process.pid()).collect()
    }

    /// The pid of one server.
    #[must_use]
    pub fn pid(&self, at: usize) -> Pid {
        self.server(at).process.pid()
    }

    /// Kills all its servers (`SIGKILL`).
    pub fn kill(&mut self) {
        assert!(!self.servers.is_empty(), "the broker was started by this test: set Wants::own");
        self.servers.iter_mut().for_each(|server| server.process.kill());
    }

    /// Starts what was killed, on the same ports and files; does not wait.
    pub fn restart(&mut self) {
        self.servers.iter_mut().for_each(|server| server.process.restart());
    }

    /// Stops all its servers where they stand (`SIGSTOP`).
    pub fn pause(&self) {
        assert!(!self.servers.is_empty(), "the broker was started by this test: set Wants::own");
        self.servers.iter().for_each(|server| server.process.pause());
    }

    /// Kills one of its servers.
    pub fn kill_one(&mut self, at: usize) {
        self.server_mut(at).process.kill();
    }

    /// Starts one again.
    pub fn restart_one(&mut self, at: usize) {
        self.server_mut(at).process.restart();
    }

    /// Stops one of its servers where it stands.
    pub fn pause_one(&self, at: usize) {
        self.server(at).process.pause();
    }

    /// Lets it go on.
    pub fn resume_one(&self, at: usize) {
        self.server(at).process.resume();
    }

    /// Copies the files of a single server that was killed.
    pub fn copy_files(&self, to: &Path) {
        copy(&self.store(), to);
    }

    /// Puts an older copy in the place of its files; it was killed.
    pub fn rewind_files(&self, from: &Path) {
        fs::remove_dir_all(self.store()).expect("it can be removed");
        copy(from, &self.store());
    }

    fn store(&self) -> PathBuf {
        let folder = &self.server(0).folder;
        match self.kind {
            BrokerKind::Embedded => folder.clone(),
            _ => folder.join("store"),
        }
    }

    /// All that its servers wrote so far.
    #[must_use]
    pub fn log(&self) -> String {
        self.servers.iter().map(|server| server.process.log()).collect()
    }

    /// The ends of it.
    #[must_use]
    pub fn tail(&self) -> String {
        let tails: Vec<String> = self.servers.iter().map(|server| server.process.tail()).collect();
        tails.join("\n")
    }
}

/// The URL of a server that is there already, if the test does nothing to it.
fn given(kind: BrokerKind, wants: &Wants, shell: &Shell) -> Option<String> {
    let variable = match kind {
        BrokerKind::Nats => "SEGUE_TEST_NATS_URL",
        BrokerKind::Kafka => "SEGUE_TEST_KAFKA_URL",
        _ => return None,
    };
    if wants.own || wants.passwords || !wants.proxied.is_empty() {
        return None;
    }
    let url = std::env::var(variable).ok()?;
    Some(format!("{}/segue-test-{:08x}", url.trim_end_matches('/'), shell.random().0 & 0xffff_ffff))
}

/// A folder with all that is below it.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a folder can be made");
    for entry in fs::read_dir(from).expect("a folder can be read") {
        let entry = entry.expect("an entry can be read");
        let target = to.join(entry.file_name());
        match entry.file_type().expect("a type").is_dir() {
            true => copy(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).expect("a file can be copied")),
        }
    }
}
