//! Stamps and resamples what a microphone delivers, so that block `n` holds the sound of `n` times 10 ms. Pure.

use std::time::Duration;

use rubato::audioadapter_buffers::direct::InterleavedSlice;
use rubato::{
    Async, FixedAsync, Resampler, SincInterpolationParameters, SincInterpolationType,
    WindowFunction,
};

use crate::capture::drift::{Drift, MAX_CORRECTION};
use crate::capture::synthetic::BLOCK;
use crate::media::frame::AudioFrame;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaTime};

/// A measured error beyond this is a hole in the sound, not drift: the stamps begin anew.
const HOLE_S: f64 = 0.1;
/// The same where the device said that it lost something.
const KNOWN_HOLE_S: f64 = 0.005;
/// Taps of the resampler: transparent, at half a percent of a core.
const TAPS: usize = 64;

/// Stamps and resamples. Told the time; needs no device.
pub(super) struct Aligner {
    resampler: Async<f32>,
    drift: Drift,
    rate: u32,
    pub(super) channels: usize,
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
    pub(super) missing: u64,
    /// Frames of output still to be cut off to begin on the grid.
    discard: usize,
    /// Index on the grid of 10 ms of the first sample in `output`.
    next_block: u64,
}

impl Aligner {
    pub(super) fn new(rate: u32, channels: usize) -> Result<Self, String> {
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
    pub(super) fn interrupt(&mut self) {
        self.input.clear();
        self.hole = true;
    }

    /// Takes interleaved samples in the feed's channels, the first of them captured at `captured`.
    pub(super) fn push(&mut self, samples: &[f32], captured: MediaTime) -> Result<(), String> {
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

    pub(super) fn pop(&mut self) -> Option<AudioFrame> {
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
}
