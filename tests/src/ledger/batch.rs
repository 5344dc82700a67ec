//! The ledger's batch endpoint, `POST /segue/batch`, as `configs/batch/README.md` asks for it, and its faults: a crash or a hang in the
//! middle of a batch is that of the request there; an answer of the wrong shape is the batch's own.

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Response, StatusCode};
use serde::Deserialize;
use serde_json::json;

use super::Ledger;
use super::serve::plain;

/// What the ledger reads of a request's line.
#[derive(Deserialize)]
struct Line {
    method: String,
    path: String,
    #[serde(default)]
    body: String,
}

impl Ledger {
    pub(super) async fn batch(&self, lines: &str) -> Response<Full<Bytes>> {
        let mut replies = Vec::new();
        for line in lines.lines() {
            let Line { method, path, body } = match serde_json::from_str(line) {
                Ok(line) => line,
                Err(error) => return plain(StatusCode::BAD_REQUEST, format!("no request of a batch: {error}\n")),
            };
            replies.push(reply_line(self.apply_request(&method, &path, &body).await).await);
        }
        if self.batch_fault(|faults| &mut faults.batch_short) {
            replies.pop();
        }
        if self.batch_fault(|faults| &mut faults.batch_garbled) {
            replies.insert(0, r#"{"state": 200}"#.to_owned());
            replies.pop();
        }
        plain(StatusCode::OK, replies.join("\n"))
    }
}

async fn reply_line(reply: Response<Full<Bytes>>) -> String {
    let (head, body) = reply.into_parts();
    let body = match body.collect().await {
        Ok(body) => body.to_bytes(),
        Err(never) => match never {},
    };
    let headers: Vec<(&str, &str)> =
        head.headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap_or_default())).collect();
    json!({ "status": head.status.as_u16(), "headers": headers, "body": String::from_utf8_lossy(&body) }).to_string()
}
