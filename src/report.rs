//! The report: one JSON document, the same from `demo`, `lab`, `run` and `soak` (`onair.report/1`).
//!
//! A field that the writing side cannot know is `null`, never a guess: an agent alone does not know what was
//! decoded, a lab alone does not know what was sent.

use serde::Serialize;

/// Value of [`Report::schema`].
pub const SCHEMA: &str = "onair.report/1";

/// What a run came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Something asked for did not hold; [`Report::reasons`] says what.
    Fail,
    /// Everything asked for held.
    Pass,
}

/// The whole document.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// [`SCHEMA`].
    pub schema: &'static str,
    /// Pass or fail.
    pub verdict: Verdict,
    /// Why it failed, one sentence each; empty on pass.
    pub reasons: Vec<String>,
    /// Wall time of the start, RFC 3339 in UTC.
    pub started_at: String,
    /// Seconds from start to end.
    pub duration_s: f64,
    /// What the process used.
    pub process: Process,
    /// One per publisher and server.
    pub sessions: Vec<Session>,
    /// Faults injected, in order.
    pub faults: Vec<Fault>,
}

/// Resources of the reporting process.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Process {
    /// User and system CPU time.
    pub cpu_s: f64,
    /// Resident memory when the run began.
    pub rss_start_bytes: u64,
    /// Highest resident memory.
    pub rss_peak_bytes: u64,
    /// Resident memory at the end.
    pub rss_end_bytes: u64,
    /// Growth of resident memory over the second half of the run; `null` under a minute.
    pub rss_slope_bytes_per_h: Option<f64>,
    /// Open file descriptors when the run began.
    pub fds_start: u64,
    /// Open file descriptors at the end.
    pub fds_end: u64,
    /// Most threads at any sample.
    pub threads_peak: u64,
}

/// What became of one publisher at one server.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Session {
    /// The publisher's name, where the writer knows it.
    pub publisher: Option<String>,
    /// The lab's profile, where a lab judged.
    pub profile: Option<String>,
    /// `ome`, `whip`, `wowza-v1` or `wowza-v2`.
    pub dialect: Option<String>,
    /// The rung of the ladder that media takes: `udp`, `tcp`, `turn-udp`, `turn-tcp` or `turn-tls`; where a lab judged,
    /// what it saw: `turn` through its TURN server, `turn-tcp` through the one that OvenMediaEngine has inside.
    pub transport: Option<String>,
    /// What became of each rung in the last attempt, in order of preference; empty where only a lab writes.
    pub ladder: Vec<Rung>,
    /// From the start of the first attempt to media accepted.
    pub time_to_on_air_ms: Option<u64>,
    /// How long it took to be on air, by what had put the publisher off the air; empty where only a lab writes.
    pub recoveries: Vec<Recovery>,
    /// Sessions after the first.
    pub reconnects: u64,
    /// Why the last session ended.
    pub end_reason: Option<String>,
    /// The picture.
    pub video: Video,
    /// The sound.
    pub audio: Audio,
    /// Audio ahead of (positive) or behind the picture, as a receiver that trusts sender reports would play it;
    /// percentiles of the absolute value.
    pub av_offset_ms: Option<Percentiles>,
    /// From the capture of a picture to its last packet on the socket, by the publisher's own count.
    pub capture_to_wire_ms: Option<Percentiles>,
    /// From the burnt-in clock to the decoded picture.
    pub latency_ms: Option<Percentiles>,
    /// Rules of the strict server that were broken.
    pub violations: Vec<Violation>,
}

/// How long it took to be on air after one cause.
#[derive(Clone, Debug, Serialize)]
pub struct Recovery {
    /// `start`, `media`, `network`, `platform`, `refused`, `schedule`, `signalling`, `unreachable` or `internal`.
    pub cause: String,
    /// How often.
    pub times: u64,
    /// The mean of all times.
    pub mean_ms: u64,
    /// The longest time.
    pub max_ms: u64,
}

/// One way to the server.
#[derive(Clone, Debug, Serialize)]
pub struct Rung {
    /// Its name, as in [`Session::transport`].
    pub rung: String,
    /// `chosen`, or why not.
    pub outcome: String,
    /// From the beginning of the search for a path to the outcome.
    pub after_ms: Option<u64>,
}

/// The video track of a session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Video {
    /// Width of the decoded picture.
    pub width: Option<u32>,
    /// Height of the decoded picture.
    pub height: Option<u32>,
    /// Access units handed to the peer.
    pub frames_sent: Option<u64>,
    /// Complete access units that arrived.
    pub frames_received: Option<u64>,
    /// Pictures decoded without error.
    pub frames_decoded: Option<u64>,
    /// Access units that arrived damaged or not at all.
    pub frames_lost: Option<u64>,
    /// Gaps between decoded pictures of over 200 ms.
    pub freezes: Option<u64>,
    /// The longest gap.
    pub freeze_ms_max: Option<u64>,
    /// Mean bitrate of the RTP payload.
    pub bitrate_bps: Option<u64>,
    /// IDR pictures.
    pub idr_count: Option<u64>,
    /// From the server's PLI or FIR to the IDR that answered it.
    pub idr_after_request_ms: Option<Percentiles>,
}

/// The audio track of a session.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Audio {
    /// RTP packets.
    pub packets_received: Option<u64>,
    /// Sound decoded.
    pub seconds_decoded: Option<f64>,
    /// Holes in the sequence of packets.
    pub gaps: Option<u64>,
    /// The longest hole.
    pub gap_ms_max: Option<u64>,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// Its short name, such as `idr-first`.
    pub rule: String,
    /// What was seen.
    pub detail: String,
}

/// A fault and what it cost.
#[derive(Clone, Debug, Serialize)]
pub struct Fault {
    /// Seconds since the start of the run.
    pub at_s: f64,
    /// Its name.
    pub fault: String,
    /// From the end of the fault to media accepted again; `null` if it never was.
    pub back_on_air_ms: Option<u64>,
}

/// Percentiles of a sample, by the nearest-rank method.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Percentiles {
    /// The median.
    pub p50: f64,
    /// The 95th percentile.
    pub p95: f64,
    /// The largest value.
    pub max: f64,
}

impl Percentiles {
    /// The percentiles of `sample`; `None` if it is empty.
    pub fn of(sample: &[f64]) -> Option<Self> {
        let mut sorted = sample.to_vec();
        sorted.sort_by(f64::total_cmp);
        let rank = |p: f64| {
            let at = (p * sorted.len() as f64).ceil() as usize;
            sorted.get(at.saturating_sub(1)).copied()
        };
        Some(Self {
            p50: rank(0.5)?,
            p95: rank(0.95)?,
            max: *sorted.last()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_use_the_nearest_rank() {
        let sample: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(
            Percentiles::of(&sample),
            Some(Percentiles {
                p50: 50.0,
                p95: 95.0,
                max: 100.0
            })
        );
        assert_eq!(
            Percentiles::of(&[7.0]),
            Some(Percentiles {
                p50: 7.0,
                p95: 7.0,
                max: 7.0
            })
        );
        assert_eq!(Percentiles::of(&[]), None);
    }
}
