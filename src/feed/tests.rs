//! Feeds with real encoders, and sources that fail as devices do.

mod back;
mod replug;
mod stuck;

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime};

use super::pump::Open;
use super::track::Limits;
use super::*;
use crate::media::access_unit::{AccessUnit, Track};
use crate::media::frame::{AudioFrame, Picture, PixelFormat};
use crate::media::time::MediaTime;

const SIZE: Size = Size {
    width: 320,
    height: 180,
};
/// Nothing here takes long, but the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(20);
const QUICK: Limits = Limits {
    open: Duration::from_secs(2),
    format: Duration::ZERO,
    first_frame: Duration::from_secs(2),
    frames: Duration::from_millis(400),
    first_retry: Duration::from_millis(100),
    last_retry: Duration::from_millis(400),
    cured: Duration::from_secs(30),
    settle: Duration::from_millis(50),
    after_loss: AfterLoss::Resume,
};

fn clock() -> MediaClock {
    MediaClock::new(Instant::now(), SystemTime::now())
}

fn video() -> config::Video {
    config::Video {
        source: VideoSource::TestCard,
        size: SIZE,
        fps: 30,
        bitrate: Bitrate(600_000),
        key_frame_interval: Duration::from_secs(10),
    }
}

fn audio() -> config::Audio {
    config::Audio {
        source: AudioSource::Tone,
        channels: 2,
        bitrate: Bitrate(64_000),
    }
}

fn both() -> config::Feed {
    config::Feed {
        video: Some(video()),
        audio: Some(audio()),
    }
}

async fn next(subscription: &mut Subscription) -> AccessUnit {
    let unit = tokio::time::timeout(PATIENCE, subscription.next()).await;
    unit.expect("in time").expect("the feed runs")
}

/// Waits until the status is as wanted.
async fn until(handle: &FeedHandle, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let status = handle.status();
        if wanted(&status) {
            return status;
        }
        assert!(Instant::now() < deadline, "{what}: {status:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn balanced(status: &Status) {
    for track in [&status.video, &status.audio].into_iter().flatten() {
        assert!(track.ledger.balances(), "{:?}", track.ledger);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn both_tracks_flow_to_every_subscriber_and_every_frame_is_counted() {
    let feed = Feed::start("t1", &both(), clock()).expect("starts");
    let handle = feed.handle();
    let mut first = handle.subscribe();
    let mut second = handle.subscribe();
    let mut last: [Option<MediaTime>; 2] = [None, None];
    let mut counts = [0, 0];
    while counts[0] < 50 || counts[1] < 30 {
        let unit = next(&mut first).await;
        let track = unit.track as usize;
        assert!(last[track].is_none_or(|last| unit.captured > last));
        if unit.track == Track::Audio
            && let Some(last) = last[track]
        {
            let step = unit.captured.saturating_since(last);
            assert_eq!(step.as_millis() % 20, 0, "{step:?}");
        }
        last[track] = Some(unit.captured);
        counts[track] += 1;
        balanced(&handle.status());
    }
    assert!(next(&mut second).await.data.len() > 2);
    drop(second);
    let drained = feed.drain(Duration::from_secs(5)).await;
    assert_eq!(
        drained,
        Drained {
            joined: 4,
            left_behind: 0
        }
    );
    let mut rest = 0;
    while first.next().await.is_some() {
        rest += 1;
    }
    let status = handle.status();
    balanced(&status);
    let (video, audio) = (status.video.expect("video"), status.audio.expect("audio"));
    assert_eq!(video.ledger.in_flight + audio.ledger.in_flight, 0);
    let lane = first.counters();
    let seen = lane.audio.delivered + lane.video.delivered;
    assert_eq!(seen, (counts[0] + counts[1] + rest) as u64);
    assert_eq!(
        video.ledger.units,
        lane.video.delivered + lane.video.dropped
    );
    assert_eq!(
        audio.ledger.units,
        lane.audio.delivered + lane.audio.dropped
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_subscriber_nothing_is_encoded_and_with_one_a_key_frame_comes() {
    let feed = Feed::start("t2", &both(), clock()).expect("starts");
    let handle = feed.handle();
    let idle = |s: &Status| {
        let idle = |t: &Option<TrackStatus>| t.as_ref().is_some_and(|t| t.ledger.idle > 5);
        idle(&s.video) && idle(&s.audio)
    };
    let status = until(&handle, "idle", idle).await;
    assert_eq!(status.video.expect("video").ledger.encoded, 0);
    assert_eq!(status.audio.expect("audio").ledger.encoded, 0);
    for _ in 0..2 {
        let mut subscription = handle.subscribe();
        let first_video = loop {
            let unit = next(&mut subscription).await;
            if unit.track == Track::Video && unit.key {
                break unit;
            }
        };
        assert!(first_video.data.len() > 100);
    }
    assert_eq!(feed.drain(Duration::from_secs(5)).await.left_behind, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_frame_on_demand_comes_soon() {
    let config = config::Feed {
        audio: None,
        ..both()
    };
    let feed = Feed::start("t3", &config, clock()).expect("starts");
    let mut subscription = feed.handle().subscribe();
    let mut keys = Vec::new();
    for n in 0..60 {
        let unit = next(&mut subscription).await;
        if n == 30 {
            subscription.request_key_frame();
        }
        if unit.key {
            keys.push((n, unit.captured));
        }
    }
    // The first picture, and one after the request; never two within half a second.
    assert_eq!(keys[0].0, 0, "{keys:?}");
    assert!(keys.iter().any(|(n, _)| (31..=50).contains(n)), "{keys:?}");
    for pair in keys.windows(2) {
        let pause = pair[1].1.saturating_since(pair[0].1);
        assert!(pause >= Duration::from_millis(400), "{keys:?}");
    }
}

/// What a scripted camera does next.
enum Act {
    Fail,
    /// Delivers for ever.
    Film,
    /// Hangs until the test lets it go.
    Hang,
    /// Delivers this many pictures.
    Pictures(u32),
    Panic,
    /// Delivers damaged pictures for ever.
    Broken,
}

struct Scripted {
    acts: Arc<Mutex<VecDeque<Act>>>,
    release: Arc<Mutex<mpsc::Receiver<()>>>,
    current: Option<Act>,
    clock: MediaClock,
    card: TestCard,
}

impl Source for Scripted {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, capture::Error> {
        loop {
            let act = self
                .current
                .take()
                .or_else(|| self.acts.lock().expect("not poisoned").pop_front());
            match act {
                Some(Act::Pictures(0)) => {}
                Some(Act::Pictures(n)) => {
                    self.current = Some(Act::Pictures(n - 1));
                    return self.card.read();
                }
                Some(Act::Film) => {
                    self.current = Some(Act::Film);
                    return self.card.read();
                }
                Some(Act::Broken) => {
                    self.current = Some(Act::Broken);
                    let captured = self.card.read()?.captured;
                    let picture = Picture {
                        format: PixelFormat::Mjpeg,
                        width: SIZE.width,
                        height: SIZE.height,
                        data: vec![0xFF, 0xD8, 0x00].into(),
                    };
                    return Ok(VideoFrame { captured, picture });
                }
                Some(Act::Hang) => {
                    let release = self.release.lock().expect("not poisoned");
                    // An error means that the test is over.
                    let _over = release.recv();
                    return Ok(VideoFrame {
                        captured: self.clock.at(Instant::now()),
                        picture: self.card.read()?.picture,
                    });
                }
                Some(Act::Panic) => panic!("as a device library does"),
                Some(Act::Fail) | None => {
                    let (device, what) = ("scripted".into(), "unplugged".into());
                    return Err(capture::Error::Lost { device, what });
                }
            }
        }
    }

    fn describe(&self) -> String {
        "scripted".into()
    }
}

fn origin<F>(open: Open<F>, limits: Limits) -> Origin<F> {
    Origin {
        open,
        reset: None,
        devices: Devices::None,
        limits,
    }
}

fn assemble(name: &str, config: &config::Feed, clock: MediaClock, sources: Sources) -> Feed {
    Feed::assemble(name, config, clock, Budget::default(), sources).expect("starts")
}

struct Stage {
    feed: Feed,
    opened: Arc<AtomicU32>,
    release: mpsc::Sender<()>,
}

fn stage(name: &str, acts: impl IntoIterator<Item = Act>) -> Stage {
    stage_within(name, acts, QUICK)
}

fn stage_within(name: &str, acts: impl IntoIterator<Item = Act>, limits: Limits) -> Stage {
    stage_with(name, acts, limits, || {})
}

fn stage_with(
    name: &str,
    acts: impl IntoIterator<Item = Act>,
    limits: Limits,
    reset: impl Fn() + Send + Sync + 'static,
) -> Stage {
    let clock = clock();
    let acts = Arc::new(Mutex::new(acts.into_iter().collect::<VecDeque<_>>()));
    let (release, released) = mpsc::channel();
    let released = Arc::new(Mutex::new(released));
    let opened = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&opened);
    let open: Open<VideoFrame> = Arc::new(move |_| {
        count.fetch_add(1, Ordering::SeqCst);
        boxed(Scripted {
            acts: Arc::clone(&acts),
            release: Arc::clone(&released),
            current: None,
            clock,
            card: TestCard::new(SIZE, 30, clock, Pace::RealTime),
        })
    });
    let config = config::Feed {
        video: Some(video()),
        audio: None,
    };
    let sources = Sources {
        video: Some(Origin {
            reset: Some(Arc::new(reset)),
            ..origin(open, limits)
        }),
        audio: None,
        encoder: h264,
    };
    let feed = assemble(name, &config, clock, sources);
    Stage {
        feed,
        opened,
        release,
    }
}

fn away(status: &Status) -> bool {
    let video = status.video.as_ref().map(|v| &v.state);
    matches!(video, Some(SourceState::Slate { .. }))
}

fn live(status: &Status) -> bool {
    status.video.as_ref().map(|v| &v.state) == Some(&SourceState::Live)
}

/// Keeps taking access units, and checks that their times rise, until `wanted`.
async fn watch(
    subscription: &mut Subscription,
    handle: &FeedHandle,
    last: &mut Option<MediaTime>,
    wanted: impl Fn(&Status) -> bool,
) -> usize {
    let mut seen = 0;
    let deadline = Instant::now() + PATIENCE;
    loop {
        let unit = next(subscription).await;
        assert!(last.is_none_or(|last| unit.captured > last));
        *last = Some(unit.captured);
        seen += 1;
        let status = handle.status();
        balanced(&status);
        if wanted(&status) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{status:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn camera_unplugged_keeps_the_pictures_coming() {
    use Act::{Fail, Film, Panic, Pictures};
    let stage = stage(
        "t4",
        [Pictures(10), Fail, Fail, Panic, Pictures(10), Fail, Film],
    );
    let handle = stage.feed.handle();
    let mut subscription = handle.subscribe();
    let mut last = None;
    watch(&mut subscription, &handle, &mut last, live).await;
    watch(&mut subscription, &handle, &mut last, away).await;
    watch(&mut subscription, &handle, &mut last, live).await;
    watch(&mut subscription, &handle, &mut last, away).await;
    let back = |s: &Status| live(s) && s.video.as_ref().is_some_and(|v| v.opened >= 5);
    watch(&mut subscription, &handle, &mut last, back).await;
    let status = handle.status().video.expect("video");
    assert!(status.ledger.filled >= 2, "{status:?}");
    assert_eq!(stage.opened.load(Ordering::SeqCst), 5);
    let drained = stage.feed.drain(Duration::from_secs(5)).await;
    assert_eq!(
        drained,
        Drained {
            joined: 2,
            left_behind: 0
        }
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_hangs_is_left_behind_and_does_not_hinder_the_drain() {
    use Act::{Film, Hang, Pictures};
    let stage = stage("t5", [Pictures(5), Hang, Film]);
    let handle = stage.feed.handle();
    let mut subscription = handle.subscribe();
    let mut last = None;
    watch(&mut subscription, &handle, &mut last, away).await;
    let behind = |s: &Status| s.video.as_ref().is_some_and(|v| v.left_behind == 1);
    until(&handle, "one is left behind", behind).await;
    watch(&mut subscription, &handle, &mut last, live).await;
    let drained = stage.feed.drain(Duration::from_secs(5)).await;
    assert_eq!(
        drained,
        Drained {
            joined: 2,
            left_behind: 1
        }
    );
    // The stuck thread ends by itself when its device answers, and posts to nobody.
    let captured = handle.status().video.expect("video").ledger.captured;
    stage.release.send(()).expect("it still waits");
    assert_eq!(
        handle.status().video.expect("video").ledger.captured,
        captured
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn while_a_camera_pauses_its_last_picture_is_repeated_and_key_frames_are_answered() {
    let patient = Limits {
        frames: PATIENCE,
        ..QUICK
    };
    let stage = stage_within("t8", [Act::Pictures(5), Act::Hang], patient);
    let handle = stage.feed.handle();
    let mut subscription = handle.subscribe();
    let mut last = None;
    let repeated = |s: &Status| {
        let filled = s.video.as_ref().map(|v| v.ledger.filled);
        live(s) && filled.is_some_and(|filled| filled >= 3)
    };
    watch(&mut subscription, &handle, &mut last, repeated).await;
    subscription.request_key_frame();
    while !next(&mut subscription).await.key {
        assert!(live(&handle.status()));
    }
    stage.release.send(()).expect("it still waits");
    drop(stage.feed);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_pictures_are_counted_and_the_slate_is_shown() {
    let stage = stage("t6", [Act::Pictures(5), Act::Broken]);
    let handle = stage.feed.handle();
    let mut subscription = handle.subscribe();
    let mut last = None;
    let slated = |s: &Status| {
        let ledger = s.video.as_ref().map(|v| v.ledger).unwrap_or_default();
        ledger.broken > 5 && ledger.filled > 2
    };
    watch(&mut subscription, &handle, &mut last, slated).await;
    drop(stage.feed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_microphone_is_silence_without_a_gap() {
    let open: Open<AudioFrame> = Arc::new(|_| {
        let device = "nothing".into();
        Err(capture::Error::Missing { device })
    });
    let config = config::Feed {
        video: None,
        audio: Some(audio()),
    };
    let sources = Sources {
        video: None,
        audio: Some(origin(open, QUICK)),
        encoder: h264,
    };
    let feed = assemble("t7", &config, clock(), sources);
    let mut subscription = feed.handle().subscribe();
    let first = next(&mut subscription).await.captured;
    for n in 1..50 {
        let unit = next(&mut subscription).await;
        assert_eq!(
            unit.captured.saturating_since(first),
            Duration::from_millis(n * 20)
        );
    }
    let status = feed.handle().status();
    balanced(&status);
    let audio = status.audio.expect("audio");
    assert!(
        matches!(audio.state, SourceState::Slate { .. }),
        "{audio:?}"
    );
    assert_eq!(audio.ledger.captured, 0);
}

#[tokio::test]
async fn missing_devices_are_no_error_but_impossible_values_are() {
    let mut config = both();
    config.video.as_mut().expect("video").source = VideoSource::Camera {
        device: "/dev/v4l/by-id/nothing".into(),
        watch: config::PictureWatch::default(),
    };
    config.audio.as_mut().expect("audio").source = AudioSource::File {
        path: "/nothing.wav".into(),
    };
    let feed = Feed::start("t8", &config, clock()).expect("starts");
    let handle = feed.handle();
    let both_away = |s: &Status| {
        let audio = s.audio.as_ref().map(|a| &a.state);
        away(s)
            && matches!(audio, Some(SourceState::Slate { reason, .. }) if reason.contains("/nothing.wav"))
    };
    until(&handle, "both are away", both_away).await;
    assert_eq!(feed.drain(Duration::from_secs(5)).await.left_behind, 0);

    let none = config::Feed {
        video: None,
        audio: None,
    };
    assert!(matches!(
        Feed::start("t9", &none, clock()),
        Err(Error::NoTrack { .. })
    ));
    let mut fast = both();
    fast.video.as_mut().expect("video").fps = 0;
    assert!(matches!(
        Feed::start("t9", &fast, clock()),
        Err(Error::Rate { .. })
    ));
    let mut huge = both();
    huge.video.as_mut().expect("video").size.width = 4096;
    assert!(matches!(
        Feed::start("t9", &huge, clock()),
        Err(Error::Encoder { .. })
    ));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_subscriber_loses_pictures_and_hinders_nobody() {
    let feed = Feed::start("t10", &both(), clock()).expect("starts");
    let handle = feed.handle();
    let slow = handle.subscribe();
    let mut quick = handle.subscribe();
    let mut video = 0;
    while video < 45 {
        video += usize::from(next(&mut quick).await.track == Track::Video);
    }
    assert!(slow.counters().video.dropped > 0);
    assert!(slow.counters().audio.dropped > 0);
    assert_eq!(slow.counters().video.delivered, 0);
}

/// The picture sizes that the parameter sets of `unit` announce come out of a decoder.
fn decoded_size(decoder: &mut openh264::decoder::Decoder, unit: &AccessUnit) -> Option<(u32, u32)> {
    use openh264::formats::YUVSource as _;
    let picture = decoder.decode(&unit.data).expect("decodes")?;
    let (width, height) = picture.dimensions();
    Some((width as u32, height as u32))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_limit_makes_pictures_rarer_and_smaller_in_the_same_stream_and_is_lifted_again() {
    let config = config::Feed {
        audio: None,
        ..both()
    };
    let feed = Feed::start("t11", &config, clock()).expect("starts");
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let mut decoder = openh264::decoder::Decoder::new().expect("a decoder");
    let limit = Limit {
        fps: 50,
        size: 60,
        bitrate: 100,
        by: LimitedBy::Thermal,
    };
    let small = (192, 108);
    let mut last: Option<MediaTime> = None;
    for (limit, size, fps) in [
        (None, (320, 180), 30),
        (Some(limit), small, 15),
        (None, (320, 180), 30),
    ] {
        handle.limit(limit);
        let status = handle.status();
        assert_eq!(status.limited_by, limit.map(|limit| limit.by));
        assert_eq!(status.target.expect("a picture").fps, fps);
        let mut pauses = Vec::new();
        while pauses.len() < 20 {
            let unit = next(&mut subscription).await;
            let pause = last.map(|last| unit.captured.saturating_since(last));
            assert!(
                pause.is_none_or(|pause| !pause.is_zero()),
                "time stood still"
            );
            last = Some(unit.captured);
            // Every picture decodes: the new size begins with a key frame.
            if decoded_size(&mut decoder, &unit) == Some(size) {
                pauses.extend(pause);
            }
        }
        let shortest = pauses[1..].iter().min().expect("twenty");
        let wanted = Duration::from_secs(1) / fps;
        assert!(*shortest >= wanted.mul_f64(0.5), "{fps} fps: {pauses:?}");
    }
    balanced(&handle.status());
}

#[tokio::test(flavor = "multi_thread")]
async fn new_bitrates_go_into_a_running_feed() {
    let old = both();
    let mut new = both();
    new.video.as_mut().expect("video").bitrate = Bitrate(900_000);
    new.audio.as_mut().expect("audio").bitrate = Bitrate(32_000);
    assert!(retunable(&old, &new));
    let mut other = new.clone();
    other.video.as_mut().expect("video").fps = 25;
    assert!(!retunable(&old, &other));
    assert!(!retunable(
        &old,
        &config::Feed {
            audio: None,
            ..old.clone()
        }
    ));

    let feed = Feed::start("t12", &old, clock()).expect("starts");
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    while !next(&mut subscription).await.key {}
    handle.retune(&new);
    let tracks = handle.tracks();
    assert_eq!(tracks.video.expect("video").max_bitrate, Bitrate(900_000));
    assert_eq!(tracks.audio.expect("audio").bitrate, Bitrate(32_000));
    assert_eq!(handle.status().fanout.bitrate, Bitrate(900_000));
    // The stream goes on with a key frame of the encoder that can do so much.
    let made = handle.status().fanout.key_frames_made;
    let again = |s: &Status| s.fanout.key_frames_made > made;
    until(&handle, "a key frame", again).await;
    assert_eq!(subscription.max_bitrate(), Bitrate(900_000));
    balanced(&handle.status());
}
