//! Turns the engine's states into [`Event`]s, and sees the ends that the engine keeps to itself.
//!
//! The engine neither reports a DTLS handshake that does not succeed, nor the server's close_notify, nor a TCP
//! connection that broke. Its callbacks run on its only task, so they only note the state; this task does the rest.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch as latest};
use tokio::time::Instant;
use webrtc::peer_connection::{
    PeerConnection, PeerConnectionEventHandler, RTCIceConnectionState, RTCIceGatheringState,
    RTCPeerConnectionState,
};

use super::candidate;
use super::reflexive;
use super::wires::{Sighting, Wires};
use super::{Event, Stage};

/// How long our last candidate may keep the server waiting.
const CANDIDATES: Duration = Duration::from_secs(5);

/// A change of state, as the engine tells it.
#[derive(Clone, Copy, Debug)]
pub(super) enum State {
    Connection(RTCPeerConnectionState),
    Ice(RTCIceConnectionState),
}

/// Takes the engine's callbacks.
pub(super) struct Handler {
    states: mpsc::Sender<State>,
    gathered: latest::Sender<bool>,
}

impl Handler {
    /// A handler, the states it notes, and whether candidates have been gathered.
    pub(super) fn new() -> (Self, mpsc::Receiver<State>, latest::Sender<bool>) {
        let (states, noted) = mpsc::channel(64);
        let (gathered, _) = latest::channel(false);
        let has_gathered = gathered.clone();
        (Self { states, gathered }, noted, has_gathered)
    }

    fn note(&self, state: State) {
        if self.states.try_send(state).is_err() {
            tracing::debug!(?state, "a change of state came too late to be told");
        }
    }
}

#[async_trait::async_trait]
impl PeerConnectionEventHandler for Handler {
    async fn on_ice_connection_state_change(&self, state: RTCIceConnectionState) {
        self.note(State::Ice(state));
    }

    async fn on_ice_gathering_state_change(&self, state: RTCIceGatheringState) {
        if state == RTCIceGatheringState::Complete {
            self.gathered.send_replace(true);
        }
    }

    async fn on_connection_state_change(&self, state: RTCPeerConnectionState) {
        self.note(State::Connection(state));
    }
}

/// Watches until the connection ends or this task is ended with it.
pub(super) async fn watch(
    engine: Arc<dyn PeerConnection>,
    wires: Arc<Wires>,
    mut states: mpsc::Receiver<State>,
    mut sightings: mpsc::Receiver<Sighting>,
    events: mpsc::Sender<Event>,
    handshake: Duration,
) {
    let mut handshake_ends: Option<Instant> = None;
    let mut connected = false;
    // Connected, and not told yet.
    let mut untold = false;
    loop {
        let handshake_failed = async {
            match handshake_ends {
                Some(end) => tokio::time::sleep_until(end).await,
                None => std::future::pending().await,
            }
        };
        let event = tokio::select! {
            state = states.recv() => match state {
                Some(State::Ice(
                    RTCIceConnectionState::Connected | RTCIceConnectionState::Completed,
                )) => {
                    if !connected && handshake_ends.is_none() {
                        handshake_ends = Some(Instant::now() + handshake);
                    }
                    None
                }
                Some(State::Ice(state)) => {
                    tracing::debug!(%state, "ice");
                    None
                }
                Some(State::Connection(RTCPeerConnectionState::Connected)) => {
                    connected = true;
                    handshake_ends = None;
                    // After an ICE restart, media shows only a moment later which pair it takes.
                    let pair = wires.selected();
                    untold = pair.is_none();
                    pair.map(Event::Connected)
                }
                Some(State::Connection(RTCPeerConnectionState::Disconnected)) => {
                    Some(Event::Disconnected)
                }
                // The engine knows of no other failure than ICE's.
                Some(State::Connection(RTCPeerConnectionState::Failed)) => {
                    Some(Event::Failed(Stage::Ice))
                }
                Some(State::Connection(RTCPeerConnectionState::Closed)) => Some(Event::Closed),
                Some(State::Connection(_)) => None,
                None => return,
            },
            sighting = sightings.recv() => match sighting {
                Some(Sighting::Alert) if connected => {
                    // The sockets see it before the engine does.
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    dtls_is_closed(&*engine).await.then_some(Event::Closed)
                }
                Some(Sighting::Alert) => None,
                Some(Sighting::Broken) => Some(Event::Failed(Stage::Transport)),
                Some(Sighting::Moved) if untold => {
                    untold = false;
                    wires.selected().map(Event::Connected)
                }
                Some(Sighting::Moved) => None,
                None => return,
            },
            () = handshake_failed => {
                handshake_ends = None;
                wires.winner_failed("a check was answered, but the DTLS handshake did not succeed");
                Some(Event::Failed(Stage::Dtls))
            }
        };
        if let Some(event) = event {
            tell(&events, event);
        }
    }
}

fn tell(events: &mpsc::Sender<Event>, event: Event) {
    tracing::debug!(?event, "connection");
    if events.try_send(event).is_err() {
        tracing::debug!("nobody reads the connection's events");
    }
}

/// Tells our candidates beyond those of our description: lines of SDP that were `found`, then what STUN servers say and
/// relays as they come, until none is worth waiting for.
pub(super) async fn announce(wires: Arc<Wires>, events: mpsc::Sender<Event>, found: Vec<String>) {
    let bare = |line: String| line.trim_start_matches("a=").to_owned();
    let mut lines: Vec<String> = found.into_iter().map(bare).collect();
    let (mut relays_told, mut reflexive_told) = (0, 0);
    let end = Instant::now() + CANDIDATES;
    let mut asking = std::pin::pin!(reflexive::ask(Arc::clone(&wires)));
    let mut asked = wires.stun_servers().is_empty();
    loop {
        let changed = wires.changed.notified();
        let (relays, settled) = wires.relays_found();
        for (n, (_, address)) in (0..).zip(&relays).skip(relays_told) {
            lines.push(candidate::relayed(n, *address));
        }
        relays_told = relays.len();
        let reflexive = wires.reflexive();
        for (n, (address, base)) in (0..).zip(&reflexive).skip(reflexive_told) {
            lines.push(candidate::server_reflexive(n, *address, *base));
        }
        reflexive_told = reflexive.len();
        let last = (settled && asked) || Instant::now() >= end;
        if last || !lines.is_empty() {
            let lines = std::mem::take(&mut lines);
            tell(&events, Event::Candidates { lines, last });
        }
        if last {
            return;
        }
        tokio::select! {
            () = changed => {}
            () = &mut asking, if !asked => asked = true,
            () = tokio::time::sleep_until(end) => {}
        }
    }
}

/// Whether the server has closed the DTLS connection, by the engine's word: an alert on the wire proves nothing.
async fn dtls_is_closed(engine: &dyn PeerConnection) -> bool {
    use rtc::peer_connection::transport::RTCDtlsTransportState;
    for sender in engine.get_senders().await {
        if let Ok(Some(transport)) = sender.transport().await
            && let Ok(state) = transport.state().await
        {
            return state == RTCDtlsTransportState::Closed;
        }
    }
    false
}
