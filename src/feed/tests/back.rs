//! Devices that come back: with other pictures, slowly, or not by themselves.

use super::*;

/// A camera that delivers so many pictures of one kind.
struct Kind {
    card: TestCard,
    format: PixelFormat,
    size: Size,
    left: u32,
}

impl Source for Kind {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, capture::Error> {
        if self.left == 0 {
            let (device, what) = ("scripted".into(), "unplugged".into());
            return Err(capture::Error::Lost { device, what });
        }
        self.left -= 1;
        let Size { width, height } = self.size;
        // Grey in each of the layouts, and enough of it.
        let data = vec![128; (width * height * 2) as usize];
        let picture = Picture {
            format: self.format,
            width,
            height,
            data: data.into(),
        };
        Ok(VideoFrame {
            captured: self.card.read()?.captured,
            picture,
        })
    }

    fn describe(&self) -> String {
        format!("{:?} {}", self.format, self.size)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_camera_that_comes_back_with_other_pictures_goes_on_in_the_same_stream() {
    let clock = clock();
    let kinds = [
        (PixelFormat::I420, 320, 180),
        (PixelFormat::Yuyv, 640, 480),
        (PixelFormat::Nv12, 160, 120),
        (PixelFormat::Yuyv, 320, 180),
    ];
    let opened = AtomicU32::new(0);
    let open: Open<VideoFrame> = Arc::new(move |_| {
        let n = opened.fetch_add(1, Ordering::SeqCst) as usize;
        let (format, width, height) = kinds[n.min(kinds.len() - 1)];
        boxed(Kind {
            card: TestCard::new(SIZE, 30, clock, Pace::RealTime),
            format,
            size: Size { width, height },
            left: if n < kinds.len() - 1 { 5 } else { u32::MAX },
        })
    });
    let config = config::Feed {
        audio: None,
        ..both()
    };
    let sources = Sources {
        video: Some(origin(open, QUICK)),
        audio: None,
        encoder: h264,
    };
    let feed = assemble("t15", &config, clock, sources);
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let mut decoder = openh264::decoder::Decoder::new().expect("a decoder");
    let deadline = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        let unit = next(&mut subscription).await;
        assert!(last.is_none_or(|last| unit.captured > last));
        last = Some(unit.captured);
        let size = decoded_size(&mut decoder, &unit);
        assert_eq!(size, Some((SIZE.width, SIZE.height)));
        let status = handle.status();
        let video = status.video.as_ref().expect("video");
        assert_eq!(video.ledger.broken, 0, "{status:?}");
        if live(&status) && video.opened as usize == kinds.len() && unit.key {
            let negotiated = video.negotiated.as_deref();
            assert_eq!(negotiated, Some("Yuyv 320x180"));
            break;
        }
        subscription.request_key_frame();
        assert!(Instant::now() < deadline, "{status:?}");
    }
}

/// A camera that takes long for a picture, and longer to hand it over.
struct Slow {
    card: TestCard,
    clock: MediaClock,
    due: Instant,
}

impl Source for Slow {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, capture::Error> {
        let captured = self.due;
        self.due += Duration::from_millis(420);
        let there = captured + Duration::from_millis(100);
        std::thread::sleep(there.saturating_duration_since(Instant::now()));
        Ok(VideoFrame {
            captured: self.clock.at(captured),
            picture: self.card.read()?.picture,
        })
    }

    fn describe(&self) -> String {
        "slow".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_picture_of_a_slow_camera_is_seen_though_the_one_before_was_repeated() {
    let clock = clock();
    let open: Open<VideoFrame> = Arc::new(move |_| {
        boxed(Slow {
            card: TestCard::new(SIZE, 30, clock, Pace::Free),
            clock,
            due: Instant::now(),
        })
    });
    let limits = Limits {
        frames: PATIENCE,
        ..QUICK
    };
    let config = config::Feed {
        audio: None,
        ..both()
    };
    let sources = Sources {
        video: Some(origin(open, limits)),
        audio: None,
        encoder: h264,
    };
    let feed = assemble("t14", &config, clock, sources);
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let mut last = None;
    let repeated = |s: &Status| {
        let ledger = s.video.as_ref().map(|v| v.ledger).unwrap_or_default();
        ledger.captured >= 6 && ledger.filled >= 4
    };
    watch(&mut subscription, &handle, &mut last, repeated).await;
    let ledger = handle.status().video.expect("video").ledger;
    assert_eq!(ledger.late, 0, "{ledger:?}");
}

/// A microphone that is unplugged while `gone` is set.
struct Unpluggable {
    tone: Tone,
    gone: Arc<AtomicBool>,
}

impl Source for Unpluggable {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, capture::Error> {
        if self.gone.load(Ordering::SeqCst) {
            let (device, what) = ("scripted".into(), "unplugged".into());
            return Err(capture::Error::Lost { device, what });
        }
        self.tone.read()
    }

    fn describe(&self) -> String {
        "microphone".into()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_microphone_that_was_lost_is_silent_until_it_is_wanted_where_that_is_configured() {
    let clock = clock();
    let gone = Arc::new(AtomicBool::new(false));
    let plug = Arc::clone(&gone);
    let open: Open<AudioFrame> = Arc::new(move |_| {
        boxed(Unpluggable {
            tone: Tone::new(2, clock, Pace::RealTime),
            gone: Arc::clone(&plug),
        })
    });
    let silent = Limits {
        after_loss: AfterLoss::Silence,
        ..QUICK
    };
    let config = config::Feed {
        video: None,
        audio: Some(audio()),
    };
    let sources = Sources {
        video: None,
        audio: Some(origin(open, silent)),
        encoder: h264,
    };
    let feed = assemble("t13", &config, clock, sources);
    let handle = feed.handle();
    let _subscription = handle.subscribe();
    let sound = |s: &Status| s.audio.clone().expect("audio");
    let live = |s: &Status| sound(s).state == SourceState::Live;
    until(&handle, "live", live).await;
    gone.store(true, Ordering::SeqCst);
    let silenced = |s: &Status| {
        let state = sound(s).state;
        matches!(state, SourceState::Slate { reason, .. } if reason.contains("silent until its publisher"))
    };
    let lost = until(&handle, "lost", silenced).await;
    gone.store(false, Ordering::SeqCst);
    // Longer than every pause before a reopening.
    let filled = sound(&lost).ledger.filled;
    let later = |s: &Status| sound(s).ledger.filled > filled + 100;
    let status = until(&handle, "silence goes on", later).await;
    assert!(silenced(&status), "{status:?}");
    assert_eq!(sound(&status).opened, 1);
    handle.want_sound();
    until(&handle, "live again", live).await;
    // To one that is there it is nothing, and no loss later is forgiven for it.
    handle.want_sound();
    let captured = sound(&handle.status()).ledger.captured;
    until(&handle, "it is heard", |s| {
        sound(s).ledger.captured > captured + 5
    })
    .await;
    gone.store(true, Ordering::SeqCst);
    until(&handle, "lost again", silenced).await;
}
