//! `/v1/services`, `/v1/nodes`, `/v1/status`, `/version`: what there is.

use std::time::Duration;

use axum::extract::State;
use axum::{Extension, Json};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Who;
use super::extract::Named;
use super::{Api, Problem, problem};
use crate::directory::SILENT_AFTER;
use crate::view::{NodeList, NodeView, ServiceList};

/// Every shard of every service.
#[utoipa::path(get, path = "/v1/services", tag = "services", responses((status = 200, body = ServiceList)))]
pub async fn services(State(api): State<Api>) -> Result<Json<ServiceList>, Problem> {
    Ok(Json(ServiceList { items: api.handle.services().await? }))
}

/// The shards of one service.
#[utoipa::path(get, path = "/v1/services/{name}", tag = "services",
    params(("name" = String, Path, description = "the service")),
    responses((status = 200, body = ServiceList)))]
pub async fn service(State(api): State<Api>, Named(name): Named<String>) -> Result<Json<ServiceList>, Problem> {
    let mut items = api.handle.services().await?;
    let mut known: Vec<String> = items.iter().map(|item| item.service.to_string()).collect();
    items.retain(|item| item.service.as_str() == name);
    if items.is_empty() {
        known.dedup();
        return Err(problem::unknown_service(&name, &known));
    }
    Ok(Json(ServiceList { items }))
}

/// Every node.
#[utoipa::path(get, path = "/v1/nodes", tag = "nodes", responses((status = 200, body = NodeList)))]
pub async fn nodes(State(api): State<Api>) -> Result<Json<NodeList>, Problem> {
    Ok(Json(NodeList { items: api.handle.nodes().await? }))
}

/// One node.
#[utoipa::path(get, path = "/v1/nodes/{name}", tag = "nodes",
    params(("name" = String, Path, description = "the node")), responses((status = 200, body = NodeView)))]
pub async fn node(State(api): State<Api>, Named(name): Named<String>) -> Result<Json<NodeView>, Problem> {
    let nodes = api.handle.nodes().await?;
    let known: Vec<String> = nodes.iter().map(|node| node.name.to_string()).collect();
    let node = nodes.into_iter().find(|node| node.name.as_str() == name);
    node.map(Json).ok_or_else(|| problem::unknown_node(&name, &known))
}

/// How long the broker may take to say what it promises.
const DURABILITY_LIMIT: Duration = Duration::from_secs(1);

/// The migrator itself.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct StatusAnswer {
    /// What holds the logs.
    broker: BrokerAnswer,
    /// The migrator's memory.
    journal: JournalAnswer,
    /// Wall milliseconds now.
    time_ms: u64,
    /// `viewer` or `operator`: whose token this was; null where no tokens are configured.
    role: Option<String>,
    /// A node that was not heard for so long is silent.
    stale_after_ms: u64,
    /// Migrations that run, after-care included.
    running: u64,
    /// Nodes heard lately.
    nodes_alive: u64,
    /// Nodes not heard lately.
    nodes_silent: u64,
}

/// What holds the logs.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct BrokerAnswer {
    /// Where it is, without credentials.
    url: String,
    /// `segue`, `nats`, `kafka`, `memory`, …
    kind: String,
    /// What an acknowledgement means there.
    durability: String,
}

/// The migrator's memory.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct JournalAnswer {
    /// The last entry that was read.
    position: u64,
    /// Since which epoch this migrator owns it.
    epoch: u64,
    /// Why it takes nothing now.
    trouble: Option<String>,
}

/// How the migrator itself is.
#[utoipa::path(get, path = "/v1/status", tag = "self", responses((status = 200, body = StatusAnswer)))]
pub async fn status(State(api): State<Api>, Extension(who): Extension<Who>) -> Result<Json<StatusAnswer>, Problem> {
    let status = api.handle.status().await?;
    let url = api.handle.broker.url();
    let kind = url.split(':').next().unwrap_or_default().to_owned();
    let durability = api.shell.within(DURABILITY_LIMIT, api.handle.durability()).await;
    let durability = match durability {
        Some(Ok(durability)) => durability,
        Some(Err(error)) => format!("not known now: {error}"),
        None => "not known now: the broker does not answer".to_owned(),
    };
    Ok(Json(StatusAnswer {
        broker: BrokerAnswer { url, kind, durability },
        journal: JournalAnswer {
            position: status.journal_position,
            epoch: status.journal_epoch,
            trouble: status.journal_trouble,
        },
        time_ms: api.shell.wall_ms(),
        role: who.role.map(|role| role.name().to_owned()),
        stale_after_ms: u64::try_from(SILENT_AFTER.as_millis()).unwrap_or(u64::MAX),
        running: status.running,
        nodes_alive: status.nodes_alive,
        nodes_silent: status.nodes_silent,
    }))
}

/// Which program this is.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct VersionAnswer {
    /// Of the program.
    version: &'static str,
    /// Where it was built from, if the build was told (`SEGUE_COMMIT`).
    commit: Option<&'static str>,
    /// Of this interface.
    api: &'static str,
    /// What it was built with.
    features: Vec<&'static str>,
}

/// Which version runs.
#[utoipa::path(get, path = "/version", tag = "self", responses((status = 200, body = VersionAnswer)))]
pub async fn version() -> Json<VersionAnswer> {
    Json(VersionAnswer {
        version: env!("CARGO_PKG_VERSION"),
        commit: option_env!("SEGUE_COMMIT"),
        api: "v1",
        features: broker_adapter::FEATURES.to_vec(),
    })
}
