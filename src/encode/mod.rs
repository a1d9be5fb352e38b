//! Raw frames in, access units out: H.264 for pictures, Opus for sound.

pub mod h264;
pub mod opus;

pub use h264::H264;
pub use opus::Opus;

use crate::config::Bitrate;
use crate::media::access_unit::AccessUnit;
use crate::media::time::MediaTime;

/// What the encoder is asked for with one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Controls {
    /// The frame must become a key frame. Opus packets all are.
    pub key_frame: bool,
    /// Target bitrate; more than the encoder was opened with counts as that.
    pub bitrate: Bitrate,
}

/// Encodes the frames of one track, in order.
pub trait Encoder {
    /// [`crate::media::frame::VideoFrame`] or [`crate::media::frame::AudioFrame`].
    type Frame;

    /// Encodes `frame`. `None` if nothing came of it: the rate control skipped the picture, or a packet is not
    /// full yet.
    ///
    /// # Errors
    /// The codec refused; its state is undefined, make a new one.
    fn encode(
        &mut self,
        frame: &Self::Frame,
        controls: Controls,
    ) -> Result<Option<AccessUnit>, Error>;
}

/// Why encoding failed. Caused by a wrong configuration or a fault of the codec.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The codec's own error.
    #[error("{codec} {step} at {} ms: {text}", .at.since_epoch().as_millis())]
    Codec {
        /// Which codec.
        codec: &'static str,
        /// What was asked of it.
        step: &'static str,
        /// Capture time of the frame, zero outside encoding.
        at: MediaTime,
        /// What it answered.
        text: String,
    },
    /// A frame of another shape than the encoder was made for.
    #[error("the encoder was given {got} where it needs {expected}")]
    Frame {
        /// What it was made for.
        expected: String,
        /// What it was given.
        got: String,
    },
}
