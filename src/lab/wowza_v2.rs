//! Wowza's `webrtc-session.json` signalling, second version (`webrtcImplementation=v2`), server side.
//!
//! Flat messages with `statusCode`; descriptions are strings; candidates go both ways, the publisher's only once it
//! knows its `connectionId`. ICE restarts in place. The socket holds the session: both end together.

use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Foreign;
use super::answer;
use super::engine::Command;
use super::engine::End;
use super::faults::Mutation;
use super::faults::Step;
use super::hub::Ask;
use super::hub::Record;
use super::ingest::Credentials;
use super::judge::Rules;
use super::now;
use super::offer;
use super::sdp;
use super::sdp::Description;
use super::station::Request;
use super::station::Running;
use super::station::Station;
use super::station::ended;
use super::station::word;
use super::wire::Heard;
use super::wire::Wire;

/// ICE credentials and connection ids are lower-case hexadecimal.
const HEX: &[u8] = b"0123456789abcdef";
/// What stands for a connection id that is not known yet.
const NO_ID: &str = "[empty]";

/// Serves one publisher, or one that only asks, until its socket ends. Returns why.
pub(super) async fn serve(
    station: &Station,
    wire: Wire,
    request: Request,
    record: Record,
    mut asks: mpsc::Receiver<Ask>,
    stop: &CancellationToken,
) -> String {
    let mut session = Session {
        station,
        wire,
        rules: Rules::of(&request.user_agent),
        record,
        live: None,
        closed: false,
    };
    let (reason, command) = loop {
        let running = session.live.as_mut().map(|live| &mut live.running);
        tokio::select! {
            heard = session.wire.next() => match heard {
                Heard::Text(text) => session.message(&text).await,
                Heard::Closed { orderly } => {
                    session.parted(orderly && session.live.is_some());
                    break ("the publisher closed the socket", Command::Drop { orderly });
                }
            },
            end = ended(running) => {
                let reason = match end {
                    End::Told => "the stream was deleted",
                    End::Closed => "the publisher ended the media",
                    End::Silent => "nothing was heard",
                };
                session.over();
                // The media may be parted from a moment before the socket is.
                if end == End::Closed && session.last_words().await {
                    break ("the publisher closed the socket", Command::Drop { orderly: true });
                }
                break (reason, Command::Drop { orderly: false });
            }
            Some(ask) = asks.recv() => match ask {
                Ask::KeyFrame => session.tell(Command::KeyFrame).await,
                Ask::Close { code, status } => {
                    session.wire.close(code, status).await;
                    break ("a fault: the socket was closed", Command::Drop { orderly: false });
                }
                Ask::DropSocket => break ("a fault: the socket was cut", Command::Drop { orderly: false }),
                Ask::End => break ("a fault: the server ended it", Command::Shut),
            },
            () = stop.cancelled() => break ("the lab stopped", Command::Shut),
        }
    };
    session.end(command).await;
    if session.closed {
        "the publisher closed the session".to_owned()
    } else {
        reason.to_owned()
    }
}

/// A session that has been agreed on.
struct Live {
    id: String,
    name: String,
    running: Running,
    described: sdp::Engine,
    candidates: Vec<String>,
    session: u32,
    /// What the publisher's description said last.
    remote: Credentials,
    fingerprint: Option<String>,
    end_of_candidates: bool,
}

struct Session<'a> {
    station: &'a Station,
    wire: Wire,
    rules: Rules,
    record: Record,
    live: Option<Live>,
    /// The publisher said CLOSE.
    closed: bool,
}

/// A refusal: its status and its description.
type Refusal = (u16, String);

impl Session<'_> {
    async fn tell(&mut self, command: Command) {
        if let Some(live) = &self.live {
            // An engine that is ending needs no telling.
            live.running.engine.send(command).await.ok();
        }
    }

    /// Ends the session, not the socket.
    async fn end(&mut self, command: Command) {
        if let Some(running) = self.over() {
            running.stop(command).await;
        }
    }

    /// The session is over; what is left of it is an engine, perhaps one that has ended.
    fn over(&mut self) -> Option<Running> {
        let live = self.live.take()?;
        self.station.release(&live.name, self.record.id());
        if !live.end_of_candidates && self.rules == Rules::Agent {
            self.violation("end-of-candidates", "no CANDIDATE with an empty candidate");
        }
        Some(live.running)
    }

    /// The socket is closed; `in_order` with a session on it.
    fn parted(&self, in_order: bool) {
        if in_order && self.rules == Rules::Agent {
            self.violation("close", "the socket was closed without CLOSE before");
        }
    }

    /// Reads on for a moment after `close_notify`; whether the publisher then closed the session or the socket.
    async fn last_words(&mut self) -> bool {
        let patience = tokio::time::sleep(super::LAST_WORDS);
        tokio::pin!(patience);
        loop {
            let heard = tokio::select! {
                heard = self.wire.next() => heard,
                () = &mut patience => return false,
            };
            match heard {
                Heard::Text(text) => {
                    let message: Value = serde_json::from_str(&text).unwrap_or_default();
                    self.closed |= message["messageType"] == "CLOSE";
                }
                Heard::Closed { orderly } => {
                    if !self.closed {
                        self.parted(orderly);
                    }
                    return orderly;
                }
            }
        }
    }

    async fn message(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            self.violation("json", "a message that is not JSON");
            return;
        };
        let Some(kind) = message["messageType"].as_str() else {
            if message["command"].is_string() {
                // The other dialect's words: a publisher that tries which is spoken here breaks no rule.
                if self.station.foreign == Foreign::Answers {
                    let reply = status(400, "Unsupported message");
                    self.wire.send(&reply).await;
                }
            } else {
                self.violation("json", "messageType is no string");
                self.wire.send(&status(400, "messageType is missing")).await;
            }
            return;
        };
        let reply = match kind {
            "GET_AVAILABLE_STREAMS" => Ok(Some(self.streams(&message))),
            _ if self.closed => Ok(None),
            "OFFER" => self.offer(&message).await,
            "CANDIDATE" => {
                self.candidate(&message).await;
                Ok(None)
            }
            "ICE_RESTART" => self.restart(&message).await,
            "CLOSE" => {
                self.close(&message).await;
                Ok(None)
            }
            other => {
                self.violation("message-type", &format!("unknown messageType {other:?}"));
                Err(bad("unknown messageType"))
            }
        };
        let reply = match reply {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err((code, description)) => status(code, &description),
        };
        let answered = kind == "OFFER" && reply["message"].is_object();
        self.wire.send(&reply).await;
        if answered {
            self.trickle(&message).await;
        }
    }

    /// What every message of a session has to say; the error says what it does not.
    fn names(&self, message: &Value) -> Result<(String, String), Refusal> {
        let mut names = Vec::new();
        for field in ["action", "applicationName", "streamName", "connectionId"] {
            let Some(text) = message[field].as_str() else {
                self.violation("json", &format!("{field} is no string"));
                return Err(bad(&format!("{field} is missing")));
            };
            names.push(text);
        }
        if names[0] != "PUBLISH" {
            self.violation("json", &format!("the action is {:?}", names[0]));
            return Err(bad("unsupported action"));
        }
        let application = names[1].split('/').next().unwrap_or_default();
        // A query in the stream name is for modules of the server; it is no part of the name.
        let stream = names[2].split('?').next().unwrap_or_default();
        Ok((application.to_owned(), stream.to_owned()))
    }

    fn description(&self, message: &Value) -> Result<Description, Refusal> {
        let Some(text) = message["sdp"].as_str() else {
            self.violation("json", "the sdp is no string");
            return Err(bad("sdp must be a string"));
        };
        Description::parse(text).map_err(|why| {
            self.violation("sdp", &why);
            bad(&why)
        })
    }

    async fn offer(&mut self, message: &Value) -> Result<Option<Value>, Refusal> {
        let (station, profile) = (self.station, self.station.profile);
        let (application, stream) = self.names(message)?;
        let name = format!("{application}/{stream}");
        self.record.named(&name);
        if station.faults.silent(profile, Step::Description) {
            self.wire.remark("a fault: silence instead of an answer");
            return Ok(None);
        }
        match station.faults.refusal(profile) {
            // Said of a stream that is still connecting; the answer follows all the same.
            Some(504) => self.wire.send(&status(504, "New stream connecting")).await,
            Some(code) => return Err((code, format!("refused with {code}"))),
            None => {}
        }
        if self.live.is_some() {
            self.violation("second-offer", "an OFFER on a connection that is live");
            return Err(bad("the connection is live; use ICE_RESTART"));
        }
        if message["connectionId"] != NO_ID {
            self.violation("connection-id", "the OFFER names a connectionId");
        }
        if application != profile.application() {
            return Err((404, format!("Application not found: {application}")));
        }
        if station.is_taken(&name) {
            return Err((503, "Stream name is already in use".to_owned()));
        }
        let offer = self.description(message)?;
        for (rule, detail) in offer::faults(&offer, self.rules == Rules::Agent, false) {
            self.violation(rule, &detail);
        }
        if offer.media.iter().any(|m| m.kind == "application") {
            self.wire
                .remark("an offer with a data channel is never answered");
            return Ok(None);
        }
        self.answer(name, &offer).await.map(Some)
    }

    async fn answer(&mut self, name: String, offer: &Description) -> Result<Value, Refusal> {
        let (station, profile) = (self.station, self.station.profile);
        let types = offer::payload_types(offer, false);
        let credentials = (word(8, HEX), word(32, HEX));
        let prepared = station.prepare((true, true), types, credentials).await;
        let prepared = prepared.map_err(|error| (500, error.to_string()))?;
        let (udp, tcp) = prepared.ingest.addresses();
        let run = station.run(prepared.ingest, offer, &name, self.rules, &self.record);
        let running = run.map_err(|why| {
            self.violation("sdp", &why);
            bad(&why)
        })?;
        let value = |name| offer.value(name).unwrap_or_default().to_owned();
        let live = Live {
            id: word(32, HEX),
            name,
            running,
            described: prepared.described,
            candidates: answer::candidates(udp, tcp)
                .into_iter()
                .map(|candidate| format!("{candidate} generation 0"))
                .collect(),
            session: fastrand::u32(100_000_000..),
            remote: (value("ice-ufrag"), value("ice-pwd")),
            fingerprint: offer.value("fingerprint").map(str::to_owned),
            end_of_candidates: false,
        };
        let code = match station.faults.mutation(profile) {
            Some(Mutation::Code404) => 404,
            Some(_) | None => 200,
        };
        let mut reply = status(code, "OK");
        let sdp = live.answer(offer, station);
        reply["message"] = json!({"connectionId": live.id, "sdp": sdp});
        let candidates = Self::candidates(offer);
        self.live = Some(live);
        for candidate in candidates {
            self.tell(Command::Candidate(candidate)).await;
        }
        Ok(reply)
    }

    /// Candidates that an offer brings along.
    fn candidates(offer: &Description) -> Vec<String> {
        let values = offer.media.iter().flat_map(|m| m.values("candidate"));
        let mut candidates: Vec<String> = values.map(|v| format!("candidate:{v}")).collect();
        candidates.dedup();
        candidates
    }

    /// Sends what of the engine's candidates the answer did not hold, and the end of them.
    async fn trickle(&mut self, offer: &Value) {
        let Some(live) = &self.live else {
            return;
        };
        let (id, rest) = (
            live.id.clone(),
            live.candidates.get(1..).unwrap_or_default(),
        );
        let last = String::new();
        let messages: Vec<Value> = rest
            .iter()
            .chain([&last])
            .map(|candidate| {
                json!({
                    "messageType": "CANDIDATE",
                    "action": "PUBLISH",
                    "applicationName": offer["applicationName"],
                    "streamName": offer["streamName"],
                    "connectionId": id,
                    "candidate": candidate,
                })
            })
            .collect();
        for message in messages {
            self.wire.send(&message).await;
        }
    }

    async fn candidate(&mut self, message: &Value) {
        let id = &message["connectionId"];
        let Some(live) = &mut self.live else {
            self.violation("candidate", "a CANDIDATE without a connection");
            return;
        };
        if *id != live.id.as_str() {
            let what = if id == NO_ID {
                "a CANDIDATE with connectionId [empty]"
            } else {
                "a CANDIDATE with another connectionId"
            };
            self.violation("candidate", what);
            return;
        }
        match message["candidate"].as_str() {
            Some("") => live.end_of_candidates = true,
            Some(text) if text.starts_with("candidate:") => {
                let candidate = text.to_owned();
                self.tell(Command::Candidate(candidate)).await;
            }
            Some(text) => {
                let what = format!("unreadable candidate {text:?}");
                self.violation("candidate", &what);
            }
            None => self.violation("candidate", "the candidate is no string"),
        }
    }

    async fn restart(&mut self, message: &Value) -> Result<Option<Value>, Refusal> {
        let (station, profile) = (self.station, self.station.profile);
        self.names(message)?;
        if station.faults.silent(profile, Step::Restart) {
            self.wire
                .remark("a fault: silence instead of an ICE restart");
            return Ok(None);
        }
        if let Some(code) = station.faults.restart_refusal(profile) {
            return Err((code, format!("refused with {code}")));
        }
        let offer = self.description(message)?;
        let Some(live) = &self.live else {
            return Err(bad("no session"));
        };
        if message["connectionId"] != live.id.as_str() {
            return Err((404, "unknown connectionId".to_owned()));
        }
        let value = |name| offer.value(name).unwrap_or_default().to_owned();
        let remote = (value("ice-ufrag"), value("ice-pwd"));
        if remote.0 == live.remote.0 || remote.1 == live.remote.1 || remote.1.is_empty() {
            self.violation("ice-restart", "an ICE_RESTART without new credentials");
            return Err(bad("the credentials are not new"));
        }
        if offer.value("fingerprint") != live.fingerprint.as_deref() {
            self.violation("ice-restart", "an ICE_RESTART with another fingerprint");
            return Err((409, "DTLS is not restarted".to_owned()));
        }
        let local = (word(8, HEX), word(32, HEX));
        let restart = Command::Restart {
            local: local.clone(),
            remote: remote.clone(),
        };
        self.tell(restart).await;
        for candidate in Self::candidates(&offer) {
            self.tell(Command::Candidate(candidate)).await;
        }
        let Some(live) = &mut self.live else {
            return Err(bad("no session"));
        };
        (live.described.ufrag, live.described.pwd) = local;
        live.remote = remote;
        let mut reply = status(200, "OK");
        reply["message"] = json!({"connectionId": live.id, "sdp": live.answer(&offer, station)});
        Ok(Some(reply))
    }

    async fn close(&mut self, message: &Value) {
        let known = self
            .live
            .as_ref()
            .is_some_and(|l| message["connectionId"] == l.id.as_str());
        if !known {
            self.violation("close", "a CLOSE that names no connection of this socket");
            return;
        }
        self.closed = true;
        self.end(Command::Drop { orderly: true }).await;
    }

    fn streams(&self, message: &Value) -> Value {
        let application = message["applicationName"].as_str().unwrap_or_default();
        let application = application.split('/').next().unwrap_or_default();
        let streams = if self.station.faults.is_unlisted(self.station.profile, now()) {
            Vec::new()
        } else {
            self.station.streams(application)
        };
        let listed: Vec<Value> = streams
            .into_iter()
            .map(|stream| json!({"streamName": stream}))
            .collect();
        json!({"availableStreams": listed})
    }

    fn violation(&self, rule: &'static str, detail: &str) {
        self.record
            .tally(|tally| tally.violation(rule, detail.to_owned()));
    }
}

impl Live {
    /// The answer to `offer`; the first candidate is in it, the others are trickled.
    fn answer(&self, offer: &Description, station: &Station) -> String {
        let n = self.candidates.len().min(1);
        let facts = answer::Facts {
            engine: &self.described,
            session: self.session,
            candidates: &self.candidates[..n],
            lite: false,
            refused: station.faults.refused_video(station.profile),
        };
        answer::plain(offer, "WowzaStreamingEngine-next", facts)
    }
}

fn bad(description: &str) -> Refusal {
    (400, description.to_owned())
}

fn status(code: u16, description: &str) -> Value {
    json!({"statusCode": code, "statusDescription": description})
}
