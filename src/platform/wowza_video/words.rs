//! Wowza Video's JSON, read and written. Pure; what is missing is said, what is unknown is let pass.

use serde_json::{Value, json};

use crate::config::platform::Create;
use crate::config::secret::Secret;
use crate::config::{Server, WowzaDialect};
use crate::net::http::Reply;
use crate::platform::error::{Call, Refusal};
use crate::platform::{Ingest, State, Stream, Witness};

/// The kind of encoder that a stream must be made for.
const WEBRTC: &str = "other_webrtc";
/// Most warnings of one look that are repeated.
const WARNINGS_MAX: usize = 16;

/// What a reply refuses, with its code and words (protocols.md 8.1.4); `None` if it does not.
pub(super) fn refusal(_: Call, reply: &Reply, json: &Value) -> Option<(Refusal, String, String)> {
    let meta = &json["meta"];
    let text_of = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let code = text_of(&meta["code"]);
    let refusal = match reply.status {
        200..=299 => return None,
        401 => Refusal::Credential,
        403 => Refusal::Forbidden,
        404 => Refusal::NotFound,
        409 => Refusal::TooMany,
        410 => Refusal::Deleted,
        422 if code.contains("InvalidStateChange") => Refusal::WrongState,
        400 | 422 => Refusal::Invalid,
        423 => Refusal::WrongState,
        429 => Refusal::TooOften,
        500..=599 => Refusal::Trouble,
        _ => Refusal::Unexpected,
    };
    let words = match text_of(&meta["message"]) {
        empty if empty.is_empty() => text_of(&meta["title"]),
        message => message,
    };
    Some((refusal, code, words))
}

/// The state in a reply.
pub(super) fn state(json: &Value) -> Result<State, String> {
    let word = json["live_stream"]["state"]
        .as_str()
        .ok_or("it has no live_stream.state")?;
    Ok(state_of(word))
}

fn state_of(word: &str) -> State {
    match word.to_ascii_lowercase().as_str() {
        "started" => State::Ready,
        // A reset ends as started.
        "resetting" | "starting" => State::Starting,
        "stopped" => State::Stopped,
        "stopping" => State::Stopping,
        _ => State::Other(shortened(word)),
    }
}

/// The stream in a reply that shows all of it.
pub(super) fn stream(json: &Value, dialect: WowzaDialect) -> Result<Stream, String> {
    let stream = &json["live_stream"];
    let mut read = listed(stream).ok_or("it has no live_stream with an id")?;
    read.ingest = ingest(stream, dialect)?;
    Ok(read)
}

/// The streams of a page of a list, and whether it is the last one: it holds fewer than `per_page`, whatever they are.
pub(super) fn streams(json: &Value, per_page: usize) -> Result<(Vec<Stream>, bool), String> {
    let list = json["live_streams"]
        .as_array()
        .ok_or("it has no list live_streams")?;
    let streams = list.iter().filter_map(listed).collect();
    Ok((streams, list.len() < per_page))
}

fn listed(stream: &Value) -> Option<Stream> {
    let id = stream["id"].as_str()?;
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    (!id.is_empty() && id.len() <= 200 && id.chars().all(fits)).then(|| Stream {
        id: id.to_owned(),
        name: stream["name"].as_str().unwrap_or_default().to_owned(),
        state: state_of(stream["state"].as_str().unwrap_or("unsaid")),
        ingest: Ingest::Unsaid,
    })
}

/// The keys of `source_connection_information` depend on the type of encoder, which is said beside it, or not.
fn ingest(stream: &Value, dialect: WowzaDialect) -> Result<Ingest, String> {
    let source = &stream["source_connection_information"];
    let text = |key: &str| source[key].as_str().filter(|text| !text.is_empty());
    let encoder = stream["encoder"].as_str();
    match (
        text("sdp_url"),
        text("application_name"),
        text("stream_name"),
    ) {
        (Some(url), Some(application), Some(stream)) => {
            if !(url.starts_with("wss://") || url.starts_with("ws://")) {
                return Err("its sdp_url is no ws:// or wss:// URL".to_owned());
            }
            Ok(Ingest::At(Server::Wowza {
                url: Secret::new(url),
                application: application.to_owned(),
                stream: Secret::new(stream),
                dialect,
            }))
        }
        _ if encoder == Some(WEBRTC) => Err(
            "source_connection_information lacks sdp_url, application_name or stream_name"
                .to_owned(),
        ),
        _ => Ok(Ingest::Foreign(shortened(encoder.unwrap_or("unsaid")))),
    }
}

/// A new stream, as it is asked for (protocols.md 8.1.2).
pub(super) fn new_stream(name: &str, create: &Create) -> Value {
    let mut stream = json!({
        "name": name,
        "broadcast_location": create.broadcast_location,
        "encoder": WEBRTC,
        "delivery_method": "push",
        "aspect_ratio_width": create.size.width,
        "aspect_ratio_height": create.size.height,
        "transcoder_type": create.transcoder_type,
        "billing_mode": create.billing_mode,
        "low_latency": create.low_latency,
        "recording": create.recording,
    });
    if let Some(id) = &create.reference_id {
        stream["reference_id"] = json!(id);
    }
    stream
}

/// What the ingest analytics say (protocols.md 8.1.5); the metrics stand at the top or one table below.
pub(super) fn witness(json: &Value) -> Witness {
    let metrics = [
        &json["live_stream"],
        &json["ingest"],
        &json["metrics"],
        json,
    ]
    .into_iter()
    .find(|place| place["connected"].is_object());
    let Some(metrics) = metrics.and_then(Value::as_object) else {
        return Witness::default();
    };
    let said = |metric: &Value| {
        let value = &metric["value"];
        let word = value.as_str().or_else(|| metric["text"].as_str());
        value
            .as_bool()
            .or_else(|| match word?.to_ascii_lowercase().as_str() {
                "yes" | "true" => Some(true),
                "no" | "false" => Some(false),
                _ => None,
            })
    };
    let warns = |(name, metric): (&String, &Value)| {
        let text = metric["text"].as_str().unwrap_or_default();
        (metric["status"] == "warning").then(|| format!("{}: {}", shortened(name), shortened(text)))
    };
    Witness {
        connected: said(&metrics["connected"]),
        warnings: metrics
            .iter()
            .filter_map(warns)
            .take(WARNINGS_MAX)
            .collect(),
    }
}

/// Some printable characters of a word of the vendor's.
fn shortened(word: &str) -> String {
    word.chars().filter(|c| !c.is_control()).take(80).collect()
}
