//! Answers NACKs from a bounded memory of what was sent, and refuses to be made a flood.
//!
//! A receiver that repeats its NACKs can make a sender that answers each of them drown the very link that lost the
//! packets (measured: 36 559 retransmissions in a minute on a 1 Mbit/s path). So one packet is sent again at most
//! [`TIMES`] times, [`PAUSE`] apart, and all together at most [`SHARE`] of the traffic. Pure: told the time.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use rtc::rtp;

/// Packets remembered per track; at 6 Mbit/s of video still most of a second.
const PACKETS: usize = 512;

/// Age beyond which a packet comes too late for any jitter buffer (OvenMediaEngine waits 400 ms at most).
const AGE: Duration = Duration::from_secs(1);

/// Least time between two retransmissions of one packet: a round trip that is not yet hopeless.
const PAUSE: Duration = Duration::from_millis(150);

/// Most retransmissions of one packet.
const TIMES: u8 = 3;

/// One retransmission is earned by this many packets sent (30 per second at 2 Mbit/s of video).
const SHARE: u32 = 8;

/// Retransmissions that may be saved up: a burst of losses is answered whole.
const BURST: u32 = 32;

struct Sent {
    at: Instant,
    packet: rtp::Packet,
    again: u8,
    last: Option<Instant>,
}

/// What became of the sequence numbers of NACKs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Answer {
    /// Sent again.
    pub(super) sent: u64,
    /// Refused: too old or unknown, asked too often, or beyond the budget.
    pub(super) refused: u64,
}

/// The memory of one track.
pub(super) struct Retransmitter {
    ssrc: u32,
    /// In order of sequence numbers without holes, oldest first.
    sent: VecDeque<Sent>,
}

/// The budget that a connection's tracks share.
pub(super) struct Budget {
    /// In units of one packet sent; a retransmission costs [`SHARE`].
    credit: u32,
}

impl Budget {
    /// A full budget: early losses are answered.
    pub(super) const fn new() -> Self {
        Self {
            credit: BURST * SHARE,
        }
    }

    fn earn(&mut self) {
        self.credit = (self.credit + 1).min(BURST * SHARE);
    }

    fn spend(&mut self) -> bool {
        let left = self.credit.checked_sub(SHARE);
        self.credit = left.unwrap_or(self.credit);
        left.is_some()
    }
}

impl Retransmitter {
    /// An empty memory for the packets of `ssrc`.
    pub(super) const fn new(ssrc: u32) -> Self {
        Self {
            ssrc,
            sent: VecDeque::new(),
        }
    }

    /// The track's SSRC.
    pub(super) const fn ssrc(&self) -> u32 {
        self.ssrc
    }

    /// Remembers a packet that leaves at `now`, and forgets what is too old or too much.
    pub(super) fn remember(&mut self, now: Instant, packet: &rtp::Packet, budget: &mut Budget) {
        budget.earn();
        let follows = self.sent.back().is_none_or(|last| {
            last.packet.header.sequence_number.wrapping_add(1) == packet.header.sequence_number
        });
        if !follows {
            self.sent.clear();
        }
        while self.sent.len() >= PACKETS
            || self
                .sent
                .front()
                .is_some_and(|oldest| now.saturating_duration_since(oldest.at) > AGE)
        {
            self.sent.pop_front();
        }
        self.sent.push_back(Sent {
            at: now,
            packet: packet.clone(),
            again: 0,
            last: None,
        });
    }

    /// The packets to send again for a NACK of `sequences` that arrived at `now`.
    pub(super) fn answer(
        &mut self,
        now: Instant,
        sequences: impl Iterator<Item = u16>,
        budget: &mut Budget,
        again: &mut Vec<rtp::Packet>,
    ) -> Answer {
        let mut answer = Answer::default();
        for sequence in sequences {
            match self.one(now, sequence, budget) {
                Some(packet) => {
                    answer.sent += 1;
                    again.push(packet);
                }
                None => answer.refused += 1,
            }
        }
        answer
    }

    fn one(&mut self, now: Instant, sequence: u16, budget: &mut Budget) -> Option<rtp::Packet> {
        let first = self.sent.front()?.packet.header.sequence_number;
        let sent = self
            .sent
            .get_mut(usize::from(sequence.wrapping_sub(first)))?;
        let rested = sent
            .last
            .is_none_or(|last| now.saturating_duration_since(last) >= PAUSE);
        let fresh = now.saturating_duration_since(sent.at) <= AGE;
        if !rested || !fresh || sent.again >= TIMES || !budget.spend() {
            return None;
        }
        sent.again += 1;
        sent.last = Some(now);
        Some(sent.packet.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence_number: u16) -> rtp::Packet {
        rtp::Packet {
            header: rtp::Header {
                sequence_number,
                ssrc: 7,
                ..Default::default()
            },
            payload: bytes::Bytes::from_static(&[1]),
        }
    }

    fn filled(now: Instant, first: u16, count: u16) -> (Retransmitter, Budget) {
        let mut memory = Retransmitter::new(7);
        let mut budget = Budget::new();
        for n in 0..count {
            memory.remember(now, &packet(first.wrapping_add(n)), &mut budget);
        }
        (memory, budget)
    }

    fn ask(
        memory: &mut Retransmitter,
        budget: &mut Budget,
        now: Instant,
        sequences: &[u16],
    ) -> Vec<u16> {
        let mut again = Vec::new();
        let answer = memory.answer(now, sequences.iter().copied(), budget, &mut again);
        assert_eq!(answer.sent as usize, again.len());
        assert_eq!((answer.sent + answer.refused) as usize, sequences.len());
        again.iter().map(|p| p.header.sequence_number).collect()
    }

    #[test]
    fn a_lost_packet_is_sent_again_across_the_wrap() {
        let now = Instant::now();
        let (mut memory, mut budget) = filled(now, 65_530, 20);
        let got = ask(&mut memory, &mut budget, now, &[65_535, 0, 13, 14, 65_529]);
        assert_eq!(got, [65_535, 0, 13]);
    }

    #[test]
    fn a_repeated_nack_is_answered_three_times_and_no_oftener_than_every_150_ms() {
        let now = Instant::now();
        let (mut memory, mut budget) = filled(now, 0, 10);
        let times: Vec<u64> = (0..100)
            .map(|n| n * 10)
            .filter(|&ms| {
                let at = now + Duration::from_millis(ms);
                !ask(&mut memory, &mut budget, at, &[5]).is_empty()
            })
            .collect();
        assert_eq!(times, [0, 150, 300]);
    }

    #[test]
    fn a_storm_is_held_to_a_share_of_the_traffic() {
        let now = Instant::now();
        let (mut memory, mut budget) = filled(now, 0, 500);
        let all: Vec<u16> = (0..500).collect();
        assert_eq!(
            ask(&mut memory, &mut budget, now, &all).len(),
            BURST as usize
        );
        for n in 500..580 {
            memory.remember(now, &packet(n), &mut budget);
        }
        let later = now + PAUSE;
        assert_eq!(ask(&mut memory, &mut budget, later, &all).len(), 10);
    }

    #[test]
    fn memory_is_bounded_in_number_and_age() {
        let now = Instant::now();
        let (mut memory, mut budget) = filled(now, 0, 2_000);
        assert_eq!(memory.sent.len(), PACKETS);
        let late = now + AGE + Duration::from_millis(1);
        assert!(ask(&mut memory, &mut budget, late, &[1_999]).is_empty());
        memory.remember(late, &packet(2_000), &mut budget);
        assert_eq!(memory.sent.len(), 1);
    }
}
