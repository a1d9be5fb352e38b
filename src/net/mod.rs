//! Bytes to a server, other than media: name, addresses, TCP, TLS, each step with a deadline of its own and
//! named in the error.
//!
//! URLs of ingest servers are as good as passwords, so a [`Target`] prints as scheme, host and port only, and
//! no error carries more than that.

pub mod http;
mod proxy;
mod target;
mod tcp;
mod tls;
pub mod ws;

use std::fmt;
use std::io;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, BufReader};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

pub use target::{Target, masked};
pub(crate) use tcp::keep_shallow;

use self::proxy::Proxies;
use self::target::Endpoint;
use self::tls::{Alpn, Tls};
use crate::config;
use crate::config::secret::Secret;

/// Who we are, for the operators of servers and proxies.
const USER_AGENT: &str = concat!("onair/", env!("CARGO_PKG_VERSION"));

/// A byte stream to a server: TCP or TLS, or a pipe in tests.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {
    /// The address of this host that its packets leave from: to the server, or to the proxy before it. `None` where there
    /// are none, or none any more.
    fn leaves_from(&self) -> Option<IpAddr>;
}

impl Stream for TcpStream {
    fn leaves_from(&self) -> Option<IpAddr> {
        self.local_addr().ok().map(|local| local.ip())
    }
}

impl<S: Stream + ?Sized> Stream for Box<S> {
    fn leaves_from(&self) -> Option<IpAddr> {
        (**self).leaves_from()
    }
}

impl<S: Stream> Stream for BufReader<S> {
    fn leaves_from(&self) -> Option<IpAddr> {
        self.get_ref().leaves_from()
    }
}

#[cfg(test)]
impl Stream for tokio::io::DuplexStream {
    fn leaves_from(&self) -> Option<IpAddr> {
        None
    }
}

/// The step at which reaching a server failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Asking the name service.
    Dns,
    /// Asking over HTTP.
    Http,
    /// Asking a proxy for a tunnel.
    Proxy,
    /// Connecting to an address.
    Tcp,
    /// The TLS handshake.
    Tls,
    /// The HTTP upgrade to a WebSocket.
    Upgrade,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Dns => "looking up the name",
            Self::Proxy => "connecting through the proxy",
            Self::Http => "asking over HTTP",
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
    /// The proxy opened no tunnel.
    #[error(
        "{endpoint}: {} {proxy} failed: HTTP status {status}: {}",
        Step::Proxy,
        proxy::hint(*status)
    )]
    Proxy {
        /// Scheme, host and port of the server.
        endpoint: String,
        /// Scheme, host and port of the proxy.
        proxy: String,
        /// HTTP status of its answer.
        status: u16,
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
            Self::Proxy { .. } => Some(Step::Proxy),
            Self::Status { .. } => Some(Step::Upgrade),
        }
    }

    /// What the operating system or TLS reported.
    fn into_cause(self) -> Option<io::Error> {
        match self {
            Self::Failed { source, .. } => source,
            Self::CaFile { .. }
            | Self::Proxy { .. }
            | Self::Status { .. }
            | Self::Timeout { .. }
            | Self::Url { .. } => None,
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

/// How this publisher's connections are made. Cheap to clone.
#[derive(Clone)]
pub struct Dialer {
    tls: Tls,
    proxies: Arc<Proxies>,
}

impl Dialer {
    /// For a publisher with this URL: pins, and leave to take any certificate, apply to the host in it alone.
    ///
    /// Reads certificate authorities and the environment, so it may block for some milliseconds. Fails only if
    /// `trust.ca_file` cannot be read or holds no certificate, or the proxy's URL cannot be used.
    pub fn new(url: &Secret, trust: &config::Trust, proxy: &config::Proxy) -> Result<Self, Error> {
        let own = target::host(url.expose());
        Ok(Self {
            tls: Tls::new(own.as_deref(), trust)?,
            proxies: Arc::new(Proxies::new(proxy)?),
        })
    }

    /// Opens a byte stream to `target`: looks up its name, connects to the first address that answers, and wraps
    /// the connection in TLS (for HTTP/1.1) where the scheme asks for it.
    pub async fn dial(&self, target: &Target) -> Result<Box<dyn Stream>, Error> {
        let stream = self.reach(&target.endpoint).await?;
        match target.tls {
            true => {
                self.secure(&target.endpoint, target.host(), stream, Alpn::Http)
                    .await
            }
            false => Ok(stream),
        }
    }

    /// Opens a byte stream to a port, directly or through the proxy. An IPv6 address may stand in brackets.
    pub async fn tcp(&self, host: &str, port: u16) -> Result<Box<dyn Stream>, Error> {
        self.reach(&Endpoint::new("tcp", host, port)).await
    }

    /// The same, secured by TLS without a protocol named in the handshake. The certificate must be for `name`, which is
    /// not `host` where a server has sent us on to an address.
    pub async fn tls(&self, host: &str, port: u16, name: &str) -> Result<Box<dyn Stream>, Error> {
        let endpoint = Endpoint::new("tls", host, port);
        let stream = self.reach(&endpoint).await?;
        self.secure(&endpoint, name, stream, Alpn::None).await
    }

    /// Whether a proxy stands between us and that port.
    pub fn proxied(&self, host: &str, port: u16) -> bool {
        let endpoint = Endpoint::new("tcp", host, port);
        self.proxies.towards(&endpoint).is_some()
    }

    /// Opens a connection to `target` as [`dial`](Self::dial) does, only to tell of it.
    pub async fn examine(&self, target: &Target) -> Result<Examined, Error> {
        let began = Instant::now();
        let stream = self.reach(&target.endpoint).await?;
        let connected = began.elapsed();
        let secured = match target.tls {
            true => {
                let began = Instant::now();
                let stream = (self.tls)
                    .secure(&target.endpoint, target.host(), stream, Alpn::Http)
                    .await?;
                Some(tls::secured(&stream, began.elapsed()))
            }
            false => None,
        };
        Ok(Examined {
            connected,
            proxied: self.proxies.towards(&target.endpoint).is_some(),
            secured,
        })
    }

    async fn reach(&self, endpoint: &Endpoint) -> Result<Box<dyn Stream>, Error> {
        match self.proxies.towards(endpoint) {
            Some(proxy) => proxy.connect(endpoint, &self.tls).await,
            None => Ok(Box::new(tcp::connect(endpoint).await?)),
        }
    }

    async fn secure(
        &self,
        endpoint: &Endpoint,
        name: &str,
        stream: Box<dyn Stream>,
        alpn: Alpn,
    ) -> Result<Box<dyn Stream>, Error> {
        let secured = self.tls.secure(endpoint, name, stream, alpn).await?;
        Ok(Box::new(secured))
    }
}

/// What [`Dialer::examine`] saw.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Examined {
    /// Time to look up the name and connect, through the proxy if there is one.
    pub connected: Duration,
    /// Whether a proxy stands between.
    pub proxied: bool,
    /// What TLS agreed on, where it is spoken.
    pub secured: Option<Secured>,
}

/// What a TLS handshake came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secured {
    /// Time of the handshake.
    pub took: Duration,
    /// Such as `TLSv1_3`.
    pub version: String,
    /// The server's key in the form of the configuration's `pins`.
    pub pin: Option<String>,
}

async fn within<T>(
    endpoint: &impl fmt::Display,
    step: Step,
    after: Duration,
    work: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    timeout(after, work).await.unwrap_or_else(|_| {
        Err(Error::Timeout {
            endpoint: endpoint.to_string(),
            step,
            after,
        })
    })
}

fn failed(
    endpoint: &impl fmt::Display,
    step: Step,
    why: String,
    source: Option<io::Error>,
) -> Error {
    Error::Failed {
        endpoint: endpoint.to_string(),
        step,
        why,
        source,
    }
}

#[cfg(test)]
mod tests;
