//! One client of the TURN server: its messages, its allocation, the socket that relays for it.
//!
//! Protocol and lifetimes are `turn-server-proto`'s, one instance per client, so that a client that goes takes
//! everything with it. That crate is told of datagrams only: streams are cut into messages here (`frames`),
//! because its own cutting knows no padding.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use stun_types::attribute::MessageIntegrity;
use stun_types::attribute::MessageIntegritySha256;
use stun_types::attribute::Nonce;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::BINDING;
use stun_types::message::LongTermCredentials;
use stun_types::message::Message;
use stun_types::message::MessageClass;
use stun_types::message::MessageWriteVec;
use stun_types::message::StunWriteError;
use stun_types::prelude::AttributeStaticType as _;
use stun_types::prelude::MessageWrite as _;
use stun_types::prelude::MessageWriteExt as _;
use tokio::net::UdpSocket;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use turn_server_proto::api::SocketAllocateError;
use turn_server_proto::api::Transmit;
use turn_server_proto::api::TurnServerApi as _;
use turn_server_proto::api::TurnServerPollRet;
use turn_server_proto::server::TurnServer as Protocol;
use turn_types::AddressFamily;
use turn_types::Instant;
use turn_types::TransportType;
use turn_types::message::ALLOCATE;
use turn_types::message::REFRESH;

use super::Shared;
use super::faults;
use super::faults::TurnFault;
use super::frames;
use crate::lab::now;

/// Longest datagram that is relayed.
const DATAGRAM: usize = 4_096;
/// A client without allocation from which nothing is heard for this long is forgotten.
const IDLE: Duration = Duration::from_secs(60);
/// And after it has given its allocation back: it may want to hear that again.
const GONE: Duration = Duration::from_secs(1);
/// Two looks at the time are at least this far apart.
const GRAIN: Duration = Duration::from_millis(10);
/// Life of a nonce; the protocol's crate allows none that is shorter than 30 seconds.
const NONCE: Duration = Duration::from_secs(30);

/// How messages go back to a client.
#[derive(Debug)]
pub(super) enum Outlet {
    /// Over the listener's socket, to the client's address.
    Datagrams(Arc<UdpSocket>),
    /// To the task that writes the client's connection.
    Stream(mpsc::Sender<Vec<u8>>),
}

/// One client, known by its address.
pub(super) struct Client {
    shared: Arc<Shared>,
    protocol: Protocol,
    /// Where it comes in, and where it comes from.
    listen: SocketAddr,
    address: SocketAddr,
    outlet: Outlet,
    relay: Option<Relay>,
    gave_back: bool,
    began: std::time::Instant,
    /// By how much the protocol's clock is ahead: a nonce is made stale by letting its life pass.
    ahead: Duration,
    heard: std::time::Instant,
    n_with_nonce: u32,
    n_relayed: u64,
}

/// The socket of an allocation; it counts as long as it lives.
struct Relay {
    address: SocketAddr,
    socket: UdpSocket,
    shared: Arc<Shared>,
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.shared.relays().remove(&self.address);
        self.shared.count(|counts| counts.allocations -= 1);
    }
}

impl Client {
    /// A client at `address` that came in at `listen`.
    pub(super) fn new(
        shared: Arc<Shared>,
        listen: SocketAddr,
        address: SocketAddr,
        outlet: Outlet,
    ) -> Self {
        let mut protocol = Protocol::new(TransportType::Udp, listen, shared.realm.clone());
        let (user, password) = (&shared.username, shared.password.expose());
        protocol.add_user(user.clone(), password.to_owned());
        protocol.set_nonce_expiry_duration(NONCE);
        let began = now();
        Self {
            shared,
            protocol,
            listen,
            address,
            outlet,
            relay: None,
            gave_back: false,
            began,
            ahead: Duration::ZERO,
            heard: began,
            n_with_nonce: 0,
            n_relayed: 0,
        }
    }

    /// Serves it until `messages` ends, it is idle, or a fault drops it.
    pub(super) async fn run(
        mut self,
        mut messages: mpsc::Receiver<Vec<u8>>,
        stop: &CancellationToken,
    ) {
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let due = self.poll().await;
            if self.is_over() {
                return;
            }
            tokio::select! {
                message = messages.recv() => match message {
                    Some(message) => self.message(message),
                    None => return,
                },
                received = receive(self.relay.as_ref(), &mut datagram) => {
                    // An error here is an ICMP message about an earlier packet of ours.
                    if let Ok((length, peer)) = received {
                        self.relayed(&datagram[..length], peer);
                    }
                }
                () = tokio::time::sleep_until(due.into()) => {}
                () = stop.cancelled() => return,
            }
        }
    }

    /// The time as the protocol is told it.
    fn time(&self) -> Instant {
        let since = now().saturating_duration_since(self.began) + self.ahead;
        Instant::from_nanos(i64::try_from(since.as_nanos()).unwrap_or(i64::MAX))
    }

    const fn patience(&self) -> Duration {
        if self.gave_back { GONE } else { IDLE }
    }

    fn is_over(&self) -> bool {
        let idle = now().saturating_duration_since(self.heard) > self.patience();
        let dropped = matches!(
            self.shared.fault(),
            Some(TurnFault::Drop { after_bytes }) if self.n_relayed > after_bytes
        );
        dropped || (idle && self.relay.is_none())
    }

    /// Does what the protocol wants done; returns when it wants to know the time.
    async fn poll(&mut self) -> std::time::Instant {
        loop {
            let time = self.time();
            while let Some(transmit) = self.protocol.poll_transmit(time) {
                self.transmit(transmit);
            }
            match self.protocol.poll(time) {
                TurnServerPollRet::AllocateSocket {
                    allocation_transport,
                    family,
                    ..
                } => self.allocate(allocation_transport, family).await,
                TurnServerPollRet::SocketClose { .. } => {
                    self.relay = None;
                    self.gave_back = true;
                }
                // Without allocations of TCP there are no connections to peers.
                TurnServerPollRet::TcpConnect { .. } | TurnServerPollRet::TcpClose { .. } => {}
                TurnServerPollRet::WaitUntil(due) => {
                    return now() + due.duration_since(time).clamp(GRAIN, self.patience());
                }
            }
        }
    }

    async fn allocate(&mut self, transport: TransportType, family: AddressFamily) {
        let ip = self.shared.relay_ip;
        let known = match family {
            AddressFamily::IPV4 => ip.is_ipv4(),
            AddressFamily::IPV6 => ip.is_ipv6(),
        };
        let allocated = if known && transport == TransportType::Udp {
            self.bind()
                .await
                .ok_or(SocketAllocateError::InsufficientCapacity)
        } else {
            Err(SocketAllocateError::AddressFamilyNotSupported)
        };
        let time = self.time();
        self.protocol.allocated_socket(
            TransportType::Udp,
            self.listen,
            self.address,
            transport,
            family,
            allocated,
            time,
        );
    }

    async fn bind(&mut self) -> Option<SocketAddr> {
        let socket = UdpSocket::bind((self.shared.relay_ip, 0)).await.ok()?;
        let address = socket.local_addr().ok()?;
        self.shared.relays().insert(address);
        self.shared.count(|counts| {
            counts.allocations += 1;
            counts.allocated += 1;
        });
        self.relay = Some(Relay {
            address,
            socket,
            shared: Arc::clone(&self.shared),
        });
        Some(address)
    }

    /// A message of the client.
    fn message(&mut self, message: Vec<u8>) {
        self.heard = now();
        let fault = self.shared.fault();
        if fault == Some(TurnFault::Silent) {
            return;
        }
        if let Ok(stun) = Message::from_bytes(&message)
            && stun.has_class(MessageClass::Request)
            && let Some(reply) = self.reply(&stun, fault)
        {
            if let Ok(reply) = reply {
                self.send(reply);
            }
            return;
        }
        let time = self.time();
        let heard = Transmit::new(message, TransportType::Udp, self.address, self.listen);
        if let Some(transmit) = self.protocol.recv(heard, time) {
            self.transmit(transmit.build());
        }
    }

    /// The reply to `request` where it is not the protocol's to make.
    fn reply(
        &mut self,
        request: &Message<'_>,
        fault: Option<TurnFault>,
    ) -> Option<Result<Vec<u8>, StunWriteError>> {
        if request.has_method(BINDING) {
            // The crate sends these to itself.
            return Some(binding(request, self.address));
        }
        let signed = request.has_attribute(MessageIntegrity::TYPE)
            || request.has_attribute(MessageIntegritySha256::TYPE);
        let (code, alternate) = match fault {
            Some(TurnFault::Alternate { server }) => (300, Some(server)),
            Some(TurnFault::Refuse { code }) => (code, None),
            Some(TurnFault::StaleNonce { after }) => {
                if request.has_attribute(Nonce::TYPE) {
                    self.n_with_nonce += 1;
                }
                if self.n_with_nonce > after.max(1) {
                    self.n_with_nonce = 0;
                    self.ahead += NONCE + Duration::from_secs(1);
                }
                return None;
            }
            Some(TurnFault::Drop { .. } | TurnFault::ShortLife { .. } | TurnFault::Silent)
            | None => return None,
        };
        if !request.has_method(ALLOCATE) || !signed {
            return None;
        }
        let (credentials, realm) = (self.credentials(), &self.shared.realm);
        let refusal = faults::refusal(request, code, alternate, &credentials, realm);
        Some(refusal)
    }

    fn credentials(&self) -> LongTermCredentials {
        let (user, password) = (&self.shared.username, self.shared.password.expose());
        LongTermCredentials::new(user.clone(), password.to_owned())
    }

    /// A reply of the protocol's, as it is to be sent.
    fn replied(&self, reply: Vec<u8>) -> Vec<u8> {
        let Ok(message) = Message::from_bytes(&reply) else {
            return reply;
        };
        if faults::granted(&message).is_none() {
            return reply;
        }
        if message.has_method(REFRESH) {
            self.shared.count(|counts| counts.refreshed += 1);
        }
        let Some(TurnFault::ShortLife { seconds }) = self.shared.fault() else {
            return reply;
        };
        let (credentials, realm) = (self.credentials(), &self.shared.realm);
        faults::shortened(&message, seconds, &credentials, realm).unwrap_or(reply)
    }

    /// A datagram of a peer.
    fn relayed(&mut self, bytes: &[u8], peer: SocketAddr) {
        let Some(relay) = &self.relay else {
            return;
        };
        if self.shared.fault() == Some(TurnFault::Silent) {
            return;
        }
        let heard = Transmit::new(bytes, TransportType::Udp, peer, relay.address);
        let time = self.time();
        // A peer without permission is not heard.
        let Some(transmit) = self.protocol.recv(heard, time) else {
            return;
        };
        let transmit = transmit.build();
        self.passed(bytes.len());
        self.transmit(transmit);
    }

    fn transmit(&mut self, transmit: Transmit<Vec<u8>>) {
        if transmit.to == self.address && transmit.from == self.listen {
            let message = self.replied(transmit.data);
            self.send(message);
            return;
        }
        let Some(relay) = self.relay.as_ref().filter(|r| r.address == transmit.from) else {
            return;
        };
        // A full socket buffer loses the packet, as a network would.
        relay.socket.try_send_to(&transmit.data, transmit.to).ok();
        self.passed(transmit.data.len());
    }

    fn send(&self, message: Vec<u8>) {
        match &self.outlet {
            // Either loses the message if nobody reads, as a network would.
            Outlet::Datagrams(socket) => {
                socket.try_send_to(&message, self.address).ok();
            }
            Outlet::Stream(outbox) => {
                outbox.try_send(frames::padded(message)).ok();
            }
        }
    }

    fn passed(&mut self, bytes: usize) {
        self.n_relayed += bytes as u64;
        self.shared
            .count(|counts| counts.relayed_bytes += bytes as u64);
    }
}

fn binding(request: &Message<'_>, address: SocketAddr) -> Result<Vec<u8>, StunWriteError> {
    let mut message = Message::builder_success(request, MessageWriteVec::new());
    let mapped = XorMappedAddress::new(address, request.transaction_id());
    message.add_attribute(&mapped)?;
    message.add_fingerprint()?;
    Ok(message.finish())
}

async fn receive(
    relay: Option<&Relay>,
    datagram: &mut [u8],
) -> std::io::Result<(usize, SocketAddr)> {
    match relay {
        Some(relay) => relay.socket.recv_from(datagram).await,
        None => std::future::pending().await,
    }
}
