//! Opus packets of 20 ms at 48 kHz, in-band FEC on, DTX off.
//!
//! The codec delays by its look-ahead, so a packet's capture time is that of the sample its decoder gives out
//! first: the first sample put in, less the look-ahead.

use std::time::Duration;

use bytes::Bytes;
use opus::{Application, Channels};

use super::{Controls, Encoder, Error};
use crate::config::Bitrate;
use crate::media::access_unit::{AccessUnit, Track};
use crate::media::frame::AudioFrame;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaTime};

/// Samples per channel in one packet.
const PACKET: usize = 960;
/// Room for the largest packet (RFC 6716, section 3.2.1).
const MAX_LEN: usize = 1275;
/// Loss that the in-band FEC is tuned for.
const EXPECTED_LOSS_PERCENT: i32 = 5;
/// The packets still sound as with 10, at three quarters of the cost.
const COMPLEXITY: i32 = 5;

/// An Opus encoder: two frames of 10 ms make one packet.
pub struct Opus {
    encoder: opus::Encoder,
    channels: u8,
    bitrate: Bitrate,
    look_ahead: Duration,
    /// Samples of the packet that is being filled, and the capture time of its first.
    pending: Vec<f32>,
    since: MediaTime,
    out: [u8; MAX_LEN],
}

impl Opus {
    /// An encoder for 1 or 2 `channels` at `bitrate`.
    ///
    /// # Errors
    /// If the codec does not take these values.
    pub fn new(channels: u8, bitrate: Bitrate) -> Result<Self, Error> {
        let layout = match channels {
            1 => Channels::Mono,
            2 => Channels::Stereo,
            _ => {
                return Err(Error::Frame {
                    expected: "1 or 2 channels".into(),
                    got: channels.to_string(),
                });
            }
        };
        let opening = |e: opus::Error| codec("opening", MediaTime::ZERO, &e);
        let mut encoder =
            opus::Encoder::new(AUDIO_CLOCK_HZ, layout, Application::Audio).map_err(opening)?;
        encoder
            .set_bitrate(bits(bitrate))
            .and_then(|()| encoder.set_complexity(COMPLEXITY))
            .and_then(|()| encoder.set_inband_fec(true))
            .and_then(|()| encoder.set_packet_loss_perc(EXPECTED_LOSS_PERCENT))
            .and_then(|()| encoder.set_dtx(false))
            .map_err(opening)?;
        let look_ahead = encoder.get_lookahead().map_err(opening)?;
        let look_ahead = u64::try_from(look_ahead).unwrap_or(0) * 1_000_000_000;
        Ok(Self {
            encoder,
            channels,
            bitrate,
            look_ahead: Duration::from_nanos(look_ahead / u64::from(AUDIO_CLOCK_HZ)),
            pending: Vec::with_capacity(PACKET * usize::from(channels)),
            since: MediaTime::ZERO,
            out: [0; MAX_LEN],
        })
    }
}

fn bits(bitrate: Bitrate) -> opus::Bitrate {
    opus::Bitrate::Bits(i32::try_from(bitrate.0).unwrap_or(i32::MAX))
}

fn codec(step: &'static str, at: MediaTime, text: &dyn std::fmt::Display) -> Error {
    Error::Codec {
        codec: "opus",
        step,
        at,
        text: text.to_string(),
    }
}

impl Encoder for Opus {
    type Frame = AudioFrame;

    fn encode(
        &mut self,
        frame: &AudioFrame,
        controls: Controls,
    ) -> Result<Option<AccessUnit>, Error> {
        let channels = usize::from(self.channels);
        if frame.channels != self.channels || frame.samples.len() != PACKET / 2 * channels {
            return Err(Error::Frame {
                expected: format!("{} samples on {} channels", PACKET / 2, self.channels),
                got: format!("{} on {}", frame.samples.len(), frame.channels),
            });
        }
        if controls.bitrate != self.bitrate {
            self.encoder
                .set_bitrate(bits(controls.bitrate))
                .map_err(|e| codec("setting the bitrate", frame.captured, &e))?;
            self.bitrate = controls.bitrate;
        }
        // A jump in time must not be hidden inside a packet.
        let half = Duration::from_millis(10);
        if !self.pending.is_empty() && frame.captured != self.since + half {
            self.pending.clear();
        }
        if self.pending.is_empty() {
            self.since = frame.captured;
        }
        self.pending.extend_from_slice(&frame.samples);
        if self.pending.len() < PACKET * channels {
            return Ok(None);
        }
        let len = self
            .encoder
            .encode_float(&self.pending, &mut self.out)
            .map_err(|e| codec("encoding", self.since, &e))?;
        self.pending.clear();
        // One or two bytes are the codec's way to say "nothing to send".
        if len <= 2 {
            return Ok(None);
        }
        Ok(Some(AccessUnit {
            track: Track::Audio,
            captured: self.since.saturating_back(self.look_ahead),
            key: true,
            data: Bytes::copy_from_slice(&self.out[..len]),
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Source;
    use crate::capture::synthetic::{Pace, Silence, Tone};
    use crate::media::time::MediaClock;
    use std::time::{Instant, SystemTime, UNIX_EPOCH};

    const RATE: Bitrate = Bitrate(64_000);
    const CONTROLS: Controls = Controls {
        key_frame: false,
        bitrate: RATE,
    };

    #[test]
    fn the_decoded_beep_begins_at_its_capture_time() {
        for channels in [1, 2] {
            let wall = SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_690_000_345_678);
            let clock = MediaClock::new(Instant::now(), wall);
            let mut tone = Tone::new(channels, clock, Pace::Free);
            let mut encoder = Opus::new(channels, RATE).expect("plain values");
            let layout = if channels == 1 {
                Channels::Mono
            } else {
                Channels::Stereo
            };
            let mut decoder = opus::Decoder::new(AUDIO_CLOCK_HZ, layout).expect("plain values");
            let mut out = vec![0.0; PACKET * usize::from(channels)];
            let (mut quiet, mut onsets, mut units) = (0, 0, 0);
            for _ in 0..440 {
                let block = tone.read().expect("never fails");
                let Some(unit) = encoder.encode(&block, CONTROLS).expect("encodes") else {
                    continue;
                };
                units += 1;
                let n = decoder
                    .decode_float(&unit.data, &mut out, false)
                    .expect("decodes");
                assert_eq!(n, PACKET);
                for (i, sample) in out.chunks(usize::from(channels)).enumerate() {
                    if sample[0].abs() > 0.25 {
                        if quiet > 24_000 {
                            let at = unit.captured
                                + Duration::from_nanos(i as u64 * 1_000_000_000 / 48_000);
                            let wall = clock
                                .wall(at)
                                .duration_since(UNIX_EPOCH)
                                .expect("after 1970");
                            let off = (wall.as_secs_f64() + 0.5).fract() - 0.5;
                            assert!(off.abs() < 0.003, "beep {off} s off");
                            onsets += 1;
                        }
                        quiet = 0;
                    } else {
                        quiet += 1;
                    }
                }
            }
            assert_eq!(units, 220);
            assert!(onsets >= 3, "{onsets} beeps");
        }
    }

    #[test]
    fn silence_is_sent_too() {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let mut silence = Silence::new(2, clock, Pace::Free);
        let mut encoder = Opus::new(2, RATE).expect("plain values");
        let mut units = 0;
        for _ in 0..100 {
            let block = silence.read().expect("never fails");
            units += usize::from(encoder.encode(&block, CONTROLS).expect("encodes").is_some());
        }
        assert_eq!(units, 50);
    }

    #[test]
    fn the_bitrate_follows_live() {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let mut tone = Tone::new(2, clock, Pace::Free);
        let mut encoder = Opus::new(2, RATE).expect("plain values");
        let mut second = |bits| {
            let controls = Controls {
                key_frame: false,
                bitrate: Bitrate(bits),
            };
            let mut bytes = 0;
            for _ in 0..100 {
                let block = tone.read().expect("never fails");
                let unit = encoder.encode(&block, controls).expect("encodes");
                bytes += unit.map_or(0, |unit| unit.data.len());
            }
            bytes
        };
        let (high, low) = (second(128_000), second(24_000));
        assert!(low * 2 < high && second(128_000) > low * 2, "{low} {high}");
    }

    #[test]
    fn a_jump_in_time_starts_a_new_packet() {
        let mut encoder = Opus::new(1, RATE).expect("plain values");
        let at = |ms| MediaTime::new(Duration::from_millis(ms));
        let mut put = |ms| {
            let unit = encoder
                .encode(&Silence::block(at(ms), 1), CONTROLS)
                .expect("encodes");
            unit.map(|u| u.captured)
        };
        assert_eq!(put(1000), None);
        assert_eq!(put(1500), None);
        let look_ahead = Duration::from_nanos(6_500_000);
        assert_eq!(put(1510), Some(at(1500).saturating_back(look_ahead)));
    }

    #[test]
    fn wrong_shapes_are_refused() {
        assert!(Opus::new(3, RATE).is_err());
        let mut encoder = Opus::new(2, RATE).expect("plain values");
        assert!(
            encoder
                .encode(&Silence::block(MediaTime::ZERO, 1), CONTROLS)
                .is_err()
        );
    }
}
