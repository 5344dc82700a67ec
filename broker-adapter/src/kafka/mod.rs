//! The Kafka adapter: `kafka://HOST:PORT[,HOST:PORT][/PREFIX]`.
//!
//! Durable means `acks=all` by an idempotent producer: the leader acknowledges when every replica in sync has the record, which
//! is before fsync unless the topic has `flush.messages=1`; `usage()` and the log say which. One partition per shard ([`topics`]),
//! positions are offsets + 1, read by consumers in no group ([`reads`]). Everything but the options needs the feature `kafka`.

pub mod options;

#[cfg(feature = "kafka")]
mod ask;
#[cfg(feature = "kafka")]
mod broker;
#[cfg(feature = "kafka")]
mod calls;
#[cfg(feature = "kafka")]
mod client;
#[cfg(feature = "kafka")]
mod lane;
#[cfg(feature = "kafka")]
mod log;
#[cfg(feature = "kafka")]
mod mail;
#[cfg(feature = "kafka")]
mod objects;
#[cfg(feature = "kafka")]
mod reads;
#[cfg(feature = "kafka")]
mod topics;
#[cfg(feature = "kafka")]
mod watch;

#[cfg(feature = "kafka")]
pub use broker::KafkaBroker;
pub use options::KafkaOptions;
