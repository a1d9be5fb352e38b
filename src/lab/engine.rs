//! Runs the media engine of a session: packets between its sockets and `str0m`, media to the reception.
//!
//! The engine ends when it is told to, or when nothing at all has been heard for the server's time-out; a
//! publisher that says `close_notify` ends it at Wowza and is ignored by OvenMediaEngine, as is a failed
//! handshake: both just wait for the time-out.

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use str0m::Candidate;
use str0m::Event;
use str0m::IceCreds;
use str0m::Input;
use str0m::Output;
use str0m::media::KeyframeRequestKind;
use str0m::net::Protocol;
use str0m::net::Receive;
use str0m::net::Transmit;
use str0m::rtp::RawPacket;
use str0m::rtp::RtpPacket;
use str0m::rtp::rtcp::Rtcp;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio::sync::watch;

use crate::media::access_unit::Track;

use super::depacketize::Packet;
use super::framing::Connection;
use super::framing::Inbound;
use super::hub::Record;
use super::hub::State;
use super::ingest::Credentials;
use super::ingest::Ingest;
use super::ingest::Remote;
use super::now;
use super::paths::Paths;
use super::reception::Reception;
use super::sync::Pairing;
use super::turn::embedded;
use super::turn::embedded::Place;
use super::turn::embedded::Relayed;

/// How often time is told to the judge and to the keeper of the time-out.
const TICK: Duration = Duration::from_millis(50);
/// Two requests for a key frame are at least this far apart.
const REQUEST_SPACING: Duration = Duration::from_millis(500);
/// After a disturbance of its own the lab gives a publisher this long before it judges times again.
const RECOVERY: Duration = Duration::from_secs(2);
/// Largest datagram that is read.
const DATAGRAM: usize = 4096;
/// TCP connections of one session at a time.
const CONNECTIONS: usize = 8;
/// Packets from TCP connections that may wait.
const INBOX: usize = 256;
/// Sequence numbers that are remembered as withheld once.
const WITHHELD: usize = 4096;

/// What the engine may be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// The publisher has this candidate too, as after `a=`.
    Candidate(String),
    /// Stop without a word. `orderly` if the publisher ended the session as it should.
    Drop { orderly: bool },
    /// Ask for a key frame.
    KeyFrame,
    /// The publisher closed its signalling in an orderly way; the media goes on.
    Left,
    /// ICE begins anew with these credentials; DTLS and SRTP go on.
    Restart {
        /// The engine's own.
        local: Credentials,
        /// The publisher's.
        remote: Credentials,
    },
    /// Say BYE and `close_notify`, then stop.
    Shut,
}

/// Why the engine ended by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// It was told to.
    Told,
    /// The publisher said `close_notify`, or closed the connection that carried the media.
    Closed,
    /// Nothing was heard for the time-out.
    Silent,
}

/// On which way packets come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Through the embedded TURN server.
    Relay,
    Tcp,
    Udp,
}

/// A running engine.
pub(super) struct Engine {
    ingest: Ingest,
    remote: Remote,
    record: Record,
    reception: Reception,
    commands: mpsc::Receiver<Command>,
    /// Until when nothing passes in either direction.
    black_hole: watch::Receiver<Option<Instant>>,
    /// How fast connections are read, in kbit/s; 0 for no limit.
    throttle: watch::Receiver<u32>,
    connections: HashMap<SocketAddr, Connection>,
    connected: Option<Instant>,
    heard: Instant,
    asked: Option<Instant>,
    last_packet: Option<Instant>,
    newest: HashMap<Track, u64>,
    /// Sender reports that came before the first packet of their track: wall time, RTP time.
    early: HashMap<Track, (f64, u32)>,
    withheld: HashSet<u16>,
    seen: u32,
    stopping: bool,
    dead: bool,
    way: Way,
    /// Where the newest packet came from.
    source: Option<SocketAddr>,
    /// Where answers go to what came through the embedded TURN server.
    answers: Option<mpsc::Sender<Vec<u8>>>,
    paths: Paths,
    end: Option<End>,
}

impl Engine {
    /// An engine ready to run.
    pub(super) fn new(
        ingest: Ingest,
        remote: Remote,
        record: Record,
        reception: Reception,
        commands: mpsc::Receiver<Command>,
        (black_hole, throttle): (watch::Receiver<Option<Instant>>, watch::Receiver<u32>),
        now: Instant,
    ) -> Self {
        Self {
            ingest,
            remote,
            record,
            reception,
            commands,
            black_hole,
            throttle,
            connections: HashMap::new(),
            connected: None,
            heard: now,
            asked: None,
            last_packet: None,
            newest: HashMap::new(),
            early: HashMap::new(),
            withheld: HashSet::new(),
            seen: 0,
            stopping: false,
            dead: false,
            way: Way::Udp,
            source: None,
            answers: None,
            paths: Paths::default(),
            end: None,
        }
    }

    /// Runs until the session is over; what waits is decoded before this returns.
    pub(super) async fn run(mut self) -> End {
        let (inbox, mut inbound) = mpsc::channel::<Inbound>(INBOX);
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut datagram = vec![0; DATAGRAM];
        let end = loop {
            let due = self.poll();
            if let Some(end) = self.end {
                break end;
            }
            tokio::select! {
                received = receive(self.ingest.udp.as_ref(), &mut datagram) => {
                    // An error here is an ICMP message about an earlier packet of ours.
                    if let Ok((length, source)) = received {
                        self.input(Way::Udp, source, &datagram[..length], now());
                    }
                }
                accepted = accept(self.ingest.tcp.as_ref()) => {
                    if let Ok((stream, peer)) = accepted
                        && self.connections.len() < CONNECTIONS
                    {
                        let connection = Connection::open(
                            stream,
                            peer,
                            inbox.clone(),
                            self.throttle.clone(),
                        );
                        self.connections.insert(peer, connection);
                    }
                }
                Relayed { arrived, packet, answers } = relayed(self.ingest.place.as_mut()) => {
                    self.answers = Some(answers);
                    self.input(Way::Relay, embedded::RELAYED, &packet, arrived);
                }
                Some(Inbound { peer, arrived, packet }) = inbound.recv() => match packet {
                    Some(packet) => self.input(Way::Tcp, peer, &packet, arrived),
                    None => self.hung_up(peer),
                },
                command = self.commands.recv() => {
                    self.command(command.unwrap_or(Command::Drop { orderly: false }));
                }
                () = tokio::time::sleep_until(due.into()) => self.time(now()),
                _ = ticks.tick() => self.tick(now()),
            }
        };
        for (_, connection) in self.connections.drain() {
            connection.close().await;
        }
        self.reception.finish(now()).await;
        end
    }

    /// Everything the engine has to send or to say; returns when it wants to know the time.
    fn poll(&mut self) -> Instant {
        let later = now() + Duration::from_secs(1);
        while !self.dead {
            match self.ingest.rtc.poll_output() {
                Ok(Output::Timeout(due)) => {
                    if !self.ingest.rtc.is_alive() {
                        self.dead = true;
                        if self.stopping {
                            self.end = Some(End::Told);
                        }
                    }
                    return due.min(later);
                }
                Ok(Output::Transmit(transmit)) => self.transmit(&transmit),
                Ok(Output::Event(event)) => self.event(event),
                Err(error) => self.failed(&error.to_string()),
            }
        }
        later
    }

    fn transmit(&self, transmit: &Transmit) {
        if self.is_black(now()) {
            return;
        }
        if transmit.destination == embedded::RELAYED {
            if let Some(answers) = &self.answers {
                // Whoever does not read loses packets, as over a network.
                answers.try_send(transmit.contents.to_vec()).ok();
            }
            return;
        }
        match (&self.ingest.udp, transmit.proto) {
            (Some(socket), Protocol::Udp) => {
                // A full socket buffer loses the packet, as a network would.
                socket
                    .try_send_to(&transmit.contents, transmit.destination)
                    .ok();
            }
            _ => {
                if let Some(connection) = self.connections.get(&transmit.destination) {
                    connection.send(transmit.contents.to_vec());
                }
            }
        }
    }

    fn input(&mut self, way: Way, source: SocketAddr, bytes: &[u8], now: Instant) {
        if self.is_black(now) {
            return;
        }
        let (udp, tcp) = self.ingest.addresses();
        let (protocol, destination) = match way {
            Way::Relay => (Protocol::Udp, udp.or(Some(embedded::DUMMY))),
            Way::Tcp => (Protocol::Tcp, tcp),
            Way::Udp => (Protocol::Udp, udp),
        };
        let Some(destination) = destination else {
            return;
        };
        if self.is_withheld(bytes, now) {
            return;
        }
        let Ok(receive) = Receive::new(protocol, source, destination, bytes) else {
            return;
        };
        let input = Input::Receive(now, receive);
        if self.dead || !self.ingest.rtc.accepts(&input) {
            return;
        }
        self.heard = now;
        for dead in self.paths.heard(protocol, source, bytes) {
            self.ingest.rtc.direct_api().invalidate_candidate(&dead);
        }
        if self.paths.restarted() {
            self.remark("ICE has restarted: the publisher checks with its new credentials");
        }
        self.way = way;
        self.source = Some(source);
        if let Err(error) = self.ingest.rtc.handle_input(input) {
            self.failed(&error.to_string());
        }
    }

    fn time(&mut self, now: Instant) {
        if let Err(error) = self.ingest.rtc.handle_input(Input::Timeout(now)) {
            self.failed(&error.to_string());
        }
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "most events are of no concern here"
    )]
    fn event(&mut self, event: Event) {
        match event {
            Event::Connected => {
                let transport = self.transport();
                self.connected = Some(now());
                self.record.tally(|tally| tally.transport = Some(transport));
                self.record.state(State::Connected);
                self.remark(&format!("ICE and DTLS are up over {transport}"));
            }
            Event::RtpPacket(packet) => self.rtp(&packet),
            Event::RawPacket(raw) => {
                if let RawPacket::RtcpRx(rtcp) = *raw {
                    self.rtcp(&rtcp);
                }
            }
            Event::Closed => {
                self.reception.judge.goodbye();
                self.remark("the publisher said close_notify");
                if self.ingest.options.profile.minds_close_notify() && !self.stopping {
                    self.end = Some(End::Closed);
                }
            }
            _ => {}
        }
    }

    fn rtp(&mut self, packet: &RtpPacket) {
        let Some(track) = self.track(*packet.header.ssrc) else {
            return;
        };
        self.last_packet = Some(packet.timestamp);
        self.newest.insert(track, packet.time.numer());
        self.reception.packet(
            track,
            Packet {
                sequence: *packet.seq_no,
                time: packet.time.numer(),
                marker: packet.header.marker,
                payload: packet.payload.to_vec(),
                arrived: packet.timestamp,
            },
        );
        if let Some((wall, rtp)) = self.early.remove(&track) {
            self.report(track, wall, rtp);
        }
    }

    fn report(&mut self, track: Track, wall: f64, rtp: u32) {
        let Some(newest) = self.newest.get(&track) else {
            self.early.insert(track, (wall, rtp));
            return;
        };
        let rtp = extend(*newest, rtp);
        self.reception.report(track, Pairing { wall, rtp });
    }

    #[expect(
        clippy::wildcard_enum_match_arm,
        reason = "a publisher has nothing else to say"
    )]
    fn rtcp(&mut self, rtcp: &Rtcp) {
        match rtcp {
            Rtcp::SenderReport(report) => {
                let info = &report.sender_info;
                // Who has sent nothing has no RTP time to report; what such a report says is ignored.
                if let Some(track) = self.track(*info.ssrc)
                    && info.sender_packet_count > 0
                {
                    self.report(track, unix(info.ntp_time), info.rtp_time.numer() as u32);
                }
            }
            Rtcp::Goodbye(_) => {
                self.reception.judge.goodbye();
                self.remark("the publisher said BYE");
            }
            _ => {}
        }
    }

    fn command(&mut self, command: Command) {
        let now = now();
        match command {
            // The goodbye may still be on its way on the other path; `tick` ends it.
            Command::Drop { orderly: true } if self.connected.is_some() => {
                self.stopping = true;
                self.reception.judge.ended(now);
                self.tick(now);
            }
            Command::Candidate(text) => self.candidate(&text, now),
            Command::Drop { .. } => self.end = Some(End::Told),
            Command::KeyFrame => self.ask_key_frame(now),
            // Without a media path there is nothing to say goodbye on.
            Command::Left if self.connected.is_none() => {}
            Command::Left => self.reception.judge.ended(now),
            Command::Restart { local, remote } => self.restart(local, remote, now),
            Command::Shut => {
                self.stopping = true;
                if self.ingest.rtc.close().is_err() {
                    self.end = Some(End::Told);
                }
            }
        }
    }

    fn candidate(&mut self, text: &str, now: Instant) {
        // Names under .local and whatever else cannot be used are passed over, as by the real servers.
        let Ok(candidate) = Candidate::from_sdp_string(text) else {
            self.remark(&format!("a candidate of no use here: {text}"));
            return;
        };
        self.paths.told(candidate.clone());
        self.ingest.rtc.add_remote_candidate(candidate);
        self.time(now);
    }

    fn restart(&mut self, (ufrag, pass): Credentials, remote: Credentials, now: Instant) {
        self.paths.restart(&ufrag);
        let mut api = self.ingest.rtc.direct_api();
        api.set_local_ice_credentials(IceCreds { ufrag, pass });
        api.set_remote_ice_credentials(IceCreds {
            ufrag: remote.0,
            pass: remote.1,
        });
        self.remark("ICE restarts");
        self.time(now);
    }

    fn tick(&mut self, now: Instant) {
        if let Some(until) = *self.black_hole.borrow()
            && now < until + RECOVERY
        {
            self.reception.judge.blind(until + RECOVERY);
        }
        self.reception.tick(now);
        if self.stopping && self.reception.judge.closing().is_some_and(|at| at <= now) {
            self.end = Some(End::Told);
        }
        let silent = now.saturating_duration_since(self.heard);
        if silent > self.ingest.options.ghost {
            self.remark(&format!("nothing heard for {:.1} s", silent.as_secs_f64()));
            self.end = Some(End::Silent);
        }
        let every = self.ingest.options.key_frame_every;
        let flowing = self
            .last_packet
            .is_some_and(|at| now.saturating_duration_since(at) < every);
        let since = self.asked.or(self.connected);
        if flowing && since.is_some_and(|at| now.saturating_duration_since(at) >= every) {
            self.ask_key_frame(now);
        }
    }

    fn ask_key_frame(&mut self, now: Instant) {
        if self
            .asked
            .is_some_and(|at| now.saturating_duration_since(at) < REQUEST_SPACING)
        {
            return;
        }
        let kind = if self.ingest.options.profile.is_ome() {
            KeyframeRequestKind::Fir
        } else {
            KeyframeRequestKind::Pli
        };
        let video = self
            .remote
            .tracks
            .iter()
            .find(|(of, _)| *of == Track::Video);
        let Some((_, ssrc)) = video else {
            return;
        };
        let mut api = self.ingest.rtc.direct_api();
        let Some(stream) = api.stream_rx(&(*ssrc).into()) else {
            return;
        };
        stream.request_keyframe(kind);
        self.asked = Some(now);
        self.reception.judge.key_frame_wanted(now);
        self.time(now);
    }

    /// Decides whether this packet is thrown away to see it sent again: each is, at most once.
    fn is_withheld(&mut self, bytes: &[u8], now: Instant) -> bool {
        let Some(every) = self.ingest.options.withhold else {
            return false;
        };
        let [first, _, high, low, _, _, _, _, s0, s1, s2, s3, ..] = bytes else {
            return false;
        };
        let rtcp = (64..96).contains(&(bytes[1] & 0x7F));
        let ssrc = u32::from_be_bytes([*s0, *s1, *s2, *s3]);
        if first >> 6 != 2 || rtcp || self.track(ssrc) != Some(Track::Video) {
            return false;
        }
        let sequence = u16::from_be_bytes([*high, *low]);
        self.seen = self.seen.wrapping_add(1);
        // Not the first ones: a receiver cannot know that it misses what came before all others.
        let chosen = self.seen > 50 && self.seen.is_multiple_of(every);
        if !chosen || self.withheld.len() >= WITHHELD || !self.withheld.insert(sequence) {
            return false;
        }
        self.reception.withheld(now, sequence);
        true
    }

    fn hung_up(&mut self, peer: SocketAddr) {
        self.connections.remove(&peer);
        if self.way == Way::Tcp && self.connections.is_empty() && self.connected.is_some() {
            self.remark("the publisher closed the connection that carried the media");
            if !self.stopping {
                self.end = Some(End::Closed);
            }
        }
    }

    fn failed(&mut self, why: &str) {
        if !self.dead {
            self.dead = true;
            let why = why.to_owned();
            self.remark(&format!("the media engine refuses: {why}"));
            self.record.tally(|tally| tally.violation("dtls", why));
        }
    }

    fn is_black(&self, now: Instant) -> bool {
        self.black_hole.borrow().is_some_and(|until| now < until)
    }

    /// What carries the media, in the report's words.
    fn transport(&self) -> &'static str {
        let is_relay = |source| {
            let turn = self.ingest.turn.as_ref();
            turn.is_some_and(|turn| turn.relays_at(source))
        };
        match self.way {
            Way::Relay => "turn-tcp",
            Way::Tcp => "tcp",
            Way::Udp if self.source.is_some_and(is_relay) => "turn",
            Way::Udp => "udp",
        }
    }

    fn track(&self, ssrc: u32) -> Option<Track> {
        let mut tracks = self.remote.tracks.iter();
        tracks.find(|(_, of)| *of == ssrc).map(|(track, _)| *track)
    }

    fn remark(&self, text: &str) {
        self.record.message(now(), None, text);
    }
}

async fn receive(
    socket: Option<&UdpSocket>,
    buffer: &mut [u8],
) -> std::io::Result<(usize, SocketAddr)> {
    match socket {
        Some(socket) => socket.recv_from(buffer).await,
        None => std::future::pending().await,
    }
}

async fn relayed(place: Option<&mut Place>) -> Relayed {
    match place {
        Some(place) => place.recv().await,
        None => std::future::pending().await,
    }
}

async fn accept(
    listener: Option<&TcpListener>,
) -> std::io::Result<(tokio::net::TcpStream, SocketAddr)> {
    match listener {
        Some(listener) => listener.accept().await,
        None => std::future::pending().await,
    }
}

fn unix(time: SystemTime) -> f64 {
    time.duration_since(UNIX_EPOCH)
        .map_or_else(|e| -e.duration().as_secs_f64(), |d| d.as_secs_f64())
}

/// The 64-bit time nearest to `base` whose low half is `low`.
fn extend(base: u64, low: u32) -> u64 {
    let off = low.wrapping_sub(base as u32).cast_signed();
    base.saturating_add_signed(i64::from(off))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_extended_to_the_nearest() {
        let base = (7 << 32) + 100;
        assert_eq!(extend(base, 90), base - 10);
        assert_eq!(extend(base, 110), base + 10);
        assert_eq!(extend(base, u32::MAX), base - 101);
        assert_eq!(extend(5, u32::MAX), 0);
    }
}
