//! What OvenMediaEngine's embedded TURN server says, and how its clients' data is unwrapped and wrapped. Pure.
//!
//! Credentials are constants and hardly looked at; permissions, channels and refreshes always succeed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;

use stun_types::attribute::ErrorCode;
use stun_types::attribute::MessageIntegrity;
use stun_types::attribute::Nonce;
use stun_types::attribute::Realm;
use stun_types::attribute::XorMappedAddress;
use stun_types::message::BINDING;
use stun_types::message::IntegrityAlgorithm;
use stun_types::message::LongTermCredentials;
use stun_types::message::Message;
use stun_types::message::MessageClass;
use stun_types::message::MessageType;
use stun_types::message::MessageWriteVec;
use stun_types::message::StunWriteError;
use stun_types::message::TransactionId;
use stun_types::prelude::AttributeStaticType as _;
use stun_types::prelude::MessageWrite as _;
use stun_types::prelude::MessageWriteExt as _;
use turn_types::attribute::ChannelNumber;
use turn_types::attribute::Data;
use turn_types::attribute::Lifetime;
use turn_types::attribute::XorPeerAddress;
use turn_types::attribute::XorRelayedAddress;
use turn_types::channel::ChannelData;
use turn_types::message::ALLOCATE;
use turn_types::message::CHANNEL_BIND;
use turn_types::message::CREATE_PERMISSION;
use turn_types::message::DATA;
use turn_types::message::REFRESH;
use turn_types::message::SEND;

use super::frames;

/// The one user there is.
pub(in crate::lab) const USERNAME: &str = "ome";
/// Its password.
pub(in crate::lab) const PASSWORD: &str = "airen";
const REALM: &str = "airensoft";
const NONCE: &str = "1bcf94ca7494141e";
/// The relayed address that everyone is told; a session takes it for the publisher's.
pub(in crate::lab) const RELAYED: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1)), 14_090);
/// The candidate of a session that can be reached through the relay alone.
pub(in crate::lab) const DUMMY: SocketAddr =
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(100, 127, 255, 254)), 1_518);

/// Longest life of an allocation, in seconds.
const LONGEST: u32 = 3_600;
/// Life of an allocation that asks for none.
const LIFETIME: u32 = 600;
/// Channels of a client.
const CHANNELS: usize = 64;

/// In which form a client's data travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    Channel(u16),
    Indication(SocketAddr),
}

/// What is to be done about a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Said {
    Nothing,
    /// This is the client's data.
    Packet(Vec<u8>),
    /// This is to be replied.
    Reply(Vec<u8>),
}

/// The conversation with one client.
#[derive(Debug)]
pub(super) struct Words {
    remote: SocketAddr,
    channels: HashMap<u16, SocketAddr>,
    form: Option<Form>,
}

impl Words {
    /// With a client that comes from `remote`.
    pub(super) fn new(remote: SocketAddr) -> Self {
        Self {
            remote,
            channels: HashMap::new(),
            form: None,
        }
    }

    /// Takes a message of the client.
    pub(super) fn hear(&mut self, bytes: &[u8]) -> Said {
        if frames::is_channel_data(bytes) {
            return match ChannelData::parse(bytes) {
                Ok(data) if self.channels.contains_key(&data.id()) => {
                    self.form = Some(Form::Channel(data.id()));
                    Said::Packet(data.data().to_vec())
                }
                Ok(_) | Err(_) => Said::Nothing,
            };
        }
        let Ok(message) = Message::from_bytes(bytes) else {
            return Said::Nothing;
        };
        if message.has_class(MessageClass::Indication) && message.has_method(SEND) {
            let peer = message.attribute::<XorPeerAddress>();
            return match (peer, message.attribute::<Data<'_>>()) {
                (Ok(peer), Ok(data)) => {
                    let peer = peer.addr(message.transaction_id());
                    self.form = Some(Form::Indication(peer));
                    Said::Packet(data.data().to_vec())
                }
                _ => Said::Nothing,
            };
        }
        if !message.has_class(MessageClass::Request) {
            return Said::Nothing;
        }
        // What cannot be written is not said.
        self.reply(&message).map_or(Said::Nothing, Said::Reply)
    }

    fn reply(&mut self, request: &Message<'_>) -> Result<Vec<u8>, StunWriteError> {
        let id = request.transaction_id();
        let mut reply = Message::builder_success(request, MessageWriteVec::new());
        let asked = request.attribute::<Lifetime>().map(|asked| asked.seconds());
        let lifetime = Lifetime::new(asked.unwrap_or(LIFETIME).min(LONGEST));
        if request.has_method(BINDING) {
            reply.add_attribute(&XorMappedAddress::new(self.remote, id))?;
        } else if request.has_method(ALLOCATE) {
            if !request.has_attribute(MessageIntegrity::TYPE) {
                return unauthorized(request);
            }
            reply.add_attribute(&XorRelayedAddress::new(RELAYED, id))?;
            reply.add_attribute(&lifetime)?;
            reply.add_attribute(&XorMappedAddress::new(self.remote, id))?;
        } else if request.has_method(REFRESH) {
            reply.add_attribute(&lifetime)?;
        } else if request.has_method(CHANNEL_BIND) {
            let peer = request.attribute::<XorPeerAddress>();
            if let (Ok(number), Ok(peer)) = (request.attribute::<ChannelNumber>(), peer)
                && self.channels.len() < CHANNELS
            {
                self.channels.insert(number.channel(), peer.addr(id));
            }
        } else if !request.has_method(CREATE_PERMISSION) {
            let code = ErrorCode::builder(ErrorCode::BAD_REQUEST).build()?;
            reply = Message::builder_error(request, MessageWriteVec::new());
            reply.add_attribute(&code)?;
        }
        if !request.has_method(BINDING) {
            let credentials = LongTermCredentials::new(USERNAME.to_owned(), PASSWORD.to_owned());
            let key = credentials.to_key(REALM.to_owned());
            let key = key.make_key(IntegrityAlgorithm::Sha1);
            reply.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)?;
        }
        reply.add_fingerprint()?;
        Ok(reply.finish())
    }

    /// `packet` for the client, in the form that it used last; `None` as long as it has sent nothing.
    pub(super) fn envelop(&self, packet: &[u8]) -> Option<Vec<u8>> {
        match self.form? {
            Form::Channel(number) => {
                let mut message = vec![0; packet.len() + 4];
                ChannelData::new(number, packet).write_into_unchecked(&mut message);
                Some(message)
            }
            Form::Indication(peer) => {
                let id = TransactionId::generate();
                let kind = MessageType::from_class_method(MessageClass::Indication, DATA);
                let mut message = Message::builder(kind, id, MessageWriteVec::new());
                message.add_attribute(&XorPeerAddress::new(peer, id)).ok()?;
                message.add_attribute(&Data::new(packet)).ok()?;
                Some(message.finish())
            }
        }
    }
}

fn unauthorized(request: &Message<'_>) -> Result<Vec<u8>, StunWriteError> {
    let mut reply = Message::builder_error(request, MessageWriteVec::new());
    reply.add_attribute(&ErrorCode::builder(ErrorCode::UNAUTHORIZED).build()?)?;
    reply.add_attribute(&Realm::new(REALM)?)?;
    reply.add_attribute(&Nonce::new(NONCE)?)?;
    reply.add_fingerprint()?;
    Ok(reply.finish())
}

/// The user fragment of the side that a connectivity check is for: the first part of its user name.
pub(super) fn addressee(packet: &[u8]) -> Option<String> {
    let message = Message::from_bytes(packet).ok()?;
    if !message.has_class(MessageClass::Request) || !message.has_method(BINDING) {
        return None;
    }
    let username = message
        .attribute::<stun_types::attribute::Username>()
        .ok()?;
    let (ufrag, _) = username.username().split_once(':')?;
    Some(ufrag.to_owned())
}

#[cfg(test)]
mod tests {
    use stun_types::attribute::Username;
    use stun_types::message::Method;
    use turn_types::attribute::RequestedTransport;

    use super::*;

    fn words() -> Words {
        Words::new(SocketAddr::from(([192, 0, 2, 7], 5_000)))
    }

    fn key(password: &str) -> stun_types::message::IntegrityKey {
        let credentials = LongTermCredentials::new("ome".to_owned(), password.to_owned());
        let key = credentials.to_key("airensoft".to_owned());
        key.make_key(IntegrityAlgorithm::Sha1)
    }

    fn request(method: Method, signed: bool) -> MessageWriteVec {
        let mut request = Message::builder_request(method, MessageWriteVec::new());
        let transport = RequestedTransport::new(RequestedTransport::UDP);
        request.add_attribute(&transport).expect("added");
        if signed {
            for attribute in [
                &Username::new("ome").expect("short") as &dyn stun_types::prelude::AttributeWrite,
                &Realm::new("airensoft").expect("short"),
                &Nonce::new("1bcf94ca7494141e").expect("short"),
            ] {
                request.add_attribute(attribute).expect("added");
            }
            let sha1 = IntegrityAlgorithm::Sha1;
            request
                .add_message_integrity_with_key(&key("airen"), sha1)
                .expect("signed");
        }
        request
    }

    fn replied(said: Said) -> Vec<u8> {
        let Said::Reply(reply) = said else {
            panic!("{said:?}");
        };
        reply
    }

    #[test]
    fn an_allocation_is_a_fixed_lie() {
        let mut words = words();
        let first = replied(words.hear(&request(ALLOCATE, false).finish()));
        let first = Message::from_bytes(&first).expect("STUN");
        assert_eq!(first.attribute::<ErrorCode>().expect("a code").code(), 401);
        let (realm, nonce) = (first.attribute::<Realm>(), first.attribute::<Nonce>());
        assert_eq!(realm.expect("a realm").realm(), "airensoft");
        assert_eq!(nonce.expect("a nonce").nonce(), "1bcf94ca7494141e");
        let second = replied(words.hear(&request(ALLOCATE, true).finish()));
        let second = Message::from_bytes(&second).expect("STUN");
        let id = second.transaction_id();
        assert!(second.has_class(MessageClass::Success));
        let relayed = second.attribute::<XorRelayedAddress>().expect("an address");
        assert_eq!(relayed.addr(id).to_string(), "1.1.1.1:14090");
        let mapped = second.attribute::<XorMappedAddress>().expect("an address");
        assert_eq!(mapped.addr(id).to_string(), "192.0.2.7:5000");
        assert!(second.validate_integrity_with_key(&key("airen")).is_ok());
        assert!(second.validate_integrity_with_key(&key("wrong")).is_err());
        for method in [REFRESH, CREATE_PERMISSION, CHANNEL_BIND] {
            let reply = replied(words.hear(&request(method, true).finish()));
            let reply = Message::from_bytes(&reply).expect("STUN");
            assert!(reply.has_class(MessageClass::Success), "{method}");
        }
    }

    #[test]
    fn answers_take_the_form_that_was_used_last() {
        let mut words = words();
        assert_eq!(words.envelop(b"early"), None);
        let peer = SocketAddr::from(([10, 0, 0, 1], 10_000));
        let id = TransactionId::generate();
        let kind = MessageType::from_class_method(MessageClass::Indication, SEND);
        let mut send = Message::builder(kind, id, MessageWriteVec::new());
        let to = XorPeerAddress::new(peer, id);
        send.add_attribute(&to).expect("added");
        send.add_attribute(&Data::new(b"there")).expect("added");
        let send = send.finish();
        assert_eq!(words.hear(&send), Said::Packet(b"there".to_vec()));
        let back = words.envelop(b"back").expect("a form");
        let back = Message::from_bytes(&back).expect("STUN");
        let from = back.attribute::<XorPeerAddress>().expect("an address");
        assert_eq!(from.addr(back.transaction_id()), peer);
        assert_eq!(back.attribute::<Data<'_>>().expect("data").data(), b"back");

        let data = [0x40, 1, 0, 3, 7, 8, 9];
        assert_eq!(words.hear(&data), Said::Nothing, "no channel yet");
        let mut bind = Message::builder_request(CHANNEL_BIND, MessageWriteVec::new());
        let id = Message::from_bytes(bind.data())
            .expect("STUN")
            .transaction_id();
        let to = XorPeerAddress::new(peer, id);
        bind.add_attribute(&ChannelNumber::new(0x4001))
            .expect("added");
        bind.add_attribute(&to).expect("added");
        replied(words.hear(&bind.finish()));
        assert_eq!(words.hear(&data), Said::Packet(vec![7, 8, 9]));
        assert_eq!(words.envelop(&[5]), Some(vec![0x40, 1, 0, 1, 5]));
        assert_eq!(words.hear(&send), Said::Packet(b"there".to_vec()));
        assert!(words.envelop(&[5]).is_some_and(|message| message[0] == 0));
    }

    #[test]
    fn a_check_names_its_addressee() {
        let mut check = Message::builder_request(BINDING, MessageWriteVec::new());
        let username = Username::new("theirs:ours").expect("short");
        check.add_attribute(&username).expect("added");
        assert_eq!(addressee(&check.finish()), Some("theirs".to_owned()));
        assert_eq!(addressee(&[0x80; 40]), None);
        assert_eq!(addressee(&request(ALLOCATE, true).finish()), None);
    }
}
