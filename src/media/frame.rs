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

/// Bytes of a tightly packed I420 picture; both dimensions even.
pub const fn i420_len(width: u32, height: u32) -> usize {
    width as usize * height as usize * 3 / 2
}

/// The Y, U and V planes of a tightly packed I420 picture of `width` x `height` pixels.
///
/// # Panics
/// If `data` is shorter than [`i420_len`].
pub fn i420_planes(data: &[u8], width: u32, height: u32) -> [&[u8]; 3] {
    let luma = width as usize * height as usize;
    let (y, chroma) = data[..i420_len(width, height)].split_at(luma);
    let (u, v) = chroma.split_at(luma / 4);
    [y, u, v]
}

/// As [`i420_planes`], to be written.
///
/// # Panics
/// If `data` is shorter than [`i420_len`].
pub fn i420_planes_mut(data: &mut [u8], width: u32, height: u32) -> [&mut [u8]; 3] {
    let luma = width as usize * height as usize;
    let (y, chroma) = data[..i420_len(width, height)].split_at_mut(luma);
    let (u, v) = chroma.split_at_mut(luma / 4);
    [y, u, v]
}
