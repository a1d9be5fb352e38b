//! What a feed offers to whoever publishes it.

use crate::config::{Bitrate, Size};

/// The tracks of a feed, as a description needs them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tracks {
    /// The picture, if the feed has one.
    pub video: Option<VideoTrack>,
    /// The sound, if the feed has one.
    pub audio: Option<AudioTrack>,
}

/// The video track of a feed: H.264.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VideoTrack {
    /// Size of the encoded picture.
    pub size: Size,
    /// Pictures per second.
    pub fps: u32,
    /// The highest bitrate the encoder will reach.
    pub max_bitrate: Bitrate,
}

/// The audio track of a feed: Opus at 48 kHz.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AudioTrack {
    /// 1 or 2.
    pub channels: u8,
    /// Bitrate of the encoder.
    pub bitrate: Bitrate,
}
