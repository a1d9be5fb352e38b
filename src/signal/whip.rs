//! WHIP (RFC 9725) and its variants at OvenMediaEngine and Wowza: we offer over HTTP, the server answers.
//!
//! ```text
//! we                                       server
//!   POST offer        ------------------->
//!                     <-------------------  201, answer, Location of the session, ICE servers as Links
//!   PATCH candidates  ------------------->  204; or a status that says it takes none
//!   PATCH credentials ------------------->  200 with its own: ICE has begun anew
//!   DELETE            ------------------->  200
//! ```
//!
//! Nothing holds the session but media: the server ends it by DTLS or by silence, which the peer sees, so
//! [`next`](Signaller::next) never returns.
//!
//! The variants differ little. What our offer could not hold is told as an SDP fragment; a server that takes none says so
//! once and is not asked again. Wowza's page sends bare candidate lines and bare credentials, which the configuration can
//! ask for. OvenMediaEngine accepts every `PATCH` and does nothing: a restart that is not answered with credentials did
//! not happen, and is not tried again. Whether a URL needs `direction=whip` is the operator's to say, for nothing in
//! a URL tells OvenMediaEngine from another server.
//!
//! **Secrets.** The token goes to the origin of the configured URL only, wherever redirects and `Location` lead. URLs,
//! tokens and what of them a server quotes never reach an error or log.

mod client;
pub(crate) mod link;
pub(crate) mod redirect;
pub(crate) mod reply;
pub(crate) mod sdpfrag;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep, timeout, timeout_at};

use self::client::{Asked, Client, Dial, Question, dial_with};
use self::reply::Said;
use self::sdpfrag::{Ours, Theirs};
use super::ice_servers::reachable;
use super::server::Server;
use super::{
    Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller, Step, candidate, sdp,
};
use crate::config::ice_server::IceServer;
use crate::config::secret::Secret;
use crate::config::{Size, Trickle};
use crate::media::payload_types::PayloadTypes;
use crate::net::http::Method;
use crate::net::{self, Dialer, Target};

/// Longest time for telling candidates, whatever their number.
const TRICKLE_DEADLINE: Duration = Duration::from_secs(5);
/// Longest time for an ICE restart, busy replies included (protocols.md 1.6).
const RESTART_DEADLINE: Duration = Duration::from_secs(8);
/// Wait after the reply that the server is busy restarting.
const BUSY_PERIOD: Duration = Duration::from_secs(2);
/// Longest time for parting.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);
/// Content type of what is told by `PATCH` (RFC 8840).
const FRAGMENT: &str = "application/trickle-ice-sdpfrag";
/// How a restart says that it is meant for the session whatever its tag: as RFC 9110 writes it, as RFC 9725 does, and
/// not at all, each for servers that refuse the one before.
const IF_MATCH_ANY: [Option<&str>; 3] = [Some("*"), Some("\"*\""), None];
/// Words in paths of WHIP URLs that are no secrets.
const HARMLESS: [&str; 3] = ["rtc", "session", "whip"];

/// A token, and how to read it again when it is refused: whoever renews it does so elsewhere.
pub struct Token {
    /// The token as it was read last.
    pub value: Secret,
    /// Reads it anew; `None` where it cannot change.
    pub reread: Option<Reread>,
}

/// Reads a token anew; `None` if that fails.
pub type Reread = Box<dyn Fn() -> Option<Secret> + Send>;

/// The picture that is about to be sent; OvenMediaEngine plans its playlists by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Picture {
    /// Its size.
    pub size: Size,
    /// Pictures per second.
    pub fps: u32,
}

/// What a server says of what can be done at a URL.
#[derive(Debug)]
pub struct Options {
    /// Who replied, after redirects: scheme, host and port.
    pub endpoint: String,
    /// The status.
    pub status: u16,
    /// What the status means.
    pub reason: String,
    /// The server says that it takes SDP there.
    pub takes_sdp: bool,
    /// The ICE servers handed over.
    pub ice_servers: Vec<IceServer>,
}

/// The signaller for WHIP.
pub struct Whip {
    server: Server,
    /// Or what is wrong with the URL.
    client: Result<Client, String>,
    trickle: Trickle,
    picture: Option<Picture>,
    /// The request that a session began with, while its reply is awaited. It outlives a session that is stopped
    /// meanwhile, for the server may have let us on.
    posted: Option<BoxFuture<'static, Result<Asked, Error>>>,
    session: Option<Session>,
    /// What is secret in the URLs that the server named last.
    named: Vec<String>,
    /// A session that we parted from and that is not known to be deleted: it holds the name until it is.
    orphan: Option<Target>,
    /// Whether the server takes candidates; `None` until it was told some.
    hears: Option<bool>,
    /// The server restarts no ICE.
    rigid: bool,
}

/// What the server let us on with.
struct Session {
    /// Where it is changed and ended.
    url: Option<Target>,
    etag: Option<String>,
    ours: Ours,
    /// The server's answer, made regular; empty as long as it is unusable.
    answer: String,
    candidates: Vec<String>,
    /// Some of our candidates were told, and not yet that there are no more.
    trickling: bool,
    /// The server cannot restart this session.
    stuck: bool,
}

impl Whip {
    /// A signaller for `url`. An unusable URL is reported by [`open`](Signaller::open).
    pub fn new(
        url: &Secret,
        token: Option<Token>,
        trickle: Trickle,
        picture: Option<Picture>,
        dialer: Dialer,
    ) -> Self {
        let dial = dial_with(dialer.clone());
        Self::with_dial(url, token, trickle, picture, dialer, dial)
    }

    fn with_dial(
        url: &Secret,
        token: Option<Token>,
        trickle: Trickle,
        picture: Option<Picture>,
        dialer: Dialer,
        dial: Dial,
    ) -> Self {
        let target = Target::parse_http(url.expose(), &[]);
        // Behind the application stands the stream's name.
        let names: Vec<String> = target.iter().flat_map(|t| words_of(t).skip(1)).collect();
        let client = match &target {
            Ok(home) => Ok(Client {
                dial,
                home: home.clone(),
                token: token.map(|token| Arc::new(Mutex::new(token))),
            }),
            Err(error) => Err(error.to_string()),
        };
        let mut whip = Self {
            server: Server::new(target, dialer, names),
            client,
            trickle,
            picture,
            posted: None,
            session: None,
            named: Vec::new(),
            orphan: None,
            hears: None,
            rigid: false,
        };
        whip.hide();
        whip
    }

    /// Asks the server what can be done at the URL, which touches no session. Redirects and the token are treated as in
    /// publishing.
    pub async fn options(&self) -> Result<Options, Error> {
        let client = self.client()?.clone();
        let question = Question {
            method: Method::Options,
            target: client.home.clone(),
            headers: Vec::new(),
            body: String::new(),
        };
        let asked = client.ask(question).await?;
        Ok(Options {
            status: asked.reply.status,
            reason: asked.explained(asked.reply.reason().to_owned()),
            takes_sdp: (asked.reply.headers("accept-post"))
                .any(|types| types.to_ascii_lowercase().contains("application/sdp")),
            ice_servers: reachable(
                link::ice_servers(asked.reply.headers("link")),
                asked.at.host(),
            ),
            endpoint: asked.at.to_string(),
        })
    }

    fn client(&self) -> Result<&Client, Error> {
        let unusable = |why: &String| Error::Connect(net::Error::Url { why: why.clone() });
        self.client.as_ref().map_err(unusable)
    }

    /// Keeps what is secret in `urls`, beside the token, out of what the server's words are repeated as.
    fn hide_urls(&mut self, urls: &[&Target]) {
        let secrets = |url: &&Target| {
            words_of(url)
                .chain(super::server::query_values(url))
                .collect::<Vec<_>>()
        };
        self.named = urls.iter().flat_map(secrets).collect();
        self.hide();
    }

    /// The same for the token as it is now.
    fn hide(&mut self) {
        let token = self.client.as_ref().ok().and_then(Client::token);
        let token = token.map(|token| token.expose().to_owned());
        let secrets = token.into_iter().chain(self.named.iter().cloned());
        self.server.hide(secrets.collect());
    }

    /// Hands over the offer. Cancel-safe as far as the server's session is concerned: [`close`](Signaller::close) ends it.
    async fn post(&mut self, offer: &str) -> Result<Asked, Error> {
        let client = self.client()?.clone();
        let mut headers = vec![("content-type", "application/sdp".to_owned())];
        if let Some(Picture { size, fps }) = self.picture {
            let Size { width, height } = size;
            let value = format!("max_width={width}, max_height={height}, max_fps={fps}");
            headers.push(("oven-capabilities", value));
        }
        let question = Question {
            method: Method::Post,
            target: client.home.clone(),
            headers,
            body: offer.to_owned(),
        };
        let asked = self.posted.insert(Box::pin(client.ask(question))).await;
        self.posted = None;
        asked
    }

    /// Ends the orphaned session, if there is one. It stays an orphan until the server has said that it is gone, which
    /// makes this cancel-safe.
    async fn delete(&mut self, deadline: Instant) {
        let (Ok(client), Some(target)) = (self.client.clone(), self.orphan.clone()) else {
            return;
        };
        let question = Question {
            method: Method::Delete,
            target,
            headers: Vec::new(),
            body: String::new(),
        };
        let asked = match timeout_at(deadline, client.ask(question)).await {
            Ok(Ok(asked)) => asked,
            Ok(Err(error)) => {
                tracing::debug!(%error, "the session could not be deleted");
                return;
            }
            Err(_) => {
                tracing::debug!("deleting the session took too long");
                return;
            }
        };
        let status = asked.reply.status;
        if matches!(status, 200..=299 | 404 | 410) {
            tracing::debug!(status, "session deleted");
            self.orphan = None;
        } else {
            self.hide();
            let words = asked.explained(self.server.printable(&reply::words(&asked.reply)));
            tracing::warn!(
                status,
                words,
                "the server did not delete the session, which may hold the name"
            );
        }
    }

    /// Takes the reply to `offer`.
    fn take(&mut self, asked: Asked, offer: &str) -> Result<RemoteDescription, Error> {
        let (url, etag, ice_servers) = match reply::read(&asked.reply, &asked.at) {
            Said::Answer {
                session,
                etag,
                ice_servers,
            } => (session, etag, ice_servers),
            Said::Refused { text, retry_after } => {
                self.hide_urls(&[&asked.at]);
                let text = asked.explained(self.server.printable(&text));
                return Err(Error::Refused {
                    endpoint: asked.at.to_string(),
                    status: asked.reply.status,
                    text,
                    step: Step::Answered,
                    retry_after,
                });
            }
        };
        let Asked { reply, at, .. } = asked;
        let urls: Vec<&Target> = url.iter().chain([&at]).collect();
        self.hide_urls(&urls);
        let session = self.session.insert(Session {
            url,
            etag,
            ours: Ours::of(offer),
            answer: String::new(),
            candidates: Vec::new(),
            trickling: false,
            stuck: false,
        });
        let unfit = |why: String| self.server.unfit(&why);
        session.answer = sdp::regular_answer(offer, &reply.body).map_err(unfit)?;
        session.candidates = candidate::usable(sdp::candidate_lines(&reply.body));
        Ok(RemoteDescription {
            sdp: session.answer.clone(),
            candidates: session.candidates.clone(),
            payload_types: PayloadTypes::OFFERED,
            ice_servers: reachable(ice_servers, at.host()),
        })
    }
}

impl Session {
    /// Asks for a change of the session.
    async fn patch(
        &self,
        client: Client,
        if_match: Option<String>,
        body: String,
    ) -> Result<Asked, Error> {
        let Some(target) = self.url.clone() else {
            return Err(Error::NoRestart);
        };
        let mut headers = vec![("content-type", FRAGMENT.to_owned())];
        headers.extend(if_match.map(|etag| ("if-match", etag)));
        let question = Question {
            method: Method::Patch,
            target,
            headers,
            body,
        };
        client.ask(question).await
    }

    /// Tells the server what `body` says. A server that wants another entity tag gets it once.
    async fn tell(&mut self, client: &Client, body: String, with_etag: bool) -> Told {
        let mut etag = self.etag.clone().filter(|_| with_etag);
        for _ in 0..2 {
            let asked = self.patch(client.clone(), etag.clone(), body.clone());
            let reply = match asked.await {
                Ok(asked) => asked.reply,
                Err(error) => {
                    tracing::debug!(%error, "candidates could not be told");
                    return Told::Lost;
                }
            };
            let news = reply::etag(&reply).filter(|news| Some(news) != etag.as_ref());
            match reply.status {
                200..=299 => {
                    self.etag = news.or_else(|| self.etag.take());
                    return Told::Heard;
                }
                // The one without its tag, the other with a newer one or without.
                412 if news.is_some() || etag.is_some() => etag = news,
                428 if news.is_some() => etag = news,
                400 | 404 | 405 | 422 | 501 => return Told::Refused(reply.status),
                status => {
                    tracing::debug!(status, "candidates were not taken");
                    return Told::Lost;
                }
            }
        }
        Told::Lost
    }
}

/// What became of candidates told.
enum Told {
    Heard,
    /// Not this time.
    Lost,
    /// With this status, which says that the server takes none.
    Refused(u16),
}

#[async_trait]
impl Signaller for Whip {
    fn dialect(&self) -> Dialect {
        Dialect::Whip
    }

    async fn open(&mut self, _unreached: u32) -> Result<Opening, Error> {
        self.client()?;
        self.session = None;
        Ok(Opening::SendOffer)
    }

    /// Posts our offer, bounded by fifteen seconds for each reply beside what connecting may take.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        self.session = None;
        self.delete(Instant::now() + CLOSE_DEADLINE).await;
        let offer = sdp::whip_offer(local_sdp, self.trickle != Trickle::Off);
        let asked = self.post(&offer).await?;
        self.take(asked, &offer).map(Some)
    }

    /// Bounded by five seconds. Failures are no errors: servers learn our candidates from our checks too.
    async fn trickle(&mut self, candidates: &[String], last: bool) -> Result<(), Error> {
        let client = self.client()?.clone();
        let (trickle, deaf) = (self.trickle, self.hears == Some(false));
        let Some(session) = self.session.as_mut().filter(|session| {
            let reachable = session.url.is_some();
            reachable && !deaf && trickle != Trickle::Off
        }) else {
            return Ok(());
        };
        let news = session.ours.news(candidates);
        let last = last && (session.trickling || !news.is_empty());
        if news.is_empty() && !last {
            return Ok(());
        }
        session.trickling = !last;
        let (bodies, with_etag) = match trickle {
            Trickle::Bare => {
                let end = last.then(String::new);
                (news.into_iter().chain(end).collect(), false)
            }
            Trickle::Off | Trickle::Sdpfrag => (vec![session.ours.fragment(&news, last)], true),
        };
        let telling = async {
            let mut told = Told::Lost;
            for body in bodies {
                told = session.tell(&client, body, with_etag).await;
                if !matches!(told, Told::Heard) {
                    break;
                }
            }
            told
        };
        match timeout(TRICKLE_DEADLINE, telling).await {
            // One who took some before has forgotten the session.
            Ok(Told::Refused(status)) if self.hears.is_none() => {
                tracing::info!(
                    status,
                    "the server takes no candidates after the offer; it is told none from now on"
                );
                self.hears = Some(false);
            }
            Ok(Told::Heard) => self.hears = Some(true),
            Ok(Told::Lost | Told::Refused(_)) => {}
            Err(_) => tracing::debug!("telling candidates took too long"),
        }
        Ok(())
    }

    fn can_restart(&self) -> bool {
        let able = |session: &Session| {
            session.url.is_some() && !session.answer.is_empty() && !session.stuck
        };
        !self.rigid && self.session.as_ref().is_some_and(able)
    }

    /// Each request has a connection of its own.
    fn restarts_elsewhere(&self) -> bool {
        true
    }

    /// Bounded by eight seconds. A server that is busy is asked again after two.
    async fn restart(&mut self, local_sdp: &str) -> Result<RemoteDescription, Error> {
        if !self.can_restart() {
            return Err(Error::NoRestart);
        }
        let client = self.client()?.clone();
        let Self {
            session,
            server,
            rigid,
            trickle,
            ..
        } = self;
        let Some(session) = session else {
            return Err(Error::NoRestart);
        };
        session.ours = Ours::of(local_sdp);
        let (body, mut if_match): (_, &[_]) = match trickle {
            Trickle::Bare => (session.ours.credentials() + "\r\n", &[None]),
            Trickle::Off | Trickle::Sdpfrag => {
                let known = session.ours.candidates();
                (session.ours.fragment(known, false), &IF_MATCH_ANY)
            }
        };
        let deadline = Instant::now() + RESTART_DEADLINE;
        let silent = |_| Error::Timeout {
            endpoint: server.endpoint(),
            waiting_for: "ICE was to be restarted",
            after: RESTART_DEADLINE,
        };
        let refused = loop {
            let tag = if_match.first().copied().flatten().map(str::to_owned);
            let asked = session.patch(client.clone(), tag, body.clone());
            let asked = timeout_at(deadline, asked).await.map_err(silent)??;
            let reply = &asked.reply;
            let theirs = Theirs::read(&reply.body);
            match (reply.status, theirs.credentials) {
                (200..=299, Some(credentials)) => {
                    session.etag = reply::etag(reply).or_else(|| session.etag.take());
                    session.answer = sdpfrag::with_credentials(&session.answer, &credentials);
                    if !theirs.candidates.is_empty() {
                        session.candidates = theirs.candidates;
                    }
                    return Ok(RemoteDescription {
                        sdp: session.answer.clone(),
                        candidates: session.candidates.clone(),
                        payload_types: PayloadTypes::OFFERED,
                        ice_servers: Vec::new(),
                    });
                }
                (425, _) if Instant::now() + BUSY_PERIOD < deadline => sleep(BUSY_PERIOD).await,
                (412, _) if if_match.len() > 1 => if_match = &if_match[1..],
                (status, _) => {
                    session.stuck = true;
                    *rigid = matches!(status, 200..=299 | 405 | 501);
                    break asked;
                }
            }
        };
        self.hide();
        let words = refused.explained(self.server.printable(&reply::words(&refused.reply)));
        tracing::info!(
            status = refused.reply.status,
            words,
            "the server did not restart ICE"
        );
        Err(Error::NoRestart)
    }

    /// For ever: see above.
    async fn next(&mut self) -> Result<Event, Error> {
        std::future::pending().await
    }

    /// Deletes the session, whatever the parting: it is ours alone, and deleting it frees the name. One that could not be
    /// deleted is tried again by the next parting, and before the next session.
    async fn close(&mut self, _parting: Parting) {
        let deadline = Instant::now() + CLOSE_DEADLINE;
        let session = self.session.take().and_then(|session| session.url);
        // A server that let us on anew does not hold the name for the one before.
        self.orphan = session.or_else(|| self.orphan.take());
        if let Some(posted) = self.posted.take()
            && let Ok(Ok(Asked { reply, at, .. })) = timeout_at(deadline, posted).await
            && let Said::Answer { session, .. } = reply::read(&reply, &at)
        {
            self.orphan = session.or_else(|| self.orphan.take());
        }
        self.delete(deadline).await;
    }
}

/// What may be secret in the path of a URL.
fn words_of(target: &Target) -> impl Iterator<Item = String> + '_ {
    let segments = target.expose().path_segments().into_iter().flatten();
    (segments.filter(|word| !HARMLESS.contains(word))).map(str::to_owned)
}

#[cfg(test)]
mod tests;
