//! A small brush for I420 pictures: filled boxes and 8x8 text. What the test card and the slate are drawn with.

use font8x8::legacy::BASIC_LEGACY;

use crate::config::Size;
use crate::media::frame::i420_planes_mut;

/// A color in BT.601 limited range: luma, blue difference, red difference.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Color(pub(super) u8, pub(super) u8, pub(super) u8);

pub(super) const BLACK: Color = Color(16, 128, 128);
pub(super) const WHITE: Color = Color(235, 128, 128);

/// A picture being drawn. Everything outside it is clipped.
pub(super) struct Canvas<'a> {
    size: Size,
    planes: [&'a mut [u8]; 3],
}

impl<'a> Canvas<'a> {
    /// Draws on `data`, an I420 picture of `size`.
    pub(super) fn new(data: &'a mut [u8], size: Size) -> Self {
        Self {
            size,
            planes: i420_planes_mut(data, size.width, size.height),
        }
    }

    pub(super) fn luma(&mut self) -> &mut [u8] {
        self.planes[0]
    }

    /// Fills a box; chroma follows at half resolution, rounded outwards.
    pub(super) fn fill(&mut self, left: u32, top: u32, width: u32, height: u32, color: Color) {
        let (right, bottom) = (
            left.saturating_add(width).min(self.size.width),
            top.saturating_add(height).min(self.size.height),
        );
        if left >= right || top >= bottom {
            return;
        }
        let stride = self.size.width;
        let chroma = (left / 2, top / 2, right.div_ceil(2), bottom.div_ceil(2));
        fill_plane(self.planes[0], stride, (left, top, right, bottom), color.0);
        fill_plane(self.planes[1], stride / 2, chroma, color.1);
        fill_plane(self.planes[2], stride / 2, chroma, color.2);
    }

    /// Writes `text` with its top-left corner at the given pixel, each dot `scale` pixels wide; luma only.
    pub(super) fn text(&mut self, left: u32, top: u32, scale: u32, luma: u8, text: &str) {
        let stride = self.size.width;
        for (n, c) in (0_u32..).zip(text.chars()) {
            let origin = left + n * 8 * scale;
            if origin >= self.size.width {
                return;
            }
            let glyph = BASIC_LEGACY.get(c as usize).copied().unwrap_or([0; 8]);
            for (row, bits) in (0_u32..).zip(glyph) {
                for column in (0..8).filter(|n| bits >> n & 1 == 1) {
                    let (x, y) = (origin + column * scale, top + row * scale);
                    let (right, bottom) = (
                        (x + scale).min(self.size.width),
                        (y + scale).min(self.size.height),
                    );
                    if x < right && y < bottom {
                        fill_plane(self.planes[0], stride, (x, y, right, bottom), luma);
                    }
                }
            }
        }
    }
}

/// Fills `(left, top, right, bottom)`, which lies inside the plane.
fn fill_plane(plane: &mut [u8], stride: u32, area: (u32, u32, u32, u32), value: u8) {
    let (left, top, right, bottom) = area;
    for y in top..bottom {
        let row = (y * stride) as usize;
        plane[row + left as usize..row + right as usize].fill(value);
    }
}

/// A wall-clock time as `hh:mm:ss` UTC.
pub(super) fn time_of_day(wall: std::time::SystemTime) -> String {
    let s = wall
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    format!("{:02}:{:02}:{:02}", s / 3600 % 24, s / 60 % 60, s % 60)
}
