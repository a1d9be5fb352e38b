//! What is recorded of feeds and publishers: each change of a state, and the counts once a second. Pure.
//!
//! Only what has changed is recorded, so that a night off air takes no space; a count that is not there is zero.
//! Names of keys are the field's words; times are in milliseconds, sizes in bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};

use crate::feed::{self, Condition, LimitedBy, SourceState, Stuck, TrackStatus, VideoTrack};
use crate::peer::{Counters, ReceiverReport};
use crate::process;
use crate::publisher::{Snapshot, State, Verdict};
use crate::supervisor::Overview;

/// What was recorded last.
#[derive(Debug, Default)]
pub(super) struct Account {
    publishers: BTreeMap<String, Standing>,
    feeds: BTreeMap<String, (Option<Limit>, BTreeMap<&'static str, Source>)>,
    stats: BTreeMap<(&'static str, String), Value>,
}

/// Where a publisher stood.
#[derive(Debug, PartialEq, Eq)]
struct Standing {
    state: State,
    sessions: u64,
    end_reason: Option<String>,
    platform: Option<Value>,
}

/// What was left of a feed's picture, and why.
type Limit = (LimitedBy, Option<VideoTrack>);

/// What a feed's source was doing.
#[derive(Debug, PartialEq, Eq)]
struct Source {
    state: SourceState,
    conditions: BTreeSet<Condition>,
    stuck: Option<Stuck>,
    negotiated: Option<String>,
    opened: u64,
    left_behind: u64,
}

/// One thing to record: its kind, and what there is to say.
pub(super) type Entry = (&'static str, Map<String, Value>);

impl Account {
    /// The states that have changed since the last call.
    pub(super) fn states(&mut self, now: Instant, overview: &Overview) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (name, snapshot) in &overview.publishers {
            let standing = Standing {
                state: snapshot.state.clone(),
                sessions: snapshot.sessions,
                end_reason: snapshot.end_reason.clone(),
                platform: platform(snapshot),
            };
            if self.publishers.get(name) != Some(&standing) {
                self.publishers.insert(name.clone(), standing);
                entries.push(entry("state", "publisher", name, publisher(now, snapshot)));
            }
        }
        for (name, status) in &overview.feeds {
            let (limit, known) = self.feeds.entry(name.clone()).or_default();
            let limit_now = status.limited_by.map(|by| (by, status.target));
            if *limit != limit_now {
                *limit = limit_now;
                entries.push(entry("state", "feed", name, limited(status)));
            }
            for (track, status) in tracks(status) {
                let source = Source {
                    state: status.state.clone(),
                    conditions: status.conditions.keys().copied().collect(),
                    stuck: status.stuck,
                    negotiated: status.negotiated.clone(),
                    opened: status.opened,
                    left_behind: status.left_behind,
                };
                if known.get(track) != Some(&source) {
                    known.insert(track, source);
                    let mut said = source_state(status);
                    said.insert("track".to_owned(), track.into());
                    entries.push(entry("state", "feed", name, said));
                }
            }
        }
        let gone = || Map::from_iter([("state".to_owned(), "removed".into())]);
        self.publishers.retain(|name, _| {
            let runs = overview.publishers.contains_key(name);
            if !runs {
                entries.push(entry("state", "publisher", name, gone()));
            }
            runs
        });
        self.feeds.retain(|name, _| {
            let runs = overview.feeds.contains_key(name);
            if !runs {
                entries.push(entry("state", "feed", name, gone()));
            }
            runs
        });
        entries
    }

    /// The counts that have changed since the last call.
    pub(super) fn stats(&mut self, overview: &Overview) -> Vec<Entry> {
        let publishers = overview.publishers.iter();
        let publishers = publishers.map(|(name, snapshot)| ("publisher", name, counts(snapshot)));
        let feeds = overview.feeds.iter();
        let feeds = feeds.map(|(name, status)| ("feed", name, frames(status)));
        let mut entries = Vec::new();
        let mut latest = BTreeMap::new();
        for (whose, name, counts) in publishers.chain(feeds) {
            let key = (whose, name.clone());
            let counts = Value::Object(counts);
            if self.stats.get(&key) != Some(&counts) {
                let counts = counts.as_object().cloned().unwrap_or_default();
                entries.push(entry("stats", whose, name, counts));
            }
            latest.insert(key, counts);
        }
        self.stats = latest;
        entries
    }
}

/// What the process uses.
pub(super) fn usage(sample: process::Sample) -> Entry {
    let said = json!({
        "cpu_s": sample.cpu_s,
        "rss_bytes": sample.rss,
        "fds": sample.fds,
        "threads": sample.threads,
    });
    ("stats", Map::from_iter([("process".to_owned(), said)]))
}

fn entry(
    kind: &'static str,
    whose: &'static str,
    name: &str,
    mut said: Map<String, Value>,
) -> Entry {
    said.insert(whose.to_owned(), name.into());
    (kind, said)
}

/// The fields of a JSON object that is written out here, without those that say nothing.
fn fields(value: Value) -> Map<String, Value> {
    match value {
        Value::Object(mut fields) => {
            let says_nothing = [Value::Null, json!(0), json!([])];
            fields.retain(|_, value| !says_nothing.contains(value));
            fields
        }
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {
            Map::new()
        }
    }
}

fn publisher(now: Instant, snapshot: &Snapshot) -> Map<String, Value> {
    let state = match &snapshot.state {
        State::Connecting { attempt } => json!({ "state": "connecting", "attempt": attempt }),
        State::OnAir { since, confirmed } => json!({
            "state": "on_air",
            "confirmed": confirmed,
            "for_ms": ms(now.saturating_duration_since(*since)),
        }),
        State::OffAir(off) => json!({
            "state": "off_air",
            "cause": off.why.to_string(),
            "until": off.until(),
        }),
        State::Stopped => json!({ "state": "stopped" }),
        State::Stopping => json!({ "state": "stopping" }),
        State::Waiting {
            due,
            cause,
            verdict,
            unreachable,
        } => json!({
            "state": "waiting",
            "due_in_ms": ms(due.saturating_duration_since(now)),
            "cause": cause,
            "verdict": self::verdict(verdict),
            "unreachable": unreachable,
        }),
    };
    let mut said = fields(state);
    said.insert("session".to_owned(), snapshot.sessions.into());
    said.insert("dialect".to_owned(), snapshot.dialect.to_string().into());
    if let Some(took) = snapshot.time_to_on_air {
        said.insert("time_to_on_air_ms".to_owned(), ms(took));
    }
    if let Some(reason) = &snapshot.end_reason {
        said.insert("end_reason".to_owned(), reason.as_str().into());
    }
    if let Some(platform) = platform(snapshot) {
        said.insert("platform".to_owned(), platform);
    }
    let network = &snapshot.session.network;
    if !network.is_empty() {
        said.insert("network".to_owned(), network.as_str().into());
    }
    let climbs = &snapshot.session.climbs;
    if !climbs.is_empty() {
        let climbs = climbs
            .iter()
            .map(|climb| json!([climb.rung.to_string(), climb.outcome.to_string()]));
        said.insert("ladder".to_owned(), climbs.collect());
    }
    said
}

/// The stream at its platform, without what changes all the time.
fn platform(snapshot: &Snapshot) -> Option<Value> {
    let stream = snapshot.platform.as_ref()?;
    let said = json!({
        "vendor": stream.vendor,
        "state": stream.state.as_ref().map(ToString::to_string),
        "ours": stream.ours,
        "starts": stream.starts,
        "connected": stream.connected,
        "warnings": stream.warnings,
    });
    Some(Value::Object(fields(said)))
}

fn verdict(verdict: &Verdict) -> Value {
    match verdict {
        Verdict::Backoff => "backoff".into(),
        Verdict::Operator { advice, .. } => json!({ "operator": advice }),
        Verdict::RetryEvery(every) => json!({ "retry_every_ms": ms(*every) }),
        Verdict::RetryNow => "retry_now".into(),
    }
}

fn tracks(status: &feed::Status) -> impl Iterator<Item = (&'static str, &TrackStatus)> {
    let video = status.video.as_ref().map(|track| ("video", track));
    let audio = status.audio.as_ref().map(|track| ("audio", track));
    video.into_iter().chain(audio)
}

fn limited(status: &feed::Status) -> Map<String, Value> {
    let target = status.target.map(|target| {
        format!(
            "{} at {} fps, {} bit/s",
            target.size, target.fps, target.max_bitrate.0
        )
    });
    let by = status.limited_by.map_or("nothing", LimitedBy::as_str);
    fields(json!({ "limited_by": by, "target": target }))
}

fn source_state(status: &TrackStatus) -> Map<String, Value> {
    let (state, reason) = match &status.state {
        SourceState::Live => ("live", None),
        SourceState::Opening => ("opening", None),
        SourceState::Slate { reason, .. } => ("slate", Some(reason)),
    };
    let conditions = status.conditions.keys().map(|c| c.as_str());
    let conditions: Vec<&str> = conditions.collect();
    fields(json!({
        "state": state,
        "reason": reason,
        "conditions": conditions,
        "stuck": status.stuck.map(|stuck| stuck.to_string()),
        "negotiated": status.negotiated,
        "opened": status.opened,
        "left_behind": status.left_behind,
    }))
}

fn counts(snapshot: &Snapshot) -> Map<String, Value> {
    let mut said = fields(json!({
        "session": snapshot.sessions,
        "frames_sent": snapshot.frames_sent(),
    }));
    if let Some(peer) = &snapshot.session.peer {
        said.extend(fields(connection(peer)));
    }
    said
}

fn connection(peer: &Counters) -> Value {
    json!({
        "rung": peer.pair.map(|pair| pair.rung.to_string()),
        "packets": peer.packets,
        "bytes": peer.bytes,
        "retransmissions": peer.retransmissions,
        "nacks": peer.nacks,
        "nacks_refused": peer.nacks_refused,
        "plis": peer.plis,
        "firs": peer.firs,
        "goodbyes": peer.goodbyes,
        "receiver_reports": peer.receiver_reports,
        "events_dropped": peer.events_dropped,
        "packets_unsent": peer.packets_unsent,
        "frames_refused": peer.frames_refused,
        "strangers": peer.strangers,
        "round_trip_ms": peer.round_trip.map(ms),
        "capture_to_wire_p95_ms": peer.capture_to_wire.quantile(0.95).map(ms),
        "video_report": peer.video_report.map(report),
        "audio_report": peer.audio_report.map(report),
    })
}

fn report(report: ReceiverReport) -> Value {
    json!({
        "highest": report.highest_sequence,
        "lost": report.total_lost,
        "lost_part": report.fraction_lost,
        "jitter_ms": ms(report.jitter),
    })
}

fn frames(status: &feed::Status) -> Map<String, Value> {
    let track = |(track, status): (&'static str, &TrackStatus)| {
        let ledger = &status.ledger;
        let counts = json!({
            "captured": ledger.captured,
            "filled": ledger.filled,
            "dropped": ledger.dropped,
            "surplus": ledger.surplus,
            "late": ledger.late,
            "idle": ledger.idle,
            "broken": ledger.broken,
            "encode_errors": ledger.encode_errors,
            "encoded": ledger.encoded,
            "units": ledger.units,
            "overruns": status.losses.overruns,
            "samples_lost": status.losses.samples,
        });
        (track.to_owned(), Value::Object(fields(counts)))
    };
    let mut said: Map<String, Value> = tracks(status).map(track).collect();
    let fanout = &status.fanout;
    said.extend(fields(json!({
        "subscriptions": fanout.subscriptions,
        "key_frames_requested": fanout.key_frames_requested,
        "key_frames_made": fanout.key_frames_made,
        "bitrate_bps": fanout.bitrate.0,
    })));
    said
}

/// Milliseconds to the microsecond.
fn ms(duration: Duration) -> Value {
    let us = duration.as_micros();
    (us as f64 / 1_000.0).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::Telemetry;
    use crate::signal::Dialect;

    fn snapshot(state: State) -> Snapshot {
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

    fn overview(snapshot: Snapshot) -> Overview {
        let mut overview = Overview::default();
        overview.publishers.insert("main".to_owned(), snapshot);
        overview
    }

    #[test]
    fn a_state_is_recorded_once_until_it_changes() {
        let now = Instant::now();
        let mut account = Account::default();
        let connecting = overview(snapshot(State::Connecting { attempt: 1 }));
        let said = account.states(now, &connecting);
        assert_eq!(said.len(), 1);
        assert_eq!(said[0].1["state"], "connecting");
        assert_eq!(said[0].1["publisher"], "main");
        assert!(account.states(now, &connecting).is_empty());

        let waiting = State::Waiting {
            due: now + Duration::from_secs(2),
            cause: "the server is away".to_owned(),
            verdict: Verdict::Backoff,
            unreachable: true,
        };
        let said = account.states(now, &overview(snapshot(waiting)));
        assert_eq!(said[0].1["due_in_ms"], 2_000.0);
        assert_eq!(said[0].1["cause"], "the server is away");

        let said = account.states(now, &Overview::default());
        assert_eq!(said[0].1["state"], "removed");
        assert!(account.states(now, &Overview::default()).is_empty());
    }

    #[test]
    fn what_is_wrong_with_a_picture_and_what_limits_it_is_recorded() {
        let now = Instant::now();
        let mut account = Account::default();
        let mut overview = Overview::default();
        let mut status = feed::Status {
            video: Some(TrackStatus::default()),
            ..feed::Status::default()
        };
        overview.feeds.insert("front".to_owned(), status.clone());
        assert_eq!(account.states(now, &overview).len(), 1);
        let track = status.video.get_or_insert_default();
        let at = crate::media::time::MediaTime::ZERO;
        track.conditions.insert(Condition::Frozen, at);
        status.limited_by = Some(LimitedBy::Thermal);
        overview.feeds.insert("front".to_owned(), status);
        let said = account.states(now, &overview);
        assert_eq!(said.len(), 2);
        assert_eq!(said[0].1["limited_by"], "thermal");
        assert_eq!(said[1].1["conditions"], json!(["frozen"]));
        assert!(account.states(now, &overview).is_empty());
    }

    #[test]
    fn counts_are_recorded_when_they_have_changed() {
        let mut account = Account::default();
        let mut snapshot = snapshot(State::Connecting { attempt: 1 });
        assert_eq!(account.stats(&overview(snapshot.clone())).len(), 1);
        assert!(account.stats(&overview(snapshot.clone())).is_empty());
        snapshot.session.peer = Some(Counters {
            plis: 3,
            video_report: Some(ReceiverReport {
                track: crate::media::access_unit::Track::Video,
                highest_sequence: 7,
                fraction_lost: Some(0.5),
                total_lost: 2,
                jitter: Duration::from_millis(4),
                round_trip: None,
            }),
            ..Counters::default()
        });
        let said = account.stats(&overview(snapshot));
        assert_eq!(said[0].1["plis"], 3);
        assert_eq!(said[0].1["video_report"]["jitter_ms"], 4.0);
        assert_eq!(said[0].1["video_report"]["lost_part"], 0.5);
    }
}
