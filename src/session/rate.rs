//! This session's wish for the video bitrate, from what the server reports. Pure: told the time.
//!
//! Loss-based, as neither Wowza nor a default OvenMediaEngine sends anything better over these handshakes: back off in
//! proportion to loss, creep up while there is none; a REMB, where one comes, is a ceiling. The feed encodes
//! at the smallest wish of its sessions.

use std::time::{Duration, Instant};

use crate::config::Bitrate;

/// Below this a picture is not worth sending; the session keeps it and lets frames drop instead.
const FLOOR: Bitrate = Bitrate(150_000);

/// Loss above which the path is taken to be full (draft-ietf-rmcat-gcc, section 6).
const LOSS_HIGH: f64 = 0.10;

/// Loss below which there may be room.
const LOSS_LOW: f64 = 0.02;

/// Time between two changes, so that a change is seen in a report before the next.
const SETTLE: Duration = Duration::from_secs(1);

/// A REMB older than this no longer binds.
const REMB_LIFE: Duration = Duration::from_secs(10);

/// Turns loss reports and REMB into a target.
#[derive(Debug)]
pub(super) struct Rate {
    max: Bitrate,
    target: Bitrate,
    changed_at: Option<Instant>,
    remb: Option<(Instant, Bitrate)>,
}

impl Rate {
    /// Starts at the feed's full bitrate `max`.
    pub(super) const fn new(max: Bitrate) -> Self {
        Self {
            max,
            target: max,
            changed_at: None,
            remb: None,
        }
    }

    /// The feed's full bitrate is another one from now on.
    pub(super) fn set_max(&mut self, max: Bitrate) {
        if self.target == self.max {
            self.target = max;
        }
        self.max = max;
        self.target = self.target.min(max);
    }

    /// A receiver report gave `fraction_lost` (0.0..=1.0) for the video track.
    pub(super) fn loss(&mut self, now: Instant, fraction_lost: f64) {
        if self
            .changed_at
            .is_some_and(|at| now.saturating_duration_since(at) < SETTLE)
        {
            return;
        }
        let factor = if fraction_lost > LOSS_HIGH {
            1.0 - 0.5 * fraction_lost.min(1.0)
        } else if fraction_lost < LOSS_LOW {
            1.05
        } else {
            return;
        };
        let wished = (f64::from(self.target.0) * factor) as u32;
        self.target = Bitrate(wished.clamp(FLOOR.0.min(self.max.0), self.max.0));
        self.changed_at = Some(now);
    }

    /// The server estimates that it can receive `bitrate` in all.
    pub(super) const fn remb(&mut self, now: Instant, bitrate: Bitrate) {
        self.remb = Some((now, bitrate));
    }

    /// What the encoder should make now.
    pub(super) fn target(&self, now: Instant) -> Bitrate {
        let ceiling = match self.remb {
            Some((at, bitrate)) if now.saturating_duration_since(at) < REMB_LIFE => {
                bitrate.max(FLOOR)
            }
            _ => self.max,
        };
        self.target.min(ceiling).min(self.max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const MAX: Bitrate = Bitrate(2_000_000);

    #[test]
    fn loss_lowers_the_target_and_its_absence_restores_it() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        for n in 0..5 {
            rate.loss(t + n * S, 0.3);
        }
        let low = rate.target(t + 5 * S);
        assert!(low < Bitrate(1_000_000), "{low:?}");
        for n in 5..60 {
            rate.loss(t + n * S, 0.0);
        }
        assert_eq!(rate.target(t + 60 * S), MAX);
    }

    #[test]
    fn another_full_bitrate_is_followed_and_a_loss_is_not_forgotten() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        let higher = Bitrate(3_000_000);
        rate.set_max(higher);
        assert_eq!(rate.target(t), higher);
        rate.loss(t, 0.5);
        rate.set_max(Bitrate(4_000_000));
        assert!(rate.target(t) < higher);
        rate.set_max(Bitrate(500_000));
        assert_eq!(rate.target(t), Bitrate(500_000));
    }

    #[test]
    fn a_lossless_path_keeps_the_full_bitrate_and_total_loss_keeps_the_floor() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        rate.loss(t, 0.0);
        assert_eq!(rate.target(t), MAX);
        for n in 1..100 {
            rate.loss(t + n * S, 1.0);
        }
        assert_eq!(rate.target(t + 100 * S), FLOOR);
    }

    #[test]
    fn moderate_loss_changes_nothing() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        rate.loss(t, 0.05);
        assert_eq!(rate.target(t), MAX);
    }

    #[test]
    fn a_remb_binds_while_it_is_fresh_and_a_hostile_one_stops_at_the_floor() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        rate.remb(t, Bitrate(500_000));
        assert_eq!(rate.target(t + S), Bitrate(500_000));
        assert_eq!(rate.target(t + 10 * S), MAX);
        rate.remb(t + 20 * S, Bitrate(0));
        assert_eq!(rate.target(t + 20 * S), FLOOR);
    }
}
