//! Saving and loading a service's state: a GET that streams it, a PUT that replaces it.
//!
//! The answer's header `Segue-Snapshot` says what the service can: `fixed` (the state is that of the header, so requests may
//! follow while it streams), `canonical` (equal states give equal bytes).

use std::time::Duration;

use broker_adapter::shell::{Shell, TaskSet};
use bytes::Bytes;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use tokio::sync::mpsc;

use super::{SentBody, ServiceError, broken, full, handshake, read_reply, refused, timed_out};

/// How many pieces of a state may wait between the store and the service.
const LOAD_PIECES: usize = 4;

/// A state that streams out of the service.
pub struct SavedState {
    /// Requests may be delivered while it streams.
    pub fixed: bool,
    /// Equal states give equal bytes.
    pub canonical: bool,
    body: Incoming,
    request: String,
    shell: Shell,
    step_limit: Duration,
    /// Drives the connection; ends with it.
    _driver: TaskSet,
}

impl SavedState {
    /// Asks the service for its state and waits for the header of its answer.
    ///
    /// # Errors
    /// What was tried and what the service answered.
    pub async fn begin(
        address: &str,
        path: &str,
        step_limit: Duration,
        shell: &Shell,
    ) -> Result<SavedState, ServiceError> {
        let request = format!("GET {path}");
        let (mut sender, driver) = handshake(address, shell).await?;
        let message = hyper::Request::get(path)
            .header("host", address)
            .body(full(Bytes::new()))
            .map_err(|error| broken(&request, &error.to_string()))?;
        let answer = match shell.within(step_limit, sender.send_request(message)).await {
            Some(answer) => answer.map_err(|error| broken(&request, &error.to_string()))?,
            None => return Err(timed_out(&request, step_limit)),
        };
        if !answer.status().is_success() {
            let reply = read_reply(answer, 64 << 10).await.map_err(|reason| broken(&request, &reason))?;
            return Err(refused(&request, &reply));
        }
        let can = answer.headers().get("segue-snapshot").and_then(|value| value.to_str().ok()).unwrap_or_default();
        let says = |word: &str| can.split(',').any(|part| part.trim().eq_ignore_ascii_case(word));
        Ok(SavedState {
            fixed: says("fixed"),
            canonical: says("canonical"),
            body: answer.into_body(),
            request,
            shell: shell.clone(),
            step_limit,
            _driver: driver,
        })
    }

    /// The next piece of the state; `None` at its end.
    ///
    /// # Errors
    /// The service broke off or took too long.
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

/// A state on its way into a service.
pub struct LoadBody {
    pieces: mpsc::Receiver<Bytes>,
    length: u64,
}

/// Where the pieces go in, and the body that they make; `length` is that of all of them.
#[must_use]
pub fn load_channel(length: u64) -> (mpsc::Sender<Bytes>, LoadBody) {
    let (sender, pieces) = mpsc::channel(LOAD_PIECES);
    (sender, LoadBody { pieces, length })
}

impl LoadBody {
    /// Replaces the service's state; resolves when the service has answered 2xx. A body that ends early, because its
    /// sender was dropped, breaks the request off: the service sees that it is not whole by its `Content-Length`.
    ///
    /// # Errors
    /// What was tried and what the service answered.
    pub async fn put(self, address: &str, path: &str, limit: Duration, shell: &Shell) -> Result<(), ServiceError> {
        let request = format!("PUT {path}");
        let (mut sender, _driver) = handshake(address, shell).await?;
        let pieces = self.pieces;
        let stream = futures_util::stream::unfold(pieces, |mut pieces| async move {
            let piece = pieces.recv().await?;
            Some((Ok::<_, std::io::Error>(Frame::data(piece)), pieces))
        });
        let body: SentBody = BodyExt::boxed_unsync(StreamBody::new(stream));
        let message = hyper::Request::put(path)
            .header("host", address)
            .header("content-type", "application/octet-stream")
            .header("content-length", self.length)
            .body(body)
            .map_err(|error| broken(&request, &error.to_string()))?;
        let answer = match shell.within(limit, sender.send_request(message)).await {
            Some(answer) => answer.map_err(|error| broken(&request, &error.to_string()))?,
            None => return Err(timed_out(&request, limit)),
        };
        let reply = read_reply(answer, 64 << 10).await.map_err(|reason| broken(&request, &reason))?;
        if (200..300).contains(&reply.status) { Ok(()) } else { Err(refused(&request, &reply)) }
    }
}
