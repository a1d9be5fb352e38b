//! TURN servers: reached over UDP, TCP or TLS, raced, asked for an allocation, and served until it is over.
//!
//! [`serve`] is the task behind one rung's relay. It does nothing before the rung's turn has come, gives up once another
//! has won, and releases what it holds when the connection closes. Why it failed is a fact of the rung.

mod allocation;
mod frames;

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, Bytes, BytesMut};
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use rtc::crypto::RTCCryptoProvider;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, ReadHalf, WriteHalf};
use tokio::net::UdpSocket;
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;

use crate::config::ice_server::{IceKind, IceServer};
use crate::config::secret::Secret;
use crate::net::{Dialer, Stream};

use super::ladder::Rung;
use super::relay::Relay;
use super::wires::Wires;

pub(super) use allocation::xor_address;
use allocation::{Allocation, Output};
use frames::Frames;

/// Head start of one server, or one address of it, over the next.
const STAGGER: Duration = Duration::from_millis(100);

/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(5);

/// Most addresses of one name that are tried.
const MOST_ADDRESSES: usize = 4;

/// How often a server may send us to another one.
const HOPS: usize = 3;

/// How long giving an allocation back may take.
const RELEASE: Duration = Duration::from_millis(300);

/// Bytes handed to a stream at a time, so that the queue keeps what is to be dropped.
const AT_ONCE: usize = 16 * 1024;

/// Longest datagram from a TURN server.
const DATAGRAM: usize = 2_048;

/// The rung of a kind of server; `None` for STUN.
pub(super) const fn rung(kind: IceKind) -> Option<Rung> {
    match kind {
        IceKind::Stun => None,
        IceKind::TurnUdp => Some(Rung::TurnUdp),
        IceKind::TurnTcp => Some(Rung::TurnTcp),
        IceKind::TurnTls => Some(Rung::TurnTls),
    }
}

/// Keeps `relay` working: each time TURN servers become known they are raced, and the first that allocates is used.
pub(super) async fn serve(relay: Arc<Relay>, wires: Arc<Wires>, given_up: CancellationToken) {
    let mut tried = 0;
    loop {
        let changed = wires.changed.notified();
        let servers: Vec<IceServer> = wires.servers(relay.rung).split_off(tried);
        if servers.is_empty() || !wires.runs(relay.rung) {
            tokio::select! {
                () = changed => continue,
                () = given_up.cancelled() => return,
            }
        }
        tried += servers.len();
        let reaching = async {
            match rtc::crypto::default_provider() {
                Ok(crypto) => first_of(allocations(servers, &wires.dialer, &crypto)).await,
                Err(error) => Err(error.to_string()),
            }
        };
        let reached = tokio::select! {
            reached = reaching => reached,
            () = wires.beaten(relay.rung) => return,
            () = given_up.cancelled() => return,
        };
        let why = match reached {
            Ok((mut standing, relayed)) => {
                tracing::debug!(rung = %relay.rung, %relayed, "a relay stands");
                relay.stands(Some(standing.line.leaves_from()));
                wires.relayed(relay.rung, relayed);
                let ended = standing.carry(&relay, &wires, &given_up).await;
                relay.stands(None);
                drop(standing);
                while let Some((_, packet)) = relay.outbound.pop() {
                    if relay.rung != Rung::TurnUdp {
                        wires.backlog.written(packet.len());
                    }
                }
                match ended {
                    Some(why) => why,
                    None => return,
                }
            }
            Err(why) => why,
        };
        tracing::debug!(rung = %relay.rung, why, "no relay");
        wires.failed(relay.rung, why);
    }
}

/// Asks for an allocation as a connection does, and gives it back at once. The error says why there is none, without secrets.
/// Bounded by the deadlines of [`Dialer`] and some seconds for each server.
pub async fn try_out(servers: Vec<IceServer>, dialer: &Dialer) -> Result<(), String> {
    let crypto = rtc::crypto::default_provider().map_err(|error| error.to_string())?;
    first_of(allocations(servers, dialer, &crypto))
        .await
        .map(drop)
}

type Attempt<'a, T> = Pin<Box<dyn Future<Output = Result<T, String>> + Send + 'a>>;

/// Runs attempts, each with a head start over the next, until one succeeds; else the first reason.
async fn first_of<T>(attempts: Vec<Attempt<'_, T>>) -> Result<T, String> {
    let mut waiting = attempts.into_iter();
    let mut running = FuturesUnordered::new();
    let mut why = None;
    running.extend(waiting.next());
    while !running.is_empty() {
        tokio::select! {
            Some(ended) = running.next() => match ended {
                Ok(success) => return Ok(success),
                Err(error) => {
                    why.get_or_insert(error);
                    running.extend(waiting.next());
                }
            },
            () = sleep(STAGGER), if waiting.len() > 0 => running.extend(waiting.next()),
        }
    }
    Err(why.unwrap_or_else(|| "the name has no address".to_owned()))
}

fn allocations<'a>(
    servers: Vec<IceServer>,
    dialer: &'a Dialer,
    crypto: &'a Arc<dyn RTCCryptoProvider>,
) -> Vec<Attempt<'a, (Standing, SocketAddr)>> {
    let attempt = |server: IceServer| {
        Box::pin(async move {
            let why = |why| format!("{}: {why}", server.url);
            let url = &server.url;
            match url.kind {
                IceKind::Stun => Err(why("no TURN server".to_owned())),
                IceKind::TurnTcp | IceKind::TurnTls => {
                    let (host, port) = (url.host.clone(), url.port);
                    allocate(&server, host, port, dialer, crypto).await
                }
                IceKind::TurnUdp => {
                    let host = (url.host.as_str(), url.port);
                    let found = timeout(LOOKUP, tokio::net::lookup_host(host)).await;
                    let addresses = match found {
                        Ok(Ok(addresses)) => addresses.take(MOST_ADDRESSES),
                        Ok(Err(error)) => return Err(why(format!("looking up the name: {error}"))),
                        Err(_) => return Err(why("the name service does not answer".to_owned())),
                    };
                    let attempts = addresses.map(|address| {
                        let (host, port) = (address.ip().to_string(), address.port());
                        Box::pin(allocate(&server, host, port, dialer, crypto)) as Attempt<'_, _>
                    });
                    first_of(attempts.collect()).await
                }
            }
            .map_err(why)
        }) as Attempt<'_, _>
    };
    servers.into_iter().map(attempt).collect()
}

/// Reaches a server and asks for an allocation, there or where it sends us.
async fn allocate(
    server: &IceServer,
    mut host: String,
    mut port: u16,
    dialer: &Dialer,
    crypto: &Arc<dyn RTCCryptoProvider>,
) -> Result<(Standing, SocketAddr), String> {
    let mut name = server.url.host.clone();
    for _ in 0..=HOPS {
        let line = Line::reach(server.url.kind, &host, port, &name, dialer).await?;
        let now = Instant::now().into_std();
        let allocation = Allocation::new(
            Arc::clone(crypto),
            &server.username,
            &server.credential,
            server.url.kind != IceKind::TurnUdp,
            now,
        );
        let mut standing = Standing { line, allocation };
        match standing.begin().await? {
            Ok(relayed) => return Ok((standing, relayed)),
            // The transport stays, and so does its security.
            Err((other, domain)) => {
                (host, port) = (other.ip().to_string(), other.port());
                name = domain.unwrap_or(name);
            }
        }
    }
    Err("it goes on sending us to other servers".to_owned())
}

/// The way to a TURN server.
enum Line {
    Datagrams {
        socket: UdpSocket,
        buffer: Vec<u8>,
        leaves_from: IpAddr,
    },
    Stream {
        read: ReadHalf<Box<dyn Stream>>,
        write: WriteHalf<Box<dyn Stream>>,
        frames: Frames,
        unsent: BytesMut,
        /// What TLS has encrypted may not be out.
        unflushed: bool,
        leaves_from: IpAddr,
    },
}

impl Line {
    async fn reach(
        kind: IceKind,
        host: &str,
        port: u16,
        name: &str,
        dialer: &Dialer,
    ) -> Result<Self, String> {
        let stream = match kind {
            IceKind::Stun | IceKind::TurnUdp => {
                let said = |error: std::io::Error| error.to_string();
                let ip: IpAddr = host.parse().map_err(|_| "no address".to_owned())?;
                let any: SocketAddr = match ip.is_ipv4() {
                    true => (std::net::Ipv4Addr::UNSPECIFIED, 0).into(),
                    false => (std::net::Ipv6Addr::UNSPECIFIED, 0).into(),
                };
                let socket = UdpSocket::bind(any).await.map_err(said)?;
                socket.connect((ip, port)).await.map_err(said)?;
                // Before tokio has seen it writable, nothing can be sent without waiting.
                socket.writable().await.map_err(said)?;
                let buffer = vec![0; DATAGRAM];
                return Ok(Self::Datagrams {
                    leaves_from: socket.local_addr().map_err(said)?.ip(),
                    socket,
                    buffer,
                });
            }
            IceKind::TurnTcp => dialer.tcp(host, port).await,
            IceKind::TurnTls => dialer.tls(host, port, name).await,
        };
        let stream = stream.map_err(|error| error.to_string())?;
        let leaves_from = stream.leaves_from().ok_or("the connection is gone")?;
        let (read, write) = tokio::io::split(stream);
        Ok(Self::Stream {
            read,
            write,
            frames: Frames::default(),
            unsent: BytesMut::new(),
            unflushed: false,
            leaves_from,
        })
    }

    /// The address of this host that packets leave from.
    const fn leaves_from(&self) -> IpAddr {
        match self {
            Self::Datagrams { leaves_from, .. } | Self::Stream { leaves_from, .. } => *leaves_from,
        }
    }

    /// Sends a message, or queues it on a stream.
    fn send(&mut self, message: &Bytes) {
        match self {
            Self::Datagrams { socket, .. } => {
                // What does not go out is lost, as on a network.
                if let Err(error) = socket.try_send(message) {
                    tracing::trace!(%error, "a packet to a TURN server was not sent");
                }
            }
            Self::Stream { unsent, .. } => unsent.extend_from_slice(message),
        }
    }

    fn unsent(&self) -> usize {
        match self {
            Self::Datagrams { .. } => 0,
            Self::Stream { unsent, .. } => unsent.len(),
        }
    }

    /// Takes what has come, or writes what is queued: whatever is possible first. Nothing is lost if it is cancelled.
    async fn work(&mut self) -> Result<Work, String> {
        match self {
            Self::Datagrams { socket, buffer, .. } => match socket.recv(buffer).await {
                Ok(len) => {
                    let packet = buffer.get(..len).unwrap_or_default();
                    Ok(Work::Read(Bytes::copy_from_slice(packet)))
                }
                Err(error) => Err(error.to_string()),
            },
            Self::Stream {
                read,
                write,
                frames,
                unsent,
                unflushed,
                ..
            } => {
                if let Some(frame) = frames.next().map_err(|error| error.to_string())? {
                    return Ok(Work::Read(frame));
                }
                tokio::select! {
                    read = read.read_buf(&mut frames.buffer) => match read {
                        Ok(0) => Err("the TURN server closed the connection".to_owned()),
                        Ok(_) => Ok(Work::Nothing),
                        Err(error) => Err(broke(&error)),
                    },
                    wrote = push(write, unsent, *unflushed), if !unsent.is_empty() || *unflushed => {
                        let wrote = wrote?;
                        unsent.advance(wrote);
                        *unflushed = wrote > 0;
                        Ok(Work::Wrote(wrote))
                    },
                }
            }
        }
    }
}

/// Writes what it can of `unsent`, or what TLS has encrypted if there is nothing else.
async fn push(
    write: &mut WriteHalf<Box<dyn Stream>>,
    unsent: &[u8],
    unflushed: bool,
) -> Result<usize, String> {
    if unsent.is_empty() && unflushed {
        return write
            .flush()
            .await
            .map(|()| 0)
            .map_err(|error| broke(&error));
    }
    match write.write(unsent).await {
        Ok(0) => Err("the TURN server takes nothing more".to_owned()),
        Ok(wrote) => Ok(wrote),
        Err(error) => Err(broke(&error)),
    }
}

fn broke(error: &std::io::Error) -> String {
    format!("the connection to the TURN server broke: {error}")
}

enum Work {
    Nothing,
    Read(Bytes),
    Wrote(usize),
}

/// An allocation and the way to its server.
struct Standing {
    line: Line,
    allocation: Allocation,
}

impl Standing {
    /// Waits until the allocation stands; or where else to ask, and for whom.
    async fn begin(&mut self) -> Result<Result<SocketAddr, (SocketAddr, Option<String>)>, String> {
        loop {
            while let Some(output) = self.allocation.poll() {
                match output {
                    Output::Allocated(relayed) => return Ok(Ok(relayed)),
                    Output::Alternate(server, name) => return Ok(Err((server, name))),
                    Output::Over(why) => return Err(why.to_string()),
                    Output::Send(message) => self.line.send(&message),
                    Output::Data(..) | Output::PeerRefused(..) | Output::Released => {}
                }
            }
            self.step().await?;
        }
    }

    /// One turn of the wheel; how many bytes a stream took.
    async fn step(&mut self) -> Result<usize, String> {
        let deadline = self.allocation.deadline().map(Instant::from_std);
        let deadline = async {
            match deadline {
                Some(deadline) => sleep_until(deadline).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            work = self.line.work() => match work? {
                Work::Read(packet) => self.allocation.read(&packet, Instant::now().into_std()),
                Work::Wrote(n) => return Ok(n),
                Work::Nothing => {}
            },
            () = deadline => self.allocation.tick(Instant::now().into_std()),
        }
        Ok(0)
    }

    /// Carries packets until the allocation is over: why, or `None` if it was not wanted any more.
    async fn carry(
        &mut self,
        relay: &Relay,
        wires: &Arc<Wires>,
        given_up: &CancellationToken,
    ) -> Option<String> {
        let counted = relay.rung != Rung::TurnUdp;
        // Bytes taken from the queue that the stream has not taken yet.
        let mut held = 0;
        let mut released = None;
        let ended = loop {
            if let Some(over) = self.act(relay, wires) {
                break over;
            }
            let full = self.line.unsent() >= AT_ONCE;
            let packet = async {
                match full {
                    true => std::future::pending().await,
                    false => std::future::poll_fn(|cx| relay.outbound.poll_pop(cx)).await,
                }
            };
            let releasing = async {
                match released {
                    Some(until) => sleep_until(until).await,
                    None => tokio::select! {
                        () = given_up.cancelled() => {}
                        () = wires.beaten(relay.rung) => {}
                    },
                }
            };
            tokio::select! {
                (peer, packet) = packet => {
                    held += packet.len();
                    self.allocation.send(peer, &packet, Instant::now().into_std());
                }
                stepped = self.step() => match stepped {
                    Ok(written) => {
                        // Of what is written some is framing; what is left over is settled when all is.
                        let settled = if self.line.unsent() == 0 { held } else { written.min(held) };
                        held -= settled;
                        if counted {
                            wires.backlog.written(settled);
                        }
                    }
                    // A closed port is told by the network, and anyone can forge that.
                    Err(why) if !counted => tracing::trace!(why, "from a TURN server's network"),
                    Err(why) => break Some(why),
                },
                () = releasing => {
                    if released.is_some() {
                        break None;
                    }
                    let now = Instant::now();
                    while let Some((peer, packet)) = relay.outbound.pop() {
                        held += packet.len();
                        // A farewell goes out; of a rung that is beaten nothing does.
                        if given_up.is_cancelled() {
                            self.allocation.send(peer, &packet, now.into_std());
                        }
                    }
                    self.allocation.release(now.into_std());
                    released = Some(now + RELEASE);
                }
            }
            if !counted {
                held = 0;
            }
        };
        if counted {
            wires.backlog.written(held);
        }
        ended
    }

    /// Does what the allocation wants; why it is over, if it is.
    fn act(&mut self, relay: &Relay, wires: &Arc<Wires>) -> Option<Option<String>> {
        while let Some(output) = self.allocation.poll() {
            match output {
                Output::Data(peer, packet) => drop(relay.inbound.push(peer, packet)),
                Output::Over(why) => return Some(Some(why.to_string())),
                Output::PeerRefused(peer, code) => {
                    tracing::debug!(code, "the TURN server does not relay to {peer}");
                    let why = format!("the TURN server refuses to relay to the server ({code})");
                    wires.led(relay.rung, peer, Some(why));
                }
                Output::Released => return Some(None),
                Output::Send(message) => self.line.send(&message),
                Output::Allocated(_) | Output::Alternate(..) => {}
            }
        }
        None
    }
}

impl Drop for Standing {
    /// Over UDP nothing else tells the server; over a stream the end of the connection does.
    fn drop(&mut self) {
        if let Line::Datagrams { .. } = self.line {
            self.allocation.release(Instant::now().into_std());
            while let Some(output) = self.allocation.poll() {
                if let Output::Send(message) = output {
                    self.line.send(&message);
                }
            }
        }
    }
}

/// Reads `data` as what a hostile TURN server sends on a stream, its answers matched to what was asked.
pub(crate) fn survive(data: &[u8]) {
    let Ok(crypto) = rtc::crypto::default_provider() else {
        return;
    };
    let now = Instant::now().into_std();
    let secret = Secret::new("airen");
    let mut allocation = Allocation::new(crypto, "ome", &secret, true, now);
    let mut frames = Frames::default();
    frames.buffer.extend_from_slice(data);
    let peer = SocketAddr::from(([192, 0, 2, 1], 10_000));
    let mut later = now;
    while let Ok(Some(frame)) = frames.next() {
        let mut frame = frame.to_vec();
        if let (Some(id), Some(place)) = (allocation.waits_for(), frame.get_mut(8..20)) {
            place.copy_from_slice(&id);
        }
        allocation.read(&Bytes::from(frame), later);
        allocation.send(peer, b"check", later);
        later += Duration::from_secs(1);
        allocation.tick(later);
        let mut sent = 0;
        while let Some(output) = allocation.poll() {
            sent += 1;
            if let Output::Send(message) = output {
                assert!(message.len().is_multiple_of(4), "framing on a stream");
            }
        }
        // A packet sets off a request or two, and time a refresh of each peer.
        assert!(sent <= 16, "{sent} answers to one message");
    }
}
