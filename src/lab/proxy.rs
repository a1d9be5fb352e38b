//! An HTTP proxy as companies have: it opens tunnels by `CONNECT` (RFC 9110, section 9.3.6), to those ports that it is
//! told to allow and for those who know its password, and does nothing else.

use std::convert::Infallible;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use hyper::Method;
use hyper::Request;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::secret::Secret;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long a client may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);
/// How long a server may take to accept.
const CONNECTING: Duration = Duration::from_secs(10);
/// How long [`Proxy::stop`] waits for its tasks.
const STOP: Duration = Duration::from_secs(5);

/// How a proxy is set up.
#[derive(Clone, Debug)]
pub struct ProxyConfig {
    /// Where it listens.
    pub listen: SocketAddr,
    /// The user and the password without which it opens nothing; `None` to open to everyone.
    pub credentials: Option<(String, Secret)>,
    /// Ports that it connects to; none stands for all.
    pub ports: Vec<u16>,
    /// What is wrong from the start.
    pub fault: Option<ProxyFault>,
}

impl ProxyConfig {
    /// On a free port of loopback, open to everyone, to every port.
    pub const fn loopback() -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            credentials: None,
            ports: Vec::new(),
            fault: None,
        }
    }
}

/// Something for a proxy to do wrong, for as long as it is committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyFault {
    /// Every request is refused with this HTTP status.
    Refuse {
        /// HTTP status.
        status: u16,
    },
    /// No request is answered.
    Silent,
}

/// What a proxy has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ProxyCounts {
    /// Tunnels that stand.
    pub tunnels: usize,
    /// Tunnels that were ever opened.
    pub opened: u64,
    /// Requests that were refused, or could not be met.
    pub refused: u64,
}

/// Why a proxy could not be started.
#[derive(Debug, thiserror::Error)]
#[error("the proxy cannot listen on {address}")]
pub struct Error {
    /// The address.
    pub address: SocketAddr,
    /// The system's reason.
    pub source: std::io::Error,
}

/// A running proxy. Dropped without [`Proxy::stop`], it stops without waiting for its tunnels.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Shared {
    /// What the header has to hold.
    authorization: Option<Secret>,
    ports: Vec<u16>,
    fault: Mutex<Option<ProxyFault>>,
    counts: watch::Sender<ProxyCounts>,
}

impl Proxy {
    /// Starts a proxy on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// If its address cannot be listened on.
    pub async fn start(config: ProxyConfig) -> Result<Self, Error> {
        let address = config.listen;
        let failed = |source| Error { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let authorization = config.credentials.map(|(user, password)| {
            let both = format!("{user}:{}", password.expose());
            Secret::new(format!("Basic {}", base64(both.as_bytes())))
        });
        let proxy = Self {
            address: listener.local_addr().map_err(failed)?,
            shared: Arc::new(Shared {
                authorization,
                ports: config.ports,
                fault: Mutex::new(config.fault),
                counts: watch::Sender::default(),
            }),
            tasks: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        let visitor = Visitor {
            shared: Arc::clone(&proxy.shared),
            tasks: proxy.tasks.clone(),
            stop: proxy.stop.clone(),
        };
        proxy.tasks.spawn(visitor.serve(listener));
        Ok(proxy)
    }

    /// Where it listens.
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its URL, without credentials.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Commits `fault` from now on; `None` ends all wrong.
    pub fn commit(&self, fault: Option<ProxyFault>) {
        let current = self.shared.fault.lock();
        *current.unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// What it has done; the receiver sees it change.
    pub fn counts(&self) -> watch::Receiver<ProxyCounts> {
        self.shared.counts.subscribe()
    }

    /// Stops: tunnels are cut. Returns once everything has ended, after 5 seconds at most.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("tunnels of the proxy did not end in time");
        }
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[derive(Clone)]
struct Visitor {
    shared: Arc<Shared>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Visitor {
    async fn serve(self, listener: TcpListener) {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        loop {
            let accepted = tokio::select! {
                accepted = listener.accept() => accepted,
                () = self.stop.cancelled() => return,
            };
            let Ok((stream, _)) = accepted else {
                // Out of file descriptors, or a connection reset before it was accepted: either passes.
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            };
            let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
                continue;
            };
            let place = Arc::new(place);
            let visitor = self.clone();
            self.tasks.spawn(async move {
                let stop = visitor.stop.clone();
                let service = service_fn(move |request| {
                    // A tunnel keeps its place when HTTP has ended.
                    let place = Arc::clone(&place);
                    visitor.clone().request(request, place)
                });
                let connection = hyper::server::conn::http1::Builder::new()
                    .timer(TokioTimer::new())
                    .header_read_timeout(HEADERS)
                    .serve_connection(TokioIo::new(stream), service)
                    .with_upgrades();
                tokio::select! {
                    // What ends badly here is no tunnel.
                    ended = connection => ended.unwrap_or_default(),
                    () = stop.cancelled() => {}
                }
            });
        }
    }

    async fn request<P: Send + Sync + 'static>(
        self,
        mut request: Request<Incoming>,
        place: Arc<P>,
    ) -> Result<Response<Body>, Infallible> {
        match self.connect(&request).await {
            Ok(server) => {
                let client = hyper::upgrade::on(&mut request);
                self.tasks.clone().spawn(async move {
                    self.tunnel(client, server).await;
                    drop(place);
                });
                Ok(Response::new(Body::empty()))
            }
            Err(status) => {
                self.shared.counts.send_modify(|counts| counts.refused += 1);
                let mut response = Response::new(Body::empty());
                *response.status_mut() = status;
                if status == StatusCode::PROXY_AUTHENTICATION_REQUIRED {
                    let basic = header::HeaderValue::from_static("Basic realm=\"lab\"");
                    response
                        .headers_mut()
                        .insert(header::PROXY_AUTHENTICATE, basic);
                }
                Ok(response)
            }
        }
    }

    /// Connects to the server that `request` names, or says why not.
    async fn connect(&self, request: &Request<Incoming>) -> Result<TcpStream, StatusCode> {
        let fault = *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match fault {
            Some(ProxyFault::Refuse { status }) => {
                return Err(StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY));
            }
            Some(ProxyFault::Silent) => {
                self.stop.cancelled().await;
                return Err(StatusCode::SERVICE_UNAVAILABLE);
            }
            None => {}
        }
        if let Some(expected) = &self.shared.authorization {
            let given = request.headers().get(header::PROXY_AUTHORIZATION);
            if given.is_none_or(|given| given.as_bytes() != expected.expose().as_bytes()) {
                return Err(StatusCode::PROXY_AUTHENTICATION_REQUIRED);
            }
        }
        if request.method() != Method::CONNECT {
            return Err(StatusCode::METHOD_NOT_ALLOWED);
        }
        let authority = request.uri().authority().ok_or(StatusCode::BAD_REQUEST)?;
        let port = authority.port_u16().ok_or(StatusCode::BAD_REQUEST)?;
        if !self.shared.ports.is_empty() && !self.shared.ports.contains(&port) {
            return Err(StatusCode::FORBIDDEN);
        }
        let host = authority.host().trim_matches(['[', ']']);
        let connecting = TcpStream::connect((host, port));
        match tokio::time::timeout(CONNECTING, connecting).await {
            Ok(Ok(server)) => Ok(server),
            Ok(Err(_)) => Err(StatusCode::BAD_GATEWAY),
            Err(_) => Err(StatusCode::GATEWAY_TIMEOUT),
        }
    }

    async fn tunnel(&self, client: OnUpgrade, mut server: TcpStream) {
        let Ok(client) = client.await else {
            return;
        };
        self.shared.counts.send_modify(|counts| {
            counts.tunnels += 1;
            counts.opened += 1;
        });
        let mut client = TokioIo::new(client);
        tokio::select! {
            // However it ends, it has ended.
            ended = tokio::io::copy_bidirectional(&mut client, &mut server) => drop(ended),
            () = self.stop.cancelled() => {}
        }
        self.shared.counts.send_modify(|counts| counts.tunnels -= 1);
    }
}

/// Base64 with padding (RFC 4648, section 4).
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let mut group = [0; 4];
        group[1..=chunk.len()].copy_from_slice(chunk);
        let group = u32::from_be_bytes(group);
        for n in 0..4 {
            let sextet = (group >> (18 - 6 * n)) & 0x3F;
            text.push(if n <= chunk.len() {
                char::from(ALPHABET[sextet as usize])
            } else {
                '='
            });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_that_of_the_rfc() {
        for (bytes, text) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("Aladdin:open sesame", "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        ] {
            assert_eq!(base64(bytes.as_bytes()), text);
        }
    }
}
