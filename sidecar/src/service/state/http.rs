//! State kind `http`: a GET that streams the state, a PUT that replaces it.
//!
//! The answer's header `Segue-Snapshot` says what the service can: `fixed` (the state is that of the header, so requests may
//! follow while it streams), `canonical` (equal states give equal bytes).

use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};

use super::super::{INSTANCE, SentBody, ServiceError, broken, full, handshake, host, read_reply, refused, timed_out};
use super::LoadBody;

const ANSWER_LIMIT_BYTES: u64 = 64 << 10;

/// A state that streams out of an answer.
pub(super) struct HttpState {
    body: Incoming,
    request: String,
    shell: Shell,
    step_limit: Duration,
    /// Drives the connection; ends with it.
    _driver: TaskSet,
}

/// What the header of an answer says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Can {
    pub fixed: bool,
    pub canonical: bool,
}

impl HttpState {
    /// Asks the service for its state and waits for the header of its answer, which must carry the token.
    pub async fn begin(
        address: &str,
        path: &str,
        token: Option<&str>,
        step_limit: Duration,
        shell: &Shell,
    ) -> Result<(HttpState, Can), ServiceError> {
        let request = format!("GET {path}");
        let (mut sender, driver) = handshake(address, shell).await?;
        let message = hyper::Request::get(path)
            .header("host", host(address))
            .body(full(Bytes::new()))
            .map_err(|error| broken(&request, &error.to_string()))?;
        let answer = match shell.within(step_limit, sender.send_request(message)).await {
            Some(answer) => answer.map_err(|error| broken(&request, &error.to_string()))?,
            None => return Err(timed_out(&request, step_limit)),
        };
        super::super::check_token(&answer, token, address)?;
        if !answer.status().is_success() {
            let reply = shell.within(step_limit, read_reply(answer, ANSWER_LIMIT_BYTES)).await;
            let reply = reply.ok_or_else(|| timed_out(&request, step_limit))?.map_err(|why| broken(&request, &why))?;
            return Err(refused(&request, &reply));
        }
        let can = answer.headers().get("segue-snapshot").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let says = |word: &str| can.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
        let can = Can { fixed: says("fixed"), canonical: says("canonical") };
        let body = answer.into_body();
        Ok((HttpState { body, request, shell: shell.clone(), step_limit, _driver: driver }, can))
    }

    pub async fn next(&mut self) -> Result<Option<Bytes>, ServiceError> {
        loop {
            let Some(frame) = self.shell.within(self.step_limit, self.body.frame()).await else {
                return Err(timed_out(&self.request, self.step_limit));
            };
            match frame {
                None => return Ok(None),
                Some(Err(error)) => return Err(broken(&self.request, &error.to_string())),
                Some(Ok(frame)) => {
                    if let Ok(data) = frame.into_data() {
                        return Ok(Some(data));
                    }
                }
            }
        }
    }
}

/// Replaces the service's state; resolves when the service has answered 2xx, and says whether it echoed the token. A body
/// that ends early, because its sender was dropped, breaks the request off: the service sees that it is not whole by its
/// `Content-Length`.
pub(super) async fn put(
    body: LoadBody,
    address: &str,
    path: &str,
    token: &str,
    limit: Duration,
    shell: &Shell,
) -> Result<bool, ServiceError> {
    let request = format!("PUT {path}");
    let (mut sender, _driver) = handshake(address, shell).await?;
    let stream = futures_util::stream::unfold(body.pieces, |mut pieces| async move {
        let piece = pieces.recv().await?;
        Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
    });
    let content: SentBody = BodyExt::boxed_unsync(StreamBody::new(stream));
    let message = hyper::Request::put(path)
        .header("host", host(address))
        .header("content-type", "application/octet-stream")
        .header("content-length", body.length)
        .header(INSTANCE, token)
        .body(content)
        .map_err(|error| broken(&request, &error.to_string()))?;
    let answer = match shell.within(limit, sender.send_request(message)).await {
        Some(answer) => answer.map_err(|error| broken(&request, &error.to_string()))?,
        None => return Err(timed_out(&request, limit)),
    };
    let echoes = answer.headers().get(INSTANCE).is_some_and(|echoed| echoed.as_bytes() == token.as_bytes());
    let reply = shell.within(limit, read_reply(answer, ANSWER_LIMIT_BYTES)).await;
    let reply = reply.ok_or_else(|| timed_out(&request, limit))?.map_err(|why| broken(&request, &why))?;
    if (200..300).contains(&reply.status) { Ok(echoes) } else { Err(refused(&request, &reply)) }
}
