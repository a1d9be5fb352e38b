//! Which pictures of a source are taken, so that no more come than are wanted. Told the time; pure.

use std::time::Duration;

use crate::media::time::MediaTime;

/// Lets through pictures at a given rate, in an even rhythm.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Thinner {
    /// When the next picture should come, at the wanted rate.
    due: Option<MediaTime>,
}

impl Thinner {
    /// Whether a picture captured at `captured` is one too many for `fps` pictures per second.
    ///
    /// A source up to 5 % faster than wanted counts as one of the wanted rate: its clock is not ours, and to leave
    /// out one picture in a hundred would be seen, though its cost would not.
    pub(super) fn is_surplus(&self, captured: MediaTime, fps: u32) -> bool {
        // Pictures jitter: one that comes up to half a period early is the one that is due.
        let slack = Duration::from_millis(500) / fps.max(1);
        self.due.is_some_and(|due| captured + slack < due)
    }

    /// A picture captured at `captured` was taken, at `fps` pictures per second.
    pub(super) fn took(&mut self, captured: MediaTime, fps: u32) {
        let period = (Duration::from_secs(1) / fps.max(1)).mul_f64(0.95);
        let on_time = self
            .due
            .filter(|&due| captured.saturating_since(due) < period);
        self.due = Some(on_time.unwrap_or(captured) + period);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Pictures per second taken of a source of `source` per second with `jitter`, where `wanted` are, and the
    /// longest pause in milliseconds.
    fn taken(source: f64, wanted: u32, jitter: f64) -> (f64, u128) {
        let mut thinner = Thinner::default();
        let (mut count, mut longest, mut last) = (0_u32, Duration::ZERO, None);
        let mut seed = 1_u32;
        let seconds = 60.0;
        for n in 0..(source * seconds) as u32 {
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let noise = f64::from(seed >> 8) / f64::from(1_u32 << 24) - 0.5;
            let at = 1.0 + (f64::from(n) + noise * jitter) / source;
            let at = MediaTime::new(Duration::from_secs_f64(at));
            if thinner.is_surplus(at, wanted) {
                continue;
            }
            thinner.took(at, wanted);
            longest = longest.max(last.map_or(Duration::ZERO, |last| at.saturating_since(last)));
            last = Some(at);
            count += 1;
        }
        (f64::from(count) / seconds, longest.as_millis())
    }

    #[test]
    fn a_source_of_the_wanted_rate_loses_nothing_though_its_clock_and_rhythm_are_off() {
        for (source, jitter) in [
            (30.0, 0.0),
            (30.0, 0.5),
            (31.0, 0.2),
            (29.97, 0.5),
            (15.0, 0.5),
        ] {
            let (rate, _) = taken(source, 30, jitter);
            assert!((rate - source).abs() < 0.05, "{source}: {rate}");
        }
    }

    #[test]
    fn a_faster_source_is_thinned_to_the_wanted_rate_without_long_pauses() {
        for (source, wanted) in [
            (30.0, 15),
            (30.0, 20),
            (60.0, 25),
            (30.0, 10),
            (30.0, 7),
            (30.0, 1),
        ] {
            let (rate, longest) = taken(source, wanted, 0.3);
            let wanted = f64::from(wanted);
            assert!(
                rate <= wanted * 1.07 && rate >= wanted * 0.93,
                "{source} to {wanted}: {rate}"
            );
            let bearable = 1000.0 / wanted + 1.5 * 1000.0 / source;
            assert!(
                longest as f64 <= bearable,
                "{source} to {wanted}: {longest} ms"
            );
        }
    }

    #[test]
    fn a_hole_in_time_is_not_made_up_for() {
        let mut thinner = Thinner::default();
        let at = |ms| MediaTime::new(Duration::from_millis(ms));
        thinner.took(at(0), 10);
        thinner.took(at(9_000), 10);
        assert!(thinner.is_surplus(at(9_033), 10));
        assert!(!thinner.is_surplus(at(9_100), 10));
    }
}
