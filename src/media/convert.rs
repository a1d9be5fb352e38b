//! Pictures as cameras deliver them, made into I420 of the feed's size: BT.601, limited range.
//!
//! Packed 4:2:2 goes through `yuv`, Motion-JPEG through `zune-jpeg`, a source of another size through
//! `fast_image_resize` with its aspect kept by black bars. A damaged picture is an error, never a smear: a JPEG
//! without its end-of-image marker is refused, because a camera's buffer shows an older picture behind it.

use fast_image_resize::images::{Image, ImageRef};
use fast_image_resize::{FilterType, PixelType, ResizeAlg, ResizeOptions, Resizer};
use yuv::{
    BufferStoreMut, YuvConversionMode, YuvPackedImage, YuvPlanarImageMut, YuvRange,
    YuvStandardMatrix,
};
use zune_jpeg::JpegDecoder;
use zune_jpeg::zune_core::bytestream::ZCursor;
use zune_jpeg::zune_core::colorspace::ColorSpace;
use zune_jpeg::zune_core::options::DecoderOptions;

use super::frame::{Picture, PixelFormat, i420_len, i420_planes, i420_planes_mut};
use super::pool::Pool;
use crate::config::Size;

/// Why a picture could not be used. Caused by the camera or the file.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The dimensions are odd, zero or absurd.
    #[error("a picture of {width}x{height} cannot be used: both sides must be even, 2 to 8192")]
    Dimensions {
        /// Width in pixels.
        width: u32,
        /// Height in pixels.
        height: u32,
    },
    /// The JPEG decoder refused it.
    #[error("broken JPEG picture: {0}")]
    Jpeg(String),
    /// Fewer bytes than the dimensions need.
    #[error("picture of {got} bytes where {expected} are needed")]
    Short {
        /// Bytes needed.
        expected: usize,
        /// Bytes there.
        got: usize,
    },
    /// A JPEG without end-of-image marker.
    #[error("JPEG picture of {got} bytes without its end")]
    Truncated {
        /// Bytes there.
        got: usize,
    },
    /// A conversion routine refused its input.
    #[error("conversion to I420: {0}")]
    Unsupported(String),
}

/// Makes pictures of any source into I420 of one size. Keeps its buffers between calls.
pub struct Converter {
    size: Size,
    pool: Pool,
    /// Scratch for a source of another size, in I420.
    scratch: Vec<u8>,
    /// Scratch for decoded JPEGs, in RGB or grey.
    pixels: Vec<u8>,
    resizer: Resizer,
}

impl Converter {
    /// A converter to `size` (even dimensions).
    pub fn new(size: Size) -> Self {
        Self {
            size,
            pool: Pool::new(i420_len(size.width, size.height)),
            scratch: Vec::new(),
            pixels: Vec::new(),
            resizer: Resizer::new(),
        }
    }

    /// `picture` as I420 of the converter's size. Shares the bytes if it is that already.
    pub fn convert(&mut self, picture: &Picture) -> Result<Picture, Error> {
        let (width, height) = (picture.width, picture.height);
        let usable = |n: u32| n.is_multiple_of(2) && (2..=8192).contains(&n);
        if !usable(width) || !usable(height) {
            return Err(Error::Dimensions { width, height });
        }
        let same_size = (width, height) == (self.size.width, self.size.height);
        if same_size && picture.format == PixelFormat::I420 {
            at_least(&picture.data, i420_len(width, height))?;
            return Ok(picture.clone());
        }
        let mut result = Ok(());
        let data = if same_size {
            let pool = self.pool.clone();
            pool.fill(|out| result = to_i420(picture, out, &mut self.pixels))
        } else {
            self.scratch.resize(i420_len(width, height), 0);
            to_i420(picture, &mut self.scratch, &mut self.pixels)?;
            let (scratch, resizer, size) = (&self.scratch, &mut self.resizer, self.size);
            self.pool
                .fill(|out| result = scale(resizer, scratch, Size { width, height }, out, size))
        };
        result.map(|()| Picture {
            format: PixelFormat::I420,
            width: self.size.width,
            height: self.size.height,
            data,
        })
    }
}

fn at_least(data: &[u8], expected: usize) -> Result<(), Error> {
    let got = data.len();
    if got < expected {
        return Err(Error::Short { expected, got });
    }
    Ok(())
}

/// Writes `picture`, at its own size, into `out` as I420.
fn to_i420(picture: &Picture, out: &mut [u8], pixels: &mut Vec<u8>) -> Result<(), Error> {
    let (width, height, data) = (picture.width, picture.height, &picture.data[..]);
    match picture.format {
        PixelFormat::I420 => {
            at_least(data, out.len())?;
            out.copy_from_slice(&data[..out.len()]);
            Ok(())
        }
        PixelFormat::Mjpeg => jpeg(data, width, height, out, pixels),
        PixelFormat::Nv12 => {
            at_least(data, out.len())?;
            let luma = width as usize * height as usize;
            let [y, u, v] = i420_planes_mut(out, width, height);
            y.copy_from_slice(&data[..luma]);
            for ((pair, u), v) in data[luma..].chunks_exact(2).zip(u).zip(v) {
                (*u, *v) = (pair[0], pair[1]);
            }
            Ok(())
        }
        PixelFormat::Yuyv => {
            let expected = width as usize * height as usize * 2;
            at_least(data, expected)?;
            let packed = YuvPackedImage {
                yuy: &data[..expected],
                yuy_stride: width * 2,
                width,
                height,
            };
            yuv::yuyv422_to_yuv420(&mut planar(out, width, height), &packed)
                .map_err(|e| Error::Unsupported(e.to_string()))
        }
    }
}

fn planar(out: &mut [u8], width: u32, height: u32) -> YuvPlanarImageMut<'_, u8> {
    let [y, u, v] = i420_planes_mut(out, width, height);
    YuvPlanarImageMut {
        y_plane: BufferStoreMut::Borrowed(y),
        y_stride: width,
        u_plane: BufferStoreMut::Borrowed(u),
        u_stride: width / 2,
        v_plane: BufferStoreMut::Borrowed(v),
        v_stride: width / 2,
        width,
        height,
    }
}

/// Decodes one JPEG; whatever its chroma sampling, the decoder gives RGB, or grey for a grey one.
fn jpeg(
    data: &[u8],
    width: u32,
    height: u32,
    out: &mut [u8],
    pixels: &mut Vec<u8>,
) -> Result<(), Error> {
    let data = whole_jpeg(data)?;
    let broken = |e: zune_jpeg::errors::DecodeErrors| Error::Jpeg(e.to_string());
    let options = DecoderOptions::default()
        .set_max_width(8192)
        .set_max_height(8192)
        .jpeg_set_out_colorspace(ColorSpace::RGB);
    let mut decoder = JpegDecoder::new_with_options(ZCursor::new(data), options);
    decoder.decode_headers().map_err(broken)?;
    if decoder.input_colorspace() == Some(ColorSpace::Luma) {
        decoder.set_options(options.jpeg_set_out_colorspace(ColorSpace::Luma));
    }
    let found = decoder
        .info()
        .map(|i| (u32::from(i.width), u32::from(i.height)));
    if found != Some((width, height)) {
        let text = format!("{found:?} where {width}x{height} was negotiated");
        return Err(Error::Jpeg(text));
    }
    let len = decoder
        .output_buffer_size()
        .ok_or_else(|| Error::Jpeg("no size".into()))?;
    pixels.resize(len, 0);
    decoder.decode_into(pixels).map_err(broken)?;
    let area = width as usize * height as usize;
    if len == area {
        let [y, u, v] = i420_planes_mut(out, width, height);
        for (y, &full) in y.iter_mut().zip(pixels.iter()) {
            *y = limited(full);
        }
        u.fill(128);
        v.fill(128);
        return Ok(());
    }
    at_least(pixels, area * 3)?;
    yuv::rgb_to_yuv420(
        &mut planar(out, width, height),
        &pixels[..area * 3],
        width * 3,
        YuvRange::Limited,
        YuvStandardMatrix::Bt601,
        YuvConversionMode::Balanced,
    )
    .map_err(|e| Error::Unsupported(e.to_string()))
}

/// Full-range luma (JPEG) as limited range.
const fn limited(full: u8) -> u8 {
    (16 + (full as u32 * 219 + 127) / 255) as u8
}

/// The JPEG at the start of `data`, up to its end-of-image marker: cameras leave stale bytes behind it.
///
/// Walks the segments, so that a marker inside a thumbnail does not end the picture early.
fn whole_jpeg(data: &[u8]) -> Result<&[u8], Error> {
    let truncated = || Error::Truncated { got: data.len() };
    if !data.starts_with(&[0xFF, 0xD8]) {
        return Err(Error::Jpeg("no start-of-image marker".into()));
    }
    let mut at = 2;
    loop {
        // Between segments, and inside entropy-coded data, the next marker is an FF that is neither stuffed
        // (FF 00), a restart marker, nor fill (FF FF).
        let step = data[at..]
            .windows(2)
            .position(|w| w[0] == 0xFF && !matches!(w[1], 0x00 | 0xFF | 0xD0..=0xD7))
            .ok_or_else(truncated)?;
        at += step;
        match data[at + 1] {
            0xD9 => return Ok(&data[..at + 2]),
            // A second picture begins: the first has lost its end, and what follows is stale.
            0xD8 => return Err(truncated()),
            _ => {
                let length = data.get(at + 2..at + 4).ok_or_else(truncated)?;
                at += 2 + usize::from(u16::from_be_bytes([length[0], length[1]]));
                if at > data.len() {
                    return Err(truncated());
                }
            }
        }
    }
}

/// Scales I420 `from` into I420 `out` with the aspect kept, centered on black.
fn scale(
    resizer: &mut Resizer,
    source: &[u8],
    from: Size,
    out: &mut [u8],
    to: Size,
) -> Result<(), Error> {
    let failed = |e: &dyn std::fmt::Display| Error::Unsupported(e.to_string());
    let fit = fitted(from, to);
    let options = ResizeOptions::new().resize_alg(ResizeAlg::Convolution(FilterType::Bilinear));
    let sources = i420_planes(source, from.width, from.height);
    let targets = i420_planes_mut(out, to.width, to.height);
    for (n, (source, target)) in sources.into_iter().zip(targets).enumerate() {
        let part = if n == 0 { 1 } else { 2 };
        let (from_w, from_h) = (from.width / part, from.height / part);
        let (to_w, to_h) = (to.width / part, to.height / part);
        let (fit_w, fit_h) = (fit.width / part, fit.height / part);
        let source =
            ImageRef::new(from_w, from_h, source, PixelType::U8).map_err(|e| failed(&e))?;
        if fit == to {
            let mut target =
                Image::from_slice_u8(to_w, to_h, target, PixelType::U8).map_err(|e| failed(&e))?;
            resizer
                .resize(&source, &mut target, &options)
                .map_err(|e| failed(&e))?;
            continue;
        }
        let mut inner = Image::new(fit_w, fit_h, PixelType::U8);
        resizer
            .resize(&source, &mut inner, &options)
            .map_err(|e| failed(&e))?;
        target.fill(if n == 0 { 16 } else { 128 });
        let (left, top) = (((to_w - fit_w) / 2) as usize, ((to_h - fit_h) / 2) as usize);
        let rows = target.chunks_mut(to_w as usize).skip(top);
        for (row, inner) in rows.zip(inner.buffer().chunks(fit_w as usize)) {
            row[left..left + fit_w as usize].copy_from_slice(inner);
        }
    }
    Ok(())
}

/// The largest even size of the aspect of `from` inside `to`; at least 2x2.
fn fitted(from: Size, to: Size) -> Size {
    let scaled = |across: u32, mul: u32, div: u32| {
        let exact = u64::from(across) * u64::from(mul) / u64::from(div);
        u32::try_from(exact).unwrap_or(u32::MAX).max(2) / 2 * 2
    };
    // Rounding to even may cost a 16:9 source two rows; treat that as the same aspect rather than as bars.
    let height = scaled(to.width, from.height, from.width);
    if height.abs_diff(to.height) <= 2 {
        return to;
    }
    if height < to.height {
        return Size { height, ..to };
    }
    let width = scaled(to.height, from.width, from.height);
    Size { width, ..to }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    const SIZE: Size = Size {
        width: 64,
        height: 32,
    };

    fn picture(format: PixelFormat, data: Vec<u8>) -> Picture {
        Picture {
            format,
            width: SIZE.width,
            height: SIZE.height,
            data: Bytes::from(data),
        }
    }

    fn planes(picture: &Picture) -> [Vec<u8>; 3] {
        i420_planes(&picture.data, picture.width, picture.height).map(<[u8]>::to_vec)
    }

    fn all_near(plane: &[u8], value: u8) {
        let worst = plane.iter().map(|p| p.abs_diff(value)).max();
        assert!(worst.is_some_and(|w| w <= 2), "{worst:?} off {value}");
    }

    #[test]
    fn packed_and_semi_planar_keep_luma_and_chroma() {
        let area = (SIZE.width * SIZE.height) as usize;
        let yuyv = [100, 60, 140, 200].repeat(area / 2);
        let mut nv12 = [100, 140].repeat(area / 2);
        nv12.extend([60, 200].repeat(area / 4));
        for (format, data) in [(PixelFormat::Yuyv, yuyv), (PixelFormat::Nv12, nv12)] {
            let mut converter = Converter::new(SIZE);
            // Cameras hand over more bytes than the picture has.
            let data = [data, vec![7; 99]].concat();
            let got = converter.convert(&picture(format, data)).expect("converts");
            let [y, u, v] = planes(&got);
            assert_eq!(y[..4], [100, 140, 100, 140], "{format:?}");
            all_near(&u, 60);
            all_near(&v, 200);
        }
    }

    #[test]
    fn i420_of_the_right_size_is_not_copied() {
        let data = vec![50; i420_len(SIZE.width, SIZE.height)];
        let given = picture(PixelFormat::I420, data);
        let got = Converter::new(SIZE).convert(&given).expect("converts");
        assert_eq!(got.data.as_ptr(), given.data.as_ptr());
    }

    #[test]
    fn another_size_is_scaled_with_black_bars() {
        let target = Size {
            width: 64,
            height: 64,
        };
        let given = picture(PixelFormat::I420, vec![180; i420_len(64, 32)]);
        let got = Converter::new(target).convert(&given).expect("converts");
        let [y, u, _] = planes(&got);
        assert_eq!((got.width, got.height), (64, 64));
        all_near(&y[..64 * 16], 16);
        all_near(&y[64 * 16..64 * 48], 180);
        all_near(&y[64 * 48..], 16);
        all_near(&u[..32 * 8], 128);
        all_near(&u[32 * 8..32 * 24], 180);
    }

    #[test]
    fn the_aspect_decides_where_the_bars_are() {
        let size = |width, height| Size { width, height };
        assert_eq!(fitted(size(1920, 1080), size(1280, 720)), size(1280, 720));
        assert_eq!(fitted(size(1920, 1080), size(854, 480)), size(854, 480));
        assert_eq!(fitted(size(640, 480), size(1280, 720)), size(960, 720));
        assert_eq!(fitted(size(720, 1280), size(1280, 720)), size(404, 720));
        assert_eq!(fitted(size(1280, 720), size(640, 480)), size(640, 360));
        assert_eq!(fitted(size(4096, 2), size(64, 64)), size(64, 2));
    }

    #[test]
    fn damaged_pictures_are_errors() {
        let mut converter = Converter::new(SIZE);
        for format in [PixelFormat::Yuyv, PixelFormat::Nv12, PixelFormat::I420] {
            let error = converter.convert(&picture(format, vec![0; 100]));
            assert!(matches!(error, Err(Error::Short { .. })), "{format:?}");
        }
        let mut odd = picture(PixelFormat::Yuyv, vec![0; 9000]);
        odd.width = 63;
        assert!(matches!(
            converter.convert(&odd),
            Err(Error::Dimensions { .. })
        ));
        for data in [vec![], vec![0xFF], vec![0xFF, 0xD8], vec![0xFF; 64]] {
            assert!(
                converter
                    .convert(&picture(PixelFormat::Mjpeg, data))
                    .is_err()
            );
        }
        let empty = vec![0xFF, 0xD8, 0xFF, 0xD9];
        assert!(
            converter
                .convert(&picture(PixelFormat::Mjpeg, empty))
                .is_err()
        );
    }

    const JPEGS: [(&str, &[u8]); 4] = [
        ("4:2:0", include_bytes!("../../tests/data/jpeg/420.jpg")),
        ("4:2:2", include_bytes!("../../tests/data/jpeg/422.jpg")),
        ("4:4:4", include_bytes!("../../tests/data/jpeg/444.jpg")),
        ("grey", include_bytes!("../../tests/data/jpeg/grey.jpg")),
    ];

    #[test]
    fn jpegs_of_every_sampling_give_the_same_picture() {
        // Left half red (255, 0, 0), right half white; the grey one has luma 76 and 255 in full range.
        for (name, jpeg) in JPEGS {
            let data = [jpeg, &[0x55; 333]].concat();
            let got = Converter::new(SIZE).convert(&picture(PixelFormat::Mjpeg, data));
            let [y, u, v] = planes(&got.expect(name));
            let near = |got: u8, wanted: u8| {
                assert!(got.abs_diff(wanted) <= 4, "{name}: {got}, not {wanted}")
            };
            near(y[64 * 16 + 8], 81);
            near(y[64 * 16 + 56], 235);
            let (blue, red) = if name == "grey" {
                (128, 128)
            } else {
                (90, 240)
            };
            near(u[32 * 8 + 4], blue);
            near(v[32 * 8 + 4], red);
            near(u[32 * 8 + 28], 128);
        }
    }

    #[test]
    fn a_jpeg_that_lost_its_end_is_refused_even_with_an_older_one_behind_it() {
        for (name, jpeg) in JPEGS {
            let cut = &jpeg[..jpeg.len() - 20];
            let mut converter = Converter::new(SIZE);
            let error = converter.convert(&picture(PixelFormat::Mjpeg, cut.to_vec()));
            assert!(matches!(error, Err(Error::Truncated { .. })), "{name}");
            let stale = [cut, jpeg].concat();
            let error = converter.convert(&picture(PixelFormat::Mjpeg, stale));
            assert!(matches!(error, Err(Error::Truncated { .. })), "{name}");
        }
    }

    #[test]
    fn no_cut_and_no_flipped_byte_makes_it_panic() {
        let mut converter = Converter::new(SIZE);
        for (_, jpeg) in JPEGS {
            for at in 0..jpeg.len() {
                let mut bent = jpeg.to_vec();
                bent[at] ^= 0xFF;
                drop(converter.convert(&picture(PixelFormat::Mjpeg, bent)));
                drop(converter.convert(&picture(PixelFormat::Mjpeg, jpeg[..at].to_vec())));
            }
        }
    }
}
