//! A service with a batch endpoint, in Rust with hyper and `serde_json`: `batch_service HOST:PORT`.
//!
//! The same service as `batch_service.py`: it keeps lines of text. `handle` makes every reply, alone or in a batch; the form of batches is
//! in README.md beside this file. It knows nothing of Segue, so it uses tokio's sockets as any service would.
#![allow(clippy::disallowed_methods)]

use std::borrow::Cow;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::json;

const BATCH: &str = "application/vnd.segue.batch+ndjson; version=1";

type Lines = Arc<Mutex<Vec<Vec<u8>>>>;

struct Reply {
    status: u16,
    headers: Vec<(&'static str, &'static str)>,
    body: Vec<u8>,
}

/// A request's line; `position`, `time`, `seed`, `replay` and `headers` do not matter to this service.
#[derive(Deserialize)]
struct Line<'a> {
    #[serde(borrow)]
    method: Cow<'a, str>,
    #[serde(borrow)]
    path: Cow<'a, str>,
    #[serde(borrow, default)]
    body: Cow<'a, str>,
    #[serde(borrow, default)]
    body64: Cow<'a, str>,
}

#[derive(Serialize)]
struct ReplyLine<'a> {
    status: u16,
    headers: &'a [(&'static str, &'static str)],
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body64: Option<String>,
}

fn reply_json(status: u16, value: &serde_json::Value) -> Reply {
    Reply { status, headers: vec![("content-type", "application/json")], body: value.to_string().into() }
}

/// One request. Deterministic: the reply depends on the lines so far and on the request only.
fn handle(lines: &mut Vec<Vec<u8>>, method: &str, path: &str, body: &[u8]) -> Reply {
    match (method, path) {
        ("POST", "/add") if body.is_empty() || body.contains(&b'\n') => {
            reply_json(400, &json!({"error": "one line, please"}))
        }
        ("POST", "/add") => {
            lines.push(body.to_vec());
            let crc = crc32fast::hash(&lines[lines.len().saturating_sub(2)..].join(&b'\n'));
            reply_json(200, &json!({"n": lines.len(), "crc": crc}))
        }
        ("POST", "/forget") => {
            lines.clear();
            Reply { status: 204, headers: Vec::new(), body: Vec::new() }
        }
        ("GET", "/count") => reply_json(200, &json!({"n": lines.len()})),
        _ => reply_json(404, &json!({"error": format!("there is no {method} {path}")})),
    }
}

/// Many requests, one line each; as many replies. It is read whole before anything is applied.
fn batch(lines: &mut Vec<Vec<u8>>, content: &[u8]) -> Result<Vec<u8>, Box<dyn std::error::Error>> {
    let requests = content.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let requests: Vec<Line<'_>> = requests.map(serde_json::from_slice).collect::<Result<_, _>>()?;
    let mut replies = Vec::new();
    for Line { method, path, body, body64 } in &requests {
        let body = if body64.is_empty() { body.as_bytes().to_vec() } else { BASE64.decode(body64.as_bytes())? };
        // As alone, where `uri.path()` has no query: a request must be answered the same either way.
        let path = path.split('?').next().unwrap_or_default();
        let Reply { status, headers, body } = handle(lines, method, path, &body);
        let text = std::str::from_utf8(&body).ok();
        let body64 = text.is_none().then(|| BASE64.encode(&body));
        serde_json::to_writer(&mut replies, &ReplyLine { status, headers: &headers, body: text, body64 })?;
        replies.push(b'\n');
    }
    Ok(replies)
}

fn route(lines: &mut Vec<Vec<u8>>, method: &str, path: &str, body: &[u8]) -> Reply {
    match (method, path) {
        ("GET", "/ready") => Reply { status: 200, headers: Vec::new(), body: b"ready\n".to_vec() },
        ("GET", "/state") => {
            let body = lines.iter().flat_map(|line| [line.as_slice(), b"\n"].concat()).collect();
            Reply { status: 200, headers: vec![("segue-snapshot", "fixed, canonical")], body }
        }
        ("PUT", "/state") => {
            *lines = body.split_inclusive(|byte| *byte == b'\n').map(|line| line[..line.len() - 1].to_vec()).collect();
            Reply { status: 204, headers: Vec::new(), body: Vec::new() }
        }
        ("POST", "/batch") => match batch(lines, body) {
            Ok(body) => Reply { status: 200, headers: vec![("content-type", BATCH)], body },
            Err(error) => reply_json(400, &json!({"error": error.to_string()})),
        },
        (method, path) => handle(lines, method, path, body),
    }
}

async fn answer(
    lines: Lines,
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Box<dyn std::error::Error + Send + Sync>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let reply =
        route(&mut lines.lock().expect("nothing panics under this lock"), head.method.as_str(), head.uri.path(), &body);
    let mut response = Response::builder().status(reply.status);
    for (name, value) in reply.headers {
        response = response.header(name, value);
    }
    Ok(response.body(Full::from(reply.body))?)
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> std::io::Result<()> {
    let address = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:8000".to_owned());
    let listener = tokio::net::TcpListener::bind(address).await?;
    let lines = Lines::default();
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let lines = lines.clone();
        tokio::spawn(async move {
            let service = service_fn(|request| answer(lines.clone(), request));
            // Without Date: equal requests get equal replies.
            let mut http = hyper::server::conn::http1::Builder::new();
            let served: Result<(), _> =
                http.auto_date_header(false).serve_connection(TokioIo::new(stream), service).await;
            if let Err(error) = served {
                eprintln!("a connection ended: {error}");
            }
            Ok::<(), Infallible>(())
        });
    }
}
