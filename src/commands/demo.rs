//! `onair demo`: a lab and an agent in one process, so that a stranger sees everything work within a minute.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;

use super::outcome::{self, Run};
use super::{clocks, print, signals};
use crate::cli::{self, DemoVideo};
use crate::config::{
    AfterLoss, Audio, AudioSource, Bitrate, Config, Daemon, Feed, PictureWatch, Publisher, Size,
    SoundWatch, Video, VideoSource,
};
use crate::lab::{Hub, Lab, LabConfig, Profile};
use crate::media::time::MediaClock;
use crate::network::Network;
use crate::report;
use crate::supervisor::Supervisor;

/// What the demo shows: the two handshakes onair exists for, one of them over TCP.
const PROFILES: [Profile; 2] = [Profile::WowzaCloud, Profile::Qencode];

/// Least part of the pictures sent that the lab must have decoded.
const DECODED_MIN: f64 = 0.97;

/// Largest offset of sound against picture, for 95 % of the readings.
const AV_OFFSET_MAX_MS: f64 = 40.0;

/// Time for the lab to decode what was under way when the publishers parted.
const SETTLE: Duration = Duration::from_millis(300);

/// Publishes until it is interrupted, or for `--for`.
pub async fn run(args: cli::Demo, global: cli::Global) -> anyhow::Result<ExitCode> {
    let stop = signals::watch()?;
    let (began, wall) = clocks();
    let mut run = Run::new(began, wall);
    let clock = MediaClock::new(began, wall);
    let lab = Lab::start(LabConfig::new(PROFILES.to_vec(), clock))
        .await
        .context("cannot start the lab")?;
    // Everything is on this host: no network matters.
    let network = tokio::sync::watch::channel(Network::default()).1;
    let supervisor = Supervisor::start(&config(&lab, args.video), clock, &network, global.seed())
        .context("cannot start")?;
    print(&format!(
        "A lab runs in this process; onair publishes to it as {} and as {}.\n\
         Watch the picture, the messages and the verdict: {}\n",
        PROFILES[0],
        PROFILES[1],
        lab.page_url(),
    ))?;

    let live = std::io::stdout().is_terminal();
    run.last(&stop, args.extent.duration, || match live {
        true => print(&format!("\r\x1b[K{}", progress(lab.hub()))),
        false => Ok(()),
    })
    .await?;
    if live {
        print("\n")?;
    }

    let watches = supervisor.view().publishers();
    let at_end: BTreeMap<_, _> = watches
        .iter()
        .map(|(name, watch)| (name.clone(), watch.borrow().clone()))
        .collect();
    supervisor.drain().await;
    tokio::time::sleep(SETTLE).await;
    let hub = lab.hub().clone();
    lab.stop().await;

    let mut reasons = outcome::off_air(&at_end);
    reasons.extend(hub.reasons());
    let mut sessions = hub.report();
    for session in &mut sessions {
        let Some((name, watch)) = session
            .profile
            .as_ref()
            .and_then(|profile| watches.get_key_value(profile))
        else {
            continue;
        };
        let own = outcome::session(name, &watch.borrow());
        session.publisher = own.publisher;
        session.time_to_on_air_ms = own.time_to_on_air_ms;
        session.capture_to_wire_ms = own.capture_to_wire_ms;
        session.reconnects = own.reconnects;
        session.end_reason = own.end_reason;
        session.video.frames_sent = own.video.frames_sent;
        reasons.extend(shortfalls(session));
    }
    let report = run.report(clocks().0, sessions, reasons);
    print(&outcome::summary(&report))?;
    outcome::conclude(&report, args.extent.report.as_deref())
}

/// What of a session is less than the demo promises.
fn shortfalls(session: &report::Session) -> Vec<String> {
    let name = session.publisher.as_deref().unwrap_or_default();
    let (sent, decoded) = (
        session.video.frames_sent.unwrap_or(0),
        session.video.frames_decoded.unwrap_or(0),
    );
    let mut reasons = Vec::new();
    if sent == 0 || (decoded as f64) < DECODED_MIN * sent as f64 {
        reasons.push(format!(
            "{name}: of {sent} pictures sent only {decoded} were decoded"
        ));
    }
    if let Some(offset) = session.av_offset_ms
        && offset.p95 > AV_OFFSET_MAX_MS
    {
        reasons.push(format!(
            "{name}: sound and picture are {:.0} ms apart",
            offset.p95
        ));
    }
    reasons
}

/// One line on what the lab receives.
fn progress(hub: &Hub) -> String {
    let ms = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), |ms| format!("{ms:.0} ms"));
    let one = |s: crate::lab::hub::Snapshot| {
        let live = s.live;
        format!(
            "{}: {:.0} fps, {:.1} Mbit/s, latency {}, A/V {}",
            s.profile,
            live.fps,
            live.bitrate_bps as f64 / 1e6,
            ms(live.latency_ms),
            ms(live.av_offset_ms),
        )
    };
    let running = hub.sessions().into_iter().filter(|s| s.ended_ms.is_none());
    running.map(one).collect::<Vec<_>>().join("  |  ")
}

fn config(lab: &Lab, video: DemoVideo) -> Config {
    let (picture, sound) = match video {
        DemoVideo::Camera => (
            VideoSource::Camera {
                device: "auto".to_owned(),
                watch: PictureWatch::default(),
            },
            AudioSource::Microphone {
                device: "auto".to_owned(),
                watch: SoundWatch::default(),
                after_loss: AfterLoss::default(),
            },
        ),
        DemoVideo::Testcard => (VideoSource::TestCard, AudioSource::Tone),
    };
    let feed = Feed {
        video: Some(Video {
            source: picture,
            size: Size {
                width: 1280,
                height: 720,
            },
            fps: 30,
            bitrate: Bitrate(2_000_000),
            key_frame_interval: Duration::from_secs(2),
        }),
        audio: Some(Audio {
            source: sound,
            channels: 2,
            bitrate: Bitrate(64_000),
        }),
    };
    let publishers = PROFILES.into_iter().filter_map(|profile| {
        let server = lab.server(profile)?;
        Some((profile.to_string(), Publisher::new("demo", server)))
    });
    Config {
        feeds: BTreeMap::from([("demo".to_owned(), feed)]),
        publishers: publishers.collect(),
        daemon: Daemon::default(),
    }
}
