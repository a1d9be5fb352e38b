//! What it costs to look for frozen and black pictures and for dead and clipped sound, in CPU seconds per second of
//! media: `cargo bench --bench watch`. The aim is less than 0.5 % of a core.

#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark reads the clock of its CPU"
)]
#![allow(clippy::print_stdout, reason = "a benchmark prints its figures")]

use std::time::{Duration, Instant};

use onair::config;
use onair::feed::{PictureWatch, SoundWatch};
use onair::media::frame::{AudioFrame, Picture, PixelFormat, i420_len};
use onair::media::time::MediaTime;
use onair::process::Usage;

const WIDTH: u32 = 1280;
const HEIGHT: u32 = 720;
/// Media that is looked at; long, for the kernel counts CPU in hundredths of a second.
const LENGTH: Duration = Duration::from_secs(3600);

fn main() {
    println!("{WIDTH}x{HEIGHT} at 30 fps, stereo; share of one core");
    let mut rng = fastrand::Rng::with_seed(3);
    let noisy: Vec<Picture> = (0..8).map(|_| picture(&mut rng)).collect();
    print("pictures of a camera", || watch_pictures(&noisy));
    print("the same picture", || watch_pictures(&noisy[..1]));
    let sounds: Vec<Vec<f32>> = (0..8)
        .map(|_| (0..960).map(|_| rng.f32() - 0.5).collect())
        .collect();
    print("sound", || watch_sound(&sounds));
}

fn picture(rng: &mut fastrand::Rng) -> Picture {
    let len = i420_len(WIDTH, HEIGHT);
    let data: Vec<u8> = (0..len)
        .map(|n| (n % 97) as u8 + 40 + rng.u8(..3))
        .collect();
    Picture {
        format: PixelFormat::I420,
        width: WIDTH,
        height: HEIGHT,
        data: data.into(),
    }
}

fn watch_pictures(pictures: &[Picture]) {
    let mut watch = PictureWatch::new(config::PictureWatch::default());
    for n in 0..LENGTH.as_secs() * 30 {
        let captured = MediaTime::new(Duration::from_millis(n * 1000 / 30));
        // Every other picture that is looked at is another one.
        let picture = &pictures[(n / 15) as usize % pictures.len()];
        std::hint::black_box(watch.look(picture, captured));
    }
}

fn watch_sound(sounds: &[Vec<f32>]) {
    let mut watch = SoundWatch::new(config::SoundWatch::default());
    let mut block = AudioFrame {
        captured: MediaTime::ZERO,
        channels: 2,
        samples: Vec::new(),
    };
    for n in 0..LENGTH.as_secs() * 100 {
        block.captured = MediaTime::new(Duration::from_millis(n * 10));
        block.samples.clone_from(&sounds[n as usize % sounds.len()]);
        std::hint::black_box(watch.look(&block));
    }
}

fn print(what: &str, work: impl FnOnce()) {
    let mut usage = Usage::new(Instant::now());
    work();
    usage.sample(Instant::now());
    let cpu = usage.report().cpu_s;
    let share = cpu / LENGTH.as_secs_f64() * 100.0;
    println!("{what:<22} {cpu:7.2} CPU s an hour   {share:.4} %");
}
