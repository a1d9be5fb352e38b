//! ICE candidate lines of servers, made uniform: what the engine cannot use is left out with a reason.
//!
//! Servers differ in case, in trailing extensions and in what they forget (Wowza's cloud sends a TCP candidate
//! without `tcptype`); behind [`normalize`] there is one form.

use std::net::IpAddr;

/// Most candidates kept of one server; real ones send one to four.
const CANDIDATES_MAX: usize = 32;
/// Longest candidate line looked at.
const LINE_MAX: usize = 512;

/// A candidate line in the one form the engine is given: `candidate:F 1 udp|tcp P ADDRESS PORT typ TYPE`,
/// and `tcptype passive` behind a TCP one. Or why it is of no use.
///
/// Takes lines with `a=` in front or without. A TCP candidate without `tcptype` counts as passive, as in
/// Chromium. `generation`, `ufrag`, network hints and related addresses are dropped: the engine does not need
/// them, and reads `tcptype` only right behind the type.
pub(crate) fn normalize(line: &str) -> Result<String, &'static str> {
    if line.len() > LINE_MAX {
        return Err("too long");
    }
    let line = line.trim();
    let line = line.strip_prefix("a=").unwrap_or(line);
    let body = line
        .split_once(':')
        .filter(|(name, _)| name.eq_ignore_ascii_case("candidate"))
        .map(|(_, body)| body)
        .ok_or("not a candidate line")?;
    let tokens: Vec<&str> = body.split_ascii_whitespace().collect();
    let [
        foundation,
        component,
        transport,
        priority,
        address,
        port,
        typ,
        kind,
        extensions @ ..,
    ] = tokens.as_slice()
    else {
        return Err("too few fields");
    };
    if !typ.eq_ignore_ascii_case("typ") {
        return Err("no type");
    }
    let ice_char = |c: char| c.is_ascii_alphanumeric() || "+/-_".contains(c);
    if foundation.is_empty() || foundation.len() > 32 || !foundation.chars().all(ice_char) {
        return Err("unusable foundation");
    }
    if component.parse() != Ok(1_u16) {
        return Err("not for RTP, and RTCP has no port of its own here");
    }
    let priority: u32 = priority.parse().map_err(|_| "unusable priority")?;
    let address: IpAddr = address
        .parse()
        .map_err(|_| "its address is a name, not a number")?;
    if address.is_unspecified() || address.is_multicast() {
        return Err("nobody can be reached at its address");
    }
    let port: u16 = port.parse().map_err(|_| "unusable port")?;
    if port == 0 {
        return Err("unusable port");
    }
    let kind = kind.to_ascii_lowercase();
    if !["host", "srflx", "prflx", "relay"].contains(&kind.as_str()) {
        return Err("unknown type");
    }
    let transport = transport.to_ascii_lowercase();
    let tail = match transport.as_str() {
        "udp" => "",
        "tcp" => {
            let tcptype = extensions
                .chunks_exact(2)
                .find(|pair| pair[0].eq_ignore_ascii_case("tcptype"))
                .map_or("passive", |pair| pair[1]);
            if !tcptype.eq_ignore_ascii_case("passive") {
                return Err("a TCP candidate that does not listen");
            }
            " tcptype passive"
        }
        _ => return Err("unknown transport"),
    };
    Ok(format!(
        "candidate:{foundation} 1 {transport} {priority} {address} {port} typ {kind}{tail}"
    ))
}

/// The usable ones of `lines`, each address once, in their order.
pub(crate) fn usable<'a>(lines: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut kept: Vec<String> = Vec::new();
    for line in lines.into_iter().take(8 * CANDIDATES_MAX) {
        if kept.len() == CANDIDATES_MAX {
            tracing::debug!(
                "the server sent more than {CANDIDATES_MAX} candidates; the rest is left out"
            );
            break;
        }
        // An empty line is how some say that no more candidates come.
        if line.trim().is_empty() {
            continue;
        }
        match normalize(line) {
            Ok(candidate) => {
                if !kept
                    .iter()
                    .any(|k| destination(k) == destination(&candidate))
                {
                    kept.push(candidate);
                }
            }
            Err(why) => tracing::debug!(why, "a candidate of the server is left out"),
        }
    }
    kept
}

/// Transport, address and port: a server that repeats its offer may number the same address anew.
fn destination(candidate: &str) -> Option<(&str, &str, &str)> {
    let mut fields = candidate.split(' ').skip(2);
    let transport = fields.next()?;
    let address = fields.nth(1)?;
    Some((transport, address, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wowza_cloud_candidate_becomes_passive() {
        assert_eq!(
            normalize("candidate:0 1 TCP 50 35.236.28.45 1935 typ host generation 0"),
            Ok("candidate:0 1 tcp 50 35.236.28.45 1935 typ host tcptype passive".to_owned())
        );
    }

    #[test]
    fn ome_candidates_keep_their_long_foundation() {
        assert_eq!(
            normalize("candidate:9649764855137580916 1 TCP 1275068415 127.0.0.1 3479 typ host tcptype passive").as_deref(),
            Ok("candidate:9649764855137580916 1 tcp 1275068415 127.0.0.1 3479 typ host tcptype passive")
        );
        assert_eq!(
            normalize("candidate:0758392416 1 UDP 50 127.0.0.1 10014 typ host").as_deref(),
            Ok("candidate:0758392416 1 udp 50 127.0.0.1 10014 typ host")
        );
    }

    #[test]
    fn extensions_are_stripped() {
        for tail in [
            "generation 0",
            "generation 0 ufrag sXKN network-id 1 network-cost 50",
            "raddr 0.0.0.0 rport 0",
        ] {
            assert_eq!(
                normalize(&format!(
                    "a=candidate:1 1 udp 2113937151 10.0.0.5 50000 typ srflx {tail}"
                ))
                .as_deref(),
                Ok("candidate:1 1 udp 2113937151 10.0.0.5 50000 typ srflx")
            );
        }
        assert_eq!(
            normalize("candidate:1 1 tcp 5 10.0.0.5 9000 typ srflx raddr 1.2.3.4 rport 5 tcptype passive generation 0").as_deref(),
            Ok("candidate:1 1 tcp 5 10.0.0.5 9000 typ srflx tcptype passive")
        );
    }

    #[test]
    fn unusable_ones_are_dropped_not_failed_on() {
        let unusable = [
            "candidate:1 2 udp 5 10.0.0.5 9000 typ host",
            "candidate:1 1 udp 5 4a6b.local 9000 typ host",
            "candidate:1 1 udp 5 10.0.0.5 0 typ host",
            "candidate:1 1 udp 5 0.0.0.0 9000 typ host",
            "candidate:1 1 udp 5 10.0.0.5 70000 typ host",
            "candidate:1 1 udp 4294967296 10.0.0.5 9000 typ host",
            "candidate:1 1 tcp 5 10.0.0.5 9 typ host tcptype active",
            "candidate:1 1 tcp 5 10.0.0.5 9000 typ host tcptype so",
            "candidate:1 1 sctp 5 10.0.0.5 9000 typ host",
            "candidate:1 1 udp 5 10.0.0.5 9000 typ magic",
            "candidate:1 1 udp 5 10.0.0.5 9000 host",
            "candidate:\u{e9} 1 udp 5 10.0.0.5 9000 typ host",
            "candidate:",
            "garbage",
            "",
        ];
        for line in unusable {
            assert!(normalize(line).is_err(), "{line}");
        }
        let good = "candidate:1 1 udp 5 10.0.0.5 9000 typ host";
        assert_eq!(usable(unusable.into_iter().chain([good])), [good]);
    }

    #[test]
    fn an_accumulated_list_names_each_address_once() {
        let lines = [
            "candidate:1 1 UDP 5 10.0.0.5 10000 typ host",
            "candidate:2 1 TCP 4 10.0.0.5 3479 typ host tcptype passive",
            "candidate:3 1 UDP 5 10.0.0.5 10001 typ host",
            "candidate:4 1 TCP 4 10.0.0.5 3479 typ host tcptype passive",
        ];
        assert_eq!(usable(lines).len(), 3);
    }

    #[test]
    fn a_flood_is_cut_off() {
        let lines: Vec<_> = (1..=1000)
            .map(|port| format!("candidate:1 1 udp 5 10.0.0.5 {port} typ host"))
            .collect();
        assert_eq!(
            usable(lines.iter().map(String::as_str)).len(),
            CANDIDATES_MAX
        );
    }
}
