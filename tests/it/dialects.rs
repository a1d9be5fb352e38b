//! The lab as Wowza's second dialect and as three WHIP servers: a publisher that keeps the rules passes, what it owes
//! and does not do is found, faults happen as planned, and ICE restarts in place.

#![expect(
    clippy::disallowed_methods,
    reason = "a clock and deadlines in real time"
)]

use std::time::{Duration, Instant, SystemTime};

use onair::lab::hub::State;
use onair::lab::{Fault, Foreign, IceServer, Lab, LabConfig, Profile, RefusedVideo, Step};
use onair::media::time::MediaClock;
use onair::report;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::rehearsal::{Habits, Offered, Publisher, Socket, connect, hear, say};

/// Long enough for two beeps and, with the servers' times shortened, a request for a key frame or two.
const ON_AIR: Duration = Duration::from_millis(2_900);
const SOON: Duration = Duration::from_secs(10);
const FASTER: f64 = 0.3;

async fn lab(profile: Profile, change: impl FnOnce(&mut LabConfig)) -> (Lab, MediaClock) {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    let mut config = LabConfig::new(vec![profile], clock);
    config.time_scale = FASTER;
    change(&mut config);
    (Lab::start(config).await.expect("a lab"), clock)
}

/// Waits until every session has ended, then stops the lab; its one entry in the report.
async fn judged(lab: Lab) -> report::Session {
    let mut changed = lab.hub().changed();
    let ended = async {
        while lab.hub().sessions().iter().any(|s| s.state != State::Ended) {
            changed.changed().await.expect("the hub lives");
        }
    };
    if tokio::time::timeout(SOON, ended).await.is_err() {
        panic!("sessions do not end: {:#?}", lab.hub().sessions());
    }
    let mut report = lab.report();
    lab.stop().await;
    assert_eq!(report.len(), 1, "{report:#?}");
    report.remove(0)
}

fn is_clean(session: &report::Session) {
    assert!(session.violations.is_empty(), "{:?}", session.violations);
    let video = &session.video;
    let (received, decoded) = (video.frames_received, video.frames_decoded);
    assert!(decoded > Some(40), "{video:?}");
    assert!(decoded >= received.map(|n| n * 97 / 100), "{video:?}");
    assert!(session.audio.seconds_decoded > Some(2.0), "{session:?}");
}

fn rules(session: &report::Session) -> Vec<&str> {
    session.violations.iter().map(|v| &*v.rule).collect()
}

/// What of the messages of all sessions contains `text`.
fn noted(lab: &Lab, text: &str) -> usize {
    let sessions = lab.hub().sessions();
    let messages = sessions
        .iter()
        .flat_map(|s| lab.hub().messages(s.id, 0).unwrap_or_default());
    messages.filter(|m| m.text.contains(text)).count()
}

/// A message of Wowza's second dialect.
fn v2(kind: &str, id: &str) -> Value {
    json!({
        "messageType": kind, "action": "PUBLISH", "applicationName": "live", "streamName": "front",
        "connectionId": id,
    })
}

fn offer(offered: &Offered) -> Value {
    let mut message = v2("OFFER", "[empty]");
    message["sdp"] = json!(offered.sdp);
    message
}

async fn open(lab: &Lab) -> Socket {
    let url = lab.endpoint(Profile::WowzaV2).expect("this profile").url;
    connect(&format!("{url}?webrtcImplementation=v2")).await
}

/// The answer in a reply, and its one candidate.
fn answer(sdp: &str) -> (&str, &str) {
    let candidate = sdp
        .lines()
        .find_map(|line| line.strip_prefix("a=candidate:"));
    (sdp, candidate.expect("a candidate"))
}

/// Offers, and sends the end of candidates. Returns the publisher, its connection id and the server's candidates.
async fn publish_v2(socket: &mut Socket) -> (Publisher, String, Vec<String>) {
    let offered = Offered::new(Habits::default());
    say(socket, &offer(&offered)).await;
    let reply = hear(socket, SOON).await.expect("a reply");
    assert_eq!(reply["statusCode"], 200, "{reply}");
    let id = reply["message"]["connectionId"]
        .as_str()
        .expect("an id")
        .to_owned();
    let mut candidates = Vec::new();
    loop {
        let message = hear(socket, SOON).await.expect("a candidate");
        assert_eq!(message["messageType"], "CANDIDATE");
        assert_eq!(message["connectionId"], id.as_str());
        match message["candidate"].as_str().expect("text") {
            "" => break,
            text => candidates.push(text.to_owned()),
        }
    }
    let (sdp, candidate) = answer(reply["message"]["sdp"].as_str().expect("a string"));
    let publisher = offered
        .answered(sdp, &format!("candidate:{candidate}"))
        .await;
    let mut end = v2("CANDIDATE", &id);
    end["candidate"] = json!("");
    say(socket, &end).await;
    (publisher, id, candidates)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_wowza_v2() {
    let (lab, clock) = lab(Profile::WowzaV2, |_| {}).await;
    let mut socket = open(&lab).await;
    let (mut publisher, id, candidates) = publish_v2(&mut socket).await;
    assert_eq!(candidates.len(), 1, "TCP is trickled: {candidates:?}");
    assert!(candidates[0].contains(" tcp ") && candidates[0].contains("tcptype passive"));
    assert!(publisher.publish(clock, ON_AIR).await);

    // Another socket sees the stream listed, unless the application has forgotten it.
    let ask = json!({"messageType": "GET_AVAILABLE_STREAMS", "applicationName": "live"});
    let mut prober = open(&lab).await;
    say(&mut prober, &ask).await;
    let listed = hear(&mut prober, SOON).await;
    assert_eq!(
        listed,
        Some(json!({"availableStreams": [{"streamName": "front"}]}))
    );
    lab.faults().commit(None, Fault::Unlist { ms: 60_000 });
    say(&mut prober, &ask).await;
    let listed = hear(&mut prober, SOON).await;
    assert_eq!(listed, Some(json!({"availableStreams": []})));
    prober.close(None).await.expect("closed");

    publisher.close().await;
    say(&mut socket, &v2("CLOSE", &id)).await;
    socket.close(None).await.expect("closed");
    let session = judged(lab).await;
    is_clean(&session);
    assert_eq!(session.dialect.as_deref(), Some("wowza-v2"));
    assert_eq!(session.transport.as_deref(), Some("udp"));
}

#[tokio::test(flavor = "multi_thread")]
async fn ice_restarts_in_place_at_wowza_v2() {
    let (lab, clock) = lab(Profile::WowzaV2, |_| {}).await;
    let mut socket = open(&lab).await;
    let (mut publisher, id, _) = publish_v2(&mut socket).await;
    assert!(publisher.publish(clock, Duration::from_millis(1_500)).await);
    let mut restart = v2("ICE_RESTART", &id);
    restart["sdp"] = json!(publisher.restart().await);

    lab.faults().commit(
        None,
        Fault::RefuseRestart {
            status: 425,
            times: 1,
        },
    );
    say(&mut socket, &restart).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        425
    );
    lab.faults().commit(
        None,
        Fault::Silent {
            step: Step::Restart,
            times: 1,
        },
    );
    say(&mut socket, &restart).await;
    assert_eq!(hear(&mut socket, Duration::from_millis(200)).await, None);
    let mut stranger = restart.clone();
    stranger["connectionId"] = json!("another");
    say(&mut socket, &stranger).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        404
    );

    say(&mut socket, &restart).await;
    let reply = hear(&mut socket, SOON).await.expect("a reply");
    assert_eq!(reply["statusCode"], 200, "{reply}");
    publisher.restarted(reply["message"]["sdp"].as_str().expect("a string"));
    publisher.publish(clock, ON_AIR).await;
    assert_eq!(noted(&lab, "checks with its new credentials"), 1);
    publisher.close().await;
    say(&mut socket, &v2("CLOSE", &id)).await;
    socket.close(None).await.expect("closed");
    let session = judged(lab).await;
    is_clean(&session);
    // One session, and no picture missed for long, though the publisher is somewhere else.
    assert_eq!(session.reconnects, 0);
    assert!(
        session.video.frames_decoded > Some(70),
        "{:?}",
        session.video
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_wowza_v2_does_not_take_is_found_and_refused() {
    let (lab, _) = lab(Profile::WowzaV2, |_| {}).await;
    let plain = Offered::new(Habits::default());
    let edited = |edit: &dyn Fn(&mut Value)| {
        let mut message = offer(&plain);
        edit(&mut message);
        message
    };
    let data_channel = format!(
        "{}m=application 9 UDP/DTLS/SCTP webrtc-datachannel\r\na=mid:2\r\n",
        plain.sdp
    );
    let cases: [(Value, Option<u16>, &str); 6] = [
        (
            edited(&|m| m["sdp"] = json!({"type": "offer", "sdp": plain.sdp})),
            Some(400),
            "the sdp is no string",
        ),
        (edited(&|m| m["sdp"] = json!("garbage")), Some(400), "v=0"),
        (edited(&|m| m["action"] = json!("VIEW")), Some(400), "VIEW"),
        (
            edited(&|m| m["messageType"] = json!("offer")),
            Some(400),
            "unknown messageType",
        ),
        (
            edited(&|m| m["sdp"] = json!(data_channel)),
            None,
            "a section \"application\"",
        ),
        (
            {
                let mut m = v2("CANDIDATE", "[empty]");
                m["candidate"] = json!("candidate:1 1 udp 1 127.0.0.1 9 typ host");
                m
            },
            None,
            "a CANDIDATE without a connection",
        ),
    ];
    for (message, status, why) in cases {
        let mut socket = open(&lab).await;
        say(&mut socket, &message).await;
        let patience = if status.is_some() {
            SOON
        } else {
            Duration::from_millis(200)
        };
        let reply = hear(&mut socket, patience).await;
        let got = reply
            .as_ref()
            .and_then(|reply| reply["statusCode"].as_u64());
        assert_eq!(got, status.map(u64::from), "{message} {reply:?}");
        let sessions = lab.hub().sessions();
        let last = &sessions.last().expect("a session").report.violations;
        assert!(
            why.is_empty() || last.iter().any(|v| v.detail.contains(why)),
            "{why:?} {last:?}"
        );
    }
    // On a live connection: a second offer, a candidate without its id, an end without CLOSE.
    let mut socket = open(&lab).await;
    let (_publisher, _, _) = publish_v2(&mut socket).await;
    say(&mut socket, &offer(&plain)).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        400
    );
    let mut early = v2("CANDIDATE", "[empty]");
    early["candidate"] = json!("");
    say(&mut socket, &early).await;
    let mut other = open(&lab).await;
    say(&mut other, &offer(&plain)).await;
    assert_eq!(
        hear(&mut other, SOON).await.expect("a reply")["statusCode"],
        503
    );
    socket.close(None).await.expect("closed");
    drop((socket, other));
    let session = judged(lab).await;
    for rule in ["second-offer", "candidate", "close"] {
        assert!(
            rules(&session).contains(&rule),
            "{rule}: {:?}",
            session.violations
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn faults_of_wowza_v2_happen_as_planned() {
    let (lab, _) = lab(Profile::WowzaV2, |_| {}).await;
    let offered = Offered::new(Habits::default());
    let once = 1;
    // Said of a stream that still connects; the answer follows.
    lab.faults().commit(
        None,
        Fault::Refuse {
            status: 504,
            times: once,
        },
    );
    let how = RefusedVideo::PortZero;
    lab.faults()
        .commit(None, Fault::RefuseVideo { how, times: once });
    let mut socket = open(&lab).await;
    say(&mut socket, &offer(&offered)).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        504
    );
    let reply = hear(&mut socket, SOON).await.expect("a reply");
    assert!(
        reply["message"]["sdp"]
            .as_str()
            .expect("an answer")
            .contains("m=video 0 ")
    );

    let hit = lab.faults().commit(
        None,
        Fault::CloseSocket {
            code: 4403,
            status: 403,
        },
    );
    assert_eq!(hit, 1);
    use futures_util::StreamExt;
    use tokio_tungstenite::tungstenite::Message;
    let frame = loop {
        if let Message::Close(frame) = socket.next().await.expect("a frame").expect("read") {
            break frame.expect("with a code");
        }
    };
    assert_eq!(u16::from(frame.code), 4403);
    assert!(frame.reason.contains("status 403"));

    let mut elsewhere = offer(&offered);
    elsewhere["applicationName"] = json!("nothing");
    let mut socket = open(&lab).await;
    say(&mut socket, &elsewhere).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        404
    );

    lab.faults().commit(None, Fault::HoldName { ms: 60_000 });
    let mut socket = open(&lab).await;
    say(&mut socket, &offer(&offered)).await;
    assert_eq!(
        hear(&mut socket, SOON).await.expect("a reply")["statusCode"],
        503
    );
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn each_wowza_answers_the_other_dialect_in_its_own_words_or_not_at_all() {
    let offered = Offered::new(Habits::default());
    let new_words = offer(&offered);
    let old_words = json!({
        "direction": "publish", "command": "sendOffer",
        "streamInfo": {"applicationName": "live", "streamName": "front", "sessionId": "[empty]"},
        "sdp": {"type": "offer", "sdp": offered.sdp},
    });
    let flag = "?webrtcImplementation=v2";
    for foreign in [Foreign::Answers, Foreign::Silent] {
        for (profile, query, words, key, status) in [
            (Profile::WowzaSe, flag, &new_words, "status", 400),
            (Profile::WowzaV2, flag, &old_words, "statusCode", 400),
            (Profile::WowzaV2, "", &new_words, "status", 400),
            (Profile::WowzaV2, "", &old_words, "status", 200),
        ] {
            let (lab, _) = lab(profile, |c| c.foreign = foreign).await;
            let url = lab.endpoint(profile).expect("this profile").url;
            let mut socket = connect(&format!("{url}{query}")).await;
            say(&mut socket, words).await;
            if foreign == Foreign::Silent {
                assert_eq!(
                    hear(&mut socket, Duration::from_millis(150)).await,
                    None,
                    "{profile}"
                );
            } else {
                let reply = hear(&mut socket, SOON).await.expect("a reply");
                assert_eq!(reply[key], status, "{profile} {query} {reply}");
                let session = lab.hub().sessions().remove(0);
                let found = session.report.violations;
                assert!(found.is_empty(), "trying breaks no rule: {found:?}");
            }
            lab.stop().await;
        }
    }
}

/// A reply by HTTP.
#[derive(Debug)]
pub(crate) struct Http {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
}

impl Http {
    pub(crate) fn header(&self, name: &str) -> &str {
        let mut headers = self.headers.iter();
        headers
            .find(|(of, _)| of == name)
            .map_or("", |(_, value)| value)
    }
}

/// One request; `None` if the server hangs up, or is silent for `patience`.
async fn http(
    url: &str,
    method: &str,
    headers: &str,
    body: &str,
    patience: Duration,
) -> Option<Http> {
    let (host, path) = url
        .strip_prefix("http://")
        .expect("http")
        .split_once('/')
        .expect("a path");
    let mut stream = TcpStream::connect(host).await.expect("it listens");
    let length = body.len();
    let request = format!(
        "{method} /{path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n{headers}Content-Length: {length}\r\n\r\n{body}"
    );
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut reply = String::new();
    let read = stream.read_to_string(&mut reply);
    tokio::time::timeout(patience, read).await.ok()?.ok()?;
    let (head, body) = reply.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let pair = |line: &str| {
        let (name, value) = line.split_once(": ").expect("a header");
        (name.to_ascii_lowercase(), value.to_owned())
    };
    Some(Http {
        status,
        headers: lines.map(pair).collect(),
        body: body.to_owned(),
    })
}

/// One request, which must be answered.
pub(crate) async fn ask(url: &str, method: &str, headers: &str, body: &str) -> Http {
    let reply = http(url, method, headers, body, SOON).await;
    reply.unwrap_or_else(|| panic!("no reply to {method} {url}"))
}

const SDP: &str = "Content-Type: application/sdp\r\n";
const FRAGMENT: &str = "Content-Type: application/trickle-ice-sdpfrag\r\n";

fn endpoint(lab: &Lab, profile: Profile) -> String {
    lab.endpoint(profile).expect("this profile").url
}

/// `location` as seen from `url`.
fn resolved(url: &str, location: &str) -> String {
    let base = url::Url::parse(url).expect("a URL");
    base.join(location).expect("a reference").to_string()
}

/// Offers by WHIP. Returns the publisher, the URL of its session and the reply.
async fn publish_whip(url: &str, headers: &str) -> (Publisher, String, Http) {
    let offered = Offered::new(Habits::default());
    let reply = ask(url, "POST", &format!("{SDP}{headers}"), &offered.sdp).await;
    assert_eq!(reply.status, 201, "{reply:?}");
    assert_eq!(reply.header("content-type"), "application/sdp");
    let session = resolved(url, reply.header("location"));
    let udp = reply
        .body
        .lines()
        .find(|line| line.starts_with("a=candidate:") && line.to_lowercase().contains(" udp "));
    let candidate = udp.expect("a candidate")[2..].to_owned();
    let publisher = offered.answered(&reply.body, &candidate).await;
    (publisher, session, reply)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publisher_that_keeps_the_rules_passes_at_each_whip_server() {
    let runs = [Profile::Whip, Profile::WhipOme, Profile::WhipWowza].map(|profile| async move {
        let (lab, clock) = lab(profile, |_| {}).await;
        let url = endpoint(&lab, profile);
        let (mut publisher, session, reply) = publish_whip(&url, "").await;
        assert!(publisher.publish(clock, ON_AIR).await, "{profile}");
        let etag = reply.header("etag").to_owned();
        if profile == Profile::Whip {
            assert!(etag.starts_with('"') && etag.ends_with('"'), "{etag}");
        } else if profile == Profile::WhipOme {
            assert!(etag.len() == 8 && !etag.contains('"'), "{etag}");
        } else {
            assert!(etag.is_empty(), "{etag}");
        }
        publisher.close().await;
        assert_eq!(ask(&session, "DELETE", "", "").await.status, 200);
        assert_eq!(ask(&session, "DELETE", "", "").await.status, 404);
        let session = judged(lab).await;
        is_clean(&session);
        assert_eq!(session.dialect.as_deref(), Some("whip"));
        assert_eq!(session.transport.as_deref(), Some("udp"));
    });
    futures_util::future::join_all(runs).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn candidates_are_trickled_and_ice_restarts_by_patch() {
    for (profile, lite) in [
        (Profile::Whip, false),
        (Profile::Whip, true),
        (Profile::WhipWowza, false),
    ] {
        let (lab, clock) = lab(profile, |c| c.ice_lite = lite).await;
        let (mut publisher, session, reply) = publish_whip(&endpoint(&lab, profile), "").await;
        assert_eq!(reply.body.contains("a=ice-lite"), lite);
        assert!(publisher.publish(clock, Duration::from_millis(1_200)).await);
        let offer = publisher.restart().await;
        let value = |key: &str| {
            offer
                .lines()
                .find(|line| line.starts_with(key))
                .expect("it is there")
                .to_owned()
        };
        let credentials = format!("{}\r\n{}\r\n", value("a=ice-ufrag"), value("a=ice-pwd"));
        let restart = format!("m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\n{credentials}");
        let refuse = Fault::RefuseRestart {
            status: 425,
            times: 1,
        };
        lab.faults().commit(None, refuse);
        let any = format!("{FRAGMENT}If-Match: \"*\"\r\n");
        assert_eq!(ask(&session, "PATCH", &any, &restart).await.status, 425);
        let body = if profile == Profile::WhipWowza {
            &credentials
        } else {
            &restart
        };
        let restarted = ask(&session, "PATCH", &any, body).await;
        assert_eq!(restarted.status, 200, "{restarted:?}");
        publisher.restarted(&restarted.body);
        publisher.publish(clock, ON_AIR).await;
        assert_eq!(noted(&lab, "checks with its new credentials"), 1);

        let candidate = "candidate:9 1 udp 2122260223 127.0.0.1 9 typ host";
        if profile == Profile::WhipWowza {
            assert_eq!(
                ask(&session, "PATCH", FRAGMENT, candidate).await.status,
                200
            );
            assert_eq!(ask(&session, "PATCH", FRAGMENT, "").await.status, 200);
        } else {
            let trickled = format!("{restart}a={candidate}\r\na=end-of-candidates\r\n");
            let etag = restarted.header("etag");
            assert_ne!(etag, reply.header("etag"));
            let tagged = format!("{FRAGMENT}If-Match: {etag}\r\n");
            assert_eq!(ask(&session, "PATCH", &tagged, &trickled).await.status, 204);
        }
        publisher.close().await;
        ask(&session, "DELETE", "", "").await;
        let session = judged(lab).await;
        is_clean(&session);
        assert!(
            session.video.frames_decoded > Some(60),
            "{:?}",
            session.video
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_publisher_owes_a_whip_server_is_found_missing() {
    let (lab, clock) = lab(Profile::Whip, |_| {}).await;
    let url = endpoint(&lab, Profile::Whip);
    let (mut publisher, session, reply) = publish_whip(&url, "").await;
    assert!(publisher.publish(clock, Duration::from_secs(1)).await);
    let fragment = "m=audio 9 UDP/TLS/RTP/SAVPF 111\r\na=mid:0\r\na=ice-ufrag:abcd\r\na=ice-pwd:0123456789012345678901\r\n";
    let etag = reply.header("etag");
    for (headers, body, status) in [
        (FRAGMENT.to_owned(), fragment, 428),
        (format!("{FRAGMENT}If-Match: \"other\"\r\n"), fragment, 412),
        (
            format!("{FRAGMENT}If-Match: {etag}\r\n"),
            "candidate:1 1 udp 1 127.0.0.1 9 typ host",
            400,
        ),
        (format!("{SDP}If-Match: {etag}\r\n"), fragment, 415),
    ] {
        let reply = ask(&session, "PATCH", &headers, body).await;
        assert_eq!(reply.status, status, "{headers}");
    }
    lab.faults().commit(
        None,
        Fault::RefusePatch {
            status: 405,
            times: 1,
        },
    );
    assert_eq!(ask(&session, "PATCH", FRAGMENT, fragment).await.status, 405);
    assert_eq!(ask(&session, "PUT", "", "").await.status, 405);
    // It parts from the media and never deletes.
    publisher.close().await;
    let session = judged(lab).await;
    for rule in ["if-match", "sdpfrag", "content-type", "delete"] {
        assert!(
            rules(&session).contains(&rule),
            "{rule}: {:?}",
            session.violations
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bearer_is_asked_for_and_must_not_go_to_another_origin() {
    let bearer = |token: &str| format!("Authorization: Bearer {token}\r\n");
    for (status, headers) in [(401, String::new()), (403, bearer("wrong"))] {
        let (lab, _) = lab(Profile::Whip, |c| c.bearer = Some("right".to_owned())).await;
        let offered = Offered::new(Habits::default());
        let url = endpoint(&lab, Profile::Whip);
        let reply = ask(&url, "POST", &format!("{SDP}{headers}"), &offered.sdp).await;
        assert_eq!(reply.status, status);
        assert_eq!(reply.header("www-authenticate").is_empty(), status != 401);
        lab.stop().await;
    }
    for (elsewhere, leak) in [(false, false), (true, false), (true, true)] {
        let (lab, clock) = lab(Profile::Whip, |c| c.bearer = Some("right".to_owned())).await;
        let redirect = Fault::Redirect {
            status: 307,
            elsewhere,
            times: 1,
        };
        lab.faults().commit(None, redirect);
        let url = endpoint(&lab, Profile::Whip);
        let offered = Offered::new(Habits::default());
        let headers = format!("{SDP}{}", bearer("right"));
        let reply = ask(&url, "POST", &headers, &offered.sdp).await;
        assert_eq!(reply.status, 307);
        let there = resolved(&url, reply.header("location"));
        let origin = |url: &str| url::Url::parse(url).expect("a URL").origin();
        assert_eq!(origin(&there) != origin(&url), elsewhere);
        let headers = if elsewhere && !leak {
            String::new()
        } else {
            bearer("right")
        };
        let (mut publisher, session, _) = publish_whip(&there, &headers).await;
        assert!(publisher.publish(clock, ON_AIR).await);
        publisher.close().await;
        // What is at one origin is not at the other.
        if elsewhere {
            let path = session.splitn(4, '/').nth(3).expect("a path");
            let here = resolved(&url, &format!("/{path}"));
            assert_eq!(ask(&here, "DELETE", &bearer("right"), "").await.status, 404);
        } else {
            assert_eq!(ask(&session, "DELETE", "", "").await.status, 401);
        }
        assert_eq!(ask(&session, "DELETE", &headers, "").await.status, 200);
        let session = judged(lab).await;
        if leak {
            assert_eq!(rules(&session), ["bearer"]);
        } else {
            is_clean(&session);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_by_whip_are_those_of_each_server() {
    for (profile, taken, garbage) in [
        (Profile::Whip, 409, 400),
        (Profile::WhipOme, 409, 500),
        (Profile::WhipWowza, 503, 500),
    ] {
        let (lab, _) = lab(profile, |_| {}).await;
        let url = endpoint(&lab, profile);
        let offered = Offered::new(Habits::default());
        let post = async |body: &str| ask(&url, "POST", SDP, body).await;
        assert_eq!(post("garbage").await.status, garbage, "{profile}");
        lab.faults().commit(
            None,
            Fault::RetryLater {
                status: 429,
                seconds: 7,
                times: 1,
            },
        );
        let later = post(&offered.sdp).await;
        assert_eq!((later.status, later.header("retry-after")), (429, "7"));
        lab.faults().commit(
            None,
            Fault::Refuse {
                status: 502,
                times: 1,
            },
        );
        assert_eq!(post(&offered.sdp).await.status, 502);
        lab.faults().commit(None, Fault::HangUp { times: 1 });
        assert!(http(&url, "POST", SDP, &offered.sdp, SOON).await.is_none());
        let step = Step::Description;
        lab.faults().commit(None, Fault::Silent { step, times: 1 });
        let patience = Duration::from_millis(200);
        assert!(
            http(&url, "POST", SDP, &offered.sdp, patience)
                .await
                .is_none()
        );
        let (_publisher, session, _) = publish_whip(&url, "").await;
        assert_eq!(post(&offered.sdp).await.status, taken, "{profile}");
        assert_eq!(ask(&url, "GET", "", "").await.status, 204);
        assert!(ask(&url, "OPTIONS", "", "").await.status <= 204);
        // The server ends it: its URL is gone, its name is free.
        lab.faults().commit(None, Fault::End);
        let deadline = Instant::now() + SOON;
        while ask(&session, "DELETE", "", "").await.status != 404 {
            assert!(Instant::now() < deadline);
        }
        assert_eq!(post(&offered.sdp).await.status, 201);
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn relays_are_told_of_where_each_server_tells_of_them() {
    let relay = IceServer {
        url: "turn:127.0.0.1:3478?transport=tcp".to_owned(),
        login: Some(("ome".to_owned(), "airen".to_owned())),
    };
    for (profile, query, told) in [
        (Profile::Whip, "", true),
        (Profile::WhipOme, "", false),
        (Profile::WhipOme, "&transport=relay", true),
        (Profile::WhipWowza, "", false),
    ] {
        let (lab, _) = lab(profile, |c| c.ice_servers = vec![relay.clone()]).await;
        let url = format!("{}{query}", endpoint(&lab, profile));
        let reply = ask(&url, "POST", SDP, &Offered::new(Habits::default()).sdp).await;
        assert_eq!(reply.status, 201);
        assert_eq!(
            reply.header("link").contains("rel=\"ice-server\""),
            told,
            "{profile} {query}"
        );
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_silent_publisher_by_whip_keeps_its_name_until_the_scaled_time_out() {
    let (lab, _) = lab(Profile::Whip, |c| c.time_scale = 0.02).await;
    let begun = Instant::now();
    let (_publisher, _, _) = publish_whip(&endpoint(&lab, Profile::Whip), "").await;
    let session = judged(lab).await;
    assert!(
        begun.elapsed() >= Duration::from_millis(600),
        "30 s, scaled"
    );
    assert_eq!(session.end_reason.as_deref(), Some("nothing was heard"));
    assert!(session.violations.is_empty(), "{:?}", session.violations);
}
