//! The vendor's clock for the bill: a stream costs from when it runs until it has stopped, whether anything arrives
//! or not.
//!
//! Pure. Time is the vendor's: in a lab whose time runs a hundred times as fast, a second costs a hundred.

use std::time::Duration;
use std::time::Instant;

use serde::Serialize;

use super::Vendor;

/// What a stream has cost so far.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Bill {
    /// At whom.
    pub vendor: Vendor,
    /// The stream's id.
    pub id: String,
    /// What its owner calls it.
    pub name: String,
    /// Its state as the vendor calls it; `deleted` once it is gone.
    pub state: String,
    /// Seconds that are billed, by the vendor's clock.
    pub billed_s: f64,
    /// Whether it costs at this moment.
    pub running: bool,
    /// How often it was started.
    pub starts: u32,
}

/// The meter of one stream.
#[derive(Clone, Debug, Default)]
pub(super) struct Meter {
    since: Option<Instant>,
    total: Duration,
}

impl Meter {
    /// It costs from now on.
    pub(super) const fn start(&mut self, now: Instant) {
        if self.since.is_none() {
            self.since = Some(now);
        }
    }

    /// It costs no longer.
    pub(super) fn stop(&mut self, now: Instant) {
        self.total = self.read(now);
        self.since = None;
    }

    /// How long it has cost so far, in the lab's time.
    pub(super) fn read(&self, now: Instant) -> Duration {
        let running = self.since.map(|since| now.saturating_duration_since(since));
        self.total + running.unwrap_or_default()
    }

    pub(super) const fn is_running(&self) -> bool {
        self.since.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_meter_adds_up_its_runs() {
        let now = Instant::now();
        let at = |s| now + Duration::from_secs(s);
        let mut meter = Meter::default();
        assert_eq!(meter.read(at(5)), Duration::ZERO);
        meter.start(at(5));
        meter.start(at(7));
        assert_eq!(meter.read(at(9)), Duration::from_secs(4));
        assert!(meter.is_running());
        meter.stop(at(10));
        meter.stop(at(20));
        meter.start(at(30));
        meter.stop(at(31));
        assert_eq!(meter.read(at(99)), Duration::from_secs(6));
        assert!(!meter.is_running());
    }
}
