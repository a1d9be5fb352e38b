//! OvenMediaEngine, and Qencode: an offer is requested and left unanswered.
//!
//! While an answer was given to none of its offers, closing a socket harms nobody who is live under another name. Under
//! the live one it might (see `signal::ome`), hence the name of chance.

use tokio::time::Instant;

use super::Findings;
use crate::config::ice_server::IceServer;
use crate::config::secret::Secret;
use crate::net::{Dialer, Target};
use crate::signal::ome::Ome;
use crate::signal::{Dialect, Error, Opening, Parting, RemoteDescription, Signaller};

/// Asks for all transports in the words of each version (protocols.md 5.5).
const ASKS: [&str; 2] = ["all", "tcp"];

pub(super) async fn ask(
    url: &Secret,
    dialer: &Dialer,
    chance: &mut fastrand::Rng,
    findings: &mut Findings,
    ice_servers: &mut Vec<IceServer>,
) {
    let other = sibling(url.expose(), chance).map(Secret::new);
    let mut offered = None;
    if let Some(other) = &other {
        offered = Some(request(other, dialer, findings).await);
    }
    let refused = !matches!(offered, Some(Ok(_)));
    if refused {
        // Signed URLs and keyed ingest are for one name.
        if let Some(Err(error @ (Error::Connect(_) | Error::Timeout { .. }))) = &offered {
            findings.against.push(error.to_string());
            return;
        }
        offered = Some(request(url, dialer, findings).await);
    }
    match offered {
        Some(Ok(offers)) => {
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
            findings.notes.push(if refused {
                "the server offers under this name, which is free".to_owned()
            } else {
                "asked under a name of chance, not to disturb: whether this name is taken was not tried"
                    .to_owned()
            });
        }
        Some(Err(error)) => {
            if matches!(error, Error::Refused { .. }) {
                findings.dialect = Some(Dialect::Ome);
                findings.notes.push(
                    "OvenMediaEngine has one answer, 404, for a name that is taken, an application that does not \
                     exist or takes no WebRTC, a wrong signature and a webhook that refuses"
                        .to_owned(),
                );
            }
            findings.against.push(error.to_string());
        }
        None => findings.against.push("the URL has no path".to_owned()),
    }
}

/// The offers to a publisher of `url`, one for each way of asking.
async fn request(
    url: &Secret,
    dialer: &Dialer,
    findings: &mut Findings,
) -> Result<Vec<RemoteDescription>, Error> {
    let mut offers = Vec::new();
    let mut ome = Ome::new(url, &ASKS, dialer.clone());
    for unreached in 0..2 {
        let began = Instant::now();
        let opening = ome.open(unreached).await;
        ome.close(Parting::Abandon).await;
        match opening? {
            Opening::Offered(offer) => {
                findings.round_trip.get_or_insert(began.elapsed());
                let complete = !offer.ice_servers.is_empty();
                offers.push(offer);
                if complete {
                    break;
                }
            }
            Opening::SendOffer => break,
        }
    }
    Ok(offers)
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
