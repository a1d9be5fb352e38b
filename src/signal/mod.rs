//! The servers' handshakes: each dialect turns "I want to publish" into an exchanged offer and answer.
//!
//! A [`Signaller`] knows one dialect's messages and nothing of media; it never retries, it states facts
//! ([`Error`]) and leaves the verdict to `publisher::policy`. Differences between servers end here: who
//! offers is data ([`Opening`]), not a second path through the session.

pub(crate) mod candidate;
mod ice_servers;
pub mod ome;
pub mod sdp;
mod server;
#[cfg(test)]
mod testing;
pub mod whip;
pub mod wowza;
pub mod wowza_v1;
pub mod wowza_v2;

use std::time::Duration;

use async_trait::async_trait;

use crate::config::ice_server::IceServer;
use crate::media::payload_types::PayloadTypes;
use crate::net;

/// What the dialect asks of us once the server answers: whose turn it is to offer.
#[derive(Debug)]
pub enum Opening {
    /// The server has offered; answer it (OvenMediaEngine).
    Offered(RemoteDescription),
    /// We make the offer (Wowza).
    SendOffer,
}

/// What a server says of its side: an SDP and the candidates that came beside it.
#[derive(Clone, Debug)]
pub struct RemoteDescription {
    /// The SDP, made regular by [`sdp::regular`] so that the engine accepts it.
    pub sdp: String,
    /// Every usable candidate, of the message and of the SDP alike, each as a `candidate:...` line with
    /// `tcptype` filled in.
    pub candidates: Vec<String>,
    /// The payload types to send with: those of the server's offer, or those of ours, which it accepted.
    pub payload_types: PayloadTypes,
    /// TURN and STUN servers handed over by the server; where it named an address of its own inner network, that
    /// of the host we dialled stands before them.
    pub ice_servers: Vec<IceServer>,
}

/// The servers' languages.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OvenMediaEngine's WebSocket ingest, also at Qencode.
    Ome,
    /// WHIP (RFC 9725) and its variants.
    Whip,
    /// Wowza's older `sendOffer` dialect.
    WowzaV1,
    /// Wowza's newer `OFFER` dialect.
    WowzaV2,
}

impl Dialect {
    /// Whether a session whose media path is gone can be ended by a word to the server. Where not, its name stays
    /// taken until the server has missed its media for long enough.
    pub const fn frees_names(self) -> bool {
        match self {
            Self::Ome | Self::Whip | Self::WowzaV2 => true,
            Self::WowzaV1 => false,
        }
    }
}

impl std::fmt::Display for Dialect {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ome => "ome",
            Self::Whip => "whip",
            Self::WowzaV1 => "wowza-v1",
            Self::WowzaV2 => "wowza-v2",
        })
    }
}

/// Something the server said while media flows, short of the end.
#[derive(Debug)]
pub enum Event {
    /// Further candidates, in the form of [`RemoteDescription::candidates`].
    Candidates(Vec<String>),
}

/// How a signaller is to part from its server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parting {
    /// We stop: say so in the dialect, then close the socket.
    Stop,
    /// The attempt failed or the session was lost: free the name on the server as far as the dialect can
    /// without harming another live publisher of that name.
    Abandon,
}

/// Speaks one server's handshake. Lives as long as its publisher and serves its sessions one after another.
///
/// Every method is bounded by a deadline of its own (see each dialect), except [`next`](Self::next).
#[async_trait]
pub trait Signaller: Send {
    /// The dialect spoken, or after [`close`](Self::close) the one to be spoken next.
    fn dialect(&self) -> Dialect;

    /// Connects to the server and learns who offers.
    ///
    /// `unreached` counts the sessions so far in which no media path came up. A dialect in which the server can be asked
    /// for one transport or another asks in turn as it grows, and stays with what led to a path.
    async fn open(&mut self, unreached: u32) -> Result<Opening, Error>;

    /// Whether another session might be offered other ways for media (see [`open`](Self::open)), so that a search on those
    /// of this one need not take its full time.
    fn asks_otherwise(&self) -> bool {
        false
    }

    /// Hands over our description, an offer or an answer as [`Opening`] asked for. Returns the server's
    /// answer where we offered.
    async fn exchange(&mut self, local_sdp: &str) -> Result<Option<RemoteDescription>, Error>;

    /// Tells the server of candidates found after our description was handed over; with `last`, that there will be
    /// no more. Where the dialect has no word for it, or the server no ear, nothing is sent: servers learn
    /// candidates from the connectivity checks too.
    async fn trickle(&mut self, _candidates: &[String], _last: bool) -> Result<(), Error> {
        Ok(())
    }

    /// Whether [`restart`](Self::restart) may work with the session as it stands.
    fn can_restart(&self) -> bool {
        false
    }

    /// Whether it may work after a change of the network too: not where it is asked for on a socket that the change has
    /// killed, which nobody is told of before a time-out.
    fn restarts_elsewhere(&self) -> bool {
        false
    }

    /// Restarts ICE in place: `local_sdp` is a full offer with new credentials; returns the server's side of it.
    /// An error is the end of the session.
    async fn restart(&mut self, _local_sdp: &str) -> Result<RemoteDescription, Error> {
        Err(Error::NoRestart)
    }

    /// Waits for what the server says while media flows; answers its pings meanwhile. Cancel-safe. An error is
    /// the end of the session as this dialect sees it; a dialect whose socket does not hold the session waits
    /// on for ever when that socket closes.
    async fn next(&mut self) -> Result<Event, Error>;

    /// Parts from the server. Bounded by two seconds; failures are not reported, for nothing can be done. Between
    /// sessions it ends what an earlier parting could not.
    async fn close(&mut self, parting: Parting);
}

/// Why signalling did not go on. Facts only: `publisher::policy` decides what follows.
///
/// No variant holds a secret: endpoints are shown as scheme, host and port.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server closed the socket, with its code and reason if it gave any.
    #[error("{endpoint} closed the socket{} while {waiting_for}", code_text(*.code, reason))]
    Closed {
        /// Scheme, host and port.
        endpoint: String,
        /// Code of the WebSocket close frame; `None` for a bare TCP close.
        code: Option<u16>,
        /// Reason in the close frame, shortened.
        reason: String,
        /// What was awaited.
        waiting_for: &'static str,
    },
    /// The socket could not be opened.
    #[error(transparent)]
    Connect(#[from] net::Error),
    /// The dialect cannot restart ICE, or the server did not.
    #[error("ICE cannot be restarted in place")]
    NoRestart,
    /// The server speaks Wowza's other dialect.
    #[error("{endpoint} answers in Wowza's other dialect: set dialect = \"{}\", or \"auto\"", config_word(*.spoken))]
    OtherDialect {
        /// Scheme, host and port.
        endpoint: String,
        /// The dialect of its answer.
        spoken: Dialect,
    },
    /// The server said something this dialect does not allow.
    #[error("{endpoint} sent {got} while {expected} was expected")]
    Protocol {
        /// Scheme, host and port.
        endpoint: String,
        /// What the dialect expects here.
        expected: &'static str,
        /// The beginning of what came, printable, at most 200 characters.
        got: String,
    },
    /// The server refused, with its status and words.
    #[error("{endpoint} refused with {status}: {text}")]
    Refused {
        /// Scheme, host and port.
        endpoint: String,
        /// The dialect's status number.
        status: u16,
        /// The server's words, printable, at most 200 characters.
        text: String,
        /// How far the handshake had come.
        step: Step,
        /// When the server wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// The server answered with a media description that cannot work, such as a refused video track.
    #[error("{endpoint} gave an SDP that cannot work: {why}")]
    Sdp {
        /// Scheme, host and port.
        endpoint: String,
        /// What is wrong with it and what to change.
        why: String,
    },
    /// Media flows, but the server no longer knows the stream.
    #[error("{endpoint} no longer lists the stream, although media flows")]
    StreamGone {
        /// Scheme, host and port.
        endpoint: String,
    },
    /// The server stayed silent.
    #[error("{endpoint} stayed silent for {} s while {waiting_for}", after.as_secs())]
    Timeout {
        /// Scheme, host and port.
        endpoint: String,
        /// What was awaited.
        waiting_for: &'static str,
        /// How long.
        after: Duration,
    },
}

/// The step of the handshake at which something happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// After our description was handed over.
    Answered,
    /// While media flowed or was about to.
    Live,
    /// Before any description was exchanged.
    Opening,
}

/// What the configuration calls a dialect of Wowza's.
const fn config_word(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::WowzaV1 => "v1",
        Dialect::WowzaV2 => "v2",
        Dialect::Ome | Dialect::Whip => "auto",
    }
}

fn code_text(code: Option<u16>, reason: &str) -> String {
    match (code, reason) {
        (None, _) => " without a close frame".to_owned(),
        (Some(code), "") => format!(" with code {code}"),
        (Some(code), reason) => format!(" with code {code} ({reason})"),
    }
}

#[cfg(test)]
mod tests;
