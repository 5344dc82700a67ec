//! Who starts and stops an instance of the service. `process` runs a program of this node; the simulation has its own.

mod process;

use async_trait::async_trait;

pub use process::ProcessRunner;

/// Starts instances of one service.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// Starts a new instance, empty, and says where it will listen. It need not be ready yet.
    async fn start(&self) -> Result<Box<dyn Instance>, RunError>;
}

/// A running instance; dropping it ends it.
#[async_trait]
pub trait Instance: Send + 'static {
    /// `HOST:PORT`.
    fn address(&self) -> &str;
    /// Whether it is the same running program still: one that ended has lost its state.
    fn is_alive(&mut self) -> bool;
    /// Ends it at once and waits until it is gone.
    async fn stop(&mut self);
}

/// A program could not be started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("cannot start {command:?}: {reason}; check `run` of the service in the sidecar's configuration")]
pub struct RunError {
    /// The program and its arguments.
    pub command: String,
    /// What the operating system says.
    pub reason: String,
}
