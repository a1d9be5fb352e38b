//! From what was observed to a report, a verdict and an exit code; the same for every verb that runs media.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use tokio_util::sync::CancellationToken;

use crate::feed::{self, SourceState};
use crate::peer::{Climb, Latency};
use crate::process::Usage;
use crate::publisher::{Cause, Recovery, Snapshot, State};
use crate::report::{self, Percentiles, Report, Verdict};

/// Takes note of a run from its start on.
#[derive(Debug)]
pub(super) struct Run {
    began: Instant,
    started_at: SystemTime,
    usage: Usage,
}

impl Run {
    /// A run that begins at this instant of both clocks.
    pub(super) fn new(began: Instant, started_at: SystemTime) -> Self {
        Self {
            began,
            started_at,
            usage: Usage::new(began),
        }
    }

    /// Waits until `stop`, or for `extent` if there is one. Each second the process is sampled and `each` is called.
    pub(super) async fn last(
        &mut self,
        stop: &CancellationToken,
        extent: Option<Duration>,
        mut each: impl FnMut() -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let end = async {
            match extent {
                Some(extent) => tokio::time::sleep(extent).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        let mut tick = tokio::time::interval(Duration::from_secs(1));
        loop {
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = &mut end => return Ok(()),
                _ = tick.tick() => {
                    self.usage.sample(super::clocks().0);
                    each()?;
                }
            }
        }
    }

    /// Closes the run at `now`: the verdict is pass if there is no reason against it.
    pub(super) fn report(
        mut self,
        now: Instant,
        sessions: Vec<report::Session>,
        reasons: Vec<String>,
    ) -> Report {
        self.usage.sample(now);
        Report {
            schema: report::SCHEMA,
            verdict: if reasons.is_empty() {
                Verdict::Pass
            } else {
                Verdict::Fail
            },
            reasons,
            started_at: humantime::format_rfc3339_millis(self.started_at).to_string(),
            duration_s: now.saturating_duration_since(self.began).as_secs_f64(),
            process: self.usage.report(),
            sessions,
            faults: Vec::new(),
        }
    }
}

/// Writes `report` to `path`, if one is given, and turns its verdict into the exit code.
pub(super) fn conclude(report: &Report, path: Option<&Path>) -> anyhow::Result<ExitCode> {
    if let Some(path) = path {
        let json = serde_json::to_string_pretty(report).context("the report does not serialize")?;
        std::fs::write(path, json + "\n")
            .with_context(|| format!("cannot write the report to {}", path.display()))?;
    }
    Ok(match report.verdict {
        Verdict::Pass => ExitCode::SUCCESS,
        Verdict::Fail => ExitCode::from(super::VERDICT_FAIL),
    })
}

/// What a publisher alone knows of its sessions.
pub(super) fn session(name: &str, snapshot: &Snapshot) -> report::Session {
    let peer = snapshot.session.peer.as_ref();
    report::Session {
        publisher: Some(name.to_owned()),
        dialect: Some(snapshot.dialect.to_string()),
        transport: peer
            .and_then(|peer| peer.pair.as_ref())
            .map(|pair| pair.rung.to_string()),
        ladder: snapshot.session.climbs.iter().map(rung).collect(),
        time_to_on_air_ms: snapshot.time_to_on_air.map(millis),
        recoveries: snapshot.recoveries.iter().map(recovery).collect(),
        capture_to_wire_ms: peer.and_then(|peer| percentiles(&peer.capture_to_wire)),
        reconnects: snapshot.sessions.saturating_sub(1),
        end_reason: snapshot.end_reason.clone(),
        video: report::Video {
            frames_sent: Some(snapshot.frames_sent()),
            ..report::Video::default()
        },
        ..report::Session::default()
    }
}

fn recovery((cause, recovery): (&Cause, &Recovery)) -> report::Recovery {
    let times = u32::try_from(recovery.times).unwrap_or(u32::MAX).max(1);
    report::Recovery {
        cause: cause.to_string(),
        times: recovery.times,
        mean_ms: millis(recovery.total / times),
        max_ms: millis(recovery.longest),
    }
}

fn rung(climb: &Climb) -> report::Rung {
    report::Rung {
        rung: climb.rung.to_string(),
        outcome: climb.outcome.to_string(),
        after_ms: climb.after.map(millis),
    }
}

/// Reasons against a run whose sources should all deliver at its end: that a slate is on air is no success.
pub(super) fn away(feeds: &BTreeMap<String, feed::Status>) -> Vec<String> {
    let reason = |name: &str, what: &str, track: &Option<feed::TrackStatus>| {
        let SourceState::Slate { reason, .. } = &track.as_ref()?.state else {
            return None;
        };
        Some(format!("feed {name} is without {what}: {reason}"))
    };
    let of_feed = |(name, feed): (&String, &feed::Status)| {
        [
            reason(name, "its picture", &feed.video),
            reason(name, "its sound", &feed.audio),
        ]
    };
    feeds.iter().flat_map(of_feed).flatten().collect()
}

/// Reasons against a run whose publishers should all be on air at its end.
pub(super) fn off_air(snapshots: &BTreeMap<String, Snapshot>) -> Vec<String> {
    let reason = |(name, snapshot): (&String, &Snapshot)| match &snapshot.state {
        // Where it should not be on air, it is right.
        State::OffAir(_) | State::OnAir { .. } => None,
        State::Waiting { cause, .. } => Some(format!("{name} is not on air: {cause}")),
        State::Connecting { .. } | State::Stopped | State::Stopping => {
            Some(format!("{name} is not on air"))
        }
    };
    snapshots.iter().filter_map(reason).collect()
}

fn percentiles(latency: &Latency) -> Option<Percentiles> {
    let ms = |part| {
        latency
            .quantile(part)
            .map(|at: Duration| at.as_secs_f64() * 1_000.0)
    };
    Some(Percentiles {
        p50: ms(0.5)?,
        p95: ms(0.95)?,
        max: latency.longest().as_secs_f64() * 1_000.0,
    })
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The report in a few lines for people.
pub(super) fn summary(report: &Report) -> String {
    let mut out = String::new();
    for session in &report.sessions {
        out += &line(session);
        for violation in &session.violations {
            out += &format!("  broken rule {}: {}\n", violation.rule, violation.detail);
        }
    }
    for reason in &report.reasons {
        out += &format!("against it: {reason}\n");
    }
    out + match report.verdict {
        Verdict::Fail => "verdict: fail\n",
        Verdict::Pass => "verdict: pass\n",
    }
}

/// One session in a line: what is known of it, and nothing of what is not.
fn line(session: &report::Session) -> String {
    let mut parts = Vec::new();
    let mut part = |text: Option<String>| parts.extend(text);
    part(
        session
            .time_to_on_air_ms
            .map(|ms| format!("on air after {ms} ms")),
    );
    part(
        session
            .video
            .frames_sent
            .map(|n| format!("{n} pictures sent")),
    );
    part(session.video.frames_decoded.map(|n| format!("{n} decoded")));
    part(session.video.frames_lost.map(|n| format!("{n} lost")));
    part(
        session
            .latency_ms
            .map(|p| format!("latency {:.0} ms (p95)", p.p95)),
    );
    part(
        session
            .av_offset_ms
            .map(|p| format!("A/V offset {:.0} ms (p95)", p.p95)),
    );
    part((session.reconnects > 0).then(|| format!("{} reconnects", session.reconnects)));
    let name = session
        .profile
        .as_deref()
        .or(session.publisher.as_deref())
        .unwrap_or("session");
    let transport = session
        .transport
        .as_ref()
        .map(|t| format!(" over {t}"))
        .unwrap_or_default();
    format!("{name}{transport}: {}\n", parts.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_what_is_known_and_nothing_else() {
        let mut session = report::Session {
            publisher: Some("main".to_owned()),
            ..report::Session::default()
        };
        session.transport = Some("tcp".to_owned());
        session.time_to_on_air_ms = Some(900);
        session.video.frames_sent = Some(42);
        assert_eq!(
            line(&session),
            "main over tcp: on air after 900 ms, 42 pictures sent\n"
        );
    }

    #[test]
    fn a_slate_at_the_end_is_a_reason_and_a_live_source_is_none() {
        let track = |state: SourceState| {
            Some(feed::TrackStatus {
                state,
                ..feed::TrackStatus::default()
            })
        };
        let slate = SourceState::Slate {
            since: crate::media::time::MediaTime::ZERO,
            reason: "no camera is there".to_owned(),
        };
        let feeds = [
            ("front", track(slate.clone()), track(SourceState::Live)),
            ("back", track(SourceState::Live), track(slate)),
            ("sound", None, track(SourceState::Live)),
        ];
        let feeds = feeds.map(|(name, video, audio)| {
            let status = feed::Status {
                video,
                audio,
                ..feed::Status::default()
            };
            (name.to_owned(), status)
        });
        assert_eq!(
            away(&feeds.into()),
            [
                "feed back is without its sound: no camera is there",
                "feed front is without its picture: no camera is there",
            ]
        );
    }
}
