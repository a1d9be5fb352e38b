//! Wowza, asked for its list of streams in both dialects: no session, no name is touched.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::{Instant, timeout};

use super::Findings;
use crate::config::secret::Secret;
use crate::net::ws::{Received, Socket};
use crate::net::{Dialer, Target};
use crate::signal::Dialect;

/// Longest wait for a list; a server without `enableQuery` may send none.
const DEADLINE: Duration = Duration::from_secs(5);
/// Messages looked at while the list is awaited.
const MESSAGES_MAX: usize = 8;

/// What a reply shows.
#[derive(Debug, PartialEq, Eq)]
struct Reply {
    dialect: Dialect,
    status: Option<u16>,
    streams: Option<Vec<String>>,
}

pub(super) async fn ask(
    url: &Secret,
    application: &str,
    stream: &Secret,
    dialer: &Dialer,
    findings: &mut Findings,
) {
    let newer = json!({ "messageType": "GET_AVAILABLE_STREAMS", "applicationName": application });
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
            newer,
        ),
        (&[], older),
    ];
    let mut refused = None;
    for (query, message) in asks {
        let target = match Target::parse(url.expose(), query) {
            Ok(target) => target,
            Err(error) => return findings.against.push(error.to_string()),
        };
        let began = Instant::now();
        let reply = match request(&target, dialer, &message).await {
            Ok(Some(reply)) => reply,
            Ok(None) => continue,
            Err(error) => {
                refused = Some(error);
                continue;
            }
        };
        findings.round_trip = Some(began.elapsed());
        findings.dialect = Some(reply.dialect);
        told(&reply, stream, findings);
        return;
    }
    findings.against.push(refused.unwrap_or_else(|| {
        "the WebSocket opens, but in neither of Wowza's dialects was anything answered".to_owned()
    }));
}

/// What `reply` means for a publisher of `stream`.
fn told(reply: &Reply, stream: &Secret, findings: &mut Findings) {
    let name = stream.expose().split('?').next().unwrap_or_default();
    match (&reply.streams, reply.status) {
        (Some(streams), _) => {
            let taken = !name.is_empty() && streams.iter().any(|s| s == name);
            if taken {
                let why = "another publisher is live under this stream name";
                findings.against.push(why.to_owned());
            }
            let n = streams.len();
            findings.notes.push(format!("{n} streams are live in the application"));
        }
        (None, Some(status @ (401 | 403 | 404))) => findings.against.push(format!(
            "the server refuses with {status}: check the application's name, and that WebRTC publishing is on"
        )),
        (None, status) => {
            let status = status.map_or_else(String::new, |status| format!(" (status {status})"));
            findings.notes.push(format!(
                "the server gives no list of streams{status}: whether the name is taken was not tried"
            ));
        }
    }
}

/// The server's reply to `message` on a socket of its own; `None` for silence.
async fn request(
    target: &Target,
    dialer: &Dialer,
    message: &Value,
) -> Result<Option<Reply>, String> {
    let mut socket = (Socket::connect(target, dialer).await).map_err(|error| error.to_string())?;
    let exchange = async {
        socket.send(message.to_string()).await.ok()?;
        for _ in 0..MESSAGES_MAX {
            let Received::Text(text) = socket.recv().await.ok()? else {
                continue;
            };
            let reply = serde_json::from_str(&text).ok().as_ref().and_then(read);
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
fn read(message: &Value) -> Option<Reply> {
    let number = |name: &str| {
        let value = message.get(name)?;
        let text = value.as_str().map(str::to_owned);
        text.unwrap_or_else(|| value.to_string()).parse().ok()
    };
    let (older, newer): (Option<u16>, Option<u16>) = (number("status"), number("statusCode"));
    let list = message.get("availableStreams");
    let name = |stream: &Value| Some(stream.get("streamName")?.as_str()?.to_owned());
    let streams = list.map(|list| {
        let all = list.as_array().map(Vec::as_slice).unwrap_or_default();
        all.iter().filter_map(name).collect()
    });
    let dialect = if older.is_some() || message.get("command").is_some() {
        Dialect::WowzaV1
    } else if newer.is_some() || streams.is_some() || message.get("messageType").is_some() {
        Dialect::WowzaV2
    } else {
        return None;
    };
    Some(Reply {
        dialect,
        status: older.or(newer),
        streams,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn streams(names: &[&str]) -> Option<Vec<String>> {
        Some(names.iter().map(|&n| n.to_owned()).collect())
    }

    #[test]
    fn the_fields_tell_the_dialect() {
        let newer = json!({ "availableStreams": [{ "streamName": "a" }, {}, 7] });
        let newer = read(&newer).unwrap();
        assert_eq!(newer.dialect, Dialect::WowzaV2);
        assert_eq!(newer.streams, streams(&["a"]));
        let older = json!({
            "status": "200", "command": "getAvailableStreams", "availableStreams": null,
        });
        let older = read(&older).unwrap();
        assert_eq!((older.dialect, older.status), (Dialect::WowzaV1, Some(200)));
        assert_eq!(older.streams, streams(&[]));
        let refused = read(&json!({ "statusCode": 404, "statusDescription": "no" })).unwrap();
        assert_eq!(
            (refused.dialect, refused.status),
            (Dialect::WowzaV2, Some(404))
        );
        assert_eq!(
            read(&json!({ "code": 404, "error": "Cannot create offer" })),
            None
        );
    }

    #[test]
    fn a_live_name_speaks_against_publishing_and_its_rendition_does_not() {
        for (listed, taken) in [("front", true), ("front_m", false)] {
            let reply = Reply {
                dialect: Dialect::WowzaV2,
                status: None,
                streams: streams(&[listed]),
            };
            let mut findings = Findings::default();
            told(&reply, &Secret::new("front?token=t"), &mut findings);
            assert_eq!(!findings.is_publishable(), taken, "{listed}");
        }
    }
}
