//! The race of the rungs: which may try when, which has won, and what became of the others.
//!
//! Told the time and nothing else. A rung is silent in both directions before its turn and after another's victory; in
//! between its connectivity checks go out, and the first answer to one of them decides. An answer counts only if it
//! names a check that was sent, so a stranger's packet wins nothing.

use std::collections::VecDeque;
use std::time::Instant;

use super::ladder::{Climb, HEAD_START, Ladder, Outcome, Rung};

/// Checks remembered as sent: at one every 50 ms and pair, some seconds' worth.
const CHECKS: usize = 512;

/// Identifies a check and its answer (RFC 8489, section 5).
type Transaction = [u8; 12];

/// What is known of one rung.
#[derive(Clone, Debug, Default)]
struct Entry {
    /// The server has a candidate that it can reach.
    offered: bool,
    /// A TURN server is known, where one is needed.
    served: bool,
    /// When its turn came.
    started: Option<Instant>,
    /// Why it cannot be used, and since when.
    failed: Option<(String, Instant)>,
}

/// The race of one attempt, or of one ICE restart.
#[derive(Debug)]
pub(super) struct Race {
    /// The rungs that may be tried, in their order.
    order: Vec<Rung>,
    entries: [Entry; Rung::ALL.len()],
    began: Option<Instant>,
    /// The rung that started last.
    latest: Option<(Rung, Instant)>,
    won: Option<(Rung, Instant)>,
    checks: VecDeque<(Rung, Transaction)>,
}

impl Race {
    /// Nothing is known yet.
    pub(super) fn new(ladder: Ladder) -> Self {
        let mut order: Vec<Rung> = Rung::ALL
            .into_iter()
            .filter(|rung| rung.allowed(ladder.transport))
            .collect();
        order.sort_by_key(|&rung| ladder.first != Some(rung));
        Self {
            order,
            entries: std::array::from_fn(|_| Entry::default()),
            began: None,
            latest: None,
            won: None,
            checks: VecDeque::new(),
        }
    }

    /// Runs it again, as after an ICE restart: which TURN servers there are stays known, nothing else does.
    pub(super) fn restart(&mut self) {
        for entry in &mut self.entries {
            *entry = Entry {
                served: entry.served,
                ..Entry::default()
            };
        }
        (self.began, self.latest, self.won) = (None, None, None);
        self.checks.clear();
    }

    /// The server has a candidate that this rung reaches. The first one begins the search.
    pub(super) fn offered(&mut self, rung: Rung, now: Instant) {
        if self.order.contains(&rung) {
            self.began.get_or_insert(now);
            self.entries[rung as usize].offered = true;
        }
    }

    /// A TURN server of this rung is known. Where all known before have failed, it may be tried again.
    pub(super) fn served(&mut self, rung: Rung) {
        let entry = &mut self.entries[rung as usize];
        entry.served = true;
        entry.failed = None;
    }

    /// Starts whatever is due, and tells when something will be. To be asked again after every change.
    pub(super) fn advance(&mut self, now: Instant) -> Option<Instant> {
        loop {
            if self.began.is_none() || self.won.is_some() {
                return None;
            }
            let next = self.order.iter().copied().find(|&rung| {
                self.entries[rung as usize].started.is_none() && self.absence(rung).is_none()
            })?;
            let due = match self.latest {
                Some((latest, since)) if self.entries[latest as usize].failed.is_none() => {
                    since + HEAD_START
                }
                _ => now,
            };
            if due > now {
                return Some(due);
            }
            self.entries[next as usize].started = Some(now);
            self.latest = Some((next, now));
        }
    }

    /// Whether this rung's turn has come and none has won.
    pub(super) fn runs(&self, rung: Rung) -> bool {
        self.won.is_none() && self.entries[rung as usize].started.is_some()
    }

    /// Whether packets may pass over this rung, in either direction.
    pub(super) fn passes(&self, rung: Rung) -> bool {
        match self.won {
            Some((winner, _)) => winner == rung,
            None => self.entries[rung as usize].started.is_some(),
        }
    }

    /// The rung that has won.
    pub(super) fn winner(&self) -> Option<Rung> {
        self.won.map(|(rung, _)| rung)
    }

    /// A check goes out over this rung.
    pub(super) fn checked(&mut self, rung: Rung, transaction: Transaction) {
        if self.won.is_none() {
            if self.checks.len() >= CHECKS {
                self.checks.pop_front();
            }
            self.checks.push_back((rung, transaction));
        }
    }

    /// A check was answered over this rung; whether that decides the race.
    pub(super) fn answered(&mut self, rung: Rung, transaction: Transaction, now: Instant) -> bool {
        let decides = self.runs(rung) && self.checks.contains(&(rung, transaction));
        if decides {
            self.won = Some((rung, now));
            self.entries[rung as usize].failed = None;
            self.checks = VecDeque::new();
        }
        decides
    }

    /// This rung cannot be used; the next one starts at once.
    pub(super) fn failed(&mut self, rung: Rung, why: String, now: Instant) {
        self.entries[rung as usize].failed = Some((why, now));
    }

    /// What stood in this rung's way is gone.
    pub(super) fn recovered(&mut self, rung: Rung) {
        self.entries[rung as usize].failed = None;
    }

    /// Whether this rung may be tried at all.
    pub(super) fn may(&self, rung: Rung) -> bool {
        self.order.contains(&rung)
    }

    /// Whether this rung has failed.
    pub(super) fn has_failed(&self, rung: Rung) -> bool {
        self.entries[rung as usize].failed.is_some()
    }

    /// What became of each rung that may be tried, in the order of trying.
    pub(super) fn climbs(&self) -> Vec<Climb> {
        let climb = |&rung: &Rung| {
            let entry = &self.entries[rung as usize];
            let (outcome, at) = match (&entry.failed, self.won) {
                (Some((why, at)), _) => (Outcome::Failed(why.clone()), Some(*at)),
                (None, Some((winner, at))) if winner == rung => (Outcome::Chosen, Some(at)),
                (None, _) => match self.absence(rung) {
                    Some(why) => (Outcome::Absent(why.to_owned()), None),
                    None if entry.started.is_some() => (Outcome::Unanswered, None),
                    None => (Outcome::Idle, None),
                },
            };
            let after = at.and_then(|at| Some(at.saturating_duration_since(self.began?)));
            Climb {
                rung,
                after,
                outcome,
            }
        };
        self.order.iter().map(climb).collect()
    }

    /// Why a rung cannot even be tried.
    fn absence(&self, rung: Rung) -> Option<&'static str> {
        let entry = &self.entries[rung as usize];
        let unserved = match rung {
            Rung::Udp | Rung::Tcp => None,
            Rung::TurnUdp => Some("no TURN server over UDP is known"),
            Rung::TurnTcp => Some("no TURN server over TCP is known"),
            Rung::TurnTls => Some("no TURN server over TLS is known"),
        };
        let unoffered = match rung {
            Rung::Udp => "the server offers no UDP candidate",
            Rung::Tcp => "the server offers no TCP candidate",
            // Relaying to TCP candidates would take RFC 6062, which no TURN server in this field speaks.
            Rung::TurnUdp | Rung::TurnTcp | Rung::TurnTls => {
                "the server offers no IPv4 UDP candidate for a relay to reach"
            }
        };
        unserved
            .filter(|_| !entry.served)
            .or((!entry.offered).then_some(unoffered))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Transport;

    const MS: Duration = Duration::from_millis(1);

    fn race(transport: Transport, first: Option<Rung>) -> (Race, Instant) {
        (Race::new(Ladder { transport, first }), Instant::now())
    }

    /// Everything there is to try.
    fn full(transport: Transport, first: Option<Rung>) -> (Race, Instant) {
        let (mut race, start) = race(transport, first);
        for rung in Rung::ALL {
            race.served(rung);
            race.offered(rung, start);
        }
        (race, start)
    }

    fn running(race: &Race) -> Vec<Rung> {
        let mut running: Vec<Rung> = Rung::ALL.into_iter().filter(|&r| race.runs(r)).collect();
        running.sort_by_key(|&rung| race.entries[rung as usize].started);
        running
    }

    /// Lets the race run to its end without an answer; when each rung started, in milliseconds.
    fn starts(mut race: Race, start: Instant) -> Vec<(Rung, u128)> {
        let mut now = start;
        let mut seen = Vec::new();
        loop {
            let due = race.advance(now);
            for rung in running(&race) {
                if !seen.iter().any(|(r, _)| *r == rung) {
                    seen.push((rung, (now - start).as_millis()));
                }
            }
            match due {
                Some(due) => now = due,
                None => return seen,
            }
        }
    }

    fn outcome(race: &Race, rung: Rung) -> (Outcome, Option<Duration>) {
        let climbs = race.climbs();
        let climb = climbs.into_iter().find(|climb| climb.rung == rung);
        climb.map(|c| (c.outcome, c.after)).expect("a climb")
    }

    #[test]
    fn every_rung_has_a_head_start_over_the_next() {
        let (race, start) = full(Transport::Auto, None);
        let expected = [
            (Rung::Udp, 0),
            (Rung::Tcp, 300),
            (Rung::TurnUdp, 600),
            (Rung::TurnTcp, 900),
            (Rung::TurnTls, 1_200),
        ];
        assert_eq!(starts(race, start), expected);
    }

    #[test]
    fn the_remembered_rung_starts_first_and_the_others_keep_their_order() {
        for first in Rung::ALL {
            let (race, start) = full(Transport::Auto, Some(first));
            let started = starts(race, start);
            let mut order = vec![first];
            order.extend(Rung::ALL.into_iter().filter(|&rung| rung != first));
            let seen: Vec<Rung> = started.iter().map(|(rung, _)| *rung).collect();
            assert_eq!(seen, order);
            assert_eq!(started[4].1, 1_200);
        }
    }

    #[test]
    fn the_configured_transport_bounds_the_race() {
        use Rung::{Tcp, TurnTcp, TurnTls, TurnUdp, Udp};
        let seen = |transport, first| {
            let (race, start) = full(transport, first);
            starts(race, start)
        };
        assert_eq!(seen(Transport::Udp, Some(TurnTcp)), [(Udp, 0)]);
        assert_eq!(
            seen(Transport::Tcp, None),
            [(Tcp, 0), (TurnTcp, 300), (TurnTls, 600)]
        );
        assert_eq!(
            seen(Transport::Relay, Some(TurnTls)),
            [(TurnTls, 0), (TurnUdp, 300), (TurnTcp, 600)]
        );
    }

    #[test]
    fn what_is_absent_takes_no_time_and_says_why() {
        let (mut race, start) = race(Transport::Auto, None);
        assert_eq!(race.advance(start), None, "nothing is known");
        race.served(Rung::TurnTcp);
        race.offered(Rung::Tcp, start);
        assert_eq!(race.advance(start), None);
        assert_eq!(running(&race), [Rung::Tcp]);
        let absent = |rung| match outcome(&race, rung) {
            (Outcome::Absent(why), None) => why,
            other => panic!("{rung}: {other:?}"),
        };
        assert_eq!(absent(Rung::Udp), "the server offers no UDP candidate");
        assert_eq!(absent(Rung::TurnUdp), "no TURN server over UDP is known");
        assert_eq!(
            absent(Rung::TurnTcp),
            "the server offers no IPv4 UDP candidate for a relay to reach"
        );
        assert_eq!(outcome(&race, Rung::Tcp), (Outcome::Unanswered, None));
    }

    #[test]
    fn a_failure_gives_up_its_place_at_once() {
        let (mut race, start) = full(Transport::Auto, Some(Rung::Tcp));
        race.advance(start);
        let now = start + 20 * MS;
        race.failed(Rung::Tcp, "connection refused".to_owned(), now);
        assert_eq!(race.advance(now), Some(now + HEAD_START));
        assert_eq!(running(&race), [Rung::Tcp, Rung::Udp]);
        assert_eq!(
            outcome(&race, Rung::Tcp),
            (
                Outcome::Failed("connection refused".to_owned()),
                Some(20 * MS)
            )
        );
        // A failure of one that is not the latest hastens nothing.
        let now = now + HEAD_START;
        race.advance(now);
        assert_eq!(running(&race), [Rung::Tcp, Rung::Udp, Rung::TurnUdp]);
        race.failed(Rung::Udp, "x".to_owned(), now + MS);
        assert_eq!(race.advance(now + MS), Some(now + HEAD_START));
        race.failed(Rung::TurnUdp, "x".to_owned(), now + 2 * MS);
        race.advance(now + 2 * MS);
        assert!(race.runs(Rung::TurnTcp));
    }

    #[test]
    fn failures_one_after_another_start_all_at_one_instant() {
        let (mut race, start) = full(Transport::Auto, None);
        for rung in Rung::ALL {
            race.advance(start);
            assert!(race.runs(rung), "{rung}");
            race.failed(rung, "no".to_owned(), start);
        }
        assert_eq!(race.advance(start), None);
        assert_eq!(race.winner(), None);
    }

    #[test]
    fn the_first_answer_decides_and_silences_the_others() {
        for winner in Rung::ALL {
            let (mut race, start) = full(Transport::Auto, None);
            let mut now = start;
            while let Some(due) = race.advance(now) {
                now = due;
            }
            for (n, rung) in Rung::ALL.into_iter().enumerate() {
                assert!(race.passes(rung));
                race.checked(rung, [n as u8; 12]);
            }
            let id = [winner as u8; 12];
            assert!(!race.answered(winner, [99; 12], now), "never asked");
            let another = Rung::ALL[(winner as usize + 1) % 5];
            assert!(!race.answered(another, id, now), "asked elsewhere");
            assert!(race.answered(winner, id, now));
            assert!(!race.answered(winner, id, now), "decided already");
            assert_eq!(race.winner(), Some(winner));
            for rung in Rung::ALL {
                assert_eq!(race.passes(rung), rung == winner);
                let expected = if rung == winner {
                    (Outcome::Chosen, Some(now - start))
                } else {
                    (Outcome::Unanswered, None)
                };
                assert_eq!(outcome(&race, rung), expected);
            }
        }
    }

    #[test]
    fn nothing_starts_after_the_victory() {
        let (mut race, start) = full(Transport::Auto, None);
        race.advance(start);
        race.checked(Rung::Udp, [1; 12]);
        assert!(!race.passes(Rung::TurnTls), "its turn has not come");
        assert!(race.answered(Rung::Udp, [1; 12], start + 9 * MS));
        assert_eq!(race.advance(start + 10_000 * MS), None);
        assert_eq!(outcome(&race, Rung::Tcp), (Outcome::Idle, None));
        // A victory that is worth nothing is told as the failure it is.
        race.failed(Rung::Udp, "dtls failed".to_owned(), start + 8_000 * MS);
        assert_eq!(
            outcome(&race, Rung::Udp),
            (Outcome::Failed("dtls failed".to_owned()), Some(8_000 * MS))
        );
    }

    #[test]
    fn a_server_learnt_late_gives_a_failed_rung_another_chance() {
        let (mut race, start) = full(Transport::Relay, None);
        race.advance(start);
        race.failed(Rung::TurnUdp, "401".to_owned(), start);
        assert!(race.has_failed(Rung::TurnUdp));
        race.served(Rung::TurnUdp);
        assert!(race.runs(Rung::TurnUdp) && !race.has_failed(Rung::TurnUdp));
    }

    #[test]
    fn a_restart_runs_the_race_again() {
        let (mut race, start) = full(Transport::Auto, None);
        race.advance(start);
        race.checked(Rung::Udp, [1; 12]);
        assert!(race.answered(Rung::Udp, [1; 12], start));
        race.restart();
        assert!(Rung::ALL.into_iter().all(|rung| !race.passes(rung)));
        let later = start + 60_000 * MS;
        race.offered(Rung::TurnTcp, later);
        assert_eq!(race.advance(later), None);
        assert_eq!(running(&race), [Rung::TurnTcp]);
        race.checked(Rung::TurnTcp, [2; 12]);
        assert!(race.answered(Rung::TurnTcp, [2; 12], later + 5 * MS));
        assert_eq!(
            outcome(&race, Rung::TurnTcp),
            (Outcome::Chosen, Some(5 * MS))
        );
    }

    #[test]
    fn checks_are_remembered_within_bounds() {
        let (mut race, start) = full(Transport::Udp, None);
        race.advance(start);
        for n in 0..10_000_u32 {
            let mut id = [0; 12];
            id[..4].copy_from_slice(&n.to_be_bytes());
            race.checked(Rung::Udp, id);
        }
        assert_eq!(race.checks.len(), CHECKS);
    }
}
