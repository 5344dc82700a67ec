//! `/v1/nodes/{name}/drain`: moves every owner away from a node, a few at a time, and tells what cannot move and why.
//!
//! The rest of a drain is this process's intention and nothing more: after a restart of the migrator it is asked for again. What was
//! begun is in the journal and goes on.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use broker_adapter::ids::{MigrationId, NodeName};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::extract::{Content, Form, Named};
use super::{Api, Problem, problem};
use crate::handle::NewMigration;
use crate::plan::Severity;
use crate::view::{NodeView, ServiceView};

/// How many may be moved at once.
const AT_A_TIME_MAX: usize = 32;

/// How a node is drained.
#[derive(Clone, Debug, Default, Deserialize, Serialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct NewDrain {
    /// How many move at once; 1 if not given.
    #[schema(minimum = 1, maximum = 32)]
    at_a_time: Option<usize>,
    /// Why, for people.
    reason: Option<String>,
    /// `live` if not given.
    strategy: Option<String>,
    /// Only tells what would be done.
    validate_only: bool,
}

impl Form for NewDrain {
    const HINT: &'static str =
        r#"send {} and, if wanted, "at_a_time" (1 to 32), "reason", "strategy", "validate_only""#;
}

/// What becomes of a node's shards.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct Drain {
    /// Each shard that it owns.
    moves: Vec<DrainMove>,
}

/// One shard that goes.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct DrainMove {
    /// The service.
    service: String,
    /// The part of it.
    shard: String,
    /// Where to; null if it can go nowhere.
    #[schema(value_type = Option<String>)]
    to: Option<NodeName>,
    /// Its migration; null while it waits for others, and if it cannot move.
    #[schema(value_type = Option<String>)]
    migration: Option<MigrationId>,
    /// Why it cannot move.
    problem: Option<String>,
}

/// Nodes that are being drained.
#[derive(Clone, Default)]
pub struct Draining(Arc<Mutex<BTreeSet<NodeName>>>);

impl Draining {
    fn begin(&self, node: &NodeName) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(node.clone())
    }

    fn end(&self, node: &NodeName) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(node);
    }
}

/// Moves every owner away from a node.
#[utoipa::path(post, path = "/v1/nodes/{name}/drain", tag = "nodes", request_body = NewDrain,
    params(("name" = String, Path, description = "the node")),
    responses((status = 202, body = Drain), (status = 200, body = Drain, description = "of validate_only: nothing was begun")))]
pub async fn drain(
    State(api): State<Api>,
    Named(name): Named<String>,
    Content(new): Content<NewDrain>,
) -> Result<(StatusCode, Json<Drain>), Problem> {
    let at_a_time = new.at_a_time.unwrap_or(1);
    if !(1..=AT_A_TIME_MAX).contains(&at_a_time) {
        return Err(problem::bad_drain(&format!("at_a_time={at_a_time} is not between 1 and {AT_A_TIME_MAX}")));
    }
    let nodes = api.handle.nodes().await?;
    let known: Vec<String> = nodes.iter().map(|node| node.name.to_string()).collect();
    let Some(node) = nodes.iter().find(|node| node.name.as_str() == name) else {
        return Err(problem::unknown_node(&name, &known));
    };
    let mut moves = plan(&api, &nodes, &node.name, &new).await?;
    if new.validate_only {
        return Ok((StatusCode::OK, Json(Drain { moves })));
    }
    if !api.draining.begin(&node.name) {
        return Err(problem::draining(&name));
    }
    let mut rest = VecDeque::new();
    let mut begun = Vec::new();
    for one in &mut moves {
        let Some(wish) = wish(one, &new) else { continue };
        if begun.len() < at_a_time {
            match api.handle.create(wish).await {
                Ok(id) => {
                    one.migration = Some(id);
                    begun.push(id);
                }
                Err(error) => one.problem = Some(error.to_string()),
            }
        } else {
            rest.push_back(wish);
        }
    }
    let (worker, node) = (api.clone(), node.name.clone());
    api.shell.spawn(async move { go_on(worker, node, begun, rest).await });
    Ok((StatusCode::ACCEPTED, Json(Drain { moves })))
}

/// As one ends, the next one begins. One that cannot begin is left out: its refusal is in the log.
async fn go_on(api: Api, node: NodeName, begun: Vec<MigrationId>, rest: VecDeque<NewMigration>) {
    let rest = Arc::new(tokio::sync::Mutex::new(rest));
    let lanes = begun.into_iter().map(|first| {
        let (api, rest, node) = (api.clone(), rest.clone(), node.clone());
        async move {
            let mut running = Some(first);
            while let Some(id) = running.take() {
                if api.handle.wait_end(id).await.is_err() {
                    return;
                }
                while running.is_none() {
                    let Some(wish) = rest.lock().await.pop_front() else { return };
                    let service = wish.service.clone();
                    match api.handle.create(wish).await {
                        Ok(id) => running = Some(id),
                        Err(error) => tracing::warn!(%node, %service, %error, "a drain leaves this one out"),
                    }
                }
            }
        }
    });
    futures_util::future::join_all(lanes).await;
    api.draining.end(&node);
    tracing::info!(%node, "the drain is over");
}

/// For each shard the best target: one that stands by, else the one that owns least.
async fn plan(api: &Api, nodes: &[NodeView], from: &NodeName, new: &NewDrain) -> Result<Vec<DrainMove>, Problem> {
    let mut owned: BTreeMap<NodeName, usize> = nodes.iter().map(|node| (node.name.clone(), node.owns.len())).collect();
    let mut moves = Vec::new();
    for view in api.handle.services().await?.into_iter().filter(|view| view.owner.as_ref() == Some(from)) {
        let mut candidates: Vec<&NodeName> =
            view.replicas.iter().map(|replica| &replica.node).filter(|node| *node != from).collect();
        candidates.sort_by_key(|node| (!view.standbys.contains(node), owned.get(*node).copied(), (*node).clone()));
        let (to, problem) = first_that_may(api, &view, candidates, new).await?;
        if let Some(to) = &to {
            *owned.entry(to.clone()).or_default() += 1;
        }
        let (service, shard) = (view.service.to_string(), view.shard.to_string());
        moves.push(DrainMove { service, shard, to, migration: None, problem });
    }
    Ok(moves)
}

async fn first_that_may(
    api: &Api,
    view: &ServiceView,
    candidates: Vec<&NodeName>,
    new: &NewDrain,
) -> Result<(Option<NodeName>, Option<String>), Problem> {
    let mut problems = Vec::new();
    for node in candidates {
        let wish = NewMigration {
            shard: Some(view.shard.clone()),
            strategy: new.strategy.clone(),
            reason: new.reason.clone(),
            ..NewMigration::new(view.service.clone(), node.clone())
        };
        let plan = api.handle.plan_by_hearsay(wish).await?;
        if plan.ok {
            return Ok((Some(node.clone()), None));
        }
        let failed = plan.checks.into_iter().find(|check| !check.ok && check.severity == Severity::Error);
        problems.extend(failed.map(|check| format!("to {node}: {}", check.detail)));
    }
    let none = "no other node has a [[service]] for it; add one to another sidecar's file".to_owned();
    Ok((None, Some(if problems.is_empty() { none } else { problems.join("; ") })))
}

fn wish(one: &DrainMove, new: &NewDrain) -> Option<NewMigration> {
    let to = one.to.clone()?;
    Some(NewMigration {
        shard: one.shard.parse().ok(),
        strategy: new.strategy.clone(),
        reason: new.reason.clone(),
        ..NewMigration::new(one.service.parse().ok()?, to)
    })
}
