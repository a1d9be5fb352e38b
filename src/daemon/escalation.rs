//! What is done about whoever is stuck, from the smallest remedy to the largest. Pure: told the time.
//!
//! A stuck publisher begins anew alone, for the others may be on air. If it is stuck again within [`RELAPSE`], or if
//! a feed is stuck, which nothing inside this process can mend, the process ends and the service manager starts
//! another: a thread that hangs in a driver cannot be ended in any other way.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::health::{Health, Part};

/// A publisher that is stuck again so soon was not helped.
const RELAPSE: Duration = Duration::from_secs(3600);

/// Longest time between a standstill that only the end of the process mends and that end.
const PATIENCE: Duration = Duration::from_secs(10);

/// What is to be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// End the process, for this reason.
    End(String),
    /// Begin the publisher of this name anew.
    Restart(String),
}

/// Remembers what was tried.
#[derive(Debug)]
pub(super) struct Escalation {
    /// How long a standstill that only the end of the process mends may last.
    window: Duration,
    restarted: BTreeMap<String, Instant>,
    hopeless_since: Option<Instant>,
}

impl Escalation {
    /// An escalation that is through before a service manager which wants to hear every `watchdog` ends the process
    /// itself, without an orderly end.
    pub(super) fn new(watchdog: Option<Duration>) -> Self {
        let window = watchdog.map_or(PATIENCE, |every| PATIENCE.min(every / 4));
        Self {
            window,
            restarted: BTreeMap::new(),
            hopeless_since: None,
        }
    }

    /// What to do about `health`, one thing at a time.
    pub(super) fn on(&mut self, now: Instant, health: &Health) -> Option<Remedy> {
        let mut hopeless = false;
        for stuck in &health.stuck {
            match &stuck.part {
                Part::Publisher(name) if !self.relapsed(now, name) => {
                    self.restarted.insert(name.clone(), now);
                    return Some(Remedy::Restart(name.clone()));
                }
                Part::Publisher(_) | Part::Audio(_) | Part::Video(_) => hopeless = true,
            }
        }
        if !hopeless {
            self.hopeless_since = None;
            return None;
        }
        let since = *self.hopeless_since.get_or_insert(now);
        let over = now.saturating_duration_since(since) >= self.window;
        over.then(|| Remedy::End(health.words(now)))
    }

    fn relapsed(&self, now: Instant, name: &str) -> bool {
        let last = self.restarted.get(name);
        last.is_some_and(|last| now.saturating_duration_since(*last) < RELAPSE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Stuck;

    const S: Duration = Duration::from_secs(1);

    fn stuck(at: Instant, parts: &[Part]) -> Health {
        let stuck = parts.iter().map(|part| Stuck {
            part: part.clone(),
            doing: "connecting",
            since: at,
        });
        Health {
            at,
            stuck: stuck.collect(),
        }
    }

    fn publisher(name: &str) -> Part {
        Part::Publisher(name.to_owned())
    }

    #[test]
    fn a_stuck_publisher_begins_anew_alone_and_a_relapse_ends_the_process() {
        let t0 = Instant::now();
        let mut escalation = Escalation::new(None);
        let health = stuck(t0, &[publisher("a"), publisher("b")]);
        let restart = |name: &str| Some(Remedy::Restart(name.to_owned()));
        assert_eq!(escalation.on(t0, &health), restart("a"));
        assert_eq!(escalation.on(t0, &health), restart("b"));
        assert_eq!(escalation.on(t0 + S, &stuck(t0 + S, &[])), None);

        let again = t0 + S * 600;
        let health = stuck(again, &[publisher("a")]);
        assert_eq!(escalation.on(again, &health), None);
        assert_eq!(escalation.on(again + S * 9, &health), None);
        let why = "publisher a is stuck connecting for 10 s";
        let fresh = Health {
            at: again + S * 10,
            ..health
        };
        let end = Some(Remedy::End(why.to_owned()));
        assert_eq!(escalation.on(again + S * 10, &fresh), end);
    }

    #[test]
    fn what_was_mended_long_ago_is_mended_again() {
        let t0 = Instant::now();
        let mut escalation = Escalation::new(None);
        for day in 0..100 {
            let now = t0 + S * 86_400 * day;
            let remedy = escalation.on(now, &stuck(now, &[publisher("a")]));
            assert_eq!(remedy, Some(Remedy::Restart("a".to_owned())));
        }
    }

    #[test]
    fn a_stuck_feed_ends_the_process_unless_it_moves_again_in_time() {
        let t0 = Instant::now();
        // Of twenty seconds, five are waited, five may have passed since the manager heard last, seven are the drain's.
        let mut escalation = Escalation::new(Some(S * 20));
        let video = [Part::Video("front".to_owned())];
        assert_eq!(escalation.on(t0, &stuck(t0, &video)), None);
        assert_eq!(escalation.on(t0 + S * 4, &stuck(t0, &[])), None);
        let again = t0 + S * 10;
        assert_eq!(escalation.on(again, &stuck(again, &video)), None);
        let over = again + S * 5;
        let remedy = escalation.on(over, &stuck(again, &video));
        assert!(matches!(remedy, Some(Remedy::End(_))), "{remedy:?}");
    }
}
