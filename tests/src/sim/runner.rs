//! Instances of the ledger inside the simulation: each a task set of its sidecar's process, so that they end with it.

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use broker_adapter::shell::{Shell, TaskSet};
use sidecar::runner::{Instance, RunError, Runner};

use crate::ledger::{Faults, Ledger};

type Life = Arc<Mutex<Option<TaskSet>>>;

/// The instance of one node that runs now, and what it shall do wrong.
#[derive(Clone, Default)]
pub struct Bench {
    /// What the node's next and present instances do wrong.
    pub faults: Arc<Mutex<Faults>>,
    present: Arc<Mutex<Option<(Ledger, Life)>>>,
}

impl Bench {
    /// The instance, if it lives.
    #[must_use]
    pub fn ledger(&self) -> Option<Ledger> {
        let present = self.present.lock().expect("nothing panics under this lock");
        let (ledger, life) = present.as_ref()?;
        let lives = life.lock().expect("nothing panics under this lock").as_ref().is_some_and(TaskSet::is_running);
        lives.then(|| ledger.clone())
    }

    /// Kills the instance; says whether there was one.
    pub fn kill(&self) -> bool {
        let lives = self.ledger().is_some();
        if let Some((_, life)) = &*self.present.lock().expect("nothing panics under this lock") {
            life.lock().expect("nothing panics under this lock").take();
        }
        lives
    }
}

/// Starts ledgers.
pub struct SimRunner {
    /// The sidecar's process.
    pub shell: Shell,
    /// Where the instance is shown.
    pub bench: Bench,
}

#[async_trait]
impl Runner for SimRunner {
    async fn start(&self) -> Result<Box<dyn Instance>, RunError> {
        let (shell, tasks) = self.shell.part();
        let life: Life = Arc::new(Mutex::new(Some(tasks)));
        let dying = life.clone();
        let crash = move || drop(dying.lock().expect("nothing panics under this lock").take());
        let ledger = Ledger::new(shell, self.bench.faults.clone(), Arc::new(crash));
        let address = ledger.serve("127.0.0.1:0").await.map_err(|error| RunError {
            command: "the simulated ledger".to_owned(),
            reason: error.to_string(),
        })?;
        *self.bench.present.lock().expect("nothing panics under this lock") = Some((ledger, life.clone()));
        Ok(Box::new(SimInstance { life, address }))
    }
}

struct SimInstance {
    life: Life,
    address: String,
}

#[async_trait]
impl Instance for SimInstance {
    fn address(&self) -> &str {
        &self.address
    }

    fn is_alive(&mut self) -> bool {
        self.life.lock().expect("nothing panics under this lock").is_some()
    }

    async fn stop(&mut self) {
        self.life.lock().expect("nothing panics under this lock").take();
    }
}

impl Drop for SimInstance {
    fn drop(&mut self) {
        if let Ok(mut life) = self.life.lock() {
            life.take();
        }
    }
}
