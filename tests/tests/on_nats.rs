//! The core of the suite on NATS.

use segue_tests::harness::BrokerKind;

const BROKER: BrokerKind = BrokerKind::Nats;

#[path = "suite/mod.rs"]
mod suite;
