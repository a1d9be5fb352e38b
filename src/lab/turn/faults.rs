//! What a TURN server may do wrong on demand, and its words for it.

use std::net::SocketAddr;

use serde::Deserialize;
use serde::Serialize;
use stun_types::attribute::AlternateServer;
use stun_types::attribute::ErrorCode;
use stun_types::attribute::Fingerprint;
use stun_types::attribute::MessageIntegrity;
use stun_types::attribute::MessageIntegritySha256;
use stun_types::attribute::Nonce;
use stun_types::attribute::Realm;
use stun_types::message::IntegrityAlgorithm;
use stun_types::message::LongTermCredentials;
use stun_types::message::Message;
use stun_types::message::MessageClass;
use stun_types::message::MessageWriteVec;
use stun_types::message::StunWriteError;
use stun_types::prelude::Attribute as _;
use stun_types::prelude::AttributeStaticType as _;
use stun_types::prelude::MessageWrite as _;
use stun_types::prelude::MessageWriteExt as _;
use turn_types::attribute::Lifetime;
use turn_types::message::ALLOCATE;
use turn_types::message::REFRESH;

/// Something for a TURN server to do wrong, for as long as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize)]
#[serde(tag = "fault", rename_all = "kebab-case")]
pub enum TurnFault {
    /// Allocations are refused with 300 and the address of another server.
    Alternate {
        /// The other server.
        server: SocketAddr,
    },
    /// A client is dropped, as by a server that restarts, once this much was relayed for it in both directions.
    Drop {
        /// Bytes of data.
        after_bytes: u64,
    },
    /// Allocations are refused with this code, after their credentials were found right: 486 and 508, for example;
    /// 401 is what wrong credentials meet.
    Refuse {
        /// The code.
        code: u16,
    },
    /// Allocations are said to live only so long, though they live longer: whoever keeps one prolongs it by then.
    ShortLife {
        /// What is said.
        seconds: u32,
    },
    /// Nothing is answered and nothing relayed.
    Silent,
    /// The nonce is stale after this many requests that used it, again and again.
    StaleNonce {
        /// Requests; 0 stands for 1.
        after: u32,
    },
}

/// The refusal of `request` with `code`; signed unless it is one that says that nobody is known here.
pub(super) fn refusal(
    request: &Message<'_>,
    code: u16,
    alternate: Option<SocketAddr>,
    credentials: &LongTermCredentials,
    realm: &str,
) -> Result<Vec<u8>, StunWriteError> {
    let mut message = Message::builder_error(request, MessageWriteVec::new());
    message.add_attribute(&ErrorCode::builder(code).build()?)?;
    if let Some(server) = alternate {
        message.add_attribute(&AlternateServer::new(server))?;
    }
    let nonce = request.attribute::<Nonce>();
    if code == ErrorCode::UNAUTHORIZED {
        message.add_attribute(&Realm::new(realm)?)?;
        if let Ok(nonce) = nonce {
            message.add_attribute(&Nonce::new(nonce.nonce())?)?;
        }
    } else {
        let key = credentials.to_key(realm.to_owned());
        let key = key.make_key(IntegrityAlgorithm::Sha1);
        message.add_message_integrity_with_key(&key, IntegrityAlgorithm::Sha1)?;
    }
    message.add_fingerprint()?;
    Ok(message.finish())
}

/// Life of an allocation that a reply of ours grants, if it grants any.
pub(super) fn granted(reply: &Message<'_>) -> Option<u32> {
    let granting = reply.has_method(ALLOCATE) || reply.has_method(REFRESH);
    let lifetime = reply.attribute::<Lifetime>().ok()?.seconds();
    (granting && reply.has_class(MessageClass::Success) && lifetime > 0).then_some(lifetime)
}

/// `reply` with another life for the allocation, signed again.
pub(super) fn shortened(
    reply: &Message<'_>,
    seconds: u32,
    credentials: &LongTermCredentials,
    realm: &str,
) -> Result<Vec<u8>, StunWriteError> {
    let id = reply.transaction_id();
    let mut message = Message::builder(reply.get_type(), id, MessageWriteVec::new());
    for (_, attribute) in reply.iter_attributes() {
        match attribute.get_type() {
            MessageIntegrity::TYPE | MessageIntegritySha256::TYPE | Fingerprint::TYPE => {}
            Lifetime::TYPE => message.add_attribute(&Lifetime::new(seconds))?,
            _ => message.add_attribute(&attribute)?,
        }
    }
    let algorithm = if reply.has_attribute(MessageIntegritySha256::TYPE) {
        IntegrityAlgorithm::Sha256
    } else {
        IntegrityAlgorithm::Sha1
    };
    let key = credentials.to_key(realm.to_owned()).make_key(algorithm);
    message.add_message_integrity_with_key(&key, algorithm)?;
    Ok(message.finish())
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn refusals_say_what_they_should() {
        let request = Message::builder_request(ALLOCATE, MessageWriteVec::new()).finish();
        let request = Message::from_bytes(&request).expect("a request");
        let credentials = LongTermCredentials::new("user".to_owned(), "word".to_owned());
        let other = "192.0.2.1:3478".parse().ok();
        let refused = |code, alternate| {
            let bytes = refusal(&request, code, alternate, &credentials, "lab").expect("a message");
            let message = Message::from_bytes(&bytes).expect("STUN");
            let code = message.attribute::<ErrorCode>().expect("a code").code();
            let server = message.attribute::<AlternateServer>().map(|a| a.server());
            let key = credentials.to_key("lab".to_owned());
            let key = key.make_key(IntegrityAlgorithm::Sha1);
            let signed = message.validate_integrity_with_key(&key).is_ok();
            (code, server.ok(), signed)
        };
        assert_eq!(refused(300, other), (300, other, true));
        assert_eq!(refused(508, None), (508, None, true));
        assert_eq!(refused(401, None), (401, None, false));
    }

    #[test]
    fn faults_are_read_from_json() {
        let read = |text| serde_json::from_str::<TurnFault>(text).expect(text);
        assert_eq!(read(r#"{"fault":"silent"}"#), TurnFault::Silent);
        let drop = r#"{"fault":"drop","after_bytes":1000}"#;
        assert_eq!(read(drop), TurnFault::Drop { after_bytes: 1_000 });
    }
}
