//! What a seed's world is like: how many sidecars, how fast the service, what the clients do, what the broker does wrong.
//!
//! Every seed has another mix, so that what needs many things at once is met by some.

use std::time::Duration;

use broker_adapter::memory::{Delay, Faults};
use broker_adapter::settings::DEFAULT_KEYS_REMEMBERED;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

/// One seed's world.
#[derive(Clone, Debug)]
pub struct Mix {
    /// How many sidecars; each is an ingress and may be an owner.
    pub sidecars: usize,
    /// How many more are only ingresses.
    pub gates: usize,
    /// Whose service somebody else runs, and may restart unnoticed: a bit for each node.
    pub attached: u64,
    /// Which of those show the instance token in their answers.
    pub echoes: u64,
    /// K. A small one makes sessions be forgotten and given up.
    pub keys_remembered: u64,
    /// Whether K is small: then a client's key expires as well, so nobody repeats a request.
    pub forgetful: bool,
    /// How long the service takes for a request, until the faults end.
    pub service_time: Duration,
    /// How many clients send at the same time.
    pub clients: usize,
    /// About how long they are at it; a short time is a burst above what the service can do.
    pub sending_time: Duration,
    /// How many requests may wait at an ingress.
    pub parking_limit_requests: usize,
    /// What the broker does wrong.
    pub broker: Faults,
    /// The largest record of the shard's log, where it is small.
    pub record_limit_bytes: Option<usize>,
    /// How often a client's request is larger than that.
    pub large: f64,
}

/// Large enough for every record but a large request's.
const SMALL_RECORD_BYTES: usize = 2 << 10;

impl Mix {
    /// Draws one.
    pub fn of(rng: &mut StdRng) -> Mix {
        let forgetful = rng.random_ratio(1, 3);
        let mix = Mix {
            sidecars: rng.random_range(2..=5),
            gates: *[0, 0, 0, 1, 2].choose(rng).expect("there are some"),
            attached: rng.random::<u64>() & rng.random::<u64>(),
            echoes: rng.random(),
            keys_remembered: if forgetful { rng.random_range(24..64) } else { DEFAULT_KEYS_REMEMBERED },
            forgetful,
            service_time: Duration::from_millis(*[0, 0, 1, 4, 15].choose(rng).expect("there are some")),
            clients: rng.random_range(4..=24),
            sending_time: Duration::from_millis(*[500, 2_500, 4_000, 6_000].choose(rng).expect("there are some")),
            parking_limit_requests: if rng.random_ratio(1, 6) { 3 } else { 4_096 },
            broker: broker(forgetful, rng),
            record_limit_bytes: None,
            large: 0.0,
        };
        let large = *[0.0, 0.0, 0.1, 0.5].choose(rng).expect("there are some");
        Mix { record_limit_bytes: (large > 0.0).then_some(SMALL_RECORD_BYTES), large, ..mix }
    }
}

/// A quarter of all brokers are sound, some show records long before they acknowledge them, and half of those with a small K lose
/// or delay far more appends than any real one: only then does what is late meet a fold that has forgotten.
fn broker(forgetful: bool, rng: &mut StdRng) -> Faults {
    if forgetful && rng.random_bool(0.5) {
        return Faults {
            append_lost_per_mille: 30,
            ack_lost_per_mille: 30,
            append_late_per_mille: 200,
            append_late: Delay::ms(20, 1_200),
            ..Faults::rough()
        };
    }
    match rng.random_range(0..8) {
        0 | 1 => Faults::calm(),
        2 => Faults { ack_delay: Delay::ms(5, 80), ..Faults::rough() },
        _ => Faults::rough(),
    }
}
