//! How many records are on their way at once: as many as may be, or one at a time, whichever is found to be faster here.
//!
//! More is not always faster. A server that syncs each record before it acknowledges does so on changing threads as soon as several
//! wait, and that can be slower (ext4, for one, delays a sync to let others join its commit): measured on two cores, 1,500–4,200 records/s
//! one at a time, 500–900/s with 2 to 64 on their way, and 800–2,300/s with a thousand. Over a network or with lazy sync it is the
//! other way round. So while more waits than one record, the other way is tried for a moment, ever more seldom while it is worse: a
//! trial lets what is on its way land first, and costs that.

use std::time::Duration;

/// How long a way is measured.
const PERIOD: Duration = Duration::from_millis(40);
/// A way that is tried is given up after this already, if it is only half as fast: what waits meanwhile waits for nothing.
const GLANCE: Duration = Duration::from_millis(5);
/// Until the other way is tried again; doubled each time it was worse.
const TRY_AGAIN_FIRST: Duration = Duration::from_secs(1);
const TRY_AGAIN_MAX: Duration = Duration::from_secs(60);
/// By how much the other way must be faster.
const BETTER: f64 = 1.25;

/// See the module. Does no I/O; is told of every acknowledgement.
#[derive(Debug)]
pub struct Window {
    narrow: bool,
    /// Records per second the other way, while this one is only tried.
    trying_against: Option<f64>,
    try_again: Duration,
    next_try: Duration,
    /// The present period: its begin, and what was acknowledged since; none while it has to begin.
    period: Option<(Duration, u32)>,
}

impl Default for Window {
    fn default() -> Window {
        Window {
            narrow: false,
            trying_against: None,
            try_again: TRY_AGAIN_FIRST,
            next_try: Duration::ZERO,
            period: None,
        }
    }
}

impl Window {
    /// Whether only one record may be on its way.
    pub fn is_narrow(&self) -> bool {
        self.narrow
    }

    /// A record was acknowledged; so many are on their way still, and so many are held in all.
    pub fn acknowledged(&mut self, now: Duration, flying: usize, held: usize) {
        if held == 0 {
            // Nothing waits: there is nothing to be gained, and a trial ends with what it showed so far.
            let shown = self.period.take().map(|(began, records)| rate(records + 1, now.saturating_sub(began)));
            if let Some(other) = self.trying_against.take() {
                let better = shown.is_some_and(|rate| rate > other * BETTER);
                self.narrow ^= !better;
                self.settle(now, if better { TRY_AGAIN_FIRST } else { (2 * self.try_again).min(TRY_AGAIN_MAX) });
            }
            return;
        }
        let Some((began, records)) = &mut self.period else {
            // What is on its way from before must land first.
            if !self.narrow || flying <= 1 {
                self.period = Some((now, 0));
            }
            return;
        };
        *records += 1;
        let elapsed = now.saturating_sub(*began);
        let rate = rate(*records, elapsed);
        let hopeless = elapsed >= GLANCE && self.trying_against.is_some_and(|other| rate < other / 2.0);
        if elapsed < PERIOD && !hopeless {
            return;
        }
        self.period = None;
        match self.trying_against.take() {
            Some(other) if rate > other * BETTER => self.settle(now, TRY_AGAIN_FIRST),
            Some(_) => {
                self.narrow = !self.narrow;
                self.settle(now, (2 * self.try_again).min(TRY_AGAIN_MAX));
            }
            None if now >= self.next_try => {
                self.trying_against = Some(rate);
                self.narrow = !self.narrow;
            }
            None => {}
        }
    }

    fn settle(&mut self, now: Duration, try_again: Duration) {
        self.try_again = try_again;
        self.next_try = now + try_again;
    }

    /// What was on its way will not be acknowledged any more.
    pub fn reset(&mut self) {
        self.period = None;
    }
}

fn rate(records: u32, elapsed: Duration) -> f64 {
    f64::from(records) / elapsed.as_secs_f64().max(f64::MIN_POSITIVE)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A server that takes so many microseconds for a record, alone and among others; tells how many of `records` went narrow.
    fn run(alone_us: u64, among_us: u64, records: usize) -> usize {
        let (mut window, mut now, mut narrow, mut flying) = (Window::default(), Duration::ZERO, 0, 64usize);
        for _ in 0..records {
            now += Duration::from_micros(if flying <= 1 { alone_us } else { among_us });
            narrow += usize::from(window.is_narrow());
            flying = if window.is_narrow() { flying.saturating_sub(1).max(1) } else { 64 };
            window.acknowledged(now, flying, 64);
        }
        narrow
    }

    #[test]
    fn one_at_a_time_where_the_server_is_slower_with_more() {
        assert!(run(250, 1_000, 40_000) > 38_000);
    }

    #[test]
    fn many_at_a_time_where_each_takes_a_way() {
        let narrow = run(1_000, 20, 1_000_000);
        assert!((1..10_000).contains(&narrow), "{narrow} one at a time: tried, and seldom");
    }

    #[test]
    fn without_a_queue_nothing_is_tried() {
        let mut window = Window::default();
        for at in 0..100_000 {
            window.acknowledged(Duration::from_micros(100 * at), 0, 0);
            assert!(!window.is_narrow());
        }
    }

    /// Saturated with many on their way, at a record per millisecond, until the other way is tried.
    fn trying_one_at_a_time() -> (Window, Duration) {
        let (mut window, mut now) = (Window::default(), Duration::ZERO);
        while !window.is_narrow() {
            now += Duration::from_millis(1);
            window.acknowledged(now, 10, 10);
        }
        window.acknowledged(now, 0, 10);
        (window, now)
    }

    #[test]
    fn a_way_that_copes_with_the_load_is_kept() {
        let (mut window, mut now) = trying_one_at_a_time();
        for waiting in (0..10).rev() {
            now += Duration::from_micros(250);
            window.acknowledged(now, 0, waiting);
        }
        for _ in 0..1_000 {
            now += Duration::from_millis(1);
            window.acknowledged(now, 0, 0);
            assert!(window.is_narrow());
        }
    }

    #[test]
    fn a_trial_that_ends_with_the_load_and_showed_nothing_is_taken_back() {
        let (mut window, now) = trying_one_at_a_time();
        window.acknowledged(now + Duration::from_millis(2), 0, 0);
        assert!(!window.is_narrow());
    }
}
