//! The network that this host is in.

use std::collections::BTreeSet;
use std::net::IpAddr;

/// What of the network concerns a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Network {
    /// Addresses of running interfaces; neither loopback nor link-local.
    pub addresses: BTreeSet<IpAddr>,
    /// Where IPv4 packets to the world leave.
    pub route_v4: Option<Route>,
    /// Where IPv6 packets to the world leave.
    pub route_v6: Option<Route>,
}

/// A default route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// Name of the interface.
    pub interface: String,
    /// The router; `None` on links that need none.
    pub gateway: Option<IpAddr>,
}

impl std::fmt::Display for Network {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut said = false;
        for route in self.route_v4.iter().chain(&self.route_v6) {
            f.write_str(if said { ", " } else { "" })?;
            match route.gateway {
                Some(gateway) => write!(f, "{} by {gateway}", route.interface)?,
                None => f.write_str(&route.interface)?,
            }
            said = true;
        }
        if !said {
            f.write_str("no way out")?;
        }
        Ok(())
    }
}
