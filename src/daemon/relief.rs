//! Asks less of the feeds while the machine is short of something: the task around `pressure`.

use std::path::Path;
use std::time::Duration;

use tokio::time::{Instant, MissedTickBehavior};

use super::pressure::{Controller, sensors};
use crate::feed::{Limit, LimitedBy};
use crate::supervisor::View;

/// How often the machine is looked at.
const PRESSURE_EVERY: Duration = Duration::from_secs(1);

/// Pictures that feeds must have captured between two looks for their losses to mean anything.
const CAPTURED_MIN: u64 = 5;

/// Limits the feeds of `view` as the machine demands, for ever.
pub(super) async fn run(view: View) {
    let mut controller = Controller::default();
    let mut looks = tokio::time::interval(PRESSURE_EVERY);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = (0, 0);
    loop {
        looks.tick().await;
        let read = tokio::task::spawn_blocking(|| sensors::read(Path::new("/")));
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
    use super::*;

    #[test]
    fn losses_are_counted_from_look_to_look_and_not_guessed_from_a_few() {
        assert_eq!(undone((100, 10), (130, 25)), Some(0.5));
        assert_eq!(undone((100, 10), (130, 10)), Some(0.0));
        assert_eq!(undone((100, 10), (103, 12)), None, "too few");
        assert_eq!(undone((100, 10), (30, 0)), None, "a feed has gone");
    }
}
