//! The life of a publisher as a pure state machine: told the time and what happened, it says what to do.
//!
//! ```text
//! Stopped --start--> Connecting --accepted--> OnAir
//!    ^                 ^    |                   |
//!    |                due   +------ ended ------+
//!    |                 |    v
//!    |                 Waiting
//!    +-- ended -- Stopping <-- stop, close (from any)
//!                    |
//!                  OffAir --open--> Connecting
//! ```
//!
//! - *Connecting*: a session runs and its media is not yet accepted.
//! - *OnAir*: the server's receiver reports advance, or it never sends any and the transport is alive.
//! - *Waiting*: the last session ended; the next one is due at a known instant. It never gives up.
//! - *Stopping*: the session was told to part from the server, and a stream that onair started is stopped.
//! - *OffAir*: off the air on purpose, for its hours or the minutes of the day are over.
//!
//! The actor in `publisher` carries out the [`Action`]s and decides nothing itself.

use std::time::{Duration, Instant};

use super::backoff;
use super::policy::{self, History, Hold, Verdict};
use crate::account::Off;
use crate::session::{Ended, Progress};

/// Least time from the start of one session to that of the next, whatever calls for it: a network that comes and goes would
/// have us knock at the server without a pause.
const APART: Duration = Duration::from_secs(1);

/// Where a publisher stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// A session runs; media is not yet accepted.
    Connecting {
        /// Ordinal of the session since the last stable time on air, from 1.
        attempt: u32,
    },
    /// Media is accepted.
    OnAir {
        /// Since when.
        since: Instant,
        /// False where the server never sends receiver reports, so that only its transport vouches for it.
        confirmed: bool,
    },
    /// Nothing runs, on purpose: it should not be on air now.
    OffAir(Off),
    /// Nothing runs.
    Stopped,
    /// The session is parting from the server, or the stream is being stopped.
    Stopping,
    /// Between two sessions.
    Waiting {
        /// When the next one starts.
        due: Instant,
        /// Why the last one ended.
        cause: String,
        /// What was decided.
        verdict: Verdict,
        /// The server was out of reach, so that another network may be all that is needed.
        unreachable: bool,
    },
}

/// What happened.
#[derive(Debug)]
pub(super) enum Input {
    /// It should not be on air now.
    Close(Off),
    /// The session ended.
    Ended(Ended),
    /// The network changed.
    Network,
    /// It should be on air again.
    Open,
    /// The session came further.
    Progress(Progress),
    /// The stream was given back, with no session running.
    Released,
    /// Somebody wants the publisher to run.
    Start,
    /// Somebody wants the publisher to end.
    Stop,
    /// A deadline has come, or nothing in particular.
    Tick,
}

/// What the actor must do now.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Nothing.
    None,
    /// Start a session.
    Begin,
    /// Part from the server: the running session, or what the last one may have left behind; and give the stream
    /// back where there is one.
    Part,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Lifecycle {
    state: State,
    history: History,
    /// When the last session started.
    began: Option<Instant>,
    /// Who holds the stream.
    hold: Hold,
    /// Where [`State::Stopping`] leads, if not to the end.
    off: Option<Off>,
    rng: fastrand::Rng,
}

impl Lifecycle {
    /// A stopped publisher; `rng` makes the jitter.
    pub(super) fn new(hold: Hold, rng: fastrand::Rng) -> Self {
        Self {
            state: State::Stopped,
            history: History::default(),
            began: None,
            hold,
            off: None,
            rng,
        }
    }

    /// The present state.
    pub(super) const fn state(&self) -> &State {
        &self.state
    }

    /// When [`Input::Tick`] is wanted next; `None` if nothing is pending.
    pub(super) const fn next_deadline(&self) -> Option<Instant> {
        match &self.state {
            State::Waiting { due, .. } => Some(*due),
            State::Connecting { .. }
            | State::OffAir(_)
            | State::OnAir { .. }
            | State::Stopped
            | State::Stopping => None,
        }
    }

    /// Takes `input` at `now`, moves on, and says what to do.
    pub(super) fn on(&mut self, now: Instant, input: Input) -> Action {
        let earliest = self.earliest(now);
        match (&mut self.state, input) {
            (State::Stopped | State::Waiting { .. }, Input::Start) => self.connect(now),
            (State::Waiting { due, .. }, Input::Tick) if *due <= now => self.connect(now),
            (
                State::Waiting {
                    unreachable: true,
                    due,
                    ..
                },
                Input::Network,
            ) => {
                *due = earliest.min(*due);
                Action::None
            }
            (State::Waiting { .. } | State::OffAir(_), Input::Stop) => {
                // Nothing runs, but a stream may have to be given back.
                self.state = match self.hold {
                    Hold::Server => State::Stopped,
                    Hold::Qencode | Hold::WowzaVideo => State::Stopping,
                };
                Action::Part
            }
            (State::Connecting { .. } | State::OnAir { .. }, Input::Stop) => {
                self.state = State::Stopping;
                Action::Part
            }
            (State::Stopping, Input::Stop) => {
                self.off = None;
                Action::None
            }
            (State::Connecting { .. } | State::OnAir { .. }, Input::Close(off)) => {
                self.off = Some(off);
                self.state = State::Stopping;
                Action::Part
            }
            (State::Waiting { .. } | State::Stopped, Input::Close(off)) => {
                self.history = History::default();
                self.state = match self.hold {
                    Hold::Server => State::OffAir(off),
                    Hold::Qencode | Hold::WowzaVideo => {
                        self.off = Some(off);
                        State::Stopping
                    }
                };
                Action::Part
            }
            (State::OffAir(known), Input::Close(off)) => {
                *known = off;
                Action::None
            }
            (State::OffAir(_), Input::Open) => self.connect(now),
            (
                State::Connecting { .. } | State::OnAir { .. },
                Input::Progress(Progress::OnAir { since, confirmed }),
            ) => {
                self.state = State::OnAir { since, confirmed };
                Action::None
            }
            (State::Connecting { .. } | State::OnAir { .. }, Input::Ended(ended)) => {
                self.wait(now, &ended);
                Action::None
            }
            (State::Stopping, Input::Ended(_) | Input::Released) => {
                self.state = match self.off.take() {
                    Some(off) => {
                        self.history = History::default();
                        State::OffAir(off)
                    }
                    None => State::Stopped,
                };
                Action::None
            }
            (
                State::Connecting { .. }
                | State::OffAir(_)
                | State::OnAir { .. }
                | State::Waiting { .. }
                | State::Stopped
                | State::Stopping,
                Input::Close(_)
                | Input::Ended(_)
                | Input::Network
                | Input::Open
                | Input::Progress(_)
                | Input::Released
                | Input::Start
                | Input::Stop
                | Input::Tick,
            ) => Action::None,
        }
    }

    /// When a session may start.
    fn earliest(&self, now: Instant) -> Instant {
        self.began.map_or(now, |began| now.max(began + APART))
    }

    fn connect(&mut self, now: Instant) -> Action {
        self.began = Some(now);
        self.state = State::Connecting {
            attempt: self.history.failures.saturating_add(1),
        };
        Action::Begin
    }

    fn wait(&mut self, now: Instant, ended: &Ended) {
        let verdict = policy::verdict(
            now,
            &ended.reason,
            &ended.progress,
            ended.dialect,
            self.hold,
            &mut self.history,
        );
        let wait = match &verdict {
            Verdict::Backoff => {
                backoff::delay(self.history.failures.saturating_sub(1), &mut self.rng)
            }
            Verdict::Operator { every, .. } => backoff::jittered(*every, &mut self.rng),
            Verdict::RetryEvery(period) => backoff::jittered(*period, &mut self.rng),
            Verdict::RetryNow => Duration::ZERO,
        };
        self.state = State::Waiting {
            due: (now + wait).max(self.earliest(now)),
            cause: ended.reason.chain(),
            verdict,
            unreachable: ended.reason.is_unreachable(),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::EndReason;
    use crate::signal::{self, Dialect};

    const S: Duration = Duration::from_secs(1);

    /// A publisher on virtual time against a scripted server: `server(t)` says how a session begun `t` after the
    /// start ends, and how long it takes; `None` means that it goes on air and stays.
    struct World {
        start: Instant,
        now: Instant,
        machine: Lifecycle,
        dialect: Dialect,
    }

    impl World {
        fn new(dialect: Dialect, seed: u64) -> Self {
            let start = Instant::now();
            Self {
                start,
                now: start,
                machine: Lifecycle::new(Hold::Server, fastrand::Rng::with_seed(seed)),
                dialect,
            }
        }

        fn ended(&mut self, reason: EndReason, progress: Progress) {
            let action = self.machine.on(
                self.now,
                Input::Ended(Ended {
                    reason,
                    progress,
                    dialect: self.dialect,
                }),
            );
            assert_eq!(action, Action::None);
        }

        /// Runs until on air; returns the time since the start and the number of sessions.
        fn until_on_air(
            &mut self,
            server: impl Fn(Duration) -> Option<(EndReason, Duration)>,
        ) -> (Duration, u32) {
            let mut sessions = 0;
            let mut action = self.machine.on(self.now, Input::Start);
            loop {
                assert_eq!(action, Action::Begin);
                sessions += 1;
                assert!(sessions < 10_000, "never on air");
                match server(self.now - self.start) {
                    None => {
                        let progress = Progress::OnAir {
                            since: self.now,
                            confirmed: true,
                        };
                        self.machine.on(self.now, Input::Progress(progress));
                        return (self.now - self.start, sessions);
                    }
                    Some((reason, took)) => {
                        self.now += took;
                        self.ended(reason, Progress::Signalling);
                    }
                }
                self.now = self
                    .machine
                    .next_deadline()
                    .expect("waiting publishers have a deadline");
                action = self.machine.on(self.now, Input::Tick);
            }
        }
    }

    fn refused(status: u16) -> EndReason {
        let (endpoint, text) = ("wss://server".to_owned(), "Cannot create offer".to_owned());
        EndReason::Signal(signal::Error::Refused {
            endpoint,
            status,
            text,
            step: signal::Step::Opening,
            retry_after: None,
        })
    }

    #[test]
    fn an_ome_ghost_of_30_seconds_is_outlived_within_3_seconds() {
        for seed in 0..200 {
            let mut world = World::new(Dialect::Ome, seed);
            let ghost =
                |t: Duration| (t < 30 * S).then(|| (refused(404), Duration::from_millis(5)));
            let (at, _) = world.until_on_air(ghost);
            assert!(
                at <= 33 * S,
                "seed {seed}: on air only {at:?} after the start"
            );
        }
    }

    #[test]
    fn a_refusal_for_a_whole_day_is_survived_and_does_not_hammer_the_server() {
        let mut world = World::new(Dialect::WowzaV1, 3);
        let day = 86_400 * S;
        let (at, sessions) =
            world.until_on_air(|t| (t < day).then(|| (refused(403), Duration::from_millis(50))));
        assert!(at < day + 75 * S, "{at:?}");
        assert!(sessions < 2_000, "{sessions} attempts in a day");
    }

    #[test]
    fn a_server_that_fails_for_an_hour_is_met_within_the_cap() {
        for seed in 0..50 {
            let mut world = World::new(Dialect::Ome, seed);
            let (at, _) = world.until_on_air(|t| (t < 3_600 * S).then(|| (refused(500), S)));
            assert!(at <= 3_600 * S + 20 * S, "seed {seed}: {at:?}");
        }
    }

    #[test]
    fn a_session_lost_after_a_minute_on_air_is_followed_at_once() {
        let mut world = World::new(Dialect::Ome, 1);
        world.until_on_air(|_| None);
        let since = world.now;
        world.now += 60 * S;
        world.ended(
            EndReason::Lost,
            Progress::OnAir {
                since,
                confirmed: true,
            },
        );
        assert_eq!(world.machine.next_deadline(), Some(world.now));
        assert_eq!(world.machine.on(world.now, Input::Tick), Action::Begin);
        assert_eq!(*world.machine.state(), State::Connecting { attempt: 2 });
    }

    #[test]
    fn stop_is_obeyed_from_every_state() {
        let mut world = World::new(Dialect::Ome, 1);
        assert_eq!(
            world.machine.on(world.now, Input::Stop),
            Action::None,
            "stopped already"
        );

        assert_eq!(world.machine.on(world.now, Input::Start), Action::Begin);
        assert_eq!(world.machine.on(world.now, Input::Stop), Action::Part);
        assert_eq!(*world.machine.state(), State::Stopping);
        world.ended(EndReason::Stopped, Progress::Signalling);
        assert_eq!(*world.machine.state(), State::Stopped);

        world.until_on_air(|_| None);
        assert_eq!(world.machine.on(world.now, Input::Stop), Action::Part);
        world.ended(EndReason::Lost, Progress::Signalling);
        assert_eq!(
            *world.machine.state(),
            State::Stopped,
            "lost while stopping is stopped"
        );

        assert_eq!(world.machine.on(world.now, Input::Start), Action::Begin);
        world.ended(refused(500), Progress::Signalling);
        assert!(matches!(world.machine.state(), State::Waiting { .. }));
        assert_eq!(world.machine.on(world.now, Input::Stop), Action::Part);
        assert_eq!(*world.machine.state(), State::Stopped);
        assert_eq!(world.machine.next_deadline(), None);
    }

    #[test]
    fn another_network_ends_a_wait_for_reach_but_not_for_a_refusal() {
        let out_of_reach = EndReason::NeverConnected {
            stage: None,
            climbs: Vec::new(),
        };
        for (reason, hurried) in [(out_of_reach, true), (refused(403), false)] {
            let mut world = World::new(Dialect::Ome, 1);
            world.machine.on(world.now, Input::Start);
            world.now += S;
            world.ended(reason, Progress::Signalling);
            let action = world.machine.on(world.now, Input::Network);
            assert_eq!(action, Action::None);
            let due = world.machine.next_deadline().expect("it waits");
            assert_eq!(due == world.now, hurried);
        }
    }

    #[test]
    fn a_network_that_comes_and_goes_makes_no_hot_loop() {
        let mut world = World::new(Dialect::Whip, 1);
        let changed = || EndReason::NetworkChanged {
            what: "while a path was searched".to_owned(),
        };
        let mut action = world.machine.on(world.now, Input::Start);
        let mut sessions = 0;
        // A change every 10 ms for a minute, each of which ends a session or a wait.
        for _ in 0..6_000 {
            if action == Action::Begin {
                sessions += 1;
                world.ended(changed(), Progress::Connecting);
            }
            assert_eq!(world.machine.on(world.now, Input::Network), Action::None);
            world.now += Duration::from_millis(10);
            action = world.machine.on(world.now, Input::Tick);
        }
        assert_eq!(sessions, 60);
    }

    #[test]
    fn the_same_seed_tells_the_same_story() {
        let story = |seed| {
            World::new(Dialect::Ome, seed)
                .until_on_air(|t| (t < 100 * S).then(|| (refused(500), S)))
        };
        assert_eq!(story(4), story(4));
    }

    #[test]
    fn a_late_word_of_a_session_that_is_over_changes_nothing() {
        let mut world = World::new(Dialect::Ome, 1);
        world.machine.on(world.now, Input::Start);
        world.ended(refused(500), Progress::Signalling);
        let before = world.machine.state().clone();
        let progress = Progress::OnAir {
            since: world.now,
            confirmed: true,
        };
        assert_eq!(
            world.machine.on(world.now, Input::Progress(progress)),
            Action::None
        );
        assert_eq!(*world.machine.state(), before);
    }
}
