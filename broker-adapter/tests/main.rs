//! The adapters against the contract and against what breaks them: real files, real sockets.
#![allow(clippy::disallowed_methods)] // tests of real processes

mod conformance;
mod memory;
