//! The long-running commands: from their configuration to what their crates offer.

use std::path::PathBuf;

use broker_adapter::embedded::Options;
use broker_adapter::embedded::server::{ServeConfig, serve};
use broker_adapter::shell::Shell;
use serde::Deserialize;

use crate::Failure;
use crate::args::{BrokerArguments, ConfigArguments, MigratorArguments, SidecarArguments};
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
