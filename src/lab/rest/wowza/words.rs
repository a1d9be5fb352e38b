//! What Wowza Video's API says: errors in its form, and what it takes when a stream is created or changed.
//!
//! Pure.

use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use super::super::account::Reply;

/// Where a stream can be broadcast from.
const LOCATIONS: [&str; 15] = [
    "asia_pacific_australia",
    "asia_pacific_india",
    "asia_pacific_japan",
    "asia_pacific_singapore",
    "asia_pacific_s_korea",
    "asia_pacific_taiwan",
    "eu_belgium",
    "eu_germany",
    "eu_ireland",
    "south_america_brazil",
    "us_central_iowa",
    "us_east_s_carolina",
    "us_east_virginia",
    "us_west_california",
    "us_west_oregon",
];
/// What a stream can come from.
const ENCODERS: [&str; 20] = [
    "other_webrtc",
    "media_ds",
    "axis",
    "epiphan",
    "hauppauge",
    "jvc",
    "live_u",
    "matrox",
    "newtek_tricaster",
    "osprey",
    "sony",
    "telestream_wirecast",
    "teradek_cube",
    "vmix",
    "x_split",
    "ipcamera",
    "other_rtmp",
    "other_rtsp",
    "other_srt",
    "other_udp",
];
/// The one whose streams are published to by WebRTC.
pub(super) const WEBRTC: &str = "other_webrtc";
/// Longest name, in characters.
const NAME: usize = 200;
/// Longest text of any other kind.
const TEXT: usize = 1_024;

/// An error as the API words it. `code` lacks its status.
pub(super) fn error(status: u16, code: &str, title: &str, message: &str) -> Reply {
    let body = json!({
        "meta": {
            "status": status,
            "code": format!("ERR-{status}-{code}"),
            "title": title,
            "message": message,
            "description": "",
            "links": [],
        }
    });
    Reply::json(status, body)
}

/// Which of the documented errors has `status`, for faults; those that are not documented say no more than HTTP.
pub(super) fn refusal(status: u16) -> Reply {
    match status {
        401 => error(
            401,
            "InvalidToken",
            "Invalid Token Error",
            "The access token is invalid.",
        ),
        403 => error(
            403,
            "RecordUnaccessible",
            "Record Unaccessible Error",
            "The requested resource isn't accessible.",
        ),
        404 => error(
            404,
            "RecordNotFound",
            "Record Not Found Error",
            "The requested resource couldn't be found.",
        ),
        409 => error(
            409,
            "LimitReached",
            "Limit Reached Error",
            "You've reached the limit of live streams that can be created.",
        ),
        410 => error(
            410,
            "RecordDeleted",
            "Record Deleted Error",
            "The requested resource has been deleted.",
        ),
        422 => error(
            422,
            "RecordInvalid",
            "Record Invalid Error",
            "The request couldn't be processed.",
        ),
        423 => error(
            423,
            "StreamAlreadyStopped",
            "Stream Already Stopped Error",
            "The stream has already been stopped.",
        ),
        429 => error(
            429,
            "TooManyRequests",
            "Too Many Requests Error",
            "Too many requests were made.",
        ),
        // What a proxy in front of it says, which knows nothing of the API.
        502..=504 => Reply::text(
            status,
            format!("<html><body><h1>{status}</h1></body></html>"),
        ),
        other => error(
            other,
            "Error",
            "Error",
            "The request couldn't be processed.",
        ),
    }
}

/// Not possible in this state. `what` as in `Starting`.
pub(super) fn not_now(what: &str, state: &str) -> Reply {
    error(
        422,
        "InvalidStateChange",
        "Invalid State Change Error",
        &format!(
            "The request couldn't be processed. {what} is not allowed! Transcoder is in {state} state."
        ),
    )
}

/// The fields of a stream that its owner decides on.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Settings(Map<String, Value>);

impl Settings {
    /// Of a stream that exists already, made by hand.
    pub(super) fn by_hand(name: &str) -> Self {
        let mut settings = Self::defaults();
        settings.0.insert("name".to_owned(), json!(name));
        settings
            .0
            .insert("broadcast_location".to_owned(), json!("eu_germany"));
        settings.0.insert("encoder".to_owned(), json!(WEBRTC));
        settings
    }

    fn defaults() -> Self {
        let mut settings = Map::new();
        for (field, value) in [
            ("aspect_ratio_height", json!(1080)),
            ("aspect_ratio_width", json!(1920)),
            ("billing_mode", json!("pay_as_you_go")),
            ("delivery_method", json!("push")),
            ("low_latency", json!(false)),
            ("recording", json!(false)),
            ("reference_id", Value::Null),
            ("transcoder_type", json!("transcoded")),
        ] {
            settings.insert(field.to_owned(), value);
        }
        Self(settings)
    }

    /// Reads what a stream is created with.
    pub(super) fn created(body: &[u8]) -> Result<Self, Reply> {
        let mut settings = Self::defaults();
        let wrong = settings.change(body)?;
        let missing = ["name", "broadcast_location", "encoder"]
            .into_iter()
            .filter(|field| !settings.0.contains_key(*field))
            .map(|field| format!("{field} can't be blank"));
        let faults: Vec<String> = missing.chain(wrong).collect();
        invalid(&faults)?;
        Ok(settings)
    }

    /// Reads what changes; nothing does if anything is wrong.
    pub(super) fn changed(&self, body: &[u8]) -> Result<Self, Reply> {
        let mut settings = self.clone();
        let faults = settings.change(body)?;
        invalid(&faults)?;
        Ok(settings)
    }

    /// Takes over every known field and returns what is wrong with them. Unknown ones are passed over.
    fn change(&mut self, body: &[u8]) -> Result<Vec<String>, Reply> {
        let unreadable = || {
            error(
                400,
                "BadRequest",
                "Bad Request Error",
                "The request isn't valid JSON.",
            )
        };
        let body: Value = serde_json::from_slice(body).map_err(|_| unreadable())?;
        let Some(stream) = body.get("live_stream").and_then(Value::as_object) else {
            return Err(error(
                422,
                "RecordInvalid",
                "Record Invalid Error",
                "The request couldn't be processed. live_stream is missing.",
            ));
        };
        let mut faults = Vec::new();
        for (field, value) in stream {
            let Some(fault) = fault(field, value) else {
                continue;
            };
            faults.extend(fault.map(|what| format!("{field} {what}")));
            self.0.insert(field.clone(), value.clone());
        }
        Ok(faults)
    }

    pub(super) fn text(&self, field: &str) -> &str {
        self.0.get(field).and_then(Value::as_str).unwrap_or("")
    }

    /// The fields, to be shown with others.
    pub(super) fn fields(&self) -> Map<String, Value> {
        self.0.clone()
    }
}

fn invalid(faults: &[String]) -> Result<(), Reply> {
    if faults.is_empty() {
        return Ok(());
    }
    let what = format!(
        "The request couldn't be processed. Validation failed: {}",
        faults.join(", ")
    );
    Err(error(422, "RecordInvalid", "Record Invalid Error", &what))
}

/// What is wrong with a field, if something is; `None` if there is no such field.
fn fault(field: &str, value: &Value) -> Option<Option<&'static str>> {
    let one_of = |words: &[&str]| {
        let known = value.as_str().is_some_and(|word| words.contains(&word));
        (!known).then_some("is not included in the list")
    };
    let short = |most: usize| match value.as_str().map(|text| text.chars().count()) {
        None | Some(0) => Some("can't be blank"),
        Some(length) if length > most => Some("is too long"),
        Some(_) => None,
    };
    let truth = || (!value.is_boolean()).then_some("is not true or false");
    Some(match field {
        "aspect_ratio_height" | "aspect_ratio_width" => {
            let pixels = value.as_u64().is_some_and(|n| (1..=8_192).contains(&n));
            (!pixels).then_some("is not a number of pixels")
        }
        "billing_mode" => one_of(&["pay_as_you_go", "twentyfour_seven"]),
        "broadcast_location" => one_of(&LOCATIONS),
        "delivery_method" => one_of(&["push", "pull", "cdn"]),
        "encoder" => one_of(&ENCODERS),
        "low_latency" | "recording" => truth(),
        "name" => short(NAME),
        "reference_id" if value.is_null() => None,
        "reference_id" => short(TEXT),
        "transcoder_type" => one_of(&["transcoded", "passthrough"]),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(reply: &Reply) -> String {
        reply.value()["meta"]["message"].to_string()
    }

    #[test]
    fn everything_that_is_wrong_is_said_at_once() {
        let body = json!({"live_stream": {
            "name": "n".repeat(201),
            "encoder": "obs",
            "low_latency": "yes",
            "aspect_ratio_width": 0,
            "something_new": 5,
        }});
        let refused = Settings::created(body.to_string().as_bytes()).expect_err("invalid");
        assert_eq!(refused.status, 422);
        for what in [
            "broadcast_location can't be blank",
            "name is too long",
            "encoder is not included in the list",
            "low_latency is not true or false",
            "aspect_ratio_width is not a number of pixels",
        ] {
            assert!(message(&refused).contains(what), "{what}: {refused:?}");
        }
        assert!(!message(&refused).contains("something_new"));
    }

    #[test]
    fn what_is_not_json_or_about_no_stream_is_refused() {
        let read = |text: &str| {
            Settings::created(text.as_bytes())
                .expect_err("refused")
                .status
        };
        assert_eq!(read("{"), 400);
        assert_eq!(read("[]"), 422);
        assert_eq!(read(r#"{"live_stream":"x"}"#), 422);
    }

    #[test]
    fn a_change_keeps_what_it_does_not_name_and_changes_nothing_if_it_is_wrong() {
        let settings = Settings::by_hand("front");
        let body = json!({"live_stream": {"name": "back", "reference_id": "a-1"}});
        let changed = settings
            .changed(body.to_string().as_bytes())
            .expect("valid");
        assert_eq!(changed.text("name"), "back");
        assert_eq!(changed.text("encoder"), WEBRTC);
        let body = json!({"live_stream": {"name": ""}});
        assert!(settings.changed(body.to_string().as_bytes()).is_err());
        assert_eq!(settings.text("name"), "front");
    }
}
