//! Qencode's JSON, read wherever it may stand (protocols.md 8.2). Pure.

use serde_json::Value;

use crate::config::Server;
use crate::config::secret::Secret;
use crate::net::http::Reply;
use crate::platform::error::{Call, Refusal};
use crate::platform::{Ingest, State, Stream};

/// Where a reply may hold its stream.
const PLACES: [&str; 4] = ["live_stream", "stream", "data", "result"];
/// Where a reply may hold its streams.
const LISTS: [&str; 6] = [
    "live_streams",
    "live-streams",
    "streams",
    "data",
    "items",
    "results",
];
/// How deep in a reply something is sought.
const DEPTH_MAX: usize = 4;

/// What a reply refuses, with its code and words; `None` if it does not. Qencode's older interface refuses with HTTP
/// 200 and an error number, so that is understood too.
pub(super) fn refusal(
    call: Call,
    reply: &Reply,
    json: &Value,
) -> Option<(Refusal, String, String)> {
    let error = &json["error"];
    let number = error.as_i64().or_else(|| error.as_str()?.parse().ok());
    let code = match number {
        Some(0) | None => error.as_str().unwrap_or_default().to_owned(),
        Some(number) => format!("error {number}"),
    };
    let words = ["message", "error_description", "detail", "description"]
        .into_iter()
        .find_map(|key| json[key].as_str().or_else(|| error[key].as_str()))
        .unwrap_or_default()
        .to_owned();
    let says_error = number.is_some_and(|n| n != 0)
        || error.is_object()
        || error.as_bool() == Some(true)
        || (number.is_none() && error.as_str().is_some_and(|text| !text.is_empty()));
    let speaks_of_token = || {
        let words = format!("{code} {words}").to_ascii_lowercase();
        words.contains("token") || words.contains("api key") || words.contains("api_key")
    };
    let refusal = match (reply.status, call) {
        (200..=299, _) if !says_error => return None,
        (200..=299 | 400..=404, Call::Login) => Refusal::Credential,
        (401 | 403, _) => Refusal::Credential,
        (200..=299, _) if speaks_of_token() => Refusal::Credential,
        // What it refuses so is not known; the state of the stream will tell.
        (200..=299, Call::Start | Call::Stop) => Refusal::WrongState,
        (200..=299, _) => Refusal::Unexpected,
        (404, _) => Refusal::NotFound,
        (410, _) => Refusal::Deleted,
        (409 | 423, _) => Refusal::WrongState,
        // A start and a stop have nothing that could be invalid.
        (400 | 422, Call::Start | Call::Stop) => Refusal::WrongState,
        (400 | 422, _) => Refusal::Invalid,
        (429, _) => Refusal::TooOften,
        (500..=599, _) => Refusal::Trouble,
        _ => Refusal::Unexpected,
    };
    Some((refusal, code, words))
}

/// The access token in a reply.
pub(super) fn token(json: &Value) -> Result<Secret, String> {
    let token = sought(json, "access_token", DEPTH_MAX).and_then(Value::as_str);
    let fits = |token: &&str| !token.is_empty() && token.chars().all(|c| c.is_ascii_graphic());
    (token.filter(fits).map(Secret::new)).ok_or_else(|| "it holds no access_token".to_owned())
}

/// The streams of a list.
pub(super) fn streams(json: &Value) -> Option<Vec<Stream>> {
    let list = json.as_array().or_else(|| {
        LISTS.iter().find_map(|name| {
            json[*name].as_array().or_else(|| {
                LISTS
                    .iter()
                    .find_map(|inner| json[*name][*inner].as_array())
            })
        })
    })?;
    Some(list.iter().filter_map(object).collect())
}

/// The stream of a reply.
pub(super) fn stream(json: &Value) -> Option<Stream> {
    let places = PLACES.iter().map(|place| &json[*place]);
    places.chain([json]).find_map(object)
}

/// The state in a reply, if one is said.
pub(super) fn state(json: &Value) -> Option<State> {
    let places = PLACES.iter().map(|place| &json[*place]);
    places.chain([json]).find_map(state_in)
}

/// Where a reply says that media is taken.
pub(super) fn ingest(json: &Value) -> Ingest {
    let url = sought(json, "server_urls", DEPTH_MAX)
        .and_then(|urls| urls["webrtc"].as_str())
        .filter(|url| url.starts_with("wss://") || url.starts_with("ws://"));
    match url {
        Some(url) => Ingest::At(Server::Qencode {
            url: Secret::new(url),
        }),
        None => Ingest::Unsaid,
    }
}

fn object(value: &Value) -> Option<Stream> {
    let id = match value["id"].as_i64() {
        Some(number) => number.to_string(),
        None => (value["id"].as_str())
            .or_else(|| value["stream_id"].as_str())?
            .to_owned(),
    };
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    let name = ["name", "title"]
        .iter()
        .find_map(|key| value[*key].as_str());
    (!id.is_empty() && id.len() <= 200 && id.chars().all(fits)).then(|| Stream {
        id,
        name: name.unwrap_or_default().to_owned(),
        state: state_in(value).unwrap_or_else(|| State::Other("unsaid".to_owned())),
        ingest: ingest(value),
    })
}

fn state_in(value: &Value) -> Option<State> {
    let word = value["status"]
        .as_str()
        .or_else(|| value["state"].as_str())?;
    Some(match word.to_ascii_lowercase().as_str() {
        "created" | "stopped" => State::Stopped,
        "idle" => State::Ready,
        "live" => State::Live,
        "starting" => State::Starting,
        "stopping" => State::Stopping,
        _ => State::Other(word.chars().filter(|c| !c.is_control()).take(80).collect()),
    })
}

/// The value of a key, wherever in the tables of a reply it stands.
fn sought<'v>(json: &'v Value, key: &str, depth: usize) -> Option<&'v Value> {
    let table = json.as_object().filter(|_| depth > 0)?;
    let here = table.get(key).filter(|value| !value.is_null());
    here.or_else(|| {
        table
            .values()
            .find_map(|value| sought(value, key, depth - 1))
    })
}
