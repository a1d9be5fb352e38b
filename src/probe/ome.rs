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
use crate::signal::{Dialect, Error, Opening, Parting, RemoteDescription, Signaller as _};

/// Asks for all transports in the words of each version (protocols.md 5.5).
const ASKS: [&str; 2] = ["all", "tcp"];

/// Asks, and returns the sockets on which offers stand, to be closed when nothing depends on them any more.
pub(super) async fn ask(
    url: &Secret,
    dialer: &Dialer,
    chance: &mut fastrand::Rng,
    findings: &mut Findings,
    ice_servers: &mut Vec<IceServer>,
) -> Vec<Ome> {
    let offered = match sibling(url.expose(), chance).map(Secret::new) {
        Some(other) => request(&other, dialer, findings).await,
        None => request(url, dialer, findings).await,
    };
    let (sockets, offers) = match offered {
        Ok(offered) => {
            findings.notes.push(
                "asked under a name of chance, not to disturb: whether this name is taken was not tried"
                    .to_owned(),
            );
            offered
        }
        // Signed URLs and keyed ingest are for one name.
        Err(Error::Refused { .. }) => match request(url, dialer, findings).await {
            Ok((sockets, offers)) => {
                // As short as can be: on closing, the server may end whoever has the name by then.
                for mut ome in sockets {
                    ome.close(Parting::Abandon).await;
                }
                let note = "the server offers under this name, which is free";
                findings.notes.push(note.to_owned());
                (Vec::new(), offers)
            }
            Err(error) => return against(&error, findings),
        },
        Err(error) => return against(&error, findings),
    };
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

fn against(error: &Error, findings: &mut Findings) -> Vec<Ome> {
    if matches!(error, Error::Refused { .. }) {
        findings.dialect = Some(Dialect::Ome);
        findings.notes.push(
            "OvenMediaEngine has one answer, 404, for a name that is taken, an application that does not exist or takes \
             no WebRTC, a wrong signature and a webhook that refuses"
                .to_owned(),
        );
    }
    findings.against.push(error.to_string());
    Vec::new()
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
