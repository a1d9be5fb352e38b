//! TURN servers, asked for an allocation that is given back at once. No server of media is involved.

use tokio::time::Instant;

use super::{Way, rung};
use crate::config::Publisher;
use crate::config::ice_server::IceServer;
use crate::net::Dialer;
use crate::peer::{Rung, try_turn_servers};

/// What is known of the relayed ways that the configuration allows.
pub(super) async fn ways(
    publisher: &Publisher,
    dialer: &Dialer,
    ice_servers: &[IceServer],
) -> Vec<Way> {
    let mut ways = Vec::new();
    for rung_of in [Rung::TurnUdp, Rung::TurnTcp, Rung::TurnTls] {
        if !rung_of.allowed(publisher.transport) {
            continue;
        }
        let here = |server: &&IceServer| rung(server.url.kind) == Some(rung_of);
        let servers: Vec<IceServer> = ice_servers.iter().filter(here).cloned().collect();
        let (works, known) = if servers.is_empty() {
            (Some(false), "no such TURN server is known".to_owned())
        } else {
            let began = Instant::now();
            match try_turn_servers(servers, dialer).await {
                Ok(()) => {
                    let ms = began.elapsed().as_millis();
                    (Some(true), format!("relays, after {ms} ms"))
                }
                Err(why) => (Some(false), why),
            }
        };
        ways.push(Way {
            rung: rung_of,
            works,
            known,
        });
    }
    ways
}
