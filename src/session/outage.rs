//! A path of no use: how long it has been so, and whether that is too long. Pure.
//!
//! ICE says that nothing comes any more, a full TCP connection says that nothing goes: both mean the same lost network,
//! and whichever is said first begins the wait. Either can heal by itself, a connection that broke cannot.

use std::time::{Duration, Instant};

use crate::signal::Dialect;

/// Grace for a path that ICE calls disconnected, before the session is given up (protocols.md 1.6).
const DISCONNECTED_GRACE: Duration = Duration::from_secs(3);

/// The same where only the server's own time-out frees a name: a session given up early would meet its own ghost.
const HELD_GRACE: Duration = Duration::from_secs(20);

/// The same while there is no way out of this host: nothing better could be begun, and no server remembers a session for
/// longer.
const STRANDED_GRACE: Duration = Duration::from_secs(30);

/// What is wrong with the path of a session, and since when.
#[derive(Debug)]
pub(super) struct Outage {
    grace: Duration,
    /// Nothing comes from the server.
    silent: Option<Instant>,
    /// The connection takes no media, and had taken none for so long when that was said.
    full: Option<(Instant, Duration)>,
    /// The connection is closed for good.
    broken: bool,
}

impl Outage {
    /// A path that has just come up.
    pub(super) const fn none(dialect: Dialect) -> Self {
        let grace = if dialect.frees_names() {
            DISCONNECTED_GRACE
        } else {
            HELD_GRACE
        };
        Self {
            grace,
            silent: None,
            full: None,
            broken: false,
        }
    }

    /// ICE hears nothing any more.
    pub(super) fn silent(&mut self, now: Instant) {
        self.silent.get_or_insert(now);
    }

    /// The connection has taken nothing for `long`.
    pub(super) fn full(&mut self, now: Instant, long: Duration) {
        let since = now.checked_sub(long).unwrap_or(now);
        self.full.get_or_insert((since, long));
    }

    /// The connection broke.
    pub(super) const fn broken(&mut self) {
        self.broken = true;
    }

    /// The connection takes media again.
    pub(super) const fn drained(&mut self) {
        self.full = None;
    }

    /// The path is up.
    pub(super) const fn over(&mut self) {
        (self.silent, self.full, self.broken) = (None, None, false);
    }

    /// There is a way out of this host again: what can heal gets the usual time from here on.
    pub(super) fn again(&mut self, now: Instant) {
        self.silent = self.silent.map(|_| now);
        if let Some((_, long)) = self.full.take() {
            self.full(now, long);
        }
    }

    /// Whether media is taken.
    pub(super) const fn takes_media(&self) -> bool {
        self.full.is_none() && !self.broken
    }

    /// Whether a full connection is waited for.
    pub(super) const fn is_full(&self) -> bool {
        self.full.is_some() && !self.broken
    }

    /// Whether the path counts as lost. `stranded`: there is no way out of this host.
    pub(super) fn is_loss(&self, now: Instant, stranded: bool) -> bool {
        let grace = if stranded { STRANDED_GRACE } else { self.grace };
        let long = |since| now.saturating_duration_since(since) >= grace;
        self.broken && !stranded
            || self.silent.is_some_and(long)
            || self.full.is_some_and(|(since, _)| long(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);
    const OTHERS: [Dialect; 3] = [Dialect::Ome, Dialect::Whip, Dialect::WowzaV2];

    fn start() -> Instant {
        Instant::now() + 100 * S
    }

    #[test]
    fn a_full_connection_is_a_loss_at_once_but_where_the_name_would_stay_taken() {
        let t = start();
        for dialect in OTHERS {
            let mut outage = Outage::none(dialect);
            outage.full(t, 3 * S);
            assert!(outage.is_loss(t, false), "{dialect}");
        }
        let mut outage = Outage::none(Dialect::WowzaV1);
        outage.full(t, 3 * S);
        assert!(!outage.takes_media() && outage.is_full());
        assert!(!outage.is_loss(t + 16 * S, false));
        assert!(outage.is_loss(t + 17 * S, false), "the 3 s before count");
    }

    #[test]
    fn whichever_is_said_first_begins_the_wait_and_what_is_said_again_does_not() {
        let t = start();
        let mut outage = Outage::none(Dialect::WowzaV1);
        outage.full(t, 3 * S);
        outage.silent(t + S);
        outage.full(t + 10 * S, 3 * S);
        assert!(outage.is_loss(t + 17 * S, false));
        // The connection takes media again, the answers may be on their way.
        outage.drained();
        assert!(outage.takes_media());
        assert!(!outage.is_loss(t + 17 * S, false));
        assert!(outage.is_loss(t + 21 * S, false));
        outage.over();
        assert!(!outage.is_loss(t + 100 * S, false));
    }

    #[test]
    fn without_a_way_out_all_wait_longer_and_get_the_usual_time_after_it() {
        let t = start();
        for dialect in OTHERS {
            let mut outage = Outage::none(dialect);
            outage.silent(t);
            assert!(!outage.is_loss(t + 29 * S, true), "{dialect}");
            assert!(outage.is_loss(t + 30 * S, true), "{dialect}");
            outage.again(t + 29 * S);
            assert!(!outage.is_loss(t + 31 * S, false), "{dialect}");
            assert!(outage.is_loss(t + 32 * S, false), "{dialect}");
        }
        let mut outage = Outage::none(Dialect::WowzaV1);
        outage.full(t, 3 * S);
        outage.again(t + 26 * S);
        assert!(!outage.is_loss(t + 42 * S, false));
        assert!(outage.is_loss(t + 43 * S, false));
    }

    #[test]
    fn what_broke_without_a_way_out_is_a_loss_as_soon_as_there_is_one() {
        let t = start();
        let mut outage = Outage::none(Dialect::WowzaV1);
        outage.broken();
        assert!(!outage.takes_media() && !outage.is_full());
        assert!(!outage.is_loss(t, true));
        outage.again(t);
        assert!(outage.is_loss(t, false));
    }
}
