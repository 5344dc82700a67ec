//! The seams of the system (design section 6): time, randomness, sockets, blocking work and spawning are handed in.
//!
//! A [`Shell`] is what a process gets of its world. [`real`] is the one module that touches the operating system;
//! [`sim`] is a world of its own, run by one seed under tokio's paused clock. Every task belongs to a [`TaskSet`]:
//! dropping the set is a crash of the process, at whatever await its tasks stand.

pub mod gate;
pub mod real;
pub mod sim;
mod tasks;

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use tokio::io::{AsyncRead, AsyncWrite};

pub use tasks::{TaskSet, Tasks};

use crate::ids::Id128;

/// A connection's two directions.
pub trait Duplex: AsyncRead + AsyncWrite + Unpin + Send + 'static {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send + 'static> Duplex for T {}

/// An open port.
#[async_trait]
pub trait Listener: Send + 'static {
    /// The next connection.
    async fn accept(&mut self) -> io::Result<Box<dyn Duplex>>;
    /// Where it listens, as `HOST:PORT`; tells the port if 0 was asked for.
    fn address(&self) -> String;
}

/// What a process can ask of the world around it.
#[async_trait]
pub trait World: Send + Sync + 'static {
    /// Time since some moment before this process began; never goes back.
    fn now(&self) -> Duration;
    /// Milliseconds since the Unix epoch, as far as this machine knows; may jump.
    fn wall_ms(&self) -> u64;
    /// 128 random bits.
    fn random(&self) -> u128;
    /// Opens a port at `HOST:PORT`.
    async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>>;
    /// Connects to `HOST:PORT`, or to the Unix socket `unix:PATH` where the world has such.
    async fn connect(&self, address: &str) -> io::Result<Box<dyn Duplex>>;
    /// Runs work that blocks or computes for long, off the tasks.
    fn run_blocking(&self, work: Box<dyn FnOnce() + Send>);
}

/// A process's part of its world: cheap to clone, handed to everything that does I/O.
#[derive(Clone)]
pub struct Shell {
    world: Arc<dyn World>,
    tasks: Tasks,
}

impl Shell {
    /// A process in `world` whose tasks belong to `tasks`.
    #[must_use]
    pub fn new(world: Arc<dyn World>, tasks: Tasks) -> Shell {
        Shell { world, tasks }
    }

    /// The same world, with tasks that belong to a part of this process: see [`Tasks::part`].
    #[must_use]
    pub fn part(&self) -> (Shell, TaskSet) {
        let set = self.tasks.part();
        (Shell { world: self.world.clone(), tasks: set.tasks() }, set)
    }

    /// Time since some moment before this process began; never goes back.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.world.now()
    }

    /// Milliseconds since the Unix epoch, as far as this machine knows; may jump. Never decides anything.
    #[must_use]
    pub fn wall_ms(&self) -> u64 {
        self.world.wall_ms()
    }

    /// 128 random bits.
    #[must_use]
    pub fn random(&self) -> Id128 {
        Id128(self.world.random())
    }

    /// Waits.
    pub async fn sleep(&self, how_long: Duration) {
        tokio::time::sleep(how_long).await;
    }

    /// Waits until [`Shell::now`] shows `when`; returns at once if it has passed. Safe to drop and call again.
    pub async fn sleep_until(&self, when: Duration) {
        let left = when.saturating_sub(self.now());
        if !left.is_zero() {
            tokio::time::sleep(left).await;
        }
    }

    /// The result, or `None` after `limit`.
    pub async fn within<T>(&self, limit: Duration, what: impl Future<Output = T>) -> Option<T> {
        tokio::time::timeout(limit, what).await.ok()
    }

    /// Opens a port at `HOST:PORT`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn listen(&self, address: &str) -> io::Result<Box<dyn Listener>> {
        self.world.listen(address).await
    }

    /// Connects to `HOST:PORT`.
    ///
    /// # Errors
    /// What the operating system says.
    pub async fn connect(&self, address: &str) -> io::Result<Box<dyn Duplex>> {
        self.world.connect(address).await
    }

    /// Starts a task of this process. It ends with the process; nobody waits for it.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Runs work that blocks or computes for long, off the tasks, and gives its result.
    ///
    /// # Panics
    /// If the work panics.
    pub async fn blocking<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (done, result) = tokio::sync::oneshot::channel();
        self.world.run_blocking(Box::new(move || {
            // Nobody may wait any more; then the result goes nowhere.
            let _ = done.send(work());
        }));
        result.await.expect("blocking work panicked")
    }
}
