//! How fast a state may stream: checkpoints and proofs must leave the processor to the requests.

use std::time::Duration;

use broker_adapter::shell::Shell;

/// Slows a stream down to a rate, in small steps, so that requests find the processor free.
pub struct Pace {
    shell: Shell,
    began: Duration,
    bytes: u64,
    bytes_per_s: u64,
}

impl Pace {
    /// A stream that begins now.
    #[must_use]
    pub fn new(shell: &Shell, rate_mb_per_s: u64) -> Pace {
        Pace {
            shell: shell.clone(),
            began: shell.now(),
            bytes: 0,
            bytes_per_s: rate_mb_per_s.max(1).saturating_mul(1 << 20),
        }
    }

    /// The same, or as fast as it can.
    #[must_use]
    pub fn up_to(shell: &Shell, rate_mb_per_s: Option<u64>) -> Pace {
        Pace::new(shell, rate_mb_per_s.unwrap_or(u64::MAX >> 20))
    }

    /// Waits until so many more bytes may have passed.
    pub async fn passed(&mut self, bytes: usize) {
        self.bytes += bytes as u64;
        let due = self.bytes.saturating_mul(1_000_000) / self.bytes_per_s;
        self.shell.sleep_until(self.began + Duration::from_micros(due)).await;
    }
}
