//! Runs ledgers inside the program: the sidecar's runner for the simulation.
//!
//! Each start is a new, empty instance with tasks of its own; stopping, dropping or crashing it drops those tasks.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use broker_adapter::shell::{Shell, TaskSet};
use sidecar::runner::{Instance, RunError, Runner};

use super::{Faults, Ledger};

/// Starts ledgers that share faults, so that one that fires once does not fire again in the next instance.
pub struct LedgerRunner {
    shell: Shell,
    host: String,
    faults: Arc<Mutex<Faults>>,
    current: Arc<Mutex<Option<(Ledger, Life)>>>,
}

type Life = Arc<Mutex<Option<TaskSet>>>;

struct Running {
    address: String,
    tasks: Life,
}

impl LedgerRunner {
    /// Instances on ports of `host`, as parts of the shell's process.
    #[must_use]
    pub fn new(shell: Shell, host: &str, faults: Arc<Mutex<Faults>>) -> LedgerRunner {
        LedgerRunner { shell, host: host.to_owned(), faults, current: Arc::default() }
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
        let (shell, tasks) = self.shell.part();
        let tasks = Arc::new(Mutex::new(Some(tasks)));
        let crashed = tasks.clone();
        let crash = Arc::new(move || drop(crashed.lock().expect("nothing panics under this lock").take()));
        let ledger = Ledger::new(shell, self.faults.clone(), crash);
        let address = ledger.serve(&format!("{}:0", self.host)).await.map_err(|error| RunError {
            command: "the ledger inside this program".to_owned(),
            reason: error.to_string(),
        })?;
        *self.current.lock().expect("nothing panics under this lock") = Some((ledger, tasks.clone()));
        Ok(Box::new(Running { address, tasks }))
    }
}

#[async_trait]
impl Instance for Running {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_alive(&mut self) -> bool {
        self.tasks.lock().expect("nothing panics under this lock").is_some()
    }

    async fn stop(&mut self) {
        drop(self.tasks.lock().expect("nothing panics under this lock").take());
    }
}
