//! Our public addresses, as STUN servers from the configuration see them (RFC 8489).
//!
//! Ingest servers learn them from our checks, so no path depends on this; it only completes what trickling tells. The
//! question leaves through the sockets that media will use, for another would be mapped to another address.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtc::stun::attributes::ATTR_XORMAPPED_ADDRESS;
use rtc::stun::fingerprint::FINGERPRINT;
use rtc::stun::message::{BINDING_REQUEST, Message, TransactionId};
use tokio::net::UdpSocket;

use super::turn;
use super::wires::Wires;

/// Pauses after each asking (RFC 8489, section 6.2.1, in short).
const PAUSES: [Duration; 3] = [
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
];

/// How long a name may take to be looked up.
const LOOKUP: Duration = Duration::from_secs(2);

/// Asks every STUN server known, from every socket that could reach it, until all have answered or patience ends.
pub(super) async fn ask(wires: Arc<Wires>) {
    // An asking that was cut short, as by an ICE restart, left its own behind.
    wires.forget_questions();
    let mut questions: Vec<(Arc<UdpSocket>, SocketAddr, Vec<u8>)> = Vec::new();
    let sockets = wires.sockets();
    for url in wires.stun_servers() {
        let found = tokio::net::lookup_host((url.host.as_str(), url.port));
        let Ok(Ok(addresses)) = tokio::time::timeout(LOOKUP, found).await else {
            tracing::debug!(%url, "the STUN server's name is not known");
            continue;
        };
        for server in addresses.take(2) {
            for socket in &sockets {
                let Ok(local) = socket.local_addr() else {
                    continue;
                };
                let (here, there) = (local.ip(), server.ip());
                let fits =
                    here.is_ipv4() == there.is_ipv4() && here.is_loopback() == there.is_loopback();
                if let Some((id, message)) = fits.then(question).flatten() {
                    wires.asked(id, server, local);
                    questions.push((Arc::clone(socket), server, message));
                }
            }
        }
    }
    for pause in PAUSES {
        for (socket, server, message) in &questions {
            // What does not go out is asked again.
            if let Err(error) = socket.try_send_to(message, *server) {
                tracing::trace!(%error, "a question to a STUN server was not sent");
            }
        }
        let end = tokio::time::Instant::now() + pause;
        loop {
            let changed = wires.changed.notified();
            if wires.all_answered() {
                return;
            }
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(end) => break,
            }
        }
    }
    wires.forget_questions();
}

fn question() -> Option<([u8; 12], Vec<u8>)> {
    let id = TransactionId::new();
    let mut message = Message::new();
    let built = message.build(&[
        Box::new(id),
        Box::new(BINDING_REQUEST),
        Box::new(FINGERPRINT),
    ]);
    built.ok().map(|()| (id.0, message.raw))
}

/// The address that an answer tells.
pub(super) fn answer(packet: &[u8]) -> Option<SocketAddr> {
    let mut message = Message {
        raw: packet.to_vec(),
        ..Message::default()
    };
    message.decode().ok()?;
    turn::xor_address(&message, ATTR_XORMAPPED_ADDRESS)
}
