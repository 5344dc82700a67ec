//! The Kafka adapter on a real server.

mod conformance;
mod server;
