//! A whole migrator process: the broker (its own or another's), the driver, REST.

use std::sync::Arc;

use broker_adapter::broker::{Broker, BrokerOptions, ConnectError};
use broker_adapter::embedded::door::{Door, DoorError, is_loopback};
use broker_adapter::embedded::server::serve_behind;
use broker_adapter::embedded::{EmbeddedBroker, Options};
use broker_adapter::shell::{Listener, Shell};
use broker_adapter::stores::OpenError;
use broker_adapter::tls::{TlsError, TlsServer};

use crate::config::{Config, HostConfig};
use crate::driver::{Migrator, StartError};
use crate::handle::Stopped;
use crate::hold::Hold;
use crate::rest::{self, Access, Audit, AuditError, Tokens, TokensError};

/// Why a migrator did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Neither a broker's URL nor one to host.
    #[error("no broker is configured: set broker = \"segue://HOST:PORT\", or a [host] with listen and path")]
    NoBroker,
    /// The broker cannot be used.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The checkpoint store cannot be used.
    #[error(transparent)]
    Checkpoints(#[from] OpenError),
    /// A port cannot be opened.
    #[error("cannot listen on {address} ({setting}): {reason}; choose another port, or end what uses this one")]
    Listen {
        /// What was asked for.
        address: String,
        /// Which setting asked for it.
        setting: &'static str,
        /// What the operating system says.
        reason: String,
    },
    /// Everybody who reaches it could move services.
    #[error(
        "REST would listen on {address} (listen) without tokens: everybody who reaches it could move services; \
         set [auth] tokens = \"FILE\", or listen on 127.0.0.1"
    )]
    OpenRest {
        /// What was asked for.
        address: String,
    },
    /// The hosted broker would let in whom it should not, or its files cannot be used.
    #[error(transparent)]
    Door(#[from] DoorError),
    /// The certificate or key of REST cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The file of tokens cannot be used.
    #[error(transparent)]
    Tokens(#[from] TokensError),
    /// The audit log cannot be written.
    #[error(transparent)]
    Audit(#[from] AuditError),
    /// The journal cannot be used.
    #[error(transparent)]
    Start(#[from] StartError),
    /// Another migrator took over, or the journal broke.
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Runs until another migrator takes over or the journal cannot be used any more.
///
/// # Errors
/// [`RunError`] says which, and what to do.
pub async fn run(mut config: Config, shell: Shell) -> Result<(), RunError> {
    config.hold = Hold::from_environment();
    let mut access = access(&config)?;
    let tls = config.tls.as_ref().map(|files| TlsServer::new(files, "tls")).transpose()?;
    if tls.is_none() && !is_loopback(&config.listen) {
        tracing::warn!(
            listen = config.listen,
            "tokens go to REST unencrypted: set tls, or let a proxy stand in front of it"
        );
    }
    let host = config.host.clone();
    let host = host.map(|host| Ok::<_, DoorError>((Door::new(&host.door(), &shell)?, host))).transpose()?;
    // The port first: a second migrator on this machine must not take the journal from the one that serves here.
    let listener = listen(&config.listen, "listen", &shell).await?;
    if let Some((door, host)) = host {
        access.hosted = Some(self::host(&host, door, &shell).await?);
    }
    let broker = broker(&config, access.hosted.clone(), &shell).await?;
    let broker = config.checkpoints.open(broker, &shell).await?;
    let handle = Migrator::start(config, broker, shell.clone()).await?;
    tracing::info!(address = listener.address(), encrypted = tls.is_some(), "serving REST");
    let serving = shell.clone();
    let router = rest::router(handle.clone(), &shell, access);
    shell.spawn(rest::serve_inside(tls, router, listener, serving));
    Err(handle.stopped().await.into())
}

fn access(config: &Config) -> Result<Access, RunError> {
    let tokens = config.auth.tokens.as_deref().map(Tokens::read).transpose()?.unwrap_or_default();
    let audit = config.auth.audit.as_deref().map(Audit::open).transpose()?.unwrap_or_default();
    if tokens.are_open() && !is_loopback(&config.listen) {
        return Err(RunError::OpenRest { address: config.listen.clone() });
    }
    let import_limit_bytes = config.import_limit_mb.saturating_mul(1 << 20);
    Ok(Access { tokens, audit, import_limit_bytes, hosted: None })
}

async fn broker(config: &Config, hosted: Option<EmbeddedBroker>, shell: &Shell) -> Result<Arc<dyn Broker>, RunError> {
    match (&config.broker, hosted) {
        (Some(url), _) => {
            let (segue, nats, kafka) = (config.segue.clone(), config.nats.clone(), config.kafka.clone());
            Ok(broker_adapter::connect_with(url, &BrokerOptions { segue, nats, kafka }, shell).await?)
        }
        (None, Some(hosted)) => Ok(Arc::new(hosted)),
        (None, None) => Err(RunError::NoBroker),
    }
}

async fn host(host: &HostConfig, door: Door, shell: &Shell) -> Result<EmbeddedBroker, RunError> {
    let broker = EmbeddedBroker::open(&host.path, Options::default(), shell).await?;
    let listener = listen(&host.listen, "host.listen", shell).await?;
    let (address, guarded_by) = (listener.address(), door.describe());
    tracing::info!(address, guarded_by, path = %host.path.display(), "hosting the embedded broker");
    shell.spawn(serve_behind(door, broker.clone(), listener, shell.clone()));
    Ok(broker)
}

async fn listen(address: &str, setting: &'static str, shell: &Shell) -> Result<Box<dyn Listener>, RunError> {
    shell.listen(address).await.map_err(|error| RunError::Listen {
        address: address.to_owned(),
        setting,
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use broker_adapter::ids::Epoch;
    use broker_adapter::record::{Cause, Fence, Record};
    use broker_adapter::shell::real;
    use serde_json::json;

    use super::*;
    use crate::bench::{Announced, Manner, call, replica, shard, start_sidecar, status};
    use crate::config::AuthConfig;

    async fn free_address(shell: &Shell) -> String {
        shell.listen("127.0.0.1:0").await.unwrap().address()
    }

    #[tokio::test]
    async fn what_everybody_could_reach_is_not_started_without_tokens() {
        let (shell, _tasks) = real::process();
        let open = Config { listen: "0.0.0.0:0".to_owned(), ..Config::new("segue://127.0.0.1:1") };
        let error = run(open.clone(), shell.clone()).await.unwrap_err().to_string();
        assert!(error.contains("0.0.0.0:0 (listen) without tokens") && error.contains("[auth] tokens"), "{error}");
        let host = HostConfig::new("0.0.0.0:0", "nowhere".into());
        let hosting = Config { listen: "127.0.0.1:0".to_owned(), host: Some(host), ..open.clone() };
        let error = run(hosting, shell.clone()).await.unwrap_err().to_string();
        assert!(error.contains("host.token_file =") && error.contains("host.allow_remote = true"), "{error}");
        let auth = AuthConfig { tokens: Some("no-such-file".into()), audit: None };
        let error = run(Config { auth, ..open }, shell).await.unwrap_err().to_string();
        assert!(error.contains("no-such-file ([auth] tokens) cannot be read"), "{error}");
    }

    /// Prints what a migration costs beside the work of the sidecars, which do none here.
    #[tokio::test]
    async fn a_migrator_hosts_the_broker_and_moves_a_shard_between_sidecars_that_connect_to_it() {
        let folder = tempfile::tempdir().unwrap();
        let (shell, _tasks) = real::process();
        let (rest, hosted) = (free_address(&shell).await, free_address(&shell).await);
        let host = Some(HostConfig::new(&hosted, folder.path().join("broker")));
        let config = Config { listen: rest.clone(), broker: None, host, ..Config::new("") };
        let running = shell.clone();
        shell.spawn(async move { panic!("{}", run(config, running).await.unwrap_err()) });
        let mut sidecars = Vec::new();
        for (node, run) in [("a", 1), ("b", 2)] {
            let link = loop {
                match broker_adapter::connect(&format!("segue://{hosted}"), &shell).await {
                    Ok(link) => break link,
                    Err(_) => shell.sleep(Duration::from_millis(20)).await,
                }
            };
            let announced = Announced { me: replica(node, run), shards: vec![status()] };
            start_sidecar(&shell, link.clone(), announced, Manner::Good, Arc::new(Mutex::default()));
            sidecars.push(link);
        }
        let first =
            Fence { epoch: Epoch(1), owner: replica("a", 1), cause: Cause::First, migration: None, retires: None };
        let log = sidecars[0].log(&shard().log_name()).await.unwrap();
        log.append(vec![Record::Fence(first)]).await.unwrap();
        let mut totals_ms = Vec::new();
        for number in 0..20 {
            let wish = json!({ "service": "board", "to": if number % 2 == 0 { "b" } else { "a" } }).to_string();
            let location = loop {
                match call(&shell, &rest, ("POST", "/v1/migrations"), &wish).await {
                    Ok(answer) if answer.status == 202 => break answer.location,
                    _ => shell.sleep(Duration::from_millis(20)).await,
                }
            };
            let ended = call(&shell, &rest, ("GET", &format!("{location}?wait=30s")), "").await.unwrap().json();
            assert_eq!(ended["outcome"], "completed", "{ended}");
            totals_ms.push(ended["total_ms"].as_u64().unwrap());
        }
        let metrics = call(&shell, &rest, ("GET", "/metrics"), "").await.unwrap();
        let told = metrics.text;
        for name in ["segue_migrations_running", "segue_broker_append_seconds_bucket", "segue_broker_connections"] {
            assert!(told.contains(name), "{name}: {told}");
        }
        totals_ms.sort_unstable();
        println!("total of 20 migrations without work: median {} ms, max {} ms", totals_ms[10], totals_ms[19]);
    }
}
