//! The actor at its very end.

use std::time::SystemTime;

use jiff::Timestamp;

use super::*;
use crate::config::platform::{OnExit, Platform, StreamRef};
use crate::config::secret::{Bearer, Secret};
use crate::config::{Bitrate, Feed as FeedConfig, Size, Video, VideoSource};
use crate::feed::Feed;

/// What a file of state says of a stream that runs because onair started it.
const STARTED: &str = r#"{"schema": "onair.streams/1", "streams": [{
    "vendor": "qencode", "api": "http://127.0.0.1:1", "id": "s1", "publisher": "main", "ours": true, "left": false,
    "seen_running": null, "starts": [], "taken": [], "ran_ms": {}}]}"#;

#[tokio::test]
async fn a_stop_that_meets_the_end_of_a_session_gives_the_stream_back_once() {
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("streams.json"), STARTED).unwrap();
    let account = Account::in_lab(Some(place.path()), Box::new(Timestamp::now), 1).unwrap();
    #[expect(clippy::disallowed_methods, reason = "the one reading of both clocks")]
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let video = Video {
        source: VideoSource::TestCard,
        size: Size {
            width: 64,
            height: 64,
        },
        fps: 1,
        bitrate: Bitrate(100_000),
        key_frame_interval: Duration::from_secs(2),
    };
    let feed = FeedConfig {
        video: Some(video),
        audio: None,
    };
    let feed = Feed::start("feed", &feed, clock).unwrap();
    let platform = Platform {
        vendor: Vendor::Qencode { callback_url: None },
        credential: Bearer {
            token: Secret::new("key"),
            source: None,
        },
        api: Secret::new("http://127.0.0.1:1"),
        stream: StreamRef::Id("s1".to_owned()),
        on_exit: OnExit::Stop,
        daily_minutes: None,
    };
    let config = config::Publisher::new("feed", Server::Platform(Box::new(platform)));
    let network = watch::channel(Network::default()).1;
    let actor = || {
        let (feed, network) = (feed.handle(), network.clone());
        Actor::new("main", &config, feed, clock, network, &account, 1).unwrap()
    };
    let ended = |reason| Ended {
        reason,
        progress: Progress::Signalling,
        dialect: Dialect::WowzaV1,
    };
    let (telemetry, _) = watch::channel(Telemetry::default());
    for (given, tries) in [(false, 1), (true, 0)] {
        let mut actor = actor();
        let kept = actor.kept.take().unwrap();
        let outcome = Outcome {
            kept,
            ended: Some(ended(EndReason::Lost)),
            given,
            unreached: false,
        };
        actor.ended(Ok(outcome), &telemetry);
        let mut tasks = JoinSet::new();
        assert_eq!(actor.gives_back(&mut tasks), !given);
        assert_eq!(tasks.len(), tries);
        assert!(!actor.gives_back(&mut tasks), "it was tried");
    }
    // After a panic nothing is left of the session, and the stream runs all the same.
    let mut actor = actor();
    actor.kept = None;
    let panicked = tokio::spawn(async { panic!("on purpose") }).await;
    actor.ended(panicked.map(|()| unreachable!("it panicked")), &telemetry);
    let mut tasks = JoinSet::new();
    assert!(actor.gives_back(&mut tasks));
}
