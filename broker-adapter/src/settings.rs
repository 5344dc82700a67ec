//! The parameters of a shard that every replica must agree on: they live in the log as `Settings` records.
//!
//! Owns their names, defaults and units. Local limits (parking, time-outs) are configuration, not settings.

mod ignore;

use serde::{Deserialize, Serialize};

pub use ignore::{BadRule, IGNORE_RULE_MAX_BYTES, IGNORE_RULES_MAX, IgnoreRule};

/// K until a `Settings` record says otherwise.
pub const DEFAULT_KEYS_REMEMBERED: u64 = 65_536;

/// The largest K: the fold's tables take some 100 bytes for each.
pub const KEYS_REMEMBERED_MAX: u64 = 1 << 22;

/// What the fold and the kept replies are bounded by. Defaults are those of format version 1.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// K: after how many counts sessions and keys are forgotten. Fixed by the log's first `Settings` record.
    pub keys_remembered: u64,
    /// R: the replies of how many counted messages are kept.
    pub replies_kept: u64,
    /// Of the kept replies, at most this many bytes of bodies; the oldest go first.
    pub replies_kept_bytes: u64,
    /// A larger reply becomes a typed error in every replica.
    pub reply_limit_bytes: u64,
    /// After how many records a pin ends by itself.
    pub pin_limit_records: u64,
    /// How many records may pass between two digests of the owner.
    pub digest_every_records: u64,
    /// How many milliseconds with progress may pass between two digests of the owner.
    pub digest_every_ms: u64,
    /// How long the owner may stay silent before a standby fences, in milliseconds.
    pub failover_after_ms: u64,
    /// Parts of replies that the running hash leaves out, such as `json:/id`.
    #[serde(deserialize_with = "ignore::bounded")]
    pub ignore: Vec<IgnoreRule>,
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            keys_remembered: DEFAULT_KEYS_REMEMBERED,
            replies_kept: 16_384,
            replies_kept_bytes: 256 << 20,
            reply_limit_bytes: 1 << 20,
            pin_limit_records: 1_000_000,
            digest_every_records: 1_000,
            digest_every_ms: 250,
            failover_after_ms: 3_000,
            ignore: Vec::new(),
        }
    }
}
