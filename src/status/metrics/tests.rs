use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::*;
use crate::feed::{self, Condition, LimitedBy, SourceState, Stuck, TrackStatus, VideoTrack};
use crate::health::Health;
use crate::media::time::MediaTime;
use crate::peer::{Climb, Counters, Latency, Outcome, ReceiverReport, Rung};
use crate::process;
use crate::publisher::{self, Cause, Snapshot, Verdict};
use crate::session::Telemetry;
use crate::signal::Dialect;
use crate::status::history::History;
use crate::supervisor::Overview;

/// A look at one of everything, with `words` wherever there is free text.
fn reading(words: &str) -> Reading {
    let now = Instant::now();
    let report = |track| ReceiverReport {
        track,
        highest_sequence: 1,
        fraction_lost: Some(0.25),
        total_lost: -3,
        jitter: Duration::from_millis(20),
        round_trip: None,
    };
    let recovery = publisher::Recovery {
        times: 2,
        total: Duration::from_secs(5),
        last: Duration::from_secs(1),
        longest: Duration::from_secs(4),
    };
    let stream = crate::account::Status {
        vendor: "qencode",
        stream_id: Some(words.to_owned()),
        state: Some(crate::platform::State::Other(words.to_owned())),
        ours: true,
        day: jiff::civil::date(2026, 11, 21),
        ran: Duration::from_secs(600),
        daily_limit: Some(Duration::from_secs(3_600)),
        starts: 2,
        connected: Some(false),
        warnings: vec![words.to_owned()],
    };
    let mut latency = Latency::default();
    latency.add(Duration::from_millis(12));
    let climb = |rung, outcome| Climb {
        rung,
        after: None,
        outcome,
    };
    let snapshot = |state| Snapshot {
        state,
        dialect: Dialect::Whip,
        session: Telemetry {
            peer: Some(Counters {
                packets: 70,
                bytes: 70_000,
                round_trip: Some(Duration::from_millis(80)),
                audio_report: Some(report(crate::media::access_unit::Track::Audio)),
                video_report: Some(report(crate::media::access_unit::Track::Video)),
                capture_to_wire: latency.clone(),
                ..Counters::default()
            }),
            climbs: vec![
                climb(Rung::Udp, Outcome::Failed(words.to_owned())),
                climb(Rung::TurnTls, Outcome::Chosen),
            ],
            ..Telemetry::default()
        },
        sessions: 2,
        time_to_on_air: Some(Duration::from_millis(1_250)),
        frames_sent_before: 900,
        end_reason: Some(words.to_owned()),
        recoveries: [(Cause::Media, recovery)].into(),
        platform: Some(stream.clone()),
    };
    let on_air = snapshot(publisher::State::OnAir {
        since: now,
        confirmed: true,
    });
    let third = snapshot(publisher::State::Connecting { attempt: 3 });
    let refused = snapshot(publisher::State::Waiting {
        due: now + Duration::from_secs(45),
        cause: words.to_owned(),
        verdict: Verdict::Operator {
            advice: words.to_owned(),
            every: Duration::from_secs(45),
        },
        unreachable: false,
    });
    let track = |state, condition, stuck| {
        Some(TrackStatus {
            state,
            conditions: BTreeMap::from([(condition, MediaTime::ZERO)]),
            stuck,
            negotiated: Some(words.to_owned()),
            opened: 3,
            ..TrackStatus::default()
        })
    };
    let slate = SourceState::Slate {
        since: MediaTime::ZERO,
        reason: words.to_owned(),
    };
    let front = feed::Status {
        video: track(slate, Condition::Frozen, Some(Stuck::Device)),
        audio: track(SourceState::Live, Condition::Silent, None),
        target: Some(VideoTrack {
            size: crate::config::Size {
                width: 640,
                height: 360,
            },
            fps: 15,
            max_bitrate: crate::config::Bitrate(1),
        }),
        limited_by: Some(LimitedBy::Thermal),
        ..feed::Status::default()
    };
    let overview = Overview {
        feeds: [("front".to_owned(), front)].into(),
        publishers: [
            ("main".to_owned(), on_air),
            ("spare".to_owned(), refused),
            ("third".to_owned(), third),
        ]
        .into(),
        unwritten: Some(words.to_owned()),
        held: ["third".to_owned()].into(),
        refused: Some(words.to_owned()),
        orphaned: [("stream a".to_owned(), words.to_owned())].into(),
    };
    let mut history = History::default();
    history.note(now, &overview);
    let health = Health {
        at: now,
        stuck: Vec::new(),
    };
    let process = process::Sample::default();
    let wall = std::time::SystemTime::now();
    Reading::new(now, wall, now, &overview, &history, &health, process)
}

/// A family: its kind, and its samples by name and labels.
#[derive(Debug, Default)]
struct Family {
    kind: String,
    unit: Option<String>,
    samples: BTreeMap<String, f64>,
}

/// The families of a text by name; panics where the text breaks a rule of OpenMetrics.
fn families(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it says where it ends");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut at = String::new();
    for line in body.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words.as_slice() {
            ["#", "HELP", name, help] => {
                assert!(!help.is_empty(), "{line}");
                let fresh = families.insert((*name).to_owned(), Family::default());
                assert!(fresh.is_none(), "twice: {line}");
                at = (*name).to_owned();
            }
            ["#", "TYPE", name, kind] => {
                assert_eq!(*name, at);
                families.get_mut(*name).unwrap().kind = (*kind).to_owned();
            }
            ["#", "UNIT", name, unit] => {
                assert!(*name == at && name.ends_with(&format!("_{unit}")), "{line}");
                families.get_mut(*name).unwrap().unit = Some((*unit).to_owned());
            }
            _ => {
                let (series, value) = line.rsplit_once(' ').expect("a sample");
                let value: f64 = value.parse().expect("a number");
                let name = series.split('{').next().unwrap();
                let family = families.get_mut(&at).expect("samples follow their family");
                assert_eq!(name, sample_name(&at, &family.kind), "{line}");
                assert!(value.is_finite(), "{line}");
                let other = family.samples.insert(series.to_owned(), value);
                assert!(other.is_none(), "twice: {line}");
            }
        }
    }
    families
}

fn sample_name(family: &str, kind: &str) -> String {
    match kind {
        "counter" => format!("{family}_total"),
        "gauge" => family.to_owned(),
        "info" => format!("{family}_info"),
        _ => panic!("{family} is a {kind}"),
    }
}

fn value(text: &str, series: &str) -> f64 {
    let families = families(text);
    let samples = families.values().flat_map(|family| &family.samples);
    let found = samples.into_iter().find(|(name, _)| *name == series);
    *found.unwrap_or_else(|| panic!("no {series} in {text}")).1
}

#[test]
fn every_family_obeys_openmetrics_and_has_a_sample() {
    let text = text(reading("words")).unwrap();
    for (name, family) in families(&text) {
        assert!(name.starts_with("onair_"), "{name}");
        assert!(!family.samples.is_empty(), "{name} has no sample");
        let ends_in_unit = ["_seconds", "_bytes", "_ratio"]
            .iter()
            .any(|unit| name.ends_with(unit));
        assert_eq!(ends_in_unit, family.unit.is_some(), "{name}");
    }
}

#[test]
fn what_is_shown_is_what_was_read() {
    let text = text(reading("words")).unwrap();
    let main = "publisher=\"main\"";
    let video = "feed=\"front\",track=\"video\"";
    for (series, expected) in [
        ("onair_healthy".to_owned(), 1.0),
        ("onair_ready".to_owned(), 0.0),
        ("onair_state_written".to_owned(), 0.0),
        ("onair_reload_failed".to_owned(), 1.0),
        ("onair_streams_orphaned".to_owned(), 1.0),
        (format!("onair_publisher_held{{{main}}}"), 0.0),
        ("onair_publisher_held{publisher=\"third\"}".to_owned(), 1.0),
        (format!("onair_publisher_sessions_total{{{main}}}"), 2.0),
        (
            format!("onair_publisher_frames_sent_total{{{main}}}"),
            900.0,
        ),
        (
            format!("onair_publisher_payload_sent_bytes_total{{{main}}}"),
            70_000.0,
        ),
        (
            format!("onair_publisher_time_to_on_air_seconds{{{main}}}"),
            1.25,
        ),
        (
            format!("onair_publisher_round_trip_seconds{{{main}}}"),
            0.08,
        ),
        (
            format!("onair_publisher_lost_ratio{{{main},track=\"video\"}}"),
            0.25,
        ),
        (
            format!("onair_publisher_packets_lost{{{main},track=\"audio\"}}"),
            -3.0,
        ),
        (
            format!("onair_publisher_state{{{main},state=\"on_air\"}}"),
            1.0,
        ),
        (
            format!("onair_publisher_state{{{main},state=\"waiting\"}}"),
            0.0,
        ),
        (
            format!("onair_publisher_rung{{{main},rung=\"turn-tls\",outcome=\"chosen\"}}"),
            1.0,
        ),
        (
            format!("onair_publisher_rung{{{main},rung=\"udp\",outcome=\"failed\"}}"),
            1.0,
        ),
        (
            "onair_publisher_needs_person{publisher=\"spare\"}".to_owned(),
            1.0,
        ),
        (
            "onair_publisher_next_session_seconds{publisher=\"spare\"}".to_owned(),
            45.0,
        ),
        (
            format!("onair_feed_source_state{{{video},state=\"slate\"}}"),
            1.0,
        ),
        (
            format!("onair_feed_condition{{{video},condition=\"frozen\"}}"),
            1.0,
        ),
        (
            format!("onair_feed_condition{{{video},condition=\"black\"}}"),
            0.0,
        ),
        (
            format!("onair_publisher_recovery_seconds_total{{{main},cause=\"media\"}}"),
            5.0,
        ),
        (
            format!("onair_publisher_stream_ran_today_seconds{{{main},vendor=\"qencode\"}}"),
            600.0,
        ),
        (format!("onair_feed_stuck{{{video}}}"), 1.0),
        (format!("onair_feed_source_openings_total{{{video}}}"), 3.0),
        (
            "onair_feed_limited{feed=\"front\",by=\"thermal\"}".to_owned(),
            1.0,
        ),
        (
            "onair_feed_target_height_pixels{feed=\"front\"}".to_owned(),
            360.0,
        ),
    ] {
        assert!((value(&text, &series) - expected).abs() < 1e-6, "{series}");
    }
}

/// What others say is free text, and belongs in the log and the status: as a label it would make a series of its own
/// each time, and as a line of the text whatever it likes.
#[test]
fn no_words_of_others_come_into_the_text() {
    let planted = "planted wss://host/app\"} 1\nonair_ready 1";
    let shown = text(reading(planted)).unwrap();
    assert!(!shown.contains("planted"), "{shown}");
    assert_eq!(shown, text(reading("other words")).unwrap());
}

/// Each metric with the labels that are given with it in an expression.
fn asked(expressions: &str) -> Vec<(String, BTreeSet<String>)> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut asked = Vec::new();
    for (at, _) in expressions.match_indices("onair_") {
        if expressions[..at].ends_with(word) {
            continue;
        }
        let rest = &expressions[at..];
        let end = rest.find(|c| !word(c)).unwrap_or(rest.len());
        let labels = rest[end..]
            .strip_prefix('{')
            .and_then(|braces| Some(braces.split_once('}')?.0))
            .unwrap_or_default();
        let labels = labels
            .split(',')
            .filter_map(|matcher| Some(matcher.split_once(['=', '!'])?.0.trim().to_owned()));
        asked.push((rest[..end].to_owned(), labels.collect()));
    }
    asked
}

#[test]
fn the_dashboard_and_the_alerts_ask_only_for_what_there_is() {
    let text = text(reading("words")).unwrap();
    let mut labels: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for (name, family) in families(&text) {
        let mut known = BTreeSet::from(["instance".to_owned(), "job".to_owned()]);
        for series in family.samples.keys() {
            let matchers = series.split(['{', ',', '}']).skip(1);
            known.extend(matchers.filter_map(|m| Some(m.split_once('=')?.0.to_owned())));
        }
        labels.insert(sample_name(&name, &family.kind), known);
    }
    let grafana: serde_json::Value =
        serde_json::from_str(include_str!("../../../config/grafana.json")).unwrap();
    let grafana = grafana.to_string().replace("\\\"", "\"");
    let alerts = include_str!("../../../config/alerts.yml");
    for (file, text, least) in [
        ("grafana.json", grafana.as_str(), 32),
        ("alerts.yml", alerts, 20),
    ] {
        let asked = asked(text);
        assert!(asked.len() >= least, "{file}: {asked:?}");
        for (metric, with) in asked {
            let known = labels.get(&metric);
            let known =
                known.unwrap_or_else(|| panic!("{file} asks for {metric}, which is not exported"));
            assert!(
                with.is_subset(known),
                "{file}: {metric} has the labels {known:?}, not {with:?}"
            );
        }
    }
    assert_eq!(
        asked("rate(onair_x_total{a=\"1\", b!~\"2\"}[5m]) > my_onair_y"),
        [(
            "onair_x_total".to_owned(),
            BTreeSet::from(["a".to_owned(), "b".to_owned()])
        )]
    );
}
