//! Wowza's older dialect (`sendOffer`), spoken by Wowza Video and Wowza Streaming Engine: we offer, the server
//! answers once and then has nothing more to say.
//!
//! ```text
//! we                                    server
//!   sendOffer      ------------------->
//!                  <-------------------  status 504 or 514: not yet (any number of them)
//!                  <-------------------  status 200, answer, candidates; or another status: refused
//!                  <-------------------  perhaps a second status 200 with candidates only
//! ```
//!
//! The socket is kept open, but the session does not hang on it: when the server closes it while media flows,
//! [`next`](Signaller::next) waits on for ever. There is no message to stop with.

use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::server::{Message, Server, candidate_strings, number};
use super::{
    Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller, Step, candidate, sdp,
};
use crate::config::secret::Secret;
use crate::media::payload_types::PayloadTypes;
use crate::net::ws::Socket;
use crate::net::{Dialer, Target};

/// Longest wait for the answer, the official pages' own.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);

/// The signaller for the older Wowza dialect.
pub struct WowzaV1 {
    server: Server,
    application: String,
    stream: Secret,
    socket: Option<Socket>,
}

impl WowzaV1 {
    /// A signaller for `url`, usually `wss://host/webrtc-session.json`. `stream` is sent as it is, so it may
    /// carry a token (`name?token=...`). An unusable URL is reported by [`open`](Signaller::open).
    pub fn new(url: &Secret, application: &str, stream: &Secret, dialer: Dialer) -> Self {
        let target = Target::parse(url.expose(), &[]);
        Self {
            server: Server::new(target, dialer, secrets(stream.expose())),
            application: application.to_owned(),
            stream: stream.clone(),
            socket: None,
        }
    }

    fn offer(&self, local_sdp: &str) -> Value {
        json!({
            "direction": "publish",
            "command": "sendOffer",
            "streamInfo": {
                "applicationName": self.application,
                "streamName": self.stream.expose(),
                "sessionId": "[empty]",
            },
            "sdp": { "type": "offer", "sdp": sdp::wowza_offer(local_sdp) },
            "userData": {},
        })
    }

    /// Waits for the answer to `local_sdp`. Candidates that come in a message of their own before it are kept.
    async fn answer(&mut self, local_sdp: &str) -> Result<RemoteDescription, Error> {
        const WAITING: &str = "its answer was awaited";
        let Self { server, socket, .. } = self;
        let socket = socket.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let mut early = Vec::new();
        let mut at_deadline = server.silent(ANSWER_DEADLINE, WAITING);
        loop {
            let Ok(message) = timeout_at(deadline, server.recv(socket, WAITING)).await else {
                return Err(at_deadline);
            };
            let value = match message? {
                Message::Json(value) => value,
                Message::Other(got) => {
                    tracing::debug!(got, "ignored while waiting for the answer");
                    continue;
                }
            };
            match read(&value) {
                Some(Said::Answer { answer, candidates }) => {
                    let sdp =
                        sdp::regular_answer(local_sdp, answer).map_err(|why| server.unfit(&why))?;
                    let lines = early.iter().chain(&candidates).map(String::as_str);
                    return Ok(RemoteDescription {
                        candidates: candidate::usable(lines.chain(sdp::candidate_lines(answer))),
                        payload_types: PayloadTypes::OFFERED,
                        ice_servers: Vec::new(),
                        sdp,
                    });
                }
                Some(Said::Candidates(list)) => {
                    early = candidate::usable(early.iter().chain(&list).map(String::as_str))
                }
                Some(Said::Foreign) => return Err(server.other_dialect(Dialect::WowzaV2)),
                Some(Said::Misshapen(expected)) => {
                    return Err(server.unexpected(expected, server.shape(&value)));
                }
                Some(Said::NotYet { status, text }) => {
                    tracing::debug!(status, "the server asks us to wait");
                    at_deadline = server.refused(status, text, Step::Answered);
                }
                Some(Said::Refused { status, text }) => {
                    return Err(server.refused(status, text, Step::Answered));
                }
                None => tracing::debug!(
                    got = server.shape(&value),
                    "ignored while waiting for the answer"
                ),
            }
        }
    }
}

#[async_trait]
impl Signaller for WowzaV1 {
    fn dialect(&self) -> Dialect {
        Dialect::WowzaV1
    }

    /// Bounded by the deadlines of [`net`](crate::net).
    async fn open(&mut self, _unreached: u32) -> Result<Opening, Error> {
        self.socket = None;
        self.socket = Some(self.server.connect().await?);
        Ok(Opening::SendOffer)
    }

    /// Bounded by five seconds for the offer to leave and twenty for the answer to come.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        const WAITING: &str = "our offer was handed over";
        let offer = self.offer(local_sdp);
        let Self { server, socket, .. } = self;
        let socket = socket.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        server.send(socket, &offer, WAITING).await?;
        self.answer(local_sdp).await.map(Some)
    }

    async fn next(&mut self) -> Result<Event, Error> {
        loop {
            let Self { server, socket, .. } = self;
            let Some(open) = socket.as_mut() else {
                return std::future::pending().await;
            };
            let value = match server.recv(open, "media flowed").await {
                Ok(Message::Json(value)) => value,
                Ok(Message::Other(got)) => {
                    tracing::debug!(got, "ignored");
                    continue;
                }
                Err(error) => {
                    tracing::info!(%error, "the session does not hang on this socket");
                    *socket = None;
                    continue;
                }
            };
            match read(&value) {
                Some(
                    Said::Answer {
                        candidates: list, ..
                    }
                    | Said::Candidates(list),
                ) => {
                    let usable = candidate::usable(list.iter().map(String::as_str));
                    if !usable.is_empty() {
                        return Ok(Event::Candidates(usable));
                    }
                }
                Some(Said::Refused { status, text }) => {
                    return Err(server.refused(status, text, Step::Live));
                }
                Some(Said::Foreign | Said::Misshapen(_) | Said::NotYet { .. }) | None => {
                    tracing::debug!(got = server.shape(&value), "ignored");
                }
            }
        }
    }

    /// Closes the socket; the dialect has no other goodbye. The media's own goodbye frees the name.
    async fn close(&mut self, _parting: Parting) {
        if let Some(socket) = self.socket.take() {
            socket.close().await;
        }
    }
}

/// What a message says, as far as it matters.
pub(crate) enum Said<'a> {
    /// The answer, with the candidate lines beside it as they came.
    Answer {
        answer: &'a str,
        candidates: Vec<String>,
    },
    /// Candidate lines only.
    Candidates(Vec<String>),
    /// A message of the newer Wowza dialect.
    Foreign,
    /// An answer that cannot be read: what was expected of it.
    Misshapen(&'static str),
    /// The stream is being made ready.
    NotYet { status: u16, text: &'a str },
    /// Any other status.
    Refused { status: u16, text: &'a str },
}

/// Reads a JSON object of the server; `None` for what is no business of a publisher.
pub(crate) fn read(message: &Value) -> Option<Said<'_>> {
    let Some(status) = message.get("status") else {
        let newer = message.get("statusCode").is_some() || message.get("messageType").is_some();
        return newer.then_some(Said::Foreign);
    };
    let text = (message.get("statusDescription").and_then(Value::as_str)).unwrap_or("no words");
    match number(status) {
        None => Some(Said::Misshapen("a number as status")),
        Some(200..=299) => read_answer(message),
        Some(status @ (504 | 514)) => Some(Said::NotYet { status, text }),
        Some(status) => Some(Said::Refused { status, text }),
    }
}

fn read_answer(message: &Value) -> Option<Said<'_>> {
    let listed = candidate_strings(message.get("iceCandidates"));
    let candidates: Vec<String> = candidate::usable(listed);
    match message.get("sdp") {
        None | Some(Value::Null) => {
            (!candidates.is_empty()).then_some(Said::Candidates(candidates))
        }
        Some(description) => {
            let is_answer = description.get("type").is_none_or(|kind| kind == "answer");
            let answer = description.get("sdp").and_then(Value::as_str);
            Some(match answer.filter(|_| is_answer) {
                Some(answer) => Said::Answer { answer, candidates },
                None => Said::Misshapen("an sdp object of type answer"),
            })
        }
    }
}

/// What of a stream name must not be repeated: all of it, the name, and the values of its query.
pub(super) fn secrets(stream: &str) -> impl Iterator<Item = String> {
    let (name, query) = stream.split_once('?').unwrap_or((stream, ""));
    let values = query
        .split('&')
        .map(|pair| pair.split_once('=').map_or(pair, |(_, v)| v));
    [stream, name].into_iter().chain(values).map(str::to_owned)
}

#[cfg(test)]
mod tests;
