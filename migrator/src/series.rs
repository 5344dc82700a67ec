//! How lag and rates ran during a migration: few points, evenly spread, however long it takes.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use broker_adapter::ids::MigrationId;
use serde::Serialize;
use sidecar::command::TrafficSlice;
use utoipa::ToSchema;

/// The most points of one line; then every second one goes, and from there on half as many are taken.
const POINTS_MAX: usize = 1_024;
/// Of how many migrations lines are remembered.
const KEPT_MAX: usize = 64;

/// A line: wall milliseconds and a value.
#[derive(Clone, Debug, Default)]
pub struct Line {
    points: VecDeque<(u64, f64)>,
    skip: u32,
    skipped: u32,
}

impl Line {
    /// Takes a point, or not, if there are many.
    pub fn push(&mut self, at_ms: u64, value: f64) {
        if self.skipped < self.skip {
            self.skipped += 1;
            return;
        }
        self.skipped = 0;
        self.points.push_back((at_ms, value));
        if self.points.len() >= POINTS_MAX {
            let mut keep = false;
            self.points.retain(|_| {
                keep = !keep;
                keep
            });
            self.skip = self.skip * 2 + 1;
        }
    }

    fn told(&self) -> Vec<(u64, f64)> {
        self.points.iter().copied().collect()
    }
}

/// The lines of one migration.
#[derive(Clone, Debug, Default)]
pub struct Lines {
    /// Records that the target is behind.
    pub lag: Line,
    /// Records that arrive.
    pub arrival: Line,
    /// Records that the target applies.
    pub replay: Line,
    /// By the beginning of a slice: what its slowest ingress told.
    latency: BTreeMap<u64, (u64, u64, u64)>,
    /// The longest stall.
    stall_us: Option<u64>,
}

impl Lines {
    /// What an ingress tells of a slice; the same slice comes again and again.
    pub fn traffic(&mut self, slice: &TrafficSlice) {
        self.stall_us = self.stall_us.max(Some(slice.stall_us));
        let most = self.latency.entry(slice.at_ms).or_default();
        *most = (most.0.max(slice.p50_us), most.1.max(slice.p99_us), most.2.max(slice.max_us));
        if self.latency.len() >= POINTS_MAX {
            let mut keep = false;
            self.latency.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }

    fn latencies(&self) -> Vec<(u64, f64, f64, f64)> {
        // Microseconds of a request are far below 2^52.
        let ms = |us: u64| us as f64 / 1_000.0;
        self.latency.iter().map(|(at, (p50, p99, max))| (*at, ms(*p50), ms(*p99), ms(*max))).collect()
    }

    /// The longest time in which requests waited and none completed.
    pub fn stall(&self) -> Option<Duration> {
        self.stall_us.map(Duration::from_micros)
    }
}

/// What is remembered of all.
#[derive(Default)]
pub struct AllLines {
    lines: BTreeMap<MigrationId, Lines>,
    order: VecDeque<MigrationId>,
}

impl AllLines {
    /// The lines of a migration, new ones if it has none; the oldest go.
    pub fn of(&mut self, id: MigrationId) -> &mut Lines {
        if !self.lines.contains_key(&id) {
            self.order.push_back(id);
            // A running migration has just been sampled and stands far behind the oldest.
            while self.order.len() > KEPT_MAX + crate::driver::RUNNING_MAX {
                if let Some(oldest) = self.order.pop_front() {
                    self.lines.remove(&oldest);
                }
            }
        }
        self.lines.entry(id).or_default()
    }

    /// The lines of a migration, if it has any.
    pub fn get(&self, id: MigrationId) -> Option<&Lines> {
        self.lines.get(&id)
    }

    /// As REST shows them.
    pub fn told(&self, id: MigrationId) -> SeriesView {
        let lines = self.lines.get(&id);
        let told = |line: fn(&Lines) -> &Line| lines.map(|lines| line(lines).told()).unwrap_or_default();
        SeriesView {
            lag: told(|lines| &lines.lag),
            arrival: told(|lines| &lines.arrival),
            replay: told(|lines| &lines.replay),
            latency: lines.map(Lines::latencies).unwrap_or_default(),
        }
    }
}

/// Lines over wall milliseconds; empty where nothing was measured, or the migrator has restarted since.
#[derive(Clone, Debug, Default, PartialEq, Serialize, ToSchema)]
#[schema(as = Series)]
pub struct SeriesView {
    /// Time, and records that the target was behind.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub lag: Vec<(u64, f64)>,
    /// Time, and records that arrived per second.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub arrival: Vec<(u64, f64)>,
    /// Time, and records that the target applied per second.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub replay: Vec<(u64, f64)>,
    /// Time, and the median, the 99th percentile and the maximum of requests' milliseconds.
    #[schema(value_type = Vec<Vec<f64>>)]
    pub latency: Vec<(u64, f64, f64, f64)>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_line_has_few_points_from_its_beginning_to_its_end() {
        let mut line = Line::default();
        (0..100_000_u64).for_each(|at| line.push(at, at as f64));
        let told = line.told();
        assert!(told.len() < POINTS_MAX && told.len() >= POINTS_MAX / 4, "{}", told.len());
        assert!(told[0].0 == 0 && told.last().unwrap().0 > 99_000 && told.is_sorted_by(|one, two| one.0 < two.0));
    }

    #[test]
    fn a_slice_that_is_told_twice_is_one_and_of_two_ingresses_the_slower_counts() {
        let slice = |at_ms, stall_us| TrafficSlice { at_ms, completed: 1, p50_us: 1, p99_us: 2, max_us: 3, stall_us };
        let mut lines = Lines::default();
        assert_eq!(lines.stall(), None);
        [slice(250, 7_000), slice(250, 7_000), slice(500, 2_000), slice(250, 1_000)]
            .iter()
            .for_each(|one| lines.traffic(one));
        assert_eq!((lines.stall(), lines.latencies().len()), (Some(Duration::from_millis(7)), 2));
        (0..5_000).for_each(|at| lines.traffic(&slice(at * 250, 0)));
        assert!(lines.latency.len() < POINTS_MAX);
    }

    #[test]
    fn only_the_last_migrations_have_lines() {
        let mut all = AllLines::default();
        for number in 0..1_000 {
            all.of(MigrationId::from_bits(number)).lag.push(1, 2.0);
        }
        assert!(all.lines.len() <= KEPT_MAX + crate::driver::RUNNING_MAX);
        assert_eq!(all.told(MigrationId::from_bits(999)).lag, [(1, 2.0)]);
        assert_eq!(all.told(MigrationId::from_bits(0)), SeriesView::default());
    }
}
