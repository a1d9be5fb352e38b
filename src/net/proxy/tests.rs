//! Tunnels through a proxy on loopback, each refusal, and who is asked for which server.

use tokio::io::{AsyncRead, AsyncWrite, DuplexStream};
use tokio::net::TcpListener;

use super::*;
use crate::config::secret::Secret;
use crate::config::{Proxy as Configured, Trust};
use crate::net::tls::tests::server as certified;
use crate::net::{Dialer, Target};

fn dialer_with(trust: &Trust, proxy: &Configured) -> Result<Dialer, Error> {
    Dialer::new(&Secret::new("wss://server.example/"), trust, proxy)
}

fn endpoint(host: &str, port: u16) -> Endpoint {
    Endpoint::new("wss", host, port)
}

fn variables(https: &str, all: &str, no: &str) -> Proxies {
    Proxies::of(&Variables {
        https: https.to_owned(),
        all: all.to_owned(),
        no: no.to_owned(),
    })
}

fn configured(url: &str) -> Proxies {
    Proxies::new(&Configured::Url(Secret::new(url))).unwrap()
}

/// The proxy before `host`, as text.
fn before(proxies: &Proxies, host: &str) -> Option<String> {
    let proxy = proxies.towards(&endpoint(host, 3334));
    proxy.map(|proxy| proxy.address.to_string())
}

#[test]
fn the_environment_says_who_goes_through_which_proxy() {
    let some = |text: &str| Some(text.to_owned());
    let none = variables("", "", "");
    assert_eq!(before(&none, "a.example"), None);
    let both = variables("http://p.example:3128", "https://all.example", "");
    assert_eq!(before(&both, "a.example"), some("http://p.example:3128"));
    assert_eq!(before(&both, "127.0.0.1"), some("http://p.example:3128"));
    let all = variables("", "https://all.example", "");
    assert_eq!(before(&all, "a.example"), some("https://all.example:443"));
    let bare = variables("p.example:3128", "", "");
    assert_eq!(before(&bare, "a.example"), some("http://p.example:3128"));
    let v6 = variables("http://[fd00::1]:3128", "", "");
    assert_eq!(before(&v6, "a.example"), some("http://[fd00::1]:3128"));
    let broken = variables("http://", "", "");
    assert_eq!(before(&broken, "a.example"), None);
}

#[test]
fn no_proxy_names_hosts_suffixes_and_networks() {
    let proxies = variables(
        "http://p.example:3128",
        "",
        "localhost, .inner.example,10.0.0.0/8,fd00::/8,192.0.2.7",
    );
    for direct in [
        "localhost",
        "a.inner.example",
        "inner.example",
        "10.1.2.3",
        "fd00::9",
        "192.0.2.7",
    ] {
        assert_eq!(before(&proxies, direct), None, "{direct}");
    }
    for through in [
        "inner.example.com",
        "minner.example",
        "11.1.2.3",
        "2001:db8::1",
        "192.0.2.8",
        "127.0.0.1",
    ] {
        assert!(before(&proxies, through).is_some(), "{through}");
    }
    assert_eq!(before(&variables("http://p", "", "*"), "a.example"), None);
}

#[test]
fn a_configured_proxy_stands_before_everything_and_none_before_nothing() {
    let proxies = configured("http://u:p@p.example:3128/");
    for host in ["a.example", "127.0.0.1", "::1"] {
        assert_eq!(
            before(&proxies, host),
            Some("http://p.example:3128".to_owned())
        );
    }
    let none = Proxies::new(&Configured::None).unwrap();
    assert_eq!(before(&none, "a.example"), None);
}

#[test]
fn an_unusable_proxy_is_refused_without_repeating_it() {
    for url in [
        "http://",
        "ftp://planted:1",
        "http://planted:99999",
        "http://planted planted",
    ] {
        let Err(error) = Proxies::new(&Configured::Url(Secret::new(url))) else {
            panic!("{url}")
        };
        assert!(!error.to_string().contains("planted"), "{error}");
    }
}

/// Asks for a tunnel to `server.example:443` of a proxy that answers `reply`: what was asked, and what came of it.
async fn asked(
    url: &str,
    reply: &[u8],
) -> (String, Result<(Box<dyn Stream>, DuplexStream), Error>) {
    let proxy = configured(url)
        .towards(&endpoint("server.example", 443))
        .unwrap();
    let (near, mut far) = tokio::io::duplex(64 << 10);
    let server = async {
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(far.read_u8().await.unwrap());
        }
        far.write_all(reply).await.unwrap();
        if !reply.starts_with(b"HTTP/1.1 2") && !reply.starts_with(b"HTTP/1.1 1") {
            far.shutdown().await.unwrap();
        }
        (String::from_utf8(asked).unwrap(), far)
    };
    let to = endpoint("server.example", 443);
    let (result, (asked, far)) = tokio::join!(proxy.tunnel(&to, Box::new(near)), server);
    (asked, result.map(|stream| (stream, far)))
}

#[tokio::test]
async fn a_tunnel_is_asked_for_with_credentials_and_begins_behind_the_head() {
    let (asked, tunnel) = asked(
        "http://Aladdin:open%20sesame@p.example:3128",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly",
    )
    .await;
    assert_eq!(
        asked,
        format!(
            "CONNECT server.example:443 HTTP/1.1\r\nHost: server.example:443\r\nUser-Agent: {USER_AGENT}\r\n\
             Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n\r\n"
        )
    );
    let (mut stream, mut far) = tunnel.unwrap();
    far.write_all(b" late").await.unwrap();
    let mut got = [0; 10];
    stream.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"early late");
    stream.write_all(b"up").await.unwrap();
    let mut got = [0; 2];
    far.read_exact(&mut got).await.unwrap();
    assert_eq!(&got, b"up");
}

#[tokio::test]
async fn no_credentials_are_sent_where_none_are_set() {
    let (asked, tunnel) = asked(
        "http://p.example:3128",
        b"HTTP/1.0 200 Connection established\r\n\r\n",
    )
    .await;
    assert!(!asked.contains("Authorization"), "{asked}");
    assert!(tunnel.is_ok());
}

#[tokio::test]
async fn a_refusal_names_proxy_status_and_what_to_do() {
    for (reply, status, advice) in [
        (
            &b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"[..],
            407,
            "credentials",
        ),
        (
            b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnope",
            403,
            "forbids",
        ),
        (b"HTTP/1.1 502\r\n\r\n", 502, "cannot reach the server"),
        (
            b"HTTP/1.0 504 Gateway Timeout\r\n\r\n",
            504,
            "cannot reach the server",
        ),
        (
            b"HTTP/1.1 302 Found\r\nLocation: http://portal\r\n\r\n",
            302,
            "redirects",
        ),
        (b"HTTP/1.1 405 no\n\n", 405, "CONNECT"),
    ] {
        let (_, tunnel) = asked("http://planted:planted@p.example:3128", reply).await;
        let Err(error) = tunnel else {
            panic!("{status}")
        };
        assert!(
            matches!(error, Error::Proxy { status: s, .. } if s == status),
            "{error:?}"
        );
        assert_eq!(error.step(), Some(Step::Proxy));
        let told = error.to_string();
        let begins = format!(
            "wss://server.example:443: connecting through the proxy http://p.example:3128 failed: HTTP status {status}: "
        );
        assert!(told.starts_with(&begins) && told.contains(advice), "{told}");
        assert!(!format!("{error} {error:?}").contains("planted"));
    }
}

#[tokio::test]
async fn what_is_no_proxy_is_named() {
    for (reply, says) in [
        (&b""[..], "hung up"),
        (b"HTTP/1.1 200 OK\r\n", "hung up"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "no HTTP proxy"),
        (b"HTTP/2 200\r\n\r\n", "no HTTP proxy"),
        (b"HTTP/1.1 20\r\n\r\n", "no HTTP proxy"),
        (b"HTTP/1.1 2000\r\n\r\n", "no HTTP proxy"),
        (b"HTTP/1.1 \xff\xff\xff\r\n\r\n", "no HTTP proxy"),
        (b"\x15\x03\x01\x00\x02\x02\x46\n\n", "no HTTP proxy"),
    ] {
        let proxy = configured("http://p.example:3128")
            .towards(&endpoint("s", 443))
            .unwrap();
        let (near, mut far) = tokio::io::duplex(64 << 10);
        far.write_all(reply).await.unwrap();
        far.shutdown().await.unwrap();
        let Err(error) = proxy.tunnel(&endpoint("s", 443), Box::new(near)).await else {
            panic!("{reply:?}")
        };
        assert_eq!(error.step(), Some(Step::Proxy));
        let told = error.to_string();
        assert!(
            told.contains("http://p.example:3128") && told.contains(says),
            "{told}"
        );
    }
}

#[tokio::test]
async fn an_endless_answer_is_refused() {
    for piece in [
        &b"HTTP/1.1 100 Continue\r\n\r\n"[..],
        b"xxxxxxxxxxxxxxxxxxxx",
        b"X: yza\r\n",
    ] {
        let proxy = configured("http://p.example:3128")
            .towards(&endpoint("s", 443))
            .unwrap();
        let (near, mut far) = tokio::io::duplex(1024);
        let flood = async {
            while far.write_all(piece).await.is_ok() {}
            std::future::pending::<()>().await;
        };
        let to = endpoint("s", 443);
        tokio::select! {
            result = proxy.tunnel(&to, Box::new(near)) => {
                let told = result.map(|_| ()).unwrap_err().to_string();
                assert!(told.contains("its answer has no end"), "{told}");
            }
            () = flood => {}
        }
    }
}

#[tokio::test]
async fn a_socks_proxy_is_refused_by_name() {
    let proxy = variables("", "socks5://u:planted@p.example:1080", "")
        .towards(&endpoint("server.example", 443))
        .unwrap();
    let tls = Tls::new(None, &Trust::default()).unwrap();
    let Err(error) = proxy.connect(&endpoint("server.example", 443), &tls).await else {
        panic!("connected")
    };
    let told = format!("{error} {error:?}");
    assert!(
        told.contains("speaks SOCKS") && !told.contains("planted"),
        "{told}"
    );
}

#[tokio::test]
async fn an_unreachable_proxy_is_named_beside_the_server() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = Configured::Url(Secret::new(format!("http://u:planted@127.0.0.1:{port}")));
    let dialer = dialer_with(&Trust::default(), &url).unwrap();
    let target = Target::parse("wss://server.example/planted", &[]).unwrap();
    let Err(error) = dialer.dial(&target).await else {
        panic!("connected")
    };
    assert_eq!(error.step(), Some(Step::Proxy));
    let told = error.to_string();
    let begins = format!(
        "wss://server.example:443: connecting through the proxy failed: http://127.0.0.1:{port}: connecting over TCP failed"
    );
    assert!(told.starts_with(&begins), "{told}");
    assert!(!format!("{error:?}").contains("planted"));
}

#[tokio::test(start_paused = true)]
async fn a_silent_proxy_is_given_up_after_its_deadline() {
    let proxy = configured("http://p.example:3128")
        .towards(&endpoint("s", 443))
        .unwrap();
    let (near, _far) = tokio::io::duplex(1024);
    let to = endpoint("s", 443);
    let error = within(
        &to,
        Step::Proxy,
        CONNECT_DEADLINE,
        proxy.tunnel(&to, Box::new(near)),
    )
    .await
    .map(|_| ())
    .unwrap_err();
    assert_eq!(
        error.to_string(),
        "wss://s:443: connecting through the proxy took longer than 15 s"
    );
}

/// A real proxy on loopback: one connection, one tunnel to wherever it is asked.
async fn proxy_once(listener: TcpListener) -> String {
    let (client, _) = listener.accept().await.unwrap();
    tunneled(client).await
}

async fn tunneled(mut client: impl AsyncRead + AsyncWrite + Unpin) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await.unwrap());
    }
    let head = String::from_utf8(head).unwrap();
    let to = head.split(' ').nth(1).unwrap();
    let mut server = tokio::net::TcpStream::connect(to).await.unwrap();
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await.unwrap();
    tokio::io::copy_bidirectional(&mut client, &mut server)
        .await
        .unwrap();
    to.to_owned()
}

#[tokio::test]
async fn plain_targets_and_bare_tcp_go_through_the_proxy_too() {
    for scheme in ["ws", "http", "tcp"] {
        let proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", proxy.local_addr().unwrap());
        let dialer = dialer_with(&Trust::default(), &Configured::Url(Secret::new(url))).unwrap();
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = server.local_addr().unwrap().port();
        let talk = async {
            let url = format!("{scheme}://127.0.0.1:{port}/path");
            let mut stream = match scheme {
                "ws" => dialer
                    .dial(&Target::parse(&url, &[]).unwrap())
                    .await
                    .unwrap(),
                "http" => dialer
                    .dial(&Target::parse_http(&url, &[]).unwrap())
                    .await
                    .unwrap(),
                _ => dialer.tcp("127.0.0.1", port).await.unwrap(),
            };
            stream.write_all(b"hello").await.unwrap();
            stream.shutdown().await.unwrap();
            let mut reply = String::new();
            stream.read_to_string(&mut reply).await.unwrap();
            reply
        };
        let serve = async {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            stream
                .write_all(said.to_uppercase().as_bytes())
                .await
                .unwrap();
            stream.shutdown().await.unwrap();
        };
        let (reply, (), asked) = tokio::join!(talk, serve, proxy_once(proxy));
        assert_eq!(reply, "HELLO");
        assert_eq!(asked, format!("127.0.0.1:{port}"));
        assert!(dialer.proxied("127.0.0.1", port));
    }
}

#[tokio::test]
async fn tls_goes_through_a_proxy_that_is_reached_by_tls() {
    let (proxy, server) = (
        certified("localhost", (2020, 2099)),
        certified("localhost", (2020, 2099)),
    );
    let authorities = [&proxy, &server].map(|s| std::fs::read_to_string(&s.ca_file).unwrap());
    std::fs::write(&proxy.ca_file, authorities.concat()).unwrap();
    let trust = Trust {
        ca_file: Some(proxy.ca_file.clone()),
        ..Trust::default()
    };
    for scheme in ["wss", "https", "tls"] {
        let at_proxy = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at_server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let proxy_port = at_proxy.local_addr().unwrap().port();
        let port = at_server.local_addr().unwrap().port();
        let url = Secret::new(format!("https://localhost:{proxy_port}"));
        let dialer = dialer_with(&trust, &Configured::Url(url)).unwrap();
        let talk = async {
            let url = format!("{scheme}://localhost:{port}/path");
            let mut stream = match scheme {
                "wss" => dialer
                    .dial(&Target::parse(&url, &[]).unwrap())
                    .await
                    .unwrap(),
                "https" => dialer
                    .dial(&Target::parse_http(&url, &[]).unwrap())
                    .await
                    .unwrap(),
                _ => dialer.tls("localhost", port, "localhost").await.unwrap(),
            };
            stream.write_all(b"hello").await.unwrap();
            stream.flush().await.unwrap();
            let mut reply = [0; 5];
            stream.read_exact(&mut reply).await.unwrap();
            reply
        };
        let serve = async {
            let (stream, _) = at_server.accept().await.unwrap();
            let mut stream = server.acceptor.accept(stream).await.unwrap();
            let mut said = [0; 5];
            stream.read_exact(&mut said).await.unwrap();
            said.make_ascii_uppercase();
            stream.write_all(&said).await.unwrap();
            stream.flush().await.unwrap();
            // Until the other side has gone.
            let mut rest = Vec::new();
            _ = stream.read_to_end(&mut rest).await;
        };
        let forward = async {
            let (client, _) = at_proxy.accept().await.unwrap();
            tunneled(proxy.acceptor.accept(client).await.unwrap()).await
        };
        tokio::select! {
            reply = talk => assert_eq!(&reply, b"HELLO"),
            ended = async { tokio::join!(serve, forward) } => panic!("{ended:?}"),
        }
    }
}

proptest::proptest! {
    #[test]
    fn any_head_is_read_or_refused(head: Vec<u8>) {
        if let Some(status) = status(&head) {
            proptest::prop_assert!((100..1000).contains(&status));
        }
    }
}
