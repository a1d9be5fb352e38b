//! Encoded once, handed to any number of subscriptions through bounded lanes; and what they ask for in return.
//!
//! A lane holds about half a second. When video overflows, everything up to the next key frame goes and one is
//! asked for, because what follows a hole cannot be decoded; audio loses its oldest packet. The encoder never
//! waits. Key frames are economized over all subscriptions: one per half second at most, the first at once. A lane that
//! overflowed asks when its subscriber is back, not while it would overflow again, and seldom: all pay for it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::sync::Notify;

use super::limit::{Limit, LimitedBy};
use super::{Tracks, VideoTrack};
use crate::config::Bitrate;
use crate::encode::Controls;
use crate::media::access_unit::{AccessUnit, Track};
use crate::media::time::MediaTime;

/// Most media a lane holds, by capture time.
const LANE_SPAN: Duration = Duration::from_millis(500);
/// Most access units of one track that a lane holds, whatever their capture times.
const LANE_UNITS: usize = 128;
/// Most media a lane holds while a key frame is carried, counted from its capture. A narrow path takes longer for it than
/// [`LANE_SPAN`], and what is dropped then costs another one.
const KEY_SPAN: Duration = Duration::from_millis(1_500);
/// Least time between two key frames.
const KEY_FRAME_PAUSE: Duration = Duration::from_millis(500);

/// Least time between two key frames that one lane asks for because it overflowed.
const STARVED_PAUSE: Duration = Duration::from_secs(2);

/// What one lane did with one track's access units.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCount {
    /// Given to the subscriber.
    pub delivered: u64,
    /// Dropped because the subscriber was too slow, or left them behind.
    pub dropped: u64,
}

/// What one lane did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounters {
    /// The sound.
    pub audio: LaneCount,
    /// The picture.
    pub video: LaneCount,
}

impl LaneCounters {
    const fn of(&mut self, track: Track) -> &mut LaneCount {
        match track {
            Track::Audio => &mut self.audio,
            Track::Video => &mut self.video,
        }
    }
}

/// The queue of one subscription. Pure.
#[derive(Debug, Default)]
struct Lane {
    queue: VecDeque<AccessUnit>,
    /// Video was dropped: what comes is of no use until the next key frame.
    awaits_key: bool,
    /// When the key frame that the subscriber took last was captured.
    key: Option<MediaTime>,
    /// The subscriber has come for more since then.
    is_back: bool,
    /// When a key frame was last asked for.
    asked: Option<Instant>,
    counters: LaneCounters,
}

impl Lane {
    /// Takes `unit` in, making room as its track demands.
    fn push(&mut self, unit: AccessUnit) {
        let track = unit.track;
        if track == Track::Video && self.awaits_key {
            if !unit.key {
                self.counters.video.dropped += 1;
                return;
            }
            self.awaits_key = false;
        }
        self.queue.push_back(unit);
        if !self.overflows(track) {
            return;
        }
        match track {
            Track::Audio => {
                while self.overflows(Track::Audio) {
                    self.drop_first(Track::Audio);
                }
            }
            Track::Video => self.drop_to_key_frame(),
        }
    }

    /// Whether a key frame is to be asked for now, which then counts as done.
    fn asks(&mut self, now: Instant) -> bool {
        let paused = |at| now.saturating_duration_since(at) < STARVED_PAUSE;
        let asks = self.awaits_key && self.is_back && !self.asked.is_some_and(paused);
        if asks {
            self.is_back = false;
            self.asked = Some(now);
        }
        asks
    }

    fn overflows(&self, track: Track) -> bool {
        let mut units = self.queue.iter().filter(|u| u.track == track);
        let (first, count) = (units.next(), units.clone().count() + 1);
        let Some((first, last)) = first.zip(units.last()) else {
            return false;
        };
        let carries_key = |key| last.captured.saturating_since(key) <= KEY_SPAN;
        let long = last.captured.saturating_since(first.captured) > LANE_SPAN;
        count > LANE_UNITS || long && !self.key.is_some_and(carries_key)
    }

    fn drop_first(&mut self, track: Track) {
        if let Some(at) = self.queue.iter().position(|u| u.track == track) {
            self.queue.remove(at);
            self.counters.of(track).dropped += 1;
        }
    }

    /// Drops video up to the last key frame in the queue, or all of it: then another one is needed.
    fn drop_to_key_frame(&mut self) {
        let is_video = |u: &AccessUnit| u.track == Track::Video;
        let first = self.queue.iter().position(is_video);
        let key = self.queue.iter().rposition(|u| is_video(u) && u.key);
        let keep_from = key.filter(|&k| Some(k) != first);
        let before = self.queue.len();
        let mut at = 0;
        self.queue.retain(|u| {
            let keep = !is_video(u) || keep_from.is_some_and(|k| at >= k);
            at += 1;
            keep
        });
        self.counters.video.dropped += (before - self.queue.len()) as u64;
        self.awaits_key = keep_from.is_none();
        self.is_back = false;
    }

    fn pop(&mut self) -> Option<AccessUnit> {
        self.is_back = true;
        let unit = self.queue.pop_front()?;
        self.counters.of(unit.track).delivered += 1;
        if unit.track == Track::Video && unit.key {
            self.key = Some(unit.captured);
        }
        Some(unit)
    }
}

/// When a key frame is made. Pure.
#[derive(Debug)]
struct KeyFrames {
    /// Longest time between two.
    interval: Duration,
    wanted: bool,
    last: Option<Instant>,
    requested: u64,
    made: u64,
}

impl KeyFrames {
    const fn request(&mut self) {
        self.wanted = true;
        self.requested += 1;
    }

    fn due(&self, now: Instant) -> bool {
        let since = |last| now.saturating_duration_since(last);
        match self.last {
            None => true,
            Some(last) if self.wanted => since(last) >= KEY_FRAME_PAUSE,
            Some(last) => since(last) >= self.interval,
        }
    }

    fn made(&mut self, now: Instant) {
        self.last = Some(now);
        self.wanted = false;
        self.made += 1;
    }
}

#[derive(Debug)]
struct Seat {
    lane: Arc<Shared>,
    /// What this subscriber's network can carry.
    bitrate: Option<Bitrate>,
}

#[derive(Debug, Default)]
struct Shared {
    lane: Mutex<Lane>,
    filled: Notify,
}

#[derive(Debug)]
struct Inner {
    seats: BTreeMap<u64, Seat>,
    next_seat: u64,
    closed: bool,
    key_frames: KeyFrames,
    /// The last one, and when it was made; its bytes are those that the lanes share.
    key_frame: Option<(Instant, Bytes)>,
    /// As configured; the bitrates may be changed.
    tracks: Tracks,
    limit: Option<Limit>,
}

impl Inner {
    /// What is to be encoded of the picture.
    fn target(&self) -> Option<VideoTrack> {
        let full = self.tracks.video?;
        Some(self.limit.map_or(full, |limit| limit.of(full)))
    }

    fn max_bitrate(&self) -> Bitrate {
        self.target().map_or(Bitrate(0), |video| video.max_bitrate)
    }

    fn bitrate(&self) -> Bitrate {
        let wishes = self.seats.values().filter_map(|s| s.bitrate);
        let max = self.max_bitrate();
        wishes.min().unwrap_or(max).min(max)
    }

    fn limited_by(&self) -> Option<LimitedBy> {
        let by_network = || {
            let less = self.bitrate() < self.max_bitrate();
            less.then_some(LimitedBy::Network)
        };
        let limited = self.limit.filter(|_| self.target() != self.tracks.video);
        limited.map(|limit| limit.by).or_else(by_network)
    }
}

/// What the fan-out has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FanoutStatus {
    /// Subscriptions at this instant.
    pub subscriptions: usize,
    /// Key frames asked for, by subscribers and by overflowing lanes.
    pub key_frames_requested: u64,
    /// Key frames made.
    pub key_frames_made: u64,
    /// The video bitrate that all subscribers can carry.
    pub bitrate: Bitrate,
}

/// The feed's side: where access units go in.
#[derive(Debug)]
pub(super) struct Fanout {
    inner: Mutex<Inner>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Fanout {
    pub(super) fn new(tracks: Tracks, key_frame_interval: Duration) -> Self {
        Self {
            inner: Mutex::new(Inner {
                seats: BTreeMap::new(),
                next_seat: 0,
                closed: false,
                key_frames: KeyFrames {
                    interval: key_frame_interval,
                    wanted: false,
                    last: None,
                    requested: 0,
                    made: 0,
                },
                key_frame: None,
                tracks,
                limit: None,
            }),
        }
    }

    /// What the next frame of `track` must be like; `None` if nobody subscribes.
    pub(super) fn demand(&self, track: Track, now: Instant) -> Option<Controls> {
        let inner = lock(&self.inner);
        (!inner.seats.is_empty()).then(|| match track {
            Track::Audio => Controls {
                key_frame: false,
                bitrate: inner.tracks.audio.map_or(Bitrate(0), |audio| audio.bitrate),
            },
            Track::Video => Controls {
                key_frame: inner.key_frames.due(now),
                bitrate: inner.bitrate(),
            },
        })
    }

    /// The tracks as configured.
    pub(super) fn tracks(&self) -> Tracks {
        lock(&self.inner).tracks
    }

    /// The picture as it is to be encoded now, and what keeps it, or its bitrate, below the configuration.
    pub(super) fn target(&self) -> (Option<VideoTrack>, Option<LimitedBy>) {
        let inner = lock(&self.inner);
        (inner.target(), inner.limited_by())
    }

    /// Limits the picture, or lifts the limit.
    pub(super) fn limit(&self, limit: Option<Limit>) {
        lock(&self.inner).limit = limit;
    }

    /// Changes what can be changed while the feed runs; `None` leaves a value as it is.
    pub(super) fn retune(&self, video: Option<(Bitrate, Duration)>, audio: Option<Bitrate>) {
        let mut inner = lock(&self.inner);
        if let (Some(track), Some((bitrate, interval))) = (&mut inner.tracks.video, video) {
            track.max_bitrate = bitrate;
            inner.key_frames.interval = interval;
        }
        if let (Some(track), Some(bitrate)) = (&mut inner.tracks.audio, audio) {
            track.bitrate = bitrate;
        }
    }

    /// Hands `unit` to every lane.
    pub(super) fn publish(&self, unit: &AccessUnit, now: Instant) {
        let mut inner = lock(&self.inner);
        if unit.key && unit.track == Track::Video {
            inner.key_frames.made(now);
            inner.key_frame = Some((now, unit.data.clone()));
        }
        let mut starved = false;
        for seat in inner.seats.values() {
            let mut lane = lock(&seat.lane.lane);
            lane.push(unit.clone());
            starved |= lane.asks(now);
            drop(lane);
            seat.lane.filled.notify_one();
        }
        // Asked for once, not once per picture that is dropped meanwhile.
        if starved && !inner.key_frames.wanted {
            inner.key_frames.request();
        }
    }

    /// The last key frame and when it was made.
    pub(super) fn key_frame(&self) -> Option<(Instant, Bytes)> {
        lock(&self.inner).key_frame.clone()
    }

    /// No more access units will come: every lane ends when it is empty.
    pub(super) fn close(&self) {
        let mut inner = lock(&self.inner);
        inner.closed = true;
        for seat in inner.seats.values() {
            seat.lane.filled.notify_one();
        }
    }

    pub(super) fn status(&self) -> FanoutStatus {
        let inner = lock(&self.inner);
        FanoutStatus {
            subscriptions: inner.seats.len(),
            key_frames_requested: inner.key_frames.requested,
            key_frames_made: inner.key_frames.made,
            bitrate: inner.bitrate(),
        }
    }
}

/// A session's bounded view of a feed: about half a second, oldest dropped first. Dropping it unsubscribes.
#[must_use]
#[derive(Debug)]
pub struct Subscription {
    seat: u64,
    lane: Arc<Shared>,
    fanout: Arc<Fanout>,
}

impl Subscription {
    /// Takes a seat and asks for a key frame, so that the newcomer need not wait for a regular one.
    pub(super) fn new(fanout: &Arc<Fanout>) -> Self {
        let mut inner = lock(&fanout.inner);
        let seat = inner.next_seat;
        inner.next_seat += 1;
        let lane = Arc::new(Shared::default());
        inner.seats.insert(
            seat,
            Seat {
                lane: Arc::clone(&lane),
                bitrate: None,
            },
        );
        inner.key_frames.request();
        drop(inner);
        Self {
            seat,
            lane,
            fanout: Arc::clone(fanout),
        }
    }

    /// The next access unit of either track, in the order of encoding. `None` when the feed has drained.
    ///
    /// Cancel-safe: nothing is lost if the future is dropped.
    pub async fn next(&mut self) -> Option<AccessUnit> {
        loop {
            // Looked at before the queue: what is published before closing must still be found.
            let closed = lock(&self.fanout.inner).closed;
            if let Some(unit) = lock(&self.lane.lane).pop() {
                return Some(unit);
            }
            if closed {
                return None;
            }
            self.lane.filled.notified().await;
        }
    }

    /// Asks for a key frame: the next picture, or half a second after the last key frame.
    pub fn request_key_frame(&self) {
        lock(&self.fanout.inner).key_frames.request();
    }

    /// Says what this subscriber can carry; the feed encodes at the least that any subscriber said.
    pub fn set_bitrate(&self, bitrate: Bitrate) {
        if let Some(seat) = lock(&self.fanout.inner).seats.get_mut(&self.seat) {
            seat.bitrate = Some(bitrate);
        }
    }

    /// The most that the feed spends on the picture by its configuration; zero without a picture. It may change.
    pub fn max_bitrate(&self) -> Bitrate {
        let video = self.fanout.tracks().video;
        video.map_or(Bitrate(0), |video| video.max_bitrate)
    }

    /// What this lane delivered and dropped so far.
    pub fn counters(&self) -> LaneCounters {
        lock(&self.lane.lane).counters
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        lock(&self.fanout.inner).seats.remove(&self.seat);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Size;
    use crate::feed::AudioTrack;
    use bytes::Bytes;

    const MAX: Bitrate = Bitrate(2_000_000);

    fn unit(track: Track, ms: u64, key: bool) -> AccessUnit {
        AccessUnit {
            track,
            captured: MediaTime::new(Duration::from_millis(ms)),
            key,
            data: Bytes::from_static(b"x"),
        }
    }

    fn fanout() -> Arc<Fanout> {
        let video = VideoTrack {
            size: Size {
                width: 640,
                height: 360,
            },
            fps: 30,
            max_bitrate: MAX,
        };
        let audio = AudioTrack {
            channels: 2,
            bitrate: Bitrate(64_000),
        };
        let tracks = Tracks {
            video: Some(video),
            audio: Some(audio),
        };
        Arc::new(Fanout::new(tracks, Duration::from_secs(4)))
    }

    fn stamps(lane: &mut Lane) -> Vec<(Track, u64)> {
        std::iter::from_fn(|| lane.pop())
            .map(|u| (u.track, u.captured.since_epoch().as_millis() as u64))
            .collect()
    }

    #[test]
    fn overflowing_video_goes_up_to_the_next_key_frame() {
        let mut lane = Lane::default();
        for n in 0..20 {
            lane.push(unit(Track::Video, n * 33, n == 0));
            lane.push(unit(Track::Audio, n * 33, true));
        }
        // 0..=495 ms fit; the sixteenth overflows and takes everything; the rest waits for a key frame.
        assert_eq!(lane.counters.video.dropped, 20);
        lane.push(unit(Track::Video, 700, true));
        lane.push(unit(Track::Video, 733, false));
        let video: Vec<_> = stamps(&mut lane)
            .into_iter()
            .filter(|(track, _)| *track == Track::Video)
            .collect();
        assert_eq!(video, [(Track::Video, 700), (Track::Video, 733)]);
        assert_eq!(lane.counters.video.delivered, 2);
    }

    #[test]
    fn a_key_frame_in_the_queue_is_kept_with_what_follows() {
        let mut lane = Lane::default();
        for n in 0..17 {
            lane.push(unit(Track::Video, n * 33, n == 0 || n == 10));
        }
        assert!(!lane.awaits_key);
        assert_eq!(lane.counters.video.dropped, 10);
        assert_eq!(stamps(&mut lane)[0], (Track::Video, 330));
    }

    #[test]
    fn an_overflowing_lane_asks_when_it_is_read_again_and_not_soon_after() {
        let t = Instant::now();
        let mut lane = Lane::default();
        let overflow = |lane: &mut Lane, from: u64| {
            for n in 0..20 {
                lane.push(unit(Track::Video, from + n * 33, n == 0));
                assert!(!lane.asks(t));
            }
        };
        overflow(&mut lane, 0);
        assert!(lane.pop().is_none());
        assert!(lane.asks(t));
        assert!(!lane.asks(t), "once");
        overflow(&mut lane, 1_000);
        assert!(lane.pop().is_none());
        assert!(!lane.asks(t + STARVED_PAUSE / 2));
        assert!(lane.asks(t + STARVED_PAUSE));
        lane.push(unit(Track::Video, 3_000, true));
        assert_eq!(lane.pop().map(|unit| unit.key), Some(true));
        assert!(!lane.asks(t + 2 * STARVED_PAUSE));
    }

    #[test]
    fn a_lane_waits_longer_while_a_key_frame_is_carried() {
        let mut lane = Lane::default();
        lane.push(unit(Track::Video, 0, true));
        assert!(lane.pop().is_some());
        for n in 1..=45 {
            lane.push(unit(Track::Video, n * 33, false));
            lane.push(unit(Track::Audio, n * 33, true));
        }
        assert_eq!(lane.counters.video.dropped + lane.counters.audio.dropped, 0);
        // 1518 ms after it: by now it should have been carried.
        lane.push(unit(Track::Video, 46 * 33, false));
        assert!(lane.awaits_key);
    }

    #[test]
    fn audio_drops_its_oldest_and_leaves_video_alone() {
        let mut lane = Lane::default();
        lane.push(unit(Track::Video, 0, true));
        for n in 0..40 {
            lane.push(unit(Track::Audio, n * 20, true));
        }
        assert_eq!(lane.counters.audio.dropped, 14);
        assert_eq!(lane.counters.video.dropped, 0);
        let left = stamps(&mut lane);
        assert_eq!((left[0], left[1]), ((Track::Video, 0), (Track::Audio, 280)));
    }

    #[test]
    fn broken_stamps_cannot_grow_a_lane() {
        let mut lane = Lane::default();
        for _ in 0..1000 {
            lane.push(unit(Track::Audio, 0, true));
            lane.push(unit(Track::Video, 0, true));
        }
        assert!(lane.queue.len() <= 2 * LANE_UNITS + 1);
    }

    #[test]
    fn one_key_frame_per_half_second_and_the_first_at_once() {
        let t0 = Instant::now();
        let ms = Duration::from_millis;
        let fanout = fanout();
        assert_eq!(fanout.demand(Track::Video, t0), None);
        let first = Subscription::new(&fanout);
        let key = |now| {
            fanout
                .demand(Track::Video, now)
                .expect("subscribed")
                .key_frame
        };
        assert!(key(t0));
        fanout.publish(&unit(Track::Video, 0, true), t0);
        assert!(!key(t0 + ms(33)));
        let second = Subscription::new(&fanout);
        first.request_key_frame();
        second.request_key_frame();
        assert!(!key(t0 + ms(499)));
        assert!(key(t0 + ms(500)));
        fanout.publish(&unit(Track::Video, 500, true), t0 + ms(500));
        assert!(!key(t0 + ms(4499)));
        assert!(key(t0 + ms(4500)), "the regular interval");
        assert_eq!(fanout.status().key_frames_made, 2);
        // Two subscribers, each with a wish of its own and one by subscribing.
        assert_eq!(fanout.status().key_frames_requested, 4);
    }

    #[test]
    fn the_least_bitrate_wins_and_the_maximum_caps_it() {
        let fanout = fanout();
        let now = Instant::now();
        let first = Subscription::new(&fanout);
        let second = Subscription::new(&fanout);
        let bitrate = || {
            fanout
                .demand(Track::Video, now)
                .expect("subscribed")
                .bitrate
        };
        assert_eq!(bitrate(), MAX);
        first.set_bitrate(Bitrate(9_000_000));
        assert_eq!(bitrate(), MAX);
        second.set_bitrate(Bitrate(300_000));
        assert_eq!(bitrate(), Bitrate(300_000));
        drop(second);
        assert_eq!(bitrate(), MAX);
    }

    #[test]
    fn a_limit_and_a_new_configuration_hold_at_once_and_the_reason_is_told() {
        let fanout = fanout();
        let now = Instant::now();
        let subscription = Subscription::new(&fanout);
        let bitrate = |track| fanout.demand(track, now).expect("subscribed").bitrate;
        assert_eq!(fanout.target().1, None);
        let by = LimitedBy::Thermal;
        fanout.limit(Some(Limit {
            fps: 50,
            size: 100,
            bitrate: 25,
            by,
        }));
        let (target, why) = fanout.target();
        assert_eq!(target.map(|video| video.fps), Some(15));
        assert_eq!((bitrate(Track::Video), why), (Bitrate(500_000), Some(by)));
        assert_eq!(bitrate(Track::Audio), Bitrate(64_000));
        assert_eq!(subscription.max_bitrate(), MAX);

        fanout.limit(None);
        subscription.set_bitrate(Bitrate(300_000));
        assert_eq!(fanout.target().1, Some(LimitedBy::Network));

        let higher = Bitrate(4_000_000);
        fanout.retune(
            Some((higher, Duration::from_secs(9))),
            Some(Bitrate(32_000)),
        );
        subscription.set_bitrate(higher);
        assert_eq!((bitrate(Track::Video), fanout.target().1), (higher, None));
        assert_eq!(bitrate(Track::Audio), Bitrate(32_000));
    }

    #[tokio::test]
    async fn a_drained_feed_ends_its_lanes_when_they_are_empty() {
        let fanout = fanout();
        let mut subscription = Subscription::new(&fanout);
        fanout.publish(&unit(Track::Audio, 0, true), Instant::now());
        fanout.close();
        assert!(subscription.next().await.is_some());
        assert!(subscription.next().await.is_none());
        assert_eq!(subscription.counters().audio.delivered, 1);
    }

    #[tokio::test]
    async fn a_waiting_subscriber_is_woken() {
        let fanout = fanout();
        let mut subscription = Subscription::new(&fanout);
        let waiting = tokio::spawn(async move { subscription.next().await });
        tokio::task::yield_now().await;
        fanout.publish(&unit(Track::Video, 7, true), Instant::now());
        let unit = waiting.await.expect("no panic").expect("a unit");
        assert_eq!(unit.captured, MediaTime::new(Duration::from_millis(7)));
    }
}
