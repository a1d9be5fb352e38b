//! What can be wrong with a picture or a sound that arrives in time.

/// A track delivers, and what it delivers is of no use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Condition {
    /// The picture is black: a closed lens cover, a dark room, a dead sensor.
    Black,
    /// The sound is cut off at full scale: the gain is too high.
    Clipped,
    /// The same picture again and again, to the bit: the camera or its cable hangs.
    Frozen,
    /// The sound stands still, to the bit: a muted microphone, or none in the socket.
    Silent,
}

impl Condition {
    /// The word for logs and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Black => "black",
            Self::Clipped => "clipped",
            Self::Frozen => "frozen",
            Self::Silent => "silent",
        }
    }

    /// What happened and what to check, for people.
    pub const fn advice(self) -> &'static str {
        match self {
            Self::Black => {
                "the picture is black: check the lens cover, the light in the room and the exposure"
            }
            Self::Clipped => {
                "the sound is cut off at full scale: lower the microphone's gain (alsamixer)"
            }
            Self::Frozen => {
                "the same picture comes again and again: check the camera's cable and power, or plug it anew"
            }
            Self::Silent => {
                "the microphone delivers nothing but silence: check its mute switch, its plug and its gain (alsamixer)"
            }
        }
    }
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}
