//! `/v1/migrations`: order, look, cancel, undo, retire.

use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::ids::{MigrationId, NodeName, ServiceName};
use serde::Deserialize;
use utoipa::IntoParams;

use super::extract::{Content, Form, Named, Params};
use super::{Api, Problem, problem};
use crate::handle::{CreateError, ListFilter, NewMigration};
use crate::machine::{Ending, OrderKey};
use crate::plan::Plan;
use crate::recording::Recording;
use crate::series::SeriesView;
use crate::view::{MigrationList, MigrationView};

/// The longest `?wait=`.
const WAIT_MAX: Duration = Duration::from_secs(60);
/// The longest `Idempotency-Key`.
const KEY_MAX_BYTES: usize = 256;
/// How many migrations a page has if nobody says.
const PAGE_DEFAULT: usize = 50;
/// How many it has at most.
const PAGE_MAX: usize = 200;

/// Which migrations, and how many of them.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Listing {
    /// Only of this service.
    #[param(value_type = Option<String>)]
    service: Option<ServiceName>,
    /// Only from or to this node.
    #[param(value_type = Option<String>)]
    node: Option<NodeName>,
    /// Only those that ended so.
    outcome: Option<Ending>,
    /// `true`: only those that run; `false`: only those that have ended.
    running: Option<bool>,
    /// How many at most.
    #[param(minimum = 1, maximum = 200, default = 50)]
    page_size: Option<usize>,
    /// `next_page_token` of the page before.
    page_token: Option<String>,
}

/// Migrations, the newest first.
#[utoipa::path(get, path = "/v1/migrations", tag = "migrations", params(Listing),
    responses((status = 200, body = MigrationList)))]
pub async fn list(State(api): State<Api>, Params(listing): Params<Listing>) -> Result<Json<MigrationList>, Problem> {
    let page_size = listing.page_size.unwrap_or(PAGE_DEFAULT);
    if !(1..=PAGE_MAX).contains(&page_size) {
        return Err(problem::bad_query(&format!("page_size={page_size} is not between 1 and {PAGE_MAX}")));
    }
    let behind = match &listing.page_token {
        None => None,
        Some(token) => Some(read_token(token).ok_or_else(|| problem::bad_page_token(token))?),
    };
    let Listing { service, node, outcome, running, .. } = listing;
    let (items, has_more) = api.handle.page(ListFilter { service, node, outcome, running, page_size, behind }).await?;
    let last = items.last().filter(|_| has_more);
    let next_page_token = last.map(|last| format!("{:x}-{}", last.accepted_ms, last.id));
    Ok(Json(MigrationList { items, next_page_token }))
}

fn read_token(token: &str) -> Option<(u64, MigrationId)> {
    let (accepted_ms, id) = token.split_once('-')?;
    Some((u64::from_str_radix(accepted_ms, 16).ok()?, id.parse().ok()?))
}

impl Form for NewMigration {
    const HINT: &'static str = r#"send {"service": NAME, "to": NODE} and, if wanted, "shard", "strategy", "reason", "pause_limit_ms", "cutoff_ms", "keep_standby_s", "max_blackout_ms", "deadline_s", "allow_unproven""#;
}

/// Whether it is meant.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Meaning {
    /// `true`: checks everything, answers the plan, changes nothing.
    validate_only: Option<bool>,
}

/// Orders a migration; it is accepted when that stands in the journal.
#[utoipa::path(post, path = "/v1/migrations", tag = "migrations", request_body = NewMigration,
    params(Meaning, ("Idempotency-Key" = Option<String>, Header, min_length = 1, max_length = 256,
        description = "the same key with the same order within 24 h gives the same migration; with another order 422")),
    responses(
        (status = 202, body = MigrationView, headers(("Location" = String, description = "where it is told"))),
        (status = 200, body = Plan, description = "the plan, of validate_only; `ok` tells whether it would be accepted")))]
pub async fn create(
    State(api): State<Api>,
    Params(meaning): Params<Meaning>,
    headers: HeaderMap,
    Content(new): Content<NewMigration>,
) -> Result<Response, Problem> {
    let key = order_key(&headers, &new)?;
    if meaning.validate_only == Some(true) {
        return Ok(Json(api.handle.plan(new).await?).into_response());
    }
    match api.handle.create_under(new.clone(), key).await {
        Ok(id) => accepted(&api, id).await,
        Err(error) => {
            let checks = api.handle.plan_by_hearsay(new).await.map(|plan| plan.checks);
            Err(Problem::from(error).with_checks(checks.unwrap_or_default()))
        }
    }
}

/// The order as it was understood, not as it was written, tells whether it is the same.
fn order_key(headers: &HeaderMap, new: &NewMigration) -> Result<Option<OrderKey>, Problem> {
    let mut given = headers.get_all("idempotency-key").iter();
    let Some(key) = given.next() else { return Ok(None) };
    let bad = |reason: &str| Err(CreateError::BadKey(reason.to_owned()).into());
    if given.next().is_some() {
        return bad("given more than once");
    }
    let key = key.as_bytes();
    if key.is_empty() || key.len() > KEY_MAX_BYTES || !key.iter().all(u8::is_ascii_graphic) {
        return bad("not 1 to 256 visible characters");
    }
    let request = serde_json::to_vec(new).expect("an order can be written");
    Ok(Some(OrderKey::of(key, &request)))
}

/// Moves the shard back to where a completed migration took it from: a migration of its own.
#[utoipa::path(post, path = "/v1/migrations/{id}/undo", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 202, body = MigrationView, headers(("Location" = String, description = "where it is told")))))]
pub async fn undo(State(api): State<Api>, Named(id): Named<String>) -> Result<Response, Problem> {
    let id = api.handle.undo(parse(&id)?).await?;
    accepted(&api, id).await
}

/// Retires the standby that a completed migration left: an operation of its own.
#[utoipa::path(post, path = "/v1/migrations/{id}/retire", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 202, body = MigrationView, headers(("Location" = String, description = "where it is told")))))]
pub async fn retire(State(api): State<Api>, Named(id): Named<String>) -> Result<Response, Problem> {
    let id = api.handle.retire(parse(&id)?).await?;
    accepted(&api, id).await
}

async fn accepted(api: &Api, id: MigrationId) -> Result<Response, Problem> {
    let view = find(api, id).await?;
    let location = [(header::LOCATION, format!("/v1/migrations/{id}"))];
    Ok((StatusCode::ACCEPTED, location, Json(view)).into_response())
}

/// How long to wait.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Waiting {
    /// `30s` or `500ms`: answers when it has ended, or after this time (at most 60 s).
    wait: Option<String>,
}

/// One migration.
#[utoipa::path(get, path = "/v1/migrations/{id}", tag = "migrations",
    params(("id" = String, Path, description = "the migration"), Waiting),
    responses((status = 200, body = MigrationView)))]
pub async fn one(
    State(api): State<Api>,
    Named(id): Named<String>,
    Params(query): Params<Waiting>,
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

/// How lag and rates ran; at most 1,024 points each.
#[utoipa::path(get, path = "/v1/migrations/{id}/series", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 200, body = SeriesView)))]
pub async fn series(State(api): State<Api>, Named(id): Named<String>) -> Result<Json<SeriesView>, Problem> {
    let id = parse(&id)?;
    find(&api, id).await?;
    Ok(Json(api.handle.series(id).await?))
}

/// The migration as one file, for the dashboard to open anywhere and later.
#[utoipa::path(get, path = "/v1/migrations/{id}/recording", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 200, body = Recording)))]
pub async fn recording(State(api): State<Api>, Named(id): Named<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    let recording = api.handle.recording(id).await?.ok_or_else(|| problem::unknown_migration(&id.to_string()))?;
    let name = format!("attachment; filename=\"segue-{id}.json\"");
    Ok(([(header::CONTENT_DISPOSITION, name)], Json(recording)).into_response())
}

/// Both replies of the first record at which source and target differed.
#[utoipa::path(get, path = "/v1/migrations/{id}/divergence", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 200, body = Object)))]
pub async fn divergence(State(api): State<Api>, Named(id): Named<String>) -> Result<Response, Problem> {
    let id = parse(&id)?;
    find(&api, id).await?;
    match api.handle.divergence(id).await? {
        Some(both) => Ok(([(header::CONTENT_TYPE, "application/json")], both).into_response()),
        None => Err(problem::no_divergence(&id.to_string())),
    }
}

/// Asks a migration to end. How it ends, its fence decides.
#[utoipa::path(post, path = "/v1/migrations/{id}/cancel", tag = "migrations",
    params(("id" = String, Path, description = "the migration")),
    responses((status = 202, body = MigrationView)))]
pub async fn cancel(
    State(api): State<Api>,
    Named(id): Named<String>,
) -> Result<(StatusCode, Json<MigrationView>), Problem> {
    Ok((StatusCode::ACCEPTED, Json(api.handle.cancel(parse(&id)?).await?)))
}

pub(super) async fn find(api: &Api, id: MigrationId) -> Result<MigrationView, Problem> {
    api.handle.get(id).await?.ok_or_else(|| problem::unknown_migration(&id.to_string()))
}

pub(super) fn parse(id: &str) -> Result<MigrationId, Problem> {
    id.parse().map_err(|_| problem::unknown_migration(id))
}

/// `30s` or `500ms`.
fn duration(text: &str) -> Option<Duration> {
    if let Some(ms) = text.strip_suffix("ms") {
        return ms.parse().ok().map(Duration::from_millis);
    }
    text.strip_suffix('s')?.parse().ok().map(Duration::from_secs)
}
