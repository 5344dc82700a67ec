//! A real Apache Kafka (KRaft, one process) for these tests: started in a folder of its own, killed by its pid, started again.
//!
//! `tests/tools/kafka.sh` installs it. `$SEGUE_TEST_KAFKA_URL` names a server that is already there; then whatever needs to
//! kill one still starts its own.

use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

use broker_adapter::kafka::KafkaOptions;
use broker_adapter::kafka::options::Prefix;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A start on a loaded machine.
const START_LIMIT: Duration = Duration::from_secs(120);

/// A server that lives as long as this, if it is ours.
pub struct Server {
    folder: TempDir,
    address: String,
    process: Mutex<Option<Child>>,
}

/// Where `tests/tools/kafka.sh` puts the jars: `tools` in the target folder, in which this program lies too.
fn libs() -> PathBuf {
    let own = std::env::current_exe().expect("this program has a path");
    let target = own.ancestors().nth(3).expect("it lies in TARGET/PROFILE/deps");
    let libs = target.join("tools/kafka/libs");
    assert!(libs.is_dir(), "there is no Kafka in {}: run tests/tools/kafka.sh", libs.display());
    libs
}

/// A free port below the ephemeral ones, so that the server can come back on it.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 7_000).expect("it is small");
    loop {
        let port = 24_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 8_000;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

impl Server {
    pub fn start() -> Server {
        Server::start_with("")
    }

    /// With more lines in its configuration. A killed broker comes back when its last session has ended: nine seconds by
    /// default, one here.
    pub fn start_with(more: &str) -> Server {
        let folder = tempfile::tempdir().expect("a folder");
        let (port, controller) = (free_port(), free_port());
        let data = folder.path().join("data");
        let listener = if more.contains("sasl.") { "SASL_PLAINTEXT" } else { "PLAINTEXT" };
        let advertised = match more.contains("advertised.listeners=") {
            true => String::new(),
            false => format!("advertised.listeners={listener}://127.0.0.1:{port}\n"),
        };
        let config = format!(
            "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller}\n\
             listeners={listener}://127.0.0.1:{port},CONTROLLER://127.0.0.1:{controller}\n\
             {advertised}controller.listener.names=CONTROLLER\n\
             listener.security.protocol.map=CONTROLLER:PLAINTEXT,{listener}:{listener}\n\
             inter.broker.listener.name={listener}\nlog.dirs={}\n\
             offsets.topic.replication.factor=1\noffsets.topic.num.partitions=1\n\
             transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
             group.initial.rebalance.delay.ms=0\nauto.create.topics.enable=false\n\
             log.flush.start.offset.checkpoint.interval.ms=50\nlog.initial.task.delay.ms=50\n\
             broker.session.timeout.ms=1000\nbroker.heartbeat.interval.ms=200\n{more}\n",
            data.display()
        );
        fs::write(folder.path().join("server.properties"), config).expect("it can be written");
        let server = Server { folder, address: format!("127.0.0.1:{port}"), process: Mutex::new(None) };
        let mut format = server.java("format");
        format.args(["kafka.tools.StorageTool", "format", "-t", "c2VndWUtdGVzdC1rYWZrYQ", "-c", "server.properties"]);
        assert!(spawn(format).wait().expect("it ends").success(), "see {}", server.log("format").display());
        server.again();
        server
    }

    fn java(&self, log: &str) -> Command {
        let log = File::options().create(true).append(true).open(self.log(log)).expect("a log");
        // Whatever ends this process ends the server: it must not be left behind, holding what it inherited.
        let mut java = Command::new("setpriv");
        java.args(["--pdeathsig", "KILL", "java", "-Xmx384m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp"])
            .arg(libs().join("*"))
            .current_dir(self.folder.path())
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log);
        java
    }

    fn log(&self, name: &str) -> PathBuf {
        self.folder.path().join(format!("{name}.log"))
    }

    /// Starts it on what it stored, and waits until it listens.
    pub fn again(&self) {
        let mut server = self.java("server");
        server.args(["kafka.Kafka", "server.properties"]);
        let child = spawn(server);
        *self.process.lock().unwrap() = Some(child);
        let began = Instant::now();
        while TcpStream::connect(&self.address).is_err() {
            let ended = self.process.lock().unwrap().as_mut().and_then(|child| child.try_wait().ok().flatten());
            let tell = || fs::read_to_string(self.log("server")).unwrap_or_default();
            assert!(ended.is_none() && began.elapsed() < START_LIMIT, "Kafka does not start: {}", tell());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// `kill -9`.
    pub fn kill(&self) {
        if let Some(mut child) = self.process.lock().unwrap().take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    pub fn signal(&self, signal: Signal) {
        let process = self.process.lock().unwrap();
        let pid = process.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(pid).expect("a pid")).expect("a pid");
        kill_process(pid, signal).expect("it runs");
    }

    pub fn address(&self) -> String {
        self.address.clone()
    }

    pub fn url(&self) -> String {
        format!("kafka://{}", self.address())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Starts a program that ends with this process: the signal comes when the thread that started it ends, so that one lasts.
fn spawn(mut command: Command) -> Child {
    let (sender, child) = mpsc::channel();
    std::thread::spawn(move || {
        sender.send(command.spawn().expect("setpriv and java are installed")).expect("it is waited for");
        loop {
            std::thread::park();
        }
    });
    child.recv().expect("it was started")
}

/// A server that is left as it was found: that of `$SEGUE_TEST_KAFKA_URL`, or one of this test's own.
pub async fn shared() -> Arc<Server> {
    let begin = || match std::env::var("SEGUE_TEST_KAFKA_URL") {
        Ok(url) => Server {
            folder: tempfile::tempdir().expect("a folder"),
            address: url.trim_start_matches("kafka://").to_owned(),
            process: Mutex::new(None),
        },
        Err(_) => Server::start(),
    };
    Arc::new(tokio::task::spawn_blocking(begin).await.expect("it starts"))
}

/// Options whose topics nobody else has.
pub fn fresh() -> KafkaOptions {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let prefix = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
    KafkaOptions { prefix: Prefix::try_from(prefix).expect("it is a prefix"), ..KafkaOptions::default() }
}
