//! The last watchdog: a plain thread that ends the process when the runtime no longer runs, which nothing that runs on
//! it could tell, or when whoever beats for it has vanished. Only its owner's word calls it off.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

/// Waits in a row without a beat after which the runtime counts as dead. More than one, for a process that was
/// stopped and goes on finds the first over before anything else has run.
const WAITS: u32 = 2;

/// A running watchdog. Dropping it calls it off, and ends its thread.
#[derive(Debug)]
#[must_use]
pub(super) struct Watchdog {
    beats: Beats,
    off: Arc<AtomicBool>,
}

/// Where the beats go. One that is gone beats no more, and that is all that it says.
#[derive(Clone, Debug)]
pub(super) struct Beats(SyncSender<()>);

impl Watchdog {
    /// Starts the thread, which calls `bite` once if no beat comes for `patience`, and ends.
    pub(super) fn start(
        patience: Duration,
        bite: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let (beats, heard) = sync_channel(1);
        let off = Arc::new(AtomicBool::new(false));
        let called_off = Arc::clone(&off);
        std::thread::Builder::new()
            .name("onair-watchdog".to_owned())
            .spawn(move || {
                if !lives(&heard, patience / WAITS, &called_off) {
                    bite();
                }
            })?;
        Ok(Self {
            beats: Beats(beats),
            off,
        })
    }

    /// For whoever is to beat.
    pub(super) fn beats(&self) -> Beats {
        self.beats.clone()
    }
}

impl Drop for Watchdog {
    fn drop(&mut self) {
        self.off.store(true, Ordering::Release);
        self.beats.beat();
    }
}

impl Beats {
    /// The runtime runs.
    pub(super) fn beat(&self) {
        // One that was not yet heard says the same; after a bite nobody listens.
        _ = self.0.try_send(());
    }
}

/// Listens until the watchdog is called off (true) or beats no longer come (false).
fn lives(heard: &Receiver<()>, wait: Duration, off: &AtomicBool) -> bool {
    let mut missed = 0;
    while missed < WAITS {
        match heard.recv_timeout(wait) {
            Ok(()) => missed = 0,
            Err(RecvTimeoutError::Disconnected) => return off.load(Ordering::Acquire),
            Err(RecvTimeoutError::Timeout) => missed += 1,
        }
        if off.load(Ordering::Acquire) {
            return true;
        }
    }
    false
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
        let beats = watchdog.beats();
        beats.beat();
        assert_eq!(bitten.recv_timeout(LONG), Ok(()));
        beats.beat();
    }

    #[test]
    fn it_bites_when_whoever_beat_for_it_has_vanished() {
        let (bite, bitten) = sync_channel(1);
        let watchdog = Watchdog::start(Duration::from_millis(20), move || bite.send(()).unwrap());
        let watchdog = watchdog.unwrap();
        let beats = watchdog.beats();
        let beating = std::thread::spawn(move || {
            beats.beat();
            panic!("this one is meant");
        });
        assert!(beating.join().is_err());
        assert_eq!(bitten.recv_timeout(LONG), Ok(()));
    }

    #[test]
    fn it_ends_without_a_bite_when_it_is_no_longer_wanted() {
        let (bite, bitten) = sync_channel::<()>(1);
        let watchdog = Watchdog::start(LONG * 60, move || bite.send(()).unwrap()).unwrap();
        let beats = watchdog.beats();
        for _ in 0..100 {
            beats.beat();
        }
        // Also while whoever beats is still there.
        drop(watchdog);
        // The thread has let go of what it would have bitten with.
        assert_eq!(
            bitten.recv_timeout(LONG),
            Err(RecvTimeoutError::Disconnected)
        );
    }
}
