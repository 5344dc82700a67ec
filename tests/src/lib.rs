//! What the tests stand on: the reference service ([`ledger`]), the oracle ([`checker`]) and the [`harness`] that runs
//! real processes.
//!
//! The ledger and the checker know no process and no socket of their own, so the simulation uses them as they are.

pub mod brokers;
pub mod cells;
pub mod checker;
pub mod harness;
pub mod ledger;
pub mod sim;
pub mod soak;
