//! A source and everything that keeps it alive: its capture thread, its life, and what is told of it.

#![expect(
    clippy::disallowed_methods,
    reason = "a plain thread reads the clock for the pure parts it drives"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::Stuck;
use super::budget::Budget;
use super::mailbox::{Mail, Mailbox};
use super::pump::{self, Open, Reset};
use super::track::{Action, Input, Life, Limits, State};
use super::watch::Conditions;
use crate::capture::{self, Devices, Stage};
use crate::media::time::{MediaClock, MediaTime};

/// How often the device nodes are looked at while a source is away.
const WATCH: Duration = Duration::from_millis(200);
/// Time without a usable picture, though the source says nothing, after which the slate is shown.
pub(super) const PATIENCE: Duration = Duration::from_secs(1);

/// What a track's source is doing, for status and metrics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum SourceState {
    /// Delivering.
    Live,
    /// Being opened for the first time.
    #[default]
    Opening,
    /// Away: slate or silence is sent in its place.
    Slate {
        /// Since when.
        since: MediaTime,
        /// Why.
        reason: String,
    },
}

/// What a track's thread says about itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    pub(super) state: SourceState,
    pub(super) negotiated: Option<String>,
    pub(super) opened: u64,
    pub(super) left_behind: u64,
    pub(super) conditions: Conditions,
    /// The device holds too many threads.
    pub(super) stuck: bool,
    /// Since when the encoder has been busy with one frame.
    pub(super) busy: Option<Instant>,
    /// The encoder's thread has panicked.
    pub(super) dead: bool,
}

impl Report {
    /// What does not answer at this instant, if one frame may take the encoder `encode`.
    pub(super) fn stuck_now(&self, encode: Duration) -> Option<Stuck> {
        self.stuck_at(Instant::now(), encode)
    }

    fn stuck_at(&self, now: Instant, encode: Duration) -> Option<Stuck> {
        let busy = |since| now.saturating_duration_since(since) > encode;
        if self.dead || self.busy.is_some_and(busy) {
            return Some(Stuck::Encoder);
        }
        self.stuck.then_some(Stuck::Device)
    }
}

pub(super) type SharedReport = Arc<Mutex<Report>>;

pub(super) fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Does `work` on a frame, and lets others see since when.
pub(super) fn busy<T>(report: &Mutex<Report>, work: impl FnOnce() -> T) -> T {
    lock(report).busy = Some(Instant::now());
    let done = work();
    lock(report).busy = None;
    done
}

/// What happened while waiting.
pub(super) enum Next<F> {
    Frame(F),
    Nothing,
    Stop,
}

/// Held by the encoder's thread: lets others see that it ended by a panic.
pub(super) struct Alive(pub(super) SharedReport);

impl Drop for Alive {
    fn drop(&mut self) {
        if std::thread::panicking() {
            lock(&self.0).dead = true;
        }
    }
}

/// How a source is opened, and its deadlines.
pub(super) struct Origin<F> {
    pub(super) open: Open<F>,
    /// The device's own remedy, where it has one.
    pub(super) reset: Option<Reset>,
    /// Which devices it depends on.
    pub(super) devices: Devices,
    pub(super) limits: Limits,
}

/// A source and everything that keeps it alive.
pub(super) struct Supervised<F> {
    /// Of the feed and the track: "front:video".
    pub(super) name: String,
    pub(super) clock: MediaClock,
    pub(super) mailbox: Arc<Mailbox<F>>,
    pub(super) report: SharedReport,
    origin: Origin<F>,
    /// How long the end of a capture thread is waited for before it is left behind.
    release: Duration,
    seen: BTreeSet<(OsString, u64)>,
    life: Life,
    thread: Option<JoinHandle<()>>,
    left: Vec<JoinHandle<()>>,
}

/// How many threads of a track ended, and how many could not be made to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Threads {
    pub(super) joined: usize,
    pub(super) left_behind: usize,
}

impl<F: Send + 'static> Supervised<F> {
    pub(super) fn new(
        name: String,
        clock: MediaClock,
        mailbox: Arc<Mailbox<F>>,
        report: SharedReport,
        origin: Origin<F>,
        budget: &Budget,
    ) -> Self {
        Self {
            name,
            clock,
            mailbox,
            report,
            seen: origin.devices.present(),
            life: Life::new(origin.limits, Instant::now()),
            release: budget.release,
            origin,
            thread: None,
            left: Vec::new(),
        }
    }

    /// Waits until `deadline` for a frame, and does meanwhile whatever the source needs.
    pub(super) fn next(&mut self, deadline: Instant) -> Next<F> {
        loop {
            let now = Instant::now();
            let away = matches!(self.life.state(), State::Slate { .. });
            let watch = if away { now + WATCH } else { deadline };
            let until = deadline.min(self.life.deadline()).min(watch);
            match self.mailbox.take(until) {
                Mail::Ended(error) => {
                    self.release(Instant::now() + self.release);
                    self.turn(Input::Ended(error));
                    return Next::Nothing;
                }
                Mail::Frame(frame) => {
                    self.turn(Input::Frame);
                    return Next::Frame(frame);
                }
                Mail::Nothing => {
                    if away {
                        if self.count_left() {
                            self.turn(Input::Answered);
                        }
                        let seen = self.origin.devices.present();
                        if !seen.is_subset(&self.seen) {
                            self.turn(Input::Appeared);
                        }
                        self.seen = seen;
                    }
                    self.turn(Input::Tick);
                    let lost = !away && matches!(self.life.state(), State::Slate { .. });
                    if lost || Instant::now() >= deadline {
                        return Next::Nothing;
                    }
                }
                Mail::Opened(description) => {
                    tracing::info!(track = self.name, source = description, "source is open");
                    let mut report = lock(&self.report);
                    report.negotiated = Some(description);
                    report.opened += 1;
                    drop(report);
                    self.turn(Input::Reached(Stage::FirstFrame));
                }
                Mail::Reached(stage) => self.turn(Input::Reached(stage)),
                Mail::Wanted => self.turn(Input::Wanted),
                Mail::Stop => return Next::Stop,
            }
        }
    }

    pub(super) fn start(&mut self, reset: bool) {
        let name = format!("cap:{}", self.name);
        let reset = self.origin.reset.clone().filter(|_| reset);
        match pump::start(name, &self.mailbox, &self.origin.open, reset) {
            Ok(thread) => self.thread = Some(thread),
            Err(error) => self.turn(Input::Ended(error)),
        }
    }

    /// Tells the state machine, carries out what it says, and reports a change of state.
    fn turn(&mut self, input: Input) {
        let now = Instant::now();
        let before = std::mem::discriminant(self.life.state());
        let action = self.life.on(now, input);
        let changed = before != std::mem::discriminant(self.life.state());
        let state = match self.life.state() {
            State::Live { .. } => SourceState::Live,
            State::Opening(_) => SourceState::Opening,
            State::Slate { since, reason, .. } => SourceState::Slate {
                since: self.clock.at(*since),
                reason: self.words(reason),
            },
        };
        if changed {
            match &state {
                SourceState::Slate { reason, .. } => {
                    tracing::warn!(track = self.name, reason, "source is away");
                    self.seen = self.origin.devices.present();
                }
                SourceState::Live => tracing::info!(track = self.name, "source is live"),
                SourceState::Opening => {}
            }
        }
        if let SourceState::Slate { reason, .. } = &state
            && !changed
            && !matches!(&lock(&self.report).state, SourceState::Slate { reason: before, .. } if before == reason)
        {
            tracing::info!(track = self.name, reason, "source is still away");
        }
        if changed || matches!(state, SourceState::Slate { .. }) {
            lock(&self.report).state = state;
        }
        match action {
            Action::Abandon => {
                self.mailbox.disown();
                self.left.extend(self.thread.take());
                self.count_left();
            }
            Action::Nothing => {}
            Action::Open { reset } => self.start(reset),
        }
    }

    /// Waits for the current capture thread to end; leaves it behind after `deadline`. True if it ended.
    fn release(&mut self, deadline: Instant) -> bool {
        let Some(thread) = self.thread.take() else {
            return true;
        };
        let gone = self.mailbox.wait_gone(deadline);
        if gone {
            // Its last act was to say so; a panic was already caught inside.
            drop(thread.join());
        } else {
            self.left.push(thread);
        }
        self.count_left();
        gone
    }

    /// Looks who of the left behind has returned; true if somebody has.
    fn count_left(&mut self) -> bool {
        let before = self.left.len();
        self.left.retain(|thread| !thread.is_finished());
        let was_stuck = self.life.is_stuck();
        self.life.set_left_behind(self.left.len());
        let stuck = self.life.is_stuck();
        if stuck && !was_stuck {
            tracing::error!(
                track = self.name,
                threads = self.left.len(),
                "the device's driver holds every thread that opened it, and is left alone until one returns; \
                 only a new process, or pulling the plug, can free it"
            );
        }
        let mut report = lock(&self.report);
        report.left_behind = self.left.len() as u64;
        report.stuck = stuck;
        self.left.len() < before
    }

    /// Enters the conditions that hold now, and says once what has come and what is over.
    pub(super) fn hold(&self, now: Conditions) {
        let mut report = lock(&self.report);
        if report.conditions == now {
            return;
        }
        let before = std::mem::replace(&mut report.conditions, now.clone());
        drop(report);
        for condition in now.keys().filter(|c| !before.contains_key(c)) {
            tracing::warn!(track = self.name, %condition, "{}", condition.advice());
        }
        for condition in before.keys().filter(|c| !now.contains_key(c)) {
            tracing::info!(track = self.name, %condition, "that is over");
        }
    }

    /// Ends the capture thread, if its device lets it.
    pub(super) fn finish(&mut self) -> Threads {
        let had = self.thread.is_some();
        let ended = self.release(Instant::now() + self.release);
        self.count_left();
        Threads {
            joined: usize::from(had && ended),
            left_behind: self.left.len(),
        }
    }

    /// Why there is no picture, and since when; `None` while there is one, or while the source still may come.
    pub(super) fn away(&self, now: Instant) -> Option<(MediaTime, String)> {
        match self.life.state() {
            State::Live { .. } => None,
            State::Opening(attempt) => {
                let late = now.saturating_duration_since(attempt.since) >= PATIENCE;
                late.then(|| {
                    let reason = "the source is being opened".into();
                    (self.clock.at(attempt.since), reason)
                })
            }
            State::Slate { since, reason, .. } => Some((self.clock.at(*since), self.words(reason))),
        }
    }

    /// Why the source is away, for people.
    fn words(&self, reason: &capture::Error) -> String {
        let mut words = reason.to_string();
        if let capture::Error::Busy { device } = reason
            && !self.left.is_empty()
        {
            words =
                format!("{device} is still held by an earlier opening of ours that does not end");
        }
        if self.life.is_silenced() {
            words.push_str(
                "; silent until its publisher is restarted or started by order (after_loss = \"silence\")",
            );
        }
        words
    }
}
