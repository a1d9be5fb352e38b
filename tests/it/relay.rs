//! A TURN client of another make than the agent's, over UDP, TCP and TLS: `turn-client-proto` inside, streams cut
//! into messages here.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use onair::lab::tls::Identity;
use rustls::ClientConfig;
use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::AsyncRead;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::net::UdpSocket;
use tokio::time::Instant;
use tokio_rustls::TlsConnector;
use turn_client_proto::api::Transmit;
use turn_client_proto::api::TurnConfig;
use turn_client_proto::api::TurnPollRet;
use turn_client_proto::api::TurnRecvRet;
use turn_client_proto::prelude::*;
use turn_client_proto::udp::TurnClientUdp;
use turn_types::TransportType;
use turn_types::TurnCredentials;

pub(crate) use turn_client_proto::api::TurnEvent;

/// How long a client waits for what should come at once.
const SOON: Duration = Duration::from_secs(5);

/// A byte stream to a TURN server.
pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A way to a TURN server: whole messages, without padding.
pub(crate) enum Line {
    Udp(UdpSocket),
    Stream(Box<dyn Stream>, Vec<u8>),
}

impl Line {
    /// Over UDP, from a socket of its own.
    pub(crate) async fn udp(server: SocketAddr) -> (Self, SocketAddr) {
        let socket = UdpSocket::bind((server.ip(), 0)).await.expect("a socket");
        socket.connect(server).await.expect("a destination");
        let local = socket.local_addr().expect("bound");
        (Self::Udp(socket), local)
    }

    /// Over TCP.
    pub(crate) async fn tcp(server: SocketAddr) -> (Self, SocketAddr) {
        let stream = TcpStream::connect(server).await.expect("a connection");
        let local = stream.local_addr().expect("connected");
        (Self::Stream(Box::new(stream), Vec::new()), local)
    }

    /// Over TLS, trusting the certificate of `identity` alone.
    pub(crate) async fn tls(server: SocketAddr, identity: &Identity) -> (Self, SocketAddr) {
        let stream = TcpStream::connect(server).await.expect("a connection");
        let local = stream.local_addr().expect("connected");
        let stream = secured(stream, identity).await.expect("a TLS handshake");
        (Self::Stream(Box::new(stream), Vec::new()), local)
    }

    /// Sends a message.
    pub(crate) async fn send(&mut self, message: &[u8]) {
        match self {
            Self::Udp(socket) => {
                socket.send(message).await.expect("sent");
            }
            Self::Stream(stream, _) => {
                let mut padded = message.to_vec();
                padded.resize(message.len().next_multiple_of(4), 0);
                // A server that hung up shows when it is listened to.
                stream.write_all(&padded).await.ok();
                stream.flush().await.ok();
            }
        }
    }

    /// The next message; `None` if the server hung up. Safe to cancel.
    pub(crate) async fn recv(&mut self) -> Option<Vec<u8>> {
        match self {
            Self::Udp(socket) => {
                let mut datagram = vec![0; 4_096];
                let length = socket.recv(&mut datagram).await.ok()?;
                datagram.truncate(length);
                Some(datagram)
            }
            Self::Stream(stream, buffer) => loop {
                if let Some(message) = cut(buffer) {
                    return Some(message);
                }
                if stream.read_buf(buffer).await.ok()? == 0 {
                    return None;
                }
            },
        }
    }
}

/// A TLS handshake with whoever has the certificate of `identity`.
pub(crate) async fn secured(
    stream: TcpStream,
    identity: &Identity,
) -> std::io::Result<impl Stream + use<>> {
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(identity.certificate.as_bytes()) {
        roots.add(certificate.expect("PEM")).expect("a certificate");
    }
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("protocol versions")
        .with_root_certificates(roots)
        .with_no_client_auth();
    let name = "localhost".try_into().expect("a name");
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

/// Takes the first message off `buffer`, if it is complete.
fn cut(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let length = usize::from(u16::from_be_bytes([*buffer.get(2)?, *buffer.get(3)?]));
    let length = if buffer[0] >> 6 == 0 {
        length + 20
    } else {
        length + 4
    };
    let padded = length.next_multiple_of(4);
    if buffer.len() < padded {
        return None;
    }
    let mut message: Vec<u8> = buffer.drain(..padded).collect();
    message.truncate(length);
    Some(message)
}

/// What a client met.
#[derive(Debug)]
pub(crate) enum Met {
    Closed,
    Data(SocketAddr, Vec<u8>),
    Event(TurnEvent),
    Nothing,
}

/// A client with its allocation.
pub(crate) struct Client {
    protocol: TurnClientUdp,
    line: Line,
    began: Instant,
    pub(crate) local: SocketAddr,
    pub(crate) relayed: SocketAddr,
}

impl Client {
    /// Allocates at the other end of `line`; the error says what came instead.
    pub(crate) async fn allocate(
        (line, local): (Line, SocketAddr),
        server: SocketAddr,
        (user, password): (&str, &str),
    ) -> Result<Self, String> {
        let config = TurnConfig::new(TurnCredentials::new(user, password));
        let mut client = Self {
            protocol: TurnClientUdp::allocate(local, server, config),
            line,
            began: Instant::now(),
            local,
            relayed: local,
        };
        let met = client.meet(SOON).await;
        let Met::Event(TurnEvent::AllocationCreated(_, relayed)) = met else {
            return Err(format!("{met:?}"));
        };
        client.relayed = relayed;
        Ok(client)
    }

    fn now(&self) -> turn_types::Instant {
        let nanos = self.began.elapsed().as_nanos();
        turn_types::Instant::from_nanos(i64::try_from(nanos).expect("a short test"))
    }

    /// Asks for a permission for the address of `peer`, and waits for it.
    pub(crate) async fn permit(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.protocol
            .create_permission(TransportType::Udp, peer.ip(), now)
            .expect("an allocation");
        let met = self.meet(SOON).await;
        assert!(
            matches!(met, Met::Event(TurnEvent::PermissionCreated(..))),
            "{met:?}"
        );
    }

    /// Binds a channel to `peer`, and waits for it.
    pub(crate) async fn bind_channel(&mut self, peer: SocketAddr) {
        let now = self.now();
        self.protocol
            .bind_channel(TransportType::Udp, peer, now)
            .expect("an allocation");
        loop {
            let met = self.meet(SOON).await;
            if matches!(met, Met::Event(TurnEvent::ChannelCreated(..))) {
                return;
            }
            let refreshed = matches!(met, Met::Event(TurnEvent::PermissionCreated(..)));
            assert!(refreshed, "{met:?}");
        }
    }

    /// Sends `data` to `peer`, by channel if one is bound.
    pub(crate) async fn send(&mut self, peer: SocketAddr, data: &[u8]) {
        let now = self.now();
        let sent = self.protocol.send_to(TransportType::Udp, peer, data, now);
        let transmit = sent.expect("a permission").expect("something to send");
        let message = transmit.build().data;
        self.line.send(&message).await;
    }

    /// Gives the allocation back.
    pub(crate) async fn delete(&mut self) {
        let now = self.now();
        self.protocol.delete(now).expect("an allocation");
        while let Met::Event(_) = self.meet(SOON).await {}
    }

    /// What happens next, within `patience`. Safe to cancel.
    pub(crate) async fn meet(&mut self, patience: Duration) -> Met {
        let until = Instant::now() + patience;
        loop {
            let now = self.now();
            while let Some(transmit) = self.protocol.poll_transmit(now) {
                let message = transmit.data.to_vec();
                self.line.send(&message).await;
            }
            if let Some(event) = self.protocol.poll_event() {
                return Met::Event(event);
            }
            let TurnPollRet::WaitUntil(due) = self.protocol.poll(now) else {
                return Met::Closed;
            };
            let due = Instant::now() + due.duration_since(now);
            // What polling left to send is sent first.
            let due = due.max(Instant::now() + Duration::from_millis(1));
            tokio::select! {
                message = self.line.recv() => {
                    let Some(message) = message else {
                        return Met::Closed;
                    };
                    let (from, to) = (self.protocol.remote_addr(), self.local);
                    let transmit = Transmit::new(message, TransportType::Udp, from, to);
                    let now = self.now();
                    if let TurnRecvRet::PeerData(data) = self.protocol.recv(transmit, now) {
                        return Met::Data(data.peer, data.data().to_vec());
                    }
                }
                () = tokio::time::sleep_until(due.min(until)) => {
                    if Instant::now() >= until {
                        return Met::Nothing;
                    }
                }
            }
        }
    }
}
