//! A broker as a whole: where a process gets its logs, its checkpoint store and its mailbox from; and [`connect`].

use std::path::Path;
use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::embedded::client::{self, SegueBroker};
use crate::embedded::options::SegueOptions;
use crate::embedded::{EmbeddedBroker, Options};
use crate::kafka::KafkaOptions;
use crate::log::MessageLog;
use crate::mailbox::Mailbox;
use crate::nats::NatsOptions;
use crate::shell::Shell;
use crate::store::CheckpointStore;

/// One process's connection to a broker.
pub trait Broker: Send + Sync + 'static {
    /// The log of this name, made if it does not exist. Two handles of one name show the same log; calls keep
    /// their order on one handle only.
    fn log(&self, name: &str) -> BoxFuture<'static, Result<Arc<dyn MessageLog>, ConnectError>>;
    /// The checkpoint store.
    fn store(&self) -> Arc<dyn CheckpointStore>;
    /// The mailbox.
    fn mailbox(&self) -> Arc<dyn Mailbox>;
    /// The URL, without credentials, for people.
    fn url(&self) -> String;
}

/// Why there is no broker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// Nobody knows this scheme.
    #[error(
        "{0:?} is no broker URL: use embedded:PATH, segue://HOST:PORT, segues://HOST:PORT, nats://HOST:PORT or kafka://HOST:PORT"
    )]
    BadUrl(String),
    /// The adapter is not part of this program.
    #[error(
        "the broker {url} needs the feature {feature:?}, which this program was built without: build it with --features {feature}"
    )]
    NotBuiltIn {
        /// What was asked for.
        url: String,
        /// The cargo feature.
        feature: &'static str,
    },
    /// It could not be opened or reached.
    #[error("the broker {url} cannot be opened: {reason}")]
    Unreachable {
        /// What was asked for.
        url: String,
        /// What happened.
        reason: String,
    },
    /// It is there, but it does not keep what is put there as it must.
    #[error("{what} is not as it must be: {problems}")]
    Settings {
        /// What has the settings.
        what: String,
        /// Each mismatch, and what mends it.
        problems: String,
    },
    /// It is there, but what it holds is damaged.
    #[error("the log {log:?} is damaged: {reason}")]
    Damaged {
        /// Which log.
        log: String,
        /// Where and how.
        reason: String,
    },
}

/// What a configuration says about brokers beside the URL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BrokerOptions {
    /// The table `[segue]`.
    pub segue: SegueOptions,
    /// The table `[nats]`.
    pub nats: NatsOptions,
    /// The table `[kafka]`.
    pub kafka: KafkaOptions,
}

/// Opens the broker at a URL with nothing said beside it.
///
/// # Errors
/// See [`connect_with`].
pub async fn connect(url: &str, shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    connect_with(url, &BrokerOptions::default(), shell).await
}

/// Opens the broker at a URL: `embedded:PATH` (this process owns it), `segue://HOST:PORT` (another one does; `segues://`
/// with TLS), `nats://HOST:PORT[,HOST:PORT…]`, `kafka://HOST:PORT[,HOST:PORT][/PREFIX]`.
///
/// # Errors
/// [`ConnectError`] names the URL, without credentials, and what to do.
pub async fn connect_with(url: &str, options: &BrokerOptions, shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    if let Some(path) = url.strip_prefix("embedded:").filter(|path| !path.is_empty()) {
        let broker = EmbeddedBroker::open(Path::new(path), Options::default(), shell).await?;
        return Ok(Arc::new(broker));
    }
    if client::is_ours(url) {
        return Ok(Arc::new(SegueBroker::connect(url, &options.segue, shell).await?));
    }
    if url.starts_with("nats://") || url.starts_with("tls://") {
        return nats(url, options, shell).await;
    }
    if url.starts_with("kafka://") {
        return kafka(url, options, shell).await;
    }
    if url.starts_with("memory:") {
        // Only the simulation can share one among its processes; it makes the broker itself.
        return Err(ConnectError::BadUrl(format!("{url} (for tests and simulation only)")));
    }
    Err(ConnectError::BadUrl(url.to_owned()))
}

#[cfg(feature = "nats")]
async fn nats(url: &str, options: &BrokerOptions, shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    Ok(Arc::new(crate::nats::NatsBroker::connect(url, &options.nats, shell).await?))
}

#[cfg(not(feature = "nats"))]
async fn nats(url: &str, _options: &BrokerOptions, _shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    Err(not_built_in(url, "nats"))
}

#[cfg(feature = "kafka")]
async fn kafka(url: &str, options: &BrokerOptions, shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    Ok(Arc::new(crate::kafka::KafkaBroker::connect(url, &options.kafka, shell).await?))
}

#[cfg(not(feature = "kafka"))]
async fn kafka(url: &str, _options: &BrokerOptions, _shell: &Shell) -> Result<Arc<dyn Broker>, ConnectError> {
    Err(not_built_in(url, "kafka"))
}

/// The scheme alone is told: what follows may hold a password.
#[cfg(any(test, not(all(feature = "nats", feature = "kafka"))))]
fn not_built_in(url: &str, feature: &'static str) -> ConnectError {
    let scheme = url.split("://").next().unwrap_or_default();
    ConnectError::NotBuiltIn { url: format!("{scheme}://…"), feature }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::real;

    #[test]
    fn a_broker_that_is_not_built_in_is_refused_by_its_feature_and_without_its_password() {
        for feature in ["nats", "kafka"] {
            let refused = not_built_in(&format!("{feature}://segue:hunter2@a:1"), feature);
            let told = refused.to_string();
            let url = format!("{feature}://…");
            assert_eq!(refused, ConnectError::NotBuiltIn { url, feature });
            assert!(told.contains(&format!("--features {feature}")), "{told}");
        }
    }

    #[cfg(not(feature = "nats"))]
    #[tokio::test]
    async fn without_its_feature_nats_is_refused() {
        let (shell, _process) = real::process();
        let refused = connect("nats://a:1", &shell).await.err().expect("it is refused");
        assert_eq!(refused, not_built_in("nats://a:1", "nats"));
    }

    #[cfg(not(feature = "kafka"))]
    #[tokio::test]
    async fn without_its_feature_kafka_is_refused() {
        let (shell, _process) = real::process();
        let refused = connect("kafka://a:1", &shell).await.err().expect("it is refused");
        assert_eq!(refused, not_built_in("kafka://a:1", "kafka"));
    }

    #[tokio::test]
    async fn an_unknown_scheme_is_refused_with_those_that_are_known() {
        let (shell, _process) = real::process();
        let refused = connect("rabbit://a:1", &shell).await.err().expect("it is refused").to_string();
        for known in ["embedded:", "segue://", "nats://", "kafka://"] {
            assert!(refused.contains(known), "{refused}");
        }
    }
}
