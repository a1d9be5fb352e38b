//! The network under a session: whether a change of it takes the media path away. Pure.

use std::net::IpAddr;

use crate::network::Network;

/// The network in which the path of a session stands, and whether it is there.
#[derive(Debug)]
pub(super) struct Ground {
    stood_in: Network,
    stranded: bool,
}

/// What a change of the network means for the path.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Change {
    /// There is a way out of this host again, most often as it was.
    Back,
    /// The path must be left; says why.
    Left(String),
    /// Nothing for this path.
    None,
    /// There is no way out of this host any more. With none, nothing better could be begun, so a session does best to
    /// hold still: often the same network comes back, and with it the path.
    Stranded,
}

impl Ground {
    /// A path that came up on sockets bound in `network`.
    pub(super) const fn new(network: Network) -> Self {
        Self {
            stood_in: network,
            stranded: false,
        }
    }

    /// Whether there is no way out at present.
    pub(super) const fn is_stranded(&self) -> bool {
        self.stranded
    }

    /// Takes a change to `network`, for a path whose packets leave this host from `local`, be it to a relay or a proxy.
    pub(super) fn change(&mut self, network: Network, local: IpAddr) -> Change {
        // A server on this host, or a relay.
        if local.is_loopback() {
            return Change::None;
        }
        let route = |network: &Network| match local {
            IpAddr::V4(_) => network.route_v4.clone(),
            IpAddr::V6(_) => network.route_v6.clone(),
        };
        let (was, is) = (route(&self.stood_in), route(&network));
        let gone = self.stood_in.addresses.contains(&local) && !network.addresses.contains(&local);
        // A path that came up without a default route goes on without one.
        if !gone && (was == is || was.is_none()) {
            self.stood_in = network;
            return self.way_out();
        }
        // Hosts that never had a default route live on their own links alone.
        if network.addresses.is_empty() || (was.is_some() && is.is_none()) {
            // By the other family. The path may be lost, or its own way out only late in coming back.
            if network.route_v4.is_some() || network.route_v6.is_some() {
                return self.way_out();
            }
            if std::mem::replace(&mut self.stranded, true) {
                return Change::None;
            }
            return Change::Stranded;
        }
        self.stranded = false;
        self.stood_in = network;
        Change::Left(match is {
            _ if gone => "our address is gone".to_owned(),
            Some(route) => format!("the way out is now over {}", route.interface),
            None => "the way out is gone".to_owned(),
        })
    }

    /// There is a way out.
    fn way_out(&mut self) -> Change {
        if std::mem::take(&mut self.stranded) {
            Change::Back
        } else {
            Change::None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Route;

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn network(addresses: &[&str], interface: Option<&str>) -> Network {
        Network {
            addresses: addresses.iter().map(|a| ip(a)).collect(),
            route_v4: interface.map(|name| Route {
                interface: name.to_owned(),
                gateway: None,
            }),
            route_v6: None,
        }
    }

    fn home() -> Network {
        network(&["192.0.2.7"], Some("eth0"))
    }

    #[test]
    fn an_address_that_goes_and_a_way_that_changes_end_the_path() {
        let local = ip("192.0.2.7");
        let mut ground = Ground::new(home());
        let moved = network(&["192.0.2.8"], Some("eth0"));
        let change = ground.change(moved.clone(), local);
        assert_eq!(change, Change::Left("our address is gone".to_owned()));
        // The path is not another one yet when something else changes.
        let more = network(&["192.0.2.8", "172.17.0.1"], Some("eth0"));
        assert_eq!(ground.change(more, local), Change::None, "told once");
        let again = ground.change(moved, ip("192.0.2.8"));
        assert_eq!(again, Change::None, "told once");
        let mut ground = Ground::new(home());
        let other = network(&["192.0.2.7", "198.51.100.2"], Some("wwan0"));
        let change = ground.change(other, local);
        assert_eq!(
            change,
            Change::Left("the way out is now over wwan0".to_owned())
        );
    }

    #[test]
    fn what_concerns_other_paths_changes_nothing() {
        let mut ground = Ground::new(home());
        let more = network(&["192.0.2.7", "172.17.0.1"], Some("eth0"));
        assert_eq!(ground.change(more, ip("192.0.2.7")), Change::None);
        let nothing = Network::default();
        let here = ground.change(nothing, ip("127.0.0.1"));
        assert_eq!(here, Change::None, "a server on this host");
    }

    #[test]
    fn without_any_way_out_a_session_holds_still_until_there_is_one() {
        let local = ip("192.0.2.7");
        let mut ground = Ground::new(home());
        let gone = Network::default();
        assert_eq!(ground.change(gone.clone(), local), Change::Stranded);
        assert_eq!(ground.change(gone.clone(), local), Change::None);
        assert!(ground.is_stranded());
        // The address is back before the route.
        let half = network(&["192.0.2.7"], None);
        assert_eq!(ground.change(half, local), Change::None);
        assert_eq!(ground.change(home(), local), Change::Back);
        assert!(!ground.is_stranded());
        // Or another one comes instead.
        assert_eq!(ground.change(gone, local), Change::Stranded);
        let other = network(&["198.51.100.2"], Some("wwan0"));
        assert!(matches!(ground.change(other, local), Change::Left(_)));
        assert!(!ground.is_stranded());
    }

    #[test]
    fn a_way_out_by_the_other_family_is_one_too() {
        let local = ip("192.0.2.7");
        let mut ground = Ground::new(home());
        let gone = Network::default();
        assert_eq!(ground.change(gone, local), Change::Stranded);
        let mut other = network(&["2001:db8::7"], None);
        other.route_v6 = home().route_v4;
        assert_eq!(ground.change(other.clone(), local), Change::Back);
        assert!(!ground.is_stranded());
        other.addresses.insert(local);
        other.route_v4 = home().route_v4;
        assert_eq!(ground.change(other, local), Change::None);
    }

    #[test]
    fn a_host_that_gets_its_first_default_route_with_its_address_is_not_stranded() {
        let local = ip("192.0.2.7");
        let mut ground = Ground::new(network(&["192.0.2.7"], None));
        let gone = Network::default();
        assert_eq!(ground.change(gone, local), Change::Stranded);
        assert_eq!(ground.change(home(), local), Change::Back);
    }

    #[test]
    fn a_default_route_that_comes_later_takes_nothing_away() {
        let local = ip("192.0.2.7");
        let mut ground = Ground::new(network(&["192.0.2.7"], None));
        assert_eq!(ground.change(home(), local), Change::None);
        let other = network(&["192.0.2.7"], Some("wwan0"));
        let change = ground.change(other, local);
        assert!(matches!(change, Change::Left(_)), "from then on it counts");
    }

    #[test]
    fn a_host_without_a_default_route_moves_between_its_own_links() {
        let mut ground = Ground::new(network(&["192.0.2.7", "10.0.0.2"], None));
        let change = ground.change(network(&["10.0.0.2"], None), ip("192.0.2.7"));
        assert_eq!(change, Change::Left("our address is gone".to_owned()));
    }
}
