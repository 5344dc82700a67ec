//! The long-running commands: from their configuration to what their crates offer.

use std::path::PathBuf;

use broker_adapter::embedded::Options;
use broker_adapter::embedded::server::{ServeConfig, serve};
use broker_adapter::shell::Shell;
use serde::Deserialize;

use crate::Failure;
use crate::args::{BrokerArguments, ConfigArguments};
use crate::config::{ConfigError, load};

/// What `segue broker` is told.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerConfig {
    /// Where other processes reach it, as `HOST:PORT`.
    pub listen: String,
    /// The folder of its logs and checkpoints.
    pub path: PathBuf,
    /// Appends are refused once its log file is larger.
    #[serde(default)]
    pub capacity_bytes: Option<u64>,
    /// Appends are refused once the disk has less left.
    #[serde(default)]
    pub reserve_bytes: Option<u64>,
}

/// Serves the embedded broker.
///
/// # Errors
/// If its folder or port cannot be opened.
pub async fn broker(arguments: &BrokerArguments, shell: Shell) -> Result<(), Failure> {
    let config: BrokerConfig =
        read("broker", &arguments.config, &[("listen", &arguments.listen), ("path", &arguments.path)])?;
    let defaults = Options::default();
    let options = Options {
        capacity_bytes: config.capacity_bytes.unwrap_or(defaults.capacity_bytes),
        reserve_bytes: config.reserve_bytes.unwrap_or(defaults.reserve_bytes),
        ..defaults
    };
    let config = ServeConfig { listen: config.listen, path: config.path, options };
    serve(config, shell).await.map_err(crate::other)
}

fn read<T: serde::de::DeserializeOwned>(
    command: &str,
    arguments: &ConfigArguments,
    named: &[(&str, &Option<String>)],
) -> Result<T, ConfigError> {
    load(command, arguments.config.as_deref(), std::env::vars_os(), &arguments.overrides(named)?)
}
