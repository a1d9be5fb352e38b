//! H.264 out of RTP, strictly: packets in order, access units out, and every liberty the publisher took.
//!
//! Pure. Reordered packets wait for the missing one until a later limit (packets or time) is passed; then the
//! hole is a loss and the access units it touches are damaged.

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;

use crate::media::access_unit::NalKind;
use crate::media::access_unit::nal_kind;

/// Largest RTP payload that passes every path onair knows of.
pub(super) const MAX_PAYLOAD: usize = 1200;
/// How long a hole may stay open for reordering or retransmission.
const PATIENCE: Duration = Duration::from_millis(400);
/// Packets that may wait behind a hole.
const WAITING: usize = 2048;
/// Largest access unit that is put together; a larger one is damaged.
const MAX_UNIT: usize = 4 * 1024 * 1024;

/// One RTP packet, sequence number and timestamp extended by the receiver.
#[derive(Clone, Debug)]
pub(super) struct Packet {
    pub(super) sequence: u64,
    pub(super) time: u64,
    pub(super) marker: bool,
    pub(super) payload: Vec<u8>,
    pub(super) arrived: Instant,
}

/// An access unit.
#[derive(Clone, Debug)]
pub(super) struct Unit {
    pub(super) time: u64,
    /// Arrival of its last packet.
    pub(super) arrived: Instant,
    /// Annex B.
    pub(super) data: Vec<u8>,
    /// Sizes of RTP payloads, summed.
    pub(super) payload_bytes: u64,
    pub(super) idr: bool,
    pub(super) sps: bool,
    pub(super) pps: bool,
    pub(super) b_slice: bool,
}

/// What comes out, in order.
#[derive(Clone, Debug)]
pub(super) enum Output {
    /// A rule was broken: its name and what was seen.
    Broken(&'static str, String),
    /// An access unit is damaged or missing altogether.
    Lost,
    /// A complete access unit.
    Unit(Unit),
}

/// Puts access units together.
#[derive(Debug, Default)]
pub(super) struct Depacketizer {
    next: Option<u64>,
    waiting: BTreeMap<u64, Packet>,
    unit: Option<Partial>,
    /// Time of the last access unit that ended, by marker, by the next timestamp or by loss.
    last_time: Option<u64>,
    output: Vec<Output>,
}

#[derive(Debug)]
struct Partial {
    unit: Unit,
    damaged: bool,
    in_fragment: bool,
}

impl Depacketizer {
    /// Takes one packet. Duplicates and packets that come after their hole was given up are ignored.
    pub(super) fn push(&mut self, packet: Packet) {
        let next = *self.next.get_or_insert(packet.sequence);
        if packet.sequence < next {
            return;
        }
        self.waiting.insert(packet.sequence, packet);
        self.advance();
        if self.waiting.len() > WAITING {
            self.give_up();
        }
    }

    /// Gives up holes that have been open too long, as of `now`.
    pub(super) fn tick(&mut self, now: Instant) {
        while let Some((_, first)) = self.waiting.first_key_value() {
            if now.saturating_duration_since(first.arrived) < PATIENCE {
                break;
            }
            self.give_up();
        }
    }

    /// Takes out what has come of it.
    pub(super) fn drain(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.output)
    }

    fn advance(&mut self) {
        while let Some(next) = self.next
            && let Some(packet) = self.waiting.remove(&next)
        {
            self.next = Some(next + 1);
            self.accept(packet);
        }
    }

    /// The packets before the first waiting one are lost.
    fn give_up(&mut self) {
        let Some((&first, packet)) = self.waiting.first_key_value() else {
            return;
        };
        let time = packet.time;
        self.next = Some(first);
        match &mut self.unit {
            Some(partial) if partial.unit.time == time => partial.damaged = true,
            Some(partial) => {
                partial.damaged = true;
                self.close();
            }
            None => self.output.push(Output::Lost),
        }
        self.advance();
    }

    fn accept(&mut self, packet: Packet) {
        if packet.payload.is_empty() {
            return;
        }
        if packet.payload.len() > MAX_PAYLOAD {
            let seen = format!("{} bytes of RTP payload", packet.payload.len());
            self.broken("payload-size", seen);
        }
        if let Some(partial) = &self.unit
            && partial.unit.time != packet.time
        {
            if !partial.damaged {
                let time = partial.unit.time;
                self.broken(
                    "marker",
                    format!("none on the last packet of timestamp {time}"),
                );
            }
            self.close();
        }
        let mut partial = match self.unit.take() {
            Some(partial) => partial,
            None => self.open(&packet),
        };
        partial.unit.arrived = packet.arrived;
        partial.unit.payload_bytes += packet.payload.len() as u64;
        if let Err(seen) = partial.payload(&packet.payload) {
            partial.damaged = true;
            if let Some(seen) = seen {
                self.broken("packetization", seen);
            }
        }
        self.unit = Some(partial);
        if packet.marker {
            self.close();
        }
    }

    fn open(&mut self, packet: &Packet) -> Partial {
        if let Some(last) = self.last_time {
            if packet.time == last {
                self.broken(
                    "marker",
                    format!("packets of timestamp {last} after its marker"),
                );
            } else if packet.time < last {
                let seen = format!("timestamp {} after {last}", packet.time);
                self.broken("timestamp-order", seen);
            }
        }
        Partial {
            unit: Unit {
                time: packet.time,
                arrived: packet.arrived,
                data: Vec::new(),
                payload_bytes: 0,
                idr: false,
                sps: false,
                pps: false,
                b_slice: false,
            },
            damaged: false,
            in_fragment: false,
        }
    }

    fn close(&mut self) {
        let Some(mut partial) = self.unit.take() else {
            return;
        };
        self.last_time = Some(partial.unit.time);
        if partial.in_fragment {
            partial.damaged = true;
        }
        self.output.push(if partial.damaged {
            Output::Lost
        } else {
            Output::Unit(partial.unit)
        });
    }

    fn broken(&mut self, rule: &'static str, seen: String) {
        self.output.push(Output::Broken(rule, seen));
    }
}

impl Partial {
    /// Adds one RTP payload (RFC 6184). An error with a text is the publisher's doing, one without may be loss.
    fn payload(&mut self, payload: &[u8]) -> Result<(), Option<String>> {
        let [header, rest @ ..] = payload else {
            return Err(None);
        };
        match header & 0x1F {
            1..=23 => {
                self.nal(payload);
                Ok(())
            }
            24 => self.aggregate(rest),
            28 => self.fragment(*header, rest),
            0 | 30 | 31 => Err(Some(format!("reserved payload type {}", header & 0x1F))),
            25 => Err(Some("a STAP-B".to_owned())),
            26 | 27 => Err(Some("an MTAP".to_owned())),
            _ => Err(Some("an FU-B".to_owned())),
        }
    }

    fn aggregate(&mut self, mut rest: &[u8]) -> Result<(), Option<String>> {
        while let [high, low, more @ ..] = rest {
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            if length == 0 || length > more.len() {
                return Err(Some(format!(
                    "a STAP-A unit of {length} bytes in {}",
                    more.len()
                )));
            }
            let (nal, after) = more.split_at(length);
            self.nal(nal);
            rest = after;
        }
        if rest.is_empty() {
            Ok(())
        } else {
            Err(Some("a stray byte at the end of a STAP-A".to_owned()))
        }
    }

    fn fragment(&mut self, indicator: u8, rest: &[u8]) -> Result<(), Option<String>> {
        let [header, body @ ..] = rest else {
            return Err(Some("an FU-A without header".to_owned()));
        };
        let (start, end) = (header & 0x80 != 0, header & 0x40 != 0);
        if start && end {
            return Err(Some("an FU-A that is start and end at once".to_owned()));
        }
        if start {
            let mut nal = vec![indicator & 0xE0 | header & 0x1F];
            nal.extend_from_slice(body);
            self.nal(&nal);
            self.in_fragment = true;
        } else if self.in_fragment {
            self.unit.data.extend_from_slice(body);
            self.in_fragment = !end;
        } else {
            return Err(None);
        }
        self.check_size()
    }

    fn nal(&mut self, nal: &[u8]) {
        let unit = &mut self.unit;
        match nal.first().map(|header| nal_kind(*header)) {
            Some(NalKind::Idr) => unit.idr = true,
            Some(NalKind::Sps) => unit.sps = true,
            Some(NalKind::Pps) => unit.pps = true,
            Some(NalKind::Slice) => unit.b_slice |= slice_type(nal).is_some_and(|t| t % 5 == 1),
            Some(NalKind::Other(_)) | None => {}
        }
        unit.data.extend_from_slice(&[0, 0, 0, 1]);
        unit.data.extend_from_slice(nal);
        // A unit that begins while a fragment is open means that the fragment's end is missing.
        if self.in_fragment {
            self.damaged = true;
            self.in_fragment = false;
        }
    }

    fn check_size(&self) -> Result<(), Option<String>> {
        if self.unit.data.len() > MAX_UNIT {
            return Err(Some(format!("an access unit of over {MAX_UNIT} bytes")));
        }
        Ok(())
    }
}

/// `slice_type` of a slice NAL unit (ITU-T H.264, 7.3.3); `None` if it is cut short.
fn slice_type(nal: &[u8]) -> Option<u32> {
    // Two Exp-Golomb codes of a slice header fit well within these bytes.
    let head = nal.get(1..nal.len().min(16))?;
    let mut rbsp = Vec::with_capacity(head.len());
    for (at, byte) in head.iter().enumerate() {
        let emulation = *byte == 3 && at >= 2 && head[at - 2..at] == [0, 0];
        if !emulation {
            rbsp.push(*byte);
        }
    }
    let mut bits = rbsp
        .iter()
        .flat_map(|byte| (0..8).rev().map(move |bit| u32::from(byte >> bit & 1)));
    let mut exp_golomb = || {
        let mut zeros = 0;
        while bits.next()? == 0 {
            zeros += 1;
        }
        if zeros > 24 {
            return None;
        }
        let mut value = 1;
        for _ in 0..zeros {
            value = value << 1 | bits.next()?;
        }
        Some(value - 1)
    };
    let _first_mb_in_slice = exp_golomb()?;
    exp_golomb()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u64, time: u64, marker: bool, payload: &[u8]) -> Packet {
        Packet {
            sequence,
            time,
            marker,
            payload: payload.to_vec(),
            arrived: Instant::now(),
        }
    }

    fn broken(output: &[Output]) -> Vec<&'static str> {
        output
            .iter()
            .filter_map(|o| match o {
                Output::Broken(rule, _) => Some(*rule),
                Output::Lost | Output::Unit(_) => None,
            })
            .collect()
    }

    fn units(output: &[Output]) -> Vec<&Unit> {
        output
            .iter()
            .filter_map(|o| match o {
                Output::Unit(unit) => Some(unit),
                Output::Lost | Output::Broken(..) => None,
            })
            .collect()
    }

    fn lost(output: &[Output]) -> usize {
        output.iter().filter(|o| matches!(o, Output::Lost)).count()
    }

    fn run(packets: Vec<Packet>) -> Vec<Output> {
        let mut depacketizer = Depacketizer::default();
        for packet in packets {
            depacketizer.push(packet);
        }
        depacketizer.tick(Instant::now() + PATIENCE);
        depacketizer.drain()
    }

    #[test]
    fn single_aggregate_and_fragments_make_one_key_unit() {
        let output = run(vec![
            packet(7, 90, false, &[24, 0, 2, 0x67, 1, 0, 2, 0x68, 2]),
            packet(8, 90, false, &[0x7C, 0x85, 1, 2]),
            packet(9, 90, false, &[0x7C, 0x05, 3]),
            packet(10, 90, true, &[0x7C, 0x45, 4]),
        ]);
        assert!(broken(&output).is_empty());
        let units = units(&output);
        assert_eq!(units.len(), 1);
        assert!(units[0].idr && units[0].sps && units[0].pps && !units[0].b_slice);
        assert_eq!(
            units[0].data,
            [
                0, 0, 0, 1, 0x67, 1, 0, 0, 0, 1, 0x68, 2, 0, 0, 0, 1, 0x65, 1, 2, 3, 4
            ]
        );
    }

    #[test]
    fn reordered_packets_are_put_right_and_duplicates_ignored() {
        let output = run(vec![
            packet(1, 90, true, &[0x65, 1]),
            packet(3, 180, true, &[0x41, 0x9A, 2]),
            packet(2, 180, false, &[0x41, 0x9A, 1]),
            packet(2, 180, false, &[0x41, 0x9A, 1]),
        ]);
        assert!(broken(&output).is_empty());
        assert_eq!(units(&output).len(), 2);
        assert_eq!(lost(&output), 0);
    }

    #[test]
    fn a_hole_costs_the_access_units_it_touches_and_breaks_no_rule() {
        // The end of 180 and the head of 270 are missing.
        let output = run(vec![
            packet(1, 90, true, &[0x65, 1]),
            packet(2, 180, false, &[0x7C, 0x81, 0x9A]),
            packet(5, 270, true, &[0x7C, 0x41, 1]),
            packet(6, 360, true, &[0x41, 0x9A]),
        ]);
        assert!(broken(&output).is_empty(), "{output:?}");
        assert_eq!(units(&output).len(), 2);
        assert_eq!(lost(&output), 2);
    }

    #[test]
    fn missing_and_early_markers_are_seen() {
        let missing = run(vec![
            packet(1, 90, false, &[0x65, 1]),
            packet(2, 180, true, &[0x41, 0x9A]),
        ]);
        assert_eq!(broken(&missing), ["marker"]);
        let early = run(vec![
            packet(1, 90, true, &[0x65, 1]),
            packet(2, 90, true, &[0x65, 1]),
        ]);
        assert_eq!(broken(&early), ["marker"]);
        let backwards = run(vec![
            packet(1, 90, true, &[0x65, 1]),
            packet(2, 80, true, &[0x41, 0x9A]),
        ]);
        assert_eq!(broken(&backwards), ["timestamp-order"]);
    }

    #[test]
    fn forbidden_packetizations_are_seen() {
        for payload in [
            &[25_u8, 0, 0, 1][..],
            &[26, 0],
            &[27, 0],
            &[29, 0x85],
            &[24, 0, 9, 1],
        ] {
            let output = run(vec![packet(1, 90, true, payload)]);
            assert_eq!(broken(&output), ["packetization"], "{payload:?}");
            assert_eq!(lost(&output), 1);
        }
        let output = run(vec![packet(1, 90, true, &[0x65; MAX_PAYLOAD + 1])]);
        assert_eq!(broken(&output), ["payload-size"]);
        assert!(broken(&run(vec![packet(1, 90, true, &[0x65; MAX_PAYLOAD])])).is_empty());
    }

    #[test]
    fn b_slices_are_told_from_p_slices() {
        // first_mb_in_slice 0 is `1`; slice_type 5 (P) is `00110`, 6 (B) is `00111`, 0 (P) `1`, 1 (B) `010`.
        assert_eq!(slice_type(&[0x41, 0b1001_1000]), Some(5));
        assert_eq!(slice_type(&[0x41, 0b1001_1100]), Some(6));
        assert_eq!(slice_type(&[0x41, 0b1100_0000]), Some(0));
        assert_eq!(slice_type(&[0x41, 0b1010_0000]), Some(1));
        assert_eq!(slice_type(&[0x41]), None);
        assert_eq!(slice_type(&[0x41, 0, 0, 0]), None);
        let unit = run(vec![packet(1, 90, true, &[0x01, 0b1001_1100])]);
        assert!(units(&unit)[0].b_slice);
    }

    #[test]
    fn garbage_never_panics() {
        let mut state = 1_u64;
        let mut depacketizer = Depacketizer::default();
        for _ in 0..20_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let bytes = state.to_be_bytes();
            let length = usize::from(bytes[1]) % 8;
            depacketizer.push(packet(
                (state >> 33) % 4096,
                (state >> 20) % 7,
                bytes[0] & 1 == 1,
                &bytes[..length],
            ));
        }
        assert!(!depacketizer.drain().is_empty());
        assert!(depacketizer.waiting.len() <= WAITING);
    }
}
