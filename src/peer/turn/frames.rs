//! What a TURN connection over TCP or TLS is made of: STUN messages and ChannelData, one after the other, each telling
//! its own length (RFC 8656, section 2.1 and 12.5).

use bytes::{Buf as _, Bytes, BytesMut};

/// Longest frame that is taken: data of a UDP packet, and what STUN puts around it.
const LONGEST: usize = 16 * 1024;

/// Why a stream of frames cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// Neither STUN nor ChannelData begins so.
    #[error("what the server sends is no TURN")]
    Foreign,
    /// It claims to be longer than anything that was asked for.
    #[error("the server sends a message of more than {LONGEST} bytes")]
    TooLong,
}

/// Takes bytes as they come and gives whole frames.
#[derive(Debug, Default)]
pub(super) struct Frames {
    /// What has come and was not given. Bounded by the caller's reads and the longest frame.
    pub(super) buffer: BytesMut,
}

impl Frames {
    /// The next frame, without what pads it; `None` until more has come.
    pub(super) fn next(&mut self) -> Result<Option<Bytes>, Broken> {
        let &[first, _, high, low, ..] = self.buffer.as_ref() else {
            return Ok(None);
        };
        let claimed = usize::from(u16::from_be_bytes([high, low]));
        let (len, padded) = match first {
            0..=3 => (20 + claimed, 20 + claimed),
            // Channel numbers are 0x4000 to 0x4FFF (RFC 8656), or up to 0x7FFF (RFC 5766).
            0x40..=0x7F => (4 + claimed, 4 + claimed.next_multiple_of(4)),
            _ => return Err(Broken::Foreign),
        };
        if padded > LONGEST {
            return Err(Broken::TooLong);
        }
        if self.buffer.len() < padded {
            return Ok(None);
        }
        let frame = self.buffer.copy_to_bytes(padded);
        Ok(Some(frame.slice(..len)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn stun(body: usize) -> Vec<u8> {
        let mut message = vec![0x01, 0x01, 0, 0];
        message[2..4].copy_from_slice(&(body as u16).to_be_bytes());
        message.resize(20 + body, 7);
        message
    }

    fn data(len: usize) -> Vec<u8> {
        let mut frame = vec![0x40, 0x00, 0, 0];
        frame[2..4].copy_from_slice(&(len as u16).to_be_bytes());
        frame.resize(4 + len, 9);
        frame
    }

    proptest! {
        #[test]
        fn frames_come_out_as_they_went_in(
            lens in proptest::collection::vec((any::<bool>(), 0_usize..300), 0..20),
            cuts in proptest::collection::vec(1_usize..80, 1..400),
        ) {
            let mut sent = Vec::new();
            let mut wire = Vec::new();
            for (is_data, len) in lens {
                let frame = if is_data { data(len) } else { stun(len / 4 * 4) };
                wire.extend_from_slice(&frame);
                wire.resize(wire.len().next_multiple_of(4), 0);
                sent.push(frame);
            }
            let mut frames = Frames::default();
            let mut got = Vec::new();
            let mut rest = wire.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = (*cuts.next().expect("endless")).min(rest.len());
                frames.buffer.extend_from_slice(&rest[..cut]);
                rest = &rest[cut..];
                while let Some(frame) = frames.next().expect("TURN") {
                    got.push(frame.to_vec());
                }
            }
            prop_assert_eq!(got, sent);
            prop_assert!(frames.buffer.is_empty());
        }

        #[test]
        fn whatever_comes_is_bounded(bytes in proptest::collection::vec(any::<u8>(), 0..2_000)) {
            let mut frames = Frames::default();
            frames.buffer.extend_from_slice(&bytes);
            while let Ok(Some(frame)) = frames.next() {
                prop_assert!(frame.len() <= LONGEST);
            }
        }
    }

    #[test]
    fn what_is_no_turn_ends_the_stream() {
        for (first, expected) in [
            (0x16, Broken::Foreign),
            (0x80, Broken::Foreign),
            (0x04, Broken::Foreign),
            (0x00, Broken::TooLong),
            (0x41, Broken::TooLong),
        ] {
            let mut frames = Frames::default();
            frames
                .buffer
                .extend_from_slice(&[first, 0, 0xFF, 0xFC, 0, 0]);
            assert_eq!(frames.next(), Err(expected), "{first:#x}");
        }
    }
}
