//! What a server would take from a publisher, found out without publishing: reach, dialect, transports, relays.
//!
//! Nothing here may disturb a live publisher of the same name. So no description of ours is ever handed over: no
//! offer, no answer. OvenMediaEngine is asked for an offer under a name of chance, and under the configured one only at
//! the explicit wish of somebody who knows it to be free; Wowza is asked for its list of streams, a WHIP server for its
//! options. What cannot be found out so is said to be unclear.

mod ome;
mod relay;
mod whip;
mod wowza;

use std::time::Duration;

use crate::config::ice_server::{IceKind, IceServer};
use crate::config::{Publisher, Server};
use crate::net::{Dialer, Error, Target};
use crate::peer::Rung;
use crate::signal::{Dialect, Parting, Signaller as _};

/// What was found out.
#[derive(Debug, Default)]
pub struct Findings {
    /// Scheme, host and port.
    pub endpoint: String,
    /// How the server was reached, step by step; empty if it was not.
    pub steps: Vec<Step>,
    /// The language spoken there.
    pub dialect: Option<Dialect>,
    /// From a request to its answer.
    pub round_trip: Option<Duration>,
    /// Addresses for media that the server named, as `udp 192.0.2.1:10000`; `None` if it names them only to publishers.
    pub candidates: Option<Vec<String>>,
    /// STUN and TURN servers, those of the configuration and those handed over, without credentials.
    pub ice_servers: Vec<String>,
    /// What is known of each way for media, the preferred first.
    pub ways: Vec<Way>,
    /// What else there is to know.
    pub notes: Vec<String>,
    /// Reasons why one could not publish.
    pub against: Vec<String>,
    /// What would decide whether one could publish and could not be found out, why, and what to do.
    pub unclear: Vec<String>,
}

/// A step on the way to the server.
#[derive(Debug)]
pub struct Step {
    /// `tcp` or `tls`.
    pub name: &'static str,
    /// What came of it.
    pub result: String,
    /// How long it took.
    pub took: Duration,
}

/// A way for media.
#[derive(Clone, Debug)]
pub struct Way {
    /// The rung of the ladder.
    pub rung: Rung,
    /// Whether it works: `None` where that shows only while publishing.
    pub works: Option<bool>,
    /// What is known.
    pub known: String,
}

impl Findings {
    /// Whether one could publish, as far as that can be told without publishing.
    pub const fn is_publishable(&self) -> bool {
        self.against.is_empty() && self.unclear.is_empty()
    }

    /// The way that media would take: the first that is not known to fail.
    pub fn would_use(&self) -> Option<Rung> {
        let open = |way: &&Way| way.works != Some(false);
        self.ways.iter().find(open).map(|way| way.rung)
    }
}

/// Asks the server of `publisher`. `chance` makes the name under which an offer is requested; without it that is the
/// configured one, which may end whoever is live under it.
///
/// Bounded by the deadlines of [`net`](crate::net) and the dialects; about a minute at worst.
pub async fn probe(publisher: &Publisher, chance: Option<&mut fastrand::Rng>) -> Findings {
    let mut findings = Findings::default();
    if let Err(error) = ask(publisher, chance, &mut findings).await {
        findings.against.push(error.to_string());
    }
    findings
}

async fn ask(
    publisher: &Publisher,
    chance: Option<&mut fastrand::Rng>,
    findings: &mut Findings,
) -> Result<(), Error> {
    let url = publisher.server.url();
    let target = match &publisher.server {
        Server::Whip { url, .. } => Target::parse_http(url.expose(), &[])?,
        Server::Ome { url } | Server::Qencode { url } | Server::Wowza { url, .. } => {
            Target::parse(url.expose(), &[])?
        }
        Server::Platform(_) => {
            let why = "which server takes the stream is known only when its vendor has started it; \
                start it with `onair stream start`, and give the URL that the vendor's page shows to `onair probe -`";
            return Err(Error::Url {
                why: why.to_owned(),
            });
        }
    };
    findings.endpoint = target.to_string();
    let dialer = Dialer::new(url, &publisher.trust, &publisher.proxy)?;
    let examined = dialer.examine(&target).await?;
    let through = if examined.proxied {
        "connected through the proxy"
    } else {
        "connected"
    };
    findings.steps.push(Step {
        name: "tcp",
        result: through.to_owned(),
        took: examined.connected,
    });
    if let Some(tls) = examined.secured {
        let key = tls.pin.unwrap_or_else(|| "unreadable".to_owned());
        findings.steps.push(Step {
            name: "tls",
            result: format!("{}, key {key}", tls.version),
            took: tls.took,
        });
    }
    let mut ice_servers = publisher.ice_servers.clone();
    // What was offered may stand only as long as the sockets on which it was.
    let mut asked = Vec::new();
    match &publisher.server {
        Server::Ome { url } | Server::Qencode { url } => {
            asked = ome::ask(url, &dialer, chance, findings, &mut ice_servers).await;
        }
        Server::Whip { url, bearer, .. } => {
            whip::ask(url, bearer.as_ref(), &dialer, findings, &mut ice_servers).await;
        }
        Server::Wowza {
            url,
            application,
            stream,
            ..
        } => wowza::ask(url, application, stream, &dialer, findings).await,
        Server::Platform(_) => {}
    }
    findings.ice_servers = ice_servers.iter().map(|s| s.url.to_string()).collect();
    ways(publisher, &dialer, &ice_servers, findings).await;
    for mut ome in asked {
        ome.close(Parting::Abandon).await;
    }
    Ok(())
}

/// Finds out what can be found out of each way that the configuration allows.
async fn ways(
    publisher: &Publisher,
    dialer: &Dialer,
    ice_servers: &[IceServer],
    findings: &mut Findings,
) {
    let named = |protocol: &str| {
        findings.candidates.as_ref().map(|all| {
            let of = |c: &&String| c.starts_with(protocol);
            all.iter().filter(of).cloned().collect::<Vec<_>>()
        })
    };
    let (udp, tcp) = (named("udp "), named("tcp "));
    let mut ways = Vec::new();
    for rung in [Rung::Udp, Rung::Tcp] {
        if !rung.allowed(publisher.transport) {
            continue;
        }
        let candidates = if rung == Rung::Udp { &udp } else { &tcp };
        let (works, known) = match candidates.as_deref() {
            None => (
                None,
                "the server names its addresses only to publishers".to_owned(),
            ),
            Some([]) => (Some(false), "not offered".to_owned()),
            Some(all) if rung == Rung::Udp => (
                None,
                format!(
                    "offered at {}; whether it passes shows only while publishing",
                    addresses(all)
                ),
            ),
            Some(all) => reached(dialer, all).await,
        };
        ways.push(Way { rung, works, known });
    }
    ways.extend(relay::ways(publisher, dialer, ice_servers).await);
    findings.ways = ways;
    if findings.would_use().is_none() && findings.is_publishable() {
        let why = "no way for media is left of those that the configuration allows";
        findings.against.push(why.to_owned());
    }
}

/// The candidates' addresses, listed.
fn addresses(candidates: &[String]) -> String {
    let address = |c: &String| c.split(' ').next_back().unwrap_or_default().to_owned();
    let all: Vec<String> = candidates.iter().map(address).collect();
    all.join(", ")
}

/// Whether one of the TCP candidates takes a connection.
async fn reached(dialer: &Dialer, candidates: &[String]) -> (Option<bool>, String) {
    let mut failures = Vec::new();
    for candidate in candidates {
        let Some(address) = candidate.strip_prefix("tcp ") else {
            continue;
        };
        let Ok(address) = address.parse::<std::net::SocketAddr>() else {
            continue;
        };
        match dialer.tcp(&address.ip().to_string(), address.port()).await {
            Ok(_) => return (Some(true), format!("{address} takes connections")),
            Err(error) => failures.push(error.to_string()),
        }
    }
    (Some(false), failures.join("; "))
}

/// The rung that a TURN server of `kind` makes.
const fn rung(kind: IceKind) -> Option<Rung> {
    match kind {
        IceKind::Stun => None,
        IceKind::TurnTcp => Some(Rung::TurnTcp),
        IceKind::TurnTls => Some(Rung::TurnTls),
        IceKind::TurnUdp => Some(Rung::TurnUdp),
    }
}
