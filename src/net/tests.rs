//! Reaching a server on loopback, and each way of not reaching it: the step, the endpoint and the advice in
//! the error, and nothing else of the URL.

use futures_util::{SinkExt, StreamExt};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_tungstenite::tungstenite::Message;

use super::ws::{Ended, MESSAGE_MAX, Received, Socket};
use super::*;

const PATH: &str = "planted-app/planted-stream?signature=planted-signature";

fn dialer(ca_file: Option<&std::path::Path>) -> Dialer {
    let trust = config::Trust {
        ca_file: ca_file.map(Into::into),
        ..config::Trust::default()
    };
    Dialer::new(
        &Secret::new("wss://localhost/"),
        &trust,
        &config::Proxy::None,
    )
    .unwrap()
}

fn target(scheme: &str, port: u16) -> Target {
    Target::parse(&format!("{scheme}://localhost:{port}/{PATH}"), &[]).unwrap()
}

async fn listen() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

/// Fails to reach a server that answers with `reply` and hangs up.
async fn reached_by(scheme: &str, reply: &'static [u8]) -> Error {
    let (listener, port) = listen().await;
    let server = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        assert!(stream.read(&mut request).await.unwrap() > 0);
        stream.write_all(reply).await.unwrap();
        stream.shutdown().await.unwrap();
        // Until the other side has gone too, lest a reset overtakes the reply.
        while matches!(stream.read(&mut request).await, Ok(n) if n > 0) {}
    };
    let target = target(scheme, port);
    let dialer = dialer(None);
    let (result, ()) = tokio::join!(Socket::connect(&target, &dialer), server);
    let Err(error) = result else {
        panic!("connected")
    };
    let text = format!("{error} {error:?}");
    assert!(
        text.contains(&format!("{scheme}://localhost:{port}")),
        "{text}"
    );
    assert!(!text.contains("planted"), "{text}");
    error
}

// --- URLs --------------------------------------------------------------------------------------------------

#[test]
fn parameters_are_joined_to_any_url() {
    let set = [("direction", "send"), ("transport", "tcp")];
    for (url, query) in [
        ("wss://h:3334/a/b", "direction=send&transport=tcp"),
        ("wss://h:3334/a/b?", "direction=send&transport=tcp"),
        (
            "wss://h/a/b?policy=x%2Dy&signature=z%3d",
            "policy=x%2Dy&signature=z%3d&direction=send&transport=tcp",
        ),
        (
            "wss://h/a/b?direction=send&p=1",
            "direction=send&p=1&transport=tcp",
        ),
        (
            "wss://h/a/b?direction=recv&p=1&transport=udp",
            "direction=send&p=1&transport=tcp",
        ),
        (
            "wss://h/a/b?direction&direction=x&p#frag",
            "direction=send&p&transport=tcp",
        ),
    ] {
        let target = Target::parse(url, &set).unwrap();
        assert_eq!(target.expose().query(), Some(query), "{url}");
        assert_eq!(target.expose().fragment(), None);
    }
}

#[test]
fn a_url_prints_as_scheme_host_and_port() {
    let target = Target::parse("wss://H.example/secret?t=secret", &[]).unwrap();
    assert_eq!(target.to_string(), "wss://h.example:443");
    assert_eq!(format!("{target:?}"), "Target(wss://h.example:443)");
    let target = Target::parse("ws://[::1]:3333/secret", &[]).unwrap();
    assert_eq!(target.to_string(), "ws://[::1]:3333");
}

#[test]
fn a_masked_url_tells_addresses_apart_and_shows_the_host_alone() {
    let secret = "https://user:planted@gate.example:8443/planted/v1?key=planted";
    let kept = masked(secret);
    assert!(
        kept.starts_with("https://gate.example:8443#") && !kept.contains("planted"),
        "{kept}"
    );
    assert_eq!(kept, masked(secret));
    assert_ne!(kept, masked("https://gate.example:8443/other/v1"));
    assert_ne!(masked("planted"), masked("planted too"));
    assert!(!masked("planted").contains("planted"));
}

#[test]
fn each_use_has_its_schemes() {
    let whip = Target::parse_http("https://H.example:444/live?t=secret", &[("a", "b")]).unwrap();
    assert_eq!(whip.to_string(), "https://h.example:444");
    assert_eq!(whip.expose().query(), Some("t=secret&a=b"));
    assert_eq!(
        (whip.is_tls(), whip.host(), whip.port()),
        (true, "h.example", 444)
    );
    let plain = Target::parse_http("http://[::1]/", &[]).unwrap();
    assert_eq!(
        (plain.is_tls(), plain.host(), plain.port()),
        (false, "::1", 80)
    );
    for url in [
        "wss://planted/",
        "ftp://planted/",
        "planted",
        "https://u:planted@h/",
    ] {
        let error = Target::parse_http(url, &[]).unwrap_err().to_string();
        assert!(!error.contains("planted"), "{error}");
    }
}

#[test]
fn a_location_is_read_against_the_url_that_named_it() {
    let base = Target::parse_http("https://h.example/app/whip?t=1", &[]).unwrap();
    for (location, leads_to, same) in [
        ("session/1", "https://h.example/app/session/1", true),
        ("/r/2?x", "https://h.example/r/2?x", true),
        ("https://H.example:443/r", "https://h.example/r", true),
        ("//other.example/r", "https://other.example/r", false),
        ("https://h.example:444/r", "https://h.example:444/r", false),
        ("http://h.example/r", "http://h.example/r", false),
    ] {
        let there = base.join(location).unwrap();
        assert_eq!(there.expose().as_str(), leads_to);
        assert_eq!(base.same_origin(&there), same, "{location}");
    }
    for location in [
        "wss://h.example/",
        "javascript:planted",
        "https://planted:x/",
        "https://",
    ] {
        let error = base.join(location).unwrap_err().to_string();
        assert!(!error.contains("planted"), "{error}");
    }
}

#[test]
fn unusable_urls_are_refused_without_repeating_them() {
    for url in [
        "planted",
        "https://planted/",
        "wss://",
        "wss://planted:99999/",
        "wss://u:planted@host/",
        "wss://[planted/",
        "ws:planted",
        "",
    ] {
        match Target::parse(url, &[]) {
            Err(error @ Error::Url { .. }) => {
                assert!(!error.to_string().contains("planted"), "{error}")
            }
            // The standard reads `ws:planted` as `ws://planted`.
            Ok(target) => assert_eq!(target.to_string(), "ws://planted:80"),
            Err(other) => panic!("{other:?}"),
        }
    }
}

// --- steps -------------------------------------------------------------------------------------------------

#[tokio::test]
async fn a_name_that_does_not_exist_is_named() {
    let target = Target::parse("wss://nobody.invalid/planted", &[]).unwrap();
    let Err(error) = dialer(None).dial(&target).await else {
        panic!("connected")
    };
    assert_eq!(error.step(), Some(Step::Dns));
    assert!(
        error
            .to_string()
            .starts_with("wss://nobody.invalid:443: looking up the name"),
        "{error}"
    );
}

#[tokio::test]
async fn a_closed_port_is_named() {
    let (listener, port) = listen().await;
    drop(listener);
    let Err(error) = dialer(None).dial(&target("wss", port)).await else {
        panic!("connected")
    };
    assert_eq!(error.step(), Some(Step::Tcp));
    assert!(error.to_string().contains("address(es) tried"), "{error}");
}

#[tokio::test]
async fn tls_to_a_plain_port_is_named() {
    let error = reached_by("wss", b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert_eq!(error.step(), Some(Step::Tls));
    assert!(error.to_string().contains("does not speak TLS"), "{error}");
    let error = reached_by("wss", b"").await;
    assert_eq!(error.step(), Some(Step::Tls));
    assert!(error.to_string().contains("hung up"), "{error}");
}

#[tokio::test]
async fn http_status_instead_of_101_is_explained() {
    for (reply, status, advice) in [
        (
            &b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n<html>"[..],
            200,
            "this is a web server",
        ),
        (
            b"HTTP/1.1 301 Moved\r\nLocation: /planted\r\n\r\n",
            301,
            "redirects",
        ),
        (b"HTTP/1.1 403 Forbidden\r\n\r\n", 403, "authorization"),
        (
            b"HTTP/1.1 404 Not Found\r\n\r\n",
            404,
            "nothing speaks WebSocket",
        ),
        (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", 502, "in trouble"),
    ] {
        let error = reached_by("ws", reply).await;
        assert!(
            matches!(error, Error::Status { status: s, .. } if s == status),
            "{error:?}"
        );
        assert_eq!(error.step(), Some(Step::Upgrade));
        assert!(error.to_string().contains(advice), "{error}");
    }
}

#[tokio::test]
async fn a_broken_upgrade_is_named() {
    for reply in [
        &b""[..],
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ] {
        let error = reached_by("ws", reply).await;
        assert!(matches!(error, Error::Failed { step: Step::Upgrade, .. }), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_silent_at_the_upgrade_is_given_up_after_ten_seconds() {
    let (near, _far) = tokio::io::duplex(4096);
    let begin = Instant::now();
    let result = Socket::upgrade(Box::new(near), &target("ws", 1)).await;
    let Err(error) = result else {
        panic!("connected")
    };
    assert!(
        matches!(
            error,
            Error::Timeout {
                step: Step::Upgrade,
                ..
            }
        ),
        "{error:?}"
    );
    assert_eq!(begin.elapsed(), Duration::from_secs(10));
    assert_eq!(
        error.to_string(),
        "ws://localhost:1: upgrading to a WebSocket took longer than 10 s"
    );
}

#[tokio::test(start_paused = true)]
async fn endless_headers_are_refused() {
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let flood = async {
        far.write_all(b"HTTP/1.1 101 Switching Protocols\r\n")
            .await
            .unwrap();
        while far.write_all(&[b'x'; 4096]).await.is_ok() {}
        std::future::pending::<()>().await;
    };
    let target = target("ws", 1);
    tokio::select! {
        result = Socket::upgrade(Box::new(near), &target) => assert!(result.is_err()),
        () = flood => {}
    }
}

// --- the open channel --------------------------------------------------------------------------------------

async fn pipe() -> (
    Socket,
    tokio_tungstenite::WebSocketStream<tokio::io::DuplexStream>,
) {
    let (near, far) = tokio::io::duplex(64 << 10);
    let target = target("ws", 1);
    let (socket, far) = tokio::join!(
        Socket::upgrade(Box::new(near), &target),
        tokio_tungstenite::accept_async(far)
    );
    (socket.unwrap(), far.unwrap())
}

#[tokio::test(start_paused = true)]
async fn our_own_pings_keep_the_connection_open() {
    let (mut socket, mut far) = pipe().await;
    let begin = Instant::now();
    let hear = async {
        for n in 1..=3_u64 {
            assert!(matches!(far.next().await, Some(Ok(Message::Ping(_)))));
            assert_eq!(begin.elapsed(), Duration::from_secs(25 * n));
        }
    };
    tokio::select! {
        received = socket.recv() => panic!("{received:?}"),
        () = hear => {}
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_never_reads_does_not_stop_us_from_reading() {
    let (near, far) = tokio::io::duplex(256);
    let target = target("ws", 1);
    let (socket, far) = tokio::join!(
        Socket::upgrade(Box::new(near), &target),
        tokio_tungstenite::accept_async(far)
    );
    let (mut socket, mut far) = (socket.unwrap(), far.unwrap());
    let late = async {
        // Far longer than it takes to fill the pipe with pings that nobody reads.
        tokio::time::sleep(Duration::from_secs(86_400)).await;
        far.feed(Message::text("late")).await.unwrap();
        far.flush().await.unwrap();
    };
    let (received, ()) = tokio::join!(socket.recv(), late);
    assert_eq!(received, Ok(Received::Text("late".to_owned())));
}

#[tokio::test(start_paused = true)]
async fn the_largest_message_passes_and_one_byte_more_does_not() {
    let (mut socket, mut far) = pipe().await;
    for (size, passes) in [(MESSAGE_MAX, true), (MESSAGE_MAX + 1, false)] {
        let say = async {
            let said = far.send(Message::text("x".repeat(size))).await;
            assert!(said.is_ok());
            std::future::pending::<()>().await;
        };
        tokio::select! {
            received = socket.recv() => match received {
                Ok(Received::Text(text)) => assert!(passes && text.len() == size),
                Err(Ended::Violation(got)) => assert!(!passes && got.contains("bytes"), "{got}"),
                other => panic!("{other:?}"),
            },
            () = say => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn broken_frames_end_the_channel() {
    // A masked frame, reserved bits, an unknown opcode, a continuation of nothing, a fragmented ping, no UTF-8.
    for bytes in [
        &b"\x81\x85\0\0\0\0hello"[..],
        b"\xf1\x05hello",
        b"\x83\x05hello",
        b"\x80\x05hello",
        b"\x09\x05hello",
        b"\x81\x02\xc3\x28",
    ] {
        let (mut socket, mut far) = pipe().await;
        far.get_mut().write_all(bytes).await.unwrap();
        let received = socket.recv().await;
        assert!(
            matches!(received, Err(Ended::Violation(_))),
            "{bytes:?}: {received:?}"
        );
    }
}
