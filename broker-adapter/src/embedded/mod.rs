//! The embedded adapter: logs in sled on this process's disk, checkpoints as files, and a server for other processes.
//!
//! Acknowledged means: written by sled, flushed by it, and then `fdatasync` on our own handle to sled's file, because
//! sled's flush alone is `sync_file_range` on Linux, which is no fsync. One committer thread does that for all logs at once.
//! ```text
//! PATH/lock          who has it open          PATH/sled/      one tree per log
//! PATH/tails/LOG     side file of a log       PATH/objects/   the checkpoint store
//! ```
//! Owns everything under its path; one process at a time.

pub mod client;
mod commit;
pub mod door;
mod handle;
pub(crate) mod mail;
mod metrics;
pub(crate) mod objects;
mod open;
pub mod options;
mod protocol;
mod queue;
mod recover;
mod room;
mod row;
pub mod server;
mod state;
mod tails;
#[cfg(test)]
mod tests;
pub mod token;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus::proto::MetricFamily;

use crate::broker::{Broker, ConnectError};
use crate::log::{AppendError, MessageLog};
use crate::mailbox::Mailbox;
use crate::shell::Shell;
use crate::store::CheckpointStore;

pub use commit::Sync;
pub use handle::EmbeddedLog;
pub use recover::Repair;

/// The largest record that the embedded broker takes, as bytes on the wire.
pub const RECORD_LIMIT_BYTES: usize = 2 << 20;
/// The largest append, all its records together.
pub const APPEND_LIMIT_BYTES: usize = 32 << 20;
/// The most records in one append.
pub const APPEND_LIMIT_RECORDS: usize = 16_384;
const LOG_NAME_LIMIT_BYTES: usize = 160;

/// How an embedded broker is opened.
#[derive(Clone)]
pub struct Options {
    /// Appends are refused as `Full` once sled's file is larger.
    pub capacity_bytes: u64,
    /// Appends are refused as `Full` when the disk has less left than this.
    pub reserve_bytes: u64,
    /// Makes sled's file durable; tests hand in one that fails.
    pub sync: Sync,
}

impl Default for Options {
    fn default() -> Self {
        Options { capacity_bytes: u64::MAX, reserve_bytes: 64 << 20, sync: Arc::new(File::sync_data) }
    }
}

/// A broker that lives in this process. Clones and its logs keep it open.
#[derive(Clone)]
pub struct EmbeddedBroker {
    open: Arc<Open>,
    shell: Shell,
}

/// What is open; the last one to let go ends the committer and gives the path free.
struct Open {
    path: PathBuf,
    db: Option<sled::Db>,
    room: Arc<room::Room>,
    metrics: Arc<metrics::Metrics>,
    queue: Arc<queue::Queue>,
    broken: Arc<OnceLock<String>>,
    logs: Mutex<BTreeMap<String, Arc<commit::LogWriter>>>,
    repairs: Mutex<Vec<Repair>>,
    objects: objects::ObjectFiles,
    mail: Arc<mail::LocalMail>,
    committer: Option<JoinHandle<()>>,
    /// Locked for as long as this lives.
    _lock: File,
}

impl EmbeddedBroker {
    /// Opens or makes the broker at `path`. Refuses if another process has it open.
    ///
    /// # Errors
    /// [`ConnectError::Unreachable`] says why it cannot be opened.
    pub async fn open(path: &Path, options: Options, shell: &Shell) -> Result<EmbeddedBroker, ConnectError> {
        let (path, inner) = (path.to_owned(), shell.clone());
        let open = shell.blocking(move || open::open(&path, options, &inner)).await?;
        Ok(EmbeddedBroker { open: Arc::new(open), shell: shell.clone() })
    }

    /// Opens or makes a log and verifies it whole at its first opening.
    ///
    /// # Errors
    /// [`ConnectError::Damaged`] names the positions.
    pub async fn open_log(&self, name: &str) -> Result<EmbeddedLog, ConnectError> {
        let (open, name) = (self.open.clone(), name.to_owned());
        let writer = self.shell.blocking(move || open.log(&name)).await?;
        Ok(EmbeddedLog { writer, open: self.open.clone(), shell: self.shell.clone() })
    }

    /// What was repaired in the logs opened so far.
    #[must_use]
    pub fn repairs(&self) -> Vec<Repair> {
        self.open.repairs.lock().expect("nothing panics under this lock").clone()
    }

    /// Why it takes no appends, if it takes none: no room, or its disk failed.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        let broken = self.open.broken.get().cloned();
        broken.or_else(|| self.open.room.refusal().map(|error| error.to_string()))
    }

    /// What it counts, as `segue_broker_*`.
    #[must_use]
    pub fn measured(&self) -> Vec<MetricFamily> {
        let (open, is_in_trouble) = (&self.open, self.trouble().is_some());
        let logs = open.logs.lock().expect("nothing panics under this lock").len();
        let (used_bytes, free_bytes) = (open.room.used_bytes(), open.room.free_bytes());
        open.metrics.gather(&metrics::Looked { used_bytes, free_bytes, logs, is_in_trouble })
    }
}

/// Whether records of these sizes can be taken in one append.
fn check_sizes(sizes: impl Iterator<Item = usize>) -> Result<(), AppendError> {
    let (mut records, mut all) = (0, 0);
    for bytes in sizes {
        if bytes > RECORD_LIMIT_BYTES {
            return Err(too_large(bytes, RECORD_LIMIT_BYTES));
        }
        records += 1;
        all += bytes;
    }
    match records > APPEND_LIMIT_RECORDS || all > APPEND_LIMIT_BYTES {
        true => Err(too_large(all, APPEND_LIMIT_BYTES)),
        false => Ok(()),
    }
}

fn too_large(bytes: usize, limit_bytes: usize) -> AppendError {
    AppendError::TooLarge { bytes: bytes as u64, limit_bytes: limit_bytes as u64 }
}

impl Open {
    fn url(&self) -> String {
        format!("embedded:{}", self.path.display())
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.queue.end();
        if let Some(committer) = self.committer.take() {
            // It ended by a panic of its own; nothing more can be done about that here.
            let _ = committer.join();
        }
        self.logs.lock().expect("nothing panics under this lock").clear();
        self.db = None;
    }
}

impl Broker for EmbeddedBroker {
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>> {
        let (broker, name) = (self.clone(), name.to_owned());
        async move {
            let log: Arc<dyn MessageLog> = Arc::new(broker.open_log(&name).await?);
            Ok(log)
        }
        .boxed()
    }

    fn store(&self) -> Arc<dyn CheckpointStore> {
        Arc::new(self.open.objects.clone())
    }

    fn mailbox(&self) -> Arc<dyn Mailbox> {
        self.open.mail.clone()
    }

    fn url(&self) -> String {
        self.open.url()
    }
}
