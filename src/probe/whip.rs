//! A WHIP server, asked for its options (RFC 9725, section 4.2): it makes no session for that.

use tokio::time::Instant;

use super::Findings;
use crate::config::Trickle;
use crate::config::ice_server::IceServer;
use crate::config::secret::{Bearer, Secret};
use crate::net::Dialer;
use crate::signal::Dialect;
use crate::signal::whip::{Options, Token, Whip};

pub(super) async fn ask(
    url: &Secret,
    bearer: Option<&Bearer>,
    dialer: &Dialer,
    findings: &mut Findings,
    ice_servers: &mut Vec<IceServer>,
) {
    let token = bearer.map(|bearer| Token {
        value: bearer.token.clone(),
        reread: None,
    });
    let whip = Whip::new(url, token, Trickle::Off, None, dialer.clone());
    let began = Instant::now();
    match whip.options().await {
        Ok(options) => {
            findings.round_trip = Some(began.elapsed());
            told(&options, findings);
            ice_servers.extend(options.ice_servers);
        }
        Err(error) => findings.against.push(error.to_string()),
    }
}

/// What the reply to `OPTIONS` means for a publisher.
fn told(options: &Options, findings: &mut Findings) {
    if options.endpoint != findings.endpoint {
        (findings.notes).push(format!("redirected to {}", options.endpoint));
    }
    match options.status {
        200..=299 => {
            findings.dialect = Some(Dialect::Whip);
            findings.notes.push(if options.takes_sdp {
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
            let reason = &options.reason;
            (findings.against).push(format!("the server answers {status}: {reason}"));
        }
    }
}
