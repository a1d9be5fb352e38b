//! What led to a path before, so that the next session begins with it. Pure.

use crate::peer::Rung;
use crate::session::{Ended, Progress, Telemetry};
use crate::signal::Dialect;

/// Networks remembered; a device that roams further begins anew there.
const NETWORKS: usize = 16;

/// The rungs that won, by network and dialect.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// The latest last.
    won: Vec<(Place, Rung)>,
}

/// Where a rung won: a network by its name (see `network::Network`), and the dialect spoken.
type Place = (String, Dialect);

impl Memory {
    /// The rung to begin with.
    pub(super) fn first(&self, network: &str, dialect: Dialect) -> Option<Rung> {
        let here = |((n, d), _): &&(Place, Rung)| n == network && *d == dialect;
        self.won.iter().find(here).map(|(_, rung)| *rung)
    }

    /// Takes what a session teaches: of the network that its path was searched in, wherever the host is by now.
    /// `unreached`: no path came up, whatever is said to have ended it.
    pub(super) fn learn(&mut self, ended: &Ended, unreached: bool, session: &Telemetry) {
        match ended.progress {
            _ if unreached => self.forget(&session.network, ended.dialect),
            Progress::OnAir { .. } => {
                if let Some(pair) = session.peer.as_ref().and_then(|peer| peer.pair) {
                    self.won(&session.network, ended.dialect, pair.rung);
                }
            }
            Progress::Connecting | Progress::Sending | Progress::Signalling => {}
        }
    }

    /// Media took `rung`.
    fn won(&mut self, network: &str, dialect: Dialect, rung: Rung) {
        self.forget(network, dialect);
        if self.won.len() >= NETWORKS {
            self.won.remove(0);
        }
        self.won.push(((network.to_owned(), dialect), rung));
    }

    /// No path came up: whatever won before shall not be preferred.
    fn forget(&mut self, network: &str, dialect: Dialect) {
        (self.won).retain(|((n, d), _)| n != network || *d != dialect);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::peer::{Counters, SelectedPair};
    use crate::platform;
    use crate::session::EndReason;

    #[test]
    fn a_win_is_remembered_for_the_network_that_it_was_won_in() {
        let mut memory = Memory::default();
        let far = ([192, 0, 2, 1], 443).into();
        let session = |network: &str, rung| Telemetry {
            network: network.to_owned(),
            peer: Some(Counters {
                pair: Some(SelectedPair {
                    rung,
                    local: ([192, 0, 2, 7], 9).into(),
                    remote: far,
                    leaves_from: far.ip(),
                }),
                ..Counters::default()
            }),
            ..Telemetry::default()
        };
        let on_air = || Progress::OnAir {
            since: Instant::now(),
            confirmed: true,
        };
        let ended = |reason, progress| Ended {
            reason,
            progress,
            dialect: Dialect::Ome,
        };
        let left = EndReason::NetworkChanged {
            what: "the way out is now over train".to_owned(),
        };
        memory.learn(&ended(left, on_air()), false, &session("home", Rung::Tcp));
        assert_eq!(memory.first("home", Dialect::Ome), Some(Rung::Tcp));
        let lost = ended(EndReason::Lost, Progress::Sending);
        memory.learn(&lost, false, &session("home", Rung::Udp));
        assert_eq!(memory.first("home", Dialect::Ome), Some(Rung::Tcp));
        // As where a platform that could not vouch for the server has the last word.
        let never = platform::Error::DailyLimit {
            ran_minutes: 60,
            limit_minutes: 60,
        };
        let never = ended(never.into(), Progress::Connecting);
        memory.learn(&never, true, &session("train", Rung::Tcp));
        assert_eq!(memory.first("home", Dialect::Ome), Some(Rung::Tcp));
        memory.learn(&never, true, &session("home", Rung::Tcp));
        assert_eq!(memory.first("home", Dialect::Ome), None);
    }

    #[test]
    fn each_network_and_dialect_has_its_own_winner() {
        let mut memory = Memory::default();
        memory.won("home", Dialect::Ome, Rung::TurnTcp);
        memory.won("home", Dialect::WowzaV2, Rung::Tcp);
        memory.won("train", Dialect::Ome, Rung::TurnTls);
        assert_eq!(memory.first("home", Dialect::Ome), Some(Rung::TurnTcp));
        assert_eq!(memory.first("home", Dialect::WowzaV2), Some(Rung::Tcp));
        assert_eq!(memory.first("train", Dialect::WowzaV2), None);
        memory.won("home", Dialect::Ome, Rung::Udp);
        assert_eq!(memory.first("home", Dialect::Ome), Some(Rung::Udp));
        memory.forget("home", Dialect::Ome);
        assert_eq!(memory.first("home", Dialect::Ome), None);
        assert_eq!(memory.first("train", Dialect::Ome), Some(Rung::TurnTls));
    }

    #[test]
    fn the_oldest_network_is_forgotten_first() {
        let mut memory = Memory::default();
        for n in 0..=NETWORKS {
            memory.won(&n.to_string(), Dialect::Ome, Rung::Udp);
        }
        assert_eq!(memory.first("0", Dialect::Ome), None);
        assert_eq!(memory.first("1", Dialect::Ome), Some(Rung::Udp));
        assert_eq!(memory.won.len(), NETWORKS);
    }
}
