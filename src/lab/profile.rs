//! Which server the lab imitates, and the facts that differ between those servers.
//!
//! Facts come from OvenMediaEngine's observed behaviour and from Wowza's own examples; a difference that cannot
//! be told from outside has no entry here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

/// A server that the lab can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Profile {
    /// OvenMediaEngine 0.16: as 0.20, and it waits for sender reports before it shows anything.
    Ome016,
    /// OvenMediaEngine 0.20: it offers UDP alone, and TURN over TCP where `transport=tcp` is asked for.
    Ome020,
    /// OvenMediaEngine 0.21: it offers; UDP and passive ICE-TCP.
    Ome021,
    /// Qencode's live ingest: OvenMediaEngine behind `/qlive/<key>`.
    Qencode,
    /// Wowza Video in the cloud: we answer; one TCP candidate, without `tcptype`.
    WowzaCloud,
    /// Wowza Streaming Engine on its own machine: the same handshake, media over UDP.
    WowzaSe,
}

/// The handshake of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Dialect {
    /// OvenMediaEngine's WebSocket signalling: the server offers.
    #[serde(rename = "ome")]
    Ome,
    /// Wowza's `webrtc-session.json`, first version: the publisher offers.
    #[serde(rename = "wowza-v1")]
    WowzaV1,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ome => "ome",
            Self::WowzaV1 => "wowza-v1",
        })
    }
}

/// A name that is no [`Profile`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown profile {0:?}: one of ome-0.16, ome-0.20, ome-0.21, qencode, wowza-cloud, wowza-se"
)]
pub struct UnknownProfile(String);

impl Profile {
    /// Every profile, in the order of their names.
    pub const ALL: [Self; 6] = [
        Self::Ome016,
        Self::Ome020,
        Self::Ome021,
        Self::Qencode,
        Self::WowzaCloud,
        Self::WowzaSe,
    ];

    /// Its name on the command line, in reports and on the page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ome016 => "ome-0.16",
            Self::Ome020 => "ome-0.20",
            Self::Ome021 => "ome-0.21",
            Self::Qencode => "qencode",
            Self::WowzaCloud => "wowza-cloud",
            Self::WowzaSe => "wowza-se",
        }
    }

    /// The handshake it speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 | Self::Qencode => Dialect::Ome,
            Self::WowzaCloud | Self::WowzaSe => Dialect::WowzaV1,
        }
    }

    /// The application that exists there.
    pub const fn application(self) -> &'static str {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 => "app",
            Self::Qencode => "qlive",
            Self::WowzaCloud => "app-30zl5349",
            Self::WowzaSe => "live",
        }
    }

    /// The stream name that [`super::Lab::endpoint`] hands out; others are accepted too.
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 => "stream",
            Self::Qencode => "1234e5b1-dfd7-4daa-8121-bc5c68bbeb37",
            Self::WowzaCloud => "32a5814b",
            Self::WowzaSe => "front",
        }
    }

    /// Whether it is OvenMediaEngine from before 0.21: other candidates, and another meaning of `transport=tcp`.
    pub(super) const fn is_old_ome(self) -> bool {
        matches!(self, Self::Ome016 | Self::Ome020)
    }

    /// How long it waits for sender reports of both tracks before it shows anything, if it does.
    pub(super) const fn waits_for_reports(self) -> Option<Duration> {
        match self {
            Self::Ome016 => Some(Duration::from_secs(5)),
            Self::Ome020 | Self::Ome021 | Self::Qencode | Self::WowzaCloud | Self::WowzaSe => None,
        }
    }

    /// How often it asks for a key frame: OvenMediaEngine's `FIRInterval`; Wowza's rhythm is not known.
    pub(super) const fn key_frame_every(self) -> Duration {
        match self.dialect() {
            Dialect::Ome => Duration::from_secs(3),
            Dialect::WowzaV1 => Duration::from_secs(5),
        }
    }

    /// How long a silent publisher keeps its name: OvenMediaEngine's `Timeout`; Wowza's is not known, 20 s is assumed.
    pub(super) const fn ghost(self) -> Duration {
        match self.dialect() {
            Dialect::Ome => Duration::from_secs(30),
            Dialect::WowzaV1 => Duration::from_secs(20),
        }
    }
}

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

impl<'de> Deserialize<'de> for Profile {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        name.parse().map_err(serde::de::Error::custom)
    }
}

impl Serialize for Profile {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().parse(), Ok(profile));
        }
        assert!("wowza".parse::<Profile>().is_err());
    }
}
