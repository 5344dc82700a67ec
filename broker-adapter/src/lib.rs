//! Records, the fold, the three faces of a broker, and the adapters.
//!
//! The leftmost crate: it knows nobody. A log's records ([`record`]) are folded ([`fold`]) to who owns a shard, which
//! messages count, and what is kept; brokers offer the records ([`log`]), checkpoints ([`store`]) and mail ([`mailbox`]).

pub mod broker;
pub mod conformance;
pub mod embedded;
pub mod fold;
pub mod follow;
pub mod ids;
pub mod kafka;
pub mod log;
pub mod mailbox;
pub mod memory;
pub mod nats;
pub mod record;
pub mod settings;
pub mod shell;
pub mod store;
pub mod stores;
pub mod tls;

pub use broker::{Broker, BrokerOptions, ConnectError, connect, connect_with};

/// The optional adapters that this program was built with.
pub const FEATURES: &[&str] = &[
    #[cfg(feature = "nats")]
    "nats",
    #[cfg(feature = "kafka")]
    "kafka",
    #[cfg(feature = "s3")]
    "s3",
];
