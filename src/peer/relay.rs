//! A TURN relay as the engine sees it: a UDP socket like any other, whose packets take another way.
//!
//! The engine binds sockets to addresses of loopback that nobody else uses, one for each kind of TURN server, and takes
//! them for the host's. Here they are recognised, the kernel's socket is given back, and packets pass through two
//! bounded queues to and from the task that owns the allocation ([`serve`](super::turn::serve)).

use std::collections::VecDeque;
use std::io::{self, IoSliceMut};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use tokio_util::sync::DropGuard;
use webrtc::runtime::{AsyncUdpSocket, RecvMeta, Transmit};

use super::ladder::Rung;
use super::wires::{MOST, SelectedPair, Wires, locked};

/// Packets that a queue holds before it drops the oldest.
const MOST_PACKETS: usize = 1_024;

/// The address that stands for a rung's relay.
pub(super) const fn address(rung: Rung) -> Option<SocketAddr> {
    let last = match rung {
        Rung::Udp | Rung::Tcp => return None,
        Rung::TurnUdp => 2,
        Rung::TurnTcp => 3,
        Rung::TurnTls => 4,
    };
    Some(SocketAddr::new(
        IpAddr::V4(Ipv4Addr::new(127, 59, 7, last)),
        0,
    ))
}

/// The rung whose relay an address stands for.
pub(super) fn rung(ip: IpAddr) -> Option<Rung> {
    Rung::ALL
        .into_iter()
        .find(|&rung| address(rung).is_some_and(|address| address.ip() == ip))
}

/// Packets on their way, with the peer's address; bounded by number and bytes, drops the oldest.
#[derive(Debug, Default)]
pub(super) struct Queue(Mutex<Waiting>);

#[derive(Debug, Default)]
struct Waiting {
    packets: VecDeque<(SocketAddr, Bytes)>,
    bytes: usize,
    taker: Option<Waker>,
}

impl Queue {
    /// Puts a packet last. Returns how many packets and bytes had to go for it.
    pub(super) fn push(&self, peer: SocketAddr, packet: Bytes) -> (usize, usize) {
        let mut dropped = (0, 0);
        let mut waiting = locked(&self.0);
        waiting.bytes += packet.len();
        waiting.packets.push_back((peer, packet));
        while waiting.bytes > MOST || waiting.packets.len() > MOST_PACKETS {
            let Some((_, oldest)) = waiting.packets.pop_front() else {
                break;
            };
            waiting.bytes -= oldest.len();
            dropped = (dropped.0 + 1, dropped.1 + oldest.len());
        }
        if let Some(taker) = waiting.taker.take() {
            taker.wake();
        }
        dropped
    }

    /// Takes the first packet, if there is one.
    pub(super) fn pop(&self) -> Option<(SocketAddr, Bytes)> {
        let mut waiting = locked(&self.0);
        let (peer, packet) = waiting.packets.pop_front()?;
        waiting.bytes -= packet.len();
        Some((peer, packet))
    }

    /// Takes the first packet when there is one; for one taker.
    pub(super) fn poll_pop(&self, cx: &Context<'_>) -> Poll<(SocketAddr, Bytes)> {
        if let Some(taken) = self.pop() {
            return Poll::Ready(taken);
        }
        let mut waiting = locked(&self.0);
        waiting.taker = Some(cx.waker().clone());
        // Between the two looks a packet may have come.
        if !waiting.packets.is_empty() {
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }
}

/// What the engine's socket and the allocation's task share.
#[derive(Debug)]
pub(super) struct Relay {
    /// The rung it is on.
    pub(super) rung: Rung,
    /// From the engine.
    pub(super) outbound: Queue,
    /// To the engine.
    pub(super) inbound: Queue,
    /// Where packets to the TURN server leave this host from, as long as an allocation stands.
    line: Mutex<Option<IpAddr>>,
}

impl Relay {
    /// A relay without an allocation.
    pub(super) fn new(rung: Rung) -> Self {
        Self {
            rung,
            outbound: Queue::default(),
            inbound: Queue::default(),
            line: Mutex::default(),
        }
    }

    /// An allocation stands, at a server that packets leave for from `line`; or, with `None`, no more.
    pub(super) fn stands(&self, line: Option<IpAddr>) {
        *locked(&self.line) = line;
    }

    fn line(&self) -> Option<IpAddr> {
        *locked(&self.line)
    }
}

/// The engine's end of a relay. Dropped, the allocation is given back.
#[derive(Debug)]
pub(super) struct RelayedDatagrams {
    pub(super) relay: Arc<Relay>,
    pub(super) local: SocketAddr,
    pub(super) wires: Arc<Wires>,
    pub(super) _given_up: DropGuard,
}

impl AsyncUdpSocket for RelayedDatagrams {
    fn local_addr(&self) -> io::Result<SocketAddr> {
        Ok(self.local)
    }

    fn poll_send(&self, _: &mut Context<'_>, transmit: &Transmit<'_>) -> Poll<io::Result<usize>> {
        let (packet, remote) = (transmit.contents, transmit.destination);
        let rung = self.relay.rung;
        // Before there is an allocation a check is lost, as on a network; the next one follows in 50 ms.
        if let Some(leaves_from) = self.relay.line()
            && self.wires.leaves(rung, packet)
        {
            let pair = SelectedPair {
                rung,
                local: self.local,
                remote,
                leaves_from,
            };
            self.wires.leaving(pair, packet);
            let counted = rung != Rung::TurnUdp;
            if counted {
                // Before the task can take it and count it off again.
                self.wires.backlog.queued(packet.len());
            }
            let queued = Bytes::copy_from_slice(packet);
            let (packets, bytes) = self.relay.outbound.push(remote, queued);
            self.wires.counters.lock().frames_refused += packets as u64;
            if counted {
                self.wires.backlog.written(bytes);
            }
        }
        Poll::Ready(Ok(packet.len()))
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
        loop {
            let (remote, packet) = ready!(self.relay.inbound.poll_pop(cx));
            let Some(place) = buffer.get_mut(..packet.len()) else {
                continue;
            };
            if !self.wires.arrives(self.relay.rung, remote, &packet) {
                continue;
            }
            place.copy_from_slice(&packet);
            meta.addr = remote;
            meta.len = packet.len();
            meta.stride = packet.len().max(1);
            return Poll::Ready(Ok(1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_go_when_a_queue_is_full() {
        let queue = Queue::default();
        let peer = SocketAddr::from(([192, 0, 2, 1], 5));
        let mut dropped = (0, 0);
        for n in 0..3_000_u32 {
            let packet = Bytes::copy_from_slice(&[&n.to_be_bytes()[..], &[0; 996]].concat());
            let (packets, bytes) = queue.push(peer, packet);
            dropped = (dropped.0 + packets, dropped.1 + bytes);
        }
        let mut left = Vec::new();
        while let Some((_, packet)) = queue.pop() {
            left.push(u32::from_be_bytes(packet[..4].try_into().expect("four")));
        }
        assert_eq!(left.len() + dropped.0, 3_000);
        assert_eq!(dropped.1, 1_000 * dropped.0);
        assert!(1_000 * left.len() <= MOST);
        assert_eq!(left.last(), Some(&2_999));
        assert!(left.is_sorted());
    }

    #[test]
    fn each_kind_of_relay_has_an_address_of_its_own() {
        for kind in Rung::ALL {
            if let Some(address) = address(kind) {
                assert_eq!(rung(address.ip()), Some(kind));
                assert!(address.ip().is_loopback());
            }
        }
        assert_eq!(rung(IpAddr::V4(Ipv4Addr::LOCALHOST)), None);
    }
}
