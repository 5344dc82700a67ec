//! The delay board's whole state, and the one way to change it: apply a flight.

use std::collections::BTreeMap;
use std::sync::Arc;

use broker_adapter::ids::Hash;

use super::flight::Flight;
use super::group::Group;
use super::padding::Padding;

/// Everything the service knows. Cloning copies pointers only, so a snapshot stalls nobody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// What the last flight was answered.
    pub applied: Applied,
    /// By carrier.
    pub carriers: BTreeMap<String, Arc<Group>>,
    /// By route.
    pub routes: BTreeMap<String, Arc<Group>>,
    /// What makes the state as large as `--state-mb` says.
    pub padding: Padding,
}

/// The reply to a flight: names every flight applied so far, in their order.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// How many flights were applied, this one included.
    pub n: u64,
    /// BLAKE3 over the hash before this flight (32 zero bytes before the first) and its canonical line.
    pub hash: Hash,
}

impl State {
    /// Without a flight, with so much padding.
    #[must_use]
    pub fn empty(padding_bytes: u64) -> State {
        State { padding: Padding::generate(padding_bytes), ..State::default() }
    }

    /// Takes one flight.
    pub fn apply(&mut self, flight: &Flight) -> Applied {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.applied.hash.0);
        hasher.update(flight.line.as_bytes());
        let hash = Hash(*hasher.finalize().as_bytes());
        self.applied = Applied { n: self.applied.n + 1, hash };
        Arc::make_mut(self.carriers.entry(flight.carrier.clone()).or_default()).take(flight);
        Arc::make_mut(self.routes.entry(flight.route.clone()).or_default()).take(flight);
        self.padding.change(&hash.0);
        self.applied
    }
}
