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
mod live;
mod outage;
mod rate;
mod talk;

use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::config;
use crate::config::ice_server::IceServer;
use crate::feed::FeedHandle;
use crate::media::payload_types::PayloadTypes;
use crate::media::time::MediaClock;
use crate::net::Dialer;
use crate::network::{Network, Route};
use crate::peer::{self, Climb, Ladder, Outcome, Peer, Rung};
use crate::platform;
use crate::signal::{self, Dialect, Opening, Parting, RemoteDescription, Signaller};

use live::Live;
use talk::{Heard, Talk};

/// The search for a path of one attempt. With [`HANDSHAKE_TIMEOUT`] the time that the vendors' pages give both
/// (protocols.md 1.6).
const SEARCH_TIMEOUT: Duration = Duration::from_secs(15);

/// The same where only the server's own time-out frees a name: the next attempt would meet the ghost of this one, and a
/// path that comes meanwhile would find nobody who uses it.
const HELD_SEARCH_TIMEOUT: Duration = Duration::from_secs(20);

/// What the search leaves for DTLS at least.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// A search with no way left to try goes on this long, for the server may name more candidates.
const LATE_CANDIDATES: Duration = Duration::from_secs(2);

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
    /// The platform did not make the stream ready, so that no session began, or none that got far.
    #[error(transparent)]
    Platform(#[from] platform::Error),
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
                | Self::Platform(platform::Error::Connect { .. })
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
    /// What the network is called in which the path was found, or is searched.
    pub network: String,
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
            network: String::new(),
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
    // Parted, it may be about to speak another.
    let dialect = signaller.dialect();
    signaller.close(parting).await;
    let progress = telemetry.borrow().progress.clone();
    Ended {
        reason,
        progress,
        dialect,
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
    // Sockets are bound from here on, so changes from here on concern this session.
    let mut network = parameters.network.clone();
    let stood_in = network.borrow_and_update().clone();
    telemetry.send_modify(|t| t.network = stood_in.to_string());
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
        limits: peer::Limits {
            // How long silence is borne is decided here: the engine would forget the path for good.
            failed: Duration::ZERO,
            send: parameters.feed.budget().send,
            ..peer::Limits::default()
        },
    };
    let (mut peer, mut events) = Peer::new(config).await.map_err(EndReason::Engine)?;
    let result = async {
        negotiate(&peer, signaller, opening, stop).await?;
        let dialect = signaller.dialect();
        telemetry.send_modify(|t| {
            t.progress = Progress::Connecting;
            t.dialect = Some(dialect);
        });
        let longest = if signaller.asks_otherwise() {
            // Longer each time: on a network this slow no way at all might be found otherwise.
            SEARCH_TIMEOUT / 3 * parameters.unreached.saturating_add(1).min(3)
        } else if dialect.frees_names() {
            SEARCH_TIMEOUT
        } else {
            HELD_SEARCH_TIMEOUT
        };
        let mut talk = Talk::new(signaller);
        let searching = (&mut network, &stood_in);
        connect(&mut events, &peer, &mut talk, searching, longest, stop).await?;
        let mut live = Live::new(parameters, telemetry, (network, stood_in), dialect);
        let ended = live.run(&mut peer, &mut events, &mut talk, stop).await;
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

/// Waits for ICE, for `longest` at most and less if there is no way left to try, and then for DTLS. The network is followed from what it was `before`, when the sockets were bound.
async fn connect(
    events: &mut mpsc::Receiver<peer::Event>,
    peer: &Peer,
    talk: &mut Talk<'_>,
    (network, before): (&mut watch::Receiver<Network>, &Network),
    longest: Duration,
    stop: &CancellationToken,
) -> Result<(), EndReason> {
    let never = |stage| EndReason::NeverConnected {
        stage,
        climbs: peer.climbs(),
    };
    let deadline = tokio::time::sleep(longest.max(SEARCH_TIMEOUT) + HANDSHAKE_TIMEOUT);
    tokio::pin!(deadline);
    let mut look = tokio::time::interval(LOOK_EVERY);
    let started = tokio::time::Instant::now();
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
                Some(peer::Event::Candidates { lines, last }) => talk.trickle(lines, last),
                Some(peer::Event::Failed(stage)) => return Err(never(Some(stage))),
                Some(peer::Event::Closed) | None => return Err(never(None)),
                Some(
                    peer::Event::Disconnected
                    | peer::Event::KeyFrameRequested
                    | peer::Event::ReceiverReport(_)
                    | peer::Event::Remb(_),
                ) => {}
            },
            heard = talk.next() => match heard? {
                Heard::Candidates(candidates) => add_candidates(peer, &candidates).await?,
                // None was asked for.
                Heard::Restarted(_) => {}
            },
            _ = look.tick() => {
                // Candidates may still come, but not much later than the description.
                let searched = started.elapsed();
                let climbs = peer.climbs();
                let hopeless = |climb: &Climb| {
                    matches!(climb.outcome, Outcome::Absent(_) | Outcome::Failed(_))
                };
                // A path that was found and led nowhere has an end of its own, which is on its way.
                let searching = !peer.has_found_path();
                let hopeless = searching
                    && searched >= LATE_CANDIDATES
                    && !climbs.is_empty()
                    && climbs.iter().all(hopeless);
                if hopeless {
                    return Err(never(None));
                }
                if searching && searched >= longest {
                    return Err(never(Some(peer::Stage::Ice)));
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

fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

#[cfg(test)]
mod tests;
