//! The faults: what is done to a pair on air, and from when on it could be on air again.

use std::fmt;
use std::time::{Duration, Instant};

use onair::config::platform::{OnExit, Platform, StreamRef, Vendor};
use onair::config::secret::{Bearer, Secret, SecretSource};
use onair::config::{Publisher, Server, WowzaDialect};
use onair::lab::{Fault as Lab, LabConfig, Profile, RestConfig};
use onair::publisher::{Snapshot, State, Verdict};

use crate::pair::Pair;

/// What goes wrong.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fault {
    /// The server wants another credential, which is put where the publisher reads it after a while.
    Credential,
    /// The vendor stops the stream under the publisher, which has it started again; that takes the vendor's time, at
    /// Wowza one to three seconds in a lab whose clocks run twenty times as fast.
    PlatformStopped(Profile),
    /// A running session's signalling connection is cut.
    SocketReset(Profile),
    /// The server stops and is back after a while.
    ServerRestart(Profile),
    /// No packet of media passes in either direction for these seconds; signalling does.
    UdpSilence(Profile, u64),
    /// The session ends, and its name stays taken for these seconds.
    Ghost(Profile, u64),
}

impl Fault {
    pub(crate) const ALL: [Self; 15] = [
        Self::SocketReset(Profile::Ome021),
        Self::SocketReset(Profile::WowzaV2),
        Self::ServerRestart(Profile::Ome021),
        Self::ServerRestart(Profile::WowzaSe),
        Self::ServerRestart(Profile::WowzaV2),
        Self::ServerRestart(Profile::Whip),
        Self::UdpSilence(Profile::Ome021, 10),
        Self::UdpSilence(Profile::WowzaSe, 10),
        Self::UdpSilence(Profile::Whip, 10),
        Self::UdpSilence(Profile::Ome021, 60),
        Self::UdpSilence(Profile::WowzaSe, 60),
        Self::Ghost(Profile::Ome021, 30),
        Self::Credential,
        Self::PlatformStopped(Profile::WowzaCloud),
        Self::PlatformStopped(Profile::Qencode),
    ];

    /// One run, from on air to on air: how long it took from when that was possible again.
    pub(crate) async fn run(self, seed: u64) -> anyhow::Result<Duration> {
        let mut chance = fastrand::Rng::with_seed(seed);
        let credential = tempfile::NamedTempFile::new()?;
        let write = |token: &str| std::fs::write(credential.path(), token);
        write("old")?;
        let lab = |lab: &mut LabConfig| match self {
            Self::Credential => lab.bearer = Some("old".to_owned()),
            Self::PlatformStopped(_) => {
                let mut rest = RestConfig::new(Secret::new("token"), Secret::new("key"));
                // Qencode takes no time to start a stream, and gives up one without input after two minutes.
                let wowza = matches!(self, Self::PlatformStopped(Profile::WowzaCloud));
                rest.time_scale = Some(if wowza { 0.05 } else { 1.0 });
                rest.streams = vec!["front".to_owned()];
                lab.rest = Some(rest);
            }
            Self::Ghost(..)
            | Self::ServerRestart(_)
            | Self::SocketReset(_)
            | Self::UdpSilence(..) => {}
        };
        let publish = |publisher: &mut Publisher, lab: &onair::lab::Lab| {
            if let Server::Whip { bearer, .. } = &mut publisher.server
                && matches!(self, Self::Credential)
            {
                *bearer = Some(Bearer {
                    token: Secret::new("old"),
                    source: Some(SecretSource::File(credential.path().to_owned())),
                });
            }
            if let Self::PlatformStopped(profile) = self {
                publisher.server = Server::Platform(Box::new(platform(profile, lab)));
            }
        };
        let mut pair = Pair::start(self.profile(), seed, lab, publish).await?;
        let first = pair.until(Snapshot::is_on_air).await?;
        tokio::time::sleep(Duration::from_millis(chance.u64(0..3_000))).await;
        let possible = match self {
            Self::SocketReset(_) => {
                pair.commit(Lab::DropSocket);
                Instant::now()
            }
            Self::Credential => {
                pair.stop_lab().await;
                pair.start_lab_with("new").await?;
                let refused = |p: &Snapshot| {
                    let State::Waiting { verdict, .. } = &p.state else {
                        return false;
                    };
                    matches!(verdict, Verdict::Operator { .. })
                };
                pair.until(refused).await?;
                tokio::time::sleep(Duration::from_millis(chance.u64(0..10_000))).await;
                write("new")?;
                Instant::now()
            }
            Self::PlatformStopped(_) => {
                pair.commit(Lab::RestStop);
                Instant::now()
            }
            Self::ServerRestart(_) => {
                pair.stop_lab().await;
                pair.until(|p| matches!(p.state, State::Waiting { .. }))
                    .await?;
                tokio::time::sleep(Duration::from_millis(chance.u64(0..10_000))).await;
                pair.start_lab().await?;
                Instant::now()
            }
            Self::UdpSilence(_, seconds) => {
                pair.commit(Lab::BlackHole {
                    ms: seconds * 1_000,
                });
                let over = Instant::now() + Duration::from_secs(seconds);
                tokio::time::sleep_until(over.into()).await;
                over
            }
            Self::Ghost(_, seconds) => {
                pair.commit(Lab::HoldName {
                    ms: seconds * 1_000,
                });
                pair.commit(Lab::End);
                let over = Instant::now() + Duration::from_secs(seconds);
                pair.until(|p| p.sessions > first.sessions).await?;
                over
            }
        };
        let seen = pair.decoded();
        // A session that outlived a silence is on air all the time by its own reports; what counts is the picture.
        let outlived = matches!(self, Self::UdpSilence(..));
        pair.until(|p| p.is_on_air() && (outlived || p.sessions > first.sessions))
            .await?;
        pair.until_decoded(seen + 1).await?;
        pair.until(Snapshot::is_on_air).await?;
        let took = possible.elapsed();
        pair.end().await;
        Ok(took)
    }

    const fn profile(self) -> Profile {
        match self {
            Self::Credential => Profile::Whip,
            Self::PlatformStopped(profile)
            | Self::SocketReset(profile)
            | Self::ServerRestart(profile)
            | Self::UdpSilence(profile, _)
            | Self::Ghost(profile, _) => profile,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let profile = self.profile();
        match self {
            Self::Credential => write!(f, "401 and then a new credential, {profile}"),
            Self::PlatformStopped(_) => write!(f, "platform stopped, {profile}"),
            Self::SocketReset(_) => write!(f, "socket reset, {profile}"),
            Self::ServerRestart(_) => write!(f, "server restart, {profile}"),
            Self::UdpSilence(_, seconds) => write!(f, "UDP silence {seconds} s, {profile}"),
            Self::Ghost(_, seconds) => write!(f, "ghost {seconds} s, {profile}"),
        }
    }
}

/// The stream `front` at the control plane of a lab's vendor.
fn platform(profile: Profile, lab: &onair::lab::Lab) -> Platform {
    let (vendor, at, token) = if profile == Profile::Qencode {
        (
            Vendor::Qencode { callback_url: None },
            onair::lab::Vendor::Qencode,
            "key",
        )
    } else {
        let dialect = WowzaDialect::V1;
        (
            Vendor::WowzaVideo {
                dialect,
                create: None,
            },
            onair::lab::Vendor::Wowza,
            "token",
        )
    };
    Platform {
        vendor,
        credential: Bearer {
            token: Secret::new(token),
            source: None,
        },
        api: Secret::new(lab.rest(at).unwrap_or_default()),
        stream: StreamRef::Name("front".to_owned()),
        on_exit: OnExit::Stop,
        daily_minutes: None,
    }
}
