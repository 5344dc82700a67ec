//! `/v1/services/{name}/why`, `…/checkpoints`, `/v1/log/…`: what one shard's log tells.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use broker_adapter::fold::CountedFence;
use broker_adapter::ids::{MigrationId, NodeName, Position};
use broker_adapter::record::Cause;
use serde::{Deserialize, Serialize};
use sidecar::command::{NodeMail, encode, node_address};
use utoipa::{IntoParams, ToSchema};

use super::extract::{Named, Params};
use super::{Api, Problem, problem};
use crate::browse::{Browser, COUNT_MAX, CheckpointList, LogPage, SkipList};
use crate::handle::NewMigration;
use crate::plan::Check;
use crate::view::{MigrationView, ServiceView};

/// How many nodes are looked at as targets.
const TARGETS_MAX: usize = 100;
/// How many records a page has if nobody says.
const COUNT_DEFAULT: usize = 50;

/// Which part of the service.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct OfShard {
    /// `0` if not given.
    pub(super) shard: Option<String>,
}

/// Why a shard is where it is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Why {
    /// The service.
    service: String,
    /// The part of it.
    shard: String,
    /// Who owns it, by its log.
    #[schema(value_type = Option<String>)]
    owner: Option<NodeName>,
    /// Since when, wall milliseconds; null if that record was trimmed.
    since_ms: Option<u64>,
    /// Why, in one sentence.
    because: String,
    /// Who owned it before, the newest first.
    history: Vec<Ownership>,
    /// Where it could move now, and why not elsewhere.
    can_move_to: Vec<Target>,
}

/// One time of ownership.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Ownership {
    /// The ownership number.
    epoch: u64,
    /// Who.
    #[schema(value_type = String)]
    owner: NodeName,
    /// `first`, `handover`, `restart`, `failover`, `cancel`, `roll-back`, `undo`, `retire` or `resume`.
    #[schema(value_type = String)]
    cause: Cause,
    /// Where its fence stands.
    position: u64,
    /// When, if it is known.
    at_ms: Option<u64>,
    /// The migration whose fence it was.
    #[schema(value_type = Option<String>)]
    migration: Option<MigrationId>,
}

/// A node to which it could move, or not.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Target {
    /// Which.
    #[schema(value_type = String)]
    node: NodeName,
    /// Whether it could move there now.
    ok: bool,
    /// The checks; of those that hold only if it may not move there, all.
    checks: Vec<Check>,
}

/// Looked up by name, so that nobody makes a log by asking for it.
pub(super) async fn known(api: &Api, service: &str, shard: Option<&str>) -> Result<ServiceView, Problem> {
    let services = api.handle.services().await?;
    let part = shard.unwrap_or("0");
    let mut names: Vec<String> = services.iter().map(|one| format!("{}/{}", one.service, one.shard)).collect();
    names.sort();
    let found = services.into_iter().find(|one| one.service.as_str() == service && one.shard.as_str() == part);
    found.ok_or_else(|| problem::unknown_service(&format!("{service}/{part}"), &names))
}

pub(super) fn browser(api: &Api, view: &ServiceView) -> Browser {
    let shard = view.id();
    Browser {
        broker: api.handle.broker.clone(),
        shard,
        shell: api.shell.clone(),
        folds: api.handle.folds.clone(),
        newest: view.checkpoint,
    }
}

/// Why a shard is on its node, and where it could go.
#[utoipa::path(get, path = "/v1/services/{name}/why", tag = "services",
    params(("name" = String, Path, description = "the service"), OfShard),
    responses((status = 200, body = Why)))]
pub async fn why(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(of): Params<OfShard>,
) -> Result<Json<Why>, Problem> {
    let view = known(&api, &name, of.shard.as_deref()).await?;
    let (fences, since_ms) = browser(&api, &view).fences().await?;
    let last = fences.last();
    let mut history = Vec::new();
    for fence in fences.iter().rev() {
        history.push(ownership(&api, fence, since_ms.filter(|_| last == Some(fence))).await?);
    }
    let because = match last {
        Some(fence) => because(fence, migration(&api, fence).await?.as_ref()),
        None => "nobody has owned it yet: start the sidecar whose [[service]] has create = true".to_owned(),
    };
    Ok(Json(Why {
        service: view.service.to_string(),
        shard: view.shard.to_string(),
        owner: last.map(|fence| fence.owner.node.clone()),
        since_ms,
        because,
        history,
        can_move_to: targets(&api, &view).await?,
    }))
}

async fn migration(api: &Api, fence: &CountedFence) -> Result<Option<MigrationView>, Problem> {
    let Some(id) = fence.migration else { return Ok(None) };
    Ok(api.handle.get(id).await?)
}

async fn ownership(api: &Api, fence: &CountedFence, at_ms: Option<u64>) -> Result<Ownership, Problem> {
    let ended_ms = migration(api, fence).await?.and_then(|migration| migration.ended_ms);
    Ok(Ownership {
        epoch: fence.epoch.0,
        owner: fence.owner.node.clone(),
        cause: fence.cause,
        position: fence.position.0,
        at_ms: at_ms.or(ended_ms),
        migration: fence.migration,
    })
}

fn because(fence: &CountedFence, migration: Option<&MigrationView>) -> String {
    let owner = &fence.owner.node;
    let what = match fence.cause {
        Cause::First => format!("{owner} was the first to own it and created its log"),
        Cause::Restart => format!("{owner} owned it, restarted, and took it up again"),
        Cause::Handover => format!("a migration moved it to {owner}"),
        Cause::Failover => format!("{owner} took it over because its owner was gone"),
        Cause::Cancel => format!("a migration was cancelled, and it stayed on {owner}"),
        Cause::RollBack => format!("a migration could not go on, and it stayed on {owner}"),
        Cause::Undo => format!("a migration was undone, and it went back to {owner}"),
        Cause::Retire => format!("it stayed on {owner}, and a standby was retired"),
        Cause::Resume => format!("{owner} was paused for a migration that did not come, and went on"),
    };
    let Some(migration) = migration else { return what };
    let reason = migration.reason.as_ref().map(|reason| format!(", because: {reason}")).unwrap_or_default();
    let error = migration.error.as_ref().map(|error| format!(" ({error})")).unwrap_or_default();
    format!("{what}: migration {}{reason}{error}", migration.id)
}

async fn targets(api: &Api, view: &ServiceView) -> Result<Vec<Target>, Problem> {
    let mut targets = Vec::new();
    let others = view.replicas.iter().filter(|replica| Some(&replica.node) != view.owner.as_ref());
    for replica in others.take(TARGETS_MAX) {
        let wish = NewMigration {
            shard: Some(view.shard.clone()),
            ..NewMigration::new(view.service.clone(), replica.node.clone())
        };
        let plan = api.handle.plan_by_hearsay(wish).await?;
        targets.push(Target { node: replica.node.clone(), ok: plan.ok, checks: plan.checks });
    }
    Ok(targets)
}

/// The checkpoints that the log keeps.
#[utoipa::path(get, path = "/v1/services/{name}/checkpoints", tag = "services",
    params(("name" = String, Path, description = "the service"), OfShard),
    responses((status = 200, body = CheckpointList)))]
pub async fn checkpoints(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(of): Params<OfShard>,
) -> Result<Json<CheckpointList>, Problem> {
    let view = known(&api, &name, of.shard.as_deref()).await?;
    Ok(Json(browser(&api, &view).checkpoints().await?))
}

/// What was asked of whom.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Asked {
    /// The service.
    service: String,
    /// The part of it.
    shard: String,
    /// Who was asked.
    #[schema(value_type = String)]
    owner: NodeName,
    /// The last checkpoint until now: a newer one is the answer.
    #[schema(value_type = Option<u64>)]
    newest: Option<Position>,
}

/// Asks the owner to take a checkpoint, as it does from time to time; it is there when the list shows it.
#[utoipa::path(post, path = "/v1/services/{name}/checkpoints", tag = "services",
    params(("name" = String, Path, description = "the service"), OfShard),
    responses((status = 202, body = Asked)))]
pub async fn take_checkpoint(
    State(api): State<Api>,
    Named(name): Named<String>,
    Params(of): Params<OfShard>,
) -> Result<(StatusCode, Json<Asked>), Problem> {
    let view = known(&api, &name, of.shard.as_deref()).await?;
    let shard = view.id();
    let Some(owner) = view.owner.clone() else { return Err(problem::no_owner(&shard.to_string())) };
    if view.replicas.iter().any(|replica| replica.node == owner && replica.silent) {
        return Err(problem::owner_silent(owner.as_str()));
    }
    let mail = encode(&NodeMail::TakeCheckpoint(shard));
    api.handle.broker.mailbox().send(&node_address(&owner), mail);
    let (service, shard) = (view.service.to_string(), view.shard.to_string());
    Ok((StatusCode::ACCEPTED, Json(Asked { service, shard, owner, newest: view.checkpoint })))
}

/// From where, and how many.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Around {
    /// The first record to show; without it the last ones are shown.
    #[param(minimum = 1)]
    from: Option<u64>,
    /// How many.
    #[param(minimum = 1, maximum = 200, default = 50)]
    count: Option<usize>,
}

/// Records of a shard's log; bodies are cut at 2 KiB, credentials hidden.
#[utoipa::path(get, path = "/v1/log/{service}/{shard}", tag = "services",
    params(("service" = String, Path, description = "the service"), ("shard" = String, Path, description = "its part: `0`"),
        Around),
    responses((status = 200, body = LogPage)))]
pub async fn log(
    State(api): State<Api>,
    Named((service, shard)): Named<(String, String)>,
    Params(around): Params<Around>,
) -> Result<Json<LogPage>, Problem> {
    let count = around.count.unwrap_or(COUNT_DEFAULT);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(problem::bad_query(&format!("count={count} is not between 1 and {COUNT_MAX}")));
    }
    if around.from == Some(0) {
        return Err(problem::bad_query("from=0: the first record is 1"));
    }
    let view = known(&api, &service, Some(&shard)).await?;
    Ok(Json(browser(&api, &view).page(around.from.map(Position), count).await?))
}

/// Messages that are never delivered, because each delivery ended the service.
#[utoipa::path(get, path = "/v1/log/{service}/{shard}/skips", tag = "services",
    params(("service" = String, Path, description = "the service"), ("shard" = String, Path, description = "its part: `0`")),
    responses((status = 200, body = SkipList)))]
pub async fn skips(
    State(api): State<Api>,
    Named((service, shard)): Named<(String, String)>,
) -> Result<Json<SkipList>, Problem> {
    let view = known(&api, &service, Some(&shard)).await?;
    Ok(Json(browser(&api, &view).skips().await?))
}
