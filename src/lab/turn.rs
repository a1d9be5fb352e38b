//! A TURN server (RFC 8656) over UDP, TCP and TLS, with long-term credentials, real relaying by UDP sockets, and
//! faults on demand.
//!
//! Its protocol is `turn-server-proto`, which shares nothing with the agent's client. Each client is a task of its
//! own (`client`).

mod client;
pub(super) mod embedded;
mod faults;
mod frames;
mod words;

use std::collections::HashMap;
use std::collections::HashSet;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use serde::Serialize;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::secret::Secret;

pub use self::faults::TurnFault;

use self::client::Client;
use self::client::Outlet;
use super::tls;
use super::tls::Acceptor;
use super::tls::Identity;

/// Clients at a time, per listener.
const CLIENTS: usize = 64;
/// Messages of a client, or to a client, that may wait.
const WAITING: usize = 256;
/// Longest datagram that is read.
const DATAGRAM: usize = 4_096;
/// How long [`TurnServer::stop`] waits for its tasks.
const STOP: Duration = Duration::from_secs(5);

/// How a TURN server is set up.
#[derive(Clone, Debug)]
pub struct TurnConfig {
    /// Where it listens for UDP, if it does.
    pub udp: Option<SocketAddr>,
    /// Where it listens for TCP, if it does.
    pub tcp: Option<SocketAddr>,
    /// Where it listens for TLS, if it does; it needs an `identity` then.
    pub tls: Option<SocketAddr>,
    /// The certificate of TLS.
    pub identity: Option<Identity>,
    /// Address of the sockets that relay; one of this machine.
    pub relay_ip: IpAddr,
    /// The one user there is.
    pub username: String,
    /// Its password.
    pub password: Secret,
    /// Realm of the credentials.
    pub realm: String,
    /// What is wrong from the start.
    pub fault: Option<TurnFault>,
}

impl TurnConfig {
    /// UDP and TCP on free ports of loopback, and TLS too if there is an `identity`.
    pub fn loopback(identity: Option<Identity>) -> Self {
        let free = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
        Self {
            udp: Some(free),
            tcp: Some(free),
            tls: identity.as_ref().map(|_| free),
            identity,
            relay_ip: free.ip(),
            username: "lab".to_owned(),
            password: Secret::new("relayed"),
            realm: "lab.invalid".to_owned(),
            fault: None,
        }
    }
}

/// Why a TURN server could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Caused by a certificate or key that cannot be used.
    #[error("the TURN server's certificate cannot be used")]
    Identity(#[from] tls::Error),
    /// Caused by an address that is in use or is not this machine's.
    #[error("the TURN server cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Caused by an address for TLS without a certificate.
    #[error("the TURN server has no certificate for TLS")]
    NoIdentity,
}

/// What a TURN server has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct TurnCounts {
    /// Allocations that stand.
    pub allocations: usize,
    /// Allocations that were ever made.
    pub allocated: u64,
    /// Allocations that were prolonged.
    pub refreshed: u64,
    /// Bytes of data relayed in both directions.
    pub relayed_bytes: u64,
}

/// What all clients share.
#[derive(Debug)]
struct Shared {
    relay_ip: IpAddr,
    username: String,
    password: Secret,
    realm: String,
    fault: Mutex<Option<TurnFault>>,
    counts: watch::Sender<TurnCounts>,
    relays: Mutex<HashSet<SocketAddr>>,
}

impl Shared {
    fn fault(&self) -> Option<TurnFault> {
        *self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn relays(&self) -> MutexGuard<'_, HashSet<SocketAddr>> {
        self.relays.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self, change: impl FnOnce(&mut TurnCounts)) {
        self.counts.send_modify(change);
    }
}

/// What others may know of a running TURN server, and tell it. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) struct Handle(Arc<Shared>);

impl Handle {
    /// Whether packets from `address` were relayed.
    pub(super) fn relays_at(&self, address: SocketAddr) -> bool {
        self.0.relays().contains(&address)
    }

    /// What it has done.
    pub(super) fn counts(&self) -> TurnCounts {
        *self.0.counts.borrow()
    }

    /// See [`TurnServer::commit`].
    pub(super) fn commit(&self, fault: Option<TurnFault>) {
        *self.0.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }
}

/// A running TURN server. Dropped without [`TurnServer::stop`], it stops without waiting.
#[derive(Debug)]
pub struct TurnServer {
    shared: Arc<Shared>,
    udp: Option<SocketAddr>,
    tcp: Option<SocketAddr>,
    tls: Option<SocketAddr>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl TurnServer {
    /// Starts a TURN server on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// If one of the addresses cannot be listened on, or the certificate cannot be used.
    pub async fn start(config: TurnConfig) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            relay_ip: config.relay_ip,
            username: config.username,
            password: config.password,
            realm: config.realm,
            fault: Mutex::new(config.fault),
            counts: watch::Sender::default(),
            relays: Mutex::default(),
        });
        let mut server = Self {
            shared,
            udp: None,
            tcp: None,
            tls: None,
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        if let Some(address) = config.udp {
            let failed = |source| Error::Listen { address, source };
            let socket = UdpSocket::bind(address).await.map_err(failed)?;
            let local = socket.local_addr().map_err(failed)?;
            server.udp = Some(local);
            let entrance = server.entrance(local);
            server.tasks.spawn(entrance.datagrams(socket));
        }
        if let Some(address) = config.tcp {
            let (local, listener) = listen(address).await?;
            server.tcp = Some(local);
            let entrance = server.entrance(local);
            server.tasks.spawn(entrance.streams(listener, None));
        }
        if let Some(address) = config.tls {
            let identity = config.identity.as_ref().ok_or(Error::NoIdentity)?;
            let acceptor = Acceptor::new(identity)?;
            let (local, listener) = listen(address).await?;
            server.tls = Some(local);
            let entrance = server.entrance(local);
            server
                .tasks
                .spawn(entrance.streams(listener, Some(acceptor)));
        }
        Ok(server)
    }

    fn entrance(&self, local: SocketAddr) -> Entrance {
        Entrance {
            shared: Arc::clone(&self.shared),
            local,
            tasks: self.tasks.clone(),
            stop: self.stop.clone(),
        }
    }

    /// Where it listens for UDP.
    pub const fn udp(&self) -> Option<SocketAddr> {
        self.udp
    }

    /// Where it listens for TCP.
    pub const fn tcp(&self) -> Option<SocketAddr> {
        self.tcp
    }

    /// Where it listens for TLS.
    pub const fn tls(&self) -> Option<SocketAddr> {
        self.tls
    }

    pub(super) fn handle(&self) -> Handle {
        Handle(Arc::clone(&self.shared))
    }

    /// Its URLs, as an operator would configure them: UDP, TCP, TLS, as far as it has them.
    pub fn urls(&self) -> Vec<String> {
        let udp = self.udp.map(|at| format!("turn:{at}?transport=udp"));
        let tcp = self.tcp.map(|at| format!("turn:{at}?transport=tcp"));
        let tls = self.tls.map(|at| format!("turns:{at}?transport=tcp"));
        [udp, tcp, tls].into_iter().flatten().collect()
    }

    /// Commits `fault` from now on, at running clients too; `None` ends all wrong.
    pub fn commit(&self, fault: Option<TurnFault>) {
        self.handle().commit(fault);
    }

    /// What it has done; the receiver sees it change.
    pub fn counts(&self) -> watch::Receiver<TurnCounts> {
        self.shared.counts.subscribe()
    }

    /// Stops: sockets and connections are cut. Returns once everything has ended, after 5 seconds at most.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("clients of the TURN server did not end in time");
        }
    }
}

impl Drop for TurnServer {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One of the server's addresses, and who comes in there.
#[derive(Clone)]
struct Entrance {
    shared: Arc<Shared>,
    local: SocketAddr,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Entrance {
    /// Everyone who comes by UDP.
    async fn datagrams(self, socket: UdpSocket) {
        let socket = Arc::new(socket);
        let mut clients: HashMap<SocketAddr, mpsc::Sender<Vec<u8>>> = HashMap::new();
        let mut datagram = vec![0; DATAGRAM];
        loop {
            let received = tokio::select! {
                received = socket.recv_from(&mut datagram) => received,
                () = self.stop.cancelled() => return,
            };
            // An error here is an ICMP message about an earlier packet of ours.
            let Ok((length, address)) = received else {
                continue;
            };
            let message = datagram[..length].to_vec();
            let message = match clients.get(&address).map(|client| client.try_send(message)) {
                Some(Err(TrySendError::Closed(message))) => message,
                Some(Ok(()) | Err(TrySendError::Full(_))) => continue,
                None => datagram[..length].to_vec(),
            };
            clients.retain(|_, client| !client.is_closed());
            if clients.len() >= CLIENTS {
                continue;
            }
            let (inbox, messages) = mpsc::channel(WAITING);
            // The channel is empty, and its other end is below.
            inbox.try_send(message).ok();
            clients.insert(address, inbox);
            let outlet = Outlet::Datagrams(Arc::clone(&socket));
            let client = Client::new(Arc::clone(&self.shared), self.local, address, outlet);
            let stop = self.stop.clone();
            self.tasks
                .spawn(async move { client.run(messages, &stop).await });
        }
    }

    /// Everyone who comes by TCP, or by TLS if there is an `acceptor`.
    async fn streams(self, listener: TcpListener, acceptor: Option<Acceptor>) {
        let places = Arc::new(Semaphore::new(CLIENTS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let (stream, address) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of file descriptors, or a connection reset before it was accepted: either passes.
                    tracing::warn!(%error, "a connection to the TURN server was not accepted");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            // A small message is not to wait for the acknowledgement of the one before it.
            stream.set_nodelay(true).ok();
            let (entrance, acceptor) = (self.clone(), acceptor.clone());
            self.tasks.spawn(async move {
                match acceptor {
                    None => entrance.stream(stream, address).await,
                    Some(acceptor) => {
                        if let Some(stream) = acceptor.accept(stream).await {
                            entrance.stream(stream, address).await;
                        }
                    }
                }
                drop(place);
            });
        }
    }

    async fn stream<S>(self, stream: S, address: SocketAddr)
    where
        S: AsyncRead + AsyncWrite,
    {
        let (mut reader, mut writer) = tokio::io::split(stream);
        let (inbox, messages) = mpsc::channel(WAITING);
        let (outbox, mut replies) = mpsc::channel::<Vec<u8>>(WAITING);
        let reading = async move {
            // What is no TURN ends the connection, as its end does.
            while let Ok(Some(message)) = frames::read(&mut reader).await {
                if inbox.send(message).await.is_err() {
                    return;
                }
            }
        };
        let writing = async move {
            while let Some(reply) = replies.recv().await {
                if writer.write_all(&reply).await.is_err() || writer.flush().await.is_err() {
                    return;
                }
            }
        };
        let outlet = Outlet::Stream(outbox);
        let client = Client::new(Arc::clone(&self.shared), self.local, address, outlet);
        tokio::select! {
            ((), ()) = async { tokio::join!(reading, client.run(messages, &self.stop)) } => {}
            () = writing => {}
        }
    }
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}
