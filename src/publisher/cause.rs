//! What put a publisher off the air, in a few words for figures; and how long it took to be back. Pure.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::session::EndReason;

/// What put a publisher off the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Cause {
    /// Something of onair itself.
    Internal,
    /// Media was lost, or never came through.
    Media,
    /// The network changed.
    Network,
    /// The platform was out of reach or refused, or its stream was stopped.
    Platform,
    /// The server refused.
    Refused,
    /// Its hours or its day began.
    Schedule,
    /// The conversation with the server broke.
    Signalling,
    /// It was started.
    Start,
    /// The server was out of reach.
    Unreachable,
}

impl Cause {
    /// The cause that the end of a session is.
    pub(super) const fn of(reason: &EndReason) -> Self {
        use crate::signal::Error;
        match reason {
            EndReason::Lost | EndReason::NeverConnected { .. } | EndReason::NotAccepted => {
                Self::Media
            }
            EndReason::Engine(_) | EndReason::FeedEnded | EndReason::Panicked(_) => Self::Internal,
            EndReason::NetworkChanged { .. } => Self::Network,
            EndReason::Platform(_) => Self::Platform,
            EndReason::Signal(error) => match error {
                Error::Connect(_) => Self::Unreachable,
                Error::Refused { .. } => Self::Refused,
                Error::Closed { .. }
                | Error::NoRestart
                | Error::OtherDialect { .. }
                | Error::Protocol { .. }
                | Error::Sdp { .. }
                | Error::StreamGone { .. }
                | Error::Timeout { .. } => Self::Signalling,
            },
            EndReason::Stopped => Self::Start,
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Internal => "internal",
            Self::Media => "media",
            Self::Network => "network",
            Self::Platform => "platform",
            Self::Refused => "refused",
            Self::Schedule => "schedule",
            Self::Signalling => "signalling",
            Self::Start => "start",
            Self::Unreachable => "unreachable",
        })
    }
}

/// How often a publisher came back on air after one cause, and how long that took.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery {
    /// Times.
    pub times: u64,
    /// All of them together.
    pub total: Duration,
    /// The last one.
    pub last: Duration,
    /// The longest one.
    pub longest: Duration,
}

/// How long it took to be on air, by what had put it off the air.
pub type Recoveries = BTreeMap<Cause, Recovery>;

/// Adds one.
pub(super) fn note(recoveries: &mut Recoveries, cause: Cause, took: Duration) {
    let recovery = recoveries.entry(cause).or_default();
    recovery.times = recovery.times.saturating_add(1);
    recovery.total = recovery.total.saturating_add(took);
    recovery.last = took;
    recovery.longest = recovery.longest.max(took);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cause_has_its_own_figures() {
        let mut all = Recoveries::new();
        let s = Duration::from_secs;
        for (cause, took) in [
            (Cause::Media, s(3)),
            (Cause::Media, s(1)),
            (Cause::Start, s(9)),
        ] {
            note(&mut all, cause, took);
        }
        let media = Recovery {
            times: 2,
            total: s(4),
            last: s(1),
            longest: s(3),
        };
        assert_eq!(all[&Cause::Media], media);
        assert_eq!(all[&Cause::Start].times, 1);
        assert_eq!(Cause::of(&EndReason::Lost).to_string(), "media");
    }
}
