//! Where our sockets are bound, looked up afresh whenever the engine binds.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use rtc::shared::ifaces::ifaces;

use crate::config::Transport;
use crate::network::is_usable;

use super::ladder::Rung;
use super::relay;

/// Most addresses used: a host of many bridges would drown in pairs.
const MAX_ADDRESSES: usize = 8;

/// A set of sockets to bind.
#[derive(Clone, Copy, Debug)]
pub(super) enum Sockets {
    /// For dialling TCP candidates.
    Tcp(Transport),
    /// For UDP, and in its guise for relays.
    Udp(Transport),
}

impl ToSocketAddrs for Sockets {
    type Iter = std::vec::IntoIter<SocketAddr>;

    fn to_socket_addrs(&self) -> io::Result<Self::Iter> {
        let mut sockets = Vec::new();
        match *self {
            Self::Tcp(transport) if Rung::Tcp.allowed(transport) => sockets = addresses(),
            Self::Tcp(_) => {}
            Self::Udp(transport) => {
                if Rung::Udp.allowed(transport) {
                    sockets = addresses();
                }
                let relays = Rung::ALL.into_iter().filter(|rung| rung.allowed(transport));
                sockets.extend(relays.filter_map(relay::address));
            }
        }
        Ok(sockets.into_iter())
    }
}

/// Every address of a running interface that could reach a server, and loopback for a server on this host. Never a
/// wildcard, whose candidate nobody could use.
fn addresses() -> Vec<SocketAddr> {
    let mut world: Vec<IpAddr> = Vec::new();
    let mut loopback = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
    match ifaces() {
        Ok(interfaces) => {
            for interface in interfaces {
                let Some(ip) = interface.addr.map(|addr| addr.ip()) else {
                    continue;
                };
                if is_usable(&ip) && !world.contains(&ip) {
                    world.push(ip);
                } else if ip == std::net::Ipv6Addr::LOCALHOST {
                    loopback.push(ip);
                }
            }
        }
        Err(error) => tracing::warn!(%error, "cannot list the network interfaces"),
    }
    world.truncate(MAX_ADDRESSES);
    world.extend(loopback);
    world.into_iter().map(|ip| SocketAddr::new(ip, 0)).collect()
}
