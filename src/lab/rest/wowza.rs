//! An account at Wowza Video, as its REST API 2.0 shows it.
//!
//! Pure. Streams live as [`stream`] says; what is shown of them is in [`mod@shown`] and [`listing`], errors and validation in
//! [`words`].

mod listing;
mod shown;
mod stream;
mod words;

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::Vendor;
use super::WowzaWays;
use super::account::Account;
use super::account::Call;
use super::account::Input;
use super::account::Moment;
use super::account::Reply;
use super::account::Request;
use super::account::RestCall;
use super::account::word;
use super::billing::Bill;

use self::listing::listed;
use self::shown::analytics;
use self::shown::brief;
use self::shown::shown;
use self::stream::Life;
use self::stream::NotNow;
use self::stream::Times;
use self::words::Settings;
use self::words::WEBRTC;
use self::words::error;
use self::words::not_now;
use self::words::refusal;

/// Streams that can be created in [`CREATIONS_WITHIN`].
const CREATIONS: usize = 10;
const CREATIONS_WITHIN: Duration = Duration::from_secs(3 * 3_600);
/// How old an answer about what arrives may be.
const ANALYTICS_AGE: Duration = Duration::from_secs(10);
/// Streams that are remembered, deleted ones too; the deleted ones go first.
const REMEMBERED: usize = 512;

/// What an account is opened with.
pub(super) struct Opening {
    /// What every stream's publishers connect to.
    pub(super) sdp_url: String,
    /// The token that is good.
    pub(super) token: String,
    /// The token of somebody who may see nothing here.
    pub(super) stranger: Option<String>,
    pub(super) ways: WowzaWays,
    /// Factor on the vendor's times.
    pub(super) time_scale: f64,
    pub(super) chance: fastrand::Rng,
}

/// The account.
#[derive(Debug)]
pub(super) struct Wowza {
    sdp_url: String,
    token: super::Secret,
    stranger: Option<super::Secret>,
    ways: WowzaWays,
    time_scale: f64,
    chance: fastrand::Rng,
    /// By id, in the order of creation where it matters (`number`).
    streams: BTreeMap<String, Stream>,
    numbers: u64,
    created: VecDeque<Instant>,
}

#[derive(Debug)]
struct Stream {
    number: u64,
    settings: Settings,
    application: String,
    name: String,
    life: Life,
    deleted: bool,
    created_at: String,
    updated_at: String,
    input: Option<Input>,
    /// The last answer about what arrives, and when it was given.
    analytics: Option<(Instant, Value)>,
}

impl Stream {
    /// As the ingest server knows it.
    fn full_name(&self) -> String {
        format!("{}/{}", self.application, self.name)
    }

    fn is_webrtc(&self) -> bool {
        self.settings.text("encoder") == WEBRTC
    }
}

impl Wowza {
    pub(super) fn new(opening: Opening) -> Self {
        Self {
            sdp_url: opening.sdp_url,
            token: super::Secret::new(opening.token),
            stranger: opening.stranger.map(super::Secret::new),
            ways: opening.ways,
            time_scale: opening.time_scale,
            chance: opening.chance,
            streams: BTreeMap::new(),
            numbers: 0,
            created: VecDeque::new(),
        }
    }

    /// A stream that somebody made by hand; it does not count towards the limit. Returns its id.
    pub(super) fn made_by_hand(&mut self, now: Moment, name: &str) -> String {
        self.add(now, Settings::by_hand(name))
    }

    fn scaled(&self, time: Duration) -> Duration {
        time.mul_f64(self.time_scale)
    }

    fn add(&mut self, now: Moment, settings: Settings) -> String {
        if self.streams.len() >= REMEMBERED
            && let Some(oldest) = self
                .streams
                .iter()
                .filter(|(_, stream)| stream.deleted)
                .min_by_key(|(_, stream)| stream.number)
                .map(|(id, _)| id.clone())
        {
            self.streams.remove(&oldest);
        }
        let id = word(&mut self.chance, 8);
        self.numbers += 1;
        let at = humantime::format_rfc3339_millis(now.wall).to_string();
        let stream = Stream {
            number: self.numbers,
            settings,
            application: format!("app-{}", word(&mut self.chance, 8)),
            name: word(&mut self.chance, 8),
            life: Life::new(Times::scaled(self.time_scale)),
            deleted: false,
            created_at: at.clone(),
            updated_at: at,
            input: None,
            analytics: None,
        };
        self.streams.insert(id.clone(), stream);
        id
    }

    /// Whether whoever asks may; `Err` is the refusal.
    fn admit(&self, request: &Request) -> Result<(), Reply> {
        let refused =
            |code: &str, title: &str, message: &str| Err(error(401, code, title, message));
        let Some(token) = &request.bearer else {
            return refused(
                "NoApiKey",
                "No API Key Error",
                "An access token is missing.",
            );
        };
        if request.expired {
            return refused(
                "ExpiredToken",
                "Expired Token Error",
                "The access token has expired.",
            );
        }
        let is_stranger = self.stranger.as_ref().is_some_and(|s| s.expose() == token);
        if token == self.token.expose() || is_stranger {
            return Ok(());
        }
        Err(refusal(401))
    }

    fn is_stranger(&self, request: &Request) -> bool {
        let token = request.bearer.as_deref();
        self.stranger.as_ref().map(super::Secret::expose) == token
    }

    fn create(&mut self, now: Moment, request: &Request) -> Reply {
        if self.is_stranger(request) {
            return refusal(403);
        }
        let settings = match Settings::created(&request.body) {
            Ok(settings) => settings,
            Err(refused) => return refused,
        };
        let within = self.scaled(CREATIONS_WITHIN);
        while let Some(first) = self.created.front()
            && now.at.saturating_duration_since(*first) >= within
        {
            self.created.pop_front();
        }
        let full = self.streams.values().filter(|s| !s.deleted).count() >= REMEMBERED;
        if self.created.len() >= CREATIONS || full {
            return refusal(409);
        }
        self.created.push_back(now.at);
        let id = self.add(now, settings);
        match self.streams.get(&id) {
            Some(stream) => Reply::json(201, shown(&self.sdp_url, &id, stream)),
            None => refusal(500),
        }
    }

    fn list(&self, request: &Request) -> Reply {
        let mut streams: Vec<(&String, &Stream)> = self
            .streams
            .iter()
            .filter(|(_, stream)| !stream.deleted && !self.is_stranger(request))
            .collect();
        streams.sort_by_key(|(_, stream)| stream.number);
        let briefs = streams.iter().map(|(id, stream)| brief(id, stream));
        Reply::json(200, listed(&request.parameters(), briefs))
    }

    /// A request about one stream.
    fn about(&mut self, now: Moment, id: &str, call: RestCall, request: &Request) -> Reply {
        let stranger = self.is_stranger(request);
        let (least, most) = self.ways.starting;
        let takes = least + most.saturating_sub(least).mul_f64(self.chance.f64());
        let takes = (!request.stuck).then(|| self.scaled(takes));
        let analytics_age = self.scaled(ANALYTICS_AGE);
        let stopping = if self.ways.stop_says_stopping {
            "stopping"
        } else {
            "stopped"
        };
        let Some(stream) = self.streams.get_mut(id) else {
            return refusal(404);
        };
        if stranger {
            return refusal(403);
        }
        if stream.deleted {
            return refusal(410);
        }
        let done = |done: Result<(), NotNow>, what: &str, state: &str| match done {
            Ok(()) => Reply::json(200, json!({ "live_stream": { "state": state } })),
            Err(state) => not_now(what, state),
        };
        match call {
            RestCall::Start => done(stream.life.start(now.at, takes), "Starting", "starting"),
            RestCall::Stop => done(stream.life.stop(now.at), "Stopping", stopping),
            RestCall::Reset => done(stream.life.reset(now.at), "Resetting", "resetting"),
            RestCall::State => {
                let state = stream.life.told_state(now.at);
                let address = if state == "started" {
                    "127.0.0.1"
                } else {
                    "0.0.0.0"
                };
                Reply::json(
                    200,
                    json!({ "live_stream": { "ip_address": address, "state": state } }),
                )
            }
            RestCall::Analytics if !is_range(&request.parameters()) => refusal(422),
            RestCall::Analytics => {
                let fresh = match &stream.analytics {
                    Some((at, _)) => now.at.saturating_duration_since(*at) >= analytics_age,
                    None => true,
                };
                if fresh {
                    stream.analytics = Some((now.at, analytics(id, stream)));
                }
                let told = stream.analytics.as_ref().map(|(_, told)| told.clone());
                Reply::json(200, told.unwrap_or_default())
            }
            RestCall::Delete if !stream.life.is_stopped() => {
                not_now("Deleting", stream.life.state())
            }
            RestCall::Delete => {
                stream.deleted = true;
                Reply::nothing(204)
            }
            RestCall::Update => match stream.settings.changed(&request.body) {
                Ok(settings) => {
                    stream.settings = settings;
                    stream.updated_at = humantime::format_rfc3339_millis(now.wall).to_string();
                    self.get(id)
                }
                Err(refused) => refused,
            },
            RestCall::Other => {
                let address = |started| if started { "127.0.0.1" } else { "0.0.0.0" };
                let told = match request.elements().last() {
                    Some(&"thumbnail_url") => json!({ "live_stream": {
                        "thumbnail_url": format!("https://cloud.wowza.com/proxy/thumbnail2/?target={id}"),
                    }}),
                    Some(&"regenerate_connection_code") => json!({ "live_stream": {
                        "connection_code": &stream.name[..6.min(stream.name.len())],
                    }}),
                    _ => json!({ "transcoder": {
                        "ip_address": address(stream.life.is_started()),
                        "state": stream.life.state(),
                        "uptime_id": format!("{id}-{}", stream.life.starts),
                    }}),
                };
                Reply::json(200, told)
            }
            RestCall::Get | RestCall::Create | RestCall::List | RestCall::Token => self.get(id),
        }
    }

    fn get(&self, id: &str) -> Reply {
        match self.streams.get(id) {
            Some(stream) => Reply::json(200, shown(&self.sdp_url, id, stream)),
            None => refusal(404),
        }
    }
}

impl Account for Wowza {
    fn call(&self, request: &Request) -> Option<RestCall> {
        let elements = request.elements();
        Some(match (&*request.method, &elements[..]) {
            ("POST", ["live_streams"]) => RestCall::Create,
            ("GET", ["live_streams"]) => RestCall::List,
            ("GET", ["live_streams", _]) => RestCall::Get,
            ("PATCH", ["live_streams", _]) => RestCall::Update,
            ("DELETE", ["live_streams", _]) => RestCall::Delete,
            ("PUT", ["live_streams", _, "start"]) => RestCall::Start,
            ("PUT", ["live_streams", _, "stop"]) => RestCall::Stop,
            ("PUT", ["live_streams", _, "reset"]) => RestCall::Reset,
            ("GET", ["live_streams", _, "state"]) => RestCall::State,
            ("GET", ["analytics", "ingest", "live_streams", _]) => RestCall::Analytics,
            ("PUT", ["live_streams", _, "regenerate_connection_code"])
            | ("GET", ["live_streams", _, "thumbnail_url"] | ["transcoders", _, "state"]) => {
                RestCall::Other
            }
            _ => return None,
        })
    }

    fn answer(&mut self, now: Moment, request: &Request) -> Reply {
        if let Err(refused) = self.admit(request) {
            return refused;
        }
        let Some(call) = self.call(request) else {
            return refusal(404);
        };
        match call {
            RestCall::Create => self.create(now, request),
            RestCall::List => self.list(request),
            RestCall::Analytics
            | RestCall::Delete
            | RestCall::Get
            | RestCall::Other
            | RestCall::Reset
            | RestCall::Start
            | RestCall::State
            | RestCall::Stop
            | RestCall::Token
            | RestCall::Update => {
                let at = usize::from(call == RestCall::Analytics) * 2 + 1;
                let id = request.elements().get(at).copied().unwrap_or("").to_owned();
                self.about(now, &id, call, request)
            }
        }
    }

    fn refusal(&self, status: u16) -> Reply {
        refusal(status)
    }

    fn advance(&mut self, now: Moment) {
        for stream in self.streams.values_mut() {
            stream.life.advance(now.at);
        }
    }

    fn deadline(&self) -> Option<Instant> {
        let deadlines = self.streams.values().filter_map(|s| s.life.deadline());
        deadlines.min()
    }

    fn inputs(&mut self, now: Moment, inputs: &BTreeMap<String, Input>) {
        for stream in self.streams.values_mut() {
            stream.input = inputs.get(&stream.full_name()).copied();
            stream.life.input(now.at, stream.input.is_some());
        }
    }

    fn stop_all(&mut self, now: Moment) {
        for stream in self.streams.values_mut() {
            // Those that do not run need no stopping.
            stream.life.stop(now.at).ok();
        }
    }

    fn doors(&self) -> BTreeMap<String, bool> {
        let streams = self.streams.values();
        streams
            .filter(|stream| !stream.deleted && stream.is_webrtc())
            .map(|stream| (stream.full_name(), stream.life.is_started()))
            .collect()
    }

    fn bills(&self, now: Instant) -> Vec<Bill> {
        let mut streams: Vec<_> = self.streams.iter().collect();
        streams.sort_by_key(|(_, stream)| stream.number);
        let bill = |(id, stream): (&String, &Stream)| Bill {
            vendor: Vendor::Wowza,
            id: id.clone(),
            name: stream.settings.text("name").to_owned(),
            state: if stream.deleted {
                "deleted".to_owned()
            } else {
                stream.life.state().to_owned()
            },
            billed_s: stream.life.meter.read(now).as_secs_f64() / self.time_scale,
            running: stream.life.meter.is_running(),
            starts: stream.life.starts,
        };
        streams.into_iter().map(bill).collect()
    }

    fn renew(&mut self, credential: String) {
        self.token = super::Secret::new(credential);
    }

    fn calls(&mut self) -> Vec<Call> {
        Vec::new()
    }
}

/// Whether the times of a query, if it names any, can be read. What arrived in the past is not kept: whoever asks for that is
/// told what arrives now.
fn is_range(parameters: &[(String, String)]) -> bool {
    let times = parameters
        .iter()
        .filter(|(name, _)| matches!(&**name, "from" | "to"));
    times
        .map(|(_, value)| humantime::parse_rfc3339_weak(value))
        .all(|time| time.is_ok())
}

#[cfg(test)]
mod tests;
