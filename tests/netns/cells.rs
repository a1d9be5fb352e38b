//! The table: what is expected of each profile in each network, and how it is read.

use onair::lab::Profile;

/// A rung by its name in the report.
pub(crate) type Rung = &'static str;

/// What a cell must come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Expected {
    /// On air over this rung.
    OnAir(Rung),
    /// Never on air; these words are in the reason.
    Error(&'static str),
}

/// What the router lets pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Network {
    /// Everything.
    Open,
    /// No UDP; it vanishes without a word, as in most firewalls.
    UdpDropped,
    /// No UDP; its sender is told by ICMP.
    UdpRejected,
}

impl Network {
    /// Its name in the table.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::UdpDropped => "UDP dropped",
            Self::UdpRejected => "UDP rejected",
        }
    }

    /// The rules of the router.
    pub(crate) fn rules(self) -> String {
        match self {
            Self::Open => "accept".to_owned(),
            Self::UdpDropped => "meta l4proto udp drop\naccept".to_owned(),
            Self::UdpRejected => "meta l4proto udp reject\naccept".to_owned(),
        }
    }
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
    /// While it is on air its interface goes down and comes up again.
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

/// One cell of the table.
#[derive(Clone, Debug)]
pub(crate) struct Cell {
    pub(crate) profile: Profile,
    pub(crate) network: Network,
    pub(crate) scenario: Scenario,
    pub(crate) expected: Expected,
    /// Runs while no other cell does, because its times are quoted.
    pub(crate) alone: bool,
}

impl Cell {
    /// Its name, by which it is selected and reported.
    pub(crate) fn name(&self) -> String {
        format!(
            "{}, {}, {}",
            self.profile,
            self.network.name(),
            self.scenario.name()
        )
    }
}

use Expected::{Error, OnAir};

/// No TURN server is known, and the server takes nothing but UDP.
const UDP_ALONE: &str = "no media path came up";

/// On start and when the network returns alike.
#[rustfmt::skip]
const TABLE: &[(Profile, [(Network, Expected); 3])] = &[
    (Profile::Ome021,     [(Network::Open, OnAir("udp")), (Network::UdpDropped, OnAir("tcp")),     (Network::UdpRejected, OnAir("tcp"))]),
    (Profile::Qencode,    [(Network::Open, OnAir("tcp")), (Network::UdpDropped, OnAir("tcp")),     (Network::UdpRejected, OnAir("tcp"))]),
    (Profile::WowzaCloud, [(Network::Open, OnAir("tcp")), (Network::UdpDropped, OnAir("tcp")),     (Network::UdpRejected, OnAir("tcp"))]),
    (Profile::WowzaSe,    [(Network::Open, OnAir("udp")), (Network::UdpDropped, Error(UDP_ALONE)), (Network::UdpRejected, Error(UDP_ALONE))]),
];

/// Every cell, in the order of the table.
pub(crate) fn all() -> Vec<Cell> {
    let mut cells = Vec::new();
    for (profile, row) in TABLE {
        for (network, expected) in row {
            for scenario in [Scenario::Start, Scenario::Returns] {
                // An error is the same whenever the network became what it is.
                if scenario == Scenario::Returns && matches!(expected, Error(_)) {
                    continue;
                }
                cells.push(Cell {
                    profile: *profile,
                    network: *network,
                    scenario,
                    expected: *expected,
                    alone: false,
                });
            }
        }
    }
    for profile in [Profile::Ome021, Profile::WowzaSe] {
        for scenario in [
            Scenario::Outage,
            Scenario::LinkFlap,
            Scenario::NewAddress,
            Scenario::NewRoute,
        ] {
            cells.push(Cell {
                profile,
                network: Network::Open,
                scenario,
                expected: OnAir("udp"),
                alone: false,
            });
        }
    }
    cells
}
