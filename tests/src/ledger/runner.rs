//! Runs ledgers inside the program: the sidecar's runner for the simulation.
//!
//! Each start is a new, empty instance with tasks of its own; stopping, dropping or crashing it drops those tasks. An attached
//! ledger is one that somebody else runs: it stays when the sidecar goes, and may restart, empty, without telling anybody.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use broker_adapter::shell::{Shell, TaskSet};
use sidecar::runner::{Instance, Place, RunError, Runner};

use super::{Faults, Ledger};

/// Starts ledgers that share faults, so that one that fires once does not fire again in the next instance.
pub struct LedgerRunner {
    shell: Shell,
    host: String,
    faults: Arc<Mutex<Faults>>,
    current: Arc<Mutex<Option<(Ledger, Life)>>>,
    attached: Option<String>,
}

type Life = Arc<Mutex<Option<TaskSet>>>;

struct Running {
    address: String,
    tasks: Life,
    attached: bool,
}

/// A port is free a moment after its listener's task was ended.
const PORT_WAIT: Duration = Duration::from_millis(1);

impl LedgerRunner {
    /// Instances on ports of `host`, as parts of the shell's process.
    #[must_use]
    pub fn new(shell: Shell, host: &str, faults: Arc<Mutex<Faults>>) -> LedgerRunner {
        LedgerRunner { shell, host: host.to_owned(), faults, current: Arc::default(), attached: None }
    }

    /// One ledger at port 8080 of the host, which the sidecar attaches to. The shell must not be the sidecar's.
    #[must_use]
    pub fn attached(self) -> LedgerRunner {
        LedgerRunner { attached: Some(format!("{}:8080", self.host)), ..self }
    }

    /// Ends the ledger and starts an empty one at the same port, behind the sidecar's back; says whether one lived.
    ///
    /// # Panics
    /// If the runner's process has ended.
    pub async fn restart_unnoticed(&self) -> bool {
        let lived = self.kill();
        let address = self.attached.clone().expect("only an attached ledger restarts behind anybody's back");
        while self.run_at(&address).await.is_err() {
            self.shell.sleep(PORT_WAIT).await;
        }
        lived
    }

    async fn run_at(&self, address: &str) -> std::io::Result<(String, Life)> {
        let (shell, tasks) = self.shell.part();
        let tasks = Arc::new(Mutex::new(Some(tasks)));
        let crashed = tasks.clone();
        let crash = Arc::new(move || drop(crashed.lock().expect("nothing panics under this lock").take()));
        let ledger = Ledger::new(shell, self.faults.clone(), crash);
        let address = ledger.serve(address).await?;
        *self.current.lock().expect("nothing panics under this lock") = Some((ledger, tasks.clone()));
        Ok((address, tasks))
    }

    /// The instance that was started last, if any.
    #[must_use]
    pub fn latest(&self) -> Option<Ledger> {
        self.current.lock().expect("nothing panics under this lock").as_ref().map(|(ledger, _)| ledger.clone())
    }

    /// The instance that was started last, if it lives.
    #[must_use]
    pub fn living(&self) -> Option<Ledger> {
        let current = self.current.lock().expect("nothing panics under this lock");
        let (ledger, life) = current.as_ref()?;
        let lives = life.lock().expect("nothing panics under this lock").as_ref().is_some_and(TaskSet::is_running);
        lives.then(|| ledger.clone())
    }

    /// From now on, all instances misbehave so.
    pub fn misbehave(&self, faults: Faults) {
        *self.faults.lock().expect("nothing panics under this lock") = faults;
    }

    /// Ends the living instance as `kill -9` would; says whether there was one.
    pub fn kill(&self) -> bool {
        let lives = self.living().is_some();
        if let Some((_, life)) = &*self.current.lock().expect("nothing panics under this lock") {
            life.lock().expect("nothing panics under this lock").take();
        }
        lives
    }
}

#[async_trait]
impl Runner for LedgerRunner {
    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        let failed = |error: std::io::Error| RunError {
            command: "the ledger inside this program".to_owned(),
            reason: error.to_string(),
        };
        if let Some(address) = &self.attached {
            if self.living().is_none() {
                self.run_at(address).await.map_err(failed)?;
            }
            let tasks = Arc::default();
            return Ok(Box::new(Running { address: address.clone(), tasks, attached: true }));
        }
        let (address, tasks) = self.run_at(&format!("{}:0", self.host)).await.map_err(failed)?;
        Ok(Box::new(Running { address, tasks, attached: false }))
    }
}

#[async_trait]
impl Instance for Running {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_alive(&mut self) -> bool {
        self.attached || self.tasks.lock().expect("nothing panics under this lock").is_some()
    }

    async fn stop(&mut self) {
        drop(self.tasks.lock().expect("nothing panics under this lock").take());
    }

    fn place(&self) -> Place {
        Place { attached: self.attached, ..Place::at(&self.address) }
    }
}
