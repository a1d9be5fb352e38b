//! The gate on the engine: connections opened and ended in every way that production knows leave nothing behind.
//!
//! A process of its own, one runtime on one thread, so that memory is attributable. For each way: some connections to
//! warm up, then `ONAIR_LEAK_CYCLES` (default 40) measured ones; memory may grow by less than 20 KiB for each, and
//! tasks, threads and file descriptors must return to where they were. Run with `--nocapture` for the figures.

#![expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "real clocks and the environment; and of many events only some matter"
)]

#[path = "it/held.rs"]
mod held;
#[path = "it/receiver.rs"]
#[expect(dead_code, reason = "the other tests look closer")]
mod receiver;

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use held::Held;
use onair::config::ice_server::IceServer;
use onair::config::secret::Secret;
use onair::config::{Bitrate, Proxy, Size, Transport, Trust};
use onair::feed::{AudioTrack, Tracks, VideoTrack};
use onair::lab::turn::{TurnConfig, TurnServer};
use onair::media::access_unit::{AccessUnit, Track};
use onair::media::payload_types::PayloadTypes;
use onair::media::time::MediaClock;
use onair::net::Dialer;
use onair::peer::{Config, Event, Ladder, Limits, Peer};
use receiver::{Options, Receiver};
use tokio::net::UdpSocket;
use tokio::sync::mpsc;

/// Memory that one connection may leave behind on average, in bytes.
const PER_CONNECTION: f64 = 20.0 * 1024.0;

/// Connections at once: production reconnects, it does not pile up.
const AT_ONCE: usize = 4;

/// A way to open and end a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// We offer over UDP, media flows, farewell.
    OfferUdp,
    /// We offer over ICE-TCP, media flows, farewell.
    OfferTcp,
    /// The server offers over UDP, media flows, closed without a word.
    AnswerUdp,
    /// The server offers over ICE-TCP, media flows, closed without a word.
    AnswerTcp,
    /// Media flows, then dropped without closing.
    Dropped,
    /// Over ICE-TCP likewise.
    DroppedTcp,
    /// Dropped as soon as made.
    DroppedNew,
    /// Dropped while gathering or waiting for an answer.
    DroppedOffering,
    /// The server's candidate answers nothing.
    BlackHole,
    /// The server's TCP port refuses.
    Refused,
    /// The server's certificate is not the one it announced.
    WrongFingerprint,
    /// The server dies while media flows.
    ServerDies,
    /// Through a TURN server over UDP, media flows, farewell.
    RelayUdp,
    /// Through a TURN server over TCP, media flows, farewell.
    RelayTcp,
    /// Through a TURN server over TCP, media flows, dropped without closing.
    DroppedRelay,
    /// The TURN server never answers.
    DeafRelay,
}

const WAYS: [Way; 16] = [
    Way::OfferUdp,
    Way::OfferTcp,
    Way::AnswerUdp,
    Way::AnswerTcp,
    Way::Dropped,
    Way::DroppedTcp,
    Way::DroppedNew,
    Way::DroppedOffering,
    Way::BlackHole,
    Way::Refused,
    Way::WrongFingerprint,
    Way::ServerDies,
    Way::RelayUdp,
    Way::RelayTcp,
    Way::DroppedRelay,
    Way::DeafRelay,
];

/// Where TURN servers are.
#[derive(Clone, Copy)]
struct Relays {
    udp: SocketAddr,
    tcp: SocketAddr,
    /// Takes everything and says nothing.
    deaf: SocketAddr,
}

/// Starts the TURN servers, in a runtime of their own: their tasks are not the peers'.
fn relays() -> Relays {
    let (ready, started) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime");
        runtime.block_on(async {
            let turn = TurnServer::start(TurnConfig::loopback(None))
                .await
                .expect("a TURN server");
            let deaf = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
            let relays = Relays {
                udp: turn.udp().expect("UDP"),
                tcp: turn.tcp().expect("TCP"),
                deaf: deaf.local_addr().expect("bound"),
            };
            ready.send(relays).expect("the test waits");
            std::future::pending::<()>().await;
        });
    });
    started.recv().expect("they start")
}

impl Relays {
    fn of(self, way: Way) -> Option<IceServer> {
        let (at, transport) = match way {
            Way::RelayUdp => (self.udp, "udp"),
            Way::RelayTcp | Way::DroppedRelay => (self.tcp, "tcp"),
            Way::DeafRelay => (self.deaf, "udp"),
            _ => return None,
        };
        let url = format!("turn:{at}?transport={transport}");
        Some(IceServer {
            url: url.parse().expect("a URL"),
            username: "lab".to_owned(),
            credential: Secret::new("relayed"),
        })
    }
}

/// Short where a failure is waited for; where a connection must come up, a busy machine gets its time.
fn limits(way: Way) -> Limits {
    let short = Limits {
        disconnected: Duration::from_millis(100),
        failed: Duration::from_millis(100),
        keep_alive: Duration::from_millis(50),
        handshake: Duration::from_millis(200),
        ..Limits::default()
    };
    match way {
        Way::BlackHole | Way::Refused | Way::WrongFingerprint | Way::DeafRelay => short,
        Way::ServerDies => Limits {
            failed: Duration::from_secs(1),
            handshake: Limits::default().handshake,
            ..short
        },
        _ => Limits::default(),
    }
}

fn config(way: Way, relays: Relays) -> Config {
    let relay = relays.of(way);
    Config {
        clock: MediaClock::new(Instant::now(), SystemTime::now()),
        tracks: Tracks {
            video: Some(VideoTrack {
                size: Size {
                    width: 640,
                    height: 360,
                },
                fps: 30,
                max_bitrate: Bitrate(1_000_000),
            }),
            audio: Some(AudioTrack {
                channels: 2,
                bitrate: Bitrate(64_000),
            }),
        },
        payload_types: PayloadTypes {
            h264: 108,
            opus: 111,
        },
        name: "leak".to_owned(),
        ladder: Ladder {
            transport: match relay {
                Some(_) => Transport::Relay,
                None => Transport::Auto,
            },
            first: None,
        },
        ice_servers: relay.into_iter().collect(),
        dialer: Dialer::new(
            &Secret::new("wss://server.example/"),
            &Trust::default(),
            &Proxy::None,
        )
        .expect("no files are read"),
        first_sequence: 1,
        limits: limits(way),
    }
}

async fn wait(events: &mut mpsc::Receiver<Event>, what: &str, pick: impl Fn(&Event) -> bool) {
    let waiting = async {
        while let Some(event) = events.recv().await {
            if pick(&event) {
                return true;
            }
        }
        false
    };
    let found = tokio::time::timeout(Duration::from_secs(20), waiting).await;
    assert_eq!(found, Ok(true), "never: {what}");
}

fn ended(event: &Event) -> bool {
    matches!(event, Event::Failed(_) | Event::Closed)
}

/// Sends some pictures and sounds until some have arrived.
async fn flow(peer: &mut Peer, clock: MediaClock, server: &Receiver) {
    let picture = |key: bool| {
        let mut data = vec![
            0, 0, 0, 1, 0x67, 1, 2, 3, 0, 0, 0, 1, 0x68, 4, 5, 0, 0, 0, 1,
        ];
        data.push(if key { 0x65 } else { 0x41 });
        data.extend([0x9A; 4_000]);
        Bytes::from(data)
    };
    for n in 0..5 {
        let captured = clock.at(Instant::now());
        for (track, data) in [
            (Track::Audio, Bytes::from_static(&[0xFC; 80])),
            (Track::Video, picture(n == 0)),
        ] {
            let unit = AccessUnit {
                track,
                captured,
                key: n == 0,
                data,
            };
            peer.send(&unit).await.expect("sent");
        }
    }
    server.until("media", |seen| !seen.packets.is_empty()).await;
}

async fn one(way: Way, relays: Relays) {
    let config = config(way, relays);
    let clock = config.clock;
    let options = Options {
        tcp: matches!(way, Way::OfferTcp | Way::AnswerTcp | Way::DroppedTcp),
        forget: true,
        ..Options::default()
    };
    let (mut peer, mut events) = Peer::new(config).await.expect("a peer");
    if way == Way::DroppedNew {
        return;
    }
    let server = if matches!(way, Way::AnswerUdp | Way::AnswerTcp) {
        let (offering, offer, candidate) = Receiver::offering(options).await;
        let answer = peer.answer(&offer).await.expect("an answer");
        let server = offering.accept(&answer);
        peer.add_candidate(&candidate).await.expect("added");
        server
    } else {
        let offer = peer.offer().await.expect("an offer");
        if way == Way::DroppedOffering {
            return;
        }
        let (server, mut answer) = Receiver::answering(&offer, options).await;
        let mut candidate = server.candidate.clone();
        let hole = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
        let port = hole.local_addr().expect("its address").port();
        match way {
            Way::BlackHole => candidate = format!("candidate:1 1 udp 1 127.0.0.1 {port} typ host"),
            // The number is taken for UDP; over TCP nobody listens there.
            Way::Refused => candidate = format!("candidate:1 1 tcp 1 127.0.0.1 {port} typ host"),
            Way::WrongFingerprint => answer = answer.replace("sha-256 ", "sha-256 00:"),
            _ => {}
        }
        if way == Way::WrongFingerprint {
            answer = shortened_fingerprints(&answer);
        }
        peer.accept(&answer).await.expect("accepted");
        peer.add_candidate(&candidate).await.expect("added");
        if matches!(
            way,
            Way::BlackHole | Way::Refused | Way::WrongFingerprint | Way::DeafRelay
        ) {
            wait(&mut events, "a failure", ended).await;
            peer.close(true).await;
            server.kill().await;
            return;
        }
        server
    };
    wait(&mut events, "connected", |event| {
        matches!(event, Event::Connected(_))
    })
    .await;
    flow(&mut peer, clock, &server).await;
    match way {
        Way::Dropped | Way::DroppedTcp | Way::DroppedRelay => drop(peer),
        Way::OfferUdp | Way::OfferTcp | Way::RelayUdp | Way::RelayTcp => peer.close(true).await,
        Way::ServerDies => {
            server.kill().await;
            wait(&mut events, "the death", ended).await;
            peer.close(true).await;
            return;
        }
        _ => peer.close(false).await,
    }
    server.kill().await;
}

/// Fingerprints made too long by a first byte lose their last, and so are wrong but well formed.
fn shortened_fingerprints(sdp: &str) -> String {
    let lines = sdp.lines().map(|line| {
        if line.starts_with("a=fingerprint:") {
            format!("{}\r\n", &line[..line.len() - 3])
        } else {
            format!("{line}\r\n")
        }
    });
    lines.collect()
}

async fn many(way: Way, cycles: usize, relays: Relays) {
    let mut left = cycles;
    while left > 0 {
        let now = left.min(AT_ONCE);
        let mut batch = tokio::task::JoinSet::new();
        for _ in 0..now {
            batch.spawn(one(way, relays));
        }
        while let Some(done) = batch.join_next().await {
            done.expect("a connection without a panic");
        }
        left -= now;
    }
}

fn rss() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"))
        .expect("RssAnon");
    let kib: f64 = line
        .trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number");
    kib * 1024.0
}

#[tokio::test]
async fn connections_leave_nothing_behind_however_they_end() {
    let cycles: usize = std::env::var("ONAIR_LEAK_CYCLES")
        .ok()
        .map_or(40, |cycles| cycles.parse().expect("a number of cycles"));
    let relays = relays();
    // What is made once (the runtime's timers, the allocator's pools) is made before anything is measured.
    for way in WAYS {
        many(way, AT_ONCE, relays).await;
    }
    let before = Held::idle().await;
    let mut faults = Vec::new();
    println!("way               cycles   KiB each   tasks threads fds   ms each");
    for way in WAYS {
        many(way, 2 * AT_ONCE, relays).await;
        before.settled().await;
        let (memory, start) = (rss(), Instant::now());
        many(way, cycles, relays).await;
        let ms = start.elapsed().as_millis() as f64 / cycles as f64;
        let after = before.settled().await;
        let each = (rss() - memory) / cycles as f64;
        println!(
            "{:<18}{cycles:>5}{:>11.2}{:>8}{:>8}{:>4}{ms:>10.0}",
            format!("{way:?}"),
            each / 1024.0,
            after.tasks,
            after.threads,
            after.descriptors
        );
        if after != before {
            faults.push(format!("{way:?}: {before:?} became {after:?}"));
        }
        if each >= PER_CONNECTION {
            faults.push(format!("{way:?}: {each:.0} bytes for each connection"));
        }
    }
    assert!(faults.is_empty(), "{faults:#?}");

    // The gate sees what it is to see: a connection that is forgotten holds tasks, sockets and memory.
    let (peer, _events) = Peer::new(config(Way::OfferUdp, relays))
        .await
        .expect("a peer");
    std::mem::forget(peer);
    let leaked = Held::now();
    assert!(leaked.tasks > before.tasks && leaked.descriptors > before.descriptors);
}
