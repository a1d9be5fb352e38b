//! A clock burnt into the picture that a machine can read back after encoding, transport and decoding.
//!
//! A strip of black and white cells at the top left of the luma plane: a white and a black guard cell, 46 bits of
//! Unix milliseconds (most significant first), and a CRC-8 over those bits. Pictures under 448 pixels in width
//! carry it in two rows of 28 cells. Pictures too small for it carry none.

/// Luma of a one (limited range white).
const WHITE: u8 = 235;
/// Luma of a zero (limited range black).
const BLACK: u8 = 16;
/// Bits of Unix milliseconds: enough until the year 4199.
const TIME_BITS: u32 = 46;
/// Two guards, the time and eight bits of CRC.
const CELLS: u32 = 2 + TIME_BITS + 8;
/// Least difference between the guard cells that still counts as black and white.
const LEAST_CONTRAST: u32 = 60;

/// Where the cells of a picture of one size lie.
#[derive(Clone, Copy)]
struct Layout {
    cell: u32,
    columns: u32,
}

impl Layout {
    fn of(width: u32, height: u32) -> Option<Self> {
        let cell = 8.max(width / 80 / 2 * 2);
        let columns = if width < 8 * CELLS { CELLS / 2 } else { CELLS };
        let fits = columns * cell <= width && CELLS / columns * cell <= height;
        fits.then_some(Self { cell, columns })
    }

    /// Left and top pixel of cell `n`.
    const fn origin(self, n: u32) -> (usize, usize) {
        let (row, column) = (n / self.columns, n % self.columns);
        ((column * self.cell) as usize, (row * self.cell) as usize)
    }
}

/// Rows at the top of a `width` x `height` picture that the strip covers; 0 if it does not fit.
pub fn rows(width: u32, height: u32) -> u32 {
    Layout::of(width, height).map_or(0, |l| CELLS / l.columns * l.cell)
}

/// Draws `unix_ms` (its low 46 bits) into a luma plane of `height` rows of `stride` bytes.
///
/// Does nothing if the picture is too small for the strip or the plane too short for the picture.
pub fn draw(luma: &mut [u8], stride: usize, width: u32, height: u32, unix_ms: u64) {
    let Some(layout) = layout_within(luma.len(), stride, width, height) else {
        return;
    };
    let time = unix_ms & ((1 << TIME_BITS) - 1);
    let payload = (time << 8) | u64::from(crc8(time));
    let cell = layout.cell as usize;
    for n in 0..CELLS {
        let one = match n {
            0 => true,
            1 => false,
            _ => payload >> (CELLS - 1 - n) & 1 == 1,
        };
        let (left, top) = layout.origin(n);
        for row in luma[top * stride..].chunks_mut(stride).take(cell) {
            row[left..left + cell].fill(if one { WHITE } else { BLACK });
        }
    }
}

/// Reads the Unix milliseconds drawn into a luma plane; `None` if there is no intact strip.
pub fn read(luma: &[u8], stride: usize, width: u32, height: u32) -> Option<u64> {
    let layout = layout_within(luma.len(), stride, width, height)?;
    let (white, black) = (mean(luma, stride, layout, 0), mean(luma, stride, layout, 1));
    if white < black + LEAST_CONTRAST {
        return None;
    }
    let threshold = u32::midpoint(white, black);
    let payload = (2..CELLS).fold(0_u64, |bits, n| {
        bits << 1 | u64::from(mean(luma, stride, layout, n) > threshold)
    });
    let time = payload >> 8;
    (u64::from(crc8(time)) == payload & 0xFF).then_some(time)
}

fn layout_within(len: usize, stride: usize, width: u32, height: u32) -> Option<Layout> {
    let layout = Layout::of(width, height)?;
    let rows = rows(width, height) as usize;
    (stride >= width as usize && len >= rows * stride).then_some(layout)
}

/// Mean luma of the middle half of cell `n`: its edges suffer most from compression.
fn mean(luma: &[u8], stride: usize, layout: Layout, n: u32) -> u32 {
    let (left, top) = layout.origin(n);
    let (margin, span) = (layout.cell as usize / 4, layout.cell as usize / 2);
    let rows = luma[(top + margin) * stride..].chunks(stride).take(span);
    let sum: u32 = rows
        .flat_map(|row| &row[left + margin..left + margin + span])
        .map(|&y| u32::from(y))
        .sum();
    sum / (span * span) as u32
}

/// CRC-8 (polynomial 0x07, initial value 0) over the 46 bits of `time`, most significant first.
fn crc8(time: u64) -> u8 {
    (0..TIME_BITS).rev().fold(0_u8, |crc, n| {
        let bit = (time >> n & 1) as u8;
        let carry = (crc >> 7) ^ bit;
        (crc << 1) ^ (carry * 0x07)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_drawn_is_read_at_every_size_that_fits() {
        for (width, height) in [
            (224, 128),
            (320, 180),
            (448, 252),
            (1280, 720),
            (1920, 1080),
        ] {
            let stride = width as usize + 32;
            let mut luma = vec![90; stride * height as usize];
            for time in [0, 1, 1_763_690_000_123, (1 << 46) - 1] {
                draw(&mut luma, stride, width, height, time);
                assert_eq!(
                    read(&luma, stride, width, height),
                    Some(time),
                    "{width}x{height}"
                );
            }
        }
    }

    #[test]
    fn a_picture_without_a_strip_reads_as_nothing() {
        assert_eq!(read(&[90; 320 * 180], 320, 320, 180), None);
        assert_eq!(read(&[], 320, 320, 180), None);
        assert_eq!(read(&[16; 64 * 64], 64, 64, 64), None);
        assert_eq!(rows(64, 64), 0);
    }

    #[test]
    fn a_flipped_cell_is_noticed() {
        let (width, height) = (640, 360);
        let mut luma = vec![90; 640 * 360];
        draw(&mut luma, 640, width, height, 1_763_690_000_123);
        for n in 2..CELLS {
            let mut bent = luma.clone();
            let (left, top) = Layout::of(width, height).expect("fits").origin(n);
            for row in bent[top * 640..].chunks_mut(640).take(8) {
                for y in &mut row[left..left + 8] {
                    *y = if *y == WHITE { BLACK } else { WHITE };
                }
            }
            assert_eq!(read(&bent, 640, width, height), None, "cell {n}");
        }
    }
}
