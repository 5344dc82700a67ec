//! Why a migration is not begun: one error, with its code for programs and what to do, for REST, plans and the command line.

use broker_adapter::ids::{MigrationId, NodeName};

use crate::handle::Stopped;
use crate::machine::Strategy;

/// Why no migration was begun. Nothing has happened, except for [`CreateError::Stopped`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CreateError {
    /// No node tells of such a service (or shard).
    #[error("no node tells of {asked}")]
    UnknownService {
        /// What was asked for.
        asked: String,
        /// What is known.
        known: Vec<String>,
    },
    /// No such node.
    #[error("there is no node {asked}")]
    UnknownNode {
        /// What was asked for.
        asked: NodeName,
        /// What is known.
        known: Vec<String>,
    },
    /// A node that is needed is silent.
    #[error("the node {0} is silent: it was not heard for 5 s or longer")]
    NodeSilent(NodeName),
    /// The target does not run the service.
    #[error("the node {to} does not run {service}")]
    TargetWithoutService {
        /// The target.
        to: NodeName,
        /// The service and shard.
        service: String,
        /// The nodes that do.
        known: Vec<String>,
    },
    /// The target has no replica and can have none.
    #[error("the node {to} is only an ingress of {service}: its [[service]] has neither run nor attach")]
    TargetIsIngress {
        /// The target.
        to: NodeName,
        /// The service and shard.
        service: String,
        /// The nodes that can run it.
        known: Vec<String>,
    },
    /// It is there already.
    #[error("{service} is owned by {to} already")]
    TargetIsSource {
        /// The service and shard.
        service: String,
        /// The target.
        to: NodeName,
    },
    /// One migration at a time.
    #[error("{service} is moving already: migration {running}")]
    AlreadyMoving {
        /// The service and shard.
        service: String,
        /// The migration that runs.
        running: MigrationId,
    },
    /// Nobody owns the shard.
    #[error("{0} has no owner yet")]
    NoOwner(String),
    /// Not a strategy of this version.
    #[error("the strategy {0:?} is not known")]
    UnknownStrategy(String),
    /// A limit that belongs to another strategy, or cannot hold.
    #[error("{0}")]
    BadLimit(String),
    /// No such migration to undo or to retire after.
    #[error("there is no migration {0}")]
    UnknownMigration(MigrationId),
    /// It left nothing that can be taken back or retired.
    #[error("migration {id} left nothing to undo or retire: {reason}")]
    NotLeft {
        /// Which.
        id: MigrationId,
        /// Why.
        reason: String,
    },
    /// As many as may run at once.
    #[error("{0} migrations are running already")]
    TooMany(usize),
    /// The shard's log could not be read.
    #[error("the log of {service} cannot be read: {reason}")]
    LogUnreadable {
        /// The service and shard.
        service: String,
        /// Why.
        reason: String,
    },
    /// The plan says more than the order allows.
    #[error("requests would wait {planned_ms} ms, and max_blackout_ms is {max_ms}")]
    BlackoutTooLong {
        /// As planned.
        planned_ms: u64,
        /// As ordered.
        max_ms: u64,
    },
    /// No `Idempotency-Key` that is kept.
    #[error("the Idempotency-Key is {0}")]
    BadKey(String),
    /// The same key came with another order.
    #[error("the Idempotency-Key was used for another order: migration {0}")]
    KeyReused(MigrationId),
    /// The same order is on its way into the journal.
    #[error("an order with this Idempotency-Key is being accepted at this moment")]
    InFlight,
    /// The reason is too long.
    #[error("the reason is {0} bytes long")]
    ReasonTooLong(usize),
    /// The migrator stopped; whether the migration was begun is in the journal.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// The names that there are, for a hint.
pub(crate) fn known_names(what: &str, known: &[String]) -> String {
    if known.is_empty() {
        return format!("no {what} is known: does a sidecar run, with the same broker as this migrator?");
    }
    format!("known are: {}", known.join(", "))
}

impl CreateError {
    /// The kind, for programs.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.kind().0
    }

    /// The kind, for people.
    #[must_use]
    pub fn title(&self) -> &'static str {
        self.kind().1
    }

    fn kind(&self) -> (&'static str, &'static str) {
        use CreateError as E;
        match self {
            E::UnknownService { .. } => ("unknown-service", "Unknown service"),
            E::UnknownNode { .. } => ("unknown-node", "Unknown node"),
            E::NodeSilent(_) => ("node-silent", "Node silent"),
            E::TargetWithoutService { .. } => ("target-without-service", "Target without the service"),
            E::TargetIsIngress { .. } => ("target-is-ingress", "Target only an ingress"),
            E::TargetIsSource { .. } => ("target-is-source", "Target equal to source"),
            E::AlreadyMoving { .. } => ("already-moving", "Second migration of a shard"),
            E::NoOwner(_) => ("no-owner", "No owner"),
            E::UnknownStrategy(_) => ("unknown-strategy", "Unknown strategy"),
            E::BadLimit(_) => ("bad-limit", "Limit that cannot hold"),
            E::UnknownMigration(_) => ("unknown-migration", "Unknown migration"),
            E::NotLeft { .. } => ("nothing-left", "Nothing to take back"),
            E::TooMany(_) => ("too-many", "Too many migrations"),
            E::LogUnreadable { .. } => ("log-unreadable", "Log unreadable"),
            E::ReasonTooLong(_) => ("reason-too-long", "Reason too long"),
            E::BlackoutTooLong { .. } => ("blackout-too-long", "Blackout above its limit"),
            E::BadKey(_) => ("bad-idempotency-key", "Bad Idempotency-Key"),
            E::KeyReused(_) => ("key-reused", "Idempotency-Key used before"),
            E::InFlight => ("key-in-flight", "Order on its way"),
            E::Stopped(_) => ("stopped", "Migrator stopped"),
        }
    }

    /// What to do.
    #[must_use]
    pub fn hint(&self) -> String {
        use CreateError as E;
        match self {
            E::UnknownService { known, .. } => known_names("service", known),
            E::UnknownNode { known, .. } => known_names("node", known),
            E::NodeSilent(node) => silent(node.as_str()),
            E::TargetWithoutService { known, .. } => {
                format!("add a [[service]] to its sidecar's file; {}", known_names("other node", known))
            }
            E::TargetIsIngress { known, .. } => format!(
                "add run or attach, and state, to its [[service]] and restart its sidecar, or move it to another node; {}",
                known_names("other node", known)
            ),
            E::TargetIsSource { .. } => "name another node as the target".to_owned(),
            E::AlreadyMoving { running, .. } => {
                format!("wait for its end, or POST /v1/migrations/{running}/cancel")
            }
            E::NoOwner(_) => "start the sidecar whose [[service]] has create = true".to_owned(),
            E::UnknownStrategy(_) => {
                let known: Vec<&str> = Strategy::ALL.into_iter().map(Strategy::name).collect();
                format!("the strategies are: {}", known.join(", "))
            }
            E::BadLimit(_) => "leave the limit out, or choose another strategy".to_owned(),
            E::UnknownMigration(_) => {
                "GET /v1/migrations lists the known ones; of ended ones the last 1,000 are kept".to_owned()
            }
            E::NotLeft { .. } => {
                "GET /v1/migrations shows what followed; POST /v1/migrations moves a shard anywhere".to_owned()
            }
            E::TooMany(_) => "wait for one to end".to_owned(),
            E::LogUnreadable { .. } => "look at the broker; nothing was begun".to_owned(),
            E::ReasonTooLong(_) => "give at most 1,024 bytes".to_owned(),
            E::BlackoutTooLong { .. } => {
                "allow more, or take strategy live, which pauses nobody; ?validate_only=true shows the plan".to_owned()
            }
            E::BadKey(_) => "send one Idempotency-Key of 1 to 256 visible characters".to_owned(),
            E::KeyReused(id) => format!("GET /v1/migrations/{id} shows that order; choose another key for this one"),
            E::InFlight => "ask again in a second, with the same key".to_owned(),
            E::Stopped(_) => "ask the migrator that owns the journal now; what was accepted goes on there".to_owned(),
        }
    }
}

/// What to do about a node that is needed and is not heard.
pub(crate) fn silent(node: &str) -> String {
    format!(
        "look at the sidecar of {node}: it has ended, or does not reach the broker; its log tells. `segue sidecar --config FILE` starts \
         it; once it announces itself, ask again"
    )
}
