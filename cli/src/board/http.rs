//! The delay board's HTTP face: which path does what, and which status says so.
//!
//! ```text
//! POST /flights       one CSV line            → {"hash":"…","n":…}
//! GET  /board         what all of them give
//! GET  /ready         may be asked and fed
//! GET  /segue/state   saves; fixed, canonical
//! PUT  /segue/state   loads; 2xx only when complete
//! POST /segue/batch   many requests, many replies: see batch.rs
//! ```
//! Saving and showing work on a snapshot and give way after every piece, so flights never wait for a whole state.

use std::convert::Infallible;

use broker_adapter::ids::Hash;
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, LengthLimitError, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};
use serde::Serialize;
use serde_json::json;

use super::batch;
use super::flight::{BadFlight, Flight, LINE_LIMIT_BYTES};
use super::owner::{AskError, Board};
use super::saved::{Loader, Pieces};
use super::state::{Applied, State};

/// Says what a saved state is good for (design section 3).
const SNAPSHOT_HEADER: &str = "segue-snapshot";
const SNAPSHOT: &str = "fixed, canonical";

/// The type of almost every answer.
pub const JSON: &str = "application/json";

/// What is answered.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers one request.
///
/// # Errors
/// Never: every failure is a status.
pub async fn answer(board: Board, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let (method, path) = (request.method().clone(), request.uri().path().to_owned());
    let reply = match (method.as_str(), path.as_str()) {
        ("POST", "/segue/batch") => Ok(batch::answer(&board, request.into_body()).await),
        ("GET", "/segue/state") => board.snapshot().await.map(save),
        ("PUT", "/segue/state") => load(&board, request.into_body()).await,
        (method, path) => {
            // The line end is not part of the line.
            let body = match Limited::new(request.into_body(), LINE_LIMIT_BYTES + 2).collect().await {
                Ok(body) => body.to_bytes(),
                Err(error) if error.is::<LengthLimitError>() => Bytes::from_static(&TOO_LONG),
                Err(error) => {
                    return Ok(problem(StatusCode::BAD_REQUEST, &format!("the body cannot be read: {error}")));
                }
            };
            Ok(handle(&board, method, path, &body).await)
        }
    };
    Ok(reply.unwrap_or_else(not_answered))
}

/// Stands for every line that is too long.
const TOO_LONG: [u8; LINE_LIMIT_BYTES + 3] = [b'x'; LINE_LIMIT_BYTES + 3];

/// What a request is answered, alone or in a batch.
pub async fn handle(board: &Board, method: &str, path: &str, body: &[u8]) -> Reply {
    let reply = match (method, path) {
        ("POST", "/flights") => match parse_flight(body) {
            Ok(flight) => {
                board.apply(flight).await.map(|applied| json_text(StatusCode::OK, Taken::of(applied).to_json()))
            }
            Err(error) => Ok(problem(StatusCode::BAD_REQUEST, &error.to_string())),
        },
        ("GET", "/board") => show(board).await,
        ("GET", "/ready") => Ok(json_reply(StatusCode::OK, &json!({"ready": true}))),
        (method, path) => Ok(problem(
            StatusCode::NOT_FOUND,
            &format!(
                "there is no {method} {path}; ask POST /flights, GET /board, GET /ready, GET or PUT /segue/state, \
                 POST /segue/batch"
            ),
        )),
    };
    reply.unwrap_or_else(not_answered)
}

/// Why the owner did not answer.
pub fn not_answered(error: AskError) -> Reply {
    let status = match error {
        AskError::NotLoaded | AskError::Ending => StatusCode::SERVICE_UNAVAILABLE,
        AskError::Superseded => StatusCode::CONFLICT,
    };
    problem(status, &error.to_string())
}

/// A flight as it comes in a request; every line that is too long gives the same error.
pub fn parse_flight(body: &[u8]) -> Result<Flight, BadFlight> {
    Flight::parse(&body[..body.len().min(TOO_LONG.len())])
}

/// The reply to a flight.
#[derive(Serialize)]
pub struct Taken {
    hash: Hash,
    n: u64,
}

impl Taken {
    /// From what the state says.
    pub fn of(applied: Applied) -> Taken {
        Taken { hash: applied.hash, n: applied.n }
    }

    /// Its body.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("a hash and a number have a JSON form")
    }
}

async fn show(board: &Board) -> Result<Reply, AskError> {
    let State { applied, carriers, routes, .. } = board.snapshot().await?;
    let mut shown = [serde_json::Map::new(), serde_json::Map::new()];
    for (groups, shown) in [carriers, routes].into_iter().zip(&mut shown) {
        for (name, group) in groups {
            shown.insert(name, json!(group.figures()));
            tokio::task::yield_now().await;
        }
    }
    let [carriers, routes] = shown;
    Ok(json_reply(StatusCode::OK, &json!({"flights": applied.n, "carriers": carriers, "routes": routes})))
}

fn save(state: State) -> Reply {
    let pieces = stream::unfold(Pieces::of(state), |mut pieces| async move {
        tokio::task::yield_now().await;
        pieces.next().map(|piece| (Ok(Frame::data(piece)), pieces))
    });
    let mut reply = Response::new(StreamBody::new(pieces.boxed()).boxed_unsync());
    reply.headers_mut().insert(SNAPSHOT_HEADER, HeaderValue::from_static(SNAPSHOT));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    reply
}

async fn load(board: &Board, mut body: Incoming) -> Result<Reply, AskError> {
    let number = board.unload().await?;
    let mut loader = Loader::default();
    while let Some(frame) = body.frame().await {
        let taken = match frame {
            Ok(frame) => loader.push(frame.data_ref().map_or(&[], |data| data)).map_err(|error| error.to_string()),
            Err(error) => Err(format!("the connection broke: {error}")),
        };
        if let Err(reason) = taken {
            return Ok(problem(StatusCode::BAD_REQUEST, &reason));
        }
        tokio::task::yield_now().await;
    }
    match loader.finish() {
        Ok(state) => {
            board.load(number, state).await?;
            Ok(json_reply(StatusCode::OK, &json!({"loaded": true})))
        }
        Err(error) => Ok(problem(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

fn json_reply(status: StatusCode, content: &serde_json::Value) -> Reply {
    json_text(status, content.to_string())
}

fn json_text(status: StatusCode, content: String) -> Reply {
    let mut reply = Response::new(Full::from(content).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
    reply
}

/// A refusal in RFC 9457's form.
pub fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("problem");
    let mut reply = json_reply(status, &json!({"title": title, "status": status.as_u16(), "detail": detail}));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    reply
}
