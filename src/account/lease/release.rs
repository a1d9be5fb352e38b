//! A stream is given back: stopped if onair started it, and until that is certain.
//!
//! A vendor's word that a stream rests is not believed as long as a start of it may still take effect. One that was
//! asked for and never answered may do so for another [`STALE_FOR`], even after a stop that was obeyed; one that was
//! answered has taken place, and a stop that is obeyed ends it, but a look at the stream may be older than it. What is
//! not certain by the end of [`RELEASE_WITHIN`] stays written down as ours, for the next start of onair to stop.

use std::time::Duration;

use super::super::STALE_FOR;
use super::super::ledger::Key;
use super::{Lease, cannot_tell, now};
use crate::config::platform::OnExit;
use crate::platform::{Refusal, Rest, State};

/// Longest time in which a stream is given back: longer than a start may be in doubt, and together with all else that
/// happens at the end within the service manager's time for it.
pub const RELEASE_WITHIN: Duration = Duration::from_secs(17);

/// Tries of one stop that fail, and the pause between them.
const STOP_TRIES: u32 = 3;
const STOP_AGAIN: Duration = Duration::from_secs(2);

/// Why a stream is given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Release {
    /// Its hours or its minutes end: it is stopped.
    Close,
    /// onair ends: `on_exit` decides.
    Exit,
    /// Another publisher goes on with it at once: it is left as it is.
    HandOver,
}

/// A start of which it is not certain what became of it.
struct Doubt {
    /// How long it lasts.
    left: Duration,
    /// The start took place, and only a look at the stream may be older than that.
    took_place: bool,
}

impl Lease {
    /// Gives the stream back: stops it if onair started it and nothing speaks against it. Bounded by
    /// [`RELEASE_WITHIN`]; what could not be stopped stays written down.
    pub async fn release(&mut self, release: Release) {
        let given = tokio::time::timeout(RELEASE_WITHIN, self.give_back(release)).await;
        if given.is_err() {
            tracing::error!(
                "the platform did not say within {} s that the stream is stopped; onair asks again later or at its next start",
                RELEASE_WITHIN.as_secs()
            );
        }
    }

    async fn give_back(&mut self, release: Release) {
        let until = now() + RELEASE_WITHIN;
        self.count().await;
        self.good_until = None;
        let Some(key) = self.held().filter(|_| release != Release::HandOver) else {
            return;
        };
        if (release, self.config.on_exit) == (Release::Exit, OnExit::Leave) {
            tracing::info!("the stream goes on, and goes on costing (on_exit = \"leave\")");
            self.account.write(|ledger| ledger.leave(&key)).await;
            return;
        }
        let mut tries = 0;
        let failed = loop {
            if let Some((at, error)) = &self.quiet {
                let wait = at.saturating_duration_since(now());
                // Who has to wait longer than there is time has better not ask before.
                if now() + wait >= until {
                    break error.clone();
                }
                tokio::time::sleep(wait).await;
                self.quiet = None;
            }
            match self.platform.stop(&key.id).await {
                Ok(rest) => match self.doubt(&key) {
                    Some(doubt) if !(doubt.took_place && rest.obeyed) => {
                        tracing::debug!("the stream is {}, but may still come up", rest.state);
                        tokio::time::sleep(doubt.left.min(STOP_AGAIN)).await;
                    }
                    Some(_) | None => return self.is_stopped(&key, rest).await,
                },
                Err(error) if error.is_gone() => {
                    self.rests(&key, State::Stopped, false).await;
                    return;
                }
                Err(error) => {
                    tries += 1;
                    self.quiet = error
                        .retry_after()
                        .map(|wait| (now() + wait, error.clone()));
                    // A stream may not be stopped while it starts.
                    let passes =
                        cannot_tell(&error) || error.refusal() == Some(Refusal::WrongState);
                    if tries >= STOP_TRIES || !passes {
                        break error;
                    }
                    tokio::time::sleep(STOP_AGAIN).await;
                }
            }
        };
        tracing::error!(
            "the stream was not stopped and goes on costing: {failed}. onair stops it later or at its next start; \
             `onair stream stop` does so now"
        );
    }

    async fn is_stopped(&mut self, key: &Key, rest: Rest) {
        tracing::info!("the stream is stopped at {}", key.vendor);
        // Nobody fights for a stream that onair itself stops.
        self.account.change(|ledger| ledger.ends_in_order(key));
        self.rests(key, rest.state, false).await;
    }

    /// Whether a start may still take effect, or the vendor may not show yet that it did.
    fn doubt(&self, key: &Key) -> Option<Doubt> {
        let (since, took_place) = match self.asked {
            Some(asked) => (now().saturating_duration_since(asked.at), asked.took_place),
            // Asked for by another publisher, or by a former onair.
            None => {
                let wall = self.account.wall();
                let since = self.account.read(|ledger| ledger.in_doubt_for(key, wall))?;
                (since, false)
            }
        };
        let left = self.account.scaled(STALE_FOR).saturating_sub(since);
        (!left.is_zero()).then_some(Doubt { left, took_place })
    }

    /// Whether a start may still take effect.
    pub(super) fn may_come_up(&self, key: &Key) -> bool {
        self.doubt(key).is_some_and(|doubt| !doubt.took_place)
    }
}
