use super::*;
use crate::config::secret::Secret;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

const PATIENCE: Duration = Duration::from_secs(10);

fn target(url: &str) -> Target {
    Target::parse_http(url, &[]).unwrap()
}

fn pipe() -> (Box<dyn Stream>, DuplexStream) {
    let (near, far) = duplex(1 << 20);
    (Box::new(near), far)
}

/// The request, up to the end of its body.
async fn hear(far: &mut DuplexStream) -> String {
    let mut heard = String::new();
    loop {
        let mut piece = [0; 1024];
        let n = far.read(&mut piece).await.unwrap();
        heard.push_str(std::str::from_utf8(&piece[..n]).unwrap());
        let Some((head, body)) = heard.split_once("\r\n\r\n") else {
            continue;
        };
        let length = head
            .lines()
            .find_map(|l| l.strip_prefix("content-length: "));
        if body.len() == length.map_or(0, |l| l.parse().unwrap()) {
            return heard;
        }
    }
}

/// Asks `url` and lets the server say `reply`; returns what it heard, and what came of it.
async fn ask(
    url: &str,
    method: Method,
    body: &str,
    reply: &[u8],
) -> (String, Result<Reply, Error>) {
    let (near, mut far) = pipe();
    let target = target(url);
    let request = Request {
        method,
        target: &target,
        headers: &[("content-type", "application/sdp".to_owned())],
        body,
    };
    let server = async {
        let heard = hear(&mut far).await;
        far.write_all(reply).await.unwrap();
        far.shutdown().await.unwrap();
        heard
    };
    tokio::join!(server, exchange(near, &request, PATIENCE))
}

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test(start_paused = true)]
async fn a_request_is_complete_and_its_reply_is_read() {
    let (heard, got) = ask(
        "https://host.example:8443/app/key?a=b&c",
        Method::Post,
        "v=0",
        b"HTTP/1.1 201 Created\r\nLocation: /s/1\r\nLINK: <a>\r\nLink:  <b> \r\nContent-Length: 3\r\n\r\nv=1",
    )
    .await;
    let head = "POST /app/key?a=b&c HTTP/1.1\r\nhost: host.example:8443\r\n";
    assert!(heard.starts_with(head), "{heard}");
    assert!(heard.contains(concat!(
        "user-agent: onair/",
        env!("CARGO_PKG_VERSION"),
        "\r\n"
    )));
    assert!(heard.contains("content-type: application/sdp\r\n"));
    assert!(heard.contains("content-length: 3\r\n"));
    assert!(heard.ends_with("\r\n\r\nv=0"), "{heard}");
    let reply = got.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (201, "v=1"));
    assert_eq!(reply.reason(), "Created");
    assert_eq!(reply.header("location"), Some("/s/1"));
    assert_eq!(reply.headers("link").collect::<Vec<_>>(), ["<a>", "<b>"]);
    assert_eq!(reply.header("etag"), None);
}

#[tokio::test(start_paused = true)]
async fn an_empty_patch_has_a_length_and_an_empty_delete_has_none() {
    let (heard, _) = ask("http://h/", Method::Patch, "", OK).await;
    assert!(heard.contains("content-length: 0\r\n"), "{heard}");
    assert!(
        heard.contains("host: h\r\n"),
        "the default port is not said"
    );
    let (heard, _) = ask("http://[::1]:1/x", Method::Delete, "", OK).await;
    assert!(heard.starts_with("DELETE /x HTTP/1.1\r\nhost: [::1]:1\r\n"));
    assert!(!heard.contains("content-length"), "{heard}");
    let (heard, _) = ask("http://h/x?a=b", Method::Get, "", OK).await;
    assert!(heard.starts_with("GET /x?a=b HTTP/1.1\r\n"), "{heard}");
    assert!(!heard.contains("content-length"), "{heard}");
    let (heard, _) = ask("http://h/x", Method::Put, "", OK).await;
    assert!(heard.starts_with("PUT /x HTTP/1.1\r\n"), "{heard}");
    assert!(heard.contains("content-length: 0\r\n"), "{heard}");
}

#[tokio::test(start_paused = true)]
async fn bodies_come_in_every_framing() {
    for reply in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"[..],
        b"HTTP/1.0 200 OK\r\n\r\nok",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
        OK,
    ] {
        let (_, got) = ask("http://h/", Method::Post, "", reply).await;
        let got = got.unwrap();
        assert_eq!((got.status, got.body.as_str()), (200, "ok"));
    }
}

fn cause(error: &Error) -> Option<io::ErrorKind> {
    match error {
        Error::Failed {
            step: Step::Http,
            source,
            ..
        } => source.as_ref().map(io::Error::kind),
        Error::Failed { .. }
        | Error::CaFile { .. }
        | Error::Proxy { .. }
        | Error::Status { .. }
        | Error::Timeout { .. }
        | Error::Url { .. } => panic!("{error}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_closed_without_a_reply_is_told_from_a_broken_one() {
    for cut in [
        &b""[..],
        b"HTTP/1.1 20",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nok",
    ] {
        let (_, got) = ask("http://h:1/key", Method::Post, "", cut).await;
        let error = got.unwrap_err();
        assert_eq!(cause(&error), Some(io::ErrorKind::UnexpectedEof), "{error}");
        assert!(error.to_string().starts_with("http://h:1: "), "{error}");
        assert!(!error.to_string().contains("key"), "{error}");
    }
    let (_, got) = ask("http://h:1/", Method::Post, "", b"SSH-2.0-OpenSSH_9.2\r\n").await;
    assert_eq!(cause(&got.unwrap_err()), Some(io::ErrorKind::InvalidData));
}

#[tokio::test(start_paused = true)]
async fn a_flood_is_cut_off() {
    let mut head = b"HTTP/1.1 200 OK\r\n".to_vec();
    head.extend((0..1_000).flat_map(|n| format!("x-{n}: {n}\r\n").into_bytes()));
    head.extend(b"\r\n");
    assert!(ask("http://h/", Method::Post, "", &head).await.1.is_err());

    let mut long = b"HTTP/1.1 200 OK\r\nx: ".to_vec();
    long.extend(vec![b'x'; 2 * HEAD_MAX]);
    long.extend(b"\r\n\r\n");
    assert!(ask("http://h/", Method::Post, "", &long).await.1.is_err());

    let mut body = b"HTTP/1.1 200 OK\r\n\r\n".to_vec();
    body.extend(vec![b'x'; BODY_MAX]);
    let whole = ask("http://h/", Method::Post, "", &body).await.1.unwrap();
    assert_eq!(whole.body.len(), BODY_MAX);
    body.push(b'x');
    let error = ask("http://h/", Method::Post, "", &body)
        .await
        .1
        .unwrap_err();
    assert!(
        error.to_string().contains("longer than 4096 KiB"),
        "{error}"
    );
}

#[tokio::test(start_paused = true)]
async fn silence_ends_at_the_deadline_even_amid_a_reply() {
    for begun in [
        &b""[..],
        b"HTTP/1.1 200 OK\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no",
    ] {
        let (near, mut far) = pipe();
        let target = target("http://h/");
        let request = Request {
            method: Method::Post,
            target: &target,
            headers: &[],
            body: "",
        };
        let started = tokio::time::Instant::now();
        let server = async {
            hear(&mut far).await;
            far.write_all(begun).await.unwrap();
        };
        let ((), got) = tokio::join!(server, exchange(near, &request, PATIENCE));
        let error = got.unwrap_err();
        let is_ours = matches!(
            error,
            Error::Timeout {
                step: Step::Http,
                ..
            }
        );
        assert!(is_ours, "{error}");
        assert_eq!(started.elapsed(), PATIENCE);
    }
}

#[tokio::test]
async fn the_dialer_reaches_the_server() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut seen = [0; 5];
        stream.read_exact(&mut seen).await.unwrap();
        stream.write_all(OK).await.unwrap();
        seen
    });
    let trust = crate::config::Trust::default();
    let url = format!("http://127.0.0.1:{port}/");
    let dialer = crate::net::Dialer::new(
        &Secret::new(url.as_str()),
        &trust,
        &crate::config::Proxy::None,
    )
    .unwrap();
    let target = target(&url);
    let request = Request {
        method: Method::Delete,
        target: &target,
        headers: &[],
        body: "",
    };
    let stream = dialer.dial(&target).await.unwrap();
    let reply = exchange(stream, &request, PATIENCE).await.unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, "ok"));
    assert_eq!(&server.await.unwrap(), b"DELET");
}

#[test]
fn retry_after_is_read_in_both_forms_and_capped() {
    let wait = |said: &str, date: Option<&str>| {
        let mut headers = vec![("retry-after".to_owned(), said.to_owned())];
        headers.extend(date.map(|date| ("date".to_owned(), date.to_owned())));
        let reply = Reply::new(503, headers, String::new());
        reply.retry_after().map(|wait| wait.as_secs())
    };
    let date = Some("Fri, 20 Nov 2026 13:09:19 GMT");
    assert_eq!(wait("120", None), Some(120));
    assert_eq!(wait("0", None), Some(0));
    assert_eq!(wait("7200", None), Some(3600));
    assert_eq!(wait("99999999999999999999999", None), Some(3600));
    assert_eq!(wait("Fri, 20 Nov 2026 13:10:00 GMT", date), Some(41));
    assert_eq!(wait("Fri, 20 Nov 2026 13:00:00 GMT", date), Some(0));
    assert_eq!(wait("Fri, 20 Nov 2099 13:00:00 GMT", date), Some(3600));
    for unusable in ["", "-1", "soon", "1.5"] {
        assert_eq!(wait(unusable, date), None, "{unusable}");
    }
    assert_eq!(wait("Fri, 20 Nov 2026 13:10:00 GMT", None), None);
    assert_eq!(Reply::default().retry_after(), None);
}
