//! Opens the broker's folder: takes the lock, opens sled, starts the committer; and opens its logs.

use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io;
use std::path::Path;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use crate::broker::ConnectError;
use crate::shell::{Shell, real};

use super::commit::{Committer, LogWriter, NextRow};
use super::metrics::Metrics;
use super::objects::ObjectFiles;
use super::queue::Queue;
use super::room::Room;
use super::state::LogState;
use super::tails::{Tails, TailsFile};
use super::{LOG_NAME_LIMIT_BYTES, Open, Options, mail, recover};

const CACHE_BYTES: u64 = 64 << 20;
/// Tasks that the last owner had in sled's thread pool may hold sled's own lock a little longer than ours.
const SLED_LOCK_WAIT: Duration = Duration::from_secs(5);
const SLED_LOCK_STEP: Duration = Duration::from_millis(5);

/// Opens or makes the broker at `path`; blocks.
pub fn open(path: &Path, options: Options, shell: &Shell) -> Result<Open, ConnectError> {
    let failed = |what: &str, reason: String| ConnectError::Unreachable {
        url: format!("embedded:{}", path.display()),
        reason: format!("{what}: {reason}"),
    };
    let io_failed = |what: &'static str| move |error: io::Error| failed(what, error.to_string());
    fs::create_dir_all(path.join("tails")).map_err(io_failed("its folder cannot be made"))?;
    let lock = lock(path).map_err(|reason| failed("it is not free", reason))?;
    let db = open_sled(&path.join("sled"), shell).map_err(|error| failed("sled cannot open it", error.to_string()))?;
    let file = File::open(path.join("sled/db")).map_err(io_failed("sled's file cannot be opened"))?;
    let objects = ObjectFiles::open(path, shell.clone()).map_err(io_failed("its checkpoint store cannot be opened"))?;
    sync_new_files(path).map_err(io_failed("its files cannot be synced"))?;

    let (queue, broken) = (Arc::new(Queue::default()), Arc::new(OnceLock::new()));
    let (capacity_bytes, reserve_bytes) = (options.capacity_bytes, options.reserve_bytes);
    let room = Arc::new(Room { file, path: path.to_owned(), capacity_bytes, reserve_bytes });
    let metrics = Arc::new(Metrics::default());
    let committer = Committer {
        db: db.clone(),
        room: room.clone(),
        metrics: metrics.clone(),
        sync: options.sync,
        queue: queue.clone(),
        broken: broken.clone(),
        shell: shell.clone(),
    };
    let committer = real::start_thread("segue-committer", move || committer.run())
        .map_err(io_failed("its committer cannot be started"))?;
    Ok(Open {
        path: path.to_owned(),
        db: Some(db),
        room,
        metrics,
        queue,
        broken,
        logs: Mutex::new(BTreeMap::new()),
        repairs: Mutex::new(Vec::new()),
        objects,
        mail: Arc::new(mail::LocalMail::default()),
        committer: Some(committer),
        _lock: lock,
    })
}

fn lock(path: &Path) -> Result<File, String> {
    let file = File::options().read(true).write(true).create(true).truncate(false).open(path.join("lock"));
    let file = file.map_err(|error| error.to_string())?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => {
            Err("another process has it open; end that one, or reach it through segue://HOST:PORT".to_owned())
        }
        Err(TryLockError::Error(error)) => Err(error.to_string()),
    }
}

fn open_sled(path: &Path, shell: &Shell) -> sled::Result<sled::Db> {
    let began = shell.now();
    loop {
        let config = sled::Config::new()
            .path(path)
            .cache_capacity(CACHE_BYTES)
            .flush_every_ms(None)
            .mode(sled::Mode::HighThroughput);
        match config.open() {
            Err(sled::Error::Io(error))
                if error.to_string().contains("could not acquire lock") && shell.now() - began < SLED_LOCK_WAIT =>
            {
                std::thread::sleep(SLED_LOCK_STEP);
            }
            result => return result,
        }
    }
}

/// What sled and we made is there after a power cut, too.
fn sync_new_files(path: &Path) -> io::Result<()> {
    for name in ["sled/db", "sled/conf", "sled", "tails", "objects", "."] {
        File::open(path.join(name))?.sync_all()?;
    }
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => File::open(parent)?.sync_all(),
        _ => File::open(".")?.sync_all(),
    }
}

fn check_log_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=LOG_NAME_LIMIT_BYTES).contains(&name.len()) && name.bytes().all(allowed) && !name.starts_with('.')
}

impl Open {
    /// Opens or makes a log; blocks.
    pub(super) fn log(&self, name: &str) -> Result<Arc<LogWriter>, ConnectError> {
        let failed = |reason: String| ConnectError::Unreachable { url: self.url(), reason };
        if !check_log_name(name) {
            return Err(failed(format!(
                "{name:?} is no name for a log: use 1 to {LOG_NAME_LIMIT_BYTES} of a-z, A-Z, 0-9, '-', '_', '.'"
            )));
        }
        let mut logs = self.logs.lock().expect("nothing panics under this lock");
        if let Some(log) = logs.get(name) {
            return Ok(log.clone());
        }
        let db = self.db.as_ref().expect("it is open until it is dropped");
        let is_new = !db.tree_names().iter().any(|known| known.as_ref() == format!("log:{name}").as_bytes());
        let tree = db.open_tree(format!("log:{name}")).map_err(|error| failed(error.to_string()))?;
        let (side, tails) =
            TailsFile::open(&self.path.join("tails").join(name)).map_err(|error| failed(error.to_string()))?;
        let none = Tails { attempted: Default::default(), synced: Default::default() };
        let found = recover::recover(&tree, name, if is_new { Some(tails.unwrap_or(none)) } else { tails })?;
        let settled = Tails { attempted: found.tail, synced: found.tail };
        let settle = || -> Result<(), String> {
            // What was found may be in the page cache only, if the last owner was killed between write and sync.
            db.flush().map_err(|error| error.to_string())?;
            self.room.file.sync_data().map_err(|error| error.to_string())?;
            side.write(settled).map_err(|error| error.to_string())
        };
        settle().map_err(|reason| {
            // The error was told once; the committer's next sync would not hear of it. The first reason stays.
            let _ = self.broken.set(reason.clone());
            failed(reason)
        })?;
        self.repairs.lock().expect("nothing panics under this lock").extend(found.repair);
        let state = Arc::new(LogState::new(name.to_owned(), tree, found.first, found.tail));
        let next = Mutex::new(NextRow { tail: found.tail, last_ms: found.last_ms, side });
        let log = Arc::new(LogWriter { state, next });
        logs.insert(name.to_owned(), log.clone());
        Ok(log)
    }
}
