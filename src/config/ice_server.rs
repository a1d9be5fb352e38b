//! STUN and TURN servers, from the configuration or handed over by an ingest server.

use std::fmt;
use std::str::FromStr;

use super::secret::Secret;

/// Most servers taken of one configuration or one ingest server, and used in one session: more than any network has,
/// and each costs sockets.
pub const ICE_SERVERS_MAX: usize = 8;
/// Longest URL that is read; servers are hostile.
const URL_MAX: usize = 512;

/// One way to reach a STUN or TURN server, with its long-term credential.
#[derive(Clone, Debug, PartialEq)]
pub struct IceServer {
    /// Where it is and what it speaks.
    pub url: IceUrl,
    /// User name; empty for STUN.
    pub username: String,
    /// Password; empty for STUN.
    pub credential: Secret,
}

/// The address of a STUN or TURN server (RFC 7064, RFC 7065): `turn:host:3478?transport=tcp`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IceUrl {
    /// What is spoken there, over which transport.
    pub kind: IceKind,
    /// Name or address; IPv6 without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
}

/// What a server of an [`IceUrl`] is, as far as we differ in speaking to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum IceKind {
    /// STUN over UDP: `stun:`.
    Stun,
    /// TURN over TCP: `turn:...?transport=tcp`.
    TurnTcp,
    /// TURN over TLS: `turns:`, whatever transport is named.
    TurnTls,
    /// TURN over UDP: `turn:`.
    TurnUdp,
}

/// Why a text is no [`IceUrl`]; the text is not repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("is no STUN or TURN URL, such as \"turn:host:3478?transport=tcp\" or \"turns:host:443\"")]
pub struct NotAnIceUrl;

impl FromStr for IceUrl {
    type Err = NotAnIceUrl;

    fn from_str(text: &str) -> Result<Self, NotAnIceUrl> {
        if text.len() > URL_MAX {
            return Err(NotAnIceUrl);
        }
        let (scheme, rest) = text.split_once(':').ok_or(NotAnIceUrl)?;
        let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
        let transport = match query.split_once('=') {
            None if query.is_empty() => None,
            Some((name, value)) if name.eq_ignore_ascii_case("transport") => Some(value),
            _ => return Err(NotAnIceUrl),
        };
        let is = |word: &str| transport.is_some_and(|t| t.eq_ignore_ascii_case(word));
        let (kind, default_port) = match scheme.to_ascii_lowercase().as_str() {
            "stun" if transport.is_none() => (IceKind::Stun, 3478),
            "turn" if transport.is_none() || is("udp") => (IceKind::TurnUdp, 3478),
            "turn" if is("tcp") => (IceKind::TurnTcp, 3478),
            "turns" if transport.is_none() || is("tcp") => (IceKind::TurnTls, 5349),
            _ => return Err(NotAnIceUrl),
        };
        let authority = authority.strip_prefix("//").unwrap_or(authority);
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => {
                let (host, after) = v6.split_once(']').ok_or(NotAnIceUrl)?;
                (host, after.strip_prefix(':'))
            }
            None => match authority.split_once(':') {
                Some((host, port)) => (host, Some(port)),
                None => (authority, None),
            },
        };
        let port = match port {
            Some(port) => port.parse().map_err(|_| NotAnIceUrl)?,
            None => default_port,
        };
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%');
        if host.is_empty() || port == 0 || !host.chars().all(fits) {
            return Err(NotAnIceUrl);
        }
        Ok(Self {
            kind,
            host: host.to_owned(),
            port,
        })
    }
}

impl fmt::Display for IceUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (scheme, transport) = match self.kind {
            IceKind::Stun => ("stun", ""),
            IceKind::TurnTcp => ("turn", "?transport=tcp"),
            IceKind::TurnTls => ("turns", "?transport=tcp"),
            IceKind::TurnUdp => ("turn", "?transport=udp"),
        };
        let port = self.port;
        if self.host.contains(':') {
            write!(f, "{scheme}:[{}]:{port}{transport}", self.host)
        } else {
            write!(f, "{scheme}:{}:{port}{transport}", self.host)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_as_the_rfcs_and_servers_write_them() {
        let said = |text: &str| text.parse::<IceUrl>().map(|url| url.to_string());
        let same = |text: &str| Ok(text.to_owned());
        assert_eq!(said("stun:a.example"), same("stun:a.example:3478"));
        assert_eq!(said("turn:a:9"), same("turn:a:9?transport=udp"));
        assert_eq!(
            said("turn:203.0.113.1:3478?transport=tcp"),
            same("turn:203.0.113.1:3478?transport=tcp")
        );
        assert_eq!(
            said("TURN:a:9?transport=TCP"),
            same("turn:a:9?transport=tcp")
        );
        assert_eq!(said("turns:a"), same("turns:a:5349?transport=tcp"));
        assert_eq!(
            said("turns:[::1]:443"),
            same("turns:[::1]:443?transport=tcp")
        );
    }

    #[test]
    fn what_is_no_url_is_refused() {
        for text in [
            "",
            "turn",
            "turn:",
            "turn::3478",
            "turn:a:0",
            "turn:a:99999",
            "turn:a?transport=sctp",
            "turns:a?transport=udp",
            "stun:a?transport=tcp",
            "http://a",
            "turn:[::1:3478",
            "turn:a b:3478",
            "turn:user@a:3478",
        ] {
            assert!(text.parse::<IceUrl>().is_err(), "{text}");
        }
        assert!(
            format!("turn:{}", "a".repeat(600))
                .parse::<IceUrl>()
                .is_err()
        );
    }
}
