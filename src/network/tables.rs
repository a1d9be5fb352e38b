//! From the kernel's tables of links, addresses and routes to a [`Network`]: which of it matters.
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "the kernel tells dozens of attributes, and of each kind two or three matter"
)]

use std::collections::HashMap;
use std::net::IpAddr;

use rtnetlink::packet_route::AddressFamily;
use rtnetlink::packet_route::address::{AddressAttribute, AddressFlags, AddressMessage};
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::packet_route::route::{
    RouteAddress, RouteAttribute, RouteHeader, RouteMessage, RouteType,
};

use super::{Network, Route, is_usable};

/// What the three lists say together.
pub(super) fn assembled(
    links: &[LinkMessage],
    addresses: &[AddressMessage],
    routes: &[RouteMessage],
) -> Network {
    let links: HashMap<u32, &str> = links.iter().filter_map(running).collect();
    let usable = addresses
        .iter()
        .filter(|address| links.contains_key(&address.header.index))
        .filter_map(address)
        .filter(is_usable)
        .collect();
    let route = |is_v6: bool| {
        let of_family = routes
            .iter()
            .filter(|r| (r.header.address_family == AddressFamily::Inet6) == is_v6)
            .filter_map(|message| route(message, &links));
        let best = of_family.min_by_key(|(metric, _)| *metric);
        best.map(|(_, route)| route)
    };
    Network {
        addresses: usable,
        route_v4: route(false),
        route_v6: route(true),
    }
}

/// Index and name of a link that carries packets.
fn running(link: &LinkMessage) -> Option<(u32, &str)> {
    if !link
        .header
        .flags
        .contains(LinkFlags::Up | LinkFlags::Running)
    {
        return None;
    }
    link.attributes
        .iter()
        .find_map(|attribute| match attribute {
            LinkAttribute::IfName(name) => Some((link.header.index, name.as_str())),
            _ => None,
        })
}

/// Our address; on links with two ends the kernel calls the other end's the address, and ours the local one.
fn address(message: &AddressMessage) -> Option<IpAddr> {
    let mut found = None;
    let mut local = None;
    let mut flags = AddressFlags::from_bits_retain(message.header.flags.bits().into());
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Address(address) => found = Some(*address),
            AddressAttribute::Local(address) => local = Some(*address),
            AddressAttribute::Flags(all) => flags = *all,
            _ => {}
        }
    }
    let untried = AddressFlags::Tentative | AddressFlags::Dadfailed;
    local.or(found).filter(|_| !flags.intersects(untried))
}

/// Whether it is the way to everywhere, of the table that is asked for ordinary packets.
pub(super) fn is_default(route: &RouteMessage) -> bool {
    let table = route
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            RouteAttribute::Table(table) => Some(*table),
            _ => None,
        });
    let main = u32::from(RouteHeader::RT_TABLE_MAIN);
    route.header.destination_prefix_length == 0
        && route.header.kind == RouteType::Unicast
        && table.unwrap_or_else(|| route.header.table.into()) == main
}

/// The metric of a default route and where it leads, if its link is up.
fn route(message: &RouteMessage, links: &HashMap<u32, &str>) -> Option<(u32, Route)> {
    let mut metric = 0;
    let mut hop = (None, None);
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Priority(priority) => metric = *priority,
            RouteAttribute::MultiPath(hops) => {
                // Of several ways that share the load, the first that is up stands for all.
                let up = hops.iter().find(|h| links.contains_key(&h.interface_index));
                hop = up.map_or(hop, |h| {
                    let gateway = h.attributes.iter().find_map(gateway);
                    (Some(h.interface_index), gateway)
                });
            }
            RouteAttribute::Oif(index) => hop.0 = Some(*index),
            other => hop.1 = gateway(other).or(hop.1),
        }
    }
    let (index, gateway) = hop;
    let interface = (*links.get(&index?)?).to_owned();
    Some((metric, Route { interface, gateway }))
}

fn gateway(attribute: &RouteAttribute) -> Option<IpAddr> {
    match attribute {
        RouteAttribute::Gateway(RouteAddress::Inet(v4)) => Some((*v4).into()),
        RouteAttribute::Gateway(RouteAddress::Inet6(v6)) => Some((*v6).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use rtnetlink::RouteMessageBuilder;

    use super::*;

    fn link(index: u32, name: &str, flags: LinkFlags) -> LinkMessage {
        let mut link = LinkMessage::default();
        link.header.index = index;
        link.header.flags = flags;
        link.attributes.push(LinkAttribute::IfName(name.to_owned()));
        link
    }

    fn has(index: u32, attributes: &[AddressAttribute]) -> AddressMessage {
        let mut address = AddressMessage::default();
        address.header.index = index;
        address.attributes = attributes.to_vec();
        address
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn default_route(v6: bool, attributes: &[RouteAttribute]) -> RouteMessage {
        let mut route = match v6 {
            true => RouteMessageBuilder::<Ipv6Addr>::new().build(),
            false => RouteMessageBuilder::<Ipv4Addr>::new().build(),
        };
        route.header.table = RouteHeader::RT_TABLE_MAIN;
        route.header.kind = RouteType::Unicast;
        route.attributes = attributes.to_vec();
        route
    }

    fn up() -> LinkFlags {
        LinkFlags::Up | LinkFlags::Running
    }

    #[test]
    fn usable_addresses_are_those_of_links_that_carry() {
        let links = [
            link(1, "lo", up() | LinkFlags::Loopback),
            link(2, "eth0", up()),
            link(3, "unplugged", LinkFlags::Up),
            link(4, "down", LinkFlags::empty()),
            link(5, "ppp0", up()),
        ];
        let addresses = [
            has(1, &[AddressAttribute::Address(ip("127.0.0.1"))]),
            has(2, &[AddressAttribute::Address(ip("192.0.2.5"))]),
            has(2, &[AddressAttribute::Address(ip("fe80::5"))]),
            has(2, &[AddressAttribute::Address(ip("fd00::5"))]),
            has(
                2,
                &[
                    AddressAttribute::Address(ip("fd00::6")),
                    AddressAttribute::Flags(AddressFlags::Tentative),
                ],
            ),
            has(3, &[AddressAttribute::Address(ip("192.0.2.6"))]),
            has(4, &[AddressAttribute::Address(ip("192.0.2.7"))]),
            has(
                5,
                &[
                    AddressAttribute::Address(ip("198.51.100.1")),
                    AddressAttribute::Local(ip("198.51.100.2")),
                ],
            ),
            has(9, &[AddressAttribute::Address(ip("192.0.2.8"))]),
        ];
        let network = assembled(&links, &addresses, &[]);
        let expected = ["192.0.2.5", "198.51.100.2", "fd00::5"].map(ip);
        assert_eq!(network.addresses.into_iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_default_route_is_the_cheapest_whose_link_is_up() {
        let links = [link(2, "eth0", up()), link(3, "wlan0", up())];
        let via = |index, gateway: Ipv4Addr, metric| {
            let attributes = [
                RouteAttribute::Oif(index),
                RouteAttribute::Gateway(RouteAddress::Inet(gateway)),
                RouteAttribute::Priority(metric),
            ];
            default_route(false, &attributes)
        };
        let routes = [
            via(9, Ipv4Addr::new(192, 0, 2, 9), 1),
            via(3, Ipv4Addr::new(192, 0, 2, 3), 600),
            via(2, Ipv4Addr::new(192, 0, 2, 2), 100),
        ];
        let network = assembled(&links, &[], &routes);
        let route = Route {
            interface: "eth0".to_owned(),
            gateway: Some(ip("192.0.2.2")),
        };
        assert_eq!((network.route_v4, network.route_v6), (Some(route), None));

        let direct = default_route(true, &[RouteAttribute::Oif(3)]);
        let route = Route {
            interface: "wlan0".to_owned(),
            gateway: None,
        };
        assert_eq!(assembled(&links, &[], &[direct]).route_v6, Some(route));
    }

    #[test]
    fn other_tables_and_routes_to_nowhere_are_no_default_routes() {
        let plain = default_route(true, &[]);
        assert!(is_default(&plain));
        let mut nowhere = plain.clone();
        nowhere.header.kind = RouteType::Unreachable;
        assert!(!is_default(&nowhere));
        let mut narrow = plain.clone();
        narrow.header.destination_prefix_length = 64;
        assert!(!is_default(&narrow));
        let mut other = plain.clone();
        other.attributes.push(RouteAttribute::Table(51_820));
        assert!(!is_default(&other));
    }
}
