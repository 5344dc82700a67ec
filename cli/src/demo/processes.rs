//! The demo's processes: each with a log file, started by path, ended by pid, and never left behind.
//!
//! They are started through `with-parent`, so they end with the demo even if that is killed.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use tokio::process::{Child, Command};

use super::layout::Layout;
use crate::with_parent;

/// Lines of a log that are shown when its process ended too early.
const SHOWN_LINES: usize = 5;

/// Bytes of a log that are read for that.
const READ_LIMIT_BYTES: usize = 16 << 10;

/// The running processes, in the order of their start.
#[derive(Default)]
pub struct Processes {
    running: Vec<Process>,
}

struct Process {
    name: &'static str,
    log: PathBuf,
    child: Child,
}

/// A process that must run does not.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// It could not be started.
    #[error("{name} cannot be started: {reason}")]
    Start {
        /// Which one.
        name: &'static str,
        /// What the operating system says.
        reason: io::Error,
    },
    /// It ended.
    #[error("{name} ended early ({status}); its log {log} says: {tail}", log = log.display())]
    Ended {
        /// Which one.
        name: &'static str,
        /// Its exit status.
        status: String,
        /// Where to read on.
        log: PathBuf,
        /// The last lines.
        tail: String,
    },
}

impl Processes {
    /// Starts `segue COMMAND --config …`, with its output in its log.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start(&mut self, name: &'static str, command: &str, layout: &Layout) -> Result<(), ProcessError> {
        let words = std::env::current_exe().map(|program| {
            let config = layout.config(name);
            vec![program.into(), command.into(), "--config".into(), config.into()]
        });
        self.spawn(name, words, layout)
    }

    /// Starts another program, with its output in its log.
    ///
    /// # Errors
    /// What the operating system says.
    pub fn start_other(
        &mut self,
        name: &'static str,
        command: io::Result<Vec<String>>,
        layout: &Layout,
    ) -> Result<(), ProcessError> {
        self.spawn(name, command.map(|words| words.into_iter().map(OsString::from).collect()), layout)
    }

    fn spawn(
        &mut self,
        name: &'static str,
        words: io::Result<Vec<OsString>>,
        layout: &Layout,
    ) -> Result<(), ProcessError> {
        let log = layout.log(name);
        let child = words.and_then(|words| spawn(&words, &log));
        let child = child.map_err(|reason| ProcessError::Start { name, reason })?;
        self.running.push(Process { name, log, child });
        Ok(())
    }

    /// Whether all still run.
    ///
    /// # Errors
    /// The first that does not, with its last words.
    pub fn check(&mut self) -> Result<(), ProcessError> {
        for Process { name, log, child } in &mut self.running {
            if let Ok(Some(status)) = child.try_wait() {
                let (status, tail) = (status.to_string(), last_lines(log));
                return Err(ProcessError::Ended { name, status, log: log.clone(), tail });
            }
        }
        Ok(())
    }

    /// Names and process ids, for people.
    pub fn pids(&self) -> impl Iterator<Item = (&'static str, u32)> {
        self.running.iter().filter_map(|process| Some((process.name, process.child.id()?)))
    }

    /// Ends all, the last started first, and waits until they are gone.
    pub async fn end(&mut self) {
        while let Some(mut process) = self.running.pop() {
            if let Err(error) = process.child.kill().await {
                tracing::debug!(%error, process.name, "was gone already");
            }
        }
    }
}

fn spawn(words: &[OsString], log: &Path) -> io::Result<Child> {
    let launcher = with_parent::launcher()?;
    let output = std::fs::File::create(log)?;
    let mut child = Command::new(&launcher[0]);
    child.args(&launcher[1..]).args(words);
    // What the caller's environment sets for processes of their own must not reach the demo's.
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(|name| name.starts_with("SEGUE_") && name.contains("__")) {
            child.env_remove(name);
        }
    }
    child.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).kill_on_drop(true).spawn()
}

fn last_lines(log: &Path) -> String {
    let bytes = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes[bytes.len().saturating_sub(READ_LIMIT_BYTES)..]).into_owned();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(SHOWN_LINES)..].join(" | ")
}
