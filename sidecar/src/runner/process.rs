//! Runner `process`: the service is a child process of the sidecar, on a loopback port that the runner chooses.
//!
//! The launcher (given by the binary) makes the child end with the sidecar even if that is killed. Each instance gets a folder
//! of its own, `{data}`. No instance is prepared before the one that was dropped has ended: they may share a folder.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use broker_adapter::shell::Shell;
use tokio::process::Child;
use tokio::sync::oneshot;

use super::data::DataFolder;
use super::{Instance, Place, RunError, Runner};

/// Where instances get their folders.
#[derive(Clone, Debug)]
pub struct DataParent {
    /// The folder of the folders.
    pub folder: PathBuf,
    /// What their names begin with: node and service.
    pub prefix: String,
}

/// Runs a program.
pub struct ProcessRunner {
    launcher: Vec<String>,
    command: Vec<String>,
    data: DataParent,
    shell: Shell,
    leaving: Leaving,
}

/// Tells the end of each instance that was dropped.
type Leaving = Arc<Mutex<Vec<oneshot::Receiver<()>>>>;

impl ProcessRunner {
    /// Runs `command`, with `launcher` before it, and its placeholders filled.
    #[must_use]
    pub fn new(launcher: Vec<String>, command: Vec<String>, data: DataParent, shell: Shell) -> ProcessRunner {
        ProcessRunner { launcher, command, data, shell, leaving: Leaving::default() }
    }

    async fn process(&self) -> Result<Process, RunError> {
        let failed = |reason: String| RunError { command: self.command.join(" "), reason };
        let leaving = std::mem::take(&mut *self.leaving.lock().expect("nothing panics under this lock"));
        for left in leaving {
            // The sender goes with the instance, whatever became of it.
            let _ = left.await;
        }
        let address = {
            let probe = self.shell.listen("127.0.0.1:0").await.map_err(|error| failed(error.to_string()))?;
            probe.address()
        };
        let (parent, unique) = (self.data.clone(), self.shell.random().to_string());
        let made = self.shell.blocking(move || DataFolder::make(&parent.folder, &parent.prefix, &unique)).await;
        let data = made.map_err(|error| {
            failed(format!("no folder for it can be made in {}: {error}; check `data`", self.data.folder.display()))
        })?;
        let place =
            Place { address, attached: false, data: Some(data.path().to_owned()), launcher: self.launcher.clone() };
        Ok(Process {
            child: None,
            place,
            data: Some(data),
            command: self.command.clone(),
            shell: self.shell.clone(),
            leaving: self.leaving.clone(),
        })
    }
}

#[async_trait]
impl Runner for ProcessRunner {
    async fn prepare(&self) -> Result<Box<dyn Instance>, RunError> {
        Ok(Box::new(self.process().await?))
    }

    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        let mut process = self.process().await?;
        process.run().await?;
        Ok(Box::new(process))
    }
}

struct Process {
    child: Option<Child>,
    place: Place,
    data: Option<DataFolder>,
    command: Vec<String>,
    shell: Shell,
    leaving: Leaving,
}

#[async_trait]
impl Instance for Process {
    fn address(&self) -> &str {
        &self.place.address
    }

    fn is_alive(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    async fn stop(&mut self) {
        if let Some(mut child) = self.child.take()
            && let Err(error) = child.kill().await
        {
            tracing::debug!(%error, "the service had ended already");
        }
        if let Some(data) = self.data.take() {
            self.shell.blocking(move || drop(data)).await;
        }
    }

    async fn run(&mut self) -> Result<(), RunError> {
        if self.child.is_some() {
            return Ok(());
        }
        let failed = |reason: String| RunError { command: self.command.join(" "), reason };
        let mut command = self.place.command(&self.command).ok_or_else(|| failed("the command is empty".to_owned()))?;
        let child = command.spawn().map_err(|error| failed(error.to_string()))?;
        tracing::info!(pid = child.id(), address = %self.place.address, "started the service");
        self.child = Some(child);
        Ok(())
    }

    fn place(&self) -> Place {
        self.place.clone()
    }
}

impl Drop for Process {
    /// Kills it at once; its folder goes when it has ended.
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        let data = self.data.take();
        if let Err(error) = child.start_kill() {
            tracing::debug!(%error, "the service had ended already");
        }
        let (gone, left) = oneshot::channel();
        self.leaving.lock().expect("nothing panics under this lock").push(left);
        let shell = self.shell.clone();
        self.shell.spawn(async move {
            if let Err(error) = child.wait().await {
                tracing::debug!(%error, "the end of the service is not known");
            }
            shell.blocking(move || drop(data)).await;
            drop(gone);
        });
    }
}
