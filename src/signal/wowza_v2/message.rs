//! What the server's messages say. Pure.

use serde_json::Value;

use super::super::server::number;

/// Stands for a connection id as long as there is none.
pub(super) const NO_ID: &str = "[empty]";
/// Longest connection id taken; real ones have 36 characters or fewer.
const ID_MAX: usize = 256;

/// The status that a closed socket may carry, in its code (4401, 4403, 4404) or in its reason (`... (status 503)`).
pub(super) fn close_status(code: u16, reason: &str) -> Option<u16> {
    let in_code = match code {
        4401 | 4403 | 4404 => Some(code - 4000),
        _ => None,
    };
    let in_reason = || {
        let (_, behind) = reason.split_once("(status ")?;
        let (number, _) = behind.split_once(')')?;
        number.trim().parse().ok()
    };
    // Any other number is the ordinary end of a session.
    in_code
        .or_else(in_reason)
        .filter(|status| (400..=599).contains(status))
}

/// What a message says, as far as it matters.
pub(crate) enum Said<'a> {
    /// One candidate line, as it came; empty behind the last one.
    Candidate(&'a str),
    /// A message of the older Wowza dialect.
    Foreign,
    /// An answer that cannot be read: what was expected of it.
    Misshapen(&'static str),
    /// To our OFFER or ICE_RESTART.
    Reply(Reply),
}

/// The server's reply to a description of ours.
pub(crate) enum Reply {
    /// Agreed.
    Answer {
        /// The session's id from now on.
        id: Option<Value>,
        answer: String,
    },
    /// The stream is being made ready.
    NotYet { status: u16, text: String },
    /// Any other status.
    Refused { status: u16, text: String },
}

/// Reads a JSON object of the server; `None` for what is no business of a publisher.
pub(crate) fn read(message: &Value) -> Option<Said<'_>> {
    let kind = message.get("messageType").and_then(Value::as_str);
    if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("CANDIDATE")) {
        return match message.get("candidate") {
            Some(Value::String(line)) => Some(Said::Candidate(line)),
            _ => None,
        };
    }
    let Some(status) = message.get("statusCode") else {
        return (message.get("status").is_some()).then_some(Said::Foreign);
    };
    let text = (message.get("statusDescription").and_then(Value::as_str)).unwrap_or("no words");
    match number(status) {
        None => Some(Said::Misshapen("a number as statusCode")),
        Some(200..=299) => read_answer(message.get("message")?),
        Some(status @ (504 | 514)) => Some(Said::Reply(Reply::NotYet {
            status,
            text: text.to_owned(),
        })),
        Some(status) => Some(Said::Reply(Reply::Refused {
            status,
            text: text.to_owned(),
        })),
    }
}

fn read_answer(message: &Value) -> Option<Said<'_>> {
    let id = message.get("connectionId").filter(|id| match id {
        Value::String(id) => !id.is_empty() && id != NO_ID && id.len() <= ID_MAX,
        Value::Number(_) => true,
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => false,
    });
    match message.get("sdp") {
        None | Some(Value::Null) => None,
        Some(Value::String(answer)) => Some(Said::Reply(Reply::Answer {
            id: id.cloned(),
            answer: answer.clone(),
        })),
        Some(_) => Some(Said::Misshapen("an sdp that is a string")),
    }
}
