//! What a sidecar is told before it opens a port: complete, checked, and never read again.
//!
//! Local limits live here. What all replicas must agree on are [`Settings`], which the owner writes into the log.

use std::num::NonZeroU64;
use std::time::Duration;

use broker_adapter::fold::Rules;
use broker_adapter::ids::{NodeName, ServiceName};
use broker_adapter::settings::Settings;
use serde::{Deserialize, Deserializer};

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
    #[serde(rename = "service", default)]
    pub services: Vec<ServiceConfig>,
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
    /// Where the service listens that somebody else starts, as `http://HOST:PORT`.
    #[serde(default)]
    pub attach: Option<String>,
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
    /// How fast a state goes to the checkpoint store or comes from it; as fast as it can if not said.
    #[serde(default)]
    pub transfer_rate_mb_per_s: Option<NonZeroU64>,
    /// When the owner takes checkpoints by itself.
    #[serde(default)]
    pub checkpoint: CheckpointConfig,
    /// With so many records in the log, messages are refused until it was trimmed.
    #[serde(default = "default_log_high_mark_records", deserialize_with = "high_mark_records")]
    pub log_high_mark_records: u64,
    /// The same with so many bytes, as the broker tells them.
    #[serde(default)]
    pub log_high_mark_bytes: Option<NonZeroU64>,
}

/// When the owner takes a checkpoint by itself: whichever comes first, and never while nothing was applied since the last one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CheckpointConfig {
    /// After so many seconds; 0: not by time.
    pub every_s: u64,
    /// After so many records; 0: not by records.
    pub every_records: u64,
    /// After so many MB of records; 0: not by bytes.
    pub every_mb: u64,
    /// A migration begins with the last one if no more records came behind it, and replaying them takes no longer than to save.
    pub reuse_records: u64,
}

impl Default for CheckpointConfig {
    fn default() -> Self {
        CheckpointConfig { every_s: 60, every_records: 100_000, every_mb: 64, reuse_records: 100_000 }
    }
}

/// How a service's state is saved and loaded.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "kind", rename_all = "kebab-case")]
pub enum StateConfig {
    /// A GET streams the state, a PUT replaces it.
    Http {
        /// Where; never reachable through the ingress.
        path: String,
    },
}

impl ServiceConfig {
    /// Whether this node may have a replica of the service; otherwise it is only an ingress.
    #[must_use]
    pub fn runs_replica(&self) -> bool {
        !self.run.is_empty() || self.attach.is_some()
    }

    /// Where the state is.
    #[must_use]
    pub fn state_path(&self) -> &str {
        match &self.state {
            Some(StateConfig::Http { path }) => path,
            None => "",
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

/// Below this the owner could not make room: it keeps the records behind its last two checkpoints.
const LOG_HIGH_MARK_MIN_RECORDS: u64 = 512;

fn high_mark_records<'de, D: Deserializer<'de>>(from: D) -> Result<u64, D::Error> {
    let records = u64::deserialize(from)?;
    if records >= LOG_HIGH_MARK_MIN_RECORDS {
        return Ok(records);
    }
    Err(serde::de::Error::custom(format!("the log must be able to hold {LOG_HIGH_MARK_MIN_RECORDS} records at least")))
}

fn default_log_high_mark_records() -> u64 {
    2_000_000
}
