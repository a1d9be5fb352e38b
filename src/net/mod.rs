//! Bytes to a server, other than media: name, addresses, TCP, TLS, each step with a deadline of its own and
//! named in the error.
//!
//! URLs of ingest servers are as good as passwords, so a [`Target`] prints as scheme, host and port only, and
//! no error carries more than that.

pub mod tls;
pub mod ws;

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::timeout;
use url::Url;

pub use tls::Tls;

use crate::config;

/// Longest wait for the name service.
const DNS_DEADLINE: Duration = Duration::from_secs(5);
/// Longest wait for TCP, over all addresses.
const TCP_DEADLINE: Duration = Duration::from_secs(10);
/// Longest wait for the TLS handshake.
const TLS_DEADLINE: Duration = Duration::from_secs(10);
/// Head start of each address over the next one (RFC 8305, section 5).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses tried of one name; a hostile name service must not make us open sockets without end.
const ADDRESSES_MAX: usize = 16;

/// A byte stream to a server: TCP or TLS, or a pipe in tests.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// The step at which reaching a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asking the name service.
    Dns,
    /// Connecting to an address.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// The HTTP upgrade to a WebSocket.
    Upgrade,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Dns => "looking up the name",
            Self::Tcp => "connecting over TCP",
            Self::Tls => "negotiating TLS",
            Self::Upgrade => "upgrading to a WebSocket",
        })
    }
}

/// Why a server could not be reached. Endpoints are scheme, host and port; nothing else of the URL is shown.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file of further certificate authorities cannot be used.
    #[error("ca_file {}: {why}", path.display())]
    CaFile {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        why: String,
    },
    /// A step failed.
    #[error("{endpoint}: {step} failed: {why}")]
    Failed {
        /// Scheme, host and port.
        endpoint: String,
        /// The step.
        step: Step,
        /// What happened and, where it is known, what to do.
        why: String,
        /// The cause, where the operating system or TLS reported one.
        #[source]
        source: Option<io::Error>,
    },
    /// The server answered the upgrade with an HTTP status other than 101.
    #[error("{endpoint}: {} failed: HTTP status {status}: {}", Step::Upgrade, upgrade_hint(*status))]
    Status {
        /// Scheme, host and port.
        endpoint: String,
        /// HTTP status.
        status: u16,
    },
    /// A step took too long.
    #[error("{endpoint}: {step} took longer than {} s", after.as_secs())]
    Timeout {
        /// Scheme, host and port.
        endpoint: String,
        /// The step.
        step: Step,
        /// Its deadline.
        after: Duration,
    },
    /// The URL cannot be used. It is not shown.
    #[error("{why}")]
    Url {
        /// What is wrong with it.
        why: String,
    },
}

impl Error {
    /// The step that failed; `None` where nothing was tried yet.
    pub const fn step(&self) -> Option<Step> {
        match self {
            Self::CaFile { .. } | Self::Url { .. } => None,
            Self::Failed { step, .. } | Self::Timeout { step, .. } => Some(*step),
            Self::Status { .. } => Some(Step::Upgrade),
        }
    }
}

const fn upgrade_hint(status: u16) -> &'static str {
    match status {
        200 => "this is a web server, not a WebSocket endpoint; check port and path",
        300..=399 => "the server redirects; use the address it redirects to",
        401 | 403 => "the server wants an authorization that the URL does not carry",
        404 => "nothing speaks WebSocket at this path",
        426 => "the server wants another protocol version",
        500..=599 => "the server or a proxy before it is in trouble",
        _ => "the server does not speak WebSocket here",
    }
}

/// A WebSocket URL, checked. Prints as scheme, host and port.
#[derive(Clone)]
pub struct Target {
    url: Url,
    tls: bool,
    host: String,
    port: u16,
}

impl Target {
    /// Checks `url` (scheme `ws` or `wss`) and sets the given query parameters in it, leaving every other byte
    /// of the query as it was, for it may be signed.
    pub fn parse(url: &str, query: &[(&str, &str)]) -> Result<Self, Error> {
        let unusable = |why: &str| Error::Url {
            why: format!("unusable server URL: {why}"),
        };
        // The parser's message says what is wrong without repeating the URL.
        let mut url = Url::parse(url).map_err(|e| unusable(&e.to_string()))?;
        let tls = match url.scheme() {
            "ws" => false,
            "wss" => true,
            _ => return Err(unusable("the scheme must be ws or wss")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(unusable("user name and password have no place in it"));
        }
        let Some(host) = url.host_str().map(str::to_owned) else {
            return Err(unusable("it names no host"));
        };
        let Some(port) = url.port_or_known_default() else {
            return Err(unusable("it names no port"));
        };
        url.set_fragment(None);
        if !query.is_empty() {
            let merged = merge_query(url.query().unwrap_or_default(), query);
            url.set_query(Some(&merged));
        }
        Ok(Self {
            url,
            tls,
            host,
            port,
        })
    }

    /// The name or address in the URL; IPv6 in brackets.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The whole URL, for the one place that must send it.
    pub(crate) fn expose(&self) -> &Url {
        &self.url
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}", self.url.scheme(), self.host, self.port)
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Target({self})")
    }
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

/// How this publisher's connections are made. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    tls: Tls,
}

impl Dialer {
    /// Reads certificate authorities, so it may block for some milliseconds. Fails only if `trust.ca_file` cannot be
    /// read or holds no certificate.
    pub fn new(trust: &config::Trust, _proxy: &config::Proxy) -> Result<Self, Error> {
        Ok(Self {
            tls: Tls::new(trust.ca_file.as_deref())?,
        })
    }

    /// Opens a byte stream to `target`: looks up its name, connects to the first address that answers, and wraps
    /// the connection in TLS where the scheme asks for it.
    pub async fn dial(&self, target: &Target) -> Result<Box<dyn Stream>, Error> {
        dial(target, &self.tls).await
    }
}

async fn dial(target: &Target, tls: &Tls) -> Result<Box<dyn Stream>, Error> {
    let addresses = resolve(target).await?;
    let tcp = connect(target, addresses).await?;
    // Handshakes are a few small messages in each direction; delaying them gains nothing.
    if let Err(error) = tcp.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    if !target.tls {
        return Ok(Box::new(tcp));
    }
    let secured = within(target, Step::Tls, TLS_DEADLINE, async {
        tls.connect(&target.host, tcp)
            .await
            .map_err(|e| failed(target, Step::Tls, tls::explain(&e), Some(e)))
    })
    .await?;
    Ok(Box::new(secured))
}

async fn resolve(target: &Target) -> Result<Vec<SocketAddr>, Error> {
    // A literal IPv6 address stands in brackets in a URL and without them everywhere else.
    let host = target.host.trim_matches(['[', ']']);
    let found = within(target, Step::Dns, DNS_DEADLINE, async {
        tokio::net::lookup_host((host, target.port))
            .await
            .map_err(|e| failed(target, Step::Dns, e.to_string(), Some(e)))
    })
    .await?;
    let addresses = interleave(found.take(ADDRESSES_MAX).collect());
    if addresses.is_empty() {
        let why = "the name has no address".to_owned();
        return Err(failed(target, Step::Dns, why, None));
    }
    Ok(addresses)
}

/// Address families in turns, the resolver's favourite first, so that one broken family costs one head start.
fn interleave(addresses: Vec<SocketAddr>) -> Vec<SocketAddr> {
    let first_is_v6 = addresses.first().is_some_and(SocketAddr::is_ipv6);
    let (a, b): (Vec<_>, Vec<_>) = addresses
        .into_iter()
        .partition(|address| address.is_ipv6() == first_is_v6);
    let (mut a, mut b) = (a.into_iter(), b.into_iter());
    let mut mixed = Vec::new();
    loop {
        let (x, y) = (a.next(), b.next());
        if x.is_none() && y.is_none() {
            return mixed;
        }
        mixed.extend(x.into_iter().chain(y));
    }
}

async fn connect(target: &Target, addresses: Vec<SocketAddr>) -> Result<TcpStream, Error> {
    let tried = addresses.len();
    within(target, Step::Tcp, TCP_DEADLINE, async {
        let mut attempts = JoinSet::new();
        let mut delay = Duration::ZERO;
        for address in addresses {
            attempts.spawn(async move {
                tokio::time::sleep(delay).await;
                TcpStream::connect(address).await
            });
            delay += ATTEMPT_DELAY;
        }
        let mut last = None;
        // Dropping the set ends the attempts that lost the race.
        while let Some(attempt) = attempts.join_next().await {
            match attempt {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = Some(error),
                Err(error) => last = Some(io::Error::other(error)),
            }
        }
        let cause = last.as_ref().map_or_else(String::new, ToString::to_string);
        let why = format!("{cause} ({tried} address(es) tried)");
        Err(failed(target, Step::Tcp, why, last))
    })
    .await
}

async fn within<T>(
    target: &Target,
    step: Step,
    after: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(after, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            endpoint: target.to_string(),
            step,
            after,
        })
    })
}

fn failed(target: &Target, step: Step, why: String, source: Option<io::Error>) -> Error {
    Error::Failed {
        endpoint: target.to_string(),
        step,
        why,
        source,
    }
}

#[cfg(test)]
mod tests;
