//! The peer against a server of another make (str0m), over real sockets: every role and transport.

use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use onair::config::{Bitrate, Size, Transport};
use onair::feed::{AudioTrack, Tracks, VideoTrack};
use onair::media::access_unit::{AccessUnit, Track};
use onair::media::time::{MediaClock, MediaTime};
use onair::peer::{Config, Event, Limits, PayloadTypes, Peer, Protocol, ReceiverReport, Stage};
use str0m::media::KeyframeRequestKind;
use tokio::sync::mpsc;

use crate::receiver::{Options, Order, Receiver, Seen};

/// Payload types that str0m has for the two codecs by default.
const STR0M: PayloadTypes = PayloadTypes {
    h264: 108,
    opus: 111,
};

fn config() -> Config {
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
        transport: Transport::Auto,
        first_sequence: 1,
        limits: Limits::default(),
    }
}

/// A picture of `bytes` bytes; every `n`-th is an IDR with its parameter sets.
fn picture(captured: MediaTime, key: bool, bytes: usize) -> AccessUnit {
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

fn sound(captured: MediaTime) -> AccessUnit {
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

async fn until<T>(
    events: &mut mpsc::Receiver<Event>,
    what: &str,
    mut pick: impl FnMut(&Event) -> Option<T>,
) -> T {
    loop {
        if let Some(picked) = pick(&next(events, what).await) {
            return picked;
        }
    }
}

async fn connected(events: &mut mpsc::Receiver<Event>) -> Protocol {
    until(events, "connected", |event| match event {
        Event::Connected(pair) => Some(pair.protocol),
        _ => None,
    })
    .await
}

/// Sends both tracks in real time until `enough`; the peer's clock is `clock`.
async fn publish(
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

async fn offered(config: Config, options: Options) -> (Peer, mpsc::Receiver<Event>, Receiver) {
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let offer = peer.offer().await.expect("an offer");
    let (server, answer) = Receiver::answering(&offer, options).await;
    peer.accept(&answer).await.expect("accepted");
    peer.add_candidate(&server.candidate).await.expect("added");
    (peer, events, server)
}

async fn answered(config: Config, options: Options) -> (Peer, mpsc::Receiver<Event>, Receiver) {
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let (offering, offer, candidate) = Receiver::offering(options).await;
    let answer = peer.answer(&offer).await.expect("an answer");
    let server = offering.accept(&answer);
    peer.add_candidate(&candidate).await.expect("added");
    (peer, events, server)
}

fn whole_pictures(seen: &Seen) -> usize {
    seen.video().filter(|p| p.marker).count()
}

async fn media_flows(
    (mut peer, mut events, server): (Peer, mpsc::Receiver<Event>, Receiver),
    clock: MediaClock,
    protocol: Protocol,
) {
    assert_eq!(connected(&mut events).await, protocol);
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
    assert_eq!(counters.pair.expect("a pair").protocol, protocol);
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
    media_flows(
        offered(config, Options::default()).await,
        clock,
        Protocol::Udp,
    )
    .await;
}

#[tokio::test]
async fn media_flows_when_we_offer_over_tcp() {
    let config = config();
    let clock = config.clock;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    media_flows(offered(config, options).await, clock, Protocol::Tcp).await;
}

#[tokio::test]
async fn media_flows_when_the_server_offers_over_udp() {
    let config = config();
    let clock = config.clock;
    media_flows(
        answered(config, Options::default()).await,
        clock,
        Protocol::Udp,
    )
    .await;
}

#[tokio::test]
async fn media_flows_when_the_server_offers_over_tcp() {
    let config = config();
    let clock = config.clock;
    let options = Options {
        tcp: true,
        ..Options::default()
    };
    media_flows(answered(config, options).await, clock, Protocol::Tcp).await;
}
