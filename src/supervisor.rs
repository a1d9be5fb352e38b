//! The supervisor owns the feeds and the publishers: starts them from the configuration, follows a change of it, and
//! drains them.

mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::task::AbortOnDropHandle;

use crate::account::{self, Account, RELEASE_WITHIN, Release};
use crate::config::{self, Config, Server};
use crate::feed::{self, Feed, FeedHandle};
use crate::media::time::MediaClock;
use crate::net::{self, Dialer};
use crate::network::Network;
use crate::publisher::{Publisher, Snapshot, State};

pub use plan::{Change, Plan};

/// Longest time given to publishers to part from their servers.
const PART_WITHIN: Duration = Duration::from_secs(5);

/// Most publishers that are gone whose credentials are kept.
const FORMER_MAX: usize = 16;

/// Longest time given to the threads of feeds to end; one that hangs in a driver or an encoder is left behind.
const FEED_WITHIN: Duration = Duration::from_secs(2);

/// Longest time that [`Supervisor::drain`] takes.
pub const DRAIN_WITHIN: Duration = PART_WITHIN
    .saturating_add(RELEASE_WITHIN)
    .saturating_add(FEED_WITHIN);

/// Why a part of the configuration could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The folder of state belongs to another process.
    #[error(transparent)]
    State(#[from] account::Error),
    /// A feed's configuration is impossible.
    #[error("feed {name} cannot start")]
    Feed {
        /// Its name.
        name: String,
        /// Why.
        #[source]
        source: feed::Error,
    },
    /// A publisher's feed did not start.
    #[error("publisher {name} cannot start: its feed {feed} does not run")]
    NoFeed {
        /// Its name.
        name: String,
        /// That of the feed.
        feed: String,
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
    /// Of the stages of the feeds.
    budget: feed::Budget,
    /// What runs, as it was configured.
    config: Config,
    clock: MediaClock,
    network: watch::Receiver<Network>,
    /// Makes the seeds of the publishers' jitter.
    rng: fastrand::Rng,
    feeds: BTreeMap<String, Feed>,
    publishers: BTreeMap<String, Publisher>,
    /// Publishers that somebody wants off air, with the last that was seen of them.
    held: BTreeMap<String, watch::Receiver<Snapshot>>,
    members: watch::Sender<Members>,
    account: Account,
    /// Publishers at platforms that are gone, the latest last: what could not be stopped for them still may be.
    former: Vec<config::Publisher>,
    /// Stops what was started and is not wanted any more; ends by itself.
    orphans: AbortOnDropHandle<()>,
    /// Why the configuration as it is written is not at work.
    refused: Option<String>,
}

/// What came of a new configuration.
#[derive(Debug)]
#[must_use]
pub struct Reloaded {
    /// What was to change.
    pub plan: Plan,
    /// What could not be started as it is configured now; it goes on as it was, if it was there before.
    pub failed: Vec<Error>,
}

/// What runs, by name.
#[derive(Clone, Default)]
struct Members {
    feeds: BTreeMap<String, FeedHandle>,
    publishers: BTreeMap<String, watch::Receiver<Snapshot>>,
    held: BTreeSet<String>,
    refused: Option<String>,
}

/// A look at everything that runs, from anywhere. Cheap to clone; follows a change of the configuration.
#[derive(Clone)]
pub struct View {
    members: watch::Receiver<Members>,
    account: Account,
}

/// Everything that runs at one instant, by name.
#[derive(Clone, Debug, Default)]
pub struct Overview {
    /// The feeds.
    pub feeds: BTreeMap<String, feed::Status>,
    /// The publishers.
    pub publishers: BTreeMap<String, Snapshot>,
    /// Those of them that somebody wants off the air until told otherwise.
    pub held: BTreeSet<String>,
    /// Why the configuration as it was read last is not at work, while that is so.
    pub refused: Option<String>,
    /// Streams at platforms that may go on costing though nobody wants them.
    pub orphaned: account::Orphaned,
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
            held: members.held.clone(),
            refused: members.refused.clone(),
            orphaned: self.account.orphaned().borrow().clone(),
        }
    }

    /// The wall clock, by which hours begin and end.
    pub fn wall(&self) -> SystemTime {
        self.account.wall().into()
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
        Self::start_within(feed::Budget::default(), config, clock, network, seed)
    }

    /// [`Self::start`] with another budget for the stages of the feeds, now and after each change.
    pub fn start_within(
        budget: feed::Budget,
        config: &Config,
        clock: MediaClock,
        network: &watch::Receiver<Network>,
        seed: u64,
    ) -> Result<Self, Error> {
        let account = Account::open(config.daemon.state_dir.as_deref())?;
        let metered = |p: &config::Publisher| matches!(p.server, Server::Platform(_));
        if !account.is_kept() && config.publishers.values().any(metered) {
            tracing::warn!(
                "there is no state_dir: after a crash, streams that onair started go on, and go on costing"
            );
        }
        let orphans = stopping_orphans::<()>(&account, config, &BTreeMap::new(), &[]);
        let mut supervisor = Self {
            budget,
            config: config.clone(),
            clock,
            network: network.clone(),
            rng: fastrand::Rng::with_seed(seed),
            feeds: BTreeMap::new(),
            publishers: BTreeMap::new(),
            held: BTreeMap::new(),
            members: watch::Sender::default(),
            account,
            former: Vec::new(),
            orphans,
            refused: None,
        };
        for (name, feed) in &config.feeds {
            supervisor.start_feed(name, feed)?;
        }
        for (name, publisher) in &config.publishers {
            supervisor.start_publisher(name, publisher)?;
        }
        supervisor.show();
        Ok(supervisor)
    }

    /// The guard of the account, which outlives any publisher.
    pub const fn account(&self) -> &Account {
        &self.account
    }

    /// A look at everything that runs.
    pub fn view(&self) -> View {
        View {
            members: self.members.subscribe(),
            account: self.account.clone(),
        }
    }

    /// What runs, as it was configured; of the process as a whole, as it was at the start.
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// Lets everybody see why the configuration as it was read last is not at work; `None` if it is.
    pub fn refuse(&mut self, why: Option<String>) {
        self.refused = why;
        self.show();
    }

    /// Puts `config` to work and touches only what differs (see [`Plan`]). `touched` are the files it names whose
    /// content has changed. Bounded by [`DRAIN_WITHIN`], for what ends is drained first: a camera opens only once.
    ///
    /// What the table for the process as a whole says is not looked at: it holds from start to end.
    pub async fn reload(&mut self, config: &Config, touched: &BTreeSet<PathBuf>) -> Reloaded {
        let mut plan = Plan::new(&self.config, config, touched);
        let named = |changes: &BTreeMap<String, Change>, wanted: &[Change]| {
            let found = changes.iter().filter(|(_, change)| wanted.contains(change));
            found.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let (config, mut failed) = self.startable(config, &mut plan);
        let gone = named(&plan.publishers, &[Change::End, Change::Replace]);
        let stream = |publishers: &BTreeMap<String, config::Publisher>, name: &str| {
            let server = publishers.get(name).map(|publisher| &publisher.server);
            let Some(Server::Platform(platform)) = server else {
                return None;
            };
            Some(platform.clone())
        };
        let former = self.config.publishers.clone();
        // A stream takes a minute to start, so one that is wanted further goes on.
        let release = |name: &str| {
            let (from, to) = (stream(&former, name), stream(&config.publishers, name));
            let same = from
                .zip(to)
                .is_some_and(|(from, to)| from.is_same_stream(&to));
            if same {
                Release::HandOver
            } else {
                Release::Exit
            }
        };
        self.part(&gone, release).await;
        self.held
            .retain(|name, _| config.publishers.contains_key(name));
        let gone = named(&plan.feeds, &[Change::End, Change::Replace]);
        self.end(&gone).await;

        let mut before = std::mem::replace(&mut self.config, config.clone());
        self.config.daemon = before.daemon.clone();
        for name in named(&plan.feeds, &[Change::Start, Change::Replace]) {
            let Err(error) = self.start_feed(&name, &config.feeds[&name]) else {
                continue;
            };
            failed.push(error);
            match before.feeds.remove(&name) {
                Some(old) => {
                    failed.extend(self.start_feed(&name, &old).err());
                    self.config.feeds.insert(name, old);
                }
                None => drop(self.config.feeds.remove(&name)),
            }
        }
        for name in named(&plan.feeds, &[Change::Retune]) {
            if let Some(feed) = self.feeds.get(&name) {
                feed.handle().retune(&config.feeds[&name]);
            }
        }
        for name in named(&plan.publishers, &[Change::Start, Change::Replace]) {
            if self.held.contains_key(&name) {
                continue;
            }
            let Err(error) = self.start_publisher(&name, &config.publishers[&name]) else {
                continue;
            };
            failed.push(error);
            match before.publishers.remove(&name) {
                Some(old) => {
                    failed.extend(self.start_publisher(&name, &old).err());
                    self.config.publishers.insert(name, old);
                }
                None => drop(self.config.publishers.remove(&name)),
            }
        }
        self.remember(&former);
        // What a publisher that is gone could not stop, one that has come may have the credential for.
        self.stop_orphans();
        self.show();
        Reloaded { plan, failed }
    }

    /// `config` without what could not be started by it, which `plan` then leaves as it is: whoever is on air must not
    /// be parted from its server for a file that turns out to be of no use.
    fn startable(&self, config: &Config, plan: &mut Plan) -> (Config, Vec<Error>) {
        let mut config = config.clone();
        let mut failed = Vec::new();
        for (name, change) in &mut plan.publishers {
            let wanted = config.publishers.get(name);
            let replaced = wanted
                .is_some_and(|publisher| plan.feeds.get(&publisher.feed) == Some(&Change::Replace));
            if replaced || !matches!(change, Change::Start | Change::Replace) {
                continue;
            }
            let Some(Err(error)) = wanted.map(|publisher| startable(name, publisher)) else {
                continue;
            };
            failed.push(error);
            *change = Change::Keep;
            match self.config.publishers.get(name) {
                Some(old) => drop(config.publishers.insert(name.clone(), old.clone())),
                None => drop(config.publishers.remove(name)),
            }
        }
        (config, failed)
    }

    /// Ends the publisher `name`, whatever it is stuck in, and begins it anew. Bounded by [`DRAIN_WITHIN`]. False if
    /// there is none of that name, or it is held off air.
    ///
    /// # Errors
    /// If it cannot begin again.
    pub async fn restart_publisher(&mut self, name: &str) -> Result<bool, Error> {
        if !self.publishers.contains_key(name) {
            return Ok(false);
        }
        if let Some(publisher) = self.config.publishers.get(name) {
            startable(name, publisher)?;
        }
        self.part(&[name.to_owned()], |_| Release::HandOver).await;
        self.begin(name)
    }

    /// A person wants the publisher `name` on air with its sound: a microphone of its feed that was lost, and stays
    /// away by its configuration, is opened again.
    pub fn want_sound(&self, name: &str) {
        let feed = self.config.publishers.get(name).map(|p| &p.feed);
        if let Some(feed) = feed.and_then(|feed| self.feeds.get(feed)) {
            feed.handle().want_sound();
        }
    }

    /// Takes the publisher `name` off air until [`Self::resume_publisher`]. Bounded by [`DRAIN_WITHIN`]. False if none
    /// of that name runs.
    pub async fn hold_publisher(&mut self, name: &str) -> bool {
        let Some(publisher) = self.publishers.get(name) else {
            return false;
        };
        let watch = publisher.watch();
        self.part(&[name.to_owned()], |_| Release::Close).await;
        // However its task ended, it is off the air now.
        let last = Snapshot {
            state: State::Stopped,
            ..watch.borrow().clone()
        };
        let held = watch::Sender::new(last).subscribe();
        self.held.insert(name.to_owned(), held);
        self.stop_orphans();
        self.show();
        true
    }

    /// Puts the publisher `name` on air again. False if it is not held.
    ///
    /// # Errors
    /// If it cannot begin again.
    pub fn resume_publisher(&mut self, name: &str) -> Result<bool, Error> {
        if !self.held.contains_key(name) {
            return Ok(false);
        }
        if let Some(publisher) = self.config.publishers.get(name) {
            startable(name, publisher)?;
        }
        self.held.remove(name);
        // Its stream is wanted again.
        self.stop_orphans();
        self.begin(name)
    }

    /// Keeps those of `former` publishers whose platform's credential is no longer configured.
    fn remember(&mut self, former: &BTreeMap<String, config::Publisher>) {
        let account = |publisher: &config::Publisher| match &publisher.server {
            Server::Platform(platform) => Some((platform.api.clone(), platform.credential.clone())),
            Server::Ome { .. }
            | Server::Qencode { .. }
            | Server::Whip { .. }
            | Server::Wowza { .. } => None,
        };
        let now: Vec<_> = (self.config.publishers.values().chain(&self.former))
            .filter_map(account)
            .collect();
        let gone = |p: &&config::Publisher| account(p).is_some_and(|a| !now.contains(&a));
        let gone: Vec<_> = former.values().filter(gone).cloned().collect();
        self.former.extend(gone);
        let excess = self.former.len().saturating_sub(FORMER_MAX);
        self.former.drain(..excess);
    }

    fn stop_orphans(&mut self) {
        self.orphans = stopping_orphans(&self.account, &self.config, &self.held, &self.former);
    }

    /// Begins the publisher `name` as it is configured; false if it is not.
    fn begin(&mut self, name: &str) -> Result<bool, Error> {
        let Some(publisher) = self.config.publishers.get(name).cloned() else {
            return Ok(false);
        };
        let started = self.start_publisher(name, &publisher);
        self.show();
        started.map(|()| true)
    }

    fn start_feed(&mut self, name: &str, feed: &config::Feed) -> Result<(), Error> {
        let started =
            Feed::start_within(name, feed, self.clock, self.budget).map_err(|source| {
                Error::Feed {
                    name: name.to_owned(),
                    source,
                }
            })?;
        self.feeds.insert(name.to_owned(), started);
        Ok(())
    }

    fn start_publisher(&mut self, name: &str, publisher: &config::Publisher) -> Result<(), Error> {
        let Some(feed) = self.feeds.get(&publisher.feed) else {
            return Err(Error::NoFeed {
                name: name.to_owned(),
                feed: publisher.feed.clone(),
            });
        };
        let started = Publisher::start(
            name,
            publisher,
            feed.handle(),
            self.clock,
            self.network.clone(),
            &self.account,
            self.rng.u64(..),
        )
        .map_err(|source| Error::Publisher {
            name: name.to_owned(),
            source,
        })?;
        self.publishers.insert(name.to_owned(), started);
        Ok(())
    }

    /// Parts these publishers from their servers.
    async fn part(&mut self, names: &[String], release: impl Fn(&str) -> Release) {
        let mut parting = JoinSet::new();
        for name in names {
            if let Some(publisher) = self.publishers.remove(name) {
                parting.spawn(publisher.part(PART_WITHIN, release(name)));
            }
        }
        parting.join_all().await;
    }

    /// Ends these feeds.
    async fn end(&mut self, names: &[String]) {
        let mut ending = JoinSet::new();
        for feed in names.iter().filter_map(|name| self.feeds.remove(name)) {
            ending.spawn(feed.drain(FEED_WITHIN));
        }
        for drained in ending.join_all().await {
            if drained.left_behind > 0 {
                tracing::warn!(
                    "{} threads hang in a device or an encoder and were left behind",
                    drained.left_behind
                );
            }
        }
    }

    /// Lets everybody see what runs now.
    fn show(&self) {
        let feeds = self.feeds.iter();
        let publishers = self.publishers.iter();
        self.members.send_replace(Members {
            feeds: feeds
                .map(|(name, feed)| (name.clone(), feed.handle()))
                .collect(),
            publishers: publishers
                .map(|(name, publisher)| (name.clone(), publisher.watch()))
                .chain(self.held.clone())
                .collect(),
            held: self.held.keys().cloned().collect(),
            refused: self.refused.clone(),
        });
    }

    /// Parts from all servers, stops what was started at platforms, then ends the feeds. Bounded by [`DRAIN_WITHIN`].
    pub async fn drain(mut self) {
        self.orphans.abort();
        let publishers: Vec<String> = self.publishers.keys().cloned().collect();
        self.part(&publishers, |_| Release::Exit).await;
        let feeds: Vec<String> = self.feeds.keys().cloned().collect();
        self.end(&feeds).await;
    }
}

/// Whether a publisher can be made of `publisher`. Reads certificate authorities.
fn startable(name: &str, publisher: &config::Publisher) -> Result<(), Error> {
    let trust = Dialer::new(publisher.server.url(), &publisher.trust, &publisher.proxy);
    trust.map(drop).map_err(|source| Error::Publisher {
        name: name.to_owned(),
        source,
    })
}

/// Stops what was started and what none of `config` wants, or wants but for the `held`.
fn stopping_orphans<T>(
    account: &Account,
    config: &Config,
    held: &BTreeMap<String, T>,
    former: &[config::Publisher],
) -> AbortOnDropHandle<()> {
    let account = account.clone();
    let mut wanted = config.publishers.clone();
    let mut others = former.to_vec();
    wanted.retain(|name, publisher| {
        let is_held = held.contains_key(name);
        if is_held {
            others.push(publisher.clone());
        }
        !is_held
    });
    let work = async move { account::stop_orphans(&account, &wanted, &others).await };
    AbortOnDropHandle::new(tokio::spawn(work))
}

#[cfg(test)]
mod tests;
