//! The way out of a network that lets nothing pass but an HTTP proxy: `CONNECT` (RFC 9110, section 9.3.6).
//!
//! All that we dial is a tunnel, so all of it asks for the proxy of HTTPS, as RFC 6455 (section 4.1) advises for
//! WebSockets. Only the proxy's address, its status and never its credentials reach an error or a log.

use std::io;
use std::time::Duration;

use hyper::Uri;
use hyper::header::HeaderValue;
use hyper_util::client::proxy::matcher::{Intercept, Matcher};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use url::Url;

use super::target::Endpoint;
use super::tls::Alpn;
use super::{Error, Step, Stream, Tls, USER_AGENT, failed, tcp, within};
use crate::config;

/// Longest wait for the answer to `CONNECT`: the proxy looks up the name and connects meanwhile.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// Longest head of an answer, interim answers included.
const HEAD_MAX: usize = 16 * 1024;

/// Which connections go through which proxy. What the environment says is read once.
pub(super) struct Proxies {
    matcher: Matcher,
}

/// What the environment says of proxies; empty where it says nothing.
#[derive(Default)]
struct Variables {
    https: String,
    all: String,
    no: String,
}

impl Proxies {
    pub(super) fn new(proxy: &config::Proxy) -> Result<Self, Error> {
        match proxy {
            config::Proxy::Environment => Ok(Self::of(&Variables {
                https: variable(["HTTPS_PROXY", "https_proxy"]),
                all: variable(["ALL_PROXY", "all_proxy"]),
                no: variable(["NO_PROXY", "no_proxy"]),
            })),
            config::Proxy::None => Ok(Self::of(&Variables::default())),
            config::Proxy::Url(url) => {
                let url = usable(url.expose()).ok_or_else(|| Error::Url {
                    why: "unusable proxy URL: it must be http:// or https:// with a host"
                        .to_owned(),
                })?;
                let matcher = Matcher::builder().all(url).build();
                Ok(Self { matcher })
            }
        }
    }

    fn of(variables: &Variables) -> Self {
        let read = |name: &str, value: &str| {
            let url = usable(value);
            if url.is_none() && !value.is_empty() {
                tracing::warn!("{name} is no URL of a proxy and is not used");
            }
            url.unwrap_or_default()
        };
        let matcher = Matcher::builder()
            .https(read("HTTPS_PROXY", &variables.https))
            .all(read("ALL_PROXY", &variables.all))
            .no(&variables.no)
            .build();
        Self { matcher }
    }

    /// The proxy that stands before `endpoint`.
    pub(super) fn towards(&self, endpoint: &Endpoint) -> Option<Proxy> {
        let uri = Uri::builder()
            .scheme("https")
            .authority(format!("{}:{}", endpoint.host, endpoint.port))
            .path_and_query("/")
            .build()
            .ok()?;
        self.matcher.intercept(&uri).as_ref().map(Proxy::new)
    }
}

/// One proxy.
pub(super) struct Proxy {
    address: Endpoint,
    authorization: Option<HeaderValue>,
}

impl Proxy {
    fn new(intercept: &Intercept) -> Self {
        let uri = intercept.uri();
        let (scheme, port) = match uri.scheme_str() {
            Some("https") => ("https", 443),
            Some("http") => ("http", 80),
            _ => ("socks", 1080),
        };
        let port = uri.port_u16().unwrap_or(port);
        Self {
            address: Endpoint::new(scheme, uri.host().unwrap_or_default(), port),
            authorization: intercept.basic_auth().cloned(),
        }
    }

    /// Opens a tunnel to `endpoint`.
    pub(super) async fn connect(
        &self,
        endpoint: &Endpoint,
        tls: &Tls,
    ) -> Result<Box<dyn Stream>, Error> {
        if self.address.scheme == "socks" {
            let why = format!(
                "{} speaks SOCKS; set proxy to one that is http:// or https://, or to \"none\"",
                self.address
            );
            return Err(failed(endpoint, Step::Proxy, why, None));
        }
        tracing::debug!(%endpoint, proxy = %self.address, "connecting through the proxy");
        let stream = self.reach(tls).await.map_err(|error| {
            // The proxy is the place to look at, the server the connection that is missed.
            failed(endpoint, Step::Proxy, error.to_string(), error.into_cause())
        })?;
        within(
            endpoint,
            Step::Proxy,
            CONNECT_DEADLINE,
            self.tunnel(endpoint, stream),
        )
        .await
    }

    async fn reach(&self, tls: &Tls) -> Result<Box<dyn Stream>, Error> {
        let tcp = tcp::connect(&self.address).await?;
        if self.address.scheme == "http" {
            return Ok(Box::new(tcp));
        }
        let secured = tls
            .secure(&self.address, self.address.bare_host(), tcp, Alpn::Proxy)
            .await?;
        Ok(Box::new(secured))
    }

    /// Asks for the tunnel on an open connection to the proxy.
    async fn tunnel(
        &self,
        endpoint: &Endpoint,
        mut stream: Box<dyn Stream>,
    ) -> Result<Box<dyn Stream>, Error> {
        let broken = |why: &str, source| {
            let why = format!("{}: {why}", self.address);
            failed(endpoint, Step::Proxy, why, source)
        };
        let authority = format!("{}:{}", endpoint.host, endpoint.port);
        let mut request = format!(
            "CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\nUser-Agent: {USER_AGENT}\r\n"
        )
        .into_bytes();
        if let Some(authorization) = &self.authorization {
            request.extend(b"Proxy-Authorization: ");
            request.extend(authorization.as_bytes());
            request.extend(b"\r\n");
        }
        request.extend(b"\r\n");
        let hung_up = |e: io::Error| broken(&e.to_string(), Some(e));
        stream.write_all(&request).await.map_err(hung_up)?;
        stream.flush().await.map_err(hung_up)?;

        let mut stream = BufReader::new(stream);
        let mut left = HEAD_MAX;
        loop {
            let head = read_head(&mut stream, &mut left).await.map_err(hung_up)?;
            match status(&head) {
                None => return Err(broken("what answers there is no HTTP proxy", None)),
                Some(100..=199) => {}
                // Whatever length the answer states, the tunnel begins behind its head.
                Some(200..=299) if stream.buffer().is_empty() => return Ok(stream.into_inner()),
                Some(200..=299) => return Ok(Box::new(stream)),
                Some(status) => {
                    return Err(Error::Proxy {
                        endpoint: endpoint.to_string(),
                        proxy: self.address.to_string(),
                        status,
                    });
                }
            }
        }
    }
}

/// What a status that opens no tunnel asks of the operator.
pub(super) const fn hint(status: u16) -> &'static str {
    match status {
        300..=399 => "it redirects instead of connecting; the address is not that of a proxy",
        401 | 407 => "it wants other credentials: http://user:password@host:port",
        400 | 404 | 405 | 501 => "it does not know CONNECT; the address is not that of a proxy",
        403 => "it forbids this server or port; have its owner allow CONNECT to it",
        500 | 502 | 503 | 504 => "it cannot reach the server",
        429 => "it wants fewer connections",
        _ => "it opens no tunnel",
    }
}

/// The head of an answer up to its empty line, taking at most `left` bytes.
async fn read_head(
    stream: &mut BufReader<Box<dyn Stream>>,
    left: &mut usize,
) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    loop {
        let begin = head.len();
        let n_read = stream
            .take(*left as u64)
            .read_until(b'\n', &mut head)
            .await?;
        *left -= n_read;
        if !head[begin..].ends_with(b"\n") {
            let why = match *left {
                0 => "its answer has no end",
                _ => "it hung up without an answer",
            };
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, why));
        }
        if matches!(&head[begin..], b"\n" | b"\r\n") {
            return Ok(head);
        }
    }
}

/// The status in the head of an HTTP/1 answer (RFC 9112, section 4).
fn status(head: &[u8]) -> Option<u16> {
    let rest = head.strip_prefix(b"HTTP/1.")?;
    let [b'0'..=b'9', b' ', digits @ ..] = rest else {
        return None;
    };
    let [a, b, c, b' ' | b'\r' | b'\n', ..] = digits else {
        return None;
    };
    let text = [*a, *b, *c];
    let number: u16 = str::from_utf8(&text).ok()?.parse().ok()?;
    (number >= 100).then_some(number)
}

/// A proxy's URL in the form that the matcher reads: with its scheme, and user and password escaped.
fn usable(value: &str) -> Option<String> {
    let value = value.trim();
    let url = match value.contains("://") {
        true => Url::parse(value),
        false => Url::parse(&format!("http://{value}")),
    };
    let url = url.ok().filter(Url::has_host)?.to_string();
    // The matcher is stricter than the URL standard; what it does not take would silently be no proxy.
    let asked = Uri::from_static("https://server.invalid/");
    let taken = Matcher::builder()
        .all(&url)
        .build()
        .intercept(&asked)
        .is_some();
    taken.then_some(url)
}

#[expect(
    clippy::disallowed_methods,
    reason = "these variables are how a machine states its proxy to all programs"
)]
fn variable(names: [&str; 2]) -> String {
    let found = names.iter().filter_map(|name| std::env::var(name).ok());
    found
        .into_iter()
        .find(|v| !v.is_empty())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
