//! An agent and a lab in one process, and waiting for what they come to. Tests read reports and states, never
//! inner types.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use onair::config::{
    Audio, AudioSource, Bitrate, Config, Daemon, Feed, Publisher, Size, Video, VideoSource,
};
use onair::lab::hub::State;
use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use onair::network::Network;
use onair::publisher::Snapshot;
use onair::supervisor::Supervisor;
use tokio::sync::watch;

/// Longest wait for anything that should come soon. Generous: the machine may be busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// A clock that starts now.
#[expect(
    clippy::disallowed_methods,
    reason = "the tests' one reading of both clocks"
)]
pub(crate) fn clock() -> MediaClock {
    MediaClock::new(Instant::now(), SystemTime::now())
}

/// A small test card with the tone: cheap to encode, and carries the clock.
pub(crate) fn small_feed() -> Feed {
    Feed {
        video: Some(Video {
            source: VideoSource::TestCard,
            size: Size {
                width: 640,
                height: 360,
            },
            fps: 15,
            bitrate: Bitrate(600_000),
            key_frame_interval: Duration::from_secs(2),
        }),
        audio: Some(Audio {
            source: AudioSource::Tone,
            channels: 2,
            bitrate: Bitrate(64_000),
        }),
    }
}

/// The configuration that publishes `feed` to `profile` of `lab`, by a publisher of that name.
pub(crate) fn config(feed: Feed, lab: &Lab, profile: Profile) -> Config {
    let server = lab.server(profile).expect("the lab has the profile");
    let publisher = Publisher::new("feed", server);
    Config {
        feeds: BTreeMap::from([("feed".to_owned(), feed)]),
        publishers: BTreeMap::from([(profile.to_string(), publisher)]),
        daemon: Daemon::default(),
    }
}

/// An agent that publishes the small feed to one profile of a lab.
pub(crate) struct Pair {
    pub(crate) lab: Lab,
    pub(crate) lab_config: LabConfig,
    pub(crate) agent: Supervisor,
    pub(crate) publisher: watch::Receiver<Snapshot>,
    /// The network that the agent believes to be in.
    pub(crate) network: watch::Sender<Network>,
}

impl Pair {
    /// Starts both, with the lab as `change` wants it.
    pub(crate) async fn start(profile: Profile, change: impl FnOnce(&mut LabConfig)) -> Self {
        Self::start_with(profile, change, |_, _| {}).await
    }

    /// Starts both, with the feed as wanted.
    pub(crate) async fn start_fed(profile: Profile, change: impl FnOnce(&mut Feed)) -> Self {
        let mut feed = small_feed();
        change(&mut feed);
        Self::start_of(feed, profile, |_| {}, |_, _| {}).await
    }

    /// Starts both, with the lab and then the publisher as wanted.
    pub(crate) async fn start_with(
        profile: Profile,
        change: impl FnOnce(&mut LabConfig),
        publish: impl FnOnce(&mut Publisher, &Lab),
    ) -> Self {
        Self::start_of(small_feed(), profile, change, publish).await
    }

    async fn start_of(
        feed: Feed,
        profile: Profile,
        change: impl FnOnce(&mut LabConfig),
        publish: impl FnOnce(&mut Publisher, &Lab),
    ) -> Self {
        let clock = clock();
        let mut lab_config = LabConfig::new(vec![profile], clock);
        change(&mut lab_config);
        let lab = Lab::start(lab_config.clone())
            .await
            .expect("the lab starts");
        lab_config.ports = lab
            .addresses()
            .iter()
            .map(|(profile, at)| (*profile, at.port()))
            .collect();
        let mut config = config(feed, &lab, profile);
        if let Some(publisher) = config.publishers.values_mut().next() {
            publish(publisher, &lab);
        }
        let network = watch::Sender::new(Network::default());
        let agent =
            Supervisor::start(&config, clock, &network.subscribe(), 1).expect("the agent starts");
        let publisher = agent
            .view()
            .publishers()
            .remove(&profile.to_string())
            .expect("the publisher is there");
        Self {
            lab,
            lab_config,
            agent,
            publisher,
            network,
        }
    }

    /// Waits until the publisher's state satisfies `wanted`.
    pub(crate) async fn until(
        &self,
        what: &str,
        wanted: impl FnMut(&Snapshot) -> bool,
    ) -> Snapshot {
        let mut watch = self.publisher.clone();
        let reached = tokio::time::timeout(SOON * 2, watch.wait_for(wanted)).await;
        let reached = reached
            .ok()
            .and_then(Result::ok)
            .map(|snapshot| snapshot.clone());
        reached.unwrap_or_else(|| panic!("{what}: not in time; {:?}", self.publisher.borrow()))
    }

    /// Waits until the lab decodes a session's pictures, `pictures` of them at least.
    pub(crate) async fn until_decoded(&self, pictures: u64) {
        let mut changed = self.lab.hub().changed();
        let seen = async {
            loop {
                let on_air = |s: &onair::lab::hub::Snapshot| {
                    s.state == State::OnAir && s.report.video.frames_decoded >= Some(pictures)
                };
                if self.lab.hub().sessions().iter().any(on_air) {
                    return;
                }
                changed.changed().await.expect("the lab runs");
            }
        };
        if tokio::time::timeout(SOON, seen).await.is_err() {
            panic!(
                "the lab did not decode {pictures} pictures: {:#?}",
                self.lab.hub().sessions()
            );
        }
    }

    /// Ends both in order and returns the lab's report of the one endpoint.
    pub(crate) async fn end(self) -> (onair::report::Session, Snapshot) {
        self.agent.drain().await;
        let hub = self.lab.hub().clone();
        self.lab.stop().await;
        let mut sessions = hub.report();
        assert_eq!(sessions.len(), 1, "one endpoint was published to");
        (sessions.remove(0), self.publisher.borrow().clone())
    }
}
