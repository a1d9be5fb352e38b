//! The last watchdog: a plain thread that ends the process when the runtime no longer runs, which nothing that runs on
//! it could tell.

use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::time::Duration;

/// Waits in a row without a beat after which the runtime counts as dead. More than one, for a process that was
/// stopped and goes on finds the first over before anything else has run.
const WAITS: u32 = 2;

/// A running watchdog. Dropping it ends its thread.
#[derive(Debug)]
#[must_use]
pub(super) struct Watchdog {
    beats: SyncSender<()>,
}

impl Watchdog {
    /// Starts the thread, which calls `bite` once if no beat comes for `patience`, and ends.
    pub(super) fn start(
        patience: Duration,
        bite: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (beats, heard) = sync_channel(1);
        std::thread::Builder::new()
            .name("onair-watchdog".to_owned())
            .spawn(move || {
                if !lives(&heard, patience / WAITS) {
                    bite();
                }
            })?;
        Ok(Self { beats })
    }

    /// The runtime runs.
    pub(super) fn beat(&self) {
        match self.beats.try_send(()) {
            // A beat that was not yet heard says the same; after a bite nobody listens.
            Ok(()) | Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
        }
    }
}

/// Listens until the watchdog is dropped (true) or beats no longer come (false).
fn lives(heard: &Receiver<()>, wait: Duration) -> bool {
    let mut missed = 0;
    loop {
        match heard.recv_timeout(wait) {
            Ok(()) => missed = 0,
            Err(RecvTimeoutError::Disconnected) => return true,
            Err(RecvTimeoutError::Timeout) => missed += 1,
        }
        if missed == WAITS {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Longer than any pause of a busy machine.
    const LONG: Duration = Duration::from_secs(60);

    #[test]
    fn it_bites_once_beats_no_longer_come() {
        let (bite, bitten) = sync_channel(1);
        let watchdog = Watchdog::start(Duration::from_millis(20), move || bite.send(()).unwrap());
        let watchdog = watchdog.unwrap();
        watchdog.beat();
        assert_eq!(bitten.recv_timeout(LONG), Ok(()));
        watchdog.beat();
    }

    #[test]
    fn it_ends_without_a_bite_when_it_is_no_longer_wanted() {
        let (bite, bitten) = sync_channel::<()>(1);
        let watchdog = Watchdog::start(LONG * 60, move || bite.send(()).unwrap()).unwrap();
        for _ in 0..100 {
            watchdog.beat();
        }
        drop(watchdog);
        // The thread has let go of what it would have bitten with.
        assert_eq!(
            bitten.recv_timeout(LONG),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
