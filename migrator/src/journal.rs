//! The journal: a log like any other, owned by a fence on it, read back before anything is done.
//!
//! A word counts if its writer owns the journal at the word's place; the fold judges that, so what a paused or older migrator
//! still writes is void, and a migrator that reads another owner's fence knows that it must stop. Acknowledged is not enough
//! to act: only what was read back counted (invariant 2).

use std::sync::Arc;
use std::time::Duration;

use broker_adapter::broker::{Broker, ConnectError};
use broker_adapter::fold::{CountedFence, Fold, Verdict};
use broker_adapter::follow::Follower;
use broker_adapter::ids::{Epoch, Position, Replica};
use broker_adapter::log::{AppendError, MessageLog, ReadError};
use broker_adapter::record::{Cause, Entry, Fence, JournalEntry, Record, Writer};
use broker_adapter::shell::Shell;
use futures_util::future::BoxFuture;

use crate::book::{Book, Word};
use crate::events::Events;

/// The journal's name at the broker. Shards' names have two parts, so no shard can have it.
pub const JOURNAL_LOG: &str = "segue-journal";

const FENCE_WAIT: Duration = Duration::from_millis(500);
/// How long a migrator that starts waits for its broker.
const CONNECT_LIMIT: Duration = Duration::from_secs(15);
const RETRY_WAIT: Duration = Duration::from_millis(100);
/// How often a migrator that starts loses to others that start at the same moment before it gives up.
const FENCES_MAX: usize = 5;

/// The writing half, and the fold that judges what is read.
pub struct Journal {
    log: Arc<dyn MessageLog>,
    fold: Fold,
    writer: Writer,
}

/// What a journal says: the migrations, and what happened to them.
#[derive(Default)]
pub struct Told {
    /// How they stand.
    pub book: Book,
    /// How they came to stand so.
    pub events: Events,
}

impl Told {
    fn read(&mut self, position: Position, word: &Word) {
        let Some(change) = self.book.read(word) else { return };
        if let Some(state) = self.book.get(change.migration) {
            self.events.word(position, word, &change, state);
        }
    }
}

/// What a journal's entry means to the migrator that reads it.
#[derive(Debug)]
pub enum Reading {
    /// A word that counts.
    Word(Box<Word>),
    /// Nothing: void, or not a word.
    Nothing,
    /// Another migrator owns the journal from here on.
    Lost(CountedFence),
}

/// Why the journal cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// The log could not be opened.
    #[error("the journal cannot be opened: {0}")]
    Open(#[from] ConnectError),
    /// The log could not be read.
    #[error("the journal {JOURNAL_LOG} cannot be read: {0}")]
    Read(#[from] ReadError),
    /// The log takes nothing.
    #[error("the journal {JOURNAL_LOG} takes no fence: {0}")]
    Append(AppendError),
    /// A word of a form that this version does not know.
    #[error("the journal's entry at {position} is of another version ({reason}); run the version that wrote it")]
    Version {
        /// Where.
        position: Position,
        /// What the decoder says.
        reason: String,
    },
    /// Others start at the same moment, again and again.
    #[error("{winner} took the journal while this migrator was starting; run one migrator per broker")]
    Taken {
        /// Who owns it now.
        winner: Replica,
    },
}

async fn connect(broker: &Arc<dyn Broker>, shell: &Shell) -> Result<Arc<dyn MessageLog>, ConnectError> {
    let limit = shell.now() + CONNECT_LIMIT;
    loop {
        match broker.log(JOURNAL_LOG).await {
            Err(ConnectError::Unreachable { .. }) if shell.now() < limit => shell.sleep(RETRY_WAIT).await,
            result => return result,
        }
    }
}

impl Journal {
    /// Reads the whole journal and takes it over: gives what it says, and what follows it from there.
    ///
    /// # Errors
    /// [`JournalError`].
    pub async fn open(
        broker: &Arc<dyn Broker>,
        me: &Replica,
        shell: &Shell,
    ) -> Result<(Journal, Told, Follower), JournalError> {
        let log = connect(broker, shell).await?;
        let mut follower = Follower::new(log.clone(), shell.clone(), Position::ZERO, 0);
        let nobody = Writer { epoch: Epoch(0), replica: me.clone() };
        let mut journal = Journal { log, fold: Fold::new(), writer: nobody };
        let mut told = Told::default();
        let tail = journal.tail(shell).await?;
        while follower.position() < tail {
            journal.replay(&follower.next().await?, &mut told)?;
        }
        for _ in 0..FENCES_MAX {
            let epoch = journal.fold.epoch().next();
            let counted = journal.take(epoch, me, &mut follower, &mut told, shell).await?;
            if counted.owner == *me {
                journal.writer.epoch = epoch;
                return Ok((journal, told, follower));
            }
        }
        let winner = journal.fold.owner().expect("a fence counted").clone();
        Err(JournalError::Taken { winner })
    }

    async fn tail(&self, shell: &Shell) -> Result<Position, JournalError> {
        loop {
            match self.log.tail().await {
                Ok(tail) => return Ok(tail),
                Err(error) if error.is_retryable() => shell.sleep(RETRY_WAIT).await,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Appends the fence of `epoch` until some fence of it was read as counted.
    async fn take(
        &mut self,
        epoch: Epoch,
        me: &Replica,
        follower: &mut Follower,
        told: &mut Told,
        shell: &Shell,
    ) -> Result<CountedFence, JournalError> {
        let cause = match self.fold.owner() {
            None => Cause::First,
            Some(owner) if owner.node == me.node => Cause::Restart,
            Some(_) => Cause::Failover,
        };
        let fence = Fence { epoch, owner: me.clone(), cause, migration: None, retires: None };
        while self.fold.epoch() < epoch {
            match self.log.append(vec![Record::Fence(fence.clone())]).await {
                Err(error) if !error.is_retryable() => return Err(JournalError::Append(error)),
                Err(error) => {
                    tracing::warn!(%error, "the journal's fence is tried again");
                    shell.sleep(RETRY_WAIT).await;
                }
                Ok(_) => {}
            }
            let limit = shell.now() + FENCE_WAIT;
            while self.fold.epoch() < epoch {
                let left = limit.saturating_sub(shell.now());
                let Some(entry) = shell.within(left, follower.next()).await else { break };
                self.replay(&entry?, told)?;
            }
        }
        let counted = self.fold.fences().find(|fence| fence.epoch == epoch);
        Ok(counted.expect("a fold that reached an epoch remembers its fence").clone())
    }

    fn replay(&mut self, entry: &Entry, told: &mut Told) -> Result<(), JournalError> {
        if let Reading::Word(word) = self.judge(entry)? {
            told.read(entry.position, &word);
        }
        Ok(())
    }

    fn judge(&mut self, entry: &Entry) -> Result<Reading, JournalError> {
        match (self.fold.observe(entry), &entry.record) {
            (Verdict::Noted, Record::Entry(word)) => {
                let word = rmp_serde::from_slice(&word.event)
                    .map_err(|error| JournalError::Version { position: entry.position, reason: error.to_string() })?;
                Ok(Reading::Word(Box::new(word)))
            }
            (Verdict::Fenced(fence), _) if fence.owner != self.writer.replica => Ok(Reading::Lost(fence)),
            _ => Ok(Reading::Nothing),
        }
    }

    /// Reads the next entry behind the start.
    ///
    /// # Errors
    /// [`JournalError::Version`].
    pub fn observe(&mut self, entry: &Entry) -> Result<Reading, JournalError> {
        self.judge(entry)
    }

    /// Appends a word. It counts when it was read back, and not before.
    pub fn append(&self, word: &Word) -> BoxFuture<'static, Result<Vec<Position>, AppendError>> {
        let event = rmp_serde::to_vec_named(word).expect("writing to memory does not fail").into();
        self.log.append(vec![Record::Entry(JournalEntry { writer: self.writer.clone(), event })])
    }

    /// The log that it is.
    #[must_use]
    pub fn log(&self) -> Arc<dyn MessageLog> {
        self.log.clone()
    }

    /// The last entry that was read.
    #[must_use]
    pub fn position(&self) -> Position {
        self.fold.position()
    }

    /// Under which epoch this migrator owns the journal.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        self.writer.epoch
    }
}
