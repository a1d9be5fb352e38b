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

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use cpal::traits::{DeviceTrait, HostTrait, StreamTrait};
use cpal::{
    BufferSize, Device, ErrorKind, FromSample, InputCallbackInfo, SampleFormat, SizedSample,
};
use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

use super::drift::{Drift, MAX_CORRECTION};
use super::synthetic::BLOCK;
use super::{Error, Losses, Source};
use crate::media::frame::AudioFrame;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaClock, MediaTime};

/// Frames per callback that are asked for from ALSA's plugins: 10 ms at 48 kHz. Far smaller or larger ones burn CPU
/// there.
const PLUGIN_PERIOD: u32 = 480;
/// The same of hardware: cpal gives it a buffer of two periods, and a busy machine needs more than 20 ms.
const HARDWARE_PERIOD: u32 = 960;
/// Most sound that waits to be read; what is older after a stall is of no use.
const RING: Duration = Duration::from_millis(300);
/// No sound for this long is an error. Shorter than the feed's own deadline, so that the thread ends in order.
const SILENT: Duration = Duration::from_secs(1);
/// A measured error beyond this is a hole in the sound, not drift: the stamps begin anew.
const HOLE_S: f64 = 0.1;
/// The same where the device said that it lost something.
const KNOWN_HOLE_S: f64 = 0.005;
/// Pause between two complaints about lost sound.
const COMPLAIN: Duration = Duration::from_secs(10);
/// Longest delay between capture and callback that is believed.
const MAX_DELAY: Duration = Duration::from_millis(500);
/// Taps of the resampler: transparent, at half a percent of a core.
const TAPS: usize = 64;

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

/// Stamps and resamples. Told the time; needs no device.
struct Aligner {
    resampler: Async<f32>,
    drift: Drift,
    rate: u32,
    channels: usize,
    /// Frames that the resampler takes at a time.
    chunk: usize,
    input: Vec<f32>,
    /// Capture time of the first frame in `input`, in seconds since the media epoch.
    captured: f64,
    output: Vec<f32>,
    scratch: Vec<f32>,
    /// Capture time in seconds of the first sample since the last beginning, and how many were made since. Counted
    /// rather than summed: no rounding error grows over months.
    begun: Option<(f64, u64)>,
    /// Sound is missing before what is in `input`.
    hole: bool,
    /// Frames at 48 kHz that were missing since the last look.
    missing: u64,
    /// Frames of output still to be cut off to begin on the grid.
    discard: usize,
    /// Index on the grid of 10 ms of the first sample in `output`.
    next_block: u64,
}

impl Aligner {
    fn new(rate: u32, channels: usize) -> Result<Self, String> {
        let chunk = (rate / 100).max(1) as usize;
        let parameters = SincInterpolationParameters::new(TAPS, WindowFunction::BlackmanHarris2)
            .interpolation(SincInterpolationType::Cubic);
        let ratio = f64::from(AUDIO_CLOCK_HZ) / f64::from(rate);
        let limit = 1.0 + 2.0 * MAX_CORRECTION;
        let resampler = Async::new_sinc(
            ratio,
            limit,
            &parameters,
            chunk,
            channels,
            FixedAsync::Input,
        )
        .map_err(|e| e.to_string())?;
        Ok(Self {
            scratch: vec![0.0; resampler.output_frames_max() * channels],
            resampler,
            drift: Drift::default(),
            rate,
            channels,
            chunk,
            input: Vec::new(),
            captured: 0.0,
            output: Vec::new(),
            begun: None,
            hole: false,
            missing: 0,
            discard: 0,
            next_block: 0,
        })
    }

    /// Sound is missing between what was pushed and what will be.
    fn interrupt(&mut self) {
        self.input.clear();
        self.hole = true;
    }

    /// Takes interleaved samples in the feed's channels, the first of them captured at `captured`.
    fn push(&mut self, samples: &[f32], captured: MediaTime) -> Result<(), String> {
        let waiting = self.input.len() / self.channels;
        self.captured =
            captured.since_epoch().as_secs_f64() - waiting as f64 / f64::from(self.rate);
        self.input.extend_from_slice(samples);
        while self.input.len() >= self.chunk * self.channels {
            self.process()?;
        }
        Ok(())
    }

    /// Puts one chunk through the resampler.
    fn process(&mut self) -> Result<(), String> {
        let hz = f64::from(AUDIO_CLOCK_HZ);
        let delay = self.resampler.output_delay() as f64 / hz;
        let elapsed = self.chunk as f64 / f64::from(self.rate);
        // What enters now comes out after the delay.
        let stamp = self.begun.map(|(at, made)| at + made as f64 / hz);
        let error = stamp.map(|stamp| self.captured - (stamp + delay));
        let hole = std::mem::take(&mut self.hole);
        match error {
            Some(error) if error.abs() <= if hole { KNOWN_HOLE_S } else { HOLE_S } => {
                let factor = self.drift.update(error, elapsed);
                if let Some(adjustable) = self.resampler.as_adjustable() {
                    let set = adjustable.set_resample_ratio_relative(factor, true);
                    set.map_err(|e| e.to_string())?;
                }
            }
            Some(error) => {
                self.missing += (error.max(0.0) * hz) as u64;
                self.begin(self.captured - delay);
            }
            None => self.begin(self.captured - delay),
        }
        let (channels, frames) = (self.channels, self.chunk);
        let room = self.scratch.len() / channels;
        let input =
            InterleavedSlice::new(&self.input, channels, frames).map_err(|e| e.to_string())?;
        let mut output = InterleavedSlice::new_mut(&mut self.scratch, channels, room)
            .map_err(|e| e.to_string())?;
        let (used, made) = self
            .resampler
            .process_into_buffer(&input, &mut output, None)
            .map_err(|e| e.to_string())?;
        self.output
            .extend_from_slice(&self.scratch[..made * channels]);
        let cut = self.discard.min(self.output.len() / channels);
        self.output.drain(..cut * channels);
        self.discard -= cut;
        if let Some((_, total)) = &mut self.begun {
            *total += made as u64;
        }
        self.input.drain(..used * channels);
        self.captured += used as f64 / f64::from(self.rate);
        Ok(())
    }

    /// Begins anew on the grid, with a sample captured at `stamp` coming out next: what lies before the next line
    /// of the grid, history of the resampler included, is cut off. Blocks never go back.
    fn begin(&mut self, stamp: f64) {
        let line = (self.captured.max(0.0) * 100.0).ceil() as u64;
        self.next_block = self.next_block.max(line);
        let ahead = self.next_block as f64 / 100.0 - stamp;
        self.discard = (ahead * f64::from(AUDIO_CLOCK_HZ)).round().max(0.0) as usize;
        self.output.clear();
        self.begun = Some((stamp, 0));
    }

    fn pop(&mut self) -> Option<AudioFrame> {
        let len = BLOCK * self.channels;
        if self.output.len() < len {
            return None;
        }
        let samples: Vec<f32> = self.output.drain(..len).collect();
        let captured = MediaTime::new(Duration::from_millis(self.next_block * 10));
        self.next_block += 1;
        Some(AudioFrame {
            captured,
            channels: self.channels as u8,
            samples,
        })
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
    /// Opens `device` (an id, a part of a name, `default` or `auto`) for a feed of 1 or 2 `channels`.
    ///
    /// # Errors
    /// If it is not there, or cannot be opened.
    pub fn open(device: &str, channels: u8, clock: MediaClock) -> Result<Self, Error> {
        without_chatter(|| Self::opened(device, channels, clock))
    }

    fn opened(device: &str, channels: u8, clock: MediaClock) -> Result<Self, Error> {
        let found = find(device)?;
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
            taken: Vec::new(),
            mixed: Vec::new(),
            lost: Losses::default(),
            given: Losses::default(),
            said: None,
        })
    }

    /// Waits for a block of the ring and puts its samples into `self.taken`.
    fn take(&mut self) -> Result<Block, Error> {
        let deadline = Instant::now() + SILENT;
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
                return Ok(block);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Stalled(SILENT));
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

fn find(device: &str) -> Result<Device, Error> {
    let host = cpal::default_host();
    let missing = || Error::Missing {
        device: device.to_owned(),
    };
    if matches!(device, "auto" | "default") {
        return host.default_input_device().ok_or_else(missing);
    }
    let devices: Vec<Device> = host
        .input_devices()
        .map_err(|e| fault(device, &e))?
        .collect();
    let wanted = device.to_lowercase();
    let by_id = devices.iter().find(|d| {
        d.id().is_ok_and(|id| {
            let id = id.to_string().to_lowercase();
            id == wanted || id.split_once(':').is_some_and(|(_, id)| id == wanted)
        })
    });
    let by_name = || {
        devices.iter().find(|d| {
            let description = d.description();
            description.is_ok_and(|d| d.name().to_lowercase().contains(&wanted))
        })
    };
    by_id.or_else(by_name).cloned().ok_or_else(missing)
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

    /// Feeds `seconds` of a device that is `ppm` off and beeps for 10 ms at each full second of true time; checks
    /// where the beeps come out. Gives the blocks.
    fn run(rate: u32, ppm: f64, seconds: u32, start: f64) -> Vec<AudioFrame> {
        let mut aligner = Aligner::new(rate, 1).expect("plain values");
        let actual = f64::from(rate) * (1.0 + ppm * 1e-6);
        let mut frames = Vec::new();
        let mut n = 0_u64;
        while (n as f64) < f64::from(seconds) * actual {
            let len = 441 + n % 97;
            let truth = |i: u64| start + i as f64 / actual;
            let samples: Vec<f32> = (n..n + len)
                .map(|i| if truth(i).fract() < 0.01 { 0.5 } else { 0.0 })
                .collect();
            let jitter = ((n * 7919 % 1000) as f64 / 1000.0 - 0.5) * 0.004;
            let captured = MediaTime::new(Duration::from_secs_f64(truth(n) + jitter));
            aligner.push(&samples, captured).expect("resamples");
            frames.extend(std::iter::from_fn(|| aligner.pop()));
            n += len;
        }
        frames
    }

    #[test]
    fn any_rate_comes_out_at_48_khz_on_the_grid_and_in_time() {
        for (rate, ppm, start) in [
            (48_000, 0.0, 3.0037),
            (44_100, 200.0, 3.0101),
            (16_000, -200.0, 3.0099),
            (96_000, 100.0, 3.0),
        ] {
            let frames = run(rate, ppm, 20, start);
            let first = frames[0].captured.ticks(100);
            let mut beeps = 0;
            let mut quiet = 0;
            for (n, frame) in (0_u64..).zip(&frames) {
                assert_eq!(frame.captured.ticks(100), first + n);
                assert_eq!(frame.captured.since_epoch().subsec_micros() % 10_000, 0);
                for (i, sample) in frame.samples.iter().enumerate() {
                    if *sample > 0.25 {
                        if quiet > 10_000 {
                            let at =
                                frame.captured.since_epoch().as_secs_f64() + i as f64 / 48_000.0;
                            let off = (at + 0.5).fract() - 0.5;
                            assert!(off.abs() < 0.006, "{rate} Hz: beep {off} s off");
                            beeps += 1;
                        }
                        quiet = 0;
                    } else {
                        quiet += 1;
                    }
                }
            }
            assert!(beeps >= 18, "{rate} Hz: {beeps} beeps");
        }
    }

    #[test]
    fn a_hole_in_the_sound_is_a_hole_in_the_stamps() {
        let mut aligner = Aligner::new(48_000, 2).expect("plain values");
        let mut stamps = Vec::new();
        for n in 0..200_u64 {
            let hole = if n >= 100 { 700 } else { 0 };
            let captured = MediaTime::new(Duration::from_millis(1000 + n * 10 + hole));
            aligner.push(&[0.1; 960], captured).expect("resamples");
            stamps.extend(std::iter::from_fn(|| aligner.pop()).map(|f| f.captured.ticks(100)));
        }
        assert!(stamps.is_sorted_by(|a, b| a < b));
        let jumps: Vec<u64> = stamps
            .windows(2)
            .map(|w| w[1] - w[0])
            .filter(|&d| d != 1)
            .collect();
        assert_eq!(jumps.len(), 1);
        assert!((68..=74).contains(&jumps[0]), "{jumps:?}");
    }

    #[test]
    fn a_short_hole_that_the_device_confesses_does_not_shift_what_follows() {
        // 35 ms are missing in each second: far too little to be told from a late callback.
        let mut aligner = Aligner::new(48_000, 1).expect("plain values");
        let mut frames = Vec::new();
        for n in 0..1000_u64 {
            let second = n / 100;
            let captured = Duration::from_millis(5000 + n * 10 + second * 35);
            if n % 100 == 0 {
                aligner.interrupt();
            }
            // A beep in the middle of each second's sound.
            let level = if n % 100 == 50 { 0.5 } else { 0.0 };
            let pushed = aligner.push(&[level; 480], MediaTime::new(captured));
            pushed.expect("resamples");
            frames.extend(std::iter::from_fn(|| aligner.pop()));
        }
        let starts: Vec<f64> = frames
            .iter()
            .filter_map(|frame| {
                let i = frame.samples.iter().position(|&sample| sample > 0.25)?;
                Some(frame.captured.since_epoch().as_secs_f64() + i as f64 / 48_000.0)
            })
            .collect();
        for second in 0..10 {
            let wanted = 5.5 + f64::from(second) * 1.035;
            let near = |at: &f64| (at - wanted).abs() < 0.002;
            assert!(starts.iter().any(near), "no beep at {wanted}: {starts:?}");
        }
        let expected = 9 * 35 * 48;
        assert!(
            aligner.missing.abs_diff(expected) < 9 * 48,
            "{}",
            aligner.missing
        );
    }

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
        let error = Microphone::open("no such microphone", 2, clock)
            .err()
            .expect("missing");
        assert!(matches!(error, Error::Missing { .. }), "{error}");
    }
}
