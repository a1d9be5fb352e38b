//! Sender reports: when they are due and what they say.
//!
//! Servers align sound and picture by them, some wait for both tracks' first report before they show anything, and
//! OvenMediaEngine answers each with the receiver report that tells us we are on air. So both tracks are reported
//! the moment the second of them begins, then every second, always for one common instant. Pure: told the time.

use std::time::{Duration, Instant};

use bytes::Bytes;
use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::source_description::{
    SdesType, SourceDescription, SourceDescriptionChunk, SourceDescriptionItem,
};

use super::packetizer::Timeline;
use crate::media::time::MediaClock;

/// Time between two reports of a track (protocols agree on one second while a server finds its feet; it stays cheap).
const INTERVAL: Duration = Duration::from_secs(1);

/// A compound RTCP packet.
pub(super) type Compound = Vec<Box<dyn rtcp::Packet>>;

struct Stream {
    ssrc: u32,
    timeline: Timeline,
    packets: u32,
    octets: u32,
}

/// The reports of one connection's tracks.
pub(super) struct Reports {
    clock: MediaClock,
    cname: Bytes,
    streams: Vec<Stream>,
    due: Option<Instant>,
}

impl Reports {
    /// Reports for the tracks `(ssrc, timeline)`, with `cname` as the name they share.
    pub(super) fn new(clock: MediaClock, cname: &str, tracks: &[(u32, Timeline)]) -> Self {
        Self {
            clock,
            cname: Bytes::copy_from_slice(cname.as_bytes()),
            streams: tracks
                .iter()
                .map(|&(ssrc, timeline)| Stream {
                    ssrc,
                    timeline,
                    packets: 0,
                    octets: 0,
                })
                .collect(),
            due: None,
        }
    }

    /// Counts a packet with `octets` of payload that leaves at `now`. A track's first makes reports due at once.
    pub(super) fn sent(&mut self, now: Instant, ssrc: u32, octets: usize) {
        if let Some(stream) = self.streams.iter_mut().find(|s| s.ssrc == ssrc) {
            if stream.packets == 0 {
                self.due = Some(now);
            }
            // The wire's counters wrap by definition (RFC 3550, section 6.4.1).
            stream.packets = stream.packets.wrapping_add(1);
            stream.octets = stream.octets.wrapping_add(octets as u32);
        }
    }

    /// When reports are next due; `None` before the first packet.
    pub(super) const fn due(&self) -> Option<Instant> {
        self.due
    }

    /// The reports if they are due at `now`: one compound packet (SR, SDES with CNAME) per track that has begun.
    ///
    /// One per track rather than both in one, because a receiver that reads only the first report of a compound
    /// packet would miss the second track for ever, and browsers send them apart too.
    pub(super) fn take(&mut self, now: Instant) -> Vec<Compound> {
        if self.due.is_none_or(|due| now < due) {
            return Vec::new();
        }
        self.due = Some(now + INTERVAL);
        let mut instant = self.clock.at(now);
        // 0xFFFFFFFF is what a known broken client sends for "none", and OvenMediaEngine treats it so. A report for
        // a millisecond ago is as true as one for now.
        if self
            .streams
            .iter()
            .any(|s| s.timeline.timestamp(instant) == u32::MAX)
        {
            instant = instant.saturating_back(Duration::from_millis(1));
        }
        self.streams
            .iter()
            .filter(|stream| stream.packets > 0)
            .map(|stream| -> Compound {
                vec![
                    Box::new(SenderReport {
                        ssrc: stream.ssrc,
                        ntp_time: self.clock.ntp(instant),
                        rtp_time: stream.timeline.timestamp(instant),
                        packet_count: stream.packets,
                        octet_count: stream.octets,
                        ..Default::default()
                    }),
                    Box::new(self.description(stream.ssrc)),
                ]
            })
            .collect()
    }

    /// The farewell of every track that has begun: one compound packet each, beginning with a report as RFC 3550
    /// demands (section 6.1).
    pub(super) fn goodbye(&mut self, now: Instant) -> Vec<Compound> {
        self.due = Some(now);
        let mut compounds = self.take(now);
        for (compound, stream) in compounds
            .iter_mut()
            .zip(self.streams.iter().filter(|s| s.packets > 0))
        {
            compound.push(Box::new(Goodbye {
                sources: vec![stream.ssrc],
                reason: Bytes::new(),
            }));
        }
        self.due = None;
        compounds
    }

    fn description(&self, ssrc: u32) -> SourceDescription {
        SourceDescription {
            chunks: vec![SourceDescriptionChunk {
                source: ssrc,
                items: vec![SourceDescriptionItem {
                    sdes_type: SdesType::SdesCname,
                    text: self.cname.clone(),
                }],
            }],
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use super::*;
    use crate::media::access_unit::Track;

    const AUDIO: u32 = 1;
    const VIDEO: u32 = 2;

    fn reports(epoch: Instant, video_offset: u32) -> Reports {
        let clock = MediaClock::new(epoch, UNIX_EPOCH + Duration::from_secs(1_000));
        let tracks = [
            (AUDIO, Timeline::new(Track::Audio, 17)),
            (VIDEO, Timeline::new(Track::Video, video_offset)),
        ];
        Reports::new(clock, "front", &tracks)
    }

    fn senders(compounds: &[Compound]) -> Vec<&SenderReport> {
        compounds
            .iter()
            .map(|c| c[0].as_any().downcast_ref().expect("a report leads"))
            .collect()
    }

    #[test]
    fn each_first_packet_brings_reports_at_once_then_every_second() {
        let epoch = Instant::now();
        let mut reports = reports(epoch, 0);
        let at = |ms| epoch + Duration::from_millis(ms);
        assert_eq!(reports.due(), None);
        assert!(reports.take(at(0)).is_empty());
        reports.sent(at(10), AUDIO, 100);
        assert_eq!(senders(&reports.take(at(10))).len(), 1);
        reports.sent(at(15), VIDEO, 1_200);
        reports.sent(at(15), VIDEO, 300);
        let both = reports.take(at(15));
        let both = senders(&both);
        assert_eq!(both.iter().map(|r| r.ssrc).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((both[1].packet_count, both[1].octet_count), (2, 1_500));
        reports.sent(at(30), AUDIO, 100);
        assert!(reports.take(at(1_014)).is_empty());
        assert_eq!(reports.take(at(1_015)).len(), 2);
    }

    #[test]
    fn both_tracks_are_reported_for_one_instant_of_the_capture_clock() {
        let epoch = Instant::now();
        let mut reports = reports(epoch, 5);
        let now = epoch + Duration::from_millis(2_500);
        reports.sent(now, AUDIO, 1);
        reports.sent(now, VIDEO, 1);
        let compounds = reports.take(now);
        let both = senders(&compounds);
        assert_eq!(both[0].ntp_time, both[1].ntp_time);
        assert_eq!(both[0].ntp_time >> 32, 2_208_988_800 + 1_002);
        assert_eq!(both[0].ntp_time & 0xFFFF_FFFF, 1 << 31);
        assert_eq!(both[0].rtp_time, 17 + 120_000);
        assert_eq!(both[1].rtp_time, 5 + 225_000);
    }

    #[test]
    fn the_timestamp_that_means_none_elsewhere_is_never_sent() {
        let epoch = Instant::now();
        let now = epoch + Duration::from_secs(1);
        let mut reports = reports(epoch, u32::MAX - 90_000);
        reports.sent(now, VIDEO, 1);
        let compounds = reports.take(now);
        assert_eq!(senders(&compounds)[0].rtp_time, u32::MAX - 90);
    }

    #[test]
    fn the_farewell_names_every_track_that_began() {
        let epoch = Instant::now();
        let mut reports = reports(epoch, 0);
        assert!(reports.goodbye(epoch).is_empty());
        reports.sent(epoch, VIDEO, 1);
        let compounds = reports.goodbye(epoch);
        assert_eq!(compounds.len(), 1);
        let bye: &Goodbye = compounds[0][2].as_any().downcast_ref().expect("a goodbye");
        assert_eq!(bye.sources, [VIDEO]);
        assert_eq!(reports.due(), None);
    }
}
