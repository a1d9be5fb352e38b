//! Pictures from a Y4M file and sound from a WAV file, looped, in real time. Errors name the file and the byte.

#![expect(
    clippy::disallowed_methods,
    reason = "plays in real time, on a thread of its own that must sleep"
)]

use std::cell::Cell;
use std::fs::File;
use std::io::{BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::synthetic::{BLOCK, Pace, Pacer};
use super::{Error, Source};
use crate::media::frame::{AudioFrame, Picture, PixelFormat, VideoFrame, i420_len};
use crate::media::pool::Pool;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaClock, MediaTime};

/// Largest picture taken from a file: 4096x2160 in I420. A header is not to be trusted with memory.
const MAX_PICTURE: usize = i420_len(4096, 2160);
/// A picture later than this makes the whole file later, instead of a burst of pictures.
const SLACK: Duration = Duration::from_millis(100);

/// A file that knows how far it has been read.
struct Counted {
    file: BufReader<File>,
    at: Rc<Cell<u64>>,
}

impl Counted {
    fn open(path: &Path) -> Result<(Self, Rc<Cell<u64>>), Error> {
        let at = Rc::new(Cell::new(0));
        let file = File::open(path).map_err(|e| bad(path, 0, &e))?;
        let counted = Self {
            file: BufReader::new(file),
            at: Rc::clone(&at),
        };
        Ok((counted, at))
    }
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.file.read(buf)?;
        self.at.set(self.at.get() + n as u64);
        Ok(n)
    }
}

impl Seek for Counted {
    fn seek(&mut self, to: SeekFrom) -> std::io::Result<u64> {
        let at = self.file.seek(to)?;
        self.at.set(at);
        Ok(at)
    }
}

fn bad(path: &Path, offset: u64, what: &dyn std::fmt::Display) -> Error {
    Error::File {
        file: path.display().to_string(),
        what: what.to_string(),
        offset,
    }
}

/// Pictures from a Y4M file: 8 bits, 4:2:0.
pub struct Y4mFile {
    path: PathBuf,
    decoder: y4m::Decoder<Counted>,
    at: Rc<Cell<u64>>,
    pool: Pool,
    width: u32,
    height: u32,
    period: Duration,
    /// Pictures since the file was begun; an empty file is noticed by it.
    in_loop: u64,
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
        let (decoder, at) = Self::decoder(path)?;
        let refused = |what: String| bad(path, 0, &what);
        let (width, height) = (decoder.get_width(), decoder.get_height());
        if width % 2 + height % 2 != 0 || width == 0 || height == 0 {
            return Err(refused(format!(
                "{width}x{height}: both sides must be even"
            )));
        }
        use y4m::Colorspace as C;
        let planar = matches!(
            decoder.get_colorspace(),
            C::C420 | C::C420jpeg | C::C420mpeg2 | C::C420paldv
        );
        if !planar {
            let found = decoder.get_colorspace();
            return Err(refused(format!("{found:?}: only 8-bit 4:2:0 is played")));
        }
        let rate = decoder.get_framerate();
        let seconds = rate.den as f64 / rate.num as f64;
        if !(1.0 / 120.0..=1.0).contains(&seconds) {
            return Err(refused(format!(
                "{}:{} pictures per second",
                rate.num, rate.den
            )));
        }
        Ok(Self {
            path: path.to_owned(),
            at,
            pool: Pool::new(i420_len(width as u32, height as u32)),
            width: width as u32,
            height: height as u32,
            period: Duration::from_secs_f64(seconds),
            in_loop: 0,
            due: clock.at(Instant::now()),
            clock,
            pace,
            decoder,
        })
    }

    fn decoder(path: &Path) -> Result<(y4m::Decoder<Counted>, Rc<Cell<u64>>), Error> {
        let (file, at) = Counted::open(path)?;
        let limits = y4m::Limits { bytes: MAX_PICTURE };
        let decoder =
            y4m::Decoder::new_with_limits(file, limits).map_err(|e| bad(path, at.get(), &e))?;
        Ok((decoder, at))
    }

    fn next_picture(&mut self) -> Result<Picture, Error> {
        let (width, height) = (self.width, self.height);
        let start = self.at.get();
        let frame = match self.decoder.read_frame() {
            Ok(frame) => frame,
            // The end, if it lies between two pictures, begins the file anew.
            Err(y4m::Error::EOF) if self.in_loop > 0 && self.at.get() == start => {
                (self.decoder, self.at) = Self::decoder(&self.path)?;
                self.in_loop = 0;
                return self.next_picture();
            }
            Err(error) => return Err(bad(&self.path, self.at.get(), &error)),
        };
        self.in_loop += 1;
        let data = self.pool.fill(|data| {
            let planes = [
                frame.get_y_plane(),
                frame.get_u_plane(),
                frame.get_v_plane(),
            ];
            let mut at = 0;
            for plane in planes {
                data[at..at + plane.len()].copy_from_slice(plane);
                at += plane.len();
            }
        });
        Ok(Picture {
            format: PixelFormat::I420,
            width,
            height,
            data,
        })
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
        self.due = self.due + self.period;
        Ok(VideoFrame { captured, picture })
    }

    fn describe(&self) -> String {
        let fps = 1.0 / self.period.as_secs_f64();
        let path = self.path.display();
        format!("{path}, {}x{} at {fps:.2} fps", self.width, self.height)
    }
}

/// Sound from a WAV file: 48 kHz, 1 or 2 channels, any sample format.
pub struct WavFile {
    path: PathBuf,
    reader: hound::WavReader<Counted>,
    at: Rc<Cell<u64>>,
    channels: u8,
    pacer: Pacer,
}

impl WavFile {
    /// Opens the file and checks its header; the sound is given on `channels` (1 or 2).
    ///
    /// # Errors
    /// If it cannot be read, is empty, or is not 48 kHz with 1 or 2 channels.
    pub fn open(path: &Path, channels: u8, clock: MediaClock, pace: Pace) -> Result<Self, Error> {
        let (file, at) = Counted::open(path)?;
        let reader = hound::WavReader::new(file).map_err(|e| bad(path, at.get(), &e))?;
        let spec = reader.spec();
        if spec.sample_rate != AUDIO_CLOCK_HZ || !(1..=2).contains(&spec.channels) {
            let what = format!(
                "{} Hz on {} channels: only 48000 Hz on 1 or 2 is played",
                spec.sample_rate, spec.channels
            );
            return Err(bad(path, 0, &what));
        }
        if reader.duration() == 0 {
            return Err(bad(path, at.get(), &"no samples"));
        }
        Ok(Self {
            path: path.to_owned(),
            reader,
            at,
            channels,
            pacer: Pacer::new(pace, clock, 100, 1),
        })
    }

    /// The next sample of every channel of the file, as a pair; mono twice.
    fn next_pair(&mut self) -> Result<(f32, f32), Error> {
        let left = self.next_sample()?;
        let right = match self.reader.spec().channels {
            2 => self.next_sample()?,
            _ => left,
        };
        Ok((left, right))
    }

    fn next_sample(&mut self) -> Result<f32, Error> {
        for _ in 0..2 {
            let spec = self.reader.spec();
            let sample = match spec.sample_format {
                hound::SampleFormat::Float => self.reader.samples::<f32>().next(),
                hound::SampleFormat::Int => {
                    let full = (1_i64 << (spec.bits_per_sample - 1)) as f32;
                    let next = self.reader.samples::<i32>().next();
                    next.map(|s| s.map(|s| s as f32 / full))
                }
            };
            if let Some(sample) = sample {
                let sample = sample.map_err(|e| bad(&self.path, self.at.get(), &e))?;
                return Ok(if sample.is_finite() {
                    sample.clamp(-1.0, 1.0)
                } else {
                    0.0
                });
            }
            let again = self.reader.seek(0);
            again.map_err(|e| bad(&self.path, self.at.get(), &e))?;
        }
        Err(bad(&self.path, self.at.get(), &"no samples"))
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
        let channels = self.reader.spec().channels;
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
