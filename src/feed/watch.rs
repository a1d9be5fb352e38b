//! Looks for pictures and sounds that arrive in time and are of no use. Told the time; pure, and cheap.
//!
//! A look at a picture twice a second is enough. The noise of a real camera makes two pictures differ within their
//! first hundred bytes, so that the exact comparison costs nothing unless the picture is frozen; black is judged by a
//! few thousand points. Sound is looked at block by block. A sign counts when it has lasted, and is over at once.
//!
//! What nobody looks at stays as it was seen last: a pause ends no condition that holds, and begins the waiting for
//! every other one anew. Only a source that goes away ends them all.

use std::collections::BTreeMap;
use std::time::Duration;

use super::condition::Condition;
use crate::config;
use crate::media::frame::{AudioFrame, Picture};
use crate::media::time::MediaTime;

/// Time between two looks at a picture.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A pause as long as this begins the waiting for what does not hold yet anew.
const PAUSE: Duration = Duration::from_secs(5);
/// Luma up to this is black: a tenth of the range above its foot.
const BLACK: u8 = 16 + 22;
/// A picture is black if so many of its points in a hundred are. As ffmpeg's blackdetect, so that a lamp is enough.
const BLACK_PERCENT: usize = 98;
/// Distance in pixels, both ways, of the points that are judged.
const GRID: usize = 16;
/// Half a step of a 16-bit converter: what varies by less does not vary.
const STILL: f32 = 0.5 / 32_768.0;
/// Full scale, as good as.
const FULL: f32 = 0.98;
/// So many samples in a row at full scale are not the tip of a wave.
const FLAT: usize = 4;
/// Sound is clipped if so many blocks in a hundred are.
const CLIPPED_PERCENT: u32 = 10;

/// Conditions that hold, and since when.
pub(super) type Conditions = BTreeMap<Condition, MediaTime>;

/// A sign that must last before it counts.
#[derive(Clone, Copy, Debug)]
struct Lasting {
    /// `None`: it never counts.
    after: Option<Duration>,
    since: Option<MediaTime>,
    /// It has lasted long enough, and was never seen to be over.
    holds: bool,
}

impl Lasting {
    const fn new(after: Option<Duration>) -> Self {
        Self {
            after,
            since: None,
            holds: false,
        }
    }

    /// Nobody looks for a while: what has not lasted long enough must do so from the next look on.
    const fn pause(&mut self) {
        if !self.holds {
            self.since = None;
        }
    }

    /// Takes whether the sign is seen at `now`; gives since when it has been seen, if that is long enough.
    fn see(&mut self, now: MediaTime, seen: bool) -> Option<MediaTime> {
        if !seen {
            *self = Self::new(self.after);
            return None;
        }
        let since = *self.since.get_or_insert(now);
        let after = self.after?;
        self.holds |= now.saturating_since(since) >= after;
        self.holds.then_some(since)
    }
}

/// Watches the pictures of a camera.
#[derive(Debug)]
pub struct PictureWatch {
    frozen: Lasting,
    black: Lasting,
    /// The picture looked at last, and when it was captured.
    last: Option<(Picture, MediaTime)>,
}

impl PictureWatch {
    /// Watches for what `after` names.
    pub const fn new(after: config::PictureWatch) -> Self {
        Self {
            frozen: Lasting::new(after.frozen_after),
            black: Lasting::new(after.black_after),
            last: None,
        }
    }

    /// Nothing is known any more: the source is away.
    pub(super) fn forget(&mut self) {
        *self = Self {
            frozen: Lasting::new(self.frozen.after),
            black: Lasting::new(self.black.after),
            last: None,
        };
    }

    /// Nobody looks at the pictures for a while.
    pub(super) fn pause(&mut self) {
        self.frozen.pause();
        self.black.pause();
        // What is frozen is over when a picture differs from the one it froze in.
        if !self.frozen.holds {
            self.last = None;
        }
    }

    /// Takes a picture in I420; gives what holds, if it was time to look.
    pub fn look(&mut self, picture: &Picture, captured: MediaTime) -> Option<Conditions> {
        if self.frozen.after.is_none() && self.black.after.is_none() {
            return None;
        }
        if let Some((_, at)) = &self.last {
            let pause = captured.saturating_since(*at);
            if pause < LOOK_EVERY {
                return None;
            }
            if pause >= PAUSE {
                self.pause();
            }
        }
        let black = is_black(picture);
        // A closed cover can give the same black again and again: then it is the black that tells.
        let same = !black
            && self.frozen.after.is_some()
            && self.last.as_ref().is_some_and(|(last, _)| {
                let alike = (last.width, last.height) == (picture.width, picture.height);
                // A new size of ours says nothing of the camera.
                if alike {
                    luma(last) == luma(picture)
                } else {
                    self.frozen.holds
                }
            });
        // What is frozen has been so since the first of the equal pictures.
        if same
            && self.frozen.since.is_none()
            && let Some((_, at)) = &self.last
        {
            self.frozen.since = Some(*at);
        }
        let found = [
            (Condition::Frozen, self.frozen.see(captured, same)),
            (Condition::Black, self.black.see(captured, black)),
        ];
        self.last = Some((picture.clone(), captured));
        Some(holding(found))
    }
}

fn holding<const N: usize>(found: [(Condition, Option<MediaTime>); N]) -> Conditions {
    let holding = found.into_iter();
    holding
        .filter_map(|(condition, since)| Some((condition, since?)))
        .collect()
}

fn luma(picture: &Picture) -> &[u8] {
    let len = picture.width as usize * picture.height as usize;
    &picture.data[..len.min(picture.data.len())]
}

fn is_black(picture: &Picture) -> bool {
    let rows = luma(picture).chunks(picture.width.max(1) as usize);
    // Half a step in, so that a bright edge does not count for everything.
    let points = rows
        .skip(GRID / 2)
        .step_by(GRID)
        .flat_map(|row| row.iter().skip(GRID / 2).step_by(GRID));
    let (mut all, mut dark) = (0, 0);
    for &point in points {
        all += 1;
        dark += usize::from(point <= BLACK);
    }
    all > 0 && dark * 100 >= all * BLACK_PERCENT
}

/// Watches the sound of a microphone.
#[derive(Debug)]
pub struct SoundWatch {
    silent: Lasting,
    clipped_after: Option<Duration>,
    /// Blocks since the window began, and how many of them were clipped.
    window: Option<(MediaTime, u32, u32)>,
    clipped_since: Option<MediaTime>,
    last: Option<MediaTime>,
}

impl SoundWatch {
    /// Watches for what `after` names.
    pub const fn new(after: config::SoundWatch) -> Self {
        Self {
            silent: Lasting::new(after.silent_after),
            clipped_after: after.clipped_after,
            window: None,
            clipped_since: None,
            last: None,
        }
    }

    /// Nothing is known any more: the source is away.
    pub(super) const fn forget(&mut self) {
        self.silent = Lasting::new(self.silent.after);
        (self.window, self.clipped_since, self.last) = (None, None, None);
    }

    /// Takes a block of samples; gives what holds.
    pub fn look(&mut self, block: &AudioFrame) -> Conditions {
        let now = block.captured;
        let pause = self.last.map(|last| now.saturating_since(last));
        if pause.is_some_and(|pause| pause >= PAUSE) {
            self.silent.pause();
            self.window = None;
        }
        self.last = Some(now);
        let silent = self.silent.after.is_some() && is_still(block);
        let silent = self.silent.see(now, silent);
        if let Some(after) = self.clipped_after {
            self.clipping(now, after, is_clipped(block));
        }
        holding([
            (Condition::Silent, silent),
            (Condition::Clipped, self.clipped_since),
        ])
    }

    /// Judges window by window: a single shout is no reason to turn the gain down.
    fn clipping(&mut self, now: MediaTime, window: Duration, clipped: bool) {
        let (since, mut all, mut bad) = self.window.unwrap_or((now, 0, 0));
        (all, bad) = (all + 1, bad + u32::from(clipped));
        if now.saturating_since(since) < window {
            self.window = Some((since, all, bad));
            return;
        }
        self.window = None;
        self.clipped_since =
            (bad * 100 >= all * CLIPPED_PERCENT).then(|| self.clipped_since.unwrap_or(since));
    }
}

fn channels(block: &AudioFrame) -> impl Iterator<Item = impl Iterator<Item = f32>> {
    let count = usize::from(block.channels.max(1));
    (0..count).map(move |channel| block.samples.iter().skip(channel).step_by(count).copied())
}

/// Whether no channel varies.
fn is_still(block: &AudioFrame) -> bool {
    channels(block).all(|samples| {
        let (low, high) = samples.fold((f32::MAX, f32::MIN), |(low, high), sample| {
            (low.min(sample), high.max(sample))
        });
        high - low < STILL
    })
}

/// Whether any channel stays at full scale for a while.
fn is_clipped(block: &AudioFrame) -> bool {
    channels(block).any(|samples| {
        let mut run = 0;
        let mut longest = 0;
        for sample in samples {
            run = if sample.abs() >= FULL { run + 1 } else { 0 };
            longest = longest.max(run);
        }
        longest >= FLAT
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::capture::Source as _;
    use crate::capture::synthetic::{BLOCK, Pace, TestCard, Tone};
    use crate::config::Size;
    use crate::media::frame::{PixelFormat, i420_len};
    use crate::media::time::MediaClock;
    use std::time::{Instant, SystemTime};

    const SIZE: Size = Size {
        width: 320,
        height: 180,
    };
    const S: Duration = Duration::from_secs(1);

    fn at(ms: u64) -> MediaTime {
        MediaTime::new(Duration::from_millis(ms))
    }

    /// A scene of `level` with noise of `noise` steps, as a camera makes it.
    fn scene(level: u8, noise: u8, seed: &mut u32) -> Picture {
        let mut data = vec![128; i420_len(SIZE.width, SIZE.height)];
        for (n, point) in data[..(SIZE.width * SIZE.height) as usize]
            .iter_mut()
            .enumerate()
        {
            *seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let grain = (*seed >> 24) as u8 % (noise + 1);
            *point = level.saturating_add(grain).saturating_add((n % 7) as u8);
        }
        Picture {
            format: PixelFormat::I420,
            width: SIZE.width,
            height: SIZE.height,
            data: data.into(),
        }
    }

    fn picture_watch() -> PictureWatch {
        PictureWatch::new(config::PictureWatch {
            frozen_after: Some(10 * S),
            black_after: Some(5 * S),
        })
    }

    /// Shows pictures at 30 per second from `from` to `to` seconds; gives what held at the last look, and when that
    /// began to be said.
    fn show(
        watch: &mut PictureWatch,
        (from, to): (u64, u64),
        mut picture: impl FnMut(u64) -> Picture,
    ) -> (Conditions, Option<u64>) {
        let (mut holding, mut said) = (Conditions::new(), None);
        for n in from * 30..to * 30 {
            let ms = n * 1000 / 30;
            if let Some(found) = watch.look(&picture(n), at(ms)) {
                if found != holding {
                    said = Some(ms / 1000);
                }
                holding = found;
            }
        }
        (holding, said)
    }

    #[test]
    fn a_picture_that_stands_still_to_the_bit_is_frozen_and_noise_is_not() {
        let mut watch = picture_watch();
        let mut seed = 1;
        let (found, _) = show(&mut watch, (0, 60), |_| scene(90, 1, &mut seed));
        assert_eq!(found, Conditions::new(), "the calmest of real pictures");
        let still = scene(90, 1, &mut seed);
        let (found, said) = show(&mut watch, (60, 69), |_| still.clone());
        assert_eq!((found, said), (Conditions::new(), None));
        let (found, said) = show(&mut watch, (69, 80), |_| still.clone());
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            [Condition::Frozen]
        );
        assert_eq!(found[&Condition::Frozen].since_epoch().as_secs(), 60);
        assert_eq!(said, Some(70));
        let (found, _) = show(&mut watch, (80, 81), |_| scene(90, 1, &mut seed));
        assert_eq!(found, Conditions::new(), "over at once");
    }

    #[test]
    fn a_covered_lens_is_black_and_a_lamp_in_the_dark_is_not() {
        let mut watch = picture_watch();
        let mut seed = 1;
        // A cheap sensor's noise in the dark.
        let (found, said) = show(&mut watch, (0, 20), |_| scene(16, 14, &mut seed));
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            [Condition::Black]
        );
        assert_eq!(said, Some(5));
        // Bit-identical black is still only black.
        let cover = scene(16, 0, &mut seed);
        let (found, _) = show(&mut watch, (20, 50), |_| cover.clone());
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            [Condition::Black]
        );
        let mut lamp = |_| {
            let mut picture = scene(16, 10, &mut seed);
            let mut data = picture.data.to_vec();
            for row in data.chunks_mut(320).take(60) {
                row[..60].fill(220);
            }
            picture.data = data.into();
            picture
        };
        assert_eq!(show(&mut watch, (50, 70), &mut lamp).0, Conditions::new());
    }

    #[test]
    fn pauses_and_a_new_size_are_no_signs() {
        let mut watch = picture_watch();
        let mut seed = 1;
        let still = scene(90, 1, &mut seed);
        // Looked at once a minute, nothing is known of what was between.
        for n in 0..20 {
            let found = watch.look(&still, at(n * 60_000));
            assert_eq!(found, Some(Conditions::new()));
        }
        watch.forget();
        let mut turned = still.clone();
        (turned.width, turned.height) = (still.height, still.width);
        for n in 0..40 {
            let picture = if n % 2 == 0 { &still } else { &turned };
            let found = watch.look(picture, at(2_000_000 + n * 600));
            assert_eq!(found, Some(Conditions::new()));
        }
    }

    #[test]
    fn a_pause_ends_nothing_that_holds_and_begins_the_waiting_for_the_rest_anew() {
        let mut seed = 1;
        let still = scene(90, 1, &mut seed);
        let dark = scene(16, 10, &mut seed);
        for (picture, condition) in [(&still, Condition::Frozen), (&dark, Condition::Black)] {
            let mut watch = picture_watch();
            let (found, _) = show(&mut watch, (0, 12), |_| picture.clone());
            let since = found[&condition];
            watch.pause();
            // Hours later the first look already says that it still is so, and since when.
            let (found, said) = show(&mut watch, (9_000, 9_001), |_| picture.clone());
            assert_eq!(found.get(&condition), Some(&since));
            assert_eq!(said, Some(9_000));
            watch.pause();
            let (found, _) = show(&mut watch, (9_100, 9_101), |_| scene(90, 1, &mut seed));
            assert_eq!(found, Conditions::new(), "it is over after the pause");
        }
        // The feed has become smaller meanwhile.
        let mut watch = picture_watch();
        let (found, _) = show(&mut watch, (0, 12), |_| still.clone());
        let mut smaller = still.clone();
        (smaller.width, smaller.height) = (160, 90);
        assert_eq!(
            show(&mut watch, (12, 20), |_| smaller.clone()),
            (found, Some(12))
        );
        // Half of the time before a pause and half of it after are not the whole.
        let mut watch = picture_watch();
        for n in 0..10 {
            let from = n * 100;
            let (found, _) = show(&mut watch, (from, from + 4), |_| dark.clone());
            assert_eq!(found, Conditions::new());
            watch.pause();
        }
    }

    #[test]
    fn what_is_off_is_never_found() {
        let mut watch = PictureWatch::new(config::PictureWatch {
            frozen_after: None,
            black_after: None,
        });
        let black = scene(0, 0, &mut 1);
        assert_eq!(show(&mut watch, (0, 100), |_| black.clone()).1, None);
        let mut watch = SoundWatch::new(config::SoundWatch {
            silent_after: None,
            clipped_after: None,
        });
        assert_eq!(hear(&mut watch, (0, 100), |_| 0.0).0, Conditions::new());
        assert_eq!(hear(&mut watch, (100, 200), |_| 1.0).0, Conditions::new());
    }

    #[test]
    fn a_short_or_empty_picture_does_no_harm() {
        let mut picture = scene(90, 1, &mut 1);
        picture.data = picture.data.slice(..10);
        let mut watch = picture_watch();
        for n in 0..100 {
            watch.look(&picture, at(n * 500));
        }
        picture.width = 0;
        watch.look(&picture, at(100_000));
    }

    #[test]
    fn the_test_card_and_the_tone_would_not_trigger_even_if_they_were_watched() {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let mut card = TestCard::new(SIZE, 30, clock, Pace::Free);
        let mut watch = picture_watch();
        for _ in 0..30 * 30 {
            let frame = card.read().expect("never fails");
            let found = watch.look(&frame.picture, frame.captured);
            assert!(found.is_none_or(|found| found.is_empty()));
        }
        let mut tone = Tone::new(2, clock, Pace::Free);
        let mut watch = sound_watch();
        for _ in 0..40 * 100 {
            let found = watch.look(&tone.read().expect("never fails"));
            assert_eq!(found, Conditions::new());
        }
    }

    fn sound_watch() -> SoundWatch {
        SoundWatch::new(config::SoundWatch {
            silent_after: Some(10 * S),
            clipped_after: Some(5 * S),
        })
    }

    /// Plays `sample` at 48 kHz in stereo from `from` to `to` seconds; gives what holds at the end and when that began
    /// to be said.
    fn hear(
        watch: &mut SoundWatch,
        (from, to): (u64, u64),
        mut sample: impl FnMut(u64) -> f32,
    ) -> (Conditions, Option<u64>) {
        let (mut holding, mut said) = (Conditions::new(), None);
        for n in from * 100..to * 100 {
            let mut samples = Vec::new();
            for i in 0..BLOCK as u64 {
                let value = sample(n * BLOCK as u64 + i);
                samples.extend([value, value]);
            }
            let found = watch.look(&AudioFrame {
                captured: at(n * 10),
                channels: 2,
                samples,
            });
            if found != holding {
                said = Some(n / 100);
            }
            holding = found;
        }
        (holding, said)
    }

    #[test]
    fn a_dead_microphone_is_silent_and_a_quiet_room_is_not() {
        let mut watch = sound_watch();
        // The last bit of a 16-bit converter now and then.
        let room = |n: u64| {
            if n.is_multiple_of(331) {
                1.0 / 32_768.0
            } else {
                0.0
            }
        };
        assert_eq!(hear(&mut watch, (0, 60), room).0, Conditions::new());
        for level in [0.0, 0.02] {
            watch.forget();
            let (found, said) = hear(&mut watch, (60, 90), |_| level);
            assert_eq!(
                found.keys().copied().collect::<Vec<_>>(),
                [Condition::Silent]
            );
            assert_eq!(said, Some(70), "digital zero or a constant level");
        }
        let (found, _) = hear(&mut watch, (90, 91), room);
        assert_eq!(found, Conditions::new(), "over at once");
    }

    #[test]
    fn one_dead_channel_of_two_is_no_dead_microphone() {
        let mut watch = sound_watch();
        for n in 0..60 * 100 {
            let samples = (0..BLOCK).flat_map(|i| [0.0, (i as f32 * 0.1).sin() * 0.1]);
            let found = watch.look(&AudioFrame {
                captured: at(n * 10),
                channels: 2,
                samples: samples.collect(),
            });
            assert_eq!(found, Conditions::new());
        }
    }

    #[test]
    fn a_gain_that_is_too_high_is_clipped_and_a_shout_is_not() {
        let loud = |n: u64| ((n as f32 * 0.05).sin() * 8.0).clamp(-1.0, 1.0);
        let calm = |n: u64| (n as f32 * 0.05).sin() * 0.5;
        let mut watch = sound_watch();
        // 300 ms of shouting every five seconds.
        let shout = |n: u64| {
            if n % 240_000 < 14_400 {
                loud(n)
            } else {
                calm(n)
            }
        };
        assert_eq!(hear(&mut watch, (0, 30), shout).0, Conditions::new());
        let (found, said) = hear(&mut watch, (30, 60), loud);
        assert_eq!(
            found.keys().copied().collect::<Vec<_>>(),
            [Condition::Clipped]
        );
        assert!(said.is_some_and(|said| said <= 41), "{said:?}");
        let (found, _) = hear(&mut watch, (60, 75), calm);
        assert_eq!(found, Conditions::new());
    }
}
