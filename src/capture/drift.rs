//! How a microphone's clock differs from ours, as a correction of the resampling ratio. Pure.
//!
//! A sound card's 48 kHz is off by up to a few hundred parts per million: 200 ppm are 17 s a day. The controller is
//! told how much later the samples were really captured than their even stamps say, and answers by how much the
//! ratio must differ from the nominal one. The measure jitters by tens of milliseconds, so it is smoothed first;
//! proportional and integral terms then hold the error near zero without audible changes of pitch.

/// Time constant of the smoothing, in seconds.
const SMOOTHING_S: f64 = 5.0;
/// Natural frequency of the loop, in radians per second: slow against jitter, fast against temperature.
const OMEGA: f64 = 0.02;
/// Largest correction. No clock that works is further off, and more would be heard.
pub const MAX_CORRECTION: f64 = 0.002;

/// The state of the control loop.
#[derive(Clone, Copy, Debug, Default)]
pub struct Drift {
    smoothed: f64,
    integral: f64,
}

impl Drift {
    /// Takes a measure of `error_s` seconds (positive: captured later than stamped) that holds for the last
    /// `elapsed_s` seconds; gives the factor for the nominal ratio of output to input rate.
    pub fn update(&mut self, error_s: f64, elapsed_s: f64) -> f64 {
        let weight = (elapsed_s / SMOOTHING_S).min(1.0);
        self.smoothed += (error_s - self.smoothed) * weight;
        let limit = MAX_CORRECTION;
        let step = OMEGA * OMEGA * self.smoothed * elapsed_s;
        self.integral = (self.integral + step).clamp(-limit, limit);
        let correction = 2.0 * OMEGA * self.smoothed + self.integral;
        1.0 + correction.clamp(-limit, limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `hours` of 10 ms callbacks of a clock that is `ppm` off, with jitter; gives the worst true error and
    /// the spread of the correction over the last hour.
    fn run(hours: u32, ppm: f64) -> (f64, f64) {
        let mut drift = Drift::default();
        let (mut produced, mut seed) = (0.0, 1_u32);
        let (mut worst, mut low, mut high) = (0.0_f64, f64::MAX, f64::MIN);
        let steps = u64::from(hours) * 360_000;
        for n in 0..steps {
            let truth = n as f64 * 0.01 / (1.0 + ppm * 1e-6);
            seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let jitter = (f64::from(seed >> 8) / f64::from(1 << 24) - 0.5) * 0.03;
            let factor = drift.update(truth + jitter - produced, 0.01);
            worst = worst.max((truth - produced).abs());
            produced += 0.01 * factor;
            if n + 360_000 >= steps {
                (low, high) = (low.min(factor), high.max(factor));
            }
        }
        (worst, high - low)
    }

    #[test]
    fn a_day_with_a_clock_200_ppm_off_stays_within_20_ms() {
        for ppm in [200.0, -200.0] {
            let (worst, spread) = run(24, ppm);
            assert!(worst <= 0.020, "{ppm} ppm: {worst} s");
            assert!(spread <= 200e-6, "{ppm} ppm: ratio wanders by {spread}");
        }
    }

    #[test]
    fn a_wild_measure_cannot_move_the_ratio_far() {
        let mut drift = Drift::default();
        for _ in 0..100_000 {
            let factor = drift.update(1e6, 0.01);
            assert!((factor - 1.0).abs() <= MAX_CORRECTION);
        }
    }
}
