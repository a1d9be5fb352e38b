//! Wowza, asked for its list of streams in both dialects: no session, no name is touched.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::Findings;
use crate::config::secret::Secret;
use crate::net::ws::{Received, Socket};
use crate::net::{Dialer, Target};
use crate::signal::Dialect;
use crate::signal::wowza_v2::liveness::{Seen, question, read_list};

/// Longest wait for a list; a server without `enableQuery` may send none.
const DEADLINE: Duration = Duration::from_secs(5);
/// Messages looked at while the list is awaited.
const MESSAGES_MAX: usize = 8;

/// What a reply shows.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    dialect: Dialect,
    status: Option<u16>,
    seen: Seen,
}

pub(super) async fn ask(
    url: &Secret,
    application: &str,
    stream: &Secret,
    dialer: &Dialer,
    findings: &mut Findings,
) {
    let name = stream.expose().split('?').next().unwrap_or_default();
    let older = json!({
        "direction": "play",
        "command": "getAvailableStreams",
        "streamInfo": {
            "applicationName": application,
            "streamName": "",
            "sessionId": "[empty]",
        },
        "userData": {},
    });
    let asks: [(&[(&str, &str)], Value); 2] = [
        (
            &[("webrtcImplementation", "v2"), ("wzProbe", "liveness")],
            question(application),
        ),
        (&[], older),
    ];
    let mut is_silent = false;
    let mut refused = None;
    for (query, message) in asks {
        let target = match Target::parse(url.expose(), query) {
            Ok(target) => target,
            Err(error) => return findings.against.push(error.to_string()),
        };
        let began = Instant::now();
        let reply = match request(&target, dialer, &message, name).await {
            Ok(Some(reply)) => reply,
            Ok(None) => {
                is_silent = true;
                continue;
            }
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        findings.round_trip = Some(began.elapsed());
        findings.dialect = Some(reply.dialect);
        told(&reply, name, findings);
        return;
    }
    match refused {
        Some(error) if !is_silent => findings.against.push(error),
        // So is a server without `enableQuery`, on which one can publish all the same.
        _ => findings.notes.push(
            "the WebSocket opens, but the server tells nothing of its streams: which dialect it speaks, and whether the \
             application is there and the name free, shows only while publishing"
                .to_owned(),
        ),
    }
}

/// What `reply` means for a publisher of the stream called `name`.
fn told(reply: &Reply, name: &str, findings: &mut Findings) {
    let note = match (reply.seen, reply.status) {
        (Seen::Listed, _) => {
            let why = "another publisher is live under this stream name";
            return findings.against.push(why.to_owned());
        }
        (Seen::Missing, _) if name.is_empty() => {
            "the server lists its streams; which one is meant was not said".to_owned()
        }
        (Seen::Missing, _) => "the server lists its streams, and this name is free".to_owned(),
        (Seen::Nothing, Some(status @ (401 | 403 | 404))) => {
            return findings.against.push(format!(
                "the server refuses with {status}: check the application's name, and that WebRTC publishing is on"
            ));
        }
        (Seen::Nothing, status) => {
            let status = status.map_or_else(String::new, |status| format!(" (status {status})"));
            format!(
                "the server gives no list of streams{status}: whether the name is taken was not tried"
            )
        }
    };
    findings.notes.push(note);
}

/// The server's reply to `message` on a socket of its own; `None` for silence.
async fn request(
    target: &Target,
    dialer: &Dialer,
    message: &Value,
    name: &str,
) -> Result<Option<Reply>, String> {
    let mut socket = (Socket::connect(target, dialer).await).map_err(|error| error.to_string())?;
    let exchange = async {
        socket.send(message.to_string()).await.ok()?;
        for _ in 0..MESSAGES_MAX {
            let Received::Text(text) = socket.recv().await.ok()? else {
                continue;
            };
            let message: Option<Value> = serde_json::from_str(&text).ok();
            let reply = message.and_then(|message| read(&message, name));
            if reply.is_some() {
                return reply;
            }
        }
        None
    };
    let reply = timeout(DEADLINE, exchange).await.ok().flatten();
    socket.close().await;
    Ok(reply)
}

/// Reads a reply in either dialect; the names of the fields tell which (protocols.md 10, row 10).
fn read(message: &Value, name: &str) -> Option<Reply> {
    let number = |name: &str| {
        let value = message.get(name)?;
        let text = value.as_str().map(str::to_owned);
        text.unwrap_or_else(|| value.to_string()).parse().ok()
    };
    let (older, newer): (Option<u16>, Option<u16>) = (number("status"), number("statusCode"));
    let seen = read_list(message, name);
    let dialect = if older.is_some() || message.get("command").is_some() {
        Dialect::WowzaV1
    } else if newer.is_some() || seen.is_some() || message.get("messageType").is_some() {
        Dialect::WowzaV2
    } else {
        return None;
    };
    Some(Reply {
        dialect,
        status: older.or(newer),
        seen: seen.unwrap_or(Seen::Nothing),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_fields_tell_the_dialect() {
        let read = |message| read(&message, "a");
        let newer = read(json!({ "availableStreams": [{ "streamName": "a" }, {}, 7] }));
        let reply = |dialect, status, seen| {
            Some(Reply {
                dialect,
                status,
                seen,
            })
        };
        assert_eq!(newer, reply(Dialect::WowzaV2, None, Seen::Listed));
        let older = read(json!({
            "status": "200", "command": "getAvailableStreams", "availableStreams": null,
        }));
        assert_eq!(older, reply(Dialect::WowzaV1, Some(200), Seen::Nothing));
        let refused = read(json!({ "statusCode": 404, "statusDescription": "no" }));
        assert_eq!(refused, reply(Dialect::WowzaV2, Some(404), Seen::Nothing));
        let other = read(json!({ "code": 404, "error": "Cannot create offer" }));
        assert_eq!(other, None);
    }

    #[test]
    fn a_live_name_speaks_against_publishing_and_its_rendition_does_not() {
        for (listed, taken) in [("front", true), ("front?t=1", true), ("front_m", false)] {
            let list = json!({ "availableStreams": [{ "streamName": listed }] });
            let mut findings = Findings::default();
            told(&read(&list, "front").unwrap(), "front", &mut findings);
            assert_eq!(!findings.is_publishable(), taken, "{listed}");
        }
    }
}
