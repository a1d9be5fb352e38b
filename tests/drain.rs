//! The whole agent, ended in order: every frame of its feed is accounted for, and nothing of it is left behind.
//!
//! A process and a test of its own, so that threads and descriptors are the agent's and the lab's.

#![expect(
    clippy::disallowed_methods,
    reason = "waits for the system's own counts on real time"
)]

#[path = "it/held.rs"]
mod held;
#[path = "it/support.rs"]
#[expect(dead_code, reason = "other tests look closer")]
mod support;

use std::time::Duration;

use held::Held;
use onair::feed::{Status, TrackStatus};
use onair::lab::Profile;
use onair::publisher::Snapshot;
use support::{Pair, SOON};

/// Publishes some pictures as `profile`; the feed and the publisher after the end of both.
async fn publish(profile: Profile) -> (Status, Snapshot) {
    let pair = Pair::start(profile, |_| {}).await;
    let feed = pair
        .agent
        .view()
        .feeds()
        .remove("feed")
        .expect("the feed is there");
    pair.until("on air", |p| p.is_on_air()).await;
    pair.until_decoded(20).await;
    let (_, publisher) = pair.end().await;
    (feed.status(), publisher)
}

fn is_accounted_for(track: Option<TrackStatus>) -> TrackStatus {
    let track = track.expect("the feed has both tracks");
    let ledger = track.ledger;
    assert!(ledger.balances(), "{ledger:?}");
    assert_eq!(ledger.in_flight, 0, "{ledger:?}");
    assert_eq!((ledger.broken, ledger.encode_errors), (0, 0), "{ledger:?}");
    assert!(ledger.captured > 0 && ledger.units > 0, "{ledger:?}");
    assert_eq!(track.left_behind, 0);
    track
}

#[tokio::test]
async fn every_frame_is_accounted_for_and_nothing_is_left_behind() {
    // What is made once (the runtime's timers and blocking threads, the encoders' tables) is made before.
    publish(Profile::Ome021).await;
    let before = Held::idle().await;
    for profile in Profile::ALL {
        let (feed, publisher) = publish(profile).await;
        let video = is_accounted_for(feed.video);
        let audio = is_accounted_for(feed.audio);
        // Nobody subscribes before the session is connected, and sound comes every 10 ms.
        assert!(audio.ledger.idle > 0, "{audio:?}");
        // An Opus packet is two blocks of 10 ms.
        assert!(audio.ledger.units * 2 <= audio.ledger.encoded);
        assert!(publisher.frames_sent() >= 20, "{publisher:?}");
        assert!(publisher.frames_sent() <= video.ledger.units);
        assert_eq!(feed.fanout.subscriptions, 0);
        let after = before.settled().await;
        assert!(
            after.is_within(before),
            "{profile}: {before:?} became {after:?}"
        );
    }

    // These eyes see a feed that is forgotten.
    let config = support::small_feed();
    let feed = onair::feed::Feed::start("forgotten", &config, support::clock()).expect("a feed");
    let lives = tokio::time::timeout(SOON, async {
        while Held::now().is_within(before) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    lives.await.expect("its threads are seen");
    feed.drain(SOON).await;
    let after = before.settled().await;
    assert!(after.is_within(before), "{before:?} became {after:?}");
}
