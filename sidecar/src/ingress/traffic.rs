//! What clients of this ingress felt in the last seconds, as announcements tell it: how long requests took, how long none completed.
//!
//! Only for people; nothing decides by it. A stall is the time in which at least one request waited and none completed.

use std::collections::VecDeque;
use std::time::Duration;

use crate::command::TrafficSlice;

/// How long a slice is.
const SLICE_MS: u64 = 250;
/// How many slices are told: an announcement may be lost.
const SLICES: usize = 12;
/// How many requests of a slice are remembered for its percentiles: every so-manieth beyond.
const SAMPLES: usize = 512;

/// One slice.
#[derive(Clone, Debug, Default)]
struct Slice {
    at_ms: u64,
    completed: u64,
    max_us: u64,
    stall_us: u64,
    samples: Vec<u64>,
}

/// The last slices.
#[derive(Clone, Debug, Default)]
pub struct Traffic {
    /// Those that are over, without their samples.
    slices: VecDeque<TrafficSlice>,
    present: Option<Slice>,
    /// Since when at least one request waits.
    busy_since: Option<Duration>,
    completed_at: Duration,
}

impl Traffic {
    /// A request begins to wait.
    pub fn begun(&mut self, now: Duration) {
        self.busy_since.get_or_insert(now);
    }

    /// Nobody waits any more: whoever is left gave up.
    pub fn idle(&mut self) {
        self.busy_since = None;
    }

    /// A request that waited since `began` was answered; so many still wait.
    pub fn completed(&mut self, began: Duration, waiting: usize, now: Duration, wall_ms: u64) {
        let stalled = self.busy_since.map_or(Duration::ZERO, |busy| now.saturating_sub(busy.max(self.completed_at)));
        self.completed_at = now;
        if waiting == 0 {
            self.busy_since = None;
        }
        let took_us = micros(now.saturating_sub(began));
        let slice = self.slice(wall_ms);
        slice.completed += 1;
        slice.max_us = slice.max_us.max(took_us);
        slice.stall_us = slice.stall_us.max(micros(stalled));
        if slice.samples.len() < SAMPLES {
            slice.samples.push(took_us);
        } else {
            let place = usize::try_from(slice.completed).unwrap_or(0) % SAMPLES;
            slice.samples[place] = took_us;
        }
    }

    fn slice(&mut self, wall_ms: u64) -> &mut Slice {
        let at_ms = wall_ms - wall_ms % SLICE_MS;
        if self.present.as_ref().is_some_and(|present| present.at_ms != at_ms)
            && let Some(over) = self.present.take()
        {
            if self.slices.len() + 1 == SLICES {
                self.slices.pop_front();
            }
            self.slices.push_back(over.told());
        }
        self.present.get_or_insert_with(|| Slice { at_ms, ..Slice::default() })
    }

    /// As announcements tell it.
    #[must_use]
    pub fn told(&self) -> Vec<TrafficSlice> {
        self.slices.iter().cloned().chain(self.present.as_ref().map(Slice::told)).collect()
    }
}

impl Slice {
    fn told(&self) -> TrafficSlice {
        let mut samples = self.samples.clone();
        samples.sort_unstable();
        let at = |percent: usize| samples.get((samples.len() * percent / 100).min(samples.len().saturating_sub(1)));
        TrafficSlice {
            at_ms: self.at_ms,
            completed: self.completed,
            p50_us: at(50).copied().unwrap_or_default(),
            p99_us: at(99).copied().unwrap_or_default(),
            max_us: self.max_us,
            stall_us: self.stall_us,
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_stall_is_time_in_which_somebody_waited_and_nothing_completed() {
        let mut traffic = Traffic::default();
        traffic.begun(ms(1_000));
        traffic.completed(ms(1_000), 0, ms(1_002), 10_000);
        // Nobody waits for a while: that is no stall.
        traffic.begun(ms(1_100));
        traffic.begun(ms(1_105));
        traffic.completed(ms(1_100), 1, ms(1_110), 10_110);
        traffic.completed(ms(1_105), 0, ms(1_140), 10_140);
        let told = traffic.told();
        assert_eq!((told.len(), told[0].completed, told[0].stall_us, told[0].max_us), (1, 3, 30_000, 35_000));
    }

    #[test]
    fn only_the_last_slices_are_told_and_each_with_few_samples() {
        let mut traffic = Traffic::default();
        for step in 0..100_000 {
            traffic.begun(ms(step));
            traffic.completed(ms(step), 0, ms(step + 1), step);
        }
        let told = traffic.told();
        assert!(told.len() == SLICES && told.iter().all(|slice| slice.p99_us == 1_000), "{told:?}");
        assert!(traffic.present.is_some_and(|slice| slice.samples.len() <= SAMPLES));
    }
}
