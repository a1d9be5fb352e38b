//! Remote ICE candidates: a tolerant reader of `candidate:` lines (RFC 8839, section 5.1) and of SDPs that hold them.
//!
//! Servers write what they like (`TCP` without `tcptype`, foundations of twenty digits, `generation 0`); the engine
//! is strict. What can be used is said again in the engine's words, the rest is passed over.

use std::net::{IpAddr, SocketAddr};

use crate::config::Transport;

use super::ladder::Rung;

/// Most remote candidates taken for one connection: each costs checks, and over TCP a dial.
pub(super) const MAX_CANDIDATES: usize = 16;

/// How a candidate is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Protocol {
    /// ICE-TCP, with us dialling (RFC 6544).
    Tcp,
    /// UDP.
    Udp,
}

impl std::fmt::Display for Protocol {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

/// A remote candidate that can be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// How to reach it.
    pub(super) protocol: Protocol,
    /// Where it is.
    pub(super) address: SocketAddr,
    priority: u32,
    kind: &'static str,
}

impl Candidate {
    /// Reads `candidate:...`, with or without `a=` before it. `None` for what cannot be used: other components,
    /// host names, TCP candidates that want to dial us, ports that nobody listens on, and whatever does not parse.
    pub(crate) fn parse(line: &str) -> Option<Self> {
        let line = line.trim();
        let line = line.strip_prefix("a=").unwrap_or(line);
        let mut words = line
            .strip_prefix("candidate:")
            .unwrap_or(line)
            .split_ascii_whitespace();
        let _foundation = words.next()?;
        if words.next()? != "1" {
            return None;
        }
        let protocol = match words.next()?.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            _ => return None,
        };
        let priority = words.next()?.parse().unwrap_or(1);
        let ip: IpAddr = words.next()?.parse().ok()?;
        let port: u16 = words.next()?.parse().ok()?;
        if port == 0 || ip.is_unspecified() || ip.is_multicast() {
            return None;
        }
        if words.next()? != "typ" {
            return None;
        }
        let kind = match words.next()? {
            "host" => "host",
            "prflx" | "srflx" => "srflx",
            "relay" => "relay",
            _ => return None,
        };
        let rest: Vec<&str> = words.collect();
        let dials_us = rest.windows(2).any(|pair| {
            pair[0].eq_ignore_ascii_case("tcptype") && !pair[1].eq_ignore_ascii_case("passive")
        });
        if protocol == Protocol::Tcp && dials_us {
            return None;
        }
        Some(Self {
            protocol,
            address: SocketAddr::new(ip, port),
            priority,
            kind,
        })
    }

    /// The rungs on which it can be reached, of those that `transport` allows. Relays are given IPv4 addresses.
    pub(super) fn rungs(&self, transport: Transport) -> Vec<Rung> {
        let reaches = |rung: &Rung| match rung {
            Rung::Tcp => self.protocol == Protocol::Tcp,
            Rung::Udp => self.protocol == Protocol::Udp,
            Rung::TurnUdp | Rung::TurnTcp | Rung::TurnTls => {
                self.protocol == Protocol::Udp && self.address.is_ipv4()
            }
        };
        let allowed = Rung::ALL.into_iter().filter(|rung| rung.allowed(transport));
        allowed.filter(reaches).collect()
    }

    /// The line as the engine reads it. A TCP candidate is said to be a passive host: that alone makes it dial.
    pub(crate) fn line(&self) -> String {
        let (ip, port) = (self.address.ip(), self.address.port());
        match self.protocol {
            Protocol::Tcp => format!(
                "candidate:1 1 tcp {} {ip} {port} typ host tcptype passive",
                self.priority
            ),
            Protocol::Udp if self.kind == "host" => {
                format!("candidate:1 1 udp {} {ip} {port} typ host", self.priority)
            }
            Protocol::Udp => format!(
                "candidate:1 1 udp {} {ip} {port} typ {} raddr 0.0.0.0 rport 0",
                self.priority, self.kind
            ),
        }
    }
}

/// A relayed address of ours as a candidate, the `n`-th of its kind; a later one is preferred less.
pub(super) fn relayed(n: u8, address: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    // The type preference of relayed candidates is 0 (RFC 8445, section 5.1.2.2).
    let priority = (u32::from(u16::MAX - u16::from(n)) << 8) | 255;
    let foundation = 91 + u32::from(n);
    format!("candidate:{foundation} 1 udp {priority} {ip} {port} typ relay raddr 0.0.0.0 rport 0")
}

/// What a STUN server sees as the address of our socket `base`, as the `n`-th such candidate.
pub(super) fn server_reflexive(n: u8, address: SocketAddr, base: SocketAddr) -> String {
    let (ip, port) = (address.ip(), address.port());
    let (base_ip, base_port) = (base.ip(), base.port());
    // The type preference of server-reflexive candidates is 100 (RFC 8445, section 5.1.2.2).
    let priority = (100 << 24) | (u32::from(u16::MAX - u16::from(n)) << 8) | 255;
    let foundation = 51 + u32::from(n);
    format!(
        "candidate:{foundation} 1 udp {priority} {ip} {port} typ srflx raddr {base_ip} rport {base_port}"
    )
}

/// Takes the candidates out of `sdp`: the SDP without them, and their lines without `a=`.
///
/// The engine dials TCP candidates only when they are added one by one, so none may reach it inside an SDP.
pub(super) fn taken_out(sdp: &str) -> (String, Vec<String>) {
    let mut kept = String::with_capacity(sdp.len());
    let mut candidates = Vec::new();
    for line in sdp.lines() {
        if let Some(candidate) = line.strip_prefix("a=candidate:") {
            if candidates.len() < MAX_CANDIDATES {
                candidates.push(format!("candidate:{candidate}"));
            }
        } else if !line.starts_with("a=end-of-candidates") && !line.is_empty() {
            kept.push_str(line);
            kept.push_str("\r\n");
        }
    }
    (kept, candidates)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<String> {
        Candidate::parse(line).map(|candidate| candidate.line())
    }

    #[test]
    fn what_servers_write_is_said_again_in_the_engines_words() {
        assert_eq!(
            parse("candidate:0 1 TCP 50 10.1.2.3 1935 typ host generation 0").as_deref(),
            Some("candidate:1 1 tcp 50 10.1.2.3 1935 typ host tcptype passive")
        );
        assert_eq!(
            parse("a=candidate:12345678901234567890 1 UDP 2130706431 127.0.0.1 10000 typ host")
                .as_deref(),
            Some("candidate:1 1 udp 2130706431 127.0.0.1 10000 typ host")
        );
        assert_eq!(
            parse("candidate:1 1 tcp 1275068415 127.0.0.1 3479 typ host tcptype passive ufrag x")
                .as_deref(),
            Some("candidate:1 1 tcp 1275068415 127.0.0.1 3479 typ host tcptype passive")
        );
        assert_eq!(
            parse("candidate:1 1 udp 99999999999 2001:db8::1 5 typ srflx raddr 10.0.0.1 rport 4")
                .as_deref(),
            Some("candidate:1 1 udp 1 2001:db8::1 5 typ srflx raddr 0.0.0.0 rport 0")
        );
    }

    #[test]
    fn what_cannot_be_used_is_passed_over() {
        for line in [
            "",
            "candidate:",
            "candidate:1 2 udp 1 127.0.0.1 5 typ host",
            "candidate:1 1 sctp 1 127.0.0.1 5 typ host",
            "candidate:1 1 udp 1 abcdef.local 5 typ host",
            "candidate:1 1 udp 1 127.0.0.1 0 typ host",
            "candidate:1 1 udp 1 127.0.0.1 70000 typ host",
            "candidate:1 1 udp 1 0.0.0.0 5 typ host",
            "candidate:1 1 udp 1 127.0.0.1 5 typ",
            "candidate:1 1 udp 1 127.0.0.1 5 typ strange",
            "candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype active",
            "candidate:1 1 tcp 1 127.0.0.1 9 typ host tcptype so",
        ] {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn candidates_leave_the_sdp_and_their_number_is_bounded() {
        let mut sdp =
            "v=0\na=candidate:1 1 udp 1 127.0.0.1 5 typ host\na=mid:0\na=end-of-candidates\n"
                .to_owned();
        let (kept, candidates) = taken_out(&sdp);
        assert_eq!(kept, "v=0\r\na=mid:0\r\n");
        assert_eq!(candidates, ["candidate:1 1 udp 1 127.0.0.1 5 typ host"]);
        for n in 0..1_000 {
            sdp.push_str(&format!("a=candidate:{n} 1 udp 1 127.0.0.1 5 typ host\n"));
        }
        assert_eq!(taken_out(&sdp).1.len(), MAX_CANDIDATES);
    }

    #[test]
    fn the_configured_transport_decides_which_rungs_reach_it() {
        use Rung::{Tcp, TurnTcp, TurnTls, TurnUdp, Udp};
        let rungs = |line: &str, transport| {
            let candidate = Candidate::parse(line).expect("usable");
            candidate.rungs(transport)
        };
        let tcp = "candidate:1 1 tcp 1 127.0.0.1 5 typ host";
        assert_eq!(rungs(tcp, Transport::Auto), [Tcp]);
        assert_eq!(rungs(tcp, Transport::Tcp), [Tcp]);
        assert!(rungs(tcp, Transport::Udp).is_empty());
        assert!(rungs(tcp, Transport::Relay).is_empty());
        let udp = "candidate:1 1 udp 1 127.0.0.1 5 typ host";
        assert_eq!(
            rungs(udp, Transport::Auto),
            [Udp, TurnUdp, TurnTcp, TurnTls]
        );
        assert_eq!(rungs(udp, Transport::Tcp), [TurnTcp, TurnTls]);
        let v6 = "candidate:1 1 udp 1 2001:db8::1 5 typ host";
        assert_eq!(rungs(v6, Transport::Auto), [Udp]);
    }

    #[test]
    fn a_relayed_address_is_said_as_a_candidate() {
        let line = relayed(1, SocketAddr::from(([192, 0, 2, 9], 49_152)));
        assert_eq!(
            line,
            "candidate:92 1 udp 16776959 192.0.2.9 49152 typ relay raddr 0.0.0.0 rport 0"
        );
        assert_eq!(Candidate::parse(&line).map(|c| c.kind), Some("relay"));
    }
}
