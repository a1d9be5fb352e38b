//! A token bucket on told time: how long one more request has to wait so that a vendor's limit is kept.

use std::time::{Duration, Instant};

/// Requests that may go out at once, and the pace at which more may follow.
#[derive(Clone, Debug)]
pub(super) struct Bucket {
    /// Most requests at once.
    size: u32,
    /// Time after which one more may go out.
    pace: Duration,
    /// When the bucket is full again if nothing more is taken; `None` while it is.
    full_at: Option<Instant>,
}

impl Bucket {
    /// A full bucket.
    pub(super) const fn new(size: u32, pace: Duration) -> Self {
        Self {
            size,
            pace,
            full_at: None,
        }
    }

    /// Takes one request at `now` and returns how long it has to wait.
    pub(super) fn take(&mut self, now: Instant) -> Duration {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + self.pace;
        self.full_at = Some(full_at);
        (full_at - now).saturating_sub(self.pace * self.size)
    }

    /// Lets nothing out before `until`.
    pub(super) fn hold(&mut self, until: Instant) {
        let full_at = until + self.pace * self.size;
        self.full_at = Some(self.full_at.map_or(full_at, |at| at.max(full_at)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_burst_goes_out_at_once_and_the_rest_at_the_pace() {
        let now = Instant::now();
        let mut bucket = Bucket::new(3, 2 * S);
        let waits: Vec<Duration> = (0..5).map(|_| bucket.take(now)).collect();
        assert_eq!(
            waits,
            [Duration::ZERO, Duration::ZERO, Duration::ZERO, 2 * S, 4 * S]
        );
        assert_eq!(bucket.take(now + 9 * S), Duration::ZERO, "it fills again");
    }

    #[test]
    fn a_long_quiet_time_does_not_fill_it_beyond_its_size() {
        let now = Instant::now();
        let mut bucket = Bucket::new(1, S);
        assert_eq!(bucket.take(now), Duration::ZERO);
        let later = now + 1_000 * S;
        assert_eq!(
            (bucket.take(later), bucket.take(later)),
            (Duration::ZERO, S)
        );
    }

    #[test]
    fn a_vendor_that_asks_for_quiet_gets_it() {
        let now = Instant::now();
        let mut bucket = Bucket::new(5, S);
        bucket.hold(now + 60 * S);
        assert_eq!(bucket.take(now), 61 * S);
        assert_eq!(bucket.take(now + 100 * S), Duration::ZERO);
    }
}
