//! The ladder over real sockets: which rung wins where, through TURN servers of another make, and what is told of the
//! others; ICE restarts, IPv6.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of many events only some matter"
)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use onair::config::ice_server::IceServer;
use onair::config::secret::Secret;
use onair::config::{Proxy, Transport, Trust};
use onair::lab::tls::Identity;
use onair::lab::turn::{TurnConfig, TurnCounts, TurnFault, TurnServer};
use onair::lab::{Lab, LabConfig, Profile};
use onair::media::payload_types::PayloadTypes;
use onair::net::Dialer;
use onair::peer::{Climb, Config, Event, Ladder, Outcome, Peer, Rung, Stage};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::sync::{mpsc, oneshot};

use crate::peer::{
    answered, config, connected, offered, picture, publish, sound, until, whole_pictures,
};
use crate::receiver::{Options, Order, Receiver};
use crate::rehearsal::{connect, hear, say};

mod streams;
mod trust;

/// Where the relays' sockets are, so that the server can tell them from ours.
const RELAYED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9));

/// A server that hears only what was relayed.
fn behind_a_firewall() -> Options {
    Options {
        only_from: Some(RELAYED),
        ..Options::default()
    }
}

async fn turn_server() -> TurnServer {
    let identity = Identity::self_signed(&["localhost".to_owned()]).expect("a certificate");
    let config = TurnConfig {
        relay_ip: RELAYED,
        ..TurnConfig::loopback(Some(identity))
    };
    TurnServer::start(config).await.expect("a TURN server")
}

fn ice_server(url: &str, password: &str) -> IceServer {
    IceServer {
        url: url.parse().expect("a URL"),
        username: "lab".to_owned(),
        credential: Secret::new(password),
    }
}

/// All that `server` offers.
fn servers(server: &TurnServer) -> Vec<IceServer> {
    let urls = server.urls();
    urls.iter().map(|url| ice_server(url, "relayed")).collect()
}

/// The one of `server` for this rung.
fn server_for(server: &TurnServer, rung: Rung) -> Vec<IceServer> {
    let n = match rung {
        Rung::TurnUdp => 0,
        Rung::TurnTcp => 1,
        Rung::TurnTls => 2,
        Rung::Udp | Rung::Tcp => panic!("no relay"),
    };
    vec![servers(server).swap_remove(n)]
}

/// As of a publisher whose server is on this host.
fn own_url() -> Secret {
    Secret::new("wss://127.0.0.1/app/stream")
}

fn climbing(transport: Transport, first: Option<Rung>, ice_servers: Vec<IceServer>) -> Config {
    let trust = Trust {
        insecure: true,
        ..Trust::default()
    };
    Config {
        ladder: Ladder { transport, first },
        ice_servers,
        dialer: Dialer::new(&own_url(), &trust, &Proxy::None).expect("no files are read"),
        ..config()
    }
}

async fn counted(server: &TurnServer, what: &str, wanted: impl FnMut(&TurnCounts) -> bool) {
    let mut counts = server.counts();
    let reached = tokio::time::timeout(Duration::from_secs(10), counts.wait_for(wanted)).await;
    assert!(matches!(reached, Ok(Ok(_))), "never: {what}");
}

fn climb(peer: &Peer, rung: Rung) -> Climb {
    let climbs = peer.climbs();
    let climb = climbs.iter().find(|climb| climb.rung == rung);
    climb.expect("a rung that is allowed").clone()
}

/// The rung wins, media flows both ways over it, the farewell arrives, and the allocation is given back.
async fn wins(
    (peer, mut events, server): (Peer, mpsc::Receiver<Event>, Receiver),
    clock: onair::media::time::MediaClock,
    turn: &TurnServer,
    rung: Rung,
) -> Vec<Climb> {
    assert_eq!(connected(&mut events).await, rung);
    still_wins((peer, events, server), clock, turn, rung).await
}

/// The same, once it is connected.
async fn still_wins(
    (mut peer, mut events, server): (Peer, mpsc::Receiver<Event>, Receiver),
    clock: onair::media::time::MediaClock,
    turn: &TurnServer,
    rung: Rung,
) -> Vec<Climb> {
    let chosen = climb(&peer, rung);
    assert_eq!(chosen.outcome, Outcome::Chosen);
    assert!(chosen.after.is_some());
    publish(&mut peer, clock, &server, |seen| {
        whole_pictures(seen) >= 20 && seen.audio().count() >= 20
    })
    .await;
    until(&mut events, "a receiver report", |event| match event {
        Event::ReceiverReport(_) => Some(()),
        _ => None,
    })
    .await;
    let seen = server.seen.borrow().clone();
    assert_eq!(seen.sources.into_iter().collect::<Vec<_>>(), [RELAYED]);
    counted(turn, "one allocation", |counts| counts.allocations == 1).await;
    let climbs = peer.climbs();
    let pair = peer.counters().pair.expect("a pair");
    assert_eq!(pair.leaves_from, Ipv4Addr::LOCALHOST, "to the TURN server");
    peer.close(true).await;
    server.until("close_notify", |seen| seen.closed).await;
    counted(turn, "the release", |counts| counts.allocations == 0).await;
    server.kill().await;
    climbs
}

/// All that is told of them until the last.
async fn our_candidates(events: &mut mpsc::Receiver<Event>) -> Vec<String> {
    let mut all = Vec::new();
    until(events, "our candidates", |event| match event {
        Event::Candidates { lines, last } => {
            all.extend(lines.iter().cloned());
            last.then_some(())
        }
        _ => None,
    })
    .await;
    all
}

#[tokio::test]
async fn media_flows_through_every_kind_of_relay() {
    for rung in [Rung::TurnUdp, Rung::TurnTcp, Rung::TurnTls] {
        let turn = turn_server().await;
        let config = climbing(Transport::Relay, Some(rung), server_for(&turn, rung));
        let clock = config.clock;
        let (peer, mut events, server) = answered(config, behind_a_firewall()).await;
        let lines = our_candidates(&mut events).await;
        assert!(
            lines[0].contains(" 127.0.0.9 ") && lines[0].contains(" typ relay "),
            "{lines:?}"
        );
        let climbs = wins((peer, events, server), clock, &turn, rung).await;
        assert_eq!(climbs.len(), 3, "{climbs:?}");
        assert_eq!(climbs[0].rung, rung);
    }
}

#[tokio::test]
async fn a_network_that_drops_udp_is_left_by_the_next_rungs() {
    let turn = turn_server().await;
    let mut servers = servers(&turn);
    // UDP to the TURN server is dropped as well.
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    servers[0].url.port = hole.local_addr().expect("bound").port();
    servers.truncate(2);
    let config = climbing(Transport::Auto, None, servers);
    let clock = config.clock;
    let connection = offered(config, behind_a_firewall()).await;
    let climbs = wins(connection, clock, &turn, Rung::TurnTcp).await;
    let outcomes: Vec<(Rung, Outcome)> =
        climbs.iter().map(|c| (c.rung, c.outcome.clone())).collect();
    let absent = Outcome::Absent("the server offers no TCP candidate".to_owned());
    assert_eq!(
        outcomes[..4],
        [
            (Rung::Udp, Outcome::Unanswered),
            (Rung::Tcp, absent),
            (Rung::TurnUdp, Outcome::Unanswered),
            (Rung::TurnTcp, Outcome::Chosen),
        ]
    );
    let after = climbs[3].after.expect("a time");
    assert!(after >= Duration::from_millis(600), "{after:?}");
}

#[tokio::test]
async fn an_open_network_is_used_directly_and_no_relay_is_bothered() {
    let turn = turn_server().await;
    // A machine that is busy for longer than the head start shows nothing.
    for _ in 0..5 {
        let config = climbing(Transport::Auto, None, servers(&turn));
        let (peer, mut events, server) = offered(config, Options::default()).await;
        assert_eq!(connected(&mut events).await, Rung::Udp);
        let relays = [Rung::TurnUdp, Rung::TurnTcp, Rung::TurnTls];
        let idle = relays.map(|rung| climb(&peer, rung).outcome == Outcome::Idle);
        peer.close(true).await;
        server.kill().await;
        if idle == [true; 3] {
            assert_eq!(turn.counts().borrow().allocated, 0);
            return;
        }
    }
    panic!("relays were tried each time");
}

#[tokio::test]
async fn the_server_never_sees_a_second_way_once_one_is_answered() {
    let turn = turn_server().await;
    // The relay is remembered, so it begins; the direct way is open too, and its checks would follow 300 ms later. On a
    // machine that is busy for that long the direct way wins, which shows nothing.
    for _ in 0..5 {
        let config = climbing(Transport::Auto, Some(Rung::TurnTcp), servers(&turn));
        let clock = config.clock;
        let (peer, mut events, server) = offered(config, Options::default()).await;
        let first = connected(&mut events).await;
        if first == Rung::TurnTcp {
            let climbs = still_wins((peer, events, server), clock, &turn, first).await;
            let idle = climbs.iter().filter(|c| c.outcome == Outcome::Idle).count();
            assert_eq!(idle, 3, "{climbs:?}");
            return;
        }
        peer.close(true).await;
        server.kill().await;
    }
    panic!("the remembered rung never won");
}

#[tokio::test]
async fn what_stops_a_relay_is_told_without_secrets() {
    let turn = turn_server().await;
    let refused = async |server: IceServer, rung: Rung, why: &str| {
        let config = climbing(Transport::Relay, None, vec![server]);
        let (peer, _events, server) = offered(config, behind_a_firewall()).await;
        let failed = async {
            loop {
                if let Outcome::Failed(why) = climb(&peer, rung).outcome {
                    return why;
                }
                tokio::task::yield_now().await;
            }
        };
        let failed = tokio::time::timeout(Duration::from_secs(15), failed);
        let failed = failed.await.expect("a failure");
        assert!(failed.contains(why), "{failed}");
        assert!(!failed.contains("mistaken"), "{failed}");
        peer.close(true).await;
        server.kill().await;
    };
    let urls = turn.urls();
    refused(
        ice_server(&urls[0], "mistaken"),
        Rung::TurnUdp,
        "401, wrong TURN user name or password",
    )
    .await;
    refused(
        ice_server(&urls[1], "mistaken"),
        Rung::TurnTcp,
        "401, wrong TURN user name or password",
    )
    .await;
    turn.commit(Some(TurnFault::Refuse { code: 486 }));
    refused(
        ice_server(&urls[1], "relayed"),
        Rung::TurnTcp,
        "486, the quota of allocations is used up",
    )
    .await;
    turn.commit(Some(TurnFault::Refuse { code: 508 }));
    refused(
        ice_server(&urls[2], "relayed"),
        Rung::TurnTls,
        "508, no capacity left",
    )
    .await;
    turn.stop().await;
    refused(ice_server(&urls[0], "relayed"), Rung::TurnUdp, "refused").await;
    refused(ice_server(&urls[1], "relayed"), Rung::TurnTcp, "refused").await;
    let unknown = ice_server("turns:nowhere.invalid", "relayed");
    refused(unknown, Rung::TurnTls, "looking up the name").await;
}

#[tokio::test]
async fn another_server_is_asked_where_one_sends_us_there() {
    let first = turn_server().await;
    let second = turn_server().await;
    let other = second.tcp().expect("TCP");
    first.commit(Some(TurnFault::Alternate { server: other }));
    let config = climbing(Transport::Tcp, None, server_for(&first, Rung::TurnTcp));
    let clock = config.clock;
    let connection = offered(config, behind_a_firewall()).await;
    wins(connection, clock, &second, Rung::TurnTcp).await;
    assert_eq!(first.counts().borrow().allocated, 0);

    // Servers that send us to each other are given up.
    let back = first.tcp().expect("TCP");
    second.commit(Some(TurnFault::Alternate { server: back }));
    let config = climbing(Transport::Relay, None, server_for(&first, Rung::TurnTcp));
    let (peer, _events, server) = offered(config, behind_a_firewall()).await;
    let failed = async {
        while !matches!(climb(&peer, Rung::TurnTcp).outcome, Outcome::Failed(_)) {
            tokio::task::yield_now().await;
        }
    };
    let failed = tokio::time::timeout(Duration::from_secs(10), failed);
    failed.await.expect("a failure");
    let why = climb(&peer, Rung::TurnTcp).outcome.to_string();
    assert!(why.contains("other servers"), "{why}");
    peer.close(true).await;
    server.kill().await;
}

#[tokio::test]
async fn nonces_may_go_stale_at_any_time() {
    for rung in [Rung::TurnUdp, Rung::TurnTcp] {
        let turn = turn_server().await;
        turn.commit(Some(TurnFault::StaleNonce { after: 1 }));
        let config = climbing(Transport::Relay, Some(rung), server_for(&turn, rung));
        let clock = config.clock;
        let connection = offered(config, behind_a_firewall()).await;
        wins(connection, clock, &turn, rung).await;
    }
}

#[tokio::test]
async fn of_several_servers_the_first_that_answers_relays() {
    let turn = turn_server().await;
    // As OvenMediaEngine in a container: its inner address answers nobody.
    let hole = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a listener");
    let inner = hole.local_addr().expect("bound");
    let mut servers = servers(&turn);
    servers[0] = ice_server(&format!("turn:{inner}?transport=tcp"), "relayed");
    servers.truncate(2);
    let config = climbing(Transport::Relay, Some(Rung::TurnTcp), servers);
    let clock = config.clock;
    let connection = answered(config, behind_a_firewall()).await;
    wins(connection, clock, &turn, Rung::TurnTcp).await;
}

#[tokio::test]
async fn servers_learnt_with_the_answer_are_used() {
    let turn = turn_server().await;
    let config = climbing(Transport::Auto, None, Vec::new());
    let clock = config.clock;
    let (peer, events) = Peer::new(config).await.expect("a peer");
    let offer = peer.offer().await.expect("an offer");
    let (server, answer) = Receiver::answering(&offer, behind_a_firewall()).await;
    let known = server_for(&turn, Rung::TurnUdp);
    peer.add_ice_servers(&known);
    peer.add_ice_servers(&known);
    peer.accept(&answer).await.expect("accepted");
    peer.add_candidate(&server.candidate).await.expect("added");
    wins((peer, events, server), clock, &turn, Rung::TurnUdp).await;
}

#[tokio::test]
async fn a_relay_that_dies_ends_the_connection_at_once() {
    let turn = turn_server().await;
    turn.commit(Some(TurnFault::Drop {
        after_bytes: 50_000,
    }));
    let config = climbing(Transport::Relay, None, server_for(&turn, Rung::TurnTcp));
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, behind_a_firewall()).await;
    connected(&mut events).await;
    let dying = async {
        publish(&mut peer, clock, &server, |_| false).await;
    };
    tokio::select! {
        () = dying => {}
        () = until(&mut events, "the break", |event| {
            (*event == Event::Failed(Stage::Transport)).then_some(())
        }) => {}
    }
    let why = climb(&peer, Rung::TurnTcp).outcome.to_string();
    assert!(why.contains("TURN server"), "{why}");
    peer.close(true).await;
    server.kill().await;
}

#[tokio::test]
async fn candidates_are_told_to_an_end_without_relays_too() {
    let (peer, mut events, server) = offered(config(), Options::default()).await;
    assert!(our_candidates(&mut events).await.is_empty());
    peer.close(true).await;
    server.kill().await;
}

/// A STUN server that sees all the world behind one address.
async fn stun_server() -> std::net::SocketAddr {
    let socket = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let address = socket.local_addr().expect("bound");
    tokio::spawn(async move {
        let mut packet = vec![0; 1_000];
        while let Ok((_, from)) = socket.recv_from(&mut packet).await {
            assert_eq!(packet[..2], [0, 1], "a Binding request");
            let mut answer = vec![1, 1, 0, 12, 0x21, 0x12, 0xA4, 0x42];
            answer.extend(&packet[8..20]);
            // XOR-MAPPED-ADDRESS 203.0.113.5:4242 (RFC 8489, section 14.2).
            answer.extend([0, 0x20, 0, 8, 0, 1, 0x10 ^ 0x21, 0x92 ^ 0x12]);
            answer.extend([203 ^ 0x21, 0x12, 113 ^ 0xA4, 5 ^ 0x42]);
            socket.send_to(&answer, from).await.expect("sent");
        }
    });
    address
}

#[tokio::test]
async fn what_stun_servers_say_of_us_is_told() {
    let mut known = ice_server(&format!("stun:{}", stun_server().await), "");
    known.username = String::new();
    // One that does not answer holds nothing up.
    let hole = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("a socket");
    let hole = hole.local_addr().expect("bound");
    let deaf = ice_server(&format!("stun:{hole}"), "");
    let config = climbing(Transport::Auto, None, vec![known, deaf]);
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, Options::default()).await;
    let lines = our_candidates(&mut events).await;
    let [line] = &lines[..] else {
        panic!("{lines:?}");
    };
    assert!(
        line.contains(" udp ") && line.contains(" 203.0.113.5 4242 typ srflx raddr 127.0.0.1 ")
    );
    // Media does not mind: the answers were not the engine's.
    publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
    peer.close(true).await;
    server.kill().await;
}

#[tokio::test]
async fn the_stand_ins_for_relays_are_never_told() {
    for transport in [
        Transport::Auto,
        Transport::Tcp,
        Transport::Relay,
        Transport::Udp,
    ] {
        let (peer, _events) = Peer::new(climbing(transport, None, Vec::new()))
            .await
            .expect("a peer");
        let offer = peer.offer().await.expect("an offer");
        assert!(!offer.contains("127.59."), "{offer}");
        let lines = offer.lines().filter(|line| line.starts_with("a=candidate"));
        assert_eq!(lines.count() == 0, transport == Transport::Relay, "{offer}");
        peer.close(false).await;
    }
}

async fn restarted(peer: &Peer, server: &Receiver) {
    let offer = peer.restart().await.expect("an offer");
    assert!(!offer.contains("a=candidate"), "{offer}");
    let (answered, answer) = oneshot::channel();
    let order = Order::Answer(offer, answered);
    assert!(server.orders.send(order).is_ok(), "the server lives");
    let answer = answer.await.expect("an answer");
    peer.accept(&answer).await.expect("accepted");
    peer.add_candidate(&server.candidate).await.expect("added");
}

#[tokio::test]
async fn an_ice_restart_moves_media_to_new_sockets() {
    for tcp in [false, true] {
        let config = climbing(Transport::Auto, None, Vec::new());
        let clock = config.clock;
        let options = Options {
            tcp,
            ..Options::default()
        };
        let (mut peer, mut events, server) = offered(config, options).await;
        connected(&mut events).await;
        publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
        let before = peer.counters().pair.expect("a pair");

        // An offer that the server does not take changes nothing.
        peer.restart().await.expect("an offer");
        let seen = whole_pictures(&server.seen.borrow());
        publish(&mut peer, clock, &server, |now| {
            whole_pictures(now) >= seen + 5
        })
        .await;
        assert_eq!(peer.counters().pair, Some(before));

        restarted(&peer, &server).await;
        let seen = whole_pictures(&server.seen.borrow());
        publish(&mut peer, clock, &server, |now| {
            whole_pictures(now) >= seen + 10
        })
        .await;
        let after = peer.counters().pair.expect("a pair");
        assert_ne!(after.local, before.local);
        assert_eq!((after.rung, after.remote), (before.rung, before.remote));
        let mut told = false;
        until(&mut events, "our candidates and the connection", |event| {
            match event {
                Event::Candidates { lines, .. } => told |= !lines.is_empty(),
                Event::Connected(pair) => return (*pair == after && told).then_some(()),
                Event::Failed(stage) => panic!("failed at {stage}"),
                _ => {}
            }
            None
        })
        .await;
        assert_eq!(climb(&peer, after.rung).outcome, Outcome::Chosen);
        peer.close(true).await;
        server.until("close_notify", |seen| seen.closed).await;
        server.kill().await;
    }
}

#[tokio::test]
async fn an_ice_restart_goes_through_a_new_allocation() {
    let turn = turn_server().await;
    let config = climbing(Transport::Relay, None, server_for(&turn, Rung::TurnTcp));
    let clock = config.clock;
    let (mut peer, mut events, server) = offered(config, behind_a_firewall()).await;
    connected(&mut events).await;
    publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
    restarted(&peer, &server).await;
    assert_eq!(
        connected_again(&mut peer, clock, &server, &mut events).await,
        Rung::TurnTcp
    );
    counted(&turn, "a new allocation alone", |counts| {
        counts.allocations == 1 && counts.allocated == 2
    })
    .await;
    wins_still(peer, server, &turn).await;
}

async fn connected_again(
    peer: &mut Peer,
    clock: onair::media::time::MediaClock,
    server: &Receiver,
    events: &mut mpsc::Receiver<Event>,
) -> Rung {
    let seen = whole_pictures(&server.seen.borrow());
    publish(peer, clock, server, |now| whole_pictures(now) >= seen + 10).await;
    connected(events).await
}

async fn wins_still(peer: Peer, server: Receiver, turn: &TurnServer) {
    peer.close(true).await;
    server.until("close_notify", |seen| seen.closed).await;
    counted(turn, "the release", |counts| counts.allocations == 0).await;
    server.kill().await;
}

#[tokio::test]
async fn media_flows_over_ipv6() {
    if tokio::net::UdpSocket::bind((Ipv6Addr::LOCALHOST, 0))
        .await
        .is_err()
    {
        // A machine without IPv6 cannot show it.
        return;
    }
    for (tcp, rung) in [(false, Rung::Udp), (true, Rung::Tcp)] {
        let config = climbing(Transport::Auto, None, Vec::new());
        let clock = config.clock;
        let options = Options {
            tcp,
            ip: Some(Ipv6Addr::LOCALHOST.into()),
            ..Options::default()
        };
        let (mut peer, mut events, server) = offered(config, options).await;
        assert_eq!(connected(&mut events).await, rung);
        assert!(peer.counters().pair.expect("a pair").local.is_ipv6());
        publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
        peer.close(true).await;
        server.until("close_notify", |seen| seen.closed).await;
        server.kill().await;
    }
}

/// A proxy that knows the way to a server whose address nobody else reaches.
async fn tunnel_to(server: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a listener");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut stream = BufReader::new(stream);
                let mut line = String::new();
                while stream.read_line(&mut line).await.is_ok() && !line.ends_with("\r\n\r\n") {}
                assert!(line.starts_with("CONNECT 192.0.2.7:1935 "), "{line}");
                let mut onward = tokio::net::TcpStream::connect(server)
                    .await
                    .expect("the server");
                let opened = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await;
                opened.expect("written");
                tokio::io::copy_bidirectional(&mut stream, &mut onward)
                    .await
                    .ok();
            });
        }
    });
    address
}

#[tokio::test]
async fn a_tcp_candidate_is_dialled_through_the_proxy_too() {
    let mut config = climbing(Transport::Auto, None, Vec::new());
    let clock = config.clock;
    let (mut peer, mut events, server) = {
        let (options, limits) = (
            Options {
                tcp: true,
                ..Options::default()
            },
            config.limits,
        );
        let (offering, offer, candidate) = Receiver::offering(options).await;
        let words: Vec<&str> = candidate.split(' ').collect();
        let at = format!("{}:{}", words[4], words[5]);
        let proxy = tunnel_to(at.parse().expect("an address")).await;
        let proxy = Proxy::Url(Secret::new(format!("http://{proxy}")));
        config.dialer =
            Dialer::new(&own_url(), &Trust::default(), &proxy).expect("no files are read");
        config.limits = limits;
        let (peer, events) = Peer::new(config).await.expect("a peer");
        let answer = peer.answer(&offer).await.expect("an answer");
        let server = offering.accept(&answer);
        // As of a cloud server beyond a firewall that lets only the proxy through.
        let candidate = "candidate:0 1 TCP 50 192.0.2.7 1935 typ host generation 0";
        peer.add_candidate(candidate).await.expect("added");
        (peer, events, server)
    };
    assert_eq!(connected(&mut events).await, Rung::Tcp);
    publish(&mut peer, clock, &server, |seen| whole_pictures(seen) >= 5).await;
    let pair = peer.counters().pair.expect("a pair");
    assert_eq!(pair.remote.to_string(), "192.0.2.7:1935");
    let to_the_proxy = Ipv4Addr::LOCALHOST;
    assert_eq!(pair.leaves_from, to_the_proxy);
    peer.close(true).await;
    server.until("close_notify", |seen| seen.closed).await;
    server.kill().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ovenmediaengines_own_relay_is_taken_for_what_it_says() {
    let ways = [
        (Profile::Ome020, "tcp", Transport::Tcp),
        (Profile::Ome021, "relay", Transport::Auto),
    ];
    for (profile, asked, transport) in ways {
        let lab = LabConfig::new(vec![profile], crate::support::clock());
        let lab = Lab::start(lab).await.expect("a lab");
        let url = lab.endpoint(profile).expect("this profile").url;
        let mut socket = connect(&format!("{url}?direction=send&transport={asked}")).await;
        say(&mut socket, &json!({"command": "request_offer"})).await;
        let heard = hear(&mut socket, Duration::from_secs(5)).await;
        let heard = heard.expect("an offer");
        let turn = &heard["iceServers"][0];
        let mut config = climbing(transport, None, Vec::new());
        config.payload_types = PayloadTypes {
            h264: 100,
            opus: 102,
        };
        let clock = config.clock;
        let (mut peer, mut events) = Peer::new(config).await.expect("a peer");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        peer.add_ice_servers(&[IceServer {
            url: text(&turn["urls"][0]).parse().expect("a URL"),
            username: text(&turn["username"]),
            credential: Secret::new(text(&turn["credential"])),
        }]);
        let sdp = text(&heard["sdp"]["sdp"]);
        let answer = peer.answer(&sdp).await.expect("an answer");
        let answer = json!({
            "id": heard["id"], "peer_id": heard["peer_id"], "command": "answer",
            "sdp": {"type": "answer", "sdp": answer},
        });
        say(&mut socket, &answer).await;
        for candidate in heard["candidates"].as_array().expect("a list") {
            let line = text(&candidate["candidate"]);
            peer.add_candidate(&line).await.expect("added");
        }
        assert_eq!(connected(&mut events).await, Rung::TurnTcp);
        let told = async {
            loop {
                let now = clock.at(std::time::Instant::from(tokio::time::Instant::now()));
                peer.send(&sound(now)).await.expect("sent");
                if let Ok(Some(Event::ReceiverReport(_))) =
                    tokio::time::timeout(Duration::from_millis(20), events.recv()).await
                {
                    return;
                }
            }
        };
        let told = tokio::time::timeout(Duration::from_secs(10), told);
        told.await.expect("a receiver report through the relay");
        peer.close(true).await;
    }
}
