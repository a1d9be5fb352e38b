//! A V4L2 camera: found by stable path, name, index or by itself; its best format chosen and reported.
//!
//! nokhwa finds the cameras and asks what they offer. The pictures are read by `v4l`, on which nokhwa stands: nokhwa
//! itself hands over a whole mapped buffer without saying how much of it is new, so that a picture cut off on the
//! cable is completed by the rest of an older one; and it waits for ever when a camera stalls. The drop of `v4l`
//! panics if the device answers oddly; that is caught here.

#![expect(
    clippy::disallowed_methods,
    reason = "stamps pictures on the thread that reads the device"
)]

use std::cmp::Ordering;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use nokhwa::Camera as Device;
use nokhwa::utils::{
    ApiBackend, CameraFormat, CameraIndex, FrameFormat, RequestedFormat, RequestedFormatType,
};
use rustix::time::{ClockId, clock_gettime};
use v4l::buffer::{Flags, Metadata, Type};
use v4l::io::mmap::Stream;
use v4l::io::traits::CaptureStream;
use v4l::video::Capture;
use v4l::video::capture::Parameters;
use v4l::{Format, FourCC};

use super::identity::{self, Identity, Known};
use super::{Error, Patience, Source, Stage};
use crate::config::Size;
use crate::media::frame::{Picture, PixelFormat, VideoFrame};
use crate::media::time::{MediaClock, MediaTime};

/// What we can convert; nokhwa offers a few more.
const USABLE: [FrameFormat; 3] = [FrameFormat::YUYV, FrameFormat::NV12, FrameFormat::MJPEG];
/// Formats tried before a camera is given up: some drivers refuse what they list.
const ATTEMPTS: usize = 4;
/// Buffers that the driver fills in turn.
const BUFFERS: u32 = 4;
/// Where the kernel says what hangs on which port.
const CLASS: &str = "/sys/class/video4linux";
/// Where links stand that name a camera by its model and serial number.
const BY_ID: &str = "/dev/v4l/by-id";
/// Oldest picture whose time stamp is believed.
const MAX_AGE: Duration = Duration::from_secs(1);

/// One way in which a camera can deliver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Offer {
    /// Layout of the pictures.
    pub format: PixelFormat,
    /// Their size.
    pub size: Size,
    /// Pictures per second.
    pub fps: u32,
}

/// A camera as `onair devices` shows it.
#[derive(Clone, Debug)]
pub struct CameraInfo {
    /// What to write as `device`: a link under `/dev/v4l` that survives replugging, else the node.
    pub path: PathBuf,
    /// For people.
    pub name: String,
    /// How it can deliver, or why it cannot be used.
    pub offers: Result<Vec<Offer>, Error>,
}

/// The nodes that can capture, in the order of their numbers. Opens each for a moment.
pub fn list() -> Vec<CameraInfo> {
    let describe = |(n, name): (u32, String)| {
        let path = stable_path(n).unwrap_or_else(|| node(n));
        let offers = open_any(n, &path.display().to_string()).and_then(|mut d| offers(&mut d));
        CameraInfo { path, name, offers }
    };
    let cannot_capture =
        |info: &CameraInfo| matches!(&info.offers, Ok(offers) if offers.is_empty());
    let mut found: Vec<CameraInfo> = nodes().into_iter().map(describe).collect();
    found.retain(|info| {
        !cannot_capture(info) && !matches!(info.offers, Err(Error::Unsupported { .. }))
    });
    found
}

fn node(n: u32) -> PathBuf {
    PathBuf::from(format!("/dev/video{n}"))
}

/// Numbers and names of all V4L2 nodes.
fn nodes() -> Vec<(u32, String)> {
    let found = nokhwa::query(ApiBackend::Video4Linux).unwrap_or_default();
    let mut nodes: Vec<(u32, String)> = found
        .iter()
        .filter_map(|info| Some((info.index().as_index().ok()?, info.human_name())))
        .collect();
    nodes.sort();
    nodes
}

/// A link that names the device rather than the order of plugging.
fn stable_path(n: u32) -> Option<PathBuf> {
    let target = node(n);
    [BY_ID, "/dev/v4l/by-path"].iter().find_map(|folder| {
        let mut links: Vec<PathBuf> = std::fs::read_dir(folder)
            .ok()?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|link| std::fs::canonicalize(link).is_ok_and(|to| to == target))
            .collect();
        links.sort();
        links.into_iter().next()
    })
}

/// The number in `/dev/videoN`.
fn number(path: &Path) -> Option<u32> {
    let name = path.file_name()?.to_str()?;
    name.strip_prefix("video")?.parse().ok()
}

/// What a user may write as `device`.
enum Meant<'d> {
    /// The first that works.
    Auto,
    /// A link that names the device, its port or what its owner likes, and where it leads now.
    Link(Option<u32>),
    /// A part of a name.
    Name(&'d str),
    /// A number in the order of plugging.
    Number(u32),
}

fn meant(device: &str) -> Result<Meant<'_>, Error> {
    if device == "auto" {
        return Ok(Meant::Auto);
    }
    if let Ok(n) = device.parse() {
        return Ok(Meant::Number(n));
    }
    let path = Path::new(device);
    if !path.is_absolute() {
        return Ok(Meant::Name(device));
    }
    if let Some(n) = number(path) {
        return Ok(Meant::Number(n));
    }
    match std::fs::canonicalize(path) {
        Ok(target) => {
            let n = number(&target).ok_or_else(|| missing(device))?;
            Ok(Meant::Link(Some(n)))
        }
        Err(_) => Ok(Meant::Link(None)),
    }
}

fn missing(device: &str) -> Error {
    let device = match device {
        "auto" => "a camera",
        named => named,
    };
    Error::Missing {
        device: device.to_owned(),
    }
}

/// The nodes that `device` may mean, best first. A camera that was opened before as `known` comes first whatever its
/// number is now; no other one is taken for a number or a link.
fn candidates(device: &str, known: Option<&Identity>) -> Result<Vec<u32>, Error> {
    let present = identity::present(Path::new(CLASS), "video");
    let again = known.and_then(|known| known.find(&present).copied());
    let found = match meant(device)? {
        Meant::Number(n) => match (known, again) {
            (Some(_), Some(again)) => vec![again],
            (Some(known), None) => return Err(lost(device, known)),
            (None, _) => vec![n],
        },
        // The link is made a moment after the node, and sometimes not at all.
        Meant::Link(target) => linked(device, target, (known, again), &present)?
            .into_iter()
            .collect(),
        Meant::Name(wanted) => {
            let wanted = wanted.to_lowercase();
            let mut named = nodes();
            named.retain(|(_, name)| name.to_lowercase().contains(&wanted));
            first(again, named)
        }
        Meant::Auto => first(again, nodes()),
    };
    let found: Vec<u32> = found.into_iter().filter(|&n| node(n).exists()).collect();
    if found.is_empty() {
        return Err(missing(device));
    }
    Ok(found)
}

/// Which node the link `device` means, that leads to `target` now, if the camera `known` was opened by it before and is
/// `again` now. Pure.
///
/// Cameras of one model without serial numbers share one link by identity, which leads to whichever was plugged last.
fn linked(
    device: &str,
    target: Option<u32>,
    (known, again): (Option<&Identity>, Option<u32>),
    present: &[(u32, Identity)],
) -> Result<Option<u32>, Error> {
    let found = present.iter().find(|(n, _)| Some(*n) == target);
    match (known, found) {
        (Some(known), Some((_, other)))
            if device.starts_with(BY_ID) && !known.is_same(other) && again.is_none() =>
        {
            Err(lost(device, known))
        }
        (Some(_), Some(_)) if device.starts_with(BY_ID) => Ok(again.or(target)),
        _ => Ok(target.or(again)),
    }
}

/// The camera `known` is away, and `device` leads to none or to another one.
fn lost(device: &str, known: &Identity) -> Error {
    Error::Lost {
        device: device.to_owned(),
        what: format!("{known} is not plugged in, and no other camera is taken for it"),
    }
}

/// The numbers of `nodes`, `again` before all others.
fn first(again: Option<u32>, nodes: Vec<(u32, String)>) -> Vec<u32> {
    let mut numbers: Vec<u32> = nodes.into_iter().map(|(n, _)| n).collect();
    numbers.sort_by_key(|n| Some(*n) != again);
    numbers
}

/// Opens a node in whatever format it likes, to ask for the others.
fn open_any(n: u32, device: &str) -> Result<Device, Error> {
    let open = |kind| {
        Device::new(
            CameraIndex::Index(n),
            RequestedFormat::with_formats(kind, &USABLE),
        )
    };
    open(RequestedFormatType::None)
        .or_else(|_| open(RequestedFormatType::AbsoluteHighestFrameRate))
        .map_err(|e| classify(n, device, &e.to_string()))
}

/// nokhwa's errors are texts: what is wrong is asked of the node itself.
fn classify(n: u32, device: &str, what: &str) -> Error {
    let (device, what) = (device.to_owned(), what.to_owned());
    match std::fs::File::open(node(n)) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Error::Missing { device },
        Err(e) if e.kind() == std::io::ErrorKind::PermissionDenied => Error::Denied { device },
        Err(e) if e.kind() == std::io::ErrorKind::ResourceBusy => Error::Busy { device },
        Err(e) => Error::Lost {
            device,
            what: e.to_string(),
        },
        Ok(_) if what.contains("os error 16") || what.contains("busy") => Error::Busy { device },
        Ok(_) => Error::Unsupported { device, what },
    }
}

fn offers(device: &mut Device) -> Result<Vec<Offer>, Error> {
    let listed = device
        .compatible_camera_formats()
        .map_err(|e| Error::Unsupported {
            device: device.info().human_name(),
            what: e.to_string(),
        })?;
    Ok(listed.iter().filter_map(offer).collect())
}

fn offer(format: &CameraFormat) -> Option<Offer> {
    let (width, height) = (format.width(), format.height());
    let even = width % 2 == 0 && height % 2 == 0 && width > 0 && height > 0;
    let pixels = match format.format() {
        FrameFormat::MJPEG => PixelFormat::Mjpeg,
        FrameFormat::NV12 => PixelFormat::Nv12,
        FrameFormat::YUYV => PixelFormat::Yuyv,
        FrameFormat::GRAY | FrameFormat::RAWRGB | FrameFormat::RAWBGR => return None,
    };
    (even && format.frame_rate() > 0).then_some(Offer {
        format: pixels,
        size: Size { width, height },
        fps: format.frame_rate(),
    })
}

/// The name that V4L2 has for a layout.
fn fourcc(format: PixelFormat) -> FourCC {
    FourCC::new(match format {
        PixelFormat::I420 => b"YU12",
        PixelFormat::Mjpeg => b"MJPG",
        PixelFormat::Nv12 => b"NV12",
        PixelFormat::Yuyv => b"YUYV",
    })
}

/// How badly `offer` serves a feed of `size` at `fps`; 0 is perfect. Pure.
fn cost(offer: Offer, size: Size, fps: u32) -> f64 {
    let area = |s: Size| f64::from(s.width) * f64::from(s.height);
    let aspect = |s: Size| f64::from(s.width) / f64::from(s.height);
    // Enlarging shows; shrinking only costs. A doubled area counts as 0.35 and 0.14.
    let growth = (area(offer.size) / area(size)).ln();
    let size_cost = if growth < 0.0 {
        -0.5 * growth
    } else {
        0.2 * growth
    };
    let aspect_cost = 0.8 * (aspect(offer.size) / aspect(size)).ln().abs();
    // Half the rate is worse than half the area; more than wanted is thrown away.
    let rate = (f64::from(offer.fps) / f64::from(fps)).ln();
    let rate_cost = if rate < 0.0 { -1.5 * rate } else { 0.1 * rate };
    // Small pictures are cheapest uncompressed; large ones fit the bus only as JPEG.
    let jpeg = offer.format == PixelFormat::Mjpeg;
    let large = offer.size.height >= 720;
    let format_cost = if jpeg == large { 0.0 } else { 0.02 };
    size_cost + aspect_cost + rate_cost + format_cost
}

/// `offers`, best first for a feed of `size` at `fps`. Pure.
fn ranked(mut offers: Vec<Offer>, size: Size, fps: u32) -> Vec<Offer> {
    let key = |offer: &Offer| cost(*offer, size, fps);
    offers.sort_by(|a, b| key(a).partial_cmp(&key(b)).unwrap_or(Ordering::Equal));
    offers.dedup();
    offers
}

/// An open camera that delivers.
pub struct Camera {
    name: String,
    /// `None` only while it is being dropped.
    stream: Option<Stream<'static>>,
    offer: Offer,
    clock: MediaClock,
    patience: Patience,
    last: Option<MediaTime>,
}

/// Why a format could not be used, and whether another one may be.
enum Refused {
    /// The camera, or the bus, does not take it.
    Format(String),
    /// The camera itself is the matter.
    Camera(Error),
}

impl Camera {
    /// Opens `device` (a path, best under `/dev/v4l/by-id`; a part of a name; an index; or `auto`) in the format
    /// that serves a feed of `size` at `fps` best, and waits for its first picture. `stage` is told how far it is, and
    /// says whether that is still wanted: a device may answer only when others have been tried for long.
    /// Opened anew with the same `known`, it is the same camera, under whatever number.
    ///
    /// # Errors
    /// If it is not there, busy, forbidden, silent, or delivers nothing that can be used.
    pub fn open(
        device: &str,
        known: &Known,
        (size, fps): (Size, u32),
        clock: MediaClock,
        patience: Patience,
        stage: &dyn Fn(Stage) -> bool,
    ) -> Result<Self, Error> {
        let mut refused = None;
        known.begin();
        for n in candidates(device, known.opened().as_ref())? {
            if !stage(Stage::Open) {
                break;
            }
            known.trying(Identity::read(&Path::new(CLASS).join(format!("video{n}"))));
            let started = Start {
                n,
                name: device,
                patience,
                stage,
            };
            match started.in_best_format(size, fps) {
                Ok((stream, _)) if !stage(Stage::FirstFrame) => {
                    quietly_drop(stream, device);
                    break;
                }
                Ok((stream, offer)) => {
                    known.succeeded();
                    return Ok(Self {
                        name: device.to_owned(),
                        stream: Some(stream),
                        offer,
                        clock,
                        patience,
                        last: None,
                    });
                }
                // Metadata nodes come among the candidates: the first real fault is the one to tell.
                Err(error) => {
                    if matches!(error, Error::Stalled { .. }) {
                        known.silent();
                    }
                    refused = Some(refused.unwrap_or(error));
                }
            }
        }
        Err(refused.unwrap_or_else(|| missing(device)))
    }

    /// Media time of a picture that the driver described by `meta`.
    fn captured(&self, meta: &Metadata) -> MediaTime {
        let now = Instant::now();
        let age = age(meta).unwrap_or_default();
        let captured = self.clock.at(now.checked_sub(age).unwrap_or(now));
        match self.last {
            // A stamp that stands still says nothing.
            Some(last) if captured <= last => self.clock.at(now),
            Some(_) | None => captured,
        }
    }
}

/// Time since the driver stamped a picture; `None` if its clock is another one, or its stamp absurd.
fn age(meta: &Metadata) -> Option<Duration> {
    if meta.flags & Flags::TIMESTAMP_MASK != Flags::TIMESTAMP_MONOTONIC {
        return None;
    }
    let seconds = u64::try_from(meta.timestamp.sec).ok()?;
    let micros = u64::try_from(meta.timestamp.usec).ok()?;
    let stamp = Duration::from_secs(seconds).checked_add(Duration::from_micros(micros))?;
    let now = clock_gettime(ClockId::Monotonic);
    let now = Duration::new(
        u64::try_from(now.tv_sec).ok()?,
        u32::try_from(now.tv_nsec).ok()?,
    );
    now.checked_sub(stamp)
        .filter(|age| !stamp.is_zero() && *age <= MAX_AGE)
}

/// One node on its way to the first picture.
struct Start<'a> {
    n: u32,
    name: &'a str,
    patience: Patience,
    stage: &'a dyn Fn(Stage) -> bool,
}

impl Start<'_> {
    fn in_best_format(&self, size: Size, fps: u32) -> Result<(Stream<'static>, Offer), Error> {
        let (n, name) = (self.n, self.name);
        let mut device = open_any(n, name)?;
        if !(self.stage)(Stage::Format) {
            return Err(missing(name));
        }
        let offers = offers(&mut device)?;
        drop(device);
        let mut refused = format!("/dev/video{n} offers no YUYV, NV12 or MJPEG");
        for &offer in ranked(offers, size, fps).iter().take(ATTEMPTS) {
            match self.with(offer) {
                Ok(started) => return Ok(started),
                Err(Refused::Camera(error)) => return Err(error),
                Err(Refused::Format(what)) => refused = what,
            }
        }
        Err(Error::Unsupported {
            device: name.to_owned(),
            what: refused,
        })
    }

    /// Sets the format and waits for the first picture: only then it is known that the bus has room for it. Gives
    /// what the driver made of the rate.
    fn with(&self, offer: Offer) -> Result<(Stream<'static>, Offer), Refused> {
        let refused = |error: std::io::Error| match error.raw_os_error() {
            Some(libc::EBUSY) => Refused::Camera(Error::Busy {
                device: self.name.to_owned(),
            }),
            Some(libc::ENODEV | libc::ENXIO | libc::ENOENT) => Refused::Camera(Error::Lost {
                device: self.name.to_owned(),
                what: error.to_string(),
            }),
            _ if error.kind() == std::io::ErrorKind::TimedOut => Refused::Camera(Error::Stalled {
                stage: Stage::FirstFrame,
                after: self.patience.first_frame,
            }),
            Some(_) | None => Refused::Format(error.to_string()),
        };
        if !(self.stage)(Stage::Format) {
            return Err(Refused::Camera(missing(self.name)));
        }
        let device = v4l::Device::new(self.n as usize).map_err(refused)?;
        let (Size { width, height }, wanted) = (offer.size, fourcc(offer.format));
        let set = device
            .set_format(&Format::new(width, height, wanted))
            .map_err(refused)?;
        if (set.width, set.height, set.fourcc) != (width, height, wanted) {
            return Err(Refused::Format(format!(
                "{}x{} {} in place of {wanted} {}",
                set.width, set.height, set.fourcc, offer.size
            )));
        }
        // A driver without a choice of rates says so by an error here.
        let rate = device.set_params(&Parameters::with_fps(offer.fps)).ok();
        let fps = rate
            .and_then(|p| p.interval.denominator.checked_div(p.interval.numerator))
            .filter(|fps| *fps > 0)
            .unwrap_or(offer.fps);
        let mut stream =
            Stream::with_buffers(&device, Type::VideoCapture, BUFFERS).map_err(refused)?;
        stream.set_timeout(self.patience.first_frame);
        (self.stage)(Stage::FirstFrame);
        if let Err(error) = CaptureStream::next(&mut stream) {
            quietly_drop(stream, self.name);
            return Err(refused(error));
        }
        stream.set_timeout(self.patience.frames);
        Ok((stream, Offer { fps, ..offer }))
    }
}

impl Source for Camera {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, Error> {
        let lost = |what: String| Error::Lost {
            device: self.name.clone(),
            what,
        };
        let stream = self.stream.as_mut().ok_or_else(|| lost("closed".into()))?;
        let (buffer, meta) = CaptureStream::next(stream).map_err(|error| {
            if error.kind() == std::io::ErrorKind::TimedOut {
                return Error::Stalled {
                    stage: Stage::Frames,
                    after: self.patience.frames,
                };
            }
            // ENODEV, EINVAL (a read was waiting) and EIO all mean that it is gone, so every error does.
            lost(error.to_string())
        })?;
        // What lies behind the used bytes is of an older picture; and all of it may be, if the driver says error.
        let used = if meta.flags.contains(Flags::ERROR) {
            0
        } else {
            buffer.len().min(meta.bytesused as usize)
        };
        let (data, meta) = (Bytes::copy_from_slice(&buffer[..used]), *meta);
        let captured = self.captured(&meta);
        self.last = Some(captured);
        Ok(VideoFrame {
            captured,
            picture: Picture {
                format: self.offer.format,
                width: self.offer.size.width,
                height: self.offer.size.height,
                data,
            },
        })
    }

    fn describe(&self) -> String {
        let Offer { format, size, fps } = self.offer;
        format!("{}, {format:?} {size} at {fps} fps", self.name)
    }
}

fn quietly_drop(stream: Stream<'static>, name: &str) {
    if catch_unwind(AssertUnwindSafe(move || drop(stream))).is_err() {
        tracing::debug!(device = name, "the camera did not stop properly");
    }
}

impl Drop for Camera {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            quietly_drop(stream, &self.name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HD: Size = Size {
        width: 1280,
        height: 720,
    };
    const VGA: Size = Size {
        width: 640,
        height: 480,
    };

    fn offer(format: PixelFormat, width: u32, height: u32, fps: u32) -> Offer {
        Offer {
            format,
            size: Size { width, height },
            fps,
        }
    }

    fn best(offers: &[Offer], size: Size, fps: u32) -> Offer {
        ranked(offers.to_vec(), size, fps)[0]
    }

    #[test]
    fn a_usb_2_webcam_gives_jpeg_at_720p_and_raw_below() {
        use PixelFormat::{Mjpeg, Yuyv};
        let webcam = [
            offer(Yuyv, 640, 480, 30),
            offer(Yuyv, 1280, 720, 10),
            offer(Mjpeg, 640, 480, 30),
            offer(Mjpeg, 1280, 720, 30),
            offer(Mjpeg, 1920, 1080, 30),
        ];
        assert_eq!(best(&webcam, HD, 30), webcam[3]);
        assert_eq!(best(&webcam, VGA, 30), webcam[0]);
        // At ten pictures per second the uncompressed ones fit the bus.
        assert_eq!(best(&webcam, HD, 10), webcam[1]);
    }

    #[test]
    fn the_rate_is_worth_more_than_the_size() {
        use PixelFormat::Yuyv;
        let vivid = [
            offer(Yuyv, 640, 360, 30),
            offer(Yuyv, 640, 480, 25),
            offer(Yuyv, 1280, 720, 10),
        ];
        assert_eq!(best(&vivid, HD, 30), vivid[0]);
        assert_eq!(best(&vivid, HD, 10), vivid[2]);
        assert_eq!(best(&vivid, VGA, 25), vivid[1]);
    }

    #[test]
    fn the_aspect_is_kept_where_possible() {
        use PixelFormat::Mjpeg;
        let camera = [
            offer(Mjpeg, 1280, 960, 30),
            offer(Mjpeg, 1280, 720, 30),
            offer(Mjpeg, 800, 600, 30),
        ];
        assert_eq!(best(&camera, HD, 30), camera[1]);
        assert_eq!(best(&camera, VGA, 30), camera[2]);
    }

    #[test]
    fn the_camera_that_was_open_before_comes_first() {
        let nodes = || (0..4).map(|n| (n, format!("Webcam {n}"))).collect();
        assert_eq!(first(Some(2), nodes()), [2, 0, 1, 3]);
        assert_eq!(first(Some(9), nodes()), [0, 1, 2, 3]);
        assert_eq!(first(None, nodes()), [0, 1, 2, 3]);
    }

    #[test]
    fn no_other_camera_is_taken_for_a_number_that_was_another_one() {
        let nothing = tempfile::tempdir().expect("a folder");
        std::fs::write(nothing.path().join("name"), "Gone").expect("written");
        let known = Identity::read(nothing.path()).expect("it has a name");
        for device in ["0", "/dev/video0"] {
            let error = candidates(device, Some(&known)).expect_err("it is gone");
            assert!(error.to_string().contains("Gone"), "{error}");
        }
    }

    #[test]
    fn a_twin_under_the_same_link_is_not_taken_for_the_camera() {
        let root = tempfile::tempdir().expect("a folder");
        let camera = |port: &str| {
            let folder = root.path().join(port);
            std::fs::create_dir_all(folder.join("device")).expect("made");
            std::fs::write(folder.join("name"), "Twin").expect("written");
            Identity::read(&folder).expect("it has a name")
        };
        let (first, second) = (camera("1"), camera("2"));
        let by_id = "/dev/v4l/by-id/usb-Twin-video-index0";
        let both = [(0, first.clone()), (2, second.clone())];
        let known = |again| (Some(&first), again);
        // The link has moved to the other, the camera itself has come back or never went.
        assert_eq!(linked(by_id, Some(2), known(Some(0)), &both), Ok(Some(0)));
        let error = linked(by_id, Some(2), known(None), &both[1..]).expect_err("it is away");
        assert!(error.to_string().contains("Twin"), "{error}");
        // The first time the link is all there is to go by, and one that is late is waited for.
        assert_eq!(linked(by_id, Some(2), (None, None), &both), Ok(Some(2)));
        assert_eq!(linked(by_id, None, known(Some(0)), &both), Ok(Some(0)));
        assert_eq!(linked(by_id, None, known(None), &both), Ok(None));
        // Whoever names a port wants what is in it.
        let by_path = "/dev/v4l/by-path/pci-usb-0:2:1.0-video-index0";
        assert_eq!(linked(by_path, Some(2), known(Some(0)), &both), Ok(Some(2)));
    }

    #[test]
    fn a_camera_that_is_not_there_is_missing() {
        let clock = MediaClock::new(Instant::now(), std::time::SystemTime::now());
        for device in [
            "/dev/v4l/by-id/usb-nothing",
            "/dev/null",
            "no such camera",
            "99",
        ] {
            let patience = Patience {
                first_frame: Duration::ZERO,
                frames: Duration::ZERO,
            };
            let known = Known::default();
            let opened = Camera::open(device, &known, (HD, 30), clock, patience, &|_| true);
            let error = opened.err().expect("missing");
            assert!(matches!(error, Error::Missing { .. }), "{error}");
        }
        assert_eq!(number(Path::new("/dev/video12")), Some(12));
        assert_eq!(number(Path::new("/dev/null")), None);
    }
}
