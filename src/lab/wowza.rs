//! Wowza's `webrtc-session.json` signalling, first version, server side.
//!
//! The publisher offers; the answer and its candidates come in one JSON message; nothing is trickled. The socket
//! may close while the media lives: the session ends with `close_notify`, with its media connection, or with
//! silence.

use serde_json::Value;
use serde_json::json;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Foreign;
use super::engine::Command;
use super::engine::End;
use super::faults::Mutation;
use super::faults::Step;
use super::hub::Ask;
use super::hub::Record;
use super::ingest::PayloadTypes;
use super::judge::Rules;
use super::now;
use super::profile::Profile;
use super::sdp;
use super::sdp::Description;
use super::station::Request;
use super::station::Running;
use super::station::Station;
use super::station::ended;
use super::station::word;
use super::wire::Heard;
use super::wire::Wire;

/// ICE credentials are lower-case hexadecimal.
const HEX: &[u8] = b"0123456789abcdef";

/// Payload types of an offer that has a section without a usable codec; nothing is ever received on them.
const UNUSED: PayloadTypes = PayloadTypes {
    h264: 97,
    opus: 96,
    transport_cc: None,
};

/// Serves one publisher until its session ends. Returns why.
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
        wire: Some(wire),
        rules: Rules::of(&request.user_agent),
        record,
        name: None,
        running: None,
    };
    let (reason, command) = loop {
        tokio::select! {
            heard = heard(session.wire.as_mut()) => match heard {
                Heard::Text(text) => session.message(&text).await,
                Heard::Closed { orderly } => {
                    session.wire = None;
                    if session.running.is_none() {
                        break ("the publisher closed the socket", Command::Drop { orderly });
                    }
                    if orderly {
                        session.tell(Command::Left).await;
                    }
                }
            },
            end = ended(session.running.as_mut()) => {
                session.running = None;
                let reason = match end {
                    End::Told => "the stream was deleted",
                    End::Closed => "the publisher ended the media",
                    End::Silent => "nothing was heard",
                };
                break (reason, Command::Drop { orderly: false });
            }
            Some(ask) = asks.recv() => match ask {
                Ask::KeyFrame => session.tell(Command::KeyFrame).await,
                Ask::DropSocket => {
                    session.record.message(now(), None, "a fault: the socket is cut");
                    session.wire = None;
                    if session.running.is_none() {
                        break ("a fault: the socket was cut", Command::Drop { orderly: false });
                    }
                }
                Ask::Close { code, status } => {
                    if let Some(mut wire) = session.wire.take() {
                        wire.close(code, status).await;
                    }
                    if session.running.is_none() {
                        break ("a fault: the socket was closed", Command::Drop { orderly: false });
                    }
                }
                Ask::End => break ("a fault: the server ended it", Command::Shut),
            },
            () = stop.cancelled() => break ("the lab stopped", Command::Shut),
        }
    };
    if let Some(name) = &session.name {
        station.release(name, session.record.id());
    }
    if let Some(running) = session.running.take() {
        running.stop(command).await;
    }
    reason.to_owned()
}

async fn heard(wire: Option<&mut Wire>) -> Heard {
    match wire {
        Some(wire) => wire.next().await,
        None => std::future::pending().await,
    }
}

struct Session<'a> {
    station: &'a Station,
    wire: Option<Wire>,
    rules: Rules,
    record: Record,
    name: Option<String>,
    running: Option<Running>,
}

/// A refusal: its status and its description.
type Refusal = (u16, String);

impl Session<'_> {
    async fn tell(&mut self, command: Command) {
        if let Some(running) = &self.running {
            // An engine that is ending needs no telling.
            running.engine.send(command).await.ok();
        }
    }

    async fn message(&mut self, text: &str) {
        let Ok(message) = serde_json::from_str::<Value>(text) else {
            self.violation("json", "a message that is not JSON");
            return;
        };
        let foreign = message["messageType"].is_string();
        if self.station.foreign == Foreign::Silent
            && (foreign || self.station.profile == Profile::WowzaV2)
        {
            self.remark("it is spoken to in another dialect, and keeps silent");
            return;
        }
        let reply = match self.reply(&message).await {
            Ok(Some(reply)) => reply,
            Ok(None) => return,
            Err((status, description)) => refusal(&message, status, &description),
        };
        if let Some(wire) = &mut self.wire {
            wire.send(&reply).await;
        }
    }

    async fn reply(&mut self, message: &Value) -> Result<Option<Value>, Refusal> {
        if message["messageType"].is_string() {
            // The other dialect's words: a publisher that tries which is spoken here breaks no rule.
            return Err(bad("unsupported command"));
        }
        for field in ["direction", "command"] {
            if !message[field].is_string() {
                self.violation("json", &format!("{field} is no string"));
                return Err(bad(&format!("{field} is missing")));
            }
        }
        let info = &message["streamInfo"];
        let (Some(application), Some(stream)) = (
            info["applicationName"].as_str(),
            info["streamName"].as_str(),
        ) else {
            self.violation("json", "streamInfo lacks applicationName or streamName");
            return Err(bad("streamInfo is incomplete"));
        };
        let (application, _instance) = application.split_once('/').unwrap_or((application, ""));
        match (message["command"].as_str(), message["direction"].as_str()) {
            (Some("sendOffer"), Some("publish")) => {}
            (Some("getAvailableStreams"), _) => {
                let mut reply = refusal(message, 200, "OK");
                reply["availableStreams"] = Value::Null;
                return Ok(Some(reply));
            }
            (command, direction) => {
                let what = format!("{command:?} with direction {direction:?}");
                self.violation("command", &what);
                return Err(bad("unsupported command"));
            }
        }
        // A query in the stream name is for modules of the server; it is no part of the name.
        let plain = stream.split('?').next().unwrap_or(stream);
        let name = format!("{application}/{plain}");
        self.record.named(&name);
        self.offer(message, application, &name).await
    }

    async fn offer(
        &mut self,
        message: &Value,
        application: &str,
        name: &str,
    ) -> Result<Option<Value>, Refusal> {
        let (station, profile) = (self.station, self.station.profile);
        if station.faults.silent(profile, Step::Description) {
            self.remark("a fault: silence instead of an answer");
            return Ok(None);
        }
        match station.faults.refusal(profile) {
            // Said of a stream that is still connecting; the answer follows all the same.
            Some(504) => {
                let early = refusal(message, 504, "New stream connecting");
                if let Some(wire) = &mut self.wire {
                    wire.send(&early).await;
                }
            }
            Some(status) => return Err((status, format!("refused with {status}"))),
            None => {}
        }
        if !station.has_application(application) {
            return Err((404, format!("Application not found: {application}")));
        }
        if !station.is_running(name) {
            let (_, stream) = name.split_once('/').unwrap_or(("", name));
            return Err((502, format!("Live stream is not running: {stream}")));
        }
        if self.running.is_some() || station.is_taken(name) {
            return Err((503, format!("Stream name is already in use: {name}")));
        }
        let sdp = &message["sdp"];
        let (Some("offer"), Some(text)) = (sdp["type"].as_str(), sdp["sdp"].as_str()) else {
            self.violation("json", "sdp is not {type: \"offer\", sdp: string}");
            return Err(bad("no offer"));
        };
        let offer = Description::parse(text).map_err(|why| {
            self.violation("sdp", &why);
            bad(&why)
        })?;
        for (rule, detail) in sdp::wowza_faults(&offer, self.rules == Rules::Agent) {
            self.violation(rule, &detail);
        }
        if offer
            .media
            .iter()
            .any(|m| m.kind != "audio" && m.kind != "video")
        {
            // A data channel is never answered at all.
            return Ok(None);
        }
        self.answer(message, name, &offer).await.map(Some)
    }

    async fn answer(
        &mut self,
        message: &Value,
        name: &str,
        offer: &Description,
    ) -> Result<Value, Refusal> {
        let (station, profile) = (self.station, self.station.profile);
        let payload_type = |track| offer.track(track).and_then(|m| m.codec()).map(|(pt, _)| pt);
        let payload_types = PayloadTypes {
            h264: payload_type(crate::media::access_unit::Track::Video).unwrap_or(UNUSED.h264),
            opus: payload_type(crate::media::access_unit::Track::Audio).unwrap_or(UNUSED.opus),
            transport_cc: None,
        };
        let over_tcp = profile == Profile::WowzaCloud;
        let internal = |why: String| (500, why);
        let prepared = station
            .prepare(
                (!over_tcp, over_tcp),
                payload_types,
                (word(8, HEX), word(32, HEX)),
            )
            .await
            .map_err(|error| internal(error.to_string()))?;
        let (udp, tcp) = prepared.ingest.addresses();
        let (protocol, address) = match (udp, tcp) {
            (_, Some(address)) => ("TCP", address),
            (Some(address), None) => ("UDP", address),
            (None, None) => return Err(internal("no media socket".to_owned())),
        };
        let session = fastrand::u32(100_000_000..);
        let answer = sdp::wowza_answer(&prepared.described, session, offer, profile.nack());
        let running = station
            .run(prepared.ingest, offer, name, self.rules, &self.record)
            .map_err(|why| {
                self.violation("sdp", &why);
                bad(&why)
            })?;
        self.running = Some(running);
        self.name = Some(name.to_owned());
        let status = match station.faults.mutation(profile) {
            Some(Mutation::Code404) => 404,
            Some(_) | None => 200,
        };
        let mut reply = refusal(message, status, "OK");
        let (application, _stream) = name.split_once('/').unwrap_or((name, ""));
        reply["streamInfo"]["applicationName"] = json!(format!("{application}/_definst_"));
        reply["streamInfo"]["sessionId"] = json!(session.to_string());
        reply["sdp"] = json!({"type": "answer", "sdp": answer});
        // One candidate, without `tcptype`; `sdpMid` is the first of the answer.
        let mid = offer
            .media
            .first()
            .and_then(|m| m.value("mid"))
            .unwrap_or("0");
        let (ip, port) = (address.ip(), address.port());
        reply["iceCandidates"] = json!([{
            "candidate": format!("candidate:0 1 {protocol} 50 {ip} {port} typ host generation 0"),
            "sdpMid": mid,
            "sdpMLineIndex": 0,
        }]);
        Ok(reply)
    }

    fn violation(&self, rule: &'static str, detail: &str) {
        self.record
            .tally(|tally| tally.violation(rule, detail.to_owned()));
    }

    fn remark(&self, text: &str) {
        self.record.message(now(), None, text);
    }
}

fn bad(description: &str) -> Refusal {
    (400, description.to_owned())
}

/// A reply that echoes what the request was about.
fn refusal(request: &Value, status: u16, description: &str) -> Value {
    json!({
        "status": status,
        "statusDescription": description,
        "direction": request["direction"],
        "command": request["command"],
        "streamInfo": {
            "applicationName": request["streamInfo"]["applicationName"],
            "streamName": request["streamInfo"]["streamName"],
            "sessionId": "[empty]",
        },
    })
}
