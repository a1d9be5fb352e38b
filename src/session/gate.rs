//! The gate: nothing leaves before both tracks can start at one capture instant.
//!
//! OvenMediaEngine sets each track's first packet to zero on its own, so whatever lies between our first audio
//! and our first video packet would stay as a lip-sync error for the whole session (protocols.md 1.3). The
//! gate therefore holds audio until the first key frame and then lets through the audio packet nearest to it
//! and everything after.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::access_unit::{AccessUnit, Track};
use crate::media::time::MediaTime;

/// Audio held at most while the first key frame is awaited: two seconds of 20 ms packets.
const HELD_MAX: usize = 100;

/// Half an Opus packet: the packet that starts within this of the key frame is the nearest one.
const HALF_PACKET: Duration = Duration::from_millis(10);

/// Holds back access units until both tracks can start together.
#[derive(Debug)]
pub(super) enum Gate {
    /// No key frame yet; audio waits, oldest first.
    Closed {
        /// Audio seen so far, bounded by [`HELD_MAX`].
        held: VecDeque<AccessUnit>,
    },
    /// The first key frame was captured at `start`; audio from before it is still dropped.
    Open {
        /// The one capture instant at which both tracks start.
        start: MediaTime,
    },
}

impl Gate {
    /// A gate for a feed with these tracks; with one track alone there is nothing to align.
    pub(super) const fn new(has_video: bool) -> Self {
        if has_video {
            Self::Closed {
                held: VecDeque::new(),
            }
        } else {
            Self::Open {
                start: MediaTime::ZERO,
            }
        }
    }

    /// Takes the next access unit and returns those that may leave now, in order.
    pub(super) fn pass(&mut self, unit: AccessUnit) -> VecDeque<AccessUnit> {
        match self {
            Self::Open { start } => {
                let early = unit.track == Track::Audio && unit.captured + HALF_PACKET < *start;
                if early {
                    VecDeque::new()
                } else {
                    VecDeque::from([unit])
                }
            }
            Self::Closed { held } => match (unit.track, unit.key) {
                (Track::Audio, _) => {
                    if held.len() == HELD_MAX {
                        held.pop_front();
                    }
                    held.push_back(unit);
                    VecDeque::new()
                }
                (Track::Video, false) => VecDeque::new(),
                (Track::Video, true) => {
                    let start = unit.captured;
                    let mut out = std::mem::take(held);
                    out.retain(|audio| audio.captured + HALF_PACKET >= start);
                    out.push_front(unit);
                    *self = Self::Open { start };
                    out
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn unit(track: Track, ms: u64, key: bool) -> AccessUnit {
        let captured = MediaTime::new(Duration::from_millis(ms));
        AccessUnit {
            track,
            captured,
            key,
            data: Bytes::from_static(b"x"),
        }
    }

    fn passed(gate: &mut Gate, unit: AccessUnit) -> Vec<(Track, u64)> {
        let ms = |unit: &AccessUnit| unit.captured.since_epoch().as_millis() as u64;
        gate.pass(unit).iter().map(|u| (u.track, ms(u))).collect()
    }

    #[test]
    fn both_tracks_start_within_half_a_packet_of_one_instant() {
        for offset in 0..20 {
            let mut gate = Gate::new(true);
            for n in 0..10 {
                assert!(passed(&mut gate, unit(Track::Audio, offset + n * 20, true)).is_empty());
            }
            assert!(passed(&mut gate, unit(Track::Video, 90, false)).is_empty());
            let mut out = passed(&mut gate, unit(Track::Video, 123, true));
            for n in 10..20 {
                out.extend(passed(&mut gate, unit(Track::Audio, offset + n * 20, true)));
            }
            assert_eq!(out[0], (Track::Video, 123));
            let first_audio = out
                .iter()
                .find(|(track, _)| *track == Track::Audio)
                .unwrap()
                .1;
            assert!(
                first_audio.abs_diff(123) <= 10,
                "offset {offset}: audio starts at {first_audio}"
            );
            let audio: Vec<_> = out
                .iter()
                .filter(|(t, _)| *t == Track::Audio)
                .map(|(_, ms)| *ms)
                .collect();
            assert!(
                audio.windows(2).all(|w| w[1] == w[0] + 20),
                "no packet is lost in between"
            );
        }
    }

    #[test]
    fn late_audio_from_before_the_start_stays_out() {
        let mut gate = Gate::new(true);
        assert_eq!(passed(&mut gate, unit(Track::Video, 500, true)).len(), 1);
        assert!(passed(&mut gate, unit(Track::Audio, 480, true)).is_empty());
        assert_eq!(passed(&mut gate, unit(Track::Audio, 500, true)).len(), 1);
    }

    #[test]
    fn audio_held_for_a_picture_that_never_comes_is_bounded() {
        let mut gate = Gate::new(true);
        for n in 0..10_000 {
            assert!(gate.pass(unit(Track::Audio, n * 20, true)).is_empty());
        }
        assert!(matches!(&gate, Gate::Closed { held } if held.len() == HELD_MAX));
    }

    #[test]
    fn sound_alone_needs_no_gate() {
        assert_eq!(
            passed(&mut Gate::new(false), unit(Track::Audio, 3, true)),
            [(Track::Audio, 3)]
        );
    }
}
