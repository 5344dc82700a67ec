//! How fast counters grow: a short, bounded memory of what nodes announced.
//!
//! Only for people and plans; nothing decides by it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use broker_adapter::ids::{NodeName, Position};

/// How far back a rate looks.
const WINDOW: Duration = Duration::from_secs(5);
/// Two samples nearer than this are one.
const SAMPLE_EVERY: Duration = Duration::from_millis(100);
/// A rate over less than this would be noise.
const SPAN_MIN: Duration = Duration::from_millis(400);

/// A counter's values of the last seconds.
#[derive(Clone, Debug, Default)]
pub struct Pace {
    samples: VecDeque<(Duration, u64)>,
}

impl Pace {
    /// A counter stands at `value` now. One that went back begins anew.
    pub fn sample(&mut self, value: u64, now: Duration) {
        if self.samples.back().is_some_and(|(_, last)| value < *last) {
            self.samples.clear();
        }
        // The window is what bounds it: at most WINDOW / SAMPLE_EVERY and one beyond.
        while self.samples.get(1).is_some_and(|(at, _)| now.saturating_sub(*at) >= WINDOW) {
            self.samples.pop_front();
        }
        let len = self.samples.len();
        let is_near = len >= 2 && now.saturating_sub(self.samples[len - 2].0) < SAMPLE_EVERY;
        match self.samples.back_mut().filter(|_| is_near) {
            Some(last) => *last = (now, value),
            None => self.samples.push_back((now, value)),
        }
    }

    /// By how much it grows in a second; nothing if it was not told often enough, or not for long.
    #[must_use]
    pub fn per_s(&self, now: Duration) -> Option<f64> {
        let (first, last) = (self.samples.front()?, self.samples.back()?);
        let span = last.0.saturating_sub(first.0);
        if span < SPAN_MIN || now.saturating_sub(last.0) >= WINDOW {
            return None;
        }
        // Counters of a few seconds are far below 2^52.
        Some(((last.1 - first.1) as f64 / span.as_secs_f64() * 10.0).round() / 10.0)
    }
}

/// What is measured of one shard.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Messages that count.
    pub messages: Pace,
    /// Records of any kind.
    pub records: Pace,
    /// What each node's replica applies.
    pub applied: BTreeMap<NodeName, Pace>,
    /// The last counted checkpoint, and when it was first told here.
    pub checkpoint: Option<(Position, Duration)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn a_rate_is_that_of_the_last_seconds_and_unknown_when_nothing_is_told() {
        let mut pace = Pace::default();
        assert_eq!(pace.per_s(ms(0)), None);
        for step in 0..40 {
            pace.sample(if step < 20 { 0 } else { (step - 20) * 50 }, ms(step * 500));
        }
        assert_eq!(pace.per_s(ms(19_500)), Some(100.0));
        assert!(pace.samples.len() < 20, "{}", pace.samples.len());
        assert_eq!(pace.per_s(ms(60_000)), None);
    }

    #[test]
    fn a_counter_that_goes_back_begins_anew() {
        let mut pace = Pace::default();
        pace.sample(1_000, ms(0));
        pace.sample(10, ms(500));
        assert_eq!(pace.per_s(ms(500)), None);
        pace.sample(20, ms(1_500));
        assert_eq!(pace.per_s(ms(1_500)), Some(10.0));
    }

    #[test]
    fn many_samples_in_a_moment_do_not_fill_the_memory() {
        let mut pace = Pace::default();
        (0..10_000).for_each(|step| pace.sample(step, ms(step)));
        assert!(pace.samples.len() <= 60, "{}", pace.samples.len());
    }
}
