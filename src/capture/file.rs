//! Pictures from a Y4M file and sound from a WAV file, looped, in real time. Errors name the file and the byte.
//!
//! A loop opens the file anew: it may have been replaced meanwhile, and is checked again.

#![expect(
    clippy::disallowed_methods,
    reason = "plays in real time, on a thread of its own that must sleep"
)]

pub(crate) mod read;

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::synthetic::{BLOCK, Pace, Pacer};
use super::{Error, Source};
use crate::media::frame::{AudioFrame, Picture, VideoFrame};
use crate::media::time::{MediaClock, MediaTime};
use read::{Fault, Wav, Y4m};

/// A picture later than this makes the whole file later, instead of a burst of pictures.
const SLACK: Duration = Duration::from_millis(100);

fn bad(path: &Path, fault: Fault) -> Error {
    Error::File {
        file: path.display().to_string(),
        what: fault.what,
        offset: fault.offset,
    }
}

/// Opens `path` and lets `read` make something of it.
fn open<T>(
    path: &Path,
    read: impl FnOnce(BufReader<File>) -> Result<T, Fault>,
) -> Result<T, Error> {
    File::open(path)
        .map_err(|error| Fault {
            what: error.to_string(),
            offset: 0,
        })
        .and_then(|file| read(BufReader::new(file)))
        .map_err(|fault| bad(path, fault))
}

/// Pictures from a Y4M file: 8 bits, 4:2:0.
pub struct Y4mFile {
    path: PathBuf,
    pictures: Y4m<BufReader<File>>,
    due: MediaTime,
    clock: MediaClock,
    pace: Pace,
}

impl Y4mFile {
    /// Opens the file and checks its header.
    ///
    /// # Errors
    /// If it cannot be read, or is not 8-bit 4:2:0 with even sides and 1 to 120 pictures per second.
    pub fn open(path: &Path, clock: MediaClock, pace: Pace) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            pictures: open(path, Y4m::new)?,
            due: clock.at(Instant::now()),
            clock,
            pace,
        })
    }

    fn next_picture(&mut self) -> Result<Picture, Error> {
        loop {
            let next = self.pictures.next();
            if let Some(picture) = next.map_err(|fault| bad(&self.path, fault))? {
                return Ok(picture);
            }
            // A file without pictures is a fault, not an end: this cannot go round for ever.
            self.pictures = open(&self.path, Y4m::new)?;
        }
    }
}

impl Source for Y4mFile {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, Error> {
        let picture = self.next_picture()?;
        if self.pace == Pace::RealTime {
            let now = Instant::now();
            let due = self.clock.instant(self.due);
            if now.saturating_duration_since(due) > SLACK {
                self.due = self.clock.at(now);
            }
            std::thread::sleep(due.saturating_duration_since(now));
        }
        let captured = self.due;
        self.due = self.due + self.pictures.period;
        Ok(VideoFrame { captured, picture })
    }

    fn describe(&self) -> String {
        let Y4m {
            width,
            height,
            period,
            ..
        } = &self.pictures;
        let fps = 1.0 / period.as_secs_f64();
        format!("{}, {width}x{height} at {fps:.2} fps", self.path.display())
    }
}

/// Sound from a WAV file: 48 kHz, 1 or 2 channels, any sample format.
pub struct WavFile {
    path: PathBuf,
    sound: Wav<BufReader<File>>,
    channels: u8,
    pacer: Pacer,
}

impl WavFile {
    /// Opens the file and checks its header; the sound is given on `channels` (1 or 2).
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is not 48 kHz with 1 or 2 channels.
    pub fn open(path: &Path, channels: u8, clock: MediaClock, pace: Pace) -> Result<Self, Error> {
        Ok(Self {
            path: path.to_owned(),
            sound: open(path, Wav::new)?,
            channels,
            pacer: Pacer::new(pace, clock, 100, 1),
        })
    }

    fn next_pair(&mut self) -> Result<(f32, f32), Error> {
        loop {
            let next = self.sound.next();
            if let Some(pair) = next.map_err(|fault| bad(&self.path, fault))? {
                return Ok(pair);
            }
            // A file without samples is refused: this cannot go round for ever.
            self.sound = open(&self.path, Wav::new)?;
        }
    }
}

impl Source for WavFile {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, Error> {
        let (captured, _) = self.pacer.wait();
        let mut samples = Vec::with_capacity(BLOCK * usize::from(self.channels));
        for _ in 0..BLOCK {
            let (left, right) = self.next_pair()?;
            match self.channels {
                1 => samples.push(f32::midpoint(left, right)),
                _ => samples.extend([left, right]),
            }
        }
        Ok(AudioFrame {
            captured,
            channels: self.channels,
            samples,
        })
    }

    fn describe(&self) -> String {
        let channels = self.sound.channels();
        format!("{}, {channels} channel(s), 48000 Hz", self.path.display())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn clock() -> MediaClock {
        MediaClock::new(Instant::now(), SystemTime::now())
    }

    fn y4m(header: &str, frames: &[u8], picture: usize) -> tempfile::NamedTempFile {
        let mut bytes = header.as_bytes().to_vec();
        for &luma in frames {
            bytes.extend_from_slice(b"FRAME\n");
            bytes.extend(std::iter::repeat_n(luma, picture));
        }
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), bytes).expect("written");
        file
    }

    #[test]
    fn a_y4m_file_is_looped_at_its_own_rate() {
        let file = y4m("YUV4MPEG2 W16 H16 F30000:1001 C420jpeg\n", &[1, 2, 3], 384);
        let mut source = Y4mFile::open(file.path(), clock(), Pace::Free).expect("opens");
        let frames: Vec<_> = (0..7).map(|_| source.read().expect("reads")).collect();
        let luma: Vec<u8> = frames.iter().map(|f| f.picture.data[0]).collect();
        assert_eq!(luma, [1, 2, 3, 1, 2, 3, 1]);
        let spent = frames[6].captured.saturating_since(frames[0].captured);
        assert!(spent.abs_diff(Duration::from_micros(200_200)) < Duration::from_micros(1));
    }

    #[test]
    fn a_bad_y4m_file_is_named_with_the_place() {
        let odd = y4m("YUV4MPEG2 W15 H16 F30:1\n", &[], 0);
        let deep = y4m("YUV4MPEG2 W16 H16 F30:1 C444\n", &[], 0);
        let huge = y4m("YUV4MPEG2 W60000 H60000 F30:1\n", &[], 0);
        let still = y4m("YUV4MPEG2 W16 H16 F0:1\n", &[], 0);
        let noise = y4m("not a picture\n", &[], 0);
        for file in [&odd, &deep, &huge, &still, &noise] {
            let error = Y4mFile::open(file.path(), clock(), Pace::Free)
                .err()
                .expect("refused");
            let name = file.path().display().to_string();
            assert!(error.to_string().contains(&name), "{error}");
        }
        let empty = y4m("YUV4MPEG2 W16 H16 F30:1\n", &[], 0);
        let mut source = Y4mFile::open(empty.path(), clock(), Pace::Free).expect("a header");
        assert!(source.read().is_err());
        let cut = y4m("YUV4MPEG2 W16 H16 F30:1\n", &[1, 2], 384);
        let bytes = std::fs::read(cut.path()).expect("read");
        std::fs::write(cut.path(), &bytes[..bytes.len() - 100]).expect("written");
        let mut source = Y4mFile::open(cut.path(), clock(), Pace::Free).expect("a header");
        assert!(source.read().is_ok());
        let error = source.read().expect_err("cut short");
        let Error::File { offset, .. } = error else {
            panic!("{error}");
        };
        assert_eq!(offset, bytes.len() as u64 - 100);
    }

    fn wav(rate: u32, channels: u16, samples: &[i16]) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().expect("a file");
        let spec = hound::WavSpec {
            channels,
            sample_rate: rate,
            bits_per_sample: 16,
            sample_format: hound::SampleFormat::Int,
        };
        let mut writer = hound::WavWriter::create(file.path(), spec).expect("a writer");
        for &sample in samples {
            writer.write_sample(sample).expect("written");
        }
        writer.finalize().expect("finished");
        file
    }

    #[test]
    fn a_wav_file_is_looped_and_mixed_to_the_channels_of_the_feed() {
        let file = wav(48_000, 2, &[16384, 0, -16384, 0, 8192, 8192]);
        let mut mono = WavFile::open(file.path(), 1, clock(), Pace::Free).expect("opens");
        let block = mono.read().expect("reads");
        assert_eq!(block.samples.len(), BLOCK);
        assert_eq!(block.samples[..4], [0.25, -0.25, 0.25, 0.25]);
        let file = wav(48_000, 1, &[16384, -16384]);
        let mut stereo = WavFile::open(file.path(), 2, clock(), Pace::Free).expect("opens");
        let block = stereo.read().expect("reads");
        assert_eq!(block.samples[..6], [0.5, 0.5, -0.5, -0.5, 0.5, 0.5]);
    }

    #[test]
    fn a_bad_wav_file_is_named() {
        let slow = wav(44_100, 2, &[0, 0]);
        let empty = wav(48_000, 2, &[]);
        let noise = y4m("not a sound\n", &[], 0);
        for file in [&slow, &empty, &noise] {
            let error = WavFile::open(file.path(), 2, clock(), Pace::Free)
                .err()
                .expect("refused");
            let name = file.path().display().to_string();
            assert!(error.to_string().contains(&name), "{error}");
        }
    }
}
