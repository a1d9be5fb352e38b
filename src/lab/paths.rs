//! The paths of a session's ICE: where checks come from, and which of those are left behind by a restart.
//!
//! Pure. The engine underneath keeps what it knew when its credentials are exchanged, and would go on sending to
//! where the publisher was; here is remembered what has to be forgotten once the publisher checks from elsewhere.

use std::net::SocketAddr;

use str0m::Candidate;
use str0m::CandidateKind;
use str0m::net::Protocol;

/// Addresses that are remembered; a publisher has a handful.
const REMEMBERED: usize = 64;

/// What is known of the publisher's addresses.
#[derive(Debug, Default)]
pub(super) struct Paths {
    told: Vec<Candidate>,
    sources: Vec<(Protocol, SocketAddr)>,
    /// From before the restart that is under way.
    stale: Vec<(Protocol, SocketAddr)>,
    /// Our user fragment since the last restart, until a check carries it.
    awaited: Option<String>,
    restarted: bool,
}

impl Paths {
    /// The publisher said that it has `candidate`.
    pub(super) fn told(&mut self, candidate: Candidate) {
        if self.told.len() < REMEMBERED {
            self.told.push(candidate);
        }
    }

    /// ICE begins anew; from now on checks carry `ufrag`.
    pub(super) fn restart(&mut self, ufrag: &str) {
        self.stale = std::mem::take(&mut self.sources);
        self.awaited = Some(ufrag.to_owned());
        self.restarted = false;
    }

    /// A packet came from `source`. Returns the candidates that are dead from now on: all from before the restart,
    /// once a check with the new credentials comes from an address that was not known then.
    pub(super) fn heard(
        &mut self,
        protocol: Protocol,
        source: SocketAddr,
        packet: &[u8],
    ) -> Vec<Candidate> {
        let Some(ufrag) = checked(packet) else {
            return Vec::new();
        };
        let path = (protocol, source);
        if let Some(awaited) = &self.awaited {
            if awaited.as_bytes() != ufrag {
                return Vec::new();
            }
            self.awaited = None;
            self.restarted = true;
        }
        if !self.sources.contains(&path) && self.sources.len() < REMEMBERED {
            self.sources.push(path);
        }
        let before = self.stale.len();
        self.stale.retain(|known| *known != path);
        if self.stale.is_empty() || self.stale.len() < before {
            return Vec::new();
        }
        let stale = std::mem::take(&mut self.stale);
        let is_stale =
            |candidate: &Candidate| stale.contains(&(candidate.proto(), candidate.addr()));
        let mut dead: Vec<Candidate> = stale.iter().map(|path| learnt(*path)).collect();
        dead.extend(self.told.iter().filter(|c| is_stale(c)).cloned());
        self.told.retain(|candidate| !is_stale(candidate));
        dead
    }

    /// Whether a restart has come through since this was last asked.
    pub(super) const fn restarted(&mut self) -> bool {
        std::mem::replace(&mut self.restarted, false)
    }
}

/// The candidate that an engine makes of an address from which a check came.
fn learnt((protocol, address): (Protocol, SocketAddr)) -> Candidate {
    let kind = CandidateKind::PeerReflexive;
    Candidate::from_parts(
        String::new(),
        1,
        protocol,
        0,
        address,
        kind,
        None,
        None,
        None,
    )
}

/// The receiver's user fragment in a binding request; `None` if `packet` is none.
fn checked(packet: &[u8]) -> Option<&[u8]> {
    const BINDING_REQUEST: &[u8] = &[0, 1];
    const COOKIE: &[u8] = &[0x21, 0x12, 0xA4, 0x42];
    const USERNAME: u16 = 0x0006;
    if packet.get(..2)? != BINDING_REQUEST || packet.get(4..8)? != COOKIE {
        return None;
    }
    let mut attributes = packet.get(20..)?;
    loop {
        let [t0, t1, l0, l1, rest @ ..] = attributes else {
            return None;
        };
        let length = usize::from(u16::from_be_bytes([*l0, *l1]));
        let value = rest.get(..length)?;
        if u16::from_be_bytes([*t0, *t1]) == USERNAME {
            let end = value.iter().position(|byte| *byte == b':')?;
            return Some(&value[..end]);
        }
        attributes = rest.get(length.next_multiple_of(4)..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(username: &str) -> Vec<u8> {
        let mut packet = vec![0, 1, 0, 0, 0x21, 0x12, 0xA4, 0x42];
        packet.extend_from_slice(&[7; 12]);
        // One attribute before it, whose length is no multiple of four.
        packet.extend_from_slice(&[0xC0, 0x57, 0, 2, 1, 2, 0, 0]);
        let length = u16::try_from(username.len()).expect("short");
        packet.extend_from_slice(&[0, 6]);
        packet.extend_from_slice(&length.to_be_bytes());
        packet.extend_from_slice(username.as_bytes());
        packet.resize(packet.len().next_multiple_of(4), 0);
        packet
    }

    fn at(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn the_user_fragment_is_found_and_garbage_is_not_read() {
        assert_eq!(checked(&check("ours:theirs")), Some(&b"ours"[..]));
        let packet = check("ours:theirs");
        for length in 0..packet.len() - 8 {
            assert_eq!(checked(&packet[..length]), None);
        }
        assert_eq!(checked(&check("no colon")), None);
    }

    #[test]
    fn a_publisher_that_checks_from_elsewhere_after_a_restart_leaves_its_old_addresses() {
        let mut paths = Paths::default();
        let udp = Protocol::Udp;
        paths.told(Candidate::host(at(1), udp).expect("a candidate"));
        assert!(paths.heard(udp, at(1), &check("a:b")).is_empty());
        assert!(paths.heard(udp, at(2), &check("a:b")).is_empty());
        paths.restart("c");
        assert!(paths.heard(udp, at(1), &check("a:b")).is_empty());
        assert!(!paths.restarted());
        let dead = paths.heard(udp, at(3), &check("c:d"));
        let addresses: Vec<_> = dead.iter().map(|c| (c.addr(), c.kind())).collect();
        let learnt = CandidateKind::PeerReflexive;
        assert_eq!(
            addresses,
            [
                (at(1), learnt),
                (at(2), learnt),
                (at(1), CandidateKind::Host)
            ]
        );
        assert!(paths.restarted());
        assert!(!paths.restarted());
        assert!(paths.heard(udp, at(4), &check("c:d")).is_empty());
    }

    #[test]
    fn a_publisher_that_stays_where_it_is_loses_nothing() {
        let mut paths = Paths::default();
        let udp = Protocol::Udp;
        assert!(paths.heard(udp, at(1), &check("a:b")).is_empty());
        paths.restart("c");
        assert!(paths.heard(udp, at(1), &check("c:d")).is_empty());
        assert!(paths.restarted());
    }
}
