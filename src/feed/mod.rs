//! The long-lived side of capture and encoding: devices and encoders, one video and one audio track.
//!
//! A feed never ends by itself. A device that is missing, silent or broken is replaced by a slate or by silence with
//! the same course of timestamps, and opened again. Each track has two threads: one that reads the source, and one
//! that encodes, supervises the source and fills in for it. Nobody upstream waits for anybody downstream, and every
//! frame is counted once ([`Ledger`]). With no subscription nothing is encoded.

mod budget;
mod condition;
mod drive;
mod fanout;
mod limit;
mod mailbox;
mod pump;
mod supervised;
#[cfg(test)]
mod tests;
mod thin;
mod track;
mod watch;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::oneshot;

pub use budget::Budget;
pub use condition::Condition;
pub use fanout::{FanoutStatus, LaneCount, LaneCounters, Subscription};
pub use limit::{Limit, LimitedBy};
pub use mailbox::Ledger;
pub use supervised::SourceState;
/// For the bench.
#[doc(hidden)]
pub use watch::{PictureWatch, SoundWatch};

use crate::capture::camera::Camera;
use crate::capture::file::{WavFile, Y4mFile};
use crate::capture::identity::Known;
use crate::capture::microphone::Microphone;
use crate::capture::synthetic::{Pace, Silence, TestCard, Tone};
use crate::capture::{self, Devices, Losses, Source, usb};
use crate::config::{self, AfterLoss, AudioSource, Bitrate, Size, VideoSource};
use crate::encode::{self, H264, Opus};
use crate::media::frame::{AudioFrame, VideoFrame};
use crate::media::time::{MediaClock, MediaTime};
use drive::{AudioDrive, BoxedEncoder, MakeVideo, VideoDrive};
use fanout::Fanout;
use mailbox::Mailbox;
use pump::{Opening, Reset};
use supervised::{Alive, Origin, SharedReport, Supervised, Threads};
use track::Limits;

/// Pictures between capture and encoder.
const VIDEO_DEPTH: usize = 2;
/// Blocks of 10 ms between capture and encoder.
const AUDIO_DEPTH: usize = 20;

/// Deadlines of a device.
const fn device(budget: &Budget) -> Limits {
    Limits {
        open: budget.open,
        format: budget.format,
        first_frame: budget.first_frame,
        frames: budget.frames,
        first_retry: Duration::from_secs(1),
        last_retry: Duration::from_secs(15),
        cured: Duration::from_secs(30),
        settle: Duration::from_millis(300),
        after_loss: AfterLoss::Resume,
    }
}

/// Deadlines of a source that needs no device: it is slow only if the machine is, and needs no time to be opened.
fn software(budget: &Budget) -> Limits {
    Limits {
        frames: budget.first_frame + budget.frames,
        ..device(budget)
    }
}

/// What a device is given from inside; the deadlines outside are for one that hangs.
fn patience(budget: &Budget) -> capture::Patience {
    capture::Patience {
        first_frame: budget.first_frame.mul_f64(0.9),
        frames: budget.frames.mul_f64(0.9),
    }
}

/// Why a feed cannot be: its configuration asks for what no device could give.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An encoder cannot be made for these values.
    #[error("feed {feed}: {source}")]
    Encoder {
        /// Its name.
        feed: String,
        /// What the encoder said.
        source: encode::Error,
    },
    /// Neither picture nor sound.
    #[error("feed {feed} has neither video nor audio")]
    NoTrack {
        /// Its name.
        feed: String,
    },
    /// The pictures per second are out of range.
    #[error("feed {feed}: {fps} pictures per second; 1 to 60 are possible")]
    Rate {
        /// Its name.
        feed: String,
        /// What was asked.
        fps: u32,
    },
    /// The system gives no more threads.
    #[error("feed {feed}: no thread: {source}")]
    Thread {
        /// Its name.
        feed: String,
        /// What the system said.
        source: std::io::Error,
    },
}

/// The video track as publishers must announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoTrack {
    /// Size of the picture.
    pub size: Size,
    /// Pictures per second.
    pub fps: u32,
    /// The encoder never exceeds it.
    pub max_bitrate: Bitrate,
}

/// The audio track as publishers must announce it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioTrack {
    /// 1 or 2.
    pub channels: u8,
    /// Of the Opus encoder.
    pub bitrate: Bitrate,
}

/// What a feed offers; at least one of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracks {
    /// The picture.
    pub video: Option<VideoTrack>,
    /// The sound.
    pub audio: Option<AudioTrack>,
}

/// What does not answer and will not by itself: only the end of the process frees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stuck {
    /// The device holds every thread that opened it, also after its port was reset.
    Device,
    /// The thread that encodes has been busy with one frame for longer than its budget, or has panicked.
    Encoder,
}

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Device => "the device's driver holds every thread that opened it",
            Self::Encoder => "the encoder does not return",
        })
    }
}

/// One track at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrackStatus {
    /// What the source is doing.
    pub state: SourceState,
    /// What is wrong with what the source delivers, and since when.
    pub conditions: BTreeMap<Condition, MediaTime>,
    /// Set while nothing but a new process can help.
    pub stuck: Option<Stuck>,
    /// What was negotiated when the source was last opened.
    pub negotiated: Option<String>,
    /// How often the source was opened.
    pub opened: u64,
    /// Capture threads that hang in a device at this instant and were left behind.
    pub left_behind: u64,
    /// What became of every frame.
    pub ledger: Ledger,
    /// What the device lost before it became a frame, over all its openings. Sound only.
    pub losses: Losses,
}

/// A feed at one instant.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Status {
    /// The picture.
    pub video: Option<TrackStatus>,
    /// The sound.
    pub audio: Option<TrackStatus>,
    /// Subscriptions, key frames, bitrate.
    pub fanout: FanoutStatus,
    /// The picture as it is encoded now: as configured, or less while the feed is limited.
    pub target: Option<VideoTrack>,
    /// What keeps the picture below its configuration.
    pub limited_by: Option<LimitedBy>,
}

/// How a feed ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Threads that ended and were waited for.
    pub joined: usize,
    /// Threads that hang in a device or missed the deadline.
    pub left_behind: usize,
}

/// A running encoder thread, and the word it gives when it ends.
struct Running {
    thread: JoinHandle<()>,
    ended: oneshot::Receiver<Threads>,
    report: SharedReport,
}

struct Shared {
    fanout: Arc<Fanout>,
    video: Option<(Arc<Mailbox<VideoFrame>>, SharedReport)>,
    audio: Option<(Arc<Mailbox<AudioFrame>>, SharedReport)>,
    budget: Budget,
}

/// Owns devices and encoders of one feed. Dropping it stops them without waiting.
#[must_use]
pub struct Feed {
    shared: Arc<Shared>,
    running: Vec<Running>,
}

/// A view of a feed, for publishers and status. Cheap to clone.
#[derive(Clone)]
pub struct FeedHandle {
    shared: Arc<Shared>,
}

impl Feed {
    /// Starts the threads of the feed `name`, with the default [`Budget`]. Whether the devices are there does not
    /// matter.
    ///
    /// # Errors
    /// If the configuration is impossible: no track, or values that no encoder takes.
    pub fn start(name: &str, config: &config::Feed, clock: MediaClock) -> Result<Self, Error> {
        Self::start_within(name, config, clock, Budget::default())
    }

    /// As [`Self::start`], each stage with its time of `budget`.
    ///
    /// # Errors
    /// As there.
    pub fn start_within(
        name: &str,
        config: &config::Feed,
        clock: MediaClock,
        budget: Budget,
    ) -> Result<Self, Error> {
        let sources = Sources::of(config, clock, &budget);
        Self::assemble(name, config, clock, budget, sources)
    }

    /// [`Self::start_within`] with sources of the caller's choice in place of those the configuration names.
    fn assemble(
        name: &str,
        config: &config::Feed,
        clock: MediaClock,
        budget: Budget,
        sources: Sources,
    ) -> Result<Self, Error> {
        let video = config.video.as_ref();
        let audio = config.audio.as_ref();
        if video.is_none() && audio.is_none() {
            return Err(Error::NoTrack { feed: name.into() });
        }
        let interval = video.map_or(Duration::MAX, |v| v.key_frame_interval);
        let mut feed = Self {
            shared: Arc::new(Shared {
                fanout: Arc::new(Fanout::new(tracks(config), interval)),
                video: video
                    .map(|_| (Arc::new(Mailbox::new(VIDEO_DEPTH)), SharedReport::default())),
                audio: audio
                    .map(|_| (Arc::new(Mailbox::new(AUDIO_DEPTH)), SharedReport::default())),
                budget,
            }),
            running: Vec::new(),
        };
        let shared = Arc::clone(&feed.shared);
        let encoder = |source| Error::Encoder {
            feed: name.into(),
            source,
        };
        if let Some(((video, source), (mailbox, report))) =
            video.zip(sources.video).zip(shared.video.clone())
        {
            if !(1..=60).contains(&video.fps) {
                return Err(Error::Rate {
                    feed: name.into(),
                    fps: video.fps,
                });
            }
            let drive = VideoDrive {
                source: Supervised::new(
                    format!("{name}:video"),
                    clock,
                    mailbox,
                    report,
                    source,
                    &budget,
                ),
                fanout: Arc::clone(&shared.fanout),
                encoder: (sources.encoder)(video_track(video)).map_err(encoder)?,
                make: sources.encoder,
                made_for: video_track(video),
                watch: match &video.source {
                    VideoSource::Camera { watch, .. } => Some(PictureWatch::new(*watch)),
                    VideoSource::File { .. } | VideoSource::TestCard => None,
                },
            };
            let report = Arc::clone(&drive.source.report);
            feed.spawn(name, "video", report, move || drive.run())?;
        }
        if let Some(((audio, source), (mailbox, report))) =
            audio.zip(sources.audio).zip(shared.audio.clone())
        {
            let drive = AudioDrive {
                source: Supervised::new(
                    format!("{name}:audio"),
                    clock,
                    mailbox,
                    report,
                    source,
                    &budget,
                ),
                fanout: Arc::clone(&shared.fanout),
                encoder: Opus::new(audio.channels, audio.bitrate).map_err(encoder)?,
                channels: audio.channels,
                watch: match &audio.source {
                    AudioSource::Microphone { watch, .. } => Some(SoundWatch::new(*watch)),
                    AudioSource::File { .. } | AudioSource::Silence | AudioSource::Tone => None,
                },
            };
            let report = Arc::clone(&drive.source.report);
            feed.spawn(name, "audio", report, move || drive.run())?;
        }
        Ok(feed)
    }

    fn spawn(
        &mut self,
        feed: &str,
        track: &str,
        report: SharedReport,
        run: impl FnOnce() -> Threads + Send + 'static,
    ) -> Result<(), Error> {
        let (end, ended) = oneshot::channel();
        let alive = Alive(Arc::clone(&report));
        let thread = std::thread::Builder::new()
            .name(format!("enc:{feed}:{track}"))
            .spawn(move || {
                let _alive = alive;
                let threads = run();
                if end.send(threads).is_err() {
                    tracing::debug!(?threads, "the feed was dropped before its thread ended");
                }
            })
            .map_err(|source| Error::Thread {
                feed: feed.into(),
                source,
            })?;
        self.running.push(Running {
            thread,
            ended,
            report,
        });
        Ok(())
    }

    /// A view of the feed.
    pub fn handle(&self) -> FeedHandle {
        FeedHandle {
            shared: Arc::clone(&self.shared),
        }
    }

    /// Stops all sources and encoders, waits for their threads until `deadline` from now, and ends all
    /// subscriptions. A thread that hangs in a device is left behind, never waited for, and so is one that is known to
    /// hang in its encoder.
    pub async fn drain(mut self, deadline: Duration) -> Drained {
        self.shared.stop();
        let due = tokio::time::Instant::now() + deadline;
        let mut drained = Drained::default();
        for running in std::mem::take(&mut self.running) {
            let report = supervised::lock(&running.report).clone();
            let hopeless = report.stuck_now(self.shared.budget.encode) == Some(Stuck::Encoder);
            let due = match hopeless {
                // Its end may have been told already.
                true => tokio::time::Instant::now(),
                false => due,
            };
            match tokio::time::timeout_at(due, running.ended).await {
                Ok(Ok(threads)) => {
                    // It has just said its last word: joining takes no time.
                    drop(running.thread.join());
                    drained.joined += 1 + threads.joined;
                    drained.left_behind += threads.left_behind;
                }
                Ok(Err(_)) => {
                    drop(running.thread.join());
                    drained.joined += 1;
                }
                Err(_) => drained.left_behind += 1,
            }
        }
        self.shared.fanout.close();
        drained
    }
}

impl Drop for Feed {
    fn drop(&mut self) {
        self.shared.stop();
        self.shared.fanout.close();
    }
}

impl Shared {
    fn stop(&self) {
        if let Some((mailbox, _)) = &self.video {
            mailbox.stop();
        }
        if let Some((mailbox, _)) = &self.audio {
            mailbox.stop();
        }
    }
}

impl FeedHandle {
    /// Takes part in the feed: from now on it is encoded.
    pub fn subscribe(&self) -> Subscription {
        Subscription::new(&self.shared.fanout)
    }

    /// The time that each stage may take, those of the sessions that the feed is published in among them.
    pub fn budget(&self) -> Budget {
        self.shared.budget
    }

    /// What the feed offers, as configured.
    pub fn tracks(&self) -> Tracks {
        self.shared.fanout.tracks()
    }

    /// The last key frame and when it was encoded: a whole picture as it goes out, an Annex B byte stream. `None` before
    /// the first, for nothing is encoded while nobody subscribes.
    pub fn key_frame(&self) -> Option<(Instant, Bytes)> {
        self.shared.fanout.key_frame()
    }

    /// Limits the picture from the next one on, or lifts the limit. Sound is never limited.
    pub fn limit(&self, limit: Option<Limit>) {
        self.shared.fanout.limit(limit);
    }

    /// Opens a microphone again that was lost and stays away by its configuration. Nothing to one that does not.
    pub fn want_sound(&self) {
        if let Some((mailbox, _)) = &self.shared.audio {
            mailbox.want();
        }
    }

    /// Takes over the bitrates and the key-frame interval of `config`; sessions go on. What else differs is left as
    /// it is: [`retunable`] says beforehand whether that is anything.
    pub fn retune(&self, config: &config::Feed) {
        let video = config.video.as_ref();
        self.shared.fanout.retune(
            video.map(|v| (v.bitrate, v.key_frame_interval)),
            config.audio.as_ref().map(|a| a.bitrate),
        );
    }

    /// The feed at this instant.
    pub fn status(&self) -> Status {
        fn of<F>(
            (mailbox, report): &(Arc<Mailbox<F>>, SharedReport),
            encode: Duration,
        ) -> TrackStatus {
            let report = supervised::lock(report).clone();
            TrackStatus {
                stuck: report.stuck_now(encode),
                state: report.state,
                conditions: report.conditions,
                negotiated: report.negotiated,
                opened: report.opened,
                left_behind: report.left_behind,
                ledger: mailbox.ledger(),
                losses: mailbox.losses(),
            }
        }
        let (target, limited_by) = self.shared.fanout.target();
        let encode = self.shared.budget.encode;
        Status {
            video: self.shared.video.as_ref().map(|v| of(v, encode)),
            audio: self.shared.audio.as_ref().map(|a| of(a, encode)),
            fanout: self.shared.fanout.status(),
            target,
            limited_by,
        }
    }
}

/// Whether [`FeedHandle::retune`] makes a feed of `old` into one of `new`, so that it need not be started anew.
pub fn retunable(old: &config::Feed, new: &config::Feed) -> bool {
    let mut retuned = old.clone();
    if let (Some(video), Some(new)) = (&mut retuned.video, &new.video) {
        (video.bitrate, video.key_frame_interval) = (new.bitrate, new.key_frame_interval);
    }
    if let (Some(audio), Some(new)) = (&mut retuned.audio, &new.audio) {
        audio.bitrate = new.bitrate;
    }
    retuned == *new
}

const fn video_track(video: &config::Video) -> VideoTrack {
    VideoTrack {
        size: video.size,
        fps: video.fps,
        max_bitrate: video.bitrate,
    }
}

fn tracks(config: &config::Feed) -> Tracks {
    Tracks {
        video: config.video.as_ref().map(video_track),
        audio: config.audio.as_ref().map(|a| AudioTrack {
            channels: a.channels,
            bitrate: a.bitrate,
        }),
    }
}

/// What a feed is made of.
struct Sources {
    video: Option<Origin<VideoFrame>>,
    audio: Option<Origin<AudioFrame>>,
    encoder: MakeVideo,
}

impl Sources {
    /// What `config` names.
    fn of(config: &config::Feed, clock: MediaClock, budget: &Budget) -> Self {
        let (video, audio) = (config.video.as_ref(), config.audio.as_ref());
        Self {
            video: video.map(|video| video_source(video, clock, budget)),
            audio: audio.map(|audio| audio_source(audio, clock, budget)),
            encoder: h264,
        }
    }
}

fn h264(track: VideoTrack) -> Result<BoxedEncoder<VideoFrame>, encode::Error> {
    let encoder = H264::new(track.size, track.fps, track.max_bitrate)?;
    Ok(Box::new(encoder))
}

fn boxed<F>(source: impl Source<Frame = F> + 'static) -> Opening<F> {
    Ok(Box::new(source))
}

/// A source that needs no device.
fn made<F>(open: impl Fn() -> Opening<F> + Send + Sync + 'static, budget: &Budget) -> Origin<F> {
    Origin {
        open: Arc::new(move |_| open()),
        reset: None,
        devices: Devices::None,
        limits: software(budget),
    }
}

/// Resets the port of the USB device that does not answer, and says what came of it.
fn reset(known: Arc<Known>) -> Reset {
    Arc::new(move || {
        let folder = match known.usb_folder() {
            Ok(folder) => folder,
            Err(why) => {
                tracing::info!(%why, "the device does not answer, and no USB port is reset");
                return;
            }
        };
        match usb::reset(&folder, Path::new("/dev/bus/usb")) {
            Ok(how) => tracing::warn!(port = %folder.display(), ?how, "the USB port was reset"),
            Err(error) => tracing::warn!(
                port = %folder.display(),
                %error,
                "the USB port cannot be reset: that needs write access to the device under /dev/bus/usb"
            ),
        }
    })
}

fn video_source(video: &config::Video, clock: MediaClock, budget: &Budget) -> Origin<VideoFrame> {
    let (size, fps) = (video.size, video.fps);
    match video.source.clone() {
        VideoSource::Camera { device: named, .. } => {
            let (known, patience) = (Arc::new(Known::default()), patience(budget));
            Origin {
                reset: Some(reset(Arc::clone(&known))),
                open: Arc::new(move |stage| {
                    let wanted = (size, fps);
                    boxed(Camera::open(
                        &named, &known, wanted, clock, patience, stage,
                    )?)
                }),
                devices: Devices::Cameras,
                limits: device(budget),
            }
        }
        VideoSource::File { path } => made(
            move || boxed(Y4mFile::open(&path, clock, Pace::RealTime)?),
            budget,
        ),
        VideoSource::TestCard => made(
            move || boxed(TestCard::new(size, fps, clock, Pace::RealTime)),
            budget,
        ),
    }
}

fn audio_source(audio: &config::Audio, clock: MediaClock, budget: &Budget) -> Origin<AudioFrame> {
    let channels = audio.channels;
    match audio.source.clone() {
        AudioSource::File { path } => made(
            move || boxed(WavFile::open(&path, channels, clock, Pace::RealTime)?),
            budget,
        ),
        AudioSource::Microphone {
            device: named,
            after_loss,
            watch: _,
        } => {
            let (known, patience) = (Arc::new(Known::default()), patience(budget));
            Origin {
                reset: Some(reset(Arc::clone(&known))),
                open: Arc::new(move |_| {
                    boxed(Microphone::open(&named, &known, channels, clock, patience)?)
                }),
                devices: Devices::Sound,
                limits: Limits {
                    after_loss,
                    ..device(budget)
                },
            }
        }
        AudioSource::Silence => made(
            move || boxed(Silence::new(channels, clock, Pace::RealTime)),
            budget,
        ),
        AudioSource::Tone => made(
            move || boxed(Tone::new(channels, clock, Pace::RealTime)),
            budget,
        ),
    }
}
