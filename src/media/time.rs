//! Media time: one clock for everything that is captured, and its mapping to RTP and NTP.
//!
//! The process reads the monotonic and the wall clock once, together, at start. All capture times count
//! from that instant, so a later step of the wall clock can neither bend timestamps nor sender reports.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Seconds between the NTP era (1900) and the Unix epoch (1970).
const NTP_OFFSET_S: u64 = 2_208_988_800;

/// Clock rate of every H.264 RTP track, in hertz (RFC 6184).
pub const VIDEO_CLOCK_HZ: u32 = 90_000;

/// Clock rate of every Opus RTP track, in hertz (RFC 7587), and our only sample rate inside.
pub const AUDIO_CLOCK_HZ: u32 = 48_000;

/// An instant on the process's media clock: the time since its epoch, to the nanosecond.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MediaTime(Duration);

impl MediaTime {
    /// The epoch itself.
    pub const ZERO: Self = Self(Duration::ZERO);

    /// The instant `since_epoch` after the epoch.
    pub const fn new(since_epoch: Duration) -> Self {
        Self(since_epoch)
    }

    /// Time since the epoch.
    pub const fn since_epoch(self) -> Duration {
        self.0
    }

    /// Time from `earlier` to `self`; zero if `earlier` is later.
    pub const fn saturating_since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }

    /// `self` moved back by `by`, not before the epoch.
    pub const fn saturating_back(self, by: Duration) -> Self {
        Self(self.0.saturating_sub(by))
    }

    /// The instant as a count of `clock_hz` ticks, rounded to the nearest tick.
    ///
    /// Computed afresh from nanoseconds each time, so no rounding error accumulates over months.
    pub fn ticks(self, clock_hz: u32) -> u64 {
        let scaled = self.0.as_nanos() * u128::from(clock_hz) + 500_000_000;
        u64::try_from(scaled / 1_000_000_000).unwrap_or(u64::MAX)
    }
}

impl std::ops::Add<Duration> for MediaTime {
    type Output = Self;

    fn add(self, by: Duration) -> Self {
        Self(self.0.saturating_add(by))
    }
}

/// Maps instants of the monotonic clock to [`MediaTime`], and media time to wall time and NTP.
///
/// One per process, made where the real clocks are read (`commands/`); copied freely.
#[derive(Clone, Copy, Debug)]
pub struct MediaClock {
    epoch: Instant,
    wall: SystemTime,
}

impl MediaClock {
    /// A clock whose epoch is the instant at which the two clocks showed `epoch` and `wall`.
    pub const fn new(epoch: Instant, wall: SystemTime) -> Self {
        Self { epoch, wall }
    }

    /// Media time at `instant`; the epoch if `instant` lies before it.
    pub fn at(&self, instant: Instant) -> MediaTime {
        MediaTime(instant.saturating_duration_since(self.epoch))
    }

    /// The monotonic instant of `time`.
    pub fn instant(&self, time: MediaTime) -> Instant {
        self.epoch + time.0
    }

    /// The wall time of `time`, as the wall clock stood at the epoch.
    pub fn wall(&self, time: MediaTime) -> SystemTime {
        self.wall + time.0
    }

    /// `time` as an NTP timestamp, 32.32 fixed point (RFC 3550, section 4).
    pub fn ntp(&self, time: MediaTime) -> u64 {
        let unix = self
            .wall(time)
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default();
        let fraction = (u64::from(unix.subsec_nanos()) << 32) / 1_000_000_000;
        (unix.as_secs().wrapping_add(NTP_OFFSET_S) << 32) | fraction
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sixty_days_of_frames_never_drift_from_the_clock() {
        let frame = |n: u64| MediaTime::new(Duration::from_nanos(n * 1_000_000_000 / 30));
        let n = 60 * 86_400 * 30;
        assert_eq!(frame(n).ticks(VIDEO_CLOCK_HZ), n * 3_000);
        assert_eq!(
            frame(n + 1).ticks(VIDEO_CLOCK_HZ) - frame(n).ticks(VIDEO_CLOCK_HZ),
            3_000
        );
    }

    #[test]
    fn ntp_counts_from_1900_with_a_binary_fraction() {
        let now = Instant::now();
        let clock = MediaClock::new(now, UNIX_EPOCH + Duration::from_secs(1));
        assert_eq!(clock.ntp(MediaTime::ZERO), (NTP_OFFSET_S + 1) << 32);
        let half = clock.ntp(MediaTime::new(Duration::from_millis(500)));
        assert_eq!(half & 0xFFFF_FFFF, 1 << 31);
    }

    #[test]
    fn an_instant_before_the_epoch_is_the_epoch() {
        let now = Instant::now();
        let clock = MediaClock::new(now + Duration::from_secs(5), UNIX_EPOCH);
        assert_eq!(clock.at(now), MediaTime::ZERO);
    }
}
