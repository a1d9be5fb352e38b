//! URLs of servers: checked once, sent whole, printed as scheme, host and port only.

use std::fmt;

use url::Url;

use super::{Error, tls};

/// A server as errors and logs name it: scheme, host and port, nothing that could be secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Endpoint {
    pub(super) scheme: &'static str,
    /// As in a URL: IPv6 in brackets.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Endpoint {
    /// Takes an IPv6 address with or without brackets.
    pub(super) fn new(scheme: &'static str, host: &str, port: u16) -> Self {
        let host = match host.contains(':') && !host.starts_with('[') {
            true => format!("[{host}]"),
            false => host.to_owned(),
        };
        Self { scheme, host, port }
    }

    /// The host as everything but a URL wants it: IPv6 without brackets.
    pub(super) fn bare_host(&self) -> &str {
        self.host.trim_matches(['[', ']'])
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}:{}", self.scheme, self.host, self.port)
    }
}

/// The URL of a server, checked. Prints as scheme, host and port.
#[derive(Clone)]
pub struct Target {
    url: Url,
    pub(super) tls: bool,
    pub(super) endpoint: Endpoint,
}

impl Target {
    /// Checks the URL of a WebSocket (scheme `ws` or `wss`) and sets the given query parameters in it, leaving every
    /// other byte of the query as it was, for it may be signed.
    pub fn parse(url: &str, query: &[(&str, &str)]) -> Result<Self, Error> {
        Self::checked(url, query, "the scheme must be ws or wss", &["ws", "wss"])
    }

    /// The same for a URL that is asked for over HTTP (scheme `http` or `https`).
    pub fn parse_http(url: &str, query: &[(&str, &str)]) -> Result<Self, Error> {
        let schemes = &["http", "https"];
        Self::checked(url, query, "the scheme must be http or https", schemes)
    }

    fn checked(
        url: &str,
        query: &[(&str, &str)],
        wanted: &str,
        schemes: &'static [&'static str; 2],
    ) -> Result<Self, Error> {
        let unusable = |why: &str| Error::Url {
            why: format!("unusable server URL: {why}"),
        };
        // The parser's message says what is wrong without repeating the URL.
        let mut url = Url::parse(url).map_err(|e| unusable(&e.to_string()))?;
        let Some(scheme) = schemes.iter().find(|scheme| **scheme == url.scheme()) else {
            return Err(unusable(wanted));
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("user name and password have no place in it"));
        }
        let Some(host) = url.host_str() else {
            return Err(unusable("it names no host"));
        };
        let Some(port) = url.port_or_known_default() else {
            return Err(unusable("it names no port"));
        };
        let endpoint = Endpoint::new(scheme, host, port);
        url.set_fragment(None);
        if !query.is_empty() {
            let merged = merge_query(url.query().unwrap_or_default(), query);
            url.set_query(Some(&merged));
        }
        Ok(Self {
            url,
            tls: matches!(*scheme, "https" | "wss"),
            endpoint,
        })
    }

    /// Where `reference` (a `Location`, RFC 9110 section 10.2.2) leads from here; it may lead to another origin, but
    /// not to another kind of scheme.
    pub fn join(&self, reference: &str) -> Result<Self, Error> {
        let joined = self.url.join(reference).map_err(|e| Error::Url {
            why: format!("unusable server URL: {e}"),
        })?;
        match self.endpoint.scheme {
            "http" | "https" => Self::parse_http(joined.as_str(), &[]),
            _ => Self::parse(joined.as_str(), &[]),
        }
    }

    /// The same with `name` in place of the last part of the path. `None` if the path has fewer than two parts.
    pub fn sibling(&self, name: &str) -> Option<String> {
        let mut url = self.url.clone();
        let parts = url.path_segments()?.filter(|part| !part.is_empty()).count();
        if parts < 2 || url.path().ends_with('/') {
            return None;
        }
        url.path_segments_mut().ok()?.pop().push(name);
        Some(url.into())
    }

    /// Whether both have scheme, host and port in common: what may be told to one may be told to the other.
    pub fn same_origin(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint
    }

    /// Whether the connection is secured by TLS.
    pub const fn is_tls(&self) -> bool {
        self.tls
    }

    /// Name or address of the server; IPv6 without brackets.
    pub fn host(&self) -> &str {
        self.endpoint.bare_host()
    }

    /// Port of the server.
    pub const fn port(&self) -> u16 {
        self.endpoint.port
    }

    /// The whole URL, for the one place that must send it.
    pub(crate) fn expose(&self) -> &Url {
        &self.url
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.endpoint.fmt(f)
    }
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Target({self})")
    }
}

/// Name or address in a URL, if it can be used at all; IPv6 without brackets.
pub(super) fn host(url: &str) -> Option<String> {
    let url = Url::parse(url).ok()?;
    url.host_str()
        .map(|host| host.trim_matches(['[', ']']).to_owned())
}

/// A URL as it may be kept in a file: scheme, host and port, and after `#` a digest of all of it, so that two
/// addresses at one host are told apart and no secret in a path can be read back.
pub fn masked(url: &str) -> String {
    let origin = Url::parse(url).map(|url| url.origin().ascii_serialization());
    let digest = tls::sha256(url.as_bytes()).unwrap_or_default();
    let digest = u64::from_be_bytes(std::array::from_fn(|n| digest[n]));
    format!("{}#{digest:016x}", origin.as_deref().unwrap_or("unknown"))
}

fn merge_query(old: &str, set: &[(&str, &str)]) -> String {
    let name = |pair: &str| pair.split_once('=').map_or(pair.len(), |(n, _)| n.len());
    let mut pairs: Vec<String> = Vec::new();
    let mut unset = set.to_vec();
    for pair in old.split('&').filter(|pair| !pair.is_empty()) {
        let key = &pair[..name(pair)];
        if let Some(at) = unset.iter().position(|(n, _)| *n == key) {
            let (n, value) = unset.remove(at);
            pairs.push(format!("{n}={value}"));
        } else if !set.iter().any(|(n, _)| *n == key) {
            pairs.push(pair.to_owned());
        }
    }
    pairs.extend(unset.iter().map(|(n, value)| format!("{n}={value}")));
    pairs.join("&")
}
