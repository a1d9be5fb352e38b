//! Who may ask what. Pure.
//!
//! Whoever can reach the server without a token is on this host; what remains to be kept out are web pages that a
//! browser on this host shows: they can be made to send requests here (CSRF), and a name of theirs can be made to
//! mean this host (DNS rebinding). With a token nobody has rights by where he is, and such tricks gain nothing.

use std::net::IpAddr;

use crate::config::secret::Secret;

/// What a request says of where it comes from.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Asked<'a> {
    /// `Host`.
    pub(super) host: Option<&'a str>,
    /// `Origin`.
    pub(super) origin: Option<&'a str>,
    /// `Sec-Fetch-Site`.
    pub(super) site: Option<&'a str>,
    /// `Authorization`.
    pub(super) authorization: Option<&'a str>,
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Matter {
    /// Something is to be done.
    Control,
    /// Nothing that anyone must not know.
    Open,
    /// Everything else.
    State,
}

/// Why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refusal {
    /// A page from elsewhere asks, in the name of whoever looks at it.
    #[error("a web page of another origin may not ask for this")]
    CrossSite,
    /// The name in the request means this host by somebody's trick.
    #[error(
        "ask for 127.0.0.1, [::1] or localhost; another name would need a `token` in [daemon.status]"
    )]
    Host,
    /// The token is missing or wrong.
    #[error("send the `token` of [daemon.status] as Authorization: Bearer")]
    Token,
}

/// Whether what is `asked` may be answered, if `token` is what everyone must show.
pub(super) fn admit(
    matter: Matter,
    asked: &Asked<'_>,
    token: Option<&Secret>,
) -> Result<(), Refusal> {
    if matter == Matter::Control && asked.is_cross_site() {
        return Err(Refusal::CrossSite);
    }
    match token {
        _ if matter == Matter::Open => Ok(()),
        Some(token) if asked.shows(token) => Ok(()),
        Some(_) => Err(Refusal::Token),
        None if asked.host.is_some_and(is_loopback) => Ok(()),
        None => Err(Refusal::Host),
    }
}

impl Asked<'_> {
    /// Shows the token.
    pub(super) fn shows(&self, token: &Secret) -> bool {
        let Some((scheme, shown)) = self.authorization.and_then(|a| a.split_once(' ')) else {
            return false;
        };
        scheme.eq_ignore_ascii_case("bearer")
            && same(shown.trim().as_bytes(), token.expose().as_bytes())
    }

    /// Sent by a browser for a page that is not ours. Programs send none of these headers.
    fn is_cross_site(&self) -> bool {
        let elsewhere = self
            .site
            .is_some_and(|site| !matches!(site, "same-origin" | "none"));
        let foreign = self.origin.is_some_and(|origin| {
            let (_, place) = origin.split_once("://").unwrap_or_default();
            self.host != Some(place)
        });
        elsewhere || foreign
    }
}

/// Whether the two are the same, in a time that does not depend on where they differ.
fn same(one: &[u8], other: &[u8]) -> bool {
    let differences = one.iter().zip(other).fold(0, |sum, (a, b)| sum | (a ^ b));
    one.len() == other.len() && std::hint::black_box(differences) == 0
}

/// Whether a `Host` header names this host in a way that nobody else can define.
fn is_loopback(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let bare = name.strip_prefix('[').and_then(|n| n.strip_suffix(']'));
    let address: Option<IpAddr> = bare.unwrap_or(name).parse().ok();
    name.eq_ignore_ascii_case("localhost") || address.is_some_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    const HERE: Asked<'_> = Asked {
        host: Some("127.0.0.1:9810"),
        origin: None,
        site: None,
        authorization: None,
    };

    #[test]
    fn without_a_token_only_this_host_by_its_own_names_is_admitted() {
        for host in [
            "127.0.0.1",
            "127.0.0.1:9810",
            "localhost:80",
            "LOCALHOST",
            "[::1]",
            "[::1]:9810",
        ] {
            let asked = Asked {
                host: Some(host),
                ..HERE
            };
            assert_eq!(admit(Matter::Control, &asked, None), Ok(()), "{host}");
        }
        for host in [
            "",
            "evil.example",
            "evil.example:9810",
            "localhost.evil.example",
            "127.0.0.1.evil.example:9810",
            "192.0.2.1:9810",
            "[::2]:1",
            "0.0.0.0",
            "::1",
            "[127.0.0.1",
        ] {
            let asked = Asked {
                host: Some(host),
                ..HERE
            };
            let refused = Err(Refusal::Host);
            assert_eq!(admit(Matter::State, &asked, None), refused, "{host}");
            assert_eq!(admit(Matter::Open, &asked, None), Ok(()));
        }
        let nameless = Asked { host: None, ..HERE };
        assert_eq!(admit(Matter::State, &nameless, None), Err(Refusal::Host));
    }

    #[test]
    fn a_token_is_asked_of_everyone_by_whatever_name() {
        let token = Secret::new("a-token-of-length");
        let ask = |authorization| {
            let asked = Asked {
                host: Some("kiosk.example"),
                authorization,
                ..HERE
            };
            admit(Matter::Control, &asked, Some(&token))
        };
        for right in ["Bearer a-token-of-length", "bearer  a-token-of-length "] {
            assert_eq!(ask(Some(right)), Ok(()), "{right}");
        }
        for wrong in [
            "",
            "Bearer",
            "Bearer ",
            "Bearer a-token-of-lengt",
            "Bearer a-token-of-length2",
            "Basic a-token-of-length",
            "a-token-of-length",
        ] {
            assert_eq!(ask(Some(wrong)), Err(Refusal::Token), "{wrong}");
        }
        assert_eq!(ask(None), Err(Refusal::Token));
        assert_eq!(
            admit(Matter::State, &HERE, Some(&token)),
            Err(Refusal::Token),
            "loopback too"
        );
    }

    #[test]
    fn a_page_from_elsewhere_controls_nothing() {
        let control = |origin, site| {
            let asked = Asked {
                origin,
                site,
                ..HERE
            };
            admit(Matter::Control, &asked, None)
        };
        assert_eq!(
            control(Some("http://127.0.0.1:9810"), Some("same-origin")),
            Ok(())
        );
        assert_eq!(control(None, Some("none")), Ok(()));
        for (origin, site) in [
            (Some("https://evil.example"), None),
            (Some("null"), None),
            (Some(""), None),
            (Some("http://127.0.0.1:80"), None),
            (Some("http://localhost:9810"), None),
            (None, Some("cross-site")),
            (None, Some("same-site")),
            (Some("http://127.0.0.1:9810"), Some("cross-site")),
        ] {
            assert_eq!(
                control(origin, site),
                Err(Refusal::CrossSite),
                "{origin:?} {site:?}"
            );
        }
        let read = Asked {
            site: Some("cross-site"),
            ..HERE
        };
        assert_eq!(
            admit(Matter::State, &read, None),
            Ok(()),
            "browsers keep the answer from the page"
        );
    }
}
