//! What the machine is short of, and how much less is therefore asked of it. Pure: told the time.
//!
//! Pictures get rarer, then smaller, then coarser; sound is left alone, for it costs next to nothing and is what
//! listeners miss first. A step down follows within seconds, a step up only after a long calm, and a longer one after
//! each relapse: with less to do the machine looks well whatever ails it, so only trying shows whether more is
//! possible, and each try costs the viewers something.
//!
//! Encoders that fall behind are a fact, and lower the picture. The kernel's pressure figure (PSI) is an opinion
//! about the whole machine: as long as it is high nothing is raised again, but it alone lowers nothing.

pub mod sensors;

use std::time::{Duration, Instant};

use crate::feed::{Limit, LimitedBy};

/// The steps down: what is left of the pictures per second, of each side and of the bitrate, in percent.
const STEPS: [(u8, u8, u8); 6] = [
    (100, 100, 100),
    (67, 100, 100),
    (50, 100, 100),
    (50, 75, 100),
    (50, 50, 100),
    (50, 50, 50),
];

/// How long a shortage must last before it counts.
const SUSTAINED: Duration = Duration::from_secs(3);

/// Time for a step to show in the readings.
const SETTLE: Duration = Duration::from_secs(5);

/// The same for heat, which moves slowly.
const SETTLE_HEAT: Duration = Duration::from_secs(30);

/// Calm before the first step up.
const CALM: Duration = Duration::from_secs(30);

/// Most calm that is waited for, however often a step up was taken back.
const CALM_MAX: Duration = Duration::from_secs(600);

/// A step up that was taken back so soon came too early, though heat may take its time to show it.
const RELAPSE: Duration = Duration::from_secs(120);

/// Share of the captured pictures that encoders may leave undone before they count as behind.
const BEHIND: f64 = 0.05;

/// The same below which they count as up to it.
const ABREAST: f64 = 0.01;

/// Percentage of the time in which somebody waits for the processor, above which nothing is raised.
const CONTENTION: f64 = 50.0;

/// Degrees below the point of throttling at which a machine counts as cool.
const COOL: f64 = 5.0;

/// The state of the machine at one instant. What could not be read presses nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Readings {
    /// Share of the captured pictures that the encoders left undone since the reading before, 0 to 1.
    pub behind: Option<f64>,
    /// Percentage of the last ten seconds in which somebody waited for the processor.
    pub contention: Option<f64>,
    /// Degrees Celsius above the point at which the machine throttles; negative below it.
    pub heat: Option<f64>,
    /// The supply voltage is too low.
    pub undervoltage: bool,
}

/// What follows from one set of readings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Finding {
    /// Nothing is short.
    Calm,
    /// Neither short enough to lower nor calm enough to raise.
    Fair,
    /// Short.
    Short(LimitedBy),
}

impl Readings {
    fn finding(&self) -> Finding {
        let behind = self.behind.unwrap_or(0.0);
        let heat = self.heat.unwrap_or(f64::NEG_INFINITY);
        if self.undervoltage {
            Finding::Short(LimitedBy::Undervoltage)
        } else if heat >= 0.0 {
            Finding::Short(LimitedBy::Thermal)
        } else if behind >= BEHIND {
            Finding::Short(LimitedBy::Cpu)
        } else if heat > -COOL
            || behind > ABREAST
            || self.contention.is_some_and(|busy| busy >= CONTENTION)
        {
            Finding::Fair
        } else {
            Finding::Calm
        }
    }
}

/// Turns readings into a limit.
#[derive(Debug)]
pub struct Controller {
    step: usize,
    by: LimitedBy,
    /// The present finding, and since when it has been the same.
    finding: (Finding, Option<Instant>),
    changed_at: Option<Instant>,
    raised_at: Option<Instant>,
    /// Calm that the next step up takes.
    calm: Duration,
}

impl Default for Controller {
    fn default() -> Self {
        Self {
            step: 0,
            by: LimitedBy::Cpu,
            finding: (Finding::Calm, None),
            changed_at: None,
            raised_at: None,
            calm: CALM,
        }
    }
}

impl Controller {
    /// The limit that holds; `None` if nothing is short.
    pub fn limit(&self) -> Option<Limit> {
        let (fps, size, bitrate) = STEPS[self.step];
        let by = self.by;
        (self.step > 0).then_some(Limit {
            fps,
            size,
            bitrate,
            by,
        })
    }

    /// Takes `readings` of `now`, to be called every second or two. True if the limit has changed.
    pub fn on(&mut self, now: Instant, readings: &Readings) -> bool {
        let finding = readings.finding();
        if self.finding.0 != finding || self.finding.1.is_none() {
            self.finding = (finding, Some(now));
        }
        let for_ = |since: Option<Instant>| {
            since.map_or(Duration::MAX, |since| now.saturating_duration_since(since))
        };
        let lasted = for_(self.finding.1);
        let changed = for_(self.changed_at);
        let before = self.step;
        match finding {
            Finding::Short(by) => {
                let settle = match by {
                    LimitedBy::Thermal => SETTLE_HEAT,
                    LimitedBy::Cpu | LimitedBy::Network | LimitedBy::Undervoltage => SETTLE,
                };
                if lasted >= SUSTAINED && changed >= settle && self.step + 1 < STEPS.len() {
                    self.step += 1;
                    self.by = by;
                    if for_(self.raised_at.take()) <= self.calm.max(RELAPSE) {
                        self.calm = (self.calm * 2).min(CALM_MAX);
                    }
                }
            }
            Finding::Calm if self.step == 0 => {
                if lasted >= CALM_MAX {
                    self.calm = CALM;
                }
            }
            Finding::Calm => {
                if lasted >= self.calm && changed >= self.calm {
                    self.step -= 1;
                    self.raised_at = Some(now);
                }
            }
            Finding::Fair => {}
        }
        if self.step != before {
            self.changed_at = Some(now);
        }
        self.step != before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// A machine on virtual time, one reading a second: what it is short of, given what is asked of it.
    struct World {
        now: Instant,
        controller: Controller,
        changes: u32,
    }

    impl World {
        fn new() -> Self {
            Self {
                now: Instant::now(),
                controller: Controller::default(),
                changes: 0,
            }
        }

        fn run(&mut self, seconds: u32, machine: impl Fn(Option<Limit>) -> Readings) {
            for _ in 0..seconds {
                self.now += S;
                let readings = machine(self.controller.limit());
                self.changes += u32::from(self.controller.on(self.now, &readings));
            }
        }

        fn shares(&self) -> (u8, u8, u8) {
            self.controller
                .limit()
                .map_or((100, 100, 100), |l| (l.fps, l.size, l.bitrate))
        }
    }

    /// A processor that is fast enough for `capacity` of the full picture.
    fn processor(capacity: f64) -> impl Fn(Option<Limit>) -> Readings {
        move |limit| {
            let share = |percent: u8| f64::from(percent) / 100.0;
            let load = limit.map_or(1.0, |l| share(l.fps) * share(l.size) * share(l.size));
            Readings {
                behind: Some((1.0 - capacity / load).max(0.0)),
                contention: Some(if load > capacity { 90.0 } else { 10.0 }),
                ..Readings::default()
            }
        }
    }

    #[test]
    fn a_fast_machine_is_left_alone_for_ever() {
        let mut world = World::new();
        world.run(86_400, processor(1.5));
        assert_eq!((world.changes, world.shares()), (0, (100, 100, 100)));
    }

    #[test]
    fn a_slow_machine_settles_where_it_keeps_up_and_seldom_tries_more() {
        for (capacity, expected) in [
            (0.7, (67, 100, 100)),
            (0.5, (50, 100, 100)),
            (0.3, (50, 75, 100)),
            (0.15, (50, 50, 100)),
        ] {
            let mut world = World::new();
            world.run(25, processor(capacity));
            assert_eq!(world.shares(), expected, "{capacity}");
            assert_eq!(world.controller.limit().map(|l| l.by), Some(LimitedBy::Cpu));
            // The first hour learns that more does not work, those after hardly ask.
            world.run(3_600, processor(capacity));
            let before = world.changes;
            world.run(36_000, processor(capacity));
            let per_hour = f64::from(world.changes - before) / 10.0;
            assert!(per_hour <= 12.0, "{capacity}: {per_hour} changes an hour");
            assert_eq!(world.controller.calm, CALM_MAX);
        }
    }

    #[test]
    fn what_was_lowered_for_a_while_comes_back_step_by_step() {
        let mut world = World::new();
        world.run(25, processor(0.15));
        let low = world.changes;
        assert_eq!(low, 4);
        // The hog has gone.
        world.run(20, processor(1.5));
        assert_eq!(world.changes, low, "not at the first sign");
        world.run(200, processor(1.5));
        assert_eq!((world.changes, world.shares()), (low * 2, (100, 100, 100)));
    }

    #[test]
    fn a_moment_is_no_shortage() {
        let mut world = World::new();
        for _ in 0..1_000 {
            world.run(2, processor(0.2));
            world.run(3, processor(1.5));
        }
        assert_eq!(world.changes, 0);
    }

    #[test]
    fn others_who_want_the_processor_lower_nothing_and_let_nothing_rise() {
        let busy = |_| Readings {
            behind: Some(0.0),
            contention: Some(80.0),
            ..Readings::default()
        };
        let mut world = World::new();
        world.run(3_600, busy);
        assert_eq!(world.changes, 0);
        world.run(20, processor(0.5));
        let low = world.shares();
        assert_ne!(low, (100, 100, 100));
        world.run(3_600, busy);
        assert_eq!(world.shares(), low);
    }

    #[test]
    fn heat_lowers_slowly_and_only_a_cool_machine_rises_again() {
        let hot = |degrees: f64| {
            move |_| Readings {
                heat: Some(degrees),
                ..Readings::default()
            }
        };
        let mut world = World::new();
        world.run(20, hot(1.0));
        assert_eq!(world.changes, 1);
        assert_eq!(
            world.controller.limit().map(|l| l.by),
            Some(LimitedBy::Thermal)
        );
        world.run(30, hot(1.0));
        assert_eq!(world.changes, 2);
        world.run(3_600, hot(-2.0));
        assert_eq!(world.changes, 2, "below the point, but not cool");
        world.run(300, hot(-10.0));
        assert_eq!(world.shares(), (100, 100, 100));
    }

    #[test]
    fn a_weak_supply_goes_to_the_lowest_step_and_no_further() {
        let weak = |_| Readings {
            undervoltage: true,
            ..Readings::default()
        };
        let mut world = World::new();
        world.run(3_600, weak);
        assert_eq!(world.shares(), (50, 50, 50));
        assert_eq!(world.changes as usize, STEPS.len() - 1);
        let by = world.controller.limit().map(|l| l.by);
        assert_eq!(by, Some(LimitedBy::Undervoltage));
    }

    #[test]
    fn a_machine_that_tells_nothing_is_left_alone() {
        let mut world = World::new();
        world.run(3_600, |_| Readings::default());
        assert_eq!(world.changes, 0);
    }

    #[test]
    fn frame_rate_goes_first_then_size_then_bitrate() {
        for pair in STEPS.windows(2) {
            let ((fps, size, bitrate), (less_fps, less_size, less_bitrate)) = (pair[0], pair[1]);
            let changed = [fps != less_fps, size != less_size, bitrate != less_bitrate];
            assert_eq!(changed.iter().filter(|changed| **changed).count(), 1);
            assert!(less_fps <= fps && less_size <= size && less_bitrate <= bitrate);
            assert!(!changed[0] || (size, bitrate) == (100, 100));
            assert!(!changed[1] || bitrate == 100);
        }
    }
}
