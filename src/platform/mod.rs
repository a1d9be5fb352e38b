//! A vendor's REST control plane: the streams of an account are listed, made, started, looked at, stopped and deleted.
//!
//! Starting a stream that runs and stopping one that rests are successes; everything else that a vendor says is told
//! as it is. No retrying here, with two exceptions that are part of asking at all: an expired access token is renewed
//! once, and a refused credential is read again where it is kept. What may hold a secret is never logged.

mod bucket;
mod client;
mod error;
mod qencode;
mod wowza_video;

use std::fmt;

use async_trait::async_trait;

pub use client::Pace;
pub use error::{Call, Error, Refusal};

use crate::config::platform::{Platform as Config, StreamRef, Vendor};
use crate::config::{self, Server, Trust};
use crate::net::{self, Dialer};

/// Where a stream stands, whatever the vendor's word for it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// It takes media, and media arrives.
    Live,
    /// A word that is not known here.
    Other(String),
    /// It takes media. It costs.
    Ready,
    /// It comes up.
    Starting,
    /// It rests, and costs nothing.
    Stopped,
    /// It is being stopped.
    Stopping,
}

impl State {
    /// Whether a publisher can connect.
    pub const fn takes_media(&self) -> bool {
        matches!(self, Self::Live | Self::Ready)
    }

    /// Whether it costs, as far as one can tell.
    pub const fn is_charged(&self) -> bool {
        !matches!(self, Self::Stopped)
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Live => "live",
            Self::Other(word) => word,
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Stopped => "stopped",
            Self::Stopping => "stopping",
        })
    }
}

/// Where a stream takes its media.
#[derive(Clone, Debug, PartialEq)]
pub enum Ingest {
    /// At this server.
    At(Server),
    /// Not over WebRTC: it was made for an encoder of this type.
    Foreign(String),
    /// Not said here, or not before it is started.
    Unsaid,
}

/// A stream of the account.
#[derive(Clone, Debug, PartialEq)]
pub struct Stream {
    /// The vendor's identifier, fit for a path.
    pub id: String,
    /// The name that people gave it; may be empty.
    pub name: String,
    /// Where it stands.
    pub state: State,
    /// Where it takes its media.
    pub ingest: Ingest,
}

/// What came of a stop.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rest {
    /// Where the stream stands.
    pub state: State,
    /// The vendor took the stop. Otherwise it refused, and showed a stream that rests or is on its way there.
    pub obeyed: bool,
}

/// What a vendor says of the media that arrives.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Witness {
    /// Whether a source is connected; `None` if the vendor does not say.
    pub connected: Option<bool>,
    /// What it finds wrong, such as `frame_rate: low`.
    pub warnings: Vec<String>,
}

/// A vendor's interface, with the credential of one account.
#[async_trait]
pub trait Platform: Send {
    /// The vendor as the configuration writes it.
    fn vendor(&self) -> &'static str;

    /// The account's streams, at most some thousands.
    async fn list(&mut self) -> Result<Vec<Stream>, Error>;

    /// One stream, with all that is known of it.
    async fn show(&mut self, id: &str) -> Result<Stream, Error>;

    /// Makes a stream that takes WebRTC.
    async fn create(&mut self, name: &str) -> Result<Stream, Error>;

    /// Starts a stream; it may come up later. Success if it runs already.
    async fn start(&mut self, stream: &Stream) -> Result<Stream, Error>;

    /// Asks for the newest state of a stream, in the cheapest way; what else is known of it stays.
    async fn refresh(&mut self, stream: &Stream) -> Result<Stream, Error>;

    /// Stops a stream, at once: no pacing holds this back, and no refusal of the credential that is known. Success if it
    /// rests already.
    async fn stop(&mut self, id: &str) -> Result<Rest, Error>;

    /// Removes a stream for good; it should rest.
    async fn delete(&mut self, id: &str) -> Result<(), Error>;

    /// What the vendor sees of the media.
    async fn witness(&mut self, id: &str) -> Result<Witness, Error>;
}

/// The interface that `config` names. Connections go through the proxy and trust the further authority of the
/// publisher; its pins are those of the server that takes the media, not of this one.
///
/// Reads certificate authorities, so it may block for some milliseconds.
pub fn connect(
    config: &Config,
    publisher: &config::Publisher,
    pace: &Pace,
) -> Result<Box<dyn Platform>, net::Error> {
    let trust = Trust {
        pins: Vec::new(),
        ..publisher.trust.clone()
    };
    let dialer = Dialer::new(&config.api, &trust, &publisher.proxy)?;
    if config.api.expose().starts_with("http://") {
        tracing::warn!("the credential goes to the platform in the clear; use https:// in api");
    }
    Ok(match &config.vendor {
        Vendor::Qencode { callback_url } => Box::new(qencode::Qencode::new(
            config,
            callback_url.clone(),
            dialer,
            pace,
        )),
        Vendor::WowzaVideo { dialect, create } => Box::new(wowza_video::WowzaVideo::new(
            config,
            *dialect,
            create.clone(),
            dialer,
            pace,
        )),
    })
}

/// The stream that `stream` names.
pub async fn find(platform: &mut dyn Platform, stream: &StreamRef) -> Result<Stream, Error> {
    let name = match stream {
        StreamRef::Id(id) => return platform.show(id).await,
        StreamRef::Name(name) => name,
    };
    let mut found: Vec<Stream> = platform.list().await?;
    found.retain(|stream| stream.name == *name);
    let vendor = platform.vendor();
    match found.as_slice() {
        [one] => platform.show(&one.id).await,
        [] => Err(Error::NoSuchStream {
            vendor,
            stream: stream.clone(),
        }),
        several => Err(Error::Ambiguous {
            vendor,
            stream: stream.clone(),
            ids: several.iter().map(|stream| stream.id.clone()).collect(),
        }),
    }
}

#[cfg(test)]
mod testing;
