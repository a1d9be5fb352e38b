//! H.264 by openh264: Constrained Baseline, no B-frames, SPS and PPS before each IDR, retuned live.
//!
//! The encoder is opened at the highest bitrate it will ever be asked for and set down from there: openh264 takes
//! the first bitrate for the layer's maximum, and going above it later wrecks its rate control. Rate control is
//! "quality" mode, the one that keeps to its target without skipping pictures.

use bytes::Bytes;
use openh264::OpenH264API;
use openh264::encoder::{
    BitRate, Complexity, EncoderConfig, FrameRate, FrameType, IntraFramePeriod, Profile,
    RateControlMode, UsageType, VuiConfig,
};
use openh264::formats::YUVSource;
use openh264_sys2::{ENCODER_OPTION_BITRATE, SBitrateInfo, SPATIAL_LAYER_ALL};

use super::{Controls, Encoder, Error};
use crate::config::{Bitrate, Size};
use crate::media::access_unit::{AccessUnit, Track};
use crate::media::frame::{PixelFormat, VideoFrame, i420_len, i420_planes};
use crate::media::time::MediaTime;

/// Below this no size gives a picture worth sending, and openh264's rate control has nothing left to give.
const LEAST_BITRATE: Bitrate = Bitrate(50_000);

/// An H.264 encoder for pictures of one size.
pub struct H264 {
    encoder: openh264::encoder::Encoder,
    size: Size,
    max_bitrate: Bitrate,
    /// What the codec runs at; `None` until its first picture, before which it cannot be retuned.
    bitrate: Option<Bitrate>,
    /// Length of the last access unit, to allocate the next.
    last_len: usize,
}

impl H264 {
    /// An encoder for I420 pictures of `size` at `fps`, never above `max_bitrate`.
    ///
    /// # Errors
    /// If the codec cannot be made, or does not take pictures of that size (at most 3840x2160 or 2160x3840).
    pub fn new(size: Size, fps: u32, max_bitrate: Bitrate) -> Result<Self, Error> {
        let (long, short) = (size.width.max(size.height), size.width.min(size.height));
        if long > 3840 || !(16..=2160).contains(&short) || size.width % 2 + size.height % 2 != 0 {
            return Err(Error::Frame {
                expected: "even sides, 16 to 3840x2160".into(),
                got: size.to_string(),
            });
        }
        let config = EncoderConfig::new()
            .bitrate(BitRate::from_bps(max_bitrate.0))
            .max_frame_rate(FrameRate::from_hz(fps as f32))
            .rate_control_mode(RateControlMode::Quality)
            .usage_type(UsageType::CameraVideoRealTime)
            .complexity(Complexity::Low)
            .profile(Profile::Baseline)
            .num_threads(1)
            // Key frames come when the feed wants them, and never else: each costs a fifth of a second of bitrate.
            .scene_change_detect(false)
            .intra_frame_period(IntraFramePeriod::from_num_frames(0))
            .vui(VuiConfig::bt601());
        let encoder =
            openh264::encoder::Encoder::with_api_config(OpenH264API::from_source(), config)
                .map_err(|e| codec("opening", MediaTime::ZERO, &e))?;
        Ok(Self {
            encoder,
            size,
            max_bitrate,
            bitrate: None,
            last_len: 4096,
        })
    }

    #[expect(
        unsafe_code,
        reason = "openh264 retunes a live encoder only through its raw interface"
    )]
    fn set_bitrate(&mut self, wanted: Bitrate, at: MediaTime) -> Result<(), Error> {
        let mut info = SBitrateInfo {
            iLayer: SPATIAL_LAYER_ALL,
            iBitrate: i32::try_from(wanted.0).unwrap_or(i32::MAX),
        };
        // SAFETY: the option takes a pointer to `SBitrateInfo`, reads it during the call and keeps nothing; the
        // encoder is initialized, which `self.bitrate` being `Some` says.
        let code = unsafe {
            self.encoder
                .raw_api()
                .set_option(ENCODER_OPTION_BITRATE, (&raw mut info).cast())
        };
        if code != 0 {
            let text = format!("code {code} for {} bit/s", wanted.0);
            return Err(codec("setting the bitrate", at, &text));
        }
        self.bitrate = Some(wanted);
        Ok(())
    }
}

fn codec(step: &'static str, at: MediaTime, text: &dyn std::fmt::Display) -> Error {
    Error::Codec {
        codec: "openh264",
        step,
        at,
        text: text.to_string(),
    }
}

impl Encoder for H264 {
    type Frame = VideoFrame;

    fn encode(
        &mut self,
        frame: &VideoFrame,
        controls: Controls,
    ) -> Result<Option<AccessUnit>, Error> {
        let picture = &frame.picture;
        let fits = picture.format == PixelFormat::I420
            && (picture.width, picture.height) == (self.size.width, self.size.height)
            && picture.data.len() >= i420_len(picture.width, picture.height);
        if !fits {
            return Err(Error::Frame {
                expected: format!("I420 {}", self.size),
                got: format!("{:?} {}x{}", picture.format, picture.width, picture.height),
            });
        }
        let wanted = controls
            .bitrate
            .clamp(LEAST_BITRATE.min(self.max_bitrate), self.max_bitrate);
        if self.bitrate.is_some_and(|now| now != wanted) {
            self.set_bitrate(wanted, frame.captured)?;
        }
        if controls.key_frame && self.bitrate.is_some() {
            self.encoder.force_intra_frame();
        }
        let ms = u64::try_from(frame.captured.since_epoch().as_millis()).unwrap_or(0);
        let planes = Planes {
            size: self.size,
            planes: i420_planes(&picture.data, picture.width, picture.height),
        };
        let stream = self
            .encoder
            .encode_at(&planes, openh264::Timestamp::from_millis(ms))
            .map_err(|e| codec("encoding", frame.captured, &e))?;
        let kind = stream.frame_type();
        let mut data = Vec::with_capacity(self.last_len * 5 / 4);
        stream.write_vec(&mut data);
        if self.bitrate.is_none() {
            self.bitrate = Some(self.max_bitrate);
        }
        if data.is_empty() || kind == FrameType::Skip {
            return Ok(None);
        }
        self.last_len = data.len();
        Ok(Some(AccessUnit {
            track: Track::Video,
            captured: frame.captured,
            key: kind == FrameType::IDR,
            data: Bytes::from(data),
        }))
    }
}

struct Planes<'a> {
    size: Size,
    planes: [&'a [u8]; 3],
}

impl YUVSource for Planes<'_> {
    fn dimensions(&self) -> (usize, usize) {
        (self.size.width as usize, self.size.height as usize)
    }

    fn strides(&self) -> (usize, usize, usize) {
        let width = self.size.width as usize;
        (width, width / 2, width / 2)
    }

    fn y(&self) -> &[u8] {
        self.planes[0]
    }

    fn u(&self) -> &[u8] {
        self.planes[1]
    }

    fn v(&self) -> &[u8] {
        self.planes[2]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Source;
    use crate::capture::synthetic::{Pace, TestCard};
    use crate::media::access_unit::{NalKind, nal_kind, nal_units};
    use crate::media::clock_code;
    use crate::media::time::MediaClock;
    use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

    const HIGH: Bitrate = Bitrate(1_500_000);

    fn card(width: u32, height: u32) -> (TestCard, MediaClock) {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let size = Size { width, height };
        (TestCard::new(size, 30, clock, Pace::Free), clock)
    }

    fn encoder(width: u32, height: u32, bitrate: Bitrate) -> H264 {
        H264::new(Size { width, height }, 30, bitrate).expect("a plain configuration")
    }

    fn plain(bitrate: Bitrate) -> Controls {
        Controls {
            key_frame: false,
            bitrate,
        }
    }

    fn kinds(unit: &AccessUnit) -> Vec<NalKind> {
        nal_units(&unit.data).map(|n| nal_kind(n[0])).collect()
    }

    #[test]
    fn the_first_picture_and_each_demanded_one_is_an_idr_with_parameter_sets() {
        let (mut card, _) = card(320, 180);
        let mut encoder = encoder(320, 180, HIGH);
        for n in 0..60 {
            let frame = card.read().expect("never fails");
            let controls = Controls {
                key_frame: n == 25,
                ..plain(HIGH)
            };
            let unit = encoder.encode(&frame, controls).expect("encodes");
            let unit = unit.expect("quality mode skips nothing here");
            let expected: &[NalKind] = if n == 0 || n == 25 {
                &[NalKind::Sps, NalKind::Pps, NalKind::Idr]
            } else {
                &[NalKind::Slice]
            };
            assert_eq!(kinds(&unit), expected, "picture {n}");
            assert_eq!(unit.key, n == 0 || n == 25);
            assert_eq!(unit.captured, frame.captured);
            if unit.key {
                // profile_idc 66 with constraint_set1: Constrained Baseline.
                let sps = nal_units(&unit.data).next().expect("an SPS");
                assert_eq!((sps[1], sps[2] & 0x40), (66, 0x40));
            }
        }
    }

    #[test]
    fn every_picture_decodes_at_once_and_in_order_with_its_clock() {
        for (width, height) in [
            (320, 180),
            (640, 360),
            (854, 480),
            (1280, 720),
            (1920, 1080),
        ] {
            let (mut card, clock) = card(width, height);
            let low = Bitrate(500_000);
            let mut encoder = encoder(width, height, low);
            let mut decoder = openh264::decoder::Decoder::new().expect("a decoder");
            for n in 0..24 {
                let frame = card.read().expect("never fails");
                let unit = encoder.encode(&frame, plain(low)).expect("encodes");
                let Some(unit) = unit else { continue };
                // A picture out for each one in: nothing is reordered, so there are no B-frames.
                let decoded = decoder.decode(&unit.data).expect("decodes");
                let decoded = decoded.expect("one out for one in");
                let stride = decoded.strides().0;
                let read = clock_code::read(decoded.y(), stride, width, height);
                let unix = clock.wall(frame.captured).duration_since(UNIX_EPOCH);
                let unix = unix.expect("after 1970").as_millis();
                assert_eq!(
                    read.map(u128::from),
                    Some(unix),
                    "{width}x{height} picture {n}"
                );
            }
        }
    }

    #[test]
    fn the_bitrate_follows_live_without_an_idr() {
        let (mut card, _) = card(640, 360);
        let mut encoder = encoder(640, 360, HIGH);
        let mut second = |bitrate: Bitrate| {
            let mut bytes = 0;
            let mut idrs = 0;
            for _ in 0..30 {
                let frame = card.read().expect("never fails");
                if let Some(unit) = encoder
                    .encode(&noisy(&frame), plain(bitrate))
                    .expect("encodes")
                {
                    bytes += unit.data.len();
                    idrs += usize::from(unit.key);
                }
            }
            (bytes as f64 * 8.0, idrs)
        };
        assert_eq!(second(HIGH).1, 1);
        let settle = |second: &mut dyn FnMut(Bitrate) -> (f64, usize), target: Bitrate| {
            second(target);
            let (a, b) = (second(target), second(target));
            assert_eq!(a.1 + b.1, 0, "no key frame");
            let ratio = f64::midpoint(a.0, b.0) / f64::from(target.0);
            assert!((0.75..1.25).contains(&ratio), "{ratio} of {}", target.0);
        };
        settle(&mut second, Bitrate(400_000));
        settle(&mut second, HIGH);
        settle(&mut second, Bitrate(700_000));
    }

    /// The card with noise all over, so that the encoder needs any bitrate it is given.
    fn noisy(frame: &VideoFrame) -> VideoFrame {
        let mut data = frame.picture.data.to_vec();
        let mut state = frame.captured.since_epoch().as_nanos() as u32 | 1;
        for byte in &mut data {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            *byte = byte.saturating_add((state >> 28) as u8);
        }
        let mut frame = frame.clone();
        frame.picture.data = Bytes::from(data);
        frame
    }

    #[test]
    fn a_bitrate_above_the_maximum_counts_as_the_maximum() {
        let (mut card, _) = card(320, 180);
        let mut encoder = encoder(320, 180, Bitrate(300_000));
        for _ in 0..3 {
            let frame = card.read().expect("never fails");
            encoder
                .encode(&frame, plain(Bitrate(9_000_000)))
                .expect("clamped");
        }
        assert_eq!(encoder.bitrate, Some(Bitrate(300_000)));
    }

    #[test]
    fn a_picture_of_another_shape_is_refused() {
        let (mut card, _) = card(320, 180);
        let frame = card.read().expect("never fails");
        let mut encoder = encoder(640, 360, HIGH);
        let error = encoder.encode(&frame, plain(HIGH)).expect_err("refused");
        assert!(error.to_string().contains("320x180"), "{error}");
        let huge = Size {
            width: 4096,
            height: 2160,
        };
        assert!(H264::new(huge, 30, HIGH).is_err());
    }

    #[test]
    fn a_gap_in_time_does_not_upset_it() {
        let (mut card, _) = card(320, 180);
        let mut encoder = encoder(320, 180, HIGH);
        for n in 0..20_u32 {
            let mut frame = card.read().expect("never fails");
            if n >= 10 {
                frame.captured = frame.captured + Duration::from_secs(3600);
            }
            let unit = encoder.encode(&frame, plain(HIGH)).expect("encodes");
            assert!(unit.is_some(), "picture {n}");
        }
    }
}
