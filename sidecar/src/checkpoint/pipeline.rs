//! A few transfers at a time, in order, and a store that is asked again: what saving and loading share.
//!
//! The number of chunks on their way bounds the memory of a transfer, whatever the size of the state.

use std::collections::VecDeque;
use std::future::Future;
use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use broker_adapter::store::StoreError;
use futures_util::future::BoxFuture;
use tokio::sync::oneshot;

use super::chunk::CHUNK_MAX_BYTES;

/// What one save, read-back or load may hold in memory of the state's bytes.
pub const TRANSFER_LIMIT_BYTES: usize = 64 << 20;
/// A chunk on its way stands in memory this often at most: packed, unpacked, and twice in the connection to the store.
const COPIES: usize = 4;
/// One place's worth is for the chunk that is being cut or used.
const PLACES: usize = TRANSFER_LIMIT_BYTES / (COPIES * CHUNK_MAX_BYTES) - 1;

const RETRIES: u32 = 5;
const RETRY_WAIT: Duration = Duration::from_millis(100);

/// Work that runs as tasks, as many as fit into [`TRANSFER_LIMIT_BYTES`], and gives its results in order.
pub(super) struct Pipeline<T> {
    shell: Shell,
    tasks: TaskSet,
    running: VecDeque<oneshot::Receiver<T>>,
}

impl<T: Send + 'static> Pipeline<T> {
    pub fn new(shell: &Shell) -> Pipeline<T> {
        let (shell, tasks) = shell.part();
        Pipeline { shell, tasks, running: VecDeque::new() }
    }

    pub fn is_full(&self) -> bool {
        self.running.len() >= PLACES
    }

    /// Starts one more; only while it is not full.
    pub fn push(&mut self, work: impl Future<Output = T> + Send + 'static) {
        assert!(!self.is_full(), "the caller takes results out first");
        let (done, result) = oneshot::channel();
        self.shell.spawn(async move {
            // Nobody may wait any more.
            let _ = done.send(work.await);
        });
        self.running.push_back(result);
    }

    /// The oldest one's result; `None` if none runs.
    pub async fn next(&mut self) -> Option<T> {
        let oldest = self.running.front_mut()?;
        match oldest.await {
            Ok(result) => {
                self.running.pop_front();
                Some(result)
            }
            Err(_) if self.tasks.is_running() => panic!("a part of a transfer panicked"),
            // The process is ending, and this with it.
            Err(_) => std::future::pending().await,
        }
    }
}

/// Asks the store again as long as that may help.
pub(super) async fn retried<T>(
    shell: &Shell,
    call: impl Fn() -> BoxFuture<'static, Result<T, StoreError>>,
) -> Result<T, StoreError> {
    let mut tries = 0;
    loop {
        match call().await {
            Err(error) if error.is_retryable() && tries < RETRIES => {
                tries += 1;
                shell.sleep(RETRY_WAIT * tries).await;
            }
            result => return result,
        }
    }
}
