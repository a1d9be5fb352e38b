//! The host's own UDP sockets.

use std::io::{self, IoSliceMut};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use tokio::io::ReadBuf;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::ladder::Rung;
use super::wires::{SelectedPair, Wires};

/// A UDP socket without segmentation offload: it pays from sixteen equal packets in a row on, more than a picture
/// has, and costs 100 kB of receive buffer per socket.
#[derive(Debug)]
pub(super) struct Datagrams {
    pub(super) socket: Arc<tokio::net::UdpSocket>,
    pub(super) local: SocketAddr,
    pub(super) wires: Arc<Wires>,
}

impl AsyncUdpSocket for Datagrams {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, cx: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (packet, remote) = (transmit.contents, transmit.destination);
        // The engine checks every pair; between loopback and the world no packet can travel, and trying is an error.
        if self.local.ip().is_loopback() != remote.ip().is_loopback()
            || !self.wires.leaves(Rung::Udp, packet)
        {
            return Poll::Ready(Ok(packet.len()));
        }
        let pair = SelectedPair {
            rung: Rung::Udp,
            local: self.local,
            remote,
            leaves_from: self.local.ip(),
        };
        self.wires.leaving(pair, packet);
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
            if self.wires.arrives(Rung::Udp, remote, buffer.filled()) {
                break remote;
            }
            buffer.clear();
        };
        let len = buffer.filled().len();
        meta.addr = remote;
        meta.len = len;
        meta.stride = len.max(1);
        Poll::Ready(Ok(1))
    }
}
