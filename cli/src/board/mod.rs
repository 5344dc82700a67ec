//! The delay board: the demo's stateful service, a process of its own that knows nothing of Segue.
//!
//! It takes one flight per request and keeps statistics of carriers and routes. All that Segue asks of it is in
//! [`http`]: handle requests, be deterministic, save and load the state. Reading order: [`flight`], [`group`], [`state`],
//! [`saved`], [`owner`], [`http`], [`batch`].

mod batch;
pub mod flight;
pub mod group;
mod http;
mod owner;
mod padding;
pub mod saved;
pub mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::time::Duration;

use broker_adapter::shell::{Duplex, Listener, Shell};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use owner::Board;

/// After a failed accept (no file handle left): so that the loop does not spin.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// Opens the port and serves for as long as the shell's tasks live.
///
/// # Errors
/// If the port cannot be opened.
pub async fn serve(address: &str, state_mb: u64, shell: Shell) -> io::Result<String> {
    let listener = shell.listen(address).await?;
    let address = listener.address();
    let board = owner::start(state_mb << 20, &shell);
    shell.clone().spawn(accept(listener, board, shell));
    Ok(address)
}

async fn accept(mut listener: Box<dyn Listener>, board: Board, shell: Shell) {
    loop {
        match listener.accept().await {
            Ok(connection) => shell.spawn(converse(connection, board.clone())),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                shell.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}

async fn converse(connection: Box<dyn Duplex>, board: Board) {
    let service = service_fn(move |request| http::answer(board.clone(), request));
    let mut http = http1::Builder::new();
    // No date: equal flights get equal replies, in whatever replica and delivery.
    let served = http.auto_date_header(false).serve_connection(TokioIo::new(connection), service).await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection ended");
    }
}
