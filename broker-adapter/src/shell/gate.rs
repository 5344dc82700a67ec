//! A gate before every poll of a simulated process's tasks: it can be held, as by SIGSTOP, or shut for good between two polls.
//!
//! Owns only whether tasks run. What has arrived for a held process waits, and its timers go off late, all at once; a process that
//! was shut is dead at whatever await its tasks stand, and whoever shut it drops its task set.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};

/// Decides whether a process's tasks are polled; clones are the same one.
#[derive(Clone, Default)]
pub struct Gate(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    held: bool,
    /// After so many polls it shuts.
    polls_left: Option<u64>,
    /// Tasks that were woken while the gate was held.
    waiting: Vec<Waker>,
}

impl Gate {
    /// No task runs until [`Gate::release`].
    pub fn hold(&self) {
        self.state().held = true;
    }

    /// Every task goes on where it stood.
    pub fn release(&self) {
        let waiting = {
            let mut state = self.state();
            state.held = false;
            std::mem::take(&mut state.waiting)
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The process dies after so many more polls of its tasks.
    pub fn shut_after(&self, polls: u64) {
        self.state().polls_left = Some(polls);
    }

    /// Whether it has died so.
    #[must_use]
    pub fn is_shut(&self) -> bool {
        self.state().polls_left == Some(0)
    }

    /// A task behind this gate.
    pub(super) fn guard<T: Future<Output = ()> + Send + 'static>(&self, task: T) -> Gated {
        Gated { gate: self.clone(), waits: false, task: Box::pin(task) }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.0.lock().expect("nothing panics under this lock")
    }
}

pub(super) struct Gated {
    gate: Gate,
    /// Whether its waker lies at the gate already.
    waits: bool,
    task: Pin<Box<dyn Future<Output = ()> + Send>>,
}

impl Future for Gated {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        {
            let gate = self.gate.clone();
            let mut state = gate.state();
            if state.polls_left == Some(0) {
                return Poll::Pending;
            }
            if state.held {
                if !self.waits {
                    state.waiting.push(context.waker().clone());
                    self.waits = true;
                }
                return Poll::Pending;
            }
            if let Some(left) = &mut state.polls_left {
                *left -= 1;
            }
        }
        self.waits = false;
        self.task.as_mut().poll(context)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Duration;

    use super::super::sim::SimWorld;
    use super::*;

    /// A process that counts milliseconds.
    fn counting(world: &Arc<SimWorld>) -> (Arc<AtomicU64>, super::super::TaskSet, Gate) {
        let (shell, tasks, gate) = world.gated_process();
        let counted = Arc::new(AtomicU64::new(0));
        let counter = counted.clone();
        let clock = shell.clone();
        shell.spawn(async move {
            loop {
                clock.sleep(Duration::from_millis(1)).await;
                counter.fetch_add(1, Ordering::Relaxed);
            }
        });
        (counted, tasks, gate)
    }

    #[tokio::test(start_paused = true)]
    async fn a_held_process_stands_still_and_goes_on() {
        let (shell, _own) = SimWorld::new(1).process();
        let (counted, _tasks, gate) = counting(&SimWorld::new(1));
        shell.sleep(Duration::from_millis(10)).await;
        gate.hold();
        let before = counted.load(Ordering::Relaxed);
        shell.sleep(Duration::from_millis(100)).await;
        assert_eq!(counted.load(Ordering::Relaxed), before);
        gate.release();
        shell.sleep(Duration::from_millis(10)).await;
        assert!(counted.load(Ordering::Relaxed) > before);
    }

    #[tokio::test(start_paused = true)]
    async fn a_process_dies_after_so_many_polls() {
        let (shell, _own) = SimWorld::new(1).process();
        let (counted, _tasks, gate) = counting(&SimWorld::new(1));
        gate.shut_after(5);
        shell.sleep(Duration::from_millis(100)).await;
        assert!(gate.is_shut());
        assert_eq!(counted.load(Ordering::Relaxed), 4, "the first poll only sets the timer");
    }
}
