//! The core of the suite on the embedded broker.

use segue_tests::harness::BrokerKind;

const BROKER: BrokerKind = BrokerKind::Embedded;

#[path = "suite/mod.rs"]
mod suite;
