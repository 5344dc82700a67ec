//! The memory adapter: a whole broker in one process, with seeded faults; for tests and the simulation only.
//!
//! Durable is what stands in the broker's own vector: an append is acknowledged, and shown, only behind that. A
//! [`MemoryBroker`] outlives the processes that use it; each of them gets its own connection by
//! [`MemoryBroker::connect`]. What a process has handed over belongs to the broker: it may land after the process
//! has crashed, as bytes on a real network would. Everything random comes from one seed, nothing uses a thread, and
//! waiters are woken in the order in which they came (`Notify`; tokio's `watch` wakes in a random order).
//!
//! Invariant: only [`control`] and the faults of [`faults`] lose, delay or damage anything.

mod append;
pub mod control;
pub mod faults;
#[cfg(test)]
mod follow_tests;
mod link;
mod log;
mod mailbox;
mod state;
mod store;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, MutexGuard};

use crate::broker::Broker;
use crate::shell::Shell;

pub use faults::{Delay, Faults};

use faults::Dice;
use link::Link;
use state::State;

/// The largest record that this broker takes, in encoded form.
pub const RECORD_LIMIT_BYTES: usize = 1 << 20;

/// How many appends may wait on one handle.
pub const WAITING_LIMIT_APPENDS: usize = 65_536;

/// A broker in memory.
pub struct MemoryBroker {
    seed: u64,
    shell: Shell,
    state: Mutex<State>,
}

impl MemoryBroker {
    /// An empty broker. `shell` is that of the broker's own process: its tasks, not those of the users, carry what is
    /// in flight.
    #[must_use]
    pub fn new(seed: u64, shell: Shell, faults: Faults) -> Arc<MemoryBroker> {
        let dice = Dice::of(seed, "", 0);
        Arc::new(MemoryBroker { seed, shell, state: Mutex::new(State::new(faults, dice)) })
    }

    /// A process's connection. The name is what [`MemoryBroker::cut_off`] and its like take; several connections may
    /// share it (a process, and the one that follows it after a crash).
    #[must_use]
    pub fn connect(self: &Arc<Self>, name: &str) -> Arc<dyn Broker> {
        let number = {
            let mut state = self.lock();
            let line = state.line(name);
            line.connections += 1;
            line.connections
        };
        Arc::new(Link::new(self.clone(), name, Dice::of(self.seed, name, number)))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nothing panics under this lock")
    }
}
