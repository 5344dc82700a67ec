//! Serves a router on a port of the shell: every connection is a task of this process, so that a crash ends them all.
//!
//! `axum::serve` would start its connections on the runtime itself, beyond the process's task set.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use broker_adapter::shell::{Listener, Shell};
use broker_adapter::tls::TlsServer;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::sync::Semaphore;

/// How many clients are served at once; the others wait in the backlog.
const CONNECTIONS_MAX: usize = 512;
/// How long a client may take to send a request's head, and stay idle before the next one.
const HEAD_LIMIT: Duration = Duration::from_secs(75);
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

/// How long a client may take for its TLS handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(10);

/// Serves until the process ends.
pub async fn serve(router: Router, listener: Box<dyn Listener>, shell: Shell) {
    serve_inside(None, router, listener, shell).await;
}

/// The same, inside TLS if there is some.
pub async fn serve_inside(tls: Option<TlsServer>, router: Router, mut listener: Box<dyn Listener>, shell: Shell) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    loop {
        let Ok(place) = places.clone().acquire_owned().await else { return };
        match listener.accept().await {
            Ok(connection) => {
                let service = TowerToHyperService::new(router.clone());
                let (tls, clock) = (tls.clone(), shell.clone());
                shell.spawn(async move {
                    let connection = match tls {
                        None => connection,
                        Some(tls) => match clock.within(HANDSHAKE_LIMIT, tls.accept(connection)).await {
                            Some(Ok(connection)) => connection,
                            Some(Err(error)) => return tracing::debug!(%error, "a client's handshake failed"),
                            None => return tracing::debug!("a client's handshake took too long"),
                        },
                    };
                    let mut server = http1::Builder::new();
                    server.timer(TokioTimer::new()).header_read_timeout(HEAD_LIMIT);
                    if let Err(error) = server.serve_connection(TokioIo::new(connection), service).await {
                        tracing::debug!(%error, "a client's connection ended");
                    }
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a client");
                shell.sleep(ACCEPT_RETRY).await;
            }
        }
    }
}
