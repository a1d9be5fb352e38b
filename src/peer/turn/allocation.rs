//! One allocation at a TURN server (RFC 8656), told the time: requests with long-term credentials, permissions, channels,
//! refreshes.
//!
//! The words are the engine's (`rtc::stun`, `rtc::turn`), the conversation is ours. The engine's own client forgets a
//! channel whose refresh meets a stale nonce while the server keeps it, so that what arrives on it is lost for
//! minutes; it repeats such a refresh of the allocation only after half its lifetime; and it knows no 300.
//!
//! Answers are matched by their transaction and believed without a look at their integrity: OvenMediaEngine's embedded
//! server invents most of what it says, and who can forge them can also cut the path. ICE, DTLS and SRTP inside the
//! relay are verified from end to end.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut as _, Bytes, BytesMut};
use rtc::crypto::RTCCryptoProvider;
use rtc::shared::error::Error as EngineError;
use rtc::stun::addr::MappedAddress;
use rtc::stun::attributes::{
    ATTR_ALTERNATE_DOMAIN, ATTR_ALTERNATE_SERVER, ATTR_NONCE, ATTR_REALM, ATTR_USERNAME,
    ATTR_XOR_PEER_ADDRESS, ATTR_XOR_RELAYED_ADDRESS, AttrType,
};
use rtc::stun::error_code::ErrorCodeAttribute;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::integrity::MessageIntegrity;
use rtc::stun::message::{
    CLASS_ERROR_RESPONSE, CLASS_INDICATION, CLASS_REQUEST, CLASS_SUCCESS_RESPONSE, Getter as _,
    METHOD_ALLOCATE, METHOD_CHANNEL_BIND, METHOD_CREATE_PERMISSION, METHOD_DATA, METHOD_REFRESH,
    METHOD_SEND, Message, MessageType, Method, Setter, TransactionId,
};
use rtc::stun::textattrs::TextAttribute;
use rtc::stun::xoraddr::XorMappedAddress;
use rtc::turn::proto::PROTO_UDP;
use rtc::turn::proto::channum::ChannelNumber;
use rtc::turn::proto::data::Data;
use rtc::turn::proto::lifetime::{DEFAULT_LIFETIME, Lifetime};
use rtc::turn::proto::peeraddr::PeerAddress;
use rtc::turn::proto::reqtrans::RequestedTransport;

use crate::config::secret::Secret;

/// How long a request may go unanswered.
pub(super) const PATIENCE: Duration = Duration::from_secs(8);

/// First pause before a request is sent again over UDP; it doubles up to [`SLOWEST`].
const RETRANSMIT: Duration = Duration::from_millis(250);

/// Longest such pause.
const SLOWEST: Duration = Duration::from_secs(1);

/// Permissions last 300 s and channels 600 s (RFC 8656, sections 9 and 12); both are renewed together.
const RENEW: Duration = Duration::from_secs(240);

/// Shortest time between two refreshes, whatever lifetime a server grants.
const SHORTEST: Duration = Duration::from_secs(5);

/// Most peers: as many as there are candidates.
const PEERS: usize = 16;

/// Times in a row that a request is signed again because the nonce was stale.
const STALE: u8 = 3;

/// Longest realm or nonce that is taken (RFC 8489, section 14.9 and 14.10).
const LONGEST_TEXT: usize = 763;

/// Longest name of another server that is taken: as long as a domain name can be.
const LONGEST_DOMAIN: usize = 255;

/// First of the channel numbers (RFC 8656, section 12).
const FIRST_CHANNEL: u16 = 0x4000;

/// Why there is no allocation, or no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// A message could not be made or read.
    #[error("the TURN server's answer cannot be used")]
    Answer,
    /// The allocation ended at the server.
    #[error("the TURN server ended the allocation ({0})")]
    Ended(u16),
    /// It refuses for a reason that has a number.
    #[error("the TURN server refuses: {}", says(*.0))]
    Refused(u16),
    /// It does not answer.
    #[error("the TURN server does not answer")]
    Silent,
}

/// What a code means to the one who has to act on it.
fn says(code: u16) -> String {
    let meaning = match code {
        300 => "go to another server, again and again",
        400 | 420 => "it does not understand the request",
        401 | 441 => "wrong TURN user name or password",
        403 => "forbidden",
        437 => "it believes that an allocation exists already",
        438 => "it calls every nonce stale",
        440 | 442 | 443 => "it does not relay such addresses",
        486 => "the quota of allocations is used up",
        508 => "no capacity left",
        _ => "no reason that is known",
    };
    format!("{code}, {meaning}")
}

/// What an allocation wants done or known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Output {
    /// The allocation stands, with this relayed address.
    Allocated(SocketAddr),
    /// Another server is to be asked, over the same transport; with the name in its certificate, where that is
    /// another one (RFC 8489, section 10).
    Alternate(SocketAddr, Option<String>),
    /// Something came from a peer.
    Data(SocketAddr, Bytes),
    /// It is over; nothing follows.
    Over(Refusal),
    /// The server relays nothing to and from this peer.
    PeerRefused(SocketAddr, u16),
    /// The allocation was given back.
    Released,
    /// To be sent to the server: one message, padded as a stream wants it.
    Send(Bytes),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Allocating,
    Over,
    Releasing,
    Standing { refresh: Instant },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Request {
    Allocate,
    Bind(SocketAddr),
    Permit(SocketAddr),
    Refresh,
    Release,
}

impl Request {
    const fn method(self) -> Method {
        match self {
            Self::Allocate => METHOD_ALLOCATE,
            Self::Bind(_) => METHOD_CHANNEL_BIND,
            Self::Permit(_) => METHOD_CREATE_PERMISSION,
            Self::Refresh | Self::Release => METHOD_REFRESH,
        }
    }
}

/// A request without its answer.
struct Pending {
    id: TransactionId,
    request: Request,
    message: Bytes,
    /// How often it was called stale before.
    stale: u8,
    signed: bool,
    again: Instant,
    pause: Duration,
    gives_up: Instant,
}

#[derive(Debug)]
struct Peer {
    channel: u16,
    /// Data goes over the channel.
    bound: bool,
    binding: bool,
    /// The server does not want it.
    refused: bool,
    renew: Instant,
}

/// An allocation, from the first request to its release.
pub(super) struct Allocation {
    crypto: Arc<dyn RTCCryptoProvider>,
    username: String,
    credential: Secret,
    /// Over a stream nothing is sent twice, and ChannelData is padded.
    stream: bool,
    realm: String,
    nonce: String,
    key: Option<Vec<u8>>,
    state: State,
    peers: HashMap<SocketAddr, Peer>,
    pending: Vec<Pending>,
    outputs: VecDeque<Output>,
}

impl Allocation {
    /// Asks for an allocation.
    pub(super) fn new(
        crypto: Arc<dyn RTCCryptoProvider>,
        username: &str,
        credential: &Secret,
        stream: bool,
        now: Instant,
    ) -> Self {
        let mut allocation = Self {
            crypto,
            username: username.to_owned(),
            credential: credential.clone(),
            stream,
            realm: String::new(),
            nonce: String::new(),
            key: None,
            state: State::Allocating,
            peers: HashMap::new(),
            pending: Vec::new(),
            outputs: VecDeque::new(),
        };
        allocation.ask(Request::Allocate, 0, now);
        allocation
    }

    /// What is to be done next.
    pub(super) fn poll(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`tick`](Self::tick) is due.
    pub(super) fn deadline(&self) -> Option<Instant> {
        let requests = self.pending.iter().map(|p| {
            if self.stream {
                p.gives_up
            } else {
                p.again.min(p.gives_up)
            }
        });
        let refresh = match self.state {
            State::Standing { refresh } => Some(refresh),
            State::Allocating | State::Over | State::Releasing => None,
        };
        let renewals = self.peers.values().filter(|p| !p.refused).map(|p| p.renew);
        let renewals = refresh.is_some().then(|| renewals.min()).flatten();
        requests.chain(refresh).chain(renewals).min()
    }

    /// Does what is due.
    pub(super) fn tick(&mut self, now: Instant) {
        let mut silent = Vec::new();
        for pending in &mut self.pending {
            if pending.gives_up <= now {
                silent.push((pending.id, pending.request));
            } else if !self.stream && pending.again <= now {
                pending.pause = (2 * pending.pause).min(SLOWEST);
                pending.again = now + pending.pause;
                self.outputs
                    .push_back(Output::Send(pending.message.clone()));
            }
        }
        for (id, request) in silent {
            self.pending.retain(|pending| pending.id != id);
            match request {
                Request::Allocate | Request::Refresh => self.over(Refusal::Silent),
                Request::Release => self.released(),
                // The next packet asks again.
                Request::Bind(peer) => self.unbound(peer),
                Request::Permit(peer) => drop(self.peers.remove(&peer)),
            }
        }
        let State::Standing { refresh } = self.state else {
            return;
        };
        if refresh <= now {
            // The answer says when the next one is due.
            self.state = State::Standing {
                refresh: now + PATIENCE + SHORTEST,
            };
            self.ask(Request::Refresh, 0, now);
        }
        let due: Vec<(SocketAddr, bool)> = self
            .peers
            .iter_mut()
            .filter(|(_, peer)| !peer.refused && peer.renew <= now)
            .map(|(&address, peer)| {
                peer.renew = now + RENEW;
                (address, peer.bound)
            })
            .collect();
        for (peer, bound) in due {
            self.ask(Request::Permit(peer), 0, now);
            if bound {
                self.ask(Request::Bind(peer), 0, now);
            }
        }
    }

    /// Sends `data` to `peer`, asking for what that takes. Without an allocation it goes nowhere.
    pub(super) fn send(&mut self, peer: SocketAddr, data: &[u8], now: Instant) {
        if !matches!(self.state, State::Standing { .. }) {
            return;
        }
        if !self.peers.contains_key(&peer) {
            if self.peers.len() >= PEERS {
                return;
            }
            let taken: Vec<u16> = self.peers.values().map(|peer| peer.channel).collect();
            let free = (FIRST_CHANNEL..).find(|number| !taken.contains(number));
            self.peers.insert(
                peer,
                Peer {
                    channel: free.unwrap_or(FIRST_CHANNEL),
                    bound: false,
                    binding: false,
                    refused: false,
                    renew: now + RENEW,
                },
            );
            // What follows at once mostly finds the permission granted.
            self.ask(Request::Permit(peer), 0, now);
        }
        let message = match self.peers.get(&peer) {
            Some(peer) if peer.refused => return,
            Some(peer) if peer.bound => Ok(channel_data(peer.channel, data, self.stream)),
            _ => {
                let message = build(&[
                    Box::new(TransactionId::new()),
                    Box::new(MessageType::new(METHOD_SEND, CLASS_INDICATION)),
                    Box::new(peer_address(peer)),
                    Box::new(Data(data.to_vec())),
                ]);
                message.map(|message| Bytes::from(message.raw))
            }
        };
        if let Ok(message) = message {
            self.outputs.push_back(Output::Send(message));
        }
    }

    /// Takes what the server sent: one message.
    pub(super) fn read(&mut self, packet: &Bytes, now: Instant) {
        match packet.first() {
            Some(0..=3) => {
                let mut message = Message {
                    raw: packet.to_vec(),
                    ..Message::default()
                };
                if message.decode().is_err() {
                    return;
                }
                if message.typ.class == CLASS_INDICATION && message.typ.method == METHOD_DATA {
                    self.indication(&message, now);
                } else if message.typ.class == CLASS_SUCCESS_RESPONSE
                    || message.typ.class == CLASS_ERROR_RESPONSE
                {
                    self.response(&message, now);
                }
            }
            Some(0x40..=0x7F) => {
                let [n0, n1, l0, l1, ..] = **packet else {
                    return;
                };
                let channel = u16::from_be_bytes([n0, n1]);
                let end = 4 + usize::from(u16::from_be_bytes([l0, l1]));
                let peer = self.peers.iter().find(|(_, peer)| peer.channel == channel);
                if let Some((&peer, _)) = peer
                    && end <= packet.len()
                {
                    self.came(peer, packet.slice(4..end), now);
                }
            }
            _ => {}
        }
    }

    /// Gives the allocation back; [`Output::Released`] or [`Output::Over`] follows, at once if there is none.
    pub(super) fn release(&mut self, now: Instant) {
        match self.state {
            State::Standing { .. } => {
                self.state = State::Releasing;
                self.pending.clear();
                self.ask(Request::Release, 0, now);
            }
            State::Allocating => self.released(),
            State::Over | State::Releasing => {}
        }
    }

    /// The transaction that was begun last and is not answered.
    pub(super) fn waits_for(&self) -> Option<[u8; 12]> {
        self.pending.last().map(|pending| pending.id.0)
    }

    fn indication(&mut self, message: &Message, now: Instant) {
        let mut data = Data::default();
        if let Some(peer) = xor_address(message, ATTR_XOR_PEER_ADDRESS)
            && data.get_from(message).is_ok()
            && self.peers.contains_key(&peer)
        {
            self.came(peer, Bytes::from(data.0), now);
        }
    }

    /// A peer that answers is worth a channel.
    fn came(&mut self, peer: SocketAddr, data: Bytes, now: Instant) {
        self.outputs.push_back(Output::Data(peer, data));
        if let Some(known) = self.peers.get_mut(&peer)
            && !known.bound
            && !known.binding
            && matches!(self.state, State::Standing { .. })
        {
            known.binding = true;
            self.ask(Request::Bind(peer), 0, now);
        }
    }

    fn response(&mut self, message: &Message, now: Instant) {
        let Some(at) = self
            .pending
            .iter()
            .position(|pending| pending.id == message.transaction_id)
        else {
            return;
        };
        let pending = self.pending.swap_remove(at);
        if pending.request.method() != message.typ.method {
            return;
        }
        if message.typ.class == CLASS_SUCCESS_RESPONSE {
            self.granted(pending.request, message, now);
            return;
        }
        let mut code = ErrorCodeAttribute::default();
        let code = match code.get_from(message) {
            Ok(()) => code.code.0,
            Err(_) => 0,
        };
        let unsigned = code == 401 && !pending.signed;
        if (unsigned || code == 438) && pending.stale < STALE && self.challenged(message) {
            let stale = pending.stale + u8::from(code == 438);
            self.ask(pending.request, stale, now);
            return;
        }
        self.refused(pending.request, code, message);
    }

    fn granted(&mut self, request: Request, message: &Message, now: Instant) {
        let lifetime = || {
            let mut lifetime = Lifetime::default();
            let granted = lifetime.get_from(message).is_ok();
            let lifetime = if granted {
                lifetime.0
            } else {
                DEFAULT_LIFETIME
            };
            (lifetime / 2).max(SHORTEST)
        };
        match request {
            Request::Allocate => match xor_address(message, ATTR_XOR_RELAYED_ADDRESS) {
                Some(relayed) => {
                    self.state = State::Standing {
                        refresh: now + lifetime(),
                    };
                    self.outputs.push_back(Output::Allocated(relayed));
                }
                None => self.over(Refusal::Answer),
            },
            Request::Refresh => {
                if matches!(self.state, State::Standing { .. }) {
                    self.state = State::Standing {
                        refresh: now + lifetime(),
                    };
                }
            }
            Request::Release => self.released(),
            Request::Bind(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.bound = true;
                }
            }
            Request::Permit(_) => {}
        }
    }

    fn refused(&mut self, request: Request, code: u16, message: &Message) {
        match request {
            Request::Allocate => {
                let alternate = (code == 300).then(|| alternate(message)).flatten();
                match alternate {
                    Some(server) => {
                        self.state = State::Over;
                        let domain = text(message, ATTR_ALTERNATE_DOMAIN, LONGEST_DOMAIN);
                        self.outputs.push_back(Output::Alternate(server, domain));
                    }
                    None => self.over(Refusal::Refused(code)),
                }
            }
            Request::Refresh => self.over(Refusal::Ended(code)),
            Request::Release => self.released(),
            // Without a channel data still flows, in indications; asked once, the server is not asked again.
            Request::Bind(peer) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.bound = false;
                }
            }
            Request::Permit(peer) => {
                if let Some(known) = self.peers.get_mut(&peer) {
                    known.refused = true;
                    self.outputs.push_back(Output::PeerRefused(peer, code));
                }
            }
        }
    }

    fn unbound(&mut self, peer: SocketAddr) {
        if let Some(peer) = self.peers.get_mut(&peer) {
            (peer.bound, peer.binding) = (false, false);
        }
    }

    /// Takes the realm and the nonce of a challenge; whether it held them.
    fn challenged(&mut self, message: &Message) -> bool {
        let Some(nonce) = text(message, ATTR_NONCE, LONGEST_TEXT) else {
            return false;
        };
        if let Some(realm) = text(message, ATTR_REALM, LONGEST_TEXT)
            && (self.key.is_none() || realm != self.realm)
        {
            self.key = MessageIntegrity::long_term_integrity_key(
                self.username.clone(),
                realm.clone(),
                self.credential.expose().to_owned(),
                self.crypto.crypto(),
            )
            .ok();
            self.realm = realm;
        }
        self.nonce = nonce;
        self.key.is_some()
    }

    fn ask(&mut self, request: Request, stale: u8, now: Instant) {
        let id = TransactionId::new();
        let Ok(message) = self.request(request, id) else {
            self.over(Refusal::Answer);
            return;
        };
        let message = Bytes::from(message.raw);
        self.outputs.push_back(Output::Send(message.clone()));
        self.pending.push(Pending {
            id,
            request,
            message,
            stale,
            signed: self.key.is_some(),
            again: now + RETRANSMIT,
            pause: RETRANSMIT,
            gives_up: now + PATIENCE,
        });
    }

    fn request(&self, request: Request, id: TransactionId) -> Result<Message, EngineError> {
        let mut setters: Vec<Box<dyn Setter + '_>> = vec![
            Box::new(id),
            Box::new(MessageType::new(request.method(), CLASS_REQUEST)),
        ];
        match request {
            Request::Allocate => setters.push(Box::new(RequestedTransport {
                protocol: PROTO_UDP,
            })),
            Request::Bind(peer) => {
                let channel = self.peers.get(&peer).map_or(FIRST_CHANNEL, |p| p.channel);
                setters.push(Box::new(ChannelNumber(channel)));
                setters.push(Box::new(peer_address(peer)));
            }
            Request::Permit(peer) => setters.push(Box::new(peer_address(peer))),
            Request::Refresh => {}
            Request::Release => setters.push(Box::new(Lifetime(Duration::ZERO))),
        }
        if let Some(key) = &self.key {
            for (attribute, text) in [
                (ATTR_USERNAME, &self.username),
                (ATTR_REALM, &self.realm),
                (ATTR_NONCE, &self.nonce),
            ] {
                setters.push(Box::new(TextAttribute::new(attribute, text.clone())));
            }
            setters.push(Box::new(MessageIntegrity::new_raw_integrity_with_provider(
                key.clone(),
                self.crypto.crypto(),
            )));
        }
        setters.push(Box::new(FINGERPRINT));
        build(&setters)
    }

    fn over(&mut self, why: Refusal) {
        if self.state != State::Over {
            self.state = State::Over;
            self.pending.clear();
            self.outputs.push_back(Output::Over(why));
        }
    }

    fn released(&mut self) {
        if self.state != State::Over {
            self.state = State::Over;
            self.pending.clear();
            self.outputs.push_back(Output::Released);
        }
    }
}

fn build(setters: &[Box<dyn Setter + '_>]) -> Result<Message, EngineError> {
    let mut message = Message::new();
    message.build(setters)?;
    Ok(message)
}

fn peer_address(peer: SocketAddr) -> PeerAddress {
    PeerAddress {
        ip: peer.ip(),
        port: peer.port(),
    }
}

/// An address that a message tells in the way of RFC 8489, section 14.2.
pub(in crate::peer) fn xor_address(message: &Message, attribute: AttrType) -> Option<SocketAddr> {
    let mut address = XorMappedAddress::default();
    address.get_from_as(message, attribute).ok()?;
    Some(SocketAddr::new(address.ip, address.port))
}

fn text(message: &Message, attribute: AttrType, longest: usize) -> Option<String> {
    let text = message.get(attribute).ok()?;
    let text = String::from_utf8(text).ok()?;
    (text.len() <= longest).then_some(text)
}

fn alternate(message: &Message) -> Option<SocketAddr> {
    let mut address = MappedAddress::default();
    address.get_from_as(message, ATTR_ALTERNATE_SERVER).ok()?;
    (address.port != 0 && !address.ip.is_unspecified())
        .then(|| SocketAddr::new(address.ip, address.port))
}

/// ChannelData (RFC 8656, section 12.4), padded to four bytes where a stream carries it.
fn channel_data(channel: u16, data: &[u8], padded: bool) -> Bytes {
    // A UDP packet's data has at most 65,507 bytes.
    let len = u16::try_from(data.len()).unwrap_or(u16::MAX);
    let mut frame = BytesMut::with_capacity(4 + data.len().next_multiple_of(4));
    frame.put_u16(channel);
    frame.put_u16(len);
    frame.put_slice(&data[..usize::from(len)]);
    if padded {
        frame.put_bytes(0, frame.len().next_multiple_of(4) - frame.len());
    }
    frame.freeze()
}

#[cfg(test)]
mod tests;
