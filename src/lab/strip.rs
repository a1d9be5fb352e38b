//! Reads the machine-readable clock that the test card burns into the top left of the picture.
//!
//! Pure. A strip of square cells: one white, one black (they set the threshold), 46 bits of Unix milliseconds,
//! most significant first, 8 bits of CRC-8 over them. On narrow pictures it wraps into two rows.

use std::time::Duration;

/// Cells of the strip.
const CELLS: usize = 56;
/// Bits of the time.
const TIME_BITS: usize = 46;
/// Narrower pictures have the strip in two rows.
const WRAP_BELOW: usize = 448;

/// Time since the Unix epoch in a luma plane of rows `stride` bytes apart; `None` if there is no clock in it.
pub(super) fn read(luma: &[u8], stride: usize, width: usize) -> Option<Duration> {
    let side = ((width / 80) & !1).max(8);
    let per_row = if width < WRAP_BELOW { CELLS / 2 } else { CELLS };
    let cell = |n: usize| {
        // The middle of the cell, away from the smear that the encoder leaves at its edges.
        let (left, top) = (n % per_row * side + side / 4, n / per_row * side + side / 4);
        let (mut sum, mut count) = (0_u32, 0_u32);
        for y in top..top + side / 2 {
            let row = luma.get(y * stride..y * stride + width)?;
            for value in row.get(left..left + side / 2)? {
                sum += u32::from(*value);
                count += 1;
            }
        }
        sum.checked_div(count)
    };
    let (white, black) = (cell(0)?, cell(1)?);
    if white < black + 64 {
        return None;
    }
    let threshold = (white + black) / 2;
    let mut bits = 0_u64;
    for n in 2..CELLS {
        bits = bits << 1 | u64::from(cell(n)? > threshold);
    }
    let (time, crc) = (bits >> 8, bits & 0xFF);
    (u64::from(crc8(time)) == crc).then(|| Duration::from_millis(time))
}

/// CRC-8, polynomial 0x07, over the bits of the time, most significant first.
fn crc8(time: u64) -> u8 {
    (0..TIME_BITS).rev().fold(0_u8, |crc, bit| {
        let feedback = (crc >> 7) ^ (time >> bit & 1) as u8;
        crc << 1 ^ if feedback == 1 { 0x07 } else { 0 }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn draw(time: u64, width: usize, height: usize) -> Vec<u8> {
        let side = ((width / 80) & !1).max(8);
        let per_row = if width < WRAP_BELOW { CELLS / 2 } else { CELLS };
        let bits = 1_u64 << 55 | time << 8 | u64::from(crc8(time));
        let mut luma = vec![128; width * height];
        for n in 0..CELLS {
            let value = if bits >> (CELLS - 1 - n) & 1 == 1 {
                235
            } else {
                16
            };
            for y in 0..side {
                let at = (n / per_row * side + y) * width + n % per_row * side;
                luma[at..at + side].fill(value);
            }
        }
        luma
    }

    #[test]
    fn the_time_is_read_at_any_size() {
        let time = 1_795_262_400_123;
        for (width, height) in [
            (320, 240),
            (446, 64),
            (448, 64),
            (640, 360),
            (1280, 720),
            (1920, 1080),
        ] {
            let luma = draw(time, width, height);
            assert_eq!(
                read(&luma, width, width),
                Some(Duration::from_millis(time)),
                "{width}"
            );
        }
    }

    #[test]
    fn a_flipped_bit_a_plain_picture_and_a_tiny_one_hold_no_time() {
        let mut luma = draw(1_795_262_400_123, 640, 360);
        for row in luma.chunks_mut(640).take(8) {
            for value in &mut row[30 * 8..31 * 8] {
                *value = 251 - *value;
            }
        }
        assert_eq!(read(&luma, 640, 640), None);
        assert_eq!(read(&vec![128; 640 * 360], 640, 640), None);
        assert_eq!(read(&[235; 64], 8, 8), None);
        assert_eq!(read(&[], 0, 0), None);
    }
}
