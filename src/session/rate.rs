//! This session's wish for the video bitrate, from what the server reports. Pure: told the time.
//!
//! Loss-based, as neither Wowza nor a default OvenMediaEngine sends anything better over these handshakes: back off in
//! proportion to loss, creep up while there is none; a REMB, where one comes, is a ceiling. The feed encodes
//! at the smallest wish of its sessions.
//!
//! Over TCP nothing is lost on the way; media waits for room instead, and what does not fit is dropped before it has
//! sequence numbers. There the connection itself is measured: while it is full, what it carries is what the path carries.

use std::time::{Duration, Instant};

use crate::config::Bitrate;

/// Below this a picture is not worth sending; the session keeps it and lets frames drop instead.
const FLOOR: Bitrate = Bitrate(100_000);

/// Loss above which the path is taken to be full (draft-ietf-rmcat-gcc, section 6).
const LOSS_HIGH: f64 = 0.10;

/// Loss below which there may be room.
const LOSS_LOW: f64 = 0.02;

/// Time between two changes, so that a change is seen in a report before the next.
const SETTLE: Duration = Duration::from_secs(1);

/// Share of the time without room from which on a connection counts as full. A key frame alone fills it for less.
const FULL: f64 = 0.5;

/// Share of the time without room up to which a connection may have more of it.
const FREE: f64 = 0.1;

/// What is made of what a full connection carries: the rest drains what waits, and is for key frames.
const SPARE: f64 = 0.85;

/// How long after a full connection more is tried.
const HOLD: Duration = Duration::from_secs(10);

/// Loss reported within this keeps a connection with room from being given more: beyond a relay it is UDP.
const LOSSY: Duration = Duration::from_secs(10);

/// A REMB older than this no longer binds.
const REMB_LIFE: Duration = Duration::from_secs(10);

/// What a connection did with video since a moment.
#[derive(Debug, Default)]
struct Span {
    began: Option<Instant>,
    /// What waited then, in bytes.
    backlog: usize,
    /// Time without room, up to `full_since`.
    full: Duration,
    full_since: Option<Instant>,
    /// Bytes of video handed over.
    sent: usize,
    /// Pictures that the lane had dropped then.
    dropped: u64,
}

/// Turns loss reports, REMB and waiting for room into a target.
#[derive(Debug)]
pub(super) struct Rate {
    max: Bitrate,
    target: Bitrate,
    changed_at: Option<Instant>,
    remb: Option<(Instant, Bitrate)>,
    span: Span,
    /// When the connection was full last.
    full_at: Option<Instant>,
    /// When a report last told of loss.
    lossy_at: Option<Instant>,
}

impl Rate {
    /// Starts at the feed's full bitrate `max`.
    pub(super) fn new(max: Bitrate) -> Self {
        Self {
            max,
            target: max,
            changed_at: None,
            remb: None,
            span: Span::default(),
            full_at: None,
            lossy_at: None,
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
        if fraction_lost < LOSS_LOW {
            self.rise(now);
            return;
        }
        self.lossy_at = Some(now);
        if fraction_lost > LOSS_HIGH && !is_within(SETTLE, self.changed_at, now) {
            let factor = 1.0 - 0.5 * fraction_lost.min(1.0);
            self.change(now, f64::from(self.target.0) * factor);
        }
    }

    /// The connection is `full` from `now` on, or has room.
    pub(super) fn waits(&mut self, now: Instant, full: bool) {
        let span = &mut self.span;
        match (span.full_since, full) {
            (None, true) => span.full_since = Some(now),
            (Some(since), false) => {
                span.full += now.saturating_duration_since(since);
                span.full_since = None;
            }
            (None, false) | (Some(_), true) => {}
        }
    }

    /// So many bytes of video were handed over.
    pub(super) const fn sent(&mut self, bytes: usize) {
        self.span.sent += bytes;
    }

    /// So many bytes wait for the connection `now`, and so many pictures found no room so far. Once a second what happened
    /// meanwhile is judged.
    pub(super) fn look(&mut self, now: Instant, backlog: usize, dropped: u64) {
        let span = &self.span;
        let took = span.began.map(|at| now.saturating_duration_since(at));
        if took.is_some_and(|took| took < SETTLE) {
            return;
        }
        let since = span.full_since;
        let next = Span {
            began: Some(now),
            backlog,
            dropped,
            full_since: since.map(|_| now),
            ..Span::default()
        };
        let last = std::mem::replace(&mut self.span, next);
        let Some(took) = took else {
            return;
        };
        let waiting = since.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let full_s = (last.full + waiting).as_secs_f64();
        let full = full_s / took.as_secs_f64();
        let drops = dropped > last.dropped;
        let carried = (last.backlog + last.sent).saturating_sub(backlog);
        // Over UDP, which is never full, pictures are dropped when this host was busy.
        if full >= FULL || full >= FREE && drops {
            self.full_at = Some(now);
            // What stands still says nothing of a rate; that is for others to judge.
            if carried > 0 {
                let target = f64::from(self.target.0);
                // While there was room there may have been nothing to carry. What is too much comes down next time.
                let fits = carried as f64 * 8.0 / full_s * SPARE;
                let most = if drops { target * SPARE } else { target };
                // Not by one second alone: it may have been one without a path.
                let wished = fits.min(most).max(target / 2.0);
                if wished < target {
                    self.change(now, wished);
                }
            }
        } else if full < FREE && self.full_at.is_some() && !is_within(LOSSY, self.lossy_at, now) {
            // No report needs to come.
            self.rise(now);
        }
    }

    fn rise(&mut self, now: Instant) {
        if !is_within(SETTLE, self.changed_at, now) && !is_within(HOLD, self.full_at, now) {
            self.change(now, f64::from(self.target.0) * 1.05);
        }
    }

    fn change(&mut self, now: Instant, wished: f64) {
        let wished = wished as u32;
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

fn is_within(span: Duration, at: Option<Instant>, now: Instant) -> bool {
    at.is_some_and(|at| now.saturating_duration_since(at) < span)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

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

    /// A feed that makes what is wished, and a connection that carries `path` of it.
    struct World {
        now: Instant,
        rate: Rate,
        /// Bytes that wait for room, picture by picture; more than half a second is dropped.
        lane: VecDeque<f64>,
        /// Bytes that the connection has not taken.
        backlog: f64,
        dropped: u64,
    }

    impl World {
        const TICK: Duration = Duration::from_millis(50);

        fn new() -> Self {
            Self {
                now: Instant::now(),
                rate: Rate::new(MAX),
                lane: VecDeque::new(),
                backlog: 0.0,
                dropped: 0,
            }
        }

        fn target(&self) -> f64 {
            f64::from(self.rate.target(self.now).0)
        }

        /// `seconds` over a path of `path` bit/s; whoever receives reports that nothing is lost. What it came to at most
        /// and at least.
        fn run(&mut self, seconds: u32, path: f64) -> (f64, f64) {
            let (mut least, mut most) = (f64::MAX, 0.0_f64);
            for n in 0..seconds * 20 {
                let room = self.target() / 8.0 / 4.0;
                let tick = Self::TICK.as_secs_f64();
                self.lane.push_back(self.target() / 8.0 * tick);
                if self.lane.len() > 10 {
                    self.dropped += self.lane.len() as u64;
                    self.lane.clear();
                }
                self.backlog = (self.backlog - path / 8.0 * tick).max(0.0);
                while self.backlog < room
                    && let Some(picture) = self.lane.pop_front()
                {
                    self.backlog += picture;
                    self.rate.sent(picture as usize);
                }
                self.now += Self::TICK;
                self.rate.waits(self.now, self.backlog >= room);
                if n.is_multiple_of(5) {
                    self.rate
                        .look(self.now, self.backlog as usize, self.dropped);
                }
                if n.is_multiple_of(20) {
                    self.rate.loss(self.now, 0.0);
                }
                (least, most) = (least.min(self.target()), most.max(self.target()));
            }
            (least, most)
        }
    }

    #[test]
    fn a_full_connection_lowers_the_target_to_what_it_carries_and_room_restores_it() {
        for path in [1_000_000.0, 400_000.0, 150_000.0] {
            let mut world = World::new();
            world.run(8, path);
            let (least, most) = world.run(120, path);
            // Room is tried for from time to time.
            assert!(most < path * 1.4, "{path}: up to {most}");
            assert!(least > path * 0.6, "{path}: down to {least}");
            let (_, most) = world.run(8, path);
            assert!(most < path * 1.4, "{path}: up to {most}");
            world.run(90, 1e9);
            assert_eq!(world.rate.target(world.now), MAX);
        }
    }

    #[test]
    fn a_connection_that_stands_still_for_some_seconds_is_not_taken_for_a_narrow_one() {
        let mut world = World::new();
        world.run(10, 1e9);
        world.run(5, 0.0);
        assert!(world.target() >= f64::from(MAX.0) / 2.0);
    }

    #[test]
    fn loss_beyond_a_relay_is_not_answered_with_more() {
        let mut world = World::new();
        world.run(8, 400_000.0);
        let before = world.target();
        for _ in 0..20 {
            world.rate.loss(world.now, 0.05);
            world.rate.waits(world.now, false);
            world.rate.look(world.now, 0, world.dropped);
            world.now += S;
        }
        assert!((world.target() - before).abs() < 1.0);
    }

    #[test]
    fn one_key_frame_that_fills_the_connection_for_a_moment_changes_nothing() {
        let t = Instant::now();
        let mut rate = Rate::new(MAX);
        for n in 0..10 {
            rate.look(t + n * S, 0, 0);
            rate.sent(250_000);
            rate.waits(t + n * S, true);
            rate.waits(t + n * S + S * 2 / 5, false);
        }
        assert_eq!(rate.target(t + 10 * S), MAX);
        // But if pictures are dropped for it, it is too much.
        rate.look(t + 10 * S, 200_000, 7);
        assert_eq!(rate.target(t + 10 * S), Bitrate(MAX.0 / 2));
    }
}
