//! A wall clock that is wrong, or that jumps, harms nothing: it is read once, for what people and sender reports see,
//! and nobody waits by it.

use std::time::{Duration, Instant, UNIX_EPOCH};

use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use onair::network::Network;
use onair::supervisor::Supervisor;
use tokio::sync::watch;

use crate::support::{self, Pair};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_with_a_wrong_wall_clock_goes_on_air_and_stays() {
    // A board without a battery, and one whose battery lies.
    for wall in [60, 32_503_680_000] {
        #[expect(
            clippy::disallowed_methods,
            reason = "the agent's own reading of the clocks, one of them wrong"
        )]
        let clock = MediaClock::new(Instant::now(), UNIX_EPOCH + Duration::from_secs(wall));
        let lab_config = LabConfig::new(vec![Profile::Ome021], support::clock());
        let lab = Lab::start(lab_config.clone()).await.expect("a lab");
        let config = support::config(support::small_feed(), &lab, Profile::Ome021);
        let network = watch::Sender::new(Network::default());
        let agent = Supervisor::start(&config, clock, &network.subscribe(), 1).expect("an agent");
        let publisher = agent.view().publishers().remove("ome-0.21");
        let pair = Pair {
            lab,
            lab_config,
            agent,
            publisher: publisher.expect("the publisher is there"),
            network,
        };
        pair.until("on air", |p| p.is_on_air()).await;
        // Longer than it takes for the second report of either track, by which the lab compares their clocks.
        pair.until_decoded(45).await;
        let (report, snapshot) = pair.end().await;
        assert_eq!(report.violations, [], "{wall}");
        assert_eq!(snapshot.sessions, 1, "{wall}");
    }
}
