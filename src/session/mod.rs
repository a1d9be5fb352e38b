//! A session: one attempt to be on air at one server, told in order from the socket to the reason it ended.
//!
//! ```text
//! open -> offer/answer -> ICE, DTLS -> media -> accepted -> ... -> EndReason
//! ```
//!
//! Every step has a deadline, nothing is retried here, and every path out of [`run`] closes the peer connection and
//! parts from the server. The session decides nothing about what comes after: that is `publisher::policy`.

mod acceptance;
mod gate;
mod ground;
mod rate;

use std::net::IpAddr;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::config::ice_server::IceServer;
use crate::feed::{FeedHandle, Subscription};
use crate::media::access_unit::Track;
use crate::media::payload_types::PayloadTypes;
use crate::media::time::MediaClock;
use crate::net::Dialer;
use crate::network::{Network, Route};
use crate::peer::{self, Climb, Ladder, Outcome, Peer, Rung};
use crate::signal::{self, Dialect, Opening, Parting, RemoteDescription, Signaller};

use acceptance::Acceptance;
use gate::Gate;
use ground::{Change, Ground};
use rate::Rate;

/// ICE and DTLS of one attempt (protocols.md 1.6).
const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// Grace for a path that ICE calls disconnected, before the session is given up (protocols.md 1.6).
const DISCONNECTED_GRACE: Duration = Duration::from_secs(3);

/// The same in Wowza's older dialect: nothing said or closed frees the name there, only the server's own time-out
/// does, so a session given up early would meet its own ghost.
const HELD_GRACE: Duration = Duration::from_secs(20);

/// A search with no way left to try goes on this long, for the server may name more candidates.
const LATE_CANDIDATES: Duration = Duration::from_secs(2);

/// How long a restart of ICE may take, the exchange and the search together.
const RESTART_TIMEOUT: Duration = Duration::from_secs(15);

/// How often standing conditions are looked at: acceptance, bitrate.
const LOOK_EVERY: Duration = Duration::from_millis(250);

/// What a session needs to know, the same for all sessions of one publisher.
#[derive(Clone)]
pub struct Parameters {
    /// The feed to publish.
    pub feed: FeedHandle,
    /// The process's media clock.
    pub clock: MediaClock,
    /// The publisher's name; becomes `cname` and `msid`.
    pub name: String,
    /// Which transports media may take.
    pub transport: config::Transport,
    /// STUN and TURN servers of ours.
    pub ice_servers: Vec<IceServer>,
    /// How connections are made.
    pub dialer: Dialer,
    /// The network that this host is in, as it changes.
    pub network: watch::Receiver<Network>,
    /// The rung of the ladder to begin with, if one is known to work.
    pub first: Option<Rung>,
    /// Sessions so far in which no media path came up (see [`Signaller::open`]).
    pub unreached: u32,
}

/// How far a session has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// Descriptions are exchanged; ICE and DTLS are under way.
    Connecting,
    /// Media is accepted.
    OnAir {
        /// Since when.
        since: Instant,
        /// False if the server sends no receiver reports and only the transport is known to live.
        confirmed: bool,
    },
    /// Media leaves; no receiver report has come yet.
    Sending,
    /// The socket is opened and the dialect spoken.
    Signalling,
}

/// Why a session ended. A fact; the verdict is the publisher's.
#[derive(Debug, thiserror::Error)]
pub enum EndReason {
    /// The WebRTC engine would not go on.
    #[error("the WebRTC engine failed")]
    Engine(#[source] peer::Error),
    /// The feed was drained under the session.
    #[error("the feed ended")]
    FeedEnded,
    /// The path to the server, once up, was lost.
    #[error("the media path to the server was lost")]
    Lost,
    /// The network changed under the session, which cannot move with it.
    #[error("the network changed: {what}")]
    NetworkChanged {
        /// What of it.
        what: String,
    },
    /// ICE or DTLS never came up.
    #[error("no media path came up{}{}", stage.map(|s| format!(": {s} failed")).unwrap_or_default(), climbed(climbs))]
    NeverConnected {
        /// Where it stuck, as far as the engine knows.
        stage: Option<peer::Stage>,
        /// What became of each way to the server.
        climbs: Vec<Climb>,
    },
    /// Receiver reports come, but show that our media no longer arrives.
    #[error("the server's receiver reports stopped advancing")]
    NotAccepted,
    /// The session's code panicked.
    #[error("the session panicked: {0}")]
    Panicked(String),
    /// The dialect ended it.
    #[error(transparent)]
    Signal(#[from] signal::Error),
    /// We were asked to stop.
    #[error("stopped")]
    Stopped,
}

/// The ways that failed, in words.
fn climbed(climbs: &[Climb]) -> String {
    let said = |climb: &Climb| match climb.outcome {
        Outcome::Chosen | Outcome::Idle => None,
        Outcome::Absent(_) | Outcome::Failed(_) | Outcome::Unanswered => {
            Some(format!("{}: {}", climb.rung, climb.outcome))
        }
    };
    let said: Vec<String> = climbs.iter().filter_map(said).collect();
    if said.is_empty() {
        return String::new();
    }
    format!(" ({})", said.join("; "))
}

impl EndReason {
    /// Whether the server was out of reach, as opposed to unwilling.
    pub const fn is_unreachable(&self) -> bool {
        matches!(
            self,
            Self::Lost
                | Self::NetworkChanged { .. }
                | Self::NeverConnected { .. }
                | Self::Signal(signal::Error::Connect(_) | signal::Error::Timeout { .. })
        )
    }

    /// The reason and its causes in one line; a cause that an error quotes itself is not said twice.
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            let words = error.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = error.source();
        }
        text
    }
}

/// The end of a session: why, and how far it had come.
#[derive(Debug)]
pub struct Ended {
    /// Why.
    pub reason: EndReason,
    /// The furthest point.
    pub progress: Progress,
    /// The dialect that was spoken.
    pub dialect: Dialect,
}

/// What a session tells while it runs.
#[derive(Clone, Debug)]
pub struct Telemetry {
    /// How far it has come.
    pub progress: Progress,
    /// The dialect that the server took; `None` until it has.
    pub dialect: Option<Dialect>,
    /// The engine's counters, once there is a peer connection.
    pub peer: Option<peer::Counters>,
    /// What became of each way to the server, so far.
    pub climbs: Vec<Climb>,
    /// Access units handed to the peer.
    pub frames_sent: u64,
}

impl Default for Telemetry {
    fn default() -> Self {
        Self {
            progress: Progress::Signalling,
            dialect: None,
            peer: None,
            climbs: Vec::new(),
            frames_sent: 0,
        }
    }
}

/// Runs one session to its end. `stop` asks it to part from the server in the dialect's own way.
///
/// Bounded in every step; after `stop` it returns within about four seconds.
pub async fn run(
    parameters: &Parameters,
    signaller: &mut dyn Signaller,
    telemetry: &watch::Sender<Telemetry>,
    stop: &CancellationToken,
) -> Ended {
    telemetry.send_replace(Telemetry::default());
    let reason = match attempt(parameters, signaller, telemetry, stop).await {
        Ok(never) => match never {},
        Err(reason) => reason,
    };
    let parting = if matches!(reason, EndReason::Stopped) {
        Parting::Stop
    } else {
        Parting::Abandon
    };
    signaller.close(parting).await;
    let progress = telemetry.borrow().progress.clone();
    Ended {
        reason,
        progress,
        dialect: signaller.dialect(),
    }
}

/// The peer connection is closed before the socket: the order of the official clients, which frees the name.
async fn attempt(
    parameters: &Parameters,
    signaller: &mut dyn Signaller,
    telemetry: &watch::Sender<Telemetry>,
    stop: &CancellationToken,
) -> Result<std::convert::Infallible, EndReason> {
    let opening = until_stopped(stop, signaller.open(parameters.unreached)).await??;
    let payload_types = match &opening {
        Opening::SendOffer => PayloadTypes::OFFERED,
        Opening::Offered(offer) => offer.payload_types,
    };
    let mut ice_servers = parameters.ice_servers.clone();
    if let Opening::Offered(offer) = &opening {
        ice_servers.extend(offer.ice_servers.iter().cloned());
    }
    // Changes from here on concern this session.
    let mut network = parameters.network.clone();
    network.mark_unchanged();
    let config = peer::Config {
        clock: parameters.clock,
        tracks: parameters.feed.tracks(),
        payload_types,
        name: parameters.name.clone(),
        ladder: Ladder {
            transport: parameters.transport,
            first: parameters.first,
        },
        ice_servers,
        dialer: parameters.dialer.clone(),
        // OvenMediaEngine may lose audio for minutes if packets are lost around a sequence wrap: start low.
        first_sequence: 1,
        limits: peer::Limits::default(),
    };
    let (mut peer, mut events) = Peer::new(config).await.map_err(EndReason::Engine)?;
    let result = async {
        negotiate(&peer, signaller, opening, stop).await?;
        telemetry.send_modify(|t| {
            t.progress = Progress::Connecting;
            t.dialect = Some(signaller.dialect());
        });
        let unreached = parameters.unreached;
        connect(&mut events, &peer, signaller, &mut network, unreached, stop).await?;
        let mut live = Live::new(parameters, telemetry, network, signaller.dialect());
        let ended = live.run(&mut peer, &mut events, signaller, stop).await;
        telemetry.send_modify(|t| t.frames_sent = live.frames_sent);
        ended
    }
    .await;
    // An old path often still carries the word that frees the name.
    let goodbye = matches!(
        result,
        Err(EndReason::Stopped | EndReason::NetworkChanged { .. })
    );
    telemetry.send_modify(|t| {
        t.peer = Some(peer.counters());
        t.climbs = peer.climbs();
    });
    peer.close(goodbye).await;
    result
}

async fn negotiate(
    peer: &Peer,
    signaller: &mut dyn Signaller,
    opening: Opening,
    stop: &CancellationToken,
) -> Result<(), EndReason> {
    let remote: RemoteDescription = match opening {
        Opening::SendOffer => {
            let offer = peer.offer().await.map_err(EndReason::Engine)?;
            note("our offer", &offer);
            let answer = until_stopped(stop, signaller.exchange(&offer)).await??;
            let Some(answer) = answer else {
                let why = "the dialect let us offer and returned no answer".to_owned();
                return Err(EndReason::Engine(peer::Error::Description { why }));
            };
            note("the server's answer", &answer.sdp);
            peer.add_ice_servers(&answer.ice_servers);
            peer.accept(&answer.sdp).await.map_err(EndReason::Engine)?;
            answer
        }
        Opening::Offered(offer) => {
            note("the server's offer", &offer.sdp);
            let answer = peer.answer(&offer.sdp).await.map_err(EndReason::Engine)?;
            note("our answer", &answer);
            until_stopped(stop, signaller.exchange(&answer)).await??;
            offer
        }
    };
    add_candidates(peer, &remote.candidates).await
}

/// Says a description, without what is secret in it, to the log and to the flight recorder.
fn note(whose: &str, sdp: &str) {
    let sdp = signal::sdp::discreet(sdp);
    tracing::debug!(target: "onair::sdp", whose, sdp, "description");
}

async fn add_candidates(peer: &Peer, candidates: &[String]) -> Result<(), EndReason> {
    peer.add_candidates(candidates)
        .await
        .map_err(EndReason::Engine)
}

/// Waits for ICE and DTLS, bounded by [`CONNECT_TIMEOUT`]; less if there is no way left to try, or if the server might
/// be asked for others.
async fn connect(
    events: &mut mpsc::Receiver<peer::Event>,
    peer: &Peer,
    signaller: &mut dyn Signaller,
    network: &mut watch::Receiver<Network>,
    unreached: u32,
    stop: &CancellationToken,
) -> Result<(), EndReason> {
    let never = |stage| EndReason::NeverConnected {
        stage,
        climbs: peer.climbs(),
    };
    let longest = if signaller.asks_otherwise() {
        // Longer each time: on a network this slow no way at all might be found otherwise.
        (CONNECT_TIMEOUT / 4 * unreached.saturating_add(1).min(4)).min(CONNECT_TIMEOUT)
    } else {
        CONNECT_TIMEOUT
    };
    let deadline = tokio::time::sleep(CONNECT_TIMEOUT);
    tokio::pin!(deadline);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let started = tokio::time::Instant::now();
    let before = network.borrow().clone();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return Err(EndReason::Stopped),
            () = &mut deadline => return Err(never(None)),
            Ok(()) = network.changed() => {
                let after = network.borrow_and_update().clone();
                // What came with it, the search began without; what went, it may depend on.
                let kept = |was: &Option<Route>, is: &Option<Route>| was.is_none() || was == is;
                let same_ways = kept(&before.route_v4, &after.route_v4)
                    && kept(&before.route_v6, &after.route_v6);
                if !same_ways || !after.addresses.is_superset(&before.addresses) {
                    let what = "while a path was searched".to_owned();
                    return Err(EndReason::NetworkChanged { what });
                }
            }
            event = events.recv() => match event {
                Some(peer::Event::Connected(pair)) => {
                    let before: Vec<Climb> = (peer.climbs().into_iter())
                        .filter(|climb| climb.rung < pair.rung)
                        .collect();
                    tracing::info!(%pair, "media path is up{}", climbed(&before));
                    return Ok(());
                }
                Some(peer::Event::Candidates { lines, last }) => {
                    signaller.trickle(&lines, last).await?;
                }
                Some(peer::Event::Failed(stage)) => return Err(never(Some(stage))),
                Some(peer::Event::Closed) | None => return Err(never(None)),
                Some(
                    peer::Event::Disconnected
                    | peer::Event::KeyFrameRequested
                    | peer::Event::ReceiverReport(_)
                    | peer::Event::Remb(_),
                ) => {}
            },
            event = signaller.next() => match event? {
                signal::Event::Candidates(candidates) => add_candidates(peer, &candidates).await?,
            },
            _ = look.tick() => {
                // Candidates may still come, but not much later than the description.
                let searched = started.elapsed();
                let climbs = peer.climbs();
                let hopeless = |climb: &Climb| {
                    matches!(climb.outcome, Outcome::Absent(_) | Outcome::Failed(_))
                };
                let found = |climb: &Climb| climb.outcome == Outcome::Chosen;
                let hopeless = searched >= LATE_CANDIDATES
                    && !climbs.is_empty()
                    && climbs.iter().all(hopeless);
                let late = searched >= longest && !climbs.iter().any(found);
                if hopeless || late {
                    return Err(EndReason::NeverConnected { stage: None, climbs });
                }
            }
        }
    }
}

/// Waits for `work`, unless the session is told to stop first.
async fn until_stopped<T>(
    stop: &CancellationToken,
    work: impl Future<Output = T>,
) -> Result<T, EndReason> {
    tokio::select! {
        biased;
        () = stop.cancelled() => Err(EndReason::Stopped),
        done = work => Ok(done),
    }
}

/// Whether the search under way has found a path.
fn is_found(peer: &Peer) -> bool {
    peer.climbs()
        .iter()
        .any(|climb| climb.outcome == Outcome::Chosen)
}

/// Whether the path to the server still stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Path {
    Kept,
    Lost,
}

/// The session while media flows.
struct Live<'a> {
    subscription: Subscription,
    telemetry: &'a watch::Sender<Telemetry>,
    gate: Gate,
    rate: Option<Rate>,
    acceptance: acceptance::Watch,
    progress: Progress,
    frames_sent: u64,
    disconnected_at: Option<Instant>,
    /// When a restart of ICE that is under way counts as failed.
    restart_ends: Option<Instant>,
    /// The path takes nothing any more; what is meant for it is dropped until there is another.
    stalled: bool,
    /// How long a path may be disconnected before it counts as lost.
    grace: Duration,
    network: watch::Receiver<Network>,
    ground: Ground,
}

impl<'a> Live<'a> {
    fn new(
        parameters: &Parameters,
        telemetry: &'a watch::Sender<Telemetry>,
        network: watch::Receiver<Network>,
        dialect: Dialect,
    ) -> Self {
        let grace = match dialect {
            Dialect::WowzaV1 => HELD_GRACE,
            Dialect::Ome | Dialect::Whip | Dialect::WowzaV2 => DISCONNECTED_GRACE,
        };
        let ground = Ground::new(network.borrow().clone());
        let tracks = parameters.feed.tracks();
        let subscription = parameters.feed.subscribe();
        subscription.request_key_frame();
        telemetry.send_modify(|t| t.progress = Progress::Sending);
        Self {
            subscription,
            telemetry,
            gate: Gate::new(tracks.video.is_some(), tracks.audio.is_some()),
            rate: tracks.video.map(|video| Rate::new(video.max_bitrate)),
            acceptance: acceptance::Watch::new(now()),
            progress: Progress::Sending,
            frames_sent: 0,
            disconnected_at: None,
            restart_ends: None,
            stalled: false,
            grace,
            network,
            ground,
        }
    }

    async fn run(
        &mut self,
        peer: &mut Peer,
        events: &mut mpsc::Receiver<peer::Event>,
        signaller: &mut dyn Signaller,
        stop: &CancellationToken,
    ) -> Result<std::convert::Infallible, EndReason> {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        loop {
            // Biased: control before media, so that a flood of frames can never starve a stop or an error.
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(EndReason::Stopped),
                event = events.recv() => match event {
                    Some(peer::Event::Candidates { lines, last }) => {
                        signaller.trickle(&lines, last).await?;
                    }
                    // Of the old path, which came back while the server was asked.
                    Some(peer::Event::Connected(_)) if self.restart_ends.is_some() && !is_found(peer) => {}
                    event => if self.on_event(event)? == Path::Lost {
                        self.move_on(peer, signaller, stop, EndReason::Lost).await?;
                    },
                },
                Ok(()) = self.network.changed() => {
                    let network = self.network.borrow_and_update().clone();
                    let local = peer.counters().pair.map(|pair| (pair.rung, pair.local.ip()));
                    if let Some(reason) = local.and_then(|local| self.moved(network, local)) {
                        self.move_on(peer, signaller, stop, reason).await?;
                    }
                }
                event = signaller.next() => match event? {
                    signal::Event::Candidates(candidates) => add_candidates(peer, &candidates).await?,
                },
                _ = look.tick() => if self.look(peer)? == Path::Lost {
                    self.move_on(peer, signaller, stop, EndReason::Lost).await?;
                },
                unit = self.subscription.next() => {
                    let unit = unit.ok_or(EndReason::FeedEnded)?;
                    if self.stalled {
                        continue;
                    }
                    let passed = self.gate.pass(unit);
                    if passed.wants_key_frame {
                        self.subscription.request_key_frame();
                    }
                    for unit in passed.units {
                        self.frames_sent += u64::from(unit.track == Track::Video);
                        match peer.send(&unit).await {
                            // A TCP connection that takes nothing any more: the path is lost, and it is known here first.
                            Err(peer::Error::Stalled) if self.ground.is_stranded() => self.stalled = true,
                            Err(peer::Error::Stalled) => {
                                self.stalled = true;
                                self.move_on(peer, signaller, stop, EndReason::Lost).await?;
                            }
                            sent => sent.map_err(EndReason::Engine)?,
                        }
                    }
                }
            }
        }
    }

    /// What the change to `network` means for a path on a rung that ends with us at an address: why it must be left,
    /// if so.
    fn moved(&mut self, network: Network, (rung, local): (Rung, IpAddr)) -> Option<EndReason> {
        match self.ground.change(network, rung, local) {
            Change::Back => {
                tracing::info!("the network is back as it was");
                // The server gets the usual grace from here on.
                self.disconnected_at = self.disconnected_at.map(|_| now());
                self.stalled.then_some(EndReason::Lost)
            }
            Change::Left(what) => {
                tracing::info!(what, "the network changed under the session");
                Some(EndReason::NetworkChanged { what })
            }
            Change::None => None,
            Change::Stranded => {
                tracing::warn!("there is no way out of this host; holding still until there is");
                None
            }
        }
    }

    /// The path is lost for `reason`: ICE is restarted in place where the dialect can, or else the session ends.
    async fn move_on(
        &mut self,
        peer: &Peer,
        signaller: &mut dyn Signaller,
        stop: &CancellationToken,
        reason: EndReason,
    ) -> Result<(), EndReason> {
        // One restart at a time; one that leads nowhere is the end.
        if self.restart_ends.is_some() || !signaller.can_restart() {
            return Err(reason);
        }
        let Ok(offer) = peer.restart().await else {
            return Err(reason);
        };
        tracing::info!(cause = %reason, "restarting ICE");
        note("our offer, to restart", &offer);
        self.restart_ends = Some(now() + RESTART_TIMEOUT);
        self.disconnected_at = None;
        let answer = match until_stopped(stop, signaller.restart(&offer)).await? {
            Ok(answer) => answer,
            Err(error) => {
                tracing::warn!(%error, "the server does not restart ICE");
                return Err(reason);
            }
        };
        note("the server's answer, to restart", &answer.sdp);
        peer.accept(&answer.sdp).await.map_err(EndReason::Engine)?;
        add_candidates(peer, &answer.candidates).await
    }

    fn on_event(&mut self, event: Option<peer::Event>) -> Result<Path, EndReason> {
        match event {
            Some(peer::Event::Connected(pair)) => {
                if self.restart_ends.take().is_some() {
                    tracing::info!(%pair, "ICE is restarted");
                    self.subscription.request_key_frame();
                }
                self.disconnected_at = None;
                self.stalled = false;
            }
            // The restart has its own deadline.
            Some(peer::Event::Disconnected) if self.restart_ends.is_some() => {}
            Some(peer::Event::Disconnected) => self.disconnected_at = Some(now()),
            Some(peer::Event::Failed(peer::Stage::Ice)) if self.restart_ends.is_some() => {}
            Some(peer::Event::Failed(peer::Stage::Ice)) => return Ok(Path::Lost),
            Some(peer::Event::Failed(_) | peer::Event::Closed) | None => {
                return Err(EndReason::Lost);
            }
            // The caller's.
            Some(peer::Event::Candidates { .. }) => {}
            Some(peer::Event::KeyFrameRequested) => self.subscription.request_key_frame(),
            Some(peer::Event::ReceiverReport(report)) => {
                self.acceptance
                    .report(now(), report.track, report.highest_sequence);
                if let (Track::Video, Some(rate), Some(loss)) =
                    (report.track, &mut self.rate, report.fraction_lost)
                {
                    rate.loss(now(), f64::from(loss));
                }
                self.judge()?;
            }
            Some(peer::Event::Remb(bitrate)) => {
                if let Some(rate) = &mut self.rate {
                    rate.remb(now(), bitrate);
                }
            }
        }
        Ok(Path::Kept)
    }

    /// Looks at what no event announces.
    fn look(&mut self, peer: &Peer) -> Result<Path, EndReason> {
        if self.restart_ends.is_some_and(|at| now() >= at) {
            return Err(EndReason::Lost);
        }
        if self
            .disconnected_at
            .is_some_and(|at| now().saturating_duration_since(at) >= self.grace)
            && !self.ground.is_stranded()
        {
            self.disconnected_at = None;
            return Ok(Path::Lost);
        }
        if let Some(rate) = &self.rate {
            self.subscription.set_bitrate(rate.target(now()));
        }
        self.telemetry.send_modify(|t| {
            t.peer = Some(peer.counters());
            t.climbs = peer.climbs();
            t.frames_sent = self.frames_sent;
        });
        self.judge()?;
        Ok(Path::Kept)
    }

    fn judge(&mut self) -> Result<(), EndReason> {
        let confirmed = match self.acceptance.acceptance(now()) {
            Acceptance::Confirmed => true,
            Acceptance::Unconfirmed => false,
            Acceptance::Pending => return Ok(()),
            Acceptance::Stuck => return Err(EndReason::NotAccepted),
        };
        let since = match self.progress {
            Progress::OnAir {
                confirmed: same, ..
            } if same == confirmed => return Ok(()),
            Progress::OnAir { since, .. } => since,
            Progress::Connecting | Progress::Sending | Progress::Signalling => now(),
        };
        if confirmed {
            tracing::info!("on air: the server's receiver reports advance");
        } else {
            tracing::warn!(
                "on air, unconfirmed: the server sends no receiver reports, only its transport is alive"
            );
        }
        self.progress = Progress::OnAir { since, confirmed };
        self.telemetry
            .send_modify(|t| t.progress = self.progress.clone());
        Ok(())
    }
}

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}
