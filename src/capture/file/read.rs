//! Y4M and WAV out of any reader, once from the beginning to the end. What a file says of itself is not trusted:
//! no header can ask for more memory than the largest picture, and errors name the byte.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{Chain, Cursor, Read};
use std::rc::Rc;
use std::time::Duration;

use crate::media::frame::{Picture, PixelFormat, i420_len};
use crate::media::pool::Pool;
use crate::media::time::AUDIO_CLOCK_HZ;

/// Largest picture taken from a file: 4096x2160 in I420.
const MAX_PICTURE: usize = i420_len(4096, 2160);
/// Longest side of a picture; the decoder multiplies sides before it looks at its limit.
const MAX_SIDE: usize = 1 << 14;
/// Longest header of a Y4M file, as its decoder has it.
const MAX_HEADER: usize = 1024;

/// What is wrong with a file, and where.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    /// What.
    pub(crate) what: String,
    /// Bytes that had been read.
    pub(crate) offset: u64,
}

/// A reader that knows how far it has been read.
struct Counted<R> {
    reader: R,
    at: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
        let n = self.reader.read(buf)?;
        self.at.set(self.at.get() + n as u64);
        Ok(n)
    }
}

/// The place in a [`Counted`] reader that something else has taken over.
struct Place(Rc<Cell<u64>>);

impl Place {
    fn of<R: Read>(reader: R) -> (Counted<R>, Self) {
        let at = Rc::new(Cell::new(0));
        let place = Self(Rc::clone(&at));
        (Counted { reader, at }, place)
    }

    fn fault(&self, what: impl Display) -> Fault {
        Fault {
            what: what.to_string(),
            offset: self.0.get(),
        }
    }
}

/// Pictures of a Y4M file: 8 bits, 4:2:0.
pub(crate) struct Y4m<R: Read> {
    decoder: y4m::Decoder<Chain<Cursor<Vec<u8>>, Counted<R>>>,
    place: Place,
    pool: Pool,
    pub(super) width: u32,
    pub(super) height: u32,
    /// Between two pictures.
    pub(super) period: Duration,
    begun: bool,
}

impl<R: Read> Y4m<R> {
    /// Reads and checks the header: 8-bit 4:2:0, even sides, 1 to 120 pictures per second.
    pub(crate) fn new(reader: R) -> Result<Self, Fault> {
        let (mut reader, place) = Place::of(reader);
        let header = header(&mut reader).map_err(|e| place.fault(e))?;
        let reader = Cursor::new(header).chain(reader);
        let limits = y4m::Limits { bytes: MAX_PICTURE };
        let decoder = y4m::Decoder::new_with_limits(reader, limits).map_err(|e| place.fault(e))?;
        let (width, height) = (decoder.get_width(), decoder.get_height());
        if width % 2 + height % 2 != 0 {
            return Err(place.fault(format_args!("{width}x{height}: both sides must be even")));
        }
        use y4m::Colorspace as C;
        let found = decoder.get_colorspace();
        if !matches!(found, C::C420 | C::C420jpeg | C::C420mpeg2 | C::C420paldv) {
            return Err(place.fault(format_args!("{found:?}: only 8-bit 4:2:0 is played")));
        }
        let rate = decoder.get_framerate();
        let seconds = rate.den as f64 / rate.num as f64;
        if !(1.0 / 120.0..=1.0).contains(&seconds) {
            return Err(place.fault(format_args!("{rate} pictures per second")));
        }
        Ok(Self {
            decoder,
            place,
            pool: Pool::new(i420_len(width as u32, height as u32)),
            width: width as u32,
            height: height as u32,
            period: Duration::from_secs_f64(seconds),
            begun: false,
        })
    }

    /// The next picture; `None` at the end. An end before the first picture, or within one, is a fault.
    pub(crate) fn next(&mut self) -> Result<Option<Picture>, Fault> {
        let start = self.place.0.get();
        let frame = match self.decoder.read_frame() {
            Ok(frame) => frame,
            Err(y4m::Error::EOF) if self.begun && self.place.0.get() == start => return Ok(None),
            Err(error) => return Err(self.place.fault(error)),
        };
        self.begun = true;
        let data = self.pool.fill(|mut data| {
            let planes = [
                frame.get_y_plane(),
                frame.get_u_plane(),
                frame.get_v_plane(),
            ];
            for plane in planes {
                let (here, rest) = data.split_at_mut(plane.len());
                here.copy_from_slice(plane);
                data = rest;
            }
        });
        Ok(Some(Picture {
            format: PixelFormat::I420,
            width: self.width,
            height: self.height,
            data,
        }))
    }
}

/// Reads the header of a Y4M file ahead of its decoder, and refuses sides that it could not multiply.
#[expect(
    clippy::unbuffered_bytes,
    reason = "a reader here is buffered or in memory"
)]
fn header(reader: &mut impl Read) -> Result<Vec<u8>, String> {
    let mut header = Vec::new();
    for byte in reader.bytes().take(MAX_HEADER) {
        let byte = byte.map_err(|e| e.to_string())?;
        header.push(byte);
        if byte == b'\n' {
            break;
        }
    }
    for word in header.trim_ascii_end().split(|byte| *byte == b' ') {
        let Some((b'W' | b'H', side)) = word.split_first() else {
            continue;
        };
        let side = str::from_utf8(side).ok().and_then(|side| side.parse().ok());
        if !side.is_some_and(|side: usize| (1..=MAX_SIDE).contains(&side)) {
            let word = String::from_utf8_lossy(word);
            return Err(format!("{word}: a side is 1 to {MAX_SIDE} pixels long"));
        }
    }
    Ok(header)
}

/// Sound of a WAV file: 48 kHz, 1 or 2 channels, whole numbers of at most 32 bits or floats.
pub(crate) struct Wav<R> {
    reader: hound::WavReader<Counted<R>>,
    place: Place,
}

impl<R: Read> Wav<R> {
    /// Reads and checks the header; a file without samples is refused.
    pub(crate) fn new(reader: R) -> Result<Self, Fault> {
        let (reader, place) = Place::of(reader);
        let reader = hound::WavReader::new(reader).map_err(|e| place.fault(e))?;
        let spec = reader.spec();
        if spec.sample_rate != AUDIO_CLOCK_HZ || !(1..=2).contains(&spec.channels) {
            return Err(place.fault(format_args!(
                "{} Hz on {} channels: only 48000 Hz on 1 or 2 is played",
                spec.sample_rate, spec.channels
            )));
        }
        if !(1..=32).contains(&spec.bits_per_sample) {
            return Err(place.fault(format_args!("{} bits in a sample", spec.bits_per_sample)));
        }
        if reader.duration() == 0 {
            return Err(place.fault("no samples"));
        }
        Ok(Self { reader, place })
    }

    /// 1 or 2.
    pub(super) fn channels(&self) -> u16 {
        self.reader.spec().channels
    }

    /// The next sample of every channel, as a pair within -1 to 1, mono twice; `None` at the end.
    pub(crate) fn next(&mut self) -> Result<Option<(f32, f32)>, Fault> {
        let Some(left) = self.next_sample()? else {
            return Ok(None);
        };
        if self.channels() == 1 {
            return Ok(Some((left, left)));
        }
        Ok(self.next_sample()?.map(|right| (left, right)))
    }

    fn next_sample(&mut self) -> Result<Option<f32>, Fault> {
        let spec = self.reader.spec();
        let sample = match spec.sample_format {
            hound::SampleFormat::Float => self.reader.samples::<f32>().next(),
            hound::SampleFormat::Int => {
                let full = (1_i64 << (spec.bits_per_sample - 1)) as f32;
                let next = self.reader.samples::<i32>().next();
                next.map(|sample| sample.map(|sample| sample as f32 / full))
            }
        };
        let sample = sample.transpose().map_err(|e| self.place.fault(e))?;
        let audible = |sample: f32| {
            if sample.is_finite() {
                sample.clamp(-1.0, 1.0)
            } else {
                0.0
            }
        };
        Ok(sample.map(audible))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sides_that_overflow_are_refused() {
        for sides in [
            "W4294967296 H4294967296",
            "W18446744073709551615 H2",
            "W2 H+16385",
            "W16 W99999 H16",
            "W16 H0",
        ] {
            let file = format!("YUV4MPEG2 {sides} F30:1\nFRAME\n");
            let fault = Y4m::new(file.as_bytes()).err().expect("refused");
            assert!(fault.what.contains("a side is"), "{fault:?}");
        }
    }

    /// A header of the extensible form: 24 valid bits in 4 bytes, or whatever is asked.
    fn extensible(bits: u16, bytes: u16, samples: &[u8]) -> Vec<u8> {
        let mut file = b"RIFF\0\0\0\0WAVEfmt ".to_vec();
        file.extend(40_u32.to_le_bytes());
        file.extend(0xFFFE_u16.to_le_bytes());
        file.extend(1_u16.to_le_bytes());
        file.extend(48_000_u32.to_le_bytes());
        file.extend((48_000 * u32::from(bytes)).to_le_bytes());
        file.extend(bytes.to_le_bytes());
        file.extend((bytes * 8).to_le_bytes());
        file.extend(22_u16.to_le_bytes());
        file.extend(bits.to_le_bytes());
        file.extend([0; 4]);
        file.extend(*b"\x01\0\0\0\0\0\x10\0\x80\0\0\xaa\0\x38\x9b\x71");
        file.extend(b"data");
        file.extend((samples.len() as u32).to_le_bytes());
        file.extend(samples);
        file
    }

    #[test]
    fn twenty_four_bits_in_four_bytes_are_read_whole() {
        let file = extensible(24, 4, &[0, 0, 0x40, 0, 0, 0, 0xC0, 0xFF]);
        let mut wav = Wav::new(file.as_slice()).expect("a sound");
        assert_eq!(wav.next(), Ok(Some((0.5, 0.5))));
        assert_eq!(wav.next(), Ok(Some((-0.5, -0.5))));
        assert_eq!(wav.next(), Ok(None));
    }

    #[test]
    fn samples_of_absurd_width_are_refused() {
        let file = extensible(200, 4, &[0; 8]);
        let fault = Wav::new(file.as_slice()).err().expect("refused");
        assert!(fault.what.contains("200 bits"), "{fault:?}");
    }
}
