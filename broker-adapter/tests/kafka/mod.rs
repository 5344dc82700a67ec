//! The Kafka adapter on a real server.

mod conformance;
mod faults;
mod proxy;
mod server;
mod settings;
