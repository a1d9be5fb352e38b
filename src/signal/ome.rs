//! OvenMediaEngine's WebSocket ingest, which Qencode runs too: the server offers, we answer.
//!
//! ```text
//! we                                    server
//!   request_offer  ------------------->
//!                  <-------------------  offer, or an error (404 for everything before the offer)
//!   answer         ------------------->  no reply is success; an error may still follow (403)
//!                  <-------------------  pings until the end; closing the socket ends the stream
//!   stop, close    ------------------->
//! ```
//!
//! **A refused publisher must not tear down the live one.** Two publishers of one name may both hold an offer;
//! the second to answer gets 403. From then on its socket is a weapon: when it closes, and likewise on `stop`,
//! the server stops whatever stream has that name, which is the winner's. So after a 403 the socket is kept,
//! whatever [`close`](Signaller::close) is asked for, and the next [`open`](Signaller::open) requests its
//! offer on it. Dropping the signaller closes it in the end, and so does the end of the process: the protocol
//! knows no harmless way out. After a 404 on a fresh socket no answer was sent and closing is harmless.
//!
//! A socket is never used again after `stop`: the server would still offer, but the stream would outlive the
//! socket.

mod kept;

use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use self::kept::Kept;
use super::ice_servers::{ICE_SERVERS_MAX, reachable};
use super::server::{Message, Server, candidate_strings, number};
use super::{
    Dialect, Error, Event, Opening, Parting, RemoteDescription, Signaller, Step, candidate, sdp,
};
use crate::config::ice_server::IceServer;
use crate::config::secret::Secret;
use crate::media::payload_types::PayloadTypes;
use crate::net::ws::Socket;
use crate::net::{Dialer, Target};

/// Longest wait for the offer. It comes within milliseconds, unless a webhook decides first.
const OFFER_DEADLINE: Duration = Duration::from_secs(10);

/// The signaller for OvenMediaEngine and Qencode.
pub struct Ome {
    server: Server,
    url: Secret,
    /// Values of `transport=` to ask with, in turn; none where the URL itself says one.
    asks: Vec<&'static str>,
    dialer: Dialer,
    link: Option<Link>,
    /// The socket that a refusal left behind, while no session uses it.
    kept: Option<Kept>,
}

struct Link {
    socket: Socket,
    phase: Phase,
    /// The server refused an answer of ours on this socket and took none since: it must not be closed.
    tainted: bool,
}

/// How far the handshake on a socket has come.
enum Phase {
    /// The server has offered; `id` and `peer_id` go back as they came.
    Offered {
        id: Value,
        peer_id: Value,
        offer: String,
    },
    /// Our answer is out and not refused so far.
    Answered { id: Value, peer_id: Value },
    /// No offer, or none that still stands.
    Fresh,
}

impl Ome {
    /// A signaller for `url`, which gets `direction=send`, and `transport=` with one of `asks` if it has no such
    /// parameter itself. What a value means has changed between versions (protocols.md 5.5), so nothing is concluded
    /// from it: the offer says what there is. An unusable URL is reported by [`open`](Signaller::open).
    pub fn new(url: &Secret, asks: &[&'static str], dialer: Dialer) -> Self {
        let chosen = Target::parse(url.expose(), &[])
            .is_ok_and(|target| target.expose().query_pairs().any(|(n, _)| n == "transport"));
        let asks = if chosen { Vec::new() } else { asks.to_vec() };
        Self {
            server: server(url, asks.first().copied(), dialer.clone()),
            url: url.clone(),
            asks,
            dialer,
            link: None,
            kept: None,
        }
    }
    /// Takes a refused socket up again, if there is one that is still open.
    async fn take_up(&mut self) -> bool {
        if let Some(kept) = &mut self.kept {
            let socket = kept.take().await;
            self.kept = None;
            self.link = socket.map(|socket| Link {
                socket,
                phase: Phase::Fresh,
                tainted: true,
            });
        }
        self.link.as_ref().is_some_and(|link| link.tainted)
    }

    /// Lays a refused socket aside, alive; says whether it was one.
    fn lay_aside(&mut self) -> bool {
        let tainted = self.link.take_if(|link| link.tainted);
        let found = tainted.is_some();
        if let Some(link) = tainted {
            self.kept = Some(Kept::new(link.socket));
        }
        found
    }

    /// The place in `asks` for a session after `unreached` others.
    fn turn(&self, unreached: u32) -> usize {
        let asks = self.asks.len().max(1);
        usize::try_from(unreached).unwrap_or(0) % asks
    }

    /// Requests an offer, with the transport whose turn it is.
    async fn ask(&mut self, unreached: u32) -> Result<Opening, Error> {
        let ask = self.asks.get(self.turn(unreached)).copied();
        self.server = server(&self.url, ask, self.dialer.clone());
        if self.take_up().await {
            let said = self.request().await;
            // 500: a server with P2P on gives one offer per socket.
            let served = match &said {
                Ok(_) | Err(Error::Sdp { .. }) => true,
                Err(Error::Refused { status, .. }) => *status != 500,
                Err(
                    Error::Closed { .. }
                    | Error::Connect(_)
                    | Error::NoRestart
                    | Error::OtherDialect { .. }
                    | Error::Protocol { .. }
                    | Error::StreamGone { .. }
                    | Error::Timeout { .. },
                ) => false,
            };
            if served {
                if said.is_err() {
                    self.lay_aside();
                }
                return said;
            }
        }
        self.connect().await?;
        let opening = self.request().await;
        if opening.is_err() {
            self.link = None;
        }
        opening
    }

    async fn connect(&mut self) -> Result<(), Error> {
        self.link = None;
        self.link = Some(Link {
            socket: self.server.connect().await?,
            phase: Phase::Fresh,
            tainted: false,
        });
        Ok(())
    }

    /// Requests an offer on the open socket.
    async fn request(&mut self) -> Result<Opening, Error> {
        const WAITING: &str = "its offer was awaited";
        let Self { server, link, .. } = self;
        let link = link.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        let deadline = Instant::now() + OFFER_DEADLINE;
        let request = json!({ "command": "request_offer" });
        server.send(&mut link.socket, &request, WAITING).await?;
        loop {
            let message = timeout_at(deadline, server.recv(&mut link.socket, WAITING))
                .await
                .map_err(|_| server.silent(OFFER_DEADLINE, WAITING))??;
            let value = match message {
                Message::Json(value) => value,
                Message::Other(got) => return Err(server.unexpected("an offer", got)),
            };
            match read(&value) {
                Some(Said::Candidates(_)) | None => {
                    tracing::debug!(
                        got = server.shape(&value),
                        "ignored while waiting for the offer"
                    );
                }
                Some(Said::Error { code, text }) => {
                    return Err(server.refused(code, text, Step::Opening));
                }
                Some(Said::Misshapen(expected)) => {
                    return Err(server.unexpected(expected, server.shape(&value)));
                }
                Some(Said::Offer {
                    id,
                    peer_id,
                    offer,
                    mut remote,
                }) => {
                    remote.sdp =
                        sdp::regular(offer, sdp::Kind::Offer).map_err(|why| server.unfit(&why))?;
                    remote.payload_types =
                        sdp::payload_types(&remote.sdp).map_err(|why| server.unfit(&why))?;
                    remote.ice_servers = reachable(remote.ice_servers, server.host());
                    link.phase = Phase::Offered {
                        id: id.clone(),
                        peer_id: peer_id.clone(),
                        offer: remote.sdp.clone(),
                    };
                    return Ok(Opening::Offered(remote));
                }
            }
        }
    }
}

fn server(url: &Secret, ask: Option<&str>, dialer: Dialer) -> Server {
    let mut query = vec![("direction", "send")];
    query.extend(ask.map(|ask| ("transport", ask)));
    let target = Target::parse(url.expose(), &query);
    // Behind the application stands the stream's name.
    let segments = target
        .iter()
        .flat_map(|target| target.expose().path_segments());
    let names: Vec<String> = (segments.flat_map(|path| path.skip(1)))
        .map(str::to_owned)
        .collect();
    Server::new(target, dialer, names)
}

#[async_trait]
impl Signaller for Ome {
    fn dialect(&self) -> Dialect {
        Dialect::Ome
    }

    fn asks_otherwise(&self) -> bool {
        self.asks.len() > 1
    }

    /// Bounded by the deadlines of [`net`](crate::net) and ten seconds for the offer. A refused socket is asked first; if
    /// it does not serve any more, a new one is opened.
    async fn open(&mut self, unreached: u32) -> Result<Opening, Error> {
        let opening = self.ask(unreached).await?;
        // A version that knows no `relay` offers plainly; the value that means a relay there is the next.
        let other = match &opening {
            Opening::Offered(offer) if offer.ice_servers.is_empty() => {
                let asked = self.asks.get(self.turn(unreached));
                asked == Some(&"relay") && self.asks.len() > 1
            }
            Opening::Offered(_) | Opening::SendOffer => false,
        };
        if !other {
            return Ok(opening);
        }
        // No answer was given, so closing harms nobody.
        if !self.lay_aside()
            && let Some(open) = self.link.take()
        {
            open.socket.close().await;
        }
        self.ask(unreached.wrapping_add(1)).await
    }

    /// Sends our answer, bounded by five seconds. An answer that the server would swallow without taking media
    /// is not sent.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error> {
        const WAITING: &str = "our answer was handed over";
        let Self { server, link, .. } = self;
        let link = link.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        let Phase::Offered { id, peer_id, offer } = &link.phase else {
            return Err(server.not_open(WAITING));
        };
        sdp::check_ome_answer(offer, local_sdp).map_err(|why| server.unfit(&why))?;
        let (id, peer_id) = (id.clone(), peer_id.clone());
        let answer = json!({
            "id": id, "peer_id": peer_id, "command": "answer",
            "sdp": { "type": "answer", "sdp": sdp::without_candidates(local_sdp) },
        });
        link.phase = Phase::Answered { id, peer_id };
        link.tainted = false;
        server.send(&mut link.socket, &answer, WAITING).await?;
        Ok(None)
    }

    async fn next(&mut self) -> Result<Event, Error> {
        const WAITING: &str = "media was about to flow or flowed";
        let Self { server, link, .. } = self;
        let link = link.as_mut().ok_or_else(|| server.not_open(WAITING))?;
        loop {
            let value = match server.recv(&mut link.socket, WAITING).await? {
                Message::Json(value) => value,
                // Not worth ending a stream for.
                Message::Other(got) => {
                    tracing::debug!(got, "ignored");
                    continue;
                }
            };
            match read(&value) {
                Some(Said::Candidates(list)) => return Ok(Event::Candidates(list)),
                Some(Said::Error { code, text }) => {
                    let step = link.refuse(code);
                    return Err(server.refused(code, text, step));
                }
                Some(Said::Misshapen(_) | Said::Offer { .. }) | None => {
                    tracing::debug!(got = server.shape(&value), "ignored");
                }
            }
        }
    }

    /// Sends `stop` when we stop, then closes the socket; that frees the name at once. Keeps a refused socket,
    /// see above.
    async fn close(&mut self, parting: Parting) {
        const WAITING: &str = "we were parting";
        let Self { server, link, .. } = self;
        let Some(open) = link.as_mut() else {
            return;
        };
        // A refusal may have come unread.
        for _ in 0..UNREAD_MAX {
            let received = server.recv(&mut open.socket, WAITING).now_or_never();
            let Some(Ok(message)) = received else {
                break;
            };
            if let Message::Json(value) = message
                && let Some(Said::Error { code, .. }) = read(&value)
            {
                open.refuse(code);
            }
        }
        if self.lay_aside() {
            return;
        }
        let Some(mut open) = self.link.take() else {
            return;
        };
        let stop = match &open.phase {
            Phase::Answered { id, peer_id } if parting == Parting::Stop => {
                Some(json!({ "id": id, "peer_id": peer_id, "command": "stop" }))
            }
            Phase::Answered { .. } | Phase::Fresh | Phase::Offered { .. } => None,
        };
        if let Some(stop) = stop {
            let sent = open.socket.send(stop.to_string());
            if !matches!(tokio::time::timeout(STOP_DEADLINE, sent).await, Ok(Ok(()))) {
                tracing::debug!("stop did not get through; closing the socket says the same");
            }
        }
        open.socket.close().await;
    }
}

/// Messages looked at when parting: the server may send faster than we read.
const UNREAD_MAX: usize = 64;
/// Longest wait for `stop` to leave; with the close frame it makes the two seconds of [`Signaller::close`].
const STOP_DEADLINE: Duration = Duration::from_secs(1);

impl Link {
    /// Takes note of an error with `code`, and says at which step it came.
    fn refuse(&mut self, code: u16) -> Step {
        match self.phase {
            Phase::Answered { .. } if code == 403 => {
                self.phase = Phase::Fresh;
                self.tainted = true;
                Step::Answered
            }
            Phase::Answered { .. } if code == 400 => Step::Answered,
            Phase::Answered { .. } => Step::Live,
            Phase::Fresh | Phase::Offered { .. } => Step::Opening,
        }
    }
}

/// What a message says, as far as it matters.
pub(crate) enum Said<'a> {
    /// Further candidates.
    Candidates(Vec<String>),
    /// An error.
    Error { code: u16, text: &'a str },
    /// An offer that cannot be read: what was expected of it.
    Misshapen(&'static str),
    /// The offer. `remote` holds all but the SDP and its payload types.
    Offer {
        id: &'a Value,
        peer_id: &'a Value,
        offer: &'a str,
        remote: RemoteDescription,
    },
}

/// Reads a JSON object of the server; `None` for what is no business of a publisher.
pub(crate) fn read(message: &Value) -> Option<Said<'_>> {
    if let Some(error) = message.get("error") {
        return Some(Said::Error {
            code: message.get("code").and_then(number).unwrap_or_default(),
            text: error.as_str().unwrap_or("no words"),
        });
    }
    match message.get("command").and_then(Value::as_str) {
        Some("offer") => Some(read_offer(message)),
        Some("candidate") => {
            let list = candidate::usable(candidate_strings(message.get("candidates")));
            (!list.is_empty()).then_some(Said::Candidates(list))
        }
        _ => {
            let code = message.get("code").and_then(number)?;
            let text = "no words";
            (code >= 400).then_some(Said::Error { code, text })
        }
    }
}

fn read_offer(message: &Value) -> Said<'_> {
    const NULL: &Value = &Value::Null;
    let field = |name| message.get(name).unwrap_or(NULL);
    let id = field("id");
    if !(id.is_number() || id.is_string()) {
        return Said::Misshapen("an offer with a number as id");
    }
    let peer_id = match field("peer_id") {
        peer_id @ (Value::Number(_) | Value::String(_) | Value::Null) => peer_id,
        Value::Array(_) | Value::Bool(_) | Value::Object(_) => {
            return Said::Misshapen("an offer with a number as peer_id");
        }
    };
    let description = field("sdp");
    let is_offer = description.get("type").is_none_or(|kind| kind == "offer");
    let Some(offer) = description
        .get("sdp")
        .and_then(Value::as_str)
        .filter(|_| is_offer)
    else {
        return Said::Misshapen("an offer with an sdp object of type offer");
    };
    let listed = candidate_strings(message.get("candidates"));
    let remote = RemoteDescription {
        sdp: String::new(),
        payload_types: PayloadTypes::OFFERED,
        candidates: candidate::usable(listed.chain(sdp::candidate_lines(offer))),
        ice_servers: read_ice_servers(message),
    };
    Said::Offer {
        id,
        peer_id,
        offer,
        remote,
    }
}

/// `iceServers`, or the older spelling `ice_servers` with `user_name`.
fn read_ice_servers(message: &Value) -> Vec<IceServer> {
    let list = (message.get("iceServers").and_then(Value::as_array))
        .or_else(|| message.get("ice_servers").and_then(Value::as_array));
    let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
    let read = |server: &Value| {
        let urls: Vec<&str> = match server.get("urls") {
            Some(Value::String(url)) => vec![url],
            Some(Value::Array(urls)) => urls.iter().filter_map(Value::as_str).collect(),
            Some(Value::Bool(_) | Value::Null | Value::Number(_) | Value::Object(_)) | None => {
                Vec::new()
            }
        };
        let username = text(server.get("username").or_else(|| server.get("user_name")));
        let credential = text(server.get("credential"));
        let urls = urls.into_iter().filter_map(|url| url.parse().ok());
        urls.map(|url| IceServer {
            url,
            username: username.clone(),
            credential: Secret::new(credential.clone()),
        })
        .collect::<Vec<_>>()
    };
    (list.into_iter().flatten().take(ICE_SERVERS_MAX))
        .flat_map(read)
        .take(ICE_SERVERS_MAX)
        .collect()
}

#[cfg(test)]
mod tests;
