//! The lab's proxy by itself: it opens tunnels by `CONNECT`, and refuses whom and what it is told to.

use std::net::SocketAddr;
use std::time::Duration;

use onair::config::secret::Secret;
use onair::lab::proxy::Proxy;
use onair::lab::proxy::ProxyConfig;
use onair::lab::proxy::ProxyCounts;
use onair::lab::proxy::ProxyFault;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;

const SOON: Duration = Duration::from_secs(5);

/// A server that repeats what it hears.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut reader, mut writer) = stream.split();
                tokio::io::copy(&mut reader, &mut writer).await.ok();
            });
        }
    });
    address
}

/// Asks `proxy` and returns the connection with the head of the reply.
async fn ask(proxy: &Proxy, request: &str) -> (TcpStream, String) {
    let mut stream = TcpStream::connect(proxy.address())
        .await
        .expect("connected");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = tokio::time::timeout(SOON, stream.read_u8()).await;
        head.push(byte.expect("in time").expect("a reply"));
    }
    (stream, String::from_utf8(head).expect("text"))
}

fn connect(to: SocketAddr, more: &str) -> String {
    format!("CONNECT {to} HTTP/1.1\r\nHost: {to}\r\n{more}\r\n")
}

async fn until(proxy: &Proxy, wanted: impl FnMut(&ProxyCounts) -> bool) {
    let mut counts = proxy.counts();
    let reached = tokio::time::timeout(SOON, counts.wait_for(wanted)).await;
    assert!(reached.is_ok(), "{:?}", proxy.counts().borrow());
}

#[tokio::test]
async fn a_tunnel_carries_bytes_until_it_is_closed() {
    let (server, proxy) = (echo().await, Proxy::start(ProxyConfig::loopback()).await);
    let proxy = proxy.expect("a proxy");
    let (mut stream, head) = ask(&proxy, &connect(server, "")).await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
    stream.write_all(b"there and back").await.expect("sent");
    let mut back = [0; 14];
    stream.read_exact(&mut back).await.expect("a reply");
    assert_eq!(&back, b"there and back");
    until(&proxy, |counts| counts.tunnels == 1).await;
    drop(stream);
    until(&proxy, |counts| counts.tunnels == 0 && counts.opened == 1).await;
    proxy.stop().await;
}

#[tokio::test]
async fn it_opens_only_to_those_who_know_its_password() {
    let server = echo().await;
    let mut config = ProxyConfig::loopback();
    config.credentials = Some(("Aladdin".to_owned(), Secret::new("open sesame")));
    let proxy = Proxy::start(config).await.expect("a proxy");
    for (more, expected) in [
        ("", "407"),
        ("Proxy-Authorization: Basic QWxhZGRpbjpvcGVu\r\n", "407"),
        (
            "Proxy-Authorization: Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==\r\n",
            "200",
        ),
    ] {
        let (_, head) = ask(&proxy, &connect(server, more)).await;
        assert_eq!(&head[9..12], expected, "{head}");
        assert_eq!(
            head.contains("proxy-authenticate: Basic"),
            expected == "407"
        );
    }
    until(&proxy, |counts| (counts.opened, counts.refused) == (1, 2)).await;
    proxy.stop().await;
}

#[tokio::test]
async fn it_opens_only_to_ports_on_its_list_and_to_servers_that_are_there() {
    let (server, other) = (echo().await, echo().await);
    let free = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        listener.local_addr().expect("bound")
    };
    let mut config = ProxyConfig::loopback();
    config.ports = vec![server.port(), free.port()];
    let proxy = Proxy::start(config).await.expect("a proxy");
    for (request, expected) in [
        (connect(server, ""), "200"),
        (connect(other, ""), "403"),
        (connect(free, ""), "502"),
        ("CONNECT nowhere HTTP/1.1\r\n\r\n".to_owned(), "400"),
        (format!("GET http://{server}/ HTTP/1.1\r\n\r\n"), "405"),
    ] {
        let (_, head) = ask(&proxy, &request).await;
        assert_eq!(&head[9..12], expected, "{request}: {head}");
    }
    proxy.stop().await;
}

#[tokio::test]
async fn it_is_wrong_on_demand() {
    let server = echo().await;
    let proxy = Proxy::start(ProxyConfig::loopback())
        .await
        .expect("a proxy");
    proxy.commit(Some(ProxyFault::Refuse { status: 503 }));
    let (_, head) = ask(&proxy, &connect(server, "")).await;
    assert_eq!(&head[9..12], "503");
    proxy.commit(Some(ProxyFault::Silent));
    let mut stream = TcpStream::connect(proxy.address())
        .await
        .expect("connected");
    let request = connect(server, "");
    stream.write_all(request.as_bytes()).await.expect("sent");
    let silence = tokio::time::timeout(Duration::from_millis(300), stream.read_u8()).await;
    assert!(silence.is_err(), "{silence:?}");
    proxy.commit(None);
    let (_, head) = ask(&proxy, &connect(server, "")).await;
    assert_eq!(&head[9..12], "200");
    proxy.stop().await;
}
