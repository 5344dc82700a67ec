//! `segue broker`: the embedded broker in a process of its own, and its `/livez`, `/readyz?verbose` and `/metrics`.
//!
//! Ready means: it takes appends. Who may come in is decided by the broker's door, before a port is opened.

use std::path::PathBuf;
use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use broker_adapter::Broker;
use broker_adapter::embedded::door::{Door, DoorOptions};
use broker_adapter::embedded::server::serve_behind;
use broker_adapter::embedded::{EmbeddedBroker, Options};
use broker_adapter::shell::{Listener, Shell};
use broker_adapter::tls::TlsFiles;
use serde::Deserialize;

use crate::Failure;
use crate::args::BrokerArguments;
use crate::serve::read;

/// What `segue broker` is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where other processes reach it, as `HOST:PORT`.
    pub listen: String,
    /// The folder of its logs and checkpoints.
    pub path: PathBuf,
    /// Where `/livez`, `/readyz` and `/metrics` are answered, as `HOST:PORT`; nowhere if not said.
    #[serde(default)]
    pub admin: Option<String>,
    /// Appends are refused once its log file is larger.
    #[serde(default)]
    pub capacity_bytes: Option<u64>,
    /// Appends are refused once the disk has less left.
    #[serde(default)]
    pub reserve_bytes: Option<u64>,
    /// A file with the tokens that its clients must send one of, one a line.
    #[serde(default)]
    pub token_file: Option<PathBuf>,
    /// Certificate and key, PEM; then it speaks TLS alone, and its clients write `segues://`.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// Whether it may listen on another address than loopback without both.
    #[serde(default)]
    pub allow_remote: bool,
}

/// A port cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({setting}): {reason}; choose another port, or end what uses this one")]
pub struct ListenError {
    address: String,
    setting: &'static str,
    reason: std::io::Error,
}

/// Serves the embedded broker until the process ends.
///
/// # Errors
/// If everybody could come in from elsewhere, or its files, folder or ports cannot be had.
pub async fn run(arguments: &BrokerArguments, shell: Shell) -> Result<(), Failure> {
    let named = [("listen", &arguments.listen), ("path", &arguments.path), ("admin", &arguments.admin)];
    let config: BrokerConfig = read("broker", &arguments.config, &named)?;
    let door = Door::new(&config.door(), &shell).map_err(crate::other)?;
    let broker = EmbeddedBroker::open(&config.path, config.options(), &shell).await.map_err(crate::other)?;
    let listener = listen(&config.listen, "listen", &shell).await.map_err(crate::other)?;
    let (address, guarded_by) = (listener.address(), door.describe());
    if let Some(admin) = &config.admin {
        let listener = listen(admin, "admin", &shell).await.map_err(crate::other)?;
        let shown = Shown { broker: broker.clone(), place: format!("at {address}, guarded by {guarded_by}").into() };
        shell.spawn(sidecar::admin::serve(router(shown), listener, shell.clone()));
    }
    tracing::info!(address, guarded_by, path = %config.path.display(), "serving the embedded broker");
    serve_behind(door, broker, listener, shell).await;
    Ok(())
}

impl BrokerConfig {
    fn door(&self) -> DoorOptions {
        DoorOptions {
            listen: self.listen.clone(),
            token_file: self.token_file.clone(),
            tls: self.tls.clone(),
            allow_remote: self.allow_remote,
            table: "",
        }
    }

    fn options(&self) -> Options {
        let defaults = Options::default();
        Options {
            capacity_bytes: self.capacity_bytes.unwrap_or(defaults.capacity_bytes),
            reserve_bytes: self.reserve_bytes.unwrap_or(defaults.reserve_bytes),
            ..defaults
        }
    }
}

async fn listen(address: &str, setting: &'static str, shell: &Shell) -> Result<Box<dyn Listener>, ListenError> {
    let failed = |reason| ListenError { address: address.to_owned(), setting, reason };
    shell.listen(address).await.map_err(failed)
}

/// What the admin port shows.
#[derive(Clone)]
struct Shown {
    broker: EmbeddedBroker,
    /// Where it serves, and how that is guarded.
    place: Arc<str>,
}

fn router(shown: Shown) -> Router {
    Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(shown)
}

async fn readyz(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let trouble = shown.broker.trouble();
    let status = if trouble.is_none() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let is_verbose = query.is_some_and(|query| query.split('&').any(|word| word.starts_with("verbose")));
    let text = match (&trouble, is_verbose) {
        (None, false) => "ready\n".to_owned(),
        (Some(_), false) => "not ready: see /readyz?verbose\n".to_owned(),
        (None, true) => format!("broker {} {}\n[+] appends: taken\n", shown.broker.url(), shown.place),
        (Some(trouble), true) => {
            format!("broker {} {}\n[-] appends: refused, {trouble}\n", shown.broker.url(), shown.place)
        }
    };
    (status, text).into_response()
}

async fn metrics(State(shown): State<Shown>) -> Response {
    match prometheus::TextEncoder::new().encode_to_string(&shown.broker.measured()) {
        Ok(text) => ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use broker_adapter::shell::real;

    use super::*;
    use crate::rest::Rest;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn got(admin: &Rest, path: &str) -> (u16, String) {
        let answer = admin.get(path).await.unwrap();
        (answer.status, String::from_utf8(answer.body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn a_broker_without_room_is_alive_and_not_ready_and_says_why() {
        let (shell, _process) = real::process();
        let folder = tempfile::tempdir().unwrap();
        let of = async |name: &str, reserve_bytes| {
            let options = Options { reserve_bytes, ..Options::default() };
            let broker = EmbeddedBroker::open(&folder.path().join(name), options, &shell).await.unwrap();
            let listener = shell.listen("127.0.0.1:0").await.unwrap();
            let admin = Rest::new(&format!("http://{}", listener.address()), shell.clone(), LIMIT).unwrap();
            let shown = Shown { broker, place: "at 127.0.0.1:1, guarded by a token".into() };
            shell.spawn(sidecar::admin::serve(router(shown), listener, shell.clone()));
            admin
        };
        let (good, full) = (of("good", 0).await, of("full", u64::MAX).await);
        assert_eq!(got(&good, "/readyz").await, (200, "ready\n".to_owned()));
        assert_eq!(got(&full, "/readyz").await, (503, "not ready: see /readyz?verbose\n".to_owned()));
        assert_eq!(got(&full, "/livez").await.0, 200);
        let (_, lines) = got(&full, "/readyz?verbose").await;
        assert!(lines.contains("guarded by a token\n[-] appends: refused") && lines.contains("kept free"), "{lines}");
        for (admin, value) in [(&good, "segue_broker_trouble 0"), (&full, "segue_broker_trouble 1")] {
            let (status, text) = got(admin, "/metrics").await;
            assert!(
                status == 200 && text.contains(value) && text.contains("segue_broker_append_seconds_bucket"),
                "{text}"
            );
        }
    }

    #[tokio::test]
    async fn what_other_machines_could_reach_is_not_served_to_everybody() {
        let (shell, _process) = real::process();
        let config = crate::args::ConfigArguments { config: None, set: Vec::new() };
        let listen = Some("0.0.0.0:0".to_owned());
        let arguments = BrokerArguments { config, listen, path: Some("nowhere".to_owned()), admin: None };
        let Err(Failure::Other(told)) = run(&arguments, shell).await else { panic!("it is refused") };
        assert!(told.contains("0.0.0.0:0 (listen)") && told.contains("set token_file"), "{told}");
        assert!(told.contains("set allow_remote = true"), "{told}");
    }
}
