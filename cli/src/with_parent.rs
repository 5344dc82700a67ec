//! `segue with-parent`: a command that the kernel kills when the thread that started it ends.
//!
//! Children must not outlive a sidecar that is killed with SIGKILL, which no handler sees. The parent-death signal survives
//! `exec` but not `fork`, and is lost if the parent ends before it is set; so this process sets it, looks whether its parent is
//! still the one that started it, and then becomes the command. Linux only, as the rest of the process runner.

use std::io;
use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

use crate::args::WithParentArguments;

/// Why the command was not run.
#[derive(Debug, thiserror::Error)]
pub enum WithParentError {
    /// The kernel refused.
    #[error("the parent-death signal cannot be set: {0}")]
    Signal(io::Error),
    /// Too late.
    #[error("the process {0} that started this one has ended: {1:?} is not run")]
    Orphan(i32, String),
    /// It is not there or may not be run.
    #[error("{0:?} cannot be run: {1}; check the command's path")]
    Exec(String, io::Error),
}

/// The words before a command that make it end with the calling process.
///
/// # Errors
/// If the program's own path cannot be told.
pub fn launcher() -> io::Result<Vec<String>> {
    let program = std::env::current_exe()?.display().to_string();
    let parent = getpid().as_raw_nonzero().to_string();
    Ok(vec![program, "with-parent".to_owned(), "--parent".to_owned(), parent, "--".to_owned()])
}

/// Becomes the command; comes back only if it cannot.
pub fn run(arguments: &WithParentArguments) -> WithParentError {
    let name = arguments.command.first().map(|word| word.display().to_string()).unwrap_or_default();
    let parent_now = || getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    let parent = arguments.parent.unwrap_or_else(parent_now);
    if let Err(error) = set_parent_process_death_signal(Some(Signal::KILL)) {
        return WithParentError::Signal(error.into());
    }
    if parent_now() != parent {
        return WithParentError::Orphan(parent, name);
    }
    let Some((program, rest)) = arguments.command.split_first() else {
        return WithParentError::Exec(name, io::ErrorKind::InvalidInput.into());
    };
    WithParentError::Exec(name, Command::new(program).args(rest).exec())
}
