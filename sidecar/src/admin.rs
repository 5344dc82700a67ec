//! `/livez`, `/readyz?verbose` and `/metrics` of a sidecar.
//!
//! Ready means: the log was read to its tail, and a replica that this node owns applies what comes.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::routing::get;
use broker_adapter::ids::{Replica, ShardId};
use broker_adapter::shell::{Listener, Shell};
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use prometheus::{Encoder, Registry, TextEncoder};
use tokio::sync::watch;

use crate::command::ReplicaState;
use crate::room::Room;
use crate::shard::Views;

/// What the admin port shows.
#[derive(Clone)]
pub struct Admin {
    /// This run of this node.
    pub me: Replica,
    /// Its shards.
    pub shards: BTreeMap<ShardId, Views>,
    /// Its numbers.
    pub registry: Registry,
    /// The broker's URL.
    pub broker: String,
    /// What each log holds, and what its acknowledgements mean.
    pub rooms: BTreeMap<ShardId, watch::Receiver<Room>>,
}

impl Admin {
    /// The routes.
    pub fn router(self) -> Router {
        Router::new()
            .route("/livez", get(|| async { "ok\n" }))
            .route("/readyz", get(readyz))
            .route("/metrics", get(metrics))
            .with_state(self)
    }

    /// One line per condition, and whether all hold.
    #[must_use]
    pub fn conditions(&self) -> (bool, String) {
        let mut ready = true;
        let mut lines = format!("node {}\nbroker {}\n", self.me, self.broker);
        for (shard, views) in &self.shards {
            let tail = views.tail.borrow().clone();
            let replica = views.replica.borrow().clone();
            let owns = tail.owner.as_ref() == Some(&self.me);
            let serves = matches!(replica.state, ReplicaState::Following);
            let good = tail.caught_up
                && tail.trouble.is_none()
                && (serves || !owns)
                && tail.owner.is_some()
                && replica.state != ReplicaState::Stopped;
            ready &= good;
            let owner = tail.owner.map_or("nobody".to_owned(), |owner| owner.to_string());
            let trouble = tail.trouble.or(replica.trouble).map_or(String::new(), |trouble| format!(", {trouble}"));
            lines += &format!(
                "[{}] {shard}: owner {owner}, epoch {}, tail {}, replica {:?} at {}{trouble}\n",
                if good { "+" } else { "-" },
                tail.epoch,
                tail.position,
                replica.state,
                replica.applied,
            );
            if let Some(room) = self.rooms.get(shard) {
                lines += &format!("    acknowledged means: {}\n", room.borrow().durability);
            }
        }
        (ready, lines)
    }
}

async fn readyz(State(admin): State<Admin>, RawQuery(query): RawQuery) -> impl IntoResponse {
    let (ready, lines) = admin.conditions();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    let short = if ready { "ready\n" } else { "not ready: see /readyz?verbose\n" };
    (status, if verbose { lines } else { short.to_owned() })
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let mut text = Vec::new();
    match TextEncoder::new().encode(&admin.registry.gather(), &mut text) {
        Ok(()) => (StatusCode::OK, text),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string().into_bytes()),
    }
}

/// Serves a router on a port of the shell, until the process ends.
pub async fn serve(router: Router, mut listener: Box<dyn Listener>, shell: Shell) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let service = TowerToHyperService::new(router.clone());
                shell.spawn(async move {
                    let connection = hyper::server::conn::http1::Builder::new();
                    if let Err(error) = connection.serve_connection(TokioIo::new(stream), service).await {
                        tracing::debug!(%error, "an admin connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept on the admin port");
                shell.sleep(std::time::Duration::from_millis(50)).await;
            }
        }
    }
}
