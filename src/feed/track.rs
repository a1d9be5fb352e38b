//! The life of a track's source, decided apart from carrying it out. Told the time.
//!
//! ```text
//!            frame                  ended / silent
//! Opening ──────────▶ Live ───────────────────────────▶ Slate{since, reason, retry}
//!    │                  ▲                                  │ ▲   │
//!    │ ended / too slow │            frame                 │ │   │ due: open
//!    │                  └──────────────────────────────────┘ └───┘ ended / too slow: later
//!    └──────────────────────────────────────────────────────▶ Slate
//! ```

use std::time::{Duration, Instant};

use crate::capture;

/// Deadlines of one kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Longest time from opening to the first frame.
    pub(super) open: Duration,
    /// Longest time between two frames.
    pub(super) silent: Duration,
    /// Pause before the first reopening; doubled each time.
    pub(super) first_retry: Duration,
    /// Longest pause.
    pub(super) last_retry: Duration,
    /// Live for this long counts as cured: the next loss begins with the first pause again.
    pub(super) cured: Duration,
    /// Pause after a device has appeared: its permissions are set a moment after its node.
    pub(super) settle: Duration,
}

/// When the source is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    At(Instant),
    /// A thread is opening it.
    Trying {
        since: Instant,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening {
        since: Instant,
    },
    Live {
        since: Instant,
        last: Instant,
    },
    Slate {
        since: Instant,
        reason: capture::Error,
        retry: Retry,
    },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Input {
    /// The devices of this kind have changed.
    Appeared,
    /// The source's thread has ended.
    Ended(capture::Error),
    Frame,
    /// Time has passed.
    Tick,
}

/// What the track's thread must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Leave the capture thread behind: it does not answer.
    Abandon,
    Nothing,
    /// Start a capture thread.
    Open,
}

#[derive(Debug)]
pub(super) struct Life {
    limits: Limits,
    state: State,
    /// Pause before the next reopening.
    pause: Duration,
}

impl Life {
    /// A track whose first capture thread is started now.
    pub(super) const fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            state: State::Opening { since: now },
            pause: limits.first_retry,
        }
    }

    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// When to call again with [`Input::Tick`].
    pub(super) fn deadline(&self) -> Instant {
        match self.state {
            State::Opening { since }
            | State::Slate {
                retry: Retry::Trying { since },
                ..
            } => since + self.limits.open,
            State::Live { last, .. } => last + self.limits.silent,
            State::Slate {
                retry: Retry::At(due),
                ..
            } => due,
        }
    }

    pub(super) fn on(&mut self, now: Instant, input: Input) -> Action {
        let due = now >= self.deadline();
        match (&mut self.state, input) {
            (State::Opening { .. } | State::Slate { .. }, Input::Frame) => {
                self.state = State::Live {
                    since: now,
                    last: now,
                };
                Action::Nothing
            }
            (State::Live { since, last }, Input::Frame) => {
                *last = now;
                if now.saturating_duration_since(*since) >= self.limits.cured {
                    self.pause = self.limits.first_retry;
                }
                Action::Nothing
            }
            (State::Opening { .. } | State::Live { .. }, Input::Ended(reason)) => {
                self.lose(now, now, reason);
                Action::Nothing
            }
            (State::Slate { since, .. }, Input::Ended(reason)) => {
                let since = *since;
                self.lose(now, since, reason);
                Action::Nothing
            }
            (State::Slate { retry, .. }, Input::Appeared) => {
                if let Retry::At(at) = retry {
                    *at = (*at).min(now + self.limits.settle);
                }
                // Its nodes, links and permissions come one after the other: a failure now means little.
                self.pause = self.limits.settle;
                Action::Nothing
            }
            (
                State::Slate {
                    retry: retry @ Retry::At(_),
                    ..
                },
                Input::Tick,
            ) if due => {
                *retry = Retry::Trying { since: now };
                Action::Open
            }
            (State::Live { .. }, Input::Tick) if due => {
                self.lose(now, now, capture::Error::Stalled(self.limits.silent));
                Action::Abandon
            }
            (State::Opening { .. }, Input::Tick) if due => {
                self.lose(now, now, capture::Error::Stalled(self.limits.open));
                Action::Abandon
            }
            (
                State::Slate {
                    since,
                    retry: Retry::Trying { .. },
                    ..
                },
                Input::Tick,
            ) if due => {
                let since = *since;
                self.lose(now, since, capture::Error::Stalled(self.limits.open));
                Action::Abandon
            }
            (_, Input::Appeared | Input::Tick) => Action::Nothing,
        }
    }

    fn lose(&mut self, now: Instant, since: Instant, reason: capture::Error) {
        let retry = Retry::At(now + self.pause);
        self.pause = (self.pause * 2).min(self.limits.last_retry);
        self.state = State::Slate {
            since,
            reason,
            retry,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        open: Duration::from_secs(5),
        silent: Duration::from_secs(2),
        first_retry: S,
        last_retry: Duration::from_secs(15),
        cured: Duration::from_secs(30),
        settle: Duration::from_millis(300),
    };

    fn gone() -> Input {
        Input::Ended(capture::Error::Missing {
            device: "camera".into(),
        })
    }

    #[test]
    fn a_camera_that_falls_silent_is_abandoned_and_reopened() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        assert_eq!(life.on(t0 + S, Input::Frame), Action::Nothing);
        assert_eq!(life.on(t0 + S * 2, Input::Tick), Action::Nothing);
        assert_eq!(life.deadline(), t0 + S * 3);
        assert_eq!(life.on(t0 + S * 3, Input::Tick), Action::Abandon);
        assert!(matches!(
            life.state(),
            State::Slate {
                reason: capture::Error::Stalled(_),
                ..
            }
        ));
        assert_eq!(life.on(t0 + S * 4, Input::Tick), Action::Open);
        assert_eq!(life.on(t0 + S * 5, Input::Tick), Action::Nothing);
        assert_eq!(life.on(t0 + S * 5, Input::Frame), Action::Nothing);
        assert!(matches!(life.state(), State::Live { .. }));
    }

    #[test]
    fn a_missing_camera_is_tried_ever_more_rarely_and_the_slate_keeps_its_beginning() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        let mut now = t0;
        life.on(now, gone());
        let mut pauses = Vec::new();
        for _ in 0..6 {
            let due = life.deadline();
            pauses.push(due.duration_since(now).as_secs());
            now = due;
            assert_eq!(life.on(now, Input::Tick), Action::Open);
            assert_eq!(life.on(now, gone()), Action::Nothing);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 15, 15]);
        assert!(matches!(life.state(), State::Slate { since, .. } if *since == t0));
    }

    #[test]
    fn a_device_that_appears_is_opened_soon() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        for _ in 0..5 {
            life.on(t0, gone());
        }
        assert!(life.deadline() > t0 + S * 10);
        life.on(t0 + S, Input::Appeared);
        assert_eq!(life.deadline(), t0 + S + LIMITS.settle);
        life.on(t0 + S * 2, Input::Tick);
        life.on(t0 + S * 2, gone());
        assert_eq!(life.deadline(), t0 + S * 2 + LIMITS.settle);
        // What appears while it is being opened counts as well.
        life.on(t0 + S * 3, Input::Tick);
        life.on(t0 + S * 3, Input::Appeared);
        life.on(t0 + S * 4, gone());
        assert_eq!(life.deadline(), t0 + S * 4 + LIMITS.settle);
    }

    #[test]
    fn an_open_that_never_returns_is_abandoned_each_time() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        assert_eq!(life.on(t0 + S * 5, Input::Tick), Action::Abandon);
        assert_eq!(life.on(t0 + S * 6, Input::Tick), Action::Open);
        assert_eq!(life.on(t0 + S * 11, Input::Tick), Action::Abandon);
    }

    #[test]
    fn only_a_source_that_stays_is_cured() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        for _ in 0..4 {
            life.on(t0, gone());
        }
        life.on(t0, Input::Frame);
        life.on(t0 + S, Input::Frame);
        life.on(t0 + S, gone());
        assert_eq!(life.deadline(), t0 + S * 16);
        life.on(t0 + S * 16, Input::Frame);
        life.on(t0 + S * 46, Input::Frame);
        life.on(t0 + S * 46, gone());
        assert_eq!(life.deadline(), t0 + S * 47);
    }
}
