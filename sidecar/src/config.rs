//! What a sidecar is told before it opens a port: complete, checked, and never read again.
//!
//! Local limits live here. What all replicas must agree on are [`Settings`], which the owner writes into the log.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::ids::{NodeName, ServiceName};
use broker_adapter::settings::Settings;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

pub use crate::service::contract::{Attach, StateConfig, Then};

/// One sidecar.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This device's name; no other sidecar may have it.
    pub node: NodeName,
    /// What kind of device this is: `host`, `edge`, `dpu`, `csd`, …
    #[serde(default = "default_class")]
    pub class: String,
    /// The broker's URL.
    pub broker: String,
    /// Where `/livez`, `/readyz` and `/metrics` are answered, as `HOST:PORT`.
    pub admin: String,
    /// The services whose ingress, and replica if need be, this sidecar is.
    #[serde(rename = "service", default, deserialize_with = "checked_services")]
    pub services: Vec<ServiceConfig>,
    /// Where each instance that is run gets a folder of its own, which goes with it; the system's temporary folder by default.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Put before every command that is run, so that the service ends with the sidecar; set by the program, not by files.
    #[serde(skip)]
    pub launcher: Vec<String>,
    /// A test-only switch.
    #[serde(skip)]
    pub rules: Rules,
}

/// One service on this node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServiceConfig {
    /// The service's name.
    pub name: ServiceName,
    /// Where clients reach it on this node, as `HOST:PORT`.
    pub listen: String,
    /// Whether this node may make checkpoint 0 of a log that is still empty.
    #[serde(default)]
    pub create: bool,
    /// The program and its arguments; `{address}` becomes the `HOST:PORT` where it must listen. Without `run` and `attach`
    /// this sidecar is an ingress of the service and has no replica of it.
    #[serde(default)]
    pub run: Vec<String>,
    /// Where the service listens that somebody else starts, as `http://HOST:PORT` or `unix:PATH`.
    #[serde(default)]
    pub attach: Option<Attach>,
    /// Allows `attach` beyond this machine.
    #[serde(default)]
    pub attach_anywhere: bool,
    /// Replaces a state of unknown origin on first contact, after a copy of it was kept.
    #[serde(default)]
    pub replace_state: bool,
    /// Where such copies go; set by the program, not by files.
    #[serde(skip)]
    pub copies: PathBuf,
    /// A GET of this path answers 2xx when the service is ready.
    #[serde(default = "default_ready")]
    pub ready: String,
    /// How its state is saved and loaded; needed where there is a replica.
    #[serde(default)]
    pub state: Option<StateConfig>,
    /// What the owner writes into a new log.
    #[serde(default)]
    pub settings: Settings,
    /// The largest request body.
    #[serde(default = "default_body_limit")]
    pub body_limit_bytes: u64,
    /// How many requests may wait at this ingress; more are answered 503.
    #[serde(default = "default_parking_limit")]
    pub parking_limit_requests: usize,
    /// How long a request may wait for its reply; then 504 (503 if it was never appended).
    #[serde(default = "default_reply_timeout")]
    pub reply_timeout_ms: u64,
    /// How long the service may take for one request before its state is unknown.
    #[serde(default = "default_delivery_timeout")]
    pub delivery_timeout_ms: u64,
    /// How long the service may take to become ready, and to take a step of a save or load.
    #[serde(default = "default_start_timeout")]
    pub start_timeout_ms: u64,
    /// How fast states are read for checkpoints and proofs, so that they do not disturb the requests.
    #[serde(default = "default_state_rate")]
    pub state_rate_mb_per_s: u64,
}

impl ServiceConfig {
    /// Whether this node may have a replica of the service; otherwise it is only an ingress.
    #[must_use]
    pub fn runs_replica(&self) -> bool {
        !self.run.is_empty() || self.attach.is_some()
    }

    /// The path of the state, which clients do not reach; empty if it has none.
    #[must_use]
    pub fn state_path(&self) -> &str {
        match &self.state {
            Some(StateConfig::Http { path }) => path,
            _ => "",
        }
    }

    /// [`ServiceConfig::reply_timeout_ms`].
    #[must_use]
    pub fn reply_timeout(&self) -> Duration {
        Duration::from_millis(self.reply_timeout_ms)
    }

    /// [`ServiceConfig::delivery_timeout_ms`].
    #[must_use]
    pub fn delivery_timeout(&self) -> Duration {
        Duration::from_millis(self.delivery_timeout_ms)
    }

    /// [`ServiceConfig::start_timeout_ms`].
    #[must_use]
    pub fn start_timeout(&self) -> Duration {
        Duration::from_millis(self.start_timeout_ms)
    }
}

/// A service whose parts fit together.
struct Checked(ServiceConfig);

impl<'de> Deserialize<'de> for Checked {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Checked, D::Error> {
        let service = ServiceConfig::deserialize(deserializer)?;
        service.check_runner().map_err(D::Error::custom)?;
        Ok(Checked(service))
    }
}

fn checked_services<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ServiceConfig>, D::Error> {
    Ok(Vec::<Checked>::deserialize(deserializer)?.into_iter().map(|checked| checked.0).collect())
}

fn default_class() -> String {
    "host".to_owned()
}

fn default_ready() -> String {
    "/".to_owned()
}

fn default_body_limit() -> u64 {
    512 << 10
}

fn default_parking_limit() -> usize {
    4_096
}

fn default_reply_timeout() -> u64 {
    30_000
}

fn default_delivery_timeout() -> u64 {
    10_000
}

fn default_start_timeout() -> u64 {
    30_000
}

fn default_state_rate() -> u64 {
    400
}
