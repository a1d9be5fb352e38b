//! The thread of one track: takes frames, keeps the source alive, fills in for it, encodes, and publishes.

#![expect(
    clippy::disallowed_methods,
    reason = "a plain thread reads the clock for the pure parts it drives"
)]

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::VideoTrack;
use super::fanout::Fanout;
use super::limit::LimitedBy;
use super::mailbox::{Fate, Mail, Mailbox};
use super::pump::{self, Open};
use super::thin::Thinner;
use super::track::{Action, Input, Life, Limits, State};
use crate::capture::Devices;
use crate::capture::slate::Slate;
use crate::capture::synthetic::Silence;
use crate::encode::{Encoder, H264, Opus};
use crate::media::access_unit::Track;
use crate::media::convert::Converter;
use crate::media::frame::{AudioFrame, Picture, VideoFrame};
use crate::media::time::{MediaClock, MediaTime};

/// How long the end of a capture thread is waited for before it is left behind.
const RELEASE: Duration = Duration::from_millis(1200);
/// How often the device nodes are looked at while a source is away.
const WATCH: Duration = Duration::from_millis(200);
/// Time between two slates.
const SLATE_PERIOD: Duration = Duration::from_millis(200);
/// Time without a usable picture, though the source says nothing, after which the slate is shown.
const PATIENCE: Duration = Duration::from_secs(1);
/// Time after which a picture is sent again if no new one comes: a key frame may be wanted, and the way kept open.
const REPEAT: Duration = Duration::from_millis(400);
/// How late a block of samples may come before silence takes its place.
const LATEST: Duration = Duration::from_millis(120);
/// Blocks of 10 ms: one second. A longer hole is left open rather than filled in a burst.
const LONGEST_FILL: u64 = 100;
/// Blocks per second of the audio grid.
const GRID_HZ: u32 = 100;

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
}

pub(super) type SharedReport = Arc<Mutex<Report>>;

pub(super) fn lock(report: &Mutex<Report>) -> MutexGuard<'_, Report> {
    report.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What happened while waiting.
enum Next<F> {
    Frame(F),
    Nothing,
    Stop,
}

/// A source and everything that keeps it alive.
pub(super) struct Supervised<F> {
    /// Of the feed and the track: "front:video".
    pub(super) name: String,
    pub(super) clock: MediaClock,
    pub(super) mailbox: Arc<Mailbox<F>>,
    pub(super) report: SharedReport,
    open: Open<F>,
    devices: Devices,
    seen: BTreeSet<OsString>,
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
        source: (Open<F>, Devices, Limits),
    ) -> Self {
        let (open, devices, limits) = source;
        Self {
            name,
            clock,
            mailbox,
            report,
            open,
            devices,
            seen: devices.present(),
            life: Life::new(limits, Instant::now()),
            thread: None,
            left: Vec::new(),
        }
    }

    /// Waits until `deadline` for a frame, and does meanwhile whatever the source needs.
    fn next(&mut self, deadline: Instant) -> Next<F> {
        loop {
            let now = Instant::now();
            let away = matches!(self.life.state(), State::Slate { .. });
            let watch = if away { now + WATCH } else { deadline };
            let until = deadline.min(self.life.deadline()).min(watch);
            match self.mailbox.take(until) {
                Mail::Ended(error) => {
                    self.release(Instant::now() + RELEASE);
                    self.turn(Input::Ended(error));
                    return Next::Nothing;
                }
                Mail::Frame(frame) => {
                    self.turn(Input::Frame);
                    return Next::Frame(frame);
                }
                Mail::Nothing => {
                    if away {
                        let seen = self.devices.present();
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
                }
                Mail::Stop => return Next::Stop,
            }
        }
    }

    fn start(&mut self) {
        let name = format!("cap:{}", self.name);
        match pump::start(name, &self.mailbox, &self.open) {
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
            State::Opening { .. } => SourceState::Opening,
            State::Slate { since, reason, .. } => SourceState::Slate {
                since: self.clock.at(*since),
                reason: reason.to_string(),
            },
        };
        if changed {
            match &state {
                SourceState::Slate { reason, .. } => {
                    tracing::warn!(track = self.name, reason, "source is away");
                    self.seen = self.devices.present();
                }
                SourceState::Live => tracing::info!(track = self.name, "source is live"),
                SourceState::Opening => {}
            }
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
            Action::Open => self.start(),
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

    fn count_left(&mut self) {
        self.left.retain(|thread| !thread.is_finished());
        lock(&self.report).left_behind = self.left.len() as u64;
    }

    /// Ends the capture thread, if its device lets it.
    fn finish(&mut self) -> Threads {
        let had = self.thread.is_some();
        let ended = self.release(Instant::now() + RELEASE);
        self.count_left();
        Threads {
            joined: usize::from(had && ended),
            left_behind: self.left.len(),
        }
    }

    /// Why there is no picture, and since when; `None` while there is one, or while the source still may come.
    fn away(&self, now: Instant) -> Option<(MediaTime, String)> {
        match self.life.state() {
            State::Live { .. } => None,
            State::Opening { since } => {
                let late = now.saturating_duration_since(*since) >= PATIENCE;
                late.then(|| (self.clock.at(*since), "the source is being opened".into()))
            }
            State::Slate { since, reason, .. } => Some((self.clock.at(*since), reason.to_string())),
        }
    }
}

/// The video track.
pub(super) struct VideoDrive {
    pub(super) source: Supervised<VideoFrame>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) encoder: H264,
    /// What `encoder` was made for.
    pub(super) made_for: VideoTrack,
}

/// What the video thread carries from frame to frame.
struct VideoState {
    converter: Converter,
    slate: Slate,
    thinner: Thinner,
    /// Capture time of the last picture that was encoded.
    last: Option<MediaTime>,
    /// The last picture of the source, while it is the one that is seen.
    shown: Option<Picture>,
    /// Since when, and why, every picture of the source was unusable.
    broken: Option<(Instant, String)>,
}

impl VideoDrive {
    /// Runs until the mailbox is stopped.
    pub(super) fn run(mut self) -> Threads {
        let size = self.made_for.size;
        let mut state = VideoState {
            converter: Converter::new(size),
            slate: Slate::new(size, self.source.clock),
            thinner: Thinner::default(),
            last: None,
            shown: None,
            broken: None,
        };
        let mut slate_due = Instant::now();
        self.source.start();
        loop {
            self.follow(&mut state);
            let period = SLATE_PERIOD.max(Duration::from_secs(1) / self.made_for.fps);
            let wake = slate_due.max(Instant::now());
            match self.source.next(wake) {
                Next::Frame(frame) => {
                    let fate = self.encode(&mut state, &frame, true);
                    self.source.mailbox.settle(fate);
                    // A slate comes only where no picture has come for a while.
                    if state.broken.is_none() {
                        slate_due = Instant::now() + period;
                    }
                }
                Next::Nothing => {}
                Next::Stop => break,
            }
            let now = Instant::now();
            if now < slate_due && self.source.away(now).is_none() {
                continue;
            }
            if now >= slate_due {
                slate_due = now + period;
            }
            let at = self.source.clock.at(now);
            let sooner = |than: Duration| state.last.is_some_and(|l| at.saturating_since(l) < than);
            if sooner(period.mul_f64(0.9)) || self.fanout.demand(Track::Video, now).is_none() {
                continue;
            }
            let frame = if let Some((since, reason)) = self.slate_reason(&state, now) {
                state.shown = None;
                state.slate.draw(at, since, &reason)
            } else {
                match &state.shown {
                    Some(picture) if !sooner(REPEAT.max(period * 2)) => VideoFrame {
                        captured: at,
                        picture: picture.clone(),
                    },
                    Some(_) | None => continue,
                }
            };
            self.source.mailbox.fill();
            let fate = self.encode(&mut state, &frame, false);
            self.source.mailbox.settle(fate);
        }
        self.source.finish()
    }

    /// Makes the encoder anew where it cannot follow the wanted picture: of another size or rate, or with a bitrate
    /// above the one it was opened with.
    fn follow(&mut self, state: &mut VideoState) {
        let (Some(wanted), limited_by) = self.fanout.target() else {
            return;
        };
        let made = self.made_for;
        let same = (wanted.size, wanted.fps) == (made.size, made.fps);
        if same && wanted.max_bitrate <= made.max_bitrate {
            return;
        }
        self.made_for = wanted;
        state.thinner = Thinner::default();
        tracing::info!(
            track = self.source.name,
            size = %wanted.size,
            fps = wanted.fps,
            limited_by = limited_by.map(LimitedBy::as_str),
            "the picture is encoded anew"
        );
        match H264::new(wanted.size, wanted.fps, wanted.max_bitrate) {
            Ok(encoder) => self.encoder = encoder,
            Err(error) => {
                tracing::error!(track = self.source.name, %error, "the picture stays as it was");
                self.made_for = made;
                return;
            }
        }
        if wanted.size != made.size {
            state.converter = Converter::new(wanted.size);
            state.slate = Slate::new(wanted.size, self.source.clock);
            state.shown = None;
        }
    }

    fn slate_reason(&self, state: &VideoState, now: Instant) -> Option<(MediaTime, String)> {
        self.source.away(now).or_else(|| {
            let (since, reason) = state.broken.as_ref()?;
            let long = now.saturating_duration_since(*since) >= PATIENCE;
            long.then(|| (self.source.clock.at(*since), reason.clone()))
        })
    }

    /// Converts, encodes and publishes one picture, `captured` by the source or made here.
    fn encode(&mut self, state: &mut VideoState, frame: &VideoFrame, captured: bool) -> Fate {
        let now = Instant::now();
        let Some(controls) = self.fanout.demand(Track::Video, now) else {
            (state.broken, state.shown) = (None, None);
            return Fate::Idle;
        };
        if state.last.is_some_and(|last| frame.captured <= last) {
            return Fate::Late;
        }
        // The rate control counts on the configured rate: what comes much faster is thinned out.
        if captured && state.thinner.is_surplus(frame.captured, self.made_for.fps) {
            return Fate::Surplus;
        }
        let picture = match state.converter.convert(&frame.picture) {
            Ok(picture) => picture,
            Err(error) => {
                if state.broken.is_none() {
                    tracing::warn!(track = self.source.name, %error, "unusable picture");
                    state.broken = Some((now, error.to_string()));
                }
                return Fate::Broken;
            }
        };
        if captured {
            state.broken = None;
            state.shown = Some(picture.clone());
        }
        let frame = VideoFrame {
            captured: frame.captured,
            picture,
        };
        match self.encoder.encode(&frame, controls) {
            Ok(unit) => {
                state.last = Some(frame.captured);
                state.thinner.took(frame.captured, self.made_for.fps);
                if let Some(unit) = &unit {
                    self.fanout.publish(unit, Instant::now());
                }
                Fate::Encoded(u64::from(unit.is_some()))
            }
            Err(error) => {
                tracing::warn!(track = self.source.name, %error, "encoder is made anew");
                let VideoTrack {
                    size,
                    fps,
                    max_bitrate,
                } = self.made_for;
                match H264::new(size, fps, max_bitrate) {
                    Ok(encoder) => self.encoder = encoder,
                    Err(error) => tracing::error!(track = self.source.name, %error, "no encoder"),
                }
                Fate::EncodeError
            }
        }
    }
}

/// The audio track. Every block lies on a grid of 10 ms since the media epoch, and none is ever missing.
pub(super) struct AudioDrive {
    pub(super) source: Supervised<AudioFrame>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) encoder: Opus,
    pub(super) channels: u8,
}

/// Start of block `n` of the audio grid.
const fn grid(n: u64) -> MediaTime {
    MediaTime::new(Duration::from_millis(n * 10))
}

impl AudioDrive {
    /// Runs until the mailbox is stopped.
    pub(super) fn run(mut self) -> Threads {
        let clock = self.source.clock;
        let current = |now| clock.at(now).ticks(GRID_HZ);
        let mut next = current(Instant::now()) + 1;
        self.source.start();
        loop {
            let deadline = clock.instant(grid(next + 1)) + LATEST;
            match self.source.next(deadline) {
                Next::Frame(frame) => {
                    let n = frame.captured.ticks(GRID_HZ);
                    if n < next {
                        self.source.mailbox.settle(Fate::Late);
                        continue;
                    }
                    if n - next <= LONGEST_FILL {
                        (next..n).for_each(|n| self.silence(n));
                    }
                    let frame = AudioFrame {
                        captured: grid(n),
                        ..frame
                    };
                    let fate = self.encode(&frame);
                    self.source.mailbox.settle(fate);
                    next = n + 1;
                }
                Next::Nothing => {
                    let now = Instant::now();
                    if now >= deadline {
                        // After a sleep of the machine the past is left open.
                        if current(now) > next + LONGEST_FILL {
                            next = current(now) - 1;
                        }
                        self.silence(next);
                        next += 1;
                    }
                }
                Next::Stop => break,
            }
        }
        self.source.finish()
    }

    fn silence(&mut self, n: u64) {
        if self.fanout.demand(Track::Audio, Instant::now()).is_none() {
            return;
        }
        self.source.mailbox.fill();
        let fate = self.encode(&Silence::block(grid(n), self.channels));
        self.source.mailbox.settle(fate);
    }

    fn encode(&mut self, frame: &AudioFrame) -> Fate {
        let now = Instant::now();
        let Some(controls) = self.fanout.demand(Track::Audio, now) else {
            return Fate::Idle;
        };
        match self.encoder.encode(frame, controls) {
            Ok(unit) => {
                if let Some(unit) = &unit {
                    self.fanout.publish(unit, now);
                }
                Fate::Encoded(u64::from(unit.is_some()))
            }
            Err(error) => {
                tracing::warn!(track = self.source.name, %error, "encoder is made anew");
                match Opus::new(self.channels, controls.bitrate) {
                    Ok(encoder) => self.encoder = encoder,
                    Err(error) => tracing::error!(track = self.source.name, %error, "no encoder"),
                }
                Fate::EncodeError
            }
        }
    }
}
