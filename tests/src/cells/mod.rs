//! The table of faults of real processes: who is killed or stopped, in which phase of which strategy.
//!
//! ```text
//!  Cell ──play──▶ Line (how it ended, the oracle's word, the proof that the fault fell into its phase)
//!   ├─ table()   every cell: `tests/soak --processes`, resumable by its Record, summed up by markdown()
//!   └─ sample()  twenty of them: the test command
//! ```
//! Names are facts of the table alone; what happens in a cell stands in `play`.

pub(crate) mod fault;
mod many;
pub(crate) mod play;
mod proof;
mod record;
pub(crate) mod report;

use std::fmt;
use std::path::Path;

pub use many::{Asked, Playable, soak};
pub use record::{Line, Record};
pub use report::markdown;

use crate::harness::BrokerKind;

/// Who suffers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Victim {
    /// The sidecar that owns.
    SourceSidecar,
    /// Its service.
    SourceService,
    /// The sidecar that is to own.
    TargetSidecar,
    /// Its service.
    TargetService,
    /// The migrator.
    Migrator,
    /// The embedded broker.
    Broker,
}

/// What happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// `kill -9`; a sidecar, migrator or broker is started again.
    Kill(Victim),
    /// `SIGSTOP`, and `SIGCONT` later.
    Stop(Victim),
    /// Somebody cancels the migration.
    Cancel,
    /// Nothing is done until the paused source takes itself back.
    PauseRunsOut,
}

/// Where inside of its phase.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Moment {
    /// The phase was journalled and its commands are sent only once the victim is down: all of its work meets the fault.
    Held,
    /// The phase's work has begun and lasts, because the service takes its time to start, load and save.
    Working,
}

/// One place of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// On which broker.
    pub broker: BrokerKind,
    /// `live`, …
    pub strategy: &'static str,
    /// `prepare`, …
    pub phase: &'static str,
    /// What happens there.
    pub fault: Fault,
    /// Where inside of the phase.
    pub moment: Moment,
    /// Whether the pause ends while the fault lasts.
    pub short_pause: bool,
}

impl Victim {
    /// All.
    pub const ALL: [Victim; 6] = [
        Victim::SourceSidecar,
        Victim::SourceService,
        Victim::TargetSidecar,
        Victim::TargetService,
        Victim::Migrator,
        Victim::Broker,
    ];

    fn name(self) -> &'static str {
        match self {
            Victim::SourceSidecar => "source-sidecar",
            Victim::SourceService => "source-service",
            Victim::TargetSidecar => "target-sidecar",
            Victim::TargetService => "target-service",
            Victim::Migrator => "migrator",
            Victim::Broker => "broker",
        }
    }
}

impl Fault {
    fn name(self) -> String {
        match self {
            Fault::Kill(victim) => format!("kill:{}", victim.name()),
            Fault::Stop(victim) => format!("stop:{}", victim.name()),
            Fault::Cancel => "cancel".to_owned(),
            Fault::PauseRunsOut => "pause-runs-out".to_owned(),
        }
    }
}

impl Playable for Cell {
    fn play(&self, logs: Option<&Path>) -> Line {
        play::play(self, logs)
    }
}

/// `live/transfer/kill:migrator/held`, and `nats/live/…` on another broker than the embedded one: how the record, the report and
/// `--cell` call it.
impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let moment = if self.moment == Moment::Held { "held" } else { "working" };
        if self.broker != BrokerKind::Embedded {
            write!(f, "{}/", self.broker)?;
        }
        write!(f, "{}/{}/{}/{moment}", self.strategy, self.phase, self.fault.name())?;
        if self.short_pause { f.write_str("/short-pause") } else { Ok(()) }
    }
}

/// The phases of every strategy; a cancel comes in each.
const PHASES: [(&str, &[&str]); 4] = [
    ("live", &["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "handover"]),
    ("ms2m", &["prepare", "checkpoint", "transfer", "restore", "replay", "verify", "pause", "handover"]),
    ("precopy", &["prepare", "checkpoint", "pause", "transfer", "restore", "handover"]),
    ("stop-and-copy", &["prepare", "pause", "transfer", "restore", "handover"]),
];
/// The phases in which somebody is killed or stopped: all of `live`, the pause of the others.
const DISTURBED: [(&str, &[&str]); 4] = [
    ("live", PHASES[0].1),
    ("ms2m", &["pause", "handover"]),
    ("precopy", &["pause", "transfer", "restore", "handover"]),
    ("stop-and-copy", &["pause", "transfer", "restore", "handover"]),
];
/// Phases whose work the service itself can make long: it saves, starts, loads in them.
const LONG: [(&str, &[&str]); 3] = [
    ("live", &["checkpoint", "restore", "verify"]),
    ("precopy", &["pause", "restore"]),
    ("stop-and-copy", &["pause", "restore"]),
];

impl Cell {
    /// Its place in the table: phases stand in the order in which they come.
    fn place(&self) -> (usize, usize, Fault, Moment, bool) {
        let strategy = PHASES.iter().position(|(strategy, _)| *strategy == self.strategy);
        let strategy = strategy.expect("the table names only these");
        let phase = PHASES[strategy].1.iter().position(|phase| *phase == self.phase);
        (strategy, phase.expect("the table names only these"), self.fault, self.moment, self.short_pause)
    }

    /// The target's instance is loaded in `restore`: before that nobody is there who could be killed, for a state as small as this
    /// one was transferred before its instance listens.
    fn has_victim(&self) -> bool {
        let needs_instance =
            matches!(self.fault, Fault::Kill(Victim::TargetService) | Fault::Stop(Victim::TargetService));
        let is_cold = ["precopy", "stop-and-copy"].contains(&self.strategy) && self.phase == "pause";
        let is_before = is_cold || ["prepare", "checkpoint", "transfer"].contains(&self.phase);
        !(needs_instance && is_before)
    }
}

/// Every cell.
#[must_use]
pub fn table() -> Vec<Cell> {
    let faults = || Victim::ALL.into_iter().flat_map(|victim| [Fault::Kill(victim), Fault::Stop(victim)]);
    let mut cells = Vec::new();
    let mut add = |places: &[(&'static str, &[&'static str])], fault: Fault, moment: Moment, short_pause: bool| {
        for (strategy, phases) in places {
            for phase in *phases {
                cells.push(Cell { broker: BrokerKind::Embedded, strategy, phase, fault, moment, short_pause });
            }
        }
    };
    for fault in faults() {
        add(&DISTURBED, fault, Moment::Held, false);
        add(&LONG, fault, Moment::Working, false);
    }
    add(&PHASES, Fault::Cancel, Moment::Held, false);
    add(&LONG, Fault::Cancel, Moment::Working, false);
    add(&DISTURBED[2..], Fault::PauseRunsOut, Moment::Held, true);
    let handover: [(&str, &[&str]); 3] =
        [("ms2m", &["handover"]), ("precopy", &["handover"]), ("stop-and-copy", &["handover"])];
    add(&handover[..1], Fault::PauseRunsOut, Moment::Held, true);
    for victim in [Victim::SourceSidecar, Victim::TargetSidecar, Victim::Migrator] {
        add(&handover, Fault::Stop(victim), Moment::Held, true);
    }
    // Before the pause's commands nobody is paused yet, so nothing can run out.
    cells.retain(|cell| cell.has_victim() && (cell.fault != Fault::PauseRunsOut || cell.phase != "pause"));
    cells.sort_by_key(Cell::place);
    cells
}

/// The twenty cells that every run of the tests plays: all victims, signals and strategies, and most phases.
const SAMPLE: [&str; 20] = [
    "live/prepare/kill:target-sidecar/held",
    "live/checkpoint/kill:source-service/working",
    "live/checkpoint/stop:source-sidecar/held",
    "live/restore/kill:target-service/working",
    "live/transfer/stop:broker/held",
    "live/restore/stop:target-service/held",
    "live/replay/kill:migrator/held",
    "live/verify/stop:target-sidecar/held",
    "live/verify/cancel/held",
    "live/handover/kill:broker/held",
    "live/handover/stop:source-service/held",
    "ms2m/pause/kill:source-sidecar/held",
    "ms2m/handover/stop:migrator/held",
    "ms2m/handover/cancel/held",
    "precopy/pause/kill:source-service/held",
    "precopy/transfer/kill:source-sidecar/held",
    "precopy/handover/stop:source-sidecar/held/short-pause",
    "stop-and-copy/pause/cancel/held",
    "stop-and-copy/restore/kill:target-service/held",
    "stop-and-copy/transfer/pause-runs-out/held/short-pause",
];

/// These twenty.
#[must_use]
pub fn sample() -> Vec<Cell> {
    table().into_iter().filter(|cell| SAMPLE.contains(&cell.to_string().as_str())).collect()
}

/// The same on another broker.
#[must_use]
pub fn sample_on(broker: BrokerKind) -> Vec<Cell> {
    sample().into_iter().map(|cell| Cell { broker, ..cell }).collect()
}
