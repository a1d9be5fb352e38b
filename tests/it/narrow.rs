//! An uplink that is narrower than the picture, over TCP: nothing is ever lost there, so nothing but the waiting tells
//! what it carries.

use std::time::Duration;

use onair::config::Bitrate;
use onair::feed::{FeedHandle, LimitedBy};
use onair::lab::{Fault, Profile};

use crate::support::{Pair, SOON};

/// What the feed is to make, far more than the uplink carries.
const FULL: Bitrate = Bitrate(1_500_000);

/// How often the lab asks for a key frame; nothing else makes one by itself.
const ASKED: Duration = Duration::from_secs(5);

/// What is seen of the one feed and its one session.
#[derive(Clone, Copy, Debug)]
struct Seen {
    at: tokio::time::Instant,
    wanted: Bitrate,
    limited_by: Option<LimitedBy>,
    made: u64,
    decoded: u64,
}

fn look(pair: &Pair, feed: &FeedHandle) -> Seen {
    let status = feed.status();
    let sessions = pair.lab.hub().sessions();
    let decoded = sessions
        .iter()
        .filter_map(|s| s.report.video.frames_decoded);
    Seen {
        at: tokio::time::Instant::now(),
        wanted: status.fanout.bitrate,
        limited_by: status.limited_by,
        made: status.fanout.key_frames_made,
        decoded: decoded.sum(),
    }
}

/// Waits until what is seen is as `wanted`.
async fn until(pair: &Pair, what: &str, wanted: impl Fn(Seen) -> bool) -> Seen {
    let feed = pair.agent.view().feeds()["feed"].clone();
    let mut changed = pair.lab.hub().changed();
    let waiting = async {
        loop {
            let seen = look(pair, &feed);
            if wanted(seen) {
                return seen;
            }
            changed.changed().await.expect("the lab runs");
        }
    };
    match tokio::time::timeout(SOON * 6, waiting).await {
        Ok(seen) => seen,
        Err(_) => panic!("{what}: not in time; {:?}", look(pair, &feed)),
    }
}

/// Publishes over an uplink of `kbit_s`, which later is as wide as it gets.
async fn adapts(kbit_s: u32) {
    let pair = Pair::start_fed(Profile::WowzaCloud, |feed| {
        let video = feed.video.as_mut().expect("a picture");
        video.bitrate = FULL;
        video.key_frame_interval = Duration::from_secs(600);
    })
    .await;
    pair.lab.faults().commit(None, Fault::Throttle { kbit_s });
    pair.until("on air", |p| p.is_on_air()).await;

    let fits = |seen: Seen| seen.wanted < Bitrate(kbit_s * 1_000);
    let settled = until(&pair, "a bitrate that fits", fits).await;
    assert_eq!(settled.limited_by, Some(LimitedBy::Network));
    // What was made before is carried first.
    let enough = settled.decoded + 45;
    let began = until(&pair, "settled", |seen| seen.decoded >= enough).await;
    let enough = began.decoded + 150;
    let ended = until(&pair, "pictures", |seen| seen.decoded >= enough).await;
    assert_eq!(ended.limited_by, Some(LimitedBy::Network));
    let asked = (ended.at - began.at).as_secs() / ASKED.as_secs() + 1;
    let made = ended.made - began.made;
    assert!(made <= asked + 1, "{made} key frames, not {asked}");

    pair.lab
        .faults()
        .commit(None, Fault::Throttle { kbit_s: 0 });
    let wide = until(&pair, "the full bitrate", |seen| seen.wanted == FULL).await;
    assert_eq!(wide.limited_by, None);
    let (lab, agent) = pair.end().await;
    assert_eq!((lab.reconnects, agent.sessions), (0, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_picture_is_cut_down_to_what_tcp_carries() {
    adapts(400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_picture_goes_through_the_narrowest_uplink() {
    adapts(200).await;
}
