//! Clients that hold a connection and ask for nothing: their places are for others.
//!
//! Counts the requests that one connection has under way. A request is under way once its head is whole and until its answer is
//! there, so whoever waits for a reply is never idle, and whoever never ends a head always is.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use broker_adapter::shell::Shell;

/// A connection is closed once no request was under way on it for so long; it is looked at as often as that, so for twice as long
/// at most. What was written for its client has as long again to be taken.
pub const IDLE_LIMIT: Duration = Duration::from_secs(75);

/// The requests of one connection.
#[derive(Clone, Default)]
pub(super) struct Requests(Arc<Counts>);

#[derive(Default)]
struct Counts {
    begun: AtomicU64,
    ended: AtomicU64,
}

/// A request that is under way as long as this lives.
pub(super) struct UnderWay(Arc<Counts>);

impl Requests {
    pub fn begin(&self) -> UnderWay {
        self.0.begun.fetch_add(1, Ordering::Relaxed);
        UnderWay(self.0.clone())
    }

    /// Waits until none was under way for [`IDLE_LIMIT`].
    pub async fn idle(&self, shell: &Shell) {
        loop {
            let (begun, ended) = self.seen();
            shell.sleep(IDLE_LIMIT).await;
            if begun == ended && self.seen() == (begun, ended) {
                return;
            }
        }
    }

    fn seen(&self) -> (u64, u64) {
        (self.0.begun.load(Ordering::Relaxed), self.0.ended.load(Ordering::Relaxed))
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.ended.fetch_add(1, Ordering::Relaxed);
    }
}
