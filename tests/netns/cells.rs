//! What is expected: each profile in each kind of network, each rung of the ladder, each way to move.

use onair::lab::Profile;

use super::services::PROXY_PORT;
use super::world::{INGEST, PROXY, TURN};

use Expected::{Error, OnAir};

/// What a cell must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// On air over this rung, named as in the report.
    OnAir(&'static str),
    /// Never on air; these words are in the reason.
    Error(&'static str),
}

/// What passes between agent and servers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Everything.
    Open,
    /// Everything over IPv6, nothing over IPv4.
    Ipv6,
    /// No UDP; it vanishes without a word, as in most firewalls.
    UdpDropped,
    /// TCP to port 443 alone.
    Only443,
    /// Connections to the proxy alone, which the configuration names.
    OnlyProxy,
    /// The same, and the environment names it.
    OnlyProxyOfEnvironment,
    /// To the ingest server signalling alone; to others everything.
    NoMedia,
    /// The same, and no UDP.
    NoMediaNoUdp,
}

impl Network {
    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Ipv6 => "IPv6 alone",
            Self::UdpDropped => "UDP dropped",
            Self::Only443 => "only 443 by TLS",
            Self::OnlyProxy | Self::OnlyProxyOfEnvironment => "only by the proxy",
            Self::NoMedia => "media ports dropped",
            Self::NoMediaNoUdp => "media ports and UDP dropped",
        }
    }

    /// What the router lets pass, if the ingest server's signalling is at `port`; all else vanishes.
    pub(crate) fn rules(self, port: u16) -> String {
        let signalling = || {
            format!(
                "ip daddr {INGEST} tcp dport {port} accept\n\
                 ip saddr {INGEST} tcp sport {port} accept\n\
                 ip daddr {INGEST} drop\n\
                 ip saddr {INGEST} drop\n"
            )
        };
        match self {
            Self::Open => "accept".to_owned(),
            Self::Ipv6 => "meta nfproto ipv6 accept".to_owned(),
            Self::UdpDropped => "meta l4proto udp drop\naccept".to_owned(),
            Self::Only443 => "tcp dport 443 accept\ntcp sport 443 accept".to_owned(),
            Self::OnlyProxy | Self::OnlyProxyOfEnvironment => {
                format!(
                    "ip daddr {PROXY} tcp dport {PROXY_PORT} accept\nip saddr {PROXY} tcp sport {PROXY_PORT} accept"
                )
            }
            Self::NoMedia => signalling() + "accept",
            Self::NoMediaNoUdp => signalling() + "meta l4proto udp drop\naccept",
        }
    }

    /// Whether the ingest server is reached at port 443 by TLS.
    pub(crate) const fn is_secured(self) -> bool {
        matches!(
            self,
            Self::Only443 | Self::OnlyProxy | Self::OnlyProxyOfEnvironment
        )
    }

    /// The TURN servers that an operator in this network configures.
    pub(crate) fn turn_urls(self) -> Vec<String> {
        match self {
            Self::Only443 | Self::OnlyProxy | Self::OnlyProxyOfEnvironment => {
                vec![every_turn_url()[2].clone()]
            }
            Self::NoMedia | Self::NoMediaNoUdp => every_turn_url().to_vec(),
            Self::Open | Self::Ipv6 | Self::UdpDropped => Vec::new(),
        }
    }
}

/// The TURN server's URLs: UDP, TCP, TLS.
pub(crate) fn every_turn_url() -> [String; 3] {
    [
        format!("turn:{TURN}:3478?transport=udp"),
        format!("turn:{TURN}:3478?transport=tcp"),
        format!("turns:{TURN}:443?transport=tcp"),
    ]
}

/// What happens in a cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scenario {
    /// The agent starts in this network.
    Start,
    /// The agent starts while nothing passes at all; once its first attempt has failed the network is there.
    Returns,
    /// While it is on air nothing passes any more; once it has noticed the network is back.
    Outage,
    /// While it is on air its interface goes down; once it has noticed it comes up again.
    LinkFlap,
    /// While it is on air its address is replaced by another one.
    NewAddress,
    /// While it is on air its default route moves to another interface and provider.
    NewRoute,
}

impl Scenario {
    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Returns => "network returns",
            Self::Outage => "outage on air",
            Self::LinkFlap => "link down and up",
            Self::NewAddress => "address changed",
            Self::NewRoute => "default route changed",
        }
    }
}

/// The table that a cell belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Each profile in each kind of network.
    Firewalls,
    /// The network changes under a session.
    Moves,
    /// One server that offers everything, while one way after the other is blocked. Nothing else runs meanwhile, for
    /// its times are quoted.
    Rungs,
}

/// One cell of a table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) group: Group,
    pub(crate) profile: Profile,
    pub(crate) network: Network,
    pub(crate) scenario: Scenario,
    /// TURN servers that the agent's configuration names.
    pub(crate) turn_urls: Vec<String>,
    pub(crate) expected: Expected,
}

impl Cell {
    /// The dialect to be spoken there, by its name in the report.
    pub(crate) fn dialect(&self) -> &'static str {
        match self.profile {
            Profile::Ome016 | Profile::Ome020 | Profile::Ome021 | Profile::Qencode => "ome",
            Profile::Whip | Profile::WhipOme | Profile::WhipWowza => "whip",
            Profile::WowzaCloud | Profile::WowzaSe => "wowza-v1",
            Profile::WowzaV2 => "wowza-v2",
        }
    }

    /// Its name, by which it is selected and reported.
    pub(crate) fn name(&self) -> String {
        let rung = if self.group == Group::Rungs {
            "rungs, "
        } else {
            ""
        };
        format!(
            "{rung}{}, {}, {}",
            self.profile,
            self.network.name(),
            self.scenario.name()
        )
    }
}

/// The networks of [`FIREWALLS`], in the order of its columns. In the last two a TURN server is configured, which takes
/// TLS at 443; in the others none is.
const NETWORKS: [Network; 5] = [
    Network::Open,
    Network::Ipv6,
    Network::UdpDropped,
    Network::Only443,
    Network::OnlyProxy,
];

const UDP: Expected = OnAir("udp");
const TCP: Expected = OnAir("tcp");
const TURN_TCP: Expected = OnAir("turn-tcp");
const TURN_TLS: Expected = OnAir("turn-tls");

/// The server takes nothing but UDP, and no TURN server is known.
const NO_WAY: Expected =
    Error("udp: no answer to connectivity checks; tcp: the server offers no TCP candidate");
/// The server takes nothing but TCP at another port, and TURN servers relay nothing but UDP.
const NO_RELAY: Expected =
    Error("turn-tls: the server offers no IPv4 UDP candidate for a relay to reach");

/// What each profile comes to, on start and when the network returns alike.
#[rustfmt::skip]
const FIREWALLS: &[(Profile, [Expected; 5])] = &[
    //                     open IPv6 UDP dropped  443       proxy
    (Profile::Ome016,     [UDP, UDP, TURN_TCP, TURN_TLS, TURN_TLS]),
    (Profile::Ome020,     [UDP, UDP, TURN_TCP, TURN_TLS, TURN_TLS]),
    (Profile::Ome021,     [UDP, UDP, TCP,      TURN_TLS, TCP]),
    (Profile::Qencode,    [TCP, TCP, TCP,      TURN_TLS, TCP]),
    (Profile::Whip,       [UDP, UDP, TCP,      TURN_TLS, TCP]),
    (Profile::WhipOme,    [UDP, UDP, TCP,      TURN_TLS, TCP]),
    (Profile::WhipWowza,  [UDP, UDP, TCP,      TURN_TLS, TCP]),
    (Profile::WowzaCloud, [TCP, TCP, TCP,      NO_RELAY, TCP]),
    (Profile::WowzaSe,    [UDP, UDP, NO_WAY,   TURN_TLS, TURN_TLS]),
    (Profile::WowzaV2,    [UDP, UDP, TCP,      TURN_TLS, TCP]),
];

/// What media takes where one way after the other is blocked.
const RUNGS: &[(Network, &str)] = &[
    (Network::Open, "udp"),
    (Network::UdpDropped, "tcp"),
    (Network::NoMedia, "turn-udp"),
    (Network::NoMediaNoUdp, "turn-tcp"),
    (Network::Only443, "turn-tls"),
];

/// Whose sessions are moved, in which network, and what media takes afterwards: in the same network, and by the other
/// provider, who lets everything pass.
const MOVED: &[(Profile, Network, Expected, Expected)] = &[
    (Profile::Ome021, Network::Open, UDP, UDP),
    (Profile::Whip, Network::Open, UDP, UDP),
    (Profile::WhipWowza, Network::Only443, TURN_TLS, UDP),
    (Profile::WowzaCloud, Network::Open, TCP, TCP),
    (Profile::WowzaSe, Network::Open, UDP, UDP),
    (Profile::WowzaV2, Network::Open, UDP, UDP),
];

/// The ways to move, in the order of the columns.
const MOVES: [Scenario; 4] = [
    Scenario::Outage,
    Scenario::LinkFlap,
    Scenario::NewAddress,
    Scenario::NewRoute,
];

/// Every cell, in the order of the tables.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for &(network, rung) in RUNGS {
        cells.push(Cell {
            group: Group::Rungs,
            profile: Profile::Ome021,
            network,
            scenario: Scenario::Start,
            turn_urls: every_turn_url().to_vec(),
            expected: OnAir(rung),
        });
    }
    for &(profile, row) in FIREWALLS {
        for (network, expected) in NETWORKS.into_iter().zip(row) {
            // One kind of server shows that the environment's proxy is taken, the others the configuration's.
            let network = match (network, profile) {
                (Network::OnlyProxy, Profile::Whip | Profile::WhipOme | Profile::WhipWowza) => {
                    Network::OnlyProxyOfEnvironment
                }
                (network, _) => network,
            };
            for scenario in [Scenario::Start, Scenario::Returns] {
                // An error is the same whenever the network became what it is.
                if scenario == Scenario::Start || matches!(expected, OnAir(_)) {
                    let turn_urls = network.turn_urls();
                    let group = Group::Firewalls;
                    cells.push(Cell {
                        group,
                        profile,
                        network,
                        scenario,
                        turn_urls,
                        expected,
                    });
                }
            }
        }
    }
    for &(profile, network, here, elsewhere) in MOVED {
        for scenario in MOVES {
            let expected = if scenario == Scenario::NewRoute {
                elsewhere
            } else {
                here
            };
            let turn_urls = network.turn_urls();
            let group = Group::Moves;
            cells.push(Cell {
                group,
                profile,
                network,
                scenario,
                turn_urls,
                expected,
            });
        }
    }
    cells
}
