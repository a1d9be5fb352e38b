//! What the file says of a stream at a vendor's control plane.

use std::fmt;

use super::secret::{Bearer, Secret};
use super::{Size, WowzaDialect};

/// A stream that onair starts and stops itself, over the vendor's REST interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Platform {
    /// Whose, with what only that vendor needs.
    pub vendor: Vendor,
    /// Wowza Video's token, or Qencode's API key.
    pub credential: Bearer,
    /// Address of the interface, `https://` or `http://`, without a slash at its end.
    pub api: Secret,
    /// Which stream.
    pub stream: StreamRef,
    /// What becomes of a stream that onair started when onair ends.
    pub on_exit: OnExit,
    /// The most that one day may cost, in minutes that the stream runs; `None` sets no limit.
    pub daily_minutes: Option<u32>,
}

/// A vendor.
#[derive(Clone, Debug, PartialEq)]
pub enum Vendor {
    /// Qencode's live streaming.
    Qencode {
        /// Where Qencode reports the stream's events; `None` leaves what is set there.
        callback_url: Option<Secret>,
    },
    /// Wowza Video.
    WowzaVideo {
        /// Which of Wowza's languages its entry point speaks.
        dialect: WowzaDialect,
        /// How to make the stream when there is none of its name; `None` never makes one.
        create: Option<Create>,
    },
}

impl Platform {
    /// Whether both name one stream, whatever else is said of it.
    pub fn is_same_stream(&self, other: &Self) -> bool {
        (self.vendor.name(), &self.api, &self.stream)
            == (other.vendor.name(), &other.api, &other.stream)
    }
}

impl Vendor {
    /// The vendor as the file writes it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Qencode { .. } => "qencode",
            Self::WowzaVideo { .. } => "wowza-video",
        }
    }

    /// Where its interface is, unless the file says otherwise.
    pub const fn default_api(&self) -> &'static str {
        match self {
            Self::Qencode { .. } => "https://api-live.qencode.com/v1",
            Self::WowzaVideo { .. } => "https://api.video.wowza.com/api/v2.0",
        }
    }
}

/// How the file names a stream.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamRef {
    /// By the vendor's identifier: letters, digits, `-` and `_`.
    Id(String),
    /// By the name that people gave it.
    Name(String),
}

impl fmt::Display for StreamRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "with the id {id}"),
            Self::Name(name) => write!(f, "of the name {name:?}"),
        }
    }
}

/// What becomes of a stream that onair started when onair ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnExit {
    /// It goes on, and goes on costing.
    Leave,
    /// It is stopped.
    #[default]
    Stop,
}

/// Properties of a new stream at Wowza Video.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Create {
    /// Where it is ingested, in Wowza's words.
    pub broadcast_location: String,
    /// `transcoded` or `passthrough`.
    pub transcoder_type: String,
    /// `pay_as_you_go` or `twentyfour_seven`.
    pub billing_mode: String,
    /// Its aspect ratio, as the size of its picture.
    pub size: Size,
    /// Whether viewers get it with little delay.
    pub low_latency: bool,
    /// Whether Wowza records it.
    pub recording: bool,
    /// A mark of the owner's, repeated in Wowza's own reports.
    pub reference_id: Option<String>,
}

impl Create {
    /// A transcoded, unrecorded stream, paid by use, that is ingested at `broadcast_location`.
    pub fn at(broadcast_location: &str) -> Self {
        Self {
            broadcast_location: broadcast_location.to_owned(),
            transcoder_type: "transcoded".to_owned(),
            billing_mode: "pay_as_you_go".to_owned(),
            size: Size {
                width: 1280,
                height: 720,
            },
            low_latency: false,
            recording: false,
            reference_id: None,
        }
    }
}

/// Where Wowza Video ingests streams.
pub const BROADCAST_LOCATIONS: [&str; 15] = [
    "asia_pacific_australia",
    "asia_pacific_india",
    "asia_pacific_japan",
    "asia_pacific_s_korea",
    "asia_pacific_singapore",
    "asia_pacific_taiwan",
    "eu_belgium",
    "eu_germany",
    "eu_ireland",
    "south_america_brazil",
    "us_central_iowa",
    "us_east_s_carolina",
    "us_east_virginia",
    "us_west_california",
    "us_west_oregon",
];
