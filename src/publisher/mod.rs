//! The publisher keeps one feed on air at one server, for ever. It owns all retrying towards that server.
//!
//! It is an actor around three pure parts: `lifecycle` (where we stand), `policy` (what follows from a failure)
//! and `backoff`. One session runs at a time, in a task of its own, so that a panic in it is a fact like any other.

mod backoff;
mod lifecycle;
mod memory;
mod policy;

use std::time::{Duration, Instant};

use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::Instrument as _;

use crate::config::secret::SecretSource;
use crate::config::{self, Server, Transport, WowzaDialect};
use crate::feed::FeedHandle;
use crate::media::time::MediaClock;
use crate::net::{self, Dialer};
use crate::session::{self, EndReason, Ended, Telemetry};
use crate::signal::ome::Ome;
use crate::signal::whip::{Picture, Reread, Token, Whip};
use crate::signal::wowza::Wowza;
use crate::signal::wowza_v1::WowzaV1;
use crate::signal::wowza_v2::WowzaV2;
use crate::signal::{Dialect, Parting, Signaller};

use crate::network::Network;
pub use lifecycle::State;

use lifecycle::{Action, Input, Lifecycle};
use memory::Memory;
pub use policy::Verdict;

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
}

impl Snapshot {
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
    snapshots: watch::Receiver<Snapshot>,
    task: JoinHandle<()>,
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
        seed: u64,
    ) -> Result<Self, net::Error> {
        let dialer = Dialer::new(config.server.url(), &config.trust, &config.proxy)?;
        let dialect = match &config.server {
            Server::Ome { .. } | Server::Qencode { .. } => Dialect::Ome,
            Server::Whip { .. } => Dialect::Whip,
            Server::Wowza { dialect, .. } => match dialect {
                WowzaDialect::Auto | WowzaDialect::V1 => Dialect::WowzaV1,
                WowzaDialect::V2 => Dialect::WowzaV2,
            },
        };
        let (snapshots, receiver) = watch::channel(Snapshot {
            state: State::Stopped,
            dialect,
            session: Telemetry::default(),
            sessions: 0,
            time_to_on_air: None,
            frames_sent_before: 0,
            end_reason: None,
        });
        let stop = CancellationToken::new();
        let actor = Actor {
            parameters: session::Parameters {
                feed,
                clock,
                name: name.to_owned(),
                transport: config.transport,
                ice_servers: config.ice_servers.clone(),
                dialer: dialer.clone(),
                network,
                first: None,
                unreached: 0,
            },
            server: config.server.clone(),
            dialer,
            lifecycle: Lifecycle::new(fastrand::Rng::with_seed(seed)),
            memory: Memory::default(),
            stop: stop.clone(),
            snapshots,
            signaller: None,
            down_since: None,
        };
        let span = tracing::info_span!("publisher", id = name);
        let task = tokio::spawn(actor.run().instrument(span));
        Ok(Self {
            stop,
            snapshots: receiver,
            task,
        })
    }

    /// The publisher's state, now and as it changes.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.snapshots.clone()
    }

    /// Parts from the server and ends. Bounded by `deadline`; what is not done by then is aborted.
    pub async fn drain(mut self, deadline: Duration) {
        self.stop.cancel();
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
    parameters: session::Parameters,
    server: Server,
    dialer: Dialer,
    lifecycle: Lifecycle,
    memory: Memory,
    stop: CancellationToken,
    snapshots: watch::Sender<Snapshot>,
    /// Between sessions; the running session has it otherwise. It lives on, for a dialect may have to keep a
    /// refused socket (see `signal::ome`).
    signaller: Option<Box<dyn Signaller>>,
    down_since: Option<Instant>,
}

type Outcome = (Box<dyn Signaller>, Ended);

impl Actor {
    async fn run(mut self) {
        let (telemetry, mut progress) = watch::channel(Telemetry::default());
        let mut sessions: JoinSet<Outcome> = JoinSet::new();
        let part = CancellationToken::new();
        let mut input = Input::Start;
        loop {
            match self.lifecycle.on(now(), input) {
                Action::Begin => self.begin(&mut sessions, &telemetry, &part),
                Action::Part => {
                    part.cancel();
                    // It may know of a session that it could not end.
                    if let Some(idle) = &mut self.signaller {
                        idle.close(Parting::Stop).await;
                    }
                }
                Action::None => {}
            }
            self.show(&telemetry);
            if self.stop.is_cancelled() && *self.lifecycle.state() == State::Stopped {
                return;
            }
            let stopping = matches!(self.lifecycle.state(), State::Stopped | State::Stopping);
            input = tokio::select! {
                biased;
                () = self.stop.cancelled(), if !stopping => Input::Stop,
                Some(outcome) = sessions.join_next() => self.ended(outcome, &telemetry),
                Ok(()) = progress.changed() => Input::Progress(progress.borrow_and_update().progress.clone()),
                Ok(()) = self.parameters.network.changed() => {
                    self.parameters.network.mark_unchanged();
                    Input::Network
                }
                () = until(self.lifecycle.next_deadline()) => Input::Tick,
            };
        }
    }

    fn begin(
        &mut self,
        sessions: &mut JoinSet<Outcome>,
        telemetry: &watch::Sender<Telemetry>,
        part: &CancellationToken,
    ) {
        let mut signaller = self
            .signaller
            .take()
            .unwrap_or_else(|| self.new_signaller());
        let mut parameters = self.parameters.clone();
        let network = self.parameters.network.borrow().to_string();
        parameters.first = self.memory.first(&network, signaller.dialect());
        let (telemetry, part) = (telemetry.clone(), part.clone());
        self.down_since.get_or_insert_with(now);
        let mut n = 0;
        self.snapshots.send_modify(|s| {
            s.sessions += 1;
            n = s.sessions;
        });
        let span = tracing::info_span!("session", n);
        let work = async move {
            let ended = session::run(&parameters, signaller.as_mut(), &telemetry, &part).await;
            (signaller, ended)
        };
        sessions.spawn(work.instrument(span));
    }

    fn ended(
        &mut self,
        outcome: Result<Outcome, tokio::task::JoinError>,
        telemetry: &watch::Sender<Telemetry>,
    ) -> Input {
        let ended = match outcome {
            Ok((signaller, ended)) => {
                self.signaller = Some(signaller);
                ended
            }
            Err(error) => {
                let progress = telemetry.borrow().progress.clone();
                Ended {
                    reason: EndReason::Panicked(error.to_string()),
                    progress,
                    dialect: self.snapshots.borrow().dialect,
                }
            }
        };
        self.memory.learn(&ended, &telemetry.borrow());
        if matches!(ended.reason, EndReason::NeverConnected { .. }) {
            self.parameters.unreached = self.parameters.unreached.wrapping_add(1);
        }
        self.down_since.get_or_insert_with(now);
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
                .down_since
                .take()
                .map(|down| since.saturating_duration_since(down)),
            State::Connecting { .. } | State::Stopped | State::Stopping | State::Waiting { .. } => {
                None
            }
        };
        if let Some(took) = reached {
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
                Verdict::Operator { advice, .. } => {
                    tracing::error!(
                        cause,
                        wait_ms,
                        "needs a person: {advice}; trying on, slowly"
                    );
                }
                Verdict::Backoff | Verdict::RetryEvery(_) | Verdict::RetryNow => {
                    tracing::warn!(cause, wait_ms, "session ended, next one follows");
                }
            }
        }
        self.snapshots.send_modify(|s| {
            s.state = state;
            s.session = telemetry.borrow().clone();
            s.dialect = s.session.dialect.unwrap_or(s.dialect);
            s.time_to_on_air = reached.or(s.time_to_on_air);
        });
    }

    fn new_signaller(&self) -> Box<dyn Signaller> {
        let dialer = self.dialer.clone();
        match &self.server {
            Server::Ome { url } => {
                let asks: &[_] = match self.parameters.transport {
                    Transport::Auto => &["all", "tcp"],
                    Transport::Relay => &["relay", "tcp"],
                    Transport::Tcp => &["tcp", "relay"],
                    Transport::Udp => &["udp"],
                };
                Box::new(Ome::new(url, asks, dialer))
            }
            Server::Qencode { url } => {
                let asks: &[_] = match self.parameters.transport {
                    // Qencode's own kit adds `tcp` to every URL (protocols.md 6.1).
                    Transport::Auto => &["tcp", "all", "relay"],
                    Transport::Relay => &["relay", "tcp"],
                    Transport::Tcp => &["tcp", "relay"],
                    Transport::Udp => &["udp"],
                };
                Box::new(Ome::new(url, asks, dialer))
            }
            Server::Whip {
                url,
                bearer,
                trickle,
            } => {
                let token = bearer.as_ref().map(|bearer| Token {
                    value: bearer.token.clone(),
                    reread: bearer.source.clone().map(reread),
                });
                let video = self.parameters.feed.tracks().video;
                let picture = video.map(|video| Picture {
                    size: video.size,
                    fps: video.fps,
                });
                Box::new(Whip::new(url, token, *trickle, picture, dialer))
            }
            Server::Wowza {
                url,
                application,
                stream,
                dialect,
            } => match dialect {
                WowzaDialect::Auto => Box::new(Wowza::new(url, application, stream, dialer)),
                WowzaDialect::V1 => Box::new(WowzaV1::new(url, application, stream, dialer)),
                WowzaDialect::V2 => Box::new(WowzaV2::new(url, application, stream, dialer)),
            },
        }
    }
}

/// Reads a token again where the configuration found it.
fn reread(source: SecretSource) -> Reread {
    Box::new(move || match config::load::reread(&source) {
        Ok(token) => Some(token),
        Err(why) => {
            tracing::warn!("the bearer token cannot be read again: {why}");
            None
        }
    })
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
