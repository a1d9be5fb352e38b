//! What the network of this machine is, and when it changes: addresses that media can leave from, and where
//! packets go that are for nobody near.
//!
//! Read from the kernel by netlink, which also says when something changed. Where the kernel says nothing (a
//! sandbox without netlink) the state is asked for every five seconds, by what it answers to a socket that wants to
//! leave. Nothing else in the program reads netlink, and nothing here acts on a change.

mod bursts;
mod netlink;
mod tables;

use std::collections::BTreeSet;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, UdpSocket};
use std::time::Duration;

use tokio::sync::watch::{self, Receiver, Sender};
use tokio::time::sleep;

use self::netlink::Netlink;

/// Distance of looks at a network that cannot be followed.
const POLL_PERIOD: Duration = Duration::from_secs(5);

/// The network as far as it matters to a connection. Equal as long as nothing that matters has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Usable addresses: of links that are up, neither loopback nor link-local, nor still being tried out.
    pub addresses: BTreeSet<IpAddr>,
    /// The default route of IPv4.
    pub route_v4: Option<Route>,
    /// The default route of IPv6.
    pub route_v6: Option<Route>,
}

/// Where packets go that are for nobody near.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the interface.
    pub interface: String,
    /// Address of the router; `None` on links that have but one other end.
    pub gateway: Option<IpAddr>,
}

/// What the network is called: how packets leave it, for an address may be another one tomorrow.
impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let routes = self.route_v4.iter().chain(&self.route_v6);
        let mut names: Vec<String> = routes.map(ToString::to_string).collect();
        if names.is_empty() {
            names.extend(self.addresses.iter().map(ToString::to_string));
        }
        match names.is_empty() {
            true => f.write_str("no way out"),
            false => f.write_str(&names.join(", ")),
        }
    }
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.interface)?;
        match self.gateway {
            Some(gateway) => write!(f, " by {gateway}"),
            None => Ok(()),
        }
    }
}

/// Reads the network and follows it in a task that ends when the last receiver is dropped. Never fails: a network
/// that cannot be followed is asked for every five seconds, with one warning.
pub async fn watch() -> Receiver<Network> {
    let mut first = Netlink::open();
    let state = match &mut first {
        Ok(netlink) => netlink.read().await,
        Err(why) => Err(why.clone()),
    };
    let opened = state.as_ref().err().map_or(first, |why| Err(why.clone()));
    let (sender, receiver) = watch::channel(state.unwrap_or_else(|_| leaving()));
    tokio::spawn(async move {
        tokio::select! {
            () = keep(&sender, opened, Netlink::open, leaving) => {}
            () = sender.closed() => {}
        }
    });
    receiver
}

/// Follows the network as well as it can be followed, without end.
async fn keep(
    sender: &Sender<Network>,
    mut opened: Result<Netlink, String>,
    open: impl Fn() -> Result<Netlink, String>,
    mut look: impl FnMut() -> Network,
) {
    let mut warned = false;
    loop {
        let why = match opened {
            Ok(mut netlink) => netlink.follow(|network| publish(sender, network)).await,
            Err(why) => why,
        };
        if !warned {
            tracing::warn!(
                why,
                "the network cannot be followed and is asked for every 5 s instead"
            );
            warned = true;
        }
        poll(sender, &mut look).await;
        opened = open();
    }
}

/// Looks once, after a while, whether the answers have changed; what is known better stays until they do.
async fn poll(sender: &Sender<Network>, mut look: impl FnMut() -> Network) {
    let before = look();
    sleep(POLL_PERIOD).await;
    let now = look();
    if now != before {
        publish(sender, now);
    }
}

fn publish(sender: &Sender<Network>, network: Network) {
    sender.send_if_modified(|last| {
        let changed = *last != network;
        if changed {
            tracing::info!(%network, addresses = ?network.addresses, "the network has changed");
            *last = network;
        }
        changed
    });
}

/// The addresses that a packet for somebody far away would leave from. Nothing is sent.
fn leaving() -> Network {
    let from = |local: IpAddr, far: IpAddr| {
        let socket = UdpSocket::bind((local, 0)).ok()?;
        // Any port does: a datagram socket that is connected has only looked up its route.
        socket.connect((far, 9)).ok()?;
        socket.local_addr().ok().map(|address| address.ip())
    };
    let far_v4 = Ipv4Addr::new(192, 0, 2, 1).into();
    let far_v6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1).into();
    let v4 = from(Ipv4Addr::UNSPECIFIED.into(), far_v4);
    let v6 = from(Ipv6Addr::UNSPECIFIED.into(), far_v6);
    Network {
        addresses: v4.into_iter().chain(v6).filter(is_usable).collect(),
        ..Network::default()
    }
}

/// Whether somebody outside could be reached from that address. A link-local one means nothing without its zone.
pub fn is_usable(address: &IpAddr) -> bool {
    let link_local = match address {
        IpAddr::V4(v4) => v4.is_link_local(),
        IpAddr::V6(v6) => v6.is_unicast_link_local(),
    };
    !(link_local || address.is_loopback() || address.is_unspecified() || address.is_multicast())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(addresses: &[&str]) -> Network {
        Network {
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            ..Network::default()
        }
    }

    #[test]
    fn a_network_is_called_by_its_way_out_and_without_one_by_its_addresses() {
        assert_eq!(Network::default().to_string(), "no way out");
        let mut network = network(&["192.0.2.5", "2001:db8::5"]);
        assert_eq!(network.to_string(), "192.0.2.5, 2001:db8::5");
        network.route_v4 = Some(Route {
            interface: "eth0".to_owned(),
            gateway: Some("192.0.2.1".parse().unwrap()),
        });
        network.route_v6 = Some(Route {
            interface: "ppp0".to_owned(),
            gateway: None,
        });
        assert_eq!(network.to_string(), "eth0 by 192.0.2.1, ppp0");
    }

    #[test]
    fn addresses_of_nobody_outside_are_not_usable() {
        for (address, usable) in [
            ("192.0.2.5", true),
            ("10.0.0.1", true),
            ("fd00::1", true),
            ("127.0.0.1", false),
            ("::1", false),
            ("169.254.3.4", false),
            ("fe80::1", false),
            ("0.0.0.0", false),
            ("ff02::1", false),
        ] {
            assert_eq!(is_usable(&address.parse().unwrap()), usable, "{address}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn without_netlink_the_network_is_still_watched() {
        let (sender, mut receiver) = watch::channel(network(&["192.0.2.5"]));
        let mut n_looks = 0;
        let look = || {
            n_looks += 1;
            // Two looks in each period; the address moves between those of the third.
            network(&[if n_looks < 6 {
                "192.0.2.5"
            } else {
                "192.0.2.6"
            }])
        };
        let forbidden = || Err("not permitted".to_owned());
        let begin = tokio::time::Instant::now();
        tokio::select! {
            () = keep(&sender, forbidden(), forbidden, look) => panic!("it ended"),
            changed = receiver.changed() => changed.unwrap(),
        }
        assert_eq!(begin.elapsed(), 3 * POLL_PERIOD);
        assert_eq!(*receiver.borrow(), network(&["192.0.2.6"]));
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_polled_is_told_when_it_changes_and_not_before() {
        let known = network(&["192.0.2.5", "192.0.2.6"]);
        let (sender, mut receiver) = watch::channel(known.clone());
        let begin = tokio::time::Instant::now();
        let mut looks = ["192.0.2.5", "192.0.2.5", "192.0.2.5", "192.0.2.9"].iter();
        let mut look = || network(&[looks.next().unwrap()]);
        poll(&sender, &mut look).await;
        assert!(!receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow(), known);
        poll(&sender, &mut look).await;
        assert_eq!(*receiver.borrow_and_update(), network(&["192.0.2.9"]));
        assert_eq!(begin.elapsed(), 2 * POLL_PERIOD);
        publish(&sender, network(&["192.0.2.9"]));
        assert!(!receiver.has_changed().unwrap());
    }

    #[test]
    fn what_a_leaving_packet_would_carry_is_usable() {
        assert!(leaving().addresses.iter().all(is_usable));
    }
}
