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
//!
//! Each stage of an opening has a deadline of its own, and all of them together have the sum. A device that falls
//! silent again and again is opened after a reset of its USB port: at the second time, the fourth, the eighth and so
//! on, until it has stayed. A thread that hangs in a device is left behind, but only so many: then nothing is
//! opened any more until one of them returns, and the track says that it is stuck.

use std::time::{Duration, Instant};

use crate::capture::{self, Stage};
use crate::config::AfterLoss;

/// Longer than any process lives.
const NEVER: Duration = Duration::from_secs(100 * 365 * 86_400);
/// Threads of one track that may hang in their device at a time.
pub(super) const MOST_LEFT_BEHIND: usize = 3;

/// Deadlines of one kind of source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    /// Longest time that each stage of an opening may take, and together no more than their sum.
    pub(super) open: Duration,
    pub(super) format: Duration,
    pub(super) first_frame: Duration,
    /// Longest time between two frames.
    pub(super) frames: Duration,
    /// Pause before the first reopening; doubled each time.
    pub(super) first_retry: Duration,
    /// Longest pause.
    pub(super) last_retry: Duration,
    /// Live for this long counts as cured: the next loss begins with the first pause again.
    pub(super) cured: Duration,
    /// Pause after a device has appeared, whose permissions are set a moment after its node, or answers again.
    pub(super) settle: Duration,
    /// What becomes of a source that was live and was lost.
    pub(super) after_loss: AfterLoss,
}

impl Limits {
    const fn of(&self, stage: Stage) -> Duration {
        match stage {
            Stage::Open => self.open,
            Stage::Format => self.format,
            Stage::FirstFrame => self.first_frame,
            Stage::Frames => self.frames,
        }
    }
}

/// An opening under way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attempt {
    pub(super) since: Instant,
    stage: Stage,
    entered: Instant,
}

impl Attempt {
    const fn new(now: Instant) -> Self {
        Self {
            since: now,
            stage: Stage::Open,
            entered: now,
        }
    }

    fn deadline(&self, limits: &Limits) -> Instant {
        let all = limits.open + limits.format + limits.first_frame;
        (self.entered + limits.of(self.stage)).min(self.since + all)
    }
}

/// When the source is opened again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Retry {
    At(Instant),
    /// A thread is opening it.
    Trying(Attempt),
    /// Not by itself.
    WhenWanted,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum State {
    Opening(Attempt),
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
    /// A thread that was left behind has returned: the device answers again.
    Answered,
    /// The devices of this kind have changed.
    Appeared,
    /// The source's thread has ended.
    Ended(capture::Error),
    Frame,
    /// The opening has come so far.
    Reached(Stage),
    /// Time has passed.
    Tick,
    /// A person wants the source back.
    Wanted,
}

/// What the track's thread must do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Leave the capture thread behind: it does not answer.
    Abandon,
    Nothing,
    /// Start a capture thread, which first resets the device's port if so told.
    Open {
        reset: bool,
    },
}

#[derive(Debug)]
pub(super) struct Life {
    limits: Limits,
    state: State,
    /// Pause before the next reopening.
    pause: Duration,
    /// How often in a row the device fell silent.
    stalls: u32,
    /// The next opening begins with a reset.
    reset: bool,
    left_behind: usize,
}

impl Life {
    /// A track whose first capture thread is started now.
    pub(super) const fn new(limits: Limits, now: Instant) -> Self {
        Self {
            limits,
            state: State::Opening(Attempt::new(now)),
            pause: limits.first_retry,
            stalls: 0,
            reset: false,
            left_behind: 0,
        }
    }

    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// So many threads hang in the device now.
    pub(super) const fn set_left_behind(&mut self, threads: usize) {
        self.left_behind = threads;
    }

    /// Whether the source is not opened again until a person wants it.
    pub(super) const fn is_silenced(&self) -> bool {
        matches!(
            self.state,
            State::Slate {
                retry: Retry::WhenWanted,
                ..
            }
        )
    }

    /// Whether the device holds so many threads that it is not opened any more.
    pub(super) const fn is_stuck(&self) -> bool {
        self.left_behind >= MOST_LEFT_BEHIND
    }

    /// When to call again with [`Input::Tick`].
    pub(super) fn deadline(&self) -> Instant {
        match &self.state {
            State::Opening(attempt)
            | State::Slate {
                retry: Retry::Trying(attempt),
                ..
            } => attempt.deadline(&self.limits),
            State::Live { last, .. } => *last + self.limits.frames,
            State::Slate {
                retry: Retry::At(due),
                ..
            } => *due,
            State::Slate {
                since,
                retry: Retry::WhenWanted,
                ..
            } => *since + NEVER,
        }
    }

    pub(super) fn on(&mut self, now: Instant, input: Input) -> Action {
        let due = now >= self.deadline();
        let stuck = self.is_stuck();
        match (&mut self.state, input) {
            (State::Opening(_) | State::Slate { .. }, Input::Frame) => {
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
                    self.stalls = 0;
                }
                Action::Nothing
            }
            (
                State::Opening(attempt)
                | State::Slate {
                    retry: Retry::Trying(attempt),
                    ..
                },
                Input::Reached(stage),
            ) => {
                (attempt.stage, attempt.entered) = (stage, now);
                Action::Nothing
            }
            (State::Opening(_), Input::Ended(reason)) => {
                self.fail(now, now, reason);
                Action::Nothing
            }
            (State::Live { .. }, Input::Ended(reason)) => {
                self.lose(now, reason);
                Action::Nothing
            }
            (State::Slate { since, .. }, Input::Ended(reason)) => {
                let since = *since;
                self.fail(now, since, reason);
                Action::Nothing
            }
            (
                State::Slate {
                    retry: retry @ Retry::WhenWanted,
                    ..
                },
                Input::Wanted,
            ) => {
                *retry = Retry::At(now);
                Action::Nothing
            }
            (
                State::Slate {
                    retry: Retry::WhenWanted,
                    ..
                },
                Input::Appeared,
            ) => Action::Nothing,
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
                    retry: Retry::At(at),
                    ..
                },
                Input::Answered,
            ) => {
                // The pauses grow on: it may answer so late each time.
                *at = (*at).min(now + self.limits.settle);
                Action::Nothing
            }
            (
                State::Slate {
                    retry: Retry::At(at),
                    ..
                },
                Input::Tick,
            ) if due && stuck => {
                *at = now + self.limits.first_retry;
                Action::Nothing
            }
            (
                State::Slate {
                    retry: retry @ Retry::At(_),
                    ..
                },
                Input::Tick,
            ) if due => {
                *retry = Retry::Trying(Attempt::new(now));
                let reset = std::mem::take(&mut self.reset);
                Action::Open { reset }
            }
            (State::Live { .. }, Input::Tick) if due => {
                let (stage, after) = (Stage::Frames, self.limits.frames);
                self.lose(now, capture::Error::Stalled { stage, after });
                Action::Abandon
            }
            (State::Opening(attempt), Input::Tick) if due => {
                let Attempt { stage, entered, .. } = *attempt;
                self.stall(now, now, stage, now.saturating_duration_since(entered))
            }
            (
                State::Slate {
                    since,
                    retry: Retry::Trying(attempt),
                    ..
                },
                Input::Tick,
            ) if due => {
                let (since, Attempt { stage, entered, .. }) = (*since, *attempt);
                self.stall(now, since, stage, now.saturating_duration_since(entered))
            }
            (
                _,
                Input::Answered | Input::Appeared | Input::Reached(_) | Input::Tick | Input::Wanted,
            ) => Action::Nothing,
        }
    }

    fn stall(&mut self, now: Instant, since: Instant, stage: Stage, after: Duration) -> Action {
        self.fail(now, since, capture::Error::Stalled { stage, after });
        Action::Abandon
    }

    /// What was live is not any more.
    fn lose(&mut self, now: Instant, reason: capture::Error) {
        self.fail(now, now, reason);
        if let (AfterLoss::Silence, State::Slate { retry, .. }) =
            (self.limits.after_loss, &mut self.state)
        {
            *retry = Retry::WhenWanted;
        }
    }

    fn fail(&mut self, now: Instant, since: Instant, reason: capture::Error) {
        if matches!(reason, capture::Error::Stalled { .. }) {
            self.stalls = self.stalls.saturating_add(1);
            self.reset = self.stalls >= 2 && self.stalls.is_power_of_two();
        }
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

    const OPEN: Action = Action::Open { reset: false };
    const S: Duration = Duration::from_secs(1);
    const LIMITS: Limits = Limits {
        open: Duration::from_secs(3),
        format: S,
        first_frame: Duration::from_secs(2),
        frames: Duration::from_secs(2),
        first_retry: S,
        last_retry: Duration::from_secs(15),
        cured: Duration::from_secs(30),
        settle: Duration::from_millis(300),
        after_loss: AfterLoss::Resume,
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
                reason: capture::Error::Stalled { .. },
                ..
            }
        ));
        assert_eq!(life.on(t0 + S * 4, Input::Tick), OPEN);
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
            assert_eq!(life.on(now, Input::Tick), OPEN);
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
    fn each_stage_of_an_opening_has_its_deadline_and_all_have_their_sum() {
        let t0 = Instant::now();
        for (reached, deadline, stage) in [
            (&[][..], 3, Stage::Open),
            (&[(2, Stage::Format)], 3, Stage::Format),
            (
                &[(2, Stage::Format), (3, Stage::FirstFrame)],
                5,
                Stage::FirstFrame,
            ),
            // Format after format is tried: it cannot go on for ever.
            (
                &[
                    (2, Stage::FirstFrame),
                    (3, Stage::Format),
                    (4, Stage::FirstFrame),
                    (5, Stage::FirstFrame),
                ],
                6,
                Stage::FirstFrame,
            ),
        ] {
            let mut life = Life::new(LIMITS, t0);
            for &(second, stage) in reached {
                life.on(t0 + S * second, Input::Reached(stage));
            }
            assert_eq!(life.deadline(), t0 + S * deadline, "{reached:?}");
            assert_eq!(life.on(life.deadline(), Input::Tick), Action::Abandon);
            assert!(matches!(
                life.state(),
                State::Slate {
                    reason: capture::Error::Stalled { stage: at, .. },
                    ..
                } if *at == stage
            ));
        }
    }

    /// Ticks until something must be done.
    fn next(life: &mut Life) -> (Action, Instant) {
        let now = life.deadline();
        (life.on(now, Input::Tick), now)
    }

    #[test]
    fn a_device_that_hangs_each_time_is_reset_and_then_held_to_be_stuck() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        let mut actions = Vec::new();
        for left in 1..=MOST_LEFT_BEHIND {
            assert_eq!(next(&mut life).0, Action::Abandon);
            life.set_left_behind(left);
            if left < MOST_LEFT_BEHIND {
                actions.push(next(&mut life).0);
            }
        }
        assert_eq!(actions, [OPEN, Action::Open { reset: true }]);
        assert!(life.is_stuck());
        // Nothing more is opened, for as long as it may last.
        for _ in 0..1000 {
            assert_eq!(next(&mut life).0, Action::Nothing);
        }
        // One thread has come back: it may go on.
        life.set_left_behind(MOST_LEFT_BEHIND - 1);
        assert!(!life.is_stuck());
        assert_eq!(next(&mut life).0, OPEN);
    }

    #[test]
    fn a_device_that_answers_again_is_opened_at_once() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        for left in 1..=MOST_LEFT_BEHIND {
            assert_eq!(next(&mut life).0, Action::Abandon);
            life.set_left_behind(left);
            if left < MOST_LEFT_BEHIND {
                next(&mut life);
            }
        }
        let now = life.deadline() - S;
        life.set_left_behind(MOST_LEFT_BEHIND - 1);
        assert_eq!(life.on(now, Input::Answered), Action::Nothing);
        assert_eq!(life.deadline(), now + LIMITS.settle);
        let (action, now) = next(&mut life);
        assert_eq!(action, OPEN);
        // Another one's return says nothing of the one that opens it now.
        let deadline = life.deadline();
        life.on(now, Input::Answered);
        assert_eq!(life.deadline(), deadline);
        assert_eq!(next(&mut life).0, Action::Abandon);
        assert!(life.deadline() > now + S * 8, "the pauses grow on");
    }

    #[test]
    fn a_device_that_is_silent_is_reset_ever_more_rarely_and_never_stuck() {
        let silent = || {
            Input::Ended(capture::Error::Stalled {
                stage: Stage::FirstFrame,
                after: S,
            })
        };
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        life.on(t0, silent());
        let mut resets = Vec::new();
        for opening in 2..=40 {
            let (action, now) = next(&mut life);
            if action == (Action::Open { reset: true }) {
                resets.push(opening);
            }
            // After a reset it is away for a moment, which is no new stall.
            life.on(now, if opening % 5 == 0 { gone() } else { silent() });
        }
        // After the 2nd, 4th, 8th, 16th and 32nd stall.
        assert_eq!(resets, [3, 5, 10, 20, 40], "openings after a reset");
        assert!(!life.is_stuck());
    }

    #[test]
    fn a_device_that_is_away_is_never_reset() {
        let t0 = Instant::now();
        let mut life = Life::new(LIMITS, t0);
        life.on(t0, gone());
        for _ in 0..50 {
            let (action, now) = next(&mut life);
            assert_eq!(action, OPEN);
            life.on(now, gone());
        }
    }

    #[test]
    fn what_is_to_stay_silent_after_a_loss_is_opened_only_when_it_is_wanted() {
        let silent = Limits {
            after_loss: AfterLoss::Silence,
            ..LIMITS
        };
        for stalled in [false, true] {
            let t0 = Instant::now();
            let mut life = Life::new(silent, t0);
            // One that is not there yet was never lost.
            life.on(t0, gone());
            let (action, now) = next(&mut life);
            assert_eq!(action, OPEN);
            life.on(now, Input::Frame);
            let lost = if stalled { now + S * 2 } else { now };
            let action = life.on(lost, if stalled { Input::Tick } else { gone() });
            assert_eq!(action == Action::Abandon, stalled);
            let day = S * 86_400;
            for later in [lost + S, lost + day, lost + day * 400] {
                assert_eq!(life.on(later, Input::Appeared), Action::Nothing);
                assert_eq!(life.on(later, Input::Tick), Action::Nothing);
                assert!(life.deadline() > later && life.is_silenced());
            }
            let later = lost + day * 401;
            life.on(later, Input::Wanted);
            assert!(!life.is_silenced());
            // It is still away: that is no second loss.
            assert_eq!(life.on(later, Input::Tick), OPEN);
            life.on(later, gone());
            let (action, now) = next(&mut life);
            assert_eq!(action, OPEN);
            life.on(now, Input::Frame);
            life.on(now, gone());
            assert!(life.is_silenced(), "and the next one is");
        }
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
