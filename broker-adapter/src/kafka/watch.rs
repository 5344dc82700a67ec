//! Notices a consumer to which nothing comes although something is there. librdkafka says nothing of it, and goes on waiting.

use std::time::Duration;

/// How long a consumer's thread waits before it looks whether anybody still wants it.
pub const POLL_LIMIT: Duration = Duration::from_millis(100);
/// After so many polls in vain the leader is asked whether there is anything to read; if there is, it must come within so many more.
const WATCH_AFTER_POLLS: u32 = 50;
const PROGRESS_POLLS: u32 = 30;

/// Notices a reader that stands still: counts polls that waited and got nothing.
#[derive(Debug, Default)]
pub struct Watch {
    silent: u32,
    /// The leader has more.
    promised: bool,
}

/// What a silent reader wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wants {
    Nothing,
    /// To know where the log ends.
    Tail,
    /// To be replaced: what is there did not come.
    Another,
}

impl Watch {
    /// A poll got something, or did not wait; or it waited in vain.
    pub fn polled(&mut self, progressed: bool) {
        match progressed {
            true => *self = Watch::default(),
            false => self.silent += 1,
        }
    }

    /// What is to be done now.
    pub fn wants(&self) -> Wants {
        match self.promised {
            true if self.silent >= PROGRESS_POLLS => Wants::Another,
            false if self.silent >= WATCH_AFTER_POLLS => Wants::Tail,
            _ => Wants::Nothing,
        }
    }

    /// The leader has more, or has not.
    pub fn told(&mut self, promised: bool) {
        *self = Watch { silent: 0, promised };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn silent(watch: &mut Watch, polls: u32) -> Wants {
        (0..polls).for_each(|_| watch.polled(false));
        watch.wants()
    }

    #[test]
    fn a_reader_that_stands_still_before_what_is_there_is_replaced() {
        let mut watch = Watch::default();
        assert_eq!(silent(&mut watch, WATCH_AFTER_POLLS - 1), Wants::Nothing);
        assert_eq!(silent(&mut watch, 1), Wants::Tail);
        watch.told(true);
        assert_eq!(silent(&mut watch, PROGRESS_POLLS - 1), Wants::Nothing);
        assert_eq!(silent(&mut watch, 1), Wants::Another);
    }

    #[test]
    fn a_reader_at_the_tail_asks_now_and_then_and_a_record_makes_it_forget() {
        let mut watch = Watch::default();
        assert_eq!(silent(&mut watch, WATCH_AFTER_POLLS), Wants::Tail);
        watch.told(false);
        assert_eq!(silent(&mut watch, WATCH_AFTER_POLLS - 1), Wants::Nothing);
        watch.told(true);
        watch.polled(true);
        assert_eq!(silent(&mut watch, PROGRESS_POLLS), Wants::Nothing);
    }
}
