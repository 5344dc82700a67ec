//! The committer: the one thread that writes all logs of a broker, with one sync for everything that waits.
//!
//! ```text
//! take all that waits ─▶ positions, time ─▶ attempted ─▶ apply_batch per log ─▶ flush ─▶ sync_data ─▶ synced ─▶ show ─▶ resolve
//! ```
//! Only what stands left of "show" can fail. After a failure there nobody knows what is on the disk (a second sync may lie), so
//! the broker takes nothing more until it is opened again: what was in flight is `Unknown`, what comes later `Damaged`.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, OnceLock};

use crate::ids::Position;
use crate::log::AppendError;
use crate::shell::Shell;

use super::metrics::Metrics;
use super::queue::{AppendJob, Queue, TrimJob, Work};
use super::room::Room;
use super::row::{self, Row};
use super::state::LogState;
use super::tails::{Tails, TailsFile};

const REMOVE_CHUNK_VALUES: usize = 512;

/// Makes a file's content durable; tests hand in one that fails.
pub type Sync = Arc<dyn Fn(&File) -> io::Result<()> + Send + std::marker::Sync>;

/// The committer's part of one log.
pub struct LogWriter {
    pub state: Arc<LogState>,
    pub next: Mutex<NextRow>,
}

/// Where the log goes on.
pub struct NextRow {
    pub tail: Position,
    pub last_ms: u64,
    pub side: TailsFile,
}

/// What the committer owns.
pub struct Committer {
    pub db: sled::Db,
    pub room: Arc<Room>,
    pub metrics: Arc<Metrics>,
    pub sync: Sync,
    pub queue: Arc<Queue>,
    pub broken: Arc<OnceLock<String>>,
    pub shell: Shell,
}

/// The rows of one log in a batch, and who waits for which.
struct Group {
    log: Arc<LogWriter>,
    rows: Vec<Row>,
    waiting: Vec<(Position, AppendJob)>,
}

impl Committer {
    /// Runs until the queue ends.
    pub fn run(self) {
        let mut removing: Option<(Arc<LogState>, Position)> = None;
        loop {
            match self.queue.take(removing.is_some()) {
                Work::Commit(jobs) => self.commit(jobs),
                Work::Trim(job) => {
                    if let Some(begun) = self.trim(job) {
                        // A trim that is not finished yet is finished by this one or at the next open.
                        removing = Some(begun);
                    }
                }
                Work::Idle => {}
                Work::Ended => return,
            }
            removing = removing.filter(|(state, before)| {
                row::remove(&state.tree, Position(1), Some(*before), REMOVE_CHUNK_VALUES).unwrap_or(false)
            });
        }
    }

    fn commit(&self, jobs: Vec<AppendJob>) {
        if let Some(error) = self.refusal() {
            self.metrics.append_failures.inc_by(jobs.len() as u64);
            for job in jobs {
                // Nobody may wait any more.
                let _ = job.done.send(Err(error.clone()));
            }
            return;
        }
        let (began, appends) = (self.shell.now(), jobs.len() as u64);
        let mut groups = self.place(jobs);
        if let Err(reason) = self.make_durable(&groups) {
            self.metrics.append_failures.inc_by(appends);
            self.break_down(&reason);
            for (_, job) in groups.iter_mut().flat_map(|group| std::mem::take(&mut group.waiting)) {
                let _ = job.done.send(Err(AppendError::Unknown(reason.clone())));
            }
            return;
        }
        let now = self.shell.now();
        self.metrics.commit_seconds.observe(now.saturating_sub(began).as_secs_f64());
        self.metrics.appends.inc_by(appends);
        for group in groups {
            self.metrics.records.inc_by(group.rows.len() as u64);
            group.log.state.publish(group.rows);
            for (first, job) in group.waiting {
                self.metrics.append_seconds.observe(now.saturating_sub(job.since).as_secs_f64());
                let _ = job.done.send(Ok(first));
            }
        }
    }

    /// Why nothing can be taken at all.
    fn refusal(&self) -> Option<AppendError> {
        if let Some(reason) = self.broken.get() {
            return Some(AppendError::Damaged(reason.clone()));
        }
        self.room.refusal()
    }

    fn place(&self, jobs: Vec<AppendJob>) -> Vec<Group> {
        let now_ms = self.shell.wall_ms();
        let mut groups: BTreeMap<String, Group> = BTreeMap::new();
        for job in jobs {
            let group = groups.entry(job.log.state.name.clone()).or_insert_with(|| Group {
                log: job.log.clone(),
                rows: Vec::new(),
                waiting: Vec::new(),
            });
            let mut next = group.log.next.lock().expect("nothing panics under this lock");
            next.last_ms = next.last_ms.max(now_ms);
            let first = next.tail.next();
            for (frame, crc) in &job.frames {
                next.tail = next.tail.next();
                let (frame, appended_ms) = (frame.clone(), next.last_ms);
                group.rows.push(Row { position: next.tail, appended_ms, crc: *crc, frame });
            }
            drop(next);
            group.waiting.push((first, job));
        }
        groups.into_values().collect()
    }

    fn make_durable(&self, groups: &[Group]) -> Result<(), String> {
        for group in groups {
            let synced = group.log.state.extent().1;
            self.write_side(group, synced)?;
            let mut batch = sled::Batch::default();
            for row in &group.rows {
                row::write(&mut batch, row, synced);
            }
            group.log.state.tree.apply_batch(batch).map_err(|error| format!("sled refused a write: {error}"))?;
        }
        self.sync_all()?;
        for group in groups {
            let tail = group.rows.last().map_or_else(|| group.log.state.extent().1, |row| row.position);
            self.write_side(group, tail)?;
        }
        Ok(())
    }

    fn write_side(&self, group: &Group, synced: Position) -> Result<(), String> {
        let next = group.log.next.lock().expect("nothing panics under this lock");
        let tails = Tails { attempted: next.tail, synced };
        next.side.write(tails).map_err(|error| format!("the side file could not be written: {error}"))
    }

    fn sync_all(&self) -> Result<(), String> {
        self.db.flush().map_err(|error| format!("sled could not flush: {error}"))?;
        (self.sync)(&self.room.file).map_err(|error| format!("the disk could not sync: {error}"))
    }

    fn break_down(&self, reason: &str) {
        let path = self.room.path.display();
        tracing::error!(%path, reason, "the broker takes nothing more until it is opened again");
        // The first reason stays.
        let _ = self.broken.set(format!("{reason}; open the broker at {path} again when its disk is well"));
    }

    fn trim(&self, job: TrimJob) -> Option<(Arc<LogState>, Position)> {
        let state = &job.log.state;
        let (first, tail) = state.extent();
        let before = job.before.min(tail.next());
        if before <= first {
            let _ = job.done.send(Ok(()));
            return None;
        }
        let mut batch = sled::Batch::default();
        row::write_first(&mut batch, before);
        let written = match self.broken.get() {
            Some(reason) => Err(reason.clone()),
            None => state.tree.apply_batch(batch).map_err(|error| error.to_string()).and_then(|()| self.sync_all()),
        };
        if let Err(reason) = written {
            self.break_down(&reason);
            let _ = job.done.send(Err(reason));
            return None;
        }
        state.publish_first(before);
        let _ = job.done.send(Ok(()));
        Some((state.clone(), before))
    }
}
