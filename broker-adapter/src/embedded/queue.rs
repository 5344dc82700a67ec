//! The committer's inbox: bounded, in the order of the calls.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;

use crate::ids::Position;
use crate::log::AppendError;

use super::commit::LogWriter;

/// Above this, `append` says `Overloaded`.
pub const WAITING_LIMIT_RECORDS: usize = 65_536;
/// Above this, `append` says `Overloaded`.
pub const WAITING_LIMIT_BYTES: usize = 64 << 20;
/// What one sync covers at most; one append is never divided.
const BATCH_LIMIT_RECORDS: usize = 4_096;
const BATCH_LIMIT_BYTES: usize = 8 << 20;

/// An append that waits.
pub struct AppendJob {
    pub log: Arc<LogWriter>,
    pub frames: Vec<(Bytes, u32)>,
    /// When it was handed over.
    pub since: Duration,
    pub done: oneshot::Sender<Result<Position, AppendError>>,
}

/// A trim that waits.
pub struct TrimJob {
    pub log: Arc<LogWriter>,
    pub before: Position,
    pub done: oneshot::Sender<Result<(), String>>,
}

/// What the committer does next.
pub enum Work {
    Commit(Vec<AppendJob>),
    Trim(TrimJob),
    /// Nothing waits, and the caller wanted to know.
    Idle,
    Ended,
}

#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    wake: Condvar,
}

#[derive(Default)]
struct State {
    appends: VecDeque<AppendJob>,
    trims: VecDeque<TrimJob>,
    records: usize,
    bytes: usize,
    ended: bool,
}

impl Queue {
    /// Hands an append over, in the order of the calls.
    pub fn push(&self, job: AppendJob) -> Result<(), AppendError> {
        let bytes: usize = job.frames.iter().map(|(frame, _)| frame.len()).sum();
        let mut state = self.state.lock().expect("nothing panics under this lock");
        let overloaded = state.records + job.frames.len() > WAITING_LIMIT_RECORDS
            || (state.bytes + bytes > WAITING_LIMIT_BYTES && state.bytes > 0);
        if overloaded {
            return Err(AppendError::Overloaded(state.appends.len()));
        }
        state.records += job.frames.len();
        state.bytes += bytes;
        state.appends.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    /// Hands a trim over.
    pub fn push_trim(&self, job: TrimJob) {
        self.state.lock().expect("nothing panics under this lock").trims.push_back(job);
        self.wake.notify_one();
    }

    /// No more comes; what waits is still done.
    pub fn end(&self) {
        self.state.lock().expect("nothing panics under this lock").ended = true;
        self.wake.notify_one();
    }

    /// Waits for work; with `idle_too` only looks.
    pub fn take(&self, idle_too: bool) -> Work {
        let mut state = self.state.lock().expect("nothing panics under this lock");
        loop {
            if !state.appends.is_empty() {
                return Work::Commit(take_batch(&mut state));
            }
            if let Some(trim) = state.trims.pop_front() {
                return Work::Trim(trim);
            }
            if state.ended {
                return Work::Ended;
            }
            if idle_too {
                return Work::Idle;
            }
            state = self.wake.wait(state).expect("nothing panics under this lock");
        }
    }
}

fn take_batch(state: &mut State) -> Vec<AppendJob> {
    let (mut jobs, mut records, mut bytes) = (Vec::new(), 0, 0);
    while let Some(job) = state.appends.front() {
        let job_bytes: usize = job.frames.iter().map(|(frame, _)| frame.len()).sum();
        let too_many = records + job.frames.len() > BATCH_LIMIT_RECORDS || bytes + job_bytes > BATCH_LIMIT_BYTES;
        if too_many && !jobs.is_empty() {
            break;
        }
        records += job.frames.len();
        bytes += job_bytes;
        jobs.extend(state.appends.pop_front());
    }
    state.records -= records;
    state.bytes -= bytes;
    jobs
}
