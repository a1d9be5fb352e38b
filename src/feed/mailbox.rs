//! Between a capture thread and its encoder: a bounded queue that drops the oldest frame, and the track's ledger.
//!
//! Capture never waits for encoding. The ledger lives under the queue's own lock, so that at any instant every
//! frame is counted exactly once: captured + filled = dropped + surplus + late + idle + broken + encode_errors +
//! encoded + in_flight.
//!
//! Each capture thread posts under the generation it was started with. A thread that was given up, and wakes later,
//! posts to nobody.

#![expect(
    clippy::disallowed_methods,
    reason = "waits with a deadline on a plain thread"
)]

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::capture::{self, Losses, Stage};

/// What became of every frame of one track since the feed started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ledger {
    /// Frames that came from the source.
    pub captured: u64,
    /// Frames made here in place of missing ones: slates and blocks of silence.
    pub filled: u64,
    /// Dropped because the encoder was behind.
    pub dropped: u64,
    /// Thinned out: the source is faster than the configured rate.
    pub surplus: u64,
    /// Came after their time had been filled, or not after the frame before.
    pub late: u64,
    /// Not encoded because nobody subscribes.
    pub idle: u64,
    /// Damaged: the picture could not be converted.
    pub broken: u64,
    /// Refused by the encoder.
    pub encode_errors: u64,
    /// Taken by the encoder.
    pub encoded: u64,
    /// In the queue or in the encoder's hands at this instant.
    pub in_flight: u64,
    /// Access units that came out of the encoder.
    pub units: u64,
}

impl Ledger {
    /// Whether every frame is accounted for.
    pub const fn balances(&self) -> bool {
        self.captured + self.filled
            == self.dropped
                + self.surplus
                + self.late
                + self.idle
                + self.broken
                + self.encode_errors
                + self.encoded
                + self.in_flight
    }
}

/// What became of one frame that was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Broken,
    EncodeError,
    /// With the number of access units that it completed (0 or 1).
    Encoded(u64),
    Idle,
    Late,
    Surplus,
}

/// What the encoder's thread finds in its mailbox.
#[derive(Debug)]
pub(super) enum Mail<F> {
    /// The source is open: what it negotiated.
    Opened(String),
    /// The opening has come so far.
    Reached(Stage),
    Frame(F),
    /// The source failed and its thread has ended.
    Ended(capture::Error),
    /// A person wants a source back that stays away by itself.
    Wanted,
    /// Nothing until the deadline.
    Nothing,
    /// The feed drains.
    Stop,
}

#[derive(Debug)]
struct State<F> {
    frames: VecDeque<F>,
    generation: u64,
    reached: Option<Stage>,
    opened: Option<String>,
    ended: Option<capture::Error>,
    /// The capture thread of this generation has left its function.
    gone: bool,
    wanted: bool,
    stop: bool,
    ledger: Ledger,
    losses: Losses,
}

#[derive(Debug)]
pub(super) struct Mailbox<F> {
    depth: usize,
    state: Mutex<State<F>>,
    changed: Condvar,
}

impl<F> Mailbox<F> {
    /// A mailbox for at most `depth` frames.
    pub(super) fn new(depth: usize) -> Self {
        Self {
            depth,
            state: Mutex::new(State {
                frames: VecDeque::with_capacity(depth),
                generation: 0,
                reached: None,
                opened: None,
                ended: None,
                gone: true,
                wanted: false,
                stop: false,
                ledger: Ledger::default(),
                losses: Losses::default(),
            }),
            changed: Condvar::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins a new generation and gives its number; what older ones left is dropped and counted.
    pub(super) fn begin(&self) -> u64 {
        let mut state = self.lock();
        let left = state.frames.len() as u64;
        state.frames.clear();
        state.ledger.in_flight -= left;
        state.ledger.dropped += left;
        state.generation += 1;
        state.reached = None;
        state.opened = None;
        state.ended = None;
        state.gone = false;
        state.generation
    }

    /// Ends the current generation without a new one: nobody may post any more.
    pub(super) fn disown(&self) {
        self.begin();
        self.lock().gone = true;
    }

    /// Whether `generation` is current and the feed runs on; a capture thread ends when it is not.
    pub(super) fn wants(&self, generation: u64) -> bool {
        let state = self.lock();
        state.generation == generation && !state.stop
    }

    /// Enters how far the opening has come; only the latest counts.
    pub(super) fn post_stage(&self, generation: u64, stage: Stage) {
        let mut state = self.lock();
        if state.generation == generation {
            state.reached = Some(stage);
            self.changed.notify_all();
        }
    }

    pub(super) fn post_opened(&self, generation: u64, description: String) {
        let mut state = self.lock();
        if state.generation == generation {
            state.opened = Some(description);
            self.changed.notify_all();
        }
    }

    pub(super) fn post(&self, generation: u64, frame: F) {
        let mut state = self.lock();
        if state.generation != generation || state.stop {
            return;
        }
        if state.frames.len() == self.depth {
            state.frames.pop_front();
            state.ledger.dropped += 1;
            state.ledger.in_flight -= 1;
        }
        state.frames.push_back(frame);
        state.ledger.captured += 1;
        state.ledger.in_flight += 1;
        self.changed.notify_all();
    }

    /// Enters what the device has lost before it gave anything.
    pub(super) fn lose(&self, generation: u64, losses: Losses) {
        if losses == Losses::default() {
            return;
        }
        let mut state = self.lock();
        if state.generation == generation {
            state.losses += losses;
        }
    }

    /// A person wants the source back.
    pub(super) fn want(&self) {
        self.lock().wanted = true;
        self.changed.notify_all();
    }

    /// The capture thread's last word. `None` if it was told to stop.
    pub(super) fn post_gone(&self, generation: u64, error: Option<capture::Error>) {
        let mut state = self.lock();
        if state.generation == generation {
            state.ended = error;
            state.gone = true;
            self.changed.notify_all();
        }
    }

    /// The next mail, waiting for it until `deadline`. Frames come before the news that the source has ended.
    pub(super) fn take(&self, deadline: Instant) -> Mail<F> {
        let mut state = self.lock();
        loop {
            if state.stop {
                return Mail::Stop;
            }
            if let Some(stage) = state.reached.take() {
                return Mail::Reached(stage);
            }
            if let Some(description) = state.opened.take() {
                return Mail::Opened(description);
            }
            if let Some(frame) = state.frames.pop_front() {
                return Mail::Frame(frame);
            }
            if let Some(error) = state.ended.take() {
                return Mail::Ended(error);
            }
            if std::mem::take(&mut state.wanted) {
                return Mail::Wanted;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Mail::Nothing;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Waits until the capture thread has left, or until `deadline`; says whether it has.
    pub(super) fn wait_gone(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while !state.gone {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = self
                .changed
                .wait_timeout(state, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
        true
    }

    /// Enters what became of a frame that [`Self::take`] gave.
    pub(super) fn settle(&self, fate: Fate) {
        let mut state = self.lock();
        state.ledger.in_flight -= 1;
        let ledger = &mut state.ledger;
        match fate {
            Fate::Broken => ledger.broken += 1,
            Fate::EncodeError => ledger.encode_errors += 1,
            Fate::Encoded(units) => {
                ledger.encoded += 1;
                ledger.units += units;
            }
            Fate::Idle => ledger.idle += 1,
            Fate::Late => ledger.late += 1,
            Fate::Surplus => ledger.surplus += 1,
        }
    }

    /// Enters a frame that was made here; [`Self::settle`] says later what became of it.
    pub(super) fn fill(&self) {
        let mut state = self.lock();
        state.ledger.filled += 1;
        state.ledger.in_flight += 1;
    }

    /// Stops everything: the capture thread, and whoever takes.
    pub(super) fn stop(&self) {
        let mut state = self.lock();
        state.stop = true;
        let left = state.frames.len() as u64;
        state.frames.clear();
        state.ledger.in_flight -= left;
        state.ledger.dropped += left;
        self.changed.notify_all();
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.lock().ledger
    }

    /// What the device has lost since the feed started, over all its openings.
    pub(super) fn losses(&self) -> Losses {
        self.lock().losses
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn silent() -> capture::Error {
        capture::Error::Stalled {
            stage: Stage::Frames,
            after: Duration::ZERO,
        }
    }

    fn now() -> Instant {
        Instant::now()
    }

    #[test]
    fn the_oldest_goes_and_every_frame_is_counted_once() {
        let mailbox = Mailbox::new(2);
        let generation = mailbox.begin();
        for n in 0..5 {
            mailbox.post(generation, n);
            assert!(mailbox.ledger().balances());
        }
        assert!(matches!(mailbox.take(now()), Mail::Frame(3)));
        assert!(mailbox.ledger().balances());
        mailbox.settle(Fate::Encoded(1));
        mailbox.fill();
        mailbox.settle(Fate::Idle);
        let ledger = mailbox.ledger();
        assert_eq!((ledger.captured, ledger.dropped, ledger.encoded), (5, 3, 1));
        assert_eq!((ledger.filled, ledger.idle, ledger.in_flight), (1, 1, 1));
        assert!(ledger.balances());
        mailbox.stop();
        assert!(matches!(mailbox.take(now()), Mail::Stop));
        assert!(mailbox.ledger().balances());
    }

    #[test]
    fn a_thread_that_was_given_up_posts_to_nobody() {
        let mailbox = Mailbox::new(2);
        let old = mailbox.begin();
        mailbox.post(old, 1);
        let new = mailbox.begin();
        mailbox.post(old, 2);
        let losses = Losses {
            overruns: 1,
            samples: 960,
        };
        mailbox.lose(old, losses);
        mailbox.lose(new, losses);
        mailbox.lose(new, losses);
        mailbox.post_gone(old, Some(silent()));
        assert!(!mailbox.wants(old) && mailbox.wants(new));
        mailbox.post(new, 3);
        assert!(matches!(mailbox.take(now()), Mail::Frame(3)));
        assert!(matches!(mailbox.take(now()), Mail::Nothing));
        mailbox.settle(Fate::Late);
        let ledger = mailbox.ledger();
        assert_eq!((ledger.captured, ledger.dropped), (2, 1));
        assert_eq!(
            (mailbox.losses().overruns, mailbox.losses().samples),
            (2, 1920)
        );
        assert!(ledger.balances());
    }

    #[test]
    fn the_end_comes_after_the_last_frame() {
        let mailbox = Mailbox::new(2);
        let generation = mailbox.begin();
        mailbox.post_stage(generation, Stage::Open);
        mailbox.post_stage(generation, Stage::FirstFrame);
        mailbox.post_opened(generation, "camera".into());
        mailbox.post(generation, 1);
        mailbox.post_gone(generation, Some(silent()));
        assert!(mailbox.wait_gone(now()));
        assert!(matches!(
            mailbox.take(now()),
            Mail::Reached(Stage::FirstFrame)
        ));
        assert!(matches!(mailbox.take(now()), Mail::Opened(_)));
        assert!(matches!(mailbox.take(now()), Mail::Frame(1)));
        assert!(matches!(mailbox.take(now()), Mail::Ended(_)));
    }
}
