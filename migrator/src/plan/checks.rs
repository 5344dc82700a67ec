//! What must hold before a shard may move: in order, each with what was found. What needs a check that failed is left out.
//!
//! The same checks refuse an order and fill a plan, so that a plan that is all right is not refused a moment later, unless
//! something changed.

use std::time::Duration;

use broker_adapter::ids::{MigrationId, NodeName, ServiceName, ShardId, ShardName};

use super::{Check, Severity};
use crate::book::Book;
use crate::directory::{Directory, Known};
use crate::handle::NewMigration;
use crate::machine::Strategy;
use crate::refused::CreateError;
use crate::view::best;

/// The longest reason that is kept.
pub const REASON_MAX_BYTES: usize = 1_024;
/// A longer limit is a slip of the pen.
const LIMIT_MAX_MS: u64 = 30 * 24 * 3_600 * 1_000;

/// What somebody wants.
pub type Wish = NewMigration;

/// What is known.
#[derive(Clone)]
pub struct Facts<'a> {
    /// What nodes tell.
    pub directory: &'a Directory,
    /// What was moved before.
    pub book: &'a Book,
    /// What moves the shard now.
    pub moving: Option<MigrationId>,
    /// How many run, and how many may.
    pub running: (usize, usize),
    /// The owner as the log tells it; outside, nothing was read yet.
    pub owner: Option<Option<NodeName>>,
    /// By the shell.
    pub now: Duration,
}

/// One check, and what it found.
#[derive(Clone, Debug)]
pub struct Judged {
    code: &'static str,
    title: &'static str,
    /// What holds, or why not.
    pub found: Result<String, CreateError>,
}

impl Judged {
    /// As a plan tells it.
    pub fn told(&self) -> Check {
        let (detail, hint) = match &self.found {
            Ok(detail) => (detail.clone(), None),
            Err(error) => (error.to_string(), Some(error.hint())),
        };
        let (code, title) = (self.code.to_owned(), self.title.to_owned());
        Check { code, title, ok: self.found.is_ok(), severity: Severity::Error, detail, hint }
    }
}

impl Facts<'_> {
    /// The owner's node: as the log tells it, or else as the node tells it that has read most.
    #[must_use]
    pub fn owner_of(&self, shard: &ShardId) -> Option<NodeName> {
        let told = || best(self.directory, shard).and_then(|status| status.owner.clone()).map(|owner| owner.node);
        self.owner.clone().unwrap_or_else(told)
    }

    fn names(&self, is_meant: impl Fn(&Known) -> bool) -> Vec<String> {
        let meant = self.directory.nodes().filter(|node| is_meant(node));
        meant.map(|node| node.announcement.from.node.to_string()).collect()
    }
}

impl Wish {
    /// The strategy as it was written.
    #[must_use]
    pub fn strategy_name(&self) -> &str {
        self.strategy.as_deref().unwrap_or(Strategy::Live.name())
    }

    /// The strategy, if there is one of this name.
    #[must_use]
    pub fn known_strategy(&self) -> Option<Strategy> {
        Strategy::named(self.strategy_name())
    }
}

/// The shard that is meant.
#[must_use]
pub fn shard_of(wish: &Wish) -> ShardId {
    match &wish.shard {
        Some(part) => ShardId { service: wish.service.clone(), shard: part.clone() },
        None => ShardId::whole(wish.service.clone()),
    }
}

/// Why a move is refused by what the directory and the book say; who owns, only the log decides.
///
/// # Errors
/// The first check that fails.
pub fn refusal(wish: &Wish, facts: &Facts) -> Result<(), CreateError> {
    before_the_log(wish, facts).into_iter().try_for_each(|judged| judged.found.map(|_| ()))
}

/// Every check whose premises hold.
pub fn all(wish: &Wish, facts: &Facts) -> Vec<Judged> {
    let mut judged = before_the_log(wish, facts);
    let shard = shard_of(wish);
    if facts.directory.shards().contains(&shard) {
        owner(wish, &shard, facts, &mut judged);
    }
    judged
}

fn before_the_log(wish: &Wish, facts: &Facts) -> Vec<Judged> {
    let shard = shard_of(wish);
    let mut judged = vec![
        Judged { code: "strategy-known", title: "The strategy is known", found: strategy(wish) },
        Judged { code: "limits", title: "The limits can hold", found: limits(wish) },
    ];
    let known = service(&shard, facts);
    let is_known = known.is_ok();
    judged.push(Judged { code: "service-known", title: "The service is known", found: known });
    let target = node(&wish.to, facts);
    let target_known = target.is_ok();
    judged.push(Judged { code: "node-known", title: "The target is known", found: target });
    if is_known && target_known {
        let found = target_runs(&shard, &wish.to, facts);
        judged.push(Judged { code: "target-runs-service", title: "The target can run the service", found });
    }
    if is_known {
        let found = match facts.moving {
            Some(running) => Err(CreateError::AlreadyMoving { service: shard.to_string(), running }),
            None => Ok("nothing else moves it".to_owned()),
        };
        judged.push(Judged { code: "not-moving", title: "It does not move already", found });
    }
    if target_known {
        let found = alive(&wish.to, facts);
        judged.push(Judged { code: "node-alive", title: "The target is alive", found });
    }
    let (running, most) = facts.running;
    let found = if running < most { Ok(format!("{running} of {most}")) } else { Err(CreateError::TooMany(most)) };
    judged.push(Judged { code: "capacity", title: "Few enough migrations run", found });
    judged
}

fn owner(wish: &Wish, shard: &ShardId, facts: &Facts, judged: &mut Vec<Judged>) {
    let owner = facts.owner_of(shard);
    let found = match &owner {
        Some(owner) => Ok(format!("{owner} owns {shard}")),
        None => Err(CreateError::NoOwner(shard.to_string())),
    };
    judged.push(Judged { code: "owner-known", title: "The shard has an owner", found });
    let Some(owner) = owner else { return };
    let found = if owner == wish.to {
        Err(CreateError::TargetIsSource { service: shard.to_string(), to: owner.clone() })
    } else {
        Ok(format!("from {owner} to {}", wish.to))
    };
    judged.push(Judged { code: "target-is-not-owner", title: "The target does not own it already", found });
    judged.push(Judged { code: "source-alive", title: "The source is alive", found: alive(&owner, facts) });
}

fn strategy(wish: &Wish) -> Result<String, CreateError> {
    let unknown = || CreateError::UnknownStrategy(wish.strategy_name().to_owned());
    Ok(wish.known_strategy().ok_or_else(unknown)?.name().to_owned())
}

/// A limit that says nothing about this strategy would be a promise that nobody keeps.
fn limits(wish: &Wish) -> Result<String, CreateError> {
    if let Some(reason) = wish.reason.as_ref().filter(|reason| reason.len() > REASON_MAX_BYTES) {
        return Err(CreateError::ReasonTooLong(reason.len()));
    }
    let bad = |reason: String| Err(CreateError::BadLimit(reason));
    let all = [
        ("pause_limit_ms", wish.pause_limit_ms, 1),
        ("cutoff_ms", wish.cutoff_ms, 1),
        ("max_blackout_ms", wish.max_blackout_ms, 1),
        ("deadline_s", wish.deadline_s, 1_000),
        ("keep_standby_s", wish.keep_standby_s, 1_000),
    ];
    if let Some((name, ..)) = all.iter().find(|(_, value, ms)| value.is_some_and(|value| value > LIMIT_MAX_MS / ms)) {
        return bad(format!("{name} is above 30 days"));
    }
    let strategy = wish.known_strategy().unwrap_or_default();
    match (strategy, wish.pause_limit_ms, wish.cutoff_ms) {
        (Strategy::Live, Some(_), _) => bad("pause_limit_ms says nothing about live, which pauses nobody".to_owned()),
        (_, Some(0), _) => bad("pause_limit_ms is 0, and a pause needs some time".to_owned()),
        (Strategy::Ms2m, _, Some(0)) => bad("cutoff_ms is 0: that is stop-and-copy".to_owned()),
        (Strategy::Live | Strategy::Precopy | Strategy::StopAndCopy, _, Some(_)) => {
            bad("cutoff_ms is a limit of the strategy ms2m only".to_owned())
        }
        _ if wish.max_blackout_ms == Some(0) => bad("max_blackout_ms is 0, and a handover needs some time".to_owned()),
        _ if wish.deadline_s == Some(0) => bad("deadline_s is 0, and a migration needs some time".to_owned()),
        _ => Ok("they fit the strategy".to_owned()),
    }
}

fn service(shard: &ShardId, facts: &Facts) -> Result<String, CreateError> {
    let shards = facts.directory.shards();
    if shards.contains(shard) {
        return Ok(format!("nodes tell of {shard}"));
    }
    Err(unknown_service(&shard.service, &shard.shard, facts.directory, &shards))
}

fn unknown_service(service: &ServiceName, part: &ShardName, directory: &Directory, shards: &[ShardId]) -> CreateError {
    let (asked, known): (String, Vec<String>) = if directory.knows_service(service) {
        let parts = shards.iter().filter(|known| known.service == *service);
        let shard = ShardId { service: service.clone(), shard: part.clone() };
        (format!("the shard {shard}"), parts.map(ToString::to_string).collect())
    } else {
        let mut names: Vec<String> = shards.iter().map(|known| known.service.to_string()).collect();
        names.dedup();
        (format!("the service {service}"), names)
    };
    CreateError::UnknownService { asked, known }
}

fn node(to: &NodeName, facts: &Facts) -> Result<String, CreateError> {
    if let Some(known) = facts.directory.node(to) {
        let announcement = &known.announcement;
        return Ok(format!("{to} is a node of class {}, {}", announcement.class, announcement.arch));
    }
    Err(CreateError::UnknownNode { asked: to.clone(), known: facts.names(|_| true) })
}

fn alive(name: &NodeName, facts: &Facts) -> Result<String, CreateError> {
    match facts.directory.node(name) {
        Some(known) if !known.is_silent(facts.now) => {
            let ago = facts.now.saturating_sub(known.heard_at).as_millis();
            Ok(format!("{name} was heard {ago} ms ago"))
        }
        _ => Err(CreateError::NodeSilent(name.clone())),
    }
}

fn target_runs(shard: &ShardId, to: &NodeName, facts: &Facts) -> Result<String, CreateError> {
    let runs = |node: &Known| node.status(shard).is_some_and(|status| status.runs_replica);
    let target = facts.directory.node(to);
    if target.is_some_and(runs) {
        return Ok(format!("{to} has a [[service]] for it"));
    }
    let (to, service, known) = (to.clone(), shard.to_string(), facts.names(runs));
    Err(match target.and_then(|node| node.status(shard)) {
        Some(_) => CreateError::TargetIsIngress { to, service, known },
        None => CreateError::TargetWithoutService { to, service, known },
    })
}
