//! The lab's TURN server, driven by clients of another make: it relays over every transport it has, keeps to
//! permissions, ends what has ended, and is wrong on demand.

use std::net::SocketAddr;
use std::time::Duration;

use onair::lab::tls::Identity;
use onair::lab::turn::TurnConfig;
use onair::lab::turn::TurnCounts;
use onair::lab::turn::TurnFault;
use onair::lab::turn::TurnServer;
use stun_types::attribute::AlternateServer;
use stun_types::attribute::ErrorCode;
use stun_types::attribute::Nonce;
use stun_types::attribute::Realm;
use stun_types::attribute::Username;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::BINDING;
use stun_types::message::IntegrityAlgorithm;
use stun_types::message::LongTermCredentials;
use stun_types::message::Message;
use stun_types::message::MessageClass;
use stun_types::message::MessageWriteVec;
use stun_types::message::Method;
use stun_types::prelude::*;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use turn_types::attribute::Lifetime;
use turn_types::attribute::RequestedTransport;
use turn_types::attribute::XorRelayedAddress;
use turn_types::message::ALLOCATE;
use turn_types::message::REFRESH;

use crate::relay::Client;
use crate::relay::Line;
use crate::relay::Met;

const SOON: Duration = Duration::from_secs(5);
/// Long enough for loopback to bring what was going to come.
const MOMENT: Duration = Duration::from_millis(300);
const USER: (&str, &str) = ("lab", "relayed");

fn identity() -> Identity {
    Identity::self_signed(&["localhost".to_owned()]).expect("a certificate")
}

async fn server(identity: Option<Identity>) -> TurnServer {
    TurnServer::start(TurnConfig::loopback(identity))
        .await
        .expect("a TURN server")
}

async fn peer() -> (UdpSocket, SocketAddr) {
    let socket = UdpSocket::bind("127.0.0.1:0").await.expect("a socket");
    let address = socket.local_addr().expect("bound");
    (socket, address)
}

/// What arrives at `socket`, and from where.
async fn arrives(socket: &UdpSocket) -> (Vec<u8>, SocketAddr) {
    let mut datagram = vec![0; 2_000];
    let received = tokio::time::timeout(SOON, socket.recv_from(&mut datagram)).await;
    let (length, from) = received.expect("in time").expect("received");
    (datagram[..length].to_vec(), from)
}

async fn until(server: &TurnServer, wanted: impl FnMut(&TurnCounts) -> bool) -> TurnCounts {
    let mut counts = server.counts();
    let reached = tokio::time::timeout(SOON, counts.wait_for(wanted)).await;
    match reached {
        Ok(counts) => *counts.expect("the server runs"),
        Err(_) => panic!("not in time: {:?}", server.counts().borrow()),
    }
}

/// Data of each length modulo four passes in both directions, by indication and by channel.
async fn relays(server: &TurnServer, mut client: Client) {
    let (socket, peer) = peer().await;
    let (stranger, _) = self::peer().await;
    client.permit(peer).await;
    for by_channel in [false, true] {
        if by_channel {
            client.bind_channel(peer).await;
        }
        for length in [1, 2, 3, 4, 1_201] {
            let there = vec![length as u8; length];
            client.send(peer, &there).await;
            assert_eq!(arrives(&socket).await, (there, client.relayed));
            let back = vec![!length as u8; length];
            socket.send_to(&back, client.relayed).await.expect("sent");
            let met = client.meet(SOON).await;
            assert!(
                matches!(&met, Met::Data(from, data) if *from == peer && *data == back),
                "{met:?}"
            );
        }
    }
    // Permissions go by address, so that another port of it is heard too.
    stranger
        .send_to(b"port", client.relayed)
        .await
        .expect("sent");
    assert!(matches!(client.meet(SOON).await, Met::Data(..)));
    let counts = *server.counts().borrow();
    assert_eq!((counts.allocations, counts.allocated), (1, 1));
    assert_eq!(counts.relayed_bytes, 2 * 2 * 1_211 + 4);
    client.delete().await;
    until(server, |counts| counts.allocations == 0).await;
}

#[tokio::test]
async fn it_relays_over_udp() {
    let server = server(None).await;
    let at = server.udp().expect("UDP");
    let client = Client::allocate(Line::udp(at).await, at, USER).await;
    relays(&server, client.expect("an allocation")).await;
    server.stop().await;
}

#[tokio::test]
async fn it_relays_over_tcp() {
    let server = server(None).await;
    let at = server.tcp().expect("TCP");
    let client = Client::allocate(Line::tcp(at).await, at, USER).await;
    relays(&server, client.expect("an allocation")).await;
    server.stop().await;
}

#[tokio::test]
async fn it_relays_over_tls() {
    let identity = identity();
    let server = server(Some(identity.clone())).await;
    let at = server.tls().expect("TLS");
    let client = Client::allocate(Line::tls(at, &identity).await, at, USER).await;
    relays(&server, client.expect("an allocation")).await;
    server.stop().await;
}

#[tokio::test]
async fn two_clients_of_it_reach_each_other() {
    let server = server(None).await;
    let (udp, tcp) = (server.udp().expect("UDP"), server.tcp().expect("TCP"));
    let one = Client::allocate(Line::udp(udp).await, udp, USER).await;
    let other = Client::allocate(Line::tcp(tcp).await, tcp, USER).await;
    let (mut one, mut other) = (one.expect("one"), other.expect("another"));
    one.permit(other.relayed).await;
    other.permit(one.relayed).await;
    one.send(other.relayed, b"across").await;
    let met = other.meet(SOON).await;
    assert!(
        matches!(&met, Met::Data(from, data) if *from == one.relayed && data == b"across"),
        "{met:?}"
    );
    server.stop().await;
}

#[tokio::test]
async fn who_has_no_permission_is_not_heard() {
    let server = server(None).await;
    let at = server.udp().expect("UDP");
    let client = Client::allocate(Line::udp(at).await, at, USER).await;
    let mut client = client.expect("an allocation");
    let (socket, _) = peer().await;
    socket
        .send_to(b"hello", client.relayed)
        .await
        .expect("sent");
    assert!(matches!(client.meet(MOMENT).await, Met::Nothing));
    assert_eq!(server.counts().borrow().relayed_bytes, 0);
    server.stop().await;
}

#[tokio::test]
async fn wrong_credentials_get_no_allocation() {
    let server = server(None).await;
    for user in [("lab", "wrong"), ("nobody", "relayed")] {
        let mut raw = Raw::udp(server.udp().expect("UDP")).await;
        raw.user = user;
        let reply = raw.allocate().await.expect("a reply");
        assert_eq!((reply.code, reply.signed), (Some(401), false));
    }
    assert_eq!(server.counts().borrow().allocated, 0);
    server.stop().await;
}

#[tokio::test]
async fn the_end_of_a_connection_ends_its_allocation() {
    let server = server(None).await;
    let at = server.tcp().expect("TCP");
    let client = Client::allocate(Line::tcp(at).await, at, USER).await;
    drop(client.expect("an allocation"));
    until(&server, |counts| counts.allocations == 0).await;
    assert_eq!(server.counts().borrow().allocated, 1);
    server.stop().await;
}

#[tokio::test]
async fn what_is_no_turn_ends_the_connection() {
    let server = server(None).await;
    let mut stream = TcpStream::connect(server.tcp().expect("TCP"))
        .await
        .expect("connected");
    // A packet behind its length, as ICE-TCP frames it.
    stream
        .write_all(&[0x80, 0x60, 0, 1, 2, 3])
        .await
        .expect("written");
    let mut rest = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await;
    // Either an end or a reset: what was not read is lost.
    read.expect("the server hangs up").ok();
    assert!(rest.is_empty());
    server.stop().await;
}

/// A client that asks what it is told to ask.
struct Raw {
    line: Line,
    local: SocketAddr,
    user: (&'static str, &'static str),
    nonce: Option<String>,
    realm: String,
}

/// What a reply says.
#[derive(Debug)]
struct Reply {
    code: Option<u16>,
    alternate: Option<SocketAddr>,
    relayed: Option<SocketAddr>,
    mapped: Option<SocketAddr>,
    lifetime: Option<u32>,
    signed: bool,
}

impl Raw {
    async fn udp(at: SocketAddr) -> Self {
        let (line, local) = Line::udp(at).await;
        Self {
            line,
            local,
            user: USER,
            nonce: None,
            realm: String::new(),
        }
    }

    /// Asks, signed as soon as it knows realm and nonce; the reply, unless nothing comes.
    async fn ask(&mut self, method: Method, lifetime: Option<u32>) -> Option<Reply> {
        let credentials = LongTermCredentials::new(self.user.0.to_owned(), self.user.1.to_owned());
        let key = credentials.to_key(self.realm.clone());
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        let transport = RequestedTransport::new(RequestedTransport::UDP);
        if method == ALLOCATE {
            request.add_attribute(&transport).expect("added");
        }
        if let Some(lifetime) = lifetime {
            request
                .add_attribute(&Lifetime::new(lifetime))
                .expect("added");
        }
        if let Some(nonce) = &self.nonce {
            request
                .add_attribute(&Username::new(self.user.0).expect("short"))
                .expect("added");
            request
                .add_attribute(&Realm::new(&self.realm).expect("short"))
                .expect("added");
            request
                .add_attribute(&Nonce::new(nonce).expect("short"))
                .expect("added");
            let sha1 = IntegrityAlgorithm::Sha1;
            request
                .add_message_integrity_with_key(&key, sha1)
                .expect("signed");
        }
        self.line.send(&request.finish()).await;
        let reply = tokio::time::timeout(MOMENT, self.line.recv())
            .await
            .ok()??;
        let reply = Message::from_bytes(&reply).expect("STUN");
        let id = reply.transaction_id();
        if let Ok(realm) = reply.attribute::<Realm>() {
            self.realm = realm.realm().to_owned();
        }
        if reply.has_class(MessageClass::Error)
            && let Ok(nonce) = reply.attribute::<Nonce>()
        {
            self.nonce = Some(nonce.nonce().to_owned());
        }
        Some(Reply {
            code: reply.attribute::<ErrorCode>().ok().map(|e| e.code()),
            alternate: reply
                .attribute::<AlternateServer>()
                .ok()
                .map(|a| a.server()),
            relayed: reply
                .attribute::<XorRelayedAddress>()
                .ok()
                .map(|a| a.addr(id)),
            mapped: reply
                .attribute::<XorMappedAddress>()
                .ok()
                .map(|a| a.addr(id)),
            lifetime: reply.attribute::<Lifetime>().ok().map(|l| l.seconds()),
            signed: reply.validate_integrity_with_key(&key).is_ok(),
        })
    }

    /// Allocates: first without credentials, then with.
    async fn allocate(&mut self) -> Option<Reply> {
        let first = self.ask(ALLOCATE, None).await?;
        assert_eq!(first.code, Some(401), "{first:?}");
        self.ask(ALLOCATE, Some(700)).await
    }
}

#[tokio::test]
async fn it_tells_who_asks_where_from_they_come() {
    let server = server(None).await;
    let mut raw = Raw::udp(server.udp().expect("UDP")).await;
    let reply = raw.ask(BINDING, None).await.expect("a reply");
    assert_eq!((reply.code, reply.mapped), (None, Some(raw.local)));
    server.stop().await;
}

#[tokio::test]
async fn an_allocation_is_described_and_refreshed() {
    let server = server(None).await;
    let mut raw = Raw::udp(server.udp().expect("UDP")).await;
    let reply = raw.allocate().await.expect("a reply");
    assert_eq!((reply.code, reply.signed), (None, true));
    assert_eq!((reply.mapped, reply.lifetime), (Some(raw.local), Some(700)));
    assert!(reply.relayed.is_some_and(|at| at.ip().is_loopback()));
    let reply = raw.ask(REFRESH, Some(1_000)).await.expect("a reply");
    assert_eq!((reply.code, reply.lifetime), (None, Some(1_000)));
    let again = raw.ask(ALLOCATE, None).await.expect("a reply");
    assert_eq!(again.code, Some(437), "there is one already");
    let reply = raw.ask(REFRESH, Some(0)).await.expect("a reply");
    assert_eq!((reply.code, reply.lifetime), (None, Some(0)));
    until(&server, |counts| counts.allocations == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn allocations_are_refused_on_demand() {
    let server = server(None).await;
    let at = server.udp().expect("UDP");
    for code in [401, 486, 508] {
        server.commit(Some(TurnFault::Refuse { code }));
        let reply = Raw::udp(at).await.allocate().await.expect("a reply");
        assert_eq!((reply.code, reply.signed), (Some(code), code != 401));
    }
    let other = "127.0.0.9:3478".parse().expect("an address");
    server.commit(Some(TurnFault::Alternate { server: other }));
    let reply = Raw::udp(at).await.allocate().await.expect("a reply");
    assert_eq!((reply.code, reply.alternate), (Some(300), Some(other)));
    server.commit(Some(TurnFault::Silent));
    assert!(Raw::udp(at).await.ask(ALLOCATE, None).await.is_none());
    server.commit(None);
    let reply = Raw::udp(at).await.allocate().await.expect("a reply");
    assert!(reply.relayed.is_some());
    assert_eq!(server.counts().borrow().allocated, 1);
    server.stop().await;
}

#[tokio::test]
async fn a_nonce_is_stale_after_some_requests() {
    let server = server(None).await;
    let mut raw = Raw::udp(server.udp().expect("UDP")).await;
    server.commit(Some(TurnFault::StaleNonce { after: 2 }));
    raw.allocate().await.expect("a reply");
    let mut codes = Vec::new();
    let mut nonces = vec![raw.nonce.clone()];
    for _ in 0..5 {
        codes.push(raw.ask(REFRESH, None).await.expect("a reply").code);
        nonces.push(raw.nonce.clone());
    }
    // The allocation itself was the first use of the first nonce.
    assert_eq!(codes, [None, Some(438), None, None, Some(438)]);
    nonces.dedup();
    assert_eq!(nonces.len(), 3, "a new one each time: {nonces:?}");
    assert_eq!(
        server.counts().borrow().allocations,
        1,
        "it outlives its nonces"
    );
    server.stop().await;
}

#[tokio::test]
async fn an_allocation_may_be_said_to_live_for_a_short_time() {
    let server = server(None).await;
    let mut raw = Raw::udp(server.udp().expect("UDP")).await;
    server.commit(Some(TurnFault::ShortLife { seconds: 3 }));
    let reply = raw.allocate().await.expect("a reply");
    assert_eq!((reply.lifetime, reply.signed), (Some(3), true));
    assert_eq!(reply.mapped, Some(raw.local), "the rest is as it was");
    let reply = raw.ask(REFRESH, None).await.expect("a reply");
    assert_eq!((reply.lifetime, reply.signed), (Some(3), true));
    raw.ask(REFRESH, Some(0)).await.expect("a reply");
    assert_eq!(
        server.counts().borrow().refreshed,
        1,
        "an end is no refresh"
    );
    server.stop().await;
}

#[tokio::test]
async fn a_client_is_dropped_after_so_many_bytes() {
    let server = server(None).await;
    let at = server.tcp().expect("TCP");
    server.commit(Some(TurnFault::Drop { after_bytes: 2_500 }));
    let client = Client::allocate(Line::tcp(at).await, at, USER).await;
    let mut client = client.expect("an allocation");
    let (socket, peer) = peer().await;
    client.permit(peer).await;
    for _ in 0..3 {
        client.send(peer, &[7; 1_000]).await;
        assert_eq!(arrives(&socket).await.0.len(), 1_000);
    }
    assert!(matches!(client.meet(SOON).await, Met::Closed));
    until(&server, |counts| counts.allocations == 0).await;
    server.stop().await;
}

#[tokio::test]
async fn garbage_hurts_no_client() {
    let server = server(None).await;
    let (udp, tcp) = (server.udp().expect("UDP"), server.tcp().expect("TCP"));
    let client = Client::allocate(Line::udp(udp).await, udp, USER).await;
    let mut client = client.expect("an allocation");
    let (socket, peer) = peer().await;
    client.permit(peer).await;
    let mut raw = Raw::udp(udp).await;
    raw.allocate().await.expect("a reply");
    let mut stream = TcpStream::connect(tcp).await.expect("connected");
    for n in 0..400_u32 {
        let length = n as usize * 7 % 900;
        let byte = |at: usize| (n * 31 + at as u32 * 17) as u8;
        let mut message: Vec<u8> = (0..length).map(byte).collect();
        if length >= 20 {
            // A STUN header, so that what follows is looked at: every method and class in turn, true lengths and false.
            message[..2].copy_from_slice(&(n as u16 % 0x200).to_be_bytes());
            let told = if n % 3 == 0 { length } else { length - 20 };
            message[2..4].copy_from_slice(&(told as u16 & !3).to_be_bytes());
            message[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
        }
        raw.line.send(&message).await;
        if stream.write_all(&message).await.is_err() {
            stream = TcpStream::connect(tcp).await.expect("connected");
        }
    }
    client.send(peer, b"still here").await;
    assert_eq!(arrives(&socket).await.0, b"still here");
    let client = Client::allocate(Line::tcp(tcp).await, tcp, USER).await;
    assert!(client.is_ok(), "and it takes others");
    server.stop().await;
}
