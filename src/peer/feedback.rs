//! Reads what the server says of our media: receiver reports, NACK, PLI, FIR, REMB, BYE.
//!
//! The engine's own RTCP statistics stay zero, so everything is taken from the packets themselves. Servers have
//! their ways: OvenMediaEngine's fraction lost wraps below zero, cumulative loss is signed, a FIR may be sent twice.
//! Pure: told the time; the packets come parsed, and what does not parse never gets here.

use std::time::{Duration, Instant};

use rtc::rtcp;
use rtc::rtcp::goodbye::Goodbye;
use rtc::rtcp::payload_feedbacks::full_intra_request::FullIntraRequest;
use rtc::rtcp::payload_feedbacks::picture_loss_indication::PictureLossIndication;
use rtc::rtcp::payload_feedbacks::receiver_estimated_maximum_bitrate::ReceiverEstimatedMaximumBitrate;
use rtc::rtcp::receiver_report::ReceiverReport as WireReport;
use rtc::rtcp::reception_report::ReceptionReport;
use rtc::rtcp::sender_report::SenderReport;
use rtc::rtcp::transport_feedbacks::transport_layer_nack::TransportLayerNack;

use crate::config::Bitrate;
use crate::media::access_unit::Track;
use crate::media::time::MediaClock;

/// Round trips beyond this are a wrong clock or a stale report, not a path.
const LONGEST_ROUND_TRIP: Duration = Duration::from_secs(30);

/// What a server says of one track: proof that media arrives.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReceiverReport {
    /// The track.
    pub track: Track,
    /// Extended highest sequence number received: it advances while media is accepted.
    pub highest_sequence: u32,
    /// Share of packets lost since the last report, 0 to 1; `None` where the figure contradicts the total.
    pub fraction_lost: Option<f32>,
    /// Packets lost since the beginning; negative when retransmissions arrived twice.
    pub total_lost: i32,
    /// Interarrival jitter.
    pub jitter: Duration,
    /// Round-trip time by the server's echo of our sender report; `None` without one.
    pub round_trip: Option<Duration>,
}

/// One thing the server said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Said {
    Bye,
    Fir,
    Nack { ssrc: u32, sequences: Vec<u16> },
    Pli,
    Remb(Bitrate),
    Report(ReceiverReport),
}

struct Stream {
    track: Track,
    ssrc: u32,
    clock_hz: u32,
    last_total_lost: i32,
    last_fir: Option<u8>,
}

/// The reader of one connection's RTCP.
pub(super) struct Feedback {
    clock: MediaClock,
    streams: Vec<Stream>,
}

impl Feedback {
    /// A reader for the tracks `(track, ssrc, clock rate in hertz)`.
    pub(super) fn new(clock: MediaClock, tracks: &[(Track, u32, u32)]) -> Self {
        let streams = tracks
            .iter()
            .map(|&(track, ssrc, clock_hz)| Stream {
                track,
                ssrc,
                clock_hz,
                last_total_lost: 0,
                last_fir: None,
            })
            .collect();
        Self { clock, streams }
    }

    /// What `packets`, received at `now`, say of our tracks. SSRCs that are not ours are passed over.
    pub(super) fn read(&mut self, now: Instant, packets: &[Box<dyn rtcp::Packet>]) -> Vec<Said> {
        let mut said = Vec::new();
        for packet in packets {
            let packet = packet.as_any();
            if let Some(report) = packet.downcast_ref::<WireReport>() {
                self.reports(now, &report.reports, &mut said);
            } else if let Some(report) = packet.downcast_ref::<SenderReport>() {
                self.reports(now, &report.reports, &mut said);
            } else if let Some(nack) = packet.downcast_ref::<TransportLayerNack>() {
                if self.find(nack.media_ssrc).is_some() {
                    let sequences = nack.nacks.iter().flat_map(|pair| {
                        let later = (0..16).filter(|bit| pair.lost_packets & (1 << bit) != 0);
                        std::iter::once(pair.packet_id)
                            .chain(later.map(|bit| pair.packet_id.wrapping_add(bit + 1)))
                    });
                    said.push(Said::Nack {
                        ssrc: nack.media_ssrc,
                        sequences: sequences.collect(),
                    });
                }
            } else if let Some(pli) = packet.downcast_ref::<PictureLossIndication>() {
                if self.is_video(pli.media_ssrc) {
                    said.push(Said::Pli);
                }
            } else if let Some(fir) = packet.downcast_ref::<FullIntraRequest>() {
                for entry in &fir.fir {
                    // A repeated number is the same request again (RFC 5104, section 4.3.1.2).
                    if self.is_video(entry.ssrc)
                        && let Some(stream) = self.find(entry.ssrc)
                        && stream.last_fir.replace(entry.sequence_number)
                            != Some(entry.sequence_number)
                    {
                        said.push(Said::Fir);
                    }
                }
            } else if let Some(remb) = packet.downcast_ref::<ReceiverEstimatedMaximumBitrate>() {
                // Saturates: the wire can say more than 4 Gbit/s.
                said.push(Said::Remb(Bitrate(remb.bitrate as u32)));
            } else if packet.is::<Goodbye>() {
                said.push(Said::Bye);
            }
        }
        said
    }

    fn reports(&mut self, now: Instant, blocks: &[ReceptionReport], said: &mut Vec<Said>) {
        let now = self.clock.ntp(self.clock.at(now));
        for block in blocks {
            let Some(stream) = self.find(block.ssrc) else {
                continue;
            };
            let total_lost = signed_24(block.total_lost);
            let more = total_lost > stream.last_total_lost;
            stream.last_total_lost = total_lost;
            let fraction_lost =
                (block.fraction_lost == 0 || more).then(|| f32::from(block.fraction_lost) / 256.0);
            said.push(Said::Report(ReceiverReport {
                track: stream.track,
                highest_sequence: block.last_sequence_number,
                fraction_lost,
                total_lost,
                jitter: Duration::from_secs(u64::from(block.jitter)) / stream.clock_hz,
                round_trip: round_trip(now, block.last_sender_report, block.delay),
            }));
        }
    }

    fn find(&mut self, ssrc: u32) -> Option<&mut Stream> {
        self.streams.iter_mut().find(|s| s.ssrc == ssrc)
    }

    fn is_video(&mut self, ssrc: u32) -> bool {
        self.find(ssrc)
            .is_some_and(|stream| stream.track == Track::Video)
    }
}

const fn signed_24(value: u32) -> i32 {
    ((value << 8) as i32) >> 8
}

/// RFC 3550, section 6.4.1: arrival minus LSR minus DLSR, in units of 1/65536 s that wrap with the NTP seconds.
fn round_trip(now_ntp: u64, last_report: u32, delay: u32) -> Option<Duration> {
    if last_report == 0 {
        return None;
    }
    let units = ((now_ntp >> 16) as u32)
        .wrapping_sub(last_report)
        .wrapping_sub(delay);
    // The server rounds too: a hair below zero is a round trip of nothing.
    let units = if units > u32::MAX - 65 { 0 } else { units };
    let time = Duration::from_nanos((u64::from(units) * 1_000_000_000) >> 16);
    (time <= LONGEST_ROUND_TRIP).then_some(time)
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use rtc::rtcp::payload_feedbacks::full_intra_request::FirEntry;
    use rtc::rtcp::transport_feedbacks::transport_layer_nack::NackPair;

    use super::*;

    const VIDEO: u32 = 2;

    fn feedback(epoch: Instant) -> Feedback {
        let clock = MediaClock::new(epoch, UNIX_EPOCH + Duration::from_secs(1_000));
        Feedback::new(
            clock,
            &[(Track::Audio, 1, 48_000), (Track::Video, VIDEO, 90_000)],
        )
    }

    fn report(block: ReceptionReport) -> Box<dyn rtcp::Packet> {
        Box::new(WireReport {
            ssrc: 9,
            reports: vec![block],
            ..Default::default()
        })
    }

    fn only_report(said: Vec<Said>) -> ReceiverReport {
        match said.as_slice() {
            [Said::Report(report)] => *report,
            other => panic!("one report was expected, not {other:?}"),
        }
    }

    #[test]
    fn the_round_trip_is_arrival_less_echo_less_delay() {
        let epoch = Instant::now();
        let mut feedback = feedback(epoch);
        let clock = feedback.clock;
        let sent = clock.ntp(clock.at(epoch + Duration::from_millis(100)));
        let block = ReceptionReport {
            ssrc: VIDEO,
            last_sender_report: (sent >> 16) as u32,
            delay: 65_536 / 2,
            jitter: 900,
            last_sequence_number: 77,
            ..Default::default()
        };
        let now = epoch + Duration::from_millis(640);
        let got = only_report(feedback.read(now, &[report(block.clone())]));
        let trip = got.round_trip.expect("an echo").as_secs_f64();
        assert!((trip - 0.040).abs() < 0.000_1, "{trip}");
        assert_eq!(got.jitter.as_millis(), 10);
        assert_eq!((got.track, got.highest_sequence), (Track::Video, 77));

        let stale = ReceptionReport {
            delay: 65_536 * 3,
            ..block.clone()
        };
        assert_eq!(
            only_report(feedback.read(now, &[report(stale)])).round_trip,
            None
        );
        let none = ReceptionReport {
            last_sender_report: 0,
            ..block
        };
        assert_eq!(
            only_report(feedback.read(now, &[report(none)])).round_trip,
            None
        );
    }

    #[test]
    fn a_fraction_that_contradicts_the_total_is_not_believed() {
        let epoch = Instant::now();
        let mut feedback = feedback(epoch);
        let mut read = |fraction_lost, total_lost| {
            let block = ReceptionReport {
                ssrc: VIDEO,
                fraction_lost,
                total_lost,
                ..Default::default()
            };
            let got = only_report(feedback.read(epoch, &[report(block)]));
            (got.fraction_lost, got.total_lost)
        };
        assert_eq!(read(0, 0), (Some(0.0), 0));
        assert_eq!(read(247, 0), (None, 0), "as OvenMediaEngine wraps it");
        assert_eq!(read(64, 10), (Some(0.25), 10));
        assert_eq!(read(250, 0xFF_FFFF), (None, -1), "as GStreamer counts it");
    }

    #[test]
    fn a_fir_counts_once_per_number_and_only_for_the_picture() {
        let epoch = Instant::now();
        let mut feedback = feedback(epoch);
        let mut read = |ssrc, sequence_number| {
            let fir = FullIntraRequest {
                sender_ssrc: 9,
                media_ssrc: 0,
                fir: vec![FirEntry {
                    ssrc,
                    sequence_number,
                }],
            };
            feedback.read(epoch, &[Box::new(fir)]).len()
        };
        assert_eq!([read(VIDEO, 5), read(VIDEO, 5), read(VIDEO, 6)], [1, 0, 1]);
        assert_eq!([read(1, 1), read(3, 1)], [0, 0]);
    }

    #[test]
    fn a_nack_names_every_lost_packet_and_strangers_are_passed_over() {
        let epoch = Instant::now();
        let mut feedback = feedback(epoch);
        let nack = |media_ssrc| -> Box<dyn rtcp::Packet> {
            Box::new(TransportLayerNack {
                sender_ssrc: 9,
                media_ssrc,
                nacks: vec![NackPair {
                    packet_id: 65_535,
                    lost_packets: 0b101,
                }],
            })
        };
        let pli = |media_ssrc| -> Box<dyn rtcp::Packet> {
            Box::new(PictureLossIndication {
                sender_ssrc: 9,
                media_ssrc,
            })
        };
        let said = feedback.read(epoch, &[nack(VIDEO), nack(4), pli(VIDEO), pli(1)]);
        assert_eq!(
            said,
            [
                Said::Nack {
                    ssrc: VIDEO,
                    sequences: vec![65_535, 0, 2]
                },
                Said::Pli
            ]
        );
    }

    #[test]
    fn the_estimate_saturates() {
        let epoch = Instant::now();
        let remb = |bitrate| -> Box<dyn rtcp::Packet> {
            Box::new(ReceiverEstimatedMaximumBitrate {
                sender_ssrc: 9,
                bitrate,
                ssrcs: vec![VIDEO],
            })
        };
        let said = feedback(epoch).read(epoch, &[remb(1.5e6), remb(f32::INFINITY), remb(f32::NAN)]);
        let all = [1_500_000, u32::MAX, 0].map(|b| Said::Remb(Bitrate(b)));
        assert_eq!(said, all);
    }
}
