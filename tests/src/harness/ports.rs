//! Free loopback ports that stay ours for the length of a test, over restarts of the server that uses them.
//!
//! They lie below the ephemeral range, so that no outgoing connection takes one while its server is down, and a locked
//! file for each keeps the tests of other processes away.

use std::fs::{File, OpenOptions};
use std::net::TcpListener;
use std::process;

const FIRST_PORT: u16 = 12_000;
const LAST_PORT: u16 = 31_999;

/// A port that nobody else is given until this is dropped.
#[derive(Debug)]
pub struct Port {
    number: u16,
    _lock: File,
}

impl Port {
    /// As `127.0.0.1:PORT`.
    #[must_use]
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.number)
    }
}

/// A free port.
///
/// # Panics
/// If there is none, or the temporary folder cannot be written.
#[must_use]
pub fn free_port() -> Port {
    let folder = std::env::temp_dir().join("segue-test-ports");
    std::fs::create_dir_all(&folder).expect("the temporary folder can be written");
    let range = u32::from(LAST_PORT - FIRST_PORT) + 1;
    // Each process begins elsewhere: fewer tries, and ports are reused late.
    let begin = process::id().wrapping_mul(97) % range;
    for step in 0..range {
        let number = FIRST_PORT + u16::try_from((begin + step) % range).expect("the range is one of ports");
        let lock = OpenOptions::new().create(true).truncate(false).write(true).open(folder.join(number.to_string()));
        let Ok(lock) = lock else { continue };
        if lock.try_lock().is_ok() && TcpListener::bind(("127.0.0.1", number)).is_ok() {
            return Port { number, _lock: lock };
        }
    }
    panic!("no port is free between {FIRST_PORT} and {LAST_PORT}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_ports_differ_while_both_are_held() {
        let (one, other) = (free_port(), free_port());
        assert_ne!(one.number, other.number);
    }
}
