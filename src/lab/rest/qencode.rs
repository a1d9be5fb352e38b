//! An account at Qencode, as its live streaming API shows it.
//!
//! Pure. Streams live as [`stream`] says. What Qencode's documents leave open can be chosen ([`QencodeWays`]): which verb
//! changes a stream, where `server_urls` stands, what a start of a started stream says, how errors and statuses are worded.

mod stream;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;
use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;

use super::Again;
use super::Errors;
use super::Place;
use super::QencodeWays;
use super::Secret;
use super::UpdateVerb;
use super::Vendor;
use super::Words;
use super::account::Account;
use super::account::Call;
use super::account::Input;
use super::account::Moment;
use super::account::Reply;
use super::account::Request;
use super::account::RestCall;
use super::account::uuid;
use super::account::word;
use super::billing::Bill;

use self::stream::Life;
use self::stream::Phase;

/// How long a token is good.
const TOKEN: Duration = Duration::from_secs(24 * 3_600);
/// Tokens that are good at a time; the oldest go first.
const TOKENS: usize = 64;
/// Streams that exist at a time.
const STREAMS: usize = 256;
/// Bills of deleted streams that are kept.
const DELETED: usize = 256;
/// Webhooks that wait to be called; more are dropped.
const CALLS: usize = 64;
/// Longest text that is taken over from a request.
const TEXT: usize = 2_048;
/// The application of every stream.
const APPLICATION: &str = "qlive";

/// What an account is opened with.
pub(super) struct Opening {
    /// What every encoder's publishers connect to, without path: `ws://127.0.0.1:3334`.
    pub(super) base: String,
    pub(super) key: String,
    pub(super) ways: QencodeWays,
    /// Factor on the vendor's times.
    pub(super) time_scale: f64,
    pub(super) chance: fastrand::Rng,
}

/// The account.
#[derive(Debug)]
pub(super) struct Qencode {
    base: String,
    key: Secret,
    ways: QencodeWays,
    time_scale: f64,
    chance: fastrand::Rng,
    /// Tokens that were handed out, and until when each is good.
    tokens: VecDeque<(Secret, Instant)>,
    streams: BTreeMap<String, Stream>,
    numbers: u64,
    deleted: VecDeque<Bill>,
    calls: Vec<Call>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    name: String,
    stream_key: String,
    playback_id: String,
    callback_url: Option<String>,
    /// Of the encoder that runs: another with every start.
    encoder: Option<String>,
    life: Life,
    created_at: String,
    /// The status that was told last.
    told: String,
}

impl Qencode {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            base: opening.base,
            key: Secret::new(opening.key),
            ways: opening.ways,
            time_scale: opening.time_scale,
            chance: opening.chance,
            tokens: VecDeque::new(),
            streams: BTreeMap::new(),
            numbers: 0,
            deleted: VecDeque::new(),
            calls: Vec::new(),
        }
    }

    /// A stream that somebody made by hand. Returns its id.
    pub(super) fn made_by_hand(&mut self, now: Moment, name: &str) -> String {
        let (id, stream_key) = (uuid(&mut self.chance), uuid(&mut self.chance));
        self.numbers += 1;
        let life = Life::new(self.time_scale);
        let stream = Stream {
            number: self.numbers,
            name: name.to_owned(),
            stream_key,
            playback_id: word(&mut self.chance, 16),
            callback_url: None,
            encoder: None,
            told: self.status(&life).to_owned(),
            life,
            created_at: humantime::format_rfc3339_millis(now.wall).to_string(),
        };
        self.streams.insert(id.clone(), stream);
        id
    }

    fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.time_scale)
    }

    fn status(&self, life: &Life) -> &'static str {
        match (self.ways.words, life.phase()) {
            (Words::Documented, Phase::Idle { .. } | Phase::Starting { .. }) => "Idle",
            (Words::Documented, Phase::Live) => "Live",
            (Words::Documented, Phase::Stopped) => "Stopped",
            (Words::Undocumented, Phase::Idle { .. }) => "IDLE",
            (Words::Undocumented, Phase::Live) => "live",
            (Words::Undocumented, Phase::Starting { .. }) => "allocating_encoder",
            (Words::Undocumented, Phase::Stopped) if life.starts == 0 => "created",
            (Words::Undocumented, Phase::Stopped) => "stopped",
        }
    }

    fn token(&mut self, now: Moment, key: &str) -> Reply {
        if key != self.key.expose() {
            return self.error(401, "invalid api_key");
        }
        let lasts = self.scaled(TOKEN);
        let unix = |at: std::time::SystemTime| {
            let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
            since.as_secs_f64().floor()
        };
        let claims = json!({
            "iat": unix(now.wall),
            "sub": 130,
            "exp": unix(now.wall + lasts),
        });
        let header = json!({"alg": "HS256", "typ": "JWT"});
        // Nobody but this account reads the signature: a token is good if it was handed out.
        let signature: Vec<u8> = (0..32).map(|_| self.chance.u8(..)).collect();
        let token = [
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string()),
            URL_SAFE_NO_PAD.encode(signature),
        ]
        .join(".");
        if self.tokens.len() == TOKENS {
            self.tokens.pop_front();
        }
        let good_until = now.at + lasts;
        self.tokens
            .push_back((Secret::new(token.clone()), good_until));
        Reply::json(200, json!({ "access_token": token }))
    }

    fn admit(&self, now: Moment, request: &Request) -> Result<(), Reply> {
        let Some(bearer) = &request.bearer else {
            return Err(self.error(401, "Authorization header is missing"));
        };
        let known = self
            .tokens
            .iter()
            .find(|(token, _)| token.expose() == bearer);
        match known {
            Some((_, until)) if now.at < *until && !request.expired => Ok(()),
            Some(_) => Err(self.error(401, "access token expired")),
            None => Err(self.error(401, "invalid access token")),
        }
    }

    /// An error, in the words that were chosen.
    fn error(&self, status: u16, message: &str) -> Reply {
        match self.ways.errors {
            Errors::Message => Reply::json(status, json!({ "message": message })),
            Errors::NumberIn200 => Reply::json(200, json!({ "error": status, "message": message })),
            Errors::Text => Reply::text(status, message.to_owned()),
        }
    }

    fn object(&self, id: &str, stream: &Stream, with_urls: bool) -> Value {
        let mut object = json!({
            "id": id,
            "name": stream.name,
            "stream_key": stream.stream_key,
            "playback_id": stream.playback_id,
            "status": self.status(&stream.life),
            "callback_url": stream.callback_url,
            "created_at": stream.created_at,
        });
        if let (Some(encoder), true) = (&stream.encoder, with_urls) {
            object["server_urls"] = json!({
                "rtmp": "rtmp://rtmp-live.qencode.com/qlive",
                "webrtc": format!("{}/{APPLICATION}/{encoder}", self.base),
                "srt": format!("srt://live-{encoder}.qencode.com:9999?streamid={}", stream.stream_key),
            });
        }
        object
    }

    /// One stream, where the chosen place for it is.
    fn one(&self, status: u16, id: &str, with_urls: bool) -> Reply {
        let Some(stream) = self.streams.get(id) else {
            return self.error(404, "live stream not found");
        };
        let object = self.object(id, stream, with_urls);
        let placed = match self.ways.place {
            Place::Data => json!({ "data": object }),
            Place::LiveStream => json!({ "live_stream": object }),
            Place::Stream => json!({ "stream": object }),
            Place::Top => object,
        };
        Reply::json(status, placed)
    }

    fn list(&self) -> Reply {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_by_key(|(_, stream)| stream.number);
        let shown = streams
            .into_iter()
            .map(|(id, stream)| self.object(id, stream, true));
        let list: Value = shown.collect();
        let placed = match self.ways.place {
            Place::Data => json!({ "data": list }),
            Place::LiveStream => json!({ "live_streams": list }),
            Place::Stream => json!({ "streams": list }),
            Place::Top => list,
        };
        Reply::json(200, placed)
    }

    /// Takes over what a request says of a stream; `Err` says what cannot be.
    fn take(&mut self, id: &str, body: &[u8]) -> Result<(), &'static str> {
        if body.is_empty() {
            return Ok(());
        }
        let body: Value = serde_json::from_slice(body).map_err(|_| "invalid JSON")?;
        let fields = body.as_object().ok_or("a JSON object is expected")?;
        let text = |field: &str| match fields.get(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(Value::String(text)) if text.len() <= TEXT => Ok(Some(Some(text.clone()))),
            Some(_) => Err("a field is no short text"),
        };
        let (name, callback_url) = (text("name")?, text("callback_url")?);
        let Some(stream) = self.streams.get_mut(id) else {
            return Ok(());
        };
        if let Some(name) = name {
            stream.name = name.unwrap_or_default();
        }
        if let Some(url) = callback_url {
            stream.callback_url = url;
        }
        Ok(())
    }

    fn create(&mut self, now: Moment, request: &Request) -> Reply {
        if self.streams.len() >= STREAMS {
            return self.error(409, "too many live streams");
        }
        let id = self.made_by_hand(now, "");
        match self.take(&id, &request.body) {
            Ok(()) => self.one(200, &id, true),
            Err(why) => {
                self.streams.remove(&id);
                self.error(422, why)
            }
        }
    }

    fn start(&mut self, now: Moment, id: &str, stuck: bool) -> Reply {
        let takes = (!stuck).then(|| self.scaled(self.ways.boot));
        let encoder = uuid(&mut self.chance);
        let Some(stream) = self.streams.get_mut(id) else {
            return self.error(404, "live stream not found");
        };
        if stream.life.start(now.at, takes) {
            stream.encoder = Some(encoder);
            return self.one(200, id, true);
        }
        match self.ways.again {
            Again::Conflict => self.error(409, "live stream is already started"),
            Again::NoUrls => self.one(200, id, false),
            Again::SameUrls => self.one(200, id, true),
        }
    }

    fn stop(&mut self, now: Moment, id: &str) -> Reply {
        let Some(stream) = self.streams.get_mut(id) else {
            return self.error(404, "live stream not found");
        };
        stream.encoder = None;
        match (stream.life.stop(now.at), self.ways.again) {
            (false, Again::Conflict) => self.error(409, "live stream is not started"),
            _ => self.one(200, id, true),
        }
    }

    fn delete(&mut self, now: Moment, id: &str) -> Reply {
        let Some(mut stream) = self.streams.remove(id) else {
            return self.error(404, "live stream not found");
        };
        stream.life.stop(now.at);
        let mut bill = self.bill(id, &stream, now.at);
        "deleted".clone_into(&mut bill.state);
        if self.deleted.len() == DELETED {
            self.deleted.pop_front();
        }
        self.deleted.push_back(bill);
        Reply::nothing(204)
    }

    fn bill(&self, id: &str, stream: &Stream, now: Instant) -> Bill {
        Bill {
            vendor: Vendor::Qencode,
            id: id.to_owned(),
            name: stream.name.clone(),
            state: self.status(&stream.life).to_owned(),
            billed_s: stream.life.meter.read(now).as_secs_f64() / self.time_scale,
            running: stream.life.meter.is_running(),
            starts: stream.life.starts,
        }
    }

    /// Plans a webhook for every stream whose status is another than it was, and forgets encoders that are gone.
    fn settle(&mut self) {
        let changed: Vec<String> = self
            .streams
            .iter()
            .filter(|(_, stream)| stream.told != self.status(&stream.life))
            .map(|(id, _)| id.clone())
            .collect();
        for id in changed {
            let Some(stream) = self.streams.get(&id) else {
                continue;
            };
            let status = self.status(&stream.life).to_owned();
            let body = self.object(&id, stream, true);
            let url = stream.callback_url.clone();
            if let Some(url) = url.filter(|_| self.calls.len() < CALLS) {
                self.calls.push(Call { url, body });
            }
            if let Some(stream) = self.streams.get_mut(&id) {
                stream.told = status;
            }
        }
    }
}

impl Account for Qencode {
    fn call(&self, request: &Request) -> Option<RestCall> {
        let update = match self.ways.update {
            UpdateVerb::Patch => "PATCH",
            UpdateVerb::Post => "POST",
            UpdateVerb::Put => "PUT",
        };
        let elements = request.elements();
        Some(match (&*request.method, &elements[..]) {
            ("POST", ["access_token", _]) => RestCall::Token,
            ("POST", ["live-streams"]) => RestCall::Create,
            ("GET", ["live-streams"]) => RestCall::List,
            ("GET", ["live-streams", _]) => RestCall::Get,
            ("DELETE", ["live-streams", _]) => RestCall::Delete,
            ("POST", ["live-streams", _, "start"]) => RestCall::Start,
            ("POST", ["live-streams", _, "stop"]) => RestCall::Stop,
            (verb, ["live-streams", _]) if verb == update => RestCall::Update,
            _ => return None,
        })
    }

    fn answer(&mut self, now: Moment, request: &Request) -> Reply {
        let elements = request.elements();
        let id = elements.get(1).copied().unwrap_or("");
        let Some(call) = self.call(request) else {
            let known = matches!(elements[..], ["access_token", _] | ["live-streams", ..]);
            return self.error(if known { 405 } else { 404 }, "no such method");
        };
        if call == RestCall::Token {
            return self.token(now, id);
        }
        if let Err(refused) = self.admit(now, request) {
            return refused;
        }
        let reply = match call {
            RestCall::Create => self.create(now, request),
            RestCall::Delete => self.delete(now, id),
            RestCall::List => self.list(),
            RestCall::Start => self.start(now, id, request.stuck),
            RestCall::Stop => self.stop(now, id),
            RestCall::Update => match self.take(id, &request.body) {
                Ok(()) => self.one(200, id, true),
                Err(why) => self.error(422, why),
            },
            RestCall::Analytics
            | RestCall::Get
            | RestCall::Other
            | RestCall::Reset
            | RestCall::State
            | RestCall::Token => self.one(200, id, true),
        };
        self.settle();
        reply
    }

    fn refusal(&self, status: u16) -> Reply {
        match status {
            // What a proxy in front of it says, which knows nothing of the API.
            502..=504 => Reply::text(
                status,
                format!("<html><body><h1>{status}</h1></body></html>"),
            ),
            _ => self.error(status, "the request failed"),
        }
    }

    fn advance(&mut self, now: Moment) {
        for stream in self.streams.values_mut() {
            stream.life.advance(now.at);
            if stream.life.is_stopped() {
                stream.encoder = None;
            }
        }
        self.settle();
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = self.streams.values().filter_map(|s| s.life.deadline());
        deadlines.min()
    }

    fn inputs(&mut self, now: Moment, inputs: &BTreeMap<String, Input>) {
        for stream in self.streams.values_mut() {
            let Some(encoder) = &stream.encoder else {
                continue;
            };
            let there = inputs.contains_key(&format!("{APPLICATION}/{encoder}"));
            stream.life.input(now.at, there);
        }
        self.settle();
    }

    fn stop_all(&mut self, now: Moment) {
        for stream in self.streams.values_mut() {
            stream.life.stop(now.at);
            stream.encoder = None;
        }
        self.settle();
    }

    fn doors(&self) -> BTreeMap<String, bool> {
        let open = |stream: &Stream| {
            let encoder = stream.encoder.as_ref()?;
            Some((format!("{APPLICATION}/{encoder}"), stream.life.is_up()))
        };
        self.streams.values().filter_map(open).collect()
    }

    fn bills(&self, now: Instant) -> Vec<Bill> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_by_key(|(_, stream)| stream.number);
        let live = streams
            .into_iter()
            .map(|(id, stream)| self.bill(id, stream, now));
        self.deleted.iter().cloned().chain(live).collect()
    }

    fn renew(&mut self, credential: String) {
        self.key = Secret::new(credential);
        self.tokens.clear();
    }

    fn calls(&mut self) -> Vec<Call> {
        std::mem::take(&mut self.calls)
    }
}

#[cfg(test)]
mod tests;
