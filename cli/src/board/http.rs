//! The delay board's HTTP face: which path does what, and which status says so.
//!
//! ```text
//! POST /flights       one CSV line            → {"n":…,"hash":"…"}
//! POST /padding       {"percent":5,"seed":1,"scattered":false} changes that much of the padding → {"changed_bytes":…}
//! GET  /board         what all of them give
//! GET  /ready         may be asked and fed
//! GET  /segue/state   saves; fixed, canonical
//! PUT  /segue/state   loads; 2xx only when complete
//! ```
//! Saving and showing work on a snapshot and give way after every piece, so flights never wait for a whole state.

use std::convert::Infallible;

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full, Limited, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Method, Request, Response, StatusCode};
use serde_json::json;

use super::flight::{Flight, LINE_LIMIT_BYTES};
use super::owner::{AskError, Board};
use super::saved::{Loader, Pieces};
use super::state::State;

/// Says what a saved state is good for (design section 3).
const SNAPSHOT_HEADER: &str = "segue-snapshot";
const SNAPSHOT: &str = "fixed, canonical";

/// What is answered.
pub type Reply = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// Answers one request.
///
/// # Errors
/// Never: every failure is a status.
pub async fn answer(board: Board, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let reply = match (request.method(), request.uri().path()) {
        (&Method::POST, "/flights") => take_flight(&board, request.into_body()).await,
        (&Method::POST, "/padding") => change_padding(&board, request.into_body()).await,
        (&Method::GET, "/board") => show(&board).await,
        (&Method::GET, "/ready") => Ok(json_reply(StatusCode::OK, &json!({"ready": true}))),
        (&Method::GET, "/segue/state") => board.snapshot().await.map(save),
        (&Method::PUT, "/segue/state") => load(&board, request.into_body()).await,
        (method, path) => Ok(problem(
            StatusCode::NOT_FOUND,
            &format!(
                "there is no {method} {path}; ask POST /flights, POST /padding, GET /board, GET /ready, GET or PUT /segue/state"
            ),
        )),
    };
    Ok(reply.unwrap_or_else(|error| {
        let status = match error {
            AskError::NotLoaded | AskError::Ending => StatusCode::SERVICE_UNAVAILABLE,
            AskError::Superseded => StatusCode::CONFLICT,
        };
        problem(status, &error.to_string())
    }))
}

async fn take_flight(board: &Board, body: Incoming) -> Result<Reply, AskError> {
    // The line end is not part of the line.
    let line = match Limited::new(body, LINE_LIMIT_BYTES + 2).collect().await {
        Ok(line) => line.to_bytes(),
        Err(error) => return Ok(problem(StatusCode::BAD_REQUEST, &format!("the flight cannot be read: {error}"))),
    };
    match Flight::parse(&line) {
        Ok(flight) => {
            let applied = board.apply(flight).await?;
            Ok(json_reply(StatusCode::OK, &json!({"n": applied.n, "hash": applied.hash})))
        }
        Err(error) => Ok(problem(StatusCode::BAD_REQUEST, &error.to_string())),
    }
}

async fn change_padding(board: &Board, body: Incoming) -> Result<Reply, AskError> {
    let change = match Limited::new(body, LINE_LIMIT_BYTES).collect().await {
        Ok(body) => serde_json::from_slice(&body.to_bytes()).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match change {
        Ok(change) => Ok(json_reply(StatusCode::OK, &json!({"changed_bytes": board.change(change).await?}))),
        Err(error) => Ok(problem(StatusCode::BAD_REQUEST, &format!("the change cannot be read: {error}"))),
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
    let mut reply = Response::new(Full::from(content.to_string()).boxed_unsync());
    *reply.status_mut() = status;
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    reply
}

fn problem(status: StatusCode, detail: &str) -> Reply {
    let title = status.canonical_reason().unwrap_or("problem");
    let mut reply = json_reply(status, &json!({"title": title, "status": status.as_u16(), "detail": detail}));
    reply.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    reply
}
