//! Recorded dialogues of real servers, replayed against the lab: given what the recorded client said, the lab answers
//! in the same shape, line for line, but for what is random or depends on the machine.

#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "of JSON's kinds only some are of concern"
)]

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use onair::lab::{Lab, LabConfig, Profile};
use onair::media::time::MediaClock;
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

use crate::rehearsal::{Socket, connect, hear};

const SOON: Duration = Duration::from_secs(10);
/// The recorded servers said nothing where they said nothing at once.
const SILENCE: Duration = Duration::from_millis(120);

/// Where the lab knowingly answers otherwise: file, dialogue, and why. What stands here must differ indeed.
const DIFFERENCES: &[(&str, &str, &str)] = &[
    (
        "v0.21.0-probes",
        "app with rtx",
        "the lab has no second application, with <Rtx>",
    ),
    (
        "v0.21.0-publish-rtx",
        "",
        "the lab has no second application, with <Rtx>",
    ),
];

fn recorded(name: &str) -> Value {
    let path =
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/data/ome/{name}.json"));
    let text = fs::read_to_string(path).expect("a recording");
    serde_json::from_str(&text).expect("JSON")
}

#[expect(clippy::disallowed_methods, reason = "a clock in real time")]
async fn lab(profile: Profile) -> Lab {
    let clock = MediaClock::new(Instant::now(), SystemTime::now());
    Lab::start(LabConfig::new(vec![profile], clock))
        .await
        .expect("a lab")
}

/// A recorded URL at the lab; the recorded servers' application is the lab's.
fn at(lab: &Lab, profile: Profile, url: &str) -> String {
    let rest = url.split_once("://").expect("a URL").1;
    let path = rest.split_once('/').map_or("", |(_, path)| path);
    let application = lab.endpoint(profile).expect("this profile").application;
    let path = match path.strip_prefix("qlive") {
        Some(after) if after.is_empty() || after.starts_with(['/', '?']) => {
            format!("{application}{after}")
        }
        _ => path.to_owned(),
    };
    let scheme = if url.starts_with("http") {
        "http"
    } else {
        "ws"
    };
    format!("{scheme}://{}/{path}", lab.addresses()[&profile])
}

/// A word of a text with what is random in it replaced by what kind of thing it is.
fn word_shape(word: &str) -> String {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if word
        .parse::<std::net::IpAddr>()
        .is_ok_and(|ip| ip.is_loopback())
    {
        "LOOPBACK".to_owned()
    } else if let Some(foundation) = word
        .strip_prefix("a=")
        .unwrap_or(word)
        .strip_prefix("candidate:")
    {
        let length = match foundation.len() {
            _ if !digits(foundation) => "no number",
            // The real ones are random numbers printed with ten digits, or with as many as they have.
            1..=10 => "short",
            _ => "long",
        };
        format!("candidate:{length}")
    } else if digits(word) && word.len() > 3 && word != "90000" && word.len() < 6 {
        "PORT".to_owned()
    } else {
        word.to_owned()
    }
}

/// A line of a description, likewise. `mids` are those of the description, in order.
fn line_shape(line: &str, mids: &[&str]) -> String {
    let secret = |text: &str| format!("{} characters", text.len());
    for name in ["a=ice-ufrag:", "a=ice-pwd:"] {
        if let Some(value) = line.strip_prefix(name) {
            return format!("{name}{}", secret(value));
        }
    }
    if let Some(value) = line.strip_prefix("a=fingerprint:sha-256 ") {
        return format!("a=fingerprint:sha-256 {}", secret(value));
    }
    if let Some(value) = line.strip_prefix("a=msid") {
        let words: Vec<String> = value
            .split(' ')
            .map(|w| {
                if w.len() == 36 {
                    secret(w)
                } else {
                    w.split(':').next().unwrap_or(w).to_owned()
                }
            })
            .collect();
        return format!("a=msid{}", words.join(" "));
    }
    if line.starts_with("o=") {
        let words: Vec<&str> = line.split(' ').collect();
        return format!("{} N {}", words[0], words[2..].join(" "));
    }
    let named = |word: &str| match mids.iter().position(|mid| *mid == word) {
        Some(n) => format!("mid {n}"),
        None => word_shape(word),
    };
    if let Some(mid) = line.strip_prefix("a=mid:") {
        return format!("a=mid:{}", named(mid));
    }
    let in_group = line.starts_with("a=group:");
    let words = line
        .split(' ')
        .map(|w| if in_group { named(w) } else { word_shape(w) });
    words.collect::<Vec<_>>().join(" ")
}

fn sdp_shape(sdp: &str) -> Value {
    let mids: Vec<&str> = sdp
        .lines()
        .filter_map(|line| line.strip_prefix("a=mid:"))
        .collect();
    assert!(
        sdp.ends_with("\r\n") && !sdp.replace("\r\n", "").contains('\n'),
        "its line ends"
    );
    sdp.lines().map(|line| line_shape(line, &mids)).collect()
}

/// A message with what is random in it replaced by what kind of thing it is.
fn shape(value: &Value) -> Value {
    match value {
        Value::Array(values) => values.iter().map(shape).collect(),
        Value::Object(fields) => {
            let field = |(name, value): (&String, &Value)| {
                let shaped = match (name.as_str(), value) {
                    ("id", Value::Number(_)) => json!("a number"),
                    _ => shape(value),
                };
                (name.clone(), shaped)
            };
            Value::Object(fields.iter().map(field).collect())
        }
        Value::String(text) if text.starts_with("v=0") => sdp_shape(text),
        Value::String(text) if text.starts_with("turn:") => {
            let words: Vec<String> = text.split(&[':', '?']).map(word_shape).collect();
            json!(words)
        }
        Value::String(text) => json!(
            text.split(' ')
                .map(word_shape)
                .collect::<Vec<_>>()
                .join(" ")
        ),
        other => other.clone(),
    }
}

/// What of a recorded client's words belongs to the recorded session, and what stands for it at the lab.
#[derive(Default)]
struct Names {
    id: BTreeMap<i64, i64>,
    text: Vec<(String, String)>,
}

impl Names {
    /// Both servers said this.
    fn learn(&mut self, theirs: &Value, ours: &Value) {
        if let (Some(theirs), Some(ours)) = (theirs["id"].as_i64(), ours["id"].as_i64()) {
            self.id.insert(theirs, ours);
        }
        let mids = |message: &Value| -> Vec<String> {
            let sdp = message["sdp"]["sdp"].as_str().unwrap_or_default();
            let values = sdp.lines().filter_map(|line| line.strip_prefix("a=mid:"));
            values.map(str::to_owned).collect()
        };
        self.text.extend(mids(theirs).into_iter().zip(mids(ours)));
    }

    fn told(&self, message: &Value) -> Value {
        let mut text = message.to_string();
        for (theirs, ours) in &self.text {
            text = text.replace(theirs, ours);
        }
        let mut message: Value = serde_json::from_str(&text).expect("JSON");
        if let Some(ours) = message["id"].as_i64().and_then(|id| self.id.get(&id)) {
            message["id"] = json!(ours);
        }
        message
    }
}

async fn tell(socket: &mut Socket, names: &Names, recorded: &Value) {
    use futures_util::SinkExt;
    // The recorder wrote what was no JSON as Python does.
    let quoted = |text: &str, before: &str| -> Option<String> {
        Some(text.strip_prefix(before)?.strip_suffix('\'')?.to_owned())
    };
    let message = match recorded {
        Value::String(text) => match (quoted(text, "b'"), quoted(text, "'")) {
            (Some(bytes), _) => Message::binary(bytes.into_bytes()),
            (None, Some(text)) => Message::text(text),
            (None, None) => panic!("{text}"),
        },
        other => Message::text(names.told(other).to_string()),
    };
    socket.send(message).await.expect("the lab reads");
}

/// Replays one side's part of a dialogue; the error says where the lab answered otherwise. The socket stays open.
async fn replay(url: &str, dialogue: &[Value]) -> Result<Socket, String> {
    let mut socket = connect(url).await;
    let mut names = Names::default();
    for entry in dialogue {
        let theirs = &entry["msg"];
        match entry["dir"].as_str() {
            Some("client->server") => tell(&mut socket, &names, theirs).await,
            Some("server->client") => {
                let ours = hear(&mut socket, SOON).await;
                let ours = ours.ok_or_else(|| format!("silence instead of {theirs}"))?;
                names.learn(theirs, &ours);
                let (expected, got) = (shape(theirs), shape(&ours));
                if expected != got {
                    return Err(format!("{got:#}\ninstead of\n{expected:#}"));
                }
            }
            other => panic!("{other:?}"),
        }
    }
    match hear(&mut socket, SILENCE).await {
        None => Ok(socket),
        Some(more) => Err(format!("{more} instead of silence")),
    }
}

/// Whether the lab's answer to this dialogue is as it should be.
fn is_agreed(file: &str, dialogue: &str, replayed: &Result<Socket, String>) {
    let difference = DIFFERENCES
        .iter()
        .find(|(f, d, _)| (*f, *d) == (file, dialogue));
    match (difference, replayed) {
        (None, Err(why)) => panic!("{file} {dialogue}: {why}"),
        (Some((.., why)), Ok(_)) => panic!("{file} {dialogue}: no difference, but {why:?}"),
        (None, Ok(_)) | (Some(_), Err(_)) => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_34_probes_are_answered_as_by_the_recorded_server() {
    let lab = lab(Profile::Qencode).await;
    let file = "v0.21.0-probes";
    let recording = recorded(file);
    let probes = recording["probes"].as_array().expect("a list");
    assert_eq!(probes.len(), 34);
    for probe in probes {
        let url = at(
            &lab,
            Profile::Qencode,
            probe["url"].as_str().expect("a URL"),
        );
        let replayed = replay(&url, probe["log"].as_array().expect("a list")).await;
        is_agreed(file, probe["name"].as_str().expect("a name"), &replayed);
    }
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_publishers_are_answered_as_by_the_recorded_servers() {
    for (profile, files) in [
        (
            Profile::Ome020,
            &["v0.20.5-publish-tcp", "v0.20.5-publish-udp"][..],
        ),
        (
            Profile::Ome021,
            &[
                "v0.21.0-answer-without-ssrc",
                "v0.21.0-publish-all",
                "v0.21.0-publish-relay",
                "v0.21.0-publish-rtx",
                "v0.21.0-publish-tcp",
                "v0.21.0-publish-udp",
                "v0.21.0-publish-wss",
            ],
        ),
    ] {
        let lab = lab(profile).await;
        for file in files {
            let recording = recorded(file);
            let url = at(&lab, profile, recording["url"].as_str().expect("a URL"));
            let dialogue = recording["signalling"].as_array().expect("a list");
            is_agreed(file, "", &replay(&url, dialogue).await);
        }
        lab.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_publisher_is_answered_as_by_the_recorded_server() {
    let lab = lab(Profile::Ome021).await;
    let (first, second) = (
        recorded("v0.21.0-publish-udp"),
        recorded("v0.21.0-duplicate-name"),
    );
    let url = at(
        &lab,
        Profile::Ome021,
        second["url"].as_str().expect("a URL"),
    );
    let live = replay(&url, first["signalling"].as_array().expect("a list")).await;
    let _live = live.expect("the first publishes");
    let dialogue = second["signalling"].as_array().expect("a list");
    replay(&url, dialogue)
        .await
        .expect("the second is refused alike");
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn two_publishers_that_race_are_answered_as_by_the_recorded_server() {
    let lab = lab(Profile::Ome021).await;
    let url = at(&lab, Profile::Ome021, "ws://h/qlive/race1?direction=send");
    let recording = recorded("v0.21.0-duplicate-race");
    let mut publishers = BTreeMap::new();
    for who in ["A", "B"] {
        publishers.insert(who, (connect(&url).await, Names::default()));
    }
    let mut compared = 0;
    for entry in recording["log"].as_array().expect("a list") {
        let (Some(who), Some(direction)) = (entry["who"].as_str(), entry["dir"].as_str()) else {
            continue;
        };
        let (socket, names) = publishers.get_mut(who).expect("A or B");
        if direction == "client->server" {
            tell(socket, names, &entry["msg"]).await;
            // Each answer is taken before the next comes, as it was then.
            if entry["msg"]["command"] == "answer" && who == "A" {
                assert_eq!(hear(socket, SILENCE).await, None);
            }
            continue;
        }
        let ours = hear(socket, SOON).await.expect("a reply");
        names.learn(&entry["msg"], &ours);
        assert_eq!(shape(&ours), shape(&entry["msg"]), "{who}");
        compared += 1;
    }
    assert_eq!(compared, 3);
    lab.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_recorded_publisher_by_whip_is_answered_as_by_the_recorded_server() {
    let lab = lab(Profile::WhipOme).await;
    let recording = recorded("v0.21.0-whip");
    for exchange in recording["http"].as_array().expect("a list") {
        let url = at(
            &lab,
            Profile::WhipOme,
            exchange["url"].as_str().expect("a URL"),
        );
        let headers: String = exchange["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .map(|(name, value)| format!("{name}: {}\r\n", value.as_str().expect("text")))
            .collect();
        let (method, body) = (&exchange["method"], &exchange["body"]);
        let (method, body) = (method.as_str().expect("text"), body.as_str().expect("text"));
        let ours = crate::dialects::ask(&url, method, &headers, body).await;
        let theirs = &exchange["reply"];
        assert_eq!(json!(ours.status), theirs["status"]);
        // What belongs to the one connection is no part of the contract.
        let plain = |name: &str, value: &str| match name {
            "connection" => None,
            "content-length" | "date" => Some((name.to_owned(), "some".to_owned())),
            "etag" => Some((name.to_owned(), format!("{} characters", value.len()))),
            "location" => {
                let key = value.rsplit('/').next().unwrap_or_default().len();
                Some((
                    name.to_owned(),
                    format!("{} parts, the last of {key}", value.split('/').count()),
                ))
            }
            _ => Some((name.to_owned(), value.to_owned())),
        };
        let expected: BTreeMap<_, _> = theirs["headers"]
            .as_object()
            .expect("headers")
            .iter()
            .filter_map(|(name, value)| plain(name, value.as_str().expect("text")))
            .collect();
        let got: BTreeMap<_, _> = ours
            .headers
            .iter()
            .filter_map(|(name, value)| plain(name, value))
            .collect();
        assert_eq!(got, expected);
        let theirs = theirs["body"].as_str().expect("an answer");
        let (got, expected) = (sdp_shape(&ours.body), sdp_shape(theirs));
        assert!(got == expected, "{got:#}\ninstead of\n{expected:#}");
    }
    lab.stop().await;
}

/// What was seen of OvenMediaEngine 0.21 by WHIP beside the recorded session.
#[tokio::test(flavor = "multi_thread")]
async fn whip_is_refused_as_by_the_observed_server() {
    use crate::dialects::ask;
    let lab = lab(Profile::WhipOme).await;
    let recording = recorded("v0.21.0-whip");
    let offer = recording["http"][0]["body"].as_str().expect("an offer");
    let url = |path: &str| format!("http://{}{path}", lab.addresses()[&Profile::WhipOme]);
    let whip = url("/app/one?direction=whip");
    for (url, body, status, said) in [
        (
            url("/nothing/one?direction=whip"),
            offer,
            404,
            "Could not find application",
        ),
        (url("/app?direction=whip"), offer, 400, "Invalid URI"),
        (url("/app/one"), offer, 404, ""),
        (url("/app/one?direction=send"), offer, 404, ""),
        (whip.clone(), "garbage", 500, "Could not create stream"),
        // The type of the body is not looked at.
        (whip.clone(), offer, 201, "v=0"),
        (whip.clone(), offer, 409, "Stream is already exist"),
    ] {
        let reply = ask(&url, "POST", "Content-Type: text/plain\r\n", body).await;
        assert_eq!(reply.status, status, "{url}");
        assert!(
            reply.body.starts_with(said) && reply.body.is_empty() == said.is_empty(),
            "{reply:?}"
        );
    }
    assert_eq!(ask(&whip, "OPTIONS", "", "").await.status, 200);
    let all = ask(
        &url("/app/two?direction=whip&transport=all"),
        "POST",
        "",
        offer,
    )
    .await;
    assert!(all.header("link").contains("rel=\"ice-server\""), "{all:?}");
    let session = url(all.header("location"));
    assert_eq!(ask(&session, "PATCH", "", "anything").await.status, 204);
    assert_eq!(ask(&session, "DELETE", "", "").await.status, 200);
    assert_eq!(ask(&session, "DELETE", "", "").await.status, 404);
    lab.stop().await;
}
