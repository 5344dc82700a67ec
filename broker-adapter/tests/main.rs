//! The adapters against the contract and against what breaks them: real files, real sockets.
#![allow(clippy::disallowed_methods, clippy::unwrap_used)] // tests of real processes

mod broken;
mod damage;
mod durability;
mod guarded;
#[cfg(feature = "kafka")]
mod kafka;
mod support;

mod conformance;
mod memory;
#[cfg(feature = "nats")]
mod nats;
#[cfg(feature = "s3")]
mod s3;
mod shared_folder;
