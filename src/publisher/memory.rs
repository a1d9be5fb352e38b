//! What led to a path before, so that the next session begins with it. Pure.

use crate::peer::Rung;
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

    /// Media took `rung`.
    pub(super) fn won(&mut self, network: &str, dialect: Dialect, rung: Rung) {
        self.forget(network, dialect);
        if self.won.len() >= NETWORKS {
            self.won.remove(0);
        }
        self.won.push(((network.to_owned(), dialect), rung));
    }

    /// No path came up: whatever won before shall not be preferred.
    pub(super) fn forget(&mut self, network: &str, dialect: Dialect) {
        (self.won).retain(|((n, d), _)| n != network || *d != dialect);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
