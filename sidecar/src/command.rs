//! What sidecars, and the migrator with them, say to each other over the mailbox.
//!
//! Everything here may be lost, doubled, late or out of order: commands carry the epoch they are for and are obeyed only
//! while the receiver's fold stands right before it (invariant 2); outcomes are answered again when a command is repeated;
//! replies are named, and whoever receives one twice drops it.

mod announce;
mod begin;

use broker_adapter::ids::{
    Epoch, Hash, Id128, Incarnation, MessageName, MigrationId, NodeName, Position, Replica, ShardId,
};
use broker_adapter::record::{Cause, Header, Request};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

pub use announce::{ANNOUNCE_EVERY_MS, Announcement, NodeLoad, ReplicaState, ShardStatus, TrafficSlice};
pub use begin::{Begin, BeginFailure, Begun};

pub use crate::difference::{AskDifference, Difference, Differs, OwnersReply};

/// Where every sidecar announces itself.
pub const ANNOUNCE_ADDRESS: &str = "topic/announce";

/// Where a sidecar receives [`NodeMail`].
#[must_use]
pub fn node_address(node: &NodeName) -> String {
    format!("node/{node}")
}

/// Where one run of a migrator receives [`Outcome`]s.
#[must_use]
pub fn migrator_address(incarnation: Incarnation) -> String {
    format!("migrator/{incarnation}")
}

/// Mail to a sidecar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum NodeMail {
    /// From a migrator.
    Command(Command),
    /// From an owner to the ingress that holds the client.
    Reply(ReplyMail),
    /// From an ingress to the owner: give these replies again.
    AskReplies(AskReplies),
    /// From an ingress to the owner: what has become of this message?
    AskKept(AskKept),
    /// The answer to [`AskKept`].
    KeptAnswer(KeptAnswer),
    /// From an ingress without a replica that may answer: read for me.
    AskRead(AskRead),
    /// The answer to [`AskRead`].
    ReadAnswer(ReadAnswer),
    /// From a replica to the owner: where do we differ?
    AskDifference(AskDifference),
    /// The answer to [`AskDifference`].
    OwnersReply(OwnersReply),
    /// Somebody wants the owner to take a checkpoint of this shard, as upkeep does.
    TakeCheckpoint(ShardId),
    /// From a migrator: begin this shard's log with a state that was imported.
    Begin(Begin),
}

/// One idempotent step of a migration, told to the source or the target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Command {
    /// Whose step it is.
    pub migration: MigrationId,
    /// Which attempt of that migration; the first is 1.
    pub attempt: u32,
    /// The shard that moves.
    pub shard: ShardId,
    /// The epoch E that this attempt's fence begins; obeyed only while the receiver's fold stands at E−1.
    pub epoch: Epoch,
    /// The replica it is for: another run of the same node refuses it.
    pub to: Replica,
    /// Where the [`Outcome`] goes.
    pub answer_to: String,
    /// What to do.
    pub step: Step,
}

/// What a command asks for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Step {
    /// Target: check that this node can run the service. A standby that follows the log is kept if it may be reused;
    /// whatever else an earlier attempt or ownership left is dropped.
    PrepareTarget {
        /// Which standby may go on.
        reuse: Reuse,
    },
    /// Source: check that this node owns the shard, serves it and can save it.
    PrepareSource,
    /// Source: take a checkpoint while serving, record and pin it.
    Checkpoint {
        /// At most so many, one after the other, each of what changed since the one before: what a pause finds left to
        /// save is little then. They end early when they do not get smaller any more.
        rounds: u32,
    },
    /// Source: apply nothing behind the present position until a fence counts; tell the position, or take a checkpoint of
    /// it, record and pin it.
    Pause {
        /// Whether a checkpoint is taken.
        save: bool,
        /// How long at most; then the source appends the fence E to itself (invariant 2).
        limit_ms: u64,
    },
    /// Target: start an instance and stream the checkpoint into it, each chunk checked.
    Transfer {
        /// After which record the checkpoint was taken.
        checkpoint: Position,
        /// Its manifest's hash.
        manifest: Hash,
    },
    /// Target: wait until the service has answered the load with 2xx and is ready.
    Restore,
    /// Target: apply the log until the lag is within the limit.
    Replay {
        /// How many records behind the tail is near enough.
        lag_limit_records: u64,
    },
    /// Target: append a `Mark` and compare hashes with the owner's digest at it.
    Verify {
        /// Names the mark; the same for repeated commands.
        mark: Id128,
    },
    /// Target: append the fence E as soon as it may.
    Handover {
        /// From when on it may.
        when: FenceWhen,
        /// What the fence is called.
        cause: Cause,
    },
    /// Target: drop the replica of this migration (an undo of everything above). If its fence is in flight, only when the
    /// epoch has moved. Obeyed at any epoch.
    Discard,
    /// Source: release the pin of this migration. Obeyed at any epoch.
    Release,
}

/// Which replica of a target's node may go on as the target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reuse {
    /// None: the state is carried over, and nothing is replayed.
    Nothing,
    /// One that never differed from the owner.
    Agreeing,
    /// Any, also one that found that the owner differs from it: an undo takes the shard back from an owner that is wrong.
    Any,
}

/// From when on a target may append its fence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum FenceWhen {
    /// Source and target agreed in this attempt, and so few records lie between the target and the tail. The source serves
    /// until it reads the fence.
    Near {
        /// How many records.
        lag_limit_records: u64,
    },
    /// An undo whose standby differs from the owner: they need not agree, that is why the shard is taken back.
    TakenBack {
        /// How many records.
        lag_limit_records: u64,
    },
    /// They agreed, and the target has applied everything that the source did before its pause at this position.
    CaughtUp {
        /// Where the source stands.
        paused: Position,
        /// Nothing else was compared: some reply with a content must have been.
        needs_replies: bool,
    },
    /// It holds the checkpoint of the paused source: nothing that the source applied is missing.
    Loaded {
        /// Where the source stands.
        paused: Position,
    },
}

impl Step {
    /// The step's name: a phase's, where the phase is one step.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Step::PrepareTarget { .. } => "prepare-target",
            Step::PrepareSource => "prepare-source",
            Step::Checkpoint { .. } => "checkpoint",
            Step::Pause { .. } => "pause",
            Step::Transfer { .. } => "transfer",
            Step::Restore => "restore",
            Step::Replay { .. } => "replay",
            Step::Verify { .. } => "verify",
            Step::Handover { .. } => "handover",
            Step::Discard => "discard",
            Step::Release => "release",
        }
    }
}

/// What became of a command; sent again whenever the command comes again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// The command's migration.
    pub migration: MigrationId,
    /// The command's attempt.
    pub attempt: u32,
    /// [`Step::name`] of the command's step.
    pub step: String,
    /// Who answers.
    pub from: Replica,
    /// What became of it.
    pub status: StepStatus,
}

/// How far a step has come.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepStatus {
    /// Under way. Sent from time to time.
    Running {
        /// For a target: how many records it is behind the tail it knows.
        lag_records: u64,
        /// For a checkpoint or transfer: bytes so far.
        bytes: u64,
    },
    /// Done.
    Done(StepDone),
    /// Cannot be done.
    Failed(StepFailure),
}

/// What a finished step brought.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum StepDone {
    /// Nothing but that it is done.
    Plain,
    /// The target is prepared.
    Prepared {
        /// Up to where it has applied the log already, if it keeps a replica.
        warm: Option<Position>,
        /// Whether that replica differs from the owner.
        differs: bool,
    },
    /// The source stands still.
    Paused {
        /// The last record that it applied.
        position: Position,
    },
    /// The checkpoint that is recorded, counted and pinned.
    Checkpoint {
        /// After which record.
        position: Position,
        /// Its manifest's hash.
        manifest: Hash,
        /// The state's size.
        state_bytes: u64,
        /// What was put into the checkpoint store for it, packed.
        stored_bytes: u64,
        /// What was there already, unpacked.
        reused_bytes: u64,
    },
    /// The replicas agree at `position`.
    Agreed {
        /// The mark's position.
        position: Position,
        /// The running hash there.
        hash: Hash,
        /// The state hash there, if both replicas' saves are canonical.
        state: Option<Hash>,
        /// Whether any reply informed the running hash since the load.
        replies_compared: u64,
    },
    /// The fence E was appended and read back as counted.
    Fenced {
        /// Where it stands.
        position: Position,
    },
}

/// Why a step cannot be done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepFailure {
    /// What a program may decide by.
    pub code: FailureCode,
    /// What was wrong, where, and what to do, for people.
    pub message: String,
    /// Of [`FailureCode::Diverged`]: where and in what the replicas differ.
    #[serde(default)]
    pub difference: Option<Box<Difference>>,
}

impl StepFailure {
    /// Without more than the words.
    #[must_use]
    pub fn new(code: FailureCode, message: &str) -> StepFailure {
        StepFailure { code, message: message.to_owned(), difference: None }
    }
}

/// The kinds of failure of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FailureCode {
    /// The receiver's fold does not stand at E−1: the attempt is void.
    WrongEpoch,
    /// The command is for another run of this node's sidecar.
    WrongIncarnation,
    /// The service is not configured on this node.
    UnknownService,
    /// The receiver does not own the shard (source), or owns it already (target).
    WrongRole,
    /// The receiver has not the replica that the step needs: an earlier step was lost by a restart of its service.
    NoReplica,
    /// The service could not be started, saved or loaded.
    Service,
    /// The log or the checkpoint store could not be used.
    Broker,
    /// The checkpoint is damaged or missing.
    Checkpoint,
    /// Source and target differ: never hands over (invariant 8).
    Diverged,
    /// Nothing shows that they are equal.
    Unproven,
    /// It took too long.
    Deadline,
}

/// A service's answer to a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// HTTP status.
    pub status: u16,
    /// End-to-end headers.
    pub headers: Vec<Header>,
    /// The content.
    pub body: Bytes,
}

/// A reply on its way to the ingress that holds the client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplyMail {
    /// Which shard's.
    pub shard: ShardId,
    /// Whose reply.
    pub name: MessageName,
    /// Where the message stands.
    pub position: Position,
    /// The epoch in which `from` owns as it gives the reply out.
    pub epoch: Epoch,
    /// Who gives it out.
    pub from: Replica,
    /// The reply.
    pub reply: Reply,
}

/// An ingress asks for replies that are overdue.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskReplies {
    /// Which shard's.
    pub shard: ShardId,
    /// Which messages'.
    pub names: Vec<MessageName>,
    /// Who asks.
    pub ingress: Replica,
}

/// An ingress asks a replica to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskRead {
    /// Which shard.
    pub shard: ShardId,
    /// Names the question.
    pub id: Id128,
    /// The replica must have applied this first.
    pub applied: Position,
    /// GET, HEAD or OPTIONS; with `bypass` any method.
    pub request: Request,
    /// Any instance may answer, whatever it has applied.
    pub bypass: bool,
    /// Who asks.
    pub ingress: Replica,
}

/// A replica's answer to a read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadAnswer {
    /// Which shard.
    pub shard: ShardId,
    /// The question's name.
    pub id: Id128,
    /// What had been applied.
    pub applied: Position,
    /// `None`: this replica may not answer now; ask the owner again.
    pub reply: Option<Reply>,
}

/// An ingress asks the owner what has become of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AskKept {
    /// Which shard.
    pub shard: ShardId,
    /// Names the question.
    pub id: Id128,
    /// Which message.
    pub name: MessageName,
    /// Who asks.
    pub ingress: Replica,
}

/// What the owner knows of a message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    /// Which shard.
    pub shard: ShardId,
    /// The question's name.
    pub id: Id128,
    /// Whether the one who answers owns at the position that it has applied.
    pub owns: bool,
    /// What it has applied: a reply of a message up to here, if it is not given, is no longer kept.
    pub applied: Position,
    /// The reply.
    pub kept: Option<ReplyMail>,
}

/// Writes mail.
///
/// # Panics
/// Never: all mail can be written as MessagePack.
#[must_use]
pub fn encode<T: Serialize>(mail: &T) -> Bytes {
    rmp_serde::to_vec_named(mail).expect("writing to memory does not fail").into()
}

/// Reads mail; `None` if it is not of this form (mail of another version is dropped like lost mail).
#[must_use]
pub fn decode<T: for<'de> Deserialize<'de>>(bytes: &[u8]) -> Option<T> {
    rmp_serde::from_slice(bytes).ok()
}
