//! The ICE servers that a server hands over, made reachable.

use crate::config::ice_server::{IceKind, IceServer};

/// Most ICE servers taken of one server, by their URLs.
pub(super) const ICE_SERVERS_MAX: usize = 8;

/// `servers`, and where none of them is at `host`, a copy of the first TURN server that is: behind a container's or a
/// cloud's address translation servers name an address of their inner network, while the host that we dialled is
/// the same machine (as the official kits do, protocols.md 5.5).
pub(super) fn reachable(mut servers: Vec<IceServer>, host: &str) -> Vec<IceServer> {
    servers.truncate(ICE_SERVERS_MAX);
    let host = host.trim_matches(['[', ']']);
    let is_turn = |server: &&IceServer| server.url.kind != IceKind::Stun;
    if let Some(first) = servers.iter().find(is_turn)
        && !(servers.iter()).any(|server| server.url.host.eq_ignore_ascii_case(host))
    {
        let mut copy = first.clone();
        host.clone_into(&mut copy.url.host);
        servers.push(copy);
    }
    servers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::secret::Secret;

    fn server(url: &str) -> IceServer {
        IceServer {
            url: url.parse().unwrap(),
            username: "ome".to_owned(),
            credential: Secret::new("airen"),
        }
    }

    fn urls(servers: &[IceServer]) -> Vec<String> {
        servers.iter().map(|s| s.url.to_string()).collect()
    }

    #[test]
    fn an_inner_address_gets_the_host_we_dialled_beside_it() {
        let inner = "turn:10.255.255.1:3478?transport=tcp";
        let outer = "turn:ome.example:3478?transport=tcp";
        let both = reachable(vec![server("stun:s:1"), server(inner)], "ome.example");
        assert_eq!(urls(&both), ["stun:s:1", inner, outer]);
        assert_eq!(both[2].credential, both[1].credential);
        let same = reachable(vec![server(outer)], "OME.example");
        assert_eq!(urls(&same), [outer]);
        let v6 = reachable(vec![server("turn:[fd00::1]:1")], "[2001:db8::1]");
        assert_eq!(v6[1].url.host, "2001:db8::1");
        assert!(reachable(Vec::new(), "ome.example").is_empty());
    }

    #[test]
    fn a_flood_of_servers_is_cut() {
        let many = vec![server("turn:a:1"); 1_000];
        assert_eq!(reachable(many, "a").len(), ICE_SERVERS_MAX);
    }
}
