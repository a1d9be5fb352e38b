//! What is configured and cannot be started: shown with the reason, so that it counts as not ready, until a later try
//! succeeds.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use crate::config::Publisher;
use crate::publisher::{Snapshot, State, Verdict};

/// How often it is tried to start what could not be started.
pub const AGAIN_EVERY: Duration = Duration::from_secs(30);

/// When it is tried again at the latest, for a change of the configuration may come before.
const AGAIN_WITHIN: Duration = Duration::from_secs(90);

/// Publishers that are not there though they should be, by name.
#[derive(Debug, Default)]
pub(super) struct Absent(BTreeMap<String, watch::Sender<Snapshot>>);

impl Absent {
    /// Takes note that `publisher` cannot start at `now`, and why.
    pub(super) fn note(&mut self, name: &str, publisher: &Publisher, why: String, now: Instant) {
        let state = State::Waiting {
            due: now + AGAIN_WITHIN,
            cause: why.clone(),
            verdict: Verdict::Operator {
                advice: why,
                every: AGAIN_EVERY,
            },
            unreachable: false,
        };
        let snapshot = Snapshot::before_any(publisher, state);
        match self.0.get(name) {
            Some(seen) => drop(seen.send_replace(snapshot)),
            None => drop(self.0.insert(name.to_owned(), watch::Sender::new(snapshot))),
        }
    }

    /// Why it cannot start, as far as is known.
    pub(super) fn why(&self, name: &str) -> Option<String> {
        match &self.0.get(name)?.borrow().state {
            State::Waiting { cause, .. } => Some(cause.clone()),
            State::Connecting { .. }
            | State::OffAir(_)
            | State::OnAir { .. }
            | State::Stopped
            | State::Stopping => None,
        }
    }

    /// Forgets it, for it runs or is not wanted any more; what was shown of it.
    pub(super) fn forget(&mut self, name: &str) -> Option<Snapshot> {
        self.0.remove(name).map(|seen| seen.borrow().clone())
    }

    /// Forgets all that are not `wanted`.
    pub(super) fn retain(&mut self, wanted: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| wanted(name));
    }

    /// What is shown of each.
    pub(super) fn watches(&self) -> impl Iterator<Item = (String, watch::Receiver<Snapshot>)> {
        (self.0.iter()).map(|(name, seen)| (name.clone(), seen.subscribe()))
    }
}
