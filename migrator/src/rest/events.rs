//! `/v1/events` and `/v1/migrations/{id}/events`: server-sent events that can be resumed, or the same once as JSON.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use broker_adapter::ids::MigrationId;
use broker_adapter::shell::Shell;
use bytes::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::OwnedSemaphorePermit;
use tokio::sync::broadcast::error::RecvError;
use utoipa::ToSchema;

use super::extract::Named;
use super::{Api, Problem, migrations, problem};
use crate::driver::Listening;
use crate::events::{EventView, Kind};

/// A stream says so often that it lives.
const BEAT_EVERY: Duration = Duration::from_secs(5);
/// How many streams are served at once.
pub const STREAMS_MAX: usize = 128;

/// Events, once.
#[derive(Clone, Debug, Serialize, ToSchema)]
pub struct EventList {
    /// The oldest first.
    items: Vec<EventView>,
}

/// Everything that happens, as server-sent events; with `Last-Event-ID` also what was missed. With `Accept: application/json` only
/// the latter, once.
#[utoipa::path(get, path = "/v1/events", tag = "events",
    params(("Last-Event-ID" = Option<u64>, Header, description = "the last id that was seen")),
    responses((status = 200, content((EventList = "application/json"), (String = "text/event-stream")))))]
pub async fn all(State(api): State<Api>, headers: HeaderMap) -> Result<Response, Problem> {
    // Once as JSON means all that is remembered.
    let after = last_seen(&headers)?.or(wants_json(&headers).then_some(0));
    answer(&api, &headers, after, None).await
}

/// What happens to one migration, from its acceptance on.
#[utoipa::path(get, path = "/v1/migrations/{id}/events", tag = "events",
    params(("id" = String, Path, description = "the migration"),
        ("Last-Event-ID" = Option<u64>, Header, description = "the last id that was seen")),
    responses((status = 200, content((EventList = "application/json"), (String = "text/event-stream")))))]
pub async fn of_one(State(api): State<Api>, Named(id): Named<String>, headers: HeaderMap) -> Result<Response, Problem> {
    let id = migrations::parse(&id)?;
    migrations::find(&api, id).await?;
    answer(&api, &headers, last_seen(&headers)?, Some(id)).await
}

async fn answer(
    api: &Api,
    headers: &HeaderMap,
    after: Option<u64>,
    of: Option<MigrationId>,
) -> Result<Response, Problem> {
    if wants_json(headers) {
        let mut listening = api.handle.listen(after, of).await?;
        if listening.is_reset {
            // What is left of it: the ring begins later than was asked.
            listening = api.handle.listen(None, of).await?;
        }
        return Ok(Json(EventList { items: listening.past }).into_response());
    }
    let Ok(place) = api.streams.clone().try_acquire_owned() else { return Err(problem::too_many_streams(STREAMS_MAX)) };
    let listening = api.handle.listen(after, of).await?;
    let told = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((told, Body::from_stream(frames(listening, of, api.shell.clone(), place))).into_response())
}

fn wants_json(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    accept.contains("application/json") && !accept.contains("text/event-stream")
}

fn last_seen(headers: &HeaderMap) -> Result<Option<u64>, Problem> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let text = value.to_str().unwrap_or("?");
    text.parse().map(Some).map_err(|_| problem::bad_event_id(text))
}

/// A stream under way.
struct Frames {
    ready: VecDeque<Bytes>,
    listening: Listening,
    of: Option<MigrationId>,
    beat_at: Duration,
    shell: Shell,
    _place: OwnedSemaphorePermit,
}

fn frames(
    mut listening: Listening,
    of: Option<MigrationId>,
    shell: Shell,
    place: OwnedSemaphorePermit,
) -> impl Stream<Item = Result<Bytes, Infallible>> {
    let mut ready = VecDeque::new();
    if listening.is_reset {
        ready.push_back(frame(&passing(Kind::Reset, &shell), Some(listening.position)));
    }
    ready.extend(listening.past.drain(..).map(|event| frame(&event, event.id)));
    // From here on everything was told: a client that comes back names this.
    ready.push_back(frame(&passing(Kind::Heartbeat, &shell), Some(listening.position)));
    let beat_at = shell.now() + BEAT_EVERY;
    let frames = Frames { ready, listening, of, beat_at, shell, _place: place };
    stream::unfold(frames, |mut frames| async move { Some((Ok(frames.next().await?), frames)) })
}

impl Frames {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(ready) = self.ready.pop_front() {
                return Some(ready);
            }
            let event = tokio::select! {
                biased;
                event = self.listening.new.recv() => event,
                () = self.shell.sleep_until(self.beat_at) => {
                    self.beat_at = self.shell.now() + BEAT_EVERY;
                    return Some(frame(&passing(Kind::Heartbeat, &self.shell), None));
                }
            };
            match event {
                Ok(event) if self.of.is_none() || event.migration == self.of => return Some(frame(&event, event.id)),
                Ok(_) => {}
                Err(RecvError::Lagged(_)) => return Some(frame(&passing(Kind::Reset, &self.shell), None)),
                Err(RecvError::Closed) => return None,
            }
        }
    }
}

fn passing(kind: Kind, shell: &Shell) -> EventView {
    EventView::passing(kind, shell.wall_ms(), kind.name())
}

/// JSON has no line breaks of its own, so it is one line of data.
fn frame(event: &EventView, id: Option<u64>) -> Bytes {
    let id = id.map(|id| format!("id: {id}\n")).unwrap_or_default();
    let data = serde_json::to_string(event).unwrap_or_default();
    format!("{id}event: {}\ndata: {data}\n\n", event.kind.name()).into()
}
