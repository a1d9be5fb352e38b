//! The lab: a strict ingest server that imitates Wowza, OvenMediaEngine/Qencode and servers that speak WHIP, decodes
//! what it receives and judges the publisher.
//!
//! It stands opposite to the agent and shares no protocol code with it, so that the judge is not the judged. One
//! listener per profile takes publishers (`door`), which speak their dialect (`ome`, `wowza`, `wowza_v2`, `whip`) and get a media
//! engine (`ingest`, `engine`); what arrives is put together (`depacketize`), decoded (`decode`), judged
//! (`judge`, `sync`) and counted (`tally`); the [`hub`] shows all of it. One more listener has the page, and
//! takes [`faults`]. Beside them stand what publishers meet on their way: a TURN server ([`turn`], which has
//! OvenMediaEngine's own one too), TLS ([`tls`]), a [`proxy`], and the vendors' control planes ([`rest`]), which decide
//! under which names one may publish.

mod answer;
mod beep;
mod decode;
mod depacketize;
mod door;
mod engine;
pub mod faults;
mod framing;
pub mod hub;
mod ingest;
mod judge;
mod offer;
mod ome;
pub mod page;
mod paths;
pub mod profile;
pub mod proxy;
mod reception;
pub mod rest;
mod sdp;
mod station;
mod sync;
mod tally;
pub mod tls;
pub mod turn;
mod whep;
mod whip;
mod wire;
mod wowza;
mod wowza_v2;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::net::Ipv4Addr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::routing::get;
use axum::routing::post;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::Server;
use crate::config::Trickle;
use crate::config::WowzaDialect;
use crate::config::secret::Secret;
use crate::media::time::MediaClock;
use crate::report;

pub use self::faults::Fault;
pub use self::faults::Faults;
pub use self::faults::Mutation;
pub use self::faults::RefusedVideo;
pub use self::faults::RestFault;
pub use self::faults::Step;
pub use self::hub::Hub;
pub use self::profile::Profile;
pub use self::rest::RestCall;
pub use self::rest::RestConfig;
pub use self::rest::Vendor;

use self::profile::Dialect;
use self::rest::Asked;
use self::rest::Bill;
use self::rest::Doors;
use self::rest::Plane;
use self::rest::Surroundings;
use self::station::Station;
use self::tls::Acceptor;
use self::tls::Identity;
use self::turn::Handle;
use self::turn::TurnConfig;
use self::turn::TurnCounts;
use self::turn::TurnFault;
use self::turn::TurnServer;
use self::turn::embedded::Embedded;

/// How long [`Lab::stop`] waits for sessions to end.
const STOP: Duration = Duration::from_secs(5);

/// How long a session waits, once its media was parted from, for the publisher to part from its signalling too.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// What a Wowza server does when it is spoken to in the dialect that it was not asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Foreign {
    /// It answers in its own words; `wowza-v2` without `webrtcImplementation=v2` is a server of the first dialect.
    #[default]
    Answers,
    /// It never answers.
    Silent,
}

/// A STUN or TURN server that publishers by WHIP are told of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IceServer {
    /// Such as `turn:127.0.0.1:3478?transport=tcp`.
    pub url: String,
    /// User name and password, of a TURN server.
    pub login: Option<(String, String)>,
}

/// How a lab is set up.
#[derive(Clone, Debug)]
pub struct LabConfig {
    /// Address of the page and of the control requests; signalling uses the same IP address.
    pub listen: SocketAddr,
    /// IP address of media sockets and of the candidates that are handed out.
    pub media_ip: IpAddr,
    /// Servers to be, each on a port of its own.
    pub profiles: Vec<Profile>,
    /// Signalling port of a profile; one that is not named here gets a free one. A lab that is started again on
    /// the same ports is, to a publisher, a server that was restarted.
    pub ports: BTreeMap<Profile, u16>,
    /// The process's clock: latencies are read against its wall time.
    pub clock: MediaClock,
    /// Factor on the servers' own times (pings, silence, ghosts, requests for key frames): 1.0 is what they have.
    pub time_scale: f64,
    /// A lie in every description from the start.
    pub mutation: Option<Mutation>,
    /// Throw away every n-th video packet on first arrival, to see it sent again (only `wowza-se` asks for that).
    pub withhold: Option<u32>,
    /// The certificate with which signalling is secured; without it, it is not.
    pub tls: Option<Identity>,
    /// A TURN server beside the ingest servers, of which publishers learn elsewhere.
    pub turn: Option<TurnConfig>,
    /// The TURN server that OvenMediaEngine has inside.
    pub ome_turn: OmeTurn,
    /// What publishers by WHIP have to show; `None` asks for nothing. OvenMediaEngine never asks.
    pub bearer: Option<String>,
    /// What publishers by WHIP are told in `Link`: always, or by OvenMediaEngine with `transport=relay` or `all`.
    pub ice_servers: Vec<IceServer>,
    /// Engines only answer checks, and say so by WHIP.
    pub ice_lite: bool,
    /// How Wowza servers take the other dialect.
    pub foreign: Foreign,
    /// The vendors' control planes; without them, one may publish at any time. With them, under the names of started
    /// streams alone, at `wowza-cloud` and `qencode`.
    pub rest: Option<RestConfig>,
}

/// How OvenMediaEngine's embedded TURN server is set up. All OvenMediaEngines of a lab share it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OmeTurn {
    /// Its TCP port at the IP address of media; 0 is a free one.
    pub port: u16,
    /// The address that offers tell, if not the right one: a server in a container knows itself by no other.
    pub advertised: Option<IpAddr>,
    /// Every offer tells of it, whatever `transport=` says (`TcpForce`).
    pub forced: bool,
}

impl LabConfig {
    /// A lab on loopback, on free ports, that is true to its models.
    pub const fn new(profiles: Vec<Profile>, clock: MediaClock) -> Self {
        Self {
            listen: SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 0),
            media_ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
            profiles,
            ports: BTreeMap::new(),
            clock,
            time_scale: 1.0,
            mutation: None,
            withhold: None,
            tls: None,
            turn: None,
            ome_turn: OmeTurn {
                port: 0,
                advertised: None,
                forced: false,
            },
            bearer: None,
            ice_servers: Vec::new(),
            ice_lite: false,
            foreign: Foreign::Answers,
            rest: None,
        }
    }
}

/// Why a lab could not be started.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Caused by an address that is in use or is not this machine's.
    #[error("the lab cannot listen on {address}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The system's reason.
        source: std::io::Error,
    },
    /// Caused by a certificate or key that cannot be used.
    #[error("the lab's certificate cannot be used")]
    Tls(#[from] tls::Error),
    /// Caused by the TURN server.
    #[error("the lab's TURN server does not start")]
    Turn(#[from] turn::Error),
}

/// Where to publish to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// The URL as an operator would configure it: OvenMediaEngine's without query, but for WHIP.
    pub url: String,
    /// The application; part of the URL at OvenMediaEngine and in WHIP.
    pub application: String,
    /// The stream; part of the URL at OvenMediaEngine and in WHIP.
    pub stream: String,
}

/// A running lab. Dropped without [`Lab::stop`], it stops without waiting for its sessions.
#[derive(Debug)]
pub struct Lab {
    hub: Hub,
    faults: Faults,
    page: SocketAddr,
    doors: BTreeMap<Profile, SocketAddr>,
    planes: BTreeMap<Vendor, (SocketAddr, Arc<Plane>)>,
    secured: bool,
    turn: Option<TurnServer>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Lab {
    /// Starts a lab on the current tokio runtime.
    ///
    /// # Errors
    ///
    /// If one of the addresses cannot be listened on.
    pub async fn start(config: LabConfig) -> Result<Self, Error> {
        let hub = Hub::new(config.clock);
        let faults = Faults::new(hub.clone(), &config.profiles, config.mutation);
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let stopping = stop.clone().drop_guard();
        let turn = match config.turn {
            Some(turn) => Some(TurnServer::start(turn).await?),
            None => None,
        };
        let (page, listener) = listen(config.listen).await?;
        let tls = config.tls.as_ref().map(Acceptor::new).transpose()?;
        let embedded = if config.profiles.iter().any(|p| p.is_ome()) {
            let address = SocketAddr::new(config.media_ip, config.ome_turn.port);
            let (address, listener) = listen(address).await?;
            Some(Embedded::start(listener, address, &tasks, &stop))
        } else {
            None
        };
        let mut doors = BTreeMap::new();
        let mut gated = BTreeMap::new();
        for profile in &config.profiles {
            let port = config.ports.get(profile).copied().unwrap_or(0);
            let address = SocketAddr::new(config.listen.ip(), port);
            let (address, listener) = listen(address).await?;
            let beside = match profile.dialect() {
                Dialect::Whip => Some(listen(SocketAddr::new(config.listen.ip(), 0)).await?),
                Dialect::Ome | Dialect::WowzaV1 | Dialect::WowzaV2 => None,
            };
            let gate = config.rest.as_ref().zip(profile.vendor());
            let gate = gate.map(|(rest, vendor)| {
                let gate = Doors::new(rest.unreachable);
                gated.insert(vendor, gate.clone());
                gate
            });
            let station = Arc::new(Station {
                profile: *profile,
                hub: hub.clone(),
                faults: faults.clone(),
                media_ip: config.media_ip,
                clock: config.clock,
                time_scale: config.time_scale,
                withhold: config.withhold,
                turn: turn.as_ref().map(TurnServer::handle),
                embedded: embedded.clone(),
                ome_turn: config.ome_turn,
                tls: tls.clone(),
                ice_lite: config.ice_lite,
                bearer: config.bearer.clone(),
                ice_servers: config.ice_servers.clone(),
                foreign: config.foreign,
                elsewhere: beside.as_ref().map(|(address, _)| *address),
                doors: gate,
                whip: whip::Sessions::default(),
                names: Mutex::default(),
            });
            if let Some((_, listener)) = beside {
                let station = Arc::clone(&station);
                let served = door::serve(listener, station, true, tasks.clone(), stop.clone());
                tasks.spawn(served);
            }
            let served = door::serve(listener, station, false, tasks.clone(), stop.clone());
            tasks.spawn(served);
            doors.insert(*profile, address);
        }
        let mut planes = BTreeMap::new();
        for (vendor, gate) in gated {
            // Both are there, or there would be no gate.
            let (Some(rest), Some(signalling)) = (&config.rest, doors.get(&vendor.profile()))
            else {
                continue;
            };
            let port = rest.ports.get(&vendor).copied().unwrap_or(0);
            let (address, listener) = listen(SocketAddr::new(config.listen.ip(), port)).await?;
            let around = Surroundings {
                hub: hub.clone(),
                faults: faults.clone(),
                clock: config.clock,
                time_scale: config.time_scale,
                signalling: *signalling,
                secured: tls.is_some(),
            };
            let plane = Plane::open(vendor, rest, gate, around, &tasks, &stop);
            let served = Arc::clone(&plane);
            tasks.spawn(rest::serve(
                listener,
                served,
                tls.clone(),
                tasks.clone(),
                stop.clone(),
            ));
            planes.insert(vendor, (address, plane));
        }
        let relaying = Router::new()
            .route("/v1/turn", get(turn_counts).post(turn_fault))
            .with_state(turn.as_ref().map(TurnServer::handle));
        let controlled = Router::new().route("/v1/rest", get(rest_json)).with_state(
            planes
                .values()
                .map(|(_, plane)| Arc::clone(plane))
                .collect::<Vec<_>>(),
        );
        let routes = Router::new()
            .route("/v1/report", get(report_json))
            .route("/v1/faults", post(commit))
            .with_state(faults.clone())
            .merge(relaying)
            .merge(controlled)
            .merge(page::router(
                hub.clone(),
                config.media_ip,
                tasks.clone(),
                stop.clone(),
            ));
        let closed = stop.clone().cancelled_owned();
        tasks.spawn(async move {
            let served = axum::serve(listener, routes).with_graceful_shutdown(closed);
            if let Err(error) = served.await {
                tracing::error!(%error, "the lab's page ended");
            }
        });
        Ok(Self {
            hub,
            faults,
            page,
            doors,
            planes,
            secured: tls.is_some(),
            turn,
            tasks,
            stop: stopping.disarm(),
        })
    }

    /// Where to publish to as `profile`; `None` if this lab is not that.
    pub fn endpoint(&self, profile: Profile) -> Option<Endpoint> {
        let address = self.doors.get(&profile)?;
        let (application, stream) = (profile.application(), profile.stream());
        let scheme = match (profile.dialect(), self.secured) {
            (Dialect::Whip, false) => "http",
            (Dialect::Whip, true) => "https",
            (Dialect::Ome | Dialect::WowzaV1 | Dialect::WowzaV2, false) => "ws",
            (Dialect::Ome | Dialect::WowzaV1 | Dialect::WowzaV2, true) => "wss",
        };
        let path = match profile {
            Profile::Ome016
            | Profile::Ome020
            | Profile::Ome021
            | Profile::Qencode
            | Profile::Whip => format!("{application}/{stream}"),
            Profile::WhipOme => format!("{application}/{stream}?direction=whip"),
            Profile::WhipWowza => format!("{application}/{stream}/whip"),
            Profile::WowzaCloud | Profile::WowzaSe | Profile::WowzaV2 => {
                "webrtc-session.json".to_owned()
            }
        };
        Some(Endpoint {
            url: format!("{scheme}://{address}/{path}"),
            application: application.to_owned(),
            stream: stream.to_owned(),
        })
    }

    /// How an operator configures that profile's server; `None` if this lab is not that.
    pub fn server(&self, profile: Profile) -> Option<Server> {
        let endpoint = self.endpoint(profile)?;
        let url = Secret::new(endpoint.url);
        Some(match profile {
            Profile::Ome016 | Profile::Ome020 | Profile::Ome021 => Server::Ome { url },
            Profile::Qencode => Server::Qencode { url },
            Profile::Whip | Profile::WhipOme | Profile::WhipWowza => Server::Whip {
                url,
                bearer: None,
                trickle: if profile == Profile::WhipWowza {
                    Trickle::Bare
                } else {
                    Trickle::Sdpfrag
                },
            },
            Profile::WowzaCloud | Profile::WowzaSe | Profile::WowzaV2 => Server::Wowza {
                url,
                application: endpoint.application,
                stream: Secret::new(endpoint.stream),
                // Servers of today speak the older one too, where nothing asks for the newer.
                dialect: if profile == Profile::WowzaV2 {
                    WowzaDialect::V2
                } else {
                    WowzaDialect::Auto
                },
            },
        })
    }

    /// Address of the signalling of each profile.
    pub const fn addresses(&self) -> &BTreeMap<Profile, SocketAddr> {
        &self.doors
    }

    /// The root of `vendor`'s REST API, such as `http://127.0.0.1:8087/api/v2.0`; `None` without control planes, or if
    /// the lab is not that vendor's profile.
    pub fn rest(&self, vendor: Vendor) -> Option<String> {
        let (address, _) = self.planes.get(&vendor)?;
        let scheme = if self.secured { "https" } else { "http" };
        Some(format!("{scheme}://{address}{}", vendor.root()))
    }

    /// What the streams at both vendors have cost so far.
    pub fn bills(&self) -> Vec<Bill> {
        self.planes
            .values()
            .flat_map(|(_, plane)| plane.bills())
            .collect()
    }

    /// What `vendor`'s control plane was asked, as far as it is kept.
    pub fn asked(&self, vendor: Vendor) -> Vec<Asked> {
        let plane = self.planes.get(&vendor);
        plane.map(|(_, plane)| plane.asked()).unwrap_or_default()
    }

    /// From now on `vendor`'s control plane takes this token or API key, and what it took before no more.
    pub fn renew(&self, vendor: Vendor, credential: &Secret) {
        if let Some((_, plane)) = self.planes.get(&vendor) {
            plane.renew(credential);
        }
    }

    /// Its TURN server, if it was to have one.
    pub const fn turn(&self) -> Option<&TurnServer> {
        self.turn.as_ref()
    }

    /// URL of the page.
    pub fn page_url(&self) -> String {
        format!("http://{}/", self.page)
    }

    /// Its sessions, live and ended.
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Its faults.
    pub const fn faults(&self) -> &Faults {
        &self.faults
    }

    /// One entry per endpoint: its sessions in succession, merged.
    pub fn report(&self) -> Vec<report::Session> {
        self.hub.report()
    }

    /// Stops as a server does that is told to: running sessions get BYE and `close_notify`, sockets are cut.
    /// Returns once everything has ended, after 5 seconds at most; the report stays readable until then through
    /// a clone of the hub.
    pub async fn stop(mut self) {
        self.stop.cancel();
        self.tasks.close();
        if tokio::time::timeout(STOP, self.tasks.wait()).await.is_err() {
            tracing::warn!("sessions of the lab did not end in time");
        }
        if let Some(turn) = self.turn.take() {
            turn.stop().await;
        }
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// The instant on the runtime's clock. Pure code is told it; what stands at sockets and threads reads it here.
fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

async fn listen(address: SocketAddr) -> Result<(SocketAddr, TcpListener), Error> {
    let failed = |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).await.map_err(failed)?;
    Ok((listener.local_addr().map_err(failed)?, listener))
}

/// `GET /v1/report`: as in the report, its sessions.
async fn report_json(State(faults): State<Faults>) -> Json<Vec<report::Session>> {
    Json(faults.report())
}

/// `GET /v1/turn`: what the TURN server has done; `null` without one.
async fn turn_counts(State(turn): State<Option<Handle>>) -> Json<Option<TurnCounts>> {
    Json(turn.map(|turn| turn.counts()))
}

/// `POST /v1/turn`: the TURN server is wrong from now on, or right again for `null`; whether there is one.
async fn turn_fault(
    State(turn): State<Option<Handle>>,
    Json(fault): Json<Option<TurnFault>>,
) -> Json<bool> {
    if let Some(turn) = &turn {
        turn.commit(fault);
    }
    Json(turn.is_some())
}

/// What `GET /v1/rest` says of a vendor's control plane.
#[derive(Debug, serde::Serialize)]
struct Controlled {
    vendor: Vendor,
    bills: Vec<Bill>,
    asked: Vec<Asked>,
}

/// `GET /v1/rest`: what streams have cost so far, and what was asked.
async fn rest_json(State(planes): State<Vec<Arc<Plane>>>) -> Json<Vec<Controlled>> {
    let controlled = planes.iter().map(|plane| Controlled {
        vendor: plane.vendor,
        bills: plane.bills(),
        asked: plane.asked(),
    });
    Json(controlled.collect())
}

/// Body of `POST /v1/faults`.
#[derive(Debug, serde::Deserialize)]
struct Committed {
    profile: Option<Profile>,
    #[serde(flatten)]
    fault: Fault,
}

/// `POST /v1/faults`: the number of running sessions that were hit.
async fn commit(State(faults): State<Faults>, Json(body): Json<Committed>) -> Json<usize> {
    Json(faults.commit(body.profile, body.fault))
}
