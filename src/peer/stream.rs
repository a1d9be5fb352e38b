//! TCP connections to a server's own candidates (RFC 6544): dialled, directly and where need be through the proxy, and
//! written to without ever holding up the engine.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::sync::mpsc;
use webrtc::runtime::{AsyncTcpListener, AsyncTcpStream};

use super::ladder::Rung;
use super::wires::{Boxed, MOST, SelectedPair, Wires};
use crate::net::{self, Stream as _};

/// How long a dial may take: two SYN retransmissions on a poor path.
const DIAL: Duration = Duration::from_secs(7);

/// Pause after a dial that failed.
const REDIAL: Duration = Duration::from_millis(500);

/// Head start of the direct way over the proxy's.
const PROXY_AFTER: Duration = Duration::from_millis(150);

/// Frames queued on a connection beyond which whole ones are thrown away: small ones count too.
const MOST_FRAMES: usize = 2_048;

type Read = Box<dyn AsyncRead + Send + Unpin>;
type Write = Box<dyn AsyncWrite + Send + Unpin>;

/// Dials `remote` once its turn has come, again and again while the search for a path goes on: the engine dials once
/// and logs an error.
pub(super) async fn dial(wires: &Arc<Wires>, remote: SocketAddr) -> io::Result<Stream> {
    loop {
        wires.started(Rung::Tcp).await;
        match reach(wires, remote).await {
            Ok((read, write, local, leaves_from)) => {
                wires.led(Rung::Tcp, remote, None);
                let pair = SelectedPair {
                    rung: Rung::Tcp,
                    local,
                    remote,
                    leaves_from,
                };
                return Ok(Stream::new(wires, read, write, pair));
            }
            Err(why) => {
                tracing::debug!(why, "cannot dial {remote}");
                wires.led(Rung::Tcp, remote, Some(why));
            }
        }
        tokio::time::sleep(REDIAL).await;
    }
}

/// Directly, and where a proxy stands between us and the world through it as well, a little later.
/// With the stream come our end of it, as the engine knows it, and the address that its packets leave from.
async fn reach(
    wires: &Wires,
    remote: SocketAddr,
) -> Result<(Read, Write, SocketAddr, IpAddr), String> {
    let (host, port) = (remote.ip().to_string(), remote.port());
    let direct = async {
        let dialled = tokio::time::timeout(DIAL, tokio::net::TcpStream::connect(remote)).await;
        let stream = match dialled {
            Ok(stream) => stream.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer to the dial".to_owned()),
        };
        let local = stream.local_addr().map_err(|error| error.to_string())?;
        // A frame is complete when it is written; waiting for more only adds delay.
        stream
            .set_nodelay(true)
            .map_err(|error| error.to_string())?;
        net::keep_shallow(&stream);
        let (read, write) = stream.into_split();
        Ok((
            Box::new(read) as Read,
            Box::new(write) as Write,
            local,
            local.ip(),
        ))
    };
    let proxy = match wires.local_for(remote) {
        Some(local) if wires.dialer.proxied(&host, port) => local,
        _ => return direct.await,
    };
    let proxied = async {
        tokio::time::sleep(PROXY_AFTER).await;
        let dialled = tokio::time::timeout(DIAL, wires.dialer.tcp(&host, port)).await;
        let stream = match dialled {
            Ok(stream) => stream.map_err(|error| error.to_string())?,
            Err(_) => return Err("no answer through the proxy".to_owned()),
        };
        let leaves_from = stream.leaves_from().ok_or("the connection is gone")?;
        let (read, write) = tokio::io::split(stream);
        Ok((
            Box::new(read) as Read,
            Box::new(write) as Write,
            proxy,
            leaves_from,
        ))
    };
    tokio::pin!(direct, proxied);
    tokio::select! {
        reached = &mut direct => match reached {
            Ok(reached) => Ok(reached),
            Err(why) => proxied.await.map_err(|error| format!("{why}; {error}")),
        },
        reached = &mut proxied => match reached {
            Ok(reached) => Ok(reached),
            Err(error) => direct.await.map_err(|why| format!("{why}; {error}")),
        },
    }
}

/// The engine makes its dialling candidates from listeners. Nobody is to call us, so the port is given back.
#[derive(Debug)]
pub(super) struct NoListener {
    pub(super) local: SocketAddr,
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
pub(super) struct Stream {
    read: tokio::sync::Mutex<(Read, Marks)>,
    frames: mpsc::Sender<Bytes>,
    pair: SelectedPair,
    wires: Arc<Wires>,
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.pair.fmt(f)
    }
}

impl Stream {
    fn new(wires: &Arc<Wires>, read: Read, write: Write, pair: SelectedPair) -> Self {
        let (frames, queue) = mpsc::channel(MOST_FRAMES);
        let writer = Arc::clone(wires);
        let feeding = async move {
            if let Err(error) = feed(&writer, write, queue).await {
                tracing::debug!(%error, "a TCP connection to {} broke", pair.remote);
                writer.broken(pair);
            }
        };
        wires.spawn(wires.writers.track_future(feeding));
        Self {
            read: tokio::sync::Mutex::new((read, Marks::default())),
            frames,
            pair,
            wires: Arc::clone(wires),
        }
    }
}

/// Writes what is queued, whole bursts at once, until the queue's owner is gone and all is written. What a narrow path
/// takes of a burst counts as it goes.
async fn feed(wires: &Wires, mut write: Write, mut queue: mpsc::Receiver<Bytes>) -> io::Result<()> {
    let mut burst = BytesMut::new();
    let mut frames = Vec::new();
    while queue.recv_many(&mut frames, 64).await > 0 {
        for frame in frames.drain(..) {
            burst.extend_from_slice(&frame);
        }
        if let Err(error) = put(wires, &mut write, &mut burst).await {
            wires.backlog.written(burst.len());
            queue.close();
            while let Some(frame) = queue.recv().await {
                wires.backlog.written(frame.len());
            }
            return Err(error);
        }
    }
    write.shutdown().await
}

/// Writes `burst`, of which an error leaves what was not taken.
async fn put(wires: &Wires, write: &mut Write, burst: &mut BytesMut) -> io::Result<()> {
    while !burst.is_empty() {
        match write.write_buf(burst).await? {
            0 => return Err(io::ErrorKind::WriteZero.into()),
            taken => wires.backlog.written(taken),
        }
    }
    write.flush().await
}

impl AsyncTcpStream for Stream {
    fn read<'a, 'b>(&'a self, buffer: &'b mut [u8]) -> Boxed<'b, io::Result<usize>>
    where
        'a: 'b,
    {
        Box::pin(async move {
            let mut guard = self.read.lock().await;
            let (read, marks) = &mut *guard;
            loop {
                match read.read(buffer).await {
                    Ok(n @ 1..) => {
                        let came = buffer.get(..n).unwrap_or_default();
                        marks.each(came, |head| {
                            self.wires.arrives(Rung::Tcp, self.pair.remote, head);
                        });
                        // Once another rung has won, what comes here is nothing to the engine.
                        if self.wires.passes(Rung::Tcp) {
                            return Ok(n);
                        }
                    }
                    // However it ended, to the engine it has ended in order: it has nothing to add but an error in
                    // the log.
                    _ => {
                        self.wires.broken(self.pair);
                        return Ok(0);
                    }
                }
            }
        })
    }

    fn write_all<'a, 'b>(&'a self, frame: &'b [u8]) -> Boxed<'b, io::Result<()>>
    where
        'a: 'b,
    {
        let packet = frame.get(2..).unwrap_or_default();
        if self.wires.leaves(Rung::Tcp, packet) {
            self.wires.leaving(self.pair, packet);
            let full = self.wires.backlog.queued(frame.len()) > MOST;
            if full || self.frames.try_send(Bytes::copy_from_slice(frame)).is_err() {
                self.wires.backlog.written(frame.len());
                self.wires.counters.lock().frames_refused += 1;
            }
        }
        Box::pin(std::future::ready(Ok(())))
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.pair.local)
    }

    fn peer_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.pair.remote)
    }
}

/// Bytes of a packet that are looked at: a STUN header.
const HEAD: usize = 20;

/// Follows the frames in a stream and shows how each packet begins.
#[derive(Debug, Default)]
struct Marks {
    /// What has come of the length and of the packet's head.
    begun: Vec<u8>,
    /// Bytes of the packet that are passed over.
    left: usize,
}

impl Marks {
    fn each(&mut self, mut bytes: &[u8], mut look: impl FnMut(&[u8])) {
        while !bytes.is_empty() {
            let passed = self.left.min(bytes.len());
            self.left -= passed;
            bytes = &bytes[passed..];
            if self.left > 0 {
                return;
            }
            let wanted = match *self.begun.as_slice() {
                [high, low, ..] => 2 + usize::from(u16::from_be_bytes([high, low])).min(HEAD),
                _ => 2,
            };
            let taken = (wanted - self.begun.len()).min(bytes.len());
            self.begun.extend_from_slice(&bytes[..taken]);
            bytes = &bytes[taken..];
            if let [high, low, ref head @ ..] = *self.begun.as_slice() {
                let len = usize::from(u16::from_be_bytes([high, low]));
                if head.len() == len.min(HEAD) {
                    look(head);
                    self.left = len - head.len();
                    self.begun.clear();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn every_packet_is_seen_once_however_the_stream_is_cut(
            packets in proptest::collection::vec(
                proptest::collection::vec(any::<u8>(), 0..60), 0..30),
            cuts in proptest::collection::vec(1_usize..40, 1..200),
        ) {
            let mut wire = Vec::new();
            for packet in &packets {
                wire.extend((packet.len() as u16).to_be_bytes());
                wire.extend(packet);
            }
            let mut marks = Marks::default();
            let mut seen = Vec::new();
            let mut rest = wire.as_slice();
            let mut cuts = cuts.iter().cycle();
            while !rest.is_empty() {
                let cut = (*cuts.next().expect("endless")).min(rest.len());
                marks.each(&rest[..cut], |head| seen.push(head.to_vec()));
                rest = &rest[cut..];
            }
            let heads: Vec<Vec<u8>> = packets
                .iter()
                .map(|packet| packet[..packet.len().min(HEAD)].to_vec())
                .collect();
            prop_assert_eq!(seen, heads);
        }
    }
}
