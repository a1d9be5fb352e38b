//! The RTP payload types of the two codecs in one session.

/// Which dynamic payload type means which codec (RFC 3551, section 3): 96 to 127, or 35 to 63.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadTypes {
    /// H.264, packetization mode 1.
    pub h264: u8,
    /// Opus.
    pub opus: u8,
}

impl PayloadTypes {
    /// What we offer where we are the one to offer: the numbers of the browsers, which every server has met.
    pub const OFFERED: Self = Self {
        h264: 108,
        opus: 111,
    };
}
