//! WHIP, server side: HTTP requests for endpoints and for sessions, in the ways of three servers.
//!
//! `whip` keeps to RFC 9725 and minds what publishers owe by it; `whip-ome` and `whip-wowza` have the habits of
//! OvenMediaEngine and of Wowza Streaming Engine. A port beside each takes publishers that are redirected to another
//! origin, and minds that no bearer comes along.

mod place;
mod reply;
mod sdpfrag;
mod session;

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::MutexGuard;
use std::sync::PoisonError;
use std::time::Duration;

use axum::body::Body;
use http_body_util::BodyExt;
use http_body_util::Limited;
use hyper::HeaderMap;
use hyper::Request as HttpRequest;
use hyper::Response;
use hyper::body::Incoming;
use hyper::header;
use tokio::sync::mpsc;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use self::place::Make;
use self::place::Place;
use self::reply::Reply;
use self::reply::link;
use self::reply::refusal_text;
use self::session::Asked;
use self::session::Session;
use self::session::What;
use super::answer;
use super::door;
use super::faults::Mutation;
use super::faults::Step;
use super::hub::Ask;
use super::hub::Record;
use super::hub::Side;
use super::judge::Rules;
use super::now;
use super::offer;
use super::sdp::Description;
use super::station::Request;
use super::station::Station;
use super::station::word;
use super::turn::embedded;

/// Longest body that is read.
const BODY: usize = 256 * 1024;
/// How long a publisher may take to send it.
const PATIENCE: Duration = Duration::from_secs(10);
/// Alphabet of credentials, keys and entity tags.
const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// Headers that are shown with a request.
const SHOWN: [&str; 5] = [
    "content-type",
    "if-match",
    "oven-capabilities",
    "origin",
    "user-agent",
];

/// Sessions by the key in their URL.
#[derive(Debug, Default)]
pub(super) struct Sessions(Mutex<HashMap<String, Handle>>);

/// Where a session's requests go.
#[derive(Clone, Debug)]
struct Handle {
    /// It lives at the other origin.
    elsewhere: bool,
    requests: mpsc::Sender<Asked>,
}

impl Sessions {
    fn forget(&self, key: &str) {
        self.lock().remove(key);
    }

    fn find(&self, key: &str) -> Option<Handle> {
        self.lock().get(key).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Handle>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request.
pub(super) struct Visit {
    pub(super) station: Arc<Station>,
    /// It came to the port for those who were redirected.
    pub(super) elsewhere: bool,
    pub(super) tracked: TaskTracker,
    pub(super) stop: CancellationToken,
    pub(super) remote: SocketAddr,
    pub(super) asked: Request,
}

impl Visit {
    /// Answers it.
    pub(super) async fn answer(self, request: HttpRequest<Incoming>) -> Response<Body> {
        let make = self.make();
        let (parts, body) = request.into_parts();
        let limited = Limited::new(body, BODY).collect();
        let reply = match tokio::time::timeout(PATIENCE, limited).await {
            Ok(Ok(body)) => {
                let body = String::from_utf8_lossy(&body.to_bytes()).into_owned();
                // In a task of its own: who hangs up meanwhile leaves no half-made session behind.
                let tracked = self.tracked.clone();
                let replied = tracked.spawn(async move {
                    self.reply(parts.method.as_str(), &parts.headers, body)
                        .await
                });
                replied.await.unwrap_or_else(|_| Reply::new(500))
            }
            Ok(Err(_)) => Reply::refused(413, "the body is too long"),
            Err(_) => Reply::refused(408, "the body did not come"),
        };
        reply.into_response(make)
    }

    fn make(&self) -> Make {
        Make::of(self.station.profile)
    }

    async fn reply(&self, method: &str, headers: &HeaderMap, body: String) -> Reply {
        let make = self.make();
        if method == "OPTIONS" {
            return self.options();
        }
        if make == Make::Ome && self.asked.parameter("direction") != Some("whip") {
            return Reply::new(404);
        }
        match (method, Place::of(make, &self.asked.path)) {
            (_, Place::Nothing) => Reply::refused(404, "there is nothing here"),
            (_, Place::NoStream) => Reply::refused(400, "Invalid URI"),
            // Both are reserved; RFC 9725 wants them to succeed without content.
            ("GET" | "HEAD", _) => Reply::new(204),
            (
                "POST",
                Place::Endpoint {
                    application,
                    stream,
                },
            ) => self.post(headers, &body, &application, &stream).await,
            ("DELETE", Place::Session { key }) => {
                self.ask(&key, What::Delete, headers, method, "").await
            }
            ("PATCH", Place::Session { key }) => {
                let if_match = headers.get(header::IF_MATCH).and_then(|v| v.to_str().ok());
                let what = What::Patch {
                    content_type: media_type(headers),
                    if_match: if_match.map(str::to_owned),
                    body: body.clone(),
                };
                self.ask(&key, what, headers, method, &body).await
            }
            _ => Reply::refused(405, "this method is not for this URL"),
        }
    }

    fn options(&self) -> Reply {
        if self.make() == Make::Ome {
            let allowed = "GET, POST, PATCH, DELETE, OPTIONS";
            return Reply::new(200)
                .with("access-control-allow-methods", allowed)
                .with("access-control-allow-headers", "*, Authorization");
        }
        let reply = Reply::new(204)
            .with("accept-post", "application/sdp")
            .with(
                "access-control-allow-methods",
                "POST, PATCH, DELETE, OPTIONS",
            )
            .with(
                "access-control-allow-headers",
                "Authorization, Content-Type, If-Match, Oven-Capabilities",
            );
        self.linked(reply)
    }

    /// With the ICE servers, as far as this server tells of them here.
    fn linked(&self, mut reply: Reply) -> Reply {
        let told = &self.station.ice_servers;
        match self.make() {
            Make::Ome if !self.relayed() => return reply,
            Make::Ome if told.is_empty() => {
                return match self.station.embedded_turn() {
                    Some(server) => reply.with("link", &link(&server)),
                    None => reply,
                };
            }
            // It never tells of any.
            Make::Wowza => return reply,
            Make::Ome | Make::Rfc => {}
        }
        for server in told {
            reply = reply.with("link", &link(server));
        }
        reply
    }

    /// Whether the publisher may; the refusal if not.
    fn admitted(&self, headers: &HeaderMap) -> Result<(), Reply> {
        let Some(wanted) = &self.station.bearer else {
            return Ok(());
        };
        if self.elsewhere || self.make() == Make::Ome {
            return Ok(());
        }
        let challenge = "Bearer realm=\"lab\"";
        match bearer(headers) {
            Some(given) if given == wanted => Ok(()),
            Some(_) => Err(Reply::refused(403, "Forbidden")),
            None => Err(Reply::refused(401, "Unauthorized").with("www-authenticate", challenge)),
        }
    }

    /// As the session's record shows a request; a bearer is named and not shown.
    fn shown(&self, method: &str, headers: &HeaderMap, body: &str) -> String {
        let Request { path, query, .. } = &self.asked;
        let mut text = format!("{method} {path}?{query}");
        for name in SHOWN {
            if let Some(value) = headers.get(name).and_then(|value| value.to_str().ok()) {
                text = format!("{text}\n{name}: {value}");
            }
        }
        if headers.contains_key(header::AUTHORIZATION) {
            text = format!("{text}\nauthorization: ...");
        }
        format!("{text}\n\n{body}")
    }

    /// Puts a request to a session.
    async fn ask(
        &self,
        key: &str,
        what: What,
        headers: &HeaderMap,
        method: &str,
        body: &str,
    ) -> Reply {
        if let Err(refusal) = self.admitted(headers) {
            return refusal;
        }
        let unknown = || Reply::refused(404, "there is no such session");
        let found = self.station.whip.find(key);
        let Some(handle) = found.filter(|handle| handle.elsewhere == self.elsewhere) else {
            return unknown();
        };
        let (reply, replied) = oneshot::channel();
        let asked = Asked {
            what,
            text: self.shown(method, headers, body),
            leaked: self.elsewhere && headers.contains_key(header::AUTHORIZATION),
            reply,
        };
        if handle.requests.send(asked).await.is_err() {
            return unknown();
        }
        replied.await.unwrap_or_else(|_| unknown())
    }

    async fn post(
        &self,
        headers: &HeaderMap,
        body: &str,
        application: &str,
        stream: &str,
    ) -> Reply {
        let user_agent = self.asked.user_agent.clone();
        let (record, asks) = self.station.hub.open(
            self.station.profile,
            self.remote.to_string(),
            user_agent,
            now(),
        );
        record.message(
            now(),
            Some(Side::Publisher),
            &self.shown("POST", headers, body),
        );
        let name = format!("{application}/{stream}");
        let reply = match self
            .offered(headers, body, application, &name, &record, asks)
            .await
        {
            Ok(reply) => {
                record.message(now(), Some(Side::Lab), &reply.shown());
                return reply;
            }
            Err(reply) => reply,
        };
        record.message(now(), Some(Side::Lab), &reply.shown());
        record.end(now(), &format!("refused with {}", reply.status));
        reply
    }

    /// The reply to an offer that is taken, or the refusal.
    async fn offered(
        &self,
        headers: &HeaderMap,
        body: &str,
        application: &str,
        name: &str,
        record: &Record,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<Reply, Reply> {
        let (station, profile) = (&self.station, self.station.profile);
        let violation = |rule: &'static str, detail: String| {
            record.tally(|tally| tally.violation(rule, detail));
        };
        if !self.elsewhere
            && let Some((status, elsewhere)) = station.faults.redirect(profile)
        {
            return Err(Reply::new(status).with("location", &self.away(elsewhere)));
        }
        record.named(name);
        if self.elsewhere && headers.contains_key(header::AUTHORIZATION) {
            violation("bearer", "it was sent to another origin".to_owned());
        }
        if station.faults.silent(profile, Step::Description) {
            record.message(now(), None, "a fault: silence instead of an answer");
            record.end(now(), "a fault: silence");
            self.stop.cancelled().await;
        }
        if let Some((status, seconds)) = station.faults.retry_later(profile) {
            let later = Reply::refused(status, "later");
            return Err(later.with("retry-after", &seconds.to_string()));
        }
        if let Some(status) = station.faults.refusal(profile) {
            return Err(Reply::refused(status, refusal_text(self.make(), status)));
        }
        self.admitted(headers)?;
        let kind = media_type(headers);
        if kind != "application/sdp" {
            violation("content-type", format!("POST with {kind:?}"));
            // OvenMediaEngine writes a warning into its log and goes on.
            if self.make() != Make::Ome {
                return Err(Reply::refused(415, "application/sdp is wanted"));
            }
        }
        if application != profile.application() {
            return Err(Reply::refused(404, "Could not find application"));
        }
        if station.is_taken(name) {
            let status = if self.make() == Make::Wowza { 503 } else { 409 };
            return Err(Reply::refused(status, refusal_text(self.make(), status)));
        }
        let unreadable = if self.make() == Make::Rfc { 400 } else { 500 };
        let offer = Description::parse(body).map_err(|why| {
            violation("sdp", why);
            Reply::refused(unreadable, refusal_text(self.make(), unreadable))
        })?;
        let rules = Rules::of(&self.asked.user_agent);
        for (rule, detail) in offer::faults(&offer, rules == Rules::Agent, true) {
            violation(rule, detail);
        }
        if offer.media.iter().any(|m| m.kind == "application") {
            let status = if self.make() == Make::Rfc { 422 } else { 500 };
            return Err(Reply::refused(status, "no data channels"));
        }
        self.begin(&offer, name, rules, record, asks).await
    }

    /// Where a redirected publisher is sent.
    fn away(&self, elsewhere: bool) -> String {
        let Request { path, query, .. } = &self.asked;
        let query = if query.is_empty() {
            "redirected=1".to_owned()
        } else {
            format!("{query}&redirected=1")
        };
        match self.station.elsewhere.filter(|_| elsewhere) {
            Some(address) => {
                let scheme = if self.station.tls.is_some() {
                    "https"
                } else {
                    "http"
                };
                format!("{scheme}://{address}{path}?{query}")
            }
            None => format!("{path}?{query}"),
        }
    }

    async fn begin(
        &self,
        offer: &Description,
        name: &str,
        rules: Rules,
        record: &Record,
        asks: mpsc::Receiver<Ask>,
    ) -> Result<Reply, Reply> {
        let (station, profile) = (&self.station, self.station.profile);
        let ome = profile.is_ome();
        let types = offer::payload_types(offer, ome);
        let credentials = (word(if ome { 6 } else { 8 }, LETTERS), word(32, LETTERS));
        let failed = |error: std::io::Error| Reply::refused(500, &error.to_string());
        let place = station.embedded.as_ref().filter(|_| self.relayed());
        let place = place.map(|embedded| embedded.place(&credentials.0));
        let mut prepared = station
            .prepare(self.transports(), types, credentials)
            .await
            .map_err(failed)?;
        let (mut udp, tcp) = prepared.ingest.addresses();
        if let Some(place) = place {
            prepared.ingest.relayed(place).map_err(failed)?;
            udp = udp.or(Some(embedded::DUMMY));
        }
        let running = station.run(prepared.ingest, offer, name, rules, record);
        let running = running.map_err(|why| {
            record.tally(|tally| tally.violation("sdp", why.clone()));
            Reply::refused(400, &why)
        })?;
        let candidates = if ome {
            let foundation = || fastrand::u64(1_000_000_000_000_000_000..);
            answer::ome_candidates(udp, tcp, (foundation(), foundation()))
        } else {
            answer::candidates(udp, tcp)
        };
        let facts = answer::Facts {
            engine: &prepared.described,
            session: fastrand::u32(100_000_000..),
            candidates: &candidates,
            lite: station.ice_lite,
            refused: station.faults.refused_video(profile),
        };
        let sdp = match self.make() {
            Make::Ome => answer::ome(offer, facts),
            Make::Wowza => answer::plain(offer, "WowzaStreamingEngine-next", facts),
            Make::Rfc => answer::complete(&answer::plain(offer, "lab", facts)),
        };
        let key = word(if ome { 8 } else { 16 }, LETTERS);
        let tag = word(8, LETTERS);
        let etag = if ome { tag } else { format!("\"{tag}\"") };
        let path = &self.asked.path;
        let location = match self.make() {
            Make::Ome => format!("{path}/{key}?direction=whip"),
            Make::Wowza => format!("{path}/{key}"),
            // Relative to the URL that was posted to.
            Make::Rfc => format!("session/{key}"),
        };
        let first = sdp.lines().find_map(|line| line.strip_prefix("m="));
        let mid = offer.media.first().and_then(|media| media.value("mid"));
        let of_offer = |name| offer.value(name).unwrap_or_default().to_owned();
        let session = Session {
            station: Arc::clone(station),
            record: record.clone(),
            rules,
            name: name.to_owned(),
            key: key.clone(),
            etag: etag.clone(),
            running: Some(running),
            remote: (of_offer("ice-ufrag"), of_offer("ice-pwd")),
            candidates,
            section: (
                first.unwrap_or_default().to_owned(),
                mid.unwrap_or_default().to_owned(),
            ),
            lite: station.ice_lite,
        };
        for candidate in offer
            .media
            .iter()
            .flat_map(|m| m.values("candidate"))
            .take(32)
        {
            // OvenMediaEngine passes them over.
            if !ome {
                session.told(format!("candidate:{candidate}")).await;
            }
        }
        let (requests, inbox) = mpsc::channel(session::REQUESTS);
        let handle = Handle {
            elsewhere: self.elsewhere,
            requests,
        };
        station.whip.lock().insert(key, handle);
        let serve = session.serve(inbox, asks, self.stop.clone());
        self.tracked.spawn(serve);
        let status = match station.faults.mutation(profile) {
            Some(Mutation::Code404) => 404,
            Some(_) | None => 201,
        };
        let reply = Reply::new(status)
            .with("content-type", "application/sdp")
            .with("location", &location);
        let reply = match self.make() {
            Make::Wowza => reply,
            Make::Ome | Make::Rfc => reply.with("etag", &etag),
        };
        Ok(self.linked(reply).body(sdp))
    }

    /// UDP and TCP, as `transport=` of OvenMediaEngine's URL asks.
    fn transports(&self) -> (bool, bool) {
        let asked = self.asked.parameter("transport").unwrap_or_default();
        match (self.make(), asked.to_ascii_lowercase().as_str()) {
            (Make::Ome, "udp") => (true, false),
            (Make::Ome, "tcp") => (false, true),
            (Make::Ome, "relay") => (false, false),
            _ => (true, true),
        }
    }

    /// Whether OvenMediaEngine's own TURN server is asked for, alone or beside others.
    fn relayed(&self) -> bool {
        let asked = self.asked.parameter("transport").unwrap_or_default();
        let words = ["all", "relay"];
        self.station.profile.is_ome() && words.iter().any(|word| asked.eq_ignore_ascii_case(word))
    }
}

/// The media type of a body, without parameters.
fn media_type(headers: &HeaderMap) -> String {
    let value = door::text(headers, header::CONTENT_TYPE);
    let kind = value.split(';').next().unwrap_or_default();
    kind.trim().to_ascii_lowercase()
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then_some(token)
}
