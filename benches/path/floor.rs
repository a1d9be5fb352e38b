//! The floor: a process that only encodes, openh264 and Opus alone, the same frames at the same pace. And one that only
//! reads them from the clip, which the floor does not and the agent has to, as it would from a camera.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use onair::capture::Source as _;
use onair::capture::file::Y4mFile;
use onair::capture::synthetic::{Pace, Tone};
use onair::config::{Bitrate, Size};
use onair::encode::{Controls, Encoder as _, H264, Opus};
use onair::media::frame::{AudioFrame, VideoFrame};
use onair::media::time::MediaClock;
use onair::process::Usage;

use crate::CPU_RUN;

/// Runs this benchmark's process `verb` (`--floor` or `--source`) and returns its CPU seconds.
pub(crate) fn measure(verb: &str, clip: &Path) -> anyhow::Result<f64> {
    let out = Command::new(std::env::current_exe()?)
        .arg(verb)
        .arg(clip)
        .output()?;
    let text = String::from_utf8(out.stdout)?;
    text.trim()
        .parse()
        .with_context(|| format!("{verb} said {text:?}"))
}

/// The process that only reads: prints its CPU seconds.
pub(crate) fn source(clip: &Path) -> anyhow::Result<()> {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let mut pictures = Y4mFile::open(clip, clock, Pace::RealTime)?;
    let mut usage = Usage::new(Instant::now());
    let start = Instant::now();
    while start.elapsed() < CPU_RUN {
        pictures.read()?;
    }
    usage.sample(Instant::now());
    println!("{}", usage.report().cpu_s);
    Ok(())
}

/// The floor itself: prints its CPU seconds without those of loading the frames.
pub(crate) fn run(clip: &Path) -> anyhow::Result<()> {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let mut pictures = Y4mFile::open(clip, clock, Pace::Free)?;
    let frames: Vec<VideoFrame> = (0..150)
        .map(|_| pictures.read())
        .collect::<Result<_, _>>()?;
    let mut tone = Tone::new(2, clock, Pace::Free);
    let blocks: Vec<AudioFrame> = (0..100).map(|_| tone.read()).collect::<Result<_, _>>()?;

    let size = Size {
        width: 1280,
        height: 720,
    };
    let mut h264 = H264::new(size, 30, Bitrate(2_000_000))?;
    let mut opus = Opus::new(2, Bitrate(64_000))?;
    let video = Controls {
        key_frame: false,
        bitrate: Bitrate(2_000_000),
    };
    let audio = Controls {
        key_frame: false,
        bitrate: Bitrate(64_000),
    };
    let mut usage = Usage::new(Instant::now());
    let start = Instant::now();
    let (mut n_pictures, mut n_blocks) = (0_u32, 0_u32);
    loop {
        let elapsed = start.elapsed();
        if elapsed >= CPU_RUN {
            break;
        }
        let picture_due = Duration::from_secs(1) * n_pictures / 30;
        let block_due = Duration::from_millis(10) * n_blocks;
        if picture_due <= elapsed {
            let mut frame = frames[n_pictures as usize % frames.len()].clone();
            frame.captured = clock.at(start + picture_due);
            h264.encode(&frame, video)?;
            n_pictures += 1;
        } else if block_due <= elapsed {
            let mut block = blocks[n_blocks as usize % blocks.len()].clone();
            block.captured = clock.at(start + block_due);
            opus.encode(&block, audio)?;
            n_blocks += 1;
        } else {
            std::thread::sleep(picture_due.min(block_due) - elapsed);
        }
    }
    usage.sample(Instant::now());
    println!("{}", usage.report().cpu_s);
    Ok(())
}
