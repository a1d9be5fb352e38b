//! The status server over real HTTP, of an agent that publishes to the lab: what it tells, what it obeys, whom it
//! turns away, and that nobody can tie it up.

use std::net::SocketAddr;
use std::time::Duration;

use onair::config::{Status, secret::Secret};
use onair::daemon::notify::Manager;
use onair::daemon::reload::Files;
use onair::daemon::{Daemon, Request};
use onair::feed::Budget;
use onair::lab::Profile;
use onair::status::Server;
use onair::supervisor::View;
use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::support::{Pair, SOON};

/// Somewhere on this host.
const ANYWHERE: Status = Status {
    listen: Some(SocketAddr::new(
        std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST),
        0,
    )),
    token: None,
    picture: false,
};

/// An answer.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: u16,
    head: String,
    pub(crate) body: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }
}

/// Sends `request` as it is, and reads until the server closes.
async fn raw(at: SocketAddr, request: &str) -> Answer {
    let exchange = async {
        let mut stream = TcpStream::connect(at).await.expect("it listens");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        // A server that hangs up on what it has not read may do so with a reset, after its answer.
        let mut bytes = Vec::new();
        while let Ok(n @ 1..) = stream.read_buf(&mut bytes).await {
            assert!(n < 1 << 20);
        }
        answer += &String::from_utf8(bytes).expect("UTF-8");
        answer
    };
    let answer = tokio::time::timeout(SOON, exchange)
        .await
        .expect("an answer in time");
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    Answer {
        code: code.unwrap_or_else(|| panic!("no answer: {answer}")),
        head: head.to_ascii_lowercase(),
        body: body.to_owned(),
    }
}

/// Asks with these headers beside `Host`.
pub(crate) async fn ask(at: SocketAddr, method: &str, path: &str, headers: &str) -> Answer {
    raw(
        at,
        &format!("{method} {path} HTTP/1.1\r\nHost: {at}\r\n{headers}\r\n"),
    )
    .await
}

async fn get(at: SocketAddr, path: &str) -> Answer {
    ask(at, "GET", path, "").await
}

/// The server over what `view` shows, and where it listens.
async fn serve(config: &Status, view: View, daemon: &Daemon) -> (Server, SocketAddr) {
    let server = Server::start(config, view, daemon.health(), daemon.requests());
    let server = server.expect("it starts").expect("it is wanted");
    let mut address = server.address();
    let bound = tokio::time::timeout(SOON, address.wait_for(Option::is_some)).await;
    let at = bound.expect("in time").expect("it runs").expect("bound");
    (server, at)
}

/// Asks for `path` with these headers until the answer satisfies `wanted`.
pub(crate) async fn until(
    at: SocketAddr,
    path: &str,
    headers: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> Answer {
    let deadline = tokio::time::Instant::now() + SOON * 2;
    loop {
        let answer = ask(at, "GET", path, headers).await;
        if wanted(&answer) {
            return answer;
        }
        assert!(tokio::time::Instant::now() < deadline, "{path}: {answer:?}");
        // It looks once a second.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn daemon(pair: &Pair) -> Daemon {
    let view = pair.agent.view();
    let manager = Manager::from_environment();
    Daemon::start(move || view.overview(), manager, &Budget::default()).expect("a watchdog")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_on_air_is_seen_by_people_programs_and_probes() {
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let (server, at) = serve(&ANYWHERE, pair.agent.view(), &daemon).await;

    let ready = until(at, "/readyz", "", |answer| answer.code == 200).await;
    assert_eq!(ready.body, "on air\n");
    assert!(ready.head.contains("cache-control: no-store"), "{ready:?}");
    let health = until(at, "/healthz", "", |answer| answer.code == 200).await;
    assert_eq!(health.body, "healthy\n");

    let sent = |answer: &Answer| {
        let main = &answer.json()["publishers"]["ome-0.21"];
        main["counts"]["receiver_reports"].as_u64() > Some(2)
            && main["latest"]["fps"].as_f64() > Some(5.0)
    };
    let status = until(at, "/v1/status", "", sent).await.json();
    let main = &status["publishers"]["ome-0.21"];
    assert_eq!(status["schema"], onair::status::SCHEMA);
    assert_eq!(
        (&status["healthy"], &status["ready"]),
        (&Value::Bool(true), &Value::Bool(true))
    );
    assert_eq!(main["state"], "on_air");
    assert_eq!(main["dialect"], "ome");
    assert_eq!(main["rung"], "udp");
    assert_eq!(main["confirmed"], true);
    assert_eq!(main["counts"]["sessions"], 1);
    assert!(
        main["counts"]["payload_sent_bytes"].as_u64() > Some(10_000),
        "{main}"
    );
    assert!(main["time_to_on_air_s"].as_f64() > Some(0.0), "{main}");
    assert!(main["on_air_total_s"].as_f64() > Some(0.0), "{main}");
    assert!(main["video"]["jitter_s"].is_number(), "{main}");
    assert!(main["capture_to_wire_s"]["p95"].is_number(), "{main}");
    let video = &status["feeds"]["feed"]["video"];
    assert_eq!(video["state"], "live");
    assert!(video["encoded"].as_u64() > Some(10), "{video}");
    assert!(
        status["process"]["rss_bytes"].as_u64() > Some(1_000_000),
        "{status}"
    );

    let metrics = get(at, "/metrics").await;
    assert!(
        metrics.head.contains("application/openmetrics-text"),
        "{metrics:?}"
    );
    for line in [
        "onair_publisher_state{publisher=\"ome-0.21\",state=\"on_air\"} 1.0",
        "onair_publisher_sessions_total{publisher=\"ome-0.21\"} 1.0",
        "onair_publisher_rung{publisher=\"ome-0.21\",rung=\"udp\",outcome=\"chosen\"} 1.0",
        "onair_feed_source_state{feed=\"feed\",track=\"audio\",state=\"live\"} 1.0",
        "onair_ready 1.0",
        "# EOF",
    ] {
        assert!(
            metrics.body.lines().any(|l| l == line),
            "no {line} in {}",
            metrics.body
        );
    }

    let history = until(at, "/v1/history", "", |answer| {
        answer.json()["points"].as_array().map(Vec::len) >= Some(3)
    });
    let points = history.await.json();
    assert_eq!(
        (&points["from"], &points["every_s"]),
        (&0.into(), &1.into())
    );
    let later = get(at, "/v1/history?from=2").await.json();
    assert_eq!(later["from"], 2);
    assert!(later["points"][0]["ome-0.21"]["fps"].is_number(), "{later}");

    let page = get(at, "/").await;
    assert!(page.body.starts_with("<!doctype html>"), "{page:?}");
    assert!(
        page.head
            .contains("content-security-policy: default-src 'none'"),
        "{page:?}"
    );
    assert_eq!(get(at, "/v2").await.code, 404);

    // A server that goes away is told of, and is no fault of ours.
    let lab = pair.lab;
    lab.stop().await;
    let gone = until(at, "/readyz", "", |answer| answer.code == 503).await;
    assert!(gone.body.contains("publisher ome-0.21"), "{gone:?}");
    assert_eq!(get(at, "/healthz").await.code, 200);
    let troubled = |answer: &Answer| answer.json()["troubles"][0]["what"].is_string();
    let status = until(at, "/v1/status", "", troubled).await.json();
    assert_eq!(status["troubles"][0]["who"], "publisher ome-0.21");
    server.stop().await;
    assert!(TcpStream::connect(at).await.is_err(), "it is gone");
    pair.agent.drain().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn orders_are_obeyed_and_tricks_of_web_pages_are_not() {
    let mut pair = Pair::start(Profile::Whip, |_| {}).await;
    let mut daemon = daemon(&pair);
    let (server, at) = serve(&ANYWHERE, pair.agent.view(), &daemon).await;
    let folder = tempfile::tempdir().expect("a temporary folder");
    let file = folder.path().join("onair.toml");
    std::fs::write(&file, "[feed]\nplanted = 1\n").expect("written");
    let over = CancellationToken::new();
    let hangup = signal(SignalKind::hangup()).expect("a signal");
    let tending = daemon.tend(&mut pair.agent, Files::new(file), false, hangup, &over);
    let state = |wanted: &'static str| {
        move |answer: &Answer| {
            answer.code == 200 && answer.json()["publishers"]["whip"]["state"] == wanted
        }
    };
    let post = |path: &'static str, headers: &'static str| ask(at, "POST", path, headers);
    let orders = async {
        until(at, "/v1/status", "", state("on_air")).await;
        let stop = "/v1/publishers/whip/stop";
        for (headers, code) in [
            ("Origin: https://evil.example\r\n", 403),
            ("Sec-Fetch-Site: cross-site\r\n", 403),
        ] {
            assert_eq!(post(stop, headers).await.code, code, "{headers}");
        }
        let rebound = format!("POST {stop} HTTP/1.1\r\nHost: evil.example\r\n\r\n");
        assert_eq!(raw(at, &rebound).await.code, 421);
        assert_eq!(ask(at, "GET", stop, "").await.code, 405);
        assert_eq!(post("/v1/publishers/nobody/stop", "").await.code, 404);
        assert_eq!(post("/v1/publishers/whip/explode", "").await.code, 404);
        let before = get(at, "/v1/status").await.json();
        assert_eq!(
            before["publishers"]["whip"]["counts"]["sessions"], 1,
            "nothing of this did anything"
        );

        let stopped = post(stop, "Origin: null\r\n").await;
        assert_eq!(stopped.code, 403, "{stopped:?}");
        let stopped = post(stop, "").await;
        assert_eq!(
            (stopped.code, &stopped.json()["ok"]),
            (200, &Value::Bool(true)),
            "{stopped:?}"
        );
        until(at, "/v1/status", "", state("stopped")).await;
        let ready = get(at, "/readyz").await;
        assert_eq!(ready.code, 200, "none is to be on air");
        assert!(
            ready
                .body
                .contains("whip is off the air: somebody stopped it"),
            "{ready:?}"
        );
        let held = |answer: &Answer| {
            answer
                .body
                .contains("onair_publisher_held{publisher=\"whip\"} 1.0")
        };
        assert!(held(&get(at, "/metrics").await));
        assert_eq!(post("/v1/publishers/whip/start", "").await.code, 200);
        until(at, "/v1/status", "", state("on_air")).await;
        assert_eq!(post("/v1/publishers/whip/restart", "").await.code, 200);
        let anew = |answer: &Answer| {
            let whip = &answer.json()["publishers"]["whip"];
            whip["state"] == "on_air" && whip["counts"]["sessions"].as_u64() == Some(3)
        };
        until(at, "/v1/status", "", anew).await;

        let refused = post("/v1/reload", "").await;
        assert_eq!(refused.code, 409, "{refused:?}");
        let words = refused.json()["words"].to_string();
        assert!(words.contains("runs on"), "{words}");
        let told = |answer: &Answer| {
            let status = answer.json();
            status["reload_failed"] == true && status["troubles"][0]["who"] == "configuration"
        };
        until(at, "/v1/status", "", told).await;
        until(at, "/v1/status", "", state("on_air")).await;
        over.cancel();
    };
    let (tended, ()) = tokio::join!(tending, orders);
    assert_eq!(tended, None);
    server.stop().await;
    let (lab, _) = pair.end().await;
    assert_eq!(lab.violations, [], "{lab:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn with_a_token_strangers_learn_yes_or_no_and_nothing_else() {
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let config = Status {
        token: Some(Secret::new("planted-status-token")),
        ..ANYWHERE
    };
    let (server, at) = serve(&config, pair.agent.view(), &daemon).await;
    let ready = until(at, "/readyz", "", |answer| answer.code == 200).await;
    assert_eq!(ready.body, "yes\n");
    assert_eq!(get(at, "/").await.code, 200, "it holds nothing");
    for path in [
        "/metrics",
        "/v1/status",
        "/v1/history",
        "/v1/feeds/feed/picture",
        "/nowhere",
    ] {
        let refused = get(at, path).await;
        assert_eq!(refused.code, 401, "{path}");
        assert!(
            refused.head.contains("www-authenticate: bearer"),
            "{refused:?}"
        );
        assert!(!refused.body.contains("planted"), "{refused:?}");
        let wrong = ask(
            at,
            "GET",
            path,
            "Authorization: Bearer planted-status-tokem\r\n",
        );
        assert_eq!(wrong.await.code, 401, "{path}");
    }
    for order in ["/v1/reload", "/v1/publishers/ome-0.21/stop"] {
        assert_eq!(ask(at, "POST", order, "").await.code, 401, "{order}");
    }
    let shown = "Authorization: Bearer planted-status-token\r\n";
    let words = ask(at, "GET", "/readyz", shown).await;
    assert_eq!(words.body, "on air\n");
    // By whatever name: the right does not come from where one is.
    let named = format!("GET /v1/status HTTP/1.1\r\nHost: kiosk.example\r\n{shown}\r\n");
    let status = raw(at, &named).await;
    assert_eq!(status.code, 200);
    assert!(!status.body.contains("planted"), "{status:?}");
    server.stop().await;
    drop(daemon);
    pair.end().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_can_tie_it_up_or_fill_its_memory() {
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let (server, at) = serve(&ANYWHERE, pair.agent.view(), &daemon).await;
    until(at, "/healthz", "", |answer| answer.code == 200).await;

    let long = format!("X-Long: {}\r\n", "x".repeat(60_000));
    assert_eq!(ask(at, "GET", "/healthz", &long).await.code, 431);
    let many: String = (0..200).map(|n| format!("X-{n}: x\r\n")).collect();
    assert_eq!(ask(at, "GET", "/healthz", &many).await.code, 431);
    let body = format!("Content-Length: 50000\r\n\r\n{}", "x".repeat(50_000));
    let huge = ask(at, "POST", "/v1/publishers/nobody/stop", &body).await;
    assert_eq!(huge.code, 404);

    // More than it takes at a time: some say nothing, some ask and do not read.
    let mut idle = Vec::new();
    for n in 0..100 {
        let mut stream = TcpStream::connect(at)
            .await
            .expect("the system queues them");
        if n % 2 == 0 {
            let asked = format!("GET /metrics HTTP/1.1\r\nHost: {at}\r\n\r\n");
            stream.write_all(asked.as_bytes()).await.expect("sent");
        }
        idle.push(stream);
    }
    let frames = pair.publisher.borrow().frames_sent();
    assert_eq!(
        get(at, "/healthz").await.code,
        200,
        "whoever says nothing is sent away"
    );
    pair.until("media goes on", |p| {
        p.is_on_air() && p.frames_sent() > frames + 10
    })
    .await;
    drop(idle);
    server.stop().await;
    drop(daemon);
    let (lab, _) = pair.end().await;
    assert_eq!(lab.violations, [], "{lab:#?}");
}

/// Asks for a picture; the status, the head, and the bytes.
async fn picture(at: SocketAddr, feed: &str) -> (u16, String, Vec<u8>) {
    let mut stream = TcpStream::connect(at).await.expect("it listens");
    let request = format!("GET /v1/feeds/{feed}/picture HTTP/1.1\r\nHost: {at}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(SOON, stream.read_to_end(&mut answer)).await;
    read.expect("in time").expect("an answer");
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n");
    let body = answer.split_off(end.expect("a head") + 4);
    let head = String::from_utf8(answer).expect("UTF-8");
    let code = head.split(' ').nth(1).and_then(|code| code.parse().ok());
    (code.expect("a status"), head.to_ascii_lowercase(), body)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_picture_is_shown_where_it_may_be() {
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let (closed, at) = serve(&ANYWHERE, pair.agent.view(), &daemon).await;
    assert_eq!(get(at, "/v1/feeds/feed/picture").await.code, 403);
    let says = |pictures: bool| {
        let said = format!("\"pictures\":{pictures}");
        move |answer: &Answer| answer.code == 200 && answer.body.contains(&said)
    };
    until(at, "/v1/status", "", says(false)).await;
    closed.stop().await;

    let config = Status {
        picture: true,
        ..ANYWHERE
    };
    let (server, at) = serve(&config, pair.agent.view(), &daemon).await;
    pair.until_decoded(10).await;
    until(at, "/v1/status", "", says(true)).await;
    let (code, head, bitmap) = picture(at, "feed").await;
    assert_eq!(code, 200, "{head}");
    assert!(head.contains("content-type: image/bmp"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("\r\nage: "));
    assert!(bitmap.starts_with(b"BM"));
    let width = u32::from_le_bytes(bitmap[18..22].try_into().expect("four"));
    assert!((1..=320).contains(&width), "{width}");
    // The card has more than one colour.
    let pixels: std::collections::BTreeSet<&[u8]> = bitmap[54..].chunks_exact(3).collect();
    assert!(pixels.len() > 10, "{}", pixels.len());
    assert_eq!(picture(at, "nobody").await.0, 404);
    // Its name means this host by somebody's trick.
    let rebound = "GET /v1/feeds/feed/picture HTTP/1.1\r\nHost: evil.example\r\n\r\n";
    assert_eq!(raw(at, rebound).await.code, 421);
    server.stop().await;
    drop(daemon);
    pair.end().await;
}

/// Who says nothing is sent away after so long, whoever else comes.
const SILENT_FOR: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_holds_connections_and_says_nothing_holds_up_nobody() {
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let (server, at) = serve(&ANYWHERE, pair.agent.view(), &daemon).await;
    until(at, "/healthz", "", |answer| answer.code == 200).await;
    // Once they have been silent for long they are sent away anyway, which says nothing: quicker, then, next time.
    for _ in 0..20 {
        let began = tokio::time::Instant::now();
        let mut silent = Vec::new();
        for n in 0..40 {
            let mut stream = TcpStream::connect(at).await.expect("it takes everyone");
            if n % 2 == 0 {
                // Half of a question is none.
                stream.write_all(b"GET / HTTP/1.1\r\n").await.expect("sent");
            }
            silent.push(stream);
        }
        assert_eq!(get(at, "/healthz").await.code, 200);
        // Those who came last are still there, and are answered when they ask.
        let mut last = silent.pop().expect("forty");
        let request = format!("GET /healthz HTTP/1.1\r\nHost: {at}\r\n\r\n");
        let sent = last.write_all(request.as_bytes()).await;
        let mut answer = Vec::new();
        let read = last.read_to_end(&mut answer).await;
        if began.elapsed() > SILENT_FOR {
            continue;
        }
        sent.expect("it is there");
        read.expect("it is there");
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{answer:?}");
        let mut first = silent.swap_remove(0);
        let cut = first.read(&mut [0; 16]).await;
        assert!(matches!(cut, Ok(0) | Err(_)), "{cut:?}");
        server.stop().await;
        drop(daemon);
        pair.end().await;
        return;
    }
    panic!("it was never answered before the silent were sent away");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_address_that_is_taken_is_waited_for() {
    let taken = tokio::net::TcpListener::bind("127.0.0.1:0")
        .await
        .expect("a port");
    let at = taken.local_addr().expect("bound");
    let pair = Pair::start(Profile::Ome021, |_| {}).await;
    let daemon = daemon(&pair);
    let (requests, _none): (mpsc::Sender<Request>, _) = mpsc::channel(1);
    let config = Status {
        listen: Some(at),
        token: None,
        picture: false,
    };
    let server = Server::start(&config, pair.agent.view(), daemon.health(), requests);
    let server = server.expect("no failure").expect("wanted");
    pair.until("on air all the same", |p| p.is_on_air()).await;
    let mut address = server.address();
    assert_eq!(*address.borrow(), None);
    drop(taken);
    let bound = tokio::time::timeout(SOON, address.wait_for(|bound| *bound == Some(at))).await;
    assert!(bound.is_ok(), "it was not tried again");
    until(at, "/healthz", "", |answer| answer.code == 200).await;
    server.stop().await;
    drop(daemon);
    pair.end().await;
}
