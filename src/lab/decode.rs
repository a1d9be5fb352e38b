//! The decoding thread of a session: every access unit decoded, clock and beeps read out of the media.
//!
//! It has a thread of its own so that decoding never delays reception: what it cannot keep up with is dropped
//! before it, and counted by whoever feeds it.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::Duration;
use std::time::Instant;

use bytes::Bytes;
use openh264::decoder::DecodeOptions;
use openh264::decoder::Flush;
use openh264::formats::YUVSource;

use crate::media::clock_code;
use crate::media::time::AUDIO_CLOCK_HZ;

use super::beep;
use super::now;

/// Access units that may wait: about four seconds of both tracks.
const BACKLOG: usize = 320;
/// Samples per channel of the longest Opus packet: 120 ms.
const LONGEST_PACKET: usize = 5_760;
/// How long the rest is decoded when a session ends.
const REST: Duration = Duration::from_secs(2);

/// Something to decode.
#[derive(Debug)]
pub(super) enum Job {
    /// An Opus packet and its RTP time.
    Audio { time: u64, data: Bytes },
    /// An access unit, Annex B, and its RTP time.
    Video { time: u64, data: Bytes },
}

/// What was decoded.
#[derive(Clone, Debug)]
pub(super) enum Decoded {
    /// A beep begins at this RTP time.
    Beep { time: u64 },
    /// A picture.
    Picture {
        time: u64,
        width: u32,
        height: u32,
        /// The burnt-in clock: time since the Unix epoch.
        clock: Option<Duration>,
        /// When decoding ended.
        at: Instant,
    },
    /// Sound, samples per channel.
    Sound { samples: u64 },
    /// Opus or H.264 that the decoder refuses.
    Undecodable { what: &'static str, why: String },
}

/// Handle of the thread. Dropped without [`Decoder::finish`], what waits is not decoded.
#[derive(Debug)]
pub(super) struct Decoder {
    jobs: Option<mpsc::SyncSender<Job>>,
    discard: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Decoder {
    /// Starts the thread; it calls `sink` with everything it decodes.
    pub(super) fn start(
        name: String,
        sink: impl FnMut(Decoded) + Send + 'static,
    ) -> std::io::Result<Self> {
        let (jobs, inbox) = mpsc::sync_channel(BACKLOG);
        let discard = Arc::new(AtomicBool::new(false));
        let discards = Arc::clone(&discard);
        let thread = std::thread::Builder::new()
            .name(name)
            .spawn(move || run(&inbox, &discards, sink))?;
        Ok(Self {
            jobs: Some(jobs),
            discard,
            thread: Some(thread),
        })
    }

    /// Hands over a job; `false` if too many wait already.
    pub(super) fn decode(&self, job: Job) -> bool {
        self.jobs
            .as_ref()
            .is_some_and(|jobs| jobs.try_send(job).is_ok())
    }

    /// Decodes what waits, for two seconds at most, and joins the thread.
    pub(super) async fn finish(mut self) {
        self.jobs = None;
        let Some(thread) = self.thread.take() else {
            return;
        };
        let discard = Arc::clone(&self.discard);
        let mut joined = tokio::task::spawn_blocking(move || thread.join());
        if tokio::time::timeout(REST, &mut joined).await.is_err() {
            discard.store(true, Ordering::Relaxed);
            // A panic of the thread was reported where it happened; there is nothing to add to it.
            joined.await.ok();
        }
    }
}

impl Drop for Decoder {
    fn drop(&mut self) {
        self.discard.store(true, Ordering::Relaxed);
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // At most one access unit is being decoded now, so this is a matter of milliseconds.
            thread.join().ok();
        }
    }
}

fn run(inbox: &mpsc::Receiver<Job>, discard: &AtomicBool, mut sink: impl FnMut(Decoded)) {
    let mut video = None;
    let mut audio = None;
    let mut beeps = beep::Detector::default();
    while let Ok(job) = inbox.recv() {
        if discard.load(Ordering::Relaxed) {
            continue;
        }
        let done = match job {
            Job::Video { time, data } => picture(&mut video, time, &data, &mut sink),
            Job::Audio { time, data } => sound(&mut audio, &mut beeps, time, &data, &mut sink),
        };
        if let Err((what, why)) = done {
            sink(Decoded::Undecodable { what, why });
        }
    }
}

type Failure = (&'static str, String);

fn picture(
    decoder: &mut Option<openh264::decoder::Decoder>,
    time: u64,
    data: &[u8],
    sink: &mut impl FnMut(Decoded),
) -> Result<(), Failure> {
    let failed = |error: openh264::Error| ("video", error.to_string());
    let decoder = match decoder {
        Some(decoder) => decoder,
        None => decoder.insert(openh264::decoder::Decoder::new().map_err(failed)?),
    };
    // Without reordering each access unit yields its own picture at once; flushing would hide a missing one.
    let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
    let Some(picture) = decoder.decode_with_options(data, options).map_err(failed)? else {
        return Err(("video", "no picture came of an access unit".to_owned()));
    };
    let (width, height) = picture.dimensions();
    let (width, height) = (
        u32::try_from(width).unwrap_or(u32::MAX),
        u32::try_from(height).unwrap_or(u32::MAX),
    );
    let clock = clock_code::read(picture.y(), picture.strides().0, width, height);
    sink(Decoded::Picture {
        time,
        width,
        height,
        clock: clock.map(Duration::from_millis),
        at: now(),
    });
    Ok(())
}

fn sound(
    decoder: &mut Option<opus::Decoder>,
    beeps: &mut beep::Detector,
    time: u64,
    data: &[u8],
    sink: &mut impl FnMut(Decoded),
) -> Result<(), Failure> {
    let failed = |error: opus::Error| ("audio", error.to_string());
    let decoder = match decoder {
        Some(decoder) => decoder,
        None => decoder
            .insert(opus::Decoder::new(AUDIO_CLOCK_HZ, opus::Channels::Stereo).map_err(failed)?),
    };
    let mut stereo = vec![0.0_f32; LONGEST_PACKET * 2];
    let samples = decoder
        .decode_float(data, &mut stereo, false)
        .map_err(failed)?;
    let mono: Vec<f32> = stereo[..samples * 2]
        .chunks_exact(2)
        .map(|pair| (pair[0] + pair[1]) / 2.0)
        .collect();
    sink(Decoded::Sound {
        samples: samples as u64,
    });
    for time in beeps.push(time, &mono) {
        sink(Decoded::Beep { time });
    }
    Ok(())
}
