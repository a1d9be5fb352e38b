//! Wowza's newer dialect (`OFFER`), spoken by Wowza Streaming Engine from 4.11 on: we offer, and both sides go on
//! talking on the socket, which holds the session.
//!
//! ```text
//! we                                    server
//!   OFFER, connectionId [empty]  ----->
//!                  <-------------------  504 or 514: not yet (any number of them)
//!                  <-------------------  200, connectionId, answer; or another status: refused
//!   CANDIDATE ...  ------------------->  ours, held back until now; an empty one ends them
//!                  <-------------------  CANDIDATE, at any time, before the answer too
//!   ICE_RESTART    ------------------->
//!                  <-------------------  200, answer; 425: ask again; anything else: no
//!   CLOSE, close   ------------------->
//! ```
//!
//! The path is the same as that of the older dialect; `webrtcImplementation=v2` in the URL selects this one. When the
//! socket closes, the session is lost. A second socket asks from time to time whether the server still lists the
//! stream (`liveness` says why).

pub(crate) mod liveness;
pub(crate) mod message;
mod probe;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::Instrument as _;

use self::message::{NO_ID, Reply, Said, close_status, read};
use self::probe::{Finding, Wanted};
use super::server::{Message, Server};
use super::wowza_v1::secrets;
use super::{
    Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller, Step, candidate, sdp,
};
use crate::config::secret::Secret;
use crate::media::payload_types::PayloadTypes;
use crate::net::ws::Socket;
use crate::net::{Dialer, Target};

/// Longest wait for the answer, the official pages' own, as are the next two.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// Longest wait for the end of an ICE restart, with all its repetitions.
const RESTART_DEADLINE: Duration = Duration::from_secs(8);
/// A server busy with an earlier restart is asked again after this.
const RESTART_AGAIN: Duration = Duration::from_secs(2);
/// Longest wait for our CLOSE to leave.
const CLOSE_DEADLINE: Duration = Duration::from_secs(1);
/// The parameter that selects an implementation behind the one path.
pub(super) const FLAG: &str = "webrtcImplementation";
/// Most candidates of ours that are held back.
const HELD_MAX: usize = 64;

/// The signaller for the newer Wowza dialect.
pub struct WowzaV2 {
    server: Arc<Server>,
    /// The same server, asked for its streams on sockets of their own.
    probed: Arc<Server>,
    application: String,
    stream: Secret,
    session: Option<Session>,
    /// A list that had never held the stream ended a session, and none has held it since.
    doubted: bool,
}

struct Session {
    socket: Socket,
    /// As the server gave it: a string, or by mistake a number.
    connection_id: Option<Value>,
    ours: Ours,
    restart: Restart,
    /// Holds one task while the stream is looked for.
    probe: JoinSet<Finding>,
}

/// Our candidates on their way to the server.
#[derive(Default)]
struct Ours {
    held: VecDeque<String>,
    /// The end marker is among `held`, or sent: nothing may follow.
    ended: bool,
}

/// Whether ICE can be restarted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Restart {
    /// There is no session to restart yet.
    NotYet,
    Possible,
    /// One was asked for and the server has not agreed to it, if ever it will.
    Asked,
}

impl WowzaV2 {
    /// A signaller for `url`, usually `wss://host/webrtc-session.json`; a `webrtcImplementation` that it has already is
    /// kept. `stream` is sent as it is, so it may carry a token (`name?token=...`). An unusable URL is
    /// reported by [`open`](Signaller::open).
    pub fn new(url: &Secret, application: &str, stream: &Secret, dialer: Dialer) -> Self {
        let flag = [(FLAG, "v2")];
        let flag = match flag_of(url) {
            Some(_) => &flag[..0],
            None => &flag[..],
        };
        let target = Target::parse(url.expose(), flag);
        let probe = [flag, &[("wzProbe", "liveness")]].concat();
        let probed = Target::parse(url.expose(), &probe);
        let server = |target, dialer| Server::new(target, dialer, secrets(stream.expose()));
        Self {
            server: Arc::new(server(target, dialer.clone())),
            probed: Arc::new(server(probed, dialer)),
            application: application.to_owned(),
            stream: stream.clone(),
            session: None,
            doubted: false,
        }
    }

    /// A message of `kind` about our stream, with `more`.
    fn message(&self, kind: &str, id: &Value, more: Option<(&str, Value)>) -> Value {
        let mut message = json!({
            "messageType": kind,
            "action": "PUBLISH",
            "applicationName": self.application,
            "streamName": self.stream.expose(),
            "connectionId": id,
        });
        if let Some((name, value)) = more {
            message[name] = value;
        }
        message
    }

    /// Waits until `deadline` for a reply; candidates of the server's that come before it go to `early`.
    async fn reply(
        &mut self,
        deadline: Instant,
        early: &mut Vec<String>,
        step: Step,
    ) -> Result<Option<Reply>, Error> {
        const WAITING: &str = "its answer was awaited";
        let Self {
            server, session, ..
        } = self;
        let session = session.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        loop {
            let message =
                match timeout_at(deadline, server.recv(&mut session.socket, WAITING)).await {
                    Ok(message) => message.map_err(|error| with_status(server, error, step))?,
                    Err(_) => return Ok(None),
                };
            let value = match message {
                Message::Json(value) => value,
                Message::Other(got) => {
                    tracing::debug!(got, "ignored while waiting for the answer");
                    continue;
                }
            };
            match read(&value) {
                Some(Said::Candidate(line)) => {
                    let all = early.iter().map(String::as_str).chain([line]);
                    *early = candidate::usable(all);
                }
                Some(Said::Foreign) => return Err(server.other_dialect(Dialect::WowzaV1)),
                Some(Said::Misshapen(expected)) => {
                    return Err(server.unexpected(expected, server.shape(&value)));
                }
                Some(Said::Reply(reply)) => return Ok(Some(reply)),
                None => {
                    let got = server.shape(&value);
                    tracing::debug!(got, "ignored while waiting for the answer");
                }
            }
        }
    }

    /// What the server's answer to our description `local` means for the session.
    fn remote(
        &self,
        local: &str,
        answer: &str,
        early: &[String],
    ) -> Result<RemoteDescription, Error> {
        let sdp = sdp::regular_answer(local, answer).map_err(|why| self.server.unfit(&why))?;
        let early = early.iter().map(String::as_str);
        Ok(RemoteDescription {
            sdp,
            candidates: candidate::usable(early.chain(sdp::candidate_lines(answer))),
            payload_types: PayloadTypes::OFFERED,
            ice_servers: Vec::new(),
        })
    }

    /// Sends what is held back of our candidates, if the server has given the session its id.
    async fn flush(&mut self) -> Result<(), Error> {
        const WAITING: &str = "our candidates were handed over";
        loop {
            let Some(session) = &mut self.session else {
                return Ok(());
            };
            let Some(id) = session.connection_id.clone() else {
                return Ok(());
            };
            let Some(line) = session.ours.held.pop_front() else {
                return Ok(());
            };
            let message = self.message("CANDIDATE", &id, Some(("candidate", json!(line))));
            self.send(&message, WAITING).await?;
        }
    }

    async fn send(&mut self, message: &Value, waiting_for: &'static str) -> Result<(), Error> {
        let Self {
            server, session, ..
        } = self;
        let session = (session.as_mut()).ok_or_else(|| server.not_open(waiting_for))?;
        server.send(&mut session.socket, message, waiting_for).await
    }

    /// Begins to look for the stream in the server's list.
    fn look_for_stream(&mut self) {
        let wanted = Wanted {
            application: self.application.clone(),
            name: liveness::plain(self.stream.expose()).to_owned(),
            doubted: self.doubted,
        };
        let server = self.probed.clone();
        if let Some(session) = &mut self.session {
            let look = async move { probe::watch(&server, &wanted, || server.connect()).await };
            session.probe.spawn(look.in_current_span());
        }
    }
}

#[async_trait]
impl Signaller for WowzaV2 {
    fn dialect(&self) -> Dialect {
        Dialect::WowzaV2
    }

    /// Bounded by the deadlines of [`net`](crate::net).
    async fn open(&mut self, _unreached: u32) -> Result<Opening, Error> {
        self.session = None;
        let socket = self.server.connect().await?;
        self.session = Some(Session::new(socket));
        Ok(Opening::SendOffer)
    }

    /// Bounded by five seconds for the offer to leave, twenty for the answer to come and five for each of our
    /// candidates to leave.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        const WAITING: &str = "our offer was handed over";
        let offer = json!(sdp::without_candidates(local_sdp));
        let offer = self.message("OFFER", &json!(NO_ID), Some(("sdp", offer)));
        self.send(&offer, WAITING).await?;
        let deadline = Instant::now() + ANSWER_DEADLINE;
        let mut early = Vec::new();
        let mut at_deadline = (self.server).silent(ANSWER_DEADLINE, "its answer was awaited");
        loop {
            match self.reply(deadline, &mut early, Step::Answered).await? {
                None => return Err(at_deadline),
                Some(Reply::Answer { id, answer }) => {
                    if let Some(session) = &mut self.session {
                        // Before the answer is judged, so that a session of no use can be closed by its id.
                        session.answered(id, local_sdp);
                    }
                    let remote = self.remote(local_sdp, &answer, &early)?;
                    self.flush().await?;
                    self.look_for_stream();
                    return Ok(Some(remote));
                }
                Some(Reply::NotYet { status, text }) => {
                    tracing::debug!(status, "the server asks us to wait");
                    at_deadline = self.server.refused(status, &text, Step::Answered);
                }
                Some(Reply::Refused { status, text }) => {
                    return Err(self.server.refused(status, &text, Step::Answered));
                }
            }
        }
    }

    /// Held back until the server has given the session its id. Bounded by five seconds for each candidate.
    async fn trickle(&mut self, candidates: &[String], last: bool) -> Result<(), Error> {
        if let Some(session) = &mut self.session {
            session.ours.add(candidates.iter().map(String::as_str));
            if last {
                session.ours.end();
            }
        }
        self.flush().await
    }

    fn can_restart(&self) -> bool {
        (self.session.as_ref()).is_some_and(|session| session.restart == Restart::Possible)
    }

    /// Bounded by eight seconds, and five for each of our candidates to leave.
    async fn restart(&mut self, local_sdp: &str) -> Result<RemoteDescription, Error> {
        const WAITING: &str = "ICE was restarted";
        let (true, Some(session)) = (self.can_restart(), &mut self.session) else {
            return Err(Error::NoRestart);
        };
        session.restart = Restart::Asked;
        let id = session
            .connection_id
            .clone()
            .unwrap_or_else(|| json!(NO_ID));
        let offer = json!(sdp::without_candidates(local_sdp));
        let request = self.message("ICE_RESTART", &id, Some(("sdp", offer)));
        let deadline = Instant::now() + RESTART_DEADLINE;
        let mut early = Vec::new();
        self.send(&request, WAITING).await?;
        let mut again_at: Option<Instant> = None;
        loop {
            let by = again_at.unwrap_or(deadline);
            match self.reply(by, &mut early, Step::Live).await? {
                Some(Reply::Answer { id, answer }) => {
                    if let Some(session) = &mut self.session {
                        session.ours = Ours::default();
                        session.answered(id, local_sdp);
                    }
                    let remote = self.remote(local_sdp, &answer, &early)?;
                    self.flush().await?;
                    return Ok(remote);
                }
                Some(Reply::NotYet { status, .. }) => {
                    tracing::debug!(status, "the server asks us to wait");
                }
                Some(Reply::Refused { status: 425, .. }) => {
                    let at = Instant::now() + RESTART_AGAIN;
                    if at >= deadline {
                        tracing::info!("the server stays busy with an earlier restart of ICE");
                        return Err(Error::NoRestart);
                    }
                    again_at = Some(at);
                }
                Some(Reply::Refused { status, text }) => {
                    let text = self.server.printable(&text);
                    tracing::info!(status, text, "the server does not restart ICE");
                    return Err(Error::NoRestart);
                }
                None if again_at.take().is_some() => self.send(&request, WAITING).await?,
                None => {
                    tracing::info!("the server does not answer to a restart of ICE");
                    return Err(Error::NoRestart);
                }
            }
        }
    }

    async fn next(&mut self) -> Result<Event, Error> {
        const WAITING: &str = "media was about to flow or flowed";
        let Self {
            server,
            session,
            doubted,
            ..
        } = self;
        let session = session.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        loop {
            let message = tokio::select! {
                biased;
                Some(found) = session.probe.join_next() => match found {
                    Ok(Finding::Gone { was_listed }) => {
                        *doubted = !was_listed;
                        let endpoint = server.endpoint();
                        return Err(Error::StreamGone { endpoint });
                    }
                    Ok(Finding::Silence) => continue,
                    Err(error) => {
                        tracing::warn!(%error, "looking for the stream in the server's list failed");
                        continue;
                    }
                },
                message = server.recv(&mut session.socket, WAITING) => message,
            };
            let value = match message.map_err(|error| with_status(server, error, Step::Live))? {
                Message::Json(value) => value,
                Message::Other(got) => {
                    tracing::debug!(got, "ignored");
                    continue;
                }
            };
            match read(&value) {
                Some(Said::Candidate(line)) => {
                    let usable = candidate::usable([line]);
                    if !usable.is_empty() {
                        return Ok(Event::Candidates(usable));
                    }
                }
                // Words on a single message of ours, such as a candidate that came too late; the session goes on.
                Some(Said::Reply(Reply::Refused {
                    status: status @ (400 | 409 | 425),
                    text,
                })) => {
                    let text = server.printable(&text);
                    tracing::info!(status, text, "the server did not like a message of ours");
                }
                Some(Said::Reply(Reply::Refused { status, text })) => {
                    return Err(server.refused(status, &text, Step::Live));
                }
                Some(
                    Said::Reply(Reply::Answer { .. } | Reply::NotYet { .. })
                    | Said::Foreign
                    | Said::Misshapen(_),
                )
                | None => tracing::debug!(got = server.shape(&value), "ignored"),
            }
        }
    }

    /// Says CLOSE, if there is a session to close, and closes the socket. Whatever the server still says is not
    /// heard.
    async fn close(&mut self, _parting: Parting) {
        let Some(mut session) = self.session.take() else {
            return;
        };
        if let Some(id) = &session.connection_id {
            let message = self.message("CLOSE", id, None).to_string();
            let sent = timeout(CLOSE_DEADLINE, session.socket.send(message)).await;
            if !matches!(sent, Ok(Ok(()))) {
                tracing::debug!("CLOSE did not get through");
            }
        }
        session.socket.close().await;
    }
}

impl Session {
    fn new(socket: Socket) -> Self {
        Self {
            socket,
            connection_id: None,
            ours: Ours::default(),
            restart: Restart::NotYet,
            probe: JoinSet::new(),
        }
    }

    /// The server has answered our description `local`. An id once given holds until another comes.
    fn answered(&mut self, id: Option<Value>, local: &str) {
        self.connection_id = id.or_else(|| self.connection_id.take());
        self.restart = if self.connection_id.is_some() {
            Restart::Possible
        } else {
            Restart::NotYet
        };
        // Those that came apart, while the answer was awaited, follow those of the description.
        let later = std::mem::take(&mut self.ours);
        self.ours.add(sdp::candidate_lines(local));
        self.ours.add(later.held.iter().map(String::as_str));
        if later.ended {
            self.ours.end();
        }
    }
}

impl Ours {
    /// Holds `lines`, with or without `a=` in front.
    fn add<'a>(&mut self, lines: impl IntoIterator<Item = &'a str>) {
        for line in lines {
            let line = line.strip_prefix("a=").unwrap_or(line);
            if self.ended || line.is_empty() {
                continue;
            }
            if self.held.len() == HELD_MAX {
                tracing::debug!("more than {HELD_MAX} candidates of ours; the rest is left out");
                return;
            }
            self.held.push_back(line.to_owned());
        }
    }

    /// There will be no more: an empty candidate says so, once.
    fn end(&mut self) {
        if !std::mem::replace(&mut self.ended, true) {
            self.held.push_back(String::new());
        }
    }
}

/// The value that `url` itself has for [`FLAG`].
pub(super) fn flag_of(url: &Secret) -> Option<String> {
    let target = Target::parse(url.expose(), &[]).ok()?;
    let mut pairs = target.expose().query_pairs();
    pairs.find_map(|(name, value)| (name == FLAG).then(|| value.into_owned()))
}

/// A socket closed with a status is a refusal.
fn with_status(server: &Server, error: Error, step: Step) -> Error {
    let status = match &error {
        Error::Closed {
            code: Some(code),
            reason,
            ..
        } => close_status(*code, reason).map(|status| (status, reason)),
        Error::Closed { code: None, .. }
        | Error::Connect(_)
        | Error::NoRestart
        | Error::OtherDialect { .. }
        | Error::Protocol { .. }
        | Error::Refused { .. }
        | Error::Sdp { .. }
        | Error::StreamGone { .. }
        | Error::Timeout { .. } => None,
    };
    match status {
        Some((status, reason)) => server.refused(status, reason, step),
        None => error,
    }
}

#[cfg(test)]
mod tests;
