//! Finds the onset of the 1 kHz beep in decoded sound, to a fraction of a millisecond.
//!
//! Pure. Goertzel's algorithm over 2.5 ms, every half millisecond. A window half filled by the beep shows half
//! of its amplitude, so the onset is the middle of the window at which half of the plateau is passed.
//! Only a whole beep counts: one whose beginning was lost, or replaced by silence, would seem late.

use std::collections::VecDeque;
use std::f32::consts::TAU;

/// Samples per second.
const RATE: f32 = 48_000.0;
/// Pitch of the beep.
const PITCH: f32 = 1_000.0;
/// Samples per window: 2.5 periods of the pitch.
const WINDOW: usize = 120;
/// Samples between windows.
const HOP: usize = 24;
/// Amplitude that only a beep reaches; the beep has 0.5, the tone underneath 0.03.
const FLOOR: f32 = 0.1;
/// Samples of a whole beep: 60 ms.
const LENGTH: u64 = 2_880;
/// How much longer or shorter a whole beep may seem: 5 ms, half of the shortest piece that can be missing.
const TOLERANCE: u64 = 240;
/// Windows after which what has not ended is no beep: 80 ms.
const LONGEST: usize = 160;
/// Windows that must have been quiet before a beep: 50 ms.
const QUIET: usize = 100;

/// The detector. Told mono samples with the time of the first of them; time counts samples.
#[derive(Debug, Default)]
pub(super) struct Detector {
    next: Option<u64>,
    samples: VecDeque<f32>,
    quiet: usize,
    loud: Vec<(u64, f32)>,
    last: Option<(u64, f32)>,
}

impl Detector {
    /// Takes samples whose first has the time `at`; returns the onsets of the beeps that have ended. A gap starts
    /// anew.
    pub(super) fn push(&mut self, at: u64, samples: &[f32]) -> Vec<u64> {
        if self.next != Some(at) {
            *self = Self::default();
        }
        self.next = Some(at + samples.len() as u64);
        let mut found = Vec::new();
        let mut time = at - (self.samples.len() as u64).min(at);
        self.samples.extend(samples);
        while self.samples.len() >= WINDOW {
            let amplitude = amplitude(self.samples.iter().take(WINDOW).copied());
            found.extend(self.window(time + WINDOW as u64 / 2, amplitude));
            self.samples.drain(..HOP);
            time += HOP as u64;
        }
        found
    }

    fn window(&mut self, middle: u64, amplitude: f32) -> Option<u64> {
        let before = self.last.replace((middle, amplitude));
        if self.loud.is_empty() {
            if amplitude < FLOOR {
                self.quiet += 1;
                return None;
            }
            if std::mem::take(&mut self.quiet) < QUIET {
                return None;
            }
            self.loud.extend(before);
        }
        self.loud.push((middle, amplitude));
        if amplitude >= FLOOR && self.loud.len() < LONGEST {
            return None;
        }
        let loud = std::mem::take(&mut self.loud);
        let half = loud.iter().map(|(_, a)| *a).fold(0.0, f32::max) / 2.0;
        let mut passes = loud.windows(2).filter_map(|pair| {
            let [(t0, a0), (t1, a1)] = [pair[0], pair[1]];
            ((a0 < half) != (a1 < half))
                .then(|| t0 + ((t1 - t0) as f32 * (half - a0) / (a1 - a0)).round() as u64)
        });
        let (onset, end) = (passes.next()?, passes.next_back()?);
        ((end - onset).abs_diff(LENGTH) <= TOLERANCE).then_some(onset)
    }
}

/// Amplitude of the pitch in one window.
fn amplitude(window: impl Iterator<Item = f32>) -> f32 {
    let coefficient = 2.0 * (TAU * PITCH / RATE).cos();
    let (mut s1, mut s2) = (0.0_f32, 0.0_f32);
    for sample in window {
        let s0 = sample + coefficient * s1 - s2;
        s2 = s1;
        s1 = s0;
    }
    let power = s1 * s1 + s2 * s2 - coefficient * s1 * s2;
    power.max(0.0).sqrt() * 2.0 / WINDOW as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Four seconds of the 220 Hz tone with a beep of 60 ms from each sample in `onsets` on.
    fn sound(onsets: &[u64]) -> Vec<f32> {
        (0..4 * 48_000_u64)
            .map(|n| {
                let tone = 0.0316 * (TAU * 220.0 * n as f32 / RATE).sin();
                let beep = onsets.iter().find(|o| (**o..**o + 2_880).contains(&n));
                beep.map_or(tone, |o| 0.5 * (TAU * PITCH * (n - o) as f32 / RATE).sin())
            })
            .collect()
    }

    #[test]
    fn onsets_are_found_to_half_a_millisecond() {
        let onsets = [20_011, 68_011, 116_033];
        let mut detector = Detector::default();
        let mut found = Vec::new();
        for (n, packet) in sound(&onsets).chunks(960).enumerate() {
            found.extend(detector.push(5_000 + n as u64 * 960, packet));
        }
        assert_eq!(found.len(), onsets.len());
        for (found, onset) in found.iter().zip(onsets) {
            let error = found.abs_diff(onset + 5_000);
            assert!(error <= 24, "{error} samples off");
        }
    }

    #[test]
    fn a_beep_with_a_piece_missing_tells_no_time() {
        for piece in [20_000..20_480, 21_120..21_600, 22_400..22_880] {
            let mut sound = sound(&[20_000, 68_000]);
            sound[piece].fill(0.0);
            let found = Detector::default().push(0, &sound);
            assert_eq!(found.len(), 1, "{found:?}");
            assert!(found[0].abs_diff(68_000) <= 24);
        }
    }

    #[test]
    fn the_tone_alone_and_a_beep_cut_by_a_gap_give_nothing() {
        let mut detector = Detector::default();
        for (n, packet) in sound(&[]).chunks(960).enumerate() {
            assert!(detector.push(n as u64 * 960, packet).is_empty());
        }
        let sound = sound(&[20_000]);
        let mut detector = Detector::default();
        assert!(detector.push(0, &sound[..20_300]).is_empty());
        // The rest comes from another time: there is no quiet before it, so no onset.
        assert!(detector.push(99_000, &sound[20_300..40_000]).is_empty());
    }
}
