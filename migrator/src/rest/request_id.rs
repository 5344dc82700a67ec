//! Every request has a name: the client's `X-Request-Id`, or one made here. It stands in the answer, in problems, in the log.

use axum::extract::{Request, State};
use axum::http::{HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::Response;
use tracing::Instrument;

use super::Api;

const HEADER: HeaderName = HeaderName::from_static("x-request-id");
/// A longer one is not taken over.
const LENGTH_MAX: usize = 128;

tokio::task_local! {
    static REQUEST_ID: String;
}

/// The present request's name, inside of its handler.
pub fn present() -> Option<String> {
    REQUEST_ID.try_with(String::clone).ok()
}

/// Names the request.
pub async fn name(State(api): State<Api>, request: Request, next: Next) -> Response {
    let given = request.headers().get(HEADER).and_then(|value| value.to_str().ok());
    let fits = |id: &&str| !id.is_empty() && id.len() <= LENGTH_MAX && id.bytes().all(|byte| byte.is_ascii_graphic());
    let id = given.filter(fits).map_or_else(|| api.shell.random().to_string(), str::to_owned);
    let span = tracing::info_span!("request", id, method = %request.method(), path = request.uri().path());
    let mut response = REQUEST_ID.scope(id.clone(), next.run(request)).instrument(span).await;
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(HEADER, value);
    }
    response
}
