//! An allocation against a scripted server, on told time.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of all that could come, one thing is expected"
)]

use rtc::stun::attributes::{
    ATTR_CHANNEL_NUMBER, ATTR_ERROR_CODE, ATTR_LIFETIME, ATTR_MESSAGE_INTEGRITY,
    ATTR_XORMAPPED_ADDRESS,
};
use rtc::stun::error_code::ErrorCode;

use super::*;

const MS: Duration = Duration::from_millis(1);

fn crypto() -> Arc<dyn RTCCryptoProvider> {
    rtc::crypto::default_provider().expect("cryptography")
}

fn peer(n: u8) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, n], 10_000))
}

fn relayed() -> SocketAddr {
    // As OvenMediaEngine makes it up.
    SocketAddr::from(([1, 1, 1, 1], 14_090))
}

/// A client, the time, and what it wants.
struct Scene {
    allocation: Allocation,
    now: Instant,
}

impl Scene {
    fn new(stream: bool) -> Self {
        let now = Instant::now();
        let secret = Secret::new("airen");
        Self {
            allocation: Allocation::new(crypto(), "ome", &secret, stream, now),
            now,
        }
    }

    fn standing(stream: bool) -> Self {
        let mut scene = Self::new(stream);
        let first = scene.request(METHOD_ALLOCATE);
        scene.challenge(&first, 401, "nonce");
        let second = scene.request(METHOD_ALLOCATE);
        scene.grant(
            &second,
            &[xor(ATTR_XOR_RELAYED_ADDRESS, relayed()), lifetime(600)],
        );
        assert_eq!(scene.outputs(), [Output::Allocated(relayed())]);
        scene
    }

    fn outputs(&mut self) -> Vec<Output> {
        std::iter::from_fn(|| self.allocation.poll()).collect()
    }

    /// The messages that are to be sent, and nothing else is wanted.
    fn sent(&mut self) -> Vec<Bytes> {
        let sent = self.outputs().into_iter().map(|output| match output {
            Output::Send(message) => message,
            other => panic!("{other:?}"),
        });
        sent.collect()
    }

    /// The only message that is to be sent is this request.
    fn request(&mut self, method: Method) -> Message {
        let sent = self.sent();
        let [message] = &sent[..] else {
            panic!("{sent:?}");
        };
        let message = decoded(message);
        assert_eq!(message.typ, MessageType::new(method, CLASS_REQUEST));
        message
    }

    fn reply(
        &mut self,
        request: &Message,
        class: rtc::stun::message::MessageClass,
        attributes: &[Attribute],
    ) {
        let mut message = Message::new();
        let typ = MessageType::new(request.typ.method, class);
        message
            .build(&[Box::new(request.transaction_id), Box::new(typ)])
            .expect("a message");
        for (attribute, value) in attributes {
            match value {
                Value::Bytes(bytes) => message.add(*attribute, bytes),
                Value::Address(address) => XorMappedAddress {
                    ip: address.ip(),
                    port: address.port(),
                }
                .add_to_as(&mut message, *attribute)
                .expect("an attribute"),
            }
        }
        self.allocation.read(&Bytes::from(message.raw), self.now);
    }

    fn grant(&mut self, request: &Message, attributes: &[Attribute]) {
        self.reply(request, CLASS_SUCCESS_RESPONSE, attributes);
    }

    fn refuse(&mut self, request: &Message, code: u16) {
        self.reply(request, CLASS_ERROR_RESPONSE, &[error(code)]);
    }

    fn challenge(&mut self, request: &Message, code: u16, nonce: &str) {
        let attributes = [
            error(code),
            (ATTR_REALM, Value::Bytes(b"airensoft".to_vec())),
            (ATTR_NONCE, Value::Bytes(nonce.as_bytes().to_vec())),
        ];
        self.reply(request, CLASS_ERROR_RESPONSE, &attributes);
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.allocation.tick(self.now);
    }

    /// Lets time pass until something is due, at most `most`.
    fn next(&mut self, most: Duration) {
        let due = self.allocation.deadline().expect("something is due");
        assert!(due <= self.now + most, "{:?}", due - self.now);
        self.now = due;
        self.allocation.tick(due);
    }

    /// A peer with a permission and a channel.
    fn bound(&mut self, n: u8) -> u16 {
        self.allocation.send(peer(n), b"check", self.now);
        let sent = self.sent();
        assert_eq!(sent.len(), 2, "permission and indication");
        let permit = decoded(&sent[0]);
        assert_eq!(permit.typ.method, METHOD_CREATE_PERMISSION);
        self.grant(&permit, &[]);
        self.indicate(peer(n), b"answer");
        let outputs = self.outputs();
        let [Output::Data(from, data), Output::Send(bind)] = &outputs[..] else {
            panic!("{outputs:?}");
        };
        assert_eq!((*from, data.as_ref()), (peer(n), &b"answer"[..]));
        let bind = decoded(bind);
        assert_eq!(bind.typ.method, METHOD_CHANNEL_BIND);
        let number = bind.get(ATTR_CHANNEL_NUMBER).expect("a channel");
        self.grant(&bind, &[]);
        u16::from_be_bytes([number[0], number[1]])
    }

    fn indicate(&mut self, from: SocketAddr, data: &[u8]) {
        let mut message = Message::new();
        message
            .build(&[
                Box::new(TransactionId::new()),
                Box::new(MessageType::new(METHOD_DATA, CLASS_INDICATION)),
                Box::new(peer_address(from)),
                Box::new(Data(data.to_vec())),
            ])
            .expect("a message");
        self.allocation.read(&Bytes::from(message.raw), self.now);
    }
}

enum Value {
    Address(SocketAddr),
    Bytes(Vec<u8>),
}

type Attribute = (AttrType, Value);

fn xor(attribute: AttrType, address: SocketAddr) -> Attribute {
    (attribute, Value::Address(address))
}

fn lifetime(seconds: u32) -> Attribute {
    (ATTR_LIFETIME, Value::Bytes(seconds.to_be_bytes().to_vec()))
}

fn error(code: u16) -> Attribute {
    let code = ErrorCode(code).0;
    let value = vec![0, 0, (code / 100) as u8, (code % 100) as u8];
    (ATTR_ERROR_CODE, Value::Bytes(value))
}

fn decoded(message: &Bytes) -> Message {
    let mut decoded = Message {
        raw: message.to_vec(),
        ..Message::default()
    };
    decoded.decode().expect("STUN");
    decoded
}

fn text(message: &Message, attribute: AttrType) -> String {
    String::from_utf8(message.get(attribute).expect("an attribute")).expect("text")
}

#[test]
fn credentials_are_given_when_they_are_asked_for() {
    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    assert!(!first.contains(ATTR_USERNAME) && !first.contains(ATTR_MESSAGE_INTEGRITY));
    scene.challenge(&first, 401, "1bcf94ca7494141e");
    let mut second = scene.request(METHOD_ALLOCATE);
    assert_ne!(second.transaction_id, first.transaction_id);
    assert_eq!(text(&second, ATTR_USERNAME), "ome");
    assert_eq!(text(&second, ATTR_REALM), "airensoft");
    assert_eq!(text(&second, ATTR_NONCE), "1bcf94ca7494141e");
    // MD5 of "ome:airensoft:airen" (RFC 8489, section 9.2.2).
    let provider = crypto();
    let key = MessageIntegrity::long_term_integrity_key(
        "ome".to_owned(),
        "airensoft".to_owned(),
        "airen".to_owned(),
        provider.crypto(),
    )
    .expect("a key");
    assert!(MessageIntegrity::check(&mut second, &key, provider.crypto()).is_ok());
    scene.grant(
        &second,
        &[
            xor(ATTR_XOR_RELAYED_ADDRESS, relayed()),
            xor(ATTR_XORMAPPED_ADDRESS, peer(7)),
            lifetime(3_600),
        ],
    );
    assert_eq!(scene.outputs(), [Output::Allocated(relayed())]);
}

#[test]
fn a_server_that_asks_for_no_credentials_is_used() {
    let mut scene = Scene::new(false);
    let first = scene.request(METHOD_ALLOCATE);
    scene.grant(
        &first,
        &[xor(ATTR_XOR_RELAYED_ADDRESS, relayed()), lifetime(600)],
    );
    assert_eq!(scene.outputs(), [Output::Allocated(relayed())]);
}

#[test]
fn refusals_are_told_by_their_code() {
    for code in [400, 403, 437, 442, 486, 508] {
        let mut scene = Scene::new(true);
        let first = scene.request(METHOD_ALLOCATE);
        scene.refuse(&first, code);
        assert_eq!(scene.outputs(), [Output::Over(Refusal::Refused(code))]);
        assert_eq!(scene.allocation.deadline(), None);
    }
    // Asked for credentials again, they were wrong.
    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    scene.challenge(&first, 401, "a");
    let second = scene.request(METHOD_ALLOCATE);
    scene.challenge(&second, 401, "b");
    let outputs = scene.outputs();
    assert_eq!(outputs, [Output::Over(Refusal::Refused(401))]);
    let Output::Over(why) = &outputs[0] else {
        panic!("{outputs:?}");
    };
    assert!(why.to_string().contains("wrong TURN user name or password"));
}

#[test]
fn an_answer_without_a_relayed_address_is_none() {
    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    scene.grant(&first, &[lifetime(600)]);
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Answer)]);
}

#[test]
fn another_server_is_named_only_with_an_address() {
    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    let other = Value::Bytes(vec![0, 1, 0x0D, 0x96, 198, 51, 100, 4]);
    let attributes = [error(300), (ATTR_ALTERNATE_SERVER, other)];
    scene.reply(&first, CLASS_ERROR_RESPONSE, &attributes);
    let expected = SocketAddr::from(([198, 51, 100, 4], 3_478));
    assert_eq!(scene.outputs(), [Output::Alternate(expected, None)]);

    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    scene.refuse(&first, 300);
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Refused(300))]);
}

#[test]
fn the_name_of_another_server_is_told_if_it_can_be_one() {
    for (name, told) in [
        ("turn2.example".to_owned(), true),
        ("a".repeat(LONGEST_DOMAIN), true),
        ("a".repeat(LONGEST_DOMAIN + 1), false),
    ] {
        let mut scene = Scene::new(true);
        let first = scene.request(METHOD_ALLOCATE);
        let attributes = [
            error(300),
            (
                ATTR_ALTERNATE_SERVER,
                Value::Bytes(vec![0, 1, 0x0D, 0x96, 198, 51, 100, 4]),
            ),
            (
                ATTR_ALTERNATE_DOMAIN,
                Value::Bytes(name.clone().into_bytes()),
            ),
        ];
        scene.reply(&first, CLASS_ERROR_RESPONSE, &attributes);
        let server = SocketAddr::from(([198, 51, 100, 4], 3_478));
        let expected = Output::Alternate(server, told.then_some(name));
        assert_eq!(scene.outputs(), [expected]);
    }
}

#[test]
fn over_udp_requests_are_repeated_until_patience_ends() {
    let mut scene = Scene::new(false);
    let first = scene.sent();
    let start = scene.now;
    let mut repeated = Vec::new();
    loop {
        scene.next(SLOWEST);
        let outputs = scene.outputs();
        match &outputs[..] {
            [Output::Send(message)] => {
                assert_eq!(*message, first[0]);
                repeated.push((scene.now - start).as_millis());
            }
            [Output::Over(Refusal::Silent)] => break,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(repeated[..4], [250, 750, 1_750, 2_750]);
    assert_eq!(scene.now - start, PATIENCE);
}

#[test]
fn over_a_stream_nothing_is_sent_twice() {
    let mut scene = Scene::new(true);
    assert_eq!(scene.sent().len(), 1);
    scene.next(PATIENCE);
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Silent)]);
}

#[test]
fn data_goes_by_indication_until_the_peer_answers_and_then_by_channel() {
    for stream in [false, true] {
        let mut scene = Scene::standing(stream);
        let number = scene.bound(1);
        scene.allocation.send(peer(1), b"12345", scene.now);
        let sent = scene.sent();
        let mut expected = number.to_be_bytes().to_vec();
        expected.extend([0, 5]);
        expected.extend(b"12345");
        if stream {
            expected.extend([0; 3]);
        }
        assert_eq!(sent, [Bytes::from(expected.clone())]);
        scene.allocation.read(&Bytes::from(expected), scene.now);
        let data = Output::Data(peer(1), Bytes::from_static(b"12345"));
        assert_eq!(scene.outputs(), [data]);
        assert_ne!(scene.bound(2), number);
    }
}

#[test]
fn a_server_that_binds_no_channels_is_asked_once() {
    let mut scene = Scene::standing(true);
    scene.allocation.send(peer(1), b"check", scene.now);
    scene.sent();
    scene.indicate(peer(1), b"answer");
    let outputs = scene.outputs();
    let Some(Output::Send(bind)) = outputs.last() else {
        panic!("{outputs:?}");
    };
    scene.refuse(&decoded(bind), 400);
    scene.indicate(peer(1), b"answer");
    assert_eq!(scene.outputs().len(), 1, "data alone");
    scene.allocation.send(peer(1), b"media", scene.now);
    assert_eq!(decoded(&scene.sent()[0]).typ.method, METHOD_SEND);
}

#[test]
fn a_peer_that_is_refused_gets_nothing_more() {
    let mut scene = Scene::standing(true);
    scene.allocation.send(peer(1), b"check", scene.now);
    let permit = decoded(&scene.sent()[0]);
    scene.refuse(&permit, 403);
    assert_eq!(scene.outputs(), [Output::PeerRefused(peer(1), 403)]);
    scene.allocation.send(peer(1), b"check", scene.now);
    assert!(scene.outputs().is_empty());
    scene.bound(2);
}

#[test]
fn an_unanswered_permission_is_asked_for_again() {
    let mut scene = Scene::standing(true);
    scene.allocation.send(peer(1), b"check", scene.now);
    assert_eq!(scene.sent().len(), 2);
    scene.pass(PATIENCE);
    assert!(scene.outputs().is_empty());
    scene.allocation.send(peer(1), b"check", scene.now);
    assert_eq!(scene.sent().len(), 2);
}

#[test]
fn a_stale_nonce_is_replaced_whatever_was_asked() {
    let mut scene = Scene::standing(true);
    let number = scene.bound(1);
    // Permission and channel are renewed; both meet a new nonce, and the channel keeps its number.
    scene.pass(RENEW);
    let renewals: Vec<Message> = scene.sent().iter().map(decoded).collect();
    let methods: Vec<Method> = renewals.iter().map(|m| m.typ.method).collect();
    assert_eq!(methods, [METHOD_CREATE_PERMISSION, METHOD_CHANNEL_BIND]);
    for (n, renewal) in renewals.iter().enumerate() {
        let nonce = format!("new {n}");
        scene.challenge(renewal, 438, &nonce);
        let again = scene.request(renewal.typ.method);
        assert_eq!(text(&again, ATTR_NONCE), nonce);
        if again.typ.method == METHOD_CHANNEL_BIND {
            let bound = again.get(ATTR_CHANNEL_NUMBER).expect("a channel");
            assert_eq!(bound[..2], number.to_be_bytes());
        }
        scene.grant(&again, &[]);
    }
    // So is the allocation, at once.
    scene.pass(Duration::from_secs(300) - RENEW);
    let refresh = scene.request(METHOD_REFRESH);
    scene.challenge(&refresh, 438, "newest");
    let again = scene.request(METHOD_REFRESH);
    assert_eq!(text(&again, ATTR_NONCE), "newest");
    scene.grant(&again, &[lifetime(600)]);
    assert!(scene.outputs().is_empty());
    scene.allocation.send(peer(1), b"still", scene.now);
    assert_eq!(scene.sent()[0][..2], number.to_be_bytes());
}

#[test]
fn a_server_that_calls_every_nonce_stale_is_given_up() {
    let mut scene = Scene::new(true);
    let first = scene.request(METHOD_ALLOCATE);
    scene.challenge(&first, 401, "0");
    for n in 0..STALE {
        let request = scene.request(METHOD_ALLOCATE);
        scene.challenge(&request, 438, &format!("{n}"));
    }
    let last = scene.request(METHOD_ALLOCATE);
    scene.challenge(&last, 438, "x");
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Refused(438))]);
}

#[test]
fn the_allocation_is_refreshed_for_as_long_as_it_stands() {
    let mut scene = Scene::standing(false);
    let start = scene.now;
    for n in 1..=20 {
        scene.next(Duration::from_secs(300));
        assert_eq!(scene.now - start, n * Duration::from_secs(300));
        let refresh = scene.request(METHOD_REFRESH);
        assert!(!refresh.contains(ATTR_LIFETIME));
        scene.grant(&refresh, &[lifetime(600)]);
        assert!(scene.outputs().is_empty());
    }
    // A lifetime of nothing makes no storm.
    scene.next(Duration::from_secs(300));
    let refresh = scene.request(METHOD_REFRESH);
    scene.grant(&refresh, &[lifetime(0)]);
    scene.next(SHORTEST);
    let refresh = scene.request(METHOD_REFRESH);
    scene.refuse(&refresh, 437);
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Ended(437))]);
}

#[test]
fn a_refresh_without_an_answer_ends_it() {
    let mut scene = Scene::standing(true);
    scene.next(Duration::from_secs(300));
    scene.request(METHOD_REFRESH);
    scene.next(PATIENCE);
    assert_eq!(scene.outputs(), [Output::Over(Refusal::Silent)]);
    scene.allocation.send(peer(1), b"late", scene.now);
    assert!(scene.outputs().is_empty());
}

#[test]
fn it_is_given_back_even_where_the_nonce_is_stale() {
    let mut scene = Scene::standing(true);
    scene.allocation.release(scene.now);
    let release = scene.request(METHOD_REFRESH);
    assert_eq!(release.get(ATTR_LIFETIME).expect("a lifetime"), [0; 4]);
    scene.challenge(&release, 438, "new");
    let again = scene.request(METHOD_REFRESH);
    assert_eq!(again.get(ATTR_LIFETIME).expect("a lifetime"), [0; 4]);
    scene.grant(&again, &[lifetime(0)]);
    assert_eq!(scene.outputs(), [Output::Released]);
    scene.allocation.release(scene.now);
    assert!(scene.outputs().is_empty());

    // Before it stands there is nothing to give back, and what is not answered is given up.
    let mut scene = Scene::new(true);
    scene.allocation.release(scene.now);
    assert_eq!(scene.outputs().last(), Some(&Output::Released));
    let mut scene = Scene::standing(true);
    scene.allocation.release(scene.now);
    scene.sent();
    scene.pass(PATIENCE);
    assert_eq!(scene.outputs(), [Output::Released]);
}

#[test]
fn peers_are_bounded() {
    let mut scene = Scene::standing(true);
    for n in 0..=255 {
        scene.allocation.send(peer(n), b"check", scene.now);
    }
    assert_eq!(scene.sent().len(), 2 * PEERS);
    assert_eq!(scene.allocation.peers.len(), PEERS);
}

#[test]
fn what_nobody_asked_for_is_passed_over() {
    let mut scene = Scene::standing(true);
    let mut stranger = Message::new();
    stranger
        .build(&[
            Box::new(TransactionId::new()),
            Box::new(MessageType::new(METHOD_REFRESH, CLASS_ERROR_RESPONSE)),
        ])
        .expect("a message");
    scene.allocation.read(&Bytes::from(stranger.raw), scene.now);
    scene.indicate(peer(9), b"who");
    let channel = Bytes::from_static(&[0x40, 0, 0, 1, 7]);
    scene.allocation.read(&channel, scene.now);
    assert!(scene.outputs().is_empty());
    // Too short for what it claims, on a channel that exists.
    scene.bound(1);
    let short = Bytes::from_static(&[0x40, 0, 0, 9, 7]);
    scene.allocation.read(&short, scene.now);
    assert!(scene.outputs().is_empty());
    scene.pass(MS);
}

proptest::proptest! {
    #[test]
    fn whatever_comes_is_survived(
        packets in proptest::collection::vec(
            proptest::collection::vec(proptest::prelude::any::<u8>(), 0..120), 0..20),
        kind in 0_usize..4,
    ) {
        let mut scene = Scene::standing(true);
        scene.allocation.send(peer(1), b"check", scene.now);
        let id = scene.allocation.pending[0].id;
        for mut packet in packets {
            if packet.len() >= 20 {
                let types: [[u8; 2]; 4] = [[1, 8], [1, 0x18], [0, 0x17], [0x40, 0]];
                packet[..2].copy_from_slice(&types[kind]);
                let len = ((packet.len() - 20) as u16).to_be_bytes();
                packet[2..4].copy_from_slice(&len);
                packet[4..8].copy_from_slice(&[0x21, 0x12, 0xA4, 0x42]);
                packet[8..20].copy_from_slice(&id.0);
            }
            scene.allocation.read(&Bytes::from(packet), scene.now);
            scene.allocation.tick(scene.now);
        }
        while scene.allocation.poll().is_some() {}
    }
}
