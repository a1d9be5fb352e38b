//! What one session came to, in numbers: counters and samples that grow while it runs and become a
//! [`report::Session`].
//!
//! Pure: told everything, reads no clock. Bounded: samples are thinned, violations are counted per rule.

use std::time::Duration;

use crate::report;

use super::profile::Profile;

/// Decoded pictures further apart than this are a freeze.
const FREEZE: Duration = Duration::from_millis(200);

/// Values a [`Sample`] keeps before it thins itself out.
const SAMPLE_CAP: usize = 4096;

/// A thinned sample: keeps every n-th value, n doubling whenever it is full. The maximum is always kept.
#[derive(Clone, Debug)]
pub(super) struct Sample {
    values: Vec<f64>,
    stride: u64,
    seen: u64,
    max: f64,
}

impl Default for Sample {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            stride: 1,
            seen: 0,
            max: f64::NEG_INFINITY,
        }
    }
}

impl Sample {
    /// Adds one value.
    pub(super) fn add(&mut self, value: f64) {
        self.max = self.max.max(value);
        if self.seen.is_multiple_of(self.stride) {
            if self.values.len() == SAMPLE_CAP {
                let mut at = 0_usize;
                self.values.retain(|_| {
                    at += 1;
                    at % 2 == 1
                });
                self.stride *= 2;
            }
            self.values.push(value);
        }
        self.seen += 1;
    }

    fn absorb(&mut self, other: &Self) {
        for value in &other.values {
            self.add(*value);
        }
        self.max = self.max.max(other.max);
    }

    /// Its percentiles; `None` if it is empty.
    pub(super) fn percentiles(&self) -> Option<report::Percentiles> {
        report::Percentiles::of(&self.values).map(|p| report::Percentiles { max: self.max, ..p })
    }
}

/// Counters of the picture.
#[derive(Clone, Debug, Default)]
pub(super) struct VideoTally {
    pub(super) size: Option<(u32, u32)>,
    pub(super) frames_received: u64,
    pub(super) frames_decoded: u64,
    pub(super) frames_lost: u64,
    pub(super) freezes: u64,
    pub(super) freeze_max: Duration,
    pub(super) payload_bytes: u64,
    pub(super) span: Duration,
    pub(super) idrs: u64,
    pub(super) idr_after_request_ms: Sample,
    last_decoded: Option<Duration>,
}

/// Counters of the sound.
#[derive(Clone, Debug, Default)]
pub(super) struct AudioTally {
    pub(super) packets: u64,
    pub(super) samples_decoded: u64,
    pub(super) gaps: u64,
    pub(super) gap_max: Duration,
}

/// Everything counted for a session, or for all sessions of one endpoint.
#[derive(Clone, Debug)]
pub(super) struct Tally {
    pub(super) profile: Profile,
    pub(super) transport: Option<&'static str>,
    pub(super) time_to_on_air: Option<Duration>,
    /// Sessions that delivered media.
    pub(super) on_air: u64,
    pub(super) end_reason: Option<String>,
    pub(super) video: VideoTally,
    pub(super) audio: AudioTally,
    pub(super) av_offset_ms: Sample,
    pub(super) latency_ms: Sample,
    violations: Vec<(report::Violation, u64)>,
}

impl Tally {
    /// An empty one.
    pub(super) fn new(profile: Profile) -> Self {
        Self {
            profile,
            transport: None,
            time_to_on_air: None,
            on_air: 0,
            end_reason: None,
            video: VideoTally::default(),
            audio: AudioTally::default(),
            av_offset_ms: Sample::default(),
            latency_ms: Sample::default(),
            violations: Vec::new(),
        }
    }

    /// Notes a broken rule; the first detail of each rule is kept, the rest are counted.
    pub(super) fn violation(&mut self, rule: &'static str, detail: String) {
        match self.violations.iter_mut().find(|(v, _)| v.rule == rule) {
            Some((_, times)) => *times += 1,
            None => {
                let rule = rule.to_owned();
                self.violations
                    .push((report::Violation { rule, detail }, 1));
            }
        }
    }

    /// A picture was decoded, `at` after the start of the session.
    pub(super) fn picture(&mut self, at: Duration, width: u32, height: u32) {
        let video = &mut self.video;
        video.size = Some((width, height));
        video.frames_decoded += 1;
        if let Some(last) = video.last_decoded {
            let gap = at.saturating_sub(last);
            if gap > FREEZE {
                video.freezes += 1;
            }
            video.freeze_max = video.freeze_max.max(gap);
        } else {
            self.on_air = 1;
            self.time_to_on_air = Some(at);
        }
        video.last_decoded = Some(at);
    }

    /// Adds a later session of the same endpoint.
    pub(super) fn absorb(&mut self, later: &Self) {
        self.transport = later.transport.or(self.transport);
        self.time_to_on_air = self.time_to_on_air.or(later.time_to_on_air);
        self.on_air += later.on_air;
        self.end_reason.clone_from(&later.end_reason);
        let (video, more) = (&mut self.video, &later.video);
        video.size = more.size.or(video.size);
        video.frames_received += more.frames_received;
        video.frames_decoded += more.frames_decoded;
        video.frames_lost += more.frames_lost;
        video.freezes += more.freezes;
        video.freeze_max = video.freeze_max.max(more.freeze_max);
        video.payload_bytes += more.payload_bytes;
        video.span += more.span;
        video.idrs += more.idrs;
        video
            .idr_after_request_ms
            .absorb(&more.idr_after_request_ms);
        let (audio, more) = (&mut self.audio, &later.audio);
        audio.packets += more.packets;
        audio.samples_decoded += more.samples_decoded;
        audio.gaps += more.gaps;
        audio.gap_max = audio.gap_max.max(more.gap_max);
        self.av_offset_ms.absorb(&later.av_offset_ms);
        self.latency_ms.absorb(&later.latency_ms);
        for (violation, times) in &later.violations {
            match self
                .violations
                .iter_mut()
                .find(|(v, _)| v.rule == violation.rule)
            {
                Some((_, before)) => *before += times,
                None => self.violations.push((violation.clone(), *times)),
            }
        }
    }

    /// Why this is no pass, one sentence each; empty on pass.
    pub(super) fn reasons(&self) -> Vec<String> {
        let mut reasons: Vec<String> = self
            .violation_list()
            .into_iter()
            .map(|v| format!("{}: {}", v.rule, v.detail))
            .collect();
        let video = &self.video;
        let expected = video.frames_received + video.frames_lost;
        if video.frames_decoded == 0 {
            reasons.push("no picture was decoded".to_owned());
        } else if video.frames_decoded * 100 < expected * 97 {
            reasons.push(format!(
                "only {} of {expected} pictures were decoded",
                video.frames_decoded
            ));
        }
        reasons
    }

    fn violation_list(&self) -> Vec<report::Violation> {
        self.violations
            .iter()
            .map(|(violation, times)| {
                let mut violation = violation.clone();
                if *times > 1 {
                    violation.detail = format!("{} ({times} times)", violation.detail);
                }
                violation
            })
            .collect()
    }

    /// As the report says it.
    pub(super) fn report(&self) -> report::Session {
        let millis = |d: Duration| u64::try_from(d.as_millis()).unwrap_or(u64::MAX);
        let (video, audio) = (&self.video, &self.audio);
        report::Session {
            ladder: Vec::new(),
            capture_to_wire_ms: None,
            publisher: None,
            profile: Some(self.profile.to_string()),
            dialect: Some(self.profile.dialect().to_string()),
            transport: self.transport.map(str::to_owned),
            time_to_on_air_ms: self.time_to_on_air.map(millis),
            recoveries: Vec::new(),
            reconnects: self.on_air.saturating_sub(1),
            end_reason: self.end_reason.clone(),
            video: report::Video {
                width: video.size.map(|(width, _)| width),
                height: video.size.map(|(_, height)| height),
                frames_sent: None,
                frames_received: Some(video.frames_received),
                frames_decoded: Some(video.frames_decoded),
                frames_lost: Some(video.frames_lost),
                freezes: Some(video.freezes),
                freeze_ms_max: Some(millis(video.freeze_max)),
                bitrate_bps: (!video.span.is_zero())
                    .then(|| (video.payload_bytes as f64 * 8.0 / video.span.as_secs_f64()) as u64),
                idr_count: Some(video.idrs),
                idr_after_request_ms: video.idr_after_request_ms.percentiles(),
            },
            audio: report::Audio {
                packets_received: Some(audio.packets),
                seconds_decoded: Some(audio.samples_decoded as f64 / 48_000.0),
                gaps: Some(audio.gaps),
                gap_ms_max: Some(millis(audio.gap_max)),
            },
            av_offset_ms: self.av_offset_ms.percentiles(),
            latency_ms: self.latency_ms.percentiles(),
            violations: self.violation_list(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thinned_sample_keeps_its_shape_and_its_maximum() {
        let mut sample = Sample::default();
        for n in 0..100_000 {
            sample.add(f64::from(n));
        }
        assert!(sample.values.len() <= SAMPLE_CAP);
        let p = sample.percentiles().expect("not empty");
        assert!((p.p50 - 50_000.0).abs() < 500.0);
        assert!((p.p95 - 95_000.0).abs() < 500.0);
        assert_eq!(p.max, 99_999.0);
    }

    #[test]
    fn consecutive_sessions_become_one_entry_with_reconnects() {
        let ms = Duration::from_millis;
        let mut first = Tally::new(Profile::Qencode);
        first.picture(ms(300), 640, 360);
        first.violation("marker", "a".to_owned());
        let mut second = Tally::new(Profile::Qencode);
        second.picture(ms(100), 640, 360);
        second.picture(ms(400), 640, 360);
        second.violation("marker", "b".to_owned());
        let refused = Tally::new(Profile::Qencode);
        let mut all = Tally::new(Profile::Qencode);
        for session in [&first, &refused, &second] {
            all.absorb(session);
        }
        let report = all.report();
        assert_eq!(report.reconnects, 1);
        assert_eq!(report.time_to_on_air_ms, Some(300));
        assert_eq!(report.video.frames_decoded, Some(3));
        assert_eq!(report.video.freezes, Some(1));
        assert_eq!(report.violations.len(), 1);
        assert_eq!(report.violations[0].detail, "a (2 times)");
    }

    #[test]
    fn a_session_without_a_picture_is_no_pass() {
        let mut tally = Tally::new(Profile::Ome021);
        assert_eq!(tally.reasons().len(), 1);
        tally.picture(Duration::ZERO, 2, 2);
        tally.video.frames_received = 1;
        assert!(tally.reasons().is_empty());
        tally.video.frames_lost = 1;
        assert_eq!(tally.reasons().len(), 1);
    }
}
