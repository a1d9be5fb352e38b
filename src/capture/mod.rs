//! Where raw frames come from: camera, microphone, files, and the synthetic ones that production needs too.
//!
//! A source is opened, read and dropped on one thread of its own, because every device call may block. It knows
//! nothing of encoders, and never retries: it says what happened, and the feed decides.

pub mod camera;
pub mod draw;
pub mod drift;
pub mod file;
pub mod identity;
pub mod microphone;
pub mod slate;
pub mod synthetic;
pub mod usb;

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::os::unix::fs::DirEntryExt;
use std::time::Duration;

/// Yields raw frames, one per call. Blocking.
pub trait Source {
    /// [`crate::media::frame::VideoFrame`] or [`crate::media::frame::AudioFrame`].
    type Frame;

    /// The next frame, when it is there. Capture times never go backwards.
    ///
    /// # Errors
    /// The source is of no use any more: drop it, and open it anew later.
    fn read(&mut self) -> Result<Self::Frame, Error>;

    /// What was negotiated, in a few words: "YUYV 640x480 at 30 fps".
    fn describe(&self) -> String;

    /// What the device has lost since the last call. Only a device with a clock of its own can lose anything.
    fn losses(&mut self) -> Losses {
        Losses::default()
    }
}

/// What a device is doing, and may hang in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// It is being opened.
    Open,
    /// A format is being found and set.
    Format,
    /// It is running and has not delivered yet.
    FirstFrame,
    /// It delivers.
    Frames,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Open => "opening it does not end",
            Self::Format => "setting its format does not end",
            Self::FirstFrame => "no first frame",
            Self::Frames => "no more frames",
        })
    }
}

/// Longest waits inside a source for its device. Shorter than the deadlines outside, so that the thread of a device
/// that is merely silent ends in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// For the first frame.
    pub first_frame: Duration,
    /// For every other one.
    pub frames: Duration,
}

/// Sound that was captured by a device and never reached us, because this machine was too slow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Losses {
    /// How often the device's buffer ran over.
    pub overruns: u64,
    /// Samples per channel at 48 kHz that are missing, as far as is known: silence stands in their place.
    pub samples: u64,
}

impl std::ops::AddAssign for Losses {
    fn add_assign(&mut self, more: Self) {
        self.overruns += more.overruns;
        self.samples += more.samples;
    }
}

/// What went wrong with a source. The text is shown on the slate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Another program holds the device.
    #[error("{device} is in use by another program")]
    Busy {
        /// As the user named it.
        device: String,
    },
    /// No permission to open the device.
    #[error("no permission to open {device}")]
    Denied {
        /// As the user named it.
        device: String,
    },
    /// A file cannot be played.
    #[error("{file}: {what} at byte {offset}")]
    File {
        /// Its path.
        file: String,
        /// What is wrong there.
        what: String,
        /// Where.
        offset: u64,
    },
    /// The device was there and is gone.
    #[error("{device} is gone: {what}")]
    Lost {
        /// As the user named it.
        device: String,
        /// What the system said.
        what: String,
    },
    /// No such device.
    #[error("{device} is not there")]
    Missing {
        /// As the user named it.
        device: String,
    },
    /// The source's own code panicked.
    #[error("the source failed: {0}")]
    Panicked(String),
    /// The device does not do what it should, and says nothing.
    #[error("{stage} for {} ms", .after.as_millis())]
    Stalled {
        /// What it was doing.
        stage: Stage,
        /// How long that was waited for.
        after: Duration,
    },
    /// The device offers nothing that can be used.
    #[error("{device} cannot be used: {what}")]
    Unsupported {
        /// As the user named it.
        device: String,
        /// What it offers, or what it refused.
        what: String,
    },
}

/// Which of the machine's device nodes a source depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Devices {
    /// V4L2 nodes.
    Cameras,
    /// None: the source needs no device.
    None,
    /// ALSA nodes.
    Sound,
}

impl Devices {
    /// The nodes, and the links to them, that are there now, by name and inode: one that went and came again within a
    /// moment is another. Some ten microseconds; a change means that a device came or went.
    pub fn present(self) -> BTreeSet<(OsString, u64)> {
        let folders: &[(&str, &str)] = match self {
            // The links come a moment after the nodes.
            Self::Cameras => &[
                ("/dev", "video"),
                ("/dev/v4l/by-id", ""),
                ("/dev/v4l/by-path", ""),
            ],
            Self::None => &[],
            Self::Sound => &[("/dev/snd", "pcm")],
        };
        let names = |&(folder, prefix): &(&str, &str)| {
            let names = std::fs::read_dir(folder).into_iter().flatten();
            names
                .filter_map(|entry| {
                    let entry = entry.ok()?;
                    Some((entry.file_name(), entry.ino()))
                })
                .filter(|(name, _)| name.as_encoded_bytes().starts_with(prefix.as_bytes()))
                .collect::<Vec<_>>()
        };
        folders.iter().flat_map(names).collect()
    }
}
