//! The peer against a server of another make (str0m), over real sockets: every role and transport.

#![expect(
    clippy::disallowed_methods,
    clippy::wildcard_enum_match_arm,
    reason = "real clocks and the environment; and of many events only some matter"
)]

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use onair::config::secret::Secret;
use onair::config::{Bitrate, Proxy, Size, Transport, Trust};
use onair::feed::{AudioTrack, Tracks, VideoTrack};
use onair::media::access_unit::{AccessUnit, Track};
use onair::media::payload_types::PayloadTypes;
use onair::media::time::{MediaClock, MediaTime};
use onair::net::Dialer;
use onair::peer::{Config, Event, Ladder, Limits, Peer, ReceiverReport, Rung, Stage};
use str0m::media::KeyframeRequestKind;
use tokio::sync::mpsc;

use crate::receiver::{Options, Order, Receiver, Seen};

/// Payload types that str0m has for the two codecs by default.
const STR0M: PayloadTypes = PayloadTypes {
    h264: 108,
    opus: 111,
};

pub(crate) fn config() -> Config {
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
        payload_types: STR0M,
        name: "front".to_owned(),
        ladder: Ladder::default(),
        ice_servers: Vec::new(),
        dialer: Dialer::new(
            &Secret::new("wss://server.example/"),
            &Trust::default(),
            &Proxy::None,
        )
        .expect("no files are read"),
        first_sequence: 1,
        limits: Limits::default(),
    }
}

/// A picture of `bytes` bytes; every `n`-th is an IDR with its parameter sets.
pub(crate) fn picture(captured: MediaTime, key: bool, bytes: usize) -> AccessUnit {
    let mut data = Vec::new();
    if key {
        data.extend([
            0, 0, 0, 1, 0x67, 0x42, 0xE0, 0x1F, 0, 0, 0, 1, 0x68, 0xCE, 0x3C, 0x80,
        ]);
    }
    data.extend([0, 0, 0, 1, if key { 0x65 } else { 0x41 }]);
    data.extend(std::iter::repeat_n(0x9A, bytes));
    AccessUnit {
        track: Track::Video,
        captured,
        key,
        data: Bytes::from(data),
    }
}

pub(crate) fn sound(captured: MediaTime) -> AccessUnit {
    AccessUnit {
        track: Track::Audio,
        captured,
        key: true,
        data: Bytes::from_static(&[0xFC; 80]),
    }
}

async fn next(events: &mut mpsc::Receiver<Event>, what: &str) -> Event {
    match tokio::time::timeout(Duration::from_secs(10), events.recv()).await {
        Ok(Some(event)) => event,
        Ok(None) => panic!("the peer ended before {what}"),
        Err(_) => panic!("never: {what}"),
    }
}

pub(crate) async fn until<T>(
    events: &mut mpsc::Receiver<Event>,
    what: &str,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    let waiting = async {
        loop {
            if let Some(picked) = pick(&next(events, what).await) {
                return picked;
            }
        }
    };
    match tokio::time::timeout(Duration::from_secs(30), waiting).await {
        Ok(picked) => picked,
        Err(_) => panic!("never: {what}"),
    }
}

pub(crate) async fn connected(events: &mut mpsc::Receiver<Event>) -> Rung {
    until(events, "connected", |event| match event {
        Event::Connected(pair) => Some(pair.rung),
        _ => None,
    })
    .await
}

/// Sends both tracks in real time until `enough`; the peer's clock is `clock`.
pub(crate) async fn publish(
    peer: &mut Peer,
    clock: MediaClock,
    server: &Receiver,
    mut enough: impl FnMut(&Seen) -> bool,
) {
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let mut n = 0_u32;
    let end = Instant::now() + Duration::from_secs(10);
    while !enough(&server.seen.borrow()) {
        assert!(Instant::now() < end, "enough never arrived");
        ticks.tick().await;
        let now = clock.at(Instant::now());
        peer.send(&sound(now)).await.expect("sent");
        peer.send(&picture(now, n.is_multiple_of(25), 5_000))
            .await
            .expect("sent");
        n += 1;
    }
}

pub(crate) async fn offered(
    config: Config,
    options: Options,
) -> (Peer, mpsc::Receiver<Event>, Receiver) {
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let offer = peer.offer().await.expect("an offer");
    let (server, answer) = Receiver::answering(&offer, options).await;
    peer.accept(&answer).await.expect("accepted");
    peer.add_candidate(&server.candidate).await.expect("added");
    (peer, events, server)
}

pub(crate) async fn answered(
    config: Config,
    options: Options,
) -> (Peer, mpsc::Receiver<Event>, Receiver) {
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let (offering, offer, candidate) = Receiver::offering(options).await;
    let answer = peer.answer(&offer).await.expect("an answer");
    let server = offering.accept(&answer);
    peer.add_candidate(&candidate).await.expect("added");
    (peer, events, server)
}

pub(crate) fn whole_pictures(seen: &Seen) -> usize {
    seen.video().filter(|p| p.marker).count()
}

async fn media_flows(
    (mut peer, mut events, server): (Peer, mpsc::Receiver<Event>, Receiver),
    clock: MediaClock,
    rung: Rung,
) {
    assert_eq!(connected(&mut events).await, rung);
    publish(&mut peer, clock, &server, |seen| {
        whole_pictures(seen) >= 30 && seen.audio().count() >= 30
    })
    .await;
    let seen = server.seen.borrow().clone();
    let first = seen.video().min_by_key(|p| p.sequence).expect("video");
    assert_eq!(first.payload[0] & 0x1F, 24, "parameter sets come first");
    assert_eq!(first.sequence, 1);
    assert!(seen.packets.iter().all(|p| p.payload.len() <= 1_200));
    let counters = peer.counters();
    assert_eq!(counters.pair.expect("a pair").rung, rung);
    assert!(counters.capture_to_wire.count() >= 30);

    peer.close(true).await;
    let seen = server
        .until("farewell of both tracks", |seen| seen.goodbyes.len() == 2)
        .await;
    assert!(seen.packets.iter().all(|p| seen.goodbyes.contains(&p.ssrc)));
    server.until("close_notify", |seen| seen.closed).await;
    server.kill().await;
}

#[tokio::test]
async fn media_flows_when_we_offer_over_udp() {
    let config = config();
    let clock = config.clock;
    media_flows(offered(config, Options::default()).await, clock, Rung::Udp).await;
}

#[tokio::test]
async fn media_flows_when_we_offer_over_tcp() {
    let config = config();
    let clock = config.clock;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    media_flows(offered(config, options).await, clock, Rung::Tcp).await;
}

#[tokio::test]
async fn media_flows_when_the_server_offers_over_udp() {
    let config = config();
    let clock = config.clock;
    media_flows(answered(config, Options::default()).await, clock, Rung::Udp).await;
}

#[tokio::test]
async fn media_flows_when_the_server_offers_over_tcp() {
    let config = config();
    let clock = config.clock;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    media_flows(answered(config, options).await, clock, Rung::Tcp).await;
}

#[tokio::test]
async fn lost_packets_are_sent_again() {
    let config = config();
    let clock = config.clock;
    let options = Options {
        lose_every: Some(11),
        ..Options::default()
    };
    let (mut peer, mut events, server) = offered(config, options).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| seen.dropped >= 15).await;
    let got = server
        .until("the lost packets", |seen| {
            let repaired = seen.video().filter(|p| p.sequence.is_multiple_of(11));
            repaired.count() >= 14
        })
        .await;
    assert!(got.dropped >= 15);
    let counters = peer.counters();
    assert!(counters.retransmissions >= 14, "{counters:?}");
    assert!(counters.nacks >= counters.retransmissions, "{counters:?}");
    peer.close(false).await;
}

#[tokio::test]
async fn a_key_frame_request_comes_out_as_an_event() {
    let config = config();
    let clock = config.clock;
    let (mut peer, mut events, server) = answered(config, Options::default()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| seen.video().count() > 0).await;
    let ssrc = server.seen.borrow().video().next().expect("video").ssrc;
    for kind in [KeyframeRequestKind::Pli, KeyframeRequestKind::Fir] {
        server
            .orders
            .send(Order::KeyFrame(ssrc, kind))
            .expect("the server lives");
        until(&mut events, "a key frame request", |event| {
            (*event == Event::KeyFrameRequested).then_some(())
        })
        .await;
    }
    let counters = peer.counters();
    assert_eq!((counters.plis, counters.firs), (1, 1));
    peer.close(false).await;
}

#[tokio::test]
async fn receiver_reports_come_out_with_the_round_trip() {
    let config = config();
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, Options::default()).await;
    connected(&mut events).await;
    let mut reported: Vec<ReceiverReport> = Vec::new();
    publish(&mut peer, clock, &server, |_| {
        while let Ok(event) = events.try_recv() {
            if let Event::ReceiverReport(report) = event {
                reported.push(report);
            }
        }
        let trip = |track| {
            reported
                .iter()
                .any(|r| r.track == track && r.round_trip.is_some() && r.highest_sequence > 0)
        };
        trip(Track::Audio) && trip(Track::Video)
    })
    .await;
    for report in &reported {
        assert_eq!(report.total_lost, 0, "{report:?}");
        if let Some(trip) = report.round_trip {
            assert!(trip < Duration::from_secs(1), "{report:?}");
        }
    }
    assert!(peer.counters().round_trip.is_some());
    peer.close(false).await;
}

#[tokio::test]
async fn sender_reports_pair_the_capture_clock_within_a_millisecond() {
    let config = config();
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, Options::default()).await;
    connected(&mut events).await;
    // Captured long before it is sent, as from a slow encoder: the reports must not care.
    let captured = clock.at(Instant::now());
    tokio::time::sleep(Duration::from_millis(50)).await;
    peer.send(&sound(captured)).await.expect("sent");
    peer.send(&picture(captured, true, 100))
        .await
        .expect("sent");
    let first = server
        .until("reports of both tracks at once", |seen| {
            let tracks: std::collections::HashSet<_> =
                seen.reports.iter().map(|r| r.ssrc).collect();
            tracks.len() == 2 && seen.packets.len() >= 2
        })
        .await;
    let stamp = |ssrc| {
        let packet = first.packets.iter().find(|p| p.ssrc == ssrc);
        packet.expect("its packet").timestamp
    };
    for report in &first.reports {
        let hz = if report.ssrc == first.audio().next().expect("audio").ssrc {
            48_000.0
        } else {
            90_000.0
        };
        let by_rtp = f64::from(report.rtp.wrapping_sub(stamp(report.ssrc)) as i32) / hz;
        let by_ntp = report
            .ntp
            .duration_since(clock.wall(captured))
            .expect("a report after the capture")
            .as_secs_f64();
        assert!(
            (by_rtp - by_ntp).abs() < 0.001,
            "{by_rtp} s by RTP, {by_ntp} s by NTP"
        );
        assert!(
            by_ntp >= 0.050,
            "the report is of the sending, not of the capture"
        );
        assert!(report.packets >= 1);
    }
    peer.close(false).await;
}

#[tokio::test]
async fn no_path_ends_as_failed_ice() {
    let mut config = config();
    config.limits.disconnected = Duration::from_millis(300);
    config.limits.failed = Duration::from_millis(700);
    let (peer, mut events) = Peer::new(config).await.expect("a peer");
    let offer = peer.offer().await.expect("an offer");
    let (server, answer) = Receiver::answering(&offer, Options::default()).await;
    peer.accept(&answer).await.expect("accepted");
    // Bound and never read: a black hole.
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let port = hole.local_addr().expect("its address").port();
    peer.add_candidate(&format!("candidate:1 1 udp 1 127.0.0.1 {port} typ host"))
        .await
        .expect("added");
    let stage = until(&mut events, "a failure", |event| match event {
        Event::Failed(stage) => Some(*stage),
        _ => None,
    })
    .await;
    assert_eq!(stage, Stage::Ice);
    peer.close(true).await;
    server.kill().await;
}

#[tokio::test]
async fn a_wrong_fingerprint_ends_as_failed_dtls() {
    let mut config = config();
    config.limits.handshake = Duration::from_millis(700);
    let (peer, mut events) = Peer::new(config).await.expect("a peer");
    let offer = peer.offer().await.expect("an offer");
    let (server, answer) = Receiver::answering(&offer, Options::default()).await;
    let answer = with_wrong_fingerprint(&answer);
    peer.accept(&answer).await.expect("accepted");
    peer.add_candidate(&server.candidate).await.expect("added");
    let stage = until(&mut events, "a failure", |event| match event {
        Event::Failed(stage) => Some(*stage),
        Event::Connected(_) => panic!("connected to a stranger"),
        _ => None,
    })
    .await;
    assert_eq!(stage, Stage::Dtls);
    peer.close(true).await;
    server.kill().await;
}

/// `sdp` with the first two bytes of every fingerprint exchanged for others.
pub(crate) fn with_wrong_fingerprint(sdp: &str) -> String {
    let lines = sdp
        .lines()
        .map(|line| match line.strip_prefix("a=fingerprint:sha-256 ") {
            Some(print) if print.starts_with("00:00") => {
                format!("a=fingerprint:sha-256 11:11{}\r\n", &print[5..])
            }
            Some(print) => format!("a=fingerprint:sha-256 00:00{}\r\n", &print[5..]),
            None => format!("{line}\r\n"),
        });
    lines.collect()
}

#[tokio::test]
async fn a_server_that_closes_is_noticed_at_once() {
    let config = config();
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, Options::default()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| seen.packets.len() > 5).await;
    server.orders.send(Order::Close).expect("the server lives");
    until(&mut events, "the close", |event| {
        (*event == Event::Closed).then_some(())
    })
    .await;
    peer.close(true).await;
}

#[tokio::test]
async fn a_broken_tcp_connection_is_noticed_at_once() {
    let config = config();
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    let (peer, mut events, server) = offered(config, options).await;
    connected(&mut events).await;
    server.kill().await;
    until(&mut events, "the break", |event| {
        (*event == Event::Failed(Stage::Transport)).then_some(())
    })
    .await;
    peer.close(true).await;
}

#[tokio::test]
async fn a_silent_server_is_disconnected_then_failed() {
    let mut config = config();
    config.limits.disconnected = Duration::from_millis(500);
    config.limits.failed = Duration::from_millis(500);
    config.limits.keep_alive = Duration::from_millis(100);
    let (peer, mut events, server) = offered(config, Options::default()).await;
    connected(&mut events).await;
    server.kill().await;
    until(&mut events, "disconnected", |event| {
        (*event == Event::Disconnected).then_some(())
    })
    .await;
    until(&mut events, "failed", |event| {
        (*event == Event::Failed(Stage::Ice)).then_some(())
    })
    .await;
    peer.close(true).await;
}

#[tokio::test]
async fn events_end_when_the_peer_is_dropped() {
    let (peer, mut events, server) = offered(config(), Options::default()).await;
    connected(&mut events).await;
    drop(peer);
    let ended = async { while events.recv().await.is_some() {} };
    tokio::time::timeout(Duration::from_secs(5), ended)
        .await
        .expect("an end");
    server.kill().await;
}

#[tokio::test]
async fn only_the_configured_transport_is_used() {
    let mut udp_only = config();
    udp_only.ladder.transport = Transport::Udp;
    let (peer, _events) = Peer::new(udp_only).await.expect("a peer");
    assert!(!peer.offer().await.expect("an offer").contains(" tcp "));
    peer.close(false).await;

    let mut tcp_only = config();
    tcp_only.ladder.transport = Transport::Tcp;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    let (peer, mut events, server) = offered(tcp_only, options).await;
    assert_eq!(connected(&mut events).await, Rung::Tcp);
    peer.close(false).await;
    server.kill().await;
}

#[tokio::test]
async fn garbage_is_an_error_and_never_a_panic() {
    for garbage in [
        "",
        "v=0",
        "m=audio",
        "\0\0\0",
        "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n",
    ] {
        let (peer, _events) = Peer::new(config()).await.expect("a peer");
        assert!(peer.answer(garbage).await.is_err(), "{garbage:?}");
        peer.close(true).await;

        let (peer, _events) = Peer::new(config()).await.expect("a peer");
        peer.offer().await.expect("an offer");
        assert!(peer.accept(garbage).await.is_err(), "{garbage:?}");
        peer.add_candidate(garbage).await.expect("passed over");
        peer.close(true).await;
    }
}

#[tokio::test]
async fn an_offer_as_ovenmediaengine_makes_it_is_answered_to_its_taste() {
    let mut config = config();
    let clock = config.clock;
    config.payload_types = PayloadTypes {
        h264: 100,
        opus: 102,
    };
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let options = Options {
        ome: true,
        ..Options::default()
    };
    let (offering, offer, candidate) = Receiver::offering(options).await;
    let answer = peer.answer(&offer).await.expect("an answer");
    let lines: Vec<&str> = answer.lines().collect();
    let all = |prefix: &str| -> Vec<&str> {
        let lines = lines.iter().filter(|line| line.starts_with(prefix));
        lines.copied().collect()
    };
    assert_eq!(
        all("m="),
        [
            "m=video 9 UDP/TLS/RTP/SAVPF 100",
            "m=audio 9 UDP/TLS/RTP/SAVPF 102"
        ]
    );
    assert_eq!(
        all("a=mid:"),
        offer
            .lines()
            .filter(|line| line.starts_with("a=mid:"))
            .collect::<Vec<_>>()
    );
    assert_eq!(all("a=sendonly").len(), 2);
    assert_eq!(all("a=setup:active").len(), 2);
    assert_eq!(
        all("a=rtcp-fb"),
        ["a=rtcp-fb:100 ccm fir", "a=rtcp-fb:100 nack pli"]
    );
    assert_eq!(all("a=extmap").len(), 0);
    let named = all("a=ssrc:")
        .iter()
        .filter(|l| l.ends_with(" cname:front"))
        .count();
    assert_eq!(named, 2);

    let server = offering.accept(&answer);
    peer.add_candidate(&candidate).await.expect("added");
    media_flows((peer, events, server), clock, Rung::Udp).await;
}

#[tokio::test]
async fn a_server_that_stops_reading_is_an_error_and_holds_nothing_up() {
    let mut config = config();
    let patience = Duration::from_millis(700);
    config.limits.send = patience;
    let clock = config.clock;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    let (mut peer, mut events, server) = offered(config, options).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| seen.packets.len() > 5).await;
    server.orders.send(Order::Freeze).expect("the server lives");
    let stalled = async {
        loop {
            let unit = picture(clock.at(Instant::now()), false, 100_000);
            if let Err(error) = peer.send(&unit).await {
                return error;
            }
        }
    };
    let error = tokio::time::timeout(Duration::from_secs(20), stalled)
        .await
        .expect("an end of patience");
    assert!(
        matches!(error, onair::peer::Error::Stalled { .. }),
        "{error}"
    );
    assert!(!peer.has_room());
    let closing = Instant::now();
    peer.close(true).await;
    assert!(closing.elapsed() < Duration::from_secs(4));
    server.kill().await;
}

#[tokio::test]
async fn garbage_from_strangers_changes_nothing() {
    let config = config();
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, Options::default()).await;
    connected(&mut events).await;
    let port = peer.counters().pair.expect("a pair").local;
    let stranger = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let mut chance = fastrand::Rng::with_seed(7);
    for n in 0..5_000_u32 {
        let mut packet = vec![0; chance.usize(0..1_500)];
        chance.fill(&mut packet);
        // Each kind in its turn: STUN, DTLS of each type, RTP, RTCP.
        if let [first, second, ..] = packet.as_mut_slice() {
            *first = [0, 1, 20, 21, 22, 23, 128, 144, 159, 191][n as usize % 10];
            if n.is_multiple_of(3) {
                *second = 200 + (n / 10 % 8) as u8;
            }
        }
        stranger.send_to(&packet, port).await.expect("sent");
        if n.is_multiple_of(50) {
            tokio::task::yield_now().await;
        }
    }
    let before = whole_pictures(&server.seen.borrow());
    publish(&mut peer, clock, &server, |seen| {
        whole_pictures(seen) >= before + 20
    })
    .await;
    while let Ok(event) = events.try_recv() {
        assert!(matches!(event, Event::ReceiverReport(_)), "{event:?}");
    }
    assert!(peer.counters().strangers > 0);
    peer.close(true).await;
    server.until("close_notify", |seen| seen.closed).await;
}

#[tokio::test]
async fn a_feed_of_one_track_is_published_in_either_role() {
    let mut silent = config();
    silent.tracks.audio = None;
    let clock = silent.clock;
    let (mut peer, mut events, server) = offered(silent, Options::default()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
    assert_eq!(server.seen.borrow().audio().count(), 0);
    peer.close(true).await;
    server
        .until("one farewell", |seen| seen.goodbyes.len() == 1)
        .await;

    let mut blind = config();
    blind.tracks.video = None;
    let clock = blind.clock;
    let (mut peer, mut events, server) = answered(blind, Options::default()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| seen.audio().count() >= 5).await;
    assert_eq!(server.seen.borrow().video().count(), 0);
    peer.close(true).await;
    server
        .until("one farewell", |seen| seen.goodbyes.len() == 1)
        .await;
}
