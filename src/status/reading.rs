//! Everything that is shown, read at one instant: the metrics and the status in JSON are both made of it, so that
//! they cannot disagree. Holds no secret, no URL and no name but those of feeds and publishers, and of streams that
//! nobody wants any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use serde::Serialize;

use super::history::{History, Point};
use crate::feed::{self, LimitedBy};
use crate::health::Health;
use crate::peer::{Climb, Latency, Outcome, ReceiverReport};
use crate::process;
use crate::publisher::{self, Snapshot, Verdict};
use crate::supervisor::Overview;

/// Name of the form of `/v1/status`.
pub const SCHEMA: &str = "onair.status/1";

/// Why a publisher that somebody stopped is off the air.
const HELD: &str = "somebody stopped it (POST /v1/publishers/NAME/start or a restart of onair puts it on air again)";

/// Everything at one instant.
#[derive(Clone, Debug, Serialize)]
pub struct Reading {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Of the program.
    pub version: &'static str,
    /// Since the process began to be watched, in seconds.
    pub uptime_s: f64,
    /// How long ago all of this was read, in seconds; more than a few mean that the process hangs.
    pub age_s: f64,
    /// Nothing is stuck.
    pub healthy: bool,
    /// The same in words.
    pub health: String,
    /// Every publisher that is to be on air is.
    pub ready: bool,
    /// The same in words, and who is off the air on purpose.
    pub readiness: String,
    /// What the next process must know of streams at platforms is written down, where a folder for it is configured.
    pub state_written: bool,
    /// The configuration as it was read last is not at work, or not all of it.
    pub reload_failed: bool,
    /// Streams at platforms that onair started, that nobody wants any more and that it could not stop.
    pub streams_orphaned: usize,
    /// Whether the feeds' last pictures may be asked for.
    pub pictures: bool,
    /// What the process uses.
    pub process: Process,
    /// The feeds, by name.
    pub feeds: BTreeMap<String, Feed>,
    /// The publishers, by name.
    pub publishers: BTreeMap<String, Publisher>,
    /// What went wrong, the latest first.
    pub troubles: Vec<Trouble>,
}

/// What the process uses; zero where `/proc` cannot be read.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Process {
    /// CPU time since its start, in seconds.
    pub cpu_s: f64,
    /// Resident memory.
    pub rss_bytes: u64,
    /// Open file descriptors.
    pub fds: u64,
    /// Threads.
    pub threads: u64,
}

/// Where a publisher stands, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// A session runs; media is not yet accepted.
    Connecting,
    /// Off the air on purpose: outside its hours, or its minutes of the day are used up.
    OffAir,
    /// Media is accepted.
    OnAir,
    /// Nothing runs, and nothing is to run.
    Stopped,
    /// Parting from the server.
    Stopping,
    /// Between two sessions.
    Waiting,
}

impl State {
    /// Each with its word.
    pub const ALL: [(Self, &'static str); 6] = [
        (Self::Connecting, "connecting"),
        (Self::OffAir, "off_air"),
        (Self::OnAir, "on_air"),
        (Self::Stopped, "stopped"),
        (Self::Stopping, "stopping"),
        (Self::Waiting, "waiting"),
    ];
}

/// One publisher.
#[derive(Clone, Debug, Serialize)]
pub struct Publisher {
    /// Where it stands.
    pub state: State,
    /// On air: since when, in seconds.
    pub on_air_for_s: Option<f64>,
    /// On air: whether the server's receiver reports say so, or only its transport is alive.
    pub confirmed: Option<bool>,
    /// Connecting: ordinal of the session since the last stable time on air, from 1.
    pub attempt: Option<u32>,
    /// Somebody wants it off the air until told otherwise.
    pub held: bool,
    /// Waiting, or off the air on purpose: until the next session, in seconds, if that is known.
    pub due_in_s: Option<f64>,
    /// Off the air on purpose: when it goes on, as RFC 3339 in the publisher's time zone, if that is known.
    pub until: Option<String>,
    /// Waiting: why the last session ended. Off the air on purpose: why.
    pub cause: Option<String>,
    /// Waiting: what a person must do, if only a person can help.
    pub advice: Option<String>,
    /// What the server speaks.
    pub dialect: String,
    /// Which way media takes, or took.
    pub rung: Option<String>,
    /// What became of each way to the server.
    pub ladder: Vec<Rung>,
    /// From the start, or from the loss of the last session, to media accepted; of the last time. In seconds.
    pub time_to_on_air_s: Option<f64>,
    /// How long it took to be on air, by what had put it off the air.
    pub recoveries: BTreeMap<String, Recovery>,
    /// Its stream at the platform, where there is one.
    pub platform: Option<Stream>,
    /// Time on air in all sessions, in seconds.
    pub on_air_total_s: f64,
    /// Why the last session ended.
    pub end_reason: Option<String>,
    /// Counts over all sessions.
    pub counts: BTreeMap<&'static str, u64>,
    /// The last second.
    pub(super) latest: Point,
    /// Round-trip time, in seconds.
    pub round_trip_s: Option<f64>,
    /// What the server says of the picture it gets.
    pub video: Option<Reception>,
    /// What the server says of the sound it gets.
    pub audio: Option<Reception>,
    /// From the capture of a picture to its last packet's way into the socket, in this session.
    pub capture_to_wire_s: Option<Quantiles>,
}

/// How often and how fast a publisher came back on air after one cause.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Recovery {
    /// Times.
    pub times: u64,
    /// All of them together, in seconds.
    pub total_s: f64,
    /// The last one, in seconds.
    pub last_s: f64,
    /// The longest one, in seconds.
    pub longest_s: f64,
}

/// A publisher's stream at a platform.
#[derive(Clone, Debug, Serialize)]
pub struct Stream {
    /// `wowza-video` or `qencode`.
    pub vendor: &'static str,
    /// Where it stood when it was looked at last, in our word for it.
    pub state: Option<String>,
    /// onair started it, and will stop it.
    pub ours: bool,
    /// The day that is counted.
    pub day: String,
    /// Time that it ran on that day while it was used here, in seconds.
    pub ran_s: f64,
    /// The most that it may run in a day, in seconds.
    pub daily_limit_s: Option<f64>,
    /// Starts that were asked for by this process.
    pub starts: u64,
    /// Whether the vendor sees our media.
    pub connected: Option<bool>,
    /// What the vendor finds wrong with our media.
    pub warnings: Vec<String>,
}

/// One way to the server, in the last attempt.
#[derive(Clone, Debug, Serialize)]
pub struct Rung {
    /// Such as `turn-tcp`.
    pub rung: String,
    /// `absent`, `chosen`, `failed`, `idle` or `unanswered`.
    pub outcome: &'static str,
    /// The outcome in words.
    pub words: String,
    /// From the beginning of the search to the outcome, in seconds.
    pub after_s: Option<f64>,
}

/// What a receiver report says of one track.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Reception {
    /// Part of the packets lost since the report before, 0 to 1; `None` where the report contradicts itself.
    pub lost_part: Option<f32>,
    /// Packets lost since the session began; negative when some came twice.
    pub lost: i32,
    /// Interarrival jitter, in seconds.
    pub jitter_s: f64,
}

/// A distribution of times, in seconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Half of them take no longer.
    pub p50: f64,
    /// 95 % of them take no longer.
    pub p95: f64,
    /// The longest.
    pub max: f64,
}

/// One feed.
#[derive(Clone, Debug, Serialize)]
pub struct Feed {
    /// The picture.
    pub video: Option<Track>,
    /// The sound.
    pub audio: Option<Track>,
    /// Sessions that take it at this instant.
    pub subscriptions: usize,
    /// Key frames asked for, by servers and by sessions that fell behind.
    pub key_frames_requested: u64,
    /// Key frames made.
    pub key_frames_made: u64,
    /// The video bitrate that all sessions can carry, in bits per second.
    pub bitrate_bps: u32,
    /// The picture as it is encoded now.
    pub target: Option<Target>,
    /// What keeps the picture below its configuration: `cpu`, `network`, `thermal` or `undervoltage`.
    pub limited_by: Option<&'static str>,
}

/// A picture as it is encoded.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Target {
    /// Pixels in a row.
    pub width: u32,
    /// Rows.
    pub height: u32,
    /// Pictures per second.
    pub fps: u32,
    /// The most that the encoder may spend, in bits per second.
    pub bitrate_bps: u32,
}

/// One track of a feed.
#[derive(Clone, Debug, Serialize)]
pub struct Track {
    /// `live`, `opening` or `slate`.
    pub state: &'static str,
    /// Why a slate, or silence, is sent.
    pub reason: Option<String>,
    /// What is wrong with what the source delivers: `black`, `clipped`, `frozen` or `silent`.
    pub conditions: Vec<&'static str>,
    /// What to check about that.
    pub advice: Vec<&'static str>,
    /// Why only a new process can help.
    pub stuck: Option<String>,
    /// What was negotiated with the device.
    pub negotiated: Option<String>,
    /// How often the source was opened.
    pub opened: u64,
    /// Capture threads that hang in a device at this instant.
    pub left_behind: u64,
    /// Frames that came from the source.
    pub captured: u64,
    /// Frames made in place of missing ones.
    pub filled: u64,
    /// Frames taken by the encoder.
    pub encoded: u64,
    /// Frames on their way to the encoder at this instant.
    pub in_flight: u64,
    /// Frames not encoded, by reason.
    pub dropped: BTreeMap<&'static str, u64>,
    /// Access units that came out of the encoder.
    pub units: u64,
    /// How often the device's own buffer ran over.
    pub overruns: u64,
    /// Samples per channel that the device lost.
    pub samples_lost: u64,
}

/// Something that went wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Trouble {
    /// With whom.
    pub who: String,
    /// What.
    pub what: String,
    /// How often in a row.
    pub times: u64,
    /// How long ago last, in seconds.
    pub ago_s: f64,
}

impl Reading {
    /// Reads everything at `now`, when the wall clock showed `wall`; `history` has been told of `overview`, and the
    /// process was first seen at `began`.
    pub(super) fn new(
        now: Instant,
        wall: SystemTime,
        began: Instant,
        overview: &Overview,
        history: &History,
        health: &Health,
        process: process::Sample,
    ) -> Self {
        let (ready, readiness) = readiness(overview);
        let publishers = overview.publishers.iter();
        let feeds = overview.feeds.iter();
        let lasting = |(who, what): (&str, &str)| Trouble {
            who: who.to_owned(),
            what: what.to_owned(),
            times: 1,
            ago_s: 0.0,
        };
        let unwritten = (overview.unwritten.iter()).map(|why| lasting(("state", why)));
        let refused = (overview.refused.iter()).map(|why| lasting(("configuration", why)));
        let orphaned = (overview.orphaned.iter()).map(|(who, why)| lasting((who, why)));
        let troubles = history.troubles().map(|trouble| Trouble {
            who: trouble.who.clone(),
            what: trouble.what.clone(),
            times: trouble.times,
            ago_s: seconds(now.saturating_duration_since(trouble.at)),
        });
        Self {
            schema: SCHEMA,
            version: env!("CARGO_PKG_VERSION"),
            uptime_s: seconds(now.saturating_duration_since(began)),
            age_s: 0.0,
            healthy: health.is_good(now),
            health: health.words(now),
            ready,
            readiness,
            state_written: overview.unwritten.is_none(),
            reload_failed: overview.refused.is_some(),
            streams_orphaned: overview.orphaned.len(),
            pictures: false,
            process: Process {
                cpu_s: process.cpu_s,
                rss_bytes: process.rss,
                fds: process.fds,
                threads: process.threads,
            },
            feeds: feeds
                .map(|(name, status)| (name.clone(), feed(status)))
                .collect(),
            publishers: publishers
                .map(|(name, snapshot)| {
                    let held = overview.held.contains(name);
                    let shown = publisher(now, wall, name, snapshot, held, history);
                    (name.clone(), shown)
                })
                .collect(),
            troubles: (unwritten.chain(refused).chain(orphaned))
                .chain(troubles)
                .collect(),
        }
    }
}

/// The last reading, and when it was made.
#[derive(Clone, Debug)]
pub(super) struct Latest {
    pub(super) at: Instant,
    pub(super) reading: Reading,
}

impl Latest {
    /// The reading as it is to be believed at `now`, with the judgement of that time.
    pub(super) fn as_of(&self, now: Instant, health: &Health) -> Reading {
        Reading {
            age_s: seconds(now.saturating_duration_since(self.at)),
            healthy: health.is_good(now),
            health: health.words(now),
            ..self.reading.clone()
        }
    }
}

/// Whether every publisher that is to be on air is; and in words who is not, why and until when, also on purpose.
fn readiness(overview: &Overview) -> (bool, String) {
    let (mut missing, mut away, mut on_air) = (Vec::new(), Vec::new(), false);
    for (name, snapshot) in &overview.publishers {
        match &snapshot.state {
            publisher::State::OnAir { .. } => on_air = true,
            publisher::State::OffAir(off) => {
                away.push(format!("publisher {name} is off the air: {off}"));
            }
            publisher::State::Stopped if overview.held.contains(name) => {
                away.push(format!("publisher {name} is off the air: {HELD}"));
            }
            publisher::State::Connecting { .. } => {
                missing.push(format!("publisher {name} is connecting"));
            }
            publisher::State::Stopped => missing.push(format!("publisher {name} is off")),
            publisher::State::Stopping => missing.push(format!("publisher {name} is stopping")),
            publisher::State::Waiting { cause, .. } => {
                missing.push(format!("publisher {name} waits: {cause}"));
            }
        }
    }
    let ready = missing.is_empty();
    let all = (ready && (on_air || away.is_empty())).then(|| "on air".to_owned());
    let words: Vec<String> = all.into_iter().chain(missing).chain(away).collect();
    (ready, words.join("; "))
}

fn publisher(
    now: Instant,
    wall: SystemTime,
    name: &str,
    snapshot: &Snapshot,
    held: bool,
    history: &History,
) -> Publisher {
    let past = history.publishers.get(name).cloned().unwrap_or_default();
    let peer = snapshot.session.peer.as_ref();
    let mut shown = Publisher {
        state: State::Stopped,
        on_air_for_s: None,
        confirmed: None,
        attempt: None,
        held,
        due_in_s: None,
        until: None,
        cause: held.then(|| HELD.to_owned()),
        advice: None,
        dialect: snapshot.dialect.to_string(),
        rung: peer
            .and_then(|peer| peer.pair)
            .map(|pair| pair.rung.to_string()),
        ladder: snapshot.session.climbs.iter().map(rung).collect(),
        time_to_on_air_s: snapshot.time_to_on_air.map(seconds),
        recoveries: snapshot
            .recoveries
            .iter()
            .map(|(cause, recovery)| {
                let recovery = Recovery {
                    times: recovery.times,
                    total_s: seconds(recovery.total),
                    last_s: seconds(recovery.last),
                    longest_s: seconds(recovery.longest),
                };
                (cause.to_string(), recovery)
            })
            .collect(),
        platform: snapshot.platform.as_ref().map(|stream| Stream {
            vendor: stream.vendor,
            state: stream.state.as_ref().map(ToString::to_string),
            ours: stream.ours,
            day: stream.day.to_string(),
            ran_s: seconds(stream.ran),
            daily_limit_s: stream.daily_limit.map(seconds),
            starts: stream.starts,
            connected: stream.connected,
            warnings: stream.warnings.clone(),
        }),
        on_air_total_s: seconds(past.on_air),
        end_reason: snapshot.end_reason.clone(),
        counts: past
            .counts
            .totals()
            .map(|(count, total)| (count.name, total))
            .collect(),
        latest: past.latest,
        round_trip_s: peer.and_then(|peer| peer.round_trip).map(seconds),
        video: peer.and_then(|peer| peer.video_report).map(reception),
        audio: peer.and_then(|peer| peer.audio_report).map(reception),
        capture_to_wire_s: peer.and_then(|peer| quantiles(&peer.capture_to_wire)),
    };
    match &snapshot.state {
        publisher::State::Connecting { attempt } => {
            shown.state = State::Connecting;
            shown.attempt = Some(*attempt);
        }
        publisher::State::OnAir { since, confirmed } => {
            shown.state = State::OnAir;
            shown.on_air_for_s = Some(seconds(now.saturating_duration_since(*since)));
            shown.confirmed = Some(*confirmed);
        }
        publisher::State::OffAir(off) => {
            shown.state = State::OffAir;
            shown.cause = Some(off.why.to_string());
            shown.until = off.until();
            shown.due_in_s = off.left(wall).map(seconds);
        }
        publisher::State::Stopped => shown.state = State::Stopped,
        publisher::State::Stopping => shown.state = State::Stopping,
        publisher::State::Waiting {
            due,
            cause,
            verdict,
            ..
        } => {
            shown.state = State::Waiting;
            shown.due_in_s = Some(seconds(due.saturating_duration_since(now)));
            shown.cause = Some(cause.clone());
            shown.advice = match verdict {
                Verdict::Operator { advice, .. } => Some(advice.clone()),
                Verdict::Backoff | Verdict::RetryEvery(_) | Verdict::RetryNow => None,
            };
        }
    }
    shown
}

fn rung(climb: &Climb) -> Rung {
    Rung {
        rung: climb.rung.to_string(),
        outcome: match climb.outcome {
            Outcome::Absent(_) => "absent",
            Outcome::Chosen => "chosen",
            Outcome::Failed(_) => "failed",
            Outcome::Idle => "idle",
            Outcome::Unanswered => "unanswered",
        },
        words: climb.outcome.to_string(),
        after_s: climb.after.map(seconds),
    }
}

fn reception(report: ReceiverReport) -> Reception {
    Reception {
        lost_part: report.fraction_lost,
        lost: report.total_lost,
        jitter_s: seconds(report.jitter),
    }
}

fn quantiles(latency: &Latency) -> Option<Quantiles> {
    Some(Quantiles {
        p50: latency.quantile(0.5).map(seconds)?,
        p95: latency.quantile(0.95).map(seconds)?,
        max: seconds(latency.longest()),
    })
}

fn feed(status: &feed::Status) -> Feed {
    Feed {
        video: status.video.as_ref().map(track),
        audio: status.audio.as_ref().map(track),
        subscriptions: status.fanout.subscriptions,
        key_frames_requested: status.fanout.key_frames_requested,
        key_frames_made: status.fanout.key_frames_made,
        bitrate_bps: status.fanout.bitrate.0,
        target: status.target.map(|target| Target {
            width: target.size.width,
            height: target.size.height,
            fps: target.fps,
            bitrate_bps: target.max_bitrate.0,
        }),
        limited_by: status.limited_by.map(LimitedBy::as_str),
    }
}

fn track(status: &feed::TrackStatus) -> Track {
    let ledger = &status.ledger;
    let (state, reason) = match &status.state {
        feed::SourceState::Live => ("live", None),
        feed::SourceState::Opening => ("opening", None),
        feed::SourceState::Slate { reason, .. } => ("slate", Some(reason.clone())),
    };
    Track {
        state,
        reason,
        conditions: status.conditions.keys().map(|c| c.as_str()).collect(),
        advice: status.conditions.keys().map(|c| c.advice()).collect(),
        stuck: status.stuck.map(|stuck| stuck.to_string()),
        negotiated: status.negotiated.clone(),
        opened: status.opened,
        left_behind: status.left_behind,
        captured: ledger.captured,
        filled: ledger.filled,
        encoded: ledger.encoded,
        in_flight: ledger.in_flight,
        dropped: BTreeMap::from([
            ("behind", ledger.dropped),
            ("broken", ledger.broken),
            ("encode_error", ledger.encode_errors),
            ("idle", ledger.idle),
            ("late", ledger.late),
            ("surplus", ledger.surplus),
        ]),
        units: ledger.units,
        overruns: status.losses.overruns,
        samples_lost: status.losses.samples,
    }
}

fn seconds(duration: Duration) -> f64 {
    duration.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Off, Why};
    use crate::signal::Dialect;

    fn at(state: publisher::State) -> Snapshot {
        Snapshot {
            state,
            dialect: Dialect::Ome,
            session: crate::session::Telemetry::default(),
            sessions: 1,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: None,
            recoveries: publisher::Recoveries::new(),
            platform: None,
        }
    }

    fn reading(overview: &Overview, wall: SystemTime) -> Reading {
        let now = Instant::now();
        let health = Health {
            at: now,
            stuck: Vec::new(),
        };
        let process = process::Sample::default();
        let history = History::default();
        Reading::new(now, wall, now, overview, &history, &health, process)
    }

    #[test]
    fn who_is_off_the_air_on_purpose_is_said_with_why_and_until_when() {
        let until: jiff::Zoned = "2026-11-24T08:00:00+01:00[Europe/Berlin]".parse().unwrap();
        let hour = Duration::from_secs(3_600);
        let wall = SystemTime::from(until.timestamp()) - hour;
        let closed = at(publisher::State::OffAir(Off {
            why: Why::Schedule,
            until: Some(until),
        }));
        let mut overview = Overview {
            publishers: [
                ("day".to_owned(), closed),
                ("spare".to_owned(), at(publisher::State::Stopped)),
            ]
            .into(),
            held: ["spare".to_owned()].into(),
            ..Overview::default()
        };
        let off = "publisher day is off the air: these are not its hours (on_air), until 2026-11-24T08:00:00+01:00; \
                   publisher spare is off the air: somebody stopped it (POST \
                   /v1/publishers/NAME/start or a restart of onair puts it on air again)";
        let all = reading(&overview, wall);
        assert_eq!((all.ready, all.readiness.as_str()), (true, off));
        let day = &all.publishers["day"];
        assert_eq!(day.due_in_s, Some(3_600.0));
        assert_eq!(day.until.as_deref(), Some("2026-11-24T08:00:00+01:00"));
        assert!(!day.held && all.publishers["spare"].held);
        let late = reading(&overview, wall + 2 * hour);
        assert_eq!(late.publishers["day"].due_in_s, Some(0.0));

        let on_air = at(publisher::State::OnAir {
            since: Instant::now(),
            confirmed: true,
        });
        overview.publishers.insert("main".to_owned(), on_air);
        let all = reading(&overview, wall);
        assert_eq!(all.readiness, format!("on air; {off}"));

        // Nobody stopped it, so it is to be on air.
        overview.held.clear();
        assert!(!reading(&overview, wall).ready);
    }

    #[test]
    fn what_lasts_is_among_the_troubles_for_as_long_as_it_does() {
        let mut overview = Overview {
            refused: Some("it has faults".to_owned()),
            orphaned: [("stream a at qencode".to_owned(), "no credential".to_owned())].into(),
            ..Overview::default()
        };
        let wall = SystemTime::now();
        let all = reading(&overview, wall);
        let said: Vec<_> = (all.troubles.iter())
            .map(|trouble| (trouble.who.as_str(), trouble.what.as_str()))
            .collect();
        let expected = [
            ("configuration", "it has faults"),
            ("stream a at qencode", "no credential"),
        ];
        assert_eq!(said, expected);
        assert!(all.reload_failed && all.streams_orphaned == 1);
        overview.refused = None;
        overview.orphaned.clear();
        let all = reading(&overview, wall);
        assert!(all.troubles.is_empty() && !all.reload_failed && all.streams_orphaned == 0);
    }
}
