//! Our place in the engine's chain: sees every RTP packet that leaves and all RTCP that comes.
//!
//! It takes the part of the engine's own sender reports (which pair the wrong instants), NACK responder (which
//! answers storms) and statistics (which stay zero). It runs on the engine's task, so it never waits: events go
//! into a bounded queue or are counted as dropped.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use rtc::interceptor::{
    Attribute, AttributedPacket, Interceptor, Packet, StreamInfo, TaggedPacket,
};
use rtc::sansio::Protocol;
use rtc::shared::TransportContext;
use rtc::shared::error::Error;
use tokio::sync::{Notify, mpsc};

use super::Event;
use super::burst::Burst;
use super::counters::Shared;
use super::feedback::{Feedback, Said};
use super::packetizer::Timeline;
use super::reports::Reports;
use super::retransmit::{Budget, Retransmitter};
use crate::media::access_unit::Track;
use crate::media::time::MediaClock;

/// Places in the event queue that only changes of state may take: a storm of requests cannot hide the end.
const RESERVED: usize = 16;

/// One track as the interceptor knows it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stream {
    /// Which track.
    pub(super) track: Track,
    /// Its SSRC.
    pub(super) ssrc: u32,
    /// Its timestamps.
    pub(super) timeline: Timeline,
}

/// The interceptor.
pub(super) struct Egress {
    clock: MediaClock,
    burst: Arc<Burst>,
    streams: Vec<Stream>,
    reports: Reports,
    memories: Vec<Retransmitter>,
    budget: Budget,
    feedback: Feedback,
    counters: Arc<Shared>,
    events: mpsc::Sender<Event>,
    farewell: Arc<Notify>,
    reads: VecDeque<TaggedPacket>,
    writes: VecDeque<TaggedPacket>,
}

impl Egress {
    /// An interceptor for `streams` of a connection called `cname`, whose packets wait in `burst`. `farewell` is
    /// notified once goodbye is said.
    pub(super) fn new(
        clock: MediaClock,
        cname: &str,
        streams: Vec<Stream>,
        burst: Arc<Burst>,
        counters: Arc<Shared>,
        events: mpsc::Sender<Event>,
        farewell: Arc<Notify>,
    ) -> Self {
        let timelines: Vec<_> = streams.iter().map(|s| (s.ssrc, s.timeline)).collect();
        let tracks: Vec<_> = streams
            .iter()
            .map(|s| (s.track, s.ssrc, s.timeline.hz()))
            .collect();
        Self {
            clock,
            burst,
            reports: Reports::new(clock, cname, &timelines),
            memories: streams.iter().map(|s| Retransmitter::new(s.ssrc)).collect(),
            budget: Budget::new(),
            feedback: Feedback::new(clock, &tracks),
            streams,
            counters,
            events,
            farewell,
            reads: VecDeque::new(),
            writes: VecDeque::new(),
        }
    }

    fn sent(&mut self, now: Instant, packet: &rtc::rtp::Packet) {
        let ssrc = packet.header.ssrc;
        let Some(stream) = self.streams.iter().find(|s| s.ssrc == ssrc) else {
            return;
        };
        let age = stream
            .timeline
            .age(packet.header.timestamp, self.clock.at(now));
        let mut counters = self.counters.lock();
        counters.packets += 1;
        counters.bytes += packet.payload.len() as u64;
        if stream.track == Track::Video && packet.header.marker {
            counters.capture_to_wire.add(age);
        }
        drop(counters);
        self.reports.sent(now, ssrc, packet.payload.len());
        if let Some(memory) = self.memories.iter_mut().find(|m| m.ssrc() == ssrc) {
            memory.remember(now, packet, &mut self.budget);
        }
    }

    fn report(&mut self, now: Instant) {
        for compound in self.reports.take(now) {
            self.write(now, Packet::Rtcp(compound));
        }
    }

    fn write(&mut self, now: Instant, packet: Packet) {
        self.writes.push_back(TaggedPacket {
            now,
            transport: TransportContext::default(),
            message: AttributedPacket::new(packet),
        });
    }

    fn heard(&mut self, now: Instant, said: Said) {
        let mut counters = self.counters.lock();
        let event = match said {
            Said::Bye => {
                counters.goodbyes += 1;
                tracing::debug!("the server said goodbye over RTCP");
                return;
            }
            Said::Fir => {
                counters.firs += 1;
                Event::KeyFrameRequested
            }
            Said::Nack { ssrc, sequences } => {
                counters.nacks += sequences.len() as u64;
                drop(counters);
                self.nacked(now, ssrc, sequences);
                return;
            }
            Said::Pli => {
                counters.plis += 1;
                Event::KeyFrameRequested
            }
            Said::Remb(bitrate) => Event::Remb(bitrate),
            Said::Report(report) => {
                counters.receiver_reports += 1;
                counters.round_trip = report.round_trip.or(counters.round_trip);
                match report.track {
                    Track::Audio => counters.audio_report = Some(report),
                    Track::Video => counters.video_report = Some(report),
                }
                Event::ReceiverReport(report)
            }
        };
        let sent = self.events.capacity() > RESERVED && self.events.try_send(event).is_ok();
        counters.events_dropped += u64::from(!sent);
    }

    fn nacked(&mut self, now: Instant, ssrc: u32, sequences: Vec<u16>) {
        let Some(memory) = self.memories.iter_mut().find(|m| m.ssrc() == ssrc) else {
            return;
        };
        let mut again = Vec::new();
        let answer = memory.answer(now, sequences.into_iter(), &mut self.budget, &mut again);
        let mut counters = self.counters.lock();
        counters.retransmissions += answer.sent;
        counters.nacks_refused += answer.refused;
        drop(counters);
        self.writes
            .extend(again.into_iter().map(|packet| TaggedPacket {
                now,
                transport: TransportContext::default(),
                message: AttributedPacket::new(Packet::Rtp(packet)).with(Attribute::Retransmission),
            }));
    }
}

impl Protocol<TaggedPacket, TaggedPacket, ()> for Egress {
    type Rout = TaggedPacket;
    type Wout = TaggedPacket;
    type Eout = ();
    type Error = Error;
    type Time = Instant;

    fn handle_read(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        if let Packet::Rtcp(packets) = &packet.message.packet {
            for said in self.feedback.read(packet.now, packets) {
                self.heard(packet.now, said);
            }
        }
        self.reads.push_back(packet);
        Ok(())
    }

    fn poll_read(&mut self) -> Option<TaggedPacket> {
        self.reads.pop_front()
    }

    fn handle_write(&mut self, packet: TaggedPacket) -> Result<(), Error> {
        let now = packet.now;
        match &packet.message.packet {
            Packet::Rtp(last) => {
                for packet in self.burst.take() {
                    self.sent(now, &packet);
                    self.write(now, Packet::Rtp(packet));
                }
                self.sent(now, last);
                self.writes.push_back(packet);
                self.report(now);
            }
            // The application writes RTCP for one reason only: to say goodbye. What it says is ours to word.
            Packet::Rtcp(_) => {
                for compound in self.reports.goodbye(now) {
                    self.write(now, Packet::Rtcp(compound));
                }
                self.farewell.notify_one();
            }
            _ => self.writes.push_back(packet),
        }
        Ok(())
    }

    fn poll_write(&mut self) -> Option<TaggedPacket> {
        self.writes.pop_front()
    }

    fn handle_timeout(&mut self, now: Instant) -> Result<(), Error> {
        self.report(now);
        Ok(())
    }

    fn poll_timeout(&mut self) -> Option<Instant> {
        self.reports.due()
    }
}

impl Interceptor for Egress {
    fn bind_local_stream(&mut self, _: &StreamInfo) {}

    fn unbind_local_stream(&mut self, _: &StreamInfo) {}

    fn bind_remote_stream(&mut self, _: &StreamInfo) {}

    fn unbind_remote_stream(&mut self, _: &StreamInfo) {}
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use rtc::rtcp::transport_feedbacks::transport_layer_nack::{NackPair, TransportLayerNack};
    use rtc::rtp;

    use super::*;

    const SSRC: u32 = 7;

    fn egress(burst: &Arc<Burst>, counters: &Arc<Shared>) -> Egress {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let stream = Stream {
            track: Track::Video,
            ssrc: SSRC,
            timeline: Timeline::new(Track::Video, 0),
        };
        Egress::new(
            clock,
            "name",
            vec![stream],
            Arc::clone(burst),
            Arc::clone(counters),
            mpsc::channel(32).0,
            Arc::default(),
        )
    }

    fn packet(sequence_number: u16) -> rtp::Packet {
        rtp::Packet {
            header: rtp::Header {
                version: 2,
                sequence_number,
                ssrc: SSRC,
                ..rtp::Header::default()
            },
            payload: vec![sequence_number as u8; 100].into(),
        }
    }

    fn tagged(packet: Packet) -> TaggedPacket {
        TaggedPacket {
            now: Instant::now(),
            transport: TransportContext::default(),
            message: AttributedPacket::new(packet),
        }
    }

    /// Sequence numbers of the RTP packets that leave.
    fn leaving(egress: &mut Egress) -> Vec<u16> {
        std::iter::from_fn(|| egress.poll_write())
            .filter_map(|packet| {
                let Packet::Rtp(packet) = packet.message.packet else {
                    return None;
                };
                Some(packet.header.sequence_number)
            })
            .collect()
    }

    #[test]
    fn a_burst_leaves_with_its_last_packet_in_order_and_each_packet_counts_and_is_remembered() {
        let (burst, counters) = (Arc::default(), Arc::default());
        let mut egress = egress(&burst, &counters);
        for n in 1..=4 {
            burst.push(packet(n));
        }
        assert!(leaving(&mut egress).is_empty());
        let last = tagged(Packet::Rtp(packet(5)));
        egress.handle_write(last).expect("taken");
        assert_eq!(leaving(&mut egress), [1, 2, 3, 4, 5]);
        assert_eq!(counters.lock().packets, 5);
        assert_eq!(counters.lock().bytes, 500);

        let nack = TransportLayerNack {
            sender_ssrc: 1,
            media_ssrc: SSRC,
            nacks: vec![NackPair::new(3)],
        };
        let nack = tagged(Packet::Rtcp(vec![Box::new(nack)]));
        egress.handle_read(nack).expect("taken");
        assert_eq!(leaving(&mut egress), [3]);
    }

    #[test]
    fn an_engine_that_takes_nothing_costs_a_bounded_memory_of_the_newest_packets() {
        let burst = Arc::<Burst>::default();
        for n in 0..10_000 {
            burst.push(packet(n));
        }
        let (counters, last) = (Arc::default(), packet(10_000));
        let mut egress = egress(&burst, &counters);
        let last = tagged(Packet::Rtp(last));
        egress.handle_write(last).expect("taken");
        let left = leaving(&mut egress);
        assert_eq!(left.len(), 65);
        assert_eq!((left[0], left[64]), (9_936, 10_000));
    }
}
