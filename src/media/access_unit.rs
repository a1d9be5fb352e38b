//! Encoded media for one instant, and a reader of H.264 byte streams.

use bytes::Bytes;

use super::time::MediaTime;

/// Which of a feed's two tracks something belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// Opus.
    Audio,
    /// H.264.
    Video,
}

impl std::fmt::Display for Track {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Audio => "audio",
            Self::Video => "video",
        })
    }
}

/// Encoded media for one instant: one H.264 access unit (Annex B) or one Opus packet of 20 ms.
///
/// Cheap to clone: the bytes are shared, encoded once for any number of publishers.
#[derive(Clone, Debug)]
pub struct AccessUnit {
    /// The track it belongs to.
    pub track: Track,
    /// Capture time of the picture, or of the packet's first sample.
    pub captured: MediaTime,
    /// Decoding can start here: an IDR picture with SPS and PPS in front; every Opus packet.
    pub key: bool,
    /// Annex B byte stream (video), or one Opus packet (audio).
    pub data: Bytes,
}

/// Kind of a NAL unit, as far as publishing cares (ITU-T H.264, table 7-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NalKind {
    /// Slice of an IDR picture (5).
    Idr,
    /// Any other.
    Other(u8),
    /// Picture parameter set (8).
    Pps,
    /// Slice of a non-IDR picture (1).
    Slice,
    /// Sequence parameter set (7).
    Sps,
}

/// Kind of the NAL unit that begins with `header`.
pub const fn nal_kind(header: u8) -> NalKind {
    match header & 0x1F {
        1 => NalKind::Slice,
        5 => NalKind::Idr,
        7 => NalKind::Sps,
        8 => NalKind::Pps,
        other => NalKind::Other(other),
    }
}

/// The NAL units of an Annex B byte stream, without start codes; empty ones are passed over.
///
/// Accepts three- and four-byte start codes and trailing zero bytes (ITU-T H.264, annex B). Bytes before the
/// first start code are ignored.
pub fn nal_units(stream: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(stream);
    std::iter::from_fn(move || {
        loop {
            let here = rest?;
            let (mut unit, next) = match find_start_code(here) {
                Some(at) => (&here[..at], Some(&here[at + 3..])),
                None => (here, None),
            };
            rest = next;
            while let [head @ .., 0] = unit {
                unit = head;
            }
            if !unit.is_empty() {
                return Some(unit);
            }
        }
    })
}

fn after_start_code(stream: &[u8]) -> Option<&[u8]> {
    find_start_code(stream).map(|at| &stream[at + 3..])
}

fn find_start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|w| w == [0, 0, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_start_codes_and_trailing_zeros_are_understood() {
        let stream = [
            0, 0, 0, 1, 0x67, 1, 2, 0, 0, 1, 0x68, 3, 0, 0, 0, 1, 0x65, 4, 0, 0,
        ];
        let units: Vec<_> = nal_units(&stream).collect();
        assert_eq!(units, [&[0x67, 1, 2][..], &[0x68, 3], &[0x65, 4]]);
        let kinds: Vec<_> = units.iter().map(|u| nal_kind(u[0])).collect();
        assert_eq!(kinds, [NalKind::Sps, NalKind::Pps, NalKind::Idr]);
    }

    #[test]
    fn garbage_holds_no_units() {
        assert_eq!(nal_units(&[]).count(), 0);
        assert_eq!(nal_units(&[1, 2, 3, 4]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1]).count(), 0);
        assert_eq!(nal_units(&[0, 0, 1, 0, 0, 1]).count(), 0);
    }
}
