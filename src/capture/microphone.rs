//! A microphone by cpal on ALSA: any rate and channel count in, even blocks of 10 ms at 48 kHz out.
//!
//! cpal's callback only copies into a bounded ring. The reading thread owns the stream, drops it at the first fatal
//! error (cpal calls the error callback in a tight loop until then), and resamples by the drift of the device's
//! clock, so that block `n` always holds the samples captured at `n` times 10 ms.

#![expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "stamps sound in the callback, waits for it with a deadline; cpal's enums are open"
)]

mod align;
mod find;

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use self::align::Aligner;
use super::identity::Known;
use super::{Error, Losses, Patience, Source, Stage};
use crate::media::frame::AudioFrame;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaClock};
use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Device, ErrorKind, FromSample, InputCallbackInfo, SampleFormat, SizedSample,
};

/// Frames per callback that are asked for from ALSA's plugins: 10 ms at 48 kHz. Far smaller or larger ones burn CPU
/// there.
const PLUGIN_PERIOD: u32 = 480;
/// The same of hardware: cpal gives it a buffer of two periods, and a busy machine needs more than 20 ms.
const HARDWARE_PERIOD: u32 = 960;
/// Most sound that waits to be read; what is older after a stall is of no use.
const RING: Duration = Duration::from_millis(300);
/// Pause between two complaints about lost sound.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Longest delay between capture and callback that is believed.
const MAX_DELAY: Duration = Duration::from_millis(500);

/// A microphone as `onair devices` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MicrophoneInfo {
    /// What to write as `device`.
    pub id: String,
    /// For people.
    pub name: String,
    /// Rate in hertz and channels that it prefers; `None` if it cannot be asked.
    pub preferred: Option<(u32, u16)>,
}

/// The capture devices of the machine. Takes up to a second.
///
/// # Errors
/// If ALSA itself does not answer.
pub fn list() -> Result<Vec<MicrophoneInfo>, Error> {
    without_chatter(listed)
}

fn listed() -> Result<Vec<MicrophoneInfo>, Error> {
    let devices = cpal::default_host()
        .input_devices()
        .map_err(|e| fault("ALSA", &e))?;
    let info = |device: Device| {
        let id = device.id().ok()?.to_string();
        let config = device.default_input_config().ok();
        Some(MicrophoneInfo {
            name: device
                .description()
                .map_or_else(|_| id.clone(), |d| d.name().to_owned()),
            preferred: config.map(|c| (c.sample_rate(), c.channels())),
            id,
        })
    };
    // ALSA's own silence is no microphone.
    let real = |found: &MicrophoneInfo| found.id != "alsa:null";
    Ok(devices.filter_map(info).filter(real).collect())
}

/// Runs `work`, which calls alsa-lib on this thread, with what alsa-lib would print on standard error in our log
/// instead: a dozen lines for each device that is away, several times a minute.
fn without_chatter<T>(work: impl FnOnce() -> T) -> T {
    let chatter = alsa::Output::local_error_handler();
    let done = work();
    if let Ok(chatter) = chatter {
        let said = chatter.borrow().to_string();
        if !said.is_empty() {
            tracing::debug!(said, "alsa-lib");
        }
    }
    done
}

fn fault(device: &str, error: &cpal::Error) -> Error {
    let (device, what) = (device.to_owned(), error.to_string());
    match error.kind() {
        ErrorKind::DeviceBusy => Error::Busy { device },
        ErrorKind::DeviceNotAvailable | ErrorKind::HostUnavailable => Error::Missing { device },
        ErrorKind::PermissionDenied => Error::Denied { device },
        ErrorKind::UnsupportedConfig
        | ErrorKind::InvalidInput
        | ErrorKind::UnsupportedOperation => Error::Unsupported { device, what },
        _ => Error::Lost { device, what },
    }
}

/// What one callback left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Block {
    /// In samples of all channels.
    len: usize,
    captured: Instant,
    /// Sound is missing before it.
    after_hole: bool,
}

/// What the callback leaves for the reader.
#[derive(Default)]
struct Ring {
    /// Interleaved, in the device's channels.
    samples: VecDeque<f32>,
    /// What `samples` is made of.
    blocks: VecDeque<Block>,
    /// Samples in the ring at most.
    capacity: usize,
    /// Sound is missing before what comes next.
    hole: bool,
    xruns: u64,
    fatal: Option<cpal::Error>,
}

#[derive(Default)]
struct Shared {
    ring: Mutex<Ring>,
    filled: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.ring.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push<T: SizedSample>(&self, data: &[T], captured: Instant)
    where
        f32: FromSample<T>,
    {
        let mut ring = self.lock();
        if data.len() > ring.capacity {
            ring.hole = true;
            return;
        }
        let mut block = Block {
            len: data.len(),
            captured,
            after_hole: std::mem::take(&mut ring.hole),
        };
        while ring.samples.len() + data.len() > ring.capacity {
            let Some(oldest) = ring.blocks.pop_front() else {
                break;
            };
            ring.samples.drain(..oldest.len);
            let next = ring.blocks.front_mut().unwrap_or(&mut block);
            next.after_hole = true;
        }
        ring.samples
            .extend(data.iter().map(|&s| f32::from_sample_(s)));
        ring.blocks.push_back(block);
        self.filled.notify_one();
    }

    fn fail(&self, error: cpal::Error) {
        let mut ring = self.lock();
        match error.kind() {
            ErrorKind::Xrun => {
                ring.xruns += 1;
                ring.hole = true;
            }
            // Harmless: the stream goes on, with ordinary priority or on another route.
            ErrorKind::RealtimeDenied | ErrorKind::DeviceChanged => {}
            _ => {
                ring.fatal.get_or_insert(error);
                self.filled.notify_one();
            }
        }
    }
}

/// An open microphone.
pub struct Microphone {
    name: String,
    stream: Option<cpal::Stream>,
    shared: Arc<Shared>,
    device_channels: usize,
    aligner: Aligner,
    clock: MediaClock,
    patience: Patience,
    delivers: bool,
    description: String,
    taken: Vec<f32>,
    mixed: Vec<f32>,
    /// Lost since the device was opened.
    lost: Losses,
    /// What of it was already given to the feed.
    given: Losses,
    /// When the last complaint was made, and about how many overruns in all.
    said: Option<(Instant, u64)>,
}

impl Microphone {
    /// Opens `device` (an id, a part of a name, `default` or `auto`) for a feed of 1 or 2 `channels`. Opened anew
    /// with the same `known`, it is the same sound card, under whatever name; only what `default` and `auto` are is
    /// left to the system.
    ///
    /// # Errors
    /// If it is not there, or cannot be opened.
    pub fn open(
        device: &str,
        known: &Known,
        channels: u8,
        clock: MediaClock,
        patience: Patience,
    ) -> Result<Self, Error> {
        without_chatter(|| {
            let opened = Self::opened(device, known, channels, clock, patience)?;
            known.succeeded();
            Ok(opened)
        })
    }

    fn opened(
        device: &str,
        known: &Known,
        channels: u8,
        clock: MediaClock,
        patience: Patience,
    ) -> Result<Self, Error> {
        let found = find::find(device, known)?;
        let name = found
            .description()
            .map_or_else(|_| device.to_owned(), |d| d.name().to_owned());
        let supported = found.default_input_config().map_err(|e| fault(&name, &e))?;
        let (rate, device_channels) = (supported.sample_rate(), usize::from(supported.channels()));
        let unsupported = |what: String| Error::Unsupported {
            device: name.clone(),
            what,
        };
        if device_channels == 0 || !(8_000..=192_000).contains(&rate) {
            return Err(unsupported(format!(
                "{rate} Hz on {device_channels} channels"
            )));
        }
        let shared = Arc::new(Shared::default());
        {
            let mut ring = shared.lock();
            ring.capacity = (RING.as_secs_f64() * f64::from(rate)) as usize * device_channels;
            // Room for everything it may hold, so that the callback never allocates.
            let capacity = ring.capacity;
            ring.samples.reserve(capacity);
            ring.blocks.reserve(4096);
        }
        let mut config = supported.config();
        let format = supported.sample_format();
        let id = found
            .id()
            .map_or_else(|_| String::new(), |id| id.to_string());
        config.buffer_size = BufferSize::Fixed(period(&id));
        let stream = build(&found, config, format, &shared).or_else(|_| {
            config.buffer_size = BufferSize::Default;
            build(&found, config, format, &shared)
        });
        let stream = stream.map_err(|e| fault(&name, &e))?;
        stream.play().map_err(|e| fault(&name, &e))?;
        Ok(Self {
            description: format!("{name}, {format} {rate} Hz, {device_channels} channel(s)"),
            aligner: Aligner::new(rate, usize::from(channels)).map_err(unsupported)?,
            name,
            stream: Some(stream),
            shared,
            device_channels,
            clock,
            patience,
            delivers: false,
            taken: Vec::new(),
            mixed: Vec::new(),
            lost: Losses::default(),
            given: Losses::default(),
            said: None,
        })
    }

    /// Waits for a block of the ring and puts its samples into `self.taken`.
    fn take(&mut self) -> Result<Block, Error> {
        let (stage, after) = if self.delivers {
            (Stage::Frames, self.patience.frames)
        } else {
            (Stage::FirstFrame, self.patience.first_frame)
        };
        let deadline = Instant::now() + after;
        let mut ring = self.shared.lock();
        loop {
            if let Some(error) = ring.fatal.take() {
                drop(ring);
                // From this thread, not from the callback: dropping joins cpal's own thread.
                self.stream = None;
                let (device, what) = (self.name.clone(), error.to_string());
                return Err(Error::Lost { device, what });
            }
            self.lost.overruns = ring.xruns;
            if let Some(block) = ring.blocks.pop_front() {
                self.taken.clear();
                self.taken.extend(ring.samples.drain(..block.len));
                self.delivers = true;
                return Ok(block);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Stalled { stage, after });
            }
            let wait = self.shared.filled.wait_timeout(ring, left);
            ring = wait.unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl Microphone {
    /// Says that sound was lost: at once, then in sums.
    fn complain(&mut self) {
        let now = Instant::now();
        let (last, known) = self.said.unzip();
        let early = last.is_some_and(|last| now.saturating_duration_since(last) < COMPLAIN);
        if early || self.lost.overruns <= known.unwrap_or_default() {
            return;
        }
        self.said = Some((now, self.lost.overruns));
        tracing::warn!(
            device = self.name,
            overruns = self.lost.overruns,
            lost_ms = self.lost.samples * 1000 / u64::from(AUDIO_CLOCK_HZ),
            "this machine is too slow for the microphone: sound was lost"
        );
    }
}

impl Source for Microphone {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, Error> {
        loop {
            if let Some(frame) = self.aligner.pop() {
                return Ok(frame);
            }
            let block = self.take()?;
            let captured = self.clock.at(block.captured);
            if block.after_hole {
                self.aligner.interrupt();
            }
            mix(
                &self.taken,
                self.device_channels,
                self.aligner.channels,
                &mut self.mixed,
            );
            let pushed = self.aligner.push(&self.mixed, captured);
            pushed.map_err(|what| Error::Unsupported {
                device: self.name.clone(),
                what,
            })?;
            let missing = std::mem::take(&mut self.aligner.missing);
            if missing > 0 {
                tracing::debug!(device = self.name, missing, "samples are missing");
            }
            self.lost.samples += missing;
            self.complain();
        }
    }

    fn describe(&self) -> String {
        self.description.clone()
    }

    fn losses(&mut self) -> Losses {
        let given = std::mem::replace(&mut self.given, self.lost);
        Losses {
            overruns: self.lost.overruns - given.overruns,
            samples: self.lost.samples - given.samples,
        }
    }
}

/// Frames per callback to ask of the device with this id.
fn period(id: &str) -> u32 {
    let hardware = ["alsa:hw:", "alsa:plughw:"];
    if hardware.iter().any(|start| id.starts_with(start)) {
        HARDWARE_PERIOD
    } else {
        PLUGIN_PERIOD
    }
}

/// Opens a stream of whatever sample format the device has.
fn build(
    device: &Device,
    config: cpal::StreamConfig,
    format: SampleFormat,
    shared: &Arc<Shared>,
) -> Result<cpal::Stream, cpal::Error> {
    fn of<T: SizedSample>(
        device: &Device,
        config: cpal::StreamConfig,
        shared: &Arc<Shared>,
    ) -> Result<cpal::Stream, cpal::Error>
    where
        f32: FromSample<T>,
    {
        let (data, errors) = (Arc::clone(shared), Arc::clone(shared));
        device.build_input_stream(
            config,
            move |samples: &[T], info: &InputCallbackInfo| {
                let stamp = info.timestamp();
                let delay = stamp.callback.saturating_duration_since(stamp.capture);
                let now = Instant::now();
                let captured = now.checked_sub(delay.min(MAX_DELAY)).unwrap_or(now);
                data.push(samples, captured);
            },
            move |error| errors.fail(error),
            None,
        )
    }
    match format {
        SampleFormat::F32 => of::<f32>(device, config, shared),
        SampleFormat::F64 => of::<f64>(device, config, shared),
        SampleFormat::I8 => of::<i8>(device, config, shared),
        SampleFormat::I16 => of::<i16>(device, config, shared),
        SampleFormat::I32 => of::<i32>(device, config, shared),
        SampleFormat::U8 => of::<u8>(device, config, shared),
        SampleFormat::U16 => of::<u16>(device, config, shared),
        SampleFormat::U32 => of::<u32>(device, config, shared),
        other => Err(cpal::Error::with_message(
            ErrorKind::UnsupportedConfig,
            format!("sample format {other}"),
        )),
    }
}

/// Mixes interleaved frames of `from` channels to `to` (1 or 2): mono is doubled, more than two are averaged in
/// turn left and right.
fn mix(samples: &[f32], from: usize, to: usize, out: &mut Vec<f32>) {
    out.clear();
    for frame in samples.chunks_exact(from) {
        for channel in 0..to {
            let step = if from == 1 { 1 } else { to };
            let first = if from == 1 { 0 } else { channel };
            let part = frame.iter().skip(first).step_by(step);
            let count = part.clone().count().max(1);
            out.push(part.sum::<f32>() / count as f32);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_gets_the_larger_buffer() {
        assert_eq!(period("alsa:plughw:CARD=Webcam,DEV=0"), HARDWARE_PERIOD);
        assert_eq!(period("alsa:default"), PLUGIN_PERIOD);
    }

    #[test]
    fn channels_are_mixed() {
        let mut out = Vec::new();
        mix(&[0.5, -0.5], 1, 2, &mut out);
        assert_eq!(out, [0.5, 0.5, -0.5, -0.5]);
        mix(&[0.5, 0.25, 0.0, 0.25], 2, 1, &mut out);
        assert_eq!(out, [0.375, 0.125]);
        mix(&[0.1, 0.2, 0.3, 0.4], 4, 2, &mut out);
        assert!((out[0] - 0.2).abs() < 1e-6 && (out[1] - 0.3).abs() < 1e-6);
        mix(&[0.1, 0.2], 2, 2, &mut out);
        assert_eq!(out, [0.1, 0.2]);
    }

    #[test]
    fn the_ring_is_bounded_and_counts_what_it_loses() {
        let shared = Shared::default();
        shared.lock().capacity = 1000;
        for _ in 0..10 {
            shared.push(&[0_i16; 400], Instant::now());
        }
        shared.push(&[0_i16; 2000], Instant::now());
        shared.fail(cpal::Error::from(ErrorKind::Xrun));
        let mut ring = shared.lock();
        assert_eq!((ring.samples.len(), ring.blocks.len()), (800, 2));
        let holes: Vec<bool> = ring.blocks.iter().map(|block| block.after_hole).collect();
        assert_eq!((holes, ring.xruns), (vec![true, false], 1));
        assert!(std::mem::take(&mut ring.hole));
    }

    #[test]
    fn a_microphone_that_is_not_there_is_missing() {
        let clock = MediaClock::new(Instant::now(), std::time::SystemTime::now());
        let patience = Patience {
            first_frame: Duration::ZERO,
            frames: Duration::ZERO,
        };
        let known = Known::default();
        let opened = Microphone::open("no such microphone", &known, 2, clock, patience);
        let error = opened.err().expect("missing");
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}
