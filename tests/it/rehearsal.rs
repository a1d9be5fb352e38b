//! A publisher made for the lab's own tests: `str0m` on the other side, raw JSON, real pictures and sound.
//!
//! It keeps every rule unless told not to, so that each rule can be broken alone.

#![expect(
    clippy::disallowed_methods,
    reason = "the engine in the test runs in real time"
)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use futures_util::SinkExt;
use futures_util::StreamExt;
use onair::capture::Source;
use onair::capture::synthetic::Pace;
use onair::capture::synthetic::TestCard;
use onair::capture::synthetic::Tone;
use onair::config::Bitrate;
use onair::config::Size;
use onair::encode::Controls;
use onair::encode::Encoder;
use onair::encode::H264;
use onair::encode::Opus;
use onair::media::access_unit::AccessUnit;
use onair::media::access_unit::Track;
use onair::media::access_unit::nal_units;
use onair::media::time::MediaClock;
use onair::media::time::VIDEO_CLOCK_HZ;
use serde_json::Value;
use serde_json::json;
use str0m::Candidate;
use str0m::Event;
use str0m::IceCreds;
use str0m::Input;
use str0m::Output;
use str0m::Rtc;
use str0m::format::Codec;
use str0m::format::FormatParams;
use str0m::media::Frequency;
use str0m::media::MediaKind;
use str0m::media::Mid;
use str0m::net::Protocol;
use str0m::net::Receive;
use str0m::net::TcpType;
use str0m::rtp::RtpWrite;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_tungstenite::MaybeTlsStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;

use crate::relay::Client;
use crate::relay::Line;
use crate::relay::Met;

pub(crate) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

/// SSRCs of the tracks.
const AUDIO: u32 = 0x1000_0001;
const VIDEO: u32 = 0x1000_0002;

/// What the publisher does otherwise than it should.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Habits {
    /// Its description names no SSRC.
    pub(crate) no_ssrc: bool,
    /// Its first picture is left out, so that no IDR comes first.
    pub(crate) no_first_idr: bool,
    /// The marker is never set.
    pub(crate) no_marker: bool,
    /// Requests for key frames are ignored.
    pub(crate) deaf: bool,
    /// Its sound is stamped this much too early.
    pub(crate) sound_early: Duration,
    /// It hangs up without BYE and `close_notify`.
    pub(crate) no_goodbye: bool,
    /// Whether it takes the first ICE server that it is offered.
    pub(crate) relaying: Relaying,
    /// It sends no sender report.
    pub(crate) no_reports: bool,
}

impl Habits {
    /// Those of a publisher that keeps every rule.
    pub(crate) const PLAIN: Self = Self {
        no_ssrc: false,
        no_first_idr: false,
        no_marker: false,
        deaf: false,
        sound_early: Duration::ZERO,
        no_goodbye: false,
        relaying: Relaying::No,
        no_reports: false,
    };
}

/// How a publisher goes through a TURN server.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Relaying {
    #[default]
    No,
    ByIndications,
    ByChannel,
}

/// Opens a signalling socket.
pub(crate) async fn connect(url: &str) -> Socket {
    let (socket, _) = tokio_tungstenite::connect_async(url)
        .await
        .expect("the lab takes the upgrade");
    socket
}

/// Sends a message.
pub(crate) async fn say(socket: &mut Socket, message: &Value) {
    let text = Message::text(message.to_string());
    socket.send(text).await.expect("the lab reads");
}

/// The next JSON message; `None` if the socket ends first, or says nothing for `patience`.
pub(crate) async fn hear(socket: &mut Socket, patience: Duration) -> Option<Value> {
    let next = async {
        loop {
            match socket.next().await? {
                Ok(Message::Text(text)) => return serde_json::from_str(&text).ok(),
                Ok(_) => {}
                Err(_) => return None,
            }
        }
    };
    tokio::time::timeout(patience, next).await.ok().flatten()
}

/// An engine and its offer, before the answer is known.
pub(crate) struct Offered {
    rtc: Box<Rtc>,
    habits: Habits,
    /// The offer.
    pub(crate) sdp: String,
}

impl Offered {
    /// Payload types of H.264 and Opus.
    const TYPES: (u8, u8) = (108, 111);

    /// A new engine.
    pub(crate) fn new(habits: Habits) -> Self {
        let mut rtc = Publisher::engine(Self::TYPES, habits);
        let sdp = offer(&mut rtc, habits);
        Self { rtc, habits, sdp }
    }

    /// Takes the answer, and one candidate.
    pub(crate) async fn answered(self, answer: &str, candidate: &str) -> Publisher {
        Publisher::start(
            self.rtc,
            Self::TYPES,
            answer,
            candidate,
            self.habits,
            true,
            None,
        )
        .await
    }
}

/// An offer of both tracks.
fn offer(rtc: &mut Rtc, habits: Habits) -> String {
    format!(
        "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE 0 1\r\n{}{}",
        section(rtc, "audio", "0", "111", "actpass", AUDIO, habits),
        section(rtc, "video", "1", "108", "actpass", VIDEO, habits),
    )
}

/// A publisher whose descriptions are exchanged.
pub(crate) struct Publisher {
    rtc: Box<Rtc>,
    path: Path,
    /// Where it was before a restart.
    left: Option<(SocketAddr, UdpSocket)>,
    local: SocketAddr,
    remote: SocketAddr,
    habits: Habits,
    types: (u8, u8),
    sequence: (u64, u64),
    units: VecDeque<AccessUnit>,
    held: Vec<AccessUnit>,
    connected: bool,
    skipped: bool,
    key_frame_wanted: bool,
}

enum Path {
    Relay(Box<Client>),
    Tcp(TcpStream, Vec<u8>),
    Udp(UdpSocket),
}

impl Publisher {
    /// An engine with payload types for H.264 and Opus.
    fn engine((h264, opus): (u8, u8), habits: Habits) -> Box<Rtc> {
        let every = if habits.no_reports {
            Duration::from_secs(3_600)
        } else {
            Duration::from_millis(400)
        };
        let mut config = Rtc::builder()
            .set_rtp_mode(true)
            .set_rtcp_report_interval_audio(every)
            .set_rtcp_report_interval_video(every)
            .clear_codecs();
        let codecs = config.codec_config();
        codecs.add_h264(h264.into(), None, true, 0x42_e0_1f);
        let clock = Frequency::FORTY_EIGHT_KHZ;
        let format = FormatParams::default();
        codecs.add_config(opus.into(), None, Codec::Opus, clock, Some(2), format);
        Box::new(config.build(Instant::now()))
    }

    /// Publishes by OvenMediaEngine's handshake on `socket`. The error is the lab's.
    pub(crate) async fn ome(socket: &mut Socket, habits: Habits) -> Result<Self, Value> {
        Self::ome_through(socket, habits, None).await
    }

    /// As [`Publisher::ome`], with the media through `relay`.
    pub(crate) async fn ome_through(
        socket: &mut Socket,
        habits: Habits,
        relay: Option<Client>,
    ) -> Result<Self, Value> {
        say(socket, &json!({"command": "request_offer"})).await;
        let offer = hear(socket, Duration::from_secs(5)).await.expect("a reply");
        if offer["command"] != "offer" {
            return Err(offer);
        }
        let sdp = offer["sdp"]["sdp"].as_str().expect("an offer").to_owned();
        let mids: Vec<&str> = values(&sdp, "a=mid:").collect();
        let types = (100, 102);
        let mut rtc = Self::engine(types, habits);
        let answer = format!(
            "v=0\r\no=- 1 2 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\na=group:BUNDLE {} {}\r\n{}{}",
            mids[0],
            mids[1],
            section(&mut rtc, "video", mids[0], "100", "active", VIDEO, habits),
            section(&mut rtc, "audio", mids[1], "102", "active", AUDIO, habits),
        );
        let id = offer["id"].clone();
        let answer = json!({"type": "answer", "sdp": answer});
        say(
            socket,
            &json!({"id": id, "peer_id": 0, "command": "answer", "sdp": answer}),
        )
        .await;
        let candidate = offer["candidates"][0]["candidate"].as_str().expect("one");
        let relay = match habits.relaying {
            Relaying::No => relay,
            Relaying::ByIndications | Relaying::ByChannel => Some(offered_relay(&offer).await),
        };
        Ok(Self::start(rtc, types, &sdp, candidate, habits, false, relay).await)
    }

    /// Publishes by Wowza's handshake on `socket`. The error is the lab's.
    pub(crate) async fn wowza(
        socket: &mut Socket,
        (application, stream): (&str, &str),
        habits: Habits,
    ) -> Result<Self, Value> {
        let offered = Offered::new(habits);
        say(
            socket,
            &json!({
                "direction": "publish", "command": "sendOffer",
                "streamInfo": {"applicationName": application, "streamName": stream, "sessionId": "[empty]"},
                "sdp": {"type": "offer", "sdp": offered.sdp}, "userData": {},
            }),
        )
        .await;
        let reply = hear(socket, Duration::from_secs(5)).await.expect("a reply");
        if reply["status"] != 200 {
            return Err(reply);
        }
        let sdp = reply["sdp"]["sdp"].as_str().expect("an answer").to_owned();
        let candidate = reply["iceCandidates"][0]["candidate"]
            .as_str()
            .expect("one");
        Ok(offered.answered(&sdp, candidate).await)
    }

    /// Takes new credentials and moves to another UDP port; what is under way goes on from the old one. Returns the
    /// offer that says so.
    pub(crate) async fn restart(&mut self) -> String {
        let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
        let local = socket.local_addr().expect("bound");
        let host = |at| Candidate::host(at, Protocol::Udp).expect("a candidate");
        self.rtc.add_local_candidate(host(local));
        let mut api = self.rtc.direct_api();
        api.invalidate_candidate(&host(self.local));
        api.set_local_ice_credentials(IceCreds::new());
        if let Path::Udp(old) = std::mem::replace(&mut self.path, Path::Udp(socket)) {
            self.left = Some((self.local, old));
        }
        self.local = local;
        offer(&mut self.rtc, self.habits)
    }

    /// Takes the server's new credentials out of an answer or a fragment.
    pub(crate) fn restarted(&mut self, sdp: &str) {
        let first = |key: &str| values(sdp, key).next().expect("new credentials").to_owned();
        self.rtc.direct_api().set_remote_ice_credentials(IceCreds {
            ufrag: first("a=ice-ufrag:"),
            pass: first("a=ice-pwd:"),
        });
    }

    async fn start(
        mut rtc: Box<Rtc>,
        types: (u8, u8),
        sdp: &str,
        candidate: &str,
        habits: Habits,
        controlling: bool,
        relay: Option<Client>,
    ) -> Self {
        let words: Vec<&str> = candidate.split(' ').collect();
        let address = format!("{}:{}", words[4], words[5]);
        let remote: SocketAddr = address.parse().expect("an address");
        let (path, local, mine, theirs);
        if let Some(mut client) = relay {
            client.permit(remote).await;
            if habits.relaying == Relaying::ByChannel {
                client.bind_channel(remote).await;
            }
            local = client.relayed;
            let side = |address| Candidate::host(address, Protocol::Udp);
            (mine, theirs) = (side(local), side(remote));
            path = Path::Relay(Box::new(client));
        } else if words[2] == "TCP" {
            let stream = TcpStream::connect(remote).await.expect("it listens");
            local = stream.local_addr().expect("bound");
            let side = |address, role| {
                Candidate::builder()
                    .tcp()
                    .host(address)
                    .tcptype(role)
                    .build()
            };
            (mine, theirs) = (side(local, TcpType::Active), side(remote, TcpType::Passive));
            path = Path::Tcp(stream, Vec::new());
        } else {
            let socket = UdpSocket::bind("127.0.0.1:0").await.expect("loopback");
            local = socket.local_addr().expect("bound");
            let side = |address| Candidate::host(address, Protocol::Udp);
            (mine, theirs) = (side(local), side(remote));
            path = Path::Udp(socket);
        }
        rtc.add_local_candidate(mine.expect("a candidate"));
        rtc.add_remote_candidate(theirs.expect("a candidate"));
        let first = |key: &str| values(sdp, key).next().unwrap_or_default().to_owned();
        let mut api = rtc.direct_api();
        api.set_ice_controlling(controlling);
        api.set_remote_ice_credentials(IceCreds {
            ufrag: first("a=ice-ufrag:"),
            pass: first("a=ice-pwd:"),
        });
        if let Ok(fingerprint) = first("a=fingerprint:").parse() {
            api.set_remote_fingerprint(fingerprint);
        }
        for (mid, kind, ssrc) in [
            ("audio", MediaKind::Audio, AUDIO),
            ("video", MediaKind::Video, VIDEO),
        ] {
            let mid = Mid::from(mid);
            api.declare_media(mid, kind);
            api.declare_stream_tx(ssrc.into(), None, mid, None)
                .set_unpaced(true);
        }
        api.start_dtls(true).expect("DTLS begins");
        Self {
            rtc,
            path,
            left: None,
            local,
            remote,
            habits,
            types,
            sequence: (700, 800),
            units: VecDeque::new(),
            held: Vec::new(),
            connected: false,
            skipped: false,
            key_frame_wanted: false,
        }
    }

    /// Where its media goes.
    pub(crate) const fn remote(&self) -> SocketAddr {
        self.remote
    }

    /// Sends test card and tone for `time`; `false` if no connection came of it.
    pub(crate) async fn publish(&mut self, clock: MediaClock, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut media: Option<mpsc::Receiver<AccessUnit>> = None;
        let keys = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        while Instant::now() < until {
            if self.connected && media.is_none() {
                media = Some(sources(clock, std::sync::Arc::clone(&keys)));
            }
            if std::mem::take(&mut self.key_frame_wanted) && !self.habits.deaf {
                keys.store(true, std::sync::atomic::Ordering::Relaxed);
            }
            self.step(media.as_mut(), until).await;
            while let Some(unit) = self.units.pop_front() {
                self.write(&clock, &unit);
            }
        }
        self.connected
    }

    /// Says goodbye, unless it has no manners.
    pub(crate) async fn close(mut self) {
        if self.habits.no_goodbye {
            return;
        }
        self.rtc.close().expect("it closes");
        for _ in 0..50 {
            if !self.rtc.is_alive() {
                break;
            }
            let soon = Instant::now() + Duration::from_millis(5);
            self.step(None, soon).await;
        }
    }

    async fn step(&mut self, media: Option<&mut mpsc::Receiver<AccessUnit>>, until: Instant) {
        let mut due = until;
        loop {
            match self.rtc.poll_output() {
                Ok(Output::Timeout(at)) => {
                    due = due.min(at);
                    break;
                }
                Ok(Output::Transmit(packet)) => match &mut self.path {
                    Path::Relay(client) => client.send(self.remote, &packet.contents).await,
                    Path::Udp(socket) => {
                        let socket = match &self.left {
                            Some((at, old)) if *at == packet.source => old,
                            _ => socket,
                        };
                        socket.try_send_to(&packet.contents, self.remote).ok();
                    }
                    Path::Tcp(stream, _) => {
                        let length = u16::try_from(packet.contents.len()).expect("small");
                        let frame = [&length.to_be_bytes()[..], &packet.contents].concat();
                        stream.write_all(&frame).await.ok();
                    }
                },
                Ok(Output::Event(Event::Connected)) => self.connected = true,
                Ok(Output::Event(Event::KeyframeRequest(_))) => self.key_frame_wanted = true,
                Ok(Output::Event(_)) => {}
                Err(_) => break,
            }
        }
        let mut buffer = vec![0; 4096];
        let packet = tokio::select! {
            packet = receive(&mut self.path, &mut buffer) => packet,
            Some(unit) = next(media) => {
                self.units.push_back(unit);
                None
            }
            () = tokio::time::sleep_until(due.into()) => None,
        };
        let now = Instant::now();
        let input = match &packet {
            Some(packet) => {
                let protocol = match self.path {
                    Path::Tcp(..) => Protocol::Tcp,
                    Path::Relay(_) | Path::Udp(_) => Protocol::Udp,
                };
                match Receive::new(protocol, self.remote, self.local, packet) {
                    Ok(received) => Input::Receive(now, received),
                    Err(_) => return,
                }
            }
            None => Input::Timeout(now),
        };
        self.rtc.handle_input(input).ok();
    }

    fn write(&mut self, clock: &MediaClock, unit: &AccessUnit) {
        let mut captured = unit.captured;
        let (ssrc, payload_type, hz) = match unit.track {
            Track::Audio => (AUDIO, self.types.1, 48_000),
            Track::Video => (VIDEO, self.types.0, VIDEO_CLOCK_HZ),
        };
        if unit.track == Track::Video && self.habits.no_first_idr && !self.skipped {
            self.skipped = true;
            return;
        }
        // Sound is held until the first picture, so that both tracks start together.
        if unit.track == Track::Audio {
            if self.sequence.1 == 800 {
                self.held.push(unit.clone());
                return;
            }
            captured = captured.saturating_back(self.habits.sound_early);
        }
        let time = captured.ticks(hz) as u32;
        let wallclock = clock.instant(captured).min(Instant::now());
        let payloads = match unit.track {
            Track::Audio => vec![unit.data.to_vec()],
            Track::Video => nal_units(&unit.data).flat_map(payloads).collect(),
        };
        let last = payloads.len() - 1;
        for (n, payload) in payloads.into_iter().enumerate() {
            let sequence = match unit.track {
                Track::Audio => &mut self.sequence.0,
                Track::Video => &mut self.sequence.1,
            };
            *sequence += 1;
            let marker = n == last && unit.track == Track::Video && !self.habits.no_marker;
            let write = RtpWrite::new(
                payload_type.into(),
                (*sequence).into(),
                time,
                wallclock,
                payload,
            )
            .marker(marker);
            let mut api = self.rtc.direct_api();
            let stream = api.stream_tx(&ssrc.into()).expect("declared");
            stream.write_rtp(write);
        }
        self.rtc.handle_input(Input::Timeout(Instant::now())).ok();
        if unit.track == Track::Video {
            for sound in std::mem::take(&mut self.held) {
                if sound.captured + Duration::from_millis(10) >= unit.captured {
                    self.write(clock, &sound);
                }
            }
        }
    }
}

fn section(
    rtc: &mut Rtc,
    kind: &str,
    mid: &str,
    payload_type: &str,
    setup: &str,
    ssrc: u32,
    habits: Habits,
) -> String {
    let api = rtc.direct_api();
    let (creds, fingerprint) = (api.local_ice_credentials(), api.local_dtls_fingerprint());
    let codec = if kind == "video" {
        format!(
            "a=rtpmap:{payload_type} H264/90000\r\n\
             a=fmtp:{payload_type} packetization-mode=1;profile-level-id=42e01f\r\n\
             a=rtcp-fb:{payload_type} ccm fir\r\na=rtcp-fb:{payload_type} nack\r\n"
        )
    } else {
        format!("a=rtpmap:{payload_type} opus/48000/2\r\n")
    };
    let ssrc = if habits.no_ssrc {
        String::new()
    } else {
        format!("a=ssrc:{ssrc} cname:rehearsal\r\n")
    };
    format!(
        "m={kind} 9 UDP/TLS/RTP/SAVPF {payload_type}\r\nc=IN IP4 0.0.0.0\r\na=ice-ufrag:{}\r\na=ice-pwd:{}\r\n\
         a=fingerprint:{fingerprint}\r\na=setup:{setup}\r\na=mid:{mid}\r\na=sendonly\r\na=rtcp-mux\r\n{codec}{ssrc}",
        creds.ufrag, creds.pass
    )
}

fn values<'a>(sdp: &'a str, key: &'a str) -> impl Iterator<Item = &'a str> {
    sdp.lines().filter_map(move |line| line.strip_prefix(key))
}

fn payloads(nal: &[u8]) -> Vec<Vec<u8>> {
    // One octet more would still fit one fragment, which may not be start and end at once.
    if nal.len() <= 1101 {
        return vec![nal.to_vec()];
    }
    let chunks: Vec<&[u8]> = nal[1..].chunks(1100).collect();
    let last = chunks.len() - 1;
    let fragment = |(n, chunk): (usize, &&[u8])| {
        let edge = if n == 0 { 0x80 } else { 0 } | if n == last { 0x40 } else { 0 };
        let mut payload = vec![nal[0] & 0xE0 | 28, nal[0] & 0x1F | edge];
        payload.extend_from_slice(chunk);
        payload
    };
    chunks.iter().enumerate().map(fragment).collect()
}

async fn next(media: Option<&mut mpsc::Receiver<AccessUnit>>) -> Option<AccessUnit> {
    match media {
        Some(media) => media.recv().await,
        None => std::future::pending().await,
    }
}

async fn receive(path: &mut Path, buffer: &mut [u8]) -> Option<Vec<u8>> {
    match path {
        Path::Relay(client) => loop {
            match client.meet(Duration::from_secs(60)).await {
                Met::Data(_, packet) => return Some(packet),
                Met::Event(_) | Met::Nothing => {}
                Met::Closed => return std::future::pending().await,
            }
        },
        Path::Udp(socket) => {
            let length = socket.recv(buffer).await.ok()?;
            Some(buffer[..length].to_vec())
        }
        Path::Tcp(stream, rest) => loop {
            if let [high, low, more @ ..] = &rest[..] {
                let length = usize::from(u16::from_be_bytes([*high, *low]));
                if more.len() >= length {
                    let packet = more[..length].to_vec();
                    rest.drain(..length + 2);
                    return Some(packet);
                }
            }
            match stream.read(buffer).await {
                Ok(0) | Err(_) => return std::future::pending().await,
                Ok(n) => rest.extend_from_slice(&buffer[..n]),
            }
        },
    }
}

/// An allocation at the first ICE server of `offer`.
async fn offered_relay(offer: &Value) -> Client {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let server = &offer["iceServers"][0];
    let url = text(&server["urls"][0]);
    let address = url.trim_start_matches("turn:");
    let address = address.trim_end_matches("?transport=tcp");
    let at = address.parse().expect("an address");
    let (user, password) = (text(&server["username"]), text(&server["credential"]));
    let client = Client::allocate(Line::tcp(at).await, at, (&user, &password)).await;
    client.expect("an allocation")
}

/// Test card and tone, encoded on threads of their own until nobody listens.
fn sources(
    clock: MediaClock,
    keys: std::sync::Arc<std::sync::atomic::AtomicBool>,
) -> mpsc::Receiver<AccessUnit> {
    let (units, inbox) = mpsc::channel(64);
    let pictures = units.clone();
    // However slowly a thread starts, there is sound to go with the first picture.
    let (sounding, sound) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        sound.recv().expect("the tone begins");
        drop(sound);
        let size = Size {
            width: 320,
            height: 240,
        };
        let bitrate = Bitrate(400_000);
        let mut card = TestCard::new(size, 20, clock, Pace::RealTime);
        let mut encoder = H264::new(size, 20, bitrate).expect("an encoder");
        while let Ok(frame) = card.read() {
            let key_frame = keys.swap(false, std::sync::atomic::Ordering::Relaxed);
            let controls = Controls { key_frame, bitrate };
            let unit = encoder.encode(&frame, controls).expect("a picture");
            if let Some(unit) = unit
                && pictures.blocking_send(unit).is_err()
            {
                return;
            }
        }
    });
    std::thread::spawn(move || {
        let bitrate = Bitrate(64_000);
        let mut tone = Tone::new(2, clock, Pace::RealTime);
        let mut encoder = Opus::new(2, bitrate).expect("an encoder");
        let controls = Controls {
            key_frame: false,
            bitrate,
        };
        while let Ok(frame) = tone.read() {
            // Only the first is waited for.
            sounding.send(()).ok();
            let unit = encoder.encode(&frame, controls).expect("sound");
            if let Some(unit) = unit
                && units.blocking_send(unit).is_err()
            {
                return;
            }
        }
    });
    inbox
}
