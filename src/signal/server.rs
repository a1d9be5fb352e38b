//! What both dialects share: one server, its WebSocket, and how its words are repeated.
//!
//! Servers quote stream names in their errors, so everything they say passes [`Server::printable`] before it
//! reaches an error or a log.

use std::time::Duration;

use serde_json::Value;
use tokio::time::timeout;

use super::{Dialect, Error};
use crate::config::secret::Secret;
use crate::net::ws::{Ended, Received, Socket};
use crate::net::{self, Dialer, Target};

/// Most characters of a server's words that are repeated.
const WORDS_MAX: usize = 200;
/// Shortest secret that is looked for in a server's words; shorter ones hide nothing and occur everywhere.
const SECRET_MIN: usize = 3;
/// Parameters of a URL whose values are ordinary words.
const HARMLESS: [&str; 4] = ["direction", "transport", "webrtcImplementation", "wzProbe"];
/// Longest wait for a message of ours to leave.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// A server, and what must not be repeated of its URL.
pub(super) struct Server {
    /// Or what is wrong with the URL, to be said when the socket is opened.
    target: Result<Target, String>,
    dialer: Dialer,
    /// Texts that no error or log may hold, the longest first.
    secrets: Vec<Secret>,
    /// Those of them that the configuration knows.
    configured: Vec<Secret>,
}

/// A message of a server.
pub(super) enum Message {
    /// A JSON object.
    Json(Value),
    /// Anything else, described for an error.
    Other(String),
}

impl Server {
    /// `secrets` are texts that no error or log may hold, beside the values in the query of `target`.
    pub(super) fn new(
        target: Result<Target, net::Error>,
        dialer: Dialer,
        secrets: impl IntoIterator<Item = String>,
    ) -> Self {
        let in_url = target.iter().flat_map(query_values);
        let mut server = Self {
            configured: in_url.chain(secrets).map(Secret::new).collect(),
            target: target.map_err(|error| error.to_string()),
            dialer,
            secrets: Vec::new(),
        };
        server.hide(Vec::new());
        server
    }

    /// Names texts that must not be repeated either, in place of those named here before.
    pub(super) fn hide(&mut self, secrets: Vec<String>) {
        self.secrets = (self.configured.iter().cloned())
            .chain(secrets.into_iter().map(Secret::new))
            .filter(|secret| secret.expose().chars().count() >= SECRET_MIN)
            .collect();
        // The longest first: a name may begin with another secret.
        self.secrets
            .sort_by_key(|secret| std::cmp::Reverse(secret.expose().len()));
    }

    pub(super) fn endpoint(&self) -> String {
        (self.target.as_ref()).map_or_else(|_| "the server".to_owned(), Target::to_string)
    }

    /// Name or address of the server, as dialled; empty for an unusable URL.
    pub(super) fn host(&self) -> &str {
        self.target.as_ref().map_or("", Target::host)
    }

    /// The whole URL, which nobody but the server may see.
    #[cfg(test)]
    pub(super) fn url(&self) -> Option<String> {
        (self.target.as_ref().ok()).map(|target| target.expose().to_string())
    }

    pub(super) async fn connect(&self) -> Result<Socket, Error> {
        match &self.target {
            Ok(target) => Ok(Socket::connect(target, &self.dialer).await?),
            Err(why) => Err(Error::Connect(net::Error::Url { why: why.clone() })),
        }
    }

    /// Sends `message`, bounded by five seconds.
    pub(super) async fn send(
        &self,
        socket: &mut Socket,
        message: &Value,
        waiting_for: &'static str,
    ) -> Result<(), Error> {
        match timeout(SEND_DEADLINE, socket.send(message.to_string())).await {
            Ok(sent) => sent.map_err(|ended| self.ended(ended, waiting_for)),
            Err(_) => Err(self.silent(SEND_DEADLINE, waiting_for)),
        }
    }

    /// The next message. Cancel-safe.
    pub(super) async fn recv(
        &self,
        socket: &mut Socket,
        waiting_for: &'static str,
    ) -> Result<Message, Error> {
        match socket.recv().await {
            Ok(received) => Ok(self.read(&received)),
            Err(ended) => Err(self.ended(ended, waiting_for)),
        }
    }

    fn read(&self, received: &Received) -> Message {
        match received {
            Received::Binary(size) => Message::Other(format!("a binary message of {size} bytes")),
            Received::Text(text) => match serde_json::from_str(text) {
                Ok(value @ Value::Object(_)) => Message::Json(value),
                Ok(value) => Message::Other(self.shape(&value)),
                Err(_) => Message::Other(format!("text that is no JSON: {}", self.printable(text))),
            },
        }
    }

    /// What `value` looks like, without its contents, which may hold credentials.
    pub(super) fn shape(&self, value: &Value) -> String {
        match value {
            Value::Array(items) => format!("a JSON array of {}", items.len()),
            Value::Bool(_) => "a JSON boolean".to_owned(),
            Value::Null => "a JSON null".to_owned(),
            Value::Number(_) => "a JSON number".to_owned(),
            Value::String(_) => "a JSON string".to_owned(),
            Value::Object(fields) => {
                let names: Vec<&str> = fields.keys().map(String::as_str).collect();
                self.printable(&format!("a JSON object with [{}]", names.join(", ")))
            }
        }
    }

    /// `text` fit for an error: on one line, at most 200 characters, secrets replaced.
    pub(super) fn printable(&self, text: &str) -> String {
        let mut text = text.to_owned();
        for secret in &self.secrets {
            if text.contains(secret.expose()) {
                text = text.replace(secret.expose(), "***");
            }
        }
        let mut chars = text.chars();
        let mut out: String = (chars.by_ref().take(WORDS_MAX))
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if chars.next().is_some() {
            out.push('…');
        }
        out
    }

    pub(super) fn ended(&self, ended: Ended, waiting_for: &'static str) -> Error {
        match ended {
            Ended::Closed { code, reason } => Error::Closed {
                endpoint: self.endpoint(),
                code,
                reason: self.printable(&reason),
                waiting_for,
            },
            Ended::Violation(got) => self.unexpected("a WebSocket message of at most 1 MiB", got),
        }
    }

    /// There is no socket (any more).
    pub(super) fn not_open(&self, waiting_for: &'static str) -> Error {
        Error::Closed {
            endpoint: self.endpoint(),
            code: None,
            reason: String::new(),
            waiting_for,
        }
    }

    pub(super) fn refused(&self, status: u16, text: &str, step: super::Step) -> Error {
        Error::Refused {
            endpoint: self.endpoint(),
            status,
            text: self.printable(text),
            step,
            retry_after: None,
        }
    }

    pub(super) fn silent(&self, after: Duration, waiting_for: &'static str) -> Error {
        Error::Timeout {
            endpoint: self.endpoint(),
            waiting_for,
            after,
        }
    }

    pub(super) fn other_dialect(&self, spoken: Dialect) -> Error {
        Error::OtherDialect {
            endpoint: self.endpoint(),
            spoken,
        }
    }

    /// `got` must be printable already.
    pub(super) fn unexpected(&self, expected: &'static str, got: String) -> Error {
        Error::Protocol {
            endpoint: self.endpoint(),
            expected,
            got,
        }
    }

    pub(super) fn unfit(&self, why: &str) -> Error {
        Error::Sdp {
            endpoint: self.endpoint(),
            why: self.printable(why),
        }
    }
}

/// The values in the query of `target`, as they stand there and decoded, other than ordinary words.
pub(super) fn query_values(target: &Target) -> impl Iterator<Item = String> + '_ {
    let url = target.expose();
    let raw = (url.query().unwrap_or_default().split('&'))
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()));
    let decoded = (url.query_pairs()).map(|(n, v)| (n.into_owned(), v.into_owned()));
    raw.chain(decoded)
        .filter(|(name, _)| !HARMLESS.contains(&name.as_str()))
        .map(|(_, value)| value)
}

/// A number that some servers send as a string.
pub(super) fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Number(number) => number.as_u64().and_then(|n| u16::try_from(n).ok()),
        Value::String(text) => text.trim().parse().ok(),
        Value::Array(_) | Value::Bool(_) | Value::Null | Value::Object(_) => None,
    }
}

/// The `candidate` strings of a list of candidate objects (or bare strings); anything else is passed over.
pub(super) fn candidate_strings(list: Option<&Value>) -> impl Iterator<Item = &str> {
    let items = list.and_then(Value::as_array).map(Vec::as_slice);
    items.unwrap_or_default().iter().filter_map(|item| {
        item.as_str()
            .or_else(|| item.get("candidate").and_then(Value::as_str))
    })
}
