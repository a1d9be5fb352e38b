//! The sockets under the engine: plain UDP, and TCP that we dial, bounded in what they hold.
//!
//! The engine lets its user bring the runtime, and with it every socket and task. That is used for four things: its
//! tasks end when the [`Peer`](super::Peer) does, whatever happened; nothing listens for TCP, although the engine
//! believes it does; a TCP connection that will not take more never holds up the engine's only task; and what the
//! engine does not tell is seen here (the selected pair, a DTLS alert, a TCP connection that broke).

use std::future::Future;
use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncWriteExt, ReadBuf};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use webrtc::runtime::{
    AsyncInterval, AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, JoinHandle, RecvMeta, Runtime,
    TokioRuntime, Transmit,
};

use super::counters::Shared;
use super::ladder::Rung;

/// How long a dial may take: two SYN retransmissions on a poor path.
const DIAL: Duration = Duration::from_secs(7);

/// Pause after a dial that failed.
const REDIAL: Duration = Duration::from_millis(500);

/// Bytes queued on a TCP connection beyond which [`Wires::room`] makes the sender wait: a quarter of a second at
/// 2 Mbit/s. Older media is better dropped in the feed's lane, which knows key frames.
const ROOM: usize = 64 * 1024;

/// Bytes queued on a TCP connection beyond which whole frames are thrown away, so that nothing grows without bound.
const MOST: usize = 512 * 1024;

/// Frames queued likewise: small ones count too.
const MOST_FRAMES: usize = 2_048;

type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The two ends between which media flows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SelectedPair {
    /// The way between them.
    pub rung: Rung,
    /// Our end.
    pub local: SocketAddr,
    /// The server's end.
    pub remote: SocketAddr,
}

impl std::fmt::Display for SelectedPair {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {} to {}", self.rung, self.local, self.remote)
    }
}

/// What the sockets saw that the engine does not report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// A DTLS alert arrived: perhaps the end, to be verified with the engine since anyone can forge one.
    Alert,
    /// The TCP connection that carries the media is gone.
    Broken,
}

/// The sockets of one connection, seen together.
#[derive(Debug)]
pub(super) struct Wires {
    counters: Arc<Shared>,
    selected: Mutex<Option<SelectedPair>>,
    backlog: AtomicUsize,
    drained: Notify,
    sightings: mpsc::Sender<Sighting>,
    stop: CancellationToken,
    tasks: TaskTracker,
    writers: TaskTracker,
}

impl Wires {
    /// No sockets yet. `stop` ends every task, `tasks` knows when they have ended.
    pub(super) fn new(
        counters: Arc<Shared>,
        stop: CancellationToken,
        tasks: TaskTracker,
    ) -> (Arc<Self>, mpsc::Receiver<Sighting>) {
        let (sightings, seen) = mpsc::channel(8);
        let wires = Self {
            counters,
            selected: Mutex::new(None),
            backlog: AtomicUsize::new(0),
            drained: Notify::new(),
            sightings,
            stop,
            tasks,
            writers: TaskTracker::new(),
        };
        (Arc::new(wires), seen)
    }

    /// Where media flows; `None` before the first DTLS packet was sent.
    pub(super) fn selected(&self) -> Option<SelectedPair> {
        *self.selected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until the connection would take more media. Over UDP that is at once.
    pub(super) async fn room(&self) {
        loop {
            let drained = self.drained.notified();
            if self.backlog.load(Ordering::Acquire) < ROOM {
                return;
            }
            drained.await;
        }
    }

    /// Spawns a task of this connection: ended with it, waited for by it.
    pub(super) fn spawn(
        &self,
        future: impl Future<Output = ()> + Send + 'static,
    ) -> tokio::task::AbortHandle {
        let stop = self.stop.clone();
        self.tasks
            .spawn(async move {
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = future => {}
                }
            })
            .abort_handle()
    }

    /// Waits until TCP has taken all that was queued. To be called when nothing queues any more.
    pub(super) async fn flushed(&self) {
        self.writers.close();
        self.writers.wait().await;
    }

    /// Everything but connectivity checks flows over the selected pair.
    fn leaving(&self, rung: Rung, local: SocketAddr, remote: SocketAddr, packet: &[u8]) {
        if packet.first().is_none_or(|&first| first < 20) {
            return;
        }
        let pair = SelectedPair {
            rung,
            local,
            remote,
        };
        let mut selected = self.selected.lock().unwrap_or_else(PoisonError::into_inner);
        if *selected != Some(pair) {
            *selected = Some(pair);
            self.counters.lock().pair = Some(pair);
        }
    }

    /// Whether a packet comes from nobody we talk to. Checks of connectivity may come from anywhere; the engine would
    /// take the rest from anywhere too, and warn about each that does not decrypt.
    fn strange(&self, remote: SocketAddr, packet: &[u8]) -> bool {
        let strange = packet.first().is_none_or(|&first| first >= 20)
            && self.selected().is_some_and(|pair| pair.remote != remote);
        if strange {
            self.counters.lock().strangers += 1;
        }
        strange
    }

    fn arriving(&self, packet: &[u8]) {
        // DTLS says the kind of a record in the clear; 21 is an alert (RFC 5246, section 6.2.1).
        if packet.first() == Some(&21) {
            self.sight(Sighting::Alert);
        }
    }

    fn broken(&self, local: SocketAddr, remote: SocketAddr) {
        let ours = SelectedPair {
            rung: Rung::Tcp,
            local,
            remote,
        };
        if self.selected() == Some(ours) {
            self.sight(Sighting::Broken);
        }
    }

    fn sight(&self, sighting: Sighting) {
        if self.sightings.try_send(sighting).is_err() {
            tracing::trace!("sightings enough are queued to act upon");
        }
    }
}

/// The engine's view of tokio.
#[derive(Debug)]
pub(super) struct Engine(pub(super) Arc<Wires>);

impl Runtime for Engine {
    fn spawn(&self, future: Boxed<'static, ()>) -> Box<dyn JoinHandle> {
        Box::new(Task(self.0.spawn(future)))
    }

    fn wrap_udp_socket(&self, socket: std::net::UdpSocket) -> io::Result<Arc<dyn AsyncUdpSocket>> {
        socket.set_nonblocking(true)?;
        let local = socket.local_addr()?;
        let socket = tokio::net::UdpSocket::from_std(socket)?;
        let wires = Arc::clone(&self.0);
        Ok(Arc::new(Datagrams {
            socket,
            local,
            wires,
        }))
    }

    fn wrap_tcp_listener(
        &self,
        listener: std::net::TcpListener,
    ) -> io::Result<Arc<dyn AsyncTcpListener>> {
        // The engine makes its dialling candidates from listeners. Nobody is to call us, so the port is given back.
        let local = listener.local_addr()?;
        Ok(Arc::new(NoListener { local }))
    }

    fn connect_tcp<'a>(
        &'a self,
        remote: SocketAddr,
    ) -> Boxed<'a, io::Result<Arc<dyn AsyncTcpStream>>> {
        Box::pin(async move {
            // The engine dials once and logs an error. While the search for a path goes on, dialling may too.
            let stream = loop {
                let dial = tokio::net::TcpStream::connect(remote);
                match tokio::time::timeout(DIAL, dial).await {
                    Ok(Ok(stream)) => break stream,
                    Ok(Err(error)) => tracing::debug!(%error, "cannot dial {remote}"),
                    Err(_) => tracing::debug!("{remote} does not answer the dial"),
                }
                tokio::time::sleep(REDIAL).await;
            };
            // A frame is complete when it is written; waiting for more only adds delay.
            stream.set_nodelay(true)?;
            Ok(Arc::new(Stream::new(&self.0, stream)?) as Arc<dyn AsyncTcpStream>)
        })
    }

    fn resolve_host<'a>(&'a self, host: &'a str) -> Boxed<'a, io::Result<Vec<SocketAddr>>> {
        TokioRuntime.resolve_host(host)
    }

    fn sleep(&self, duration: Duration) -> Boxed<'static, ()> {
        TokioRuntime.sleep(duration)
    }

    fn interval(&self, period: Duration) -> Box<dyn AsyncInterval> {
        TokioRuntime.interval(period)
    }

    fn block_on(&self, future: Pin<Box<dyn Future<Output = ()> + '_>>) {
        TokioRuntime.block_on(future);
    }

    fn yield_now(&self) -> Boxed<'static, ()> {
        TokioRuntime.yield_now()
    }
}

struct Task(tokio::task::AbortHandle);

impl JoinHandle for Task {
    fn detach(&self) {}

    fn abort(&self) {
        self.0.abort();
    }

    fn is_finished(&self) -> bool {
        self.0.is_finished()
    }
}

/// A UDP socket without segmentation offload: it pays from sixteen equal packets in a row on, more than a picture
/// has, and costs 100 kB of receive buffer per socket.
#[derive(Debug)]
struct Datagrams {
    socket: tokio::net::UdpSocket,
    local: SocketAddr,
    wires: Arc<Wires>,
}

impl AsyncUdpSocket for Datagrams {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (packet, remote) = (transmit.contents, transmit.destination);
        // The engine checks every pair; between loopback and the world no packet can travel, and trying is an error.
        if self.local.ip().is_loopback() != remote.ip().is_loopback() {
            return Poll::Ready(Ok(packet.len()));
        }
        self.wires.leaving(Rung::Udp, self.local, remote, packet);
        match ready!(self.socket.poll_send_to(cx, packet, remote)) {
            Ok(sent) => Poll::Ready(Ok(sent)),
            Err(_) => {
                // A network that is away fails every packet, and the engine would log an error for each. What is
                // lost here is what a network loses: ICE notices its absence.
                self.wires.counters.lock().packets_unsent += 1;
                Poll::Ready(Ok(packet.len()))
            }
        }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buffer), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else {
            return Poll::Ready(Ok(0));
        };
        let mut buffer = ReadBuf::new(buffer);
        let remote = loop {
            let remote = ready!(self.socket.poll_recv_from(cx, &mut buffer))?;
            if !self.wires.strange(remote, buffer.filled()) {
                break remote;
            }
            buffer.clear();
        };
        let len = buffer.filled().len();
        self.wires.arriving(buffer.filled());
        meta.addr = remote;
        meta.len = len;
        meta.stride = len.max(1);
        Poll::Ready(Ok(1))
    }
}

#[derive(Debug)]
struct NoListener {
    local: SocketAddr,
}

impl AsyncTcpListener for NoListener {
    fn accept<'a>(&'a self) -> Boxed<'a, io::Result<(Arc<dyn AsyncTcpStream>, SocketAddr)>> {
        Box::pin(std::future::pending())
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }
}

/// A TCP connection that carries frames of RFC 4571. Writing only queues; a task of its own feeds the socket.
#[derive(Debug)]
struct Stream {
    read: OwnedReadHalf,
    frames: mpsc::Sender<Bytes>,
    local: SocketAddr,
    remote: SocketAddr,
    wires: Arc<Wires>,
}

impl Stream {
    fn new(wires: &Arc<Wires>, stream: tokio::net::TcpStream) -> io::Result<Self> {
        let (local, remote) = (stream.local_addr()?, stream.peer_addr()?);
        let (read, write) = stream.into_split();
        let (frames, queue) = mpsc::channel(MOST_FRAMES);
        let writer = Arc::clone(wires);
        let feeding = async move {
            if let Err(error) = feed(&writer, write, queue).await {
                tracing::debug!(%error, "a TCP connection to {remote} broke");
                writer.broken(local, remote);
            }
        };
        wires.spawn(wires.writers.track_future(feeding));
        Ok(Self {
            read,
            frames,
            local,
            remote,
            wires: Arc::clone(wires),
        })
    }
}

/// Writes what is queued, whole bursts at once, until the queue's owner is gone and all is written.
async fn feed(
    wires: &Wires,
    mut write: OwnedWriteHalf,
    mut queue: mpsc::Receiver<Bytes>,
) -> io::Result<()> {
    let mut burst = BytesMut::new();
    let mut frames = Vec::new();
    while queue.recv_many(&mut frames, 64).await > 0 {
        for frame in frames.drain(..) {
            burst.extend_from_slice(&frame);
        }
        let written = write.write_all(&burst).await;
        wires.backlog.fetch_sub(burst.len(), Ordering::AcqRel);
        burst.clear();
        if let Err(error) = written {
            queue.close();
            while let Some(frame) = queue.recv().await {
                wires.backlog.fetch_sub(frame.len(), Ordering::AcqRel);
            }
            wires.drained.notify_waiters();
            return Err(error);
        }
        wires.drained.notify_waiters();
    }
    write.shutdown().await
}

impl AsyncTcpStream for Stream {
    fn read<'a, 'b>(&'a self, buffer: &'b mut [u8]) -> Boxed<'b, io::Result<usize>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let result = loop {
                self.read.readable().await?;
                match self.read.try_read(buffer) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    result => break result,
                }
            };
            if let Ok(n @ 1..) = result {
                self.wires.arriving(buffer.get(2..n).unwrap_or_default());
                return Ok(n);
            }
            self.wires.broken(self.local, self.remote);
            // However it ended, to the engine it has ended in order: it has nothing to add but an error in the log.
            Ok(0)
        })
    }

    fn write_all<'a, 'b>(&'a self, frame: &'b [u8]) -> Boxed<'b, io::Result<()>>
    where
        'a: 'b,
    {
        let packet = frame.get(2..).unwrap_or_default();
        self.wires
            .leaving(Rung::Tcp, self.local, self.remote, packet);
        let backlog = &self.wires.backlog;
        let full = backlog.fetch_add(frame.len(), Ordering::AcqRel) + frame.len() > MOST;
        if full || self.frames.try_send(Bytes::copy_from_slice(frame)).is_err() {
            backlog.fetch_sub(frame.len(), Ordering::AcqRel);
            self.wires.counters.lock().frames_refused += 1;
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.remote)
    }
}
