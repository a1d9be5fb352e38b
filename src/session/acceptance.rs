//! Is our media accepted? The one question behind *on air*, answered from the server's receiver reports.
//!
//! An open socket, an ICE pair, a finished DTLS handshake prove nothing: a server can take all three and drop
//! every packet (OvenMediaEngine does, if the answer lacks `a=ssrc`). Only a receiver report whose highest
//! sequence number is ours, and grows, says that media arrives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::media::access_unit::Track;

/// What is known of the server's acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Acceptance {
    /// Receiver reports advance.
    Confirmed,
    /// Media leaves, nothing is known yet.
    Pending,
    /// Receiver reports come, but have stopped advancing.
    Stuck,
    /// No receiver report ever came; the transport alone is alive.
    Unconfirmed,
}

/// Watches receiver reports. Told the time.
#[derive(Debug)]
pub(super) struct Watch {
    within: Duration,
    since: Instant,
    highest: BTreeMap<Track, u32>,
    has_grown: bool,
    /// The first and the latest report since one grew last.
    standing: Option<(Instant, Instant)>,
}

impl Watch {
    /// Media begins to leave at `now`. A server that consents to our packets but sends no receiver report `within` so
    /// long is taken at its word; reports that come but do not grow for so long mean that media no longer arrives.
    pub(super) const fn new(now: Instant, within: Duration) -> Self {
        Self {
            within,
            since: now,
            highest: BTreeMap::new(),
            has_grown: false,
            standing: None,
        }
    }

    /// A receiver report for `track` names `highest` as extended highest sequence number received.
    pub(super) fn report(&mut self, now: Instant, track: Track, highest: u32) {
        // A report before the first packet says 0; our sequence numbers start at 1 or above.
        let before = self.highest.insert(track, highest).unwrap_or(0);
        if highest > before {
            self.has_grown = true;
            self.standing = None;
        } else {
            let (first, _) = self.standing.unwrap_or((now, now));
            self.standing = Some((first, now));
        }
    }

    /// The state of things at `now`.
    pub(super) fn acceptance(&self, now: Instant) -> Acceptance {
        match self.standing {
            Some((first, latest)) if latest.saturating_duration_since(first) >= self.within => {
                Acceptance::Stuck
            }
            _ if self.has_grown => Acceptance::Confirmed,
            None if now.saturating_duration_since(self.since) >= self.within => {
                Acceptance::Unconfirmed
            }
            Some(_) | None => Acceptance::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn the_first_report_of_our_packets_is_acceptance() {
        let t = Instant::now();
        let mut watch = Watch::new(t, 10 * S);
        assert_eq!(watch.acceptance(t + S), Acceptance::Pending);
        watch.report(t + S, Track::Video, 12);
        assert_eq!(watch.acceptance(t + S), Acceptance::Confirmed);
    }

    #[test]
    fn a_server_without_reports_is_unconfirmed_after_its_time() {
        let t = Instant::now();
        for seconds in 10..=20 {
            let within = S * seconds;
            let watch = Watch::new(t, within);
            assert_eq!(watch.acceptance(t + within - S), Acceptance::Pending);
            assert_eq!(watch.acceptance(t + within), Acceptance::Unconfirmed);
        }
    }

    #[test]
    fn reports_that_never_grow_are_not_acceptance() {
        let t = Instant::now();
        let mut watch = Watch::new(t, 10 * S);
        for n in 1..=11 {
            watch.report(t + n * S, Track::Video, 0);
        }
        assert_eq!(watch.acceptance(t + 11 * S), Acceptance::Stuck);
    }

    #[test]
    fn one_growing_track_is_enough_and_standing_still_is_noticed() {
        let t = Instant::now();
        let mut watch = Watch::new(t, 10 * S);
        for n in 1..=20 {
            watch.report(t + n * S, Track::Video, 7);
            watch.report(t + n * S, Track::Audio, 50 * n);
        }
        assert_eq!(watch.acceptance(t + 20 * S), Acceptance::Confirmed);
        for n in 21..=31 {
            watch.report(t + n * S, Track::Audio, 1_000);
        }
        assert_eq!(watch.acceptance(t + 31 * S), Acceptance::Stuck);
    }

    #[test]
    fn reports_that_stop_altogether_leave_the_judgement_to_ice() {
        let t = Instant::now();
        let mut watch = Watch::new(t, 10 * S);
        watch.report(t + S, Track::Video, 12);
        assert_eq!(watch.acceptance(t + 60 * S), Acceptance::Confirmed);
        // The first one after an outage may be older than the first packet after it.
        watch.report(t + 60 * S, Track::Video, 12);
        assert_eq!(watch.acceptance(t + 60 * S), Acceptance::Confirmed);
        watch.report(t + 61 * S, Track::Video, 40);
        watch.report(t + 80 * S, Track::Video, 40);
        assert_eq!(watch.acceptance(t + 80 * S), Acceptance::Confirmed);
    }
}
