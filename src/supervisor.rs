//! The supervisor owns the feeds and the publishers: starts them from the configuration, follows a change of it, and
//! drains them.

mod absent;
mod plan;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

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

pub use absent::AGAIN_EVERY;
pub use plan::{Change, Plan};

use absent::Absent;

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

/// Longest time that a change of what runs takes: [`Supervisor::reload`], or one publisher that is begun anew or held.
pub const CHANGE_WITHIN: Duration = DRAIN_WITHIN;

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
    #[error(
        "publisher {name} cannot start: its feed {feed} does not run{}",
        why.as_ref().map(|why| format!(" ({why})")).unwrap_or_default()
    )]
    NoFeed {
        /// Its name.
        name: String,
        /// That of the feed.
        feed: String,
        /// Why that does not run, where there is such a feed.
        why: Option<String>,
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
    /// Publishers that cannot be started.
    absent: Absent,
    /// Feeds that cannot be started, and why.
    barren: BTreeMap<String, String>,
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
    /// What could not be started as it is configured now; it goes on as it was, if it can. If not, it is tried again.
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
    /// Why the state that the next process should know is not written down, while that is so.
    pub unwritten: Option<String>,
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
            unwritten: self.account.trouble().borrow().clone(),
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
    /// Starts all feeds and publishers of `config`. `seed` makes all jitter. What cannot be started is shown as such and
    /// tried again by [`Self::start_absent`].
    ///
    /// `network` is the network this host is in, as it changes. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// If the folder of state is in use, or if nothing at all can be started.
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
            absent: Absent::default(),
            barren: BTreeMap::new(),
            members: watch::Sender::default(),
            account,
            former: Vec::new(),
            orphans,
            refused: None,
        };
        let mut failed = Vec::new();
        for (name, feed) in &config.feeds {
            failed.extend(supervisor.start_feed(name, feed).err());
        }
        for (name, publisher) in &config.publishers {
            failed.extend(supervisor.start_or_note(name, publisher).err());
        }
        let nothing = match config.publishers.is_empty() {
            true => supervisor.feeds.is_empty(),
            false => supervisor.publishers.is_empty(),
        };
        if nothing && !failed.is_empty() {
            return Err(failed.remove(0));
        }
        for error in &failed {
            tracing::error!("{}; it is tried again", chain(error));
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
    /// content has changed. Bounded by [`CHANGE_WITHIN`], for what ends is drained first: a camera opens only once.
    ///
    /// What the table for the process as a whole says is not looked at: it holds from start to end.
    pub async fn reload(&mut self, config: &Config, touched: &BTreeSet<PathBuf>) -> Reloaded {
        let mut plan = Plan::new(&self.config, config, touched);
        let named = |changes: &BTreeMap<String, Change>, wanted: &[Change]| {
            let found = changes.iter().filter(|(_, change)| wanted.contains(change));
            found.map(|(name, _)| name.clone()).collect::<Vec<_>>()
        };
        let (config, mut failed) = self.startable(config, &mut plan);
        // What differs from the configuration is what should run and does not.
        for (name, change) in &mut plan.feeds {
            if matches!(change, Change::Keep | Change::Retune) && !self.feeds.contains_key(name) {
                *change = Change::Start;
            }
        }
        for (name, change) in &mut plan.publishers {
            let there = self.publishers.contains_key(name) || self.held.contains_key(name);
            if *change == Change::Keep && !there {
                *change = Change::Start;
            }
        }
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
        (self.absent).retain(|name| config.publishers.contains_key(name));
        (self.barren).retain(|name, _| config.feeds.contains_key(name));
        let gone = named(&plan.feeds, &[Change::End, Change::Replace]);
        self.end(&gone).await;

        let mut before = std::mem::replace(&mut self.config, config.clone());
        self.config.daemon = before.daemon.clone();
        for name in named(&plan.feeds, &[Change::Start, Change::Replace]) {
            let Err(error) = self.start_feed(&name, &config.feeds[&name]) else {
                continue;
            };
            failed.push(error);
            // What cannot go on as it was is still wanted as it is configured now.
            if let Some(old) = before.feeds.remove(&name)
                && self.start_feed(&name, &old).is_ok()
            {
                self.config.feeds.insert(name, old);
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
            let Err(error) = self.start_or_note(&name, &config.publishers[&name]) else {
                continue;
            };
            failed.push(error);
            if let Some(old) = before.publishers.remove(&name)
                && self.start_publisher(&name, &old).is_ok()
            {
                self.config.publishers.insert(name, old);
            }
        }
        self.remember(&former);
        // What a publisher that is gone could not stop, one that has come may have the credential for.
        self.stop_orphans();
        self.show();
        Reloaded { plan, failed }
    }

    /// `config` as it was for those who run and could not be started by it, which `plan` then leaves as they are: whoever
    /// is on air must not be parted from its server for a file that turns out to be of no use.
    fn startable(&self, config: &Config, plan: &mut Plan) -> (Config, Vec<Error>) {
        let mut config = config.clone();
        let mut failed = Vec::new();
        for (name, change) in &mut plan.publishers {
            let old = self.config.publishers.get(name);
            let (Change::Replace, Some(old), Some(wanted)) =
                (*change, old, config.publishers.get(name))
            else {
                continue;
            };
            // Without its feed it cannot go on.
            let ends = |feed: &str| {
                matches!(
                    plan.feeds.get(feed),
                    Some(Change::End | Change::Replace) | None
                )
            };
            let runs = self.publishers.contains_key(name) || self.held.contains_key(name);
            if !runs || ends(&old.feed) || plan.feeds.get(&wanted.feed) == Some(&Change::Replace) {
                continue;
            }
            let Err(error) = startable(name, wanted) else {
                continue;
            };
            failed.push(error);
            *change = Change::Keep;
            config.publishers.insert(name.clone(), old.clone());
        }
        (config, failed)
    }

    /// Starts what is configured and could not be started before, where that is possible now. To be called every
    /// [`AGAIN_EVERY`]. Reads certificate authorities.
    pub fn start_absent(&mut self) {
        self.account.write_again();
        let config = self.config.clone();
        let mut changed = false;
        for (name, feed) in &config.feeds {
            if !self.feeds.contains_key(name) {
                match self.start_feed(name, feed) {
                    Ok(()) => {
                        changed = true;
                        tracing::info!("feed {name} begins, which could not before");
                    }
                    Err(error) => tracing::debug!("{}", chain(&error)),
                }
            }
        }
        for (name, publisher) in &config.publishers {
            if self.publishers.contains_key(name) || self.held.contains_key(name) {
                continue;
            }
            let known = self.absent.why(name);
            changed = true;
            match self.start_or_note(name, publisher) {
                Ok(()) => tracing::info!("publisher {name} begins, which could not before"),
                Err(error) if known == Some(reason(name, &error)) => {}
                Err(error) => tracing::error!("{}; it is tried again", chain(&error)),
            }
        }
        if changed {
            self.show();
        }
    }

    /// Ends the publisher `name`, whatever it is stuck in, and begins it anew. Bounded by [`CHANGE_WITHIN`]. False if there
    /// is none of that name, or it is held off air.
    ///
    /// # Errors
    /// If it cannot begin again.
    pub async fn restart_publisher(&mut self, name: &str) -> Result<bool, Error> {
        if self.held.contains_key(name) {
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

    /// Takes the publisher `name` off air until [`Self::resume_publisher`]. Bounded by [`CHANGE_WITHIN`]. False if none of
    /// that name runs or is to run.
    pub async fn hold_publisher(&mut self, name: &str) -> bool {
        let seen = match self.publishers.get(name) {
            Some(publisher) => {
                let watch = publisher.watch();
                self.part(&[name.to_owned()], |_| Release::Close).await;
                Some(watch.borrow().clone())
            }
            None => self.absent.forget(name),
        };
        let Some(seen) = seen else {
            return false;
        };
        // However its task ended, it is off the air now.
        let last = Snapshot {
            state: State::Stopped,
            ..seen
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
        let started = self.start_or_note(name, &publisher);
        self.show();
        started.map(|()| true)
    }

    /// Starts a publisher; one that cannot start is shown with the reason.
    fn start_or_note(&mut self, name: &str, publisher: &config::Publisher) -> Result<(), Error> {
        let started = self.start_publisher(name, publisher);
        if let Err(error) = &started {
            (self.absent).note(name, publisher, reason(name, error), now());
        }
        started
    }

    fn start_feed(&mut self, name: &str, feed: &config::Feed) -> Result<(), Error> {
        let started = Feed::start_within(name, feed, self.clock, self.budget);
        match started {
            Ok(started) => {
                self.barren.remove(name);
                self.feeds.insert(name.to_owned(), started);
                Ok(())
            }
            Err(source) => {
                self.barren.insert(name.to_owned(), chain(&source));
                Err(Error::Feed {
                    name: name.to_owned(),
                    source,
                })
            }
        }
    }

    fn start_publisher(&mut self, name: &str, publisher: &config::Publisher) -> Result<(), Error> {
        let Some(feed) = self.feeds.get(&publisher.feed) else {
            return Err(Error::NoFeed {
                name: name.to_owned(),
                feed: publisher.feed.clone(),
                why: self.barren.get(&publisher.feed).cloned(),
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
        self.absent.forget(name);
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
                .chain(self.absent.watches())
                .collect(),
            held: self.held.keys().cloned().collect(),
            refused: self.refused.clone(),
        });
    }

    /// Parts from all servers, stops what was started at platforms, then ends the feeds. Bounded by [`DRAIN_WITHIN`].
    pub async fn drain(self) {
        self.drain_by(Release::Exit).await;
    }

    /// The same of a process that is followed by another at once: what was started at platforms goes on for that one, if
    /// it will find it written down.
    pub async fn hand_over(self) {
        let written = self.account.is_kept() && self.account.trouble().borrow().is_none();
        let release = match written {
            true => Release::HandOver,
            false => Release::Exit,
        };
        self.drain_by(release).await;
    }

    async fn drain_by(mut self, release: Release) {
        self.orphans.abort();
        let publishers: Vec<String> = self.publishers.keys().cloned().collect();
        self.part(&publishers, |_| release).await;
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

/// Why the publisher `name` cannot start, for whoever knows of whom it is said.
fn reason(name: &str, error: &Error) -> String {
    let said = chain(error);
    match said.strip_prefix(&format!("publisher {name} ")) {
        Some(rest) => rest.to_owned(),
        None => said,
    }
}

/// An error and its causes in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
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
