//! The table of faults of brokers: what happens to the servers, or to a log behind our back, at which moment of a move.
//!
//! ```text
//!  Cell ──play──▶ Line (how the move ended, the oracle's word, the proof that the fault struck)
//!   ├─ table()   every cell, and the process faults of `cells` on NATS and Kafka: `tests/soak --brokers`
//!   └─ sample()  each kind of fault on each broker once: the test command
//!  deaths        ten leaders killed in a row, beside a raw client          demo   the server killed in mid-demo
//! ```
//! Faults either *last* (everybody waits, and is answered) or *stop* (a log that is not the one it was: replicas stop and tell the
//! position, and nobody is answered any more).

mod deaths;
mod demo;
mod play;
mod raw;
mod report;
mod stops;
mod strike;

use std::fmt;
use std::path::Path;

pub use deaths::{Deaths, Kill, die};
pub use demo::{Demo, kill_in_mid_demo};
pub use report::{Figures, markdown};

use crate::cells::{Line, Playable};
use crate::harness::BrokerKind;

/// What happens to the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9` of the single server, or of all three, and a restart.
    Kill,
    /// `kill -9` of the server that leads the service's log, of three; restarted when another one leads.
    KillLeader,
    /// `SIGSTOP` for ten seconds; of three, the leader.
    Stop,
    /// A node's readers get little at a time while the log grows.
    SlowConsumer,
    /// An append's acknowledgement is swallowed, and its connection cut.
    LostAck,
    /// The users' password is another one for a while.
    WrongCredentials,
    /// NATS: the stream's `max_bytes` is reached, until the operator raises it. Kafka: `log_high_mark_records` is, until the owner made room.
    Quota,
    /// All records that were read are removed behind our back.
    Purged,
    /// The log is deleted, and an empty one of the same name made.
    Recreated,
    /// The server comes back with an older copy of its files.
    Rewound,
}

/// When.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// While the service serves; it moves afterwards, if it still can.
    Serving,
    /// A move stands before its checkpoint.
    Checkpoint,
    /// A move stands before its replay (a purge: before the transfer, or the target would have read what it may miss).
    Replay,
    /// A move stands before its handover.
    Handover,
}

/// One place of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// On which broker.
    pub broker: BrokerKind,
    /// What happens.
    pub fault: Fault,
    /// When.
    pub moment: Moment,
}

impl Fault {
    /// All.
    pub const ALL: [Fault; 10] = [
        Fault::Kill,
        Fault::KillLeader,
        Fault::Stop,
        Fault::SlowConsumer,
        Fault::LostAck,
        Fault::WrongCredentials,
        Fault::Quota,
        Fault::Purged,
        Fault::Recreated,
        Fault::Rewound,
    ];

    fn name(self) -> &'static str {
        match self {
            Fault::Kill => "kill-and-restart",
            Fault::KillLeader => "kill-leader",
            Fault::Stop => "stop-10-s",
            Fault::SlowConsumer => "slow-consumer",
            Fault::LostAck => "lost-ack",
            Fault::WrongCredentials => "wrong-credentials",
            Fault::Quota => "quota-full",
            Fault::Purged => "purged",
            Fault::Recreated => "recreated",
            Fault::Rewound => "rewound",
        }
    }

    /// Whether the log is another one afterwards, so that nobody may go on.
    #[must_use]
    pub fn stops(self) -> bool {
        matches!(self, Fault::Recreated | Fault::Rewound)
    }

    /// Leaders change among three servers only; what is done to a log or a connection is the same with three.
    fn is_of(self, broker: BrokerKind) -> bool {
        match broker {
            BrokerKind::Embedded => false,
            BrokerKind::Nats | BrokerKind::Kafka => self != Fault::KillLeader,
            BrokerKind::NatsCluster | BrokerKind::KafkaCluster => {
                matches!(self, Fault::Kill | Fault::KillLeader | Fault::Stop)
            }
        }
    }
}

impl Moment {
    /// All.
    pub const ALL: [Moment; 4] = [Moment::Serving, Moment::Checkpoint, Moment::Replay, Moment::Handover];

    fn name(self) -> &'static str {
        match self {
            Moment::Serving => "serving",
            Moment::Checkpoint => "checkpoint",
            Moment::Replay => "replay",
            Moment::Handover => "handover",
        }
    }
}

impl Cell {
    /// The phase before which the move is held.
    fn phase(&self) -> Option<&'static str> {
        match (self.moment, self.fault) {
            (Moment::Serving, _) => None,
            (Moment::Checkpoint, _) => Some("checkpoint"),
            (Moment::Replay, Fault::Purged) => Some("transfer"),
            (Moment::Replay, _) => Some("replay"),
            (Moment::Handover, _) => Some("handover"),
        }
    }
}

/// `nats/rewound/replay`: how the record, the report and `--cell` call it.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.broker, self.fault.name(), self.moment.name())
    }
}

impl Playable for Cell {
    fn play(&self, logs: Option<&Path>) -> Line {
        play::play(self, logs)
    }
}

/// Every cell.
#[must_use]
pub fn table() -> Vec<Cell> {
    let mut cells = Vec::new();
    for broker in BrokerKind::ALL {
        for fault in Fault::ALL.into_iter().filter(|fault| fault.is_of(broker)) {
            cells.extend(Moment::ALL.map(|moment| Cell { broker, fault, moment }));
        }
    }
    cells
}

/// Each kind of fault once on NATS and once on Kafka, each moment about as often.
#[must_use]
pub fn sample() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (begin, single, cluster) in
        [(0, BrokerKind::Nats, BrokerKind::NatsCluster), (2, BrokerKind::Kafka, BrokerKind::KafkaCluster)]
    {
        for (at, fault) in Fault::ALL.into_iter().enumerate() {
            let broker = if fault == Fault::KillLeader { cluster } else { single };
            // Of a purge, only the replay misses anything for certain.
            let moment = if fault == Fault::Purged { Moment::Replay } else { Moment::ALL[(begin + at) % 4] };
            cells.push(Cell { broker, fault, moment });
        }
    }
    cells
}
