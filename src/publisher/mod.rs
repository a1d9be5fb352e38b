//! The publisher keeps one feed on air at one server, for ever. It owns all retrying towards that server.
//!
//! It is an actor around three pure parts: `lifecycle` (where we stand), `policy` (what follows from a failure)
//! and `backoff`. One session runs at a time, in a task of its own, so that a panic in it is a fact like any other.

mod attempt;
mod backoff;
mod cause;
pub mod lifecycle;
mod memory;
mod policy;
mod renewal;
mod server;

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::account::{self, Account, Duty, Lease, Off, RELEASE_WITHIN, Release};
use crate::config::platform::Vendor;
use crate::config::{self, Server};
use crate::feed::FeedHandle;
use crate::media::time::MediaClock;
use crate::net;
use crate::network::Network;
use crate::platform;
use crate::session::{self, EndReason, Ended, Progress, Telemetry};
use crate::signal::Dialect;
use crate::signal::whip::Picture;

pub use cause::{Cause, Recoveries, Recovery};
pub use lifecycle::State;
pub use policy::{Hold, Verdict};

use attempt::{Attempt, Kept, Outcome};
use lifecycle::{Action, Input, Lifecycle};
use memory::Memory;
use renewal::Renewal;

use server::Signallers;

/// How long the same end of sessions is said once: a server that is down is tried about every second.
const SAID_FOR: Duration = Duration::from_secs(60);
/// Interval at which a stream that could not be stopped is stopped again while it is off the air.
const RELEASE_AGAIN: Duration = Duration::from_secs(60);
/// Longest and shortest wait for a time of the wall clock, which may be set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(30);
const LEAST_LOOK: Duration = Duration::from_millis(100);

/// Everything a publisher shows of itself.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Where it stands.
    pub state: State,
    /// Its dialect.
    pub dialect: Dialect,
    /// The running session, or the last one.
    pub session: Telemetry,
    /// Sessions begun.
    pub sessions: u64,
    /// From the start, or from the loss of the last session, to media accepted; of the last time it came to that.
    pub time_to_on_air: Option<Duration>,
    /// Video access units handed to the engine in all sessions but the running one.
    pub frames_sent_before: u64,
    /// Why the last session ended.
    pub end_reason: Option<String>,
    /// How long it took to be on air, by what had put it off the air.
    pub recoveries: Recoveries,
    /// What is known of the stream at its platform, where there is one.
    pub platform: Option<account::Status>,
}

impl Snapshot {
    /// What is shown of a publisher in `state` that has not begun.
    pub fn before_any(config: &config::Publisher, state: State) -> Self {
        Self {
            state,
            dialect: server::dialect(&config.server),
            session: Telemetry::default(),
            sessions: 0,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: None,
            recoveries: Recoveries::new(),
            platform: None,
        }
    }

    /// Video access units handed to the engine in all sessions.
    pub const fn frames_sent(&self) -> u64 {
        self.frames_sent_before + self.session.frames_sent
    }

    /// Media is accepted.
    pub const fn is_on_air(&self) -> bool {
        matches!(self.state, State::OnAir { .. })
    }
}

/// A running publisher. Dropping it aborts it; [`drain`](Self::drain) parts from the server first.
#[derive(Debug)]
#[must_use]
pub struct Publisher {
    stop: CancellationToken,
    ends: Arc<OnceLock<Release>>,
    snapshots: watch::Receiver<Snapshot>,
    task: JoinHandle<()>,
    /// It has a stream to give back.
    releases: bool,
}

impl Publisher {
    /// Starts a publisher called `name` of `feed`. `seed` makes the jitter of its waits.
    ///
    /// Must be called within a tokio runtime. Fails only if the certificate authorities in `config` cannot be read.
    pub fn start(
        name: &str,
        config: &config::Publisher,
        feed: FeedHandle,
        clock: MediaClock,
        network: watch::Receiver<Network>,
        account: &Account,
        seed: u64,
    ) -> Result<Self, net::Error> {
        let actor = Actor::new(name, config, feed, clock, network, account, seed)?;
        let (stop, ends) = (actor.stop.clone(), Arc::clone(&actor.ends));
        let (snapshots, releases) = (actor.snapshots.subscribe(), actor.has_stream());
        let span = tracing::info_span!("publisher", id = name);
        let task = tokio::spawn(actor.run().instrument(span));
        Ok(Self {
            stop,
            ends,
            snapshots,
            task,
            releases,
        })
    }

    /// The publisher's state, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Parts from the server and ends. Bounded by `deadline`, and by [`RELEASE_WITHIN`] more where a stream has to be
    /// stopped at its platform; what is not done by then is aborted.
    pub async fn drain(self, deadline: Duration) {
        self.part(deadline, Release::Exit).await;
    }

    /// The same, but for what becomes of a stream at a platform, which `release` says.
    pub async fn part(mut self, deadline: Duration, release: Release) {
        self.ends.get_or_init(|| release);
        self.stop.cancel();
        let deadline = match self.releases {
            true => deadline + RELEASE_WITHIN,
            false => deadline,
        };
        if tokio::time::timeout(deadline, &mut self.task)
            .await
            .is_err()
        {
            tracing::warn!(
                "publisher did not part from its server within {} s",
                deadline.as_secs()
            );
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Actor {
    /// How the stream is given back, once it is to end.
    ends: Arc<OnceLock<Release>>,
    parameters: session::Parameters,
    signallers: Signallers,
    config: config::Publisher,
    account: Account,
    lifecycle: Lifecycle,
    memory: Memory,
    stop: CancellationToken,
    /// Parts the running session; a new one for each.
    part: CancellationToken,
    snapshots: watch::Sender<Snapshot>,
    /// Between sessions; the running session has it otherwise.
    kept: Option<Kept>,
    /// What the stream at the platform comes to.
    leased: Option<watch::Receiver<account::Status>>,
    /// Since when it is off the air though it should be on, and why.
    down: Option<(Instant, Cause)>,
    /// When a stream that could not be stopped was stopped in vain.
    released: Option<Instant>,
    /// Whether the last that ended has given the stream back, or tried to; and whether the very last try was begun.
    given: bool,
    given_at_end: bool,
    /// What a person was told to do, so that it is said once.
    advised: Option<String>,
    /// Why a session ended, as it was said last, and when.
    said: Option<(String, Instant)>,
    /// Where a refused token may be renewed.
    renewal: Option<Renewal>,
}

impl Actor {
    fn new(
        name: &str,
        config: &config::Publisher,
        feed: FeedHandle,
        clock: MediaClock,
        network: watch::Receiver<Network>,
        account: &Account,
        seed: u64,
    ) -> Result<Self, net::Error> {
        let video = feed.tracks().video;
        let picture = video.map(|video| Picture {
            size: video.size,
            fps: video.fps,
        });
        let signallers = Signallers::new(config, picture);
        let dialer = signallers.dialer(&config.server)?;
        let hold = match &config.server {
            Server::Platform(platform) => match platform.vendor {
                Vendor::Qencode { .. } => Hold::Qencode,
                Vendor::WowzaVideo { .. } => Hold::WowzaVideo,
            },
            Server::Ome { .. }
            | Server::Qencode { .. }
            | Server::Whip { .. }
            | Server::Wowza { .. } => Hold::Server,
        };
        let nothing = Snapshot::before_any(config, State::Stopped);
        let snapshots = watch::Sender::new(nothing);
        let mut actor = Self {
            parameters: session::Parameters {
                feed,
                clock,
                name: name.to_owned(),
                transport: config.transport,
                ice_servers: config.ice_servers.clone(),
                dialer,
                network,
                first: None,
                unreached: 0,
            },
            signallers,
            config: config.clone(),
            account: account.clone(),
            lifecycle: Lifecycle::new(hold, fastrand::Rng::with_seed(seed)),
            memory: Memory::default(),
            stop: CancellationToken::new(),
            ends: Arc::default(),
            part: CancellationToken::new(),
            snapshots,
            kept: None,
            leased: None,
            down: None,
            released: None,
            given: false,
            given_at_end: false,
            advised: None,
            said: None,
            renewal: Renewal::of(config),
        };
        actor.kept = Some(actor.new_kept());
        Ok(actor)
    }

    /// There is a stream to give back in the end.
    const fn has_stream(&self) -> bool {
        matches!(self.config.server, Server::Platform(_))
    }

    async fn run(mut self) {
        let (telemetry, mut progress) = watch::channel(Telemetry::default());
        let mut tasks: JoinSet<Outcome> = JoinSet::new();
        let mut told = false;
        let mut input = match self.duty() {
            Duty::Off(off) => self.close(off),
            Duty::On(_) => Input::Start,
        };
        loop {
            match self.lifecycle.on(now(), input) {
                Action::Begin => self.begin(&mut tasks, &telemetry),
                Action::Part => self.part(&mut tasks),
                Action::None => {}
            }
            self.show(&telemetry);
            if self.stop.is_cancelled()
                && *self.lifecycle.state() == State::Stopped
                && tasks.is_empty()
                && !self.gives_back(&mut tasks)
            {
                return;
            }
            if !told && let Some(hours) = self.hours(!tasks.is_empty()) {
                input = hours;
                continue;
            }
            self.release_again(&mut tasks);
            let look_again = self.look_again();
            let for_a_person = matches!(
                self.lifecycle.state(),
                State::Waiting {
                    verdict: Verdict::Operator { .. },
                    ..
                }
            );
            input = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !told => {
                    told = true;
                    Input::Stop
                }
                Some(outcome) = tasks.join_next() => self.ended(outcome, &telemetry),
                Ok(()) = progress.changed() => Input::Progress(progress.borrow_and_update().progress.clone()),
                Ok(()) = self.parameters.network.changed() => {
                    self.parameters.network.mark_unchanged();
                    Input::Network
                }
                () = changed(&mut self.leased) => Input::Tick,
                () = renewal::renewed(&mut self.renewal), if for_a_person => {
                    tracing::info!("there is another token; trying it");
                    Input::Start
                }
                () = until(self.lifecycle.next_deadline()) => Input::Tick,
                () = until(look_again) => Input::Tick,
            };
        }
    }

    /// Whether it should be on air now.
    fn duty(&self) -> Duty {
        let now = self.account.wall();
        let zone = &self.config.time_zone;
        let status = self.leased.as_ref().map(|status| status.borrow());
        let (ran, limit) = status.map_or((Duration::ZERO, None), |status| {
            let today = zone.to_datetime(now).date();
            (status.ran_on(today), status.daily_limit)
        });
        account::duty(now, zone, self.config.on_air.as_ref(), ran, limit)
    }

    /// What its hours ask for, if that is not so already.
    fn hours(&mut self, busy: bool) -> Option<Input> {
        match (self.lifecycle.state(), self.duty()) {
            (
                State::Connecting { .. }
                | State::OnAir { .. }
                | State::Stopped
                | State::Waiting { .. },
                Duty::Off(off),
            ) => Some(self.close(off)),
            (State::OffAir(known), Duty::Off(off)) if *known != off => Some(Input::Close(off)),
            (State::OffAir(_), Duty::On(_)) if !busy => {
                tracing::info!("going on air: its time has come");
                self.down = Some((now(), Cause::Schedule));
                Some(Input::Open)
            }
            (
                State::Connecting { .. }
                | State::OffAir(_)
                | State::OnAir { .. }
                | State::Stopped
                | State::Stopping
                | State::Waiting { .. },
                _,
            ) => None,
        }
    }

    fn close(&mut self, off: Off) -> Input {
        tracing::info!("going off the air: {off}");
        self.down = None;
        Input::Close(off)
    }

    /// When to look at the wall clock again: it may be set meanwhile, so no wait for it is long.
    fn look_again(&self) -> Option<Instant> {
        let limited = self
            .leased
            .as_ref()
            .is_some_and(|l| l.borrow().daily_limit.is_some());
        let pending = matches!(self.lifecycle.state(), State::OffAir(_))
            && self.kept.as_ref().is_some_and(is_ours);
        if self.config.on_air.is_none() && !limited && !pending {
            return None;
        }
        let due = match self.duty() {
            Duty::Off(Off { until, .. }) => until.map(|until| until.timestamp()),
            Duty::On(until) => until,
        };
        let left =
            due.and_then(|due| Duration::try_from(due.duration_since(self.account.wall())).ok());
        // Never at once, for the two clocks may differ by a hair.
        let wait = left.map_or(LOOK_AGAIN, |left| left.clamp(LEAST_LOOK, LOOK_AGAIN));
        Some(now() + wait)
    }

    /// A stream that is off the air and could not be stopped goes on costing, so stopping it is tried again.
    fn release_again(&mut self, tasks: &mut JoinSet<Outcome>) {
        let due = self.released.is_none_or(|at| now() >= at + RELEASE_AGAIN);
        if matches!(self.lifecycle.state(), State::OffAir(_))
            && due
            && tasks.is_empty()
            && let Some(kept) = self.kept.take_if(|kept| is_ours(kept))
        {
            self.released = Some(now());
            tasks.spawn(attempt::give_back(kept, Arc::clone(&self.ends)).in_current_span());
        }
    }

    /// A session that ended by itself, or by a panic, while it was told to part may not have heard of it: then its
    /// stream has yet to be given back. False if there is nothing to do.
    fn gives_back(&mut self, tasks: &mut JoinSet<Outcome>) -> bool {
        if self.given || std::mem::replace(&mut self.given_at_end, true) {
            return false;
        }
        let kept = self.kept.take().unwrap_or_else(|| self.new_kept());
        let is_ours = is_ours(&kept);
        if is_ours {
            tasks.spawn(attempt::give_back(kept, Arc::clone(&self.ends)).in_current_span());
        }
        is_ours
    }

    fn part(&mut self, tasks: &mut JoinSet<Outcome>) {
        self.part.cancel();
        if tasks.is_empty() {
            self.released = Some(now());
            let kept = self.kept.take().unwrap_or_else(|| self.new_kept());
            tasks.spawn(attempt::give_back(kept, Arc::clone(&self.ends)).in_current_span());
        }
    }

    fn begin(&mut self, tasks: &mut JoinSet<Outcome>, telemetry: &watch::Sender<Telemetry>) {
        let kept = self.kept.take().unwrap_or_else(|| self.new_kept());
        let dialect = self.snapshots.borrow().dialect;
        let mut parameters = self.parameters.clone();
        let network = self.parameters.network.borrow().to_string();
        let spoken = kept.signaller.as_ref().map_or(dialect, |s| s.dialect());
        parameters.first = self.memory.first(&network, spoken);
        self.part = CancellationToken::new();
        let attempt = Attempt {
            parameters,
            signallers: self.signallers.clone(),
            telemetry: telemetry.clone(),
            part: self.part.clone(),
            ends: Arc::clone(&self.ends),
            dialect,
        };
        // What the last session came to is not how far this one has come, whoever looks first.
        telemetry.send_modify(|t| t.progress = Progress::Signalling);
        self.down.get_or_insert_with(|| (now(), Cause::Start));
        let mut n = 0;
        self.snapshots.send_modify(|s| {
            s.sessions += 1;
            n = s.sessions;
        });
        let span = tracing::info_span!("session", n);
        tasks.spawn(attempt.run(kept).instrument(span));
    }

    /// What the first session begins with, and the one after a panic.
    fn new_kept(&mut self) -> Kept {
        let lease = match &self.config.server {
            Server::Platform(platform) => {
                let name = &self.parameters.name;
                match Lease::new(name, platform, &self.config, &self.account) {
                    Ok(lease) => {
                        self.leased = Some(lease.watch());
                        Some(lease)
                    }
                    Err(error) => {
                        tracing::error!("the platform cannot be asked: {error}");
                        None
                    }
                }
            }
            Server::Ome { .. }
            | Server::Qencode { .. }
            | Server::Whip { .. }
            | Server::Wowza { .. } => None,
        };
        Kept {
            signaller: None,
            server: self.config.server.clone(),
            dialer: None,
            lease,
        }
    }

    fn ended(
        &mut self,
        outcome: Result<Outcome, tokio::task::JoinError>,
        telemetry: &watch::Sender<Telemetry>,
    ) -> Input {
        let (ended, unreached) = match outcome {
            Ok(Outcome {
                kept,
                ended,
                given,
                unreached,
            }) => {
                self.kept = Some(kept);
                self.given = given;
                match ended {
                    Some(ended) => (ended, unreached),
                    None => return Input::Released,
                }
            }
            Err(error) => {
                self.given = false;
                let progress = telemetry.borrow().progress.clone();
                let ended = Ended {
                    reason: EndReason::Panicked(error.to_string()),
                    progress,
                    dialect: self.snapshots.borrow().dialect,
                };
                (ended, false)
            }
        };
        // Nothing has failed, and nobody is needed.
        if let EndReason::Platform(platform::Error::DailyLimit { .. }) = &ended.reason
            && let Duty::Off(off) = self.duty()
        {
            return self.close(off);
        }
        self.memory.learn(&ended, unreached, &telemetry.borrow());
        if unreached {
            self.parameters.unreached = self.parameters.unreached.wrapping_add(1);
        }
        let cause = Cause::of(&ended.reason);
        self.down.get_or_insert_with(|| (now(), cause));
        let sent = telemetry.borrow().frames_sent;
        telemetry.send_modify(|t| t.frames_sent = 0);
        self.snapshots.send_modify(|s| {
            s.frames_sent_before += sent;
            // Whoever looks before the next word must not count them twice.
            s.session.frames_sent = 0;
            s.end_reason = Some(ended.reason.chain());
            s.dialect = ended.dialect;
        });
        Input::Ended(ended)
    }

    /// Publishes the state, and says each wait once.
    fn show(&mut self, telemetry: &watch::Sender<Telemetry>) {
        let state = self.lifecycle.state().clone();
        let reached = match state {
            State::OnAir { since, .. } => self
                .down
                .take()
                .map(|(down, cause)| (since.saturating_duration_since(down), cause)),
            State::Connecting { .. }
            | State::OffAir(_)
            | State::Stopped
            | State::Stopping
            | State::Waiting { .. } => None,
        };
        if let Some((took, _)) = reached {
            (self.advised, self.said) = (None, None);
            tracing::info!("media accepted after {} ms", took.as_millis());
        }
        // A wait that is cut short has been told.
        let told = matches!(self.snapshots.borrow().state, State::Waiting { .. });
        if !told
            && let State::Waiting {
                due,
                cause,
                verdict,
                ..
            } = &state
        {
            let wait_ms = due.saturating_duration_since(now()).as_millis();
            match verdict {
                Verdict::Operator { advice, .. } if self.advised.as_ref() == Some(advice) => {
                    tracing::debug!(cause, wait_ms, "still needs a person");
                }
                Verdict::Operator { advice, .. } => {
                    self.advised = Some(advice.clone());
                    tracing::error!(
                        cause,
                        wait_ms,
                        "needs a person: {advice}; trying on, slowly"
                    );
                }
                Verdict::Backoff | Verdict::RetryEvery(_) | Verdict::RetryNow
                    if self.said.as_ref().is_some_and(|(said, at)| {
                        said == cause && now().saturating_duration_since(*at) < SAID_FOR
                    }) =>
                {
                    tracing::debug!(cause, wait_ms, "session ended likewise");
                }
                Verdict::Backoff | Verdict::RetryEvery(_) | Verdict::RetryNow => {
                    self.said = Some((cause.clone(), now()));
                    tracing::warn!(cause, wait_ms, "session ended, next one follows");
                }
            }
        }
        self.snapshots.send_modify(|s| {
            s.state = state;
            s.session = telemetry.borrow().clone();
            s.dialect = s.session.dialect.unwrap_or(s.dialect);
            if let Some((took, cause)) = reached {
                s.time_to_on_air = Some(took);
                cause::note(&mut s.recoveries, cause, took);
            }
            s.platform = self.leased.as_ref().map(|status| status.borrow().clone());
        });
    }
}

fn is_ours(kept: &Kept) -> bool {
    kept.lease.as_ref().is_some_and(Lease::is_ours)
}

/// Waits until what is known of the stream changes; for ever if there is none.
async fn changed(status: &mut Option<watch::Receiver<account::Status>>) {
    let seen = match status {
        Some(status) => status.changed().await.is_ok(),
        None => false,
    };
    if !seen {
        std::future::pending().await
    }
}

/// Waits until `deadline`; for ever if there is none.
async fn until(deadline: Option<Instant>) {
    match deadline {
        Some(at) => tokio::time::sleep_until(at.into()).await,
        None => std::future::pending().await,
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
