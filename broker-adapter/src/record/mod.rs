//! What a log is made of: the record kinds of version 1, and an entry, which is a record at its place.
//!
//! Owns the fields of every kind. How they become bytes is in [`wire`]; whether a record counts is judged
//! by the [fold](crate::fold) at its place and nowhere else.

#[cfg(test)]
mod golden_tests;
mod hidden;
#[cfg(test)]
mod samples;
pub mod wire;
#[cfg(test)]
mod wire_tests;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::ids::{
    Count, Epoch, Hash, Id128, Incarnation, MessageName, MigrationId, NodeName, Position, Replica, Session,
};
use crate::settings::Settings;

/// One entry of a log, as every reader sees it.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Its place; the first is 1.
    pub position: Position,
    /// When the broker appended it, in milliseconds of its own wall clock; may jump.
    pub appended_ms: u64,
    /// The CRC-32 of the record's bytes: readers compare it when they come back (invariant 4).
    pub crc: u32,
    /// What was appended.
    pub record: Record,
}

/// Everything that can stand in a log of format version 1.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Record {
    /// An input of the service.
    Message(Box<Message>),
    /// The first record of a session, which ends an earlier session of the same ingress.
    Close(Close),
    /// Raises the epoch by one and names the owner.
    Fence(Fence),
    /// The owner's running hash at a position; its state hash too if a `Mark` asked for it.
    Digest(Digest),
    /// A saved state that every node can reach.
    Checkpoint(Checkpoint),
    /// Keeps a checkpoint from being dropped, or releases it.
    Pin(Pin),
    /// A recovery is about to deliver this range again.
    Attempt(Attempt),
    /// A message that is never delivered.
    Skip(Skip),
    /// Parameters of the shard.
    Settings(SettingsRecord),
    /// Asks the owner for a digest at its own position.
    Mark(Mark),
    /// One event of a migrator's journal.
    Entry(JournalEntry),
    /// Reserved: time as an input.
    Tick(Tick),
    /// Reserved: something the service itself sends.
    Output(Output),
    /// Reserved: the answer to an outgoing call.
    Effect(Effect),
    /// Reserved: the log goes on in another place.
    Seal(Seal),
}

/// Who writes an owner's word: it counts only while this replica owns under this epoch (invariant 2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Writer {
    /// The epoch under which it was written.
    pub epoch: Epoch,
    /// Who wrote it.
    pub replica: Replica,
}

/// An input of the service.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Message {
    /// Session and sequence; names the reply too.
    pub name: MessageName,
    /// On a session's first record: how many counted messages its ingress had read. `None` on all others.
    pub base: Option<Count>,
    /// Decides whether it is applied.
    pub key: Key,
    /// Of a bridge from another log: which of its positions this is. Must follow the last counted one.
    pub source: Option<SourcePosition>,
    /// The sidecar that holds the client.
    pub ingress: Replica,
    /// What the service gets.
    pub request: Request,
}

/// What decides whether a message that counts is applied (invariant 5).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Key {
    /// The message's own name, with the count of counted messages at its sending.
    Own {
        /// The count that the ingress had read when it sent the message first.
        count: Count,
    },
    /// The name under which the same request was first sent, in a session given up or by another ingress.
    First {
        /// That name.
        name: MessageName,
        /// The count that the ingress had read when it sent it first.
        count: Count,
    },
    /// The client's `Idempotency-Key`.
    Client {
        /// At most 256 bytes.
        key: String,
    },
}

/// Where a bridged message stood in its own log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourcePosition {
    /// The other log's name.
    pub source: String,
    /// The position of the message before it in that log.
    pub previous: u64,
    /// This message's position in that log.
    pub this: u64,
}

/// An HTTP request as the service gets it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// `POST`, `PUT`, …
    pub method: String,
    /// Path and query.
    pub path: String,
    /// Without hop-by-hop headers; values as they came.
    pub headers: Vec<Header>,
    /// The content.
    pub body: Body,
}

/// One header field. Its `Debug` hides credentials.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// Lower case.
    pub name: String,
    /// Any bytes.
    pub value: Bytes,
}

/// The content of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Body {
    /// In the record.
    Inline(Bytes),
    /// In the checkpoint store, because it is larger than a record may be. Its name there is (session, sequence), with the
    /// message's `base`: such a message is the first record of a session of its own.
    Stored {
        /// Its content's hash.
        hash: Hash,
        /// Its length in bytes.
        length: u64,
    },
}

/// Ends a session, as the first record of the one that takes its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Close {
    /// The new session and its first sequence.
    pub name: MessageName,
    /// As in [`Message::base`].
    pub base: Option<Count>,
    /// The session that ends here.
    pub closes: Session,
}

/// Raises the epoch: counts if and only if `epoch` is the current one plus one at its place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fence {
    /// The epoch it begins.
    pub epoch: Epoch,
    /// Who owns from here on.
    pub owner: Replica,
    /// Why.
    pub cause: Cause,
    /// The migration whose fence it is, if it is one's.
    pub migration: Option<MigrationId>,
    /// [`Cause::Retire`]: the node whose standby goes. Others stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retires: Option<NodeName>,
}

/// Why a fence was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Cause {
    /// The log's first owner.
    First,
    /// The owner's node came back under another incarnation.
    Restart,
    /// A caught-up target takes over.
    Handover,
    /// A standby takes over because the owner is gone.
    Failover,
    /// Somebody asked to end the migration; the owner stays.
    Cancel,
    /// The migration could not go on; the owner stays.
    RollBack,
    /// A source takes back what it gave.
    Undo,
    /// The owner stays, and the standby of the node that [`Fence::retires`] names goes.
    Retire,
    /// A paused source goes on.
    Resume,
}

/// The owner's running hash after applying everything up to a position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Digest {
    /// The owner.
    pub writer: Writer,
    /// After which record.
    pub position: Position,
    /// Over replies and outputs.
    pub hash: Hash,
    /// Over the canonical state, if the `Mark` at `position` asked for it and the service can.
    pub state: Option<Hash>,
    /// The mark that this digest answers; it stands at `position`.
    pub mark: Option<Id128>,
}

/// A saved state, recorded after it was read back whole.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The owner.
    pub writer: Writer,
    /// After which record; 0 before the first.
    pub position: Position,
    /// The hash and so the name of its manifest.
    pub manifest: Hash,
    /// The CRC-32 of the record at `position`; 0 at position 0.
    pub record_crc: u32,
}

/// Keeps a checkpoint, or ends the keeping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The owner.
    pub writer: Writer,
    /// Whose pin it is.
    pub holder: MigrationId,
    /// The kept checkpoint's position.
    pub checkpoint: Position,
    /// Whether the pin ends here.
    pub release: bool,
}

/// A recovery is about to deliver `from..=to`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// The owner.
    pub writer: Writer,
    /// The first position.
    pub from: Position,
    /// The last position.
    pub to: Position,
}

/// The message at `position` is never delivered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Skip {
    /// The owner.
    pub writer: Writer,
    /// The poisoned message.
    pub position: Position,
}

/// New parameters of the shard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SettingsRecord {
    /// The owner.
    pub writer: Writer,
    /// All of them; `keys_remembered` is taken from the log's first such record only.
    pub settings: Settings,
}

/// Asks the owner for a digest at this record's own position.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Random; names the question.
    pub id: Id128,
    /// Who asks.
    pub asker: Incarnation,
    /// Whether the state hash is asked for too.
    pub state: bool,
}

/// One event of a migrator's journal; counts only while its writer owns the journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct JournalEntry {
    /// The acting migrator.
    pub writer: Writer,
    /// MessagePack; the migrator knows its form.
    pub event: Bytes,
}

/// Reserved: time as an input, asked for by the service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tick {
    /// The owner.
    pub writer: Writer,
    /// Milliseconds since the Unix epoch.
    pub time_ms: u64,
}

/// Reserved: the k-th thing that the service itself sent while it handled the message at `position`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// The owner.
    pub writer: Writer,
    /// The message that caused it.
    pub position: Position,
    /// Which of that message's outputs; the first is 1.
    pub k: u32,
    /// Where to.
    pub destination: String,
    /// What.
    pub body: Bytes,
}

/// Reserved: the answer to the k-th outgoing call made for the message at `position`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// The owner.
    pub writer: Writer,
    /// The message that caused the call.
    pub position: Position,
    /// Which of that message's calls; the first is 1.
    pub k: u32,
    /// The answer.
    pub answer: Bytes,
}

/// Reserved: the log goes on in another place.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seal {
    /// The owner.
    pub writer: Writer,
    /// The URL of the other broker.
    pub continues_at: String,
}

impl Record {
    /// The kind's name, for people.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Record::Message(_) => "Message",
            Record::Close(_) => "Close",
            Record::Fence(_) => "Fence",
            Record::Digest(_) => "Digest",
            Record::Checkpoint(_) => "Checkpoint",
            Record::Pin(_) => "Pin",
            Record::Attempt(_) => "Attempt",
            Record::Skip(_) => "Skip",
            Record::Settings(_) => "Settings",
            Record::Mark(_) => "Mark",
            Record::Entry(_) => "Entry",
            Record::Tick(_) => "Tick",
            Record::Output(_) => "Output",
            Record::Effect(_) => "Effect",
            Record::Seal(_) => "Seal",
        }
    }
}
