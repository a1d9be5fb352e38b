//! What devices and a machine short of something do to a session: nothing that the server could see as an end.

use std::io::Write as _;
use std::path::{Path, PathBuf};

use onair::config::{AudioSource, Bitrate, Size, VideoSource};
use onair::feed::{Limit, LimitedBy, SourceState, Status};
use onair::lab::Profile;

use crate::support::{Pair, SOON};

const SIZE: Size = Size {
    width: 640,
    height: 360,
};

/// Ten pictures with noise, 15 per second.
fn film() -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(5);
    let mut film = b"YUV4MPEG2 W640 H360 F15:1 Ip A1:1 C420jpeg\n".to_vec();
    for n in 0..10_u8 {
        film.extend(b"FRAME\n");
        let luma = (0..SIZE.width * SIZE.height).map(|_| 60 + n * 10 + rng.u8(..8));
        film.extend(luma.collect::<Vec<_>>());
        film.extend(vec![128; (SIZE.width * SIZE.height / 2) as usize]);
    }
    film
}

/// A second of sound.
fn sound(path: &Path) {
    let spec = hound::WavSpec {
        channels: 2,
        sample_rate: 48_000,
        bits_per_sample: 16,
        sample_format: hound::SampleFormat::Int,
    };
    let mut writer = hound::WavWriter::create(path, spec).expect("made");
    for n in 0..96_000_u32 {
        let sample = if n / 2 % 200 < 100 { 3_000_i16 } else { -3_000 };
        writer.write_sample(sample).expect("written");
    }
    writer.finalize().expect("written");
}

/// Puts `content` in place of a file at once, as a device appears.
fn plug(path: &Path, content: &[u8]) {
    let beside = path.with_extension("new");
    let mut file = std::fs::File::create(&beside).expect("made");
    file.write_all(content).expect("written");
    std::fs::rename(beside, path).expect("renamed");
}

/// Takes the content from under the reader.
fn unplug(path: &Path) {
    std::fs::write(path, b"gone").expect("written");
}

async fn until(pair: &Pair, what: &str, wanted: impl Fn(&Status) -> bool) {
    let view = pair.agent.view();
    let reached = async {
        while !wanted(&view.overview().feeds["feed"]) {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    let reached = tokio::time::timeout(SOON, reached).await;
    assert!(
        reached.is_ok(),
        "{what}: {:?}",
        view.overview().feeds["feed"]
    );
}

fn states(status: &Status) -> [SourceState; 2] {
    let state = |track: &Option<onair::feed::TrackStatus>| track.clone().expect("there").state;
    [state(&status.video), state(&status.audio)]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sources_that_go_and_come_back_leave_no_gap_in_the_session() {
    let folder = tempfile::tempdir().expect("a folder");
    let (picture, noise): (PathBuf, PathBuf) =
        (folder.path().join("a.y4m"), folder.path().join("a.wav"));
    plug(&picture, &film());
    sound(&noise);
    let wav = std::fs::read(&noise).expect("just written");
    let pair = Pair::start_fed(Profile::Ome021, |feed| {
        let video = feed.video.as_mut().expect("a picture");
        video.source = VideoSource::File {
            path: picture.clone(),
        };
        let audio = feed.audio.as_mut().expect("sound");
        audio.source = AudioSource::File {
            path: noise.clone(),
        };
    })
    .await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(20).await;
    for round in 0..2 {
        unplug(&picture);
        unplug(&noise);
        let away = |s: &Status| {
            let away = |state: &SourceState| matches!(state, SourceState::Slate { .. });
            states(s).iter().all(away)
        };
        until(&pair, "both are away", away).await;
        plug(&picture, &film());
        plug(&noise, &wav);
        let back = |s: &Status| states(s) == [SourceState::Live, SourceState::Live];
        until(&pair, "both are back", back).await;
        pair.until_decoded(40 + round * 20).await;
    }
    let (lab, agent) = pair.end().await;
    // Among the rules: RTP time and wall time of both tracks go alike, from the first report to the last.
    assert_eq!(lab.violations, [], "{lab:#?}");
    assert_eq!(lab.reconnects, 0);
    assert_eq!(agent.sessions, 1, "{agent:?}");
    assert_eq!(lab.audio.gaps, Some(0), "{lab:#?}");
    assert_eq!(lab.video.frames_lost, Some(0), "{lab:#?}");
    assert!(
        lab.video.freeze_ms_max.is_none_or(|ms| ms <= 1_000),
        "{lab:#?}"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hot_machine_and_a_new_bitrate_change_the_picture_and_not_the_session() {
    let pair = Pair::start(Profile::WowzaSe, |_| {}).await;
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(20).await;
    let feed = pair.agent.view().feeds().remove("feed").expect("one feed");
    feed.limit(Some(Limit {
        fps: 67,
        size: 50,
        bitrate: 50,
        by: LimitedBy::Thermal,
    }));
    let decodes = |width: u32| {
        let hub = pair.lab.hub().clone();
        async move {
            let mut changed = hub.changed();
            let seen = async {
                let is = |s: &onair::lab::hub::Snapshot| s.report.video.width == Some(width);
                while !hub.sessions().iter().any(is) {
                    changed.changed().await.expect("the lab runs");
                }
            };
            let seen = tokio::time::timeout(SOON, seen).await;
            assert!(seen.is_ok(), "no picture of width {width}");
        }
    };
    decodes(320).await;
    assert_eq!(feed.status().limited_by, Some(LimitedBy::Thermal));
    feed.limit(None);
    decodes(640).await;
    let higher = Bitrate(900_000);
    let mut config = crate::support::small_feed();
    config.video.as_mut().expect("a picture").bitrate = higher;
    feed.retune(&config);
    // The session takes the new maximum over; without loss nothing else holds it down.
    until(&pair, "the new bitrate", |s| s.fanout.bitrate == higher).await;
    pair.until_decoded(60).await;
    let (lab, agent) = pair.end().await;
    assert_eq!(lab.violations, [], "{lab:#?}");
    assert_eq!((lab.reconnects, agent.sessions), (0, 1), "{agent:?}");
}
