//! The migrator's settings, as they stand in its TOML file; every limit has a default and a name.
//!
//! Owns: what can be set. Where it comes from (file, environment, flags) is the command line's business.

use std::path::PathBuf;
use std::time::Duration;

use broker_adapter::embedded::door::DoorOptions;
use broker_adapter::embedded::options::SegueOptions;
use broker_adapter::fold::Rules;
use broker_adapter::ids::NodeName;
use broker_adapter::kafka::KafkaOptions;
use broker_adapter::nats::NatsOptions;
use broker_adapter::stores::CheckpointsAt;
use broker_adapter::tls::TlsFiles;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use crate::hold::Hold;
use crate::machine::Phase;

/// Everything that can be set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This migrator's name on the journal's fences.
    #[serde(default = "default_name")]
    pub name: NodeName,
    /// Where REST and the dashboard listen, as `HOST:PORT`.
    #[serde(default = "default_listen")]
    pub listen: String,
    /// Certificate and key of REST, PEM; then it is reached as `https://`.
    #[serde(default)]
    pub tls: Option<TlsFiles>,
    /// The broker's URL; may be left out by a migrator that hosts the broker itself.
    #[serde(default)]
    pub broker: Option<String>,
    /// How a broker at `segue://…` or `segues://…` is reached.
    #[serde(default)]
    pub segue: SegueOptions,
    /// What else a NATS broker needs to know.
    #[serde(default)]
    pub nats: NatsOptions,
    /// How a broker at `kafka://…` is used.
    #[serde(default)]
    pub kafka: KafkaOptions,
    /// Where the sidecars' checkpoints are: it goes on from one where the log was trimmed, and shows what diverged.
    #[serde(default)]
    pub checkpoints: CheckpointsAt,
    /// Hosts the embedded broker for others too, so that it needs no process of its own.
    #[serde(default)]
    pub host: Option<HostConfig>,
    /// Who may ask, and where changes are written down.
    #[serde(default)]
    pub auth: AuthConfig,
    /// How long each phase may take.
    #[serde(default)]
    pub deadlines: Deadlines,
    /// How near the tail a target must be before it verifies and hands over.
    #[serde(default = "default_lag_limit_records")]
    pub lag_limit_records: u64,
    /// Whether a migration whose replicas cannot be compared rolls back.
    #[serde(default = "default_require_proof")]
    pub require_proof: bool,
    /// How long a source may be paused before it takes itself back, if the order does not say.
    #[serde(default = "default_pause_limit_ms", deserialize_with = "at_least_one")]
    pub pause_limit_ms: u64,
    /// `precopy`: how many checkpoints are taken before the pause, at most.
    #[serde(default = "default_precopy_rounds", deserialize_with = "at_least_one")]
    pub precopy_rounds: u32,
    /// How long the source stays a standby after a migration, if the order does not say; then it is retired.
    #[serde(default = "default_keep_standby_s")]
    pub keep_standby_s: u64,
    /// How large a state may be that is imported, unpacked, in MiB.
    #[serde(default = "default_import_limit_mb", deserialize_with = "at_least_one")]
    pub import_limit_mb: u64,
    /// Where tests stop a migration; from the environment, never from a file.
    #[serde(skip)]
    pub hold: Option<Hold>,
    /// A test-only switch.
    #[serde(skip)]
    pub rules: Rules,
}

/// Who may use REST.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AuthConfig {
    /// A file with one token a line: `NAME viewer|operator TOKEN`. Without it everybody may, and only on loopback.
    #[serde(default)]
    pub tokens: Option<PathBuf>,
    /// A file to which a line of JSON is appended for every change.
    #[serde(default)]
    pub audit: Option<PathBuf>,
}

/// The embedded broker that the migrator hosts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostConfig {
    /// Where it listens, as `HOST:PORT`.
    pub listen: String,
    /// The folder of its logs and checkpoints.
    pub path: PathBuf,
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

impl HostConfig {
    /// The defaults, there.
    #[must_use]
    pub fn new(listen: &str, path: PathBuf) -> HostConfig {
        HostConfig { listen: listen.to_owned(), path, token_file: None, tls: None, allow_remote: false }
    }

    /// Who may come in.
    #[must_use]
    pub fn door(&self) -> DoorOptions {
        DoorOptions {
            listen: self.listen.clone(),
            token_file: self.token_file.clone(),
            tls: self.tls.clone(),
            allow_remote: self.allow_remote,
            table: "host.",
        }
    }

    /// Where programs of this machine reach it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}", if self.tls.is_some() { "segues" } else { "segue" }, self.listen)
    }
}

/// How long each phase may take, in milliseconds; then the migration rolls back. Rolling back itself has no limit: it goes on
/// until a fence was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Deadlines {
    /// Both ends answer, or the source's node comes back.
    #[serde(deserialize_with = "at_least_one")]
    pub prepare_ms: u64,
    /// The source saves its state to the store and reads it back.
    #[serde(deserialize_with = "at_least_one")]
    pub checkpoint_ms: u64,
    /// The target streams it into its instance.
    #[serde(deserialize_with = "at_least_one")]
    pub transfer_ms: u64,
    /// The instance becomes ready.
    #[serde(deserialize_with = "at_least_one")]
    pub restore_ms: u64,
    /// The target comes near the tail.
    #[serde(deserialize_with = "at_least_one")]
    pub replay_ms: u64,
    /// Both ends hash their state at one position.
    #[serde(deserialize_with = "at_least_one")]
    pub verify_ms: u64,
    /// The target appends its fence, and it is read.
    #[serde(deserialize_with = "at_least_one")]
    pub handover_ms: u64,
    /// How long the end of a migration is told to nodes that do not answer.
    pub after_care_ms: u64,
}

impl Default for Deadlines {
    fn default() -> Self {
        Deadlines {
            prepare_ms: 15_000,
            checkpoint_ms: 120_000,
            transfer_ms: 300_000,
            restore_ms: 60_000,
            replay_ms: 300_000,
            verify_ms: 60_000,
            handover_ms: 30_000,
            after_care_ms: 10_000,
        }
    }
}

impl Deadlines {
    /// The limit of a phase, if it has one.
    #[must_use]
    pub fn of(&self, phase: Phase) -> Option<Duration> {
        let ms = match phase {
            Phase::Prepare => self.prepare_ms,
            Phase::Checkpoint => self.checkpoint_ms,
            Phase::Transfer => self.transfer_ms,
            Phase::Restore => self.restore_ms,
            Phase::Replay => self.replay_ms,
            Phase::Verify => self.verify_ms,
            Phase::Pause => self.checkpoint_ms,
            Phase::Handover | Phase::Retire => self.handover_ms,
            Phase::RollingBack => return None,
            Phase::Completed | Phase::RolledBack | Phase::Failed | Phase::Diverged | Phase::Cancelled => {
                self.after_care_ms
            }
        };
        Some(Duration::from_millis(ms))
    }
}

impl Config {
    /// The defaults, with this broker.
    #[must_use]
    pub fn new(broker: &str) -> Config {
        Config {
            name: default_name(),
            listen: default_listen(),
            tls: None,
            broker: Some(broker.to_owned()),
            segue: SegueOptions::default(),
            nats: NatsOptions::default(),
            kafka: KafkaOptions::default(),
            checkpoints: CheckpointsAt::Broker,
            host: None,
            auth: AuthConfig::default(),
            deadlines: Deadlines::default(),
            lag_limit_records: default_lag_limit_records(),
            require_proof: default_require_proof(),
            pause_limit_ms: default_pause_limit_ms(),
            precopy_rounds: default_precopy_rounds(),
            keep_standby_s: default_keep_standby_s(),
            import_limit_mb: default_import_limit_mb(),
            hold: None,
            rules: Rules::default(),
        }
    }
}

/// A limit that nothing can keep to at 0.
fn at_least_one<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de> + Default + PartialEq,
{
    let limit = T::deserialize(deserializer)?;
    if limit == T::default() { Err(D::Error::custom("it must be at least 1: with 0 nothing moves")) } else { Ok(limit) }
}

fn default_name() -> NodeName {
    "migrator".parse().expect("it is a name")
}

fn default_listen() -> String {
    "127.0.0.1:7272".to_owned()
}

fn default_lag_limit_records() -> u64 {
    16
}

fn default_require_proof() -> bool {
    true
}

fn default_pause_limit_ms() -> u64 {
    60_000
}

fn default_precopy_rounds() -> u32 {
    3
}

fn default_keep_standby_s() -> u64 {
    600
}

fn default_import_limit_mb() -> u64 {
    16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_needs_only_what_has_no_default_and_unknown_keys_are_refused() {
        let config: Config = serde_json::from_str(r#"{"broker": "memory:"}"#).unwrap();
        assert_eq!(config, Config::new("memory:"));
        for wrong in [r#"{"brocker": "x"}"#, r#"{"deadlines": {"replay": 1}}"#, r#"{"host": {"listen": "x"}}"#] {
            assert!(serde_json::from_str::<Config>(wrong).is_err(), "{wrong}");
        }
        assert!(serde_json::from_str::<Config>(r#"{"hold": null}"#).is_err(), "never from a file");
    }

    #[test]
    fn a_limit_of_0_is_refused() {
        for wrong in [r#"{"pause_limit_ms": 0}"#, r#"{"precopy_rounds": 0}"#, r#"{"deadlines": {"replay_ms": 0}}"#] {
            let error = serde_json::from_str::<Config>(wrong).unwrap_err().to_string();
            assert!(error.contains("at least 1"), "{wrong}: {error}");
        }
        assert!(serde_json::from_str::<Config>(r#"{"deadlines": {"after_care_ms": 0}, "keep_standby_s": 0}"#).is_ok());
    }
}
