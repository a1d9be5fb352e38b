//! What takes minutes, on virtual time: the publisher's own machine against a server that is told here.
//!
//! How long a session takes to be on air is drawn from what the runs over the real engine take (0.6 to 1.1 s, most of
//! it the rhythm of receiver reports); an attempt that waits for a path is let through when the path is there.

use std::fmt;
use std::time::{Duration, Instant};

use onair::net;
use onair::publisher::Hold;
use onair::publisher::lifecycle::{Action, Input, Lifecycle};
use onair::session::{EndReason, Ended, Progress};
use onair::signal::{self, Dialect};

/// How long each attempt of OvenMediaEngine's dialect looks for a path: it is asked otherwise in between.
const SEARCHES: [u64; 4] = [5, 10, 15, 20];

/// What goes wrong, and for how many seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Told {
    /// The server's name is not found.
    Dns(u64),
    /// The server takes no connection, as while it is down.
    Down(u64),
    /// No packet of media passes; signalling does.
    UdpSilence(u64),
}

impl Told {
    pub(crate) const ALL: [Self; 8] = [
        Self::Dns(10),
        Self::Dns(60),
        Self::Dns(300),
        Self::Down(60),
        Self::Down(300),
        Self::UdpSilence(10),
        Self::UdpSilence(60),
        Self::UdpSilence(300),
    ];

    /// One run: from the end of the fault until media is accepted.
    pub(crate) fn run(self, seed: u64) -> Duration {
        let mut chance = fastrand::Rng::with_seed(seed);
        let mut machine = Lifecycle::new(Hold::Server, fastrand::Rng::with_seed(!seed));
        let ms = Duration::from_millis;
        let mut now = Instant::now();
        assert_eq!(machine.on(now, Input::Start), Action::Begin);
        let since = now;
        let on_air = Progress::OnAir {
            since,
            confirmed: true,
        };
        machine.on(now, Input::Progress(on_air.clone()));
        now += ms(chance.u64(1_000..600_000));
        let over = now + Duration::from_secs(self.seconds()) + ms(chance.u64(0..1_000));
        // A silence is noticed after that of five seconds and three of grace; a dead server's connection at once.
        now += match self {
            Self::Dns(_) | Self::Down(_) => ms(0),
            Self::UdpSilence(_) => ms(8_000 + chance.u64(0..1_000)),
        };
        let mut ended = (EndReason::Lost, on_air);
        for attempt in 0.. {
            let (reason, progress) = ended;
            let fact = Ended {
                reason,
                progress,
                dialect: Dialect::Ome,
            };
            machine.on(now, Input::Ended(fact));
            // The machine waits for nothing without a deadline.
            now = machine.next_deadline().unwrap_or(now);
            assert_eq!(machine.on(now, Input::Tick), Action::Begin);
            let accepted = ms(chance.u64(600..1_100));
            let search = Duration::from_secs(SEARCHES[(attempt as usize).min(3)]);
            let endpoint = || "wss://server:3334".to_owned();
            let failed = |step, why: &str| {
                EndReason::Signal(signal::Error::Connect(net::Error::Failed {
                    endpoint: endpoint(),
                    step,
                    why: why.to_owned(),
                    source: None,
                }))
            };
            ended = match self {
                _ if now >= over => return now + accepted - over,
                Self::Dns(_) => {
                    now += ms(chance.u64(1..50));
                    (failed(net::Step::Dns, "not found"), Progress::Signalling)
                }
                Self::Down(_) => {
                    now += ms(1);
                    (failed(net::Step::Tcp, "refused"), Progress::Signalling)
                }
                Self::UdpSilence(_) if now + search > over => return accepted,
                Self::UdpSilence(_) => {
                    now += search;
                    let never = EndReason::NeverConnected {
                        stage: None,
                        climbs: Vec::new(),
                    };
                    (never, Progress::Connecting)
                }
            };
        }
        unreachable!("attempts never end by themselves")
    }

    const fn seconds(self) -> u64 {
        match self {
            Self::Dns(seconds) | Self::Down(seconds) | Self::UdpSilence(seconds) => seconds,
        }
    }
}

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.seconds();
        match self {
            Self::Dns(_) => write!(f, "DNS failure {seconds} s, virtual time"),
            Self::Down(_) => write!(f, "server down {seconds} s, virtual time"),
            Self::UdpSilence(_) => write!(f, "UDP silence {seconds} s, virtual time"),
        }
    }
}
