//! The judge: rules of media and its timing that a publisher must keep, told as facts, told the time.
//!
//! Pure. What is due is missed only by a publisher whose packets went on coming beyond the time: one that is
//! gone has other troubles, which show elsewhere. What is wrong inside a packet is found where packets are taken apart; what is wrong in a message where
//! messages are read. Rules that only onair promises, but browsers do not keep, are not held against browsers.

use std::time::Duration;
use std::time::Instant;

use crate::media::access_unit::Track;
use crate::media::time::AUDIO_CLOCK_HZ;
use crate::media::time::VIDEO_CLOCK_HZ;

use super::sync::Pairing;

/// From the first RTP packet of a track to its first sender report.
const FIRST_REPORT: Duration = Duration::from_millis(500);
/// From a key frame request to the end of the IDR picture.
const KEY_FRAME: Duration = Duration::from_millis(500);
/// A publisher may hold back an IDR picture this long after the last one.
const KEY_FRAME_SPACING: Duration = Duration::from_millis(500);
/// From a withheld packet to its retransmission.
const RETRANSMISSION: Duration = Duration::from_secs(1);
/// From an orderly end of the signalling to BYE or `close_notify`; they come before it, but on another path.
const GOODBYE: Duration = Duration::from_millis(300);
/// How far apart in capture time the first packets of the two tracks may be, in seconds.
const START_APART: f64 = 0.040;
/// Largest difference between the RTP clock and the sender's wall clock, as a share.
const SLOPE: f64 = 200e-6;
/// What the clocks of a sender report may be apart for want of resolution, in seconds.
const RESOLUTION: f64 = 0.010;
/// Sender reports closer together than this are not compared: resolution would outweigh the slope.
const BASELINE: f64 = 2.0;
/// How far the RTP time of a sender report may lie from the newest packet's, in seconds.
const REPORT_APART: f64 = 5.0;

/// Whose promises are judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rules {
    /// Everything.
    Agent,
    /// What a server needs from any browser or other program.
    Browser,
}

impl Rules {
    /// Who calls itself something else than onair has promised nothing; who does not say what it is, is held to all.
    pub(super) fn of(user_agent: &str) -> Self {
        if user_agent.is_empty() || user_agent.starts_with("onair/") {
            Self::Agent
        } else {
            Self::Browser
        }
    }
}

/// What was found: a rule's name and what was seen.
pub(super) type Finding = (&'static str, String);

#[derive(Debug, Default)]
struct TrackFacts {
    first_packet: Option<Instant>,
    last_packet: Option<Instant>,
    newest_rtp: Option<u64>,
    first_report: Option<Pairing>,
    report_missed: bool,
}

impl TrackFacts {
    /// Whether packets came after `deadline`.
    fn went_on(&self, deadline: Instant) -> bool {
        self.last_packet.is_some_and(|last| last > deadline)
    }
}

/// Judges one session.
#[derive(Debug)]
pub(super) struct Judge {
    rules: Rules,
    audio: TrackFacts,
    video: TrackFacts,
    units: u64,
    losses: u64,
    last_idr: Option<Instant>,
    wanted: Option<Instant>,
    withheld: Vec<(u16, Instant)>,
    said_goodbye: bool,
    ended: Option<Instant>,
    blind_until: Option<Instant>,
    findings: Vec<Finding>,
}

impl Judge {
    /// A judge who has seen nothing.
    pub(super) fn new(rules: Rules) -> Self {
        Self {
            rules,
            audio: TrackFacts::default(),
            video: TrackFacts::default(),
            units: 0,
            losses: 0,
            last_idr: None,
            wanted: None,
            withheld: Vec::new(),
            said_goodbye: false,
            ended: None,
            blind_until: None,
            findings: Vec::new(),
        }
    }

    /// An RTP packet arrived.
    pub(super) fn packet(&mut self, now: Instant, track: Track, sequence: u64, rtp: u64) {
        let facts = self.track(track);
        facts.first_packet.get_or_insert(now);
        facts.last_packet = Some(now);
        facts.newest_rtp = Some(facts.newest_rtp.map_or(rtp, |newest| newest.max(rtp)));
        if track == Track::Video {
            // Sequence numbers are compared as they are on the wire.
            self.withheld
                .retain(|(missing, _)| *missing != sequence as u16);
        }
    }

    /// A sender report arrived.
    pub(super) fn report(&mut self, track: Track, pairing: Pairing) {
        let hz = f64::from(match track {
            Track::Audio => AUDIO_CLOCK_HZ,
            Track::Video => VIDEO_CLOCK_HZ,
        });
        let facts = self.track(track);
        let apart = |a: u64, b: u64| (a as f64 - b as f64) / hz;
        let off = facts.newest_rtp.map(|newest| apart(pairing.rtp, newest));
        let first = *facts.first_report.get_or_insert(pairing);
        if let Some(off) = off
            && off.abs() > REPORT_APART
        {
            self.find(
                "sender-report-time",
                format!("{track}: its RTP time is {off:.1} s from the newest packet's"),
            );
            return;
        }
        let (wall, rtp) = (pairing.wall - first.wall, apart(pairing.rtp, first.rtp));
        if wall >= BASELINE && (rtp - wall).abs() > SLOPE * wall + RESOLUTION {
            self.find(
                "sender-report-slope",
                format!("{track}: RTP went {rtp:.3} s while the wall clock went {wall:.3} s"),
            );
        } else if wall < 0.0 {
            self.find(
                "sender-report-time",
                format!("{track}: its wall clock went back {:.3} s", -wall),
            );
        }
    }

    /// The first packets of the tracks were captured `seconds` apart.
    pub(super) fn started_apart(&mut self, seconds: f64) {
        if self.rules == Rules::Agent && seconds.abs() > START_APART {
            self.find(
                "av-start",
                format!(
                    "the first packets were captured {:.0} ms apart",
                    seconds.abs() * 1e3
                ),
            );
        }
    }

    /// A complete access unit ended. Returns how long its IDR picture was waited for, if one was asked for.
    pub(super) fn unit(
        &mut self,
        now: Instant,
        idr: bool,
        parameter_sets: bool,
        b_slice: bool,
    ) -> Option<Duration> {
        self.units += 1;
        if self.units == 1 && self.losses == 0 && !idr {
            self.find(
                "idr-first",
                "the first picture is no IDR picture".to_owned(),
            );
        }
        if idr && !parameter_sets {
            self.find(
                "parameter-sets",
                "an IDR picture without SPS and PPS".to_owned(),
            );
        }
        if b_slice {
            self.find("b-frames", "a B slice".to_owned());
        }
        if !idr {
            return None;
        }
        self.last_idr = Some(now);
        let asked = self.wanted.take()?;
        Some(now.saturating_duration_since(asked))
    }

    /// An access unit was damaged or lost.
    pub(super) const fn lost(&mut self) {
        self.losses += 1;
    }

    /// The lab asked for a key frame.
    pub(super) fn key_frame_wanted(&mut self, now: Instant) {
        if self.units > 0 && !self.is_blind(now) {
            self.wanted.get_or_insert(now);
        }
    }

    /// The lab threw a packet of the video track away, to see it sent again.
    pub(super) fn withheld(&mut self, now: Instant, sequence: u16) {
        self.withheld.push((sequence, now));
    }

    /// The publisher said BYE or `close_notify`.
    pub(super) const fn goodbye(&mut self) {
        self.said_goodbye = true;
    }

    /// The publisher ended the signalling in an orderly way.
    pub(super) fn ended(&mut self, now: Instant) {
        self.ended.get_or_insert(now);
    }

    /// The lab itself disturbs the path until `until`: nothing that is late before then is held against anyone.
    pub(super) fn blind(&mut self, until: Instant) {
        self.blind_until = self.blind_until.max(Some(until));
        self.wanted = None;
        self.withheld.clear();
        // A report that comes out of the hole before the first packet is far from the last one before it.
        self.audio.newest_rtp = None;
        self.video.newest_rtp = None;
    }

    /// Looks at what is overdue.
    pub(super) fn tick(&mut self, now: Instant) {
        if self.is_blind(now) {
            return;
        }
        if self.rules == Rules::Agent {
            for track in [Track::Audio, Track::Video] {
                let facts = self.track(track);
                let overdue = facts.first_report.is_none()
                    && !facts.report_missed
                    && facts
                        .first_packet
                        .is_some_and(|at| facts.went_on(at + FIRST_REPORT));
                if overdue {
                    facts.report_missed = true;
                    let ms = FIRST_REPORT.as_millis();
                    self.find(
                        "sender-report",
                        format!("{track}: none within {ms} ms of the first packet"),
                    );
                }
            }
        }
        if let Some(wanted) = self.wanted {
            let from = self
                .last_idr
                .map_or(wanted, |at| wanted.max(at + KEY_FRAME_SPACING));
            if self.video.went_on(from + KEY_FRAME) {
                self.wanted = None;
                let ms = now.saturating_duration_since(wanted).as_millis();
                self.find(
                    "key-frame",
                    format!("no IDR picture {ms} ms after it was asked for"),
                );
            }
        }
        let before = self.withheld.len();
        let video = &self.video;
        self.withheld
            .retain(|(_, at)| !video.went_on(*at + RETRANSMISSION));
        if self.withheld.len() < before {
            let n = before - self.withheld.len();
            self.find("retransmission", format!("{n} packets were not sent again"));
        }
    }

    /// The last word: the session is over.
    pub(super) fn close(&mut self, now: Instant) {
        self.tick(now);
        if self.rules == Rules::Agent && self.ended.is_some() && !self.said_goodbye {
            self.find(
                "goodbye",
                "neither BYE nor close_notify before the signalling ended".to_owned(),
            );
        }
    }

    /// When the last word can be spoken after an orderly end: at once if goodbye was said, else a little later.
    pub(super) fn closing(&self) -> Option<Instant> {
        let ended = self.ended?;
        Some(if self.said_goodbye {
            ended
        } else {
            ended + GOODBYE
        })
    }

    /// Takes out what was found.
    pub(super) fn drain(&mut self) -> Vec<Finding> {
        std::mem::take(&mut self.findings)
    }

    fn is_blind(&self, now: Instant) -> bool {
        self.blind_until.is_some_and(|until| now < until)
    }

    const fn track(&mut self, track: Track) -> &mut TrackFacts {
        match track {
            Track::Audio => &mut self.audio,
            Track::Video => &mut self.video,
        }
    }

    fn find(&mut self, rule: &'static str, detail: String) {
        self.findings.push((rule, detail));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WALL: f64 = 1_795_262_400.0;

    fn ms(n: u64) -> Duration {
        Duration::from_millis(n)
    }

    fn found(judge: &mut Judge) -> Vec<&'static str> {
        judge.drain().into_iter().map(|(rule, _)| rule).collect()
    }

    /// A session that keeps every rule, up to `at`.
    fn good(rules: Rules, t: Instant) -> Judge {
        let mut judge = Judge::new(rules);
        for (track, hz) in [(Track::Audio, 48_000), (Track::Video, 90_000)] {
            judge.packet(t, track, 10, 5_000);
            judge.report(
                track,
                Pairing {
                    wall: WALL,
                    rtp: 5_000,
                },
            );
            judge.packet(t + ms(10_000), track, 20, 5_000 + 10 * hz);
            judge.report(
                track,
                Pairing {
                    wall: WALL + 10.0,
                    rtp: 5_000 + 10 * hz,
                },
            );
        }
        judge.unit(t, true, true, false);
        judge.unit(t + ms(33), false, false, false);
        judge.started_apart(0.02);
        judge
    }

    #[test]
    fn a_good_session_is_clean_to_the_end() {
        let t = Instant::now();
        let mut judge = good(Rules::Agent, t);
        judge.key_frame_wanted(t + ms(1_000));
        assert_eq!(judge.unit(t + ms(1_060), true, true, false), Some(ms(60)));
        judge.withheld(t + ms(1_100), 15);
        judge.packet(t + ms(1_200), Track::Video, 15, 6_000);
        judge.tick(t + ms(9_000));
        judge.goodbye();
        judge.ended(t + ms(9_000));
        assert_eq!(judge.closing(), Some(t + ms(9_000)));
        judge.close(t + ms(9_000));
        assert!(found(&mut judge).is_empty());
    }

    #[test]
    fn a_first_picture_that_is_no_idr_is_found_unless_packets_were_lost() {
        let t = Instant::now();
        let mut judge = Judge::new(Rules::Browser);
        judge.unit(t, false, false, false);
        assert_eq!(found(&mut judge), ["idr-first"]);
        let mut judge = Judge::new(Rules::Browser);
        judge.lost();
        judge.unit(t, false, false, false);
        assert!(found(&mut judge).is_empty());
    }

    #[test]
    fn missing_parameter_sets_and_b_slices_are_found() {
        let t = Instant::now();
        let mut judge = good(Rules::Browser, t);
        judge.unit(t, true, false, false);
        judge.unit(t, false, false, true);
        assert_eq!(found(&mut judge), ["parameter-sets", "b-frames"]);
    }

    #[test]
    fn a_late_sender_report_is_found_once_and_only_in_an_agent() {
        let t = Instant::now();
        for (rules, expected) in [
            (Rules::Agent, &["sender-report"][..]),
            (Rules::Browser, &[]),
        ] {
            let mut judge = Judge::new(rules);
            judge.packet(t, Track::Audio, 1, 1);
            judge.packet(t + FIRST_REPORT, Track::Audio, 2, 2);
            judge.tick(t + FIRST_REPORT + ms(9));
            assert!(found(&mut judge).is_empty(), "it may be gone");
            judge.packet(t + FIRST_REPORT + ms(10), Track::Audio, 3, 3);
            judge.tick(t + FIRST_REPORT + ms(10));
            judge.tick(t + FIRST_REPORT + ms(11));
            assert_eq!(found(&mut judge), expected);
        }
    }

    #[test]
    fn a_sender_report_whose_clocks_diverge_is_found() {
        let t = Instant::now();
        let mut judge = good(Rules::Browser, t);
        // 12 ms in 10 s is within 200 ppm and the resolution; 13 ms is not.
        for (off, expected) in [(1_070, &[][..]), (1_170, &["sender-report-slope"])] {
            let rtp = 5_000 + 900_000 + off;
            judge.report(
                Track::Video,
                Pairing {
                    wall: WALL + 10.0,
                    rtp,
                },
            );
            assert_eq!(found(&mut judge), expected, "{off}");
        }
        judge.report(
            Track::Video,
            Pairing {
                wall: WALL + 10.0,
                rtp: u64::from(u32::MAX),
            },
        );
        assert_eq!(found(&mut judge), ["sender-report-time"]);
        judge.report(
            Track::Video,
            Pairing {
                wall: WALL - 1.0,
                rtp: 905_000,
            },
        );
        assert_eq!(found(&mut judge), ["sender-report-time"]);
    }

    #[test]
    fn tracks_that_start_apart_are_found_in_an_agent() {
        for (rules, expected) in [(Rules::Agent, &["av-start"][..]), (Rules::Browser, &[])] {
            let mut judge = Judge::new(rules);
            judge.started_apart(-0.041);
            assert_eq!(found(&mut judge), expected);
        }
    }

    #[test]
    fn an_unanswered_key_frame_request_is_found_but_spacing_is_allowed() {
        let t = Instant::now();
        let mut judge = good(Rules::Agent, t);
        let at = |judge: &mut Judge, n| {
            judge.packet(t + ms(n), Track::Video, n, 905_000);
            judge.tick(t + ms(n));
            found(judge)
        };
        judge.key_frame_wanted(t + ms(100));
        let early = at(&mut judge, 1_000);
        assert!(early.is_empty(), "the last IDR was 100 ms before");
        assert_eq!(at(&mut judge, 1_001), ["key-frame"]);
        assert!(at(&mut judge, 5_000).is_empty());
        judge.key_frame_wanted(t + ms(5_000));
        judge.tick(t + ms(9_000));
        assert!(found(&mut judge).is_empty(), "it is gone");
        assert_eq!(at(&mut judge, 9_000), ["key-frame"]);
    }

    #[test]
    fn a_packet_that_is_not_sent_again_is_found() {
        let t = Instant::now();
        let mut judge = good(Rules::Agent, t);
        judge.withheld(t, 11);
        let later = t + RETRANSMISSION + ms(1);
        judge.packet(later, Track::Video, 12, 905_000);
        judge.tick(later);
        assert_eq!(found(&mut judge), ["retransmission"]);
    }

    #[test]
    fn an_orderly_end_without_goodbye_is_found_in_an_agent() {
        let t = Instant::now();
        for (rules, expected) in [(Rules::Agent, &["goodbye"][..]), (Rules::Browser, &[])] {
            let mut judge = good(rules, t);
            judge.ended(t);
            assert_eq!(judge.closing(), Some(t + GOODBYE));
            judge.close(t + GOODBYE);
            assert_eq!(found(&mut judge), expected);
        }
        let mut cut = good(Rules::Agent, t);
        cut.close(t);
        assert!(found(&mut cut).is_empty(), "a cut line allows no goodbye");
    }

    #[test]
    fn what_the_lab_disturbs_itself_is_not_held_against_anyone() {
        let t = Instant::now();
        let mut judge = good(Rules::Agent, t);
        judge.key_frame_wanted(t + ms(1_000));
        judge.blind(t + ms(5_000));
        judge.key_frame_wanted(t + ms(2_000));
        judge.tick(t + ms(6_000));
        assert!(found(&mut judge).is_empty());
    }

    #[test]
    fn browsers_are_told_by_their_first_word() {
        assert_eq!(Rules::of("Mozilla/5.0 (X11; Linux x86_64)"), Rules::Browser);
        assert_eq!(Rules::of("onair/0.1.0"), Rules::Agent);
        assert_eq!(Rules::of(""), Rules::Agent);
    }
}
