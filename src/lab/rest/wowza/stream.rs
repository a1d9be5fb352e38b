//! The life of a live stream at Wowza Video, and its meter.
//!
//! ```text
//! stopped --start--> starting --(20 s .. 60 s)--> started --stop--> stopping --> stopped
//! started --reset--> resetting --> started
//! started --20 min without source--> stopping --> stopped
//! ```
//!
//! Pure: told the time. It costs while it is started, stopping or resetting, idle or not.

use std::time::Duration;
use std::time::Instant;

use super::super::billing::Meter;

/// A started stream without a source is stopped after this.
const IDLE: Duration = Duration::from_secs(20 * 60);
/// How long stopping takes.
const STOPPING: Duration = Duration::from_secs(5);
/// How long resetting takes.
const RESETTING: Duration = Duration::from_secs(10);
/// How old an answer about the state may be.
const STATE_AGE: Duration = Duration::from_secs(1);

/// The vendor's times, as long as they are in this lab.
#[derive(Clone, Copy, Debug)]
pub(super) struct Times {
    idle: Duration,
    stopping: Duration,
    resetting: Duration,
    state_age: Duration,
}

impl Times {
    pub(super) fn scaled(factor: f64) -> Self {
        Self {
            idle: IDLE.mul_f64(factor),
            stopping: STOPPING.mul_f64(factor),
            resetting: RESETTING.mul_f64(factor),
            state_age: STATE_AGE.mul_f64(factor),
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Resetting {
        until: Instant,
    },
    Started {
        /// Since when there is no source; `None` while there is one.
        idle_since: Option<Instant>,
    },
    Starting {
        /// `None`: for ever.
        until: Option<Instant>,
    },
    Stopped,
    Stopping {
        until: Instant,
    },
}

impl Phase {
    const fn word(self) -> &'static str {
        match self {
            Self::Resetting { .. } => "resetting",
            Self::Started { .. } => "started",
            Self::Starting { .. } => "starting",
            Self::Stopped => "stopped",
            Self::Stopping { .. } => "stopping",
        }
    }
}

/// What is not done in this state: the state's word.
pub(super) type NotNow = &'static str;

/// One stream's state.
#[derive(Clone, Debug)]
pub(super) struct Life {
    times: Times,
    phase: Phase,
    has_input: bool,
    pub(super) meter: Meter,
    pub(super) starts: u32,
    /// The last answer about the state, and when it was given.
    told: Option<(Instant, &'static str)>,
}

impl Life {
    pub(super) fn new(times: Times) -> Self {
        Self {
            times,
            phase: Phase::Stopped,
            has_input: false,
            meter: Meter::default(),
            starts: 0,
            told: None,
        }
    }

    /// The state as it is.
    pub(super) const fn state(&self) -> &'static str {
        self.phase.word()
    }

    /// The state as it is answered: an answer is good for a second.
    pub(super) fn told_state(&mut self, now: Instant) -> &'static str {
        match self.told {
            Some((at, state)) if now.saturating_duration_since(at) < self.times.state_age => state,
            Some(_) | None => {
                self.told = Some((now, self.state()));
                self.state()
            }
        }
    }

    pub(super) const fn is_started(&self) -> bool {
        matches!(self.phase, Phase::Started { .. })
    }

    pub(super) const fn is_stopped(&self) -> bool {
        matches!(self.phase, Phase::Stopped)
    }

    /// Gets to be started after `takes`; never for `None`.
    pub(super) fn start(&mut self, now: Instant, takes: Option<Duration>) -> Result<(), NotNow> {
        if !self.is_stopped() {
            return Err(self.state());
        }
        self.starts = self.starts.saturating_add(1);
        self.phase = Phase::Starting {
            until: takes.map(|takes| now + takes),
        };
        Ok(())
    }

    pub(super) fn stop(&mut self, now: Instant) -> Result<(), NotNow> {
        match self.phase {
            Phase::Stopped | Phase::Stopping { .. } => Err(self.state()),
            Phase::Resetting { .. } | Phase::Started { .. } | Phase::Starting { .. } => {
                self.phase = Phase::Stopping {
                    until: now + self.times.stopping,
                };
                Ok(())
            }
        }
    }

    pub(super) fn reset(&mut self, now: Instant) -> Result<(), NotNow> {
        if !self.is_started() {
            return Err(self.state());
        }
        self.phase = Phase::Resetting {
            until: now + self.times.resetting,
        };
        Ok(())
    }

    /// A source is there, or not.
    pub(super) const fn input(&mut self, now: Instant, there: bool) {
        self.has_input = there;
        if let Phase::Started { idle_since } = &mut self.phase {
            match (there, &idle_since) {
                (true, _) => *idle_since = None,
                (false, None) => *idle_since = Some(now),
                (false, Some(_)) => {}
            }
        }
    }

    /// When time does something next.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Resetting { until } | Phase::Stopping { until } => Some(until),
            Phase::Started { idle_since } => idle_since.map(|since| since + self.times.idle),
            Phase::Starting { until } => until,
            Phase::Stopped => None,
        }
    }

    /// Does all that time has done until `now`, each thing at its own instant.
    pub(super) fn advance(&mut self, now: Instant) {
        while let Some(due) = self.deadline().filter(|due| *due <= now) {
            let idle_since = (!self.has_input).then_some(due);
            self.phase = match self.phase {
                Phase::Starting { .. } => {
                    self.meter.start(due);
                    Phase::Started { idle_since }
                }
                Phase::Resetting { .. } => Phase::Started { idle_since },
                Phase::Started { .. } => Phase::Stopping {
                    until: due + self.times.stopping,
                },
                Phase::Stopping { .. } | Phase::Stopped => {
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

    #[test]
    fn an_idle_stream_is_stopped_after_twenty_minutes_and_billed_for_them() {
        let now = Instant::now();
        let mut life = Life::new(Times::scaled(1.0));
        assert_eq!(life.start(now, Some(s(20))), Ok(()));
        assert_eq!(life.start(now, Some(s(20))), Err("starting"));
        life.advance(now + s(19));
        assert_eq!(life.state(), "starting");
        life.advance(now + s(20));
        assert_eq!(life.state(), "started");
        // Long overdue: each step is still taken at its own instant.
        life.advance(now + s(10_000));
        assert_eq!(life.state(), "stopped");
        assert_eq!(life.meter.read(now + s(10_000)), s(20 * 60 + 5));
        assert_eq!(life.deadline(), None);
    }

    #[test]
    fn a_source_keeps_it_started_and_twenty_minutes_begin_with_its_loss() {
        let now = Instant::now();
        let mut life = Life::new(Times::scaled(1.0));
        assert_eq!(life.start(now, Some(Duration::ZERO)), Ok(()));
        life.advance(now);
        life.input(now + s(1_000), true);
        life.advance(now + s(9_000));
        assert_eq!(life.state(), "started");
        life.input(now + s(9_000), false);
        life.input(now + s(9_500), false);
        life.advance(now + s(9_000 + 1_199));
        assert!(life.is_started());
        life.advance(now + s(9_000 + 1_200));
        assert_eq!(life.state(), "stopping");
    }

    #[test]
    fn resetting_is_for_started_streams_and_comes_back() {
        let now = Instant::now();
        let mut life = Life::new(Times::scaled(0.1));
        assert_eq!(life.reset(now), Err("stopped"));
        assert_eq!(life.start(now, Some(Duration::ZERO)), Ok(()));
        life.advance(now);
        assert_eq!(life.reset(now), Ok(()));
        assert_eq!(life.state(), "resetting");
        life.advance(now + s(1));
        assert!(life.is_started());
    }

    #[test]
    fn a_stuck_start_stays_and_can_be_stopped_for_nothing() {
        let now = Instant::now();
        let mut life = Life::new(Times::scaled(1.0));
        assert_eq!(life.start(now, None), Ok(()));
        life.advance(now + s(100_000));
        assert_eq!(life.state(), "starting");
        assert_eq!(life.stop(now + s(100_000)), Ok(()));
        assert_eq!(life.stop(now + s(100_001)), Err("stopping"));
        life.advance(now + s(100_005));
        assert!(life.is_stopped());
        assert_eq!(life.meter.read(now + s(100_010)), Duration::ZERO);
    }

    #[test]
    fn an_answer_about_the_state_may_be_a_second_old() {
        let now = Instant::now();
        let mut life = Life::new(Times::scaled(1.0));
        assert_eq!(life.told_state(now), "stopped");
        assert_eq!(life.start(now, Some(s(60))), Ok(()));
        assert_eq!(life.told_state(now + s(1) / 2), "stopped");
        assert_eq!(life.told_state(now + s(1)), "starting");
    }
}
