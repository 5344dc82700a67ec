//! Follows a shard's log from its first record while a test runs, because the owner may trim it before the end.

use std::sync::{Arc, Mutex};

use broker_adapter::broker::Broker;
use broker_adapter::follow::Follower;
use broker_adapter::ids::Position;
use broker_adapter::log::MessageLog;
use broker_adapter::record::Entry;
use broker_adapter::shell::Shell;

use super::{HANG_LIMIT, POLL_EVERY, wait_for};

/// All records of a log so far.
pub struct Recorder {
    shell: Shell,
    log: Arc<dyn MessageLog>,
    seen: Arc<Mutex<Seen>>,
}

#[derive(Default)]
struct Seen {
    entries: Vec<Entry>,
    ended: Option<String>,
}

impl Recorder {
    /// Follows the log of the service's only shard at a broker.
    ///
    /// # Panics
    /// If it cannot be opened.
    pub(super) async fn start(shell: &Shell, broker: Arc<dyn Broker>, log_name: &str) -> Recorder {
        let log = broker.log(log_name).await.unwrap_or_else(|error| panic!("{error}"));
        let seen = Arc::<Mutex<Seen>>::default();
        let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
        let record = seen.clone();
        shell.spawn(async move {
            // The connection lives as long as somebody reads.
            let _broker = broker;
            loop {
                let next = follower.next().await;
                let mut seen = record.lock().expect("nothing panics under this lock");
                match next {
                    Ok(entry) => seen.entries.push(entry),
                    Err(error) => {
                        seen.ended = Some(error.to_string());
                        return;
                    }
                }
            }
        });
        Recorder { shell: shell.clone(), log, seen }
    }

    /// What was read so far.
    ///
    /// # Panics
    /// If the log could not be read to its end.
    #[must_use]
    pub fn so_far(&self) -> Vec<Entry> {
        let seen = self.seen.lock().expect("nothing panics under this lock");
        assert_eq!(seen.ended, None, "the log could not be followed");
        seen.entries.clone()
    }

    /// What was read before the log could not be followed any more; why, if it is so far.
    ///
    /// # Panics
    /// Never: nothing panics under its lock.
    #[must_use]
    pub fn until_it_stopped(&self) -> (Vec<Entry>, Option<String>) {
        let seen = self.seen.lock().expect("nothing panics under this lock");
        (seen.entries.clone(), seen.ended.clone())
    }

    /// The last position that was read.
    #[must_use]
    pub fn last(&self) -> Position {
        let seen = self.seen.lock().expect("nothing panics under this lock");
        seen.entries.last().map_or(Position::ZERO, |entry| entry.position)
    }

    /// Everything up to the present tail.
    pub async fn up_to_tail(&self) -> Vec<Entry> {
        let tail = wait_for(&self.shell, "the log's tail", || async { self.log.tail().await.ok() }).await;
        let give_up = self.shell.now() + HANG_LIMIT;
        loop {
            let entries = self.so_far();
            if entries.last().map_or(Position::ZERO, |entry| entry.position) >= tail {
                return entries;
            }
            assert!(self.shell.now() < give_up, "the recorder did not reach {tail}");
            self.shell.sleep(POLL_EVERY).await;
        }
    }
}
