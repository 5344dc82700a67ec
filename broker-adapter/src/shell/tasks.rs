//! The task set of a process: dropping it ends every task at the await where it stands, as a crash would.

use std::future::Future;
use std::sync::{Arc, Mutex, Weak};

use tokio::task::AbortHandle;

use super::gate::Gate;

/// Owns tasks; dropping it aborts them, those of its parts too.
pub struct TaskSet {
    inner: Arc<Mutex<Inner>>,
}

/// Starts tasks in a [`TaskSet`] as long as that lives.
#[derive(Clone)]
pub struct Tasks {
    inner: Weak<Mutex<Inner>>,
}

#[derive(Default)]
struct Inner {
    ended: bool,
    running: Vec<AbortHandle>,
    parts: Vec<Weak<Mutex<Inner>>>,
    prune_at: usize,
    /// Of a simulated process that can be held or shut.
    gate: Option<Gate>,
}

const PRUNE_MIN_TASKS: usize = 64;

impl Default for TaskSet {
    fn default() -> Self {
        Self::new()
    }
}

impl TaskSet {
    /// An empty set.
    #[must_use]
    pub fn new() -> TaskSet {
        TaskSet { inner: Arc::new(Mutex::new(Inner { prune_at: PRUNE_MIN_TASKS, ..Inner::default() })) }
    }

    /// An empty set whose tasks, and those of its parts, stand behind a gate.
    #[must_use]
    pub fn behind(gate: Gate) -> TaskSet {
        let set = TaskSet::new();
        set.inner.lock().expect("no task panics while it holds this lock").gate = Some(gate);
        set
    }

    /// Whether its tasks may run: not if it was part of a set that has ended.
    #[must_use]
    pub fn is_running(&self) -> bool {
        !self.inner.lock().expect("no task panics while it holds this lock").ended
    }

    /// What starts tasks in this set.
    #[must_use]
    pub fn tasks(&self) -> Tasks {
        Tasks { inner: Arc::downgrade(&self.inner) }
    }
}

impl Drop for TaskSet {
    fn drop(&mut self) {
        end(&self.inner);
    }
}

impl Tasks {
    /// Starts a task; does nothing if the set is gone already (the process has crashed).
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let Some(inner) = self.inner.upgrade() else { return };
        let mut inner = inner.lock().expect("no task panics while it holds this lock");
        if inner.ended {
            return;
        }
        if inner.running.len() >= inner.prune_at {
            inner.running.retain(|task| !task.is_finished());
            inner.parts.retain(|part| part.strong_count() > 0);
            inner.prune_at = (2 * inner.running.len()).max(PRUNE_MIN_TASKS);
        }
        let started = match &inner.gate {
            Some(gate) => super::real::start_task(gate.guard(task)),
            None => super::real::start_task(task),
        };
        inner.running.push(started);
    }

    /// A set that can end earlier than this one, and ends with it at the latest.
    #[must_use]
    pub fn part(&self) -> TaskSet {
        let part = TaskSet::new();
        match self.inner.upgrade() {
            Some(inner) => {
                let mut inner = inner.lock().expect("no task panics while it holds this lock");
                inner.parts.push(Arc::downgrade(&part.inner));
                part.inner.lock().expect("no task panics while it holds this lock").gate.clone_from(&inner.gate);
            }
            None => end(&part.inner),
        }
        part
    }
}

fn end(inner: &Arc<Mutex<Inner>>) {
    let (running, parts) = {
        let mut inner = inner.lock().expect("no task panics while it holds this lock");
        inner.ended = true;
        (std::mem::take(&mut inner.running), std::mem::take(&mut inner.parts))
    };
    for task in running {
        task.abort();
    }
    for part in parts.iter().filter_map(Weak::upgrade) {
        end(&part);
    }
}
