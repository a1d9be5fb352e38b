//! Which server the lab imitates, and the facts that differ between those servers.
//!
//! Facts come from OvenMediaEngine's observed behaviour and from Wowza's own examples; a difference that cannot
//! be told from outside has no entry here.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::Deserialize;
use serde::Serialize;

use super::rest::Vendor;

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
    /// A server that keeps to RFC 9725 to the letter.
    Whip,
    /// OvenMediaEngine's WHIP, with its habits.
    WhipOme,
    /// Wowza Streaming Engine's WHIP, with its own form of trickling.
    WhipWowza,
    /// Wowza Video in the cloud: we answer; one TCP candidate, without `tcptype`.
    WowzaCloud,
    /// Wowza Streaming Engine on its own machine: the same handshake, media over UDP.
    WowzaSe,
    /// Wowza Streaming Engine from 4.11 on: `webrtcImplementation=v2`, with trickling and ICE restarts.
    WowzaV2,
}

/// The handshake of a profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Dialect {
    /// OvenMediaEngine's WebSocket signalling: the server offers.
    #[serde(rename = "ome")]
    Ome,
    /// WHIP: HTTP requests instead of a connection; the publisher offers.
    #[serde(rename = "whip")]
    Whip,
    /// Wowza's `webrtc-session.json`, first version: the publisher offers.
    #[serde(rename = "wowza-v1")]
    WowzaV1,
    /// The same address, second version: flat messages, candidates in both directions.
    #[serde(rename = "wowza-v2")]
    WowzaV2,
}

/// The part an engine takes in ICE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IceRole {
    /// It answers checks and nominates.
    Controlling,
    /// It checks whatever candidates it is told, and leaves nominating to the publisher.
    Controlled,
    /// It only answers checks.
    Lite,
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ome => "ome",
            Self::Whip => "whip",
            Self::WowzaV1 => "wowza-v1",
            Self::WowzaV2 => "wowza-v2",
        })
    }
}

/// A name that is no [`Profile`].
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "unknown profile {0:?}: one of ome-0.16, ome-0.20, ome-0.21, qencode, whip, whip-ome, whip-wowza, wowza-cloud, wowza-se, wowza-v2"
)]
pub struct UnknownProfile(String);

impl Profile {
    /// Every profile, in the order of their names.
    pub const ALL: [Self; 10] = [
        Self::Ome016,
        Self::Ome020,
        Self::Ome021,
        Self::Qencode,
        Self::Whip,
        Self::WhipOme,
        Self::WhipWowza,
        Self::WowzaCloud,
        Self::WowzaSe,
        Self::WowzaV2,
    ];

    /// Its name on the command line, in reports and on the page.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ome016 => "ome-0.16",
            Self::Ome020 => "ome-0.20",
            Self::Ome021 => "ome-0.21",
            Self::Qencode => "qencode",
            Self::Whip => "whip",
            Self::WhipOme => "whip-ome",
            Self::WhipWowza => "whip-wowza",
            Self::WowzaCloud => "wowza-cloud",
            Self::WowzaSe => "wowza-se",
            Self::WowzaV2 => "wowza-v2",
        }
    }

    /// The handshake it speaks.
    pub const fn dialect(self) -> Dialect {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 | Self::Qencode => Dialect::Ome,
            Self::Whip | Self::WhipOme | Self::WhipWowza => Dialect::Whip,
            Self::WowzaCloud | Self::WowzaSe => Dialect::WowzaV1,
            Self::WowzaV2 => Dialect::WowzaV2,
        }
    }

    /// The application that exists there.
    pub const fn application(self) -> &'static str {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 | Self::WhipOme => "app",
            Self::Qencode => "qlive",
            Self::Whip => "whip",
            Self::WowzaCloud => "app-30zl5349",
            Self::WhipWowza | Self::WowzaSe | Self::WowzaV2 => "live",
        }
    }

    /// The stream name that [`super::Lab::endpoint`] hands out; others are accepted too.
    pub const fn stream(self) -> &'static str {
        match self {
            Self::Ome016 | Self::Ome020 | Self::Ome021 | Self::WhipOme => "stream",
            Self::Qencode => "1234e5b1-dfd7-4daa-8121-bc5c68bbeb37",
            Self::WowzaCloud => "32a5814b",
            Self::Whip | Self::WhipWowza | Self::WowzaSe | Self::WowzaV2 => "front",
        }
    }

    /// Whose control plane decides here under which names one may publish.
    pub(super) const fn vendor(self) -> Option<Vendor> {
        match self {
            Self::Qencode => Some(Vendor::Qencode),
            Self::WowzaCloud => Some(Vendor::Wowza),
            Self::Ome016
            | Self::Ome020
            | Self::Ome021
            | Self::Whip
            | Self::WhipOme
            | Self::WhipWowza
            | Self::WowzaSe
            | Self::WowzaV2 => None,
        }
    }

    /// Whether it is OvenMediaEngine from before 0.21: other candidates, and another meaning of `transport=tcp`.
    pub(super) const fn is_old_ome(self) -> bool {
        matches!(self, Self::Ome016 | Self::Ome020)
    }

    /// How long it waits for sender reports of both tracks before it shows anything, if it does.
    pub(super) const fn waits_for_reports(self) -> Option<Duration> {
        if matches!(self, Self::Ome016) {
            Some(Duration::from_secs(5))
        } else {
            None
        }
    }

    /// Whether it is OvenMediaEngine, by whichever handshake.
    pub(super) const fn is_ome(self) -> bool {
        matches!(
            self,
            Self::Ome016 | Self::Ome020 | Self::Ome021 | Self::Qencode | Self::WhipOme
        )
    }

    /// How often it asks for a key frame: OvenMediaEngine's `FIRInterval`; the rhythm of others is not known.
    pub(super) const fn key_frame_every(self) -> Duration {
        if self.is_ome() {
            Duration::from_secs(3)
        } else {
            Duration::from_secs(5)
        }
    }

    /// How long a silent publisher keeps its name: OvenMediaEngine's `Timeout`; Wowza's is not known, 20 s is assumed;
    /// the consent of RFC 7675 lasts 30 s.
    pub(super) const fn ghost(self) -> Duration {
        match self.dialect() {
            Dialect::Ome | Dialect::Whip => Duration::from_secs(30),
            Dialect::WowzaV1 | Dialect::WowzaV2 => Duration::from_secs(20),
        }
    }

    /// The part its engine takes in ICE.
    pub(super) const fn ice_role(self) -> IceRole {
        match self.dialect() {
            // OvenMediaEngine sends triggered checks here.
            Dialect::Ome => IceRole::Controlling,
            Dialect::Whip | Dialect::WowzaV2 => IceRole::Controlled,
            // It only answers checks, without calling itself lite.
            Dialect::WowzaV1 => IceRole::Lite,
        }
    }

    /// Whether `close_notify` ends a session; OvenMediaEngine ignores it.
    pub(super) const fn minds_close_notify(self) -> bool {
        !self.is_ome()
    }

    /// Whether it asks for video packets that are missing.
    pub(super) const fn nack(self) -> bool {
        match self {
            Self::Whip | Self::WhipWowza | Self::WowzaSe | Self::WowzaV2 => true,
            Self::Ome016
            | Self::Ome020
            | Self::Ome021
            | Self::Qencode
            | Self::WhipOme
            | Self::WowzaCloud => false,
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
