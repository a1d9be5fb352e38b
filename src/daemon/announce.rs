//! What is said to the service manager, and when. Pure: told the time.
//!
//! - *READY* with the first media that a server accepts, or once all publishers are off air on purpose, for then there
//!   is nothing to wait for; at the latest after [`READY_WITHIN`], for a start that waits
//!   holds up the whole boot and every `systemctl start`, and a server that is down is nothing a restart mends.
//!   Until then a bounded recovery extends the start's time-out, so that a short `TimeoutStartSec=` does not kill it.
//! - *WATCHDOG* four times per interval while the judgement is good, and never otherwise.
//! - *STATUS* in plain words, when it changes.

use std::time::{Duration, Instant};

use super::notify::Word;
use crate::feed::{self, LimitedBy, SourceState};
use crate::health::Health;
use crate::publisher::{Snapshot, State};
use crate::supervisor::{DRAIN_WITHIN, Overview};

/// Longest time that a start may stay unfinished.
pub const READY_WITHIN: Duration = Duration::from_secs(60);

/// By how much an unfinished start is extended at each look.
const EXTENSION: Duration = Duration::from_secs(15);

/// What the end may take beside the drain, until the process is gone: the last words of the flight recorder, and of the
/// status server to its visitors.
const EXIT_WITHIN: Duration = Duration::from_secs(5);

/// Longest status, in characters: the manager shows it in one line.
const STATUS_MAX: usize = 400;

/// Decides what is said.
#[derive(Debug)]
pub(super) struct Announcer {
    began: Instant,
    watchdog: Option<Duration>,
    ready: bool,
    stopping: bool,
    petted: Option<Instant>,
    status: String,
    /// What is wrong with the configuration file.
    note: Option<String>,
}

impl Announcer {
    /// An announcer of a process that begins `now`; the manager wants to hear from it every `watchdog`.
    pub(super) const fn new(now: Instant, watchdog: Option<Duration>) -> Self {
        Self {
            began: now,
            watchdog,
            ready: false,
            stopping: false,
            petted: None,
            status: String::new(),
            note: None,
        }
    }

    /// Everything was looked at.
    pub(super) fn look(&mut self, now: Instant, overview: &Overview, health: &Health) -> Vec<Word> {
        let mut words = Vec::new();
        let good = health.is_good(now);
        if !self.ready && !self.stopping {
            let waited = now.saturating_duration_since(self.began) >= READY_WITHIN;
            let mut publishers = overview.publishers.values();
            let closed = |publisher: &Snapshot| matches!(publisher.state, State::OffAir(_));
            if waited || publishers.clone().any(Snapshot::is_on_air) || publishers.all(closed) {
                self.ready = true;
                words.push(Word::Ready);
            } else if good {
                words.push(Word::ExtendTimeout(EXTENSION));
            }
        }
        let due = |every: Duration| {
            let last = self.petted;
            last.is_none_or(|last| now.saturating_duration_since(last) >= every / 4)
        };
        if good && self.watchdog.is_some_and(due) {
            self.petted = Some(now);
            words.push(Word::Watchdog);
        }
        let status = self.status(now, overview, health);
        if status != self.status && !self.stopping {
            words.push(Word::Status(status.clone()));
            self.status = status;
        }
        words
    }

    /// The configuration is about to be read again. A manager that waits for the start must not take the word that
    /// ends the reload for the one that it waits for.
    pub(super) fn reloading(&self) -> Vec<Word> {
        match self.ready {
            true => vec![Word::Reloading],
            false => Vec::new(),
        }
    }

    /// It was read; `note` says what is wrong with it, if anything.
    pub(super) fn reloaded(&mut self, note: Option<String>) -> Vec<Word> {
        self.note = note;
        match self.ready {
            true => vec![Word::Ready],
            false => Vec::new(),
        }
    }

    /// The end has begun, for the reason `why`.
    pub(super) fn stopping(&mut self, why: &str) -> Vec<Word> {
        self.stopping = true;
        vec![
            Word::Stopping,
            Word::ExtendTimeout(DRAIN_WITHIN + EXIT_WITHIN),
            Word::Status(shortened(why.to_owned())),
        ]
    }

    fn status(&self, now: Instant, overview: &Overview, health: &Health) -> String {
        let mut said: Vec<String> = Vec::new();
        // Without its seconds: the status is told when it changes.
        let stuck = health.stuck.iter();
        said.extend(stuck.map(|stuck| format!("{} is stuck {}", stuck.part, stuck.doing)));
        said.extend(self.note.clone());
        said.extend(overview.unwritten.clone());
        let publishers = overview.publishers.iter();
        said.extend(publishers.map(|(name, publisher)| format!("{name} {}", place(publisher))));
        for (name, feed) in &overview.feeds {
            let troubles = troubles(feed);
            if !troubles.is_empty() {
                said.push(format!("feed {name}: {}", troubles.join(", ")));
            }
        }
        if said.is_empty() {
            said.push(health.words(now));
        }
        shortened(said.join("; "))
    }
}

/// What is wrong with a feed.
fn troubles(feed: &feed::Status) -> Vec<String> {
    let mut troubles = Vec::new();
    for (what, track) in [("picture", &feed.video), ("sound", &feed.audio)] {
        let Some(track) = track else {
            continue;
        };
        if let SourceState::Slate { reason, .. } = &track.state {
            troubles.push(format!("no {what} ({reason})"));
        }
        let conditions = track.conditions.keys();
        troubles.extend(conditions.map(|condition| format!("{condition} {what}")));
    }
    let short = feed.limited_by.and_then(|by| match by {
        LimitedBy::Cpu => Some("limited by a slow processor"),
        // Everyday, and it comes and goes by the second.
        LimitedBy::Network => None,
        LimitedBy::Thermal => Some("limited by heat"),
        LimitedBy::Undervoltage => Some("limited by a low supply voltage"),
    });
    troubles.extend(short.map(str::to_owned));
    troubles
}

/// Where a publisher stands, without anything that changes by the second.
fn place(publisher: &Snapshot) -> String {
    match &publisher.state {
        // A wait and the attempt after it are one thing to whoever reads this: they may take turns every second.
        State::Connecting { .. } => match &publisher.end_reason {
            Some(cause) => format!("is off air and tries on ({cause})"),
            None => "is connecting".to_owned(),
        },
        State::OnAir {
            confirmed: true, ..
        } => "is on air".to_owned(),
        State::OnAir {
            confirmed: false, ..
        } => "is on air, as far as its transport can tell".to_owned(),
        State::OffAir(off) => format!("is off air: {off}"),
        State::Stopped => "is off".to_owned(),
        State::Stopping => "is parting".to_owned(),
        State::Waiting { cause, .. } => format!("is off air and tries on ({cause})"),
    }
}

fn shortened(text: String) -> String {
    match text.char_indices().nth(STATUS_MAX) {
        Some((at, _)) => format!("{}...", &text[..at]),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::{Part, Stuck};
    use crate::publisher::Verdict;
    use crate::session::Telemetry;
    use crate::signal::Dialect;

    const S: Duration = Duration::from_secs(1);

    fn world(state: State, end_reason: Option<&str>) -> Overview {
        let main = Snapshot {
            state,
            dialect: Dialect::Ome,
            session: Telemetry::default(),
            sessions: 1,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: end_reason.map(str::to_owned),
            recoveries: crate::publisher::Recoveries::new(),
            platform: None,
        };
        Overview {
            publishers: [("main".to_owned(), main)].into(),
            ..Overview::default()
        }
    }

    fn down(now: Instant) -> Overview {
        let waiting = State::Waiting {
            due: now,
            cause: "no answer".to_owned(),
            verdict: Verdict::RetryNow,
            unreachable: true,
        };
        world(waiting, Some("no answer"))
    }

    fn on_air(since: Instant) -> Overview {
        let confirmed = true;
        world(State::OnAir { since, confirmed }, None)
    }

    fn good(at: Instant) -> Health {
        let stuck = Vec::new();
        Health { at, stuck }
    }

    fn bad(at: Instant) -> Health {
        let stuck = vec![Stuck {
            part: Part::Publisher("main".to_owned()),
            doing: "connecting",
            since: at,
        }];
        Health { at, stuck }
    }

    #[test]
    fn a_start_is_over_with_the_first_accepted_media_and_only_once() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, None);
        let connecting = world(State::Connecting { attempt: 1 }, None);
        assert_eq!(
            announcer.look(t0, &connecting, &good(t0)),
            [
                Word::ExtendTimeout(EXTENSION),
                Word::Status("main is connecting".to_owned())
            ]
        );
        assert_eq!(
            announcer.look(t0 + S, &connecting, &good(t0 + S)),
            [Word::ExtendTimeout(EXTENSION)]
        );
        let later = t0 + S * 2;
        assert_eq!(
            announcer.look(later, &on_air(later), &good(later)),
            [Word::Ready, Word::Status("main is on air".to_owned())]
        );
        assert_eq!(
            announcer.look(later + S, &on_air(later), &good(later + S)),
            []
        );
    }

    #[test]
    fn a_start_outside_the_hours_waits_for_nothing() {
        use crate::account::{Off, Why};

        let t0 = Instant::now();
        let off = || {
            State::OffAir(Off {
                why: Why::Schedule,
                until: None,
            })
        };
        let mut overview = world(off(), None);
        let ready = |overview: &Overview| {
            let mut announcer = Announcer::new(t0, None);
            let words = announcer.look(t0, overview, &good(t0));
            words.contains(&Word::Ready)
        };
        assert!(ready(&overview));
        // Another is to be on air, and is not yet.
        let other = world(State::Connecting { attempt: 1 }, None);
        let other = other.publishers.into_values().next().unwrap();
        overview.publishers.insert("other".to_owned(), other);
        assert!(!ready(&overview));
    }

    #[test]
    fn a_server_that_is_down_holds_up_no_boot() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, None);
        let mut statuses = Vec::new();
        for second in 0..=60 {
            let now = t0 + S * second;
            // Waits and attempts take turns.
            let overview = match second % 2 {
                0 => down(now),
                _ => world(State::Connecting { attempt: second }, Some("no answer")),
            };
            let words = announcer.look(now, &overview, &good(now));
            assert_eq!(words.contains(&Word::Ready), second == 60, "{second}");
            assert_eq!(words.contains(&Word::ExtendTimeout(EXTENSION)), second < 60);
            statuses.extend(words.into_iter().filter(|w| matches!(w, Word::Status(_))));
        }
        let said = "main is off air and tries on (no answer)".to_owned();
        assert_eq!(statuses, [Word::Status(said)], "said once");
    }

    #[test]
    fn the_watchdog_hears_four_times_per_interval_and_only_while_all_is_well() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, Some(S * 20));
        let overview = on_air(t0);
        let mut heard = Vec::new();
        for second in 0..30 {
            let now = t0 + S * second;
            let health = if second < 20 { good(now) } else { bad(now) };
            let words = announcer.look(now, &overview, &health);
            heard.extend(words.contains(&Word::Watchdog).then_some(second));
        }
        assert_eq!(heard, [0, 5, 10, 15]);
        let now = t0 + S * 31;
        let late = announcer.look(now, &overview, &good(t0 + S * 20));
        assert!(!late.contains(&Word::Watchdog), "an old judgement");
        let words = announcer.look(now, &overview, &good(now));
        assert!(words.contains(&Word::Watchdog), "well again");
    }

    #[test]
    fn a_reload_before_the_start_is_over_does_not_end_the_start() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, None);
        announcer.look(t0, &down(t0), &good(t0));
        assert_eq!(announcer.reloading(), []);
        assert_eq!(announcer.reloaded(None), []);
        announcer.look(t0, &on_air(t0), &good(t0));
        assert_eq!(announcer.reloading(), [Word::Reloading]);
        let note = "the file has 2 faults".to_owned();
        assert_eq!(announcer.reloaded(Some(note)), [Word::Ready]);
        assert_eq!(
            announcer.look(t0 + S, &on_air(t0), &good(t0 + S)),
            [Word::Status(
                "the file has 2 faults; main is on air".to_owned()
            )]
        );
        assert_eq!(announcer.reloaded(None), [Word::Ready]);
        assert_eq!(
            announcer.look(t0 + S, &on_air(t0), &good(t0 + S)),
            [Word::Status("main is on air".to_owned())]
        );
    }

    #[test]
    fn the_end_is_said_with_the_time_it_takes() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, Some(S * 20));
        let words = announcer.stopping("asked to stop");
        assert_eq!(words[0], Word::Stopping);
        assert_eq!(words[1], Word::ExtendTimeout(DRAIN_WITHIN + EXIT_WITHIN));
        let words = announcer.look(t0, &on_air(t0), &good(t0));
        assert_eq!(words, [Word::Watchdog], "neither ready nor another status");
    }

    #[test]
    fn a_status_is_short_and_says_what_is_stuck_first() {
        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, None);
        let overview = world(
            State::Connecting { attempt: 2 },
            Some(&"\u{e4}".repeat(1_000)),
        );
        let words = announcer.look(t0, &overview, &bad(t0));
        let [Word::Status(said)] = words.as_slice() else {
            panic!("{words:?}");
        };
        assert!(said.starts_with("publisher main is stuck connecting; main is off air"));
        assert_eq!(said.chars().count(), STATUS_MAX + 3);
    }

    #[test]
    fn what_is_wrong_with_a_feed_is_said_beside_where_its_publishers_stand() {
        use crate::feed::{Condition, Status, TrackStatus};
        use crate::media::time::MediaTime;

        let t0 = Instant::now();
        let mut announcer = Announcer::new(t0, None);
        let mut overview = on_air(t0);
        let away = SourceState::Slate {
            since: MediaTime::new(S),
            reason: "the device is gone".to_owned(),
        };
        let front = Status {
            video: Some(TrackStatus {
                state: away,
                ..TrackStatus::default()
            }),
            audio: Some(TrackStatus {
                conditions: [(Condition::Silent, MediaTime::new(S))].into(),
                ..TrackStatus::default()
            }),
            limited_by: Some(LimitedBy::Thermal),
            ..Status::default()
        };
        overview.feeds.insert("front".to_owned(), front);
        overview.feeds.insert("rear".to_owned(), Status::default());
        let words = announcer.look(t0, &overview, &good(t0));
        let said = "main is on air; feed front: no picture (the device is gone), silent sound, limited by heat";
        assert_eq!(words[1], Word::Status(said.to_owned()));
    }
}
