//! End to end: real processes, a broker of its own, clients over TCP, kills by pid.
//!
//! The modules `on_…` are the same files (`suite`) once for each broker.
#![allow(clippy::duplicate_mod)]

mod attached;
mod bad_input;
mod bad_service;
mod batch_samples;
mod batches;
mod beginning;
mod brokers;
mod cells;
mod checkpoint_files;
mod checkpoint_folder;
mod damage;
mod dashboard;
mod failing_loads;
mod first_contact;
mod guarded;
mod idle;
mod ingress;
mod ingress_only;
mod large_bodies;
mod observability;
mod of_itself;
mod on_embedded;
mod on_kafka;
mod on_nats;
mod one_process;
mod proof;
mod python_samples;
mod rest;
mod rest_contract;
mod rules;
mod samples;
mod simulation;
mod standbys;
mod strategies;
mod traces;
mod upkeep;

use segue_tests::harness::{Cluster, Load, Recorder};

/// How fast the clients of these tests send: enough to be inside every phase, little enough for two shared cores.
const RATE_PER_S: u32 = 200;

/// The end of every test under load: clients are served again, all goes quiet, and the oracle finds nothing.
async fn ends_clean(cluster: &Cluster, recorder: &Recorder, load: Load) {
    load.acknowledges(50).await;
    let observations = load.finish().await;
    assert!(observations.len() >= 50, "a load that sent nothing proves nothing");
    assert_eq!(cluster.findings(recorder, observations).await, []);
}
