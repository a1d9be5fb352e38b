//! A thousand times unplugged and plugged in again: nothing is left behind, no time is lost, picture and sound stay
//! together. In a process of its own, so that what is held can be told.

use std::fs::File;
use std::process::Command;
use std::sync::atomic::AtomicUsize;

use openh264::formats::YUVSource as _;

use super::*;
use crate::media::clock_code;
use crate::media::time::AUDIO_CLOCK_HZ;

const CYCLES: u64 = 1_000;
/// Set in the process that is the test alone.
const ALONE: &str = "ONAIR_REPLUG_ALONE";
const NAME: &str = "feed::tests::replug::a_thousand_replugs_leave_nothing_behind_and_lose_no_time";
/// As production's, a thousand times quicker.
const SCALED: Limits = Limits {
    first_retry: Duration::from_millis(1),
    last_retry: Duration::from_millis(2),
    cured: Duration::from_millis(1),
    settle: Duration::from_millis(1),
    ..QUICK
};

/// Devices that are open now.
static OPEN: AtomicUsize = AtomicUsize::new(0);

/// What an open device holds: a descriptor, and memory that would be missed.
struct Held {
    _node: File,
    _buffers: Vec<u8>,
}

impl Held {
    fn new() -> Self {
        OPEN.fetch_add(1, Ordering::SeqCst);
        Self {
            _node: File::open("/dev/null").expect("it is always there"),
            _buffers: vec![1; 64 << 10],
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        OPEN.fetch_sub(1, Ordering::SeqCst);
    }
}

fn unplugged<T>() -> Result<T, capture::Error> {
    Err(capture::Error::Lost {
        device: "scripted".into(),
        what: "unplugged".into(),
    })
}

/// A camera that is unplugged after two pictures.
struct Camera {
    card: TestCard,
    left: u32,
    _held: Held,
}

impl Source for Camera {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, capture::Error> {
        if self.left == 0 {
            return unplugged();
        }
        self.left -= 1;
        self.card.read()
    }

    fn describe(&self) -> String {
        "camera".into()
    }
}

/// A microphone that is unplugged after each block, except around the beep at the full second.
struct Microphone {
    tone: Tone,
    clock: MediaClock,
    _held: Held,
    blocks: u32,
}

impl Source for Microphone {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, capture::Error> {
        let wall = self.clock.wall(self.clock.at(Instant::now()));
        let ms = wall
            .duration_since(SystemTime::UNIX_EPOCH)
            .expect("after 1970");
        if self.blocks > 0 && (300..700).contains(&ms.subsec_millis()) {
            return unplugged();
        }
        self.blocks += 1;
        self.tone.read()
    }

    fn describe(&self) -> String {
        "microphone".into()
    }
}

fn entries(path: &str) -> usize {
    std::fs::read_dir(path).expect("procfs").count()
}

fn anonymous_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let text = line.expect("RssAnon").trim().trim_end_matches(" kB");
    text.parse().expect("a number")
}

/// How far the two tracks' contents are from what their stamps say.
struct Sync {
    clock: MediaClock,
    pictures: openh264::decoder::Decoder,
    sound: opus::Decoder,
    samples: Vec<f32>,
    quiet: u32,
    n_pictures: u32,
    n_beeps: u32,
}

impl Sync {
    fn new(clock: MediaClock) -> Self {
        Self {
            clock,
            pictures: openh264::decoder::Decoder::new().expect("a decoder"),
            sound: opus::Decoder::new(AUDIO_CLOCK_HZ, opus::Channels::Mono).expect("plain values"),
            samples: vec![0.0; 960],
            quiet: 0,
            n_pictures: 0,
            n_beeps: 0,
        }
    }

    fn wall(&self, at: MediaTime) -> Duration {
        let wall = self.clock.wall(at).duration_since(SystemTime::UNIX_EPOCH);
        wall.expect("after 1970")
    }

    fn check(&mut self, unit: &AccessUnit) {
        match unit.track {
            Track::Video => {
                let Ok(Some(picture)) = self.pictures.decode(&unit.data) else {
                    panic!("every picture decodes at once");
                };
                let stride = picture.strides().0;
                let code = clock_code::read(picture.y(), stride, SIZE.width, SIZE.height);
                // A slate bears no code.
                if let Some(code) = code {
                    assert_eq!(u128::from(code), self.wall(unit.captured).as_millis());
                    self.n_pictures += 1;
                }
            }
            Track::Audio => {
                let decoded = self
                    .sound
                    .decode_float(&unit.data, &mut self.samples, false);
                assert_eq!(decoded.expect("decodes"), 960);
                let wall = self.wall(unit.captured).as_secs_f64();
                for (n, sample) in self.samples.iter().enumerate() {
                    if sample.abs() <= 0.25 {
                        self.quiet += 1;
                        continue;
                    }
                    if self.quiet > 24_000 {
                        let at = wall + n as f64 / f64::from(AUDIO_CLOCK_HZ);
                        let off = (at + 0.5).fract() - 0.5;
                        assert!(off.abs() < 0.003, "a beep is {off} s off");
                        self.n_beeps += 1;
                    }
                    self.quiet = 0;
                }
            }
        }
    }
}

#[test]
fn a_thousand_replugs_leave_nothing_behind_and_lose_no_time() {
    if std::env::var_os(ALONE).is_some() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build();
        return runtime.expect("a runtime").block_on(alone());
    }
    let me = std::env::current_exe().expect("this program");
    let run = Command::new(me)
        .args(["--exact", NAME, "--nocapture", "--test-threads=1"])
        .env(ALONE, "1")
        .output()
        .expect("it starts");
    let said = String::from_utf8_lossy(&run.stdout);
    let complained = String::from_utf8_lossy(&run.stderr);
    // One test was run, and not none: its name is right.
    let passed = run.status.success() && said.contains("1 passed");
    assert!(passed, "{said}\n{complained}");
}

async fn alone() {
    let clock = clock();
    let (threads, descriptors) = (entries("/proc/self/task"), entries("/proc/self/fd"));
    let camera: Open<VideoFrame> = Arc::new(move |_| {
        boxed(Camera {
            card: TestCard::new(SIZE, 250, clock, Pace::RealTime),
            left: 2,
            _held: Held::new(),
        })
    });
    let microphone: Open<AudioFrame> = Arc::new(move |_| {
        boxed(Microphone {
            tone: Tone::new(1, clock, Pace::RealTime),
            clock,
            _held: Held::new(),
            blocks: 0,
        })
    });
    let mut config = both();
    config.audio.as_mut().expect("audio").channels = 1;
    let sources = Sources {
        video: Some(origin(camera, SCALED)),
        audio: Some(origin(microphone, SCALED)),
        encoder: h264,
    };
    let feed = assemble("replug", &config, clock, sources);
    let handle = feed.handle();
    let mut subscription = handle.subscribe();
    let mut sync = Sync::new(clock);
    let mut last: [Option<MediaTime>; 2] = [None, None];
    let mut longest = [Duration::ZERO; 2];
    let mut memory = None;
    let opened = |status: &Status| {
        let opened = |track: &Option<TrackStatus>| track.as_ref().map_or(0, |t| t.opened);
        (opened(&status.video), opened(&status.audio))
    };
    let begun = Instant::now();
    loop {
        let unit = next(&mut subscription).await;
        let track = unit.track as usize;
        if let Some(last) = last[track] {
            assert!(unit.captured > last, "{}: time went back", unit.track);
            longest[track] = longest[track].max(unit.captured.saturating_since(last));
        }
        last[track] = Some(unit.captured);
        sync.check(&unit);
        // Two encoders, and for each a device at most; never more, however often.
        assert!(entries("/proc/self/task") <= threads + 4);
        assert!(OPEN.load(Ordering::SeqCst) <= 2);
        let status = handle.status();
        balanced(&status);
        let (video, audio) = opened(&status);
        if video >= CYCLES / 5 && memory.is_none() {
            memory = Some(anonymous_kib());
        }
        if video >= CYCLES && audio >= CYCLES / 5 && sync.n_beeps >= 5 {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(240), "{status:?}");
    }
    let grown = anonymous_kib().saturating_sub(memory.expect("the first fifth is long past"));
    let (video, audio) = opened(&handle.status());
    println!(
        "camera opened {video} times, microphone {audio} times in {:.1} s; longest pause {longest:?}; {} pictures and {} beeps on time; memory grew by {grown} KiB over the last 800",
        begun.elapsed().as_secs_f64(),
        sync.n_pictures,
        sync.n_beeps
    );
    assert!(
        longest.iter().all(|pause| *pause <= Duration::from_secs(1)),
        "{longest:?}"
    );
    assert!(
        sync.n_pictures > 100,
        "{} pictures of the camera",
        sync.n_pictures
    );
    // The buffers of one device in sixteen would be more.
    assert!(grown < 4 << 10, "memory grew by {grown} KiB");
    let drained = feed.drain(Duration::from_secs(5)).await;
    assert_eq!(drained.left_behind, 0);
    assert_eq!(OPEN.load(Ordering::SeqCst), 0);
    assert_eq!(entries("/proc/self/task"), threads);
    assert_eq!(entries("/proc/self/fd"), descriptors);
}
