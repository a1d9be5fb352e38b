//! OvenMediaEngine, and Qencode: an offer is requested and left unanswered.
//!
//! While an answer was given to none of its offers, closing a socket harms nobody who is live under another name. Under
//! the live one it might (see `signal::ome`), hence the name of chance; `None` for it asks under the configured one.

use tokio::time::Instant;

use super::Findings;
use crate::config::ice_server::IceServer;
use crate::config::secret::Secret;
use crate::net::{Dialer, Target};
use crate::signal::ome::Ome;
use crate::signal::{Dialect, Error, Opening, Parting, RemoteDescription, Signaller as _};

/// Asks for all transports in the words of each version (protocols.md 5.5).
const ASKS: [&str; 2] = ["all", "tcp"];

/// Asks, and returns the sockets on which offers stand, to be closed when nothing depends on them any more.
pub(super) async fn ask(
    url: &Secret,
    dialer: &Dialer,
    chance: Option<&mut fastrand::Rng>,
    findings: &mut Findings,
    ice_servers: &mut Vec<IceServer>,
) -> Vec<Ome> {
    let other = match chance {
        Some(chance) => match sibling(url.expose(), chance) {
            Some(other) => Some(Secret::new(other)),
            None => {
                let why = "the path of the URL names no application and stream";
                findings.against.push(why.to_owned());
                return Vec::new();
            }
        },
        None => None,
    };
    let offered = request(other.as_ref().unwrap_or(url), dialer, findings).await;
    let (mut sockets, offers) = match offered {
        Ok(offered) => offered,
        Err(error) => {
            refused(&error, other.is_some(), findings);
            return Vec::new();
        }
    };
    findings.notes.push(if other.is_some() {
        "asked under a name of chance, not to disturb: whether this name is taken was not tried"
            .to_owned()
    } else {
        // As short as can be: on closing, the server may end whoever has the name by then.
        for mut ome in sockets.drain(..) {
            ome.close(Parting::Abandon).await;
        }
        "the server offers under this name, which is free".to_owned()
    });
    findings.dialect = Some(Dialect::Ome);
    let mut candidates: Vec<String> = Vec::new();
    for offer in offers {
        for candidate in &offer.candidates {
            let address = address(candidate);
            candidates.extend(address.filter(|a| !candidates.contains(a)));
        }
        for server in offer.ice_servers {
            if !ice_servers.contains(&server) {
                ice_servers.push(server);
            }
        }
    }
    findings.candidates = Some(candidates);
    sockets
}

/// What an error means that came `by_chance`, under a name of chance, or under the configured one.
fn refused(error: &Error, by_chance: bool, findings: &mut Findings) {
    let is_refusal = matches!(error, Error::Refused { .. });
    if is_refusal {
        findings.dialect = Some(Dialect::Ome);
    }
    match (is_refusal, by_chance) {
        (true, true) => findings.unclear.push(format!(
            "{error}; this was under a name of chance. Either the application does not exist or takes no WebRTC, or the \
             server lets nobody on but under the name that the URL was signed or given out for. That name was not tried, \
             for closing the socket could end whoever is live under it. When nobody is: --this-name"
        )),
        (true, false) => findings.against.push(format!(
            "{error}; OvenMediaEngine has one answer, 404, for a name that is taken, an application that does not exist or \
             takes no WebRTC, a wrong signature and a webhook that refuses"
        )),
        (false, _) => findings.against.push(error.to_string()),
    }
}

/// The offers to a publisher of `url`, one for each way of asking, and the sockets on which they stand.
async fn request(
    url: &Secret,
    dialer: &Dialer,
    findings: &mut Findings,
) -> Result<(Vec<Ome>, Vec<RemoteDescription>), Error> {
    let (mut sockets, mut offers) = (Vec::new(), Vec::new());
    for ask in ASKS {
        let began = Instant::now();
        let mut ome = Ome::new(url, &[ask], dialer.clone());
        let Opening::Offered(offer) = ome.open(0).await? else {
            break;
        };
        findings.round_trip.get_or_insert(began.elapsed());
        let complete = !offer.ice_servers.is_empty();
        offers.push(offer);
        sockets.push(ome);
        if complete {
            break;
        }
    }
    Ok((sockets, offers))
}

/// `url` with a stream name of chance. `None` if it names no stream.
fn sibling(url: &str, chance: &mut fastrand::Rng) -> Option<String> {
    let name = format!("onair-probe-{:08x}", chance.u32(..));
    Target::parse(url, &[]).ok()?.sibling(&name)
}

/// `udp 192.0.2.1:10000` of a candidate line; `None` for the address that stands for a relay only.
fn address(candidate: &str) -> Option<String> {
    /// What OvenMediaEngine names where only its relay is to be used.
    const DUMMY: &str = "100.127.255.254";
    let words: Vec<&str> = candidate.split_ascii_whitespace().collect();
    let (protocol, ip, port) = (words.get(2)?, *words.get(4)?, words.get(5)?);
    let ip = if ip.contains(':') {
        format!("[{ip}]")
    } else {
        ip.to_owned()
    };
    (ip != DUMMY).then(|| format!("{} {ip}:{port}", protocol.to_ascii_lowercase()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sibling_differs_in_the_name_alone() {
        let mut chance = fastrand::Rng::with_seed(1);
        let sibling = sibling("wss://h:3334/app/front?policy=p&signature=s", &mut chance);
        let sibling = sibling.unwrap();
        assert!(
            sibling.starts_with("wss://h:3334/app/onair-probe-"),
            "{sibling}"
        );
        assert!(sibling.ends_with("?policy=p&signature=s"), "{sibling}");
        assert_eq!(super::sibling("wss://h:3334/app", &mut chance), None);
        assert_eq!(super::sibling("wss://h:3334/app/", &mut chance), None);
    }

    #[test]
    fn a_refused_name_of_chance_leaves_it_unclear_and_the_configured_one_does_not() {
        let error = Error::Refused {
            endpoint: "wss://h:3334".to_owned(),
            status: 404,
            text: "Cannot create offer".to_owned(),
            step: crate::signal::Step::Opening,
            retry_after: None,
        };
        for by_chance in [true, false] {
            let mut findings = Findings::default();
            refused(&error, by_chance, &mut findings);
            assert_eq!(findings.dialect, Some(Dialect::Ome));
            assert_eq!(findings.unclear.len(), usize::from(by_chance));
            assert_eq!(findings.against.len(), usize::from(!by_chance));
            assert!(!findings.is_publishable());
        }
    }

    #[test]
    fn addresses_are_said_shortly_and_the_stand_in_is_not_one() {
        let said = |line| address(line);
        let udp = "candidate:1 1 UDP 50 192.0.2.1 10000 typ host";
        assert_eq!(said(udp).as_deref(), Some("udp 192.0.2.1:10000"));
        let tcp = "candidate:1 1 tcp 50 2001:db8::1 3479 typ host tcptype passive";
        assert_eq!(said(tcp).as_deref(), Some("tcp [2001:db8::1]:3479"));
        let dummy = "candidate:1 1 UDP 50 100.127.255.254 1518 typ host";
        assert_eq!(said(dummy), None);
        assert_eq!(said("candidate:1 1"), None);
    }
}
