//! One WebRTC connection to a server: descriptions, candidates, media out, feedback in. The only importer of the
//! engine (`webrtc`, and its sans-IO core `rtc`).
//!
//! A [`Peer`] serves one attempt and is then closed; it never retries. Media enters as access units and leaves as
//! RTP whose timestamps are an exact function of capture time; what the server says comes out as [`Event`]s.
//!
//! ```text
//! send ─▶ packetizer ─▶ engine's task ─▶ interceptor ─▶ SRTP ─▶ wires ─▶ datagrams, stream, relay ─▶ server
//!                          ▲                │ reports, repairs      │               └─▶ TURN server ─┘
//! Event ◀── watch ◀── states, sightings     ▼                       │ race
//! Event ◀──────────────────────────── feedback ◀──── SRTCP ◀────────┘
//! ```
//!
//! # What is ours and what is the engine's
//!
//! The engine does ICE, DTLS, SRTP and the state of the negotiation. Ours are: the text of the descriptions (`sdp`),
//! the reading of candidates (`candidate`), RTP (`packetizer`), its way into the engine (`burst`), sender reports
//! (`reports`: the engine pairs the instant of sending with the timestamp of the capture, ours pair the capture clock),
//! answers to NACKs (`retransmit`: the engine answers storms), RTCP (`feedback`: the engine's figures stay zero),
//! sockets and tasks (`wires`), TURN (`turn`, `relay`: the engine's speaks UDP alone), which way is tried when and
//! which wins (`ladder`, `race`: the engine checks all at once), and the ends that the engine does not tell (`watch`).
//!
//! # Relays
//!
//! To the engine a relay is one more UDP socket of the host, bound to an address of loopback that stands for its kind of
//! TURN server. What it sends there leaves through an allocation; before there is one, and before the rung's turn, it
//! is lost. So ICE needs to know nothing of TURN, and a server that invents its relayed address is as good as any.
//! Relays reach IPv4 addresses over UDP alone.
//!
//! # The gate on the engine
//!
//! Decision: `webrtc` 0.21.1 stays, with its tasks and sockets owned here. A connection of that release that is
//! dropped without `close` runs on for ever, with its sockets; so every task is spawned through `wires`, under a
//! token that is cancelled when the [`Peer`] goes, and what the task owned (sockets, the core, the callbacks) goes
//! with it. No cycle of references keeps anything alive (webrtc-rs issue 906 is mended in this release).
//!
//! `tests/leak.rs` holds it so. 200 connections in each of sixteen ways, four at once, against str0m in the same
//! process, one thread; growth of anonymous memory for each connection after a warm-up; tasks 0, threads and
//! descriptors unchanged after each way (the times are no benchmark, the machine was busy):
//!
//! | way it ends | KiB each | ms each |
//! |---|---|---|
//! | we offer, UDP, media, farewell | 0.00 | 33 |
//! | we offer, ICE-TCP, media, farewell | 0.06 | 45 |
//! | server offers, UDP, media, closed without a word | 0.00 | 21 |
//! | server offers, ICE-TCP, media, closed without a word | 0.06 | 36 |
//! | UDP, media, dropped | 0.00 | 33 |
//! | ICE-TCP, media, dropped | -0.60 | 46 |
//! | dropped as soon as made, or while offering | 0.00 | 3 |
//! | no answer from the candidate (closed after 0.2 s) | 0.00 | 59 |
//! | TCP port refuses (closed after 0.2 s) | 0.00 | 58 |
//! | wrong fingerprint | 0.00 | 70 |
//! | server dies | 0.00 | 315 |
//! | TURN over UDP, media, farewell | 1.78 | 47 |
//! | TURN over TCP, media, farewell | 0.00 | 47 |
//! | TURN over TCP, media, dropped | 0.42 | 47 |
//! | TURN server that never answers (closed after 0.2 s) | 0.00 | 58 |
//!
//! Command: `ONAIR_LEAK_CYCLES=200 cargo test --test leak -- --nocapture`.

mod backlog;
mod burst;
pub(crate) mod candidate;
mod counters;
mod datagrams;
mod feedback;
mod interceptor;
mod ladder;
mod local;
mod packetizer;
mod race;
mod reflexive;
mod relay;
mod reports;
mod retransmit;
mod sdp;
mod stream;
mod tracks;
pub(crate) mod turn;
mod watch;
mod wires;

use std::collections::HashSet;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rtc::interceptor::{Registry, Slot};
use rtc::peer_connection::configuration::RTCOfferOptions;
use rtc::rtp_transceiver::rtp_sender::RtpCodecKind;
use rtc::shared::error::Error as EngineError;
use tokio::sync::{Notify, mpsc, watch as latest};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;
use webrtc::media_stream::track_local::TrackLocal;
use webrtc::peer_connection::{
    MediaEngine, PeerConnection, PeerConnectionBuilder, RTCConfigurationBuilder,
    RTCIceCandidateInit, RTCSessionDescription, SettingEngineBuilder, SrtpProtectionProfile,
};
use webrtc::rtp_transceiver::{RTCRtpTransceiverDirection, RTCRtpTransceiverInit};

use crate::config::Bitrate;
use crate::config::ice_server::IceServer;
use crate::feed::Tracks;
use crate::media::access_unit::{AccessUnit, Track};
use crate::media::payload_types::PayloadTypes;
use crate::media::time::MediaClock;
use crate::net::Dialer;

use burst::Burst;
use candidate::{Candidate, MAX_CANDIDATES, Protocol};
pub use counters::{Counters, Latency};
pub use feedback::ReceiverReport;
pub use ladder::{Climb, Ladder, Outcome, Rung};
pub use turn::try_out as try_turn_servers;
pub use wires::SelectedPair;

use counters::Shared;
use interceptor::{Egress, Stream};
use local::Sockets;
use packetizer::{Packetizer, Timeline};
use tracks::{Sender, describe};
use wires::{Engine, Wires, locked};

/// Events waiting to be read; beyond it they are dropped and counted.
const EVENTS: usize = 128;

/// Packets of one picture that leave at once over UDP: any picture but a large key frame.
const BURST: usize = 32;

/// Packets that leave between two pauses after those.
const PER_PAUSE: usize = 16;

/// A pause; with the timer's own coarseness it comes to nearly two milliseconds, hence some 80 Mbit/s. A receiver with
/// the usual 208 KiB socket buffer lost a tenth of key frames of 150 kB that came as one burst over loopback, and
/// nothing of those of 400 kB with this.
const PAUSE: Duration = Duration::from_millis(1);

/// How long gathering may take. Only interfaces are listed, so it is a matter of milliseconds.
const GATHERING: Duration = Duration::from_secs(2);

/// How long [`Peer::close`] may take.
const CLOSING: Duration = Duration::from_secs(2);

/// What a connection is made with.
#[derive(Clone)]
pub struct Config {
    /// The clock that captured the media.
    pub clock: MediaClock,
    /// The tracks to send; at least one.
    pub tracks: Tracks,
    /// Payload types: ours when we offer, the server's when it does.
    pub payload_types: PayloadTypes,
    /// Name of the stream in descriptions and CNAME.
    pub name: String,
    /// Which ways to the server may be tried.
    pub ladder: Ladder,
    /// STUN and TURN servers known so far; [`Peer::add_ice_servers`] takes those that come later.
    pub ice_servers: Vec<IceServer>,
    /// Reaches TURN servers over TCP and TLS, through a proxy if need be.
    pub dialer: Dialer,
    /// First RTP sequence number of each track. Low is safest: OvenMediaEngine loses audio around a wrap.
    pub first_sequence: u16,
    /// How long to wait for what.
    pub limits: Limits,
}

/// How long a connection waits for signs of life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Silence after which the connection counts as disconnected.
    pub disconnected: Duration,
    /// Further silence after which it counts as failed, for good unless ICE is restarted; never if zero. Before the first
    /// answer both together bound the search for a path.
    pub failed: Duration,
    /// Time between two checks of a living path.
    pub keep_alive: Duration,
    /// Time for the DTLS handshake once a path is found.
    pub handshake: Duration,
    /// How long the connection may refuse one access unit before [`Peer::send`] says so.
    pub send: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            disconnected: Duration::from_secs(4),
            failed: Duration::from_secs(11),
            keep_alive: Duration::from_secs(1),
            handshake: Duration::from_secs(8),
            send: Duration::from_secs(3),
        }
    }
}

/// What happened to a connection.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// More candidates of ours: relayed ones, those that STUN servers tell, and after an ICE restart the host's. Comes at least once after the
    /// descriptions are exchanged; with `last` set, no more will follow.
    Candidates {
        /// `candidate:...` lines.
        lines: Vec<String>,
        /// No more will follow.
        last: bool,
    },
    /// Media can flow, for the first time or again.
    Connected(SelectedPair),
    /// The server has been silent for [`Limits::disconnected`].
    Disconnected,
    /// The connection is lost at this stage; close it.
    Failed(Stage),
    /// The server has closed the connection in order.
    Closed,
    /// The server wants a key frame.
    KeyFrameRequested,
    /// The server tells what arrived.
    ReceiverReport(ReceiverReport),
    /// The server estimates what the path can carry.
    Remb(Bitrate),
}

/// How far a connection had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The DTLS handshake did not succeed.
    Dtls,
    /// No path was found, or the one in use went silent.
    Ice,
    /// The TCP connection under it broke.
    Transport,
}

impl std::fmt::Display for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dtls => "dtls",
            Self::Ice => "ice",
            Self::Transport => "transport",
        })
    }
}

/// Why a connection could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The connection has ended.
    #[error("the connection has ended")]
    Closed,
    /// A description cannot be used, ours or the server's.
    #[error("{why}")]
    Description {
        /// What is wrong with it.
        why: String,
    },
    /// The engine refused.
    #[error("the engine could not {step}")]
    Engine {
        /// What it was to do.
        step: &'static str,
        /// Its words.
        #[source]
        source: EngineError,
    },
    /// The connection took no more media.
    #[error("the connection took no media for {} s", after.as_secs())]
    Stalled {
        /// For so long.
        after: Duration,
    },
}

fn engine(step: &'static str) -> impl FnOnce(EngineError) -> Error {
    move |source| Error::Engine { step, source }
}

/// A connection. Dropped without [`close`](Self::close) it ends all the same, only without a farewell.
#[must_use]
pub struct Peer {
    engine: Arc<dyn PeerConnection>,
    audio: Option<Sender>,
    video: Option<Sender>,
    burst: Arc<Burst>,
    media: sdp::Media,
    ladder: Ladder,
    wires: Arc<Wires>,
    counters: Arc<Shared>,
    farewell: Arc<Notify>,
    events: mpsc::Sender<Event>,
    gathered: latest::Sender<bool>,
    /// Whether the server's description is known.
    described: AtomicBool,
    /// Tells our further candidates.
    announcing: Mutex<Option<tokio::task::AbortHandle>>,
    /// An offer that restarts ICE, until it is accepted.
    restarting: Mutex<Option<RTCSessionDescription>>,
    dialled: Mutex<HashSet<(Protocol, SocketAddr)>>,
    tasks: TaskTracker,
    watch: tokio::task::AbortHandle,
    /// See [`Limits::send`].
    send_within: Duration,
    _stop: DropGuard,
}

impl Peer {
    /// Makes a connection and binds its sockets; nothing is sent yet. The receiver tells what happens, until the
    /// connection has ended.
    pub async fn new(config: Config) -> Result<(Self, mpsc::Receiver<Event>), Error> {
        let name = sdp::token(&config.name);
        let (media, codecs) = describe(&config, &name);
        let mut media_engine = MediaEngine::default();
        let mut audio = None;
        let mut video = None;
        let mut streams = Vec::new();
        for (track, ssrc, codec) in codecs {
            let kind = match track {
                Track::Audio => RtpCodecKind::Audio,
                Track::Video => RtpCodecKind::Video,
            };
            media_engine
                .register_codec(codec.clone(), kind)
                .map_err(engine("register a codec"))?;
            let timeline = Timeline::new(track, fastrand::u32(..));
            streams.push(Stream {
                track,
                ssrc,
                timeline,
            });
            let sender = Some(Sender::new(track, ssrc, &codec, kind, &name, |pt| {
                Packetizer::new(track, ssrc, pt, timeline, config.first_sequence)
            }));
            match track {
                Track::Audio => audio = sender,
                Track::Video => video = sender,
            }
        }

        let stop = CancellationToken::new();
        let tasks = TaskTracker::new();
        let counters = Arc::new(Shared::default());
        let (events, receiver) = mpsc::channel(EVENTS);
        let ladder = config.ladder;
        let (wires, sightings) = Wires::new(
            Arc::clone(&counters),
            ladder,
            config.dialer,
            stop.clone(),
            tasks.clone(),
        );
        wires.add_servers(&config.ice_servers);
        let burst = Arc::new(Burst::default());
        let farewell = Arc::new(Notify::new());
        let egress = Egress::new(
            config.clock,
            &name,
            streams,
            Arc::clone(&burst),
            Arc::clone(&counters),
            events.clone(),
            Arc::clone(&farewell),
        );
        let (handler, states, gathered) = watch::Handler::new();
        let limits = config.limits;
        // From here on an early return must end what was spawned.
        let guard = stop.drop_guard();
        let builder = PeerConnectionBuilder::new()
            .with_configuration(RTCConfigurationBuilder::new().build())
            .with_media_engine(media_engine)
            .with_setting_engine(
                SettingEngineBuilder::new()
                    .with_multicast_dns_mode(rtc::ice::mdns::MulticastDnsMode::Disabled)
                    .with_answering_dtls_role(rtc::peer_connection::transport::RTCDtlsRole::Client)
                    .with_include_loopback_candidate(true)
                    .with_ice_timeouts(
                        Some(limits.disconnected),
                        Some(limits.failed),
                        Some(limits.keep_alive),
                    )
                    // A check every 50 ms (RFC 8445, section 14.2) finds the path a round trip after it opens. The
                    // count must outlast the search, for a server may be deaf at first: by default a path is given
                    // up after 1.4 s for good.
                    .with_ice_connection_attempts(Some(Duration::from_millis(50)), Some(u16::MAX))
                    .with_host_acceptance_min_wait(Some(Duration::ZERO))
                    // After a change of network the old sockets are worth nothing.
                    .with_discard_local_candidates_during_ice_restart(true)
                    .with_srtp_protection_profiles(vec![
                        SrtpProtectionProfile::Srtp_Aead_Aes_128_Gcm,
                        SrtpProtectionProfile::Srtp_Aes128_Cm_Hmac_Sha1_80,
                    ])
                    .build(),
            )
            .with_interceptor_registry(Registry::new().with(Slot::NackResponder, egress))
            .with_handler(Arc::new(handler))
            .with_runtime(Arc::new(Engine(Arc::clone(&wires))))
            .with_udp_addrs(vec![Sockets::Udp(ladder.transport)])
            .with_tcp_addrs(vec![Sockets::Tcp(ladder.transport)]);
        let pc = Box::pin(builder.build())
            .await
            .map_err(engine("bind its sockets"))?;
        let pc: Arc<dyn PeerConnection> = Arc::new(pc);
        let watch = wires.spawn(watch::watch(
            Arc::clone(&pc),
            Arc::clone(&wires),
            states,
            sightings,
            events.clone(),
            limits.handshake,
        ));
        wires.spawn(Arc::clone(&wires).climb());
        let peer = Self {
            engine: pc,
            audio,
            video,
            burst,
            media,
            ladder,
            wires,
            counters,
            farewell,
            events,
            gathered,
            described: AtomicBool::new(false),
            announcing: Mutex::new(None),
            restarting: Mutex::new(None),
            dialled: Mutex::new(HashSet::new()),
            tasks,
            watch,
            send_within: limits.send,
            _stop: guard,
        };
        Ok((peer, receiver))
    }

    /// Our offer, candidates inside. For one call, before anything else.
    pub async fn offer(&self) -> Result<String, Error> {
        for sender in self.audio.iter().chain(&self.video) {
            let init = RTCRtpTransceiverInit {
                direction: RTCRtpTransceiverDirection::Sendonly,
                streams: vec![self.media.name.clone()],
                send_encodings: vec![sender.encoding.clone()],
            };
            self.engine
                .add_transceiver_from_track(sender.local(), Some(init))
                .await
                .map_err(engine("add a track"))?;
        }
        let offer = self
            .engine
            .create_offer(None)
            .await
            .map_err(engine("make an offer"))?;
        let local = self.set_local(offer).await?;
        sdp::offer(&local, &self.media)
    }

    /// Takes the server's answer to our [`offer`](Self::offer) or [`restart`](Self::restart). Candidates in it are
    /// taken too.
    pub async fn accept(&self, remote: &str) -> Result<(), Error> {
        let (remote, candidates) = candidate::taken_out(remote);
        let answer = RTCSessionDescription::answer(remote).map_err(engine("read the answer"))?;
        let restarting = locked(&self.restarting).take();
        let mut found = Vec::new();
        if let Some(offer) = restarting {
            self.wires.restart();
            locked(&self.dialled).clear();
            self.gathered.send_replace(false);
            found = sdp::candidates(&self.set_local(offer).await?);
        }
        self.engine
            .set_remote_description(answer)
            .await
            .map_err(engine("accept the answer"))?;
        self.described.store(true, Ordering::Release);
        self.announce(found);
        self.add_candidates(&candidates).await
    }

    /// Answers the server's offer. Candidates in it are taken too.
    pub async fn answer(&self, offer: &str) -> Result<String, Error> {
        let (offer, candidates) = candidate::taken_out(offer);
        let offered = |kind: &str| offer.lines().any(|line| line.starts_with(kind));
        let (audio, video) = (offered("m=audio "), offered("m=video "));
        let description =
            RTCSessionDescription::offer(offer.clone()).map_err(engine("read the offer"))?;
        self.engine
            .set_remote_description(description)
            .await
            .map_err(engine("accept the offer"))?;
        // A track whose kind was not offered would make a section that the offer lacks.
        let audio = self.audio.iter().filter(|_| audio);
        for sender in audio.chain(self.video.iter().filter(|_| video)) {
            self.engine
                .add_track(sender.local())
                .await
                .map_err(engine("add a track"))?;
        }
        let answer = self
            .engine
            .create_answer(None)
            .await
            .map_err(engine("make an answer"))?;
        let local = self.set_local(answer).await?;
        self.described.store(true, Ordering::Release);
        self.announce(Vec::new());
        self.add_candidates(&candidates).await?;
        sdp::answer(&local, &offer, &self.media)
    }

    /// Takes one of the server's candidates, as [`add_candidates`](Self::add_candidates) does.
    pub async fn add_candidate(&self, candidate: &str) -> Result<(), Error> {
        self.add_candidates(&[candidate]).await
    }

    /// Takes the server's candidates, `candidate:...` lines. One that cannot be used, that the configured transport
    /// forbids or that is known already is passed over; so is what exceeds sixteen. Those that are told together are
    /// tried in the order of their rungs, whatever their own.
    pub async fn add_candidates(&self, candidates: &[impl AsRef<str>]) -> Result<(), Error> {
        // Before the description it belongs to, a candidate cannot be used; it may be told again.
        if !self.described.load(Ordering::Acquire) {
            return Ok(());
        }
        let rungs = |candidate: &Candidate| candidate.rungs(self.ladder.transport);
        let parsed = candidates
            .iter()
            .filter_map(|c| Candidate::parse(c.as_ref()));
        let usable: Vec<Candidate> = parsed
            .filter(|c| !rungs(c).is_empty() && self.is_new(c))
            .collect();
        // All at once: the first rung offered has a head start over those that follow.
        self.wires.offered(usable.iter().flat_map(|candidate| {
            let rungs = rungs(candidate).into_iter();
            rungs.map(|rung| (rung, candidate.address))
        }));
        for candidate in &usable {
            let init = RTCIceCandidateInit {
                candidate: candidate.line(),
                ..Default::default()
            };
            if let Err(error) = self.engine.add_ice_candidate(init).await {
                tracing::debug!(%error, ?candidate, "the engine cannot use a candidate");
            }
        }
        Ok(())
    }

    /// Takes STUN and TURN servers that became known after the beginning, as with a server's offer or answer; those
    /// known already are passed over, and so is what exceeds eight of either. STUN servers are asked once the
    /// descriptions are exchanged.
    pub fn add_ice_servers(&self, servers: &[IceServer]) {
        self.wires.add_servers(servers);
    }

    /// Our offer with new ICE credentials, to be followed by [`accept`](Self::accept): then sockets are bound afresh to
    /// the addresses that this host has, and the ladder is climbed again. Until then media goes on over the old path,
    /// and if the server refuses nothing has changed. The offer names no candidates; they come with
    /// [`Event::Candidates`] once it is accepted.
    ///
    /// For connections that began with [`offer`](Self::offer).
    pub async fn restart(&self) -> Result<String, Error> {
        let options = RTCOfferOptions { ice_restart: true };
        let offer = self
            .engine
            .create_offer(Some(options))
            .await
            .map_err(engine("make an offer that restarts ICE"))?;
        let (bare, _) = candidate::taken_out(&offer.sdp);
        let text = sdp::offer(&bare, &self.media)?;
        *locked(&self.restarting) = Some(offer);
        Ok(text)
    }

    /// Whether a check has been answered in this search. What becomes of that path comes as an [`Event`].
    pub fn has_found_path(&self) -> bool {
        self.wires.has_won()
    }

    /// What became of each way to the server that the configuration allows, so far, in the order of trying.
    pub fn climbs(&self) -> Vec<Climb> {
        self.wires.climbs()
    }

    /// Sends one access unit of a track that was configured. Waits while a TCP connection is full, and spreads a very
    /// large picture over some milliseconds. A call that is cancelled cuts the picture short.
    ///
    /// Over a connection that is not up nothing arrives, and that is no error: media begins with
    /// [`Event::Connected`].
    pub async fn send(&mut self, unit: &AccessUnit) -> Result<(), Error> {
        let sender = match unit.track {
            Track::Audio => self.audio.as_mut(),
            Track::Video => self.video.as_mut(),
        };
        let Some(sender) = sender else {
            return Ok(());
        };
        let pair = self.wires.selected();
        let sending = async {
            self.wires.backlog.room().await;
            let paced = pair.is_none_or(|pair| matches!(pair.rung, Rung::Udp | Rung::TurnUdp));
            let mut packets = sender.packetizer.packets(unit).into_iter();
            let mut size = BURST;
            loop {
                let before_last = packets.len().min(size).saturating_sub(1);
                for packet in packets.by_ref().take(before_last) {
                    self.burst.push(packet);
                }
                let Some(last) = packets.next() else { break };
                let handed = sender.track.write_rtp(last).await;
                handed.map_err(|_| Error::Closed)?;
                if paced && packets.len() > 0 {
                    size = PER_PAUSE;
                    tokio::time::sleep(PAUSE).await;
                }
            }
            Ok(())
        };
        let after = self.send_within;
        tokio::time::timeout(after, sending)
            .await
            .map_err(|_| Error::Stalled { after })?
    }

    /// Whether a TCP connection would take media now; over UDP always.
    pub fn has_room(&self) -> bool {
        self.wires.backlog.has_room()
    }

    /// Waits until a TCP connection would take media.
    pub async fn room(&self) {
        self.wires.backlog.room().await;
    }

    /// Bytes that wait for a TCP connection to take them; over UDP none.
    pub fn backlog(&self) -> usize {
        self.wires.backlog.bytes()
    }

    /// Since how long a TCP connection has had no room and taken nothing at all, if that is longer than
    /// [`Limits::send`].
    pub fn stalled(&self) -> Option<Duration> {
        let stuck = self.wires.backlog.stuck_for();
        (!self.has_room() && stuck >= self.send_within).then_some(stuck)
    }

    /// Media comes at `bitrate` from now on: what may wait for a TCP connection follows it.
    pub fn expect(&self, bitrate: Bitrate) {
        self.wires.backlog.expect(bitrate);
    }

    /// What the connection has done so far.
    pub fn counters(&self) -> Counters {
        self.counters.lock().clone()
    }

    /// Ends the connection within two seconds and frees all it held. With `goodbye` the server is told: RTCP BYE
    /// for both tracks, then a DTLS close_notify; without, nothing more is sent.
    pub async fn close(self, goodbye: bool) {
        self.watch.abort();
        let closing = async {
            if goodbye {
                if let Some(sender) = self.audio.iter().chain(&self.video).next()
                    && self.counters().packets > 0
                    // The interceptor puts the farewells of both tracks in the place of this one.
                    && sender.track.write_rtcp(Vec::new()).await.is_ok()
                {
                    // Closing overtakes what waits for the engine's task.
                    drop(tokio::time::timeout(CLOSING / 8, self.farewell.notified()).await);
                }
                if let Err(error) = self.engine.close().await {
                    tracing::debug!(%error, "the engine did not close in order");
                }
            }
        };
        if tokio::time::timeout(CLOSING / 2, closing).await.is_err() {
            tracing::debug!("the engine did not close in time");
        }
        let Self {
            engine,
            tasks,
            _stop: stop,
            wires,
            ..
        } = self;
        if goodbye {
            // What TCP still holds goes out while the far end takes it.
            drop(tokio::time::timeout(CLOSING / 4, wires.flushed()).await);
        }
        drop(stop);
        tasks.close();
        let ended = async {
            tasks.wait().await;
            drop(engine);
            wires.released().await;
        };
        drop(tokio::time::timeout(CLOSING / 4, ended).await);
    }

    async fn set_local(&self, description: RTCSessionDescription) -> Result<String, Error> {
        self.engine
            .set_local_description(description)
            .await
            .map_err(engine("set our description"))?;
        let mut gathered = self.gathered.subscribe();
        let gathering = gathered.wait_for(|gathered| *gathered);
        if tokio::time::timeout(GATHERING, gathering).await.is_err() {
            tracing::debug!("gathering candidates takes long; going on with those found");
        }
        let local = self.engine.local_description().await.ok_or(Error::Closed)?;
        Ok(local.sdp)
    }

    /// Tells our further candidates, those `found` first.
    fn announce(&self, found: Vec<String>) {
        let mut announcing = locked(&self.announcing);
        if let Some(earlier) = announcing.take() {
            earlier.abort();
        }
        let wires = Arc::clone(&self.wires);
        let announce = watch::announce(wires, self.events.clone(), found);
        *announcing = Some(self.wires.spawn(announce));
    }

    fn is_new(&self, candidate: &Candidate) -> bool {
        let mut dialled = locked(&self.dialled);
        dialled.len() < MAX_CANDIDATES && dialled.insert((candidate.protocol, candidate.address))
    }
}
