//! `segue bench`: figures of single parts of the system, on this machine, with real processes.

mod replay;
mod target;

use std::io;

use broker_adapter::ConnectError;
use broker_adapter::log::{AppendError, ReadError};
use broker_adapter::shell::Shell;

use crate::args::BenchCommand;
use crate::demo::processes::ProcessError;

/// Why there is no figure.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// A process did not start, or ended.
    #[error(transparent)]
    Process(#[from] ProcessError),
    /// The operating system.
    #[error("folder, ports or files cannot be had: {0}")]
    System(#[from] io::Error),
    /// The broker does not answer.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The log cannot be written.
    #[error("the log of the service cannot be written: {0}")]
    Append(#[from] AppendError),
    /// The log cannot be read.
    #[error("the log of the service cannot be read: {0}")]
    Log(#[from] ReadError),
    /// Something never came.
    #[error("{0} did not come within {limit:?}; read the logs in the folder told above", limit = replay::LIMIT)]
    Late(&'static str),
    /// The target cannot do it.
    #[error("the target failed: {0}")]
    Failed(String),
}

/// Runs a benchmark and prints its figures.
///
/// # Errors
/// Why there is none.
pub async fn run(command: BenchCommand, shell: Shell) -> Result<(), BenchError> {
    match command {
        BenchCommand::Replay(arguments) => replay::run(&arguments, &shell).await,
    }
}
