//! The test card and the tone: sources that need no device, carry a machine-readable clock, and agree to the sample.
//!
//! The card shows moving content, the clock strip of [`crate::media::clock_code`] and a white flash; the tone beeps.
//! Flash and beep begin at each full second of wall time, so whoever receives both can tell how far apart they are.

#![expect(
    clippy::disallowed_methods,
    reason = "delivers in real time, on a thread of its own that must sleep"
)]

use std::time::{Duration, Instant};

use super::draw::{BLACK, Canvas, Color, WHITE, time_of_day};
use super::{Error, Source};
use crate::config::Size;
use crate::media::clock_code;
use crate::media::frame::{AudioFrame, Picture, PixelFormat, VideoFrame, i420_len};
use crate::media::pool::Pool;
use crate::media::time::{AUDIO_CLOCK_HZ, MediaClock, MediaTime};

/// Samples per channel in one [`AudioFrame`]: 10 ms.
pub const BLOCK: usize = 480;

/// Length of the beep and of the flash.
const BEEP: Duration = Duration::from_millis(60);
const NANOS: u128 = 1_000_000_000;

/// Whether a synthetic source waits for the time of its frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as it is read: for tests and benches.
    Free,
    /// Each frame comes when its time has come; frames whose time was missed are passed over.
    RealTime,
}

/// Index of the frame to deliver next, and waiting for it: frame `n` belongs to the instant `n / rate`.
pub(super) struct Pacer {
    pace: Pace,
    clock: MediaClock,
    next: u64,
    /// Frames per second.
    rate: u32,
    /// How many frame lengths after its capture time a frame is complete: a picture 0, a block of samples 1.
    lag: u64,
}

impl Pacer {
    pub(super) fn new(pace: Pace, clock: MediaClock, rate: u32, lag: u64) -> Self {
        let now = clock.at(Instant::now());
        Self {
            pace,
            clock,
            next: now.ticks(rate) + 1,
            rate,
            lag,
        }
    }

    fn time(&self, n: u64) -> MediaTime {
        let nanos = u128::from(n) * NANOS / u128::from(self.rate);
        MediaTime::new(Duration::from_nanos(
            u64::try_from(nanos).unwrap_or(u64::MAX),
        ))
    }

    /// Waits for the next frame's time; gives its capture time and its index.
    pub(super) fn wait(&mut self) -> (MediaTime, u64) {
        if self.pace == Pace::RealTime {
            let due = self.clock.instant(self.time(self.next + self.lag));
            let now = Instant::now();
            match due.checked_duration_since(now) {
                Some(early) => std::thread::sleep(early),
                None => {
                    // Late by more than 100 ms (the machine slept, or is far too slow): go on from now instead
                    // of delivering the past in a burst.
                    let current = self.clock.at(now).ticks(self.rate).saturating_sub(self.lag);
                    let slack = u64::from(self.rate / 10).max(1);
                    if self.next + slack < current {
                        self.next = current;
                    }
                }
            }
        }
        let n = self.next;
        self.next += 1;
        (self.time(n), n)
    }
}

/// Time since the last full second of wall time.
fn into_second(clock: &MediaClock, time: MediaTime) -> Duration {
    let unix = clock
        .wall(time)
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    Duration::from_nanos(u64::from(unix.subsec_nanos()))
}

/// Unix milliseconds of `time`, as burnt into the picture.
fn unix_ms(clock: &MediaClock, time: MediaTime) -> u64 {
    let unix = clock
        .wall(time)
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(unix.as_millis()).unwrap_or(u64::MAX)
}

/// The synthetic picture.
pub struct TestCard {
    size: Size,
    fps: u32,
    pacer: Pacer,
    pool: Pool,
    /// What does not move, drawn once.
    base: Vec<u8>,
    /// One row of the moving band, twice as long as the picture is wide.
    band: Vec<u8>,
}

/// 75 % color bars: white, yellow, cyan, green, magenta, red, blue, black (ITU-R BT.601).
const BARS: [Color; 8] = [
    Color(180, 128, 128),
    Color(162, 44, 142),
    Color(131, 156, 44),
    Color(112, 72, 58),
    Color(84, 184, 198),
    Color(65, 100, 212),
    Color(35, 212, 114),
    BLACK,
];

impl TestCard {
    /// A card of `size` (even), `fps` pictures per second, telling the time by `clock`.
    pub fn new(size: Size, fps: u32, clock: MediaClock, pace: Pace) -> Self {
        let fps = fps.max(1);
        let mut base = vec![0; i420_len(size.width, size.height)];
        let mut canvas = Canvas::new(&mut base, size);
        for (n, color) in (0_u32..).zip(BARS) {
            let left = n * size.width / 8 / 2 * 2;
            canvas.fill(left, 0, size.width, size.height, color);
        }
        let code_rows = clock_code::rows(size.width, size.height);
        canvas.fill(0, 0, size.width, code_rows, BLACK);
        let scale = (size.width / 320).max(1);
        let label = format!("onair {size} {fps} fps");
        let (top, width) = (
            size.height / 2 - scale,
            (label.len() as u32 + 1) * 8 * scale,
        );
        canvas.fill(8 * scale, top, width, 10 * scale, BLACK);
        canvas.text(8 * scale, top + scale, scale, WHITE.0, &label);
        // Soft hills with a ripple: detail that an encoder must follow, unlike flat bars.
        let band = (0..size.width * 2)
            .map(|x| {
                let phase = f64::from(x) * std::f64::consts::TAU / f64::from(size.width);
                let y = 126.0 + 60.0 * (phase * 4.0).sin() + 30.0 * (phase * 31.0).sin();
                y as u8
            })
            .collect();
        Self {
            size,
            fps,
            pacer: Pacer::new(pace, clock, fps, 0),
            pool: Pool::new(base.len()),
            base,
            band,
        }
    }

    fn draw(&self, data: &mut [u8], captured: MediaTime, n: u64) {
        let Size { width, height } = self.size;
        data.copy_from_slice(&self.base);
        let mut canvas = Canvas::new(data, self.size);
        let scale = (width / 320).max(1);

        // The band scrolls by its full length in eight seconds, each row a little ahead of the one above.
        let offset = n * u64::from(width) / u64::from(self.fps * 8);
        for y in height * 3 / 4..height {
            let shift = ((offset + u64::from(y / 4)) % u64::from(width)) as usize;
            let row = (y * width) as usize;
            canvas.luma()[row..row + width as usize]
                .copy_from_slice(&self.band[shift..shift + width as usize]);
        }

        // A box that goes to and fro in four seconds.
        let side = height / 8 / 2 * 2;
        let travel = u64::from(width.saturating_sub(side).max(1));
        let step = (n * travel * 2 / u64::from(self.fps * 4)) % (travel * 2);
        let left = step.min(travel * 2 - step) as u32 / 2 * 2;
        canvas.fill(left, height / 4, side, side, WHITE);

        let clock = &self.pacer.clock;
        let ms = into_second(clock, captured).as_millis();
        let text = format!("{}.{ms:03}", time_of_day(clock.wall(captured)));
        let top = height / 2 + 12 * scale;
        canvas.fill(8 * scale, top, 12 * 8 * scale, 10 * scale, BLACK);
        canvas.text(8 * scale, top + scale, scale, WHITE.0, &text);
        if into_second(clock, captured) < BEEP {
            let side = height / 6 / 2 * 2;
            canvas.fill(width - side - 8, height / 2, side, side, WHITE);
        }
        clock_code::draw(
            canvas.luma(),
            width as usize,
            width,
            height,
            unix_ms(clock, captured),
        );
    }
}

impl Source for TestCard {
    type Frame = VideoFrame;

    fn read(&mut self) -> Result<VideoFrame, Error> {
        let (captured, n) = self.pacer.wait();
        let data = self.pool.fill(|data| self.draw(data, captured, n));
        Ok(VideoFrame {
            captured,
            picture: Picture {
                format: PixelFormat::I420,
                width: self.size.width,
                height: self.size.height,
                data,
            },
        })
    }

    fn describe(&self) -> String {
        format!("test card {} at {} fps", self.size, self.fps)
    }
}

/// The synthetic sound: 220 Hz at -30 dBFS, and at each full second of wall time 60 ms of 1 kHz at half scale.
pub struct Tone {
    channels: u8,
    pacer: Pacer,
}

impl Tone {
    /// A tone on 1 or 2 `channels`, beeping by `clock`.
    pub fn new(channels: u8, clock: MediaClock, pace: Pace) -> Self {
        Self {
            channels,
            pacer: Pacer::new(pace, clock, 100, 1),
        }
    }
}

impl Source for Tone {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, Error> {
        let (captured, n) = self.pacer.wait();
        let hum_amplitude = 10_f64.powf(-30.0 / 20.0);
        let start = into_second(&self.pacer.clock, captured).as_nanos();
        let rate = u128::from(AUDIO_CLOCK_HZ);
        let mut samples = Vec::with_capacity(BLOCK * usize::from(self.channels));
        for i in 0..BLOCK {
            let since = (start + i as u128 * NANOS / rate) % NANOS;
            let value = if since < BEEP.as_nanos() {
                // Cosine: the onset is hard in its first sample.
                0.5 * (since as f64 * 1e-9 * 1_000.0 * std::f64::consts::TAU).cos()
            } else {
                // Counted modulo one second, a whole number of periods, so that the phase stays exact for months.
                let index = (n * BLOCK as u64 + i as u64) % u64::from(AUDIO_CLOCK_HZ);
                let phase = index as f64 * 220.0 / f64::from(AUDIO_CLOCK_HZ);
                hum_amplitude * (phase * std::f64::consts::TAU).sin()
            };
            samples.extend(std::iter::repeat_n(
                value as f32,
                usize::from(self.channels),
            ));
        }
        Ok(AudioFrame {
            captured,
            channels: self.channels,
            samples,
        })
    }

    fn describe(&self) -> String {
        format!("tone, {} channel(s), 48000 Hz", self.channels)
    }
}

/// Digital silence.
pub struct Silence {
    channels: u8,
    pacer: Pacer,
}

impl Silence {
    /// Silence on 1 or 2 `channels`.
    pub fn new(channels: u8, clock: MediaClock, pace: Pace) -> Self {
        Self {
            channels,
            pacer: Pacer::new(pace, clock, 100, 1),
        }
    }

    /// One block of silence.
    pub fn block(captured: MediaTime, channels: u8) -> AudioFrame {
        AudioFrame {
            captured,
            channels,
            samples: vec![0.0; BLOCK * usize::from(channels)],
        }
    }
}

impl Source for Silence {
    type Frame = AudioFrame;

    fn read(&mut self) -> Result<AudioFrame, Error> {
        let (captured, _) = self.pacer.wait();
        Ok(Self::block(captured, self.channels))
    }

    fn describe(&self) -> String {
        format!("silence, {} channel(s)", self.channels)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn clock() -> MediaClock {
        // A wall clock that is not at a full second when the media clock starts.
        MediaClock::new(
            Instant::now(),
            SystemTime::UNIX_EPOCH + Duration::from_micros(1_763_690_000_345_678),
        )
    }

    #[test]
    fn the_card_carries_its_capture_time_and_moves() {
        for (width, height) in [(64, 64), (320, 180), (1280, 720)] {
            let clock = clock();
            let mut card = TestCard::new(Size { width, height }, 30, clock, Pace::Free);
            let first = card.read().expect("never fails");
            let second = (0..10).map(|_| card.read().expect("never fails")).last();
            let second = second.expect("ten of them");
            assert!(first.picture.data != second.picture.data);
            if width >= 224 {
                let read = clock_code::read(&second.picture.data, width as usize, width, height);
                assert_eq!(read, Some(unix_ms(&clock, second.captured)));
            }
        }
    }

    #[test]
    fn an_hour_of_pictures_is_an_hour_of_time() {
        let mut card = Pacer::new(Pace::Free, clock(), 30, 0);
        let (first, _) = card.wait();
        let mut last = first;
        for _ in 0..30 * 3600 {
            let (next, _) = card.wait();
            assert!(next > last);
            last = next;
        }
        let spent = last.saturating_since(first);
        assert!(spent.abs_diff(Duration::from_secs(3600)) < Duration::from_nanos(2));
    }

    #[test]
    fn the_beep_begins_with_the_full_second_to_the_sample() {
        let clock = clock();
        let mut tone = Tone::new(2, clock, Pace::Free);
        let mut beeps = 0;
        let mut quiet = 0;
        for _ in 0..320 {
            let block = tone.read().expect("never fails");
            assert_eq!(block.samples.len(), 2 * BLOCK);
            for (i, pair) in block.samples.chunks(2).enumerate() {
                assert_eq!(pair[0], pair[1]);
                let loud = pair[0] > 0.45;
                if loud && quiet >= 4800 {
                    let at =
                        block.captured + Duration::from_nanos(i as u64 * 1_000_000_000 / 48_000);
                    let late = into_second(&clock, at);
                    assert!(late < Duration::from_micros(21), "{late:?}");
                    beeps += 1;
                }
                quiet = if pair[0].abs() > 0.1 { 0 } else { quiet + 1 };
            }
        }
        assert_eq!(beeps, 3);
    }

    #[test]
    fn card_and_tone_in_real_time_keep_to_the_clock() {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let mut card = TestCard::new(
            Size {
                width: 64,
                height: 64,
            },
            50,
            clock,
            Pace::RealTime,
        );
        for _ in 0..5 {
            let captured = card.read().expect("never fails").captured;
            assert!(clock.at(Instant::now()) >= captured);
            assert_eq!(captured.since_epoch().as_nanos() % 20_000_000, 0);
        }
    }
}
