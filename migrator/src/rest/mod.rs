//! REST: the migrator's face to people and programs, over the handle alone.
//!
//! ```text
//! POST /v1/migrations              202 + Location      GET /v1/services   GET /v1/nodes
//! GET  /v1/migrations[/{id}]       ?wait=30s           GET /livez  /readyz?verbose  /metrics
//! GET  /v1/migrations/{id}/divergence
//! POST /v1/migrations/{id}/cancel  202                 GET /      the dashboard
//! POST /v1/migrations/{id}/undo, /retire   202 + Location: operations of their own
//! ```
//! Every error is `application/problem+json` (RFC 9457); `problem.rs` is the one place that chooses HTTP statuses.

mod health;
mod problem;
mod serve;
#[cfg(test)]
mod tests;

use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use broker_adapter::ids::MigrationId;
use broker_adapter::shell::Shell;
use bytes::Bytes;
use serde::Deserialize;

pub use problem::Problem;
pub use serve::serve;

use crate::handle::{MigratorHandle, NewMigration};
use crate::view::{MigrationView, NodeView, ServiceView};

/// The largest body that is read.
const BODY_MAX_BYTES: usize = 64 << 10;
/// The longest `?wait=`.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// What every route has.
#[derive(Clone)]
struct Api {
    handle: MigratorHandle,
    shell: Shell,
}

/// All routes, the dashboard's included.
pub fn router(handle: MigratorHandle, shell: &Shell) -> Router {
    let api = Api { handle, shell: shell.clone() };
    let routes = Router::new()
        .route("/v1/migrations", get(list).post(create))
        .route("/v1/migrations/{id}", get(one))
        .route("/v1/migrations/{id}/divergence", get(divergence))
        .route("/v1/migrations/{id}/cancel", post(cancel))
        .route("/v1/migrations/{id}/undo", post(undo))
        .route("/v1/migrations/{id}/retire", post(retire))
        .route("/v1/services", get(services))
        .route("/v1/nodes", get(nodes))
        .route("/livez", get(health::livez))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .fallback(problem::no_such_path)
        .method_not_allowed_fallback(problem::no_such_method)
        .layer(DefaultBodyLimit::max(BODY_MAX_BYTES))
        .with_state(api);
    dashboard::router().merge(routes)
}

async fn create(
    State(api): State<Api>,
    body: Result<Bytes, axum::extract::rejection::BytesRejection>,
) -> Result<Response, Problem> {
    let body = body.map_err(|rejection| problem::bad_body(rejection.status(), &rejection.body_text()))?;
    let new: NewMigration = serde_json::from_slice(&body).map_err(|error| problem::bad_json(&error))?;
    let id = api.handle.create(new).await?;
    accepted(&api, id).await
}

async fn undo(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = api.handle.undo(parse(&id)?).await?;
    accepted(&api, id).await
}

async fn retire(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = api.handle.retire(parse(&id)?).await?;
    accepted(&api, id).await
}

async fn accepted(api: &Api, id: MigrationId) -> Result<Response, Problem> {
    let view = find(api, id).await?;
    let location = [(header::LOCATION, format!("/v1/migrations/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(view)).into_response())
}

async fn list(State(api): State<Api>) -> Result<Json<Vec<MigrationView>>, Problem> {
    Ok(Json(api.handle.list().await?))
}

#[derive(Deserialize)]
struct Waiting {
    wait: Option<String>,
}

async fn one(
    State(api): State<Api>,
    Path(id): Path<String>,
    Query(query): Query<Waiting>,
) -> Result<Json<MigrationView>, Problem> {
    let id = parse(&id)?;
    if let Some(wait) = &query.wait {
        let wait = duration(wait).ok_or_else(|| problem::bad_wait(wait))?.min(WAIT_MAX);
        // Its end, or the time is over: either way it is shown as it is.
        if let Some(answer) = api.shell.within(wait, api.handle.wait_end(id)).await {
            answer?;
        }
    }
    Ok(Json(find(&api, id).await?))
}

async fn divergence(State(api): State<Api>, Path(id): Path<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    find(&api, id).await?;
    match api.handle.divergence(id).await? {
        Some(both) => Ok(([(header::CONTENT_TYPE, "application/json")], both).into_response()),
        None => Err(problem::no_divergence(&id.to_string())),
    }
}

async fn cancel(State(api): State<Api>, Path(id): Path<String>) -> Result<(StatusCode, Json<MigrationView>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(api.handle.cancel(parse(&id)?).await?)))
}

async fn services(State(api): State<Api>) -> Result<Json<Vec<ServiceView>>, Problem> {
    Ok(Json(api.handle.services().await?))
}

async fn nodes(State(api): State<Api>) -> Result<Json<Vec<NodeView>>, Problem> {
    Ok(Json(api.handle.nodes().await?))
}

async fn find(api: &Api, id: MigrationId) -> Result<MigrationView, Problem> {
    api.handle.get(id).await?.ok_or_else(|| problem::unknown_migration(&id.to_string()))
}

fn parse(id: &str) -> Result<MigrationId, Problem> {
    id.parse().map_err(|_| problem::unknown_migration(id))
}

/// `30s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}
