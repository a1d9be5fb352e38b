//! The life of a live stream at Qencode, and its meter.
//!
//! ```text
//! stopped --start--> starting --> idle (waiting for input, 120 s) --input--> live --input lost--> idle --2 min--> stopped
//! ```
//!
//! Pure: told the time. It costs from the start on until it is stopped, idle or not.

use std::time::Duration;
use std::time::Instant;

use super::super::billing::Meter;

/// How long an encoder waits for input, at first and again after it was lost.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The encoder is up, and nothing arrives.
    Idle {
        until: Instant,
    },
    Live,
    Starting {
        /// When the encoder is up; `None`: never.
        up: Option<Instant>,
        /// Until when input has to come.
        until: Instant,
    },
    Stopped,
}

/// One stream's state.
#[derive(Clone, Debug)]
pub(super) struct Life {
    patience: Duration,
    phase: Phase,
    pub(super) meter: Meter,
    pub(super) starts: u32,
}

impl Life {
    /// With the vendor's times multiplied by `factor`.
    pub(super) fn new(factor: f64) -> Self {
        Self {
            patience: PATIENCE.mul_f64(factor),
            phase: Phase::Stopped,
            meter: Meter::default(),
            starts: 0,
        }
    }

    pub(super) const fn phase(&self) -> Phase {
        self.phase
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// Whether the encoder takes publishers.
    pub(super) const fn is_up(&self) -> bool {
        matches!(self.phase, Phase::Idle { .. } | Phase::Live)
    }

    /// The encoder is up after `takes`; never for `None`. `false` if it runs already.
    pub(super) fn start(&mut self, now: Instant, takes: Option<Duration>) -> bool {
        if !self.is_stopped() {
            return false;
        }
        self.starts = self.starts.saturating_add(1);
        self.meter.start(now);
        self.phase = Phase::Starting {
            up: takes.map(|takes| now + takes),
            until: now + self.patience,
        };
        true
    }

    /// `false` if it does not run.
    pub(super) fn stop(&mut self, now: Instant) -> bool {
        let ran = !self.is_stopped();
        self.phase = Phase::Stopped;
        self.meter.stop(now);
        ran
    }

    /// Input is there, or not.
    pub(super) fn input(&mut self, now: Instant, there: bool) {
        self.phase = match (self.phase, there) {
            (Phase::Idle { .. }, true) => Phase::Live,
            (Phase::Live, false) => Phase::Idle {
                until: now + self.patience,
            },
            (same, _) => same,
        };
    }

    /// When time does something next.
    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle { until } => Some(until),
            Phase::Starting { up, .. } => up,
            Phase::Live | Phase::Stopped => None,
        }
    }

    /// Does all that time has done until `now`, each thing at its own instant.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(due) = self.deadline().filter(|due| *due <= now) {
            self.phase = match self.phase {
                Phase::Starting { until, .. } if due < until => Phase::Idle { until },
                Phase::Idle { .. } | Phase::Live | Phase::Starting { .. } | Phase::Stopped => {
                    self.meter.stop(due);
                    Phase::Stopped
                }
            };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn started(now: Instant) -> Life {
        let mut life = Life::new(1.0);
        assert!(life.start(now, Some(s(5))));
        life
    }

    #[test]
    fn without_input_it_is_stopped_120_s_after_the_start() {
        let now = Instant::now();
        let mut life = started(now);
        assert!(!life.is_up() && !life.is_stopped());
        life.advance(now + s(5));
        assert!(life.is_up());
        life.advance(now + s(119));
        assert!(life.is_up());
        life.advance(now + s(500));
        assert!(life.is_stopped());
        assert_eq!(life.meter.read(now + s(500)), s(120));
    }

    #[test]
    fn it_resumes_after_110_s_and_is_stopped_after_130() {
        let now = Instant::now();
        for (away, stays) in [(110, true), (130, false)] {
            let mut life = started(now);
            life.advance(now + s(10));
            life.input(now + s(10), true);
            life.advance(now + s(1_000));
            assert_eq!(life.phase(), Phase::Live);
            life.input(now + s(1_000), false);
            let back = now + s(1_000 + away);
            life.advance(back);
            life.input(back, true);
            assert_eq!(life.phase() == Phase::Live, stays, "{away}");
            assert_eq!(life.is_stopped(), !stays, "{away}");
        }
    }

    #[test]
    fn a_start_of_what_runs_and_a_stop_of_what_does_not_are_told_apart() {
        let now = Instant::now();
        let mut life = started(now);
        assert!(!life.start(now + s(1), Some(s(5))));
        assert!(life.stop(now + s(2)));
        assert!(!life.stop(now + s(3)));
        assert_eq!(life.meter.read(now + s(9)), s(2));
        assert_eq!(life.starts, 1);
    }

    #[test]
    fn a_stuck_start_stays_and_costs() {
        let now = Instant::now();
        let mut life = Life::new(1.0);
        assert!(life.start(now, None));
        life.advance(now + s(10_000));
        assert!(!life.is_up() && !life.is_stopped());
        assert_eq!(life.meter.read(now + s(10_000)), s(10_000));
    }
}
