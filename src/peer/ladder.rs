//! The ladder of transports: which ways media may take to a server, in which order, and what became of each.
//!
//! All rungs are raced, each with a head start over the next ([`HEAD_START`]), so that a network without obstacles is
//! used directly and one with them costs a fraction of a second per rung. The rung whose connectivity check is
//! answered first wins, and from then on the others are silent: a server that keeps the first pair it sees nominated
//! must never see two.

use std::time::Duration;

use crate::config::Transport;

/// Head start of each rung over the next one that can be tried. A rung known to have failed gives up its place at once.
pub(super) const HEAD_START: Duration = Duration::from_millis(300);

/// One way for media to take.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Rung {
    /// Straight to the server over UDP.
    Udp,
    /// Straight to the server over TCP (RFC 6544), we dial.
    Tcp,
    /// Through a TURN server reached over UDP.
    TurnUdp,
    /// Through a TURN server reached over TCP.
    TurnTcp,
    /// Through a TURN server reached over TLS.
    TurnTls,
}

impl Rung {
    /// All of them, the preferred first.
    pub const ALL: [Self; 5] = [
        Self::Udp,
        Self::Tcp,
        Self::TurnUdp,
        Self::TurnTcp,
        Self::TurnTls,
    ];

    /// Whether `transport` allows it.
    pub const fn allowed(self, transport: Transport) -> bool {
        match transport {
            Transport::Auto => true,
            Transport::Relay => matches!(self, Self::TurnUdp | Self::TurnTcp | Self::TurnTls),
            Transport::Tcp => matches!(self, Self::Tcp | Self::TurnTcp | Self::TurnTls),
            Transport::Udp => matches!(self, Self::Udp),
        }
    }
}

impl std::fmt::Display for Rung {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Udp => "udp",
            Self::Tcp => "tcp",
            Self::TurnUdp => "turn-udp",
            Self::TurnTcp => "turn-tcp",
            Self::TurnTls => "turn-tls",
        })
    }
}

/// Which rungs an attempt may try, and which first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ladder {
    /// What the configuration allows.
    pub transport: Transport,
    /// The rung that won last time on this network; it starts at once, before all others.
    pub first: Option<Rung>,
}

/// What became of one rung in one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Climb {
    /// The rung.
    pub rung: Rung,
    /// From the beginning of the attempt's search for a path to the outcome; `None` while there is none.
    pub after: Option<Duration>,
    /// The outcome so far.
    pub outcome: Outcome,
}

/// How it went on a rung.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing to try: the server offers no such way, or no TURN server is known. Says which.
    Absent(String),
    /// Media takes it.
    Chosen,
    /// It cannot be used; says why, without secrets.
    Failed(String),
    /// Its turn has not come, or another rung won before.
    Idle,
    /// Checks went out and none was answered so far.
    Unanswered,
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent(why) | Self::Failed(why) => f.write_str(why),
            Self::Chosen => f.write_str("chosen"),
            Self::Idle => f.write_str("not needed"),
            Self::Unanswered => f.write_str("no answer to connectivity checks"),
        }
    }
}
