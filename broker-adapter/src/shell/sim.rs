//! A simulated world: paused time, one seed, connections through memory.
//!
//! Run it on a current-thread runtime with `start_paused`. Blocking work runs at once, because another thread would break
//! both paused time and the order of events. Connections can be cut and refused as a fault.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use rand::rngs::StdRng;
use rand::{RngCore, SeedableRng};
use tokio::sync::mpsc;

use super::gate::Gate;
use super::{Duplex, Listener, Shell, TaskSet, World};

/// The wall clock at the beginning of every simulation: 2026-01-01.
const BEGAN_WALL_MS: u64 = 1_767_225_600_000;
const PIPE_BYTES: usize = 64 << 10;
const BACKLOG_CONNECTIONS: usize = 64;

/// All that the simulated processes share.
pub struct SimWorld {
    rng: Mutex<StdRng>,
    began: tokio::time::Instant,
    ports: Mutex<BTreeMap<String, mpsc::Sender<Box<dyn Duplex>>>>,
    next_port: Mutex<u16>,
}

impl SimWorld {
    /// A world of this seed. Must be called inside the runtime.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // the paused clock of the runtime
    pub fn new(seed: u64) -> Arc<SimWorld> {
        Arc::new(SimWorld {
            rng: Mutex::new(StdRng::seed_from_u64(seed)),
            began: tokio::time::Instant::now(),
            ports: Mutex::new(BTreeMap::new()),
            next_port: Mutex::new(10_000),
        })
    }

    /// A process in this world; dropping the set is its crash.
    #[must_use]
    pub fn process(self: &Arc<Self>) -> (Shell, TaskSet) {
        let set = TaskSet::new();
        (Shell::new(self.clone(), set.tasks()), set)
    }

    /// A process that can be held and shut, too.
    #[must_use]
    pub fn gated_process(self: &Arc<Self>) -> (Shell, TaskSet, Gate) {
        let gate = Gate::default();
        let set = TaskSet::behind(gate.clone());
        (Shell::new(self.clone(), set.tasks()), set, gate)
    }

    /// Whoever listens on ports of `host` is reached there no longer: the name belongs to another machine from now on.
    pub fn give_away(&self, host: &str) {
        let is_its = |address: &str| address.split_once(':').is_some_and(|(of, _)| of == host);
        self.ports.lock().expect("nothing panics under this lock").retain(|address, _| !is_its(address));
    }
}

#[async_trait]
impl World for SimWorld {
    fn now(&self) -> Duration {
        self.began.elapsed()
    }

    fn wall_ms(&self) -> u64 {
        BEGAN_WALL_MS + u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn random(&self) -> u128 {
        let mut rng = self.rng.lock().expect("nothing panics under this lock");
        (u128::from(rng.next_u64()) << 64) | u128::from(rng.next_u64())
    }

    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        let address = match address.strip_suffix(":0") {
            Some(host) => {
                let mut port = self.next_port.lock().expect("nothing panics under this lock");
                *port += 1;
                format!("{host}:{port}")
            }
            None => address.to_owned(),
        };
        let (sender, connections) = mpsc::channel(BACKLOG_CONNECTIONS);
        let mut ports = self.ports.lock().expect("nothing panics under this lock");
        if ports.get(&address).is_some_and(|other| !other.is_closed()) {
            return Err(io::Error::new(io::ErrorKind::AddrInUse, address));
        }
        ports.insert(address.clone(), sender);
        Ok(Box::new(SimListener { connections, address }))
    }

    async fn connect(&self, address: &str) -> io::Result<Box<dyn Duplex>> {
        let port = self.ports.lock().expect("nothing panics under this lock").get(address).cloned();
        let refused = || io::Error::new(io::ErrorKind::ConnectionRefused, address.to_owned());
        let port = port.ok_or_else(refused)?;
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        port.send(Box::new(far)).await.map_err(|_| refused())?;
        Ok(Box::new(near))
    }

    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>) {
        work();
    }
}

struct SimListener {
    connections: mpsc::Receiver<Box<dyn Duplex>>,
    address: String,
}

#[async_trait]
impl Listener for SimListener {
    async fn accept(&mut self) -> io::Result<Box<dyn Duplex>> {
        match self.connections.recv().await {
            Some(connection) => Ok(connection),
            None => std::future::pending().await,
        }
    }

    fn address(&self) -> String {
        self.address.clone()
    }
}
