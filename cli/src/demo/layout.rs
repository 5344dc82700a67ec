//! Where the demo's processes live: a temporary folder, free loopback ports, and the configuration files they read.

use std::io;
use std::path::{Path, PathBuf};

use broker_adapter::shell::Shell;
use tempfile::TempDir;

/// The service that moves.
pub const SERVICE: &str = "delay-board";

/// Its first owner, and the ingress through which all flights are sent.
pub const NODE_A: &str = "edge-a";

/// The other device.
pub const NODE_B: &str = "edge-b";

/// Below the ports that the kernel gives to outgoing connections, so that nobody takes one before its server does.
const PORTS: std::ops::Range<u16> = 20_000..32_000;

/// Ports that are tried for one server.
const PORT_ATTEMPTS: usize = 200;

/// A device of the demo.
pub struct Node {
    /// Its name.
    pub name: &'static str,
    /// Where clients reach the service.
    pub ingress: String,
    /// Where health and metrics are.
    pub admin: String,
}

/// All of it.
pub struct Layout {
    folder: TempDir,
    /// `HOST:PORT` of the broker, if the demo starts it.
    pub broker: String,
    /// Another port of such a broker.
    pub controller: String,
    broker_url: String,
    /// `HOST:PORT` of the migrator.
    pub migrator: String,
    /// The two devices.
    pub nodes: [Node; 2],
}

impl Layout {
    /// Chooses folder and ports, and writes the configuration files.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn create(state_mb: u64, shell: &Shell) -> io::Result<Layout> {
        let mut ports = Ports { next: PORTS.start, shell };
        ports.next += u16::try_from(shell.random().0 % PORTS.len() as u128).unwrap_or(0);
        let mut node = async |name| {
            let (ingress, admin) = (ports.free().await?, ports.free().await?);
            io::Result::Ok(Node { name, ingress, admin })
        };
        let nodes = [node(NODE_A).await?, node(NODE_B).await?];
        let broker = ports.free().await?;
        let mut layout = Layout {
            folder: tempfile::Builder::new().prefix("segue-demo-").tempdir()?,
            broker_url: format!("segue://{broker}"),
            broker,
            controller: ports.free().await?,
            migrator: ports.free().await?,
            nodes,
        };
        layout.write("broker", &broker_toml(&layout.broker, &layout.path("broker")))?;
        layout.use_broker(None, state_mb)?;
        Ok(layout)
    }

    /// Writes the configuration of all that use the broker: the embedded one, or the one at `url`.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn use_broker(&mut self, url: Option<String>, state_mb: u64) -> io::Result<()> {
        self.broker_url = url.unwrap_or_else(|| format!("segue://{}", self.broker));
        let program = std::env::current_exe()?;
        self.write("migrator", &migrator_toml(&self.migrator, &self.broker_url))?;
        for node in &self.nodes {
            self.write(node.name, &sidecar_toml(node, &self.broker_url, &program, state_mb))?;
        }
        Ok(())
    }

    /// The broker's URL.
    #[must_use]
    pub fn broker_url(&self) -> String {
        self.broker_url.clone()
    }

    /// Everything of this run.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A process's configuration file.
    #[must_use]
    pub fn config(&self, process: &str) -> PathBuf {
        self.path(&format!("{process}.toml"))
    }

    /// A process's log file.
    #[must_use]
    pub fn log(&self, process: &str) -> PathBuf {
        self.path(&format!("{process}.log"))
    }

    /// The device of this name.
    #[must_use]
    pub fn node(&self, name: &str) -> Option<&Node> {
        self.nodes.iter().find(|node| node.name == name)
    }

    /// Leaves the folder on disk when the program ends.
    pub fn keep(&mut self) {
        self.folder.disable_cleanup(true);
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, process: &str, text: &str) -> io::Result<()> {
        std::fs::write(self.config(process), text)
    }
}

struct Ports<'a> {
    next: u16,
    shell: &'a Shell,
}

impl Ports<'_> {
    async fn free(&mut self) -> io::Result<String> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..PORT_ATTEMPTS {
            self.next = if self.next + 1 < PORTS.end { self.next + 1 } else { PORTS.start };
            let address = format!("127.0.0.1:{}", self.next);
            match self.shell.listen(&address).await {
                Ok(_) => return Ok(address),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

fn quoted(text: impl ToString) -> toml::Value {
    toml::Value::String(text.to_string())
}

fn broker_toml(listen: &str, path: &Path) -> String {
    format!("listen = {}\npath = {}\n", quoted(listen), quoted(path.display()))
}

fn migrator_toml(listen: &str, broker: &str) -> String {
    format!("listen = {}\nbroker = {}\n", quoted(listen), quoted(broker))
}

fn sidecar_toml(node: &Node, broker: &str, program: &Path, state_mb: u64) -> String {
    let (name, admin, listen) = (quoted(node.name), quoted(&node.admin), quoted(&node.ingress));
    let (broker, program, service) = (quoted(broker), quoted(program.display()), quoted(SERVICE));
    // Only one node may begin the log: the first owner.
    let create = node.name == NODE_A;
    format!(
        "node = {name}\nclass = \"edge\"\nbroker = {broker}\nadmin = {admin}\n\n\
         [[service]]\nname = {service}\nlisten = {listen}\ncreate = {create}\n\
         run = [{program}, \"delay-board\", \"--listen\", \"{{address}}\", \"--state-mb\", \"{state_mb}\"]\n\
         ready = \"/ready\"\nstate = {{ kind = \"http\", path = \"/segue/state\" }}\nbatch = \"/segue/batch\"\n"
    )
}
