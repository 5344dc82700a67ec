//! What the clients felt, on their own clock: stalls, blackouts, latencies. Pure functions over the requests of a run.
//!
//! ```text
//!  due ●───────────● acknowledged           a stall: from the moment somebody waits (or the last completion,
//!        due ●─────────────● acknowledged   whichever is later) to the next completion
//!      ├───────────┤ stall
//!                  ├───────┤ stall
//! ```
//! Blackout (design section 1): from the acceptance of a migration to its completion plus 1 s, the longest time in which a
//! request was due or waiting and none completed. Quiet blackout: the same in windows of equal length without migration or
//! checkpoint. Only an acknowledged request completes; a refused or broken one waits until it ends and completes nothing.

use std::cmp::Reverse;
use std::time::Duration;

/// What is added to a migration's window behind its completion.
pub const AFTER_COMPLETION: Duration = Duration::from_secs(1);

/// One request, on the client's clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// When it was to be sent.
    pub due: Duration,
    /// When it ended.
    pub ended: Duration,
    /// Whether it was acknowledged.
    pub acknowledged: bool,
}

/// A piece of the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Window {
    /// Its beginning.
    pub from: Duration,
    /// Its end.
    pub to: Duration,
}

impl Window {
    /// How long it is.
    #[must_use]
    pub fn length(&self) -> Duration {
        self.to.saturating_sub(self.from)
    }

    fn contains(&self, moment: Duration) -> bool {
        self.from <= moment && moment < self.to
    }
}

/// Latencies from the moment a request was due, by nearest rank.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// Half are at most this.
    pub p50: Duration,
    /// 99 of 100 are at most this.
    pub p99: Duration,
    /// None is more.
    pub max: Duration,
}

/// A run as the clients saw it.
pub struct Timeline {
    /// By due time.
    spans: Vec<Span>,
    /// In order, never overlapping.
    stalls: Vec<Window>,
}

/// What one migration cost, beside what the machine costs without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cost {
    /// In the migration's window.
    pub blackout: Duration,
    /// When it ended, from the window's beginning on.
    pub blackout_ended: Duration,
    /// The median of the quiet windows of the same length; `None` if the run had none.
    pub quiet_blackout: Option<Duration>,
    /// In the migration's window.
    pub latency: Latency,
    /// In the quiet window whose blackout is the median.
    pub quiet_latency: Option<Latency>,
}

impl Timeline {
    /// Of all requests of a run, in any order.
    #[must_use]
    pub fn new(mut spans: Vec<Span>) -> Timeline {
        spans.sort_by_key(|span| (span.due, span.ended));
        let stalls = stalls(&spans);
        Timeline { spans, stalls }
    }

    /// From the first due request to the last end.
    #[must_use]
    pub fn whole(&self) -> Window {
        Window {
            from: self.spans.first().map_or(Duration::ZERO, |span| span.due),
            to: self.spans.iter().map(|span| span.ended).max().unwrap_or_default(),
        }
    }

    /// From the first due request to the last: a window without due requests would be quiet for no good reason.
    fn sending(&self) -> Window {
        let due = |span: Option<&Span>| span.map_or(Duration::ZERO, |span| span.due);
        Window { from: due(self.spans.first()), to: due(self.spans.last()) }
    }

    /// The longest time within the window in which a request was due or waiting and none completed.
    #[must_use]
    pub fn blackout(&self, window: Window) -> Duration {
        self.longest(window).length()
    }

    /// Where that time lies; the first one if several are as long.
    fn longest(&self, window: Window) -> Window {
        let first = self.stalls.partition_point(|stall| stall.to <= window.from);
        let inside = self.stalls[first..].iter().take_while(|stall| stall.from < window.to);
        let inside = inside.map(|stall| Window { from: stall.from.max(window.from), to: stall.to.min(window.to) });
        let nothing = Window { from: window.from, to: window.from };
        inside.max_by_key(|stall| (stall.length(), Reverse(stall.from))).unwrap_or(nothing)
    }

    /// The latencies of the acknowledged requests that were due in the window.
    #[must_use]
    pub fn latency(&self, window: Window) -> Latency {
        let first = self.spans.partition_point(|span| span.due < window.from);
        let inside = self.spans[first..].iter().take_while(|span| window.contains(span.due));
        let waits = inside.filter(|span| span.acknowledged).map(|span| span.ended.saturating_sub(span.due));
        let mut waits: Vec<Duration> = waits.collect();
        waits.sort_unstable();
        Latency {
            p50: percentile(&waits, 50),
            p99: percentile(&waits, 99),
            max: waits.last().copied().unwrap_or_default(),
        }
    }

    /// What the migration in `window` cost; `disturbed` are the windows of all migrations, this one included.
    #[must_use]
    pub fn cost(&self, window: Window, disturbed: &[Window]) -> Cost {
        let mut quiet: Vec<(Duration, Window)> = quiet_windows(self.sending(), disturbed, window.length())
            .into_iter()
            .map(|quiet| (self.blackout(quiet), quiet))
            .collect();
        quiet.sort_by_key(|(blackout, quiet)| (*blackout, quiet.from));
        let median = quiet.get(quiet.len().saturating_sub(1) / 2);
        let blackout = self.longest(window);
        Cost {
            blackout: blackout.length(),
            blackout_ended: blackout.to.saturating_sub(window.from),
            quiet_blackout: median.map(|(blackout, _)| *blackout),
            latency: self.latency(window),
            quiet_latency: median.map(|(_, quiet)| self.latency(*quiet)),
        }
    }
}

/// As many windows of this length as fit side by side between the disturbed ones.
fn quiet_windows(whole: Window, disturbed: &[Window], length: Duration) -> Vec<Window> {
    let mut disturbed = disturbed.to_vec();
    disturbed.sort_by_key(|window| window.from);
    disturbed.push(Window { from: whole.to, to: whole.to });
    let mut windows = Vec::new();
    let mut from = whole.from;
    for next in disturbed {
        while !length.is_zero() && from + length <= next.from {
            windows.push(Window { from, to: from + length });
            from += length;
        }
        from = from.max(next.to);
    }
    windows
}

/// The nearest rank in sorted values; zero if there are none.
#[must_use]
pub fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    let rank = (sorted.len() * percent).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

/// Every time in which somebody waited and nobody was served, in order.
fn stalls(spans: &[Span]) -> Vec<Window> {
    // At one moment, those who come are counted before those who end: a request of no length was waiting.
    let mut events: Vec<(Duration, bool, bool)> = Vec::with_capacity(2 * spans.len());
    for span in spans {
        events.push((span.due, false, false));
        events.push((span.ended.max(span.due), true, span.acknowledged));
    }
    events.sort_unstable();
    let mut stalls = Vec::new();
    let (mut waiting, mut since) = (0u64, Duration::ZERO);
    for (at, is_end, acknowledged) in events {
        if !is_end {
            if waiting == 0 {
                since = at;
            }
            waiting += 1;
            continue;
        }
        waiting -= 1;
        if acknowledged || waiting == 0 {
            stalls.push(Window { from: since, to: at });
            since = at;
        }
    }
    stalls
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn window(from: u64, to: u64) -> Window {
        Window { from: ms(from), to: ms(to) }
    }

    fn span(due: u64, ended: u64) -> Span {
        Span { due: ms(due), ended: ms(ended), acknowledged: true }
    }

    /// One request per millisecond, each answered after one, but none from `from` to `to`.
    fn run_with_stall(from: u64, to: u64) -> Timeline {
        let answered = |due| if (from..to).contains(&(due + 1)) { to } else { due + 1 };
        Timeline::new((0..10_000).map(|due| span(due, answered(due))).collect())
    }

    #[test]
    fn a_planted_stall_is_the_blackout_of_its_window() {
        let timeline = run_with_stall(3000, 3040);
        assert_eq!(timeline.blackout(window(2500, 4500)), ms(41), "from the last completion to the next");
        assert_eq!(timeline.blackout(window(5000, 7000)), ms(1));
        assert_eq!(timeline.blackout(timeline.whole()), ms(41));
    }

    #[test]
    fn a_stall_counts_only_as_far_as_it_reaches_into_the_window() {
        let timeline = run_with_stall(3000, 3040);
        assert_eq!(timeline.blackout(window(3010, 3020)), ms(10));
        assert_eq!(timeline.blackout(window(3030, 5000)), ms(10));
    }

    #[test]
    fn silence_without_anybody_waiting_is_no_blackout() {
        let timeline = Timeline::new(vec![span(0, 1), span(500, 503), span(900, 901)]);
        assert_eq!(timeline.blackout(window(0, 1000)), ms(3));
    }

    #[test]
    fn a_refused_request_completes_nothing() {
        let refused = |due, ended| Span { acknowledged: false, ..span(due, ended) };
        let timeline = Timeline::new(vec![span(0, 1), refused(10, 20), refused(15, 30), span(25, 40)]);
        assert_eq!(timeline.blackout(window(0, 100)), ms(30), "from 10, when somebody waited, to 40");
        let timeline = Timeline::new(vec![refused(10, 20), refused(30, 35)]);
        assert_eq!(timeline.blackout(window(0, 100)), ms(10), "nobody waited from 20 to 30");
    }

    #[test]
    fn a_cost_stands_beside_the_quiet_windows_of_the_same_run() {
        let timeline = run_with_stall(3000, 3040);
        let moves = [window(2900, 4100), window(6000, 7200)];
        let cost = timeline.cost(moves[0], &moves);
        assert_eq!((cost.blackout, cost.quiet_blackout), (ms(41), Some(ms(1))));
        assert_eq!(cost.blackout_ended, ms(140));
        assert_eq!(cost.latency.max, ms(41));
        assert_eq!(cost.quiet_latency.unwrap(), Latency { p50: ms(1), p99: ms(1), max: ms(1) });
        let everything = timeline.whole();
        assert_eq!(timeline.cost(everything, &[everything]).quiet_blackout, None);
    }

    #[test]
    fn waiting_for_late_replies_is_not_quiet_time() {
        let timeline = Timeline::new(vec![span(0, 900), span(100, 901), span(200, 902)]);
        let moved = window(0, 120);
        assert_eq!(timeline.cost(moved, &[moved]).quiet_blackout, None, "from 120 to 200 only 80 ms are left");
    }

    #[test]
    fn quiet_windows_keep_clear_of_migrations() {
        let quiet = quiet_windows(window(0, 100), &[window(50, 65), window(20, 30)], ms(10));
        let starts: Vec<u128> = quiet.iter().map(|window| window.from.as_millis()).collect();
        assert_eq!(starts, [0, 10, 30, 40, 65, 75, 85]);
    }

    #[test]
    fn percentiles_are_nearest_ranks() {
        let waits: Vec<Duration> = (1..=200).map(ms).collect();
        assert_eq!((percentile(&waits, 50), percentile(&waits, 99)), (ms(100), ms(198)));
        assert_eq!(percentile(&[], 99), Duration::ZERO);
    }
}
