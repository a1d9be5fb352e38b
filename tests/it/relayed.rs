//! The lab with relays: OvenMediaEngine's embedded TURN server as older and newer versions offer it, the lab's own
//! TURN server, and signalling under TLS; the scripted publisher on the other side.

use std::time::Duration;

use futures_util::SinkExt;
use futures_util::StreamExt;
use onair::lab::Lab;
use onair::lab::LabConfig;
use onair::lab::Mutation;
use onair::lab::OmeTurn;
use onair::lab::Profile;
use onair::lab::hub::State;
use onair::lab::tls::Identity;
use onair::lab::turn::TurnConfig;
use onair::lab::turn::TurnServer;
use onair::report;
use serde_json::Value;
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

use crate::lab::is_clean;
use crate::rehearsal::Habits;
use crate::rehearsal::Publisher;
use crate::rehearsal::Relaying;
use crate::rehearsal::connect;
use crate::rehearsal::hear;
use crate::rehearsal::say;
use crate::relay::Client;
use crate::relay::Line;
use crate::relay::secured;
use crate::support;

/// Long enough for two beeps and, with [`FASTER`], a request for a key frame or two.
const ON_AIR: Duration = Duration::from_millis(2_900);
/// The servers' times are shortened by this factor.
const FASTER: f64 = 0.3;
const SOON: Duration = Duration::from_secs(5);

async fn lab(profile: Profile, change: impl FnOnce(&mut LabConfig)) -> Lab {
    let mut config = LabConfig::new(vec![profile], support::clock());
    config.time_scale = FASTER;
    change(&mut config);
    Lab::start(config).await.expect("a lab")
}

fn url(lab: &Lab, profile: Profile, transport: &str) -> String {
    let endpoint = lab.endpoint(profile).expect("this profile");
    format!("{}?direction=send{transport}", endpoint.url)
}

/// The offer that a URL gets.
async fn offer(lab: &Lab, profile: Profile, transport: &str) -> Value {
    let mut socket = connect(&url(lab, profile, transport)).await;
    say(&mut socket, &json!({"command": "request_offer"})).await;
    hear(&mut socket, SOON).await.expect("an offer")
}

fn candidates(offer: &Value) -> Vec<String> {
    let list = offer["candidates"].as_array().expect("a list").iter();
    let texts = list.map(|c| c["candidate"].as_str().expect("text"));
    texts.map(str::to_owned).collect()
}

/// Publishes as `habits` and `relay` want, stops as one should, and returns the report.
async fn rehearse(
    lab: Lab,
    profile: Profile,
    transport: &str,
    habits: Habits,
    relay: Option<Client>,
) -> report::Session {
    let clock = support::clock();
    let mut socket = connect(&url(&lab, profile, transport)).await;
    let publisher = Publisher::ome_through(&mut socket, habits, relay).await;
    let mut publisher = publisher.expect("the lab agrees");
    assert!(publisher.publish(clock, ON_AIR).await, "connected");
    publisher.close().await;
    socket.close(None).await.ok();
    drop(socket);
    let mut changed = lab.hub().changed();
    let ended = async {
        while lab.hub().sessions().iter().any(|s| s.state != State::Ended) {
            changed.changed().await.expect("the hub lives");
        }
    };
    tokio::time::timeout(SOON, ended).await.expect("it ends");
    let mut report = lab.report();
    lab.stop().await;
    assert_eq!(report.len(), 1);
    report.remove(0)
}

const BY_INDICATIONS: Habits = Habits {
    relaying: Relaying::ByIndications,
    ..Habits::PLAIN
};
const BY_CHANNEL: Habits = Habits {
    relaying: Relaying::ByChannel,
    ..Habits::PLAIN
};

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_an_old_ome_over_udp() {
    let lab = lab(Profile::Ome020, |_| {}).await;
    let session = rehearse(lab, Profile::Ome020, "", Habits::PLAIN, None).await;
    is_clean(&session, "udp");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_old_ome_relays_where_tcp_is_asked_for() {
    let lab = lab(Profile::Ome020, |_| {}).await;
    let profile = Profile::Ome020;
    let session = rehearse(lab, profile, "&transport=tcp", BY_INDICATIONS, None).await;
    is_clean(&session, "turn-tcp");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_new_ome_relays_where_a_relay_is_asked_for() {
    let lab = lab(Profile::Ome021, |_| {}).await;
    let profile = Profile::Ome021;
    let session = rehearse(lab, profile, "&transport=relay", BY_CHANNEL, None).await;
    is_clean(&session, "turn-tcp");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_through_the_turn_server_is_known_as_such() {
    for transport in ["udp", "tcp"] {
        let lab = lab(Profile::Ome021, |c| {
            c.turn = Some(TurnConfig::loopback(None));
        });
        let lab = lab.await;
        let turn = lab.turn().expect("a TURN server");
        let (at, line) = if transport == "udp" {
            let at = turn.udp().expect("UDP");
            (at, Line::udp(at).await)
        } else {
            let at = turn.tcp().expect("TCP");
            (at, Line::tcp(at).await)
        };
        let client = Client::allocate(line, at, ("lab", "relayed")).await;
        let relay = Some(client.expect("an allocation"));
        let habits = Habits::PLAIN;
        let session = rehearse(lab, Profile::Ome021, "&transport=udp", habits, relay).await;
        is_clean(&session, "turn");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_hold_what_each_version_holds() {
    let old = lab(Profile::Ome016, |_| {}).await;
    for transport in ["", "&transport=relay", "&transport=all", "&transport=udp"] {
        let offer = offer(&old, Profile::Ome016, transport).await;
        assert!(offer["iceServers"].is_null() && offer["ice_servers"].is_null());
        let candidates = candidates(&offer);
        let [candidate] = &candidates[..] else {
            panic!("{candidates:?}");
        };
        let words: Vec<&str> = candidate.split(' ').collect();
        let foundation = words[0].trim_start_matches("candidate:");
        assert!(foundation.len() == 10 && foundation.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(words[1..5], ["1", "UDP", "50", "127.0.0.1"]);
        assert_eq!(words[6..], ["typ", "host"]);
    }
    let asked = offer(&old, Profile::Ome016, "&transport=tcp").await;
    assert_eq!(candidates(&asked).len(), 1);
    let url = asked["iceServers"][0]["urls"][0]
        .as_str()
        .expect("a URL")
        .to_owned();
    assert!(
        url.starts_with("turn:127.0.0.1:") && url.ends_with("?transport=tcp"),
        "{url}"
    );
    assert_eq!(
        (&asked["iceServers"], &asked["ice_servers"]),
        (
            &json!([{"urls": [url], "username": "ome", "credential": "airen"}]),
            &json!([{"urls": [url], "user_name": "ome", "credential": "airen"}]),
        )
    );
    old.stop().await;

    let new = lab(Profile::Ome021, |_| {}).await;
    let relayed = offer(&new, Profile::Ome021, "&transport=relay").await;
    let dummy = candidates(&relayed).remove(0);
    assert!(
        dummy.ends_with(" 1 UDP 2130706431 100.127.255.254 1518 typ host"),
        "{dummy}"
    );
    assert_eq!(
        (candidates(&relayed).len(), relayed["iceServers"].is_array()),
        (1, true)
    );
    let all = offer(&new, Profile::Ome021, "&transport=all").await;
    assert_eq!(
        (candidates(&all).len(), all["iceServers"].is_array()),
        (2, true)
    );
    let direct = offer(&new, Profile::Ome021, "&transport=tcp").await;
    assert_eq!(
        (candidates(&direct).len(), direct["iceServers"].is_null()),
        (1, true)
    );
    new.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn offers_tell_of_the_turn_server_as_they_are_told_to() {
    let inner = "10.255.255.1".parse().ok();
    let lab = lab(Profile::Ome020, |c| {
        c.ome_turn = OmeTurn {
            advertised: inner,
            forced: true,
            ..OmeTurn::default()
        };
        c.mutation = Some(Mutation::WrongTurnPassword);
    });
    let lab = lab.await;
    let offer = offer(&lab, Profile::Ome020, "").await;
    let server = &offer["iceServers"][0];
    let url = server["urls"][0].as_str().expect("a URL");
    assert!(url.starts_with("turn:10.255.255.1:"), "{url}");
    assert_ne!(server["credential"], "airen");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ome_0_16_shows_nothing_before_sender_reports() {
    let profile = Profile::Ome016;
    let session = rehearse(lab(profile, |_| {}).await, profile, "", Habits::PLAIN, None).await;
    is_clean(&session, "udp");

    // 5 s become 3 s: enough to see pictures decoded and not shown.
    let lab = lab(profile, |c| c.time_scale = 0.6).await;
    let mut socket = connect(&url(&lab, profile, "")).await;
    let habits = Habits {
        no_reports: true,
        ..Habits::PLAIN
    };
    let publisher = Publisher::ome(&mut socket, habits).await;
    let mut publisher = publisher.expect("the lab agrees");
    let session = || lab.hub().sessions().remove(0);
    let clock = support::clock();
    let deadline = tokio::time::Instant::now() + support::SOON;
    while session().report.video.frames_decoded < Some(4) {
        publisher.publish(clock, Duration::from_millis(400)).await;
        assert!(session().state < State::OnAir);
        assert!(tokio::time::Instant::now() < deadline, "it decodes");
    }
    while session().state < State::OnAir {
        assert!(
            tokio::time::Instant::now() < deadline,
            "it gives up waiting"
        );
        publisher.publish(clock, Duration::from_millis(400)).await;
    }
    let violations = session().report.violations;
    assert!(
        violations.iter().any(|v| v.rule == "unsynchronised"),
        "{violations:?}"
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn signalling_is_secured_by_the_certificate_it_is_given() {
    let names = ["localhost".to_owned(), "127.0.0.1".to_owned()];
    let identity = Identity::self_signed(&names).expect("a certificate");
    let lab = lab(Profile::Ome021, |c| c.tls = Some(identity.clone())).await;
    let url = url(&lab, Profile::Ome021, "");
    assert!(url.starts_with("wss://127.0.0.1:"), "{url}");
    let at = lab.addresses()[&Profile::Ome021];
    let other = Identity::self_signed(&names).expect("another certificate");
    let stream = TcpStream::connect(at).await.expect("connected");
    assert!(
        secured(stream, &other).await.is_err(),
        "another certificate"
    );
    let stream = TcpStream::connect(at).await.expect("connected");
    let stream = secured(stream, &identity).await.expect("a handshake");
    let upgraded = tokio_tungstenite::client_async(url.replace("wss", "ws"), stream).await;
    let (mut socket, _) = upgraded.expect("upgraded");
    let request = json!({"command": "request_offer"}).to_string();
    socket.send(request.into()).await.expect("sent");
    let reply = socket.next().await.expect("a reply").expect("a message");
    let offer: Value = serde_json::from_str(reply.to_text().expect("text")).expect("JSON");
    assert_eq!(offer["command"], "offer");
    // In plain text nothing is answered.
    let plain = tokio_tungstenite::connect_async(url.replace("wss", "ws")).await;
    assert!(plain.is_err());
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_turn_server_takes_faults_over_http() {
    let lab = lab(Profile::Ome021, |c| {
        c.turn = Some(TurnConfig::loopback(None))
    })
    .await;
    let page = lab.page_url();
    let host = page.trim_start_matches("http://").trim_end_matches('/');
    let exchange = async |method: &str, body: &str| {
        let mut stream = TcpStream::connect(host).await.expect("it listens");
        let length = body.len();
        let request = format!(
            "{method} /v1/turn HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut reply = String::new();
        stream.read_to_string(&mut reply).await.expect("a reply");
        let body = reply.split("\r\n\r\n").nth(1).expect("a body").to_owned();
        serde_json::from_str::<Value>(&body).expect("JSON")
    };
    assert_eq!(
        exchange("POST", r#"{"fault":"refuse","code":486}"#).await,
        true
    );
    let at = lab.turn().and_then(TurnServer::tcp).expect("TCP");
    let refused = Client::allocate(Line::tcp(at).await, at, ("lab", "relayed")).await;
    assert!(refused.is_err());
    assert_eq!(exchange("POST", "null").await, true);
    let client = Client::allocate(Line::tcp(at).await, at, ("lab", "relayed")).await;
    assert!(client.is_ok());
    let counts = exchange("GET", "").await;
    assert_eq!(
        (&counts["allocations"], &counts["allocated"]),
        (&json!(1), &json!(1))
    );
    lab.stop().await;
}
