//! `/livez`, `/readyz?verbose` and `/metrics` of the migrator.

use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::embedded::EmbeddedBroker;
use prometheus::{Encoder, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder};

use super::{Api, Problem};
use crate::driver::Measured;
use crate::view::Status;

/// The process runs.
#[utoipa::path(get, path = "/livez", tag = "self", responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn livez() -> &'static str {
    "ok\n"
}

/// Ready means: this migrator owns the journal, and the journal takes what it writes.
#[utoipa::path(get, path = "/readyz", tag = "self",
    params(("verbose" = Option<String>, Query, description = "if given, each condition with its line")),
    responses((status = 200, body = String, content_type = "text/plain"),
        (status = 503, body = String, content_type = "text/plain")))]
pub async fn readyz(State(api): State<Api>, RawQuery(query): RawQuery) -> Response {
    let (is_ready, lines) = match api.handle.status().await {
        Ok(status) => conditions(&status),
        Err(stopped) => (false, format!("[-] journal: {stopped}\n")),
    };
    let code = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    let short = if is_ready { "ready\n" } else { "not ready: see /readyz?verbose\n" };
    (code, if is_verbose { lines } else { short.to_owned() }).into_response()
}

fn conditions(status: &Status) -> (bool, String) {
    let is_ready = status.journal_trouble.is_none();
    let sign = if is_ready { '+' } else { '-' };
    let trouble = status.journal_trouble.as_ref().map_or(String::new(), |trouble| format!(", {trouble}"));
    let lines = format!(
        "[{sign}] journal: owned since epoch {}, read to {}{trouble}\n[+] migrations: {} running\n\
         [+] nodes: {} alive, {} silent\n",
        status.journal_epoch, status.journal_position, status.running, status.nodes_alive, status.nodes_silent
    );
    (is_ready, lines)
}

/// What this migrator counts, for Prometheus.
#[utoipa::path(get, path = "/metrics", tag = "self",
    responses((status = 200, body = String, content_type = "text/plain")))]
pub async fn metrics(State(api): State<Api>) -> Result<Response, Problem> {
    let status = api.handle.status().await?;
    let mut text = Vec::new();
    let written = registry(&status, &api.handle.measured).and_then(|registry| {
        let mut families = registry.gather();
        families.extend(api.hosted.iter().flat_map(EmbeddedBroker::measured));
        TextEncoder::new().encode(&families, &mut text)
    });
    Ok(match written {
        Ok(()) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    })
}

/// The driver counts; a registry is only how that is written.
fn registry(status: &Status, measured: &Measured) -> prometheus::Result<Registry> {
    let registry = Registry::new();
    let gauge = |name: &str, help: &str, value: u64| -> prometheus::Result<()> {
        let gauge = IntGauge::new(name, help)?;
        gauge.set(i64::try_from(value).unwrap_or(i64::MAX));
        registry.register(Box::new(gauge))
    };
    gauge("segue_migrations_running", "Migrations that run, after-care included.", status.running)?;
    gauge("segue_journal_position", "The last journal entry that was read.", status.journal_position)?;
    gauge("segue_journal_epoch", "Since which epoch this migrator owns the journal.", status.journal_epoch)?;
    gauge("segue_journal_trouble", "1 while the journal takes nothing.", u64::from(status.journal_trouble.is_some()))?;
    gauge("segue_nodes_alive", "Nodes heard within 5 s.", status.nodes_alive)?;
    gauge("segue_nodes_silent", "Known nodes not heard for 5 s.", status.nodes_silent)?;
    let ended = Opts::new("segue_migrations_ended", "Ended migrations since the journal began, by outcome.");
    let ended = IntGaugeVec::new(ended, &["outcome"])?;
    for (outcome, count) in &status.ended {
        ended.with_label_values(&[outcome]).set(i64::try_from(*count).unwrap_or(i64::MAX));
    }
    registry.register(Box::new(ended))?;
    registry.register(Box::new(measured.blackout.clone()))?;
    registry.register(Box::new(measured.total.clone()))?;
    Ok(registry)
}
