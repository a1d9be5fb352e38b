//! One look at the network for a burst of news: a cable that is pulled out is a dozen messages.

use std::time::{Duration, Instant};

/// How long news are gathered from the first one on.
const WINDOW: Duration = Duration::from_millis(200);
/// Longest time without a look, in case some news did not come through.
const LONGEST: Duration = Duration::from_secs(60);

/// When to look next.
#[derive(Debug)]
pub(super) struct Bursts {
    due: Instant,
}

impl Bursts {
    /// There was a look at `now`.
    pub(super) fn new(now: Instant) -> Self {
        Self { due: now + LONGEST }
    }

    /// There is news. More of it does not defer the look.
    pub(super) fn note(&mut self, now: Instant) {
        self.due = self.due.min(now + WINDOW);
    }

    /// When the next look is due.
    pub(super) const fn due(&self) -> Instant {
        self.due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_one_look_and_does_not_defer_it() {
        let begin = Instant::now();
        let at = |ms| begin + Duration::from_millis(ms);
        let mut bursts = Bursts::new(begin);
        assert_eq!(bursts.due(), at(60_000));
        for ms in [1000, 1001, 1050, 1199] {
            bursts.note(at(ms));
            assert_eq!(bursts.due(), at(1200));
        }
        let mut bursts = Bursts::new(at(1200));
        assert_eq!(bursts.due(), at(61_200));
        bursts.note(at(1201));
        assert_eq!(bursts.due(), at(1401));
    }

    #[test]
    fn news_right_before_a_regular_look_does_not_defer_it() {
        let begin = Instant::now();
        let mut bursts = Bursts::new(begin);
        bursts.note(begin + Duration::from_millis(59_900));
        assert_eq!(bursts.due(), begin + LONGEST);
    }
}
