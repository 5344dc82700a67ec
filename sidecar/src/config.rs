//! What a sidecar is told before it opens a port: complete, checked, and never read again.
//!
//! Local limits live here. What all replicas must agree on are [`Settings`], which the owner writes into the log.

mod checked;
pub mod path;
pub mod route;

use std::num::NonZeroU64;
use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::embedded::options::SegueOptions;
use broker_adapter::fold::Rules;
use broker_adapter::ids::{NodeName, ServiceName};
use broker_adapter::kafka::KafkaOptions;
use broker_adapter::nats::NatsOptions;
use broker_adapter::settings::Settings;
use broker_adapter::stores::CheckpointsAt;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::trace::Traceparent;
use checked::Checked;
use route::Route;

/// The largest head of a request: 431 above.
pub const HEAD_LIMIT_BYTES: usize = 64 << 10;

/// The largest `body_limit_bytes`, on every broker alike: as much as may wait at an ingress by default. A body is whole in the memory
/// of its ingress and of every replica that applies it.
pub const BODY_LIMIT_MAX_BYTES: u64 = 64 << 20;

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
    /// How a broker at `segue://…` or `segues://…` is reached.
    #[serde(default)]
    pub segue: SegueOptions,
    /// What else a NATS broker needs to know.
    #[serde(default)]
    pub nats: NatsOptions,
    /// How a broker at `kafka://…` is used.
    #[serde(default)]
    pub kafka: KafkaOptions,
    /// Where checkpoints are: the same place on every node and in the migrator.
    #[serde(default)]
    pub checkpoints: CheckpointsAt,
    /// Where `/livez`, `/readyz` and `/metrics` are answered, as `HOST:PORT`.
    pub admin: String,
    /// The services whose ingress, and replica if need be, this sidecar is.
    #[serde(rename = "service", default, deserialize_with = "checked::list")]
    pub services: Vec<ServiceConfig>,
    /// Where each instance that is run gets a folder of its own, which goes with it; the system's temporary folder by default.
    #[serde(default)]
    pub data: Option<PathBuf>,
    /// Put before every command that is run, so that the service ends with the sidecar; set by the program, not by files.
    #[serde(skip)]
    pub launcher: Vec<String>,
    /// Names the span of a request, where traces are collected; set by the program, not by files.
    #[serde(skip)]
    pub traceparent: Option<Traceparent>,
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
    #[serde(default = "default_ready", deserialize_with = "path")]
    pub ready: String,
    /// How its state is saved and loaded; needed where there is a replica.
    #[serde(default)]
    pub state: Option<StateConfig>,
    /// Which requests are logged, which are read, and which go past the log; the first that matches decides.
    #[serde(rename = "route", default, deserialize_with = "checked::list")]
    pub routes: Vec<Route>,
    /// Where a POST takes many requests at once, in the form of `configs/batch/README.md`; without it every request goes alone.
    #[serde(default, deserialize_with = "batch_path")]
    pub batch: Option<String>,
    /// The most requests in a batch.
    #[serde(default = "default_batch_limit_records", deserialize_with = "batch_limit_records")]
    pub batch_limit_records: usize,
    /// A batch takes no further request when the bodies in it have so many bytes together.
    #[serde(default = "default_batch_limit_bytes", deserialize_with = "checked::at_least_one")]
    pub batch_limit_bytes: u64,
    /// What a migration to this node must show before it may own.
    #[serde(default)]
    pub proof: ProofConfig,
    /// The service's own hash of its state, for one whose saves are not canonical.
    #[serde(default)]
    pub state_hash: Option<StateHashConfig>,
    /// What the owner writes into a new log, and into an old one that has others; without it the log's stay.
    #[serde(default, deserialize_with = "checked::settings")]
    pub settings: Option<Settings>,
    /// The largest request body.
    #[serde(default = "default_body_limit", deserialize_with = "checked::body_limit")]
    pub body_limit_bytes: u64,
    /// How many requests may wait at this ingress; more are answered 503.
    #[serde(default = "default_parking_limit", deserialize_with = "checked::at_least_one")]
    pub parking_limit_requests: usize,
    /// How many bytes their bodies may have together; more are answered 503.
    #[serde(default = "default_parking_bytes", deserialize_with = "checked::at_least_one")]
    pub parking_limit_bytes: u64,
    /// How long a request may wait for its reply; then 504 (503 if it was never appended).
    #[serde(default = "default_reply_timeout", deserialize_with = "checked::at_least_one")]
    pub reply_timeout_ms: u64,
    /// How long the service may take for one request, or for one batch, before its state is unknown.
    #[serde(default = "default_delivery_timeout", deserialize_with = "checked::at_least_one")]
    pub delivery_timeout_ms: u64,
    /// How long the service may take to become ready, and to take a step of a save or load.
    #[serde(default = "default_start_timeout", deserialize_with = "checked::at_least_one")]
    pub start_timeout_ms: u64,
    /// How fast states are read for checkpoints and proofs, so that they do not disturb the requests.
    #[serde(default = "default_state_rate", deserialize_with = "checked::at_least_one")]
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

/// What source and target compare (invariant 8). A difference that is seen always ends the migration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ProofConfig {
    /// The states, if they can be compared, and the replies.
    #[default]
    State,
    /// The replies.
    Replies,
    /// Nothing: migrations are `unproven`.
    None,
}

impl ProofConfig {
    /// As in the configuration.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            ProofConfig::State => "state",
            ProofConfig::Replies => "replies",
            ProofConfig::None => "none",
        }
    }
}

/// Where a service tells a hash of its state: a text that is equal if and only if the states are.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub enum StateHashConfig {
    /// The path of a GET that answers it.
    #[serde(deserialize_with = "path")]
    Http(String),
    /// A program that prints it, and its arguments; `{address}` becomes where the instance listens.
    #[serde(deserialize_with = "command")]
    Command(Vec<String>),
}

impl ServiceConfig {
    /// Whether this node may have a replica of the service; otherwise it is only an ingress.
    #[must_use]
    pub fn runs_replica(&self) -> bool {
        !self.run.is_empty() || self.attach.is_some()
    }

    /// The settings of a new log.
    #[must_use]
    pub fn new_settings(&self) -> Settings {
        self.settings.clone().unwrap_or_default()
    }

    /// The path of the state, which clients do not reach; empty if it has none.
    #[must_use]
    pub fn state_path(&self) -> &str {
        match &self.state {
            Some(StateConfig::Http { path }) => path,
            _ => "",
        }
    }

    /// Paths of the service that only its sidecar may use: no ingress passes a request on to them, and no replica applies one.
    #[must_use]
    pub fn hidden_paths(&self) -> Vec<&str> {
        let hash = match &self.state_hash {
            Some(StateHashConfig::Http(path)) => Some(path.as_str()),
            _ => None,
        };
        let state = Some(self.state_path()).filter(|path| !path.is_empty());
        [state, self.batch.as_deref(), hash].into_iter().flatten().collect()
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

/// The most that `batch_limit_records` may be: what a replica has in memory at once is bounded by it.
const BATCH_LIMIT_RECORDS_MAX: usize = 4_096;

fn batch_path<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    let path = String::deserialize(deserializer)?;
    let fits = path.starts_with('/') && path.bytes().all(|byte| byte.is_ascii_graphic()) && !path.contains(['?', '#']);
    if fits {
        return Ok(Some(path));
    }
    Err(D::Error::custom(format!("{path:?} is no path of the service: write one as \"/segue/batch\"")))
}

fn batch_limit_records<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
    let records = usize::deserialize(deserializer)?;
    if (1..=BATCH_LIMIT_RECORDS_MAX).contains(&records) {
        return Ok(records);
    }
    Err(D::Error::custom(format!("a batch has 1 to {BATCH_LIMIT_RECORDS_MAX} requests, not {records}")))
}

fn default_batch_limit_records() -> usize {
    512
}

fn default_batch_limit_bytes() -> u64 {
    4 << 20
}

fn path<'de, D: Deserializer<'de>>(text: D) -> Result<String, D::Error> {
    let path = String::deserialize(text)?;
    if path.starts_with('/') {
        Ok(path)
    } else {
        Err(D::Error::custom(format!("{path:?} is no path: it begins with '/'")))
    }
}

fn command<'de, D: Deserializer<'de>>(words: D) -> Result<Vec<String>, D::Error> {
    let words = Vec::<String>::deserialize(words)?;
    match words.first() {
        Some(program) if !program.is_empty() => Ok(words),
        _ => Err(D::Error::custom("a command needs a program: [\"PROGRAM\", \"ARGUMENT\", …]")),
    }
}

impl Checked for ServiceConfig {
    const WHAT: &'static str = "a service: { name, listen, … }";

    fn check(&self) -> Result<(), String> {
        let name = &self.name;
        if self.create && !self.runs_replica() {
            return Err(format!(
                "create = true of {name} cannot hold: without run or attach there is no replica whose state could begin the log; \
                 add one of them, or remove create"
            ));
        }
        if self.state.is_none() && self.runs_replica() {
            return Err(format!(
                "state of {name} is missing: a replica must be saved and loaded; add state = {{ kind = \"http\", path = \"/…\" }}"
            ));
        }
        if self.parking_limit_bytes < self.body_limit_bytes {
            return Err(format!(
                "parking_limit_bytes = {} of {name} cannot hold: it must be at least body_limit_bytes = {}, or the largest body could \
                 never wait",
                self.parking_limit_bytes, self.body_limit_bytes
            ));
        }
        self.check_runner()?;
        route::check_order(&self.routes)
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

/// As many as there can be clients: a broker that is away for ten seconds at a thousand requests a second refuses nobody.
fn default_parking_limit() -> usize {
    16_384
}

fn default_parking_bytes() -> u64 {
    64 << 20
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
