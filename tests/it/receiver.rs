//! A receiving server of str0m, in a task of its own: what the peer is held against. It shares nothing with the peer.

#![expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "real clocks; and of the other side's many events only some matter"
)]

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use str0m::change::{SdpAnswer, SdpOffer, SdpPendingOffer};
use str0m::format::{Codec, FormatParams};
use str0m::media::{Direction, Frequency, KeyframeRequestKind, MediaKind};
use str0m::net::{DatagramRecv, Protocol, Receive, TcpType};
use str0m::rtp::RawPacket;
use str0m::rtp::rtcp::Rtcp;
use str0m::{Candidate, Event, Input, Output, Rtc, RtcConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, UdpSocket};
use tokio::sync::{mpsc, oneshot, watch};

/// Payload types of Opus: str0m's own, and OvenMediaEngine's.
const AUDIO: [u8; 2] = [111, 102];

/// One RTP packet as it arrived.
#[derive(Clone, Debug)]
pub(crate) struct Arrived {
    pub(crate) ssrc: u32,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) marker: bool,
    pub(crate) payload: Vec<u8>,
}

/// One sender report.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Report {
    pub(crate) ssrc: u32,
    pub(crate) ntp: SystemTime,
    pub(crate) rtp: u32,
    pub(crate) packets: u32,
}

/// What the server has seen so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) connected: bool,
    pub(crate) packets: Vec<Arrived>,
    pub(crate) reports: Vec<Report>,
    pub(crate) goodbyes: HashSet<u32>,
    pub(crate) closed: bool,
    pub(crate) dropped: usize,
    /// Where packets came from.
    pub(crate) sources: HashSet<IpAddr>,
}

impl Seen {
    pub(crate) fn video(&self) -> impl Iterator<Item = &Arrived> {
        self.packets
            .iter()
            .filter(|p| !AUDIO.contains(&p.payload_type))
    }

    pub(crate) fn audio(&self) -> impl Iterator<Item = &Arrived> {
        self.packets
            .iter()
            .filter(|p| AUDIO.contains(&p.payload_type))
    }
}

/// What a test tells the server to do.
pub(crate) enum Order {
    /// Ask for a key frame of this SSRC.
    KeyFrame(u32, KeyframeRequestKind),
    /// Close in order, with a DTLS close_notify.
    Close,
    /// Answer another offer.
    Answer(String, oneshot::Sender<String>),
    /// Keep the sockets and never touch them again.
    Freeze,
}

/// How the server receives.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Options {
    /// ICE-TCP alone instead of UDP alone.
    pub(crate) tcp: bool,
    /// Lose every n-th video packet once.
    pub(crate) lose_every: Option<u16>,
    /// Offer in the shape of OvenMediaEngine 0.21 (payload types 100 and 102, everything at session level).
    pub(crate) ome: bool,
    /// Forget packets once they are counted (for long runs).
    pub(crate) forget: bool,
    /// Where it is, other than on 127.0.0.1.
    pub(crate) ip: Option<IpAddr>,
    /// Hear only what comes from there, as behind a network that drops the rest.
    pub(crate) only_from: Option<IpAddr>,
}

/// The server, ready to be offered to or offering.
pub(crate) struct Receiver {
    pub(crate) seen: watch::Receiver<Seen>,
    pub(crate) orders: mpsc::UnboundedSender<Order>,
    pub(crate) candidate: String,
    task: tokio::task::JoinHandle<()>,
}

/// A server that has offered and waits for its answer.
pub(crate) struct Offering {
    rtc: Box<Rtc>,
    socket: Socket,
    pending: SdpPendingOffer,
    options: Options,
}

enum Socket {
    Tcp(TcpListener, SocketAddr),
    Udp(UdpSocket, SocketAddr),
}

impl Socket {
    async fn bind(options: Options) -> Self {
        let at = (options.ip.unwrap_or(Ipv4Addr::LOCALHOST.into()), 0);
        if options.tcp {
            let listener = TcpListener::bind(at).await.expect("a listener");
            let local = listener.local_addr().expect("its address");
            Self::Tcp(listener, local)
        } else {
            let socket = UdpSocket::bind(at).await.expect("a socket");
            let local = socket.local_addr().expect("its address");
            Self::Udp(socket, local)
        }
    }

    fn candidate(&self) -> Candidate {
        match self {
            Self::Tcp(_, local) => Candidate::builder()
                .tcp()
                .host(*local)
                .tcptype(TcpType::Passive)
                .build()
                .expect("a candidate"),
            Self::Udp(_, local) => Candidate::host(*local, "udp").expect("a candidate"),
        }
    }
}

fn rtc(options: Options) -> Box<Rtc> {
    let mut config = RtcConfig::new()
        .set_crypto_provider(Arc::new(str0m::crypto::from_feature_flags()))
        .clear_codecs()
        .enable_opus(!options.ome, false)
        .enable_h264(!options.ome)
        .set_rtp_mode(true)
        .enable_raw_packets(true);
    if options.ome {
        let codecs = config.codec_config();
        codecs.add_h264(100.into(), None, true, 0x42_E0_1F);
        let (hz, two) = (Frequency::FORTY_EIGHT_KHZ, Some(2));
        codecs.add_config(
            102.into(),
            None,
            Codec::Opus,
            hz,
            two,
            FormatParams::default(),
        );
    }
    Box::new(config.build(Instant::now()))
}

impl Receiver {
    /// Answers `offer`. The answer holds no candidate: that is [`Self::candidate`].
    pub(crate) async fn answering(offer: &str, options: Options) -> (Self, String) {
        let mut rtc = rtc(options);
        let socket = Socket::bind(options).await;
        rtc.add_local_candidate(socket.candidate());
        let offer = SdpOffer::from_sdp_string(offer).expect("an offer str0m reads");
        let answer = rtc.sdp_api().accept_offer(offer).expect("an answer");
        let answer = without_candidates(&answer.to_sdp_string());
        (Self::start(rtc, socket, options), answer)
    }

    /// Offers to receive a picture and a sound; the offer holds no candidate.
    pub(crate) async fn offering(options: Options) -> (Offering, String, String) {
        let mut rtc = rtc(options);
        let socket = Socket::bind(options).await;
        let candidate = socket.candidate();
        rtc.add_local_candidate(candidate.clone());
        let mut changes = rtc.sdp_api();
        changes.add_media(MediaKind::Video, Direction::RecvOnly, None, None, None);
        changes.add_media(MediaKind::Audio, Direction::RecvOnly, None, None, None);
        let (offer, pending) = changes.apply().expect("an offer");
        let mut offer = without_candidates(&offer.to_sdp_string());
        if options.ome {
            offer = as_ome_offers(&offer);
        }
        let offering = Offering {
            rtc,
            socket,
            pending,
            options,
        };
        (offering, offer, candidate.to_sdp_string())
    }

    fn start(rtc: Box<Rtc>, socket: Socket, options: Options) -> Self {
        let candidate = socket.candidate().to_sdp_string();
        let (seen_by, seen) = watch::channel(Seen::default());
        let (orders, ordered) = mpsc::unbounded_channel();
        let task = tokio::spawn(async move {
            match socket {
                Socket::Tcp(listener, local) => {
                    over_tcp(rtc, listener, local, options, seen_by, ordered).await;
                }
                Socket::Udp(socket, local) => {
                    over_udp(rtc, socket, local, options, seen_by, ordered).await;
                }
            }
        });
        Self {
            seen,
            orders,
            candidate,
            task,
        }
    }

    /// Waits until `what` holds of what was seen; fails the test after ten seconds.
    pub(crate) async fn until(&self, what: &str, mut holds: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.clone();
        let waiting = seen.wait_for(|seen| holds(seen));
        match tokio::time::timeout(Duration::from_secs(10), waiting).await {
            Ok(Ok(seen)) => seen.clone(),
            Ok(Err(_)) => panic!("the server ended before {what}"),
            Err(_) => panic!("never: {what}"),
        }
    }

    /// Ends the server without a word and waits until it is gone.
    pub(crate) async fn kill(self) {
        self.task.abort();
        drop(self.task.await);
    }
}

impl Offering {
    /// Takes the answer and begins to receive.
    pub(crate) fn accept(self, answer: &str) -> Receiver {
        let Self {
            mut rtc,
            socket,
            pending,
            options,
        } = self;
        let answer = SdpAnswer::from_sdp_string(answer).expect("an answer str0m reads");
        rtc.sdp_api()
            .accept_answer(pending, answer)
            .expect("an answer that fits");
        Receiver::start(rtc, socket, options)
    }
}

/// `offer` as OvenMediaEngine 0.21.0 words it (recorded November 2026): video first, ICE and fingerprint at session
/// level, `OPUS` in capitals, extensions that must not be accepted.
fn as_ome_offers(offer: &str) -> String {
    let values = |prefix: &str| -> Vec<String> {
        let lines = offer.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.map(str::to_owned).collect()
    };
    let (ufrag, password) = (&values("a=ice-ufrag:")[0], &values("a=ice-pwd:")[0]);
    let (fingerprint, mids) = (&values("a=fingerprint:")[0], values("a=mid:"));
    let extension = "http://www.ietf.org/id/draft-holmer-rmcat-transport-wide-cc-extensions-01";
    let text = format!(
        "v=0\no=OvenMediaEngine 124 2 IN IP4 127.0.0.1\ns=-\nt=0 0\na=group:BUNDLE {video} {audio}\n\
         a=group:LS {video} {audio}\na=msid-semantic:WMS AW3F\na=extmap-allow-mixed\na=fingerprint:{fingerprint}\n\
         a=ice-options:trickle\na=ice-ufrag:{ufrag}\na=ice-pwd:{password}\n\
         m=video 9 UDP/TLS/RTP/SAVPF 100 101\nc=IN IP4 0.0.0.0\na=recvonly\na=mid:{video}\na=setup:actpass\n\
         a=rtcp-mux\na=msid:AW3F S63W\na=extmap:3 {extension}\n\
         a=extmap:5 uri:ietf:rtc:rtp-hdrext:video:CompositionTime\na=rtpmap:100 H264/90000\n\
         a=fmtp:100 packetization-mode=1;profile-level-id=42e01f;level-asymmetry-allowed=1\n\
         a=rtcp-fb:100 transport-cc\na=rtcp-fb:100 ccm fir\na=rtcp-fb:100 nack pli\na=rtpmap:101 VP8/90000\n\
         a=rtcp-fb:101 transport-cc\na=rtcp-fb:101 ccm fir\na=rtcp-fb:101 nack pli\n\
         m=audio 9 UDP/TLS/RTP/SAVPF 102\nc=IN IP4 0.0.0.0\na=recvonly\na=mid:{audio}\na=setup:actpass\n\
         a=rtcp-mux\na=msid:AW3F PxaI\na=extmap:3 {extension}\na=rtpmap:102 OPUS/48000/2\n\
         a=fmtp:102 sprop-stereo=1;stereo=1;minptime=10;useinbandfec=1\na=rtcp-fb:102 transport-cc\n",
        video = mids[0],
        audio = mids[1],
    );
    text.replace('\n', "\r\n")
}

fn without_candidates(sdp: &str) -> String {
    let lines = sdp.lines().filter(|line| {
        !line.starts_with("a=candidate") && !line.starts_with("a=end-of-candidates")
    });
    lines.map(|line| format!("{line}\r\n")).collect()
}

async fn over_udp(
    rtc: Box<Rtc>,
    socket: UdpSocket,
    local: SocketAddr,
    options: Options,
    seen: watch::Sender<Seen>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut server = Server::new(rtc, options, seen);
    let mut buffer = vec![0; 2_000];
    loop {
        let (packets, until) = server.drain();
        for (packet, to) in packets {
            socket.send_to(&packet, to).await.expect("sent");
        }
        let Some(until) = until else { return };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => server.tick(),
            received = socket.recv_from(&mut buffer) => {
                let (n, source) = received.expect("received");
                server.take(Protocol::Udp, source, local, &buffer[..n]);
            }
            Some(order) = orders.recv() => match order {
                Order::Freeze => std::future::pending().await,
                order => server.obey(order),
            },
        }
    }
}

async fn over_tcp(
    rtc: Box<Rtc>,
    listener: TcpListener,
    local: SocketAddr,
    options: Options,
    seen: watch::Sender<Seen>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    let mut server = Server::new(rtc, options, seen);
    let mut writers = HashMap::new();
    let (frames, mut framed) = mpsc::channel(1_024);
    let mut readers = tokio::task::JoinSet::new();
    loop {
        let (packets, until) = server.drain();
        for (packet, to) in packets {
            if let Some(writer) = writers.get_mut(&to) {
                let writer: &mut tokio::net::tcp::OwnedWriteHalf = writer;
                let length = u16::try_from(packet.len()).expect("a frame");
                let frame = [&length.to_be_bytes()[..], &packet[..]].concat();
                drop(writer.write_all(&frame).await);
            }
        }
        let Some(until) = until else { return };
        tokio::select! {
            () = tokio::time::sleep_until(until.into()) => server.tick(),
            accepted = listener.accept() => {
                let (stream, source) = accepted.expect("accepted");
                let (mut read, write) = stream.into_split();
                writers.insert(source, write);
                let frames = frames.clone();
                readers.spawn(async move {
                    while let Ok(length) = read.read_u16().await {
                        let mut frame = vec![0; usize::from(length)];
                        if read.read_exact(&mut frame).await.is_err()
                            || frames.send((source, frame)).await.is_err()
                        {
                            return;
                        }
                    }
                });
            }
            Some((source, frame)) = framed.recv() => {
                server.take(Protocol::Tcp, source, local, &frame);
            }
            Some(order) = orders.recv() => match order {
                Order::Freeze => std::future::pending().await,
                order => server.obey(order),
            },
        }
    }
}

struct Server {
    rtc: Box<Rtc>,
    options: Options,
    seen: watch::Sender<Seen>,
    lost: HashSet<(u32, u16)>,
    mids: Vec<str0m::media::Mid>,
}

impl Server {
    fn new(rtc: Box<Rtc>, options: Options, seen: watch::Sender<Seen>) -> Self {
        Self {
            rtc,
            options,
            seen,
            lost: HashSet::new(),
            mids: Vec::new(),
        }
    }

    /// Tells what happened; what is to be sent, and when to be called again: `None` at the end.
    fn drain(&mut self) -> (Vec<(Vec<u8>, SocketAddr)>, Option<Instant>) {
        let mut packets = Vec::new();
        let until = loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => break self.rtc.is_alive().then_some(at),
                Ok(Output::Transmit(packet)) => {
                    packets.push((packet.contents.to_vec(), packet.destination));
                }
                Ok(Output::Event(event)) => self.tell(event),
                Err(_) => break None,
            }
        };
        (packets, until)
    }

    fn tell(&mut self, event: Event) {
        // str0m keeps silent about losses where there is no RTX; other servers do not.
        match &event {
            Event::MediaAdded(media) => self.mids.push(media.mid),
            Event::RtpPacket(_) => {
                for mid in std::mem::take(&mut self.mids) {
                    if let Some(stream) = self.rtc.direct_api().stream_rx_by_mid(mid, None) {
                        stream.suppress_nack(false);
                    }
                }
            }
            _ => {}
        }
        let forget = self.options.forget;
        self.seen.send_if_modified(|seen| {
            match event {
                Event::Connected => seen.connected = true,
                Event::Closed => seen.closed = true,
                Event::RtpPacket(packet) => {
                    if forget {
                        seen.packets.clear();
                    }
                    seen.packets.push(Arrived {
                        ssrc: *packet.header.ssrc,
                        payload_type: *packet.header.payload_type,
                        sequence: packet.header.sequence_number,
                        timestamp: packet.header.timestamp,
                        marker: packet.header.marker,
                        payload: packet.payload.to_vec(),
                    });
                }
                Event::RawPacket(raw) => match *raw {
                    RawPacket::RtcpRx(Rtcp::SenderReport(report)) if !forget => {
                        let info = report.sender_info;
                        seen.reports.push(Report {
                            ssrc: *info.ssrc,
                            ntp: info.ntp_time,
                            rtp: info.rtp_time.numer() as u32,
                            packets: info.sender_packet_count,
                        });
                    }
                    RawPacket::RtcpRx(Rtcp::Goodbye(goodbye)) => {
                        seen.goodbyes
                            .extend(goodbye.reports.iter().map(|ssrc| **ssrc));
                    }
                    _ => return false,
                },
                _ => return false,
            }
            true
        });
    }

    fn tick(&mut self) {
        self.input(Input::Timeout(Instant::now()));
    }

    fn take(&mut self, proto: Protocol, source: SocketAddr, destination: SocketAddr, data: &[u8]) {
        if self.options.only_from.is_some_and(|ip| ip != source.ip()) {
            return;
        }
        self.seen
            .send_if_modified(|seen| seen.sources.insert(source.ip()));
        if self.loses(data) {
            self.seen.send_modify(|seen| seen.dropped += 1);
            return;
        }
        let Ok(contents) = DatagramRecv::try_from(data) else {
            return;
        };
        let receive = Receive {
            proto,
            source,
            destination,
            contents,
        };
        self.input(Input::Receive(Instant::now(), receive));
    }

    fn loses(&mut self, data: &[u8]) -> bool {
        let (Some(every), Some(&first), Some(&second)) =
            (self.options.lose_every, data.first(), data.get(1))
        else {
            return false;
        };
        // RTP and not RTCP (RFC 5761), and not the sound.
        if first >> 6 != 2 || (192..=223).contains(&second) || AUDIO.contains(&(second & 0x7F)) {
            return false;
        }
        let sequence = u16::from_be_bytes([data[2], data[3]]);
        let ssrc = u32::from_be_bytes([data[8], data[9], data[10], data[11]]);
        sequence.is_multiple_of(every) && self.lost.insert((ssrc, sequence))
    }

    fn obey(&mut self, order: Order) {
        match order {
            Order::KeyFrame(ssrc, kind) => {
                if let Some(stream) = self.rtc.direct_api().stream_rx(&ssrc.into()) {
                    stream.request_keyframe(kind);
                }
                self.tick();
            }
            Order::Close => {
                self.rtc.close().expect("closing begins");
                self.tick();
            }
            Order::Answer(offer, answer) => {
                let offer = SdpOffer::from_sdp_string(&offer).expect("an offer str0m reads");
                let answered = self.rtc.sdp_api().accept_offer(offer).expect("an answer");
                drop(answer.send(without_candidates(&answered.to_sdp_string())));
                self.tick();
            }
            Order::Freeze => {}
        }
    }

    fn input(&mut self, input: Input<'_>) {
        if self.rtc.handle_input(input).is_err() {
            self.rtc.disconnect();
        }
    }
}
