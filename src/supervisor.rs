//! The supervisor owns the feeds and the publishers, starts them from the configuration and drains them.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::config::Config;
use crate::feed::{self, Feed, FeedHandle};
use crate::media::time::MediaClock;
use crate::net;
use crate::network::Network;
use crate::publisher::{Publisher, Snapshot};

/// Longest time given to publishers to part from their servers.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// Longest time given to device threads to end; one stuck in a driver is left behind.
const FEED_WITHIN: Duration = Duration::from_secs(2);

/// Why nothing could be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A feed's configuration is impossible.
    #[error("feed {name} cannot start")]
    Feed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: feed::Error,
    },
    /// A publisher's certificate authorities cannot be read.
    #[error("publisher {name} cannot start")]
    Publisher {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: net::Error,
    },
}

/// Everything that runs.
#[must_use]
pub struct Supervisor {
    feeds: BTreeMap<String, Feed>,
    publishers: BTreeMap<String, Publisher>,
    members: watch::Sender<Members>,
}

/// What runs, by name.
#[derive(Clone, Default)]
struct Members {
    feeds: BTreeMap<String, FeedHandle>,
    publishers: BTreeMap<String, watch::Receiver<Snapshot>>,
}

/// A look at everything that runs, from anywhere. Cheap to clone; follows a change of the configuration.
#[derive(Clone)]
pub struct View {
    members: watch::Receiver<Members>,
}

/// Everything that runs at one instant, by name.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// The feeds.
    pub feeds: BTreeMap<String, feed::Status>,
    /// The publishers.
    pub publishers: BTreeMap<String, Snapshot>,
}

impl View {
    /// Everything as it is now.
    pub fn overview(&self) -> Overview {
        let members = self.members.borrow();
        let feeds = members.feeds.iter();
        let publishers = members.publishers.iter();
        Overview {
            feeds: feeds
                .map(|(name, feed)| (name.clone(), feed.status()))
                .collect(),
            publishers: publishers
                .map(|(name, publisher)| (name.clone(), publisher.borrow().clone()))
                .collect(),
        }
    }

    /// The publishers' states by name, now and as they change.
    pub fn publishers(&self) -> BTreeMap<String, watch::Receiver<Snapshot>> {
        self.members.borrow().publishers.clone()
    }

    /// Handles of the feeds by name.
    pub fn feeds(&self) -> BTreeMap<String, FeedHandle> {
        self.members.borrow().feeds.clone()
    }
}

impl Supervisor {
    /// Starts all feeds and publishers of `config`. `seed` makes all jitter.
    ///
    /// `network` is the network this host is in, as it changes. Must be called within a tokio runtime.
    pub fn start(
        config: &Config,
        clock: MediaClock,
        network: &watch::Receiver<Network>,
        seed: u64,
    ) -> Result<Self, Error> {
        let mut rng = fastrand::Rng::with_seed(seed);
        let mut feeds = BTreeMap::new();
        for (name, feed) in &config.feeds {
            let started = Feed::start(name, feed, clock).map_err(|source| Error::Feed {
                name: name.clone(),
                source,
            })?;
            feeds.insert(name.clone(), started);
        }
        let mut publishers = BTreeMap::new();
        for (name, publisher) in &config.publishers {
            // The configuration holds no publisher without its feed.
            let Some(feed) = feeds.get(&publisher.feed) else {
                continue;
            };
            let started = Publisher::start(
                name,
                publisher,
                feed.handle(),
                clock,
                network.clone(),
                rng.u64(..),
            )
            .map_err(|source| Error::Publisher {
                name: name.clone(),
                source,
            })?;
            publishers.insert(name.clone(), started);
        }
        let handles = feeds
            .iter()
            .map(|(name, feed)| (name.clone(), feed.handle()));
        let watches = publishers
            .iter()
            .map(|(name, publisher)| (name.clone(), publisher.watch()));
        let (members, _) = watch::channel(Members {
            feeds: handles.collect(),
            publishers: watches.collect(),
        });
        Ok(Self {
            feeds,
            publishers,
            members,
        })
    }

    /// A look at everything that runs.
    pub fn view(&self) -> View {
        View {
            members: self.members.subscribe(),
        }
    }

    /// Parts from all servers, then ends the feeds. Bounded by seven seconds.
    pub async fn drain(self) {
        let mut parting = JoinSet::new();
        for publisher in self.publishers.into_values() {
            parting.spawn(publisher.drain(PART_WITHIN));
        }
        parting.join_all().await;
        let mut ending = JoinSet::new();
        for feed in self.feeds.into_values() {
            ending.spawn(feed.drain(FEED_WITHIN));
        }
        for drained in ending.join_all().await {
            if drained.left_behind > 0 {
                tracing::warn!(
                    "{} device threads are stuck in their drivers and were left behind",
                    drained.left_behind
                );
            }
        }
    }
}
