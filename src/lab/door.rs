//! The door of one profile: connections, HTTP, the upgrade to WebSocket, and the faults that happen there.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use hyper::HeaderMap;
use hyper::Request as HttpRequest;
use hyper::Response;
use hyper::StatusCode;
use hyper::body::Incoming;
use hyper::header;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use hyper_util::rt::TokioTimer;
use tokio::io::AsyncRead;
use tokio::io::AsyncWrite;
use tokio::net::TcpListener;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::faults::Step;
use super::now;
use super::ome;
use super::profile::Dialect;
use super::rest::Doors;
use super::station::Request;
use super::station::Station;
use super::whip;
use super::wire::Wire;
use super::wowza;
use super::wowza_v2;

/// Connections at a time.
const CONNECTIONS: usize = 64;
/// How long a publisher may take to say what it wants.
const HEADERS: Duration = Duration::from_secs(10);

/// A request that is answered by hanging up.
#[derive(Debug, thiserror::Error)]
#[error("a fault: hung up")]
pub(super) struct HungUp;

/// Serves everyone who comes, until `stop`; then every session is ended, and what is `tracked` ends. `elsewhere` is
/// the port that redirected publishers are sent to.
pub(super) async fn serve(
    listener: TcpListener,
    station: Arc<Station>,
    elsewhere: bool,
    tracked: TaskTracker,
    stop: CancellationToken,
) {
    let what = station.profile.to_string();
    let (tasks, until) = (tracked.clone(), stop.clone());
    let visit = move |stream, remote| {
        let visitor = Visitor {
            station: Arc::clone(&station),
            elsewhere,
            tracked: tracked.clone(),
            stop: stop.clone(),
            remote,
        };
        async move {
            let doors = visitor.station.doors.as_ref();
            if doors.is_some_and(Doors::is_unreachable) {
                return;
            }
            match visitor.station.tls.clone() {
                None => visitor.connection(stream).await,
                Some(acceptor) => {
                    if let Some(stream) = acceptor.accept(stream).await {
                        visitor.connection(stream).await;
                    }
                }
            }
        }
    };
    accept(listener, &what, tasks, until, visit).await;
}

/// Hands every connection to `visit`, a bounded number of them at a time, until `stop`.
pub(super) async fn accept<F, Visit>(
    listener: TcpListener,
    what: &str,
    tracked: TaskTracker,
    stop: CancellationToken,
    visit: F,
) where
    F: Fn(TcpStream, SocketAddr) -> Visit,
    Visit: Future<Output = ()> + Send + 'static,
{
    let places = Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = stop.cancelled() => return,
        };
        let (stream, remote) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, or a connection reset before it was accepted: either passes.
                tracing::warn!(%error, what, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let Ok(place) = Arc::clone(&places).try_acquire_owned() else {
            continue;
        };
        let visit = visit(stream, remote);
        tracked.spawn(async move {
            visit.await;
            drop(place);
        });
    }
}

#[derive(Clone)]
struct Visitor {
    station: Arc<Station>,
    elsewhere: bool,
    tracked: TaskTracker,
    stop: CancellationToken,
    remote: SocketAddr,
}

impl Visitor {
    async fn connection<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
    {
        let stop = self.stop.clone();
        let service = service_fn(move |request| self.clone().request(request));
        let connection = hyper::server::conn::http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADERS)
            .serve_connection(TokioIo::new(stream), service)
            .with_upgrades();
        tokio::select! {
            // What ends badly here was no publisher.
            ended = connection => ended.unwrap_or_default(),
            () = stop.cancelled() => {}
        }
    }

    async fn request(self, mut request: HttpRequest<Incoming>) -> Result<Response<Body>, HungUp> {
        let (faults, profile) = (&self.station.faults, self.station.profile);
        if faults.silent(profile, Step::Upgrade) {
            self.stop.cancelled().await;
        }
        if let Some(status) = faults.upgrade_refusal(profile) {
            return Ok(refused(status));
        }
        if faults.hangs_up(profile) {
            return Err(HungUp);
        }
        let asked = Request {
            path: request.uri().path().to_owned(),
            query: request.uri().query().unwrap_or("").to_owned(),
            user_agent: text(request.headers(), header::USER_AGENT).to_owned(),
        };
        let here = match profile.dialect() {
            Dialect::Ome => true,
            Dialect::Whip => {
                let visit = whip::Visit {
                    station: self.station,
                    elsewhere: self.elsewhere,
                    tracked: self.tracked,
                    stop: self.stop,
                    remote: self.remote,
                    asked,
                };
                return Ok(visit.answer(request).await);
            }
            Dialect::WowzaV1 | Dialect::WowzaV2 => asked.path.ends_with("webrtc-session.json"),
        };
        let upgrade = text(request.headers(), header::UPGRADE).eq_ignore_ascii_case("websocket");
        if !here || !upgrade {
            return Ok(refused(404));
        }
        let key = text(request.headers(), header::SEC_WEBSOCKET_KEY);
        let server = match profile.dialect() {
            Dialect::Ome | Dialect::Whip => "OvenMediaEngine",
            Dialect::WowzaV1 | Dialect::WowzaV2 => "WowzaStreamingEngine",
        };
        let response = Response::builder()
            .status(StatusCode::SWITCHING_PROTOCOLS)
            .header(header::SERVER, server)
            .header(header::CONNECTION, "Upgrade")
            .header(header::UPGRADE, "websocket")
            .header(
                header::SEC_WEBSOCKET_ACCEPT,
                derive_accept_key(key.as_bytes()),
            )
            .body(Body::empty());
        let upgraded = hyper::upgrade::on(&mut request);
        let tracked = self.tracked.clone();
        tracked.spawn(self.session(upgraded, asked));
        Ok(response.unwrap_or_else(|_| refused(400)))
    }

    async fn session(self, upgraded: OnUpgrade, asked: Request) {
        let Ok(upgraded) = upgraded.await else {
            return;
        };
        let station = &*self.station;
        let (record, asks) = station.hub.open(
            station.profile,
            self.remote.to_string(),
            asked.user_agent.clone(),
            now(),
        );
        record.message(now(), None, &format!("{} {}", asked.path, asked.query));
        let wire = Wire::new(upgraded, record.clone()).await;
        let (done, stop) = (record.clone(), &self.stop);
        let why = match station.profile.dialect() {
            Dialect::Ome | Dialect::Whip => {
                ome::serve(station, wire, asked, record, asks, stop).await
            }
            Dialect::WowzaV2 if asked.parameter("webrtcImplementation") == Some("v2") => {
                wowza_v2::serve(station, wire, asked, record, asks, stop).await
            }
            Dialect::WowzaV1 | Dialect::WowzaV2 => {
                wowza::serve(station, wire, asked, record, asks, stop).await
            }
        };
        done.message(now(), None, &format!("the end: {why}"));
        done.end(now(), &why);
    }
}

pub(super) fn text(headers: &HeaderMap, name: header::HeaderName) -> &str {
    headers
        .get(name)
        .and_then(|value| value.to_str().ok())
        .unwrap_or("")
}

fn refused(status: u16) -> Response<Body> {
    let mut response = Response::new(Body::from(
        "the lab serves publishers over WebSocket here\n",
    ));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::NOT_FOUND);
    response
}
