//! Devices and encoders that never answer, and pictures that are of no use, through the whole feed.

use std::sync::Condvar;

use super::*;
use crate::encode::{Controls, Encoder};

fn video_of(status: &Status) -> &TrackStatus {
    status.video.as_ref().expect("a picture")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_holds_every_thread_is_reset_reported_and_left_alone_until_it_answers() {
    use Act::{Film, Hang};
    let resets = Arc::new(AtomicU32::new(0));
    let count = Arc::clone(&resets);
    let quick = Limits {
        open: Duration::from_millis(50),
        first_frame: Duration::from_millis(50),
        first_retry: Duration::from_millis(10),
        last_retry: Duration::from_millis(10),
        ..QUICK
    };
    let stage = stage_with("t20", [Hang, Hang, Hang, Film], quick, move || {
        count.fetch_add(1, Ordering::SeqCst);
    });
    let handle = stage.feed.handle();
    let stuck = |s: &Status| video_of(s).stuck == Some(Stuck::Device);
    let status = until(&handle, "stuck", stuck).await;
    assert_eq!(video_of(&status).left_behind, 3);
    assert_eq!(stage.opened.load(Ordering::SeqCst), 3);
    assert_eq!(resets.load(Ordering::SeqCst), 1, "after the second time");
    // The picture goes on meanwhile: subscribers see the slate.
    let mut subscription = handle.subscribe();
    for _ in 0..3 {
        next(&mut subscription).await;
    }
    assert_eq!(stage.opened.load(Ordering::SeqCst), 3, "left alone");
    for _ in 0..3 {
        stage.release.send(()).expect("they wait");
    }
    let well = |s: &Status| live(s) && video_of(s).stuck.is_none() && video_of(s).left_behind == 0;
    until(&handle, "well again", well).await;
    assert_eq!(
        stage.feed.drain(Duration::from_secs(5)).await.left_behind,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_our_own_hanging_thread_holds_is_not_said_to_be_in_use_by_others() {
    let clock = clock();
    let (release, released) = mpsc::channel::<()>();
    let released = Mutex::new(released);
    let opened = AtomicU32::new(0);
    let open: Open<VideoFrame> = Arc::new(move |_| {
        if opened.fetch_add(1, Ordering::SeqCst) == 0 {
            // An error means that the test is over.
            let _over = released.lock().expect("not poisoned").recv();
        }
        let device = "held".into();
        Err(capture::Error::Busy { device })
    });
    let quick = Limits {
        open: Duration::from_millis(50),
        first_frame: Duration::from_millis(50),
        ..QUICK
    };
    let config = config::Feed {
        audio: None,
        ..both()
    };
    let sources = Sources {
        video: Some(origin(open, quick)),
        audio: None,
        encoder: h264,
    };
    let feed = assemble("t24", &config, clock, sources);
    let handle = feed.handle();
    let says = |what: &'static str| {
        move |s: &Status| {
            let state = &video_of(s).state;
            matches!(state, SourceState::Slate { reason, .. } if reason.contains(what))
        }
    };
    until(&handle, "held by us", says("earlier opening of ours")).await;
    release.send(()).expect("it waits");
    until(&handle, "held by others", says("another program")).await;
}

/// Set to let the hanging encoder go on.
static RELEASED: (Mutex<bool>, Condvar) = (Mutex::new(false), Condvar::new());

/// An encoder that hangs in its tenth picture.
struct Hanging {
    inner: BoxedEncoder<VideoFrame>,
    left: u32,
}

impl Encoder for Hanging {
    type Frame = VideoFrame;

    fn encode(
        &mut self,
        frame: &VideoFrame,
        controls: Controls,
    ) -> Result<Option<AccessUnit>, encode::Error> {
        if self.left == 0 {
            let (released, changed) = &RELEASED;
            let guard = released.lock().expect("not poisoned");
            drop(changed.wait_while(guard, |released| !*released));
            self.left = u32::MAX;
        }
        self.left -= 1;
        self.inner.encode(frame, controls)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_does_not_return_is_reported_and_does_not_hinder_sound_or_drain() {
    let clock = clock();
    let config = both();
    let mut sources = Sources::of(&config, clock, &Budget::default());
    sources.encoder = |track| {
        let inner = h264(track)?;
        Ok(Box::new(Hanging { inner, left: 10 }))
    };
    // A budget of a moment: the stages themselves are not in question.
    let budget = Budget {
        encode: Duration::from_secs(1),
        ..Budget::default()
    };
    let feed = Feed::assemble("t21", &config, clock, budget, sources).expect("starts");
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let stuck = |s: &Status| video_of(s).stuck == Some(Stuck::Encoder);
    let status = until(&handle, "stuck", stuck).await;
    assert_eq!(status.audio.expect("sound").stuck, None);
    while next(&mut subscription).await.track == Track::Video {}
    // Nobody waits for what is known not to come.
    let draining = tokio::time::timeout(PATIENCE, feed.drain(PATIENCE * 100));
    let drained = draining.await.expect("long before its deadline");
    assert_eq!(drained.left_behind, 1, "{drained:?}");
    *RELEASED.0.lock().expect("not poisoned") = true;
    RELEASED.1.notify_all();
    let over = |s: &Status| video_of(s).stuck.is_none();
    until(&handle, "it has returned", over).await;
}

/// An encoder with a fault of its own.
struct Panicking;

impl Encoder for Panicking {
    type Frame = VideoFrame;

    fn encode(
        &mut self,
        _frame: &VideoFrame,
        _controls: Controls,
    ) -> Result<Option<AccessUnit>, encode::Error> {
        panic!("as no codec should")
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_encoder_that_panics_is_reported_and_the_sound_goes_on() {
    let (clock, config) = (clock(), both());
    let mut sources = Sources::of(&config, clock, &Budget::default());
    sources.encoder = |_| Ok(Box::new(Panicking));
    let feed = assemble("t23", &config, clock, sources);
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let stuck = |s: &Status| video_of(s).stuck == Some(Stuck::Encoder);
    until(&handle, "stuck", stuck).await;
    for _ in 0..5 {
        assert_eq!(next(&mut subscription).await.track, Track::Audio);
    }
    assert_eq!(feed.drain(Duration::from_secs(5)).await.left_behind, 0);
}

/// A camera whose picture hangs while `frozen` is set, and that is away while `gone` is.
struct Freezing {
    card: TestCard,
    still: Option<Picture>,
    frozen: Arc<AtomicBool>,
    gone: Arc<AtomicBool>,
}

impl Source for Freezing {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, capture::Error> {
        let frame = self.card.read()?;
        if self.gone.load(Ordering::SeqCst) {
            let (device, what) = ("freezing".into(), "unplugged".into());
            return Err(capture::Error::Lost { device, what });
        }
        if !self.frozen.load(Ordering::SeqCst) {
            self.still = None;
            return Ok(frame);
        }
        let picture = self.still.get_or_insert(frame.picture).clone();
        Ok(VideoFrame { picture, ..frame })
    }

    fn describe(&self) -> String {
        "freezing".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_frozen_camera_is_seen_in_the_status_until_it_moves_again() {
    let clock = clock();
    let frozen = Arc::new(AtomicBool::new(true));
    let gone = Arc::new(AtomicBool::new(false));
    let (switch, plug) = (Arc::clone(&frozen), Arc::clone(&gone));
    let open: Open<VideoFrame> = Arc::new(move |_| {
        boxed(Freezing {
            card: TestCard::new(SIZE, 30, clock, Pace::RealTime),
            still: None,
            frozen: Arc::clone(&switch),
            gone: Arc::clone(&plug),
        })
    });
    let watch = config::PictureWatch {
        frozen_after: Some(Duration::from_secs(1)),
        black_after: Some(Duration::from_secs(1)),
    };
    let config = config::Feed {
        video: Some(config::Video {
            source: VideoSource::Camera {
                device: "freezing".into(),
                watch,
            },
            ..video()
        }),
        audio: None,
    };
    let sources = Sources {
        video: Some(origin(open, QUICK)),
        audio: None,
        encoder: h264,
    };
    let feed = assemble("t22", &config, clock, sources);
    let handle = feed.handle();
    let subscription = handle.subscribe();
    let is_frozen = |s: &Status| video_of(s).conditions.contains_key(&Condition::Frozen);
    let status = until(&handle, "frozen", is_frozen).await;
    assert_eq!(video_of(&status).state, SourceState::Live);
    assert_eq!(video_of(&status).conditions.len(), 1, "{status:?}");
    frozen.store(false, Ordering::SeqCst);
    let moves = |s: &Status| video_of(s).conditions.is_empty();
    until(&handle, "it moves", moves).await;
    frozen.store(true, Ordering::SeqCst);
    let before = until(&handle, "frozen", is_frozen).await;
    // What nobody looks at stays as it was seen last, and is not found anew when a session comes back.
    drop(subscription);
    for _ in 0..3 {
        let ledger = |s: &Status| video_of(s).ledger;
        let idle = ledger(&handle.status()).idle;
        let unseen = |s: &Status| ledger(s).idle > idle + 5;
        let status = until(&handle, "nobody looks", unseen).await;
        assert_eq!(video_of(&status).conditions, video_of(&before).conditions);
        let again = handle.subscribe();
        // More than one look.
        let encoded = ledger(&handle.status()).encoded;
        let seen = |s: &Status| {
            assert_eq!(video_of(s).conditions, video_of(&before).conditions);
            ledger(s).encoded > encoded + 20
        };
        until(&handle, "somebody looks", seen).await;
        drop(again);
    }
    // A camera that is away has no condition, whether somebody looks or not.
    gone.store(true, Ordering::SeqCst);
    until(&handle, "nothing is known", |s| away(s) && moves(s)).await;
}
