//! Asks less of the feeds while the machine is short of something: the task around `pressure`.

use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::pressure::{Controller, Readings};
use crate::feed::{Limit, LimitedBy};
use crate::supervisor::View;

/// How often the machine is looked at.
const PRESSURE_EVERY: Duration = Duration::from_secs(1);

/// Pictures that feeds must have captured between two looks for their losses to mean anything.
const CAPTURED_MIN: u64 = 5;

/// Limits the feeds of `view` as the machine demands, for ever. `read` reads its state, and may block.
pub(super) async fn run(view: View, read: impl Fn() -> Readings + Clone + Send + 'static) {
    let mut controller = Controller::default();
    let mut looks = tokio::time::interval(PRESSURE_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (0, 0);
    loop {
        looks.tick().await;
        let read = tokio::task::spawn_blocking(read.clone());
        let mut readings = read.await.unwrap_or_default();
        let feeds = view.feeds();
        let ledgers = feeds
            .values()
            .filter_map(|feed| Some(feed.status().video?.ledger));
        let done = ledgers.fold((0, 0), |(captured, dropped), ledger| {
            (captured + ledger.captured, dropped + ledger.dropped)
        });
        readings.behind = undone(before, done);
        before = done;
        if controller.on(Instant::now().into_std(), &readings) {
            tell(controller.limit());
        }
        // To all, each time: a feed may have begun since.
        for feed in feeds.values() {
            feed.limit(controller.limit());
        }
    }
}

/// Which share of the pictures captured between two looks was dropped before it was encoded; `None` if it were
/// guessed. Feeds may have come and gone between them.
fn undone(before: (u64, u64), now: (u64, u64)) -> Option<f64> {
    let captured = now.0.checked_sub(before.0)?;
    let dropped = now.1.checked_sub(before.1)?;
    (captured >= CAPTURED_MIN).then(|| dropped as f64 / captured as f64)
}

/// Says a change of the limit once.
fn tell(limit: Option<Limit>) {
    let Some(limit) = limit else {
        tracing::info!("the machine is up to its work again: pictures are as configured");
        return;
    };
    let advice = match limit.by {
        LimitedBy::Cpu => {
            "the encoders fall behind; ask for smaller or fewer pictures, or look for what else runs here"
        }
        LimitedBy::Network => "a network carries less",
        LimitedBy::Thermal => "it is too hot; see to its cooling",
        LimitedBy::Undervoltage => "its supply voltage is too low; use another supply or cable",
    };
    tracing::warn!(
        limited_by = limit.by.as_str(),
        fps_percent = limit.fps,
        size_percent = limit.size,
        bitrate_percent = limit.bitrate,
        "the machine is short of something, so pictures change: {advice}"
    );
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;
    use crate::config::secret::Secret;
    use crate::config::{
        Bitrate, Config, Daemon, Feed, Publisher, Server, Size, Video, VideoSource,
    };
    use crate::media::time::MediaClock;
    use crate::network::Network;
    use crate::supervisor::Supervisor;

    #[tokio::test(start_paused = true)]
    async fn a_hot_machine_limits_every_feed_until_it_is_cool_again() {
        let feed = Feed {
            video: Some(Video {
                source: VideoSource::TestCard,
                size: Size {
                    width: 320,
                    height: 180,
                },
                fps: 10,
                bitrate: Bitrate(300_000),
                key_frame_interval: Duration::from_secs(2),
            }),
            audio: None,
        };
        let url = Secret::new("ws://127.0.0.1:1/app/stream");
        let config = Config {
            feeds: [("a".to_owned(), feed.clone()), ("b".to_owned(), feed)].into(),
            publishers: [("p".to_owned(), Publisher::new("a", Server::Ome { url }))].into(),
            daemon: Daemon::default(),
        };
        let now = Instant::now().into_std();
        let clock = MediaClock::new(now, std::time::UNIX_EPOCH);
        let network = tokio::sync::watch::channel(Network::default()).1;
        let supervisor = Supervisor::start(&config, clock, &network, 1).unwrap();
        let view = supervisor.view();
        let hot = Arc::new(AtomicBool::new(true));
        let read = {
            let hot = Arc::clone(&hot);
            move || Readings {
                heat: Some(if hot.load(Ordering::Relaxed) {
                    3.0
                } else {
                    -30.0
                }),
                ..Readings::default()
            }
        };
        let relief = tokio::spawn(run(view.clone(), read));
        // On the paused clock: these are looks, not seconds.
        let until = async |wanted: Option<LimitedBy>| {
            for _ in 0..1_000 {
                let feeds = view.overview().feeds;
                if feeds.len() == 2 && feeds.values().all(|feed| feed.limited_by == wanted) {
                    return;
                }
                tokio::time::sleep(PRESSURE_EVERY).await;
            }
            panic!("never {wanted:?}: {:?}", view.overview().feeds);
        };
        until(Some(LimitedBy::Thermal)).await;
        hot.store(false, Ordering::Relaxed);
        until(None).await;
        relief.abort();
        supervisor.drain().await;
    }

    #[test]
    fn losses_are_counted_from_look_to_look_and_not_guessed_from_a_few() {
        assert_eq!(undone((100, 10), (130, 25)), Some(0.5));
        assert_eq!(undone((100, 10), (130, 10)), Some(0.0));
        assert_eq!(undone((100, 10), (103, 12)), None, "too few");
        assert_eq!(undone((100, 10), (30, 0)), None, "a feed has gone");
    }
}
