//! Why a platform did not do what it was asked for: facts, with the vendor's words. What follows from them is decided
//! elsewhere.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::config::platform::StreamRef;
use crate::net;

/// What was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Call {
    /// Making a stream.
    Create,
    /// Removing a stream.
    Delete,
    /// Listing streams.
    List,
    /// Asking for an access token.
    Login,
    /// Showing a stream.
    Show,
    /// Starting a stream.
    Start,
    /// Stopping a stream.
    Stop,
    /// Changing a stream.
    Update,
    /// Asking what arrives.
    Witness,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Create => "create a stream",
            Self::Delete => "delete the stream",
            Self::List => "list the streams",
            Self::Login => "take the API key",
            Self::Show => "show the stream",
            Self::Start => "start the stream",
            Self::Stop => "stop the stream",
            Self::Update => "change the stream",
            Self::Witness => "say what arrives",
        })
    }
}

/// What a refusal means, whichever number the vendor gives it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The token or key is wrong or has expired, or the account or trial has ended.
    Credential,
    /// The stream was deleted.
    Deleted,
    /// The credential is good, but not for this stream.
    Forbidden,
    /// What was sent is not valid.
    Invalid,
    /// The vendor has no such stream.
    NotFound,
    /// Too many streams were made lately.
    TooMany,
    /// Too many requests were made lately.
    TooOften,
    /// The vendor is in trouble itself.
    Trouble,
    /// Anything else.
    Unexpected,
    /// The stream's state does not allow it.
    WrongState,
}

impl Refusal {
    /// What to do next, for a person.
    const fn advice(self) -> &'static str {
        match self {
            Self::Credential => {
                "put a valid one where the configuration reads it, or mend the account"
            }
            Self::Deleted | Self::NotFound => {
                "correct stream_id or stream_name, see `onair stream list`"
            }
            Self::Forbidden => "use a credential of the account that owns the stream",
            Self::Invalid => "correct what the vendor names",
            Self::TooMany => "wait; vendors let about ten streams be made in three hours",
            Self::TooOften => {
                "wait; look for others that ask with this credential or from this address"
            }
            Self::Trouble => "wait, or look at the vendor's status page",
            Self::Unexpected => "look at the account, its bills, and the address in api",
            Self::WrongState => "wait until the stream has come to rest",
        }
    }
}

/// Why a platform did not do what it was asked for. Holds no credential, key or URL.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Several streams have this name.
    #[error(
        "{vendor} has {} streams {stream}, with the ids {}; name one of them by its id",
        ids.len(),
        listed(ids)
    )]
    Ambiguous {
        /// Whose.
        vendor: &'static str,
        /// Which.
        stream: StreamRef,
        /// Their identifiers.
        ids: Vec<String>,
    },
    /// The interface could not be reached.
    #[error("{vendor} cannot be asked to {call}")]
    Connect {
        /// Whose.
        vendor: &'static str,
        /// What was asked.
        call: Call,
        /// Why.
        #[source]
        source: Arc<net::Error>,
    },
    /// The stream has run for as long as it may today.
    #[error(
        "the stream ran for {ran_minutes} minutes today, and daily_minutes allows {limit_minutes}"
    )]
    DailyLimit {
        /// Minutes of today.
        ran_minutes: u64,
        /// The limit.
        limit_minutes: u32,
    },
    /// Another publisher of this process uses the stream, though it is named in another way there.
    #[error(
        "the stream at {vendor} is that of publisher {publisher} already; give one of the two another stream_id or \
         stream_name, or remove it from the configuration"
    )]
    InUse {
        /// Whose.
        vendor: &'static str,
        /// The other publisher.
        publisher: String,
    },
    /// The vendor has no stream of this name.
    #[error(
        "{vendor} has no stream {stream}; correct the name, make it by `onair stream create`, \
         or let onair make it (create, Wowza Video only)"
    )]
    NoSuchStream {
        /// Whose.
        vendor: &'static str,
        /// Which.
        stream: StreamRef,
    },
    /// The stream takes another kind of source.
    #[error(
        "the stream at {vendor} takes its source from an encoder of type {encoder:?}, not by WebRTC; \
         make one with the encoder other_webrtc, for this cannot be changed later"
    )]
    NotWebrtc {
        /// Whose.
        vendor: &'static str,
        /// The type, as the vendor names it.
        encoder: String,
    },
    /// The vendor refused.
    #[error(
        "{vendor} did not {call} (HTTP {status}{}): {text}; {}{}",
        coded(code),
        refusal.advice(),
        later(retry_after)
    )]
    Refused {
        /// Whose.
        vendor: &'static str,
        /// What was asked.
        call: Call,
        /// What it means.
        refusal: Refusal,
        /// HTTP status.
        status: u16,
        /// The vendor's code; may be empty.
        code: String,
        /// The vendor's words, made printable, without secrets.
        text: String,
        /// When the vendor wants to be asked again, if it said so.
        retry_after: Option<Duration>,
    },
    /// What came back is of no use.
    #[error("{vendor} was asked to {call}, and its reply is of no use: {why}")]
    Reply {
        /// Whose.
        vendor: &'static str,
        /// What was asked.
        call: Call,
        /// What is wrong.
        why: String,
    },
    /// The stream was started, but did not come up.
    #[error("the stream at {vendor} was started {} s ago and is still {state}", after.as_secs())]
    StartTimeout {
        /// Whose.
        vendor: &'static str,
        /// The state it stayed in.
        state: String,
        /// Time since the start.
        after: Duration,
    },
    /// The stream was started too often lately.
    #[error(
        "onair started the stream {starts} times within an hour and others stopped it {stops} times; look for another \
         onair or a person that uses it, and for a source that never arrives"
    )]
    StartsTooOften {
        /// Starts within the hour.
        starts: usize,
        /// Times it was stopped by others within the hour.
        stops: usize,
    },
}

/// Most identifiers that are listed.
const LISTED: usize = 10;

fn listed(ids: &[String]) -> String {
    let more = if ids.len() > LISTED { ", ..." } else { "" };
    let first: Vec<&str> = ids.iter().take(LISTED).map(String::as_str).collect();
    format!("{}{more}", first.join(", "))
}

fn later(retry_after: &Option<Duration>) -> String {
    match retry_after {
        Some(after) => format!("; it wants to be asked again in {} s", after.as_secs()),
        None => String::new(),
    }
}

fn coded(code: &str) -> String {
    match code {
        "" => String::new(),
        code => format!(", {code}"),
    }
}

impl Error {
    /// What the vendor's refusal means, if it is one.
    pub const fn refusal(&self) -> Option<Refusal> {
        match self {
            Self::Refused { refusal, .. } => Some(*refusal),
            Self::Ambiguous { .. }
            | Self::Connect { .. }
            | Self::DailyLimit { .. }
            | Self::InUse { .. }
            | Self::NoSuchStream { .. }
            | Self::NotWebrtc { .. }
            | Self::Reply { .. }
            | Self::StartTimeout { .. }
            | Self::StartsTooOften { .. } => None,
        }
    }

    /// How long the vendor wants to be left alone, if it said so.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            Self::Ambiguous { .. }
            | Self::Connect { .. }
            | Self::DailyLimit { .. }
            | Self::InUse { .. }
            | Self::NoSuchStream { .. }
            | Self::NotWebrtc { .. }
            | Self::Reply { .. }
            | Self::StartTimeout { .. }
            | Self::StartsTooOften { .. } => None,
        }
    }

    /// Whether the vendor says that there is no such stream, now or any more.
    pub const fn is_gone(&self) -> bool {
        matches!(self, Self::NoSuchStream { .. })
            || matches!(self.refusal(), Some(Refusal::Deleted | Refusal::NotFound))
    }
}
