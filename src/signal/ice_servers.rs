//! The ICE servers that a server hands over, made reachable.

use crate::config::ice_server::{IceKind, IceServer};

pub(super) use crate::config::ice_server::ICE_SERVERS_MAX;

/// `servers`, and where none of them is at `host`, before them a copy of the first TURN server that is: behind a
/// container's or a cloud's address translation servers name an address of their inner network, while the host that we
/// dialled is the same machine (as the official kits do, protocols.md 5.5).
pub(super) fn reachable(mut servers: Vec<IceServer>, host: &str) -> Vec<IceServer> {
    let host = host.trim_matches(['[', ']']);
    let is_turn = |server: &&IceServer| server.url.kind != IceKind::Stun;
    if let Some(first) = servers.iter().find(is_turn)
        && !(servers.iter()).any(|server| server.url.host.eq_ignore_ascii_case(host))
    {
        let mut copy = first.clone();
        host.clone_into(&mut copy.url.host);
        // Whoever takes fewer takes the first.
        servers.insert(0, copy);
    }
    servers.truncate(ICE_SERVERS_MAX);
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
        assert_eq!(urls(&both), [outer, "stun:s:1", inner]);
        assert_eq!(both[0].credential, both[2].credential);
        let same = reachable(vec![server(outer)], "OME.example");
        assert_eq!(urls(&same), [outer]);
        let v6 = reachable(vec![server("turn:[fd00::1]:1")], "[2001:db8::1]");
        assert_eq!(v6[0].url.host, "2001:db8::1");
        assert!(reachable(Vec::new(), "ome.example").is_empty());
    }

    #[test]
    fn a_flood_of_servers_is_cut() {
        let many = vec![server("turn:a:1"); 1_000];
        assert_eq!(reachable(many.clone(), "a").len(), ICE_SERVERS_MAX);
        let cut = reachable(many, "ome.example");
        assert_eq!(cut.len(), ICE_SERVERS_MAX);
        assert_eq!(
            cut[0].url.host, "ome.example",
            "the one that can be reached stays"
        );
    }
}
