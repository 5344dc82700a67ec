//! The core of the suite on Kafka.

use segue_tests::harness::BrokerKind;

const BROKER: BrokerKind = BrokerKind::Kafka;

#[path = "suite/mod.rs"]
mod suite;
