//! The statistics of one carrier or one route: exact, and the same in whatever order the flights came.
//!
//! Delays are kept as a count per minute, so percentiles are exact; the ten worst are ordered by delay and then by
//! their line, so ties fall the same way everywhere. Only integers, so equal means equal.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::flight::Flight;

/// How many of the worst flights are kept.
pub const WORST_FLIGHTS: usize = 10;

/// What is remembered of the flights of one group.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Group {
    cancelled: u64,
    departed: u64,
    delay_sum_min: i64,
    /// Minutes to flights.
    delays: BTreeMap<i32, u64>,
    /// The worst first.
    worst: Vec<Late>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Late {
    delay_min: i32,
    line: String,
}

/// What the board shows of a group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Figures {
    /// All, the cancelled ones included.
    pub flights: u64,
    /// Those that never left.
    pub cancelled: u64,
    /// The sum of all departure delays, in minutes.
    pub delay_sum_min: i64,
    /// The mean delay in thousandths of a minute, rounded down; 0 if none left.
    pub mean_delay_millimin: i64,
    /// Half of the departed were at most this late; `None` if none left.
    pub p50_delay_min: Option<i32>,
    /// 95 of 100 of the departed were at most this late; `None` if none left.
    pub p95_delay_min: Option<i32>,
    /// The lines of the most delayed flights, the worst first.
    pub worst: Vec<String>,
}

impl Group {
    /// Adds a flight.
    pub fn take(&mut self, flight: &Flight) {
        let Some(delay_min) = flight.delay_min else {
            self.cancelled += 1;
            return;
        };
        self.departed += 1;
        self.delay_sum_min += i64::from(delay_min);
        *self.delays.entry(delay_min).or_default() += 1;
        let place = self.worst.partition_point(|other| (-other.delay_min, &other.line) <= (-delay_min, &flight.line));
        if place < WORST_FLIGHTS {
            self.worst.insert(place, Late { delay_min, line: flight.line.clone() });
            self.worst.truncate(WORST_FLIGHTS);
        }
    }

    /// What the board shows.
    #[must_use]
    pub fn figures(&self) -> Figures {
        let departed = i64::try_from(self.departed).unwrap_or(i64::MAX);
        Figures {
            flights: self.departed + self.cancelled,
            cancelled: self.cancelled,
            delay_sum_min: self.delay_sum_min,
            mean_delay_millimin: if departed == 0 { 0 } else { (self.delay_sum_min * 1000).div_euclid(departed) },
            p50_delay_min: self.percentile(50),
            p95_delay_min: self.percentile(95),
            worst: self.worst.iter().map(|late| late.line.clone()).collect(),
        }
    }

    /// The nearest rank: the smallest delay that at least `percent` of 100 departed flights do not exceed.
    fn percentile(&self, percent: u64) -> Option<i32> {
        let rank = (self.departed * percent).div_ceil(100).max(1);
        let mut seen = 0;
        self.delays.iter().find_map(|(delay, flights)| {
            seen += flights;
            (seen >= rank).then_some(*delay)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flight(number: usize, delay_min: Option<i32>) -> Flight {
        Flight { line: format!("flight {number}"), carrier: "AA".into(), route: "JFK-MIA".into(), delay_min }
    }

    #[test]
    fn figures_are_exact() {
        let mut group = Group::default();
        for (number, delay) in [Some(10), Some(-5), None, Some(2)].into_iter().enumerate() {
            group.take(&flight(number, delay));
        }
        let figures = group.figures();
        assert_eq!((figures.flights, figures.cancelled, figures.delay_sum_min), (4, 1, 7));
        assert_eq!(
            (figures.mean_delay_millimin, figures.p50_delay_min, figures.p95_delay_min),
            (2333, Some(2), Some(10))
        );
        assert_eq!(figures.worst, ["flight 0", "flight 3", "flight 1"]);
    }

    #[test]
    fn the_order_of_the_flights_does_not_matter() {
        let flights: Vec<Flight> = (0..60).map(|n| flight(n % 25, Some((n % 7) as i32))).collect();
        let (mut forward, mut backward) = (Group::default(), Group::default());
        flights.iter().for_each(|flight| forward.take(flight));
        flights.iter().rev().for_each(|flight| backward.take(flight));
        assert_eq!(forward, backward);
        assert_eq!(forward.figures().worst.len(), WORST_FLIGHTS);
    }

    #[test]
    fn a_group_of_cancelled_flights_has_no_percentiles() {
        let mut group = Group::default();
        group.take(&flight(0, None));
        assert_eq!((group.figures().p50_delay_min, group.figures().mean_delay_millimin), (None, 0));
    }
}
