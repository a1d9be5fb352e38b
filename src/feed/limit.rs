//! With how much less than configured a feed must do, because the machine is short of something. Pure.
//!
//! A limit is given in shares of what is configured, so that one limit serves feeds of any size. Pictures get rarer,
//! then smaller, then coarser; sound is never touched. Smaller pictures need no renegotiation: a key frame with new
//! parameter sets begins them, and the answer of the server stays true because the H.264 level only falls.

use super::VideoTrack;
use crate::config::{Bitrate, Size};

/// Shortest side of a picture that a limit may leave.
const LEAST_SIDE: u32 = 96;
/// Bitrate that every limit leaves.
const LEAST_BITRATE: Bitrate = Bitrate(100_000);

/// What keeps a feed below its configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LimitedBy {
    /// The machine computes too slowly.
    Cpu,
    /// A subscriber's network carries less.
    Network,
    /// The machine is too hot.
    Thermal,
    /// The machine's supply voltage is too low.
    Undervoltage,
}

impl LimitedBy {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Network => "network",
            Self::Thermal => "thermal",
            Self::Undervoltage => "undervoltage",
        }
    }
}

impl std::fmt::Display for LimitedBy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Shares of the configured picture that remain, each in percent, 1 to 100.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Of the pictures per second.
    pub fps: u8,
    /// Of each side of the picture; a new value costs a key frame.
    pub size: u8,
    /// Of the bitrate.
    pub bitrate: u8,
    /// Why.
    pub by: LimitedBy,
}

impl Limit {
    /// What remains of `full`. Never below one picture per second, 96 pixels a side and 100 kbit/s, except where
    /// `full` is already.
    pub fn of(self, full: VideoTrack) -> VideoTrack {
        let share = |whole: u32, percent: u8| {
            let part = u64::from(whole) * u64::from(percent.clamp(1, 100)) / 100;
            u32::try_from(part).unwrap_or(u32::MAX)
        };
        let Size { width, height } = full.size;
        let smaller = Size {
            width: share(width, self.size) / 2 * 2,
            height: share(height, self.size) / 2 * 2,
        };
        let fits = smaller.width.min(smaller.height) >= LEAST_SIDE;
        VideoTrack {
            size: if fits { smaller } else { full.size },
            fps: share(full.fps, self.fps).max(1),
            max_bitrate: Bitrate(share(full.max_bitrate.0, self.bitrate))
                .max(LEAST_BITRATE.min(full.max_bitrate)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FULL: VideoTrack = VideoTrack {
        size: Size {
            width: 1280,
            height: 720,
        },
        fps: 30,
        max_bitrate: Bitrate(2_500_000),
    };

    fn limit(fps: u8, size: u8, bitrate: u8) -> Limit {
        Limit {
            fps,
            size,
            bitrate,
            by: LimitedBy::Cpu,
        }
    }

    #[test]
    fn shares_are_taken_of_the_configuration() {
        let half = limit(50, 50, 50).of(FULL);
        assert_eq!(half.fps, 15);
        assert_eq!(half.size.to_string(), "640x360");
        assert_eq!(half.max_bitrate, Bitrate(1_250_000));
        assert_eq!(limit(100, 100, 100).of(FULL), FULL);
        // Odd pictures cannot be encoded.
        assert_eq!(limit(50, 67, 50).of(FULL).size.to_string(), "856x482");
    }

    #[test]
    fn something_always_remains() {
        for percent in 0..=255 {
            let left = limit(percent, percent, percent).of(FULL);
            assert!(left.fps >= 1 && left.max_bitrate >= LEAST_BITRATE);
            assert!(left.size.height >= LEAST_SIDE && left.size.height <= 720);
            assert_eq!(left.size.width % 2 + left.size.height % 2, 0);
        }
        let tiny = VideoTrack {
            size: Size {
                width: 64,
                height: 64,
            },
            fps: 1,
            max_bitrate: Bitrate(50_000),
        };
        assert_eq!(limit(1, 1, 1).of(tiny), tiny);
    }
}
