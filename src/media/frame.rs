//! Raw media: pictures as the camera gave them, and blocks of samples. Never encoded data.

use bytes::Bytes;

use super::time::MediaTime;

/// How the bytes of a [`Picture`] are laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PixelFormat {
    /// Planar 4:2:0: Y, then U, then V; BT.601 limited range. What the encoder takes.
    I420,
    /// Motion-JPEG: one JPEG image. May be truncated or carry stale bytes after the end-of-image marker.
    Mjpeg,
    /// Semi-planar 4:2:0: Y, then interleaved UV.
    Nv12,
    /// Packed 4:2:2: Y0 U Y1 V.
    Yuyv,
}

/// One picture, rows tightly packed, in the format the source delivered it.
///
/// Conversion to I420 is left to the encoder's thread, so that a picture dropped on the way costs nothing.
#[derive(Clone, Debug)]
pub struct Picture {
    /// Layout of `data`.
    pub format: PixelFormat,
    /// Width in pixels; even.
    pub width: u32,
    /// Height in pixels; even.
    pub height: u32,
    /// The bytes.
    pub data: Bytes,
}

/// A picture and the instant it was captured.
#[derive(Clone, Debug)]
pub struct VideoFrame {
    /// When the device captured it.
    pub captured: MediaTime,
    /// The picture.
    pub picture: Picture,
}

/// A block of audio: 10 ms, 48 kHz, interleaved.
#[derive(Clone, Debug)]
pub struct AudioFrame {
    /// When the first sample was captured.
    pub captured: MediaTime,
    /// 1 or 2.
    pub channels: u8,
    /// `480 * channels` samples in -1.0..=1.0.
    pub samples: Vec<f32>,
}
