//! What only those know who have looked for a while: totals over all sessions, rates, the last five minutes, and the
//! last things that went wrong. Told the time, once a second.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::counts::{Counts, N};
use crate::feed::{SourceState, TrackStatus};
use crate::publisher::{Snapshot, State};
use crate::supervisor::Overview;

/// How often it is to be told.
pub(super) const EVERY: Duration = Duration::from_secs(1);
/// Points kept: five minutes.
const POINTS: usize = 300;
/// Troubles kept.
const TROUBLES: usize = 50;
/// Longest text of a trouble, in characters.
const WORDS: usize = 400;

/// One publisher in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Point {
    /// Media was accepted.
    pub(super) on_air: bool,
    /// Pictures sent per second.
    pub(super) fps: f64,
    /// RTP payload sent, in bits per second.
    pub(super) bitrate_bps: f64,
    /// RTP packets sent again, per second.
    pub(super) resent: f64,
    /// Latest round-trip time, in milliseconds.
    pub(super) round_trip_ms: Option<f64>,
}

/// Something that went wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Trouble {
    /// With whom, such as `publisher main`.
    pub(super) who: String,
    /// What it was.
    pub(super) what: String,
    /// How often in a row.
    pub(super) times: u64,
    /// When last.
    pub(super) at: Instant,
}

/// One publisher so far.
#[derive(Clone, Debug, Default)]
pub(super) struct Past {
    pub(super) counts: Counts,
    /// Time on air in all sessions.
    pub(super) on_air: Duration,
    /// The last second.
    pub(super) latest: Point,
    /// Sessions ended, as far as was told.
    ended: u64,
}

impl Past {
    /// Another publisher of this name begins; `last` is what the one before came to.
    fn begin_anew(&mut self, last: &Snapshot) {
        self.counts.look(last);
        self.counts.begin_anew();
        self.ended = 0;
    }
}

/// Everything that was seen.
#[derive(Debug, Default)]
pub(super) struct History {
    pub(super) publishers: BTreeMap<String, Past>,
    points: VecDeque<BTreeMap<String, Point>>,
    /// Points that were ever taken.
    taken: u64,
    troubles: VecDeque<Trouble>,
    last: Option<Instant>,
    /// Tracks that show a slate, and why.
    slates: BTreeMap<String, String>,
}

/// Points as they are sent.
#[derive(Debug, Serialize)]
pub(super) struct Points<'a> {
    /// Number of the first point in the list, from 0 at the start of the process.
    from: u64,
    /// Seconds from one to the next.
    every_s: u64,
    points: Vec<&'a BTreeMap<String, Point>>,
}

impl History {
    /// Takes note that another publisher called `name` began; `last` is what the one before came to.
    pub(super) fn replaced(&mut self, name: &str, last: &Snapshot) {
        if let Some(past) = self.publishers.get_mut(name) {
            past.begin_anew(last);
        }
    }

    /// Takes note of `overview` as it is at `now`.
    pub(super) fn note(&mut self, now: Instant, overview: &Overview) {
        let passed = self
            .last
            .replace(now)
            .map_or(EVERY, |last| now.saturating_duration_since(last));
        self.publishers
            .retain(|name, _| overview.publishers.contains_key(name));
        let mut points = BTreeMap::new();
        for (name, snapshot) in &overview.publishers {
            let past = self.publishers.entry(name.clone()).or_default();
            past.look(passed, snapshot);
            points.insert(name.clone(), past.latest);
            let ended = past.newly_ended(snapshot);
            // What was told to end is no trouble.
            let told = matches!(
                snapshot.state,
                State::OffAir(_) | State::Stopped | State::Stopping
            );
            if ended > 0
                && !told
                && let Some(why) = &snapshot.end_reason
            {
                self.trouble(now, format!("publisher {name}"), why, ended);
            }
        }
        self.points.push_back(points);
        self.taken += 1;
        if self.points.len() > POINTS {
            self.points.pop_front();
        }
        self.note_slates(now, overview);
    }

    fn note_slates(&mut self, now: Instant, overview: &Overview) {
        let tracks = overview.feeds.iter().flat_map(|(name, feed)| {
            [("picture", &feed.video), ("sound", &feed.audio)]
                .map(|(track, status)| (format!("{track} of feed {name}"), status))
        });
        let slates: BTreeMap<String, String> = tracks
            .filter_map(|(who, status)| Some((who, slate(status.as_ref()?)?.to_owned())))
            .collect();
        let before = std::mem::replace(&mut self.slates, slates.clone());
        for (who, why) in slates {
            if before.get(&who) != Some(&why) {
                self.trouble(now, who, &why, 1);
            }
        }
    }

    fn trouble(&mut self, at: Instant, who: String, what: &str, times: u64) {
        let what: String = what.chars().take(WORDS).collect();
        let same = self.troubles.iter().position(|t| t.who == who);
        if let Some(n) = same
            && self.troubles[n].what == what
            && let Some(mut again) = self.troubles.remove(n)
        {
            again.times = again.times.saturating_add(times);
            again.at = at;
            self.troubles.push_front(again);
            return;
        }
        self.troubles.push_front(Trouble {
            who,
            what,
            times,
            at,
        });
        self.troubles.truncate(TROUBLES);
    }

    /// What went wrong, the latest first.
    pub(super) fn troubles(&self) -> impl Iterator<Item = &Trouble> {
        self.troubles.iter()
    }

    /// The points from number `from` on, as far as they are kept.
    pub(super) fn points(&self, from: u64) -> Points<'_> {
        let oldest = self.taken - self.points.len() as u64;
        let from = from.clamp(oldest, self.taken);
        let skipped = usize::try_from(from - oldest).unwrap_or(POINTS);
        Points {
            from,
            every_s: EVERY.as_secs(),
            points: self.points.iter().skip(skipped).collect(),
        }
    }
}

impl Past {
    fn look(&mut self, passed: Duration, snapshot: &Snapshot) {
        let more = self.counts.look(snapshot);
        let on_air = snapshot.is_on_air();
        if on_air {
            self.on_air += passed;
        }
        let per_second = |name: &str| match passed.as_secs_f64() {
            0.0 => 0.0,
            seconds => more_of(&more, name) as f64 / seconds,
        };
        let peer = snapshot.session.peer.as_ref();
        self.latest = Point {
            on_air,
            fps: per_second("frames_sent"),
            bitrate_bps: per_second("payload_sent_bytes") * 8.0,
            resent: per_second("packets_resent"),
            round_trip_ms: peer
                .and_then(|peer| peer.round_trip)
                .map(|trip| trip.as_secs_f64() * 1_000.0),
        };
    }

    /// Sessions that ended since the last time.
    fn newly_ended(&mut self, snapshot: &Snapshot) -> u64 {
        let running = matches!(
            snapshot.state,
            State::Connecting { .. } | State::OnAir { .. } | State::Stopping
        );
        let ended = snapshot.sessions.saturating_sub(u64::from(running));
        let more = ended.checked_sub(self.ended).unwrap_or(ended);
        self.ended = ended;
        more
    }
}

fn more_of(more: &[u64; N], name: &str) -> u64 {
    let counts = super::counts::COUNTS.iter().zip(more);
    counts
        .filter(|(count, _)| count.name == name)
        .map(|(_, more)| *more)
        .sum()
}

/// Why a track shows a slate, if it does.
fn slate(track: &TrackStatus) -> Option<&str> {
    match &track.state {
        SourceState::Slate { reason, .. } => Some(reason),
        SourceState::Live | SourceState::Opening => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::Counters;
    use crate::session::Telemetry;
    use crate::signal::Dialect;

    const S: Duration = Duration::from_secs(1);

    fn snapshot(state: State, sessions: u64) -> Snapshot {
        Snapshot {
            state,
            dialect: Dialect::Ome,
            session: Telemetry::default(),
            sessions,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: None,
            recoveries: crate::publisher::Recoveries::new(),
            platform: None,
        }
    }

    fn waiting(due: Instant) -> State {
        State::Waiting {
            due,
            cause: "down".to_owned(),
            verdict: crate::publisher::Verdict::Backoff,
            unreachable: false,
        }
    }

    fn only(publisher: Snapshot) -> Overview {
        Overview {
            publishers: [("main".to_owned(), publisher)].into(),
            ..Overview::default()
        }
    }

    fn sending(since: Instant, sessions: u64, bytes: u64) -> Overview {
        let mut on_air = snapshot(
            State::OnAir {
                since,
                confirmed: true,
            },
            sessions,
        );
        on_air.session.peer = Some(Counters {
            bytes,
            ..Counters::default()
        });
        only(on_air)
    }

    fn total(history: &History, name: &str) -> u64 {
        let mut totals = history.publishers["main"].counts.totals();
        let (_, total) = totals.find(|(count, _)| count.name == name).unwrap();
        total
    }

    fn bytes(history: &History) -> u64 {
        total(history, "payload_sent_bytes")
    }

    #[test]
    fn totals_go_on_where_a_session_begins_anew() {
        let t0 = Instant::now();
        let mut history = History::default();
        for (second, counted) in [(0, 100), (1, 250), (2, 40), (3, 90)] {
            history.note(t0 + S * second, &sending(t0, 1, counted));
        }
        assert_eq!(bytes(&history), 250 + 90);
        history.note(t0 + S * 4, &only(snapshot(State::Stopped, 1)));
        assert_eq!(bytes(&history), 340, "no connection counts nothing");
        history.note(t0 + S * 5, &sending(t0, 2, 60));
        assert_eq!(bytes(&history), 400);
        assert_eq!(history.publishers["main"].on_air, S * 5);
        assert_eq!(total(&history, "sessions"), 2);
    }

    #[test]
    fn another_publisher_of_the_same_name_adds_to_the_one_before() {
        let t0 = Instant::now();
        let mut history = History::default();
        history.note(t0, &sending(t0, 1, 100));
        let last = sending(t0, 1, 130);
        history.replaced("main", &last.publishers["main"]);
        // As much as the one before at once, so that nothing seems to have begun anew.
        history.note(t0 + S, &sending(t0, 1, 130));
        assert_eq!(bytes(&history), 130 + 130);
        assert_eq!(total(&history, "sessions"), 2);
        history.replaced("nobody", &last.publishers["main"]);
        assert_eq!(history.publishers.len(), 1);
    }

    #[test]
    fn what_was_told_to_end_is_no_trouble() {
        let t0 = Instant::now();
        let mut history = History::default();
        history.note(t0, &sending(t0, 1, 1));
        let mut stopped = snapshot(State::Stopped, 1);
        stopped.end_reason = Some("stopped".to_owned());
        history.note(t0 + S, &only(stopped));
        assert_eq!(history.troubles().count(), 0);
    }

    #[test]
    fn rates_are_per_second_whenever_one_looks() {
        let t0 = Instant::now();
        let mut history = History::default();
        history.note(t0, &sending(t0, 1, 0));
        history.note(t0 + S * 4, &sending(t0, 1, 4_000));
        let latest = history.publishers["main"].latest;
        assert!((latest.bitrate_bps - 8_000.0).abs() < 1e-6, "{latest:?}");
        history.note(t0 + S * 4, &sending(t0, 1, 4_000));
        assert!(history.publishers["main"].latest.bitrate_bps.abs() < 1e-6);
    }

    #[test]
    fn five_minutes_are_kept_and_sent_from_any_point_on() {
        let t0 = Instant::now();
        let mut history = History::default();
        assert_eq!(history.points(7).points.len(), 0);
        for second in 0..1_000 {
            history.note(t0 + S * second, &only(snapshot(State::Stopped, 0)));
        }
        for (asked, first, n) in [
            (0, 700, 300),
            (998, 998, 2),
            (1_000, 1_000, 0),
            (u64::MAX, 1_000, 0),
        ] {
            let points = history.points(asked);
            assert_eq!((points.from, points.points.len()), (first, n));
        }
        history.note(t0 + S * 1_000, &Overview::default());
        assert!(history.publishers.is_empty(), "what is gone is forgotten");
    }

    #[test]
    fn each_failure_is_told_once_and_the_same_one_again_is_counted() {
        let t0 = Instant::now();
        let mut history = History::default();
        let failed = |sessions, running, why: &str| {
            let mut failed = match running {
                true => snapshot(State::Connecting { attempt: 1 }, sessions),
                false => snapshot(waiting(t0), sessions),
            };
            failed.end_reason = Some(why.to_owned());
            only(failed)
        };
        for (second, overview) in [
            failed(1, false, "down"),
            failed(1, false, "down"),
            failed(2, true, "down"),
            // Two more, both unseen.
            failed(4, true, "down"),
            failed(4, false, "refused"),
        ]
        .iter()
        .enumerate()
        {
            history.note(t0 + S * second as u32, overview);
        }
        let told: Vec<_> = history
            .troubles()
            .map(|t| (t.what.as_str(), t.times))
            .collect();
        assert_eq!(told, [("refused", 1), ("down", 3)]);
        for n in 0..200 {
            history.trouble(t0, format!("publisher {n}"), &"x".repeat(10_000), 1);
        }
        assert_eq!(history.troubles().count(), TROUBLES);
        assert!(history.troubles().all(|t| t.what.len() <= WORDS));
    }
}
