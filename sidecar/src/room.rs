//! How full a shard's log is: asked about once a second, seen by the ingress, which refuses messages above the high mark, and by the
//! owner, which then makes room (invariants 4 and 7). What is left above the mark is for the other records.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use broker_adapter::log::{MessageLog, RECORD_LEAST_BYTES, Usage};
use broker_adapter::shell::Shell;
use tokio::sync::watch;

use crate::config::ServiceConfig;
use crate::metrics::Metrics;

const ASK_EVERY: Duration = Duration::from_secs(1);
/// The high mark in bytes where none is configured and the broker has a limit: so much of it.
const HIGH_MARK_PERCENT: u64 = 80;

/// What a log holds, and how much more messages may be appended to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// Records that can be read.
    pub records: u64,
    /// How many more fit below the high mark.
    pub records_left: u64,
    /// The same in bytes, where such a mark is set.
    pub bytes_left: Option<u64>,
    /// The largest record that the broker takes: larger bodies go to the checkpoint store.
    pub record_limit_bytes: u64,
    /// Why no message may be appended now.
    pub full: Option<String>,
    /// What an acknowledgement of this log means, for people; empty until the broker was asked.
    pub durability: String,
}

impl Room {
    fn of(usage: &Usage, config: &ServiceConfig) -> Room {
        let records = usage.tail.0.saturating_sub(usage.first.0.saturating_sub(1));
        let mark_records = config.log_high_mark_records;
        let of_broker = usage.limit_bytes.map(|limit| limit.saturating_mul(HIGH_MARK_PERCENT) / 100);
        let mark_bytes = config.log_high_mark_bytes.map(NonZeroU64::get).or(of_broker);
        let full = if records >= mark_records {
            Some(format!("the log holds {records} records, log_high_mark_records is {mark_records}"))
        } else {
            mark_bytes
                .filter(|mark| usage.bytes >= *mark)
                .map(|mark| format!("the log holds {} bytes, log_high_mark_bytes is {mark}", usage.bytes))
        };
        Room {
            records,
            records_left: mark_records.saturating_sub(records),
            bytes_left: mark_bytes.map(|mark| mark.saturating_sub(usage.bytes)),
            record_limit_bytes: usage.record_limit_bytes,
            full,
            durability: usage.durability.clone(),
        }
    }

    /// What is left, for people.
    #[must_use]
    pub fn left(&self) -> String {
        let bytes = self.bytes_left.map_or(String::new(), |bytes| format!(" or {bytes} bytes"));
        format!("{} records{bytes}", self.records_left)
    }
}

/// Asks from now on, until nobody looks any more.
#[must_use]
pub fn watch(
    log: Arc<dyn MessageLog>,
    config: Arc<ServiceConfig>,
    metrics: Metrics,
    shell: &Shell,
) -> watch::Receiver<Room> {
    let record_limit_bytes = RECORD_LEAST_BYTES as u64;
    let unlimited = Room { records_left: config.log_high_mark_records, record_limit_bytes, ..Room::default() };
    let (sender, room) = watch::channel(unlimited);
    let asking = shell.clone();
    shell.spawn(async move {
        while !sender.is_closed() {
            // A broker that is away says nothing new.
            if let Ok(usage) = log.usage().await {
                let room = Room::of(&usage, &config);
                metrics.log_records.set(i64::try_from(room.records).unwrap_or(i64::MAX));
                metrics.log_bytes.set(i64::try_from(usage.bytes).unwrap_or(i64::MAX));
                sender.send_if_modified(|known| {
                    let changed = *known != room;
                    *known = room;
                    changed
                });
            }
            asking.sleep(ASK_EVERY).await;
        }
    });
    room
}

#[cfg(test)]
mod tests {
    use broker_adapter::ids::Position;

    use super::*;

    fn room(config: &str, bytes: u64, limit_bytes: Option<u64>) -> Room {
        let config = format!("name = \"s\"\nlisten = \"h:1\"\n{config}");
        let config: ServiceConfig = toml::from_str(&config).expect("a good service");
        let (first, tail) = (Position(1), Position(10));
        let record_limit_bytes = RECORD_LEAST_BYTES as u64;
        Room::of(&Usage { first, tail, bytes, limit_bytes, record_limit_bytes, durability: String::new() }, &config)
    }

    #[test]
    fn the_high_mark_in_bytes_is_four_fifths_of_what_the_broker_takes() {
        assert_eq!(room("", 799, Some(1_000)).bytes_left, Some(1));
        let full = room("", 800, Some(1_000)).full.expect("it is at the mark");
        assert!(full.ends_with("log_high_mark_bytes is 800"), "{full}");
        assert_eq!((room("", 800, None).full, room("", 800, None).bytes_left), (None, None), "no limit, no mark");
        let configured = room("log_high_mark_bytes = 900", 899, Some(1_000));
        assert_eq!((configured.full, configured.bytes_left), (None, Some(1)), "what is configured goes before");
    }
}
