//! `onair devices`: which cameras and microphones are here, and the configuration to paste.
//!
//! Drivers are asked on a thread of their own and with a deadline: a broken one answers never.

use std::fmt::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::capture::camera::{self, CameraInfo, Offer};
use crate::capture::microphone::{self, MicrophoneInfo};
use crate::cli;
use crate::config::Size;
use crate::media::frame::PixelFormat;

/// Longest wait for all drivers of a kind: each camera is opened for a moment.
const DEADLINE: Duration = Duration::from_secs(20);
/// What is proposed where a camera has it; else its largest picture below.
const WANTED: (Size, u32) = (
    Size {
        width: 1280,
        height: 720,
    },
    30,
);

/// Prints the list; a machine without devices is no failure.
pub async fn run(args: cli::Devices, _globals: cli::Global) -> anyhow::Result<ExitCode> {
    let (cameras, microphones) = found().await?;
    let text = if args.json {
        format!("{:#}\n", as_json(&cameras, &microphones))
    } else {
        as_text(&cameras, &microphones)
    };
    super::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Asks all drivers.
pub(super) async fn found() -> anyhow::Result<(Vec<CameraInfo>, Vec<MicrophoneInfo>)> {
    let cameras = tokio::task::spawn_blocking(camera::list);
    let cameras = tokio::time::timeout(DEADLINE, cameras)
        .await
        .context("a camera's driver does not answer")??;
    let microphones = tokio::task::spawn_blocking(microphone::list);
    let microphones = tokio::time::timeout(DEADLINE, microphones)
        .await
        .context("a sound card's driver does not answer")??
        .unwrap_or_else(|error| {
            tracing::warn!(%error, "microphones cannot be listed");
            Vec::new()
        });
    Ok((cameras, microphones))
}

pub(super) fn as_json(cameras: &[CameraInfo], microphones: &[MicrophoneInfo]) -> Value {
    let camera = |camera: &CameraInfo| {
        let offer = |offer: &Offer| {
            json!({
                "format": fourcc(offer.format),
                "size": offer.size.to_string(),
                "fps": offer.fps,
            })
        };
        let offers = camera.offers.as_ref().map_or(&[][..], Vec::as_slice);
        json!({
            "device": camera.path,
            "name": camera.name,
            "offers": offers.iter().map(offer).collect::<Vec<_>>(),
            "error": camera.offers.as_ref().err().map(ToString::to_string),
        })
    };
    let microphone = |microphone: &MicrophoneInfo| {
        json!({
            "device": microphone.id,
            "name": microphone.name,
            "rate_hz": microphone.preferred.map(|(rate, _)| rate),
            "channels": microphone.preferred.map(|(_, channels)| channels),
        })
    };
    json!({
        "cameras": cameras.iter().map(camera).collect::<Vec<_>>(),
        "microphones": microphones.iter().map(microphone).collect::<Vec<_>>(),
        "toml": to_paste(cameras, microphones),
    })
}

fn as_text(cameras: &[CameraInfo], microphones: &[MicrophoneInfo]) -> String {
    let mut text = String::from("Cameras\n");
    // Writing to a String cannot fail.
    for camera in cameras {
        _ = writeln!(text, "  {}  {}", camera.path.display(), camera.name);
        match &camera.offers {
            Ok(offers) => text.extend(
                offer_lines(offers)
                    .iter()
                    .map(|line| format!("      {line}\n")),
            ),
            Err(error) => _ = writeln!(text, "      {error}"),
        }
    }
    if cameras.is_empty() {
        text.push_str("  none found: is one plugged in, and is this user in the group video?\n");
    }
    text.push_str("Microphones\n");
    for microphone in microphones {
        _ = write!(text, "  {}  {}", microphone.id, microphone.name);
        text.push_str(&match microphone.preferred {
            Some((rate, channels)) => format!(", {rate} Hz, channels: {channels}\n"),
            None => ", in use or silent about its formats\n".to_owned(),
        });
    }
    if microphones.is_empty() {
        text.push_str("  none found: is one plugged in, and is this user in the group audio?\n");
    }
    if let Some(toml) = to_paste(cameras, microphones) {
        _ = write!(
            text,
            "\nThe first of each, for the configuration file:\n\n{toml}"
        );
    }
    text
}

/// One line per format and size, with all its rates.
fn offer_lines(offers: &[Offer]) -> Vec<String> {
    let mut kinds: Vec<(PixelFormat, Size)> = Vec::new();
    for offer in offers {
        if !kinds.contains(&(offer.format, offer.size)) {
            kinds.push((offer.format, offer.size));
        }
    }
    let line = |(format, size): &(PixelFormat, Size)| {
        let same = |offer: &&Offer| offer.format == *format && offer.size == *size;
        let mut rates: Vec<u32> = offers.iter().filter(same).map(|offer| offer.fps).collect();
        rates.sort_unstable_by(|a, b| b.cmp(a));
        rates.dedup();
        let rates: Vec<String> = rates.iter().map(ToString::to_string).collect();
        format!("{} {size} at {} fps", fourcc(*format), rates.join(", "))
    };
    kinds.iter().map(line).collect()
}

/// A feed of the first usable camera and the first microphone; `None` without either.
fn to_paste(cameras: &[CameraInfo], microphones: &[MicrophoneInfo]) -> Option<String> {
    let usable = |camera: &CameraInfo| Some((quoted(&camera.path.display()), best(camera)?));
    let camera = cameras.iter().find_map(usable);
    // Straight from the card, at any rate: a headless machine has nothing better behind "default".
    let direct = |microphone: &&MicrophoneInfo| microphone.id.contains("plughw:");
    let microphone = microphones.iter().find(direct).or(microphones.first());
    if camera.is_none() && microphone.is_none() {
        return None;
    }
    let mut toml = String::from("[feed.front]\n");
    if let Some((device, offer)) = camera {
        let Offer { size, fps, .. } = offer;
        _ = writeln!(
            toml,
            "video = {{ source = \"camera\", device = {device}, size = \"{size}\", fps = {fps} }}"
        );
    }
    if let Some(microphone) = microphone {
        let device = quoted(&microphone.id);
        _ = writeln!(
            toml,
            "audio = {{ source = \"microphone\", device = {device} }}"
        );
    }
    Some(toml)
}

/// What is proposed of a camera: 720p30, else as much of the picture and as near to 30 as there is up to that.
fn best(camera: &CameraInfo) -> Option<Offer> {
    let (wanted, fps) = WANTED;
    let area = |size: Size| size.width * size.height;
    let fits = |size: Size| {
        let side = |side: u32| (64..=4096).contains(&side) && side.is_multiple_of(2);
        side(size.width) && side(size.height)
    };
    let offers = camera.offers.as_ref().ok()?.iter().copied();
    offers
        .filter(|offer| fits(offer.size) && (1..=60).contains(&offer.fps))
        .min_by_key(|offer| {
            let beyond = area(offer.size) > area(wanted);
            let distance = area(wanted).abs_diff(area(offer.size));
            (beyond, distance, offer.fps.abs_diff(fps))
        })
}

/// A text as TOML writes it: a JSON string is one.
fn quoted(text: &impl ToString) -> String {
    Value::String(text.to_string()).to_string()
}

/// The name that V4L2 and its tools have for a format.
fn fourcc(format: PixelFormat) -> &'static str {
    match format {
        PixelFormat::I420 => "YU12",
        PixelFormat::Mjpeg => "MJPG",
        PixelFormat::Nv12 => "NV12",
        PixelFormat::Yuyv => "YUYV",
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::capture::Error;
    use crate::config::{PictureWatch, VideoSource, raw};

    fn offer(format: PixelFormat, width: u32, height: u32, fps: u32) -> Offer {
        let size = Size { width, height };
        Offer { format, size, fps }
    }

    fn webcam() -> CameraInfo {
        CameraInfo {
            path: "/dev/v4l/by-id/usb-A \"webcam\"-video-index0".into(),
            name: "A webcam".to_owned(),
            offers: Ok(vec![
                offer(PixelFormat::Mjpeg, 1920, 1080, 30),
                offer(PixelFormat::Mjpeg, 1280, 720, 15),
                offer(PixelFormat::Mjpeg, 1280, 720, 30),
                offer(PixelFormat::Yuyv, 641, 481, 30),
                offer(PixelFormat::Yuyv, 640, 480, 30),
            ]),
        }
    }

    fn microphone() -> MicrophoneInfo {
        MicrophoneInfo {
            id: "plughw:CARD=webcam".to_owned(),
            name: "A webcam's microphone".to_owned(),
            preferred: Some((44_100, 1)),
        }
    }

    #[test]
    fn what_is_to_paste_is_a_valid_feed_of_the_devices() {
        let vague = MicrophoneInfo {
            id: "alsa:default".to_owned(),
            ..microphone()
        };
        let toml = to_paste(&[webcam()], &[vague, microphone()]).unwrap();
        assert!(toml.contains("plughw:CARD=webcam"), "{toml}");
        let whole = format!(
            "{toml}[publisher.p]\nfeed = \"front\"\nto = \"ome\"\nurl = \"wss://host/a/b\"\n"
        );
        let env = raw::Env {
            base: Path::new(""),
            fetch: &|_| Err(String::new()),
            open: &|_| Ok(()),
        };
        let config = raw::parse(&whole, &env).unwrap();
        let video = config.feeds["front"].video.as_ref().unwrap();
        let device = webcam().path.display().to_string();
        let watch = PictureWatch::default();
        assert_eq!(video.source, VideoSource::Camera { device, watch });
        assert_eq!((video.size, video.fps), WANTED);
    }

    #[test]
    fn a_camera_that_cannot_be_used_is_listed_with_the_reason_and_not_proposed() {
        let device = "/dev/video7".to_owned();
        let busy = CameraInfo {
            path: device.clone().into(),
            name: "Taken".to_owned(),
            offers: Err(Error::Busy { device }),
        };
        let text = as_text(&[busy.clone(), webcam()], &[]);
        assert!(
            text.contains("/dev/video7 is in use by another program"),
            "{text}"
        );
        assert!(text.contains("MJPG 1280x720 at 30, 15 fps"), "{text}");
        assert!(
            !to_paste(&[busy.clone(), webcam()], &[])
                .unwrap()
                .contains("video7")
        );
        assert_eq!(to_paste(&[busy], &[]), None);
    }

    #[test]
    fn small_cameras_are_proposed_at_their_largest() {
        let small = CameraInfo {
            offers: Ok(vec![
                offer(PixelFormat::Yuyv, 320, 240, 30),
                offer(PixelFormat::Yuyv, 640, 480, 15),
                offer(PixelFormat::Yuyv, 640, 480, 25),
            ]),
            ..webcam()
        };
        assert_eq!(best(&small), Some(offer(PixelFormat::Yuyv, 640, 480, 25)));
    }
}
