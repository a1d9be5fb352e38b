//! An agent and a lab of its own, on air.

use std::collections::BTreeMap;
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use onair::config::{
    Audio, AudioSource, Bitrate, Config, Daemon, Feed, Publisher, Size, Video, VideoSource,
};
use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use onair::network::Network;
use onair::publisher::Snapshot;
use onair::supervisor::Supervisor;
use tokio::sync::watch;

/// Longer than any recovery may take; a run that needs more is a fault of ours, and ends the whole.
pub(crate) const LONGEST: Duration = Duration::from_secs(150);

pub(crate) struct Pair {
    pub(crate) lab: Option<Lab>,
    config: LabConfig,
    agent: Supervisor,
    publisher: watch::Receiver<Snapshot>,
    _network: watch::Sender<Network>,
}

impl Pair {
    /// Starts both, with the lab as `change` wants it and then the publisher as `publish` does.
    pub(crate) async fn start(
        profile: Profile,
        seed: u64,
        change: impl FnOnce(&mut LabConfig),
        publish: impl FnOnce(&mut Publisher, &Lab),
    ) -> anyhow::Result<Self> {
        let clock = MediaClock::new(Instant::now(), SystemTime::now());
        let mut config = LabConfig::new(vec![profile], clock);
        change(&mut config);
        let lab = Lab::start(config.clone()).await?;
        let ports = lab.addresses().iter();
        config.ports = ports.map(|(profile, at)| (*profile, at.port())).collect();
        let server = lab.server(profile).context("the lab has the profile")?;
        let mut publisher = Publisher::new("feed", server);
        publish(&mut publisher, &lab);
        let wanted = Config {
            feeds: BTreeMap::from([("feed".to_owned(), feed())]),
            publishers: BTreeMap::from([("main".to_owned(), publisher)]),
            daemon: Daemon::default(),
        };
        let network = watch::Sender::new(Network::default());
        let agent = Supervisor::start(&wanted, clock, &network.subscribe(), seed)?;
        let publisher = agent.view().publishers().remove("main");
        Ok(Self {
            lab: Some(lab),
            config,
            agent,
            publisher: publisher.context("the publisher runs")?,
            _network: network,
        })
    }

    /// The lab stops, as a server that is shut down.
    pub(crate) async fn stop_lab(&mut self) {
        if let Some(lab) = self.lab.take() {
            lab.stop().await;
        }
    }

    /// The lab starts again on its ports, and wants another bearer from now on.
    pub(crate) async fn start_lab_with(&mut self, bearer: &str) -> anyhow::Result<()> {
        self.config.bearer = Some(bearer.to_owned());
        self.start_lab().await
    }

    /// The lab starts again on its ports.
    pub(crate) async fn start_lab(&mut self) -> anyhow::Result<()> {
        self.lab = Some(Lab::start(self.config.clone()).await?);
        Ok(())
    }

    /// Commits a fault of the lab.
    pub(crate) fn commit(&self, fault: onair::lab::Fault) {
        if let Some(lab) = &self.lab {
            lab.faults().commit(None, fault);
        }
    }

    /// Waits until the publisher's state satisfies `wanted`.
    pub(crate) async fn until(
        &self,
        wanted: impl FnMut(&Snapshot) -> bool,
    ) -> anyhow::Result<Snapshot> {
        let mut watch = self.publisher.clone();
        let reached = tokio::time::timeout(LONGEST, watch.wait_for(wanted)).await;
        let late = || format!("not in time: {:?}", self.publisher.borrow().state);
        Ok(reached
            .ok()
            .with_context(late)?
            .context("the publisher ended")?
            .clone())
    }

    /// Pictures that the lab has decoded, of all sessions.
    pub(crate) fn decoded(&self) -> u64 {
        let sessions = self.lab.iter().flat_map(|lab| lab.hub().sessions());
        sessions.filter_map(|s| s.report.video.frames_decoded).sum()
    }

    /// Waits until the lab has decoded so many pictures.
    pub(crate) async fn until_decoded(&self, pictures: u64) -> anyhow::Result<()> {
        let lab = self.lab.as_ref().context("the lab runs")?;
        let mut changed = lab.hub().changed();
        let seen = async {
            while self.decoded() < pictures {
                changed.changed().await?;
            }
            anyhow::Ok(())
        };
        tokio::time::timeout(LONGEST, seen)
            .await
            .context("no picture")?
    }

    /// Parts and ends.
    pub(crate) async fn end(mut self) {
        self.agent.drain().await;
        if let Some(lab) = self.lab.take() {
            lab.stop().await;
        }
    }
}

/// A small test card with the tone, so that many run at once.
fn feed() -> Feed {
    Feed {
        video: Some(Video {
            source: VideoSource::TestCard,
            size: Size {
                width: 320,
                height: 180,
            },
            fps: 10,
            bitrate: Bitrate(200_000),
            key_frame_interval: Duration::from_secs(2),
        }),
        audio: Some(Audio {
            source: AudioSource::Tone,
            channels: 1,
            bitrate: Bitrate(24_000),
        }),
    }
}
