//! The faults that the memory broker can play, and the dice that decide when.
//!
//! Owns the fields, their units, and the randomness of one link or stream. Where a fault strikes is in the modules
//! of the three faces; each strike is counted under its field's name, so that a test can assert that it happened.

use std::time::Duration;

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

/// A wait between two bounds, evenly spread. Tokio's timers count whole milliseconds and round up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delay {
    /// The shortest.
    pub min: Duration,
    /// The longest.
    pub max: Duration,
}

impl Delay {
    /// A wait of `min_ms` to `max_ms` milliseconds.
    #[must_use]
    pub const fn ms(min_ms: u64, max_ms: u64) -> Delay {
        Delay { min: Duration::from_millis(min_ms), max: Duration::from_millis(max_ms) }
    }
}

/// What may go wrong, and how often: chances in thousandths, waits as ranges. The default is: nothing, and no waits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// From the call of an append until it is durable and visible. Calls on one handle overlap and keep their order.
    pub append_delay: Delay,
    /// From there until the caller learns of it.
    pub ack_delay: Delay,
    /// From there until a reader sees it; every stream draws its own.
    pub read_delay: Delay,
    /// The time that opening a log, `tail`, `trim` and `usage` take.
    pub call_delay: Delay,
    /// The time that every call of the checkpoint store takes.
    pub store_delay: Delay,
    /// From sending a mail until it arrives; mails overtake each other.
    pub mail_delay: Delay,
    /// The request never arrives: nothing is appended, the caller hears `Unknown`.
    pub append_lost_per_mille: u32,
    /// The record is appended, the caller hears `Unknown`.
    pub ack_lost_per_mille: u32,
    /// The request, and with it all behind it on its handle, waits for `append_stall`: a dead process's record lands then.
    pub append_stall_per_mille: u32,
    /// How long a stalled append waits.
    pub append_stall: Delay,
    /// The caller hears `Unknown` at once, and the record lands `append_late` later, behind what the same handle
    /// sent after it: a broken connection's bytes that were still on their way.
    pub append_late_per_mille: u32,
    /// How much later a late record lands.
    pub append_late: Delay,
    /// A stream ends with `Unreachable` instead of giving its next record.
    pub read_broken_per_mille: u32,
    /// Opening a log, `tail`, `trim` or `usage` fails with `Unreachable`, and does nothing.
    pub call_failed_per_mille: u32,
    /// A mail is lost.
    pub mail_lost_per_mille: u32,
    /// A mail arrives twice, each at its own time.
    pub mail_doubled_per_mille: u32,
    /// A mail takes `mail_late` more: a command of long ago.
    pub mail_late_per_mille: u32,
    /// How much later a late mail arrives.
    pub mail_late: Delay,
    /// A call of the checkpoint store fails with `Unreachable`; of failed puts, half were done.
    pub store_failed_per_mille: u32,
}

impl Faults {
    /// A sound broker that takes a millisecond or two, as a real one on the same network would.
    #[must_use]
    pub fn calm() -> Faults {
        Faults {
            append_delay: Delay::ms(1, 2),
            ack_delay: Delay::ms(0, 1),
            call_delay: Delay::ms(0, 1),
            store_delay: Delay::ms(1, 3),
            mail_delay: Delay::ms(0, 2),
            ..Faults::default()
        }
    }

    /// Everything at once, each often enough that some hundred messages meet most of it.
    #[must_use]
    pub fn rough() -> Faults {
        Faults {
            append_delay: Delay::ms(0, 8),
            ack_delay: Delay::ms(0, 4),
            read_delay: Delay::ms(0, 5),
            call_delay: Delay::ms(0, 3),
            store_delay: Delay::ms(1, 10),
            mail_delay: Delay::ms(0, 20),
            append_lost_per_mille: 10,
            ack_lost_per_mille: 20,
            append_stall_per_mille: 3,
            append_stall: Delay::ms(200, 4_000),
            append_late_per_mille: 5,
            append_late: Delay::ms(50, 5_000),
            read_broken_per_mille: 5,
            call_failed_per_mille: 10,
            mail_lost_per_mille: 30,
            mail_doubled_per_mille: 30,
            mail_late_per_mille: 15,
            mail_late: Delay::ms(500, 8_000),
            store_failed_per_mille: 20,
        }
    }
}

/// The randomness of one link or stream.
pub(super) struct Dice {
    rng: StdRng,
}

impl Dice {
    /// Of a seed and of a name in it: the same two give the same throws.
    pub fn of(seed: u64, name: &str, number: u64) -> Dice {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&seed.to_be_bytes()).update(&number.to_be_bytes()).update(name.as_bytes());
        Dice { rng: StdRng::from_seed(*hasher.finalize().as_bytes()) }
    }

    /// Dice of their own for one part of the work, so that its throws disturb no others.
    pub fn split(&mut self) -> Dice {
        Dice { rng: StdRng::seed_from_u64(self.rng.random()) }
    }

    /// Whether something of this chance happens now.
    pub fn strikes(&mut self, per_mille: u32) -> bool {
        per_mille > 0 && self.rng.random_range(0..1000) < per_mille
    }

    /// How long it takes this time.
    pub fn wait(&mut self, delay: Delay) -> Duration {
        if delay.max > delay.min { self.rng.random_range(delay.min..=delay.max) } else { delay.min }
    }
}
