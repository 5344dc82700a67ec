//! REST: the migrator's face to people and programs, over the handle alone. `openapi.rs` is its contract, `/docs` shows it.
//!
//! Every error is `application/problem+json` (RFC 9457); `problem.rs` is the one place that chooses HTTP statuses.

mod archives;
mod audit;
mod auth;
mod drain;
mod events;
mod extract;
mod fleet;
mod health;
mod migrations;
pub mod openapi;
mod problem;
mod request_id;
mod serve;
mod shards;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::middleware;
use axum::routing::{get, post};
use broker_adapter::embedded::EmbeddedBroker;
use broker_adapter::shell::Shell;
use tokio::sync::Semaphore;

pub use audit::{Audit, AuditError};
pub use auth::{Tokens, TokensError};
pub use problem::Problem;
pub use serve::{serve, serve_inside};

use crate::handle::MigratorHandle;

/// The largest body that is read.
const BODY_MAX_BYTES: usize = 64 << 10;

/// What every route has.
#[derive(Clone)]
struct Api {
    handle: MigratorHandle,
    shell: Shell,
    /// Places for streams of events.
    streams: Arc<Semaphore>,
    tokens: Tokens,
    audit: Audit,
    hosted: Option<EmbeddedBroker>,
    draining: drain::Draining,
    archives: archives::Archives,
}

/// Who may ask, where it is written down what was changed, and what else is shown.
#[derive(Clone)]
pub struct Access {
    /// Without tokens everybody may.
    pub tokens: Tokens,
    /// Beside the log.
    pub audit: Audit,
    /// How large a state may be that is imported, unpacked.
    pub import_limit_bytes: u64,
    /// The broker that this process hosts, whose numbers stand beside its own.
    pub hosted: Option<EmbeddedBroker>,
}

impl Default for Access {
    fn default() -> Access {
        Access { tokens: Tokens::default(), audit: Audit::default(), import_limit_bytes: 16 << 30, hosted: None }
    }
}

/// All routes, the dashboard's included.
pub fn router(handle: MigratorHandle, shell: &Shell, access: Access) -> Router {
    let Access { tokens, audit, import_limit_bytes, hosted } = access;
    let archives = archives::Archives::up_to(import_limit_bytes);
    let streams = Arc::new(Semaphore::new(events::STREAMS_MAX));
    let draining = drain::Draining::default();
    let api = Api { handle, shell: shell.clone(), streams, tokens, audit, hosted, draining, archives };
    let routes = Router::new()
        .route("/v1/migrations", get(migrations::list).post(migrations::create))
        .route("/v1/migrations/{id}", get(migrations::one))
        .route("/v1/migrations/{id}/divergence", get(migrations::divergence))
        .route("/v1/migrations/{id}/cancel", post(migrations::cancel))
        .route("/v1/migrations/{id}/undo", post(migrations::undo))
        .route("/v1/migrations/{id}/retire", post(migrations::retire))
        .route("/v1/migrations/{id}/events", get(events::of_one))
        .route("/v1/migrations/{id}/series", get(migrations::series))
        .route("/v1/migrations/{id}/recording", get(migrations::recording))
        .route("/v1/events", get(events::all))
        .route("/v1/services", get(fleet::services))
        .route("/v1/services/{name}", get(fleet::service))
        .route("/v1/services/{name}/why", get(shards::why))
        .route("/v1/services/{name}/checkpoints", get(shards::checkpoints).post(shards::take_checkpoint))
        .route("/v1/services/{name}/checkpoints/{checkpoint}/export", get(archives::export))
        .route("/v1/services/{name}/checkpoints/import", post(archives::import))
        .route("/v1/log/{service}/{shard}", get(shards::log))
        .route("/v1/log/{service}/{shard}/skips", get(shards::skips))
        .route("/v1/nodes/{name}/drain", post(drain::drain))
        .route("/v1/nodes", get(fleet::nodes))
        .route("/v1/nodes/{name}", get(fleet::node))
        .route("/v1/status", get(fleet::status))
        .route("/version", get(fleet::version))
        .route("/openapi.json", get(openapi::json))
        .route("/docs", get(openapi::page))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(api.clone());
    let guarded = routes.layer(middleware::from_fn_with_state(api.clone(), auth::guard));
    dashboard::router().merge(guarded).layer(middleware::from_fn_with_state(api, request_id::name))
}
