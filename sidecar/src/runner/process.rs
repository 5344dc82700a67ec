//! Runner `process`: the service is a child process of the sidecar, on a loopback port that the runner chooses.
//!
//! The launcher (given by the binary) makes the child end with the sidecar even if that is killed.

use std::process::Stdio;

use async_trait::async_trait;
use broker_adapter::shell::Shell;
use tokio::process::{Child, Command};

use super::{Instance, RunError, Runner};

/// What in the arguments becomes the address.
const ADDRESS: &str = "{address}";

/// Runs a program.
pub struct ProcessRunner {
    launcher: Vec<String>,
    command: Vec<String>,
    shell: Shell,
}

impl ProcessRunner {
    /// Runs `command`, with `launcher` before it, and `{address}` in its arguments replaced.
    #[must_use]
    pub fn new(launcher: Vec<String>, command: Vec<String>, shell: Shell) -> ProcessRunner {
        ProcessRunner { launcher, command, shell }
    }
}

#[async_trait]
impl Runner for ProcessRunner {
    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        let failed = |reason: String| RunError { command: self.command.join(" "), reason };
        let address = {
            let probe = self.shell.listen("127.0.0.1:0").await.map_err(|error| failed(error.to_string()))?;
            probe.address()
        };
        let words: Vec<String> = self
            .launcher
            .iter()
            .cloned()
            .chain(self.command.iter().map(|word| word.replace(ADDRESS, &address)))
            .collect();
        let Some((program, arguments)) = words.split_first() else {
            return Err(failed("the command is empty".to_owned()));
        };
        let child = Command::new(program)
            .args(arguments)
            .env("SEGUE_ADDRESS", &address)
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| failed(error.to_string()))?;
        tracing::info!(pid = child.id(), %address, "started the service");
        Ok(Box::new(Process { child, address }))
    }
}

struct Process {
    child: Child,
    address: String,
}

#[async_trait]
impl Instance for Process {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_alive(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    async fn stop(&mut self) {
        if let Err(error) = self.child.kill().await {
            tracing::debug!(%error, "the service had ended already");
        }
    }
}
