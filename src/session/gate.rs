//! The gate: nothing leaves before both tracks can start at one capture instant.
//!
//! OvenMediaEngine sets each track's first packet to zero on its own, so whatever lies between our first audio
//! and our first video packet would stay as a lip-sync error for the whole session (protocols.md 1.3). The
//! gate therefore holds both tracks until it has a key frame and the audio packet nearest to it, and then lets
//! through these two and everything after.
//!
//! A key frame that was being encoded while this session subscribed is older than the session's first sound. There
//! is no audio to start with it, so it is refused, and another one is asked for.

use std::collections::VecDeque;
use std::time::Duration;

use crate::media::access_unit::{AccessUnit, Track};
use crate::media::time::MediaTime;

/// Audio held at most while the first key frame is awaited: two seconds of 20 ms packets.
const AUDIO_MAX: usize = 100;

/// Video held at most while audio is awaited, one second at 30 pictures per second; then video goes alone.
const VIDEO_MAX: usize = 30;

/// Half an Opus packet: the packet that starts within this of the key frame is the nearest one.
const HALF_PACKET: Duration = Duration::from_millis(10);

/// Holds back access units until both tracks can start together.
#[derive(Debug)]
pub(super) enum Gate {
    /// Not both tracks yet.
    Closed(Held),
    /// Video started at `start`; audio from before it is still dropped.
    Open {
        /// The one capture instant at which both tracks start.
        start: MediaTime,
    },
}

/// What waits at a closed gate.
#[derive(Debug, Default)]
pub(super) struct Held {
    /// Oldest first, at most [`AUDIO_MAX`].
    audio: VecDeque<AccessUnit>,
    /// Begins with a key frame; at most [`VIDEO_MAX`].
    video: VecDeque<AccessUnit>,
    /// Whether there is audio to wait for.
    has_audio: bool,
    /// A key frame was refused. Once is enough: the next one is captured after it was asked for.
    refused: bool,
}

/// What the gate says to one access unit.
#[derive(Debug, Default)]
pub(super) struct Passed {
    /// What may leave now, in order.
    pub(super) units: VecDeque<AccessUnit>,
    /// A key frame was refused: ask for another.
    pub(super) wants_key_frame: bool,
}

impl Gate {
    /// A gate for a feed with these tracks.
    pub(super) fn new(has_video: bool, has_audio: bool) -> Self {
        if has_video {
            Self::Closed(Held {
                has_audio,
                ..Held::default()
            })
        } else {
            Self::Open {
                start: MediaTime::ZERO,
            }
        }
    }

    /// Takes the next access unit and says what may leave now.
    pub(super) fn pass(&mut self, unit: AccessUnit) -> Passed {
        let mut passed = Passed::default();
        match self {
            Self::Open { start } => {
                let early = unit.track == Track::Audio && unit.captured + HALF_PACKET < *start;
                if !early {
                    passed.units.push_back(unit);
                }
            }
            Self::Closed(held) => {
                held.take(unit);
                match held.start() {
                    Start::At(start) => {
                        passed.units = std::mem::take(&mut held.video);
                        let audio = held.audio.drain(..);
                        passed
                            .units
                            .extend(audio.filter(|unit| unit.captured + HALF_PACKET >= start));
                        *self = Self::Open { start };
                    }
                    Start::NotWith => {
                        held.video.clear();
                        held.refused = true;
                        passed.wants_key_frame = true;
                    }
                    Start::NotYet => {}
                }
            }
        }
        passed
    }
}

/// Whether what is held can start.
enum Start {
    /// Both tracks, at this capture instant.
    At(MediaTime),
    /// Sound begins too late for this key frame.
    NotWith,
    /// One of the two is missing.
    NotYet,
}

impl Held {
    fn take(&mut self, unit: AccessUnit) {
        match unit.track {
            Track::Audio => {
                if self.audio.len() == AUDIO_MAX {
                    self.audio.pop_front();
                }
                self.audio.push_back(unit);
            }
            Track::Video => {
                if unit.key {
                    self.video.clear();
                }
                if unit.key || !self.video.is_empty() {
                    self.video.push_back(unit);
                }
            }
        }
    }

    fn start(&self) -> Start {
        let Some(start) = self.video.front().map(|unit| unit.captured) else {
            return Start::NotYet;
        };
        match self.audio.front() {
            Some(first) if first.captured <= start + HALF_PACKET => Start::At(start),
            Some(_) if !self.refused => Start::NotWith,
            None if self.has_audio && self.video.len() < VIDEO_MAX => Start::NotYet,
            Some(_) | None => Start::At(start),
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
        let units = gate.pass(unit).units;
        units.iter().map(|u| (u.track, ms(u))).collect()
    }

    #[test]
    fn both_tracks_start_within_half_a_packet_of_one_instant() {
        for offset in 0..20 {
            let mut gate = Gate::new(true, true);
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
    fn a_key_frame_waits_for_its_sound_with_what_follows_it() {
        let mut gate = Gate::new(true, true);
        assert!(passed(&mut gate, unit(Track::Video, 100, true)).is_empty());
        assert!(passed(&mut gate, unit(Track::Video, 133, false)).is_empty());
        assert_eq!(
            passed(&mut gate, unit(Track::Audio, 105, true)),
            [
                (Track::Video, 100),
                (Track::Video, 133),
                (Track::Audio, 105)
            ]
        );
    }

    #[test]
    fn a_key_frame_from_before_the_first_sound_is_refused_whichever_comes_first() {
        for video_first in [false, true] {
            let mut gate = Gate::new(true, true);
            let mut pair = [unit(Track::Audio, 240, true), unit(Track::Video, 100, true)];
            if video_first {
                pair.reverse();
            }
            let asked = pair.map(|unit| {
                let passed = gate.pass(unit);
                assert!(passed.units.is_empty());
                passed.wants_key_frame
            });
            assert_eq!(asked, [false, true], "asked once, and by the second");
            assert!(passed(&mut gate, unit(Track::Video, 133, false)).is_empty());
            assert!(passed(&mut gate, unit(Track::Audio, 600, true)).is_empty());
            assert_eq!(
                passed(&mut gate, unit(Track::Video, 605, true)),
                [(Track::Video, 605), (Track::Audio, 600)]
            );
        }
    }

    #[test]
    fn a_second_key_frame_is_taken_as_it_is() {
        let mut gate = Gate::new(true, true);
        gate.pass(unit(Track::Audio, 5_000, true));
        assert!(gate.pass(unit(Track::Video, 100, true)).wants_key_frame);
        let second = gate.pass(unit(Track::Video, 600, true));
        assert!(!second.wants_key_frame);
        assert_eq!(second.units.len(), 2);
    }

    #[test]
    fn late_audio_from_before_the_start_stays_out() {
        let mut gate = Gate::new(true, true);
        gate.pass(unit(Track::Audio, 460, true));
        assert_eq!(passed(&mut gate, unit(Track::Video, 500, true)).len(), 1);
        assert!(passed(&mut gate, unit(Track::Audio, 480, true)).is_empty());
        assert_eq!(passed(&mut gate, unit(Track::Audio, 500, true)).len(), 1);
    }

    #[test]
    fn what_waits_for_a_track_that_never_comes_is_bounded() {
        let mut gate = Gate::new(true, true);
        for n in 0..10_000 {
            assert!(gate.pass(unit(Track::Audio, n * 20, true)).units.is_empty());
        }
        assert!(matches!(&gate, Gate::Closed(held) if held.audio.len() == AUDIO_MAX));
        let mut gate = Gate::new(true, true);
        let mut left = 0;
        for n in 0..VIDEO_MAX as u64 {
            left += passed(&mut gate, unit(Track::Video, n * 33, n == 0)).len();
        }
        assert_eq!(left, VIDEO_MAX, "video goes alone");
    }

    #[test]
    fn a_track_alone_waits_for_nothing_but_its_key_frame() {
        assert_eq!(
            passed(&mut Gate::new(false, true), unit(Track::Audio, 3, true)),
            [(Track::Audio, 3)]
        );
        let mut gate = Gate::new(true, false);
        assert!(passed(&mut gate, unit(Track::Video, 3, false)).is_empty());
        assert_eq!(passed(&mut gate, unit(Track::Video, 36, true)).len(), 1);
    }
}
