//! The one judgement of whether this process does its work, for the service manager's watchdog and for `/healthz`.
//!
//! Healthy is whoever moves: a session that comes further, media that is sent, a wait whose end is known. Stuck is
//! whoever should have moved and has not, for longer than any of its own deadlines allows; only that is cured by
//! beginning anew. A server that is down, a camera that is missing or a wall clock that is wrong make nobody stuck.
//!
//! The judge believes nothing that the judged say of themselves: it compares counters from one look to the next, so
//! that a task which hangs, and therefore says nothing, is found out. Pure: told the time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::feed;
use crate::publisher::{Snapshot, State};
use crate::session::Progress;
use crate::supervisor::Overview;

/// How often the judge is to look. Much less often, and it takes the process for one that was suspended.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A judge that has not looked for so long has not seen a standstill: the process was suspended, or the machine was.
const SUSPENDED: Duration = Duration::from_secs(10);

/// A judgement older than this says that the judge itself hangs.
const STALE: Duration = Duration::from_secs(10);

/// How old a process must be before a device that hangs in its driver ends it. If a new process does not free the
/// device, the slate stays on air for so long between two of them, and from each to the next for twice as long.
const DEVICE_AFTER: Duration = Duration::from_secs(600);

/// Longest such time.
const DEVICE_AFTER_MAX: Duration = Duration::from_secs(86_400);

// How long each part may stand still before it counts as stuck: longer than all the deadlines together that the part
// has for itself, for this is for when those failed. A feed's are shares of the service's watchdog, and so is the
// patience with it. A publisher's are those of servers and platforms, which the watchdog cannot shorten.

/// One step of a session: signalling, the search for a path, the first acceptance. A platform may take 300 s to start a
/// stream, and two dialects asked in a row through a proxy, each at the limit of its deadlines, about 200 s.
const CONNECTING: Duration = Duration::from_secs(600);

/// Past the instant at which the next session was due.
const OVERDUE: Duration = Duration::from_secs(15);

/// Parting from a server, and giving back a stream at its platform.
const PARTING: Duration = Duration::from_secs(30);

/// On air with nothing sent. A host without a way out, then a silent path, then a search for another take up to 65 s:
/// servers remember a session for so long.
const SENDING: Duration = Duration::from_secs(90);

/// What can be stuck.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Part {
    /// The sound of the feed of this name.
    Audio(String),
    /// The publisher of this name.
    Publisher(String),
    /// The picture of the feed of this name.
    Video(String),
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Audio(name) => write!(f, "the sound of feed {name}"),
            Self::Publisher(name) => write!(f, "publisher {name}"),
            Self::Video(name) => write!(f, "the picture of feed {name}"),
        }
    }
}

/// A part that should have moved and has not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// Which.
    pub part: Part,
    /// What it was doing, such as `connecting`.
    pub doing: &'static str,
    /// When it moved last, as far as was seen.
    pub since: Instant,
}

/// The judgement at one instant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// When it was made.
    pub at: Instant,
    /// Every part that is stuck; none if all is well.
    pub stuck: Vec<Stuck>,
}

impl Health {
    /// Whether all was well, and the judgement is young enough at `now` to be believed.
    pub fn is_good(&self, now: Instant) -> bool {
        self.stuck.is_empty() && now.saturating_duration_since(self.at) < STALE
    }

    /// The judgement for people, as of `now`: `healthy`, or who is stuck since when.
    pub fn words(&self, now: Instant) -> String {
        let age = now.saturating_duration_since(self.at);
        if age >= STALE {
            return format!("not judged for {} s: the process hangs", age.as_secs());
        }
        if self.stuck.is_empty() {
            return "healthy".to_owned();
        }
        let said = |stuck: &Stuck| {
            let long = now.saturating_duration_since(stuck.since).as_secs();
            format!("{} is stuck {} for {long} s", stuck.part, stuck.doing)
        };
        let all: Vec<String> = self.stuck.iter().map(said).collect();
        all.join("; ")
    }
}

/// What stays the same only while a part stands still.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Mark {
    Connecting { session: u64, step: u8 },
    Encoding { units: u64 },
    Hung(feed::Stuck),
    Overdue { due: Instant },
    Sending { frames: u64, packets: u64 },
    Stopping,
}

impl Mark {
    /// `encoding` is for a feed that is subscribed to and has encoded nothing; slate and silence count.
    const fn patience(&self, encoding: Duration) -> Duration {
        match self {
            Self::Connecting { .. } => CONNECTING,
            Self::Encoding { .. } => encoding,
            // Whoever says so has waited long enough.
            Self::Hung(_) => Duration::ZERO,
            Self::Overdue { .. } => OVERDUE,
            Self::Sending { .. } => SENDING,
            Self::Stopping => PARTING,
        }
    }

    const fn doing(&self) -> &'static str {
        match self {
            Self::Connecting { .. } => "connecting",
            Self::Encoding { .. } => "encoding",
            Self::Hung(feed::Stuck::Device) => "in its device's driver",
            Self::Hung(feed::Stuck::Encoder) => "in its encoder",
            Self::Overdue { .. } => "before a session that is overdue",
            Self::Sending { .. } => "on air with nothing sent",
            Self::Stopping => "parting from its server",
        }
    }
}

/// The judge: remembers when each part moved last.
#[derive(Debug)]
pub struct Judge {
    encoding: Duration,
    seen: BTreeMap<Part, (Mark, Instant)>,
    /// Processes in a row that ended because they were stuck.
    ended: u32,
    first: Option<Instant>,
    last: Option<Instant>,
}

impl Judge {
    /// A judge of feeds whose stages have the times of `budget`, who has seen nothing.
    pub fn new(budget: &feed::Budget) -> Self {
        Self {
            encoding: budget.encoded(),
            seen: BTreeMap::new(),
            ended: 0,
            first: None,
            last: None,
        }
    }

    /// Before it `n` processes in a row ended because they were stuck: as much longer a device may hang now.
    pub fn after_ends(mut self, n: u32) -> Self {
        self.ended = n;
        self
    }

    /// Looks at everything at `now` and judges. To be called every [`LOOK_EVERY`].
    pub fn look(&mut self, now: Instant, overview: &Overview) -> Health {
        let slept = self
            .last
            .replace(now)
            .is_some_and(|last| now.saturating_duration_since(last) >= SUSPENDED);
        let first = *self.first.get_or_insert(now);
        let young = now.saturating_duration_since(first) < device_after(self.ended);
        let mut seen = BTreeMap::new();
        let mut stuck = Vec::new();
        for (part, mark) in marks(now, overview) {
            if young && mark == Mark::Hung(feed::Stuck::Device) {
                continue;
            }
            let before = self
                .seen
                .remove(&part)
                .filter(|(m, _)| !slept && *m == mark);
            let since = before.map_or(now, |(_, since)| since);
            if now.saturating_duration_since(since) >= mark.patience(self.encoding) {
                stuck.push(Stuck {
                    part: part.clone(),
                    doing: mark.doing(),
                    since,
                });
            }
            seen.insert(part, (mark, since));
        }
        self.seen = seen;
        Health { at: now, stuck }
    }

    /// Forgets what it saw of `part`, which begins anew.
    pub fn forget(&mut self, part: &Part) {
        self.seen.remove(part);
    }
}

/// How old a process must be before a device that hangs ends it, after `ends` of them in a row.
fn device_after(ends: u32) -> Duration {
    DEVICE_AFTER
        .saturating_mul(2_u32.saturating_pow(ends))
        .min(DEVICE_AFTER_MAX)
}

/// A mark for each part that has to move.
fn marks(now: Instant, overview: &Overview) -> Vec<(Part, Mark)> {
    let publishers = overview.publishers.iter().filter_map(|(name, publisher)| {
        Some((
            Part::Publisher(name.clone()),
            publisher_mark(now, publisher)?,
        ))
    });
    let feeds = overview.feeds.iter().flat_map(|(name, feed)| {
        let mark = |track: &Option<feed::TrackStatus>| {
            let track = track.as_ref()?;
            let wanted = feed.fanout.subscriptions > 0;
            let encoding = wanted.then_some(Mark::Encoding {
                units: track.ledger.units,
            });
            // A device that nobody wants the picture of is no reason to end what others are on air with.
            let hung = (track.stuck).filter(|stuck| wanted || *stuck != feed::Stuck::Device);
            hung.map(Mark::Hung).or(encoding)
        };
        let video = mark(&feed.video).map(|mark| (Part::Video(name.clone()), mark));
        let audio = mark(&feed.audio).map(|mark| (Part::Audio(name.clone()), mark));
        video.into_iter().chain(audio)
    });
    publishers.chain(feeds).collect()
}

fn publisher_mark(now: Instant, publisher: &Snapshot) -> Option<Mark> {
    let session = &publisher.session;
    match &publisher.state {
        State::Connecting { .. } => Some(Mark::Connecting {
            session: publisher.sessions,
            step: match session.progress {
                Progress::Signalling => 0,
                Progress::Connecting => 1,
                Progress::Sending => 2,
                Progress::OnAir { .. } => 3,
            },
        }),
        State::OnAir { .. } => Some(Mark::Sending {
            frames: publisher.frames_sent(),
            packets: session.peer.as_ref().map_or(0, |peer| peer.packets),
        }),
        State::OffAir(_) | State::Stopped => None,
        State::Stopping => Some(Mark::Stopping),
        State::Waiting { due, .. } => (*due < now).then_some(Mark::Overdue { due: *due }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feed::{FanoutStatus, Ledger, Status, TrackStatus};
    use crate::publisher::Verdict;
    use crate::session::Telemetry;
    use crate::signal::Dialect;

    const S: Duration = Duration::from_secs(1);

    fn publisher(state: State) -> Snapshot {
        Snapshot {
            state,
            dialect: Dialect::Ome,
            session: Telemetry::default(),
            sessions: 1,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: None,
            recoveries: crate::publisher::Recoveries::new(),
            platform: None,
        }
    }

    fn feed(subscriptions: usize, units: u64) -> Status {
        Status {
            video: Some(TrackStatus {
                ledger: Ledger {
                    units,
                    ..Ledger::default()
                },
                ..TrackStatus::default()
            }),
            fanout: FanoutStatus {
                subscriptions,
                ..FanoutStatus::default()
            },
            ..Status::default()
        }
    }

    fn waiting(due: Instant) -> State {
        State::Waiting {
            due,
            cause: "the server is down".to_owned(),
            verdict: Verdict::Backoff,
            unreachable: true,
        }
    }

    fn on_air(since: Instant) -> State {
        State::OnAir {
            since,
            confirmed: true,
        }
    }

    /// Looks once a second for `n` seconds at what `world` shows; how long it took until somebody was stuck.
    fn first_stuck(n: u32, world: impl Fn(u32) -> Overview) -> Option<(u32, Stuck)> {
        let t0 = Instant::now();
        let mut judge = Judge::new(&feed::Budget::default());
        (0..n).find_map(|second| {
            let health = judge.look(t0 + S * second, &world(second));
            Some((second, health.stuck.first()?.clone()))
        })
    }

    fn only(publisher: Snapshot) -> Overview {
        Overview {
            publishers: [("main".to_owned(), publisher)].into(),
            ..Overview::default()
        }
    }

    #[test]
    fn a_server_that_stays_down_makes_nobody_stuck() {
        let t0 = Instant::now();
        // Fifteen seconds of waiting, five of failing, for a day.
        let stuck = first_stuck(86_400, |second| {
            let (round, phase) = (second / 20, second % 20);
            let mut down = publisher(State::Connecting { attempt: round });
            down.sessions = u64::from(round);
            if phase < 15 {
                down.state = waiting(t0 + S * (round * 20 + 15));
            }
            only(down)
        });
        assert_eq!(stuck, None);
    }

    #[test]
    fn a_wait_of_any_length_is_no_standstill_until_it_is_over() {
        let due = Instant::now() + S * 50_000;
        let (second, stuck) = first_stuck(60_000, |_| only(publisher(waiting(due)))).unwrap();
        assert!((50_010..50_020).contains(&second), "{second}");
        assert_eq!(stuck.doing, "before a session that is overdue");
    }

    #[test]
    fn a_session_that_comes_no_further_is_stuck_after_the_budget_of_a_step() {
        let connecting = |second: u32| {
            let mut snapshot = publisher(State::Connecting { attempt: 1 });
            snapshot.session.progress = if second < 200 {
                Progress::Signalling
            } else {
                Progress::Connecting
            };
            only(snapshot)
        };
        let (second, stuck) = first_stuck(1_000, connecting).unwrap();
        assert_eq!(second, 800);
        assert_eq!(stuck.part, Part::Publisher("main".to_owned()));
        assert_eq!(stuck.doing, "connecting");
    }

    #[test]
    fn on_air_means_that_something_is_sent() {
        let t0 = Instant::now();
        let sends = |until: u32| {
            move |second: u32| {
                let mut snapshot = publisher(on_air(t0));
                snapshot.session.frames_sent = u64::from(second.min(until)) * 30;
                only(snapshot)
            }
        };
        assert_eq!(first_stuck(3_600, sends(u32::MAX)), None);
        let (second, stuck) = first_stuck(3_600, sends(100)).unwrap();
        assert_eq!(second, 190);
        assert_eq!(stuck.doing, "on air with nothing sent");
    }

    #[test]
    fn sound_alone_keeps_a_publisher_well() {
        let t0 = Instant::now();
        let sound = |second: u32| {
            let mut snapshot = publisher(on_air(t0));
            snapshot.session.peer = Some(crate::peer::Counters {
                packets: u64::from(second) * 50,
                ..crate::peer::Counters::default()
            });
            only(snapshot)
        };
        assert_eq!(first_stuck(3_600, sound), None);
    }

    #[test]
    fn a_feed_that_is_wanted_and_encodes_nothing_is_stuck() {
        let feeds = |subscriptions: usize, until: u32| {
            move |second: u32| Overview {
                feeds: [(
                    "front".to_owned(),
                    feed(subscriptions, second.min(until).into()),
                )]
                .into(),
                ..Overview::default()
            }
        };
        assert_eq!(
            first_stuck(3_600, feeds(0, 10)),
            None,
            "nobody wants anything"
        );
        assert_eq!(first_stuck(3_600, feeds(1, u32::MAX)), None);
        let (second, stuck) = first_stuck(3_600, feeds(1, 10)).unwrap();
        // Ten, and then all stages from the device to the encoder.
        assert_eq!(second, 24);
        assert_eq!(stuck.part, Part::Video("front".to_owned()));
    }

    #[test]
    fn a_device_that_hangs_in_its_driver_ends_no_young_process() {
        let hung = |what: feed::Stuck, from: u32| {
            move |second: u32| {
                let mut status = feed(1, second.into());
                let video = status.video.as_mut().unwrap();
                video.stuck = (second >= from).then_some(what);
                Overview {
                    feeds: [("front".to_owned(), status)].into(),
                    ..Overview::default()
                }
            }
        };
        let device = feed::Stuck::Device;
        for (from, expected) in [(5, 600), (900, 900)] {
            let (second, stuck) = first_stuck(3_600, hung(device, from)).unwrap();
            assert_eq!(second, expected);
            assert_eq!(stuck.doing, "in its device's driver");
        }
        let (second, _) = first_stuck(3_600, hung(feed::Stuck::Encoder, 5)).unwrap();
        assert_eq!(second, 5);
    }

    #[test]
    fn a_device_that_a_new_process_does_not_free_ends_ever_fewer_and_one_that_nobody_wants_none() {
        let t0 = Instant::now();
        let hung = |subscriptions| {
            let mut status = feed(subscriptions, 7);
            status.video.as_mut().unwrap().stuck = Some(feed::Stuck::Device);
            Overview {
                feeds: [("front".to_owned(), status)].into(),
                ..Overview::default()
            }
        };
        let age_at_end = |ends| {
            let mut judge = Judge::new(&feed::Budget::default()).after_ends(ends);
            let second = (0..).find(|second| {
                let health = judge.look(t0 + S * *second, &hung(1));
                health
                    .stuck
                    .iter()
                    .any(|s| s.doing == "in its device's driver")
            });
            second.unwrap()
        };
        for (ends, expected) in [(0, 600), (1, 1_200), (3, 4_800), (30, 86_400)] {
            assert_eq!(age_at_end(ends), expected, "{ends}");
        }
        assert_eq!(first_stuck(3_600, |_| hung(0)), None);
    }

    #[test]
    fn parting_has_an_end_and_having_stopped_is_no_fault() {
        let (second, _) = first_stuck(100, |_| only(publisher(State::Stopping))).unwrap();
        assert_eq!(second, 30);
        assert_eq!(
            first_stuck(10_000, |_| only(publisher(State::Stopped))),
            None
        );
    }

    #[test]
    fn a_machine_that_slept_blames_nobody_for_the_night() {
        let t0 = Instant::now();
        let mut judge = Judge::new(&feed::Budget::default());
        let overview = only(publisher(on_air(t0)));
        assert!(judge.look(t0, &overview).is_good(t0));
        let morning = t0 + S * 30_000;
        assert!(judge.look(morning, &overview).is_good(morning));
        let mut later = morning;
        let last = loop {
            later += S;
            let health = judge.look(later, &overview);
            if !health.stuck.is_empty() {
                break health;
            }
        };
        assert_eq!(later, morning + S * 90);
        assert_eq!(
            last.words(later),
            "publisher main is stuck on air with nothing sent for 90 s"
        );
    }

    #[test]
    fn an_old_judgement_is_no_good_one() {
        let t0 = Instant::now();
        let health = Judge::new(&feed::Budget::default()).look(t0, &Overview::default());
        assert!(health.is_good(t0 + S * 9));
        assert_eq!(health.words(t0 + S * 9), "healthy");
        assert!(!health.is_good(t0 + S * 10));
        assert!(health.words(t0 + S * 10).contains("the process hangs"));
    }
}
