//! ICE-TCP connections of a publisher: each packet behind a length of two bytes (RFC 4571).

use std::net::SocketAddr;
use std::time::Duration;
use std::time::Instant;

use socket2::SockRef;
use tokio::io::AsyncReadExt;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::tcp::OwnedWriteHalf;
use tokio::sync::mpsc;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::Instant as Time;

use super::now;

/// Packets that may wait to be written; a publisher that does not read loses the rest.
const OUTBOX: usize = 64;
/// Longest packet that is accepted; no ICE, DTLS or SRTP packet of a publisher is longer.
const LONGEST: usize = 4096;

/// How long the last packets may take to be written.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What the kernel holds of a connection that is read slowly: what a narrow uplink is behind has no place here.
const NARROW: usize = 8 * 1024;

/// Segments over loopback are no larger than over a network. By itself one is 64 KiB, and a window smaller than that
/// opens every 200 ms only.
const SEGMENT: u32 = 1_400;

/// Lets connections to `listener` behave as over a network.
pub(super) fn as_over_a_network(listener: &TcpListener) {
    if let Err(error) = SockRef::from(listener).set_tcp_mss(SEGMENT) {
        tracing::debug!(%error, "TCP_MAXSEG could not be set");
    }
}

/// What comes from a connection.
#[derive(Debug)]
pub(super) struct Inbound {
    pub(super) peer: SocketAddr,
    pub(super) arrived: Instant,
    /// A packet; `None` once the connection has ended.
    pub(super) packet: Option<Vec<u8>>,
}

/// An open connection; dropping it closes it.
#[derive(Debug)]
pub(super) struct Connection {
    outbox: mpsc::Sender<Vec<u8>>,
    reader: JoinSet<()>,
    writer: JoinSet<()>,
}

impl Connection {
    /// Takes over `stream`; what arrives goes to `inbox`, whose fullness holds the publisher back, and so does
    /// `throttle`, in kbit/s.
    pub(super) fn open(
        stream: TcpStream,
        peer: SocketAddr,
        inbox: mpsc::Sender<Inbound>,
        throttle: watch::Receiver<u32>,
    ) -> Self {
        let (outbox, packets) = mpsc::channel(OUTBOX);
        let (reader, writer) = stream.into_split();
        let (mut reading, mut writing) = (JoinSet::new(), JoinSet::new());
        reading.spawn(async move {
            read(reader, peer, &inbox, throttle).await;
            let end = Inbound {
                peer,
                arrived: now(),
                packet: None,
            };
            // Without the session nobody needs to know.
            inbox.send(end).await.ok();
        });
        writing.spawn(write(writer, packets));
        Self {
            outbox,
            reader: reading,
            writer: writing,
        }
    }

    /// Closes it once what waits is written, for as long as the publisher reads, a moment at most.
    pub(super) async fn close(mut self) {
        drop(self.outbox);
        self.reader.abort_all();
        tokio::time::timeout(LAST_WORDS, self.writer.join_next())
            .await
            .ok();
    }

    /// Sends a packet, or drops it if too many wait.
    pub(super) fn send(&self, packet: Vec<u8>) {
        self.outbox.try_send(packet).ok();
    }
}

async fn read(
    mut stream: OwnedReadHalf,
    peer: SocketAddr,
    inbox: &mpsc::Sender<Inbound>,
    mut throttle: watch::Receiver<u32>,
) {
    let mut free = Time::now();
    while let Ok(length) = stream.read_u16().await {
        let mut packet = vec![0; usize::from(length)];
        if packet.len() > LONGEST || stream.read_exact(&mut packet).await.is_err() {
            return;
        }
        let inbound = Inbound {
            peer,
            arrived: now(),
            packet: Some(packet),
        };
        if inbox.send(inbound).await.is_err() {
            return;
        }
        let kbit_s = *throttle.borrow_and_update();
        if kbit_s == 0 {
            continue;
        }
        let room = SockRef::from(stream.as_ref()).set_recv_buffer_size(NARROW);
        if let Err(error) = room {
            tracing::debug!(%error, "the kernel goes on to hold what is not read");
        }
        let bits = (f64::from(length) + 2.0) * 8.0;
        let takes = Duration::from_secs_f64(bits / 1_000.0 / f64::from(kbit_s));
        free = free.max(Time::now()) + takes;
        tokio::select! {
            () = tokio::time::sleep_until(free) => {}
            Ok(()) = throttle.changed() => {}
        }
    }
}

async fn write(mut stream: OwnedWriteHalf, mut packets: mpsc::Receiver<Vec<u8>>) {
    while let Some(packet) = packets.recv().await {
        // `str0m` makes no packet near 64 KiB.
        let Ok(length) = u16::try_from(packet.len()) else {
            continue;
        };
        let mut frame = Vec::with_capacity(packet.len() + 2);
        frame.extend_from_slice(&length.to_be_bytes());
        frame.extend_from_slice(&packet);
        if stream.write_all(&frame).await.is_err() {
            return;
        }
    }
}
