//! A WHIP server, asked for its options (RFC 9725, section 4.2): it makes no session for that.

use std::time::Duration;

use tokio::time::Instant;

use super::Findings;
use crate::config::ice_server::IceServer;
use crate::config::secret::{Bearer, Secret};
use crate::net::http::{Method, Reply, Request, send};
use crate::net::{Dialer, Target};
use crate::signal::Dialect;
use crate::signal::whip::link;

/// Longest wait for the reply.
const DEADLINE: Duration = Duration::from_secs(10);

pub(super) async fn ask(
    url: &Secret,
    bearer: Option<&Bearer>,
    dialer: &Dialer,
    findings: &mut Findings,
    ice_servers: &mut Vec<IceServer>,
) {
    let target = match Target::parse_http(url.expose(), &[]) {
        Ok(target) => target,
        Err(error) => return findings.against.push(error.to_string()),
    };
    let token = bearer.map(|bearer| ("authorization", format!("Bearer {}", bearer.token.expose())));
    let request = Request {
        method: Method::Options,
        target: &target,
        headers: token.as_slice(),
        body: "",
    };
    let began = Instant::now();
    match send(dialer, &request, DEADLINE).await {
        Ok(reply) => {
            findings.round_trip = Some(began.elapsed());
            told(&reply, findings);
            ice_servers.extend(link::ice_servers(reply.headers("link")));
        }
        Err(error) => findings.against.push(error.to_string()),
    }
}

/// What the reply to `OPTIONS` means for a publisher.
fn told(reply: &Reply, findings: &mut Findings) {
    let takes_sdp = (reply.headers("accept-post"))
        .any(|types| types.to_ascii_lowercase().contains("application/sdp"));
    match reply.status {
        200..=299 => {
            findings.dialect = Some(Dialect::Whip);
            findings.notes.push(if takes_sdp {
                "the server takes SDP here; whether the name is taken was not tried".to_owned()
            } else {
                "the server answers, without saying that it takes SDP here: it shows only while publishing"
                    .to_owned()
            });
        }
        405 | 501 => findings.notes.push(
            "the server tells no options: whether it speaks WHIP here shows only while publishing"
                .to_owned(),
        ),
        status => {
            let reason = reply.reason();
            (findings.against).push(format!("the server answers {status}: {reason}"));
        }
    }
}
