//! The picture shown while the camera is away: what is wrong, since when, and a running clock.

use super::draw::{BLACK, Canvas, Color, WHITE, time_of_day};
use crate::config::Size;
use crate::media::frame::{Picture, PixelFormat, VideoFrame, i420_len};
use crate::media::pool::Pool;
use crate::media::time::{MediaClock, MediaTime};

const BACKGROUND: Color = Color(40, 150, 118);

/// Draws slates of one size.
pub struct Slate {
    size: Size,
    clock: MediaClock,
    pool: Pool,
}

impl Slate {
    /// A slate of `size` that tells the time by `clock`.
    pub fn new(size: Size, clock: MediaClock) -> Self {
        Self {
            size,
            clock,
            pool: Pool::new(i420_len(size.width, size.height)),
        }
    }

    /// The slate for `now`: the picture has been away since `since` for `reason`.
    pub fn draw(&self, now: MediaTime, since: MediaTime, reason: &str) -> VideoFrame {
        let Size { width, height } = self.size;
        let data = self.pool.fill(|data| {
            let mut canvas = Canvas::new(data, self.size);
            canvas.fill(0, 0, width, height, BACKGROUND);
            let scale = (width / 320).max(1);
            let line = 12 * scale;
            let top = height / 3;
            let left = 8 * scale;
            let columns = ((width.saturating_sub(2 * left)) / (8 * scale)).max(1) as usize;
            canvas.text(left, top, 2 * scale, WHITE.0, "NO PICTURE");
            let since_text = format!("since {} UTC", time_of_day(self.clock.wall(since)));
            canvas.text(left, top + 2 * line, scale, WHITE.0, &since_text);
            let reason: Vec<char> = reason.chars().collect();
            for (n, part) in (0_u32..).zip(reason.chunks(columns)).take(4) {
                let part: String = part.iter().collect();
                canvas.text(left, top + (3 + n) * line, scale, WHITE.0, &part);
            }
            let bar = height / 12;
            canvas.fill(0, height - bar, width, bar, BLACK);
            let now_text = format!("{} UTC", time_of_day(self.clock.wall(now)));
            canvas.text(left, height - bar + bar / 4, scale, WHITE.0, &now_text);
        });
        VideoFrame {
            captured: now,
            picture: Picture {
                format: PixelFormat::I420,
                width,
                height,
                data,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant, SystemTime};

    #[test]
    fn the_slate_fits_every_size_and_its_clock_runs() {
        let clock = MediaClock::new(Instant::now(), SystemTime::UNIX_EPOCH);
        for (width, height) in [(64, 64), (320, 180), (1920, 1080)] {
            let slate = Slate::new(Size { width, height }, clock);
            let reason = "a reason that is much longer than one line of a small picture can hold";
            let first = slate.draw(MediaTime::ZERO, MediaTime::ZERO, reason);
            let later = MediaTime::new(Duration::from_secs(11));
            let second = slate.draw(later, MediaTime::ZERO, reason);
            assert_eq!(first.picture.data.len(), i420_len(width, height));
            assert_ne!(first.picture.data, second.picture.data, "{width}x{height}");
        }
    }
}
