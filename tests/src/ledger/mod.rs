//! The reference service of the tests: an ordered list of the texts that it was given, and a hash chain over them.
//!
//! Each answer tells how many texts there are and the chain's hash, so one answer alone gives away any loss, doubling or
//! swap before it. [`Chain`] is the pure core, which the checker recomputes; [`Ledger`] serves it over HTTP/1.1 on a port
//! of any [`Shell`](broker_adapter::shell::Shell), simulated or real; [`Faults`] make it misbehave from outside, never
//! by a request, because requests are inputs and would be replayed.

mod batch;
mod chain;
mod faults;
mod runner;
mod serve;
#[cfg(test)]
mod tests;

pub use chain::{BadState, Chain, Value};
pub use faults::{Faults, UnknownFault};
pub use runner::LedgerRunner;
pub use serve::Ledger;
