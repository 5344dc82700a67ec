//! Who starts and stops an instance of the service. `process` runs a program of this node, `attach` takes one that somebody
//! else runs; the simulation has its own.

mod attach;
mod data;
mod place;
mod process;

use async_trait::async_trait;

pub use attach::AttachRunner;
pub use place::Place;
pub use process::{DataParent, ProcessRunner};

/// Starts instances of one service.
#[async_trait]
pub trait Runner: Send + Sync + 'static {
    /// A new instance, empty, that does not run yet: for states that are loaded before the service starts.
    ///
    /// # Errors
    /// Why there can be none.
    async fn prepare(&self) -> Result<Box<dyn Instance>, RunError> {
        self.start().await
    }

    /// Starts a new instance, empty, and says where it will listen. It need not be ready yet.
    ///
    /// # Errors
    /// Why it cannot be started.
    async fn start(&self) -> Result<Box<dyn Instance>, RunError>;
}

/// A running instance; dropping it ends it.
#[async_trait]
pub trait Instance: Send + 'static {
    /// `HOST:PORT`, or `unix:PATH`.
    fn address(&self) -> &str;
    /// Whether it is the same running program still: one that ended has lost its state. Of an attached one nobody can tell.
    fn is_alive(&mut self) -> bool;
    /// Ends it at once and waits until it is gone; an attached one is left alone, and nothing is delivered to it before the next load.
    async fn stop(&mut self);

    /// Starts a prepared instance; does nothing to one that runs.
    ///
    /// # Errors
    /// Why it cannot be started.
    async fn run(&mut self) -> Result<(), RunError> {
        Ok(())
    }

    /// What programs that save and load its state need to know.
    fn place(&self) -> Place {
        Place::at(self.address())
    }
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
