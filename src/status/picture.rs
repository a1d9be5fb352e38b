//! The last picture of a feed, small, for people: what was encoded last as a whole, decoded when somebody asks.
//!
//! Nobody asks, and it costs nothing. However many ask, one picture is decoded at a time, and of each feed one every
//! [`EVERY`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use openh264::decoder::{DecodeOptions, Decoder, Flush};
use openh264::formats::YUVSource;
use tokio::sync::Mutex;

use super::now;
use crate::supervisor::View;

/// Least time between two pictures of one feed.
const EVERY: Duration = Duration::from_secs(2);
/// Widest picture, in pixels; a larger one is made smaller by a whole factor.
const WIDTH_MAX: usize = 320;
/// Of the file in front of its pixels.
const HEADER: u32 = 54;

/// What became of a key frame.
#[derive(Clone, Debug)]
struct Shown {
    /// When it was encoded.
    of: Instant,
    /// When it was decoded.
    at: Instant,
    bitmap: Result<Bytes, Missing>,
}

impl Shown {
    /// Whether it will do at `now`, when the last key frame is one that was encoded at `of`.
    fn will_do(&self, of: Instant, now: Instant) -> bool {
        self.of == of || now.saturating_duration_since(self.at) < EVERY
    }

    fn picture(self) -> Result<(Instant, Bytes), Missing> {
        let of = self.of;
        self.bitmap.map(|bitmap| (of, bitmap))
    }
}

/// Why there is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Missing {
    /// There is no feed of that name.
    #[error("there is no feed of this name")]
    Feed,
    /// It has not encoded a picture yet.
    #[error("no picture yet; ask again in a moment")]
    Picture,
    /// What it has encoded is none, for this reason.
    #[error("the picture cannot be shown: {0}")]
    Undecodable(String),
}

/// The pictures that were shown last, by feed.
#[derive(Debug, Default)]
pub(super) struct Pictures {
    shown: Arc<Mutex<BTreeMap<String, Shown>>>,
}

impl Pictures {
    /// The last picture of the feed `name` of `view`, as a Windows bitmap, and when it was encoded.
    pub(super) async fn latest(
        &self,
        view: &View,
        name: &str,
    ) -> Result<(Instant, Bytes), Missing> {
        let feeds = view.feeds();
        let feed = feeds.get(name).ok_or(Missing::Feed)?;
        let (of, unit) = feed.key_frame().ok_or(Missing::Picture)?;
        let mut shown = Arc::clone(&self.shown).lock_owned().await;
        shown.retain(|name, _| feeds.contains_key(name));
        let at = now();
        if let Some(last) = shown.get(name).filter(|last| last.will_do(of, at)) {
            return last.clone().picture();
        }
        let name = name.to_owned();
        // Whoever asked may go meanwhile: the lock is given back only when the work is done.
        let work = tokio::task::spawn_blocking(move || {
            let bitmap = bitmap(&unit).map(Bytes::from);
            let bitmap = bitmap.map_err(Missing::Undecodable);
            let made = Shown { of, at, bitmap };
            shown.insert(name, made.clone());
            made.picture()
        });
        let failed = |_| Missing::Undecodable("see the log".to_owned());
        work.await.map_err(failed)?
    }
}

/// The picture of a key frame as a bitmap of at most [`WIDTH_MAX`] pixels in width.
fn bitmap(unit: &[u8]) -> Result<Vec<u8>, String> {
    let mut decoder = Decoder::new().map_err(|error| error.to_string())?;
    let options = DecodeOptions::new().flush_after_decode(Flush::NoFlush);
    let picture = decoder.decode_with_options(unit, options);
    let picture = picture.map_err(|error| error.to_string())?;
    let picture = picture.ok_or("no picture came of it")?;
    let (width, height) = picture.dimensions();
    let by = width.div_ceil(WIDTH_MAX).max(1);
    let (width, height) = (width / by, height / by);

    let (luma, cb, cr) = (picture.y(), picture.u(), picture.v());
    let (luma_row, cb_row, cr_row) = picture.strides();
    let line = (width * 3).next_multiple_of(4);
    let size = |n: usize| u32::try_from(n).map_err(|_| "it is too large");
    let mut out = Vec::with_capacity(HEADER as usize + line * height);
    out.extend_from_slice(b"BM");
    for field in [size(line * height)? + HEADER, 0, HEADER, 40] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    for field in [size(width)?, size(height)?, 1 | 24 << 16, 0, 0, 0, 0, 0, 0] {
        out.extend_from_slice(&field.to_le_bytes());
    }
    // From the last line to the first, each filled up to four bytes.
    for y in (0..height).rev() {
        let begin = out.len();
        for x in 0..width {
            let rows = (y * by..(y + 1) * by).map(|row| &luma[row * luma_row + x * by..][..by]);
            let sum: usize = rows.flatten().map(|luma| usize::from(*luma)).sum();
            let (row, column) = ((y * by + by / 2) / 2, (x * by + by / 2) / 2);
            let luma = sum as f32 / (by * by) as f32;
            let cb = f32::from(cb[row * cb_row + column]);
            let cr = f32::from(cr[row * cr_row + column]);
            out.extend_from_slice(&bgr(luma, cb, cr));
        }
        out.resize(begin + line, 0);
    }
    Ok(out)
}

/// BT.601 in limited range, as it is encoded.
fn bgr(luma: f32, cb: f32, cr: f32) -> [u8; 3] {
    let (luma, cb, cr) = ((luma - 16.0) * 1.164, cb - 128.0, cr - 128.0);
    let blue = luma + 2.017 * cb;
    let green = luma - 0.392 * cb - 0.813 * cr;
    let red = luma + 1.596 * cr;
    // The conversion stops at either end of the range.
    [blue, green, red].map(|colour| colour.round() as u8)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Bitrate, Size};
    use crate::encode::h264::H264;
    use crate::encode::{Controls, Encoder as _};
    use crate::media::frame::{Picture, PixelFormat, VideoFrame, i420_len};
    use crate::media::time::MediaTime;

    /// A key frame whose left half is red and whose right half is blue.
    fn key_frame(width: u32, height: u32) -> Bytes {
        let mut data = Vec::with_capacity(i420_len(width, height));
        let mut plane = |width: u32, height: u32, left: u8, right: u8| {
            for _ in 0..height {
                data.extend((0..width).map(|x| if x < width / 2 { left } else { right }));
            }
        };
        plane(width, height, 81, 41);
        plane(width / 2, height / 2, 90, 240);
        plane(width / 2, height / 2, 240, 110);
        let bitrate = Bitrate(2_000_000);
        let mut encoder = H264::new(Size { width, height }, 30, bitrate).unwrap();
        let frame = VideoFrame {
            captured: MediaTime::ZERO,
            picture: Picture {
                format: PixelFormat::I420,
                width,
                height,
                data: data.into(),
            },
        };
        let controls = Controls {
            key_frame: true,
            bitrate,
        };
        encoder.encode(&frame, controls).unwrap().unwrap().data
    }

    fn field(bitmap: &[u8], at: usize) -> usize {
        u32::from_le_bytes(bitmap[at..at + 4].try_into().unwrap()) as usize
    }

    #[test]
    fn a_key_frame_becomes_a_small_bitmap_of_its_colours() {
        for (size, small) in [
            ((1280, 720), (320, 180)),
            ((642, 362), (214, 120)),
            ((320, 180), (320, 180)),
            ((64, 48), (64, 48)),
        ] {
            let bitmap = bitmap(&key_frame(size.0, size.1)).unwrap();
            let (width, height) = (field(&bitmap, 18), field(&bitmap, 22));
            assert_eq!((width, height), small);
            let line = (width * 3).div_ceil(4) * 4;
            assert!(bitmap.starts_with(b"BM") && bitmap[28] == 24);
            assert_eq!((field(&bitmap, 2), field(&bitmap, 10)), (bitmap.len(), 54));
            assert_eq!(bitmap.len(), 54 + line * height);
            for (x, wanted) in [(width / 4, [0, 0, 255]), (width * 3 / 4, [255, 0, 0])] {
                let at = 54 + height / 2 * line + x * 3;
                for (shown, wanted) in bitmap[at..at + 3].iter().zip(wanted) {
                    assert!(shown.abs_diff(wanted) < 16, "{size:?} at {x}: {shown}");
                }
            }
        }
    }

    #[test]
    fn a_picture_is_decoded_once_and_another_not_too_soon() {
        let began = Instant::now();
        let shown = Shown {
            of: began,
            at: began,
            bitmap: Err(Missing::Picture),
        };
        let later = began + EVERY;
        assert!(shown.will_do(began, later + EVERY), "the same picture");
        let ms = Duration::from_millis(1);
        assert!(shown.will_do(later, later - ms) && !shown.will_do(later, later));
    }

    #[test]
    fn what_is_no_key_frame_is_said_to_be_none() {
        for unit in [&b""[..], b"none", &[0, 0, 0, 1, 0x65, 0x88], &[0xff; 4_000]] {
            assert!(bitmap(unit).is_err(), "{unit:?}");
        }
    }
}
