//! The lab by itself: a publisher that keeps the rules passes, each rule broken alone is found, signalling
//! answers as the observed servers did.

#![expect(
    clippy::disallowed_methods,
    reason = "a clock and deadlines in real time"
)]

use std::collections::BTreeMap;
use std::time::Duration;
use std::time::Instant;
use std::time::SystemTime;

use onair::lab::Fault;
use onair::lab::Lab;
use onair::lab::LabConfig;
use onair::lab::Mutation;
use onair::lab::Profile;
use onair::lab::hub::State;
use onair::media::time::MediaClock;
use onair::report;
use serde_json::Value;
use serde_json::json;

use crate::rehearsal::Habits;
use crate::rehearsal::Publisher;
use crate::rehearsal::Socket;
use crate::rehearsal::connect;
use crate::rehearsal::hear;
use crate::rehearsal::say;

/// Long enough for two beeps and, with [`FASTER`], a request for a key frame or two.
const ON_AIR: Duration = Duration::from_millis(2_900);
/// The servers' times are shortened by this factor.
const FASTER: f64 = 0.3;
const SOON: Duration = Duration::from_secs(5);

fn clock() -> MediaClock {
    MediaClock::new(Instant::now(), SystemTime::now())
}

async fn lab(profile: Profile, change: impl FnOnce(&mut LabConfig)) -> (Lab, MediaClock) {
    let clock = clock();
    let mut config = LabConfig::new(vec![profile], clock);
    change(&mut config);
    (Lab::start(config).await.expect("a lab"), clock)
}

fn url(lab: &Lab, profile: Profile, query: &str) -> String {
    let endpoint = lab.endpoint(profile).expect("this profile");
    format!("{}{query}", endpoint.url)
}

/// Waits until a session is in `state`.
async fn until(lab: &Lab, state: State) {
    let mut changed = lab.hub().changed();
    let reached = async {
        while !lab.hub().sessions().iter().any(|s| s.state >= state) {
            changed.changed().await.expect("the hub lives");
        }
    };
    tokio::time::timeout(SOON, reached)
        .await
        .expect("the state is reached in time");
}

/// Waits until every session has ended.
async fn all_ended(lab: &Lab) {
    let mut changed = lab.hub().changed();
    let reached = async {
        while lab.hub().sessions().iter().any(|s| s.state != State::Ended) {
            changed.changed().await.expect("the hub lives");
        }
    };
    tokio::time::timeout(SOON, reached)
        .await
        .expect("the sessions end in time");
}

/// Publishes for `time`, stops as one should, and returns the report.
async fn rehearse(
    profile: Profile,
    query: &str,
    habits: Habits,
    time: Duration,
) -> report::Session {
    let (lab, clock) = lab(profile, |c| c.time_scale = FASTER).await;
    let mut socket = connect(&url(&lab, profile, query)).await;
    let mut publisher = begin(&lab, profile, &mut socket, habits).await;
    assert!(publisher.publish(clock, time).await, "connected");
    publisher.close().await;
    if query.contains("direction") {
        let id = lab_id(&lab);
        say(
            &mut socket,
            &json!({"id": id, "peer_id": 0, "command": "stop"}),
        )
        .await;
    }
    socket.close(None).await.ok();
    drop(socket);
    all_ended(&lab).await;
    let mut report = lab.report();
    lab.stop().await;
    assert_eq!(report.len(), 1);
    report.remove(0)
}

async fn begin(lab: &Lab, profile: Profile, socket: &mut Socket, habits: Habits) -> Publisher {
    let endpoint = lab.endpoint(profile).expect("this profile");
    let name = (&*endpoint.application, &*endpoint.stream);
    let begun = match profile {
        Profile::Ome016 | Profile::Ome020 | Profile::Ome021 | Profile::Qencode => {
            Publisher::ome(socket, habits).await
        }
        Profile::WowzaCloud | Profile::WowzaSe => Publisher::wowza(socket, name, habits).await,
        Profile::Whip | Profile::WhipOme | Profile::WhipWowza | Profile::WowzaV2 => {
            panic!("{profile} speaks otherwise")
        }
    };
    begun.expect("the lab agrees")
}

/// The id of the last offer in the messages of the last session.
fn lab_id(lab: &Lab) -> Value {
    let session = lab.hub().sessions().pop().expect("a session");
    let messages = lab.hub().messages(session.id, 0).expect("messages");
    let offer = messages
        .iter()
        .filter_map(|m| serde_json::from_str::<Value>(&m.text).ok())
        .find(|m| m["command"] == "offer");
    offer.expect("an offer")["id"].clone()
}

fn rules(session: &report::Session) -> Vec<&str> {
    session.violations.iter().map(|v| &*v.rule).collect()
}

pub(crate) fn is_clean(session: &report::Session, transport: &str) {
    assert!(session.violations.is_empty(), "{:?}", session.violations);
    assert_eq!(session.transport.as_deref(), Some(transport));
    let video = &session.video;
    let (received, decoded) = (video.frames_received, video.frames_decoded);
    assert!(decoded > Some(40), "{decoded:?}");
    assert!(
        decoded >= received.map(|n| n * 97 / 100),
        "{decoded:?} of {received:?}"
    );
    assert_eq!((video.width, video.height), (Some(320), Some(240)));
    assert!(video.idr_after_request_ms.is_some());
    assert!(
        session.audio.seconds_decoded > Some(2.0),
        "{:?}",
        session.audio
    );
    let offset = session.av_offset_ms.expect("beeps and clocks were read");
    assert!(offset.p95 <= 40.0, "{offset:?}");
    let latency = session.latency_ms.expect("clocks were read");
    assert!((0.0..1_000.0).contains(&latency.p50), "{latency:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_ome_over_udp() {
    let query = "?direction=send";
    let session = rehearse(Profile::Ome021, query, Habits::default(), ON_AIR).await;
    is_clean(&session, "udp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_qencode_over_tcp() {
    let query = "?direction=send&transport=tcp";
    let session = rehearse(Profile::Qencode, query, Habits::default(), ON_AIR).await;
    is_clean(&session, "tcp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_the_wowza_cloud() {
    let session = rehearse(Profile::WowzaCloud, "", Habits::default(), ON_AIR).await;
    is_clean(&session, "tcp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_wowza_over_udp() {
    let session = rehearse(Profile::WowzaSe, "", Habits::default(), ON_AIR).await;
    is_clean(&session, "udp");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_broken_rule_of_media_is_found() {
    let second = Duration::from_millis(1_000);
    let long = Duration::from_millis(2_500);
    let plain = Habits::default();
    let cases = [
        (
            "idr-first",
            second,
            Habits {
                no_first_idr: true,
                ..plain
            },
        ),
        (
            "marker",
            second,
            Habits {
                no_marker: true,
                ..plain
            },
        ),
        (
            "goodbye",
            second,
            Habits {
                no_goodbye: true,
                ..plain
            },
        ),
        (
            "key-frame",
            long,
            Habits {
                deaf: true,
                ..plain
            },
        ),
    ];
    let runs = cases.map(|(rule, time, habits)| async move {
        let session = rehearse(Profile::Ome021, "?direction=send", habits, time).await;
        assert!(
            rules(&session).contains(&rule),
            "{rule}: {:?}",
            session.violations
        );
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_that_is_stamped_early_shows_in_the_offset() {
    let habits = Habits {
        sound_early: Duration::from_millis(120),
        ..Habits::default()
    };
    let session = rehearse(Profile::Ome021, "?direction=send", habits, ON_AIR).await;
    let offset = session.av_offset_ms.expect("beeps and clocks were read");
    assert!((80.0..160.0).contains(&offset.p50), "{offset:?}");
    assert_eq!(rules(&session), ["av-start"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_without_ssrc_connects_and_stays_silent() {
    let (lab, clock) = lab(Profile::Ome021, |_| {}).await;
    let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
    let habits = Habits {
        no_ssrc: true,
        ..Habits::default()
    };
    let mut publisher = begin(&lab, Profile::Ome021, &mut socket, habits).await;
    assert!(publisher.publish(clock, Duration::from_secs(1)).await);
    let session = lab.report().remove(0);
    assert_eq!(session.video.frames_received, Some(0));
    assert_eq!(rules(&session), ["ssrc"]);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_publisher_succeeds_against_a_lie() {
    for mutation in [
        Mutation::WrongFingerprint,
        Mutation::MissingFingerprint,
        Mutation::WrongIcePwd,
    ] {
        let (lab, clock) = lab(Profile::Ome021, |c| c.mutation = Some(mutation)).await;
        let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
        let mut publisher = begin(&lab, Profile::Ome021, &mut socket, Habits::default()).await;
        let published = publisher.publish(clock, Duration::from_millis(1_500)).await;
        let session = lab.report().remove(0);
        assert_eq!(
            session.video.frames_received,
            Some(0),
            "{mutation:?} {published}"
        );
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_withheld_packet_must_be_sent_again() {
    // The publisher here keeps no packets to repeat, so the rule must be found broken.
    let (lab, clock) = lab(Profile::WowzaSe, |c| c.withhold = Some(40)).await;
    let mut socket = connect(&url(&lab, Profile::WowzaSe, "")).await;
    let mut publisher = begin(&lab, Profile::WowzaSe, &mut socket, Habits::default()).await;
    assert!(publisher.publish(clock, Duration::from_secs(5)).await);
    let session = lab.report().remove(0);
    assert!(
        rules(&session).contains(&"retransmission"),
        "{:?}",
        session.violations
    );
    assert!(session.video.frames_lost > Some(0));
    lab.stop().await;
}

/// Sends each message and compares the reply with what the real server said; `null` stands for silence.
async fn probe(lab: &Lab, path: &str, exchange: &[(Value, Value)]) {
    let address = lab.addresses()[&Profile::Qencode];
    let mut socket = connect(&format!("ws://{address}{path}")).await;
    for (message, expected) in exchange {
        let mut message = message.clone();
        if message["id"] == "right" {
            message["id"] = lab_id(lab);
        }
        say(&mut socket, &message).await;
        if expected.is_null() {
            let reply = hear(&mut socket, Duration::from_millis(150)).await;
            assert_eq!(reply, None, "{path} {message}");
            continue;
        }
        let reply = hear(&mut socket, SOON).await.expect("a reply");
        if expected == "offer" {
            assert_eq!(reply["command"], "offer", "{path} {message}");
            assert_eq!(reply["code"], 200);
        } else {
            assert_eq!(&reply, expected, "{path} {message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn signalling_replies_as_the_observed_server_did() {
    let (lab, _) = lab(Profile::Qencode, |_| {}).await;
    let request = json!({"command": "request_offer"});
    let offer = json!("offer");
    let no_offer = json!({"code": 404, "error": "Cannot create offer"});
    let invalid_id = json!({"code": 400, "error": "Invalid ID"});
    let forbidden = json!({"code": 403, "error": "Forbidden"});
    let answer = |sdp: Value| json!({"id": "right", "peer_id": 0, "command": "answer", "sdp": sdp});
    let candidate = |text: &str| json!({"id": "right", "command": "candidate", "candidates": [{"candidate": text, "sdpMLineIndex": 0}]});
    for path in [
        "/nosuchapp/probe?direction=send",
        "/?direction=send",
        "/qlive/probe",
        "/qlive/probe?direction=recv",
        "/qlive/probe?direction=SEND",
        "/qlive/probe?direction=whip",
    ] {
        probe(&lab, path, &[(request.clone(), no_offer.clone())]).await;
    }
    for path in [
        "/qlive/probe?direction=send",
        "/qlive?direction=send",
        "/qlive/?direction=send",
        "/qlive/probe/extra?direction=send",
        "/qlive/probe?direction=send&transport=bogus",
        "/qlive/probe?direction=send&transport=udptcp",
    ] {
        probe(&lab, path, &[(request.clone(), offer.clone())]).await;
    }
    let path = "/qlive/probe?direction=send";
    probe(
        &lab,
        path,
        &[
            (json!("hello"), Value::Null),
            (json!({"a": 1}), Value::Null),
        ],
    )
    .await;
    probe(
        &lab,
        path,
        &[(json!({"command": "foo"}), invalid_id.clone())],
    )
    .await;
    let early = json!({"command": "answer", "id": 0, "peer_id": 0, "sdp": {"type": "answer", "sdp": "v=0"}});
    probe(&lab, path, &[(early, invalid_id.clone())]).await;
    let exchanges = [
        (
            json!({"command": "foo", "id": "right"}),
            json!({"code": 400, "error": "Unknown command: foo"}),
        ),
        (json!({"command": "stop", "id": 1}), invalid_id),
        (
            answer(json!({"type": "answer", "sdp": "garbage"})),
            forbidden.clone(),
        ),
        (
            answer(json!("v=0")),
            json!({"code": 400, "error": "There is no SDP"}),
        ),
        (candidate(""), Value::Null),
        (
            candidate("candidate:1 1 udp 2113937151 f00.local 50000 typ host"),
            Value::Null,
        ),
        (
            candidate("candidate:1 1 tcp 1518280447 fd00::2 9 typ host tcptype active"),
            Value::Null,
        ),
        (
            candidate("garbage"),
            json!({"code": 400, "error": "Invalid candidate: garbage"}),
        ),
        (json!({"command": "stop", "id": "right"}), Value::Null),
    ];
    for exchange in exchanges {
        probe(&lab, path, &[(request.clone(), offer.clone()), exchange]).await;
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_follow_the_transport_and_accumulate() {
    let (lab, _) = lab(Profile::Ome021, |_| {}).await;
    let kinds = |offer: &Value| -> Vec<String> {
        let candidates = offer["candidates"].as_array().expect("a list").iter();
        let words = candidates.map(|c| c["candidate"].as_str().expect("text").split(' ').nth(2));
        words.map(|w| w.expect("a transport").to_owned()).collect()
    };
    for (transport, expected) in [
        ("", &["UDP", "TCP", "UDP", "TCP"][..]),
        ("&transport=udp", &["UDP", "UDP"]),
        ("&transport=tcp", &["TCP", "TCP"]),
    ] {
        let query = format!("?direction=send{transport}");
        let mut socket = connect(&url(&lab, Profile::Ome021, &query)).await;
        let request = json!({"command": "request_offer"});
        say(&mut socket, &request).await;
        let first = hear(&mut socket, SOON).await.expect("an offer");
        assert_eq!(kinds(&first), expected[..expected.len() / 2]);
        say(&mut socket, &request).await;
        let second = hear(&mut socket, SOON).await.expect("an offer");
        assert_eq!(kinds(&second), expected);
        assert_eq!(first["id"], second["id"]);
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_in_use_is_refused_and_a_loser_that_hangs_up_ends_the_winner() {
    let (lab, _) = lab(Profile::Ome021, |_| {}).await;
    let url = url(&lab, Profile::Ome021, "?direction=send");
    let mut loser = connect(&url).await;
    say(&mut loser, &json!({"command": "request_offer"})).await;
    let offer = hear(&mut loser, SOON).await.expect("an offer");
    let mut winner = connect(&url).await;
    let _publisher = begin(&lab, Profile::Ome021, &mut winner, Habits::default()).await;
    until(&lab, State::Connecting).await;

    let mut third = connect(&url).await;
    say(&mut third, &json!({"command": "request_offer"})).await;
    let refusal = hear(&mut third, SOON).await.expect("a reply");
    assert_eq!(
        refusal,
        json!({"code": 404, "error": "Cannot create offer"})
    );
    drop(third);

    let sdp = "v=0\r\nm=video 9 UDP/TLS/RTP/SAVPF 100\r\nm=audio 9 UDP/TLS/RTP/SAVPF 102\r\n";
    let answer =
        json!({"id": offer["id"], "command": "answer", "sdp": {"type": "answer", "sdp": sdp}});
    say(&mut loser, &answer).await;
    let refusal = hear(&mut loser, SOON).await.expect("a reply");
    assert_eq!(refusal, json!({"code": 403, "error": "Forbidden"}));
    drop(loser);

    // The name is free once the winner is deleted; its socket stays open and says nothing.
    let deadline = Instant::now() + SOON;
    loop {
        let mut fourth = connect(&url).await;
        say(&mut fourth, &json!({"command": "request_offer"})).await;
        let reply = hear(&mut fourth, SOON).await.expect("a reply");
        if reply["command"] == "offer" {
            break;
        }
        assert!(Instant::now() < deadline, "the winner still has the name");
    }
    assert_eq!(hear(&mut winner, Duration::from_millis(200)).await, None);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_publisher_keeps_its_name_until_the_scaled_time_out() {
    let (lab, _) = lab(Profile::Ome021, |c| c.time_scale = 0.02).await;
    let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
    let begun = Instant::now();
    let _publisher = begin(&lab, Profile::Ome021, &mut socket, Habits::default()).await;
    all_ended(&lab).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "30 s, scaled"
    );
    let session = lab.report().remove(0);
    assert_eq!(session.end_reason.as_deref(), Some("nothing was heard"));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_happen_as_planned() {
    let (lab, _) = lab(Profile::WowzaCloud, |_| {}).await;
    let endpoint = lab.endpoint(Profile::WowzaCloud).expect("this profile");
    let name = (&*endpoint.application, &*endpoint.stream);
    lab.faults().commit(
        None,
        Fault::Refuse {
            status: 502,
            times: 1,
        },
    );
    let mut socket = connect(&endpoint.url).await;
    let refused = Publisher::wowza(&mut socket, name, Habits::default()).await;
    assert_eq!(refused.err().expect("refused")["status"], 502);

    lab.faults().commit(None, Fault::HoldName { ms: 60_000 });
    let held = Publisher::wowza(&mut socket, name, Habits::default()).await;
    assert_eq!(held.err().expect("held")["status"], 503);
    lab.faults().commit(None, Fault::HoldName { ms: 0 });

    let unknown = Publisher::wowza(&mut socket, ("nothing", "x"), Habits::default()).await;
    assert_eq!(unknown.err().expect("unknown")["status"], 404);

    lab.faults().commit(
        None,
        Fault::RefuseUpgrade {
            status: 200,
            times: 1,
        },
    );
    let upgrade = tokio_tungstenite::connect_async(&endpoint.url).await;
    assert!(upgrade.is_err(), "200 instead of 101");

    assert!(
        Publisher::wowza(&mut socket, name, Habits::default())
            .await
            .is_ok()
    );
    let hit = lab.faults().commit(None, Fault::DropSocket);
    assert_eq!(hit, 1);
    assert_eq!(hear(&mut socket, SOON).await, None);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lab_can_be_started_again_on_the_same_port() {
    let (lab, clock) = lab(Profile::Ome021, |_| {}).await;
    let first = lab.endpoint(Profile::Ome021).expect("this profile");
    let port = lab.addresses()[&Profile::Ome021].port();
    let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
    let mut publisher = begin(&lab, Profile::Ome021, &mut socket, Habits::default()).await;
    assert!(publisher.publish(clock, Duration::from_millis(500)).await);
    lab.stop().await;
    let mut config = LabConfig::new(vec![Profile::Ome021], clock);
    config.ports = BTreeMap::from([(Profile::Ome021, port)]);
    let again = Lab::start(config).await.expect("the port is free");
    assert_eq!(again.endpoint(Profile::Ome021), Some(first));
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_black_hole_passes_and_is_not_held_against_the_publisher() {
    let (lab, clock) = lab(Profile::Ome021, |c| c.time_scale = FASTER).await;
    let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
    let mut publisher = begin(&lab, Profile::Ome021, &mut socket, Habits::default()).await;
    assert!(publisher.publish(clock, Duration::from_secs(1)).await);
    lab.faults().commit(None, Fault::BlackHole { ms: 600 });
    let before = lab.report().remove(0).video.frames_decoded;
    publisher.publish(clock, Duration::from_millis(500)).await;
    let within = lab.report().remove(0).video.frames_decoded;
    assert!(within <= before.map(|n| n + 3), "{before:?} {within:?}");
    publisher.publish(clock, Duration::from_secs(2)).await;
    let session = lab.report().remove(0);
    assert!(
        session.video.frames_decoded > within.map(|n| n + 10),
        "{:?}",
        session.video
    );
    assert!(session.violations.is_empty(), "{:?}", session.violations);
    assert_eq!(session.video.freezes, Some(1));
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn garbage_on_the_media_ports_hurts_no_session() {
    let (lab, clock) = lab(Profile::Ome021, |c| c.time_scale = FASTER).await;
    let mut socket = connect(&url(&lab, Profile::Ome021, "?direction=send")).await;
    let mut publisher = begin(&lab, Profile::Ome021, &mut socket, Habits::default()).await;
    let garbage: Vec<Vec<u8>> = (0..400_u32)
        .map(|n| {
            let length = n as usize * 7 % 1_400;
            let mut bytes: Vec<u8> = (0..length)
                .map(|at| (n * 31 + at as u32 * 17) as u8)
                .collect();
            // Every kind of packet the engine tells apart by its first byte: STUN, DTLS, SRTP, TURN, none.
            if let Some(first) = bytes.first_mut() {
                *first = [0, 1, 20, 22, 23, 64, 128, 144, 200, 255][n as usize % 10];
            }
            bytes
        })
        .collect();
    let udp = tokio::net::UdpSocket::bind("127.0.0.1:0")
        .await
        .expect("loopback");
    for packet in &garbage {
        udp.send_to(packet, publisher.remote()).await.expect("sent");
    }
    assert!(publisher.publish(clock, Duration::from_secs(1)).await);
    for packet in &garbage {
        udp.send_to(packet, publisher.remote()).await.expect("sent");
    }
    publisher.publish(clock, Duration::from_secs(1)).await;
    let session = lab.report().remove(0);
    assert!(session.violations.is_empty(), "{:?}", session.violations);
    assert!(
        session.video.frames_decoded > Some(25),
        "{:?}",
        session.video
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_are_taken_over_http_and_the_report_is_given() {
    use tokio::io::AsyncReadExt;
    use tokio::io::AsyncWriteExt;
    let (lab, _) = lab(Profile::WowzaSe, |_| {}).await;
    let page = lab.page_url();
    let host = page.trim_start_matches("http://").trim_end_matches('/');
    let exchange = async |request: String| {
        let mut stream = tokio::net::TcpStream::connect(host)
            .await
            .expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("a reply");
        reply
    };
    let body = r#"{"fault":"refuse","status":500,"times":1,"profile":"wowza-se"}"#;
    let head = format!("Host: {host}\r\nConnection: close\r\nContent-Type: application/json");
    let length = body.len();
    let reply = exchange(format!(
        "POST /v1/faults HTTP/1.1\r\n{head}\r\nContent-Length: {length}\r\n\r\n{body}"
    ));
    let reply = reply.await;
    assert!(reply.starts_with("HTTP/1.1 200"), "{reply}");
    let endpoint = lab.endpoint(Profile::WowzaSe).expect("this profile");
    let mut socket = connect(&endpoint.url).await;
    let refused = Publisher::wowza(&mut socket, ("live", "front"), Habits::default()).await;
    assert_eq!(refused.err().expect("refused")["status"], 500);
    let reply = exchange(format!("GET /v1/report HTTP/1.1\r\n{head}\r\n\r\n")).await;
    let json = reply.split("\r\n\r\n").nth(1).expect("a body");
    let report: Value = serde_json::from_str(json).expect("JSON");
    assert_eq!(report[0]["profile"], "wowza-se");
    assert_eq!(report[0]["dialect"], "wowza-v1");
    lab.stop().await;
}
