//! How long each stage on a frame's road may take, so that all of them together fit the service's watchdog. Pure.
//!
//! systemd ends a service that has not reported for `WatchdogSec`. A stage that is given up only after that never
//! gets its own remedy, and one stuck camera becomes a restart loop. So every deadline is a share of the one value,
//! and the shares sum up to less than the whole: even if each stage in turn takes all of its time, the last verdict
//! comes with some time left to report it.

use std::time::Duration;

/// Time that each stage may take, from the device to the server's receiver report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Opening the device.
    pub open: Duration,
    /// Finding and setting a format.
    pub format: Duration,
    /// From the format to the first frame.
    pub first_frame: Duration,
    /// From one frame to the next.
    pub frames: Duration,
    /// Closing the device.
    pub release: Duration,
    /// Converting and encoding one frame.
    pub encode: Duration,
    /// Handing a frame over to the network; a path that takes longer is lost.
    pub send: Duration,
    /// From sending to the server's first sign of having received it, and how long its receiver reports may stand still.
    /// They may be five seconds apart.
    pub accepted: Duration,
}

impl Budget {
    /// The shortest `WatchdogSec` with which every stage has the time that real devices and servers need.
    pub const LEAST: Duration = Duration::from_secs(30);
    /// A longer `WatchdogSec` gives the stages no more time: nobody waits minutes for a picture.
    pub const MOST: Duration = Duration::from_secs(60);

    /// The stages' shares of `watchdog`, which together take 88.4 % of it, or of [`Self::MOST`]. `None` if it is
    /// shorter than [`Self::LEAST`].
    pub fn within(watchdog: Duration) -> Option<Self> {
        (watchdog >= Self::LEAST).then(|| Self::of(watchdog.min(Self::MOST)))
    }

    fn of(whole: Duration) -> Self {
        let share = |thousandths: u32| whole * thousandths / 1000;
        Self {
            open: share(100),
            format: share(50),
            first_frame: share(133),
            frames: share(67),
            release: share(33),
            encode: share(67),
            send: share(100),
            accepted: share(334),
        }
    }

    /// The time of all stages in a row.
    pub fn total(&self) -> Duration {
        // Taken apart, so that no stage can be added and forgotten here.
        let &Self {
            open,
            format,
            first_frame,
            frames,
            release,
            encode,
            send,
            accepted,
        } = self;
        [
            open,
            format,
            first_frame,
            frames,
            release,
            encode,
            send,
            accepted,
        ]
        .iter()
        .sum()
    }

    /// The time of all stages in a row up to and with that of the encoder.
    pub fn encoded(&self) -> Duration {
        self.total() - self.send - self.accepted
    }
}

impl Default for Budget {
    /// That of the shortest watchdog.
    fn default() -> Self {
        Self::of(Self::LEAST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stages_fit_every_watchdog_that_is_allowed_and_leave_a_tenth_of_it() {
        let least = Budget::LEAST.as_millis() as u64;
        let dense = least..=65_000;
        let sparse = (65..=86_400).map(|s| s * 1000);
        for ms in dense.chain(sparse) {
            let watchdog = Duration::from_millis(ms);
            let budget = Budget::within(watchdog).expect("allowed");
            assert!(
                budget.total() <= watchdog.mul_f64(0.9),
                "{watchdog:?}: {budget:?}"
            );
            assert!(budget.open > budget.format && budget.first_frame >= Duration::from_secs(3));
            // A camera of one picture per second is no stalled one.
            assert!(budget.frames >= Duration::from_secs(2));
            // A packet that is lost on its way over TCP takes a second or two, and two reports make one standstill.
            assert!(budget.send >= Duration::from_secs(3));
            assert!(budget.accepted >= Duration::from_secs(10));
            assert!(budget.encoded() > budget.open + budget.first_frame + budget.encode);
        }
        assert_eq!(Budget::within(Budget::LEAST), Some(Budget::default()));
    }

    #[test]
    fn a_watchdog_too_short_for_real_devices_has_no_budget() {
        assert_eq!(Budget::within(Duration::from_millis(29_999)), None);
        assert_eq!(Budget::within(Duration::ZERO), None);
    }
}
