//! How quick: process start to the first picture decoded, capture to wire, key-frame request to key frame.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use onair::lab::{Fault, Lab, LabConfig, Profile};
use onair::media::time::MediaClock;

use crate::{print_ms, since_ms};

/// Starts measured.
const STARTS: usize = 50;

/// Length of the run for the latencies of media.
const MEDIA_RUN: Duration = Duration::from_secs(30);

/// A lab in this process.
pub(crate) async fn lab(profiles: &[Profile]) -> anyhow::Result<Lab> {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    Ok(Lab::start(LabConfig::new(profiles.to_vec(), clock)).await?)
}

/// Starts `onair run` again and again and waits for its first decoded picture.
pub(crate) async fn starts(folder: &Path) -> anyhow::Result<()> {
    for profile in [Profile::Ome021, Profile::WowzaCloud] {
        let mut sample = Vec::new();
        for _ in 0..STARTS {
            let lab = lab(&[profile]).await?;
            let config = configuration(folder, &lab, profile, "source = \"testcard\"")?;
            let start = Instant::now();
            let mut child = Command::new(env!("CARGO_BIN_EXE_onair"))
                .args(["run", "--config"])
                .arg(config)
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()?;
            first_picture(&lab).await?;
            sample.push(since_ms(start));
            child.kill()?;
            child.wait()?;
            lab.stop().await;
        }
        print_ms(&format!("start to first picture, {profile}"), &sample);
    }
    Ok(())
}

/// Capture to wire and key-frame request to key frame, with agent and lab in processes of their own.
pub(crate) async fn media(folder: &Path, clip: &Path) -> anyhow::Result<()> {
    let lab = lab(&[Profile::WowzaSe]).await?;
    let source = format!("source = \"file\", path = {clip:?}");
    let config = configuration(folder, &lab, Profile::WowzaSe, &source)?;
    let report = folder.join("latency-report.json");
    let mut child = Command::new(env!("CARGO_BIN_EXE_onair"))
        .args([
            "run",
            "--for",
            &format!("{}s", MEDIA_RUN.as_secs()),
            "--config",
        ])
        .arg(config)
        .arg("--report")
        .arg(&report)
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    while child.try_wait()?.is_none() {
        tokio::time::sleep(Duration::from_millis(1_100)).await;
        lab.faults().commit(None, Fault::KeyFrame);
    }
    let judged = lab
        .report()
        .into_iter()
        .next()
        .context("nobody published")?;
    let own: serde_json::Value = serde_json::from_slice(&std::fs::read(report)?)?;
    lab.stop().await;
    println!(
        "capture to wire                {}",
        own["sessions"][0]["capture_to_wire_ms"]
    );
    println!(
        "key-frame request to IDR       {}",
        serde_json::to_string(&judged.video.idr_after_request_ms)?
    );
    Ok(())
}

async fn first_picture(lab: &Lab) -> anyhow::Result<()> {
    let mut changed = lab.hub().changed();
    let seen = async {
        while !lab
            .hub()
            .sessions()
            .iter()
            .any(|s| s.report.video.frames_decoded > Some(0))
        {
            changed.changed().await?;
        }
        anyhow::Ok(())
    };
    tokio::time::timeout(Duration::from_secs(30), seen)
        .await
        .context("no picture within 30 s")?
}

/// Writes the configuration that publishes `video` at 720p30 to `profile`, and returns its path.
fn configuration(
    folder: &Path,
    lab: &Lab,
    profile: Profile,
    video: &str,
) -> anyhow::Result<std::path::PathBuf> {
    let endpoint = lab
        .endpoint(profile)
        .context("the lab has no such profile")?;
    let server = match profile {
        Profile::Ome016 | Profile::Ome020 | Profile::Ome021 => {
            format!("to = \"ome\"\nurl = {:?}", endpoint.url)
        }
        Profile::Qencode => format!("to = \"qencode\"\nurl = {:?}", endpoint.url),
        Profile::Whip | Profile::WhipOme | Profile::WhipWowza => {
            format!("to = \"whip\"\nurl = {:?}", endpoint.url)
        }
        Profile::WowzaCloud | Profile::WowzaSe | Profile::WowzaV2 => format!(
            "to = \"wowza\"\nurl = {:?}\napplication = {:?}\nstream = {:?}",
            endpoint.url, endpoint.application, endpoint.stream
        ),
    };
    let path = folder.join("latency.toml");
    let text = format!(
        "[feed.bench]\nvideo = {{ {video}, size = \"1280x720\", fps = 30, bitrate = \"2 Mbit/s\" }}\n\
         audio = {{ source = \"tone\" }}\n[publisher.bench]\nfeed = \"bench\"\n{server}\n"
    );
    std::fs::write(&path, text)?;
    Ok(path)
}
