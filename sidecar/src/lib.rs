//! The sidecar: ingress, applier, service contract, checkpoints, runners, node agent.

pub mod command;
