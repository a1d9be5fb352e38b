//! Capped exponential backoff with jitter. Pure: chance is passed in.

use std::time::Duration;

/// Waits 1, 2, 4, 8, 15 s and then 15 s for ever, each +-20 % (protocols.md 1.6, Wowza's own page).
///
/// The jitter keeps a hall full of kiosks from knocking in step after a power cut.
pub(super) fn delay(attempt: u32, rng: &mut fastrand::Rng) -> Duration {
    const CAP: Duration = Duration::from_secs(15);
    let exponential = Duration::from_secs(1 << attempt.min(10));
    jittered(exponential.min(CAP), rng)
}

/// `period` +-20 %.
pub(super) fn jittered(period: Duration, rng: &mut fastrand::Rng) -> Duration {
    period.mul_f64(0.8 + 0.4 * rng.f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schedule_is_capped_and_jitter_is_bounded() {
        let mut rng = fastrand::Rng::with_seed(1);
        for (attempt, nominal) in [
            (0, 1),
            (1, 2),
            (2, 4),
            (3, 8),
            (4, 15),
            (5, 15),
            (u32::MAX, 15),
        ] {
            for _ in 0..100 {
                let ratio = delay(attempt, &mut rng).as_secs_f64() / f64::from(nominal);
                assert!((0.8..=1.2).contains(&ratio), "attempt {attempt}: {ratio}");
            }
        }
    }

    #[test]
    fn the_same_seed_gives_the_same_waits() {
        let waits = |seed| {
            let mut rng = fastrand::Rng::with_seed(seed);
            (0..8).map(|n| delay(n, &mut rng)).collect::<Vec<_>>()
        };
        assert_eq!(waits(7), waits(7));
        assert_ne!(waits(7), waits(8));
    }
}
