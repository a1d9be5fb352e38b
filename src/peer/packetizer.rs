//! Access units to RTP packets, with timestamps that are an exact function of capture time.
//!
//! Because the timestamp of every packet is `ticks(captured) + offset`, sender reports and latency figures need no
//! record of packets: [`Timeline`] maps both ways. Fragmentation is the engine's (RFC 6184: single NAL unit, STAP-A
//! for the parameter sets, FU-A).

use rtc::rtp;
use rtc::rtp::codec::h264::H264Payloader;
use rtc::rtp::packetizer::Payloader;

use crate::media::access_unit::{AccessUnit, Track};
use crate::media::time::{AUDIO_CLOCK_HZ, MediaTime, VIDEO_CLOCK_HZ};

/// Largest RTP payload in bytes: what every server accepts (with IPv6, UDP and SRTP headers it stays under 1280).
pub(super) const MAX_PAYLOAD: usize = 1_200;

/// The affine map between media time and a track's RTP timestamps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Timeline {
    hz: u32,
    offset: u32,
}

impl Timeline {
    /// The map of `track`, beginning at the random `offset` that RFC 3550 asks for.
    pub(super) const fn new(track: Track, offset: u32) -> Self {
        let hz = match track {
            Track::Audio => AUDIO_CLOCK_HZ,
            Track::Video => VIDEO_CLOCK_HZ,
        };
        Self { hz, offset }
    }

    /// Ticks per second.
    pub(super) const fn hz(self) -> u32 {
        self.hz
    }

    /// The RTP timestamp of `time`.
    pub(super) fn timestamp(self, time: MediaTime) -> u32 {
        self.wire(time.ticks(self.hz))
    }

    /// Time from the capture of what carries `timestamp` to `now`; right for up to half a timestamp cycle.
    pub(super) fn age(self, timestamp: u32, now: MediaTime) -> std::time::Duration {
        let ticks = self.timestamp(now).wrapping_sub(timestamp);
        // Rounding can put the capture half a tick after `now`; that is an age of nothing, not of hours.
        let ticks = if ticks > u32::MAX / 2 { 0 } else { ticks };
        std::time::Duration::from_nanos(u64::from(ticks) * 1_000_000_000 / u64::from(self.hz))
    }

    const fn wire(self, ticks: u64) -> u32 {
        // RTP timestamps are the low 32 bits by definition (RFC 3550, section 5.1).
        (ticks as u32).wrapping_add(self.offset)
    }
}

/// Makes one track's packets.
pub(super) struct Packetizer {
    track: Track,
    ssrc: u32,
    payload_type: u8,
    timeline: Timeline,
    next_sequence: u16,
    /// Ticks of the last access unit: timestamps must grow strictly, whatever the capture clock says.
    last_ticks: Option<u64>,
    h264: H264Payloader,
}

impl Packetizer {
    /// A packetizer whose first packet carries `first_sequence`.
    pub(super) fn new(
        track: Track,
        ssrc: u32,
        payload_type: u8,
        timeline: Timeline,
        first_sequence: u16,
    ) -> Self {
        Self {
            track,
            ssrc,
            payload_type,
            timeline,
            next_sequence: first_sequence,
            last_ticks: None,
            h264: H264Payloader::default(),
        }
    }

    /// The packets of `unit`; the last carries the marker (video) and all one timestamp. Empty for a unit without
    /// anything to send.
    pub(super) fn packets(&mut self, unit: &AccessUnit) -> Vec<rtp::Packet> {
        let payloads = match self.track {
            Track::Audio if unit.data.is_empty() || unit.data.len() > MAX_PAYLOAD => Vec::new(),
            Track::Audio => vec![unit.data.clone()],
            // The payloader fails for no input it can be given here; an error would only mean nothing to send.
            Track::Video => self
                .h264
                .payload(MAX_PAYLOAD, &unit.data)
                .unwrap_or_default(),
        };
        if payloads.is_empty() {
            return Vec::new();
        }
        let ticks = unit.captured.ticks(self.timeline.hz);
        let ticks = self
            .last_ticks
            .map_or(ticks, |last| ticks.max(last.saturating_add(1)));
        self.last_ticks = Some(ticks);
        let timestamp = self.timeline.wire(ticks);
        let last = payloads.len() - 1;
        payloads
            .into_iter()
            .enumerate()
            .map(|(n, payload)| {
                let sequence_number = self.next_sequence;
                self.next_sequence = self.next_sequence.wrapping_add(1);
                rtp::Packet {
                    header: rtp::Header {
                        version: 2,
                        marker: self.track == Track::Video && n == last,
                        payload_type: self.payload_type,
                        sequence_number,
                        timestamp,
                        ssrc: self.ssrc,
                        ..Default::default()
                    },
                    payload,
                }
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;

    use super::*;

    fn unit(track: Track, ms: u64, data: &[u8]) -> AccessUnit {
        AccessUnit {
            track,
            captured: MediaTime::new(Duration::from_millis(ms)),
            key: true,
            data: Bytes::copy_from_slice(data),
        }
    }

    fn idr(bytes: usize) -> Vec<u8> {
        let mut stream = vec![
            0, 0, 0, 1, 0x67, 1, 2, 3, 0, 0, 0, 1, 0x68, 4, 5, 0, 0, 1, 0x65,
        ];
        stream.extend(std::iter::repeat_n(0x77, bytes));
        stream
    }

    #[test]
    fn an_idr_is_parameter_sets_then_fragments_with_one_timestamp_and_one_marker() {
        let timeline = Timeline::new(Track::Video, u32::MAX - 10);
        let mut packetizer = Packetizer::new(Track::Video, 7, 108, timeline, 65_534);
        let packets = packetizer.packets(&unit(Track::Video, 1_000, &idr(3_000)));
        assert_eq!(packets.len(), 4);
        assert_eq!(packets[0].payload[0] & 0x1F, 24, "STAP-A first");
        assert!(packets[1..].iter().all(|p| p.payload[0] & 0x1F == 28));
        assert!(packets.iter().all(|p| p.payload.len() <= MAX_PAYLOAD));
        assert!(packets.iter().all(|p| p.header.timestamp == 89_989));
        let markers: Vec<_> = packets.iter().map(|p| p.header.marker).collect();
        assert_eq!(markers, [false, false, false, true]);
        let sequence: Vec<_> = packets.iter().map(|p| p.header.sequence_number).collect();
        assert_eq!(sequence, [65_534, 65_535, 0, 1]);
    }

    #[test]
    fn timestamps_grow_even_when_capture_times_do_not() {
        let mut packetizer =
            Packetizer::new(Track::Audio, 7, 111, Timeline::new(Track::Audio, 0), 1);
        let mut stamp = |ms| {
            packetizer.packets(&unit(Track::Audio, ms, &[1]))[0]
                .header
                .timestamp
        };
        assert_eq!(
            [stamp(20), stamp(20), stamp(10), stamp(40)],
            [960, 961, 962, 1_920]
        );
    }

    #[test]
    fn nothing_to_send_takes_no_sequence_number() {
        let mut packetizer =
            Packetizer::new(Track::Audio, 7, 111, Timeline::new(Track::Audio, 0), 9);
        assert!(packetizer.packets(&unit(Track::Audio, 0, &[])).is_empty());
        assert!(
            packetizer
                .packets(&unit(Track::Audio, 0, &[0; MAX_PAYLOAD + 1]))
                .is_empty()
        );
        let packet = &packetizer.packets(&unit(Track::Audio, 0, &[1]))[0];
        assert_eq!(packet.header.sequence_number, 9);
    }

    #[test]
    fn age_survives_the_wrap_and_never_turns_negative() {
        let timeline = Timeline::new(Track::Video, u32::MAX - 100);
        let captured = MediaTime::new(Duration::from_millis(1));
        let stamp = timeline.timestamp(captured);
        assert_eq!(
            timeline.age(stamp, captured + Duration::from_millis(10)),
            Duration::from_millis(10)
        );
        assert_eq!(timeline.age(stamp, MediaTime::ZERO), Duration::ZERO);
    }
}
