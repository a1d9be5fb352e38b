//! OvenMediaEngine's WebSocket signalling, server side, with its habits.
//!
//! The server offers; a good answer has no reply. Every refusal before the offer is the same 404. No error
//! closes the socket, and no socket is ever closed with a Close frame. Closing the socket ends the stream, and
//! one that was refused after its answer ends, by closing, whoever has the name: the stop goes by name.

use std::time::Duration;

use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::engine::Command;
use super::engine::End;
use super::faults::Mutation;
use super::faults::Step;
use super::hub::Ask;
use super::hub::Record;
use super::judge::Rules;
use super::profile::Profile;
use super::sdp;
use super::sdp::Description;
use super::sdp::OmeNames;
use super::station::Prepared;
use super::station::Request;
use super::station::Running;
use super::station::Station;
use super::station::ended;
use super::station::word;
use super::turn::embedded;
use super::wire::Heard;
use super::wire::Wire;

/// OvenMediaEngine pings this often.
const PING: Duration = Duration::from_secs(20);
/// It cuts a socket on which nothing at all has been heard for this long.
const SILENCE: Duration = Duration::from_secs(60);
/// Alphabet of mids, passwords and names.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";

/// Serves one publisher until its socket ends. Returns why.
pub(super) async fn serve(
    station: &Station,
    wire: Wire,
    request: Request,
    record: Record,
    asks: mpsc::Receiver<Ask>,
    stop: &CancellationToken,
) -> String {
    let name = Name::of(&request);
    if let Name::Stream {
        application,
        stream,
    } = &name
    {
        record.named(&format!("{application}/{stream}"));
    }
    let rules = Rules::of(&request.user_agent);
    Session {
        station,
        wire,
        request,
        rules,
        record,
        name,
        id: None,
        offered: None,
        candidates: Vec::new(),
        running: None,
        refused_after_answer: false,
        stopped: false,
    }
    .serve(asks, stop)
    .await
}

/// What a URL names.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Name {
    /// Nothing that could be published to.
    Nothing,
    /// An application without a stream: it is offered, and refused after the answer.
    NoStream,
    /// A stream.
    Stream { application: String, stream: String },
}

impl Name {
    /// The first two elements of the path count, as they are written; the rest is dropped silently.
    fn of(request: &Request) -> Self {
        let mut elements = request.path.split('/').skip(1);
        match (elements.next().unwrap_or(""), elements.next().unwrap_or("")) {
            ("", _) => Self::Nothing,
            (_, "") => Self::NoStream,
            (application, stream) => Self::Stream {
                application: application.to_owned(),
                stream: stream.to_owned(),
            },
        }
    }
}

struct Session<'a> {
    station: &'a Station,
    wire: Wire,
    request: Request,
    rules: Rules,
    record: Record,
    name: Name,
    id: Option<i64>,
    offered: Option<(Prepared, OmeNames)>,
    candidates: Vec<Value>,
    running: Option<Running>,
    refused_after_answer: bool,
    stopped: bool,
}

type Reply = (u16, String);

impl Session<'_> {
    async fn serve(mut self, mut asks: mpsc::Receiver<Ask>, stop: &CancellationToken) -> String {
        let mut pings = tokio::time::interval(self.station.scaled(PING));
        pings.reset();
        let mut looks = tokio::time::interval(self.station.scaled(Duration::from_secs(5)));
        let (reason, command) = loop {
            tokio::select! {
                heard = self.wire.next() => match heard {
                    Heard::Text(text) => {
                        if let Err((code, error)) = self.message(&text).await {
                            self.wire.send(&json!({"code": code, "error": error})).await;
                        }
                    }
                    Heard::Closed { orderly } => {
                        break ("the publisher closed the socket", Command::Drop { orderly });
                    }
                },
                end = ended(self.running.as_mut()) => {
                    self.running = None;
                    self.release();
                    match end {
                        // Another session's hang-up ended this one: its socket stays open, nobody tells it.
                        End::Told => self.wire.remark("the stream was deleted from elsewhere"),
                        End::Silent => break ("nothing was heard", Command::Drop { orderly: false }),
                        End::Closed => break ("the media connection was closed", Command::Drop { orderly: false }),
                    }
                },
                Some(ask) = asks.recv() => match ask {
                    Ask::KeyFrame => self.tell(Command::KeyFrame).await,
                    // It never sends a Close frame.
                    Ask::Close { .. } | Ask::DropSocket => {
                        break ("a fault: the socket was cut", Command::Drop { orderly: false });
                    }
                    Ask::End => break ("a fault: the server ended it", Command::Shut),
                },
                _ = pings.tick() => self.wire.ping().await,
                _ = looks.tick() => {
                    if self.wire.heard().elapsed() > self.station.scaled(SILENCE) {
                        break ("no frame was heard in 60 s", Command::Drop { orderly: false });
                    }
                }
                () = stop.cancelled() => break ("the lab stopped", Command::Shut),
            }
        };
        if self.refused_after_answer
            && let Some(name) = self.stream()
            && let Some(winner) = self.station.delete(&name)
        {
            self.wire.remark(&format!(
                "by closing after a 403 it deleted the stream of session {winner}"
            ));
        }
        self.end(command).await;
        if self.stopped {
            "the publisher stopped".to_owned()
        } else {
            reason.to_owned()
        }
    }

    /// Ends the stream, not the socket.
    async fn end(&mut self, command: Command) {
        self.release();
        if let Some(running) = self.running.take() {
            running.stop(command).await;
        }
    }

    async fn tell(&mut self, command: Command) {
        if let Some(running) = &self.running {
            // An engine that is ending needs no telling.
            running.engine.send(command).await.ok();
        }
    }

    fn release(&self) {
        if let Some(name) = self.stream() {
            self.station.release(&name, self.record.id());
        }
    }

    fn stream(&self) -> Option<String> {
        match &self.name {
            Name::Stream {
                application,
                stream,
            } => Some(format!("{application}/{stream}")),
            Name::NoStream | Name::Nothing => None,
        }
    }

    async fn message(&mut self, text: &str) -> Result<(), Reply> {
        // What is no JSON object with a command is passed over in silence.
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            self.violation("json", "a message that is not JSON");
            return Ok(());
        };
        let Some(command) = message["command"].as_str() else {
            self.violation("json", "a message without command");
            return Ok(());
        };
        if command == "request_offer" {
            return self.offer().await;
        }
        let id = &message["id"];
        if self.id.is_none() || id.as_i64() != self.id {
            let what = if id.is_string() {
                "the id is a string, not a number"
            } else {
                "the id is not the one of the offer"
            };
            self.violation("id", what);
            return Err(bad("Invalid ID"));
        }
        match command {
            "answer" => self.answer(&message),
            "candidate" => self.candidate(&message["candidates"]),
            "stop" => {
                if self.running.is_none() && self.offered.is_none() {
                    return Err((500, "Cannot dispatch stop command".to_owned()));
                }
                self.stopped = true;
                self.offered = None;
                self.id = Some(-1);
                self.end(Command::Drop { orderly: true }).await;
                Ok(())
            }
            other => {
                self.violation("command", &format!("unknown command {other:?}"));
                Err(bad(&format!("Unknown command: {other}")))
            }
        }
    }

    async fn offer(&mut self) -> Result<(), Reply> {
        let refused = || Err((404, "Cannot create offer".to_owned()));
        let (station, profile) = (self.station, self.station.profile);
        if station.faults.silent(profile, Step::Description) {
            self.wire.remark("a fault: silence instead of an offer");
            return Ok(());
        }
        if let Some(code) = station.faults.refusal(profile) {
            return Err((code, refusal_text(code).to_owned()));
        }
        let application = self.request.path.split('/').nth(1).unwrap_or("");
        let name = self.stream();
        let running = name.as_ref().is_none_or(|name| station.is_running(name));
        let known = station.has_application(application) && running;
        let taken = name.is_some_and(|name| station.is_taken(&name));
        if !known || taken || self.request.parameter("direction") != Some("send") {
            return refused();
        }
        let transports = self.transports();
        if self.offered.is_none() {
            let ufrag = word(6, LETTERS);
            let prepared = station
                .prepare(
                    (transports.udp, transports.tcp),
                    sdp::OME_TYPES,
                    (ufrag.clone(), word(32, LETTERS)),
                )
                .await;
            let Ok(mut prepared) = prepared else {
                return refused();
            };
            if let Some(embedded) = station.embedded.as_ref().filter(|_| transports.relay)
                && prepared.ingest.relayed(embedded.place(&ufrag)).is_err()
            {
                return refused();
            }
            let names = OmeNames {
                session: fastrand::u32(100..1_000),
                mids: [word(6, LETTERS), word(6, LETTERS)],
                msid: word(36, LETTERS),
                tracks: [word(36, LETTERS), word(36, LETTERS)],
            };
            self.offered = Some((prepared, names));
        }
        let Some((prepared, names)) = &self.offered else {
            return refused();
        };
        let (udp, tcp) = prepared.ingest.addresses();
        // A repeated request gets the list longer each time.
        let dummy =
            (transports.relay && !transports.udp && !transports.tcp).then_some(embedded::DUMMY);
        if let Some(address) = udp.or(dummy) {
            let (foundation, priority) = if profile.is_old_ome() {
                (format!("{:010}", fastrand::u64(..10_000_000_000)), 50)
            } else {
                (foundation(), 2_130_706_431)
            };
            self.candidates.push(candidate(&format!(
                "{foundation} 1 UDP {priority} {} {} typ host",
                address.ip(),
                address.port()
            )));
        }
        if let Some(address) = tcp {
            self.candidates.push(candidate(&format!(
                "{} 1 TCP 1275068415 {} {} typ host tcptype passive",
                foundation(),
                address.ip(),
                address.port()
            )));
        }
        let id = *self
            .id
            .get_or_insert_with(|| i64::from(fastrand::i32(1..i32::MAX)));
        let code = match station.faults.mutation(profile) {
            Some(Mutation::Code404) => 404,
            Some(_) | None => 200,
        };
        let mut offer = json!({
            "candidates": self.candidates,
            "code": code,
            "command": "offer",
            "id": id,
            "peer_id": 0,
            "sdp": {"sdp": sdp::ome_offer(&prepared.described, names), "type": "offer"},
        });
        if transports.relay {
            self.tell_of_turn(&mut offer);
        }
        self.wire.send(&offer).await;
        Ok(())
    }

    fn transports(&self) -> Transports {
        let asked = self.request.parameter("transport").unwrap_or("");
        let mut transports = Transports::asked(self.station.profile, asked);
        transports.relay |= self.station.ome_turn.forced;
        transports
    }

    /// The embedded TURN server, as offers tell of it: twice, with the historic name of the user and the right one.
    fn tell_of_turn(&self, offer: &mut Value) {
        let Some(server) = self.station.embedded_turn() else {
            return;
        };
        let (user, password) = server.login.unwrap_or_default();
        for (list, username) in [("ice_servers", "user_name"), ("iceServers", "username")] {
            let server = json!({"urls": [server.url], username: user, "credential": password});
            offer[list] = json!([server]);
        }
    }

    fn answer(&mut self, message: &Value) -> Result<(), Reply> {
        let sdp = &message["sdp"];
        if !sdp.is_object() {
            self.violation("json", "the sdp of the answer is no object");
            return Err(bad("There is no SDP"));
        }
        if sdp["type"] != "answer" {
            self.violation("json", "the type of the answer is not `answer`");
            return Err(bad("Invalid SDP type"));
        }
        let Some(text) = sdp["sdp"].as_str() else {
            self.violation("json", "the sdp of the answer is no string");
            return Err(bad("SDP must be a string"));
        };
        let refused = || Err((403, "Forbidden".to_owned()));
        let answer = Description::parse(text);
        let Some((prepared, names)) = self.offered.take() else {
            return refused();
        };
        // Some clients look for `error` alone; the real server never sends such an offer.
        if self.station.faults.mutation(self.station.profile) == Some(Mutation::Code404) {
            self.violation("code", "an offer with code 404 was answered");
            return Err((404, refusal_text(404).to_owned()));
        }
        let answer = match answer {
            Ok(answer) if answer.media.len() == names.mids.len() => answer,
            Ok(answer) => {
                let n = answer.media.len();
                self.violation("sections", &format!("{n} sections instead of 2"));
                return refused();
            }
            Err(why) => {
                self.violation("sdp", &why);
                return refused();
            }
        };
        for (rule, detail) in sdp::ome_faults(&answer, &names.mids, self.rules == Rules::Agent) {
            self.violation(rule, &detail);
        }
        let Some(name) = self.stream() else {
            return refused();
        };
        if self.station.is_taken(&name) {
            self.refused_after_answer = true;
            return refused();
        }
        let run = self
            .station
            .run(prepared.ingest, &answer, &name, self.rules, &self.record);
        match run {
            Ok(running) => {
                self.running = Some(running);
                Ok(())
            }
            Err(why) => {
                self.violation("sdp", &why);
                refused()
            }
        }
    }

    fn candidate(&self, candidates: &Value) -> Result<(), Reply> {
        let Some(candidates) = candidates.as_array() else {
            return Err(if candidates.is_null() {
                bad("There is no candidate list")
            } else {
                bad("Candidates must be array")
            });
        };
        for candidate in candidates {
            let text = candidate["candidate"].as_str().unwrap_or("");
            let parses =
                text.starts_with("candidate:") && text.split_ascii_whitespace().count() >= 7;
            if !text.is_empty() && !parses {
                self.violation("candidate", &format!("unreadable candidate {text:?}"));
                return Err(bad(&format!("Invalid candidate: {text}")));
            }
        }
        Ok(())
    }

    fn violation(&self, rule: &'static str, detail: &str) {
        self.record
            .tally(|tally| tally.violation(rule, detail.to_owned()));
    }
}

fn bad(error: &str) -> Reply {
    (400, error.to_owned())
}

const fn refusal_text(code: u16) -> &'static str {
    match code {
        403 => "Forbidden",
        404 => "Cannot create offer",
        _ => "Internal Server Error",
    }
}

/// A candidate as OvenMediaEngine sends it: without `sdpMid`.
fn candidate(rest: &str) -> Value {
    json!({"candidate": format!("candidate:{rest}"), "sdpMLineIndex": 0})
}

/// A foundation of up to twenty digits.
fn foundation() -> String {
    fastrand::u64(1_000_000_000_000_000_000..).to_string()
}

/// What an offer holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Transports {
    /// A UDP candidate.
    udp: bool,
    /// A passive TCP candidate.
    tcp: bool,
    /// The embedded TURN server; without any other, a dummy for a candidate.
    relay: bool,
}

impl Transports {
    /// What `transport=` of the URL asks for. Up to 0.20 there was one word, and it meant TURN.
    fn asked(profile: Profile, transport: &str) -> Self {
        let (udp, tcp, relay) = match (profile.is_old_ome(), &*transport.to_ascii_lowercase()) {
            (true, "tcp") => (true, false, true),
            (true, _) | (false, "udp") => (true, false, false),
            (false, "tcp") => (false, true, false),
            (false, "relay") => (false, false, true),
            (false, "all") => (true, true, true),
            (false, _) => (true, true, false),
        };
        Self { udp, tcp, relay }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_word_for_transports_changed_its_meaning() {
        let holds = |profile, asked: &str| {
            let held = Transports::asked(profile, asked);
            (held.udp, held.tcp, held.relay)
        };
        for profile in [Profile::Ome016, Profile::Ome020] {
            for asked in ["", "udp", "relay", "all", "udptcp", "nonsense"] {
                assert_eq!(holds(profile, asked), (true, false, false), "{asked}");
            }
            assert_eq!(holds(profile, "tcp"), (true, false, true));
            assert_eq!(holds(profile, "TCP"), (true, false, true));
        }
        for profile in [Profile::Ome021, Profile::Qencode] {
            for asked in ["", "udptcp", "nonsense"] {
                assert_eq!(holds(profile, asked), (true, true, false), "{asked}");
            }
            assert_eq!(holds(profile, "udp"), (true, false, false));
            assert_eq!(holds(profile, "tcp"), (false, true, false));
            assert_eq!(holds(profile, "Relay"), (false, false, true));
            assert_eq!(holds(profile, "all"), (true, true, true));
        }
    }
}
