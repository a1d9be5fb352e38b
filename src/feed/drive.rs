//! The thread of one track: takes frames, keeps the source alive, fills in for it, encodes, and publishes.

#![expect(
    clippy::disallowed_methods,
    reason = "a plain thread reads the clock for the pure parts it drives"
)]

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::VideoTrack;
use super::fanout::Fanout;
use super::limit::LimitedBy;
use super::mailbox::Fate;
use super::supervised::{Next, PATIENCE, Supervised, Threads, busy};
use super::thin::Thinner;
use super::watch::{Conditions, PictureWatch, SoundWatch};
use crate::capture::slate::Slate;
use crate::capture::synthetic::Silence;
use crate::encode::{self, Encoder, Opus};
use crate::media::access_unit::Track;
use crate::media::convert::Converter;
use crate::media::frame::{AudioFrame, Picture, VideoFrame};
use crate::media::time::MediaTime;

/// Time between two slates.
const SLATE_PERIOD: Duration = Duration::from_millis(200);
/// Time after which a picture is sent again if no new one comes: a key frame may be wanted, and the way kept open.
const REPEAT: Duration = Duration::from_millis(400);
/// Least time between two pictures' stamps.
const SOONEST: Duration = Duration::from_millis(1);
/// How late a block of samples may come before silence takes its place.
const LATEST: Duration = Duration::from_millis(120);
/// Blocks of 10 ms: one second. A longer hole is left open rather than filled in a burst.
const LONGEST_FILL: u64 = 100;
/// Blocks per second of the audio grid.
const GRID_HZ: u32 = 100;

/// An encoder of either kind of frame.
pub(super) type BoxedEncoder<F> = Box<dyn Encoder<Frame = F> + Send>;
/// Makes an encoder for pictures.
pub(super) type MakeVideo = fn(VideoTrack) -> Result<BoxedEncoder<VideoFrame>, encode::Error>;

/// The video track.
pub(super) struct VideoDrive {
    pub(super) source: Supervised<VideoFrame>,
    pub(super) fanout: Arc<Fanout>,
    pub(super) encoder: BoxedEncoder<VideoFrame>,
    pub(super) make: MakeVideo,
    /// What `encoder` was made for.
    pub(super) made_for: VideoTrack,
    /// Looks at the pictures, if they are a device's.
    pub(super) watch: Option<PictureWatch>,
}

/// What the video thread carries from frame to frame.
struct VideoState {
    converter: Converter,
    slate: Slate,
    thinner: Thinner,
    /// No encoder could be made for this.
    refused: Option<VideoTrack>,
    /// Time stamp of the last picture that was encoded.
    last: Option<MediaTime>,
    /// Capture time of the source's newest picture.
    newest: Option<MediaTime>,
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
            refused: None,
            last: None,
            newest: None,
            shown: None,
            broken: None,
        };
        let mut slate_due = Instant::now();
        self.source.start(false);
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
            if self.source.away(now).is_some() {
                self.forget();
            }
            let at = self.source.clock.at(now);
            let sooner = |than: Duration| state.last.is_some_and(|l| at.saturating_since(l) < than);
            if sooner(period.mul_f64(0.9)) || self.fanout.demand(Track::Video, now).is_none() {
                continue;
            }
            let frame = if let Some((since, reason)) = self.slate_reason(&state, now) {
                state.shown = None;
                self.forget();
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
        if same && wanted.max_bitrate <= made.max_bitrate || state.refused == Some(wanted) {
            return;
        }
        self.made_for = wanted;
        state.thinner = Thinner::default();
        tracing::info!(
            track = self.source.name,
            size = %wanted.size,
            fps = wanted.fps,
            // The network limits only the bitrate, for which no encoder is made anew.
            limited_by = limited_by
                .filter(|by| *by != LimitedBy::Network)
                .map(LimitedBy::as_str),
            "the picture is encoded anew"
        );
        match (self.make)(wanted) {
            Ok(encoder) => self.encoder = encoder,
            Err(error) => {
                tracing::error!(track = self.source.name, %error, "the picture stays as it was");
                self.made_for = made;
                state.refused = Some(wanted);
                return;
            }
        }
        if wanted.size != made.size {
            state.converter = Converter::new(wanted.size);
            state.slate = Slate::new(wanted.size, self.source.clock);
            state.shown = None;
        }
    }

    /// What was seen before the pictures stopped holds no longer.
    fn forget(&mut self) {
        if let Some(watch) = &mut self.watch {
            watch.forget();
            self.source.hold(Conditions::new());
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
            if let Some(watch) = &mut self.watch {
                watch.pause();
            }
            return Fate::Idle;
        };
        let mut stamp = frame.captured;
        if let Some(last) = state.last.filter(|&last| stamp <= last) {
            // The repetition of an older picture has overtaken it: of a camera that is slow, each one.
            let news = captured && state.newest.is_none_or(|newest| stamp > newest);
            if !news || state.shown.is_none() {
                return Fate::Late;
            }
            stamp = last + SOONEST;
        }
        if captured {
            state.newest = Some(frame.captured);
        }
        // The rate control counts on the configured rate: what comes much faster is thinned out.
        if captured && state.thinner.is_surplus(stamp, self.made_for.fps) {
            return Fate::Surplus;
        }
        let converter = &mut state.converter;
        let converted = busy(&self.source.report, || converter.convert(&frame.picture));
        let picture = match converted {
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
            let watch = self.watch.as_mut();
            if let Some(found) = watch.and_then(|watch| watch.look(&picture, frame.captured)) {
                self.source.hold(found);
            }
        }
        let frame = VideoFrame {
            captured: stamp,
            picture,
        };
        let encoder = &mut self.encoder;
        match busy(&self.source.report, || encoder.encode(&frame, controls)) {
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
                match (self.make)(self.made_for) {
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
    /// Listens to the sound, if it is a device's.
    pub(super) watch: Option<SoundWatch>,
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
        self.source.start(false);
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
                    if let Some(watch) = &mut self.watch {
                        let found = watch.look(&frame);
                        self.source.hold(found);
                    }
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
                        if let Some(watch) = &mut self.watch
                            && self.source.away(now).is_some()
                        {
                            watch.forget();
                            self.source.hold(Conditions::new());
                        }
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
        let encoder = &mut self.encoder;
        match busy(&self.source.report, || encoder.encode(frame, controls)) {
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
